"""Tables: rows of raw cells from wherever they come, columns by name, every row with a place to name in a message.

`open_table` takes a CSV, TSV, Parquet, JSONL or JSON file, a folder of class folders, a folder or zip with one table in
it, annotations of boxes as COCO or Pascal VOC has them, any of these at an fsspec address, a Hugging Face data set, a
frame, or lists and arrays in memory. Cells stay raw: those of a CSV are text, an empty one is missing; what a cell means
is its modality's business.

Not here: where files lie and how a path in a cell is found (`files.py`), how cells are kept (`columns.py`), which side
of the split a row is on (`split.py`).
"""

import bz2
import gzip
import json
import lzma
import os
import posixpath
import re
import tempfile
import zipfile
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from endwise.data.annotations import coco_columns, is_coco, voc_columns, voc_files, with_folder
from endwise.data.columns import (
    HELD_BYTES,
    ArrayColumn,
    ArrowColumn,
    ChainedColumn,
    Column,
    JsonColumn,
    JsonLines,
    ListColumn,
    MappedColumn,
    ParquetColumn,
    ParquetFile,
    TextFileColumn,
)
from endwise.data.files import Finder, LocalPlace, Place, ZipPlace, locate
from endwise.data.split import SIDES, side_of
from endwise.delimited import distinct, rows_of, wide_fields
from endwise.errors import DataError, need, refusal, require, unknown_name

IMAGE_FILES = frozenset(
    {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".dcm", ".dicom"}
)
AUDIO_FILES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".m4a"})
TEXT_FILES = frozenset({".txt", ".text", ".md"})
FAMILIES = {"image": IMAGE_FILES, "audio": AUDIO_FILES, "text": TEXT_FILES}
TABLE_FILES = (".csv", ".tsv", ".tab", ".parquet", ".pq", ".jsonl", ".ndjson")
PACKED: dict[str, Callable[[BinaryIO], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
PAPERS = re.compile(r"^(readme|licen[cs]e|changelog|notice|citation)", re.IGNORECASE)  # no rows, whatever their ending
STRAY_SHARE = 0.05  # more files of another kind than this are no stray files
CSV_ROWS = 16_384  # rows turned into one Arrow piece
SPOOL_BYTES = 256 << 20  # a text table above this is kept in a temporary memory-mapped file


@dataclass(frozen=True, slots=True)
class Origins:
    """How a row is named: 'calls.csv line 17', 'train.parquet row 5' (counted from 0), 'photos/cat/1.jpg'."""

    name: str
    unit: str = "row"
    numbers: Sequence[int] | np.ndarray | None = None
    paths: Sequence[str] | None = None

    def __call__(self, row: int) -> str:
        if self.paths is not None:
            return f"{self.name}/{self.paths[row]}"
        return f"{self.name} {self.unit} {row if self.numbers is None else int(self.numbers[row])}"


class Table:
    """Rows of raw cells, columns by name. Read-only; safe to share between threads and to send to other processes."""

    def __init__(
        self,
        name: str,
        columns: Mapping[str, Column],
        *,
        finder: Finder,
        origins: Any,
        notes: Sequence[str] = (),
        made: Collection[str] = (),
    ) -> None:
        """made: columns that are put together from others; they are read by name and listed nowhere."""
        self.name = name
        self.columns = tuple(name for name in columns if name not in made)  # of the source
        self._made = frozenset(made)
        self.base = finder.place.address
        self.notes = tuple(notes)  # what was left out on opening, for the report
        self._columns = dict(columns)
        self.finder = finder  # how a file named in a cell is found
        self._origins = origins
        sizes = {column: len(cells) for column, cells in columns.items()}
        self._size = next(iter(sizes.values()), 0)
        odd = next((column for column, size in sizes.items() if size != self._size), None)
        if odd is not None:
            raise refusal(
                field=f"{name}: column {odd!r}", got=f"{sizes[odd]} values", allowed=f"{self._size}, as {next(iter(columns))!r} has",
                fix="give every column one value a row", error=DataError,
            )  # fmt: skip

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        return f"Table({self.name}: {len(self)} rows; {', '.join(self.columns)})"

    def column(self, name: str) -> Sequence[Any]:
        """All raw cells, None where missing: a list, or for a column too large to hold a sequence that reads as it
        is gone through (slices of it are lists)."""
        cells = self._column(name)
        return cells if cells.nbytes is None or cells.nbytes > HELD_BYTES else list(cells)

    def has(self, name: str) -> bool:
        """Whether there is such a column, of the source or put together."""
        return name in self._columns

    def with_columns(self, made: Mapping[str, Column]) -> "Table":
        """The same rows with more columns, put together from those there are."""
        columns = {**self._columns, **made}
        known = {*self._made, *made}
        return Table(self.name, columns, finder=self.finder, origins=self._origins, notes=self.notes, made=known)

    def column_of(self, name: str) -> Column:
        """A column as it is kept: one cell is read at a time."""
        return self._column(name)

    def cell(self, name: str, row: int) -> Any:
        """One raw cell."""
        return self._column(name)[row]

    def stream(self, name: str) -> Iterator[Any]:
        """The raw cells in order, in bounded memory."""
        return iter(self._column(name))

    def origin(self, row: int) -> str:
        """The row as a message names it: its file and line, its file and number (from 0), or its own file."""
        return str(self._origins(int(row)))

    def fetch(self, path: str) -> bytes:
        """The bytes of a file named in a cell: next to the table, at an address, as 'archive.zip!member', or inside a
        zip beside the table. BadValue with the reason when there is none."""
        return self.finder.fetch(path)

    def has_file(self, path: str) -> bool:
        """Whether `fetch` would find a file of that name."""
        return self.finder.exists(path)

    def _column(self, name: str) -> Column:
        if name not in self._columns:
            raise unknown_name(field=f"{self.name}: column", got=name, names=self.columns, error=DataError)
        return self._columns[name]


def open_table(source: Any) -> Table:
    """The table behind a path, an address, a frame, or values in memory.

    path: a file (.csv .tsv .parquet .jsonl .json, text ones also .gz .bz2 .xz), a folder or .zip; address: anything
    fsspec knows, or hf://name[/config][:split] (extra hub); in memory: a pandas or polars frame, a pyarrow Table, a
    list of dicts, a dict of columns (lists or arrays). Relative paths in cells are taken from the table's folder, or
    from the working folder for values in memory. DataError names file and line of what cannot be read.
    """
    if isinstance(source, Table):
        return source
    table = _open_path(os.fspath(source)) if isinstance(source, str | os.PathLike) else _in_memory(source)
    if not len(table):
        raise refusal(
            field="data", got=table.name, allowed="a table with at least one row", fix="the source is empty", error=DataError
        )  # fmt: skip
    return table


def is_table(name: str) -> bool:
    """Whether a file of this name is read as a table (.json is one too, but only when it is named as the source)."""
    return _ending(name)[0] in TABLE_FILES


# ---- files ---------------------------------------------------------------------------------------------------------


def _open_path(source: str) -> Table:
    if source.startswith("hf://") and not source.startswith(("hf://datasets/", "hf://buckets/")):
        return _hub(source)
    place, name = locate(source)
    if name is None:
        return _open_folder(place)
    if name.lower().endswith(".zip"):
        return _open_zip(place, name)
    return _open_file(place, name)


def _open_file(place: Place, name: str) -> Table:
    kind, packed = _ending(name)
    if kind in (".csv", ".tsv", ".tab"):
        return _open_csv(place, name, "," if kind == ".csv" else "\t")
    if kind in (".jsonl", ".ndjson"):
        return _open_json_lines(place, name)
    if kind == ".json":
        return _open_json(place, name)
    if kind in (".parquet", ".pq") and packed is None:
        return _open_parquet(place, name)
    raise refusal(
        field="data", got=place.spelled(name), allowed=f"a table ({' '.join((*TABLE_FILES, '.json'))}), a folder or a .zip",
        fix="write the rows as CSV, Parquet or JSONL, or pass them from Python as a dict of columns", error=DataError,
    )  # fmt: skip


def _ending(name: str) -> tuple[str, str | None]:
    """('.csv', '.gz') of 'x.csv.gz'."""
    stem, last = posixpath.splitext(name.lower())
    return (posixpath.splitext(stem)[1], last) if last in PACKED else (last, None)


@contextmanager
def _unpacked(place: Place, name: str) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked as they are read; what breaks on the way is a DataError."""
    packed = _ending(name)[1]
    try:
        with place.open(name) as file:
            if packed is None:
                yield file
            else:
                with PACKED[packed](file) as inner:
                    yield inner
    except (OSError, EOFError, lzma.LZMAError, zlib.error, zipfile.BadZipFile) as wrong:
        reason = getattr(wrong, "strerror", None) or wrong
        raise DataError(
            f"{posixpath.basename(name)}: cannot be read to its end ({reason}). Fix: copy the file again."
        ) from None


def _finder(place: Place, name: str) -> Finder:
    """Paths in the cells are relative to the table; those of a table inside a zip lie in that zip."""
    if isinstance(place, ZipPlace):
        return Finder(place.outer, place.name)
    return Finder(place, posixpath.basename(name))


def _open_csv(place: Place, name: str, delimiter: str) -> Table:
    shown = posixpath.basename(name)
    numbers = array("q")
    with wide_fields(), _unpacked(place, name) as file:
        names, rows = rows_of(file, delimiter, shown)
        columns = _arrow_columns(_numbered(rows, numbers), names, place.size(name) or 0)
    origins = Origins(shown, "line", np.frombuffer(numbers, dtype=np.int64))
    return Table(shown, columns, finder=_finder(place, name), origins=origins)


def _numbered(rows: Iterator[tuple[int, list[str | None]]], numbers: "array[int]") -> Iterator[list[str | None]]:
    for line, row in rows:
        numbers.append(line)
        yield row


def _arrow_columns(rows: Iterator[list[str | None]], names: list[str], size: int) -> dict[str, Column]:
    """Text cells as Arrow columns: a tenth of what Python strings take, and out of memory when there are many."""
    import pyarrow

    schema = pyarrow.schema([(name, pyarrow.large_string()) for name in names])

    def batches() -> Iterator[Any]:
        held: list[list[str | None]] = []
        for row in rows:
            held.append(row)
            if len(held) == CSV_ROWS:
                yield _batch(held, schema)
                held = []
        if held:
            yield _batch(held, schema)

    if size > SPOOL_BYTES and os.name == "posix":
        table = _spooled(batches(), schema)
    else:
        table = pyarrow.Table.from_batches(batches(), schema=schema)
    return {name: ArrowColumn(table.column(index)) for index, name in enumerate(names)}


def _batch(rows: list[list[str | None]], schema: Any) -> Any:
    import pyarrow

    arrays = [pyarrow.array(cells, type=pyarrow.large_string()) for cells in zip(*rows, strict=True)]
    return pyarrow.RecordBatch.from_arrays(arrays, schema=schema)


def _spooled(batches: Iterator[Any], schema: Any) -> Any:
    """The batches in a memory-mapped file whose name is gone at once: its space is freed with the table."""
    import pyarrow

    handle, path = tempfile.mkstemp(prefix="endwise-", suffix=".arrow")
    os.close(handle)
    try:
        with pyarrow.OSFile(path, "wb") as sink, pyarrow.ipc.new_file(sink, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        return pyarrow.ipc.open_file(pyarrow.memory_map(path)).read_all()
    finally:
        Path(path).unlink()


def _open_parquet(place: Place, name: str) -> Table:
    shown = posixpath.basename(name)
    file = ParquetFile(place, name)
    names = distinct(file.open().schema_arrow.names, shown)
    names = [
        column for column in names if not re.match(r"^__index_level_\d+__$", column)
    ]  # a pandas index, as in a frame
    columns = {column: ParquetColumn(file, column) for column in names}
    return Table(shown, columns, finder=_finder(place, name), origins=Origins(shown))


def _open_json_lines(place: Place, name: str) -> Table:
    shown = posixpath.basename(name)
    keys: dict[str, None] = {}
    starts, stops, numbers = array("q"), array("q"), array("q")
    at = 0
    mapped = _ending(name)[1] is None and isinstance(place, LocalPlace)
    kept: list[bytes] = []
    with _unpacked(place, name) as file:
        for number, raw in enumerate(file, start=1):
            skip = 3 if number == 1 and raw.startswith(b"\xef\xbb\xbf") else 0
            if raw[skip:].strip():
                keys.update(dict.fromkeys(_json_object(raw[skip:].rstrip(), f"{shown} line {number}")))
                starts.append(at + skip)
                stops.append(at + len(raw))
                numbers.append(number)
            at += len(raw)
            if not mapped:
                kept.append(raw)
    places = [np.frombuffer(item, dtype=np.int64) for item in (starts, stops)]
    lines = JsonLines(place, name, None if mapped else b"".join(kept), *places)
    origins = Origins(shown, "line", np.frombuffer(numbers, dtype=np.int64))
    columns = {key: JsonColumn(lines, key) for key in keys}
    return Table(shown, columns, finder=_finder(place, name), origins=origins)


def _json_object(raw: bytes, where: str) -> dict[str, Any]:
    found = _json(raw, where)
    require(
        isinstance(found, dict), field=where, got=found, allowed='one object a line, such as {"text": "...", "label": "..."}',
        fix="write a list of objects as .json, or one object a line as .jsonl", error=DataError,
    )  # fmt: skip
    return cast(dict[str, Any], found)


def _json(raw: bytes, where: str) -> Any:
    try:
        return json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_once)
    except UnicodeDecodeError as wrong:
        raise DataError(f"{where}: not UTF-8 text (byte {wrong.start + 1}). Fix: save the file as UTF-8.") from None
    except json.JSONDecodeError as wrong:
        place = (
            f"{where}, column {wrong.colno}"
            if "line" in where
            else f"{where} line {wrong.lineno}, column {wrong.colno}"
        )
        raise DataError(f"{place}: not valid JSON ({wrong.msg}). Fix: write one JSON value there.") from None
    except RecursionError:
        raise DataError(f"{where}: JSON nested too deeply. Fix: flatten it.") from None
    except ValueError as wrong:
        raise DataError(f"{where}: {wrong}. Fix: name every key once.") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return found


def _open_json(place: Place, name: str) -> Table:
    shown = posixpath.basename(name)
    with _unpacked(place, name) as file:
        found = _json(file.read(), shown)
    if is_coco(found):
        columns, files, notes = coco_columns(found, shown)
        finder = _finder(place, name)
        if isinstance(place, LocalPlace) and files and not finder.exists(files[0]):
            columns, notes = with_folder(columns, files, place.root, shown, notes)
        return Table(shown, columns, finder=finder, origins=Origins(shown, paths=files), notes=notes)
    wanted = isinstance(found, list | dict) and bool(found)
    if isinstance(found, dict):
        wanted = wanted and all(isinstance(cells, list) for cells in found.values())
    require(
        wanted, field=shown, got=found, allowed="a list of objects, or an object of equally long lists",
        fix="write the rows that way, or one object a line as .jsonl", error=DataError,
    )  # fmt: skip
    return (
        _from_list(found, shown, _finder(place, name))
        if isinstance(found, list)
        else _from_dict(found, shown, _finder(place, name))
    )


# ---- folders -------------------------------------------------------------------------------------------------------


def _open_folder(place: Place) -> Table:
    tops = place.top()
    tables = [name for name in tops if is_table(name)] or [name for name in tops if _ending(name)[0] == ".json"]
    if tables:
        return _open_file(place, _the_one(tables, place.address))
    shown = posixpath.basename(place.address.rstrip("/\\")) or Path(place.address).resolve().name
    files = place.tree()
    annotated = voc_files(files, place)
    if annotated:
        return _voc(place, annotated, files, shown, Finder(place, made_of=annotated), "")
    return _class_folders(files, shown, place, "")


def _voc(place: Place, annotated: list[str], files: list[str], shown: str, finder: Finder, prefix: str) -> Table:
    columns, notes = voc_columns(place, annotated, files, shown, prefix)
    return Table(shown, columns, finder=finder, origins=Origins(shown, paths=annotated), notes=notes)


def _open_zip(outer: Place, name: str) -> Table:
    place = ZipPlace(outer, name)
    files = place.tree()
    annotated = voc_files(files, place)
    if annotated:
        return _voc(place, annotated, files, name, Finder(outer, made_of=[name]), f"{name}!")
    depth = _wrapping(files)
    tables = [file for file in files if is_table(file) and file.count("/") <= depth]
    if tables:
        return _open_file(place, _the_one(tables, name))
    return _class_folders(files, name, outer, f"{name}!")


def _the_one(tables: list[str], where: str) -> str:
    if len(tables) == 1:
        return tables[0]
    sides = {side: name for name in tables if (side := side_of(posixpath.basename(name).split(".")[0]))}
    fix = f"name one of them as data: {where}/{tables[0]}"
    if "train" in sides and len(sides) > 1:
        fix = "data: {" + ", ".join(f"{side}: {where}/{sides[side]}" for side in SIDES if side in sides) + "}"
    raise refusal(
        field="data",
        got=where,
        allowed=f"a folder with one table; this has {', '.join(tables[:5])}",
        fix=fix,
        error=DataError,
    )


def _wrapping(files: list[str]) -> int:
    """How many folders everything lies inside of without their telling anything apart."""
    depth = 0
    while True:
        tops = {file.split("/")[depth] for file in files if file.count("/") > depth}
        below = {file.split("/")[depth + 1] for file in files if file.count("/") > depth + 1}
        stop = any(file.count("/") <= depth and family(file) for file in files)
        if len(tops) != 1 or len(below) < 2 or stop or side_of(next(iter(tops))):
            return depth
        depth += 1


def family(name: str) -> str | None:
    """image, audio or text, by the ending of a file's name; None for others and for papers such as README.md."""
    stem, ending = posixpath.splitext(posixpath.basename(name).lower())
    if PAPERS.match(stem) and ending in TEXT_FILES:
        return None
    return next((kind for kind, endings in FAMILIES.items() if ending in endings), None)


def _class_folders(files: list[str], shown: str, place: Place, prefix: str) -> Table:
    """file, label and, for train/val/test on top, split; for text files also text, what is inside."""
    depth = _wrapping(files)
    kind, files, notes = _of_one_family(files, shown)
    finder = Finder(place, made_of=[prefix.removesuffix("!")] if prefix else files)
    parts = {file: file.split("/")[depth:] for file in files}
    flat = [file for file in files if len(parts[file]) == 1]
    if flat and len(flat) < len(files):
        raise refusal(
            field="data", got=f"{shown}/{flat[0]}", allowed="every file inside the folder of its class",
            fix=f"move it and {len(flat) - 1} others into class folders, or elsewhere", error=DataError,
        )  # fmt: skip
    split = _has_splits({part[0] for part in parts.values() if len(part) > 1}, shown)
    labels = [(part[1 if split else 0] if len(part) > 1 + split else None) for part in parts.values()]
    cells = [prefix + file for file in files]
    columns: dict[str, Column] = {"file": ListColumn(cells)}
    if kind == "text":
        columns["text"] = TextFileColumn(finder, cells)
    if any(label is not None for label in labels):
        columns["label"] = ListColumn(labels)
    if split:
        columns["split"] = ListColumn([side_of(part[0]) for part in parts.values()])
    return Table(shown, columns, finder=finder, origins=Origins(shown, paths=files), notes=notes)


def _of_one_family(files: list[str], shown: str) -> tuple[str, list[str], list[str]]:
    families = [family(file) for file in files]
    counts = Counter(kind for kind in families if kind is not None)
    if not counts:
        raise refusal(
            field="data", got=shown, allowed="a folder with one table, or with class folders of images, recordings or text files",
            fix="put the files of each class into a folder of its name, or name the table itself", error=DataError,
        )  # fmt: skip
    (kind, most), *others = counts.most_common()
    if others and others[0][1] > STRAY_SHARE * most:
        mixed = " and ".join(f"{count} {name} files" for name, count in counts.most_common())
        raise refusal(
            field="data", got=shown, allowed=f"files of one kind; this has {mixed}",
            fix="write a table with a column for each kind of file and use that as data", error=DataError,
        )  # fmt: skip
    stray = [file for file, found in zip(files, families, strict=True) if found != kind]
    notes = (
        [f"{shown}: {len(stray)} files are no {kind} files and were left out ({', '.join(stray[:3])} …)"]
        if stray
        else []
    )
    return kind, [file for file, found in zip(files, families, strict=True) if found == kind], notes


def _has_splits(tops: set[str], shown: str) -> bool:
    """Whether the top folders are train, val, test. A lone 'train' among others is a class: trains, boats, cars."""
    sides = {top for top in tops if side_of(top)}
    if not sides or (sides != tops and len(sides) == 1):
        return False
    odd = sorted(tops - sides)
    require(
        not odd, field="data", got=f"{shown}/{odd[0]}" if odd else None,
        allowed=f"only {', '.join(sorted(sides))} and other splits on top, since these are there", fix="move or rename that folder",
        error=DataError,
    )  # fmt: skip
    return True


# ---- in memory -----------------------------------------------------------------------------------------------------


def _in_memory(source: Any) -> Table:
    here = Finder(LocalPlace(Path()))
    package, kind = type(source).__module__.split(".")[0], type(source).__name__
    if package == "pandas" and kind == "DataFrame":
        names = [str(name) for name in source.columns]
        series = [source.iloc[:, index] for index in range(len(names))]
        return _columns_table(names, [_from_pandas(item) for item in series], kind, here)
    if package == "polars" and kind == "DataFrame":
        return _columns_table(source.columns, [_from_polars(item) for item in source], kind, here)
    if package == "pyarrow" and kind == "Table":
        return _columns_table(
            source.column_names, [ArrowColumn(item) for item in source.columns], "pyarrow Table", here
        )
    if package == "datasets" and kind in ("Dataset", "DatasetDict"):
        return _from_datasets(source, kind)
    if isinstance(source, Mapping):
        return _from_dict(source, "dict", here)
    if isinstance(source, Sequence) and not isinstance(source, bytes | bytearray):
        return _from_list(source, "list", here)
    fixes = {"LazyFrame": "call .collect() first", "Series": "make it a frame with named columns: .to_frame()"}
    fix = fixes.get(kind, "name the columns: {'x': array, 'y': array}")
    raise refusal(
        field="data",
        got=source,
        allowed="a path, a frame, a list of dicts or a dict of columns",
        fix=fix,
        error=DataError,
    )


def _columns_table(names: Iterable[str], columns: Sequence[Column], shown: str, finder: Finder) -> Table:
    found = distinct(list(names), shown)
    return Table(shown, dict(zip(found, columns, strict=True)), finder=finder, origins=Origins(shown))


def _from_list(rows: Sequence[Any], shown: str, finder: Finder) -> Table:
    keys: dict[str, None] = {}
    for index, row in enumerate(rows):
        require(
            isinstance(row, Mapping), field=f"{shown} row {index}", got=row, allowed="a dict of column to value",
            fix="give every row as {'column': value}", error=DataError,
        )  # fmt: skip
        keys.update(dict.fromkeys(row))
    columns = [ListColumn([row.get(key) for row in rows]) for key in keys]
    return _columns_table(map(str, keys), columns, shown, finder)


def _from_dict(columns: Mapping[Any, Any], shown: str, finder: Finder) -> Table:
    found = [_as_column(str(name), cells, shown) for name, cells in columns.items()]
    return _columns_table(map(str, columns), found, shown, finder)


def _as_column(name: str, cells: Any, shown: str) -> Column:
    package, kind = type(cells).__module__.split(".")[0], type(cells).__name__
    if package == "pandas" and hasattr(cells, "tolist"):
        return _from_pandas(cells)
    if package == "polars" and kind == "Series":
        return _from_polars(cells)
    if package == "pyarrow" and hasattr(cells, "to_pylist"):
        return ArrowColumn(cells)
    if package == "torch" and kind == "Tensor":
        cells = cells.detach().cpu().numpy()
    if isinstance(cells, np.ndarray) and cells.ndim:
        return ArrayColumn(cells)
    if isinstance(cells, Sequence) and not isinstance(cells, str | bytes | bytearray):
        return ListColumn(cells)
    raise refusal(
        field=f"{shown}[{name!r}]", got=cells, allowed="a list or an array with one value a row",
        fix="for a single row give a list of one dict: [{...}]", error=DataError,
    )  # fmt: skip


def _from_pandas(series: Any) -> Column:
    if isinstance(series.dtype, np.dtype) and series.dtype.kind in "biuf":
        return ArrayColumn(series.to_numpy())
    return ListColumn(series.tolist())


def _from_polars(series: Any) -> Column:
    return ListColumn(series.to_list()) if str(series.dtype) == "Object" else ArrowColumn(series.to_arrow())


# ---- Hugging Face data sets ------------------------------------------------------------------------------------------


def _hub(address: str) -> Table:
    """hf://name[/config][:split]: media undecoded, class numbers as their names, all splits with a column 'split'."""
    datasets = need("datasets", extra="hub", what=f"reading {address}")
    path, _, split = address.removeprefix("hf://").partition(":")
    parts = [part for part in path.split("/") if part]
    require(
        1 <= len(parts) <= 3, field="data", got=address, allowed="hf://owner/name, hf://owner/name/config, each with :split or without",
        fix="copy the name from the data set's page", error=DataError,
    )  # fmt: skip
    # 'a/b' is owner/name almost always; the oldest sets have no owner, there it is name/config
    readings = [("/".join(parts[:2]), parts[2] if len(parts) == 3 else None)]
    if len(parts) == 2:
        readings.append((parts[0], parts[1]))
    failures = []
    for name, config in readings:
        try:
            return _from_datasets(datasets.load_dataset(name, config, split=split or None), address)
        except Exception as wrong:  # the library's and the network's own errors: named, with every reading tried
            if isinstance(wrong, DataError):
                raise
            failures.append(f"{name}{f', config {config}' if config else ''}: {str(wrong).strip().splitlines()[0]}")
    raise DataError(
        f"{address} cannot be loaded ({'; '.join(failures)}). Fix: check the name, the config and the split."
    )


def _from_datasets(found: Any, shown: str) -> Table:
    parts = dict(found.items()) if hasattr(found, "items") else {"": found}
    names = list(next(iter(parts.values())).features)
    for split, part in parts.items():
        if set(part.features) != set(names):
            raise refusal(
                field="data", got=f"{shown}:{split}", allowed=f"splits with the same columns ({', '.join(names)})",
                fix=f"name one split: {shown}:{split}", error=DataError,
            )  # fmt: skip
    columns: dict[str, Column] = {
        name: ChainedColumn([_feature_column(part, name) for part in parts.values()]) for name in names
    }
    if len(parts) > 1 and all(side_of(split) for split in parts):
        columns.setdefault("split", ListColumn([split for split, part in parts.items() for _ in range(len(part))]))
    elif len(parts) > 1:
        raise refusal(
            field="data", got=shown, allowed=f"one of its splits ({', '.join(parts)}), since not all are train, val or test",
            fix=f"write {shown}:{next(iter(parts))}", error=DataError,
        )  # fmt: skip
    return Table(shown, columns, finder=Finder(LocalPlace(Path())), origins=Origins(shown))


def _feature_column(part: Any, name: str) -> Column:
    feature = part.features[name]
    kind = type(feature).__name__
    if kind in ("Image", "Audio"):
        part = part.cast_column(name, type(feature)(decode=False))  # decoding is the modality's
    arrow = part.with_format("arrow").select_columns([name])
    column = ArrowColumn(arrow[:].column(0) if arrow._indices is not None else arrow.data.column(name))
    return MappedColumn(column, feature.names) if kind == "ClassLabel" else column


__all__ = ["Table", "family", "is_table", "open_table"]
