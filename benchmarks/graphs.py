"""How fast rows that look around in a graph are answered: `python -m benchmarks.graphs [--recipe recipes/fraud/recipe.yaml
--rows 2000 --rounds 3]`, on its prepared data.

The same rows with everything that lies around their nodes, up to the recipe's `cap`, and with as few neighbours as training
draws (`neighbours`). Its weights are not trained, which changes no time. Microseconds of a processor for a row, the least of
all rounds, part by part: finding what lies around (`read`), drawing neighbours, padding into a batch, the network with its
decoding; and how many visits (nodes that are looked at on the way) a row has.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from endwise.data.dataset import fit_contracts, prepare
from endwise.export.graph import batch_of
from endwise.model import Model
from endwise.recipe import Recipe
from endwise.rows import collate

BATCH = 256


def spent(model: Model, dataset: Any, rows: np.ndarray, *, sampled: bool) -> tuple[dict[str, float], float]:
    """Seconds of each part over all rows, and the visits of a row."""
    inputs, contracts = model.recipe.inputs, model.contracts
    parts = dict.fromkeys(("finding", "drawing", "padding", "network"), 0.0)
    visits = 0
    for start in range(0, len(rows), BATCH):
        marks = [time.process_time()]
        some = rows[start : start + BATCH].tolist()
        read: list[dict[str, np.ndarray | None]] = [
            {
                name: item.transform(item.read(dataset.raw(name, row), dataset.fetch_of(row)), contracts[name])
                for name, item in inputs.items()
            }
            for row in some
        ]
        marks.append(time.process_time())
        for row, values in zip(some, read, strict=True):
            for name, item in inputs.items():
                value = values[name]
                if item.samples and value is not None:
                    values[name] = value = item.sample(value, (0, start, row)) if sampled else value
                    visits += len(value)
        marks.append(time.process_time())
        fields, present = collate(inputs, contracts, read)
        marks.append(time.process_time())
        model.decoded(model.predictions(batch_of(fields, present)))
        marks.append(time.process_time())
        for name, seconds in zip(parts, np.diff(marks), strict=True):
            parts[name] += float(seconds)
    return parts, visits / len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/fraud/recipe.yaml"))
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    recipe = Recipe.load(given.recipe)
    dataset = prepare(recipe)
    model = Model.build(recipe, fit_contracts(recipe, dataset), seed=0)
    whole = np.concatenate([dataset.splits.test, dataset.splits.val, dataset.splits.train])
    rows = whole[[all(dataset.fields[name].present[row] for name in recipe.inputs) for row in whole.tolist()]]
    rows = rows[: given.rows]
    for sampled in (False, True):
        found = [spent(model, dataset, rows, sampled=sampled) for _ in range(given.rounds)]
        best = {name: min(parts[name] for parts, _ in found) / len(rows) for name in found[0][0]}
        shown = ", ".join(f"{name} {1e6 * seconds:.0f}" for name, seconds in best.items())
        print(
            f"{'as few neighbours as in training' if sampled else 'all up to the cap'}: {1 / sum(best.values()):,.0f} rows a "
            f"second of one core (n = {len(rows):,}, {given.rounds} rounds); {found[0][1]:.1f} visits a row; microseconds a row: {shown}",
            flush=True,
        )


if __name__ == "__main__":
    main()
