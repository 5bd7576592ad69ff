"""Decoding a column in parallel: raw cells in, packed decoded rows out, in the order of the rows.

What comes out never depends on how many workers there were. Threads by default: the decoders of real files release
the interpreter while they work. Many small values that carry their own bytes (thumbnails in a Parquet column) do not,
so there, on Linux, forked processes share the work (measured on 32x32 JPEG, two cores: 1.9 times the rows a second).

Not here: where the cells come from (`table.py`), where the rows are kept (`store.py`).
"""

import functools
import json
import os
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import xxhash

from endwise.errors import DataError, EndwiseError, SetupError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from endwise.modalities.base import Fetch

PACK_BYTES = 4 << 20  # decoded bytes handed over at once; the store writes a full pack as it is
CHUNK_BYTES = 4 << 20  # what one task of a worker should come to
MAX_CHUNK = 1024
SMALL_BYTES = 4096  # a copy of fewer costs less than a view of them
SAMPLE_ROWS = 32
WORTH_PROCESSES_S = 2.0  # below this, starting processes costs more than it saves
WORTH_THREADS_S = 50e-6  # a row; below this, threads spend their time waiting for each other's interpreter lock
MAX_WORKERS = 16
HASH_BYTES = 16
NO_HASH = bytes(HASH_BYTES)


class Reads(Protocol):
    """What decodes cells: a modality, or what stands for one."""

    def read(self, raw: Any, fetch: "Fetch") -> np.ndarray:
        """One decoded value. BadValue with the reason where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Packed:
    """Some decoded rows: their bytes one after another, and for each row how many are its own and what they are."""

    data: list[Any]  # buffers of bytes, to be joined; one unless a value was larger than the pack
    sizes: list[int]  # 0 for an absent row
    shapes: list[tuple[int, ...]]
    dtypes: list[str]  # numpy's name; '' for an absent row
    hashes: bytes  # 16 a row: `content_hash` of the value; zeros for an absent row
    bad: list[tuple[int, str]]  # (index within these rows, why it could not be read)


@dataclass(frozen=True, slots=True)
class Cells:
    """The raw cells of one column of one table, None where missing, and how a file named in one is fetched."""

    values: Sequence[Any]
    fetch: "Fetch"


def num_workers(wanted: int | None) -> int:
    """Workers to use: what was asked for, else one per usable core."""
    if wanted is not None:
        return max(1, wanted)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_WORKERS)


def read_column(
    modality: "Reads", tables: Sequence[Cells], *, workers: int, progress: Callable[[int], None] | None = None
) -> Iterator[Packed]:
    """Every cell of the tables, one after another, decoded by `modality.read`. `progress(rows so far)`.

    A cell that cannot be read is an absent row with its reason in `bad`. Errors of the recipe or the machine are
    raised. Memory in use is a few packs per worker, whatever the size of the column.
    """
    done = 0
    for cells in tables:
        for packed in _read_table(modality, cells, workers):
            done += len(packed.sizes)
            yield packed
            if progress is not None:
                progress(done)


def read_one(modality: "Reads", cell: Any, fetch: "Fetch") -> np.ndarray | str:
    """The decoded value of a cell that is not missing, or the reason why it cannot be read."""
    try:
        value = modality.read(cell, fetch)
    except DataError as wrong:
        return str(wrong)
    except (EndwiseError, MemoryError):
        raise
    except FileNotFoundError as wrong:
        return f"there is no such file: {wrong.filename or wrong}"
    except Exception as wrong:  # a decoder that chokes on a broken file: counted and named, never fatal
        return f"{type(wrong).__name__}: {wrong}"
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if not isinstance(value, np.ndarray) or value.dtype.hasobject:
        kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise TypeError(f"{type(modality).__name__}.read must return a plain numpy array, got {kind}")
    return value


def decode(modality: "Reads", cells: Sequence[Any], fetch: "Fetch") -> Packed:
    """Decode cells from the first on, until all are done or the pack is full (then it holds fewer rows than cells).

    Each value is copied to its place and hashed at once, while it is in the processor's cache; the decoder's own array
    is then free for the next one.
    """
    packed = Packed([], [], [], [], b"", [])
    hashes: list[bytes] = []
    room, held, total = memoryview(bytearray()), 0, 0
    for index, cell in enumerate(cells):
        value = read_one(modality, cell, fetch) if cell is not None else ""
        if isinstance(value, str):
            if cell is not None:
                packed.bad.append((index, value))
            _append(packed, 0, (), "")
            hashes.append(NO_HASH)
            continue
        if value.dtype.byteorder == ">":
            value = value.astype(value.dtype.newbyteorder("<"))
        name, shape, size = value.dtype.str, value.shape, value.nbytes
        if held + size > len(room):
            if held:
                packed.data.append(room[:held])
            # as if the rest were as large as this one: what is not filled is never touched
            rest = min(PACK_BYTES // max(size, 1) + 1, len(cells) - index)
            room, held = np.empty(size * rest, np.uint8).data, 0
        stop = held + size
        data: Any = value.tobytes() if size < SMALL_BYTES else np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        room[held:stop] = data
        hashes.append(content_hash(name, shape, data))
        held = stop
        total += size
        _append(packed, size, shape, name)
        if total >= PACK_BYTES:
            break
    if held:
        packed.data.append(room[:held])
    return Packed(packed.data, packed.sizes, packed.shapes, packed.dtypes, b"".join(hashes), packed.bad)


def content_hash(dtype: str, shape: tuple[int, ...], data: Any) -> bytes:
    """16 bytes that stand for a decoded value: what it is, and its bytes (XXH3, 128 bits).

    Tells copies, keys of splits and damage on the disk: two different values among a billion share one with a
    probability of 1e-21. It is no guard against somebody who wants two values to share one.
    """
    return xxhash.xxh3_128_digest(data, _kind(dtype, shape))


@functools.lru_cache(maxsize=4096)
def _kind(dtype: str, shape: tuple[int, ...]) -> int:
    return xxhash.xxh3_64_intdigest(f"{dtype}{list(shape)}".encode())


def _append(packed: Packed, size: int, shape: tuple[int, ...], name: str) -> None:
    packed.sizes.append(size)
    packed.shapes.append(shape)
    packed.dtypes.append(name)


def _read_table(modality: "Reads", cells: Cells, workers: int) -> Iterator[Packed]:
    values, fetch = cells.values, cells.fetch
    began = time.perf_counter()
    first = decode(modality, values[:SAMPLE_ROWS], fetch) if len(values) else None
    if first is None:
        return
    yield first
    start = len(first.sizes)
    left = len(values) - start
    each = (time.perf_counter() - began) / start
    chunk = int(min(MAX_CHUNK, max(1, CHUNK_BYTES // (1 + sum(first.sizes) // start))))
    if workers == 1 or left == 0:
        yield from _inline(modality, values, fetch, start, len(values))
    elif _own_bytes(values[:SAMPLE_ROWS]) and each * left > WORTH_PROCESSES_S and sys.platform == "linux":
        yield from _in_processes(modality, values, fetch, start, chunk, workers)
    elif _own_bytes(values[:SAMPLE_ROWS]) and each < WORTH_THREADS_S:
        yield from _inline(modality, values, fetch, start, len(values))
    else:
        yield from _in_threads(modality, values, fetch, start, chunk, workers)


def _inline(modality: "Reads", values: Sequence[Any], fetch: "Fetch", start: int, stop: int) -> Iterator[Packed]:
    while start < stop:
        packed = decode(modality, values[start : min(stop, start + MAX_CHUNK)], fetch)
        start += len(packed.sizes)
        yield packed


def _in_threads(
    modality: "Reads", values: Sequence[Any], fetch: "Fetch", start: int, chunk: int, workers: int
) -> Iterator[Packed]:
    waiting: deque[tuple[int, int, Future[Packed]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="endwise-read")
    try:
        while start < len(values) or waiting:
            while start < len(values) and len(waiting) < 2 * workers:
                stop = min(len(values), start + chunk)
                waiting.append((start, stop, pool.submit(decode, modality, values[start:stop], fetch)))
                start = stop
            begin, stop, future = waiting.popleft()
            packed = future.result()
            yield packed
            if begin + len(packed.sizes) < stop:  # larger values than the first rows promised
                yield from _inline(modality, values, fetch, begin + len(packed.sizes), stop)
                chunk = max(1, chunk // 2)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


# ---- processes -----------------------------------------------------------------------------------------------------


def _own_bytes(values: Sequence[Any]) -> bool:
    """Whether the cells carry their bytes: a fork must not share an open archive with its parent."""
    return all(
        cell is None or isinstance(cell, bytes) or (isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes))
        for cell in values
    )


def _in_processes(
    modality: "Reads", values: Sequence[Any], fetch: "Fetch", start: int, chunk: int, workers: int
) -> Iterator[Packed]:
    """Worker k takes chunks k, k + workers, ...; the pipes hold them back when the parent is behind. A fork inherits
    cells and classes as they are, so nothing has to be sent or importable."""
    import multiprocessing

    context = multiprocessing.get_context("fork")
    chunks = [(begin, min(len(values), begin + chunk)) for begin in range(start, len(values), chunk)]
    running: list[tuple[Any, Any]] = []
    try:
        for index in range(workers):
            ours, theirs = context.Pipe(duplex=False)
            others = [pipe for pipe, _ in running] + [ours]
            job = (modality, values, fetch, chunks[index::workers], theirs, others)
            process = context.Process(target=_work, args=job, daemon=True)
            with (
                warnings.catch_warnings()
            ):  # newer Pythons warn of any thread, such as those of a linear algebra library
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            theirs.close()
            running.append((ours, process))
        for index, (begin, stop) in enumerate(chunks):
            while begin < stop:
                packed = _received(running[index % workers][0])
                begin += len(packed.sizes)
                yield packed
    finally:
        for pipe, process in running:
            pipe.close()
            process.terminate()
            process.join()


def _work(
    modality: "Reads",
    values: Sequence[Any],
    fetch: "Fetch",
    chunks: list[tuple[int, int]],
    pipe: "Connection[Any, Any]",
    others: list[Any],
) -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in others:
        other.close()
    try:
        for begin, stop in chunks:
            while begin < stop:
                packed = decode(modality, values[begin:stop], fetch)
                _send(pipe, packed)
                begin += len(packed.sizes)
    except BrokenPipeError:
        pass
    except Exception as wrong:
        text = str(wrong) if isinstance(wrong, EndwiseError) else f"{type(wrong).__name__}: {wrong}"
        pipe.send_bytes(json.dumps({"error": text}).encode())


def _send(pipe: "Connection[Any, Any]", packed: Packed) -> None:
    header = {name: getattr(packed, name) for name in ("sizes", "shapes", "dtypes", "bad")}
    pipe.send_bytes(json.dumps(header).encode())
    pipe.send_bytes(packed.hashes)
    pipe.send_bytes(packed.data[0] if len(packed.data) == 1 else b"".join(packed.data))


def _received(pipe: "Connection[Any, Any]") -> Packed:
    try:
        header = json.loads(pipe.recv_bytes())
        if "error" in header:
            raise SetupError(f"reading stopped: {header['error']}")
        bad = [(int(index), str(reason)) for index, reason in header.pop("bad")]
        hashes, data = pipe.recv_bytes(), pipe.recv_bytes()
        shapes = [tuple(shape) for shape in header.pop("shapes")]
    except EOFError:
        raise SetupError(
            "a process that reads the data ended without a word. Fix: is there enough memory? Fewer workers need less."
        ) from None
    return Packed(data=[data], shapes=shapes, hashes=hashes, bad=bad, **header)
