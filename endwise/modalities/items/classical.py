"""The classical rival of a learnt recommender: items that go with those of the history (item-based nearest neighbours by
cosine; Sarwar et al. 2001, Deshpande & Karypis 2004). Imported only when a baseline is asked for."""

import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin

from endwise.modalities.items import names_of

COLUMNS = 1 << 20  # of 20,000 items one in fifty shares its column with another
CHUNK = 512  # rows ranked at once


def column_of(name: str) -> int:
    """The feature column of an item: both sides find it without having met."""
    return zlib.crc32(name.encode()) % COLUMNS


class ItemCounts(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """How often each item is in a history. Sparse."""

    def fit(self, values: Sequence[np.ndarray], y: Any = None) -> Self:
        """Nothing is learnt."""
        self.columns_ = COLUMNS
        return self

    def transform(self, values: Sequence[np.ndarray]) -> Any:
        """Sparse [rows, columns]."""
        rows = [[column_of(name) for name in names_of(value)] for value in values]
        starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
        columns = np.array([column for row in rows for column in row], np.int64)
        found = sparse.csr_matrix((np.ones(len(columns)), columns, starts), shape=(len(rows), COLUMNS))
        found.sum_duplicates()
        return found


class ItemNeighbours(BaseEstimator):  # type: ignore[misc]
    """Ranks items by the summed cosine of their training rows with those of the history's items; frequency decides ties.

    Needs a history of items as the only input with features; ValueError otherwise."""

    def __init__(self, items: Sequence[str], counts: Sequence[int], *, leave_out: bool, shown: int) -> None:
        self.items, self.counts, self.leave_out, self.shown = items, counts, leave_out, shown

    def fit(self, features: Any, truths: Sequence[Sequence[str]]) -> Self:
        """What is in one row with what: its history and its answer."""
        if not sparse.issparse(features) or features.shape[1] != COLUMNS + 1:
            raise ValueError("neighbours of items need one history of items and no other input")
        ids = {name: place for place, name in enumerate(self.items)}
        pairs = [(row, ids[name]) for row, truth in enumerate(truths) for name in truth if name in ids]
        rows, columns = np.array(pairs, np.int64).reshape(-1, 2).T
        answers = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(truths), len(ids)))
        self.columns_ = np.array([column_of(name) for name in self.items])
        held = (features.tocsc()[:, self.columns_].tocsr() + answers).astype(bool).astype(np.float64)
        norms = np.sqrt(np.asarray(held.multiply(held).sum(0)).ravel())
        scaled = held @ sparse.diags(1 / np.maximum(norms, 1e-12))
        together = (scaled.T @ scaled).tocsr()
        self.cosine_ = together - sparse.diags(together.diagonal(), format="csr")
        share = np.array(self.counts, np.float64)
        self.ties_ = 1e-9 * share / max(1.0, share.sum())
        return self

    def predict(self, features: Any) -> Iterator[list[str]]:
        """Names, the best first."""
        held = features.tocsc()[:, self.columns_].tocsr()
        for start in range(0, held.shape[0], CHUNK):
            part = held[start : start + CHUNK]
            scores = np.asarray((part @ self.cosine_).todense()) + self.ties_
            if self.leave_out:
                scores[part.nonzero()] = -np.inf
            shown = min(self.shown, scores.shape[1])
            best = np.argpartition(-scores, shown - 1, axis=1)[:, :shown]
            order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
            for row, places in enumerate(np.take_along_axis(best, order, 1)):
                yield [self.items[place] for place in places if scores[row, place] > -np.inf]
