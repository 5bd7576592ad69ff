"""Advice before money is spent: is one end-to-end network the thing to train, or a pipeline, or others' weights, or
nothing before more labels are there?

`advise(recipe)` trains the recipe's network and its rivals on nested parts of the labels, all on the same rows and
scored on the same test rows, for at most three times what one training costs; fits a learning curve with an interval to
each; and decides by the rule in `decide.py`. Here: the verb and its result. `question.py` checks what is asked, `arms.py` lists the rivals, `schedule.py`
says which trainings are bought, `endwise/curves.py` extrapolates, `report/advice.py` draws.

What it cannot know: rivals that are not listed, tuning that was not done, rows unlike the test rows. Advice about more
labels holds for labels of the same kind.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from endwise import curves, metrics
from endwise.advise import arms as rivals
from endwise.advise.arms import Arm, Scored, Task
from endwise.advise.decide import (
    CANNOT_TELL,
    MARGIN_SHARE,
    Standing,
    Verdict,
    decide,
    labels_to_decide,
    parse_needs,
    widened,
)
from endwise.advise.question import PLAN, Question
from endwise.advise.schedule import FREE_S, LIMIT, PLANNED, Training, planned
from endwise.advise.words import headline, lines
from endwise.baselines import MAX_FIT_ROWS
from endwise.curves import FARTHEST, Curve, Observation
from endwise.data.dataset import fit_contracts, prepare
from endwise.errors import EndwiseError, RecipeError, require
from endwise.files import plain, write_json
from endwise.metrics import Estimate, Metric
from endwise.recipe import Recipe, seconds_of
from endwise.run import RUNS, Run, default_path
from endwise.train import Stopped

FRACTIONS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
SEEDS = 3
FEWEST_LABELS = 8  # of a subset
SHOWN = (1, 2, 4, 8)  # times the labels at hand
TRAININGS = "trainings"

Progress = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Advice:
    """The frozen result; `to_dict()` is the documented JSON, `str()` the page for a terminal of 80 columns.

    labels_to_target: of each arm; empty without a target. curve: what was measured and what is foreseen. differences:
    how much better the first arm is than the second at the labels that count. reasons say why, in words.
    """

    name: str
    advice: str
    headline: str
    arm: str | None
    reasons: tuple[str, ...]
    output: str
    metric: str
    direction: Literal["min", "max"]
    labels_at_hand: int
    labels: int
    test_rows: int
    margin: float
    arms: Mapping[str, Mapping[str, Any]]
    differences: tuple[Mapping[str, Any], ...]
    labels_to_target: Mapping[str, Any]
    curve: tuple[Mapping[str, Any], ...]
    crossings: tuple[Mapping[str, Any], ...]
    label_more: int | None
    would_change: str
    cost: Mapping[str, Any]
    notes: tuple[str, ...]
    folder: str

    def to_dict(self) -> dict[str, Any]:
        """{"advice": "end-to-end|pretrained|pipeline|cannot-tell", "reasons": [..], "labels_to_target": {arm: {..}},
        "curve": [{"arm", "labels", "value", "low", "high", "measured"}], ...}: plain JSON values."""
        found: dict[str, Any] = plain(dataclasses.asdict(self))
        return found

    def __str__(self) -> str:
        return "\n".join(lines(self.to_dict()))


def advise(
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    target: Mapping[str, float] | None = None,
    labels: int | None = None,
    price_per_label: float | None = None,
    needs: Sequence[str] = (),
    seeds: int = SEEDS,
    fractions: Sequence[float] = FRACTIONS,
    budget: float | str | None = None,
    margin: float | None = None,
    weights: Mapping[str, str] | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Advice:
    """What to train on this data, and whether to label more first.

    target: {metric: value} to reach; its metric is then what arms are compared by, otherwise the recipe's goal. labels:
    how many the user could get; default: those at hand. needs: 'audit', 'reuse', 'latency_ms=20', 'train_s=600'. seeds,
    fractions: at most so many trainings, on these parts of the labels; fewer where all would cost more than three times
    one training, or than `budget` (seconds, or text such as 10m). margin: what difference does not matter, in the
    metric. weights: {input: source} of a pretrained rival, as in a recipe. out: the folder, default
    runs/<recipe>-advice; an existing one is refused unless `resume`, which makes no training twice.
    """
    question = Question(recipe, target, labels, price_per_label, needs, seeds, fractions, budget, margin, weights or {})
    folder = Path(out) if out is not None else Path(RUNS) / f"{default_path(recipe).name}-advice"
    there = question.begun(folder, resume=resume)
    say = progress or (lambda event: None)
    dataset = prepare(
        recipe, progress=lambda what, done, total: say({"event": "prepare", "what": f"reading {what}", "done": done, "total": total})
    )  # fmt: skip
    run = Run(folder)
    if there is not None:  # what is scored is not scored again
        run.same_data(dataset.fingerprint)
    contracts = fit_contracts(recipe, dataset)
    task = rivals.settle(recipe, dataset, *question.judged_by(contracts), contracts, question.weights, say)
    say({"event": "note", "message": "measuring what a training costs"})
    arms, notes = rivals.arms(task)
    plan = there if there is not None else _planned(task, arms, question)
    run.write("data.json", {"fingerprint": dataset.fingerprint})
    run.write(PLAN, plan)
    scored, spent = _trained(task, arms, plan, folder, question)
    judged = _Judged(task, {name: arms[name] for name in arms if any(key[0] == name for key in scored)}, scored)
    cost = {"one_training_s": plan["one_s"], "planned_s": plan["planned_s"], **spent}
    advice = _advice(judged, question, cost, (*task.notes, *notes, *plan["notes"]), folder)
    from endwise.report.advice import RESULT, build

    write_json(folder / RESULT, advice.to_dict())
    build(folder)
    return advice


# ---- trainings ---------------------------------------------------------------------------------------------------------


def _sizes(task: Task, question: Question) -> dict[tuple[float, int], int]:
    """{(share, seed): labels}, without parts that are too small or the same as another."""
    found: dict[tuple[float, int], int] = {}
    for seed in range(question.seeds):
        seen = set()
        for share, rows in zip(question.fractions, task.parts(question.fractions, seed), strict=True):
            if len(rows) >= FEWEST_LABELS and len(rows) not in seen:
                seen.add(len(rows))
                found[share, seed] = len(rows)
    first = {labels for (_, seed), labels in found.items() if seed == 0}
    require(
        len(first) >= curves.FEWEST_SIZES, field="data", got=f"{len(task.pool)} rows to learn from",
        allowed=f"enough for {curves.FEWEST_SIZES} parts of at least {FEWEST_LABELS}",
        fix="label more rows, or give larger --fractions", error=RecipeError,
    )  # fmt: skip
    return found


def _planned(task: Task, arms: Mapping[str, Arm], question: Question) -> dict[str, Any]:
    """plan.json: the trainings that are bought, and for how much."""
    sizes, budget = _sizes(task, question), seconds_of(question.budget)

    def offer(more: float) -> dict[str, list[Training]]:
        return {name: arm.offer(sizes, more) for name, arm in arms.items()}

    own = arms[next(iter(arms))]
    one = max(own.offer(sizes, 1.0), key=lambda item: item.labels).seconds
    limit = min(max(PLANNED * one, FREE_S), budget or math.inf)
    taken, notes = planned(offer, one, limit_s=limit)
    seconds = sum(item.seconds for item in taken)
    if seconds > limit:
        notes.append(f"a curve of three parts alone takes {seconds / one:.1f}x one training")
    return {
        "asked": question.to_dict(), "one_s": one, "planned_s": seconds, "limit_s": min(max(LIMIT * one, FREE_S), budget or math.inf),
        "notes": notes, "trainings": [item.to_dict() for item in taken],
    }  # fmt: skip


Results = dict[tuple[str, int, int], Scored]  # (arm, labels, seed)


def _trained(
    task: Task, arms: Mapping[str, Arm], plan: Mapping[str, Any], folder: Path, question: Question
) -> tuple[Results, dict[str, Any]]:
    """Every planned training, one after another; those the clock does not allow any more are left out and told."""
    trainings = [Training(**item) for item in plan["trainings"] if item["arm"] in arms]
    parts = {
        (share, seed): rows
        for seed in range(question.seeds)
        for share, rows in zip(question.fractions, task.parts(question.fractions, seed), strict=True)
    }
    own = next(iter(arms))
    done: Results = {}
    failed: dict[str, str] = {}
    skipped, spent = [], 0.0
    for number, item in enumerate(trainings, 1):
        expected = max(item.seconds, _expected(done, item))
        if item.arm in failed:
            continue
        if item.optional and spent + expected > plan["limit_s"]:
            skipped.append(item.name)
            continue
        task.say(
            {
                "event": "note",
                "message": f"{number} of {len(trainings)}: {item.arm}, {item.labels} labels, seed {item.seed}",
            }
        )
        try:
            rows = parts[item.share, item.seed]
            scored = arms[item.arm].score(item, rows, folder / TRAININGS / item.name)
        except Stopped as stop:
            raise Stopped(
                f"stopped after {len(done)} of {len(trainings)} trainings. Go on with the same command and --resume "
                f"--out {folder}", stop.exit_code,
            ) from None  # fmt: skip
        except EndwiseError as wrong:
            if item.arm == own:
                raise
            failed[item.arm] = str(wrong)
            continue
        done[item.arm, item.labels, item.seed] = scored
        spent += scored.seconds
    notes = [f"{arm} could not be followed to its end: {reason}" for arm, reason in failed.items()]
    notes += [f"left out, since the clock did not allow them: {', '.join(skipped)}"] if skipped else []
    return done, {"spent_s": spent, "trainings": len(done), "notes": notes}


def _expected(done: Results, item: Training) -> float:
    """Seconds by the nearest training of the same arm; for arms whose cost is not planned."""
    own = [(labels, scored.seconds) for (arm, labels, _), scored in done.items() if arm == item.arm]
    if not own:
        return 0.0
    labels, seconds = min(own, key=lambda pair: abs(math.log(pair[0] / item.labels)))
    return seconds * max(1.0, item.labels / labels)


# ---- judging -----------------------------------------------------------------------------------------------------------


def bounds(metric: Metric) -> tuple[float | None, float | None]:
    """Between what a metric can be; None where it has no bound."""
    if metric.name in ("bleu", "chrf"):
        return 0.0, 100.0
    if metric.name == "r2":
        return None, 1.0
    if metric.direction == "min":
        return 0.0, None
    shares = metric.proportion or metric.shares is not None or metric.name.startswith("recall@")
    return (0.0, 1.0) if shares else (None, None)


class _Judged:
    """What was measured, as numbers: curves, values and differences of arms."""

    def __init__(self, task: Task, arms: Mapping[str, Arm], scored: Results) -> None:
        self.task, self.scored = task, scored
        self.metric = task.metric
        self.trivial_stats = rivals.trivial(task)
        self.identity = dataclasses.replace(task.metric, rows=_given)
        self.arms = {
            name: arm for name, arm in arms.items()
            if len({labels for own, labels, _ in scored if own == name}) >= curves.FEWEST_SIZES
        }  # fmt: skip
        self.lost = [name for name in arms if name not in self.arms]
        low, high = bounds(task.metric)
        self.curves: dict[str, Curve] = {
            name: curves.fit(self.observations(name), direction=task.metric.direction, low=low, high=high)
            for name in self.arms
        }
        self.hand = max(labels for _, labels, _ in scored)

    def observations(self, arm: str) -> list[Observation]:
        """Of an arm. A classical model is fitted on at most MAX_FIT_ROWS rows, whatever there is."""
        most = MAX_FIT_ROWS if self.arms[arm].cost is None else math.inf
        return [
            Observation(int(min(labels, most)), seed, self.value(found))
            for (own, labels, seed), found in self.scored.items()
            if own == arm
        ]

    def value(self, found: Scored) -> float:
        return metrics.value(
            self.identity, self.task.truths, list(found.statistics), weights=self.task.shared()["weights"]
        )

    def stats(self, arm: str) -> np.ndarray | None:
        """The first seed's statistics with all labels at hand; None where the arm was not trained on them."""
        found = self.scored.get((arm, self.hand, 0))
        return None if found is None else found.statistics

    def paired(self, first: np.ndarray, second: np.ndarray) -> Estimate:
        """How much better the first is, on the same test rows."""
        sides = (first, second) if self.metric.direction == "max" else (second, first)
        return metrics.difference(self.identity, self.task.truths, *map(list, sides), **self.task.shared())

    def gain(self, first: str, second: str, labels: int) -> tuple[Estimate, Estimate | None]:
        """(how much better the first is at so many labels, the paired part of it where it was measured)."""
        one, other = self.stats(first), self.stats(second)
        if labels == self.hand and one is not None and other is not None:
            paired = self.paired(one, other)
            return widened(paired, math.hypot(self.curves[first].spread, self.curves[second].spread)), paired
        far = curves.difference(self.curves[first], self.curves[second], self.within(labels))
        if self.metric.direction == "min":
            far = Estimate(-far.value, -far.high, -far.low, far.n)
        return far, None

    def within(self, labels: int) -> int:
        """At most what every curve can be asked."""
        return min(labels, *(round(FARTHEST * curve.largest) for curve in self.curves.values()))

    def standing_value(self, arm: str, labels: int) -> Estimate:
        own = self.stats(arm)
        if labels == self.hand and own is not None:
            return metrics.estimate(self.identity, self.task.truths, list(own), **self.task.shared())
        return self.curves[arm].at(self.within(labels))


def _given(_: Sequence[Any], statistics: Sequence[Any]) -> np.ndarray:
    return np.asarray(statistics)


def _advice(judged: _Judged, question: Question, cost: Mapping[str, Any], notes: Sequence[str], folder: Path) -> Advice:
    task, target, needs = judged.task, question.wanted, parse_needs(question.needs)
    counted, told = _counted(judged, question.labels)
    values = {name: judged.standing_value(name, counted) for name in judged.arms}
    trivial_value = judged.value(Scored(judged.trivial_stats, 0.0, None, {}))
    step = question.margin if question.margin is not None else _margin(values, trivial_value)
    standings = [_standing(judged, name, values[name], trivial_value, needs, target, counted) for name in judged.arms]
    gains, pairs = {}, {}
    for first in judged.arms:
        for second in judged.arms:
            if first != second:
                gains[first, second], pairs[first, second] = judged.gain(first, second, counted)
    verdict = decide(standings, gains, step, task.metric.name)
    more = _label_more(verdict, judged, gains, pairs, step, counted)
    crossed = _crossings(judged)
    reasons = [*verdict.reasons, *_reasons(judged, target, crossed)]
    if more is not None:
        reasons.append(f"label {more:,} more and ask again")
    to_target = {} if target is None else _to_target(judged, target, question.price_per_label)
    return Advice(
        name=question.recipe.name or "recipe", advice=verdict.advice,
        headline=headline(verdict.advice, more), arm=verdict.arm, reasons=tuple(reasons), output=task.output,
        metric=task.metric.name, direction=task.metric.direction, labels_at_hand=judged.hand, labels=counted,
        test_rows=len(task.test_rows), margin=step,
        arms={item.name: _described(judged, item, trivial_value) for item in standings},
        differences=tuple(
            {"first": first, "second": second, "labels": counted, "better_by": gain.to_dict(), "paired": pairs[first, second] is not None}
            for (first, second), gain in gains.items()
            if list(judged.arms).index(first) < list(judged.arms).index(second)
        ),
        labels_to_target=to_target, curve=tuple(_curve(judged, counted)), crossings=tuple(crossed), label_more=more,
        would_change=_would_change(verdict, crossed, step, judged),
        cost=_cost(cost, judged), notes=(*notes, *told, *cost["notes"], *_curve_notes(judged)), folder=str(folder),
    )  # fmt: skip


def _counted(judged: _Judged, labels: int | None) -> tuple[int, list[str]]:
    """How many labels the arms are compared at, where so many are asked about; and why it is another number."""
    notes = []
    counted = labels or judged.hand
    if counted < judged.hand:
        notes.append(f"{judged.hand} labels are at hand, more than the {counted} asked about: those at hand count")
        counted = judged.hand
    within = judged.within(counted)
    if within < counted:
        notes.append(f"{counted} labels are more than {FARTHEST:g} times what was measured: {within} count")
    return within, notes


def _margin(values: Mapping[str, Estimate], trivial_value: float) -> float:
    """A share of the way from a constant answer to the best arm."""
    ways = [abs(item.value - trivial_value) for item in values.values() if math.isfinite(item.value)]
    way = max(ways) if ways and math.isfinite(trivial_value) else max(abs(item.value) for item in values.values())
    return MARGIN_SHARE * way


def _standing(
    judged: _Judged, name: str, value: Estimate, trivial_value: float, asked: Mapping[str, float | None],
    target: float | None, labels: int,
) -> Standing:  # fmt: skip
    arm, sign = judged.arms[name], 1 if judged.metric.direction == "max" else -1
    own = judged.stats(name)
    if own is not None and labels == judged.hand:
        beats = judged.paired(own, judged.trivial_stats).low > 0
    else:
        worst = value.low if sign > 0 else value.high
        beats = not math.isfinite(trivial_value) or sign * (worst - trivial_value) > 0
    reaches = None if target is None else sign * (value.value - target) >= 0
    return Standing(name, arm.advice, arm.simplicity, value, beats, _fails(judged, name, asked), reaches)


def _fails(judged: _Judged, name: str, asked: Mapping[str, float | None]) -> str | None:
    """Which need it does not meet; what was not measured is not met."""
    arm = judged.arms[name]
    if "audit" in asked and not arm.audit:
        return "audit: it has no intermediate answers to look at"
    if "reuse" in asked and not arm.reuse:
        return "reuse: none of its parts is of use elsewhere"
    measured = {"latency_ms": _latency(judged, name), "train_s": _train_s(judged, name)}
    for need, most in asked.items():
        if most is not None:
            found = measured[need]
            if found is None:
                return f"{need}: not measured for it"
            if found > most:
                return f"{need}: {found:.3g} > {most:g}"
    return None


def _largest(judged: _Judged, name: str) -> Scored:
    return judged.scored[max((key for key in judged.scored if key[0] == name), key=lambda key: (key[1], -key[2]))]


def _latency(judged: _Judged, name: str) -> float | None:
    return _largest(judged, name).latency_ms


def _train_s(judged: _Judged, name: str) -> float:
    found = _largest(judged, name)
    return found.seconds + found.shared_s


def _described(judged: _Judged, item: Standing, trivial_value: float) -> dict[str, Any]:
    """An arm for people and programs."""
    arm, curve = judged.arms[item.name], judged.curves[item.name]
    return {
        "advice": item.advice, "about": arm.about, "value": item.value.to_dict(), "fails": item.fails,
        "trivial": trivial_value, "beats_trivial": item.beats_trivial, "latency_ms": _latency(judged, item.name),
        "train_s": _train_s(judged, item.name), "audit": arm.audit, "reuse": arm.reuse,
        "labels_per_row": arm.labels_per_row,
        "families": dict(curve.weights), "largest": curve.largest,
    }  # fmt: skip


def _label_more(
    verdict: Verdict, judged: _Judged, gains: Mapping[tuple[str, str], Estimate],
    pairs: Mapping[tuple[str, str], Estimate | None], margin: float, counted: int,
) -> int | None:  # fmt: skip
    """How many more labels would decide; None where the advice is given, or where labels are not what is missing."""
    if verdict.advice != CANNOT_TELL:
        return None
    if verdict.rivals is None:
        return judged.hand if len(judged.arms) > 1 else None
    found, paired = gains[verdict.rivals], pairs[verdict.rivals]
    return labels_to_decide(
        found, paired or found, margin, labels=judged.hand, test_rows=len(judged.task.test_rows), wanted=counted
    )


def _crossings(judged: _Judged) -> list[dict[str, Any]]:
    """Where each pair's curves cross, or that it was not seen."""
    names, found = list(judged.arms), []
    for at, first in enumerate(names):
        for second in names[at + 1 :]:
            crossed = curves.crossing(judged.curves[first], judged.curves[second])
            leader = first if crossed.leader == "first" else second
            found.append({**crossed.to_dict(), "first": first, "second": second, "leader": leader})
    return found


def _reasons(judged: _Judged, target: float | None, crossed: Sequence[Mapping[str, Any]]) -> list[str]:
    found = []
    for item in crossed:
        pair = f"{item['first']} and {item['second']}"
        if item["labels"] is None:
            found.append(f"the curves of {pair} are not seen to cross up to {item['looked_to']:,} labels")
        else:
            at = item["labels"]
            found.append(
                f"the curves of {pair} cross at {at['value']:,.0f} labels [{at['low']:,.0f} to {at['high']:,.0f}]; "
                f"{item['leader']} is ahead after that"
            )
    if target is not None:
        found += [f"{name}: {curve.labels_for(target)}" for name, curve in judged.curves.items()]
    dear = {name: arm.labels_per_row for name, arm in judged.arms.items() if arm.labels_per_row > 1}
    if dear:
        said = "; ".join(f"{name} {each:.3g}" for name, each in dear.items())
        found.append(f"labels of a row, those of answers on the way included: {said}; the others 1")
    return found


def _to_target(judged: _Judged, target: float, price: float | None) -> dict[str, Any]:
    """Of each arm: the state, the labels, how many more than at hand, and what these cost."""
    found: dict[str, Any] = {}
    for name, curve in judged.curves.items():
        reach = curve.labels_for(target)
        item: dict[str, Any] = reach.to_dict()
        if reach.labels is not None:
            more = _shifted(reach.labels, judged.hand)
            item["more"] = more.to_dict()
            if price is not None:
                each = price * judged.arms[name].labels_per_row
                item["cost"] = Estimate(more.value * each, more.low * each, more.high * each, more.n).to_dict()
        found[name] = item
    return found


def _shifted(labels: Estimate, hand: int) -> Estimate:
    """Labels beyond those at hand: nobody buys a part of one."""
    value, low, high = (
        float(math.ceil(max(0.0, item - hand))) if math.isfinite(item) else item
        for item in (labels.value, labels.low, labels.high)
    )
    return Estimate(value, low, high, labels.n)


def _curve(judged: _Judged, counted: int) -> list[dict[str, Any]]:
    """What was measured, and what is foreseen at multiples of the labels at hand."""
    found = []
    for name, curve in judged.curves.items():
        values: dict[int, list[float]] = {}
        for item in curve.observations:
            values.setdefault(item.labels, []).append(item.value)
        for labels, seeds in values.items():
            at = curve.at(labels)
            found.append(
                {"arm": name, "labels": labels, "value": float(np.mean(seeds)), "low": at.low, "high": at.high,
                 "measured": True, "seeds": seeds}
            )  # fmt: skip
        ahead = sorted({judged.within(times * judged.hand) for times in SHOWN} | {counted})
        for labels in (item for item in ahead if item > curve.largest):
            at = curve.at(labels)
            found.append(
                {"arm": name, "labels": labels, "value": at.value, "low": at.low, "high": at.high, "measured": False}
            )
    return found


def _curve_notes(judged: _Judged) -> list[str]:
    notes = [f"{name}: {note}" for name, curve in judged.curves.items() for note in curve.notes]
    return notes + [f"{name} was measured on too few parts for a curve and is left out" for name in judged.lost]


def _cost(facts: Mapping[str, Any], judged: _Judged) -> dict[str, Any]:
    """Planned and spent, in seconds and in trainings. One training is the recipe's own on all labels at hand."""
    own = next(iter(judged.arms))
    whole = judged.scored.get((own, judged.hand, 0))
    one = facts["one_training_s"] if whole is None else whole.seconds
    found = {name: value for name, value in facts.items() if name != "notes"}
    return {
        **found,
        "one_training_s": one,
        "planned_ratio": facts["planned_s"] / facts["one_training_s"],
        "ratio": facts["spent_s"] / one,
    }


def _would_change(verdict: Verdict, crossed: Sequence[Mapping[str, Any]], margin: float, judged: _Judged) -> str:
    """One sentence."""
    ahead = [
        item for item in crossed
        if item["labels"] is not None and item["labels"]["value"] > judged.hand and item["leader"] != verdict.arm
    ]  # fmt: skip
    if verdict.arm is not None and ahead:
        return f"{ahead[0]['leader']} may be ahead with more than {ahead[0]['labels']['value']:,.0f} labels."
    if verdict.advice == CANNOT_TELL:
        return "More labels, another rival (declared stages, pretrained weights), or a need that rules an arm out."
    return f"A rival that is better by more than {margin:.3g}, a need that rules {verdict.arm} out, or rows unlike the test rows."


__all__ = ["Advice", "advise", "bounds"]
