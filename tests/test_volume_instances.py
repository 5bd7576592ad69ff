"""Single things in volumes: how they are written down, learnt, answered and scored. The usual promises are the contract suite's
(test_every_modality)."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

import endwise as ew
from endwise import metrics, silhouettes
from endwise.errors import BadValue, DataError
from endwise.metrics.boxes import mask_ap50
from endwise.modalities.base import Answer
from endwise.modalities.boxes import boxes_of
from endwise.modalities.instances import in_box, masks_of, pasted
from endwise.modalities.volume.instances import SIDE, VolumeInstances
from tests.things import assert_masks_move, nothing

SHAPE = (20, 16, 24)


def ball(middle: tuple[float, ...], radius: float, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    places = np.stack(np.meshgrid(*(np.arange(side) + 0.5 for side in shape), indexing="ij"), axis=-1)
    return np.asarray(((places - np.array(middle)) ** 2).sum(-1) < radius**2)


ONE, OTHER = ball((6, 5, 7), 4), ball((14, 11, 17), 3)
NUMBERS = (ONE + 2 * OTHER).astype(np.uint8)


def test_run_lengths_of_voxels_hold_what_they_were_made_of() -> None:
    made = silhouettes.of_voxels(ONE, SHAPE)
    assert np.array_equal(silhouettes.bits(made), ONE)
    assert silhouettes.area(made) == ONE.sum()
    assert silhouettes.box(made) == [2, 1, 3, 10, 9, 11]
    block = silhouettes.of_voxels(ONE[2:10, 1:9, 3:11], SHAPE, (2, 1, 3))
    assert block == made
    half = ONE & (np.arange(SHAPE[0]) < 6)[:, None, None]
    shared = silhouettes.overlaps(
        [made, made], [silhouettes.of_voxels(half, SHAPE), silhouettes.of_voxels(OTHER, SHAPE)]
    )
    np.testing.assert_allclose(shared, [[half.sum() / ONE.sum(), 0]] * 2)
    assert silhouettes.overlaps([made], [silhouettes.of_voxels(np.ones((4, 4, 4), bool), (4, 4, 4))])[0, 0] == 0


def test_a_mask_learnt_inside_its_box_is_the_mask_again() -> None:
    big = ball((20, 15, 18), 12, (40, 30, 36))
    found = silhouettes.of_voxels(big, big.shape)
    box = silhouettes.box(found)
    again = pasted(in_box(found, box, SIDE), box, big.shape)
    assert silhouettes.overlaps([found], [again])[0, 0] > 0.93


def test_things_are_read_however_they_are_written() -> None:
    declared, masks = VolumeInstances(), [ONE.astype(np.uint8), OTHER.astype(np.uint8)]
    counted = silhouettes.of_voxels(OTHER, SHAPE)
    nifti = bytes(nibabel.Nifti1Image(NUMBERS, np.eye(4)).to_bytes())
    ways: list[Any] = [
        {"numbers": NUMBERS, "labels": {1: "a", "2": "b"}},
        {"numbers": "things.nii", "labels": {"1": "a", "2": "b"}},
        json.dumps({"numbers": "things.nii", "labels": {"1": "a", "2": "b"}}),
        [{"label": "a", "mask": masks[0]}, {"label": "b", "mask": counted}],
    ]
    for way in ways:
        found = declared.read(way, {"things.nii": nifti}.__getitem__)
        assert boxes_of(found) == [["a", 2, 1, 3, 10, 9, 11], ["b", 11, 8, 14, 17, 14, 20]]
        assert np.array_equal(silhouettes.bits(masks_of(found)[1]), OTHER)
    alone = declared.read("things.nii", {"things.nii": nifti}.__getitem__)
    assert [label for label, *_ in boxes_of(alone)] == ["thing", "thing"]
    assert boxes_of(declared.read(np.zeros(SHAPE, np.uint8), nothing)) == []
    assert boxes_of(declared.read([], nothing)) == []


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ({"numbers": NUMBERS, "labels": {"1": "a"}}, "thing 2 of the volume has no class: labels are of 1"),
        ({"numbers": NUMBERS, "labels": ["a", "b"]}, "expected {number: class}"),
        ([{"label": "a", "mask": {"size": [2, 2], "counts": [4]}}], r"says size: \[x, y, z\]"),
        ([{"label": "a", "mask": {"size": [2, 2, 2], "counts": [9]}}], "what is 2 x 2 x 2 has 8"),
        ([{"label": "a"}], "expected label and mask"),
        (np.ones(SHAPE) * 0.5, "numbers such as 0.5"),
    ],
)
def test_what_is_no_mask_of_voxels_is_refused_with_the_reason(raw: Any, told: str) -> None:
    with pytest.raises(BadValue, match=told):
        VolumeInstances().read(raw, nothing)


def scans(rows: int = 24) -> dict[str, list[Any]]:
    random = np.random.default_rng(2)
    found: dict[str, list[Any]] = {"scan": [], "things": []}
    for row in range(rows):
        bits = ball(tuple(random.uniform(5, side - 5) for side in (16, 14, 18)), 4.0, (16, 14, 18))
        found["scan"].append((random.normal(0, 10, bits.shape) + 100 * bits).astype(np.float32))
        found["things"].append([] if row == 5 else {"numbers": bits.astype(np.uint8), "labels": {"1": "ball"}})
    return found


def recipe(found: dict[str, list[Any]], **fields: Any) -> ew.Recipe:
    return ew.Recipe(
        name="balls", data={"path": found}, inputs={"scan": ew.Volume(**fields)}, outputs={"things": "volume_instances"},
        train={"size": "tiny", "steps": 3, "batch_size": 8}, trunk={"width": 32, "depth": 1},
    )  # fmt: skip


def test_the_true_mask_is_where_the_volume_was_moved_to() -> None:
    assert_masks_move(recipe(scans(12)), 3, SIDE)


def test_from_volumes_to_single_things(tmp_path: Path) -> None:
    found = scans()
    model = ew.fit(recipe(found), out=tmp_path / "run")
    head: Any = model.network.head("things")
    with torch.no_grad():
        head.thresholds.fill_(0.0)
        head.many.bias.fill_(1.0)
    answer = model.predict({"scan": found["scan"][0]})["things"]
    assert set(answer[0]) == {"label", "box", "score", "mask"}
    assert (answer[0]["mask"]["size"], len(answer[0]["box"])) == ([16, 14, 18], 6)
    assert silhouettes.numbered(answer).shape == (16, 14, 18)
    dataset = ew.prepare(recipe(found))
    scored = ew.evaluate(model, dataset, dataset.splits.val, details=False)
    assert list(scored.outputs["things"])[:3] == ["mask_ap50", "mask_ap", "froc"]


def test_one_volume_of_an_answer_has_the_surer_thing_where_two_overlap() -> None:
    both = [
        {"mask": silhouettes.of_voxels(ball((8, 8, 8), 4), SHAPE)},
        {"mask": silhouettes.of_voxels(ball((11, 8, 8), 4), SHAPE)},
    ]
    numbers = silhouettes.numbered(both)
    assert (numbers == 1).sum() == ball((8, 8, 8), 4).sum()
    assert np.array_equal(numbers == 2, ball((11, 8, 8), 4) & ~ball((8, 8, 8), 4))
    with pytest.raises(ValueError, match="no size"):
        silhouettes.numbered([])


def test_the_report_shows_the_planes_through_things() -> None:
    declared = VolumeInstances(on="scan")
    value = declared.read({"numbers": NUMBERS, "labels": {"1": "a", "2": "b"}}, nothing)
    things = declared.truth(value, declared.fit([value], missing=0, role="output"))
    under = ew.Volume().read(ONE.astype(np.float32), nothing)
    assert {view["about"] for view in declared.views(things, things[:1], under)} == {"a", "b"}


def test_mask_ap_looks_at_the_voxels() -> None:
    shell = ball((6, 5, 7), 4) & ~ball((6, 5, 7), 3)
    truth = [{"label": "a", "box": [2, 1, 3, 10, 9, 11], "mask": silhouettes.of_voxels(ONE, SHAPE)}]
    wrong = Answer([{**truth[0], "mask": silhouettes.of_voxels(ONE & ~shell & (NUMBERS > 9), SHAPE), "score": 0.9}])
    assert metrics.value(mask_ap50(["a"]), [truth], [Answer([{**truth[0], "score": 0.9}])]) == pytest.approx(1.0)
    assert metrics.value(mask_ap50(["a"]), [truth], [wrong]) == pytest.approx(0.0)


def test_masks_of_other_voxels_and_volumes_that_are_not_seen_whole_are_refused(tmp_path: Path) -> None:
    odd = scans(12)
    odd["things"][3] = {"numbers": np.ones((4, 4, 4), np.uint8), "labels": {"1": "ball"}}
    with pytest.raises(DataError, match="a mask has 4 x 4 x 4 voxels and scan 16 x 14 x 18"):
        ew.prepare(recipe(odd))
    with pytest.raises(DataError, match="seen whole"):
        ew.fit(recipe(scans(12), seen_voxels=(8, 8, 8)), out=tmp_path / "run")
