"""Batches: a pure function of (data, seed, step), whatever is read ahead and wherever training begins.

An epoch is a permutation keyed by (seed, epoch), cut into pools of 128 batches, each pool sorted by length and cut
into batches, the batches permuted. Where rows are long in two ways (a sentence and its translation), a pool is sorted by
one, cut into eleven strips, and each strip sorted by the other. The short last batch is kept. So every row is in exactly one batch of an epoch,
any step is reached without walking there, and rows of a batch are of about one length.

Not here: moving a batch to a device, augmentation (both the network's and the loop's).
"""

import math
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from endwise.batch import Batch, Ragged
from endwise.data.dataset import Dataset
from endwise.data.store import FieldStore
from endwise.errors import DataError, require
from endwise.modalities.base import Contract, Modality
from endwise.patches import SOUGHT, drawn, exceeds, words

if TYPE_CHECKING:
    from endwise.recipe import Recipe

POOL_BATCHES = 128
STRIPS = 11  # the square root of it: as fine in one length as in the other
MINOR = 16  # a field this many times shorter than the longest decides between equals only: its padding costs nothing
MEASURED_ROWS = (
    200_000  # up to so many rows are transformed to know their exact length (units of a text, not its bytes)
)
DENSE_BYTES = 256 << 20  # scalars and vectors of a field are transformed once and kept, up to this
MEMO_BYTES = 64 << 20  # transformed values of other small fields (token ids) that are kept
MEMO_VALUE_BYTES = 16 << 10
READ_THREADS = 2

Gather = Callable[[np.ndarray], Ragged]


@dataclass(frozen=True, slots=True)
class Counters:
    """What the loader has done so far. read_s: seconds spent making batches, in all threads; wait_s: seconds the
    consumer of `iterate` waited for one; padded_share: padding among all array elements of ragged fields."""

    batches: int
    rows: int
    padded_share: float
    read_s: float
    wait_s: float


class Loader:
    """Batches of some rows of a prepared data set.

    rows: int64 row ids. shuffle=False gives them in their order, or the longest first with order="length"; either
    way `row_ids` of a batch says which rows it holds. Safe to use from several threads.
    """

    def __init__(
        self,
        dataset: Dataset,
        recipe: "Recipe",
        contracts: Mapping[str, Contract],
        rows: np.ndarray,
        *,
        batch_size: int,
        seed: int,
        shuffle: bool,
        order: Literal["given", "length"] = "given",
    ):
        require(batch_size >= 1, field="batch_size", got=batch_size, allowed="at least 1", fix="give a positive number")
        require(
            len(rows) > 0, field="rows", got=0, allowed="at least one row to make batches of",
            fix="the split is empty: check data.split, or give more rows", error=DataError,
        )  # fmt: skip
        self.dataset, self.rows = dataset, np.asarray(rows, np.int64)
        self.batch_size, self.seed, self.shuffle = int(batch_size), int(seed), shuffle
        self.batches_per_epoch = -(-len(self.rows) // self.batch_size)
        self._inputs = {name: item for name, item in recipe.inputs.items() if name in dataset.fields}
        self._outputs = {name: item for name, item in recipe.outputs.items() if name in dataset.fields}
        self._gather = {
            name: _gatherer(dataset.fields[name], item, contracts[name], self.rows)
            for name, item in {**self._inputs, **self._outputs}.items()
        }
        self._drawn = self._sampled(contracts) if shuffle else {}
        self._lengths = self._ranked()
        total = np.sum(self._lengths, axis=0) if self._lengths else np.zeros(len(self.rows))
        self._sorted = np.lexsort((np.arange(len(self.rows)), -total)) if order == "length" else None
        self._plans: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._lock = threading.Lock()
        self._done = self._done_rows = 0
        self._real = self._slots = self._read_s = self._wait_s = 0.0

    # ---- batches -------------------------------------------------------------------------------------------------

    def batch(self, step: int) -> Batch:
        """The batch of a step (numpy arrays); step // batches_per_epoch is its epoch."""
        began = time.perf_counter()
        rows = self.batch_rows(step)
        fields = {
            name: self._drawn[name](rows, step) if name in self._drawn else gather(rows)
            for name, gather in self._gather.items()
        }
        made = Batch(
            inputs={name: fields[name] for name in self._inputs},
            targets={name: fields[name] for name in self._outputs},
            present={name: self.dataset.fields[name].present[rows] for name in fields},
            weight=self.dataset.weight[rows],
            row_ids=rows,
        )
        self._count(made, time.perf_counter() - began)
        return made

    def batch_rows(self, step: int) -> np.ndarray:
        """int64: the row ids of a step's batch, without reading them."""
        require(step >= 0, field="step", got=step, allowed="0 or more", fix="steps count from 0")
        epoch, index = divmod(int(step), self.batches_per_epoch)
        order, batches = self._plan(epoch)
        start = int(batches[index]) * self.batch_size
        rows: np.ndarray = self.rows[order[start : start + self.batch_size]]
        return rows

    def iterate(self, start: int, stop: int, *, prefetch: int = 2) -> Iterator[Batch]:
        """The batches of steps start .. stop - 1, `prefetch` of them read ahead in the background (0: none)."""
        if prefetch < 1:
            yield from (self.batch(step) for step in range(start, stop))
            return
        pool = ThreadPoolExecutor(min(prefetch, READ_THREADS), thread_name_prefix="endwise-batch")
        waiting: deque[Future[Batch]] = deque()
        ahead = start
        try:
            for _ in range(start, stop):
                while ahead < stop and len(waiting) < prefetch:
                    waiting.append(pool.submit(self.batch, ahead))
                    ahead += 1
                began = time.perf_counter()
                made = waiting.popleft().result()
                self._wait_s += time.perf_counter() - began
                if ahead < stop:  # before the consumer gets busy, so that its time is used
                    waiting.append(pool.submit(self.batch, ahead))
                    ahead += 1
                yield made
        finally:  # the consumer stopped, or a batch failed
            pool.shutdown(wait=True, cancel_futures=True)

    @property
    def counters(self) -> Counters:
        """A snapshot."""
        with self._lock:
            share = 1.0 - self._real / self._slots if self._slots else 0.0
            return Counters(self._done, self._done_rows, share, self._read_s, self._wait_s)

    def _sampled(self, contracts: Mapping[str, Contract]) -> "dict[str, _Drawn]":
        """The fields that training sees a part of: inputs without what held-out rows are about; patches."""
        found: dict[str, _Drawn] = {}
        for name, item in self._inputs.items():
            if item.samples:
                hidden = self._held_out(name, item) if item.hides_held_out else frozenset()
                found[name] = _Sampled(self.dataset.fields[name], item, contracts[name], hidden, self.seed)
            sides = item.patch(contracts[name])
            if sides is not None and any_larger(self.dataset.fields[name], item, sides, self.rows):
                found |= self._in_patches(name, item, sides, contracts)
        return found

    def _in_patches(
        self, name: str, item: Modality, sides: tuple[int, ...], contracts: Mapping[str, Contract]
    ) -> "dict[str, _Drawn]":
        """An input that is larger than what is looked at at once, and all outputs, which lie on it."""
        for output, other in self._outputs.items():
            require(
                getattr(other, "on", None) == name and len(self._inputs) == 1 and type(other).part is not Modality.part,
                field=f"outputs.{output}",
                got=f"{other.type}, beside {name} that is seen in patches of {' x '.join(map(str, sides))}", error=DataError,
                allowed="outputs that are cut with it, such as masks, and no other input",
                fix="let it be seen whole (a larger seen_voxels:), or answer the others in a recipe of their own",
            )  # fmt: skip
        places = _Places(self.dataset, name, item, sides, {**self._outputs}, contracts, self.seed)
        fields = {name: item, **self._outputs}
        return {own: _Patched(self.dataset.fields[own], other, contracts[own], places) for own, other in fields.items()}

    def _held_out(self, name: str, item: Modality) -> frozenset[complex]:
        """What rows of the other sides are about, and none of these."""
        store, splits = self.dataset.fields[name], self.dataset.splits

        def about(rows: np.ndarray) -> frozenset[complex]:
            return frozenset(one for row in rows[store.present[rows]].tolist() for one in item.asked_about(store[row]))

        return about(np.concatenate([splits.val, splits.test])) - about(self.rows)

    # ---- order ---------------------------------------------------------------------------------------------------

    def _plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(positions of all rows in batch order, order of the batches); a permutation that needs no earlier one."""
        with self._lock:
            if epoch not in self._plans:
                self._plans = {key: plan for key, plan in self._plans.items() if key == epoch - 1}
                self._plans[epoch] = self._shuffled(epoch) if self.shuffle else self._in_order()
            return self._plans[epoch]

    def _in_order(self) -> tuple[np.ndarray, np.ndarray]:
        order = self._sorted if self._sorted is not None else np.arange(len(self.rows))
        return order, np.arange(self.batches_per_epoch)

    def _shuffled(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        order = _permutation(len(self.rows), self.seed, epoch, 0)
        pool = POOL_BATCHES * self.batch_size
        for start in range(0, len(order) if self._lengths else 0, pool):
            order[start : start + pool] = self._by_length(order[start : start + pool])
        batches = _permutation(self.batches_per_epoch, self.seed, epoch, 1)
        # only the highest batch is short, wherever its turn comes
        return order, batches

    def _by_length(self, pool: np.ndarray) -> np.ndarray:
        """The rows of a pool so that neighbours are of about one length, in strips where there are two."""
        first, *others = self._lengths
        order = pool[np.argsort(first[pool], kind="stable")]
        if not others:
            return order
        batches = -(-len(pool) // self.batch_size)
        strip = -(-batches // STRIPS) * self.batch_size
        parts = [order[start : start + strip] for start in range(0, len(order), strip)]
        return np.concatenate([part[np.argsort(others[0][part], kind="stable")] for part in parts])

    def _ranked(self) -> list[np.ndarray]:
        """How long rows are, float64 [rows]: by the longest field, then by the sum of the others that are not far
        shorter. Those that are decide between equals."""
        found = []
        for name, modality in {**self._inputs, **self._outputs}.items():
            lengths = self._measured(name, modality)
            if lengths.size and lengths.min() != lengths.max():
                found.append(lengths)
        found.sort(key=lambda lengths: -float(lengths.mean()))  # stable: of equals the input
        if not found:
            return []
        longest = float(found[0].mean())
        others = [lengths for lengths in found[1:] if float(lengths.mean()) * MINOR >= longest]
        minor = [lengths / (1 + lengths.max()) for lengths in found[1:] if float(lengths.mean()) * MINOR < longest]
        first = found[0] + 0.5 * np.mean(minor, axis=0) if minor else found[0]
        return [first, np.sum(others, axis=0)] if others else [first]

    def _measured(self, name: str, modality: Modality) -> np.ndarray:
        """float64 [rows]: of what the network will be given where that is another length than what is stored."""
        gather, lengths = self._gather[name], self.dataset.fields[name].lengths(modality)[self.rows].astype(np.float64)
        if not self.shuffle or name in self._drawn or len(self.rows) > MEASURED_ROWS or not lengths.any():
            return lengths
        if not isinstance(gather, _Stacked) or gather.as_stored:
            return lengths
        return np.array([float(gather.length(row)) for row in self.rows.tolist()])

    def _count(self, made: Batch, seconds: float) -> None:
        real = slots = 0.0
        for ragged in (*made.inputs.values(), *made.targets.values()):
            if ragged.sizes.shape[1]:
                slots += ragged.values.size
                real += ragged.values.size * (1.0 - ragged.padded_share)
        with self._lock:
            self._done += 1
            self._done_rows += len(made)
            self._real += real
            self._slots += slots
            self._read_s += seconds


def _permutation(count: int, seed: int, epoch: int, stream: int) -> np.ndarray:
    """A permutation from a counter-based generator: raw Philox words, sorted. The words and a stable sort are the
    same in every release of numpy, which its `permutation` does not promise."""
    words = np.random.Philox(np.random.SeedSequence([seed, epoch, stream])).random_raw(count)
    return np.argsort(words, kind="stable")


# ---- one field -------------------------------------------------------------------------------------------------------


def _gatherer(store: FieldStore, modality: Modality, contract: Any, rows: np.ndarray) -> Gather:
    """How some rows of a field become one padded array: the fastest way that gives the same."""
    blank = modality.blank(contract)
    axes = modality.axes
    if axes == 0 and (blank.nbytes or 1) * len(rows) <= DENSE_BYTES:
        return _Dense(store, modality, contract, blank, rows)
    shape = store.common_shape
    as_stored = shape is not None and modality.stored_as_taken(shape, store.dtype, contract)
    if as_stored and bool(store.present[rows].all()):
        return lambda wanted: _uniform(store, wanted, axes)
    untouched = as_stored or type(modality).transform is Modality.transform
    return _Stacked(store, _Memo(store, modality, contract, untouched), blank, axes)


def any_larger(store: FieldStore, item: Modality, sides: tuple[int, ...] | None, rows: np.ndarray) -> bool:
    """Is a value of these rows larger than what is looked at at once?"""
    there = rows[store.present[rows]].tolist() if sides is not None else []
    return any(exceeds(item.extent(store[row]), sides) for row in there)


class _Stacked:
    """Values of different sizes, padded to the largest of a batch."""

    def __init__(self, store: FieldStore, transformed: "_Memo", blank: np.ndarray, axes: int):
        self._store, self._transformed, self._blank, self._axes = store, transformed, blank, axes
        self.as_stored = transformed.as_stored

    def __call__(self, rows: np.ndarray) -> Ragged:
        return Ragged.stack([self._value(row) for row in rows.tolist()], self._axes)

    def length(self, row: int) -> int:
        """Places of one row's value along its first axes."""
        return math.prod(self._value(row).shape[: self._axes])

    def _value(self, row: int) -> np.ndarray:
        return self._transformed(row) if self._store.present[row] else self._blank


class _Drawn(ABC):
    """Values of which training sees another part in each step."""

    def __init__(self, store: FieldStore, modality: Modality, contract: Any):
        self._store, self._modality, self._contract = store, modality, contract
        self._blank = modality.blank(contract)

    def __call__(self, rows: np.ndarray, step: int) -> Ragged:
        there = self._store.present
        values = [self._part(row, step) if there[row] else self._blank for row in rows.tolist()]
        return Ragged.stack(values, self._modality.axes)

    @abstractmethod
    def _part(self, row: int, step: int) -> np.ndarray:
        """Of a row that has a value."""


class _Sampled(_Drawn):
    """Parts of values, drawn anew in each step: a function of (seed, step, row)."""

    def __init__(self, store: FieldStore, modality: Modality, contract: Any, hidden: frozenset[complex], seed: int):
        super().__init__(store, modality, contract)
        self._hidden, self._seed = hidden, seed

    def _part(self, row: int, step: int) -> np.ndarray:
        seen = self._store[row]
        if self._hidden:
            seen = self._modality.without(seen, self._hidden)
        return self._modality.sample(self._modality.transform(seen, self._contract), (self._seed, int(step), row))


class _Places:
    """Where a step's patch of a row begins: a function of (seed, step, row), the same for all fields of the row. One in
    three is drawn around what an output seeks."""

    def __init__(
        self, dataset: Dataset, name: str, item: Modality, sides: tuple[int, ...], outputs: Mapping[str, Modality],
        contracts: Mapping[str, Contract], seed: int,
    ) -> None:  # fmt: skip
        self._store, self._item, self.sides, self._seed = dataset.fields[name], item, sides, seed
        self._outputs = [(dataset.fields[own], other, contracts[own]) for own, other in outputs.items()]

    def __call__(self, row: int, step: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(start, sides)."""
        drawn_words = words((self._seed, int(step), row), 4 + len(self.sides))
        chooses, *more = drawn_words.tolist()
        shape = self._item.extent(self._store[row])
        around = None
        there = [(store, item, contract) for store, item, contract in self._outputs if store.present[row]]
        if chooses % SOUGHT == 0 and there:
            store, item, contract = there[more[0] % len(there)]
            around = item.sought(store[row], contract, drawn_words[2:4])
        sides = tuple(min(own, most) for own, most in zip(shape, self.sides, strict=True))
        return drawn(shape, sides, drawn_words[4:], around), sides


class _Patched(_Drawn):
    """Patches of values, at the places that all fields of a row share."""

    def __init__(self, store: FieldStore, modality: Modality, contract: Any, places: _Places):
        super().__init__(store, modality, contract)
        self._places = places

    def _part(self, row: int, step: int) -> np.ndarray:
        part = self._modality.part(self._store[row], *self._places(row, step))
        return np.asarray(self._modality.transform(part, self._contract))


def _uniform(store: FieldStore, rows: np.ndarray, axes: int) -> Ragged:
    values = store.gather(rows)
    return Ragged(values, np.tile(np.array(values.shape[1 : 1 + axes], np.int64), (len(rows), 1)))


class _Dense:
    """Values without ragged axes, transformed once: gathering is one indexing."""

    def __init__(self, store: FieldStore, modality: Modality, contract: Any, blank: np.ndarray, rows: np.ndarray):
        self._from = (store, modality, contract, blank, rows)
        self._position = np.full(int(rows.max()) + 1, -1, np.int64)
        self._position[rows] = np.arange(len(rows))
        self._lock = threading.Lock()
        self._values: np.ndarray | None = None

    def __call__(self, rows: np.ndarray) -> Ragged:
        with self._lock:  # made when first needed, once, whoever comes first
            if self._values is None:
                self._values = _transformed_all(*self._from)
        return Ragged(self._values[self._position[rows]], np.zeros((len(rows), 0), np.int64))


def _transformed_all(
    store: FieldStore, modality: Modality, contract: Any, blank: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    return np.stack(
        [np.asarray(modality.transform(store[row], contract)) if store.present[row] else blank for row in rows.tolist()]
    )


class _Memo:
    """Transformed values of a row, small ones kept while there is room."""

    def __init__(self, store: FieldStore, modality: Modality, contract: Any, as_stored: bool):
        self._store, self._modality, self._contract, self.as_stored = store, modality, contract, as_stored
        self._left = 0 if as_stored else MEMO_BYTES
        self._kept: dict[int, np.ndarray] = {}

    def __call__(self, row: int) -> np.ndarray:
        kept = self._kept.get(row)
        if kept is not None:
            return kept
        value = np.asarray(self._modality.transform(self._store[row], self._contract))
        cost = value.nbytes + 200  # with the array and its place in the table
        if value.nbytes <= MEMO_VALUE_BYTES and cost <= self._left:
            self._left -= cost
            self._kept[row] = value = value.copy() if value.base is not None else value
        return value
