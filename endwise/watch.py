"""What goes wrong in silence, named: a stage that nothing teaches, an answer on the way that no longer means what it is
called, a task that one network answers worse than its own, a training that learns nothing at all.

It reads the events of the log (numbers and names, no tensor), so that a resumed training sees what the broken-off one saw.
Each finding is an Alarm: on the terminal and in the log when it begins, in metrics.json and in the report if it stands in
the end. Not here: measuring anything (optimise.py, train), mending it.
"""

import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Literal

from endwise.metrics import Estimate

NO_GRADIENT = 1e-9  # of the largest among the others: below, rounding
MEASUREMENTS = 3  # in a row without a gradient before it is said ...
SHORTEST = 2  # ... and at the end; the first alone may be that of a layer that begins with zeros
FEWEST_ROWS = 10  # with a label, for an answer to be seen to lose its meaning: of fewer, one row decides
LOOKS, LOSSES = 3, 5  # evaluations, and losses at either end, before it is said that nothing is learnt
FALLEN = 0.02  # of the loss: one that fell by less stands still
LOST_SHARE = 0.3  # of what an answer had over the best constant one: small validation sets move by less


@dataclass(frozen=True, slots=True)
class Alarm:
    """One thing that goes wrong. name: no_gradient, nothing_learnt, drift, no_meaning or worse_than_alone. where: the stage,
    the part of the network, or the output. step: since when."""

    name: Literal["no_gradient", "nothing_learnt", "drift", "no_meaning", "worse_than_alone"]
    where: str
    step: int
    message: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"name": self.name, "where": self.where, "step": self.step, "message": self.message}


@dataclass(frozen=True, slots=True)
class Meaning:
    """How it is seen that an answer on the way means what it is called: a metric of the answer on validation rows, and what
    the best constant answer reaches there."""

    metric: str
    direction: Literal["min", "max"]
    constant: float
    rows: int

    def skill(self, value: float) -> float:
        """How far a value is above the constant answer; below 0 is worse."""
        return value - self.constant if self.direction == "max" else self.constant - value


@dataclass
class Watch:
    """All alarms of one training. groups: what is watched for its gradient, {name: its parts' names}; own: each group's own
    terms. meanings: the answers on the way that have one. goal: the output that decides, and how it is seen that it was learnt,
    asked for when a loss stands still; None where no constant answer can be scored."""

    groups: Mapping[str, Sequence[str]]
    own: Mapping[str, Sequence[str]]
    meanings: Mapping[str, Meaning]
    goal: tuple[str, Callable[[], Meaning | None]] | None = None
    standing: dict[tuple[str, str], Alarm] = field(default_factory=dict)
    without: dict[str, int] = field(default_factory=dict)  # measurements in a row that saw no gradient
    since: dict[str, int] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    fallen: dict[str, int] = field(default_factory=dict)  # evaluations in a row
    losses: list[float] = field(default_factory=list)
    goals: list[float] = field(default_factory=list)

    def see(self, event: Mapping[str, Any]) -> list[Alarm]:
        """One event of the log; the alarms that begin with it."""
        before = set(self.standing)
        if event["event"] == "step" and event.get("loss") is not None:
            self.losses.append(event["loss"])
        if event["event"] == "eval" and event.get("goal") is not None:
            self.goals.append(event["goal"])
            self._learns(event["step"])
        if event["event"] == "step" and "parts" in event:
            self._gradients(event["step"], event["parts"], event["terms"])
        elif event["event"] in ("eval", "meaning"):
            self._meanings(event["step"], event["val"], final=bool(event.get("final")))
        return self._new(before)

    def end(self) -> list[Alarm]:
        """No more steps: what a short training has shown too rarely to be told before."""
        before = set(self.standing)
        for group, count in self.without.items():
            if count >= SHORTEST:
                self._no_gradient(group)
        return self._new(before)

    @property
    def alarms(self) -> list[Alarm]:
        """Those that stand now."""
        return list(self.standing.values())

    def _new(self, before: Set[tuple[str, str]]) -> list[Alarm]:
        return [alarm for key, alarm in self.standing.items() if key not in before]

    def _gradients(self, step: int, parts: Mapping[str, float], terms: Mapping[str, Mapping[str, float]]) -> None:
        norms = {
            group: math.hypot(*(parts[name] for name in names if name in parts))
            for group, names in self.groups.items()
            if any(name in parts for name in names)
        }
        weighed = {name: term["value"] for name, term in terms.items() if term["weight"] > 0}
        for group, norm in norms.items():
            if norm > NO_GRADIENT * max(norms.values()):
                self.without.pop(group, None)
                self.since.pop(group, None)
                self.standing.pop(("no_gradient", group), None)
                continue
            own = [weighed[name] for name in self.own.get(group, ()) if name in weighed] or list(weighed.values())
            if not any(own):  # no row of this batch has a label: it says nothing
                continue
            self.since.setdefault(group, step)
            self.without[group] = self.without.get(group, 0) + 1
            if self.without[group] >= MEASUREMENTS:
                self._no_gradient(group)

    def _no_gradient(self, group: str) -> None:
        step = self.since.get(group, 0)
        self.standing.setdefault(
            ("no_gradient", group),
            Alarm(
                "no_gradient",
                group,
                step,
                f"{group} gets no gradient since step {step}: nothing that is made small reaches it, so it stays as it is. "
                "Fix: a hand-off with a gradient (soft, latent), detach: false, or labels and a loss of its own "
                "(regime: warm_joint)",
            ),
        )

    def _learns(self, step: int) -> None:
        """At an evaluation: is there any progress, of the loss or of the goal?"""
        if self.goal is None or len(self.goals) < LOOKS or len(self.losses) < 2 * LOSSES:
            return
        output, how = self.goal
        first, last = (sum(part) / LOSSES for part in (self.losses[:LOSSES], self.losses[-LOSSES:]))
        still = first - last <= FALLEN * abs(first)
        meaning = how() if still else None
        if meaning is None or meaning.rows < FEWEST_ROWS or max(map(meaning.skill, self.goals)) > 0:
            self.standing.pop(("nothing_learnt", output), None)
            return
        best = max(self.goals, key=meaning.skill)
        self.standing.setdefault(
            ("nothing_learnt", output),
            Alarm(
                "nothing_learnt",
                output,
                step,
                f"nothing is learnt: after {len(self.goals)} evaluations the loss stands still ({first:.4g}, {last:.4g}), the "
                f"{meaning.metric} of {output} is {best:.4g} at best on {meaning.rows} validation rows, and one constant answer "
                f"reaches {meaning.constant:.4g}. Fix: a learning rate ten times smaller or larger (train.learning_rate), no "
                "augmentation (train.augment: false) of few rows, class_weights: balanced where one class is most of them; "
                "or the inputs do not tell the answer",
            ),
        )

    def _meanings(self, step: int, values: Mapping[str, Mapping[str, float | None]], *, final: bool) -> None:
        for output, meaning in self.meanings.items():
            value = values.get(output, {}).get(meaning.metric)
            if value is None or meaning.rows < FEWEST_ROWS:
                continue
            skill = meaning.skill(value)
            best = self.best[output] = max(skill, self.best.get(output, skill))
            if best > 0 and best - skill > LOST_SHARE * best:
                self.fallen[output] = self.fallen.get(output, 0) + 1
                if final or self.fallen[output] >= 2:
                    self.standing.setdefault(("drift", output), self._drifted(output, step, value))
            else:
                self.fallen[output] = 0
                self.standing.pop(("drift", output), None)
            if final and skill <= 0 and ("drift", output) not in self.standing:
                self.standing["no_meaning", output] = Alarm(
                    "no_meaning",
                    output,
                    step,
                    f"{output} does not mean what it is called: its {meaning.metric} is {value:.4g} on {meaning.rows} validation "
                    f"rows, and one constant answer reaches {meaning.constant:.4g}. What goes on is some code of the "
                    "network's own. Fix: regime: warm_joint or joint, whose loss holds its labels, or a larger loss_weight",
                )

    def _drifted(self, output: str, step: int, value: float) -> Alarm:
        meaning, best = self.meanings[output], self.best[output]
        was = meaning.constant + best if meaning.direction == "max" else meaning.constant - best
        return Alarm(
            "drift",
            output,
            step,
            f"{output} drifts away from its meaning: its {meaning.metric} was {was:.4g} and is {value:.4g} on {meaning.rows} "
            f"validation rows (one constant answer: {meaning.constant:.4g}). Fix: a larger loss_weight of {output}, or "
            "detach: true where it is read",
        )


def worse_than_alone(task: str, together: Estimate, alone: Estimate, direction: str) -> Alarm | None:
    """Whether a task is answered worse by the one network than by a network of its own on the same rows, as far as the
    intervals say: they must not meet. None where they do not say so."""
    ends = (together.low, together.high, alone.low, alone.high)
    if not all(math.isfinite(end) for end in ends):
        return None
    apart = together.high < alone.low if direction == "max" else together.low > alone.high
    if not apart:
        return None
    return Alarm(
        "worse_than_alone",
        task,
        0,
        f"{task} is worse together than alone: {together} against {alone} (negative transfer). Fix: a larger loss_weight of "
        f"{task}, objective.weighting: pcgrad, or a network of its own",
    )


__all__ = ["Alarm", "Meaning", "Watch", "worse_than_alone"]
