"""A DICOM file as a picture: a radiograph, a mammogram, a still of an ultrasound.

Numpy and pydicom (the extra `medical`) only, so that exported bundles read the same. Not here: the slices of a volume
(modalities/volume/files.py), pictures in other files (modalities/image).
"""

import io
from typing import Any

import numpy as np

from endwise.errors import BadValue, need

GREY, COLOUR = ("MONOCHROME1", "MONOCHROME2"), ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
MOST_BITS = 16
FULL = 65_535


def is_dicom(data: bytes) -> bool:
    """By its mark behind the preamble, whatever the file's name is."""
    return data[128:132] == b"DICM"


def promised_pixels(data: bytes) -> int:
    """Of all frames, by the header alone. BadValue where it cannot be read."""
    found = _opened(data, header=True)
    return int(found.get("Rows") or 0) * int(found.get("Columns") or 0) * int(found.get("NumberOfFrames") or 1)


def picture_of(data: bytes) -> np.ndarray:
    """Grey as uint16 [height, width, 1], black to white as a viewer shows it: by the rescale slope and intercept (or the
    table) that the file declares, then by its first table or window of what is to be seen; where it declares none, by all that its stored bits
    can say, the same for every file with as many. MONOCHROME1, where low is white, is turned round. Colour as it is, uint8 or
    uint16 [height, width, 3]. BadValue for several frames and for what has no picture."""
    item = _opened(data)
    if "PixelData" not in item:
        raise BadValue("the DICOM file holds no picture of whole numbers")
    frames, kind = int(item.get("NumberOfFrames") or 1), str(item.get("PhotometricInterpretation"))
    if frames > 1:
        raise BadValue(
            f"the DICOM file holds {frames} frames: save the one that is meant as a file of its own; slices of a volume are "
            "type: volume (converted to NIfTI, by dcm2niix), a film is type: video (converted to MP4)"
        )
    if kind not in GREY + COLOUR:
        raise BadValue(f"the colours of the DICOM file are {kind}: expected {', '.join(GREY + COLOUR)}; save it as PNG")
    bits, signed = int(item.BitsStored), bool(item.PixelRepresentation)
    if bits > MOST_BITS:
        raise BadValue(f"the DICOM file has {bits} bits a pixel: more than {MOST_BITS} cannot be read")
    values = _values(item)
    if kind in COLOUR:
        return values if values.dtype == np.uint8 else _whole(values / (2**bits - 1))
    low = -(2 ** (bits - 1)) if signed else 0
    levels = np.arange(low, low + 2**bits)
    table = _whole(_shares(levels, item))  # a value for each that can be stored: the picture itself stays small
    return np.ascontiguousarray(table[values.astype(np.int32).clip(low, levels[-1]) - low][..., None])


def _opened(data: bytes, *, header: bool = False) -> Any:
    pydicom = need("pydicom", extra="medical", what="a DICOM picture")
    try:
        return pydicom.dcmread(io.BytesIO(data), stop_before_pixels=header)
    except Exception as broken:  # what a damaged file raises is nowhere promised
        raise BadValue(f"the DICOM file is damaged: {broken}") from None


def _values(item: Any) -> np.ndarray:
    from pydicom.pixels.utils import pixel_array

    try:
        return np.asarray(pixel_array(item))  # colours as red, green and blue
    except Exception as broken:  # compressed, and no decoder installed; or damaged
        raise BadValue(f"the pixels of the DICOM file cannot be read: {broken}") from None


def _shares(levels: np.ndarray, item: Any) -> np.ndarray:
    """From black, 0, to white, 1, of every value that can be stored."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    try:
        real = np.asarray(apply_modality_lut(levels, item))
        if item.get("VOILUTSequence"):
            bits = int(item.VOILUTSequence[0].LUTDescriptor[2])
            found = apply_voi(np.rint(real).astype(np.int64), item) / (2**bits - 1)
        elif item.get("WindowCenter") is not None and item.get("WindowWidth") is not None:
            found = _windowed(real, item)
        else:
            found = (real - real.min()) / max(float(real.max() - real.min()), 1e-12)
    except (ValueError, TypeError, AttributeError, IndexError, NotImplementedError) as broken:
        raise BadValue(f"what the DICOM file says about its greys cannot be read: {broken}") from None
    return 1 - found if item.PhotometricInterpretation == "MONOCHROME1" else np.asarray(found)


def _windowed(real: np.ndarray, item: Any) -> np.ndarray:
    """The first window, by the formula that the file names (DICOM PS3.3, C.11.2.1)."""
    centre, width = (float(np.ravel(item[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
    formula = item.get("VOILUTFunction") or "LINEAR"
    if formula == "SIGMOID":
        return np.asarray(1 / (1 + np.exp((-4 * (real - centre) / max(width, 1e-6)).clip(-50, 50))))
    if formula == "LINEAR":
        centre, width = centre - 0.5, width - 1
    return np.asarray(((real - centre) / max(width, 1e-6) + 0.5).clip(0, 1))


def _whole(shares: np.ndarray) -> np.ndarray:
    return np.asarray(np.rint(shares.clip(0, 1) * FULL).astype(np.uint16))


__all__ = ["is_dicom", "picture_of", "promised_pixels"]
