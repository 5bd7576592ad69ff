"""Nested parts of the labels: what there would have been with fewer of them.

A smaller part is inside every larger one, so that a learning curve shows what more labels add and not which rows were
drawn. Classes keep their shares; whole groups stay together. Not here: who trains on the parts (advise).
"""

from collections.abc import Hashable, Sequence

import numpy as np


def nested(
    rows: np.ndarray,
    shares: Sequence[float],
    *,
    seed: int,
    classes: Sequence[Hashable] | None = None,
    groups: np.ndarray | None = None,
) -> list[np.ndarray]:
    """For each share in (0, 1] of `rows`, that part of them, ascending; another seed draws other parts.

    classes: of each row; every part has them in the shares of the whole, as far as whole rows can. groups: of each row;
    a group is in a part or not, so that a part is the nearest to its share that whole groups give, and `classes` plays
    no part then. No part is empty.
    """
    rows = np.asarray(rows, dtype=np.int64)
    rng = np.random.default_rng(seed)
    if groups is not None:
        order, ends = _by_group(np.asarray(groups), rng)
    else:
        order, ends = _by_class(classes, len(rows), rng), np.arange(1, len(rows) + 1)
    return [np.sort(rows[order[: _nearest(ends, share * len(rows))]]) for share in shares]


def _by_class(classes: Sequence[Hashable] | None, count: int, rng: np.random.Generator) -> np.ndarray:
    """An order of which every beginning is stratified: the k-th of n rows of a class stands at about k / n."""
    shuffled = rng.permutation(count)
    if classes is None:
        return shuffled
    totals: dict[Hashable, int] = {}
    for name in classes:
        totals[name] = totals.get(name, 0) + 1
    seen: dict[Hashable, int] = {}
    place = np.empty(count)
    for at in shuffled.tolist():
        name = classes[at]
        place[at] = (seen.get(name, 0) + 0.5) / totals[name]
        seen[name] = seen.get(name, 0) + 1
    return shuffled[np.argsort(place[shuffled], kind="stable")]


def _by_group(groups: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Whole groups in a random order, and where each ends."""
    ids, members = np.unique(groups, return_inverse=True)
    rank = np.empty(len(ids), dtype=np.int64)
    rank[rng.permutation(len(ids))] = np.arange(len(ids))
    order = np.argsort(rank[members], kind="stable")
    return order, np.cumsum(np.bincount(rank[members]))


def _nearest(ends: np.ndarray, wanted: float) -> int:
    return int(ends[np.argmin(np.abs(ends - wanted))])


__all__ = ["nested"]
