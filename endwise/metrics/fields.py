"""Metrics of fields: numbers on grids, one `Lattice` a row."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from endwise.lattice import FLOOR
from endwise.metrics.engine import Metric, ratio, ratio_of_sums, same_length, summable, with_one


def relative_error(truth: np.ndarray, answer: np.ndarray, scale: Sequence[float] = ()) -> float:
    """|answer - truth| / |truth| (Euclidean norms over the grid), the mean over the channels [channel, *grid].

    scale: the root mean square of each channel in training; where the truth has less than a thousandth of it, that is
    divided by instead. An answer on another grid (a constant one) counts as the mean of each channel.
    """
    wanted = np.asarray(truth, np.float64).reshape(len(truth), -1)
    given = np.asarray(answer, np.float64).reshape(len(answer), -1)
    if np.shape(truth) != np.shape(answer):
        given = np.broadcast_to(given.mean(1, keepdims=True), wanted.shape)
    least = FLOOR * np.array(scale or [0.0] * len(wanted)) * np.sqrt(wanted.shape[1])
    size = np.maximum(np.linalg.norm(wanted, axis=1), np.maximum(least, 1e-30))
    return float((np.linalg.norm(given - wanted, axis=1) / size).mean())


def relative_l2(scale: Sequence[float] = ()) -> Metric:
    """The mean over the rows of `relative_error`."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        same_length(truths, answers)
        return with_one(
            [
                relative_error(truth.values, answer.value.values, scale)
                for truth, answer in zip(truths, answers, strict=True)
            ]
        )

    return summable("relative_l2", "min", rows, ratio_of_sums)


def field_rmse(unit: str | None = None) -> Metric:
    """The root of the mean squared error over all cells and channels."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        same_length(truths, answers)
        found = []
        for truth, answer in zip(truths, answers, strict=True):
            wanted, given = np.asarray(truth.values, np.float64), np.asarray(answer.value.values, np.float64)
            if wanted.shape != given.shape:
                given = given.reshape(len(given), -1).mean(1).reshape(-1, *(1,) * (wanted.ndim - 1))
            found.append([float(np.square(given - wanted).sum()), float(wanted.size)])
        return np.array(found).reshape(-1, 2)

    def from_sums(sums: np.ndarray) -> np.ndarray:
        return np.asarray(np.sqrt(ratio(sums[..., 0], sums[..., 1])))

    return summable("rmse", "min", rows, from_sums, unit=unit)


__all__ = ["field_rmse", "relative_error", "relative_l2"]
