"""What a training has before its first step: the rows, what is known of them, the answers to beat, the batches, and the
objective with the scales of its terms."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from endwise.baselines import Baseline, baselines
from endwise.data.dataset import Dataset, fit_contracts, prepare
from endwise.data.loader import Loader
from endwise.errors import require
from endwise.modalities.base import Contract
from endwise.model import Model
from endwise.objective import Objective, Priors, denominators, term_values
from endwise.optimise import that_pull
from endwise.plan import auto_batch_size, resolve_goal
from endwise.recipe import Recipe
from endwise.train.telling import Progress, note, tell
from endwise.transfer import Beginning
from endwise.weighting import WEIGHTINGS


def read_data(recipe: Recipe, progress: Progress | None) -> Dataset:
    """The recipe's rows, read into the store where they are not in it."""
    tell(progress, "opening the data")
    dataset = prepare(recipe, progress=lambda what, done, total: tell(progress, f"reading {what}", done, total))
    if progress is not None:
        for line in dataset.notes:  # such as rows put aside; the report has them beside the data
            progress(note(line))
    tell(progress, "looking at the training rows")
    return dataset


def contracts_of(recipe: Recipe, dataset: Dataset, origin: Beginning | None) -> dict[str, Contract]:
    """What there is to know before the network is made: from the training rows, and from the run that is begun with."""
    fitted = fit_contracts(recipe, dataset)
    return fitted if origin is None else origin.contracts(recipe, fitted)


def baselines_of(
    recipe: Recipe, dataset: Dataset, model: Model, rows: np.ndarray, progress: Progress | None
) -> Mapping[str, Baseline]:
    """The trivial and classical answers that the network is held against."""
    if not len(rows):
        return {}
    tell(progress, "fitting the baselines")
    return baselines(model.contracts, recipe, dataset, dataset.splits.train, rows)


def training_loader(recipe: Recipe, dataset: Dataset, model: Model) -> Loader:
    """The shuffled batches of the training rows."""
    rows, wanted = dataset.splits.train, recipe.train.batch_size
    batch_size = (
        min(wanted, len(rows))
        if wanted != "auto"
        else auto_batch_size(
            len(rows),
            compares_rows=model.network.compares_rows,
            symbols=model.network.symbols,
        )
    )
    return Loader(dataset, recipe, model.contracts, rows, batch_size=batch_size, seed=recipe.train.seed, shuffle=True)


def first_objective(recipe: Recipe, model: Model, loader: Loader) -> tuple[Objective, list[str]]:
    """What is made small, with its terms' scales from the untrained network: all outputs' terms, or the goal's alone.
    And what is to be said about it: an option that says nothing here is told."""
    first, weighting = _first_terms(model, loader), recipe.objective.weighting
    fixed: dict[str, float] = {}
    if recipe.stages and recipe.regime == "joint_goal_only":
        goal = resolve_goal(recipe, model.contracts).output
        fixed = {term: 0.0 for term in first if term.rpartition(".")[0] != goal}
    if WEIGHTINGS[weighting].norms_every is not None and not recipe.is_assembled:
        pulling = that_pull(model.network, loader.batch(0).to(model.device))
        own = {term: recipe.outputs[term.rpartition(".")[0]].loss_weight for term in first}
        fixed = {**{term: own[term] for term in first if term not in pulling}, **fixed}
    notes = [
        f"objective.weighting: {weighting} has no say in the weight of {term} ({value:g}): it does not pull at the shared tokens"
        for term, value in fixed.items()
        if value > 0
    ]
    if len(first) - len(fixed) < 2 and weighting not in ("fixed", "pcgrad"):
        require(
            bool(recipe.stages),
            field="objective.weighting",
            got=weighting,
            allowed=f"a weighting that does not measure at the shared tokens, where {', '.join(fixed)} does not pull",
            fix="write weighting: fixed, uncertainty, dwa or pcgrad",
        )
        notes = [f"objective.weighting: {weighting} has nothing to weigh in the regime {recipe.regime}"]
        weighting = "fixed"
    known = Priors(recipe.objective.priors, recipe.inputs, recipe.outputs, model.contracts)
    made = Objective(
        recipe.outputs,
        first,
        weighting,
        epoch_steps=loader.batches_per_epoch,
        priors=known if known.priors else None,
        fixed=fixed,
    )
    if made.priors is not None and not recipe.is_assembled:
        made.priors.tried(model.network, loader.batch(0).to(model.device))
    return made, notes


def _first_terms(model: Model, loader: Loader) -> dict[str, float]:
    """Every head's named terms before any step, each on the first batch that has a target for it: where labels are
    rare the very first may have none, and a loss of zero is no scale."""
    network, found = model.network, dict[str, float]()
    network.eval()
    for index in sorted({_first_labelled(loader, name) for name in network.output_names}):
        batch = loader.batch(index).to(model.device)
        with torch.no_grad():
            values = term_values(network, network(batch.inputs, batch.present), batch, denominators(network, batch))
        found |= {name: float(value) for name, value in values.items() if not found.get(name)}
    return found


def _first_labelled(loader: Loader, output: str) -> int:
    """The first batch with a row that counts for this output."""
    counts = loader.dataset.fields[output].present & (loader.dataset.weight > 0)
    return next((index for index in range(loader.batches_per_epoch) if counts[loader.batch_rows(index)].any()), 0)


def data_facts(recipe: Recipe, dataset: Dataset, contracts: Mapping[str, Any]) -> dict[str, Any]:
    """What the report and people want to know about the data, in JSON."""
    fields = {**recipe.inputs, **recipe.outputs}
    return {
        "fingerprint": dataset.fingerprint,
        "rows": {name: len(getattr(dataset.splits, name)) for name in ("train", "val", "test")},
        "split": dataset.splits.how,
        "fields": {
            name: {
                "role": "input" if name in recipe.inputs else "output",
                "type": item.type,
                "summary": item.summary(contracts[name]),
                "missing": contracts[name].missing,
            }
            for name, item in fields.items()
        },
        "bad": [dataclasses.asdict(row) for row in dataset.bad[:100]],
        "bad_count": len(dataset.bad),
        "notes": list(dataset.notes),
    }


def facts_of(recipe: Recipe, dataset: Dataset, contracts: Mapping[str, Any]) -> dict[str, Any]:
    import platform

    import endwise

    return {
        "goal": resolve_goal(recipe, contracts).model_dump(),
        "data_fingerprint": dataset.fingerprint,
        "seed": recipe.train.seed,
        "versions": {
            "endwise": endwise.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
