"""The classical baseline of masks: logistic regression on what is around each pixel, as one did before networks.

Colours, their means and deviations at three scales, edges, and where in the picture the pixel is (after TextonBoost,
Shotton et al. 2006, without its textons). Imported only when a baseline is asked for.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import numpy as np
from scipy import ndimage
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from endwise.drawing import Segmentation, antialias
from endwise.modalities.image import FULL

SIDE = 96  # of the array that a picture or volume is reduced to: its longest
SCALES = (3, 7, 15)  # cells of the neighbourhoods
MOST_VALUES = 300  # pictures that are learnt from
PIXELS = 30_000  # places that are learnt from
STEPS = 300  # of the optimiser


class PixelClassifier(BaseEstimator):  # type: ignore[misc]
    """Decoded values and their masks -> a mask for each, at its own lower resolution. opened: the array [*shape, channel] of
    a decoded value; None: it is one."""

    def __init__(self, opened: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        self.opened = opened

    def fit(self, X: Sequence[np.ndarray], y: Sequence[Segmentation]) -> Self:
        """A sample of labelled places of at most 300 pairs, drawn at random, the same each time."""
        chance = np.random.default_rng(0)
        picked = np.sort(chance.permutation(len(X))[:MOST_VALUES])
        each = max(20, PIXELS // max(1, len(picked)))
        features, classes = [], []
        for index in picked.tolist():
            own = self._features(X[index])
            small = y[index].resized(own.shape[:-1])
            numbers, labelled = small.numbers.ravel(), np.flatnonzero(small.places().ravel() < len(small.names))
            some = chance.permutation(labelled)[:each]
            features.append(own.reshape(-1, own.shape[-1])[some])
            classes.append(numbers[some])
        self.classes_ = np.unique(np.concatenate(classes))
        if len(self.classes_) < 2:
            raise ValueError("the sampled pixels are all of one class")
        self.model_ = place_classifier(np.concatenate(features), np.concatenate(classes))
        return self

    def predict(self, X: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """Numbers of classes, one array a value."""
        for value in X:
            own = self._features(value)
            yield self.model_.predict(own.reshape(-1, own.shape[-1])).reshape(own.shape[:-1])

    def _features(self, value: np.ndarray) -> np.ndarray:
        return place_features(value if self.opened is None else self.opened(value))


def place_classifier(features: np.ndarray, classes: np.ndarray) -> Any:
    """Logistic regression that has learnt the class of places [place, features]."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=STEPS))
    with warnings.catch_warnings():  # three hundred steps settle all that matters of thousands of pixels
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(features, classes)


def place_features(value: np.ndarray) -> np.ndarray:
    """float32 [*smaller, features] of an array [*shape, channel]."""
    small = _reduced(value)
    axes = small.ndim - 1
    parts: list[np.ndarray] = [small]
    for scale in SCALES:
        size = (*[scale] * axes, 1)
        mean = ndimage.uniform_filter(small, size, mode="nearest")
        square = ndimage.uniform_filter(small * small, size, mode="nearest")
        parts += [mean, np.sqrt(np.maximum(square - mean * mean, 0))]
    light = small.mean(-1)
    parts += [np.abs(ndimage.sobel(light, axis=axis, mode="nearest"))[..., None] for axis in range(axes)]
    where = np.stack(np.meshgrid(*[np.linspace(-1, 1, side) for side in light.shape], indexing="ij"), axis=-1)
    parts += [where, where * where]
    return np.concatenate(parts, axis=-1).astype(np.float32)


def _reduced(value: np.ndarray) -> np.ndarray:
    """Full scale 1 (floats as they are), the longest side at most SIDE."""
    values: Any = value.astype(np.float32) / FULL.get(value.dtype, 1.0)
    shape = value.shape[:-1]
    share = min(1.0, SIDE / max(shape))
    for axis, side in enumerate(shape):
        target = max(1, round(share * side))
        if target != side:
            values = np.moveaxis(np.tensordot(antialias(side, target), values, (1, axis)), 0, axis)
    return np.asarray(values)


__all__ = ["PixelClassifier", "place_classifier", "place_features"]
