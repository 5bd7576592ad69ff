"""What more steps of the descent are worth, and how surprising boards without a solution are:
`python -m recipes.sudoku.steps runs/sudoku`."""

import sys
from pathlib import Path

import numpy as np

import endwise as ew
from endwise import metrics
from endwise.modalities.board.network import BoardHead
from recipes import source

STEPS = (1, 2, 4, 8, 16, 24, 48, 96)


def scrambled(puzzle: str, random: np.random.Generator) -> str:
    """As many givens at the same places, but any symbols."""
    return "".join(str(random.integers(1, 7)) if cell.isdigit() else cell for cell in puzzle)


def main() -> None:
    model = ew.Run.open(sys.argv[1]).model()
    rows = source.read_csv(Path(__file__).parent / "data" / "puzzles.csv")
    test = [row for row in rows if row["split"] == "test"]
    puzzles, truths = [row["puzzle"] for row in test], [row["solution"] for row in test]
    head = model.network.head("solution")
    assert isinstance(head, BoardHead)
    usual, trained = [], head.steps
    for steps in STEPS:
        head.steps = steps
        answers = [found.answers["solution"] for found in model.predict([{"puzzle": puzzle} for puzzle in puzzles])]
        if steps == trained:
            usual = answers
        print(f"{steps:3d} steps: {metrics.estimate(metrics.accuracy(), truths, answers)} of whole boards")
    head.steps, random = trained, np.random.default_rng(0)
    odd = [
        found.answers["solution"] for found in model.predict([{"puzzle": scrambled(item, random)} for item in puzzles])
    ]
    energies = np.array([answer.detail["energy"] for answer in (*usual, *odd)])
    shares = (energies - energies.min()) / np.ptp(energies)
    scores = [ew.Answer(share > 0.5, detail={"probabilities": {"true": share, "false": 1 - share}}) for share in shares]
    kinds = [False] * len(usual) + [True] * len(odd)
    told = metrics.estimate(metrics.auroc(("true",)), kinds, scores)
    print(f"boards without a solution told apart by their energy: AUROC {told}")
    print(f"calibration error: {metrics.estimate(metrics.ece(), truths, usual)}")


if __name__ == "__main__":
    main()
