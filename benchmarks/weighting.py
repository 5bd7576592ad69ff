"""Does a weighting of the terms beat equal weights? `python -m benchmarks.weighting [RECIPE --budget 60 --seeds 0 1 2 --out
runs/weighting]`.

On recipes/staged/scene-questions/tasks.yaml unless another recipe with several answers is given: one network names the shape and the
colour of what it sees and answers a question about it. The first two fall fast, and the answer, which needs both and the
question, stands at what is usual for a while: the tasks differ in when they learn. (The word and the speaker of
recipes/spoken-digits/full.yaml differ in kind and size, but its word takes minutes to begin with. Driving's three numbers
are each in deviations: there is little to weigh.)

Every setting is trained from each seed within the same seconds, or with `--steps` for the same steps, on the same rows:
equal weights, the four weightings, and a small grid of fixed weights of the first output (those of the others are 1), of which the
one that is best on validation rows counts as "a grid". The test rows that have all
answers are scored by whether each is right. An interval
is a bootstrap over rows and seeds, paired, so that what is hard for all cancels; three seeds are few, and it knows of no
other three. A run that is finished in `--out` is not trained again.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from endwise.data.dataset import Dataset, prepare
from endwise.evaluate import score
from endwise.model import Model
from endwise.recipe import Recipe
from endwise.run import Run
from endwise.train import fit

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "staged" / "scene-questions" / "tasks.yaml"
EQUAL, GRID = "equal", "best of the grid"
LEARNT = ("uncertainty", "gradnorm", "dwa", "pcgrad")
GRID_WEIGHTS = (0.3, 3.0)  # of the first output
RESULT = "right.json"
RESAMPLES = 2000

Rights = np.ndarray  # [output, seed, row], 1 where an answer is right


def settings(recipe: Recipe, weights: Sequence[float]) -> dict[str, dict[str, Any]]:
    """What each setting changes in the recipe."""
    learnt, first = {name: {"objective.weighting": name} for name in LEARNT}, next(iter(recipe.outputs))
    fixed = {f"{first} x {weight:g}": {f"outputs.{first}.loss_weight": weight} for weight in weights}
    return {EQUAL: {}, **learnt, **fixed}


def trained(recipe: Recipe, dataset: Dataset, folder: Path) -> dict[str, Any]:
    """A finished run of this recipe, trained if it is not there: which answers are right, on validation and test rows."""
    if not (folder / RESULT).is_file():
        model = fit(recipe, dataset=dataset, out=folder, resume=folder.exists())
        events = Run.open(folder).events()
        steps = [event for event in events if event["event"] == "step"]
        found = {
            "val": right(model, dataset, dataset.splits.val),
            "test": right(model, dataset, dataset.splits.test),
            "steps": steps[-1]["step"],
            "seconds": steps[-1]["time_s"],
        }
        (folder / RESULT).write_text(json.dumps(found), encoding="utf-8")
    read: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return read


def right(model: Model, dataset: Dataset, rows: np.ndarray) -> dict[str, list[int]]:
    """{output: 1 where the answer is the truth}, of the rows that have every output."""
    every = np.logical_and.reduce([dataset.fields[name].present for name in model.recipe.outputs])
    return {
        name: [int(answer.value == truth) for answer, truth in zip(item.answers, item.truths, strict=True)]
        for name, item in score(model, dataset, rows[every[rows]]).items()
    }


def interval(values: np.ndarray, seed: int = 0) -> str:
    """The mean of [seed, row] with its 95 % interval over seeds and rows."""
    chance = np.random.default_rng(seed)
    seeds, rows = values.shape
    drawn = [
        values[chance.integers(seeds, size=seeds)][:, chance.integers(rows, size=rows)].mean() for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def table(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The result in Markdown: {setting: its runs, a seed each}."""
    outputs = list(next(iter(found.values()))[0]["test"])
    rights = {
        name: np.array([[run["test"][output] for run in runs] for output in outputs]) for name, runs in found.items()
    }
    held = {name: float(np.mean([list(run["val"].values()) for run in runs])) for name, runs in found.items()}
    grid = [name for name in found if name not in LEARNT]
    best = max(grid, key=lambda name: held[name])
    rows = [["setting", *outputs, "all", "all, against equal", f"all, against {GRID}", "steps", "seeds"]]
    rows.append(["---"] * len(rows[0]))
    for name, value in rights.items():
        mean = value.mean(0)
        beside = [interval(mean - rights[other].mean(0)) if other != name else "" for other in (EQUAL, best)]
        steps = int(np.median([run["steps"] for run in found[name]]))
        label = f"{name} ({GRID})" if name == best else name
        rows.append([label, *map(interval, value), interval(mean), *beside, str(steps), str(len(found[name]))])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    count = rights[EQUAL].shape[-1]
    said = f"Share of {count} test rows that are right; 'all' is the mean of the outputs. Intervals over rows and seeds, 95 %."
    return "\n".join([*lines, "", said])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default=str(RECIPE))
    parser.add_argument("--budget", type=float, default=60.0, help="seconds a run")
    parser.add_argument("--steps", type=int, help="the same steps for all, in the place of the same seconds")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--grid", type=float, nargs="+", default=GRID_WEIGHTS, help="weights of the first output beside 1"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/weighting"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    long = {"train.steps": args.steps, "train.budget": None} if args.steps else {"train.budget": args.budget}
    recipe = Recipe.load(args.recipe).replace(**long)
    dataset = prepare(recipe)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in settings(recipe, args.grid)}
    for seed in args.seeds:  # seed after seed: broken off, what is there compares like with like
        for name, changes in settings(recipe, args.grid).items():
            own = recipe.replace(**{**changes, "train.seed": seed})
            result = trained(own, dataset, args.out / f"{name.replace(' ', '-')}-{seed}")
            found[name].append(result)
            shares = "  ".join(f"{output} {np.mean(values):.3f}" for output, values in result["test"].items())
            print(f"{name}, seed {seed}: {shares}  ({result['steps']} steps, {result['seconds']:.0f} s)", flush=True)
    print("\n" + table(found))


if __name__ == "__main__":
    main()
