"""Metrics of anomalies: whether what is anomalous has the higher scores, over pictures and over pixels. Truths and answers
are `AnomalyMap`s (endwise/modalities/anomaly); scores have units of their own, so that only their order counts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from endwise.drawing import nearest
from endwise.metrics.engine import Metric, of_column, ratio, ratio_of_sums, summable, with_one

BINS = 256  # of the scores of pixels, equally full


def image_auroc() -> Metric:
    """Probability that an anomalous picture has a higher score than one in order, ties a half. Undefined without both."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        scores = [getattr(answer.value, "score", 0.0) for answer in answers]
        rank = np.unique(np.asarray(scores, np.float64), return_inverse=True)[1].reshape(-1)
        return np.stack([np.array([bool(truth.numbers.any()) for truth in truths], np.int64), rank], axis=1)

    def combine(stats: np.ndarray, weights: np.ndarray) -> float:
        odd, count = stats[:, 0] > 0, int(stats[:, 1].max()) + 1
        yes, no = (np.bincount(stats[part, 1], weights[part], minlength=count) for part in (odd, ~odd))
        return float(_area(yes, no))

    return Metric("image_auroc", "max", rows, combine, shares=of_column(0))


def image_accuracy() -> Metric:
    """Share of the pictures that are rightly called anomalous, or in order."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        odd = [bool(truth.numbers.any()) for truth in truths]
        return with_one([float(_called(answer) == true) for true, answer in zip(odd, answers, strict=True)])

    return summable("image_accuracy", "max", rows, ratio_of_sums, proportion=True)


def _called(answer: Any) -> bool:
    """Whether an answer says that its picture is anomalous."""
    said = answer.detail.get("anomalous")
    return bool(answer.value is not None and answer.value.numbers.any()) if said is None else bool(said)


def pixel_auroc() -> Metric:
    """The same over pixels, of the rows that are in order or whose anomalous pixels are labelled, at the resolution of the
    scores. Scores that differ by less than a 256th of the pixels count as equal."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        maps = [np.asarray(getattr(answer.value, "scores", np.zeros((1, 1)))) for answer in answers]
        some = np.concatenate([item.ravel()[:: max(1, item.size // 2000)] for item in maps])
        edges = np.unique(np.quantile(some, np.linspace(0, 1, BINS)[1:-1]))
        out = np.zeros((len(truths), 2 * BINS))
        for row, (truth, scores) in enumerate(zip(truths, maps, strict=True)):
            if truth.numbers.shape == (1, 1) and truth.numbers.any():
                continue  # which pixels it is, nobody has said
            shape = scores.shape if scores.size > 1 else truth.numbers.shape  # a constant answer has any size
            odd = nearest(truth.numbers, shape).ravel() > 0
            place = np.searchsorted(edges, nearest(scores, shape).ravel(), side="left")
            out[row, :BINS] = np.bincount(place[odd], minlength=BINS)
            out[row, BINS:] = np.bincount(place[~odd], minlength=BINS)
        return out

    return summable("pixel_auroc", "max", rows, lambda sums: _area(sums[..., :BINS], sums[..., BINS:]))


def _area(yes: np.ndarray, no: np.ndarray) -> np.ndarray:
    """Of weights by rising score, over the last axis."""
    below = np.cumsum(no, axis=-1) - no
    return np.asarray(ratio((yes * (below + no / 2)).sum(-1), yes.sum(-1) * no.sum(-1)))
