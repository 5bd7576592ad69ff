"""Volumes in files: NIfTI, a DICOM series, NPZ and NPY -> a `Scan`, upright. What a file cannot say is not guessed.

Nothing is unpacked to disk, no pickle is read, and no value is changed but by the slope and the intercept that the file
itself declares (DICOM's Hounsfield units, NIfTI's scale).
"""

import gzip
import io
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from endwise.errors import BadValue, need
from endwise.modalities.base import Fetch, file_bytes
from endwise.scan import AXES, DTYPES, Scan

MOST_BYTES = 4 << 30  # of one volume, unpacked: a file that becomes more is a mistake or an attack
MOST_CHANNELS = 32  # more is an axis of space or time
EXACT = 1 << 24  # whole numbers beyond are not kept by 32-bit floats
PARALLEL = 1e-3  # how far directions of slices may differ
EVEN = 0.02  # of the distance of two slices, relative: how much it may differ, and how far one may be shifted aside
SHAPES = "[x, y, z] or [x, y, z, channel]"
NPY, ZIP, GZIP = b"\x93NUMPY", b"PK\x03\x04", b"\x1f\x8b"
NAMES = ("voxels", "volume", "image", "data", "mask", "label")  # of the array in an NPZ that holds several


def scan_of(raw: Any, fetch: Fetch, *, placed: bool = False) -> Scan:
    """A raw value as a volume: a path (of a file, or of a folder with a DICOM series), bytes, an array, or a nibabel image.
    placed: of one that says its spacing and not its place there is no affine, since that would begin anywhere."""
    if isinstance(raw, Scan):
        return raw
    if hasattr(raw, "affine") and hasattr(raw, "dataobj"):  # an image of nibabel
        return _of_array(np.asanyarray(raw.dataobj), _affine(raw, placed)).upright()
    if isinstance(raw, list) and raw and all(isinstance(item, str) for item in raw):  # the slices of a series
        return _series({path: fetch(path) for path in raw}).upright()
    if isinstance(raw, np.ndarray | list):
        return _of_array(np.asarray(raw), None)
    return _decoded(file_bytes(raw, fetch, "a volume"), placed).upright()


def _decoded(data: bytes, placed: bool) -> Scan:
    if data[:6] == NPY:
        return _of_array(_npy(io.BytesIO(data)), None)
    if data[:4] == ZIP:
        return _zip(data, placed)
    if data[128:132] == b"DICM":
        return _series({"the file": data})
    if data[:2] == GZIP:
        data = _unzipped(data)
    if _is_nifti(data):
        return _nifti(data, placed)
    raise BadValue(
        f"not a NIfTI (.nii, .nii.gz), DICOM, NPZ or NPY file: it begins with {data[:12]!r}. A DICOM series is a folder or a zip of its files"
    )


def _of_array(voxels: np.ndarray, affine: Any) -> Scan:
    """Checked, with a dtype that voxels are kept as and a channel axis."""
    if voxels.ndim == AXES + 2 and voxels.shape[AXES] == 1:  # NIfTI counts time before channels
        voxels = voxels[..., 0, :]
    if voxels.ndim not in (AXES, AXES + 1) or 0 in voxels.shape:
        raise BadValue(f"an array of shape {list(voxels.shape)} is no volume: expected {SHAPES}")
    if voxels.ndim == AXES + 1 and voxels.shape[AXES] > MOST_CHANNELS:
        raise BadValue(f"{voxels.shape[AXES]} channels are more than {MOST_CHANNELS}: channels come last, {SHAPES}")
    if voxels.nbytes > MOST_BYTES:
        raise BadValue(f"the volume has {voxels.nbytes:,} bytes, more than {MOST_BYTES:,}: cut it")
    values = _kept(voxels if voxels.ndim > AXES else voxels[..., None])
    if affine is None:
        return Scan(values)
    place = np.asarray(affine, np.float64)
    if place.shape not in ((3, 4), (4, 4)) or not np.isfinite(place).all() or abs(np.linalg.det(place[:3, :3])) < 1e-12:
        raise BadValue(
            f"the affine {np.asarray(affine).tolist()} places no voxel: expected an invertible 4 x 4 matrix in millimetres"
        )
    return Scan(values, place[:3])


def _kept(voxels: np.ndarray) -> np.ndarray:
    """As one of DTYPES, no value changed."""
    if voxels.dtype in DTYPES[:3]:
        return voxels
    if voxels.dtype.kind == "b":
        return voxels.astype(np.uint8)
    if voxels.dtype.kind in "iu":
        low, high = int(voxels.min()), int(voxels.max())
        for dtype in DTYPES[:3]:
            if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
                return voxels.astype(dtype)
        if max(-low, high) > EXACT:
            raise BadValue(f"the voxels go from {low} to {high}: more than 24 bits cannot be kept")
        return voxels.astype(np.float32)
    if voxels.dtype.kind != "f":
        raise BadValue(f"an array of {voxels.dtype} is no volume: expected numbers")
    with np.errstate(over="ignore"):
        found = voxels.astype(np.float32, copy=False)
    odd = ~np.isfinite(found)
    if odd.any():
        where = [int(place) for place in np.argwhere(odd)[0]]
        raise BadValue(
            f"{int(odd.sum()):,} voxels are not finite, the first {voxels[tuple(where)]} at {where[:AXES]}: fill them in first"
        )
    return found


# ---- NIfTI -----------------------------------------------------------------------------------------------------------


def _is_nifti(data: bytes) -> bool:
    return len(data) > 348 and any(struct.unpack_from(f"{end}i", data)[0] in (348, 540) for end in "<>")


def _nifti(data: bytes, placed: bool) -> Scan:
    image = _nifti_image(data)
    shape = tuple(int(side) for side in image.shape)
    if np.prod(shape, dtype=np.float64) * 4 > MOST_BYTES:
        raise BadValue(f"a volume of shape {list(shape)} has more than {MOST_BYTES:,} bytes: cut it")
    try:
        values = np.asanyarray(image.dataobj)
    except Exception as broken:  # what a damaged file raises is nowhere promised
        raise BadValue(f"the NIfTI file is damaged: {broken}") from None
    return _of_array(values, _affine(image, placed))


def _affine(image: Any, placed: bool) -> np.ndarray | None:
    """Of an image of nibabel, which makes one up of the spacing where a NIfTI file has none."""
    made_up = hasattr(image, "get_sform") and not (image.header["sform_code"] or image.header["qform_code"])
    if made_up and (placed or not (image.header["pixdim"][1:4] > 0).all()):
        return None
    found: np.ndarray = image.affine
    return found


def _nifti_image(data: bytes) -> Any:
    nibabel = need("nibabel", extra="medical", what="a NIfTI file")
    kind = (
        nibabel.Nifti2Image
        if 540 in struct.unpack_from("<i", data) + struct.unpack_from(">i", data)
        else nibabel.Nifti1Image
    )
    try:
        return kind.from_bytes(data)
    except Exception as broken:
        raise BadValue(f"the NIfTI file is damaged: {broken}") from None


def _unzipped(data: bytes) -> bytes:
    try:
        with gzip.open(io.BytesIO(data)) as file:
            found = file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as broken:
        raise BadValue(f"the compressed file is damaged: {broken}") from None
    if len(found) > MOST_BYTES:
        raise BadValue(f"the file unpacks to more than {MOST_BYTES:,} bytes")
    return found


# ---- NPZ, NPY, and a series in a zip -----------------------------------------------------------------------------------


def _npy(file: Any) -> np.ndarray:
    try:
        return np.asarray(np.load(file, allow_pickle=False))
    except (ValueError, EOFError, OSError) as broken:
        raise BadValue(f"the NPY file is damaged, or holds objects: {broken}") from None


def _zip(data: bytes, placed: bool) -> Scan:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [
                item for item in archive.infolist() if not item.is_dir() and not item.filename.startswith("__MACOSX")
            ]
            if sum(item.file_size for item in members) > MOST_BYTES:
                raise BadValue(f"the zip unpacks to more than {MOST_BYTES:,} bytes")
            if members and all(item.filename.endswith(".npy") for item in members):
                return _npz({item.filename[:-4]: archive.read(item) for item in members}, placed)
            return _series({item.filename: archive.read(item) for item in members})
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error, EOFError) as broken:
        raise BadValue(f"the zip is damaged: {broken}") from None


def _npz(members: Mapping[str, bytes], placed: bool) -> Scan:
    arrays = {name: _npy(io.BytesIO(data)) for name, data in members.items()}
    affine, spacing = arrays.pop("affine", None), arrays.pop("spacing_mm", None)
    name = next((name for name in NAMES if name in arrays), None) if len(arrays) > 1 else next(iter(arrays), None)
    if name is None:
        raise BadValue(f"the NPZ holds {', '.join(members)}: expected one array, or one called {', '.join(NAMES)}")
    if affine is None and spacing is not None and not placed:
        if spacing.shape != (AXES,) or not (spacing > 0).all():
            raise BadValue(f"spacing_mm is {spacing.tolist()}: expected three numbers above 0, along x, y and z")
        affine = np.concatenate([np.diag(spacing), np.zeros((AXES, 1))], axis=1)
    return _of_array(arrays[name], affine)


# ---- DICOM -------------------------------------------------------------------------------------------------------------


def _series(files: Mapping[str, bytes]) -> Scan:
    """The slices of one series, by their places. BadValue where it is not one series, or a slice is missing."""
    slices = [_slice(name, data) for name, data in files.items() if name.rpartition("/")[2].upper() != "DICOMDIR"]
    slices = [item for item in slices if item is not None]
    if not slices:
        raise BadValue(f"none of {len(files)} files is a DICOM picture")
    series = Counter(str(item.SeriesInstanceUID) for item in slices)
    if len(series) > 1:
        raise BadValue(
            f"{len(series)} series in one folder ({', '.join(f'{count} slices' for count in series.values())}): a volume is one series"
        )
    if len(slices) < 2:
        raise BadValue("one slice is no volume: give all slices of the series; a single picture is type: image")
    first = slices[0]
    lacking = next(
        (name for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing") if name not in first),
        None,
    )
    if lacking is not None:
        raise BadValue(f"the slices do not say {lacking}, so that nobody knows where they lie")
    across, down = np.array(first.ImageOrientationPatient, np.float64).reshape(2, 3)
    normal = np.cross(across, down)
    for item in slices[1:]:
        if (item.Rows, item.Columns) != (first.Rows, first.Columns):
            raise BadValue(
                f"slices of {item.Rows} x {item.Columns} and of {first.Rows} x {first.Columns} pixels are in one series"
            )
        if np.abs(np.array(item.ImageOrientationPatient, np.float64) - [*across, *down]).max() > PARALLEL:
            raise BadValue("the slices of the series are not parallel")
    slices.sort(key=lambda item: float(normal @ np.array(item.ImagePositionPatient, np.float64)))
    along = _along(slices, normal)
    rows, columns = (float(value) for value in first.PixelSpacing)
    place = np.array(slices[0].ImagePositionPatient, np.float64)
    affine = np.stack([across * columns, down * rows, along, place], axis=1)
    affine[:2] *= -1  # DICOM's axes run to the left and to the back
    voxels = np.stack([_pixels(item).T for item in slices], axis=2)
    return _of_array(voxels, affine)


def _slice(name: str, data: bytes) -> Any:
    """A DICOM data set with a picture; None of any other file."""
    pydicom = need("pydicom", extra="medical", what="a DICOM series")
    try:
        found = pydicom.dcmread(io.BytesIO(data))
    except pydicom.errors.InvalidDicomError:
        return None
    except Exception as broken:
        raise BadValue(f"{name} is damaged: {broken}") from None
    if int(getattr(found, "NumberOfFrames", 1) or 1) > 1:
        raise BadValue(f"{name} holds {found.NumberOfFrames} frames in one file: convert it to NIfTI (dcm2niix)")
    return found if "PixelData" in found and "SeriesInstanceUID" in found else None


def _along(slices: Sequence[Any], normal: np.ndarray) -> np.ndarray:
    """From one slice to the next, in millimetres. BadValue where slices are shifted against each other: the grid of a volume
    has right angles, and what is read as if it had would be sheared."""
    step = _step(slices, normal)
    places = np.array([item.ImagePositionPatient for item in slices], np.float64)
    aside = np.diff(places - (places @ normal)[:, None] * normal, axis=0)
    most = float(np.linalg.norm(aside, axis=1).max())
    if most > EVEN * step:
        raise BadValue(
            f"each slice is shifted by up to {most:.2f} mm against the one before it, {step:.2f} mm away: the scanner's gantry was "
            f"tilted by about {np.degrees(np.arctan2(most, step)):.0f} degrees. Convert the series to NIfTI with dcm2niix, which undoes it"
        )
    return np.asarray((places[-1] - places[0]) / (len(places) - 1))


def _step(slices: Sequence[Any], normal: np.ndarray) -> float:
    """From one slice to the next in millimetres; the same between all."""
    places = [float(normal @ np.array(item.ImagePositionPatient, np.float64)) for item in slices]
    gaps = np.diff(places)
    step = float(np.median(gaps))
    odd = np.flatnonzero(np.abs(gaps - step) > EVEN * max(step, 1e-9))
    if step <= 1e-6 or len(odd):
        at = int(odd[0]) if len(odd) else 0
        what = "two slices lie in one place" if gaps[at] < 0.5 * step or step <= 1e-6 else "a slice is missing"
        raise BadValue(
            f"{what}: from {places[at]:.2f} to {places[at + 1]:.2f} mm, and {step:.2f} mm between the others"
        )
    return step


def _pixels(item: Any) -> np.ndarray:
    """By the slope and intercept that the slice declares."""
    try:
        values = item.pixel_array
    except Exception as broken:  # compressed, and no decoder installed; or damaged
        raise BadValue(f"the pixels of a slice cannot be read: {broken}") from None
    if values.ndim != 2:
        raise BadValue(f"a slice has the shape {list(values.shape)}: expected one grey value a pixel")
    slope, intercept = float(getattr(item, "RescaleSlope", 1)), float(getattr(item, "RescaleIntercept", 0))
    if slope == 1 and intercept == int(intercept):
        return np.asarray(values.astype(np.int32) + int(intercept))
    return np.asarray(values * slope + intercept, np.float32)


__all__ = ["scan_of"]
