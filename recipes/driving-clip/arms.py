"""Several frames against the last one alone: `python -m recipes.driving-clip.arms RUN SINGLE_RUN`.

MAE of both on the same test windows, and the paired difference. Neighbouring frames are near copies: intervals draw blocks of ten.
"""

import argparse

from endwise import metrics
from endwise.data.dataset import prepare
from endwise.data.loader import Loader
from endwise.modalities.base import Answer
from endwise.run import Run

BLOCK_ROWS = 10
BATCH = 64


def answers(run: str) -> tuple[list[int], dict[str, list[float]], dict[str, list[Answer]]]:
    """(the test windows, the truths and the answers by output)."""
    opened = Run.open(run)
    model, dataset = opened.model(), prepare(opened.recipe)
    rows = dataset.splits.test
    found: dict[str, dict[int, Answer]] = {name: {} for name in opened.recipe.outputs}
    loader = Loader(dataset, opened.recipe, model.contracts, rows, batch_size=BATCH, seed=0, shuffle=False)
    for batch in loader.iterate(0, loader.batches_per_epoch):
        for name, given in model.answers(batch).items():
            found[name] |= dict(zip(batch.row_ids.tolist(), given, strict=True))
    truths = {
        name: [float(item.truth(dataset.fields[name][row], model.contracts[name])) for row in rows.tolist()]
        for name, item in opened.recipe.outputs.items()
    }
    return rows.tolist(), truths, {name: [own[row] for row in rows.tolist()] for name, own in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="trained from recipe.yaml")
    parser.add_argument("single_run", metavar="SINGLE_RUN", help="trained from single.yaml")
    given = parser.parse_args()
    rows, truths, several = answers(given.run)
    other_rows, _, single = answers(given.single_run)
    if rows != other_rows:
        raise SystemExit("the two runs were tested on different windows")
    clusters = [place // BLOCK_ROWS for place in range(len(rows))]
    for name, wanted in truths.items():
        for arm, said in (("several frames", several[name]), ("the last frame", single[name])):
            print(f"{name}: {arm}: mae {metrics.estimate(metrics.mae(), wanted, said, clusters=clusters)}")
        apart = metrics.difference(metrics.mae(), wanted, several[name], single[name], clusters=clusters)
        print(f"{name}: several frames above the last one: {apart}")


if __name__ == "__main__":
    main()
