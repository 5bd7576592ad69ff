"""Beginning with another run: `from_run: runs/pretrain` takes what that run's network has learnt, part by part.

A part is an input's encoder, the trunk, or an output's head; it is taken where both networks have it by the same name.
Weights mean something only beside the contract they were learnt with (units, scales), so the contracts of the shared
inputs are that run's as well. A network in stages that answers one thing anew begins with the run of the same stages.
Here: which parts fit, what is refused, what is said about it. Not here: training.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from endwise.artefact import DESCRIPTION, find_model
from endwise.errors import refusal, require
from endwise.files import read_json
from endwise.modalities import TABLE
from endwise.modalities.base import INPUT_ROLE, OUTPUT_ROLE, Contract, Modality
from endwise.model import Model
from endwise.network import TRUNK
from endwise.nn.blocks import read_by
from endwise.nn.hiding import STAND_IN
from endwise.nn.size import Size
from endwise.recipe import FromRun, Recipe
from endwise.run import Run
from endwise.stages import StagedNetwork

FACTS = "from_run.json"
PLACE = ("column", "optional", "loss_weight")  # of a declaration: what weights do not depend on


class Beginning(Protocol):
    """What a training begins with in the place of fresh weights."""

    def contracts(self, recipe: Recipe, fitted: Mapping[str, Contract]) -> dict[str, Contract]:
        """The contracts to train with, given those fitted on this data."""
        ...

    def begin(self, model: Model, run: Run) -> list[str]:
        """Fill the untrained model, write down with what; the lines for people."""
        ...


@dataclass(frozen=True)
class Origin:
    """The model that a recipe begins with, proved to fit it. sha256: of its weights."""

    model: Model
    asked: FromRun
    sha256: str

    @classmethod
    def of(cls, recipe: Recipe) -> "Origin | None":
        """What `recipe.from_run` names; None where it names nothing. RecipeError where nothing of it could be used."""
        asked = recipe.from_run
        if asked is None:
            return None
        place = find_model(asked.run)
        declared = [*recipe.inputs.values(), *recipe.outputs.values()]
        outside = list({type(item) for item in declared if item.type not in TABLE})
        model = Model.load(place, modalities=outside)
        shared = [name for name in recipe.inputs if name in model.recipe.inputs]
        require(
            bool(shared),
            field="inputs",
            got=list(recipe.inputs),
            allowed=f"at least one input of {asked.run}: {', '.join(model.recipe.inputs)}",
            fix="give the input that run's name, and say column: for the column's own",
        )
        for name in shared:
            _same_declaration(name, recipe.inputs[name], model.recipe.inputs[name], asked.run)
        _same_size(recipe, model, asked.run)
        return cls(model, asked, str(read_json(place / DESCRIPTION)["weights"]["sha256"]))

    def contracts(self, recipe: Recipe, fitted: Mapping[str, Contract]) -> dict[str, Contract]:
        """The contracts to train with: of shared inputs, and outputs that can go on, that run's, of everything else those fitted on
        this data."""
        found = dict(fitted)
        for name, item in recipe.outputs.items():
            other = self.model.recipe.outputs.get(name)
            if other is not None and not _different(item, other):
                going_on = item.continued(self.model.contracts[name], fitted[name], OUTPUT_ROLE)
                found[name] = fitted[name] if going_on is None else going_on
        for name, item in recipe.inputs.items():
            if name in self.model.recipe.inputs:
                continued = item.continued(self.model.contracts[name], fitted[name], INPUT_ROLE)
                assert continued is not None, "an input goes on with the contract its weights were learnt with"
                found[name] = continued
        return found

    def fill(self, model: Model) -> dict[str, Any]:
        """Put the weights into an untrained model; what was taken and what was not, for the log, the model and people:
        {"run", "sha256", "freeze", "taken": [part], "numbers": how many, "fresh": [part], "left": [part of that run]}."""
        theirs, ours = self.model.network.parts(), model.network.parts()
        taken, numbers = [], 0
        for name, part in ours.items():
            if name not in theirs or not self._means_the_same(name, model):
                continue
            given, own = theirs[name].state_dict(), part.state_dict()
            both = {key: value for key, value in given.items() if key in own and own[key].shape == value.shape}
            odd = sorted(key for key in set(given) ^ set(both) | set(own) ^ set(both) if not key.endswith(STAND_IN))
            require(
                not odd,
                field=f"from_run: {name}",
                got=odd[:3],
                allowed=f"the layers that it has in {self.asked.run}",
                fix="declare it alike in both recipes; what a default depends on (of a text: reading) is to be written out",
            )
            with torch.no_grad():
                part.load_state_dict({**own, **both})
            taken.append(name)
            numbers += sum(value.numel() for value in both.values())
            if self.asked.freeze and not name.startswith(f"{OUTPUT_ROLE}s."):
                frozen = part if name == TRUNK else model.network.encoder(name.partition(".")[2])
                frozen.requires_grad_(False)
        return {
            **self.asked.model_dump(),
            "sha256": self.sha256,
            "taken": taken,
            "numbers": numbers,
            "fresh": [name for name in ours if name not in taken],
            "left": [name for name in theirs if name not in taken],
        }

    def begin(self, model: Model, run: Run) -> list[str]:
        """Fill an untrained model and write down with what; the lines for people. A resumed run must find the weights it
        began with."""
        facts = self.fill(model)
        if run.has(FACTS):
            before = run.read(FACTS)["sha256"]
            require(
                before == self.sha256,
                field="from_run",
                got=self.asked.run,
                allowed=f"the weights this run began with (sha256 {before[:12]})",
                fix="that run has been trained anew since: start a new run with another --out",
            )
        run.write(FACTS, facts)
        model.info["from_run"] = facts
        taken = f"{', '.join(facts['taken'])} ({facts['numbers']:,} numbers{', frozen' if facts['freeze'] else ''})"
        fresh = ", ".join(facts["fresh"]) or "nothing"
        left = f"; not used of it: {', '.join(facts['left'])}" if facts["left"] else ""
        return [f"from {facts['run']}: {taken}; fresh: {fresh}{left}"]

    def _means_the_same(self, part: str, model: Model) -> bool:
        """Whether a part's weights say the same there as here; inputs have been proved to, and attention, which is the same for
        all of them. A perceptron has weights for each input."""
        if part == TRUNK:
            ours, theirs = model.network.trunk, self.model.network.trunk
            return type(ours) is type(theirs) and read_by(ours) == read_by(theirs)
        role, _, name = part.partition(".")
        if role != f"{OUTPUT_ROLE}s":
            return True
        item, other = model.recipe.outputs[name], self.model.recipe.outputs[name]
        if _different(item, other):
            return False
        return item.continued(self.model.contracts[name], model.contracts[name], OUTPUT_ROLE) is not None


@dataclass(frozen=True)
class Redirected:
    """The finished model that another of the same stages begins with, where one stage answers something that it did not answer
    there. Of that stage all is taken but what is new or of another shape; the other stages are taken and stay as they are.
    alone: whether the stage is trained by itself."""

    model: Model
    stage: str
    alone: bool = False

    def contracts(self, recipe: Recipe, fitted: Mapping[str, Contract]) -> dict[str, Contract]:
        """That model's, of all fields that it has: its weights read and say nothing else."""
        return {name: self.model.contracts.get(name, own) for name, own in fitted.items()}

    def begin(self, model: Model, run: Run) -> list[str]:
        """Fill an untrained model and write down with what; the lines for people."""
        network, given = model.network, self.model.network
        assert isinstance(given, StagedNetwork)
        theirs = (given.stage(self.stage) if self.alone else given).parts()
        taken = [name for name, part in network.parts().items() if name in theirs and _alike(part, theirs[name])]
        for name in taken:
            network.parts()[name].load_state_dict(theirs[name].state_dict())
        frozen: list[nn.Module] = [network.encoder(name) for name in self.model.recipe.stages[self.stage].shares]
        if not self.alone:
            assert isinstance(network, StagedNetwork)
            frozen += [network.stage(name) for name in network.declared if name != self.stage]
        for part in frozen:
            _stay(part)
        fresh = [name for name in network.parts() if name not in taken]
        place = str(self.model.run.path) if self.model.run else None
        run.write(FACTS, {"run": place, "stage": self.stage, "taken": taken, "fresh": fresh})
        return [f"from {place}: {', '.join(taken)}; fresh: {', '.join(fresh)}"]


def _alike(one: nn.Module, other: nn.Module) -> bool:
    """Whether the weights of one fit the other."""
    if read_by(one) != read_by(other):
        return False
    shapes = [{key: value.shape for key, value in part.state_dict().items()} for part in (one, other)]
    return shapes[0] == shapes[1]


def _stay(part: nn.Module) -> None:
    """Neither the weights learn nor do the statistics of batches move."""
    part.requires_grad_(False)
    for layer in part.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.0


def _different(one: Modality, other: Modality) -> list[str]:
    """The fields in which two declarations differ, PLACE apart."""
    if type(one) is not type(other):
        return ["type"]
    names = [item.name for item in dataclasses.fields(one) if item.name not in PLACE]
    return [name for name in names if getattr(one, name) != getattr(other, name)]


def _same_declaration(name: str, item: Modality, other: Modality, run: str) -> None:
    for field in _different(item, other):
        got, wanted = getattr(item, field), getattr(other, field)
        raise refusal(
            field=f"inputs.{name}.{field}",
            got=got,
            allowed=f"{wanted!r}, as in {run}: its weights mean nothing beside another",
            fix=f"write {field}: {'null' if wanted is None else wanted}, or give the input another name to learn it from scratch",
        )


def _same_size(recipe: Recipe, model: Model, run: str) -> None:
    own, theirs = Size.of(recipe.train.size, **recipe.trunk.model_dump()), model.size
    for name in ("dial", "width", "depth", "heads"):
        if getattr(own, name) != getattr(theirs, name):
            dial, trunk = model.recipe.train.size, model.recipe.trunk.model_dump(exclude_defaults=True)
            raise refusal(
                field="train.size" if name == "dial" else f"trunk.{name}",
                got=recipe.train.size if name == "dial" else getattr(own, name),
                allowed=f"the size of {run}",
                fix=f"write train.size: {dial}" + (f" and trunk: {trunk}" if trunk else " and no trunk:"),
            )
