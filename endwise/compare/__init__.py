"""compare(): does one network beat the pipeline on this task, by how much, and why?

Every regime of a recipe with stages is trained with several seeds under one budget, on the same rows, and judged on the
same test rows: the goal with an interval over rows and seeds, a verdict by a stated rule, what each answer on the way
costs, the curve over fewer labels, a shift, costs. Without stages, the one network stands beside one network for each
output and the baselines.

Here: the order of things and the result. The trainings are arms.py, what is measured on a model measure.py, pooling
findings.py, the rule verdict.py, the sentences words.py; the page is the report's.
"""

import hashlib
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from endwise.baselines import baselines
from endwise.compare import arms as training
from endwise.compare import measure
from endwise.compare.arms import KEPT, PRETRAINED, Arm, Trained
from endwise.compare.findings import Findings, Kept, substitutions
from endwise.compare.measure import NOISE_SHARES, STRENGTHS, Bench, Statistics
from endwise.compare.settings import FILE, Settings, answer, settle
from endwise.compare.words import lines, summary
from endwise.data.dataset import Dataset, fit_contracts, prepare
from endwise.errors import DataError, refusal, require, unknown_name
from endwise.files import plain, read_json, write_json
from endwise.modalities.base import Answer
from endwise.model import Model
from endwise.plan import resolve_goal
from endwise.propose import proposed_answer
from endwise.recipe import Goal, Recipe
from endwise.run import RUNS, Run, default_path
from endwise.stages import StagedNetwork, direct_recipe
from endwise.train import Progress, Stopped

SHIFTED_SHARE = 0.2  # of the rows, held out where a column and no value of it is named


@dataclass(frozen=True)
class Comparison:
    """Frozen result; `to_dict()` is the documented JSON, `run` the folder with the child runs."""

    run: Path
    found: Mapping[str, Any]

    @property
    def verdict(self) -> str:
        """'end-to-end wins', 'use the pipeline', 'no difference' or 'no verdict'."""
        return str(self.found["verdict"])

    def to_dict(self) -> dict[str, Any]:
        """{"goal", "regimes": {regime: {"value", "low", "high", "n", "seeds"}}, "verdict", "attribution", ...}."""
        return {**self.found, "run": str(self.run)}

    def __str__(self) -> str:
        return "\n".join(lines(self.found))


def compare(
    recipe: Recipe,
    *,
    regimes: Sequence[str] | None = None,
    seeds: int | None = None,
    quick: bool = False,
    budget: float | str | None = None,
    shares: Sequence[float] | None = None,
    shift: str | None = None,
    inputs: bool = False,
    pretrained: Mapping[str, str] | None = None,
    retarget: str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Train the regimes of a recipe and set them side by side; the folder with all of it and its report is `.run`.

    regimes: of `recipe.REGIMES`, default all. seeds: trainings of each on all labels, default 3; fewer give no verdict.
    quick: modular_predicted, warm_joint and direct, and one seed on fewer labels. budget: seconds, or text such as 30m,
    for everything, shared out equally; default: what the recipe says for each training. shares: of the labels, beside all
    of them, default 10 and 30 %; () for none. shift: 'column=value', a group that is held out of all trainings and scored
    by itself, or 'column': some of its values; default: disturbed inputs. inputs: also every subset of the inputs.
    pretrained: {input: weights}, as in a recipe: also the one network without stages that begins with them. retarget:
    'column' or 'column:type', also what it costs each regime to learn this column in the place of the goal. out: default
    `runs/compare-<recipe name>`; with `resume` finished trainings are taken, and what was asked for before is asked for
    again.

    The rule of the verdict is `verdict.RULE`. Raises RecipeError and DataError for what cannot be compared, Stopped with
    the line to go on with after Ctrl-C.
    """
    place = Path(out) if out is not None else Path(RUNS) / f"compare-{default_path(recipe).name}"
    settings = settle(
        recipe, place, regimes=regimes, seeds=seeds, quick=quick, budget=budget, shares=shares, shift=shift, inputs=inputs,
        pretrained=pretrained, retarget=retarget, resume=resume,
    )  # fmt: skip
    run = Run.create(recipe, out=place, resume=resume)
    try:
        found = plain(_compared(recipe, settings, run, progress))
    except Stopped as stopped:
        raise Stopped(_how_to_go_on(place), stopped.exit_code) from None
    except KeyboardInterrupt:
        raise Stopped(_how_to_go_on(place), 130) from None
    from endwise.report.comparison import RESULT, build

    write_json(place / RESULT, found)
    build(place)
    return Comparison(place, found)


def _how_to_go_on(place: Path) -> str:
    return f"stopped; what is finished is kept. Go on with: endwise compare {place}/recipe.yaml --out {place} --resume"


def _compared(recipe: Recipe, settings: Settings, run: Run, progress: Progress | None) -> dict[str, Any]:
    began = time.monotonic()
    whole = _read(recipe, progress)
    facts: dict[str, Any] = {"fingerprint": whole.fingerprint, "reading_s": time.monotonic() - began}
    if run.has(FILE):  # finished trainings are taken as they are
        run.same_data(whole.fingerprint)
        for line in run.data_lies(recipe):
            _say(progress, line)
        facts |= run.read("data.json")  # what was decoded then is only looked up now
    dataset, shifted, how = _held_out(whole, settings.shift, recipe.train.seed)
    bench = _bench(recipe, dataset, shifted)
    scales = {} if len(shifted) else measure.disturbable(bench)
    how = how or _disturbed(scales)
    begun = training.begun_with(recipe, settings.pretrained) if settings.pretrained else None
    beginning = bench if begun is None else _with_weights(bench, begun, tuple(settings.pretrained), progress)
    settings, other = _other(bench, settings, progress) if settings.retarget else (settings, None)
    wanted = training.arms_of(
        recipe, settings.ways, len(dataset.splits.train), bench.contracts, seeds=settings.seeds, shares=settings.shares,
        curve_seeds=settings.curve_seeds, budget=settings.each, subsets=settings.inputs, begun=begun,
    )  # fmt: skip
    run.write("data.json", facts)
    run.write(FILE, settings.to_dict())
    kept = []
    for number, arm in enumerate(wanted, 1):
        _say(progress, f"{arm} ({number} of {len(wanted)})")
        kept.append(_arm(arm, run.path, beginning if arm.name == PRETRAINED else bench, scales, progress))
    anew = None if other is None else _anew(other, beginning, settings, kept, run, progress)
    _doing(progress, "fitting the baselines")
    ends = direct_recipe(recipe) if recipe.stages else recipe
    beside = baselines(bench.contracts, ends, dataset, dataset.splits.train, bench.test)
    fewer, elsewhere = (
        _classical_elsewhere(bench, ends, settings) if beside[bench.goal.output]["classical"] else ({}, None)
    )
    found = Findings(bench, kept, beside, fewer, elsewhere, tuple(scales), facts["reading_s"])
    return summary(found, settings, how, anew)


def _classical_elsewhere(
    bench: Bench, ends: Recipe, settings: Settings
) -> tuple[dict[float, list[list[Answer]]], list[Answer] | None]:
    """The classical answers of the goal after learning from the same parts of the labels as the regimes, by share and seed; and on
    the group that was held out, where there is one. What cannot be fitted on so few rows is left out."""
    output, first = bench.goal.output, bench.recipe.train.seed
    goal_alone = training.answering(ends, output)

    def answers(dataset: Dataset, rows: np.ndarray) -> list[Answer] | None:
        return baselines(bench.contracts, goal_alone, dataset, dataset.splits.train, rows)[output]["classical"]

    fewer = {}
    for share in settings.shares if bench.metrics[output].of_term is None else ():
        parts = [training.fewer_labels(bench.dataset, share, first + seed) for seed in range(settings.curve_seeds)]
        made = [found for part in parts if (found := answers(part, bench.test)) is not None]
        if made:
            fewer[share] = made
    return fewer, answers(bench.dataset, bench.shifted) if len(bench.shifted) else None


def _say(progress: Progress | None, message: str) -> None:
    if progress is not None:
        progress({"event": "note", "message": message})


def _inside(progress: Progress | None) -> Progress | None:
    """What one training of many says aloud: its steps, and what goes wrong. Its evaluations and notes are in its own log."""
    if progress is None:
        return None

    def tell(event: Mapping[str, Any]) -> None:
        if event["event"] in ("step", "prepare", "alarm"):
            progress(event)

    return tell


def _doing(progress: Progress | None, what: str, done: int = 0, total: int = 1) -> None:
    if progress is not None:
        progress({"event": "prepare", "what": what, "done": done, "total": total})


# ---- the rows ----------------------------------------------------------------------------------------------------------


def _read(recipe: Recipe, progress: Progress | None) -> Dataset:
    return prepare(recipe, progress=lambda what, done, total: _doing(progress, f"reading {what}", done, total))


def _bench(recipe: Recipe, dataset: Dataset, shifted: np.ndarray) -> Bench:
    contracts = fit_contracts(recipe, dataset)
    goal = resolve_goal(recipe, contracts)
    there = dataset.fields[goal.output].present
    test, val, other = (rows[there[rows]] for rows in (dataset.splits.test, dataset.splits.val, shifted))
    require(
        len(test) > 0, field="data.test", got=f"no test row with {goal.output}", allowed="rows that nothing is learnt from",
        fix="give test rows, or leave the split to endwise: data: {path: ...}", error=DataError,
    )  # fmt: skip
    return Bench(recipe, dataset, contracts, goal, test, val, other)


def _with_weights(bench: Bench, recipe: Recipe, names: tuple[str, ...], progress: Progress | None) -> Bench:
    """The same rows on the same sides, with these inputs as a recipe with other weights reads them. What does not fit the
    weights is refused here, before anything is trained."""
    dataset = _with_fields(bench.dataset, _read(recipe, progress), names)
    sides = dataset.splits
    rows = np.concatenate([sides.train, sides.val, sides.test, bench.shifted])
    for name in names:
        lost = rows[bench.dataset.fields[name].present[rows] & ~dataset.fields[name].present[rows]]
        if len(lost):
            first, reasons = int(lost[0]), dict(dataset.fields[name].bad)
            raise refusal(
                field=f"pretrained: {name}", got=f"{len(lost)} rows that cannot be read for these weights",
                allowed="rows that all ways of training can read",
                fix=f"mend or remove them, the first: {dataset.origin(first)}: {reasons.get(first)}", error=DataError,
            )  # fmt: skip
    Model.build(recipe, fit_contracts(recipe, dataset), seed=0)
    return replace(bench, dataset=dataset)


def _other(bench: Bench, settings: Settings, progress: Progress | None) -> tuple[Settings, Bench]:
    """(what is asked for with the answer declared, the rows that have it and the yardstick for it)."""
    ((name, declared),) = settings.retarget.items()
    bench.dataset.cells(name, (), field="retarget")  # refused where no table has it
    item = answer(name, declared if declared is not None else proposed_answer(bench.dataset.tables[0], name))
    recipe = training.with_another(bench.recipe, bench.goal.output, name, item)
    dataset = _with_fields(bench.dataset, _read(recipe, progress), (name,))
    there, sides = dataset.fields[name].present, dataset.splits
    dataset = dataset.with_sides(
        **{side: sides.side(side)[there[sides.side(side)]] for side in ("train", "val", "test")}
    )
    for side in ("train", "test"):
        require(
            len(dataset.splits.side(side)) > 0, field="retarget", got=f"no {side} row with {name}",
            allowed="a column with values on all sides", fix="name another column", error=DataError,
        )  # fmt: skip
    contracts = fit_contracts(recipe, dataset)
    usual = recipe.outputs[name].metrics(contracts[name])[0]
    goal = Goal(output=name, metric=usual.name, direction=usual.direction)
    rows = dataset.splits
    other = Bench(recipe.replace(goal=goal), dataset, contracts, goal, rows.test, rows.val, np.zeros(0, np.int64))
    return replace(settings, retarget={name: item.to_dict()}), other


def _anew(
    bench: Bench, beginning: Bench, settings: Settings, kept: Sequence[Kept], run: Run, progress: Progress | None
) -> Findings:
    """Another answer, learnt by every way of training whose first one on all labels was finished. beginning: the bench of the
    inputs with weights from elsewhere."""
    names, weights = settings.ways, settings.pretrained
    begun = training.begun_with(bench.recipe, weights) if weights else None
    finished = [
        item.arm for item in kept
        if item.arm.name in names and (item.arm.seed, item.arm.share) == (bench.recipe.train.seed, 1) and not item.cost.failed
    ]  # fmt: skip
    wanted = training.arms_anew(
        bench.recipe,
        finished,
        run.path,
        len(bench.dataset.splits.train),
        bench.contracts,
        budget=settings.each,
        begun=begun,
    )
    own = replace(bench, dataset=_with_fields(bench.dataset, beginning.dataset, tuple(weights)))
    found = []
    for number, arm in enumerate(wanted, 1):
        _say(progress, f"{bench.goal.output}: {arm} ({number} of {len(wanted)})")
        reads_weights = arm.anew is not None and arm.anew.like.name == PRETRAINED
        found.append(_arm(arm, run.path, own if reads_weights else bench, {}, progress))
    return Findings(bench, found, {})


def _with_fields(dataset: Dataset, other: Dataset, names: tuple[str, ...]) -> Dataset:
    """The same rows on the same sides, with these fields as they were read for another recipe of the same data."""
    fields = {name: other.fields[name] for name in names}
    told = hashlib.sha256(dataset.fingerprint.encode())
    for name, store in fields.items():
        told.update(f"\n{name} {store.fingerprint}".encode())
    return replace(
        dataset, fields={**dataset.fields, **fields}, fingerprint=told.hexdigest(),
        columns={**dataset.columns, **{name: other.columns[name] for name in names}},
    )  # fmt: skip


def _held_out(dataset: Dataset, shift: str | None, seed: int) -> tuple[Dataset, np.ndarray, str]:
    """(the data without some groups, their rows, how it is told); nothing is held out where nothing is asked for."""
    none = np.zeros(0, np.int64)
    if shift is None:
        return dataset, none, ""
    column, mark, value = shift.partition("=")
    sides = dataset.splits
    rows = np.sort(np.concatenate([sides.train, sides.val, sides.test]))
    named = np.array([str(cell) for cell in dataset.cells(column, rows, field="shift")])
    names, counts = np.unique(named, return_counts=True)
    if mark and value not in names:
        raise unknown_name(field=f"shift ({column})", got=value, names=names.tolist(), error=DataError)
    require(
        len(names) > 1, field="shift", got=shift, allowed="a column with at least two values",
        fix="name the column that says where a row comes from", error=DataError,
    )  # fmt: skip
    if mark:
        held = [value]
    else:
        order = np.random.default_rng(seed).permutation(len(names))
        enough = int(np.searchsorted(np.cumsum(counts[order]), SHIFTED_SHARE * len(rows))) + 1
        held = sorted(names[order[: min(enough, len(names) - 1)]].tolist())
    gone = rows[np.isin(named, held)]
    left = dataset.with_sides(**{side: np.setdiff1d(sides.side(side), gone) for side in ("train", "val", "test")})
    if not len(left.splits.train) or not len(left.splits.test):
        raise refusal(
            field="shift", got=shift, allowed="a group that leaves rows to train and to test on", fix="hold out a smaller one",
            error=DataError,
        )  # fmt: skip
    told = ", ".join(held[:5]) + (f" and {len(held) - 5} more" if len(held) > 5 else "")
    return left, gone, f"{column} = {told}: held out of all trainings, {len(gone)} rows"


def _disturbed(scales: Mapping[str, float]) -> str:
    if not scales:
        return ""
    noise = [name for name, scale in scales.items() if not np.isnan(scale)]
    symbols = [name for name, scale in scales.items() if np.isnan(scale)]
    told = [f"Gaussian noise on {', '.join(noise)}, in its standard deviations"] if noise else []
    told += [f"symbols of {', '.join(symbols)} replaced by those of other rows, in equal steps"] if symbols else []
    return "; ".join(told)


# ---- one arm -----------------------------------------------------------------------------------------------------------


def _arm(arm: Arm, folder: Path, bench: Bench, scales: Mapping[str, float], progress: Progress | None) -> Kept:
    """Train or take an arm and measure it, or take what was measured."""
    numbers, statistics = folder / KEPT / f"{arm.folder}.json", folder / KEPT / f"{arm.folder}.safetensors"
    trained = training.train(arm, folder, bench.dataset, _inside(progress))
    if trained.cost.failed:
        _say(progress, f"{arm} failed: {trained.cost.failed}")
        return Kept(arm, trained.cost)
    if not numbers.is_file():
        _doing(progress, f"measuring {arm}")
        own, told = _measured(trained, bench, scales, folder)
        save_file({key: np.ascontiguousarray(value) for key, value in own.items()}, statistics)
        write_json(numbers, plain(told))
    return Kept(arm, trained.cost, load_file(statistics), read_json(numbers))


def _measured(
    trained: Trained, bench: Bench, scales: Mapping[str, float], folder: Path
) -> tuple[Statistics, dict[str, Any]]:
    """What is kept of an arm: on fewer labels or inputs, or of another answer, the goal alone."""
    output, arm = bench.goal.output, trained.arm
    model = trained.models[arm.answers(output)]
    if arm.anew is not None:
        return {f"test/{output}": measure.statistics(model, bench, bench.test, [output])[output]}, _cost_of_another(
            trained, bench, folder
        )
    if arm.share < 1 or arm.given:
        few = {f"test/{output}": measure.statistics(model, bench, bench.test, [output])[output]}
        if arm.given and len(bench.val):  # which of the subsets is the best is chosen there
            few["val"] = measure.statistics(model, bench, bench.val, [output])[output]
        return few, {}
    kept: Statistics = {}
    for part, own in trained.models.items():
        outputs = [part] if part else list(own.recipe.outputs)
        found = measure.statistics(own, bench, bench.test, outputs)
        kept |= {f"test/{name}": value for name, value in found.items()}
    if len(bench.val):
        kept["val"] = measure.statistics(model, bench, bench.val, [output])[output]
    if len(bench.shifted):
        kept["shifted"] = measure.statistics(model, bench, bench.shifted, [output])[output]
    for strength in STRENGTHS if scales else ():
        predict = measure.with_disturbed_inputs(scales, strength)
        kept[f"disturbed/{strength:g}"] = measure.statistics(model, bench, bench.some, [output], predict)[output]
    if isinstance(model.network, StagedNetwork):
        kept |= _on_the_way(trained, bench, folder)
    kept |= {f"put_out/{what}": value for what, value in measure.faithfulness(model, bench).items()}
    each = [measure.latency(own, bench) for own in trained.models.values()]  # one after another, for all answers
    told = {
        "latency": {
            **{name: sum(item[name] for item in each) for name in each[0]},
            "n": min(item["n"] for item in each),
        },
        "first_answer_s": measure.first_answer_s(lambda: training.finished(arm, folder), bench),
        "reach": measure.reach(model, bench),
    }
    return kept, told


def _cost_of_another(trained: Trained, bench: Bench, folder: Path) -> dict[str, Any]:
    """{"labels": how many the arm had, "changed": see `measure.changed`, of one that went on}."""
    arm, output = trained.arm, bench.goal.output
    found: dict[str, Any] = {"labels": len(training.fewer_labels(bench.dataset, arm.share, arm.seed).splits.train)}
    if arm.anew is not None and arm.anew.goes_on:
        before = training.finished(arm.anew.like, folder)
        (part,) = set(before) - set(bench.recipe.outputs)  # '', or the network that answered the goal
        beside = sum(model.parameters for name, model in before.items() if name != part)
        found["changed"] = measure.changed(trained.models[arm.answers(output)], before[part], beside)
    return found


def _on_the_way(trained: Trained, bench: Bench, folder: Path) -> Statistics:
    """The goal with answers on the way replaced by the truth, with noise on them, and with another training's first
    stage."""
    model, output, kept = trained.models[""], bench.goal.output, dict[str, np.ndarray]()
    assert isinstance(model.network, StagedNetwork)
    stages = model.network.declared.values()
    latent = {name for stage in stages if stage.hand_off == "latent" for name in stage.given}
    for replaced in substitutions(bench.recipe.intermediates):
        if not latent & set(replaced):
            found = measure.statistics(model, bench, bench.some, [output], measure.with_truth(replaced))
            kept[f"truth/{'+'.join(replaced)}"] = found[output]
    for name, share in itertools.product(bench.recipe.intermediates, NOISE_SHARES):
        found = measure.statistics(model, bench, bench.some, [output], measure.with_noise(name, share))
        kept[f"noise/{name}/{share:g}"] = found[output]
    first = Run(folder / trained.arm.with_seed(bench.recipe.train.seed).folder)
    if trained.arm.seed != bench.recipe.train.seed and first.model_folder.is_dir():
        exchanged = measure.with_first_stage_of(model, first.model(recipe=trained.arm.parts[""]))
        kept["exchanged"] = measure.statistics(model, bench, bench.some, [output], exchanged)[output]
    return kept


__all__ = ["Comparison", "compare"]
