"""The files that a data set was read from, each with its sha256: tables, the raw files they name, archives as one file.

Hashing reads every file once more, out of the file cache where it has just been decoded; what is known of a file stays known
while its size and its times do. Values in memory and files at addresses have no hash: they are counted and said. Not here:
keeping the list with a run, and comparing it later (lineage.py).
"""

import contextlib
import hashlib
import itertools
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from endwise.data.files import ADDRESS, MEMBER, Finder, locate
from endwise.data.store import HASHES, cache_root
from endwise.data.windows import Slices
from endwise.errors import EndwiseError
from endwise.files import read_json, write_json
from endwise.lineage import sha256_of
from endwise.modalities.base import Modality

if TYPE_CHECKING:
    from endwise.data.dataset import Dataset, Progress
    from endwise.data.table import Table
    from endwise.recipe import Recipe

PROBED = 8  # cells of a field that are read to see whether it opens files: any that may name one, then such as do
LONGEST_PATH = 4096
TOLD_EVERY = 1000  # files
SHOWN = 20  # addresses that are named


@dataclass(frozen=True)
class Manifest:
    """files: (absolute path, sha256), each once. bytes: of all of them. elsewhere: addresses that rows were read from.
    in_memory: whether some rows were values of the program."""

    files: tuple[tuple[str, str], ...]
    bytes: int
    elsewhere: tuple[str, ...]
    in_memory: bool

    def summary(self) -> dict[str, Any]:
        """For data.json."""
        return {
            "count": len(self.files), "bytes": self.bytes, "in_memory": self.in_memory,
            "elsewhere": len(self.elsewhere), "addresses": list(self.elsewhere[:SHOWN]),
        }  # fmt: skip


def manifest(recipe: "Recipe", dataset: "Dataset", progress: "Progress | None" = None) -> Manifest:
    """Every file behind the rows of a data set that was prepared from `recipe`. progress(what, files done, files in all).
    A file that is not there any more is left out: its row is among the bad ones."""
    found, elsewhere = dict[str, os.stat_result](), dict[str, None]()
    for path in _paths(recipe, dataset):
        if ADDRESS.match(path):
            elsewhere[path] = None
        elif path not in found and (known := _regular(path)) is not None:
            found[path] = known
    hashes = _hashed(found, dataset, progress)
    sources = [getattr(recipe.data, name) for name in ("path", "train", "val", "test")] + list(
        recipe.data.tables.values()
    )
    in_memory = any(item is not None and not isinstance(item, str | os.PathLike) for item in sources)
    return Manifest(tuple(hashes.items()), sum(found[path].st_size for path in hashes), tuple(elsewhere), in_memory)


# ---- which files -------------------------------------------------------------------------------------------------------


def _paths(recipe: "Recipe", dataset: "Dataset") -> Iterator[str]:
    """Absolute paths and addresses, some of them several times. The steps of windows are numbers, of which each stands in many
    windows: asking whether one names a file took longer than a minute of training."""
    declared = {**recipe.inputs, **recipe.outputs}
    for source in recipe.data.tables.values():
        if isinstance(source, str | os.PathLike):
            yield from _of_source(os.fspath(source))
    for name in ("path", "train", "val", "test"):
        source = getattr(recipe.data, name)
        if isinstance(source, str) and ADDRESS.match(source):
            yield source
    for table in dataset.tables:
        finder = table.finder
        for own in finder.own:
            yield from _lying(finder, own)
        for name, column in dataset.columns.items():
            if name in declared and table.has(column) and not isinstance(table.column_of(column), Slices):
                cells = table.column(column)
                if _opens(declared[name], cells, table):
                    yield from _of_cells(finder, cells)


def _of_source(source: str) -> Iterator[str]:
    """The files of a table beside the rows, which is opened and let go."""
    if source.startswith("hf://"):
        yield source
        return
    with contextlib.suppress(EndwiseError):
        place, name = locate(source)
        finder = Finder(place)
        for item in place.tree() if name is None else [name]:
            yield from _lying(finder, item)


def _opens(item: Modality, cells: Sequence[Any], table: "Table") -> bool:
    """Whether a field opens files that its cells name: some that may name one are read to see, then some that name one that is
    there. All cells are asked, so that one file among thousands of empty cells, or of values written out, is not missed."""
    opened = []

    def watched(path: str) -> bytes:
        opened.append(path)
        return bytes(table.fetch(path))

    def opens(cell: Any) -> bool:
        with contextlib.suppress(Exception):  # a broken file is refused where rows are read
            item.read(cell, watched)
        return bool(opened)

    naming = [row for row, cell in enumerate(cells) if cell is not None and any(True for _ in _named(cell))]
    if any(opens(cells[row]) for row in naming[:: max(1, len(naming) // PROBED)]):
        return True
    there = (cells[row] for row in naming if any(_beside(table.finder, path) for path in _named(cells[row])))
    return any(opens(cell) for cell in itertools.islice(there, PROBED))


def _beside(finder: Finder, path: str) -> bool:
    """Whether a text names a file, as far as that can be told in microseconds."""
    if ADDRESS.match(finder.place.address):
        return False
    return _regular(os.path.join(finder.place.address, path)) is not None  # noqa: PTH118 (for every row)


def _of_cells(finder: Finder, cells: Iterable[Any]) -> Iterator[str]:
    seen: set[str] = set()
    for cell in cells:
        for path in _named(cell):
            if path not in seen:
                seen.add(path)
                yield from _lying(finder, path)


def _named(cell: Any) -> Iterator[str]:
    """What may be a path in a raw cell: a text, those in lists and mappings, those in a list written as JSON."""
    if isinstance(cell, os.PathLike):
        cell = os.fspath(cell)
    if isinstance(cell, str):
        if cell.startswith("[") and cell.endswith("]"):
            if '"' not in cell:  # numbers: no need to read them to see that none of them is a text
                return
            with contextlib.suppress(ValueError):
                yield from _named(json.loads(cell))
                return
        if len(cell) <= LONGEST_PATH and "\n" not in cell:
            yield cell
    elif isinstance(cell, Mapping):
        if not cell.get("bytes"):
            for item in cell.values():
                yield from _named(item)
    elif isinstance(cell, list | tuple):
        for item in cell:
            yield from _named(item)


def _lying(finder: Finder, path: str) -> Iterator[str]:
    """The files behind a path in a cell, absolute; the short way for what lies beside the table."""
    inside, base = MEMBER.match(path) if "!" in path else None, finder.place.address
    if "://" in path and ADDRESS.match(path):
        yield inside["archive"] if inside else path
        return
    if ADDRESS.match(base):  # asking there whether it is there would take a call for every row
        yield f"{base.rstrip('/')}/{inside['archive'] if inside else path}"
        return
    where = os.path.join(base, path)  # noqa: PTH118 (a third of the time, for every row)
    found = (where,) if _regular(where) is not None else finder.files_of(path)
    for item in found:
        yield item if ADDRESS.match(item) else os.path.abspath(item)  # noqa: PTH100 (links stay links)


def _regular(path: str) -> os.stat_result | None:
    try:
        found = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return found if stat.S_ISREG(found.st_mode) else None


# ---- their hashes ------------------------------------------------------------------------------------------------------


def _hashed(found: Mapping[str, os.stat_result], dataset: "Dataset", progress: "Progress | None") -> dict[str, str]:
    """{path: sha256}; files with the size and the times they had are not read again."""
    bases = sorted({table.base for table in dataset.tables})
    kept = cache_root() / HASHES / f"{hashlib.sha256(json.dumps(bases).encode()).hexdigest()[:32]}.json"
    known: dict[str, list[Any]] = {}
    with contextlib.suppress(OSError, ValueError):
        found_before = read_json(kept)
        known = found_before if isinstance(found_before, dict) else {}
    hashes, entries, new = dict[str, str](), dict[str, list[Any]](), 0
    for number, (path, state) in enumerate(found.items(), 1):
        stamp = [state.st_size, state.st_mtime_ns, state.st_ctime_ns]
        old = known.get(path)
        value = old[3] if isinstance(old, list) and len(old) == 4 and old[:3] == stamp else None
        if value is None:
            if progress is not None and new % TOLD_EVERY == 0:
                progress("hashes of the files", number - 1, len(found))
            new += 1
            try:
                value = sha256_of(path)
            except OSError:
                continue
        hashes[path], entries[path] = value, [*stamp, value]
    if new:
        with contextlib.suppress(OSError, ValueError):  # a full store, a name in no alphabet: they are read again
            write_json(kept, {**known, **entries})
    return hashes


__all__ = ["Manifest", "manifest"]
