"""What `endwise advise` is worth: `OMP_NUM_THREADS=1 python -m benchmarks.advice [back-tests | cases [NAME ...]]`.

back-tests (seconds, the default): curves of real trainings (advice_curves.json, made by benchmarks.advice_curves), of
which only the small subsets are shown to `endwise.curves`, as an advice would have measured them. How often does the
80 % interval hold what the large subset gave, how far off is the value beside two naive ones (the last value; a line
in log labels), and are the labels that a target takes right within a factor of two?

cases (a few minutes each, on one thread): `advise` on data where the winner is known. Each recipe has a budget for one
training, so that an advice is bounded by three of them. The known winner is what whole trainings say, every kind of
rival on the same rows and three seeds (`--establish`); an advice is right when it names it, and on a tie when it says
"cannot-tell" or names the simpler within its margin. What is done is kept in --out and not made again.
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
BUDGET = "60s"  # of one training in a case
ESTABLISHED_SEEDS = 3
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


def _recipe(name: str, data: Any, inputs: Mapping[str, Any], outputs: Mapping[str, Any], **more: Any) -> Any:
    from endwise.recipe import Recipe

    return Recipe(name=name, data=data, inputs=inputs, outputs=outputs, **{"train": {"budget": BUDGET}, **more})


def _table(name: str) -> Any:
    """A table of scikit-learn as a recipe: every column a number."""
    from sklearn import datasets

    found = getattr(datasets, f"load_{name}")()
    order = np.random.default_rng(0).permutation(len(found.target))
    columns: dict[str, Any] = {f"x{index}": found.data[order, index].tolist() for index in range(found.data.shape[1])}
    number = found.target.dtype.kind == "f"
    truths = found.target[order].tolist() if number else [f"c{int(item)}" for item in found.target[order]]
    return _recipe(
        name, {**columns, "answer": truths}, dict.fromkeys(columns, "number"), {"answer": "number" if number else "category"}
    )  # fmt: skip


def _sums() -> Any:
    """Four numbers and their sum."""
    drawn = np.random.default_rng(0).integers(0, 50, (400, 4))
    columns = {f"n{index}": drawn[:, index].tolist() for index in range(4)}
    return _recipe(
        "sums", {**columns, "total": drawn.sum(1).tolist()}, dict.fromkeys(columns, "number"), {"total": "number"}
    )


def _steps() -> Any:
    """Six numbers of which three count, each by the thresholds it is above."""
    rng = np.random.default_rng(0)
    drawn, edges, jumps = rng.uniform(0, 1, (800, 6)), rng.uniform(0, 1, (3, 8)), rng.normal(0, 1, (3, 8))
    total = ((drawn[:, :3, None] > edges) * jumps).sum((1, 2))
    columns = {f"n{index}": drawn[:, index].tolist() for index in range(6)}
    return _recipe("steps", {**columns, "total": total.tolist()}, dict.fromkeys(columns, "number"), {"total": "number"})


def _distances() -> Any:
    """Two points and how far they are apart: smooth, and along no column."""
    drawn = np.random.default_rng(0).uniform(-1, 1, (3000, 4))
    columns = {name: drawn[:, index].tolist() for index, name in enumerate(("ax", "ay", "bx", "by"))}
    far = np.hypot(drawn[:, 0] - drawn[:, 2], drawn[:, 1] - drawn[:, 3])
    return _recipe(
        "distances", {**columns, "apart": far.tolist()}, dict.fromkeys(columns, "number"), {"apart": "number"}
    )


def _arm() -> Any:
    """The angles of an arm of three links and how far it reaches out: sums of waves."""
    turned = np.random.default_rng(0).uniform(-np.pi, np.pi, (3000, 3))
    columns = {f"joint{index}": turned[:, index].tolist() for index in range(3)}
    out = np.cos(turned.cumsum(1)).sum(1)
    return _recipe("arm", {**columns, "reach": out.tolist()}, dict.fromkeys(columns, "number"), {"reach": "number"})


def _drawn(rng: np.random.Generator, digits: Sequence[int], images: np.ndarray, side: int) -> np.ndarray:
    """Handwritten digits beside one another, each anywhere in its share of the canvas."""
    canvas, width = np.zeros((side, side), np.uint8), side // len(digits)
    for place, index in enumerate(digits):
        down, right = rng.integers(0, side - 7), place * width + rng.integers(0, width - 7)
        canvas[down : down + 8, right : right + 8] = (images[index] * 15.9).astype(np.uint8)
    return canvas


def _shifted() -> Any:
    """Handwritten digits anywhere on a canvas of 20 x 20: where they stand is no feature."""
    from sklearn.datasets import load_digits

    found, rng = load_digits(), np.random.default_rng(0)
    data = {
        "picture": [_drawn(rng, [index], found.images, 20) for index in range(len(found.target))],
        "digit": [f"d{item}" for item in found.target],
    }
    return _recipe(
        "shifted-digits",
        data,
        {"picture": {"type": "image", "side_px": 20}},
        {"digit": "category"},
        train={"size": "tiny", "budget": BUDGET},
    )


def _read_and_add() -> Any:
    """Two handwritten digits, each with its label, and their sum: 400 rows, as stages and as one network that sees the
    sums alone."""
    from sklearn.datasets import load_digits

    found, rng = load_digits(), np.random.default_rng(0)
    pairs = rng.integers(0, len(found.target), (600, 2))
    columns: dict[str, Any] = {"total": [int(found.target[pair].sum()) for pair in pairs]}
    for side, name in enumerate(("left", "right")):
        columns[f"{name}_picture"] = [(found.images[pair[side]] * 15.9).astype(np.uint8) for pair in pairs]
        columns[name] = [f"d{found.target[pair[side]]}" for pair in pairs]
    return _recipe(
        "read-and-add", columns, {f"{name}_picture": {"type": "image", "side_px": 8} for name in ("left", "right")},
        {"total": "number"}, regime="modular_predicted", train={"size": "tiny", "budget": BUDGET},
        stages={
            "read left": {"from": "left_picture", "to": {"left": "category"}},
            "read right": {"from": "right_picture", "to": {"right": "category"}},
            "add": {"from": ["left", "right"], "to": "total"},
        },
    )  # fmt: skip


def _fewer(name: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any], *, train: int, test: int) -> Any:
    """Rows of a recipe's prepared data, drawn at random, on the sides they are on."""
    import csv

    folder = ROOT / "recipes" / name / "data"
    sides: dict[str, list[dict[str, str]]] = {"train": [], "test": []}
    for file in sorted(folder.glob("*.csv")):
        if file.stem in (*sides, "reviews", "digits"):
            with file.open(newline="", encoding="utf-8") as rows:
                for row in csv.DictReader(rows):
                    if (side := row.pop("split", file.stem)) in sides:
                        sides[side].append(row)
    if not all(sides.values()):
        raise FileNotFoundError(f"{folder} is not prepared: python -m recipes.{name}.prepare")
    rng, kept = np.random.default_rng(0), {}
    for side, most in (("train", train), ("test", test)):
        chosen = rng.permutation(len(sides[side]))[:most]
        kept[side] = [
            {key: f"{folder}/recordings.zip!{cell}" if inputs.get(key, {}).get("type") == "audio" else cell for key, cell in sides[side][at].items()}
            for at in sorted(chosen.tolist())
        ]  # fmt: skip
    return _recipe(f"{name}-{train}", kept, inputs, outputs)


def _speaker() -> Any:
    return _fewer(
        "spoken-digits", {"recording": {"type": "audio", "rate_hz": 8000}}, {"speaker": {"type": "category"}}, train=600, test=300
    )  # fmt: skip


def _texts(name: str, answer: str, train: int) -> Any:
    return _fewer(name, {"text": {"type": "text"}}, {answer: {"type": "category"}}, train=train, test=1500)


CASES: dict[str, Case] = {
    "sums": Case(_sums, "pipeline", "400 rows of a truth that is a line, and a classical model that draws lines"),
    "steps": Case(_steps, "tie", "800 rows of jumps at thresholds; intervals overlap at each of three seeds"),
    "sentiment": Case(lambda: _texts("sentiment", "positive", 1600), "pipeline", "1,600 sentences; TF-IDF leads even on all"),
    "intents": Case(lambda: _texts("intents", "category", 1000), "pipeline", "13 messages for each of 77 intents; the README"),
    "read-and-add": Case(_read_and_add, "pipeline", "600 rows, and labels of what stands between"),
    "shifted-digits": Case(_shifted, "end-to-end", "where the digit stands is no feature, and convolutions share weights"),
    "distances": Case(_distances, "end-to-end", "smooth and along no column: neither a line nor steps"),
    "arm": Case(_arm, "end-to-end", "three angles, sums of waves of their sums"),
    "diabetes": Case(lambda: _table("diabetes"), "tie", "442 patients; the intervals of the recipe's README overlap"),
    "cancer": Case(lambda: _table("breast_cancer"), "tie", "30 measured columns; both near 97 %"),
    "wine": Case(lambda: _table("wine"), "tie", "178 rows; both near 97 %"),
    "speaker": Case(_speaker, "tie", "600 recordings of six voices; both near 99 %"),
}  # fmt: skip


def right(wins: str, advice: str) -> bool:
    """Whether an advice is right about a case."""
    return advice in ("cannot-tell", "pipeline") if wins == "tie" else advice == wins


def established(recipe: Any, folder: Path) -> list[str]:
    """Whole trainings of three seeds, each beside its rivals on the same rows: what each scored, and who is ahead."""
    from endwise.regimes import fit as train
    from endwise.run import Run
    from endwise.scores import verdict

    said = []
    for seed in range(ESTABLISHED_SEEDS):
        found = {}
        for regime in ("direct", "modular_predicted") if recipe.stages else ("end-to-end",):
            own = recipe.replace(**{"train.seed": seed, **({"regime": regime} if recipe.stages else {})})
            run = folder / f"{regime}-seed{seed}"
            if not (run / "metrics.json").is_file():
                train(own, out=run, resume=run.exists())
            metrics, goal = Run.open(run).read("metrics.json"), Run.open(run).info()["goal"]
            found[regime] = metrics["outputs"][goal["output"]][goal["metric"]]
        classical = metrics["baselines"][goal["output"]]["classical"]
        if classical:
            found["classical"] = classical[goal["metric"]]
        first, *others = found
        scores = ", ".join(f"{name} {item['value']:.4g}" for name, item in found.items())
        told = "; ".join(
            f"{first} to {name}: {verdict(found[first], found[name], goal['direction'])}" for name in others
        )
        said.append(f"seed {seed}: {goal['metric']} {scores} ({told})")
    return said


def advised(recipe: Any, folder: Path) -> dict[str, Any]:
    """The advice as its JSON; one that is there is not asked for again, one that was begun goes on."""
    from endwise.advise import advise

    if not (folder / "advice.json").is_file():
        advise(recipe, out=folder, resume=folder.exists())
    found: dict[str, Any] = json.loads((folder / "advice.json").read_text(encoding="utf-8"))
    return found


def run_cases(names: Sequence[str], out: Path, *, budget: str, establish: bool) -> None:
    import torch

    torch.set_num_threads(1)  # the documented times are those of one thread
    print("| case | known | advice | | by | cost | minutes |\n| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    done = score = 0
    for name in names or CASES:
        case, began = CASES[name], time.monotonic()
        try:
            recipe = case.make().replace(**{"train.budget": budget})
        except FileNotFoundError as missing:
            print(f"| {name} | {case.wins} | skipped: {missing} | | | | |", flush=True)
            continue
        if establish:
            for line in established(recipe, out / "established" / name):
                print(f"| {name} | {case.wins} | {line} | | | | |", flush=True)
            continue
        found = advised(recipe, out / name)
        good = right(case.wins, found["advice"])
        done, score = done + 1, score + good
        first = next((item for item in found["differences"] if item["paired"]), None)
        by = (
            ""
            if first is None
            else f"{first['first']} over {first['second']}: {_gain(first['better_by'])} {found['metric']}"
        )
        print(
            f"| {name} | {case.wins} | {found['advice']} | {'right' if good else 'WRONG'} | {by} | "
            f"{found['cost']['ratio']:.1f} | {(time.monotonic() - began) / 60:.1f} |", flush=True,
        )  # fmt: skip
    if done:
        print(f"\n{score} of {done} right")


def _gain(found: Mapping[str, float]) -> str:
    return f"{found['value']:+.3g} [{found['low']:.3g}, {found['high']:.3g}]"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["back-tests", "cases"], default="back-tests")
    parser.add_argument("names", nargs="*", help=", ".join(CASES))
    parser.add_argument("--out", type=Path, default=Path("runs/advice"))
    parser.add_argument("--budget", default=BUDGET, help="of one training; an advice takes three")
    parser.add_argument("--establish", action="store_true", help="train each case fully instead, three seeds")
    args = parser.parse_args(arguments)
    if args.what == "back-tests":
        run_back_tests()
    else:
        run_cases(args.names, args.out, budget=args.budget, establish=args.establish)


if __name__ == "__main__":
    main()
