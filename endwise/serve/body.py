"""From the bytes of a request to the raw values of a row, with a bound on everything that a few bytes can grow to.

A body is JSON, a multipart form with one part per input, or, for a model with one input, the raw value itself. Values
then go the way of `predict`. Not here: reading the bytes off the wire (app.py), what a value means (modalities).
"""

import base64
import binascii
import io
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from endwise.dicom import is_dicom, promised_pixels
from endwise.errors import BadValue, SetupError
from endwise.files import parse_json
from endwise.modalities.base import Modality
from endwise.rows import DATA_URI, value_hash
from endwise.serve.problems import Problem
from endwise.serve.version import Version

JSON, FORM = "application/json", "multipart/form-data"
TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"')  # a JSON string
GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"
CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may hold, and may grow to when it is decoded. Declarations can ask for less, never for more."""

    body_bytes: int = 32 << 20
    pixels: int = 25_000_000  # of one picture: 75 MB when unpacked
    samples: int = 30_000_000  # of one sound, over all its channels
    characters: int = 1_000_000  # of one text
    json_values: int = 2_000_000  # elements of all lists and mappings: each takes some 50 bytes
    unpacked_bytes: int = 256 << 20  # of a packed value
    parts: int = 64  # of a form


def cells_of(body: bytes, content_type: str, version: Version, limits: Limits) -> dict[str, Any]:
    """{input: raw value} of a request. Problem where the body is not what its type says, or holds too much."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == JSON or kind.endswith("+json"):
        given = _of_json(body, limits)
    elif kind == FORM:
        given = _of_form(body, content_type, limits)
    else:
        given = _of_one(body, kind, version)
    return {name: _value(name, version.inputs.get(name), raw, limits) for name, raw in given.items()}


# ---- three kinds of bodies -------------------------------------------------------------------------------------------


def _of_json(body: bytes, limits: Limits) -> dict[str, Any]:
    """{"inputs": {name: value}}"""
    if _json_values(body) > limits.json_values and _json_values(TEXT.sub(b"", body)) > limits.json_values:
        raise Problem("too_large", f"the JSON holds more than {limits.json_values} values")
    try:
        found = parse_json(body)
    except (ValueError, RecursionError) as wrong:
        raise Problem("bad_request", f"the body cannot be read: {wrong}") from None
    if not isinstance(found, dict) or not isinstance(found.get("inputs"), dict) or len(found) != 1:
        raise Problem("bad_request", 'expected a JSON object {"inputs": {name: value}} and nothing else', "inputs")
    return dict(found["inputs"])


def _json_values(body: bytes) -> int:
    return body.count(b",") + body.count(b"[") + body.count(b"{")


def _of_one(body: bytes, kind: str, version: Version) -> dict[str, Any]:
    names = list(version.inputs)
    if len(names) > 1:
        raise Problem(
            "unsupported_type",
            f"this model has {len(names)} inputs ({', '.join(names)[:200]}): send {JSON} or {FORM}, not {kind[:60] or 'one value'}",
        )
    if not body:
        raise Problem("bad_value", "the body is empty", names[0])
    return {names[0]: body}


@dataclass
class _Form:
    """What the parser has found so far."""

    most: int
    values: dict[str, Any] = field(default_factory=dict)
    name: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    headers: dict[str, bytes] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False

    def begin(self) -> None:
        self.headers, self.data = {}, bytearray()

    def add_header(self) -> None:
        self.headers[bytes(self.name).decode("latin-1").lower()] = bytes(self.value)
        self.name, self.value = bytearray(), bytearray()

    def add_part(self) -> None:
        from python_multipart.multipart import parse_options_header

        _, options = parse_options_header(self.headers.get("content-disposition"))
        try:
            name = options.get(b"name", b"").decode()
        except UnicodeDecodeError:
            raise Problem("bad_request", "the name of a part is not UTF-8") from None
        if not name:
            raise Problem("bad_request", "a part of the form has no name")
        if name in self.values:
            raise Problem("bad_request", "the form has two parts of this name", name[:100])
        if len(self.values) == self.most:
            raise Problem("too_large", f"the form has more than {self.most} parts")
        is_file = b"filename" in options or b"filename*" in options
        data = bytes(self.data)
        self.values[name] = data if is_file else _text(data, name)

    def end(self) -> None:
        self.ended = True


def _of_form(body: bytes, content_type: str, limits: Limits) -> dict[str, Any]:
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise Problem("bad_request", "the content type of the form names no boundary")
    form = _Form(limits.parts)
    try:
        parser = MultipartParser(boundary, {
            "on_part_begin": form.begin,
            "on_part_data": lambda data, start, end: form.data.extend(memoryview(data)[start:end]),
            "on_part_end": form.add_part,
            "on_header_field": lambda data, start, end: form.name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: form.value.extend(data[start:end]),
            "on_header_end": form.add_header,
            "on_end": form.end,
        })  # fmt: skip
        parser.write(body)
        parser.finalize()
    except FormParserError as wrong:
        raise Problem("bad_request", f"the form cannot be read: {str(wrong)[:200]}") from None
    if not form.ended:
        raise Problem("bad_request", "the form is cut short: its last boundary is missing")
    return form.values


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as wrong:
        raise Problem(
            "bad_value", f"byte {wrong.start} is no UTF-8; a part that is a file needs a filename", name[:100]
        ) from None


# ---- one value -----------------------------------------------------------------------------------------------------


def _value(name: str, item: Modality | None, raw: Any, limits: Limits) -> Any:
    """The raw value as `read` takes it: bytes where it is a file, and never more than it may grow to."""
    if item is None:  # no input of this model: refused by name where rows are read
        return raw
    try:
        if isinstance(raw, str):
            raw = _of_text(raw, item.file_kinds)
        elif isinstance(raw, bytes) and not item.file_kinds:
            raw = _decoded(raw)
        if isinstance(raw, str) and len(raw) > limits.characters:
            raise Problem("too_large", f"{len(raw)} characters, more than the {limits.characters} allowed", name[:100])
        if isinstance(raw, bytes):
            _check_size(raw, item.file_kinds, limits, name[:100])
    except BadValue as wrong:
        raise Problem("bad_value", str(wrong), name[:100]) from None
    return raw


def _of_text(raw: str, kinds: tuple[str, ...]) -> str | bytes:
    """Base64 where files are binary; text is its own file."""
    if not kinds:
        return raw
    if all(kind.startswith("text/") for kind in kinds):
        return raw.encode(errors="surrogatepass")
    mark = DATA_URI.match(raw)
    try:
        return base64.b64decode(raw[mark.end() :] if mark else raw, validate=True)
    except (binascii.Error, ValueError):
        if mark:
            raise BadValue("the data URI is not base64") from None
        return raw  # a list in text, say; what names a file is refused there


def _decoded(raw: bytes) -> str | bytes:
    """A file for an input whose values are text; bytes that are none are refused where they are read."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw


def _check_size(data: bytes, kinds: tuple[str, ...], limits: Limits, name: str) -> None:
    """Problem where a header promises more than may be unpacked; nothing is unpacked here but counted."""
    if data[:2] == GZIP and _unpacks_to(data, limits.unpacked_bytes) > limits.unpacked_bytes:
        raise Problem("too_large", f"it unpacks to more than {limits.unpacked_bytes} bytes", name)
    if data[:4] == ZIP and _members(data) > limits.unpacked_bytes:
        raise Problem("too_large", f"it unpacks to more than {limits.unpacked_bytes} bytes", name)
    if "image/*" in kinds and _pixels(data) > limits.pixels:
        raise Problem("too_large", f"a picture of more than the {limits.pixels} pixels allowed", name)
    if "audio/*" in kinds and (samples := _samples(data)) > limits.samples:
        raise Problem("too_large", f"a sound of {samples} samples, more than the {limits.samples} allowed", name)


def _unpacks_to(data: bytes, most: int) -> int:
    """Bytes, counted until they are too many; 0 for what is damaged, which is said where it is read."""
    stream, total, left = zlib.decompressobj(wbits=31), 0, data
    try:
        while left and total <= most:
            total += len(stream.decompress(left, CHUNK))
            left = stream.unconsumed_tail
            if stream.eof and stream.unused_data:  # another member behind the first
                left, stream = stream.unused_data, zlib.decompressobj(wbits=31)
    except zlib.error:
        return total
    return total


def _members(data: bytes) -> int:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return sum(item.file_size for item in archive.infolist())
    except (zipfile.BadZipFile, ValueError, OSError):
        return 0


def _pixels(data: bytes) -> int:
    """Of all frames, by the header alone; 0 for what is no picture, which is said where it is read."""
    if is_dicom(data):
        try:
            return promised_pixels(data)
        except (BadValue, SetupError):
            return 0
    from PIL import Image as Pillow

    try:
        with Pillow.open(io.BytesIO(data)) as picture:
            return int(picture.width * picture.height)
    except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning):
        return 1 << 62
    except Exception:  # decoders of damaged files promise no kind of exception
        return 0


def _samples(data: bytes) -> int:
    """Of all channels, by the header alone; 0 for what is no sound, which is said where it is read."""
    import soundfile

    try:
        found = soundfile.info(io.BytesIO(data))
    except Exception:  # damaged files promise no kind of exception
        return 0
    return int(found.frames * found.channels)


def hashed(cells: Mapping[str, Any]) -> dict[str, str]:
    """{input: sha256 of its raw value}, for the decision log."""
    return {name: value_hash(raw) for name, raw in sorted(cells.items())}
