"""The classical view of a neighbourhood: what there is around a row, in a table that trees can read (trees on aggregated
neighbours are hard to beat; Tang et al. 2023, GADBench). Imported only when a baseline is asked for."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from endwise.modalities.graph.index import AGE, DIRECTION, HOP, PARENT


class AroundFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """For each of the first two nodes of a row and each direction: how many edges, and mean, smallest, largest and newest of each number;
    and how many visits there are at each further distance. Zeros where there is nothing."""

    def __init__(self, *, hops: int, numbers: int) -> None:
        self.hops, self.numbers = hops, numbers

    def fit(self, values: Sequence[np.ndarray], y: Any = None) -> Self:
        """Nothing is learnt."""
        self.columns_ = 4 * (1 + 4 * self.numbers) + self.hops
        return self

    def transform(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """[rows, columns]."""
        return np.array([self._row(value) for value in values]).reshape(len(values), -1)

    def _row(self, value: np.ndarray) -> list[float]:
        near = value[value[:, HOP] == 1]
        found: list[float] = []
        for node in (0, 1):
            for direction in (0.0, 1.0):
                own = near[(near[:, PARENT] == node) & (near[:, DIRECTION] == direction)][:, AGE : AGE + self.numbers]
                found.append(float(len(own)))
                for column in own.T if len(own) else np.zeros((self.numbers, 0)):
                    there = column[~np.isnan(column)]
                    found += [there.mean(), there.min(), there.max(), there[-1]] if len(there) else [0.0] * 4
        return found + [float((value[:, HOP] == hop).sum()) for hop in range(1, self.hops + 1)]
