"""What is looked at while a network learns: validation rows by the metrics that decide, answers on the way by what they are
called, each beside the best constant answer."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from endwise import metrics
from endwise.data.dataset import Dataset
from endwise.data.loader import Loader
from endwise.evaluate import looked_at, rows_together
from endwise.metrics import Metric
from endwise.model import Model
from endwise.plan import Plan
from endwise.shelf import Shelf
from endwise.watch import Meaning

MEANING_ROWS = 500  # validation rows that show whether an answer on the way means what it is called


class Validation:
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
        self.model, self.rows, self.metrics = model, rows, metrics
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


def while_training(model: Model, dataset: Dataset, plan: Plan) -> Validation | None:
    """The validation rows that every evaluation writes the answers of; None where there are none."""
    rows = _spread(dataset.splits.val, plan.eval_rows)
    wanted = _goal_metrics(model, plan.goal)
    return Validation(model, dataset, rows, wanted, batch_size=plan.batch_size) if len(rows) else None


def _goal_metrics(model: Model, goal: Mapping[str, str]) -> dict[str, list[Metric]]:
    """What every evaluation looks at. An output that has metrics of its loss terms is validated by these alone unless the
    goal needs its answers: every evaluation would otherwise write texts that nobody waits for."""
    return {
        name: _validated(output.metrics(model.contracts[name]), goal["metric"] if name == goal["output"] else None)
        for name, output in model.recipe.outputs.items()
    }


def meanings(model: Model, dataset: Dataset) -> tuple[Validation | None, dict[str, Meaning]]:
    """The answers on the way by a metric of the answer itself, on some validation rows, beside the best constant answer; of
    a training in which they could lose their meaning."""
    recipe, rows = model.recipe, dataset.splits.val[:MEANING_ROWS]
    if not len(rows) or recipe.is_assembled:
        return None, {}
    answered = {
        name: [metric for metric in recipe.outputs[name].metrics(model.contracts[name]) if metric.of_term is None][:1]
        for name in recipe.intermediates
    }
    looking = Validation(model, dataset, rows, {k: v for k, v in answered.items() if v}, batch_size=len(rows))
    found = {}
    for name, (metric,) in looking.metrics.items():
        constant = looking.constant(name, metric)
        if constant is not None:
            found[name] = Meaning(metric.name, metric.direction, constant, len(looking.truths[name]))
    return looking if found else None, found


def meant(validation: Validation, goal: Mapping[str, str]) -> Meaning | None:
    """How it is seen that the goal was learnt: against the best constant answer to the same rows, where it can be scored."""
    output = goal["output"]
    for metric in validation.metrics[output]:
        if metric.name == goal["metric"] and metric.of_term is None:
            constant = validation.constant(output, metric)
            rows = len(validation.truths[output])
            return None if constant is None else Meaning(metric.name, metric.direction, constant, rows)
    return None


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    """So many of the rows, as far apart as they can be; all of them if there are no more."""
    return rows if len(rows) <= count else rows[np.linspace(0, len(rows) - 1, count).round().astype(int)]


def _validated(found: Sequence[Metric], goal: str | None) -> list[Metric]:
    """Which metrics of an output are worth their time in every evaluation. goal: the name of the one that decides."""
    cheap = [metric for metric in found if metric.of_term is not None]
    decided = any(metric.name == goal and metric.of_term is None for metric in found)
    return list(found) if decided or not cheap else cheap
