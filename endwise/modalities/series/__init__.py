"""A series: numbers that follow each other at one rate, in one or many channels (a sensor, an ECG, an EEG, exchange rates),
as an input, and as an output that continues one: a forecast with its quantiles.

Here: how raw values are read, what is learnt about the training rows, how a forecast is written and scored. Not here: the
windows of a long table whose rows are steps (data/windows.py), the network (network.py), sound as people hear it (audio).
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from endwise.errors import BadValue, DataError, refusal, require, unknown_name
from endwise.modalities.base import (
    HAND_OFFS,
    OUTPUT_ROLE,
    Answer,
    Contract,
    Fetch,
    Modality,
    Role,
    counted,
    input_field,
    output_field,
    places_of,
    shared_field,
)
from endwise.modalities.series.reading import gaps_of, steps_of

if TYPE_CHECKING:
    from endwise.metrics import Metric
    from endwise.nn.interface import Encoder, Head
    from endwise.nn.size import Size

QUANTILES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
GAPS = "time since the step before"
EXAMPLE_NUMBERS = 2_000
SHOWN = 6  # steps that a preview spells out
NONE_TO_SCALE = 1e-12  # a smaller deviation is none


@dataclass(frozen=True, kw_only=True)
class SeriesContract(Contract):
    """What the training rows are like. The statistics are per channel, over all steps that have a value. length: steps of
    every row, null where they differ. window: rows are windows of a long table, and a longer series is read from its end.
    naive: the mean absolute error of answering with the value `season` steps before."""

    channels: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    naive: tuple[float, ...]
    length: int | None
    shortest: int
    longest: int
    missing_share: float
    window: bool


@dataclass(frozen=True, kw_only=True)
class Series(Modality):
    """Numbers in order: one list, or a list of channels of equal length, each a list.

    A value is a list ([1, 2.5, null]), an array [channel, step], {column: list}, or the path of an .npy or .csv file. What
    is missing (null, NaN, an empty cell) is masked and never filled in. Rows may differ in length; channels of one row may
    not: several rates are several inputs. As an output it is a forecast with quantiles, always as long as in training.
    """

    type: ClassVar[str] = "series"
    length_unit: ClassVar[str] = "steps"
    hand_offs: ClassVar[frozenset[str]] = HAND_OFFS - {"gumbel"}
    error_is_share: ClassVar[bool] = False
    contract_class = SeriesContract
    axes: ClassVar[int] = 1
    read_fields: ClassVar[tuple[str, ...] | None] = ("columns", "times")

    columns: tuple[str, ...] | None = shared_field(None, "the columns that are its channels; default: its own column")
    rate_hz: float | None = shared_field(None, "steps a second, where there is such a rate: kept and printed")
    unit: str | None = shared_field(None, "the unit of the numbers: kept and printed, never converted")
    times: str | None = input_field(
        None,
        "of a series without a rate: the column with the time of each step (dates or numbers), ascending; the gaps are a channel "
        "of their own, the only one with columns: []. In windows of a table it is data.windows.time",
    )
    known: bool = input_field(
        False, "known beforehand (the hour, a holiday, a plan): in windows of a table it reaches over the future, too"
    )
    form: Literal["auto", "convolution", "patches"] = input_field(
        "auto",
        "convolution: kernels of several widths (after InceptionTime); patches: stretches of each channel for itself under "
        "attention (after PatchTST), of series of one length; auto: patches where an output is a series",
    )
    normalise: Literal["auto", "contract", "instance"] = input_field(
        "auto",
        "contract: by mean and deviation of the training rows; instance: then by its own, which the tokens still say "
        "(after RevIN); auto: instance where an output is a series",
    )
    jitter: float | None = input_field(
        None, "noise in training, in deviations; default: 0.03 by convolution, 0 by patches"
    )
    scaling: float | None = input_field(None, "random gain of each channel in training; default: 0.1 by convolution")
    mask: float | None = input_field(None, "longest share of the steps hidden in training; default: 0.1 by convolution")
    quantiles: tuple[float, ...] = output_field(
        QUANTILES, "the shares of outcomes below each forecast line; 0.5 among them"
    )
    point: Literal["mean", "median"] = output_field(
        "mean", "the forecast that `value` holds: mean (MSE) or median (MAE)"
    )
    season: int = output_field(1, "steps of a season (24 for hours of a day): of the seasonal baseline and of MASE")
    continues: str | None = output_field(None, "the input it continues; default: the one with the same columns")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, ok, allowed, fix in (
            ("columns", self.columns is None or len(set(self.columns)) == len(self.columns), "different names", "name each column once"),
            ("columns", self.columns != () or self.times is not None, "one or more names, or none beside times:", "name the columns, or leave it out"),
            ("column", self.column is None or self.columns is None, "column or columns, not both", "remove column"),
            ("times", self.times is None or self.columns is not None, "times: beside columns: that name the values", "write columns: [NAME]"),
            ("rate_hz", self.rate_hz is None or 0 < self.rate_hz < math.inf, "a number above 0", "leave it out where there is no rate"),
            ("season", self.season >= 1, "a whole number of at least 1", "1 is no season"),
            *((name, getattr(self, name) is None or 0 <= getattr(self, name) < 1, "0 to 1", "0 is off") for name in ("jitter", "scaling", "mask")),
        ):  # fmt: skip
            require(ok, field=f"Series.{name}", got=getattr(self, name), allowed=allowed, fix=fix)
        levels = self.quantiles
        require(
            all(0 < level < 1 for level in levels) and list(levels) == sorted(set(levels)) and 0.5 in levels,
            field="Series.quantiles", got=levels, allowed="ascending numbers between 0 and 1 with 0.5 among them",
            fix="write quantiles: [0.1, 0.5, 0.9]",
        )  # fmt: skip
        require(len(levels) > 1, field="Series.quantiles", got=levels, allowed="0.5 and another", fix="[0.1, 0.5, 0.9]")

    # ---- both roles ------------------------------------------------------------------------------------------------

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """[step, channel], int16 or float32; NaN where a value is missing."""
        if self.times is None:
            return steps_of(raw, self.columns, fetch)
        if not isinstance(raw, Mapping) or self.times not in raw:
            raise BadValue(f"expected {{{self.times!r}: times, ...}} beside the values, got {raw!r:.60}")
        if not self.columns:
            return gaps_of(raw[self.times], None, fetch)
        found = steps_of(raw, self.columns, fetch)
        return np.concatenate([found.astype(np.float32), gaps_of(raw[self.times], len(found), fetch)], axis=1)

    def reads_columns(self) -> tuple[str, ...]:
        """Its channels, and the times where there are some."""
        return (*(self.columns or ()), *((self.times,) if self.times is not None else ()))

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> SeriesContract:
        """One pass. An output's rows have one length."""
        seen = _Statistics(self.season if role == OUTPUT_ROLE else 1)
        for value in values:
            seen.add(value)
        contract = seen.contract(self, missing)
        if role == OUTPUT_ROLE and contract.length is None:
            raise BadValue(f"rows of {contract.shortest} to {contract.longest} steps: a forecast is always as long")
        return contract

    def fit_windows(self, values: Iterable[np.ndarray], *, length: int, count: int, role: Role) -> SeriesContract:
        """The contract of windows: the statistics of what the training windows cover, each step once."""
        seen = _Statistics(self.season if role == OUTPUT_ROLE else 1)
        for value in values:
            seen.add(value)
        whole = seen.contract(self, 0)
        return dataclasses.replace(whole, count=count, length=length, shortest=length, longest=length, window=True)

    def transform(self, value: np.ndarray, contract: SeriesContract) -> np.ndarray:
        """float32 [step, channel]; of windows the last ones. Other channels than in training are refused."""
        if value.shape[1] != len(contract.channels):
            raise BadValue(f"{value.shape[1]} channels instead of the {len(contract.channels)} of training")
        if contract.window and contract.length is not None:
            if len(value) < contract.length:
                raise BadValue(f"{len(value)} steps, and the network looks at the last {contract.length}")
            value = value[-contract.length :]
            if self.times is not None:  # the step before the window is not looked at, wherever the values come from
                value = value.astype(np.float32, copy=True)
                value[0, -1] = np.nan
        return value.astype(np.float32, copy=False)

    def stored_as_taken(self, shape: tuple[int, ...], dtype: np.dtype[Any], contract: SeriesContract) -> bool:
        """Where nothing has to be cut, cast or left out."""
        fits = not contract.window or (shape[0] == contract.length and self.times is None)
        return dtype == np.float32 and shape[1:] == (len(contract.channels),) and fits

    def blank(self, contract: SeriesContract) -> np.ndarray:
        """The mean, for as many steps as every row has, or one."""
        return np.tile(np.array(contract.mean, np.float32), (contract.length or 1, 1))

    def length(self, shape: tuple[int, ...]) -> int:
        """Steps."""
        return shape[0]

    @property
    def file_kinds(self) -> tuple[str, ...]:
        """Tables as .csv files, arrays as .npy files."""
        return ("text/csv", "application/octet-stream")

    def example(self, contract: SeriesContract) -> Any:
        """The mean of each channel, as long as the shortest row, where that is short."""
        if self.times is not None or len(contract.channels) * contract.shortest > EXAMPLE_NUMBERS:
            return None
        rows = [[value] * contract.shortest for value in contract.mean]
        return dict(zip(self.columns, rows, strict=True)) if self.columns else rows

    def summary(self, contract: SeriesContract) -> str:
        """'7 channels, 336 steps at 173.61 Hz'."""
        count = len(contract.channels)
        steps = f"{contract.shortest}" if contract.length else f"{contract.shortest} to {contract.longest}"
        rate = f" at {self.rate_hz:g} Hz" if self.rate_hz else ""
        lacking = f", {contract.missing_share:.1%} of the values missing" if contract.missing_share else ""
        unit = f" {self.unit}" if self.unit else ""
        own = count - (self.times is not None)
        span = f", {min(contract.minimum[:own]):.4g} to {max(contract.maximum[:own]):.4g}{unit}" if own else ""
        if self.times is not None:
            span += f", {contract.minimum[-1]:.4g} to {contract.maximum[-1]:.4g} from step to step"
        return f"{count} {'channel' if count == 1 else 'channels'}, {steps} steps{rate}{span}{lacking}"

    def preview(self, value: np.ndarray, contract: SeriesContract) -> dict[str, str]:
        """The last steps of each channel."""
        told = [f"{name or index + 1}: … {', '.join(f'{step:.4g}' for step in value[-SHOWN:, index])}"
                for index, name in enumerate(contract.channels[:SHOWN])]  # fmt: skip
        more = f"; {len(contract.channels) - SHOWN} more channels" if len(contract.channels) > SHOWN else ""
        return {"kind": "text", "data": f"{len(value)} steps; " + "; ".join(told) + more}

    def onto(self, places: np.ndarray, whole: np.ndarray, contract: SeriesContract) -> np.ndarray:
        """Steps and channels; of one channel its steps alone. Nothing for what is read from a longer series' end."""
        full: np.ndarray = np.zeros(whole.shape)
        full[len(full) - len(places) :] = places
        return full[:, 0] if full.shape[1] == 1 else full

    def named(self, whole: np.ndarray, contract: SeriesContract) -> Sequence[str]:
        """'step 3 of level', the last one the newest."""
        several = len(contract.channels) > 1
        of = [f" of {name or index + 1}" if several else "" for index, name in enumerate(contract.channels)]
        return [f"step {step}{channel}" for step in range(len(whole)) for channel in of]

    def about(
        self, which: Any, decoded: Mapping[str, np.ndarray], contract: SeriesContract
    ) -> tuple[str, tuple[int, ...]]:
        """One step of one channel: 'step,channel', both from 0, or a step alone of a single channel; else the last step of
        the first channel."""
        value = np.asarray(decoded["value"])
        steps, channels = value.shape[:2]
        if which is None:
            place = (steps - 1, 0)
        elif channels == 1 and not isinstance(which, tuple | list) and "," not in str(which):
            place = (counted(which, steps, "step"), 0)
        else:
            step, channel = places_of(which, (steps, channels), "step,channel")
            place = (step, channel)
        name = contract.channels[place[1]]
        return (
            f"step {place[0]}{f' of {name}' if name else ''}: {value[place]:.5g}{f' {self.unit}' if self.unit else ''}",
            place,
        )

    def beside(self, inputs: Mapping[str, Modality], outputs: Mapping[str, Modality]) -> Self:
        """A series that is continued is looked at in patches and by its own level."""
        ahead = any(isinstance(item, Series) for item in outputs.values()) and not self.known
        form = "convolution" if self.form == "auto" and not ahead else self.form
        normalise = ("instance" if ahead else "contract") if self.normalise == "auto" else self.normalise
        return dataclasses.replace(self, form=form, normalise=normalise)

    # ---- inputs ----------------------------------------------------------------------------------------------------

    def hand_features(self) -> Any:
        """Level, spread and spectrum of each channel, and the last steps where rows have one length."""
        from endwise.modalities.series.features import SeriesFeatures

        return SeriesFeatures()

    # ---- outputs ---------------------------------------------------------------------------------------------------

    @property
    def num_terms(self) -> int:
        """The quantiles' loss, and the mean's."""
        return 2 if self.point == "mean" else 1

    def truth(self, value: np.ndarray, contract: SeriesContract) -> list[Any]:
        """A list of numbers, or of channels; NaN where a value is missing."""
        found: list[Any] = _channelled(np.asarray(value, np.float32)).tolist()
        return found

    def write(self, decoded: Mapping[str, np.ndarray], contract: SeriesContract) -> Answer:
        """The forecast in the user's unit; `detail` has every quantile, shaped alike."""
        bands = {
            f"{level:g}": _channelled(decoded["quantiles"][..., index]) for index, level in enumerate(self.quantiles)
        }
        named = {"channels": list(contract.channels)} if len(contract.channels) > 1 else {}
        return Answer(
            _channelled(decoded["value"]).tolist(),
            unit=self.unit,
            detail={**named, "point": self.point, "quantiles": bands},
        )

    def metrics(self, contract: SeriesContract) -> Sequence["Metric"]:
        """mse and mae in deviations of the training rows, as forecasts are usually compared; then in the unit; mase, crps and
        coverage."""
        from endwise import metrics

        return metrics.forecast_metrics(contract, self.quantiles, self.unit)

    def risk(self, contract: SeriesContract) -> "Metric":
        """The mean absolute error in deviations of the training rows."""
        from endwise import metrics

        return next(
            metric for metric in metrics.forecast_metrics(contract, self.quantiles, self.unit) if metric.name == "mae"
        )

    def sureness(self, answer: Answer, contract: SeriesContract) -> float:
        """How narrow the outermost band is, in deviations of the training rows: its mean width times -1."""
        bands = list(answer.detail["quantiles"].values())
        width = np.atleast_2d(np.asarray(bands[-1], np.float64)) - np.atleast_2d(np.asarray(bands[0], np.float64))
        return -float((width / np.array(contract.deviation)[:, None]).mean())

    def classical(self, contract: SeriesContract) -> Any:
        """Ridge regression of all steps on the past (direct multi-step)."""
        from endwise.modalities.series.features import SeriesRidge

        return SeriesRidge()

    def classical_of_inputs(self, contracts: Mapping[str, Contract], contract: SeriesContract) -> Any | None:
        """Ridge regression of a channel's future on its own past, one map for all channels, where an input has their past."""
        own = {name: item for name, item in contracts.items() if isinstance(item, SeriesContract)}
        found = continued(self, contract, own)
        length = None if found is None else own[found[0]].length
        if found is None or length is None or contract.length is None:
            return None
        from endwise.modalities.series.features import ContinuedRidge

        return ContinuedRidge(
            *found, length=length, mean=contract.mean, deviation=contract.deviation, steps=contract.length
        )

    def from_classical(self, predicted: Any, contract: SeriesContract) -> Answer:
        """A list of numbers, or of channels."""
        return Answer(np.asarray(predicted, dtype=np.float64).tolist(), unit=self.unit)

    def trivial(self, truths: Sequence[Any], contract: SeriesContract) -> Answer:
        """The mean of every step."""
        table = np.array(truths, dtype=np.float64)
        there = ~np.isnan(table)
        mean = np.where(there, table, 0).sum(0) / np.maximum(there.sum(0), 1)
        return Answer(mean.tolist(), unit=self.unit)

    def untaught(
        self, given: Mapping[str, np.ndarray], contracts: Mapping[str, Contract], contract: SeriesContract
    ) -> Mapping[str, Answer]:
        """The last value again and, with a season, the last season again."""
        found_in = continued(
            self, contract, {name: own for name, own in contracts.items() if isinstance(own, SeriesContract)}
        )
        if found_in is None or found_in[0] not in given:
            return {}
        name, places = found_in
        own = contracts[name]
        assert isinstance(own, SeriesContract)
        value = given[name]
        past = (value[-own.length :] if own.window and own.length else value)[:, places].astype(np.float64)
        assert contract.length is not None
        steps = np.arange(contract.length)
        found = {"the last value again": np.repeat(_last(past)[None], contract.length, axis=0)}
        if self.season > 1 and len(past) >= self.season:
            season = past[-self.season :][steps % self.season]
            found[f"the last {self.season} steps again"] = np.where(np.isnan(season), _last(past), season)
        return {way: Answer(_channelled(value).tolist(), unit=self.unit) for way, value in found.items()}

    # ---- network side ----------------------------------------------------------------------------------------------

    def encoder(self, contract: SeriesContract, size: "Size") -> "Encoder":
        """Tokens every few steps."""
        from endwise.modalities.series.network import encoder_of

        return encoder_of(self, contract, size)

    def head(self, contract: SeriesContract, size: "Size") -> "Head":
        """All steps of all channels at once."""
        from endwise.modalities.series.network import SeriesHead

        return SeriesHead(self, contract, size)


def continued(
    declared: Series, contract: SeriesContract, inputs: Mapping[str, SeriesContract]
) -> tuple[str, list[int]] | None:
    """The input that an output continues, and which of its channels are the output's: the one that is named, else the first
    with channels of the same names. RecipeError where the one that is named has other channels."""
    named, wanted = declared.continues, contract.channels
    if named is not None and named not in inputs:
        raise unknown_name(field="Series.continues", got=named, names=inputs)
    for name, own in inputs.items():
        if named in (None, name) and set(wanted) <= set(own.channels) and "" not in wanted:
            return name, [own.channels.index(channel) for channel in wanted]
    if named is None:
        return None
    count = len(inputs[named].channels)
    require(count == len(wanted), field="Series.continues", got=f"{named} with {count} channels",
            allowed=f"an input with {len(wanted)}, as the output has", fix="name the same columns in both")  # fmt: skip
    return named, list(range(count))


def _channelled(value: np.ndarray) -> np.ndarray:
    """[step, channel] as people have it: [step] of one channel, else [channel, step]."""
    return value[:, 0] if value.shape[1] == 1 else value.T


def _last(past: np.ndarray) -> np.ndarray:
    """The last value of each channel that is there; 0 where none is."""
    there = ~np.isnan(past)
    at = len(past) - 1 - there[::-1].argmax(0)
    return np.where(there.any(0), past[at, np.arange(past.shape[1])], 0.0)


# ---- what is learnt --------------------------------------------------------------------------------------------------


class _Statistics:
    """Counts, moments and range of each channel in one pass (Chan et al. 1979)."""

    def __init__(self, season: int) -> None:
        self.season = season
        self.lengths: dict[int, int] = {}
        self.channels: int | None = None
        self.rows = 0

    def add(self, value: np.ndarray) -> None:
        value = value.astype(np.float64)
        if self.channels is None:
            self.channels = value.shape[1]
            self.count, self.cells = np.zeros(self.channels), 0
            self.mean, self.squares, self.apart, self.pairs = (np.zeros(self.channels) for _ in range(4))
            self.low, self.high = np.full(self.channels, np.inf), np.full(self.channels, -np.inf)
        if value.shape[1] != self.channels:
            raise BadValue(f"rows of {self.channels} and of {value.shape[1]} channels: all have the same")
        self.rows += 1
        self.lengths[len(value)] = self.lengths.get(len(value), 0) + 1
        there = ~np.isnan(value)
        count, filled = there.sum(0), np.where(there, value, 0.0)
        mean = filled.sum(0) / np.maximum(count, 1)
        total = self.count + count
        step = mean - self.mean
        self.squares += np.where(there, np.square(value - mean), 0.0).sum(0) + np.square(
            step
        ) * self.count * count / np.maximum(total, 1)
        self.mean = self.mean + step * count / np.maximum(total, 1)
        self.count, self.cells = total, self.cells + len(value)
        self.low = np.minimum(self.low, np.where(there, value, np.inf).min(0))
        self.high = np.maximum(self.high, np.where(there, value, -np.inf).max(0))
        apart = np.abs(value[self.season :] - value[: -self.season])
        self.apart += np.nansum(apart, axis=0)
        self.pairs += (~np.isnan(apart)).sum(0)

    def contract(self, declared: Series, missing: int) -> SeriesContract:
        if self.channels is None:
            raise refusal(field="series", got=f"{missing} rows without a value", allowed="at least one training row with a series",
                          fix="look at the column's name, or remove the field", error=DataError)  # fmt: skip
        names = (declared.column or "",) * self.channels if declared.columns is None else declared.columns
        own = self.channels
        if declared.times is not None:
            names, own = (
                (*names, GAPS),
                own - 1,
            )  # the gaps are the last channel, and the first of them is no missing value
        deviation = np.sqrt(self.squares / np.maximum(self.count, 1))
        scale = np.where(deviation > NONE_TO_SCALE * np.maximum(1.0, np.abs(self.mean)), deviation, 1.0)
        naive = self.apart / np.maximum(self.pairs, 1)
        lengths = sorted(self.lengths)
        there = self.count > 0
        return SeriesContract(
            count=self.rows, missing=missing, channels=tuple(names), mean=_floats(self.mean), deviation=_floats(scale),
            minimum=_floats(np.where(there, self.low, 0.0)), maximum=_floats(np.where(there, self.high, 0.0)),
            naive=_floats(np.where(naive > 0, naive, scale)), length=lengths[0] if len(lengths) == 1 else None,
            shortest=lengths[0], longest=lengths[-1], window=False,
            missing_share=float(1 - self.count[:own].sum() / (self.cells * own)) if own else 0.0,
        )  # fmt: skip


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


__all__ = ["QUANTILES", "Series", "SeriesContract", "continued"]
