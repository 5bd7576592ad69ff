"""Rows that belong together: the boxes of a picture, the purchases of a customer, the edges at a node.

Here: which rows share a key and in what order (`Groups`), and the table that a recipe's `data.gather` makes of them
(`gathered`). Not here: opening tables (`table.py`), which side a row is on (`split.py`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from endwise.data.columns import Column, ListColumn
from endwise.data.split import SPLIT_COLUMN, side_of, times
from endwise.data.table import Table
from endwise.errors import DataError, refusal, require, unknown_name

if TYPE_CHECKING:
    from endwise.recipe import Data


@dataclass(frozen=True, eq=False)
class Groups:
    """Rows by key. rows: int64, group after group, each in its order; those of group k are rows[starts[k] : starts[k + 1]].
    Groups come in the order in which their first row stands in the table."""

    rows: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, keys: Sequence[Any], order: np.ndarray | None = None) -> "Groups":
        """keys: one a row. order: what rows of one key are sorted by; equal ones, and all without it, keep the table's order."""
        seen: dict[Any, int] = {}
        codes = np.fromiter((seen.setdefault(key, len(seen)) for key in keys), np.int64, len(keys))
        return cls.of_codes(codes, len(seen), order)

    @classmethod
    def of_codes(cls, codes: np.ndarray, count: int, order: np.ndarray | None = None) -> "Groups":
        """The same where the keys are numbered: 0 .. count - 1."""
        rows = np.argsort(codes, kind="stable") if order is None else np.lexsort((order, codes))
        starts = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=count))])
        return cls(rows.astype(np.int64), starts.astype(np.int64))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[group] for group in range(len(self)))

    def __getitem__(self, group: int) -> np.ndarray:
        found: np.ndarray = self.rows[self.starts[group] : self.starts[group + 1]]
        return found


@dataclass(frozen=True, slots=True)
class _Origins:
    """A gathered row is named after one of its rows: the first of a list, the newest of a history."""

    table: Table
    rows: np.ndarray

    def __call__(self, row: int) -> str:
        return self.table.origin(int(self.rows[row]))


def gathered(table: Table, data: "Data") -> Table:
    """The table of a recipe's data section: as it is, or with the rows that `data.gather` puts together.

    Without `earlier`: one row a key, every other column a list; what decides the split, the group, the time or the
    weight must be the same in all of them. With `earlier`: rows keep their cells and get columns that list what the
    rows before them say; of each key the newest row of each side of the split stays. A table that has these columns is
    gathered already. RecipeError, or DataError with the row.
    """
    if data.gather is None or (data.gather.earlier and set(data.gather.earlier) <= set(table.columns)):
        return table
    by, order = data.gather.by, data.gather.order
    for field, column in (
        ("by", by),
        ("order", order),
        *((f"earlier.{name}", item) for name, item in data.gather.earlier.items()),
    ):
        if column is not None and column not in table.columns:
            raise unknown_name(field=f"data.gather.{field} (in {table.name})", got=column, names=table.columns)
    keys = table.column(by)
    lacking = next((row for row, key in enumerate(keys) if key is None), None)
    require(
        lacking is None, field=f"{table.origin(lacking or 0)}, column {by!r} (data.gather.by)", got=None,
        allowed="a value in every row", fix="say what the row belongs to, or remove it", error=DataError,
    )  # fmt: skip
    moments = None if order is None else np.array(times(table, order, range(len(table)), of="data.gather.order"))
    groups = Groups.of([str(key) for key in keys], moments)
    return _histories(table, data, groups) if data.gather.earlier else _lists(table, data, groups)


def to_answer(table: Table, data: "Data") -> Table:
    """Rows to be answered, gathered as the recipe's table was where they have to be: with several rows of one key, since a
    picture whose boxes stand in three rows is one picture. Rows of different keys, or without the key, are the task's own,
    and those with `earlier` say themselves what was before them."""
    if data.gather is None or data.gather.earlier or not table.has(data.gather.by):
        return table
    keys = [str(key) for key in table.column(data.gather.by)]
    return gathered(table, data) if len(set(keys)) < len(keys) else table


def _lists(table: Table, data: "Data", groups: Groups) -> Table:
    assert data.gather is not None
    by, firsts = data.gather.by, groups.rows[groups.starts[:-1]]
    single = {by, data.split_column, data.group, data.time, data.weight, SPLIT_COLUMN if data.split is None else None}
    columns: dict[str, Column] = {}
    for name in table.columns:
        cells = table.column(name)
        columns[name] = ListColumn([cells[row] for row in firsts.tolist()] if name in single else
                                   [[cells[row] for row in rows.tolist()] for rows in groups])  # fmt: skip
        if name in single:
            _check_same(table, name, by, cells, groups)
    note = f"{table.name}: {len(table)} rows became {len(groups)}, one for each {by!r}"
    return Table(table.name, columns, finder=table.finder, origins=_Origins(table, firsts), notes=[*table.notes, note])


def _check_same(table: Table, name: str, by: str, cells: Sequence[Any], groups: Groups) -> None:
    for rows in groups:
        odd = next((row for row in rows.tolist() if cells[row] != cells[rows[0]]), None)
        if odd is not None:
            raise refusal(
                field=f"{table.origin(odd)}, column {name!r}", got=cells[odd],
                allowed=f"{cells[rows[0]]!r}, as in the other rows of its {by!r} ({table.origin(int(rows[0]))})",
                fix="rows that are gathered into one have one split, one group, one time and one weight", error=DataError,
            )  # fmt: skip


def _histories(table: Table, data: "Data", groups: Groups) -> Table:
    assert data.gather is not None
    taken = [name for name in data.gather.earlier if name in table.columns]
    require(
        not taken, field=f"data.gather.earlier (in {table.name})", got=taken, allowed="names that the table does not have yet",
        fix="choose another name for the new column", error=DataError,
    )  # fmt: skip
    split = data.split_column or (SPLIT_COLUMN if SPLIT_COLUMN in table.columns else None)
    sides = [None] * len(table) if split is None else [side_of(cell) or str(cell) for cell in table.column(split)]
    kept: list[int] = []
    before: list[np.ndarray] = []
    for rows in groups:
        newest = {sides[row]: place for place, row in enumerate(rows.tolist())}
        kept += [int(rows[place]) for place in newest.values()]
        before += [rows[:place] for place in newest.values()]
    place = np.argsort(kept, kind="stable")
    chosen = np.array(kept, np.int64)[place]
    columns: dict[str, Column] = {}
    for name in table.columns:
        cells = table.column(name)
        columns[name] = ListColumn([cells[row] for row in chosen.tolist()])
    for name, column in data.gather.earlier.items():
        cells = table.column(column)
        columns[name] = ListColumn([[cells[row] for row in before[at].tolist()] or None for at in place.tolist()])
    each = f"{data.gather.by!r}" + ("" if split is None else f" and side of {split!r}")
    note = f"{table.name}: {len(table)} rows became {len(chosen)}, the newest of each {each} with those before it"
    return Table(table.name, columns, finder=table.finder, origins=_Origins(table, chosen), notes=[*table.notes, note])


__all__ = ["Groups", "gathered", "to_answer"]
