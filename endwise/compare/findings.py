"""From what was kept of every model to numbers with intervals: the regimes side by side, what each answer on the way
costs, the curves, the shift, the costs.

Everything here is pooled from kept statistics: nothing is trained or predicted. The sentences are words.py, the drawing
is the report's.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from endwise.baselines import Baseline
from endwise.compare.arms import APART, ONE, PRETRAINED, Arm, Cost
from endwise.compare.measure import NOISE_SHARES, STRENGTHS, Bench, Statistics, value_of
from endwise.compare.verdict import FEWEST_SEEDS, NONE, PIPELINE, PIPELINES, WINS, Verdict, best, drifted, judge
from endwise.metrics import RESAMPLES, Estimate, Metric, pooled, pooled_difference
from endwise.modalities.base import Answer
from endwise.recipe import Recipe
from endwise.stages import direct_recipe
from endwise.watch import worse_than_alone

WATTS = 10.0  # of one busy core, assumed: laptops have less, servers with their cooling more
FEWER_RESAMPLES = 400  # of rankings and means over classes: a hundred intervals of a thousand would take minutes
CLASSICAL = "classical"
KINDS = ("trivial", CLASSICAL)
END_TO_END = ("warm_joint", "joint", "joint_goal_only", "direct")
DRIFT_REGIMES = ("warm_joint", "joint", "joint_goal_only")
NEAR = 0.05  # of the way from a constant answer to what is reached with all labels: as good as that


@dataclass
class Kept:
    """What is known of one arm."""

    arm: Arm
    cost: Cost
    statistics: Statistics = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Findings:
    """All arms, and the yardstick. Every method gives plain JSON values."""

    bench: Bench
    kept: Sequence[Kept]
    baselines: Mapping[str, Baseline]
    fewer: Mapping[float, Sequence[Sequence[Answer]]] = field(
        default_factory=dict
    )  # the classical goal by share and seed
    elsewhere: Sequence[Answer] | None = None  # the classical goal on the group that was held out
    disturbed: tuple[str, ...] = ()  # inputs that noise was put on
    reading_s: float = 0.0  # of the rows, from their files

    @property
    def goal(self) -> Metric:
        """The metric that decides."""
        return self.bench.metrics[self.bench.goal.output]

    @property
    def sign(self) -> float:
        """1 where larger is better."""
        return 1.0 if self.goal.direction == "max" else -1.0

    @property
    def called(self) -> str:
        """The goal in words."""
        return f"{self.goal.name} of {self.bench.goal.output}"

    @property
    def names(self) -> list[str]:
        """Regimes in the order in which they were trained, those with a finished training on all labels."""
        full = [item.arm for item in self.kept if item.arm.share == 1 and not item.cost.failed]
        return list(dict.fromkeys(arm.name for arm in full if not arm.given))

    def runs(self, name: str, key: str, share: float = 1.0) -> list[np.ndarray]:
        """What the trainings of a regime kept under a key."""
        return [
            item.statistics[key]
            for item in self.kept
            if item.arm.name == name and item.arm.share == share and key in item.statistics
        ]

    def failed(self, name: str) -> list[Kept]:
        """Trainings on all labels that came to nothing."""
        return [item for item in self.kept if item.arm.name == name and item.arm.share == 1 and item.cost.failed]

    def parameters(self, name: str) -> int:
        """How many numbers a regime's networks have; 0 where none of its trainings was finished."""
        numbers = (
            item.cost.parameters
            for item in self.kept
            if (item.arm.name, item.arm.share) == (name, 1) and not item.cost.failed
        )
        return next(numbers, 0)

    # ---- pooling ---------------------------------------------------------------------------------------------------

    def pool(self, runs: Sequence[np.ndarray], output: str, rows: np.ndarray) -> Estimate:
        """The mean of an output's metric over trainings."""
        return pooled(self.bench.metrics[output], runs, **self._shared(output, rows))

    def _shared(self, output: str, rows: np.ndarray) -> dict[str, Any]:
        """What all intervals of an output on these rows have in common."""
        quick = self.bench.metrics[output].from_sums is not None
        return {
            "weights": self.bench.weights(rows), "clusters": self.bench.clusters(rows),
            "resamples": RESAMPLES if quick else FEWER_RESAMPLES,
        }  # fmt: skip

    def apart(
        self,
        first: Sequence[np.ndarray],
        second: Sequence[np.ndarray],
        output: str,
        rows: np.ndarray,
        *,
        same_trainings: bool = False,
    ) -> Estimate:
        """By how much the first are better: above 0 whatever the metric's direction."""
        metric = self.bench.metrics[output]
        a, b = (first, second) if metric.direction == "max" else (second, first)
        return pooled_difference(metric, a, b, same_trainings=same_trainings, **self._shared(output, rows))

    def _goal(self, name: str, key: str, rows: np.ndarray, share: float = 1.0) -> Estimate | None:
        runs = self.runs(name, key, share)
        return self.pool(runs, self.bench.goal.output, rows) if runs else None

    @property
    def own(self) -> str:
        """The key of the goal's statistics on the test rows."""
        return f"test/{self.bench.goal.output}"

    @cached_property
    def _costly(self) -> np.ndarray:
        """Which of the test rows the costly questions were asked on."""
        return np.searchsorted(self.bench.test, self.bench.some)

    def some(self, runs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Of statistics of all test rows, those of these rows."""
        return [item[self._costly] for item in runs]

    # ---- the goal ----------------------------------------------------------------------------------------------------

    def regimes(self) -> dict[str, dict[str, Any]]:
        """{regime: estimate over rows and seeds, and each training's own value}."""
        return {name: self._in_all_seeds(name) for name in self.names}

    def inputs(self) -> dict[str, dict[str, Any]]:
        """{'a+b': the same for one network that has these inputs alone}."""
        given = {
            item.arm.name: "+".join(item.arm.given) for item in self.kept if item.arm.given and not item.cost.failed
        }
        return {told: self._in_all_seeds(name) for name, told in given.items()}

    def _in_all_seeds(self, name: str) -> dict[str, Any]:
        runs, weights = self.runs(name, self.own), self.bench.weights(self.bench.test)
        each = [value_of(self.goal, item, weights) for item in runs]
        return {**self.pool(runs, self.bench.goal.output, self.bench.test).to_dict(), "seeds": each}

    def fusion(self) -> dict[str, Verdict]:
        """{'one': all inputs (in the place of end-to-end) against the best single one, 'fewer': against the best of all
        smaller sets}, both chosen by the validation rows; {} where not all subsets were trained."""
        given = {item.arm.name: item.arm.given for item in self.kept if item.arm.given}
        most = max(map(len, given.values()), default=0)
        if most < len(self.bench.recipe.inputs) or any(self.failed(name) for name in given):
            return {}
        full = next(name for name, own in given.items() if len(own) == most)
        return {kind: self._against(full, [name for name, own in given.items() if len(own) <= size], given)
                for kind, size in (("one", 1), ("fewer", most - 1))}  # fmt: skip

    def _against(self, full: str, rivals: Sequence[str], given: Mapping[str, Sequence[str]]) -> Verdict:
        every = "+".join(given[full])
        rival = self._by_validation(rivals) if all(self.runs(name, "val") for name in rivals) else None
        if rival is None:
            return Verdict(
                NONE,
                f"the best of fewer inputs cannot be chosen: the validation rows do not define {self.called}",
                every,
            )
        mine, theirs = self.runs(full, self.own), self.runs(rival, self.own)
        gain = self.apart(mine, theirs, self.bench.goal.output, self.bench.test)
        return judge(every, "+".join(given[rival]), gain, (len(mine), len(theirs)), self.called)

    def chosen(self, names: Sequence[str]) -> str | None:
        """The best of these by the validation rows, of those none of whose trainings failed; where there is one, that."""
        whole = self._whole(names)
        return whole[0] if len(whole) == 1 else self._by_validation(whole)

    def _by_validation(self, whole: Sequence[str]) -> str | None:
        """The best of these by the validation rows; None where these define it for none."""
        weights = self.bench.weights(self.bench.val)
        values = {}
        for name in whole:
            runs = self.runs(name, "val")
            if runs:
                values[name] = float(np.mean([value_of(self.goal, item, weights) for item in runs]))
        return best(values, self.goal.direction)

    def _whole(self, names: Sequence[str]) -> list[str]:
        """Those of these regimes with all of their trainings finished."""
        return [name for name in names if name in self.names and not self.failed(name)]

    def gains(self, against: str | None) -> dict[str, Any]:
        """{regime: by how much it is better than `against` on the same rows}."""
        if against is None:
            return {}
        theirs = self.runs(against, self.own)
        return {
            name: self.apart(self.runs(name, self.own), theirs, self.bench.goal.output, self.bench.test).to_dict()
            for name in self.names
            if name != against
        }

    def verdict(self) -> Verdict:
        """By the rule of verdict.py."""
        if not self.bench.recipe.stages:
            return self._without_stages()
        ours, theirs = self.chosen(END_TO_END), self.chosen(PIPELINES)
        if ours is None or theirs is None:
            names, called = (END_TO_END, "end-to-end regime") if ours is None else (PIPELINES, "pipeline")
            why = f"there is no {called} with all of its trainings finished"
            if self._whole(names):
                why = f"no {called} can be chosen: the validation rows do not define {self.called}"
            return Verdict(NONE, why, ours, theirs)
        first, second = self.runs(ours, self.own), self.runs(theirs, self.own)
        gain = self.apart(first, second, self.bench.goal.output, self.bench.test)
        return judge(ours, theirs, gain, (len(first), len(second)), self.called)

    def _without_stages(self) -> Verdict:
        said = "no pipeline was declared (stages: in the recipe)"
        if APART not in self.names or ONE not in self.names:
            return Verdict(NONE, f"{said}: the network stands beside its baselines alone")
        gain = self.apart(self.runs(ONE, self.own), self.runs(APART, self.own), self.bench.goal.output, self.bench.test)
        found = judge(ONE, APART, gain, (len(self.runs(ONE, self.own)), len(self.runs(APART, self.own))), self.called)
        words = {
            WINS: "one network is better than one for each output",
            PIPELINE: "one network for each output is better",
        }
        told = words.get(found.words, found.words)
        return Verdict(NONE, f"{said}; {told}: {found.because}", ONE, APART, gain, found.detectable)

    def together(self) -> dict[str, dict[str, Any]]:
        """{output: its metric in the one network ('together') and in one of its own ('alone'), by how much it is better
        together ('gain'), the fewer 'seeds' of both, and 'alarm', what the watch says of it or None}; {} without both.
        Fewer seeds than a verdict takes give no alarm: chance in a training looks the same."""
        found: dict[str, dict[str, Any]] = {}
        for output in self.bench.recipe.outputs if {ONE, APART} <= set(self.names) else ():
            rows, metric = self.bench.labelled(output, self.bench.test), self.bench.metrics[output]
            one, own = (self.runs(name, f"test/{output}") for name in (ONE, APART))
            if not len(rows):
                continue
            together, alone = self.pool(one, output, rows), self.pool(own, output, rows)
            seeds = min(len(one), len(own))
            alarm = worse_than_alone(output, together, alone, metric.direction) if seeds >= FEWEST_SEEDS else None
            found[output] = {
                "metric": metric.name, "direction": metric.direction, "together": together.to_dict(),
                "alone": alone.to_dict(), "gain": self.apart(one, own, output, rows).to_dict(), "seeds": seeds,
                "alarm": None if alarm is None else alarm.to_dict(),
            }  # fmt: skip
        return found

    def pretrained(self) -> Verdict | None:
        """Whether the weights from elsewhere (in the place of end-to-end) beat the best of the regimes; None where there are
        no such weights."""
        if not self._whole([PRETRAINED]):
            return None
        rival = self.chosen([name for name in self.names if name != PRETRAINED])
        if rival is None:
            return Verdict(NONE, "there is no best regime to hold it against", PRETRAINED)
        mine, theirs = self.runs(PRETRAINED, self.own), self.runs(rival, self.own)
        gain = self.apart(mine, theirs, self.bench.goal.output, self.bench.test)
        return judge(PRETRAINED, rival, gain, (len(mine), len(theirs)), self.called)

    # ---- baselines ---------------------------------------------------------------------------------------------------

    @cached_property
    def beside(self) -> dict[str, dict[str, Any]]:
        """{output: {'trivial', 'classical'}}: fitted once, on all labels."""
        found: dict[str, dict[str, Any]] = {}
        for output, kind in itertools.product(self.baselines, KINDS):
            kept, rows = self._baseline(output, kind), self.bench.labelled(output, self.bench.test)
            found.setdefault(output, {})[kind] = None if kept is None else self.pool([kept], output, rows).to_dict()
        return found

    def over_baseline(self, kind: str) -> dict[str, Estimate]:
        """{regime: by how much it is better at the goal than a baseline on the same rows}; empty where there is none."""
        output = self.bench.goal.output
        kept = self._baseline(output, kind)
        if kept is None:
            return {}
        return {name: self.apart(self.runs(name, self.own), [kept], output, self.bench.test) for name in self.names}

    def _baseline(self, output: str, kind: str) -> np.ndarray | None:
        """What the output's metric keeps of a baseline's answers to the labelled test rows; None where it gave none."""
        metric, made = self.bench.metrics[output], self.baselines[output]
        answers = made["classical"] if kind == CLASSICAL else made["trivial"]
        rows = self.bench.labelled(output, self.bench.test)
        if not answers or metric.of_term is not None or not len(rows):
            return None
        own = [answers[place] for place in np.searchsorted(self.bench.test, rows).tolist()]
        return metric.rows(self.bench.truths(output, rows), own)

    def trivial(self, output: str) -> float | None:
        """What the best constant answer reaches on the test rows; None where there is none."""
        item, metric = self.bench.recipe.outputs[output], self.bench.metrics[output]
        learnt, rows = (
            self.bench.labelled(output, side) for side in (self.bench.dataset.splits.train, self.bench.test)
        )
        constant = item.trivial(self.bench.truths(output, learnt), self.bench.contracts[output])
        if constant is None or metric.of_term is not None or not len(rows):
            return None
        kept = metric.rows(self.bench.truths(output, rows), [constant] * len(rows))
        return value_of(metric, kept, self.bench.weights(rows))

    # ---- answers on the way ----------------------------------------------------------------------------------------

    def intermediates(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """({answer on the way: its metric in each regime}, [those that have drifted])."""
        found: dict[str, Any] = {}
        drift = []
        for output in self.bench.recipe.intermediates:
            rows, key = self.bench.labelled(output, self.bench.test), f"test/{output}"
            metric = self.bench.metrics[output]
            runs = {name: self.runs(name, key) for name in self.names}
            values = {name: self.pool(item, output, rows) for name, item in runs.items() if item and len(rows)}
            found[output] = {
                "metric": metric.name, "direction": metric.direction,
                "regimes": {name: value.to_dict() for name, value in values.items()},
            }  # fmt: skip
            apart = next((name for name in PIPELINES if name in values), None)
            for name in DRIFT_REGIMES if apart is not None else ():
                if name not in values:
                    continue
                loss = self.apart(runs[apart or ""], runs[name], output, rows)
                if drifted(loss, values[apart or ""].value, self.trivial(output)):
                    drift.append({"regime": name, "output": output, "against": apart, "worse_by": loss.to_dict()})
        return found, drift

    def attribution(self) -> dict[str, Any]:
        """{regime: {'oracle': [...], 'noise': {answer on the way: [...]}}} of regimes with stages."""
        return {
            name: {"oracle": self._oracle(name), "noise": self._noise(name)}
            for name in self.names
            if name in (*PIPELINES, *DRIFT_REGIMES) and self.bench.recipe.intermediates
        }

    def _oracle(self, name: str) -> list[dict[str, Any]]:
        rows, output = self.bench.some, self.bench.goal.output
        plain = self.some(self.runs(name, self.own))
        found = []
        for replaced in substitutions(self.bench.recipe.intermediates):
            runs = self.runs(name, f"truth/{'+'.join(replaced)}")
            if runs:
                found.append({
                    "replaced": list(replaced), "value": self.pool(runs, output, rows).to_dict(),
                    "gain": self.apart(runs, plain, output, rows, same_trainings=True).to_dict(),
                })  # fmt: skip
        return found

    def _noise(self, name: str) -> dict[str, list[dict[str, Any]]]:
        found = {}
        for item in self.bench.recipe.intermediates:
            plain = self.pool(self.some(self.runs(name, self.own)), self.bench.goal.output, self.bench.some)
            curve = [{"share": 0.0, **plain.to_dict()}]
            for share in NOISE_SHARES:
                value = self._goal(name, f"noise/{item}/{share:g}", self.bench.some)
                if value is not None:
                    curve.append({"share": share, **value.to_dict()})
            found[item] = curve
        return found

    def exchanged(self) -> dict[str, Any]:
        """{regime: by how much the goal is better with another training's first stage (below 0: worse)}, over the trainings
        after the first, which the stage is taken from."""
        return self._within("exchanged", lambda item: item[self.own][self._costly])

    def faithfulness(self) -> dict[str, Any]:
        """{regime: by how much the goal is better with tokens put out at random than with those that it leans on}."""
        return self._within("put_out/chance", lambda item: item["put_out/leaned_on"])

    def _within(self, key: str, other: Callable[[Statistics], np.ndarray]) -> dict[str, Any]:
        """{regime: by how much what is kept under a key is better than the other of the same training}."""
        found = {}
        for name in self.names:
            kept = [item.statistics for item in self.kept if item.arm.name == name and key in item.statistics]
            if kept:
                pair = [item[key] for item in kept], [other(item) for item in kept]
                gain = self.apart(*pair, self.bench.goal.output, self.bench.some, same_trainings=True)
                found[name] = gain.to_dict()
        return found

    def reach(self) -> dict[str, dict[str, float]]:
        """{regime: {stage: norm of the goal's gradient at its tokens, the mean over trainings}}."""
        found: dict[str, dict[str, float]] = {}
        for name in self.names:
            each = [item.numbers["reach"] for item in self.kept if item.arm.name == name and "reach" in item.numbers]
            if each:
                found[name] = {stage: float(np.mean([item[stage] for item in each])) for stage in each[0]}
        return found

    # ---- fewer labels, other rows ----------------------------------------------------------------------------------

    def curves(self) -> dict[str, list[dict[str, Any]]]:
        """{regime: [{'share', 'rows', estimate, 'seeds'}]} from few labels to all."""
        found: dict[str, list[dict[str, Any]]] = {}
        shares = sorted({item.arm.share for item in self.kept})
        for name, share in itertools.product(self.names, shares if len(shares) > 1 else ()):
            value = self._goal(name, self.own, self.bench.test, share)
            if value is not None:
                trained = round(share * len(self.bench.dataset.splits.train))
                weights, runs = self.bench.weights(self.bench.test), self.runs(name, self.own, share)
                each = [value_of(self.goal, item, weights) for item in runs]
                found.setdefault(name, []).append({"share": share, "rows": trained, **value.to_dict(), "seeds": each})
        return found | ({CLASSICAL: own} if found and (own := self._classical_curve()) else {})

    def _classical_curve(self) -> list[dict[str, Any]]:
        output, rows = self.bench.goal.output, self.bench.test
        made = {
            share: [self._looked_at(answers, rows) for answers in self.fewer[share]] for share in sorted(self.fewer)
        }
        whole = self._baseline(output, CLASSICAL)
        if whole is not None:
            made[1.0] = [whole]
        weights, points = self.bench.weights(rows), []
        for share, runs in made.items():
            each, trained = (
                [value_of(self.goal, run, weights) for run in runs],
                round(share * len(self.bench.dataset.splits.train)),
            )
            points.append({"share": share, "rows": trained, **self.pool(runs, output, rows).to_dict(), "seeds": each})
        return points if len(points) > 1 else []

    def _looked_at(self, answers: Sequence[Answer], rows: np.ndarray) -> np.ndarray:
        """What the goal keeps of a baseline's answers to these rows, which all have one."""
        return self.goal.rows(self.bench.truths(self.bench.goal.output, rows), answers)

    def shift(self, how: str) -> dict[str, Any]:
        """The goal on rows of another kind: {'how', 'regimes': {regime: [{'what': 'held-out group' or the strength of the
        noise, estimate}]}}."""
        kinds: list[tuple[str, str | float, np.ndarray]] = [("shifted", "held-out group", self.bench.shifted)] if len(self.bench.shifted) else [
            (f"disturbed/{strength:g}", strength, self.bench.some) for strength in STRENGTHS
        ]  # fmt: skip
        found: dict[str, Any] = {}
        for name, (key, what, rows) in itertools.product(self.names, kinds):
            value = self._goal(name, key, rows)
            if value is not None:
                found.setdefault(name, []).append({"what": what, **value.to_dict()})
        if self.elsewhere is not None and self.goal.of_term is None:
            rows = self.bench.shifted
            value = self.pool([self._looked_at(self.elsewhere, rows)], self.bench.goal.output, rows)
            found[CLASSICAL] = [{"what": "held-out group", **value.to_dict()}]
        return {"how": how, "regimes": found}

    def gain_under(self, key: str, rows: np.ndarray, pair: tuple[str, str], share: float = 1.0) -> Estimate | None:
        """By how much the one is better than the other there."""
        first, second = (self.runs(name, key, share) for name in pair)
        return self.apart(first, second, self.bench.goal.output, rows) if first and second else None

    # ---- another answer ----------------------------------------------------------------------------------------------

    def anew(self) -> dict[str, Any]:
        """Of arms that learn another answer, this one's goal: {regime: {'further': [{'share', 'labels', estimate, 'minutes'}],
        'anew': [...], 'changed': what of the network is new or other, 'margin', 'labels_needed': {'further', 'anew'}}}."""
        found = {}
        for name in dict.fromkeys(item.arm.anew.like.name for item in self.kept if item.arm.anew is not None):
            ways = {way: [item for item in self.kept if item.arm.name == f"{way}-{name}" and not item.cost.failed]
                    for way in ("further", "anew")}  # fmt: skip
            curves = {
                way: sorted(map(self._learnt, own), key=lambda point: point["share"]) for way, own in ways.items()
            }
            changed = next((item.numbers["changed"] for item in ways["further"]), None)  # the first: of all labels
            found[name] = {**curves, "changed": changed, **self._needed(curves)}
        return found

    def _learnt(self, item: Kept) -> dict[str, Any]:
        value = self.pool([item.statistics[self.own]], self.bench.goal.output, self.bench.test)
        return {"share": item.arm.share, "labels": item.numbers["labels"], **value.to_dict(),
                "minutes": item.cost.seconds / 60}  # fmt: skip

    def _needed(self, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
        """How many labels come within a margin of the better of the two ways with all labels; None: no number tried does, or
        that is no better than a constant answer."""
        full = [point["value"] for own in curves.values() for point in own if point["share"] == 1]
        best_value = max((self.sign * value for value in full if np.isfinite(value)), default=None)
        constant = self.trivial(self.bench.goal.output)
        if best_value is None or (constant is not None and best_value <= self.sign * constant):
            return {"margin": None, "labels_needed": dict.fromkeys(curves)}
        margin = NEAR * abs(best_value - (self.sign * constant if constant is not None else 0.0))
        near = {way: [point["labels"] for point in own if best_value - self.sign * point["value"] <= margin]
                for way, own in curves.items()}  # fmt: skip
        return {"margin": margin, "labels_needed": {way: min(labels, default=None) for way, labels in near.items()}}

    # ---- costs -------------------------------------------------------------------------------------------------------

    def costs(self) -> dict[str, dict[str, Any]]:
        """{regime: seconds, energy, memory, parameters, latency, what there is to declare, train and keep, minutes from data
        to a served answer}: means over trainings on all labels."""
        found = {}
        for name in self.names:
            all_of = [item for item in self.kept if item.arm.name == name and item.arm.share == 1]
            done = [item for item in all_of if not item.cost.failed]
            seconds = float(np.mean([item.cost.seconds for item in done]))
            cpu = float(np.mean([item.cost.cpu_seconds for item in done]))
            peaks = [item.cost.peak_mb for item in done if item.cost.peak_mb is not None]
            first = [item.numbers["first_answer_s"] for item in done if "first_answer_s" in item.numbers]
            timed = [item.numbers["latency"] for item in done if "latency" in item.numbers]
            found[name] = {
                "seconds": seconds,
                "cpu_seconds": cpu,
                "energy_wh": cpu * WATTS / 3600,
                "peak_mb": max(peaks) if peaks else None,
                "parameters": self.parameters(name),
                "artefacts": len(done[0].arm.parts),
                "declared_lines": sum(map(_lines, done[0].arm.parts.values())),
                "trained_parts": done[0].cost.trained_parts,
                "failed": len(all_of) - len(done),
                **({"minutes_to_answer": (self.reading_s + seconds + float(np.mean(first))) / 60} if first else {}),
                **{key: float(np.median([item[key] for item in timed])) for key in ("p50_ms", "p95_ms") if timed},
                **(
                    {"timed_answers": min(item["n"] for item in timed)}
                    if timed and all("n" in item for item in timed)
                    else {}
                ),
            }
        return found


def _lines(recipe: Recipe) -> int:
    """Of what has to be declared, as it is written down."""
    import yaml

    own = direct_recipe(recipe) if recipe.regime == "direct" and recipe.stages else recipe
    declared = {name: value for name, value in own.to_dict().items() if name in ("inputs", "outputs", "stages")}
    return len(yaml.safe_dump(declared).splitlines())


def substitutions(intermediates: Sequence[str]) -> list[tuple[str, ...]]:
    """Which answers on the way are replaced together: the first, the first two ..., and each by itself. In the order of the
    stages, as the recipe gives them: a true answer downstream would hide what those before it had lost."""
    grown = [tuple(intermediates[: count + 1]) for count in range(len(intermediates))]
    return list(dict.fromkeys([*grown, *((item,) for item in intermediates)]))


__all__ = ["END_TO_END", "KINDS", "WATTS", "Findings", "Kept", "substitutions"]
