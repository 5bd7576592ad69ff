"""Named terms -> one scalar, weighed in one place.

A head gives each term unreduced, one value a row; here it becomes the weighted mean over the rows of the *effective*
batch that have a target, and all of them the one scalar. How they are weighed is weighting.py's.
"""

import types
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from endwise.batch import Batch
from endwise.modalities.base import Modality
from endwise.network import Network, Predictions
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
        fixed: Mapping[str, float] = types.MappingProxyType({}),
    ) -> None:
        """first: each named term's value before any step. epoch_steps: steps in a pass over the training rows. fixed: the
        factors of terms that the weighting has no say in."""
        super().__init__()
        self.terms, self.fixed = [term for term in first if term not in fixed], list(fixed)
        own = [float(outputs[term.rpartition(".")[0]].loss_weight) for term in self.terms]
        self.weighting: Weighting = WEIGHTINGS[weighting](
            torch.tensor(own), torch.tensor([first[term] for term in self.terms]), epoch_steps=epoch_steps
        )
        self.register_buffer("constant", torch.tensor(list(fixed.values())), persistent=False)

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
