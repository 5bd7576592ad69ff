"""Regimes: how a recipe with stages is trained, from a pipeline of parts to one network.

`modular` trains every stage apart on true answers and puts them together. `modular_predicted` goes on from there with
each stage on the others' own answers, still without a gradient between them; `warm_joint` goes on from there on the one
objective, with the gradient. So the two differ in nothing but whether the gradient comes back. `joint` and
`joint_goal_only` begin with that, and `direct` has no stages.

Here: the order of the trainings, their shares of a budget, and how weights are handed over. Not here: one training
(train), the network (stages.py), which regime wins (compare).
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from endwise import train
from endwise.data.dataset import Dataset, fit_contracts, prepare
from endwise.errors import ModelError, refusal, require
from endwise.files import read_json, write_json
from endwise.modalities.base import OUTPUT_ROLE, Contract
from endwise.model import Model
from endwise.network import Network
from endwise.nn.blocks import read_by
from endwise.nn.interface import Encoder
from endwise.nn.size import Size
from endwise.recipe import Recipe, in_order, owner
from endwise.run import Run
from endwise.stages import LatentEncoder, StagedNetwork, direct_recipe, network_of, stage_fields, stage_recipe
from endwise.train import Progress

FACTS, BUDGETS = "stages.json", "budgets.json"
APART_SHARE = 0.5  # of a budget, for training the stages apart before they learn together
LEAST_SHARE = 0.05  # of the stages' budget, for each of them
DEEPEST = 24  # blocks that a network without stages may have to be as large as the stages


def fit(
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    dataset: Dataset | None = None,
    score: bool | None = None,
    stages_in: Path | None = None,
) -> Model:
    """Train a recipe by its regime and evaluate it; the run folder is `model.run`, with one run in `stages/` for each stage
    that was trained apart. See `train.fit` for the arguments. A budget is for all of it together; steps and epochs are
    those of each training. stages_in: the folder of the stages' runs, where regimes of the same rows, length and seed share
    them; of a budget, what those took is used up."""
    from_scratch = recipe.regime in ("joint", "joint_goal_only")
    if not recipe.stages or (from_scratch and not any(stage.run for stage in recipe.stages.values())):
        return train.fit(recipe, out=out, resume=resume, progress=progress, dataset=dataset, score=score)
    began, score = time.monotonic(), dataset is None if score is None else score
    dataset = dataset or prepare(recipe)
    if recipe.regime == "direct":
        ends = direct(recipe, dataset)
        return train.fit(
            ends, out=out, resume=resume, progress=progress, dataset=dataset.narrowed(ends), score=score, began=began
        )
    others = {name: taken(recipe, name) for name, stage in recipe.stages.items() if stage.run is not None}
    agreed = common(recipe, others)  # refused before there is a run
    run = Run.create(recipe, out=out, resume=resume)
    if from_scratch:
        parts = Parts(agreed, others)
    else:
        share = 1.0 if recipe.is_assembled else APART_SHARE
        folder = run.path / "stages" if stages_in is None else stages_in
        parts = apart(recipe, folder, dataset, share=share, progress=progress)
    return train.fit(
        recipe, out=run.path, resume=True, progress=progress, dataset=dataset, score=score, beginning=parts,
        began=began - parts.taken_s,
    )  # fmt: skip


def apart(recipe: Recipe, runs: Path, dataset: Dataset, *, share: float, progress: Progress | None = None) -> "Parts":
    """Every stage trained by itself on the same rows, in a folder of `runs`; those that are finished are taken as they are. share: of
    the budget, for all of them together: each has its part by how long it would train without one."""
    contracts = fit_contracts(recipe, dataset)
    models = {name: taken(recipe, name) for name, stage in recipe.stages.items() if stage.run is not None}
    contracts |= common(recipe, models)
    alone = [name for name, stage in recipe.stages.items() if name not in models and stage.by is None]
    alone.sort(key=in_order(recipe.stages).index)
    budgets, taken_s = _budgets(recipe, runs, alone, dataset, contracts, share), 0.0
    for index, name in enumerate(alone, 1):
        settings = {"train.budget": budgets[name]} if budgets else {}
        folder, own = runs / name, stage_recipe(recipe, name, **settings)
        done = [event for event in Run.open(folder).events() if event["event"] == "done"] if folder.exists() else []
        if done:
            taken_s += done[-1]["time_s"]
            there = Run.create(own, out=folder, resume=True)  # refused where it is another's
            there.same_data(dataset.narrowed(own).fingerprint)
            there.data_lies(own)
            models[name] = there.model()
            continue
        if progress is not None:
            progress({"event": "note", "message": f"stage {name} by itself ({index} of {len(alone)})"})
        makers = {given: str(owner(recipe.stages, given)) for given in recipe.stages[name].shares}
        shared = {given: _part(models[maker], maker).encoder(given) for given, maker in makers.items()}
        models[name] = train.fit(
            own, out=folder, resume=folder.exists(), progress=progress, dataset=dataset.narrowed(own),
            beginning=Parts(contracts, {}, shared),
        )  # fmt: skip
    return Parts(contracts, models, taken_s=taken_s)


def _budgets(
    recipe: Recipe, runs: Path, alone: Sequence[str], dataset: Dataset, contracts: Mapping[str, Contract], share: float
) -> dict[str, float]:
    """Seconds for each stage, as they were first shared out in this folder; none without a budget. In equal parts, a stage that
    adds two numbers would have as long as the one that has to hear them."""
    if recipe.train.budget is None or not alone:
        return {}
    file = runs / BUDGETS
    if file.is_file():
        found: dict[str, float] = read_json(file)
        return found
    wanted, whole = {}, recipe.train.budget * share
    for name in alone if len(alone) > 1 else ():
        own = stage_recipe(recipe, name)
        fields = {field: contracts[field] for field in (*own.inputs, *own.outputs)}
        wanted[name] = train.wanted_s(own, dataset.narrowed(own), fields)
    least = LEAST_SHARE * sum(wanted.values())
    weights = {name: max(least, seconds) for name, seconds in wanted.items()} or dict.fromkeys(alone, 1.0)
    budgets = {name: whole * weight / sum(weights.values()) for name, weight in weights.items()}
    runs.mkdir(parents=True, exist_ok=True)
    write_json(file, budgets)
    return budgets


def direct(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The same two ends in one network of about as many parameters: of the depths from that of the stages up to DEEPEST
    blocks, the one that comes nearest, whether the recipe writes a depth or the dial gives it. A comparison says where even
    that is far off."""
    ends, contracts = direct_recipe(recipe), fit_contracts(recipe, dataset)
    size = Size.of(recipe.train.size, **recipe.trunk.model_dump())
    wanted = _numbers(recipe, contracts, size)
    found, nearest = ends, None
    for depth in range(size.depth, max(size.depth, DEEPEST) + 1):
        deeper = ends.replace(**{"trunk.depth": depth})
        off = abs(_numbers(deeper, contracts, replace(size, depth=depth)) - wanted)
        if nearest is not None and off >= nearest:  # more blocks are more numbers: from here on it is farther
            break
        found, nearest = deeper, off
    return found


def _numbers(recipe: Recipe, contracts: Mapping[str, Contract], size: Size) -> int:
    network = network_of(recipe, {name: contracts[name] for name in (*recipe.inputs, *recipe.outputs)}, size)
    return sum(weight.numel() for weight in network.parameters())


@dataclass(frozen=True)
class Parts:
    """What a staged training begins with: one set of contracts for all stages, and models of stages that were trained
    apart (none: the network starts from scratch). shared: for a stage by itself, the encoders of other stages that it has in
    common with them; they stay as they are. taken_s: how long those took that were trained before."""

    fitted: Mapping[str, Contract]
    models: Mapping[str, Model]
    shared: Mapping[str, Encoder] = dataclasses.field(default_factory=dict)
    taken_s: float = 0.0

    def contracts(self, recipe: Recipe, fitted: Mapping[str, Contract]) -> dict[str, Contract]:
        """The shared ones."""
        return {name: self.fitted.get(name, own) for name, own in fitted.items()}

    def begin(self, model: Model, run: Run) -> list[str]:
        """Fill the stages' networks; what was taken is written to stages.json."""
        network, facts, lines = model.network, {}, []
        for given, encoder in self.shared.items():
            network.encoder(given).load_state_dict(encoder.state_dict())
            network.encoder(given).requires_grad_(False)
            lines.append(f"the encoder of {given} is another stage's and stays as it is")
        for name, trained in self.models.items():
            assert isinstance(network, StagedNetwork)
            own, other = network.stage(name), _part(trained, name)
            require(
                read_by(own.trunk) == read_by(other.trunk), field=f"stages.{name}.from", got=list(own.input_names),
                allowed=f"{list(other.input_names)}, as that run has them: its weights are theirs, one after the other",
                fix="name them in that order; where the stage reads what is behind an answer, train it with trunk: {attention: true}",
            )  # fmt: skip
            latent = tuple(_latent(own) - _latent(other))  # it read answers, and reads what is behind them
            theirs = {key: value for key, value in other.state_dict().items() if not key.startswith(latent)}
            kept = own.state_dict()
            odd = [key for key, value in theirs.items() if key not in kept or kept[key].shape != value.shape]
            require(
                not odd, field=f"stages.{name}.run", got=odd[:3], allowed="the layers that the stage has here",
                fix="declare its fields and train.size alike in both recipes",
            )  # fmt: skip
            fresh = sorted(set(kept) - set(theirs))
            lacking = [key for key in fresh if not key.startswith(latent)]
            require(
                not lacking, field=f"stages.{name}.run", got=lacking[:3], allowed="a run with all layers of the stage",
                fix="train it with the same declarations",
            )  # fmt: skip
            own.load_state_dict({**kept, **theirs})
            numbers = sum(value.numel() for value in theirs.values())
            facts[name] = {"run": str(trained.run.path) if trained.run else None, "numbers": numbers, "fresh": fresh}
            lines.append(f"stage {name}: {numbers:,} numbers from {facts[name]['run']}")
        if facts:
            run.write(FACTS, facts)
        return lines


def taken(recipe: Recipe, name: str) -> Model:
    """The model that `stages.NAME.run` says, of this stage alone or with a stage of this name, proved to be one. RecipeError
    where it is not."""
    run = recipe.stages[name].run
    assert run is not None
    try:
        model = Run.open(run).model(recipe=recipe)
    except ModelError as wrong:
        raise ModelError(f"stages.{name}.run: {wrong}") from None
    there = (model.recipe.inputs, model.recipe.outputs)
    if name in model.recipe.stages:
        there = stage_fields(*there, model.recipe.stages, name)
    wanted = stage_fields(recipe.inputs, recipe.outputs, recipe.stages, name)
    for role, fields, found in zip(("inputs", "outputs"), wanted, there, strict=True):
        for field, declared in fields.items():
            if field not in found or type(found[field]) is not type(declared):
                raise refusal(
                    field=f"stages.{name}.run", got=run, allowed=f"a run with {role}.{field}: {declared.type}",
                    fix="take a run that was trained for this stage",
                )  # fmt: skip
    return model


def common(recipe: Recipe, models: Mapping[str, Model]) -> dict[str, Contract]:
    """The contracts of the fields of these stages. RecipeError where two of them mean different things by one field: what one
    says, the other would read as something else."""
    found: dict[str, tuple[str, Contract]] = {}
    for name, model in models.items():
        for field in (*recipe.stages[name].given, *recipe.stages[name].to):
            own = model.contracts[field]
            first, before = found.setdefault(field, (name, own))
            declared = recipe.outputs.get(field)
            alike = replace(before, count=0, missing=0) == replace(own, count=0, missing=0)
            require(
                alike or (declared is not None and declared.continued(before, own, OUTPUT_ROLE) is not None),
                field=f"stages.{name}.run", got=recipe.stages[name].run,
                allowed=f"a run that learnt the same about {field} (names, symbols, scale) as that of stage {first}",
                fix=f"train both on the same rows, or remove run: from {name}, which is then trained for the other",
            )  # fmt: skip
    return {field: contract for field, (_, contract) in found.items()}


def _part(model: Model, name: str) -> Network:
    """The network of a stage in the model it is taken from."""
    network = model.network
    return network.stage(name) if isinstance(network, StagedNetwork) and name in network.declared else network


def _latent(part: Network) -> set[str]:
    """Where in a stage's network an answer on the way is read as the tokens behind it."""
    return {f"{place}." for place, inside in part.named_modules() if isinstance(inside, LatentEncoder)}


__all__ = ["Parts", "apart", "common", "direct", "fit", "taken"]
