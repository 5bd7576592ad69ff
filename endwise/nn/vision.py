"""Layers for pictures that know no modality: resizing a batch of mixed sizes, augmentation on the device, and the
residual convolutional net that beats larger ones in a short training on a CPU.

Resizing is two matrix products whose weights come from the sizes, in the graph: equal to
`interpolate(mode="bilinear", antialias=True)` on each picture alone, and exportable with dynamic heights and widths.
Not in here: reading files, choosing sizes, tokens.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.nn.placing import in_place

FULL_8, FULL_16 = 255.0, 65_535.0


# ---- pixels to a canvas ----------------------------------------------------------------------------------------------


def scaled(values: Tensor) -> Tensor:
    """Pixels as floats, full scale = 1. Floats are taken as they are."""
    if values.dtype == torch.uint8:
        return values.float() / FULL_8
    if values.dtype == torch.uint16:
        return values.float() / FULL_16
    return values


def resize_weights(sizes: Int[Tensor, " batch"], largest: int, target: int) -> Float[Tensor, "batch target largest"]:
    """The weights of a bilinear resize of each row's first `sizes` of `largest` pixels to `target`, its triangle
    widened where it reduces. Pixels past a row's size weigh exactly nothing."""
    pixel = torch.arange(largest, device=sizes.device, dtype=torch.float32)
    scale = sizes.to(torch.float32)[:, None, None] / target
    centre = (torch.arange(target, device=sizes.device, dtype=torch.float32) + 0.5)[None, :, None] * scale
    weights = (1.0 - (pixel + 0.5 - centre).abs() / scale.clamp(min=1.0)).clamp(min=0.0)
    weights = weights * (pixel < sizes[:, None, None])
    return weights / weights.sum(2, keepdim=True)


def resize(
    x: Float[Tensor, "batch height width channel"], sizes: Int[Tensor, "batch 2"], height: int, width: int
) -> Float[Tensor, "batch {height} {width} channel"]:
    """Every picture from its own size to height x width. What lies past its size does not matter."""
    rows = resize_weights(sizes[:, 0], x.shape[1], height)
    columns = resize_weights(sizes[:, 1], x.shape[2], width)
    flat = torch.bmm(rows, x.flatten(2)).reshape(
        x.shape[0], height, x.shape[2], x.shape[3]
    )  # len() would fix it in an export
    return torch.einsum("bxw,bywc->byxc", columns, flat)


def resize_alike(x: Float[Tensor, "batch height width channel"], height: int, width: int) -> Tensor:
    """The same for pictures of one size, all of it real: cheaper."""
    if x.shape[1:3] == (height, width):
        return x
    planes = x.permute(0, 3, 1, 2)
    return F.interpolate(planes, (height, width), mode="bilinear", antialias=True, align_corners=False).permute(
        0, 2, 3, 1
    )


# ---- augmentation ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """How far a training picture may be changed: shares of the side (shift, zoom, erase) or of full scale (light)."""

    mirror: bool
    shift: float
    zoom: float
    turn_deg: float
    light: float
    erase: float


def augment(
    x: Float[Tensor, "batch channel height width"], changes: Changes
) -> tuple[Float[Tensor, "batch channel height width"], Float[Tensor, "batch 2 3"]]:
    """Each picture changed by its own draw from torch's generator, and where what is seen came from (`Placed.seen`);
    values outside are mirrored in at the border.

    Without zoom and turn, pixels are moved whole (nothing is blurred); with them, one affine map does all of it.
    """
    seen = in_place(len(x), 2, x.device)
    if changes.zoom or changes.turn_deg:
        x, seen = _mapped(x, changes)
    elif changes.mirror or changes.shift:
        x, seen = _moved(x, changes)
    if changes.light:
        x = _lit(x, changes.light)
    return _erased(x, changes.erase) if changes.erase else x, seen


def _moved(x: Tensor, changes: Changes) -> tuple[Tensor, Tensor]:
    rows, down = _shifted(len(x), x.shape[2], changes.shift, x.device)
    columns, across = _shifted(len(x), x.shape[3], changes.shift, x.device)
    seen = in_place(len(x), 2, x.device).clone()
    seen[:, 0, 2], seen[:, 1, 2] = down / x.shape[2], across / x.shape[3]
    if changes.mirror:
        flipped = torch.rand(len(x), 1, device=x.device) < 0.5
        columns = torch.where(flipped, columns.flip(1), columns)
        seen[:, 1, 1] = torch.where(flipped[:, 0], -1.0, 1.0)
        seen[:, 1, 2] += flipped[:, 0]
    # gathered as [batch, height, width, channel]: what the channels-last format has in memory
    picked = x.permute(0, 2, 3, 1)[
        torch.arange(len(x), device=x.device)[:, None, None], rows[:, :, None], columns[:, None]
    ]
    return picked.permute(0, 3, 1, 2), seen


def _shifted(
    batch: int, length: int, share: float, device: torch.device
) -> tuple[Int[Tensor, "batch length"], Int[Tensor, " batch"]]:
    """Which pixel each place takes: its own plus one whole shift a picture, reflected at the borders; and the shift."""
    most = min(round(share * length), length - 1)
    shift = torch.randint(-most, most + 1, (batch, 1), device=device)
    index = (torch.arange(length, device=device) + shift).abs()
    return torch.where(index >= length, 2 * (length - 1) - index, index), shift[:, 0]


def _mapped(x: Tensor, changes: Changes) -> tuple[Tensor, Tensor]:
    batch, height, width = len(x), x.shape[2], x.shape[3]

    def draw(most: float) -> Tensor:
        return (2 * torch.rand(batch, device=x.device) - 1) * most

    angle = torch.deg2rad(draw(changes.turn_deg))
    size = torch.exp(draw(changes.zoom))
    side = torch.where(torch.rand(batch, device=x.device) < 0.5, -1.0, 1.0) if changes.mirror else torch.ones_like(size)
    cos, sin = angle.cos() * size, angle.sin() * size
    # affine_grid's unit is half a side of each axis: a turn of the pixels needs the aspect ratio
    across = torch.stack([cos * side, -sin * (height / width) * side, 2 * draw(changes.shift)], dim=1)
    down = torch.stack([sin * (width / height), cos, 2 * draw(changes.shift)], dim=1)
    with torch.autocast(x.device.type, enabled=False):
        grid = F.affine_grid(torch.stack([across, down], dim=1), list(x.shape), align_corners=False)
        sampled = F.grid_sample(x.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return sampled.contiguous(memory_format=torch.channels_last), _shares(across, down)


def _shares(across: Float[Tensor, "batch 3"], down: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch 2 3"]:
    """The map of `affine_grid` (across first, from -1 to 1) as `Placed.seen` has it (down first, from 0 to 1)."""
    lines = torch.stack([down, across], dim=1)
    turn = lines[:, :, :2].flip(2)
    return torch.cat([turn, (1 + lines[:, :, 2:] - turn.sum(2, keepdim=True)) / 2], dim=2)


def _lit(x: Tensor, share: float) -> Tensor:
    """Brightness (in deviations) and contrast."""
    bright, contrast = ((2 * torch.rand(2, len(x), 1, 1, 1, device=x.device) - 1) * share).unbind(0)
    return x * (1 + contrast) + bright


def _erased(x: Tensor, share: float) -> Tensor:
    """A square of the mean colour (DeVries & Taylor 2017), anywhere, also half outside."""

    def inside(length: int) -> Tensor:
        half = max(1.0, share * length) / 2
        centre = torch.rand(len(x), 1, device=x.device) * length
        return (torch.arange(length, device=x.device) + 0.5 - centre).abs() < half

    hidden = inside(x.shape[2])[:, None, :, None] & inside(x.shape[3])[:, None, None, :]
    return x.masked_fill(hidden, 0.0)


# ---- the convolutional net -------------------------------------------------------------------------------------------


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that takes a batch of one value a channel (one picture, of which one place is left) by the running
    statistics: such a value has no deviation, so that torch refuses it, and the last batch of an epoch may be one."""

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel height width"]:
        """The same shape."""
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)

    @classmethod
    def like(cls, other: nn.BatchNorm2d) -> "BatchNorm":
        """One of the same size, with the weights and statistics of `other`."""
        made = cls(other.num_features, other.eps, other.momentum)
        made.load_state_dict(other.state_dict())
        return made


class Conv(nn.Sequential):
    """3x3 convolution, batch norm, and a rectifier; `pool` keeps the larger of every 2 x 2 in between, which is worth
    more than a stride of 2 and costs four times as much."""

    def __init__(self, inward: int, outward: int, *, stride: int = 1, pool: bool = False) -> None:
        layers: list[nn.Module] = [nn.Conv2d(inward, outward, 3, stride=stride, padding=1, bias=False)]
        if pool:
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        super().__init__(*layers, BatchNorm(outward), nn.ReLU())


class Residual(nn.Module):
    """One convolution beside a straight way (after He et al. 2016; two would cost more than they give in a short run)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.change = Conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        out: Tensor = x + self.change(x)
        return out


class ConvNet(nn.Module):
    """A stem, and a stage for each further width: a convolution that halves the sides, then residual convolutions.

    Shallow, wide at the end and fast: after DavidNet and the networks that followed it (Page 2018, Jordan 2024). Batch
    norm is allowed here because every picture fills the whole canvas. `halvings`: by 2 each in the stem, for large ones.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], blocks: tuple[int, ...], *, halvings: int) -> None:
        super().__init__()
        stem = [Conv(channels, max(8, widths[0] >> max(0, halvings - 1)), stride=2 if halvings else 1)]
        for left in range(halvings - 2, -1, -1):
            stem.append(Conv(max(8, widths[0] >> (left + 1)), max(8, widths[0] >> left), stride=2))
        self.stem = nn.Sequential(*stem)
        self.stages = nn.ModuleList(
            nn.Sequential(Conv(before, after, pool=True), *(Residual(after) for _ in range(count)))
            for before, after, count in zip(widths, widths[1:], blocks, strict=False)
        )
        # a layout, not a value: it survives loading, and spares a copy of every picture
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> list[Tensor]:
        """A feature map of the stem and of every stage, the finest first."""
        x = self.stem(x)
        maps = [x]
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps
