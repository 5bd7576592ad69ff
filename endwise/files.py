"""Small files that are complete or not there at all, and JSON that is read with suspicion.

Everything a run or a model folder holds beside its tensors goes through here. Not here: what the values mean.
"""

import contextlib
import io
import json
import math
import os
import stat
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

MAX_JSON_BYTES = 256_000_000  # a vocabulary may be long; a page of brackets may not fill the memory
MAX_JSON_DEPTH = 64
MAGIC = {  # what a file really is when it is not what its name says
    b"\x80\x02": "a Python pickle",
    b"\x80\x03": "a Python pickle",
    b"\x80\x04": "a Python pickle",
    b"\x80\x05": "a Python pickle",
    b"PK\x03\x04": "a zip archive (a torch.save file is one)",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x93NUMPY": "a numpy array file",
    b"\x1f\x8b": "a gzip archive",
    b"\x89HDF": "an HDF5 file",
}


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` for writing so that it appears, complete and on disk, by one rename, or stays as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def folder_bytes(folder: Path) -> bytes:
    """The files of a folder as an archive that is not compressed, in the order of their names: a value that is a folder
    (the slices of a scan) is read as one file is. Hidden ones are left out."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for file in folder_files(folder):
            archive.writestr(zipfile.ZipInfo(file.name), file.read_bytes())
    return out.getvalue()


def folder_files(folder: Path) -> list[Path]:
    """The files right in a folder that is a value, in the order of their names, without hidden ones."""
    return [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one step."""
    with atomic(path) as file:
        file.write(text.encode("utf-8"))


def write_json(path: Path, values: Any) -> None:
    """Replace a JSON file in one step. NaN and infinity are no JSON and raise ValueError."""
    write_text(path, json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def plain(values: Any, *, infinite: bool = False) -> Any:
    """Values as JSON knows them: numpy scalars and arrays as numbers and lists, tuples as lists, NaN and infinity as
    null (a metric that these rows do not define). infinite: infinity stays what it is."""
    if isinstance(values, Mapping):
        return {str(name): plain(item, infinite=infinite) for name, item in values.items()}
    if isinstance(values, list | tuple):
        return [plain(item, infinite=infinite) for item in values]
    if hasattr(values, "to_json"):  # a Recording
        return values.to_json()
    if hasattr(values, "tolist"):  # numpy, without importing it here
        return plain(values.tolist(), infinite=infinite)
    if isinstance(values, float) and not math.isfinite(values):
        return values if infinite and math.isinf(values) else None
    if values is None or isinstance(values, str | int | float | bool):
        return values
    return str(values)


def read_json(path: Path, *, limit: int = MAX_JSON_BYTES) -> Any:
    """Read a JSON file; OSError or ValueError with the reason for anything else: a link, a pipe, another format,
    too long, too deep, a name given twice, NaN."""
    return parse_json(regular_bytes(path, limit=limit))


def parse_json(data: bytes) -> Any:
    """Strict JSON from bytes; ValueError with the reason."""
    named = kind_of(data)
    if named:
        raise ValueError(f"it is {named}, not JSON")
    try:
        values = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MAX_JSON_DEPTH} levels") from None
    except json.JSONDecodeError as wrong:
        raise ValueError(f"it is not JSON (line {wrong.lineno}, column {wrong.colno}: {wrong.msg})") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    _check_depth(values)
    return values


def regular_bytes(path: Path, *, limit: int) -> bytes:
    """The bytes of a plain file of at most `limit` bytes; OSError or ValueError otherwise."""
    check_regular(path)
    size = path.stat().st_size
    if size > limit:
        raise ValueError(f"it has {size} bytes, more than the {limit} allowed")
    return path.read_bytes()


def check_regular(path: Path) -> None:
    """Refuse (ValueError) a link, a pipe, a device or a folder: opening one may hang or read something else."""
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        raise ValueError("it is a symbolic link, which may point anywhere; copy the file itself")
    if not stat.S_ISREG(mode):
        raise ValueError("it is not a plain file")


def kind_of(start: bytes) -> str | None:
    """What the first bytes of a file say it is, when that is something we never read; else None."""
    return next((name for magic, name in MAGIC.items() if start.startswith(magic)), None)


def sync_folder(folder: Path) -> None:
    """A rename is on disk only when its folder is (POSIX; elsewhere folders cannot be opened)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"the name {twice[:60]!r} is given twice")
    return values


def _no_constant(name: str) -> Any:
    raise ValueError(f"it holds {name}, which is no JSON")


def _check_depth(values: Any) -> None:
    level, depth = [values], 0
    while level:
        depth += 1
        if depth > MAX_JSON_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_JSON_DEPTH} levels")
        level = [
            inner
            for item in level
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
