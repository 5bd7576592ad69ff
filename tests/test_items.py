"""Histories of items and rankings of what comes next."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

import endwise as ew
from endwise.data.dataset import fit_contracts
from endwise.errors import BadValue, DataError, RecipeError
from endwise.export import export
from endwise.metrics import ranking, value
from endwise.modalities.base import INPUT_ROLE, OUTPUT_ROLE, Answer
from endwise.modalities.items import Items, ItemsContract, names_of
from endwise.modalities.items.classical import ItemCounts, ItemNeighbours
from endwise.modalities.items.network import ItemsEncoder, ItemsHead
from endwise.nn.interface import Tokens
from endwise.nn.size import Size
from endwise.runner import Bundle, differences

SIZE = Size.of("tiny", width=16, depth=1, heads=2, dropout=0.0)
HISTORIES = [["a", "b"], ["c", "a", "d"], ["b"], ["e", "a", "b", "c"]]
NEXT = [["c"], ["b"], ["d", "a"], ["f"]]


def stored(rows: Sequence[Any]) -> list[np.ndarray]:
    return [Items().read(row, str.encode) for row in rows]


def contracts() -> tuple[Items, dict[str, ItemsContract]]:
    """The output as it stands, and both contracts as a training has them."""
    history, following = Items(), Items()
    stands = following.beside({"history": history}, {"next": following})
    found: dict[str, Any] = {
        "history": history.fit(stored(HISTORIES), missing=0, role=INPUT_ROLE),
        "next": stands.fit(stored(NEXT), missing=0, role=OUTPUT_ROLE),
    }
    return stands, found | stands.agreed("next", found)


# ---- cells -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "items"),
    [
        (["a", 2], ["a", "2"]),
        ('["a", 2]', ["a", "2"]),
        (" a, b ,c", ["a", "b", "c"]),
        (7, ["7"]),
        ("7", ["7"]),
        (np.array([3, 1, 3]), ["3", "1", "3"]),
        (("x", "x"), ["x", "x"]),
    ],
)
def test_a_cell_is_a_list_of_ids_in_order(cell: Any, items: list[str]) -> None:
    assert names_of(Items().read(cell, str.encode)) == items


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ([], "empty"),
        ("", "empty"),
        ("a,,b", "between two separators"),
        (3.0, "decimal point cannot hold every id"),
        ([1.0, 2.0], "whole numbers or as text"),
        ([["a"]], "expected the name"),
        ('["a"', "JSON list"),
        ({"a": 1}, "expected the name"),
    ],
)
def test_what_is_no_list_of_ids_is_refused_with_the_reason(cell: Any, reason: str) -> None:
    with pytest.raises(BadValue, match=reason):
        Items().read(cell, str.encode)


def test_an_item_that_training_never_saw_is_unknown_and_old_places_are_cut_and_counted() -> None:
    item = Items(longest=2)
    contract = item.fit(stored(HISTORIES), missing=0, role=INPUT_ROLE)
    assert contract.items == ("a", "b", "c", "d", "e")
    assert (contract.longest, contract.total, contract.cut) == (4, 10, 2)
    assert "2 are cut to their newest 2" in item.summary(contract)
    assert item.transform(stored([["a", "zebra", "b"]])[0], contract).tolist() == [5, 1]
    assert item.preview(stored([["a", "zebra"]])[0], contract)["data"] == "a, zebra <unknown>"


def test_ids_that_are_whole_numbers_are_sorted_by_size() -> None:
    contract = Items().fit(stored([[10, 9], [100]]), missing=0, role=INPUT_ROLE)
    assert contract.items == ("9", "10", "100")


def test_a_column_with_nothing_to_rank_is_refused() -> None:
    with pytest.raises(DataError, match="at least two different items"):
        Items().fit(stored([["a"], ["a"]]), missing=0, role=OUTPUT_ROLE)


# ---- how an answer stands beside its history -------------------------------------------------------------------------


def test_an_answer_and_its_history_number_the_items_of_both() -> None:
    stands, found = contracts()
    assert stands.of == "history"
    assert found["history"].items == found["next"].items == ("a", "b", "c", "d", "e", "f")
    assert found["next"].counts == (4, 4, 3, 2, 1, 1)
    assert found["next"].count == 4


def test_one_declaration_may_serve_both_ends() -> None:
    both = Items()
    assert both.beside({"history": both}, {"next": both}).of == "history"


def test_a_ranking_that_does_not_say_which_history_it_continues_is_refused() -> None:
    one, other, out = Items(), Items(longest=3), Items()
    with pytest.raises(RecipeError, match=r"Items\.of .*one of bought, seen"):
        out.beside({"bought": one, "seen": other}, {"next": out})
    wrong = Items(of="baught")
    with pytest.raises(RecipeError, match="did you mean 'bought'"):
        wrong.beside({"bought": one}, {"next": wrong})
    alone = Items(seen="left_out")
    with pytest.raises(RecipeError, match=r"Items\.seen"):
        alone.beside({"text": ew.Text()}, {"next": alone})


def test_two_rankings_after_one_history_number_the_items_of_all_three() -> None:
    recipe = ew.Recipe(
        data=[{"history": ["a", "b"], "bought": "c", "looked at": "d"}, {"history": "b", "bought": "a", "looked at": "e"}],
        inputs={"history": ew.Items()},
        outputs={"bought": ew.Items(), "looked at": ew.Items()},
    )  # fmt: skip
    found: dict[str, Any] = {"history": Items().fit(stored([["a", "b"], "b"]), missing=0, role=INPUT_ROLE)}
    for name, cells in (("bought", ["c", "a"]), ("looked at", ["d", "e"])):
        found[name] = recipe.standing(name).fit(stored(cells), missing=0, role=OUTPUT_ROLE)
    for name in recipe.outputs:
        found |= recipe.standing(name).agreed(name, found)
    assert {contract.items for contract in found.values()} == {("a", "b", "c", "d", "e")}
    assert {contract.counts for contract in found.values()} == {(2, 2, 1, 1, 1)}
    ew.Model.build(recipe, found, seed=0)


def test_two_histories_that_hold_the_same_items_as_often_stay_apart() -> None:
    recipe = ew.Recipe(
        data=[{"read": ["a", "b"], "worn": ["a", "b"], "book": "c", "coat": "d"}],
        inputs={"read": ew.Items(), "worn": ew.Items()}, outputs={"book": ew.Items(of="read"), "coat": ew.Items(of="worn")},
    )  # fmt: skip
    found: dict[str, Any] = {
        name: Items().fit(stored([["a", "b"], "b"]), missing=0, role=INPUT_ROLE) for name in recipe.inputs
    }
    for name, cells in (("book", ["c", "e"]), ("coat", ["d", "f"])):
        found[name] = recipe.standing(name).fit(stored(cells), missing=0, role=OUTPUT_ROLE)
    for name in recipe.outputs:
        found |= recipe.standing(name).agreed(name, found)
    assert found["book"].items == found["read"].items == ("a", "b", "c", "e")
    assert found["coat"].items == found["worn"].items == ("a", "b", "d", "f")


# ---- network ---------------------------------------------------------------------------------------------------------


def network(**options: Any) -> tuple[ItemsEncoder, ItemsHead]:
    _, found = contracts()
    torch.manual_seed(0)
    encoder = ItemsEncoder(found["history"], SIZE)
    settled: dict[str, Any] = {"of": "history", "leave_out": False, "shown": 6, "sampled": None, **options}
    head = ItemsHead(found["next"], SIZE, **settled)
    head.meet({"history": encoder})
    return encoder, head


def asked(encoder: ItemsEncoder, rows: Sequence[Sequence[int]]) -> Tokens:
    sizes = torch.tensor([[len(row)] for row in rows])
    ids = torch.zeros(len(rows), int(sizes.max()), dtype=torch.int64)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = torch.tensor(row)
    tokens = encoder(ids, sizes)
    return Tokens(
        tokens.values, tokens.mask, spans={"history": slice(0, ids.shape[1])}, symbols={"history": ids},
        present={"history": torch.ones(len(rows), dtype=torch.bool)},
    )  # fmt: skip


def test_answer_and_history_share_their_item_vectors() -> None:
    encoder, head = network()
    assert head.items is encoder.items


def test_training_learns_at_every_place_and_elsewhere_only_the_answer_counts() -> None:
    encoder, head = network()
    found = head(asked(encoder, [[0, 1, 2], [3]]))
    target, sizes = torch.tensor([[4], [5]]), torch.tensor([[1], [1]])

    def cost(query: torch.Tensor, item: int) -> float:
        scores = encoder.items.weight @ query + head.bias
        return float(-scores.log_softmax(0)[item].detach())

    each = [cost(found["places"][0, 0], 1), cost(found["places"][0, 1], 2), cost(found["query"][0], 4)]
    head.train()
    assert head.loss(found, target, sizes)["next"].tolist() == pytest.approx(
        [np.mean(each), cost(found["query"][1], 5)], rel=1e-5
    )
    head.eval()
    assert head.loss(found, target, sizes)["next"][0].item() == pytest.approx(each[2], rel=1e-5)


def test_a_place_knows_nothing_of_what_comes_later() -> None:
    encoder, head = network()
    one, other = head(asked(encoder, [[0, 1, 2, 3]])), head(asked(encoder, [[0, 1, 4, 5]]))
    assert torch.allclose(one["places"][:, :2], other["places"][:, :2], atol=1e-6)
    assert not torch.allclose(one["places"][:, 2], other["places"][:, 2], atol=1e-3)


def test_an_unknown_item_is_neither_learnt_nor_right() -> None:
    encoder, head = network()
    head.train()
    known, unknown = head(asked(encoder, [[0, 1]])), head(asked(encoder, [[0, 6]]))
    target, sizes = torch.tensor([[6]]), torch.tensor([[1]])
    assert head.weight(target, sizes).tolist() == [0.0]
    assert head.loss(unknown, target, sizes)["next"].tolist() == [0.0]
    assert head.loss(known, target, sizes)["next"].item() > 0  # the place before learns its own next
    assert torch.isnan(head.measures(known, target, sizes)["rank"]).all()


@settings(deadline=None, max_examples=30)
@given(
    rows=st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=5), min_size=1, max_size=4),
    leave_out=st.booleans(), data=st.data(),
)  # fmt: skip
def test_ranks_are_exact_and_what_is_left_out_is_never_recommended(
    rows: list[list[int]], leave_out: bool, data: st.DataObject
) -> None:
    encoder, head = network(leave_out=leave_out)
    head.eval()
    wanted = data.draw(st.lists(st.integers(0, 5), min_size=len(rows), max_size=len(rows)))
    with torch.inference_mode():
        found = head(asked(encoder, rows))
        scores = (found["query"] @ encoder.items.weight.T + head.bias).numpy()
        target, sizes = torch.tensor(wanted)[:, None], torch.ones(len(rows), 1, dtype=torch.int64)
        measured, decoded = head.measures(found, target, sizes)["rank"].numpy(), head.decode(found)
    for row, history in enumerate(rows):
        gone = {item for item in history if item < 6} if leave_out else set()
        ranked = sorted((item for item in range(6) if item not in gone), key=lambda item: -scores[row, item])
        named = [
            int(item) for item, chance in zip(decoded["ids"][row], decoded["probabilities"][row], strict=True) if chance
        ]
        assert named == ranked
        if wanted[row] in gone:
            assert np.isnan(measured[row]).all()
        else:
            assert measured[row].tolist() == [1 + ranked.index(wanted[row]), len(ranked)]


def test_a_sample_of_rivals_estimates_the_sum_over_all_items() -> None:
    encoder, head = network(sampled=40_000)
    head.train()
    found = head(asked(encoder, [[0, 1, 2], [3, 1]]))
    target, sizes = torch.tensor([[4], [5]]), torch.tensor([[1], [1]])
    drawn = head.loss(found, target, sizes)["next"]
    head.sampled = None
    assert torch.allclose(drawn, head.loss(found, target, sizes)["next"], rtol=0.02)


# ---- scores ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.permutations(list("abcdefghijkl")), st.sets(st.sampled_from("abcdefghijklz"), min_size=1, max_size=4))
def test_ndcg_is_scikit_learns(ranked: list[str], right: set[str]) -> None:
    truth, answer = [sorted(right)], [Answer(list(ranked))]
    known = right & set(ranked)
    found = value(ranking.ndcg(10), truth, answer)
    if len(known) == len(right):
        gains, scores = [[float(name in right) for name in ranked]], [[float(-at) for at in range(len(ranked))]]
        assert found == pytest.approx(ndcg_score(gains, scores, k=10))
    else:
        assert found < 1
    hits = len(right & set(ranked[:5]))
    assert value(ranking.recall(5), truth, answer) == pytest.approx(hits / min(5, len(right)))


@pytest.mark.parametrize(("place", "count"), [(1, 30), (4, 30), (9, 12), (30, 30)])
def test_the_sampled_score_is_the_mean_over_all_draws(place: int, count: int) -> None:
    metric = ranking.sampled_ndcg(3, rivals=5, of_term="rank")
    others = [at for at in range(1, count + 1) if at != place]
    drawn = itertools.islice(itertools.combinations(others, 5), 200_000)
    gains = [sum(at < place for at in chosen) for chosen in drawn]
    wanted = np.mean([1 / np.log2(2 + above) if above < 3 else 0.0 for above in gains])
    assert value(metric, [["x"]], np.array([[place, count]])) == pytest.approx(wanted)


def test_a_truth_without_a_place_counts_as_a_miss() -> None:
    metric = ranking.sampled_ndcg(10, rivals=100, of_term="rank")
    term = np.array([[1.0, 500.0], [np.nan, np.nan]])
    assert value(metric, [["x"], ["y"]], term) == pytest.approx(0.5)


# ---- baselines -------------------------------------------------------------------------------------------------------


def test_neighbours_recommend_what_goes_with_the_history() -> None:
    from scipy import sparse

    histories = [["bread"], ["bread", "tea"], ["nails"], ["nails", "tea"], ["bread"]]
    answers = [["butter"], ["butter"], ["hammer"], ["hammer"], ["butter"]]
    items = ("bread", "butter", "hammer", "nails", "tea")
    features = ItemCounts().fit([]).transform(stored([*histories, ["nails"]]))
    features = sparse.hstack([features, sparse.csr_matrix(np.zeros((6, 1)))], format="csr")  # as a baseline gets them
    model = ItemNeighbours(items, (3, 3, 2, 2, 2), leave_out=True, shown=3).fit(features[:5], answers)
    (ranked,) = model.predict(features[5:])
    assert ranked[0] == "hammer"
    assert "nails" not in ranked


def test_popularity_is_the_constant_answer_and_lost_truths_are_counted() -> None:
    stands, found = contracts()
    answer = stands.trivial(NEXT, found["next"])
    assert answer.value == ["a", "b", "c", "d", "e", "f"]
    assert stands.remarks([["a"], ["zebra"]], [answer, answer], found["next"]) == [
        "1 of 2 rows have a next item that training never saw: no answer can be right"
    ]
    json.dumps(answer.to_dict())


# ---- a catalogue: items that nobody has bought -------------------------------------------------------------------------

KINDS, WORDS = (
    ("tea", "shoe", "lamp", "book", "rope", "fork", "coat", "drum"),
    ("small", "large", "red", "blue", "old", "new"),
)


def shop() -> tuple[list[dict[str, str]], dict[str, list[Any]]]:
    """Who buys a kind of thing buys that kind next. The new one of each kind is bought in the test rows alone."""
    random = np.random.default_rng(0)
    items = [
        {"item": f"no-{kind}{word}", "title": f"{WORDS[word]} {KINDS[kind]}"} for kind in range(8) for word in range(6)
    ]
    table: dict[str, list[Any]] = {"history": [], "next": [], "split": []}
    for row in range(184):
        kind, (*history, following) = row % 8, random.permutation(5)[:4].tolist()
        tested = row >= 160
        table["history"].append([f"no-{kind}{word}" for word in history])
        table["next"].append([f"no-{kind}{5 if tested else following}"])
        table["split"].append("test" if tested else "val" if row % 7 == 0 else "train")
    return items, table


def furnished(items: Any, table: Any, **options: Any) -> ew.Recipe:
    said: dict[str, Any] = {"catalogue": "items", "content": {"title": "text"}, "seen": "left_out", **options}
    return ew.Recipe(
        name="shop", data={"path": table, "split": "split", "tables": {"items": items}}, inputs={"history": ew.Items()},
        outputs={"next": ew.Items(**said)}, train={"size": "tiny", "steps": 60, "batch_size": 32},
        trunk={"width": 32, "depth": 1},
    )  # fmt: skip


def test_items_that_nobody_bought_are_ranked_by_what_the_catalogue_says(tmp_path: Path) -> None:
    items, table = shop()
    recipe = furnished(items, table)
    model = ew.fit(recipe, out=tmp_path / "run")
    dataset = ew.prepare(recipe)
    found = ew.evaluate(model, dataset, dataset.splits.test, details=False)
    assert found.outputs["next"]["cold_recall@10"].value > 0.9  # by chance 10 of the 45 that are ranked
    assert found.outputs["next"]["cold_ndcg@10"].value > 0.3
    assert any("24 of 24 rows have a next item that nobody bought" in note for note in found.notes)
    again = ew.Model.load(tmp_path / "run" / "model")
    rows = [{"history": history} for history in table["history"][-8:]]
    said = [answer.to_dict() for answer in model.predict(rows)]
    assert not differences(said, [answer.to_dict() for answer in again.predict(rows)])
    export(again, tmp_path / "bundle", examples=rows)
    bundle = Bundle.load(tmp_path / "bundle")
    assert not differences(said, bundle.predict(rows))
    assert "content" not in json.dumps(bundle.description["outputs"])  # the graph has the vectors
    head = model.network.head("next")
    head.train()
    history = model.network.encoder("history").train()
    loss = head.loss(head(asked(history, [[0, 1, 2]])), torch.tensor([[3]]), torch.tensor([[1]]))["next"]  # type: ignore[arg-type]
    loss.sum().backward()  # type: ignore[no-untyped-call]
    (content,) = history.items.contents  # type: ignore[union-attr, misc]
    reached = [weight.grad for weight in content.encoder.parameters() if weight.grad is not None]
    assert sum(float(gradient.abs().sum()) for gradient in reached) > 0


def two_rankings(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """What training learns of two answers after one history."""
    items, table = shop()
    recipe = furnished(items, {**table, "gift": [[f"no-0{place % 5}"] for place in range(184)]})
    recipe = recipe.replace(outputs={"next": ew.Items(**first), "gift": ew.Items(**second)})
    found: dict[str, Any] = fit_contracts(recipe, ew.prepare(recipe))
    ew.Model.build(recipe, found, seed=0)
    return found


@pytest.mark.parametrize("turned", [False, True])
def test_a_ranking_beside_one_with_a_catalogue_numbers_the_items_of_the_catalogue(turned: bool) -> None:
    said: list[dict[str, Any]] = [{"catalogue": "items", "content": {"title": "text"}}, {}]
    found = two_rankings(*said[:: -1 if turned else 1])
    assert len({contract.items for contract in found.values()}) == 1
    assert len(found["gift"].items) == 48
    assert found["history"].contents and not found["next"].contents and not found["gift"].contents


def test_two_catalogues_of_one_history_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"outputs.gift.catalogue.*one catalogue and one content"):
        two_rankings(
            {"catalogue": "items", "content": {"title": "text"}},
            {"catalogue": "items", "content": {"title": "category"}},
        )


def test_vectors_are_made_again_where_weights_are_cast_or_moved() -> None:
    """Such a weight is another one of the same version."""
    items, table = shop()
    recipe = furnished(
        [{**row, "kind": "ab"[place % 2]} for place, row in enumerate(items)], table, content={"kind": "category"}
    )
    vectors: Any = ew.Model.build(recipe, fit_contracts(recipe, ew.prepare(recipe)), seed=0).network.encoder("history")
    vectors = vectors.eval().items
    first = vectors.all()
    assert first.dtype == torch.float32
    assert vectors.double().all().dtype == torch.float64
    assert torch.allclose(vectors.float().all(), first, atol=1e-6)


def test_vectors_are_made_once_and_again_when_a_weight_changes() -> None:
    items, table = shop()
    recipe = furnished(
        [{**row, "price": float(place)} for place, row in enumerate(items)], table, content={"price": "number"}
    )
    contracts = fit_contracts(recipe, ew.prepare(recipe))
    model = ew.Model.build(recipe, contracts, seed=0)
    vectors: Any = model.network.encoder("history")
    vectors = vectors.eval().items
    first = vectors.all()
    assert vectors.all() is first
    with torch.no_grad():
        vectors.norm.weight.mul_(2)
    assert torch.allclose(vectors.all(), 2 * first, atol=1e-5)
    assert len(contracts["next"].items) == 48  # type: ignore[attr-defined]
    assert contracts["history"].from_dict(contracts["history"].to_dict()) == contracts["history"]


@pytest.mark.parametrize(
    ("changed", "options", "wrong"),
    [
        ("key", {}, "Items.key"),
        ("lacks", {}, "are not in it: no-0"),
        ("twice", {}, "every item once in a catalogue"),
        ("none", {}, "an item in every row"),
        (None, {"content": {"titel": "text"}}, "did you mean 'title'"),
        (None, {"content": {"title": "txt"}}, "did you mean 'text'"),
        (None, {"content": {"title": {"type": "text", "minimum": 3}}}, "Items.content.title"),
        (None, {"content": None}, "Items.content"),
        (None, {"catalogue": "goods"}, "Items.catalogue"),
        (None, {"content": {"title": "number"}}, "column 'title'"),
    ],
)
def test_a_catalogue_that_cannot_be_used_is_refused(changed: str | None, options: dict[str, Any], wrong: str) -> None:
    items, table = shop()
    rows: list[dict[str, Any]] = [*items]
    if changed == "key":
        rows = [{"article": row["item"], "title": row["title"]} for row in items]
    elif changed == "lacks":
        rows = rows[3:]
    elif changed == "twice":
        rows = [*rows, rows[0]]
    elif changed == "none":
        rows = [*rows, {"item": None, "title": "?"}]

    def fitted() -> None:
        recipe = furnished(rows, table, **options)
        fit_contracts(recipe, ew.prepare(recipe))

    with pytest.raises((RecipeError, DataError), match=wrong):
        fitted()


def test_an_item_without_content_and_one_in_pictures_have_a_vector() -> None:
    items, table = shop()
    rows = [
        {**row, "title": None if place == 3 else row["title"], "photo": _patch(place)}
        for place, row in enumerate(items)
    ]
    recipe = furnished(rows, table, content={"title": "text", "photo": {"type": "image", "side_px": 8}}, sampled=16)
    model = ew.Model.build(recipe, fit_contracts(recipe, ew.prepare(recipe)), seed=0)
    vectors: Any = model.network.encoder("history")
    assert torch.isfinite(vectors.items.eval().all()).all()
    head = model.network.head("next").train()
    history: Any = vectors.train()
    loss = head.loss(head(asked(history, [[0, 1], [6]])), torch.tensor([[2], [7]]), torch.tensor([[1], [1]]))["next"]
    assert torch.isfinite(loss).all()


def _patch(place: int) -> np.ndarray:
    return np.full((8, 8, 3), 5 * place, np.uint8)
