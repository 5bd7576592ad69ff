"""Metrics of boxes: average precision, average recall, sensitivity at false alarms per picture, and F1.

A truth is a list of {"label", "box"}, an answer's value the boxes that are given; `detail["more"]` has candidates below
the threshold, which rankings look at too. A box without "score" is sure. Precision and recall follow COCO (Lin et al.
2014): per class and overlap threshold, 101 recall points, the 100 surest boxes of a picture, all sizes; true boxes without
area are in no metric, since nothing can overlap them. The library that COCO's figures are usually made with is the oracle
in the tests.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from endwise import silhouettes
from endwise.metrics.engine import (
    Metric,
    OfWeights,
    mean_defined,
    ratio,
    ratio_of_sums,
    same_length,
    summable,
    with_one,
)

THRESHOLDS = tuple(np.arange(10) * 0.05 + 0.5)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
ALARMS_PER_PICTURE = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)  # as in LUNA16 (Setio et al. 2017)
MOST = 100  # boxes of a picture that are looked at
EPSILON = float(np.spacing(1))

Things = Sequence[Mapping[str, Any]]  # of one picture
OfClass = Callable[[np.ndarray, float, float], float]


def ap(classes: Sequence[str]) -> Metric:
    """Average precision, mean over the classes that the truths have and overlaps of 0.5 to 0.95: COCO's AP."""
    return _ranking("ap", classes, THRESHOLDS, _average_precision)


def ap50(classes: Sequence[str]) -> Metric:
    """Average precision at an overlap of 0.5, mean over the classes that the truths have."""
    return _ranking("ap50", classes, THRESHOLDS[:1], _average_precision)


def ar(classes: Sequence[str]) -> Metric:
    """Average recall with 100 boxes a picture, mean over classes and overlaps of 0.5 to 0.95: COCO's AR@100."""
    return _ranking("ar", classes, THRESHOLDS, _recall)


def froc(classes: Sequence[str]) -> Metric:
    """Sensitivity at an overlap of 0.5, mean over 1/8 to 8 false alarms a picture and over classes: the score of free-response
    ROC curves of LUNA16, with boxes in the place of distances."""
    return _ranking("froc", classes, THRESHOLDS[:1], _sensitivity_at(ALARMS_PER_PICTURE))


def froc_centre(classes: Sequence[str]) -> Metric:
    """As `froc`, where a box finds a true one as soon as its middle lies inside it: LUNA16's own rule, with boxes in the
    place of spheres."""
    return _ranking("froc", classes, (0.0,), _sensitivity_at(ALARMS_PER_PICTURE), by=of_middles)


def sensitivities(
    classes: Sequence[str], truths: Sequence[Any], answers: Sequence[Any], *, by_middles: bool
) -> list[tuple[float, float]]:
    """(false alarms a picture, sensitivity) at each of those whose mean is `froc`, or `froc_centre` by middles; none where there
    is nothing to find."""
    least, by = ((0.0,), of_middles) if by_middles else (THRESHOLDS[:1], of_boxes)
    points = [
        (alarms, _ranking("sensitivity", classes, least, _sensitivity_at((alarms,)), by=by))
        for alarms in ALARMS_PER_PICTURE
    ]
    rows = points[0][1].rows(truths, answers)  # the matching is one for all
    found = [(alarms, point.combine(rows, np.ones(len(rows)))) for alarms, point in points]
    return [point for point in found if np.isfinite(point[1])]


def f1(classes: Sequence[str]) -> Metric:
    """F1 at an overlap of 0.5 of the boxes that are given, mean over the classes that the truths have."""
    return _ranking("f1", classes, THRESHOLDS[:1], _f1, candidates=False)


def f1_centre(classes: Sequence[str]) -> Metric:
    """As `f1`, where a box finds a true one as soon as its middle lies inside it."""
    return _ranking("f1", classes, (0.0,), _f1, candidates=False, by=of_middles)


def mask_ap(classes: Sequence[str]) -> Metric:
    """As `ap`, by the masks of the things ({"mask": a silhouette}) in the place of their boxes: COCO's AP of segmentation."""
    return _ranking("mask_ap", classes, THRESHOLDS, _average_precision, by=of_masks)


def mask_ap50(classes: Sequence[str]) -> Metric:
    """As `ap50`, by masks."""
    return _ranking("mask_ap50", classes, THRESHOLDS[:1], _average_precision, by=of_masks)


def of_boxes(one: Things, other: Things) -> np.ndarray:
    """How much each two share of their boxes [n, m]."""
    return overlaps([item["box"] for item in one], [item["box"] for item in other])


def of_middles(one: Things, other: Things) -> np.ndarray:
    """How near the middle of each box is to that of another [n, m]; see `centred`."""
    return centred([item["box"] for item in one], [item["box"] for item in other])


def of_masks(one: Things, other: Things) -> np.ndarray:
    """How much each two share of their masks [n, m]."""
    return silhouettes.overlaps([item["mask"] for item in one], [item["mask"] for item in other])


def picture_f1(*, centres: bool = False) -> Metric:
    """F1 at an overlap of 0.5 of the boxes that are given on a picture, all classes together, the mean over pictures; 1 where
    there is nothing to find and nothing is given. centres: a box finds one that its middle lies inside."""
    thresholds, by = ((0.0,), of_middles) if centres else (THRESHOLDS[:1], of_boxes)

    def row(truth: Sequence[Mapping[str, Any]], answer: Any) -> float:
        given = _given(answer, candidates=False)
        real = [item for item in truth if _has_area(item["box"])]
        ids = {label: place for place, label in enumerate(sorted({item["label"] for item in (*real, *given)}))}
        hits = float(_picture(real, given, ids, thresholds, by)[0][:, 2:].sum())
        return 2 * hits / (len(real) + len(given)) if real or given else 1.0

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        same_length(truths, answers)
        return with_one([row(truth, answer) for truth, answer in zip(truths, answers, strict=True)])

    return summable("picture_f1", "max", rows, ratio_of_sums)


# ---- rows ------------------------------------------------------------------------------------------------------------
# One picture is [slots, 2 + thresholds] flattened: score, class + 1 (0: an empty slot), and for each threshold whether the
# box finds a true one; behind them how many true boxes of each class there are.


def _ranking(
    name: str,
    classes: Sequence[str],
    thresholds: Sequence[float],
    score: Callable[[np.ndarray], OfClass],
    *,
    candidates: bool = True,
    by: Callable[[Things, Things], np.ndarray] = of_boxes,
) -> Metric:
    ids = {label: index for index, label in enumerate(classes)}
    width = 2 + len(thresholds)

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        same_length(truths, answers)
        found = [
            _picture(truth, _given(answer, candidates=candidates), ids, thresholds, by)
            for truth, answer in zip(truths, answers, strict=True)
        ]
        slots = max((len(boxes) for boxes, _ in found), default=0)
        out = np.zeros((len(found), slots * width + len(ids)))
        for row, (boxes, counts) in enumerate(found):
            out[row, : boxes.size] = boxes.ravel()
            out[row, slots * width :] = counts
        return out

    def fixed(stats: np.ndarray) -> OfWeights:
        cut = stats.shape[1] - len(ids)
        boxes, real_of = stats[:, :cut].reshape(len(stats), -1, width), stats[:, cut:]
        picture, slot = np.nonzero(boxes[..., 1] > 0)
        flat = boxes[picture, slot]
        order = np.argsort(-flat[:, 0], kind="mergesort")  # as COCO's: equal scores stay in the pictures' order
        flat, picture = flat[order], picture[order]
        own = [flat[:, 1] == index + 1 for index in range(len(ids))]
        scores = [(score(flat[mine, 2:].T), picture[mine]) for mine in own]

        def of_weights(weights: np.ndarray) -> float:
            real, pictures = weights @ real_of, weights.sum()
            values = [
                of_class(weights[at], one, pictures) if one > 0 else np.nan
                for (of_class, at), one in zip(scores, real, strict=True)
            ]
            return float(mean_defined(np.array(values)))

        return of_weights

    def combine(stats: np.ndarray, weights: np.ndarray) -> float:
        return fixed(stats)(weights)

    return Metric(name, "max", rows, combine, fixed=fixed)


def _given(answer: Any, *, candidates: bool) -> list[Mapping[str, Any]]:
    boxes = [*answer.value, *(answer.detail.get("more", ()) if candidates else ())]
    return sorted(boxes, key=lambda box: -box.get("score", 1.0))[:MOST]


def _picture(
    truth: Sequence[Mapping[str, Any]],
    given: Sequence[Mapping[str, Any]],
    ids: Mapping[str, int],
    thresholds: Sequence[float],
    by: Callable[[Things, Things], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """([box, 2 + thresholds], true boxes of each class). What is of a class that is not scored has no place."""
    real = [item for item in truth if item["label"] in ids and _has_area(item["box"])]
    counts = np.bincount([ids[item["label"]] for item in real], minlength=len(ids))
    known = [item for item in given if item["label"] in ids]
    out = np.zeros((len(known), 2 + len(thresholds)))
    out[:, 0] = [item.get("score", 1.0) for item in known]
    out[:, 1] = [ids[item["label"]] + 1 for item in known]
    if known and real:
        shared = by(known, real)
        same = np.array([[one["label"] == other["label"] for other in real] for one in known])
        for column, least in enumerate(thresholds):
            out[:, 2 + column] = _hits(np.where(same, shared, -1.0), least)
    return out, counts


def _hits(shared: np.ndarray, least: float) -> np.ndarray:
    """Which boxes, the surest first, find a true one: each takes the one that it overlaps most among those left."""
    hits, left = np.zeros(len(shared)), np.ones(shared.shape[1], dtype=bool)
    for row, own in enumerate(shared):
        best = np.where(left, own, -1.0)
        at = len(best) - 1 - int(best[::-1].argmax())  # of equals the last, as COCO's
        if best[at] >= min(least, 1 - 1e-10):
            hits[row], left[at] = 1.0, False
    return hits


def overlaps(one: Any, other: Any) -> np.ndarray:
    """Intersection over union [n, m] of boxes [n, 2 d] and [m, 2 d]; 0 where neither has area."""
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    (low, high), (other_low, other_high) = np.split(a, 2, axis=1), np.split(b, 2, axis=1)
    shared = np.minimum(high[:, None], other_high) - np.maximum(low[:, None], other_low)
    inside = np.maximum(shared, 0.0).prod(-1)
    union = np.maximum(high - low, 0).prod(1)[:, None] + np.maximum(other_high - other_low, 0).prod(1) - inside
    return np.asarray(np.divide(inside, union, out=np.zeros_like(inside), where=union > 0))


def centred(one: Any, other: Any) -> np.ndarray:
    """[n, m] of boxes [n, 2 d] and [m, 2 d]: 1 where the middle of the one is that of the other, 0 on its faces, -1 outside."""
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    (low, high), (other_low, other_high) = np.split(a, 2, axis=1), np.split(b, 2, axis=1)
    away = np.abs((low + high)[:, None] - (other_low + other_high)) / np.maximum(other_high - other_low, EPSILON)
    found = 1.0 - away.max(-1)
    return np.asarray(np.where(found >= 0, found, -1.0))


def _has_area(box: Sequence[float]) -> bool:
    half = len(box) // 2
    return all(high > low for low, high in zip(box[:half], box[half:], strict=True))


# ---- from the ranked hits of one class [threshold, box] to a function of (weight [box], true boxes, pictures) ----------
# Boxes of weight 0 change no sum, and so no number: a resample need not take them out.


def _average_precision(hits: np.ndarray) -> OfClass:
    # precision rises at hits alone, and of all boxes most are none: only there is it looked at
    at_hits = [np.flatnonzero(row) for row in hits]

    def of_class(weight: np.ndarray, real: float, pictures: float) -> float:
        total = np.cumsum(weight)
        values = []
        for at in at_hits:
            right = np.cumsum(weight[at])
            precision = right / np.maximum(total[at], EPSILON)
            envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
            values.append(envelope[np.searchsorted(right / real, RECALL_POINTS, side="left")].mean())
        return float(np.mean(values))

    return of_class


def _recall(hits: np.ndarray) -> OfClass:
    return lambda weight, real, pictures: float((hits @ weight / real).mean())


def _sensitivity_at(alarms_per_picture: Sequence[float]) -> Callable[[np.ndarray], OfClass]:
    """The mean over these."""

    def of_hits(hits: np.ndarray) -> OfClass:
        def of_class(weight: np.ndarray, real: float, pictures: float) -> float:
            right, alarms = np.cumsum(hits[0] * weight), np.cumsum((1 - hits[0]) * weight) / pictures
            reached = np.append(0.0, right / real)
            return float(np.mean(reached[np.searchsorted(alarms, alarms_per_picture, side="right")]))

        return of_class

    return of_hits


def _f1(hits: np.ndarray) -> OfClass:
    return lambda weight, real, pictures: float(ratio(2 * (hits[0] * weight).sum(), weight.sum() + real))
