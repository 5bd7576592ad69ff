"""A comparison: the rule of the verdict, intervals over seeds, what is trained under which budget, what is measured on it,
and that it goes on where it stopped."""

import contextlib
import csv
import itertools
import json
import math
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import endwise as ew
from endwise import regimes
from endwise.batch import Ragged
from endwise.cli import main
from endwise.compare import _held_out, measure
from endwise.compare.arms import (
    APART,
    ONE,
    PRETRAINED,
    Anew,
    Arm,
    Cost,
    allowed,
    arms_of,
    begun_with,
    fewer_labels,
    only,
)
from endwise.compare.findings import Findings, Kept, substitutions
from endwise.compare.settings import FILE, settle
from endwise.compare.verdict import FEWEST_SEEDS, NONE, PIPELINE, SAME, WINS, best, drifted, judge
from endwise.compare.words import _cut_short, _fusion, notes
from endwise.data.dataset import fit_contracts, prepare
from endwise.errors import DataError, RecipeError
from endwise.metrics import Estimate, accuracy, estimate, mae, pooled, pooled_difference
from endwise.modalities.base import Answer
from endwise.nn.efficientnet import EfficientNetLite
from endwise.plan import resolve_goal
from endwise.recipe import REGIMES, Goal, Recipe
from endwise.report.comparison import _curves, _waterfall, build
from endwise.run import Run
from endwise.stages import StagedNetwork, direct_recipe
from endwise.train import Stopped

SPANS = {"night": (0, 6), "morning": (6, 12), "afternoon": (12, 18), "evening": (18, 24)}
THREE = ("modular_predicted", "warm_joint", "direct")


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """The hour says which part of the day it is, and that whether the shop is open."""
    chance, found = random.Random(seed), []
    for _ in range(count):
        hour, place = chance.uniform(0, 24), chance.choice(["north", "south", "east"])
        part = next(name for name, (first, end) in SPANS.items() if first <= hour < end)
        found.append({"hour": round(hour, 3), "place": place, "part": part, "open": part in ("morning", "afternoon")})
    return found


def table(folder: Path, count: int = 240) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "hours.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["hour", "place", "part", "open"])
        writer.writeheader()
        writer.writerows(rows(count))
    return folder / "hours.csv"


def staged(data: Any, **changes: Any) -> Recipe:
    values: dict[str, Any] = {
        "name": "opening",
        "data": data,
        "inputs": {"hour": "number"},
        "outputs": {"open": "boolean"},
        "stages": {"see": {"from": "hour", "to": {"part": "category"}}, "decide": {"from": "part", "to": "open"}},
        "train": {"size": "tiny", "steps": 4, "batch_size": 32},
    }
    return Recipe(**{**values, **changes})


def flat(data: Any) -> Recipe:
    return Recipe(
        name="flat", data=data, inputs={"hour": "number", "place": "category"},
        outputs={"open": "boolean", "part": "category"}, train={"size": "tiny", "steps": 4, "batch_size": 32},
    )  # fmt: skip


# ---- the rule ----------------------------------------------------------------------------------------------------------

AMOUNTS = st.floats(-2, 2)


@given(AMOUNTS, st.floats(0, 1), st.floats(0, 1), st.integers(1, 6), st.integers(1, 6))
def test_a_win_is_said_where_the_whole_interval_says_so_and_there_are_seeds(
    value: float, under: float, over: float, ours: int, theirs: int
) -> None:
    gain = Estimate(value, value - under, value + over, 99)
    found = judge("warm_joint", "modular", gain, (ours, theirs), "accuracy of x")
    if min(ours, theirs) < FEWEST_SEEDS:
        assert found.words == NONE
    else:
        assert (found.words == WINS) == (gain.low > 0)
        assert (found.words == PIPELINE) == (gain.high < 0)
        assert (found.words == SAME) == (gain.low <= 0 <= gain.high)
        assert found.detectable is not None
        assert found.detectable >= 0


@given(AMOUNTS, st.floats(0, 1))
def test_the_rule_has_no_favourite(value: float, half: float) -> None:
    there = judge("a", "b", Estimate(value, value - half, value + half, 9), (3, 3), "x").words
    back = judge("b", "a", Estimate(-value, -value - half, -value + half, 9), (3, 3), "x").words
    assert {WINS: PIPELINE, PIPELINE: WINS, SAME: SAME}[there] == back


def test_no_interval_is_no_verdict_and_one_seed_is_named() -> None:
    assert judge("a", "b", Estimate(1.0, math.nan, math.nan, 1), (3, 3), "x").words == NONE
    assert "1 seed of a" in judge("a", "b", Estimate(1.0, 0.5, 1.5, 9), (1, 3), "x").because


def test_the_best_is_the_best_by_the_metric() -> None:
    assert best({"a": 1.0, "b": 2.0, "c": math.nan}, "max") == "b"
    assert best({"a": 1.0, "b": 2.0, "c": math.nan}, "min") == "a"
    assert best({"a": math.nan}, "max") is None


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0.1, 1))
def test_an_answer_that_is_not_worse_has_not_drifted(worse: float, half: float, apart: float) -> None:
    found = drifted(Estimate(worse, worse - half, worse + half, 50), apart, 0.0)
    assert not found or worse - half > 0
    assert drifted(Estimate(apart, apart / 2, apart, 50), apart, 0.0)  # all that was known is lost


def test_a_small_loss_of_what_is_known_is_no_drift() -> None:
    assert not drifted(Estimate(0.05, 0.01, 0.09, 50), 0.95, 0.25)
    assert drifted(Estimate(0.5, 0.4, 0.6, 50), 0.95, 0.25)


def test_answers_on_the_way_are_replaced_one_more_at_a_time_and_alone() -> None:
    assert substitutions(["a", "b", "c"]) == [("a",), ("a", "b"), ("a", "b", "c"), ("b",), ("c",)]


# ---- intervals over rows and seeds ---------------------------------------------------------------------------------------


def runs_of(*right: np.ndarray) -> list[np.ndarray]:
    """What `accuracy` keeps of trainings that got these rows right."""
    return [accuracy().rows(["a"] * len(one), [Answer("a" if hit else "b") for hit in one]) for one in right]


def test_trainings_that_agree_have_the_interval_of_the_rows() -> None:
    hits = np.arange(200) % 4 > 0
    found = pooled(accuracy(), runs_of(hits, hits, hits))
    alone = estimate(accuracy(), ["a"] * 200, [Answer("a" if hit else "b") for hit in hits])
    assert found.value == alone.value == 0.75
    assert abs(found.low - alone.low) < 0.02
    assert abs(found.high - alone.high) < 0.02


def test_trainings_that_disagree_are_less_sure() -> None:
    chance = np.random.default_rng(0)
    alike, apart = ([chance.random(400) < share for share in shares] for shares in ((0.7, 0.7, 0.7), (0.5, 0.7, 0.9)))
    first, second = pooled(accuracy(), runs_of(*alike)), pooled(accuracy(), runs_of(*apart))
    assert second.high - second.low > 2 * (first.high - first.low)
    assert 0 <= second.low < second.value < second.high <= 1


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_a_difference_turned_round_is_its_own_negative(ours: int, theirs: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    first, second = (runs_of(*[chance.random(40) < 0.6 for _ in range(count)]) for count in (ours, theirs))
    there, back = (pooled_difference(accuracy(), *pair, resamples=200) for pair in ((first, second), (second, first)))
    assert there.value == pytest.approx(-back.value)
    assert there.low <= there.value <= there.high
    assert pooled_difference(accuracy(), first, first, resamples=50).value == 0


def test_what_is_asked_of_one_training_twice_is_compared_within_it() -> None:
    """Each training gains as much, however far apart they are."""
    chance = np.random.default_rng(0)
    order = [chance.permutation(400) for _ in range(3)]
    before, after = (
        runs_of(*[place < 400 * (share + more) for place, share in zip(order, (0.3, 0.5, 0.8), strict=True)])
        for more in (0.0, 0.1)
    )
    within = pooled_difference(accuracy(), after, before, same_trainings=True)
    apart = pooled_difference(accuracy(), after, before)
    assert within.value == pytest.approx(0.1)
    assert within.low > 0.05
    assert apart.low < 0


def test_the_interval_covers_the_truth_when_seeds_vary() -> None:
    """Trainings whose errors have a part of the rows and a part of the seed: 95 % intervals of three of them."""
    chance, covered, times = np.random.default_rng(0), 0, 150
    for number in range(times):
        hard = chance.normal(size=60)
        runs = [
            mae().rows([0.0] * 60, [Answer(float(x)) for x in abs(5 + hard + chance.normal() * 0.3)]) for _ in range(3)
        ]
        found = pooled(mae(), runs, resamples=200, seed=number)
        covered += found.low <= 5 <= found.high
    assert covered / times >= 0.9


def test_nothing_wrong_in_any_training_still_leaves_room() -> None:
    found = pooled(accuracy(), runs_of(*[np.ones(30, bool)] * 3))
    assert found.value == 1
    assert found.low < 0.95


# ---- what is trained -----------------------------------------------------------------------------------------------------


def asked(recipe: Recipe, place: Path, **changes: Any) -> Any:
    usual = {"regimes": None, "seeds": None, "quick": False, "budget": None, "shares": None, "shift": None, "inputs": False,
             "pretrained": None, "retarget": None, "resume": False}  # fmt: skip
    return settle(recipe, place, **{**usual, **changes})


def test_every_regime_has_the_same_number_of_steps(tmp_path: Path) -> None:
    recipe = staged(rows(60)).replace(**{"train.steps": 40})
    dataset = prepare(recipe)
    found = arms_of(
        recipe, REGIMES, 60, fit_contracts(recipe, dataset), seeds=2, shares=(0.1,), curve_seeds=1, budget=None
    )
    steps = {arm.name: arm.parts[""].train.steps for arm in found}
    assert steps == {
        "modular": 40,
        "modular_predicted": 20,
        "warm_joint": 20,
        "joint": 40,
        "joint_goal_only": 40,
        "direct": 40,
    }
    assert [arm.share for arm in found] == [1.0] * 12 + [0.1] * 6
    assert len({arm.folder for arm in found}) == len(found)


def test_what_is_known_beforehand_is_known_to_all() -> None:
    """One network for each output has the priors of its own fields; a network without an input none that names it."""
    known = [
        {"type": "range", "name": "day", "of": "until", "low": 0, "high": 24},
        {"type": "monotone", "of": "until", "along": "hour", "direction": "down"},
    ]
    recipe = Recipe(
        data=[{**row, "until": 24 - row["hour"]} for row in rows(40)], inputs={"hour": "number", "place": "category"},
        outputs={"until": "number", "open": "boolean"}, objective={"priors": known}, train={"steps": 4},
    )  # fmt: skip
    parts = arms_of(recipe, [APART], 30, {}, seeds=1, shares=(), curve_seeds=1, budget=None)[0].parts
    assert [item.term for item in parts["until"].objective.priors] == ["prior.day", "prior.monotone"]
    assert parts["open"].objective.priors == ()
    assert [item.term for item in only(recipe, ("place",)).objective.priors] == ["prior.day"]


@given(st.integers(1, 5), st.floats(300, 5000), st.booleans())
def test_a_budget_is_shared_out(seeds: int, budget: float, quick: bool) -> None:
    recipe = staged([{"hour": 1.0, "part": "night", "open": False}])
    found = asked(recipe, Path("nowhere"), seeds=seeds, budget=budget, quick=quick)
    trainings = len(found.regimes) - 0.5  # the stages that two of them begin with are trained once
    full = trainings * found.seeds
    fewer = sum(trainings * found.curve_seeds * (allowed(found.each, share) or 0) for share in found.shares)
    assert full * found.each + fewer == pytest.approx(0.85 * budget)


def test_a_budget_that_leaves_a_training_no_second_is_refused() -> None:
    recipe = staged([{"hour": 1.0, "part": "night", "open": False}])
    with pytest.raises(RecipeError, match=r"budget = .*3s, of which the shortest .* at least \d+s for so many"):
        asked(recipe, Path("nowhere"), budget="3s")
    with pytest.raises(RecipeError, match="a duration above 0"):
        asked(recipe, Path("nowhere"), budget="soon")


@pytest.mark.parametrize("trunk", [{}, {"depth": 1}])
def test_one_network_without_stages_is_as_large_as_the_stages_whoever_says_how_deep_they_are(
    trunk: dict[str, int],
) -> None:
    stages = {"see": {"from": "note", "to": {"part": "category"}}, "decide": {"from": ["part", "note"], "to": "open"}}
    shown = [{**row, "note": f"it is {row['hour']}"} for row in rows(40)]
    recipe = staged(shown, inputs={"note": "text"}, stages=stages, trunk=trunk)
    dataset = prepare(recipe)
    contracts = fit_contracts(recipe, dataset)

    def numbers(one: Recipe) -> int:
        return ew.Model.build(one, {name: contracts[name] for name in (*one.inputs, *one.outputs)}, seed=0).parameters

    whole, shallow, one = map(numbers, (recipe, direct_recipe(recipe), regimes.direct(recipe, dataset)))
    assert shallow < 0.6 * whole
    assert abs(one - whole) < 0.1 * whole


def test_where_no_depth_makes_it_as_large_both_sizes_are_said(tmp_path: Path) -> None:
    recipe = staged(rows(60))
    dataset = prepare(recipe)
    contracts, none = fit_contracts(recipe, dataset), np.zeros(0, np.int64)
    bench = measure.Bench(recipe, dataset, contracts, resolve_goal(recipe, contracts), dataset.splits.test, none, none)

    def told(one: int, whole: int, rival: str = "joint") -> list[str]:
        kept = [Kept(Arm(name, 0, 1.0, {}), Cost(done=True, parameters=count))
                for name, count in (("direct", one), (rival, whole))]  # fmt: skip
        return [
            note for note in notes(Findings(bench, kept, {}), asked(recipe, tmp_path), None) if "parameters" in note
        ]

    (said,) = told(5_500, 7_100)
    assert "5,500" in said and "7,100" in said
    assert len(told(7_900, 7_100, "modular")) == 1
    assert told(6_500, 7_100) == told(7_700, 7_100) == []
    assert told(10, 7_100, PRETRAINED) == []  # there are no stages to be unlike


def test_trainings_without_time_for_their_rows_are_told(tmp_path: Path) -> None:
    recipe = staged(rows(60))
    dataset = prepare(recipe)
    contracts, none = fit_contracts(recipe, dataset), np.zeros(0, np.int64)
    bench = measure.Bench(recipe, dataset, contracts, resolve_goal(recipe, contracts), dataset.splits.test, none, none)
    kept = [Kept(Arm("joint", 0, share, {}), Cost(done=True, passes=passes))
            for share, passes in ((1.0, 12.0), (0.3, 1.0), (0.1, 0.4), (0.1, None))]  # fmt: skip
    (said,) = _cut_short(Findings(bench, kept, {}))
    assert said.startswith("1 of 4 trainings (on 10% of the labels) had no time")
    assert list(_cut_short(Findings(bench, kept[:2], {}))) == []


def test_fewer_labels_lie_inside_more_of_them() -> None:
    dataset = prepare(staged(rows(200)))
    few, more = (fewer_labels(dataset, share, 3) for share in (0.1, 0.3))
    assert set(few.splits.train) < set(more.splits.train) < set(dataset.splits.train)
    assert abs(len(few.splits.train) - 0.1 * len(dataset.splits.train)) <= 1
    assert np.array_equal(few.splits.test, dataset.splits.test)
    assert fewer_labels(dataset, 1.0, 3) is dataset


def test_a_held_out_group_is_in_no_side() -> None:
    dataset = prepare(staged(rows(200)))
    left, gone, told = _held_out(dataset, "place=north", 0)
    assert "north" in told
    assert set(dataset.cells("place", gone)) == {"north"}
    sides = np.concatenate([left.splits.train, left.splits.val, left.splits.test])
    assert "north" not in dataset.cells("place", sides)
    assert len(sides) + len(gone) == 200
    some, gone, _ = _held_out(dataset, "place", 0)
    assert len(set(dataset.cells("place", gone))) < 3
    assert len(some.splits.train) > 0
    with pytest.raises(DataError, match="north"):
        _held_out(dataset, "place=nrth", 0)
    with pytest.raises(DataError, match="plce"):
        _held_out(dataset, "plce", 0)


def test_what_cannot_be_asked_for_is_refused_with_the_fix(tmp_path: Path) -> None:
    recipe, plain = staged(rows(9)), flat(rows(9))
    for wrong, said in (
        ({"regimes": ["modulr"]}, "modular"), ({"regimes": []}, "at least one"), ({"shares": [1.5]}, "between 0 and 1"),
        ({"inputs": True}, "2 to"), ({"seeds": 0}, "at least 1"),
    ):  # fmt: skip
        with pytest.raises(RecipeError, match=said):
            asked(recipe, tmp_path, **wrong)
    with pytest.raises(RecipeError, match=ONE):
        asked(plain, tmp_path, regimes=["modular"])
    with pytest.raises(RecipeError, match="no answers on the way"):
        asked(staged(rows(9), goal={"output": "part", "metric": "accuracy", "direction": "max"}), tmp_path)
    assert asked(plain, tmp_path, inputs=True).inputs == (("hour",), ("place",), ("hour", "place"))


def test_what_was_asked_for_is_asked_for_again(tmp_path: Path) -> None:
    recipe = staged(rows(9))
    first = asked(recipe, tmp_path, quick=True, budget="30m", shift="place")
    (tmp_path / FILE).write_text(json.dumps(first.to_dict()))
    assert asked(recipe, tmp_path, resume=True) == first
    more = asked(recipe, tmp_path, resume=True, seeds=5)
    assert (more.seeds, more.each) == (5, first.each)
    for wrong in ({"budget": "5m"}, {"shift": "hour"}):
        with pytest.raises(RecipeError, match="begun with"):
            asked(recipe, tmp_path, resume=True, **wrong)


# ---- noise ---------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 7), st.floats(0, 1), st.integers(0, 9))
def test_noise_on_symbols_brings_in_what_was_said_and_nothing_else(
    count: int, longest: int, share: float, seed: int
) -> None:
    chance = torch.Generator().manual_seed(seed)
    sizes = torch.randint(0, longest + 1, (count, 1), generator=chance)
    values = torch.randint(1, 9, (count, longest), generator=chance)
    real = torch.arange(longest) < sizes
    values[~real] = 0  # padding is never said
    found = measure._other_symbols(Ragged(values, sizes), share, chance).values
    assert set(found[real].tolist()) <= set(values[real].tolist())
    assert share > 0 or torch.equal(found, values)


def test_noise_on_numbers_is_in_the_deviations_of_each_and_padding_counts_for_nothing() -> None:
    """Boxes: a class of 0 or 1 beside corners of hundreds of pixels must not be drowned in the corners' noise."""
    chance = torch.Generator().manual_seed(0)
    sizes = torch.full((64, 1), 20)
    kinds, corners = torch.randint(0, 2, (64, 40, 1)).float(), 200 * torch.rand(64, 40, 4)
    values = torch.cat([kinds, corners], dim=2)
    values[:, 20:] = 1e6  # behind the ends
    moved = (measure._noisy(Ragged(values, sizes), 0.1, chance).values - values)[:, :20].std((0, 1))
    torch.testing.assert_close(moved, 0.1 * values[:, :20].std((0, 1)), rtol=0.1, atol=0)
    whole = measure._noisy(Ragged(torch.zeros(3, 0, 5), torch.zeros(3, 1, dtype=torch.long)), 0.1, chance)
    assert whole.values.shape == (3, 0, 5)


def test_a_quarter_is_put_out_where_it_ranks_highest_and_padding_stays() -> None:
    sizes = torch.tensor([[32], [16]])
    values = torch.arange(1.0, 65.0).reshape(2, 32)
    values[1, 16:] = 0
    found = measure._put_out(Ragged(values, sizes), torch.arange(16.0).expand(2, 16)).values
    changed = (found != values).nonzero().tolist()
    assert changed == [[0, place] for place in range(24, 32)] + [[1, place] for place in range(12, 16)]
    assert found[0, 31] == values[0].mean()
    assert found[1, 15] == values[1, :16].mean()


def test_what_an_answer_leans_on_is_found_and_is_worse_to_lose(tmp_path: Path) -> None:
    """One line of an image decides; a network that has learnt it is faithful."""
    chance, shown = np.random.default_rng(0), []
    for _ in range(240):
        red = bool(chance.random() < 0.5)
        picture = chance.integers(0, 90, (16, 16, 3)).astype(np.uint8)
        picture[4:8, :, 0 if red else 2] += 120
        shown.append({"picture": picture, "red": red})
    recipe = Recipe(data=shown, inputs={"picture": {"type": "image", "side_px": 16}}, outputs={"red": "boolean"},
                    train={"size": "tiny", "steps": 30, "batch_size": 32, "augment": False})  # fmt: skip
    dataset = prepare(recipe)
    contracts = fit_contracts(recipe, dataset)
    goal = resolve_goal(recipe, contracts)
    bench = measure.Bench(
        recipe, dataset, contracts, goal, dataset.splits.test, dataset.splits.val, np.zeros(0, np.int64)
    )
    model = ew.fit(recipe, out=tmp_path / "run", dataset=dataset)
    ranks = measure._leaned_on(model, next(measure._batches(model, dataset, bench.test)).to("cpu"), "red")["picture"]
    assert ((ranks.argmax(1) >= 4) & (ranks.argmax(1) < 8)).double().mean() > 0.8
    kept = measure.faithfulness(model, bench)
    lost, chance_lost = (measure.value_of(bench.metrics["red"], kept[what], None) for what in ("leaned_on", "chance"))
    assert lost < chance_lost


def test_what_cannot_be_chosen_is_told_from_what_was_not_finished() -> None:
    """Without a label of the goal on the validation rows there is nothing to choose among regimes by."""
    recipe = staged(rows(60))
    dataset = prepare(recipe)
    contracts, none = fit_contracts(recipe, dataset), np.zeros(0, np.int64)
    bench = measure.Bench(recipe, dataset, contracts, resolve_goal(recipe, contracts), dataset.splits.test, none, none)
    kept = [Kept(Arm(name, 0, 1.0, {}), Cost(done=True)) for name in ("modular", "joint", "direct")]
    assert "validation rows do not define auroc of open" in Findings(bench, kept, {}).verdict().because
    failed = [Kept(Arm("joint", 0, 1.0, {}), Cost(failed="diverged", done=True)), kept[0]]
    assert "no end-to-end regime with all" in Findings(bench, failed, {}).verdict().because


# ---- the whole of it -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A comparison that knows three regimes, with files to go on with."""
    folder = tmp_path_factory.mktemp("compare")
    recipe = staged(str(table(folder)))
    return folder / "run", ew.compare(recipe, out=folder / "run", regimes=THREE, shares=())


def test_a_comparison_gives_the_documented_json(compared: tuple[Path, Any]) -> None:
    place, result = compared
    found = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert found["goal"] == "auroc of open"
    assert list(found["regimes"]) == list(THREE)
    for item in found["regimes"].values():
        assert item["low"] <= item["value"] <= item["high"]
        assert item["value"] == pytest.approx(sum(item["seeds"]) / 3)
        assert item["n"] == found["rows"]["test"]
    assert found["verdict"] in (WINS, PIPELINE, SAME)
    assert {"trivial", "classical"} == set(found["baselines"]["open"])
    assert set(found["attribution"]) == {"modular_predicted", "warm_joint"}
    for item in found["attribution"].values():
        assert [step["replaced"] for step in item["oracle"]] == [["part"]]
        assert [point["share"] for point in item["noise"]["part"]] == [0.0, *measure.NOISE_SHARES]
    assert set(found["intermediates"]["part"]["regimes"]) == {"modular_predicted", "warm_joint"}
    assert found["reach"]["modular_predicted"]["see"] == 0  # decoded and read again: cut
    assert found["reach"]["warm_joint"]["see"] > 0
    assert [row["aspect"] for row in found["table"]] == [
        "information flow", "optimisation", "error propagation", "data efficiency", "explainability", "latency", "performance",
        "flexibility", "training difficulty",
    ]  # fmt: skip
    assert [row["aspect"] for row in found["table"] if not row["regimes"]] == ["data efficiency"]
    assert found["costs"]["warm_joint"]["trained_parts"] == 3
    assert found["costs"]["direct"]["trained_parts"] == 1
    for cost in found["costs"].values():
        assert 0 < cost["p50_ms"] <= cost["p95_ms"]
        assert 0 < cost["seconds"] < 60 * cost["minutes_to_answer"]
        assert 30 <= cost["timed_answers"] <= 200  # of two dozen rows
    assert json.loads((place / "comparison.json").read_text())["verdict"] == found["verdict"]


def test_what_is_printed_fits_a_terminal(compared: tuple[Path, Any]) -> None:
    lines = str(compared[1]).splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("  warm_joint") for line in lines)


def test_the_report_is_one_file(compared: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    build(compared[0]).unlink()
    with contextlib.suppress(SystemExit):
        monkeypatch.setattr("sys.argv", ["endwise", "report", str(compared[0])])
        main()
    page = (compared[0] / "report.html").read_text()
    assert "<script" not in page
    assert "http://" not in page and "https://" not in page
    for heading in (
        "Side by side",
        "The answers on the way",
        "Where the errors come from",
        "On other rows",
        "The table",
    ):
        assert heading in page
    assert compared[1].verdict.capitalize() in page


def test_the_stages_that_two_regimes_begin_with_are_trained_once_and_paid_by_both(compared: tuple[Path, Any]) -> None:
    place, _ = compared
    for seed in range(3):
        assert {path.name for path in place.glob(f"stages-seed{seed}-100/*") if path.is_dir()} == {"see", "decide"}
        stages, first, second = (
            json.loads((place / "measured" / f"{name}-seed{seed}-100.cost.json").read_text())["seconds"]
            for name in ("stages", "modular_predicted", "warm_joint")
        )
        assert min(first, second) > stages > 0


def test_it_goes_on_without_training_anything_twice(compared: tuple[Path, Any], capsys: pytest.CaptureFixture[str],
                                                    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    place, first = compared
    before = {path: path.stat().st_mtime_ns for path in place.glob("*/log.jsonl")}
    assert len(before) == 9
    arguments = ["endwise", "compare", str(place / "recipe.yaml"), "--out", str(place), "--resume", "--json"]
    monkeypatch.setattr("sys.argv", [*arguments, "--quick", "--shares", "0.3"])
    with contextlib.suppress(SystemExit):
        main()
    found = json.loads(capsys.readouterr().out)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert found["regimes"] == first.to_dict()["regimes"]
    assert len(list(place.glob("*/log.jsonl"))) == 12
    assert [point["share"] for point in found["curves"]["direct"]] == [0.3, 1.0]
    simple = found["curves"]["classical"]  # learnt from the same parts
    assert [point["share"] for point in simple] == [0.3, 1.0]
    beside = found["baselines"][found["about"]["output"]]["classical"]
    assert {key: simple[1][key] for key in ("value", "low", "high")} == {
        key: beside[key] for key in ("value", "low", "high")
    }


def test_another_recipe_and_a_taken_folder_are_refused(compared: tuple[Path, Any]) -> None:
    place, _ = compared
    recipe = Run.open(place).recipe
    with pytest.raises(RecipeError, match=r"train\.steps"):
        ew.compare(recipe.replace(**{"train.steps": 5}), out=place, resume=True)
    with pytest.raises(RecipeError, match="--resume"):
        ew.compare(recipe, out=place)


def test_after_a_stop_it_goes_on_with_what_was_asked_for(tmp_path: Path) -> None:
    recipe, place = staged(str(table(tmp_path, 120))), tmp_path / "run"

    def stop(event: Any) -> None:
        if "direct" in str(event.get("message")):
            raise KeyboardInterrupt

    with pytest.raises(Stopped, match="--resume") as stopped:
        ew.compare(recipe, out=place, regimes=["joint", "direct"], seeds=1, shares=(), progress=stop)
    assert stopped.value.exit_code == 130
    log = (place / "joint-seed0-100" / "log.jsonl").read_bytes()
    found = ew.compare(recipe, out=place, resume=True).to_dict()
    assert list(found["regimes"]) == ["joint", "direct"]
    assert found["verdict"] == NONE
    assert (place / "joint-seed0-100" / "log.jsonl").read_bytes() == log
    table(tmp_path, 121)
    with pytest.raises(DataError, match="begun with"):
        ew.compare(recipe, out=place, resume=True)


def test_without_stages_one_network_stands_beside_one_for_each_output(tmp_path: Path) -> None:
    found = ew.compare(flat(rows(120)), out=tmp_path / "run", seeds=1, shares=(), inputs=True).to_dict()
    assert list(found["regimes"]) == [ONE, APART]
    assert found["verdict"] == NONE
    assert "no pipeline was declared" in found["against"]["because"]
    assert set(found["inputs"]) == {"hour", "place", "hour+place"}
    assert (found["fusion"]["all"], found["fusion"]["one"]["words"]) == ("hour+place", NONE)
    assert found["fusion"]["said"] in found["considerations"]
    assert found["costs"][APART]["artefacts"] == 2
    assert found["attribution"] == {}


def test_whether_one_input_is_enough_is_told_by_a_paired_difference() -> None:
    """The best single one, and the best of fewer, are chosen by the validation rows."""
    shown = [{**row, "length": row["hour"]} for row in rows(300)]
    recipe = Recipe(
        data=shown, inputs={"hour": "number", "length": "number", "place": "category"}, outputs={"open": "boolean"},
        goal={"output": "open", "metric": "accuracy", "direction": "max"},
    )  # fmt: skip
    dataset = prepare(recipe)
    contracts, none = fit_contracts(recipe, dataset), np.zeros(0, np.int64)
    bench = measure.Bench(
        recipe, dataset, contracts, resolve_goal(recipe, contracts), dataset.splits.train, dataset.splits.val, none
    )
    names = ("hour", "length", "place")

    def fused(right: dict[tuple[str, ...], float], seeds: int = 3, val: bool = True) -> dict[str, Any]:
        chance, kept = np.random.default_rng(0), []
        sides = {"test/open": bench.test, **({"val": bench.val} if val else {})}
        for size in (1, 2, 3):
            for own, seed in itertools.product(itertools.combinations(names, size), range(seeds)):
                share = right.get(own, 0.5)
                hits = {key: runs_of(chance.random(len(rows)) < share)[0] for key, rows in sides.items()}
                kept.append(Kept(Arm("inputs-" + "+".join(own), seed, 1.0, {}, own), Cost(done=True), hits))
        return _fusion(Findings(bench, kept, {}))

    pays = fused({names: 0.97, ("length",): 0.7, ("hour", "place"): 0.8})
    assert (pays["all"], pays["one"]["inputs"], pays["fewer"]["inputs"]) == (
        "hour+length+place",
        "length",
        "hour+place",
    )
    assert pays["one"]["gain"]["low"] > 0
    assert pays["said"].count("fusion pays") == 2
    enough = fused({names: 0.8, ("length",): 0.8})
    assert enough["said"].startswith("length alone is enough, as far as is seen")
    assert "a difference of" in enough["said"]
    worse = fused({names: 0.6, ("length",): 0.9})
    assert worse["one"]["gain"]["high"] < 0
    assert worse["said"].startswith("length alone is better")
    superfluous = fused({names: 0.95, ("length",): 0.7, ("hour", "place"): 0.95})
    assert "fusion pays: hour+length+place together are better than length alone" in superfluous["said"]
    assert "hour+place alone is enough" in superfluous["said"]
    assert "not told: 1 seed" in fused({}, seeds=1)["said"]
    assert "cannot be chosen" in fused({}, val=False)["said"]


def test_an_answer_that_is_worse_together_than_alone_is_named(tmp_path: Path) -> None:
    """One of two answers weighs so much that the other learns nothing beside it."""
    outputs = {"until": "number", "place": {"type": "category", "loss_weight": 1e12}}
    recipe = Recipe(
        name="flat", data=[{**row, "until": 24 - row["hour"]} for row in rows(200)], inputs={"hour": "number"},
        outputs=outputs, train={"size": "tiny", "steps": 120, "batch_size": 32, "learning_rate": 3e-3, "ema": False},
        goal={"output": "place", "metric": "accuracy", "direction": "max"},
    )  # fmt: skip
    place = tmp_path / "run"
    found = ew.compare(recipe, out=place, seeds=1, shares=()).to_dict()
    assert found["together"]["outputs"]["until"]["alarm"] is None
    assert "1 seed of the 3" in found["together"]["said"][0]
    found = json.loads(json.dumps(ew.compare(recipe, out=place, seeds=3, resume=True).to_dict(), allow_nan=False))
    both = found["together"]["outputs"]
    assert list(both) == ["until", "place"]
    assert both["until"]["together"]["low"] > both["until"]["alone"]["high"]
    assert both["until"]["alarm"]["name"] == "worse_than_alone"
    assert both["until"]["gain"]["high"] < 0
    assert (both["place"]["alarm"], both["place"]["seeds"]) == (None, 3)
    (said,) = found["together"]["said"]
    assert said.startswith("until is worse together than alone")
    assert said in found["considerations"]
    page = (place / "report.html").read_text()
    assert "until is worse together than alone" in page.partition(">Each answer, together and alone</h2>")[2]


def sided(test: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows to learn from, and these to judge on."""
    own = [{**row, "split": "train" if place % 5 else "val"} for place, row in enumerate(rows(80))]
    return own + [{**row, "split": "test"} for row in test]


def test_test_rows_that_define_no_ranking_are_told_and_no_crash(tmp_path: Path) -> None:
    """After hours of training: one row to judge on, of one class."""
    result = ew.compare(
        staged(sided(rows(1))), out=tmp_path / "run", regimes=["modular", "direct"], seeds=1, shares=(0.3,)
    )
    found = result.to_dict()
    assert found["verdict"] == NONE
    assert found["regimes"]["direct"]["value"] is None
    assert "undefined" in str(result)
    assert not any("baseline" in said for said in found["considerations"])
    assert "not defined" in (tmp_path / "run" / "report.html").read_text()


def test_a_goal_that_a_function_answers_has_no_gradient_to_measure(tmp_path: Path) -> None:
    def decide(answers: dict[str, Any]) -> bool:
        return answers["part"] in ("morning", "afternoon")

    stages = {
        "see": {"from": "hour", "to": {"part": "category"}},
        "decide": {"from": "part", "to": "open", "by": decide},
    }
    recipe = staged(sided(rows(30)), stages=stages, regime="modular")
    found = ew.compare(recipe, out=tmp_path / "run", regimes=["modular", "direct"], seeds=1, shares=()).to_dict()
    assert set(found["reach"]["modular"].values()) == {0.0}
    assert found["reach"]["direct"]["network"] > 0
    (tmp_path / "run" / "measured" / "modular-seed0-100.json").unlink()  # stopped before it was measured
    again = ew.compare(recipe, out=tmp_path / "run", resume=True).to_dict()
    assert again["regimes"] == found["regimes"]


def test_what_each_stage_loses_is_drawn_from_as_it_is_to_all_true() -> None:
    """A bar a stage, of the length of what it adds; of an error, what is better goes to the left and is still a gain."""

    def at(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.02, "high": value + 0.02, "n": 50}

    def page(direction: str, plain: float, first: float, both: float) -> str:
        steps = [{"replaced": own, "value": at(value), "gain": at(abs(value - plain))}
                 for own, value in ((["words"], first), (["words", "sense"], both), (["sense"], first))]  # fmt: skip
        noise = {name: [{"share": 0.0, **at(plain)}] for name in ("words", "sense")}
        return _waterfall({
            "attribution": {"joint": {"oracle": steps, "noise": noise}}, "about": {"metric": "m", "direction": direction},
            "stages": {"hear": {"from": ["sound"], "to": ["words"]}, "read": {"from": ["words"], "to": ["sense", "mood"]}},
            "goal": "m of answer",
        }, "joint")  # fmt: skip

    for direction, values in (("max", (0.5, 0.6, 0.9)), ("min", (0.9, 0.8, 0.5))):
        drawn = page(direction, *values)
        assert [said for said in ("as it is", "hear: words true", "read: sense true", "all true") if f">{said}<" in drawn] == [
            "as it is", "hear: words true", "read: sense true", "all true",
        ]  # fmt: skip
        assert ">+0.1<" in drawn and ">+0.3<" in drawn
        widths = [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', drawn)]
        assert widths[1] == pytest.approx(3 * widths[0], rel=0.01)
        assert drawn.count("var(--series-2)") == 2  # both are gains
    lost = page("max", 0.6, 0.5, 0.9)
    assert ">-0.1<" in lost and "var(--series-1)" in lost


def test_a_curve_with_a_hole_keeps_its_columns() -> None:
    """A training on few labels that came to nothing: what was reached with more does not stand in its place."""
    point = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9, "seeds": [0.5], "rows": 10}
    curves = {
        "a": [{**point, "share": 0.3}, {**point, "share": 1.0}],
        "b": [{**point, "share": share} for share in (0.1, 0.3, 1.0)],
    }
    about = {"metric": "accuracy", "direction": "max"}
    page = _curves({"goal": "g", "about": about, "against": {"pipeline": "a", "end_to_end": "b"}, "curves": curves})
    assert "<th class=number>10%</th><th class=number>30%</th><th class=number>100%</th>" in page
    assert "<td>a</td><td class=number>—</td>" in page


# ---- weights from elsewhere ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Random weights in the layout of real ones."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    state = EfficientNetLite("tf_efficientnet_lite0").state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors")
    scale = {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.5, 0.5], "input_size": [3, 32, 32]}
    (folder / "config.json").write_text(json.dumps({"architecture": "tf_efficientnet_lite0", "pretrained_cfg": scale}))
    return f"timm:{folder}"


def pictured(count: int = 48, **changes: Any) -> Recipe:
    """A picture says which colour it has, and that whether to stop."""
    chance, shown = np.random.default_rng(0), []
    for _ in range(count):
        red = bool(chance.random() < 0.5)
        picture = chance.integers(0, 90, (16, 16, 3)).astype(np.uint8)
        picture[..., 0 if red else 2] += 120
        shown.append(
            {
                "picture": picture,
                "colour": "red" if red else "blue",
                "stop": red,
                "light": float(picture.mean()),
                "place": "x" if red else "y",
            }
        )
    values: dict[str, Any] = {
        "name": "signal", "data": shown,
        "inputs": {"picture": {"type": "image", "side_px": 16}, "place": "category"},
        "outputs": {"stop": "boolean"},
        "stages": {"see": {"from": "picture", "to": {"colour": "category"}}, "act": {"from": ["colour", "place"], "to": "stop"}},
        "goal": {"output": "stop", "metric": "accuracy", "direction": "max"},  # which a few validation rows define
        "train": {"size": "tiny", "steps": 2, "batch_size": 64, "precision": "fp32"},
    }  # fmt: skip
    return Recipe(**{**values, **changes})


def test_weights_from_elsewhere_stand_beside_the_regimes_and_have_no_say_in_the_verdict(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, place = pictured(), tmp_path / "run"
    first = ew.compare(recipe, out=place, regimes=["joint"], seeds=1, shares=(0.5,)).to_dict()
    monkeypatch.chdir(Path(weights.removeprefix("timm:")).parent)  # as seen from where it is said
    relative = f"timm:{Path(weights).name}"
    ew.compare(recipe, out=place, resume=True, pretrained={"picture": relative})
    found = ew.compare(recipe, out=place, resume=True).to_dict()
    assert list(found["regimes"]) == list(found["costs"]) == ["joint", PRETRAINED]
    assert list(found["curves"]) == ["joint", PRETRAINED, "classical"]
    assert found["settings"]["pretrained"] == {"picture": weights}
    for same in ("against", "verdict"):
        assert found[same] == first[same]
    assert {name: found["regimes"][name] for name in first["regimes"]} == first["regimes"]
    child = Run.open(place / f"{PRETRAINED}-seed0-100").recipe
    assert (child.inputs["picture"].pretrained, child.inputs["picture"].fine_tune) == (weights, None)  # type: ignore[attr-defined]
    assert (child.stages, child.train.steps) == ({}, recipe.train.steps)
    assert found["pretrained"]["weights"] == {"picture": weights}
    assert found["pretrained"]["against"] == "joint"
    assert any(said.startswith("pretrained is not told from the regimes: 1 seed") for said in found["considerations"])
    assert PRETRAINED in (place / "report.html").read_text()


def test_weights_are_better_than_the_best_regime_where_the_paired_interval_says_so() -> None:
    """The regimes are held against their best by the validation rows."""
    recipe = staged(rows(300))
    dataset = prepare(recipe)
    contracts, goal = fit_contracts(recipe, dataset), {"output": "open", "metric": "accuracy", "direction": "max"}
    recipe = recipe.replace(goal=goal)
    bench = measure.Bench(recipe, dataset, contracts, resolve_goal(recipe, contracts), dataset.splits.train, dataset.splits.val,
                          np.zeros(0, np.int64))  # fmt: skip
    chance = np.random.default_rng(0)

    def kept(name: str, seed: int, share: float) -> Kept:
        right = {key: chance.random(len(rows)) < share for key, rows in (("test/open", bench.test), ("val", bench.val))}
        return Kept(Arm(name, seed, 1.0, {}), Cost(done=True), {key: runs_of(hits)[0] for key, hits in right.items()})

    for share, words in ((0.95, WINS), (0.5, PIPELINE), (0.8, SAME)):
        every = [
            kept(name, seed, own)
            for name, own in (("modular", 0.5), ("joint", 0.8), (PRETRAINED, share))
            for seed in range(3)
        ]
        found = Findings(bench, every, {})
        verdict = found.pretrained()
        assert verdict is not None
        assert (verdict.words, verdict.pipeline) == (words, "joint")
        assert found.verdict().end_to_end == "joint"


def test_weights_that_cannot_be_begun_with_are_refused_before_there_is_a_folder(weights: str, tmp_path: Path) -> None:
    for named, said in (
        ({"pictre": weights}, "did you mean 'picture'"),
        ({"place": weights}, "category cannot.* name one of picture"),
        ({"picture": "timm:no/such/folder"}, "an existing folder"),
        ({"picture": weights.removeprefix("timm:")}, "timm:FOLDER"),
    ):
        with pytest.raises(RecipeError, match=said):
            ew.compare(pictured(), out=tmp_path / "run", pretrained=named)
    assert not (tmp_path / "run").exists()
    with pytest.raises(RecipeError, match="no input of this recipe can"):
        asked(staged(rows(9)), tmp_path, pretrained={"hour": weights})
    with pytest.raises(RecipeError, match="from_run"):
        asked(
            pictured(stages={}, from_run="runs/x", outputs={"stop": "boolean"}),
            tmp_path,
            pretrained={"picture": weights},
        )
    own = begun_with(
        pictured(inputs={"picture": {"type": "image", "backbone": "conv"}, "place": "category"}), {"picture": weights}
    )
    assert own.inputs["picture"].to_dict()["pretrained"] == weights  # in the place of the encoder from scratch
    other = asked(pictured(), tmp_path, pretrained={"picture": weights})
    (tmp_path / FILE).write_text(json.dumps(other.to_dict()))
    with pytest.raises(RecipeError, match="begun with"):
        asked(
            pictured(),
            tmp_path,
            resume=True,
            pretrained={"picture": f"timm:{shutil.copytree(weights[5:], tmp_path / 'other')}"},
        )


# ---- another answer ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def retargeted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recipe, dict[str, Any]]:
    """Regimes with stages and one without, and what it costs them to say how light a picture is."""
    recipe, place = (
        pictured(train={"size": "tiny", "steps": 4, "batch_size": 64, "precision": "fp32"}),
        tmp_path_factory.mktemp("anew") / "run",
    )
    ways = ["modular", "warm_joint", "direct"]
    return place, recipe, ew.compare(recipe, out=place, regimes=ways, seeds=1, shares=(), retarget="light").to_dict()


def test_another_answer_is_learnt_by_every_regime_further_and_from_nothing(
    retargeted: tuple[Path, Recipe, dict[str, Any]],
) -> None:
    place, _, result = retargeted
    found = json.loads(json.dumps(result, allow_nan=False))["retarget"]
    assert (found["output"], found["type"], found["in_place_of"], found["direction"]) == (
        "light",
        "number",
        "stop",
        "min",
    )
    assert list(found["regimes"]) == ["modular", "warm_joint", "direct"]
    assert result["settings"]["retarget"] == {"light": {"type": "number"}}
    train = result["rows"]["train"]
    for item in found["regimes"].values():
        for way in ("further", "anew"):
            assert [at["share"] for at in item[way]] == [0.1, 0.3, 1.0]
            assert all(abs(at["labels"] - at["share"] * train) <= 0.5 for at in item[way])
            assert all(at["low"] <= at["value"] <= at["high"] and at["n"] == result["rows"]["test"] for at in item[way])
            assert item["labels_needed"][way] in (None, *(at["labels"] for at in item[way]))
        assert 0 < item["changed"]["share"] <= 1
    assert (
        list(result["regimes"]) == list(result["costs"]) == ["modular", "warm_joint", "direct"]
    )  # they are no regimes
    assert result["curves"] == {}
    for name in ("modular", "warm_joint"):
        assert {part.partition(".")[0] for part in found["regimes"][name]["changed"]["parts"]} == {"act"}
    assert found["regimes"]["direct"]["changed"]["share"] > found["regimes"]["modular"]["changed"]["share"]
    assert Run.open(place / "further-direct-seed0-100").recipe.train.steps == 1  # a quarter
    page = (place / "report.html").read_text()
    assert "What another answer costs" in page


def test_stages_that_do_not_answer_it_stay_as_they_are(retargeted: tuple[Path, Recipe, dict[str, Any]]) -> None:
    """Their weights, and the statistics of batches in them; the stage that answers goes on where it was."""
    place, _, _ = retargeted
    for name in ("modular", "warm_joint"):
        before, after = (
            Run.open(place / f"{folder}-seed0-100").model().network for folder in (name, f"further-{name}")
        )
        assert isinstance(before, StagedNetwork)
        assert isinstance(after, StagedNetwork)
        old, new = before.stage("see").state_dict(), after.stage("see").state_dict()
        assert set(old) == set(new)
        assert all(torch.equal(old[key], new[key]) for key in old if not key.endswith("num_batches_tracked"))
        assert set(before.parts()) - set(after.parts()) == {"act.outputs.stop"}
    facts = Run.open(place / "further-warm_joint-seed0-100").read("from_run.json")
    assert facts["fresh"] == ["act.outputs.light"]
    assert {"see.inputs.picture", "act.inputs.colour", "act.inputs.place", "act.trunk"} <= set(facts["taken"])


def test_another_answer_is_found_again_and_no_third_is_asked_for(
    retargeted: tuple[Path, Recipe, dict[str, Any]],
) -> None:
    place, recipe, result = retargeted
    before = {path: path.stat().st_mtime_ns for path in place.glob("*/log.jsonl")}
    for asked_for in (None, "light", "light:number"):
        assert asked(recipe, place, resume=True, retarget=asked_for).retarget == {"light": {"type": "number"}}
    for other in ("shade:number", "light:category"):
        with pytest.raises(RecipeError, match="begun with"):
            asked(recipe, place, resume=True, retarget=other)
    again = ew.compare(recipe, out=place, resume=True)
    assert {path: path.stat().st_mtime_ns for path in place.glob("*/log.jsonl")} == before
    assert again.to_dict()["retarget"] == result["retarget"]
    lines = str(again).splitlines()
    assert any(line.startswith("mae of light in the place of stop") for line in lines)
    assert max(map(len, lines)) <= 80


def test_one_network_for_each_output_changes_one_of_them(tmp_path: Path) -> None:
    shown = [{**row, "late": row["hour"] > 20} for row in rows(90)]
    found = ew.compare(flat(shown), out=tmp_path / "run", seeds=1, shares=(), retarget="late:boolean").to_dict()
    one, apart = (found["retarget"]["regimes"][name]["changed"] for name in (ONE, APART))
    assert "outputs.late" in one["parts"]
    assert "outputs.part" in one["parts"]  # whatever it has in common goes on learning
    assert "outputs.late" in apart["parts"]
    assert apart["share"] < 0.7 < one["share"]
    assert Run.open(tmp_path / "run" / f"further-{ONE}-seed0-100").recipe.from_run is not None
    assert not (tmp_path / "run" / f"further-{APART}-seed0-100" / "part").exists()


def test_what_cannot_be_another_answer_is_refused_with_the_fix(tmp_path: Path) -> None:
    recipe = staged(rows(60))
    for wrong, said in (
        ("open", "does not use yet"), ("hour:number", "does not use yet"), ("place:", "COLUMN:TYPE"), ("place:clas", "category"),
        ("place:masked", "a column holds"),
    ):  # fmt: skip
        with pytest.raises(RecipeError, match=said):
            asked(recipe, tmp_path, retarget=wrong)
    middle = staged(rows(9), goal={"output": "part", "metric": "accuracy", "direction": "max"})
    with pytest.raises(RecipeError, match="no stage reads"):
        asked(middle, tmp_path, regimes=["joint"], retarget="place:category")
    stages = {"see": {"from": "hour", "to": {"part": "category"}}, "decide": {"from": "part", "to": "open", "by": bool}}
    with pytest.raises(RecipeError, match="decide is a function"):
        asked(
            staged(rows(9), stages=stages, regime="modular"), tmp_path, regimes=["modular"], retarget="place:category"
        )
    with pytest.raises(DataError, match="did you mean 'place'"):
        ew.compare(recipe, out=tmp_path / "a", retarget="plce")
    with pytest.raises(DataError, match="name its type"):
        ew.compare(
            staged([{**row, "key": f"k{index}"} for index, row in enumerate(rows(60))]),
            out=tmp_path / "b",
            retarget="key",
        )
    assert not list(tmp_path.glob("*/*/log.jsonl"))  # nothing was trained


def test_labels_needed_are_the_fewest_that_come_near_what_all_of_them_give() -> None:
    recipe = staged(rows(300))
    dataset = prepare(recipe)
    contracts = fit_contracts(recipe, dataset)
    goal = Goal(output="open", metric="accuracy", direction="max")
    none = np.zeros(0, np.int64)
    bench = measure.Bench(recipe, dataset, contracts, goal, dataset.splits.train, dataset.splits.val, none)
    like = Arm("joint", 0, 1.0, {})

    def kept(way: str, share: float, right: float) -> Kept:
        hits, numbers = (
            np.arange(len(bench.test)) < right * len(bench.test),
            {"labels": round(200 * share), "changed": {}},
        )
        arm = Arm(f"{way}-joint", 0, share, {}, anew=Anew(like, way == "further"))
        return Kept(arm, Cost(seconds=30, done=True), {"test/open": runs_of(hits)[0]}, numbers)

    values = {"further": {0.1: 0.8, 0.3: 0.94, 1.0: 0.95}, "anew": {0.1: 0.5, 0.3: 0.6, 1.0: 0.7}}
    every = [kept(way, share, right) for way, own in values.items() for share, right in own.items()]
    found = Findings(bench, every, {}).anew()["joint"]
    assert found["labels_needed"] == {"further": 60, "anew": None}
    assert 0 < found["margin"] < 0.05
    assert [at["minutes"] for at in found["anew"]] == [0.5] * 3
    poor = [kept(way, 1.0, 0.3) for way in values]
    assert Findings(bench, poor, {}).anew()["joint"]["labels_needed"] == {"further": None, "anew": None}
    lacking = Findings(bench, every[:2], {}).anew()["joint"]
    assert lacking["labels_needed"] == {"further": None, "anew": None}
