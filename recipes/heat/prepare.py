"""Two equations, solved on the spot (solvers.py), as .npy files and a table of steps for each:
`python -m recipes.heat.prepare`."""

import itertools
from pathlib import Path

import numpy as np

from recipes import source
from recipes.heat.solvers import burgers, heat

RUNS, STEPS = {"train": 200, "val": 20, "test": 30}, 10


def saved(folder: Path, name: str, values: np.ndarray) -> str:
    np.save(folder / name, values.astype(np.float32))
    return f"{folder.name}/{name}"


def main() -> None:
    folder, random = source.target("heat"), np.random.default_rng(0)
    for name in ("heat", "burgers"):
        place, rows = folder / name, []
        place.mkdir(exist_ok=True)
        sides = [side for side, count in RUNS.items() for _ in range(count)]
        for run, side in enumerate(sides):
            fields, k = heat(random, STEPS) if name == "heat" else (burgers(random, STEPS), np.zeros(0))
            given = [saved(place, f"{run:04d}-conductivity.npy", k)] if k.size else []
            files = [saved(place, f"{run:04d}-{step:02d}.npy", field) for step, field in enumerate(fields)]
            rows += [[now, *given, then, run, side] for now, then in itertools.pairwise(files)]
        names = ["now", *(["conductivity"] if name == "heat" else []), "next", "run", "split"]
        source.write_csv(folder / f"{name}.csv", names, rows)
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
