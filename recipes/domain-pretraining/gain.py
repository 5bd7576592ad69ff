"""What reading added: `python -m recipes.domain-pretraining.gain RUN SCRATCH_RUN`.

Accuracy of both runs on the test rows, each with its n and interval, and their difference, paired by row.
"""

import argparse

from endwise import metrics
from endwise.data.table import open_table
from endwise.errors import DataError, require
from endwise.metrics import Estimate
from endwise.modalities.base import Answer
from endwise.run import Run

OUTPUT = "category"


def answers(run: Run) -> list[Answer]:
    """What a run's model answers to its test rows."""
    return [found.answers[OUTPUT] for found in run.model().predict(open_table(run.recipe.data.test))]


def gain(run: str, scratch: str) -> dict[str, Estimate]:
    """{'read': accuracy, 'scratch': accuracy, 'gain': the first minus the second on the same rows}."""
    ours, other = Run.open(run), Run.open(scratch)
    require(
        ours.recipe.data.test == other.recipe.data.test, field="SCRATCH_RUN", got=scratch,
        allowed=f"a run with the test rows of {run}", fix="train both from this recipe", error=DataError,
    )  # fmt: skip
    truths = [str(cell) for cell in open_table(ours.recipe.data.test).column(OUTPUT)]
    read, beside, accuracy = answers(ours), answers(other), metrics.accuracy()
    return {
        "read": metrics.estimate(accuracy, truths, read),
        "scratch": metrics.estimate(accuracy, truths, beside),
        "gain": metrics.difference(accuracy, truths, read, beside),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="trained from recipe.yaml")
    parser.add_argument("scratch", metavar="SCRATCH_RUN", help="trained with --set from_run=null")
    given = parser.parse_args()
    for name, estimate in gain(given.run, given.scratch).items():
        print(f"{name}: {estimate}")


if __name__ == "__main__":
    main()
