"""The trainings that a comparison is made of: which, with what recipe, on how many labels, at what cost.

All arms have the same rows on the same sides, the same augmentation, learning rate and size, and the same budget: of
wall-clock, or of steps. A step of a staged network costs about what one step of each stage costs, so a regime that
trains its stages first has half of the steps for them and half for the rest; one network for each output has its share
of them. What regimes begin with is trained once and taken by all of them. On a share of the labels, the clock allows the
square root of that share. Each arm is a run in the comparison's folder; those that are finished are taken as they are.

What another answer costs is seen by arms that learn it in the place of the goal: each regime's network, going on from what
it has learnt or from nothing, with a part of the budget.

Not here: a single training (train, regimes.py), measuring (measure.py).
"""

import contextlib
import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from endwise import regimes
from endwise.data.dataset import Dataset
from endwise.data.subset import nested
from endwise.errors import DataError, RecipeError, TrainingError, refusal, require, unknown_name
from endwise.files import read_json, write_json
from endwise.modalities.base import Contract, Modality
from endwise.modalities.pretrained import HINTS, PretrainedInput
from endwise.model import Model
from endwise.plan import default_passes
from endwise.recipe import Recipe
from endwise.run import Run
from endwise.stages import direct_recipe, stage_recipe
from endwise.train import Progress, fit
from endwise.transfer import Redirected

KEPT = "measured"  # the folder of what is known about the arms, beside their runs
HALVED = frozenset({"modular_predicted", "warm_joint"})  # they train the stages apart before anything else
ONE, APART = "one_network", "one_per_output"
ANEW_SHARE = 0.25  # of a training's budget, for learning another answer, whether going on or from nothing
ANEW_LABELS = (1.0, 0.3, 0.1)  # of the labels of another answer
PRETRAINED = "pretrained"  # the one network without stages, beginning with somebody else's weights


@dataclass(frozen=True)
class Anew:
    """That an arm learns another answer in the place of the goal, in the way of an arm that has learnt the goal. goes_on:
    from what that one has learnt, or from nothing."""

    like: "Arm"
    goes_on: bool


@dataclass(frozen=True)
class Arm:
    """One way of training, with one seed, on a share of the labels. parts: its networks by the output they answer; ''
    for one that answers all. given: the inputs it has, where it is there to find out what they are worth. anew: where it is
    there to find out what another answer costs."""

    name: str
    seed: int
    share: float
    parts: Mapping[str, Recipe]
    given: tuple[str, ...] = ()
    anew: Anew | None = None

    @property
    def folder(self) -> str:
        """Of its runs, inside the comparison's."""
        return f"{self.name}-{self._of}"

    @property
    def stages_folder(self) -> str:
        """Of the stages that it begins with, which regimes of the same rows and seed have in common."""
        return f"stages-{self._of}"

    @property
    def _of(self) -> str:
        return f"seed{self.seed}-{100 * self.share:g}"

    def with_seed(self, seed: int) -> "Arm":
        """The same way of training with another seed."""
        return replace(self, seed=seed)

    def answers(self, output: str) -> str:
        """The part that answers an output."""
        return output if output in self.parts else ""

    def __str__(self) -> str:
        labels = "all labels" if self.share == 1 else f"{self.share:.0%} of the labels"
        return f"{self.name}, seed {self.seed}, {labels}"


@dataclass(frozen=True)
class Cost:
    """What a training took. peak_mb: of the whole process, libraries included; None where the system does not say. passes: how
    often its last network saw its rows, the least of several; None where that is not known."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mb: float | None = None
    parameters: int = 0
    trained_parts: int = 0
    passes: float | None = None
    failed: str | None = None
    done: bool = False


@dataclass
class Trained:
    """An arm's models by part, and what they cost; none where the training failed."""

    arm: Arm
    cost: Cost
    models: dict[str, Model] = field(default_factory=dict)


def arms_of(
    recipe: Recipe,
    names: Sequence[str],
    rows: int,
    contracts: Mapping[str, Contract],
    *,
    seeds: int,
    shares: Sequence[float],
    curve_seeds: int,
    budget: float | None,
    subsets: Sequence[tuple[str, ...]] = (),
    begun: Recipe | None = None,
) -> list[Arm]:
    """All arms, those on all labels first: what is said about them stands even if the rest is never trained. rows: to
    learn from. budget: seconds for a training on all labels. begun: what is trained as `PRETRAINED`, where that is among
    the names."""
    found = []
    for share in (1.0, *sorted(shares, reverse=True)):
        limits = _Limits(_epochs(recipe, contracts, max(1, round(share * rows))), allowed(budget, share))
        for seed in range(recipe.train.seed, recipe.train.seed + (seeds if share == 1 else min(seeds, curve_seeds))):
            for name in names:
                one = begun if name == PRETRAINED else recipe if name == ONE else None
                parts = _parts(recipe, name, seed, limits) if one is None else {"": limits.put_on(one, seed)}
                found.append(Arm(name, seed, share, parts))
    limits = _Limits(_epochs(recipe, contracts, rows), budget)
    for given, seed in itertools.product(subsets, range(recipe.train.seed, recipe.train.seed + seeds)):
        own = limits.put_on(only(recipe, given), seed, 1.0)
        found.append(Arm("inputs-" + "+".join(given), seed, 1.0, {"": own}, given))
    return found


def arms_anew(
    recipe: Recipe,
    finished: Sequence[Arm],
    folder: Path,
    rows: int,
    contracts: Mapping[str, Contract],
    *,
    budget: float | None,
    begun: Recipe | None = None,
) -> list[Arm]:
    """For each of these arms, which have learnt a goal, those that learn the goal of this recipe in its place, all else being
    as it was (`with_another`). rows: with its label. budget and begun: as in `arms_of`."""
    found = []
    for share in ANEW_LABELS:
        limits = _Limits(_epochs(recipe, contracts, max(1, round(share * rows))), allowed(budget, share))
        for like, goes_on in itertools.product(finished, (True, False)):
            parts = _parts_anew(
                recipe if like.name != PRETRAINED or begun is None else begun, like, folder, limits, goes_on
            )
            name = f"{'further' if goes_on else 'anew'}-{like.name}"
            found.append(Arm(name, like.seed, share, parts, anew=Anew(like, goes_on)))
    return found


def _parts_anew(recipe: Recipe, like: Arm, folder: Path, limits: "_Limits", goes_on: bool) -> dict[str, Recipe]:
    place, goal = folder / like.folder, recipe.goal
    assert goal is not None
    if like.name == APART:
        own = limits.part(ANEW_SHARE / len(recipe.outputs)).put_on(answering(recipe, goal.output), like.seed)
        (before,) = set(like.parts) - set(recipe.outputs)
        return {goal.output: own.replace(from_run=str(place / before)) if goes_on else own}
    if like.name == "direct":  # as deep as it was made
        depth = Run(place).model(recipe=like.parts[""]).recipe.trunk.depth
        recipe = direct_recipe(recipe).replace(**{"trunk.depth": depth})
    if not recipe.stages:
        own = limits.part(ANEW_SHARE).put_on(recipe, like.seed)
        return {"": own.replace(from_run=str(place)) if goes_on else own}
    twice = like.name in HALVED and not goes_on  # stages apart, and then together
    own = limits.part(ANEW_SHARE).put_on(recipe.replace(regime=like.name), like.seed, 0.5 if twice else 1.0)
    return {"": own}


def allowed(budget: float | None, share: float) -> float | None:
    """Seconds for a training on a share of the labels."""
    return None if budget is None else budget * math.sqrt(share)


@dataclass(frozen=True)
class _Limits:
    """How long a training may be: passes over the rows (None: the recipe says how many steps), seconds."""

    epochs: float | None
    budget: float | None
    steps_share: float = 1.0

    def part(self, share: float) -> "_Limits":
        """A share of the steps and of the seconds."""
        return _Limits(self.epochs, None if self.budget is None else self.budget * share, self.steps_share * share)

    def put_on(self, recipe: Recipe, seed: int, share: float = 1.0) -> Recipe:
        """The recipe with a seed and `share` of the steps."""
        settings: dict[str, Any] = {"train.seed": seed}
        if self.budget is not None:
            settings["train.budget"] = self.budget
        if self.epochs is not None:
            settings["train.epochs"] = self.epochs * self.steps_share * share
        elif recipe.train.steps is not None:
            settings["train.steps"] = max(1, round(recipe.train.steps * self.steps_share * share))
        return recipe.replace(**settings)


def _epochs(recipe: Recipe, contracts: Mapping[str, Contract], rows: int) -> float | None:
    """Passes over the training rows, alike for all arms; None where the recipe says how many steps."""
    if recipe.train.steps is not None or recipe.train.epochs is not None:
        return recipe.train.epochs
    names = [*recipe.inputs, *recipe.outputs]
    network = Model.build(recipe, {name: contracts[name] for name in names}, seed=0).network
    return float(default_passes(network, rows))


def _parts(recipe: Recipe, name: str, seed: int, limits: _Limits) -> dict[str, Recipe]:
    if name == APART:
        own = limits.part(1 / len(recipe.outputs))
        return {output: own.put_on(answering(recipe, output), seed) for output in recipe.outputs}
    return {"": limits.put_on(recipe.replace(regime=name), seed, 0.5 if name in HALVED else 1.0)}


def answering(recipe: Recipe, output: str) -> Recipe:
    """The same inputs and one of the outputs, with what is known beforehand of them."""
    goal, outputs = recipe.goal, {output: recipe.outputs[output]}
    return Recipe(
        name=recipe.name, data=recipe.data, inputs=dict(recipe.inputs), outputs=outputs,
        goal=goal if goal is not None and goal.output == output else None,
        objective=recipe.objective.among(recipe.inputs, outputs, [*recipe.inputs, *recipe.outputs]),
        trunk=recipe.trunk, train=recipe.train, from_run=recipe.from_run,
    )  # fmt: skip


def only(recipe: Recipe, given: Sequence[str]) -> Recipe:
    """The one network of a recipe (that without the stages in between, where it has some) with some of its inputs."""
    ends = direct_recipe(recipe) if recipe.stages else recipe
    inputs = {name: ends.inputs[name] for name in given}
    return Recipe(
        name=ends.name, data=ends.data, inputs=inputs, outputs=dict(ends.outputs), goal=ends.goal,
        objective=ends.objective.among(inputs, ends.outputs, [*ends.inputs, *ends.outputs]),
        trunk=ends.trunk, train=ends.train,
    )  # fmt: skip


def with_another(recipe: Recipe, output: str, name: str, item: Modality) -> Recipe:
    """The same recipe, beginning with no run, with another output in the place of one that no stage reads. RecipeError where
    it cannot be so."""
    outputs = {name if own == output else own: item if own == output else kept for own, kept in recipe.outputs.items()}
    more: dict[str, Any] = {}
    if recipe.stages:
        maker = next(stage for stage, declared in recipe.stages.items() if output in declared.to)
        require(
            output not in recipe.intermediates, field="retarget", got=name, allowed=f"a goal that no stage reads, and {output} is read",
            fix="name a goal: at the end of the stages",
        )  # fmt: skip
        require(
            recipe.stages[maker].by is None, field="retarget", got=name, allowed=f"a goal that is learnt: stage {maker} is a function",
            fix="let a network learn the stage, or leave it out",
        )  # fmt: skip
        to = tuple(name if own == output else own for own in recipe.stages[maker].to)
        more["stages"] = {**recipe.stages, maker: recipe.stages[maker].model_copy(update={"to": to, "run": None})}
        more["regime"] = recipe.regime
    return Recipe(
        name=recipe.name, data=recipe.data, inputs=dict(recipe.inputs), outputs=outputs,
        objective=recipe.objective.among(recipe.inputs, outputs, [*recipe.inputs, *recipe.outputs]),
        trunk=recipe.trunk, train=recipe.train, **more,
    )  # fmt: skip


def begun_with(recipe: Recipe, weights: Mapping[str, str]) -> Recipe:
    """The one network of a recipe (that without the stages in between, where it has some) whose inputs begin with weights
    from elsewhere, {input: source}. RecipeError or SetupError where an input cannot, or the weights are not there."""
    ends = direct_recipe(recipe) if recipe.stages else recipe
    require(
        ends.from_run is None, field="pretrained", got=dict(weights), allowed="a recipe that begins with no other run",
        fix="remove from_run: from the recipe, or leave the weights out",
    )  # fmt: skip
    changes = {}
    for name, source in weights.items():
        if name not in ends.inputs:
            raise unknown_name(field="pretrained", got=name, names=ends.inputs)
        item = ends.inputs[name]
        if not isinstance(item, PretrainedInput):
            can = [given for given, own in ends.inputs.items() if isinstance(own, PretrainedInput)]
            raise refusal(
                field=f"pretrained: {name}", got=source, allowed=f"an input that can begin with weights, and {item.type} cannot",
                fix=f"name one of {', '.join(can)}" if can else "leave it out: no input of this recipe can",
            )  # fmt: skip
        left = {*type(item).instead, *HINTS}  # of an encoder from scratch, and how other weights are tuned
        kept = {key: value for key, value in item.to_dict().items() if key not in left}
        changes[f"inputs.{name}"] = {**kept, "type": type(item), PRETRAINED: source}
    found = ends.replace(**changes)
    for name in weights:
        declared = found.inputs[name]
        assert isinstance(declared, PretrainedInput)
        declared.weights_description()  # refuses what is not there
    return found


def fewer_labels(dataset: Dataset, share: float, seed: int) -> Dataset:
    """The same rows with a share of the training and validation rows: whole groups, the smaller shares inside the larger
    ones, other rows for another seed, the same rows for every regime. Test rows stay."""
    if share >= 1:
        return dataset

    def some(rows: np.ndarray) -> np.ndarray:
        if not len(rows):
            return rows
        groups = None if dataset.group is None else dataset.group[rows]
        return nested(
            rows, [share], seed=seed, groups=None if groups is None else np.where(groups < 0, -1 - rows, groups)
        )[0]

    return dataset.with_sides(train=some(dataset.splits.train), val=some(dataset.splits.val))


def train(arm: Arm, folder: Path, dataset: Dataset, progress: Progress | None) -> Trained:
    """Train an arm, or take it where it is finished. What it has cost is in `folder`/measured, and grows when it is gone on
    with. A training that diverges is a finding; so is one that too few labels make impossible."""
    place, file = folder / arm.folder, folder / KEPT / f"{arm.folder}.cost.json"
    cost = Cost(**read_json(file)) if file.is_file() else Cost()
    if cost.done:
        return Trained(arm, cost, {} if cost.failed else finished(arm, folder))
    rows, models, failed = fewer_labels(dataset, arm.share, arm.seed), {}, None
    stages = folder / arm.stages_folder if arm.name in HALVED else None
    with _metered(file, cost) as spent:
        try:
            for part, recipe in arm.parts.items():
                where = _place(place, part)
                foreign = set(rows.fields) - {*recipe.inputs, *recipe.outputs}
                own = rows.narrowed(recipe) if foreign else rows
                if arm.anew is not None and arm.anew.goes_on and recipe.stages:
                    models[part] = _gone_on(arm.anew.like, recipe, folder, where, own, progress)
                    continue
                if stages is not None:
                    spent["taken"] = _apart(recipe, stages, own, progress)
                models[part] = regimes.fit(
                    recipe, out=where, resume=where.exists(), progress=progress, score=False, dataset=own, stages_in=stages
                )  # fmt: skip
        except TrainingError as wrong:
            failed = str(wrong)
        except (DataError, RecipeError) as wrong:  # another answer is beside the point, after hours of training
            if arm.anew is None and (arm.share == 1 or isinstance(wrong, RecipeError)):
                raise
            failed = str(wrong)
        spent["done"], spent["failed"] = True, failed
        spent["parameters"] = sum(model.parameters for model in models.values())
        spent["passes"] = min((seen for model in models.values() if (seen := _passes(model)) is not None), default=None)
        further = arm.anew is not None and arm.anew.goes_on
        spent["trained_parts"] = sum(1 if further else _trainings(recipe) for recipe in arm.parts.values())
    return Trained(arm, Cost(**read_json(file)), {} if failed else models)


def finished(arm: Arm, folder: Path) -> dict[str, Model]:
    """The models of an arm that has been trained."""
    return {part: Run(_place(folder / arm.folder, part)).model(recipe=own) for part, own in arm.parts.items()}


def _gone_on(like: Arm, recipe: Recipe, folder: Path, where: Path, rows: Dataset, progress: Progress | None) -> Model:
    """Of a network in stages, train the one that answers something new; where parts are trained apart, by itself, on true
    answers of the others."""
    before = finished(like, folder)[""]
    maker = next(stage for stage, item in recipe.stages.items() if not set(item.to) <= set(before.recipe.outputs))
    Run.create(recipe, out=where, resume=where.exists())
    if not recipe.is_assembled:
        return fit(recipe, out=where, resume=True, progress=progress, score=False, dataset=rows,
                   beginning=Redirected(before, maker))  # fmt: skip
    own, alone = stage_recipe(recipe, maker), where / "stages" / maker
    made = fit(own, out=alone, resume=alone.exists(), progress=progress, score=False, dataset=rows.narrowed(own),
               beginning=Redirected(before, maker, alone=True))  # fmt: skip
    taken = {stage: before for stage, item in recipe.stages.items() if item.by is None} | {maker: made}
    beginning = regimes.Parts({**before.contracts, **made.contracts}, taken)
    return fit(recipe, out=where, resume=True, progress=progress, score=False, dataset=rows, beginning=beginning)


def _apart(recipe: Recipe, folder: Path, rows: Dataset, progress: Progress | None) -> Cost:
    """Train the stages that regimes have in common, if no other regime has: what it cost then, nothing where it was now."""
    file = folder.parent / KEPT / f"{folder.name}.cost.json"
    known = Cost(**read_json(file)) if file.is_file() else Cost()
    if known.done:
        return known
    with _metered(file, known) as spent:
        regimes.apart(recipe, folder, rows, share=regimes.APART_SHARE, progress=progress)
        spent["done"] = True
    return Cost()


def _passes(model: Model) -> float | None:
    """How often a network has seen its training rows; None of one that was only put together."""
    if model.run is None or not model.run.has("plan.json"):
        return None
    plan = model.run.read("plan.json")
    return float(plan["steps"]) / max(1, int(plan["steps_per_epoch"]))


def _place(place: Path, part: str) -> Path:
    return place / part if part else place


def _trainings(recipe: Recipe) -> int:
    """How many networks are trained: the stages by themselves, all together, or both."""
    apart = sum(stage.run is None and stage.by is None for stage in recipe.stages.values())
    if recipe.regime in HALVED or recipe.is_assembled:
        return apart + (not recipe.is_assembled)
    return 1


@contextlib.contextmanager
def _metered(file: Path, before: Cost) -> Iterator[dict[str, Any]]:
    """Clock, processor time and memory of what happens inside, added to what is known already, however it ends, and to what
    it took over (`taken`)."""
    began, cpu, resets = time.monotonic(), time.process_time(), _forget_peak()
    spent: dict[str, Any] = {"done": False, "failed": None, "parameters": 0, "trained_parts": 0}
    try:
        yield spent
    finally:
        taken: Cost = spent.pop("taken", Cost())
        peaks = (_peak_mb() if resets else None, before.peak_mb, taken.peak_mb)
        known = [value for value in peaks if value is not None]
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {
            "seconds": before.seconds + taken.seconds + time.monotonic() - began,
            "cpu_seconds": before.cpu_seconds + taken.cpu_seconds + time.process_time() - cpu,
            "peak_mb": max(known) if known else None, **spent,
        })  # fmt: skip


def _forget_peak() -> bool:
    """Let Linux forget the largest memory so far; whether it did."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak_mb() -> float | None:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) / 1024
    return None


__all__ = [
    "ANEW_LABELS", "ANEW_SHARE", "APART", "KEPT", "ONE", "PRETRAINED", "Anew", "Arm", "Cost", "Trained", "allowed", "arms_anew",
    "arms_of", "begun_with", "fewer_labels", "finished", "only", "train", "with_another",
]  # fmt: skip
