"""Stages: a pipeline and one network from the same recipe.

Each stage is a network of its own, from what it reads to what it answers; a staged network is these one after the
other. What a stage answers goes to the next by a hand-off, which says whether a gradient comes back. An answer on the
way is an output like any other: with a label it has a loss and a metric, with or without one it can be looked at.

Here: the stages' own recipes, the network made of them, and the hand-offs. Not here: what is trained in which order, and
beginning with stages that were trained apart (regimes.py); which wins (compare).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.batch import Batch, Ragged
from endwise.errors import BadValue, EndwiseError, refusal, require
from endwise.modalities.base import Contract, Modality
from endwise.network import Network, Predictions
from endwise.nn.interface import Encoder, Handed, Head, Tokens
from endwise.nn.size import Size
from endwise.recipe import PARTED, Recipe, Stage, in_order, owner, standing
from endwise.rows import collate

ANSWER = "answer"  # the one field of a row that is written and read again
TAUGHT_UNTIL = 0.5  # of the steps: from there on a stage gets none of the true answers

Change = Callable[
    [str, Ragged, bool], Ragged
]  # (answer on the way, as it is handed on, is it symbols?) -> what goes on


def stage_recipe(recipe: Recipe, name: str, **settings: Any) -> Recipe:
    """The recipe of one stage by itself, on true answers of the stages before it. settings: dotted fields, as in
    `Recipe.replace`."""
    inputs, outputs = stage_fields(recipe.inputs, recipe.outputs, recipe.stages, name)
    # what it reads in the place of an answer is tokens once the stages stand together: its trunk attends to them from the start
    behind = recipe.stages[name].hand_off == "latent" and any(item.handed for item in inputs.values())
    mine = recipe.goal is not None and recipe.goal.output in outputs
    own = Recipe(
        name=f"{recipe.name or 'recipe'}-{name}",
        data=recipe.data,
        inputs=inputs,
        outputs=outputs,
        goal=recipe.goal if mine else None,
        objective=recipe.objective.among(inputs, outputs, [*recipe.inputs, *recipe.outputs]),
        trunk=recipe.trunk.model_copy(update={"attention": True}) if behind else recipe.trunk,
        train=recipe.train,
    )
    return own.replace(**settings) if settings else own


def direct_recipe(recipe: Recipe) -> Recipe:
    """The same two ends without the stages in between: every input, and the outputs that no stage reads."""
    ends = {name: item for name, item in recipe.outputs.items() if name not in recipe.intermediates}
    kept = recipe.goal if recipe.goal is not None and recipe.goal.output in ends else None
    return Recipe(
        name=recipe.name, data=recipe.data, inputs=dict(recipe.inputs), outputs=ends, goal=kept,
        objective=recipe.objective.among(recipe.inputs, ends, [*recipe.inputs, *recipe.outputs]),
        trunk=recipe.trunk, train=recipe.train,
    )  # fmt: skip


def stage_fields(
    inputs: Mapping[str, Modality], outputs: Mapping[str, Modality], stages: Mapping[str, Stage], name: str
) -> tuple[dict[str, Modality], dict[str, Modality]]:
    """What one stage reads and answers, as its declarations stand in it: answers of other stages as `handed` inputs."""

    stage = stages[name]
    given = {
        item: inputs[item] if item in inputs else replace(standing(item, inputs, outputs, stages), handed=True)
        for item in stage.given
    }
    return given, {item: outputs[item] for item in stage.to}


# ---- the network -----------------------------------------------------------------------------------------------------


def network_of(recipe: Recipe, contracts: Mapping[str, Contract], size: Size) -> Network:
    """The network of a recipe, in stages where it has them."""
    if not recipe.stages:
        return Network(recipe.inputs, recipe.outputs, contracts, size)
    stages = recipe.stages
    if recipe.regime in PARTED:
        stages = {name: stage.model_copy(update={"hand_off": "hard"}) for name, stage in stages.items()}
    return StagedNetwork(recipe.inputs, recipe.outputs, stages, contracts, size)


class StagedNetwork(Network):
    """One network for each stage, and a hand-off for each answer that goes on. Its shared tokens are the first stage's."""

    def __init__(
        self,
        inputs: Mapping[str, Modality],
        outputs: Mapping[str, Modality],
        stages: Mapping[str, Stage],
        contracts: Mapping[str, Contract],
        size: Size,
    ) -> None:
        nn.Module.__init__(self)
        self.size, self.declared = size, {name: stages[name] for name in in_order(stages)}
        learnt = {given for stage in stages.values() if stage.by is None for given in stage.given}
        self.input_names, self.output_names = tuple(name for name in inputs if name in learnt), tuple(outputs)
        made: dict[str, Network] = {}
        self.owners = {given: owner(stages, given) for stage in stages.values() for given in stage.shares}
        for name, stage in self.declared.items():
            given, answered = stage_fields(inputs, outputs, stages, name)
            if stage.by is not None:
                made[name] = Computed(name, stage, {**inputs, **outputs}, contracts, size)
                continue
            latent = [item for item in stage.given if item in outputs and stage.hand_off == "latent"]
            encoders: dict[str, Encoder] = {item: LatentEncoder(size) for item in latent}
            encoders |= {item: made[str(self.owners[item])].encoder(item) for item in stage.shares}
            made[name] = Network(given, answered, contracts, size, encoders=encoders)
        self.stages = nn.ModuleDict({_key(name): part for name, part in made.items()})
        self.maker = {output: name for name, stage in self.declared.items() for output in stage.to}
        going = {
            given for stage in stages.values() if stage.hand_off == "hard" and stage.by is None for given in stage.given
        }
        self.written = {
            name: Written(outputs[name], contracts[name])
            for name in sorted(going & set(outputs))
            if type(self.head(name)).handed is Head.handed
        }
        self.compares_rows = any(part.compares_rows for part in made.values())
        self.symbols = max(part.symbols for part in made.values())
        self.drafts = max(part.drafts for part in made.values())

    def stage(self, name: str) -> Network:
        """The network of one stage."""
        found = self.stages[_key(name)]
        assert isinstance(found, Network)
        return found

    def forward(self, inputs: Mapping[str, Ragged], present: Mapping[str, Tensor]) -> Predictions:
        """Raw predictions of every stage's heads: {output: {name: tensor}}."""
        return self.run(inputs, present)[0]

    def taught(self, batch: Batch, done: float) -> tuple[Predictions, dict[str, Tensor]]:
        """As `Network.taught`, every stage's tokens a place; where a stage is forced, true answers are in the place of some
        of the others'."""
        predictions, tokens = self.run(batch.inputs, batch.present, gold=batch, done=done)
        return predictions, {name: found.values for name, found in tokens.items()}

    def run(
        self,
        inputs: Mapping[str, Ragged],
        present: Mapping[str, Tensor],
        *,
        gold: Batch | None = None,
        done: float = 1.0,
        truth: Iterable[str] = (),
        change: Change | None = None,
    ) -> tuple[Predictions, dict[str, Tokens]]:
        """The predictions, and every stage's tokens. gold: where true answers are, for stages that are forced, and for
        those in `truth`, which are replaced by them in every row that has one. change: what is done to every answer on
        its way to a next stage, to see what comes of it."""
        predictions: Predictions = {}
        tokens: dict[str, Tokens] = {}
        encoded: dict[str, Tokens] = {}
        for name, stage in self.declared.items():
            fields, flags = dict[str, Ragged](), dict[str, Tensor]()
            for given in stage.given:
                if given not in self.maker:
                    fields[given], flags[given] = inputs[given], present[given]
                    continue
                fields[given], flags[given], symbols = self._handed(given, stage, predictions, tokens, done)
                share = 1.0 if given in truth else self._forced(stage, done)
                if gold is not None and share > 0 and stage.hand_off != "latent":
                    fields[given], taught = _with_truth(fields[given], gold.targets[given], gold.present[given], share)
                    flags[given] = flags[given] | taught
                if change is not None:
                    fields[given] = change(given, fields[given], symbols)
            part = self.stage(name)
            if isinstance(part, Computed):
                predictions |= part.told(fields, flags)
                continue
            for given in stage.given:
                if self.owners.get(given) == name:
                    encoded[given] = part.encoder(given)(fields[given].values, fields[given].sizes)
            common = [given for given in stage.given if given in stage.shares or self.owners.get(given) == name]
            own = {given: encoded[given] for given in common}
            tokens[name] = part.tokens_with(own, fields, flags)
            predictions |= part.answer(tokens[name])
        return predictions, tokens

    def _forced(self, stage: Stage, done: float) -> float:
        return stage.teacher_forcing * max(0.0, 1 - done / TAUGHT_UNTIL) if self.training else 0.0

    def _handed(
        self, output: str, stage: Stage, predictions: Predictions, tokens: Mapping[str, Tokens], done: float
    ) -> tuple[Ragged, Tensor, bool]:
        """What goes on, which rows have any, and whether it is symbols or chances of them."""
        if stage.hand_off == "latent":
            found = tokens[self.maker[output]]
            values = found.values.detach() if stage.detach else found.values
            return Ragged(values, found.mask), _all_of(values), False
        head = self.head(output)
        greedy = self.training or stage.hand_off != "hard"
        if output in self.written:
            return self.written[output].read_again(head, predictions[output], draft=greedy)
        first, last = stage.temperature
        cooled = last if not self.training else math.exp(math.log(first) + done * math.log(last / first))
        handed = head.handed(predictions[output], greedy=greedy)
        values = hand_off(handed, stage.hand_off, temperature=cooled, training=self.training)
        values = values.detach() if stage.detach else values
        return Ragged(values, handed.sizes), _all_of(values), handed.scores is not None

    # ---- what callers ask a network for -------------------------------------------------------------------------

    def tokens(self, inputs: Mapping[str, Ragged], present: Mapping[str, Tensor]) -> Tokens:
        """The last stage's tokens: behind them is what is answered at the end."""
        return list(self.run(inputs, present)[1].values())[-1]

    @property
    def inputs(self) -> nn.ModuleDict:  # type: ignore[override]
        """The raw inputs, each as the first stage that reads it has it."""
        first = {
            given: self.stage(name).inputs[key]
            for name, stage in reversed(self.declared.items())
            if stage.by is None
            for given, key in zip(stage.given, self.stage(name).inputs, strict=True)
        }
        return nn.ModuleDict({_key(name): first[name] for name in self.input_names})

    @property
    def trunk(self) -> None:  # type: ignore[override]
        """There is none that all outputs share."""

    def encoder(self, name: str) -> Encoder:
        """The encoder of a raw input, in the first stage that reads it."""
        reading = (stage for stage, item in self.declared.items() if name in item.given and item.by is None)
        return self.stage(next(reading)).encoder(name)

    def never_missing(self, names: Sequence[str]) -> None:
        """In every stage that reads them."""
        for name, stage in self.declared.items():
            if stage.by is None:
                self.stage(name).never_missing([given for given in stage.given if given in names])

    def head(self, output: str) -> Head:
        """The head of one output."""
        return self.stage(self.maker[output]).head(output)

    def load_pretrained(self) -> None:
        """Of every stage's raw inputs."""
        for name in self.declared:
            self.stage(name).load_pretrained()

    def layers(self) -> dict[str, nn.Module]:
        """'hear.recording 1', 'hear.trunk 1', 'add.words 1' ..."""
        return {
            f"{name}.{layer}": found for name in self.declared for layer, found in self.stage(name).layers().items()
        }

    def parts(self) -> dict[str, nn.Module]:
        """'hear.inputs.recording', 'hear.outputs.words', 'add.inputs.words' ..."""
        return {f"{name}.{part}": found for name in self.declared for part, found in self.stage(name).parts().items()}


@dataclass(frozen=True)
class Written:
    """An answer that goes on as whoever writes it down and reads it again has it: a recording, a picture, a ranking. No
    gradient goes back and no graph holds it, so that this is what `hard` is where a head has no shorter way."""

    item: Modality
    contract: Contract

    @torch.no_grad()
    def read_again(self, head: Head, prediction: dict[str, Tensor], *, draft: bool) -> tuple[Ragged, Tensor, bool]:
        """What goes on, which rows have any (silence and an empty ranking are no answers), and whether it is symbols."""
        decoded = (head.draft if draft else head.decode)(prediction)
        device = next(iter(decoded.values())).device
        arrays = {key: value.cpu().numpy() for key, value in decoded.items()}
        rows = [
            {ANSWER: self._again({key: value[row] for key, value in arrays.items()})}
            for row in range(len(next(iter(arrays.values()))))
        ]
        fields, present = collate({ANSWER: self.item}, {ANSWER: self.contract}, rows)
        found = fields[ANSWER].to(device)
        return found, torch.from_numpy(present[ANSWER]).to(device), found.values.dtype == torch.int64

    def _again(self, decoded: Mapping[str, np.ndarray]) -> np.ndarray | None:
        try:
            return self.item.transform(
                self.item.read(self.item.write(decoded, self.contract).value, _no_file), self.contract
            )
        except BadValue:
            return None


def _no_file(path: str) -> bytes:
    raise BadValue(f"an answer holds no path, and this one holds {path!r}")


class Computed(Network):
    """A stage that a function answers: what is handed on goes to it as the user's kind of value, a raw input as it was read, and
    what it says is read as a label is."""

    def __init__(
        self,
        name: str,
        stage: Stage,
        fields: Mapping[str, Modality],
        contracts: Mapping[str, Contract],
        size: Size,
    ) -> None:
        (answered,) = stage.to
        super().__init__({}, {answered: fields[answered]}, contracts, size)
        self.requires_grad_(False)
        self.name, self.answered, self.function = name, answered, stage.by
        self.declared = {item: fields[item] for item in (*stage.given, answered)}
        self.contracts = {item: contracts[item] for item in self.declared}

    def told(self, given: Mapping[str, Ragged], present: Mapping[str, Tensor]) -> Predictions:
        """The function's answer to every row, as the head would predict it with certainty. RecipeError where it gives what
        cannot be read, or raises."""
        first = next(iter(given.values())).values
        there = {item: flags.tolist() for item, flags in present.items()}
        rows = [
            {item: self._said(item, found, row) if there[item][row] else None for item, found in given.items()}
            for row in range(len(first))
        ]
        targets = torch.stack([self._target(row) for row in rows])
        return {self.answered: self.head(self.answered).certain(targets.to(first.device))}

    def _said(self, item: str, found: Ragged, row: int) -> Any:
        declared, inside = self.declared[item], tuple(slice(int(length)) for length in found.sizes[row])
        value = found.values[row][inside].detach().cpu().numpy()
        return declared.said(value, self.contracts[item]) if declared.can_be_said else value

    def _target(self, answers: dict[str, Any]) -> Tensor:
        declared, contract = self.declared[self.answered], self.contracts[self.answered]
        try:
            said = self.function(answers)
        except EndwiseError:
            raise
        except Exception as wrong:  # somebody else's code: any kind
            raise refusal(
                field=f"stages.{self.name}.by", got=f"{type(wrong).__name__}: {wrong}, for {answers!r}", allowed=f"a {declared.type}",
                fix="let the function answer whatever the stages before it may say",
            ) from wrong  # fmt: skip
        try:
            target = declared.transform(declared.read(said, str.encode), contract)
            classes = getattr(contract, "classes", None)
            reason = "" if classes is None or int(target) < len(classes) else "an unseen class"
        except (BadValue, TypeError) as wrong:
            target, reason = np.zeros(()), str(wrong)
        require(
            not reason, field=f"stages.{self.name}.by", got=f"{said!r} for {answers!r} ({reason})",
            allowed=f"a {declared.type} that training rows have" if hasattr(contract, "classes") else f"a {declared.type}",
            fix="let the function answer whatever the stages before it may say",
        )  # fmt: skip
        return torch.as_tensor(target)


class LatentEncoder(Encoder):
    """The tokens behind an answer, as they are but for a linear layer: what goes on is not what was said."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(size.width)
        self.inward = nn.Linear(size.width, size.width, bias=False)
        nn.init.eye_(self.inward.weight)

    def forward(self, values: Float[Tensor, "batch token w"], sizes: Bool[Tensor, "batch token"]) -> Tokens:
        """sizes: which tokens are real."""
        return Tokens(torch.where(sizes[..., None], self.inward(self.norm(values)), 0.0), sizes)


# ---- hand-offs -------------------------------------------------------------------------------------------------------


def hand_off(handed: Handed, how: str, *, temperature: float, training: bool) -> Tensor:
    """What the next stage reads of an answer. At a temperature of 0, or where one symbol has all the chances, soft is
    what hard is; straight_through always is, with soft's gradient."""
    if handed.scores is None:
        return handed.hard.detach() if how == "hard" else handed.hard
    if how == "hard":
        return handed.hard
    scores = handed.scores
    if how == "gumbel" and training:
        noise = torch.rand_like(scores).clamp(1e-9, 1 - 1e-7)
        scores = scores + (torch.logit(noise) if handed.each else -torch.log(-torch.log(noise)))
    soft = (scores / temperature).sigmoid() if handed.each else (scores / temperature).softmax(-1)
    if how == "soft":
        return soft
    if how == "gumbel" and training:
        best = (scores > 0).to(soft.dtype) if handed.each else _one_hot(scores.argmax(-1), soft)
    else:
        best = handed.hard.to(soft.dtype) if handed.each else _one_hot(handed.hard, soft)
    return best + soft - soft.detach()


def _one_hot(symbols: Tensor, like: Tensor) -> Tensor:
    return F.one_hot(symbols, like.shape[-1]).to(like.dtype)


def _all_of(values: Tensor) -> Tensor:
    return torch.ones(values.shape[0], dtype=torch.bool, device=values.device)


def _with_truth(given: Ragged, truth: Ragged, known: Tensor, share: float) -> tuple[Ragged, Tensor]:
    """The true answer in the place of the given one, in about `share` of the rows that have one, and which these are."""
    chosen = known if share >= 1 else known & (torch.rand(len(known), device=known.device) < share)
    values = truth.values
    soft = given.values.is_floating_point() and given.values.ndim > values.ndim
    if soft:
        symbols = given.values.shape[-1]
        there = values < symbols  # an unseen class, and a place without a label, have no symbol
        chosen = chosen & there.reshape(len(values), -1).any(1)
        values = _one_hot(torch.where(there, values, 0).long(), given.values) * there[..., None]
    values = values.to(given.values.dtype)
    axes = given.sizes.shape[1]
    largest = [max(given.values.shape[1 + axis], values.shape[1 + axis]) for axis in range(axes)]
    mine, theirs = _padded(given.values, largest), _padded(values, largest)
    rows = chosen.reshape(-1, *[1] * (mine.ndim - 1))
    return Ragged(torch.where(rows, theirs, mine), torch.where(chosen[:, None], truth.sizes, given.sizes)), chosen


def _padded(values: Tensor, largest: list[int]) -> Tensor:
    room = [want - have for want, have in zip(largest, values.shape[1:], strict=False)]
    sides = [0, 0] * (values.ndim - 1 - len(room)) + [side for more in reversed(room) for side in (0, more)]
    return F.pad(values, sides) if any(sides) else values


def _key(name: str) -> str:
    return "stage_" + name.replace(" ", "_").replace("-", "_")


__all__ = [
    "StagedNetwork",
    "direct_recipe",
    "hand_off",
    "network_of",
    "stage_fields",
    "stage_recipe",
]
