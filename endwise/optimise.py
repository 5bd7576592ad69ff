"""One optimiser step: loss, gradients, clipping, update, average. Plain functions you can copy.

Here: what happens between a batch and new weights. Not here: which batch, when to evaluate, what to save (train/loop.py).
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from endwise.batch import Batch
from endwise.network import Network
from endwise.objective import Objective, Randomness, denominators, term_values
from endwise.weighting import projected

CLIP_NORM = 1.0
BETAS = (0.9, 0.98)
FINAL_RATE = 0.01  # of the peak, at the last step

Autocast = Callable[[], contextlib.AbstractContextManager[Any]]


class NotFinite(Exception):
    """The loss or a gradient of this step is not a finite number; the weights are untouched."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step has to say: the scalar, each named term and its weight, the gradient's norm before clipping, and
    (when asked) who pulls how hard where, and the norm of the gradient that each part and each layer of the network got."""

    loss: float
    terms: dict[str, float]
    weights: dict[str, float]
    grad_norm: float
    pulls: "dict[str, Pull] | None"
    parts: dict[str, float] | None
    layers: dict[str, float] | None


@dataclass(frozen=True, slots=True)
class Pull:
    """At one place of the network: the norm of each unweighed term's gradient, where it comes there, and the cosine between
    every two of them, each pair once."""

    norms: dict[str, float]
    cosines: dict[str, dict[str, float]]


def autocast(device: str, precision: str) -> Autocast:
    """The context of the forward pass: bf16 autocast or nothing."""
    kind = device.split(":")[0]
    return lambda: torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bf16")


def schedule(step: int, *, steps: int, warmup: int) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then a half cosine (Loshchilov & Hutter 2017)."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class Optimiser:
    """AdamW (Loshchilov & Hutter 2019), fused, with a group for each encoder's own rate, no decay on vectors and
    scalars, and what the weighting of the objective learns apart.

    A part of the network may set `peak_rate` (with `peak_batch`, as an encoder's), `weight_decay`, `keeps_rate` (its rate holds even if the recipe gives
    one: pretrained layers) and `starts` (the share of the steps before which it does not move); the innermost wins."""

    def __init__(
        self,
        network: Network,
        objective: Objective,
        *,
        learning_rate: float | None,
        weight_decay: float,
        default_rate: float = 1e-3,
        batch_size: int | None = None,
    ) -> None:
        groups: dict[tuple[float, float, float], list[nn.Parameter]] = {}
        own: dict[int, tuple[float, float, float]] = {}
        for part in network.modules():
            rate, decay = getattr(part, "peak_rate", None), getattr(part, "weight_decay", None)
            if isinstance(rate, float) or isinstance(decay, float):
                if learning_rate is not None and not getattr(part, "keeps_rate", False):
                    rate = learning_rate
                elif rate is not None and batch_size is not None:
                    rate *= min(1.0, math.sqrt(batch_size / (getattr(part, "peak_batch", None) or batch_size)))
                mine = (rate or default_rate, weight_decay if decay is None else decay, getattr(part, "starts", 0.0))
                for weight in part.parameters():
                    own[id(weight)] = mine
        for weight in network.parameters():
            if not weight.requires_grad:
                continue
            rate, decay, start = own.get(id(weight), (learning_rate or default_rate, weight_decay, 0.0))
            groups.setdefault((rate, decay if weight.ndim > 1 else 0.0, start), []).append(weight)
        listed: list[dict[str, Any]] = [
            {"params": weights, "peak": rate, "lr": rate, "weight_decay": decay, "starts": start}
            for (rate, decay, start), weights in groups.items()
        ]
        listed += [
            {"lr": group["peak"], "weight_decay": 0.0, "starts": 0.0, **group} for group in objective.weighting.groups()
        ]
        # a weighting's own gradients are no part of the network's, and are not clipped with them
        self.network_weights = [weight for group in listed[: len(groups)] for weight in group["params"]]
        self.adamw = torch.optim.AdamW(listed, betas=BETAS, fused=True)
        self.weights = [weight for group in listed for weight in group["params"]]

    def set_rate(self, share: float, done: float = 1.0) -> None:
        """Every group at `share` of its peak, those that start later than `done` (share of the steps) at none."""
        for group in self.adamw.param_groups:
            group["lr"] = group["peak"] * share if done >= group["starts"] else 0.0

    @property
    def rate(self) -> float:
        """At which most of the weights that move do: a small layer may have a far larger rate of its own."""
        moving = [group for group in self.adamw.param_groups if group["lr"] > 0] or self.adamw.param_groups
        return float(max(moving, key=lambda group: sum(weight.numel() for weight in group["params"]))["lr"])

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """The moments by name, for checkpoints."""
        for index, weight in enumerate(self.weights):
            for name, value in self.adamw.state.get(weight, {}).items():
                yield f"{index}.{name}", value

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Set what `state` gave."""
        for name, value in tensors.items():
            index, key = name.split(".", 1)
            weight = self.weights[int(index)]
            # Adam's step counter stays a float on the weight's device when fused
            self.adamw.state[weight][key] = value.to(weight.device).clone()


def step(
    network: Network,
    objective: Objective,
    optimiser: Optimiser,
    batch: Batch,
    *,
    rate: float,
    micro_batch: int,
    precision: Autocast,
    measured: bool = False,
    done: float = 1.0,
) -> StepResult:
    """One update from one effective batch (on the device). `rate`: share of the peak learning rate. `done`: share of
    the steps before this one, for layers that begin later. `measured`: also say who pulls how hard. Micro-batches are
    slices whose gradients add up to the whole batch's. Raises NotFinite before anything is changed."""
    optimiser.adamw.zero_grad(set_to_none=True)
    priors, totals = objective.priors, denominators(network, batch)
    if priors is not None:
        totals |= priors.denominators(batch)
    sums: dict[str, Tensor] = {}
    pulls, apart = Pulls() if measured else None, Apart(network) if objective.weighting.apart else None
    for start in range(0, len(batch), micro_batch):
        part = batch if micro_batch >= len(batch) else batch.rows(slice(start, start + micro_batch))
        drawn = None if priors is None else Randomness(part.weight.device)
        with precision():
            predictions, places = network.taught(part, done)
            values = term_values(network, predictions, part, totals)  # a decoder that is taught runs in here
            if priors is not None and drawn is not None:
                values |= priors.values(network, predictions, part, totals, done=done, drawn=drawn)
        if pulls is not None:
            pulls.add(values, places)
        if apart is None:
            objective(values, share=len(part) / len(batch)).backward()
        else:
            apart.add(values, objective.weights())
        for name, value in values.items():
            sums[name] = sums[name] + value.detach() if name in sums else value.detach()
    if apart is not None:
        apart.join()
    parts, layers = (reached(network.parts()), reached(network.layers())) if measured else (None, None)
    norm = torch.nn.utils.clip_grad_norm_(optimiser.network_weights, CLIP_NORM, foreach=True)
    weights = objective.weights()
    # one transfer for all that is logged: a synchronisation costs more than the numbers
    logged = torch.stack([norm, *sums.values(), *[weights[name].detach() for name in sums]]).tolist()
    terms = dict(zip(sums, logged[1 : 1 + len(sums)], strict=True))
    for what, value in [("the gradient", logged[0]), *terms.items()]:
        if not math.isfinite(value):
            raise NotFinite(what)
    objective.learn(sums, None if pulls is None else pulls.norms())
    optimiser.set_rate(rate, done)
    optimiser.adamw.step()
    objective.weighting.bound()
    for name in network.output_names:
        network.head(name).bound()
    factor = dict(zip(sums, logged[1 + len(sums) :], strict=True))
    return StepResult(
        loss=sum(factor[name] * value for name, value in terms.items()),
        terms=terms,
        weights=factor,
        grad_norm=logged[0],
        pulls=None if pulls is None else pulls.told(),
        parts=parts,
        layers=layers,
    )


class Pulls:
    """Who pulls how hard at the tokens, and whether against another: the inner products of the terms' gradients there, for
    each place of `Network.taught`. Rows have tokens of their own, so those of micro-batches add up."""

    def __init__(self) -> None:
        self.inner: dict[str, tuple[list[str], Tensor]] = {}
        self.first: str | None = None

    def add(self, values: Mapping[str, Tensor], places: Mapping[str, Tensor]) -> None:
        """One more micro-batch; costs a backward pass for each term, as far as the first place, and keeps the graph."""
        self.first = next(iter(places))
        open_ = {place: tokens for place, tokens in places.items() if tokens.requires_grad}
        found: dict[str, dict[str, Tensor]] = {place: {} for place in open_}
        taught = {name: value for name, value in values.items() if value.requires_grad}  # not of what stays as it is
        for name, value in taught.items() if open_ else ():
            gradients = torch.autograd.grad(value, list(open_.values()), retain_graph=True, allow_unused=True)
            for place, gradient in zip(open_, gradients, strict=True):
                if (
                    gradient is not None
                ):  # a head with `own_tokens` does not pull at the trunk, a cut hand-off at nothing
                    found[place][name] = gradient.float().flatten()
        for place, pulling in found.items():
            if pulling:
                stacked = torch.stack(list(pulling.values()))
                inner, before = stacked @ stacked.T, self.inner.get(place)
                self.inner[place] = (list(pulling), inner if before is None else before[1] + inner)

    def norms(self) -> dict[str, Tensor]:
        """Of each term that pulls at the first place."""
        if self.first not in self.inner:
            return {}
        names, inner = self.inner[self.first]
        return dict(zip(names, inner.diagonal().sqrt(), strict=True))

    def told(self) -> dict[str, Pull]:
        """Every place where a term pulls, as numbers."""
        return {place: _pull(names, inner.tolist()) for place, (names, inner) in self.inner.items()}


def _pull(names: Sequence[str], inner: Sequence[Sequence[float]]) -> Pull:
    cosines: dict[str, dict[str, float]] = {}
    for one, other in itertools.combinations(range(len(names)), 2):
        size = math.sqrt(inner[one][one] * inner[other][other])
        if size > 0:
            cosines.setdefault(names[one], {})[names[other]] = inner[one][other] / size
    return Pull({name: math.sqrt(inner[place][place]) for place, name in enumerate(names)}, cosines)


def reached(parts: Mapping[str, nn.Module]) -> dict[str, float]:
    """The norm of the gradient that lies at the weights of each part of a network, 0 where none came; parts that do not learn are left
    out."""
    norms = {}
    for name, part in parts.items():
        weights = [weight for weight in part.parameters() if weight.requires_grad]
        if weights:
            found = [weight.grad for weight in weights if weight.grad is not None]
            norms[name] = torch.nn.utils.get_total_norm(found, foreach=True) if found else torch.zeros(())
    values = torch.stack([norm.float().cpu() for norm in norms.values()]).tolist() if norms else []
    return dict(zip(norms, values, strict=True))


def that_pull(network: Network, batch: Batch) -> set[str]:
    """The terms whose gradient comes to the shared tokens at all."""
    predictions, places = network.taught(batch, 0.0)
    pulls = Pulls()
    pulls.add(term_values(network, predictions, batch, denominators(network, batch)), places)
    return set(pulls.norms())


class Apart:
    """The gradients of one step, term by term, until `join` adds them: projected where a weight has one of several terms
    (`weighting.PCGrad`), as ever where it has one's alone."""

    def __init__(self, network: Network) -> None:
        self.weights = [weight for weight in network.parameters() if weight.requires_grad]
        self.gradients: dict[str, list[Tensor | None]] = {}

    def add(self, values: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
        """One more micro-batch; frees its graph."""
        values = {name: value for name, value in values.items() if value.requires_grad}  # a function's has none
        last = list(values)[-1]
        for name, value in values.items():
            found = torch.autograd.grad(
                weights[name] * value, self.weights, retain_graph=name != last, allow_unused=True
            )
            before = self.gradients.get(name, [None] * len(found))
            self.gradients[name] = [_added(one, other) for one, other in zip(before, found, strict=True)]

    def join(self) -> None:
        """Put the sum where the optimiser looks for it."""
        terms = list(self.gradients.values())
        several = [sum(gradient is not None for gradient in found) > 1 for found in zip(*terms, strict=True)]
        shared = [list(itertools.compress(gradients, several)) for gradients in terms]
        factors = projected(torch.stack([torch.stack([_inner(one, other) for other in shared]) for one in shared]))
        for weight, projects, found in zip(self.weights, several, zip(*terms, strict=True), strict=True):
            for factor, gradient in zip(factors, found, strict=True):
                if gradient is not None:
                    weight.grad = _added(weight.grad, factor.to(gradient.dtype) * gradient if projects else gradient)


def _added(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one + other


def _inner(one: Sequence[Tensor | None], other: Sequence[Tensor | None]) -> Tensor:
    """In float64: what is left after a projection is a difference of these."""
    found = [
        (a.double() * b.double()).sum() for a, b in zip(one, other, strict=True) if a is not None and b is not None
    ]
    return torch.stack(found).sum() if found else torch.zeros((), dtype=torch.float64)


def out_of_memory(failed: BaseException) -> bool:
    """Whether an exception is this machine's or an accelerator's way to say that memory is gone."""
    text = str(failed).lower()
    return (
        isinstance(failed, MemoryError | torch.OutOfMemoryError)
        or "out of memory" in text
        or "can't allocate memory" in text
    )


class Average:
    """Exponential moving average of weights and buffers (Polyak & Juditsky 1992): what is evaluated and saved.

    The decay warms up as (1 + t) / (10 + t), so that early averages are not ruled by the initial weights.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: value.detach().clone() for name, value in network.learnt().items()}
        self._paired: tuple[object, object, list[Tensor], list[Tensor], list[tuple[Tensor, Tensor]]] | None = None

    @torch.no_grad()
    def update(self, network: Network, step: int) -> None:
        """Move a little towards the network's state after `step`. The network stays on its device between updates."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        own, current, others = self._pairs(network)
        torch._foreach_lerp_(own, current, share)
        for value, now in others:
            value.copy_(now)

    def _pairs(self, network: Network) -> tuple[list[Tensor], list[Tensor], list[tuple[Tensor, Tensor]]]:
        """Averages beside the network's own tensors, the floating ones and the others. Kept: walking through all
        modules in every step costs more than the arithmetic."""
        if self._paired is None or self._paired[0] is not network or self._paired[1] is not self.tensors:
            current = network.learnt()
            floating = [name for name, value in self.tensors.items() if value.is_floating_point()]
            others = [name for name in self.tensors if name not in set(floating)]
            self._paired = (
                network,
                self.tensors,
                [self.tensors[name] for name in floating],
                [current[name] for name in floating],
                [(self.tensors[name], current[name]) for name in others],
            )
        return self._paired[2:]

    @contextlib.contextmanager
    def applied(self, network: Network) -> Iterator[None]:
        """The network holds the averaged weights inside the block and its own again afterwards."""
        own = {name: value.detach().clone() for name, value in network.learnt().items()}
        network.load_learnt(self.tensors)
        try:
            yield
        finally:
            network.load_learnt(own)
