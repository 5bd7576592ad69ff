"""The loop: batch, step, average; now and then a validation, a checkpoint, a look at the clock; a rollback where a step
diverged. To be read and copied."""

import dataclasses
import functools
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from endwise import checkpoint, heap
from endwise.batch import Batch
from endwise.checkpoint import State
from endwise.data.dataset import Dataset
from endwise.errors import TrainingError
from endwise.evaluate import calibrate, evaluate
from endwise.model import Model
from endwise.network import Network
from endwise.nn.interface import Encoder
from endwise.optimise import (
    Average,
    NotFinite,
    Optimiser,
    StepResult,
    autocast,
    out_of_memory,
    schedule,
    step,
)
from endwise.plan import PEAK_RATE, Plan, whole_batch_error
from endwise.recipe import Recipe
from endwise.run import Run
from endwise.train.budget import Clock, Used, is_due, resolved, steps_that_fit
from endwise.train.opening import baselines_of, first_objective, training_loader
from endwise.train.stopping import Signals, Stopped
from endwise.train.telling import Progress, note, of_step, tell
from endwise.train.validation import meanings, meant, while_training
from endwise.watch import Alarm, Meaning, Watch

NORMS_EVERY = 50  # steps between two measurements of each term's gradient at the tokens, if nothing needs more
CHECKPOINT_EVERY_S = 60.0
MAX_ROLLBACKS = 3
ROLLBACK_RATE = 0.5  # the learning rate after a rollback, as a share of the one before
MIX = 0x9E3779B97F4A7C15  # Weyl constant: seeds of neighbouring steps share no bits pattern


@dataclass
class Progressed:
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


class Trainer:
    """One training: its loader, objective, optimiser, average and counters. `train()` loops, `finish()` evaluates."""

    def __init__(
        self,
        run: Run,
        recipe: Recipe,
        dataset: Dataset,
        model: Model,
        signals: Signals,
        say: Progress,
        progress: Progress | None,
        began: float,
        *,
        scores: bool,
    ) -> None:
        self.run, self.recipe, self.dataset, self.model = run, recipe, dataset, model
        self.signals, self.say, self.began = signals, say, began
        clock = Clock(began)
        clock.lap("reading")
        self.loader = training_loader(recipe, dataset, model)
        self.scored = "test" if len(dataset.splits.test) else "val"
        scored = dataset.splits.side(self.scored)
        self.scored_rows = scored if scores else scored[:0]
        # before the plan: what it costs comes out of a budget, and what is to be beaten is known early
        self.baselines = baselines_of(recipe, dataset, model, self.scored_rows, progress)
        clock.lap("baselines")
        tell(progress, "measuring a step")
        self.objective, told = first_objective(recipe, model, self.loader)
        saved, notes = checkpoint.latest(run.checkpoints)
        for line in [*notes, *(told if saved is None else ())]:
            say(note(line))
        self.plan = self._planned()
        self._settle_in()
        self.at = Progressed(micro_batch=self.plan.micro_batch)
        self.batches: Iterator[Batch] = iter(())
        self.saved_at = time.monotonic()
        if saved is not None:
            self._restore(saved)
            say({"event": "resumed", "step": self.at.step})
        elif not run.has("plan.json"):
            run.write("plan.json", self.plan.to_dict())
        self.sign = 1 if self.plan.goal["direction"] == "max" else -1
        self.validation = while_training(model, dataset, self.plan)
        self.meanings, kept = meanings(model, dataset)
        self.watch = Watch(*_watched(recipe, model.network, self.objective.weights()), kept, self._means())
        for event in run.events() if saved is not None else ():
            self.watch.see(event)
        clock.lap("measuring a step")
        self.at.before_s = clock.added_to(self.at.before_s)
        if saved is None:
            self._tell_beforehand()

    def _planned(self) -> Plan:
        """The plan that is there, or one that is made now."""
        if self.run.has("plan.json"):
            return Plan.from_dict(self.run.read("plan.json"))
        used_s = time.monotonic() - self.began
        return resolved(self.recipe, self.dataset, self.model, self.loader, self.objective, used_s)

    def _settle_in(self) -> None:
        """Everything where the plan wants it, and what updates the weights."""
        network, plan = self.model.network, self.plan
        torch.set_num_threads(plan.threads)
        self.device = plan.device
        network.to(self.device)
        self.objective.to(self.device)
        for module in network.modules():
            if isinstance(module, Encoder):
                module.recall(len(self.dataset.splits.train))
        self.optimiser = Optimiser(
            network,
            self.objective,
            learning_rate=plan.learning_rate,
            weight_decay=plan.weight_decay,
            default_rate=PEAK_RATE,
            batch_size=plan.batch_size,
        )
        self.average = Average(network, plan.ema_decay if self.recipe.train.ema else 0.0)

    def _means(self) -> tuple[str, Callable[[], Meaning | None]] | None:
        """The goal's output, and how it is seen that it was learnt: asked for when a loss stands still."""
        if self.validation is None:
            return None
        return self.plan.goal["output"], functools.partial(meant, self.validation, self.plan.goal)

    def _tell_beforehand(self) -> None:
        """What will be coarser or shorter than people may think."""
        val, looked_at = len(self.dataset.splits.val), 0 if self.validation is None else len(self.validation.rows)
        if looked_at < val:
            part = f"{looked_at:,} of {val:,} validation rows"
            self.say(note(f"validations while training write the answers of {part}, without a search"))
        used = self._used()
        if used.leaves_few(self.plan.steps, self.plan):
            steps = "1 step" if self.plan.steps == 1 else f"{self.plan.steps} steps"
            self.say(note(f"{used}: they leave time for {steps}. {used.fix(self.plan)}"))

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
        for line in notes:
            self.say(note(line))
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
        if self.finished or not is_due(self.plan, self.at.step):
            return
        elapsed_s = self.at.spent_s + sum(self.at.before_s.values())
        steps = steps_that_fit(self.plan, self.recipe, step=self.at.step, step_s=self._step_s(), elapsed_s=elapsed_s)
        if steps is None:
            return
        message = f"the clock disagrees with the plan: {steps} steps instead of {self.plan.steps} fit the budget"
        self.plan = self.plan.going_on(steps)
        self.run.write("plan.json", self.plan.to_dict())
        self.say({"event": "replan", "step": self.at.step, "steps": steps, "message": message})
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
            used = self._used()
            if used.leaves_few(self.at.step, self.plan):
                steps = "1 step was" if self.at.step == 1 else f"{self.at.step} steps were"
                told = f"{used}: only {steps} trained. {used.fix(self.plan)}"
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
        self.at = Progressed(
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

    def _used(self) -> Used:
        return Used(self.recipe, self.at.before_s)

    def _log(self, result: StepResult, rows: int, read_s: float, compute_s: float) -> None:
        done = {"step": self.at.step, "steps": self.plan.steps, "time_s": round(self.at.spent_s, 4)}
        said = of_step(result, lr=self.optimiser.rate, rows=rows, read_s=read_s, compute_s=compute_s)
        self._tell({"event": "step", **done, **said})


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
