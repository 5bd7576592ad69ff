"""Feeding answers back: how far a learnt step carries, beside persistence and beside any rival.

A one-step error says little about a hundred steps: small errors feed on themselves. Here: the errors step by step and the
horizon, with intervals over whole trajectories. Numpy only; a predictor is any function of a list of fields. Not here: the
rival itself (classical.py has one), training for it (`Field.noise`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from endwise.errors import DataError, require, unknown_name
from endwise.lattice import Lattice
from endwise.metrics import Estimate, Metric, estimate, summable
from endwise.metrics.engine import ratio_of_sums, with_one
from endwise.metrics.fields import relative_error

NETWORK, PERSISTENCE = "network", "persistence"
Predictor = Callable[[list[Lattice]], Sequence[Any]]  # fields -> the next ones, as such or as arrays [channel, *grid]


@dataclass(frozen=True)
class RollOut:
    """errors: {who: relative L2 after 1, 2 ... steps}. horizons: {who: steps until the error first passes `threshold`, the
    mean over the trajectories; one that never does counts as all its steps}."""

    errors: Mapping[str, tuple[Estimate, ...]]
    horizons: Mapping[str, Estimate]
    threshold: float

    @property
    def steps(self) -> int:
        """How far was looked."""
        return len(self.errors[NETWORK])

    def worse_than(self, rival: str = PERSISTENCE) -> int | None:
        """The first step after which the network's mean error is above the rival's; None: it never is."""
        if rival not in self.errors:
            raise unknown_name(field="rival", got=rival, names=self.errors, error=DataError)
        pairs = zip(self.errors[NETWORK], self.errors[rival], strict=True)
        return next((step for step, (own, other) in enumerate(pairs, 1) if own.value > other.value), None)

    def __str__(self) -> str:
        lines = [
            f"{who}: below {self.threshold:g} for {found} of {self.steps} steps" for who, found in self.horizons.items()
        ]
        shown = sorted(
            {1, self.steps, *(2**power for power in range(1, self.steps.bit_length()))} & set(range(1, self.steps + 1))
        )
        for who, found in self.errors.items():
            lines.append(
                f"{who} relative L2: " + ", ".join(f"{found[step - 1].value:.3g} after {step}" for step in shown)
            )
        return "\n".join(lines)


def roll_out(
    predict: Predictor,
    trajectories: Sequence[np.ndarray],
    *,
    threshold: float = 0.1,
    rivals: Mapping[str, Predictor] | None = None,
) -> RollOut:
    """Begin with the first field of each trajectory [step, channel, *grid] and predict all others from one's own answers.

    All trajectories are of one length, of at least two fields. rivals: by name, beside `persistence`.
    """
    fields = [np.asarray(item, np.float64) for item in trajectories]
    lengths = sorted({len(item) for item in fields})
    require(
        len(lengths) == 1 and lengths[0] >= 2 and all(item.ndim >= 3 for item in fields),
        field="trajectories", got=f"{len(fields)} of {lengths} fields",
        allowed="at least one, all of one length, of at least two fields [step, channel, *grid]",
        fix="cut them to the shortest", error=DataError,
    )  # fmt: skip
    require(
        threshold > 0, field="threshold", got=threshold, allowed="a number above 0", fix="0.1 is a tenth of the field",
        error=DataError,
    )  # fmt: skip
    runs = {NETWORK: predict, **(rivals or {})}
    found = {who: _followed(one, fields) for who, one in runs.items()}
    found[PERSISTENCE] = _followed(lambda now: now, fields)
    errors = {who: tuple(_mean("relative_l2", column) for column in table.T) for who, table in found.items()}
    horizons = {who: _mean("horizon", _horizon(table, threshold)) for who, table in found.items()}
    return RollOut(errors, horizons, threshold)


def _followed(predict: Predictor, fields: Sequence[np.ndarray]) -> np.ndarray:
    """Relative errors [trajectory, step]."""
    now = [item[0] for item in fields]
    columns = []
    for step in range(1, len(fields[0])):
        made = list(predict([Lattice(item) for item in now]))
        require(
            all(item is not None for item in made), field=f"step {step}", got="an answer that was withheld",
            allowed="an answer to every field", fix="remove abstain: from the output whose answers are fed back",
            error=DataError,
        )  # fmt: skip
        now = [np.asarray(item, np.float64) for item in made]
        scale = [np.sqrt(np.square(item[0]).reshape(len(item[0]), -1).mean(1)).tolist() for item in fields]
        columns.append(
            [relative_error(item[step], made, size) for item, made, size in zip(fields, now, scale, strict=True)]
        )
    return np.array(columns).T


def _horizon(errors: np.ndarray, threshold: float) -> np.ndarray:
    beyond = ~(errors <= threshold)  # true of what is no number, too
    steps: np.ndarray = np.where(beyond.any(1), beyond.argmax(1), errors.shape[1]).astype(np.float64)
    return steps


def _mean(name: str, values: np.ndarray) -> Estimate:
    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        return with_one(answers)

    metric: Metric = summable(name, "min", rows, ratio_of_sums)
    return estimate(metric, values.tolist(), values.tolist())


__all__ = ["RollOut", "roll_out"]
