"""Metrics of forecasts: errors in deviations of the training rows (as forecasts are usually compared) and in the unit,
scaled errors, the quantiles' score and coverage. Numpy only; not here: the bootstrap (engine.py)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from endwise.metrics.engine import Metric, ratio_of_sums, summable

if TYPE_CHECKING:
    from endwise.modalities.series import SeriesContract


@dataclass(frozen=True)
class Errors:
    """What was true and said, float64 [row, channel, step]; NaN in `truth` where nothing is known. bands: [row, channel,
    step, level], None where a row's answer has none."""

    truth: np.ndarray
    said: np.ndarray
    bands: np.ndarray | None

    @property
    def there(self) -> np.ndarray:
        """bool [row, channel, step]."""
        known: np.ndarray = ~np.isnan(self.truth)
        return known

    def means(self, cost: np.ndarray) -> np.ndarray:
        """[row, 2]: the sum of a cost over what is known, and how much that is."""
        there = self.there
        return np.stack([np.where(there, cost, 0.0).sum((1, 2)), there.sum((1, 2)).astype(np.float64)], axis=1)


@dataclass
class _Reading:
    """The arrays, made once for the answers that all metrics of one output are asked about."""

    levels: Sequence[float]
    channels: int
    asked: tuple[Any, Any] | None = None
    made: Errors | None = field(default=None)

    def __call__(self, truths: Sequence[Any], answers: Sequence[Any]) -> Errors:
        if self.made is None or self.asked is None or self.asked[0] is not truths or self.asked[1] is not answers:
            shape = (len(truths), self.channels, -1)
            told = [answer.detail.get("quantiles") for answer in answers]
            bands = None
            if told and all(item is not None for item in told):
                columns = [np.array([item[f"{level:g}"] for item in told], np.float64) for level in self.levels]
                bands = np.stack([column.reshape(shape) for column in columns], axis=-1)
            self.made = Errors(
                truth=np.array(truths, np.float64).reshape(shape),
                said=np.array([answer.value for answer in answers], np.float64).reshape(shape),
                bands=bands,
            )
            self.asked = (truths, answers)
        return self.made


def forecast_metrics(contract: "SeriesContract", levels: Sequence[float], unit: str | None) -> list[Metric]:
    """mse and mae: in deviations of the training rows, each channel by its own. rmse_raw and mae_raw: in the unit. mase: beside the
    value a season before (Hyndman & Koehler 2006). crps: from the quantiles (of an answer without any its absolute error).
    coverage: the share of truths between the outermost quantiles; width: how far these are apart."""
    reading = _Reading(levels, len(contract.channels))
    deviation = np.array(contract.deviation)[:, None]
    naive = np.array(contract.naive)[:, None]
    nominal = round(100 * (levels[-1] - levels[0]))

    def of(name: str, cost: Callable[[Errors], np.ndarray], own_unit: str | None = None) -> Metric:
        def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
            found = reading(truths, answers)
            return found.means(cost(found))

        return summable(name, "min", rows, ratio_of_sums, unit=own_unit)

    def inside(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        found = reading(truths, answers)
        if found.bands is None:
            return np.zeros((len(found.truth), 2))
        return found.means((found.bands[..., 0] <= found.truth) & (found.truth <= found.bands[..., -1]))

    def width(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        found = reading(truths, answers)
        if found.bands is None:
            return np.zeros((len(found.truth), 2))
        return found.means((found.bands[..., -1] - found.bands[..., 0]) / deviation)

    root = of("rmse_raw", lambda found: np.square(found.said - found.truth), unit)
    return [
        of("mse", lambda found: np.square((found.said - found.truth) / deviation)),
        of("mae", lambda found: np.abs(found.said - found.truth) / deviation),
        summable("rmse_raw", "min", root.rows, lambda sums: np.asarray(np.sqrt(ratio_of_sums(sums))), unit=unit),
        of("mae_raw", lambda found: np.abs(found.said - found.truth), unit),
        of("mase", lambda found: np.abs(found.said - found.truth) / naive),
        of("crps", lambda found: _crps(found, levels) / deviation),
        summable(f"coverage_{nominal}", "max", inside, ratio_of_sums),
        summable("width", "min", width, ratio_of_sums),
    ]


def _crps(found: Errors, levels: Sequence[float]) -> np.ndarray:
    """Twice the quantile loss over all levels, each standing for the levels nearest to it (Gneiting & Ranjan 2011)."""
    if found.bands is None:
        apart: np.ndarray = np.abs(found.said - found.truth)
        return apart
    ends = np.concatenate([[0.0], (np.array(levels[1:]) + np.array(levels[:-1])) / 2, [1.0]])
    total = np.zeros(found.truth.shape)
    for index, level in enumerate(levels):  # one level at a time: all at once would be a copy of every band
        above = found.truth - found.bands[..., index]
        total += 2 * np.diff(ends)[index] * np.maximum(level * above, (level - 1) * above)
    return total


__all__ = ["Errors", "forecast_metrics"]
