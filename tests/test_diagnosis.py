"""Where a network goes wrong: groups are named when they are worse beyond chance, wrong labels are found, and layers are
asked what nobody told them."""

import json
from typing import Any

import numpy as np
import pytest

import endwise as ew
from endwise.data.dataset import Dataset, fit_contracts, prepare
from endwise.details import Answered, probe
from endwise.diagnosis import suspected_labels, weak_slices
from endwise.modalities.base import Answer
from endwise.model import Model

ROWS = 400


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Any:
    patch = pytest.MonkeyPatch()
    patch.setenv("ENDWISE_CACHE", str(tmp_path_factory.mktemp("diagnosed")))
    random = np.random.default_rng(0)
    x = random.normal(size=ROWS)
    columns = {
        "x": x.tolist(),
        "kind": ["high" if value > 0 else "low" for value in x],
        "site": [f"s{index % 4}" for index in range(ROWS)],
        "day": random.integers(0, 7, ROWS).tolist(),
        "age": random.uniform(0, 90, ROWS).tolist(),
        "side": ["right" if value > 0.5 else "left" for value in x],
        "who": [f"p{index}" for index in range(ROWS)],
    }
    yield prepare(ew.Recipe(data=columns, inputs={"x": "number"}, outputs={"kind": "category"}), workers=0)
    patch.undo()


def answered(dataset: Dataset, wrong: np.ndarray, clusters: list[int] | None = None, flipped: Any = ()) -> Answered:
    """Answers of a network that is wrong where it is said to be. flipped: rows with a wrong label."""
    truths = [str(cell) for cell in dataset.cells("kind", range(ROWS))]
    other = {"high": "low", "low": "high"}
    answers = []
    random = np.random.default_rng(1)
    for truth, miss in zip(truths, wrong, strict=True):
        said, sure = other[truth] if miss else truth, float(random.uniform(0.7, 0.99))
        answers.append(Answer(said, sure, detail={"probabilities": {said: sure, other[said]: 1 - sure}}))
    for row in flipped:
        truths[row] = other[truths[row]]
    item = ew.Category()
    contract = item.fit((np.frombuffer(name.encode(), np.uint8) for name in ("high", "low")), missing=0, role="output")
    losses = {"loss": np.ones((ROWS, 2))}
    return Answered(item, contract, np.arange(ROWS), truths, answers, losses, {}, None, clusters)


def wrong_in(dataset: Dataset, column: str, group: str, share: float, elsewhere: float) -> np.ndarray:
    inside = np.array([str(cell) == group for cell in dataset.cells(column, range(ROWS))])
    return np.random.default_rng(2).uniform(size=ROWS) < np.where(inside, share, elsewhere)


def test_a_group_that_is_worse_is_named_with_its_rows_and_an_interval(dataset: Dataset) -> None:
    found = weak_slices(answered(dataset, wrong_in(dataset, "site", "s2", 0.5, 0.05)), dataset)
    assert found is not None
    json.dumps(found, allow_nan=False)
    first = found["found"][0]
    assert (first["column"], first["group"], first["worse_by"]["n"]) == ("site", "s2", 100)
    assert found["measure"] == "error rate"
    assert first["worse_by"]["low"] > 0.2
    assert first["worse_by"]["low"] < first["score"] - first["rest"] < first["worse_by"]["high"]
    assert 0.5 < first["share"] < 1
    assert found["looked_at"] > 10
    assert all(item["column"] != "who" for item in found["found"])


def test_where_no_group_is_worse_few_are_named_however_many_are_looked_at(dataset: Dataset) -> None:
    named = 0
    for seed in range(40):
        found = weak_slices(answered(dataset, np.random.default_rng(seed).uniform(size=ROWS) < 0.2), dataset)
        assert found is not None
        named += bool(found["found"])
    assert named <= 6  # 2 are to be expected


def test_rows_that_belong_together_are_no_independent_evidence(dataset: Dataset) -> None:
    """One bad patient of six in a site is no bad site."""
    wrong = np.zeros(ROWS, bool)
    sites = np.array([str(cell) for cell in dataset.cells("site", range(ROWS))])
    clusters = np.where(sites == "s1", 1000 + np.arange(ROWS) // 70, np.arange(ROWS))
    wrong[(sites == "s1") & (clusters == 1002)] = True
    alone = weak_slices(answered(dataset, wrong), dataset)
    together = weak_slices(answered(dataset, wrong, clusters.tolist()), dataset)
    assert alone is not None
    assert together is not None
    assert any(item["group"] == "s1" for item in alone["found"])
    assert not any(item["group"] == "s1" for item in together["found"])


def test_wrong_labels_are_suspected(dataset: Dataset) -> None:
    flipped = np.random.default_rng(3).choice(ROWS, 20, replace=False).tolist()
    found = suspected_labels(answered(dataset, np.zeros(ROWS, bool), flipped=flipped), dataset)
    assert found is not None
    suspects = {item["row"] for item in found["rows"]}
    assert len(suspects & set(flipped)) >= 0.6 * len(suspects) > 0
    assert len(suspects) >= 8
    assert all(item["label"] != item["rather"] and item["origin"] for item in found["rows"])
    assert found["suspected"].low < found["suspected"].value < found["suspected"].high
    clean = suspected_labels(answered(dataset, np.zeros(ROWS, bool)), dataset)
    assert clean is not None
    assert not clean["rows"]


def test_answers_without_probabilities_raise_no_suspicion(dataset: Dataset) -> None:
    scored = answered(dataset, np.zeros(ROWS, bool))
    bare = [Answer(item.value, item.confidence) for item in scored.answers]
    plain = Answered(scored.item, scored.contract, scored.rows, scored.truths, bare, scored.losses, {}, None, None)
    assert suspected_labels(plain, dataset) is None


def test_layers_are_asked_for_columns_that_the_recipe_does_not_use(dataset: Dataset) -> None:
    recipe = ew.Recipe(
        data={"x": [0.0]},
        inputs={"x": "number"},
        outputs={"kind": "category"},
        train={"size": "tiny", "precision": "fp32"},
    )
    model = Model.build(recipe, fit_contracts(recipe, dataset), seed=0)
    found = probe(model, dataset, np.arange(300), np.arange(300, ROWS), columns=["side", "age", "who"])
    assert set(found) == {"kind", "side", "age"}
    assert found["side"][0]["layer"] == "(a constant)"
    assert found["side"][0]["value"] < 0.8
    assert max(layer["value"] for layer in found["side"][1:]) > 0.9  # x says the side
    assert max(layer["value"] for layer in found["age"][1:]) < 0.3  # and nothing of the age
