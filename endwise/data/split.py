"""Which rows are for training, validation and test, and why: the official split where there is one, else by time, by
group, or by content.

A row's side depends on the seed and on its own key (group or content), never on where it stands or on other rows: the
split survives shuffling and new rows. The same key is always on the same side, so no group and no repeated content is
on two. Not here: reading tables (`table.py`), findings about leaks (`check.py`).
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from endwise.errors import DataError, refusal, unknown_name
from endwise.when import time_of

if TYPE_CHECKING:
    from endwise.data.table import Table
    from endwise.recipe import Data

SIDES = ("train", "val", "test")
SIDE_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
SPLIT_COLUMN = "split"
VAL_SHARE = 0.1
TEST_SHARE = 0.1
MIN_TRAIN_ROWS = 3
FOLD_ROWS = 500  # below this, one split says little: use `folds`


@dataclass(frozen=True, slots=True)
class SharedGroup:
    """A group with rows on more than one side of an official split."""

    group: str
    rows: Mapping[str, int]  # side -> rows


@dataclass(frozen=True, eq=False)
class Splits:
    """Row ids of the three sides, ascending; ids count over the tables one after another."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    how: str  # a sentence for the report
    shared_groups: tuple[SharedGroup, ...] = ()

    def side(self, name: str) -> np.ndarray:
        """The row ids of 'train', 'val' or 'test'."""
        if name not in SIDES:
            raise unknown_name(field="split", got=name, names=SIDES, error=DataError)
        found: np.ndarray = getattr(self, name)
        return found

    def without(self, rows: Collection[int] | np.ndarray) -> "Splits":
        """The same split without some rows (those that cannot be read)."""
        gone = np.fromiter(rows, dtype=np.int64, count=len(rows))
        train, val, test = (self.side(side)[~np.isin(self.side(side), gone)] for side in SIDES)
        return replace(self, train=train, val=val, test=test)


def side_of(value: Any) -> str | None:
    """'train', 'val' or 'test' for any usual spelling of them, else None."""
    return SIDE_NAMES.get(value.strip().lower()) if isinstance(value, str) else None


def split_rows(
    data: "Data", tables: Mapping[str, "Table"], seed: int, *,
    keys: Sequence[str] | None = None, outputs: Collection[str] = (),
) -> Splits:  # fmt: skip
    """Split the rows of `tables`: {"all": table} or {"train":, "val":, "test":}.

    keys: what stands for the content of each row, over all tables (rows with the same key are never on two sides);
    default: every cell of the row. outputs: columns that are answers: none of them can be the group, and one called
    'split' is no split column. DataError when a value is not what the split needs, or a side would be empty.
    """
    _check_columns(data, tables, outputs)
    count = sum(len(table) for table in tables.values())
    if keys is not None and len(keys) != count:
        raise ValueError(f"{len(keys)} keys for {count} rows")
    official = _official(data, tables, outputs)
    if official is None:
        table = tables["all"]
        if data.time is not None:
            return _checked(_by_time(table, data.time), data)
        row_keys = _keys(data, tables, keys)
        by_row = assign(row_keys, seed, {"test": TEST_SHARE, "val": VAL_SHARE})
        how = f"80/10/10 by a hash of the seed and {_key_name(data)}, since the data has no official split"
        return _checked(_splits(_by_side(by_row), how), data)
    sides, how = official
    if "val" not in sides:
        sides, added = _val_from_train(sides, data, tables, seed, keys)
        how += f"; {added}"
    if "test" not in sides:
        how += "; no test rows were given, so none are kept for a final test"
    shared = _shared(sides, _groups(data.group, tables)) if data.group is not None else ()
    if shared:
        how += f"; {len(shared)} values of {data.group!r} are on more than one side"
    return _checked(replace(_splits(sides, how), shared_groups=shared), data)


def assign(keys: Sequence[str], seed: int, shares: Mapping[str, float]) -> np.ndarray:
    """The side of each row, str [n]: the named ones get about their share of the distinct keys, 'train' the rest.

    A key's side is decided by its own hash. Only where a side would stay empty does the side with most keys give it
    one, so that a handful of groups still makes three sides.
    """
    places = {key: _unit(key, seed) for key in dict.fromkeys(keys)}
    order = sorted(places, key=lambda key: (places[key], key), reverse=True)
    side_by_key = dict.fromkeys(order, "train")
    edge = 1.0
    for side, share in shares.items():
        upper, edge = edge, edge - share
        side_by_key.update((key, side) for key in order if edge <= places[key] < upper)
    for side in ("train", *shares):
        if side not in side_by_key.values():
            _give_one(side, order, side_by_key)
    return np.array([side_by_key[key] for key in keys], dtype="<U5")


def folds(keys: Sequence[str], k: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """`k` pairs of (train rows, held-out rows), int64 ascending: every row is held out once, rows with the same key
    together, folds as equal in rows as the keys allow, whatever the order of the rows."""
    sizes = Counter(keys)
    if not 2 <= k <= len(sizes):
        raise refusal(
            field="folds", got=k, allowed=f"2 to {len(sizes)}, the number of different rows or groups",
            fix="use fewer folds or give more rows", error=DataError,
        )  # fmt: skip
    held = [0] * k
    fold_of: dict[str, int] = {}
    # largest first fills the folds evenly; among equals the hash decides
    for key in sorted(sizes, key=lambda key: (-sizes[key], _unit(key, seed), key)):
        fold = held.index(min(held))
        fold_of[key] = fold
        held[fold] += sizes[key]
    of_row = np.array([fold_of[key] for key in keys], dtype=np.int64)
    return [(np.flatnonzero(of_row != fold), np.flatnonzero(of_row == fold)) for fold in range(k)]


def content_keys(tables: Sequence["Table"], *, leave_out: Collection[str] = ()) -> list[str]:
    """A hash of each row's cells, over all tables, whatever the order of the columns."""
    found: list[str] = []
    for table in tables:
        names = sorted(name for name in table.columns if name not in leave_out)
        digests = [hashlib.blake2b(digest_size=16) for _ in range(len(table))]
        for name in names:
            for digest, cell in zip(digests, table.stream(name), strict=True):
                raw = cell if isinstance(cell, bytes) else _text(cell).encode("utf-8", "surrogatepass")
                digest.update(f"{name}\0{len(raw)}\0".encode())
                digest.update(raw)
        found.extend(digest.hexdigest() for digest in digests)
    return found


def _text(cell: Any) -> str:
    if isinstance(cell, np.ndarray):
        return f"{cell.dtype}{cell.shape}{hashlib.blake2b(np.ascontiguousarray(cell).tobytes()).hexdigest()}"
    return cell if isinstance(cell, str) else repr(cell)


def _unit(key: str, seed: int) -> float:
    """A number in [0, 1) from the seed and the key alone."""
    raw = hashlib.blake2b(f"{seed}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(raw, "big") >> 11) / 2**53


def _give_one(side: str, order: Sequence[str], side_by_key: dict[str, str]) -> None:
    counts = Counter(side_by_key.values())
    donor = max(SIDES, key=lambda name: counts[name])
    if counts[donor] > 1:
        theirs = [key for key in order if side_by_key[key] == donor]  # by falling hash; train has the low ones
        side_by_key[theirs[-1] if side == "train" else theirs[0]] = side


# ---- official splits -------------------------------------------------------------------------------------------------


def _official(
    data: "Data", tables: Mapping[str, "Table"], outputs: Collection[str]
) -> tuple[dict[str, np.ndarray], str] | None:
    """Rows of each side that the data itself names, and how it does; None where it names none."""
    if "all" not in tables:
        sides, start = {}, 0
        for side in SIDES:
            if side in tables:
                sides[side] = np.arange(start, start + len(tables[side]), dtype=np.int64)
                start += len(tables[side])
        how = "official: " + ", ".join(f"{side} is {tables[side].name}" for side in sides)
        return sides, how
    table = tables["all"]
    column = data.split_column
    if column is None and SPLIT_COLUMN in table.columns and SPLIT_COLUMN not in outputs:
        column = SPLIT_COLUMN
    if column is None:
        return None
    found: dict[str, list[int]] = {}
    for row, cell in enumerate(table.column(column)):
        named = side_of(cell)
        if named is None:
            raise refusal(
                field=f"{table.origin(row)}, column {column!r}", got=cell, allowed="train, val (valid, validation, dev) or test",
                fix="correct the cell, or rename the column if it is no split", error=DataError,
            )  # fmt: skip
        found.setdefault(named, []).append(row)
    if "train" not in found:
        raise refusal(
            field=f"{table.name}, column {column!r}", got=sorted(found), allowed="at least some rows named train",
            fix="name the training rows, or remove data.split to split at random", error=DataError,
        )  # fmt: skip
    return {side: np.array(rows, dtype=np.int64) for side, rows in found.items()}, f"official: column {column!r}"


def _val_from_train(
    sides: dict[str, np.ndarray], data: "Data", tables: Mapping[str, "Table"], seed: int, keys: Sequence[str] | None
) -> tuple[dict[str, np.ndarray], str]:
    train = sides["train"]
    if data.time is not None:  # official test rows stay what they are; validation is what comes just before
        table = tables.get("all") or tables["train"]
        found = times(table, data.time, train)
        cut = _cuts(found, [1 - VAL_SHARE], table.name, data.time)[0]
        late = np.array([time >= cut for time in found])
        added = f"validation: the newest 10 % of train by {data.time!r}"
        return {**sides, "train": train[~late], "val": train[late]}, added
    row_keys = _keys(data, tables, keys)
    side = assign([row_keys[row] for row in train], seed, {"val": VAL_SHARE})
    added = f"validation: 10 % of train by a hash of the seed and {_key_name(data)}"
    return {**sides, "train": train[side == "train"], "val": train[side == "val"]}, added


def _shared(sides: Mapping[str, np.ndarray], groups: Sequence[str]) -> tuple[SharedGroup, ...]:
    rows: dict[str, dict[str, int]] = {}
    for side in SIDES:
        for row in sides.get(side, ()):
            counts = rows.setdefault(groups[int(row)], {})
            counts[side] = counts.get(side, 0) + 1
    return tuple(SharedGroup(group, counts) for group, counts in sorted(rows.items()) if len(counts) > 1)


# ---- by time ---------------------------------------------------------------------------------------------------------


def _by_time(table: "Table", column: str) -> Splits:
    found = times(table, column, range(len(table)))
    val_from, test_from = _cuts(found, [1 - VAL_SHARE - TEST_SHARE, 1 - TEST_SHARE], table.name, column)
    sides = np.array(
        ["test" if time >= test_from else "val" if time >= val_from else "train" for time in found], dtype="<U5"
    )
    how = f"by time: the newest 10 % by {column!r} are test, the 10 % before them validation; rows of one time stay together"
    return _splits(_by_side(sides), how)


def times(table: "Table", column: str, rows: Sequence[int] | np.ndarray, *, of: str = "data.time") -> list[float]:
    """Seconds, or whatever the column counts in, of some rows. of: the setting that names the column, for refusals."""
    cells = table.column(column)
    found: list[float] = []
    expected: str | None = None
    for row in map(int, rows):
        cell = cells[row]
        kind, time = time_of(cell)
        expected = expected or kind
        if kind is None or kind != expected:
            raise refusal(
                field=f"{table.origin(row)}, column {column!r} ({of})", got=cell,
                allowed=f"a {expected or 'number or a date'}" + (", as in the rows before" if found else "")
                + ("" if expected == "number" else " (2024-05-31, 2024-05-31T12:30)"),
                fix="correct the cell, or write the dates in that form", error=DataError,
            )  # fmt: skip
        found.append(time)
    return found


def _cuts(times: Sequence[float], shares: Sequence[float], name: str, column: str) -> list[float]:
    """For each share, the first time after about that share of the rows. Between different times only, ascending."""
    ordered = sorted(times)
    edges = [index for index in range(1, len(ordered)) if ordered[index] != ordered[index - 1]]
    if len(edges) < len(shares):
        raise refusal(
            field=f"{name}, column {column!r} (data.time)", got=f"{len(edges) + 1} different times",
            allowed=f"at least {len(shares) + 1}, so that each side has a time of its own",
            fix="use a finer time, or another way to split", error=DataError,
        )  # fmt: skip
    found: list[int] = []
    room = edges
    for left, share in zip(range(len(shares) - 1, -1, -1), reversed(shares), strict=True):
        room = room[left:]
        best = min(room, key=lambda edge: (abs(edge - share * len(ordered)), edge))
        found.append(best)
        room = [edge for edge in edges if edge < best]
    return [ordered[edge] for edge in reversed(found)]


# ---- keys and checks -------------------------------------------------------------------------------------------------


def _check_columns(data: "Data", tables: Mapping[str, "Table"], outputs: Collection[str]) -> None:
    if data.split is not None and "all" not in tables:
        raise refusal(
            field="data.split", got=data.split, allowed="a split column or split files, not both",
            fix="remove data.split: the files are the split", error=DataError,
        )  # fmt: skip
    for part in ("split", "group", "time"):
        column = getattr(data, part)
        for table in tables.values():
            needed = column is not None and not (part == "time" and table is not tables.get("all", tables.get("train")))
            if needed and column not in table.columns:
                raise unknown_name(
                    field=f"data.{part} ({table.name})", got=column, names=table.columns, error=DataError
                )
    if data.group is not None and data.group in outputs:
        raise refusal(
            field="data.group", got=data.group, allowed="a column that is no output: every answer has to be on both sides",
            fix="remove the group, or the output", error=DataError,
        )  # fmt: skip


def _key_name(data: "Data") -> str:
    return f"the group {data.group!r}" if data.group is not None else "the row's content"


def _keys(data: "Data", tables: Mapping[str, "Table"], keys: Sequence[str] | None) -> Sequence[str]:
    if data.group is not None:
        return _groups(data.group, tables)
    if keys is not None:
        return keys
    leave_out = {name for name in (data.split_column, SPLIT_COLUMN, data.weight) if name is not None}
    return content_keys(list(tables.values()), leave_out=leave_out)


def _groups(column: str, tables: Mapping[str, "Table"]) -> list[str]:
    found = []
    for table in tables.values():
        for row, cell in enumerate(table.column(column)):
            if cell is None:
                raise refusal(
                    field=f"{table.origin(row)}, column {column!r} (data.group)", got=None, allowed="a value in every row",
                    fix="fill in the group: a row without one may belong to both sides", error=DataError,
                )  # fmt: skip
            found.append(str(cell))
    return found


def _by_side(side_of_row: np.ndarray) -> dict[str, np.ndarray]:
    return {side: np.flatnonzero(side_of_row == side).astype(np.int64) for side in SIDES}


def _splits(sides: Mapping[str, np.ndarray], how: str) -> Splits:
    none = np.zeros(0, dtype=np.int64)
    train, val, test = (np.sort(sides.get(side, none)) for side in SIDES)
    return Splits(train=train, val=val, test=test, how=how)


def _checked(splits: Splits, data: "Data") -> Splits:
    """Refuse what cannot be trained or measured."""
    sizes = {side: len(splits.side(side)) for side in SIDES}
    told = ", ".join(f"{size} {side}" for side, size in sizes.items())
    if sizes["train"] < MIN_TRAIN_ROWS:
        raise refusal(
            field="data", got=told, allowed=f"at least {MIN_TRAIN_ROWS} training rows", fix="give more rows", error=DataError
        )  # fmt: skip
    needed = ("val",) if "no test rows were given" in splits.how else ("val", "test")
    empty = [side for side in needed if not sizes[side]]
    if empty:
        unit = f"values of {data.group!r}" if data.group is not None else "different rows"
        raise refusal(
            field="data", got=told, allowed=f"at least one {empty[0]} row",
            fix=f"give more {unit}, or name the rows yourself in a column 'split'", error=DataError,
        )  # fmt: skip
    return splits
