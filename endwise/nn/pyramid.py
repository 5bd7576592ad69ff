"""The feature maps of an encoder as one pyramid of equal width, for heads whose answers lie on an input.

A feature pyramid (Lin et al. 2017): coarse maps know what, fine ones where, and each finer map is given what the coarser
ones know. A network with one coarse map (a transformer over patches) gets the finer steps by learnt enlarging (Li et al.
2022, ViTDet). Any number of axes. Not here: what is answered at the places (heads), and the maps (encoders).
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.nn.interface import Encoder, Map, Tokens

FEWEST_16_BIT = 4  # cells along each axis from which on a CPU convolves volumes in 16 bits


class Conv3d(nn.Conv3d):
    """A convolution over volumes, on a CPU in full precision where an axis has few cells: there oneDNN (torch 2.13) leaves
    gradients of 16-bit weights partly unset and writes past their end (fewer than three cells, or two under a stride)."""

    def forward(self, input: Tensor) -> Tensor:
        """What torch's does."""
        if input.device.type != "cpu" or torch.compiler.is_exporting() or min(input.shape[2:]) >= FEWEST_16_BIT:
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float())


CONVS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: Conv3d}
POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}
GROUP = 8  # channels normalised together


class Mix(nn.Sequential):
    """A convolution over 3 cells along each axis, a group norm (Wu & He 2018: no row looks at another) and a rectifier."""

    def __init__(self, axes: int, inward: int, outward: int, *, stride: int = 1) -> None:
        super().__init__(
            CONVS[axes](inward, outward, 3, stride=stride, padding=1, bias=False),
            nn.GroupNorm(math.gcd(outward, max(1, outward // GROUP)), outward),
            nn.ReLU(),
        )


class Pyramid(nn.Module):
    """Tokens -> feature maps [batch, width, *shape] of one input, the finest first, at `strides` (canvas pixels a cell is
    long along each axis; cell i stands for the pixels from i x stride on).

    finest: the stride of the first map, or the next that halving the encoder's gives. The last map also has what the
    tokens say after the trunk: what the other inputs know about this one.
    """

    def __init__(self, maps: Sequence[Map], token_width: int, *, width: int, finest: float) -> None:
        super().__init__()
        maps = [item for item in maps if min(item.stride) >= finest] or list(maps[-1:])
        axes = len(maps[0].stride)
        self.first = len(maps)  # used from the end of the encoder's
        self.shapes = tuple(maps)
        self.lateral = nn.ModuleList(CONVS[axes](item.channels, width, 1) for item in maps)
        self.tokens = nn.Linear(token_width, width)
        self.smooth = nn.ModuleList(Mix(axes, width, width) for _ in maps)
        more, stride = 0, min(maps[0].stride)
        while stride >= 2 * finest:
            more, stride = more + 1, stride / 2
        self.enlarge = nn.ModuleList(Mix(axes, width, width) for _ in range(more))
        below = [tuple(step / 2**times for step in maps[0].stride) for times in range(more, 0, -1)]
        self.strides = (*below, *(item.stride for item in maps))

    def forward(self, tokens: Tokens, on: str) -> list[Float[Tensor, "batch width *shape"]]:
        """Of the rows without the input only what the tokens say."""
        levels = tokens.levels[on][-self.first :]
        present = tokens.present.get(on)
        if present is not None:
            there = present.reshape(-1, *[1] * (levels[0].dim() - 1))
            levels = [torch.where(there, level, 0.0) for level in levels]
        known = self.tokens(tokens.values[:, tokens.spans.get(on, slice(None))]).transpose(1, 2)
        x = self.lateral[-1](levels[-1]) + known.unflatten(2, levels[-1].shape[2:])
        found = [x]
        for index in range(len(levels) - 2, -1, -1):
            ratio = [
                round(coarse / fine)
                for coarse, fine in zip(self.shapes[index + 1].stride, self.shapes[index].stride, strict=True)
            ]
            x = self.lateral[index](levels[index]) + enlarged(x, ratio, levels[index].shape[2:])
            found.append(x)
        out = [layer(item) for layer, item in zip(self.smooth, reversed(found), strict=True)]
        for layer in self.enlarge:
            ratio = [2] * (out[0].dim() - 2)
            out.insert(0, layer(enlarged(out[0], ratio, [2 * side for side in out[0].shape[2:]])))
        return out


def enlarged(
    x: Float[Tensor, "batch channel *shape"], ratio: Sequence[int], shape: Sequence[int]
) -> Float[Tensor, "batch channel *larger"]:
    """Every cell as `ratio` cells along each axis, cut (or its edge repeated) to `shape`: cells keep their places."""
    for axis, (times, wanted) in enumerate(zip(ratio, shape, strict=True), 2):
        if times > 1:
            x = x.repeat_interleave(times, dim=axis)
        lacking = wanted - x.shape[axis]
        if lacking > 0:
            x = torch.cat([x, x.narrow(axis, x.shape[axis] - 1, 1).repeat_interleave(lacking, dim=axis)], dim=axis)
        x = x.narrow(axis, 0, wanted)
    return x


class Scored(nn.Module):
    """What ends in a score of each channel at each place."""

    score: nn.Module

    def begin(self, values: Sequence[float]) -> None:
        """Say these numbers everywhere before anything is learnt."""
        bias = self.score.bias
        assert isinstance(bias, nn.Parameter)
        with torch.no_grad():
            bias.copy_(torch.tensor(values))


class OnCanvas(Scored):
    """Tokens -> numbers for every place of an input's canvas, [batch, channels, *canvas] in float32: the maps of a pyramid
    enlarged and added up (Kirillov et al. 2019, "Panoptic feature pyramid networks").

    finest: the stride of the pyramid's first map. narrow: only what the tokens and the encoder's last map hold gets
    through, for answers that must not be copied from fine maps.
    """

    def __init__(
        self, encoder: Encoder, token_width: int, channels: int, *, finest: float, narrow: bool = False
    ) -> None:
        super().__init__()
        self.canvas, axes = encoder.canvas_px, len(encoder.canvas_px)
        self.width = width = max(16, token_width // 2)
        maps = encoder.maps[-1:] if narrow else encoder.maps
        self.pyramid = Pyramid(maps, token_width, width=width, finest=finest)
        self.merge = nn.ModuleList(Mix(axes, width, width) for _ in self.pyramid.strides)
        self.last = Mix(axes, width, width)
        self.score = CONVS[axes](width, channels, 1)

    def forward(self, tokens: Tokens, on: str) -> Float[Tensor, "batch channels *canvas"]:
        """Of rows without the input what the tokens alone say."""
        return self.enlarged(self.fine(tokens, on))

    def enlarged(self, x: Float[Tensor, "batch some *shape"]) -> Float[Tensor, "batch some *canvas"]:
        """What lies at the places of the pyramid's first map, at every place of the canvas."""
        return smoothly(x, self.pyramid.strides[0], self.canvas)

    def fine(self, tokens: Tokens, on: str) -> Float[Tensor, "batch channels *shape"]:
        """The same at the places of the pyramid's first map."""
        made: Tensor = self.score(self.features(tokens, on))
        return made.float()

    def features(self, tokens: Tokens, on: str) -> Float[Tensor, "batch width *shape"]:
        """What the scores of these places are made of."""
        maps, strides = self.pyramid(tokens, on), self.pyramid.strides
        merged = self.merge[0](maps[0])
        for layer, x, stride in zip(list(self.merge)[1:], maps[1:], strides[1:], strict=True):
            times = [coarse / fine for coarse, fine in zip(stride, strides[0], strict=True)]
            merged = merged + smoothly(layer(x), times, maps[0].shape[2:])
        made: Tensor = self.last(merged)
        return made


class Narrowing(Scored):
    """As `OnCanvas`, for canvases whose fine maps are large: each map is as wide as the encoder's own, the finer the
    narrower, and is added to what the coarser ones say (Ronneberger et al. 2015, U-Net; a sum in the place of a
    concatenation, which is half the work)."""

    def __init__(self, encoder: Encoder, token_width: int, channels: int) -> None:
        super().__init__()
        self.canvas, axes, maps = encoder.canvas_px, len(encoder.canvas_px), encoder.maps
        self.ratios = [
            [round(coarse / fine) for coarse, fine in zip(one.stride, other.stride, strict=True)]
            for one, other in zip(maps[:0:-1], maps[-2::-1], strict=True)
        ]
        self.tokens = nn.Linear(token_width, maps[-1].channels)
        self.narrow = nn.ModuleList(
            CONVS[axes](one.channels, other.channels, 1) for one, other in zip(maps[:0:-1], maps[-2::-1], strict=True)
        )
        self.mix = nn.ModuleList(Mix(axes, item.channels, item.channels) for item in maps[-2::-1])
        self.finest = maps[0].stride
        self.score = CONVS[axes](maps[0].channels, channels, 1)

    def forward(self, tokens: Tokens, on: str) -> Float[Tensor, "batch channels *canvas"]:
        """Of rows without the input what the tokens alone say."""
        levels = tokens.levels[on]
        present = tokens.present.get(on)
        if present is not None:
            there = present.reshape(-1, *[1] * (levels[0].dim() - 1))
            levels = [torch.where(there, level, 0.0) for level in levels]
        known = self.tokens(tokens.values[:, tokens.spans.get(on, slice(None))]).transpose(1, 2)
        x = levels[-1] + known.unflatten(2, levels[-1].shape[2:])
        for level, ratio, narrow, mix in zip(levels[-2::-1], self.ratios, self.narrow, self.mix, strict=True):
            x = mix(level + enlarged(narrow(x), ratio, level.shape[2:]))
        return smoothly(self.score(x).float(), self.finest, self.canvas)


def smoothly(
    x: Float[Tensor, "batch channel *shape"], times: Sequence[float], shape: Sequence[int]
) -> Float[Tensor, "batch channel *larger"]:
    """Linearly enlarged, then cut to `shape`: cells keep their places."""
    axes = x.dim() - 2
    if any(step > 1 for step in times):
        size = [round(side * step) for side, step in zip(x.shape[2:], times, strict=True)]
        x = F.interpolate(x, size=size, mode=MODES[axes], align_corners=False)
    return enlarged(x, [1] * axes, shape)


def finest_stride(canvas: Sequence[int], side_px: float, most: float) -> float:
    """The power of two, at most `most`, by which a canvas may be coarser than its pixels and still have `side_px` cells a
    side."""
    side = math.prod(canvas) ** (1 / len(canvas))
    return min(most, 2.0 ** max(0, math.floor(math.log2(side / side_px))))
