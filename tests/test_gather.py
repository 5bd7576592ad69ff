"""Rows that belong together: lists of a key's rows, and rows with what came before them."""

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import endwise as ew
from endwise.data.dataset import fit_contracts, prepare
from endwise.data.gather import Groups, gathered
from endwise.data.table import Table, open_table
from endwise.errors import DataError, RecipeError
from endwise.model import Model
from endwise.recipe import Data

BOXES = {
    "picture": ["b.png", "a.png", "b.png", "a.png", "c.png"],
    "label": ["cat", "dog", "owl", "cat", None],
    "left": [3, 4, 1, 0, None],
    "split": ["train", "test", "train", "test", "train"],
}
SALES = {
    "user": [1, 1, 2, 1, 2, 3],
    "item": ["a", "b", "a", "c", "d", "e"],
    "day": ["2024-01-01", "2024-01-03", "2024-01-01", "2024-01-02", "2024-02-01", "2024-01-01"],
}


def gather(table: dict[str, list[Any]], **data: Any) -> Table:
    return gathered(open_table(table), Data(path=table, **data))


def rows(table: Table) -> list[dict[str, Any]]:
    return [{name: table.cell(name, row) for name in table.columns} for row in range(len(table))]


def test_each_picture_is_one_row_and_what_is_said_of_it_is_in_lists() -> None:
    assert rows(gather(BOXES, gather="picture")) == [
        {"picture": "b.png", "label": ["cat", "owl"], "left": [3, 1], "split": "train"},
        {"picture": "a.png", "label": ["dog", "cat"], "left": [4, 0], "split": "test"},
        {"picture": "c.png", "label": [None], "left": [None], "split": "train"},
    ]


def test_lists_are_in_the_order_that_was_asked_for() -> None:
    found = gather(BOXES, gather={"by": "picture", "order": "left"} | {"order": None})
    assert found.cell("left", 0) == [3, 1]
    sales = gather(SALES, gather={"by": "user", "order": "day"})
    assert sales.column("item") == [["a", "c", "b"], ["a", "d"], ["e"]]
    assert sales.origin(1) == "dict row 2"
    assert "6 rows became 3, one for each 'user'" in sales.notes[-1]


def test_a_row_knows_what_was_before_it() -> None:
    found = gather(SALES, gather={"by": "user", "order": "day", "earlier": {"history": "item"}})
    assert rows(found) == [
        {"user": 1, "item": "b", "day": "2024-01-03", "history": ["a", "c"]},
        {"user": 2, "item": "d", "day": "2024-02-01", "history": ["a"]},
        {"user": 3, "item": "e", "day": "2024-01-01", "history": None},
    ]
    assert [found.origin(row) for row in range(3)] == ["dict row 1", "dict row 4", "dict row 5"]


def test_of_each_side_the_newest_row_stays_and_its_history_holds_the_other_sides() -> None:
    table = {"user": [7] * 4, "item": list("abcd"), "split": ["train", "train", "val", "test"]}
    found = gather(table, gather={"by": "user", "earlier": {"history": "item"}})
    assert [(row["split"], row["history"], row["item"]) for row in rows(found)] == [
        ("train", ["a"], "b"), ("val", ["a", "b"], "c"), ("test", ["a", "b", "c"], "d"),
    ]  # fmt: skip


def test_a_table_of_histories_is_left_as_it_is() -> None:
    table = {"history": [["a"], ["b", "c"]], "item": ["b", "a"]}
    assert rows(gather(table, gather={"by": "user", "earlier": {"history": "item"}})) == rows(open_table(table))


def test_what_cannot_be_gathered_is_refused_by_name() -> None:
    with pytest.raises(RecipeError, match=r"data\.gather\.by .*'usr'.*'user'"):
        gather(SALES, gather="usr")
    with pytest.raises(RecipeError, match=r"data\.gather\.earlier\.history"):
        gather(SALES, gather={"by": "user", "earlier": {"history": "itm"}})
    with pytest.raises(DataError, match=r"dict row 1, column 'user'.*a value in every row"):
        gather({"user": ["x", None], "item": [1, 2]}, gather="user")
    with pytest.raises(DataError, match=r"dict row 1, column 'day' \(data\.gather\.order\).*a number"):
        gather({"user": [1, 1], "day": [1, "soon"]}, gather={"by": "user", "order": "day"})
    with pytest.raises(DataError, match=r"dict row 2, column 'split'.*'train', as in the other rows of its 'picture'"):
        gather({**BOXES, "split": ["train", "test", "val", "test", "train"]}, gather="picture")


def test_a_recipe_remembers_what_it_gathers() -> None:
    data = {"path": "sales.csv", "gather": {"by": "user", "earlier": {"history": "item"}}}
    recipe = ew.Recipe(data=data, inputs={"history": "items"}, outputs={"item": "items"})
    assert recipe.to_dict()["data"] == data
    assert ew.Recipe(**recipe.to_dict()) == recipe
    assert (
        ew.Recipe(
            data={"path": "boxes.csv", "gather": "picture"}, inputs={"picture": "image"}, outputs={"n": "number"}
        ).data.gather.by
        == "picture"
    )  # type: ignore[union-attr]


def test_a_table_to_be_answered_is_gathered_too() -> None:
    """One answer a picture, whether its boxes stand in several rows, or it has one, or nothing is known of it but its name."""
    named = [*"babac", *"defghijklm"]
    data = {"picture": named, "size": [1] * len(named), "tag": ["x", "y", "z", "x", "z"] * 3}
    recipe = ew.Recipe(
        data={"path": data, "gather": "picture"}, inputs={"picture": "category"}, outputs={"tag": "tags"},
        train={"size": "tiny"},
    )  # fmt: skip
    dataset = prepare(recipe)
    model = Model.build(recipe, fit_contracts(recipe, dataset), seed=0)
    found = model.predict(open_table(data))
    assert [answer.origin for answer in found[:4]] == ["dict row 0", "dict row 1", "dict row 4", "dict row 5"]
    assert len(found) == 13
    assert len(model.predict(open_table({"picture": ["a", "b"]}))) == 2
    assert len(model.predict(open_table({"picture": ["a", "b", "a"]}))) == 2
    assert (
        len(model.predict([{"picture": "a"}, {"picture": "a"}])) == 2
    )  # rows that are given one by one are as they are


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=40))
def test_groups_hold_every_row_once_in_order(pairs: list[tuple[int, int]]) -> None:
    wanted = defaultdict(list)
    for row, (key, _) in enumerate(pairs):
        wanted[key].append(row)
    keys, moments = zip(*pairs, strict=True)
    found = Groups.of(keys, None)
    assert [group.tolist() for group in found] == list(wanted.values())
    by_time = Groups.of(keys, np.array(moments))
    for group, plain in zip(by_time, wanted.values(), strict=True):
        assert group.tolist() == sorted(plain, key=lambda row: (moments[row], row))
