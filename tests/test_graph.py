"""Rows and the edges around them."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import endwise as ew
from endwise.data.dataset import fit_contracts, prepare
from endwise.data.loader import Loader
from endwise.errors import BadValue, DataError, RecipeError
from endwise.modalities.base import INPUT_ROLE
from endwise.modalities.graph import Graph
from endwise.modalities.graph.index import AGE, DIRECTION, HOP, NODE, PARENT, hash_of, thinned
from endwise.modalities.graph.network import GraphEncoder, Hop
from endwise.nn.size import Size
from endwise.runner import differences

SIZE = Size.of("tiny", width=16, depth=1, heads=2, dropout=0.0)
PAYMENTS = Graph(time="when", numbers=("amount",), classes=("kind",))
SMALL = Graph(time="when", numbers=("amount",), classes=("kind",), neighbours=(2, 1), cap=(3, 2))
Edge = dict[str, Any]


def edge(source: str, target: str, when: float, amount: float = 1.0, kind: str = "cash") -> Edge:
    return {"source": source, "target": target, "when": when, "amount": amount, "kind": kind}


def around(edges: Sequence[Edge], at: Sequence[str], time: float, graph: Graph = PAYMENTS) -> np.ndarray:
    return graph.read({"at": list(at), "time": time, "edges": list(edges)}, str.encode)


CHAIN = [edge("a", "b", 1, 10), edge("b", "c", 2, 20), edge("c", "d", 3, 30), edge("b", "e", 9, 90)]


def edges_of(count: int = 30) -> st.SearchStrategy[list[Edge]]:
    name, number = st.sampled_from("abcdef"), st.integers(0, 9).map(float)
    one = st.builds(edge, name, name, number, number, st.sampled_from(["cash", "card"]))
    return st.lists(one, max_size=count)


# ---- what lies around a row ------------------------------------------------------------------------------------------


def test_the_edges_of_a_node_come_first_and_then_those_behind_them() -> None:
    found = around(CHAIN, ["b"], 8)
    assert found[:, HOP].tolist() == [0, 1, 1, 2]
    assert found[:, PARENT].tolist() == [-1, 0, 0, 2]
    assert found[:, DIRECTION].tolist() == [-1, 1, 0, 0]
    assert found[:, NODE].tolist() == [hash_of(name) for name in "bacd"]
    assert found[1:, AGE].tolist() == [7, 6, 5]
    assert found[1:, AGE + 1].tolist() == [10, 20, 30]


def test_the_newest_edges_are_seen_up_to_the_cap() -> None:
    edges = [edge("a", f"n{when}", when) for when in range(10)]
    assert around(edges, ["a"], 8, SMALL)[1:, AGE].tolist() == [3, 2, 1]


def test_a_node_without_edges_stands_alone() -> None:
    assert around(CHAIN, ["zebra", "a"], 0.5)[:, HOP].tolist() == [0, 0]


def test_a_row_that_names_no_node_is_about_all_of_them() -> None:
    found = Graph(cap=(5,), neighbours=(5,)).read(
        {"edges": [{"source": 1, "target": 2}, {"source": 2, "target": 3}]}, str.encode
    )
    assert found[:, HOP].tolist() == [0, 0, 0, 1, 1, 1, 1]


@settings(deadline=None)
@given(edges_of(), st.integers(0, 10))
def test_no_edge_is_from_the_future(edges: list[Edge], time: int) -> None:
    found = around(edges, ["a", "b"], time)
    assert (found[found[:, HOP] > 0][:, AGE] > 0).all()
    past = [one for one in edges if one["when"] < time]
    assert np.array_equal(found, around(past, ["a", "b"], time), equal_nan=True)


@settings(deadline=None)
@given(edges_of(), st.randoms())
def test_the_order_of_the_table_changes_nothing(edges: list[Edge], random: Any) -> None:
    turned = list(edges)
    random.shuffle(turned)
    assert np.array_equal(around(edges, ["a", "b"], 10, SMALL), around(turned, ["a", "b"], 10, SMALL), equal_nan=True)


# ---- what training sees of it ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(edges_of(60), st.tuples(*[st.integers(0, 1000)] * 3))
def test_drawing_is_a_function_of_seed_step_and_row(edges: list[Edge], key: tuple[int, int, int]) -> None:
    value = around(edges, ["a", "b"], 10)
    found = thinned(value, (3, 2), key)
    assert np.array_equal(found, thinned(value, (3, 2), key), equal_nan=True)
    parents = found[:, PARENT].astype(int)
    assert (parents < np.arange(len(found))).all()
    assert (found[1:, HOP][parents[1:] >= 0] == found[parents[1:]][:, HOP][parents[1:] >= 0] + 1).all()
    counts = np.bincount(parents[parents >= 0], minlength=len(found))
    assert (counts <= np.array([3, 2, 0])[found[:, HOP].astype(int)]).all()


def test_another_step_draws_another_part() -> None:
    value = around([edge("a", f"n{when}", when) for when in range(9)], ["a"], 9)
    seen = {tuple(thinned(value, (3, 2), (0, step, 5))[1:, AGE].tolist()) for step in range(30)}
    assert len(seen) > 5


def test_everything_is_drawn_in_the_end() -> None:
    value = around([edge("a", f"n{when}", when) for when in range(9)], ["a"], 9)
    ages = [age for step in range(300) for age in thinned(value, (3, 2), (0, step, 5))[1:, AGE].tolist()]
    shares = np.bincount(np.array(ages, int))[1:] / 300
    assert shares == pytest.approx(np.full(9, 1 / 3), abs=0.12)


# ---- by definition ---------------------------------------------------------------------------------------------------

Tree = list[tuple[Any, ...]]  # (direction, node, age, amount, kind, what lies behind it) of each visit


def by_definition(
    edges: Sequence[Edge],
    node: str,
    before: float,
    caps: Sequence[int],
    via: int = -1,
    own: frozenset[str] = frozenset(),
) -> Tree:
    """What lies around a node, looked for in all edges: its newest before a moment, but the one we came by and the row's own."""
    if not caps:
        return []
    there = []
    for place, one in enumerate(edges):
        if place == via or one["when"] >= before or {one["source"], one["target"]} == own:
            continue
        if one["source"] == node:
            there.append((one["when"], place, 0.0, one["target"]))
        elif one["target"] == node:
            there.append((one["when"], place, 1.0, one["source"]))
    return sorted(
        (direction, hash_of(other), before - when, edges[place]["amount"], hash_of(edges[place]["kind"]),
         by_definition(edges, other, before, caps[1:], place, own))
        for when, place, direction, other in sorted(there)[-caps[0] :]
    )  # fmt: skip


def behind(visits: np.ndarray, place: int) -> Tree:
    """What lies behind a visit, as `by_definition` says it; without times all edges were one moment ago."""
    found = visits.copy()
    found[:, AGE] = np.nan_to_num(found[:, AGE], nan=1.0)
    said = [
        (*one[DIRECTION : AGE + 3].tolist(), behind(visits, at)) for at, one in enumerate(found) if one[PARENT] == place
    ]
    return sorted(said)


@settings(deadline=None)
@given(edges_of(25), st.integers(0, 25), st.randoms())
def test_what_is_around_a_row_is_what_the_definition_says(edges: list[Edge], time: int, random: Any) -> None:
    times = random.sample(range(25), len(edges))  # one moment each, so that nobody has to choose among the newest
    edges = [{**one, "when": float(when)} for one, when in zip(edges, times, strict=True)]
    found = around(edges, ["a", "b"], time, SMALL)
    assert [behind(found, 0), behind(found, 1)] == [by_definition(edges, name, time, SMALL.cap) for name in "ab"]


@settings(deadline=None)
@given(edges_of(10))
def test_what_is_around_an_edge_without_a_time_is_what_the_definition_says(edges: list[Edge]) -> None:
    graph = Graph(at=("one", "other"), numbers=("amount",), classes=("kind",), cap=(20, 20))
    said = [{name: cell for name, cell in one.items() if name != "when"} for one in edges]
    found = graph.read({"at": ["a", "b"], "edges": said}, str.encode)
    now = [{**one, "when": 0.0} for one in edges]
    wanted = [by_definition(now, name, 1.0, graph.cap, own=frozenset("ab")) for name in "ab"]
    assert [behind(found, 0), behind(found, 1)] == wanted


@settings(deadline=None)
@given(edges_of(60), st.tuples(*[st.integers(0, 1000)] * 3))
def test_what_is_drawn_is_as_much_as_may_be_of_what_there_is_and_nothing_twice(
    edges: list[Edge], key: tuple[int, int, int]
) -> None:
    edges = [{**one, "amount": float(place)} for place, one in enumerate(edges)]  # tells which edge it is
    whole = around(edges, ["a", "b"], 10)
    found = thinned(whole, (3, 2), key)

    def check(drawn: np.ndarray, at: int, seen: np.ndarray, there: int, most: Sequence[int]) -> None:
        some, every = (np.flatnonzero(part[:, PARENT] == place) for part, place in ((drawn, at), (seen, there)))
        assert len(some) == min(len(every), most[0]) if most else not len(some)
        own = dict(zip(seen[every, AGE + 1].tolist(), every.tolist(), strict=True))
        assert len(set(drawn[some, AGE + 1].tolist())) == len(some)
        for place in some.tolist():
            same = own[drawn[place, AGE + 1]]
            assert np.array_equal(drawn[place, HOP:], seen[same, HOP:], equal_nan=True)
            check(drawn, place, seen, same, most[1:])

    for node in (0, 1):
        check(found, node, whole, node, (3, 2))


# ---- tables ----------------------------------------------------------------------------------------------------------


def tables() -> dict[str, Any]:
    random = np.random.default_rng(0)
    payments = [
        edge(f"S{random.integers(12)}", f"T{random.integers(5)}", float(when), float(when % 7)) for when in range(60)
    ]
    rows = [{**one, "fraud": ["no", "yes"][place % 2]} for place, one in enumerate(payments)]
    return {"path": rows, "tables": {"payments": payments}, "time": "when"}


def declared(**more: Any) -> ew.Recipe:
    graph = {
        "type": "graph",
        "at": ["source", "target"],
        "edges": "payments",
        "time": "when",
        "numbers": ["amount"],
        "classes": ["kind"],
    }
    return ew.Recipe(
        data=tables(), inputs={"around": {**graph, **more}}, outputs={"fraud": "boolean"}, train={"size": "tiny"}
    )


def test_a_row_finds_its_edges_in_the_table_and_reads_as_if_it_had_brought_them() -> None:
    recipe = declared()
    dataset = prepare(recipe)
    item = recipe.inputs["around"]
    for row in (0, 7, 40):
        cell = dataset.raw("around", row)
        assert isinstance(cell, Mapping)
        brought = json.loads(json.dumps(dict(cell)))
        assert all(one["when"] < cell["time"] for one in brought["edges"])
        assert np.array_equal(item.read(brought, str.encode), dataset.fields["around"][row], equal_nan=True)


def test_what_a_batch_sees_depends_on_seed_step_and_row_and_evaluation_sees_all() -> None:
    recipe = declared(cap=[20, 10], neighbours=[2, 1])
    dataset = prepare(recipe)
    contracts = fit_contracts(recipe, dataset)
    rows = dataset.splits.train

    def loader(seed: int, shuffle: bool) -> Loader:
        return Loader(dataset, recipe, contracts, rows, batch_size=16, seed=seed, shuffle=shuffle)

    one, again = loader(0, True).batch(3).inputs["around"], loader(0, True).batch(3).inputs["around"]
    assert np.array_equal(one.values, again.values, equal_nan=True)
    assert not np.array_equal(
        one.sizes, loader(0, True).batch(3 + loader(0, True).batches_per_epoch).inputs["around"].sizes
    )
    whole = loader(0, False).batch(0)
    assert whole.inputs["around"].sizes[:, 0].tolist() == [
        len(dataset.fields["around"][row]) for row in whole.row_ids.tolist()
    ]


def test_without_a_time_training_sees_nothing_of_held_out_nodes() -> None:
    people = [{"id": name, "age": 20 + at, "label": ["x", "y"][at % 2], "split": side}
              for at, (name, side) in enumerate(zip("abcdefgh", ["train"] * 5 + ["val", "test", "test"], strict=True))]  # fmt: skip
    edges = [{"source": one, "target": other} for one in "abcde" for other in "fghab" if one != other]
    inputs = {"around": Graph(at=("id",), nodes="people", node_numbers=("age",), edges="knows")}
    data = {"path": people, "tables": {"knows": edges, "people": people}}
    recipe = ew.Recipe(data=data, inputs=inputs, outputs={"label": "category"})
    dataset = prepare(recipe)
    contracts = fit_contracts(recipe, dataset)
    training = Loader(dataset, recipe, contracts, dataset.splits.train, batch_size=5, seed=0, shuffle=True).batch(0)
    ages = training.inputs["around"].values[..., 4]
    assert np.nanmax(ages) <= 24  # f, g and h are 25 and older
    whole = Loader(dataset, recipe, contracts, dataset.splits.test, batch_size=5, seed=0, shuffle=False).batch(0)
    assert np.nanmax(whole.inputs["around"].values[..., 4]) > 24


# ---- a row that is an edge -------------------------------------------------------------------------------------------


def links(count: int = 240, nodes: int = 40) -> list[dict[str, Any]]:
    """Random edges whose kind nothing tells; `colour` is another name of it."""
    random = np.random.default_rng(0)
    ends = [[f"n{end}" for end in random.choice(nodes, 2, replace=False)] for _ in range(count)]
    kinds = [["love", "hate"][random.integers(2)] for _ in range(count)]
    return [{"a": one, "b": two, "kind": kind, "colour": kind} for (one, two), kind in zip(ends, kinds, strict=True)]


def of_links(rows: list[dict[str, Any]], edges: list[dict[str, Any]] | None = None, **graph: Any) -> ew.Recipe:
    graph = {"at": ["a", "b"], "ends": ["a", "b"], "edges": "links", **graph}
    return ew.Recipe(
        data={"path": rows, "tables": {"links": rows if edges is None else edges}},
        inputs={"around": {"type": "graph", **graph}},
        outputs={"kind": "category"},
    )


def test_without_a_time_a_row_does_not_see_its_own_edge() -> None:
    graph = Graph(at=("a", "b"), ends=("a", "b"), classes=("kind",))
    near = [
        {"a": "x", "b": "y", "kind": "near"},
        {"a": "y", "b": "z", "kind": "far"},
        {"a": "z", "b": "x", "kind": "far"},
    ]
    own = [{"a": "x", "b": "y", "kind": "own"}, {"a": "y", "b": "x", "kind": "own"}]

    def seen(edges: list[dict[str, Any]], *at: str) -> np.ndarray:
        return graph.read({"at": list(at), "edges": edges}, str.encode)

    assert np.array_equal(seen([*near, *own], "x", "y"), seen(near[1:], "x", "y"), equal_nan=True)
    assert np.array_equal(seen([*near, *own], "y", "x"), seen(near[1:], "y", "x"), equal_nan=True)
    assert hash_of("own") in seen([*near, *own], "y", "z")  # of another row
    hub = [{"a": "x", "b": f"n{place}", "kind": "far"} for place in range(30)]
    assert (seen([*hub, *own * 40], "x", "y")[:, HOP] == 1).sum() == 20  # others take their places


def test_what_a_row_sees_does_not_depend_on_what_its_own_edge_says() -> None:
    rows = links()
    before = prepare(of_links(rows, classes=["colour"])).fields["around"]
    for row in (0, 7, 40):
        other = {"love": "hate", "hate": "love"}[rows[row]["colour"]]
        edges = [{**one, "colour": other} if place == row else one for place, one in enumerate(rows)]
        after = prepare(of_links(rows, edges, classes=["colour"])).fields["around"]
        assert np.array_equal(before[row], after[row], equal_nan=True)  # so that nothing can guess it from there
        changed = [
            place for place in range(len(rows)) if not np.array_equal(before[place], after[place], equal_nan=True)
        ]
        assert changed  # others see it


def test_a_row_of_a_table_brings_no_edge_of_its_own() -> None:
    recipe = of_links(links(), classes=["colour"])
    dataset, item = prepare(recipe), recipe.inputs["around"]
    for row in (0, 7, 40):
        brought = json.loads(json.dumps(dict(dataset.raw("around", row))))
        assert not any({one["a"], one["b"]} == set(brought["at"]) for one in brought["edges"])
        assert np.array_equal(item.read(brought, str.encode), dataset.fields["around"][row], equal_nan=True)


def test_edges_that_tell_every_rows_answer_are_refused_and_those_of_other_rows_are_not() -> None:
    rows = links()
    for found in (prepare, ew.check):
        with pytest.raises(RecipeError, match=r"Graph\.classes.*'kind' is an output.*Fix: remove 'kind'"):
            found(of_links(rows, classes=["kind"]))
    turned = [{"a": row["b"], "b": row["a"], "kind": row["kind"]} for row in rows]
    with pytest.raises(RecipeError, match="'kind' is an output"):
        prepare(of_links(rows, turned, classes=["kind"]))
    prepare(of_links(rows, rows[:100], classes=["kind"]))  # known ones, as in the completion of a graph


def test_a_table_of_nodes_that_tells_every_rows_answer_is_refused() -> None:
    people = [{"id": name, "label": "xy"[place % 2]} for place, name in enumerate("abcdefgh")]
    edges = [{"source": "a", "target": name} for name in "bcdefgh"]
    inputs = {"around": Graph(at=("id",), nodes="people", node_classes=("label",), edges="knows")}
    recipe = ew.Recipe(
        data={"path": people, "tables": {"knows": edges, "people": people}},
        inputs=inputs,
        outputs={"label": "category"},
    )
    with pytest.raises(RecipeError, match=r"Graph\.node_classes"):
        prepare(recipe)


SIDES = ["train", "train", "train", "val", "test"]


def split_links() -> list[dict[str, Any]]:
    """With a split, and a number that tells which edge is seen."""
    return [{**row, "place": place, "split": SIDES[place % 5]} for place, row in enumerate(links())]


def seen_in(rows: list[dict[str, Any]], **graph: Any) -> tuple[list[set[int]], list[set[int]]]:
    """The edges that each training row sees in a step without drawing, and those that each test row sees."""
    recipe = of_links(rows, numbers=["place"], cap=[20, 5], neighbours=[20, 5], **graph)
    dataset = prepare(recipe)
    contracts, found = fit_contracts(recipe, dataset), []
    for side, shuffle in ((dataset.splits.train, True), (dataset.splits.test, False)):
        loader = Loader(dataset, recipe, contracts, side, batch_size=len(side), seed=0, shuffle=shuffle)
        batch = loader.batch(0).inputs["around"]
        places = [row[: int(size), 4] for row, size in zip(batch.values, batch.sizes[:, 0], strict=True)]
        found.append([set(row[~np.isnan(row)].astype(int).tolist()) for row in places])
    return found[0], found[1]


def test_without_a_time_training_sees_no_held_out_edge_and_still_its_nodes() -> None:
    rows = split_links()
    training, test = seen_in(rows)
    trained = {frozenset((row["a"], row["b"])) for row in rows if row["split"] == "train"}
    assert all(frozenset((rows[place]["a"], rows[place]["b"])) in trained for place in set.union(*training))
    assert len(set.union(*test)) > 0.9 * len(rows)
    # three edges in five are there, though nearly every node is an end of a held-out row
    assert np.mean([len(one) for one in training]) > 0.5 * np.mean([len(one) for one in test])


def test_what_is_not_inductive_sees_held_out_edges_in_training() -> None:
    rows = split_links()
    training, test = seen_in(rows, inductive=False)
    assert np.mean([len(one) for one in training]) == pytest.approx(np.mean([len(one) for one in test]), rel=0.1)
    with pytest.raises(RecipeError, match=r"Graph\.inductive"):
        Graph(at=("a",), time="when", inductive=False)


# ---- from tables to answers ------------------------------------------------------------------------------------------

Asked = list[dict[str, Any]]  # what is asked about each test row, by somebody who has no tables


def csv_of(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return str(path)


def sides(count: int) -> list[str]:
    return [SIDES[place % 5] for place in range(count)]


def of_nodes(folder: Path) -> tuple[ew.Recipe, Asked]:
    """People, and whether most of what they do with others is work."""
    random = np.random.default_rng(0)
    people = [{"id": f"p{at}", "age": 20 + at % 40, "busy": ["no", "yes"][at % 2]} for at in range(150)]
    knows = [
        {"source": one["id"], "target": f"p{random.integers(150)}", "tie": {"no": "kin", "yes": "work"}[str(one["busy"])]}
        for one in people for _ in range(4)
    ]  # fmt: skip
    table = [
        {**one, "split": side}
        for one, side in zip(people, np.random.default_rng(1).permutation(sides(150)), strict=True)
    ]
    nodes = [{"id": one["id"], "age": one["age"]} for one in people]
    tables = {"people": csv_of(folder / "people.csv", nodes), "knows": csv_of(folder / "knows.csv", knows)}
    graph = ew.Graph(at=("id",), nodes="people", node_numbers=("age",), edges="knows", classes=("tie",))
    recipe = ew.Recipe(
        data={"path": csv_of(folder / "rows.csv", table), "split": "split", "tables": tables},
        inputs={"around": graph}, outputs={"busy": ew.Boolean()},
    )  # fmt: skip
    return recipe, [{"at": [one["id"]], "edges": knows, "nodes": nodes} for one in table if one["split"] == "test"]


def of_edges(folder: Path) -> tuple[ew.Recipe, Asked]:
    """Who pays whom, and how: everybody pays in one way."""
    random = np.random.default_rng(0)
    pairs = [[f"s{random.integers(40)}", f"t{random.integers(10)}"] for _ in range(300)]
    paid = [{"payer": one, "paid": two, "way": ["cash", "card"][int(one[1:]) % 2]} for one, two in pairs]
    table = [
        {"payer": one["payer"], "paid": one["paid"], "answer": one["way"], "split": side}
        for one, side in zip(paid, sides(300), strict=True)
    ]
    graph = ew.Graph(at=("payer", "paid"), ends=("payer", "paid"), edges="paid", classes=("way",), one_kind=False)
    tables = {"paid": csv_of(folder / "paid.csv", paid)}
    recipe = ew.Recipe(
        data={"path": csv_of(folder / "rows.csv", table), "split": "split", "tables": tables},
        inputs={"around": graph}, outputs={"answer": ew.Category()},
    )  # fmt: skip
    return recipe, [{"at": [one["payer"], one["paid"]], "edges": paid} for one in table if one["split"] == "test"]


def of_graphs(folder: Path) -> tuple[ew.Recipe, Asked]:
    """Molecules in cells, and whether there is nitrogen in them."""
    random, found = np.random.default_rng(0), []
    for place in range(150):
        count = 3 + place % 4
        atoms = [*random.choice(["C", "O"], count - 1).tolist(), "CN"[place % 2]]
        found.append({
            "nodes": [{"id": at, "atom": atom} for at, atom in enumerate(atoms)],
            "edges": [{"source": at, "target": at + 1, "bond": "-"} for at in range(count - 1)],
        })  # fmt: skip
    table = [
        {"molecule": json.dumps(one), "nitrogen": place % 2, "split": side}
        for place, (one, side) in enumerate(zip(found, np.random.default_rng(1).permutation(sides(150)), strict=True))
    ]
    recipe = ew.Recipe(
        data={"path": csv_of(folder / "rows.csv", table), "split": "split"},
        inputs={"around": ew.Graph(column="molecule", node_classes=("atom",), classes=("bond",))},
        outputs={"nitrogen": ew.Boolean()},
    )  # fmt: skip
    return recipe, [one for one, row in zip(found, table, strict=True) if row["split"] == "test"]


@pytest.mark.parametrize("made", [of_nodes, of_edges, of_graphs])
def test_nodes_edges_and_graphs_are_answered_from_tables_and_from_what_a_row_brings(made: Any, tmp_path: Path) -> None:
    recipe, asked = made(tmp_path)
    recipe = recipe.replace(train={"size": "tiny", "steps": 60, "batch_size": 32}, trunk={"width": 32, "depth": 1})
    model, dataset = ew.fit(recipe, out=tmp_path / "run"), ew.prepare(recipe)
    (scores,) = ew.evaluate(model, dataset, dataset.splits.test, details=False).outputs.values()
    assert scores["accuracy"].value > 0.9
    (name,) = recipe.outputs
    with (tmp_path / "rows.csv").open() as file:
        (*rows,) = csv.DictReader(file)
    new = [
        {key: cell for key, cell in row.items() if key not in (name, "split")} for row in rows if row["split"] == "test"
    ]
    of_table = model.predict(csv_of(tmp_path / "new.csv", new))
    of_rows = model.predict([{"around": one} for one in asked])
    assert len(of_table) == len(asked)
    assert not differences([one.to_dict() for one in of_rows], [one.to_dict() for one in of_table])


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("graph", "raw", "reason"),
    [
        (PAYMENTS, {"at": ["a"], "edges": []}, "no time"),
        (PAYMENTS, {"at": ["a"], "time": "soon", "edges": []}, "is no time"),
        (PAYMENTS, {"at": [], "time": 1, "edges": []}, "no nodes"),
        (PAYMENTS, {"at": ["a"], "time": 1}, "'edges'"),
        (PAYMENTS, {"at": ["a"], "time": 1, "edges": [], "color": 1}, "color"),
        (PAYMENTS, {"at": ["a"], "time": 1, "edges": [{"source": "a", "targt": "b"}]}, "edges.0. has 'targt'"),
        (PAYMENTS, {"at": ["a"], "time": 1, "edges": [edge("a", "b", 1, "much")]}, "edges.0., 'amount': 'much' is no number"),  # type: ignore[arg-type]
        (PAYMENTS, {"at": ["a"], "time": 1, "edges": [{**edge("a", "b", 1), "target": None}]}, "the node is missing"),
        (PAYMENTS, {"at": "a", "time": 1, "edges": []}, "list of the nodes"),
        (PAYMENTS, {"at": ["a", None], "time": 1, "edges": []}, "all of them"),
        (Graph(at=("from", "to")), {"at": ["a"], "edges": []}, "not one for each of from, to"),
        (PAYMENTS, {"at": [1.0], "time": 1, "edges": []}, "decimal point"),
        (Graph(), {"edges": [{"source": "a", "target": "z"}], "nodes": [{"id": "a"}]}, "edges.0., 'target': there is no node 'z'"),
        (Graph(), {"edges": [], "nodes": [{"id": "a"}, {"id": "a"}]}, "nodes.1., 'id': the node 'a' is there twice"),
        (Graph(), {"at": ["b"], "edges": [], "nodes": [{"id": "a"}]}, "there is no node 'b'"),
        (Graph(), "no json", "JSON"),
        (Graph(), 17, "mapping"),
    ],
)  # fmt: skip
def test_what_is_no_graph_is_refused_with_the_reason(graph: Graph, raw: Any, reason: str) -> None:
    with pytest.raises(BadValue, match=reason):
        graph.read(raw, str.encode)


def test_a_bad_cell_of_a_table_is_named_with_its_row() -> None:
    data = tables()
    data["tables"]["payments"][5] = {**data["tables"]["payments"][5], "amount": "much"}
    with pytest.raises(DataError, match=r"list row 5, column 'amount'.*'much' is no number"):
        prepare(declared().replace(data=data))


def test_an_unknown_table_or_column_is_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"data\.tables.*did you mean 'payments'"):
        prepare(declared(edges="payment"))
    with pytest.raises(RecipeError, match="did you mean 'amount'"):
        prepare(declared(numbers=["amont"]))
    with pytest.raises(RecipeError, match=r"Graph\.at .*did you mean 'source'"):
        prepare(declared(at=["sorce"]))
    with pytest.raises(RecipeError, match=r"Graph\.neighbours"):
        Graph(neighbours=(30, 5))


def visits(**graph: Any) -> ew.Recipe:
    """Users who go to shops: both are numbered from 0."""
    rows = [{"user": place % 20, "shop": place % 5, "paid": float(place)} for place in range(60)]
    return of_links(rows, rows, at=["user", "shop"], ends=["user", "shop"], **graph).replace(outputs={"paid": "number"})


def test_ids_at_both_ends_are_told_where_nobody_said_whether_they_are_one_node() -> None:
    report = ew.check(visits())
    (found,) = report.of("unclear")
    assert found.level == "warning" and found.field == "around"
    assert found.message.startswith("5 of 20 ids of") and "'user' and in 'shop' (0, 1, 2 ...)" in found.message
    assert "one_kind" in found.fix and any(found.message in note for note in report.notes)
    assert not ew.check(visits(one_kind=True)).of("unclear")
    assert not ew.check(declared()).of("unclear")  # S3 and T3


def test_an_id_at_both_ends_is_refused_where_these_are_of_two_kinds() -> None:
    with pytest.raises(
        DataError, match=r"list row 0, column 'shop': '\d' is in column 'user' too, as are 5 ids in all"
    ):
        prepare(visits(one_kind=False))
    prepare(declared(one_kind=False))
    with pytest.raises(BadValue, match="one_kind: false"):
        Graph(one_kind=False).read({"edges": [{"source": 3, "target": 3}]}, str.encode)


# ---- network ---------------------------------------------------------------------------------------------------------


def encoded(edges: Sequence[Edge], graph: Graph = PAYMENTS) -> torch.Tensor:
    torch.manual_seed(0)
    contract = graph.fit([around(CHAIN, ["b"], 8, graph)], missing=0, role=INPUT_ROLE)
    encoder = GraphEncoder(contract, SIZE, hops=2, asked=None).eval()
    value = graph.transform(around(edges, ["a", "b"], 10, graph), contract)
    with torch.inference_mode():
        found = encoder(torch.from_numpy(value)[None], torch.tensor([[len(value)]]))
    return found.values[0][found.mask[0]]


@settings(deadline=None, max_examples=25)
@given(edges_of(12), st.randoms())
def test_permuting_neighbours_changes_nothing(edges: list[Edge], random: Any) -> None:
    torch.manual_seed(0)
    value = around(edges, ["a", "b"], 10)
    behind = np.flatnonzero(value[:, HOP] > 0).tolist()
    random.shuffle(behind)
    order = np.array([*range(2), *behind])
    order = order[np.argsort(value[order, HOP], kind="stable")]
    turned = value[order].copy()
    place = np.argsort(order)
    turned[:, PARENT] = [place[int(parent)] if parent >= 0 else -1 for parent in turned[:, PARENT]]
    contract = PAYMENTS.fit([value], missing=0, role=INPUT_ROLE)
    encoder = GraphEncoder(contract, SIZE, hops=2, asked=2).eval()
    with torch.inference_mode():
        one, other = (
            encoder(torch.from_numpy(PAYMENTS.transform(item, contract))[None], torch.tensor([[len(item)]])).values
            for item in (value, turned)
        )
    assert torch.allclose(one, other, atol=1e-5)


def test_what_is_two_edges_away_reaches_the_answer_and_what_is_three_away_does_not() -> None:
    near, changed = [edge("a", "b", 1), edge("b", "c", 2)], [edge("a", "b", 1), edge("b", "c", 2, 9.0)]
    assert not torch.allclose(encoded(near)[0], encoded(changed)[0], atol=1e-4)
    far, other = [*near, edge("c", "d", 3), edge("d", "e", 4)], [*near, edge("c", "d", 3), edge("d", "e", 4, 9.0)]
    assert torch.allclose(encoded(far)[0], encoded(other)[0], atol=1e-6)


def test_the_mean_over_neighbours_is_pytorch_geometrics() -> None:
    geometric = pytest.importorskip("torch_geometric.nn")
    torch.manual_seed(0)
    said, parent = torch.randn(1, 7, 4), torch.tensor([[7, 0, 0, 1, 1, 1, 2]])
    mean, _ = Hop._means(torch.ones(1, 7, 1), said, parent)
    layer = geometric.SAGEConv(4, 4, root_weight=False, bias=False)
    with torch.no_grad():
        layer.lin_l.weight.copy_(torch.eye(4))
        wanted = layer(said[0], torch.stack([torch.arange(1, 7), parent[0, 1:]]))
    assert torch.allclose(mean[0], wanted, atol=1e-6)


def geometric_layer(hop: Hop) -> Any:
    """The same layer of PyTorch Geometric's parts (message passing, mean and attentional aggregation, degree), with the weights
    copied: layer(x, edges), edges [2, edge] from and to."""
    pytest.importorskip("torch_geometric")
    from torch_geometric.nn import MessagePassing, aggr
    from torch_geometric.utils import degree

    class Loud(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 4 * super().forward(input).tanh()

    class Layer(MessagePassing):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(aggr=None)
            width = hop.message.in_features
            said = torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.SiLU())
            self.said, self.mean = said, aggr.MeanAggregation()
            self.attention = aggr.AttentionalAggregation(gate_nn=Loud(width, 1), nn=said)
            self.norm = torch.nn.RMSNorm(width)
            self.update_of = torch.nn.Sequential(
                torch.nn.Linear(2 * width + 1, 2 * width),
                torch.nn.SiLU(),
                torch.nn.Linear(2 * width, width, bias=False),
            )
            copies = (self.norm, hop.norm), (said[0], hop.message), (self.attention.gate_nn, hop.loudness)
            for own, theirs in (*copies, (self.update_of[0], hop.inward), (self.update_of[2], hop.outward)):
                own.load_state_dict(theirs.state_dict())

        def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
            counts = degree(edges[1], len(x)).log1p()[:, None]
            means = self.propagate(edges, x=self.norm(x))
            return x + self.update_of(torch.cat([means, counts], dim=-1))

        def message(self, x_j: torch.Tensor) -> torch.Tensor:
            return x_j

        def aggregate(self, inputs: torch.Tensor, index: torch.Tensor, dim_size: int) -> torch.Tensor:
            mean = self.mean(self.said(inputs), index, dim_size=dim_size)
            return torch.cat([mean, self.attention(inputs, index, dim_size=dim_size)], dim=-1)

    return Layer()


TYPED = Graph(numbers=("amount",), classes=("kind",), cap=(99, 99), neighbours=(3, 2))


def typed_graph(nodes: int = 9, count: int = 28) -> list[dict[str, Any]]:
    """Edges of two kinds, some of them there twice, one from a node to itself."""
    random = np.random.default_rng(0)
    ends = [*random.integers(0, nodes, (count, 2)).tolist(), [1, 1], [0, 1], [0, 1]]
    return [
        {"source": f"n{one}", "target": f"n{other}", "amount": float(place), "kind": ["cash", "card"][place % 2]}
        for place, (one, other) in enumerate(ends)
    ]


def typed_network(edges: Sequence[Mapping[str, Any]]) -> tuple[Any, GraphEncoder]:
    """The contract of a graph and two layers with weights that are nothing's initial value."""
    contract = TYPED.fit([TYPED.read({"edges": list(edges)}, str.encode)], missing=0, role=INPUT_ROLE)
    torch.manual_seed(0)
    encoder = GraphEncoder(contract, SIZE, hops=2, asked=None).eval()
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return contract, encoder


def first_states(encoder: GraphEncoder, values: np.ndarray) -> torch.Tensor:
    """What each visit says of itself, before any message."""
    rows = torch.from_numpy(values)
    numbers = encoder.inward(encoder._features(rows[:, 3 : 3 + encoder.numbers]))
    kinds = encoder.classes[0](rows[:, 3 + encoder.numbers].long())
    said: torch.Tensor = (
        numbers + kinds + encoder.directions(rows[:, 2].long() + 1) + encoder.distances(rows[:, 1].long())
    )
    return said


def of_geometric(encoder: GraphEncoder, states: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """The whole network's answer for every state, by PyTorch Geometric."""
    with torch.inference_mode():
        for hop in encoder.hops:
            states = geometric_layer(hop)(states, edges)
        answer: torch.Tensor = encoder.norm(states)
    return answer


def test_a_network_on_a_typed_sampled_graph_answers_as_pytorch_geometrics() -> None:
    edges = typed_graph()
    contract, encoder = typed_network(edges)
    values = [
        TYPED.transform(TYPED.sample(TYPED.read({"at": at, "edges": edges}, str.encode), (0, step, 7)), contract)
        for step, at in enumerate((["n0", "n1"], ["n2"], ["n3", "n4", "n5"]))
    ]
    longest = max(map(len, values))
    padded = np.stack([np.pad(value, ((0, longest - len(value)), (0, 0)), constant_values=1.0) for value in values])
    with torch.inference_mode():
        found = encoder(torch.from_numpy(padded), torch.tensor([[len(value)] for value in values]))
    for row, value in enumerate(values):
        parent = torch.from_numpy(value[:, 0]).long()
        child = torch.arange(len(value))[parent >= 0]
        wanted = of_geometric(encoder, first_states(encoder, value), torch.stack([child, parent[parent >= 0]]))
        asked = value[:, 1] == 0
        assert torch.allclose(found.values[row][found.mask[row]], wanted[asked], atol=1e-5)


def test_all_neighbours_of_a_row_give_the_answer_of_the_whole_graph_at_once() -> None:
    """The states of a full forward are the nodes, and each way along an edge at one step and at two steps from a node."""
    edges = typed_graph()
    contract, encoder = typed_network(edges)
    names = [f"n{node}" for node in range(9)]
    ways = [(place, 0, one["source"], one["target"]) for place, one in enumerate(edges)]
    ways += [
        (place, 1, one["target"], one["source"]) for place, one in enumerate(edges) if one["source"] != one["target"]
    ]
    kinds = {
        "cash": contract.classes[0].index(int(hash_of("cash"))),
        "card": contract.classes[0].index(int(hash_of("card"))),
    }
    nan = float("nan")
    rows = [[-1, 0, -1, nan, nan, 0] for _ in names]
    rows += [
        [0, hop, way[1], nan, edges[way[0]]["amount"], 2 + kinds[edges[way[0]]["kind"]]]
        for hop in (1, 2)
        for way in ways
    ]
    near = [(len(names) + at, names.index(way[2])) for at, way in enumerate(ways)]
    far = [
        (len(names) + len(ways) + at, len(names) + before)
        for at, way in enumerate(ways)
        for before, other in enumerate(ways)
        if way[2] == other[3] and way[0] != other[0]
    ]
    states = first_states(encoder, np.array(rows, np.float32))
    wanted = of_geometric(encoder, states, torch.tensor([*near, *far]).T)[: len(names)]
    for node, name in enumerate(names):
        value = TYPED.transform(TYPED.read({"at": [name], "edges": edges}, str.encode), contract)
        with torch.inference_mode():
            found = encoder(torch.from_numpy(value)[None], torch.tensor([[len(value)]])).values[0, 0]
        assert torch.allclose(found, wanted[node], atol=1e-5), name
