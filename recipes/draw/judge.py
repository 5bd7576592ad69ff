"""Whether a drawn picture shows what was asked for: `python -m recipes.draw.judge RUN JUDGE_RUN [--rows 500]`.

`--guidance 1 2 4` draws with each of these weights, and `--side val` for the captions of the validation rows: what a weight
is chosen by. A network that knows pictures says the shape and the colour of those that were drawn for test captions, beside the same
network told nothing (guidance 0), told without extra weight (guidance 1), the training picture whose caption is the nearest,
and the true pictures, which is what the judge itself can reach. The Fréchet distance is by hand-made features.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from endwise import metrics
from endwise.baselines import baselines
from endwise.data.dataset import Dataset, prepare
from endwise.data.loader import Loader
from endwise.drawing import Picture
from endwise.modalities.base import Answer
from endwise.modalities.image.flow import FlowHead
from endwise.model import Model
from endwise.run import Run

BATCH = 50


def drawn(model: Model, dataset: Dataset, rows: np.ndarray, name: str) -> list[Picture]:
    """A picture for each row, from a seed of its own."""
    loader = Loader(dataset, model.recipe, model.contracts, rows, batch_size=BATCH, seed=0, shuffle=False)
    batches = (loader.batch(step) for step in range(loader.batches_per_epoch))
    return [answer.value for batch in batches for answer in model.answers(batch)[name]]


def told(judge: Model, pictures: Sequence[Picture], wanted: Sequence[Any]) -> list[str]:
    """The judge's accuracy for the shape, for the colour, and for both at once."""
    (given,) = judge.recipe.inputs
    found = [item.answers for item in judge.predict([{given: picture} for picture in pictures])]
    both = [Answer(f"{answers['colour'].value} {answers['shape'].value}") for answers in found]
    asked = {
        "shape": ([item[1] for item in wanted], [answers["shape"] for answers in found]),
        "colour": ([item[0] for item in wanted], [answers["colour"] for answers in found]),
        "both": ([" ".join(item) for item in wanted], both),
    }
    return [f"{name} {metrics.estimate(metrics.accuracy(), *pair)}" for name, pair in asked.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("judge")
    parser.add_argument("--rows", type=int, default=500, help="test rows to draw, evenly through them")
    parser.add_argument("--side", choices=["test", "val"], default="test", help="whose captions are drawn")
    parser.add_argument(
        "--guidance", type=float, nargs="+", help="weights of the caption; default: as trained, 1 and 0"
    )
    given = parser.parse_args()
    run, judge = Run.open(given.run), Run.open(given.judge).model()
    model, dataset = run.model(), prepare(run.recipe)
    (name,) = run.recipe.outputs
    head = model.network.head(name)
    assert isinstance(head, FlowHead)
    side = getattr(dataset.splits, given.side)
    rows = side[np.unique(np.linspace(0, len(side) - 1, given.rows).astype(int))]
    truths = [run.recipe.outputs[name].truth(dataset.fields[name][row], model.contracts[name]) for row in rows.tolist()]
    arms = {}
    weights = {"as trained": head.guidance, "guidance 1": 1.0, "told nothing": 0.0}
    for label, guidance in ({f"guidance {weight:g}": weight for weight in given.guidance or ()} or weights).items():
        head.guidance = guidance
        arms[label] = drawn(model, dataset, rows, name)
    nearest = baselines(model.contracts, run.recipe, dataset, dataset.splits.train, rows)[name]["classical"]
    arms |= {"nearest training picture": [answer.value for answer in nearest or []], "the true pictures": truths}
    wanted = list(zip(dataset.cells("colour", rows), dataset.cells("shape", rows), strict=True))
    new = np.array([cell == "never" for cell in dataset.cells("together", rows)])
    for label, pictures in arms.items():
        apart = metrics.estimate(metrics.frechet(), truths, [Answer(picture) for picture in pictures])
        print(f"{label}: {'   '.join(told(judge, pictures, wanted))}   frechet {apart}")
        for part, chosen in (("captions of training", ~new), ("never together in training", new)):
            some = np.flatnonzero(chosen).tolist()
            if some:
                found = told(judge, [pictures[row] for row in some], [wanted[row] for row in some])
                print(f"  {part}: {'   '.join(found)}")


if __name__ == "__main__":
    main()
