"""Layers for sound that know no modality: waveform to log-mel frames (computed, or learnt), augmentation of waves and
of frames, strided convolutions over them, and the block of attention and convolution (after the Conformer).

Everything here is differentiable down to the samples, takes the real length of each row, and lets no padding change a
real frame. Reading files and choosing sizes is not in here.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.nn.blocks import Attention, Dropout, FeedForward
from endwise.nn.mel import Framing, fourier, gabor, hann, mel_filters
from endwise.nn.size import Size

FLOOR = 1e-5  # energies below this share of the recording's mean (-50 dB) are one level: the noise of the recording
QUIET = 1e-12  # what silence is divided by
CONV_TOKENS = (
    15  # kernel of the depthwise convolution, in tokens (Conformer uses 31 at 40 ms; here tokens may be 20 ms)
)
NOISE_DB = (10.0, 50.0)  # signal over noise
MASKS, MASK_TIME_SHARE, MASK_MEL_SHARE = 2, 0.10, 0.25


# ---- from samples to frames ------------------------------------------------------------------------------------------


class LogMel(nn.Module):
    """Waveform to log-mel frames: 25 ms every 10 ms, levels relative to the recording's own mean.

    A gain of the recording changes nothing. The Fourier transform is a strided convolution with a fixed kernel: the
    same graph in training and in an export, with a dynamic number of samples.
    """

    kernel: Tensor
    mel: Tensor

    def __init__(self, rate_hz: int, mels: int) -> None:
        super().__init__()
        self.framing = Framing.of(rate_hz)
        self.register_buffer(
            "kernel", torch.tensor(fourier(self.framing), dtype=torch.float32)[:, None], persistent=False
        )
        self.register_buffer(
            "mel", torch.tensor(mel_filters(rate_hz, self.framing.fft, mels), dtype=torch.float32), persistent=False
        )

    def forward(
        self, wave: Float[Tensor, "batch sample"], mask: Bool[Tensor, "batch frame"]
    ) -> Float[Tensor, "batch frame mel"]:
        """wave: zero past each row's end; mask: the real frames, one for every started hop."""
        return levels(self.energy(F.pad(wave, (self.framing.before, self.framing.after))), mask)

    @property
    def reach(self) -> int:
        """Samples that a frame hears."""
        return self.framing.window

    def energy(self, padded: Float[Tensor, "batch sample"]) -> Float[Tensor, "batch frame mel"]:
        """Energies of the bands every hop, of the samples as they are: n of them make (n - reach) // hop + 1 frames."""
        power = _energy(F.conv1d(padded[:, None], self.kernel, stride=self.framing.hop))
        return power.transpose(1, 2) @ self.mel


class LearntMel(nn.Module):
    """Waveform to frames by learnt filters: a strided convolution that starts as mel-spaced Gabor pairs, their energy,
    and a learnt low-pass (Zeghidour et al. 2018). As many bands, at the same times, as `LogMel`."""

    def __init__(self, rate_hz: int, mels: int) -> None:
        super().__init__()
        self.framing = Framing.of(rate_hz)
        self.quarter = self.framing.hop // 4
        self.span = 8 * self.quarter  # 20 ms filters every 2.5 ms, then eight of them under one low-pass window
        self.filters = nn.Parameter(torch.from_numpy(gabor(rate_hz, self.span, mels)).float()[:, None])
        self.low_pass = nn.Parameter(torch.from_numpy(hann(9)[1:] / 4).float().expand(mels, 1, 8).clone())

    def forward(
        self, wave: Float[Tensor, "batch sample"], mask: Bool[Tensor, "batch frame"]
    ) -> Float[Tensor, "batch frame mel"]:
        """wave: zero past each row's end; mask: the real frames, one for every started hop."""
        before = (self.reach - self.framing.hop) // 2
        return levels(self.energy(F.pad(wave, (before, self.reach - 1 - before)))[:, : mask.shape[1]], mask)

    @property
    def reach(self) -> int:
        """Samples that a frame hears."""
        return self.span + 7 * self.quarter

    def energy(self, padded: Float[Tensor, "batch sample"]) -> Float[Tensor, "batch frame mel"]:
        """As `LogMel.energy`."""
        energy = _energy(F.conv1d(padded[:, None], self.filters, stride=self.quarter))
        frames = F.conv1d(energy, self.low_pass, stride=4, groups=energy.shape[1])
        return frames.transpose(1, 2).clamp(min=0)


def _energy(pairs: Float[Tensor, "batch two_bands place"]) -> Float[Tensor, "batch band place"]:
    """The squared length of (cosine, sine) pairs that lie one half apart."""
    cosine, sine = pairs.chunk(2, dim=1)
    return cosine.square() + sine.square()


def levels(
    energy: Float[Tensor, "batch frame mel"], mask: Bool[Tensor, "batch frame"]
) -> Float[Tensor, "batch frame mel"]:
    """Energies as logarithms with mean 0 and deviation 1 over the recording's real frames and all bands together (band
    by band would take away the voice and the room); zero elsewhere."""
    real = mask[..., None].to(energy.dtype)
    count = real.sum(1, keepdim=True) * energy.shape[2]
    mean_energy = (energy * real).sum((1, 2), keepdim=True) / count
    level = torch.log(energy / (mean_energy + QUIET) + FLOOR)
    level = level - (level * real).sum((1, 2), keepdim=True) / count
    deviation = ((level * real).square().sum((1, 2), keepdim=True) / count + 1e-4).sqrt()
    return level / deviation * real


# ---- augmentation: called in training only, randomness from torch's generator ------------------------------------------


def respeed(
    wave: Float[Tensor, "batch sample"], sizes: Int[Tensor, " batch"], *, most: float, shift: int
) -> tuple[Float[Tensor, "batch longer"], Int[Tensor, " batch"]]:
    """Each row played up to `most` faster or slower (Ko et al. 2015) and begun up to `shift` samples later, with linear
    interpolation; nothing is cut off. Gives the rows and their new sizes."""
    count, longest = wave.shape
    speed = 1 + most * (2 * torch.rand(count, 1, device=wave.device) - 1)
    start = torch.rand(count, 1, device=wave.device) * shift
    length = int(longest / (1 - most)) + shift + 1
    position = (torch.arange(length, device=wave.device) - start) * speed
    last = (sizes - 1).clamp(min=0)[:, None]
    inside = (position >= 0) & (position <= last)
    floor = position.clamp(min=0).floor()
    left = torch.minimum(floor.long(), last)
    right = torch.minimum(left + 1, last)
    part = (position - floor).clamp(0, 1)
    played = torch.where(inside, wave.gather(1, left) * (1 - part) + wave.gather(1, right) * part, 0.0)
    return played, (start + last / speed).floor().long()[:, 0] + 1


def add_noise(wave: Float[Tensor, "batch sample"], mask: Bool[Tensor, "batch sample"]) -> Float[Tensor, "batch sample"]:
    """White noise, 10 to 50 dB below the row's mean level."""
    energy = (wave.square() * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
    low, high = NOISE_DB
    below = low + (high - low) * torch.rand(len(wave), 1, device=wave.device)
    return wave + torch.randn_like(wave) * energy.clamp(min=1e-12).sqrt() * 10 ** (-below / 20) * mask


def hide(frames: Float[Tensor, "batch frame mel"], lengths: Int[Tensor, " batch"]) -> Float[Tensor, "batch frame mel"]:
    """SpecAugment (Park et al. 2019; time masks as a share of the length, 2020): two stretches of up to 10 % of the
    time and two of up to a quarter of the bands set to the mean, which is 0."""
    count, time, mels = frames.shape
    kept_time = _stretches(count, time, lengths[:, None].float(), MASK_TIME_SHARE, frames.device)
    every_band = torch.full((count, 1), float(mels), device=frames.device)
    kept_mel = _stretches(count, mels, every_band, MASK_MEL_SHARE, frames.device)
    return frames * (kept_time[:, :, None] & kept_mel[:, None, :])


def _stretches(count: int, places: int, extent: Tensor, share: float, device: torch.device) -> Tensor:
    """Bool [count, places]: false in MASKS random stretches of up to `share` of each row's `extent` [count, 1]."""
    kept = torch.ones(count, places, dtype=torch.bool, device=device)
    place = torch.arange(places, device=device)
    for _ in range(MASKS):
        width = torch.rand(count, 1, device=device) * extent * share
        first = torch.rand(count, 1, device=device) * (extent - width)
        kept = kept & ~((place >= first.round()) & (place < (first + width).round()))
    return kept


# ---- from frames to tokens ------------------------------------------------------------------------------------------


class Subsample(nn.Module):
    """Frames to tokens: two 3x3 convolutions that divide the bands by four and the time by `stride` (1, 2 or 4), then
    one projection to `width`. Rows keep their own lengths: ceil(frames / stride) tokens."""

    def __init__(self, mels: int, stride: int, width: int) -> None:
        super().__init__()
        assert stride in (1, 2, 4)
        fine, coarse = max(8, width // 8), max(16, width // 4)
        self.steps = (min(stride, 2), max(stride // 2, 1))
        self.first = nn.Conv2d(1, fine, 3, stride=(self.steps[0], 2), padding=1)
        self.second = nn.Conv2d(fine, coarse, 3, stride=(self.steps[1], 2), padding=1)
        self.project = nn.Linear(coarse * (-(-mels // 4)), width)

    def forward(
        self, frames: Float[Tensor, "batch frame mel"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch token width"], Bool[Tensor, "batch token"]]:
        """frames: zero past each row's `lengths`."""
        x = F.silu(self.first(frames[:, None]))
        lengths = (lengths - 1) // self.steps[0] + 1
        # the first convolution's bias would leak from the padding into real frames
        x = x * real(lengths, x.shape[2])[:, None, :, None].to(x.dtype)
        x = F.silu(self.second(x))
        lengths = (lengths - 1) // self.steps[1] + 1
        return self.project(x.transpose(1, 2).flatten(2)), real(lengths, x.shape[2])


class Norm(nn.RMSNorm):
    """RMS norm whose scale takes the activations' kind of number, as the fused kernel needs under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        scale = None if self.weight is None else self.weight.to(x.dtype)
        return F.rms_norm(x, tuple(self.normalized_shape), scale, self.eps)


class Convolution(nn.Module):
    """The Conformer's convolution over tokens (Gulati et al. 2020) with RMS norm where it has batch norm: gated
    projection, depthwise convolution, norm, SiLU, projection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inward = nn.Linear(width, 2 * width, bias=False)
        # a 2-D kernel of height 1: its channels-last form takes [batch, token, width] as it lies in memory, and was
        # measured 35 times faster forward than Conv1d on a CPU
        self.depthwise = nn.Conv2d(
            width, width, (1, CONV_TOKENS), padding=(0, CONV_TOKENS // 2), groups=width, bias=False
        )
        self.norm = Norm(width)
        self.outward = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "batch token width"], mask: Bool[Tensor, "batch token"]) -> Tensor:
        return self.mixed(self.gated(x, mask))

    def gated(self, x: Float[Tensor, "batch token width"], mask: Bool[Tensor, "batch token"]) -> Tensor:
        """What is convolved: zero where no token is real."""
        value, gate = self.inward(x).chunk(2, dim=-1)
        out: Tensor = value * torch.sigmoid(gate) * mask[..., None].to(value.dtype)
        return out

    def mixed(self, x: Float[Tensor, "batch token width"]) -> Tensor:
        """Neighbours mixed, and what follows."""
        image = x.transpose(1, 2)[:, :, None].contiguous(memory_format=torch.channels_last)
        x = self.depthwise(image)[:, :, 0].transpose(1, 2)
        out: Tensor = self.outward(F.silu(self.norm(x)))
        return out


class SoundBlock(nn.Module):
    """Pre-norm attention with rotary positions, convolution, gated feed-forward; dropout on each branch."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm_attention, self.norm_convolution = Norm(size.width), Norm(size.width)
        self.attention = Attention(size.width, size.heads)
        self.convolution = Convolution(size.width)
        self.feed_forward = FeedForward(size, Norm)
        self.dropout = Dropout(size.dropout)

    def forward(self, x: Float[Tensor, "batch token width"], mask: Bool[Tensor, "batch token"]) -> Tensor:
        x = x + self.dropout(self.attention(self.norm_attention(x), mask, rotary=True))
        x = x + self.dropout(self.convolution(self.norm_convolution(x), mask))
        out: Tensor = self.feed_forward(x)
        return out


def real(lengths: Int[Tensor, " batch"], places: int) -> Bool[Tensor, "batch place"]:
    """True in the first `lengths` places of each row."""
    return torch.arange(places, device=lengths.device) < lengths[:, None]
