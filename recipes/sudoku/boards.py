"""Sudoku of 6 x 6 (boxes of two rows and three columns): grids, what makes two of them the same, puzzles with one solution."""

import itertools

import numpy as np

SIDE, BOX_ROWS, BOX_COLUMNS = 6, 2, 3
CELLS = SIDE * SIDE
BOX = [cell // SIDE // BOX_ROWS * BOX_ROWS + cell % SIDE // BOX_COLUMNS for cell in range(CELLS)]
PEERS = [
    [b for b in range(CELLS) if b != a and (a // SIDE == b // SIDE or a % SIDE == b % SIDE or BOX[a] == BOX[b])]
    for a in range(CELLS)
]  # fmt: skip


def _orders(groups: int, size: int) -> list[list[int]]:
    """All orders of rows (or columns) that keep the boxes: within each group, and of the groups."""
    inside = list(itertools.permutations(range(size)))
    return [
        [group * size + place for group, own in zip(order, chosen, strict=True) for place in own]
        for order in itertools.permutations(range(groups))
        for chosen in itertools.product(inside, repeat=groups)
    ]


ROWS, COLUMNS = _orders(SIDE // BOX_ROWS, BOX_ROWS), _orders(SIDE // BOX_COLUMNS, BOX_COLUMNS)
MOVES = np.array([[row * SIDE + column for row in rows for column in columns] for rows in ROWS for columns in COLUMNS])


def canonical(grid: np.ndarray) -> bytes:
    """One and the same for all grids that are equal up to the order of rows, columns and boxes, and the names of the
    symbols: the least of all 3,456 arrangements, symbols named in the order of their appearance."""
    boards = grid[MOVES]
    names = np.zeros((len(boards), SIDE), np.int8)
    first = np.argsort(np.argmax(boards[:, :, None] == np.arange(SIDE), axis=1), axis=1)
    np.put_along_axis(names, first, np.arange(SIDE, dtype=np.int8)[None].repeat(len(boards), 0), axis=1)
    named = np.take_along_axis(names, boards, axis=1)
    return min(row.tobytes() for row in named)


def relative(grid: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Another grid with the same canonical form, drawn at random."""
    found: np.ndarray = random.permutation(SIDE)[grid[MOVES[random.integers(len(MOVES))]]]
    return found


def solutions(board: list[int], most: int, random: np.random.Generator | None = None) -> list[list[int]]:
    """Up to `most` ways to fill the cells that are -1: always the cell with the fewest choices."""
    choices = {
        a: [s for s in range(SIDE) if all(board[b] != s for b in PEERS[a])] for a in range(CELLS) if board[a] < 0
    }
    if not choices:
        return [list(board)]
    cell = min(choices, key=lambda a: len(choices[a]))
    found: list[list[int]] = []
    for symbol in random.permutation(choices[cell]).tolist() if random is not None else choices[cell]:
        found += solutions([*board[:cell], symbol, *board[cell + 1 :]], most - len(found), random)
        if len(found) >= most:
            break
    return found


def puzzle(grid: np.ndarray, givens: int, random: np.random.Generator) -> list[int]:
    """The grid without as many cells as can go, down to `givens`, in random order, so that one solution is left."""
    board = grid.tolist()
    for cell in random.permutation(CELLS).tolist():
        if sum(symbol >= 0 for symbol in board) <= givens:
            break
        kept, board[cell] = board[cell], -1
        if len(solutions(board, 2)) > 1:
            board[cell] = kept
    return board


def text(board: list[int]) -> str:
    """Rows between /, empty cells as dots."""
    cells = "".join("." if symbol < 0 else str(symbol + 1) for symbol in board)
    return "/".join(cells[start : start + SIDE] for start in range(0, CELLS, SIDE))
