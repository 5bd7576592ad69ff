"""Columns: raw cells by row, whatever they are kept in, with memory bounded for those that are too large to hold.

A missing cell (None, NaN, NaT, NA) is None everywhere. Numbers and times of numpy and Arrow come out as Python's.
Not here: which columns a source has and where a row stands in it (`table.py`).
"""

import decimal
import json
import mmap
import os
import threading
from abc import abstractmethod
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from endwise.errors import DataError

if TYPE_CHECKING:
    from endwise.data.files import Finder, Place

HELD_BYTES = 64 << 20  # a column above this is read as it goes; below, it is kept
BATCH_BYTES = 8 << 20  # of a Parquet column read at once
RECENT_BATCHES = 4  # neighbouring workers ask a little out of order
RECENT_LINES = 512


def plain(value: Any) -> Any:
    """The cell as a Python value, None where it is missing. Arrays, lists and mappings are left as they are."""
    if value is None or isinstance(value, np.generic):
        return None if value is None else _plain_numpy(value)
    if isinstance(value, str | bytes | int):
        return value
    if isinstance(value, float):
        return None if value != value else value
    if type(value).__name__ in ("NaTType", "NAType"):  # pandas, which need not be there
        return None
    if isinstance(value, decimal.Decimal) and value.is_nan():
        return None
    return value


def _plain_numpy(value: np.generic) -> Any:
    if isinstance(value, np.datetime64 | np.timedelta64):
        return None if np.isnat(value) else value.astype(f"{value.dtype.str[1:3]}[us]").item()
    if isinstance(value, np.floating) and np.isnan(value):
        return None
    return value.item() if not isinstance(value, np.void) else value


class Column(Sequence[Any]):
    """The raw cells of one column."""

    nbytes: int | None = None  # about what all cells take in memory, where it is known

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def stream(self, start: int, stop: int) -> Iterator[Any]:
        """The cells from `start` up to `stop`, in bounded memory."""

    @abstractmethod
    def cell(self, row: int) -> Any:
        """One cell, 0 <= row < len."""

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return list(self.stream(start, max(start, stop)))
            return [self.cell(row) for row in range(start, stop, step)]
        row = index + len(self) if index < 0 else index
        if not 0 <= row < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self.cell(int(row))

    def __iter__(self) -> Iterator[Any]:
        return self.stream(0, len(self))


class ListColumn(Column):
    """Cells held as Python values."""

    def __init__(self, cells: Sequence[Any]) -> None:
        self.cells = cells
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self.cells)

    def stream(self, start: int, stop: int) -> Iterator[Any]:
        return map(plain, islice(self.cells, start, stop))

    def cell(self, row: int) -> Any:
        return plain(self.cells[row])


class ArrayColumn(Column):
    """A numpy array: a scalar for each row, or an array for each where there are more axes."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.nbytes = int(array.nbytes) if array.ndim == 1 else None

    def __len__(self) -> int:
        return len(self.array)

    def stream(self, start: int, stop: int) -> Iterator[Any]:
        return map(self.cell, range(start, stop))

    def cell(self, row: int) -> Any:
        return plain(self.array[row])


class ArrowColumn(Column):
    """A pyarrow ChunkedArray, in memory or memory-mapped."""

    def __init__(self, array: Any) -> None:
        self.array = _whole_microseconds(array)
        self.nbytes = int(array.nbytes)

    def __len__(self) -> int:
        return len(self.array)

    def stream(self, start: int, stop: int) -> Iterator[Any]:
        for first in range(start, stop, 4096):
            yield from map(plain, self.array.slice(first, min(4096, stop - first)).to_pylist())

    def cell(self, row: int) -> Any:
        return plain(self.array[row].as_py())


class MappedColumn(Column):
    """Another column seen through a function, such as class numbers turned into class names."""

    def __init__(self, inner: Column, names: Sequence[str]) -> None:
        self.inner = inner
        self.names = names

    def __len__(self) -> int:
        return len(self.inner)

    def stream(self, start: int, stop: int) -> Iterator[Any]:
        return map(self._named, self.inner.stream(start, stop))

    def cell(self, row: int) -> Any:
        return self._named(self.inner.cell(row))

    def _named(self, number: Any) -> str | None:
        return None if number is None or number < 0 else self.names[number]  # -1 is an unlabelled row there


class ChainedColumn(Column):
    """Columns one after another."""

    def __init__(self, parts: Sequence[Column]) -> None:
        self.parts = parts
        self.starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def stream(self, start: int, stop: int) -> Iterator[Any]:
        for part, first in zip(self.parts, self.starts, strict=False):
            low, high = max(0, start - int(first)), min(len(part), stop - int(first))
            if low < high:
                yield from part.stream(low, high)

    def cell(self, row: int) -> Any:
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.parts[part].cell(row - int(self.starts[part]))


class PickedColumn(Column):
    """Some rows of another column, in an order of their own."""

    def __init__(self, inner: Column, rows: np.ndarray) -> None:
        self.inner = inner
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def stream(self, start: int, stop: int) -> Iterator[Any]:
        return map(self.cell, range(start, stop))

    def cell(self, row: int) -> Any:
        return self.inner.cell(int(self.rows[row]))


class JoinedColumn(Column):
    """Several columns side by side: a cell is {column: cell}, or None where all of them are empty."""

    def __init__(self, parts: Mapping[str, Column]) -> None:
        self.parts = dict(parts)

    def __len__(self) -> int:
        return len(next(iter(self.parts.values())))

    def stream(self, start: int, stop: int) -> Iterator[Any]:
        for cells in zip(*(part.stream(start, stop) for part in self.parts.values()), strict=True):
            yield self._joined(cells)

    def cell(self, row: int) -> Any:
        return self._joined([part.cell(row) for part in self.parts.values()])

    def _joined(self, cells: Sequence[Any]) -> dict[str, Any] | None:
        return None if all(cell is None for cell in cells) else dict(zip(self.parts, cells, strict=True))


class TextFileColumn(Column):
    """The text inside files, read when asked for; the bytes of a file that is not UTF-8, so that whoever reads the
    cell refuses that row and no other."""

    def __init__(self, finder: "Finder", paths: Sequence[str]) -> None:
        self.finder = finder
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def stream(self, start: int, stop: int) -> Iterator[Any]:
        return map(self.cell, range(start, stop))

    def cell(self, row: int) -> str | bytes | None:
        data = self.finder.fetch(self.paths[row])
        try:
            return data.decode("utf-8-sig") or None
        except UnicodeDecodeError:
            return data


class ParquetFile:
    """One Parquet file, opened where it is used: in this thread's process, and again after a fork or a spawn."""

    def __init__(self, place: "Place", name: str) -> None:
        self.place = place
        self.name = name
        self._opened: tuple[int, Any] | None = None
        metadata = self.open().metadata
        self.group_rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self.starts = np.cumsum([0, *self.group_rows])
        self.column_bytes = _column_bytes(metadata, set(self.open().schema_arrow.names))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def open(self) -> Any:
        """The pyarrow ParquetFile of this process."""
        from pyarrow import ArrowException, parquet

        if self._opened is None or self._opened[0] != os.getpid():
            try:
                self._opened = (os.getpid(), parquet.ParquetFile(self._source()))
            except (ArrowException, OSError) as wrong:
                raise DataError(
                    f"{self.name}: not a readable Parquet file ({str(wrong).splitlines()[0]}). "
                    "Fix: write the file again; an interrupted copy looks like this."
                ) from None
        return self._opened[1]

    def _source(self) -> Any:
        from endwise.data.files import LocalPlace

        if isinstance(self.place, LocalPlace):
            import pyarrow

            return pyarrow.memory_map(self.place.spelled(self.name))
        return self.place.open(self.name)

    def batches(self, column: str, group: int) -> Iterator[Any]:
        """The Arrow arrays of one column of one row group, a few MB each."""
        from pyarrow import ArrowException

        rows = max(1, self.group_rows[group])
        per_row = max(1, self.column_bytes.get(column, 0) // max(1, int(self.starts[-1])))
        size = int(min(rows, max(16, BATCH_BYTES // per_row)))
        try:
            for batch in self.open().iter_batches(size, row_groups=[group], columns=[column], use_threads=False):
                yield _whole_microseconds(batch.column(0))
        except (ArrowException, OSError) as wrong:
            raise DataError(
                f"{self.name}, column {column!r}, rows {self.starts[group]} to {self.starts[group + 1] - 1}: "
                f"cannot be read ({str(wrong).splitlines()[0]}). Fix: write the file again."
            ) from None


class ParquetColumn(Column):
    """A Parquet column: kept after the first look when it is narrow, else read in order with a few batches held.

    Going through it forwards costs one pass; a jump back costs reading from the start of the row group.
    """

    def __init__(self, file: ParquetFile, name: str) -> None:
        self.file = file
        self.name = name
        self.nbytes = file.column_bytes.get(name, 0)
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._kept: ArrowColumn | None = None
        self._recent: deque[tuple[int, Any]] = deque(maxlen=RECENT_BATCHES)
        self._cursor: tuple[int, int, int, Iterator[Any]] | None = None  # process, row group, next row, batches

    def __getstate__(self) -> dict[str, Any]:
        return {"file": self.file, "name": self.name, "nbytes": self.nbytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def __len__(self) -> int:
        return int(self.file.starts[-1])

    def stream(self, start: int, stop: int) -> Iterator[Any]:
        row = start
        while row < stop:
            first, array = self._batch(row)
            cells = array.slice(row - first, min(stop, first + len(array)) - row).to_pylist()
            yield from map(plain, cells)
            row += len(cells)

    def cell(self, row: int) -> Any:
        first, array = self._batch(row)
        return plain(array[row - first].as_py())

    def _batch(self, row: int) -> tuple[int, Any]:
        with self._lock:
            if self.nbytes is not None and self.nbytes <= HELD_BYTES:
                return 0, self._all()
            for first, array in self._recent:
                if first <= row < first + len(array):
                    return first, array
            return self._advance(row)

    def _all(self) -> Any:
        if self._kept is None:
            import pyarrow

            parts = [
                array for group in range(len(self.file.group_rows)) for array in self.file.batches(self.name, group)
            ]
            kind = self.file.open().schema_arrow.field(self.name).type
            self._kept = ArrowColumn(pyarrow.chunked_array(parts, type=parts[0].type if parts else kind))
        return self._kept.array

    def _advance(self, row: int) -> tuple[int, Any]:
        group = int(np.searchsorted(self.file.starts, row, side="right")) - 1
        cursor = self._cursor
        if cursor is None or cursor[:2] != (os.getpid(), group) or cursor[2] > row:
            cursor = (os.getpid(), group, int(self.file.starts[group]), self.file.batches(self.name, group))
        first, batches = cursor[2], cursor[3]
        for array in batches:
            following = first + len(array)
            if row < following:
                self._cursor = (os.getpid(), group, following, batches)
                self._recent.append((first, array))
                return first, array
            first = following
        raise DataError(f"{self.file.name}: row {row} is promised by the file's own index and not there.")


class JsonLines:
    """The lines of a JSONL file: their places are kept, the rows are parsed when asked for."""

    def __init__(self, place: "Place", name: str, data: bytes | None, starts: np.ndarray, stops: np.ndarray) -> None:
        self.place = place
        self.name = name
        self.data = data  # the whole text where it cannot be mapped (compressed or remote)
        self.starts = starts
        self.stops = stops
        self._reset()

    def _reset(self) -> None:
        self._mapped: mmap.mmap | None = None
        self._recent: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("place", "name", "data", "starts", "stops")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def row(self, row: int) -> dict[str, Any]:
        """The object on the row's line."""
        with self._lock:
            found = self._recent.get(row)
            if found is None:
                found = json.loads(self._text()[self.starts[row] : self.stops[row]])
                self._recent[row] = found
                if len(self._recent) > RECENT_LINES:
                    self._recent.popitem(last=False)
            return found

    def _text(self) -> "bytes | mmap.mmap":
        if self.data is not None:
            return self.data
        if self._mapped is None:
            with self.place.open(self.name) as file:
                self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._mapped


class JsonColumn(Column):
    """One key of the objects of a JSONL file; None where an object lacks it."""

    def __init__(self, lines: JsonLines, key: str) -> None:
        self.lines = lines
        self.key = key
        self.nbytes = int(lines.stops[-1]) if len(lines.stops) else 0  # an upper bound: the whole file

    def __len__(self) -> int:
        return len(self.lines.starts)

    def stream(self, start: int, stop: int) -> Iterator[Any]:
        return map(self.cell, range(start, stop))

    def cell(self, row: int) -> Any:
        return plain(self.lines.row(row).get(self.key))


def _column_bytes(metadata: Any, names: set[str]) -> dict[str, int]:
    """Unpacked bytes of each top-level column."""
    found: dict[str, int] = {}
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(index)
            path = chunk.path_in_schema
            name = path if path in names else path.split(".")[0]
            found[name] = found.get(name, 0) + chunk.total_uncompressed_size
    return found


def _whole_microseconds(array: Any) -> Any:
    """Nanosecond times have no Python value; what a recipe needs of a date is far coarser."""
    import pyarrow

    kind = array.type
    if pyarrow.types.is_timestamp(kind) and kind.unit == "ns":
        return array.cast(pyarrow.timestamp("us", tz=kind.tz), safe=False)
    return array
