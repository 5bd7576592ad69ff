"""The classical baseline's view of a series, and ridge regression for forecasts. Imported only when a baseline is asked for."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin

MOST_STEPS = 1024  # numbers of the raw past that are features
BANDS = 16  # of the spectrum
HELD_BACK = 0.2
PENALTIES = (1.0, 10.0, 100.0, 1_000.0, 10_000.0)


class SeriesFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Of each channel: level, spread, roughness, the logarithm of the energy in 16 bands, the last value, and where all rows
    have one length of at most 1,024 the last steps beside it (1,024 numbers over all channels). What is missing counts as the last
    value before it."""

    def fit(self, values: Sequence[np.ndarray], y: Any = None) -> Self:
        """How long rows are."""
        lengths = {len(value) for value in values}
        channels = values[0].shape[1]
        short = len(lengths) == 1 and max(lengths) <= MOST_STEPS  # in longer ones the last steps are like any other
        self.steps_ = min(max(lengths), MOST_STEPS // channels) if short else 0
        return self

    def transform(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """[rows, features]."""
        return np.array([self._of(value) for value in values])

    def _of(self, value: np.ndarray) -> np.ndarray:
        filled = _filled(value.astype(np.float64))
        middle, spread = filled.mean(0), filled.std(0)
        rough = np.abs(np.diff(filled, axis=0)).mean(0) if len(filled) > 1 else np.zeros_like(middle)
        energy = np.abs(np.fft.rfft(filled - middle, axis=0)) ** 2 / len(filled)
        parts = np.array_split(energy[1:] if len(energy) > 1 else energy, BANDS)
        bands = [np.log(part.sum(0) + 1e-6) if len(part) else np.full_like(middle, np.log(1e-6)) for part in parts]
        found = [middle, spread, rough, *bands, filled[-1]]
        if self.steps_:
            padded = np.concatenate([np.repeat(filled[:1], max(0, self.steps_ - len(filled)), axis=0), filled])
            found.append((padded[-self.steps_ :] - filled[-1]).ravel())
        return np.concatenate(found)


def _filled(value: np.ndarray) -> np.ndarray:
    """NaN as the last value before it; at the start as the first one behind, or 0."""
    there = ~np.isnan(value)
    place = np.maximum.accumulate(np.where(there, np.arange(len(value))[:, None], -1), axis=0)
    place = np.where(place < 0, there.argmax(0), place)
    found: np.ndarray = np.nan_to_num(np.take_along_axis(value, place, axis=0))
    return found


class SeriesRidge(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Ridge regression of every step of every channel at once; the penalty is chosen on the last fifth of the rows, which
    are the newest where rows are windows."""

    def fit(self, X: Any, y: Sequence[Any]) -> Self:
        """y: lists of numbers or of channels. ValueError where fewer than five rows are whole."""
        features, targets = _dense(X), np.array(y, np.float64)
        self.shape_ = targets.shape[1:]
        targets = targets.reshape(len(targets), -1)
        whole = np.isfinite(targets).all(1)
        if whole.sum() < 5:
            raise ValueError(f"{int(whole.sum())} rows have every step of the forecast, of at least 5")
        features, targets = features[whole], targets[whole]
        cut = len(features) - max(1, int(HELD_BACK * len(features)))
        tried = self._solved(features[:cut], targets[:cut])
        costs = [np.square(self._said(features[cut:], *found) - targets[cut:]).mean() for found in tried]
        self.penalty_ = PENALTIES[int(np.argmin(costs))]
        self.found_ = self._solved(features, targets, (self.penalty_,))[0]
        return self

    def predict(self, X: Any) -> np.ndarray:
        """[rows, *shape of a target]."""
        return self._said(_dense(X), *self.found_).reshape(-1, *self.shape_)

    @staticmethod
    def _solved(
        X: np.ndarray, y: np.ndarray, penalties: Sequence[float] = PENALTIES
    ) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """(centre, scale, weights, offset) for each penalty, by one decomposition."""
        centre, scale, offset = X.mean(0), X.std(0), y.mean(0)
        scale = np.where(scale > 1e-9, scale, 1.0)
        table = (X - centre) / scale
        values, axes = np.linalg.eigh(table.T @ table)
        rotated = axes.T @ (table.T @ (y - offset))
        return [
            (centre, scale, axes @ (rotated / (np.maximum(values, 0) + penalty)[:, None]), offset)
            for penalty in penalties
        ]

    @staticmethod
    def _said(
        X: np.ndarray, centre: np.ndarray, scale: np.ndarray, weights: np.ndarray, offset: np.ndarray
    ) -> np.ndarray:
        found: np.ndarray = (X - centre) / scale @ weights + offset
        return found


class ContinuedRidge:
    """Ridge regression of a channel's future on its own past, one map for all channels, both beside the last value and in
    deviations of the training rows: direct multi-step, the penalty chosen on the last fifth of the rows."""

    def __init__(
        self,
        source: str,
        places: Sequence[int],
        *,
        length: int,
        mean: Sequence[float],
        deviation: Sequence[float],
        steps: int,
    ) -> None:
        self.source, self.places, self.length, self.steps = source, list(places), min(length, MOST_STEPS), steps
        self.mean, self.deviation = np.array(mean), np.array(deviation)

    def fit(self, rows: Sequence[Any], truths: Sequence[Any]) -> Self:
        """rows: {input: [step, channel]}; truths: [step] or [channel, step]. ValueError where fewer than five are whole."""
        kept = [index for index, row in enumerate(rows) if self.source in row]
        pasts, last = self._pasts([rows[index] for index in kept])
        wanted = np.array([truths[index] for index in kept], np.float64).reshape(len(kept), len(self.places), -1)
        ahead = (wanted - last) / self.deviation[:, None]
        whole = np.isfinite(ahead).all((1, 2))
        if whole.sum() < 5:
            raise ValueError(f"{int(whole.sum())} rows have every step of the forecast, of at least 5")
        self.solved_ = SeriesRidge().fit(pasts[whole].reshape(-1, self.length), ahead[whole].reshape(-1, self.steps))
        return self

    def predict(self, rows: Sequence[Any]) -> list[np.ndarray]:
        """[step] or [channel, step] for each row; the mean where its past is missing."""
        kept = [index for index, row in enumerate(rows) if self.source in row]
        found = np.tile(self.mean[:, None], (len(rows), 1, self.steps))
        if kept:
            pasts, last = self._pasts([rows[index] for index in kept])
            said = self.solved_.predict(pasts.reshape(-1, self.length)).reshape(len(kept), len(self.places), -1)
            found[kept] = said * self.deviation[:, None] + last
        return [row[0] if len(row) == 1 else row for row in found]

    def _pasts(self, rows: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """(pasts [row, channel, step] beside the last value, last values [row, channel, 1])."""
        filled = np.array([_filled(row[self.source][-self.length :, self.places].astype(np.float64)).T for row in rows])
        last = filled[..., -1:]
        return (filled - last) / self.deviation[:, None], last


def _dense(X: Any) -> np.ndarray:
    return np.asarray(X.toarray() if hasattr(X, "toarray") else X, dtype=np.float64)


__all__ = ["ContinuedRidge", "SeriesFeatures", "SeriesRidge"]
