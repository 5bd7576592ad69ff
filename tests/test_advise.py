"""Advice: what is decided from what, what it costs, and that it can be interrupted and believed."""

import contextlib
import io
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import endwise as ew
from endwise.advise import _shifted, arms, bounds
from endwise.advise.arms import with_weights
from endwise.advise.decide import Standing, decide, labels_to_decide, parse_needs, widened
from endwise.advise.schedule import Cost, Training, chosen, planned
from endwise.cli import main
from endwise.data.dataset import fit_contracts, prepare
from endwise.data.subset import nested
from endwise.errors import EndwiseError, RecipeError
from endwise.metrics import Estimate, accuracy, mae, r2
from endwise.regimes import fit

SIMPLE = {"classical": ("pipeline", 0), "end-to-end": ("end-to-end", 1), "pretrained": ("pretrained", 3)}


def standing(name: str, value: float, **more) -> Standing:
    kind, simplicity = SIMPLE[name]
    return Standing(name, kind, simplicity, Estimate(value, value - 0.1, value + 0.1, 99), True, **more)


def judged(half: float, margin: float, **values: float):
    """A verdict where every difference is known up to `half`."""
    names = {name.replace("_", "-"): value for name, value in values.items()}
    gains = {
        (a, b): Estimate(names[a] - names[b], names[a] - names[b] - half, names[a] - names[b] + half, 99)
        for a in names
        for b in names
        if a != b
    }
    return decide([standing(name, value) for name, value in names.items()], gains, margin, "accuracy")


# ---- the rule --------------------------------------------------------------------------------------------------------


def test_what_is_clearly_better_is_advised():
    assert judged(0.02, 0.01, classical=0.7, end_to_end=0.9).advice == "end-to-end"
    assert judged(0.02, 0.01, classical=0.9, end_to_end=0.7).advice == "pipeline"
    assert judged(0.02, 0.01, classical=0.7, end_to_end=0.8, pretrained=0.9).advice == "pretrained"


def test_a_tie_gives_the_simpler_within_the_margin():
    found = judged(0.02, 0.04, classical=0.80, end_to_end=0.81)
    assert found.advice == "pipeline"
    assert any("not told apart" in reason for reason in found.reasons)


def test_a_tie_beyond_the_margin_cannot_be_told():
    found = judged(0.05, 0.01, classical=0.80, end_to_end=0.82)
    assert found.advice == "cannot-tell"
    assert found.rivals == ("classical", "end-to-end")


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.001, 0.3), st.floats(0.001, 0.2))
def test_end_to_end_is_never_advised_where_it_is_not_shown_to_be_better(classical, network, half, margin):
    found = judged(half, margin, classical=classical, end_to_end=network)
    assert found.advice != "end-to-end" or network - classical - half > 0


def test_a_difference_without_an_interval_is_none_that_is_known():
    """All test rows of one group: nothing bounds what the difference would be on others."""
    found = judged(math.nan, 0.01, classical=0.7, end_to_end=0.9)
    assert found.advice == "cannot-tell"
    assert set(found.rivals) == {"classical", "end-to-end"}


def test_an_arm_that_does_not_meet_a_need_is_put_aside_whatever_its_score():
    arms = [standing("classical", 0.7), standing("end-to-end", 0.9, fails="audit: nothing to look at")]
    found = decide(arms, {}, 0.01, "accuracy")
    assert found.advice == "pipeline"
    assert any("put aside" in reason for reason in found.reasons)


def test_nothing_to_compare_with_is_no_reason_to_choose():
    assert decide([standing("end-to-end", 0.9)], {}, 0.01, "wer").advice == "cannot-tell"
    assert decide([standing("end-to-end", 0.9, reaches=True)], {}, 0.01, "wer").advice == "end-to-end"


def test_nothing_better_than_a_constant_is_no_advice():
    kind, simplicity = SIMPLE["classical"]
    arm = Standing("classical", kind, simplicity, Estimate(0.5, 0.4, 0.6, 20), beats_trivial=False)
    assert decide([arm], {}, 0.01, "accuracy").advice == "cannot-tell"


def test_needs_are_read_and_odd_ones_refused():
    assert parse_needs(["audit", "latency_ms=20"]) == {"audit": None, "latency_ms": 20.0}
    for wrong in ("audit=3", "latency_ms", "latency_ms=fast", "latncy_ms=3"):
        with pytest.raises(RecipeError, match="--need"):
            parse_needs([wrong])


def test_more_test_rows_decide_what_they_can():
    paired = Estimate(0.02, -0.02, 0.06, 100)
    more = labels_to_decide(paired, paired, 0.01, labels=1000, test_rows=100, wanted=1000)
    assert 300 <= more <= 310  # half the width takes four times the rows
    seeds = widened(paired, 0.05)
    assert seeds.low < paired.low
    assert labels_to_decide(seeds, paired, 0.01, labels=1000, test_rows=100, wanted=1000) == 1000


# ---- parts and trainings ---------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from("aaab"), min_size=8, max_size=120), st.integers(0, 5))
def test_parts_are_nested_and_keep_the_shares_of_classes(classes, seed):
    rows = np.arange(100, 100 + len(classes))
    parts = nested(rows, (0.25, 0.5, 1.0), seed=seed, classes=classes)
    assert set(parts[0]) <= set(parts[1]) <= set(parts[2]) == set(rows)
    for share, part in zip((0.25, 0.5, 1.0), parts, strict=True):
        assert abs(len(part) - share * len(rows)) <= 1
        for name in set(classes):
            got = sum(classes[row - 100] == name for row in part)
            assert abs(got - share * classes.count(name)) <= 2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=8, max_size=80), st.integers(0, 5))
def test_groups_are_in_a_part_or_not(groups, seed):
    members = np.array(groups)
    parts = nested(np.arange(len(groups)), (0.3, 0.6, 1.0), seed=seed, groups=members)
    assert set(parts[0]) <= set(parts[1]) <= set(parts[2])
    for part in parts:
        assert len(part)
        inside = set(members[part].tolist())
        assert len(part) == sum(group in inside for group in groups)


def offered(
    arm: str,
    one: float,
    shares=(1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0),
    seeds: int = 3,
    more: float = 4.0,
    usual: float = 10,
) -> list[Training]:
    cost = Cost(labels=1600, passes=10, batch_size=16, step_s=one / 1000, other_s=0.0)
    found = []
    for seed in range(seeds):
        for share in shares if not seed else shares[:-1]:
            labels = round(1600 * share)
            passes = cost.passes_of(labels, usual=usual, ceiling=0.5 * 10 * 1600, more=more)
            found.append(Training(arm, share, labels, seed, 1, cost.seconds(labels, passes, 16), seed > 0))
    return found


def test_the_trainings_fit_into_the_limit_and_have_a_curve():
    own, other = offered("end-to-end", 10.0), offered("pretrained", 25.0)
    taken, _ = chosen({"end-to-end": own, "pretrained": other}, 10.0, limit_s=27.0)
    assert sum(item.seconds for item in taken) <= 27.0
    for arm in {item.arm for item in taken}:
        assert len({item.labels for item in taken if item.arm == arm}) >= 3
    assert any(item.labels == 1600 and item.arm == "end-to-end" for item in taken)


def test_several_seeds_are_bought_for_small_parts_only():
    taken, _ = chosen({"end-to-end": offered("end-to-end", 10.0)}, 10.0, limit_s=27.0)
    assert any(item.seed > 0 for item in taken)
    assert all(item.labels < 1600 for item in taken if item.seed > 0)


def test_an_arm_that_is_too_dear_is_left_out_and_told():
    taken, notes = chosen(
        {"end-to-end": offered("end-to-end", 1.0), "pretrained": offered("pretrained", 500.0)}, 1.0, limit_s=2.7
    )
    assert {item.arm for item in taken} == {"end-to-end"}
    assert "pretrained is left out" in notes[0]


def test_a_rival_as_dear_as_the_own_network_is_trained_on_all_labels_and_small_parts_make_fewer_passes():
    both = ("end-to-end", "stages")
    taken, notes = planned(
        lambda more: {arm: offered(arm, 100.0, more=more, usual=40) for arm in both}, 100.0, limit_s=270.0
    )
    assert not notes
    assert {item.arm for item in taken if item.labels == 1600} == set(both)
    assert sum(item.seconds for item in taken) <= 270.0
    alone, _ = planned(
        lambda more: {"end-to-end": offered("end-to-end", 100.0, more=more, usual=40)}, 100.0, limit_s=270.0
    )
    assert next(item for item in alone if item.labels == 400).seconds > 40  # nobody else needs the room


def test_what_costs_nothing_is_a_rival_even_where_the_own_network_takes_all_there_is():
    free = [Training("classical", share, round(1600 * share), 0, None, 0.0, False) for share in (0.25, 0.5, 1.0)]
    taken, notes = chosen({"end-to-end": offered("end-to-end", 100.0), "classical": free}, 100.0, limit_s=50.0)
    assert not notes
    assert sum(item.arm == "classical" for item in taken) == 3


def test_bounds_of_metrics():
    assert bounds(accuracy()) == (0.0, 1.0)
    assert bounds(mae()) == (0.0, None)
    assert bounds(r2()) == (None, 1.0)


# ---- the whole -------------------------------------------------------------------------------------------------------


def line(rows: int = 260) -> ew.Recipe:
    """A number that is a line in two others: nothing beats the classical model."""
    draw = random.Random(0)
    pairs = [(draw.gauss(0, 1), draw.gauss(0, 1)) for _ in range(rows)]
    data = {
        "a": [a for a, _ in pairs],
        "b": [b for _, b in pairs],
        "total": [3 * a - 2 * b + draw.gauss(0, 0.1) for a, b in pairs],
    }
    return ew.Recipe(
        name="line", data=data, inputs={"a": "number", "b": "number"}, outputs={"total": "number"},
        train={"size": "tiny", "precision": "fp32", "steps": 30, "batch_size": 16},
    )  # fmt: skip


QUICK = {"fractions": (0.25, 0.5, 1.0), "seeds": 2}


@pytest.fixture(scope="module")
def advised(tmp_path_factory) -> tuple[ew.Recipe, Path, dict]:
    recipe, folder = line(), tmp_path_factory.mktemp("advise") / "out"
    found = ew.advise(recipe, out=folder, target={"mae": 0.2}, price_per_label=0.5, **QUICK)
    return recipe, folder, found.to_dict()


def test_the_classical_model_is_advised_where_the_truth_is_a_line(advised):
    _, _, found = advised
    assert found["advice"] == "pipeline"
    assert found["arm"] == "classical"
    better, alike = "classical is better than end-to-end", "classical is the simpler"
    assert any(better in reason or alike in reason for reason in found["reasons"]), found["reasons"]


def test_labels_are_bought_whole():
    found = _shifted(Estimate(278.7, 100.0, float("inf"), 9), 222)
    assert (found.value, found.low, found.high) == (57, 0, float("inf"))
    assert np.isnan(_shifted(Estimate(278.7, 100.0, float("nan"), 9), 222).high)


def test_the_documented_json(advised):
    _, folder, found = advised
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found == json.loads((folder / "advice.json").read_text())
    assert set(found["labels_to_target"]) == {"classical", "end-to-end"}
    assert found["labels_to_target"]["classical"]["state"] == "reached"
    measured = [row for row in found["curve"] if row["measured"]]
    assert {row["arm"] for row in measured} == {"classical", "end-to-end"}
    for row in found["curve"]:
        assert row["low"] <= row["high"]
    assert found["cost"]["trainings"] >= 6
    assert found["differences"][0]["paired"]


def test_few_test_rows_are_added_to_from_training_rows_and_told(advised):
    _, _, found = advised
    assert found["test_rows"] > 26
    assert any("of the training rows are scored here" in note for note in found["notes"])


def test_the_page_stands_alone(advised):
    page = (advised[1] / "report.html").read_text()
    assert "Use the pipeline" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page


def test_it_fits_a_terminal(advised):
    from endwise.advise.words import lines

    for text in lines(advised[2]):
        assert len(text) <= 80


def test_an_advice_is_not_overwritten_and_goes_on_without_training_again(advised):
    recipe, folder, found = advised
    with pytest.raises(RecipeError, match="--resume goes on"):
        ew.advise(recipe, out=folder, target={"mae": 0.2}, **QUICK)
    with pytest.raises(RecipeError, match="which this advice was begun with"):
        ew.advise(recipe, out=folder, target={"mae": 0.3}, resume=True, **QUICK)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("scored.json")}
    again = ew.advise(recipe, out=folder, target={"mae": 0.2}, price_per_label=0.5, resume=True, **QUICK)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("scored.json")} == before
    assert again.advice == found["advice"]
    assert again.to_dict()["curve"] == found["curve"]


def test_it_can_be_interrupted_and_goes_on(tmp_path):
    recipe, once = line(160), {**QUICK, "seeds": 1}

    def stop(event) -> None:
        if event["event"] == "step" and event["step"] >= 5 and len(list(tmp_path.rglob("scored.json"))) >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ew.advise(recipe, out=tmp_path / "out", progress=stop, **once)
    assert not (tmp_path / "out" / "advice.json").exists()
    found = ew.advise(recipe, out=tmp_path / "out", resume=True, **once)
    assert found.advice in ("pipeline", "cannot-tell")
    assert (tmp_path / "out" / "advice.json").exists()


def test_other_rows_are_not_scored_beside_what_was_scored(tmp_path):
    def written(rows: int) -> ew.Recipe:
        columns = line(rows).data.path
        text = "\n".join(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))
        (tmp_path / "line.csv").write_text(",".join(columns) + "\n" + text)
        return line().replace(**{"data.path": str(tmp_path / "line.csv")})

    def stop(event) -> None:
        if str(event.get("message", "")).startswith("1 of"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ew.advise(written(160), out=tmp_path / "out", progress=stop, **QUICK)
    with pytest.raises(EndwiseError, match="begun with"):
        ew.advise(written(161), out=tmp_path / "out", resume=True, **QUICK)


# ---- stages ----------------------------------------------------------------------------------------------------------


def chain(**changes) -> ew.Recipe:
    """A number says a colour, and the colour a number."""
    draw, worth = random.Random(0), {"red": 1.0, "green": 5.0, "blue": 9.0}
    rows = []
    for at in range(200):
        x = draw.uniform(0, 3)
        colour = list(worth)[int(x)]
        rows.append({"x": x, "colour": colour if at % 2 else None, "total": worth[colour] + draw.gauss(0, 0.1)})
    return ew.Recipe(**{
        "name": "chain", "data": rows, "inputs": {"x": "number"}, "outputs": {"total": "number"},
        "stages": {"see": {"from": "x", "to": {"colour": "category"}}, "add": {"from": "colour", "to": "total"}},
        "train": {"size": "tiny", "precision": "fp32", "steps": 12, "batch_size": 16}, **changes,
    })  # fmt: skip


def test_stages_are_a_rival_and_their_own_labels_are_counted(tmp_path):
    asked = {"target": {"mae": 0.001}, "price_per_label": 2.0, "fractions": (0.25, 0.5, 1.0), "seeds": 1}
    found = ew.advise(chain(regime="direct"), out=tmp_path / "out", **asked).to_dict()
    assert next(iter(found["arms"])) == "end-to-end"
    assert set(found["arms"]) == {"end-to-end", "stages", "classical"}
    stages, whole = found["arms"]["stages"], found["arms"]["end-to-end"]
    assert stages["advice"] == "pipeline"
    assert stages["audit"]
    assert not whole["audit"]
    assert whole["labels_per_row"] == 1
    assert 1.4 < stages["labels_per_row"] < 1.6  # half of the rows say their colour
    assert any("answers on the way" in reason for reason in found["reasons"])
    folders = {folder.name for folder in (tmp_path / "out" / "trainings").glob("stages-of-*/*")}
    assert folders == {"see", "add"}
    measured = {row["arm"] for row in found["curve"] if row["measured"]}
    assert measured == set(found["arms"])


def rivals_of(recipe: ew.Recipe) -> dict:
    dataset = prepare(recipe)
    contracts = fit_contracts(recipe, dataset)
    task = arms.settle(recipe, dataset, "total", mae(), contracts, {}, lambda event: None)
    return arms.arms(task)[0]


def test_a_pipeline_that_is_declared_is_the_own_arm_and_one_network_its_rival():
    found = rivals_of(chain(regime="modular"))
    assert list(found) == ["stages", "end-to-end", "classical"]
    assert found["end-to-end"].labels_per_row == 1
    assert found["classical"].simplicity < found["end-to-end"].simplicity < found["stages"].simplicity


def test_stages_in_one_network_are_looked_into_and_are_no_simpler_than_stages():
    found = rivals_of(chain())
    assert found["end-to-end"].audit
    assert found["end-to-end"].labels_per_row == found["stages"].labels_per_row
    assert found["stages"].simplicity < found["end-to-end"].simplicity
    assert found["stages"].cost.step_s == found["end-to-end"].cost.step_s / 2  # it takes the stages that are there


def test_stages_that_one_regime_trained_are_taken_by_the_next(tmp_path):
    recipe = chain()
    whole = fit(recipe, out=tmp_path / "whole", stages_in=tmp_path / "stages")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "stages").rglob("*")}
    apart = fit(recipe.replace(regime="modular"), out=tmp_path / "apart", stages_in=tmp_path / "stages")
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "stages").rglob("*")} == before
    assert len(before) > 2
    assert whole.run is not None
    assert apart.run is not None
    assert not (apart.run.path / "stages").exists()


def test_an_answer_on_the_way_is_no_goal(tmp_path):
    with pytest.raises(RecipeError, match=r"goal\.output"):
        ew.advise(
            chain(goal={"output": "colour", "metric": "accuracy", "direction": "max"}), out=tmp_path / "out", **QUICK
        )


# ---- what is asked wrongly -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"target": {"accuracy": 0.9}}, "target"),
        ({"fractions": (0.5, 1.0)}, "fractions"),
        ({"price_per_label": -1.0}, "price_per_label"),
        ({"needs": ["speed"]}, "--need"),
        ({"weights": {"photo": "hf:nothing"}}, "--weights"),
    ],
)
def test_a_wrong_question_is_refused(options, said, tmp_path):
    with pytest.raises(EndwiseError, match=said):
        ew.advise(line(80), out=tmp_path / "out", **options)


def test_weights_that_are_not_there_are_no_arm(tmp_path):
    recipe = ew.Recipe(data=str(tmp_path / "t.csv"), inputs={"said": "text"}, outputs={"kind": "category"})
    found, notes = with_weights(recipe, {})
    assert found is None or "package:" in found.inputs["said"].pretrained
    assert notes


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_the_verdict(tmp_path, monkeypatch):
    import csv

    recipe = line(120)
    with (tmp_path / "line.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["a", "b", "total"])
        out.writerows(zip(*(recipe.data.path[name] for name in ("a", "b", "total")), strict=True))
    (tmp_path / "recipe.yaml").write_text(
        "data: line.csv\ninputs: {a: number, b: number}\noutputs: {total: number}\n"
        "train: {size: tiny, steps: 20, batch_size: 16, precision: fp32}\n"
    )
    monkeypatch.chdir(tmp_path)
    shown = io.StringIO()
    monkeypatch.setattr(
        "sys.argv",
        ["endwise", "advise", "recipe.yaml", "--json", "--target", "mae=0.2", "--seeds", "1", "--out", "out"],
    )
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        main()
    found = json.loads(shown.getvalue())
    assert found["advice"] in ("pipeline", "cannot-tell")
    assert {"advice", "reasons", "labels_to_target", "curve"} <= set(found)
