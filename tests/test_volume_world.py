"""Boxes and points in volumes, said in millimetres in the patient: from an annotation table through training to answers."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

import endwise as ew
from endwise.data.dataset import fit_contracts
from endwise.errors import BadValue, DataError, RecipeError
from endwise.export import export
from endwise.modalities.base import Answer
from endwise.modalities.boxes import boxes_of, kept
from endwise.modalities.volume.boxes import VolumeBoxes
from endwise.model import Model
from endwise.priors import Extent
from endwise.runner import Bundle, differences
from endwise.scan import Scan, volume_file
from endwise.serve.version import Version
from tests.test_volume import dicom_slices, zipped
from tests.things import nothing

STEPS, ORIGIN = (1.0, 2.0, 3.0), (-40.0, 25.0, 7.0)
UPRIGHT = np.concatenate([np.diag(STEPS), np.array(ORIGIN)[:, None]], axis=1)
LPS = np.array([-1.0, -1.0, 1.0])


def stored(voxels: np.ndarray, order: tuple[int, ...] = (0, 1, 2), signs: tuple[int, ...] = (1, 1, 1)) -> bytes:
    """A NIfTI file that is `voxels` with the affine UPRIGHT once it is turned upright: axis order[world] of its array runs
    along world, backwards where the sign is negative."""
    array, affine = np.transpose(voxels, np.argsort(order)), np.eye(4)
    affine[:3] = 0
    for world, axis in enumerate(order):
        affine[world, axis], affine[world, 3] = signs[world] * STEPS[world], ORIGIN[world]
        if signs[world] < 0:
            array = np.flip(array, axis)
            affine[world, 3] += STEPS[world] * (voxels.shape[world] - 1)
    return bytes(nibabel.Nifti1Image(np.ascontiguousarray(array), affine).to_bytes())


def in_patient(box: tuple[int, ...]) -> list[float]:
    """A box of voxels as a radiologist's tool says it: centre and sides in millimetres, to the left, back and up."""
    low, high = np.array(box).reshape(2, 3)
    middle = (np.array(STEPS) * ((low + high) / 2 - 0.5) + ORIGIN) * LPS
    return [*middle.tolist(), *((high - low) * STEPS).tolist()]


def alike(**cells: Any) -> dict[str, Any]:
    """The data of a recipe: the same row a dozen times, on each side of the split."""
    return {"path": [{**cells, "split": ("train", "val", "test")[row % 3]} for row in range(12)], "split": "split"}


numbers = st.floats(-200, 200)


@settings(max_examples=60, deadline=None)
@given(
    turned=st.tuples(numbers, numbers, numbers), steps=st.tuples(*[st.floats(0.3, 6)] * 3), origin=st.tuples(*[numbers] * 3),
    mirrored=st.booleans(), low=st.tuples(*[numbers] * 3), sides=st.tuples(*[st.floats(0.1, 80)] * 3),
    unit=st.sampled_from(["lps_mm", "ras_mm"]), radius=st.sampled_from([None, 3.5]),
)  # fmt: skip
def test_from_millimetres_to_voxels_and_back_however_a_volume_lies(
    turned: Any, steps: Any, origin: Any, mirrored: bool, low: Any, sides: Any, unit: Any, radius: float | None
) -> None:
    turn = Rotation.from_euler("xyz", turned, degrees=True).as_matrix() * np.array([-1.0 if mirrored else 1.0, 1, 1])
    world = np.concatenate([turn * np.array(steps), np.array(origin)[:, None]], axis=1)
    declared = VolumeBoxes(unit=unit, radius=radius)
    thing = {"label": "a", "point": list(low)} if radius else {"label": "a", "box": [*low, *np.add(low, sides)]}
    value = declared.read([thing], nothing)
    ((_, *wanted),) = boxes_of(value)
    brought = declared.from_world(value, world)
    (truth,) = declared.truth(brought, declared.fit([brought], missing=0, role="output"))
    back = declared.to_world(Answer([truth], detail={"more": [truth]}), world)
    for found in (back.value[0], back.detail["more"][0]):
        np.testing.assert_allclose(found["box"], wanted, atol=1e-6)
        if radius:
            np.testing.assert_allclose(found["point"], low, atol=1e-6)


@pytest.mark.parametrize(
    ("order", "signs"), [((0, 1, 2), (1, 1, 1)), ((0, 1, 2), (-1, -1, 1)), ((2, 0, 1), (1, -1, -1))]
)
@pytest.mark.parametrize("spacing", [None, (2.0, 2.0, 2.0)])
def test_a_box_in_millimetres_holds_the_voxels_that_lie_there(order: Any, signs: Any, spacing: Any) -> None:
    """Whichever way the file's axes run, and also where volumes are brought to another spacing."""
    voxels = np.zeros((24, 20, 16), np.float32)
    voxels[4:10, 12:16, 2:8] = 100
    box = in_patient((4, 12, 2, 10, 16, 8))
    right = [{"label": "a", "box": [*(np.array(box[:3]) * LPS), *box[3:]]}]
    for unit, things in (("lps_mm", [{"label": "a", "box": box}]), ("ras_mm", right)):
        recipe = ew.Recipe(
            name="one", data=alike(scan=stored(voxels, order, signs), things=json.dumps(things)),
            inputs={"scan": ew.Volume(spacing_mm=spacing)}, outputs={"things": VolumeBoxes(unit=unit, format="cxcywh")},
        )  # fmt: skip
        dataset = ew.prepare(recipe)
        ((_, *found),) = boxes_of(dataset.fields["things"][0])
        low, high = np.array(found).reshape(2, 3)
        scan = Scan.unpacked(dataset.fields["scan"][0]).voxels[..., 0]
        inside = np.zeros(scan.shape, bool)
        inside[tuple(slice(round(a), round(b)) for a, b in zip(low, high, strict=True))] = True
        assert scan[inside].min() > 45
        assert scan[~inside].max() < 55
        np.testing.assert_allclose(high - low, np.array([6, 8, 18]) / (spacing or STEPS), atol=1e-4)
        assert " voxels)" in recipe.outputs["things"].summary(fit_contracts(recipe, dataset)["things"])


def test_a_dicom_series_places_boxes_as_its_slices_say() -> None:
    voxels = np.zeros((10, 8, 6), np.int16)
    voxels[2:5, 3:7, 1:4] = 500
    middle = [10 + 0.5 * 3, 20 + 0.75 * 4.5, 5 + 2.5 * 2]  # of the slices' own ImagePositionPatient
    box = [*middle, 3 * 0.5, 4 * 0.75, 3 * 2.5]
    recipe = ew.Recipe(
        name="series", data=alike(scan=zipped(dicom_slices(voxels)), things=[{"label": "a", "box": box}]),
        inputs={"scan": "volume"}, outputs={"things": VolumeBoxes(unit="lps_mm", format="cxcywh")},
    )  # fmt: skip
    dataset = ew.prepare(recipe)
    ((_, *found),) = boxes_of(dataset.fields["things"][0])
    low, high = np.round(np.array(found).reshape(2, 3)).astype(int)
    scan = Scan.unpacked(dataset.fields["scan"][0]).voxels[..., 0]
    assert (scan[tuple(map(slice, low, high))] == -1024 + 500).all()
    assert (scan == -1024 + 500).sum() == np.prod(high - low) == 36


# ---- from a table to answers -----------------------------------------------------------------------------------------


def nodules(folder: Path, rows: int = 16) -> Path:
    """As LUNA16 writes them: one row a nodule, its centre and diameter; a scan without any has a row of empty cells."""
    random, table = np.random.default_rng(3), []
    for number in range(rows):
        voxels, name = random.normal(0, 5, (22, 18, 14)).astype(np.float32), f"{number:02}.nii"
        low = np.array([random.integers(1, side - 7) for side in voxels.shape])
        high = low + np.array((6, 3, 2))
        voxels[tuple(map(slice, low, high))] = 120
        signs = ((1, 1, 1), (-1, -1, 1))[number % 2]
        (folder / name).write_bytes(stored(voxels, signs=signs))
        cells = [*in_patient((*low, *high))[:3], 6.0] if number != 4 else [""] * 4
        table.append([name, *cells])
    with (folder / "annotations.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["seriesuid", "coordX", "coordY", "coordZ", "diameter_mm"], *table])
    return folder / "annotations.csv"


def luna(table: Path, **seen: Any) -> ew.Recipe:
    return ew.Recipe(
        name="nodules", data={"path": str(table), "gather": "seriesuid"},
        inputs={"scan": ew.Volume(column="seriesuid", **seen)},
        outputs={
            "nodules": VolumeBoxes(
                unit="lps_mm", format="cxcyd", columns=("coordX", "coordY", "coordZ", "diameter_mm"), threshold=0.01
            )
        },
        train={"size": "tiny", "steps": 3, "batch_size": 4}, trunk={"width": 32, "depth": 1},
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nodules(tmp_path_factory.mktemp("luna")).parent


def untrained(recipe: ew.Recipe) -> Model:
    """It finds things everywhere."""
    model = Model.build(recipe, fit_contracts(recipe, ew.prepare(recipe)), seed=0)
    head: Any = model.network.head("nodules")
    with torch.no_grad():
        head.many.bias.fill_(1.0)
        head.reach.weight.normal_(std=0.2)
    return model


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return untrained(luna(folder / "annotations.csv"))


def test_a_table_of_centres_and_diameters_is_read_scored_and_answered_in_millimetres(
    folder: Path, model: Model
) -> None:
    recipe = luna(folder / "annotations.csv")
    contract: Any = model.contracts["nodules"]
    assert contract.classes == ("thing",)
    assert (contract.without, contract.medians) == (1, ((6.0, 3.0, 2.0),))
    dataset = ew.prepare(recipe)
    scored = ew.evaluate(model, dataset, dataset.splits.val, details=False)
    assert 0 <= scored.outputs["nodules"]["froc"].value <= 1
    other = recipe.replace(outputs={"nodules": replace(recipe.outputs["nodules"], unit="ras_mm")})
    outside = [[item for item in ew.check(own).findings if item.kind == "outside"] for own in (recipe, other)]
    assert (len(outside[0]), len(outside[1])) == (0, 1)
    scan = nibabel.load(folder / "00.nii")
    ends = nibabel.affines.apply_affine(scan.affine, [[0, 0, 0], np.array(scan.shape) - 1])[:, :3] * LPS
    low, high = ends.min(0) - STEPS, ends.max(0) + STEPS
    found = model.predict({"scan": str(folder / "00.nii")})
    assert found["nodules"]
    for thing in found["nodules"]:
        corners = np.array(thing["box"]).reshape(2, 3)
        assert (corners >= low).all()
        assert (corners <= high).all()


@pytest.mark.parametrize("seen", [{}, {"seen_voxels": (8, 8, 8)}])
def test_however_a_scan_lies_in_its_file_its_nodules_are_answered_in_the_same_place(
    folder: Path, seen: dict[str, Any]
) -> None:
    model = untrained(luna(folder / "annotations.csv", **seen))
    voxels = np.random.default_rng(0).normal(0, 5, (22, 18, 14)).astype(np.float32)
    voxels[3:9, 4:7, 5:7] = 120
    rows = [
        {"scan": stored(voxels, order, signs)}
        for order, signs in (((0, 1, 2), (1, 1, 1)), ((0, 1, 2), (-1, -1, 1)), ((1, 2, 0), (-1, 1, -1)))
    ]
    first, *others = [json.loads(json.dumps(found.to_dict())) for found in model.predict(rows)]
    assert len(first["nodules"]["value"]) > 2
    for other in others:
        assert differences([first], [other]) == []


def test_the_bundle_and_the_server_answer_in_the_same_millimetres(folder: Path, model: Model, tmp_path: Path) -> None:
    rows = [{"scan": str(folder / f"{number:02}.nii")} for number in range(5)]
    bundle = Bundle.load(export(model, tmp_path / "bundle", examples=rows).folder)
    expected = [prediction.to_dict() for prediction in model.predict(rows)]
    assert differences(expected, bundle.predict(rows)) == []
    with pytest.raises(DataError, match="use predict"):
        bundle.score({"scan": [row["scan"] for row in rows]})
    sent = [{"scan": (folder / f"{number:02}.nii").read_bytes()} for number in range(5)]
    model.save(tmp_path / "model")
    for target in (tmp_path / "model", tmp_path / "bundle"):
        version = Version.load(target)
        assert differences(expected, version.answers([version.read(cells) for cells in sent])) == []
        assert version.answers([version.blank()])[0]["nodules"]["value"] == []


def test_the_explanation_has_the_answer_in_millimetres(folder: Path, model: Model) -> None:
    row = {"scan": str(folder / "00.nii")}
    told = ew.explain(model, row, of="nodules", grade=False)
    assert differences([model.predict(row).to_dict()], [told.prediction.to_dict()]) == []


# ---- what is refused ---------------------------------------------------------------------------------------------------


def test_a_volume_that_says_no_place_has_nothing_in_millimetres(folder: Path, model: Model) -> None:
    things = [{"label": "a", "box": [0, 0, 0, 3, 3, 3]}]
    recipe = ew.Recipe(
        name="bare", data=alike(scan=np.zeros((6, 6, 6), np.float32), things=things),
        inputs={"scan": "volume"}, outputs={"things": VolumeBoxes(unit="ras_mm")},
    )  # fmt: skip
    with pytest.raises(DataError, match="does not say where it lies"):
        ew.prepare(recipe)
    with pytest.raises(DataError, match="field 'scan': the file does not say where it lies"):
        model.predict({"scan": np.zeros((6, 6, 6), np.float32)})


def test_a_broken_box_in_millimetres_is_named_with_its_row() -> None:
    scan = stored(np.zeros((6, 6, 6), np.float32))
    data = alike(scan=scan, things=[{"label": "a", "box": [-44, 20, 7, -42, 24, 10]}])
    backwards = [{"label": "a", "box": [0, 0, 9, 3, 3, 3]}]
    data["path"] += [{**data["path"][0], "things": backwards}, {**data["path"][0], "scan": None}]
    recipe = ew.Recipe(
        name="odd", data={**data, "max_bad": "20%"}, inputs={"scan": "volume"}, outputs={"things": VolumeBoxes(unit="ras_mm")},
    )  # fmt: skip
    dataset = ew.prepare(recipe)
    (bad,) = dataset.bad
    assert (bad.row, bad.field, "its z goes from 9 to 3" in bad.reason) == (12, "things", True)
    assert not dataset.fields["things"].present[13]


def test_a_spacing_alone_says_no_place() -> None:
    """An NPZ with its spacing and a NIfTI file without a matrix begin anywhere: boxes in millimetres would lie anywhere, too."""
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.float32), None)
    image.header.set_zooms(STEPS)
    packed = io.BytesIO()
    np.savez(packed, volume=np.zeros((4, 5, 6), np.float32), spacing_mm=np.array(STEPS))
    for raw in (packed.getvalue(), image.to_bytes(), nibabel.Nifti1Image.from_bytes(image.to_bytes())):
        assert Scan.unpacked(ew.Volume().read(raw, nothing)).spacing_mm == STEPS
        with pytest.raises(BadValue, match="does not say where it lies"):
            ew.Volume(placed=True).read(raw, nothing)
    placed = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.float32), np.vstack([UPRIGHT, [0, 0, 0, 1]]))
    assert np.allclose(ew.Volume(placed=True).world(ew.Volume(placed=True).read(placed, nothing)), UPRIGHT)


def test_millimetres_that_lead_nowhere_are_refused() -> None:
    with pytest.raises(RecipeError, match="px or share, where boxes go on to another stage"):
        VolumeBoxes(unit="lps_mm", handed=True)
    with pytest.raises(RecipeError, match="answers in the places of their input: things is said in its world"):
        ew.Recipe(
            name="on", data=[{"a": 1}], inputs={"scan": "volume"},
            outputs={"things": VolumeBoxes(unit="lps_mm"), "ill": "boolean"},
            stages={"see": {"from": "scan", "to": "things"}, "judge": {"from": "things", "to": "ill", "hand_off": "hard"}},
        )  # fmt: skip
    with pytest.raises(RecipeError, match="unit"):
        ew.Boxes(unit="lps_mm")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="label, x, y, z, diameter; or all but the first"):
        VolumeBoxes(format="cxcyd", columns=("x", "y"))


def test_how_large_things_may_be_is_known_in_millimetres_too() -> None:
    """A box of 6 x 3 x 2 voxels measures 6 mm along each axis."""
    item = VolumeBoxes(unit="lps_mm", on="scan")
    value = item.from_world(item.read([{"label": "a", "box": [0, 0, 0, 6, 6, 6]}], nothing), UPRIGHT)
    contracts: dict[str, Any] = {
        "things": item.fit([value], missing=0, role="output"), "scan": SimpleNamespace(spacing_mm=STEPS),
    }  # fmt: skip
    found = {
        "boxes": torch.tensor([[[5.0, 5, 5, 11, 8, 7]]]), "scores": torch.ones(1, 1), "classes": torch.zeros(1, 1, dtype=torch.int64),
    }  # fmt: skip
    seen: Any = SimpleNamespace(
        fields={"things": item}, contracts=contracts, answer=lambda name: found,
        predictions={"things": {"sizes": torch.tensor([[20, 20, 20]])}},
    )  # fmt: skip
    assert float(Extent(of="things", sides=(5, 7)).loss(seen)) == pytest.approx(0.0)
    assert float(Extent(of="things", sides=(7, 9)).loss(seen)) > 0


def test_circles_on_pictures_are_a_centre_and_a_diameter() -> None:
    declared = ew.Boxes(format="cxcyd", columns=("x", "y", "across"))
    value = declared.read({"x": [10.0], "y": [20.0], "across": [4.0]}, nothing)
    assert boxes_of(value) == [["thing", 8.0, 18.0, 12.0, 22.0]]
    assert np.array_equal(kept(boxes_of(value)), value)


# ---- masks that lie where their scans do --------------------------------------------------------------------------------


def segmenting(table: list[dict[str, Any]], **seen: Any) -> ew.Recipe:
    return ew.Recipe(
        name="organs", data={"path": [{**row, "split": ("train", "val", "test")[at % 3]} for at, row in enumerate(table)]},
        inputs={"scan": ew.Volume(**seen)}, outputs={"organ": ew.VolumeMask(classes=("rest", "organ"))},
        train={"size": "tiny"}, trunk={"width": 16, "depth": 1},
    )  # fmt: skip


@pytest.mark.parametrize("seen", [{}, {"spacing_mm": (2.0, 2.0, 2.0)}, {"seen_voxels": (8, 8, 8)}])
@pytest.mark.parametrize(("order", "signs"), [((0, 1, 2), (1, 1, 1)), ((2, 0, 1), (1, -1, -1))])
def test_an_answered_mask_is_saved_where_its_scan_lies_and_is_a_label_of_it_again(
    seen: dict[str, Any], order: Any, signs: Any, tmp_path: Path
) -> None:
    voxels = np.random.default_rng(0).normal(size=(14, 12, 10)).astype(np.float32)
    mask = np.zeros(voxels.shape, np.uint8)
    mask[2:8, 3:9, 2:6] = 1
    (tmp_path / "scan.nii").write_bytes(stored(voxels, order, signs))
    scan, row = str(tmp_path / "scan.nii"), {"organ": stored(mask, order, signs)}
    recipe = segmenting([{"scan": scan, **row}] * 9, **seen)
    model = Model.build(recipe, fit_contracts(recipe, ew.prepare(recipe)), seed=0)
    answer = model.predict({"scan": scan})["organ"]
    answer.save(tmp_path / "answer.nii.gz")
    steps = seen.get("spacing_mm", STEPS)
    began = np.array(ORIGIN) - np.array(STEPS) / 2 + np.array(steps) / 2  # the outer edge of the first voxel stays
    np.testing.assert_allclose(nibabel.load(tmp_path / "answer.nii.gz").affine[:3, 3], began, atol=1e-4)
    for label in (str(tmp_path / "answer.nii.gz"), answer.to_json(), answer):
        again = segmenting([{"scan": scan, "organ": label}] * 9, **seen)
        assert not ew.prepare(again).bad


def test_a_bundle_tells_where_its_masks_lie(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [
        {
            "scan": stored(random.normal(size=(9, 8, 7)).astype(np.float32)),
            "organ": stored(np.eye(9, 8, dtype=np.uint8)[..., None].repeat(7, 2)),
        }
        for _ in range(9)
    ]
    recipe = segmenting(rows)
    model = Model.build(recipe, fit_contracts(recipe, ew.prepare(recipe)), seed=0)
    scans = [{"scan": row["scan"]} for row in rows[:5]]
    export(model, tmp_path / "bundle", examples=scans)
    told = Bundle.load(tmp_path / "bundle").predict(scans[:1])[0]["organ"]["value"]
    (tmp_path / "told.nii.gz").write_bytes(volume_file(told))
    np.testing.assert_allclose(nibabel.load(tmp_path / "told.nii.gz").affine[:3], UPRIGHT, atol=1e-5)


def test_a_mask_of_a_scan_that_does_not_say_where_it_lies_begins_at_nought(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).normal(size=(14, 12, 10)).astype(np.float32)
    recipe = segmenting([{"scan": voxels, "organ": (voxels > 1).astype(np.uint8)}] * 9)
    model = Model.build(recipe, fit_contracts(recipe, ew.prepare(recipe)), seed=0)
    answer = model.predict({"scan": voxels})["organ"]
    back = nibabel.load(answer.save(tmp_path / "mask.nii.gz"))
    np.testing.assert_allclose(back.affine, np.eye(4))
    placed = np.concatenate([np.diag(STEPS), np.full((3, 1), np.nan)], axis=1)  # a spacing, and no place
    with_steps = replace(answer, affine=placed)
    np.testing.assert_allclose(nibabel.load(with_steps.save(tmp_path / "mm.nii.gz")).affine, np.diag([*STEPS, 1.0]))
