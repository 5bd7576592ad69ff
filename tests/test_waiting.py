"""Text that is written while text is still being read: a stream gives what the whole gives, at every lag."""

import json
import math
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from endwise.batch import Ragged
from endwise.errors import RecipeError
from endwise.evaluate import evaluate_run
from endwise.modalities.text import Text
from endwise.modalities.text.waiting import WaitingHead, chunk_before, reached
from endwise.model import Model
from endwise.recipe import Recipe
from endwise.train import fit

TEXTS = (
    "a cold day",
    "the sea is calm, and so are we",
    "Regen im  März kommt oft",
    "no",
    "x\ty zz",
    "rain and more rain",
)


@cache
def translator(units: str = "bytes") -> Model:
    """A network that has learnt a little, so that what it writes depends on what it reads."""
    recipe = Recipe(
        data=[{"in memory": True}],
        inputs={"said": Text(causal=True, units=units)},  # type: ignore[arg-type]
        outputs={"told": Text(decoder="attention", wait=2.0, longest=24)},
        trunk={"width": 32, "depth": 1, "dropout": 0.0},
        train={"size": "tiny"},
    )
    contracts, values = {}, {}
    for name, item in {**recipe.inputs, **recipe.outputs}.items():
        read = [item.read(text, lambda path: b"") for text in TEXTS]
        role = "input" if name == "said" else "output"
        contracts[name] = item.beside(recipe.inputs, recipe.outputs).fit(iter(read), missing=0, role=role)  # type: ignore[arg-type]
        values[name] = Ragged.stack([item.transform(value, contracts[name]) for value in read], 1).to("cpu")
    model = Model.build(recipe, contracts, seed=0)
    model.network.train()
    optimiser = torch.optim.AdamW(model.network.parameters(), lr=1e-2)
    torch.manual_seed(0)
    for _ in range(12):
        found = model.network({"said": values["said"]}, {"said": torch.ones(len(TEXTS), dtype=torch.bool)})["told"]
        loss = model.network.head("told").loss(found, values["told"].values, values["told"].sizes)["cross_entropy"]
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
    model.network.eval()
    return model


@settings(max_examples=12, deadline=None)
@given(
    st.one_of(st.sampled_from(TEXTS), st.text(max_size=20).filter(lambda text: text.isascii())),
    st.lists(st.integers(0, 30), max_size=4),
    st.sampled_from([0.0, 2.0, 7.5, 100.0]),
)
@pytest.mark.parametrize("units", ["bytes", "bpe"])
def test_text_in_any_pieces_is_answered_as_the_whole(units: str, text: str, cuts: list[int], wait: float) -> None:
    model = translator(units)
    head = model.network.head("told")
    assert isinstance(head, WaitingHead)
    head.wait = wait
    stream, said, places = model.stream(), "", [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    for start, end in pairwise(places):
        now = stream.feed(text[start:end])["told"]
        assert now.startswith(said)
        said = now
    last, whole = stream.finish().answers["told"], model.predict({"said": text}).answers["told"]
    assert last.value.startswith(said)
    assert last.value == whole.value
    assert last.detail == pytest.approx(whole.detail, abs=1e-4)
    assert last.confidence == pytest.approx(whole.confidence, rel=1e-3)


@settings(max_examples=12, deadline=None)
@given(st.text(max_size=24), st.text(max_size=24), st.sampled_from(["bytes", "bpe"]))
def test_what_is_written_later_changes_no_token(begun: str, later: str, units: str) -> None:
    """Two texts that are alike up to a unit have the same tokens up to it."""
    model, found = translator(units), []
    declared, contract, encoder = model.recipe.inputs["said"], model.contracts["said"], model.network.encoder("said")
    for text in (begun, f"{begun} {later}"):
        units_of = declared.transform(declared.read(text, lambda path: b""), contract)
        with torch.inference_mode():
            tokens = encoder(torch.from_numpy(units_of)[None], torch.tensor([[len(units_of)]])).values[0]
        found.append((units_of, tokens))
    (one, first), (other, second) = found
    count = min(len(one), len(other))
    alike = int((one[:count] == other[:count]).cumprod().sum()) // encoder.stride
    torch.testing.assert_close(first[:alike], second[:alike], rtol=0, atol=1e-5)


def test_a_row_alone_is_written_as_in_a_batch() -> None:
    model = translator()
    together = model.predict([{"said": text} for text in TEXTS])
    for text, row in zip(TEXTS, together, strict=True):
        assert model.predict({"said": text})["told"] == row["told"]


def test_the_lag_stands_beside_bleu_when_a_run_is_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDWISE_CACHE", str(tmp_path / "cache"))
    rows = [{"said": f"{text} {index}", "told": f"{index} {text}"} for index in range(8) for text in TEXTS]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    recipe = Recipe(
        name="interpreter", data=str(tmp_path / "pairs.jsonl"), inputs={"said": Text(causal=True)},
        outputs={"told": Text(decoder="attention", wait=2.0, longest=12)},
        trunk={"width": 32, "depth": 1}, train={"steps": 40, "size": "tiny"},
    )  # fmt: skip
    fit(recipe, out=tmp_path / "run")
    found = evaluate_run(tmp_path / "run")
    assert {"bleu", "chrf", "lag_units"} <= set(found.outputs["told"])
    lag = found.outputs["told"]["lag_units"]
    assert lag.n > 0
    assert math.isfinite(lag.value)
    assert f"told lag_units: {lag}" in str(found)


def test_no_symbol_learns_from_what_comes_after_it_is_due() -> None:
    known = torch.tensor([[1.0, 1.0, 2.0, 2.0, 2.5, -1.0]])
    assert chunk_before(known)[0, :5].tolist() == [-1, -1, 1, 1, 2]
    assert reached(torch.tensor([1.1]), known, torch.tensor([2.5])).tolist() == [2.0]
    assert reached(torch.tensor([9.0]), known, torch.tensor([2.5])).tolist() == [2.5]


@pytest.mark.parametrize(
    ("declared", "inputs", "fix"),
    [
        (Text(wait=1.0), {"said": Text()}, "causal: true of the text"),
        (Text(wait=1.0, decoder="attention"), {"said": Text(causal=True), "more": Text()}, "or remove wait"),
    ],
)
def test_waiting_for_what_does_not_stream_is_refused(declared: Text, inputs: dict[str, Text], fix: str) -> None:
    with pytest.raises(RecipeError, match=fix):
        declared.beside(inputs, {"told": declared})


def test_nothing_is_hidden_from_a_network_that_looks_back_only() -> None:
    with pytest.raises(RecipeError, match="causal:"):
        translator().network.encoder("said").restorer(None)


def test_what_is_written_at_once_has_no_beams() -> None:
    with pytest.raises(RecipeError, match="remove beams, or wait"):
        Text(decoder="attention", wait=1.0, beams=2).check_role("output", "told")
