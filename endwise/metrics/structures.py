"""Metrics of protein chains: how alike two runs of points are, whatever their place in space. One `Chain` a row.

An answer of another length (a constant one) is compared residue by residue from the first on; residues that it lacks are
wrong. Residues that the truth lacks (NaN: they were not resolved) are not asked about.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from endwise.chain import laid
from endwise.metrics.engine import Metric, ratio_of_sums, same_length, summable, with_one

THRESHOLDS = (0.5, 1.0, 2.0, 4.0)  # angstrom, of lDDT
INCLUSION = 15.0  # angstrom: what is farther apart in the truth is not asked about
FEWEST_TO_SUPERPOSE = 3
REFINED = 20  # rounds of a superposition on what lies near
NEAR = (4.5, 8.0)  # angstrom: what lies near is within the scale of the score, but no less and no more
HALVED, SHORTEST = 5, 4  # how often the whole is halved to fragments, and their fewest residues


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
    same fold. The length is that of what was resolved. The superposition is searched from fragments, as its authors do."""
    one, other = _both(truth, answer)
    size = int(np.isfinite(truth).all(1).sum())
    if len(one) < FEWEST_TO_SUPERPOSE:
        return math.nan
    scale = max(0.5, 1.24 * (size - 15) ** (1 / 3) - 1.8) if size > 15 else 0.5
    return _best(one - one.mean(0), other - other.mean(0), scale) / size


def _best(one: np.ndarray, other: np.ndarray, scale: float) -> float:
    """The largest sum over residues of 1 / (1 + (distance / scale)^2) that was found: from the superposition of each fragment
    on, those residues are superposed that came near, until they stay the same. All fragments at once, [search, residue]."""
    near = min(max(scale, NEAR[0]), NEAR[1])
    # a superposition and the distances after it are sums of these over residues
    products = np.concatenate([(other[:, :, None] * one[:, None]).reshape(-1, 9), one, other], axis=1)
    squares = np.square(one).sum(1) + np.square(other).sum(1)
    chosen, best = _fragments(len(one)), 0.0
    for number in range(REFINED):
        turn, shift = _superpositions(chosen @ products, chosen.sum(1)[:, None])
        told = np.concatenate([turn.reshape(-1, 9), shift, -(turn @ shift[..., None])[..., 0]], axis=1)
        apart = np.maximum(squares + np.square(shift).sum(1)[:, None] - 2 * told @ products.T, 0.0)
        best = max(best, float((1 / (1 + apart / scale**2)).sum(1).max()))
        found = apart < np.square(near + (1 if number else -1))
        few = found.sum(1) < FEWEST_TO_SUPERPOSE
        found[few] = np.argsort(np.argsort(apart[few], axis=1), axis=1) < FEWEST_TO_SUPERPOSE
        moved = np.unique(found[(found != chosen).any(1)], axis=0)
        if not len(moved):
            break
        chosen = moved.astype(np.float64)
    return best


def _fragments(count: int) -> np.ndarray:
    """float64 [fragment, residue], 1 inside: the whole, its half, quarter ... down to four residues, beginning at every eighth of
    their length."""
    lengths = dict.fromkeys(max(count >> halved, min(count, SHORTEST)) for halved in range(HALVED + 1))
    starts = [(start, length) for length in lengths for start in range(0, count - length + 1, max(1, length // 8))]
    place = np.arange(count)
    return np.array([(place >= start) & (place < start + length) for start, length in starts], np.float64)


def _superpositions(sums: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `superposition`, of many selections: (rotations [search, 3, 3], shifts [search, 3]) from their sums of products."""
    target, middle = sums[:, 9:12] / count, sums[:, 12:] / count
    spread = sums[:, :9].reshape(-1, 3, 3) - count[..., None] * middle[:, :, None] * target[:, None]
    left, _, right = np.linalg.svd(spread)
    left[:, :, 2] *= np.where(np.linalg.det(left @ right) < 0, -1.0, 1.0)[:, None]  # never a mirroring
    turn = left @ right
    return turn, target - (middle[:, None] @ turn)[:, 0]


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
