"""The planner in stages against a pipeline and a network without stages, by safe progress; and collision rate, progress and
what became of the answers on the way, training by training.

python -m recipes.staged.planner.compare --budget 2h
"""

import argparse
from pathlib import Path

import endwise as ew
from recipes.staged.planner import traffic
from recipes.staged.planner.plan import Plan

REGIMES = ("modular", "warm_joint", "direct")
SHOWN = {"plan": ("safe_progress", "collision_rate", "progress", "mae"), "obstacles": ("miou",), "futures": ("miou",)}


def scored_by_driving(folder: Path) -> ew.Recipe:
    """The recipe, whose path is a plan."""
    goal = {"output": "plan", "metric": "safe_progress", "direction": "max"}
    return ew.Recipe.load(folder).replace(**{"outputs.plan": Plan(unit="m"), "goal": goal})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", help="for everything, such as 2h; default: what the recipe says for each training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/compare-planner"))
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    recipe = scored_by_driving(Path(__file__).parent)
    print(
        ew.compare(
            recipe, regimes=REGIMES, seeds=args.seeds, shares=(), budget=args.budget, out=args.out, resume=args.resume
        )
    )
    dataset = ew.prepare(recipe)
    truths = [Plan().truth(dataset.fields["plan"][row], None) for row in dataset.splits.test.tolist()]
    ahead = sum(map(traffic.progress, truths)) / len(truths)
    print(f"\nthe driver who knows the future: {ahead:.1f} m ahead, no collision (n = {len(truths)})")
    for regime in REGIMES:
        for seed in range(args.seeds):
            model = ew.Run.open(args.out / f"{regime}-seed{seed}-100").model(recipe=recipe)
            found = ew.evaluate(
                model, dataset, dataset.splits.test, details=False, baselines=seed == 0 and regime == "direct"
            )
            print(f"\n{regime}, seed {seed}")
            for output, names in SHOWN.items():
                for name in names if output in found.outputs else ():
                    beside = {kind: values[name] for kind, values in found.baselines.get(output, {}).items() if values}
                    print(
                        f"  {output} {name}: {found.outputs[output][name]}",
                        *(f"({kind} {own})" for kind, own in beside.items()),
                    )


if __name__ == "__main__":
    main()
