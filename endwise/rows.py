"""Rows on their way to and from a network: raw cells -> one padded batch, decoded arrays -> answers. Numpy only.

Shared by the model and by exported bundles, so that both read and write the same way. Not here: tables (data/table.py),
decoding of one kind of value (modalities) and the network.
"""

import base64
import contextlib
import hashlib
import itertools
import json
import math
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from endwise.batch import Ragged
from endwise.certainty import Certainty, given
from endwise.errors import BadValue, DataError, ModelError, refusal, unknown_name
from endwise.files import folder_bytes, plain
from endwise.modalities.base import Answer, Contract, Fetch, Modality
from endwise.patches import covering, exceeds

WORLD = ".world"  # behind an input's name: where its value lies
Row = Mapping[str, np.ndarray | None]  # the transformed value of every input, None where it is missing, and see WORLD

DATA_URI = re.compile(r"data:[\w.+/-]*(?:;[\w=.+-]+)*;base64,")
PATHLIKE = re.compile(r"^\S*([/\\]\S*|\.[A-Za-z]\w{0,4})$")  # no blank in it, and folders or an ending
MAX_MEMBER_BYTES = 1 << 30  # of one file in a zip
MOST_SPOKEN = 80  # letters of an answer that is not given
WINDOWS = 4  # of one value that are answered at a time
MOST_PLACES = 8 * 64**3  # of values that are seen voxel for voxel, in one pass of the network: some hundred MB a map


class FieldError(Exception):
    """One field of one row cannot be read; the caller knows which row and says so."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field, self.reason = field, reason


def file_fetcher(base: str | Path) -> Fetch:
    """Files beside `base`, `archive.zip!member` as in a table, and a folder as the archive of its files. Addresses are not followed: a row from a stranger
    must not make this machine call out."""
    folder = Path(base)

    def fetch(path: str) -> bytes:
        if "://" in path:
            raise BadValue(
                f"{path[:120]!r} is an address; only files are read here. Fix: download it, or give a table of addresses"
            )
        archive, mark, member = path.partition(".zip!")
        try:
            if mark and not (folder / path).exists():
                return _member(folder / f"{archive}.zip", member)
            return folder_bytes(folder / path) if (folder / path).is_dir() else (folder / path).read_bytes()
        except OSError as wrong:
            raise BadValue(f"the file {str(folder / path)[:200]!r} cannot be read: {wrong.strerror or wrong}") from None
        except ValueError as wrong:
            raise BadValue(f"{path[:120]!r} is no path: {wrong}") from None

    return fetch


def _member(archive: Path, member: str) -> bytes:
    """One file of a zip, unless it would unpack to more than any value here is."""
    try:
        with zipfile.ZipFile(archive) as opened:
            size = opened.getinfo(member).file_size
            if size > MAX_MEMBER_BYTES:
                raise BadValue(f"{archive.name}!{member} unpacks to {size} bytes, more than {MAX_MEMBER_BYTES}")
            return opened.read(member)
    except KeyError:
        raise BadValue(f"there is no {member!r} in {archive.name}") from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as wrong:
        raise BadValue(f"{archive.name} is no zip that can be read: {wrong}") from None


def opens(item: Modality, path: str, fetch: Fetch) -> bool:
    """Whether this input opens a path by itself, as a picture does, and does not take it for the value, as a text does."""
    opened = []

    def watched(name: str) -> bytes:
        opened.append(name)
        return fetch(name)

    with contextlib.suppress(BadValue):
        item.read(path, watched)
    return bool(opened)


def content(name: str, given: str, fetch: Fetch) -> str:
    """What a bare argument means to an input that opens no paths: the text in the file, where there is one of that name, or the value
    itself. Raises FieldError for what looks like a path and is none: a misspelt name is no value."""
    try:
        if Path(given).is_file():
            return fetch(given).decode("utf-8")
    except UnicodeDecodeError as wrong:
        raise FieldError(name, f"byte {wrong.start} of the file is no UTF-8") from None
    except (OSError, ValueError):  # too long for a path, or with a zero byte: a value
        return given
    if PATHLIKE.search(given):
        raise FieldError(
            name, f"there is no file {given[:120]!r}. If this is the value itself, write --input {name}={given[:40]!r}"
        )
    return given


def is_missing(raw: Any) -> bool:
    """None and NaN are no value."""
    return raw is None or (isinstance(raw, float) and math.isnan(raw))


def may_be_missing(item: Modality, contract: Contract) -> bool:
    """A missing value is answered only if the network has met one in training, or the recipe says so."""
    return item.optional or contract.missing > 0


def read_row(
    inputs: Mapping[str, Modality],
    contracts: Mapping[str, Contract],
    cells: Mapping[str, Any],
    fetch: Fetch,
    hashes: dict[str, str] | None = None,
) -> dict[str, np.ndarray | None]:
    """The transformed value of every input of one row, None where it is missing and may be, and where it lies (`taken`). hashes:
    gets the `value_hash` of each raw value that is there, of one that names a file that of its bytes. Raises FieldError."""
    values: dict[str, np.ndarray | None] = {}
    for name, item in inputs.items():
        opened: list[str] = []
        try:
            watched = fetch if hashes is None else _noting(fetch, opened)
            value = _read(name, item, contracts[name], cells.get(name), watched)
            values |= {name: None} if value is None else taken(name, item, contracts[name], value)
        except BadValue as wrong:
            raise FieldError(name, str(wrong)) from None
        if hashes is not None and values[name] is not None:
            hashes[name] = opened[0] if len(opened) == 1 else value_hash(opened or cells[name])
    return values


def value_hash(raw: Any) -> str:
    """sha256 of a raw value: of a file its bytes, however they are given (as they are, in a {'bytes':} cell, as a data URI), of
    anything else as JSON with sorted names, an opened picture being its pixels. So the same content has the same hash from
    a table, from Python and over HTTP."""
    data = _file_of(raw)
    if data is None:
        text = json.dumps(plain(_unpacked(raw), infinite=True), sort_keys=True, ensure_ascii=False)
        data = text.encode(errors="surrogatepass")
    return hashlib.sha256(data).hexdigest()


def _file_of(raw: Any) -> bytes | None:
    """The bytes of a value that is a file's content; None for any other."""
    if isinstance(raw, Mapping):
        raw = raw.get("bytes")  # of a Hugging Face cell; the path beside them is only a name
        return bytes(raw) if isinstance(raw, bytes | bytearray | memoryview) and raw else None
    if isinstance(raw, bytes | bytearray | memoryview):
        return bytes(raw)
    if not isinstance(raw, str) and hasattr(raw, "to_json"):  # an answer that is asked about again: a sound, a drawing
        raw = raw.to_json()
    mark = DATA_URI.match(raw) if isinstance(raw, str) else None
    if mark is None:
        return None
    with contextlib.suppress(ValueError):
        return base64.b64decode(raw[mark.end() :], validate=True)
    return None


def _unpacked(raw: Any) -> Any:
    """Opened pictures as arrays of their pixels: what `str` says of one is where it lies in memory."""
    if isinstance(raw, list | tuple):
        return [_unpacked(item) for item in raw]
    if hasattr(raw, "__array_interface__") and not hasattr(raw, "tolist"):
        return np.asarray(raw.convert("RGBA") if getattr(raw, "mode", None) == "P" else raw)  # indices say no colour
    return raw


def _noting(fetch: Fetch, hashes: list[str]) -> Fetch:
    """What is fetched, with its hash noted."""

    def noting(path: str) -> bytes:
        data = fetch(path)
        hashes.append(value_hash(data))
        return data

    return noting


def taken(name: str, item: Modality, contract: Contract, value: np.ndarray) -> dict[str, np.ndarray]:
    """What a row holds of a decoded value of an input: as the network takes it, and where it lies."""
    world = item.world(value)
    own = {name: item.transform(value, contract)}
    return own if world is None else {**own, name + WORLD: world}


def in_world(
    outputs: Mapping[str, Modality], answers: Mapping[str, Sequence[Answer]], rows: Sequence[Row]
) -> dict[str, Sequence[Answer]]:
    """What was `written` of these rows, each output as people say it: in the world of its input where it is said there, or told
    where that lies."""
    return {
        name: part
        if (under := outputs[name].placed_by) is None
        else [outputs[name].to_world(one, row.get(under + WORLD)) for one, row in zip(part, rows, strict=True)]
        for name, part in answers.items()
    }


def _read(name: str, item: Modality, contract: Contract, raw: Any, fetch: Fetch) -> np.ndarray | None:
    """The decoded value."""
    if is_missing(raw):
        if may_be_missing(item, contract):
            return None
        raise BadValue(
            f"the value is missing, and it never was in training. Fix: give it, or train with {name}: "
            f"{{type: {item.type}, optional: true}}"
        )
    return item.read(raw, fetch)


def collate(
    inputs: Mapping[str, Modality], contracts: Mapping[str, Contract], rows: Sequence[Row]
) -> tuple[dict[str, Ragged], dict[str, np.ndarray]]:
    """Some rows as one padded batch; a missing value is a blank with `present` False."""
    fields, present = {}, {}
    for name, item in inputs.items():
        values = [row[name] for row in rows]
        present[name] = np.array([value is not None for value in values])
        filled = [item.blank(contracts[name]) if value is None else value for value in values]
        fields[name] = Ragged.stack(filled, item.axes)
    return fields, present


def seen_at_once(inputs: Mapping[str, Modality], contracts: Mapping[str, Contract], row: Row) -> bool:
    """Is no input of the row larger than what the network looks at at once?"""
    return not any(
        exceeds(value.shape[: item.axes], item.patch(contracts[name]))
        for name, item in inputs.items()
        if (value := row[name]) is not None
    )


def rows_at_once(inputs: Mapping[str, Modality], contracts: Mapping[str, Contract], count: int) -> int:
    """How many of so many rows the network should look at at a time: of volumes few fill the memory."""
    looked_at = [item.patch(contracts[name]) for name, item in inputs.items()]
    places = max((math.prod(sides) for sides in looked_at if sides is not None), default=1)
    return min(count, max(1, MOST_PLACES // places))


def window_by_window(
    inputs: Mapping[str, Modality],
    outputs: Mapping[str, Modality],
    contracts: Mapping[str, Contract],
    row: Row,
    decode: Callable[[list[Row]], Mapping[str, Mapping[str, np.ndarray]]],
    *,
    whole: bool = False,
) -> dict[str, dict[str, np.ndarray]]:
    """What is decoded of a row of one input that may be larger than what the network looks at at once: {output: arrays
    without the batch axis}, put together from windows over all of it. Few windows are answered at a time, and for each
    output anew, so that no more is held than one output's whole answer. whole: all that the network said of the row, as a
    loss needs it, and not what an answer is written from alone. Raises ModelError where the value is missing, DataError where an output has no `merged`."""
    ((name, item),) = inputs.items()
    value, most = row[name], item.patch(contracts[name])
    if value is None or most is None:
        raise ModelError(
            f"{name} is missing in a row beside one that is answered in windows. Fix: give it, or leave the row out."
        )
    shape = value.shape[: item.axes]
    for output, other in outputs.items():
        if type(other).merged is Modality.merged:
            told = [" x ".join(map(str, sides)) for sides in (shape, most)]
            raise DataError(
                f"{name} of {told[0]} is larger than the {told[1]} that are seen at once, and {output} ({other.type}) cannot be put "
                f"together from windows. Fix: cut it, or train with a larger seen_voxels or a coarser spacing_mm."
            )
    sides = tuple(min(own, side) for own, side in zip(shape, most, strict=True))
    starts = covering(shape, sides)

    def answered(output: str) -> Iterator[tuple[tuple[int, ...], Mapping[str, np.ndarray]]]:
        for first in range(0, len(starts), WINDOWS):
            some = starts[first : first + WINDOWS]
            parts: list[Row] = [
                {name: value[tuple(slice(low, low + side) for low, side in zip(start, sides, strict=True))]}
                for start in some
            ]
            arrays = decode(parts)[output]
            yield from ((start, {key: array[at] for key, array in arrays.items()}) for at, start in enumerate(some))

    return {
        output: other.merged(answered(output), shape) if whole else other.concluded(answered(output), shape)
        for output, other in outputs.items()
    }


def read_columns(
    inputs: Mapping[str, Modality],
    contracts: Mapping[str, Contract],
    columns: Mapping[str, Sequence[Any]],
    rows: range,
    fetch: Fetch,
) -> tuple[dict[str, Ragged], dict[str, np.ndarray]]:
    """Some rows of columns of raw values as one padded batch, as `read_row` and `collate` make it, column by column. A field
    without a column is missing in all of them. DataError with the row and the field."""
    fields, present = {}, {}
    for name, item in inputs.items():
        raws = columns[name][rows.start : rows.stop] if name in columns else [None] * len(rows)
        there = _there(raws)
        fields[name] = _read_column(name, item, contracts[name], raws, there, rows.start, fetch)
        present[name] = there
    return fields, present


def _read_column(
    name: str, item: Modality, contract: Contract, raws: Sequence[Any], there: np.ndarray, start: int, fetch: Fetch
) -> Ragged:
    whole = bool(there.all())
    if not item.axes and (whole or may_be_missing(item, contract)):
        given = raws if whole else _some(raws, there)
        try:
            values = item.read_column(given, contract, fetch) if len(given) else None
        except BadValue:  # of which row it is, is found below
            values = None
        if values is not None:
            if not whole:
                blank = item.blank(contract)
                filled = np.broadcast_to(blank, (len(raws), *blank.shape)).astype(values.dtype)
                filled[there] = values
                values = filled
            return Ragged(values, np.zeros((len(raws), 0), dtype=np.int64))
    read = []
    for row, raw in enumerate(raws):
        try:
            value = _read(name, item, contract, raw, fetch)
            read.append(item.blank(contract) if value is None else item.transform(value, contract))
        except BadValue as wrong:
            raise DataError(f"row {start + row + 1}: field {name!r}: {wrong}") from None
    return Ragged.stack(read, item.axes)


def _there(raws: Sequence[Any]) -> np.ndarray:
    """bool [row]: which of these raw values are no None and no NaN."""
    if isinstance(raws, np.ndarray) and raws.dtype.kind != "O":
        odd = np.isnan(raws) if raws.dtype.kind == "f" and raws.ndim == 1 else None
        return np.ones(len(raws), dtype=bool) if odd is None else ~odd
    if set(map(type, raws)) <= {str, int, bool, bytes, list}:
        return np.ones(len(raws), dtype=bool)
    return np.fromiter((not is_missing(raw) for raw in raws), bool, len(raws))


def _some(raws: Sequence[Any], there: np.ndarray) -> Sequence[Any]:
    if isinstance(raws, np.ndarray):
        chosen: Sequence[Any] = raws[there]
        return chosen
    return list(itertools.compress(raws, there))


def written(
    outputs: Mapping[str, Modality],
    contracts: Mapping[str, Contract],
    decoded: Mapping[str, Mapping[str, np.ndarray]],
    count: int,
) -> dict[str, list[Answer]]:
    """Decoded arrays (batch first) as the user's kind of values, one answer a row."""
    return {
        name: [
            item.write({key: value[row] for key, value in decoded[name].items()}, contracts[name])
            for row in range(count)
        ]
        for name, item in outputs.items()
    }


def answered(
    outputs: Mapping[str, Modality],
    contracts: Mapping[str, Contract],
    learnt: Mapping[str, Certainty],
    answers: Mapping[str, Sequence[Answer]],
) -> dict[str, list[Answer]]:
    """What was `written`, each with the confidence it deserves, its set, and withheld where its output abstains."""
    return {
        name: [given(outputs[name], contracts[name], answer, learnt.get(name)) for answer in part]
        for name, part in answers.items()
    }


def listed(value: Any, unsure: Sequence[Mapping[str, Any]] = ()) -> str | None:
    """A list of mappings (boxes) in a line for people: how many there are, and what each holds; of an empty list how many were not
    sure enough. None for anything else."""
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        return None
    if not value:
        best = max((float(item["score"]) for item in unsure), default=None)
        return "none" if best is None else f"none ({len(unsure)} less sure in detail.more, the surest {best:.2f})"
    return f"{len(value)}: " + "; ".join(" ".join(map(_part, item.values())) for item in value)


def abstention(confidence: float | None, guess: Any) -> str:
    """An answer that is withheld, in words: no value, and what it would have been."""
    text = listed(guess) or str(guess)
    sure = "" if confidence is None else f", {confidence:.0%} sure"
    return f"abstains (would say {text if len(text) <= MOST_SPOKEN else text[: MOST_SPOKEN - 1] + '…'}{sure})"


def _part(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    return " ".join(f"{item:.1f}" for item in value) if isinstance(value, list) else str(value)


def check_names(
    row: Mapping[str, Any], inputs: Mapping[str, Modality], outputs: Mapping[str, Modality], where: str
) -> None:
    """Refuse (DataError) a row with a name that is no input."""
    if row.keys() <= inputs.keys():
        return
    odd = next(name for name in row if name not in inputs)
    if odd in outputs:
        raise refusal(
            field=where,
            got=odd,
            allowed=f"inputs only: {', '.join(inputs)}",
            fix=f"{odd!r} is what the model answers: leave it out",
            error=DataError,
        )
    raise unknown_name(field=f"{where}: input", got=str(odd), names=inputs, error=DataError)
