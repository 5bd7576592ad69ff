"""Stages: what a recipe with a pipeline in it refuses, how answers go from one stage to the next, and the regimes."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import endwise as ew
from endwise.batch import Ragged
from endwise.data.dataset import fit_contracts, prepare
from endwise.data.loader import Loader
from endwise.drawing import png
from endwise.errors import DataError, ExportError, RecipeError
from endwise.export import export
from endwise.model import Model
from endwise.recipe import Recipe
from endwise.regimes import _budgets, fit
from endwise.report import build
from endwise.run import Run
from endwise.stages import StagedNetwork, hand_off, stage_recipe
from endwise.testing import check_export

COLOURS = ["red", "green", "blue"]
WORDS = {"red": "rot", "green": "gruen", "blue": "blau"}


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """A number says a colour, the colour a word, and the word's length and the number an answer."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        x = chance.uniform(0, 3)
        colour = COLOURS[int(x)]
        found.append(
            {
                "x": x,
                "colour": colour,
                "dark": colour != "green",
                "word": WORDS[colour],
                "total": len(WORDS[colour]) + x,
            }
        )
    return found


def staged(**changes: Any) -> Recipe:
    values: dict[str, Any] = {
        "name": "chain",
        "data": rows(240),
        "inputs": {"x": "number"},
        "outputs": {"total": "number"},
        "stages": {
            "see": {"from": "x", "to": {"colour": "category"}},
            "say": {"from": "colour", "to": {"word": {"type": "text", "units": "characters", "beams": 1}}},
            "add": {"from": ["word", "x"], "to": "total"},
        },
        "train": {"size": "tiny", "steps": 4, "batch_size": 16, "seed": 0},
    }
    return Recipe(**{**values, **changes})


def changed(stage: str, **fields: Any) -> Recipe:
    """The chain with fields of one stage changed."""
    stages = {name: dict(item) for name, item in staged().to_dict()["stages"].items()}
    declared = {name: item.to_dict() for name, item in staged().outputs.items()}
    stages[stage] = {**stages[stage], **fields}
    return staged(stages=stages, outputs=declared)


# ---- what is refused when the recipe is made ---------------------------------------------------------------------


def test_an_answer_on_the_way_is_an_output_like_any_other() -> None:
    recipe = staged()
    assert list(recipe.outputs) == ["total", "colour", "word"]
    assert recipe.intermediates == ["colour", "word"]
    assert Recipe(**{**recipe.to_dict(), "data": recipe.data}) == recipe


def test_answers_on_the_way_come_in_the_order_of_the_stages_however_they_are_written_down() -> None:
    """So that the truth is put in their place beginning upstream."""
    declared = staged().to_dict()
    names = ["word", "total", "colour"]
    stages = {name: declared["stages"][name] for name in reversed(declared["stages"])}
    recipe = staged(outputs={name: declared["outputs"][name] for name in names}, stages=stages)
    assert list(recipe.outputs) == names
    assert recipe.intermediates == ["colour", "word"]


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ({"a": {"from": ["x", "two"], "to": {"one": "category"}}, "b": {"from": "one", "to": {"two": "category"}},
          "c": {"from": "one", "to": "total"}}, "circle"),
        ({"a": {"from": "x", "to": {"one": "category"}}, "b": {"from": "x", "to": {"one": "category"}}}, "one place"),
        ({"a": {"from": "x", "to": {"one": "category"}}, "b": {"from": "one", "to": ["total", "one"]}}, "no other stage"),
        ({"a": {"from": "y", "to": "total"}}, "did you mean|one of"),
        ({"a": {"from": "x", "to": {"one": "category"}}}, "outputs.total"),
        ({"a": {"from": "x", "to": "totals"}}, "total"),
        ({"a": {"from": "x", "to": "total", "hand_of": "soft"}}, "hand_off"),
        ({"a": {"from": "x", "to": {"one": {"type": "audio"}}}, "b": {"from": "one", "to": "total"}}, "latent"),
        ({"a": {"from": "x", "to": "total", "temperature": [1, 0]}}, "above 0"),
    ],
)  # fmt: skip
def test_stages_that_cannot_be_are_refused_with_the_fix(stages: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        staged(stages=stages)


def test_a_regime_without_stages_and_an_input_that_nothing_reads_are_refused() -> None:
    with pytest.raises(RecipeError, match="remove regime"):
        Recipe(data=rows(9), inputs={"x": "number"}, outputs={"total": "number"}, regime="joint")
    with pytest.raises(RecipeError, match=r"inputs\.dark"):
        staged(inputs={"x": "number", "dark": "boolean"})


@pytest.mark.parametrize("regime", ["modular", "modular_predicted", "warm_joint", "joint"])
def test_an_answer_that_goes_on_as_tokens_alone_is_refused_between_parts(regime: str) -> None:
    stages = {
        "a": {"from": "x", "to": {"one": {"type": "structure"}}},
        "b": {"from": "one", "to": "total", "hand_off": "latent"},
    }
    table = [{"x": 1.0, "one": None, "total": 2.0}] * 9
    if regime in ("warm_joint", "joint"):
        staged(data=table, stages=stages, regime=regime)
        stages["b"]["hand_off"] = "hard"
        with pytest.raises(RecipeError, match="hand_off: latent"):
            staged(data=table, stages=stages, regime=regime)
        return
    with pytest.raises(RecipeError, match="regime: warm_joint"):
        staged(data=table, stages=stages, regime=regime)


@pytest.mark.parametrize("regime", ["modular", "warm_joint", "joint_goal_only"])
@pytest.mark.parametrize("column", ["empty", "absent"])
def test_an_answer_on_the_way_without_labels_is_refused(regime: str, column: str, tmp_path: Path) -> None:
    table = [{name: value for name, value in row.items() if name != "colour"} for row in rows(60)]
    if column == "empty":
        table = [{**row, "colour": None} for row in table]
    declared = staged(data=table, regime=regime)
    with pytest.raises(DataError, match=r"stages\.see\.to = \"'colour'.*remove the stages"):
        fit(declared, out=tmp_path / "refused")


# ---- hand-offs ---------------------------------------------------------------------------------------------------

OUTPUTS: dict[str, Any] = {
    "colour": "category",
    "dark": "boolean",
    "total": "number",
    "tags": "tags",
    "spelt": {"type": "text", "decoder": "ctc", "frames": 6, "units": "characters"},
    "written": {"type": "text", "decoder": "attention", "units": "characters", "beams": 1},
}


def one_stage(output: str, how: str, **stage: Any) -> tuple[Recipe, Model, StagedNetwork, Any]:
    """A two-stage model around one kind of intermediate answer, with a batch of its rows."""
    table = [{**row, "tags": [row["colour"], "seen"], "spelt": row["word"], "written": row["word"], "end": "ab"[i % 2]}
             for i, row in enumerate(rows(60))]  # fmt: skip
    recipe = Recipe(
        data=table, inputs={"x": "number"}, outputs={"end": "category"},
        stages={"first": {"from": "x", "to": {output: OUTPUTS[output]}},
                "then": {"from": output, "to": "end", "hand_off": how, **stage}},
        train={"size": "tiny"}, regime="joint",
    )  # fmt: skip
    dataset = prepare(recipe)
    contracts = fit_contracts(recipe, dataset)
    model = Model.build(recipe, contracts, seed=3)
    batch = Loader(dataset, recipe, contracts, dataset.splits.train, batch_size=12, seed=0, shuffle=True).batch(0)
    network = model.network
    assert isinstance(network, StagedNetwork)
    with torch.no_grad():  # an untrained text is mostly empty: let it say something
        for name, weight in network.stage("first").named_parameters():
            if name.endswith(("outward.bias", "decoder.bias")) and output in ("spelt", "written"):
                weight[0] = -9.0
    return recipe, model, network, batch.to("cpu")


def hows(output: str) -> list[str]:
    recipe = Recipe(data=rows(9), inputs={"x": "number"}, outputs={output: OUTPUTS[output]})
    return sorted(recipe.outputs[output].hand_offs)


@pytest.mark.parametrize(("output", "how"), [(output, how) for output in OUTPUTS for how in hows(output)])
@pytest.mark.parametrize("detach", [False, True])
def test_a_gradient_comes_back_through_a_hand_off_or_is_cut_as_declared(output: str, how: str, detach: bool) -> None:
    _, _, network, batch = one_stage(output, how, detach=detach)
    network.train()
    torch.manual_seed(0)
    predictions, _ = network.taught(batch, 0.0)
    network.head("end").loss(predictions["end"], batch.targets["end"].values, batch.targets["end"].sizes)[
        "cross_entropy"
    ].sum().backward()
    reached = sum(
        float(weight.grad.abs().sum()) for weight in network.stage("first").parameters() if weight.grad is not None
    )
    assert (reached > 0) == (how != "hard" and not detach)


@pytest.mark.parametrize("output", OUTPUTS)
def test_hard_is_to_decode_write_and_read_again(output: str) -> None:
    recipe, model, network, batch = one_stage(output, "hard")
    network.eval()
    declared, contract = recipe.outputs[output], model.contracts[output]
    with torch.no_grad():
        predictions, _ = network.run(batch.inputs, batch.present)
        decoded = model.decoded({output: predictions[output]})[output]
        answers = model.written({output: decoded}, len(batch))[output]
        again = [declared.transform(declared.read(answer.value, lambda _: b""), contract) for answer in answers]
        stage = network.stage("then")
        flags = {output: torch.ones(len(batch), dtype=torch.bool)}
        reread = stage({output: Ragged.stack(again, declared.axes).to("cpu")}, flags)
    torch.testing.assert_close(predictions["end"]["logits"], reread["end"]["logits"], rtol=0, atol=0)


@pytest.mark.parametrize("output", [name for name in OUTPUTS if name != "total"])
def test_soft_without_temperature_is_hard(output: str) -> None:
    _, _, cold, batch = one_stage(output, "soft", temperature=[1.0, 1e-6])
    _, _, hard, _ = one_stage(output, "hard")
    cold.eval()
    hard.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            cold(batch.inputs, batch.present)["end"]["logits"], hard(batch.inputs, batch.present)["end"]["logits"]
        )


def drawn(regime: str, **changes: Any) -> Recipe:
    """A picture in two greys that is drawn lighter, and from what was drawn which of the two it is."""
    greys = [np.full((8, 8, 3), 60 + 120 * (i % 2) + i, np.uint8) for i in range(24)]
    table = [{"photo": png(grey), "lighter": png(grey + 20), "kind": "ab"[i % 2]} for i, grey in enumerate(greys)]
    stages = {"draw": {"from": "photo", "to": {"lighter": "image"}},
              "tell": {"from": "lighter", "to": "kind", "hand_off": "hard"}}  # fmt: skip
    recipe = Recipe(data=table, inputs={"photo": {"type": "image", "side_px": 16}}, outputs={"kind": "category"}, stages=stages,
                    regime=regime, train={"size": "tiny", "steps": 6})  # fmt: skip
    return recipe.replace(**changes) if changes else recipe


@pytest.mark.parametrize("regime", ["modular", "modular_predicted", "warm_joint", "joint"])
def test_a_picture_goes_on_as_a_picture(regime: str, tmp_path: Path) -> None:
    model = fit(drawn(regime), out=tmp_path / "run")
    row = {"photo": png(np.full((8, 8, 3), 180, np.uint8))}
    said = model.predict(row)
    assert said["lighter"].pixels.shape == (8, 8, 3)
    if regime == "modular":  # the second part alone says the same of what the first one drew
        then = Run.open(tmp_path / "run" / "stages" / "tell").model()
        again = then.predict({"lighter": png(said["lighter"].pixels)})
        probabilities = [one.answers["kind"].detail["probabilities"] for one in (said, again)]
        assert probabilities[0] == pytest.approx(probabilities[1], abs=1e-6)


def test_what_is_written_and_read_again_is_in_no_graph(tmp_path: Path) -> None:
    model = fit(drawn("joint"), out=tmp_path / "run")
    rows = [{"photo": png(np.full((8, 8, 3), 9 * i, np.uint8))} for i in range(8)]
    with pytest.raises(ExportError, match=r"hard, of lighter.*hand_off: latent"):
        export(model, tmp_path / "bundle", examples=rows)


@given(st.integers(0, 10_000), st.floats(0.05, 5), st.booleans())
@settings(max_examples=40, deadline=None)
def test_straight_through_is_the_answer_itself_and_soft_is_chances(seed: int, temperature: float, each: bool) -> None:
    from endwise.nn.interface import Handed

    torch.manual_seed(seed)
    scores = torch.randn(5, 4, 7)
    hard = (scores > 0).float() if each else scores.argmax(-1)
    handed = Handed(hard, torch.full((5, 1), 4), scores, each)
    one_hot = hard if each else torch.nn.functional.one_hot(hard, 7).float()
    soft = hand_off(handed, "soft", temperature=temperature, training=True)
    straight = hand_off(handed, "straight_through", temperature=temperature, training=True)
    torch.testing.assert_close(straight, one_hot, atol=1e-6, rtol=0)
    assert bool(((soft >= 0) & (soft <= 1)).all())
    if not each:
        torch.testing.assert_close(soft.sum(-1), torch.ones(5, 4))
        drawn = hand_off(handed, "gumbel", temperature=temperature, training=True)
        torch.testing.assert_close(drawn.sum(-1), torch.ones(5, 4))
        assert bool((drawn.max(-1).values > 0.999).all())


def test_true_answers_are_in_the_place_of_some_at_first_and_of_none_later() -> None:
    _, model, network, batch = one_stage("written", "soft", teacher_forcing=1.0)
    network.train()
    truth = network.stage("then").tokens(
        {"written": Ragged(torch.nn.functional.one_hot(batch.targets["written"].values, model.contracts["written"].num_symbols).float(),
                           batch.targets["written"].sizes)},
        {"written": torch.ones(len(batch), dtype=torch.bool)},
    ).mask.sum(1)  # fmt: skip
    assert (
        network.run(batch.inputs, batch.present, gold=batch, done=0.0)[1]["then"].mask.sum(1).tolist() == truth.tolist()
    )
    late = network.run(batch.inputs, batch.present, gold=batch, done=0.5)[1]["then"].mask.sum(1).tolist()
    network.eval()
    assert (
        network.run(batch.inputs, batch.present, gold=batch, done=0.0)[1]["then"].mask.sum(1).tolist() != truth.tolist()
    )
    assert late != truth.tolist()


# ---- regimes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("regime", ["modular", "modular_predicted", "warm_joint", "joint", "joint_goal_only", "direct"])
def test_every_regime_trains_saves_and_answers(regime: str, tmp_path: Path) -> None:
    model = ew.fit(staged(regime=regime), out=tmp_path / "run")
    answer = model.predict({"x": 1.5})
    again = Model.load(tmp_path / "run" / "model").predict({"x": 1.5})
    assert answer.to_dict() == again.to_dict()
    names = ["total"] if regime == "direct" else ["total", "colour", "word"]
    assert list(answer.answers) == names
    assert model.run is not None
    assert list(model.run.read("metrics.json")["outputs"]) == names


def test_modular_is_its_stages_one_after_the_other(tmp_path: Path) -> None:
    model = ew.fit(staged(regime="modular"), out=tmp_path / "run")
    see, say = (Run.open(tmp_path / "run" / "stages" / name).model() for name in ("see", "say"))
    for x in (0.2, 1.5, 2.9):
        whole = model.predict({"x": x})
        colour = see.predict({"x": x})["colour"]
        assert whole["colour"] == colour
        assert whole["word"] == say.predict({"colour": colour})["word"]


def test_a_finished_stage_is_not_trained_again_and_another_run_can_stand_in(tmp_path: Path) -> None:
    ew.fit(staged(regime="modular"), out=tmp_path / "run")
    weights = tmp_path / "run" / "stages" / "see" / "model" / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    ew.fit(staged(regime="modular"), out=tmp_path / "run", resume=True)
    assert weights.stat().st_mtime_ns == before
    stages = staged().to_dict()["stages"]
    stages["see"]["run"] = str(tmp_path / "run" / "stages" / "see")
    outputs = {name: item.to_dict() for name, item in staged().outputs.items()}
    other = ew.fit(staged(regime="warm_joint", stages=stages, outputs=outputs), out=tmp_path / "other")
    assert not (tmp_path / "other" / "stages" / "see").exists()
    assert "colour" in other.predict({"x": 0.5}).answers


def test_a_finished_stage_of_another_recipe_or_of_other_rows_is_not_taken(tmp_path: Path) -> None:
    recipe, stages = staged(regime="modular"), tmp_path / "stages"
    fit(recipe, out=tmp_path / "first", stages_in=stages)
    with pytest.raises(RecipeError, match=r"train\.steps = 5"):
        fit(recipe.replace(**{"train.steps": 5}), out=tmp_path / "second", stages_in=stages)
    whole = prepare(recipe)
    fewer = whole.with_sides(train=whole.splits.train[:50])
    with pytest.raises(DataError, match="begun with"):
        fit(recipe, out=tmp_path / "third", stages_in=stages, dataset=fewer)


def test_a_stage_that_reads_tokens_begins_with_layers_that_fit_or_not_at_all(tmp_path: Path) -> None:
    ew.fit(stage_recipe(staged(), "add", **{"trunk.width": 48}), out=tmp_path / "add")
    stages = {**swapped("warm_joint", add=tmp_path / "add").to_dict()["stages"]}
    stages["add"]["hand_off"] = "latent"
    recipe = staged(stages=stages, outputs={name: item.to_dict() for name, item in staged().outputs.items()})
    with pytest.raises(RecipeError, match=r"stages\.add\.run.*layers"):
        ew.fit(recipe, out=tmp_path / "run")


# ---- functions in the place of a stage ---------------------------------------------------------------------------


def spelt(answers: dict[str, Any]) -> float:
    """As long as the German word of the colour."""
    return float(len(WORDS[answers["colour"]]))


def computed(by: Any = spelt, to: Any = "number", **changes: Any) -> Recipe:
    data = [{**row, "letters": len(row["word"]), "long": len(row["word"]) > 4} for row in rows(240)]
    return staged(
        data=data,
        outputs={"long": "boolean"},
        stages={
            "see": {"from": "x", "to": {"colour": "category"}},
            "count": {"from": "colour", "to": {"letters": to}, "by": by},
            "judge": {"from": "letters", "to": "long"},
        },
        **{"regime": "modular", **changes},
    )


@pytest.mark.parametrize("weighting", ["fixed", "pcgrad"])
def test_a_function_answers_a_stage(weighting: str, tmp_path: Path) -> None:
    model = ew.fit(computed(objective={"weighting": weighting}), out=tmp_path / "run")
    for x in (0.2, 1.5, 2.9):
        answers = model.predict({"x": x})
        assert answers["letters"] == len(WORDS[answers["colour"]])
    assert {path.name for path in (tmp_path / "run" / "stages").iterdir()} == {"see", "judge"}
    assert model.run is not None
    assert model.run.read("metrics.json")["outputs"]["letters"]["mae"]["n"] > 0
    again = Model.load(tmp_path / "run" / "model", functions={"count": spelt})
    assert again.predict({"x": 0.2}).to_dict() == model.predict({"x": 0.2}).to_dict()
    with pytest.raises(ew.EndwiseError, match=r"computed by .*spelt.*functions="):
        Model.load(tmp_path / "run" / "model").predict({"x": 0.2})


def test_a_function_may_answer_a_class_and_is_told_when_it_cannot_be_read(tmp_path: Path) -> None:
    model = ew.fit(computed(lambda answers: str(len(WORDS[answers["colour"]])), "category"), out=tmp_path / "run")
    assert model.predict({"x": 0.2})["letters"] == "3"
    raising = (lambda answers: answers["color"], r"stages\.count\.by = \"KeyError: 'color', for \{'colour': .*whatever")
    usual = r"stages\.count\.by.*whatever"
    for name, (wrong, says) in {
        "unseen": (lambda _: "seven", usual),
        "none": (lambda _: None, usual),
        "raises": raising,
    }.items():
        with pytest.raises(RecipeError, match=says):
            ew.fit(computed(wrong, "category"), out=tmp_path / name)
    with pytest.raises(ew.EndwiseError, match="in no graph"):
        ew.export(model, tmp_path / "bundle", examples=[{"x": 0.1 * place} for place in range(6)])


def test_a_function_is_given_true_answers_where_they_are_asked_for() -> None:
    """What stands for what an oracle would have said, text included."""
    data = [{**row, "letters": len(row["word"])} for row in rows(60)]
    recipe = staged(
        data=data, outputs={"letters": "number"}, regime="modular",
        stages={"say": {"from": "x", "to": {"word": {"type": "text", "decoder": "ctc", "frames": 8, "units": "characters"}}},
                "count": {"from": "word", "to": "letters", "by": lambda answers: len(answers["word"])}},
    )  # fmt: skip
    dataset = prepare(recipe)
    model = Model.build(recipe, fit_contracts(recipe, dataset), seed=0)
    network = model.network
    assert isinstance(network, StagedNetwork)
    batch = Loader(dataset, recipe, model.contracts, np.arange(9), batch_size=9, seed=0, shuffle=False).batch(0)
    sent = batch.to("cpu")
    network.eval()
    with torch.no_grad():
        found, _ = network.run(sent.inputs, sent.present, gold=sent, truth=["word"])
    assert network.head("letters").decode(found["letters"])["value"].tolist() == [
        data[row]["letters"] for row in range(9)
    ]


def test_a_function_may_stand_at_the_beginning_and_read_raw_values(tmp_path: Path) -> None:
    """Pixels, a text and a number, as they were read; what is missing is None. Only the function reads them."""
    rng = np.random.default_rng(0)
    data = []
    for place in range(120):
        shade = int(rng.integers(0, 256))
        data.append(
            {"photo": np.full((8, 8, 3), shade, np.uint8), "note": "a" * (1 + place % 3), "size": float(place % 5),
             "bright": float(shade) + place % 3 + 1 + place % 5, "high": shade > 128}
        )  # fmt: skip
    seen = []

    def measured(given: dict[str, Any]) -> float:
        seen.append(given)
        return float(given["photo"].mean()) + len(given["note"] or "") + given["size"]

    recipe = Recipe(
        name="measured", data=data, inputs={"photo": {"type": "image", "side_px": 8}, "note": {"type": "text", "units": "bytes", "optional": True}, "size": "number"},
        outputs={"high": "boolean"}, regime="modular", train={"size": "tiny", "steps": 4, "batch_size": 16},
        stages={"measure": {"from": ["photo", "note", "size"], "to": {"bright": "number"}, "by": measured},
                "judge": {"from": "bright", "to": "high"}},
    )  # fmt: skip
    model = ew.fit(recipe, out=tmp_path / "run")
    said = model.predict({"photo": data[0]["photo"], "note": "aa", "size": 3.0})
    assert said["bright"] == pytest.approx(float(data[0]["photo"][0, 0, 0]) + 5, abs=1e-3)
    assert seen[-1]["photo"].dtype == np.uint8
    assert seen[-1]["note"] == "aa"
    assert model.run is not None
    assert build(model.run).is_file()
    model.predict({"photo": data[0]["photo"], "size": 3.0})
    assert seen[-1]["note"] is None


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (lambda: computed("spelt"), "only Python"),
        (lambda: computed(regime="warm_joint"), "regime: modular"),
        (lambda: computed(to={"type": "text"}), "number, category or boolean"),
        (lambda: staged(stages={"see": {"from": "x", "to": {"hue": "embedding"}},
                                "add": {"from": ["hue", "x"], "to": "total", "by": spelt}}, regime="modular"), "embedding"),
        (lambda: staged(inputs={"x": "number", "word": "text"}, stages={"add": {"from": ["x", "word"], "to": "total", "by": spelt}},
                        regime="modular"), "units: bytes, column: word"),
    ],
)  # fmt: skip
def test_functions_that_cannot_be_are_refused(recipe: Any, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        recipe()


# ---- encoders in common ------------------------------------------------------------------------------------------


def sharing(**changes: Any) -> Recipe:
    """The number is read by two stages with one encoder, which sees more of it than a colour."""
    return staged(
        stages={
            "see": {"from": "x", "to": {"colour": "category"}},
            "add": {"from": ["colour", "x"], "to": "total", "shares": "x"},
        },
        **changes,
    )


@pytest.mark.parametrize("regime", ["modular", "warm_joint", "joint"])
def test_stages_share_an_encoder(regime: str, tmp_path: Path) -> None:
    model = ew.fit(sharing(regime=regime), out=tmp_path / "run")
    network = model.network
    assert isinstance(network, StagedNetwork)
    assert network.stage("see").encoder("x") is network.stage("add").encoder("x")
    again = Model.load(tmp_path / "run" / "model")
    assert again.predict({"x": 1.0}).to_dict() == model.predict({"x": 1.0}).to_dict()
    if regime == "modular":
        see, add = (Run.open(tmp_path / "run" / "stages" / name).model() for name in ("see", "add"))
        one, other = see.network.encoder("x").state_dict(), add.network.encoder("x").state_dict()
        assert all(torch.equal(value, other[key]) for key, value in one.items())
        assert model.predict({"x": 2.5})["colour"] == see.predict({"x": 2.5})["colour"]


def test_a_shared_encoder_speaks_once_and_learns_from_both() -> None:
    recipe = sharing(regime="joint")
    dataset = prepare(recipe)
    model = Model.build(recipe, fit_contracts(recipe, dataset), seed=0)
    batch = Loader(dataset, recipe, model.contracts, dataset.splits.train, batch_size=8, seed=0, shuffle=True).batch(0)
    network, spoken = model.network, list[str]()
    encoder = network.encoder("x")
    encoder.register_forward_hook(lambda *_: spoken.append("x"))
    predictions, _ = network.taught(batch.to("cpu"), 0.0)
    assert spoken == ["x"]
    for output, term in (("colour", "logits"), ("total", "standard")):
        network.zero_grad()
        predictions[output][term].sum().backward(retain_graph=True)
        assert any(weight.grad is not None and bool(weight.grad.any()) for weight in encoder.parameters())


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ({"see": {"from": "x", "to": {"colour": "category"}, "shares": "x"}, "add": {"from": ["colour", "x"], "to": "total"}},
         r"stages\.see\.shares.*earlier stage"),
        ({"see": {"from": "x", "to": {"colour": "category"}}, "add": {"from": ["colour", "x"], "to": "total", "shares": "colour"}},
         r"stages\.add\.shares.*x"),
        ({"see": {"from": "x", "to": {"colour": "category"}},
          "add": {"from": ["colour", "x"], "to": "total", "shares": "x", "run": "runs/other"}}, r"stages\.add\.run"),
    ],
)  # fmt: skip
def test_what_cannot_be_shared_is_refused(stages: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        staged(stages=stages)


# ---- stages of other runs ----------------------------------------------------------------------------------------


def split_rows(count: int) -> list[dict[str, Any]]:
    """Rows that are on the same side in every run."""
    return [{**row, "split": "train" if place % 4 else "val"} for place, row in enumerate(rows(count))]


def swapped(regime: str, data: Any = None, **runs: Path) -> Recipe:
    """The chain with stages of other runs."""
    stages = staged().to_dict()["stages"]
    for stage, run in runs.items():
        stages[stage]["run"] = str(run)
    outputs = {name: item.to_dict() for name, item in staged().outputs.items()}
    return staged(regime=regime, stages=stages, outputs=outputs, data=data or rows(240))


def test_a_stage_is_swapped_without_touching_the_rest(tmp_path: Path) -> None:
    """Another run of the first stage, and the others as they were: of the staged run, and of their own ones."""
    data = split_rows(120)
    first = ew.fit(staged(regime="modular", data=data), out=tmp_path / "first")
    other = ew.fit(stage_recipe(staged(data=data), "see", **{"train.seed": 5}), out=tmp_path / "see")
    whole = tmp_path / "first"
    made = ew.fit(
        swapped("modular", data, see=tmp_path / "see", say=whole / "stages" / "say", add=whole), out=tmp_path / "made"
    )
    assert not list((tmp_path / "made").glob("stages/*"))
    ours, theirs = made.network, first.network
    assert isinstance(ours, StagedNetwork)
    assert isinstance(theirs, StagedNetwork)
    for name, source in (("see", other.network), ("say", theirs.stage("say")), ("add", theirs.stage("add"))):
        own = dict(ours.stage(name).named_parameters())  # buffers: temperatures are set on the whole
        for key, value in source.named_parameters():
            assert torch.equal(own[key], value), (name, key)


def test_joint_begins_with_the_runs_that_stages_name(tmp_path: Path) -> None:
    ew.fit(stage_recipe(staged(), "see"), out=tmp_path / "see")
    ew.fit(swapped("joint", see=tmp_path / "see"), out=tmp_path / "run")
    assert set(Run.open(tmp_path / "run").read("stages.json")) == {"see"}


def test_a_run_with_a_class_from_outside_can_be_begun_with(tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Reading(ew.Number):
        type: ClassVar[str] = "reading"

    ew.fit(stage_recipe(staged(inputs={"x": Reading()}), "see"), out=tmp_path / "see")
    ew.fit(swapped("joint", see=tmp_path / "see").replace(**{"inputs.x": Reading()}), out=tmp_path / "run")
    assert set(Run.open(tmp_path / "run").read("stages.json")) == {"see"}


def test_two_runs_that_mean_different_things_are_not_put_together(tmp_path: Path) -> None:
    """Trained on rows without blue: its first colour is the other's second."""
    data = split_rows(120)
    ew.fit(stage_recipe(staged(data=data), "say"), out=tmp_path / "say")
    fewer = staged(data=[row for row in data if row["colour"] != "blue"])
    ew.fit(stage_recipe(fewer, "see"), out=tmp_path / "see")
    with pytest.raises(RecipeError, match=r"stages\.say\.run.*same about colour"):
        ew.fit(swapped("modular", data, see=tmp_path / "see", say=tmp_path / "say"), out=tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_the_goal_alone_moves_the_first_stage_without_its_labels(tmp_path: Path) -> None:
    model = ew.fit(staged(regime="joint_goal_only"), out=tmp_path / "run")
    steps = [event for event in model.run.events() if event["event"] == "step"]  # type: ignore[union-attr]
    assert all(event["terms"]["colour.cross_entropy"]["weight"] == 0 for event in steps)
    assert all(event["terms"]["total.error"]["weight"] == 1 for event in steps)


@pytest.mark.slow
@pytest.mark.parametrize("hand_off", ["hard", "soft", "latent"])
def test_stages_export_as_one_graph(tmp_path: Path, hand_off: str) -> None:
    stages = {name: {**stage, "hand_off": hand_off} for name, stage in staged().to_dict()["stages"].items()}
    outputs = {name: item.to_dict() for name, item in staged().outputs.items()}
    model = ew.fit(staged(stages=stages, outputs=outputs), out=tmp_path / "run")
    check_export(model, [{"x": row["x"]} for row in rows(12)])


def test_a_stage_by_itself_reads_the_true_answers_of_the_others() -> None:
    alone = stage_recipe(staged(), "say")
    assert alone.inputs["colour"].handed
    assert Recipe(**{**alone.to_dict(), "data": alone.data}) == alone
    np.testing.assert_array_equal(sorted(alone.outputs), ["word"])


def test_a_text_beside_what_another_stage_has_seen_is_a_question_about_it() -> None:
    """Its words and the answer on the way decide together: adding them up cannot say whether they agree."""
    stages = {
        "see": {"from": "x", "to": {"colour": "category"}},
        "reply": {"from": ["colour", "question"], "to": "dark"},
    }
    recipe = Recipe(
        data=rows(40), inputs={"x": "number", "question": "text"}, outputs={"dark": "boolean"}, stages=stages
    )
    alone = stage_recipe(recipe, "reply")
    assert alone.inputs["question"].beside(alone.inputs, alone.outputs).reading == "context"  # type: ignore[attr-defined]


def test_a_stage_has_its_part_of_a_budget_by_its_work(tmp_path: Path) -> None:
    """Half of it is the stages'; a resumed training finds it shared out as it was."""
    recipe = staged(regime="warm_joint").replace(**{"train.budget": 40.0, "train.steps": None, "train.epochs": 1})
    dataset = prepare(recipe)
    contracts = fit_contracts(recipe, dataset)
    shared_out = _budgets(recipe, tmp_path / "stages", ["see", "say"], dataset, contracts, 0.5)
    assert sum(shared_out.values()) == pytest.approx(20.0)
    # a twentieth beside the whole of the other, however much longer that trains
    assert min(shared_out.values()) >= 0.95
    assert _budgets(recipe, tmp_path / "stages", ["see", "say"], dataset, contracts, 0.5) == shared_out
    assert _budgets(recipe, tmp_path / "one", ["see"], dataset, contracts, 0.5) == {"see": 20.0}
    recipe = recipe.replace(**{"train.budget": None})
    assert _budgets(recipe, tmp_path / "none", ["see", "say"], dataset, contracts, 0.5) == {}


# ---- stages that read numbers and classes ------------------------------------------------------------------------------


def tabular(**settings: Any) -> ew.Recipe:
    rows = [{"a": float(at % 5), "b": float(at % 7), "kind": "xy"[at % 2], "y": float(at % 3)} for at in range(120)]
    act = {"from": ["kind", "b"], "to": "y", **settings}
    return ew.Recipe(
        name="tabular", data=rows, inputs={"a": "number", "b": "number"}, outputs={"kind": "category", "y": "number"},
        stages={"see": {"from": "a", "to": "kind"}, "act": act}, goal={"output": "y", "metric": "mae", "direction": "min"},
        train={"steps": 6, "size": "tiny", "batch_size": 16},
    )  # fmt: skip


@pytest.mark.parametrize("hand_off", ["soft", "latent"])
def test_stages_of_numbers_and_classes_stand_together_as_they_stood_apart(tmp_path: Path, hand_off: str) -> None:
    """What is behind an answer is tokens, and what is in it is one: the stage's trunk is the same in both trainings."""
    model = ew.fit(tabular(hand_off=hand_off), out=tmp_path / "run")
    assert model.run is not None
    assert model.run.read("stages.json")["act"]["numbers"] > 0


def test_a_stage_is_not_begun_with_a_run_of_other_inputs_in_their_places(tmp_path: Path) -> None:
    turned = tabular()
    turned = turned.replace(**{"stages.act.from": ["b", "kind"]})
    ew.fit(stage_recipe(turned, "act"), out=tmp_path / "act")
    with pytest.raises(ew.EndwiseError, match="name them in that order"):
        ew.fit(tabular(run=str(tmp_path / "act")), out=tmp_path / "run")
