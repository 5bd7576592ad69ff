"""What the training loop costs: `python -m benchmarks.loop [RECIPE ...] [--batch 16 --steps 60 --pairs 6 --rows 4000]`.

Rows a second (of text outputs also tokens: the symbols that are taught, ends included) of endwise's own loop beside a hand-written PyTorch loop of the same network, precision, threads and
batch size, on the same prepared data. The hand-written loop holds all arrays in memory and knows nothing of logs,
checkpoints, term names or missing values. A pair is a fresh network for each; both take turns of ten steps (`--turn`) in one
process and one thread, so that a busy machine slows both. `--order same` (the usual): the hand-written loop gets the
rows of endwise's batches, which leaves the loop as the only difference; `--order own`: its own random permutation,
which costs it padding where rows have different lengths. `--control`: the hand-written loop in the place of endwise's too,
so that the ratio is 1 and its range is what the method itself is worth. In every other pair the hand-written loop is a
turn ahead: who meets a batch's shape first pays for the kernels that are made for it. Target: at least 0.98 of its speed.
`--heap`: endwise's turns keep the memory that they free, as `endwise train` does and a hand-written loop does not; without
it neither does.
"""

import argparse
import contextlib
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from endwise import heap
from endwise.batch import Ragged
from endwise.data.dataset import Dataset, fit_contracts, prepare
from endwise.data.loader import Loader
from endwise.data.split import Splits
from endwise.model import Model
from endwise.optimise import BETAS, CLIP_NORM, autocast, schedule
from endwise.plan import PEAK_RATE, Plan
from endwise.recipe import Recipe
from endwise.run import Run
from endwise.train.loop import Trainer
from endwise.train.stopping import Signals

TARGET = 0.98
DEFAULT = ("recipes/spoken-digits/recipe.yaml", "recipes/cifar10/recipe.yaml")

Step = tuple[dict[str, Ragged], dict[str, Ragged], list[int]]  # inputs, targets, positions among the training rows


@dataclasses.dataclass(frozen=True)
class Speed:
    """Rows and tokens a second of wall time, and rows a second of CPU time (all threads of this process)."""

    wall: float
    cpu: float
    tokens: float


@dataclasses.dataclass(frozen=True)
class Spent:
    """One turn."""

    rows: int = 0
    tokens: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0


class Case:
    """One recipe's data, prepared once; the rows of training only, so that nothing but steps is in the loop."""

    def __init__(self, path: str, args: argparse.Namespace, folder: Path) -> None:
        recipe = Recipe.load(path)
        settings: dict[str, Any] = {"train.steps": args.steps, "train.budget": None, "train.batch_size": args.batch}
        if args.precision:
            settings["train.precision"] = args.precision
        self.recipe, self.folder, self.name = recipe.replace(**settings), folder, Path(path).parent.name
        whole = prepare(self.recipe)
        rows, none = whole.splits.train[: args.rows], whole.splits.train[:0]
        self.dataset: Dataset = dataclasses.replace(whole, splits=Splits(rows, none, none, "for a benchmark"))
        self.contracts = fit_contracts(self.recipe, self.dataset)
        self.count = 0
        self.plan = self._first_plan(args.threads)
        self.memory = _in_memory(self.dataset, self.recipe, self.contracts)
        self.position = {int(row): index for index, row in enumerate(rows)}
        self.turn, self.tokens, self.heap = args.turn, np.zeros(len(rows), np.int64), args.heap
        for name, item in self.recipe.outputs.items():
            if item.type == "text":
                self.tokens += [len(symbols) + 1 for symbols in self.memory[name]]

    def trainer(self) -> Trainer:
        """Endwise's loop with a fresh network in a fresh run folder."""
        self.count += 1
        run = Run.create(self.recipe, out=self.folder / f"{self.name}-{self.count}")
        if self.count > 1:
            run.write("plan.json", self.plan.to_dict())
        model = Model.build(self.recipe, self.contracts, seed=0)
        began = time.monotonic()
        return Trainer(run, self.recipe, self.dataset, model, Signals(), run.log, None, began, scores=False)

    def _first_plan(self, threads: int | None) -> Plan:
        plan = self.trainer().plan
        return plan if threads is None else dataclasses.replace(plan, threads=threads)

    def loader(self) -> Loader:
        """The batches endwise makes."""
        return Loader(
            self.dataset, self.recipe, self.contracts, self.dataset.splits.train,
            batch_size=self.plan.batch_size, seed=self.recipe.train.seed, shuffle=True,
        )  # fmt: skip


def _in_memory(dataset: Dataset, recipe: Recipe, contracts: Mapping[str, Any]) -> dict[str, list[torch.Tensor]]:
    """Every field's transformed arrays as tensors, by position among the training rows."""
    rows = dataset.splits.train
    loader = Loader(dataset, recipe, contracts, rows, batch_size=1, seed=0, shuffle=False)
    held: dict[str, list[torch.Tensor]] = {name: [] for name in dataset.fields}
    for index in range(len(rows)):
        batch = loader.batch(index)
        for name, field in {**batch.inputs, **batch.targets}.items():
            held[name].append(torch.from_numpy(np.array(field.values[0])))
    return held


def padded(rows: list[torch.Tensor], axes: int) -> Ragged:
    """Rows of several sizes in one tensor, as one writes it by hand."""
    sizes = torch.tensor([row.shape[:axes] for row in rows], dtype=torch.int64).reshape(len(rows), axes)
    if all(row.shape == rows[0].shape for row in rows):
        return Ragged(torch.stack(rows), sizes)
    values = torch.zeros((len(rows), *sizes.max(dim=0).values.tolist(), *rows[0].shape[axes:]), dtype=rows[0].dtype)
    for index, row in enumerate(rows):
        real: tuple[int | slice, ...] = (index, *(slice(size) for size in row.shape[:axes]))
        values[real] = row
    return Ragged(values, sizes)


def steps_of(case: Case, same: bool) -> Iterator[Step]:
    """Batches from memory: of an own permutation each epoch, or of the rows endwise's batches have."""
    recipe, size, count = case.recipe, case.plan.batch_size, len(case.dataset.splits.train)
    loader, order = case.loader(), np.arange(count)
    generator, per_epoch = np.random.default_rng(0), -(-count // size)
    for step in range(case.plan.steps):
        if same:
            chosen = [case.position[row] for row in loader.batch_rows(step).tolist()]
        else:
            if step % per_epoch == 0:
                order = generator.permutation(count)
            start = step % per_epoch * size
            chosen = order[start : start + size].tolist()
        inputs = {
            name: padded([case.memory[name][i] for i in chosen], item.axes) for name, item in recipe.inputs.items()
        }
        targets = {
            name: padded([case.memory[name][i] for i in chosen], item.axes) for name, item in recipe.outputs.items()
        }
        yield inputs, targets, chosen


def by_hand(case: Case, same: bool) -> Iterator[list[int]]:
    """The loop one would write for this network alone; the rows of each step as it is done."""
    plan = case.plan
    network = Model.build(case.recipe, case.contracts, seed=0).network
    network.train()
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for weight in network.parameters():
        groups.setdefault(plan.weight_decay if weight.ndim > 1 else 0.0, []).append(weight)
    adamw = torch.optim.AdamW(
        [{"params": weights, "weight_decay": decay} for decay, weights in groups.items()],
        lr=PEAK_RATE, betas=BETAS, fused=True,
    )  # fmt: skip
    weights = list(network.parameters())
    floating = [value for value in network.state_dict().values() if value.is_floating_point()]
    average = [value.clone() for value in floating]
    precision = autocast("cpu", plan.precision)
    for step, (inputs, targets, chosen) in enumerate(steps_of(case, same)):
        present = {name: torch.ones(len(chosen), dtype=torch.bool) for name in inputs}
        adamw.zero_grad(set_to_none=True)
        with precision():
            predictions = network(inputs, present)
            losses = [  # a decoder that is taught runs in here
                term.float().mean()
                for name, target in targets.items()
                for term in network.head(name).loss(predictions[name], target.values, target.sizes).values()
            ]
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, CLIP_NORM, foreach=True)
        for group in adamw.param_groups:
            group["lr"] = PEAK_RATE * schedule(step, steps=plan.steps, warmup=plan.warmup_steps)
        adamw.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, floating, 1 - min(plan.ema_decay, (2 + step) / (11 + step)))
        yield chosen


class Turns:
    """Listens to endwise's loop and, every `--turn` steps, lets the hand-written one do as many."""

    def __init__(self, case: Case, same: bool, ahead: bool) -> None:
        """ahead: the hand-written loop has the first turn."""
        self.case, self.hand = case, by_hand(case, same)
        self.ours, self.theirs = [Spent()], [Spent()]
        self.rows, self.left = case.loader(), case.plan.steps // case.turn
        self.memory = contextlib.ExitStack()
        if ahead:
            self._by_hand()
        self._ours()

    def step(self, step: int) -> None:
        """After each of endwise's steps, its event already in the log."""
        turn = self.case.turn
        if step % turn:
            return
        rows = [self.case.position[int(row)] for done in range(step - turn, step) for row in self.rows.batch_rows(done)]
        self.ours.append(since(self.began, self.case, rows))
        self.memory.close()
        if self.left:
            self._by_hand()
            self._ours()

    def _ours(self) -> None:
        if self.case.heap:
            self.memory.enter_context(heap.kept())
        self.began = time.perf_counter(), time.process_time()

    def _by_hand(self) -> None:
        self.left -= 1
        self.began = time.perf_counter(), time.process_time()
        rows = [row for _ in range(self.case.turn) for row in next(self.hand)]
        self.theirs.append(since(self.began, self.case, rows))


def since(began: tuple[float, float], case: Case, rows: list[int]) -> Spent:
    """What these rows took."""
    wall_s, cpu_s = time.perf_counter() - began[0], time.process_time() - began[1]
    return Spent(len(rows), int(case.tokens[rows].sum()), wall_s, cpu_s)


def pair(case: Case, same: bool, ahead: bool) -> tuple[Speed, Speed]:
    """(endwise, by hand): a fresh network each, without the first turn."""
    trainer = case.trainer()
    log, turns = trainer.run.log, Turns(case, same, ahead)

    def say(event: Mapping[str, Any]) -> None:
        log(event)
        if event["event"] == "step":
            turns.step(event["step"])

    trainer.say = say
    trainer.train()
    trainer.run.close()
    return speed(turns.ours), speed(turns.theirs)


def control(case: Case, same: bool, ahead: bool) -> tuple[Speed, Speed]:
    """The hand-written loop beside itself: what a pair says when there is nothing to find."""
    loops, spent = [by_hand(case, same), by_hand(case, same)], [[Spent()], [Spent()]]
    for _ in range(case.plan.steps // case.turn):
        for which in (1, 0) if ahead else (0, 1):
            began = time.perf_counter(), time.process_time()
            rows = [row for _ in range(case.turn) for row in next(loops[which])]
            spent[which].append(since(began, case, rows))
    return speed(spent[0]), speed(spent[1])


def speed(turns: list[Spent]) -> Speed:
    """Over all turns but the first, which warms up."""
    counted = turns[2:]
    rows, tokens = sum(turn.rows for turn in counted), sum(turn.tokens for turn in counted)
    wall_s, cpu_s = sum(turn.wall_s for turn in counted), sum(turn.cpu_s for turn in counted)
    return Speed(rows / wall_s, rows / cpu_s, tokens / wall_s)


def compare(case: Case, pairs: int, same: bool, controlled: bool) -> None:
    """The pairs, one line each, then the median ratio."""
    ours_is = "by hand" if controlled else "endwise"
    plan = case.plan
    print(
        f"{case.name}: {len(case.dataset.splits.train)} rows, batch {plan.batch_size}, {plan.steps - case.turn} timed steps, "
        f"{plan.precision}, {plan.threads} thread(s), {plan.parameters} parameters, {'same' if same else 'own'} order",
        flush=True,
    )
    ratios: dict[str, list[float]] = {"wall": [], "CPU": []}
    for index in range(pairs):
        ours, theirs = (control if controlled else pair)(case, same, index % 2 == 1)
        ratios["wall"].append(ours.wall / theirs.wall)
        ratios["CPU"].append(ours.cpu / theirs.cpu)
        print(
            f"  pair {index + 1}: {ours_is} {ours.wall:.0f} rows/s, by hand {theirs.wall:.0f}; "
            + (f"{ours.tokens:.0f} tokens/s, by hand {theirs.tokens:.0f}; " if ours.tokens else "")
            + f"ratio {ratios['wall'][-1]:.3f} (CPU time {ratios['CPU'][-1]:.3f})",
            flush=True,
        )
    for name, values in ratios.items():
        print(
            f"  {name}: median ratio {statistics.median(values):.3f} [{min(values):.3f}, {max(values):.3f}] n={pairs}"
        )
    if controlled:
        return
    print(f"  target {TARGET} (wall): {'met' if statistics.median(ratios['wall']) >= TARGET else 'missed'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=list(DEFAULT), metavar="RECIPE")
    parser.add_argument("--batch", type=int, default=16, help="rows a step")
    parser.add_argument(
        "--steps", type=int, default=60, help="of each loop in a pair, the first turn of them not timed"
    )
    parser.add_argument("--turn", type=int, default=10, help="steps of one loop before the other has its turn")
    parser.add_argument("--pairs", type=int, default=6, help="even, since who is first alternates")
    parser.add_argument("--rows", type=int, default=4000, help="training rows at most")
    parser.add_argument("--precision", choices=["fp32", "bf16"], help="default: what the plan measures as faster")
    parser.add_argument("--threads", type=int, help="default: what the plan measures as faster")
    parser.add_argument("--order", choices=["same", "own"], default="same", help="of the hand-written loop's rows")
    parser.add_argument("--heap", action="store_true", help="endwise's turns keep the memory that they free")
    parser.add_argument("--control", action="store_true", help="the hand-written loop beside itself")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for path in args.recipes:
            compare(Case(path, args, Path(folder)), args.pairs, args.order == "same", args.control)


if __name__ == "__main__":
    main()
