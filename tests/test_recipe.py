"""The recipe: one tree in YAML, JSON and Python, checked when made, and errors that say what to do."""

import json
from typing import Any

import pytest

import endwise as ew
from endwise.errors import RecipeError
from endwise.recipe import Recipe, json_schema, parse, seconds_of

BASE = {"data": "calls.csv", "inputs": {"x": "number"}, "outputs": {"y": "category"}}


def with_(**changes: object) -> dict:
    return {**BASE, **changes}


def test_yaml_json_and_python_are_the_same_recipe(tmp_path):
    text = """
version: 1
data: {path: calls.csv, group: caller, max_bad: 5%}
inputs: {recording: {type: audio, rate_hz: 8000}, age: number}
outputs: {words: {type: text, decoder: ctc}}
train: {budget: 5m, seed: 3}
"""
    (tmp_path / "recipe.yaml").write_text(text)
    from_yaml = Recipe.load(tmp_path / "recipe.yaml")
    (tmp_path / "recipe.json").write_text(json.dumps(parse(text, where="text")))
    from_json = Recipe.load(tmp_path / "recipe.json")
    in_python = ew.Recipe(
        name=tmp_path.name,
        data=ew.Data(path=str(tmp_path / "calls.csv"), group="caller", max_bad=0.05),
        inputs={"recording": ew.Audio(rate_hz=8_000), "age": ew.Number()},
        outputs={"words": ew.Text(decoder="ctc")},
        train=ew.Train(budget=300, seed=3),
    )
    assert from_yaml == from_json == in_python
    assert from_yaml.train.budget == 300


def test_a_recipe_survives_being_written_and_read(tmp_path):
    recipe = Recipe(**with_(train={"budget": "90s", "size": "tiny"}, trunk={"width": 32}, name="calls"))
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    again = Recipe.load(tmp_path / "again.yaml")
    assert again.replace(**{"data.path": "calls.csv"}) == recipe


def test_a_recipe_cannot_be_changed_after_it_is_made():
    recipe = Recipe(**BASE)
    with pytest.raises(ValueError, match="frozen"):
        recipe.name = "other"
    with pytest.raises(AttributeError):
        recipe.inputs["x"].column = "other"


def test_a_list_is_as_good_as_a_tuple_in_python_as_in_yaml() -> None:
    for made, same in (
        (ew.Series(columns=["load", "price"]), ew.Series(columns=("load", "price"))),
        (ew.Mask(classes=["none", "crack"]), ew.Mask(classes=("none", "crack"))),
    ):
        assert made == same
        assert hash(made) == hash(same)
    with pytest.raises(RecipeError, match="a list of text"):
        ew.Series(columns=[1, 2])  # type: ignore[list-item]


def test_any_field_can_be_overridden_by_its_path():
    recipe = Recipe(**BASE).replace(
        **{"train.seed": 7, "data.max_bad": "5%", "inputs.x.unit": "kg", "data.path": "b.csv"}
    )
    assert (recipe.train.seed, recipe.data.max_bad, recipe.inputs["x"].unit, recipe.data.path) == (
        7,
        0.05,
        "kg",
        "b.csv",
    )


# what people get wrong, and what they are told: each message names the field and the mend
MISTAKES = [
    ({"inputs": {"x": "numbr"}}, "inputs.x.type", "did you mean 'number'"),
    ({"inputs": {"x": {"type": "number", "colum": "a"}}}, "inputs.x", "did you mean 'column'"),
    (
        {"inputs": {"x": {"type": "number", "zzz": 1}}},
        "inputs.x",
        r"^((?!loss_weight).)*expected one of column, handed, optional",
    ),
    (
        {"outputs": {"y": {"type": "category", "zzz": 1}}},
        "outputs.y",
        r"^((?!optional).)*expected one of abstain, class_weights",
    ),
    ({"inputs": {"x": {"column": "a"}}}, "inputs.x.type", "what kind of value"),
    ({"inputs": {}}, "inputs", "at least one name"),
    ({"inputs": {"x": 3}}, "inputs.x", "a type name or a mapping"),
    ({"outputs": {"x": "category"}}, "outputs.x", "a name no input has"),
    ({"outputs": {"y": "image"}}, "Image.on", "an answer about places"),
    ({"outputs": {"y": "date"}}, "outputs.y.type", "can only be an input"),
    ({"inputs": {"x": {"type": "number", "loss_weight": 2.0}}}, "inputs.x.loss_weight", "belongs to an output"),
    ({"outputs": {"y": {"type": "category", "optional": True}}}, "outputs.y.optional", "belongs to an input"),
    ({"outputs": {"y": {"type": "category", "loss_weight": 0}}}, "loss_weight", "a number above 0"),
    ({"inputs": {"x": {"type": "audio", "rate_hz": 16}}}, "rate_hz", "kilohertz"),
    ({"inputs": {"x": {"type": "audio", "rate_hz": "8k"}}}, "rate_hz", "a whole number"),
    ({"inputs": {"x": {"type": "text", "units": "words"}}}, "units", "bpe"),
    ({"inputs": {"1x": "number"}}, "field name", "not starting with a digit"),
    ({"inputs": {"a b": "number", "a-b": "number"}}, "field name", "differs from 'a b' in more than"),
    ({"train": {"seed": -1}}, "train.seed", "greater than or equal to 0"),
    ({"train": {"sed": 1}}, "train.sed", "did you mean 'seed'"),
    ({"train": {"size": "huge"}}, "train.size", "'tiny', 'small', 'base' or 'large'"),
    ({"train": {"budget": "5 minutes"}}, "train.budget", "90s, 5m or 1h"),
    ({"train": {"budget": 0}}, "train.budget", "greater than 0"),
    ({"train": {"steps": 10, "epochs": 2}}, "train.epochs", "steps or epochs, not both"),
    ({"train": {"batch_size": 0}}, "train.batch_size", "at least 1"),
    ({"train": {"precision": "fp16"}}, "train.precision", "'bf16'"),
    ({"trunk": {"width": 100, "heads": 3}}, "trunk.heads", "a divisor"),
    ({"trunk": {"dropout": 1.0}}, "trunk.dropout", "less than 1"),
    ({"goal": {"output": "z", "metric": "accuracy", "direction": "max"}}, "goal.output", "did you mean|one of"),
    ({"goal": {"output": "y", "metric": "accuracy", "direction": "up"}}, "goal.direction", "'min' or 'max'"),
    ({"objective": {"weighting": "auto"}}, "objective.weighting", "'dwa' or 'pcgrad'"),
    ({"objective": {"weighting": "dwa"}}, "objective.weighting", "nothing to weigh one term against"),
    ({"data": {"path": "a.csv", "train": "b.csv"}}, "data", "either 'path'"),
    ({"data": {"val": "b.csv"}}, "data", "either 'path'"),
    ({"data": {"path": "a.csv", "max_bad": 2}}, "data.max_bad", "less than or equal to 1"),
    ({"data": {"path": "a.csv", "grup": "g"}}, "data.grup", "did you mean 'group'"),
    ({"data": {"path": "a.csv", "time": "t", "split": "s"}}, "data", "'time' is a way to split"),
    ({"data": {"path": "a.csv", "group": "y"}}, "outputs.y.column", "cannot decide the split"),
    ({"version": 2}, "version", "write version: 1"),
    ({"input": {"x": "number"}}, "input", "did you mean 'inputs'"),
]


@pytest.mark.parametrize(("changes", "field", "fix"), MISTAKES)
def test_a_mistake_is_named_with_its_mend(changes, field, fix):
    import re

    with pytest.raises(RecipeError) as told:
        Recipe(**with_(**changes))
    message = str(told.value)
    assert field in message
    assert re.search(fix, message), message
    assert message.count("\n") < 6


@pytest.mark.parametrize("section", ["data", "inputs", "outputs"])
def test_a_missing_section_is_named(section):
    values = {name: value for name, value in BASE.items() if name != section}
    with pytest.raises(RecipeError, match=f"^{section} is missing"):
        Recipe(**values)


def test_a_table_in_the_place_of_a_recipe_is_told_apart(tmp_path):
    (tmp_path / "calls.csv").write_text("a,b\n1,2\n")
    with pytest.raises(RecipeError, match=r"'endwise init .*calls\.csv' proposes a recipe for it"):
        Recipe.load(tmp_path / "calls.csv")


def test_a_file_that_is_not_there_and_one_that_is_no_yaml(tmp_path):
    with pytest.raises(RecipeError, match="endwise init"):
        Recipe.load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("data: [1,\n  inputs: {")
    with pytest.raises(RecipeError, match="line 2: not valid YAML"):
        Recipe.load(tmp_path / "bad.yaml")
    (tmp_path / "bomb.yaml").write_text("a: &a [x, x]\nb: [*a, *a]\n")
    with pytest.raises(RecipeError, match="anchors"):
        Recipe.load(tmp_path / "bomb.yaml")


def test_the_schema_knows_every_field_and_type():
    schema = json_schema()
    assert set(schema["properties"]) == {
        "version",
        "name",
        "data",
        "from_run",
        "inputs",
        "outputs",
        "stages",
        "regime",
        "goal",
        "objective",
        "trunk",
        "train",
    }
    kinds = schema["properties"]["outputs"]["additionalProperties"]["anyOf"]
    assert "category" in kinds[0]["enum"] and "graph" not in kinds[0]["enum"]
    assert schema == json.loads(json.dumps(schema))


@pytest.mark.parametrize(
    "names",
    [("x", "y", "split"), ("x", "y", "weight"), ("path", "y"), ("path", "split"), ("x", "y", "group", "max_bad")],
)
def test_a_table_of_columns_may_have_columns_of_any_name(names):
    columns = {name: [1.0, 2.0] for name in names}
    assert Recipe(**with_(data=columns)).data.path is columns


@pytest.mark.parametrize(
    "section",
    [
        {"path": [{"x": 1.0, "y": "a"}], "split": "side"},
        {"train": [{"x": 1.0, "y": "a"}], "test": [{"x": 2.0, "y": "b"}]},
        {"path": [{"x": 1.0, "y": "a"}], "max_bad": 0.1},
        {"path": {"x": [1.0], "y": ["a"]}},
    ],
)
def test_a_section_with_rows_in_memory_stays_a_section(section):
    data = Recipe(**with_(data=section)).data
    assert {name: getattr(data, name) for name in section} == section


def test_a_misspelt_section_is_still_no_table():
    for wrong in ({"pth": "calls.csv"}, {"trian": [{"x": 1.0}], "test": [{"x": 1.0}]}, {"path": "a.csv", "slpit": "s"}):
        with pytest.raises(RecipeError, match=r"pth|trian|slpit"):
            Recipe(**with_(data=wrong))


def test_the_field_named_on_is_a_name_and_not_true():
    """YAML 1.1 takes it for a boolean, and outputs that lie on an input are declared with it."""
    text = "inputs:\n  photo: image\n  other: image\noutputs:\n  where: {type: mask, on: photo}\n"
    assert parse(text, where="here")["outputs"]["where"] == {"type": "mask", "on": "photo"}


def staged_with(**changes: Any) -> dict[str, Any]:
    """A recipe in stages; {stage: what replaces it}."""
    stages = {
        "hear": {"from": "recording", "to": {"words": "text"}},
        "add": {"from": "words", "to": "total"},
    }
    return {
        "data": "sums.csv",
        "inputs": {"recording": "audio"},
        "outputs": {"total": "number"},
        "stages": {**stages, **changes},
    }


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (staged_with(add={"frm": "words", "to": "total"}), r"stages.add.frm = 'words' .* did you mean 'from'"),
        (staged_with(add={"to": "total"}), r"stages.add.from is missing. Fix: write add: \{from: "),
        (staged_with(add={"from": [], "to": "total"}), r"stages.add.from = \[\] .* a name or a list of names"),
        (staged_with(add={"from": 5, "to": "total"}), r"stages.add.from = 5 .* a name or a list of names"),
        (staged_with(add={"from": "words", "to": None}), r"stages.add.to = None .* a name or a list of names"),
        (staged_with(add="words"), r"stages.add = 'words' .* write add: \{from: "),
        ({**staged_with(), "stages": ["hear"]}, r"stages = \['hear'\] .* write stages: \{hear: \{from: "),
        (staged_with(add={"from": "words", "to": "total", "shares": "recording"}), "there is none to name. Fix: remove it"),
        ({**staged_with(), "goal": "total"}, r"goal = 'total' .* write goal: \{output: "),
        ({**staged_with(), "goal": {"output": "total"}}, r"goal.metric is missing. Fix: write goal: \{output: "),
    ],
)  # fmt: skip
def test_stages_and_goals_that_are_written_wrongly_are_told_how(values: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        Recipe(**values)


@pytest.mark.parametrize("wrong", ["soon", "-3m", 0, -1])
def test_a_time_limit_that_is_none_is_refused_wherever_it_is_given(wrong: Any) -> None:
    with pytest.raises(RecipeError, match=r"budget = .* a duration above 0 such as 90s"):
        seconds_of(wrong)
    assert seconds_of("5m") == 300
    assert seconds_of(None) is None
