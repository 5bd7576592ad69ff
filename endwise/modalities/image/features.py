"""Hand-made features of pictures for the classical baseline: what one used before networks learnt them.

A histogram of gradient directions (Dalal & Triggs 2005), a colour histogram and a thumbnail, from a reduced picture.
Imported only when a baseline is asked for: scikit-learn costs half a second.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from endwise.modalities.image import GREY_WEIGHTS

SIDE_PX = 32
CELLS = 4  # per side; each 8 x 8 pixels
DIRECTIONS = 9  # unsigned, over 180 degrees
BINS = 4  # per channel of the colour histogram
THUMB_PX = 8
CHUNK = 1024  # pictures at a time: bounds memory


class PictureFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """[rows, 324 gradients + 192 thumbnail + 64 colours + 1]; where a picture is missing, zeros and a 1 at the end."""

    def fit(self, values: Sequence[np.ndarray | None], y: Any = None) -> Self:
        """Nothing is learnt."""
        self.fitted_ = True
        return self

    def transform(self, values: Sequence[np.ndarray | None]) -> np.ndarray:
        """float32 features of decoded pictures."""
        parts = [self._chunk(values[start : start + CHUNK]) for start in range(0, len(values), CHUNK)]
        return np.concatenate(parts) if parts else np.zeros((0, 581), dtype=np.float32)

    def _chunk(self, values: Sequence[np.ndarray | None]) -> np.ndarray:
        there = np.array([value is not None for value in values])
        pictures = np.stack([_small(value) for value in values])
        grey = pictures @ np.array(GREY_WEIGHTS, dtype=np.float32)
        step = SIDE_PX // THUMB_PX
        thumb = pictures.reshape(len(values), THUMB_PX, step, THUMB_PX, step, 3).mean((2, 4)).reshape(len(values), -1)
        features = np.concatenate([_gradients(grey), thumb, _colours(pictures)], axis=1) * there[:, None]
        return np.concatenate([features, ~there[:, None]], axis=1).astype(np.float32)


def _small(value: np.ndarray | None) -> np.ndarray:
    """float32 [32, 32, 3] in [0, 1], whatever the size, channels and bits were."""
    from PIL import Image as Pillow

    if value is None:
        return np.zeros((SIDE_PX, SIDE_PX, 3), dtype=np.float32)
    pixels = value if value.dtype == np.uint8 else (value // 257).astype(np.uint8)
    if pixels.shape[:2] != (SIDE_PX, SIDE_PX):
        picture = Pillow.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))
        pixels = np.asarray(picture.resize((SIDE_PX, SIDE_PX), Pillow.Resampling.BILINEAR))
    small = pixels.astype(np.float32) / 255.0
    return np.broadcast_to(small.reshape(SIDE_PX, SIDE_PX, -1), (SIDE_PX, SIDE_PX, 3))


def _gradients(grey: np.ndarray) -> np.ndarray:
    """Histograms of directions per cell, weighed by strength, every 2 x 2 cells normalised together."""
    rows = len(grey)
    across, down = np.zeros_like(grey), np.zeros_like(grey)
    across[:, :, 1:-1] = grey[:, :, 2:] - grey[:, :, :-2]
    down[:, 1:-1] = grey[:, 2:] - grey[:, :-2]
    strength = np.hypot(across, down)
    place = np.mod(np.arctan2(down, across) / np.pi, 1.0) * DIRECTIONS
    lower = np.floor(place).astype(np.int64)
    upper_share = place - lower
    cell = np.arange(SIDE_PX) // (SIDE_PX // CELLS)
    where = (np.arange(rows)[:, None, None] * CELLS + cell[:, None]) * CELLS + cell
    cells = np.zeros(rows * CELLS * CELLS * DIRECTIONS)
    for direction, weight in ((lower, 1 - upper_share), (lower + 1, upper_share)):
        index = where * DIRECTIONS + direction % DIRECTIONS
        cells += np.bincount(index.ravel(), (strength * weight).ravel(), len(cells))
    grid = cells.reshape(rows, CELLS, CELLS, DIRECTIONS)
    blocks = np.concatenate([grid[:, :-1, :-1], grid[:, 1:, :-1], grid[:, :-1, 1:], grid[:, 1:, 1:]], axis=-1)
    blocks = blocks / (np.linalg.norm(blocks, axis=-1, keepdims=True) + 0.1)
    return np.asarray(blocks.reshape(rows, -1))


def _colours(pictures: np.ndarray) -> np.ndarray:
    """Share of the pixels in each of 4 x 4 x 4 colours, as a root: differences of small shares count."""
    rows = len(pictures)
    level = np.minimum((pictures * BINS).astype(np.int64), BINS - 1)
    index = (level[..., 0] * BINS + level[..., 1]) * BINS + level[..., 2] + BINS**3 * np.arange(rows)[:, None, None]
    counts = np.bincount(index.ravel(), minlength=rows * BINS**3).reshape(rows, -1)
    return np.sqrt(counts / SIDE_PX**2)


class BestFilter(BaseEstimator):  # type: ignore[misc]
    """Pictures -> pictures: the filter, of none, blurs and medians, that comes nearest to the targets of a sample."""

    def fit(self, X: Sequence[np.ndarray], y: Sequence[Any]) -> Self:
        """The smallest mean absolute error over at most 50 pairs, every n-th."""
        step = max(1, len(X) // FILTERED)
        pairs = [(X[index], np.asarray(y[index].pixels)) for index in range(0, len(X), step)]
        pairs = [(one, other) for one, other in pairs if one.shape == other.shape and one.dtype == other.dtype]
        if not pairs:
            raise ValueError("no picture has the channels and bits of its target, so that no filter can be chosen")
        errors = {
            name: float(
                np.mean([np.abs(_filtered(one, *name) - other.astype(np.float64)).mean() for one, other in pairs])
            )
            for name in FILTERS
        }
        self.chosen_ = min(errors, key=lambda name: errors[name])
        return self

    def predict(self, X: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """The filtered pictures, with their own bits."""
        for value in X:
            yield np.rint(_filtered(value, *self.chosen_)).astype(value.dtype)


FILTERS = (("none", 0), ("blur", 0.5), ("blur", 1.0), ("blur", 2.0), ("median", 3), ("median", 5))
FILTERED = 50  # pictures that a filter is chosen by


def _filtered(value: np.ndarray, kind: str, size: float) -> np.ndarray:
    """float64 [height, width, channel]."""
    from scipy import ndimage

    pixels = value.astype(np.float64)
    if kind == "blur":
        return np.asarray(ndimage.gaussian_filter(pixels, (size, size, 0)))
    return np.asarray(ndimage.median_filter(pixels, (int(size), int(size), 1))) if kind == "median" else pixels


class NearestPicture(BaseEstimator):  # type: ignore[misc]
    """Features -> the picture of the training row whose standardised features are the nearest; of several that are equally
    near, another one for each row that asks."""

    def fit(self, X: np.ndarray, y: Sequence[Any]) -> Self:
        """Every row is kept."""
        from sklearn.neighbors import NearestNeighbors
        from sklearn.preprocessing import StandardScaler

        self.scaler_ = StandardScaler(with_mean=False).fit(X)  # distances know no mean, and sparse features have none
        self.near_ = NearestNeighbors(n_neighbors=min(NEAR, X.shape[0])).fit(self.scaler_.transform(X))
        self.pictures_ = list(y)
        return self

    def predict(self, X: np.ndarray) -> Iterator[np.ndarray]:
        """Pixels of training pictures."""
        distances, places = self.near_.kneighbors(self.scaler_.transform(X))
        for row, (apart, found) in enumerate(zip(distances, places, strict=True)):
            alike = int((apart <= apart[0] + ALIKE).sum())
            yield np.asarray(self.pictures_[found[row % alike]])


NEAR, ALIKE = 32, 1e-6  # rows among which equally near ones are found
