"""A server says how far what is asked lies from what was learnt from."""

from pathlib import Path

import httpx
import numpy as np
import pytest

import endwise as ew
from endwise.modalities.base import Contract
from endwise.serve import serving
from endwise.serve.drift import FEWEST, Drift
from tests.test_serve import number_model


def of_numbers(values: np.ndarray, missing: int = 0) -> Contract:
    item = ew.Number()
    return item.fit([item.read(float(value), str.encode) for value in values], missing=missing, role="input")


def score(contract: Contract, values: list[np.ndarray | None]) -> float:
    drift = Drift({"x": contract})
    for value in values:
        drift.saw({"x": value})
    return drift.scores()["x"]


@pytest.mark.parametrize("whole", [False, True])
def test_numbers_that_moved_are_told_from_those_that_did_not(whole: bool) -> None:
    chosen = np.random.default_rng(0)

    def drawn(count: int, at: float = 0.0) -> np.ndarray:
        found = chosen.normal(at, 2.0, count)
        return found.round() if whole else found

    contract = of_numbers(drawn(5_000))
    assert score(contract, [np.array(value) for value in drawn(1_000)]) < 0.1
    assert score(contract, [np.array(value) for value in drawn(1_000, at=2.0)]) > 0.25
    assert score(contract, [np.array(1e9)] * FEWEST) > 1


def test_classes_that_training_hardly_saw_count_together() -> None:
    item = ew.Category()
    names = ["a"] * 700 + ["b"] * 250 + [f"rare {number}" for number in range(50)]
    contract = item.fit([item.read(name, str.encode) for name in names], missing=0, role="input")
    ids = [item.transform(item.read(name, str.encode), contract) for name in names]
    assert score(contract, ids) == pytest.approx(0, abs=1e-9)
    new = item.transform(item.read("never seen", str.encode), contract)
    assert score(contract, [*ids[:500], *[new] * 500]) > 0.25


def test_a_value_that_is_no_longer_there_is_seen() -> None:
    contract = of_numbers(np.arange(900.0), missing=100)
    rows = [np.array(value) for value in np.arange(0, 900.0)]
    assert score(contract, [*rows, *[None] * 100]) < 0.1
    assert score(contract, [*rows[:500], *[None] * 500]) > 0.25


def test_what_nothing_is_known_of_has_no_score() -> None:
    drift = Drift({"x": of_numbers(np.arange(50.0))})
    for value in range(FEWEST - 1):
        drift.saw({"x": np.array(float(value))})
    assert drift.scores() == {}
    item = ew.Text()
    texts = [item.read(text, str.encode) for text in ("a word", "another")]
    drift = Drift({"x": item.fit(texts, missing=0, role="input")})
    for _ in range(FEWEST):
        drift.saw({"x": texts[0]})
    assert drift.scores() == {}


def test_it_is_among_the_numbers_for_prometheus(tmp_path: Path) -> None:
    number_model(0).save(tmp_path / "model")  # learnt from 0 to 49
    with serving(tmp_path / "model", port=0) as server, httpx.Client(base_url=server.url) as client:
        for _ in range(FEWEST):
            assert "endwise_drift{" not in client.get("/metrics").text
            assert client.post("/predict", json={"inputs": {"weight": 49}}).status_code == 200
        assert client.post("/predict", json={"inputs": {"weight": "heavy"}}).status_code == 422
        line = next(line for line in client.get("/metrics").text.splitlines() if line.startswith("endwise_drift{"))
        assert line.startswith('endwise_drift{input="weight"} ')
        assert float(line.split()[1]) > 0.25
