"""Series: how they are read, windows over long tables, and forecasts. The contract suite runs elsewhere."""

import csv
import datetime as dt
import itertools
import json
import math
import zoneinfo
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from endwise.baselines import baselines
from endwise.data.check import check
from endwise.data.dataset import fit_contracts, prepare
from endwise.data.table import open_table
from endwise.data.windows import WindowStore, WindowTable, view, window_splits
from endwise.errors import BadValue, DataError, EndwiseError, RecipeError
from endwise.evaluate import evaluate
from endwise.metrics import forecast_metrics, value
from endwise.modalities.base import Answer
from endwise.modalities.series import Series, SeriesContract
from endwise.model import Model
from endwise.nn.interface import Tokens
from endwise.nn.size import Size
from endwise.recipe import Recipe
from endwise.report import build, plots
from endwise.rows import file_fetcher
from endwise.run import Run
from endwise.train import fit

FETCH = file_fetcher(".")
START = dt.datetime(2024, 1, 1)


def hours(count: int) -> list[str]:
    return [(START + dt.timedelta(hours=step)).isoformat(sep=" ") for step in range(count)]


def table_of(count: int) -> dict[str, list[Any]]:
    """A day's wave, another around 5, and the hour."""
    return {
        "date": hours(count),
        "a": [round(math.sin(2 * math.pi * step / 24), 4) for step in range(count)],
        "b": [round(5 + math.cos(2 * math.pi * step / 24) + 0.001 * step, 4) for step in range(count)],
        "hour": [step % 24 for step in range(count)],
    }


def windowed(data: Any, **settings: Any) -> Recipe:
    """Two channels and a known one -> the next steps of the two."""
    windows = {"time": "date", "past": 24, "future": 6, **settings.pop("windows", {})}
    return Recipe(
        name="toy",
        data={"path": data, "windows": windows, "split": settings.pop("split", {"val": 0.6, "test": 0.8})},
        inputs={
            "load": {"type": "series", "columns": ["a", "b"]},
            "clock": {"type": "series", "columns": ["hour"], "known": True},
        },
        outputs={"next": {"type": "series", "columns": ["a", "b"], "season": 24}},
        trunk={"width": 32, "depth": 1},
        train={"size": "tiny", "steps": 4, "batch_size": 16, **settings},
    )


def written(folder: Path, table: dict[str, list[Any]], name: str = "load.csv") -> str:
    with (folder / name).open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(table)
        out.writerows(zip(*table.values(), strict=True))
    return str(folder / name)


# ---- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ([1, 2.5, None], [[1], [2.5], [np.nan]]),
        ([[1, 2, 3], [4, 5, 6]], [[1, 4], [2, 5], [3, 6]]),
        ("[[1, 2], [3, null]]", [[1, 3], [2, np.nan]]),
        (np.array([[1, 2, 3], [4, 5, 6]], np.int16), [[1, 4], [2, 5], [3, 6]]),
        (np.array([0.5, np.nan]), [[0.5], [np.nan]]),
        (["1.5", "", "2"], [[1.5], [np.nan], [2]]),
    ],
)
def test_lists_arrays_and_text_are_read_as_steps_of_channels(raw: Any, expected: list[Any]) -> None:
    np.testing.assert_array_equal(Series().read(raw, FETCH), np.array(expected, np.float32))


def test_whole_numbers_are_kept_small() -> None:
    assert Series().read([12, -300, 7], FETCH).dtype == np.int16
    assert Series().read([12, 40_000], FETCH).dtype == np.float32


def test_files_are_read_and_channels_found_by_name(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.arange(6).reshape(2, 3))
    file = written(tmp_path, {"time": [0, 1], "b": [5, 6], "a": [3, ""]})
    fetch = file_fetcher(tmp_path)
    assert Series().read("one.npy", fetch).tolist() == [[0, 3], [1, 4], [2, 5]]
    np.testing.assert_array_equal(Series(columns=("a", "b")).read(file, fetch), [[3, 5], [np.nan, 6]])


def test_the_gaps_of_irregular_steps_are_a_channel() -> None:
    pulse = Series(columns=("pulse",), times="at")
    found = pulse.read({"pulse": [60, 61, 65], "at": [0, 1.5, 6]}, FETCH)
    np.testing.assert_array_equal(found, [[60, np.nan], [61, 1.5], [65, 4.5]])  # nobody knows what was before the first
    contract = pulse.fit([found], missing=0, role="input")
    assert contract.channels == ("pulse", "time since the step before")
    assert contract.missing_share == 0
    assert "60 to 65" in pulse.summary(contract)
    assert "1.5 to 4.5 from step to step" in pulse.summary(contract)


@pytest.mark.parametrize(
    "times",
    [
        ["2024-05-31T12:00", "2024-05-31T12:00:30", "2024-06-01"],
        [START, START + dt.timedelta(seconds=30), START + dt.timedelta(hours=12)],
        np.array(["2024-05-31T12:00", "2024-05-31T12:00:30", "2024-06-01"], "datetime64[ns]"),
        [1_717_156_800, 1_717_156_830, 1_717_200_000],  # too large for single precision
        "[1717156800, 1717156830, 1717200000]",
    ],
)
def test_times_are_dates_or_numbers_and_their_gaps_seconds(times: Any) -> None:
    pulse = Series(columns=("pulse",), times="at")
    assert pulse.read({"pulse": [60, 61, 65], "at": times}, FETCH)[1:, 1].tolist() == [30, 43_170]
    assert Series(columns=(), times="at").read({"at": times}, FETCH)[1:, 0].tolist() == [30, 43_170]


@pytest.mark.parametrize(
    ("declared", "raw", "words"),
    [
        (Series(), [], ["empty"]),
        (Series(), [None, None], ["not one value"]),
        (Series(), [1, "abc"], ["step 2", "'abc'", "null"]),
        (Series(), [[1, 2], [3, "x"]], ["channel 2, step 2"]),
        (Series(), [[1, 2, 3], [4, 5]], ["2 and 3 steps", "an input for each rate"]),
        (Series(), [1, math.inf], ["step 2"]),
        (Series(), {"a": [1]}, ["columns"]),
        (Series(columns=("a", "b")), {"a": [1]}, ["no channel 'b'"]),
        (Series(columns=("a", "b")), [1, 2], ["1 channels instead of the 2"]),
        (Series(), np.zeros((2, 2, 2)), ["[2, 2, 2]"]),
        (Series(), "beat", ["neither a list of numbers", ".npy"]),
        (Series(columns=("a",), times="t"), {"a": [1, 2], "t": [3, 3]}, ["step 2", "twice"]),
        (Series(columns=("a",), times="t"), {"a": [1, 2], "t": [3, 1]}, ["earlier"]),
        (Series(columns=("a",), times="t"), {"a": [1, 2], "t": [3]}, ["1 times beside 2 steps"]),
        (Series(columns=("a",), times="t"), {"a": [1, 2], "t": [3, None]}, ["step 2 is missing"]),
        (Series(columns=("a",), times="t"), {"a": [1, 2], "t": ["2024-05-31", 3]}, ["step 2, 3, is no date"]),
        (Series(columns=("a",), times="t"), {"a": [1, 2], "t": [3, "soon"]}, ["step 2, 'soon', is no number"]),
        (Series(columns=(), times="t"), {"t": []}, ["0 times"]),
    ],
)
def test_a_value_that_is_no_series_is_refused_with_its_place(declared: Series, raw: Any, words: Sequence[str]) -> None:
    with pytest.raises(BadValue) as refused:
        declared.read(raw, FETCH)
    assert all(word in str(refused.value) for word in words), refused.value


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"columns": ("a", "a")}, ["columns", "once"]),
        ({"columns": ("a",), "column": "b"}, ["column"]),
        ({"times": "t"}, ["times", "columns: [NAME]"]),
        ({"columns": ()}, ["columns", "times:"]),
        ({"quantiles": (0.1, 0.9)}, ["quantiles", "0.5"]),
        ({"rate_hz": 0.0}, ["rate_hz"]),
        ({"mask": 1.5}, ["mask"]),
    ],
)
def test_declarations_that_make_no_sense_are_refused(settings: dict[str, Any], words: Sequence[str]) -> None:
    with pytest.raises(RecipeError) as refused:
        Series(**settings)
    assert all(word in str(refused.value) for word in words), refused.value


def test_a_forecast_has_one_length() -> None:
    series = Series()
    rows = [series.read([1.5, 2], FETCH), series.read([1.5, 2, 3], FETCH)]
    assert series.fit(rows, missing=0, role="input").length is None
    with pytest.raises(BadValue, match="2 to 3 steps"):
        series.fit(rows, missing=0, role="output")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.one_of(st.none(), st.floats(-1e4, 1e4)), min_size=1, max_size=9), min_size=1, max_size=6))
def test_statistics_are_those_of_what_is_there(rows: list[list[float | None]]) -> None:
    kept = [row for row in rows if any(item is not None for item in row)]
    if not kept:
        return
    read = [Series().read(row, FETCH) for row in kept]
    contract = Series().fit(read, missing=0, role="input")
    every = np.concatenate([item[:, 0].astype(np.float64) for item in read])
    there = every[~np.isnan(every)]
    assert contract.mean[0] == pytest.approx(there.mean(), abs=1e-6 * (1 + np.abs(there).max()))
    assert contract.deviation[0] == pytest.approx(there.std() or 1.0, rel=1e-3, abs=1e-3)
    assert contract.missing_share == pytest.approx(1 - len(there) / len(every))


# ---- windows ---------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    past=st.integers(1, 12), future=st.integers(1, 8), every=st.integers(1, 3), room=st.lists(st.integers(2, 9), min_size=4, max_size=4),
)  # fmt: skip
def test_no_step_of_a_future_is_on_two_sides(past: int, future: int, every: int, room: list[int]) -> None:
    val = past + future + room[0]
    test = val + future + room[1]
    end = test + future + room[2]
    recipe = windowed(
        table_of(end + room[3]),
        windows={"past": past, "future": future, "every": every},
        split={"val": val, "test": test, "end": end},
    )
    table = view(open_table(recipe.data.path), recipe)
    assert isinstance(table, WindowTable)
    splits = window_splits(table, recipe)
    layout, seen = table.layout, {}
    for side in ("train", "val", "test"):
        first = layout.first[splits.side(side)] + past
        seen[side] = {step for begin in first.tolist() for step in range(begin, begin + future)}
    assert max(seen["train"]) < val <= min(seen["val"])
    assert max(seen["val"]) < test <= min(seen["test"])
    assert max(seen["test"]) < end
    last_pasts = layout.first[splits.train] + past - 1  # nor does a training row look at what comes later
    assert last_pasts.max() < val


def test_a_window_is_a_slice_of_the_table_and_its_column_is_kept_once() -> None:
    data = table_of(80)
    data["a"][30] = None
    dataset = prepare(windowed(data))
    load, coming, clock = (dataset.fields[name] for name in ("load", "next", "clock"))
    assert isinstance(load, WindowStore)
    whole = np.array([data["a"], data["b"]], np.float64).T.astype(np.float32)
    for row in range(len(dataset)):
        np.testing.assert_array_equal(load[row], whole[row : row + 24])
        np.testing.assert_array_equal(coming[row], whole[row + 24 : row + 30])
        assert clock[row][:, 0].tolist() == data["hour"][row : row + 30]
        assert not load[row].flags.writeable
    np.testing.assert_array_equal(load.gather(np.array([3, 9])), [whole[3:27], whole[9:33]])
    assert np.shares_memory(load[0], load[1])
    assert load.nbytes < 3 * whole.nbytes + 10_000
    assert dataset.raw("load", 2) == {"a": data["a"][2:26], "b": data["b"][2:26]}
    assert dataset.origin(0).startswith("the window up to")


def test_statistics_are_of_each_training_step_once() -> None:
    data = table_of(100)
    recipe = windowed(data, split={"val": 60, "test": 80})
    contracts = fit_contracts(recipe, prepare(recipe))
    load, coming = contracts["load"], contracts["next"]
    assert isinstance(load, SeriesContract)
    assert isinstance(coming, SeriesContract)
    assert load.mean == pytest.approx((np.mean(data["a"][:60]), np.mean(data["b"][:60])), abs=1e-6)
    assert load.mean == coming.mean
    assert (load.length, coming.length, load.window) == (24, 6, True)


def test_several_series_in_one_table_have_windows_of_their_own(tmp_path: Path) -> None:
    one = table_of(60)
    mixed = {name: [cell for cell in cells for _ in range(2)] for name, cells in one.items()}
    mixed["a"] = [cell + 10 * (index % 2) for index, cell in enumerate(mixed["a"])]
    mixed["shop"] = ["north", "south"] * 60
    dataset = prepare(windowed(written(tmp_path, mixed), windows={"by": "shop"}))
    assert len(dataset) == 2 * (60 - 30 + 1)
    assert {round(float(dataset.fields["load"][row][:, 0].mean()), 3) // 5 for row in range(len(dataset))} == {0, 2}
    assert dataset.cells("shop", [0, 31]) == ["north", "south"]
    for side in ("train", "val", "test"):  # a border is one moment for all of them
        assert len(dataset.splits.side(side)) % 2 == 0


def test_other_columns_are_those_of_the_last_known_row() -> None:
    data = {**table_of(60), "weather": ["sun" if step % 2 else "rain" for step in range(60)]}
    recipe = windowed(data)
    recipe = Recipe(
        **{**recipe.to_dict(), "data": recipe.data, "inputs": {"load": recipe.inputs["load"], "weather": "category"}}
    )
    dataset = prepare(recipe)
    assert dataset.raw("weather", 0) == data["weather"][23]


def changed(**columns: Any) -> dict[str, list[Any]]:
    return {**table_of(60), **columns}


@pytest.mark.parametrize(
    ("data", "windows", "words"),
    [
        (changed(date=[*hours(60)[:10], hours(60)[3], *hours(60)[11:]]), {}, ["row 10", "later time", "sort"]),
        (changed(date=[*hours(60)[:10], hours(60)[9], *hours(60)[11:]]), {}, ["row 10", "once", "by:"]),
        (changed(date=[*hours(60)[:59], hours(62)[61]]), {"step": "1h"}, ["row 59", "3600", "data.windows.step"]),
        (changed(date=[*hours(60)[:59], "soon"]), {}, ["row 59", "data.windows.time"]),
        (changed(a=[*range(59), "n.a."]), {}, ["row 59", "column 'a'", "'n.a.'", "leave it empty"]),
        (table_of(29), {}, ["29 steps", "at least 30", "past = 24"]),
        (changed(), {"by": "shop"}, ["data.windows", "'shop'"]),
        ({name: cells for name, cells in changed().items() if name != "b"}, {}, ["columns", "'b'"]),
    ],
)
def test_a_table_that_is_no_series_is_refused_with_row_and_column(
    data: dict[str, list[Any]], windows: dict[str, Any], words: Sequence[str]
) -> None:
    with pytest.raises(EndwiseError) as refused:
        prepare(windowed(data, windows=windows))
    assert all(word in str(refused.value) for word in words), refused.value


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {"path": "x.csv", "split": {"val": 0.8}}}, ["borders", "windows"]),
        ({"data": {"path": "x.csv", "windows": {"past": 3}, "time": "a"}}, ["by their own time"]),
        (
            {"data": {"path": "x.csv", "windows": {"past": 3}, "group": "a", "split": {"val": 0.8}}},
            ["by time or by group"],
        ),
        ({"data": {"train": "x.csv", "windows": {"past": 3}}}, ["one table"]),
        ({"data": {"path": "x.csv", "windows": {"past": 3, "step": "1h"}}}, ["time"]),
        ({"data": {"path": "x.csv", "windows": {"past": 3, "futur": 3}}}, ["futur", "'future'"]),
        ({"data": {"path": "x.csv", "windows": {"past": 0}}}, ["past"]),
    ],
)
def test_windows_that_make_no_sense_are_refused(changes: dict[str, Any], words: Sequence[str]) -> None:
    with pytest.raises(RecipeError) as refused:
        Recipe(**{"inputs": {"a": "series"}, "outputs": {"b": "series"}, **changes})
    assert all(word in str(refused.value) for word in words), refused.value


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({"val": 0.8, "test": 0.6}, ["val before test"]),
        ({"val": 55, "test": 57}, ["val", "at least one window"]),
        ({"val": "soon", "test": 0.9}, ["data.split.val", "a date"]),
        ({"val": 500, "test": 600}, ["1 to 60"]),
    ],
)
def test_borders_that_leave_nothing_are_refused(split: dict[str, Any], words: Sequence[str]) -> None:
    with pytest.raises(DataError) as refused:
        prepare(windowed(table_of(60), split=split))
    assert all(word in str(refused.value) for word in words), refused.value


def test_borders_may_be_times() -> None:
    by_time = prepare(windowed(table_of(60), split={"val": hours(60)[36], "test": hours(60)[48]}))
    by_rows = prepare(windowed(table_of(60), split={"val": 36, "test": 48}))
    for side in ("train", "val", "test"):
        assert by_time.splits.side(side).tolist() == by_rows.splits.side(side).tolist()
    assert hours(60)[36] in by_time.splits.how


def test_what_an_input_knows_ahead_is_no_output() -> None:
    recipe = windowed(table_of(60))
    told = {**recipe.inputs, "told": Series(columns=("a",), known=True)}
    with pytest.raises(RecipeError, match="knows ahead"):
        prepare(Recipe(**{**recipe.to_dict(), "data": recipe.data, "inputs": told}))


def test_a_recipe_with_windows_is_saved_whole() -> None:
    recipe = windowed("load.csv", windows={"step": "15m", "by": "shop", "every": 3})
    again = Recipe(**recipe.to_dict())
    assert again == recipe
    assert again.data.windows is not None
    assert again.data.windows.step == 900
    assert recipe.replace(**{"train.seed": 3}).data == recipe.data


# ---- whole subjects ---


def subjects(count: int, steps: int = 40) -> dict[str, list[Any]]:
    """One recording after another."""
    rng = np.random.default_rng(0)
    who = [f"s{index}" for index in range(count) for _ in range(steps)]
    return {"a": rng.normal(size=len(who)).tolist(), "b": rng.normal(size=len(who)).tolist(), "who": who}


def grouped(data: Any, **more: Any) -> Recipe:
    windows = {"past": 24, "future": 6, **more.pop("windows", {})}
    channels = {"type": "series", "columns": ["a", "b"]}
    return Recipe(
        data={"path": data, "windows": windows, "group": "who", **more},
        inputs={"eeg": channels},
        outputs={"next": channels},
    )


@pytest.mark.parametrize("by", ["who", None])
def test_windows_of_one_subject_are_on_one_side(by: str | None) -> None:
    data = subjects(12)
    recipe = grouped(data, windows={"by": by})
    dataset = prepare(recipe)
    sides = {side: set(dataset.cells("who", dataset.splits.side(side))) for side in ("train", "val", "test")}
    assert all(sides.values())
    assert sum(map(len, sides.values())) == len(set.union(*sides.values())) == 12
    used = np.concatenate([dataset.splits.side(side) for side in sides])
    assert len(used) == 12 * (40 - 30 + 1)  # every window whose steps are of one subject, and no other
    table = dataset.tables[0]
    assert isinstance(table, WindowTable)
    for row in used.tolist():
        first = table.layout.first[row]
        steps = table.layout.rows[table.layout.series[row]][first : first + 30]
        assert len({data["who"][step] for step in steps}) == 1
    across = len(dataset) - len(used)
    assert (f"{across} windows with steps of two groups" in dataset.splits.how) == (by is None)
    assert not check(recipe).of("group leak")
    assert len(set(dataset.group[dataset.splits.test].tolist())) == len(sides["test"])  # intervals are over subjects


def test_a_split_column_that_parts_a_subject_is_found() -> None:
    data = subjects(4, steps=90)
    data["side"] = [("train", "train", "val")[step % 90 // 30] for step in range(4 * 90)]
    assert check(grouped(data, split="side", windows={"by": "who"})).of("group leak")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (subjects(2), ["data.group", "2 of 2", "at least 3"]),
        ({**subjects(5), "who": [None, *subjects(5)["who"][1:]]}, ["row 0", "'who'", "fill in"]),
        ({name: cells for name, cells in subjects(5).items() if name != "who"}, ["data.group", "'who'"]),
    ],
)
def test_subjects_that_make_no_three_sides_are_refused(data: dict[str, list[Any]], words: Sequence[str]) -> None:
    with pytest.raises(EndwiseError) as refused:
        prepare(grouped(data))
    assert all(word in str(refused.value) for word in words), refused.value


# ---- several rates ---


def test_series_of_different_rates_are_inputs_of_one_forecast() -> None:
    rng = np.random.default_rng(0)
    rows = [
        {
            "fast": rng.normal(size=96).tolist(),
            "slow": rng.normal(size=12).tolist(),
            "next": rng.normal(size=4).tolist(),
        }
        for _ in range(40)
    ]
    recipe = Recipe(
        data=rows,
        inputs={"fast": {"type": "series", "rate_hz": 100}, "slow": {"type": "series", "rate_hz": 12.5}},
        outputs={"next": {"type": "series", "rate_hz": 12.5}},
        trunk={"width": 32, "depth": 1},
    )
    model, dataset = network(recipe)
    with torch.no_grad():
        for weight in model.network.head("next").parameters():
            torch.nn.init.normal_(weight, std=0.1)
    assert [dataset.fields[name][0].shape for name in ("fast", "slow", "next")] == [(96, 1), (12, 1), (4, 1)]
    one = np.array(model.predict({"fast": rows[0]["fast"], "slow": rows[0]["slow"]})["next"])
    for name in ("fast", "slow"):  # each is heard
        other = {"fast": rows[0]["fast"], "slow": rows[0]["slow"], name: rows[1][name]}
        assert np.abs(np.array(model.predict(other)["next"]) - one).max() > 1e-4


# ---- steps that differ ---


def irregular(count: int) -> dict[str, list[Any]]:
    """A wave, looked at when somebody came by: after 10 minutes or after some hours."""
    rng = np.random.default_rng(0)
    minutes = np.cumsum(rng.choice([10, 60, 300], count))
    return {
        "date": [(START + dt.timedelta(minutes=int(at))).isoformat(sep=" ") for at in minutes],
        "a": [round(math.sin(2 * math.pi * at / 1_440), 4) for at in minutes.tolist()],
        "b": [round(5 + math.cos(2 * math.pi * at / 1_440), 4) for at in minutes.tolist()],
        "hour": [at // 60 % 24 for at in minutes.tolist()],
    }


def timed(data: Any, **settings: Any) -> Recipe:
    """As `windowed`, with the times of the past and of the steps ahead."""
    recipe = windowed(data, **settings)
    inputs = {
        "load": {"type": "series", "columns": ["a", "b"], "times": "date"},
        "clock": {"type": "series", "columns": [], "times": "date", "known": True},
    }
    return Recipe(**{**recipe.to_dict(), "data": recipe.data, "inputs": inputs})


def test_a_table_whose_steps_differ_is_found_until_an_input_hears_it() -> None:
    data = irregular(120)
    (found,) = check(windowed(data)).of("uneven steps")
    gaps = np.diff([dt.datetime.fromisoformat(cell).timestamp() for cell in data["date"]])
    count = int((np.abs(gaps - 3_600) > 720).sum())
    assert f"{count} of 119 steps of 'date'" in found.message
    assert "the usual 1 h by more than a fifth" in found.message
    assert "times: date" in found.fix
    assert not check(timed(data)).of("uneven steps")
    assert not check(windowed(table_of(120))).of("uneven steps")


def dated(days: Sequence[dt.date]) -> dict[str, list[Any]]:
    waves = table_of(len(days))
    return {**waves, "date": [day.isoformat() for day in days]}


def days(first: dt.date, count: int, *weekdays: int) -> list[dt.date]:
    """So many dates in a row on these days of the week, Monday 0."""
    every = (first + dt.timedelta(days=after) for after in range(10 * count))
    return list(itertools.islice((day for day in every if day.weekday() in weekdays), count))


def months(count: int, step: int, *, last: bool) -> list[dt.date]:
    """Month starts or month ends, every so many months."""
    numbers = [2_015 * 12 + index * step for index in range(count)]
    if not last:
        return [dt.date(number // 12, number % 12 + 1, 1) for number in numbers]
    return [dt.date((number + 1) // 12, (number + 1) % 12 + 1, 1) - dt.timedelta(days=1) for number in numbers]


def without_weekends(found: list[dt.date]) -> list[dt.date]:
    """The last working day up to each."""
    return [day - dt.timedelta(days=max(0, day.weekday() - 4)) for day in found]


CALENDARS = {
    "working days": days(dt.date(2020, 1, 1), 300, 0, 1, 2, 3, 4),
    "working days from Sunday": days(dt.date(2020, 1, 1), 300, 6, 0, 1, 2, 3),
    "working days and Saturdays": days(dt.date(2020, 1, 1), 300, 0, 1, 2, 3, 4, 5),
    "working days without holidays": [
        day
        for day in days(dt.date(2020, 1, 1), 300, 0, 1, 2, 3, 4)
        if (day.month, day.day) not in {(1, 1), (5, 1), (12, 25), (12, 28)}
    ],
    "working days and one Saturday": sorted([*days(dt.date(2020, 1, 1), 299, 0, 1, 2, 3, 4), dt.date(2020, 3, 7)]),
    "month starts": months(100, 1, last=False),
    "month ends": months(100, 1, last=True),
    "last working days of months": without_weekends(months(100, 1, last=True)),
    "quarters": months(100, 3, last=True),
    "years": months(100, 12, last=False),
}


@pytest.mark.parametrize("name", CALENDARS)
def test_a_calendar_is_even_and_a_gap_in_it_is_not(name: str) -> None:
    whole = CALENDARS[name]
    assert not check(windowed(dated(whole))).of("uneven steps")
    gone = [*whole[:40], *whole[43:]]
    (found,) = check(windowed(dated(gone))).of("uneven steps")
    assert f"1 of {len(gone) - 1} steps" in found.message
    assert "row 40)" in found.message
    assert " step:" not in found.fix  # one would be refused at the next weekend, or the next month


def test_many_missing_working_days_are_no_holidays() -> None:
    whole = CALENDARS["working days"]
    gone = [day for index, day in enumerate(whole) if index % 10 != 3]
    (found,) = check(windowed(dated(gone))).of("uneven steps")
    assert f"30 of {len(gone) - 1} steps of 'date' leave out working days" in found.message


def test_working_hours_abroad_have_a_summer_time_and_weekends_of_their_own() -> None:
    zone = zoneinfo.ZoneInfo("Asia/Jerusalem")
    whole = days(dt.date(2020, 1, 1), 300, 6, 0, 1, 2, 3)
    moments = [dt.datetime(day.year, day.month, day.day, tzinfo=zone).isoformat() for day in whole]
    assert not check(windowed({**table_of(len(whole)), "date": moments})).of("uneven steps")


def test_steps_none_of_which_is_usual_are_all_told() -> None:
    seconds = np.cumsum([1, 3] * 60).tolist()[:-1]
    (found,) = check(windowed({**table_of(119), "date": seconds})).of("uneven steps")
    assert "118 of 118 steps" in found.message
    assert " step:" not in found.fix


@pytest.mark.parametrize(
    ("step", "told"), [(1, "1 s"), (90, "1.5 min"), (900, "15 min"), (86_400, "1 day"), (604_800, "7 days")]
)
def test_the_usual_step_has_its_unit_and_a_number_has_none(step: int, told: str) -> None:
    seconds = [after * step for after in range(120) if after != 50]
    dates = [(START + dt.timedelta(seconds=after)).isoformat() for after in seconds]
    (found,) = check(windowed({**table_of(119), "date": dates})).of("uneven steps")
    assert f"the usual {told} by more" in found.message
    assert "write step:" in found.fix
    (found,) = check(windowed({**table_of(119), "date": seconds})).of("uneven steps")
    assert f"the usual {step} by more" in found.message


def test_a_usual_step_of_years_is_told_in_whole_days() -> None:
    years = [after for after in range(120) if after != 50]
    dates = [(START + dt.timedelta(days=3652 * after)).isoformat() for after in years]
    (found,) = check(windowed({**table_of(119), "date": dates})).of("uneven steps")
    assert "the usual 3,652 days by more" in found.message


def test_the_gaps_of_a_window_are_those_of_its_rows() -> None:
    data = irregular(100)
    data["a"][40:70], data["b"][40:70] = [None] * 30, [None] * 30
    dataset = prepare(timed(data))
    stamps = np.array([dt.datetime.fromisoformat(cell).timestamp() for cell in data["date"]])
    for row in range(len(dataset)):
        np.testing.assert_array_equal(dataset.fields["clock"][row][1:, 0], np.diff(stamps[row : row + 30]))
        if dataset.fields["load"].present[row]:
            np.testing.assert_array_equal(dataset.fields["load"][row][1:, 2], np.diff(stamps[row : row + 24]))
    assert not dataset.fields["load"].present[40:47].any()  # times alone are no values
    assert dataset.fields["load"].present[[39, 47]].all()


def test_a_forecast_hears_when_its_steps_were_and_when_those_ahead_will_be(tmp_path: Path) -> None:
    data = irregular(90)
    model, _ = network(timed(data))
    with torch.no_grad():
        for weight in model.network.head("next").parameters():
            torch.nn.init.normal_(weight, std=0.1)
    model.save(tmp_path / "model")
    again = Model.load(tmp_path / "model")

    def forecast(dates: list[str]) -> np.ndarray:
        """From a table, and from rows as people write them, whatever of the past they give."""
        plan = {"date": dates, **{name: [*data[name][:40], *[None] * 6] for name in ("a", "b")}}
        (found,) = model.predict(written(tmp_path, plan, "new.csv"))
        for begin in (0, 16):
            row = {
                "load": {"a": data["a"][begin:40], "b": data["b"][begin:40], "date": dates[begin:40]},
                "clock": {"date": dates[begin:]},
            }
            for reader in (model, again):
                np.testing.assert_allclose(reader.predict(row)["next"], found["next"], atol=1e-4)
        return np.array(found["next"])

    dates = data["date"][:46]
    usual = forecast(dates)
    later = forecast([*dates[:45], moved(dates[45], hours=9)])  # the last step ahead
    longer = forecast([*(moved(date, hours=-9) for date in dates[:31]), *dates[31:]])  # one gap in the past
    assert min(np.abs(other - usual).max() for other in (later, longer)) > 1e-3


def moved(date: str, *, hours: int) -> str:
    return (dt.datetime.fromisoformat(date) + dt.timedelta(hours=hours)).isoformat(sep=" ")


@pytest.mark.parametrize(
    ("times", "windows", "words"),
    [
        ("hour", {}, ["inputs.load.times", "'hour'", "times: date"]),
        ("date", {"time": None}, ["inputs.load.times", "time: date"]),
        ("date", {"step": "1h"}, ["inputs.load.times", "step"]),
    ],
)
def test_times_that_are_not_those_of_the_windows_are_refused(
    times: str, windows: dict[str, Any], words: Sequence[str]
) -> None:
    recipe = windowed(table_of(60), windows=windows)
    told = {"load": Series(columns=("a", "b"), times=times)}
    with pytest.raises(RecipeError) as refused:
        prepare(Recipe(**{**recipe.to_dict(), "data": recipe.data, "inputs": told}))
    assert all(word in str(refused.value) for word in words), refused.value


# ---- several columns without windows ---------------------------------------------------------------------------------


def test_columns_side_by_side_are_channels(tmp_path: Path) -> None:
    rows = [{"x": [index, 1.5, 2], "y": [3, index, 0.5], "kind": "ab"[index % 2]} for index in range(40)]
    rows[3]["y"] = None  # one of the two: a value that cannot be read; both: a missing one
    rows[4] |= {"x": None, "y": None}
    recipe = Recipe(
        data={"path": rows, "max_bad": 0.1},
        inputs={"move": {"type": "series", "columns": ["x", "y"]}},
        outputs={"kind": "category"},
    )
    dataset = prepare(recipe)
    assert dataset.fields["move"][5].tolist() == [[5, 3], [1.5, 5], [2, 0.5]]
    assert [item.row for item in dataset.bad] == [3]
    assert not dataset.fields["move"].present[4]
    model = Model.build(recipe, fit_contracts(recipe, dataset), seed=0)
    table = model.predict([{"move": {"x": [1, 2], "y": [3, 4]}}, {"move": [[1, 2], [3, 4]]}])
    frame = model.predict(open_table({"x": [[1, 2]], "y": [[3, 4]]}))
    assert table[0]["kind"] == table[1]["kind"] == frame[0]["kind"]


# ---- forecasts -------------------------------------------------------------------------------------------------------


def network(recipe: Recipe) -> tuple[Model, Any]:
    dataset = prepare(recipe)
    return Model.build(recipe, fit_contracts(recipe, dataset), seed=0), dataset


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 30))
def test_quantiles_never_cross(seed: int, scale: float) -> None:
    series = Series()
    rows = [np.random.default_rng(row).normal(size=(5, 2)).astype(np.float32) for row in range(4)]
    head = series.head(series.fit(rows, missing=0, role="output"), Size.of("tiny", width=16, depth=1)).eval()
    head.meet({})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for weight in head.parameters():
            torch.nn.init.normal_(weight, std=scale)
        tokens = Tokens(scale * torch.randn(3, 4, 16), torch.ones(3, 4, dtype=torch.bool))
    found = head.decode(head(tokens))["quantiles"]
    assert bool((found.diff(dim=-1) >= 0).all())


def test_before_it_has_learnt_a_forecast_is_the_last_value() -> None:
    recipe = windowed(table_of(90))
    model, dataset = network(recipe)
    row = {"load": dataset.raw("load", 7), "clock": dataset.raw("clock", 7)}
    found, last = np.array(model.predict(row)["next"]), dataset.fields["load"][7][-1]
    assert np.abs(found - last[:, None]).max() < 0.1


def test_missing_steps_are_masked_and_let_gradients_through() -> None:
    recipe = windowed(table_of(90))
    model, dataset = network(recipe)
    rows = np.array([dataset.fields["load"][row] for row in range(3)])
    rows[1, 4:9] = np.nan
    rows[2, :, 0] = np.nan
    encoder = model.network.encoder("load").eval()
    values = torch.from_numpy(rows).requires_grad_()
    sizes = torch.full((3, 1), 24)
    tokens = encoder(values, sizes)
    assert bool(torch.isfinite(tokens.values).all())
    (gradient,) = torch.autograd.grad(tokens.values.square().sum(), [values])
    assert bool(torch.isfinite(gradient).all())
    assert bool((gradient[1, 4:9] == 0).all())
    alone = encoder(values[1:2], sizes[1:2]).values
    torch.testing.assert_close(alone, tokens.values[1:2], atol=1e-5, rtol=1e-4)


def test_a_new_table_is_forecast_from_its_last_window(tmp_path: Path) -> None:
    data = table_of(90)
    model, _ = network(windowed(data))
    plan = {name: cells[:46] for name, cells in data.items()}
    plan["a"], plan["b"] = ([*plan[name][:40], *[None] * 6] for name in ("a", "b"))  # the hours ahead are known
    (found,) = model.predict(written(tmp_path, plan, "new.csv"))
    row = {"load": {"a": data["a"][:40], "b": data["b"][:40]}, "clock": data["hour"][:46]}
    assert np.array(found["next"]).shape == (2, 6)
    np.testing.assert_allclose(found["next"], model.predict(row)["next"], atol=1e-5)
    assert found.origin is not None
    assert "line 41" in found.origin
    with pytest.raises(DataError, match="the last 24"):
        model.predict({"load": {"a": [1, 2], "b": [1, 2]}, "clock": list(range(30))})


def test_what_the_future_holds_is_used() -> None:
    recipe = windowed(table_of(90))
    model, dataset = network(recipe)
    with torch.no_grad():
        for weight in model.network.head("next").parameters():
            torch.nn.init.normal_(weight, std=0.1)
    row = {"load": dataset.raw("load", 7), "clock": dataset.raw("clock", 7)}
    other = {**row, "clock": {"hour": [*row["clock"]["hour"][:-1], 99]}}
    one, two = (np.array(model.predict(item)["next"]) for item in (row, other))
    assert np.abs(one - two)[:, -1].max() > 1e-3


def test_a_row_without_its_past_is_answered_by_what_is_usual() -> None:
    recipe = windowed(table_of(90))
    recipe = recipe.replace(**{"inputs.load.optional": True})
    model, dataset = network(recipe)
    found = model.predict({"clock": dataset.raw("clock", 7)}).answers["next"]
    quantiles = found.detail["quantiles"]
    assert np.isfinite(np.array(found.value)).all()
    assert (quantiles["0.95"] - quantiles["0.05"])[1].min() > 1.0  # of a channel with a deviation of 0.7


def contract_of(count: int, channels: int = 1) -> SeriesContract:
    return SeriesContract(
        count=9, missing=0, channels=("",) * channels, mean=(0.0,) * channels, deviation=tuple(2.0 + n for n in range(channels)),
        minimum=(0.0,) * channels, maximum=(1.0,) * channels, naive=(0.5,) * channels, length=count, shortest=count,
        longest=count, missing_share=0.0, window=False,
    )  # fmt: skip


def test_metrics_are_those_of_the_literature() -> None:
    truths = [[[1.0, 2.0], [3.0, 4.0]], [[0.0, math.nan], [3.0, 3.0]]]
    bands = np.array([[0.0, 2.0], [1.0, 4.0]])
    said = [
        Answer([[2.0, 2.0], [0.0, 4.0]], detail={"quantiles": {"0.1": bands - 1, "0.5": bands, "0.9": bands + 1}})
        for _ in range(2)
    ]
    found = {item.name: value(item, truths, said) for item in forecast_metrics(contract_of(2, 2), (0.1, 0.5, 0.9), "A")}
    errors = np.array([[[1, 0], [-3, 0]], [[2, np.nan], [-3, 1]]])
    scaled = errors / np.array([2.0, 3.0])[:, None]
    assert found["mse"] == pytest.approx(np.nanmean(scaled**2))
    assert found["mae"] == pytest.approx(np.nanmean(np.abs(scaled)))
    assert found["rmse_raw"] == pytest.approx(np.sqrt(np.nanmean(errors**2)))
    assert found["mae_raw"] == pytest.approx(np.nanmean(np.abs(errors)))
    assert found["mase"] == pytest.approx(np.nanmean(np.abs(errors) / 0.5))
    assert found["coverage_80"] == pytest.approx(5 / 7)
    bare = [Answer(item.value) for item in said]
    without = {
        item.name: value(item, truths, bare) for item in forecast_metrics(contract_of(2, 2), (0.1, 0.5, 0.9), "A")
    }
    assert without["crps"] == pytest.approx(without["mae"])  # of one number it is the absolute error
    assert math.isnan(without["coverage_80"])


def test_the_quantiles_score_nears_the_crps_of_a_normal_distribution() -> None:
    levels = tuple((step + 0.5) / 101 for step in range(101))
    from scipy.stats import norm

    lines = {f"{level:g}": np.array([norm.ppf(level)]) for level in levels}
    answer = Answer([0.0], detail={"quantiles": lines})
    crps = next(item for item in forecast_metrics(contract_of(1), levels, None) if item.name == "crps")
    true = 0.7
    exact = true * (2 * norm.cdf(true) - 1) + 2 * norm.pdf(true) - 1 / math.sqrt(math.pi)
    assert value(crps, [[true]], [answer]) * 2.0 == pytest.approx(exact, rel=1e-2)


def test_the_trivial_baseline_repeats_the_season_and_ridge_beats_it() -> None:
    recipe = windowed(table_of(160))
    dataset = prepare(recipe)
    contracts = fit_contracts(recipe, dataset)
    found = baselines(contracts, recipe, dataset, dataset.splits.train, dataset.splits.test)["next"]
    assert any("the last 24 steps again" in note for note in found["notes"])
    row = int(dataset.splits.test[0])
    past = dataset.fields["load"][row]
    np.testing.assert_allclose(np.array(found["trivial"][0].value).T, past[:6], atol=1e-5)
    assert found["classical"] is not None
    truth = dataset.fields["next"][row].T
    assert np.abs(np.array(found["classical"][0].value) - truth).max() < 0.2


def test_calibration_makes_the_bands_hold_what_they_say() -> None:
    series = Series()
    rows = [np.random.default_rng(row).normal(size=(6, 1)).astype(np.float32) for row in range(200)]
    head = series.head(series.fit(rows, missing=0, role="output"), Size.of("tiny", width=16, depth=1)).eval()
    head.meet({})
    tokens = Tokens(torch.zeros(200, 2, 16), torch.ones(200, 2, dtype=torch.bool))
    with torch.no_grad():
        head.outward.bias.sub_(2.0)  # far too narrow
        target = torch.from_numpy(np.stack(rows))
        said = head.calibrate(head(tokens), target, torch.full((200, 1), 6))
        bands = head.decode(head(tokens))["quantiles"]
    inside = ((bands[..., 0] <= target) & (target <= bands[..., -1])).float().mean()
    assert said["band_factor"] > 1
    assert float(inside) == pytest.approx(0.9, abs=0.01)


def test_a_run_from_a_table_to_a_report_with_bands(tmp_path: Path) -> None:
    file = written(tmp_path, table_of(120))
    run = tmp_path / "run"
    model = fit(windowed(file), out=run)
    page = build(Run.open(run)).read_text(encoding="utf-8")
    assert "steps from now" in page
    assert "the last 24 steps again" in page
    again = Model.load(run)
    (one,), (two,) = model.predict(file_with_future(tmp_path)), again.predict(file_with_future(tmp_path))
    assert one["next"] == two["next"]
    quantiles = two.answers["next"].detail["quantiles"]
    assert np.shape(quantiles["0.5"]) == np.shape(two["next"])


def test_one_channel_with_gaps_is_scored_and_drawn() -> None:
    data = table_of(120)
    data["a"] = [None if step % 17 == 0 else cell for step, cell in enumerate(data["a"])]
    recipe = Recipe(
        data={"path": data, "windows": {"time": "date", "past": 24, "future": 6}, "split": {"val": 0.6, "test": 0.8}},
        inputs={"past": {"type": "series", "columns": ["a"]}},
        outputs={"next": {"type": "series", "columns": ["a"], "point": "median", "quantiles": [0.1, 0.5, 0.9]}},
        trunk={"width": 32, "depth": 1},
    )
    model, dataset = network(recipe)
    found = evaluate(model, dataset, dataset.splits.test)
    assert found.outputs["next"]["mae"].n == len(dataset.splits.test)
    drawn = json.loads(json.dumps(found.details, allow_nan=False))["outputs"]["next"]["forecasts"]
    assert any(None in item["truth"] for item in drawn)
    assert "steps from now" in plots.bands(
        drawn[0]["past"], drawn[0]["truth"], drawn[0]["value"], drawn[0]["bands"], x="steps from now", y="a", alt="a"
    )


def file_with_future(folder: Path) -> str:
    data = table_of(46)
    for name in ("a", "b"):
        data[name] = [*data[name][:40], *[""] * 6]
    return written(folder, data, "later.csv")
