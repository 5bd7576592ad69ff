"""The classical baseline of anomalies: the Mahalanobis distance of the colours and textures around each pixel from those
of pictures in order. Imported only when a baseline is asked for."""

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator

from endwise.modalities.mask.features import place_features

MOST_VALUES, PIXELS = 300, 60_000
WHERE = 4  # the last features: where in the picture a pixel is, which says nothing of what is in order
RIDGE = 1e-3  # of the mean variance: features that hang together
FALSE_ALARMS = 0.05


class PixelDistance(BaseEstimator):  # type: ignore[misc]
    """Pictures and their truths -> (scores [height, width], threshold) for each, at its own lower resolution."""

    def fit(self, X: Sequence[np.ndarray], y: Sequence[Any]) -> Self:
        """Mean and covariance of the pixels of at most 300 pictures in order, the same each time."""
        chance = np.random.default_rng(0)
        good = [index for index in range(len(X)) if not y[index].numbers.any()]
        if not good:
            raise ValueError("no picture is in order")
        picked = np.sort(chance.permutation(good)[:MOST_VALUES]).tolist()
        each = max(20, PIXELS // len(picked))
        parts = (_features(X[index]) for index in picked)
        drawn = [chance.permutation(part.reshape(-1, part.shape[-1]))[:each] for part in parts]
        sample = np.concatenate(drawn).astype(np.float64)
        self.mean_, covariance = sample.mean(0), np.atleast_2d(np.cov(sample, rowvar=False))
        covariance += RIDGE * max(float(np.trace(covariance)) / len(covariance), 1e-12) * np.eye(len(covariance))
        self.inverse_ = np.linalg.inv(covariance)
        highest = [self._distance(X[index]).max() for index in picked]
        self.threshold_ = float(np.quantile(highest, 1 - FALSE_ALARMS))
        return self

    def predict(self, X: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, float]]:
        """Distances, and what they are to be cut at."""
        for value in X:
            yield self._distance(value), self.threshold_

    def _distance(self, value: np.ndarray) -> np.ndarray:
        apart = _features(value) - self.mean_
        return np.asarray(
            np.sqrt(np.maximum(np.einsum("yxi,ij,yxj->yx", apart, self.inverse_, apart, optimize=True), 0))
        )


def _features(value: np.ndarray) -> np.ndarray:
    return place_features(value)[..., :-WHERE]
