"""The classical baseline of boxes: a window of the usual size, slid over what a pixel classifier says.

Logistic regression on the colours and textures around each pixel says how likely it is inside a thing of each class (the
features of the masks' baseline); where the mean of that over a window as large as the class's boxes is greatest among its
neighbours, a box is answered, as sure as that mean (sliding windows and their local maxima: Dalal & Triggs 2005, with a
simpler score). Any number of axes. Numpy, scipy and scikit-learn only.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
from scipy import ndimage
from sklearn.base import BaseEstimator

from endwise import metrics
from endwise.metrics.boxes import f1
from endwise.modalities.base import Answer
from endwise.modalities.boxes import LEAST_SCORE, MOST
from endwise.modalities.mask.features import MOST_VALUES, PIXELS, place_classifier, place_features

JUDGED = 60  # pictures that set it
CUTS = np.linspace(0.05, 0.95, 19)

Found = list[dict[str, Any]]


class SlidingWindow(BaseEstimator):  # type: ignore[misc]
    """Decoded values and the boxes on them -> (boxes that are given, candidates below) for each, the surest first.

    opened: the array [*shape, channel] of a decoded value; None: it is one. in_pixels: the boxes' unit; else shares. turned:
    boxes say across before down, arrays down before across.
    """

    def __init__(
        self, *, in_pixels: bool, turned: bool, opened: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> None:
        self.in_pixels, self.turned, self.opened = in_pixels, turned, opened

    def fit(self, X: Sequence[np.ndarray], y: Sequence[Sequence[Mapping[str, Any]]]) -> Self:
        """A sample of places inside of boxes and as many outside of all, of at most 300 values; then the threshold of the best
        F1 on some of them."""
        chance = np.random.default_rng(0)
        picked = np.sort(chance.permutation(len(X))[:MOST_VALUES]).tolist()
        each = max(20, PIXELS // max(1, 2 * len(picked)))
        self.names_ = sorted({item["label"] for boxes in y for item in boxes})
        features, classes = [], []
        sides: dict[str, list[np.ndarray]] = {name: [] for name in self.names_}
        for index in picked:
            own, shape = self._features(X[index])
            inside = np.zeros(own.shape[:-1], np.int64)
            for item in y[index]:
                low, high = self._in_cells(item["box"], shape, own.shape[:-1])
                sides[item["label"]].append(high - low)
                _fill(inside, low, high, 1 + self.names_.index(item["label"]))
            flat, rows = inside.ravel(), own.reshape(-1, own.shape[-1])
            for some in (np.flatnonzero(flat), np.flatnonzero(flat == 0)):
                drawn = chance.permutation(some)[:each]
                features.append(rows[drawn])
                classes.append(flat[drawn])
        self.sides_ = {name: np.median(found, axis=0) for name, found in sides.items() if found}
        kinds = np.concatenate(classes)
        if len(np.unique(kinds)) < 2:
            raise ValueError("no sampled place is inside of a box, or all are")
        self.model_ = place_classifier(np.concatenate(features), kinds)
        judged = picked[:: max(1, len(picked) // JUDGED)]
        found, truths, goal = (
            [self._candidates(X[index]) for index in judged],
            [y[index] for index in judged],
            f1(self.names_),
        )
        self.cut_ = max(
            CUTS.tolist(), key=lambda cut: metrics.value(goal, truths, [Answer(_from(cut, boxes)) for boxes in found])
        )
        return self

    def predict(self, X: Sequence[np.ndarray]) -> Iterator[tuple[Found, Found]]:
        """One value at a time."""
        for value in X:
            found = self._candidates(value)
            given = _from(self.cut_, found)
            yield given, found[len(given) :]

    def _candidates(self, value: np.ndarray) -> Found:
        own, shape = self._features(value)
        cells = own.shape[:-1]
        chances = self.model_.predict_proba(own.reshape(-1, own.shape[-1]))
        kinds = self.model_[-1].classes_.tolist()
        found: Found = []
        for kind, name in enumerate(self.names_, 1):
            if kind not in kinds or name not in self.sides_:
                continue
            window = np.maximum(1, np.round(self.sides_[name])).astype(int).tolist()
            mean = ndimage.uniform_filter(chances[:, kinds.index(kind)].reshape(cells), window, mode="constant")
            peaks = (mean == ndimage.maximum_filter(mean, window)) & (mean >= LEAST_SCORE)
            for place in np.argwhere(peaks):
                half = self.sides_[name] / 2
                box = self._in_unit(place + 0.5 - half, place + 0.5 + half, shape, cells)
                found.append({"label": name, "box": box, "score": float(mean[tuple(place)])})
        return sorted(found, key=lambda box: -box["score"])[:MOST]

    def _features(self, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(float32 [*cells, features], the shape of the value)."""
        opened = value if self.opened is None else self.opened(value)
        return place_features(opened), np.array(opened.shape[:-1])

    def _in_cells(self, box: Sequence[float], shape: np.ndarray, cells: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        ends = np.array(box, np.float64).reshape(2, -1)[:, :: -1 if self.turned else 1]
        low, high = ends * (np.array(cells) / shape if self.in_pixels else np.array(cells))
        return low, high

    def _in_unit(self, low: np.ndarray, high: np.ndarray, shape: np.ndarray, cells: Sequence[int]) -> list[float]:
        ends = np.stack([low, high]).clip(0, cells) * (shape / cells if self.in_pixels else 1 / np.array(cells))
        found: list[float] = ends[:, :: -1 if self.turned else 1].ravel().tolist()
        return found


def _fill(inside: np.ndarray, low: np.ndarray, high: np.ndarray, kind: int) -> None:
    """The ellipsoid in the box, and at least the cell at its middle."""
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, 0.5)
    grid = np.stack(np.meshgrid(*[np.arange(side) + 0.5 for side in inside.shape], indexing="ij"), axis=-1)
    inside[(((grid - middle) / half) ** 2).sum(-1) <= 1] = kind
    inside[tuple(np.clip(middle.astype(int), 0, np.array(inside.shape) - 1))] = kind


def _from(cut: float, found: Found) -> Found:
    """The boxes that are as sure as that."""
    return [box for box in found if box["score"] >= cut]


__all__ = ["SlidingWindow"]
