"""Named terms -> one scalar, weighed in one place.

A head gives each term unreduced, one value a row; here it becomes the weighted mean over the rows of the *effective*
batch that have a target, then the objective: fixed weights, or learnt ones.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from endwise.batch import Batch
from endwise.modalities.base import Modality
from endwise.network import Network, Predictions

SMALLEST_SCALE = 1e-6
LOG_VARIANCE_LIMIT = 3.0  # a term that is learnt by heart would otherwise drive its log-variance to minus infinity


class Objective(nn.Module):
    """The one scalar. `weighting` = 'fixed' uses each output's `loss_weight`; 'uncertainty' learns one log-variance s
    a term, exp(-s) L + s (Kendall, Gal & Cipolla 2018, in the form that is right for cross-entropy), s clamped to
    [-3, 3], each L divided by its own first value so that scales do not decide."""

    scale: Tensor

    def __init__(self, outputs: Mapping[str, Modality], first: Mapping[str, float], weighting: str) -> None:
        """first: each named term's value before any step, which is its scale."""
        super().__init__()
        self.terms, self.weighting = list(first), weighting
        self.fixed = {term: float(outputs[term.rpartition(".")[0]].loss_weight) for term in first}
        self.log_variance = nn.Parameter(torch.zeros(len(first)), requires_grad=weighting == "uncertainty")
        self.register_buffer("scale", torch.tensor([max(abs(value), SMALLEST_SCALE) for value in first.values()]))

    def only(self, output: str) -> None:
        """Nothing counts but this output's terms."""
        self.fixed = {term: weight if term.rpartition(".")[0] == output else 0.0 for term, weight in self.fixed.items()}

    def weights(self) -> dict[str, Tensor]:
        """The factor of each term now."""
        if self.weighting == "fixed":
            return {term: self.log_variance.new_tensor(self.fixed[term]) for term in self.terms}
        limited = self.log_variance.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)
        return {term: self.fixed[term] * torch.exp(-limited[i]) / self.scale[i] for i, term in enumerate(self.terms)}

    @torch.no_grad()
    def bound(self) -> None:
        """Back inside the limits, after a step: beyond them a log-variance has no gradient, and would stay there however
        its term goes on."""
        self.log_variance.clamp_(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)

    def forward(self, values: Mapping[str, Tensor], share: float = 1.0) -> Tensor:
        """The scalar. `share`: this micro-batch's share of the effective batch, for the part that is no mean of rows."""
        weights = self.weights()
        total = torch.stack([weights[term] * values[term] for term in self.terms]).sum()
        if self.weighting == "uncertainty":
            total = total + share * self.log_variance.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT).sum()
        return total


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
