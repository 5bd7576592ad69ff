"""The traffic simulator of the planner's recipe, the plan that it scores, and metrics of one's own."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import endwise as ew
from endwise import metrics
from endwise.modalities.base import Answer

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def simulator() -> Any:
    return importlib.import_module("recipes.staged.planner.traffic")


@pytest.mark.parametrize("seed", range(4))
def test_a_scene_is_a_function_of_its_seed_and_its_driver_hits_nobody(seed: int) -> None:
    traffic = simulator()
    made, again = traffic.scene(seed), traffic.scene(seed)
    np.testing.assert_array_equal(made.places, again.places)
    np.testing.assert_array_equal(traffic.picture(made, seed), traffic.picture(again, seed))
    assert 3 <= len(made.ways) <= traffic.MOST_CARS
    path = traffic.expert(made)
    assert path.shape == (traffic.PATH_POINTS, 2)
    assert not traffic.collided(path, made.others)
    there, later = traffic.obstacles(made), traffic.futures(made)
    assert there.shape == later.shape == traffic.picture(made, seed).shape[:2]
    assert there.max() < len(traffic.OBSTACLES)
    assert set(np.unique(later[there > 0]).tolist()) <= {1}  # who is there now is there within a second


def test_cars_keep_their_lane_and_their_distance() -> None:
    traffic = simulator()
    for seed in range(6):
        made = traffic.scene(100 + seed)
        for way in range(4):
            own = made.places[made.ways == way]
            across = own[..., 0 if way % 2 == 0 else 1]
            assert np.ptp(across) < 1e-9 if len(own) else True
            if len(own) > 1:  # those that began apart stay apart
                along = np.sort(own[..., 1 if way % 2 == 0 else 0], axis=0)
                apart = np.diff(along, axis=0)
                began = apart[:, 0] > 3 * traffic.LENGTH_M
                assert (apart[began] > 0).all()


@given(st.floats(-20, 20), st.floats(-20, 20))
@settings(max_examples=40, deadline=None)
def test_a_path_through_a_car_that_stands_there_is_a_collision(right: float, ahead: float) -> None:
    traffic = simulator()
    others = np.full((traffic.MOST_CARS, 2 + 2 * (round(traffic.FUTURE_S / traffic.DT_S) + 1)), traffic.GONE_M)
    others[:, :2] = 0.0
    others[0] = [0.9, 2.2, *[right, ahead] * (round(traffic.FUTURE_S / traffic.DT_S) + 1)]
    path = np.linspace(0, 1, traffic.PATH_POINTS + 1)[1:, None] * [right, ahead]
    assert traffic.collided(path, others)
    away = abs(right) > 1.9 or abs(ahead) > 4.5
    assert traffic.collided(0 * path, others) != away or abs(abs(right) - 1.8) < 0.2 or abs(abs(ahead) - 4.4) < 0.2


def test_a_plan_is_a_list_of_numbers_that_is_scored_by_driving_it() -> None:
    traffic, plan = simulator(), importlib.import_module("recipes.staged.planner.plan")
    recipe = importlib.import_module("recipes.staged.planner.compare").scored_by_driving(
        ROOT / "recipes/staged/planner"
    )
    declared = recipe.outputs["plan"]
    rows = []
    for seed in range(8):
        made = traffic.scene(seed)
        rows.append({"path": traffic.expert(made).ravel().tolist(), "others": made.others.ravel().tolist()})
    read = [declared.read(declared.cell_of(row, "plan"), str.encode) for row in rows]
    contract = declared.fit(read, missing=0, role="output")
    assert contract.length == plan.NUMBERS
    assert declared.transform(read[0], contract).tolist() == rows[0]["path"]
    truths = [declared.truth(value, contract) for value in read]
    found = {metric.name: metric for metric in declared.metrics(contract)}
    assert next(iter(found)) == recipe.goal.metric == "safe_progress"
    perfect = [Answer(list(truth)) for truth in truths]
    assert metrics.value(found["collision_rate"], truths, perfect) == 0
    assert metrics.value(found["safe_progress"], truths, perfect) == metrics.value(found["progress"], truths, perfect)
    into = truths[0].others.reshape(traffic.MOST_CARS, -1)[0, -2:]
    crash = Answer((np.linspace(0, 1, traffic.PATH_POINTS + 1)[1:, None] * into).ravel().tolist())
    assert metrics.value(found["collision_rate"], truths[:1], [crash]) == 1
    assert metrics.value(found["safe_progress"], truths[:1], [crash]) == 0


def test_a_metric_of_ones_own_has_an_interval_and_a_share_has_one_where_all_rows_are_alike() -> None:
    close = metrics.mean_of("close", "max", lambda truth, said: abs(truth - said) < 1, share=True)
    off = metrics.mean_of("off", "min", lambda truth, said: abs(truth - said), unit="m")
    truths, answers = [1.0, 2.0, 3.0, 4.0], [Answer(value + 0.5) for value in (1.0, 2.0, 3.0, 4.0)]
    found = metrics.estimates([close, off], truths, answers)
    assert found["close"].value == 1
    assert found["close"].low < 1
    assert found["off"].value == pytest.approx(0.5)
    assert off.unit == "m"


def test_an_output_has_a_metric_of_ones_own_by_a_subclass(tmp_path: Path) -> None:
    class Weight(ew.Number):
        def metrics(self, contract: Any) -> list[metrics.Metric]:
            close = metrics.mean_of("close", "max", lambda truth, said: abs(truth - said) < 1, share=True)
            return [close, *super().metrics(contract)]

    recipe = ew.Recipe(
        data=[{"x": float(i % 7), "y": float(i % 7)} for i in range(40)], inputs={"x": "number"}, outputs={"y": Weight()},
        goal={"output": "y", "metric": "close", "direction": "max"}, train={"size": "tiny", "steps": 2},
    )  # fmt: skip
    model = ew.fit(recipe, out=tmp_path / "run")
    assert model.info["goal"]["metric"] == "close"
