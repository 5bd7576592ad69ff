"""Priors: zero where the knowledge holds, a gradient where it does not, and trainings that know of them."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import endwise as ew
from endwise.batch import Batch, Ragged
from endwise.errors import RecipeError
from endwise.model import Model
from endwise.nn.placing import in_place
from endwise.objective import Priors, Randomness, Seen
from endwise.priors import BUILT_IN, STEP, Consistent, Extent, Monotone, Prior, Range, Recorded, Sum, prior_of
from endwise.run import Run
from endwise.stages import direct_recipe, stage_recipe
from tests.test_train import events, recipe, table, weights

COUNT = 6
RAW: dict[str, list[Any]] = {
    "x": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
    "total": [10.0, 12.0, 14.0, 10.0, 12.0, 14.0],
    "one": [4.0, 5.0, 6.0, 4.0, 5.0, 6.0],
    "two": [6.0, 7.0, 8.0, 6.0, 7.0, 8.0],
    "both": [[1.0, 2.0], [2.0, 1.0], [3.0, 3.0], [1.0, 4.0], [0.0, 1.0], [1.0, 0.0]],
    "sky": ["rain", "sun", "snow", "rain", "sun", "snow"],
    "warm": [True, True, False, True, False, False],
}
OUTPUTS: dict[str, Any] = {
    "one": "number",
    "two": "number",
    "both": "number",
    "sky": "category",
    "warm": "boolean",
}


def model() -> Model:
    declared = ew.Recipe(
        data=[{"in memory": True}],
        inputs={"x": "number", "total": "number"},
        outputs=OUTPUTS,
        trunk={"width": 16, "depth": 1, "dropout": 0.3},
        train={"size": "tiny"},
    )
    fields = {**declared.inputs, **declared.outputs}
    contracts = {
        name: item.fit([item.read(raw, str.encode) for raw in RAW[name]], missing=0, role="output")
        for name, item in fields.items()
    }
    return Model.build(declared, contracts, seed=0)


def batch(made: Model) -> Batch:
    fields = {**made.recipe.inputs, **made.recipe.outputs}
    values = {
        name: Ragged.stack([item.transform(item.read(raw, str.encode), made.contracts[name]) for raw in RAW[name]], 0)
        for name, item in fields.items()
    }
    return Batch(
        inputs={name: values[name] for name in made.recipe.inputs},
        targets={name: values[name] for name in made.recipe.outputs},
        present=dict.fromkeys(fields, np.ones(COUNT, dtype=bool)),
        weight=np.ones(COUNT, dtype=np.float32),
        row_ids=np.arange(COUNT),
    ).to("cpu")


MODEL = model()
BATCH = batch(MODEL)


def seen(made: Model = MODEL, **answers: Tensor) -> Seen:
    """A batch as a prior sees it, with these raw predictions in the place of the network's."""
    drawn = Randomness(torch.device("cpu"))
    predictions, _ = made.network.taught(BATCH, 0.5)
    for name, value in answers.items():
        key = "standard" if "standard" in predictions[name] else "logits"
        predictions[name] = {**predictions[name], key: value}
    fields = {**made.recipe.inputs, **made.recipe.outputs}
    return Seen(made.network, BATCH, predictions, fields, made.contracts, 0.5, drawn)


def standard(name: str, values: list[Any]) -> Tensor:
    """Predictions of a number, in the head's own scale."""
    contract: Any = MODEL.contracts[name]
    mean, deviation = torch.tensor(contract.mean), torch.tensor(contract.deviation)
    found = (torch.tensor(values) - mean) / deviation
    return (found if found.ndim > 1 else found.flatten()).requires_grad_()


def held(prior: Prior, **answers: Tensor) -> Tensor:
    prior.check(MODEL.recipe.inputs, MODEL.recipe.outputs)
    return prior.loss(seen(**answers))


# ---- each of them ----------------------------------------------------------------------------------------------------


def test_sum_is_zero_where_parts_add_up_and_pulls_where_not() -> None:
    prior = Sum(of=("one", "two"), to="total")
    right = held(prior, one=standard("one", RAW["one"]), two=standard("two", RAW["two"]))
    assert right.abs().max() < 1e-6
    wrong = standard("one", [value + 1 for value in RAW["one"]])
    off = held(prior, one=wrong, two=standard("two", RAW["two"]))
    scale = math.hypot(MODEL.contracts["one"].deviation[0], MODEL.contracts["two"].deviation[0])  # type: ignore[attr-defined]
    assert off.tolist() == pytest.approx([0.5 / scale**2 if scale > 1 else 1 / scale - 0.5] * COUNT, rel=1e-4)
    off.sum().backward()
    assert wrong.grad is not None
    assert bool((wrong.grad > 0).all())  # less of it
    lists = held(Sum(of=("both",), to=3.0), both=standard("both", [[1.0, 2.0], [3.0, 0.0]] * 3))
    assert lists.abs().max() < 1e-6


def test_range_charges_what_is_outside() -> None:
    deviation = MODEL.contracts["one"].deviation[0]  # type: ignore[attr-defined]
    values = standard("one", [-1.0, 0.1, 1.0, 3.0, 3.9, 6.0])
    found = held(Range(of="one", low=0, high=4), one=values)
    assert found.tolist() == pytest.approx([1 / deviation, 0, 0, 0, 0, 2 / deviation], abs=1e-5)
    found.sum().backward()
    assert values.grad is not None
    assert [float(item) > 0 for item in values.grad] == [False] * 5 + [True]
    assert float(values.grad[0]) < 0
    bounded = held(Range(of="one", high="x"), one=standard("one", [0.0, 1.0, 2.0, 3.0, 4.0, 9.0]))
    assert bounded.tolist() == pytest.approx([0, 0, 0, 0, 0, 4 / deviation], abs=1e-5)
    each = held(Range(of="both", low="x"), both=standard("both", [[5.0, 5.0]] * 5 + [[4.0, 3.0]]))
    assert each.tolist() == pytest.approx([0] * 5 + [3 / math.hypot(*MODEL.contracts["both"].deviation)], abs=1e-5)  # type: ignore[attr-defined]


def test_consistent_charges_the_chance_of_what_cannot_be() -> None:
    """P(snow) P(warm) = 0.5 x 0.8: -log(1 - 0.4)."""
    prior = Consistent(of=("sky", "warm"), impossible=(("snow", True),))
    chances = torch.tensor([0.25, 0.5, 0.25]).log().repeat(COUNT, 1).requires_grad_()  # rain, snow, sun
    warm = torch.full((COUNT,), math.log(0.8 / 0.2), requires_grad=True)
    found = held(prior, sky=chances, warm=warm)
    assert found.tolist() == pytest.approx([-math.log(0.6)] * COUNT, rel=1e-4)
    found.sum().backward()
    assert warm.grad is not None
    assert chances.grad is not None
    assert bool((warm.grad > 0).all())
    assert bool((chances.grad[:, 1] > 0).all())
    cold = held(prior, sky=torch.tensor([-40.0, 40.0, -40.0]).repeat(COUNT, 1), warm=torch.full((COUNT,), -40.0))
    assert cold.abs().max() < 1e-5
    certain = held(prior, sky=torch.tensor([-40.0, 40.0, -40.0]).repeat(COUNT, 1), warm=torch.full((COUNT,), 40.0))
    assert bool(certain.isfinite().all())


class Rule(torch.nn.Module):
    """A network whose answer is known: one = slope x, in deviations of both."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(slope))

    def taught(self, batch: Batch, done: float) -> tuple[dict[str, dict[str, Tensor]], Tensor]:
        contract: Any = MODEL.contracts["x"]
        x = (batch.inputs["x"].values - contract.mean[0]) / contract.deviation[0]
        found = self.slope * x
        return {"one": {"standard": found}, "warm": {"logits": found}}, found

    def head(self, name: str) -> Any:
        return MODEL.network.head(name)


def ruled(slope: float) -> tuple[Seen, Rule]:
    network = Rule(slope)
    predictions, _ = network.taught(BATCH, 0.0)
    fields = {**MODEL.recipe.inputs, **MODEL.recipe.outputs}
    drawn = Randomness(torch.device("cpu"))
    return Seen(network, BATCH, predictions, fields, MODEL.contracts, 0.0, drawn), network  # type: ignore[arg-type]


def test_monotone_charges_the_slope_that_goes_the_wrong_way() -> None:
    rising = Monotone(of="one", along="x")
    for slope, wrong in ((0.7, 0.0), (-0.7, 0.7)):
        given, network = ruled(slope)
        found = rising.loss(given)
        assert found.tolist() == pytest.approx([wrong] * COUNT, abs=1e-4)
        found.mean().backward()
        assert network.slope.grad is not None
        assert float(network.slope.grad) == pytest.approx(-1.0 if wrong else 0.0, abs=1e-4)
    falling = Monotone(of="one", along="x", direction="down")
    assert falling.loss(ruled(-0.7)[0]).abs().max() < 1e-6
    assert bool((falling.loss(ruled(0.7)[0]) > 0.5).all())
    chance = Monotone(of="warm", along="x", direction="down").loss(ruled(2.0)[0])
    assert bool(((chance > 0) & (chance <= 1 / STEP)).all())


def test_the_network_is_asked_again_with_the_same_dropout() -> None:
    made = model()
    made.network.train()
    torch.manual_seed(4)
    given = seen(made)
    after = torch.rand(1)
    again = given.again({})
    assert torch.equal(again.predictions["one"]["standard"], given.predictions["one"]["standard"])
    torch.manual_seed(4)
    assert torch.equal(seen(made).predictions["one"]["standard"], given.predictions["one"]["standard"])
    assert torch.equal(torch.rand(1), after)  # asking again has drawn nothing that counts


def test_rows_without_the_input_that_a_prior_names_do_not_count() -> None:
    priors = Priors([Range(of="one", low="x")], MODEL.recipe.inputs, MODEL.recipe.outputs, MODEL.contracts)
    part = BATCH.rows(slice(0, COUNT))
    part.present["x"] = torch.tensor([True, False, True, False, True, False])
    assert float(priors.denominators(part)["prior.range"]) == 3


# ---- in a training -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Small(Prior):
    """A number of one's own: near zero."""

    type: ClassVar[str] = "small"

    of: str

    def loss(self, seen: Seen) -> Tensor:
        return (seen.number(self.of) / seen.deviation(self.of)).square()


def known(path: Path, *priors: Any, **settings: Any) -> ew.Recipe:
    return recipe(path, steps=12, **settings).replace(**{"objective.priors": list(priors)})


def test_a_prior_is_a_term_like_any_other_and_keeps_its_weight(tmp_path: Path) -> None:
    declared = known(
        table(tmp_path / "t.csv", 60), {"type": "monotone", "of": "total", "along": "a", "weight": 0.5}
    ).replace(**{"objective.weighting": "gradnorm"})
    ew.fit(declared, out=tmp_path / "run")
    steps = [event for event in events(tmp_path / "run") if event["event"] == "step"]
    assert {event["terms"]["prior.monotone"]["weight"] for event in steps} == {0.5}
    assert len({event["terms"]["total.error"]["weight"] for event in steps}) > 1
    assert "grad_norm" in steps[0]["terms"]["prior.monotone"]
    assert steps[0]["loss"] == pytest.approx(sum(term["value"] * term["weight"] for term in steps[0]["terms"].values()))


def test_knowledge_that_the_labels_contradict_changes_the_answers(tmp_path: Path) -> None:
    """The total rises with a; told firmly that it falls, the network no longer says so."""
    path = table(tmp_path / "t.csv", 120)
    said = {"type": "monotone", "of": "total", "along": "a", "direction": "down", "weight": 100.0}
    rises = []
    for name, priors in (("free", []), ("told", [said])):
        made = ew.fit(recipe(path, steps=60).replace(**{"objective.priors": priors}), out=tmp_path / name)
        low, high = (made.predict({"a": value, "b": 0.0})["total"] for value in (-1.0, 1.0))
        rises.append(high - low)
    assert rises[0] > 0.2 > 2 * abs(rises[1]) or rises[1] < rises[0] / 4


@pytest.mark.parametrize("weighting", ["fixed", "pcgrad"])
def test_micro_batches_of_priors_add_up(tmp_path: Path, weighting: str) -> None:
    path = table(tmp_path / "t.csv", 60)
    losses = []
    for micro in (16, 5):
        declared = known(
            path, {"type": "monotone", "of": "total", "along": "a", "direction": "down"}, micro_batch=micro
        ).replace(**{"trunk.dropout": 0.0, "objective.weighting": weighting})
        ew.fit(declared, out=tmp_path / f"micro{micro}")
        losses.append([event["loss"] for event in events(tmp_path / f"micro{micro}") if event["event"] == "step"])
    assert losses[0] == pytest.approx(losses[1], rel=2e-3, abs=1e-4)


def test_a_prior_of_ones_own_trains_and_nobody_needs_it_to_predict(tmp_path: Path) -> None:
    declared = known(table(tmp_path / "t.csv", 60), Small(of="total", name="near"))
    made = ew.fit(declared, out=tmp_path / "run")
    assert declared.replace(**{"train.seed": 0}) == declared
    again = Run.open(tmp_path / "run")
    (kept,) = again.recipe.objective.priors
    assert isinstance(kept, Recorded)
    assert kept.term == "prior.near"
    assert again.recipe.to_dict()["objective"] == declared.to_dict()["objective"]
    assert again.model().predict({"a": 1.0, "b": 1.0})["total"] == made.predict({"a": 1.0, "b": 1.0})["total"]
    before = weights(tmp_path / "run")
    ew.fit(declared, out=tmp_path / "run", resume=True)
    assert weights(tmp_path / "run") == before
    with pytest.raises(RecipeError, match=r"train it from Python"):
        ew.fit(again.recipe, out=tmp_path / "other")
    with pytest.raises(RecipeError, match=r"priors\[0\]\.type = 'small'"):
        ew.Recipe.load(tmp_path / "run" / "recipe.yaml")


def test_priors_survive_being_written(tmp_path: Path) -> None:
    declared = known(
        table(tmp_path / "t.csv"),
        {"type": "sum", "of": "total", "to": "a"},
        {"type": "consistent", "of": ["side", "side"], "impossible": [["left", "right"]]},
    )
    (tmp_path / "again.yaml").write_text(declared.to_yaml())
    assert ew.Recipe.load(tmp_path / "again.yaml") == declared


# ---- what is refused ---------------------------------------------------------------------------------------------------

MISTAKES: list[tuple[Any, str]] = [
    ({"type": "monoton", "of": "total", "along": "a"}, "did you mean 'monotone'"),
    ({"of": "total"}, "a mapping with 'type'"),
    ({"type": "monotone", "of": "total"}, r"priors\[0\]\.along = None"),
    ({"type": "monotone", "of": "side", "along": "a"}, r"prior\.monotone\.of = 'side'.*number or boolean: total"),
    ({"type": "monotone", "of": "total", "along": "total"}, "one of type number: a, b"),
    ({"type": "monotone", "of": "total", "along": "a", "direction": "upp"}, "did you mean 'up'"),
    ({"type": "range", "of": "total"}, "at least one"),
    ({"type": "range", "of": "total", "low": 2, "high": 1}, "exchange the two"),
    ({"type": "range", "of": "total", "lo": 2}, "did you mean 'low'"),
    ({"type": "sum", "of": [], "to": 1}, "at least one"),
    ({"type": "sum", "of": "total", "to": 1, "weight": 0}, "a number above 0"),
    ({"type": "consistent", "of": ["side", "total"], "impossible": [["left", "x"]]}, "one of type category or boolean"),
    ({"type": "consistent", "of": ["side", "side"], "impossible": [["left"]]}, "pairs"),
]


@pytest.mark.parametrize(("prior", "said"), MISTAKES)
def test_a_prior_that_cannot_be_is_refused_with_the_fix(tmp_path: Path, prior: Any, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        known(tmp_path / "t.csv", prior)


def test_a_stage_has_the_priors_of_its_own_answers() -> None:
    """What spans two stages is known to the whole alone."""
    priors = [
        {"type": "range", "of": "mid", "low": 0},
        {"type": "sum", "of": ["mid", "end"], "to": 3},
        {"type": "monotone", "of": "end", "along": "x", "name": "mid"},
    ]
    whole = ew.Recipe(
        data=[{"in memory": True}], inputs={"x": "number"}, outputs={"end": "number"}, objective={"priors": priors},
        stages={"one": {"from": "x", "to": {"mid": "number"}}, "two": {"from": ["mid", "x"], "to": "end"}},
    )  # fmt: skip
    kept = {name: [item.term for item in stage_recipe(whole, name).objective.priors] for name in whole.stages}
    assert kept == {"one": ["prior.range"], "two": ["prior.mid"]}
    assert [item.term for item in direct_recipe(whole).objective.priors] == ["prior.mid"]


def test_two_priors_of_one_name_and_one_term_to_weigh_are_refused(tmp_path: Path) -> None:
    said = {"type": "range", "of": "total", "low": 0}
    with pytest.raises(RecipeError, match="that no other prior has"):
        known(tmp_path / "t.csv", said, said)
    known(tmp_path / "t.csv", said, {**said, "name": "again"})
    alone = {"data": "t.csv", "inputs": {"a": "number"}, "outputs": {"total": "number"}}
    with pytest.raises(RecipeError, match="nothing to weigh one term against"):
        ew.Recipe(**alone, objective={"weighting": "gradnorm", "priors": [said]})
    ew.Recipe(**alone, objective={"weighting": "pcgrad", "priors": [said]})


@dataclass(frozen=True, kw_only=True)
class Wrong(Prior):
    type: ClassVar[str] = "wrong"

    how: str

    def loss(self, seen: Seen) -> Tensor:
        value = seen.number("total")
        return value.mean() if self.how == "shape" else value.detach() if self.how == "detached" else value.round()


@pytest.mark.parametrize(("how", "said"), [("shape", "one value a row"), ("detached", "without gradient")])
def test_a_loss_that_nothing_can_learn_from_is_refused_before_a_step(tmp_path: Path, how: str, said: str) -> None:
    declared = known(table(tmp_path / "t.csv", 60), Wrong(how=how))
    with pytest.raises(RecipeError, match=said):
        ew.fit(declared, out=tmp_path / "run")


def test_a_class_that_training_does_not_have_is_refused_by_name(tmp_path: Path) -> None:
    prior = {"type": "consistent", "of": ["side", "side"], "impossible": [["left", "rigth"]]}
    with pytest.raises(RecipeError, match="did you mean 'right'"):
        ew.fit(known(table(tmp_path / "t.csv", 60), prior), out=tmp_path / "run")


def test_lists_are_refused_where_a_plain_number_is_compared() -> None:
    with pytest.raises(RecipeError, match="plain number in every row"):
        Monotone(of="both", along="x").loss(seen())


def test_every_built_in_prior_says_what_its_fields_mean() -> None:
    for name, cls in BUILT_IN.items():
        assert cls.type == name
        assert all(item.metadata["help"] for item in cls.__dataclass_fields__.values() if item.name != "type")
    assert prior_of(Small(of="x"), "here") == Small(of="x")


# ---- how large things are ----------------------------------------------------------------------------------------------


def proposed(sides: tuple[float, float], at: tuple[float, float], prior: Extent) -> tuple[float, Tensor, Tensor]:
    """What a prior says to a network that is sure of one box [across, down] in a picture 40 across and 20 down; and the gradient
    of the boxes [x0 y0 x1 y1 as shares of the canvas, down before across] and of how sure it is."""
    declared = ew.Recipe(
        name="things", data=[{"in memory": True}], inputs={"image": "image"}, outputs={"things": "boxes"},
        train={"size": "tiny"}, trunk={"width": 32, "depth": 1},
    )  # fmt: skip
    fields = {**declared.inputs, **declared.outputs}
    raw = {
        "image": np.zeros((20, 40, 1), np.uint8),
        "things": [{"label": "nut", "box": [1, 1, 9, 9]}, {"label": "bolt", "box": [1, 1, 9, 9]}],
    }
    contracts = {
        name: item.fit([item.read(raw[name], str.encode)], missing=0, role="input" if name == "image" else "output")
        for name, item in fields.items()
    }
    model = ew.Model.build(declared, contracts, seed=0)
    across, down = at
    box = torch.tensor([[[down, across, down + sides[1], across + sides[0]]]]) / torch.tensor([20, 40, 20, 40])
    boxes, logits = box.requires_grad_(), torch.tensor([[[-30.0, 30.0]]], requires_grad=True)  # a nut: classes by name
    predictions = {
        "things": {
            "one": logits, "many": logits, "boxes": boxes, "places": torch.full((1, 1, 2), 0.5),
            "seen": in_place(1, 2, torch.device("cpu")), "sizes": torch.tensor([[20, 40]]),
        }
    }  # fmt: skip
    prior.check(declared.inputs, declared.outputs)
    (cost,) = prior.loss(
        Seen(
            model.network, Batch({}, {}, {}, torch.ones(1), torch.zeros(1)), predictions, fields, contracts, 0.0,
            Randomness(torch.device("cpu")),
        )
    )  # fmt: skip
    cost.backward()
    assert boxes.grad is not None
    assert logits.grad is not None
    return float(cost.detach()), boxes.grad[0, 0], logits.grad[0, 0]


def test_boxes_are_charged_for_sides_that_things_do_not_have() -> None:
    assert proposed((8, 8), (10, 5), Extent(of="things", sides=(4, 10)))[0] == 0
    cost, pull, _ = proposed((15, 8), (10, 5), Extent(of="things", sides=(4, 10)))
    assert cost == pytest.approx(0.5)  # five pixels of ten
    assert pull[1] < 0 < pull[3]  # descending makes it narrower
    assert pull[[0, 2]].tolist() == [0, 0]
    assert proposed((8, 2), (10, 5), Extent(of="things", sides=(4, 10)))[0] == pytest.approx(0.2)
    assert proposed((8, 2), (10, 18), Extent(of="things", sides=(4, 10)))[0] == 0  # may be cut where the picture ends
    assert proposed((8, 8), (10, 5), Extent(of="things", long=1.5))[0] == 0
    assert proposed((12, 4), (10, 5), Extent(of="things", long=1.5))[0] == pytest.approx(1.0)
    assert proposed((15, 8), (10, 5), Extent(of="things", label="bolt", sides=(4, 10)))[0] == pytest.approx(0, abs=1e-6)
    with pytest.raises(RecipeError, match="one of bolt, nut"):
        proposed((15, 8), (10, 5), Extent(of="things", label="screw", long=2.0))


@pytest.mark.parametrize(
    ("fields", "said"),
    [({}, "at least one"), ({"sides": (3.0, 2.0)}, "the smaller one first"), ({"long": 0.5}, "a number above 1")],
)
def test_an_extent_that_says_nothing_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        Extent(of="b", **fields).check({}, {"b": ew.Boxes()})
    with pytest.raises(RecipeError, match=r"Extent|boxes"):
        Extent(of="n", long=2.0).check({}, {"n": ew.Number()})
