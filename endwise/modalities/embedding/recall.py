"""How well one input of a row finds another among all scored rows: recall at k and the median rank, for each ordered
pair of inputs and on average. Numpy only. Not here: the bootstrap over queries (metrics/), the index (search.py).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from endwise.metrics import Metric, summable

DEPTHS = (1, 5, 10)
BLOCK_CELLS = 4_000_000  # of the scores held at once


@dataclass(frozen=True)
class Places:
    """Where the right row stands for each query of one ordered pair of inputs, float64 [row], NaN where a row lacks
    one of the two. above: rows that are wrong and nearer. ties: wrong and as near. right: right and as near as the
    nearest right one."""

    above: np.ndarray
    ties: np.ndarray
    right: np.ndarray

    @property
    def asked(self) -> np.ndarray:
        """bool [row]: which rows are queries."""
        there: np.ndarray = ~np.isnan(self.above)
        return there

    def found(self, depth: int) -> np.ndarray:
        """The probability that a right row is among the first `depth`, ties in random order (McSherry & Najork 2008)."""
        wanted = np.clip(depth - self.above, 0, depth)
        missed = np.ones(len(self.above))
        for drawn in range(depth):
            left = np.maximum(self.ties - drawn, 0) / np.maximum(self.ties + self.right - drawn, 1)
            missed = np.where(drawn < wanted, missed * left, missed)
        return np.where(self.asked, 1 - missed, 0.0)

    def ranks(self) -> np.ndarray:
        """The expected rank of the first right row, from 1."""
        expected: np.ndarray = 1 + self.above + self.ties / (self.right + 1)
        return expected


@dataclass
class _Ranking:
    """The places of all pairs, computed once for the answers that all metrics of one output are asked about."""

    inputs: Sequence[str]
    asked: tuple[Any, Any] | None = None
    made: dict[tuple[str, str], Places] = field(default_factory=dict)

    def __call__(self, truths: Sequence[Any], answers: Sequence[Any]) -> dict[tuple[str, str], Places]:
        if self.asked is None or self.asked[0] is not truths or self.asked[1] is not answers:
            given = [answer.detail.get("vectors", {}) for answer in answers]
            sides = {name: _side(name, truths, given) for name in self.inputs}
            self.made = {
                (one, other): _places(sides[one], sides[other]) for one, other in itertools.permutations(self.inputs, 2)
            }
            self.asked = (truths, answers)
        return self.made


def recall(inputs: Sequence[str]) -> list[Metric]:
    """The means over all ordered pairs first (recall@1 is the usual goal), then each pair's own."""
    ranking, pairs = _Ranking(inputs), list(itertools.permutations(inputs, 2))
    found = [_recall(ranking, pairs, depth, "") for depth in DEPTHS] + [_median_rank(ranking, pairs, "")]
    for pair in pairs:
        which = f" {pair[0]}->{pair[1]}"
        found += [_recall(ranking, [pair], depth, which) for depth in DEPTHS] + [_median_rank(ranking, [pair], which)]
    return found


def _recall(ranking: _Ranking, pairs: Sequence[tuple[str, str]], depth: int, which: str) -> Metric:
    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        made = ranking(truths, answers)
        columns = [part for pair in pairs for part in (made[pair].found(depth), made[pair].asked)]
        return np.stack(columns, axis=1).astype(np.float64)

    def from_sums(sums: np.ndarray) -> np.ndarray:
        hits, asked = sums[..., 0::2], sums[..., 1::2]
        shares = np.divide(hits, asked, out=np.full(hits.shape, np.nan), where=asked > 0)
        return _mean(shares)

    return summable(f"recall@{depth}{which}", "max", rows, from_sums, proportion=True)


def _median_rank(ranking: _Ranking, pairs: Sequence[tuple[str, str]], which: str) -> Metric:
    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        made = ranking(truths, answers)
        return np.stack([made[pair].ranks() for pair in pairs], axis=1)

    def combine(stats: np.ndarray, weights: np.ndarray) -> float:
        return float(_mean(np.array([_median(column, weights) for column in stats.T])))

    return Metric(f"median_rank{which}", "min", rows, combine)


def _side(name: str, truths: Sequence[Any], given: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """(vectors [row, dim], identities int64 [row], 0 where the row lacks this input) of one input."""
    identity = np.array(
        [truth.get(name, 0) if name in own else 0 for truth, own in zip(truths, given, strict=True)], np.int64
    )
    size = next((len(own[name]) for own in given if name in own), 1)
    vectors = np.zeros((len(truths), size), np.float32)
    for row in np.flatnonzero(identity).tolist():
        vectors[row] = given[row][name]
    return vectors, identity


def _places(query: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> Places:
    """Every row's query vector among the other vectors of all rows that have them."""
    (vectors, own), (targets, theirs) = query, other
    gallery, asked = np.flatnonzero(theirs), np.flatnonzero((own != 0) & (theirs != 0))
    counts = np.full((3, len(own)), np.nan)
    block = max(1, BLOCK_CELLS // max(1, len(gallery)))
    for start in range(0, len(asked), block):
        rows = asked[start : start + block]
        scores = vectors[rows] @ targets[gallery].T
        right = (own[rows, None] == own[gallery]) | (theirs[rows, None] == theirs[gallery])
        best = np.where(right, scores, -np.inf).max(1)[:, None]
        counts[:, rows] = (
            (~right & ~(scores <= best)).sum(1),  # what is not a number is no answer
            (~right & (scores == best)).sum(1),
            (right & (scores == best)).sum(1),
        )
    return Places(*counts)


def _median(values: np.ndarray, weights: np.ndarray) -> float:
    """The weighted median of what is there."""
    there = ~np.isnan(values) & (weights > 0)
    if not there.any():
        return float("nan")
    order = np.argsort(values[there], kind="stable")
    ranked, mass = values[there][order], np.cumsum(weights[there][order])
    low = np.searchsorted(mass, mass[-1] / 2, side="left")
    high = np.searchsorted(mass, mass[-1] / 2, side="right")
    return float((ranked[low] + ranked[min(high, len(ranked) - 1)]) / 2)


def _mean(values: np.ndarray) -> np.ndarray:
    """Over the last axis, of what is defined."""
    there = ~np.isnan(values)
    total, count = np.where(there, values, 0.0).sum(-1), there.sum(-1)
    return np.asarray(np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0))


__all__ = ["Places", "recall"]
