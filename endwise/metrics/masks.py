"""Metrics of masks: a class for every place. Truths and answers are `Segmentation`s; an answer of another size is scored at
the truth's, by the nearest place. Places without a label count for nothing.

All are functions of sums over rows, so that a value is that of all places together, as usual in segmentation.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from endwise.drawing import Segmentation
from endwise.metrics.engine import Metric, mean_defined, ratio, summable
from endwise.scan import VolumeSegmentation

UNLABELLED, NO_CLASS = 255, 254  # of `Segmentation.places`
TOLERANCE = 0.0075  # of the diagonal: how far apart two edges may be (Csurka et al. 2013)
MOST_EDGED = 63  # classes: a bit of a 64-bit number each
KEPT = 8  # answers whose comparison with a truth is remembered: several metrics look at one


def mean_iou() -> Metric:
    """Intersection over union, averaged over the classes that occur among the truths (Everingham et al. 2010)."""

    def from_sums(sums: np.ndarray) -> np.ndarray:
        both, true, said = _parts(sums)
        return np.asarray(mean_defined(np.where(true > 0, ratio(both, true + said - both), np.nan)))

    return summable("miou", "max", _rows, from_sums)


def mean_dice() -> Metric:
    """Dice overlap, 2 x both / (true + said), averaged over the classes that occur among the truths."""

    def from_sums(sums: np.ndarray) -> np.ndarray:
        both, true, said = _parts(sums)
        return np.asarray(mean_defined(np.where(true > 0, ratio(2 * both, true + said), np.nan)))

    return summable("dice", "max", _rows, from_sums)


def class_dice(name: str, place: int) -> Metric:
    """Dice overlap of one class; undefined where it neither occurs nor is said. place: among the classes."""

    def from_sums(sums: np.ndarray) -> np.ndarray:
        both, true, said = _parts(sums)
        return np.asarray(ratio(2 * both[..., place], true[..., place] + said[..., place]))

    return summable(f"dice_{name}", "max", _rows, from_sums)


def pixel_accuracy() -> Metric:
    """Share of the labelled places whose class is right."""

    def from_sums(sums: np.ndarray) -> np.ndarray:
        return np.asarray(ratio(_parts(sums)[0].sum(-1), sums[..., -1]))

    return summable("pixel_accuracy", "max", _rows, from_sums)


def boundary_f1(name: str | None = None, place: int | None = None) -> Metric:
    """F1 of the edges between classes: an edge place is right where the other has an edge of the same class at most
    0.75 % of the diagonal away (Csurka et al. 2013, here over all places together), and at least one place; of volumes whose
    spacing is known in millimetres, at least the finest step. Of all classes, or of the one at `place`. Undefined where no truth has an edge, and for more than 63 classes."""
    own = slice(None) if place is None else slice(place, place + 1)

    def from_sums(sums: np.ndarray) -> np.ndarray:
        right, said, found, true = (_each(sums, part)[..., own].sum(-1) for part in range(3, 7))
        precision, recall = np.nan_to_num(ratio(right, said)), ratio(found, true)
        return np.asarray(np.where(recall == 0, 0.0, ratio(2 * precision * recall, precision + recall)))

    return summable("boundary_f1" if name is None else f"boundary_f1_{name}", "max", _rows, from_sums)


def _parts(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each class: places that are right, that are true, that are said."""
    return _each(sums, 0), _each(sums, 1), _each(sums, 2)


def _each(sums: np.ndarray, part: int) -> np.ndarray:
    """[..., class] of one of the seven parts of `_rows`."""
    classes = (sums.shape[-1] - 1) // 7
    return sums[..., part * classes : (part + 1) * classes]


def _rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
    """[rows, 7 x classes + 1]: of each class the places that are right, true and said, the edges said that are right, the
    edges said, the true edges that were found, the true edges; and all labelled places."""
    return np.stack([_compared(truth, answer.value) for truth, answer in zip(truths, answers, strict=True)])


def _compared(truth: Segmentation, answer: Any) -> np.ndarray:
    known = truth.compared.get(id(answer))
    if known is not None and known[0] is answer:
        return known[1]
    classes, true = len(truth.names), truth.places()
    if isinstance(answer, Segmentation):
        said = answer.resized(true.shape).places()
    else:
        said = np.full(true.shape, NO_CLASS, np.uint8)  # nothing was answered
    labelled = true != UNLABELLED
    said = np.where(labelled, said, UNLABELLED)
    found = np.concatenate(
        [
            *(np.bincount(part, minlength=256)[:classes] for part in (true[true == said], true.ravel(), said.ravel())),
            _edges(true, said, classes, _reach(truth, true.shape))
            if classes <= MOST_EDGED
            else np.full(4 * classes, np.nan),
            [labelled.sum()],
        ]
    ).astype(np.float64)
    if len(truth.compared) >= KEPT:
        truth.compared.clear()
    truth.compared[id(answer)] = (answer, found)
    return found


def _reach(truth: Segmentation, shape: Sequence[int]) -> list[int]:
    """How many places along each axis two edges may be apart: as far along all of them, where it is known how far places are."""
    spacing = truth.spacing_mm if isinstance(truth, VolumeSegmentation) else None
    step = np.array(spacing or (1.0,) * len(shape))
    most = max(TOLERANCE * float(np.linalg.norm(np.array(shape) * step)), float(step.min()))
    return [round(float(places)) for places in most / step]


def _edges(true: np.ndarray, said: np.ndarray, classes: int, reach: Sequence[int]) -> np.ndarray:
    """Of each class: edges said that are right, edges said, true edges that were found, true edges."""
    own, other = _edge_bits(true), _edge_bits(said)
    parts = ((said, other & _spread(own, reach)), (said, other), (true, own & _spread(other, reach)), (true, own))
    counts = [np.bincount(numbers[edge != 0], minlength=256)[:classes] for numbers, edge in parts]
    return np.concatenate(counts).astype(np.float64)


def _edge_bits(classes: np.ndarray) -> np.ndarray:
    """uint64: the bit of its class where a neighbour along an axis has another one; neighbours without a class make none."""
    bit = np.where(
        classes <= MOST_EDGED, np.left_shift(np.uint64(1), np.minimum(classes, MOST_EDGED).astype(np.uint64)), 0
    )
    edge = np.zeros(classes.shape, bool)
    for axis in range(classes.ndim):
        one, two = np.moveaxis(classes, axis, 0)[:-1], np.moveaxis(classes, axis, 0)[1:]
        differs = (one != two) & (one < NO_CLASS) & (two < NO_CLASS)
        np.moveaxis(edge, axis, 0)[:-1] |= differs
        np.moveaxis(edge, axis, 0)[1:] |= differs
    return np.where(edge, bit, np.uint64(0)).astype(np.uint64)


def _spread(bits: np.ndarray, reach: Sequence[int]) -> np.ndarray:
    """The bits of all places at most `reach` away along each axis."""
    for axis, most in enumerate(reach):
        moved = np.moveaxis(bits, axis, 0)
        out = moved.copy()
        for step in range(1, min(most, len(moved) - 1) + 1):
            out[step:] |= moved[:-step]
            out[:-step] |= moved[step:]
        bits = np.moveaxis(out, 0, axis)
    return bits
