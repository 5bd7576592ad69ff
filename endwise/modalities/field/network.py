"""The network side of fields: an operator on the waves of a grid (Fourier neural operator; Li et al. 2021, "Fourier Neural
Operator for Parametric Partial Differential Equations").

The few waves that are kept are found by products with sines and cosines, for each row by the size of its own grid: exact on
padded batches of any sizes, and plain matrix products when exported. Not here: reading, what is learnt of the training
rows (__init__.py).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.certainty import EXPECTED
from endwise.errors import DataError, require
from endwise.lattice import FLOOR
from endwise.modalities.field import MOST_DIMS, FieldContract
from endwise.nn.doubt import Doubt, doubt_loss
from endwise.nn.interface import Aim, Encoder, Handed, Head, Tokens, onto_itself
from endwise.nn.scalars import exact, full_precision, spread
from endwise.nn.size import Size

PLACES = {1: 16, 2: 6, 3: 3}  # tokens along an axis, by the axes of the grid
SHARE = {1: 2, 2: 4, 3: 8}  # of the token width that the feature map is wide
HEAD_BLOCKS = 1
LETTERS = "zyx"

Pair = tuple[Tensor, Tensor]  # real and imaginary parts


@dataclass(frozen=True)
class Waves:
    """Along one axis: cosine and sine of every wave at every cell, [batch, cell, wave], 0 beyond a row's own cells and for
    waves that its grid is too coarse for; and what a sum over a row's cells is to be multiplied by, [batch]."""

    cosine: Float[Tensor, "batch cell wave"]
    sine: Float[Tensor, "batch cell wave"]
    share: Float[Tensor, " batch"]


def waves(sizes: Int[Tensor, " batch"], cells: int, modes: int, *, both: bool) -> Waves:
    """Waves 0 to modes - 1 per domain; `both`: those that run the other way, too. cells: of the padded axis."""
    place = torch.arange(cells, device=sizes.device)
    number = torch.arange(1 - modes if both else 0, modes, device=sizes.device)
    turns = (place[:, None] * number)[None] % sizes[:, None, None]  # whole numbers: no angle loses digits
    angle = turns.float() * (2 * math.pi / sizes[:, None, None].float())
    fits = (place < sizes[:, None])[:, :, None] & (2 * number.abs() < sizes[:, None])[:, None, :]
    return Waves(torch.where(fits, angle.cos(), 0.0), torch.where(fits, angle.sin(), 0.0), 1.0 / sizes.float())


def basis(sizes: Int[Tensor, "batch axes"], grid: Sequence[int], modes: Sequence[int]) -> list[Waves]:
    """For each axis; a real field needs the last axis' waves in one direction only."""
    last = len(grid) - 1
    return [waves(sizes[:, axis], cells, modes[axis], both=axis != last) for axis, cells in enumerate(grid)]


def analysed(x: Float[Tensor, "batch *grid channel"], found: Sequence[Waves]) -> Pair:
    """The amplitudes of the waves, [batch, *waves, channel]."""
    real, imaginary = x, None
    for axis in reversed(range(len(found))):
        wave = found[axis]
        share = wave.share.reshape(-1, *(1,) * (x.ndim - 1))
        one, two = _along(real, wave.cosine, axis, len(found)), _along(real, wave.sine, axis, len(found))
        if imaginary is None:
            real, imaginary = one * share, -two * share
            continue
        three, four = _along(imaginary, wave.cosine, axis, len(found)), _along(imaginary, wave.sine, axis, len(found))
        real, imaginary = (one + four) * share, (three - two) * share
    assert imaginary is not None
    return real, imaginary


def built(amplitudes: Pair, found: Sequence[Waves]) -> Float[Tensor, "batch *grid channel"]:
    """The real field with these amplitudes: the inverse of `analysed` for what is made of the kept waves."""
    real, imaginary = amplitudes
    for axis, wave in enumerate(found):
        cosine, sine = wave.cosine.transpose(1, 2), wave.sine.transpose(1, 2)
        one, four = _along(real, cosine, axis, len(found)), _along(imaginary, sine, axis, len(found))
        if axis < len(found) - 1:
            two, three = _along(real, sine, axis, len(found)), _along(imaginary, cosine, axis, len(found))
            real, imaginary = one - four, three + two
        else:  # what runs the other way is the mirror image of what is kept, but for wave 0, which has none
            still = _along(real[..., :1, :], cosine[:, :1], axis, len(found))
            return 2.0 * (one - four) - still
    raise AssertionError


def _along(x: Tensor, matrix: Float[Tensor, "batch n m"], axis: int, dims: int) -> Tensor:
    """x summed over one axis of its grid against a matrix of each row."""
    letters = LETTERS[MOST_DIMS - dims :]
    here = letters[axis]
    return torch.einsum(f"b{letters}c,b{here}k->b{letters.replace(here, 'k')}c", x, matrix)


class WaveMix(nn.Module):
    """A linear operator that is the same everywhere on a periodic grid: each wave's channels times a complex matrix."""

    def __init__(self, channels: int, modes: Sequence[int]) -> None:
        super().__init__()
        shape = (*(2 * count - 1 for count in modes[:-1]), modes[-1], channels, channels)
        self.real = nn.Parameter(torch.randn(shape) * (0.5 * channels**-0.5))
        self.imaginary = nn.Parameter(torch.randn(shape) * (0.5 * channels**-0.5))
        self.letters = LETTERS[MOST_DIMS - len(modes) :]

    def forward(self, x: Float[Tensor, "batch *grid channel"], found: Sequence[Waves]) -> Tensor:
        """In float32 whatever the autocast."""
        with full_precision(x):
            return self._mixed(x, found)

    def _mixed(self, x: Tensor, found: Sequence[Waves]) -> Tensor:
        real, imaginary = analysed(x, found)
        rule = f"b{self.letters}i,{self.letters}io->b{self.letters}o"
        mixed = (
            torch.einsum(rule, real, self.real) - torch.einsum(rule, imaginary, self.imaginary),
            torch.einsum(rule, real, self.imaginary) + torch.einsum(rule, imaginary, self.real),
        )
        return built(mixed, found)


class WaveBlock(nn.Module):
    """x + two layers at every place of what the waves and the place itself say (the residual form of Tran et al. 2023)."""

    def __init__(self, channels: int, modes: Sequence[int]) -> None:
        super().__init__()
        self.mix = WaveMix(channels, modes)
        self.here = nn.Linear(channels, channels)
        self.outward = nn.Linear(channels, channels)

    def forward(self, x: Float[Tensor, "batch *grid channel"], found: Sequence[Waves]) -> Tensor:
        """float32."""
        out: Tensor = x + exact(self.outward, F.gelu(self.mix(x, found) + exact(self.here, x)))
        return out


class FieldEncoder(Encoder):
    """Numbers on a grid -> a feature map on it (`levels`: first the standardised channels, then the features) and tokens:
    the map's long waves at a fixed number of places."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, contract: FieldContract, size: Size, *, modes: Sequence[int], noise: float) -> None:
        super().__init__()
        self.dims, self.modes, self.noise = contract.dims, tuple(modes), noise
        self.channels, self.width = contract.channels, max(8, size.width // SHARE[contract.dims])
        self.register_buffer("mean", torch.tensor(contract.mean, dtype=torch.float32), persistent=False)
        self.register_buffer(
            "deviation", torch.tensor(spread(contract.deviation), dtype=torch.float32), persistent=False
        )
        self.lift = nn.Linear(contract.channels + contract.dims, self.width)
        self.blocks = nn.ModuleList([WaveBlock(self.width, self.modes) for _ in range(max(1, size.depth))])
        self.project = nn.Linear(self.width, size.width, bias=False)
        self.norm = nn.LayerNorm(size.width)

    def forward(self, values: Float[Tensor, "batch z y x channel"], sizes: Int[Tensor, "batch 3"]) -> Tokens:
        """Tokens row by row of the grid."""
        x, extents = on_grid(values, self.dims), sizes[:, MOST_DIMS - self.dims :]
        raw = (x.float() - self.mean) / self.deviation
        if self.training and self.augment and self.noise:
            raw = raw + self.noise * torch.randn_like(raw)
        found = basis(extents, x.shape[1:-1], self.modes)
        hidden = exact(self.lift, torch.cat([raw, _places(extents, x.shape[1:-1])], -1))
        for block in self.blocks:
            hidden = block(hidden, found)
        tokens = self.norm(exact(self.project, self._sampled(hidden, found)))
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        level = torch.cat([raw, hidden], -1).movedim(-1, 1)
        return Tokens(tokens, mask, levels={"field": [level]}, extents={"field": extents})

    def neutral(self, values: Tensor, sizes: Tensor, found: Tensor) -> Tensor:
        """The mean of the training rows."""
        return self.mean.to(found.dtype).expand_as(found)

    def _sampled(self, x: Float[Tensor, "batch *grid channel"], found: Sequence[Waves]) -> Tensor:
        """The map's waves at the places of the tokens, [batch, token, channel]."""
        count = PLACES[self.dims]
        sizes = torch.full((x.shape[0], self.dims), count, device=x.device)
        coarse = basis(sizes, (count,) * self.dims, self.modes)
        with full_precision(x):
            return built(analysed(x, found), coarse).flatten(1, self.dims)


class FieldHead(Head):
    """The feature map of the input that it lies on, and with it those of the other fields (what a plate is made of decides place
    by place), steered by all tokens (a scale and a shift for each channel; Perez et al. 2018) -> numbers on the same grid.
    With as many channels as the input it begins as "nothing changes". Beside them it says how far off each will be."""

    mean: Tensor
    deviation: Tensor
    scale: Tensor

    def __init__(self, contract: FieldContract, size: Size, *, on: str, modes: Sequence[int]) -> None:
        super().__init__()
        self.on, self.dims, self.modes, self.channels = on, contract.dims, tuple(modes), contract.channels
        self.size = size
        for name, values in (
            ("mean", contract.mean),
            ("deviation", spread(contract.deviation)),
            ("scale", contract.scale),
        ):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)

    def meet(self, encoders: Mapping[str, Encoder]) -> None:
        """What comes out of the encoder that it lies on decides how wide it is."""
        encoder = encoders[self.on]
        assert isinstance(encoder, FieldEncoder)
        require(
            encoder.dims == self.dims,
            field=f"the grid of {self.on}", got=f"{encoder.dims} axes", allowed=f"{self.dims} axes, as the answer has",
            fix="give both on grids of as many axes (a length of 1 is one), or say dims:", error=DataError,
        )  # fmt: skip
        self.given, width = encoder.channels, encoder.width
        self.modes = tuple(min(own, other) for own, other in zip(self.modes, encoder.modes, strict=True))
        self.steer = nn.Linear(self.size.width, 2 * width)
        others = {
            name: item for name, item in encoders.items() if isinstance(item, FieldEncoder) and item.dims == self.dims
        }
        self.others = tuple(name for name in others if name != self.on)
        beside = sum(others[name].channels + others[name].width for name in self.others)
        self.join = nn.Linear(beside, width) if self.others else None
        count = HEAD_BLOCKS + bool(self.others)  # how one field acts on another takes a further one
        self.blocks = nn.ModuleList([WaveBlock(width, self.modes) for _ in range(count)])
        self.outward = nn.Linear(width, self.channels)
        self.straight = nn.Linear(self.given, self.channels, bias=False)
        for layer in (self.steer, self.outward):
            nn.init.zeros_(layer.bias)
            nn.init.normal_(layer.weight, std=1e-2)
        if self.given == self.channels:
            nn.init.eye_(self.straight.weight)
        else:
            nn.init.zeros_(self.straight.weight)
        widths = (width, self.given, self.channels)
        self.doubt = Doubt(widths, self.channels, inputs=len(encoders), token_width=self.size.width)

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """{'field': float32 [batch, z, y, x, channel] standardised, 'expected_error': the same of its absolute error,
        'sizes': int64 [batch, 3]}."""
        level, extents = self._level(tokens, self.on), tokens.extents[self.on]
        raw, hidden = level[..., : self.given], level[..., self.given :]
        if self.join is not None:
            laid = [
                across(self._level(tokens, name), tokens.extents[name], extents, hidden.shape[1:-1])
                for name in self.others
            ]
            hidden = hidden + exact(self.join, torch.cat(laid, -1))
        scale, shift = exact(self.steer, tokens.pooled()).chunk(2, dim=-1)
        around = (-1, *(1,) * self.dims, hidden.shape[-1])
        hidden = hidden * (1 + scale.reshape(around)) + shift.reshape(around)
        found = basis(extents, hidden.shape[1:-1], self.modes)
        for block in self.blocks:
            hidden = block(hidden, found)
        made = exact(self.outward, hidden) + exact(self.straight, raw)
        thin = MOST_DIMS - self.dims
        ones = torch.ones(extents.shape[0], thin, dtype=extents.dtype, device=extents.device)
        shape = (made.shape[0], *(1,) * thin, *made.shape[1:])
        return {
            "field": made.reshape(shape),
            EXPECTED: self.doubt(tokens, hidden, raw, made).reshape(shape),
            "sizes": torch.cat([ones, extents], 1),
        }

    def _level(self, tokens: Tokens, name: str) -> Float[Tensor, "batch *grid channel"]:
        """The feature map of an input, 0 where it is missing."""
        level = tokens.levels[name][0].movedim(1, -1)
        return torch.where(tokens.present[name].reshape(-1, *(1,) * (self.dims + 1)), level, 0.0)

    def loss(
        self, prediction: dict[str, Tensor], target: Float[Tensor, "batch z y x channel"], sizes: Int[Tensor, "batch 3"]
    ) -> dict[str, Float[Tensor, " batch"]]:
        """{'field': the relative error |answer - truth| / |truth|, the mean over the channels, 'expected_error': how wrong the
        error is that it expects, in deviations of the training rows}. Where a row has no target or one on another grid (such
        rows are put aside before), what both grids share is compared."""
        size = torch.minimum(prediction["sizes"], sizes)
        shared = [min(one, other) for one, other in zip(prediction["field"].shape[1:4], target.shape[1:4], strict=True)]
        made, wanted, expected = (
            x[:, : shared[0], : shared[1], : shared[2]].float()
            for x in (prediction["field"], target, prediction[EXPECTED])
        )
        real = real_cells(size, shared)
        error = torch.where(real[..., None], made * self.deviation + self.mean - wanted, 0.0)
        power = torch.where(real[..., None], wanted, 0.0).square().sum((1, 2, 3))
        least = (FLOOR * self.scale).square() * real.sum((1, 2, 3))[:, None]
        off = error.square().sum((1, 2, 3))
        share = off / torch.maximum(power, least).clamp(min=1e-30)
        doubt = doubt_loss(expected, error / self.deviation, real[..., None].expand_as(error))
        return {"field": (share + 1e-12).sqrt().mean(-1), EXPECTED: doubt}  # a root has no slope at 0

    def aim(self, prediction: dict[str, Tensor], about: tuple[int, ...]) -> Aim:
        """How much of this field there is: its projection, in deviations of the training rows; or one cell."""
        if about:
            z, y, x, channel = about
            return lambda other: other["field"][:, z, y, x, channel].float()
        return onto_itself(prediction, ["field"])

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """{'field': in the unit of the training rows, 'expected_error': of each channel, the mean over the grid, [batch,
        channel], 'sizes': how much of it is real}."""
        real = real_cells(prediction["sizes"], prediction["field"].shape[1:4])[..., None]
        expected = torch.where(real, prediction[EXPECTED].float(), 0.0).sum((1, 2, 3)) / real.sum((1, 2, 3))
        return {
            "field": prediction["field"].float() * self.deviation + self.mean,
            EXPECTED: expected * self.deviation,
            "sizes": prediction["sizes"],
        }

    def handed(self, prediction: dict[str, Tensor], *, greedy: bool) -> Handed:
        """The field itself, in its units."""
        return Handed(self.decode(prediction)["field"], prediction["sizes"])


def real_cells(sizes: Int[Tensor, "batch 3"], grid: Sequence[int]) -> Bool[Tensor, "batch z y x"]:
    """Which cells of a padded grid are a row's own."""
    real = torch.ones(sizes.shape[0], *grid, dtype=torch.bool, device=sizes.device)
    for axis, cells in enumerate(grid):
        place = torch.arange(cells, device=sizes.device) < sizes[:, axis, None]
        real = real & place.reshape(-1, *(cells if other == axis else 1 for other in range(MOST_DIMS)))
    return real


def on_grid(values: Float[Tensor, "batch z y x channel"], dims: int) -> Float[Tensor, "batch *grid channel"]:
    """Without the axes that the grid does not have."""
    for _ in range(MOST_DIMS - dims):
        values = values[:, 0]
    return values


def across(
    x: Float[Tensor, "batch *own channel"],
    own: Int[Tensor, "batch axes"],
    other: Int[Tensor, "batch axes"],
    grid: Sequence[int],
) -> Float[Tensor, "batch *grid channel"]:
    """A map on the cells of another grid over the same domain: the mean of what each cell covers where these are larger, else
    by linear interpolation; on one of as many cells it stays as it is. own, other: how many cells of each row are real,
    along each axis. In float32 whatever the autocast."""
    x = x.float()
    for axis, cells in enumerate(grid):
        ratio = (own[:, axis] / other[:, axis])[:, None, None]  # old cells to a new one
        new = torch.arange(cells, device=x.device)[None, :, None]
        old = torch.arange(x.shape[1 + axis], device=x.device)
        last = own[:, axis, None, None].float()
        covered = (torch.minimum(old + 1, (new + 1) * ratio) - torch.maximum(old, new * ratio)).clamp(min=0) / ratio
        place = ((new + 0.5) * ratio - 0.5).clamp(min=0).minimum(last - 1)
        weights = torch.where(ratio > 1, covered, (1 - (old - place).abs()).clamp(min=0))
        x = torch.einsum("bts,bs...->bt...", weights.to(x.dtype), x.movedim(1 + axis, 1)).movedim(1, 1 + axis)
    return x


def _places(extents: Int[Tensor, "batch axes"], grid: Sequence[int]) -> Float[Tensor, "batch *grid axes"]:
    """Where each cell lies in its row's domain, -1 to 1 along each axis."""
    dims, found = len(grid), []
    for axis, cells in enumerate(grid):
        place = torch.arange(cells, device=extents.device) + 0.5
        where = 2.0 * place[None] / extents[:, axis, None].float() - 1.0
        shape = (-1, *(cells if other == axis else 1 for other in range(dims)))
        found.append(where.reshape(shape).expand(-1, *grid))
    return torch.stack(found, dim=-1)
