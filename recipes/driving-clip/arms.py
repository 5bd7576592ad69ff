"""Several frames against the last one alone: `python -m recipes.driving-clip.arms RUN SINGLE_RUN`.

MAE of both on the same test windows, and the paired difference. Neighbouring frames are near copies: intervals draw blocks of ten.
"""

import argparse

from endwise import metrics
from endwise.data.dataset import prepare
from endwise.details import Answered
from endwise.evaluate import score
from endwise.run import Run

BLOCK_ROWS = 10


def answers(run: str) -> tuple[list[int], dict[str, Answered]]:
    """(the test windows, the truths and the answers by output)."""
    opened = Run.open(run)
    dataset = prepare(opened.recipe)
    return dataset.splits.test.tolist(), score(opened.model(), dataset, dataset.splits.test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="trained from recipe.yaml")
    parser.add_argument("single_run", metavar="SINGLE_RUN", help="trained from single.yaml")
    given = parser.parse_args()
    rows, several = answers(given.run)
    other_rows, single = answers(given.single_run)
    if rows != other_rows:
        raise SystemExit("the two runs were tested on different windows")
    clusters = [place // BLOCK_ROWS for place in range(len(rows))]
    for name, ours in several.items():
        for arm, said in (("several frames", ours), ("the last frame", single[name])):
            print(f"{name}: {arm}: mae {metrics.estimate(metrics.mae(), said.truths, said.answers, clusters=clusters)}")
        apart = metrics.difference(metrics.mae(), ours.truths, ours.answers, single[name].answers, clusters=clusters)
        print(f"{name}: several frames above the last one: {apart}")


if __name__ == "__main__":
    main()
