"""Trajectories: how scenes are read, windows over tables of agents, futures, and how they are scored. The contract suite runs
elsewhere."""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from endwise import metrics
from endwise.baselines import baselines
from endwise.data.dataset import fit_contracts, prepare
from endwise.data.windows import WindowTable
from endwise.errors import BadValue, EndwiseError, RecipeError
from endwise.metrics import value
from endwise.modalities.base import Answer
from endwise.modalities.trajectories import Trajectories
from endwise.modalities.trajectories.classical import extrapolated
from endwise.modalities.trajectories.network import FuturesHead, first_ways
from endwise.model import Model
from endwise.paths import Paths
from endwise.recipe import Recipe
from endwise.report import build
from endwise.rows import file_fetcher
from endwise.run import Run
from endwise.train import fit

FETCH = file_fetcher(".")
Row = dict[str, Any]


def walkers(moments: int, *, scene: str = "square", bend: float = 0.0, people: int = 4, split: str = "") -> list[Row]:
    """People who cross a square one after another, each there for 14 moments, along curves that bend; frames count by ten."""
    rows = []
    for person in range(people):
        begin = 3 * person
        for step in range(14):
            turn = bend * step + person
            at = (round(math.cos(turn) * (1 + step), 4), round(person + math.sin(turn) * (1 + step), 4))
            if begin + step < moments:
                row = {"scene": scene, "frame": 10 * (begin + step), "who": f"p{person}", "x": at[0], "y": at[1]}
                rows.append({**row, "split": split} if split else row)
    return rows


def table(tmp_path: Path, rows: Sequence[Row], name: str = "walks.csv") -> str:
    file = tmp_path / name
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(file)


def recipe(data: Any, *, windows: Row | None = None, split: Any = None, **output: Any) -> Recipe:
    """Four steps of everybody -> the next three."""
    told = {"past": 4, "future": 3, "time": "frame", "by": "scene", "step": 10, **(windows or {})}
    return Recipe(
        name="walks",
        data={"path": data, "windows": told, "split": split or {"val": 0.6, "test": 0.8}},
        inputs={"seen": {"type": "trajectories", "agent": "who"}},
        outputs={"paths": {"type": "trajectories", **output}},
        trunk={"width": 32, "depth": 1},
        train={"steps": 6},
    )


def columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def built(declared: Recipe) -> tuple[Model, Any]:
    dataset = prepare(declared)
    return Model.build(declared, fit_contracts(declared, dataset), seed=0), dataset


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_every_way_to_write_a_scene_is_the_same() -> None:
    scene = [[[0, 0], [1, 0.5]], [None, [3, 4]]]
    wanted = np.array([[[0, 0], [1, 0.5]], [[np.nan] * 2, [3, 4]]], np.float32)
    paths = Paths(wanted, wanted[:, None], np.ones((2, 1)))
    ways = [scene, dict(zip("ab", scene, strict=True)), json.dumps(scene), wanted, paths, paths.to_json()]
    for raw in ways:
        found = Trajectories().read(raw, FETCH)
        np.testing.assert_array_equal(found, wanted)
        assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("nowhere", ["JSON"]),
        ([], ["list of agents"]),
        ([[[0, 0]], [[0, 0], [1, 1]]], ["1 and 2 steps", "null"]),
        ([[[0, 0, 0]]], ["agent 1", "[x, y]"]),
        ([[["a", 0]]], ["agent 1", "[x, y]"]),
        ([[[0, 0], [1, math.nan]]], ["step 2 of agent 1", "one coordinate"]),
        ([[[0, 1e7]]], ["too far"]),
        ([[None, None]], ["nobody"]),
        ([3], ["agent 1"]),
    ],
)
def test_a_value_that_is_no_scene_is_refused(raw: Any, words: Sequence[str]) -> None:
    with pytest.raises(BadValue) as refused:
        Trajectories().read(raw, FETCH)
    assert all(word in str(refused.value) for word in words), refused.value


def test_a_past_may_be_short_and_a_future_may_not() -> None:
    declared, whole = Trajectories(), np.zeros((2, 4, 2), np.float32)
    past = declared.fit([whole, whole[:, :3]], missing=0, role="input")
    found = declared.transform(whole[:, :3], past)
    assert np.isnan(found[:, 0]).all()
    assert not np.isnan(found[:, 1:]).any()
    assert declared.transform(np.zeros((2, 9, 2), np.float32), past).shape == (2, 4, 2)
    gone = np.concatenate([whole, np.full((2, 4, 2), np.nan, np.float32)], axis=1)
    with pytest.raises(BadValue, match="agent 1 was not seen"):
        declared.transform(gone, past)
    with pytest.raises(BadValue, match="3 to 4 steps"):
        declared.fit([whole, whole[:, :3]], missing=0, role="output")
    with pytest.raises(BadValue, match="3 steps instead of the 4"):
        declared.transform(whole[:, :3], declared.fit([whole], missing=0, role="output"))


@pytest.mark.parametrize(
    ("inputs", "output", "words"),
    [
        ({"a": "number"}, {}, ["type: trajectories"]),
        ({"a": "trajectories", "b": "trajectories"}, {}, ["on: a"]),
        ({"a": "trajectories"}, {"on": "b"}, ["'b'"]),
        ({"a": "trajectories"}, {"futures": 0}, ["futures"]),
        ({"a": "trajectories"}, {"agent": "who"}, ["agent"]),
        ({"a": {"type": "trajectories", "columns": ["x"]}}, {}, ["columns"]),
    ],
)
def test_declarations_that_make_no_sense_are_refused(inputs: Any, output: Row, words: Sequence[str]) -> None:
    def declared() -> Any:
        made = Recipe(data=[{"a": 1}], inputs=inputs, outputs={"out": {"type": "trajectories", **output}})
        return made.standing("out")

    with pytest.raises(RecipeError) as refused:
        declared()
    assert all(word in str(refused.value) for word in words), refused.value


# ---- windows ---------------------------------------------------------------------------------------------------------


def by_hand(rows: Sequence[Row], first: int, past: int, future: int) -> dict[str, list[Any]]:
    """{who: position or None at each step} of those who are there at the last step of the past."""
    at = {(row["who"], row["frame"]): (row["x"], row["y"]) for row in rows}
    frames = [10 * (first + step) for step in range(past + future)]
    now = [row["who"] for row in rows if row["frame"] == frames[past - 1]]
    return {who: [at.get((who, frame), (np.nan, np.nan)) for frame in frames] for who in now}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), every=st.integers(1, 3), past=st.integers(1, 5), future=st.integers(1, 4))
def test_a_window_has_everybody_who_is_there_now(seed: int, every: int, past: int, future: int) -> None:
    random = np.random.default_rng(seed)
    rows = [row for row in walkers(24) if random.random() > 0.1 or row["who"] == "p0"]
    frames = {row["frame"] for row in rows}
    rows += [
        {"scene": "square", "frame": frame, "who": "clock", "x": 9, "y": frame}
        for frame in set(range(0, 240, 10)) - frames
    ]
    order = random.permutation(len(rows))
    shuffled = columns([rows[place] for place in order])  # the order of the rows means nothing
    declared = recipe(
        shuffled, windows={"past": past, "future": future, "every": every}, split={"val": 0.4, "test": 0.8}
    )
    dataset = prepare(declared)
    assert len(dataset) == (24 - past - future) // every + 1
    for row in range(len(dataset)):
        wanted = by_hand([rows[place] for place in order], row * every, past, future)
        seen = dataset.fields["seen"][row]
        np.testing.assert_allclose(seen, np.array([path[:past] for path in wanted.values()]), rtol=1e-6)
        ahead = np.array([path[past:] for path in wanted.values()])
        if np.isnan(ahead).all():
            assert not dataset.fields["paths"].present[row]
        else:
            np.testing.assert_allclose(dataset.fields["paths"][row], ahead, rtol=1e-6)


def test_a_series_ends_where_nobody_is_there() -> None:
    rows = [row for row in walkers(30) if row["frame"] != 120]
    dataset = prepare(recipe(columns(rows), split={"val": 0.45, "test": 0.75}))
    assert isinstance(dataset.tables[0], WindowTable)
    layout = dataset.tables[0].layout
    for row in range(len(dataset)):
        moments = layout.times[int(layout.series[row])][int(layout.first[row]) :][:7]
        assert np.diff(moments).tolist() == [10] * 6
    assert len(dataset) == (12 - 6) + (23 - 13 - 6)


def test_whole_asks_only_for_those_who_are_there_all_the_time() -> None:
    rows = walkers(24)
    every, whole = (prepare(recipe(columns(rows), whole=flag)).fields["paths"] for flag in (False, True))
    for row in range(len(every)):
        wanted = by_hand(rows, row, 4, 3)
        there = np.array([not np.isnan(np.array(path)).any() for path in wanted.values()])
        if not there.any():
            assert not whole.present[row]
            continue
        np.testing.assert_array_equal(np.isnan(whole[row]).any((1, 2)), ~there)
        np.testing.assert_array_equal(whole[row][there], every[row][there])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["train", "val", "test"]), min_size=3, max_size=6), st.integers(0, 9))
def test_no_step_of_a_window_is_on_two_sides(sides: list[str], seed: int) -> None:
    sides = ["train", "val", *sides]
    rows = []
    for place, row in enumerate(sorted(walkers(80, people=24), key=lambda row: row["frame"])):
        del place
        rows.append({**row, "split": sides[row["frame"] // 10 * len(sides) // 81]})
    dataset = prepare(recipe(columns(rows), split="split", windows={"past": 2 + seed % 3}))
    (windowed,) = dataset.tables
    assert isinstance(windowed, WindowTable)
    used = {}
    for side in ("train", "val", "test"):
        used[side] = set[float]()
        for row in dataset.splits.side(side).tolist():
            begin = int(windowed.layout.first[row])
            moments = windowed.layout.times[0][begin : begin + windowed.layout.past + windowed.layout.future]
            assert {sides[int(moment) // 10 * len(sides) // 81] for moment in moments} == {side}
            used[side] |= set(moments.tolist())
    assert not used["train"] & used["val"]
    assert not used["train"] & used["test"]


def test_scenes_are_left_out_by_a_column() -> None:
    rows = [
        row
        for scene, side in (("a", "train"), ("b", "val"), ("c", "test"))
        for row in walkers(20, scene=scene, split=side)
    ]
    dataset = prepare(recipe(columns(rows), split="split"))
    for side, scene in (("train", "a"), ("val", "b"), ("test", "c")):
        assert set(dataset.cells("scene", dataset.splits.side(side))) == {scene}
    assert "by column 'split'" in dataset.splits.how


@pytest.mark.parametrize(
    ("rows", "split", "words"),
    [
        ([*walkers(20), {**walkers(20)[3], "x": 1}], None, ["row 53", "once a moment", "by: COLUMN"]),
        ([{**row, "who": None if place == 2 else row["who"]} for place, row in enumerate(walkers(20))], None, ["row 2", "seen.agent"]),
        ([{**row, "x": "left" if place == 5 else 1} for place, row in enumerate(walkers(20))], None, ["row 5", "'left'", "metres"]),
        ([{**row, "scene": None} for row in walkers(20)], None, ["row 0", "scene"]),
        ([{**row, "frame": 7 * row["frame"] // 10} for row in walkers(20)], None, ["data.windows.step"]),
        (walkers(20, split="train"), "split", ["no window", "val"]),
        (walkers(20, split="some"), "split", ["'some'", "train, val, test"]),
        (walkers(20), "side", ["'side'"]),
        ([{name: cell for name, cell in row.items() if name != "y"} for row in walkers(20)], None, ["inputs.seen", "'y'"]),
    ],
)  # fmt: skip
def test_a_table_that_is_no_scene_is_refused_with_its_row(
    rows: Sequence[Row], split: Any, words: Sequence[str]
) -> None:
    with pytest.raises(EndwiseError) as refused:
        prepare(recipe(columns(rows), split=split))
    assert all(word in str(refused.value) for word in words), refused.value


# ---- the network -----------------------------------------------------------------------------------------------------


def said(model: Model, points: np.ndarray) -> Paths:
    found = model.predict({"seen": points}).answers["paths"].value
    assert isinstance(found, Paths)
    return found


@pytest.fixture(scope="module")
def made() -> tuple[Model, np.ndarray]:
    """An untrained model, and people who all walk."""
    model, _ = built(recipe(columns(walkers(30, bend=0.1))))
    random = np.random.default_rng(0)
    return model, random.normal(0, 3, (5, 1, 2)) + np.arange(4)[:, None] * random.normal(0, 1, (5, 1, 2))


def test_turning_and_moving_a_scene_turns_and_moves_its_futures(made: tuple[Model, np.ndarray]) -> None:
    model, points = made
    cos, sin = math.cos(0.8), math.sin(0.8)
    turn, shift = np.array([[cos, sin], [-sin, cos]]), np.array([12.0, -7.0])
    one, other = said(model, points), said(model, points @ turn + shift)
    np.testing.assert_allclose(other.futures, one.futures @ turn + shift, atol=1e-3)
    np.testing.assert_allclose(other.chances, one.chances, atol=1e-4)
    mirrored = said(model, points * [1, -1])
    assert np.abs(mirrored.futures - one.futures * [1, -1]).max() > 1e-3  # left is not right


def test_agents_have_no_order_and_look_at_each_other(made: tuple[Model, np.ndarray]) -> None:
    model, points = made
    order = np.array([3, 0, 4, 1, 2])
    np.testing.assert_allclose(said(model, points[order]).futures, said(model, points).futures[order], atol=1e-4)
    nearer = points.copy()
    nearer[1] += 0.5 * (points[0] - points[1])
    assert np.abs(said(model, nearer).futures[0] - said(model, points).futures[0]).max() > 1e-5


def test_before_anything_is_learnt_the_first_future_is_constant_velocity(made: tuple[Model, np.ndarray]) -> None:
    model, points = made
    points = points.copy()
    points[1, 3], points[2, 1:3], points[3, :3] = np.nan, np.nan, np.nan
    head = model.network.head("paths")
    assert isinstance(head, FuturesHead)
    kept = head.outward.weight.detach().clone()
    with torch.no_grad():
        head.outward.weight.zero_()
    found = said(model, points)
    with torch.no_grad():
        head.outward.weight.copy_(kept)
    np.testing.assert_allclose(found.points, extrapolated(points, 3), atol=1e-3)
    assert len({tuple(np.round(way[-1], 3)) for way in found.futures[0]}) == 6  # the others differ


def test_the_first_ways_do_not_mirror_and_begin_with_going_on() -> None:
    ways = first_ways(20, 12).numpy()
    np.testing.assert_allclose(ways[0], np.arange(1, 13)[:, None, None] * np.eye(2), atol=1e-6)
    assert (np.linalg.det(ways) > 0).all()


@pytest.mark.parametrize("learn", ["winner", "mixture"])
def test_both_ways_to_learn_have_gradients_where_nobody_is_seen(learn: str) -> None:
    model, _ = built(recipe(columns(walkers(30)), learn=learn))
    head = model.network.head("paths")
    prediction = {
        "paths": torch.randn(2, 3, 6, 3, 2, requires_grad=True), "scores": torch.randn(2, 3, 6, requires_grad=True),
        "size": torch.tensor([3, 2]),
    }  # fmt: skip
    target = torch.randn(2, 3, 3, 2)
    target[0, 1], target[0, 2, 2], target[1] = math.nan, math.nan, math.nan
    sizes = torch.tensor([[3], [2]])
    found = head.loss(prediction, target, sizes)
    assert len(found) == model.recipe.outputs["paths"].num_terms
    torch.autograd.backward([term.sum() for term in found.values()])
    for name in ("paths", "scores"):
        gradient = prediction[name].grad
        assert gradient is not None
        assert torch.isfinite(gradient).all()
        assert (gradient[0, 1] == 0).all()
        assert (gradient[1] == 0).all()
        assert (gradient[0, 0] != 0).any()
    assert head.weight(target, sizes).tolist() == [2, 0]


def test_of_several_futures_the_nearest_learns() -> None:
    model, _ = built(recipe(columns(walkers(30)), futures=3))
    paths = torch.zeros(1, 1, 3, 3, 2)
    paths[0, 0, 1], paths[0, 0, 2] = 1.0, 5.0
    paths.requires_grad_()
    prediction = {"paths": paths, "scores": torch.zeros(1, 1, 3), "size": torch.tensor([1])}
    found = model.network.head("paths").loss(prediction, torch.full((1, 1, 3, 2), 4.5), torch.tensor([[1]]))
    (gradient,) = torch.autograd.grad(found["futures"].sum(), [paths])
    assert (gradient[0, 0, 2] != 0).all()
    assert (gradient[0, 0, :2] == 0).all()


# ---- scores and baselines --------------------------------------------------------------------------------------------


def test_metrics_are_those_of_the_literature() -> None:
    truth = Paths(np.array([[[1, 0], [2, 0]], [[0, 1], [np.nan] * 2], [[np.nan] * 2] * 2], np.float32))
    path = np.array([[[1, 0], [2, 3]], [[0, 1.5], [0, 3]], [[9, 9], [9, 9]]], np.float32)
    futures = np.stack([path, path + np.float32(np.where(np.arange(2)[:, None] == 1, [0, -2], 0))], axis=1)
    answer = Answer(Paths(path, futures, np.full((3, 2), 0.5)))
    found = {
        metric.name: value(metric, [truth], [answer])
        for metric in Trajectories().metrics(Trajectories().fit([truth.points], missing=0, role="output"))
    }
    assert found["ade"] == pytest.approx((1.5 + 0.5) / 2)
    assert found["fde"] == pytest.approx(3.0)  # of the one who is there at the end
    assert found["min_ade"] == pytest.approx((0.5 + 0.5) / 2)
    assert found["min_fde"] == pytest.approx(1.0)
    assert found["miss_rate"] == 0.0
    assert value(metrics.miss_rate(0.5), [truth], [answer]) == 1.0
    assert found["collision_rate"] == 0.0
    assert value(metrics.collision_rate(2.1), [truth], [answer]) == 1.0


def test_an_answer_for_fewer_agents_is_held_against_all() -> None:
    truth, one = Paths(np.ones((3, 2, 2), np.float32)), Answer(Paths(np.zeros((1, 2, 2), np.float32)))
    assert value(metrics.ade(), [truth], [one]) == pytest.approx(math.sqrt(2))


def test_the_trivial_baseline_goes_on_and_the_classical_one_bends() -> None:
    for bend in (0.0, 0.2):
        declared = recipe(columns(walkers(90, bend=bend, people=26)), whole=True)
        dataset = prepare(declared)
        contracts = fit_contracts(declared, dataset)
        rows = dataset.splits.test
        found = baselines(contracts, declared, dataset, dataset.splits.train, rows)["paths"]
        item, contract = declared.outputs["paths"], contracts["paths"]
        truths = [item.truth(dataset.fields["paths"][row], contract) for row in rows.tolist()]
        assert any("constant velocity, the best of these" in note for note in found["notes"])
        assert found["trivial"] is not None
        assert found["classical"] is not None
        simple, ridge = (value(metrics.ade(), truths, given) for given in (found["trivial"], found["classical"]))
        assert simple < 1e-3 if bend == 0 else ridge < 0.5 * simple


# ---- a run -----------------------------------------------------------------------------------------------------------


def test_a_run_from_a_table_to_a_report_with_paths(tmp_path: Path) -> None:
    file = table(tmp_path, walkers(60, bend=0.1, people=16))
    run = tmp_path / "run"
    model = fit(recipe(file), out=run)
    page = build(Run.open(run)).read_text(encoding="utf-8")
    assert "min_ade" in page
    assert page.count("<li><i style") > 3
    (answer,) = model.predict(table(tmp_path, walkers(20), "new.csv"))
    path = answer.answers["paths"].value
    assert len(path) == 2  # the last two are still there
    told = json.loads(json.dumps(answer.to_dict()["paths"]["value"] if "paths" in answer.to_dict() else path.to_json()))
    assert sum(way["chance"] for way in told[0]["futures"]) == pytest.approx(1.0, abs=1e-4)
    again = Model.load(run)
    assert again.predict(table(tmp_path, walkers(20), "new.csv"))[0]["paths"] == path
