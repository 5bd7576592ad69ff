"""Where one network goes wrong: groups of rows that it answers worse than the rest, and labels that look wrong.

An end-to-end network has no parts to be judged one by one, so its errors are looked for in the rows. Everything here
comes from answers to rows that training did not see. A group is named only if it is worse beyond what looking at many
groups would show by chance; a suspected label is a suspicion and is shown to a person.

Plain JSON values out. Not here: the scores themselves (evaluate.py), what each layer knows (details.py).
"""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from endwise import metrics
from endwise.data.dataset import Dataset
from endwise.details import Answered
from endwise.metrics import Estimate

MANY_VALUES = 20  # a column with more different numbers is cut into quarters
FEWEST_ROWS, FEWEST_CLUSTERS = 20, 5  # of a group, and of the rest
LEVEL = 0.05  # the chance that any group is named where none is worse
NAMED = 10
SUSPECTS = 20
FEWEST_OF_A_CLASS = 5  # rows that carry a label before its usual confidence means anything


# ---- groups ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Slice:
    """A group of rows that is worse than the rest. score: the mean of `measure` over its rows. worse_by: with an interval
    that holds for all groups that were looked at together. share: of all that is wrong, what would be gone if the group
    were like the rest."""

    column: str
    group: str
    score: float
    rest: float
    worse_by: Estimate
    share: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**dataclasses.asdict(self), "worse_by": self.worse_by.to_dict()}


def weak_slices(scored: Answered, dataset: Dataset) -> dict[str, Any] | None:
    """{"measure", "rows", "looked_at", "found": [Slice.to_dict(), the largest share first]} over every column of the
    tables and the lengths of the inputs; None where no column makes groups.

    The measure of a row is whether the answer is wrong (classes, texts), how far it is off (numbers), or else its loss.
    Group and rest are compared by Welch's t-test on rows, or on whole clusters where rows belong together (Kish 1965);
    p-values are corrected for all groups together (Holm 1979), intervals by Bonferroni.
    """
    measure, values = _badness(scored)
    kept = np.flatnonzero(np.isfinite(values))
    if len(kept) < 2 * FEWEST_ROWS:
        return None
    values = values[kept]
    clusters = kept if scored.clusters is None else np.asarray(scored.clusters)[kept]
    looked = [
        (column, group, inside)
        for column, cells in _columns(scored, dataset, kept).items()
        for group, inside in _groups(cells)
        if FEWEST_ROWS <= inside.sum() <= len(values) - FEWEST_ROWS
    ]
    tests = [(item, found) for item in looked if (found := _welch(values, item[2], clusters)) is not None]
    if not tests:
        return None
    worse = [
        _slice(column, group, inside, values, found, len(tests))
        for (column, group, inside), found in _below_level(tests)
    ]
    worse.sort(key=lambda item: -item.share)
    return {
        "measure": measure,
        "rows": len(values),
        "looked_at": len(tests),
        "found": [item.to_dict() for item in worse[:NAMED]],
    }


def _badness(scored: Answered) -> tuple[str, np.ndarray]:
    """What is wrong with each row, and its name."""
    first = scored.truths[0] if scored.truths else None
    if scored.answers and isinstance(first, str | bool):
        wrong = [truth != value for truth, value in zip(scored.truths, scored.values, strict=True)]
        return "error rate", np.array(wrong, dtype=np.float64)
    if scored.answers and isinstance(first, int | float):
        truths, values = (np.array(part, dtype=np.float64) for part in (scored.truths, scored.values))
        return "mean absolute error", np.abs(truths - values)
    return "mean loss", scored.loss


def _columns(scored: Answered, dataset: Dataset, kept: np.ndarray) -> dict[str, list[Any]]:
    """The cells of every column that may make groups, and how long each input is."""
    rows = scored.rows[kept]
    found: dict[str, list[Any]] = {}
    for name in dict.fromkeys(name for table in dataset.tables for name in table.columns):
        cells = dataset.cells(name, rows)
        if all(cell is None or isinstance(cell, str | bool | int | float | np.generic) for cell in cells):
            found[name] = cells
    for name, store in dataset.fields.items():
        if name in dataset.columns and store.present[rows].all() and store[int(rows[0])].ndim == 1:
            found[f"length of {name}"] = [
                len(store[row]) for row in rows.tolist()
            ]  # samples of a sound, bytes of a text
    return found


def _groups(cells: Sequence[Any]) -> list[tuple[str, np.ndarray]]:
    """(group, bool [rows]); nothing where nearly every row is its own group."""
    names = grouped(cells)[0]
    if len(set(names)) > max(MANY_VALUES, len(cells) / FEWEST_ROWS):
        return []
    array = np.array(names, dtype=object)
    return [(name, array == name) for name in sorted(set(names))]


def grouped(cells: Sequence[Any]) -> tuple[list[str], int]:
    """The group of each row: the cell as text, or a quarter of the rows where there are many different numbers (then the
    second says how many, else 0). Rows without a value are a group of their own."""
    cells = [None if isinstance(cell, float | np.floating) and np.isnan(cell) else cell for cell in cells]
    numbers = [_number(cell) for cell in cells if cell is not None]
    if not all(map(math.isfinite, numbers)) or len(set(numbers)) <= MANY_VALUES:
        return [metrics.MISSING if cell is None else str(cell) for cell in cells], 0
    edges = np.quantile(numbers, [0, 0.25, 0.5, 0.75, 1]).tolist()
    names = [f"{low:.4g} to {high:.4g}" for low, high in itertools.pairwise(edges)]
    places = [
        None if cell is None else min(3, int(np.searchsorted(edges[1:-1], _number(cell), side="left")))
        for cell in cells
    ]
    return [metrics.MISSING if place is None else names[place] for place in places], len(set(numbers))


def _number(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return math.nan


@dataclass(frozen=True, slots=True)
class _Test:
    gain: float  # how much worse the group is
    error: float
    freedom: float
    p: float  # of being so much worse by chance


def _welch(values: np.ndarray, inside: np.ndarray, clusters: np.ndarray) -> _Test | None:
    """None where a side has too few clusters to say how much they differ."""
    from scipy import stats

    sides = [_mean_and_error(values[side], clusters[side]) for side in (inside, ~inside)]
    if min(count for *_, count in sides) < FEWEST_CLUSTERS:
        return None
    (mean, error, count), (rest, rest_error, rest_count) = sides
    whole = math.hypot(error, rest_error)
    if whole == 0:
        return None if mean == rest else _Test(mean - rest, 0.0, 1.0, float(mean < rest))
    freedom = whole**4 / (error**4 / (count - 1) + rest_error**4 / (rest_count - 1))
    return _Test(mean - rest, whole, freedom, float(stats.t.sf((mean - rest) / whole, freedom)))


def _mean_and_error(values: np.ndarray, clusters: np.ndarray) -> tuple[float, float, int]:
    """Of a mean of rows that are drawn in clusters."""
    _, codes = np.unique(clusters, return_inverse=True)
    mean, count = float(values.mean()), int(codes.max()) + 1
    sums = np.bincount(codes, weights=values - mean)
    error = math.sqrt(float((sums**2).sum()) * count / max(1, count - 1)) / len(values)
    return mean, error, count


def _below_level(tests: list[Any]) -> list[Any]:
    """Those whose p-value stands after Holm's correction for all of them."""
    ordered, found = sorted(tests, key=lambda item: item[1].p), []
    for place, item in enumerate(ordered):
        if item[1].p > LEVEL / (len(ordered) - place):
            break
        found.append(item)
    return found


def _slice(column: str, group: str, inside: np.ndarray, values: np.ndarray, found: _Test, looked_at: int) -> Slice:
    from scipy import stats

    half = found.error * float(stats.t.ppf(1 - LEVEL / 2 / looked_at, found.freedom)) if found.error else 0.0
    rows, total = int(inside.sum()), float(values.sum())
    return Slice(
        column, group, float(values[inside].mean()), float(values[~inside].mean()),
        Estimate(found.gain, found.gain - half, found.gain + half, rows), found.gain * rows / total if total > 0 else 0.0,
    )  # fmt: skip


# ---- labels --------------------------------------------------------------------------------------------------------------


def suspected_labels(scored: Answered, dataset: Dataset) -> dict[str, Any] | None:
    """Rows whose label looks wrong by the network's own answers to them (confident learning, Northcutt et al. 2021):
    {"n", "suspected": an Estimate of their share, "pairs": [{"label", "rather", "n"}], "rows": [{"row", "origin", "label",
    "rather", "given": the label's probability, "other": the other's}, the surest first]}.

    A label is suspected where another class has at least the confidence that this class usually has in rows that carry its
    label. None for outputs that have no probabilities of classes. The rows must not be those of training.
    """
    shares: list[Any] = [answer.detail.get("probabilities") for answer in scored.answers]
    if not shares or not all(isinstance(item, Mapping) for item in shares):
        return None
    names = sorted({name for item in shares for name in item})
    labels = [metrics.label(truth) for truth in scored.truths]
    known = [index for index, label in enumerate(labels) if label in names]
    if len(names) < 2 or not known:
        return None
    table = np.array([[shares[index].get(name, 0.0) for name in names] for index in known])
    given = np.array([names.index(labels[index]) for index in known])
    rather = _confidently(table, given)
    at = np.arange(len(given))
    suspected = np.flatnonzero((rather >= 0) & (rather != given))
    order = suspected[np.argsort(table[at, given][suspected] - table.max(1)[suspected], kind="stable")]
    rows = [
        {
            "row": int(scored.rows[known[place]]), "origin": dataset.origin(int(scored.rows[known[place]])),
            "label": names[given[place]], "rather": names[rather[place]],
            "given": float(table[place, given[place]]), "other": float(table[place, rather[place]]),
        }
        for place in order[:SUSPECTS].tolist()
    ]  # fmt: skip
    pairs = Counter((names[given[place]], names[rather[place]]) for place in suspected.tolist())
    flags = np.isin(at, suspected)
    clusters = None if scored.clusters is None else [scored.clusters[index] for index in known]
    return {
        "n": len(given), "suspected": metrics.estimate(metrics.accuracy(), [True] * len(given), _answers(flags), clusters=clusters),
        "pairs": [{"label": one, "rather": other, "n": n} for (one, other), n in pairs.most_common(SUSPECTS)], "rows": rows,
    }  # fmt: skip


def _answers(flags: np.ndarray) -> list[Any]:
    from endwise.modalities.base import Answer

    return [Answer(bool(flag)) for flag in flags]


def _confidently(table: np.ndarray, given: np.ndarray) -> np.ndarray:
    """int [rows]: the class that each row belongs to with at least that class's usual confidence, -1 where there is none."""
    usual = np.full(table.shape[1], np.inf)
    for name in range(table.shape[1]):
        own = given == name
        if own.sum() >= FEWEST_OF_A_CLASS:
            usual[name] = table[own, name].mean()
    sure = np.where(table >= usual, table, -1.0)
    return np.where(sure.max(1) >= 0, sure.argmax(1), -1)


__all__ = ["Slice", "grouped", "suspected_labels", "weak_slices"]
