"""An embedding: a row's inputs at one place of one space, learnt without a column, scored by finding one by another."""

import copy
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

import endwise as ew
from endwise import losses, metrics
from endwise.data.check import check
from endwise.data.dataset import prepare
from endwise.data.loader import Loader
from endwise.errors import RecipeError, TrainingError
from endwise.modalities.base import Answer
from endwise.modalities.embedding.classical import CommonDirections
from endwise.modalities.embedding.network import EmbeddingHead
from endwise.modalities.embedding.recall import recall
from endwise.objective import Objective
from endwise.optimise import Optimiser, autocast, step
from endwise.plan import auto_batch_size, whole_batch_error
from endwise.report import build
from endwise.runner import Bundle

WORDS = {"red": "rot", "blue": "blau", "old": "alt", "big": "gross", "dog": "Hund", "house": "Haus", "tree": "Baum",
         "bird": "Vogel", "runs": "läuft", "stands": "steht", "falls": "fällt", "sleeps": "schläft"}  # fmt: skip


def pairs(count: int = 96) -> list[dict[str, Any]]:
    """Sentences of three words and their translations, all different, and which noun they are about."""
    adjectives, nouns, verbs = list(WORDS)[:4], list(WORDS)[4:8], list(WORDS)[8:]
    found = []
    for adjective, noun, verb in itertools.product(adjectives, nouns, verbs):
        for also in adjectives:
            english = (adjective, also, noun, verb)
            found.append({"en": " ".join(english), "de": " ".join(WORDS[word] for word in english), "noun": noun})
    order = np.random.default_rng(0).permutation(len(found))[:count]
    return [found[index] for index in order]


def recipe(rows: Any, **settings: Any) -> ew.Recipe:
    fields: dict[str, Any] = {
        "name": "translations",
        "data": rows,
        "inputs": {"en": ew.Text(), "de": ew.Text()},
        "outputs": {"meaning": ew.Embedding(dimensions=16)},
        "train": ew.Train(steps=40, size="tiny", batch_size=48),
    }
    return ew.Recipe(**{**fields, **settings})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ew.Model:
    return ew.fit(recipe(pairs()), out=tmp_path_factory.mktemp("run") / "run")


# ---- the whole of it ---------------------------------------------------------------------------------------------------


def test_it_learns_without_a_column_and_stands_beside_chance(model: ew.Model) -> None:
    assert model.run is not None
    found = model.run.read("metrics.json")
    own, chance = found["outputs"]["meaning"], found["baselines"]["meaning"]["trivial"]
    n = own["recall@1"]["n"]
    assert chance["recall@1"]["value"] == pytest.approx(1 / n)
    assert chance["recall@5 en->de"]["value"] == pytest.approx(5 / n)
    assert own["recall@1"]["value"] > 3 * chance["recall@1"]["value"]
    assert {"recall@1", "recall@10", "median_rank", "recall@1 en->de", "median_rank de->en"} <= set(own)
    assert found["baselines"]["meaning"]["classical"]["recall@1"]["value"] > chance["recall@1"]["value"]
    assert "ablation" not in found  # an input cannot be left out of what it is related to
    assert model.info["goal"] == {"output": "meaning", "metric": "recall@1", "direction": "max"}


def test_one_input_is_enough_and_gives_a_unit_vector(model: ew.Model) -> None:
    alone = model.predict({"de": "rot alt Hund läuft"})
    both = model.predict({"en": "red old dog runs", "de": "rot alt Hund läuft"})
    assert np.linalg.norm(alone["meaning"]) == pytest.approx(1, abs=1e-5)
    assert alone.answers["meaning"].detail["vectors"] == {"de": alone["meaning"]}
    sides = both.answers["meaning"].detail["vectors"]
    assert sides["de"] == pytest.approx(alone["meaning"], abs=1e-5)
    middle = np.add(sides["en"], sides["de"])
    assert both["meaning"] == pytest.approx((middle / np.linalg.norm(middle)).tolist(), abs=1e-5)
    assert model.predict([{}])[0]["meaning"] is None  # nothing given: no place is invented


def test_the_report_shows_queries_with_what_was_found(model: ew.Model) -> None:
    assert model.run is not None
    shown = model.run.read("details.json")["outputs"]["meaning"]["retrieval"]
    assert [(pair["from"], pair["to"]) for pair in shown] == [("en", "de"), ("de", "en")]
    ranks = [query["rank"] for query in shown[0]["queries"]]
    assert ranks == sorted(ranks)
    scores = [item["score"] for item in shown[0]["queries"][0]["found"]]
    assert scores == sorted(scores, reverse=True)
    page = build(model.run).read_text(encoding="utf-8")
    assert "What is found by what" in page
    assert "meaning: en → de" in page


def test_saved_and_exported_models_give_the_same_vectors(model: ew.Model, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    rows = [{"en": row["en"], "de": row["de"]} for row in pairs()[:6]]
    again = ew.Model.load(tmp_path / "model")
    assert [item.to_dict() for item in again.predict(rows)] == [item.to_dict() for item in model.predict(rows)]
    ew.export(model, tmp_path / "bundle", examples=[*rows[:5], {"en": "big bird sleeps"}])
    got = Bundle.load(tmp_path / "bundle").predict({"en": "big bird sleeps"})
    assert got["meaning"]["value"] == pytest.approx(model.predict({"en": "big bird sleeps"})["meaning"], abs=1e-5)


def test_beside_a_label_the_trunk_serves_the_label_only(tmp_path: Path) -> None:
    both = recipe(
        pairs(60),
        outputs={"meaning": ew.Embedding(dimensions=16, of=("de", "en")), "noun": ew.Category()},
        train=ew.Train(steps=3, size="tiny"),
    )
    assert not any(item.optional for item in both.inputs.values())  # a label was learnt from both
    made = ew.fit(both, out=tmp_path / "run")
    assert made.network.trunk is not None
    before = made.network.inputs["field_en"]
    row = {"en": "red old dog runs", "de": "rot alt Hund läuft"}
    first = made.predict(row)
    with torch.no_grad():
        for weight in made.network.trunk.parameters():
            weight.mul_(0.5)
    second = made.predict(row)
    assert first["meaning"] == second["meaning"]
    assert first.answers["noun"].confidence != second.answers["noun"].confidence
    assert before is made.network.inputs["field_en"]
    assert made.run is not None
    assert [item["output"] for item in made.run.read("metrics.json")["ablation"]] == ["noun", "noun"]


def test_only_an_embedding_needs_no_trunk_and_takes_rows_with_holes(model: ew.Model) -> None:
    assert model.network.trunk is None
    assert all(item.optional for item in model.recipe.inputs.values())


# ---- rows ------------------------------------------------------------------------------------------------------------


def test_a_row_with_one_of_its_inputs_teaches_nothing_and_is_counted() -> None:
    rows = [*pairs(40), {"en": "a lone dog", "de": None, "noun": "dog"}]
    dataset = prepare(recipe(rows))
    assert int(dataset.fields["meaning"].present.sum()) == 40
    assert any("no label at all" in note for note in dataset.notes)
    assert "meaning" not in dataset.columns


def test_equal_values_have_equal_numbers() -> None:
    rows = [{"en": "dog", "de": "Hund"}, {"en": "dog", "de": "Köter"}, {"en": "cat", "de": "Katze"}]
    stored = prepare(recipe(rows * 4)).fields["meaning"]
    assert stored[0][0] == stored[1][0] != stored[2][0]
    assert stored[0][1] != stored[1][1]
    assert (stored[0] > 0).all()


def test_check_reads_it(model: ew.Model) -> None:
    found = check(recipe(pairs()))
    assert found.ok
    assert found.fields["meaning"].summary.endswith("16 numbers each")
    assert found.fields["meaning"].column == ""


# ---- declarations ----------------------------------------------------------------------------------------------------


def test_all_inputs_are_meant_where_none_is_named() -> None:
    whole = recipe(pairs())
    assert whole.outputs["meaning"].made_of() == ("en", "de")
    again = ew.Recipe(**{**whole.to_dict(), "data": pairs()})
    assert again.outputs == whole.outputs
    assert again.inputs == whole.inputs


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"outputs": {"meaning": {"type": "embedding", "of": ["en", "fr"]}}}, ["Embedding.of", "'fr'"]),
        ({"outputs": {"meaning": {"type": "embedding", "of": ["en"]}}}, ["Embedding.of", "two different"]),
        ({"outputs": {"meaning": {"type": "embedding", "column": "en"}}}, ["Embedding.column", "Fix:"]),
        ({"outputs": {"meaning": {"type": "embedding", "dimensions": 1}}}, ["Embedding.dimensions", "Fix:"]),
        ({"inputs": {"en": "text"}}, ["at least two inputs"]),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(RecipeError) as refused:
        recipe(pairs(), **change)
    assert all(word in str(refused.value) for word in words)


def test_a_batch_that_is_compared_is_not_cut(tmp_path: Path) -> None:
    cut = recipe(pairs(), train=ew.Train(steps=2, size="tiny", batch_size=32, micro_batch=8))
    with pytest.raises(RecipeError, match=r"train\.micro_batch = 8 .*smaller train\.batch_size"):
        ew.fit(cut, out=tmp_path / "run")
    assert isinstance(whole_batch_error(256), TrainingError)
    assert "train.batch_size: 128" in str(whole_batch_error(256))


def test_rivals_want_a_large_batch() -> None:
    assert auto_batch_size(29_000, compares_rows=True) == 256
    assert auto_batch_size(580, compares_rows=True) == 128
    assert auto_batch_size(10, compares_rows=True) == 10


# ---- the loss --------------------------------------------------------------------------------------------------------


def unit(rows: int, inputs: int, seed: int = 0) -> Tensor:
    made = torch.randn(rows, inputs, 5, generator=torch.Generator().manual_seed(seed))
    return F.normalize(made, dim=-1)


def test_the_loss_is_the_cross_entropy_both_ways() -> None:
    vectors, scale = unit(6, 2), torch.tensor(10.0)
    scores = scale * vectors[:, 0] @ vectors[:, 1].T
    wanted = (F.cross_entropy(scores, torch.arange(6), reduction="none")
              + F.cross_entropy(scores.T, torch.arange(6), reduction="none")) / 2  # fmt: skip
    identity = torch.arange(1, 13).reshape(6, 2)
    torch.testing.assert_close(losses.contrast(vectors, identity, scale), wanted)


def test_a_temperature_at_its_limit_can_come_back(model: ew.Model) -> None:
    """Pairs that are told apart drive it there; when they are confused again, it must move again."""
    head = copy.deepcopy(model.network.head("meaning"))
    assert isinstance(head, EmbeddingHead)
    optimiser = torch.optim.SGD([head.sharpness], lr=1.0)
    apart = F.normalize(torch.eye(4, 5), dim=-1)
    vectors = {True: torch.stack([apart, apart], 1), False: torch.stack([apart, apart.flip(0)], 1)}
    identity = torch.arange(1, 9).reshape(4, 2)
    reached = []
    for right in [True] * 3 + [False]:
        with torch.no_grad():
            head.sharpness.add_(3.0 * right)
        optimiser.zero_grad()
        head.loss({"vectors": vectors[right]}, identity, torch.zeros(4, 0))["contrast"].mean().backward()
        optimiser.step()
        head.bound()
        reached.append(head.sharpness.item())
    assert reached[-2] == pytest.approx(math.log(100))
    assert reached[-1] < reached[-2]


def test_a_step_keeps_the_temperature_inside_its_limits(model: ew.Model) -> None:
    network = copy.deepcopy(model.network)
    head = network.head("meaning")
    assert isinstance(head, EmbeddingHead)
    with torch.no_grad():
        head.sharpness.fill_(9.0)
    data = prepare(model.recipe)
    loader = Loader(data, model.recipe, model.contracts, data.splits.train, batch_size=16, seed=0, shuffle=False)
    objective = Objective(model.recipe.outputs, {"meaning.contrast": 1.0}, "fixed")
    optimiser = Optimiser(network, objective, learning_rate=1e-3, weight_decay=0.0)
    batch = loader.batch(0).to("cpu")
    step(network, objective, optimiser, batch, rate=1.0, micro_batch=16, precision=autocast("cpu", "fp32"))
    assert head.sharpness.item() <= math.log(100) + 1e-6


def test_equal_values_in_a_batch_are_no_rivals() -> None:
    vectors, scale = unit(4, 2), torch.tensor(5.0)
    identity = torch.tensor([[1, 11], [1, 12], [2, 13], [3, 14]])  # rows 0 and 1: one caption, two pictures
    vectors.requires_grad_()
    losses.contrast(vectors, identity, scale)[0].backward()
    assert vectors.grad is not None
    assert not vectors.grad[1].any()
    assert vectors.grad[2].any()


def test_a_row_is_compared_by_what_it_has() -> None:
    vectors, scale = unit(5, 3), torch.tensor(5.0)
    identity = torch.arange(1, 16).reshape(5, 3)
    identity[0, 2] = 0
    identity[1, 1:] = 0
    found = losses.contrast(vectors, identity, scale)
    assert found[1] == 0
    changed = vectors.clone()
    changed[0, 2], changed[1, 1:] = 1.0, 1.0  # what is not there says nothing
    torch.testing.assert_close(losses.contrast(changed, identity, scale), found)
    alone = losses.contrast(vectors[:, :2], identity[:, :2], scale)
    torch.testing.assert_close(alone[0], found[0])


# ---- recall ----------------------------------------------------------------------------------------------------------


def answered(vectors: dict[str, np.ndarray]) -> list[Answer]:
    count = len(next(iter(vectors.values())))
    return [Answer(None, detail={"vectors": {name: own[row].tolist() for name, own in vectors.items()}})
            for row in range(count)]  # fmt: skip


def truths(count: int) -> list[dict[str, int]]:
    return [{"a": row + 1, "b": row + 100} for row in range(count)]


def scored(name: str, known: list[dict[str, int]], given: list[Answer]) -> float:
    metric = next(item for item in recall(("a", "b")) if item.name == name)
    return metrics.value(metric, known, given)


@given(st.integers(2, 30), st.sampled_from([1, 5, 10]))
def test_one_place_for_everything_is_chance(count: int, depth: int) -> None:
    given = answered({"a": np.ones((count, 1)), "b": np.ones((count, 1))})
    assert scored(f"recall@{depth}", truths(count), given) == pytest.approx(min(1, depth / count))
    assert scored("median_rank", truths(count), given) == pytest.approx((count + 1) / 2)


@given(st.integers(0, 10_000))
def test_recall_is_what_sorting_gives(seed: int) -> None:
    generator = np.random.default_rng(seed)
    a, b = generator.normal(size=(12, 4)), generator.normal(size=(12, 4))
    scores = a @ b.T
    rank = 1 + (scores > scores.diagonal()[:, None]).sum(1)
    given = answered({"a": a, "b": b})
    for depth in (1, 5, 10):
        assert scored(f"recall@{depth} a->b", truths(12), given) == pytest.approx((rank <= depth).mean())
    assert scored("median_rank a->b", truths(12), given) == pytest.approx(np.median(rank))


def test_any_row_with_an_equal_value_is_right() -> None:
    known = [{"a": 1, "b": 10}, {"a": 1, "b": 11}, {"a": 2, "b": 12}]
    a = np.eye(3)
    b = np.eye(3)[[1, 0, 2]]  # the first two swapped: their a is one and the same
    assert scored("recall@1 a->b", known, answered({"a": a, "b": b})) == 1
    assert scored("recall@1 a->b", truths(3), answered({"a": a, "b": b})) == pytest.approx(1 / 3)


def test_vectors_that_are_no_numbers_find_nothing() -> None:
    broken = np.full((20, 3), np.nan)
    assert scored("recall@10", truths(20), answered({"a": broken, "b": broken})) == 0


def test_rows_without_the_input_are_no_queries() -> None:
    known = [*truths(3), {"a": 9}]
    given = [*answered({"a": np.eye(3), "b": np.eye(3)}), Answer(None, detail={"vectors": {"a": [1.0, 0, 0]}})]
    assert scored("recall@1 a->b", known, given) == 1


def test_the_classical_rival_finds_linear_relations() -> None:
    generator = np.random.default_rng(0)
    hidden = generator.normal(size=(400, 6))
    features = {name: hidden @ generator.normal(size=(6, 20)) + 0.1 * generator.normal(size=(400, 20)) for name in "ab"}
    there = {name: np.ones(300, dtype=bool) for name in "ab"}
    fitted = CommonDirections(("a", "b")).fit({name: own[:300] for name, own in features.items()}, there)
    found = fitted.predict({name: own[300:] for name, own in features.items()})
    nearest = (found["a"] @ found["b"].T).argmax(1)
    assert (nearest == np.arange(100)).mean() > 0.9
    with pytest.raises(ValueError, match="2 training rows have every input"):
        CommonDirections(("a", "b")).fit(features, {name: np.arange(400) < 2 for name in "ab"})


def test_its_answer_is_json(model: ew.Model) -> None:
    json.dumps(model.predict({"en": "big tree falls"}).to_dict(), allow_nan=False)
