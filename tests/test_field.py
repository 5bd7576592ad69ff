"""Fields: numbers on grids as they are, waves that are exact on any grid, answers that are fed back."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import endwise as ew
from endwise import metrics
from endwise.batch import Ragged
from endwise.data.dataset import prepare
from endwise.errors import BadValue, DataError, RecipeError
from endwise.metrics.fields import relative_error
from endwise.modalities.base import Answer
from endwise.modalities.field.classical import WaveRidge, Waves
from endwise.modalities.field.network import FieldHead, WaveMix, across, analysed, basis, built
from endwise.modalities.field.rollout import roll_out
from endwise.nn.size import Size

SIZE = Size.of("tiny", width=32, depth=1)


def fetch(path: str) -> bytes:
    return Path(path).read_bytes()


def read(raw: Any, **declared: Any) -> np.ndarray:
    return ew.Field(**declared).read(raw, fetch)


def npy(values: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, values)
    return out.getvalue()


def band_limited(random: np.random.Generator, grid: tuple[int, ...], modes: int = 3) -> np.ndarray:
    """One channel, of waves below `modes` along each axis, the same function on every grid."""
    places = np.meshgrid(*(np.arange(size) / size for size in grid), indexing="ij")
    made = np.zeros(grid)
    for wave in np.ndindex(*(2 * modes - 1,) * len(grid)):
        turns = sum((number - modes + 1) * place for number, place in zip(wave, places, strict=True))
        size, phase = random.normal(), random.uniform(0, 2 * np.pi)
        made = made + size * np.cos(2 * np.pi * turns + phase)
    return made


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_arrays_lists_files_and_answers_are_read_alike(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float64).reshape(3, 4)
    np.save(tmp_path / "plate.npy", values)
    wanted = values[None].astype(np.float32)
    for raw in (
        values,
        values.tolist(),
        str(values.tolist()),
        npy(values),
        str(tmp_path / "plate.npy"),
        torch.tensor(values),
    ):
        assert np.array_equal(read(raw), wanted)
        assert read(raw).dtype == np.float32
    assert np.array_equal(read(ew.Lattice(wanted)), wanted)
    assert read(ew.Lattice(wanted[0])).shape == (3, 4)  # one axis: an answer says which is the channels


@pytest.mark.parametrize(
    ("shape", "declared", "wanted"),
    [((5,), {}, (1, 5)), ((3, 5), {}, (1, 3, 5)), ((3, 5), {"dims": 1}, (3, 5)), ((2, 3, 5), {}, (2, 3, 5)),
     ((2, 3, 5), {"dims": 3}, (1, 2, 3, 5)), ((2, 3, 4, 5), {}, (2, 3, 4, 5))],
)  # fmt: skip
def test_which_axis_is_the_channels(shape: tuple[int, ...], declared: dict[str, Any], wanted: tuple[int, ...]) -> None:
    assert read(np.zeros(shape), **declared).shape == wanted


@pytest.mark.parametrize(
    ("raw", "said"),
    [([[1, 2], [3]], "different lengths"), ("[1, 2", "no list of numbers"), ([[1.0, float("nan")]], r"\[0, 0, 1\]"),
     (np.zeros((2, 3, 4, 5, 6)), "1 to 4 axes"), (np.zeros((0, 3)), "holds no number"), (np.array(["a"]), "expected numbers"),
     (3.0, "path or the bytes"), (b"\x93NUMPY\x01", "damaged"), (b"GIF89a", "no .npy"), (np.array([1e38]), "no holes"),
     (np.zeros(3, complex), "complex")],
)  # fmt: skip
def test_what_is_no_field_is_refused(raw: Any, said: str) -> None:
    with pytest.raises(BadValue, match=said):
        read(raw)


def test_a_file_that_would_run_code_is_refused() -> None:
    with pytest.raises(BadValue, match="damaged, or holds no plain numbers"):
        read(npy(np.array([{"a": 1}], dtype=object)))


def test_a_contract_knows_grids_and_scales() -> None:
    values = [read(np.full((4, 4 + turn), 2.0 + turn)) for turn in range(3)]
    found = ew.Field(units=("K",)).fit(iter(values), missing=1, role="input")
    assert (found.dims, found.channels, found.smallest, found.largest) == (2, 1, (4, 4), (4, 6))
    assert found.mean[0] == pytest.approx(np.concatenate([value.ravel() for value in values]).mean())
    assert ew.Field(units=("K",)).summary(found).startswith("1 channel on 4 x 4 to 6; mean 3.")
    with pytest.raises(DataError, match="as many channels and axes"):
        ew.Field().fit(iter([values[0], read(np.zeros(3))]), missing=0, role="input")
    with pytest.raises(RecipeError, match="one for each of 1 channels"):
        ew.Field(units=("K", "m")).fit(iter(values), missing=0, role="input")


# ---- waves -----------------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(grid=st.lists(st.integers(7, 13), min_size=1, max_size=3), seed=st.integers(0, 99), room=st.integers(0, 4))
def test_waves_give_a_field_back_on_any_grid_and_in_any_padding(grid: list[int], seed: int, room: int) -> None:
    """What is made of the kept waves is built again from their amplitudes, whatever lies beyond a row's own cells."""
    field = band_limited(np.random.default_rng(seed), tuple(grid))
    padded = np.full([size + room for size in grid], 99.0)
    own = tuple(slice(size) for size in grid)
    padded[own] = field
    x = torch.tensor(padded, dtype=torch.float32)[None, ..., None]
    found = basis(torch.tensor([grid]), x.shape[1:-1], (3,) * len(grid))
    again = built(analysed(x, found), found)[0, ..., 0].numpy()
    assert np.allclose(again[own], field, atol=2e-4)
    again[own] = 0
    assert not again.any()


def test_the_operator_is_the_same_on_every_grid_and_everywhere_on_it() -> None:
    torch.manual_seed(0)
    mix = WaveMix(1, (3, 3))
    fields = [band_limited(np.random.default_rng(5), (size, size)) for size in (10, 20)]
    results = []
    for field in fields:
        x = torch.tensor(field, dtype=torch.float32)[None, ..., None]
        found = basis(torch.tensor([field.shape]), field.shape, (3, 3))
        results.append(mix(x, found))
        moved = mix(x.roll((2, 3), (1, 2)), found)
        assert torch.allclose(moved, results[-1].roll((2, 3), (1, 2)), atol=1e-4)
    assert torch.allclose(results[0], results[1][:, ::2, ::2], atol=1e-4)


def test_a_grid_coarser_than_training_is_answered() -> None:
    """Waves that it cannot hold are left out, not folded onto others."""
    x = torch.ones(1, 4, 1)
    found = basis(torch.tensor([[4]]), (4,), (16,))
    real, imaginary = analysed(x, found)
    assert torch.allclose(real[0, :2, 0], torch.tensor([1.0, 0.0]), atol=1e-6)
    assert not real[0, 2:].any()
    assert not imaginary[0, 2:].any()
    assert torch.allclose(built((real, imaginary), found), x, atol=1e-6)


# ---- in a recipe -----------------------------------------------------------------------------------------------------


def turned(count: int = 24, size: int = 16) -> list[dict[str, Any]]:
    """Waves that move a sixteenth of the line in a step."""
    random, rows = np.random.default_rng(0), []
    for _ in range(count):
        now = band_limited(random, (size,))
        rows.append({"now": now.tolist(), "next": np.roll(now, 1).tolist()})
    return rows


def test_a_row_on_another_grid_is_put_aside_with_the_reason() -> None:
    rows = turned()
    rows[3]["next"] = [0.0] * 9
    recipe = ew.Recipe(data={"path": rows, "max_bad": "10%"}, inputs={"now": "field"}, outputs={"next": "field"})
    dataset = prepare(recipe, workers=0)
    assert [(item.row, item.field) for item in dataset.bad] == [(3, "next")]
    assert dataset.bad[0].reason == "a field on 9 cells beside now on 16"
    assert 3 not in np.concatenate([dataset.splits.train, dataset.splits.val, dataset.splits.test])


@pytest.mark.parametrize(
    ("inputs", "output", "said"),
    [({"a": "number"}, ew.Field(), "type: field"), ({"a": "field", "b": "field"}, ew.Field(), "on: a"),
     ({"a": "field"}, ew.Field(on="b"), "'b'")],
)  # fmt: skip
def test_an_answer_lies_on_a_field(inputs: Mapping[str, Any], output: ew.Field, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        ew.Recipe(data=[{"a": 1}], inputs=inputs, outputs={"y": output}).standing("y")


def test_grids_of_other_axes_are_refused() -> None:
    contracts = {
        name: ew.Field().fit(iter([read(np.zeros(shape))]), missing=0, role="input")
        for name, shape in (("a", 5), ("y", (5, 5)))
    }
    head = ew.Field(on="a").head(contracts["y"], SIZE)
    with pytest.raises(DataError, match="2 axes"):
        head.meet({"a": ew.Field().encoder(contracts["a"], SIZE)})


def test_an_untrained_network_says_that_nothing_changes() -> None:
    recipe = ew.Recipe(data=turned(), inputs={"now": "field"}, outputs={"next": "field"}, train={"size": "tiny"})
    contracts = {
        name: ew.Field(on="now").fit((read(row[name]) for row in turned()), missing=0, role="input")
        for name in ("now", "next")
    }
    model = ew.Model.build(recipe, contracts, seed=0)
    for row in turned(3):
        again = model.predict({"now": model.predict({"now": row["now"]}).to_dict()["next"]["value"]})["next"]
        assert again.shape == (1, 16)  # an answer in JSON is an input
        answer = model.predict({"now": row["now"]}).answers["next"]
        assert isinstance(answer.value, ew.Lattice)
        assert relative_error(read(row["now"]), answer.value.values) < 0.1
    assert isinstance(model.network.head("next"), FieldHead)


def test_the_loss_is_the_metric() -> None:
    recipe = ew.Recipe(data=turned(), inputs={"now": "field"}, outputs={"next": "field"}, train={"size": "tiny"})
    found = ew.Field(on="now").fit((read(row["next"]) for row in turned()), missing=0, role="input")
    model = ew.Model.build(recipe, {"now": found, "next": found}, seed=0)
    rows = turned(4)
    answers = [model.predict({"now": row["now"]}).answers["next"] for row in rows]
    truth = torch.tensor(np.array([row["next"] for row in rows]), dtype=torch.float32)[:, None, None, :, None]
    head = model.network.head("next")
    field = torch.tensor(np.array([answer.value.values for answer in answers]))[:, 0, None, None, :, None]
    sizes = torch.tensor([[1, 1, 16]] * 4)
    standard = (field - found.mean[0]) / found.deviation[0]
    losses = head.loss({"field": standard, "expected_error": standard.abs(), "sizes": sizes}, truth, sizes)["field"]
    wanted = [relative_error(read(row["next"]), answer.value.values) for row, answer in zip(rows, answers, strict=True)]
    assert np.allclose(losses.numpy(), wanted, atol=1e-5)


# ---- answers, metrics, baselines -------------------------------------------------------------------------------------


def test_the_relative_error_is_that_of_the_hand() -> None:
    truth, answer = np.array([[3.0, 4.0], [0.0, 2.0]]), np.array([[3.0, 9.0], [0.0, 2.0]])
    assert relative_error(truth, answer) == pytest.approx(0.5)
    assert relative_error(np.zeros((1, 4)), np.ones((1, 4)), [1.0]) == pytest.approx(1000.0)
    rows = [ew.Lattice(truth), ew.Lattice(answer)]
    given = [Answer(ew.Lattice(answer)), Answer(ew.Lattice(answer))]
    assert metrics.value(metrics.relative_l2(), rows, given) == pytest.approx(0.25)
    assert metrics.value(metrics.field_rmse("K"), rows, given) == pytest.approx(np.sqrt(25 / 8))


def test_ridge_on_waves_is_the_exact_operator_of_linear_physics() -> None:
    rows = turned(60)
    waves = Waves().fit([])
    features = waves.transform([read(row["now"]) for row in rows])
    truths = [ew.Lattice(read(row["next"])) for row in rows]
    ridge = WaveRidge().fit(features[:40], truths[:40])
    for truth, made in zip(truths[40:], ridge.predict(features[40:]), strict=True):
        assert relative_error(truth.values, made) < 1e-3


def test_persistence_is_the_trivial_answer() -> None:
    item = ew.Field(on="now")
    rows = [read(row["now"]) for row in turned(3)]
    found = item.fit(iter(rows), missing=0, role="output")
    constant = item.trivial([item.truth(row, found) for row in rows], found)
    assert np.allclose(constant.value.values, np.mean(rows, axis=0), atol=1e-6)
    (again,) = item.untaught({"now": rows[1]}, {"now": found, "next": found}, found).values()
    assert again.value == ew.Lattice(rows[1], ("",))
    assert not item.untaught({}, {"now": found, "next": found}, found)


def test_a_field_is_drawn_saved_and_compared(tmp_path: Path) -> None:
    for shape in ((1, 30), (2, 4, 6), (1, 3, 4, 5)):
        values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        field = ew.Lattice(values, ("K",) * shape[0])
        picture = Image.open(io.BytesIO(base64.b64decode(field.drawn().partition(",")[2])))
        assert picture.size[0] >= 30
        assert np.array_equal(np.load(field.save(tmp_path / f"field{field.suffixes[0]}")), values)
        assert np.array_equal(np.asarray(field.to_json(), np.float32), values)
        assert field == ew.Lattice(values.copy(), ("K",) * shape[0]) != ew.Lattice(values)
        assert "K" in repr(field)


# ---- feeding back ----------------------------------------------------------------------------------------------------


def test_a_roll_out_says_how_far_a_step_carries() -> None:
    random = np.random.default_rng(0)
    lines = [band_limited(random, (16,)) for _ in range(4)]
    trajectories = [np.stack([np.roll(line, step)[None] for step in range(9)]) for line in lines]
    exact = roll_out(lambda now: [np.roll(item, 1, -1) for item in now], trajectories)
    assert exact.horizons["network"].value == exact.steps == 8
    assert exact.horizons["persistence"].value < 1
    assert exact.worse_than() is None
    drifting = roll_out(
        lambda now: [1.04 * np.roll(item, 1, -1) for item in now], trajectories,
        rivals={"exact": lambda now: [np.roll(item, 1, -1) for item in now]},
    )  # fmt: skip
    assert drifting.horizons["network"].value == 2  # 1.04 ** 3 is the first beyond a tenth
    assert drifting.errors["network"][2].value == pytest.approx(1.04**3 - 1)
    assert drifting.worse_than("exact") == 1
    assert "network: below 0.1 for 2" in str(drifting)


def test_a_roll_out_needs_trajectories() -> None:
    with pytest.raises(DataError, match="one length"):
        roll_out(lambda now: now, [np.zeros((3, 1, 4)), np.zeros((2, 1, 4))])
    with pytest.raises(DataError, match="persistence"):
        roll_out(lambda now: now, [np.ones((3, 1, 4))]).worse_than("persistance")


def test_a_roll_out_cannot_go_on_from_nothing() -> None:
    with pytest.raises(DataError, match=r"step 1 = .an answer that was withheld.*Fix: remove abstain"):
        roll_out(lambda now: [None for _ in now], [np.ones((3, 1, 4))])


def test_what_is_expected_of_an_answer_changes_nothing_of_it_and_is_in_its_unit() -> None:
    """Of cells that are padding nothing is expected; the gradient of what is expected reaches no other layer."""
    rows = [{"now": read(row["now"]), "next": 1000 * read(row["next"])} for row in turned(8)]
    recipe = ew.Recipe(
        data=[{name: value.tolist() for name, value in row.items()} for row in rows], inputs={"now": "field"},
        outputs={"next": ew.Field(units=("m",))}, train={"size": "tiny"},
    )  # fmt: skip
    contracts = {
        name: ew.Field(on="now").fit((row[name] for row in rows), missing=0, role="input") for name in ("now", "next")
    }
    model = ew.Model.build(recipe, contracts, seed=0)
    answer = model.predict({"now": rows[0]["now"]}).answers["next"]
    assert 10 < answer.detail["expected_error"] < 1000  # metres, of fields of about a thousand
    head = model.network.head("next")
    field, sizes = torch.zeros(2, 1, 1, 6, 1), torch.tensor([[1, 1, 6], [1, 1, 3]])
    expected = torch.ones_like(field)
    expected[1, :, :, 3:] = 99.0
    decoded = head.decode({"field": field, "expected_error": expected, "sizes": sizes})["expected_error"]
    assert torch.allclose(decoded[0], decoded[1])

    batch = torch.tensor(np.array([row["now"] for row in rows]))[:, :, None, None].movedim(1, -1)
    sizes = torch.tensor([[1, 1, 16]] * len(rows))
    there = torch.ones(len(rows), dtype=torch.bool)
    predictions = model.network({"now": Ragged(batch, sizes)}, {"now": there})["next"]
    head.loss(predictions, 1000 * batch, sizes)["expected_error"].mean().backward()
    moved = {name for name, weight in model.network.named_parameters() if weight.grad is not None}
    assert moved and all(".doubt." in name for name in moved)


def test_another_field_counts_cell_by_cell(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    table = []
    for _ in range(160):
        now, beside = random.normal(size=(2, 8, 8))
        table.append({"now": now.tolist(), "beside": beside.tolist(), "next": (0.2 * now + beside).tolist()})
    recipe = ew.Recipe(
        data=table, inputs={"now": "field", "beside": "field"}, outputs={"next": ew.Field(on="now")},
        train={"size": "tiny", "steps": 90, "batch_size": 16},
    )  # fmt: skip
    model = ew.fit(recipe, out=tmp_path / "run")
    assert model.run is not None
    metrics_of = model.run.read("metrics.json")["outputs"]["next"]
    assert metrics_of["relative_l2"]["value"] < 0.4  # what is only known as a whole leaves 0.98


@given(st.lists(st.integers(2, 9), min_size=2, max_size=2), st.lists(st.integers(2, 9), min_size=2, max_size=2))
@settings(max_examples=30, deadline=None)
def test_a_map_is_laid_on_another_grid_of_the_same_domain(own: list[int], other: list[int]) -> None:
    sizes = [torch.tensor([size, size]) for size in (own, other)]  # two rows
    room = [size + 2 for size in own]  # padding beyond the rows' own cells
    places = (torch.arange(room[0])[:, None] + 0.5) / own[0] + 2 * (torch.arange(room[1])[None] + 0.5) / own[1]
    values = places.expand(2, -1, -1)[..., None]
    found = across(values, *sizes, other)[..., 0]
    wanted = (torch.arange(other[0])[:, None] + 0.5) / other[0] + 2 * (torch.arange(other[1])[None] + 0.5) / other[1]
    inside = [
        (((torch.arange(new) + 0.5) / new >= 0.5 / old) & ((torch.arange(new) + 0.5) / new <= 1 - 0.5 / old))
        for new, old in zip(other, own, strict=True)
    ]
    middle = inside[0][:, None] & inside[1][None]
    split = [0.0 if new >= old or old % new == 0 else 0.25 / old for new, old in zip(other, own, strict=True)]
    near = 1e-5 + split[0] + 2 * split[1]  # a cell that two new ones share is one number
    torch.testing.assert_close(found[:, middle], wanted.expand(2, -1, -1)[:, middle], atol=near, rtol=0)  # a plane
    if own == other:
        torch.testing.assert_close(found, values[:, : own[0], : own[1], 0], rtol=0, atol=0)


def test_a_cell_of_a_coarser_grid_is_the_mean_of_what_it_covers() -> None:
    """A board of black and white is grey from afar, and keeps what it holds as a whole."""
    board = (torch.arange(12)[:, None] + torch.arange(12)[None]).remainder(2).float()
    values = torch.nn.functional.pad(board, (0, 3, 0, 3), value=9.0)[None, ..., None]  # beside a row on a larger grid
    own = torch.tensor([[12, 12]])
    found = across(values, own, torch.tensor([[3, 2]]), (3, 2))
    torch.testing.assert_close(found, torch.full((1, 3, 2, 1), 0.5))
    random = torch.rand(12, 12, generator=torch.Generator().manual_seed(0))
    values[0, :12, :12, 0] = random
    torch.testing.assert_close(across(values, own, torch.tensor([[5, 7]]), (5, 7)).mean(), random.mean())
    finer = across(values, own, torch.tensor([[5, 24]]), (5, 24))  # coarser along one axis alone
    assert 0 <= float(finer.min()) <= float(finer.max()) <= 1
