"""The answer of the planner: a path, scored by what it is for. Six points, half a second apart, metres to the right and ahead.

It is a list of numbers for the network; the truth also knows the other cars, and the metrics ask the simulator.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

import endwise as ew
from endwise import metrics
from endwise.modalities.base import Answer, Fetch, Role
from recipes.staged.planner import traffic

NUMBERS = 2 * traffic.PATH_POINTS


class Driven(list[float]):
    """The path that a driver who knows the future takes, and the other cars (`traffic.Scene.others`)."""

    others: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Plan(ew.Number):
    """A path of the columns `path` and `others`."""

    type: ClassVar[str] = "plan"

    def reads_columns(self) -> tuple[str, ...]:
        return "path", "others"

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        return np.concatenate([super(Plan, self).read(raw[name], fetch) for name in self.reads_columns()])

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> Any:
        return super().fit((value[:NUMBERS] for value in values), missing=missing, role=role)

    def transform(self, value: np.ndarray, contract: Any) -> np.ndarray:
        return super().transform(value[:NUMBERS], contract)

    def truth(self, value: np.ndarray, contract: Any) -> Driven:
        found = Driven(value[:NUMBERS].tolist())
        found.others = value[NUMBERS:]
        return found

    def untaught(self, given: Mapping[str, np.ndarray], contracts: Any, contract: Any) -> Mapping[str, Answer]:
        ahead = float(given["speed"]) * traffic.PATH_S * np.arange(1, traffic.PATH_POINTS + 1)
        return {"on as now": Answer(np.stack([0 * ahead, ahead], axis=1).ravel().tolist(), unit=self.unit)}

    def metrics(self, contract: Any) -> Sequence[metrics.Metric]:
        """safe_progress (metres ahead, none in a scene with a collision), collision_rate, progress; and the usual ones."""

        def safe(truth: Driven, path: list[float]) -> float:
            return 0.0 if traffic.collided(path, truth.others) else traffic.progress(path)

        return [
            metrics.mean_of("safe_progress", "max", safe, unit="m"),
            metrics.mean_of(
                "collision_rate", "min", lambda truth, path: traffic.collided(path, truth.others), share=True
            ),
            metrics.mean_of("progress", "max", lambda _, path: traffic.progress(path), unit="m"),
            *super().metrics(contract),
        ]
