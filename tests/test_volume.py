"""Volumes: files, geometry, errors, answers on the scan's own grid, windows. The usual promises are the contract suite's
(test_every_modality)."""

import base64
import io
import re
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy.special import softmax

import endwise as ew
from endwise import metrics
from endwise.batch import Batch, Ragged
from endwise.data.dataset import fit_contracts
from endwise.data.loader import Loader
from endwise.details import probe
from endwise.errors import BadValue, DataError, RecipeError
from endwise.export.graph import batch_of
from endwise.files import folder_bytes
from endwise.metrics import boxes as boxes_metrics
from endwise.modalities.base import Answer
from endwise.modalities.boxes import Boxes
from endwise.modalities.mask import chosen
from endwise.modalities.volume import Volume, seen_at_once
from endwise.modalities.volume.boxes import VolumeBoxes
from endwise.modalities.volume.files import scan_of
from endwise.modalities.volume.mask import VolumeMask
from endwise.nn.placing import laid
from endwise.nn.pyramid import Conv3d
from endwise.nn.volumes import VolumeChanges, augment, behind, laid_out
from endwise.objective import Randomness, Seen
from endwise.patches import cores, covering, drawn, words
from endwise.priors import Shape
from endwise.report import build
from endwise.rows import collate, file_fetcher, window_by_window
from endwise.runner import differences
from endwise.scan import NIFTI_URI, Scan, VolumeSegmentation, nifti, uri_volume
from endwise.shelf import Shelf
from endwise.testing import examples

NAMES = {0: "rest", 1: "organ"}
VOXELS = np.arange(5 * 6 * 7).reshape(5, 6, 7).astype(np.int16)


def nothing(path: str) -> bytes:
    raise BadValue(f"no file {path}")


def nifti_bytes(voxels: np.ndarray, affine: np.ndarray) -> bytes:
    return bytes(nibabel.Nifti1Image(voxels, affine).to_bytes())


def lying(order: tuple[int, ...], signs: tuple[int, ...], steps: tuple[float, ...]) -> np.ndarray:
    """An affine whose array axis order[world] runs along world, backwards where the sign is negative."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for world, axis in enumerate(order):
        affine[world, axis] = signs[world] * steps[axis]
    affine[:3, 3] = (7, -3, 11)
    return affine


def dicom_slices(voxels: np.ndarray, step: float = 2.5) -> dict[str, bytes]:
    """A CT series of voxels [column, row, slice], 0.5 x 0.75 mm across and down; the files in no order."""
    series, found = generate_uid(entropy_srcs=["series"]), {}
    for index in range(voxels.shape[2]):
        meta = pydicom.dataset.FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(index)])
        one = pydicom.Dataset()
        one.file_meta = meta
        one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        one.SeriesInstanceUID, one.Modality = series, "CT"
        one.ImagePositionPatient, one.ImageOrientationPatient = [10.0, 20.0, 5.0 + step * index], [1, 0, 0, 0, 1, 0]
        one.PixelSpacing, one.RescaleSlope, one.RescaleIntercept = [0.75, 0.5], 1, -1024
        one.Rows, one.Columns = voxels.shape[1], voxels.shape[0]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit, one.PixelRepresentation = 15, 0
        one.PixelData = np.ascontiguousarray(voxels[:, :, index].T).astype("<u2").tobytes()
        out = io.BytesIO()
        pydicom.dcmwrite(out, one, enforce_file_format=True)
        found[f"{(index * 7) % 11:02d}.dcm"] = out.getvalue()
    return found


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


# ---- files and geometry ----------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(3)), st.tuples(*[st.sampled_from([-1, 1])] * 3))
def test_however_a_file_lies_the_same_place_has_the_same_voxel(order: list[int], signs: tuple[int, ...]) -> None:
    """The voxels that lie upright, stored turned and mirrored, are read as they were."""
    stored = np.transpose(VOXELS, np.argsort(order))
    for world, axis in enumerate(order):
        stored = np.flip(stored, axis) if signs[world] < 0 else stored
    steps = [0.0] * 3
    for world, axis in enumerate(order):
        steps[axis] = (1.0, 2.0, 3.0)[world]
    scan = scan_of(nifti_bytes(np.ascontiguousarray(stored), lying(tuple(order), signs, tuple(steps))), nothing)
    assert np.array_equal(scan.voxels[..., 0], VOXELS)
    assert scan.spacing_mm == pytest.approx((1.0, 2.0, 3.0))
    assert scan.affine is not None
    assert (np.diag(scan.affine[:, :3]) > 0).all()


def test_upright_is_as_nibabel_has_it() -> None:
    affine = lying((2, 0, 1), (-1, 1, -1), (2.0, 0.5, 1.0))
    affine[:3, :3] = np.array([[0.98, 0.17, 0], [-0.17, 0.98, 0], [0, 0, 1]]) @ affine[:3, :3]  # a little oblique
    wanted = nibabel.as_closest_canonical(nibabel.Nifti1Image(VOXELS, affine))
    scan = scan_of(nifti_bytes(VOXELS, affine), nothing)
    assert np.array_equal(scan.voxels[..., 0], np.asanyarray(wanted.dataobj))
    np.testing.assert_allclose(scan.affine, wanted.affine[:3], atol=1e-5)


def test_every_file_gives_the_same_voxels(tmp_path: Path) -> None:
    npy, npz = io.BytesIO(), io.BytesIO()
    np.save(npy, VOXELS)
    np.savez_compressed(npz, volume=VOXELS, spacing_mm=[1.0, 2.0, 3.0])
    (tmp_path / "scan.npy").write_bytes(npy.getvalue())
    nibabel.save(nibabel.Nifti1Image(VOXELS, np.diag([1.0, 2.0, 3.0, 1.0])), tmp_path / "scan.nii.gz")
    raws: list[Any] = [
        VOXELS, VOXELS.tolist(), VOXELS[..., None], VOXELS.astype(np.float64), VOXELS.astype(np.int64), npy.getvalue(),
        npz.getvalue(), "scan.npy", "scan.nii.gz", {"path": "scan.nii.gz"}, nibabel.load(tmp_path / "scan.nii.gz"),
    ]  # fmt: skip
    declared = Volume()
    for raw in raws:
        scan = Scan.unpacked(declared.read(raw, file_fetcher(tmp_path)))
        assert np.array_equal(scan.voxels[..., 0], VOXELS)
    assert scan.spacing_mm == pytest.approx((1.0, 2.0, 3.0))
    assert Scan.unpacked(declared.read(npz.getvalue(), nothing)).spacing_mm == pytest.approx((1.0, 2.0, 3.0))
    assert Scan.unpacked(declared.read(VOXELS, nothing)).spacing_mm is None


def test_a_series_is_put_in_order_in_hounsfield_units(tmp_path: Path) -> None:
    voxels = np.arange(6 * 4 * 5).reshape(6, 4, 5) + 1000
    files = dicom_slices(voxels)
    folder = tmp_path / "series"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "notes.txt").write_text("not a slice")
    for raw in ("series", zipped(files), [f"series/{name}" for name in files], folder_bytes(folder)):
        scan = scan_of(raw, file_fetcher(tmp_path))
        assert scan.spacing_mm == pytest.approx((0.5, 0.75, 2.5))
        assert scan.voxels.dtype == np.int16
        # columns run to the left and rows to the back in DICOM: upright they are turned round
        assert np.array_equal(scan.voxels[..., 0], voxels[::-1, ::-1] - 1024)


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"no volume at all", "not a NIfTI"),
        (np.zeros((4, 5)), "is no volume"),
        (np.zeros((4, 5, 6, 60)), "channels come last"),
        (np.zeros((0, 5, 6)), "is no volume"),
        (np.full((2, 2, 2), np.nan), "8 voxels are not finite"),
        (np.full((2, 2, 2), "a"), "expected numbers"),
        (nifti(np.zeros((2, 2, 2), np.uint8), np.eye(3, 4))[:355], "damaged"),
        (b"\x1f\x8b broken", "damaged"),
        (zipped({"a.txt": b"x"}), "none of 1 files is a DICOM"),
        (zipped(dict(list(dicom_slices(np.ones((3, 3, 4))).items())[:1])), "one slice is no volume"),
        (object(), "expected the path or the bytes"),
    ],
)  # fmt: skip
def test_what_is_no_volume_is_refused_with_the_reason(raw: Any, told: str) -> None:
    with pytest.raises(BadValue, match=told):
        Volume().read(raw, nothing)


def test_a_missing_slice_and_two_series_are_refused() -> None:
    files = dicom_slices(np.ones((3, 3, 6)))
    without = {name: data for index, (name, data) in enumerate(files.items()) if index != 4}
    with pytest.raises(BadValue, match=r"a slice is missing: from 12.50 to 17.50 mm, and 2.50 mm"):
        Volume().read(zipped(without), nothing)
    with pytest.raises(BadValue, match="two slices lie in one place"):
        Volume().read(zipped({**files, "again.dcm": files["00.dcm"]}), nothing)


def test_a_series_of_a_tilted_gantry_is_refused_and_positions_that_were_rounded_are_not() -> None:
    def shifted(aside: float) -> dict[str, bytes]:
        files = {}
        for number, (name, data) in enumerate(dicom_slices(VOXELS).items()):
            item = pydicom.dcmread(io.BytesIO(data))
            x, y, z = map(float, item.ImagePositionPatient)
            item.ImagePositionPatient = [x, y + aside * number, z]
            out = io.BytesIO()
            item.save_as(out)
            files[name] = out.getvalue()
        return files

    with pytest.raises(BadValue, match=r"tilted by about 1[0-9] degrees.*dcm2niix"):
        scan_of(zipped(shifted(0.6)), nothing)
    exact, rounded = (scan_of(zipped(shifted(aside)), nothing) for aside in (0.0, 0.01))
    assert exact.affine is not None
    assert rounded.affine is not None
    ends = [
        scan.affine @ [0, 0, VOXELS.shape[2] - 1, 1] for scan in (exact, rounded)
    ]  # the last slice is where it says
    assert np.abs(ends[1] - ends[0]).max() == pytest.approx(0.01 * (VOXELS.shape[2] - 1), abs=1e-6)


def test_spacing_is_brought_to_what_is_declared_and_must_be_one_otherwise() -> None:
    ramp = np.broadcast_to(np.arange(20.0)[:, None, None], (20, 6, 8)).copy()
    declared = Volume(spacing_mm=(2.0, 1.0, 1.0))
    scan = Scan.unpacked(declared.read(nifti_bytes(ramp, np.eye(4)), nothing))
    assert scan.shape == (10, 6, 8)
    assert scan.spacing_mm == pytest.approx((2.0, 1.0, 1.0))
    assert scan.affine is not None
    assert scan.affine[0, 3] == pytest.approx(0.5)  # the middle of the first of two voxels
    np.testing.assert_allclose(scan.voxels[2:-2, 0, 0, 0], 2 * np.arange(2, 8) + 0.5, atol=1e-4)
    with pytest.raises(BadValue, match="says no spacing"):
        declared.read(ramp, nothing)
    plain = Volume()
    mixed = [plain.read(nifti_bytes(ramp, np.diag([step, 1, 1, 1])), nothing) for step in (1.0, 1.0, 3.0)]
    with pytest.raises(DataError, match=r"Fix: write spacing_mm: \[1.0, 1.0, 1.0\]"):
        plain.fit(mixed, missing=0, role="input")
    contract = plain.fit(mixed[:2], missing=0, role="input")
    assert contract.spacing_mm == (1.0, 1.0, 1.0)
    with pytest.raises(BadValue, match="declare spacing_mm"):
        plain.transform(mixed[2], contract)


def test_a_volume_is_scaled_by_itself_or_by_all() -> None:
    values = [Volume().read(np.random.default_rng(seed).normal(100 * seed, 5, (4, 5, 6)), nothing) for seed in (1, 2)]
    each, every = Volume(), Volume(scale="all")
    contract = each.fit(values, missing=0, role="input")
    own = each.transform(values[1], contract)
    assert (own.dtype, own.shape) == (np.float32, (4, 5, 6, 1))
    assert abs(own.mean()) < 1e-4
    assert own.std() == pytest.approx(1, abs=1e-3)
    assert every.transform(values[1], contract).mean() == pytest.approx(200, abs=2)
    assert contract.mean[0] == pytest.approx(150, abs=2)
    small = [Volume(scale="all").read(np.full((3, 3, 3), 7, np.uint8), nothing)]
    bytes_only = every.fit(small, missing=0, role="input")
    assert bytes_only.bits == 8
    assert every.transform(every.read(np.full((3, 3, 3), 7.0), nothing), bytes_only).dtype == np.uint8
    with pytest.raises(BadValue, match="whole numbers from 0 to 255"):
        every.transform(every.read(np.full((3, 3, 3), 0.5), nothing), bytes_only)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"seen_voxels": (60, 64, 64)}, r"\[64, 64, 64\]"),
        ({"spacing_mm": (1.0, 1.0)}, "three numbers above 0"),
        ({"zoom_share": 2.0}, "a share from 0 to 0.5"),
        ({"turn_deg": 200.0}, "0 to 180 degrees"),
    ],
)
def test_a_wrong_declaration_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        Volume(**fields)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=3, max_size=3), st.integers(512, 100_000))
def test_what_is_seen_at_once_holds_the_volume_or_is_as_large_as_may_be(size: list[int], most: int) -> None:
    found = seen_at_once(size, most)
    assert all(side % 8 == 0 for side in found)
    whole = [-(-side // 8) * 8 for side in size]
    assert list(found) == whole or np.prod(found) <= most


# ---- masks -----------------------------------------------------------------------------------------------------------


def test_a_mask_must_have_the_voxels_of_its_volume() -> None:
    declared = VolumeMask(on="scan")
    scan = Volume().read(nifti_bytes(VOXELS, np.eye(4)), nothing)
    mask = (VOXELS > 50).astype(np.uint8)
    assert declared.apart(declared.read(nifti_bytes(mask, np.eye(4)), nothing), scan) is None
    assert declared.apart(declared.read(mask, nothing), scan) is None
    assert "the mask is 7 x 6 x 4" in str(declared.apart(declared.read(mask[:4], nothing), scan))
    wide = declared.apart(declared.read(nifti_bytes(mask, np.diag([2, 1, 1, 1])), nothing), scan)
    assert "2 x 1 x 1 mm and those of scan 1 x 1 x 1 mm" in str(wide)
    with pytest.raises(BadValue, match=r"numbers such as 0\.5"):
        declared.read(mask * 0.5, nothing)
    with pytest.raises(BadValue, match="2 channels"):
        declared.read(np.zeros((3, 3, 3, 2), np.uint8), nothing)


def test_a_mask_that_its_file_puts_elsewhere_is_refused() -> None:
    """Axes are turned by each file's own affine: a mask with another one would be learnt mirrored or shifted."""
    declared = VolumeMask(on="scan")
    place = np.array([[0.8, 0, 0, -90], [0, 0.8, 0, 40], [0, 0, 2.5, 7], [0, 0, 0, 1]])
    scan = Volume().read(nifti_bytes(VOXELS, place), nothing)
    mask = (VOXELS > 50).astype(np.uint8)

    def told(affine: np.ndarray) -> str | None:
        return declared.apart(declared.read(nifti_bytes(mask, affine), nothing), scan)

    rounded, mirrored, shifted = place + 1e-3, place.copy(), place.copy()
    mirrored[0] *= -1
    shifted[2, 3] += 5
    assert told(place) is None
    assert told(rounded) is None
    assert "begins at -90 40 12 mm and scan at -90 40 7 mm" in str(told(shifted))
    assert "save it with the place of its volume" in str(told(mirrored))
    answer = VolumeSegmentation(mask, {0: "a", 1: "b"}, spacing_mm=(0.8, 0.8, 2.5))
    for raw in (answer, answer.to_json()):  # which was made on its volume and does not know where that lies
        assert declared.apart(declared.read(raw, nothing), scan) is None


def test_an_answer_is_saved_on_the_grid_of_its_scan(tmp_path: Path) -> None:
    affine = lying((1, 2, 0), (-1, 1, -1), (2.0, 0.5, 1.0))
    given = (VOXELS % 3 == 0).astype(np.uint8)
    (tmp_path / "scan.nii").write_bytes(nifti_bytes(VOXELS, affine))
    upright = VolumeMask().read(nifti_bytes(given, affine), nothing)
    answer = VolumeSegmentation(Scan.unpacked(upright).voxels, NAMES)
    back = nibabel.load(answer.save(tmp_path / "mask.nii.gz", like=tmp_path / "scan.nii"))
    assert np.array_equal(np.asanyarray(back.dataobj), given)
    np.testing.assert_allclose(back.affine, affine, atol=1e-6)
    alone = nibabel.load(answer.save(tmp_path / "alone.nii.gz"))
    assert np.array_equal(np.asanyarray(alone.dataobj), answer.numbers)
    (tmp_path / "note.txt").write_text("hello")
    with pytest.raises(BadValue, match="no NIfTI file that can be read"):
        answer.save(tmp_path / "mask.nii.gz", like=tmp_path / "note.txt")


def test_an_answer_in_json_is_read_back_and_two_are_the_same_but_for_a_hundredth() -> None:
    numbers = np.zeros((6, 7, 8), np.uint8)
    numbers[2:4, 2:5, 1:7] = 1
    answer = VolumeSegmentation(numbers, NAMES)
    text = answer.to_json()
    assert text.startswith(NIFTI_URI)
    assert np.array_equal(uri_volume(text), numbers)
    assert np.array_equal(Scan.unpacked(VolumeMask().read(text, nothing)).voxels, numbers)
    assert np.array_equal(Scan.unpacked(VolumeMask().read(answer, nothing)).voxels, numbers)
    near, far = numbers.copy(), numbers.copy()
    near[0, 0, :3], far[0, 0, :] = 1, 1

    def told(item: np.ndarray) -> dict[str, Any]:
        return {"mask": {"value": VolumeSegmentation(item, NAMES).to_json()}}

    assert not differences([told(numbers)], [told(near)])
    assert differences([told(numbers)], [told(far)])
    assert differences([told(numbers)], [told(numbers[:5])])


# ---- the network -----------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    sides=st.tuples(*[st.integers(1, 6)] * 3), channels=st.sampled_from([(1, 8), (5, 16), (16, 32)]), stride=st.sampled_from([1, 2]),
    rows=st.integers(1, 4), last=st.booleans(),
)  # fmt: skip
def test_convolutions_in_16_bits_have_the_gradients_of_32_however_few_the_cells(
    sides: tuple[int, int, int], channels: tuple[int, int], stride: int, rows: int, last: bool
) -> None:
    torch.manual_seed(0)
    layer = Conv3d(*channels, 3, stride=stride, padding=1)
    layout = torch.channels_last_3d if last else torch.contiguous_format
    x = torch.randn(rows, channels[0], *sides).contiguous(memory_format=layout).requires_grad_()
    found = []
    for enabled in (False, True):
        layer.zero_grad()
        x.grad = None
        poison = [torch.full((2**power,), torch.nan) for power in range(4, 16) for _ in range(3)]
        del poison  # what is left unset is then not a number
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = layer(x)
        out.float().square().sum().backward()
        assert layer.weight.grad is not None and x.grad is not None
        found.append((layer.weight.grad.clone(), x.grad.clone()))
    for exact, near in zip(*found, strict=True):
        assert (exact - near).abs().max() <= 0.05 * exact.abs().max()


def test_edges_are_as_far_apart_as_they_are_in_millimetres() -> None:
    """One voxel off is 1 mm along every axis of cubes of 1 mm; of slices that are 5 mm apart it is 5."""

    def score(axis: int, spacing: tuple[float, ...] | None, off: int) -> float:
        true, said = np.zeros((2, 20, 20, 20), np.uint8)
        true[(slice(None),) * axis + (slice(10, None),)] = 1
        said[(slice(None),) * axis + (slice(10 + off, None),)] = 1
        truth, answer = (VolumeSegmentation(numbers, NAMES, spacing_mm=spacing) for numbers in (true, said))
        return metrics.value(metrics.boundary_f1(), [truth], [Answer(answer)])

    cubes = [
        score(0, (1.0, 1.0, 1.0), 1),
        score(2, (1.0, 1.0, 1.0), 1),
        score(2, None, 1),
        score(0, (5.0, 5.0, 5.0), 1),
    ]
    assert cubes == [1.0] * 4
    assert score(0, (1.0, 1.0, 5.0), 1) == 1.0
    assert score(2, (1.0, 1.0, 5.0), 1) == 0.0
    assert score(2, (1.0, 1.0, 5.0), 0) == 1.0


# ---- boxes -----------------------------------------------------------------------------------------------------------


def test_boxes_of_volumes_have_six_numbers() -> None:
    plain, sizes = VolumeBoxes(), VolumeBoxes(format="cxcywh")
    box = {"label": "lesion", "box": [1, 2, 3, 5, 8, 9]}
    named = {"label": "lesion", "xmin": 1, "ymin": 2, "zmin": 3, "xmax": 5, "ymax": 8, "zmax": 9}
    middle = {"label": "lesion", "box": [3, 5, 6, 4, 6, 6]}
    values = [plain.read([box], nothing), plain.read([named], nothing), sizes.read([middle], nothing)]
    contract = plain.fit(values, missing=0, role="output")
    for value in values:
        assert plain.transform(value, contract).tolist() == [[0, 1, 2, 3, 5, 8, 9]]
    assert contract.medians == ((4.0, 6.0, 6.0),)
    assert "about 4 x 6 x 6 px" in plain.summary(contract)
    for wrong, told in (
        ({"label": "lesion", "box": [1, 2, 3, 4]}, "expected six numbers"),
        ({"label": "lesion", "box": [1, 2, 9, 5, 8, 3]}, "its z goes from 9 to 3"),
    ):
        with pytest.raises(BadValue, match=told):
            plain.read([wrong], nothing)
    with pytest.raises(RecipeError, match="label, xmin, ymin, zmin, xmax, ymax, zmax"):
        VolumeBoxes(columns=("label", "xmin", "ymin", "xmax", "ymax"))


def test_a_box_finds_a_thing_when_its_middle_lies_in_it() -> None:
    truth = [{"label": "a", "box": [10, 10, 10, 16, 16, 16]}]

    def score(*boxes: list[float]) -> float:
        found = [{"label": "a", "box": box, "score": 0.9 - 0.1 * rank} for rank, box in enumerate(boxes)]
        return metrics.value(boxes_metrics.froc_centre(["a"]), [truth], [Answer(found)])

    assert score([12, 12, 12, 13, 13, 13]) == 1.0
    assert score([9, 9, 9, 13.5, 13.5, 13.5]) == 1.0
    assert score([2, 2, 2, 4, 4, 4]) == 0.0
    assert score([16, 12, 12, 18, 14, 14]) == 0.0
    late = score([2, 2, 2, 4, 4, 4], [12, 12, 12, 14, 14, 14])
    assert late == pytest.approx(4 / 7)  # found behind one false alarm: from one a scan on


def test_sensitivity_is_told_at_every_rate_of_false_alarms_and_froc_is_their_mean() -> None:
    """Four scans with a thing each: half are found before any false alarm, one behind two of them, one never."""
    truths = [[{"label": "a", "box": [10, 10, 10, 16, 16, 16]}]] * 4
    right, wrong = [11.0, 11, 11, 15, 15, 15], [30.0, 30, 30, 36, 36, 36]
    said = [[(right, 0.9)], [(right, 0.8)], [(wrong, 0.7), (wrong, 0.6), (right, 0.5)], []]
    answers = [Answer([{"label": "a", "box": box, "score": score} for box, score in one]) for one in said]
    found = boxes_metrics.sensitivities(["a"], truths, answers, by_middles=True)
    assert found == [(0.125, 0.5), (0.25, 0.5), (0.5, 0.75), (1, 0.75), (2, 0.75), (4, 0.75), (8, 0.75)]
    assert np.mean([share for _, share in found]) == metrics.value(boxes_metrics.froc_centre(["a"]), truths, answers)
    overlapping = boxes_metrics.sensitivities(
        ["a"], truths, answers, by_middles=False
    )  # eight 27ths are less than half
    assert overlapping == [(alarms, 0.0) for alarms, _ in found]
    assert boxes_metrics.sensitivities(["a"], [[]] * 4, answers, by_middles=True) == []


def test_boxes_move_with_the_volume_and_come_back() -> None:
    """What is learnt of a box that training has moved is where it is seen; an answer is in voxels of the file."""
    torch.manual_seed(0)
    voxels, boxes = examples.lesions()
    recipe = ew.Recipe(
        name="lesions", data=[{"in memory": True}], inputs={"scan": "volume"}, outputs={"lesions": "volume_boxes"},
        train={"size": "tiny"}, trunk={"width": 32, "depth": 1},
    )  # fmt: skip
    scan, lesions = recipe.inputs["scan"], recipe.outputs["lesions"]
    given = [scan.read(item, nothing) for item in voxels[1:5]]
    wanted = [lesions.read(item, nothing) for item in boxes[1:5]]
    contracts = {
        "scan": scan.fit(given, missing=0, role="input"), "lesions": lesions.fit(wanted, missing=0, role="output")
    }  # fmt: skip
    head = ew.Model.build(recipe, contracts, seed=0).network.head("lesions")
    sizes = torch.tensor([item.shape for item in voxels[1:5]])
    target = Ragged.stack([lesions.transform(item, contracts["lesions"]) for item in wanted], 1).to("cpu")
    _, seen = laid_out(torch.zeros(4, 1, 20, 20, 20), sizes, (24, 24, 24), 1.0)
    flip = torch.eye(3, 4).repeat(4, 1, 1)
    flip[:, 0, 0], flip[:, 0, 3] = -1.0, 1.0
    prediction = {"seen": behind(seen, flip), "sizes": sizes}
    on_canvas, real = head._laid(prediction, target.values, target.sizes)  # type: ignore[operator]
    back = head._in_picture(prediction, on_canvas)  # type: ignore[operator]
    torch.testing.assert_close(back[real], target.values[..., 1:][real])


# ---- where a volume lies on its canvas ---------------------------------------------------------------------------------


def test_voxels_are_laid_in_the_middle_and_found_again() -> None:
    """Whatever its size, a volume that fits is on the canvas voxel for voxel, and an answer comes back to the same ones."""
    sizes = torch.tensor([[5, 6, 7], [8, 8, 3], [2, 5, 8]])
    x = torch.rand(3, 1, 8, 8, 8) + 1
    shown, seen = laid_out(x, sizes, (8, 8, 8), 1.0)
    for row, (a, b, c) in enumerate(sizes.tolist()):
        own = x[row, :, :a, :b, :c]
        assert shown[row][shown[row] > 0].numel() == own.numel()
        torch.testing.assert_close(shown[row][shown[row] > 0], own.flatten())
        classes = (own[0] > 1.5).long()
        scores = torch.stack([1 - (shown[row, 0] > 1.5).float(), (shown[row, 0] > 1.5).float()]) * 20
        found, sure = chosen(scores.numpy(), (a, b, c), seen[row].double().numpy())
        assert np.array_equal(found, classes.numpy())
        assert sure > 0.99
    target, inside = laid(x[:, 0], sizes, seen, (8, 8, 8))
    assert torch.equal(inside, shown[:, 0] > 0)
    torch.testing.assert_close(torch.where(inside, target, 0.0), shown[:, 0])


def test_a_larger_volume_is_reduced_alike_along_every_axis() -> None:
    shown, seen = laid_out(torch.ones(1, 1, 32, 16, 8), torch.tensor([[32, 16, 8]]), (16, 16, 16), 1.0)
    assert (shown > 0.5).sum() == 16 * 8 * 4
    torch.testing.assert_close(torch.diagonal(seen[0, :, :3]), torch.tensor([1.0, 2.0, 4.0]))


def test_a_target_moves_with_the_volume_that_is_changed_in_training() -> None:
    torch.manual_seed(0)
    x = torch.zeros(4, 1, 24, 20, 16)
    x[:, :, 6:18, 5:12, 4:12] = 1.0
    sizes = torch.tensor([[24, 20, 16]]).repeat(4, 1)
    changes = VolumeChanges(mirror=True, shift=0.1, zoom=0.2, turn_deg=20.0, light=0.0)
    shown, seen = laid_out(x, sizes, (24, 24, 16), 1.0)
    moved, own = augment(shown, changes)
    target, inside = laid(x[:, 0], sizes, behind(seen, own), (24, 24, 16))
    agree = ((moved[:, 0] > 0.5) == (target > 0.5)) | ~inside
    assert agree.float().mean() > 0.99
    assert (moved - shown).abs().mean() > 0.02


# ---- a whole recipe --------------------------------------------------------------------------------------------------


def blocks(count: int = 24) -> tuple[list[bytes], list[bytes], list[str]]:
    """Noisy scans with a bright block, the mask of it, and whether it lies left or right."""
    random, scans, masks, sides = np.random.default_rng(0), [], [], []
    for index in range(count):
        shape = tuple(int(side) for side in random.integers(12, 17, 3))
        mask = np.zeros(shape, np.uint8)
        start = 1 if index % 2 else shape[0] - 7
        mask[start : start + 6, 3:9, 3:9] = 1
        scan = 100 * mask + random.normal(300, 20, shape)
        affine = np.diag([1.0, 1.0, 2.0, 1.0])
        scans.append(nifti_bytes(scan.astype(np.float32), affine))
        masks.append(nifti_bytes(mask, affine))
        sides.append("left" if index % 2 else "right")
    return scans, masks, sides


def test_from_scans_to_masks_and_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scans, masks, sides = blocks()
    recipe = ew.Recipe(
        name="blocks", data={"path": {"scan": scans, "organ": masks, "side": sides}}, inputs={"scan": "volume"},
        outputs={"organ": {"type": "volume_mask", "classes": ["rest", "organ"]}, "side": "category"},
        train={"size": "tiny", "steps": 10, "batch_size": 8}, trunk={"width": 32, "depth": 1},
    )  # fmt: skip
    model = ew.fit(recipe, out=tmp_path / "run")
    answer = model.predict({"scan": scans[0]})
    organ = answer["organ"]
    assert isinstance(organ, VolumeSegmentation)
    assert organ.numbers.shape == Scan.unpacked(Volume().read(scans[0], nothing)).shape
    assert organ.spacing_mm == pytest.approx((1.0, 1.0, 2.0))
    dataset = ew.prepare(recipe)
    scored = ew.evaluate(model, dataset, dataset.splits.val)
    assert {"dice", "dice_organ", "boundary_f1_organ"} <= set(scored.outputs["organ"])
    assert scored.baselines["organ"]["classical"]["dice"].value > 0.8  # type: ignore[index]
    page = build(ew.Run.open(tmp_path / "run")).read_text(encoding="utf-8")
    assert page.count("data:image/png") >= 3  # planes of the scan, of the truth and of the answer


# ---- what is known of a shape ------------------------------------------------------------------------------------------


def charged(mask: np.ndarray, prior: Shape, spacing: float = 1.0) -> float:
    """What a prior says to a network that is sure of this mask."""
    recipe = ew.Recipe(
        name="known", data=[{"in memory": True}], inputs={"scan": "volume"},
        outputs={"organ": ew.VolumeMask(classes=("rest", "organ"))}, train={"size": "tiny"},
        trunk={"width": 32, "depth": 1},
    )  # fmt: skip
    fields = {**recipe.inputs, **recipe.outputs}
    place = np.diag([spacing] * 3 + [1.0])[:3]
    values = {
        "scan": Scan(mask[..., None].astype(np.uint8), place).measured(), "organ": Scan(mask.astype(np.uint8), place)
    }  # fmt: skip
    contracts = {
        name: item.fit([values[name].packed()], missing=0, role="input" if name == "scan" else "output")
        for name, item in fields.items()
    }
    sizes = torch.tensor([mask.shape])
    shown, seen = laid_out(torch.from_numpy(mask)[None, None].float(), sizes, (16, 16, 16), 1.0)
    scores = torch.cat([torch.zeros_like(shown), 60 * shown - 30], dim=1).requires_grad_()
    predictions = {"organ": {"scores": scores, "seen": seen, "sizes": sizes}}
    model = ew.Model.build(recipe, contracts, seed=0)
    batch = Batch({}, {}, {}, torch.ones(1), torch.zeros(1))
    drawn_before = Randomness(torch.device("cpu"))
    (cost,) = prior.loss(Seen(model.network, batch, predictions, fields, contracts, 0.0, drawn_before))
    assert cost.requires_grad
    return float(cost.detach())


def test_a_shape_is_charged_for_what_it_is_not() -> None:
    ball = np.linalg.norm(np.indices((13, 14, 15)).T - np.array([6, 7, 7]), axis=-1).T <= 4.5
    two = np.zeros_like(ball)
    two[:3, :3, :3] = two[-3:, -3:, -3:] = True
    size = int(ball.sum())
    known: dict[str, Any] = {"of": "organ", "label": "organ"}
    assert charged(ball, Shape(**known, size=(0.9 * size, 1.1 * size), spread=4.0, rough=1.1)) == 0
    assert charged(ball, Shape(**known, size=(0.5 * size, 0.8 * size))) == pytest.approx(0.25, abs=0.01)
    assert charged(ball, Shape(**known, size=(2.0 * size, 4.0 * size))) == pytest.approx(0.25, abs=0.01)
    assert charged(ball, Shape(**known, size=(7.9 * size, 8.1 * size)), spacing=2.0) == 0  # cubic millimetres
    assert charged(two, Shape(**known, spread=4.0)) > 0.5
    assert charged(np.random.default_rng(0).random(ball.shape) < 0.3, Shape(**known, rough=1.5)) > 0.5
    with pytest.raises(RecipeError, match="one of organ, rest"):
        charged(ball, Shape(of="organ", label="liver", rough=1.5))


@pytest.mark.parametrize(
    ("fields", "told"),
    [({}, "at least one"), ({"size": (3.0, 2.0)}, "the smaller one first"), ({"rough": 0.5}, "a number above 1")],
)
def test_a_shape_that_says_nothing_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        Shape(of="m", label="organ", **fields).check({}, {"m": VolumeMask()})


# ---- larger than what is looked at at once -----------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=3, max_size=3), st.lists(st.integers(4, 24), min_size=3, max_size=3))
def test_windows_cover_all_of_a_value_and_overlap(shape: list[int], most: list[int]) -> None:
    sides = [min(own, side) for own, side in zip(shape, most, strict=True)]
    starts = covering(shape, sides)
    seen = np.zeros(shape, int)
    for start in starts:
        place = tuple(slice(low, low + side) for low, side in zip(start, sides, strict=True))
        assert seen[place].shape == tuple(sides)
        seen[place] += 1
    assert seen.min() >= 1
    assert len(set(starts)) == len(starts)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=3, max_size=3), st.integers(0, 9999))
def test_a_patch_lies_in_its_value_and_around_what_is_sought(shape: list[int], key: int) -> None:
    sides = [min(own, 16) for own in shape]
    random = words((key, 1, 2), 6)
    around = tuple(int(word) % side for word, side in zip(random[:3], shape, strict=True))
    for wanted in (None, around):
        start = drawn(shape, sides, random[3:], wanted)
        assert all(0 <= low <= own - side for low, own, side in zip(start, shape, sides, strict=True))
        assert wanted is None or all(low <= at < low + side for low, at, side in zip(start, wanted, sides, strict=True))
    assert drawn(shape, sides, words((key, 1, 2), 6)[3:], None) == drawn(shape, sides, random[3:], None)


def test_windows_that_answer_the_truth_become_the_truth() -> None:
    """Whatever the sizes: each window's scores on its own canvas, put together, and two rows in one batch."""
    random = np.random.default_rng(0)
    contract = VolumeMask().fit(
        [Scan(random.integers(0, 3, (4, 4, 4)).astype(np.uint8)).packed()], missing=0, role="output"
    )
    rows, truths = [], []
    for shape in ((20, 9, 13), (7, 22, 8)):
        truth, sides = random.integers(0, 3, shape), tuple(min(own, 8) for own in shape)
        parts = []
        for start in covering(shape, sides):
            own = truth[tuple(slice(low, low + side) for low, side in zip(start, sides, strict=True))]
            shown, seen = laid_out(
                torch.from_numpy(own)[None, None].float() + 1, torch.tensor([own.shape]), (8, 8, 8), 1.0
            )
            scores = np.stack([10.0 * (shown[0, 0].round().numpy() == number + 1) for number in range(3)])
            parts.append((start, {"scores": scores, "seen": seen[0].numpy(), "sizes": np.array(own.shape)}))
        rows.append(VolumeMask().merged(iter(parts), shape))
        truths.append(truth)
        alone = VolumeMask().write(VolumeMask().concluded(iter(parts), shape), contract)
        assert alone.value == VolumeMask().write(rows[-1], contract).value
        assert alone.confidence == pytest.approx(VolumeMask().write(rows[-1], contract).confidence, rel=1e-5)
    batch = VolumeMask().stacked(rows)
    for index, truth in enumerate(truths):
        written = VolumeMask().write({key: value[index] for key, value in batch.items()}, contract)
        assert np.array_equal(written.value.numbers, truth)
        assert np.array_equal(VolumeMask().write(rows[index], contract).value.numbers, truth)


def test_an_answer_to_a_large_volume_holds_scores_of_a_few_planes_of_it() -> None:
    """Windows whose overlaps disagree: the classes are those of all scores together, in a fraction of their memory."""
    shape, side, classes = (320, 24, 24), 16, 8
    starts = covering(shape, (side,) * 3)
    here = {"seen": np.eye(3, 4), "sizes": np.array((side,) * 3)}

    def windows() -> Any:
        random = np.random.default_rng(3)
        for start in starts:
            yield start, {**here, "scores": random.normal(0, 3, (classes, side, side, side)).astype(np.float32)}

    scores = VolumeMask().merged(windows(), shape)["scores"]
    tracemalloc.start()
    try:
        found = VolumeMask().concluded(windows(), shape)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.array_equal(found["classes"], scores.argmax(0))
    assert float(found["sure"]) == pytest.approx(float(softmax(scores, axis=0).max(0).mean()), rel=1e-5)
    assert peak < scores.nbytes / 2


def test_scoring_many_volumes_takes_the_memory_of_one() -> None:
    """Of volumes that are answered in windows, everything that the network says of one is held at a time."""
    random = np.random.default_rng(0)
    targets = list(random.integers(0, 4, (12, 26, 26, 26)).astype(np.uint8))
    large = [(100 * item + random.normal(0, 9, item.shape)).astype(np.float32) for item in targets]
    recipe = ew.Recipe(
        name="many", data={"path": {"scan": large, "organ": targets}}, inputs={"scan": ew.Volume(seen_voxels=(16, 16, 16))},
        outputs={"organ": "volume_mask"}, train={"size": "tiny"}, trunk={"width": 16, "depth": 1},
    )  # fmt: skip
    dataset = ew.prepare(recipe)
    model = ew.Model.build(recipe, fit_contracts(recipe, dataset), seed=0)
    peaks, found = [], []
    for rows in (range(1), range(2), range(8)):
        tracemalloc.start()
        try:
            found.append(ew.evaluate(model, dataset, np.array(rows), details=False, baselines=False))
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[2] < 1.3 * peaks[1]
    answer = model.predict({"scan": large[0]})["organ"]
    own = metrics.value(metrics.mean_iou(), [VolumeSegmentation(targets[0], answer.names)], [Answer(answer)])
    assert found[0].outputs["organ"]["miou"].value == pytest.approx(own, rel=1e-4)


def test_large_answers_lie_in_a_file_and_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, random = Shelf(), np.random.default_rng(0)
    answers = [
        Answer(VolumeSegmentation(random.integers(0, 2, (64, 64, 64)).astype(kind), NAMES, spacing_mm=(1.0, 2.0, 3.0)))
        for kind in (np.uint8, np.uint16, np.uint8)
    ]
    tracemalloc.start()
    try:
        kept = [shelf.put(one) for one in answers]
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    del shelf
    assert [one.value for one in kept] == [one.value for one in answers]
    assert all(one.value.spacing_mm == (1.0, 2.0, 3.0) for one in kept)
    small = Answer(VolumeSegmentation(np.zeros((4, 4, 4), np.uint8), NAMES))
    assert Shelf().put(small) is small

    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    assert Shelf().put(answers[0]) is answers[0]


def test_a_volume_larger_than_what_is_looked_at_is_learnt_in_patches(tmp_path: Path) -> None:
    scans, masks, sides = blocks(12)
    given = {"scan": scans, "organ": masks, "side": sides}
    outputs: dict[str, Any] = {"organ": "volume_mask"}
    recipe = ew.Recipe(
        name="patches", data={"path": given}, inputs={"scan": ew.Volume(seen_voxels=(8, 8, 8))}, outputs=outputs,
        train={"size": "tiny", "steps": 2, "batch_size": 4}, trunk={"width": 32, "depth": 1},
    )  # fmt: skip
    dataset = ew.prepare(recipe)
    contracts = fit_contracts(recipe, dataset)
    loader = Loader(dataset, recipe, contracts, dataset.splits.train, batch_size=4, seed=1, shuffle=True)
    shares = []
    for step in range(6):
        batch, again = loader.batch(step), loader.batch(step)
        assert np.array_equal(batch.inputs["scan"].values, again.inputs["scan"].values)
        scan, organ = batch.inputs["scan"].values[..., 0], batch.targets["organ"].values
        assert scan.shape[1:] == organ.shape[1:] == (8, 8, 8)
        assert scan[organ == 1].mean() > 1 + scan[organ == 0].mean()  # the mask of the same patch
        shares.append((organ == 1).any((1, 2, 3)).mean())
    assert np.mean(shares) > 0.5
    model = ew.fit(recipe, out=tmp_path / "run")
    rows = [{"scan": scans[index]} for index in range(3)]
    answers = model.predict(rows)
    for answer, row in zip(answers, rows, strict=True):
        assert answer["organ"].numbers.shape == Scan.unpacked(Volume().read(row["scan"], nothing)).shape
        assert answer["organ"] == model.predict(row)["organ"]
        whole = model.decoded(model.predicted([_row(model, row["scan"])]))  # as evaluation sees it
        assert model.given(whole, 1)["organ"][0].value == answer["organ"]
    scored = ew.evaluate(model, dataset, dataset.splits.val)
    assert np.isfinite(scored.outputs["organ"]["dice"].value)
    both = recipe.model_copy(update={"outputs": {**recipe.outputs, "side": ew.Category()}})
    known = ew.prepare(both)
    learnt = fit_contracts(both, known)
    with pytest.raises(DataError, match="outputs that are cut with it"):
        Loader(known, both, learnt, known.splits.train, batch_size=4, seed=1, shuffle=True)


def spots(count: int, shape: tuple[int, ...], seed: int) -> tuple[list[np.ndarray], list[list[dict[str, Any]]]]:
    """Volumes with a bright cube of five voxels somewhere, and the box around it."""
    random, volumes, boxes = np.random.default_rng(seed), [], []
    for _ in range(count):
        voxels = random.normal(100, 2, shape).astype(np.float32)
        low = [int(random.integers(0, side - 4)) for side in shape]
        voxels[tuple(slice(begin, begin + 5) for begin in low)] = 140
        volumes.append(voxels)
        boxes.append([{"label": "spot", "box": [*low, *(begin + 5 for begin in low)]}])
    return volumes, boxes


def test_a_box_anywhere_in_a_volume_larger_than_what_is_looked_at_is_found_in_its_own_voxels(tmp_path: Path) -> None:
    volumes, boxes = spots(16, (34, 20, 16), 0)
    recipe = ew.Recipe(
        name="spots", data={"path": {"scan": volumes, "spots": boxes}}, outputs={"spots": "volume_boxes"},
        inputs={"scan": ew.Volume(seen_voxels=(16, 16, 16))},
        train={"size": "tiny", "steps": 45, "batch_size": 8, "augment": False}, trunk={"width": 32, "depth": 1},
    )  # fmt: skip
    model = ew.fit(recipe, out=tmp_path / "run")
    item, contract = model.recipe.outputs["spots"], model.contracts["spots"]
    others, truths = spots(4, (41, 24, 19), 7)
    for voxels, truth in zip(others, truths, strict=True):
        answer = model.predict({"scan": voxels}).answers["spots"]
        surest = max([*answer.value, *answer.detail.get("more", ())], key=lambda box: box["score"])
        assert boxes_metrics.overlaps([surest["box"]], [truth[0]["box"]]) > 0.4
        assert boxes_metrics.centred([surest["box"]], [truth[0]["box"]]) > 0.5
        answered = window_by_window(
            model.recipe.inputs, {"spots": item}, model.contracts, _row(model, voxels), _decoding(model)
        )
        assert not differences(
            [{"spots": answer.to_dict()}], [{"spots": item.write(answered["spots"], contract).to_dict()}]
        )
    together = model.predict([{"scan": others[0]}, {"scan": others[1][:30]}])
    assert not differences(
        [{"spots": together[0].answers["spots"].to_dict()}],
        [{"spots": model.predict({"scan": others[0]}).answers["spots"].to_dict()}],
    )
    dataset = ew.prepare(recipe)
    scored = ew.evaluate(model, dataset, dataset.splits.val)
    assert {"froc", "ap50"} <= set(scored.outputs["spots"])
    assert np.isfinite(scored.outputs["spots"]["froc"].value)
    assert model.run is not None
    page = build(model.run).read_text(encoding="utf-8")
    assert '<rect class="right"' in page
    assert "Sensitivity of spots by false alarms" in page
    assert re.search(r"truth <span class=\"right\">spot at \d+, \d+, \d+ \(5 x 5 x 5\)</span>", page)
    assert "&quot;box&quot;: [" not in page


def test_the_report_shows_the_planes_through_what_was_missed_and_what_is_not_there() -> None:
    voxels = np.zeros((60, 50, 40, 1), np.uint8)
    corners = [[4, 30, 6, 10, 38, 12], [40, 8, 20, 47, 16, 26], [25, 25, 25, 28, 28, 28]]
    truth = [{"label": "lesion", "box": box} for box in corners]
    for low_x, low_y, low_z, high_x, high_y, high_z in corners:
        voxels[low_x:high_x, low_y:high_y, low_z:high_z] = 255
    answer = [
        {"label": "lesion", "box": [39, 8, 19, 47, 16, 26], "score": 0.9},
        {"label": "lesion", "box": [50, 40, 30, 54, 44, 36], "score": 0.3},
    ]
    kept = Scan(voxels, np.eye(3, 4) * [[1], [1], [2]]).packed()
    views = VolumeBoxes().views(truth, answer, kept)
    outlined = [
        ([item["label"] for item in view["truth"]], [item["score"] for item in view["answer"]]) for view in views
    ]
    assert outlined == [
        (["lesion"] * 3, []),
        (["lesion"] * 3, []),
        ([], [0.3] * 3),
    ]  # two missed, one that is not there
    for view in views[:2]:
        with Pillow.open(io.BytesIO(base64.b64decode(view["data"].partition(",")[2]))) as picture:
            pixels = np.asarray(picture.convert("L"))
        inside = np.zeros(pixels.shape, bool)
        for item in view["truth"]:
            x, y, width, height = np.array(item["box"]) * np.tile(pixels.shape[::-1], 2)
            inside[round(y) : round(y + height), round(x) : round(x + width)] = True
        assert pixels[inside].mean() > 240  # the outline lies around what is bright
        assert pixels[~inside].mean() < 15
    shares = [{**item, "box": (np.array(item["box"]) / np.tile([60, 50, 40], 2)).tolist()} for item in truth]
    assert VolumeBoxes(unit="share").views(shares, [], kept)[0] == VolumeBoxes().views(truth, [], kept)[0]


def test_boxes_that_lie_outside_of_their_volume_are_counted_by_check() -> None:
    volumes, boxes = spots(16, (20, 16, 12), 0)
    recipe = {"inputs": {"scan": "volume"}, "outputs": {"spots": "volume_boxes"}}

    def told(spots: list[list[dict[str, Any]]]) -> list[str]:
        report = ew.check(ew.Recipe(name="s", data={"path": {"scan": volumes, "spots": spots}}, **recipe))
        return [finding.message for finding in report.findings if finding.kind == "outside"]

    assert told(boxes) == []
    moved = [{**boxes[3][0], "box": [15.0, 2, 2, 22, 7, 7]}, {"label": "spot", "box": [40.0, 2, 2, 44, 7, 7]}]
    (message,) = told([*boxes[:3], moved, *boxes[4:]])
    assert "2 boxes lie partly or wholly outside of scan" in message
    assert "in 1 of 16 rows" in message


def _row(model: ew.Model, voxels: np.ndarray) -> dict[str, np.ndarray | None]:
    scan = model.recipe.inputs["scan"]
    return {"scan": scan.transform(scan.read(voxels, nothing), model.contracts["scan"])}


def _decoding(model: ew.Model) -> Any:
    """As an exported graph does it: every window is decoded before they are put together."""

    def decoded(rows: list[Any]) -> Any:
        fields, present = collate(model.recipe.inputs, model.contracts, rows)
        return model.decoded(model.predictions(batch_of(fields, present)))

    return decoded


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=3, max_size=3), st.lists(st.integers(4, 24), min_size=3, max_size=3))
def test_every_place_is_in_the_core_of_one_window_which_holds_it(shape: list[int], most: list[int]) -> None:
    sides = [min(own, side) for own, side in zip(shape, most, strict=True)]
    starts = covering(shape, sides)
    owners = np.zeros(shape, int)
    along = [np.arange(side) + 0.5 for side in shape]
    for start, (low, high) in zip(starts, cores(starts, shape), strict=True):
        own = [(places >= least) & (places < most) for places, least, most in zip(along, low, high, strict=True)]
        owners[np.ix_(*own)] += 1
        for places, inside, begin, side in zip(along, own, start, sides, strict=True):
            assert (places[inside] > begin).all()
            assert (places[inside] < begin + side).all()
    assert (owners == 1).all()


def test_boxes_are_cut_with_the_volume_and_one_that_two_windows_found_is_one() -> None:
    declared = VolumeBoxes()
    box = {"label": "spot", "box": [10, 2, 3, 15, 7, 8]}
    value = declared.read([box, {"label": "spot", "box": [0, 0, 0, 4, 4, 4]}], nothing)
    contract = declared.fit([value], missing=0, role="output")
    assert declared.truth(declared.part(value, (8, 0, 0), (16, 16, 16)), contract) == [
        {"label": "spot", "box": [2, 2, 3, 7, 7, 8]}
    ]
    assert declared.sought(value, contract, np.zeros(2, np.uint64)) == (12, 4, 5)
    shares = VolumeBoxes(unit="share")
    with pytest.raises(DataError, match="write the boxes in voxels"):
        shares.part(shares.read([], nothing), (0, 0, 0), (4, 4, 4))

    def window(*boxes: list[float]) -> dict[str, np.ndarray]:
        alone = np.array([0.9, 0.8][: len(boxes)])
        own = {"boxes": np.array(boxes), "alone": alone, "scores": alone, "classes": np.zeros(len(boxes), np.int64)}
        return {**own, "given": alone > 0.5}

    # windows of 16 at 0 and 8 along x: the border of their cores is at 12
    parts = [((0, 0, 0), window([9, 2, 3, 14, 7, 8], [12, 2, 3, 16, 7, 8])), ((8, 0, 0), window([2, 2, 3, 7, 7, 8]))]
    answer = declared.write(declared.merged(parts, (24, 16, 16)), contract)
    assert [item["box"] for item in answer.value] == [[9.0, 2.0, 3.0, 14.0, 7.0, 8.0]]
    every = VolumeBoxes(overlap=None)
    assert len(every.write(every.merged(parts, (24, 16, 16)), contract).value) == 2
    whole = shares.write(
        shares.merged([(start, {**part, "boxes": part["boxes"] / 16}) for start, part in parts], (24, 16, 16)), contract
    )
    np.testing.assert_allclose(whole.value[0]["box"], [9 / 24, 2 / 16, 3 / 16, 14 / 24, 7 / 16, 8 / 16])


def test_what_is_not_put_together_from_windows_is_refused() -> None:
    volume, boxes = Volume(seen_voxels=(8, 8, 8), whole=True), Boxes()
    value = np.zeros((9, 8, 8, 1), np.float32)
    contract = volume.fit([volume.read(np.zeros((9, 8, 8)), nothing)], missing=0, role="input")
    with pytest.raises(DataError, match="scan of 9 x 8 x 8 is larger than the 8 x 8 x 8 that are seen at once"):
        window_by_window({"scan": volume}, {"found": boxes}, {"scan": contract}, {"scan": value}, lambda rows: {})


def test_masks_that_do_not_fit_are_named(tmp_path: Path) -> None:
    scans, masks, _ = blocks(12)
    masks[3] = nifti_bytes(np.ones((4, 4, 4), np.uint8), np.eye(4))
    recipe = ew.Recipe(
        name="odd", data={"path": {"scan": scans, "organ": masks}}, inputs={"scan": "volume"},
        outputs={"organ": "volume_mask"},
    )  # fmt: skip
    with pytest.raises(DataError, match="the mask is 4 x 4 x 4 and scan is"):
        ew.prepare(recipe)


def test_a_mask_of_voxels_lies_on_a_volume() -> None:
    with pytest.raises(RecipeError, match="an input that a volume_mask can lie on"):
        ew.Recipe(name="x", data=[{"a": 1}], inputs={"a": "image"}, outputs={"m": "volume_mask"})


def test_layers_are_asked_about_every_row_where_few_are_seen_at_a_time() -> None:
    """What a layer says of forty scans, of which the memory is given eighteen at a time."""
    random = np.random.default_rng(0)
    scans = random.integers(0, 40, (40, 48, 48, 48)).astype(np.uint8)
    scans[::2, 16:32, 16:32, 16:32] += 100
    recipe = ew.Recipe(
        data=[{"scan": scan, "bright": row % 2 == 0} for row, scan in enumerate(scans)],
        inputs={"scan": "volume"}, outputs={"bright": "boolean"}, train={"size": "tiny"}, trunk={"width": 32, "depth": 1},
    )  # fmt: skip
    dataset = ew.prepare(recipe)
    model = ew.Model.build(recipe, fit_contracts(recipe, dataset), seed=0)
    layers = probe(model, dataset, np.arange(20), np.arange(20, 40))["bright"]
    assert {layer["n"] for layer in layers} == {20}
    assert max(layer["value"] for layer in layers) == 1.0
