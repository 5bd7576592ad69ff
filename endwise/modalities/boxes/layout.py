"""What found boxes are held against: the boxes of one training picture for all, and (of instances) of the most similar one.

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
    counts = [len(boxes) for boxes in some]
    if not any(counts):
        return []
    every = [box for boxes in some for box in boxes]
    places, labels = [box["box"] for box in every], np.array([box["label"] for box in every])
    of_row = np.repeat(np.eye(len(some), dtype=np.float32), counts, axis=0)  # [box, row]
    others = np.ones(len(some), dtype=bool)
    best: tuple[float, list[dict[str, Any]]] = (-1.0, [])
    for index, answer in enumerate(some):
        others[index] = len(some) == 1
        own = slice(sum(counts[:index]), sum(counts[: index + 1]))
        hits = np.zeros((0, len(some)), dtype=bool)
        if answer:
            same = (overlaps(places[own], places) >= FOUND) & (labels[own, None] == labels)
            hits = same.astype(np.float32) @ of_row > 0
        sizes = len(answer) + np.array(counts)
        mean = float((2 * hits.sum(0) / np.maximum(sizes, 1))[others].mean())
        if mean > best[0]:
            shares = hits[:, others].mean(1)
            best = (mean, [{**box, "score": float(share)} for box, share in zip(answer, shares, strict=True)])
        others[index] = True
    return best[1]


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
