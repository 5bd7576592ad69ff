"""Layers for volumes that know no modality: laying a batch of mixed sizes on one canvas voxel for voxel (or reduced, never
stretched), augmentation on the device, and a residual convolutional net with maps at every resolution.

Laying is three matrix products whose weights come from the sizes, in the graph, so that it exports with dynamic sizes.
Not here: reading files, choosing sizes, tokens.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.nn.placing import centres, seen_at
from endwise.nn.pyramid import Mix

AXES = 3


# ---- voxels to a canvas ----------------------------------------------------------------------------------------------


def laid_out(
    x: Float[Tensor, "batch channel x y z"], sizes: Int[Tensor, "batch 3"], canvas: Sequence[int], reduced: float
) -> tuple[Float[Tensor, "batch channel *canvas"], Float[Tensor, "batch 3 4"]]:
    """Every volume in the middle of the canvas, `reduced` voxels to a cell along each axis (more where it would not fit), 0
    around it; and where the canvas lies (`Placed.seen`). What lies past a row's size does not matter."""
    sides = torch.tensor(canvas, device=sizes.device)
    fits = (sizes / sides).amax(1)
    step = fits.clamp(min=reduced)
    first = ((sides - sizes / step[:, None]) / 2).floor()
    for axis, side in enumerate(canvas):
        along = _weights(sizes[:, axis], x.shape[2 + axis], side, step, first[:, axis])
        x = torch.einsum("btl,bcl...->bct...", along, x.movedim(2 + axis, 2)).movedim(2, 2 + axis)
    ratio = step[:, None] / sizes
    seen = torch.cat([torch.diag_embed(sides * ratio), (-first * ratio)[:, :, None]], dim=2)
    return x, seen


def _weights(
    sizes: Int[Tensor, " batch"], largest: int, side: int, step: Float[Tensor, " batch"], first: Float[Tensor, " batch"]
) -> Float[Tensor, "batch side largest"]:
    """Of each cell, the voxels that it is the mean of: a triangle of the width of a cell."""
    voxel = torch.arange(largest, device=sizes.device, dtype=torch.float32)
    cell = torch.arange(side, device=sizes.device, dtype=torch.float32)
    middle = ((cell + 0.5 - first[:, None]) * step[:, None])[:, :, None]
    weights = (1.0 - (voxel + 0.5 - middle).abs() / step[:, None, None].clamp(min=1.0)).clamp(min=0.0)
    end = sizes[:, None, None]
    weights = weights * ((voxel < end) & (middle >= 0) & (middle < end))
    return weights / weights.sum(2, keepdim=True).clamp(min=1e-6)


def inside(seen: Float[Tensor, "batch 3 4"], grid: tuple[int, ...]) -> Tensor:
    """bool [batch, cell]: whether the middle of a cell of a grid over the canvas shows something of the volume; all, where
    none does."""
    places = seen_at(seen, centres(grid, seen.device).expand(seen.shape[0], -1, -1))
    found = ((places >= 0) & (places < 1)).all(2)
    return found | ~found.any(1, keepdim=True)


# ---- augmentation ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class VolumeChanges:
    """How far a training volume may be changed: shares of the side (shift, zoom) or of a deviation (light)."""

    mirror: bool
    shift: float
    zoom: float
    turn_deg: float
    light: float

    @property
    def moves(self) -> bool:
        """Does anything change its place?"""
        return self.mirror or bool(self.shift or self.zoom or self.turn_deg)


def augment(
    x: Float[Tensor, "batch channel x y z"], changes: VolumeChanges
) -> tuple[Float[Tensor, "batch channel x y z"], Float[Tensor, "batch 3 4"]]:
    """Each canvas changed by its own draw from torch's generator, and where what is seen came from; 0 from outside."""
    seen = _drawn(len(x), tuple(x.shape[2:]), changes, x.device)
    if changes.moves:
        points = seen_at(seen, centres(tuple(x.shape[2:]), x.device).expand(len(x), -1, -1))
        grid = (2 * points - 1).flip(2).reshape(len(x), *x.shape[2:], AXES)  # the last axis first
        with torch.autocast(x.device.type, enabled=False):
            x = F.grid_sample(x.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if changes.light:
        bright, contrast = ((2 * torch.rand(2, len(x), 1, 1, 1, 1, device=x.device) - 1) * changes.light).unbind(0)
        x = x * (1 + contrast) + bright
    return x, seen


def _drawn(
    batch: int, canvas: tuple[int, ...], changes: VolumeChanges, device: torch.device
) -> Float[Tensor, "batch 3 4"]:
    """Turned about each axis in turn, zoomed, mirrored along x, shifted; about the middle of the canvas."""

    def draw(*shape: int) -> Tensor:
        return 2 * torch.rand(batch, *shape, device=device) - 1

    turn = torch.eye(AXES, device=device).expand(batch, AXES, AXES)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        angle = math.radians(changes.turn_deg) * draw()
        plane = torch.eye(AXES, device=device).repeat(batch, 1, 1)
        plane[:, one, one] = plane[:, other, other] = angle.cos()
        plane[:, one, other], plane[:, other, one] = -angle.sin(), angle.sin()
        turn = turn @ plane
    turn = turn * torch.exp(changes.zoom * draw())[:, None, None]
    if changes.mirror:
        side = torch.where(draw() < 0, -1.0, 1.0)
        turn = turn * torch.stack([side, torch.ones_like(side), torch.ones_like(side)], 1)[:, None]
    sides = torch.tensor(canvas, device=device, dtype=torch.float32)
    shares = turn * sides / sides[:, None]  # a turn of voxels, in shares of the sides
    middle = torch.full((AXES,), 0.5, device=device)
    return torch.cat([shares, (middle - shares @ middle + changes.shift * draw(AXES))[:, :, None]], dim=2)


def behind(outer: Float[Tensor, "batch 3 4"], inner: Float[Tensor, "batch 3 4"]) -> Float[Tensor, "batch 3 4"]:
    """The map that goes through `inner` and then through `outer`."""
    turn = outer[..., :-1] @ inner[..., :-1]
    shift = outer[..., :-1] @ inner[..., -1:] + outer[..., -1:]
    return torch.cat([turn, shift], dim=2)


# ---- the convolutional net -------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """One convolution beside a straight way."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.change = Mix(AXES, width, width)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        out: Tensor = x + self.change(x)
        return out


class VolumeNet(nn.Module):
    """A stem voxel for voxel, and a stage for each further width: a convolution with a stride of 2, then residual ones. Group
    norms, since batches of volumes are small."""

    def __init__(self, channels: int, widths: tuple[int, ...], blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = Mix(AXES, channels, widths[0])
        self.stages = nn.ModuleList(
            nn.Sequential(Mix(AXES, before, after, stride=2), *(Residual(after) for _ in range(count)))
            for before, after, count in zip(widths, widths[1:], blocks, strict=False)
        )
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(self, x: Float[Tensor, "batch channel x y z"]) -> list[Tensor]:
        """A feature map of the stem and of every stage, the finest first."""
        x = self.stem(x.contiguous(memory_format=torch.channels_last_3d))
        maps = [x]
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps
