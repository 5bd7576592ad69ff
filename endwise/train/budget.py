"""Training under a time limit: how many steps fit, whether the clock still agrees with the plan, and what to say where
a budget leaves too little. Not here: what a step costs (plan.py)."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

from endwise.data.dataset import Dataset
from endwise.data.loader import Loader
from endwise.evaluate import ABLATION_ROWS, can_be_left_out
from endwise.model import Model
from endwise.objective import Objective
from endwise.plan import BUDGET_SHARE, Plan, resolve
from endwise.recipe import Recipe

CALIBRATION_BATCHES = 3
BUDGET_TOLERANCE = 0.05
REPLAN_CHECKS = 20  # times a run under a budget compares its plan with the clock
FEWEST_STEPS = 10  # fewer say nothing about the network, and a budget that leaves no more is told
EVALUATION_SHARE = 0.3  # of a budget, kept at most for the evaluation
FINAL_SHARE = 0.06  # of a budget kept for calibration and the report, beside the measured time of the evaluation


class Clock:
    """Seconds between moments, by what they went into."""

    def __init__(self, began: float) -> None:
        self.last, self.laps = began, dict[str, float]()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name], self.last = now - self.last, now

    def added_to(self, before: Mapping[str, float]) -> dict[str, float]:
        """The laps, beside what earlier starts of the same training took."""
        return {name: before.get(name, 0.0) + value for name, value in self.laps.items()}


def resolved(
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
    excess = plan.seconds + evaluation_s(plan, recipe) + used_s - (budget or math.inf)
    return plan.with_steps(max(1, plan.steps - math.ceil(excess / plan.step_s))) if excess > 0 else plan


def evaluation_s(plan: Plan, recipe: Recipe) -> float:
    """Predicting the test rows, twice: once for the answers, once for what is drawn from them; and again with all inputs
    and without each, where an input can be left out. No more than EVALUATION_SHARE of a budget: a network that has not learnt
    to end its texts takes far longer than it will."""
    rows = plan.rows["test"] or plan.rows["val"]
    left_out = min(rows, ABLATION_ROWS) * (1 + len(recipe.inputs)) if can_be_left_out(recipe) else 0
    return min(plan.scoring_s(2 * rows + left_out), EVALUATION_SHARE * (recipe.train.budget or math.inf))


def is_due(plan: Plan, step: int) -> bool:
    """Whether the clock is looked at after this step."""
    every = max(1, plan.steps // REPLAN_CHECKS)
    return step >= every and step % every == 0


def steps_that_fit(plan: Plan, recipe: Recipe, *, step: int, step_s: float, elapsed_s: float) -> int | None:
    """How many steps fit the budget after all, where the clock disagrees with the plan by more than is tolerated; None where it
    does not. step, step_s: how many are done, and what one of them takes."""
    budget = recipe.train.budget
    if budget is None:
        return None
    per_step = step_s + plan.eval_s / plan.eval_every
    usable = budget * (1 - FINAL_SHARE) - evaluation_s(plan, recipe) - elapsed_s
    projected, tolerated = (plan.steps - step) * per_step, BUDGET_TOLERANCE * budget
    if projected > usable + tolerated or (plan.steps < plan.most_steps and projected < usable - tolerated):
        return min(plan.most_steps, step + max(1, int(usable / per_step)))
    return None


@dataclass(frozen=True)
class Used:
    """What was used of a budget before the first step, as it is told where few steps are left."""

    recipe: Recipe
    before_s: Mapping[str, float]

    def leaves_few(self, steps: int, plan: Plan) -> bool:
        """Whether a budget, and not the recipe, is why there are so few steps."""
        return self.recipe.train.budget is not None and steps < min(FEWEST_STEPS, plan.most_steps)

    def __str__(self) -> str:
        spent = [f"{name} ({seconds:.1f} s)" for name, seconds in self.before_s.items()]
        return f"the budget of {self.recipe.train.budget:g} s was used by {', '.join(spent[:-1])} and {spent[-1]}"

    def fix(self, plan: Plan) -> str:
        """A budget for one pass over the rows, if all that came before takes as long again."""
        steps = min(plan.most_steps, max(FEWEST_STEPS, plan.steps_per_epoch))
        seconds = sum(self.before_s.values()) + plan.with_steps(steps).seconds + evaluation_s(plan, self.recipe)
        return (
            f"Fix: raise --budget to at least {math.ceil(seconds / (1 - FINAL_SHARE) / BUDGET_SHARE)}s; what was read is "
            "kept, so that another run begins sooner."
        )
