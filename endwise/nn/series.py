"""Layers for series that know no modality: masked standardising, augmentation, convolutions of several widths, patches.

Values are [batch, step, channel] with a mask of what is there; no padding and no missing value changes anything real.
Not here: reading, statistics of training rows, forecasts (modalities/series).
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.nn.blocks import Block, Dropout
from endwise.nn.size import Size

KERNELS = (9, 19, 39)  # InceptionTime (Fawaz et al. 2020) has 10, 20 and 40; odd ones lie on their step
FIRST_KERNEL = 15
QUIET = 1e-4  # of a variance, in squared deviations of the training rows
ENERGY_FLOOR = 1e-6


def standardised(
    values: Float[Tensor, "batch step channel"],
    there: Bool[Tensor, "batch step channel"],
    mean: Float[Tensor, " channel"],
    deviation: Float[Tensor, " channel"],
) -> Float[Tensor, "batch step channel"]:
    """In deviations from the mean; 0 where nothing is."""
    return torch.where(there, (torch.where(there, values, mean) - mean) / deviation, 0.0)


def moments(
    x: Float[Tensor, "batch step channel"], there: Bool[Tensor, "batch step channel"]
) -> tuple[Float[Tensor, "batch 1 channel"], Float[Tensor, "batch 1 channel"]]:
    """Mean and deviation of each row's channels over what is there."""
    count = there.sum(1, keepdim=True).clamp(min=1)
    mean = torch.where(there, x, 0.0).sum(1, keepdim=True) / count
    variance = torch.where(there, (x - mean).square(), 0.0).sum(1, keepdim=True) / count
    return mean, (variance + QUIET).sqrt()


def last_there(
    x: Float[Tensor, "batch step channel"], there: Bool[Tensor, "batch step channel"]
) -> Float[Tensor, "batch 1 channel"]:
    """The last value of each channel; 0 where there is none."""
    places = torch.arange(x.shape[1], device=x.device)[None, :, None]
    at = torch.where(there, places, 0).amax(1, keepdim=True)
    return torch.where(there, x, 0.0).gather(1, at)


def jittered(
    x: Float[Tensor, "batch step channel"], *, jitter: float, scaling: float
) -> Float[Tensor, "batch step channel"]:
    """Noise on every value and a gain of each channel (Um et al. 2017), both drawn anew for each row."""
    gain = 1 + scaling * torch.randn(x.shape[0], 1, x.shape[2], device=x.device)
    return x * gain + jitter * torch.randn_like(x)


def hidden_stretch(sizes: Int[Tensor, " batch"], longest: float, steps: int) -> Bool[Tensor, "batch step 1"]:
    """One stretch of each row, up to a share `longest` of it."""
    draw = torch.rand(2, len(sizes), device=sizes.device)
    length = draw[0] * longest * sizes
    start = draw[1] * (sizes - length)
    places = torch.arange(steps, device=sizes.device)
    hidden: Bool[Tensor, "batch step 1"] = ((places >= start[:, None]) & (places < (start + length)[:, None]))[
        ..., None
    ]
    return hidden


class Convolution(nn.Module):
    """A centred convolution over the real steps: what lies beyond a row's end is zero, whatever it holds. With a stride of s,
    n steps become (n - 1) // s + 1."""

    def __init__(self, inward: int, outward: int, kernel: int, *, stride: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.inner = nn.Conv1d(inward, outward, kernel, stride=stride, padding=kernel // 2, bias=bias)

    def forward(
        self, x: Float[Tensor, "batch step inward"], mask: Bool[Tensor, "batch step"]
    ) -> Float[Tensor, "batch kept outward"]:
        out: Tensor = self.inner((x * mask[..., None]).transpose(1, 2)).transpose(1, 2)
        return out


class ScalesBlock(nn.Module):
    """A residual block of three widths of kernel side by side and the largest of three steps (InceptionTime), with a norm
    over the channels of each step, which no other step or row has a say in."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        part = size.width // 4
        self.norm = nn.RMSNorm(size.width)
        self.inward = nn.Linear(size.width, part, bias=False)
        self.scales = nn.ModuleList([Convolution(part, part, kernel, bias=False) for kernel in KERNELS])
        self.peaks = nn.Linear(size.width, size.width - 3 * part, bias=False)
        self.outward = nn.Linear(size.width, size.width, bias=False)
        self.dropout = Dropout(size.dropout)

    def forward(
        self, x: Float[Tensor, "batch step width"], mask: Bool[Tensor, "batch step"]
    ) -> Float[Tensor, "batch step width"]:
        normed = self.norm(x) * mask[..., None]
        narrow = self.inward(normed)
        ended = F.pad(normed, (0, 0, 1, 1))  # zeros beyond the end, as where padding follows
        largest = torch.maximum(torch.maximum(ended[:, :-2], normed), ended[:, 2:])
        mixed = torch.cat([*(scale(narrow, mask) for scale in self.scales), self.peaks(largest)], dim=-1)
        out: Tensor = x + self.dropout(self.outward(F.silu(mixed)))
        return out


class Energies(nn.Module):
    """The logarithm of each channel's mean energy over a row's real steps, as one vector: what bands of a spectrum are to
    filters (ShallowConvNet; Schirrmeister et al. 2017)."""

    def __init__(self, channels: int, size: Size) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.outward = nn.Linear(channels, size.width)

    def forward(
        self, x: Float[Tensor, "batch step channel"], mask: Bool[Tensor, "batch step"]
    ) -> Float[Tensor, "batch 1 width"]:
        real = mask[..., None].float()
        energy = (x.float().square() * real).sum(1) / real.sum(1).clamp(min=1)
        out: Tensor = self.outward(self.norm((energy + ENERGY_FLOOR).log()))[:, None]
        return out


class ChannelBlock(nn.Module):
    """A transformer block within each channel: tokens lie channel after channel, equally many of each."""

    def __init__(self, size: Size, channels: int) -> None:
        super().__init__()
        self.inner, self.channels = Block(size), channels

    def forward(
        self, x: Float[Tensor, "batch token width"], mask: Bool[Tensor, "batch token"]
    ) -> Float[Tensor, "batch token width"]:
        apart = x.reshape(x.shape[0] * self.channels, -1, x.shape[2])
        out: Tensor = self.inner(apart, mask.reshape(apart.shape[:2]), rotary=True)
        return out.reshape(x.shape)


def patches(
    x: Float[Tensor, "batch step channel"], *, length: int, stride: int
) -> Float[Tensor, "batch channel patch length"]:
    """Overlapping stretches of each channel, the last of which ends with the row; zeros before its beginning."""
    steps = x.shape[1]
    lacking = (length - steps) if steps < length else -(steps - length) % stride
    return F.pad(x.transpose(1, 2), (lacking, 0)).unfold(2, length, stride)


__all__ = [
    "ChannelBlock",
    "Convolution",
    "Energies",
    "ScalesBlock",
    "hidden_stretch",
    "jittered",
    "last_there",
    "moments",
    "patches",
    "standardised",
]
