"""Answers that are pictures: a mask of classes, and a picture. Numpy and the standard library only, so that an exported
bundle writes them too; only laying a mask over a photograph needs Pillow.
"""

import base64
import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

PNG_URI = "data:image/png;base64,"
SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, COLOUR, PALETTE = 0, 2, 3  # PNG's colour types
MOST_COLOURS = 256
SHOWN_CLASSES = 4
OVER_PX, OVER_SHARE = 240, 0.5  # of a mask laid over a photograph: the longer side, and how much of it covers


@dataclass(frozen=True, eq=False, repr=False)
class Drawing:
    """What a picture as a value can do: it is shown in notebooks, is a data URI in JSON, and can be saved as a PNG."""

    suffixes: ClassVar[tuple[str, ...]] = (".png",)

    def png(self) -> bytes:
        """A PNG file."""
        raise NotImplementedError

    def save(self, path: str | Path) -> Path:
        """Write the PNG file; its path."""
        place = Path(path)
        place.write_bytes(self.png())
        return place

    def to_json(self) -> str:
        """The PNG file as a data URI."""
        return to_uri(self.png())

    def _repr_html_(self) -> str:
        return f'<img src="{self.to_json()}">'


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation(Drawing):
    """A class for every place: numbers [height, width] as in the user's masks, and the name of each number. ignore: the
    number of places that nobody has labelled. Any number of axes; only two can be drawn."""

    numbers: np.ndarray
    names: Mapping[int, str]
    ignore: int | None = None
    compared: dict[int, tuple[Any, np.ndarray]] = field(default_factory=dict)  # with answers, for the metrics

    def __getitem__(self, name: str) -> np.ndarray:
        """bool: where the class of this name is."""
        numbers = [number for number, own in self.names.items() if own == name]
        if not numbers:
            raise KeyError(f"there is no class {name!r}: {', '.join(self.names.values())}")
        return np.isin(self.numbers, numbers)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numbers, dtype=dtype, copy=copy)

    @property
    def shares(self) -> dict[str, float]:
        """{class: share of the places}, of those that there are, the largest first."""
        found, counts = np.unique(self.numbers, return_counts=True)
        ranked = sorted(zip(found.tolist(), counts.tolist(), strict=True), key=lambda item: -item[1])
        return {self.names[number]: count / self.numbers.size for number, count in ranked if number in self.names}

    def places(self) -> np.ndarray:
        """uint8: the class of each place as its position in `names`; 254 of a number that is none, 255 of `ignore`."""
        table = np.full(int(max(self.numbers.max(initial=0), *self.names)) + 1, 254, np.uint8)
        table[list(self.names)] = np.arange(len(self.names), dtype=np.uint8)
        if self.ignore is not None and self.ignore < len(table):
            table[self.ignore] = 255
        return np.asarray(table[self.numbers])

    def resized(self, shape: Sequence[int]) -> "Segmentation":
        """The same at another resolution: at every place the nearest."""
        if self.numbers.shape == tuple(shape):
            return self
        return Segmentation(nearest(self.numbers, shape), self.names, self.ignore)

    def png(self) -> bytes:
        """Of 8 bits with a palette, whose numbers are the classes'; of 16 grey bits where there are more than 256."""
        if self.numbers.ndim != 2:
            raise ValueError(f"a mask of {self.numbers.ndim} axes is no picture: take its numbers")
        if self.numbers.max(initial=0) >= MOST_COLOURS:
            return png(self.numbers.astype(np.uint16))
        return png(self.numbers.astype(np.uint8), palette())

    def over(self, pixels: np.ndarray) -> str:
        """A JPEG data URI: the mask over its picture (uint8 or uint16 [height, width, channel]), reduced for a page.
        Where nobody has labelled, the picture shows as it is."""
        from PIL import Image

        grey = pixels if pixels.dtype == np.uint8 else (pixels // 257).astype(np.uint8)
        share = min(1.0, OVER_PX / max(grey.shape[:2]))
        size = [max(1, round(share * side)) for side in grey.shape[:2]]
        picture = Image.fromarray(np.ascontiguousarray(np.broadcast_to(grey, (*grey.shape[:2], 3))))
        small = np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)).astype(np.float32)
        numbers = nearest(self.numbers, size)
        cover = np.where(np.isin(numbers, list(self.names)), OVER_SHARE, 0.0)[..., None]
        mixed = (1 - cover) * small + cover * palette()[numbers.astype(np.int64) % MOST_COLOURS]
        file = io.BytesIO()
        Image.fromarray(mixed.astype(np.uint8)).save(file, "jpeg", quality=85)
        return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Segmentation)
            and dict(self.names) == dict(other.names)
            and np.array_equal(self.numbers, other.numbers)
        )

    def __hash__(self) -> int:
        return hash((self.numbers.shape, self.numbers.tobytes()))

    def __repr__(self) -> str:
        shares = [f"{name} {share:.0%}" for name, share in self.shares.items()]
        more = ", …" if len(shares) > SHOWN_CLASSES else ""
        size = " x ".join(map(str, self.numbers.shape[::-1]))
        return f"{type(self).__name__}({size}: {', '.join(shares[:SHOWN_CLASSES])}{more})"


@dataclass(frozen=True, eq=False, repr=False)
class Picture(Drawing):
    """Pixels: uint8 or uint16 [height, width, 1 or 3]."""

    pixels: np.ndarray

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.pixels, dtype=dtype, copy=copy)

    def png(self) -> bytes:
        """Of 8 or 16 bits, grey or colour."""
        return png(self.pixels)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picture) and np.array_equal(self.pixels, other.pixels)

    def __hash__(self) -> int:
        return hash((self.pixels.shape, self.pixels.tobytes()))

    def __repr__(self) -> str:
        height, width, channels = self.pixels.shape
        return f"Picture({width} x {height}, {'grey' if channels == 1 else 'colour'})"


def nearest(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """An array at another resolution, along as many of its first axes as `shape` has: at every place the nearest."""
    for axis, (old, new) in enumerate(zip(values.shape, shape, strict=False)):
        if old != new:
            values = values.take(((np.arange(new) + 0.5) * (old / new)).astype(np.int64).clip(0, old - 1), axis=axis)
    return values


def antialias(size: int, target: int) -> np.ndarray:
    """float32 [target, size]: the weights of a bilinear resize whose triangle is widened by the reduction."""
    scale = size / target
    centres = (np.arange(target) + 0.5) * scale
    distance = np.abs(np.arange(size)[None] + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights = np.maximum(0.0, 1.0 - distance)
    return np.asarray((weights / weights.sum(1, keepdims=True)).astype(np.float32))


def resizing(size: int, target: int) -> np.ndarray:
    """`antialias`, or the identity."""
    return np.eye(size, dtype=np.float32) if size == target else antialias(size, target)


def palette() -> np.ndarray:
    """uint8 [256, 3]: colours that differ from their neighbours, 0 black (the colours of Pascal VOC, Everingham 2010)."""
    number, colours = np.arange(MOST_COLOURS), np.zeros((MOST_COLOURS, 3), np.int64)
    for step in range(8):
        for channel in range(3):
            colours[:, channel] |= (number >> (3 * step + channel) & 1) << (7 - step)
    return colours.astype(np.uint8)


# ---- PNG (ISO/IEC 15948) ---------------------------------------------------------------------------------------------


def png(pixels: np.ndarray, colours: np.ndarray | None = None) -> bytes:
    """A PNG file of uint8 or uint16 [height, width] or [height, width, 1 or 3]; with `colours` [256, 3] the pixels are
    numbers of them."""
    flat = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    height, width = flat.shape[:2]
    kind = PALETTE if colours is not None else COLOUR if flat.ndim == 3 else GREY
    big = flat.astype(flat.dtype.newbyteorder(">")).reshape(height, -1)
    lines = np.zeros((height, 1 + big.shape[1] * big.itemsize), np.uint8)  # a 0 before each line: as it is
    lines[:, 1:] = np.ascontiguousarray(big).view(np.uint8)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8 * flat.dtype.itemsize, kind, 0, 0, 0))]
    if colours is not None:
        chunks.append((b"PLTE", colours.astype(np.uint8).tobytes()))
    chunks += [(b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b"")]
    return SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def uri_pixels(text: str) -> tuple[np.ndarray, bool]:
    """(pixels [height, width, ...], whether they are numbers of a palette) of a data URI that `to_json` gave. Of no other
    PNG: ValueError."""
    data, at, found = base64.b64decode(text.removeprefix(PNG_URI), validate=True), len(SIGNATURE), {}
    while at < len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        found[name] = data[at + 8 : at + 8 + size]
        at += size + 12
    width, height, bits, kind, *_ = struct.unpack(">IIBBBBB", found[b"IHDR"])
    lines = np.frombuffer(zlib.decompress(found[b"IDAT"]), np.uint8).reshape(height, -1)
    if lines[:, 0].any():
        raise ValueError("a PNG whose lines are filtered was not written here")
    values = np.ascontiguousarray(lines[:, 1:]).view(">u2" if bits == 16 else np.uint8)
    return values.reshape((height, width, 3) if kind == COLOUR else (height, width)), kind == PALETTE


def to_uri(data: bytes) -> str:
    """A PNG file as a data URI."""
    return PNG_URI + base64.b64encode(data).decode("ascii")


def from_uri(text: str) -> bytes:
    """The file in a data URI of a picture; ValueError when it is damaged."""
    return base64.b64decode(text.removeprefix(PNG_URI), validate=True)
