"""Two trained networks beside what anyone could do: `python -m recipes.driving.arms RUN VISION_RUN [--json]`.

MAE on the test rows of picture + speed, of the picture alone, of the training mean, of the row before, and of always
zero, each with its n and interval, and what each arm's MAE is above picture + speed's on the same rows. Neighbouring
frames are near copies, so intervals draw blocks of ten frames, not single ones: 200 frames are worth 20, and one drive
says nothing about another track.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from endwise import metrics
from endwise.data.table import Table, open_table
from endwise.errors import DataError, require
from endwise.metrics import Estimate
from endwise.modalities.base import Answer
from endwise.run import Run

ANSWERS = ("steering", "throttle", "brake")
OURS = "picture + speed"
BLOCK_ROWS = 10  # about a second of driving

Arms = dict[str, list[Answer]]  # what each arm answers to the test rows
Scores = dict[str, dict[str, Estimate]]  # of each arm: its 'mae', and 'above', the difference to OURS


def constant_arms(table: Table, output: str) -> tuple[list[float], Arms]:
    """The truths of the test rows in time order, and the arms that need no network."""
    split = [str(cell) for cell in table.column("split")]
    values = [float(cell) for cell in table.column(output)]
    before = [float(cell) for cell in table.column(f"previous_{output}")]
    test = [row for row, side in enumerate(split) if side == "test"]
    train = [value for value, side in zip(values, split, strict=True) if side == "train"]
    require(
        bool(test and train), field="data", got=sorted(set(split)), allowed="a table with train and test rows",
        fix="run recipes.driving.prepare again", error=DataError,
    )  # fmt: skip
    return [values[row] for row in test], {
        "training mean": [Answer(sum(train) / len(train))] * len(test),
        "repeat last": [Answer(before[row]) for row in test],
        "always zero": [Answer(0.0)] * len(test),
    }


def scores(truths: Sequence[float], arms: Mapping[str, Sequence[Answer]]) -> Scores:
    """Each arm's MAE, and how much it is above that of OURS (paired; below zero: the arm is better)."""
    shared: dict[str, Any] = {"clusters": [row // BLOCK_ROWS for row in range(len(truths))]}
    mae = metrics.mae()
    return {
        name: {
            "mae": metrics.estimate(mae, truths, answers, **shared),
            **({"above": metrics.difference(mae, truths, answers, arms[OURS], **shared)} if name != OURS else {}),
        }
        for name, answers in arms.items()
    }


def answers(run: str, table: Table) -> dict[str, list[Answer]]:
    """What a run's model answers to the test rows, by output."""
    found = Run.open(run).model().predict(table)
    test = [row for row, side in enumerate(table.column("split")) if side == "test"]
    return {output: [found[row].answers[output] for row in test] for output in ANSWERS}


def compare(run: str, vision_run: str) -> dict[str, Scores]:
    """{output: {arm: {'mae', 'above'}}} on the test rows of the first run's table."""
    table = open_table(Run.open(run).recipe.data.path)
    ours, vision = answers(run, table), answers(vision_run, table)
    found = {}
    for output in ANSWERS:
        truths, others = constant_arms(table, output)
        found[output] = scores(truths, {OURS: ours[output], "picture alone": vision[output], **others})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="trained from recipe.yaml")
    parser.add_argument("vision_run", metavar="VISION_RUN", help="trained from vision.yaml")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = compare(args.run, args.vision_run)
    if args.json:
        plain = {
            output: {arm: {name: one.to_dict() for name, one in both.items()} for arm, both in arms.items()}
            for output, arms in found.items()
        }
        print(json.dumps(plain, indent=1))
        return
    for output, arms in found.items():
        n = arms[OURS]["mae"].n
        print(f"\n{output}, n = {n}\n  {'':<16} {'MAE':<26} above {OURS}")
        for name, both in arms.items():
            print(
                f"  {name:<16} {_spelled(both['mae']):<26} {_spelled(both['above']) if 'above' in both else ''}".rstrip()
            )


def _spelled(one: Estimate) -> str:
    return f"{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]"


if __name__ == "__main__":
    main()
