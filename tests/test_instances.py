"""Instances: run-length masks, reading, learning masks inside boxes, answers in pixels, mask AP. The usual promises are the
contract suite's (test_every_modality)."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

import endwise as ew
from endwise import metrics, silhouettes
from endwise.errors import BadValue, RecipeError
from endwise.metrics.boxes import mask_ap, mask_ap50
from endwise.modalities.base import Answer
from endwise.modalities.boxes import boxes_of
from endwise.modalities.instances import SIDE, Instances, in_box, masks_of, pasted, strips
from tests.things import assert_masks_move, nothing

RNG = np.random.default_rng(0)


def disc(size: tuple[int, int], middle: tuple[float, float], radius: float) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    return np.asarray((rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < radius**2)


# ---- silhouettes -----------------------------------------------------------------------------------------------------


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 999), st.sampled_from([0.0, 0.3, 0.7, 1.0]))
@settings(max_examples=60, deadline=None)
def test_run_lengths_hold_what_they_were_made_of(height: int, width: int, seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    one, other = (random.random((height, width)) < share for _ in range(2))
    a, b = silhouettes.of_bits(one, one.shape), silhouettes.of_bits(other, other.shape)
    np.testing.assert_array_equal(silhouettes.bits(a), one)
    assert silhouettes.area(a) == one.sum()
    rows, columns = np.mgrid[:height, :width]
    np.testing.assert_array_equal(silhouettes.inside(a, rows, columns), one)
    union = (one | other).sum()
    assert silhouettes.overlaps([a], [b])[0, 0] == pytest.approx((one & other).sum() / max(union, 1))
    x0, y0, x1, y1 = silhouettes.box(a)
    if one.any():
        assert (x0, x1) == (np.flatnonzero(one.any(0))[0], np.flatnonzero(one.any(0))[-1] + 1)
        assert (y0, y1) == (np.flatnonzero(one.any(1))[0], np.flatnonzero(one.any(1))[-1] + 1)
        window = silhouettes.of_bits(one[y0:y1, x0:x1], one.shape, y0, x0)
        assert window == a
    else:
        assert [x0, y0, x1, y1] == [0, 0, 0, 0]


def test_masks_of_two_sizes_are_compared_from_the_upper_left() -> None:
    small, large = np.ones((4, 6), bool), np.zeros((8, 8), bool)
    large[:4, :3] = True
    found = silhouettes.overlaps([silhouettes.of_bits(small, (4, 6))], [silhouettes.of_bits(large, (8, 8))])
    assert found[0, 0] == pytest.approx(12 / 24)


def test_polygons_and_cocos_short_text_are_read() -> None:
    square = silhouettes.of_polygons([[1, 1, 5, 1, 5, 4, 1, 4]], (6, 8))
    expected = np.zeros((6, 8), bool)
    expected[1:4, 1:5] = True
    np.testing.assert_array_equal(silhouettes.bits(square), expected)
    ring = silhouettes.of_polygons([[1, 1, 5, 1, 5, 4, 1, 4], [6, 0, 8, 0, 8, 2, 6, 2]], (6, 8))
    assert silhouettes.area(ring) == 12 + 4
    assert silhouettes.unpacked(packed([6, 1, 40, 22, 532, 9])) == [6, 1, 40, 22, 532, 9]
    with pytest.raises(ValueError, match="ends within"):
        silhouettes.unpacked(packed([600])[:1])


def packed(counts: list[int]) -> str:
    """As COCO's rleToString."""
    out = ""
    for place, count in enumerate(counts):
        value, more = count - (counts[place - 2] if place > 2 else 0), True
        while more:
            piece, value = value & 31, value >> 5
            more = value != (-1 if piece & 16 else 0)
            out += chr((piece | (32 if more else 0)) + 48)
    return out


# ---- reading ---------------------------------------------------------------------------------------------------------

THING = disc((20, 30), (8, 12), 5)


def png(bits: np.ndarray) -> bytes:
    out = io.BytesIO()
    Pillow.fromarray(bits.astype(np.uint8) * 255).save(out, "PNG")
    return out.getvalue()


def test_a_mask_is_read_however_it_is_written() -> None:
    counts = silhouettes.of_bits(THING, THING.shape)["counts"]
    files = {"thing.png": png(THING)}
    ways: list[Any] = ["thing.png", png(THING), THING.astype(np.uint8), {"size": [20, 30], "counts": counts}]
    ways.append({"size": [20, 30], "counts": packed([*counts, 600 - sum(counts)])})
    for way in ways:
        found = Instances().read([{"label": "a", "mask": way}], files.__getitem__)
        assert boxes_of(found) == [["a", 7, 3, 17, 13]]
        np.testing.assert_array_equal(silhouettes.bits(masks_of(found)[0]), THING)
    text = json.dumps([{"label": "a", "mask": ways[3]}])
    assert boxes_of(Instances().read(text, nothing)) == [["a", 7, 3, 17, 13]]
    split = Instances(columns=("kind", "file")).read({"kind": ["a"], "file": ["thing.png"]}, files.__getitem__)
    assert boxes_of(split) == [["a", 7, 3, 17, 13]]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"label": "a"}, "expected label and mask"),
        ({"label": "a", "mask": {"polygons": [[0, 0, 1, 1, 2, 2]]}}, "says size"),
        ({"label": "a", "mask": {"size": [2, 2], "polygons": [[0, 0, 1]]}}, "three corners"),
        ({"label": "a", "mask": {"size": [2, 2], "counts": [1, 9]}}, "run lengths are of 10 places"),
        ({"label": "a", "mask": {"size": [2, 2], "counts": "`"}}, "cannot be read"),
        ({"label": "a", "mask": b"nothing"}, "thing 1: not a PNG"),
    ],
)
def test_what_is_no_mask_is_refused_with_the_reason(item: dict[str, Any], said: str) -> None:
    with pytest.raises(BadValue, match=said):
        Instances().read([item], nothing)


def test_boxes_in_shares_are_no_instances() -> None:
    with pytest.raises(RecipeError, match="a box is what its mask fills"):
        Instances(unit="share")


# ---- masks inside boxes ----------------------------------------------------------------------------------------------


def test_a_mask_learnt_inside_its_box_is_the_mask_again() -> None:
    big = disc((90, 120), (40, 55), 30)
    found = silhouettes.of_bits(big, big.shape)
    box = silhouettes.box(found)
    again = pasted(in_box(found, box), box, big.shape)
    assert silhouettes.overlaps([found], [again])[0, 0] > 0.97
    covered = sum(width * height for *_, width, height in strips(found, box, big.shape))
    assert covered == pytest.approx(big.mean(), rel=0.1)
    outside = pasted(np.ones((SIDE, SIDE)), (-10.0, -5.0, 20.0, 10.0), (90, 120))
    assert silhouettes.box(outside) == [0, 0, 20, 10]
    assert silhouettes.area(pasted(np.ones((SIDE, SIDE)), (200.0, 5.0, 220.0, 10.0), (90, 120))) == 0


def scenes(rows: int = 32) -> dict[str, list[Any]]:
    random = np.random.default_rng(2)
    found: dict[str, list[Any]] = {"photo": [], "things": []}
    for row in range(rows):
        middle = (random.uniform(12, 28), random.uniform(12, 36))
        bits = disc((40, 48), middle, 9.0)
        photo = random.integers(0, 40, (40, 48, 3))
        photo[bits] += 150
        found["photo"].append(photo.astype(np.uint8))
        found["things"].append([] if row == 5 else [{"label": "disc", "mask": silhouettes.of_bits(bits, bits.shape)}])
    return found


def recipe(**train: Any) -> ew.Recipe:
    return ew.Recipe(
        name="discs", data={"path": scenes()}, inputs={"photo": "image"}, outputs={"things": "instances"},
        train={"size": "tiny", "steps": 3, "batch_size": 8, **train}, trunk={"width": 32, "depth": 1},
    )  # fmt: skip


def test_the_true_mask_is_where_the_picture_was_moved_to() -> None:
    assert_masks_move(recipe(), 2, SIDE)


def test_from_pictures_to_single_things(tmp_path: Path) -> None:
    model = ew.fit(recipe(), out=tmp_path / "run")
    head: Any = model.network.head("things")
    with torch.no_grad():
        head.thresholds.fill_(0.0)
        head.many.bias.fill_(1.0)
    answer = model.predict({"photo": scenes(1)["photo"][0]})["things"]
    assert set(answer[0]) == {"label", "box", "score", "mask"}
    assert answer[0]["mask"]["size"] == [40, 48]
    dataset = ew.prepare(recipe())
    scored = ew.evaluate(model, dataset, dataset.splits.val)
    assert list(scored.outputs["things"])[:2] == ["mask_ap50", "mask_ap"]
    drawn = [item.get("drawn") for item in scored.details["outputs"]["things"]["mistakes"]]
    assert any(item and item["truth"] and item["truth"][0]["parts"] for item in drawn)


# ---- metrics ---------------------------------------------------------------------------------------------------------


def test_mask_ap_looks_at_masks_and_not_at_boxes() -> None:
    one = silhouettes.of_bits(disc((40, 40), (20, 20), 12), (40, 40))
    ring = silhouettes.of_bits(disc((40, 40), (20, 20), 12) & ~disc((40, 40), (20, 20), 10), (40, 40))
    truth = [{"label": "a", "box": silhouettes.box(one), "mask": one}]
    right, wrong = Answer([{**truth[0], "score": 0.9}]), Answer([{**truth[0], "mask": ring, "score": 0.9}])
    for made in (mask_ap, mask_ap50):
        assert metrics.value(made(["a"]), [truth], [right]) == pytest.approx(1.0)
        assert metrics.value(made(["a"]), [truth], [wrong]) == pytest.approx(0.0)


def test_cocos_outlines_become_a_column_of_things(tmp_path: Path) -> None:
    found = {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 30, "height": 20},
            {"id": 2, "file_name": "b.png", "width": 9, "height": 9},
        ],
        "categories": [{"id": 7, "name": "cat"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 7,
                "bbox": [1, 1, 4, 3],
                "segmentation": [[1, 1, 5, 1, 5, 4, 1, 4]],
            },
            {
                "id": 2,
                "image_id": 1,
                "category_id": 7,
                "bbox": [0, 0, 1, 1],
                "segmentation": {"size": [20, 30], "counts": [0, 1, 599]},
            },
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(found))
    table = ew.open_table(tmp_path / "coco.json")
    cells = table.cell("instances", 0)
    value = Instances().read(cells, nothing)
    assert boxes_of(value) == [["cat", 1, 1, 5, 4], ["cat", 0, 0, 1, 1]]
    assert boxes_of(Instances().read(table.cell("instances", 1), nothing)) == []
