"""An evaluation in a terminal: nothing wider than 80 columns, nothing cut, nothing undefined that stops it."""

import re
from typing import Any

import pytest

from endwise.scores import against_baseline, lines


def one(value: float | None, low: float | None = None, high: float | None = None, n: int = 200) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n}


WIDE = one(-0.00012345, -0.00098765, -0.000012345, 999_999)
FOUND: dict[str, Any] = {
    "outputs": {
        "throttle": {"mae": one(0.0024, 0.0022, 0.0025), "r2": one(None), "rmse": one(0.5, 0.5, 0.5)},
        "a very long name of an output": {"average_precision": WIDE, "one_row": one(0.25, n=1)},
    },
    "baselines": {
        "throttle": {"trivial": {"mae": one(0.013, 0.013, 0.013), "r2": one(None)}, "classical": None},
        "a very long name of an output": {"trivial": {"average_precision": WIDE}, "classical": {"one_row": WIDE}},
    },
    "by": {
        "column": "machine",
        "outputs": {
            "throttle": {
                "groups": {"A": {"mae": WIDE}, "a group with quite a long name": {"mae": one(0.1, 0.05, 0.2, 20)}},
                "gaps": {"mae": {"best": "A", "worst": "a group with quite a long name", **WIDE}},
            }
        },
    },
    "ablation": [
        {
            "input": name, "left_out": how, "output": "throttle", "metric": "mae",
            "with": WIDE, "without": WIDE, "worth": one(0.004, -0.001, 0.009),
        }
        for name, how in (("image", "masked, as missing values were in training"),
                          ("speed", "replaced by other rows' values (none was missing in training)"))
    ],
}  # fmt: skip


def test_no_line_is_wider_than_80_columns() -> None:
    wide = [line for line in lines(FOUND) if max(map(len, line.split("\n"))) > 80]
    assert not wide


def test_numbers_never_run_together() -> None:
    for line in lines(FOUND):
        assert "average_precision-" not in line
        assert not re.search(r"\d-0|\d\[|\]\d", line), line


@pytest.mark.parametrize(
    "told",
    ["undefined", "degenerate", "no interval", "a very long name of an output", "a group with quite a long name",
     "A minus a group with quite a long name", "without speed", "[-0.001, 0.009]", "throttle by machine",
     "image: masked, as missing values were in training"],
)  # fmt: skip
def test_it_says_all_there_is(told: str) -> None:
    assert told in "\n".join(lines(FOUND))


def test_a_baseline_that_is_undefined_or_not_there_is_a_dash() -> None:
    table = {line.split()[0]: line.split() for line in lines({**FOUND, "by": None, "ablation": None}) if line.strip()}
    assert table["r2"] == ["r2", "undefined", "200", "-"]
    assert table["mae"][-1] == "0.013"
    assert table["throttle"][-1] == "trivial"  # a column for what there is


def test_the_goal_is_held_against_its_baseline_in_words() -> None:
    def said(own: tuple[float, float, float], classical: tuple[float, float, float], direction: str = "max") -> str:
        found = {
            "outputs": {"kind": {"score": dict(zip(("value", "low", "high"), own, strict=True)) | {"n": 37}}},
            "baselines": {
                "kind": {
                    "trivial": {"score": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 37}},
                    "classical": {"score": dict(zip(("value", "low", "high"), classical, strict=True)) | {"n": 37}},
                }
            },
        }
        return " ".join(against_baseline(found, {"output": "kind", "metric": "score", "direction": direction}))

    worse = said((0.75, 0.6, 0.89), (1.0, 0.91, 1.0))
    assert "score of kind: 0.75, the classical baseline 1:" in worse
    assert "the baseline is better; use it, or find out why." in worse
    assert "the network is better." in said((0.75, 0.6, 0.89), (1.0, 0.91, 1.0), "min")
    assert "the network is better." in said((0.97, 0.95, 0.99), (0.7, 0.6, 0.8))
    assert "the intervals overlap" in said((0.97, 0.75, 0.99), (0.7, 0.6, 0.8))
    goal = {"output": "kind", "metric": "score", "direction": "max"}
    assert not list(against_baseline({"outputs": {"kind": {}}}, goal))


def test_training_metrics_without_groups_and_inputs_are_shown_too() -> None:
    assert list(lines({"outputs": {"y": {"mae": one(1.0, 0.5, 1.5)}}}))[1].split()[0] == "mae"
    assert list(lines({})) == []
