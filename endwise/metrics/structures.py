"""Metrics of protein chains: how alike two runs of points are, whatever their place in space. One `Chain` a row.

An answer of another length (a constant one) is compared residue by residue from the first on; residues that it lacks are
wrong. Residues that the truth lacks (NaN: they were not resolved) are not asked about.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from endwise.chain import laid, superposition
from endwise.metrics.engine import Metric, ratio_of_sums, same_length, summable, with_one

THRESHOLDS = (0.5, 1.0, 2.0, 4.0)  # angstrom, of lDDT
INCLUSION = 15.0  # angstrom: what is farther apart in the truth is not asked about
FEWEST_TO_SUPERPOSE = 3
REFINED = 20  # rounds of a superposition on what lies near


def rmsd(truth: np.ndarray, answer: np.ndarray) -> float:
    """Root mean square distance in angstrom after superposition, over the residues that both have."""
    one, other = _both(truth, answer)
    return float(np.sqrt(np.square(laid(other, one) - one).sum(-1).mean())) if len(one) else math.nan


def lddt(truth: np.ndarray, answer: np.ndarray) -> float:
    """Local distance difference test of alpha carbons (Mariani et al. 2013), 0 to 1: of the distances up to 15 angstrom in
    the truth, the share that is right within 0.5, 1, 2 and 4 angstrom, averaged over these and over the residues. A mirror
    image has the same."""
    found = lddt_by_residue(truth, answer)
    return float(found.mean()) if len(found) else math.nan


def lddt_by_residue(truth: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """Of each residue that has another within reach."""
    wanted, given = _distances(np.asarray(truth, np.float64)), _distances(_as_long(truth, answer))
    asked = (wanted < INCLUSION) & ~np.eye(len(wanted), dtype=bool)
    off = np.abs(wanted - given)
    right = np.mean([off < limit for limit in THRESHOLDS], axis=0)  # what is no number is not right
    count = asked.sum(1)
    shares: np.ndarray = (right * asked).sum(1)[count > 0] / count[count > 0]
    return shares


def tm_score(truth: np.ndarray, answer: np.ndarray) -> float:
    """Template modelling score of the given alignment (Zhang & Skolnick 2004), 0 to 1: above 0.5 two chains have about the
    same fold. The length is that of what was resolved. The superposition is searched from fragments of the whole, a half and
    a quarter of the length."""
    one, other = _both(truth, answer)
    count, size = len(one), int(np.isfinite(truth).all(1).sum())
    if count < FEWEST_TO_SUPERPOSE:
        return math.nan
    scale = max(0.5, 1.24 * (size - 15) ** (1 / 3) - 1.8) if size > 15 else 0.5
    best = 0.0
    for length in sorted(
        {count, max(count // 2, 4), max(count // 4, 4)} & set(range(FEWEST_TO_SUPERPOSE, count + 1)) | {count}
    ):
        for start in range(0, count - length + 1, max(1, length // 2)):
            best = max(best, _refined(one, other, np.arange(start, start + length), scale) / size)
    return best


def _refined(one: np.ndarray, other: np.ndarray, chosen: np.ndarray, scale: float) -> float:
    """The best sum of a superposition that begins on these residues and goes on with those that came near."""
    best, limit = 0.0, max(scale, 4.5)
    for _ in range(REFINED):
        turn, shift = superposition(other[chosen], one[chosen])
        apart = np.linalg.norm(other @ turn + shift - one, axis=-1)
        best = max(best, float((1 / (1 + np.square(apart / scale))).sum()))
        near = np.flatnonzero(apart < limit)
        if len(near) < FEWEST_TO_SUPERPOSE:
            near = np.argsort(apart, kind="stable")[:FEWEST_TO_SUPERPOSE]
        if np.array_equal(near, chosen):
            break
        chosen = near
    return best


def _both(truth: np.ndarray, answer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The residues that have a place in both."""
    count = min(len(truth), len(answer))
    one, other = np.asarray(truth[:count], np.float64), np.asarray(answer[:count], np.float64)
    known = np.isfinite(one).all(1) & np.isfinite(other).all(1)
    return one[known], other[known]


def _distances(points: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.linalg.norm(points[:, None] - points[None], axis=-1)
    return found


def _as_long(truth: np.ndarray, answer: np.ndarray) -> np.ndarray:
    made = np.full((len(truth), 3), math.nan)
    count = min(len(truth), len(answer))
    made[:count] = answer[:count]
    return made


def _of_chains(name: str, direction: Any, score: Callable[[np.ndarray, np.ndarray], float], unit: str | None) -> Metric:
    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        same_length(truths, answers)
        found = with_one(
            [score(truth.points, answer.value.points) for truth, answer in zip(truths, answers, strict=True)]
        )
        return np.where(np.isnan(found[:, :1]), 0.0, found)  # too short to be asked about

    return summable(name, direction, rows, ratio_of_sums, unit=unit)


def chain_lddt() -> Metric:
    """lDDT of alpha carbons, the mean over the chains."""
    return _of_chains("lddt", "max", lddt, None)


def chain_rmsd() -> Metric:
    """Root mean square distance after superposition, the mean over the chains."""
    return _of_chains("rmsd", "min", rmsd, "Å")


def chain_tm_score() -> Metric:
    """TM-score, the mean over the chains."""
    return _of_chains("tm_score", "max", tm_score, None)


__all__ = ["chain_lddt", "chain_rmsd", "chain_tm_score", "lddt", "lddt_by_residue", "rmsd", "tm_score"]
