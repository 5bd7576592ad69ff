"""What `check` says about data: every broken row, every leak, and whether training would take it."""

import json
from pathlib import Path
from typing import Any

import pytest

from endwise.data.check import CheckReport, check
from endwise.errors import DataError, RecipeError
from endwise.recipe import Recipe
from tests.toys import Amount, Kind, Letters

ROWS = 100


def table(**changed: list[Any]) -> dict[str, list[Any]]:
    return {
        "text": [f"text number {row}" for row in range(ROWS)],
        "amount": [row / 10 for row in range(ROWS)],
        "kind": ["ab"[row % 2] for row in range(ROWS)],
        "split": ["train"] * 70 + ["val"] * 15 + ["test"] * 15,
        **changed,
    }


def checked(source: Any, *, inputs: dict[str, Any] | None = None, outputs: Any = None, **data: Any) -> CheckReport:
    return check(
        Recipe(
            data={"path": source, **data},
            inputs=inputs or {"text": Letters(), "amount": Amount()},
            outputs=outputs or {"kind": Kind()},
        )
    )


def changed(column: str, cells: dict[int, Any], **others: list[Any]) -> dict[str, list[Any]]:
    made = table(**others)
    for row, cell in cells.items():
        made[column][row] = cell
    return made


def messages(report: CheckReport, kind: str) -> list[str]:
    return [str(item) for item in report.of(kind)]


def test_good_data_is_good() -> None:
    report = checked(table())
    assert report.ok
    assert report.exit_code == 0
    assert report.findings == report.bad == report.notes == ()
    assert report.splits == {"train": 70, "val": 15, "test": 15}
    assert report.fields["text"].present == ROWS
    assert (report.fields["kind"].role, report.fields["kind"].column) == ("output", "kind")
    assert "70 values" in report.fields["kind"].summary


def test_stages_are_told_and_one_that_the_goal_does_not_hang_on() -> None:
    stages = {
        "decide": {"from": "size", "to": "kind", "hand_off": "latent"},
        "read": {"from": ["text", "amount"], "to": {"size": Amount(column="amount")}},
        "beside": {"from": "text", "to": {"other": Kind(column="kind")}},
    }
    found = check(
        Recipe(
            data={"path": table()},
            inputs={"text": Letters(), "amount": Amount()},
            outputs={"kind": Kind()},
            stages=stages,
        )
    )
    assert set(found.stages) == {
        "read: text, amount → size",
        "decide: size → kind",
        "beside: text → other (nothing of it reaches kind, the goal)",
    }
    assert "  stage   decide: size → kind\n" in str(found)
    assert found.to_dict()["stages"] == list(found.stages)


def test_rows_that_no_side_has_are_told() -> None:
    """One without any label, one without any input: neither is in a split, and the counts alone would not say why."""
    made = changed("kind", {3: None}, text=[None if row == 8 else f"row {row}" for row in range(ROWS)])
    report = checked(made, inputs={"text": Letters()})
    assert sum(report.splits.values()) == ROWS - 2
    (unlabelled,) = [item for item in report.of("left out") if "label" in item.message]
    assert unlabelled.rows == (3,)
    assert "1 of 100 rows has no label at all and is left out" in str(report)
    assert "1 of 100 rows has no input at all and is left out" in str(report)


def test_what_was_put_together_is_told() -> None:
    made = table(picture=[f"p{row // 2}" for row in range(ROWS)])
    del made["split"]
    report = checked(made, gather={"by": "picture", "order": "amount", "earlier": {"before": "text"}})
    (note,) = report.opened
    assert "'picture'" in note
    assert f"  note    {note}\n" in str(report)


def test_every_broken_row_is_named_and_too_many_are_refused(tmp_path: Path) -> None:
    made = changed("amount", {3: "x", 50: "y"})
    lines = [",".join(made), *(",".join(str(made[name][row]) for name in made) for row in range(ROWS))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    report = checked(str(tmp_path / "t.csv"))
    assert [(item.origin, item.field) for item in report.bad] == [
        ("t.csv line 5", "amount"),
        ("t.csv line 52", "amount"),
    ]
    assert (report.ok, report.exit_code) == (False, 3)
    assert any("2 of 100 rows (2.0%) cannot be read" in message for message in messages(report, "broken"))
    shown = str(report)
    assert shown.count("t.csv line 5,") == shown.count("t.csv line 52,") == 1  # each row is listed once
    assert "2 of 100 values cannot be read: " in shown
    assert "set data.max_bad to 2%" in shown
    assert ("amount", (3, 50)) in [(item.field, item.rows) for item in report.of("broken")]
    assert checked(str(tmp_path / "t.csv"), max_bad="2%").ok
    assert report.fields["amount"].broken == 2


def test_files_that_are_all_missing_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("photo,label\n" + "".join(f"{row}.png,{'ab'[row % 2]}\n" for row in range(20)))
    recipe = Recipe(data=str(tmp_path / "t.csv"), inputs={"photo": "image"}, outputs={"label": "category"})
    with pytest.raises(DataError, match=r"20 of 20 rows[\s\S]*line 2, photo: there is no file '0.png'"):
        check(recipe)  # not that no validation row is left


def test_the_same_content_on_two_sides_is_found() -> None:
    same = {"text": "again", "amount": 1}
    made = table()
    for row in (2, 80, 90):
        for name, cell in same.items():
            made[name][row] = cell
    report = checked(made)
    assert [(item.level, item.rows) for item in report.of("leak")] == [
        ("warning", (90,)),
        ("warning", (80,)),
        ("warning", (90,)),
    ]
    assert "1 of 15 test rows have exactly the same input as a train row (values in memory row 90 is" in messages(
        report, "leak"
    )[0].replace(report.source[0], "values in memory")
    assert checked(changed("text", {2: "again", 90: "again"})).of("leak") == ()  # the amounts differ


def test_equal_plain_values_are_only_noted() -> None:
    report = checked(changed("amount", {90: 0.2}), inputs={"amount": Amount()})
    assert [item.level for item in report.of("leak")] == ["note"]


def test_repetitions_and_contradictions_in_training_are_found() -> None:
    made = changed("text", {5: "text number 3", 6: "text number 4"})
    for row, like in ((5, 3), (6, 4)):
        made["amount"][row] = made["amount"][like]
    made["kind"][6] = "b"
    report = checked(made)
    assert [item.rows for item in report.of("duplicate")] == [(5, 6)]
    assert [item.rows for item in report.of("contradiction")] == [(4, 6)]


def test_a_group_on_two_sides_is_found() -> None:
    report = checked(table(who=[f"p{row // 10}" for row in range(ROWS)]), group="who")
    assert ["p8" in message for message in messages(report, "group leak")] == [True]
    assert checked(table(who=[f"p{row // 5}" for row in range(ROWS)]), group="who").of("group leak") == ()


def test_constant_and_empty_columns() -> None:
    report = checked(table(amount=[1] * ROWS, kind=["a"] * ROWS))
    assert [(item.level, item.field) for item in report.of("constant")] == [("error", "kind"), ("warning", "amount")]
    empty = checked(table(amount=[None] * ROWS))
    assert [(item.level, item.field) for item in empty.of("empty")] == [("error", "amount")]
    assert empty.fields["amount"].summary == "nothing could be learnt"
    no_label = checked(table(kind=[None] * ROWS))
    assert not no_label.ok
    assert {item.field for item in no_label.of("empty")} == {"data", "kind"}


def test_imbalance_rare_and_unseen_classes() -> None:
    kind = ["a"] * 66 + ["b"] * 3 + ["c"] + ["a"] * 25 + ["d"] * 5
    report = checked(table(kind=kind))
    assert "'a' has 66 training rows, 'c' has 1" in messages(report, "imbalance")[0]
    assert "2 classes have fewer than 5 training rows: 'b', 'c'" in messages(report, "rare")[0]
    assert "5 test rows have a label that no training row has: 'd'" in messages(report, "unseen")[0]


def test_missing_values_are_counted() -> None:
    report = checked(changed("amount", dict.fromkeys(range(60))))
    assert [item.level for item in report.of("missing")] == ["warning"]
    assert "missing in 60 of 100 rows (60.0%" in messages(report, "missing")[0]
    surprise = checked(changed("amount", {90: None}))
    assert "never missing in training" in messages(surprise, "missing")[0]
    declared = {"text": Letters(), "amount": Amount(optional=True)}
    assert [item.level for item in checked(changed("amount", {90: None}), inputs=declared).of("missing")] == ["note"]


def test_unusual_lengths_are_found() -> None:
    report = checked(changed("text", {7: "x" * 900}))
    assert [item.rows for item in report.of("length")] == [(7,)]
    assert "up to 900 elements, the median is 14" in messages(report, "length")[0]


def test_another_table_can_be_checked() -> None:
    recipe = Recipe(data={"path": table()}, inputs={"text": Letters(), "amount": Amount()}, outputs={"kind": Kind()})
    report = check(recipe, source=table(kind=["a"] * ROWS))
    assert report.splits == {"train": 0, "val": 0, "test": ROWS}
    assert [item.field for item in report.of("constant")] == ["kind"]


def test_a_declared_column_that_is_not_there_is_an_error_of_the_recipe() -> None:
    with pytest.raises(RecipeError, match="did you mean 'text'"):
        checked(table(), inputs={"text": Letters(column="texts")})
    with pytest.raises(DataError):
        checked("nowhere.csv")


def test_the_report_is_plain_json() -> None:
    values = json.loads(json.dumps(checked(changed("amount", {3: "x"})).to_dict()))
    assert set(values) == {
        "ok", "exit_code", "source", "rows", "splits", "split_how", "fields", "bad", "findings", "notes", "fingerprint",
        "seconds",
        "stages",
    }  # fmt: skip
    assert set(values["findings"][0]) == {"level", "kind", "field", "message", "fix", "rows"}
    assert set(values["fields"]["text"]) == {"role", "type", "column", "present", "missing", "broken", "summary"}
    assert values["bad"][0]["row"] == 3
