"""How far a run carries when its answers are fed back: `python -m recipes.heat.roll runs/heat` (or runs/burgers)."""

import sys
from pathlib import Path

import numpy as np

import endwise as ew
from endwise.modalities.field.classical import WaveRidge, Waves
from endwise.modalities.field.rollout import RollOut, roll_out
from recipes import source

DATA = Path(__file__).parent / "data"
Fields = list[np.ndarray]


def fields(rows: list[dict[str, str]], column: str) -> Fields:
    """Of each row, [channel, *grid]."""
    return [np.load(DATA / row[column])[None] for row in rows]


def features(values: dict[str, Fields]) -> np.ndarray:
    return np.concatenate([Waves().transform(part) for part in values.values()], axis=1)


def rolled(model: ew.Model, name: str) -> RollOut:
    """The test runs of heat.csv or burgers.csv, from their first fields on."""
    rows = source.read_csv(DATA / f"{name}.csv")
    train, test = ([row for row in rows if row["split"] == side] for side in ("train", "test"))
    inputs = list(model.recipe.inputs)
    after = [ew.Lattice(field) for field in fields(train, "next")]
    ridge = WaveRidge().fit(features({key: fields(train, key) for key in inputs}), after)
    runs = {row["run"]: [other for other in test if other["run"] == row["run"]] for row in test}
    still = {key: fields([steps[0] for steps in runs.values()], key) for key in inputs if key != "now"}

    def network(now: list[ew.Lattice]) -> list[ew.Lattice]:
        given = {"now": now, **{key: [ew.Lattice(field) for field in part] for key, part in still.items()}}
        answers = model.predict([dict(zip(given, row, strict=True)) for row in zip(*given.values(), strict=True)])
        return [answer["next"] for answer in answers]

    def linear(now: list[ew.Lattice]) -> Fields:
        own = {"now": [np.asarray(field) for field in now], **still}
        found: Fields = ridge.predict(features({key: own[key] for key in inputs}))
        return found

    trajectories = [np.stack([*fields(steps, "now"), *fields(steps[-1:], "next")]) for steps in runs.values()]
    return roll_out(network, trajectories, threshold=0.1, rivals={"ridge on waves": linear})


if __name__ == "__main__":
    opened = ew.Run.open(sys.argv[1])
    print(rolled(opened.model(), "heat" if "conductivity" in opened.recipe.inputs else "burgers"))
