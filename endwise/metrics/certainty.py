"""What confidence is worth: the risk of the surest answers at every coverage, and whether a confidence means what it says.

The "truths" of these metrics are the errors of the rows, their "answers" how sure the answers were: numbers both, so that
they serve every kind of value. Numpy only.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from endwise.metrics.engine import Metric, ratio, ratio_of_sums, summable, with_one

BINS = 15  # equal-width bins of confidence (Guo et al. 2017)


def errors_of(metric: Metric, truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
    """float64 [row]: how wrong each answer is by itself: the metric where it is to be small, else 1 - the metric. NaN where the
    metric of that row alone is undefined."""
    if not len(truths):
        return np.zeros(0)
    stats = metric.rows(truths, answers)
    if metric.from_sums is not None:
        found = np.asarray(metric.from_sums(stats), dtype=np.float64).reshape(len(truths))
    else:
        one = np.ones(1)
        found = np.array([metric.combine(stats[row : row + 1], one) for row in range(len(truths))], dtype=np.float64)
    return 1 - found if metric.direction == "max" else found


def mean_error(name: str, *, proportion: bool) -> Metric:
    """The mean of the errors, whatever the sureness. proportion: all are 0 or 1."""
    return summable(name, "min", lambda errors, _: with_one(errors), ratio_of_sums, proportion=proportion)


def aurc() -> Metric:
    """Area under the risk-coverage curve: the mean over rows of the mean error of all that are at least as sure (Geifman et
    al. 2019). Of equally sure answers none is answered before another. What knows its own errors comes near to 0; a sureness
    that says nothing gives the mean error."""

    def rows(errors: Sequence[Any], sureness: Sequence[Any]) -> np.ndarray:
        _, place = np.unique(-np.asarray(sureness, dtype=np.float64), return_inverse=True)
        return np.stack([np.asarray(errors, dtype=np.float64), place], axis=1)

    def combine(stats: np.ndarray, weights: np.ndarray) -> float:
        place = stats[:, 1].astype(np.int64)
        own = np.bincount(place, weights)
        wrong = np.bincount(place, weights * stats[:, 0])
        with np.errstate(divide="ignore", invalid="ignore"):
            risk = np.cumsum(wrong) / np.cumsum(own)
        return float(ratio(np.where(own > 0, own * risk, 0.0).sum(), own.sum()))

    return Metric("aurc", "min", rows, combine)


def calibration_error() -> Metric:
    """Expected calibration error: |mean confidence - (1 - mean error)| in equal-width bins of confidence, weighed by their rows
    (Guo et al. 2017). Biased upwards for few rows."""

    def rows(errors: Sequence[Any], confidence: Sequence[Any]) -> np.ndarray:
        sure, wrong = (np.asarray(part, dtype=np.float64) for part in (confidence, errors))
        stats = np.zeros((len(sure), BINS + 1))
        stats[np.arange(len(sure)), np.clip(np.ceil(sure * BINS).astype(int) - 1, 0, BINS - 1)] = sure - (1 - wrong)
        stats[:, BINS] = 1.0
        return stats

    def from_sums(sums: np.ndarray) -> np.ndarray:
        return np.asarray(ratio(np.abs(sums[..., :-1]).sum(-1), sums[..., -1]))

    return summable("calibration_error", "min", rows, from_sums)
