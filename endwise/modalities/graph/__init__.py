"""What a row is connected with: nodes and edges around it, before its time.

Here: how a row finds its edges, or brings them along, and what is learnt about them. Not here: looking around in many edges
(index.py), the layers that pass messages (network.py), the classical view (features.py), other tables (`data.tables`).
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from endwise.errors import BadValue, DataError, refusal, require, unknown_name
from endwise.modalities.base import INPUT_ROLE, Contract, Fetch, Modality, Role, input_field
from endwise.modalities.graph.index import (
    AGE,
    ASKED,
    DIRECTION,
    FIXED,
    HOP,
    NODE,
    PARENT,
    Columns,
    Complain,
    Edges,
    kept,
    moment,
    thinned,
)
from endwise.modalities.graph.tables import refuse_answers, unclear_kinds

if TYPE_CHECKING:
    from endwise.nn.interface import Encoder
    from endwise.nn.size import Size

NEIGHBOURS = (10, 3)
CAP = (20, 5)
KNOWN = 2  # ids of classes begin here: 0 is no class, 1 one that training never saw


@dataclass(frozen=True, kw_only=True)
class GraphContract(Contract):
    """Of the training rows' neighbourhoods: how many visits, the mean and deviation of each number (the age as its
    logarithm), and the classes of each column as hashes, sorted."""

    visits: int
    largest: int
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    classes: tuple[tuple[int, ...], ...]

    @cached_property
    def sorted_classes(self) -> list[np.ndarray]:
        """The same as arrays."""
        return [np.array(hashes, np.float64) for hashes in self.classes]


@dataclass(frozen=True, kw_only=True)
class Graph(Modality):
    """The edges around a row: of each node that the row is about (`at`) the newest edges before the row's time, then those
    of the nodes at their other ends. What an edge says (`numbers`, `classes`) and its direction travel along it; nodes are
    known by what is at them, never by their names, so that new ones are answered like old ones.

    With `at`, edges come from a table (`data: {path:, tables: {edges: edges.csv}}`) and the row's cells name the nodes. Without
    it, or at prediction, a cell is a graph of its own, {"at": [ids], "time":, "edges": [{column: value}], "nodes": [...]}, as a
    mapping or as JSON; one without "at" is about all of its nodes.

    Training sees a part of them, drawn anew in each step (Hamilton et al. 2017); everything else sees all, up to `cap`. Only
    edges with an earlier time are seen. Where there is no time, a row that is about two nodes sees none of the edges between
    them, which are its own, neither in training nor later; and training rows see nothing of what validation and test rows
    are about: of their nodes, or, where rows are about two, of the edges between these. `inductive: false` shows it to them.
    """

    type: ClassVar[str] = "graph"
    length_unit: ClassVar[str] = "visits"
    roles = frozenset({INPUT_ROLE})
    contract_class = GraphContract
    axes: ClassVar[int] = 1
    samples: ClassVar[bool] = True
    read_fields: ClassVar[tuple[str, ...]] = (
        "at", "ends", "one_kind", "time", "numbers", "classes", "node", "node_numbers", "node_classes", "cap",
    )  # fmt: skip

    at: tuple[str, ...] = input_field(
        (), "columns of the row that name the nodes it is about; none: its cell is a graph"
    )
    edges: str = input_field("edges", "the table of edges, one of data.tables")
    ends: tuple[str, ...] = input_field(("source", "target"), "the two columns of an edge that name its nodes")
    one_kind: bool | None = input_field(
        None,
        "whether both ends name nodes of one kind; false: of two, and an id at both ends is refused; null: not said",
    )
    time: str | None = input_field(None, "the column of rows and of edges that says when; null: edges have no time")
    numbers: tuple[str, ...] = input_field((), "columns of an edge that are numbers")
    classes: tuple[str, ...] = input_field((), "columns of an edge that are classes: its type, a place")
    nodes: str | None = input_field(None, "the table of nodes, one of data.tables, if there is one")
    node: str = input_field("id", "the column of the table of nodes that names them")
    node_numbers: tuple[str, ...] = input_field((), "columns of a node that are numbers")
    node_classes: tuple[str, ...] = input_field((), "columns of a node that are classes")
    neighbours: tuple[int, ...] = input_field(
        NEIGHBOURS, "edges a node that training draws, at the first step away, the second"
    )
    cap: tuple[int, ...] = input_field(CAP, "edges a node that are seen elsewhere, the newest ones")
    inductive: bool = input_field(
        True, "without a time: hide from training what held-out rows are about; false: only answers are held out"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            len(self.ends) == 2 and len(set(self.ends)) == 2,
            field="Graph.ends", got=self.ends, allowed="the names of two columns", fix="write ends: [from, to]",
        )  # fmt: skip
        require(
            1 <= len(self.cap) <= 4 and min(self.cap) >= 1,
            field="Graph.cap", got=self.cap, allowed="one to four whole numbers of at least 1", fix=f"{list(CAP)} is usual",
        )  # fmt: skip
        require(
            len(self.neighbours) == len(self.cap) and all(1 <= n <= m for n, m in zip(self.neighbours, self.cap, strict=True)),
            field="Graph.neighbours", got=self.neighbours, allowed=f"as many numbers as cap: {list(self.cap)}, none above its own",
            fix="change one of the two",
        )  # fmt: skip
        require(
            self.inductive or (self.time is None and bool(self.at)),
            field="Graph.inductive", got=False, allowed="true, where a time or the cell itself says what a row sees",
            fix="remove it: nothing is hidden there",
        )  # fmt: skip
        require(
            self.nodes is not None or not (self.node_numbers or self.node_classes) or not self.at,
            field="Graph.node_numbers", got=self.node_numbers or self.node_classes, allowed="none without a table of nodes",
            fix="name it: nodes: (and put it into data.tables)",
        )  # fmt: skip

    @cached_property
    def taken(self) -> Columns:
        """What is taken from the tables."""
        return Columns(
            self.ends,
            self.time,
            self.numbers,
            self.classes,
            self.node,
            self.node_numbers,
            self.node_classes,
            self.one_kind,
        )

    @property
    def own_between(self) -> bool:
        """Whether edges between the nodes that a row is about are its own, which it must not see: no time says that they were
        there before it."""
        return self.time is None and len(self.at) > 1

    # ---- a row and its tables --------------------------------------------------------------------------------------

    def looks_up(self, tables: Mapping[str, Any]) -> Callable[[Any], Sequence[Any]] | None:
        """With `at`: from a table of rows to a cell for each, whose edges are those of the edge table."""
        if not self.at:
            return None
        edges = _cells(
            tables,
            "edges",
            self.edges,
            (*self.ends, *self.numbers, *self.classes, *((self.time,) if self.time else ())),
        )
        nodes, theirs = None, None
        if self.nodes is not None:
            nodes = _cells(tables, "nodes", self.nodes, (self.node, *self.node_numbers, *self.node_classes))
            theirs = tables[self.nodes]
        found = Edges(
            self.taken, edges, nodes, complain=_complain(tables[self.edges]), complain_of_node=_complain(theirs)
        )
        said = repr([{name: list(cells) for name, cells in part.items()} for part in (edges, nodes or {})])
        source = Tables(found, edges, nodes, hashlib.sha256(said.encode()).digest(), self.cap, self.own_between)

        def cells(table: Any) -> Sequence[Any]:
            wanted = (*self.at, *((self.time,) if self.time else ()))
            for column in wanted:
                if column not in table.columns:
                    raise unknown_name(field=f"Graph.at (in {table.name})", got=column, names=table.columns)
            at = [table.column(column) for column in self.at]
            times = table.column(self.time) if self.time else [None] * len(table)
            rows = [[column[row] for column in at] for row in range(len(table))]
            return [
                None if all(name is None for name in names) else Around(names, times[row], source)
                for row, names in enumerate(rows)
            ]

        return cells

    def doubts(
        self, tables: Mapping[str, Any], rows: Sequence[Any], answers: Collection[str]
    ) -> Sequence[tuple[str, str]]:
        """Whether an id at both ends is one node, where nobody said it. Refuses tables that tell the answers of the rows."""
        if self.at and self.time is None:
            at = self.at if len(self.at) == len(self.ends) else self.ends
            for told in ("numbers", "classes"):
                refuse_answers(told, getattr(self, told), self.ends, tables[self.edges], rows, at, answers)
        if self.nodes is not None:
            for told, node in itertools.product(("node_numbers", "node_classes"), self.at):
                refuse_answers(told, getattr(self, told), (self.node,), tables[self.nodes], rows, (node,), answers)
        clear = not self.at or self.nodes is not None or self.one_kind is not None
        return () if clear else unclear_kinds(tables[self.edges], self.ends)

    # ---- numpy side ------------------------------------------------------------------------------------------------

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """float64 [visit, column]: what lies around the nodes, up to `cap` edges each (see index.py)."""
        if isinstance(raw, str):
            try:
                raw = json.loads(raw)
            except (ValueError, RecursionError):
                raise BadValue(f"{raw[:60]!r} is no JSON of a graph") from None
        at: Sequence[Any] | None
        if isinstance(raw, Around):
            edges, at, before = raw.index, raw.at, raw.time
        elif isinstance(raw, Mapping):
            edges, at, before = self._own(raw), raw.get("at"), raw.get("time")
        else:
            raise BadValue(f"expected a graph as a mapping with 'edges', got {type(raw).__name__} {raw!r:.60}")
        if self.time is not None and before is None:
            raise BadValue(f"the row has no time ({self.time!r}), so that nobody knows which edges were before it")
        if at is not None and (not isinstance(at, list | tuple) or any(item is None for item in at)):
            raise BadValue(f"'at' has to be a list of the nodes that the row is about, all of them; it is {at!r:.60}")
        if self.at and len(at or ()) != len(self.at):
            raise BadValue(
                f"the row is about {len(at or ())} nodes, not one for each of {', '.join(self.at)}: {{'at': [...]}}"
            )
        before = 0.0 if self.time is None else moment(before)
        return edges.around(edges.asked(at), before, self.cap, apart=self.own_between)

    def _own(self, raw: Mapping[str, Any]) -> Edges:
        """The index of a graph that a row brings along."""
        odd = [name for name in raw if name not in ("at", "time", "edges", "nodes")]
        if odd or "edges" not in raw:
            raise BadValue(
                f"a graph has 'edges', and may have 'at', 'time' and 'nodes'; this has {', '.join(map(str, raw)) or 'nothing'}"
            )
        wanted = (*self.ends, *self.numbers, *self.classes, *((self.time,) if self.time else ()))
        nodes = raw.get("nodes")
        theirs = (
            None if nodes is None else _by_column(nodes, (self.node, *self.node_numbers, *self.node_classes), "nodes")
        )
        return Edges(
            self.taken, _by_column(raw["edges"], wanted, "edges"), theirs,
            complain=lambda column, row, reason: BadValue(f"edges[{row}], {column!r}: {reason}"),
            complain_of_node=lambda column, row, reason: BadValue(f"nodes[{row}], {column!r}: {reason}"),
        )  # fmt: skip

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> GraphContract:
        """Mean and deviation of the numbers, and the classes there are."""
        count = visits = largest = 0
        own = 1 + len(self.numbers) + len(self.node_numbers)
        there, total, squares = np.zeros(own), np.zeros(own), np.zeros(own)
        classes: list[set[float]] = [set() for _ in (*self.classes, *self.node_classes)]
        for value in values:
            count, visits, largest = count + 1, visits + len(value), max(largest, len(value))
            found = value[:, FIXED : FIXED + own].copy()
            found[:, 0] = np.log1p(np.maximum(found[:, 0], 0.0))
            there += (~np.isnan(found)).sum(0)
            found = np.nan_to_num(found)
            total, squares = total + found.sum(0), squares + (found**2).sum(0)
            for at, seen in enumerate(classes):
                column = value[:, FIXED + own + at]
                seen.update(column[~np.isnan(column)].tolist())
        if not count:
            raise refusal(
                field="graph", got=f"{missing} rows without a value", allowed="at least one training row with a value",
                fix="look at the columns that name its nodes", error=DataError,
            )  # fmt: skip
        means = total / np.maximum(there, 1)
        deviations = np.sqrt(np.maximum(squares / np.maximum(there, 1) - means**2, 0.0))
        return GraphContract(
            count=count, missing=missing, visits=visits, largest=largest, means=tuple(means.tolist()),
            deviations=tuple(np.where(deviations > 1e-9 * (1 + np.abs(means)), deviations, 1.0).tolist()),
            classes=tuple(tuple(sorted(int(item) for item in seen)) for seen in classes),
        )  # fmt: skip

    def transform(self, value: np.ndarray, contract: GraphContract) -> np.ndarray:
        """float32 [visit, 3 + numbers + classes]: parent, hop, direction, the numbers as they are, the ids of the classes (0: none,
        1: one that training never saw)."""
        own = len(contract.means)
        ids = [_ids(value[:, FIXED + own + at], known) for at, known in enumerate(contract.sorted_classes)]
        return np.column_stack([value[:, :NODE], value[:, AGE : AGE + own], *ids]).astype(np.float32)

    def sample(self, value: np.ndarray, key: Sequence[int]) -> np.ndarray:
        """Of each visit at most `neighbours` of those behind it."""
        return thinned(value, self.neighbours, key)

    @property
    def hides_held_out(self) -> bool:
        """Where edges have no time; with one, the past belongs to everybody. A graph in a cell is its row's own."""
        return self.time is None and bool(self.at) and self.inductive

    def asked_about(self, value: np.ndarray) -> list[complex]:
        """The node of a row, as a hash; of a row of several the edges between them, as pairs of hashes: nearly every node may
        be one end of some held-out row, and training would see next to nothing."""
        found: list[complex] = value[value[:, HOP] == 0, NODE].tolist()
        if self.own_between:
            ends = np.array(list(itertools.combinations(found, 2)), np.float64)
            found = _pairs(ends[:, 0], ends[:, 1]).tolist()
        return found

    def without(self, value: np.ndarray, hidden: frozenset[complex]) -> np.ndarray:
        """The decoded value without the ways to these nodes, or along these edges."""
        seen = value[:, NODE].astype(complex)
        if self.own_between:
            seen = _pairs(value[:, NODE], value[value[:, PARENT].astype(np.int64), NODE])
        return kept(value, ~np.isin(seen, np.fromiter(hidden, np.complex128, len(hidden))))

    def blank(self, contract: GraphContract) -> np.ndarray:
        """As many nodes as a row is about, with nothing around them: an exported graph has a token for each."""
        found = np.zeros((len(self.at) or 1, AGE - 1 + len(contract.means) + len(contract.classes)), np.float32)
        found[:, PARENT] = -1
        found[:, DIRECTION] = ASKED
        return found

    def length(self, shape: tuple[int, ...]) -> int:
        """Visits."""
        return shape[0]

    def summary(self, contract: GraphContract) -> str:
        """'up to 442 visits, 85.2 on average, of nodes up to 2 edges away; edges before the row's time'."""
        mean = contract.visits / max(1, contract.count)
        seen = "edges before the row's time" if self.time is not None else "edges without a time"
        return f"up to {contract.largest:,} visits, {mean:.3g} on average, up to {len(self.cap)} edges away; {seen}"

    def preview(self, value: np.ndarray, contract: GraphContract) -> dict[str, str]:
        """How many edges are how far away."""
        counts = np.bincount(value[:, HOP].astype(int), minlength=len(self.cap) + 1)
        said = " + ".join(str(count) for count in counts[1:].tolist())
        return {"kind": "text", "data": f"{counts[0]} nodes, {said} edges around them"}

    def named(self, whole: np.ndarray, contract: GraphContract) -> Sequence[str]:
        """The nodes that the row is about, and the edges around them with how far away each is."""
        hops = whole[:, HOP].astype(int).tolist()
        return [f"edge {visit}, {hop} away" if hop else f"node {visit}" for visit, hop in enumerate(hops)]

    def hand_features(self) -> Any:
        """How many edges there are, and the mean, extremes and newest of what they say."""
        from endwise.modalities.graph.features import AroundFeatures

        return AroundFeatures(hops=len(self.cap), numbers=1 + len(self.numbers) + len(self.node_numbers))

    # ---- network side ----------------------------------------------------------------------------------------------

    def encoder(self, contract: GraphContract, size: "Size") -> "Encoder":
        """Messages from the outermost nodes inwards; one token for each node that the row is about."""
        from endwise.modalities.graph.network import GraphEncoder

        return GraphEncoder(contract, size, hops=len(self.cap), asked=len(self.at) or None)


@dataclass(frozen=True, eq=False)
class Tables:
    """Where the edges of rows lie: the index, the cells that it was made of, and what stands for all of them in a key."""

    index: Edges
    edges: Mapping[str, Sequence[Any]]
    nodes: Mapping[str, Sequence[Any]] | None
    stamp: bytes
    cap: tuple[int, ...]
    apart: bool


class Around(Mapping[str, Any]):
    """The cell of a row whose edges lie in a table. It reads as the graph around the row, {"at":, "time":, "edges": [...]},
    which is written out when somebody looks at it."""

    def __init__(self, at: Sequence[Any], time: Any, tables: Tables) -> None:
        self.at, self.time, self.tables = at, time, tables

    @property
    def index(self) -> Edges:
        """The edges of the table."""
        return self.tables.index

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        """What decides it, for the key that it is stored under."""
        return np.frombuffer(self.tables.stamp + repr((list(self.at), self.time)).encode(), np.uint8)

    def __getitem__(self, name: str) -> Any:
        if name == "at":
            return list(self.at)
        if name == "time":
            return self.time
        if name not in self._names:
            raise KeyError(name)
        before = 0.0 if self.time is None else moment(self.time)
        asked, own = self.index.asked(self.at), self.tables
        edges, nodes = self.index.rows_around(asked, before, own.cap, apart=own.apart)
        if name == "edges":
            return _rows(self.tables.edges, edges)
        return _rows(self.tables.nodes or {}, nodes)

    @property
    def _names(self) -> tuple[str, ...]:
        return ("at", "time", "edges") if self.tables.nodes is None else ("at", "time", "edges", "nodes")

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _rows(cells: Mapping[str, Sequence[Any]], rows: np.ndarray) -> list[dict[str, Any]]:
    return [{name: column[row] for name, column in cells.items()} for row in rows.tolist()]


def _cells(tables: Mapping[str, Any], field: str, name: str, columns: Sequence[str]) -> dict[str, Sequence[Any]]:
    """The cells that are taken from one of data.tables."""
    if name not in tables:
        raise unknown_name(field=f"Graph.{field} (data.tables)", got=name, names=tables)
    table = tables[name]
    for column in columns:
        if column not in table.columns:
            raise unknown_name(field=f"Graph (data.tables.{name}): column", got=column, names=table.columns)
    return {column: table.column(column) for column in columns}


def _complain(table: Any) -> Complain:
    def complain(column: str, row: int, reason: str) -> Exception:
        return DataError(f"{table.origin(row)}, column {column!r}: {reason}. Fix: mend the cell, or remove the row.")

    return complain


def _by_column(rows: Any, columns: Sequence[str], name: str) -> dict[str, list[Any]]:
    """A list of mappings as cells by column; what a mapping does not have is missing."""
    if not isinstance(rows, list | tuple) or not all(isinstance(row, Mapping) for row in rows):
        raise BadValue(f"{name!r} has to be a list of mappings, {{column: value}} each")
    for place, row in enumerate(rows):
        odd = next((column for column in row if column not in columns), None)
        if odd is not None:
            raise BadValue(f"{name}[{place}] has {odd!r}, which is none of {', '.join(columns)}")
    return {column: [row.get(column) for row in rows] for column in columns}


def _pairs(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Two hashes in one number, whichever comes first."""
    found: np.ndarray = np.minimum(one, other) + 1j * np.maximum(one, other)
    return found


def _ids(hashes: np.ndarray, known: np.ndarray) -> np.ndarray:
    place = np.searchsorted(known, hashes)
    found = np.append(known, np.nan)[place] == hashes
    return np.where(np.isnan(hashes), 0, np.where(found, place + KNOWN, 1))
