"""What found boxes are held against: the boxes of one training picture for all, and of the most similar one for each.

Neither looks for anything on the picture: where things always lie in the same places, they are hard to beat, elsewhere
they say what chance gives. Numpy and scikit-learn only. Not here: features of pictures (image/features.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from endwise.metrics.boxes import overlaps

COMPARED = 200  # pictures, drawn at random, among which the best constant answer is looked for
FOUND = 0.5  # of overlap


def typical(truths: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The boxes of the picture with the largest mean F1 as an answer to the others, each scored by how many of them have a
    box of its class there."""
    picked = np.random.default_rng(0).permutation(len(truths))[:COMPARED]
    some = [truths[row] for row in picked.tolist()]
    best: tuple[float, list[dict[str, Any]]] = (-1.0, [])
    for index, answer in enumerate(some):
        others = some[:index] + some[index + 1 :] or some
        hits = np.array([_there(answer, other) for other in others]).reshape(len(others), len(answer))
        sizes = np.array([len(answer) + len(other) for other in others])
        mean = float(np.mean(2 * hits.sum(1) / np.maximum(sizes, 1)))
        if mean > best[0]:
            shares = hits.mean(0)
            best = (mean, [{**box, "score": float(share)} for box, share in zip(answer, shares, strict=True)])
    return best[1]


def _there(answer: Sequence[Mapping[str, Any]], truth: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Which of the answer's boxes the truth has, too."""
    if not answer or not truth:
        return [False] * len(answer)
    shared = overlaps([box["box"] for box in answer], [box["box"] for box in truth])
    same = np.array([[one["label"] == other["label"] for other in truth] for one in answer])
    found: list[bool] = ((shared >= FOUND) & same).any(1).tolist()
    return found


class Nearest:
    """The answer of the nearest training row by standardised features (scikit-learn's interface)."""

    def fit(self, features: Any, truths: Sequence[Any]) -> Self:
        """Keep them."""
        from sklearn.neighbors import NearestNeighbors
        from sklearn.preprocessing import StandardScaler

        self.scaler = StandardScaler(with_mean=not hasattr(features, "tocsr"))
        self.index = NearestNeighbors(n_neighbors=1).fit(self.scaler.fit_transform(features))
        self.truths = list(truths)
        return self

    def predict(self, features: Any) -> list[Any]:
        """The truths of the nearest rows."""
        nearest = self.index.kneighbors(self.scaler.transform(features), return_distance=False)
        return [self.truths[row] for row in nearest[:, 0].tolist()]
