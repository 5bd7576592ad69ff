"""Masked prediction: which places are hidden, that nothing gives them away, and what a run without labels is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import endwise as ew
from endwise.data.dataset import fit_contracts, prepare
from endwise.errors import RecipeError
from endwise.model import Model
from endwise.nn.hiding import PADDING, NumberRestorer, SymbolRestorer, hidden_places
from endwise.testing import cases
from endwise.testing.case import PARTNER

NOUNS, VERBS, PLACES = ("dog", "cat", "bird", "horse"), ("sleeps", "runs", "waits"), ("barn", "house", "garden")
SENTENCES = [f"the {noun} {verb} in the {place}" for noun in NOUNS for verb in VERBS for place in PLACES]


def recipe(**settings: Any) -> ew.Recipe:
    fields: dict[str, Any] = {
        "name": "sentences",
        "data": [{"text": text} for text in SENTENCES * 3],
        "inputs": {"text": ew.Text(units="bpe")},
        "outputs": {"restored": ew.Masked()},
        "train": ew.Train(steps=60, size="tiny", batch_size=16),
    }
    return ew.Recipe(**{**fields, **settings})


def untrained(declared: ew.Recipe) -> tuple[Model, Any]:
    dataset = prepare(declared)
    contracts = fit_contracts(declared, dataset)
    return Model.build(declared, contracts, seed=0), dataset


# ---- which places ------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.floats(0.05, 0.9), st.integers(1, 8), st.booleans())
def test_real_places_are_hidden_at_least_one_a_row(
    lengths: list[int], share: float, longest: int, training: bool
) -> None:
    real = torch.arange(41) < torch.tensor(lengths)[:, None]
    where = hidden_places(real, share, training=training, longest=longest)
    assert not (where & ~real).any()
    assert (where.any(1) == (torch.tensor(lengths) > 0)).all()


@given(st.integers(1, 40), st.integers(0, 30), st.floats(0.05, 0.9), st.integers(1, 8))
def test_outside_of_training_a_row_is_asked_for_the_same_whatever_is_beside_it(
    length: int, room: int, share: float, longest: int
) -> None:
    alone = hidden_places(torch.ones(1, length, dtype=torch.bool), share, training=False, longest=longest)
    real = torch.arange(length + room) < torch.tensor([[length], [length + room]])
    among = hidden_places(real, share, training=False, longest=longest)
    assert torch.equal(among[:1, :length], alone)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("longest", [1, 5])
def test_about_the_share_is_hidden(training: bool, longest: int) -> None:
    torch.manual_seed(0)
    where = hidden_places(torch.ones(64, 200, dtype=torch.bool), 0.3, training=training, longest=longest)
    assert float(where.float().mean()) == pytest.approx(0.3, abs=0.03)


def test_training_draws_anew() -> None:
    real = torch.ones(4, 50, dtype=torch.bool)
    assert not torch.equal(hidden_places(real, 0.3, training=True), hidden_places(real, 0.3, training=True))


# ---- what is charged ----------------------------------------------------------------------------------------------------


def test_symbols_cost_their_cross_entropy_and_padding_nothing() -> None:
    restore = SymbolRestorer(torch.nn.Embedding(11, 8), 2, gain=1.0)
    values, stood = torch.randn(5, 8), torch.tensor([[1, 2], [3, PADDING], [4, 5], [6, 7], [PADDING, PADDING]])
    nothing = torch.full((5,), PADDING)
    with torch.no_grad():
        cost = restore(values, stood)
        alone = restore(values, torch.stack([stood[:, 0], nothing], dim=1))
        other = restore(values, torch.stack([nothing, stood[:, 1]], dim=1))
    assert cost[0] == pytest.approx(float(alone[0] + other[0]) / 2, abs=1e-5)
    assert cost[1] == pytest.approx(float(alone[1]), abs=1e-5)
    assert cost[4] == 0


def test_numbers_of_deviation_one_cost_one_where_nothing_is_known() -> None:
    restore = NumberRestorer(8, 400)
    torch.nn.init.zeros_(restore.say.weight)
    torch.nn.init.zeros_(restore.say.bias)
    torch.manual_seed(0)
    assert float(restore(torch.zeros(50, 8), torch.randn(50, 400)).mean().detach()) == pytest.approx(1, abs=0.05)


# ---- that nothing gives it away -----------------------------------------------------------------------------------------


def test_what_is_hidden_changes_no_token() -> None:
    """Another unit in a hidden place, with the phrases it makes: the network gives the same tokens."""
    model, dataset = untrained(recipe())
    encoder = model.network.encoder("text").eval()
    for table in (encoder.phrase, encoder.case):
        torch.nn.init.normal_(table.weight)
    item, contract = model.recipe.inputs["text"], model.contracts["text"]
    one = torch.from_numpy(item.transform(dataset.fields["text"][0], contract))[None]
    sizes = torch.tensor([[one.shape[1]]])
    tokens = encoder(one, sizes)
    hidden = tokens.hidden["text"].where[0]
    assert hidden.any()
    assert not hidden[0]  # how every text begins is no question
    for place in hidden.nonzero()[:, 0].tolist():
        other = one.clone()
        other[0, place] = 40 + 3 * contract.vocabulary * 2  # another unit, in a phrase with the one before
        if place + 1 < other.shape[1] and not hidden[place + 1]:
            other[0, place + 1] = other[0, place + 1] % (3 * contract.vocabulary) + 3 * contract.vocabulary
        assert torch.equal(encoder(other, sizes).values, tokens.values)
    seen = (~hidden).nonzero()[-1, 0]
    other = one.clone()
    other[0, seen] = 40
    assert not torch.equal(encoder(other, sizes).values, tokens.values)


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_hidden_pixels_and_samples_change_no_token(kind: str) -> None:
    case = next(case for case in cases() if case.label == f"masked {kind} out")
    network = case.model().network
    encoder = network.encoder(PARTNER).eval()
    if kind == "image":
        x = torch.randn(2, encoder.channels, encoder.height, encoder.width)
        covered, hidden = encoder.hidden_in(x, encoder.grid, 0.5)
        assert covered.shape == x.shape
        share = float((covered == 0).float().mean())
        where = hidden["image"].where
    else:
        x = torch.randn(2, 80, encoder.declaration.mels)
        lengths = torch.tensor([80, 50])
        x = x * (torch.arange(80) < lengths[:, None])[..., None]
        covered, hidden = encoder.hide(x, lengths)
        where = hidden["audio"].where
        assert where.shape[1] == hidden["audio"].stood.shape[1] == -(-80 // encoder.stride)
        kept = covered.abs().sum(2) == 0
        share = float(kept[0].float().mean())
    assert where.any(1).all()
    assert share == pytest.approx(float(where[0].float().mean()), abs=0.1)


def test_long_texts_are_hidden_by_whole_tokens() -> None:
    rows = [{"text": "abc " * (400 + row)} for row in range(12)]
    declared = recipe(data=rows, inputs={"text": ew.Text(units="bytes")}, train=ew.Train(steps=1, size="tiny"))
    model, dataset = untrained(declared)
    encoder = model.network.encoder("text")
    assert encoder.stride == 2
    value = torch.from_numpy(declared.inputs["text"].transform(dataset.fields["text"][0], model.contracts["text"]))
    tokens = encoder(value[None], torch.tensor([[len(value)]]))
    stood = tokens.hidden["text"].stood
    assert stood.shape == (1, -(-len(value) // 2), 2)
    assert stood[0].flatten()[: len(value)].tolist() == value.tolist()


# ---- a run without labels ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ew.Model:
    return ew.fit(recipe(), out=tmp_path_factory.mktemp("signals") / "run")


def test_it_learns_what_stands_where(run: ew.Model) -> None:
    assert run.run is not None
    found = run.run.read("metrics.json")
    assert run.info["goal"] == {"output": "restored", "metric": "loss", "direction": "min"}
    losses = [event["val"]["restored"]["loss"] for event in run.run.events() if event["event"] == "eval"]
    assert losses[-1] < 0.8 * losses[0]
    assert found["outputs"]["restored"]["loss"]["n"] > 0
    assert found["outputs"]["restored"]["loss"]["value"] == pytest.approx(found["losses"]["restored.masked"]["value"])


def test_an_answer_is_what_a_row_cost(run: ew.Model, tmp_path: Path) -> None:
    known, strange = run.predict([{"text": SENTENCES[0]}, {"text": "barn cat the the sleeps"}])
    assert min(known["restored"], strange["restored"]) > 0
    assert known.answers["restored"].detail["hidden"] >= 1
    assert run.predict({"text": SENTENCES[0]})["restored"] == pytest.approx(known["restored"], rel=1e-4)
    json.dumps(known.to_dict())
    run.save(tmp_path / "model")
    again = ew.Model.load(tmp_path / "model").predict({"text": SENTENCES[0]})
    assert again["restored"] == run.predict({"text": SENTENCES[0]})["restored"]


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({"restored": ew.Masked(), "topic": ew.Category()}, ["outputs.topic", "from_run"]),
        ({"one": ew.Masked(), "two": ew.Masked(of="text")}, ["no other output hides", "remove one"]),
        ({"restored": ew.Masked(of="txt")}, ["Masked.of", "did you mean 'text'"]),
    ],
)
def test_what_cannot_be_is_refused(outputs: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(RecipeError) as refused:
        recipe(outputs=outputs)
    for word in words:
        assert word in str(refused.value)


def test_of_several_inputs_the_hidden_one_is_named() -> None:
    inputs = {"text": ew.Text(), "about": ew.Text()}
    with pytest.raises(RecipeError, match=r"Masked\.of"):
        recipe(inputs=inputs)
    rows = [{"text": text, "about": text.split()[1]} for text in SENTENCES]
    model, _ = untrained(recipe(data=rows, inputs=inputs, outputs={"restored": ew.Masked(of="text", share=0.4)}))
    assert not any(item.optional for item in model.recipe.inputs.values())
    answer = model.predict({"text": SENTENCES[0], "about": "dog"})
    assert np.isfinite(answer["restored"])


def test_an_input_that_cannot_hide_is_refused() -> None:
    with pytest.raises(RecipeError, match="hide parts of it"):
        untrained(recipe(data=[{"n": n} for n in range(20)], inputs={"n": ew.Number()}))
