"""Beginning with another run: what is taken, what is refused, and that a resumed run is the run it was."""

import io
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import endwise as ew
from endwise.errors import EndwiseError, ModelError, RecipeError
from endwise.network import Network
from endwise.recipe import FromRun, json_schema
from endwise.train import dry_run
from endwise.transfer import Origin

WORDS = ("red", "blue", "green", "black", "white", "grey")
TEXTS = [f"a {one} house and a {other} door {number}" for one in WORDS for other in WORDS for number in range(2)]
LABELLED = [{"text": text, "first": text.split()[1]} for text in TEXTS[::3]]
TINY = {"steps": 6, "size": "tiny", "batch_size": 16}


def recipe(**settings: Any) -> ew.Recipe:
    fields: dict[str, Any] = {
        "name": "labelled",
        "data": LABELLED,
        "inputs": {"text": ew.Text()},
        "outputs": {"first": ew.Category()},
        "train": TINY,
    }
    return ew.Recipe(**{**fields, **settings})


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> ew.Model:
    declared = recipe(name="read", data=[{"text": text} for text in TEXTS], outputs={"restored": ew.Masked()})
    return ew.fit(declared, out=tmp_path_factory.mktemp("read") / "run")


def place(model: ew.Model) -> str:
    assert model.run is not None
    return str(model.run.path)


def same(one: Network, other: Network, part: str) -> bool:
    left, right = one.parts()[part].state_dict(), other.parts()[part].state_dict()
    return all(torch.equal(left[name], right[name]) for name in left if name in right)


# ---- what is taken -----------------------------------------------------------------------------------------------------


def test_the_encoder_begins_where_that_run_ended(pretrained: ew.Model) -> None:
    declared = recipe(from_run=place(pretrained))
    origin = Origin.of(declared)
    assert origin is not None
    from endwise.data.dataset import fit_contracts, prepare

    fitted = fit_contracts(declared, prepare(declared))
    contracts = origin.contracts(declared, fitted)
    model = ew.Model.build(declared, contracts, seed=0)
    facts = origin.fill(model)
    assert facts["taken"] == ["inputs.text"]
    assert facts["fresh"] == ["outputs.first"]
    assert facts["left"] == ["outputs.restored"]
    assert same(model.network, pretrained.network, "inputs.text")
    assert contracts["text"].count == fitted["text"].count  # the rows are these ...
    assert contracts["text"].merges == pretrained.contracts["text"].merges  # ... the units that run's
    assert contracts["first"] == fitted["first"]


def test_a_run_says_what_it_began_with(pretrained: ew.Model, tmp_path: Path) -> None:
    model = ew.fit(recipe(from_run=place(pretrained)), out=tmp_path / "run")
    assert model.run is not None
    notes = [event["message"] for event in model.run.events() if event["event"] == "note"]
    assert any("inputs.text" in note and "fresh: outputs.first" in note for note in notes)
    facts = model.run.read("from_run.json")
    assert facts == model.info["from_run"]
    assert len(facts["sha256"]) == 64
    again = ew.Model.load(tmp_path / "run")  # needs that run no more
    assert again.predict({"text": TEXTS[0]})["first"] == model.predict({"text": TEXTS[0]})["first"]
    assert Path(model.run.recipe.from_run.run).is_absolute()  # type: ignore[union-attr]


def test_a_resumed_run_repeats_itself_and_refuses_other_weights(pretrained: ew.Model, tmp_path: Path) -> None:
    source = tmp_path / "source"
    pretrained.save(source / "model")
    declared = recipe(from_run=source)
    whole = ew.fit(declared, out=tmp_path / "run")
    again = ew.fit(declared, out=tmp_path / "run", resume=True)
    assert same(whole.network, again.network, "outputs.first")
    with torch.no_grad():
        other = ew.Model.load(source)
        other.network.encoder("text").gate.add_(1.0)
    other.save(source / "model")
    with pytest.raises(RecipeError, match="trained anew since"):
        ew.fit(declared, out=tmp_path / "run", resume=True)


def test_frozen_parts_do_not_learn(pretrained: ew.Model, tmp_path: Path) -> None:
    model = ew.fit(recipe(from_run={"run": place(pretrained), "freeze": True}), out=tmp_path / "run")
    kept = model.network.encoder("text").state_dict()
    for name, value in pretrained.network.encoder("text").state_dict().items():
        assert name not in kept or torch.equal(kept[name], value), name
    resumed = ew.fit(recipe(from_run={"run": place(pretrained), "freeze": True}), out=tmp_path / "run", resume=True)
    assert same(model.network, resumed.network, "inputs.text")


def test_an_output_goes_on_where_it_says_the_same(pretrained: ew.Model, tmp_path: Path) -> None:
    first = ew.fit(recipe(), out=tmp_path / "first")
    more = recipe(data=LABELLED[::-1] + LABELLED[:2], from_run=place(first))
    other = recipe(data=[row for row in LABELLED if row["first"] != "red"], from_run=place(first))
    for declared, taken in ((more, ["inputs.text", "outputs.first"]), (other, ["inputs.text"])):
        model = ew.fit(declared, out=tmp_path / f"next{len(taken)}")
        assert model.info["from_run"]["taken"] == taken


def test_a_trunk_goes_on_where_it_reads_the_same(tmp_path: Path) -> None:
    """Attention reads any tokens; a perceptron has weights for each of its inputs."""
    rows = [{"text": text, "a": float(at % 5), "b": float(at % 7), "y": float(at % 3)} for at, text in enumerate(TEXTS)]

    def declared(*names: str, **more: Any) -> ew.Recipe:
        inputs = {name: ew.Text() if name == "text" else ew.Number() for name in names}
        return recipe(data=rows, inputs=inputs, outputs={"y": ew.Number()}, **more)

    numbers = ew.fit(declared("a", "b"), out=tmp_path / "numbers")
    mixed = ew.fit(declared("a", "text"), out=tmp_path / "mixed")
    three = ["a", "b", "text"]
    tried = [
        (numbers, "ab", True),
        (numbers, "ba", False),
        (numbers, three, False),
        (mixed, three, True),
        (mixed, "ab", False),
    ]
    for number, (run, names, goes_on) in enumerate(tried):
        model = ew.fit(declared(*names, from_run=place(run)), out=tmp_path / str(number))
        assert ("trunk" in model.info["from_run"]["taken"]) == goes_on, (run.recipe.name, names)


def test_what_was_learnt_by_saying_the_next_unit_goes_on_in_the_task(tmp_path: Path) -> None:
    """Sentences without labels teach the writer; the labelled rows, which ask for a part of each, go on from it."""

    def task(rows: list[dict[str, str]], **settings: Any) -> ew.Recipe:
        return recipe(
            data=rows, inputs={"before": ew.Text(units="bytes")},
            outputs={"after": ew.Text(decoder="lm", units="characters")}, train={**TINY, "steps": 30}, **settings,
        )  # fmt: skip

    halves = [{"before": text[:9], "after": text[9:]} for text in TEXTS]
    read = ew.fit(task(halves), out=tmp_path / "read")
    few = [{"before": text[:9], "after": text[9:]} for text in TEXTS[::3]]
    model = ew.fit(task(few, from_run=place(read)), out=tmp_path / "task")
    assert model.info["from_run"]["taken"] == ["inputs.before", "outputs.after"]
    alone = ew.fit(task(few), out=tmp_path / "alone")
    first = [
        next(event["loss"] for event in found.run.events() if event["event"] == "step") for found in (model, alone)
    ]
    assert first[0] < first[1] - 0.1


def test_a_plan_can_be_asked_for_without_training(pretrained: ew.Model) -> None:
    plan, facts = dry_run(recipe(from_run=place(pretrained)))
    assert plan.steps == 6
    assert facts["fields"]["text"]["summary"]


# ---- other kinds of input ------------------------------------------------------------------------------------------------


def pictures() -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    return [
        {
            "photo": (random.random((16, 16, 3)) * 80 + 150 * (row % 2)).astype(np.uint8),
            "light": "yes" if row % 2 else "no",
        }
        for row in range(40)
    ]


def tones() -> list[dict[str, Any]]:
    found = []
    for row in range(40):
        samples = np.sin(np.arange(2000 + 100 * row) * (0.1 if row % 2 else 0.4)) * 12_000
        out = io.BytesIO()
        with wave.open(out, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8_000)
            file.writeframes(samples.astype("<i2").tobytes())
        found.append({"sound": out.getvalue(), "high": "no" if row % 2 else "yes"})
    return found


@pytest.mark.parametrize(
    ("rows", "item", "name"), [(pictures(), ew.Image(), "photo"), (tones(), ew.Audio(rate_hz=8_000), "sound")]
)
def test_pictures_and_sounds_begin_with_what_was_hidden_of_them(
    rows: list[dict[str, Any]], item: ew.Modality, name: str, tmp_path: Path
) -> None:
    (label,) = set(rows[0]) - {name}
    read = recipe(data=rows, inputs={name: item}, outputs={"restored": ew.Masked()})
    source = ew.fit(read, out=tmp_path / "read")
    assert source.run is not None
    losses = [event["loss"] for event in source.run.events() if event["event"] == "step"]
    assert np.isfinite(losses).all()
    declared = recipe(data=rows[:24], inputs={name: item}, outputs={label: ew.Category()}, from_run=tmp_path / "read")
    model = ew.fit(declared, out=tmp_path / "task")
    assert model.info["from_run"]["taken"] == [f"inputs.{name}"]
    assert model.predict({name: rows[0][name]})[label] in ("yes", "no")


def test_pictures_of_another_size_are_seen_on_the_same_canvas() -> None:
    item = ew.Image()
    from endwise.modalities.base import INPUT_ROLE

    old = item.fit([np.zeros((32, 32, 3), np.uint8)] * 3, missing=0, role=INPUT_ROLE)
    new = item.fit([np.zeros((40, 24, 3), np.uint8), np.ones((24, 24, 3), np.uint8)], missing=1, role=INPUT_ROLE)
    found = item.continued(old, new, INPUT_ROLE)
    assert found is not None
    assert (found.height, found.width, found.mean) == (old.height, old.width, old.mean)  # type: ignore[attr-defined]
    assert (found.uniform, found.missing, found.largest) == (False, 1, new.largest)  # type: ignore[attr-defined]


# ---- what is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"inputs": {"message": ew.Text(column="text")}}, ["inputs", "text", "give the input that run's name"]),
        ({"inputs": {"text": ew.Category()}}, ["inputs.text.type", "category"]),
        ({"inputs": {"text": ew.Text(units="bytes")}}, ["inputs.text.units", "'auto'", "write units: auto"]),
        ({"train": {**TINY, "size": "small"}}, ["train.size", "write train.size: tiny"]),
        ({"trunk": {"depth": 1}}, ["trunk.depth", "no trunk:"]),
    ],
)
def test_what_does_not_fit_is_refused_with_the_fix(
    pretrained: ew.Model, settings: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(EndwiseError) as refused:
        ew.fit(recipe(from_run=place(pretrained), **settings), out=tmp_path / "run")
    for word in words:
        assert word in str(refused.value)


def test_a_run_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model"):
        ew.fit(recipe(from_run=tmp_path / "nothing"), out=tmp_path / "run")


# ---- the field -----------------------------------------------------------------------------------------------------------


def test_the_short_form_is_the_long_one() -> None:
    short, long = recipe(from_run="runs/read"), recipe(from_run={"run": "runs/read"})
    assert short == long
    assert short.from_run == FromRun(run="runs/read", freeze=False)
    assert recipe().replace(from_run="runs/read").from_run == short.from_run
    assert short.replace(**{"from_run.freeze": True}).from_run == FromRun(run="runs/read", freeze=True)
    assert short.to_dict()["from_run"] == {"run": "runs/read"}
    assert "from_run" not in recipe().to_dict()
    assert "from_run" in json_schema()["properties"]
    with pytest.raises(RecipeError, match="did you mean 'freeze'"):
        recipe(from_run={"run": "runs/read", "frezze": True})
