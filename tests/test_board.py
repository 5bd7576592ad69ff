"""Boards: read from any form, answered by descending a learnt energy whose slope is exact, better with more steps."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import endwise as ew
from endwise import metrics
from endwise.errors import BadValue, DataError, RecipeError
from endwise.modalities.base import Answer
from endwise.modalities.board.classical import CellRidge, Cells
from endwise.modalities.board.network import BoardHead
from endwise.model import Model
from endwise.nn.energy import PairEnergy, descended


def read(raw: Any, **declared: Any) -> np.ndarray:
    return ew.Board(**declared).read(raw, lambda path: b"")


def text(raw: Any, **declared: Any) -> str:
    return "/".join("".join(map(chr, row)) for row in read(raw, **declared).tolist())


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_every_form_of_a_board_is_one() -> None:
    for raw in ("12/21", "12\n21", "1221", ["12", "21"], [[1, 2], [2, 1]], [["1", "2"], ["2", "1"]], "[[1, 2], [2, 1]]",
                [1, 2, 2, 1], np.array([[1, 2], [2, 1]]), " 12\r\n21 "):  # fmt: skip
        assert text(raw) == "12/21"
    assert text("123456", columns=3) == "123/456"


@pytest.mark.parametrize(
    ("raw", "said"),
    [("123", "no square"), ("12/1", "different lengths"), ([[10, 2], [1, 1]], "one character"), ("1 /21", "no symbol"), ("", "rows of a board"),
     (None, "rows of a board"), ([[1.5, 2], [1, 2]], "no symbol"), ("[[1", "no list"), ("x" * 1089, "not one board")],
)  # fmt: skip
def test_what_is_no_board_is_refused(raw: Any, said: str) -> None:
    with pytest.raises(BadValue, match=said):
        read(raw)


def test_boards_of_one_field_are_of_one_size() -> None:
    with pytest.raises(DataError, match="all of one size"):
        ew.Board().fit(iter([read("12/21"), read("123/123/123")]), missing=0, role="input")
    contract = ew.Board().fit(iter([read("12/21")]), missing=0, role="input")
    assert ew.Board().transform(read("13/21"), contract).tolist() == [0, 2, 1, 0]  # 3 was never seen
    with pytest.raises(BadValue, match="expected a board of 2 x 2"):
        ew.Board().transform(read("123/123"), contract)


@pytest.mark.parametrize(
    ("inputs", "output", "said"),
    [({"a": "board", "b": "board"}, ew.Board(), "on: a"), ({"a": "board"}, ew.Board(on="c"), "'c'")],
)
def test_an_answer_says_on_which_board_it_lies(inputs: Mapping[str, Any], output: ew.Board, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        ew.Recipe(data=[{"a": 1}], inputs=inputs, outputs={"y": output}).standing("y")


# ---- the energy ------------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), places=st.integers(2, 6), symbols=st.integers(2, 5))
def test_the_written_slope_is_the_slope(seed: int, places: int, symbols: int) -> None:
    torch.manual_seed(seed)
    energy = PairEnergy(places, symbols)
    torch.nn.init.normal_(energy.places)
    y = torch.randn(3, places, symbols).softmax(-1).requires_grad_()
    said = torch.randn(3, places, symbols)
    (slope,) = torch.autograd.grad(energy(y, said).sum(), y)
    assert torch.allclose(slope, energy.slope(y, said), atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999))
def test_a_place_says_nothing_of_itself(seed: int) -> None:
    torch.manual_seed(seed)
    energy = PairEnergy(4, 3)
    torch.nn.init.normal_(energy.places)
    y = torch.randn(1, 4, 3).softmax(-1)
    other = y.clone()
    other[:, 2] = torch.randn(3).softmax(-1)
    assert torch.allclose(energy.pulled(y)[:, 2], energy.pulled(other)[:, 2], atol=1e-5)


def test_without_relations_the_descent_ends_at_what_was_said() -> None:
    energy = PairEnergy(4, 3)
    torch.nn.init.zeros_(energy.places)
    said = torch.randn(2, 4, 3)
    path = descended(energy, said, 200)
    assert len(path) == 201
    assert torch.equal(path[0], said)
    assert torch.equal(path[-1].argmax(-1), said.argmax(-1))


def latin(count: int, seed: int) -> list[dict[str, str]]:
    """Latin squares of order 4, of which half the cells are hidden."""
    random, rows = np.random.default_rng(seed), []
    base = np.add.outer(np.arange(4), np.arange(4)) % 4
    for _ in range(count):
        square = random.permutation(4)[base[random.permutation(4)][:, random.permutation(4)]] + 1
        shown = np.where(random.permuted(np.arange(16)).reshape(4, 4) < 8, square, 0)
        rows.append({"puzzle": _rows(shown).replace("0", "."), "solution": _rows(square)})
    return rows


def _rows(board: np.ndarray) -> str:
    return "/".join("".join(map(str, row)) for row in board.tolist())


RIVALS = torch.tensor([[int(a != b and (a // 4 == b // 4 or a % 4 == b % 4)) for b in range(16)] for a in range(16)])


def ruled() -> tuple[Model, BoardHead]:
    """A model that says of each cell what is given there, with the energy of the rule: equal symbols in a row or a column
    repel each other."""
    rows = latin(30, 0)
    recipe = ew.Recipe(
        data=rows,
        inputs={"puzzle": "board"},
        outputs={"solution": "board"},
        train={"size": "tiny"},
        trunk={"depth": 1, "dropout": 0.0},
    )
    contracts = {
        name: ew.Board().fit((read(row[name]) for row in rows), missing=0, role="input")
        for name in ("puzzle", "solution")
    }
    model = Model.build(recipe, contracts, seed=0)
    head = model.network.head("solution")
    assert isinstance(head, BoardHead)
    with torch.no_grad():
        head.energy.places.zero_()[0] = RIVALS
        head.energy.symbols.zero_()[0] = torch.eye(4)
    return model, head


def given_scores(rows: list[dict[str, str]]) -> torch.Tensor:
    shown = [[["1234.".index(cell) for cell in row["puzzle"].replace("/", "")]] for row in rows]
    said = 8.0 * torch.nn.functional.one_hot(torch.tensor(shown)[:, 0], 5)[..., :4].float()
    return said - said.amax(-1, keepdim=True)


def test_more_steps_of_the_descent_help() -> None:
    """With the true rule as the energy, and nothing said but what is given: hidden cells are found step by step."""
    _, head = ruled()
    rows = latin(60, 1)
    truth = torch.tensor([[int(cell) - 1 for cell in row["solution"].replace("/", "")] for row in rows])
    shares = []
    for steps in (1, 2, 4, 8, 48):
        found = descended(head.energy, given_scores(rows), steps)[-1].argmax(-1)
        shares.append(float((found == truth).all(-1).float().mean()))
    assert shares == sorted(shares)
    assert shares[0] < 0.2 < 0.8 < shares[-1]  # some have several solutions


def test_the_energy_falls_along_the_descent_and_tells_right_from_wrong() -> None:
    _, head = ruled()
    rows = latin(20, 2)
    said = given_scores(rows)
    path = descended(head.energy, said, 48)
    first, last = (head.energy(scores.softmax(-1), said) for scores in (path[0], path[-1]))
    assert bool((last < first).all())
    right = torch.tensor([[int(cell) - 1 for cell in row["solution"].replace("/", "")] for row in rows])
    one_hot = torch.nn.functional.one_hot(right, 4).float()
    spoilt = torch.nn.functional.one_hot(head.eval()._spoilt(right), 4).float()
    assert bool((head.energy(one_hot, said) < head.energy(spoilt, said)).all())


def test_a_board_against_the_rules_is_surprising() -> None:
    """Calibrated on boards that follow the rules, boards that break them have a higher energy than nearly all of these."""
    _, head = ruled()
    head.eval()

    def predicted(rows: list[dict[str, str]]) -> dict[str, torch.Tensor]:
        said = given_scores(rows)
        path = descended(head.energy, said, head.steps)
        along = torch.stack([path[8], path[16], path[-1]], 1)
        answer = torch.nn.functional.one_hot(along[:, -1].argmax(-1), 4).float()
        return {"said": said, "along": along, "energy": head.energy(answer, said)}

    rows = latin(80, 3)
    target = torch.tensor([[int(cell) - 1 for cell in row["solution"].replace("/", "")] for row in rows])
    assert (head.decode(predicted(rows))["surprise"] == -1).all()  # not measured yet
    found = head.calibrate(predicted(rows), target, torch.zeros(80, 0))
    assert set(found) == {"temperature", "energy_median"}
    random = np.random.default_rng(4)
    broken = [{"puzzle": _rows(random.integers(0, 5, (4, 4))).replace("0", "."), "solution": ""} for _ in range(40)]
    usual, odd = (head.decode(predicted(part))["surprise"].mean() for part in (latin(40, 5), broken))
    assert float(odd) > 0.9 > 0.7 > float(usual)


def test_a_confidence_is_that_of_the_whole_board() -> None:
    model, _ = ruled()
    answer = model.predict({"puzzle": latin(1, 6)[0]["puzzle"]}).answers["solution"]
    assert answer.confidence == pytest.approx(float(np.prod(answer.detail["cells"])), rel=1e-4)
    assert set(answer.detail) == {"energy", "cells"}
    assert len(answer.value) == 19


def test_symbols_that_training_never_saw_teach_nothing() -> None:
    _, head = ruled()
    head.eval()
    prediction = {"said": torch.zeros(1, 16, 4), "along": torch.randn(1, 3, 16, 4)}
    known, unknown = torch.zeros(1, 16, dtype=torch.long), torch.zeros(1, 16, dtype=torch.long)
    unknown[0, 5] = 4
    costs = [head.loss(prediction, board, torch.zeros(1, 0))["cells"] for board in (known, unknown)]
    rest = [place for place in range(16) if place != 5]
    wanted = -prediction["along"].log_softmax(-1)[0, :, rest, 0].mean()
    assert torch.allclose(costs[1], wanted)
    assert not torch.allclose(costs[0], costs[1])


# ---- metrics and baselines -------------------------------------------------------------------------------------------


def test_cells_and_boards_are_counted_apart() -> None:
    truths, answers = ["12/21", "21/12"], [Answer("12/21"), Answer("21/11")]
    assert metrics.value(metrics.accuracy(), truths, answers) == 0.5
    assert metrics.value(metrics.cell_accuracy(), truths, answers) == 7 / 8


def test_the_classical_rival_copies_what_is_given() -> None:
    rows = latin(200, 7)
    cells = Cells().fit([read(row["puzzle"]) for row in rows])
    features = cells.transform([read(row["puzzle"]) for row in rows])
    found = CellRidge().fit(features, [row["solution"] for row in rows]).predict(features[:20])
    kept = [
        one == two
        for row, made in zip(rows, found, strict=False)
        for one, two in zip(row["puzzle"], made, strict=True)
        if one in "1234"
    ]
    assert np.mean(kept) > 0.95


def test_the_trivial_answer_is_the_most_frequent_symbol_of_each_cell() -> None:
    contract = ew.Board().fit(iter([read("12/21")]), missing=0, role="output")
    assert ew.Board().trivial(["12/21", "12/12", "12/12"], contract).value == "12/12"
