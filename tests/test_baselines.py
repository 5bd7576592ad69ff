"""Baselines: the best constant and a classical model answer the same rows in the same form as the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from toys import Amount, Kind, Letters

from endwise.baselines import MAX_FIT_ROWS, baselines
from endwise.data.dataset import Dataset, fit_contracts, prepare
from endwise.modalities.base import Answer
from endwise.recipe import Recipe

ROWS = 240


def rows(count: int = ROWS, **gaps: Sequence[int]) -> list[dict[str, Any]]:
    """y follows x; kind follows colour; the named cells are empty."""
    random = np.random.default_rng(0)
    made = []
    for index in range(count):
        x, colour = float(random.normal()), str(random.choice(["red", "blue"]))
        row = {"x": x, "colour": colour, "y": 3 * x + 1, "kind": "warm" if colour == "red" else "cold"}
        made.append({name: None if index in gaps.get(name, ()) else value for name, value in row.items()})
    return made


def prepared(recipe: Recipe) -> tuple[Dataset, Any]:
    dataset = prepare(recipe, workers=0)
    return dataset, fit_contracts(recipe, dataset)


def declared(data: Any, **values: Any) -> Recipe:
    return Recipe(
        **{
            "data": data,
            "inputs": {"x": "number", "colour": "category"},
            "outputs": {"y": "number", "kind": "category"},
            **values,
        }
    )


def made(recipe: Recipe, most_rows: int = MAX_FIT_ROWS) -> tuple[Any, Dataset]:
    dataset, contracts = prepared(recipe)
    train, test = dataset.splits.train, dataset.splits.test
    return baselines(contracts, recipe, dataset, train, test, most_rows=most_rows), dataset


def test_both_answer_every_row_that_was_asked_for() -> None:
    found, dataset = made(declared(rows()))
    test = dataset.splits.test
    for output in ("y", "kind"):
        assert len(found[output]["trivial"]) == len(found[output]["classical"]) == len(test)
        assert found[output]["notes"] == []
    truths = dataset.cells("y", test)
    assert np.allclose([answer.value for answer in found["y"]["classical"]], truths, atol=0.2)
    assert len({answer.value for answer in found["y"]["trivial"]}) == 1
    kinds = dataset.cells("kind", test)
    assert [answer.value for answer in found["kind"]["classical"]] == kinds
    assert all(set(answer.detail["probabilities"]) == {"cold", "warm"} for answer in found["kind"]["classical"])


def test_the_constant_is_learnt_from_training_rows_only() -> None:
    data = [{**row, "split": "test" if index % 4 == 0 else "train"} for index, row in enumerate(rows())]
    data = [{**row, "y": 1e6} if row["split"] == "test" else row for row in data]
    found, _ = made(declared(data))
    assert abs(found["y"]["trivial"][0].value) < 10


def test_missing_inputs_and_targets_take_part_as_what_they_are() -> None:
    every_third = range(0, ROWS, 3)
    found, dataset = made(declared(rows(colour=every_third, kind=range(1, ROWS, 5), x=range(2, ROWS, 7))))
    assert len(found["kind"]["classical"]) == len(dataset.splits.test)
    assert all(isinstance(answer, Answer) for answer in found["y"]["classical"])


def test_an_input_without_hand_features_is_named() -> None:
    data = [{**row, "letters": "abc" * (1 + index % 40)} for index, row in enumerate(rows())]
    recipe = declared(data, inputs={"x": "number", "letters": Letters()})
    named, _ = made(recipe)
    assert any("letters has no hand features" in note for note in named["y"]["notes"])
    alone, _ = made(declared(data, inputs={"letters": Letters()}))
    assert alone["y"]["classical"] is None


def test_only_a_sample_of_many_rows_is_used_and_said() -> None:
    found, _ = made(declared(rows()), most_rows=50)
    again, _ = made(declared(rows()), most_rows=50)
    assert any("50 of" in note and "drawn at random" in note for note in found["y"]["notes"])
    assert [answer.value for answer in found["y"]["classical"]] == [answer.value for answer in again["y"]["classical"]]


@dataclass(frozen=True, kw_only=True)
class Stubborn(Kind):
    """A class whose classical model cannot be fitted."""

    type = "stubborn"

    def classical(self, contract: Any) -> Any:
        return Refusing()


class Refusing:
    def fit(self, features: Any, truths: Any) -> None:
        raise ValueError("these rows say nothing\nat all")


@dataclass(frozen=True, kw_only=True)
class Without(Amount):
    """A number without a classical model."""

    type = "without"

    def classical(self, contract: Any) -> Any:
        raise NotImplementedError


def test_a_model_that_cannot_be_fitted_is_a_note_and_no_crash() -> None:
    found, _ = made(declared(rows(), outputs={"kind": Stubborn(), "y": Without()}))
    assert found["kind"]["classical"] is None
    assert found["kind"]["notes"] == ["the classical baseline could not be fitted: these rows say nothing"]
    assert found["y"]["notes"] == ["there is no classical baseline for without"]
    assert len(found["kind"]["trivial"]) > 0


def test_what_a_fit_warns_of_is_a_whole_sentence_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """scikit-learn names its solver, and its first line ends in the colon of a list."""
    from sklearn.linear_model import LogisticRegression

    monkeypatch.setattr(Kind, "classical", lambda self, contract: LogisticRegression(max_iter=1))
    notes = made(declared(rows(), outputs={"kind": Kind()}))[0]["kind"]["notes"]
    assert len(notes) == 1
    assert notes[0].startswith("the classical baseline: its fitting stopped after 1 iteration before")
    assert "lbfgs" not in notes[0]


def test_sparse_and_dense_features_stand_side_by_side() -> None:
    data = [{**row, "said": f"it is {row['kind']} and {index % 7}"} for index, row in enumerate(rows(said=[]))]
    data = [{**row, "said": None} if index % 9 == 0 else row for index, row in enumerate(data)]
    found, dataset = made(declared(data, inputs={"x": "number", "said": "text"}))
    kinds = dataset.cells("kind", dataset.splits.test)
    right = [answer.value == kind for answer, kind in zip(found["kind"]["classical"], kinds, strict=True)]
    assert np.mean(right) > 0.8


def test_another_table_is_answered_by_models_of_the_first() -> None:
    recipe = declared(rows(x=range(0, ROWS, 3)))
    dataset, contracts = prepared(recipe)
    other = prepare(recipe, source=rows(30), workers=0)
    found = baselines(contracts, recipe, dataset, dataset.splits.train, other.splits.test, score_on=other)
    assert len(found["y"]["classical"] or []) == 30
