"""What the recipes reach: `python -m benchmarks.recipes [NAME ...] [--out runs/recipes --seeds 0 --write]`.

Trains the recipes one after another, each as its recipe.yaml says, and prints a table of what the test rows gave beside
the two baselines on the same rows. A run that is already finished in `--out` is not trained again. `--write` puts the
table into docs/benchmarks.md between its markers.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from endwise.errors import EndwiseError
from endwise.recipe import Recipe
from endwise.run import Run
from endwise.train import fit

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- recipes: begin -->", "<!-- recipes: end -->"
HEAD = (
    "recipe",
    "goal",
    "endwise [95 %]",
    "n",
    "trivial",
    "classical",
    "minutes",
    "parameters",
    "threads",
    "precision",
)


def available() -> list[str]:
    """Recipes whose data are there."""
    found = (path.parent for path in (ROOT / "recipes").glob("*/recipe.yaml"))
    return sorted(folder.name for folder in found if any((folder / part).is_dir() for part in ("data", "sample")))


def trained(name: str, seed: int, out: Path) -> Run:
    """The finished run of a recipe and a seed, trained if it is not there."""
    recipe = Recipe.load(ROOT / "recipes" / name / "recipe.yaml").replace(**{"train.seed": seed})
    folder = out / f"{name}-{seed}"
    if (folder / "metrics.json").is_file():
        return Run.open(folder)
    fit(recipe, out=folder, resume=folder.exists())
    return Run.open(folder)


def row(name: str, runs: Sequence[Run]) -> list[str]:
    """One line of the table. With several seeds: the first one's interval, then the range over seeds."""
    first = runs[0]
    metrics, plan, goal = first.read("metrics.json"), first.read("plan.json"), first.read("plan.json")["goal"]
    output, metric = goal["output"], goal["metric"]
    value = metrics["outputs"][output][metric]
    told = interval(value)
    if len(runs) > 1:
        others = [run.read("metrics.json")["outputs"][output][metric]["value"] for run in runs]
        told += (
            f"; {len(runs)} seeds: {number(statistics.median(others))} ({number(min(others))} to {number(max(others))})"
        )
    beside = metrics["baselines"].get(output, {})
    minutes = [last_time(run) / 60 for run in runs]
    return [
        name,
        f"{output}: {metric} ({goal['direction']})",
        told,
        str(value["n"]),
        *(interval((beside.get(kind) or {}).get(metric)) for kind in ("trivial", "classical")),
        f"{statistics.median(minutes):.1f}",
        f"{plan['parameters']:,}",
        str(plan["threads"]),
        plan["precision"],
    ]


def last_time(run: Run) -> float:
    """Seconds of the whole training: reading, steps, evaluation. A resumed one counts its last part."""
    return float(next(event["time_s"] for event in reversed(run.events()) if event["event"] == "done"))


def interval(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "none"
    low, high = value.get("low"), value.get("high")
    return number(value["value"]) + (
        f" [{number(low)}, {number(high)}]" if low is not None and high is not None else ""
    )


def number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def table(rows: Sequence[Sequence[str]]) -> str:
    lines = [HEAD, ["---"] * len(HEAD), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(text: str) -> None:
    """Replace what is between the markers of docs/benchmarks.md."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{PAGE} has no lines {BEGIN} and {END}")
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all recipes whose data/ or sample/ is there")
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"), help="folder of the run folders")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    args = parser.parse_args()
    rows = []
    for name in args.names or available():
        try:
            runs = [trained(name, seed, args.out) for seed in args.seeds]
        except EndwiseError as wrong:  # the other recipes go on; this one is named
            print(f"{name}: {wrong}", file=sys.stderr, flush=True)
            continue
        rows.append(row(name, runs))
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    text = table(rows)
    print(text)
    if args.write:
        write(text)


if __name__ == "__main__":
    main()
