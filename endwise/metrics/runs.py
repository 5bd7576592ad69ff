"""Several trainings of one thing as one number, and two such things apart: intervals over rows and over seeds.

A single training says what these weights are worth on rows like these; what a way of training is worth varies with the
seed, too. Here both are resampled. Not here: a single model's interval (engine.py); which difference decides what (the
verb that compares).
"""

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from endwise.metrics.engine import (
    RESAMPLES,
    Estimate,
    Metric,
    _at,
    _bootstrap,
    _independent,
    _units,
    _weights,
    _wilson,
)

Z = 1.959963984540054


def pooled(
    metric: Metric,
    runs: Sequence[np.ndarray],
    *,
    weights: Any = None,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """The mean of a metric over trainings that differ in their seed, with its 95 % interval. runs: what `metric.rows` gave
    for each of them on the same n rows.

    Each resample draws rows (whole `clusters`, where given) and seeds, both with replacement; the seeds' part is made
    larger by k / (k - 1), since k seeds vary less about their own mean than about the true one. The ends are then moved
    outwards as a t interval's are, by Satterthwaite's degrees of freedom (1946) of rows and seeds: of three seeds that
    disagree more than the rows do, little can be said. One training has an interval over rows alone.
    """
    return _over_both(metric, [(1.0, runs)], weights, clusters, resamples, seed)


def pooled_difference(
    metric: Metric,
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    *,
    weights: Any = None,
    clusters: Sequence[Hashable] | None = None,
    same_trainings: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """The mean over the `first` trainings minus that over the `second`, as in `pooled`: scored on the same resamples of
    the same rows, so that what is hard for both cancels. Seeds are drawn for each side by itself, since equal numbers
    of seeds of two networks have nothing in common; `same_trainings`: the k-th of both sides are one training, asked in
    two ways, and are drawn together."""
    assert not same_trainings or len(first) == len(second), "one training on one side alone"
    return _over_both(metric, [(1.0, first), (-1.0, second)], weights, clusters, resamples, seed, same_trainings)


def _over_both(
    metric: Metric,
    sides: Sequence[tuple[float, Sequence[np.ndarray]]],
    weights: Any,
    clusters: Sequence[Hashable] | None,
    resamples: int,
    seed: int,
    same_trainings: bool = False,
) -> Estimate:
    runs = [item for _, side in sides for item in side]
    assert all(side for _, side in sides), "a side without a training"
    count = len(runs[0])
    assert all(len(item) == count for item in runs), "trainings scored on different rows"
    if count == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    row_weights, units = _weights(weights, count), _units(clusters, count)
    at = [np.array([_at(metric, item, row_weights) for item in side]) for _, side in sides]
    value = float(sum(sign * item.mean() for (sign, _), item in zip(sides, at, strict=True)))
    if not math.isfinite(value) or int(units.max()) < 1:
        return Estimate(value, math.nan, math.nan, count)
    drawn = _bootstrap([metric] * len(runs), runs, row_weights, units, resamples, seed)
    chance = np.random.default_rng(seed + 1)
    over_rows, over_seeds, start = np.zeros(resamples), np.zeros(resamples), 0
    for sign, side in sides:
        over_rows += sign * drawn[start : start + len(side)].mean(0)
        start += len(side)
    parts = []  # (variance, degrees of freedom) of each source
    by_seed = [sign * own for (sign, _), own in zip(sides, at, strict=True)]
    for own in [np.sum(by_seed, axis=0)] if same_trainings else by_seed:
        k = len(own)
        if k > 1:
            picked = own[chance.integers(0, k, (resamples, k))].mean(1) - own.mean()
            over_seeds += picked * math.sqrt(k / (k - 1))
            parts.append((float(own.var(ddof=1)) / k, k - 1))
    both = (over_rows + over_seeds)[np.isfinite(over_rows)]
    if len(both) < 2:
        return Estimate(value, math.nan, math.nan, count)
    parts.append((float(np.nanvar(over_rows)), int(units.max())))
    low, high = _ends(value, both, parts)
    if low == high:
        low, high = _without_spread(metric, sides, at, row_weights, units, value)
    if len(sides) == 1:
        low, high = _inside(metric, low, high, both)
    return Estimate(value, low, high, count)


def _ends(value: float, drawn: np.ndarray, parts: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """The percentiles, moved outwards by what t has more than the normal distribution."""
    from scipy.special import stdtrit

    total = sum(variance for variance, _ in parts)
    spread = sum(variance**2 / freedom for variance, freedom in parts)
    wider = -float(stdtrit(max(1.0, total**2 / spread), 0.025)) / Z if spread > 0 else 1.0
    low, high = np.quantile(drawn, [0.025, 0.975])
    return value - max(0.0, value - float(low)) * wider, value + max(0.0, float(high) - value) * wider


def _without_spread(
    metric: Metric,
    sides: Sequence[tuple[float, Sequence[np.ndarray]]],
    at: Sequence[np.ndarray],
    weights: np.ndarray,
    units: np.ndarray,
    value: float,
) -> tuple[float, float]:
    """Where all resamples agree: Wilson's interval for a share, the two sides' ends set against each other; else none."""
    low = high = 0.0
    for (sign, side), own in zip(sides, at, strict=True):
        mean, rows = float(own.mean()), _independent(metric, side[0], weights, units)
        if rows == 0 or not 0 <= mean <= 1:
            return value, value
        ends = [sign * end for end in _wilson(mean, rows)]
        low, high = low + min(ends), high + max(ends)
    return low, high


def _inside(metric: Metric, low: float, high: float, drawn: np.ndarray) -> tuple[float, float]:
    """No share beyond 0 and 1, no error below 0 where none was seen there."""
    if metric.proportion or metric.shares is not None:
        return max(0.0, low), min(1.0, high)
    return (max(0.0, low), high) if metric.direction == "min" and float(drawn.min()) >= 0 else (low, high)


__all__ = ["pooled", "pooled_difference"]
