"""Metrics as pure functions of truths and answers, each with n and a bootstrap interval.

A Metric turns rows into per-row statistics once and combines them for any row weights, so that an interval costs one
vectorised pass and a per-group table none. The library's figure is the oracle in the tests.

Here: the engine (`value`, `estimate`, `estimates`, `by_group`, `difference`, `gap`) and the usual metrics as functions
that make a Metric. Not here: which metrics an output has (`Modality.metrics`), and tables or plots of them. Numpy only:
training-time validation and reports call this without torch.

Truths are the user's kind of value; answers are `Answer`s, of which `value`, `confidence` and
`detail["probabilities"]` ({class: p}, booleans as "true" and "false") are looked at. A metric `of_term` looks at a
loss term of the head instead, and needs no answer: how probable a text is can be said without writing one.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

RESAMPLES = 1000
CONFIDENCE = 0.95
BLOCK_CELLS = 2_000_000  # resamples x rows held at once: 16 MB of weights
ECE_BINS = 15  # equal-width bins of confidence (Guo et al. 2017)
SMALLEST_PROBABILITY = float(np.finfo(np.float64).eps)  # what log-loss takes a zero for, as scikit-learn does
MISSING = "<missing>"  # the group of rows without a value

RowStatistics = Callable[[Sequence[Any], Sequence[Any]], np.ndarray]
Shares = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its n and its 95 % bootstrap interval. NaN means undefined (a ranking of one class, an interval of
    one row) and is null in JSON."""

    value: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; undefined numbers are null."""
        return {name: None if isinstance(item, float) and not math.isfinite(item) else item
                for name, item in asdict(self).items()}  # fmt: skip

    def __str__(self) -> str:
        if math.isnan(self.value):
            return f"undefined n={self.n}"
        if math.isnan(self.low) or math.isnan(self.high):
            return f"{self.value:.4g} (no interval) n={self.n}"
        if self.low == self.high:  # every resample gave the same: the rows do not vary, and nothing bounds the value
            return f"{self.value:.4g} (degenerate interval) n={self.n}"
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}] n={self.n}"


@dataclass(frozen=True, slots=True)
class Metric:
    """A named metric. `rows(truths, answers)` gives [n, k] statistics (or any per-row array); `combine(stats, weights)`
    gives the value for row weights [n]; summable metrics combine the weighted sum over rows.

    from_sums: what a summable metric makes of weighted sums [..., k]; it makes the bootstrap one matrix product.
    proportion: the value is a share of rows, so that an interval exists even where all rows are alike.
    shares(stats): the same for a value between 0 and 1 that is a mean over classes or a share of some rows: (rows,
    class of each) of the rows it stands on; a row may be in several classes.
    of_term: `rows` takes this loss term of the head in the place of answers: float64 [n, 2], each row's loss per unit
    and how many units it has (`Head.loss`, `Head.weight`).
    """

    name: str
    direction: Literal["min", "max"]
    rows: RowStatistics
    combine: Callable[[np.ndarray, np.ndarray], float]
    unit: str | None = None
    from_sums: Callable[[np.ndarray], np.ndarray] | None = None
    proportion: bool = False
    of_term: str | None = None
    shares: Shares | None = None

    def looks_at(self, answers: Sequence[Any], terms: Mapping[str, Any]) -> Sequence[Any]:
        """What `rows` takes beside the truths: the answers, or the term it is made of."""
        if self.of_term is None:
            return answers
        assert self.of_term in terms, f"{self.name} is of the term {self.of_term!r}; there are {sorted(terms)}"
        found: Sequence[Any] = terms[self.of_term]
        return found


@dataclass(frozen=True, slots=True)
class Gap:
    """How far apart two groups are: the metric in `best` minus that in `worst`, with its interval."""

    best: str
    worst: str
    estimate: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"best": self.best, "worst": self.worst, **self.estimate.to_dict()}


def summable(
    name: str,
    direction: Literal["min", "max"],
    rows: RowStatistics,
    from_sums: Callable[[np.ndarray], np.ndarray],
    *,
    unit: str | None = None,
    proportion: bool = False,
    of_term: str | None = None,
    shares: Shares | None = None,
) -> Metric:
    """A metric that is a function of weighted sums of its per-row statistics [n, k]."""

    def combine(stats: np.ndarray, weights: np.ndarray) -> float:
        return float(from_sums(weights @ stats))

    return Metric(name, direction, rows, combine, unit, from_sums, proportion, of_term, shares)


# ---- the engine ------------------------------------------------------------------------------------------------


def value(metric: Metric, truths: Sequence[Any], answers: Sequence[Any], *, weights: Any = None) -> float:
    """The number alone, without an interval (what training-time validation looks at); NaN where undefined.

    Here and in `estimate`, `difference` and `gap`, `answers` are what the metric looks at (`Metric.looks_at`)."""
    if len(truths) == 0:
        return math.nan
    return float(metric.combine(metric.rows(truths, answers), _weights(weights, len(truths))))


def estimate(
    metric: Metric,
    truths: Sequence[Any],
    answers: Sequence[Any],
    *,
    weights: Any = None,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """The metric with its 95 % interval: percentile bootstrap over rows (Efron 1979), or over whole `clusters` (rows
    with the same id are drawn together: recordings of one speaker are no independent evidence).

    The percentiles are moved outwards for few rows as a t interval would be (Hesterberg 2015, "expanded percentile"),
    and to the value itself where the bootstrap is biased (calibration error). Where no resample differs (all right, all
    wrong) the bootstrap says nothing; a share then gets Wilson's interval (1927), which for n rows without an error ends
    at 3.84 / (n + 3.84), about the rule of three (3.7 / n at 97.5 %). A mean over classes (macro F1, AUROC) is as sure as so many
    rows of one class: K^2 / sum(1 / n_k), few where one class has few. Error rates of text count rows, not words. What
    has no bounds (a mean error) keeps its degenerate interval and is printed as such. One row gives no interval otherwise.
    """
    count = _same_length(truths, answers)
    if count == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    stats, row_weights = [metric.rows(truths, answers)], _weights(weights, count)
    return _estimates([metric], stats, row_weights, _units(clusters, count), resamples, seed)[metric.name]


def estimates(
    metrics: Sequence[Metric],
    truths: Sequence[Any],
    answers: Sequence[Any],
    *,
    terms: Mapping[str, np.ndarray] | None = None,
    weights: Any = None,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Every metric by name, from the same resamples. terms: the loss terms, for metrics that are made of them; where
    all are, `answers` may be empty."""
    count = len(truths)
    if count == 0:
        return {metric.name: Estimate(math.nan, math.nan, math.nan, 0) for metric in metrics}
    stats = _statistics(metrics, truths, answers, terms)
    return _estimates(metrics, stats, _weights(weights, count), _units(clusters, count), resamples, seed)


def by_group(
    metrics: Sequence[Metric],
    truths: Sequence[Any],
    answers: Sequence[Any],
    groups: Sequence[Any],
    *,
    terms: Mapping[str, np.ndarray] | None = None,
    weights: Any = None,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, Estimate]]:
    """{group: {metric: Estimate}}, groups in the order of their names; statistics of rows are computed once."""
    count = _same_length(truths, groups)
    row_weights, units = _weights(weights, count), _units(clusters, count)
    stats = _statistics(metrics, truths, answers, terms) if count else []
    out = {}
    for group, rows in _members(groups).items():
        inside = _units(units[rows].tolist(), len(rows))
        out[group] = _estimates(metrics, [item[rows] for item in stats], row_weights[rows], inside, resamples, seed)
    return out


def difference(
    metric: Metric,
    truths: Sequence[Any],
    first: Sequence[Any],
    second: Sequence[Any],
    *,
    weights: Any = None,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """The metric of `first` minus that of `second` on the same rows, with the interval of the paired bootstrap: both
    are scored on the same resamples, so what is hard for both cancels."""
    count = _same_length(truths, first, second)
    if count == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    pair, stats = (metric, metric), [metric.rows(truths, first), metric.rows(truths, second)]
    row_weights, units = _weights(weights, count), _units(clusters, count)
    at = np.array([_at(metric, item, row_weights) for item in stats])
    drawn = _bootstrap(pair, stats, row_weights, units, resamples, seed)
    return _interval(float(at[0] - at[1]), drawn[0] - drawn[1], count, int(units.max()) + 1)


def gap(
    metric: Metric,
    truths: Sequence[Any],
    answers: Sequence[Any],
    groups: Sequence[Any],
    *,
    weights: Any = None,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Gap | None:
    """The best group minus the worst with its interval; None with fewer than two groups in which the metric is defined.

    The two groups are those of the whole sample and stay the same in every resample. With many small groups some gap
    is there by chance: read it with the n of both groups.
    """
    count = _same_length(truths, answers, groups)
    members = _members(groups)
    row_weights, units = _weights(weights, count), _units(clusters, count)
    stats = metric.rows(truths, answers) if count else np.zeros((0, 1))
    at = {group: _at(metric, stats[rows], row_weights[rows]) for group, rows in members.items()}
    defined = [group for group in at if math.isfinite(at[group])]
    if len(defined) < 2:
        return None
    sign = 1.0 if metric.direction == "max" else -1.0
    best, worst = max(defined, key=lambda group: sign * at[group]), min(defined, key=lambda group: sign * at[group])
    if best == worst:  # all alike: the two largest groups stand for all
        best, worst = sorted(defined, key=lambda group: -len(members[group]))[:2]
    drawn = []
    for turn, rows in enumerate((members[best], members[worst])):
        inside = _units(units[rows].tolist(), len(rows))
        drawn.append(_bootstrap([metric], [stats[rows]], row_weights[rows], inside, resamples, 2 * seed + turn)[0])
    rows_seen = len(members[best]) + len(members[worst])
    smaller = min(len(np.unique(units[members[group]])) for group in (best, worst))
    return Gap(best, worst, _interval(at[best] - at[worst], drawn[0] - drawn[1], rows_seen, smaller))


def _statistics(
    metrics: Sequence[Metric], truths: Sequence[Any], answers: Sequence[Any], terms: Mapping[str, np.ndarray] | None
) -> list[np.ndarray]:
    seen = [metric.looks_at(answers, terms or {}) for metric in metrics]
    for item in seen:
        _same_length(truths, item)
    return [metric.rows(truths, item) for metric, item in zip(metrics, seen, strict=True)]


def _estimates(
    metrics: Sequence[Metric],
    stats: list[np.ndarray],
    weights: np.ndarray,
    units: np.ndarray,
    resamples: int,
    seed: int,
) -> dict[str, Estimate]:
    count, drawable = len(weights), int(units.max()) + 1
    drawn = _bootstrap(metrics, stats, weights, units, resamples, seed)
    out = {}
    for metric, item, values in zip(metrics, stats, drawn, strict=True):
        at = _at(metric, item, weights)
        made = _interval(at, values, count, drawable)
        if 0 <= at <= 1 and (count < 2 or made.low == made.high):
            rows = _independent(metric, item, weights, units)
            if rows > 0:
                made = Estimate(at, *_wilson(at, rows), count)
        out[metric.name] = made
    return out


def _independent(metric: Metric, stats: np.ndarray, weights: np.ndarray, units: np.ndarray) -> float:
    """How many independent rows a share stands on (Kish 1965 for weights and clusters): K^2 / sum(1 / n_k) of the rows
    n_k of its K classes, so that a mean of shares has the variance of one share of so many. 0: the metric is no share."""
    if metric.proportion:
        rows, classes = np.arange(len(stats)), np.zeros(len(stats), np.int64)
    elif metric.shares is not None:
        rows, classes = metric.shares(stats)
    else:
        return 0.0
    counts = []
    for one in np.unique(classes):
        inside = rows[classes == one]
        per_unit = np.bincount(units[inside], weights=weights[inside])
        if per_unit.any():
            counts.append(float(per_unit.sum() ** 2 / np.square(per_unit).sum()))
    return len(counts) ** 2 / sum(1 / count for count in counts) if counts else 0.0


def _at(metric: Metric, stats: np.ndarray, weights: np.ndarray) -> float:
    return float(metric.combine(stats, weights))


def _bootstrap(
    metrics: Sequence[Metric],
    stats: Sequence[np.ndarray],
    weights: np.ndarray,
    units: np.ndarray,
    resamples: int,
    seed: int,
) -> np.ndarray:
    """Values [metric, resample] under weights times how often each row's unit was drawn."""
    out = np.full((len(metrics), resamples), math.nan)
    start = 0
    for counts in _draws(int(units.max()) + 1, len(weights), resamples, seed):
        drawn = counts[:, units] * weights
        stop = start + len(drawn)
        for index, (metric, item) in enumerate(zip(metrics, stats, strict=True)):
            if metric.from_sums is not None:
                out[index, start:stop] = metric.from_sums(drawn @ item)
            else:
                out[index, start:stop] = [metric.combine(item, row) for row in drawn]
        start = stop
    return out


def _draws(units: int, rows: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks [resamples of the block, units]: how often each unit is drawn, with replacement."""
    generator = np.random.default_rng(seed)
    block = max(1, min(resamples, BLOCK_CELLS // max(rows, 1)))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        picked = generator.integers(0, units, size=(size, units)) + units * np.arange(size)[:, None]
        yield np.bincount(picked.ravel(), minlength=size * units).reshape(size, units).astype(np.float64)


def _interval(at: float, drawn: np.ndarray, rows: int, units: int) -> Estimate:
    defined = drawn[np.isfinite(drawn)]
    if not math.isfinite(at) or units < 2 or len(defined) < 2:
        return Estimate(at, math.nan, math.nan, rows)
    tail = _tail(units)
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Estimate(at, min(float(low), at), max(float(high), at), rows)


def _tail(units: int) -> float:
    """Which percentile ends the interval: 2.5 % for many units, further out for few (Hesterberg 2015, section 4.2)."""
    from scipy.special import ndtr, stdtrit

    student = stdtrit(units - 1, (1 - CONFIDENCE) / 2)
    return float(ndtr(student * math.sqrt(units / (units - 1))))


def _wilson(share: float, count: float) -> tuple[float, float]:
    z = 1.959963984540054
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(max(share * (1 - share), 0.0) / count + z * z / (4 * count * count))
    return max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share))


def _weights(weights: Any, count: int) -> np.ndarray:
    made = np.ones(count) if weights is None else np.asarray(weights, dtype=np.float64)
    assert made.shape == (count,), f"{made.shape} weights for {count} rows"
    return made


def _units(clusters: Sequence[Hashable] | None, count: int) -> np.ndarray:
    """For each row the number of the unit it is drawn with."""
    if clusters is None:
        return np.arange(count)
    assert len(clusters) == count, f"{len(clusters)} cluster ids for {count} rows"
    return _ids(clusters, {})


def _members(groups: Sequence[Any]) -> dict[str, np.ndarray]:
    names = [MISSING if group is None else str(group) for group in groups]
    ids: dict[Any, int] = {name: index for index, name in enumerate(sorted(set(names)))}
    numbers = _ids(names, ids)
    return {name: np.flatnonzero(numbers == index) for name, index in ids.items()}


def _same_length(*columns: Sequence[Any]) -> int:
    lengths = {len(column) for column in columns}
    assert len(lengths) == 1, f"truths and answers of different lengths: {sorted(lengths)}"
    return lengths.pop()


def _ids(values: Sequence[Any], known: dict[Any, int]) -> np.ndarray:
    """A number for each value, in the order of appearance; `known` grows."""
    return np.array([known.setdefault(item, len(known)) for item in values], dtype=np.int64)


def _ratio(top: Any, bottom: Any) -> Any:
    """top / bottom, NaN where there is nothing to divide by."""
    top, bottom = np.asarray(top, dtype=np.float64), np.asarray(bottom, dtype=np.float64)
    return np.divide(top, bottom, out=np.full(np.broadcast(top, bottom).shape, math.nan), where=bottom > 0)


def _mean_defined(values: np.ndarray) -> Any:
    """Mean over the last axis of what is defined; NaN where nothing is."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(-1), defined.sum(-1))


def _ratio_of_sums(sums: np.ndarray) -> np.ndarray:
    """Column 0 over column 1."""
    return np.asarray(_ratio(sums[..., 0], sums[..., 1]))


def _of_column(column: int) -> Shares:
    """Every row, in the class that this statistic names."""
    return lambda stats: (np.arange(len(stats)), stats[:, column])


def _where_any(*columns: int) -> Shares:
    """The rows in which one of these statistics is not zero, as one class."""

    def shares(stats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = np.flatnonzero(stats[:, list(columns)].any(1))
        return rows, np.zeros(len(rows), np.int64)

    return shares


# ---- classes ---------------------------------------------------------------------------------------------------


def accuracy() -> Metric:
    """Share of rows whose answer equals the truth (for text: the whole text)."""
    return summable("accuracy", "max", _right, _ratio_of_sums, proportion=True)


def balanced_accuracy() -> Metric:
    """Mean recall over the classes that occur among the truths."""

    def combine(stats: np.ndarray, weights: np.ndarray) -> float:
        right, true, _ = _class_counts(stats, weights)
        return float(_mean_defined(_ratio(right, true)))

    return Metric("balanced_accuracy", "max", _class_ids, combine, shares=_of_column(0))


def macro_f1() -> Metric:
    """Mean F1 over the classes that occur among truths or answers."""

    def combine(stats: np.ndarray, weights: np.ndarray) -> float:
        right, true, said = _class_counts(stats, weights)
        return float(_mean_defined(_ratio(2 * right, true + said)))

    return Metric("macro_f1", "max", _class_ids, combine, shares=_of_column(0))


def f1(positive: Any = True) -> Metric:
    """F1 of one class: the harmonic mean of its precision and recall. Undefined if it neither occurs nor is said."""

    def from_sums(sums: np.ndarray) -> np.ndarray:
        return np.asarray(_ratio(2 * sums[..., 0], sums[..., 1] + sums[..., 2]))

    return summable("f1", "max", _hits(positive), from_sums, shares=_where_any(1))


def precision(positive: Any = True) -> Metric:
    """Share of right ones among the answers that are `positive`. Undefined if none is."""
    return summable(
        "precision", "max", _hits(positive), lambda sums: np.asarray(_ratio(sums[..., 0], sums[..., 2])),
        shares=_where_any(2),
    )  # fmt: skip


def recall(positive: Any = True) -> Metric:
    """Share of the truths that are `positive` and were found. Undefined if none is."""
    return summable(
        "recall", "max", _hits(positive), lambda sums: np.asarray(_ratio(sums[..., 0], sums[..., 1])),
        shares=_where_any(1),
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
        return _with_one(-np.log(np.clip(given, SMALLEST_PROBABILITY, 1.0)))

    return summable("log_loss", "min", rows, _ratio_of_sums)


def brier() -> Metric:
    """Mean squared distance of the probabilities from the truth: (p - y)^2 for two classes, the sum over classes for
    more (Brier 1950)."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        return _with_one([_brier_row(truth, answer) for truth, answer in zip(truths, answers, strict=True)])

    return summable("brier", "min", rows, _ratio_of_sums)


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
        return np.asarray(_ratio(np.abs(sums[..., :-1]).sum(-1), sums[..., -1]))

    return summable("ece", "min", rows, from_sums)


def _right(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
    pairs = zip(truths, answers, strict=True)
    return _with_one([float(_key(truth) == _key(answer.value)) for truth, answer in pairs])


def _with_one(values: Any) -> np.ndarray:
    column = np.asarray(values, dtype=np.float64)
    return np.stack([column, np.ones_like(column)], axis=1)


def _key(item: Any) -> Hashable:
    """A value as something that can be compared and counted."""
    if isinstance(item, np.ndarray | np.generic):
        item = item.tolist()
    return tuple(item) if isinstance(item, list) else item


def _class_ids(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
    known: dict[Any, int] = {}
    true = _ids([_key(truth) for truth in truths], known)
    said = _ids([_key(answer.value) for answer in answers], known)
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
        return float(_mean_defined(np.array([
            _one_against_rest(stats[:, 0] == index, stats[:, 1 + index], weights, area) for index in range(len(classes))
        ])))  # fmt: skip

    return Metric(name, "max", rows, combine, shares=_of_column(0))  # the rest of one class counts as a class too


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
    return float(_ratio((yes * (below + no / 2)).sum(), yes.sum() * no.sum()))


def _average_precision(yes: np.ndarray, no: np.ndarray) -> float:
    """Sum over falling thresholds of (recall step) x precision; ties enter together."""
    found, seen = np.cumsum(yes[::-1]), np.cumsum((yes + no)[::-1])
    if found[-1] <= 0:
        return math.nan
    return float((yes[::-1] * np.nan_to_num(_ratio(found, seen))).sum() / found[-1])


# ---- numbers ---------------------------------------------------------------------------------------------------


def mae(unit: str | None = None) -> Metric:
    """Mean absolute error, over all numbers of a vector."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        true, said = _numbers(truths), _numbers([answer.value for answer in answers])
        return _with_one(np.abs(said - true).mean(1))

    return summable("mae", "min", rows, _ratio_of_sums, unit=unit)


def rmse(unit: str | None = None) -> Metric:
    """Root of the mean squared error; for vectors the mean over their numbers of each one's root."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        true, said = _numbers(truths), _numbers([answer.value for answer in answers])
        return np.concatenate([np.square(said - true), np.ones((len(true), 1))], axis=1)

    def from_sums(sums: np.ndarray) -> np.ndarray:
        return np.asarray(np.sqrt(_ratio(sums[..., :-1], sums[..., -1:])).mean(-1))

    return summable("rmse", "min", rows, from_sums, unit=unit)


def r2() -> Metric:
    """Share of the truths' variance that is explained, 1 - SSE / SST; for vectors the mean over their numbers.
    Undefined where the truths do not vary."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        true, said = _numbers(truths), _numbers([answer.value for answer in answers])
        centred = true - true.mean(0)  # sums of squares of large numbers would cancel
        return np.concatenate([np.square(said - true), centred, np.square(centred), np.ones((len(true), 1))], axis=1)

    def from_sums(sums: np.ndarray) -> np.ndarray:
        error, first, second = np.split(sums[..., :-1], 3, axis=-1)
        count = sums[..., -1:]
        spread = second - np.square(first) / np.where(count > 0, count, 1.0)
        spread = np.where(spread > 1e-12 * second, spread, 0.0)  # rounding of a constant is no variance
        return np.asarray((1 - _ratio(error, spread)).mean(-1))

    return summable("r2", "max", rows, from_sums)


def _numbers(values: Sequence[Any]) -> np.ndarray:
    made = np.array([np.asarray(item, dtype=np.float64).reshape(-1) for item in values], dtype=np.float64)
    return made.reshape(len(values), -1)


# ---- tags ------------------------------------------------------------------------------------------------------


def tags_exact_match() -> Metric:
    """`exact_match`: share of rows whose set of tags is right, every one."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        pairs = zip(truths, answers, strict=True)
        return _with_one([float(frozenset(truth) == frozenset(answer.value)) for truth, answer in pairs])

    return summable("exact_match", "max", rows, _ratio_of_sums, proportion=True)


def tags_micro_f1() -> Metric:
    """`micro_f1`: F1 over all (row, tag) pairs. Undefined if no tag occurs or is said."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        pairs = [(frozenset(truth), frozenset(answer.value)) for truth, answer in zip(truths, answers, strict=True)]
        return np.array([[len(true & said), len(true), len(said)] for true, said in pairs], dtype=np.float64)

    def from_sums(sums: np.ndarray) -> np.ndarray:
        return np.asarray(_ratio(2 * sums[..., 0], sums[..., 1] + sums[..., 2]))

    return summable("micro_f1", "max", rows, from_sums, shares=_where_any(1, 2))


def tags_macro_f1() -> Metric:
    """`macro_f1`: mean F1 over the tags that occur among truths or answers."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        said = [frozenset(answer.value) for answer in answers]
        known: dict[Any, int] = {}
        _ids([tag for row in [*truths, *said] for tag in row], known)
        true_matrix, said_matrix = _membership(truths, known), _membership(said, known)
        return np.concatenate([true_matrix * said_matrix, true_matrix, said_matrix], axis=1)

    def from_sums(sums: np.ndarray) -> np.ndarray:
        right, true, said = np.split(sums, 3, axis=-1)
        return np.asarray(_mean_defined(_ratio(2 * right, true + said)))

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
        return float(_mean_defined(np.array(each)))

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


# ---- text ------------------------------------------------------------------------------------------------------


def wer() -> Metric:
    """Word error rate: substitutions, deletions and insertions per reference word, over all rows together (jiwer)."""
    return summable("wer", "min", _edits("process_words"), _errors_per_unit, shares=_where_any(1))


def cer() -> Metric:
    """Character error rate: the same per reference character, blanks counted (jiwer)."""
    return summable("cer", "min", _edits("process_characters"), _errors_per_unit, shares=_where_any(1))


def _edits(process: str) -> RowStatistics:
    """Errors and reference length of each row. An empty reference is legal: what is said then is all insertions."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        import jiwer

        made = getattr(jiwer, process)([str(truth) for truth in truths], [str(answer.value) for answer in answers])
        errors = [sum(_edit_size(part) for part in row) for row in made.alignments]
        return np.array([errors, [len(row) for row in made.references]], dtype=np.float64).T

    return rows


def _edit_size(part: Any) -> int:
    if part.type == "equal":
        return 0
    return int(max(part.ref_end_idx - part.ref_start_idx, part.hyp_end_idx - part.hyp_start_idx))


def _errors_per_unit(sums: np.ndarray) -> np.ndarray:
    """Errors over reference length; over one if all references are empty, as jiwer has it."""
    length = sums[..., 1]
    return np.asarray(sums[..., 0] / np.where(length > 0, length, 1.0))


def exact_match(normalised: Callable[[str], str] | None = None, name: str = "exact_match") -> Metric:
    """Share of rows whose text is the truth, up to what `normalised` takes away; default: how much white space stands
    between words and around the text. (`accuracy` takes nothing away.)"""
    same = normalised or _spaced

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        pairs = zip(truths, answers, strict=True)
        return _with_one([float(same(str(truth)) == same(str(answer.value))) for truth, answer in pairs])

    return summable(name, "max", rows, _ratio_of_sums, proportion=True)


def _spaced(text: str) -> str:
    return " ".join(text.split())


def lag(unit: str) -> Metric:
    """lag_s or lag_units: how far answers lag behind a stream, in seconds or units of the input, the mean of each row's average
    lagging (Ma et al. 2019), which answers carry as `detail`; rows without a word have none and are left out."""
    key = f"lag_{unit}"

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        found = [answer.detail.get(key) for answer in answers]
        return np.array([[0.0, 0.0] if lag is None else [lag, 1.0] for lag in found]).reshape(-1, 2)

    return summable(key, "min", rows, _ratio_of_sums, unit=unit)


BLEU_ORDER, CHRF_ORDER, CHRF_BETA = 4, 6, 2


def bleu() -> Metric:
    """Corpus BLEU in 0 .. 100 (Papineni et al. 2002) as sacrebleu computes it by default: the 13a tokeniser, case
    kept, exponential smoothing, one reference. Resampling adds up n-gram counts, as Koehn (2004) has it."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        from sacrebleu.metrics.bleu import BLEU

        # effective_order changes a sentence's score, which is not looked at, and not its counts
        scorer = BLEU(effective_order=True)
        pairs = zip(truths, answers, strict=True)
        found = [scorer.sentence_score(str(answer.value), [str(truth)]) for truth, answer in pairs]
        return np.array([[*row.counts, *row.totals, row.sys_len, row.ref_len] for row in found], dtype=np.float64)

    return summable("bleu", "max", rows, _bleu)


def _bleu(sums: np.ndarray) -> np.ndarray:
    """From summed matches and totals of each n-gram length, and both lengths [..., 10]."""
    right, total = sums[..., :BLEU_ORDER], sums[..., BLEU_ORDER : 2 * BLEU_ORDER]
    said, wanted = sums[..., -2], sums[..., -1]
    empty = np.cumsum((right == 0) & (total > 0), axis=-1)  # the k-th length without a match counts as 1 / 2^k matches
    share = np.where(right > 0, right, 0.5**empty) / np.where(total > 0, total, 1.0)
    defined = (total > 0).all(-1) & (right > 0).any(-1)
    penalty = np.exp(np.minimum(0.0, 1 - wanted / np.where(said > 0, said, 1.0)))
    return np.asarray(np.where(defined, 100 * penalty * np.exp(np.log(share).mean(-1)), 0.0))


def chrf() -> Metric:
    """Corpus chrF2 in 0 .. 100 (Popovic 2015) as sacrebleu computes it by default: F-score, recall weighed twice, of
    runs of 1 to 6 characters, white space left out, one reference."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        pairs = zip(truths, answers, strict=True)
        return np.array([_chrf_row(str(answer.value), str(truth)) for truth, answer in pairs], dtype=np.float64)

    return summable("chrf", "max", rows, _chrf)


def _chrf_row(said: str, true: str) -> list[int]:
    """For each length of run: how many the answer has (none where the truth has none), the truth has, and both."""
    said, true = "".join(said.split()), "".join(true.split())
    counts = []
    for size in range(1, CHRF_ORDER + 1):
        ours, wanted = (Counter(text[i : i + size] for i in range(len(text) - size + 1)) for text in (said, true))
        both = sum(min(count, wanted[run]) for run, count in ours.items() if run in wanted)
        counts += [ours.total() if wanted else 0, wanted.total(), both]
    return counts


def _chrf(sums: np.ndarray) -> np.ndarray:
    said, true, both = sums[..., 0::3], sums[..., 1::3], sums[..., 2::3]
    there = (said > 0) & (true > 0)  # only lengths that both have: a short text has no run of six
    count = np.maximum(there.sum(-1), 1)
    precision, recall = (
        (np.where(there, both, 0.0) / np.where(there, whole, 1.0)).sum(-1) / count for whole in (said, true)
    )
    factor = CHRF_BETA**2
    bottom = factor * precision + recall
    return np.asarray(100 * (1 + factor) * precision * recall / np.where(bottom > 0, bottom, 1.0))


# ---- likelihoods -----------------------------------------------------------------------------------------------


def mean_cost(name: str, term: str) -> Metric:
    """The mean of a head's loss term over its units: for what is judged by nothing but its loss."""
    return summable(name, "min", lambda _, pairs: _nats(pairs), _ratio_of_sums, of_term=term)


def perplexity(term: str) -> Metric:
    """exp of the mean negative log-likelihood of a unit of the truth; of a head's loss term in nats per unit. Units
    differ from model to model: `bits_per_byte` and `nats_per_character` do not."""

    def from_sums(sums: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # beyond e^709 it is infinite, and that is the answer
            return np.asarray(np.exp(_ratio_of_sums(sums)))

    return summable("perplexity", "min", lambda _, pairs: _nats(pairs), from_sums, of_term=term)


def bits_per_byte(term: str) -> Metric:
    """Negative log-likelihood in bits over the bytes (UTF-8) of the truths: what a compressor would need. What a
    model spends on saying that a text ends is in the bits, and no byte stands for it."""
    return _per_length("bits_per_byte", term, lambda text: len(text.encode()), math.log(2))


def nats_per_character(term: str) -> Metric:
    """Negative log-likelihood in nats over the characters of the truths, whatever the units are; the end of a text
    as in `bits_per_byte`."""
    return _per_length("nats_per_character", term, len, 1.0)


def _per_length(name: str, term: str, length: Callable[[str], int], nats: float) -> Metric:
    def rows(truths: Sequence[Any], pairs: Sequence[Any]) -> np.ndarray:
        return np.stack([_nats(pairs)[:, 0] / nats, [length(str(truth)) for truth in truths]], axis=1)

    return summable(name, "min", rows, _ratio_of_sums, of_term=term)


def _nats(pairs: Any) -> np.ndarray:
    """(loss per unit, units) of each row as (nats, units)."""
    made = np.asarray(pairs, dtype=np.float64).reshape(-1, 2)
    return np.stack([made[:, 0] * made[:, 1], made[:, 1]], axis=1)


# ---- sound -------------------------------------------------------------------------------------------------------


def mcd() -> Metric:
    """Mel-cepstral distance in dB along the best alignment (Kubichek 1993, with dynamic time warping); the level plays
    no part. An answer without any sound is compared as silence."""
    from endwise.nn.vocoder import mel_cepstral_distance

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        _same_length(truths, answers)
        return _with_one(
            [
                mel_cepstral_distance(truth.samples, answer.value.samples, truth.rate_hz)
                for truth, answer in zip(truths, answers, strict=True)
            ]
        )

    return summable("mcd", "min", rows, _ratio_of_sums, unit="dB")


def duration_error() -> Metric:
    """Mean absolute difference in length."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        _same_length(truths, answers)
        return _with_one(
            [abs(answer.value.seconds - truth.seconds) for truth, answer in zip(truths, answers, strict=True)]
        )

    return summable("duration_error", "min", rows, _ratio_of_sums, unit="s")
