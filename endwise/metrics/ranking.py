"""Scores of a ranking: is what came next among the first, and how far up. Truths are lists of right items, answers lists of
items, the best first, out of all there are. Numpy only."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from endwise.metrics.engine import Metric, summable


def recall(depth: int) -> Metric:
    """recall@k: the share of the right items (of at most k) that are among the first k. With one right item, the hit rate."""

    def row(truth: Sequence[str], ranked: Sequence[str]) -> float:
        return len(set(truth) & set(ranked[:depth])) / min(depth, len(set(truth)))

    return _mean(f"recall@{depth}", row, proportion=True)


def ndcg(depth: int) -> Metric:
    """ndcg@k: a right item at place r of the first k counts 1 / log2(1 + r), as a share of what the best ranking counts
    (Järvelin & Kekäläinen 2002)."""

    def row(truth: Sequence[str], ranked: Sequence[str]) -> float:
        right = set(truth)
        found = sum(1 / np.log2(2 + place) for place, name in enumerate(ranked[:depth]) if name in right)
        return float(found / sum(1 / np.log2(2 + place) for place in range(min(depth, len(right)))))

    return _mean(f"ndcg@{depth}", row)


def mrr(depth: int) -> Metric:
    """mrr@k: one over the place of the first right item, 0 where it is not among the first k."""

    def row(truth: Sequence[str], ranked: Sequence[str]) -> float:
        right = set(truth)
        return next((1 / (1 + place) for place, name in enumerate(ranked[:depth]) if name in right), 0.0)

    return _mean(f"mrr@{depth}", row)


def sampled_ndcg(depth: int, *, rivals: int, of_term: str) -> Metric:
    """sampled_ndcg@k: ndcg@k among the first right item and `rivals` others drawn evenly, as papers before 2020 report it. Not
    comparable with ndcg@k, and no reason to prefer one model to another (Krichene & Rendle 2020); here without the noise of
    drawing: the mean over all draws, which follows from the place among all. of_term: [n, 2], place and number of items."""

    def rows(truths: Sequence[Any], term: Any) -> np.ndarray:
        place, count = np.asarray(term, np.float64).T
        return np.stack([_expected(place, count, depth, rivals), np.ones(len(place))], axis=1)

    return summable(f"sampled_ndcg@{depth}", "max", rows, _share, of_term=of_term)


def cold(metric: Metric, items: frozenset[str]) -> Metric:
    """cold_NAME: a metric of rows over those of which a right item is among `items`, that training did not have; not a number
    where there is no such row."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        found = metric.rows(truths, answers)
        return found * np.array([not items.isdisjoint(truth) for truth in truths], np.float64)[:, None]

    return replace(metric, name=f"cold_{metric.name}", rows=rows, proportion=False)


def _expected(place: np.ndarray, count: np.ndarray, depth: int, rivals: int) -> np.ndarray:
    """float64 [n]: the mean of 1 / log2(2 + above) over the number of better items among those drawn, which is hypergeometric;
    0 where there is no place. Half places, of ties, lie between their neighbours."""
    low, high = np.floor(place), np.ceil(place)
    mean: np.ndarray = (_of_whole(low, count, depth, rivals) + _of_whole(high, count, depth, rivals)) / 2
    return mean


def _of_whole(place: np.ndarray, count: np.ndarray, depth: int, rivals: int) -> np.ndarray:
    above = np.nan_to_num(place, nan=1.0) - 1
    others = np.nan_to_num(count, nan=1.0) - 1
    drawn = np.minimum(rivals, np.maximum(others, 0))
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, max(2.0, others.max(initial=1) + 1))))])

    def choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
        legal = (k >= 0) & (k <= n) & (n >= 0)
        n, k = np.where(legal, n, 0).astype(int), np.where(legal, k, 0).astype(int)
        return np.where(legal, logs[n] - logs[k] - logs[n - k], -np.inf)

    total = np.zeros(len(place))
    for better in range(depth):
        better_drawn = np.full(len(place), float(better))
        chance = choose(above, better_drawn) + choose(others - above, drawn - better_drawn) - choose(others, drawn)
        total += np.exp(chance) / np.log2(2 + better)
    return np.where(np.isnan(place), 0.0, total)


def _mean(name: str, row: Callable[[Sequence[str], Sequence[str]], float], *, proportion: bool = False) -> Metric:
    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        found = [row(truth, answer.value) for truth, answer in zip(truths, answers, strict=True)]
        return np.stack([np.array(found, np.float64), np.ones(len(found))], axis=1)

    return summable(name, "max", rows, _share, proportion=proportion)


def _share(sums: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1])
