"""The classical rival of a board: linear regression of each cell's symbol on which symbol stands where in the inputs.
Imported only when a baseline is asked for."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import Ridge


class Cells(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Decoded boards -> 1 where a cell has a symbol, [rows, cells x symbols]."""

    def fit(self, values: Sequence[np.ndarray], y: Any = None) -> Self:
        """Learn which symbols there are."""
        self.symbols_ = np.unique(np.concatenate([value.ravel() for value in values]))
        return self

    def transform(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """float64 0 and 1."""
        table = np.stack([value.ravel() for value in values])
        found: np.ndarray = (table[:, :, None] == self.symbols_).reshape(len(table), -1).astype(np.float64)
        return found


class CellRidge(BaseEstimator):  # type: ignore[misc]
    """Features -> boards as text: of each cell the symbol with the highest score."""

    def fit(self, features: Any, truths: Sequence[str]) -> Self:
        """ValueError where the boards differ in size."""
        (self.rows_,) = {truth.count("/") + 1 for truth in truths}
        cells = np.array([list(truth.replace("/", "")) for truth in truths])
        self.symbols_ = np.unique(cells)
        targets = (cells[:, :, None] == self.symbols_).reshape(len(cells), -1).astype(np.float64)
        self.model_ = Ridge(alpha=1.0).fit(_dense(features), targets)
        return self

    def predict(self, features: Any) -> list[str]:
        """Rows between /."""
        scores = self.model_.predict(_dense(features)).reshape(features.shape[0], self.rows_, -1, len(self.symbols_))
        return ["/".join("".join(row) for row in self.symbols_[board.argmax(-1)]) for board in scores]


def _dense(features: Any) -> np.ndarray:
    return np.asarray(features.toarray() if hasattr(features, "toarray") else features, np.float64)
