"""The prepared store: each field of the data decoded once, kept on disk, read as memory-mapped arrays.

One folder per field, named by a key over everything that decides what is in it (`dataset.py` makes the key). In it:
Arrow IPC shards (`data` large_binary, `shape`, `dtype`, `present`, `hash` of the content) and `field.json`, written
last. A folder appears under its name in one rename, so a half-written one is never read; a shard whose size is not
what `field.json` says, or that was touched and whose contents have another hash, makes the field be decoded again.
Processes share a store through file locks: one decodes, the others wait and reuse. Least recently used fields make
room when the cap is passed.

Not here: how a raw value is decoded (`read.py`, the modalities), which rows are trained on (`dataset.py`).
"""

import contextlib
import errno
import hashlib
import itertools
import json
import math
import mmap
import os
import shutil
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from endwise.data.read import HASH_BYTES, Packed, content_hash
from endwise.errors import SetupError, refusal
from endwise.files import sync_folder, write_json

if TYPE_CHECKING:
    from endwise.modalities.base import Modality

try:
    import fcntl
except ImportError:  # Windows: no locks; two builders then decode twice, and the second finds the first's folder
    fcntl = None  # type: ignore[assignment]

STORE_VERSION = 2
BATCH_BYTES = 4 << 20  # written at once, so what a writer holds in memory; a full pack is written without a copy
BATCH_ROWS = 65_536
SHARD_BYTES = 64 << 20  # a shard is closed here, or at a sixteenth of the field: few open files however large it is
SHARE_OF_FIELD = 16
RESIDENT_BYTES = 256 << 20  # mapped pages of one field that may stay in the process before they are given back
FAULT_BYTES = 2 << 20  # what the kernel may map around one touched page: a huge page of the file cache
DEFAULT_CAP_GB = 50.0
META = "field.json"
HASHES = "hashes"  # folder: what is known of the files that data sets were read from
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_ACCESS = {errno.EACCES, errno.EPERM, errno.EROFS}

_serial = itertools.count()


# ---- reading -----------------------------------------------------------------------------------------------------


class FieldStore:
    """The decoded values of one field: `store[row]` is a read-only array on the memory-mapped file, nothing copied.

    present: bool [rows], False where the cell was empty or could not be read; bad: (row, reason) of the latter.
    fingerprint: sha256 over the contents, the same wherever the files lie. Safe to read from several threads.
    The pages a process keeps mapped stay under about `resident_bytes`, however large the field is.
    """

    def __init__(self, folder: Path, meta: dict[str, Any], held: "_Lock | None", resident_bytes: int = RESIDENT_BYTES):
        self.folder = folder
        self.fingerprint: str = meta["fingerprint"]
        self.bad: tuple[tuple[int, str], ...] = tuple((int(row), str(reason)) for row, reason in meta["bad"])
        self.nbytes: int = sum(shard["bytes"] for shard in meta["shards"])
        self._held = held
        self._maps = [_mapped(folder / shard["file"]) for shard in meta["shards"]]
        batches = [batch for mapped in self._maps for batch in _batches(mapped)]
        self._data = [_bytes_of(batch) for batch in batches]
        self._starts = np.cumsum([0, *(batch.num_rows for batch in batches)])[:-1].tolist()
        self._hashes = [_fixed(batch.column("hash")) for batch in batches]
        self._index(batches, [np.dtype(name) for name in meta["dtypes"]])
        if len(self.present) != meta["rows"]:
            raise ValueError("the shards do not hold the rows that field.json says")
        self._resident_bytes, self._bounded = resident_bytes, self.nbytes > resident_bytes
        self._touched = 0

    def _index(self, batches: Sequence[Any], dtypes: list[np.dtype[Any]]) -> None:
        """Where each row is: copied out of the file once, about 25 bytes a row."""
        offsets = [
            np.frombuffer(batch.column("data").buffers()[1], np.int64)[: batch.num_rows + 1] for batch in batches
        ]
        self._begin = _joined([part[:-1] for part in offsets], np.int64)
        self._end = _joined([part[1:] for part in offsets], np.int64)
        self.present = _joined([batch.column("present").to_numpy(zero_copy_only=False) for batch in batches], np.bool_)
        codes = _joined([batch.column("dtype").to_numpy() for batch in batches], np.int8)
        ends = [
            np.diff(np.frombuffer(batch.column("shape").buffers()[1], np.int32)[: batch.num_rows + 1])
            for batch in batches
        ]
        self._ndims = _joined(ends, np.int32)
        dims = _joined([batch.column("shape").flatten().to_numpy() for batch in batches], np.int32)
        widest = int(self._ndims.max(initial=0))
        if (self._ndims == widest).all():
            self._dims = dims.reshape(-1, widest) if widest else np.zeros((len(self._ndims), 0), np.int32)
        else:
            self._dims = np.full((len(self._ndims), widest), -1, np.int32)
            self._dims[np.arange(widest) < self._ndims[:, None]] = dims
        self._dtypes, self._codes = dtypes, codes
        self._describe(self._dims[self.present], np.unique(codes[self.present]))

    def _describe(self, dims: np.ndarray, used: np.ndarray) -> None:
        """What all present values have in common. dims: the sizes of each, -1 beyond its axes."""
        kinds = [self._dtypes[code] for code in used]
        self.dtype: np.dtype[Any] = np.result_type(*kinds) if kinds else np.dtype(np.uint8)
        self.ndim: int = int(self._ndims[self.present].max(initial=0))
        self._one_dtype = kinds[0] if len(kinds) == 1 else None
        self._one_axis = bool((self._ndims[self.present] == 1).all())
        alike = self._one_dtype is not None and bool((dims == dims[0]).all())
        # the shape that every present value has, with one dtype; None when they differ
        self.common_shape: tuple[int, ...] | None = tuple(int(n) for n in dims[0] if n >= 0) if alike else None
        self._whole: list[np.ndarray] | None = None  # each batch as one array [rows, *common_shape], where it is one
        if self.common_shape is not None and self.present.all():
            shape = self.common_shape
            counts = np.diff([*self._starts, len(self.present)]).tolist()
            self._whole = [
                data.view(self.dtype).reshape(count, *shape) for data, count in zip(self._data, counts, strict=True)
            ]

    def __len__(self) -> int:
        return len(self.present)

    def __getitem__(self, row: int) -> np.ndarray:
        """The decoded value of a row; KeyError where there is none (`present` says so)."""
        row = int(row)
        batch = bisect_right(self._starts, row) - 1
        if self._bounded:
            self._count(row)
        if self._whole is not None:
            whole: np.ndarray = self._whole[batch][row - self._starts[batch], ...]
            return whole
        if not self.present.item(row):
            raise KeyError(f"row {row} has no value")
        flat = self._data[batch][self._begin.item(row) : self._end.item(row)]
        values: np.ndarray = flat.view(self._one_dtype or self._dtypes[self._codes[row]])
        if self.common_shape is None and self._one_axis:
            return values
        value: np.ndarray = values.reshape(self.common_shape if self.common_shape is not None else self.shape(row))
        return value

    def shape(self, row: int) -> tuple[int, ...]:
        """The shape of a row's decoded value, without touching it; () where there is none."""
        return tuple(self._dims[row, : self._ndims[row]].tolist())

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """The values of present rows in one new array [rows, *common_shape]; only where all shapes are alike."""
        assert self.common_shape is not None
        out = np.empty((len(rows), *self.common_shape), self.dtype)
        if self._whole is None or self._bounded:
            for index, row in enumerate(rows.tolist()):
                out[index] = self[row]
            return out
        batches = np.searchsorted(self._starts, rows, side="right") - 1
        within = rows - np.array(self._starts, np.int64)[batches]
        whole = self._whole
        for index, (batch, row) in enumerate(zip(batches.tolist(), within.tolist(), strict=True)):
            out[index] = whole[batch][row]
        return out

    def lengths(self, modality: "Modality") -> np.ndarray:
        """int64 [rows]: `modality.length` of every shape; 0 where there is no value."""
        out = np.zeros(len(self), np.int64)
        if not self.present.any():
            return out
        dims = self._dims[self.present]
        if self.common_shape is not None:
            out[self.present] = modality.length(self.common_shape)
            return out
        if dims.shape[1] == 1:
            distinct, inverse = np.unique(dims[:, 0], return_inverse=True)
            distinct = distinct[:, None]
        else:
            distinct, inverse = np.unique(dims, axis=0, return_inverse=True)
        lengths = [modality.length(tuple(n for n in shape if n >= 0)) for shape in distinct.tolist()]
        out[self.present] = np.array(lengths, np.int64)[inverse.reshape(-1)]
        return out

    @property
    def content(self) -> np.ndarray:
        """uint8 [rows, 16]: a hash of each decoded value, with its dtype and shape; zeros where there is none."""
        return _joined(self._hashes, np.uint8).reshape(len(self), HASH_BYTES)

    def is_intact(self) -> bool:
        """Whether every value still has the hash it was written with, and those their fingerprint. Reads it all."""
        for row in np.flatnonzero(self.present).tolist():
            value = self[row]
            data = value.reshape(-1).view(np.uint8)
            if content_hash(value.dtype.str, value.shape, data) != bytes(self._hash_of(row)):
                return False
        absent = self.content[~self.present]
        return not absent.any() and hashlib.sha256(self.content.tobytes()).hexdigest() == self.fingerprint

    def _hash_of(self, row: int) -> np.ndarray:
        batch = bisect_right(self._starts, row) - 1
        begin = (row - self._starts[batch]) * HASH_BYTES
        return self._hashes[batch][begin : begin + HASH_BYTES]

    def close(self) -> None:
        """Let the cleaner remove the field again. Values already handed out stay valid."""
        if self._held is not None:
            self._held.release()
            self._held = None

    def _count(self, row: int) -> None:
        """Count what is touched; past the limit, unmap all of it from this process: the kernel keeps it cached."""
        self._touched += self._end.item(row) - self._begin.item(row) + FAULT_BYTES
        if self._touched <= self._resident_bytes:
            return
        self._touched = 0
        if hasattr(mmap, "MADV_DONTNEED"):
            for mapped in self._maps:
                mapped.madvise(mmap.MADV_DONTNEED)


def _mapped(file: Path) -> mmap.mmap:
    with file.open("rb") as handle:
        return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)


def _batches(mapped: mmap.mmap) -> list[Any]:
    import pyarrow as pa

    reader = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped)))
    return [reader.get_batch(index) for index in range(reader.num_record_batches)]


def _bytes_of(batch: Any) -> np.ndarray:
    data = batch.column("data").buffers()[2]  # exactly as long as its values: what pads it is outside
    return np.frombuffer(data, np.uint8) if data is not None and data.size else np.frombuffer(b"", np.uint8)


def _fixed(column: Any) -> np.ndarray:
    return np.frombuffer(column.buffers()[1], np.uint8)[: len(column) * HASH_BYTES]


def _joined(parts: Sequence[np.ndarray], dtype: Any) -> np.ndarray:
    return np.concatenate(parts).astype(dtype, copy=False) if parts else np.zeros(0, dtype)


def _shapes(shapes: Sequence[tuple[int, ...]]) -> Any:
    """Arrow list<int32>."""
    import pyarrow as pa

    ends = np.zeros(len(shapes) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, shapes), np.int32, len(shapes)), out=ends[1:])
    dims = np.fromiter(itertools.chain.from_iterable(shapes), np.int32, int(ends[-1]))
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(dims))


# ---- opening, and decoding when it is not there --------------------------------------------------------------------


def open_field(
    key: str,
    rows: int,
    decode: Callable[[], Iterator[Packed]],
    *,
    about: str,
    still_good: Callable[[FieldStore], bool] = lambda store: True,
) -> FieldStore:
    """The stored field of this key; `decode` is run once, by one process, when it is missing, damaged or not
    `still_good`. `about` names the field to people. SetupError when the disk is full or not writable."""
    root = cache_root()
    with _disk_errors(root):
        for folder in (root, root / "tmp", root / "locks"):
            folder.mkdir(parents=True, exist_ok=True)
        for _ in range(5):  # a cleaner may remove the field between its end and its opening
            if (store := _opened(root, key, rows, still_good)) is not None:
                return store
            with _Lock(root / "locks" / f"{key}.build", shared=False):
                store = _opened(root, key, rows, still_good)  # another process may have built it while we waited
                if store is None:
                    _sweep(root, mine=key)
                    _build(root, key, rows, decode, about)
                    make_room(keep=key)
                    store = _opened(root, key, rows, lambda built: True)
                if store is not None:
                    return store
    raise SetupError(
        f"{about}: the prepared field keeps disappearing from {root}. Fix: stop the program that removes it."
    )


def _opened(root: Path, key: str, rows: int, still_good: Callable[[FieldStore], bool]) -> FieldStore | None:
    folder = root / key
    if not (folder / META).is_file():
        return None
    held = _Lock(root / "locks" / f"{key}.use", shared=True)
    store = None
    try:
        meta, touched = _meta(folder, rows)
        store = FieldStore(folder, meta, held)
        if touched and not store.is_intact():
            store = None
    except (OSError, ValueError, KeyError, TypeError, IndexError):  # pyarrow's ArrowInvalid is a ValueError
        store = None
    if store is None or not still_good(store):
        held.release()
        return None
    os.utime(root / "locks" / f"{key}.use")  # when it was last used
    return store


def _meta(folder: Path, rows: int) -> tuple[dict[str, Any], bool]:
    """What field.json says, and whether a shard was touched since it was written; ValueError when it is another's."""
    meta: dict[str, Any] = json.loads((folder / META).read_text(encoding="utf-8"))
    stats = [(folder / shard["file"]).stat() for shard in meta["shards"]]
    sizes = [stat.st_size for stat in stats]
    if meta["version"] != STORE_VERSION or meta["rows"] != rows or sizes != [part["bytes"] for part in meta["shards"]]:
        raise ValueError("not the field that was asked for, or cut short")
    touched = any(stat.st_mtime_ns != part["mtime_ns"] for stat, part in zip(stats, meta["shards"], strict=True))
    return meta, touched


# ---- writing -----------------------------------------------------------------------------------------------------


def _build(root: Path, key: str, rows: int, decode: Callable[[], Iterator[Packed]], about: str) -> None:
    work = root / "tmp" / f"{key}.{os.getpid()}.{next(_serial)}"
    work.mkdir()
    writer = _Writer(work, cap_bytes(), about)
    try:
        for packed in decode():
            writer.add(packed)
        writer.finish(rows, about)
        if (root / key).exists():  # damaged or stale: out of the way, and away with the leftovers
            (root / key).rename(work.with_name(work.name + ".old"))
        work.rename(root / key)
        sync_folder(root)
    finally:
        writer.abandon()
        for leftover in (work, work.with_name(work.name + ".old")):
            shutil.rmtree(leftover, ignore_errors=True)


class _Writer:
    """Writes packed rows as shards; holds at most one record batch."""

    def __init__(self, folder: Path, cap: float, about: str):
        self.folder, self.cap, self.about = folder, cap, about
        self.shards: list[dict[str, Any]] = []
        self.dtypes: list[str] = []
        self.bad: list[tuple[int, str]] = []
        self.rows = self.written = self._held = 0
        self._pending: list[Packed] = []
        self._hash = hashlib.sha256()
        self._file: IO[bytes] | None = None
        self._arrow: Any = None

    def add(self, packed: Packed) -> None:
        self.bad += [(self.rows + index, reason) for index, reason in packed.bad]
        self.rows += len(packed.sizes)
        self._hash.update(packed.hashes)
        size = sum(packed.sizes)
        if self._pending and self._held + size > BATCH_BYTES:  # alone, the new pack need not be copied
            self._flush()
        self._pending.append(packed)
        self._held += size
        if self._held >= BATCH_BYTES or sum(len(part.sizes) for part in self._pending) >= BATCH_ROWS:
            self._flush()

    def finish(self, rows: int, about: str) -> None:
        """Write what is pending and field.json."""
        if self._pending:
            self._flush()
        self._close_shard()
        assert self.rows == rows, (self.rows, rows)
        meta = {
            "version": STORE_VERSION, "about": about, "rows": rows, "dtypes": self.dtypes,
            "fingerprint": self._hash.hexdigest(), "bad": self.bad, "shards": self.shards,
        }  # fmt: skip
        write_json(self.folder / META, meta)

    def abandon(self) -> None:
        """Let go of a shard that was not finished."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # what is still buffered may not fit the disk
                self._file.close()
            self._file = self._arrow = None

    def _flush(self) -> None:
        parts, self._pending, self._held = self._pending, [], 0
        if self._arrow is None:
            self._open_shard()
        self._arrow.write_batch(self._record_batch(parts))
        assert self._file is not None
        here = self._file.tell()
        if self.written + here > self.cap:
            raise refusal(
                field="ENDWISE_CACHE_GB", got=round(self.cap / 1e9, 3), error=SetupError,
                allowed=f"more than the {(self.written + here) / 1e9:.2f} GB that {self.about} has needed so far",
                fix="set ENDWISE_CACHE_GB to a larger number, or give fewer rows",
            )  # fmt: skip
        if here >= max(SHARD_BYTES, self.written // SHARE_OF_FIELD):
            self._close_shard()

    def _record_batch(self, parts: list[Packed]) -> Any:
        import pyarrow as pa

        sizes = np.array([size for part in parts for size in part.sizes], np.int64)
        offsets = np.zeros(len(sizes) + 1, np.int64)
        np.cumsum(sizes, out=offsets[1:])
        buffers = [buffer for part in parts for buffer in part.data]
        data = buffers[0] if len(buffers) == 1 else b"".join(buffers)
        names = [name for part in parts for name in part.dtypes]
        self.dtypes += [name for name in dict.fromkeys(names) if name and name not in self.dtypes]
        code_of = {"": -1, **{name: code for code, name in enumerate(self.dtypes)}}
        codes = np.array([code_of[name] for name in names], np.int8)
        hashes = b"".join(part.hashes for part in parts)
        columns = {
            "data": pa.LargeBinaryArray.from_buffers(
                pa.large_binary(), len(sizes), [None, pa.py_buffer(offsets), pa.py_buffer(data)]
            ),
            "shape": _shapes([shape for part in parts for shape in part.shapes]),
            "dtype": pa.array(codes),
            "present": pa.array(codes >= 0),
            "hash": pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(HASH_BYTES), len(sizes), [None, pa.py_buffer(hashes)]
            ),
        }
        return pa.record_batch(list(columns.values()), names=list(columns))

    def _open_shard(self) -> None:
        import pyarrow as pa

        schema = pa.schema(
            [
                ("data", pa.large_binary()),
                ("shape", pa.list_(pa.int32())),
                ("dtype", pa.int8()),
                ("present", pa.bool_()),
                ("hash", pa.binary(HASH_BYTES)),
            ]
        )
        self._file = (self.folder / f"shard-{len(self.shards):05d}.arrow").open("wb")
        self._arrow = pa.ipc.new_file(self._file, schema)

    def _close_shard(self) -> None:
        if self._arrow is None or self._file is None:
            return
        self._arrow.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        file = Path(self._file.name)
        stat = file.stat()
        self.shards.append({"file": file.name, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns})
        self.written += stat.st_size
        self._file = self._arrow = None


@contextlib.contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    """A full or closed disk, in the user's words."""
    try:
        yield
    except OSError as wrong:
        if wrong.errno in NO_ROOM:
            raise SetupError(
                f"the disk of the prepared store ({root}) is full: {wrong.strerror}. "
                "Fix: free some space, run 'endwise clean', or set ENDWISE_CACHE to a folder on a larger disk."
            ) from wrong
        if wrong.errno in NO_ACCESS or isinstance(wrong, FileExistsError | NotADirectoryError):
            raise SetupError(
                f"the prepared store cannot be written in {root}: {wrong.strerror}. "
                "Fix: set ENDWISE_CACHE to a folder that you may write to."
            ) from wrong
        raise


# ---- the place, its cap, and cleaning ------------------------------------------------------------------------------


def cache_root() -> Path:
    """The folder of all prepared fields: ENDWISE_CACHE, or the platform's cache folder."""
    if given := os.environ.get("ENDWISE_CACHE"):
        return Path(given).expanduser().absolute() / "store"
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "endwise" / "store"


def cap_bytes() -> float:
    """How much the store may hold: ENDWISE_CACHE_GB (10^9 bytes), 50 unless said."""
    given = os.environ.get("ENDWISE_CACHE_GB")
    try:
        cap = float(given) if given else DEFAULT_CAP_GB
    except ValueError:
        cap = math.nan
    if not cap > 0:
        raise refusal(
            field="ENDWISE_CACHE_GB", got=given, allowed="a number of gigabytes above 0",
            fix="unset it for the default of 50", error=SetupError,
        )  # fmt: skip
    return cap * 1e9


@dataclass(frozen=True, slots=True)
class Entry:
    """One prepared field in the store."""

    key: str
    about: str  # the field and the source it was read from
    rows: int
    bytes: int
    last_used: float  # seconds since 1970
    in_use: bool


@dataclass(frozen=True, slots=True)
class Usage:
    """What the store holds, the least recently used first."""

    root: Path
    bytes: int
    cap_bytes: float
    entries: tuple[Entry, ...]

    def to_dict(self) -> dict[str, Any]:
        """{"root", "bytes", "cap_bytes", "entries": [{"key", "about", "rows", "bytes", "last_used", "in_use"}]}"""
        entries = [{name: getattr(entry, name) for name in Entry.__slots__} for entry in self.entries]
        return {"root": str(self.root), "bytes": self.bytes, "cap_bytes": self.cap_bytes, "entries": entries}


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What `clean` removed, and what it left because a process is using it."""

    removed: int
    freed_bytes: int
    in_use: int

    def to_dict(self) -> dict[str, int]:
        """{"removed", "freed_bytes", "in_use"}"""
        return {"removed": self.removed, "freed_bytes": self.freed_bytes, "in_use": self.in_use}


def usage() -> Usage:
    """What the store holds now."""
    root = cache_root()
    entries = sorted((_entry(root, folder) for folder in _fields(root)), key=lambda entry: (entry.last_used, entry.key))
    return Usage(root, sum(entry.bytes for entry in entries), cap_bytes(), tuple(entries))


def clean(*, keep_bytes: float = 0.0, unused_days: float | None = None) -> Cleaned:
    """Remove prepared fields, the least recently used first, until at most `keep_bytes` are left; with `unused_days`
    only those not used for that long. Fields in use are never removed. Everything is decoded again when needed."""
    root = cache_root()
    if not root.is_dir():
        return Cleaned(0, 0, 0)
    with _disk_errors(root):
        _sweep(root)
        before = time.time() - unused_days * 86_400 if unused_days is not None else math.inf
        if keep_bytes == 0:
            _forget(root, before)
        found = [entry for entry in usage().entries if entry.last_used < before]
        return _remove(root, found, usage().bytes - keep_bytes)


def make_room(keep: str | None = None) -> Cleaned:
    """Bring the store under its cap; `keep` is the key of a field that stays whatever happens."""
    root, cap = cache_root(), cap_bytes()
    sizes = {folder.name: _size(folder) for folder in _fields(root)}
    if (excess := sum(sizes.values()) - cap) <= 0:
        return Cleaned(0, 0, 0)
    return _remove(root, [entry for entry in usage().entries if entry.key != keep], excess)


def _remove(root: Path, entries: Iterable[Entry], excess: float) -> Cleaned:
    removed = freed = busy = 0
    for entry in entries:
        if freed >= excess:
            break
        paths = [root / "locks" / f"{entry.key}.{kind}" for kind in ("build", "use")]
        with contextlib.ExitStack() as stack:
            try:
                for path in paths:
                    stack.enter_context(_Lock(path, shared=False, wait=False))
            except BlockingIOError:
                busy += 1
                continue
            away = root / "tmp" / f"{entry.key}.{os.getpid()}.{next(_serial)}.old"
            (root / entry.key).rename(away)
            shutil.rmtree(away, ignore_errors=True)
            for path in paths:
                path.unlink(missing_ok=True)
        removed, freed = removed + 1, freed + entry.bytes
    return Cleaned(removed, freed, busy)


def _forget(root: Path, before: float) -> None:
    """What is known of the hashes of files (manifest.py)."""
    for path in (root / HASHES).glob("*.json"):
        if path.stat().st_mtime < before:
            path.unlink(missing_ok=True)


def _fields(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if (path / META).is_file()] if root.is_dir() else []


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _entry(root: Path, folder: Path) -> Entry:
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        about, rows = str(meta["about"]), int(meta["rows"])
    except (OSError, ValueError, KeyError, TypeError):
        about, rows = "damaged", 0
    lock = root / "locks" / f"{folder.name}.use"
    try:
        last_used = lock.stat().st_mtime
    except FileNotFoundError:
        last_used = folder.stat().st_mtime
    return Entry(folder.name, about, rows, _size(folder), last_used, _busy(lock))


def _busy(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        _Lock(path, shared=False, wait=False).release()
    except BlockingIOError:
        return True
    return False


def _sweep(root: Path, mine: str = "") -> None:
    """Remove what an interrupted decoding left: unfinished folders whose builder is gone. `mine`: a key whose build
    lock this process holds."""
    for path in (root / "tmp").iterdir() if (root / "tmp").is_dir() else ():
        key = path.name.split(".")[0]
        try:
            held = None if key == mine else _Lock(root / "locks" / f"{key}.build", shared=False, wait=False)
        except BlockingIOError:
            continue
        shutil.rmtree(path, ignore_errors=True)
        if held is not None:
            held.release()


class _Lock:
    """An advisory lock on a file, shared or exclusive, held until `release`; BlockingIOError when `wait` is False and
    another holds it. The file may be removed by a cleaner that holds it exclusively: then a new one is locked."""

    _handle: int | None = None

    def __init__(self, path: Path, *, shared: bool, wait: bool = True):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._owner = os.getpid()
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
            try:
                self._take(handle, shared, wait)
                same = path.exists() and os.path.samestat(os.fstat(handle), path.stat())
            except BaseException:
                os.close(handle)
                raise
            if same:
                self._handle = handle
                return
            os.close(handle)

    @staticmethod
    def _take(handle: int, shared: bool, wait: bool) -> None:
        if fcntl is None:
            return
        mode = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
        try:
            fcntl.flock(handle, mode)
        except BlockingIOError:
            raise
        except OSError as wrong:
            if wrong.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise  # a network folder without locks: as on Windows

    def release(self) -> None:
        """Let go; in a forked child only its copy of the handle, so that the parent keeps the lock."""
        if self._handle is None:
            return
        if fcntl is not None and self._owner == os.getpid():
            with contextlib.suppress(OSError):
                fcntl.flock(self._handle, fcntl.LOCK_UN)  # a child that still holds a copy must not keep it locked
        os.close(self._handle)
        self._handle = None

    def __enter__(self) -> "_Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()
