"""A number, or a fixed number of them, with a unit.

Here: how numbers are parsed, what is learnt about the training rows, and how a predicted one is written back. Not
here: the encoding and the head (endwise/nn/scalars.py); numbers that are names (category), moments (date).
"""

import json
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from endwise.errors import BadValue, DataError, refusal, require
from endwise.modalities.base import (
    HAND_OFFS,
    Answer,
    Contract,
    Fetch,
    Modality,
    Role,
    counted,
    output_field,
    shared_field,
)

if TYPE_CHECKING:
    from endwise.metrics import Metric
    from endwise.nn.interface import Encoder, Head
    from endwise.nn.size import Size

LEVELS = 33  # stored quantiles, evenly spaced from the smallest to the largest value
RESERVOIR_ROWS = 10_000
RESERVOIR_CELLS = 4_000_000  # 32 MB: what the sample of long vectors may take
CHUNK_ROWS = 1024
LARGEST = 1e100  # squares of larger ones overflow
MISSING_WORDS = frozenset({"na", "n/a", "nan", "null", "none", "?", "-", "--", "missing", "unknown", "."})
SHOWN = 4  # numbers of a vector that a summary or a preview spells out


@dataclass(frozen=True, kw_only=True)
class NumberContract(Contract):
    """What the training rows are like, for each number of a value. length: numbers in a value, null for a plain number.
    quantiles: 33 evenly spaced ones, from a random sample of at most 10 000 rows. integer: all were whole."""

    length: int | None
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    quantiles: tuple[tuple[float, ...], ...]
    integer: bool


@dataclass(frozen=True, kw_only=True)
class Number(Modality):
    """A number, or a list of always as many numbers.

    Text is parsed with a decimal point ("3.5", "1e-3"); "3,5", "5 kg", infinities and true/false are refused with the
    reason. As an output it is predicted in the same unit, with a 90 % interval measured on validation rows; whole
    numbers are not rounded.
    """

    type: ClassVar[str] = "number"
    contract_class = NumberContract
    hand_offs: ClassVar[frozenset[str]] = HAND_OFFS - {"gumbel"}
    can_be_told: ClassVar[bool] = True
    can_be_said: ClassVar[bool] = True
    unsure: ClassVar[str] = "its interval is as wide for every row; interval: quantile makes one that is not"
    sure_by: ClassVar[str] = "write interval: quantile beside abstain"
    error_is_share: ClassVar[bool] = False

    unit: str | None = shared_field(
        None, "the unit the numbers are in (kg, m/s ...): kept and printed, never converted"
    )
    vector_size: int | None = shared_field(
        None, "how many numbers a value has; default: as many as the training rows have"
    )
    loss: Literal["huber", "mse", "mae"] = output_field(
        "huber", "huber: robust to outliers; mse: the mean; mae: the median"
    )

    interval: Literal["residual", "quantile"] = output_field(
        "residual", "residual: as wide for every row; quantile: as wide as the row is uncertain, which abstain: needs"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.vector_size is None or self.vector_size >= 1,
            field="Number.vector_size",
            got=self.vector_size,
            allowed="a whole number of at least 1",
            fix="leave it out for a plain number",
        )

    # ---- both roles ------------------------------------------------------------------------------------------------

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """float64 [] or [n]."""
        if isinstance(raw, str) and raw.lstrip().startswith("["):
            raw = _parsed_list(raw)
        if hasattr(raw, "__array__") and not isinstance(raw, np.generic):
            raw = np.asarray(raw)
            raw = raw.item() if raw.ndim == 0 else raw
        if isinstance(raw, list | tuple | np.ndarray):
            return self._read_vector(raw)
        if self.vector_size is not None:
            raise BadValue(f"expected a list of {self.vector_size} numbers, got {raw!r:.60}")
        return np.array(_parsed(raw), dtype=np.float64)

    def _read_vector(self, raw: Any) -> np.ndarray:
        if isinstance(raw, np.ndarray) and raw.ndim > 1:
            raise BadValue(f"expected a flat list of numbers, got an array of shape {list(raw.shape)}")
        if len(raw) == 0:
            raise BadValue("the list of numbers is empty")
        if self.vector_size is not None and len(raw) != self.vector_size:
            raise BadValue(f"{len(raw)} numbers instead of the {self.vector_size} declared as vector_size")
        if isinstance(raw, np.ndarray) and raw.dtype.kind in "iuf" and np.isfinite(raw).all():
            value = raw.astype(np.float64)
            if np.abs(value).max() <= LARGEST:
                return value
        made = []
        for index, item in enumerate(raw):
            try:
                made.append(_parsed(item))
            except BadValue as wrong:
                raise BadValue(f"number {index + 1} of {len(raw)}: {wrong}") from None
        return np.array(made, dtype=np.float64)

    def read_column(self, raws: Sequence[Any], contract: NumberContract, fetch: Fetch) -> np.ndarray | None:
        """Numbers, or text of them, at once; what is odd in any way is left to `read`."""
        values = _column(raws) if contract.length is None else raws
        shape = (len(raws),) if contract.length is None else (len(raws), contract.length)
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "iuf" or values.shape != shape:
            return None
        found = values.astype(np.float64)
        return found if bool((np.abs(found) <= LARGEST).all()) else None

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> NumberContract:
        """One pass; memory bounded by the sample for the quantiles."""
        moments = _Moments()
        for value in values:
            moments.add(value)
        return moments.contract(missing)

    def transform(self, value: np.ndarray, contract: NumberContract) -> np.ndarray:
        """The decoded value; a vector of another length than in training is refused."""
        expected = () if contract.length is None else (contract.length,)
        if value.shape != expected:
            raise BadValue(f"expected {_spelled(contract.length)} as in training, got {_spelled(_length(value))}")
        return value

    def blank(self, contract: NumberContract) -> np.ndarray:
        """The mean."""
        return np.array(contract.mean[0] if contract.length is None else contract.mean, dtype=np.float64)

    def example(self, contract: NumberContract) -> Any:
        """The mean."""
        return contract.mean[0] if contract.length is None else list(contract.mean)

    def summary(self, contract: NumberContract) -> str:
        """'whole numbers, mean 3.2 kg, deviation 1.1, from 0 to 9'."""
        unit = f" {self.unit}" if self.unit else ""
        kind = "whole numbers, " if contract.integer else ""
        if contract.length is not None:
            low, high = min(contract.minimum), max(contract.maximum)
            return f"{kind}{contract.length} in a value, from {low:.4g}{unit} to {high:.4g}{unit}"
        span = f"from {contract.minimum[0]:.4g} to {contract.maximum[0]:.4g}"
        return f"{kind}mean {contract.mean[0]:.4g}{unit}, deviation {contract.deviation[0]:.4g}, {span}"

    def preview(self, value: np.ndarray, contract: NumberContract) -> dict[str, str]:
        """The number with its unit; of a long vector the first four."""
        shown = ", ".join(f"{item:.6g}" for item in np.atleast_1d(value)[:SHOWN])
        if value.ndim and len(value) > SHOWN:
            shown += f", … ({len(value)} numbers)"
        return {"kind": "text", "data": shown + (f" {self.unit}" if self.unit else "")}

    # ---- inputs ----------------------------------------------------------------------------------------------------

    def hand_features(self) -> Any:
        """Standardised numbers and whether they are missing."""
        from endwise.modalities.classical import NumberFeatures

        return NumberFeatures()

    # ---- outputs ---------------------------------------------------------------------------------------------------

    def truth(self, value: np.ndarray, contract: NumberContract) -> float | list[float]:
        """A float, or a list of them."""
        found: float | list[float] = value.tolist()
        return found

    def write(self, decoded: Mapping[str, np.ndarray], contract: NumberContract) -> Answer:
        """The number in the user's unit; `detail` has the measured 90 % interval as low and high."""
        value, detail = np.asarray(decoded["value"]), {}
        if self.interval == "quantile":
            detail = {end: np.asarray(decoded[end]).tolist() for end in ("low", "high")}
        elif ((half := np.asarray(decoded["half_width"])) >= 0).all():
            detail = {"low": (value - half).tolist(), "high": (value + half).tolist()}
        return Answer(value.tolist(), unit=self.unit, detail=detail)

    def write_column(self, decoded: Mapping[str, np.ndarray], contract: NumberContract) -> dict[str, Any]:
        """Arrays of the numbers, and of the ends of their intervals where those were measured."""
        value, half = np.asarray(decoded["value"]), np.asarray(decoded["half_width"])
        measured = bool((half >= 0).all())
        return {
            "value": value,
            "confidence": None,
            "detail": {"low": value - half, "high": value + half} if measured else None,
        }

    def named(self, whole: np.ndarray, contract: NumberContract) -> Sequence[str]:
        """Each number with its unit."""
        unit = f" {self.unit}" if self.unit else ""
        return [f"{number:.6g}{unit}" for number in np.atleast_1d(whole)]

    def about(
        self, which: Any, decoded: Mapping[str, np.ndarray], contract: NumberContract
    ) -> tuple[str, tuple[int, ...]]:
        """The number; of a vector the one that is asked for, else the first."""
        values = np.atleast_1d(decoded["value"])
        place = counted(which, len(values), "number")
        unit = f" {self.unit}" if self.unit else ""
        return f"{'' if contract.length is None else f'number {place}: '}{values[place]:.6g}{unit}", (place,)

    def said(self, target: np.ndarray, contract: NumberContract) -> Any:
        """The number, or the list."""
        return np.asarray(target).tolist()

    def metrics(self, contract: NumberContract) -> Sequence["Metric"]:
        """mae and rmse in the unit, r2."""
        from endwise import metrics

        return [metrics.mae(self.unit), metrics.rmse(self.unit), metrics.r2()]

    @property
    def num_terms(self) -> int:
        """The error, and the interval where it is learnt."""
        return 2 if self.interval == "quantile" else 1

    @property
    def can_abstain(self) -> bool:
        """Where one interval is wider than another."""
        return self.interval == "quantile"

    def risk(self, contract: NumberContract) -> "Metric":
        """The mean absolute error in the unit."""
        from endwise import metrics

        return metrics.mae(self.unit)

    def sureness(self, answer: Answer, contract: NumberContract) -> float:
        """How narrow the interval is, in deviations of the training rows: its mean width times -1."""
        width = np.asarray(answer.detail["high"], np.float64) - np.asarray(answer.detail["low"], np.float64)
        scale = np.array([item if item > 0 else 1.0 for item in contract.deviation])
        return -float((np.atleast_1d(width) / scale).mean())

    def classical(self, contract: NumberContract) -> Any:
        """Ridge regression or gradient-boosted trees."""
        from endwise.modalities.classical import SuitedRegressor

        return SuitedRegressor()

    def trivial(self, truths: Sequence[Any], contract: NumberContract) -> Answer:
        """The mean."""
        return Answer(np.mean(np.array(truths, dtype=np.float64), axis=0).tolist(), unit=self.unit)

    def from_classical(self, predicted: Any, contract: NumberContract) -> Answer:
        """A predicted row."""
        return Answer(np.asarray(predicted, dtype=np.float64).tolist(), unit=self.unit)

    # ---- network side ----------------------------------------------------------------------------------------------

    def encoder(self, contract: NumberContract, size: "Size") -> "Encoder":
        """One token."""
        from endwise.nn.scalars import NumberEncoder

        return NumberEncoder(contract.mean, contract.deviation, contract.quantiles, size)

    def head(self, contract: NumberContract, size: "Size") -> "Head":
        """A standardised prediction, turned back into the unit."""
        from endwise.nn.scalars import NumberBandHead, NumberHead

        vector = contract.length is not None
        kind = NumberBandHead if self.interval == "quantile" else NumberHead
        return kind(contract.mean, contract.deviation, size, vector=vector, loss=self.loss)


# ---- parsing -------------------------------------------------------------------------------------------------------


def _parsed(raw: Any) -> float:
    """A finite number, or the reason why this is none."""
    if raw is None:
        raise BadValue("missing")
    if isinstance(raw, bool | np.bool_):
        raise BadValue(f"{raw!s} is no number; type: boolean reads it")
    try:
        if isinstance(raw, str):
            value = _parsed_text(raw)
        elif isinstance(raw, numbers.Real | Decimal):
            value = float(raw)
        else:
            raise BadValue(f"expected a number, got {type(raw).__name__} {raw!r:.60}")
    except OverflowError:
        raise BadValue("the number is too large for 64 bits") from None
    if math.isnan(value):
        raise BadValue("not a number (NaN); leave the cell empty if the value is missing")
    if math.isinf(value):
        raise BadValue("infinite; leave the cell empty if the value is missing")
    if abs(value) > LARGEST:
        raise BadValue(f"{value:g} is beyond ±{LARGEST:g}; use a larger unit")
    return value


def _parsed_text(raw: str) -> float:
    text = raw.strip()
    try:
        if "_" in text:
            raise ValueError
        return float(text)
    except ValueError:
        pass
    if not text:
        raise BadValue("empty text is no number")
    if "_" in text:
        raise BadValue(f"{text[:60]!r} is no number")
    if "," in text:
        raise BadValue(f"{text[:60]!r} is no number: write a decimal point and no thousands separator")
    start = text.split()[0].rstrip("%€$£°")
    try:
        float(start)
    except ValueError:
        missing = "; leave the cell empty if the value is missing" if text.lower() in MISSING_WORDS else ""
        raise BadValue(f"{text[:60]!r} is no number{missing}") from None
    raise BadValue(f"{text[:60]!r} is more than a number: put the unit into unit: and only the number into the table")


def _column(raws: Sequence[Any]) -> Any:
    """Plain numbers as an array where they are nothing else; anything odd as it is."""
    if isinstance(raws, np.ndarray):
        return raws
    kinds = set(map(type, raws))
    try:
        if kinds <= {float, int}:
            return np.array(raws, dtype=np.float64)
        if kinds == {str} and "_" not in "".join(raws):  # Python alone reads 1_000 as a number
            return np.array(list(map(float, raws)))
    except (ValueError, OverflowError):
        pass
    return raws


def _parsed_list(raw: str) -> list[Any]:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        raise BadValue(f"{raw[:60]!r} is no list of numbers: write it as JSON, [1, 2.5, 3]") from None
    assert isinstance(found, list)  # JSON that starts with '[' is a list
    return found


def _length(value: np.ndarray) -> int | None:
    return len(value) if value.ndim else None


def _spelled(length: int | None) -> str:
    return "one number" if length is None else f"a list of {length}"


# ---- what is learnt --------------------------------------------------------------------------------------------------


class _Moments:
    """Mean, deviation, range and a uniform sample of rows in one pass (Chan et al. 1979; Vitter 1985, algorithm R)."""

    def __init__(self) -> None:
        self.rows_of: dict[int | None, int] = {}  # rows by their length
        self.chunk: list[np.ndarray] = []
        self.count = 0
        self.integer = True
        self.random = np.random.default_rng(0)

    def add(self, value: np.ndarray) -> None:
        length = _length(value)
        self.rows_of[length] = self.rows_of.get(length, 0) + 1
        if len(self.rows_of) == 1:
            self.chunk.append(np.atleast_1d(value))
            if len(self.chunk) == CHUNK_ROWS:
                self.merge()

    def merge(self) -> None:
        if not self.chunk:
            return
        table = np.stack(self.chunk)
        self.chunk = []
        rows, mean = len(table), table.mean(0)
        squares = np.square(table - mean).sum(0)
        self.integer = self.integer and bool((table == np.floor(table)).all())
        if self.count == 0:
            self.mean, self.squares, self.low, self.high = mean, squares, table.min(0), table.max(0)
            self.sample = np.empty((0, table.shape[1]))
            self.capacity = max(LEVELS, min(RESERVOIR_ROWS, RESERVOIR_CELLS // table.shape[1]))
        else:
            total, step = self.count + rows, mean - self.mean
            self.squares = self.squares + squares + np.square(step) * (self.count * rows / total)
            self.mean = self.mean + step * (rows / total)
            self.low, self.high = np.minimum(self.low, table.min(0)), np.maximum(self.high, table.max(0))
        self._draw(table)
        self.count += rows

    def _draw(self, table: np.ndarray) -> None:
        free = min(self.capacity - len(self.sample), len(table))
        if free:
            self.sample = np.concatenate([self.sample, table[:free]])
        late = table[free:]
        slots = self.random.integers(0, np.arange(self.count + free, self.count + len(table)) + 1)
        for row in np.flatnonzero(slots < self.capacity):
            self.sample[slots[row]] = late[row]

    def contract(self, missing: int) -> NumberContract:
        if not self.rows_of:
            raise refusal(
                field="number", got=f"{missing} rows without a value",
                allowed="at least one training row with a number",
                fix="look at the column's name, or remove the field", error=DataError,
            )  # fmt: skip
        if len(self.rows_of) > 1:
            usual, *others = sorted(self.rows_of, key=lambda length: -self.rows_of[length])
            found = ", ".join(f"{self.rows_of[length]} rows with {_spelled(length)}" for length in (usual, *others[:3]))
            fix = "make each value one number, or one list of always the same length"
            if usual is not None:
                fix = f"say vector_size: {usual}, and the other rows are put aside and counted as bad"
            raise refusal(
                field="number", got=found, allowed="as many numbers in every row", fix=fix, error=DataError
            )  # fmt: skip
        self.merge()
        deviation = np.where(self.high > self.low, np.sqrt(self.squares / self.count), 0.0)  # rounding is no spread
        levels = np.quantile(self.sample, np.linspace(0, 1, LEVELS), axis=0)
        levels[0], levels[-1] = self.low, self.high
        return NumberContract(
            count=self.count,
            missing=missing,
            length=next(iter(self.rows_of)),
            mean=tuple(self.mean.tolist()),
            deviation=tuple(deviation.tolist()),
            minimum=tuple(self.low.tolist()),
            maximum=tuple(self.high.tolist()),
            quantiles=tuple(tuple(column) for column in levels.T.tolist()),
            integer=self.integer,
        )
