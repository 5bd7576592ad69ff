"""The plan: every `auto` and every budget resolved before step 0, written to plan.json, read again on resume.

Two runs of one plan on one machine give the same bits. What is measured here (is bf16 faster, how long is a step)
is measured on a copy of the network, so that measuring changes nothing.
"""

import copy
import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from endwise.batch import Batch
from endwise.errors import ModelError, TrainingError, require
from endwise.network import Network
from endwise.objective import Objective
from endwise.optimise import NotFinite, Optimiser, autocast, out_of_memory, step
from endwise.recipe import Goal, Recipe

PEAK_RATE = 1e-3  # AdamW with warm-up on the small transformers of the dial
WEIGHT_DECAY = 0.05
WARMUP_SHARE = 0.06  # of all steps
EMA_SHARE = 0.02  # the average's horizon, as a share of all steps
SAMPLES_WANTED = 250_000  # passes of single rows that a default training makes ...
EPOCHS_RANGE = (8, 60)  # ... within this many epochs, or fewer where the network's parts say so (`Encoder.passes`)
MAX_EVALUATIONS = 20
EVALUATION_S = 0.1  # of a validation, however few rows it has
VALIDATION_SHARE = 0.25  # of the time of the steps before it, at most, under a budget
DRAFTED_ROWS = 256  # of a validation whose answers are written, symbol after symbol: a network that has not learnt to end takes long
COMPARED_ROWS = 256
WRITTEN_ROWS, WRITTEN_SYMBOLS, LEAST_ROWS = 32, 2048, 4
MIN_GAIN = 1.1  # bf16 must be this much faster to be chosen
BUDGET_SHARE = 0.97  # what is planned for; the rest is slack for a busy machine


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What training will do. Plain numbers; nothing in it is 'auto'."""

    device: str
    threads: int
    precision: str
    batch_size: int
    micro_batch: int
    steps_per_epoch: int
    steps: int
    most_steps: int  # what training makes when no budget is in the way: a budget is a limit, not a wish
    eval_every: int
    warmup_steps: int
    learning_rate: float | None  # None: each encoder's own, else PEAK_RATE
    weight_decay: float
    ema_decay: float
    patience: int | None
    seed: int
    goal: dict[str, str]
    step_s: float  # measured seconds a step
    eval_s: float  # seconds a validation: estimated, and under a budget what the last one took
    eval_rows: int  # validation rows that a validation looks at
    drafts: float  # how many times as long a whole answer takes as one that a validation looks at
    budget_s: float | None
    parameters: int
    rows: dict[str, int]

    @property
    def epochs(self) -> float:
        """Passes over the training rows."""
        return self.steps / self.steps_per_epoch

    @property
    def seconds(self) -> float:
        """How long the steps and validations will take."""
        return self.steps * self.step_s + math.ceil(self.steps / self.eval_every) * self.eval_s

    def scoring_s(self, rows: float) -> float:
        """How long so many rows take to be answered and scored, by what the validation rows take."""
        return EVALUATION_S + max(0.0, self.eval_s - EVALUATION_S) / max(1, self.eval_rows) * self.drafts * rows

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        names = {item.name for item in dataclasses.fields(cls)}
        if set(values) != names:
            raise ModelError(f"plan.json does not have the fields it should: {', '.join(sorted(set(values) ^ names))}.")
        return cls(**values)

    def with_steps(self, steps: int) -> Self:
        """The same plan, longer or shorter; everything that is a share of the steps follows. Under a budget validations stand
        so far apart that they take VALIDATION_SHARE of the steps' time at most: a network that has not learnt to end its
        texts takes as long for one as for a hundred steps."""
        apart = 1 if self.budget_s is None else math.ceil(self.eval_s / (VALIDATION_SHARE * self.step_s))
        return dataclasses.replace(self, steps=steps, **_shares(steps, self.steps_per_epoch, apart))

    def going_on(self, steps: int) -> Self:
        """The same plan while it is carried out: the warm-up is over, and the average keeps the horizon it has."""
        return dataclasses.replace(self.with_steps(steps), ema_decay=self.ema_decay, warmup_steps=self.warmup_steps)


def resolve_goal(recipe: Recipe, contracts: Mapping[str, Any]) -> Goal:
    """The declared goal with its metric checked, or the first output's usual metric."""
    name = recipe.goal.output if recipe.goal else next(iter(recipe.outputs))
    metrics = {metric.name: metric for metric in recipe.outputs[name].metrics(contracts[name])}
    if recipe.goal is None:
        first = next(iter(metrics.values()))
        return Goal(output=name, metric=first.name, direction=first.direction)
    from endwise.errors import unknown_name

    if recipe.goal.metric not in metrics:
        raise unknown_name(field="goal.metric", got=recipe.goal.metric, names=metrics)
    right = metrics[recipe.goal.metric].direction
    require(
        recipe.goal.direction == right,
        field="goal.direction",
        got=recipe.goal.direction,
        allowed=repr(right),
        fix=f"{recipe.goal.metric} is better when {'small' if right == 'min' else 'large'}",
    )
    return recipe.goal


def auto_batch_size(rows: int, *, compares_rows: bool = False, symbols: float = 0.0) -> int:
    """About 0.6 sqrt(rows) as a power of two in 8..256: small data needs many steps, large data large batches. Where the
    rows of a batch are each other's rivals: about a quarter of all rows, at most COMPARED_ROWS. Where a row is many
    decisions, the symbols of a text that is written: a quarter of the usual, at least WRITTEN_ROWS (Multi30k after two passes:
    BLEU 24.6 in batches of 32; after one 0.6 in batches of 128 and 10.2 in batches of 32), but no more rows than write
    WRITTEN_SYMBOLS: under a clock, more and smaller steps learn more."""
    if compares_rows:
        return int(min(COMPARED_ROWS, max(32, 2 ** round(math.log2(max(1.0, rows / 4)))), rows))
    usual = int(min(256, max(8, 2 ** round(math.log2(max(1.0, 0.6 * math.sqrt(rows)))))))
    if not symbols:
        return usual
    long = int(2 ** round(math.log2(max(1.0, WRITTEN_SYMBOLS / symbols))))
    return min(usual, max(WRITTEN_ROWS, usual // 4), max(LEAST_ROWS, long))


def whole_batch_error(batch_size: int) -> TrainingError:
    """What is said when a batch whose rows are compared does not fit: cut up, it would be another objective."""
    return TrainingError(
        f"a batch of {batch_size} rows does not fit into memory, and its rows are compared with each other, so that it "
        f"cannot be cut. Fix: write train.batch_size: {max(1, batch_size // 2)}, or a smaller train.size."
    )


def auto_device(wanted: str) -> str:
    """The declared device, checked, or the best there is."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=wanted)
    except (RuntimeError, AssertionError, ValueError) as missing:
        raise TrainingError(
            f"train.device = {wanted!r} is not allowed: expected a device of this machine "
            f"({str(missing).splitlines()[0]}). Fix: write device: auto."
        ) from None
    return wanted


def resolve(
    recipe: Recipe,
    *,
    network: Network,
    objective: Objective,
    contracts: Mapping[str, Any],
    first: Sequence[Batch],
    rows: dict[str, int],
    batch_size: int,
    budget_s: float | None,
) -> Plan:
    """Measure, then decide. `first`: a few batches as the loader gives them; `budget_s`: what is left of the budget."""
    train = recipe.train
    require(
        train.micro_batch is None or train.micro_batch >= batch_size or not network.compares_rows,
        field="train.micro_batch",
        got=train.micro_batch,
        allowed="null beside an output that compares the rows of a batch",
        fix="remove it; if the batch does not fit into memory, write a smaller train.batch_size",
    )
    device = auto_device(train.device)
    trial = _chosen(recipe, network, objective, first, device)
    step_s = trial.step_s
    per_epoch = math.ceil(rows["train"] / batch_size)
    goal = resolve_goal(recipe, contracts)
    writes = bool(network.symbols) and _needs_answers(recipe, contracts, goal)
    eval_rows = min(rows["val"], DRAFTED_ROWS) if writes else rows["val"]
    eval_s = step_s / 3 * math.ceil(eval_rows / batch_size) + EVALUATION_S
    most = _most_steps(recipe, network, rows["train"], per_epoch)
    steps = most if budget_s is None else min(most, _steps_in(budget_s, step_s, eval_s, per_epoch))
    plan = Plan(
        device=device,
        threads=trial.threads,
        precision=trial.precision,
        batch_size=batch_size,
        micro_batch=trial.micro_batch if trial.micro_batch < max(map(len, first)) else batch_size,
        steps_per_epoch=per_epoch,
        steps=steps,
        most_steps=most,
        learning_rate=None if train.learning_rate == "auto" else train.learning_rate,
        weight_decay=WEIGHT_DECAY if train.weight_decay is None else train.weight_decay,
        patience=train.patience,
        seed=train.seed,
        goal=goal.model_dump(),
        step_s=step_s,
        eval_s=eval_s,
        eval_rows=eval_rows,
        drafts=network.drafts if writes else 1.0,
        budget_s=train.budget,
        parameters=sum(weight.numel() for weight in network.parameters()),
        rows=rows,
        **_shares(steps, per_epoch, 1),
    )
    return plan.with_steps(steps)


def _most_steps(recipe: Recipe, network: Network, rows: int, per_epoch: int) -> int:
    """Steps that are made when no budget is in the way."""
    train = recipe.train
    if train.steps is not None:
        return train.steps
    if train.epochs is not None:
        return max(1, round(train.epochs * per_epoch))
    return per_epoch * default_passes(network, rows)


def wanted_s(
    recipe: Recipe, *, network: Network, objective: Objective, first: Batch, rows: int, batch_size: int
) -> float:
    """About how many seconds the steps take when no budget is in the way, by one of them."""
    precision = recipe.train.precision if recipe.train.precision != "auto" else "fp32"
    trial = _tried(recipe, network, objective, [first], auto_device(recipe.train.device), precision)
    return trial.step_s * _most_steps(recipe, network, rows, math.ceil(rows / batch_size))


def _needs_answers(recipe: Recipe, contracts: Mapping[str, Any], goal: Goal) -> bool:
    """Whether the goal is about what is answered, and not about what a loss term says of the truth."""
    found = recipe.outputs[goal.output].metrics(contracts[goal.output])
    return all(metric.of_term is None for metric in found if metric.name == goal.metric)


def default_passes(network: Network, rows: int) -> int:
    """Passes over the training rows when nobody says how many: SAMPLES_WANTED rows in all, within EPOCHS_RANGE; never
    more than the heads say, or else the encoders, if all of them do."""
    low, high = EPOCHS_RANGE
    heads = [network.head(name).passes for name in network.output_names]
    encoders = [network.encoder(name).passes for name in network.input_names]
    told = [passes for passes in heads if passes is not None]
    if not told and None not in encoders:
        told = [passes for passes in encoders if passes is not None]
    most = max(told, default=high)
    return min(most, max(low, round(SAMPLES_WANTED / rows)))


def _shares(steps: int, per_epoch: int, apart: int) -> dict[str, Any]:
    return {
        "eval_every": max(1, min(steps, max(per_epoch, apart, math.ceil(steps / MAX_EVALUATIONS)))),
        "warmup_steps": max(1, round(WARMUP_SHARE * steps)),
        "ema_decay": 1 - 1 / max(4.0, EMA_SHARE * steps),
    }


def _steps_in(budget_s: float, step_s: float, eval_s: float, per_epoch: int) -> int:
    """How many steps fit, with a validation every epoch but at most MAX_EVALUATIONS of them."""
    usable = budget_s * BUDGET_SHARE
    every_epoch = usable / (step_s + eval_s / per_epoch)
    capped = (usable - MAX_EVALUATIONS * eval_s) / step_s
    return max(1, int(max(every_epoch, capped)))


@dataclass(frozen=True)
class _Trial:
    precision: str
    threads: int
    step_s: float
    micro_batch: int


def _chosen(recipe: Recipe, network: Network, objective: Objective, first: Sequence[Batch], device: str) -> _Trial:
    """The fastest of the precisions and thread counts, and the largest micro-batch that fits.

    One thread often beats all of them on small networks, and by far where the cores are shared: a barrier waits for
    the thread that another process has put aside.
    """
    precisions = [recipe.train.precision] if recipe.train.precision != "auto" else ["bf16", "fp32"]
    if precisions == ["bf16", "fp32"] and not has_fast_bf16(device):
        precisions = ["fp32"]
    whole = torch.get_num_threads()
    counts = sorted({whole, max(1, whole // 2), 1}, reverse=True) if device == "cpu" else [whole]
    trials = []
    for threads in counts:
        torch.set_num_threads(threads)
        trials += [_tried(recipe, network, objective, first, device, precision) for precision in precisions]
    torch.set_num_threads(whole)
    fastest = min(trials, key=lambda trial: trial.step_s)
    plain = min((trial for trial in trials if trial.precision == precisions[-1]), key=lambda trial: trial.step_s)
    return plain if plain.step_s < MIN_GAIN * fastest.step_s else fastest


def has_fast_bf16(device: str) -> bool:
    """Whether bf16 is worth measuring on this device: on CPUs only with instructions for it."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported())
    if device != "cpu":
        return False
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _tried(
    recipe: Recipe, network: Network, objective: Objective, first: Sequence[Batch], device: str, precision: str
) -> _Trial:
    """A few steps on a copy. One that is not finite takes as long as one that is: training will name it."""
    trial, trial_objective = copy.deepcopy(network).to(device), copy.deepcopy(objective).to(device)
    trial.train()
    optimiser = Optimiser(trial, trial_objective, learning_rate=1e-6, weight_decay=0.0)
    largest = max(map(len, first))  # the first may be the short last one of its epoch
    micro = min(recipe.train.micro_batch or largest, largest)
    times: list[float] = []
    waiting = [first[0], *first]  # the first one warms up
    while waiting:
        batch = waiting[0].to(device)
        began = time.perf_counter()
        try:
            step(
                trial,
                trial_objective,
                optimiser,
                batch,
                rate=0.0,
                micro_batch=micro,
                precision=autocast(device, precision),
            )
        except NotFinite:
            pass
        except (MemoryError, RuntimeError) as failed:
            if not out_of_memory(failed) or micro == 1:
                raise
            if network.compares_rows:
                raise whole_batch_error(len(batch)) from failed
            micro = max(1, micro // 2)
            continue
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
        waiting.pop(0)
    return _Trial(precision, torch.get_num_threads(), sum(times[1:]) / len(times[1:]), micro)
