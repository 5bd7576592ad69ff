"""The classical baseline's view of a volume: numbers that one would have measured. Imported only when it is asked for."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from endwise.scan import AXES, Scan, resized

SIDE = 6  # of the thumbnail
LEVELS = np.linspace(0, 1, 11)


class VolumeFeatures(BaseEstimator, TransformerMixin):  # type: ignore[misc]
    """Decoded volumes -> of each channel: mean, deviation, quantiles; how much is bright, where its middle lies and how far
    it reaches along each axis and across (voxels); a thumbnail of 6 x 6 x 6."""

    def fit(self, X: Sequence[np.ndarray], y: Any = None) -> Self:
        """Nothing to learn."""
        return self

    def transform(self, X: Sequence[np.ndarray]) -> np.ndarray:
        """float64 [rows, features]."""
        return np.stack([_measured(Scan.unpacked(value)) for value in X])


def _measured(scan: Scan) -> np.ndarray:
    parts: list[np.ndarray] = [np.array(scan.shape, np.float64)]
    for channel in np.moveaxis(scan.voxels, AXES, 0).astype(np.float32):
        mean, deviation = float(channel.mean()), float(channel.std()) or 1.0
        bright = np.argwhere(channel > mean + deviation / 2).astype(np.float64)
        if not len(bright):
            bright = np.array(channel.shape)[None] / 2
        spread = np.cov(bright.T) if len(bright) > 1 else np.zeros((AXES, AXES))
        parts += [
            np.array([mean, deviation, len(bright)]), np.quantile(channel, LEVELS), bright.mean(0) / channel.shape,
            np.sqrt(np.maximum(np.linalg.eigvalsh(spread), 0)), np.sqrt(np.diag(spread)),
            np.ptp(bright, axis=0), resized((channel - mean) / deviation, (SIDE,) * AXES).ravel(),
        ]  # fmt: skip
    return np.concatenate(parts)


__all__ = ["VolumeFeatures"]
