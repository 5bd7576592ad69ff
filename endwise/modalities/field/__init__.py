"""A physical field: numbers on a regular grid of one to three axes, as solvers and sensors give them.

Here: how a field is read, what is learnt about the training rows, and how a predicted one is written. Not here: the
operator (network.py), ridge regression on waves (classical.py), feeding answers back (rollout.py), metrics
(endwise/metrics/fields.py). Pictures of the world are `image`; here no number is a colour, and none is resized or changed
at random.
"""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from endwise.certainty import EXPECTED
from endwise.errors import BadValue, DataError, refusal, require, unknown_name
from endwise.lattice import FLOOR, Lattice
from endwise.modalities.base import (
    HAND_OFFS,
    Answer,
    Contract,
    Fetch,
    Modality,
    Role,
    file_bytes,
    input_field,
    output_field,
    places_of,
    shared_field,
)

if TYPE_CHECKING:
    from endwise.metrics import Metric
    from endwise.nn.interface import Encoder, Head
    from endwise.nn.size import Size

MOST_DIMS = 3
MODES = {1: 16, 2: 10, 3: 5}  # waves along an axis of a grid with so many axes: cost grows with their product
MOST_MODES = 64
MOST_CELLS = 16_000_000  # 64 MB: more is a file of many fields, or channels and axes mixed up
LARGEST = 1e30  # squares of larger ones overflow 32 bits
NPY = b"\x93NUMPY"
EXAMPLE_NUMBERS = 2_000
AXES_SAID = {
    1: "[x]: one channel",
    2: "[y, x]: one channel",
    3: "[channel, y, x]",
    4: "[channel, z, y, x]",
}  # what an array of so many axes is, unless `dims` says otherwise


@dataclass(frozen=True, kw_only=True)
class FieldContract(Contract):
    """What the training rows are like. dims: axes of the grid; smallest, largest: the sizes of the grids; mean and
    deviation of each channel over all rows; scale: its root mean square."""

    dims: int
    channels: int
    smallest: tuple[int, ...]
    largest: tuple[int, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    scale: tuple[float, ...]

    @property
    def uniform(self) -> bool:
        """All training rows lie on grids of one size."""
        return self.smallest == self.largest


@dataclass(frozen=True, kw_only=True)
class Field(Modality):
    """Numbers on a regular grid: [x], [y, x], [channel, y, x] or [channel, z, y, x], as an array, nested lists, or the path
    of a .npy file; `dims: 1` reads [channel, x].

    Grids may differ in size from row to row, and at prediction from training: the network is an operator on waves
    (Fourier neural operator; Li et al. 2021), whose weights belong to waves per domain and not to places. As an output it
    lies on the grid of one input field (`on`). Other fields of as many axes are laid on that grid, cell by cell; all other
    inputs steer it as a whole. Answers are `Lattice`s, in the unit of the training rows; `detail["expected_error"]` says how far
    off one is likely to be.
    """

    type: ClassVar[str] = "field"
    length_unit: ClassVar[str] = "cells"
    hand_offs: ClassVar[frozenset[str]] = HAND_OFFS - {"gumbel"}
    error_is_share: ClassVar[bool] = False
    expects_error: ClassVar[bool] = True
    contract_class = FieldContract
    axes: ClassVar[int] = MOST_DIMS
    read_fields: ClassVar[tuple[str, ...]] = ("dims",)

    dims: int | None = shared_field(
        None,
        "axes of the grid, 1 to 3; null: arrays of one or two axes are one channel, of more begin with the channels",
    )
    units: tuple[str, ...] = shared_field(
        (), "the unit of each channel, or one for all (K, m/s ...): kept and printed, never converted"
    )
    modes: int | None = shared_field(
        None,
        "waves along each axis that are kept, never more than the smallest training grid has; null: 16, 10 and 5 on "
        "grids of one, two and three axes",
    )
    noise: float = input_field(
        0.0,
        "of the training inputs, in deviations of a channel: 0.01 to 0.1 where answers are fed back, so that small errors "
        "are mended and do not grow (Sanchez-Gonzalez et al. 2020)",
    )
    on: str | None = output_field(None, "the input field on whose grid it lies; null: the only one")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.dims is None or 1 <= self.dims <= MOST_DIMS,
            field="Field.dims", got=self.dims, allowed="1, 2 or 3", fix="leave it out to take the arrays' own axes",
        )  # fmt: skip
        require(
            self.modes is None or 1 <= self.modes <= MOST_MODES,
            field="Field.modes", got=self.modes, allowed=f"a whole number from 1 to {MOST_MODES}",
            fix="leave it out for what is usual",
        )  # fmt: skip
        require(
            0 <= self.noise < 10,
            field="Field.noise", got=self.noise, allowed="a number from 0 up to 10 deviations",
            fix="leave it out for none",
        )  # fmt: skip

    def beside(self, inputs: Mapping[str, Modality], outputs: Mapping[str, Modality]) -> Self:
        """An output with `on` written out."""
        if self not in outputs.values():
            return self
        fields = [name for name, item in inputs.items() if isinstance(item, Field)]
        require(
            bool(fields),
            field="outputs: type field", got=f"inputs {', '.join(inputs)}",
            allowed="an input of type: field, on whose grid it lies",
            fix="give the field before it, or its coefficients, as an input",
        )  # fmt: skip
        if self.on is None:
            require(
                len(fields) == 1,
                field="Field.on", got=None, allowed=f"one of {', '.join(fields)}", fix=f"write on: {fields[0]}",
            )  # fmt: skip
            return replace(self, on=fields[0])
        if self.on not in fields:
            raise unknown_name(field="Field.on", got=self.on, names=fields)
        return self

    # ---- both roles ------------------------------------------------------------------------------------------------

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """float32 [channel, *grid]."""
        made = raw.values if isinstance(raw, Lattice) else _array(raw, fetch)
        if made.dtype.kind not in "iuf":
            raise BadValue(f"expected numbers, got an array of {made.dtype}")
        dims = self.dims if self.dims is not None else min(max(made.ndim, 1), 4) - (made.ndim > 2)
        if isinstance(raw, Lattice):  # an answer that is fed back: it says which axis is the channels
            dims = made.ndim - 1
        if made.ndim == dims:
            made = made[None]
        if made.ndim != dims + 1 or not 1 <= dims <= MOST_DIMS:
            wanted = f"{dims} axes, or {dims + 1} with the channels first" if self.dims else "1 to 4 axes"
            raise BadValue(f"expected an array of {wanted}, got one of shape {list(made.shape)}")
        if not made.size:
            raise BadValue(f"an array of shape {list(made.shape)} holds no number")
        if made.size > MOST_CELLS:
            raise BadValue(f"{made.size:,} numbers; more than {MOST_CELLS:,} are not one field")
        odd = ~(np.abs(made) <= LARGEST)  # true of what is no number, too
        if odd.any():
            place = [int(item) for item in np.argwhere(odd)[0]]
            raise BadValue(f"{made[tuple(place)]} at {place} of [channel, *grid]: fields have no holes")
        return np.ascontiguousarray(made, np.float32)

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> FieldContract:
        """One pass."""
        shapes: set[tuple[int, ...]] = set()
        total, squares = np.zeros(1), np.zeros(1)
        count = cells = 0
        for value in values:
            shapes.add(value.shape)
            wide = value.astype(np.float64).reshape(len(value), -1)
            if len({(len(shape), shape[0]) for shape in shapes}) > 1:
                one, other = sorted(shapes, key=lambda shape: (len(shape), shape[0]))[:: max(1, len(shapes) - 1)][:2]
                raise refusal(
                    field=self.type, got=f"arrays [channel, *grid] of {list(one)} and {list(other)}",
                    allowed="as many channels and axes in every row", fix="say dims:, or mend the rows", error=DataError,
                )  # fmt: skip
            total, squares = total + wide.sum(1), squares + np.square(wide).sum(1)
            count, cells = count + 1, cells + wide.shape[1]
        if not shapes:
            raise refusal(
                field=self.type, got=f"{missing} rows without a value", allowed="at least one training row with a field",
                fix="look at the column's name, or remove the field", error=DataError,
            )  # fmt: skip
        (channels, *_), dims = next(iter(shapes)), len(next(iter(shapes))) - 1
        require(
            len(self.units) in (0, 1, channels),
            field=f"{type(self).__name__}.units", got=self.units, allowed=f"one unit, or one for each of {channels} channels",
            fix="list them in the order of the channels",
        )  # fmt: skip
        mean, power = total / cells, squares / cells
        grids = np.array([shape[1:] for shape in sorted(shapes)])
        return FieldContract(
            count=count, missing=missing, dims=dims, channels=channels,
            smallest=tuple(grids.min(0).tolist()), largest=tuple(grids.max(0).tolist()),
            mean=tuple(np.atleast_1d(mean).tolist()),
            deviation=tuple(np.sqrt(np.maximum(power - np.square(mean), 0)).tolist()),
            scale=tuple(np.sqrt(power).tolist()),
        )  # fmt: skip

    def transform(self, value: np.ndarray, contract: FieldContract) -> np.ndarray:
        """[z, y, x, channel]; axes that the grid does not have are 1 long. What was read as one channel [y, x] may be
        [channel, x], which an answer is in JSON: training knows."""
        if self.dims is None and contract.dims == 1 and value.shape[:-1] == (1, contract.channels):
            value = value[0]
        if (value.ndim - 1, len(value)) != (contract.dims, contract.channels):
            wanted = f"{contract.channels} channels on a grid of {contract.dims} axes"
            raise BadValue(f"expected {wanted} as in training, got an array of shape {list(value.shape)}")
        grid = (1,) * (MOST_DIMS - contract.dims) + value.shape[1:]
        return np.ascontiguousarray(np.moveaxis(value, 0, -1).reshape(*grid, len(value)))

    def blank(self, contract: FieldContract) -> np.ndarray:
        """The mean on the smallest grid."""
        grid = (1,) * (MOST_DIMS - contract.dims) + contract.smallest
        return np.broadcast_to(np.array(contract.mean, np.float32), (*grid, contract.channels)).copy()

    def length(self, shape: tuple[int, ...]) -> int:
        """Cells of the grid."""
        return int(np.prod(shape[1:]))

    def unit_of(self, contract: FieldContract) -> tuple[str, ...]:
        """A unit for each channel; '' where none is declared."""
        return (self.units or ("",)) * contract.channels if len(self.units) < 2 else self.units

    @property
    def file_kinds(self) -> tuple[str, ...]:
        """Arrays as .npy files."""
        return ("application/octet-stream",)

    def example(self, contract: FieldContract) -> Any:
        """Zeros on the smallest grid, where that is small."""
        shape = (contract.channels, *contract.smallest)
        return np.zeros(shape).tolist() if np.prod(shape) <= EXAMPLE_NUMBERS else None

    def summary(self, contract: FieldContract) -> str:
        """'1 channel on 32 x 32, mean 0.31 K, deviation 0.2'."""
        sizes = " x ".join(
            str(low) if low == high else f"{low} to {high}"
            for low, high in zip(contract.smallest, contract.largest, strict=True)
        )
        units = self.unit_of(contract)
        about = ", ".join(
            f"mean {mean:.4g}{f' {unit}' if unit else ''}, deviation {deviation:.4g}"
            for mean, deviation, unit in zip(contract.mean, contract.deviation, units, strict=True)
        )
        return f"{contract.channels} channel{'s' if contract.channels > 1 else ''} on {sizes}; {about}"

    def preview(self, value: np.ndarray, contract: FieldContract) -> dict[str, str]:
        """A picture of each channel."""
        return {"kind": "image", "data": Lattice(value, self.unit_of(contract)).drawn()}

    # ---- inputs ----------------------------------------------------------------------------------------------------

    def onto(self, places: np.ndarray, whole: np.ndarray, contract: FieldContract) -> np.ndarray:
        """Channels first, where the raw value has them there."""
        return np.moveaxis(places, -1, 0).reshape(whole.shape)

    def named(self, whole: np.ndarray, contract: FieldContract) -> Sequence[str]:
        """Cells are known by their numbers."""
        return ()

    def about(
        self, which: Any, decoded: Mapping[str, np.ndarray], contract: FieldContract
    ) -> tuple[str, tuple[int, ...]]:
        """The whole field, or one cell as 'channel,z,y,x' without the axes that the grid does not have."""
        if which is None:
            return "the field", ()
        sizes = [int(size) for size in np.asarray(decoded["sizes"])][MOST_DIMS - contract.dims :]
        channel, *cell = places_of(which, (contract.channels, *sizes), "channel and cell")
        full = (*[0] * (MOST_DIMS - contract.dims), *cell, channel)
        return f"cell {','.join(map(str, cell))}: {np.asarray(decoded['field'])[full]:.5g}", full

    def hand_features(self) -> Any:
        """The amplitudes of the lowest waves."""
        from endwise.modalities.field.classical import Waves

        return Waves()

    # ---- outputs ---------------------------------------------------------------------------------------------------

    def truth(self, value: np.ndarray, contract: FieldContract) -> Lattice:
        """The field."""
        return Lattice(np.array(value, np.float32), self.unit_of(contract))

    def misfit(self, shape: tuple[int, ...], under: tuple[int, ...]) -> str | None:
        """It lies on the grid of its input."""
        if under[1:] == shape[1:]:
            return None
        return f"a field on {_spelled(shape[1:])} cells beside {self.on} on {_spelled(under[1:])}"

    def write(self, decoded: Mapping[str, np.ndarray], contract: FieldContract) -> Answer:
        """The field in the unit of the training rows; in `detail` the error that is to be expected of its numbers, in the unit,
        of several channels of each."""
        grid = tuple(slice(int(size)) for size in np.asarray(decoded["sizes"]))
        values = np.moveaxis(np.asarray(decoded["field"], np.float32)[grid], -1, 0)
        shape = values.shape[1 + MOST_DIMS - contract.dims :]
        off: list[float] = np.asarray(decoded[EXPECTED]).tolist()
        made = self._answer(np.ascontiguousarray(values).reshape(len(values), *shape), contract)
        return replace(made, detail={EXPECTED: off if len(off) > 1 else off[0]})

    def _answer(self, values: np.ndarray, contract: FieldContract) -> Answer:
        return Answer(Lattice(values, self.unit_of(contract)), unit=", ".join(self.units) or None)

    def metrics(self, contract: FieldContract) -> Sequence["Metric"]:
        """relative_l2, and the root mean square error (where the channels have one unit, in it)."""
        from endwise import metrics

        unit = self.units[0] if len(set(self.units)) == 1 else None
        return [metrics.relative_l2(contract.scale), metrics.field_rmse(unit)]

    @property
    def num_terms(self) -> int:
        """The error, and how far off it was expected to be."""
        return 2

    def risk(self, contract: FieldContract) -> "Metric":
        """The relative error."""
        return self.metrics(contract)[0]

    def sureness(self, answer: Answer, contract: FieldContract) -> float:
        """The relative error that it expects, times -1."""
        values = np.asarray(answer.value.values, np.float64).reshape(contract.channels, -1)
        size = np.maximum(np.sqrt(np.square(values).mean(1)), np.maximum(FLOOR * np.array(contract.scale), 1e-30))
        return -float((np.atleast_1d(answer.detail[EXPECTED]) / size).mean())

    def missed(self, truth: Lattice, answer: Answer) -> Any:
        """The root mean square error of each channel."""
        apart = np.square(np.asarray(answer.value.values, np.float64) - truth.values)
        found: list[float] = np.sqrt(apart.reshape(len(apart), -1).mean(1)).tolist()
        return found if len(found) > 1 else found[0]

    def doubted_where(self, prediction: Mapping[str, np.ndarray], answer: Answer) -> np.ndarray:
        """Of each channel, on its cells."""
        grid = tuple(slice(int(size)) for size in np.asarray(prediction["sizes"]))
        own = np.moveaxis(np.asarray(prediction[EXPECTED], np.float64)[grid], -1, 0)
        found: np.ndarray = own.reshape(answer.value.shape)
        return found

    def missed_where(self, truth: Lattice, answer: Answer) -> np.ndarray:
        """Of each channel, on its cells."""
        found: np.ndarray = np.abs(np.asarray(answer.value.values, np.float64) - truth.values)
        return found

    def classical(self, contract: FieldContract) -> Any:
        """Ridge regression from waves to waves; None where grids differ, since it would not know on which one to answer."""
        from endwise.modalities.field.classical import WaveRidge

        return WaveRidge() if contract.uniform else None

    def trivial(self, truths: Sequence[Any], contract: FieldContract) -> Answer:
        """The mean field where all lie on one grid, else the mean of each channel."""
        shapes = {truth.values.shape for truth in truths}
        if len(shapes) == 1:
            middle = np.mean([truth.values for truth in truths], axis=0, dtype=np.float64)
            return self._answer(np.asarray(middle, np.float32), contract)
        shape = (contract.channels, *contract.smallest)
        mean = np.array(contract.mean, np.float32).reshape(-1, *(1,) * contract.dims)
        return self._answer(np.broadcast_to(mean, shape).copy(), contract)

    def untaught(
        self, given: Mapping[str, np.ndarray], contracts: Mapping[str, Any], contract: FieldContract
    ) -> Mapping[str, Answer]:
        """Persistence, where the field it lies on has the same channels."""
        fields = [name for name in given if isinstance(contracts[name], FieldContract) and self.on in (None, name)]
        before = given[fields[0]] if len(fields) == 1 else None
        if before is None or len(before) != contract.channels:
            return {}
        return {"nothing changes": self._answer(np.array(before, np.float32), contract)}

    def from_classical(self, predicted: Any, contract: FieldContract) -> Answer:
        """An array [channel, *grid]."""
        return self._answer(np.asarray(predicted, np.float32), contract)

    # ---- network side ----------------------------------------------------------------------------------------------

    def modes_of(self, contract: FieldContract) -> tuple[int, ...]:
        """How many waves along each axis are kept: fewer than half the cells of the smallest training grid."""
        wanted = self.modes or MODES[contract.dims]
        return tuple(max(1, min(wanted, (size + 1) // 2)) for size in contract.smallest)

    def encoder(self, contract: FieldContract, size: "Size") -> "Encoder":
        """A feature map on the field's own grid, and tokens of its long waves."""
        from endwise.modalities.field.network import FieldEncoder

        return FieldEncoder(contract, size, modes=self.modes_of(contract), noise=self.noise)

    def head(self, contract: FieldContract, size: "Size") -> "Head":
        """From the feature map of the input that it lies on to numbers on the same grid."""
        from endwise.modalities.field.network import FieldHead

        if self.on is None:
            raise refusal(field="Field.on", got=None, allowed="an input field", fix="name it, or use it in a recipe")
        return FieldHead(contract, size, on=self.on, modes=self.modes_of(contract))


def _spelled(grid: Sequence[int]) -> str:
    return " x ".join(str(count) for count in grid)


def _array(raw: Any, fetch: Fetch) -> np.ndarray:
    """Whatever a cell holds, as an array."""
    if isinstance(raw, str) and raw.lstrip().startswith("["):
        try:
            raw = json.loads(raw)
        except (ValueError, RecursionError):
            raise BadValue(f"{raw[:60]!r} is no list of numbers: write it as JSON, [[1, 2.5], [3, 4]]") from None
    if isinstance(raw, list | tuple):
        try:
            return np.array(raw)
        except ValueError:
            raise BadValue("the nested lists are of different lengths, so they are no grid") from None
    if hasattr(raw, "__array__"):
        return np.asarray(raw)
    data = file_bytes(raw, fetch, "a .npy array")
    if not data.startswith(NPY):
        raise BadValue("the file is no .npy array; numpy.save(path, array) writes one")
    try:
        loaded: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as wrong:
        raise BadValue(f"the .npy file is damaged, or holds no plain numbers: {str(wrong).splitlines()[0]}") from None
    return loaded
