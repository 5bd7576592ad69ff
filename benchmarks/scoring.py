"""How fast an exported bundle scores a table: `python -m benchmarks.scoring [--rows 200000 --rounds 3 --workers 2]`.

A table of ten fields (eight numbers, two classes) with a class and a number as answers, through `Bundle.score`: columns of
raw values in, columns of final answers out. Four networks: the default one, the smallest on the dial, a small perceptron
(`trunk: {width: 16, depth: 1}`), and the default one with attention between the fields. Their weights are
not trained, which changes no time. Rows a second of the fastest round, by the clock and by the processor (what one core
gives when it is alone, times the workers, is what an idle machine would reach), where a worker's time goes, and beside them
`Bundle.predict` with an object a row.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import endwise as ew
from endwise.data.dataset import fit_contracts, prepare
from endwise.export import export
from endwise.model import Model
from endwise.rows import file_fetcher, read_columns
from endwise.runner import Bundle

NETWORKS: dict[str, dict[str, Any]] = {
    "default": {"train": {}},
    "tiny": {"train": {"size": "tiny"}},
    "small": {"train": {"size": "tiny"}, "trunk": {"width": 16, "depth": 1}},
    "with attention": {"trunk": {"attention": True}},
}
NUMBERS, NAMES = 8, (("north", "south", "east", "west"), ("card", "cash", "transfer"))
TRAINED, BATCHES, EXAMPLES = 2_000, 10, 64


def table(rows: int, seed: int) -> dict[str, Any]:
    """Columns: arrays of numbers, lists of names."""
    random = np.random.default_rng(seed)
    numbers = {f"x{index}": random.normal(index, 1 + index, rows) for index in range(NUMBERS)}
    names = {f"c{index}": random.choice(choices, rows).tolist() for index, choices in enumerate(NAMES)}
    total = sum(values / (1 + index) for index, values in enumerate(numbers.values()))
    return {**numbers, **names, "amount": total, "late": np.where(total > np.median(total), "yes", "no").tolist()}


def bundle_of(settings: dict[str, Any], folder: Path) -> Bundle:
    """An untrained network, exported."""
    data = table(TRAINED, 0)
    inputs = {name: "number" if name.startswith("x") else "category" for name in data if name[0] in "xc"}
    recipe = ew.Recipe(
        name="scoring", data={"path": data}, inputs=inputs, outputs={"late": "category", "amount": "number"}, **settings
    )
    model = Model.build(recipe, fit_contracts(recipe, prepare(recipe)), seed=0)
    rows = [{name: data[name][row] for name in inputs} for row in range(EXAMPLES)]
    export(model, folder, examples=rows)
    return Bundle.load(folder, threads=1)


def rates(action: Callable[[], object], rows: int, rounds: int) -> tuple[float, float]:
    """Rows a second of the fastest round by the clock, and by the processor."""
    found = []
    for _ in range(rounds):
        clock, processor = time.perf_counter(), time.process_time()
        action()
        found.append((rows / (time.perf_counter() - clock), rows / (time.process_time() - processor)))
    return max(one for one, _ in found), max(other for _, other in found)


def shares(bundle: Bundle, columns: dict[str, Any]) -> str:
    """Microseconds a row of reading, of the graph and of writing, by the processor, one batch at a time."""
    batch = bundle.rows_at_once
    spent, count = np.zeros(3), min(BATCHES * batch, len(columns["x0"]))
    for start in range(0, count, batch):
        marks = [time.process_time()]
        fields = read_columns(
            bundle.inputs, bundle.contracts, columns, range(start, min(start + batch, count)), file_fetcher(".")
        )
        marks.append(time.process_time())
        decoded = bundle.decoded(*fields)
        marks.append(time.process_time())
        for name, item in bundle.outputs.items():
            item.write_column(decoded[name], bundle.contracts[name])
        marks.append(time.process_time())
        spent += np.diff(marks)
    return ", ".join(
        f"{name} {1e6 * part / count:.2f}" for name, part in zip(("reading", "graph", "writing"), spent, strict=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", choices=list(NETWORKS), help="one of the networks")
    given = parser.parse_args()
    data = table(given.rows, 1)
    columns = {name: cells for name, cells in data.items() if name not in ("late", "amount")}
    for name in [given.only] if given.only else NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            bundle = bundle_of(NETWORKS[name], Path(folder) / "bundle")
            few = {column: cells[: given.rows // 20] for column, cells in columns.items()}
            listed = [dict(zip(few, row, strict=True)) for row in zip(*few.values(), strict=True)]
            bundle.score(few)  # the first call allocates
            clock, processor = rates(
                lambda bundle=bundle: bundle.score(columns, workers=given.workers),  # type: ignore[misc]
                given.rows, given.rounds,
            )  # fmt: skip
            one, _ = rates(lambda bundle=bundle, rows=listed: bundle.predict(rows, batch_size=1024), len(listed), 1)  # type: ignore[misc]
            print(
                f"{name}: {clock:,.0f} rows/s with {given.workers} workers (n = {given.rows:,} rows, {given.rounds} rounds); "
                f"{processor:,.0f} rows a second of one core; microseconds a row: {shares(bundle, columns)}; "
                f"an object a row: {one:,.0f} rows/s",
                flush=True,
            )


if __name__ == "__main__":
    main()
