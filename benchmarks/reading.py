"""How fast pictures become batches: `python -m benchmarks.reading [RECIPE ...] [--rows 4000]`.

JPEG to batch against bare decoding (to an RGB array with the library endwise uses, nothing else), rows a second:  the first epoch
(open the source, decode into an empty prepared store, make every batch) and the second (every batch again, from the
store). CPU time counts all threads and worker processes; wall time has one worker, and once as many as there are cores.
Each row names its own share of the speed of bare decoding.
"""

import argparse
import io
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from endwise.data.dataset import Dataset, fit_contracts, prepare
from endwise.data.loader import Loader
from endwise.data.table import open_table
from endwise.recipe import Recipe

DEFAULT = ("recipes/cifar10/recipe.yaml", "recipes/driving/recipe.yaml")
BATCH = 64


def cpu_s() -> float:
    """CPU seconds of this process and of its children that have ended."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def timed(action: Callable[[], Any]) -> tuple[float, float, Any]:
    """(wall seconds, CPU seconds, what it gave)"""
    wall, cpu = time.perf_counter(), cpu_s()
    result = action()
    return time.perf_counter() - wall, cpu_s() - cpu, result


def only_pictures(path: str, rows: int) -> tuple[Recipe, list[dict[str, Any]], list[bytes]]:
    """The recipe with its picture alone, the first rows of its training table in memory, and their JPEG bytes."""
    recipe = Recipe.load(path)
    name = next(name for name, item in recipe.inputs.items() if item.type == "image")
    output = next(iter(recipe.outputs))
    table = open_table(recipe.data.path if recipe.data.path is not None else recipe.data.train)
    column, answer = (
        declared[key].column or key for declared, key in ((recipe.inputs, name), (recipe.outputs, output))
    )
    cells, answers = table.column(column)[:rows], table.column(answer)[:rows]
    files = [_bytes(cell, table.fetch) for cell in cells]
    found = [{column: file, answer: value} for file, value in zip(files, answers, strict=True)]
    kept = Recipe(
        name="reading", data={"path": found}, inputs={name: recipe.inputs[name]},
        outputs={output: {"type": recipe.outputs[output].type, "column": answer}},
    )  # fmt: skip
    return kept, found, files


def _bytes(cell: Any, fetch: Callable[[str], bytes]) -> bytes:
    if isinstance(cell, dict):
        return bytes(cell["bytes"])
    return cell if isinstance(cell, bytes) else fetch(cell)


def bare(files: list[bytes]) -> None:
    """What nobody can do without, one core."""
    import simplejpeg

    for file in files:
        simplejpeg.decode_jpeg(file, "RGB")


def pillow(files: list[bytes]) -> None:
    """The same with Pillow, for comparison."""
    import numpy as np
    from PIL import Image

    for file in files:
        np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def epoch(recipe: Recipe, dataset: Dataset, contracts: Any) -> int:
    """All batches of all rows once, shuffled, without reading ahead; the rows."""
    rows = dataset.splits.train
    loader = Loader(dataset, recipe, contracts, rows, batch_size=BATCH, seed=0, shuffle=True)
    return sum(len(loader.batch(step)) for step in range(loader.batches_per_epoch))


def once(recipe: Recipe, files: list[bytes], workers: int | None) -> dict[str, tuple[float, float]]:
    """{phase: (rows a wall second, rows a CPU second)} with an empty store."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ENDWISE_CACHE"] = folder
        wall, cpu, _ = timed(lambda: bare(files))
        speeds = {"bare": (len(files) / wall, len(files) / cpu)}
        wall, cpu, _ = timed(lambda: pillow(files))
        speeds["Pillow"] = (len(files) / wall, len(files) / cpu)
        prepare_wall, prepare_cpu, dataset = timed(lambda: prepare(recipe, workers=workers))
        contracts = fit_contracts(recipe, dataset)
        seen = len(dataset.splits.train)
        share = len(files) / seen  # rows of validation and test are decoded too, and are in no training batch
        wall, cpu, _ = timed(lambda: epoch(recipe, dataset, contracts))
        speeds["first epoch"] = (
            len(files) / (prepare_wall + wall * share),
            len(files) / (prepare_cpu + cpu * share),
        )
        wall, cpu, _ = timed(lambda: epoch(recipe, dataset, contracts))
        speeds["second epoch"] = (seen / wall, seen / cpu)
        del dataset
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=list(DEFAULT), metavar="RECIPE")
    parser.add_argument("--rows", type=int, default=4000, help="pictures at most")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    before = os.environ.get("ENDWISE_CACHE")
    try:
        for path in args.recipes:
            recipe, _, files = only_pictures(path, args.rows)
            once(recipe, files[:100], 1)  # imports and first calls
            print(
                f"{Path(path).parent.name}: {len(files)} pictures, {sum(map(len, files)) / len(files):.0f} bytes each"
            )
            for workers, told in ((1, "one worker"), (None, f"{os.cpu_count()} workers")):
                rounds = [once(recipe, files, workers) for _ in range(args.rounds)]
                for phase in ("bare", "Pillow", "first epoch", "second epoch"):
                    print(
                        f"  {told}, {phase:<12}", *(_told(rounds, phase, kind) for kind in (0, 1)), sep="  ", flush=True
                    )
    finally:
        os.environ.pop("ENDWISE_CACHE", None)
        if before is not None:
            os.environ["ENDWISE_CACHE"] = before


def _told(rounds: list[dict[str, tuple[float, float]]], phase: str, kind: int) -> str:
    speeds = [found[phase][kind] for found in rounds]
    shares = [found[phase][kind] / found["bare"][kind] for found in rounds]
    return (
        f"{'wall' if kind == 0 else 'CPU'}: {statistics.median(speeds):.0f} rows/s, "
        f"{statistics.median(shares):.2f} of bare [{min(shares):.2f}, {max(shares):.2f}] n={len(rounds)}"
    )


if __name__ == "__main__":
    main()
