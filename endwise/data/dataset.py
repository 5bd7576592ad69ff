"""From a recipe to the rows that training and evaluation see: prepared fields, splits, weights, groups.

`prepare` opens the sources, reads every declared field once into the prepared store, puts unreadable rows aside by
name and splits the rest. `fit_contracts` learns what there is to know from the training rows.

Not here: opening tables (`table.py`), the rules of splitting (`split.py`), batches (`loader.py`).
"""

import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from endwise.data.key import field_key
from endwise.data.read import Cells, Packed, num_workers, read_column, read_one
from endwise.data.store import FieldStore, open_field
from endwise.data.windows import Slices, WindowStore, WindowTable, open_windows, view, window_splits
from endwise.errors import BadValue, DataError, EndwiseError, RecipeError, refusal, require, unknown_name
from endwise.modalities.base import INPUT_ROLE, OUTPUT_ROLE, Contract, Fetch, Modality, Role

if TYPE_CHECKING:
    from endwise.data.split import Splits
    from endwise.data.table import Table
    from endwise.recipe import Recipe

NAMED_ROWS = 5  # of the bad ones, in an error
RETRIED_ROWS = 100  # bad rows of a stored field that are tried again before it is reused

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class BadRow:
    """One value that could not be read. Its row is in no split."""

    row: int
    origin: str  # "calls.csv line 17"
    field: str
    reason: str


@dataclass(frozen=True, eq=False)
class Dataset:
    """Prepared rows. A row id counts over the tables one after another (train, val, test, or the one table)."""

    fields: dict[str, FieldStore]
    splits: "Splits"
    weight: np.ndarray  # float32 [rows]
    # int64 [rows]: the same number for the same value of data.group, or for windows that share steps; -1 where it is missing
    group: np.ndarray | None
    bad: tuple[BadRow, ...]
    notes: tuple[str, ...]
    fingerprint: str  # sha256 over contents, declarations, weights and splits
    tables: "list[Table]"
    columns: dict[str, str]  # field -> column
    _cells: dict[tuple[int, str], Sequence[Any]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return sum(len(table) for table in self.tables)

    def origin(self, row: int) -> str:
        """Where a row comes from, in the user's words: 'calls.csv line 17'."""
        table, index = self._place(row)
        return str(self.tables[table].origin(index))

    def raw(self, name: str, row: int) -> Any:
        """The raw cell of a field, as it stands in the table."""
        return self.cells(self.columns[name], [row])[0]

    def fetch_of(self, row: int) -> Fetch:
        """What reads the files that are named in the cells of a row."""
        return self.tables[self._place(row)[0]].fetch

    def cells(self, column: str, rows: Sequence[int] | np.ndarray, *, field: str = "column") -> list[Any]:
        """The raw cells of any column; None where a row's table does not have it. field: what asks, for a column that none
        has."""
        if not any(table.has(column) for table in self.tables):
            names = sorted({name for table in self.tables for name in table.columns})
            raise unknown_name(field=field, got=column, names=names, error=DataError)
        out = []
        for row in rows:
            table, index = self._place(int(row))
            values = self._column(table, column)
            out.append(values[index] if values is not None else None)
        return out

    def with_sides(
        self, *, train: np.ndarray | None = None, val: np.ndarray | None = None, test: np.ndarray | None = None
    ) -> "Dataset":
        """The same rows with other sides: `with_sides(train=some, val=fewer)`, a side that is not given as it was. The
        fingerprint follows. For a subset of the labels, for a fold: nothing is read again."""
        own = self.splits
        sides = [
            old if new is None else np.sort(np.asarray(new, np.int64))
            for old, new in ((own.train, train), (own.val, val), (own.test, test))
        ]
        splits = replace(own, train=sides[0], val=sides[1], test=sides[2])
        told = hashlib.sha256(self.fingerprint.encode())
        for rows in (splits.train, splits.val, splits.test):
            told.update(f"{len(rows)}\n".encode() + rows.tobytes())
        return replace(self, splits=splits, fingerprint=told.hexdigest())

    def narrowed(self, recipe: "Recipe") -> "Dataset":
        """The same rows on the same sides for a recipe of some of these fields: those that have a label of it, and every
        `handed` input."""
        names = [name for name in (*recipe.inputs, *recipe.outputs) if name in self.fields]  # but optional inputs
        labelled = np.logical_or.reduce([self.fields[name].present for name in recipe.outputs])
        handed = [self.fields[name].present for name, item in recipe.inputs.items() if item.handed]
        lacking = np.flatnonzero(~np.logical_and.reduce([labelled, *handed]))
        found = hashlib.sha256(json.dumps([self.fingerprint, names]).encode()).hexdigest()
        return replace(
            self, fields={name: self.fields[name] for name in names}, splits=self.splits.without(lacking),
            columns={name: self.columns[name] for name in names if name in self.columns}, fingerprint=found,
        )  # fmt: skip

    def _place(self, row: int) -> tuple[int, int]:
        starts = _starts(self.tables)
        table = bisect_right(starts, row) - 1
        return table, row - starts[table]

    def _column(self, table: int, column: str) -> Sequence[Any] | None:
        if not self.tables[table].has(column):
            return None
        if (table, column) not in self._cells:
            self._cells[table, column] = self.tables[table].column(column)
        return self._cells[table, column]


# ---- preparing -----------------------------------------------------------------------------------------------------


def prepare(
    recipe: "Recipe",
    *,
    source: Any = None,
    need_targets: bool = True,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Open the recipe's data (or `source` instead), decode every declared field once, put bad rows aside, split.

    source: another table to score; all its rows are then in `splits.test`, and the column of an optional input may be
    left out of it: that input is not in `fields` then, and a note says so. need_targets=False: outputs whose column
    is not there are left out of `fields`, and rows without a label stay. progress(field, rows done, rows in all).
    Raises DataError naming the first rows when more than `data.max_bad` of them cannot be read; RecipeError for a
    declared column that is not there (DataError when `source` was given).
    """
    tables = _opened(recipe, source)
    everything = list(tables.values())
    columns = _columns(recipe, everything, need_targets, other=source is not None)
    notes = _doubts(recipe, everything) if source is None else []
    fields = _fields(recipe, columns, everything, num_workers(workers), progress)
    bad = _put_aside(recipe, fields, everything)
    notes = [*(note for table in everything for note in table.notes), *notes, *_missing(recipe, fields, everything)]
    keep = _kept(recipe, {name: store.present for name, store in fields.items()}, bad, everything, need_targets, notes)
    splits = _split(recipe, tables, source, fields, keep)
    if source is None and need_targets and not len(splits.train):
        raise refusal(
            field="data", got=[table.name for table in everything], allowed="at least one training row with a label",
            fix="; ".join(notes) or "check the split column", error=DataError,
        )  # fmt: skip
    weight = _weights(recipe.data.weight, everything, keep, optional=source is not None)
    fingerprint = _fingerprint(recipe, fields, weight, splits)
    group = _together(recipe, everything)
    return Dataset(fields, splits, weight, group, bad, tuple(notes), fingerprint, everything, columns)


def _doubts(recipe: "Recipe", tables: "list[Table]") -> list[str]:
    """What of the recipe's own tables may mean something else than it says, in words."""
    from endwise.data.lookup import doubts

    return [f"{name}: {message}. Fix: {fix}" for name, message, fix in doubts(tables, recipe)]


def _fields(
    recipe: "Recipe", columns: Mapping[str, str], tables: "list[Table]", jobs: int, progress: Progress | None
) -> dict[str, FieldStore]:
    """Every declared field, decoded: read from its column, made of the fields beside it, or brought into another's world."""
    declared = {**recipe.inputs, **recipe.outputs}
    fields = {name: _prepared(name, declared[name], column, tables, jobs, progress) for name, column in columns.items()}
    fields |= {
        name: _made_of_rows(name, item, fields, tables)
        for name, item in recipe.outputs.items()
        if item.of_row and all(own in fields for own in item.made_of())
    }
    fields |= {
        name: _brought(name, item, item.world_of, recipe, fields)
        for name, item in recipe.outputs.items()
        if name in fields and item.world_of is not None
    }
    return fields


def _put_aside(recipe: "Recipe", fields: Mapping[str, FieldStore], tables: "list[Table]") -> tuple[BadRow, ...]:
    """The rows that cannot be read or do not fit together, by row. DataError where they are more than `data.max_bad`."""
    found = sorted([*_bad_rows(fields, tables), *_misfits(recipe, fields, tables)], key=lambda item: item.row)
    _check_bad(found, sum(len(table) for table in tables), recipe.data.max_bad)
    return tuple(found)


def _missing(recipe: "Recipe", fields: Mapping[str, FieldStore], tables: "list[Table]") -> list[str]:
    """The optional inputs that no row has, in words."""
    return [
        f"{name} has no column in {tables[0].name} and is missing in all of its rows (it is optional)"
        for name, item in recipe.inputs.items()
        if item.optional and name not in fields
    ]


def _together(recipe: "Recipe", tables: "list[Table]") -> np.ndarray | None:
    """What keeps rows on one side: the groups of the recipe, or windows that share steps."""
    group = _groups(recipe.data.group, tables)
    if group is None and isinstance(tables[0], WindowTable):
        return tables[0].layout.blocks()
    return group


def fit_contracts(recipe: "Recipe", dataset: Dataset) -> dict[str, Contract]:
    """What is learnt from the training rows, field by field, in one streaming pass over each."""
    from endwise.data.lookup import opened

    contracts: dict[str, Contract] = {}
    rows = dataset.splits.train
    for role, section in ((INPUT_ROLE, recipe.inputs), (OUTPUT_ROLE, recipe.outputs)):
        for name, modality in section.items():
            if name in dataset.fields:
                if name in recipe.intermediates and not dataset.fields[name].present[rows].any():
                    raise _unlabelled(recipe, name, f"none of {len(rows):,} training rows has one")
                declared = (
                    modality.beside(recipe.inputs, recipe.outputs) if role == INPUT_ROLE else recipe.standing(name)
                )
                as_what = OUTPUT_ROLE if declared.handed else role
                contracts[name] = fit_contract(name, declared, as_what, dataset.fields[name], rows)
    for name in recipe.outputs:
        if name in contracts:
            contracts |= recipe.standing(name).agreed(name, contracts)
            contracts |= recipe.standing(name).furnished(name, contracts, partial(opened, recipe))
    return contracts


def _unlabelled(recipe: "Recipe", name: str, found: str) -> EndwiseError:
    """An answer on the way that nothing is known of."""
    (stage,) = [stage for stage, item in recipe.stages.items() if name in item.to]
    return refusal(
        field=f"stages.{stage}.to", got=f"{name!r}: {found}",
        allowed="answers on the way of which some training rows have a label: what they can be is learnt from these, in every regime",
        fix="label some rows, or remove the stages: one network from the inputs to the end needs none", error=DataError,
    )  # fmt: skip


def fit_contract(name: str, modality: Modality, role: Role, store: FieldStore, rows: np.ndarray) -> Contract:
    """The contract of one field, from the given rows. DataError when none of them has a value."""
    there = rows[store.present[rows]]
    where = f"{role}s.{name}"
    if not len(there):
        raise refusal(
            field=where, got=f"{len(rows)} training rows without a value", allowed="at least one training value",
            fix=f"remove {where}, or name another column", error=DataError,
        )  # fmt: skip
    values = (store[row] for row in there.tolist())
    try:
        if isinstance(store, WindowStore):
            return store.fit(modality, role, there)
        return modality.fit(values, missing=len(rows) - len(there), role=role)
    except BadValue as wrong:
        raise DataError(f"{where}: {wrong}") from None


# ---- sources and columns -------------------------------------------------------------------------------------------


def _opened(recipe: "Recipe", source: Any) -> "dict[str, Table]":
    from endwise.data.gather import gathered
    from endwise.data.join import joined
    from endwise.data.lookup import looked_up
    from endwise.data.table import open_table

    data, declared = recipe.data, {**recipe.inputs, **recipe.outputs}
    if source is not None or data.path is not None:
        given = {"all": data.path if source is None else source}
    else:
        given = {name: getattr(data, name) for name in ("train", "val", "test") if getattr(data, name) is not None}
    tables = {name: joined(gathered(open_table(item), data), declared) for name, item in given.items()}
    return looked_up({name: view(table, recipe) for name, table in tables.items()}, recipe)


def _columns(recipe: "Recipe", tables: "list[Table]", need_targets: bool, *, other: bool) -> dict[str, str]:
    """field -> column, every one of them in every table. other: the tables are not those of the recipe."""
    found: dict[str, str] = {}
    error: type[EndwiseError] = DataError if other else RecipeError
    related = {given for item in recipe.outputs.values() if item.of_row and need_targets for given in item.made_of()}
    for section, declared in (("inputs", recipe.inputs), ("outputs", recipe.outputs)):
        for name, modality in declared.items():
            if modality.of_row:
                continue
            column = modality.column or name
            lacking = next((table for table in tables if not table.has(column)), None)
            if section == "outputs":
                may_lack = not need_targets
            else:
                may_lack = modality.optional and (other or not need_targets) and name not in related
            if lacking is None:
                found[name] = column
            elif not may_lack:
                if name in recipe.intermediates:
                    raise _unlabelled(recipe, name, f"{lacking.name} has no column {column!r}")
                several = modality.reads_columns()
                where = f"{section}.{name}.{'columns' if several else 'column'} (in {lacking.name})"
                got = several[0] if several else column
                raise unknown_name(field=where, got=got, names=lacking.columns, error=error)
    for name in ("group", "weight"):
        column = getattr(recipe.data, name)
        lacking = next((table for table in tables if column is not None and column not in table.columns), None)
        if lacking is not None and not other:
            raise unknown_name(field=f"data.{name} (in {lacking.name})", got=column, names=lacking.columns)
    return found


def _starts(tables: "Sequence[Table]") -> list[int]:
    starts = [0]
    for table in tables[:-1]:
        starts.append(starts[-1] + len(table))
    return starts


# ---- fields --------------------------------------------------------------------------------------------------------


def _prepared(
    name: str, modality: Modality, column: str, tables: "list[Table]", workers: int, progress: Progress | None
) -> FieldStore:
    parts = [Cells(table.column(column), table.fetch) for table in tables]
    if isinstance(parts[0].values, Slices):  # windows are cut from one table
        assert isinstance(tables[0], WindowTable)
        return open_windows(name, modality, parts[0].values, tables[0])
    count = sum(len(part.values) for part in parts)

    def decode() -> Iterator[Packed]:
        told = (lambda done: progress(name, done, count)) if progress is not None else None
        if told is not None:
            told(0)
        return read_column(modality, parts, workers=workers, progress=told)

    def still_good(store: FieldStore) -> bool:
        """A value that could not be read then (a lost connection, a missing decoder) may be readable now."""
        return not any(_reads_now(modality, parts, row) for row, _ in store.bad[:RETRIED_ROWS])

    key = field_key(modality, [(part.values, table.base) for part, table in zip(parts, tables, strict=True)])
    about = f"{name} ({modality.type}) of {', '.join(table.name for table in tables)}"
    return open_field(key, count, decode, about=about, still_good=still_good)


def _made_of_rows(name: str, modality: Modality, fields: Mapping[str, FieldStore], tables: "list[Table]") -> FieldStore:
    """The target of an output without a column, from what is already known of its row's inputs."""
    own = {given: fields[given] for given in modality.made_of()}
    present = np.stack([store.present for store in own.values()], axis=1)
    count = len(present)

    def decode() -> Iterator[Packed]:
        sums = {given: store.content for given, store in own.items()}
        rows = [
            {given: sums[given][row].tobytes() if there else None for given, there in zip(sums, flags, strict=True)}
            if sum(flags) >= modality.of_row
            else None
            for row, flags in enumerate(present.tolist())
        ]
        return read_column(modality, [Cells(rows, _no_files)], workers=1)

    contents = [[given, store.fingerprint, np.packbits(store.present).tobytes()] for given, store in own.items()]
    return open_field(
        field_key(modality, [(contents, "")]), count, decode, about=f"{name} ({modality.type}) of the rows"
    )


def _brought(name: str, item: Modality, under: str, recipe: "Recipe", fields: Mapping[str, FieldStore]) -> FieldStore:
    """The targets that are said in the world of an input, in its places; rows without that input have none."""
    require(
        under in fields, field=f"outputs.{name}", got=f"no column for {under}", error=DataError,
        allowed=f"{under} in every table: {name} is said in its world", fix=f"give {under}, or leave {name} out",
    )  # fmt: skip
    bringing = _Bringing(item, fields[name], recipe.inputs[under], fields[under])
    rows = [row if bringing.has(row) else None for row in range(len(fields[name]))]
    contents = [
        [given, fields[given].fingerprint, np.packbits(fields[given].present).tobytes()] for given in (name, under)
    ]
    return open_field(
        field_key(item, [(contents, "")]), len(rows),
        lambda: read_column(bringing, [Cells(rows, _no_files)], workers=1), about=f"{name} ({item.type}) in {under}",
    )  # fmt: skip


class _Bringing:
    """Reads the target of a row by its number."""

    def __init__(self, item: Modality, own: FieldStore, input: Modality, under: FieldStore) -> None:
        self.item, self.own, self.input, self.under = item, own, input, under
        self.bad = dict(own.bad)

    def has(self, row: int) -> bool:
        """Whether there is anything to say of it: a value, or why there is none."""
        return row in self.bad or bool(self.own.present[row] and self.under.present[row])

    def read(self, row: Any, fetch: Fetch) -> np.ndarray:
        """In the places of the input. BadValue where it could not be read before."""
        if row in self.bad:
            raise BadValue(self.bad[row])
        world = self.input.world(self.under[row])
        assert world is not None
        return self.item.from_world(self.own[row], world)


def _no_files(path: str) -> bytes:
    raise BadValue(f"{path!r} is no part of a row's own content")


def _reads_now(modality: Modality, parts: list[Cells], row: int) -> bool:
    for part in parts:
        if row < len(part.values):
            return not isinstance(read_one(modality, part.values[row], part.fetch), str)
        row -= len(part.values)
    return False


def _bad_rows(fields: Mapping[str, FieldStore], tables: "list[Table]") -> tuple[BadRow, ...]:
    found = [
        BadRow(row, _origin(tables, row), name, reason) for name, store in fields.items() for row, reason in store.bad
    ]
    return tuple(sorted(found, key=lambda item: item.row))


def _misfits(recipe: "Recipe", fields: Mapping[str, FieldStore], tables: "list[Table]") -> Iterator[BadRow]:
    """The rows whose target does not lie on its input, by their shapes."""
    for name, declared in recipe.outputs.items():
        looks = type(declared).apart is not Modality.apart
        if name not in fields or not (looks or type(declared).misfit is not Modality.misfit):
            continue
        item = recipe.standing(name)
        under = fields.get(str(getattr(item, "on", None)))
        if under is None:
            continue
        store = fields[name]
        for row in np.flatnonzero(store.present & under.present).tolist():
            reason = item.apart(store[row], under[row]) if looks else item.misfit(store.shape(row), under.shape(row))
            if reason is not None:
                yield BadRow(row, _origin(tables, row), name, reason)


def _origin(tables: "Sequence[Table]", row: int) -> str:
    """Where a row comes from, in the user's words."""
    starts = _starts(tables)
    table = bisect_right(starts, row) - 1
    return str(tables[table].origin(row - starts[table]))


def _check_bad(bad: Sequence[BadRow], count: int, allowed: float) -> None:
    rows = len({item.row for item in bad})
    if rows <= allowed * count:
        return
    named = "".join(f"\n  {item.origin}, {item.field}: {item.reason}" for item in bad[:NAMED_ROWS])
    more = f" (the first {NAMED_ROWS} of {len(bad)} values below)" if len(bad) > NAMED_ROWS else ""
    raise DataError(
        f"{rows} of {count} rows ({rows / count:.1%}) cannot be read, more than data.max_bad = {allowed:.1%} allows. "
        f"Fix: mend or remove them, or set data.max_bad to {enough_bad(rows, count)}{more}.{named}"
    )


def enough_bad(rows: int, count: int) -> str:
    """The smallest data.max_bad, in tenths of a percent, that allows so many unreadable rows."""
    return f"{math.ceil(1000 * rows / count) / 10:g}%"


def _kept(
    recipe: "Recipe",
    present: Mapping[str, np.ndarray],
    bad: Sequence[BadRow],
    tables: "list[Table]",
    need_targets: bool,
    notes: list[str],
) -> np.ndarray:
    """bool [rows]: the rows that may be in a split; why others may not goes into the notes."""
    count = sum(len(table) for table in tables)
    keep = np.ones(count, bool)
    broken = np.unique(np.array([item.row for item in bad], np.int64))
    keep[broken] = False
    if len(broken):
        first = "; ".join(f"{item.origin}, {item.field}: {item.reason}" for item in bad[:3])
        notes.append(f"{len(broken)} of {count} rows could not be read and were put aside: {first}")
    if not need_targets:
        return keep
    for what, section in (("input", recipe.inputs), ("label", recipe.outputs)):
        any_value = np.logical_or.reduce(
            [np.zeros(count, bool), *(present[name] for name in section if name in present)]
        )
        if lacking := int((keep & ~any_value).sum()):
            first = _origin(tables, int(np.flatnonzero(keep & ~any_value)[0]))
            notes.append(f"{lacking} of {count} rows have no {what} at all and were left out (the first: {first})")
            keep &= any_value
    for name, there in present.items():
        if missing := int((keep & ~there).sum()):
            notes.append(f"{name} is missing in {missing} of {int(keep.sum())} rows")
    return keep


# ---- splits, weights, groups -----------------------------------------------------------------------------------------


def _split(
    recipe: "Recipe", tables: "dict[str, Table]", source: Any, fields: Mapping[str, FieldStore], keep: np.ndarray
) -> "Splits":
    from endwise.data.split import Splits, split_rows

    if source is not None:
        none = np.zeros(0, np.int64)
        return Splits(train=none, val=none, test=np.flatnonzero(keep), how=f"every row of {tables['all'].name}")
    if isinstance(windows := tables.get("all"), WindowTable):
        return window_splits(windows, recipe).without(np.flatnonzero(~keep))
    outputs = {modality.column or name for name, modality in recipe.outputs.items() if not modality.of_row}
    keys = split_keys(recipe, fields)
    return split_rows(recipe.data, tables, recipe.train.seed, keys=keys, outputs=outputs).without(np.flatnonzero(~keep))


def split_keys(recipe: "Recipe", fields: Mapping[str, FieldStore]) -> list[str]:
    """Rows with one key are never on two sides: the same picture, recording or text, under whatever name. A few plain
    values are alike by chance, so there the answer counts too."""
    names = [name for name in recipe.inputs if name in fields]
    if all(recipe.inputs[name].axes == 0 for name in names):
        names = list(fields)
    content = np.concatenate([fields[name].content for name in names], axis=1)
    return [row.tobytes().hex() for row in content]


def _weights(column: str | None, tables: "list[Table]", keep: np.ndarray, optional: bool) -> np.ndarray:
    if column is None or (optional and not all(column in table.columns for table in tables)):
        return np.ones(len(keep), np.float32)
    out = np.zeros(len(keep), np.float64)
    row = 0
    for table in tables:
        for index, cell in enumerate(table.column(column)):
            if keep[row]:
                out[row] = _weight(cell, column, table, index)
            row += 1
    if not out.any():
        raise refusal(
            field=f"data.weight ({column})", got=0.0, allowed="at least one row with a weight above 0",
            fix="give weights above 0 or remove data.weight", error=DataError,
        )  # fmt: skip
    return out.astype(np.float32)


def _weight(cell: Any, column: str, table: "Table", index: int) -> float:
    try:
        value = float(cell)
    except (TypeError, ValueError):
        value = math.nan
    if math.isfinite(value) and 0 <= value <= float(np.finfo(np.float32).max):
        return value
    raise refusal(
        field=f"{table.origin(index)}, column {column!r} (data.weight)", got=cell, allowed="a finite number of at least 0",
        fix="mend the cell, or give 0 to leave the row's loss out", error=DataError,
    )  # fmt: skip


def _groups(column: str | None, tables: "list[Table]") -> np.ndarray | None:
    if column is None or not all(column in table.columns for table in tables):
        return None
    seen: dict[str, int] = {}
    codes = [
        -1 if cell is None else seen.setdefault(str(cell), len(seen))
        for table in tables
        for cell in table.column(column)
    ]
    return np.array(codes, np.int64)


def _fingerprint(recipe: "Recipe", fields: Mapping[str, FieldStore], weight: np.ndarray, splits: "Splits") -> str:
    declared = {**recipe.inputs, **recipe.outputs}
    found = hashlib.sha256(b"endwise data 1\n")
    for name, store in fields.items():
        role = "input" if name in recipe.inputs else "output"
        facts = [role, name, declared[name].to_dict(), store.fingerprint]
        found.update(json.dumps(facts, sort_keys=True, default=str).encode() + b"\n")
    found.update(weight.tobytes())
    for name in ("train", "val", "test"):
        rows = np.asarray(getattr(splits, name), np.int64)
        found.update(f"{name} {len(rows)}\n".encode() + rows.tobytes())
    return found.hexdigest()
