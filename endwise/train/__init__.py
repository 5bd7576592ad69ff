"""fit(): from a recipe to an evaluated model in a run folder. The loop is `loop`, to be read and copied; one step of it
is `optimise.step`, what is decided before it is `plan.resolve`, what survives a kill is `checkpoint`.

    opening     what there is before step 0       loop        the steps        validation  what is looked at between them
    budget      how many fit a time limit         stopping    Ctrl-C           telling     the events of the log

Every step is a pure function of (weights, plan, step): the batch comes from (data, seed, step), dropout and
augmentation from (seed, step). So a resumed run repeats the killed one bit for bit.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from endwise import heap, lineage
from endwise.data.dataset import Dataset
from endwise.data.manifest import manifest
from endwise.evaluate import cross_validate
from endwise.model import Model
from endwise.plan import Plan
from endwise.plan import wanted_s as steps_s
from endwise.recipe import Recipe
from endwise.run import Run
from endwise.train.budget import resolved
from endwise.train.loop import Trainer
from endwise.train.opening import contracts_of, data_facts, facts_of, first_objective, read_data, training_loader
from endwise.train.stopping import Signals, Stopped
from endwise.train.telling import Progress, note, speaker, tell
from endwise.transfer import Beginning, Origin

SMALL_TABLE, SMALL_TABLE_FOLDS = 500, 5


@heap.kept()
def fit(
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    dataset: Dataset | None = None,
    score: bool | None = None,
    beginning: Beginning | None = None,
    began: float | None = None,
) -> Model:
    """Train the recipe's one network and evaluate it; the run folder is `model.run`.

    out: the run folder (default `runs/<recipe name>`); an existing one is refused unless `resume`, which goes on from
    its last whole checkpoint and refuses a changed recipe or changed data (which may lie elsewhere by now). progress:
    called with each event that goes to the log. dataset: rows prepared from this recipe's data, on the sides they are on (a subset of the labels, see
    `Dataset.with_sides`), instead of all of them. score: whether the model is evaluated and held against baselines in the
    end; default: unless a dataset is given, whose rows to score are the caller's. beginning: the weights and contracts it
    begins with, in the place of `recipe.from_run`. began: since when the budget has been running (`time.monotonic`). Raises
    Stopped (exit code 130 or 143) after SIGINT or SIGTERM, with everything saved.
    """
    began = time.monotonic() if began is None else began
    run = Run.create(recipe, out=out, resume=resume)
    with run.locked(), Signals() as signals, _own_threads():
        say = speaker(run, progress)
        origin = beginning or Origin.of(recipe)  # what cannot be begun with is refused before anything is read
        scores = dataset is None if score is None else score
        dataset = read_data(recipe, progress) if dataset is None else dataset
        if begun := run.has("plan.json"):  # a training that has begun goes on with the rows it began with
            run.same_data(dataset.fingerprint)
        contracts = contracts_of(recipe, dataset, origin)
        made_of = manifest(recipe, dataset, lambda what, done, of: tell(progress, what, done, of))
        run.write("data.json", {**data_facts(recipe, dataset, contracts), "files": made_of.summary()})
        traced, notes = lineage.write_down(run.path, made_of.files, _accelerator(), begun=begun)
        for line in notes:
            say(note(line))
        model = Model.build(recipe, contracts, seed=recipe.train.seed)
        model.run = run
        model.info.update({**facts_of(recipe, dataset, contracts), lineage.ENTRY: traced})
        started = origin.begin(model, run) if origin is not None else []
        for line in [*started, *run.data_lies(recipe)]:
            say(note(line))
        trainer = Trainer(run, recipe, dataset, model, signals, say, progress, began, scores=scores)
        if not trainer.finished:
            trainer.train()
        tell(progress, "evaluating")
        trainer.finish()
    return model


@heap.kept()
def dry_run(recipe: Recipe, *, progress: Progress | None = None) -> tuple[Plan, dict[str, Any]]:
    """What `fit` would do, without doing it: the plan (with the measured time of a step) and the facts of the data.
    Reads the data into the store and trains nothing."""
    began = time.monotonic()
    origin = Origin.of(recipe)
    dataset = read_data(recipe, progress)
    contracts = contracts_of(recipe, dataset, origin)
    model = Model.build(recipe, contracts, seed=recipe.train.seed)
    tell(progress, "measuring a step")
    if origin is not None:
        origin.fill(model)
    loader = training_loader(recipe, dataset, model)
    objective, _ = first_objective(recipe, model, loader)
    plan = resolved(recipe, dataset, model, loader, objective, time.monotonic() - began)
    return plan, data_facts(recipe, dataset, contracts)


def fit_folds(recipe: Recipe, run: Run, *, k: int | None = None, progress: Progress | None = None) -> bool:
    """k more trainings, each row held out once, into `run`/folds and folds.json; whether there were any.

    k: None means 5 for a table of under 500 rows that we split ourselves (one split of so few rows says little) when
    there is no time budget, and none otherwise; 0 means none.
    """
    if k is None:
        rows = sum(run.read("data.json")["rows"].values())
        ours = recipe.data.path is not None and not any((recipe.data.time, recipe.data.split, recipe.data.windows))
        official = "official" in run.read("data.json")["split"]
        k = SMALL_TABLE_FOLDS if rows < SMALL_TABLE and ours and not official and recipe.train.budget is None else 0
    if k == 0:
        return False

    def fit_fold(fold: Recipe) -> Model:
        return fit(fold, out=run.path / "folds" / str(fold.name), resume=True, progress=progress)

    run.write("folds.json", cross_validate(recipe, fit_fold, k).to_dict())
    return True


def wanted_s(recipe: Recipe, dataset: Dataset, contracts: Mapping[str, Any]) -> float:
    """About how many seconds of steps a training of these rows would have without a budget."""
    model = Model.build(recipe, contracts, seed=recipe.train.seed)
    loader = training_loader(recipe, dataset, model)
    objective, _ = first_objective(recipe, model, loader)
    return steps_s(
        recipe, network=model.network, objective=objective, first=loader.batch(0), rows=len(dataset.splits.train),
        batch_size=loader.batch_size,
    )  # fmt: skip


@contextlib.contextmanager
def _own_threads() -> Iterator[None]:
    """The plan's thread count rules this training alone: the caller's is back afterwards."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _accelerator() -> str:
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"


__all__ = ["Progress", "Stopped", "dry_run", "fit", "fit_folds", "wanted_s"]
