"""A board: symbols on a grid of one size, as puzzles, games and tile maps have them.

Here: how a board is read, what is learnt about the training rows, how an answer is written. Not here: the encoder and the
head (network.py), the energy that an answer is found by descending (endwise/nn/energy.py), the classical rival
(classical.py). A grid of numbers is a `field`; a picture of a board is an `image`, which may answer with a board.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from endwise.errors import BadValue, DataError, refusal, require, unknown_name
from endwise.modalities.base import (
    READ_AGAIN,
    Answer,
    Contract,
    Fetch,
    Modality,
    Role,
    output_field,
    places_of,
    shared_field,
)

if TYPE_CHECKING:
    from endwise.metrics import Metric
    from endwise.nn.interface import Encoder, Head
    from endwise.nn.size import Size

ROW_ENDS = "/\n"
STEPS, MOST_STEPS = 24, 256  # the default, and as many as training differentiates through
MOST_CELLS = 1_024
MOST_SYMBOLS = 64


@dataclass(frozen=True, kw_only=True)
class BoardContract(Contract):
    """What the training rows are like. symbols: those that occurred, in order, with their counts."""

    rows: int
    columns: int
    symbols: tuple[str, ...]
    counts: tuple[int, ...]

    @property
    def cells(self) -> int:
        """Places of a board."""
        return self.rows * self.columns


@dataclass(frozen=True, kw_only=True)
class Board(Modality):
    """Symbols on a grid, one character each: text with rows ended by / or line ends ("12/21"), a list of rows, or of all
    cells ("1221" of a square board; `columns` says how wide others are). All boards of a field are of one size.

    As an output it is found by descending a learnt energy of all its cells together, `steps` steps from what the input
    says of each cell alone. The answer is text with rows between /; its confidence is the chance that the whole board is
    right, and `detail` has its energy and, once measured on validation rows, the share of those with a lower one
    (`surprise`): near 1 it is unlike anything in training.
    """

    type: ClassVar[str] = "board"
    hand_offs: ClassVar[frozenset[str]] = READ_AGAIN
    contract_class = BoardContract
    read_fields: ClassVar[tuple[str, ...]] = ("columns",)

    columns: int | None = shared_field(
        None, "how wide a board is that comes without ends of rows; null: such a board is square"
    )
    on: str | None = output_field(
        None, "the input board of the same size, cell by cell; null: the only input board, where there is one"
    )
    decoder: Literal["energy"] = output_field("energy", "energy: by descending a learnt energy of all cells together")
    steps: int = output_field(
        STEPS, f"of the descent; more are better and slower; training differentiates through {STEPS} at most"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.columns is None or self.columns >= 1,
            field="Board.columns", got=self.columns, allowed="a whole number of at least 1", fix="leave it out for a square board",
        )  # fmt: skip
        require(
            1 <= self.steps <= MOST_STEPS,
            field="Board.steps", got=self.steps, allowed=f"a whole number from 1 to {MOST_STEPS}", fix=f"leave it out for {STEPS}",
        )  # fmt: skip

    def beside(self, inputs: Mapping[str, Modality], outputs: Mapping[str, Modality]) -> Self:
        """An output with `on` written out, where there is a board to lie on."""
        if self not in outputs.values():
            return self
        boards = [name for name, item in inputs.items() if isinstance(item, Board)]
        if self.on is not None and self.on not in boards:
            raise unknown_name(field="Board.on", got=self.on, names=boards or inputs)
        require(
            self.on is not None or len(boards) < 2,
            field="Board.on", got=None, allowed=f"one of {', '.join(boards)}", fix=f"write on: {boards[0] if boards else ''}",
        )  # fmt: skip
        return replace(self, on=boards[0]) if self.on is None and boards else self

    # ---- both roles ------------------------------------------------------------------------------------------------

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """int32 [row, column]: the characters' code points."""
        rows = _rows(raw)
        if rows is None or not rows or not all(rows):
            raise BadValue(f"expected the rows of a board, got {type(raw).__name__} {raw!r:.40}")
        if len(rows) == 1:
            rows = self._cut(rows[0])
        if len({len(row) for row in rows}) > 1:
            raise BadValue(f"rows of different lengths: {', '.join(str(len(row)) for row in rows[:10])}")
        if len(rows) * len(rows[0]) > MOST_CELLS:
            raise BadValue(f"{len(rows)} x {len(rows[0])} cells; more than {MOST_CELLS} are not one board")
        odd = next((cell for row in rows for cell in row if len(cell) != 1 or cell.isspace() or cell in ROW_ENDS), None)
        if odd is not None:
            raise BadValue(f"{odd!r:.20} is no symbol: each is one character, no space and no /")
        return np.array([[ord(cell) for cell in row] for row in rows], np.int32)

    def _cut(self, cells: Sequence[str]) -> list[Sequence[str]]:
        width = self.columns or round(len(cells) ** 0.5)
        if len(cells) % width or (self.columns is None and width * width != len(cells)):
            shape = "no square" if self.columns is None else f"no rows of {self.columns}"
            raise BadValue(f"{len(cells)} cells are {shape}: say columns:, or end the rows with /")
        return [cells[start : start + width] for start in range(0, len(cells), width)]

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> BoardContract:
        """One pass."""
        shapes: Counter[tuple[int, ...]] = Counter()
        counts: Counter[int] = Counter()
        for value in values:
            shapes[value.shape] += 1
            symbols, found = np.unique(value, return_counts=True)
            counts.update(dict(zip(symbols.tolist(), found.tolist(), strict=True)))
        if len(shapes) != 1:
            got = ", ".join(f"{n} of {rows} x {columns}" for (rows, columns), n in shapes.most_common(4))
            raise refusal(
                field="board", got=got or f"{missing} rows without a value", allowed="training boards, all of one size",
                fix="pad the smaller ones with a symbol of their own, or make a recipe for each size", error=DataError,
            )  # fmt: skip
        require(
            len(counts) <= MOST_SYMBOLS,
            field="board", got=f"{len(counts)} symbols", allowed=f"at most {MOST_SYMBOLS}",
            fix="a text of many letters is type: text", error=DataError,
        )  # fmt: skip
        ((rows, columns),) = shapes
        ordered = sorted(counts)
        return BoardContract(
            count=shapes[rows, columns], missing=missing, rows=rows, columns=columns,
            symbols=tuple(map(chr, ordered)), counts=tuple(counts[item] for item in ordered),
        )  # fmt: skip

    def transform(self, value: np.ndarray, contract: BoardContract) -> np.ndarray:
        """int64 [cell]: the place of each symbol in the contract, behind the last one for what training never saw."""
        if value.shape != (contract.rows, contract.columns):
            wanted = f"{contract.rows} x {contract.columns}"
            raise BadValue(f"expected a board of {wanted} as in training, got {value.shape[0]} x {value.shape[1]}")
        codes = np.array([ord(symbol) for symbol in contract.symbols], np.int32)
        place = np.searchsorted(codes, value.ravel()).clip(max=len(codes) - 1)
        return np.where(codes[place] == value.ravel(), place, len(codes)).astype(np.int64)

    def blank(self, contract: BoardContract) -> np.ndarray:
        """A board of nothing that is known."""
        return np.full(contract.cells, len(contract.symbols), np.int64)

    def example(self, contract: BoardContract) -> Any:
        """One symbol everywhere."""
        return "/".join([contract.symbols[0] * contract.columns] * contract.rows) if contract.symbols else None

    def summary(self, contract: BoardContract) -> str:
        """'6 x 6, of 123456'."""
        return f"{contract.rows} x {contract.columns}, of {''.join(contract.symbols)}"

    def preview(self, value: np.ndarray, contract: BoardContract) -> dict[str, str]:
        """The rows between /."""
        return {"kind": "text", "data": _text(value)}

    # ---- inputs ----------------------------------------------------------------------------------------------------

    def hand_features(self) -> Any:
        """Which symbol stands in each cell."""
        from endwise.modalities.board.classical import Cells

        return Cells()

    def onto(self, places: np.ndarray, whole: np.ndarray, contract: BoardContract) -> np.ndarray:
        """Rows and columns."""
        return places.reshape(whole.shape)

    def named(self, whole: np.ndarray, contract: BoardContract) -> Sequence[str]:
        """'2 in row 0, column 3'."""
        cells = np.ndindex(*whole.shape)
        return [f"{chr(whole[row, column])} in row {row}, column {column}" for row, column in cells]

    # ---- outputs ---------------------------------------------------------------------------------------------------

    def about(
        self, which: Any, decoded: Mapping[str, np.ndarray], contract: BoardContract
    ) -> tuple[str, tuple[int, ...]]:
        """The whole board, or one cell as 'row,column', both from 0."""
        if which is None:
            return "the board", tuple(range(contract.cells))
        row, column = places_of(which, (contract.rows, contract.columns), "row,column")
        cell = row * contract.columns + column
        symbol = contract.symbols[int(np.asarray(decoded["symbols"])[cell])]
        return f"{symbol} in row {row}, column {column}", (cell,)

    @property
    def num_terms(self) -> int:
        """cells, contrast."""
        return 2

    def truth(self, value: np.ndarray, contract: BoardContract) -> str:
        """The rows between /."""
        return _text(value)

    def write(self, decoded: Mapping[str, np.ndarray], contract: BoardContract) -> Answer:
        """The board, the chance that it is right, its energy and how surprising that is."""
        cells = [contract.symbols[int(place)] for place in np.asarray(decoded["symbols"])]
        rows = ["".join(row) for row in np.array(cells).reshape(contract.rows, contract.columns)]
        detail: dict[str, Any] = {
            "energy": float(decoded["energy"]),
            "cells": np.asarray(decoded["cells"], np.float64).tolist(),
        }
        if float(decoded["surprise"]) >= 0:
            detail["surprise"] = float(decoded["surprise"])
        sure = float(np.clip(float(decoded["sure"]), 0, 1))
        return Answer("/".join(rows), confidence=sure, detail=detail)

    def metrics(self, contract: BoardContract) -> Sequence["Metric"]:
        """accuracy (of whole boards), cell_accuracy, ece (of whole boards)."""
        from endwise import metrics

        return [metrics.accuracy(), metrics.cell_accuracy(), metrics.ece()]

    def risk(self, contract: BoardContract) -> "Metric":
        """The share of boards with a wrong cell."""
        from endwise import metrics

        return metrics.accuracy()

    def classical(self, contract: BoardContract) -> Any:
        """Ridge regression to the symbol of each cell."""
        from endwise.modalities.board.classical import CellRidge

        return CellRidge()

    def trivial(self, truths: Sequence[Any], contract: BoardContract) -> Answer:
        """The most frequent symbol of each cell."""
        cells = zip(*(truth.replace("/", "") for truth in truths), strict=True)
        flat = "".join(Counter(column).most_common(1)[0][0] for column in cells)
        width = contract.columns
        return Answer("/".join(flat[start : start + width] for start in range(0, len(flat), width)), confidence=0.0)

    def from_classical(self, predicted: Any, contract: BoardContract) -> Answer:
        """The text."""
        return Answer(str(predicted))

    # ---- network side ----------------------------------------------------------------------------------------------

    def encoder(self, contract: BoardContract, size: "Size") -> "Encoder":
        """A token for each cell, in context."""
        from endwise.modalities.board.network import BoardEncoder

        return BoardEncoder(contract, size)

    def head(self, contract: BoardContract, size: "Size") -> "Head":
        """What the tokens say of each cell, and the descent of an energy of all of them."""
        from endwise.modalities.board.network import BoardHead

        return BoardHead(contract, size, on=self.on, steps=self.steps)


def _rows(raw: Any) -> list[Sequence[str]] | None:
    """Whatever a cell of the table holds as rows of symbols; one row where no ends of rows are known."""
    if isinstance(raw, str) and raw.lstrip().startswith("["):
        try:
            raw = json.loads(raw)
        except (ValueError, RecursionError):
            raise BadValue(f"{raw[:40]!r} is no list: write it as JSON, [[1, 2], [2, 1]]") from None
    if isinstance(raw, str):
        return [list(row) for row in raw.strip().replace("\r\n", "\n").replace("\n", "/").split("/")]
    if isinstance(raw, np.ndarray):
        raw = raw.tolist()
    if not isinstance(raw, list | tuple):
        return None
    raw = [item.tolist() if isinstance(item, np.ndarray) else item for item in raw]
    if all(isinstance(item, list | tuple) for item in raw):
        return [[_symbol(cell) for cell in row] for row in raw]
    if len(raw) > 1 and all(isinstance(item, str) and len(item) > 1 for item in raw):
        return [list(row) for row in raw]
    return [[_symbol(cell) for cell in raw]]


def _symbol(cell: Any) -> str:
    if isinstance(cell, bool) or not isinstance(cell, str | int):
        raise BadValue(f"{cell!r:.20} is no symbol: each is one character, or a digit")
    return str(cell)


def _text(value: np.ndarray) -> str:
    return "/".join("".join(map(chr, row)) for row in np.asarray(value).tolist())
