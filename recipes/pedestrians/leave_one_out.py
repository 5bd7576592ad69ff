"""Each place left out in turn: `python -m recipes.pedestrians.leave_one_out [--out runs/pedestrians] [--budget 12m] [PLACE ...]`.

Trains a network for each, without a row of that place, and prints how far its one path and the best of its futures are off, beside
constant velocity and ridge regression; in the last lines the means over the places, and in how many the network is better. A run
that is there already is read again.
"""

import argparse
from pathlib import Path
from typing import Any

from endwise.data.dataset import prepare
from endwise.evaluate import evaluate
from endwise.metrics import Estimate
from endwise.recipe import Recipe
from endwise.run import Run
from endwise.train import fit
from recipes.pedestrians.prepare import PLACES

RECIPE = Path(__file__).parent / "recipe.yaml"
COLUMNS = ("ade", "fde", "min_ade", "min_fde", "collision_rate")
ARMS = ("network", "constant velocity", "ridge")

Scores = dict[str, dict[str, Estimate]]  # {arm: {metric: value}}


def scores(place: str, out: Path, budget: str | None) -> Scores:
    """The network's and its rivals' on the place that it has not seen."""
    changes: dict[str, Any] = {"data.split": f"leave_{place}", "name": f"pedestrians-{place}"}
    recipe = Recipe.load(RECIPE).replace(**changes, **({"train.budget": budget} if budget else {}))
    run = out / place
    model = Run.open(run).model() if run.is_dir() else fit(recipe, out=run)
    dataset = prepare(recipe)
    found = evaluate(model, dataset, dataset.splits.test, details=False)
    rivals = found.baselines["paths"]
    return {
        "network": dict(found.outputs["paths"]),
        "constant velocity": dict(rivals["trivial"] or {}),
        "ridge": dict(rivals["classical"] or {}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="*", metavar="PLACE", help=f"of {', '.join(PLACES)}; default: all")
    parser.add_argument("--out", type=Path, default=Path("runs/pedestrians"))
    parser.add_argument("--budget", help="of each training; default: the recipe's")
    given = parser.parse_args()
    found = {}
    for place in given.places or PLACES:
        found[place] = scores(place, given.out, given.budget)
        for arm in ARMS:
            told = ", ".join(f"{name} {found[place][arm][name]}" for name in COLUMNS if name in found[place][arm])
            print(f"{place}: {arm}: {told}", flush=True)
    for arm in ARMS:
        means = {name: [each[arm][name].value for each in found.values() if name in each[arm]] for name in COLUMNS}
        print(
            f"mean of {len(found)}: {arm}: "
            + ", ".join(f"{name} {sum(own) / len(own):.3f}" for name, own in means.items() if own)
        )
    for name in ("ade", "fde"):
        better = [
            place
            for place, each in found.items()
            if each["network"][name].value < each["constant velocity"][name].value
        ]
        print(
            f"{name}: better than constant velocity in {len(better)} of {len(found)} places ({', '.join(better) or 'none'})"
        )


if __name__ == "__main__":
    main()
