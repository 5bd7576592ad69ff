"""What `endwise advise` is worth: `python -m benchmarks.advice [back-tests | cases [NAME ...]]`.

back-tests (seconds, the default): curves of real trainings (advice_curves.json, made by benchmarks.advice_curves), of
which only the small subsets are shown to `endwise.curves`, as an advice would have measured them. How often does the
80 % interval hold what the large subset gave, how far off is the value beside two naive ones (the last value; a line
in log labels), and are the labels that a target takes right within a factor of two?

cases (minutes each): `advise` on data where the winner is known. The known winner is what full trainings say, one
`endwise train` and its classical baseline for each of three seeds (`--establish`); an advice is right when it names it,
and on a tie when it says "cannot-tell" or names the simpler within its margin.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.advice_curves import FILE
from endwise.curves import FARTHEST, Observation, fit

ROOT = Path(__file__).resolve().parents[1]
BOUNDS: dict[str, tuple[float | None, float | None]] = {
    "accuracy": (0.0, 1.0), "macro_f1": (0.0, 1.0), "mae": (0.0, None), "r2": (None, 1.0),
}  # fmt: skip
MOST_SIZES = 5
SET_ON = {
    "diabetes",
    "digits",
    "sentiment",
    "spoken",
    "power",
}  # the sources that the constants of curves.py were set on


# ---- back-tests ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BackTest:
    """One curve up to a fraction of its labels, and what the whole of them gave. Errors are relative where the metric
    has no natural scale."""

    source: str
    covered: bool
    error: float
    last: float
    line: float
    width: float
    labels_factor: float | None  # labels said to be needed for what was reached, over those it took


def back_tests(curve: Mapping[str, Any], ahead: int, *, most: int = 2) -> list[BackTest]:
    """The last `most` places of a curve at which `ahead` times fewer labels were measured on three sizes."""
    points = [Observation(int(labels), int(seed), value) for labels, seed, value in curve["points"]]
    sizes = sorted({item.labels for item in points})
    found = []
    for goal in sizes:
        seen = [size for size in sizes if size * ahead <= 1.1 * goal][-MOST_SIZES:]
        if len(seen) >= 3 and seen[-1] * ahead >= 0.9 * goal:
            found.append(_back_test(curve, points, seen, goal))
    return found[-most:]


def _back_test(curve: Mapping[str, Any], points: Sequence[Observation], seen: Sequence[int], goal: int) -> BackTest:
    seeds = dict.fromkeys(seen, 3) | {seen[-2]: 2, seen[-1]: 1}  # as an advice buys them
    shown = [item for item in points if item.labels in seeds and item.seed < seeds[item.labels]]
    truth = statistics.fmean(item.value for item in points if item.labels == goal)
    low, high = BOUNDS[curve["metric"]]
    fitted = fit(shown, direction=curve["direction"], low=low, high=high)
    said = fitted.at(min(goal, round(FARTHEST * fitted.largest)))
    last = statistics.fmean(item.value for item in shown if item.labels == fitted.largest)
    slope, start = np.polyfit(np.log([item.labels for item in shown]), [item.value for item in shown], 1)
    scale = 1 / truth if curve["direction"] == "min" else 1.0
    reach = fitted.labels_for(truth)
    better = truth > last if curve["direction"] == "max" else truth < last
    factor = None
    if better:
        factor = reach.labels.value / goal if reach.labels is not None else float("inf")
    return BackTest(
        curve["source"], said.low <= truth <= said.high, scale * abs(said.value - truth), scale * abs(last - truth),
        scale * abs(start + slope * np.log(goal) - truth), scale * (said.high - said.low), factor,
    )  # fmt: skip


def told(name: str, found: Sequence[BackTest]) -> str:
    """One line of the table."""

    def mean(field: str) -> float:
        return statistics.fmean(getattr(item, field) for item in found)

    factors = [item.labels_factor for item in found if item.labels_factor is not None]
    within = sum(0.5 <= factor <= 2 for factor in factors) / max(1, len(factors))
    middle = statistics.median(item.error for item in found)
    return (
        f"{name:<22}{len(found):>4}{mean('covered'):>9.0%}{middle:>9.3f}{mean('error'):>8.3f}{mean('last'):>8.3f}"
        f"{mean('line'):>8.3f}{statistics.median(item.width for item in found):>8.3f}{within:>8.0%}{len(factors):>5}"
    )


def run_back_tests() -> None:
    curves = json.loads(FILE.read_text(encoding="utf-8"))
    print(f"{len(curves)} curves of {len({item['source'] for item in curves})} data sets; errors of accuracy, macro F1")
    print("and R2 as they are, of mean absolute errors as shares. line: linear in log labels. x2: share of targets")
    print("whose labels are right within a factor of two, and how many targets.\n")
    print(
        f"{'ahead':<22}{'n':>4}{'covers':>9}{'median':>9}{'mean':>8}{'last':>8}{'line':>8}{'width':>8}{'x2':>8}{'n':>5}"
    )
    for ahead in (2, 4, 8):
        found = [item for curve in curves for item in back_tests(curve, ahead)]
        print(told(f"{ahead} x", found))
        print(told("   set on", [item for item in found if item.source in SET_ON]))
        print(told("   not looked at", [item for item in found if item.source not in SET_ON]))


# ---- cases -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A recipe and what is known of it. wins: 'pipeline', 'end-to-end' or 'tie'; why: on what grounds."""

    make: Callable[[], Any]
    wins: str
    why: str


def _table(name: str, most: int | None = None) -> Any:
    """A table of scikit-learn as a recipe: every column a number."""
    from sklearn import datasets

    import endwise as ew

    found = getattr(datasets, f"load_{name}")()
    order = np.random.default_rng(0).permutation(len(found.target))[:most]
    columns: dict[str, Any] = {f"x{index}": found.data[order, index].tolist() for index in range(found.data.shape[1])}
    number = found.target.dtype.kind == "f"
    columns["answer"] = found.target[order].tolist() if number else [f"c{int(item)}" for item in found.target[order]]
    return ew.Recipe(
        name=name, data=columns, inputs=dict.fromkeys([key for key in columns if key != "answer"], "number"),
        outputs={"answer": "number" if number else "category"},
    )  # fmt: skip


def _pictures(rows: int) -> Any:
    """Handwritten digits as 8 x 8 pictures, shifted at random within 20 x 20: where they stand is no feature."""
    from sklearn.datasets import load_digits

    import endwise as ew

    found, rng = load_digits(), np.random.default_rng(0)
    order = rng.permutation(len(found.target))[:rows]
    pictures = []
    for index in order:
        canvas = np.zeros((20, 20), np.uint8)
        down, right = rng.integers(0, 13, 2)
        canvas[down : down + 8, right : right + 8] = (found.images[index] * 15.9).astype(np.uint8)
        pictures.append(canvas)
    data = {"picture": pictures, "digit": [f"d{found.target[index]}" for index in order]}
    return ew.Recipe(
        name="shifted-digits",
        data=data,
        inputs={"picture": {"type": "image", "side_px": 20}},
        outputs={"digit": "category"},
    )


def _spoken() -> Any:
    """The sample of the recipe spoken-digits, its word as a class."""
    from endwise.recipe import Recipe

    return Recipe.load(ROOT / "recipes/spoken-digits/recipe.yaml").replace(
        **{"name": "spoken-words", "outputs.word": {"type": "category"}}
    )


def _recipe(name: str, file: str = "recipe.yaml", **changes: Any) -> Any:
    from endwise.recipe import Recipe

    return Recipe.load(ROOT / "recipes" / name / file).replace(**changes)


def _sums(rows: int) -> Any:
    """A text of four numbers and their sum: a rule that is one line of code, and much to learn for a network."""
    import endwise as ew

    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 50, (rows, 4))
    columns = {**{f"n{index}": drawn[:, index].tolist() for index in range(4)}, "total": drawn.sum(1).tolist()}
    return ew.Recipe(
        name="sums", data=columns, inputs=dict.fromkeys(["n0", "n1", "n2", "n3"], "number"), outputs={"total": "number"}
    )  # fmt: skip


CASES: dict[str, Case] = {
    "diabetes": Case(lambda: _table("diabetes"), "pipeline", "ten clean columns, 442 patients; the recipe's README"),
    "sums": Case(lambda: _sums(400), "pipeline", "the classical model is linear and so is the truth"),
    "few-digits": Case(lambda: _table("digits", 120), "pipeline", "120 labels for ten classes: the columns are centred pictures"),
    "cancer": Case(lambda: _table("breast_cancer"), "tie", "30 measured features; both near 97 %"),
    "wine": Case(lambda: _table("wine"), "tie", "178 rows; both near 97 %"),
    "shifted-digits": Case(lambda: _pictures(1797), "end-to-end", "where the digit stands is no feature; convolutions share"),
    "spoken-words": Case(_spoken, "end-to-end", "600 recordings, ten words, held-out takes"),
    "spoken-digits": Case(lambda: _recipe("spoken-digits"), "end-to-end", "the recipe's README: words from the waveform"),
    "cifar10-tenth": Case(lambda: _recipe("cifar10", "tenth.yaml"), "end-to-end", "the recipe's README"),
    "intents-tenth": Case(lambda: _recipe("intents", "tenth.yaml"), "pipeline", "13 labels for each of 77 intents; the README"),
}  # fmt: skip


def right(wins: str, advice: Any) -> bool:
    """Whether an advice is right about a case."""
    if wins == "tie":
        return bool(advice.advice in ("cannot-tell", "pipeline"))
    return bool(advice.advice == wins)


def established(case: Case, folder: Path) -> str:
    """Full trainings of three seeds, each beside the classical answer to the same rows: who wins all three clearly."""
    from endwise.run import Run
    from endwise.scores import verdict
    from endwise.train import fit as train

    said = []
    for seed in range(3):
        recipe = case.make().replace(**{"train.seed": seed})
        run = folder / f"seed{seed}"
        if not (run / "metrics.json").is_file():
            train(recipe, out=run, resume=run.exists())
        metrics, goal = Run.open(run).read("metrics.json"), Run.open(run).info()["goal"]
        output, metric = goal["output"], goal["metric"]
        own, other = metrics["outputs"][output][metric], metrics["baselines"][output]["classical"][metric]
        said.append(f"{own['value']:.4g} to {other['value']:.4g}: {verdict(own, other, goal['direction'])}")
    return "\n    ".join(said)


def run_cases(names: Sequence[str], out: Path, *, establish: bool) -> None:
    from endwise.advise import advise

    done, score = 0, 0
    for name in names or CASES:
        case = CASES[name]
        try:
            recipe = case.make()
        except FileNotFoundError as missing:
            print(f"{name}: skipped ({missing})")
            continue
        if establish:
            print(f"{name} ({case.wins}: {case.why})\n    {established(case, out / 'established' / name)}", flush=True)
            continue
        began = time.monotonic()
        advice = advise(recipe, out=out / name, resume=(out / name).exists())
        good = right(case.wins, advice)
        done, score = done + 1, score + good
        print(
            f"{name:<16} known: {case.wins:<11} advice: {advice.advice:<12} {'right' if good else 'WRONG'}  cost "
            f"{advice.cost['ratio']:.1f}x  {time.monotonic() - began:.0f} s", flush=True,
        )  # fmt: skip
    if done:
        print(f"{score} of {done} right")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["back-tests", "cases"], default="back-tests")
    parser.add_argument("names", nargs="*", help=", ".join(CASES))
    parser.add_argument("--out", type=Path, default=Path("runs/advice"))
    parser.add_argument("--establish", action="store_true", help="train each case fully instead, three seeds")
    args = parser.parse_args(arguments)
    if args.what == "back-tests":
        run_back_tests()
    else:
        run_cases(args.names, args.out, establish=args.establish)


if __name__ == "__main__":
    main()
