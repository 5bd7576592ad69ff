"""What is measured on one trained model, so that several can be set side by side: statistics of the same rows, with
answers on the way replaced by the truth or disturbed, with disturbed inputs; gradients, latency.

Statistics are what `Metric.rows` gives: kept for every row, so that whatever is pooled later is paired. Not here:
training (arms.py), pooling and words (findings.py).
"""

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from endwise.batch import Batch, Ragged
from endwise.data.dataset import Dataset
from endwise.data.loader import Loader
from endwise.evaluate import BATCH_ROWS, looked_at, rows_together
from endwise.metrics import Metric
from endwise.modalities.base import Contract
from endwise.model import Model
from endwise.network import Network, Predictions
from endwise.objective import denominators, term_values
from endwise.recipe import Goal, Recipe
from endwise.stages import StagedNetwork

COSTLY_ROWS = 1_000  # of the test rows, for what needs a pass for each question
NOISE_SHARES = (0.1, 0.25, 0.5)  # at a hand-off: of the symbols; for numbers and tokens, in standard deviations
STRENGTHS = (0.1, 0.3, 1.0)  # of disturbed inputs: noise in standard deviations of the input ...
SYMBOL_SHARES = {0.1: 0.05, 0.3: 0.15, 1.0: 0.5}  # ... and the share of symbols replaced for it
SYMBOLS = frozenset({"text", "category", "boolean", "tags"})
NOISY = frozenset({"number", "audio", "image"})
LATENCY_ROWS, WARM_UP = 200, 5  # of 30 rows, the 95th percentile is the second largest: chance
LATENCY_S, FEWEST_TIMED = 10.0, 30  # what takes longer is timed on fewer rows, and their number is said
REACH_ROWS = 32
BANDS, PUT_OUT = 16, 0.25  # of a raw input along its first axis, and the share of them that is put out

Predict = Callable[[Model, Batch, int], Predictions]  # (model, batch, its number) -> raw predictions
Statistics = dict[str, np.ndarray]


@dataclass(frozen=True)
class Bench:
    """The rows and the yardstick that all models are held against: one metric for each output, the goal's for its own."""

    recipe: Recipe
    dataset: Dataset
    contracts: Mapping[str, Contract]  # of all training rows: the truth does not depend on how many labels a model had
    goal: Goal
    test: np.ndarray  # with a label of the goal
    val: np.ndarray
    shifted: np.ndarray  # rows of a group that was held out; none: inputs are disturbed instead

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """The goal's metric for its output, the usual one of the others."""
        found = {}
        for name, item in self.recipe.outputs.items():
            usual = {metric.name: metric for metric in item.metrics(self.contracts[name])}
            found[name] = usual[self.goal.metric] if name == self.goal.output else next(iter(usual.values()))
        return found

    @cached_property
    def some(self) -> np.ndarray:
        """Test rows for what is costly, always the same."""
        if len(self.test) <= COSTLY_ROWS:
            return self.test
        return np.sort(np.random.default_rng(0).choice(self.test, COSTLY_ROWS, replace=False))

    def labelled(self, output: str, rows: np.ndarray) -> np.ndarray:
        """Those of the rows that have an answer."""
        found: np.ndarray = rows[self.dataset.fields[output].present[rows]]
        return found

    def truths(self, output: str, rows: np.ndarray) -> list[Any]:
        """The true answers of labelled rows."""
        item, store = self.recipe.outputs[output], self.dataset.fields[output]
        return [item.truth(store[row], self.contracts[output]) for row in rows.tolist()]

    def clusters(self, rows: np.ndarray) -> list[int] | None:
        """Which rows are no independent evidence; rows without a group are their own."""
        if self.dataset.group is None:
            return None
        groups = self.dataset.group[rows]
        return [int(group) for group in np.where(groups < 0, -1 - rows, groups)]

    def weights(self, rows: np.ndarray) -> np.ndarray | None:
        """What each row counts for, where the recipe names a column for it."""
        return self.dataset.weight[rows].astype(np.float64) if self.recipe.data.weight is not None else None


def statistics(
    model: Model, bench: Bench, rows: np.ndarray, outputs: list[str], predict: Predict | None = None
) -> Statistics:
    """{output: what its metric keeps of each labelled row}. predict: another way to raw predictions than the model's."""
    wanted = {name: [bench.metrics[name]] for name in outputs}
    seen: dict[str, list[Any]] = {name: [] for name in outputs}
    for number, batch in enumerate(_batches(model, bench.dataset, rows)):
        predictions = None if predict is None else predict(model, batch, number)
        for name, given in looked_at(model, batch, wanted, predictions).items():
            looked = bench.metrics[name].looks_at(*given)
            seen[name] += [one for one, there in zip(looked, batch.present[name], strict=True) if there]
    return {
        name: bench.metrics[name].rows(bench.truths(name, bench.labelled(name, rows)), seen[name]) for name in outputs
    }


def _batches(model: Model, dataset: Dataset, rows: np.ndarray, most: int = BATCH_ROWS) -> Iterator[Batch]:
    size = rows_together(model, dataset, rows, most)
    loader = Loader(dataset, model.recipe, model.contracts, rows, batch_size=size, seed=0, shuffle=False)
    return loader.iterate(0, loader.batches_per_epoch)


# ---- answers on the way ------------------------------------------------------------------------------------------


def with_truth(given: tuple[str, ...]) -> Predict:
    """Predictions where these answers on the way are the true ones, in every row that has one."""

    def predict(model: Model, batch: Batch, number: int) -> Predictions:
        del number
        network, sent = _staged(model), batch.to(model.device)
        with torch.inference_mode():
            return network.run(sent.inputs, sent.present, gold=sent, truth=given)[0]

    return predict


def with_noise(output: str, share: float) -> Predict:
    """Predictions where an answer is disturbed on its way to the next stage: about `share` of its symbols are replaced by
    symbols of the other rows; numbers and tokens get Gaussian noise of so many of their standard deviations in the batch."""

    def predict(model: Model, batch: Batch, number: int) -> Predictions:
        chance = torch.Generator(model.device).manual_seed(number)

        def change(name: str, values: Ragged, symbols: bool) -> Ragged:
            if name != output:
                return values
            return _other_symbols(values, share, chance) if symbols else _noisy(values, share, chance)

        sent = batch.to(model.device)
        with torch.inference_mode():
            return _staged(model).run(sent.inputs, sent.present, change=change)[0]

    return predict


def with_first_stage_of(model: Model, other: Model) -> Predict:
    """Predictions where the first stage has the weights of another training of the same recipe: whether what it says can
    be understood by those it did not learn with."""
    mixed = copy.deepcopy(_staged(model)).eval()
    first = next(iter(mixed.declared))
    mixed.stage(first).load_state_dict(_staged(other).stage(first).state_dict())

    def predict(model: Model, batch: Batch, number: int) -> Predictions:
        del number
        sent = batch.to(model.device)
        with torch.inference_mode():
            found: Predictions = mixed(sent.inputs, sent.present)
        return found

    return predict


def _staged(model: Model) -> StagedNetwork:
    assert isinstance(model.network, StagedNetwork)
    return model.network


def _other_symbols(given: Ragged, share: float, chance: torch.Generator) -> Ragged:
    """Each cell (a symbol, chances of symbols, a set of tags) replaced with a chance of `share` by a real one of the batch:
    what is never said does not come in."""
    values, axes = given.values, given.sizes.shape[1]
    cells = values.shape[: 1 + axes]
    flat = values.reshape(-1, *values.shape[1 + axes :])
    real = _real(given).reshape(-1).nonzero()[:, 0]
    if not len(real):
        return given
    drawn = real[torch.randint(len(real), (len(flat),), generator=chance, device=values.device)]
    picked = torch.rand(len(flat), generator=chance, device=values.device) < share
    found = torch.where(picked.reshape(-1, *[1] * (flat.ndim - 1)), flat[drawn], flat)
    return Ragged(found.reshape(*cells, *values.shape[1 + axes :]), given.sizes)


def _noisy(given: Ragged, share: float, chance: torch.Generator) -> Ragged:
    """Each number of a place in its own deviations, over all places that are no padding: of a box its class, its corners."""
    values, places = given.values.float(), _real(given)
    noise = torch.randn(values.shape, generator=chance, device=values.device)
    deviation = values[places].std(0, correction=0) if bool(places.any()) else torch.zeros(())
    found = values + share * deviation * noise
    if not given.values.is_floating_point():  # samples and pixels are whole numbers within limits
        limits = torch.iinfo(given.values.dtype)
        found = found.round().clamp(limits.min, limits.max)
    return Ragged(found.to(given.values.dtype), given.sizes)


def _real(given: Ragged) -> Tensor:
    """Which cells are no padding, [batch, *largest]."""
    shape = given.values.shape[: 1 + given.sizes.shape[1]]
    real = torch.ones(shape, dtype=torch.bool, device=given.values.device)
    for axis, largest in enumerate(shape[1:]):
        inside = torch.arange(largest, device=real.device) < given.sizes[:, axis, None]
        real &= inside.reshape(shape[0], *[1] * axis, largest, *[1] * (len(shape) - 2 - axis))
    return real


# ---- inputs ------------------------------------------------------------------------------------------------------


def disturbable(bench: Bench) -> dict[str, float]:
    """{input: standard deviation of its values} of the inputs that noise can be put on; NaN for symbols."""
    loader = Loader(
        bench.dataset,
        bench.recipe,
        bench.contracts,
        bench.test[:BATCH_ROWS],
        batch_size=BATCH_ROWS,
        seed=0,
        shuffle=False,
    )
    batch, found = loader.batch(0).to("cpu"), {}
    for name, item in bench.recipe.inputs.items():
        given = batch.inputs[name]
        if item.type in SYMBOLS:
            found[name] = float("nan")
        elif item.type in NOISY:
            cells = given.values[_real(given) & batch.present[name].reshape(-1, *[1] * given.sizes.shape[1])]
            found[name] = float(cells.double().std(correction=0)) if cells.numel() else 0.0
    return found


def with_disturbed_inputs(scales: Mapping[str, float], strength: float) -> Predict:
    """Predictions for inputs with noise on all of them at once: Gaussian, of `strength` standard deviations; of symbols
    the share that SYMBOL_SHARES gives is replaced by those of other rows."""

    def predict(model: Model, batch: Batch, number: int) -> Predictions:
        changed = dict(batch.inputs)
        for name, scale in scales.items():
            if name in changed:
                changed[name] = _disturbed(
                    changed[name], scale, strength, np.random.default_rng([number, *name.encode()])
                )
        return model.predictions(replace(batch, inputs=changed))

    return predict


def _disturbed(given: Ragged, scale: float, strength: float, chance: np.random.Generator) -> Ragged:
    if np.isnan(scale):
        sent = given.to("cpu")
        found = _other_symbols(
            sent, SYMBOL_SHARES[strength], torch.Generator().manual_seed(int(chance.integers(2**31)))
        )
        return Ragged(found.values.numpy(), given.sizes)
    values = np.asarray(given.values)
    noisy = values + strength * scale * chance.standard_normal(values.shape)
    if values.dtype.kind in "iu":
        limits = np.iinfo(values.dtype)
        noisy = np.clip(np.rint(noisy), limits.min, limits.max)
    return Ragged(noisy.astype(values.dtype), given.sizes)


# ---- what an answer leans on ----------------------------------------------------------------------------------------


def faithfulness(model: Model, bench: Bench) -> Statistics:
    """The goal with a quarter of each raw sound or image put out, in bands along its first axis: 'leaned_on', those where
    gradient times value is largest (Shrikumar et al. 2017), and 'chance', as many at random. If what is called important
    is no worse to lose than anything else, such an explanation is not faithful. Empty where there is nothing to look into,
    or no gradient comes back."""
    output = bench.goal.output
    first = _leaned_on(model, next(_batches(model, bench.dataset, bench.some)).to(model.device), output)
    if not any(map(torch.any, first.values())):
        return {}
    return {
        what: statistics(model, bench, bench.some, [output], _without_bands(output, what))[output]
        for what in ("leaned_on", "chance")
    }


def _without_bands(output: str, what: str) -> Predict:
    def predict(model: Model, batch: Batch, number: int) -> Predictions:
        sent, chance = batch.to(model.device), torch.Generator(model.device).manual_seed(number)
        ranks = _leaned_on(model, sent, output)
        if what == "chance":
            ranks = {
                name: torch.rand(rank.shape, generator=chance, device=model.device) for name, rank in ranks.items()
            }
        changed = {name: _put_out(sent.inputs[name], rank) for name, rank in ranks.items()}
        with torch.inference_mode():
            found: Predictions = model.network({**sent.inputs, **changed}, sent.present)
        return found

    return predict


def _leaned_on(model: Model, batch: Batch, output: str) -> dict[str, Tensor]:
    """{raw input: |gradient of the output's loss times (value less the row's mean)|, summed over each band} [batch, band]."""
    names = [name for name, item in model.recipe.inputs.items() if item.type in NOISY and item.axes > 0]
    raw = {name: batch.inputs[name].values.float().requires_grad_() for name in names}
    changed = {name: Ragged(values, batch.inputs[name].sizes) for name, values in raw.items()}
    network = model.network.eval()
    with torch.enable_grad():
        loss = _loss(network, network({**batch.inputs, **changed}, batch.present), batch, output)
    taught = bool(raw) and loss.requires_grad  # a function's answer has no gradient at all
    found = torch.autograd.grad(loss, list(raw.values()), allow_unused=True) if taught else [None] * len(raw)
    ranks = {}
    for (name, values), gradient in zip(raw.items(), found, strict=True):
        own = torch.zeros_like(values) if gradient is None else gradient * (values - _means(changed[name]))
        places = own.detach().abs().flatten(2).sum(2) if own.ndim > 2 else own.detach().abs()
        ranks[name] = places.new_zeros(len(places), BANDS + 1).scatter_add(1, _bands(changed[name]), places)[:, :BANDS]
    return ranks


def _put_out(given: Ragged, rank: Tensor) -> Ragged:
    """The row's mean in the place of a quarter of its bands, those that rank highest."""
    place = rank.argsort(1, descending=True).argsort(1)
    gone = F.pad(place < PUT_OUT * BANDS, (0, 1)).gather(1, _bands(given))
    cells = gone.reshape(*gone.shape, *[1] * (given.values.ndim - 2))
    return Ragged(torch.where(cells, _means(given).to(given.values.dtype), given.values), given.sizes)


def _bands(given: Ragged) -> Tensor:
    """[batch, place]: in which of the row's bands along its first axis; padding has one of its own, the last."""
    places = torch.arange(given.values.shape[1], device=given.values.device)
    sizes = given.sizes[:, :1]
    return torch.where(places < sizes, places * BANDS // sizes.clamp(min=1), BANDS)


def _means(given: Ragged) -> Tensor:
    """Of each row's real cells."""
    real = _real(given).reshape(*_real(given).shape, *[1] * (given.values.ndim - 1 - given.sizes.shape[1]))
    real = real.expand(given.values.shape)
    axes = tuple(range(1, given.values.ndim))
    found = torch.where(real, given.values.detach().float(), 0.0).sum(axes, keepdim=True)
    return found / real.sum(axes, keepdim=True).clamp(min=1)


def _loss(network: Network, predictions: Predictions, batch: Batch, output: str) -> Tensor:
    terms = term_values(network, predictions, batch, denominators(network, batch))
    return torch.stack([value for term, value in terms.items() if term.rpartition(".")[0] == output]).sum()


# ---- what has changed --------------------------------------------------------------------------------------------------


def changed(model: Model, before: Model, beside: int = 0) -> dict[str, Any]:
    """What of a model is not as it was in the one that it goes on from: {"parts": their names, "parameters": how many numbers,
    "share": of all}. beside: numbers of other models that stay as they are and belong to the whole."""
    old = dict(before.network.named_parameters(remove_duplicate=False))
    new = {
        id(value): value.numel()
        for name, value in model.network.named_parameters()
        if name not in old or old[name].shape != value.shape or not torch.equal(value, old[name])
    }
    parts = [
        name for name, part in model.network.parts().items() if any(id(value) in new for value in part.parameters())
    ]
    numbers = sum(new.values())
    return {"parts": parts, "parameters": numbers, "share": numbers / (model.parameters + beside)}


# ---- gradients and time --------------------------------------------------------------------------------------------


def reach(model: Model, bench: Bench) -> dict[str, float]:
    """{stage: norm of the goal's gradient at its tokens}, on training rows and in training mode; of a network without
    stages at its shared tokens ('network'). 0 where none comes back. The model is not to be used afterwards."""
    rows = bench.labelled(bench.goal.output, bench.dataset.splits.train)[:REACH_ROWS]
    batch = next(_batches(model, bench.dataset, rows, REACH_ROWS)).to(model.device)
    network = model.network.train()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        if isinstance(network, StagedNetwork):
            predictions, tokens = network.run(batch.inputs, batch.present)
        else:
            tokens = {"network": network.tokens(batch.inputs, batch.present)}
            predictions = network.answer(tokens["network"])
        loss = _loss(network, predictions, batch, bench.goal.output)
        places = [(name, value) for name, item in tokens.items() for value in (item.values, item.own_values)
                  if value is not None and value.requires_grad]  # fmt: skip
        if not loss.requires_grad:  # a function's answer has no gradient at all
            places = []
        found = torch.autograd.grad(loss, [value for _, value in places], allow_unused=True) if places else ()
    squares = dict.fromkeys(tokens, 0.0)
    for (name, _), gradient in zip(places, found, strict=True):
        squares[name] += 0.0 if gradient is None else float(gradient.double().square().sum())
    network.eval()
    return {name: value**0.5 for name, value in squares.items()}


def latency(model: Model, bench: Bench) -> dict[str, float]:
    """{"p50_ms", "p95_ms", "n"} of one row that has been read already: network, decoding and writing, on one thread. n: how
    many answers were timed, to the same rows again where there are fewer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        batches = list(_batches(model, bench.dataset, bench.test[:LATENCY_ROWS], 1))
        for batch in batches[:WARM_UP]:
            model.answers(batch)
        times: list[float] = []
        while len(times) < FEWEST_TIMED or (len(times) < LATENCY_ROWS and sum(times) < 1000 * LATENCY_S):
            began = time.perf_counter()
            model.answers(batches[len(times) % len(batches)])
            times.append(1000 * (time.perf_counter() - began))
    finally:
        torch.set_num_threads(before)
    return {"p50_ms": float(np.quantile(times, 0.5)), "p95_ms": float(np.quantile(times, 0.95)), "n": len(times)}


def first_answer_s(load: Callable[[], Mapping[str, Model]], bench: Bench) -> float:
    """Seconds from the files of the finished models to their first answer to a row; libraries are loaded already."""
    began = time.perf_counter()
    for model in load().values():
        model.answers(next(_batches(model, bench.dataset, bench.test[:1], 1)))
    return time.perf_counter() - began


def value_of(metric: Metric, kept: np.ndarray, weights: np.ndarray | None) -> float:
    """The metric of one model's statistics."""
    return (
        float(metric.combine(kept, np.ones(len(kept)) if weights is None else weights)) if len(kept) else float("nan")
    )


__all__ = [
    "Bench",
    "Statistics",
    "changed",
    "disturbable",
    "faithfulness",
    "first_answer_s",
    "latency",
    "reach",
    "statistics",
    "value_of",
    "with_disturbed_inputs",
    "with_first_stage_of",
    "with_noise",
    "with_truth",
]
