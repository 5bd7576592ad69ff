"""A run folder: one training, found again by any of its paths, never shared, whole after a kill."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import TOYS, Amount, Kind, Letters

from endwise.errors import ModelError, RecipeError, SetupError
from endwise.files import plain, read_json, write_json
from endwise.recipe import Recipe
from endwise.run import Run, default_path, run_names


def recipe(**values: object) -> Recipe:
    return Recipe(
        **{"name": "calls", "data": "calls.csv", "inputs": {"a": "number"}, "outputs": {"b": "category"}, **values}
    )


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def trained(path: str = "runs/calls", **values: object) -> Run:
    run = Run.create(recipe(**values), out=path)
    run.write("plan.json", {"steps": 3})
    return run


def test_a_run_is_made_where_its_recipe_says(tmp_path: Path) -> None:
    run = Run.create(recipe())
    assert run.path == Path("runs/calls")
    assert run.recipe.data.path == str(tmp_path / "calls.csv")  # means the same from every folder
    assert run.recipe.to_dict()["inputs"] == {"a": {"type": "number"}}
    assert default_path(recipe(name=None)) == Path("runs/run")
    assert default_path(recipe(name="../../etc")) == Path("runs/etc")
    assert default_path(recipe(name="a b/c")) == Path("runs/a-b-c")


def test_one_that_holds_work_is_refused_without_resume() -> None:
    trained()
    with pytest.raises(RecipeError, match=r"--resume goes on with it; another --out"):
        Run.create(recipe())
    assert Run.create(recipe(), resume=True).read("plan.json") == {"steps": 3}


def test_one_that_failed_before_training_is_used_again() -> None:
    Run.create(recipe()).log({"event": "note", "message": "bad data"})
    Run.create(recipe(train={"seed": 1}))
    assert Run.open("runs/calls").recipe.train.seed == 1


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"x")
    with pytest.raises(RecipeError, match="a new or empty folder"):
        Run.create(recipe(), out="photos")
    with pytest.raises(RecipeError, match="a folder"):
        Run.create(recipe(), out="photos/a.jpg")
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == ["a.jpg"]


def test_a_resumed_run_keeps_its_recipe_and_names_what_differs() -> None:
    trained()
    with pytest.raises(RecipeError, match=r"train\.seed = 5"):
        Run.create(recipe(train={"seed": 5}), resume=True)
    with pytest.raises(RecipeError, match=r"inputs\.a\.unit = 'kg'"):
        Run.create(recipe(inputs={"a": {"type": "number", "unit": "kg"}}), resume=True)
    with pytest.raises(RecipeError, match=r"outputs\.c"):
        Run.create(recipe(outputs={"b": "category", "c": "number"}), resume=True)
    Run.create(Recipe.load("runs/calls/recipe.yaml"), out="runs/calls", resume=True)  # the resume line that is printed


def test_data_may_lie_elsewhere_than_where_a_run_was_begun(tmp_path: Path) -> None:
    files = {"train": "here/a.csv", "val": "here/b.csv", "tables": {"edges": "here/edges.csv"}}
    run = trained(data=files)
    assert run.recipe.data.tables == {"edges": str(tmp_path / "here/edges.csv")}
    moved = recipe(data={"train": "there/a.csv", "val": "there/b.csv", "tables": {"edges": "there/edges.csv"}})
    run = Run.create(moved, resume=True)
    said = run.data_lies(moved)
    assert [line.partition(" is ")[0] for line in said] == ["data.train", "data.val", "data.tables.edges"]
    assert "here/a.csv" in said[0]
    assert "there/a.csv" in said[0]
    assert run.recipe.data.val == str(tmp_path / "there/b.csv")
    assert run.recipe.data.tables == {"edges": str(tmp_path / "there/edges.csv")}
    assert run.data_lies(moved) == []
    with pytest.raises(RecipeError, match=r"data\.val"):
        Run.create(recipe(data={**files, "val": None}), resume=True)
    with pytest.raises(RecipeError, match=r"data\.tables\.nodes"):
        Run.create(recipe(data={**files, "tables": {**files["tables"], "nodes": "here/nodes.csv"}}), resume=True)


def test_resuming_what_never_began_begins_and_says_so() -> None:
    run = Run.create(recipe(), resume=True)
    assert [event["message"] for event in run.events()] == ["there was nothing to resume: started from the beginning"]


@pytest.mark.parametrize(
    "path", ["runs/calls", "runs/calls/", "runs/calls/model", "runs/calls/recipe.yaml", "runs/calls/log.jsonl"]
)
def test_a_run_is_found_by_its_paths(path: str) -> None:
    run = trained()
    run.log({"event": "note"})
    (run.path / "model").mkdir()
    (run.path / "model/model.json").write_text("{}")
    assert Run.open(path).path == Path("runs/calls")
    assert Run.open(run) is run


def test_a_copied_model_folder_is_a_run_with_a_model_only(tmp_path: Path) -> None:
    from toys import AmountContract, KindContract

    from endwise.model import Model

    declared = Recipe(data="x.csv", inputs={"a": Amount()}, outputs={"b": Kind()}, train={"size": "tiny"})
    contracts = {
        "a": AmountContract(count=1, missing=0, mean=0.0, scale=1.0),
        "b": KindContract(count=2, missing=0, names=("n", "y")),
    }
    made = Model.build(declared, contracts, seed=0)
    made.info["goal"] = "b"
    made.save("elsewhere/copied")
    run = Run.open("elsewhere/copied", modalities=TOYS)
    assert run.model().predict({"a": 1}).to_dict() == made.predict({"a": 1}).to_dict()
    assert run.model().run is run
    assert run.recipe.to_dict() == declared.to_dict()
    assert run.info()["goal"] == "b"


def test_what_is_no_run_is_refused_with_the_nearest_one() -> None:
    trained("runs/calls-small")
    for wrong in ("calls-smal", "runs/call-small", "runs/calls-small-2"):
        with pytest.raises(ModelError, match=r"did you mean 'runs/calls-small'"):
            Run.open(wrong)
    with pytest.raises(ModelError, match=r"there are: runs/calls-small"):
        Run.open("runs")
    assert run_names() == ["calls-small"]
    assert run_names("nowhere") == []


def test_a_run_of_outside_classes_reads_its_recipe_with_them() -> None:
    declared = Recipe(name="toy", data="x.csv", inputs={"a": Letters()}, outputs={"b": Kind()})
    Run.create(declared)
    assert Run.open("runs/toy", modalities=TOYS).recipe.inputs == declared.inputs
    with pytest.raises(RecipeError, match="letters"):
        _ = Run.open("runs/toy").recipe


# ---- files ------------------------------------------------------------------------------------------------------------


def test_json_is_written_whole_and_read_back() -> None:
    run = trained()
    run.write("metrics.json", {"a": np.float32(0.5), "b": float("nan"), "c": (1, 2), "d": np.arange(2)})
    assert run.read("metrics.json") == {"a": 0.5, "b": None, "c": [1, 2], "d": [0, 1]}
    assert not [name for name in os.listdir(run.path) if "partial" in name]  # noqa: PTH208


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"new": float("inf")})
    assert read_json(tmp_path / "a.json") == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]  # noqa: PTH208


def test_a_file_that_is_missing_or_damaged_is_named() -> None:
    run = trained()
    with pytest.raises(ModelError, match=r"has no metrics\.json"):
        run.read("metrics.json")
    (run.path / "metrics.json").write_text('{"a": ')
    with pytest.raises(ModelError, match=r"metrics\.json: it is not JSON \(line 1"):
        run.read("metrics.json")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(values=json_values)
def test_plain_values_survive_the_disk(tmp_path_factory: pytest.TempPathFactory, values: object) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    write_json(path, plain(values))
    assert read_json(path) == values


# ---- the log ----------------------------------------------------------------------------------------------------------


def test_events_come_back_in_their_order() -> None:
    run = trained()
    for step in range(3):
        run.log({"event": "step", "step": step, "loss": np.float64(1.5)})
    assert [event["step"] for event in Run.open("runs/calls").events()] == [0, 1, 2]  # flushed while still open


def test_a_torn_line_is_left_out_and_said() -> None:
    run = trained()
    run.log({"event": "step", "step": 1})
    run.close()
    with (run.path / "log.jsonl").open("a") as file:
        file.write('{"event": "step", "st')
    run.log({"event": "step", "step": 2})  # a later process appends
    events = run.events()
    assert [event.get("step") for event in events] == [1, None, 2]
    assert "line 2 is torn" in events[1]["message"]


def test_steps_done_again_after_a_resume_appear_once() -> None:
    run = trained()
    for event in (
        *({"event": "step", "step": step, "try": 1} for step in range(1, 6)),
        {"event": "eval", "step": 5},
        {"event": "resumed", "step": 3},
        *({"event": "step", "step": step, "try": 2} for step in range(4, 7)),
    ):
        run.log(event)
    steps = [(event["step"], event["try"]) for event in run.events() if event["event"] == "step"]
    assert steps == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2)]
    assert not [event for event in run.events() if event["event"] == "eval"]


def test_a_folder_is_trained_in_by_one_process(tmp_path: Path) -> None:
    run = trained()
    code = (
        "from endwise.run import Run\nfrom endwise.errors import SetupError\n"
        "try:\n    with Run.open('runs/calls').locked(): print('in')\n"
        "except SetupError as busy: print(busy)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}

    def other() -> str:
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=tmp_path
        ).stdout

    with run.locked():
        said = other()
        assert f"process {os.getpid()} is training in it" in said
        assert "choose another --out" in said
        with pytest.raises(SetupError), Run.open("runs/calls").locked():
            pass
    assert other() == "in\n"
