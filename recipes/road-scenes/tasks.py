"""One task or three, and what weighs them: `python -m recipes.road-scenes.tasks [--budget 240 | --steps 260] [--seeds 0 1 2]`.

The masks alone, the three tasks of tasks.yaml under a plain sum, and under weights that are learnt, each trained from each seed
for the same seconds, or steps: a step of three tasks takes longer. All seeds' answers to the test pictures are scored together,
beside those of the arm before. Intervals draw pictures (one with its answers of all seeds), paired, and know nothing of other
seeds. A run that is finished in `--out` is not trained again.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from endwise import metrics
from endwise.data.dataset import prepare
from endwise.evaluate import score
from endwise.modalities.base import Answer
from endwise.recipe import Recipe
from endwise.train import fit

HERE = Path(__file__).parent

Told = dict[str, tuple[list[Any], list[Answer]]]  # {output: (truths, answers)}, picture after picture, seed after seed


def arms() -> dict[str, Recipe]:
    """What is trained, each held against the one before."""
    tasks = Recipe.load(HERE / "tasks.yaml")
    return {
        "the mask alone": Recipe.load(HERE / "recipe.yaml"),
        "three tasks, plain sum": tasks.replace(**{"objective.weighting": "fixed"}),
        "three tasks, weights learnt": tasks,
    }


def trained(recipe: Recipe, folder: Path, seeds: list[int]) -> tuple[Told, dict[str, metrics.Metric]]:
    """One arm, from every seed: what it says, and what scores each output."""
    dataset = prepare(recipe)
    found: Told = {name: ([], []) for name in recipe.outputs}
    for seed in seeds:
        place = folder / str(seed)
        model = fit(recipe.replace(**{"train.seed": seed}), dataset=dataset, out=place, resume=place.exists())
        for name, said in score(model, dataset, dataset.splits.test).items():
            found[name][0].extend(said.truths)
            found[name][1].extend(said.answers)
    return found, {name: item.metrics(model.contracts[name])[0] for name, item in recipe.outputs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=240.0, help="seconds a run")
    parser.add_argument("--steps", type=int, help="the same steps for all, in the place of the same seconds")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/road-tasks"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    long = {"train.steps": given.steps, "train.budget": None} if given.steps else {"train.budget": given.budget}
    before: Told = {}
    for arm, recipe in arms().items():
        found, scores = trained(recipe.replace(**long), given.out / arm.replace(",", "").replace(" ", "-"), given.seeds)
        for name, (truths, answers) in found.items():
            pictures = [row % (len(truths) // len(given.seeds)) for row in range(len(truths))]
            line = f"{arm}: {name}: {scores[name].name} {metrics.estimate(scores[name], truths, answers, clusters=pictures)}"
            if name in before:
                apart = metrics.difference(scores[name], truths, answers, before[name][1], clusters=pictures)
                line += f", above the arm before: {apart}"
            print(line, flush=True)
        before = found


if __name__ == "__main__":
    main()
