"""One row through a model: `python -m benchmarks.prediction RUN [RUN ...] [--rows 8 --rounds 20]`.

Two comparisons, each in turns on the same held-out rows with one thread; the fastest round of a row counts, then the
median over rows. (1) `Model.predict` of one raw row beside the least that gives the same: decode, transform, forward,
decode the answer. (2) the exported bundle's graph beside the eager network, stored array to decoded answer; over
several runs the geometric mean counts.
"""

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from endwise.batch import Ragged
from endwise.data.dataset import prepare
from endwise.export import benchmark, export_run
from endwise.model import Model
from endwise.run import Run

FILES = ("image", "audio")


def held_out(run: Run, count: int) -> list[dict[str, Any]]:
    """Raw rows that trained nothing, files as their bytes, so that no disk is in the measurement."""
    recipe = run.recipe
    dataset = prepare(recipe)
    rows = next(part for part in (dataset.splits.test, dataset.splits.val, dataset.splits.train) if len(part))
    chosen = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
    fetches = [table.fetch for table in dataset.tables for _ in range(len(table))]
    found = []
    for row in map(int, chosen):
        cells = {name: dataset.raw(name, row) for name in recipe.inputs}
        for name, item in recipe.inputs.items():
            if item.type in FILES and isinstance(cells[name], str):
                cells[name] = fetches[row](cells[name])
        found.append(cells)
    return found


def least(model: Model, row: Mapping[str, Any]) -> Any:
    """Decode, transform, forward, answers as tensors: no checks, no names, no objects."""

    def no_files(path: str) -> bytes:
        raise FileNotFoundError(path)

    inputs, present = {}, {}
    for name, item in model.recipe.inputs.items():
        value = item.transform(item.read(row[name], no_files), model.contracts[name])
        sizes = torch.tensor([value.shape[: item.axes]], dtype=torch.int64).reshape(1, item.axes)
        inputs[name] = Ragged(torch.from_numpy(np.ascontiguousarray(value))[None], sizes)
        present[name] = torch.ones(1, dtype=torch.bool)
    with torch.inference_mode():
        return model.network.decode(model.network(inputs, present))


def ms(action: Callable[[], Any]) -> float:
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000


def overhead(model: Model, rows: list[dict[str, Any]], rounds: int) -> tuple[float, float, list[float]]:
    """(predict, the least) in milliseconds, and the ratio of each row."""
    model.network.eval()
    whole, bare = [], []
    for row in rows:
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            times[0].append(ms(lambda row=row: model.predict(row)))  # type: ignore[misc]
            times[1].append(ms(lambda row=row: least(model, row)))  # type: ignore[misc]
        whole.append(min(times[0]))
        bare.append(min(times[1]))
    return statistics.median(whole), statistics.median(bare), [a / b for a, b in zip(whole, bare, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    ratios = []
    for path in args.runs:
        run = Run.open(path)
        model, rows = run.model(), held_out(run, args.rows)
        whole, bare, each = overhead(model, rows, args.rounds)
        print(
            f"{run.name}: predict {whole:.2f} ms, decode + forward {bare:.2f} ms: "
            f"{statistics.median(each):.3f} times [{min(each):.3f}, {max(each):.3f}] n={len(each)} rows",
            flush=True,
        )
        with tempfile.TemporaryDirectory() as folder:
            bundle = export_run(run, out=Path(folder) / "bundle").folder
            speed = benchmark(model, bundle, rows, rounds=args.rounds, threads=1)
        ratios.append(speed.ratio)
        print(
            f"{run.name}: eager {speed.eager_ms:.2f} ms, ONNX {speed.onnx_ms:.2f} ms: {speed.ratio:.2f} times as fast",
            flush=True,
        )
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    print(f"ONNX over eager: geometric mean {mean:.2f} [{min(ratios):.2f}, {max(ratios):.2f}] n={len(ratios)} networks")


if __name__ == "__main__":
    main()
