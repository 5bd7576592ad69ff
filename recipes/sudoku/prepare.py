"""Sudoku of 6 x 6 with 12 or more givens and one solution (boards.py): `python -m recipes.sudoku.prepare`.

There are 49 grids up to symmetry (Jarvis & Russell). Those of the test puzzles, and of the validation puzzles, are none of
the training puzzles': not in another order of rows and columns, nor under other names.
"""

import numpy as np

from recipes import source
from recipes.sudoku import boards

PUZZLES = {"train": 4_000, "val": 300, "test": 600}
CLASSES = {"val": 4, "test": 10}  # the others are for training
DRAWN = 600  # random grids, among which nearly all 49 kinds are
GIVENS = 12


def main() -> None:
    folder, random = source.target("sudoku"), np.random.default_rng(0)
    empty = [-1] * boards.CELLS
    grids = [np.array(boards.solutions(empty, 1, random)[0]) for _ in range(DRAWN)]
    kinds = {boards.canonical(grid): grid for grid in grids}
    names = [sorted(kinds)[place] for place in random.permutation(len(kinds))]
    sides = {"val": names[: CLASSES["val"]], "test": names[CLASSES["val"] :][: CLASSES["test"]]}
    sides["train"] = [name for name in names if name not in {*sides["val"], *sides["test"]}]
    rows = []
    for side, count in PUZZLES.items():
        for _ in range(count):
            kind = sides[side][random.integers(len(sides[side]))]
            grid = boards.relative(kinds[kind], random)
            assert boards.canonical(grid) in sides[side]
            board = boards.puzzle(grid, GIVENS, random)
            rows.append([boards.text(board), boards.text(grid.tolist()), names.index(kind), side])
    source.write_csv(folder / "puzzles.csv", ["puzzle", "solution", "kind", "split"], rows)
    print(f"{len(kinds)} kinds of grids, {len(sides['train'])} of them for training; written to {folder}")


if __name__ == "__main__":
    main()
