"""Metrics as pure functions of truths and answers, each with n and a bootstrap interval.

A Metric turns rows into per-row statistics once and combines them for any row weights, so that an interval costs one
vectorised pass and a per-group table none. The library's figure is the oracle in the tests.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its n and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}] n={self.n}"


@dataclass(frozen=True, slots=True)
class Metric:
    """A named metric. `rows(truths, answers)` gives [n, k] statistics (or any per-row array); `combine(stats, weights)`
    gives the value for row weights [n]; summable metrics combine the weighted sum over rows."""

    name: str
    direction: Literal["min", "max"]
    rows: Callable[[Sequence[Any], Sequence[Any]], np.ndarray]
    combine: Callable[[np.ndarray, np.ndarray], float]
    unit: str | None = None
