"""What keeping the stages costs: `python -m benchmarks.stages RUN ... [--steps 20 --rounds 5 --threads 1]`.

RUN: a training of a recipe with stages (of a comparison: its warm_joint-seed0-100). Seconds of a training step of the whole
network, all stages learning together by their hand-offs, over those of a step of every stage by itself on true answers, one after
the other, with the trained weights and batches of the same rows, in turns. What the whole pays more is the hand-offs, such
as writing out the text that the next stage reads; what it spares is a forward pass per stage boundary. Target: at most 1.15.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from endwise.data.dataset import Dataset, prepare
from endwise.data.loader import Loader
from endwise.model import Model
from endwise.objective import Objective
from endwise.optimise import Optimiser, autocast, step
from endwise.recipe import Recipe
from endwise.run import Run
from endwise.stages import StagedNetwork, stage_recipe
from endwise.train.opening import first_objective

TARGET = 1.15


@dataclass
class Learner:
    """One network with its optimiser and the batches it learns from."""

    model: Model
    objective: Objective
    optimiser: Optimiser
    loader: Loader

    @classmethod
    def of(cls, recipe: Recipe, model: Model, dataset: Dataset, batch_size: int) -> "Learner":
        rows = dataset.splits.train
        loader = Loader(dataset, recipe, model.contracts, rows, batch_size=batch_size, seed=0, shuffle=True)
        objective, _ = first_objective(recipe, model, loader)
        optimiser = Optimiser(model.network, objective, learning_rate=1e-9, weight_decay=0.0)
        model.network.train()
        return cls(model, objective, optimiser, loader)

    def seconds(self, index: int, precision: Callable[[], object]) -> float:
        batch = self.loader.batch(index).to("cpu")
        began = time.perf_counter()
        step(
            self.model.network, self.objective, self.optimiser, batch, rate=1.0, micro_batch=len(batch),
            precision=precision,  # type: ignore[arg-type]
        )  # fmt: skip
        return time.perf_counter() - began


def learners(run: Run) -> tuple[Learner, dict[str, Learner], str]:
    """The whole, every stage by itself with the same weights, and the precision that the run was trained in."""
    recipe, plan = run.recipe, run.read("plan.json")
    dataset, model = prepare(recipe), run.model(recipe=recipe)
    network, apart = model.network, {}
    if not isinstance(network, StagedNetwork):
        raise SystemExit(f"{run.path} has no stages")
    for name, stage in recipe.stages.items():
        if stage.by is None:
            own = stage_recipe(recipe, name)
            fields = {field: model.contracts[field] for field in (*own.inputs, *own.outputs)}
            alone = Model.build(own, fields, seed=0)
            alone.network.load_state_dict(
                network.stage(name).state_dict(), strict=False
            )  # latent: encoders of their own
            apart[name] = Learner.of(own, alone, dataset.narrowed(own), plan["batch_size"])
    return Learner.of(recipe, model, dataset, plan["batch_size"]), apart, plan["precision"]


def measure(path: str, args: argparse.Namespace) -> None:
    whole, apart, named = learners(Run.open(path))
    precision, ratios, spent = autocast("cpu", named), [], dict.fromkeys(["whole", *apart], 0.0)
    for turn in range(args.rounds + 1):
        seconds = dict.fromkeys(spent, 0.0)
        for index in range(turn * args.steps, (turn + 1) * args.steps):
            seconds["whole"] += whole.seconds(index, precision)
            for name, learner in apart.items():
                seconds[name] += learner.seconds(index, precision)
        if turn:  # the first one warms up
            ratios.append(seconds["whole"] / sum(seconds[name] for name in apart))
            spent = {name: spent[name] + seconds[name] for name in spent}
    steps = args.rounds * args.steps
    told = ", ".join(f"{name} {1000 * value / steps:.1f} ms" for name, value in spent.items())
    middle = statistics.median(ratios)
    print(f"{path}: {told}; {named}, batch {whole.loader.batch_size}, n = {steps} steps")
    print(f"  whole over sum: {middle:.3f} [{min(ratios):.3f}, {max(ratios):.3f}], {args.rounds} rounds; target {TARGET}: "
          f"{'met' if middle <= TARGET else 'missed'}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--steps", type=int, default=20, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for path in args.runs:
        measure(path, args)


if __name__ == "__main__":
    main()
