"""Boxes: geometry and assignment, reading annotations of every kind, scoring as COCO does, and a network that finds things."""

import dataclasses
import io
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from endwise import metrics
from endwise.data.check import check
from endwise.data.dataset import prepare
from endwise.data.table import open_table
from endwise.errors import BadValue, DataError, RecipeError
from endwise.metrics import boxes as scoring
from endwise.modalities.base import Answer
from endwise.modalities.boxes import Boxes, boxes_of
from endwise.modalities.boxes.detector import SlidingWindow
from endwise.modalities.boxes.layout import typical
from endwise.modalities.volume.boxes import VolumeBoxes
from endwise.model import Model
from endwise.nn.boxes import generalised_overlap, many_to_one, one_to_one, overlap, suppressed, volume, within
from endwise.propose import propose
from endwise.recipe import Recipe
from endwise.stages import stage_recipe
from endwise.testing import Case, check_export
from endwise.testing.examples import drawn_boxes
from endwise.train import fit

Found = list[dict[str, Any]]


def box(label: str, *corners: float, score: float | None = None) -> dict[str, Any]:
    return {"label": label, "box": list(corners), **({} if score is None else {"score": score})}


def read(raw: Any, **fields: Any) -> list[list[Any]]:
    return boxes_of(Boxes(**fields).read(raw, str.encode))


# ---- geometry --------------------------------------------------------------------------------------------------------

SIDE = st.floats(0.01, 2.0)
PLACE = st.floats(-2.0, 2.0)


@st.composite
def some_boxes(draw: st.DrawFn, axes: int = 2) -> torch.Tensor:
    low = [draw(PLACE) for _ in range(axes)]
    return torch.tensor([*low, *(value + draw(SIDE) for value in low)])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3).flatmap(lambda axes: st.tuples(some_boxes(axes), some_boxes(axes))))
def test_overlaps_are_bounded_symmetric_and_one_for_the_same_box(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    one, other = pair
    plain, general = float(overlap(one, other)), float(generalised_overlap(one, other))
    assert -1.0 <= general <= plain + 1e-5
    assert 0.0 <= plain <= 1.0 + 1e-5
    assert plain == pytest.approx(float(overlap(other, one)), abs=1e-5)
    assert float(overlap(one, one)) == pytest.approx(1.0, abs=1e-4)
    assert float(generalised_overlap(one, one)) == pytest.approx(1.0, abs=1e-4)
    assert plain == pytest.approx(float(scoring.overlaps([one.tolist()], [other.tolist()])[0, 0]), abs=1e-4)


def test_boxes_that_do_not_touch_still_pull_at_each_other() -> None:
    far = torch.tensor([0.0, 0.0, 1.0, 1.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(generalised_overlap(far, torch.tensor([3.0, 3.0, 4.0, 4.0])), [far])
    assert gradient.abs().sum() > 0
    assert overlap(torch.zeros(4), torch.zeros(4)) == 0  # nothing against nothing
    assert volume(torch.tensor([1.0, 1.0, 0.0, 2.0])) == 0


def situation(seed: int, count: int = 4) -> tuple[torch.Tensor, ...]:
    """Scores, proposals, places, true boxes, classes."""
    random = torch.Generator().manual_seed(seed)
    grid = (torch.arange(8) + 0.5) / 8
    places = torch.cartesian_prod(grid, grid)
    reach = torch.rand(1, 64, 2, generator=random) * 0.2 + 0.05
    boxes = torch.cat([places - reach, places + reach], dim=-1)
    low = torch.rand(1, count, 2, generator=random) * 0.6
    truths = torch.cat([low, low + 0.1 + torch.rand(1, count, 2, generator=random) * 0.3], dim=-1)
    scores = torch.rand(1, 64, 3, generator=random)
    return scores, boxes, places[None], truths, torch.randint(0, 3, (1, count), generator=random)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(4)), st.randoms(use_true_random=False))
def test_matching_does_not_depend_on_any_order(seed: int, order: list[int], random: Any) -> None:
    scores, boxes, places, truths, classes = situation(seed)
    real = torch.ones(1, 4, dtype=torch.bool)
    chosen = one_to_one(scores, boxes, places, truths, classes, real)
    assert len(set(chosen[0].tolist())) == 4  # one place a box
    turned = one_to_one(scores, boxes, places, truths[:, order], classes[:, order], real)
    assert turned[0].tolist() == chosen[0, order].tolist()
    mixed = list(range(64))
    random.shuffle(mixed)
    other = one_to_one(scores[:, mixed], boxes[:, mixed], places[:, mixed], truths, classes, real)
    assert [mixed[place] for place in other[0].tolist()] == chosen[0].tolist()
    owner, quality = many_to_one(scores, boxes, places, truths, classes, real)
    owner_turned, quality_turned = many_to_one(scores, boxes, places, truths[:, order], classes[:, order], real)
    torch.testing.assert_close(quality, quality_turned)
    learns = quality[0] > 0
    assert [order[box] for box in owner_turned[0, learns].tolist()] == owner[0, learns].tolist()


def test_only_what_is_real_is_matched_and_a_box_between_places_finds_the_nearest() -> None:
    scores, boxes, places, truths, classes = situation(1)
    truths[0, 0] = torch.tensor([0.13, 0.13, 0.14, 0.14])  # between places
    real = torch.tensor([[True, True, False, True]])
    chosen = one_to_one(scores, boxes, places, truths, classes, real)
    assert chosen[0, 2] == -1
    assert (chosen[0, [0, 1, 3]] >= 0).all()
    assert within(places, truths)[0, 0].sum() == 1
    owner, quality = many_to_one(scores, boxes, places, truths, classes, real)
    assert 2 not in owner[0, quality[0] > 0].tolist()
    assert float(quality.max()) <= 1.0
    none = torch.zeros(1, 4, dtype=torch.bool)
    assert (one_to_one(scores, boxes, places, truths, classes, none) == -1).all()
    assert many_to_one(scores, boxes, places, truths, classes, none)[1].sum() == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_suppression_is_what_a_greedy_search_finds(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    low = torch.rand(1, 20, 2, generator=random)
    boxes = torch.cat([low, low + 0.2 + 0.3 * torch.rand(1, 20, 2, generator=random)], dim=-1)
    classes = torch.randint(0, 2, (1, 20), generator=random)
    stays: list[int] = []
    for index in range(20):
        rivals = [other for other in stays if classes[0, other] == classes[0, index]]
        if all(float(overlap(boxes[0, index], boxes[0, other])) <= 0.4 for other in rivals):
            stays.append(index)
    assert (~suppressed(boxes, classes, 0.4))[0].nonzero()[:, 0].tolist() == stays


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_every_way_to_write_a_box_is_the_same_box() -> None:
    corners = [["cell", 2.0, 3.0, 10.0, 9.0]]
    assert read([{"label": "cell", "box": [2, 3, 10, 9]}]) == corners
    assert read('[{"label": "cell", "xmin": 2, "ymin": "3", "xmax": 10, "ymax": 9}]') == corners
    assert read([{"label": "cell", "box": [2, 3, 8, 6]}], format="xywh") == corners
    assert read([{"label": "cell", "box": np.array([6, 6, 8, 6])}], format="cxcywh") == corners
    names = ("kind", "a", "b", "c", "d")
    cells = {"kind": ["cell", None], "a": ["2", None], "b": ["3", None], "c": ["10", None], "d": ["9", None]}
    assert read(cells, columns=names) == corners
    assert read([]) == []
    assert read({name: [None] for name in names}, columns=names) == []  # a picture that is listed and has none
    assert read([{"label": 7, "box": [0, 0, 0, 5]}]) == [["7", 0.0, 0.0, 0.0, 5.0]]  # no width: kept, and counted later


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ([{"label": "a", "box": [5, 0, 2, 9]}], "box 1 ends before it begins: its x goes from 5 to 2"),
        ([{"label": "a", "box": [0, 0, 1]}], "expected four numbers"),
        ([{"label": "a", "box": [0, 0, 1, "wide"]}], "'wide' is no number"),
        ([{"label": "a", "box": [0, 0, 1, math.nan]}], "a coordinate is nan"),
        ([{"label": "a", "box": [0, 0, 1, True]}], "a coordinate is True"),
        ([{"label": "a"}], "expected label, and either box or xmin"),
        ([{"box": [0, 0, 1, 1]}], "has no label"),
        ([{"label": "a", "box": [0, 0, 1, 1]}, "cat"], "box 2: expected {label, box}"),
        ("[1", "is no JSON list of boxes"),
        ({"label": "a"}, "expected a list of boxes"),
    ],
)
def test_what_is_no_box_is_refused_by_number(raw: Any, told: str) -> None:
    with pytest.raises(BadValue) as refused:
        read(raw)
    assert told in str(refused.value)


def test_shares_are_declared_and_checked() -> None:
    assert read([{"label": "a", "box": [0, 0.5, 1, 0.75]}], unit="share") == [["a", 0.0, 0.5, 1.0, 0.75]]
    with pytest.raises(BadValue, match="shares lie between 0 and 1; pixels are unit: px"):
        read([{"label": "a", "box": [0, 0, 640, 480]}], unit="share")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"columns": ("label", "xmin")}, "five columns"),
        ({"columns": ("label", "a", "b", "c", "d"), "column": "boxes"}, "column or columns"),
        ({"overlap": 1.5}, "between 0 and 1"),
        ({"stride_px": 3}, "1, 2, 4, 8, 16 or 32"),
        ({"format": "xxyy"}, "xyxy"),
        ({"on": "sound"}, "on"),
    ],
)
def test_a_declaration_that_means_nothing_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError) as refused:
        Recipe(data=[{}], inputs={"photo": "image"}, outputs={"cells": {"type": "boxes", **fields}})
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("item", "odd", "beyond"),
    [
        (Boxes(), [box("cell", 50, 30, 61, 40), box("cell", -2, 0, 4, 4), box("cell", 900, 3, 940, 9)], 2),
        (Boxes(radius=5.0), [{"label": "cell", "point": at} for at in ([1, 1], [59, 39], [30, 45])], 1),
    ],
    ids=["boxes", "points"],
)
def test_things_beyond_their_picture_are_counted_by_check(item: Boxes, odd: Found, beyond: int) -> None:
    pictures = [np.full((40, 60, 3), shade, np.uint8) for shade in range(16)]
    usual = [box("cell", 1, 1, 9, 9)] if item.radius is None else [{"label": "cell", "point": [5, 5]}]
    things = [*([thing] for thing in odd), *[usual] * 13]
    recipe = Recipe(
        data={"path": {"picture": pictures, "cells": things}}, inputs={"picture": "image"}, outputs={"cells": item}
    )
    (found,) = [item for item in check(recipe).findings if item.kind == "outside"]
    assert (
        f"{beyond} boxes lie partly or wholly outside of picture as it is read, in {beyond} of 16 rows" in found.message
    )


def test_what_is_learnt_about_boxes_and_what_is_odd() -> None:
    item = Boxes()
    values = [
        item.read(raw, str.encode)
        for raw in ([box("a", 0, 0, 4, 2), box("b", -1, 0, 3, 0)], [], [box("a", 0, 0, 6, 4)])
    ]
    contract = item.fit(values, missing=1, role="output")
    assert (contract.classes, contract.counts, contract.boxes) == (("a", "b"), (2, 1), 3)
    assert (contract.empty, contract.without, contract.most, contract.below) == (1, 1, 2, 1)
    assert contract.medians[0] == (5.0, 3.0)
    assert "3 boxes of 2 classes" in item.summary(contract)
    assert "1 pictures have none; 1 have no width" in item.summary(contract)
    told = [message for message, _, _ in item.oddities(values[:2], values[2:], contract)]
    assert any("1 boxes have no width or no height" in line for line in told)
    target = item.transform(item.read([box("a", 0, 0, 4, 2), box("new", 0, 0, 1, 1)], str.encode), contract)
    assert target.tolist() == [[0, 0, 0, 4, 2], [-1, 0, 0, 1, 1]]
    remarks = item.remarks([[box("new", 0, 0, 1, 1), box("a", 0, 0, 0, 1)]], [], contract)
    assert any("2 true boxes have no width" in line for line in remarks)
    assert any("never saw ('new')" in line for line in remarks)
    small = item.fit([item.read([box("a", 0, 0, 0.5, 0.5)], str.encode)], missing=0, role="output")
    assert any("unit: share" in fix for _, fix, _ in item.oddities([], [], small))
    with pytest.raises(DataError, match="at least one box"):
        item.fit([item.read([], str.encode)], missing=0, role="output")


def test_a_class_that_is_spelt_like_a_frequent_one_is_asked_about() -> None:
    item = Boxes()
    values = [
        item.read([box("cell", 0, 0, 4, 4)] * 30 + [box("cell 2", 0, 0, 4, 4)], str.encode),
        item.read([box("cells", 1, 1, 3, 3)], str.encode),
    ]
    contract = item.fit(values, missing=0, role="output")
    told = [(message, where) for message, _, where in item.oddities(values, [], contract) if "called" in message]
    assert told == [("class 'cells' has 1 boxes and is nearly called as 'cell', which has 30", [1])]


def test_a_point_is_read_in_every_way_and_answered_as_one() -> None:
    item = Boxes(radius=2.0)
    for raw in ([{"label": "cell", "point": [5, 6]}], '[{"label": "cell", "x": 5, "y": "6"}]'):
        assert boxes_of(item.read(raw, str.encode)) == [["cell", 3.0, 4.0, 7.0, 8.0]]
    table = Boxes(radius=2.0, columns=("kind", "across", "down"))
    assert (
        table.read({"kind": ["cell"], "across": [5], "down": [6]}, str.encode).tobytes()
        == item.read([{"label": "cell", "point": [5, 6]}], str.encode).tobytes()
    )
    deep = VolumeBoxes(radius=1.0)
    value = deep.read([{"label": "node", "x": 1, "y": 2, "z": 3}], str.encode)
    assert boxes_of(value) == [["node", 0.0, 1.0, 2.0, 2.0, 3.0, 4.0]]
    contract = deep.fit([value], missing=0, role="output")
    point = {"label": "node", "point": [1.0, 2.0, 3.0], "box": [0.0, 1.0, 2.0, 2.0, 3.0, 4.0]}
    assert deep.truth(value, contract) == [point]
    assert deep.read(deep.truth(value, contract), str.encode).tobytes() == value.tobytes()  # handed on to a next stage
    assert "1 points of 1 class, 1 a picture: node (1)" in deep.summary(contract)
    assert (contract.below, contract.empty) == (0, 0)  # its box begins at 0, the point does not lie outside
    found = {
        "boxes": np.array([[0.0, 1.0, 2.0, 4.0, 5.0, 6.0]]),
        "classes": np.zeros(1, np.int64),
        "scores": np.ones(1),
    }
    (answer,) = deep.write({**found, "given": np.ones(1, bool)}, contract).value
    assert answer == {"label": "node", "point": [2.0, 3.0, 4.0], "box": [1.0, 2.0, 3.0, 3.0, 4.0, 5.0], "score": 1.0}


@pytest.mark.parametrize(
    ("fields", "raw", "told"),
    [
        ({}, {"label": "a", "point": [1, 2]}, "box 1 is a point: declare radius"),
        (
            {"radius": 2.0},
            {"label": "a", "box": [1, 2, 3, 4]},
            "point 1 has .*expected label, and either point or x, y",
        ),
        ({"radius": 2.0}, {"label": "a", "point": [1, 2, 3]}, "point 1: expected two numbers"),
        ({"radius": 0.1, "unit": "share"}, {"label": "a", "point": [1, 2]}, "shares lie between 0 and 1"),
    ],
)
def test_what_is_no_point_is_refused_by_number(fields: dict[str, Any], raw: dict[str, Any], told: str) -> None:
    with pytest.raises(BadValue, match=told):
        read([raw], **fields)


def test_a_point_is_found_within_its_radius_and_no_further() -> None:
    item = Boxes(radius=4.0)
    value = item.read([{"label": "cell", "point": [2, 9]}, {"label": "cell", "point": [30, 30]}], str.encode)
    contract = item.fit([value], missing=0, role="output")
    truths = [item.truth(value, contract)]

    def scores(*points: tuple[float, float]) -> dict[str, float]:
        boxes = [[x - 1, y - 1, x + 1, y + 1] for x, y in points]
        decoded = {
            "boxes": np.array(boxes),
            "classes": np.zeros(len(boxes), np.int64),
            "scores": np.full(len(boxes), 0.9),
        }
        answer = item.write({**decoded, "given": np.ones(len(boxes), bool)}, contract)
        every = (*item.metrics(contract), item.risk(contract))
        return {metric.name: metrics.value(metric, truths, [answer]) for metric in every}

    assert scores((5, 12), (30, 34)) == {"froc": 1.0, "f1": 1.0, "picture_f1": 1.0}
    assert scores((5, 12), (30, 34.5))["f1"] == scores((5, 12), (30, 34.5))["picture_f1"] == 0.5


def test_a_point_beside_the_border_is_learnt_where_it_is(tmp_path: Path) -> None:
    """The box around it reaches beyond the picture: it is not cut, since its middle would move."""
    random, rows = np.random.default_rng(0), []
    for index in range(32):
        pixels = np.full((32, 32, 3), 30, np.uint8)
        x, y = (0 if index % 2 else 28), int(random.integers(0, 29))
        pixels[y : y + 4, x : x + 4] = (230, 90, 60)
        rows.append({"photo": pixels, "things": [{"label": "dot", "point": [4 if x == 0 else 28, y + 2]}]})
    recipe = Recipe(
        name="dots", data=rows, inputs={"photo": {"type": "image"}},
        outputs={"things": {"type": "boxes", "radius": 8}},
        train={"size": "tiny", "steps": 40, "batch_size": 8, "device": "cpu", "augment": False},
    )  # fmt: skip
    model = fit(recipe, out=tmp_path / "run")
    assert model.run is not None
    scores = model.run.read("metrics.json")
    assert set(scores["outputs"]["things"]) == {"froc", "f1"}
    away = []
    for row in rows[:8]:
        answer = model.predict({"photo": row["photo"]}).answers["things"]
        surest = max([*answer.value, *answer.detail.get("more", ())], key=lambda found: found["score"])
        away.append(np.abs(np.subtract(surest["point"], row["things"][0]["point"])).max())
        assert np.isclose(np.subtract(surest["box"][2:], surest["box"][:2]), 16).all()
    assert np.median(away) < 3
    from endwise.report import build

    assert "<rect" in build(model.run).read_text(encoding="utf-8")


# ---- tables ----------------------------------------------------------------------------------------------------------

CSV = """image,split,label,xmin,ymin,xmax,ymax
a.png,train,dot,1,2,5,6
b.png,train,dot,2,2,4,6
a.png,train,ring,0,0,9,9
c.png,train,,,,,
d.png,val,dot,1,1,3,3
e.png,test,dot,1,1,3,1
"""
COLUMNS = ["label", "xmin", "ymin", "xmax", "ymax"]


def pictures(folder: Path, names: str) -> None:
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 255, (12, 16, 3), dtype=np.uint8)
        Pillow.fromarray(pixels).save(folder / f"{name}.png")


def of_table(folder: Path, **more: Any) -> Recipe:
    return Recipe(
        data={"path": str(folder / "boxes.csv"), "gather": "image", **more},
        inputs={"image": {"type": "image"}}, outputs={"things": {"type": "boxes", "columns": COLUMNS}},
    )  # fmt: skip


def test_one_row_a_box_becomes_one_row_a_picture(tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text(CSV)
    pictures(tmp_path, "abcde")
    dataset = prepare(of_table(tmp_path))
    assert [len(part) for part in (dataset.splits.train, dataset.splits.val, dataset.splits.test)] == [3, 1, 1]
    store = dataset.fields["things"]
    assert [boxes_of(store[row]) for row in range(3)] == [
        [["dot", 1.0, 2.0, 5.0, 6.0], ["ring", 0.0, 0.0, 9.0, 9.0]],
        [["dot", 2.0, 2.0, 4.0, 6.0]],
        [],
    ]
    assert store.present.all()
    assert dataset.origin(1) == "boxes.csv line 3"
    assert dataset.cells("label", [0, 1]) == [["dot", "ring"], ["dot"]]
    report = check(of_table(tmp_path))
    assert report.ok
    assert any("no width or no height" in item.message for item in report.of("odd"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"gather": "picture"}, "data.gather.by"),
        ({"columns": ["label", "x0", "ymin", "xmax", "ymax"]}, "x0"),
        ({"columns": ["u", "v", "w", "x", "y"]}, "outputs.things.columns"),
    ],
)
def test_columns_that_are_not_there_are_named(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    (tmp_path / "boxes.csv").write_text(CSV)
    pictures(tmp_path, "abcde")
    columns = change.pop("columns", COLUMNS)
    recipe = of_table(tmp_path, **change).replace(**{"outputs.things.columns": columns})
    with pytest.raises((RecipeError, DataError), match=told):
        prepare(recipe)


def test_rows_without_a_picture_and_rows_that_were_not_grouped_are_refused(tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text(CSV + ",train,dot,1,1,3,3\n")
    pictures(tmp_path, "abcde")
    with pytest.raises(DataError, match=r"line 8, column 'image' \(data.gather.by\)"):
        prepare(of_table(tmp_path))
    (tmp_path / "boxes.csv").write_text(CSV)
    with pytest.raises(DataError, match=r"write data: \{gather: COLUMN\}"):
        prepare(of_table(tmp_path).replace(**{"data.gather": None}))


def coco() -> dict[str, Any]:
    return {
        "info": {},
        "images": [{"id": 3, "file_name": "a.png", "width": 16, "height": 12}, {"id": 9, "file_name": "b.png"}],
        "categories": [{"id": 1, "name": "dot"}, {"id": 5, "name": "ring"}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 5, "bbox": [1, 2, 4, 5.5]},
            {"id": 2, "image_id": 3, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1},
        ],
    }


def test_coco_is_a_table_of_pictures(tmp_path: Path) -> None:
    pictures(tmp_path, "ab")
    (tmp_path / "annotations.json").write_text(json.dumps(coco()))
    found = open_table(tmp_path / "annotations.json")
    assert found.column("file") == ["a.png", "b.png"]
    assert read(found.cell("boxes", 0)) == [["ring", 1.0, 2.0, 5.0, 7.5]]
    assert found.cell("boxes", 1) == []
    assert "1 annotations are regions of crowds and were left out" in found.notes[0]
    assert found.fetch("a.png")[:4] == b"\x89PNG"
    assert found.origin(1) == "annotations.json/b.png"
    broken = coco()
    broken["annotations"][0]["image_id"] = 4
    (tmp_path / "annotations.json").write_text(json.dumps(broken))
    with pytest.raises(DataError, match=r"annotations\[0\].image_id"):
        open_table(tmp_path / "annotations.json")


@pytest.mark.parametrize(
    ("written", "lying"),
    [("annotations.json", "images"), ("annotations/val.json", "val2017"), ("annotations/val.json", "images/val2017")],
)
def test_pictures_of_coco_are_found_in_a_folder_near_it(tmp_path: Path, written: str, lying: str) -> None:
    (tmp_path / lying).mkdir(parents=True)
    pictures(tmp_path / lying, "ab")
    file = tmp_path / written
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(coco()))
    found = open_table(file)
    assert all(found.fetch(cell)[:4] == b"\x89PNG" for cell in found.column("file"))
    assert f"{file.name}: its pictures lie in " in "\n".join(found.notes)
    assert found.origin(1) == f"{file.name}/b.png"
    assert {name: item.type for name, item in propose(file).recipe.outputs.items()} == {"boxes": "boxes"}


def test_pictures_of_other_data_are_not_taken_for_those_of_coco(tmp_path: Path) -> None:
    for folder in ("mine", "other", "third"):
        (tmp_path / folder).mkdir()
    pictures(tmp_path / "other", "ab")
    pictures(tmp_path / "third", "ab")
    (tmp_path / "mine" / "annotations.json").write_text(json.dumps(coco()))
    found = open_table(tmp_path / "mine" / "annotations.json")
    assert list(found.column("file")) == ["a.png", "b.png"]
    assert not any("its pictures lie in" in note for note in found.notes)


def test_two_folders_with_the_pictures_of_coco_are_refused(tmp_path: Path) -> None:
    for folder in ("images", "copies"):
        (tmp_path / folder).mkdir()
        pictures(tmp_path / folder, "ab")
    (tmp_path / "annotations.json").write_text(json.dumps(coco()))
    with pytest.raises(DataError, match=r"copies, images.*Fix: "):
        open_table(tmp_path / "annotations.json")


def voc(name: str, objects: str) -> str:
    return f"<annotation><filename>{name}</filename><size><width>16</width><height>12</height></size>{objects}</annotation>"


OBJECT = "<object><name>dot</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>5</xmax><ymax>6.5</ymax></bndbox></object>"


def voc_folder(folder: Path) -> Path:
    for inner in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / inner).mkdir(parents=True)
    pictures(folder / "JPEGImages", "abc")
    (folder / "Annotations/a.xml").write_text(voc("a.png", OBJECT))
    (folder / "Annotations/b.xml").write_text(voc("b.png", ""))
    (folder / "Annotations/c.xml").write_text(voc("renamed.png", OBJECT))
    (folder / "ImageSets/Main/train.txt").write_text("a\nb\n")
    (folder / "ImageSets/Main/val.txt").write_text("c\n")
    return folder


def test_voc_folders_and_zips_are_tables_of_pictures(tmp_path: Path) -> None:
    found = open_table(voc_folder(tmp_path / "cells"))
    assert found.column("file") == [f"JPEGImages/{name}.png" for name in "abc"]
    assert found.column("split") == ["train", "train", "val"]
    assert read(found.cell("boxes", 0)) == [["dot", 1.0, 2.0, 5.0, 6.5]]
    assert found.cell("boxes", 1) == []
    assert "1 pictures are not called as their annotations say" in found.notes[0]
    with zipfile.ZipFile(tmp_path / "cells.zip", "w") as archive:
        for file in (tmp_path / "cells").rglob("*"):
            archive.write(file, file.relative_to(tmp_path))
    inside = open_table(tmp_path / "cells.zip")
    assert inside.fetch(inside.cell("file", 2)) == (tmp_path / "cells/JPEGImages/c.png").read_bytes()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (voc("a.png", "<object><name>dot</name></object>"), "objects with a name and a bndbox"),
        ("<annotation>", "not valid XML"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><annotation/>', "declarations of its own"),
    ],
)
def test_broken_voc_is_named(tmp_path: Path, content: str, told: str) -> None:
    folder = voc_folder(tmp_path / "cells")
    (folder / "Annotations/a.xml").write_text(content)
    with pytest.raises(DataError, match=told):
        open_table(folder)


@pytest.mark.parametrize("kind", ["csv", "coco", "voc"])
def test_a_recipe_is_proposed_for_annotations(tmp_path: Path, kind: str) -> None:
    if kind == "csv":
        (tmp_path / "boxes.csv").write_text(CSV)
        pictures(tmp_path, "abcde")
    elif kind == "coco":
        (tmp_path / "annotations.json").write_text(json.dumps(coco()))
        pictures(tmp_path, "ab")
    else:
        voc_folder(tmp_path / "cells")
    found = propose(tmp_path / {"csv": "boxes.csv", "coco": "annotations.json", "voc": "cells"}[kind]).recipe
    assert {name: item.type for name, item in found.inputs.items()} == {"image": "image"}
    assert {name: item.type for name, item in found.outputs.items()} == {"boxes": "boxes"}
    assert (found.data.gather is not None and found.data.gather.by == "image") == (kind == "csv")
    assert list(found.outputs["boxes"].reads_columns()) == (COLUMNS if kind == "csv" else [])


# ---- metrics ---------------------------------------------------------------------------------------------------------

NAMES = ("a", "b", "c")


@st.composite
def scenes(draw: st.DrawFn) -> tuple[list[Found], list[Answer]]:
    truths, answers = [], []
    score = st.floats(0.01, 1.0)
    for _ in range(draw(st.integers(1, 4))):

        def one(*, scored: bool) -> dict[str, Any]:
            x, y, w, h = (draw(st.integers(0, 9)) for _ in range(4))
            found = box(draw(st.sampled_from(NAMES)), x, y, x + w + 1, y + h + 1)
            return {**found, "score": draw(score)} if scored else found

        truths.append([one(scored=False) for _ in range(draw(st.integers(0, 4)))])
        near = [
            {**item, "box": [value + draw(st.sampled_from([0, 0, 1])) * (at > 1) for at, value in enumerate(item["box"])], "score": draw(score)}
            for item in truths[-1] if draw(st.booleans())
        ]  # fmt: skip
        answers.append(Answer([*near, *(one(scored=True) for _ in range(draw(st.integers(0, 3))))]))
    return truths, answers


@settings(max_examples=50, deadline=None)
@given(scenes())
def test_ranks_are_those_of_coco(scene: tuple[list[Found], list[Answer]]) -> None:
    pytest.importorskip("faster_coco_eval")
    truths, answers = scene
    flat = [item["score"] for answer in answers for item in answer.value]
    if not any(truths) or not flat or len(set(flat)) < len(flat):
        return  # of equal scores the order is anybody's
    stats = by_coco(truths, answers)
    for metric, expected in zip((scoring.ap, scoring.ap50, scoring.ar), (stats[0], stats[1], stats[8]), strict=True):
        assert metrics.value(metric(NAMES), truths, answers) == pytest.approx(expected, abs=1e-6)


def by_coco(truths: list[Found], answers: list[Answer]) -> Any:
    from faster_coco_eval import COCO, COCOeval_faster

    def rows(items: Found, image: int) -> list[dict[str, Any]]:
        out = []
        for item in items:
            x0, y0, x1, y1 = item["box"]
            size = [x1 - x0, y1 - y0]
            out.append({"image_id": image, "category_id": NAMES.index(item["label"]) + 1, "bbox": [x0, y0, *size],
                        "area": size[0] * size[1], "iscrowd": 0, "score": item.get("score", 1.0)})  # fmt: skip
        return out

    real = [row for image, truth in enumerate(truths, 1) for row in rows(truth, image)]
    given = [row for image, answer in enumerate(answers, 1) for row in rows(answer.value, image)]
    images = [{"id": image + 1, "width": 99, "height": 99} for image in range(len(truths))]
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(NAMES)]
    annotations = [{**row, "id": number} for number, row in enumerate(real, 1)]
    truth = COCO({"images": images, "annotations": annotations, "categories": categories, "info": {}, "licenses": []})
    run = COCOeval_faster(truth, truth.loadRes(given), "bbox", print_function=lambda *_: None)
    run.evaluate()
    run.accumulate()
    run.summarize()
    return run.stats


@settings(max_examples=30, deadline=None)
@given(scenes())
def test_perfect_answers_score_one_and_weights_count_pictures(scene: tuple[list[Found], list[Answer]]) -> None:
    truths, answers = scene
    perfect = [Answer(truth) for truth in truths]
    flat = [item["score"] for answer in answers for item in answer.value]
    ordered = len(set(flat)) == len(flat)  # of equal scores the order is anybody's
    for made in (scoring.ap50, scoring.ap, scoring.ar, scoring.froc, scoring.f1):
        metric = made(NAMES)
        value = metrics.value(metric, truths, perfect)
        assert math.isnan(value) if not any(truths) else value == pytest.approx(1.0)
        if any(truths) and ordered:  # a resample is a weight: a picture twice is a picture with weight 2
            twice = metrics.value(metric, [*truths, truths[0]], [*answers, answers[0]])
            weights = np.array([2.0, *[1.0] * (len(truths) - 1)])
            assert metrics.value(metric, truths, answers, weights=weights) == pytest.approx(twice, abs=1e-3)


@settings(max_examples=30, deadline=None)
@given(scenes(), st.lists(st.sampled_from([0.0, 0.0, 1.0, 2.0, 0.7]), min_size=4, max_size=4))
def test_a_ranking_that_was_made_once_serves_every_resample(
    scene: tuple[list[Found], list[Answer]], drawn: list[float]
) -> None:
    """Pictures of weight 0 are as pictures that are not there, whatever their scores."""
    truths, answers = scene
    weights = np.array(drawn[: len(truths)])
    left = np.flatnonzero(weights)
    for made in (scoring.ap50, scoring.ap, scoring.ar, scoring.froc, scoring.f1):
        metric = made(NAMES)
        stats = metric.rows(truths, answers)
        assert metric.fixed is not None
        of_weights = metric.fixed(stats)
        for own in (weights, np.ones(len(truths)), weights):
            there = np.flatnonzero(own)
            wanted = metric.combine(stats[there], own[there]) if len(there) else math.nan
            assert of_weights(own) == pytest.approx(wanted, abs=1e-12, nan_ok=True)
        if len(left):
            chosen = [[rows[at] for at in left] for rows in (truths, answers)]
            alone = metrics.value(metric, *chosen, weights=weights[left])
            assert of_weights(weights) == pytest.approx(alone, abs=1e-12, nan_ok=True)


def test_average_precision_by_hand() -> None:
    """Three true boxes; a hit, a miss, a hit: precision 1 up to a recall of 1/3, then 2/3 up to 2/3, then nothing."""
    truth = [box("a", 9 * at, 0, 9 * at + 4, 4) for at in range(3)]
    given = [{**truth[0], "score": 0.9}, box("a", 0, 50, 4, 54, score=0.8), {**truth[1], "score": 0.7}]
    expected = (34 + 33 * 2 / 3) / 101
    assert metrics.value(scoring.ap50(NAMES), [truth], [Answer(given)]) == pytest.approx(expected)


def test_candidates_below_the_threshold_count_for_rankings_only() -> None:
    truth = [[box("a", 0, 0, 4, 4), box("a", 8, 8, 12, 12)]]
    answer = [Answer([box("a", 0, 0, 4, 4, score=0.9)], detail={"more": [box("a", 8, 8, 12, 12, score=0.2)]})]
    assert metrics.value(scoring.ap50(NAMES), truth, answer) == pytest.approx(1.0)
    assert metrics.value(scoring.f1(NAMES), truth, answer) == pytest.approx(2 / 3)
    alarms = [
        Answer(
            [box("a", 20 + 9 * at, 0, 24 + 9 * at, 4, score=0.9 - 0.01 * at) for at in range(2)],
            detail={"more": truth[0]},
        )
    ]
    assert metrics.value(scoring.froc(NAMES), truth, alarms) == pytest.approx(1.0)  # what has no score is sure
    late = [Answer([*alarms[0].value, *({**item, "score": 0.1} for item in truth[0])])]
    assert metrics.value(scoring.froc(NAMES), truth, late) == pytest.approx(3 / 7)  # at 2, 4 and 8 alarms
    none = [Answer([box("a", 0, 0, 4, 4)])]
    assert metrics.value(scoring.ap50(NAMES), [[box("a", 1, 1, 1, 3), *truth[0][:1]]], none) == pytest.approx(1.0)
    estimate = metrics.estimate(scoring.ap50(NAMES), truth * 8, [*answer * 4, *none * 4], resamples=200)
    assert estimate.low < estimate.value < estimate.high


def test_the_best_constant_answer_is_a_layout_that_others_share() -> None:
    usual = [box("a", 0, 0, 10, 10), box("b", 20, 20, 30, 30)]
    truths = [usual, [box("a", 50, 0, 60, 10)], usual, [*usual, box("a", 70, 70, 80, 80)]]
    found = typical(truths)
    assert [item["box"] for item in found] == [item["box"] for item in usual]
    assert found[0]["score"] == pytest.approx(2 / 3)


# ---- the network -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("axes", "in_pixels"), [(2, True), (2, False), (3, True)])
def test_a_window_of_the_usual_size_finds_what_stands_out(axes: int, in_pixels: bool) -> None:
    """The classical detector: what lies near each other is told apart, places and units are those of the boxes."""
    random = np.random.default_rng(0)
    shape, side = (40, 60, 30)[:axes], 8
    values, truths = [], []
    for _ in range(12):
        value, found = random.normal(0.2, 0.05, (*shape, 1)).astype(np.float32), []
        first = random.integers(0, np.array(shape) - [20, *[side] * (axes - 1)])
        for low in (first, first + np.eye(axes, dtype=int)[0] * (side + 4)):
            value[tuple(slice(at, at + side) for at in low)] += 0.6
            ends = np.stack([low, low + side]) / (1 if in_pixels else np.array(shape))
            found.append(box("thing", *(ends[:, ::-1] if axes == 2 else ends).ravel().tolist()))
        values.append(value)
        truths.append(found)
    detector = SlidingWindow(in_pixels=in_pixels, turned=axes == 2).fit(values[:8], truths[:8])
    answers = [Answer(given, detail={"more": more}) for given, more in detector.predict(values[8:])]
    assert metrics.value(scoring.ap50(["thing"]), truths[8:], answers) > 0.7
    assert metrics.value(scoring.f1(["thing"]), truths[8:], answers) > 0.7


def test_answers_of_every_rank_leave_the_bundle_as_they_leave_the_model() -> None:
    """The suite's network has seen too little to be sure of anything: this one is sure of everything."""
    photos, cells = drawn_boxes()
    case = Case(Boxes(overlap=0.9, threshold=0.2), cells, "output", (case_image(), photos))
    model = case.trained()
    with torch.no_grad():
        model.network.head("value").many.bias.fill_(0.0)  # type: ignore[operator, union-attr]
    answers = [prediction["value"] for prediction in model.predict(case.raw_rows)]
    assert all(len(boxes) > 10 for boxes in answers)
    for boxes, photo in zip(answers, photos, strict=True):
        width, height = Pillow.open(io.BytesIO(photo)).size
        corners = np.array([item["box"] for item in boxes])
        assert corners.min() >= 0
        assert (corners[:, 2:] <= [width, height]).all()
        assert (corners[:, :2] <= corners[:, 2:]).all()
    check_export(model, case.raw_rows)


def case_image() -> Any:
    from endwise.modalities.image import Image

    return Image()


def test_a_target_moves_with_its_picture() -> None:
    """Pixels, shares and a mirrored canvas: where the loss looks for a box."""
    photos, cells = drawn_boxes()
    head: Any = Case(Boxes(), cells, "output", (case_image(), photos)).model().network.head("value")
    target = torch.tensor([[[0.0, 10.0, 20.0, 30.0, 60.0], [0.0, 90.0, 0.0, 130.0, 10.0]]])
    sizes = torch.tensor([[2]])
    still = {"sizes": torch.tensor([[80, 100]]), "seen": torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])}
    head.eval()
    found, real = head._laid(still, target, sizes)
    assert found[0, 0].tolist() == pytest.approx([0.25, 0.1, 0.75, 0.3])
    assert found[0, 1].tolist() == pytest.approx([0.0, 0.9, 0.125, 1.0])  # cut to the picture
    assert real.tolist() == [[True, True]]
    assert "reach beyond their picture" in head.notes()[0]
    head.train()
    mirrored = {**still, "seen": torch.tensor([[[1.0, 0.0, 0.5], [0.0, -1.0, 1.0]]])}
    found, real = head._laid(mirrored, target, sizes)
    assert found[0, 0].tolist() == pytest.approx([0.0, 0.7, 0.25, 0.9])  # mirrored, and half of it above the canvas
    assert real.tolist() == [[True, False]]
    decoded = head._in_picture(still, torch.tensor([[[0.25, 0.1, 0.75, 0.3]]]))
    assert decoded[0, 0].tolist() == pytest.approx([10.0, 20.0, 30.0, 60.0])


def test_first_boxes_are_as_large_as_those_of_training() -> None:
    """Before anything is learnt some place already overlaps each thing that there is to find."""
    photos, cells = drawn_boxes()
    case = Case(Boxes(), cells, "output", (case_image(), photos))
    model = case.model()
    head: Any = model.network.eval().head("value")
    batch = case.batch().to("cpu")
    with torch.no_grad():
        prediction = model.network(batch.inputs, batch.present)["value"]
        target = batch.targets["value"]
        truths, real = head._laid(prediction, target.values, target.sizes)
        best = overlap(prediction["boxes"][:, :, None], truths[:, None]).amax(1)[real]
    assert best.min() > 0.2 and best.median() > 0.4


def test_boxes_are_handed_on_to_a_stage_that_counts_them() -> None:
    """The boxes that are given come first; a token a box, whatever the padding, and one where there is none."""
    photos, cells = drawn_boxes()
    case = Case(Boxes(threshold=0.2), cells, "output", (case_image(), photos))
    model = case.trained()
    head: Any = model.network.head("value")
    with torch.no_grad():
        head.many.bias.fill_(-1.0)
    batch = case.batch().to("cpu")
    with torch.no_grad():
        prediction = model.network(batch.inputs, batch.present)["value"]
        handed, found = head.handed(prediction, greedy=True), head.decode(prediction)
    count = int(handed.sizes[3, 0])
    assert 0 < count < found["given"].shape[1]
    given_ones = found["given"][3] & (found["scores"][3] > 0)  # without those that another one suppresses
    torch.testing.assert_close(handed.hard[3, :count, 1:], found["boxes"][3][given_ones])
    said = case.declared.said(handed.hard[3, :count].numpy(), case.contract)
    given = model.predict(case.raw_rows[3])["value"]
    np.testing.assert_allclose([item["box"] for item in said], [item["box"] for item in given], atol=1e-2)
    carrier = case.declared.carrier(case.contract, model.size).eval()
    target = torch.tensor([[[0.0, 1, 2, 5, 6], [1.0, 3, 3, 4, 9], [-1.0, 0, 0, 2, 2]]])
    with torch.no_grad():
        three, two = carrier(target, torch.tensor([[3]])), carrier(target, torch.tensor([[2]]))
        alone = carrier(target[:, :2], torch.tensor([[2]]))
        none = carrier(target[:, :0], torch.tensor([[0]]))
        disturbed = target + torch.tensor([0.3, 0, 0, 0, 0]) * torch.tensor([[[1.0], [-1.0], [9.0]]])
        heard = carrier(
            disturbed, torch.tensor([[3]])
        )  # a class with noise on it is the nearest, or none that is known
    assert three.mask.sum() == 4
    assert none.values.shape[1] == none.mask.sum() == 1
    torch.testing.assert_close(two.values[:, :3], alone.values)
    assert not torch.allclose(two.pooled(), three.pooled())
    torch.testing.assert_close(heard.values, three.values)
    recipe = Recipe(
        data=[{}], inputs={"photo": "image"}, outputs={"count": "number"}, regime="modular",
        stages={"find": {"from": "photo", "to": {"cells": "boxes"}}, "count": {"from": "cells", "to": "count", "hand_off": "hard"}},
    )  # fmt: skip
    assert recipe.outputs["cells"].under() == "photo"  # type: ignore[attr-defined]
    assert stage_recipe(recipe, "count").inputs["cells"].handed  # what is only an output is read by a stage by itself


def test_thresholds_are_those_of_the_best_f1_on_validation_rows() -> None:
    photos, cells = drawn_boxes()
    case = Case(Boxes(overlap=None), cells, "output", (case_image(), photos))
    head: Any = case.model().network.head("value")
    places = len(head.places)
    one = torch.full((1, places, 2), -9.0)
    boxes = torch.full((1, places, 4), 0.9)
    boxes[..., 2:] = 1.0
    for place, (logit, corner) in enumerate([(3.0, 0.0), (1.0, 0.2), (0.0, 0.5), (-1.0, 0.4)]):  # two right, two wrong
        one[0, place, 0], boxes[0, place] = logit, torch.tensor([corner, 0.0, corner + 0.2, 0.5])
    still = {"sizes": torch.tensor([[100, 100]]), "seen": torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])}
    right = [[0.0, 0.0, 0.0, 50.0, 20.0], [0.0, 0.0, 20.0, 50.0, 40.0]]
    target = torch.tensor([right + [[0.0, 90.0, 80.0, 99.0, 99.0]] * 3])
    found = head.calibrate({"one": one, "many": one, "boxes": boxes, **still}, target, torch.tensor([[5]]))
    between = (torch.tensor([1.0, 0.0]).sigmoid().mean()).item()
    assert found == {"threshold of green": pytest.approx(between), "threshold of red": pytest.approx(between)}
    declared = Boxes(threshold=0.5, on="partner").head(case.contract, case.model().size)
    assert declared.calibrate({}, target, target) == {}


def test_it_finds_things_and_the_report_draws_them(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = []
    for number in range(30):
        pixels, things = np.full((48, 64, 3), 20, np.uint8), []
        for _ in range(int(random.integers(0, 3))):
            side = int(random.integers(12, 20))
            x, y = int(random.integers(0, 64 - side)), int(random.integers(0, 48 - side))
            pixels[y : y + side, x : x + side] = random.choice([[220, 50, 50], [50, 220, 50]])
            label = "red" if pixels[y, x, 0] > 100 else "green"
            things.append(box(label, x, y, x + side, y + side))
        things = [
            item for item in things if pixels[item["box"][1], item["box"][0], 0] > 100 or item["label"] == "green"
        ]
        Pillow.fromarray(pixels).save(tmp_path / f"{number}.png")
        rows.append({"photo": str(tmp_path / f"{number}.png"), "things": things})
    recipe = Recipe(
        name="squares", data=rows, inputs={"photo": {"type": "image"}}, outputs={"things": {"type": "boxes"}},
        train={"size": "tiny", "steps": 20, "batch_size": 8, "device": "cpu"},
    )  # fmt: skip
    model = fit(recipe, out=tmp_path / "run")
    assert model.run is not None
    scores = model.run.read("metrics.json")
    assert set(scores["outputs"]["things"]) == {"ap50", "ap", "ar", "froc", "f1"}
    assert scores["baselines"]["things"]["classical"]["ap50"]["value"] > 0.5  # a window over colours finds squares
    from endwise.report import build

    page = build(model.run).read_text(encoding="utf-8")
    assert "<rect" in page
    points = model.run.read("details.json")["outputs"]["things"]["froc"]
    assert [alarms for alarms, _ in points] == [1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8]
    assert np.mean([share for _, share in points]) == pytest.approx(scores["outputs"]["things"]["froc"]["value"])
    assert "Sensitivity of things by false alarms" in page
    again = Model.load(tmp_path / "run" / "model")
    prediction = again.predict({"photo": rows[0]["photo"]})
    json.dumps(prediction.to_dict(), allow_nan=False)
    assert "things=" in str(prediction)


def test_an_answer_is_printed_box_by_box() -> None:
    from endwise.model import Prediction

    found = Answer([box("RBC", 1.26, 2, 30, 40.1, score=0.934), box("WBC", 5, 6, 7, 8, score=0.5)])
    assert str(Prediction({"cells": found})) == "cells=2: RBC 1.3 2.0 30.0 40.1 0.93; WBC 5.0 6.0 7.0 8.0 0.50"
    unsure = Answer([], detail={"more": [box("RBC", 1, 2, 3, 4, score=0.31), box("WBC", 5, 6, 7, 8, score=0.1)]})
    assert str(Prediction({"cells": unsure})) == "cells=none (2 less sure in detail.more, the surest 0.31)"
    assert str(Prediction({"cells": Answer([])})) == "cells=none"
    assert dataclasses.asdict(found)["value"][0]["label"] == "RBC"
