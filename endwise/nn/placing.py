"""Where a raw value lies on the canvas that a network sees: resizing and augmentation as one affine map a row, so that a
target that lies on a picture (a mask, boxes, points, another picture) is moved as the picture was.

Here: the map, moving points and grids of values by it, and resizing decoded maps back. Any number of axes: a picture has
two, a volume three. Not here: who draws the map (the encoders) and what is done with the target (heads).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Placed:
    """Where the rows of one input lie on its canvas.

    canvas: its pixels (voxels) along each axis. sizes: those of each raw value. seen: [batch, axes, axes + 1], takes a
    place on the canvas to the place of the raw value that is seen there (the last column is added). Places are shares of
    the side along each axis, axes in the order of the array (down, across): 0 is where the first pixel begins, 1 where
    the last one ends, so that the map holds whatever the resolution of either side. Outside of training the canvas is the
    whole raw value, and `seen` is the identity. shown: what the encoder sees, normalised, after augmentation.
    """

    canvas: tuple[int, ...]
    sizes: Int[Tensor, "batch axes"]
    seen: Float[Tensor, "batch axes more"]
    shown: Float[Tensor, "batch channel *canvas"] | None = None


def in_place(batch: int, axes: int, device: torch.device) -> Float[Tensor, "batch axes more"]:
    """The map of rows that cover their canvas as they are."""
    return torch.eye(axes, axes + 1, device=device).expand(batch, axes, axes + 1)


def seen_at(
    seen: Float[Tensor, "batch axes more"], points: Float[Tensor, "batch point axes"]
) -> Float[Tensor, "batch point axes"]:
    """Places on the canvas -> places of the raw value: where a prediction lies in the user's picture."""
    return torch.einsum("bij,bpj->bpi", seen[..., :-1], points) + seen[:, None, :, -1]


def lies_at(
    seen: Float[Tensor, "batch axes more"], points: Float[Tensor, "batch point axes"]
) -> Float[Tensor, "batch point axes"]:
    """Places of the raw value -> places on the canvas, also beyond its edges: where a target is to be found."""
    back = torch.linalg.inv(seen[..., :-1].float())
    return torch.einsum("bij,bpj->bpi", back, points.float() - seen[:, None, :, -1])


def turned(seen: Float[Tensor, "batch axes more"]) -> Float[Tensor, "batch axes more"]:
    """The map the other way: a place of the raw value -> the place on the canvas. What lies on the canvas, laid by it, lies on
    the raw value."""
    back = torch.linalg.inv(seen[..., :-1].float())
    return torch.cat([back, -(back @ seen[..., -1:].float())], dim=-1)


def centres(shape: tuple[int, ...], device: torch.device) -> Float[Tensor, "place axes"]:
    """The middle of every cell of a grid over the canvas, as shares of its sides, in the order of the array."""
    along = [(torch.arange(count, device=device, dtype=torch.float32) + 0.5) / count for count in shape]
    return torch.stack(torch.meshgrid(*along, indexing="ij"), dim=-1).flatten(0, -2)


def laid(
    target: Shaped[Tensor, "batch *largest_and_channels"],
    sizes: Int[Tensor, "batch axes"],
    seen: Float[Tensor, "batch axes more"],
    shape: tuple[int, ...],
) -> tuple[Shaped[Tensor, "batch *shape_and_channels"], Bool[Tensor, "batch *shape"]]:
    """A grid of values that covers the raw value, as it lies on the canvas: at the middle of each cell of a grid of `shape`
    the nearest value, and whether there is one; outside, where the encoder fills in what it likes, the edge's stands.

    target: [batch, *largest, ...], the first `sizes` of each row real; its resolution need not be the raw value's.
    """
    batch, axes = sizes.shape
    places = seen_at(seen.float(), centres(shape, target.device).expand(batch, -1, -1))
    inside = ((places >= 0) & (places < 1)).all(2)
    counts = sizes[:, None, :]
    index = (places * counts).floor().long().clamp(min=0).minimum(counts - 1).clamp(min=0)
    rows = torch.arange(batch, device=target.device)[:, None]
    found = target[(rows, *(index[:, :, axis] for axis in range(axes)))]
    return found.reshape(batch, *shape, *target.shape[1 + axes :]), inside.reshape(batch, *shape)


def laid_smoothly(
    target: Float[Tensor, "batch channel *shape"], seen: Float[Tensor, "batch axes more"]
) -> tuple[Float[Tensor, "batch channel *shape"], Bool[Tensor, "batch *shape"]]:
    """As `laid`, for values in between (a picture, two or three axes) at the canvas's own resolution: linear between the
    middles of cells, as the encoder moves its own."""
    shape = tuple(target.shape[2:])
    places = seen_at(seen.float(), centres(shape, target.device).expand(target.shape[0], -1, -1))
    inside = ((places >= 0) & (places < 1)).all(2)
    grid = (2 * places - 1).flip(2).reshape(target.shape[0], *shape, len(shape))  # the last axis first
    with torch.autocast(target.device.type, enabled=False):
        found = F.grid_sample(target.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return found, inside.reshape(target.shape[0], *shape)
