"""What somebody chose, bought or heard, in order; and what comes next: a ranking of everything there is.

Here: how a cell of items is read, which items there are, and how a ranking is written. Not here: the encoder and the head
(network.py), the rival that counts what goes with what (classical.py), scores of a ranking (endwise/metrics/ranking.py), how
a table of single purchases becomes histories (`data.gather`, endwise/data/gather.py).
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from endwise.certainty import improbability, probable
from endwise.errors import BadValue, DataError, refusal, require, unknown_name
from endwise.modalities.base import (
    OUTPUT_ROLE,
    READ_AGAIN,
    Answer,
    Contract,
    Fetch,
    Modality,
    Role,
    counted,
    input_field,
    output_field,
    shared_field,
)
from endwise.modalities.category import UNKNOWN, class_name

if TYPE_CHECKING:
    from endwise.metrics import Metric
    from endwise.nn.interface import Encoder, Head
    from endwise.nn.size import Size

LONGEST = 50  # SASRec's for sparse histories
SHOWN = 10  # items of an answer
DEPTHS = (1, 5, 10)
RIVALS = 100  # of the sampled metric
MOST_IN_FULL = 20_000  # items that a full softmax is affordable for
MOST_READ = 1_024  # items whose content is read in every step
SAMPLED = 1_024
RANK = "rank"


@dataclass(frozen=True, kw_only=True)
class ItemsContract(Contract):
    """The items of the training rows, sorted (whole numbers by size), and how often each occurs. An item's id is its place;
    the id after the last stands for every item that is not among them; with a catalogue they are its items, whether bought or
    not. longest, total: places of the longest row, of all."""

    items: tuple[str, ...]
    counts: tuple[int, ...]
    longest: int
    total: int
    cut: int  # rows longer than `Items.longest`
    contents: tuple[dict[str, Any], ...] = ()  # what a catalogue says about each item, column by column (catalogue.py)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Name -> id."""
        return {name: index for index, name in enumerate(self.items)}

    @cached_property
    def cold(self) -> frozenset[str]:
        """The items that are in no training row."""
        return frozenset(name for name, count in zip(self.items, self.counts, strict=True) if not count)


@dataclass(frozen=True, kw_only=True)
class Items(Modality):
    """Items by id, oldest first: what a user bought (in), and a ranking of all items for what comes next (out).

    A cell is a list, a JSON list, text with `separator` between the ids, or one id. An id is known by its text: 3 and "3" are
    one item; numbers with a decimal point are refused, since they cannot hold every id. An empty list is refused: leave the
    cell empty where nothing is known. An item that training never saw is read as <unknown>: in a history it counts as the
    average item; as an answer it cannot be right.

    An answer after a history learns at each of its places what came next (SASRec; Kang & McAuley 2018), with the item vectors
    of the input as its own, by cross-entropy over all items: with it SASRec beats what is trained on a few negatives
    (Petrov & Macdonald 2023, gSASRec; Klenitskiy & Vasilev 2023).

    With a `catalogue`, one of data.tables, every item of it is ranked, also those that nobody has bought: what its `content`
    says is read by the encoder of its kind, and an item is that and, where it was bought, something of its own.
    """

    type: ClassVar[str] = "items"
    length_unit: ClassVar[str] = "bytes"
    hand_offs: ClassVar[frozenset[str]] = READ_AGAIN
    contract_class = ItemsContract
    axes: ClassVar[int] = 1
    read_fields: ClassVar[tuple[str, ...]] = ("separator",)

    separator: str = shared_field(",", "what stands between two ids in a cell of text")
    longest: int = input_field(LONGEST, "of a longer history only the newest so many items are read")
    of: str | None = output_field(
        None, "the history that it continues; default: the only input of items, if there is one"
    )
    seen: Literal["ranked", "left_out"] = output_field(
        "ranked", "left_out: what is in the history is not recommended again"
    )
    shown: int = output_field(SHOWN, "how many items an answer names; at least 10 for the usual metrics")
    sampled: int | None = output_field(
        None,
        f"items a step learns against: null: all, or {SAMPLED} drawn by frequency where there are over {MOST_IN_FULL}",
    )
    catalogue: str | None = output_field(None, "the table of all items, one of data.tables: new ones are ranked, too")
    key: str = output_field("item", "the column of the catalogue that names its items")
    content: dict[str, Any] | None = output_field(  # noqa: RUF009 - frozen
        None,
        "what the catalogue says about an item: {column: the kind of value}, such as {title: text, photo: image}",
        hashed=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            bool(self.separator),
            field="Items.separator",
            got=self.separator,
            allowed="at least one character",
            fix="write separator: ';' or whatever stands between the ids",
        )
        for name, least in (("longest", 1), ("shown", max(DEPTHS)), ("sampled", 1)):
            value = getattr(self, name)
            require(
                value is None or value >= least,
                field=f"Items.{name}",
                got=value,
                allowed=f"a whole number of at least {least}",
                fix="leave it out for what is usual",
            )
        require(
            bool(self.content) == (self.catalogue is not None),
            field="Items.content",
            got=self.content,
            allowed="columns of the catalogue, and a catalogue that has them",
            fix="write both: {catalogue: items, content: {title: text}}, and data: {tables: {items: items.csv}}",
        )
        if self.content:
            from endwise.modalities.items.catalogue import declared

            declared(self.content)

    def beside(self, inputs: Mapping[str, Modality], outputs: Mapping[str, Modality]) -> Self:
        """An output with `of` written out, where there is a history."""
        if not any(self is item for item in outputs.values()):
            return self  # an input
        histories = [name for name, item in inputs.items() if isinstance(item, Items)]
        if self.of is not None:
            if self.of not in histories:
                raise unknown_name(field="Items.of", got=self.of, names=histories)
            return self
        require(
            len(histories) < 2,
            field="Items.of",
            got=None,
            allowed=f"one of {', '.join(histories)}",
            fix="name the history that the answer continues",
        )
        require(
            bool(histories) or self.seen == "ranked",
            field="Items.seen",
            got=self.seen,
            allowed="ranked, where no input is a history of items",
            fix="remove it, or add an input of items",
        )
        return replace(self, of=histories[0]) if histories else self

    def agreed(self, name: str, contracts: Mapping[str, Any]) -> dict[str, Contract]:
        """An output, the history that it continues, and other outputs of this history number their items alike: those of all."""
        if self.of is None:
            return {}
        own, given = contracts[name], contracts[self.of]
        if given.contents:
            _refuse_unlisted(own.items, given.ids, f"Items.catalogue of {self.of!r}", "the catalogue")
        counts = Counter(dict(zip(own.items, own.counts, strict=True)))
        counts.update(dict(zip(given.items, given.counts, strict=True)))
        items, counted = _numbered(counts)
        return {
            field: replace(contracts[field], items=items, counts=counted) for field in self._together(name, contracts)
        }

    def _together(self, name: str, contracts: Mapping[str, Any]) -> set[str]:
        """An output, its history, and what has been numbered with this history before."""
        bearer = name if self.of is None else self.of
        given = contracts[bearer]
        return {name, bearer} | {
            field for field, other in contracts.items()
            if isinstance(other, ItemsContract) and other.items is given.items  # as many as often may be another shop's
        }  # fmt: skip

    def furnished(
        self, name: str, contracts: Mapping[str, Any], tables: Callable[[], Mapping[str, Any]]
    ) -> dict[str, Contract]:
        """What is numbered together is so by the items of the catalogue, and the one whose vectors are ranked knows what it says."""
        if self.catalogue is None or not self.content:
            return {}
        from endwise.modalities.items.catalogue import contents, ids_of

        given = tables()
        if self.catalogue not in given:
            raise unknown_name(field="Items.catalogue (data.tables)", got=self.catalogue, names=given)
        table, own = given[self.catalogue], contracts[name]
        row_of = {item: row for row, item in enumerate(ids_of(table, self.key, id_of))}
        _refuse_unlisted(own.items, row_of, f"Items.catalogue ({table.name})", table.name, self.key)
        items, counts = _numbered({**dict.fromkeys(row_of, 0), **dict(zip(own.items, own.counts, strict=True))})
        bought = [place for place, count in enumerate(counts) if count]
        known = contents(table, self.content, [row_of[item] for item in items], bought)
        bearer = name if self.of is None else self.of
        require(
            contracts[bearer].contents in ((), known), field=f"outputs.{name}.catalogue", got=self.catalogue,
            allowed=f"one catalogue and one content for all that continues {bearer!r}", fix="say the same in both outputs",
        )  # fmt: skip
        return {
            field: replace(contracts[field], items=items, counts=counts, contents=known if field == bearer else ())
            for field in self._together(name, contracts)
        }

    def in_bundle(self, contract: ItemsContract) -> tuple[Modality, Contract]:
        """Without the contents: its graph holds the items' vectors."""
        return replace(self, catalogue=None, key="item", content=None), replace(contract, contents=())

    # ---- both roles ------------------------------------------------------------------------------------------------

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """The ids as a JSON list, in order: uint8 [n] of utf-8."""
        items = [id_of(item) for item in self._items(raw)]
        if not items:
            raise BadValue("the list of items is empty. Fix: leave the cell empty where nothing is known")
        return np.frombuffer(json.dumps(items, ensure_ascii=False).encode(), dtype=np.uint8)

    def _items(self, raw: Any) -> list[Any]:
        if isinstance(raw, np.ndarray) and raw.ndim == 1:
            raw = raw.tolist()
        if isinstance(raw, list | tuple):
            return list(raw)
        if not isinstance(raw, str):
            return [raw]
        text = raw.strip()
        if text.startswith("["):
            try:
                found = json.loads(text)
            except (ValueError, RecursionError):
                raise BadValue(f"{text[:60]!r} starts like a JSON list of items and is none") from None
            return list(found)
        items = [item.strip() for item in text.split(self.separator)] if text else []
        if any(not item for item in items):
            raise BadValue(f"{text[:60]!r} has nothing between two separators ({self.separator!r})")
        return items

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> ItemsContract:
        """Count the items in one pass."""
        found: Counter[str] = Counter()
        seen = longest = total = cut = 0
        for value in values:
            items = names_of(value)
            found.update(items)
            seen, total, longest = seen + 1, total + len(items), max(longest, len(items))
            cut += role != OUTPUT_ROLE and len(items) > self.longest
        if not found or (role == OUTPUT_ROLE and len(found) < 2):
            raise refusal(
                field="items", got=f"only {next(iter(found))!r}" if found else f"{missing} rows without a value",
                allowed="at least two different items" if found else "at least one training row with a value",
                fix="look at the column's name and at the split, or remove the field", error=DataError,
            )  # fmt: skip
        names, counts = _numbered(found)
        return ItemsContract(
            count=seen, missing=missing, items=names, counts=counts, longest=longest, total=total, cut=cut
        )

    def transform(self, value: np.ndarray, contract: ItemsContract) -> np.ndarray:
        """int64 [items]: the ids, of the newest `longest`; of an item that training never saw, the number of items."""
        ids, unknown = contract.ids, len(contract.items)
        return np.array([ids.get(name, unknown) for name in names_of(value)[-self.longest :]], dtype=np.int64)

    def continued(self, old: Any, new: Any, role: Role) -> Contract | None:
        """An output goes on where the items are the same, however often each occurs."""
        if role != OUTPUT_ROLE:
            return super().continued(old, new, role)
        return new if old.items == new.items else None

    def blank(self, contract: ItemsContract) -> np.ndarray:
        """The first item."""
        return np.zeros(1, dtype=np.int64)

    def length(self, shape: tuple[int, ...]) -> int:
        """About how many items so many bytes hold."""
        return shape[0]

    def example(self, contract: ItemsContract) -> Any:
        """Two of them."""
        return list(contract.items[:2])

    def summary(self, contract: ItemsContract) -> str:
        """'13,204 rows of 1 to 860 of 18,819 items, 7.2 on average; 312 are cut to their newest 50; seen ones left out'."""
        mean = contract.total / max(1, contract.count)
        text = f"{contract.count:,} rows of up to {contract.longest:,} of {len(contract.items):,} items, {mean:.3g} on average"
        if contract.cut:
            text += f"; {contract.cut:,} are cut to their newest {self.longest}"
        new = sum(count == 0 for count in contract.counts)
        text += f"; {new:,} that nobody bought are known by their content alone" if new else ""
        return text + ("; what is in the history is left out" if self.seen == "left_out" else "")

    def preview(self, value: np.ndarray, contract: ItemsContract) -> dict[str, str]:
        """The newest items, those that training never saw marked."""
        names = names_of(value)
        shown = [name if name in contract.ids else f"{name} {UNKNOWN}" for name in names[-SHOWN:]]
        return {"kind": "text", "data": ("… " if len(names) > SHOWN else "") + ", ".join(shown)}

    # ---- inputs ----------------------------------------------------------------------------------------------------

    def onto(self, places: np.ndarray, whole: np.ndarray, contract: ItemsContract) -> np.ndarray:
        """The whole history: nothing for items before those that are read."""
        return np.concatenate([np.zeros(len(names_of(whole)) - len(places)), places])

    def named(self, whole: np.ndarray, contract: ItemsContract) -> Sequence[str]:
        """The items."""
        return names_of(whole)

    def hand_features(self) -> Any:
        """A count for each item, in a column that its name leads to."""
        from endwise.modalities.items.classical import ItemCounts

        return ItemCounts()

    # ---- outputs ---------------------------------------------------------------------------------------------------

    def truth(self, value: np.ndarray, contract: ItemsContract) -> list[str]:
        """The ids, whether training saw them or not."""
        return names_of(value)

    def write(self, decoded: Mapping[str, np.ndarray], contract: ItemsContract) -> Answer:
        """The best items first; the first one's probability as confidence, all of them in `detail`."""
        ids, chances = np.asarray(decoded["ids"]).tolist(), np.asarray(decoded["probabilities"]).tolist()
        named = {contract.items[item]: chance for item, chance in zip(ids, chances, strict=True) if chance > 0}
        return Answer(list(named), next(iter(named.values()), None), detail={"probabilities": named})

    def about(
        self, which: Any, decoded: Mapping[str, np.ndarray], contract: ItemsContract
    ) -> tuple[str, tuple[int, ...]]:
        """An item of the list by its rank from 0, or any by its name; else the first."""
        ids = np.asarray(decoded["ids"]).tolist()
        place = contract.ids.get(str(which)) if which is not None else None
        if place is None:
            place = ids[counted(which, len(ids), "rank")]
        return contract.items[place], (place,)

    def remarks(self, truths: Sequence[Any], answers: Sequence[Answer], contract: ItemsContract) -> Sequence[str]:
        """Truths that no ranking can hold."""
        lost = sum(1 for truth in truths if not any(name in contract.ids for name in truth))
        cold = sum(1 for truth in truths if contract.cold & set(truth))
        known = "the catalogue lacks" if contract.cold else "training never saw"
        told = [f"{lost} of {len(truths)} rows have a next item that {known}: no answer can be right"] if lost else []
        if cold:
            told.append(
                f"{cold} of {len(truths)} rows have a next item that nobody bought in training: see the cold_ metrics"
            )
        return told

    def metrics(self, contract: ItemsContract) -> Sequence["Metric"]:
        """ndcg@10, recall@1, @5 and @10 and mrr@10 over all items; sampled_ndcg@10 among 100 drawn ones, for comparison with
        papers that report nothing else; with a catalogue, cold_ndcg@10 and cold_recall@k over the rows whose next item nobody
        bought in training."""
        from endwise.metrics import ranking

        found = [ranking.ndcg(10), *(ranking.recall(depth) for depth in DEPTHS), ranking.mrr(10)]
        found.append(ranking.sampled_ndcg(10, rivals=RIVALS, of_term=RANK))
        return [*found, *(ranking.cold(item, contract.cold) for item in found[:4])] if contract.cold else found

    def risk(self, contract: ItemsContract) -> "Metric":
        """The share of rows whose first item is none of the right ones."""
        from endwise.metrics import ranking

        return ranking.recall(1)

    def strangeness(self, truth: Any, answer: Answer, contract: ItemsContract) -> float:
        """1 - the largest probability of a right item; endless where none is among those that are named."""
        return improbability(truth, answer)

    def among(self, answer: Answer, limit: float, contract: ItemsContract) -> list[str]:
        """The items that are probable enough, of those that are named."""
        return probable(answer, limit)

    def classical(self, contract: ItemsContract) -> Any:
        """Items that go with those of the history, by cosine of their rows."""
        from endwise.modalities.items.classical import ItemNeighbours

        return ItemNeighbours(contract.items, contract.counts, leave_out=self.seen == "left_out", shown=self.shown)

    def trivial(self, truths: Sequence[Any], contract: ItemsContract) -> Answer:
        """The most frequent items, of everything that training holds."""
        order = sorted(range(len(contract.items)), key=lambda item: -contract.counts[item])[: self.shown]
        total = max(1, sum(contract.counts))
        named = {contract.items[item]: contract.counts[item] / total for item in order}
        return Answer(list(named), next(iter(named.values())), detail={"probabilities": named})

    def from_classical(self, predicted: Any, contract: ItemsContract) -> Answer:
        """`predicted`: names, the best first."""
        return Answer(list(predicted))

    # ---- network side ----------------------------------------------------------------------------------------------

    def encoder(self, contract: ItemsContract, size: "Size") -> "Encoder":
        """A vector for each item, and causal attention over them."""
        from endwise.modalities.items.network import ItemsEncoder

        return ItemsEncoder(contract, size)

    def head(self, contract: ItemsContract, size: "Size") -> "Head":
        """Every item scored by the vector that the history asks for."""
        from endwise.modalities.items.network import ItemsHead

        count = len(contract.items)
        most = MOST_READ if self.content else MOST_IN_FULL
        sampled = self.sampled if self.sampled is not None or count <= most else SAMPLED
        return ItemsHead(
            contract,
            size,
            of=self.of,
            leave_out=self.seen == "left_out",
            shown=min(self.shown, count),
            sampled=sampled,
            furnished=bool(self.content),
        )


def names_of(value: np.ndarray) -> list[str]:
    """The ids of a decoded cell."""
    found: list[str] = json.loads(value.tobytes())
    return found


def id_of(raw: Any) -> str:
    """The name of an id: a whole number or a text. Raises BadValue."""
    if isinstance(raw, float | np.floating):
        raise BadValue(
            f"{raw!r} is no id: numbers with a decimal point cannot hold every id. Fix: write the column as whole numbers or as text"
        )
    return class_name(raw)


def _refuse_unlisted(items: Iterable[str], listed: Collection[str], field: str, table: str, key: str = "item") -> None:
    """DataError where a catalogue lacks items of the training rows."""
    lacking = [item for item in items if item not in listed]
    require(
        not lacking, field=field, error=DataError, allowed="every item that is bought",
        got=f"{len(lacking)} items of the training rows are not in it: {', '.join(lacking[:3])}",
        fix=f"add them to {table}, or look at key: {key!r}",
    )  # fmt: skip


def _numbered(counts: Mapping[str, int]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The items in their order, and how often each occurs."""
    plain = all(name.isdecimal() for name in counts)
    names = sorted(counts, key=lambda name: (int(name), name) if plain else (0, name))
    return tuple(names), tuple(counts[name] for name in names)
