"""The classical rival of a learnt operator: ridge regression from the lowest waves of the inputs to those of the answer.
For linear, periodic physics it is the exact operator as far as these waves go. Imported only when a baseline is asked for.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import RidgeCV

KEPT = {1: 32, 2: 8, 3: 4}  # waves along an axis, by the axes of the grid
PENALTIES = tuple(10.0**power for power in range(-8, 1))  # the best one is found on the training rows, each left out


class Waves(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Decoded fields [channel, *grid] -> the real and imaginary amplitudes of their lowest waves."""

    def fit(self, values: Sequence[np.ndarray], y: Any = None) -> Self:
        """Nothing to learn."""
        return self

    def transform(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """[rows, features]."""
        return np.stack([_flat(amplitudes(value)) for value in values])


class WaveRidge(BaseEstimator):  # type: ignore[misc]
    """Features -> whole fields on one grid, by linear regression of their waves."""

    def fit(self, features: Any, truths: Sequence[Any]) -> Self:
        """ValueError where the grids differ."""
        (self.shape_,) = {truth.values.shape for truth in truths}
        table = _dense(features)
        self.scale_ = max(float(table.std()), 1e-12)
        targets = np.stack([_flat(amplitudes(truth.values)) for truth in truths])
        self.model_ = RidgeCV(alphas=PENALTIES).fit(table / self.scale_, targets)
        return self

    def predict(self, features: Any) -> list[np.ndarray]:
        """Fields [channel, *grid]."""
        return [self._field(row) for row in self.model_.predict(_dense(features) / self.scale_)]

    def _field(self, flat: np.ndarray) -> np.ndarray:
        channels, grid = self.shape_[0], self.shape_[1:]
        half = flat.reshape(2, channels, *_counts(len(grid)))
        spectrum = np.zeros((channels, *grid[:-1], grid[-1] // 2 + 1), complex)
        here, there = _places(grid)
        spectrum[there] = (half[0] + 1j * half[1])[here]
        axes = tuple(range(1, 1 + len(grid)))
        made: np.ndarray = np.fft.irfftn(spectrum * np.prod(grid), s=grid, axes=axes)
        return made


def amplitudes(value: np.ndarray) -> np.ndarray:
    """complex [channel, *waves]: of each axis but the last the waves -K to K, of the last 0 to K; zero where the grid is
    too coarse for a wave. Divided by the cells, so that grids of all sizes give the same numbers."""
    grid = value.shape[1:]
    axes = tuple(range(1, value.ndim))
    spectrum = np.fft.rfftn(np.asarray(value, np.float64), axes=axes) / np.prod(grid)
    found = np.zeros((len(value), *_counts(len(grid))), complex)
    here, there = _places(grid)
    found[here] = spectrum[there]
    return found


def _counts(dims: int) -> tuple[int, ...]:
    return (2 * KEPT[dims] + 1,) * (dims - 1) + (KEPT[dims] + 1,)


def _places(grid: Sequence[int]) -> tuple[Any, Any]:
    """Where the waves of this grid stand among the kept ones, and in its own spectrum; of all channels."""
    kept, here, there = KEPT[len(grid)], [], []
    for axis, cells in enumerate(grid):
        most = min(kept, (cells - 1) // 2)  # the wave at exactly half the cells has no phase
        waves = np.arange(0 if axis == len(grid) - 1 else -most, most + 1)
        here.append(waves if axis == len(grid) - 1 else waves + kept)
        there.append(waves % cells)
    return (slice(None), *np.ix_(*here)), (slice(None), *np.ix_(*there))


def _flat(spectrum: np.ndarray) -> np.ndarray:
    return np.concatenate([spectrum.real.ravel(), spectrum.imag.ravel()])


def _dense(features: Any) -> np.ndarray:
    return np.asarray(features.toarray() if hasattr(features, "toarray") else features, np.float64)
