"""fit(): from a recipe to an evaluated model in a run folder. The loop is here, to be read and copied; one step of it
is `optimise.step`, what is decided before it is `plan.resolve`, what survives a kill is `checkpoint`.

Every step is a pure function of (weights, plan, step): the batch comes from (data, seed, step), dropout and
augmentation from (seed, step). So a resumed run repeats the killed one bit for bit.
"""

import contextlib
import dataclasses
import functools
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn

from endwise import checkpoint, heap, lineage, metrics
from endwise.baselines import Baseline, baselines
from endwise.batch import Batch
from endwise.checkpoint import State
from endwise.data.dataset import Dataset, fit_contracts, prepare
from endwise.data.loader import Loader
from endwise.data.manifest import manifest
from endwise.errors import EndwiseError, TrainingError, require
from endwise.evaluate import (
    ABLATION_ROWS,
    calibrate,
    can_be_left_out,
    cross_validate,
    evaluate,
    looked_at,
    rows_together,
)
from endwise.metrics import Metric
from endwise.modalities.base import Contract
from endwise.model import Model
from endwise.network import SHARED, Network
from endwise.nn.interface import Encoder
from endwise.objective import Objective, Priors, denominators, term_values
from endwise.optimise import (
    Average,
    NotFinite,
    Optimiser,
    StepResult,
    autocast,
    out_of_memory,
    schedule,
    step,
    that_pull,
)
from endwise.plan import (
    BUDGET_SHARE,
    PEAK_RATE,
    Plan,
    auto_batch_size,
    resolve,
    resolve_goal,
    whole_batch_error,
)
from endwise.plan import wanted_s as steps_s
from endwise.recipe import Recipe
from endwise.run import Run
from endwise.shelf import Shelf
from endwise.transfer import Beginning, Origin
from endwise.watch import Alarm, Meaning, Watch
from endwise.weighting import WEIGHTINGS

CALIBRATION_BATCHES = 3
SMALL_TABLE, SMALL_TABLE_FOLDS = 500, 5
NORMS_EVERY = 50  # steps between two measurements of each term's gradient at the tokens, if nothing needs more
CHECKPOINT_EVERY_S = 60.0
MAX_ROLLBACKS = 3
ROLLBACK_RATE = 0.5  # the learning rate after a rollback, as a share of the one before
BUDGET_TOLERANCE = 0.05
REPLAN_CHECKS = 20  # times a run under a budget compares its plan with the clock
FEWEST_STEPS = 10  # fewer say nothing about the network, and a budget that leaves no more is told
MEANING_ROWS = 500  # validation rows that show whether an answer on the way means what it is called
EVALUATION_SHARE = 0.3  # of a budget, kept at most for the evaluation
FINAL_SHARE = 0.06  # of a budget kept for calibration and the report, beside the measured time of the evaluation
MIX = 0x9E3779B97F4A7C15  # Weyl constant: seeds of neighbouring steps share no bits pattern

Progress = Callable[[Mapping[str, Any]], None]


class Stopped(EndwiseError):
    """Training was asked to stop: everything is saved, and the message says how to go on."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class _Signals:
    """SIGINT and SIGTERM ask for a stop after the current step, or at once where there is none; so does a second one."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.stepping = False  # in the loop a stop waits for the step's end, elsewhere it need not
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "_Signals":
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._note)
        except ValueError:  # not the main thread: signals are the caller's business there
            pass
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.received is not None:
            raise SystemExit(128 + number)
        self.received = number
        if not self.stepping:
            raise Stopped(
                f"stopped by {signal.Signals(number).name} outside the training steps; --resume goes on from there",
                128 + number,
            )


class _Clock:
    """Seconds between moments, by what they went into."""

    def __init__(self, began: float) -> None:
        self.last, self.laps = began, dict[str, float]()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name], self.last = now - self.last, now


@dataclass
class _Progressed:
    """What changes from step to step, beside weights and moments; saved in every checkpoint."""

    step: int = 0
    rate: float = 1.0  # of the schedule; halved by each rollback
    rollbacks: int = 0
    spent_s: float = 0.0  # in the loop
    validated_s: float = 0.0  # of it in validations
    before_s: dict[str, float] = field(
        default_factory=dict
    )  # before it, by what it went into; every resume adds its own
    goal: float | None = None  # best validation result so far
    goal_step: int = 0
    stale: int = 0  # evaluations since
    micro_batch: int = 0
    best: dict[str, torch.Tensor] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name != "best"}


@heap.kept()
def fit(
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    dataset: Dataset | None = None,
    score: bool | None = None,
    beginning: Beginning | None = None,
    began: float | None = None,
) -> Model:
    """Train the recipe's one network and evaluate it; the run folder is `model.run`.

    out: the run folder (default `runs/<recipe name>`); an existing one is refused unless `resume`, which goes on from
    its last whole checkpoint and refuses a changed recipe or changed data (which may lie elsewhere by now). progress: called with each event that goes
    to the log. dataset: rows prepared from this recipe's data, on the sides they are on (a subset of the labels, see
    `Dataset.with_sides`), instead of all of them. score: whether the model is evaluated and held against baselines in the
    end; default: unless a dataset is given, whose rows to score are the caller's. beginning: the weights and contracts it
    begins with, in the place of `recipe.from_run`. began: since when the budget has been running (`time.monotonic`). Raises
    Stopped (exit code 130 or 143) after SIGINT or SIGTERM, with everything saved.
    """
    began = time.monotonic() if began is None else began
    run = Run.create(recipe, out=out, resume=resume)
    with run.locked(), _Signals() as signals, _own_threads():
        say = _speaker(run, progress)
        origin = beginning or Origin.of(recipe)  # what cannot be begun with is refused before anything is read
        scores = dataset is None if score is None else score
        dataset = _read(recipe, progress) if dataset is None else dataset
        if begun := run.has("plan.json"):  # a training that has begun goes on with the rows it began with
            run.same_data(dataset.fingerprint)
        contracts = _contracts(recipe, dataset, origin)
        made_of = manifest(recipe, dataset, lambda what, done, of: _tell(progress, what, done, of))
        run.write("data.json", {**_data_facts(recipe, dataset, contracts), "files": made_of.summary()})
        traced, notes = lineage.write_down(run.path, made_of.files, _accelerator(), begun=begun)
        for line in notes:
            say({"event": "note", "message": line})
        model = Model.build(recipe, contracts, seed=recipe.train.seed)
        model.run = run
        model.info.update({**_info(recipe, dataset, contracts), lineage.ENTRY: traced})
        started = origin.begin(model, run) if origin is not None else []
        for line in [*started, *run.data_lies(recipe)]:
            say({"event": "note", "message": line})
        trainer = _Trainer(run, recipe, dataset, model, signals, say, progress, began, scores=scores)
        if not trainer.finished:
            trainer.train()
        _tell(progress, "evaluating")
        trainer.finish()
    return model


@heap.kept()
def dry_run(recipe: Recipe, *, progress: Progress | None = None) -> tuple[Plan, dict[str, Any]]:
    """What `fit` would do, without doing it: the plan (with the measured time of a step) and the facts of the data.
    Reads the data into the store and trains nothing."""
    began = time.monotonic()
    origin = Origin.of(recipe)
    dataset = _read(recipe, progress)
    contracts = _contracts(recipe, dataset, origin)
    model = Model.build(recipe, contracts, seed=recipe.train.seed)
    _tell(progress, "measuring a step")
    if origin is not None:
        origin.fill(model)
    loader = training_loader(recipe, dataset, model)
    objective, _ = _objective(recipe, model, loader)
    plan = _resolved(recipe, dataset, model, loader, objective, time.monotonic() - began)
    return plan, _data_facts(recipe, dataset, contracts)


def fit_folds(recipe: Recipe, run: Run, *, k: int | None = None, progress: Progress | None = None) -> bool:
    """k more trainings, each row held out once, into `run`/folds and folds.json; whether there were any.

    k: None means 5 for a table of under 500 rows that we split ourselves (one split of so few rows says little) when
    there is no time budget, and none otherwise; 0 means none.
    """
    if k is None:
        rows = sum(run.read("data.json")["rows"].values())
        ours = recipe.data.path is not None and not any((recipe.data.time, recipe.data.split, recipe.data.windows))
        official = "official" in run.read("data.json")["split"]
        k = SMALL_TABLE_FOLDS if rows < SMALL_TABLE and ours and not official and recipe.train.budget is None else 0
    if k == 0:
        return False

    def fit_fold(fold: Recipe) -> Model:
        return fit(fold, out=run.path / "folds" / str(fold.name), resume=True, progress=progress)

    run.write("folds.json", cross_validate(recipe, fit_fold, k).to_dict())
    return True


def wanted_s(recipe: Recipe, dataset: Dataset, contracts: Mapping[str, Any]) -> float:
    """About how many seconds of steps a training of these rows would have without a budget."""
    model = Model.build(recipe, contracts, seed=recipe.train.seed)
    loader = training_loader(recipe, dataset, model)
    objective, _ = _objective(recipe, model, loader)
    return steps_s(
        recipe, network=model.network, objective=objective, first=loader.batch(0), rows=len(dataset.splits.train),
        batch_size=loader.batch_size,
    )  # fmt: skip


def training_loader(recipe: Recipe, dataset: Dataset, model: Model) -> Loader:
    """The shuffled batches of the training rows."""
    rows, wanted = dataset.splits.train, recipe.train.batch_size
    batch_size = (
        min(wanted, len(rows))
        if wanted != "auto"
        else auto_batch_size(
            len(rows),
            compares_rows=model.network.compares_rows,
            symbols=model.network.symbols,
        )
    )
    return Loader(dataset, recipe, model.contracts, rows, batch_size=batch_size, seed=recipe.train.seed, shuffle=True)


class _Trainer:
    """One training: its loader, objective, optimiser, average and counters. `train()` loops, `finish()` evaluates."""

    def __init__(
        self,
        run: Run,
        recipe: Recipe,
        dataset: Dataset,
        model: Model,
        signals: _Signals,
        say: Progress,
        progress: Progress | None,
        began: float,
        *,
        scores: bool,
    ) -> None:
        self.run, self.recipe, self.dataset, self.model = run, recipe, dataset, model
        self.signals, self.say, self.began = signals, say, began
        clock = _Clock(began)
        clock.lap("reading")
        self.loader = training_loader(recipe, dataset, model)
        self.scored = "test" if len(dataset.splits.test) else "val"
        scored = dataset.splits.side(self.scored)
        self.scored_rows = scored if scores else scored[:0]
        # before the plan: what it costs comes out of a budget, and what is to be beaten is known early
        self.baselines = _baselines(recipe, dataset, model, self.scored_rows, progress)
        clock.lap("baselines")
        _tell(progress, "measuring a step")
        self.objective, told = _objective(recipe, model, self.loader)
        saved, notes = checkpoint.latest(run.checkpoints)
        for note in [*notes, *(told if saved is None else ())]:
            say({"event": "note", "message": note})
        self.plan = (
            Plan.from_dict(run.read("plan.json"))
            if run.has("plan.json")
            else _resolved(recipe, dataset, model, self.loader, self.objective, time.monotonic() - began)
        )
        torch.set_num_threads(self.plan.threads)
        self.device = self.plan.device
        model.network.to(self.device)
        self.objective.to(self.device)
        for module in model.network.modules():
            if isinstance(module, Encoder):
                module.recall(len(dataset.splits.train))
        self.optimiser = Optimiser(
            model.network,
            self.objective,
            learning_rate=self.plan.learning_rate,
            weight_decay=self.plan.weight_decay,
            default_rate=PEAK_RATE,
            batch_size=self.plan.batch_size,
        )
        self.average = Average(model.network, self.plan.ema_decay if recipe.train.ema else 0.0)
        self.at = _Progressed(micro_batch=self.plan.micro_batch)
        self.batches: Iterator[Batch] = iter(())
        self.saved_at = time.monotonic()
        if saved is not None:
            self._restore(saved)
            say({"event": "resumed", "step": self.at.step})
        elif not run.has("plan.json"):
            run.write("plan.json", self.plan.to_dict())
        rows, goal = _spread(dataset.splits.val, self.plan.eval_rows), self.plan.goal
        if len(rows) < len(dataset.splits.val) and saved is None:
            part = f"{len(rows):,} of {len(dataset.splits.val):,} validation rows"
            say(
                {
                    "event": "note",
                    "message": f"validations while training write the answers of {part}, without a search",
                }
            )
        self.sign = 1 if goal["direction"] == "max" else -1
        self.validation = (
            _Validation(model, dataset, rows, _goal_metrics(model, goal), batch_size=self.plan.batch_size)
            if len(rows)
            else None
        )
        self.meanings, kept = _meanings(model, dataset)
        means = None if self.validation is None else (goal["output"], functools.partial(_meant, self.validation, goal))
        self.watch = Watch(*_watched(recipe, model.network, self.objective.weights()), kept, means)
        for event in run.events() if saved is not None else ():
            self.watch.see(event)
        clock.lap("measuring a step")
        self.at.before_s = {name: self.at.before_s.get(name, 0.0) + value for name, value in clock.laps.items()}
        if self._few(self.plan.steps) and saved is None:
            steps = "1 step" if self.plan.steps == 1 else f"{self.plan.steps} steps"
            self.say({"event": "note", "message": f"{self._used_up()}: they leave time for {steps}. {self._enough()}"})

    @property
    def finished(self) -> bool:
        """All planned steps are done, or no more are wanted: parts that were trained apart stay as they are."""
        return self.at.step >= self.plan.steps or self.stopped_early or self.recipe.is_assembled

    @property
    def stopped_early(self) -> bool:
        """So many evaluations without progress that the recipe wants no more steps."""
        return self.plan.patience is not None and self.at.stale >= self.plan.patience

    # ---- the loop -----------------------------------------------------------------------------------------------

    def train(self) -> None:
        """The loop: batch, step, average; now and then a validation, a checkpoint, a look at the clock."""
        self._save()  # step 0 is a state to come back to
        network = self.model.network
        entered, spent = time.monotonic(), self.at.spent_s
        if self.at.step == 0:
            self._look_at_meanings(0)
        self.batches = self.loader.iterate(self.at.step, self.plan.steps)
        self.signals.stepping = True
        while not self.finished:
            if self.signals.received is not None:
                self._stop()
            asked = time.perf_counter()
            batch = next(self.batches).to(self.device)
            read_s = time.perf_counter() - asked
            if not network.training:  # after a validation
                network.train()
            _seed(self.device, mixed_seed(self.plan.seed, self.at.step))
            try:
                result = self._step(batch)
            except NotFinite as wrong:
                self._roll_back(wrong, batch)
                continue
            self.at.step += 1
            self.average.update(network, self.at.step)
            self.at.spent_s = spent + time.monotonic() - entered
            self._log(result, len(batch), read_s, time.perf_counter() - asked - read_s)
            if self.at.step % self.plan.eval_every == 0 or self.finished:
                self._evaluate()
                self.at.spent_s = spent + time.monotonic() - entered
                if self.stopped_early:
                    message = f"no progress in {self.at.stale} evaluations: stopped early"
                    self.say({"event": "note", "step": self.at.step, "message": message})
            self._keep_to_budget()
            if time.monotonic() - self.saved_at > CHECKPOINT_EVERY_S:
                self._save()
        if self.signals.received is not None:  # in the last step, or in the evaluation after it
            self._stop()
        self._save()
        self.signals.stepping = False

    def _step(self, batch: Batch) -> StepResult:
        """One update; out of memory halves the micro-batch, the effective batch stays."""
        while True:
            try:
                return step(
                    self.model.network,
                    self.objective,
                    self.optimiser,
                    batch,
                    rate=self.at.rate * schedule(self.at.step, steps=self.plan.steps, warmup=self.plan.warmup_steps),
                    done=self.at.step / self.plan.steps,
                    micro_batch=self.at.micro_batch,
                    precision=autocast(self.device, self.plan.precision),
                    measured=self.at.step % (self.objective.weighting.norms_every or NORMS_EVERY) == 0,
                )
            except (MemoryError, RuntimeError) as failed:
                if not out_of_memory(failed):
                    raise
                if self.model.network.compares_rows:
                    raise whole_batch_error(len(batch)) from failed
                if self.at.micro_batch == 1:
                    raise TrainingError(
                        f"step {self.at.step} does not fit into memory even with one row at a time. "
                        "Fix: a smaller train.size, smaller inputs, or a machine with more memory."
                    ) from failed
                self.at.micro_batch = max(1, self.at.micro_batch // 2)
                self.say(
                    {
                        "event": "oom",
                        "step": self.at.step,
                        "micro_batch": self.at.micro_batch,
                        "message": f"out of memory: micro-batch halved to {self.at.micro_batch}, effective batch unchanged",
                    }
                )
                self.optimiser.adamw.zero_grad(set_to_none=True)
                if self.device.startswith("cuda"):
                    torch.cuda.empty_cache()
                _seed(self.device, mixed_seed(self.plan.seed, self.at.step))

    def _roll_back(self, wrong: NotFinite, batch: Batch) -> None:
        """Back to the last checkpoint with half the learning rate; the third time in vain, stop and say where."""
        at, rollbacks, before_s, rate, failed = (
            self.at.step,
            self.at.rollbacks + 1,
            self.at.before_s,
            self.at.rate * ROLLBACK_RATE,
            batch.row_ids.tolist(),
        )
        if rollbacks > MAX_ROLLBACKS:
            layer = _first_bad_layer(self.model.network, batch)
            rows = ", ".join(self.dataset.origin(row) for row in failed[:5])
            raise TrainingError(
                f"training diverged at step {at}: {wrong.what} is not finite after {MAX_ROLLBACKS} rollbacks; first bad layer: "
                f"{layer}; rows of the batch: {rows}{' …' if len(failed) > 5 else ''}. "
                "Fix: look at those rows, or lower train.learning_rate, or write precision: fp32."
            )
        saved, notes = checkpoint.latest(self.run.checkpoints)
        for note in notes:
            self.say({"event": "note", "message": note})
        if saved is None:
            raise TrainingError(
                f"training diverged at step {at} and no checkpoint is whole. Fix: train again into another --out."
            )
        self._restore(saved)
        self.at.rollbacks, self.at.rate, self.at.before_s = rollbacks, rate, before_s
        self.say(
            {
                "event": "rollback",
                "step": at,
                "to_step": self.at.step,
                "rate": rate,
                "message": f"{wrong.what} was not finite at step {at}: back to step {self.at.step} with the learning rate x {rate:g}",
            }
        )
        self.batches = self.loader.iterate(self.at.step, self.plan.steps)

    def _evaluate(self) -> None:
        """Validation rows through the averaged weights; the best state by the goal is kept."""
        if self.validation is None:
            return
        began, step_s = time.monotonic(), self._step_s()
        with self.average.applied(self.model.network):
            found = self.validation.measure()
        heap.trim()
        took = time.monotonic() - began
        self.at.validated_s += took
        if self.recipe.train.budget is not None:  # what writes its answers takes far longer than a step tells
            self.plan = dataclasses.replace(self.plan, eval_s=took, step_s=step_s).going_on(self.plan.steps)
        value = found[self.plan.goal["output"]][self.plan.goal["metric"]]
        self._tell({"event": "eval", "step": self.at.step, "time_s": self.at.spent_s, "val": found, "goal": value})
        better = self.at.goal is None or (value is not None and (value - self.at.goal) * self.sign >= 0)
        if better and value is not None:
            improved = self.at.goal is None or value != self.at.goal
            self.at.goal, self.at.goal_step = value, self.at.step
            self.at.stale = 0 if improved else self.at.stale + 1
            self.at.best = {name: tensor.clone() for name, tensor in self.average.tensors.items()}
        else:
            self.at.stale += 1

    def _keep_to_budget(self) -> None:
        """Shorten or lengthen what is left when the clock disagrees with the plan (a logged event: bit-equality with
        other runs of the plan ends here)."""
        budget, plan = self.recipe.train.budget, self.plan
        every = max(1, plan.steps // REPLAN_CHECKS)
        if budget is None or self.at.step % every or self.at.step < every or self.finished:
            return
        elapsed = self.at.spent_s + sum(self.at.before_s.values())
        per_step = self._step_s() + plan.eval_s / plan.eval_every
        usable = budget * (1 - FINAL_SHARE) - _evaluation_s(self.plan, self.recipe) - elapsed
        projected = (plan.steps - self.at.step) * per_step
        if projected > usable + BUDGET_TOLERANCE * budget or (
            plan.steps < plan.most_steps and projected < usable - BUDGET_TOLERANCE * budget
        ):
            steps = min(plan.most_steps, self.at.step + max(1, int(usable / per_step)))
            self.plan = plan.going_on(steps)
            self.run.write("plan.json", self.plan.to_dict())
            self.say(
                {
                    "event": "replan",
                    "step": self.at.step,
                    "steps": steps,
                    "message": f"the clock disagrees with the plan: {steps} steps instead of {plan.steps} fit the budget",
                }
            )
            self.batches = self.loader.iterate(self.at.step, steps)

    def _step_s(self) -> float:
        """Seconds a step, without the validations between them."""
        return (self.at.spent_s - self.at.validated_s) / self.at.step

    # ---- the end ------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Best averaged weights, thresholds from validation rows, the model saved, the test rows scored."""
        model, dataset = self.model, self.dataset
        model.network.load_learnt(self.at.best or self.average.tensors)
        model.network.eval()
        if self.at.step:
            self._look_at_meanings(self.at.goal_step or self.at.step, final=True)
            self._alarm(self.watch.end())
        calibrated = calibrate(model, dataset, dataset.splits.val) if len(dataset.splits.val) else {}
        model.info["trained"] = {
            "steps": self.at.step,
            "best_step": self.at.goal_step or self.at.step,
            "seconds": round(self.at.spent_s, 1),
            "calibrated": calibrated,
        }
        model.save(self.run.model_folder)
        rows = self.scored_rows
        if len(rows):
            result = evaluate(model, dataset, rows, baselines=self.baselines, kept=self.run.path)
            if self._few(self.at.step):
                steps = "1 step was" if self.at.step == 1 else f"{self.at.step} steps were"
                told = f"{self._used_up()}: only {steps} trained. {self._enough()}"
                result = dataclasses.replace(result, notes=(told, *result.notes))
            alarms = [alarm.to_dict() for alarm in self.watch.alarms]
            self.run.write("metrics.json", {"split": self.scored, **result.to_dict(), "alarms": alarms})
            self.run.write("details.json", result.details)
        self.say({"event": "done", "step": self.at.step, "time_s": time.monotonic() - self.began, "split": self.scored})

    def _stop(self) -> None:
        """Asked to stop: checkpoint, a usable model, and how to go on."""
        number = self.signals.received or signal.SIGINT
        self._save()
        with self.average.applied(self.model.network):
            self.model.save(self.run.model_folder)
        self.say({"event": "interrupted", "step": self.at.step, "signal": signal.Signals(number).name})
        raise Stopped(
            f"stopped at step {self.at.step} of {self.plan.steps}; the model so far is in {self.run.model_folder}. "
            f"Go on with: endwise train {self.run.path}/recipe.yaml --out {self.run.path} --resume",
            128 + number,
        )

    # ---- state --------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        tensors = {
            "network": self.model.network.learnt(),
            "objective": dict(self.objective.state_dict()),
            "optimiser": dict(self.optimiser.state()),
            "average": self.average.tensors,
            "best": self.at.best,
        }
        checkpoint.save(self.run.checkpoints, State(tensors, self.at.facts()))
        self.saved_at = time.monotonic()

    def _restore(self, saved: State) -> None:
        self.model.network.load_learnt(saved.tensors["network"])
        self.objective.load_state_dict(saved.tensors["objective"])
        self.optimiser.adamw.state.clear()
        self.optimiser.load(saved.tensors.get("optimiser", {}))
        self.average.tensors = {name: value.to(self.device) for name, value in saved.tensors["average"].items()}
        self.at = _Progressed(
            **saved.facts, best={name: value.to(self.device) for name, value in saved.tensors.get("best", {}).items()}
        )

    # ---- small things -------------------------------------------------------------------------------------------

    def _tell(self, event: Mapping[str, Any]) -> None:
        """An event for the log, and what is wrong if it shows that."""
        self.say(event)
        self._alarm(self.watch.see(event))

    def _alarm(self, alarms: Sequence[Alarm]) -> None:
        for alarm in alarms:
            self.say({"event": "alarm", **alarm.to_dict()})

    def _look_at_meanings(self, step: int, *, final: bool = False) -> None:
        """Whether the answers on the way mean what they are called, by the weights that the network holds now."""
        if self.meanings is not None:
            self._tell({"event": "meaning", "step": step, "final": final, "val": self.meanings.measure()})

    def _few(self, steps: int) -> bool:
        """Whether a budget, and not the recipe, is why there are so few steps."""
        return self.recipe.train.budget is not None and steps < min(FEWEST_STEPS, self.plan.most_steps)

    def _used_up(self) -> str:
        spent = [f"{name} ({seconds:.1f} s)" for name, seconds in self.at.before_s.items()]
        return f"the budget of {self.recipe.train.budget:g} s was used by {', '.join(spent[:-1])} and {spent[-1]}"

    def _enough(self) -> str:
        """A budget for one pass over the rows, if all that came before takes as long again."""
        plan = self.plan
        steps = min(plan.most_steps, max(FEWEST_STEPS, plan.steps_per_epoch))
        seconds = sum(self.at.before_s.values()) + plan.with_steps(steps).seconds + _evaluation_s(plan, self.recipe)
        return (
            f"Fix: raise --budget to at least {math.ceil(seconds / (1 - FINAL_SHARE) / BUDGET_SHARE)}s; what was read is "
            "kept, so that another run begins sooner."
        )

    def _log(self, result: StepResult, rows: int, read_s: float, compute_s: float) -> None:
        terms: dict[str, Any] = {
            name: {"value": value, "weight": result.weights[name]} for name, value in result.terms.items()
        }
        pulls, measured = result.pulls or {}, dict[str, Any]()
        if SHARED in pulls:
            for name, norm in pulls[SHARED].norms.items():
                terms[name]["grad_norm"] = norm
            measured = {"cosines": pulls[SHARED].cosines} if pulls[SHARED].cosines else {}
        elif pulls:
            measured = {"stages": {place: dataclasses.asdict(pull) for place, pull in pulls.items()}}
        if result.parts is not None:
            measured |= {"parts": result.parts, "layers": result.layers}
        self._tell(
            {
                "event": "step",
                "step": self.at.step,
                "steps": self.plan.steps,
                "time_s": round(self.at.spent_s, 4),
                "loss": result.loss,
                "grad_norm": result.grad_norm,
                "lr": self.optimiser.rate,
                "terms": terms,
                **measured,
                "samples_per_s": rows / max(1e-9, read_s + compute_s),
                "read_s": read_s,
                "compute_s": compute_s,
            }
        )


class _Validation:
    """Rows through the model, scored by some of each output's metrics."""

    def __init__(
        self,
        model: Model,
        dataset: Dataset,
        rows: np.ndarray,
        metrics: Mapping[str, Sequence[Metric]],
        *,
        batch_size: int,
    ) -> None:
        recipe = model.recipe
        self.model, self.metrics = model, metrics
        size = rows_together(model, dataset, rows, max(batch_size, 64))
        self.loader = Loader(dataset, recipe, model.contracts, rows, batch_size=size, seed=0, shuffle=False)
        self.truths: dict[str, list[Any]] = {}
        self.kept: dict[str, np.ndarray] = {}
        self.weights = None if recipe.data.weight is None else dataset.weight[rows]  # as the final evaluation counts
        for name in metrics:
            output, store = recipe.outputs[name], dataset.fields[name]
            self.kept[name] = np.array([bool(store.present[row]) for row in rows])
            self.truths[name] = [output.truth(store[row], model.contracts[name]) for row in rows if store.present[row]]

    def measure(self) -> dict[str, dict[str, float | None]]:
        """{output: {metric: value}}; a metric that the rows do not define is null."""
        seen: dict[str, dict[str, list[Any]]] = {
            name: {metric.name: [] for metric in found} for name, found in self.metrics.items()
        }
        shelf = Shelf()
        for batch in self.loader.iterate(0, self.loader.batches_per_epoch):
            for name, (written, terms) in looked_at(self.model, batch, self.metrics, draft=True).items():
                answers = [shelf.put(one) for one in written]
                for metric in self.metrics[name]:
                    seen[name][metric.name].extend(metric.looks_at(answers, terms))
        values: dict[str, dict[str, float | None]] = {}
        for name, found in self.metrics.items():
            values[name] = {}
            for metric in found:
                there = [item for item, kept in zip(seen[name][metric.name], self.kept[name], strict=True) if kept]
                values[name][metric.name] = self._value(name, metric, there)
        return values

    def constant(self, output: str, metric: Metric) -> float | None:
        """What the best constant answer reaches."""
        truths = self.truths[output]
        if not truths:
            return None
        answer = self.model.recipe.standing(output).trivial(truths, self.model.contracts[output])
        return self._value(output, metric, [answer] * len(truths))

    def _value(self, output: str, metric: Metric, there: Sequence[Any]) -> float | None:
        weights = None if self.weights is None else self.weights[self.kept[output]]
        value = metrics.value(metric, self.truths[output], there, weights=weights)
        return value if math.isfinite(value) else None


def _goal_metrics(model: Model, goal: Mapping[str, str]) -> dict[str, list[Metric]]:
    """What every evaluation looks at. An output that has metrics of its loss terms is validated by these alone unless the
    goal needs its answers: every evaluation would otherwise write texts that nobody waits for."""
    return {
        name: _validated(output.metrics(model.contracts[name]), goal["metric"] if name == goal["output"] else None)
        for name, output in model.recipe.outputs.items()
    }


def _meanings(model: Model, dataset: Dataset) -> tuple[_Validation | None, dict[str, Meaning]]:
    """The answers on the way by a metric of the answer itself, on some validation rows, beside the best constant answer; of
    a training in which they could lose their meaning."""
    recipe, rows = model.recipe, dataset.splits.val[:MEANING_ROWS]
    if not len(rows) or recipe.is_assembled:
        return None, {}
    answered = {
        name: [metric for metric in recipe.outputs[name].metrics(model.contracts[name]) if metric.of_term is None][:1]
        for name in recipe.intermediates
    }
    looking = _Validation(model, dataset, rows, {k: v for k, v in answered.items() if v}, batch_size=len(rows))
    found = {}
    for name, (metric,) in looking.metrics.items():
        constant = looking.constant(name, metric)
        if constant is not None:
            found[name] = Meaning(metric.name, metric.direction, constant, len(looking.truths[name]))
    return looking if found else None, found


def _meant(validation: _Validation, goal: Mapping[str, str]) -> Meaning | None:
    """How it is seen that the goal was learnt: against the best constant answer to the same rows, where it can be scored."""
    output = goal["output"]
    for metric in validation.metrics[output]:
        if metric.name == goal["metric"] and metric.of_term is None:
            constant = validation.constant(output, metric)
            rows = len(validation.truths[output])
            return None if constant is None else Meaning(metric.name, metric.direction, constant, rows)
    return None


def _watched(
    recipe: Recipe, network: Network, terms: Iterable[str]
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The groups of parts that something must teach, and each group's own terms: stages, or where there are none inputs."""
    parts, named = network.parts(), list(terms)
    if not recipe.stages:
        return {name: [name] for name in parts if name.startswith("inputs.")}, {}
    groups = {stage: [name for name in parts if name.partition(".")[0] == stage] for stage in recipe.stages}
    own = {
        stage: [term for term in named if term.rpartition(".")[0] in item.to] for stage, item in recipe.stages.items()
    }
    return groups, own


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    """So many of the rows, as far apart as they can be; all of them if there are no more."""
    return rows if len(rows) <= count else rows[np.linspace(0, len(rows) - 1, count).round().astype(int)]


def _validated(found: Sequence[Metric], goal: str | None) -> list[Metric]:
    """Which metrics of an output are worth their time in every evaluation. goal: the name of the one that decides."""
    cheap = [metric for metric in found if metric.of_term is not None]
    decided = any(metric.name == goal and metric.of_term is None for metric in found)
    return list(found) if decided or not cheap else cheap


def _read(recipe: Recipe, progress: Progress | None) -> Dataset:
    _tell(progress, "opening the data")
    dataset = prepare(recipe, progress=lambda what, done, total: _tell(progress, f"reading {what}", done, total))
    if progress is not None:
        for note in dataset.notes:  # such as rows put aside; the report has them beside the data
            progress({"event": "note", "message": note})
    _tell(progress, "looking at the training rows")
    return dataset


def _contracts(recipe: Recipe, dataset: Dataset, origin: Beginning | None) -> dict[str, Contract]:
    """What there is to know before the network is made: from the training rows, and from the run that is begun with."""
    fitted = fit_contracts(recipe, dataset)
    return fitted if origin is None else origin.contracts(recipe, fitted)


def _baselines(
    recipe: Recipe, dataset: Dataset, model: Model, rows: np.ndarray, progress: Progress | None
) -> Mapping[str, Baseline]:
    """The trivial and classical answers that the network is held against."""
    if not len(rows):
        return {}
    _tell(progress, "fitting the baselines")
    return baselines(model.contracts, recipe, dataset, dataset.splits.train, rows)


def _resolved(
    recipe: Recipe, dataset: Dataset, model: Model, loader: Loader, objective: Objective, used_s: float
) -> Plan:
    """The plan; under a budget, what has been used and the evaluation of the test rows come out of it."""
    budget, splits = recipe.train.budget, dataset.splits
    plan = resolve(
        recipe,
        network=model.network,
        objective=objective,
        contracts=model.contracts,
        first=[loader.batch(index) for index in range(min(CALIBRATION_BATCHES, loader.batches_per_epoch))],
        rows={"train": len(splits.train), "val": len(splits.val), "test": len(splits.test)},
        batch_size=loader.batch_size,
        budget_s=None if budget is None else max(1.0, budget * (1 - FINAL_SHARE) - used_s),
    )
    excess = plan.seconds + _evaluation_s(plan, recipe) + used_s - (budget or math.inf)
    return plan.with_steps(max(1, plan.steps - math.ceil(excess / plan.step_s))) if excess > 0 else plan


def _evaluation_s(plan: Plan, recipe: Recipe) -> float:
    """Predicting the test rows, twice: once for the answers, once for what is drawn from them; and again with all inputs
    and without each, where an input can be left out. No more than EVALUATION_SHARE of a budget: a network that has not learnt
    to end its texts takes far longer than it will."""
    rows = plan.rows["test"] or plan.rows["val"]
    left_out = min(rows, ABLATION_ROWS) * (1 + len(recipe.inputs)) if can_be_left_out(recipe) else 0
    return min(plan.scoring_s(2 * rows + left_out), EVALUATION_SHARE * (recipe.train.budget or math.inf))


@contextlib.contextmanager
def _own_threads() -> Iterator[None]:
    """The plan's thread count rules this training alone: the caller's is back afterwards."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _objective(recipe: Recipe, model: Model, loader: Loader) -> tuple[Objective, list[str]]:
    """What is made small, with its terms' scales from the untrained network: all outputs' terms, or the goal's alone.
    And what is to be said about it: an option that says nothing here is told."""
    first, weighting = _first_terms(model, loader), recipe.objective.weighting
    fixed: dict[str, float] = {}
    if recipe.stages and recipe.regime == "joint_goal_only":
        goal = resolve_goal(recipe, model.contracts).output
        fixed = {term: 0.0 for term in first if term.rpartition(".")[0] != goal}
    if WEIGHTINGS[weighting].norms_every is not None and not recipe.is_assembled:
        pulling = that_pull(model.network, loader.batch(0).to(model.device))
        own = {term: recipe.outputs[term.rpartition(".")[0]].loss_weight for term in first}
        fixed = {**{term: own[term] for term in first if term not in pulling}, **fixed}
    notes = [
        f"objective.weighting: {weighting} has no say in the weight of {term} ({value:g}): it does not pull at the shared tokens"
        for term, value in fixed.items()
        if value > 0
    ]
    if len(first) - len(fixed) < 2 and weighting not in ("fixed", "pcgrad"):
        require(
            bool(recipe.stages),
            field="objective.weighting",
            got=weighting,
            allowed=f"a weighting that does not measure at the shared tokens, where {', '.join(fixed)} does not pull",
            fix="write weighting: fixed, uncertainty, dwa or pcgrad",
        )
        notes = [f"objective.weighting: {weighting} has nothing to weigh in the regime {recipe.regime}"]
        weighting = "fixed"
    known = Priors(recipe.objective.priors, recipe.inputs, recipe.outputs, model.contracts)
    made = Objective(
        recipe.outputs,
        first,
        weighting,
        epoch_steps=loader.batches_per_epoch,
        priors=known if known.priors else None,
        fixed=fixed,
    )
    if made.priors is not None and not recipe.is_assembled:
        made.priors.tried(model.network, loader.batch(0).to(model.device))
    return made, notes


def _first_terms(model: Model, loader: Loader) -> dict[str, float]:
    """Every head's named terms before any step, each on the first batch that has a target for it: where labels are
    rare the very first may have none, and a loss of zero is no scale."""
    network, found = model.network, dict[str, float]()
    network.eval()
    for index in sorted({_first_labelled(loader, name) for name in network.output_names}):
        batch = loader.batch(index).to(model.device)
        with torch.no_grad():
            values = term_values(network, network(batch.inputs, batch.present), batch, denominators(network, batch))
        found |= {name: float(value) for name, value in values.items() if not found.get(name)}
    return found


def _first_labelled(loader: Loader, output: str) -> int:
    """The first batch with a row that counts for this output."""
    counts = loader.dataset.fields[output].present & (loader.dataset.weight > 0)
    return next((index for index in range(loader.batches_per_epoch) if counts[loader.batch_rows(index)].any()), 0)


def mixed_seed(seed: int, step: int) -> int:
    """One 63-bit seed for each (seed, step): dropout and augmentation of a step depend on nothing else."""
    value = (seed * MIX + (step + 1) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    value ^= value >> 31
    return value & (2**63 - 1)


def _seed(device: str, seed: int) -> None:
    """Seed what this device draws from; torch.manual_seed asks every kind of accelerator, which takes as long as a
    layer of a small network."""
    if device == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def _first_bad_layer(network: nn.Module, batch: Batch) -> str:
    """The first module whose output is not finite on this batch, in the order of the forward pass."""
    found: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and not found and not bool(torch.isfinite(output).all()):
                found.append(name)

        return hook

    handles = [part.register_forward_hook(watch(name)) for name, part in network.named_modules() if name]
    try:
        with torch.no_grad():
            network(batch.inputs, batch.present)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "none in the forward pass (a loss or a gradient overflowed)"


def _speaker(run: Run, progress: Progress | None) -> Progress:
    """Every event goes to the log and to whoever listens."""

    def say(event: Mapping[str, Any]) -> None:
        run.log(event)
        if progress is not None:
            progress(event)

    return say


def _tell(progress: Progress | None, what: str, done: int = 0, total: int = 1) -> None:
    if progress is not None:
        progress({"event": "prepare", "what": what, "done": done, "total": total})


def _data_facts(recipe: Recipe, dataset: Dataset, contracts: Mapping[str, Any]) -> dict[str, Any]:
    """What the report and people want to know about the data, in JSON."""
    fields = {**recipe.inputs, **recipe.outputs}
    return {
        "fingerprint": dataset.fingerprint,
        "rows": {name: len(getattr(dataset.splits, name)) for name in ("train", "val", "test")},
        "split": dataset.splits.how,
        "fields": {
            name: {
                "role": "input" if name in recipe.inputs else "output",
                "type": item.type,
                "summary": item.summary(contracts[name]),
                "missing": contracts[name].missing,
            }
            for name, item in fields.items()
        },
        "bad": [dataclasses.asdict(row) for row in dataset.bad[:100]],
        "bad_count": len(dataset.bad),
        "notes": list(dataset.notes),
    }


def _accelerator() -> str:
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"


def _info(recipe: Recipe, dataset: Dataset, contracts: Mapping[str, Any]) -> dict[str, Any]:
    import platform

    import endwise

    return {
        "goal": resolve_goal(recipe, contracts).model_dump(),
        "data_fingerprint": dataset.fingerprint,
        "seed": recipe.train.seed,
        "versions": {
            "endwise": endwise.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


__all__ = ["Stopped", "dry_run", "fit", "fit_folds", "mixed_seed"]
