"""What one answer leans on, place by place: the engine under `explain`, knowing no modality.

Every input of a row can be made less, place by place: m = 1 leaves a pixel, a sample, a word or a cell as it is, 0 puts what
says nothing in its stead (`Encoder.neutral`), and between both it is mixed. An answer is then a function of these masks,
and a method is a way to share its change among them:

- Shapley values: what each part brings, the mean over random orders in which parts are left out one after the other (Castro
  et al. 2009; of networks Lundberg & Lee 2017); the shares add up; asks for no gradient but to divide a part among its places;
- integrated gradients (Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks"): the gradient along the way from
  nothing to all; the shares add up to the change;
- gradient x input (Shrikumar et al. 2017): its last step alone;
- occlusion (Zeiler & Fergus 2014): what is lost with each part left out; asks for no gradient;
- attention roll-out (rollout.py): how much of each place comes through layers of attention, of networks that attend.

Attributions grade themselves: does the answer go sooner where the important parts go first than in any order (deletion; Petsiuk
et al. 2018)? Does an explanation of a network that knows nothing look otherwise (Adebayo et al. 2018, "Sanity Checks for
Saliency Maps")? Do the shares add up? Not here: reading rows, raw coordinates and people (explain/).
"""

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from endwise.batch import Ragged
from endwise.errors import ModelError
from endwise.network import Network
from endwise.nn.interface import Aim, Encoder
from endwise.rollout import rolled
from endwise.stages import StagedNetwork

Method = Literal["shapley", "integrated_gradients", "gradient_x_input", "occlusion", "attention_rollout"]
Masks = dict[str, Tensor]  # {input: [row, *places]}, 1 for all of it and 0 for none

# the way from nothing to all in stretches, of which those are halved whose gradients do not add up to their change: a network
# that divides by lengths (RMSNorm) turns most where there is nearly nothing, and where a vector goes through zero on the way
STRETCHES = (0.0, 1 / 64, 1 / 8, 27 / 64, 1.0)
POINTS = 4  # a stretch, of a Gauss-Legendre rule
MOST_STRETCHES = 96  # that are looked at
GAP = 0.01  # of the change that the shares may miss
LOOSE = 3  # times as much may the stretches miss that err in opposite directions
FLAT = 0.05  # of the sum of all shares: a smaller change is no measure of what they miss
MOST_PARTS = 64  # that an input is divided into where it has more places
ORDERS_WALKED, FEWEST_SETS = (
    4,
    64,
)  # of Shapley values: as many orders, and more of few parts until there are so many sets
CHUNK_CELLS = 6_000_000  # numbers of the masked inputs that are looked at together: memory stays bounded
CHUNK_ROWS = 64

FRACTIONS = 5  # of the parts, left out one more fifth after the other
ORDERS = 19  # at random: to be better than all of them is one chance in twenty
LEVEL = 0.05
SIMILAR = 0.3  # rank correlation with what a network that knows nothing gives
FEWEST_PARTS = 5  # fewer have too few orders to tell a good one from luck
RANDOMISED = (4, 16)  # networks that know nothing, and parts from which on one is enough


@dataclass(frozen=True)
class Grade:
    """One check of an explanation: what was measured, the bar, and whether it is kept; None where it does not apply, and
    `said` has the reason."""

    name: str
    value: float | None
    bar: str
    kept: bool | None
    said: str


@dataclass(frozen=True)
class Attributed:
    """What each place of each input adds to the aim. changed: by how much the aim is above that of nothing at all."""

    method: Method
    places: dict[str, np.ndarray]
    at_all: float
    at_nothing: float

    @property
    def changed(self) -> float:
        """From nothing to all of the row."""
        return self.at_all - self.at_nothing

    @property
    def gap(self) -> float:
        """What the shares miss of the change, as a part of it."""
        total = sum(float(values.sum()) for values in self.places.values())
        all_shares = sum(float(np.abs(values).sum()) for values in self.places.values())
        return abs(total - self.changed) / max(abs(self.changed), FLAT * all_shares, 1e-12)


class Probe:
    """One row before a network: its answer as a function of how much of each place is there.

    The network is a copy that shares the weights, so that others may use the model meanwhile."""

    def __init__(
        self, network: Network, inputs: Mapping[str, Ragged], present: Mapping[str, Tensor], output: str
    ) -> None:
        """inputs: of one row, on the network's device."""
        self.bare, self.network, self.output = network, shared_copy(network), output
        self.inputs, self.present = dict(inputs), dict(present)
        self.names = [name for name in self.network.input_names if bool(present[name][0])]
        self.taps: dict[str, list[_Tap]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        with torch.no_grad():
            self._open()
        self.aim: Aim | None = None

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def prediction(self) -> dict[str, Tensor]:
        """The raw prediction of the row as it is."""
        with torch.no_grad():
            found: dict[str, Tensor] = self.network(self.inputs, self.present)[self.output]
        return found

    def asks(self, about: tuple[int, ...]) -> None:
        """From now on this part of the answer is what is explained."""
        self.aim = self.network.head(self.output).aim(self.prediction(), about)

    def __call__(self, masks: Masks) -> Tensor:
        """The aim for some masks, float32 [row]; with a gradient where the masks have one."""
        assert self.aim is not None
        rows = len(next(iter(masks.values())))
        given = {name: _repeated(field, rows) for name, field in self.inputs.items()}
        for name, taps in self.taps.items():
            for tap in taps:
                tap.mask = masks[name]
            if taps[0].layer is None:
                given[name] = Ragged(
                    taps[0].mixed(given[name].values, taps[0].as_numbers(given[name].values)), given[name].sizes
                )
        there = {name: flags.expand(rows) for name, flags in self.present.items()}
        found: Tensor = self.aim(self.network(given, there)[self.output])
        for taps in self.taps.values():
            for tap in taps:
                tap.mask = None
        return found.float()

    def values(self, masks: Masks) -> np.ndarray:
        """The same without a gradient, in bounded memory: float64 [row]."""
        rows, found = len(next(iter(masks.values()))), []
        with torch.no_grad():
            for start in range(0, rows, self.chunk):
                part = {name: mask[start : start + self.chunk] for name, mask in masks.items()}
                found.append(self(part).double().cpu().numpy())
        return np.concatenate(found)

    def gradients(self, masks: Masks) -> tuple[np.ndarray, dict[str, Tensor]]:
        """The aim [row] and its gradient at every place, [row, *places]; zeros where none comes back."""
        rows, values = len(next(iter(masks.values()))), []
        parts: dict[str, list[Tensor]] = {name: [] for name in masks}
        for start in range(0, rows, self.chunk):
            part = {name: mask[start : start + self.chunk].detach().requires_grad_() for name, mask in masks.items()}
            with torch.enable_grad():
                aim = self(part)
                found: list[Tensor | None] = [None] * len(part)
                if aim.requires_grad:  # a function's answer has no gradient at all
                    found = list(torch.autograd.grad(aim.sum(), list(part.values()), allow_unused=True))
            values.append(aim.detach().double().cpu().numpy())
            for (name, mask), gradient in zip(part.items(), found, strict=True):
                parts[name].append(torch.zeros_like(mask) if gradient is None else gradient.nan_to_num(0.0))
        return np.concatenate(values), {name: torch.cat(found) for name, found in parts.items()}

    def masks(self, rows: int, value: float) -> Masks:
        """Some rows with as much of every place."""
        return {name: torch.full((rows, *shape), value, device=self.device) for name, shape in self.shapes.items()}

    @property
    def chunk(self) -> int:
        """Rows that are looked at together."""
        cells = sum(int(field.values[0].numel()) for field in self.inputs.values())
        return max(1, min(CHUNK_ROWS, CHUNK_CELLS // max(1, cells)))

    def _open(self) -> None:
        """Find the numbers or the vectors that stand for each input."""
        for name in self.names:
            self.taps[name] = [_Tap(encoder, self.inputs[name].sizes) for encoder in encoders_of(self.network, name)]
        for name, taps in self.taps.items():
            for tap in taps:
                tap.given = self.inputs[name].values
                tap.hook()
        self.network(self.inputs, self.present)
        for name, taps in self.taps.items():
            first = taps[0]
            if first.layer is None:
                found = first.as_numbers(self.inputs[name].values)
                self.shapes[name] = tuple(found.shape[1 : found.ndim - first.encoder.colours])
            elif first.seen is None:
                raise ModelError(
                    f"the input {name!r} cannot be explained: what stands for its symbols is never looked up."
                )
            else:
                self.shapes[name] = tuple(first.seen.shape[1:-1])

    def live(self, name: str) -> np.ndarray:
        """bool [*places]: where there is anything to leave out."""
        tap = self.taps[name][0]
        found = tap.as_numbers(self.inputs[name].values) if tap.layer is None else tap.seen
        assert found is not None
        apart = (found - tap.neutral(self.inputs[name].values, found)).nan_to_num(0.0).abs()
        mixed = apart.flatten(1 + len(self.shapes[name])).sum(-1) if apart.ndim > 1 + len(self.shapes[name]) else apart
        there: np.ndarray = (mixed[0] > 0).cpu().numpy()
        return there


class _Tap:
    """Where an encoder's input is made less: at its numbers, or behind the layer that gives its symbols vectors."""

    def __init__(self, encoder: Encoder, sizes: Tensor) -> None:
        self.encoder, self.sizes = encoder, sizes
        self.layer = encoder.looked_up()
        self.mask: Tensor | None = None
        self.given: Tensor | None = None
        self.seen: Tensor | None = None

    def as_numbers(self, values: Tensor) -> Tensor:
        return self.encoder.as_numbers(values)

    def neutral(self, values: Tensor, found: Tensor) -> Tensor:
        return self.encoder.neutral(values, self.sizes.expand(len(values), -1), found)

    def mixed(self, values: Tensor, found: Tensor) -> Tensor:
        """`found` where the mask is 1, what says nothing where it is 0."""
        assert self.mask is not None
        neutral = self.neutral(values, found)
        mask = self.mask.reshape(*self.mask.shape, *[1] * (found.ndim - self.mask.ndim)).to(found.dtype)
        apart = torch.where(torch.isnan(found), 0.0, found - neutral)  # what is missing stays so
        return torch.where(torch.isnan(found), found, neutral + mask * apart)

    def hook(self) -> None:
        if self.layer is not None:
            self.layer.register_forward_hook(self._pass)

    def _pass(self, layer: nn.Module, given: object, found: Tensor) -> Tensor:
        """A text that is read in windows comes as several rows of vectors, one behind the other."""
        if self.mask is None:  # the row as it is
            self.seen = found.reshape(1, -1, *found.shape[2:])
            return found
        assert self.given is not None
        rows = len(self.mask)
        whole = found.reshape(rows, -1, *found.shape[2:])
        return self.mixed(self.given.expand(rows, *self.given.shape[1:]), whole).reshape(found.shape)


def encoders_of(network: Network, name: str) -> Iterator[Encoder]:
    """The encoders that read an input: of a staged network those of all its stages."""
    if not isinstance(network, StagedNetwork):
        yield network.encoder(name)
        return
    seen: set[int] = set()
    for stage, declared in network.declared.items():
        if name in declared.given and declared.by is None:
            found = network.stage(stage).encoder(name)
            if id(found) not in seen:
                seen.add(id(found))
                yield found


def shared_copy(network: Network) -> Network:
    """The same network with layers of its own and the same weights."""
    memo: dict[int, object] = {id(item): item for item in (*network.parameters(), *network.buffers())}
    return copy.deepcopy(network, memo).eval()


def without_knowledge(network: Network, seed: int) -> Network:
    """The network with every number drawn from those of its own weight: as large, and nothing learnt is left. With
    replacement: to put millions in another order takes longer than the explanation."""
    found, chance = copy.deepcopy(network).eval(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in found.parameters():
            drawn = torch.randint(weight.numel(), (weight.numel(),), generator=chance).to(weight.device)
            weight.copy_(weight.flatten()[drawn].reshape(weight.shape))
    return found


def _repeated(field: Ragged, rows: int) -> Ragged:
    return Ragged(field.values.expand(rows, *field.values.shape[1:]), field.sizes.expand(rows, -1))


# ---- methods ---------------------------------------------------------------------------------------------------------


def attribute(probe: Probe, method: Method, parts: "Parts", *, most: int = MOST_STRETCHES) -> Attributed:
    """What every place adds to the aim, by one method. most: stretches of the way that integrated gradients may look at
    until the shares add up; 0 for a rough answer: of Shapley values one that divides parts evenly."""
    if method == "shapley":
        return _shapley(probe, parts, rough=most == 0)
    if method == "occlusion":
        return _occluded(probe, parts)
    if method == "integrated_gradients":
        return _along(probe, most)
    if method == "attention_rollout":
        return _rolled(probe)
    at_all, found = probe.gradients(probe.masks(1, 1.0))
    (at_nothing,) = probe.values(probe.masks(1, 0.0))
    return Attributed(
        method, {name: _numpy(value[0]) for name, value in found.items()}, float(at_all[0]), float(at_nothing)
    )


def _rolled(probe: Probe) -> Attributed:
    """What comes through of each place, as a part of the change."""
    assert probe.aim is not None
    at_nothing, at_all = probe.values(_even(probe, (0.0, 1.0))).tolist()
    network = shared_copy(probe.bare)
    shares = rolled(network, probe.inputs, probe.present, probe.output, probe.aim, probe.shapes)
    shares = {name: value * probe.live(name) for name, value in shares.items()}  # what begins a text is no place of it
    change = (at_all - at_nothing) / (sum(float(value.sum()) for value in shares.values()) or 1.0)
    return Attributed("attention_rollout", {name: change * value for name, value in shares.items()}, at_all, at_nothing)


@dataclass(frozen=True)
class _Stretch:
    """A part of the way: the aim at both ends, and the mean gradient between them times its length, [*places]."""

    ends: tuple[float, float]
    aims: tuple[float, float]
    places: dict[str, np.ndarray]

    @property
    def miss(self) -> float:
        """What its gradients miss of its change."""
        return sum(float(values.sum()) for values in self.places.values()) - (self.aims[1] - self.aims[0])


def _along(probe: Probe, most: int) -> Attributed:
    """The gradient along the way from nothing to all, in stretches that are halved until what they miss is little of the
    change, whichever way each of them errs."""
    aims = probe.values(_even(probe, STRETCHES)).tolist()
    done = _stretches(probe, list(zip(itertools.pairwise(STRETCHES), itertools.pairwise(aims), strict=True)))
    looked, change = len(done), aims[-1] - aims[0]
    while True:
        shares = {name: np.sum([item.places[name] for item in done], axis=0) for name in probe.shapes}
        allowed = GAP * max(abs(change), FLAT * sum(float(np.abs(values).sum()) for values in shares.values()))
        done.sort(key=lambda item: -abs(item.miss))
        missed = np.cumsum([abs(item.miss) for item in reversed(done)])[::-1]  # by each and all that miss less
        poor = int((missed > LOOSE * allowed).sum())
        if poor == 0 and abs(sum(item.miss for item in done)) > allowed:
            poor = 1
        poor = min(poor, (most - looked) // 2)
        if poor <= 0 or not any(values.any() for values in shares.values()):  # or no gradient comes back at all
            return Attributed("integrated_gradients", shares, aims[-1], aims[0])
        middles = [sum(item.ends) / 2 for item in done[:poor]]
        between = probe.values(_even(probe, middles)).tolist()
        halves = []
        for item, middle, aim in zip(done[:poor], middles, between, strict=True):
            halves += [
                ((item.ends[0], middle), (item.aims[0], aim)),
                ((middle, item.ends[1]), (aim, item.aims[1])),
            ]
        done = [*_stretches(probe, halves), *done[poor:]]
        looked += len(halves)


def _stretches(probe: Probe, ends: Sequence[tuple[tuple[float, float], tuple[float, float]]]) -> list[_Stretch]:
    """ends: (from where to where, the aim at both) of each."""
    at, weight = np.polynomial.legendre.leggauss(POINTS)
    points = [low + (high - low) * (place + 1) / 2 for (low, high), _ in ends for place in at]
    _, found = probe.gradients(_even(probe, points))
    weights = torch.tensor(weight / 2, dtype=torch.float32, device=probe.device)
    shares = {
        name: _numpy(torch.einsum("sp...,p->s...", value.float().reshape(len(ends), POINTS, *value.shape[1:]), weights))
        for name, value in found.items()
    }
    return [
        _Stretch(way, aims, {name: (way[1] - way[0]) * value[index] for name, value in shares.items()})
        for index, (way, aims) in enumerate(ends)
    ]


def _even(probe: Probe, points: Sequence[float]) -> Masks:
    """A row for each point: as much of every place."""
    much = torch.tensor(points, dtype=torch.float32, device=probe.device)
    return {
        name: much.reshape(-1, *[1] * len(shape)).expand(len(points), *shape) for name, shape in probe.shapes.items()
    }


def _shapley(probe: Probe, parts: "Parts", *, rough: bool) -> Attributed:
    """What parts bring to random company. Within a part of several places it is divided as the gradient along the way is."""
    at_nothing, at_all = probe.values(_even(probe, (0.0, 1.0))).tolist()
    shares = fair_shares(parts.count, lambda there: probe.values(parts.masks(probe, there)))
    several = any((numbers >= 0).sum() > len(np.unique(numbers[numbers >= 0])) for numbers in parts.of.values())
    inside = _along(probe, 0).places if several and not rough else None
    return Attributed("shapley", parts.shared(shares, inside), at_all, at_nothing)


def fair_shares(parts: int, worth: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """float64 [part]: what each part brings, the mean over orders in which all are left out one after the other: what never
    matters gets nothing, and all together get the change. worth: float64 [set] of bool [set, part]. The orders are the same ones
    each time, and each is also walked from its end (antithetic; Mitchell et al. 2022)."""
    if not parts:
        return np.zeros(0)
    chance, count = np.random.default_rng(0), max(ORDERS_WALKED, math.ceil(FEWEST_SETS / parts))
    half = np.stack([chance.permutation(parts) for _ in range(math.ceil(count / 2))])
    orders = np.concatenate([half, half[:, ::-1]])
    there = orders.argsort(axis=1)[:, None, :] >= np.arange(parts + 1)[:, None]
    values = worth(there.reshape(-1, parts)).reshape(len(orders), parts + 1)
    shares = np.zeros(parts)
    np.add.at(shares, orders, values[:, :-1] - values[:, 1:])
    return shares / len(orders)


def _occluded(probe: Probe, parts: "Parts") -> Attributed:
    gone = np.zeros(0)
    if parts.count:
        gone = probe.values(parts.masks(probe, ~np.eye(parts.count, dtype=bool)))
    ends = probe.values({name: torch.cat([mask, torch.zeros_like(mask)]) for name, mask in probe.masks(1, 1.0).items()})
    return Attributed("occlusion", parts.shared(float(ends[0]) - gone), float(ends[0]), float(ends[1]))


def _numpy(value: Tensor) -> np.ndarray:
    found: np.ndarray = value.detach().double().cpu().numpy()
    return found


# ---- parts -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parts:
    """How the inputs of a row are divided into parts that are left out as a whole. of: {input: int64 [*places]}, the number
    of each place's part, all inputs counted through; -1 where there is nothing to leave out."""

    of: dict[str, np.ndarray]
    count: int

    @classmethod
    def made(cls, probe: Probe, most: int = MOST_PARTS) -> "Parts":
        """Every place by itself where an input has at most `most`; else even stretches and rectangles."""
        found, count = {}, 0
        for name, shape in probe.shapes.items():
            live = probe.live(name)
            numbers = np.full(shape, -1, np.int64)
            if live.any():
                _, numbers[live] = np.unique(_tiled(shape, live, most)[live], return_inverse=True)
                numbers[live] += count
                count = int(numbers.max()) + 1
            found[name] = numbers
        return cls(found, count)

    def sums(self, places: Mapping[str, np.ndarray]) -> np.ndarray:
        """float64 [part]: what the places of each have together."""
        total = np.zeros(self.count)
        for name, numbers in self.of.items():
            inside = numbers >= 0
            np.add.at(total, numbers[inside], places[name][inside])
        return total

    def shared(self, values: np.ndarray, by: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """The value of each part shared by its places: evenly, or as the sizes of `by` say where these are not all 0."""
        weights = {name: np.ones(numbers.shape) for name, numbers in self.of.items()}
        if by is not None:
            weights = {name: np.abs(by[name]) + 1e-9 * (np.abs(by[name]).max() or 1.0) for name in weights}
        each = np.append(values / np.where(self.sums(weights) > 0, self.sums(weights), 1.0), 0.0)
        return {name: each[numbers] * weights[name] for name, numbers in self.of.items()}

    def masks(self, probe: Probe, there: np.ndarray) -> Masks:
        """there: bool [row, part]."""
        whole = np.concatenate([there, np.ones((len(there), 1), bool)], axis=1).astype(np.float32)
        return {name: torch.from_numpy(whole[:, numbers]).to(probe.device) for name, numbers in self.of.items()}


def _tiled(shape: tuple[int, ...], live: np.ndarray, most: int) -> np.ndarray:
    """int64 [*places]: the tile of each place."""
    if live.sum() <= most:
        return np.arange(live.size).reshape(shape)
    if len(shape) == 1:  # even runs of what there is
        return (np.cumsum(live) - 1) * most // int(live.sum())
    left, tiles = float(most), {}
    for done, axis in enumerate(sorted(range(len(shape)), key=lambda item: shape[item])):
        tiles[axis] = max(1, min(shape[axis], round(left ** (1 / (len(shape) - done)))))
        left /= tiles[axis]
    number = np.zeros(shape, np.int64)
    for axis, count in tiles.items():
        along = np.arange(shape[axis]) * count // shape[axis]
        number = number * count + along.reshape([-1 if other == axis else 1 for other in range(len(shape))])
    return number


# ---- grades ----------------------------------------------------------------------------------------------------------


def graded(
    probe: Probe,
    found: Attributed,
    parts: Parts,
    again: Callable[[Probe], Attributed],
    *,
    seed: int,
    usual: np.ndarray | None = None,
) -> tuple[Grade, ...]:
    """Deletion and insertion against random orders, likeness to explanations of networks that know nothing, and what the
    shares miss. again: the same method on another probe. usual: `in_random_orders` of the same seed, where it is known."""
    own = parts.sums(found.places)
    if parts.count < FEWEST_PARTS:
        few = f"too few parts ({parts.count}): their best order may be luck"
        order: tuple[Grade, ...] = (Grade("deletion", None, f"better than chance, p <= {LEVEL}", None, few),)
    else:
        order = _in_order(probe, found, parts, own, in_random_orders(probe, parts, seed) if usual is None else usual)
    return (*order, _sane(probe, parts, own, again, seed), _complete(found))


def in_random_orders(probe: Probe, parts: Parts, seed: int) -> np.ndarray:
    """float64 [order, cut]: what is left of the answer while parts are left out in random orders."""
    chance = np.random.default_rng(seed)
    return _leaving_out(probe, parts, np.stack([chance.permutation(parts.count) for _ in range(ORDERS)]))


def _leaving_out(probe: Probe, parts: Parts, orders: np.ndarray) -> np.ndarray:
    """float64 [order, cut]. orders: int64 [order, part], what goes first comes first."""
    cuts = np.unique(np.round(np.arange(1, FRACTIONS) / FRACTIONS * parts.count).astype(int).clip(1, parts.count - 1))
    rank = orders.argsort(axis=1)
    there = (rank[:, None, :] >= cuts[None, :, None]).reshape(-1, parts.count)
    return probe.values(parts.masks(probe, there)).reshape(len(orders), len(cuts))


def _in_order(
    probe: Probe, found: Attributed, parts: Parts, own: np.ndarray, usual_values: np.ndarray
) -> tuple[Grade, Grade]:
    """An answer should go soonest when the parts that carry it go first, and come soonest when they come first."""
    best = np.argsort(-own if found.changed >= 0 else own, kind="stable")
    values = np.concatenate([_leaving_out(probe, parts, np.stack([best, best[::-1]])), usual_values])
    least = FLAT * float(np.abs(own).sum()) + 1e-9
    left = (values - found.at_nothing) / math.copysign(max(abs(found.changed), least), found.changed)
    area = left.mean(1)  # of a random order turned round, keeping the last is as random as leaving out the first
    gone, come, usual = float(area[0]), float(area[1]), float(area[2:].mean())
    p = (1 + int((area[2:] <= gone).sum())) / (1 + ORDERS)
    said = f"{gone:.2f} of the answer left, {usual:.2f} in random orders (p = {p:.3f})"
    deletion = Grade("deletion", round(gone, 4), f"better than chance, p <= {LEVEL}", p <= LEVEL, said)
    # where one part is enough, any order that begins near it is as good: to be better than all says nothing here
    said = f"{come:.2f} of the answer there, {usual:.2f} in random orders"
    return deletion, Grade("insertion", round(come, 4), "no worse than random orders", come >= usual, said)


def _sane(probe: Probe, parts: Parts, own: np.ndarray, again: Callable[[Probe], Attributed], seed: int) -> Grade:
    bar = f"rank correlation <= {SIMILAR}"
    if parts.count < FEWEST_PARTS:
        return Grade("random weights", None, bar, None, f"too few parts ({parts.count}) for a rank correlation")
    likeness = []
    for turn in range(1 if parts.count >= RANDOMISED[1] else RANDOMISED[0]):
        other = Probe(without_knowledge(probe.bare, seed + turn), probe.inputs, probe.present, probe.output)
        other.aim = probe.aim
        likeness.append(rank_correlation(own, parts.sums(again(other).places)))
    mean = float(np.mean(likeness))
    return Grade(
        "random weights", round(mean, 4), bar, mean <= SIMILAR,
        f"rank correlation {mean:.2f} with networks that know nothing ({len(likeness)})",
    )  # fmt: skip


def _complete(found: Attributed) -> Grade:
    bar = f"<= {GAP:.0%}"
    if found.method != "integrated_gradients":
        by = found.method.replace("_", " ")
        said = "Shapley values always add up" if by == "shapley" else f"{by} does not promise it"
        return Grade("completeness", round(found.gap, 4), bar, None, said)
    return Grade(
        "completeness", round(found.gap, 4), bar, found.gap <= GAP, f"the shares miss {found.gap:.2%} of the change"
    )


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's; 0 where either side is all alike."""
    mine, theirs = _ranks(one), _ranks(other)
    if mine.std() == 0 or theirs.std() == 0:
        return 0.0
    return float(np.corrcoef(mine, theirs)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Equal values share their mean rank."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    mean: np.ndarray = (ends - (counts - 1) / 2)[where]
    return mean


def reliable(grades: Sequence[Grade]) -> bool | None:
    """Whether every check that applies is kept; None where none of what tells luck apart applies."""
    told = [grade.kept for grade in grades if grade.kept is not None]
    if not all(told):
        return False
    return True if any(grade.kept is not None and grade.name == "deletion" for grade in grades) else None


__all__ = [
    "Attributed", "Grade", "Method", "Parts", "Probe", "attribute", "fair_shares", "graded", "in_random_orders", "reliable", "shared_copy",
]  # fmt: skip
