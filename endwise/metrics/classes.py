"""Metrics of classes, of their probabilities and rankings, and of sets of tags."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from endwise.metrics.engine import (
    Metric,
    RowStatistics,
    mean_defined,
    numbered,
    of_column,
    ratio,
    ratio_of_sums,
    summable,
    where_any,
    with_one,
)

ECE_BINS = 15  # equal-width bins of confidence (Guo et al. 2017)
SMALLEST_PROBABILITY = float(np.finfo(np.float64).eps)  # what log-loss takes a zero for, as scikit-learn does


def accuracy() -> Metric:
    """Share of rows whose answer equals the truth (for text: the whole text)."""
    return summable("accuracy", "max", _right, ratio_of_sums, proportion=True)


def balanced_accuracy() -> Metric:
    """Mean recall over the classes that occur among the truths."""

    def combine(stats: np.ndarray, weights: np.ndarray) -> float:
        right, true, _ = _class_counts(stats, weights)
        return float(mean_defined(ratio(right, true)))

    return Metric("balanced_accuracy", "max", _class_ids, combine, shares=of_column(0))


def macro_f1() -> Metric:
    """Mean F1 over the classes that occur among truths or answers."""

    def combine(stats: np.ndarray, weights: np.ndarray) -> float:
        right, true, said = _class_counts(stats, weights)
        return float(mean_defined(ratio(2 * right, true + said)))

    return Metric("macro_f1", "max", _class_ids, combine, shares=of_column(0))


def f1(positive: Any = True) -> Metric:
    """F1 of one class: the harmonic mean of its precision and recall. Undefined if it neither occurs nor is said."""

    def from_sums(sums: np.ndarray) -> np.ndarray:
        return np.asarray(ratio(2 * sums[..., 0], sums[..., 1] + sums[..., 2]))

    return summable("f1", "max", _hits(positive), from_sums, shares=where_any(1))


def precision(positive: Any = True) -> Metric:
    """Share of right ones among the answers that are `positive`. Undefined if none is."""
    return summable(
        "precision", "max", _hits(positive), lambda sums: np.asarray(ratio(sums[..., 0], sums[..., 2])),
        shares=where_any(2),
    )  # fmt: skip


def recall(positive: Any = True) -> Metric:
    """Share of the truths that are `positive` and were found. Undefined if none is."""
    return summable(
        "recall", "max", _hits(positive), lambda sums: np.asarray(ratio(sums[..., 0], sums[..., 1])),
        shares=where_any(1),
    )  # fmt: skip


def auroc(classes: Sequence[str]) -> Metric:
    """Area under the ROC curve, each of `classes` against all others, averaged over those that are defined. For a
    boolean give ("true",)."""
    return _ranking("auroc", classes, _auroc)


def average_precision(classes: Sequence[str]) -> Metric:
    """Mean precision over recall steps, each of `classes` against all others, averaged over those that are defined."""
    return _ranking("average_precision", classes, _average_precision)


def log_loss() -> Metric:
    """Mean -log of the probability given to the truth (nats), zero taken for 2.2e-16."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        given = [_probability(answer, truth) for truth, answer in zip(truths, answers, strict=True)]
        return with_one(-np.log(np.clip(given, SMALLEST_PROBABILITY, 1.0)))

    return summable("log_loss", "min", rows, ratio_of_sums)


def brier() -> Metric:
    """Mean squared distance of the probabilities from the truth: (p - y)^2 for two classes, the sum over classes for
    more (Brier 1950)."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        return with_one([_brier_row(truth, answer) for truth, answer in zip(truths, answers, strict=True)])

    return summable("brier", "min", rows, ratio_of_sums)


def ece(bins: int = ECE_BINS) -> Metric:
    """Expected calibration error: |confidence - share right| in equal-width bins of confidence, weighed by their rows
    (Guo et al. 2017). Biased upwards for few rows."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        right = _right(truths, answers)[:, 0]
        confidence = np.array(
            [math.nan if item.confidence is None else item.confidence for item in answers], dtype=float
        )
        stats = np.zeros((len(right), bins + 1))
        bin_of = np.clip(np.ceil(np.nan_to_num(confidence) * bins).astype(int) - 1, 0, bins - 1)
        stats[np.arange(len(right)), bin_of] = confidence - right
        stats[:, bins] = 1.0
        return stats

    def from_sums(sums: np.ndarray) -> np.ndarray:
        return np.asarray(ratio(np.abs(sums[..., :-1]).sum(-1), sums[..., -1]))

    return summable("ece", "min", rows, from_sums)


def _right(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
    pairs = zip(truths, answers, strict=True)
    return with_one([float(_key(truth) == _key(answer.value)) for truth, answer in pairs])


def _key(item: Any) -> Hashable:
    """A value as something that can be compared and counted."""
    if isinstance(item, np.ndarray | np.generic):
        item = item.tolist()
    return tuple(item) if isinstance(item, list) else item


def _class_ids(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
    known: dict[Any, int] = {}
    true = numbered([_key(truth) for truth in truths], known)
    said = numbered([_key(answer.value) for answer in answers], known)
    return np.stack([true, said], axis=1)


def _class_counts(stats: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each class: weight that is right, true, said. Counting, not a matrix of rows by classes: there may be
    thousands of classes."""
    true, said = stats[:, 0], stats[:, 1]
    count = int(stats.max()) + 1
    right = np.bincount(true, weights * (true == said), minlength=count)
    return right, np.bincount(true, weights, minlength=count), np.bincount(said, weights, minlength=count)


def _hits(positive: Any) -> RowStatistics:
    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        true = np.array([_key(truth) == positive for truth in truths], dtype=np.float64)
        said = np.array([_key(answer.value) == positive for answer in answers], dtype=np.float64)
        return np.stack([true * said, true, said], axis=1)

    return rows


def label(item: Any) -> str:
    """The name under which a class stands in `detail["probabilities"]`."""
    return ("false", "true")[bool(item)] if isinstance(item, bool | np.bool_) else str(item)


def _probabilities(answer: Any) -> Mapping[str, float] | None:
    found: Mapping[str, float] | None = answer.detail.get("probabilities")
    return found


def _probability(answer: Any, item: Any) -> float:
    found = _probabilities(answer)
    return math.nan if found is None else float(found.get(label(item), 0.0))


def _brier_row(truth: Any, answer: Any) -> float:
    found = _probabilities(answer)
    if found is None:
        return math.nan
    squares = math.fsum(float(item) ** 2 for item in found.values())
    full = squares - 2 * _probability(answer, truth) + 1
    return full / 2 if len(found) == 2 else full


# ---- rankings --------------------------------------------------------------------------------------------------


def _ranking(name: str, classes: Sequence[str], area: Callable[[np.ndarray, np.ndarray], float]) -> Metric:
    """One-vs-rest ranking metric. Statistics [n, 1 + classes]: the truth's class number (-1: none of them) and the
    dense rank of each class's score, which stays right for any subset of the rows and makes a resample a count."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        numbers = {item: index for index, item in enumerate(classes)}
        true = [numbers.get(label(truth), -1) for truth in truths]
        given = [_probabilities(answer) for answer in answers]
        if any(found is None for found in given):
            return np.full((len(truths), 1), math.nan)
        ranks = [_dense_rank([found.get(item, 0.0) for found in given if found is not None]) for item in classes]
        return np.asfortranarray(np.stack([np.array(true, dtype=np.int64), *ranks], axis=1))  # read by column

    def combine(stats: np.ndarray, weights: np.ndarray) -> float:
        if stats.dtype.kind == "f":
            return math.nan
        return float(mean_defined(np.array([
            _one_against_rest(stats[:, 0] == index, stats[:, 1 + index], weights, area) for index in range(len(classes))
        ])))  # fmt: skip

    return Metric(name, "max", rows, combine, shares=of_column(0))  # the rest of one class counts as a class too


def _dense_rank(scores: Sequence[float]) -> np.ndarray:
    return np.unique(np.asarray(scores, dtype=np.float64), return_inverse=True)[1].reshape(-1).astype(np.int64)


def _one_against_rest(
    positive: np.ndarray, rank: np.ndarray, weights: np.ndarray, area: Callable[[np.ndarray, np.ndarray], float]
) -> float:
    everyone = np.bincount(rank, weights)
    rows = np.flatnonzero(positive)
    yes = np.bincount(rank[rows], weights[rows], minlength=len(everyone))
    return area(yes, np.maximum(everyone - yes, 0.0))  # the maximum: fractional weights leave rounding behind


def _auroc(yes: np.ndarray, no: np.ndarray) -> float:
    """Probability that a positive ranks above a negative, ties a half; weights by rising rank."""
    below = np.cumsum(no) - no
    return float(ratio((yes * (below + no / 2)).sum(), yes.sum() * no.sum()))


def _average_precision(yes: np.ndarray, no: np.ndarray) -> float:
    """Sum over falling thresholds of (recall step) x precision; ties enter together."""
    found, seen = np.cumsum(yes[::-1]), np.cumsum((yes + no)[::-1])
    if found[-1] <= 0:
        return math.nan
    return float((yes[::-1] * np.nan_to_num(ratio(found, seen))).sum() / found[-1])


# ---- tags ------------------------------------------------------------------------------------------------------


def tags_exact_match() -> Metric:
    """`exact_match`: share of rows whose set of tags is right, every one."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        pairs = zip(truths, answers, strict=True)
        return with_one([float(frozenset(truth) == frozenset(answer.value)) for truth, answer in pairs])

    return summable("exact_match", "max", rows, ratio_of_sums, proportion=True)


def tags_micro_f1() -> Metric:
    """`micro_f1`: F1 over all (row, tag) pairs. Undefined if no tag occurs or is said."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        pairs = [(frozenset(truth), frozenset(answer.value)) for truth, answer in zip(truths, answers, strict=True)]
        return np.array([[len(true & said), len(true), len(said)] for true, said in pairs], dtype=np.float64)

    def from_sums(sums: np.ndarray) -> np.ndarray:
        return np.asarray(ratio(2 * sums[..., 0], sums[..., 1] + sums[..., 2]))

    return summable("micro_f1", "max", rows, from_sums, shares=where_any(1, 2))


def tags_macro_f1() -> Metric:
    """`macro_f1`: mean F1 over the tags that occur among truths or answers."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        said = [frozenset(answer.value) for answer in answers]
        known: dict[Any, int] = {}
        numbered([tag for row in [*truths, *said] for tag in row], known)
        true_matrix, said_matrix = _membership(truths, known), _membership(said, known)
        return np.concatenate([true_matrix * said_matrix, true_matrix, said_matrix], axis=1)

    def from_sums(sums: np.ndarray) -> np.ndarray:
        right, true, said = np.split(sums, 3, axis=-1)
        return np.asarray(mean_defined(ratio(2 * right, true + said)))

    def shares(stats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.nonzero(np.split(stats, 3, axis=1)[1])  # type: ignore[return-value]

    return summable("macro_f1", "max", rows, from_sums, shares=shares)


def tags_auroc(tags: Sequence[str]) -> Metric:
    """`auroc`: mean over tags, of those both present and absent somewhere, of the area under the ROC curve."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        given = [_probabilities(answer) for answer in answers]
        if any(found is None for found in given):
            return np.full((len(truths), 1), math.nan)
        ranks = [_dense_rank([found.get(tag, 0.0) for found in given if found is not None]) for tag in tags]
        true = _membership(truths, {tag: index for index, tag in enumerate(tags)}).astype(np.int64)
        return np.concatenate([true, np.stack(ranks, axis=1)], axis=1)

    def combine(stats: np.ndarray, weights: np.ndarray) -> float:
        if stats.dtype.kind == "f":
            return math.nan
        true, ranks = stats[:, : len(tags)] == 1, stats[:, len(tags) :]
        each = [_one_against_rest(true[:, index], ranks[:, index], weights, _auroc) for index in range(len(tags))]
        return float(mean_defined(np.array(each)))

    def shares(stats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        true = stats[:, : len(tags)] == 1
        return np.nonzero(np.concatenate([true, ~true], axis=1))  # type: ignore[return-value]

    return Metric("auroc", "max", rows, combine, shares=shares)


def _membership(rows: Sequence[Any], known: Mapping[Any, int]) -> np.ndarray:
    """1.0 where a row has a tag, [rows, tags]; tags that are not `known` are left out."""
    made = np.zeros((len(rows), len(known)))
    for index, row in enumerate(rows):
        made[index, [known[tag] for tag in row if tag in known]] = 1.0
    return made
