"""How several named terms become one scalar: fixed factors, or factors that are learnt, or gradients that make room for
one another.

A weighting sees each term's value and, where it asks for them, the norms of the terms' gradients at the shared tokens.
Its state lies in buffers and parameters, so that a checkpoint of the objective holds it. Not here: what a term is
(heads, objective.py), priors (their factor is their own: where the knowledge holds, value and gradient are zero, and
whatever balances terms would raise their weight without end), the optimiser's step.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

SMALLEST_SCALE = 1e-6
LOG_VARIANCE_LIMIT = 3.0  # a term that is learnt by heart would otherwise drive its log-variance to minus infinity
LOG_VARIANCE_RATE = 1e-2
# the first gradient of a log-variance is zero but for rounding (each term is divided by its own first value): Adam would
# make a whole step of either sign out of that
LOG_VARIANCE_EPSILON = 1e-3
# a norm at the tokens is a backward pass through the head alone, without its weights: in every step about a quarter of
# what the heads cost, in every fifth a twentieth
GRADNORM_EVERY = 5
GRADNORM_RATE = 0.025
GRADNORM_ALPHA = 1.5  # how much harder a term may pull that learns more slowly than the others
GRADNORM_SMALLEST = 1e-2  # of a share: a term must be able to come back
DWA_TEMPERATURE = 2.0
DWA_WORST = 10.0  # times its mean before: a term that jumps farther is as bad, and the others keep a weight
DWA_WINDOW = 200  # steps whose mean is one value of a term; shorter where an epoch is


class Weighting(nn.Module):
    """Fixed: every term counts as its output's `loss_weight` says. The others begin from here.

    norms_every: steps between two in which `learn` is given the norms; None: never. apart: each term's gradient of the
    shared weights is kept by itself, and the sum is made by `optimise`, which lets none undo another (PCGrad)."""

    norms_every: ClassVar[int | None] = None
    apart: ClassVar[bool] = False
    own: Tensor

    def __init__(
        self, loss_weights: Float[Tensor, " term"], first: Float[Tensor, " term"], *, epoch_steps: int
    ) -> None:
        """first: each term's value before any step. epoch_steps: steps in a pass over the training rows."""
        super().__init__()
        self.register_buffer("own", loss_weights)

    def factors(self) -> Float[Tensor, " term"]:
        """What each term is multiplied by now."""
        return self.own

    def added(self) -> Tensor | None:
        """What the scalar holds beside the weighed terms."""
        return None

    def groups(self) -> list[dict[str, Any]]:
        """What the optimiser moves, in its own words."""
        return []

    def learn(self, values: Float[Tensor, " term"], norms: Float[Tensor, " term"] | None) -> None:
        """After the gradients of a step whose numbers are all finite, before the optimiser moves anything. norms: of each
        term's unweighed gradient at the shared tokens, in the steps where they were asked for."""

    @torch.no_grad()
    def bound(self) -> None:
        """Back inside the limits, after the optimiser has moved: beyond a clamp there is no gradient that could."""


class Uncertainty(Weighting):
    """One learnt log-variance s a term, exp(-s) L + s (Kendall, Gal & Cipolla 2018, in the form that is right for
    cross-entropy), s within [-3, 3], each L divided by its own first value so that scales do not decide."""

    scale: Tensor

    def __init__(
        self, loss_weights: Float[Tensor, " term"], first: Float[Tensor, " term"], *, epoch_steps: int
    ) -> None:
        super().__init__(loss_weights, first, epoch_steps=epoch_steps)
        self.log_variance = nn.Parameter(torch.zeros(len(first)))
        self.register_buffer("scale", first.abs().clamp(min=SMALLEST_SCALE))

    def factors(self) -> Float[Tensor, " term"]:
        return self.own * torch.exp(-self._limited()) / self.scale

    def added(self) -> Tensor | None:
        return self._limited().sum()

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": [self.log_variance], "peak": LOG_VARIANCE_RATE, "eps": LOG_VARIANCE_EPSILON}]

    @torch.no_grad()
    def bound(self) -> None:
        self.log_variance.clamp_(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)

    def _limited(self) -> Tensor:
        return self.log_variance.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)


class GradNorm(Weighting):
    """Every term pulls equally hard at the shared tokens, a slow learner harder (Chen, Badrinarayanan, Lee & Rabinovich
    2018): shares w, positive and with the sum of the number of terms, move down the gradient of
    sum |w g - mean(w g) r^1.5|, where g is a term's norm and r its value by its first one, relative to the others'.
    `loss_weight` counts on top. The norm is taken at the shared tokens, where the paper takes a layer's weights."""

    norms_every = GRADNORM_EVERY
    first: Tensor

    def __init__(
        self, loss_weights: Float[Tensor, " term"], first: Float[Tensor, " term"], *, epoch_steps: int
    ) -> None:
        super().__init__(loss_weights, first, epoch_steps=epoch_steps)
        self.shares = nn.Parameter(torch.ones(len(first)))
        self.register_buffer("first", first.abs().clamp(min=SMALLEST_SCALE))

    def factors(self) -> Float[Tensor, " term"]:
        return self.own * self.shares.detach()  # its gradient is given by `learn`, not by the scalar

    def groups(self) -> list[dict[str, Any]]:
        return [{"params": [self.shares], "peak": GRADNORM_RATE}]

    @torch.no_grad()
    def learn(self, values: Float[Tensor, " term"], norms: Float[Tensor, " term"] | None) -> None:
        if norms is None:
            return
        there = norms > 0  # a batch may lack every label of a term
        count = there.sum().clamp(min=1)
        pulls = self.shares * norms
        pace = values / self.first
        pace = pace / ((pace * there).sum() / count).clamp(min=SMALLEST_SCALE)
        wanted = (pulls * there).sum() / count * pace.clamp(min=0) ** GRADNORM_ALPHA
        # by the mean norm, so that the size of all gradients together means nothing to Adam's epsilon
        relative = norms / ((norms * there).sum() / count).clamp(min=torch.finfo(norms.dtype).tiny)
        self.shares.grad = torch.where(there, relative * torch.sign(pulls - wanted), 0.0)

    @torch.no_grad()
    def bound(self) -> None:
        self.shares.clamp_(min=GRADNORM_SMALLEST)
        self.shares.mul_(len(self.shares) / self.shares.sum())


class Dwa(Weighting):
    """Dynamic weight average (Liu, Johns & Davison 2019): T softmax(r / 2) over the T terms, r the ratio of a term's last
    two means over an epoch, or over 200 steps where an epoch is longer. What falls more slowly counts more; equal until
    there are two means."""

    sums: Tensor
    last: Tensor
    before: Tensor
    seen: Tensor
    means: Tensor

    def __init__(
        self, loss_weights: Float[Tensor, " term"], first: Float[Tensor, " term"], *, epoch_steps: int
    ) -> None:
        super().__init__(loss_weights, first, epoch_steps=epoch_steps)
        self.window = min(epoch_steps, DWA_WINDOW)
        for name in ("sums", "last", "before"):
            self.register_buffer(name, torch.zeros(len(first)))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))  # steps in `sums`
        self.register_buffer("means", torch.zeros((), dtype=torch.int64))  # how many there have been

    def factors(self) -> Float[Tensor, " term"]:
        known = (self.means >= 2) & (self.before > 0)
        ratio = torch.where(known, self.last / torch.where(known, self.before, 1.0), 1.0).clamp(max=DWA_WORST)
        return self.own * len(self.own) * torch.softmax(ratio / DWA_TEMPERATURE, dim=0)

    @torch.no_grad()
    def learn(self, values: Float[Tensor, " term"], norms: Float[Tensor, " term"] | None) -> None:
        self.sums += values
        self.seen += 1
        full = self.seen >= self.window
        self.before.copy_(torch.where(full, self.last, self.before))
        self.last.copy_(torch.where(full, self.sums / self.window, self.last))
        self.means += full
        self.sums.mul_(~full)
        self.seen.mul_(~full)


class PCGrad(Weighting):
    """Projected gradients (Yu, Kumar, Gupta, Levine, Hausman & Finn 2020): of each term's gradient of the shared weights
    the part that points against another term's is taken away, the others met in a random order; then they are added.
    A backward pass through the whole network for every term."""

    apart = True


WEIGHTINGS: Mapping[str, type[Weighting]] = {
    "fixed": Weighting,
    "uncertainty": Uncertainty,
    "gradnorm": GradNorm,
    "dwa": Dwa,
    "pcgrad": PCGrad,
}


def projected(gram: Float[Tensor, "term term"]) -> Float[Tensor, " term"]:
    """The factors with which the terms' own gradients add up to the sum of the projected ones, from their inner products
    (PCGrad, algorithm 1). The orders are drawn from torch's default generator."""
    inner = gram.tolist()
    terms = range(len(inner))
    factors = [0.0] * len(inner)
    for one in terms:
        mixed = [float(one == other) for other in terms]  # the projected gradient, as a sum of the terms' own
        for place in torch.randperm(len(inner) - 1).tolist():
            other = place + (place >= one)
            against = sum(mixed[term] * inner[term][other] for term in terms)
            if against < 0:
                mixed[other] -= against / inner[other][other]
        factors = [total + part for total, part in zip(factors, mixed, strict=True)]
    return gram.new_tensor(factors)
