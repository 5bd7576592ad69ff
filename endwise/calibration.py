"""What validation rows teach about an output's answers (learn), and what that is worth on other rows (worth).

Three things are learnt, each from the sureness, the error and the strangeness of answers that a finished network gave:
a confidence that means the share that is right (Platt 1999), or an expected error that is right in the mean; the limit of
split conformal sets (Vovk et al. 2005); and the sureness from which on an output that abstains answers: a quantile for a
coverage; for a risk the lowest threshold whose mean error is tested to stay under it, in fixed sequences (Angelopoulos et al.
2021, "Learn then Test"). Not here:
applying them to an answer (certainty.py), temperatures (`Head.calibrate`).
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from endwise import metrics
from endwise.certainty import EXPECTED, SET_COVERAGE, Abstain, Certainty, log_odds
from endwise.metrics.certainty import aurc, calibration_error, errors_of, mean_error
from endwise.modalities.base import Answer, Contract, Modality

FEWEST = 20  # validation rows; from fewer nothing is learnt but the limit of sets
FLATTEST, STEEPEST, FURTHEST = 0.05, 10.0, 10.0  # of the logistic map
CUTS = 20  # thresholds, by the share of rows that they answer
STARTS = (1, 2, 4, 8, 16)  # of these, from which on they are tested for a risk, one after the other until one fails
DOUBT = 0.1  # chance that the risk is not kept
CURVE_POINTS = 20


@dataclass
class Measured:
    """Answers of one output as they come, batch after batch; the answers themselves are not kept."""

    item: Modality
    contract: Contract
    sureness: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    strangeness: list[float | None] = field(default_factory=list)
    expected: list[Any] = field(default_factory=list)  # of an output that expects an error of itself
    missed: list[Any] = field(default_factory=list)

    def add(self, truths: Sequence[Any], answers: Sequence[Answer]) -> None:
        """More of them, as `Modality.write` gave them."""
        self.sureness += [self.item.sureness(answer, self.contract) for answer in answers]
        self.errors += row_errors(self.item, self.contract, truths, answers).tolist()
        pairs = zip(truths, answers, strict=True)
        self.strangeness += [self.item.strangeness(truth, answer, self.contract) for truth, answer in pairs]
        if self.item.expects_error:
            self.expected += [answer.detail[EXPECTED] for answer in answers]
            self.missed += [self.item.missed(truth, answer) for truth, answer in zip(truths, answers, strict=True)]

    def learnt(self, *, scaled: bool) -> Certainty:
        """What they teach. scaled: the head has a temperature of its own, and confidence stays as it is."""
        sure, errors = np.array(self.sureness), np.array(self.errors)
        there = np.isfinite(errors)
        sure, errors = sure[there], errors[there]
        scale: float | list[float] | None = None
        shift = 0.0
        if self.item.error_is_share and not scaled and len(sure) >= FEWEST:
            scale, shift = logistic_map(sure, errors)
        if self.item.expects_error and len(sure) >= FEWEST:
            scale = error_factor(np.array(self.expected), np.array(self.missed))
        found = Certainty(rows=len(sure), scale=scale, shift=shift, limit=conformal_limit(self.strangeness))
        if self.item.abstain is None:
            return found
        gives, at_least = threshold(sure, errors, self.item.abstain, share=self.item.error_is_share)
        return Certainty(**{**found.to_dict(), "gives": gives, "at_least": at_least})


def row_errors(item: Modality, contract: Contract, truths: Sequence[Any], answers: Sequence[Answer]) -> np.ndarray:
    """How wrong each answer is by the output's `risk`, at most 1 where that is a share; NaN where nothing can be said."""
    found = errors_of(item.risk(contract), truths, answers)
    return np.clip(found, 0.0, 1.0) if item.error_is_share else found


# ---- learning --------------------------------------------------------------------------------------------------------


def logistic_map(sureness: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    """(scale, shift) of the log-odds of a sureness in [0, 1] for which the mean of 1 - error is most likely, with Platt's
    smoothed targets. The scale is above 0: the order stays."""
    from scipy.optimize import minimize
    from scipy.special import expit

    odds = np.array([log_odds(float(item)) for item in sureness])
    count = len(odds)
    right = ((1 - errors) * count + 1) / (count + 2)

    def cost(at: np.ndarray) -> tuple[float, np.ndarray]:
        said = at[0] * odds + at[1]
        wrong = expit(said) - right
        return float((np.logaddexp(0, said) - right * said).mean()), np.array([(wrong * odds).mean(), wrong.mean()])

    found = minimize(cost, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B",
                     bounds=[(FLATTEST, STEEPEST), (-FURTHEST, FURTHEST)])  # fmt: skip
    return float(found.x[0]), float(found.x[1])


def error_factor(expected: np.ndarray, missed: np.ndarray) -> float | list[float] | None:
    """By what expected errors [row] or [row, channel] are to be multiplied to be right in the mean, of several channels each by
    its own: a network expects of all rows what it met on those that it learnt from. None where nothing was expected, or nothing
    was wrong; one such channel among others stays as it is."""
    foreseen, met = expected.mean(0), missed.mean(0)
    told = np.isfinite(foreseen) & np.isfinite(met) & (foreseen > 0) & (met > 0)
    if not told.any():
        return None
    found: float | list[float] = np.where(told, met / np.where(told, foreseen, 1.0), 1.0).tolist()
    return found


def conformal_limit(strangeness: Sequence[float | None], coverage: float = SET_COVERAGE) -> float | None:
    """The strangeness that the truth of a further row does not exceed with this chance, if it comes from where these came
    from. None: too few rows, no set, or too many truths that no set can hold."""
    if not strangeness or any(item is None for item in strangeness):
        return None
    ordered = sorted(item for item in strangeness if item is not None)
    rank = math.ceil((len(ordered) + 1) * coverage)
    limit = ordered[rank - 1] if rank <= len(ordered) else math.inf
    return limit if math.isfinite(limit) else None


def threshold(sureness: np.ndarray, errors: np.ndarray, abstain: Abstain, *, share: bool) -> tuple[str, float]:
    """(what is given, the least sureness of it). Under 20 rows, and where no threshold keeps the risk, nothing is given."""
    count = len(sureness)
    if count < FEWEST:
        return "none", 0.0
    ordered = np.sort(sureness)
    if abstain.coverage is not None:
        return _cut(ordered, math.floor((count + 1) * (1 - abstain.coverage)))
    assert abstain.risk is not None
    by_sureness = errors[np.argsort(-sureness, kind="stable")]
    cuts = [_cut(ordered, count - math.ceil(count * part / CUTS)) for part in range(1, CUTS + 1)]
    kept = [by_sureness[: count if gives == "all" else int((sureness >= least).sum())] for gives, least in cuts]
    safe = [chance_above(part, abstain.risk, share=share) <= DOUBT / len(STARTS) for part in kept]
    reached = 0
    for start in STARTS:
        passed = safe[start - 1 :]
        run = passed.index(False) if False in passed else len(passed)
        reached = max(reached, start - 1 + run if run else 0)
    return cuts[reached - 1] if reached else ("none", 0.0)


def _cut(ordered: np.ndarray, withheld: int) -> tuple[str, float]:
    """The threshold that withholds so many of the least sure, halfway to the next; equally sure ones are given."""
    if withheld <= 0:
        return "all", 0.0
    return "some", float((ordered[withheld - 1] + ordered[min(withheld, len(ordered) - 1)]) / 2)


def chance_above(errors: np.ndarray, risk: float, *, share: bool) -> float:
    """How probable errors as small as these are where their mean is above `risk`: exact for right or wrong, Hoeffding's and
    Bentkus' bound for other shares (Bates et al. 2021), else Student's t."""
    from scipy import stats

    count, mean = len(errors), float(errors.mean())
    if share and risk >= 1:
        return 0.0
    if share and np.isin(errors, (0.0, 1.0)).all():
        return float(stats.binom.cdf(round(errors.sum()), count, risk))
    if share:
        of_sum = math.e * float(stats.binom.cdf(math.ceil(count * mean), count, risk))
        return min(1.0, math.exp(-count * _divergence(min(mean, risk), risk)), of_sum)
    deviation = float(errors.std(ddof=1)) if count > 1 else math.inf
    if deviation == 0:
        return 0.0 if mean < risk else 1.0
    return float(stats.t.cdf((mean - risk) / deviation * math.sqrt(count), max(1, count - 1)))


def _divergence(one: float, other: float) -> float:
    """Of two coins."""
    parts = ((one, other), (1 - one, 1 - other))
    return sum(p * math.log(p / q) for p, q in parts if p > 0)


# ---- what it is worth ------------------------------------------------------------------------------------------------


def worth(
    item: Modality, contract: Contract, learnt: Certainty | None, truths: Sequence[Any], answers: Sequence[Answer],
    sureness: np.ndarray, uncalibrated: Sequence[Answer], *, clusters: Sequence[Hashable] | None,
    weights: np.ndarray | None, resamples: int,
) -> dict[str, Any]:  # fmt: skip
    """{"risk", "error", "aurc", "calibration_error": {"before", "after"}, "set": {"coverage", "size"}, "abstains": {"declared",
    "answered", "error"}, "curve": [{"coverage", "error", "low", "high", "n"}]} of answered rows, each where there is one.

    answers: judged, none withheld; sureness: of each; uncalibrated: the same answers without temperature and map."""
    errors = row_errors(item, contract, truths, answers)
    there = np.isfinite(errors)
    if not there.any():
        return {}
    name = _named(item.risk(contract))
    own = None if weights is None else weights[there]
    rows = _Rows(errors[there], sureness[there], _of(clusters, there), own, resamples)
    found: dict[str, Any] = {
        "risk": name,
        "error": rows.mean(name),
        "aurc": metrics.estimate(aurc(), rows.errors.tolist(), rows.sureness.tolist(), **rows.shared),
        "curve": rows.curve(name),
    }
    if item.error_is_share and all(answer.confidence is not None for answer in answers):
        sides = {"before": uncalibrated, "after": answers}
        found["calibration_error"] = {
            side: _calibration(item, contract, truths, given, there, rows) for side, given in sides.items()
        }
    if learnt is not None and learnt.limit is not None:
        found["set"] = _sets(item, contract, learnt.limit, truths, answers, there, rows)
    if item.abstain is not None:
        found["abstains"] = _abstained(item.abstain, learnt, rows, name)
    return found


def _named(metric: metrics.Metric) -> str:
    return f"1 - {metric.name}" if metric.direction == "max" else metric.name


def _of(clusters: Sequence[Hashable] | None, there: np.ndarray) -> list[Hashable] | None:
    return None if clusters is None else [clusters[row] for row in np.flatnonzero(there).tolist()]


@dataclass(frozen=True)
class _Rows:
    errors: np.ndarray
    sureness: np.ndarray
    clusters: list[Hashable] | None
    weights: np.ndarray | None
    resamples: int

    @property
    def shared(self) -> dict[str, Any]:
        return {"clusters": self.clusters, "weights": self.weights, "resamples": self.resamples}

    def mean(self, name: str, kept: np.ndarray | None = None, values: np.ndarray | None = None) -> metrics.Estimate:
        """The mean error (or of other values) of some rows."""
        kept = np.ones(len(self.errors), dtype=bool) if kept is None else kept
        chosen = (self.errors if values is None else values)[kept]
        proportion = bool(np.isin(chosen, (0.0, 1.0)).all())
        return metrics.estimate(
            mean_error(name, proportion=proportion), chosen, chosen, clusters=_of(self.clusters, kept), resamples=self.resamples,
            weights=None if self.weights is None else self.weights[kept],
        )  # fmt: skip

    def curve(self, name: str) -> list[dict[str, Any]]:
        """The mean error of the surest, from few to all; one point where many are equally sure."""
        found, ordered, last = [], np.sort(self.sureness)[::-1], -1
        for part in range(1, CURVE_POINTS + 1):
            kept = self.sureness >= ordered[math.ceil(len(ordered) * part / CURVE_POINTS) - 1]
            if int(kept.sum()) != last:
                last = int(kept.sum())
                at = self.mean(name, kept).to_dict()
                found.append({"coverage": last / len(kept), "error": at.pop("value"), **at})
        return found


def _calibration(
    item: Modality, contract: Contract, truths: Sequence[Any], answers: Sequence[Answer], there: np.ndarray, rows: _Rows
) -> metrics.Estimate:
    wrong = row_errors(item, contract, truths, answers)[there]
    sure = [float(answer.confidence or 0.0) for answer, kept in zip(answers, there, strict=True) if kept]
    return metrics.estimate(calibration_error(), wrong, sure, **rows.shared)


def _sets(
    item: Modality, contract: Contract, limit: float, truths: Sequence[Any], answers: Sequence[Answer], there: np.ndarray,
    rows: _Rows,
) -> dict[str, Any]:  # fmt: skip
    strange = [item.strangeness(truth, answer, contract) for truth, answer in zip(truths, answers, strict=True)]
    holds = np.array([float(value is not None and value <= limit) for value in strange])[there]
    sizes = np.array([float(len(answer.detail["set"])) for answer in answers])[there]
    coverage, size = (rows.mean(name, values=values) for name, values in (("coverage", holds), ("size", sizes)))
    return {"nominal": SET_COVERAGE, "coverage": coverage, "size": size}


def _abstained(abstain: Abstain, learnt: Certainty | None, rows: _Rows, name: str) -> dict[str, Any]:
    kept = np.array([learnt is not None and not learnt.withholds(float(item)) for item in rows.sureness])
    return {
        "declared": abstain.to_dict(),
        "answered": rows.mean("answered", values=kept.astype(np.float64)),
        "error": rows.mean(name, kept) if kept.any() else None,
    }
