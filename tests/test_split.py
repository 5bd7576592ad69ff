"""Splitting: every row on one side, every key on one side, whatever the order of the rows."""

import datetime as dt
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endwise.data.split import Splits, assign, content_keys, folds, side_of, split_rows
from endwise.data.table import open_table
from endwise.errors import DataError
from endwise.recipe import Data

SHARES = {"test": 0.1, "val": 0.1}
KEYS = st.lists(st.text(st.characters(codec="utf-8"), max_size=4), min_size=3, max_size=200)


def split(source: Any, seed: int = 0, **declared: Any) -> Splits:
    found = open_table(source)
    return split_rows(Data(path=found, **declared), {"all": found}, seed)


def split_files(sources: dict[str, Any], seed: int = 0, **declared: Any) -> Splits:
    tables = {side: open_table(source) for side, source in sources.items()}
    return split_rows(Data(**tables, **declared), tables, seed)


def sizes(found: Splits) -> tuple[int, int, int]:
    return len(found.train), len(found.val), len(found.test)


def rows(count: int, **more: Any) -> dict[str, Any]:
    return {"x": list(range(count)), **more}


# ---- invariants ------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(KEYS, st.integers(0, 2**32))
def test_sides_are_pure_complete_and_never_empty(keys: list[str], seed: int) -> None:
    sides = assign(keys, seed, SHARES)
    side_by_key: dict[str, str] = {}
    for key, side in zip(keys, sides, strict=True):
        assert side_by_key.setdefault(key, side) == side
    assert set(sides) <= {"train", "val", "test"}
    assert len(set(sides)) == min(3, len(set(keys)))


@settings(deadline=None)
@given(KEYS, st.integers(0, 99), st.randoms())
def test_sides_do_not_depend_on_the_order_of_rows(keys: list[str], seed: int, random: Any) -> None:
    order = list(range(len(keys)))
    random.shuffle(order)
    sides = assign(keys, seed, SHARES)
    assert [str(sides[row]) for row in order] == list(map(str, assign([keys[row] for row in order], seed, SHARES)))


@settings(deadline=None)
@given(st.lists(st.text(max_size=4), max_size=50), st.integers(0, 99))
def test_new_rows_move_no_old_row(more: list[str], seed: int) -> None:
    old = [f"row {index}" for index in range(400)]
    assert list(assign(old, seed, SHARES)) == list(assign([*old, *more], seed, SHARES))[: len(old)]


@settings(deadline=None)
@given(KEYS, st.integers(2, 5), st.integers(0, 99), st.randoms())
def test_folds_hold_every_row_out_once_and_keys_together(keys: list[str], k: int, seed: int, random: Any) -> None:
    if len(set(keys)) < k:
        with pytest.raises(DataError, match="the number of different rows or groups"):
            folds(keys, k, seed)
        return
    found = folds(keys, k, seed)
    assert sorted(row for _, held in found for row in held) == list(range(len(keys)))
    for train, held in found:
        assert len(train) + len(held) == len(keys)
        assert len(held)
        assert not {keys[row] for row in train} & {keys[row] for row in held}
    order = random.sample(range(len(keys)), len(keys))
    again = folds([keys[row] for row in order], k, seed)
    for (_, held), (_, held_again) in zip(found, again, strict=True):
        assert sorted(held) == sorted(order[row] for row in held_again)


def test_folds_of_different_rows_are_equally_large() -> None:
    assert [len(held) for _, held in folds([str(row) for row in range(103)], 5, 0)] == [21, 21, 21, 20, 20]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 30), min_size=10, max_size=120), st.randoms())
def test_by_time_nothing_later_is_in_training(times: list[int], random: Any) -> None:
    times = [0, 0, 0, *times, 31, 32]
    random.shuffle(times)
    found = split({"t": times}, time="t")
    at = np.array(times)
    assert at[found.train].max() < at[found.val].min() <= at[found.val].max() < at[found.test].min()
    assert sum(sizes(found)) == len(times)


def test_shares_and_seeds() -> None:
    keys = [str(row) for row in range(20_000)]
    shares = Counter(assign(keys, 1, SHARES))
    assert abs(shares["test"] - 2000) < 150
    assert abs(shares["val"] - 2000) < 150
    assert list(assign(keys, 1, SHARES)) != list(assign(keys, 2, SHARES))


# ---- the rules -------------------------------------------------------------------------------------------------------


def test_without_any_split_the_same_content_is_on_one_side() -> None:
    found = split({"x": [row % 40 for row in range(200)], "y": [row % 40 % 3 for row in range(200)]})
    assert not set(found.train % 40) & set(found.test % 40)
    assert sum(sizes(found)) == 200
    assert found.how.startswith("80/10/10 by a hash of the seed and the row's content")


def test_content_keys_may_be_given() -> None:
    found = open_table(rows(100))
    splits = split_rows(Data(path=found), {"all": found}, 0, keys=[str(row // 2) for row in range(100)])
    assert not set(splits.train // 2) & set(splits.test // 2)


def test_content_keys_see_every_cell_and_not_the_order_of_columns() -> None:
    one = open_table({"a": [1, "1", b"1", None, [1]], "b": [1, 1, 1, 1, 1]})
    other = open_table({"b": [1, 1, 1, 1, 1], "a": [1, "1", b"1", None, [1]]})
    assert content_keys([one]) == content_keys([other])
    assert (
        content_keys([open_table({"a": ["x", "xy"], "b": ["yz", "z"]})])[0]
        != content_keys([open_table({"a": ["xy"], "b": ["z"]})])[0]
    )


@pytest.mark.parametrize("groups", [3, 6, 50])
def test_no_group_is_on_two_sides_and_no_side_is_empty(groups: int) -> None:
    who = [f"speaker {row % groups}" for row in range(300)]
    for seed in range(5):
        found = split(rows(300, speaker=who), seed, group="speaker")
        sides = [{who[row] for row in found.side(side)} for side in ("train", "val", "test")]
        assert all(sides)
        assert len(set.union(*sides)) == sum(map(len, sides)) == groups


@pytest.mark.parametrize("name", ["split", "fold"])
def test_an_official_column_is_followed(name: str) -> None:
    column = ["train"] * 60 + ["Validation", "dev", "valid", "val"] + ["TEST "] * 10
    found = split(rows(74, **{name: column}), **({} if name == "split" else {"split": name}))
    assert sizes(found) == (60, 4, 10)
    assert found.how == f"official: column {name!r}"


def test_validation_comes_from_train_when_there_is_none() -> None:
    column = ["train"] * 100 + ["test"] * 10
    found = split(rows(110, split=column))
    assert found.test.tolist() == list(range(100, 110))
    assert 3 <= len(found.val) <= 20
    assert "validation: 10 % of train by a hash" in found.how
    by_time = split(rows(110, split=column, t=list(range(110))), time="t")
    assert by_time.val.tolist() == list(range(90, 100))


def test_official_files_count_one_after_another() -> None:
    found = split_files({"train": rows(20), "val": rows(5), "test": rows(4)})
    assert (found.val.tolist(), found.test.tolist()) == (list(range(20, 25)), list(range(25, 29)))
    assert found.how == "official: train is dict, val is dict, test is dict"


def test_no_test_rows_are_said_not_invented() -> None:
    found = split_files({"train": rows(50)})
    assert len(found.test) == 0
    assert len(found.val) > 0
    assert "no test rows were given" in found.how


def test_groups_on_both_sides_of_an_official_split_are_findings() -> None:
    found = split_files(
        {"train": rows(4, who=[*"aabb"]), "val": rows(2, who=[*"cc"]), "test": rows(2, who=[*"ad"])}, group="who"
    )
    assert [(item.group, dict(item.rows)) for item in found.shared_groups] == [("a", {"train": 2, "test": 1})]
    assert "1 values of 'who' are on more than one side" in found.how


def test_validation_from_train_keeps_groups_together() -> None:
    who = [f"p{row % 20}" for row in range(100)]
    found = split_files({"train": rows(100, who=who), "test": rows(3, who=["x", "y", "z"])}, group="who")
    assert not {who[row] for row in found.train} & {who[row] for row in found.val}


@pytest.mark.parametrize("kind", ["number", "text number", "date text", "datetime", "zoned"])
def test_time_in_any_usual_form(kind: str) -> None:
    start = dt.datetime(2024, 1, 1)
    cells = {
        "number": lambda row: row,
        "text number": lambda row: str(row * 1.5),
        "date text": lambda row: (start + dt.timedelta(days=row)).isoformat(" "),
        "datetime": lambda row: start + dt.timedelta(hours=row),
        "zoned": lambda row: (start + dt.timedelta(hours=row)).isoformat() + "+02:00",
    }[kind]
    found = split({"t": [cells(row) for row in range(50)]}, time="t")
    assert found.test.tolist() == list(range(45, 50))
    assert found.val.tolist() == list(range(40, 45))


def test_ties_in_time_stay_together() -> None:
    found = split({"t": [row // 7 for row in range(70)]}, time="t")
    assert (found.test.tolist(), found.val.tolist()) == (list(range(63, 70)), list(range(56, 63)))


def test_bad_rows_are_taken_out() -> None:
    found = split(rows(74, split=["train"] * 60 + ["val"] * 4 + ["test"] * 10)).without({0, 61, 73})
    assert sizes(found) == (59, 3, 9)
    assert found.without(np.zeros(0, dtype=np.int64)).train.tolist() == found.train.tolist()


def test_spellings_of_the_sides() -> None:
    assert [side_of(name) for name in ("train", "Valid", " dev ", "testing", "trial", None, 1)] == [
        "train", "val", "val", "test", None, None, None,
    ]  # fmt: skip


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "declared", "told"),
    [
        (rows(9, split=["train"] * 8 + ["tset"]), {}, r"dict row 8, column 'split' = 'tset' .*train, val .* or test"),
        (rows(9, split=["train"] * 8 + [None]), {}, r"dict row 8, column 'split' = None"),
        (rows(9, split=["test"] * 9), {}, r"at least some rows named train"),
        (rows(2), {}, r"at least 3 training rows"),
        ({"x": [1] * 50}, {}, r"at least one val row.*different rows.*column 'split'"),
        (rows(9, who=[*"ab" * 4, "a"]), {"group": "who"}, r"at least one val row.*values of 'who'"),
        (rows(9, who=[*"abcdefgh", None]), {"group": "who"}, r"dict row 8, column 'who' \(data.group\) = None .*every row"),
        (rows(9), {"group": "hwo"}, r"data.group \(dict\) = 'hwo'"),
        (rows(9), {"split": "xx"}, r"data.split \(dict\) = 'xx' .*one of x"),
        (rows(9, t=[*range(8), "soon"]), {"time": "t"}, r"dict row 8, column 't' \(data.time\) = 'soon' .* a number, as in"),
        (rows(9, t=[*range(8), None]), {"time": "t"}, r"dict row 8, column 't' \(data.time\) = None"),
        (rows(9, t=["2024-01-01"] * 8 + ["2024-01-01T00:00Z"]), {"time": "t"}, r"row 8.* a date, as in the rows before"),
        (rows(9, t=[1] * 5 + [2] * 4), {"time": "t"}, r"2 different times.*at least 3"),
    ],
)  # fmt: skip
def test_what_cannot_be_split_is_refused_with_the_row_and_the_fix(
    source: Any, declared: dict[str, str], told: str
) -> None:
    with pytest.raises(DataError, match=told):
        split(source, **declared)


def test_an_output_cannot_be_the_group_and_may_be_called_split() -> None:
    found = open_table(rows(40, split=[*"ab"] * 20))
    with pytest.raises(DataError, match="every answer has to be on both sides"):
        split_rows(Data(path=found, group="split"), {"all": found}, 0, outputs=["split"])
    splits = split_rows(Data(path=found), {"all": found}, 0, outputs=["split"])
    assert sum(sizes(splits)) == 40


def test_split_files_and_a_split_column_are_one_too_many() -> None:
    with pytest.raises(DataError, match=r"remove data.split"):
        split_files({"train": rows(9, s=["train"] * 9), "test": rows(3, s=["test"] * 3)}, split="s")
