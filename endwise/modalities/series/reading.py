"""Raw series to arrays [step, channel]: lists, arrays, JSON text, .npy and .csv files. Numpy and the standard library only.

Not here: what is learnt about them (__init__.py), tables whose rows are steps (data/windows.py).
"""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from endwise.delimited import rows_of
from endwise.errors import BadValue, DataError
from endwise.modalities.base import Fetch, file_bytes
from endwise.when import time_of

NPY = b"\x93NUMPY"
LARGEST = 1e30  # squares of larger ones overflow single precision
WHOLE = np.iinfo(np.int16)
FILES = (".npy", ".csv", ".tsv", ".txt")


def steps_of(raw: Any, names: Sequence[str] | None, fetch: Fetch) -> np.ndarray:
    """One raw series as [step, channel]: int16 where all are whole numbers of that range, else float32 with NaN for
    what is missing. names: the channels, where the recipe names them. Raises BadValue naming channel and step."""
    table = _channels(raw, names, fetch)
    counts = [len(channel) for channel in table]
    if not counts or not counts[0]:
        raise BadValue("the series is empty")
    if len(set(counts)) > 1:
        raise BadValue(
            f"channels of {min(counts)} and {max(counts)} steps: a series has one rate. Fix: declare an input for each rate"
        )
    if names is not None and len(table) != len(names):
        raise BadValue(f"{len(table)} channels instead of the {len(names)} named in columns ({', '.join(names)})")
    found = np.stack(
        [_numbers(channel, _told(index, names, len(table))) for index, channel in enumerate(table)], axis=1
    )
    if not np.isfinite(found).any():
        raise BadValue("not one value is there: leave the cell empty if the series is missing")
    whole = np.isfinite(found).all() and (found == np.floor(found)).all()
    if whole and found.min() >= WHOLE.min and found.max() <= WHOLE.max:
        return found.astype(np.int16)
    return found.astype(np.float32)


def gaps_of(raw: Any, count: int | None, fetch: Fetch) -> np.ndarray:
    """float32 [step, 1]: the time since the step before, in seconds where times are dates; NaN at the first, since nobody knows
    the step before it. count: how many there have to be, where that is known. BadValue unless the times ascend."""
    channels = _channels(raw, None, fetch)
    cells = channels[0] if len(channels) == 1 else [cell for channel in channels for cell in channel]
    if not len(cells) or len(cells) != (count or len(cells)):
        raise BadValue(f"{len(cells)} times beside {count or 'no'} steps")
    gaps = np.diff(_moments(cells), prepend=np.nan)
    if (gaps[1:] <= 0).any():
        at = int(np.flatnonzero(gaps[1:] <= 0)[0]) + 1
        what = "twice the same" if gaps[at] == 0 else "earlier than the one before"
        raise BadValue(f"the time of step {at + 1} is {what}; sort the steps by time, one value a time")
    return gaps[:, None].astype(np.float32)


def _moments(cells: Any) -> np.ndarray:
    """float64 [step]: times as numbers, dates as seconds."""
    if isinstance(cells, np.ndarray):
        cells = (cells.astype("datetime64[us]") if cells.dtype.kind == "M" else cells).tolist()
    found, usual = np.zeros(len(cells)), None
    for at, cell in enumerate(cells):
        if cell is None or cell == "" or cell != cell:  # NaN is not itself
            raise BadValue(f"the time of step {at + 1} is missing")
        kind, found[at] = time_of(cell)
        usual = usual or kind
        if kind is None or kind != usual:
            raise BadValue(
                f"the time of step {at + 1}, {cell!r:.60}, is no {usual or 'number or date'}; "
                "write all as numbers, or all as dates (2024-05-31T12:30)"
            )
    return found


def _channels(raw: Any, names: Sequence[str] | None, fetch: Fetch) -> Sequence[Any]:
    """The channels one by one, whatever they are given as."""
    if isinstance(raw, Mapping) and not ("bytes" in raw or "path" in raw):
        return _named(raw, names, fetch)
    if isinstance(raw, str) and raw.lstrip()[:1] in ("[", "{"):
        return _channels(_json(raw), names, fetch)
    if isinstance(raw, str | bytes | bytearray | memoryview | Mapping) or hasattr(raw, "__fspath__"):
        return _of_file(raw, names, fetch)
    if hasattr(raw, "__array__") and not isinstance(raw, np.generic):
        raw = np.asarray(raw)
        if raw.ndim not in (1, 2):
            raise BadValue(f"expected [step] or [channel, step], got an array of shape {list(raw.shape)}")
        return [raw] if raw.ndim == 1 and raw.dtype != object else list(raw) if _nested(raw) else [raw]
    if isinstance(raw, list | tuple):
        return raw if _nested(raw) else [raw]
    raise BadValue(f"expected a list of numbers or a list of channels, got {type(raw).__name__} {raw!r:.60}")


def _nested(raw: Any) -> bool:
    """Whether these are channels, and not the numbers of one."""
    return len(raw) > 0 and (isinstance(raw[0], list | tuple) or (isinstance(raw[0], np.ndarray) and raw[0].ndim == 1))


def _named(raw: Mapping[str, Any], names: Sequence[str] | None, fetch: Fetch) -> list[Any]:
    if names is None:
        told = ", ".join(map(str, raw))[:80]
        raise BadValue(f"channels by name ({told}), and the recipe names none. Fix: columns: [...]")
    found = []
    for name in _all_of(raw, names):
        channel = raw[name]
        if isinstance(channel, str | bytes):  # a list as text, or a file of its own
            channels = _channels(channel, None, fetch)
            if len(channels) != 1:
                raise BadValue(f"channel {name!r} holds {len(channels)} channels")
            channel = channels[0]
        found.append(channel)
    return found


def _all_of(raw: Mapping[str, Any], names: Sequence[str]) -> Sequence[str]:
    """The names, all of which are there."""
    lacking = next((name for name in names if raw.get(name) is None), None)
    if lacking is not None:
        raise BadValue(f"no channel {lacking!r} among {', '.join(map(str, raw))[:120]}")
    return names


def _json(raw: str) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise BadValue(f"{raw[:60]!r} is no list of numbers: write it as JSON, [1, 2.5, null]") from None


def _of_file(raw: Any, names: Sequence[str] | None, fetch: Fetch) -> Sequence[Any]:
    path = str(raw.get("path") or "") if isinstance(raw, Mapping) else "" if isinstance(raw, bytes) else str(raw)
    if isinstance(raw, str) and not raw.lower().endswith(FILES):
        raise BadValue(f"{raw[:60]!r} is neither a list of numbers ([1, 2.5]) nor a file ({', '.join(FILES)})")
    data = file_bytes(raw, fetch, "a series")
    if data.startswith(NPY):
        try:
            array = np.load(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError) as wrong:
            raise BadValue(f"the .npy file cannot be read: {wrong}") from None
        return _channels(array, names, fetch)
    return _of_text(data, "\t" if path.lower().endswith((".tsv", ".txt")) else ",", names)


def _of_text(data: bytes, delimiter: str, names: Sequence[str] | None) -> Sequence[Any]:
    """A table with a line a step: its named columns, or all."""
    try:
        header, lines = rows_of(io.BytesIO(data), delimiter, "the series")
        rows = [row for _, row in lines]
    except DataError as wrong:
        raise BadValue(str(wrong)) from None
    columns = {name: [row[index] for row in rows] for index, name in enumerate(header)}
    return [columns[name] for name in _all_of(columns, names)] if names is not None else list(columns.values())


def _told(index: int, names: Sequence[str] | None, count: int) -> str:
    if names is not None:
        return f"channel {names[index]!r}, "
    return f"channel {index + 1}, " if count > 1 else ""


def _numbers(cells: Any, where: str) -> np.ndarray:
    """float64 [step]; NaN where a cell is empty."""
    if not isinstance(cells, list | tuple) and not hasattr(cells, "__array__"):
        raise BadValue(f"{where}expected a list of numbers, got {type(cells).__name__} {cells!r:.60}")
    if isinstance(cells, np.ndarray) and cells.dtype.kind in "iuf":
        found = cells.astype(np.float64)
    else:
        try:
            found = np.array([np.nan if cell is None or cell == "" else cell for cell in cells], dtype=np.float64)
            if any(isinstance(cell, bool) for cell in cells):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            found = np.array([_number(cell, f"{where}step {at + 1}") for at, cell in enumerate(cells)])
    if found.ndim != 1:
        raise BadValue(f"{where}expected numbers, got lists in lists")
    wrong = np.flatnonzero(np.isinf(found) | (np.abs(found) > LARGEST))
    if len(wrong):
        raise BadValue(f"{where}step {wrong[0] + 1}: {found[wrong[0]]:g} is beyond ±{LARGEST:g}")
    return found


def _number(cell: Any, where: str) -> float:
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return float("nan")
    try:
        if isinstance(cell, bool):
            raise ValueError
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        raise BadValue(
            f"{where}: {cell!r:.60} is no number; leave it empty (null in a list) where a value is missing"
        ) from None


__all__ = ["gaps_of", "steps_of"]
