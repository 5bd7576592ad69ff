"""Metrics of paths of agents, in metres: one `Paths` a row, each agent whose truth is known counted once.

The one path is held against the truth by `ade` and `fde`; of several futures the one that comes nearest by `min_ade`, `min_fde`
and `miss_rate`, which therefore say nothing about the chances. An answer for fewer agents (a constant one) gives those that it
lacks what it says about its last.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from endwise.metrics.engine import Metric, ratio_of_sums, same_length, summable

OfRow = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _displacements(truth: np.ndarray, ways: np.ndarray) -> np.ndarray:
    """float64 [agent, way, step]: how far off each step is; NaN where the truth is not known."""
    wanted = np.asarray(truth, np.float64)
    given = np.asarray(ways, np.float64)[np.minimum(np.arange(len(wanted)), len(ways) - 1)]
    found: np.ndarray = np.linalg.norm(given - wanted[:, None], axis=-1)
    return found


def _average(apart: np.ndarray) -> np.ndarray:
    """[agent, way]: over the steps that are known; NaN where none is."""
    there = ~np.isnan(apart)
    count = there.sum(-1)
    return np.where(count > 0, np.where(there, apart, 0.0).sum(-1) / np.maximum(count, 1), np.nan)


def _metric(name: str, of_row: Callable[[Any, Any], np.ndarray], unit: str | None = "m") -> Metric:
    """The mean over agents of `of_row(truth, answer)`, a number an agent, NaN where there is nothing to say."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        same_length(truths, answers)
        found = []
        for truth, answer in zip(truths, answers, strict=True):
            each = of_row(truth, answer.value)
            there = ~np.isnan(each)
            found.append([float(each[there].sum()), float(there.sum())])
        return np.array(found).reshape(-1, 2)

    return summable(name, "min", rows, ratio_of_sums, unit=unit)


def ade() -> Metric:
    """Average displacement error: how far the one path is from the truth, over the known steps of every agent."""
    return _metric("ade", lambda truth, said: _average(_displacements(truth.points, said.points[:, None]))[:, 0])


def fde() -> Metric:
    """Final displacement error: how far it is at the last step, of the agents that are there then."""
    return _metric("fde", lambda truth, said: _displacements(truth.points, said.points[:, None])[:, 0, -1])


def min_ade() -> Metric:
    """The average displacement error of the future that has the smallest one ("best of k")."""
    return _metric("min_ade", lambda truth, said: _average(_displacements(truth.points, said.ways)).min(1))


def min_fde() -> Metric:
    """The final displacement error of the future that ends nearest."""
    return _metric("min_fde", lambda truth, said: _displacements(truth.points, said.ways)[..., -1].min(1))


def miss_rate(reach_m: float) -> Metric:
    """The share of agents of whom no future ends within `reach_m` metres of where they ended."""

    def of_row(truth: Any, said: Any) -> np.ndarray:
        nearest = _displacements(truth.points, said.ways)[..., -1].min(1)
        return np.where(np.isnan(nearest), np.nan, nearest > reach_m)

    return _metric("miss_rate", of_row, unit=None)


def collision_rate(reach_m: float) -> Metric:
    """The share of agents whose one path comes within `reach_m` metres of another's of its row at the same step. Only agents
    whose truth is known are looked at."""

    def of_row(truth: Any, said: Any) -> np.ndarray:
        asked = np.flatnonzero(~np.isnan(truth.points).any(-1).all(-1))
        points = np.asarray(said.points, np.float64)[np.minimum(asked, len(said.points) - 1)]
        apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
        near = (apart < reach_m).any(-1) & ~np.eye(len(points), dtype=bool)
        found: np.ndarray = near.any(1).astype(np.float64)
        return found

    return _metric("collision_rate", of_row, unit=None)


__all__ = ["ade", "collision_rate", "fde", "min_ade", "min_fde", "miss_rate"]
