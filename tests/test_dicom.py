"""DICOM files as pictures: what a grey means, what is refused, and the way from a folder of them to a bundle."""

import csv
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image as Pillow
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

from endwise.dicom import is_dicom
from endwise.errors import BadValue, SetupError
from endwise.export import export
from endwise.modalities.image import Image
from endwise.propose import propose
from endwise.recipe import Recipe
from endwise.runner import Bundle
from endwise.serve.body import _pixels
from endwise.train import fit

RAMP = np.arange(0, 4096, 16).reshape(16, 16)  # 12 bits


def nothing(path: str) -> bytes:
    raise AssertionError(f"nothing should be fetched, but {path} was")


def dicom(values: np.ndarray, *, bits: int = 12, signed: bool = False, **said: Any) -> bytes:
    """A radiograph of these stored values [height, width] or [height, width, 3], with what else the file says."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = (
        DigitalXRayImageStorageForPresentation,
        ExplicitVRLittleEndian,
    )
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["picture"])
    one = pydicom.Dataset()
    one.file_meta = meta
    one.SOPClassUID, one.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    one.Rows, one.Columns = values.shape[:2]
    one.SamplesPerPixel = values.shape[2] if values.ndim > 2 else 1
    one.PhotometricInterpretation = "RGB" if values.ndim > 2 else "MONOCHROME2"
    if values.ndim > 2:
        one.PlanarConfiguration = 0
    one.BitsAllocated, one.BitsStored, one.HighBit = 8 * -(-bits // 8), bits, bits - 1
    one.PixelRepresentation = int(signed)
    one.PixelData = values.astype("<u1" if bits <= 8 else "<i2" if signed else "<u2").tobytes()
    for name, value in said.items():
        setattr(one, name, value)
    out = io.BytesIO()
    pydicom.dcmwrite(out, one, enforce_file_format=True)
    return out.getvalue()


def read(data: bytes, **fields: Any) -> np.ndarray:
    return Image(**fields).read(data, nothing)


# ---- what a grey means -----------------------------------------------------------------------------------------------


def test_without_a_window_black_to_white_is_all_that_the_bits_can_say() -> None:
    found = read(dicom(RAMP))
    assert (found.dtype, found.shape) == (np.dtype(np.uint16), (16, 16, 1))
    np.testing.assert_allclose(found[..., 0] / 65_535, RAMP / 4095, atol=1e-5)
    half = read(dicom(RAMP // 2))  # the same grey in every file, however bright the rest of it is
    np.testing.assert_allclose(half[..., 0] / 65_535, RAMP // 2 / 4095, atol=1e-5)


def test_where_low_is_white_it_is_turned_round() -> None:
    found = read(dicom(RAMP, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_allclose(found[..., 0] / 65_535, 1 - RAMP / 4095, atol=1e-5)


def test_a_window_is_of_the_values_after_slope_and_intercept() -> None:
    values = RAMP - 1024
    data = dicom(
        values, bits=16, signed=True, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=[40, 1], WindowWidth=[400, 2]
    )
    wanted = ((values * 2.0 - 100 - 39.5) / 399 + 0.5).clip(0, 1)
    np.testing.assert_allclose(read(data)[..., 0] / 65_535, wanted, atol=1e-5)
    exact = dicom(RAMP, WindowCenter=2000, WindowWidth=1000, VOILUTFunction="LINEAR_EXACT")
    np.testing.assert_allclose(read(exact)[..., 0] / 65_535, ((RAMP - 2000) / 1000 + 0.5).clip(0, 1), atol=1e-5)
    smooth = dicom(RAMP, WindowCenter=2000, WindowWidth=1000, VOILUTFunction="SIGMOID")
    np.testing.assert_allclose(read(smooth)[..., 0] / 65_535, 1 / (1 + np.exp(-4 * (RAMP - 2000) / 1000)), atol=1e-5)


def test_a_table_of_what_is_to_be_seen_comes_before_a_window() -> None:
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = [4096, 0, 10], (np.arange(4096) // 8)[::-1].tolist()
    table["LUTData"].VR = "US"
    data = dicom(RAMP, VOILUTSequence=[table], WindowCenter=1, WindowWidth=1)
    np.testing.assert_allclose(read(data)[..., 0] / 65_535, (4095 - RAMP) // 8 / 1023, atol=1e-5)


def test_colours_stay_as_they_are() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    assert np.array_equal(read(dicom(colours, bits=8)), colours)
    assert read(dicom(colours, bits=8), channels="grey").shape == (6, 5, 1)


def test_a_compressed_picture_is_read_as_well() -> None:
    smooth = np.tile(np.arange(0, 128, 4, dtype=np.uint8), (32, 1))
    jpeg = io.BytesIO()
    Pillow.fromarray(smooth).save(jpeg, "JPEG", quality=95)
    item = pydicom.dcmread(io.BytesIO(dicom(smooth, bits=8)))
    item.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    item.PixelData = pydicom.encaps.encapsulate([jpeg.getvalue()])
    item["PixelData"].VR = "OB"
    out = io.BytesIO()
    pydicom.dcmwrite(out, item, enforce_file_format=True)
    assert np.abs(read(out.getvalue())[..., 0] / 257.0 - smooth).max() < 4


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (dicom(np.zeros((8, 4)), NumberOfFrames=2, Rows=4), "holds 2 frames.*type: volume.*type: video"),
        (dicom(RAMP, PhotometricInterpretation="PALETTE COLOR"), "PALETTE COLOR.*save it as PNG"),
        (dicom(RAMP, Rows=20_000, Columns=20_000), "400,000,000 pixels, more than the 80 million"),
        (dicom(RAMP)[:-90], "cannot be read|damaged"),
        (dicom(RAMP)[:200], "damaged|no picture|cannot be read"),
    ],
    ids=["frames", "palette", "bomb", "cut", "cut in the header"],
)  # fmt: skip
def test_what_cannot_be_one_picture_is_refused_with_the_fix(data: bytes, told: str) -> None:
    with pytest.raises(BadValue, match=told):
        read(data)


def test_without_pydicom_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dicom(RAMP)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(SetupError, match=r"endwise\[medical\]"):
        read(data)


# ---- from files to answers -------------------------------------------------------------------------------------------


def test_files_of_dicom_are_proposed_as_pictures(tmp_path: Path) -> None:
    for label, value in (("clear", 100), ("shadow", 3000)):
        (tmp_path / label).mkdir()
        for number in range(6):
            (tmp_path / label / f"{number}.dcm").write_bytes(dicom(np.full((8, 8), value + number)))
    assert [item.type for item in propose(tmp_path).recipe.inputs.values()] == ["image"]
    rows = [{"picture": {"bytes": dicom(RAMP + number)}, "ill": "yn"[number % 2]} for number in range(12)]
    assert propose(rows).recipe.inputs["picture"].type == "image"


def test_a_server_counts_the_pixels_that_a_header_promises() -> None:
    assert _pixels(dicom(RAMP, Rows=20_000, Columns=20_000)) == 400_000_000
    assert _pixels(dicom(RAMP)[:140]) == 0


def test_from_radiographs_to_a_bundle_that_reads_them(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["picture", "ill"])
        for number in range(24):
            values = random.integers(0, 1500, (16, 16)) + 2000 * (number % 2)
            (tmp_path / f"{number}.dcm").write_bytes(dicom(values))
            table.writerow([f"{number}.dcm", "yes" if number % 2 else "no"])
    recipe = Recipe(
        data=str(tmp_path / "rows.csv"), inputs={"picture": "image"}, outputs={"ill": "category"},
        train={"steps": 8, "batch_size": 8, "size": "tiny"},
    )  # fmt: skip
    model = fit(recipe, out=tmp_path / "run")
    export(model, tmp_path / "bundle", examples=[{"picture": f"{number}.dcm"} for number in range(8)], base=tmp_path)
    assert "pydicom" in (tmp_path / "bundle" / "requirements.txt").read_text().split()
    row = {"picture": str(tmp_path / "3.dcm")}
    assert is_dicom(Path(row["picture"]).read_bytes())
    assert Bundle.load(tmp_path / "bundle").predict(row)["ill"]["value"] == model.predict(row)["ill"]
