"""Layers that hear a signal while it comes in. No token depends on anything after its own chunk, so what has been
computed stays, and a piece costs its own length, not that of all before it.

Here: attention in chunks (as in Chen et al. 2021, "Developing real-time streaming transformer transducer"), convolutions
that look back, running levels, each with the past it has to keep. Every layer takes a past and gives the next one; the
whole signal at once is the case without a past, so training, prediction and a stream run the same code. Not here: files,
buffers and answers (endwise/stream.py), what is heard (the modalities).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from endwise.nn.blocks import Attention, Block, attend, rotate
from endwise.nn.size import Size
from endwise.nn.sound import CONV_TOKENS, FLOOR, QUIET, SoundBlock, Subsample, real

FLATTEST = 1e-4  # added to the variance of levels: silence has none

Keys = tuple[Float[Tensor, "batch head place d"], Float[Tensor, "batch head place d"]]
Sums = Float[Tensor, "batch 4"]  # numbers so far, and the sums of their energies, their levels, their squared levels


@dataclass(frozen=True)
class Past:
    """What a block keeps: keys and values of the last tokens, and what its convolution looks back to (where it has one)."""

    keys: Keys
    tail: Tensor | None = None


@dataclass(frozen=True)
class Window:
    """Who sees whom. chunk: tokens that see each other. back: chunks before its own that a token sees."""

    chunk: int
    back: int

    def sees(self, mask: Bool[Tensor, "batch token"], place: int, kept: int) -> Bool[Tensor, "batch 1 token place"]:
        """For tokens from `place` on, behind `kept` earlier ones. Every token sees itself, padding too: a softmax over
        nothing is no number."""
        own = place + torch.arange(mask.shape[1], device=mask.device)
        others = place - kept + torch.arange(kept + mask.shape[1], device=mask.device)
        apart = torch.div(own, self.chunk, rounding_mode="floor")[:, None] - torch.div(
            others, self.chunk, rounding_mode="floor"
        )
        near = (apart >= 0) & (apart <= self.back)
        there = F.pad(mask, (kept, 0), value=True) if kept else mask
        return ((near & there[:, None]) | (own[:, None] == others))[:, None]

    @property
    def kept(self) -> int:
        """Tokens that a past holds at most."""
        return self.chunk * self.back


def attended(
    attention: Attention,
    x: Float[Tensor, "batch token width"],
    sees: Bool[Tensor, "batch 1 token place"],
    place: int,
    past: Keys | None,
    kept: int,
) -> tuple[Float[Tensor, "batch token width"], Keys]:
    """Self-attention to the past and to the tokens, with rotary positions from `place` on; and the past after it."""
    query, key, value = rearrange(attention.inward(x), "b t (three h d) -> three b h t d", three=3, h=attention.heads)
    positions = (place + torch.arange(x.shape[1], device=x.device))[None]
    query, key = rotate(query, positions), rotate(key, positions)
    if past is not None:
        key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
    out: Tensor = attention.outward(rearrange(attend(query, key, value, sees), "b h t d -> b t (h d)"))
    return out, (key[:, :, -kept:], value[:, :, -kept:])


def behind(tail: Tensor | None, x: Float[Tensor, "batch place *rest"], count: int) -> tuple[Tensor, Tensor]:
    """x with the `count` places before it (zeros at the beginning), and what the next piece has before it."""
    if tail is None:
        tail = x.new_zeros(x.shape[0], count, *x.shape[2:])
    longer = torch.cat([tail.to(x.dtype), x], 1)
    return longer, longer[:, longer.shape[1] - count :]


class StreamedBlock(Block):
    """The transformer's block over chunks."""

    def __init__(self, size: Size, window: Window) -> None:
        super().__init__(size)
        self.window = window

    def feed(
        self, x: Float[Tensor, "batch token width"], sees: Tensor, place: int, past: Past | None
    ) -> tuple[Tensor, Past]:
        """The tokens, and the past after them."""
        mixed, keys = attended(
            self.attention, self.norm_attention(x), sees, place, past.keys if past else None, self.window.kept
        )
        x = x + self.dropout(mixed)
        return self.feed_forward(x), Past(keys)


class StreamedSoundBlock(SoundBlock):
    """The block of attention and convolution over chunks; its convolution looks back only."""

    def __init__(self, size: Size, window: Window) -> None:
        super().__init__(size)
        self.window = window
        self.convolution.depthwise.padding = (0, 0)

    def feed(
        self, x: Float[Tensor, "batch token width"], mask: Tensor, sees: Tensor, place: int, past: Past | None
    ) -> tuple[Tensor, Past]:
        """The tokens, and the past after them."""
        mixed, keys = attended(
            self.attention, self.norm_attention(x), sees, place, past.keys if past else None, self.window.kept
        )
        x = x + self.dropout(mixed)
        convolution = self.convolution
        longer, tail = behind(
            past.tail if past else None, convolution.gated(self.norm_convolution(x), mask), CONV_TOKENS - 1
        )
        x = x + self.dropout(convolution.mixed(longer))
        return self.feed_forward(x), Past(keys, tail)


class StreamedSubsample(Subsample):
    """`Subsample` whose convolutions see no frame after the token they make."""

    def __init__(self, mels: int, stride: int, width: int) -> None:
        super().__init__(mels, stride, width)
        self.first.padding = self.second.padding = (0, 1)

    def feed(
        self,
        frames: Float[Tensor, "batch frame mel"],
        lengths: Int[Tensor, " batch"],
        past: Sequence[Tensor | None],
    ) -> tuple[Float[Tensor, "batch token width"], Bool[Tensor, "batch token"], tuple[Tensor, Tensor]]:
        """frames: a multiple of the stride, but in the last piece; zero past each row's `lengths`. The tokens, which are
        real, and what both convolutions look back to."""
        fine, coarse = past
        x, fine = behind(fine, frames, 3 - self.steps[0])
        x = F.silu(self.first(F.pad(x, (0, 0, 0, self.steps[0] - 1))[:, None]))
        lengths = (lengths - 1) // self.steps[0] + 1
        x = x * real(lengths, x.shape[2])[:, None, :, None].to(x.dtype)
        y, coarse = behind(coarse, x.transpose(1, 2), 3 - self.steps[1])
        y = F.silu(self.second(F.pad(y.transpose(1, 2), (0, 0, 0, self.steps[1] - 1))))
        lengths = (lengths - 1) // self.steps[1] + 1
        return self.project(y.transpose(1, 2).flatten(2)), real(lengths, y.shape[2]), (fine, coarse)


def running_levels(
    energy: Float[Tensor, "batch frame mel"], mask: Bool[Tensor, "batch frame"], chunk: int, past: Sums | None
) -> tuple[Float[Tensor, "batch frame mel"], Sums]:
    """Energies as logarithms with mean 0 and deviation 1 over all that was heard up to the end of a frame's chunk; as
    `sound.levels`, whose recording ends there. Zero where there is no frame."""
    there = mask[..., None].to(energy.dtype)
    frame = torch.arange(mask.shape[1], device=mask.device)
    last = ((torch.div(frame, chunk, rounding_mode="floor") + 1) * chunk - 1).clamp(max=mask.shape[1] - 1)
    if past is None:
        past = energy.new_zeros(energy.shape[0], 4)

    def so_far(values: Float[Tensor, "batch frame"], which: int) -> tuple[Tensor, Tensor]:
        sums = past[:, which, None] + values.cumsum(1)
        return sums.index_select(1, last)[..., None], sums[:, -1]

    count, counted = so_far(there[..., 0] * energy.shape[2], 0)
    count = count.clamp(min=1)
    loud, louder = so_far((energy * there).sum(2), 1)
    level = torch.log(energy / (loud / count + QUIET) + FLOOR) * there
    total, totalled = so_far(level.sum(2), 2)
    square, squared = so_far(level.square().sum(2), 3)
    mean = total / count
    deviation = ((square / count - mean.square()).clamp(min=0) + FLATTEST).sqrt()
    return (level - mean) / deviation * there, torch.stack([counted, louder, totalled, squared], 1)


def average_lag(
    when: Float[Tensor, "batch symbol"], written: Bool[Tensor, "batch symbol"], whole: Float[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Average lagging (Ma et al. 2019): how far behind a writer who spreads the answer evenly over the input each symbol
    came, on average up to the first that had the whole input. when: how much input was there when a symbol was written;
    whole: all of it. NaN where nothing was written."""
    order = written.cumsum(1)
    even = (order - 1) * (whole / order[:, -1].clamp(min=1))[:, None]
    had_all = (written & (when >= whole[:, None])).cumsum(1)
    counted = written & ((had_all == 0) | ((had_all == 1) & (when >= whole[:, None])))
    total = torch.where(counted, when - even, 0.0).sum(1)
    return torch.where(order[:, -1] > 0, total / counted.sum(1).clamp(min=1), torch.nan)
