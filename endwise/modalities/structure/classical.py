"""The classical rival of a folding network: how far apart residues of one separation along the chain are on average, put
into space. Imported only when a baseline is asked for."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from endwise.chain import LETTERS

ROUNDS = 60  # of stress majorisation
SHORTEST = 0.1  # angstrom: no division by less


class Composition(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Decoded sequences -> how long they are, and the share of each letter."""

    def fit(self, values: Sequence[np.ndarray], y: Any = None) -> Self:
        """Nothing to learn."""
        return self

    def transform(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """[rows, 22]."""
        codes = np.frombuffer(LETTERS.encode("ascii"), np.uint8)
        return np.stack([np.array([len(value), *(value[:, None] == codes).mean(0)]) for value in values])


class DistancesBySeparation(BaseEstimator):  # type: ignore[misc]
    """Chains of the right length in which residues of each separation are as far apart as in the training chains: points
    by multidimensional scaling (Torgerson 1952), then by majorising a stress that weighs near pairs more (de Leeuw 1977).
    Which of the two mirror images it is, is decided by the handedness of the training chains."""

    def fit(self, features: Any, truths: Sequence[Any]) -> Self:
        """ValueError where no feature says how long a chain is."""
        lengths = np.array([len(truth) for truth in truths])
        table = _dense(features)
        columns = np.flatnonzero((table == lengths[:, None]).all(0))
        if not len(columns):
            raise ValueError("no feature is the number of residues")
        self.column_ = int(columns[0])
        total, count, handed = np.zeros(lengths.max()), np.zeros(lengths.max()), 0.0
        for truth in truths:
            apart = truth.distances()
            for separation in range(len(apart)):
                pairs = np.diagonal(apart, separation)
                total[separation] += np.nansum(pairs)
                count[separation] += np.isfinite(pairs).sum()
            handed += handedness(truth.points)
        seen = np.flatnonzero(count)  # of a separation that no chain has resolved, what stands between others
        self.apart_ = np.interp(np.arange(len(total)), seen, total[seen] / count[seen])
        self.sign_ = 1.0 if handed >= 0 else -1.0
        self.made_: dict[int, np.ndarray] = {}
        return self

    def predict(self, features: Any) -> list[np.ndarray]:
        """Points [residue, 3]."""
        return [self._chain(int(length)) for length in _dense(features)[:, self.column_]]

    def _chain(self, length: int) -> np.ndarray:
        if length not in self.made_:
            separation = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
            # beyond what training knows, as far as it knows
            self.made_[length] = self._placed(self.apart_[np.minimum(separation, len(self.apart_) - 1)])
        return self.made_[length]

    def _placed(self, apart: np.ndarray) -> np.ndarray:
        count = len(apart)
        if count < 2:
            return np.zeros((count, 3))
        middle = np.eye(count) - 1 / count
        values, axes = np.linalg.eigh(-0.5 * middle @ np.square(apart) @ middle)
        points = np.zeros((count, 3))
        used = min(3, count)
        points[:, :used] = (axes * np.sqrt(np.maximum(values, 0)))[:, ::-1][:, :used]
        weight = np.where(apart > 0, 1 / np.square(np.maximum(apart, SHORTEST)), 0.0)
        inverse = np.linalg.pinv(np.diag(weight.sum(1)) - weight)
        for _ in range(ROUNDS):
            now = np.linalg.norm(points[:, None] - points[None], axis=-1)
            pull = -weight * apart / np.maximum(now, SHORTEST)
            np.fill_diagonal(pull, 0.0)
            np.fill_diagonal(pull, -pull.sum(1))
            points = inverse @ (pull @ points)
        if handedness(points) * self.sign_ < 0:
            points[:, 0] *= -1
        return points


def handedness(points: np.ndarray) -> float:
    """The sum of the triple products of four neighbours that have a place: above 0 of chains that wind to the right, as
    proteins do."""
    step = np.diff(np.asarray(points, np.float64), axis=0)
    return float(np.nansum(np.cross(step[:-2], step[1:-1]) * step[2:])) if len(step) > 2 else 0.0


def _dense(features: Any) -> np.ndarray:
    return np.asarray(features.toarray() if hasattr(features, "toarray") else features, np.float64)
