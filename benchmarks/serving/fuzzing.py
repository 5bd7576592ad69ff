"""Requests that are damaged in every way a seed can think of, and what a server says to them.

All doors are tried: predictions, and for a tenth of the requests each explanations and training rows that are alike. Values are replaced inside valid JSON, files inside it are damaged, forms and raw bodies are cut, bytes are flipped, types
lie, and a share of the requests is damaged as HTTP.
"""

import asyncio
import base64
import binascii
import contextlib
import gzip
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.serving.load import HOST

WAIT_S = 20.0
KINDS = (
    "application/json",
    "multipart/form-data; boundary=b",
    "multipart/form-data",
    "image/jpeg",
    "text/plain",
    "",
    "a/b; c=\xe4",
    "application/x+json",
)
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, -1e-320, 10**40, "", " ", "\x00", "\ud800", "NaN", "null", "../../etc/passwd", "http://127.0.0.1/",
    "data:image/png;base64,AAAA", "data:;base64,%%%", "' OR 1=1", "<script>alert(1)</script>", "%s%n{0}", "\u202e\U0001f600" * 30,
    [], {}, [[]], [1, "x", None], [[1, 2], [3]], {"path": "/etc/passwd"}, {"bytes": "AAAA"}, {"x": {"x": {"x": []}}}, [0.5] * 3000, "9" * 5000,
)  # fmt: skip
HEADS = (
    b"",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"RIFF\0\0\0\0WAVE",
    b"fLaC",
    b"OggS",
    b"GIF89a",
    b"PK\x03\x04",
    b"\x1f\x8b\x08",
    b"\x93NUMPY",
)
PATHS = (
    "/",
    "/predict/",
    "/predict?x=1",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/metrics",
    "/readyz",
    "/openapi.json",
    "/\xff",
    "/nothing",
    "*",
)
BESIDE = ("/explain", "/like")  # doors that take a while: there 'busy' and 'timeout' are fair answers
SETTINGS = (
    "",
    "grade=no",
    "method=occlusion&grade=no",
    "drawn=yes&grade=no",
    "count=3",
    "of=",
    "of=%00",
    "of==",
    "of=" + "x" * 300,
    "of=%ff&of=1",
    "method=magic",
    "grade=perhaps",
    "drawn=1",
    "count=-1",
    "count=9999999999999999999999",
    "count=%e2%91%a0",
    "metod=occlusion",
    "%3d=%26",
    "&&==",
)
METHODS = ("GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE", "BREW")


@dataclass
class Found:
    """What a server said. silent: requests without an answer that were whole. examples: of what must not be."""

    statuses: dict[int, int] = field(default_factory=dict)
    server_errors: int = 0
    tracebacks: int = 0
    silent: int = 0
    examples: list[str] = field(default_factory=list)


async def fuzz(port: int, bodies: Sequence[bytes], count: int, *, seed: int, clients: int = 8) -> Found:
    """So many damaged requests, made from valid JSON bodies. clients: that ask at the same time."""
    found, left = Found(), damaged(bodies, count, seed)

    async def client() -> None:
        for request, whole in left:
            status, answer = await _said(port, request)
            found.statuses[status] = found.statuses.get(status, 0) + 1
            slow = status in (503, 504) and any(door.encode() in request[:20] for door in BESIDE)
            bad = status >= 500 and not slow
            told = b"Traceback" in answer or b'File "' in answer
            found.server_errors += bad
            found.tracebacks += told
            found.silent += whole and status == 0
            if (bad or told or (whole and status == 0)) and len(found.examples) < 5:
                found.examples.append(f"{request[:300]!r} -> {answer[:200]!r}")

    await asyncio.gather(*(client() for _ in range(clients)))
    return found


async def _said(port: int, request: bytes) -> tuple[int, bytes]:
    """Status and all bytes that came back until the connection ended or fell silent; 0 of nothing."""
    data = b""
    with contextlib.suppress(OSError, TimeoutError):
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            writer.write(request)
            async with asyncio.timeout(WAIT_S):
                while part := await reader.read(1 << 16):
                    data += part
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    status = data[9:12]
    return (int(status) if data.startswith(b"HTTP/1.1 ") and status.isdigit() else 0), data


def damaged(bodies: Sequence[bytes], count: int, seed: int) -> Iterator[tuple[bytes, bool]]:
    """(what goes over the wire, whether it is whole as HTTP): a function of the seed."""
    chosen = random.Random(seed)
    for _ in range(count):
        body, kind = _body(json.loads(chosen.choice(bodies)), chosen)
        path = chosen.choice(PATHS) if chosen.random() < 0.05 else _door(chosen)
        method = chosen.choice(METHODS) if chosen.random() < 0.05 else "POST"
        extra = (
            chosen.choice(
                (
                    "",
                    "X-Request-Id: a b\r\n",
                    f"X-Request-Id: {'x' * 65}\r\n",
                    "Content-Encoding: gzip\r\n",
                    "Origin: null\r\n",
                    "Accept: \xff\r\n",
                )
            )
            if chosen.random() < 0.1
            else ""
        )
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n{extra}Content-Type: {kind}\r\n".encode(
                "latin-1"
            )
        )
        if chosen.random() < 0.05:
            yield head + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), True
            continue
        wire = head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
        if chosen.random() < 0.05:  # damaged as HTTP: the server may just hang up
            flipped = _flipped(wire[: len(head)], chosen) + wire[len(head) :]
            yield chosen.choice((flipped, wire[: chosen.randrange(len(wire))] + b"\r\n\r\n")), False
            continue
        yield wire, method != "BREW" and path != "*"


def _door(chosen: random.Random) -> str:
    if chosen.random() < 0.8:
        return "/predict"
    setting = chosen.choice(SETTINGS)
    return chosen.choice(BESIDE) + (f"?{setting}" if setting else "")


def _body(inner: Any, chosen: random.Random) -> tuple[bytes, str]:
    """A damaged body and what it says it is."""
    row = inner["inputs"]
    way = chosen.randrange(6)
    if way == 0:  # odd values in the place of good ones
        for name in list(row):
            if chosen.random() < 0.7:
                row[name] = chosen.choice(ODD)
        if chosen.random() < 0.2:
            row[chosen.choice(("", "other", "x" * 300, "\ud800", "__proto__"))] = chosen.choice(ODD)
        return json.dumps(inner).encode(), KINDS[0]
    if way == 1:  # damaged files in whole JSON
        row.update({name: _damaged_file(value, chosen) for name, value in row.items() if isinstance(value, str)})
        return json.dumps(inner).encode(), KINDS[0]
    if way == 2:  # another shape of JSON
        whole = chosen.choice(
            (
                row,
                [inner],
                {"inputs": [row]},
                {"inputs": row, "more": 1},
                chosen.choice(ODD),
                {"inputs": chosen.choice(ODD)},
            )
        )
        return json.dumps(whole).encode(), chosen.choice((KINDS[0], KINDS[-1]))
    if way == 3:  # a form
        return _form(row, chosen), KINDS[1]
    if way == 4:  # the file itself, under any name
        value = next((_bytes_of(value) for value in row.values() if isinstance(value, str)), b"1.5")
        return _flipped(value, chosen), chosen.choice(KINDS)
    return _flipped(json.dumps(inner).encode(), chosen), chosen.choice(KINDS)


def _bytes_of(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return value.encode()


def _damaged_file(value: str, chosen: random.Random) -> str:
    data = _flipped(_bytes_of(value), chosen)
    if chosen.random() < 0.2:
        data = chosen.choice(HEADS) + chosen.randbytes(chosen.randrange(200))
    return base64.b64encode(data).decode()


def _form(row: dict[str, Any], chosen: random.Random) -> bytes:
    parts = []
    for name, value in row.items():
        data = _bytes_of(value) if isinstance(value, str) else str(value).encode()
        data = _flipped(data, chosen) if chosen.random() < 0.7 else data
        file = chosen.choice(("", '; filename="f"', "; filename*=UTF-8''%ff", '; filename="../../x"'))
        parts.append(
            b'--b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (name.encode(), file.encode(), data)
        )
    whole = b"".join(parts) + b"--b--\r\n"
    return _flipped(whole, chosen) if chosen.random() < 0.5 else whole


def _flipped(data: bytes, chosen: random.Random) -> bytes:
    """Some bytes changed, cut out, repeated or added."""
    found = bytearray(data)
    for _ in range(chosen.choice((1, 1, 2, 8))):
        place = chosen.randrange(len(found) + 1)
        way = chosen.randrange(4)
        if way == 0 and place < len(found):
            found[place] = chosen.randrange(256)
        elif way == 1:
            del found[place:]
        elif way == 2:
            found[place:place] = chosen.randbytes(chosen.randrange(1, 20))
        else:
            found[place:place] = found[place : place + chosen.randrange(1, 200)]
    return bytes(found)


# ---- what grows ------------------------------------------------------------------------------------------------------


def bombs(row: dict[str, Any]) -> dict[str, bytes]:
    """JSON bodies of a few bytes or some megabytes that would unpack to much more, for every input that takes a file."""
    files = {
        "a picture of 50,000 x 50,000": _png(50_000), "a picture of 6,000 x 6,000": _png(6_000), "100,000 frames": _frames(100_000),
        "a nested drawing": b"<svg>" + b"<g>" * 100_000, "gzip, 1000:1": gzip.compress(bytes(100_000_000)),
        "zip, 1000:1": _zip(100_000_000), "a recording of 4 GB": _wav(),
    }  # fmt: skip
    found = {}
    for name, value in row.items():
        if isinstance(value, str):
            for what, data in files.items():
                found[f"{what} as {name}"] = json.dumps(
                    {"inputs": {**row, name: base64.b64encode(data).decode()}}
                ).encode()
        head = json.dumps({"inputs": {**row, name: "@"}}).encode()
        found[f"a million brackets as {name}"] = head.replace(b'"@"', b"[" * 1_000_000 + b"]" * 1_000_000)
        found[f"three million values as {name}"] = head.replace(b'"@"', b"[" + b"0," * 3_000_000 + b"0]")
    return found


def _png(side: int) -> bytes:
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(1_000_000))),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def _frames(count: int) -> bytes:
    """A GIF of one black pixel, again and again."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("P", (1, 1)).save(file, "GIF")
    head, _, tail = file.getvalue().partition(b",")
    return head + (b"," + tail[:-1]) * count + b";"


def _zip(size: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", bytes(size))
    return file.getvalue()


def _wav() -> bytes:
    """Says that four gigabytes (all that its header can say) follow, of which there are two kilobytes."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8_000, 16_000, 2, 16)
    return b"RIFF\xff\xff\xff\xffWAVE" + form + b"data\xff\xff\xff\xff" + bytes(2_000)
