"""A volume as a value: voxels on a grid that lies in the patient or the specimen, in millimetres.

Here: the grid's geometry (orientation, spacing), how a volume is kept as one array with it, resampling, an answer that is a
class for every voxel, and drawing three planes. Numpy and the standard library only, so that exported bundles
read and write the same. Not here: files (modalities/volume/files.py).

Axes are x, y, z and run to the right, to the front and up (RAS+, as in NIfTI) where a file says how it lies.
"""

import base64
import gzip
import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from endwise.drawing import Segmentation, antialias, nearest, palette, png, to_uri
from endwise.errors import BadValue, need

NIFTI_URI = "data:application/gzip;base64,"
AXES = 3
DTYPES = (np.dtype(np.uint8), np.dtype(np.int16), np.dtype(np.uint16), np.dtype(np.float32))  # that voxels are kept as
NIFTI_CODES: dict[np.dtype[Any], int] = {np.dtype(np.uint8): 2, np.dtype(np.uint16): 512}  # of NIfTI-1's header
HEADER = struct.Struct("<4sBBhiii12d")  # mark, dtype, has a place, channels (0: no axis of them), sizes, affine
MARK = b"vox1"
SIDE_PX, GAP_PX = 128, 4  # of a drawn plane: its longer side
COVER = 0.5  # how much of a class covers what is beneath
PLANES = ((2, (0, 1)), (1, (0, 2)), (0, (1, 2)))  # that are drawn: the axis that is looked along, those across and up
EDGES = (0.01, 0.99)  # shares of the voxels that are drawn black and white


@dataclass(frozen=True, eq=False)
class Scan:
    """Voxels [x, y, z, channel], or [x, y, z] of classes. affine: [3, 4], takes the middle of a voxel to millimetres; None
    where nobody knows. mean, deviation: of each channel over the whole volume, also in a part of it."""

    voxels: np.ndarray
    affine: np.ndarray | None = None
    mean: np.ndarray | None = None
    deviation: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along x, y and z."""
        found: tuple[int, ...] = self.voxels.shape[:AXES]
        return found

    @property
    def spacing_mm(self) -> tuple[float, ...] | None:
        """From one voxel to the next along x, y and z."""
        if self.affine is None:
            return None
        return tuple(np.linalg.norm(self.affine[:, :AXES], axis=0).tolist())

    # ---- as one array ----------------------------------------------------------------------------------------------

    def packed(self) -> np.ndarray:
        """uint8 [bytes]: the geometry, mean and deviation of each channel, the voxels."""
        channels = self.voxels.shape[AXES] if self.voxels.ndim > AXES else 0
        place = np.zeros(12) if self.affine is None else np.asarray(self.affine, np.float64).ravel()
        head = HEADER.pack(
            MARK, DTYPES.index(self.voxels.dtype), self.affine is not None, channels, *self.shape, *place
        )
        sums = np.zeros((2, channels)) if self.mean is None or self.deviation is None else [self.mean, self.deviation]
        head += np.asarray(sums, np.float64).tobytes()
        found = np.empty(len(head) + self.voxels.nbytes, np.uint8)
        found[: len(head)] = np.frombuffer(head, np.uint8)
        found[len(head) :].view(self.voxels.dtype).reshape(self.voxels.shape)[...] = self.voxels
        found.flags.writeable = False
        return found

    @classmethod
    def unpacked(cls, kept: np.ndarray) -> "Scan":
        """What `packed` gave; the voxels are a view, so that cutting a part of a mapped file reads that part alone."""
        mark, dtype, placed, channels, *rest = HEADER.unpack(kept[: HEADER.size].tobytes())
        assert mark == MARK
        start = HEADER.size + 16 * channels
        sums = np.frombuffer(kept[HEADER.size : start].tobytes(), np.float64).reshape(2, channels)
        shape = (*rest[:AXES], channels) if channels else tuple(rest[:AXES])
        voxels = kept[start:].view(DTYPES[dtype]).reshape(shape)
        affine = np.array(rest[AXES:]).reshape(AXES, AXES + 1) if placed else None
        return cls(voxels, affine, *(sums if channels else (None, None)))

    def standardised(self) -> np.ndarray:
        """float32: the voxels in deviations of the whole volume, of a constant one as far as they are from it."""
        assert self.mean is not None
        assert self.deviation is not None
        found, deviation = np.empty(self.voxels.shape, np.float32), np.where(self.deviation > 1e-9, self.deviation, 1.0)
        for own, plane in zip(found, self.voxels, strict=True):  # with 64 bits: of one plane at a time
            own[...] = (plane - self.mean) / deviation
        return found

    def measured(self) -> "Scan":
        """With the mean and the deviation of each channel."""
        axes = tuple(range(AXES))
        mean = self.voxels.mean(axes, dtype=np.float64)
        square = np.mean([np.square(plane - mean).mean(axes[:-1]) for plane in self.voxels], axis=0)
        return Scan(self.voxels, self.affine, mean, np.sqrt(square))

    def part(self, start: Sequence[int], shape: Sequence[int]) -> "Scan":
        """The voxels from `start` on; mean and deviation stay those of the whole."""
        voxels = self.voxels[tuple(slice(low, low + side) for low, side in zip(start, shape, strict=True))]
        affine = self.affine
        if affine is not None:
            affine = np.concatenate(
                [affine[:, :AXES], (affine[:, :AXES] @ np.array(start) + affine[:, AXES])[:, None]], 1
            )
        return Scan(voxels, affine, self.mean, self.deviation)

    # ---- geometry ---------------------------------------------------------------------------------------------------

    def upright(self) -> "Scan":
        """With its axes exchanged and turned round so that they run as nearly as can be to the right, to the front and up:
        no voxel is changed."""
        if self.affine is None:
            return self
        order, turned = orientation(self.affine)
        voxels = self.voxels.transpose(*order, *range(AXES, self.voxels.ndim))
        affine = self.affine[:, [*order, AXES]].copy()
        for axis, back in enumerate(turned):
            if back:
                affine[:, AXES] += affine[:, axis] * (voxels.shape[axis] - 1)
                affine[:, axis] *= -1
                voxels = np.flip(voxels, axis)
        return Scan(np.ascontiguousarray(voxels), affine)

    def resampled(self, spacing_mm: Sequence[float], *, classes: bool) -> "Scan":
        """At another spacing: linear between the middles of voxels, with a wider triangle where there become fewer; of
        classes the nearest. BadValue where the own spacing is not known."""
        own = self.spacing_mm
        if own is None or self.affine is None:
            raise BadValue(
                "the file says no spacing, and spacing_mm asks for one: give NIfTI, DICOM, or NPZ with 'spacing_mm'"
            )
        shape = [max(1, round(side * old / new)) for side, old, new in zip(self.shape, own, spacing_mm, strict=True)]
        if tuple(shape) == self.shape:
            return self
        ratio = np.array(self.shape) / np.array(shape)
        turn = self.affine[:, :AXES]
        affine = np.concatenate([turn * ratio, (self.affine[:, AXES] + turn @ ((ratio - 1) / 2))[:, None]], axis=1)
        return Scan(nearest(self.voxels, shape) if classes else resized(self.voxels, shape), affine)


def orientation(affine: np.ndarray) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """(which array axis runs along x, y and z most nearly; whether it runs the other way)."""
    directions = affine[:, :AXES] / np.maximum(np.linalg.norm(affine[:, :AXES], axis=0), 1e-12)
    orders = itertools.permutations(range(AXES))
    order = max(orders, key=lambda axes: sum(abs(directions[world, axis]) for world, axis in enumerate(axes)))
    return order, tuple(bool(directions[world, axis] < 0) for world, axis in enumerate(order))


def resized(voxels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Voxels [x, y, z, ...] at another resolution, with their own dtype."""
    found: Any = voxels
    for axis, side in enumerate(shape):
        if side != voxels.shape[axis]:
            found = np.moveaxis(
                np.tensordot(antialias(voxels.shape[axis], side), found.astype(np.float32), (1, axis)), 0, axis
            )
    if voxels.dtype.kind == "f":
        return np.ascontiguousarray(found, np.float32)
    limits = np.iinfo(voxels.dtype)
    return np.ascontiguousarray(np.rint(found).clip(limits.min, limits.max).astype(voxels.dtype))


# ---- an answer -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class VolumeSegmentation(Segmentation):
    """A class for every voxel, [x, y, z], upright as `Scan` has it. In JSON it is a NIfTI file in a data URI; `save` writes
    one, which lies where the scan does that it is about, as far as that is known. affine: where that is, as of a `Scan`."""

    suffixes: ClassVar[tuple[str, ...]] = (".nii.gz",)

    spacing_mm: tuple[float, ...] | None = None
    affine: np.ndarray | None = None

    def resized(self, shape: Sequence[int]) -> "VolumeSegmentation":
        if self.numbers.shape == tuple(shape):
            return self
        return VolumeSegmentation(nearest(self.numbers, shape), self.names, self.ignore)

    def nifti(self, affine: np.ndarray | None = None) -> bytes:
        """A compressed NIfTI-1 file. affine: [3, 4]; default: its own, with 0 where the place is not known; without one upright, with
        the spacing that is known, else 1 mm."""
        if affine is None:
            upright = np.concatenate([np.diag(self.spacing_mm or (1.0,) * AXES), np.zeros((AXES, 1))], axis=1)
            affine = upright if self.affine is None else np.nan_to_num(self.affine)
        return gzip.compress(
            nifti(self.numbers.astype(np.uint8 if self.numbers.max(initial=0) < 256 else np.uint16), affine), mtime=0
        )

    def save(self, path: str | Path, like: str | Path | None = None) -> Path:
        """Write a .nii.gz file, upright; its path. like: the NIfTI file that was segmented: the mask gets its axes and its voxels,
        too. BadValue where that cannot be read."""
        place = Path(path)
        if like is None:
            place.write_bytes(self.nifti())
            return place
        shape, affine = _grid_of(like)
        order, turned = orientation(affine)
        numbers = nearest(self.numbers, [shape[axis] for axis in order])
        for axis, back in enumerate(turned):
            numbers = np.flip(numbers, axis) if back else numbers
        own = VolumeSegmentation(np.ascontiguousarray(numbers.transpose(np.argsort(order))), self.names)
        place.write_bytes(own.nifti(affine))
        return place

    def to_json(self) -> str:
        """The NIfTI file as a data URI."""
        return NIFTI_URI + base64.b64encode(self.nifti()).decode("ascii")

    def png(self) -> bytes:
        """The three middle planes."""
        return png(np.concatenate(_framed(_planes(self.numbers, self.spacing_mm)), axis=1).astype(np.uint8), palette())

    def drawn(self) -> str:
        """The three middle planes as a PNG data URI."""
        return to_uri(self.png())

    def _repr_html_(self) -> str:
        return f'<img src="{self.drawn()}">'

    def over(self, kept: np.ndarray) -> str:
        """A PNG data URI: the three middle planes of a packed volume, with the classes over them but for the first."""
        under = Scan.unpacked(kept)
        numbers = nearest(self.numbers, under.shape)
        return to_uri(png(np.concatenate(_framed([
            _mixed(grey, own, list(self.names)[:1])
            for grey, own in zip(_planes(greys(under), under.spacing_mm), _planes(numbers, under.spacing_mm), strict=True)
        ]), axis=1)))  # fmt: skip


def greys(scan: Scan) -> np.ndarray:
    """uint8 [x, y, z] of the first channel, from its first to its last hundredth."""
    voxels = scan.voxels[..., 0].astype(np.float32)
    low, high = np.quantile(voxels[::2, ::2, ::2] if min(scan.shape) > 16 else voxels, EDGES)
    return np.asarray((255 * (voxels - low) / max(high - low, 1e-12)).clip(0, 255).astype(np.uint8))


def drawn(scan: Scan) -> str:
    """A PNG data URI of the three middle planes: from above, from the front, from the side."""
    return to_uri(png(np.concatenate(_framed(_planes(greys(scan), scan.spacing_mm)), axis=1)))


def drawn_through(
    scan: Scan, place: Sequence[float], boxes: Sequence[Sequence[float]]
) -> tuple[str, list[list[list[float]]]]:
    """(a PNG data URI of the three planes through a place, in voxels; of each box [low corner, high corner] where it lies on
    them: [x, y, width, height] in shares of the picture, of the planes that it reaches alone)."""
    at = [min(max(int(point), 0), side - 1) for point, side in zip(place, scan.shape, strict=True)]
    planes = _planes(greys(scan), scan.spacing_mm, at)
    wide, high = sum(plane.shape[1] + GAP_PX for plane in planes) - GAP_PX, max(len(plane) for plane in planes)
    found: list[list[list[float]]] = [[] for _ in boxes]
    left = 0
    for plane, (away, axes) in zip(planes, PLANES, strict=True):
        for places, box in zip(found, np.asarray(boxes, np.float64).reshape(-1, 2, AXES), strict=True):
            (x0, y0), (x1, y1) = (box[:, axes] / np.array(scan.shape)[list(axes)]).clip(0.0, 1.0)
            if box[0, away] < at[away] + 1 and box[1, away] > at[away] and x1 > x0 and y1 > y0:
                x, y, width, height = left + x0 * plane.shape[1], 1 - y1, (x1 - x0) * plane.shape[1], y1 - y0
                places.append([float(x / wide), float(y * len(plane) / high),
                               float(width / wide), float(height * len(plane) / high)])  # fmt: skip
        left += plane.shape[1] + GAP_PX
    return to_uri(png(np.concatenate(_framed(planes), axis=1))), found


def _planes(
    voxels: np.ndarray, spacing_mm: Sequence[float] | None, at: Sequence[int] | None = None
) -> list[np.ndarray]:
    """The planes (x, y), (x, z) and (y, z) through a voxel, by default the middle one; the second axis upwards, as large as
    they are in millimetres."""
    step = spacing_mm or (1.0,) * AXES
    found = []
    for away, (across, up) in PLANES:
        plane = voxels.take(voxels.shape[away] // 2 if at is None else at[away], axis=away).T[::-1]
        sides = [plane.shape[0] * step[up], plane.shape[1] * step[across]]
        found.append(nearest(plane, [max(1, round(SIDE_PX * side / max(sides))) for side in sides]))
    return found


def _framed(planes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Side by side: of one height, with a gap behind each but the last."""
    height = max(len(plane) for plane in planes)
    last = len(planes) - 1
    return [
        np.pad(plane, [(0, height - len(plane)), (0, GAP_PX if index < last else 0), *[(0, 0)] * (plane.ndim - 2)])
        for index, plane in enumerate(planes)
    ]


def _mixed(grey: np.ndarray, numbers: np.ndarray, bare: Sequence[int]) -> np.ndarray:
    """uint8 [height, width, 3]; where the number is one of `bare`, what is beneath shows as it is."""
    cover = np.where(np.isin(numbers, bare), 0.0, COVER)[..., None]
    mixed = (1 - cover) * grey[..., None] + cover * palette()[numbers.astype(np.int64) % 256]
    return np.asarray(mixed.astype(np.uint8))


def _grid_of(path: str | Path) -> tuple[tuple[int, ...], np.ndarray]:
    """(voxels along the axes of a NIfTI file as it is, its affine [3, 4])."""
    nibabel = need("nibabel", extra="medical", what="a NIfTI file")
    try:
        image = nibabel.load(path)
        return tuple(int(side) for side in image.shape[:AXES]), np.asarray(image.affine[:AXES], np.float64)
    except Exception as broken:  # of the file, of its header: nibabel has errors of its own for each
        raise BadValue(f"{path} is no NIfTI file that can be read: {broken}") from None


# ---- NIfTI-1 (one file, little-endian) ---------------------------------------------------------------------------------


def nifti(voxels: np.ndarray, affine: np.ndarray) -> bytes:
    """A NIfTI-1 file of uint8 or uint16 [x, y, z], its place said by the affine."""
    head = bytearray(352)  # 348 bytes and four that say that nothing follows
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, *voxels.shape, 1, 1, 1, 1)
    struct.pack_into("<hh", head, 70, NIFTI_CODES[voxels.dtype], 8 * voxels.dtype.itemsize)
    struct.pack_into("<8f", head, 76, 1.0, *np.linalg.norm(affine[:, :AXES], axis=0), 0, 0, 0, 0)
    struct.pack_into("<3f", head, 108, 352.0, 1.0, 0.0)
    head[123] = 2  # millimetres
    struct.pack_into("<hh", head, 252, 0, 1)
    struct.pack_into("<12f", head, 280, *affine.ravel())
    head[344:348] = b"n+1\0"
    return bytes(head) + voxels.astype(voxels.dtype.newbyteorder("<")).tobytes(order="F")


def uri_volume(text: str) -> np.ndarray:
    """The classes [x, y, z] in a data URI that `to_json` gave. Of no other: ValueError."""
    data = gzip.decompress(base64.b64decode(text.removeprefix(NIFTI_URI), validate=True))
    shape, (code,) = struct.unpack_from("<3h", data, 42), struct.unpack_from("<h", data, 70)
    dtype = next((item for item, own in NIFTI_CODES.items() if own == code), None)
    if dtype is None or data[344:347] != b"n+1":
        raise ValueError("a NIfTI file that was not written here")
    return np.frombuffer(data[352:], dtype.newbyteorder("<")).reshape(shape, order="F")


def volume_file(text: str) -> bytes:
    """The file in a data URI of a volume; ValueError when it is damaged."""
    return base64.b64decode(text.removeprefix(NIFTI_URI), validate=True)


__all__ = [
    "NIFTI_URI",
    "Scan",
    "VolumeSegmentation",
    "drawn",
    "drawn_through",
    "nifti",
    "orientation",
    "uri_volume",
    "volume_file",
]
