"""From a recipe to prepared rows: bad ones put aside by name, missing ones counted, nothing silent."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from endwise.data.dataset import Dataset, fit_contracts, prepare
from endwise.data.store import usage
from endwise.errors import DataError, RecipeError
from endwise.propose import propose
from endwise.recipe import Recipe
from tests.toys import Amount, Kind, Letters

ROWS = 60


def rows(count: int = ROWS, **changed: list[Any]) -> dict[str, list[Any]]:
    return {
        "text": [f"text number {row}" for row in range(count)],
        "amount": [row / 10 for row in range(count)],
        "kind": ["even" if row % 2 == 0 else "odd" for row in range(count)],
        **changed,
    }


def recipe(source: Any, *, outputs: dict[str, Any] | None = None, **data: Any) -> Recipe:
    where = data if source is None else {"path": source, **data}
    return Recipe(
        data=where, inputs={"text": Letters(), "amount": Amount()}, outputs=outputs if outputs is not None else {"kind": Kind()}
    )  # fmt: skip


def with_cells(column: str, cells: dict[int, Any], count: int = ROWS) -> dict[str, list[Any]]:
    table = rows(count)
    for row, cell in cells.items():
        table[column][row] = cell
    return table


def all_rows(dataset: Dataset) -> list[int]:
    return sorted(np.concatenate([dataset.splits.train, dataset.splits.val, dataset.splits.test]).tolist())


def test_every_row_is_read_and_on_one_side() -> None:
    dataset = prepare(recipe(rows()))
    assert all_rows(dataset) == list(range(ROWS))
    assert dataset.fields["text"][7].tobytes() == b"text number 7"
    assert float(dataset.fields["amount"][7]) == 0.7
    assert dataset.raw("text", 7) == "text number 7"
    assert dataset.cells("kind", [3, 4]) == ["odd", "even"]
    assert dataset.weight.tolist() == [1.0] * ROWS
    assert len(dataset) == ROWS
    assert dataset.bad == dataset.notes == ()


def test_a_text_file_that_is_not_utf8_is_one_bad_row(tmp_path: Path) -> None:
    for row in range(40):
        file = tmp_path / "notes" / ("good" if row % 2 else "bad") / f"{row}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(f"note number {row}".encode() if row != 7 else "café".encode("latin-1"))
    found = Recipe(
        data={"path": str(tmp_path / "notes"), "max_bad": 0.05}, inputs={"text": "text"}, outputs={"label": "category"}
    )
    dataset = prepare(found)
    assert [(item.field, item.origin.replace(os.sep, "/")) for item in dataset.bad] == [("text", "notes/good/7.txt")]
    assert "not UTF-8" in dataset.bad[0].reason
    assert len(all_rows(dataset)) == 39
    with pytest.raises(DataError, match=r"(?s)1 of 40 rows.*7\.txt.*not UTF-8"):
        prepare(found.replace(**{"data.max_bad": 0.01}))
    assert propose(str(tmp_path / "notes")).recipe.inputs["text"].type == "text"


def test_progress_counts_the_rows_of_each_field() -> None:
    told: list[tuple[str, int, int]] = []
    prepare(recipe(rows()), progress=lambda what, done, total: told.append((what, done, total)))
    assert {what for what, _, _ in told} == {"text", "amount", "kind"}
    assert [call for call in told if call[1] == ROWS] == [(what, ROWS, ROWS) for what in ("text", "amount", "kind")]


# ---- bad and missing ---------------------------------------------------------------------------------------------


def test_bad_rows_are_put_aside_with_file_row_and_reason(tmp_path: Path) -> None:
    lines = ["text,amount,kind", *(f"text {row},{row},{'ab'[row % 2]}" for row in range(200))]
    lines[18] = "text 17,seven,b"
    (tmp_path / "calls.csv").write_text("\n".join(lines))
    dataset = prepare(recipe(str(tmp_path / "calls.csv")))
    assert [(item.row, item.field) for item in dataset.bad] == [(17, "amount")]
    assert dataset.bad[0].origin == "calls.csv line 19"
    assert "seven" in dataset.bad[0].reason
    assert all_rows(dataset) == [row for row in range(200) if row != 17]
    assert dataset.notes[0].startswith("1 of 200 rows could not be read and were put aside: calls.csv line 19, amount:")


def test_more_bad_rows_than_allowed_are_refused_naming_the_first_and_the_fix() -> None:
    table = with_cells("amount", dict.fromkeys(range(10, 18), "x"))
    with pytest.raises(DataError) as refused:
        prepare(recipe(table))
    text = str(refused.value)
    assert text.startswith("8 of 60 rows (13.3%) cannot be read, more than data.max_bad = 1.0% allows. Fix:")
    assert "set data.max_bad to 13.4%" in text
    assert len(text.splitlines()) == 6
    assert len(prepare(recipe(table, max_bad="13.4%")).bad) == 8


def test_a_missing_target_is_a_row_without_a_label() -> None:
    table = with_cells("kind", {3: None, 5: float("nan")})
    dataset = prepare(recipe(table))
    assert all_rows(dataset) == [row for row in range(ROWS) if row not in (3, 5)]
    assert "2 of 60 rows have no label at all and were left out" in dataset.notes[0]
    both = prepare(recipe(table, outputs={"kind": Kind(), "more": Amount(column="amount")}))
    assert all_rows(both) == list(range(ROWS))  # the other label is there
    assert both.fields["kind"].present.sum() == ROWS - 2
    assert both.notes == ("kind is missing in 2 of 60 rows",)


def test_a_missing_input_is_counted_and_kept() -> None:
    dataset = prepare(recipe(with_cells("amount", {3: None})))
    assert all_rows(dataset) == list(range(ROWS))
    assert not dataset.fields["amount"].present[3]
    assert dataset.notes == ("amount is missing in 1 of 60 rows",)


def test_a_row_without_any_input_is_left_out_and_counted() -> None:
    table = with_cells("amount", {3: None})
    table["text"][3] = None
    dataset = prepare(recipe(table))
    assert 3 not in all_rows(dataset)
    assert "1 of 60 rows have no input at all" in dataset.notes[0]


def test_no_label_anywhere_is_refused() -> None:
    with pytest.raises(DataError, match="at least one training row with a label"):
        prepare(recipe(rows(kind=[None] * ROWS)))


# ---- columns, weights, sources -----------------------------------------------------------------------------------


def test_an_unknown_column_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(RecipeError, match=r"inputs\.text\.column.*did you mean 'text'"):
        prepare(Recipe(data=rows(), inputs={"text": Letters(column="tekst")}, outputs={"kind": Kind()}))
    with pytest.raises(RecipeError, match=r"data\.weight.*'wait'"):
        prepare(recipe(rows(), weight="wait"))
    with pytest.raises(DataError, match=r"outputs\.kind\.column"):
        prepare(recipe(rows()), source={"text": ["a"], "amount": [1]})


def test_weights_are_checked() -> None:
    weights = [float(row) for row in range(ROWS)]
    assert prepare(recipe(rows(w=weights), weight="w")).weight.tolist() == weights
    for wrong in (-1, "inf", "heavy", None):
        with pytest.raises(DataError, match=r"row 4, column 'w' \(data\.weight\)"):
            prepare(recipe(rows(w=[*weights[:4], wrong, *weights[5:]]), weight="w"))
    with pytest.raises(DataError, match="a weight above 0"):
        prepare(recipe(rows(w=[0] * ROWS), weight="w"))


def test_groups_are_numbered() -> None:
    dataset = prepare(recipe(rows(who=[f"p{row // 3}" for row in range(ROWS)]), group="who"))
    assert dataset.group is not None
    assert dataset.group.tolist() == [row // 3 for row in range(ROWS)]
    sides = [set(dataset.group[getattr(dataset.splits, side)].tolist()) for side in ("train", "val", "test")]
    assert len(set.union(*sides)) == sum(map(len, sides))  # none is on two


def test_separate_files_are_one_data_set_with_global_row_ids(tmp_path: Path) -> None:
    for name, start in (("train", 0), ("test", 40)):
        lines = ["text,amount,kind", *(f"text {row},{row},{'ab'[row % 2]}" for row in range(start, start + 40))]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
    given = recipe(None, train=str(tmp_path / "train.csv"), test=str(tmp_path / "test.csv"))
    dataset = prepare(given)
    assert dataset.splits.test.tolist() == list(range(40, 80))
    assert all_rows(dataset) == list(range(80))
    assert dataset.fields["text"][41].tobytes() == b"text 41"
    assert dataset.origin(41) == "test.csv line 3"
    assert dataset.raw("amount", 41) == "41"
    again = prepare(given, source=str(tmp_path / "test.csv"))
    assert again.splits.test.tolist() == list(range(40))
    assert [again.fields["text"][row].tobytes() for row in range(40)] == [
        dataset.fields["text"][row + 40].tobytes() for row in range(40)
    ]


def test_a_table_to_be_answered_needs_no_targets() -> None:
    source = {"text": ["one", "two"], "amount": [1, None]}
    dataset = prepare(recipe(rows()), source=source, need_targets=False)
    assert list(dataset.fields) == ["text", "amount"]
    assert dataset.splits.test.tolist() == [0, 1]
    optional = Recipe(
        data=rows(), inputs={"text": Letters(), "amount": Amount(optional=True)}, outputs={"kind": Kind()}
    )  # fmt: skip
    assert list(prepare(optional, source={"text": ["one"]}, need_targets=False).fields) == ["text"]
    with pytest.raises(DataError, match=r"inputs\.amount"):
        prepare(recipe(rows()), source={"text": ["one"]}, need_targets=False)


def test_equal_contents_are_never_on_two_sides_whatever_they_are_called(tmp_path: Path) -> None:
    for row in range(90):
        (tmp_path / f"{row}.txt").write_text(f"content {row % 30}")
    lines = ["text,kind", *(f"{row}.txt,{'ab'[row % 2]}" for row in range(90))]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    one = Recipe(data=str(tmp_path / "table.csv"), inputs={"text": Letters()}, outputs={"kind": Kind()})
    splits = prepare(one).splits
    sides = [{int(row) % 30 for row in side} for side in (splits.train, splits.val, splits.test)]
    assert all(sides)
    assert len(set.union(*sides)) == sum(map(len, sides))  # none is on two


# ---- the fingerprint and reuse -----------------------------------------------------------------------------------


def test_the_fingerprint_follows_content_declaration_and_split() -> None:
    first = prepare(recipe(rows())).fingerprint
    assert prepare(recipe(rows())).fingerprint == first
    assert prepare(recipe(with_cells("amount", {3: 99}))).fingerprint != first
    other_seed = Recipe(data=rows(), inputs=recipe(rows()).inputs, outputs={"kind": Kind()}, train={"seed": 1})
    assert prepare(other_seed).fingerprint != first
    assert prepare(recipe(rows(), outputs={"kind": Kind(loss_weight=2.0)})).fingerprint != first
    assert prepare(recipe(rows(w=[2.0] * ROWS), weight="w")).fingerprint != first


def test_the_fingerprint_does_not_depend_on_where_files_lie_or_on_workers(tmp_path: Path) -> None:
    found = []
    for folder, workers in (("a", 1), ("b", 3)):
        (tmp_path / folder).mkdir()
        for row in range(30):
            (tmp_path / folder / f"{row}.txt").write_text(f"content {row}")
        table = {"text": [str(tmp_path / folder / f"{row}.txt") for row in range(30)], "kind": ["a", "b"] * 15}
        one = Recipe(data=table, inputs={"text": Letters()}, outputs={"kind": Kind()})
        found.append(prepare(one, workers=workers).fingerprint)
    assert found[0] == found[1]


def test_a_changed_file_is_decoded_again_and_the_rest_reused(tmp_path: Path) -> None:
    for row in range(30):
        (tmp_path / f"{row}.txt").write_text(f"content {row}")
    table = {"text": [str(tmp_path / f"{row}.txt") for row in range(30)], "kind": ["a", "b"] * 15}
    one = Recipe(data=table, inputs={"text": Letters()}, outputs={"kind": Kind()})
    prepare(one)
    prepare(one)
    assert len(usage().entries) == 2
    (tmp_path / "4.txt").write_text("other")
    os.utime(tmp_path / "4.txt", ns=(1, 1))
    assert prepare(one).fields["text"][4].tobytes() == b"other"
    assert len(usage().entries) == 3


def test_a_file_that_appears_is_no_longer_bad(tmp_path: Path) -> None:
    for row in range(30):
        (tmp_path / f"{row}.txt").write_text(f"content {row}")
    (tmp_path / "4.txt").rename(tmp_path / "away")
    table = {"text": [str(tmp_path / f"{row}.txt") for row in range(30)], "kind": ["a", "b"] * 15}
    one = Recipe(data={"path": table, "max_bad": "10%"}, inputs={"text": Letters()}, outputs={"kind": Kind()})
    assert [item.row for item in prepare(one).bad] == [4]
    (tmp_path / "away").rename(tmp_path / "4.txt")
    assert prepare(one).bad == ()


# ---- contracts ---------------------------------------------------------------------------------------------------


def test_contracts_come_from_training_rows_only() -> None:
    table = with_cells("amount", {0: None})
    table["split"] = ["train"] * 40 + ["val"] * 10 + ["test"] * 10
    table["kind"][50:] = ["unseen"] * 10
    given = recipe(table)
    contracts: dict[str, Any] = fit_contracts(given, prepare(given))
    assert contracts["kind"].names == ("even", "odd")
    assert (contracts["amount"].count, contracts["amount"].missing) == (39, 1)
    assert contracts["amount"].mean == pytest.approx(np.mean([row / 10 for row in range(1, 40)]))


def test_a_field_without_a_training_value_is_refused() -> None:
    table = rows(amount=[None] * ROWS)
    with pytest.raises(DataError, match=r"inputs\.amount.*at least one training value"):
        fit_contracts(recipe(table), prepare(recipe(table)))
