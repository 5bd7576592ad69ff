"""Films as people have them -> their pictures, one by one, no more of them in memory than are looked at (and as many again)."""

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from endwise.errors import BadValue, need
from endwise.modalities.base import Fetch, file_bytes
from endwise.modalities.image import MAX_PIXELS

STILLS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")
PACKED = b"PK\x03\x04"
MOVING = (b"GIF8", b"RIFF", b"\x89PNG", b"II*\x00", b"MM\x00*", b"\xff\xd8\xff")  # what Pillow opens
FORMATS = ("GIF", "WEBP", "PNG", "TIFF", "JPEG")
MOST_DECODED = 100_000  # frames of a file: more is an hour, or an attack
MOST_UNPACKED = 1 << 28  # bytes of a picture in a zip
USUAL_MS = 100  # of a frame of an animation that does not say how long it stands

ReadOne = Callable[[Any], np.ndarray]
Timed = tuple[float, Any]  # (second, picture)


def pictures_of(raw: Any, fetch: Fetch, read_one: ReadOne, *, fps: float | None, most: int | None) -> list[np.ndarray]:
    """The pictures that are looked at, read. fps: of what says when its pictures are, so many a second. BadValue."""
    if isinstance(raw, str) and raw.lstrip().startswith("["):
        try:
            raw = json.loads(raw)
        except (ValueError, RecursionError):
            raise BadValue(f"{raw[:60]!r} is no list of pictures: write it as JSON") from None
    if isinstance(raw, list | tuple) or (hasattr(raw, "ndim") and hasattr(raw, "__array__")):
        return _listed(raw, read_one, most)
    data = file_bytes(raw, fetch, "a film")
    if data.startswith(PACKED):
        return _listed(_Packed(data), read_one, most)
    timed = _animated(data) if data.startswith(MOVING) and data[8:12] != b"AVI " else _decoded(data)
    return _thinned(timed if fps is None else _at_rate(timed, fps), read_one, most)


def _listed(pictures: Sequence[Any], read_one: ReadOne, most: int | None) -> list[np.ndarray]:
    if isinstance(pictures, np.ndarray) and pictures.ndim not in (1, 3, 4):
        raise BadValue(f"an array of shape {list(pictures.shape)} is no film: [frame, height, width, channels]")
    found = []
    for place in chosen(len(pictures), most):
        if pictures[place] is None:
            raise BadValue(f"picture {place + 1} is missing")
        try:
            found.append(read_one(pictures[place]))
        except BadValue as wrong:
            raise BadValue(f"picture {place + 1}: {wrong}") from None
    return found


def chosen(count: int, most: int | None) -> list[int]:
    """Which of `count` pictures are looked at: all, or `most` spread evenly with the first and the last."""
    if most is None or count <= most:
        return list(range(count))
    return [count - 1] if most == 1 else [int(place) for place in np.linspace(0, count - 1, most).round()]


class _Packed(Sequence[bytes]):
    """The pictures in a zip, in the order of their names with numbers as numbers: 2.jpg before 10.jpg."""

    def __init__(self, data: bytes) -> None:
        try:
            self.archive = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError) as broken:
            raise BadValue(f"the zip is damaged: {broken}") from None
        names = [name for name in self.archive.namelist() if name.lower().endswith(STILLS) and "__MACOSX" not in name]
        if not names:
            raise BadValue(f"a zip without a picture ({', '.join(STILLS)})")
        self.names = sorted(
            names, key=lambda name: [(int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]
        )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, place: Any) -> Any:
        about = self.archive.getinfo(self.names[place])
        if about.file_size > MOST_UNPACKED:
            raise BadValue(f"{about.filename} unpacks to {about.file_size:,} bytes")
        try:
            return self.archive.read(about)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, ValueError) as broken:
            raise BadValue(f"{about.filename} cannot be unpacked: {broken}") from None


def _animated(data: bytes) -> Iterator[Timed]:
    """GIF, WebP, PNG: whole pictures, whatever part of the one before a frame changes."""
    from PIL import Image as Pillow

    second = 0.0
    try:
        with Pillow.open(io.BytesIO(data), formats=FORMATS) as file:
            if file.width * file.height > MAX_PIXELS:
                raise BadValue(f"pictures of {file.width} x {file.height} pixels")
            for number in range(min(getattr(file, "n_frames", 1), MOST_DECODED)):
                file.seek(number)
                picture = file.convert("RGBA" if file.has_transparency_data else "RGB")
                yield second, np.asarray(picture)
                second += (file.info.get("duration") or USUAL_MS) / 1000
    except (BadValue, MemoryError, GeneratorExit):
        raise
    except Exception as broken:  # decoders of damaged files promise no kind of exception
        raise BadValue(f"the film cannot be read: {broken}") from None


def _decoded(data: bytes) -> Iterator[Timed]:
    """A video file, by PyAV."""
    av = need("av", extra="video", what="a video file")
    try:
        with av.open(io.BytesIO(data)) as file:
            if not file.streams.video:
                raise BadValue("the file has no pictures")
            for number, frame in enumerate(file.decode(video=0)):
                if number >= MOST_DECODED:
                    raise BadValue(f"the film has more than {MOST_DECODED:,} pictures: cut it")
                if frame.width * frame.height > MAX_PIXELS:
                    raise BadValue(f"pictures of {frame.width} x {frame.height} pixels")
                yield float(frame.time or 0.0), frame.to_ndarray(format="rgb24")
    except (BadValue, MemoryError, GeneratorExit):
        raise
    except Exception as broken:  # as above
        raise BadValue(f"neither a zip, an animation nor a video file that can be read: {broken}") from None


def _at_rate(timed: Iterable[Timed], fps: float) -> Iterator[Timed]:
    """Of each 1 / fps seconds the first picture."""
    taken = -1
    for second, picture in timed:
        place = int(second * fps + 1e-6)
        if place > taken:
            taken = place
            yield second, picture


def _thinned(timed: Iterable[Timed], read_one: ReadOne, most: int | None) -> list[np.ndarray]:
    """`most` of pictures whose number is not known beforehand, about evenly spread: every other one goes whenever there are
    twice too many."""
    kept: list[np.ndarray] = []
    apart = 1
    for number, (_, picture) in enumerate(timed):
        if number % apart == 0:
            kept.append(read_one(picture))
            if most is not None and len(kept) >= 2 * most + 2:
                kept, apart = kept[::2], 2 * apart
    return [kept[place] for place in chosen(len(kept), most)]


__all__ = ["chosen", "pictures_of"]
