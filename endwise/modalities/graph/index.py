"""Edges in memory, and what lies around some nodes before a moment: compressed rows (each node's edges side by side, oldest
first), so that a look-up is one binary search a node. Numpy only.

A neighbourhood is a float64 table of visits. The first are the nodes asked about; each further one is an edge walked from an
earlier visit, and the node at its other end. Nothing in it depends on the order in which the edges are written down.
"""

import datetime as dt
import hashlib
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from endwise.errors import BadValue
from endwise.modalities.category import class_name
from endwise.modalities.items import id_of

PARENT, HOP, DIRECTION, NODE, AGE = range(5)  # columns of a visit; behind them numbers, then hashes of classes
FIXED = 4  # of them that are no numbers
OUT, IN, ASKED = 0.0, 1.0, -1.0  # walked from the edge's first end, from its second; the node asked about
MOST_ASKED = 512
HASH_BYTES = 6  # a hash that float64 holds exactly
NONE = np.zeros(0, np.int64)  # of the edges

Complain = Callable[[str, int, str], Exception]  # (column, row, reason) -> what to raise


@dataclass(frozen=True)
class Columns:
    """What is taken from the edge table and, where there is one, from the node table."""

    ends: tuple[str, ...]
    time: str | None
    numbers: tuple[str, ...]
    classes: tuple[str, ...]
    node: str
    node_numbers: tuple[str, ...]
    node_classes: tuple[str, ...]
    one_kind: bool | None


class Edges:
    """All edges of a graph. Read-only."""

    def __init__(
        self,
        columns: Columns,
        edges: Mapping[str, Sequence[Any]],
        nodes: Mapping[str, Sequence[Any]] | None,
        *,
        complain: Complain,
        complain_of_node: Complain,
    ) -> None:
        """edges, nodes: cells by column. complain: the error for a cell of the edge table, and of the node table."""
        self.columns = columns
        self.codes: dict[str, int] = {}
        if nodes is not None:
            for row, raw in enumerate(nodes[columns.node]):
                name = _checked(_node, raw, columns.node, row, complain_of_node)
                if name in self.codes:
                    raise complain_of_node(columns.node, row, f"the node {name!r} is there twice")
                self.codes[name] = len(self.codes)
        self.closed = nodes is not None
        ends = [np.array([self._end(raw, column, row, complain) for row, raw in enumerate(edges[column])], np.int64)
                for column in columns.ends]  # fmt: skip
        if columns.one_kind is False:
            self._refuse_shared(ends, complain)
        self.names = list(self.codes)
        self.hashes = np.array([hash_of(name) for name in self.names], np.float64)
        count = len(ends[0])
        self.times = np.zeros(count)
        if columns.time is not None:
            cells = edges[columns.time]
            self.times = np.array(
                [_checked(moment, raw, columns.time, row, complain) for row, raw in enumerate(cells)], float
            )
        self.says = _table(edges, columns.numbers, columns.classes, count, complain)
        self.nodes_say = _table(
            nodes or {}, columns.node_numbers, columns.node_classes, len(self.names), complain_of_node
        )
        self._index(ends)

    def _end(self, raw: Any, column: str, row: int, complain: Complain) -> int:
        name = _checked(_node, raw, column, row, complain)
        if self.closed and name not in self.codes:
            raise complain(column, row, f"there is no node {name!r} in the table of nodes")
        return self.codes.setdefault(name, len(self.codes))

    def _refuse_shared(self, ends: Sequence[np.ndarray], complain: Complain) -> None:
        """Refuses an id at both ends, where these are of two kinds."""
        both = np.isin(ends[1], ends[0])
        if both.any():
            row, first = int(both.argmax()), self.columns.ends[0]
            name, count = list(self.codes)[int(ends[1][row])], len(np.unique(ends[1][both]))
            raise complain(
                self.columns.ends[1], row,
                f"{name!r} is in column {first!r} too, as are {count} ids in all; the ends are declared of two kinds "
                f"(one_kind: false), whose ids must differ: u{name} and s{name}, say",
            )  # fmt: skip

    def _index(self, ends: Sequence[np.ndarray]) -> None:
        """Each node's edges side by side, by time and then by what they say."""
        first, second = ends
        count = len(first)
        edge = np.arange(count, dtype=np.int64)
        back = first != second  # an edge from a node to itself is walked once
        code = np.concatenate([first, second[back]])
        self.edge = np.concatenate([edge, edge[back]])
        self.direction = np.concatenate([np.full(count, OUT), np.full(int(back.sum()), IN)])
        self.other = np.concatenate([second, first[back]])
        content = np.concatenate(
            [self.hashes[first][:, None], self.hashes[second][:, None], np.nan_to_num(self.says)], axis=1
        )
        keys = (*content[self.edge].T[::-1], self.direction, self.times[self.edge], code)
        order = np.lexsort(keys)
        self.edge, self.direction, self.other = self.edge[order], self.direction[order], self.other[order]
        self.ordered_times = self.times[self.edge]
        self.starts = np.concatenate([[0], np.cumsum(np.bincount(code, minlength=len(self.names)))]).astype(np.int64)

    def asked(self, at: Sequence[Any] | None) -> list[str]:
        """The names of the nodes asked about; all of them where the row names none. Raises BadValue."""
        found = list(self.names) if at is None else [_node(raw) for raw in at]
        if not found:
            raise BadValue("the graph has no nodes")
        if len(found) > MOST_ASKED:
            raise BadValue(
                f"the row asks about {len(found)} nodes, more than {MOST_ASKED}. Fix: name those it is about in 'at'"
            )
        if self.closed:
            for name in found:
                if name not in self.codes:
                    raise BadValue(f"there is no node {name!r} in the table of nodes")
        return found

    def around(self, asked: Sequence[str], before: float, caps: Sequence[int], *, apart: bool = False) -> np.ndarray:
        """float64 [visit, column]: what lies around some nodes: of each visited node the newest `caps[hop]` edges with a time
        before `before`, but the one it was reached by. apart: edges that join two of the nodes asked about are not walked."""
        codes = [self.codes.get(name, -1) for name in asked]
        barred = self._between(codes) if apart else NONE
        visits = [np.array([[-1, 0, ASKED, hash_of(name), -1, code]]) for name, code in zip(asked, codes, strict=True)]
        frontier = [(place, code, -1) for place, code in enumerate(codes)]
        total = len(codes)
        for hop, cap in enumerate(caps, 1):
            reached: list[tuple[int, int, int]] = []
            for place, code, via in frontier:
                walked = self._newest(code, before, cap, via, barred)
                if not len(walked):
                    continue
                edge, other = self.edge[walked], self.other[walked]
                visit = np.empty((len(walked), 6))
                visit[:, 0], visit[:, 1], visit[:, 2] = place, hop, self.direction[walked]
                visit[:, 3], visit[:, 4], visit[:, 5] = self.hashes[other], edge, other
                visits.append(visit)
                reached += zip(range(total, total + len(walked)), other.tolist(), edge.tolist(), strict=True)
                total += len(walked)
            frontier = reached
        return self._filled(np.concatenate(visits), before)

    def _between(self, codes: Sequence[int]) -> np.ndarray:
        """The edges that join two of these nodes; of one that is there twice, those from it to itself."""
        found = [NONE]
        for pair in combinations(codes, 2):
            if min(pair) >= 0:
                few, many = sorted(pair, key=lambda code: int(self.starts[code + 1] - self.starts[code]))
                here = slice(int(self.starts[few]), int(self.starts[few + 1]))
                found.append(self.edge[here][self.other[here] == many])
        return np.concatenate(found)

    def _newest(self, code: int, before: float, cap: int, via: int, barred: np.ndarray) -> np.ndarray:
        if code < 0:
            return NONE
        low, high = int(self.starts[code]), int(self.starts[code + 1])
        if self.columns.time is not None:
            high = low + int(np.searchsorted(self.ordered_times[low:high], before, side="left"))
        walked = np.arange(max(low, high - cap - 1 - len(barred)), high)
        keep = self.edge[walked] != via
        if len(barred):
            keep &= ~np.isin(self.edge[walked], barred)
        found: np.ndarray = walked[keep][-cap:]
        return found

    def _filled(self, visits: np.ndarray, before: float) -> np.ndarray:
        """The visits with what their edges and nodes say; NaN where there is nothing."""
        edge, code = visits[:, 4].astype(np.int64), visits[:, 5].astype(np.int64)
        along, known = edge >= 0, code >= 0
        edges = np.full((len(visits), self.says.shape[1]), np.nan)
        edges[along] = self.says[edge[along]]
        nodes = np.full((len(visits), self.nodes_say.shape[1]), np.nan)
        nodes[known] = self.nodes_say[code[known]]
        age = np.full((len(visits), 1), np.nan)
        if self.columns.time is not None:
            age[along, 0] = before - self.times[edge[along]]
        own, theirs = len(self.columns.numbers), len(self.columns.node_numbers)
        parts = [visits[:, :FIXED], age, edges[:, :own], nodes[:, :theirs], edges[:, own:], nodes[:, theirs:]]
        return np.concatenate(parts, axis=1)

    def rows_around(
        self, asked: Sequence[str], before: float, caps: Sequence[int], *, apart: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """The edges (rows of the edge table) and nodes (codes) that `around` visits, each once."""
        found: set[int] = set()
        codes = [self.codes[name] for name in asked if name in self.codes]
        barred, nodes = self._between(codes) if apart else NONE, set(codes)
        frontier = [(code, -1) for code in nodes]
        for cap in caps:
            walked = [self._newest(code, before, cap, via, barred) for code, via in frontier]
            frontier = [(int(self.other[at]), int(self.edge[at])) for part in walked for at in part]
            found |= {edge for _, edge in frontier}
            nodes |= {code for code, _ in frontier}
        return np.array(sorted(found), np.int64), np.array(sorted(nodes), np.int64)


def kept(visits: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """The visits that are kept and whose way there is, with their parents' new places."""
    keep = keep | (visits[:, HOP] == 0)
    parent = visits[:, PARENT].astype(np.int64)
    for hop in range(1, int(visits[:, HOP].max(initial=0)) + 1):
        here = visits[:, HOP] == hop
        keep[here] &= keep[parent[here]]
    place = np.cumsum(keep) - 1
    found: np.ndarray = visits[keep].copy()
    own = parent[keep]
    found[:, PARENT] = np.where(own >= 0, place[own], -1)
    return found


def thinned(visits: np.ndarray, most: Sequence[int], key: Sequence[int]) -> np.ndarray:
    """Of each visit at most `most[hop]` of those behind it, drawn evenly: a function of the visits and the key alone."""
    drawn = np.random.Philox(np.random.SeedSequence(list(key))).random_raw(len(visits))
    parent, hop = visits[:, PARENT].astype(np.int64), visits[:, HOP].astype(np.int64)
    order = np.lexsort((drawn, parent))
    ordered = parent[order]
    first = np.searchsorted(ordered, ordered, side="left")
    place = np.empty(len(visits), np.int64)
    place[order] = np.arange(len(visits)) - first
    limit = np.array([0, *most], np.int64)[np.minimum(hop, len(most))]
    return kept(visits, place < limit)


def hash_of(name: str) -> float:
    """A whole number that stands for a name, as float64 holds it exactly (48 bits)."""
    return float(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=HASH_BYTES).digest(), "big"))


def moment(raw: Any) -> float:
    """A time as a number: a number as it is, a date as seconds. Raises BadValue."""
    value = raw
    if isinstance(value, str):
        text = value.strip()
        try:
            value = float(text)
        except ValueError:
            try:
                value = dt.datetime.fromisoformat(text)
            except ValueError:
                raise BadValue(f"{text[:60]!r} is no time: a number or a date (2024-05-31T12:30) is") from None
    if isinstance(value, dt.date):
        value = value if isinstance(value, dt.datetime) else dt.datetime(value.year, value.month, value.day)
        return (value if value.tzinfo else value.replace(tzinfo=dt.UTC)).timestamp()
    if isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise BadValue(f"{raw!r:.60} is no time: a number or a date (2024-05-31T12:30) is")


def _node(raw: Any) -> str:
    if raw is None:
        raise BadValue("the node is missing")
    return id_of(raw)


def _number(raw: Any) -> float:
    if raw is None:
        return math.nan
    try:
        found = float(raw)
    except (TypeError, ValueError):
        raise BadValue(f"{raw!r:.60} is no number") from None
    if isinstance(raw, bool) or math.isinf(found):
        raise BadValue(f"{raw!r:.60} is no finite number")
    return found


def _class(raw: Any) -> float:
    return math.nan if raw is None or raw != raw else hash_of(class_name(raw))


def _checked(read: Callable[[Any], Any], raw: Any, column: str, row: int, complain: Complain) -> Any:
    try:
        return read(raw)
    except BadValue as wrong:
        raise complain(column, row, str(wrong)) from None


def _table(
    cells: Mapping[str, Sequence[Any]], numbers_: Sequence[str], classes: Sequence[str], count: int, complain: Complain
) -> np.ndarray:
    """float64 [row, column]: numbers as they are, classes as hashes, NaN where a cell is empty."""
    found = np.full((count, len(numbers_) + len(classes)), np.nan)
    for at, (column, read) in enumerate(
        [*((name, _number) for name in numbers_), *((name, _class) for name in classes)]
    ):
        known: dict[Any, float] = {}
        for row, raw in enumerate(cells[column]):
            key = (type(raw), raw)
            if key not in known:
                known[key] = _checked(read, raw, column, row, complain)
            found[row, at] = known[key]
    return found
