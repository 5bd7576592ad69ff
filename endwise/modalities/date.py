"""A moment: a date, or a date and a time.

Here: how moments are read, and their span in the training rows. Not here: the token made of one
(endwise/nn/scalars.py); durations (number). An input only: a moment to be predicted is a number of seconds or days
from a moment that is known.
"""

import datetime as dt
import numbers
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from endwise.errors import BadValue, DataError, refusal
from endwise.modalities.base import INPUT_ROLE, Contract, Fetch, Modality, Role, input_field

if TYPE_CHECKING:
    from endwise.nn.interface import Encoder
    from endwise.nn.size import Size

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
UNIX_S = {"unix": 1.0, "unix_ms": 1e-3}
FIRST_S, LAST_S = -62_135_596_800.0, 253_402_300_799.999_999  # the years 1 to 9999, what Python's dates hold


@dataclass(frozen=True, kw_only=True)
class DateContract(Contract):
    """The span of the training rows, in seconds since 1970 UTC."""

    mean: float
    deviation: float
    minimum: float
    maximum: float


@dataclass(frozen=True, kw_only=True)
class Date(Modality):
    """A date or a date with a time: ISO 8601 text, Python, numpy or pandas dates, or anything that `format` describes.

    What has no time zone is taken for UTC; what has no time, for midnight. The network sees where the moment lies in
    the training span and the phases of day, week and year.
    """

    type: ClassVar[str] = "date"
    roles: ClassVar[frozenset[Role]] = frozenset({INPUT_ROLE})
    contract_class = DateContract

    format: str | None = input_field(
        None, "how the text is written, as in '%d.%m.%Y %H:%M' (strptime), or 'unix' / 'unix_ms' for a count since 1970"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.format is not None and self.format not in UNIX_S:
            _check_format(self.format)

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """Seconds since 1970 UTC, float64 [] (exact to a microsecond in this century)."""
        if isinstance(raw, np.ndarray) and raw.ndim == 0:
            raw = raw[()]
        if isinstance(raw, np.datetime64):
            if np.isnat(raw):
                raise BadValue("not a time (NaT); leave the cell empty if the value is missing")
            seconds = _datetime64_s(raw)
        elif isinstance(raw, dt.date):
            seconds = _seconds(_moment(raw))
        elif self.format in UNIX_S:
            seconds = _count(raw) * UNIX_S[self.format]
        elif isinstance(raw, str):
            seconds = _seconds(self._parsed(raw.strip()))
        elif isinstance(raw, numbers.Real) and not isinstance(raw, bool):
            raise BadValue(f"{raw!r:.60} is a bare number: say format: unix (seconds since 1970) or unix_ms")
        else:
            raise BadValue(f"expected a date, got {type(raw).__name__} {raw!r:.60}")
        if not FIRST_S <= seconds <= LAST_S:
            raise BadValue(f"{raw!r:.60} lies outside the years 1 to 9999")
        return np.array(seconds, dtype=np.float64)

    def _parsed(self, text: str) -> dt.datetime:
        try:
            return dt.datetime.strptime(text, self.format) if self.format else dt.datetime.fromisoformat(text)
        except ValueError:
            if self.format:
                raise BadValue(f"{text[:60]!r} is not written as format says, {self.format!r}") from None
            raise BadValue(
                f"{text[:60]!r} is no ISO date such as 2026-11-21 or 2026-11-21T17:30:00+01:00; "
                "say how it is written with format:, for example '%d.%m.%Y'"
            ) from None

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> DateContract:
        """One pass of running moments (Welford 1962)."""
        count, mean, squares, low, high = 0, 0.0, 0.0, np.inf, -np.inf
        for value in values:
            seconds = float(value)
            count += 1
            step = seconds - mean
            mean += step / count
            squares += step * (seconds - mean)
            low, high = min(low, seconds), max(high, seconds)
        if not count:
            raise refusal(
                field="date", got=f"{missing} rows without a value", allowed="at least one training row with a date",
                fix="look at the column's name, or remove the field", error=DataError,
            )  # fmt: skip
        deviation = float(np.sqrt(squares / count)) if high > low else 0.0  # rounding is no spread
        return DateContract(count=count, missing=missing, mean=mean, deviation=deviation, minimum=low, maximum=high)

    def blank(self, contract: DateContract) -> np.ndarray:
        """The middle of the training span."""
        return np.array(contract.mean, dtype=np.float64)

    def example(self, contract: DateContract) -> Any:
        """The middle of the training span, as `format` says."""
        moment = dt.datetime.fromtimestamp(max(contract.mean, FIRST_S), dt.UTC)
        if self.format in UNIX_S:
            return contract.mean // UNIX_S[self.format]
        return moment.strftime(self.format) if self.format else moment.isoformat(timespec="seconds")

    def summary(self, contract: DateContract) -> str:
        """'from 2024-01-01 to 2026-11-21'."""
        return f"from {spelled(contract.minimum)} to {spelled(contract.maximum)}"

    def hand_features(self) -> Any:
        """The standardised moment, hour, weekday and phases."""
        from endwise.modalities.classical import DateFeatures

        return DateFeatures()

    def preview(self, value: np.ndarray, contract: DateContract) -> dict[str, str]:
        """ISO 8601, in UTC."""
        return {"kind": "text", "data": spelled(float(value))}

    def encoder(self, contract: DateContract, size: "Size") -> "Encoder":
        """One token."""
        from endwise.nn.scalars import DateEncoder

        return DateEncoder(contract.mean, contract.deviation, size)


def spelled(seconds: float) -> str:
    """ISO 8601 in UTC; midnight as the bare date."""
    moment = EPOCH + dt.timedelta(seconds=seconds)
    if (moment.hour, moment.minute, moment.second) == (0, 0, 0):
        return moment.date().isoformat()
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _check_format(format: str) -> None:
    """Refuse a format that strptime cannot read, or that holds no directive at all."""
    wrong = None
    try:
        dt.datetime.strptime("", format)
    except ValueError as refused:
        wrong = str(refused) if "directive" in str(refused) or "stray" in str(refused) else None
    except re.error as refused:  # a part named twice
        wrong = str(refused)
    if wrong is not None or "%" not in format:
        raise refusal(
            field="Date.format", got=format, allowed="strptime directives such as %d.%m.%Y %H:%M, or unix, or unix_ms",
            fix=wrong or "write it as the dates are written, with %Y for the year and so on",
        )  # fmt: skip


def _moment(raw: dt.date) -> dt.datetime:
    return raw if isinstance(raw, dt.datetime) else dt.datetime(raw.year, raw.month, raw.day)


def _seconds(moment: dt.datetime) -> float:
    try:
        if moment.utcoffset() is None:
            moment = moment.replace(tzinfo=dt.UTC)
        return (moment - EPOCH).total_seconds()
    except (ValueError, OverflowError):
        raise BadValue("not a time (NaT), or out of the calendar") from None


def _datetime64_s(raw: np.datetime64) -> float:
    """Any resolution from years to nanoseconds; whole seconds and the rest apart, to lose neither range nor digits."""
    whole = raw.astype("datetime64[s]")
    rest = raw - whole
    return float(whole.astype(np.int64)) + float(rest / np.timedelta64(1, "s"))


def _count(raw: Any) -> float:
    try:
        if isinstance(raw, bool) or not isinstance(raw, str | numbers.Real):
            raise ValueError
        value = float(raw)
    except (ValueError, OverflowError):
        raise BadValue(f"{raw!r:.60} is no count since 1970, which format says it is") from None
    if not np.isfinite(value):
        raise BadValue(f"{value} is no count since 1970")
    return value
