"""What a spoken answer is held against: training answers, chosen by hand features. On scikit-learn; no torch."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from endwise.nn.vocoder import cepstra
from endwise.recording import Recording

MOST_LOOKED_AT = 2_000


class Nearest(BaseEstimator):  # type: ignore[misc]
    """Features -> the answer of the training row with the nearest ones (each scaled to deviation 1)."""

    def fit(self, features: Any, answers: Sequence[Recording]) -> Self:
        """Remember the answers."""
        self.answers_ = list(answers)
        self.scale_ = StandardScaler(with_mean=False).fit(features)
        self.near_ = NearestNeighbors(n_neighbors=1).fit(self.scale_.transform(features))
        return self

    def predict(self, features: Any) -> list[Recording]:
        """One answer a row."""
        found = self.near_.kneighbors(self.scale_.transform(features), return_distance=False)[:, 0]
        return [self.answers_[index] for index in found.tolist()]


def central(answers: Sequence[Recording]) -> Recording:
    """The one whose length and mean cepstra are nearest to the mean of all (of 2,000 at even steps)."""
    step = -(-len(answers) // MOST_LOOKED_AT)
    some = answers[::step]
    features = np.stack([np.append(cepstra(one.samples, one.rate_hz).mean(axis=0), one.seconds) for one in some])
    scaled = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-9)
    return some[int(np.square(scaled).sum(axis=1).argmin())]
