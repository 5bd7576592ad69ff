"""Hand-made features of films for the classical baseline: those of the last picture, and of what changed since the first."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from endwise.modalities.image.features import PictureFeatures


class FilmFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Two pictures' worth of features a film."""

    def fit(self, values: Sequence[np.ndarray], y: Any = None) -> Self:
        """Nothing is learnt."""
        self.pictures_ = PictureFeatures().fit([])
        return self

    def transform(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """float32 [rows, n]."""
        last = self.pictures_.transform([value[-1] for value in values])
        changed = self.pictures_.transform([_changed(value[0], value[-1]) for value in values])
        return np.concatenate([last, changed], axis=1)


def _changed(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """How far every pixel has gone, as a picture."""
    apart: np.ndarray = np.abs(last.astype(np.int32) - first).astype(last.dtype)
    return apart


__all__ = ["FilmFeatures"]
