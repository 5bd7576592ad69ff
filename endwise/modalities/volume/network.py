"""The network side of volumes: from voxels to a grid of tokens and feature maps at four resolutions.

Scaling, laying on one canvas, augmentation and the encoder, all in the graph, and differentiable down to the voxels.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from endwise.modalities.volume import Volume, VolumeContract, seen_at_once
from endwise.nn.interface import Encoder, Map, Tokens
from endwise.nn.placing import Placed
from endwise.nn.size import Size
from endwise.nn.volumes import VolumeChanges, VolumeNet, augment, behind, inside, laid_out

SIDE_BY_DIAL = {1: 24, 2: 32, 3: 48, 4: 64}  # of a cube with the canvas of a volume that nothing lies on
STAGES = 3
CARRIED_VOXELS = 32  # sides of the canvas of a mask that goes on


class VolumeEncoder(Encoder):
    """Where an output lies on the volume the canvas is of its own voxels; else the volume is reduced, by as much for all,
    until the largest of training fits. Widths are an eighth, a quarter, a half and all of the tokens'.

    `augment` False leaves the training volumes as they are.
    """

    colours = 1
    mean: Tensor
    deviation: Tensor
    reduced: float
    peak_rate = 2e-3

    def __init__(self, declared: Volume, contract: VolumeContract, size: Size) -> None:
        super().__init__()
        self.canvas_px, self.reduced = canvas(declared, contract, size)
        self.standard = declared.scale == "each"  # it comes so
        self.changes = VolumeChanges(
            mirror=declared.mirror, shift=declared.shift_share, zoom=declared.zoom_share,
            turn_deg=declared.turn_deg or 0.0, light=declared.light_share,
        )  # fmt: skip
        self.register_buffer("mean", torch.tensor(contract.mean, dtype=torch.float32), persistent=False)
        self.register_buffer("deviation", torch.tensor(contract.deviation, dtype=torch.float32), persistent=False)
        self.net, widths = volume_net(contract.channels, size)
        self.project = nn.Linear(widths[-1], size.width, bias=False)
        self.norm = nn.LayerNorm(size.width)
        self.maps = tuple(Map(width, (float(2**stage),) * 3) for stage, width in enumerate(widths))

    def neutral(self, values: Tensor, sizes: Int[Tensor, "batch 3"], found: Tensor) -> Tensor:
        """The mean of the training volumes; of what comes standardised 0, which is its own."""
        return torch.zeros_like(found) if self.standard else self.mean.to(found.dtype).expand_as(found)

    def forward(self, values: Float[Tensor, "batch x y z channel"], sizes: Int[Tensor, "batch 3"]) -> Tokens:
        """Grid tokens, row by row; a token of the canvas around the volume is masked."""
        x = values.float()
        if not self.standard:
            x = (x - self.mean) / self.deviation
        with torch.autocast(x.device.type, enabled=False):
            x, seen = laid_out(x.movedim(4, 1), sizes, self.canvas_px, self.reduced)
        if self.training and self.augment:
            x, moved = augment(x, self.changes)
            seen = behind(seen, moved)
        levels = self.net(x)
        values = self.norm(self.project(levels[-1].flatten(2).transpose(1, 2)))
        return _tokens(values, levels, Placed(self.canvas_px, sizes, seen, x))


class VolumeMaskCarrier(Encoder):
    """A mask of voxels as another stage reads it: how much of every cell of a canvas each class has, through the net of
    volumes. A place that nobody has labelled is of no class."""

    peak_rate = 2e-3
    canvas_px = (CARRIED_VOXELS,) * 3

    def __init__(self, classes: int, size: Size) -> None:
        super().__init__()
        self.classes = classes
        self.net, widths = volume_net(classes, size)
        self.project = nn.Linear(widths[-1], size.width, bias=False)
        self.norm = nn.LayerNorm(size.width)
        self.maps = tuple(Map(width, (float(2**stage),) * 3) for stage, width in enumerate(widths))

    def forward(self, values: Tensor, sizes: Int[Tensor, "batch 3"]) -> Tokens:
        """Classes [batch, x, y, z] as a target has them, or chances of each [batch, x, y, z, class]."""
        if not values.is_floating_point():
            values = (values[..., None] == torch.arange(self.classes, device=values.device)).float()
        with torch.autocast(values.device.type, enabled=False):
            x, seen = laid_out(values.float().movedim(4, 1), sizes, self.canvas_px, 1.0)
        levels = self.net(x)
        found = self.norm(self.project(levels[-1].flatten(2).transpose(1, 2)))
        return _tokens(found, levels, Placed(self.canvas_px, sizes, seen, x))


def volume_net(channels: int, size: Size) -> tuple[VolumeNet, tuple[int, ...]]:
    """The net of a size, and how wide each of its levels is; blocks are shared out from the last stage on."""
    widths = (*(max(8, size.width // share) for share in (8, 4, 2)), size.width)
    blocks = tuple(size.depth // STAGES + (stage >= STAGES - size.depth % STAGES) for stage in range(STAGES))
    return VolumeNet(channels, widths, blocks), widths


def _tokens(values: Tensor, levels: list[Tensor], placed: Placed) -> Tokens:
    grid = tuple(side // 2**STAGES for side in placed.canvas)
    return Tokens(
        values=values, mask=inside(placed.seen, grid), grids={"volume": (grid, (float(2**STAGES),) * 3)},
        levels={"volume": levels}, placed={"volume": placed},
    )  # fmt: skip


def canvas(declared: Volume, contract: VolumeContract, size: Size) -> tuple[tuple[int, ...], float]:
    """(voxels of the canvas, how many of the volume's voxels one of them is long)."""
    patch = declared.patch(contract)
    if patch is not None:
        return patch, 1.0
    if declared.seen_voxels is not None:
        sides = declared.seen_voxels
    else:
        most = SIDE_BY_DIAL[size.dial]
        share = max(1.0, (math.prod(contract.largest) / most**3) ** (1 / 3))
        sides = seen_at_once([math.ceil(side / share) for side in contract.largest], 2 * most**3)
    return sides, max(1.0, *(side / seen for side, seen in zip(contract.largest, sides, strict=True)))
