"""The classical rival of a learnt space: hand features of each input, and the linear directions in which they agree.

Here: generalised canonical correlation (MAXVAR; Kettenring 1971) on singular vectors of the features. Not here: the
features themselves (each modality's `hand_features`). Imported only when a baseline is asked for.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

MOST_FEATURES = 256  # singular vectors of one input's features that are kept
DIRECTIONS = 128
RIDGE = 0.1  # of a whitened feature's variance: few rows have many chance agreements


class CommonDirections:
    """{input: features [row, feature]} and {input: bool [row]} -> {input: vectors [row, dim]} in one space."""

    def __init__(self, inputs: Sequence[str]) -> None:
        self.inputs = tuple(inputs)

    def fit(self, features: Mapping[str, Any], present: Mapping[str, np.ndarray]) -> Self:
        """From the rows that have every input; ValueError where these are fewer than three."""
        whole = np.logical_and.reduce([present[name] for name in self.inputs])
        if whole.sum() < 3:
            raise ValueError(f"{int(whole.sum())} training rows have every input, of at least 3")
        self.reduce_, views = {}, []
        for name in self.inputs:
            own = features[name][np.flatnonzero(whole)]
            most = min(MOST_FEATURES, min(own.shape) - 1)
            self.reduce_[name] = make_pipeline(
                TruncatedSVD(max(1, most), random_state=0), StandardScaler(with_std=False)
            )
            views.append(self.reduce_[name].fit_transform(own))
        white, self.whiten_ = [], {}
        for name, view in zip(self.inputs, views, strict=True):
            covariance = view.T @ view / len(view)
            scale = float(np.trace(covariance)) / len(covariance)
            values, axes = np.linalg.eigh(covariance + RIDGE * max(scale, 1e-12) * np.eye(len(covariance)))
            self.whiten_[name] = axes / np.sqrt(values)
            white.append(view @ self.whiten_[name])
        left, strength, _ = np.linalg.svd(np.concatenate(white, axis=1), full_matrices=False)
        count = min(DIRECTIONS, len(strength))
        common = left[:, :count] * strength[:count]
        self.maps_ = {
            name: self.whiten_[name] @ (view.T @ common) / len(view)
            for name, view in zip(self.inputs, white, strict=True)
        }
        return self

    def predict(self, features: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Unit vectors of every input."""
        found = {}
        for name in self.inputs:
            made = self.reduce_[name].transform(features[name]) @ self.maps_[name]
            found[name] = made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-12)
        return found
