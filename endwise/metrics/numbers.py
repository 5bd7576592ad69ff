"""Metrics of numbers and vectors."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from endwise.metrics.engine import Metric, ratio, ratio_of_sums, summable, with_one


def mae(unit: str | None = None) -> Metric:
    """Mean absolute error, over all numbers of a vector."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        true, said = _numbers(truths), _numbers([answer.value for answer in answers])
        return with_one(np.abs(said - true).mean(1))

    return summable("mae", "min", rows, ratio_of_sums, unit=unit)


def rmse(unit: str | None = None) -> Metric:
    """Root of the mean squared error; for vectors the mean over their numbers of each one's root."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        true, said = _numbers(truths), _numbers([answer.value for answer in answers])
        return np.concatenate([np.square(said - true), np.ones((len(true), 1))], axis=1)

    def from_sums(sums: np.ndarray) -> np.ndarray:
        return np.asarray(np.sqrt(ratio(sums[..., :-1], sums[..., -1:])).mean(-1))

    return summable("rmse", "min", rows, from_sums, unit=unit)


def r2() -> Metric:
    """Share of the truths' variance that is explained, 1 - SSE / SST; for vectors the mean over their numbers.
    Undefined where the truths do not vary."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        true, said = _numbers(truths), _numbers([answer.value for answer in answers])
        centred = true - true.mean(0)  # sums of squares of large numbers would cancel
        return np.concatenate([np.square(said - true), centred, np.square(centred), np.ones((len(true), 1))], axis=1)

    def from_sums(sums: np.ndarray) -> np.ndarray:
        error, first, second = np.split(sums[..., :-1], 3, axis=-1)
        count = sums[..., -1:]
        spread = second - np.square(first) / np.where(count > 0, count, 1.0)
        spread = np.where(spread > 1e-12 * second, spread, 0.0)  # rounding of a constant is no variance
        return np.asarray((1 - ratio(error, spread)).mean(-1))

    return summable("r2", "max", rows, from_sums)


def _numbers(values: Sequence[Any]) -> np.ndarray:
    made = np.array([np.asarray(item, dtype=np.float64).reshape(-1) for item in values], dtype=np.float64)
    return made.reshape(len(values), -1)
