"""One stage of a staged recipe by itself, on true answers of the stages before it.

python -m recipes.staged.alone scene-questions reply --budget 100s
"""

import argparse
from pathlib import Path

import endwise as ew
from endwise.recipe import Recipe
from endwise.stages import stage_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="a folder beside this file")
    parser.add_argument("stage")
    parser.add_argument("--budget", default="100s")
    args = parser.parse_args()
    recipe = Recipe.load(Path(__file__).parent / args.recipe)
    model = ew.fit(
        stage_recipe(recipe, args.stage, **{"train.budget": args.budget}), out=f"runs/{args.recipe}-{args.stage}"
    )
    for event in [] if model.run is None else model.run.events():
        if event["event"] == "eval":
            print(f"step {event['step']}: {event['goal']:.4f}")


if __name__ == "__main__":
    main()
