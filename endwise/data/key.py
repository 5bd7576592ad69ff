"""What decides the decoded values of a column, as one hash: the key under which they are stored.

In it: the format of the store, the declaration's fields that change reading, the code that reads, and the column
itself: every cell, and for a cell that names a file its size and time of change. A file at an address is taken to be
what it was: addresses are in the key, their contents are not.
"""

import hashlib
import json
import os
import stat
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import endwise
from endwise.data.store import STORE_VERSION
from endwise.modalities.base import Modality

if TYPE_CHECKING:
    from hashlib import _Hash

NOT_READING = {
    "column",
    "optional",
    "loss_weight",
    "abstain",
}  # fields of every declaration that reading does not look at
PLAIN = {str, int, float, bool, type(None)}
CHUNK = 4096
LONGEST_PATH = 4096
SEEN = 10_000  # names of files remembered at once
TORCH_SIDE = "network.py"  # beside a modality's main file: nothing in it reads


def field_key(modality: Modality, columns: Iterable[tuple[Sequence[Any], str]]) -> str:
    """The key (64 hex digits) of a field read by `modality` from columns given as (cells, folder of the table)."""
    found = hashlib.sha256(f"endwise store {STORE_VERSION} {endwise.__version__} {modality.type}\n".encode())
    found.update(json.dumps(reading_fields(modality), sort_keys=True, default=str).encode())
    found.update(_reader(type(modality)))
    for cells, base in columns:
        found.update(f"\ntable {len(cells)}\n".encode())
        files = _Files(base)
        for start in range(0, len(cells), CHUNK):
            chunk = list(cells[start : start + CHUNK])
            _add_cells(found, chunk)
            files.look_at(chunk)
        found.update(files.digest())
    return found.hexdigest()


def reading_fields(modality: Modality) -> dict[str, Any]:
    """The fields of a declaration that change what `read` gives: its `read_fields`, or all that are not common."""
    names = modality.read_fields
    if names is None:
        names = tuple(name for name in type(modality).__dataclass_fields__ if name not in NOT_READING)
    return {name: getattr(modality, name) for name in names}


# ---- the cells -----------------------------------------------------------------------------------------------------


def _add_cells(found: "_Hash", cells: Sequence[Any]) -> None:
    if set(map(type, cells)) <= PLAIN:
        found.update(json.dumps(cells).encode())
    else:
        for cell in cells:
            _add_value(found, cell)


def _add_value(found: "_Hash", value: Any) -> None:
    if isinstance(value, bytes | bytearray | memoryview):
        found.update(f"bytes {len(value)}:".encode())
        found.update(value)
    elif (
        isinstance(value, np.ndarray | np.generic)
        or hasattr(value, "__array__")
        or hasattr(value, "__array_interface__")
    ):
        array = np.asarray(value)
        found.update(f"array {array.dtype.str} {array.shape}:".encode())
        found.update(json.dumps(array.tolist(), default=str).encode() if array.dtype.hasobject else array.tobytes())
    elif isinstance(value, Mapping):
        found.update(f"map {len(value)}:".encode())
        for name, item in value.items():
            _add_value(found, name)
            _add_value(found, item)
    elif isinstance(value, list | tuple):
        found.update(f"{type(value).__name__} {len(value)}:".encode())
        _add_cells(found, value)
    elif type(value) in PLAIN:
        found.update(json.dumps(value).encode())
    else:  # dates, decimals, paths ... whose text says it all
        text = repr(value)
        if " at 0x" in text:  # text that says nothing: never taken for the same
            found.update(os.urandom(16))
        found.update(f"{type(value).__qualname__} {text}".encode())


# ---- the files that cells name ---------------------------------------------------------------------------------------


class _Files:
    """Size and time of change of every file named in a cell, and of the archives that other names may be in."""

    def __init__(self, base: str) -> None:
        self.base = base
        self._hash = hashlib.sha256()
        self._loose = self._found = False
        self._seen: dict[str, str | None] = {}  # archives and class names come again and again

    def look_at(self, cells: Sequence[Any]) -> None:
        stamps = [self._stamp(path) for cell in cells if (path := _path(cell)) is not None]
        self._loose = self._loose or None in stamps
        self._found = self._found or any(stamps)
        self._hash.update(json.dumps(stamps).encode())

    def digest(self) -> bytes:
        if self._found:
            self._hash.update(os.path.abspath(self.base).encode())  # noqa: PTH100
        if self.base.endswith("!"):  # the inside of an archive
            self._hash.update(str(_stamp("", self.base[:-1])).encode())
        elif self._loose and Path(self.base).is_dir():
            beside = sorted(path.name for path in Path(self.base).iterdir() if path.suffix.lower() == ".zip")
            self._hash.update(json.dumps([(name, _stamp(self.base, name)) for name in beside]).encode())
        return self._hash.digest()

    def _stamp(self, path: str) -> str | None:
        name = path.partition("!")[0]  # of the inside of an archive, the archive
        if name not in self._seen:
            if len(self._seen) >= SEEN:
                self._seen.clear()
            self._seen[name] = _stamp(self.base, name)
        return self._seen[name]


def _path(cell: Any) -> str | None:
    if isinstance(cell, Mapping) and not cell.get("bytes"):
        cell = cell.get("path")
    if isinstance(cell, os.PathLike):
        cell = os.fspath(cell)
    if not isinstance(cell, str) or len(cell) > LONGEST_PATH or "://" in cell or "\n" in cell:
        return None
    return cell


def _stamp(base: str, path: str) -> str | None:
    where = os.path.join(base, path)  # noqa: PTH118 (a third of the time, for every row)
    try:
        found = os.stat(where)  # noqa: PTH116
        if path and stat.S_ISDIR(found.st_mode):
            inside = sorted(item.name for item in os.scandir(where) if item.is_file())
            return json.dumps([(name, _stamp(where, name)) for name in inside])
    except (OSError, ValueError):
        return None
    return f"{found.st_size} {found.st_mtime_ns}"


# ---- the code that reads ---------------------------------------------------------------------------------------------


def _reader(cls: type[Modality]) -> bytes:
    """A hash of the source a class reads with, so that a changed `read` never finds values of the old one: the files
    of its module, or the compiled functions of a class that was typed in."""
    found = hashlib.sha256()
    for part in cls.__mro__:
        if part is Modality:
            break
        found.update(part.__qualname__.encode())
        file = getattr(sys.modules.get(part.__module__), "__file__", None)
        if file is not None and Path(file).is_file():
            main = Path(file)
            beside = sorted(main.parent.glob("*.py")) if main.name == "__init__.py" else [main]
            for source in beside:
                if source.name != TORCH_SIDE:
                    found.update(source.read_bytes())
        else:
            for name, item in vars(part).items():
                if isinstance(item, types.FunctionType):
                    _add_function(found.update, item, set())
                elif isinstance(item, str | int | float | tuple) and not name.startswith("__"):
                    found.update(f"{name}={item!r}".encode())
    return found.digest()


def _add_function(add: Callable[[bytes], None], function: types.FunctionType, seen: set[types.CodeType]) -> None:
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        if code in seen:
            continue
        seen.add(code)
        plain = [
            sorted(map(repr, item)) if isinstance(item, frozenset) else repr(item)  # sets have no order of their own
            for item in code.co_consts
            if not isinstance(item, types.CodeType)
        ]
        add(code.co_code + repr((code.co_names, plain)).encode())
        codes += [item for item in code.co_consts if isinstance(item, types.CodeType)]
        for name in code.co_names:
            used = function.__globals__.get(name)
            if isinstance(used, types.FunctionType) and used.__module__ == function.__module__:
                _add_function(add, used, seen)
