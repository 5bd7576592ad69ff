"""Named terms -> one scalar, weighed in one place.

A head gives each term unreduced, one value a row, and so does a prior; here it becomes the weighted mean over the rows of
the *effective* batch that count, and all of them the one scalar. How they are weighed is weighting.py's.
"""

import contextlib
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from endwise.batch import Batch, Ragged
from endwise.errors import BadValue, require, unknown_name
from endwise.modalities.base import Modality
from endwise.network import Network, Predictions
from endwise.priors import Prior
from endwise.weighting import WEIGHTINGS, Weighting


class Objective(nn.Module):
    """The one scalar: the outputs' terms, weighed by the recipe's weighting, beside those whose factor is fixed."""

    constant: Tensor

    def __init__(
        self,
        outputs: Mapping[str, Modality],
        first: Mapping[str, float],
        weighting: str,
        *,
        epoch_steps: int = 1,
        priors: "Priors | None" = None,
        fixed: Mapping[str, float] = types.MappingProxyType({}),
    ) -> None:
        """first: each named term's value before any step. epoch_steps: steps in a pass over the training rows. fixed: the
        factors of outputs' terms that the weighting has no say in; priors have their own."""
        super().__init__()
        self.priors = priors
        constant = {**fixed, **({} if priors is None else priors.weights)}
        self.terms, self.fixed = [term for term in first if term not in fixed], list(constant)
        own = [float(outputs[term.rpartition(".")[0]].loss_weight) for term in self.terms]
        self.weighting: Weighting = WEIGHTINGS[weighting](
            torch.tensor(own), torch.tensor([first[term] for term in self.terms]), epoch_steps=epoch_steps
        )
        self.register_buffer("constant", torch.tensor(list(constant.values())), persistent=False)

    def weights(self) -> dict[str, Tensor]:
        """The factor of each term now."""
        weighed = zip(self.terms, self.weighting.factors(), strict=True)
        return {**dict(weighed), **dict(zip(self.fixed, self.constant, strict=True))}

    def forward(self, values: Mapping[str, Tensor], share: float = 1.0) -> Tensor:
        """The scalar. `share`: this micro-batch's share of the effective batch, for the part that is no mean of rows."""
        weights = self.weights()
        total = torch.stack([weights[term] * value for term, value in values.items()]).sum()
        added = self.weighting.added()
        return total if added is None else total + share * added

    def learn(self, values: Mapping[str, Tensor], norms: Mapping[str, Tensor] | None) -> None:
        """What the weighting takes from a step, see `Weighting.learn`."""
        wanted = norms is not None and self.weighting.norms_every is not None
        found = torch.stack([norms[term] for term in self.terms]) if norms is not None and wanted else None
        self.weighting.learn(torch.stack([values[term] for term in self.terms]), found)


class Randomness:
    """What torch draws from now on (dropout, augmentation), to be drawn again."""

    def __init__(self, device: torch.device) -> None:
        self.device = device if device.type == "cuda" else None
        self.state = torch.get_rng_state()
        self.device_state = None if self.device is None else torch.cuda.get_rng_state(self.device)

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """The same draws inside the block, and behind it as if it had not been there."""
        with torch.random.fork_rng(devices=[] if self.device is None else [self.device]):
            torch.set_rng_state(self.state)
            if self.device is not None and self.device_state is not None:
                torch.cuda.set_rng_state(self.device_state, self.device)
            yield


@dataclass(frozen=True)
class Seen:
    """What a prior may look at: a (micro-)batch and what the network says to it.

    predictions: as the heads gave them. fields, contracts: what was declared and learnt, by name. done: the share of the
    steps that lies behind. drawn: the randomness before the network was asked."""

    network: Network
    batch: Batch
    predictions: Predictions
    fields: Mapping[str, Modality]
    contracts: Mapping[str, Any]
    done: float
    drawn: Randomness

    def answer(self, output: str) -> dict[str, Tensor]:
        """`Head.decode`, with gradient where a decoding has one: values in the user's unit, probabilities."""
        return self.network.head(output).decode(self.predictions[output])

    def number(self, name: str) -> Tensor:
        """float64 [batch] or [batch, n]: a number, given or predicted, in the user's unit."""
        values: Tensor = self.batch.inputs[name].values if name in self.batch.inputs else self.answer(name)["value"]
        return values

    def plain(self, name: str) -> Tensor:
        """float64 [batch]; RecipeError where a value is a list of numbers."""
        values = self.number(name)
        require(
            values.ndim == 1,
            field=f"objective.priors: {name}",
            got=f"lists of {values.shape[-1]} numbers",
            allowed="a plain number in every row",
            fix="make a field of each number that something is known about",
        )
        return values

    def deviation(self, name: str) -> float:
        """The standard deviation of a number in the training rows; of a list, that of its sum if its numbers have nothing
        to do with each other. 1 where all rows are alike."""
        return math.hypot(*self.contracts[name].deviation) or 1.0

    def probabilities(self, output: str) -> Tensor:
        """[batch, class] of a category; of yes/no [batch, 2], no first."""
        found = self.answer(output)
        if "probabilities" in found:
            return found["probabilities"]
        return torch.stack([1 - found["probability"], found["probability"]], dim=1)

    def class_id(self, output: str, name: Any) -> int:
        """The place of a class among the probabilities; RecipeError where training has none of that name."""
        item, contract = self.fields[output], self.contracts[output]
        names = getattr(contract, "classes", ("false", "true"))
        try:
            place = int(item.transform(item.read(name, str.encode), contract))
        except BadValue:
            place = len(names)
        if place >= len(names):
            raise unknown_name(field=f"objective.priors: class of {output}", got=str(name), names=names)
        return place

    def again(self, inputs: Mapping[str, Tensor]) -> "Seen":
        """The network asked about the same rows with other values of these inputs, with the same dropout and augmentation.
        Costs what the first time cost."""
        changed = {name: Ragged(values, self.batch.inputs[name].sizes) for name, values in inputs.items()}
        batch = replace(self.batch, inputs={**self.batch.inputs, **changed})
        with self.drawn.again():
            predictions, _ = self.network.taught(batch, self.done)
        return replace(self, batch=batch, predictions=predictions)


class Priors:
    """The recipe's priors beside what they need to know of its fields."""

    def __init__(
        self,
        priors: Sequence[Prior],
        inputs: Mapping[str, Modality],
        outputs: Mapping[str, Modality],
        contracts: Mapping[str, Any],
    ) -> None:
        self.priors, self.fields, self.contracts = tuple(priors), {**inputs, **outputs}, contracts
        self.needs = {prior.term: prior.needs(inputs) for prior in self.priors}

    @property
    def weights(self) -> dict[str, float]:
        """Each term's own factor."""
        return {prior.term: float(prior.weight) for prior in self.priors}

    def denominators(self, batch: Batch) -> dict[str, Tensor]:
        """What the rows of the whole effective batch weigh together, for each prior."""
        return {prior.term: self._counts(prior, batch).sum().clamp(min=1e-12) for prior in self.priors}

    def values(
        self, network: Network, predictions: Predictions, batch: Batch, totals: Mapping[str, Tensor], *, done: float,
        drawn: Randomness,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Every prior's term of a (micro-)batch as its share of the effective batch's weighted mean. RecipeError where a
        prior gives something else than a row's value with a gradient."""
        seen = Seen(network, batch, predictions, self.fields, self.contracts, done, drawn)
        found = {}
        for prior in self.priors:
            loss, counts = prior.loss(seen), self._counts(prior, batch)
            require(
                loss.shape == counts.shape,
                field=prior.term, got=f"a tensor {list(loss.shape)}", allowed=f"one value a row: [{len(counts)}]",
                fix="take the mean over what a row holds, and none over rows",
            )  # fmt: skip
            require(
                loss.requires_grad or not torch.is_grad_enabled(),
                field=prior.term, got="a value without gradient", allowed="a value that the network can learn from",
                fix="look at probabilities and values: chosen classes, rounding and detach() cut the gradient",
            )  # fmt: skip
            found[prior.term] = torch.where(counts > 0, loss.float() * counts, 0.0).sum() / totals[prior.term]
        return found

    def tried(self, network: Network, batch: Batch) -> None:
        """RecipeError before any step where a prior cannot be asked, or gives what no network can learn from."""
        drawn = Randomness(batch.weight.device)
        predictions, _ = network.taught(batch, 0.0)
        self.values(network, predictions, batch, self.denominators(batch), done=0.0, drawn=drawn)

    def _counts(self, prior: Prior, batch: Batch) -> Tensor:
        """What each row counts for: its weight, where it has what the prior needs."""
        there: Tensor = batch.weight
        for name in self.needs[prior.term]:
            there = there * batch.present[name]
        return there


def denominators(network: Network, batch: Batch) -> dict[str, Tensor]:
    """For each output, what its rows weigh together in the whole effective batch; needs no forward pass."""
    totals = {}
    for name in network.output_names:
        target = batch.targets[name]
        weight = network.head(name).weight(target.values, target.sizes) * batch.weight * batch.present[name]
        totals[name] = weight.sum().clamp(min=1e-12)
    return totals


def term_values(
    network: Network, predictions: Predictions, batch: Batch, totals: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Every named term of a (micro-)batch as its share of the effective batch's weighted mean."""
    values = {}
    for name in network.output_names:
        target, head = batch.targets[name], network.head(name)
        present = batch.present[name]
        weight = head.weight(target.values, target.sizes) * batch.weight * present
        # a row without a target must not be compared with either; its place may hold anything
        known = torch.where(present[:, None], target.values, 0) if head.compares_rows else target.values
        for term, loss in head.loss(predictions[name], known, target.sizes).items():
            # where, not times: the loss of a blank target may be infinite, and 0 * inf is NaN
            values[f"{name}.{term}"] = torch.where(present, loss.float() * weight, 0.0).sum() / totals[name]
    return values
