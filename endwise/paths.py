"""Paths of agents as a value: where each of several moving things is, step by step. Numpy and the standard library only.

Here: what an answer of `type: trajectories` is, in JSON and as an array. Not here: reading one (modalities/trajectories), how
far apart two are (metrics/paths.py), drawing them over their past (report).
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


def _none() -> np.ndarray:
    return np.zeros(0, np.float32)


@dataclass(frozen=True, eq=False, repr=False)
class Paths:
    """points: float32 [agent, step, 2] in metres, one path an agent, NaN where it is not known. futures: [agent, way, step, 2],
    several ways on for each, and chances: [agent, way], how probable each is; empty of paths that are facts.

    numpy takes it as the points. In JSON it is a list of agents, each {"path": [[x, y], ...], "futures": [{"chance", "path"}]},
    which may be given as a value again.
    """

    points: np.ndarray
    futures: np.ndarray = field(default_factory=_none)
    chances: np.ndarray = field(default_factory=_none)

    def __len__(self) -> int:
        return len(self.points)

    @property
    def ways(self) -> np.ndarray:
        """[agent, way, step, 2]: the futures, or the one path where there are no others."""
        return self.futures if self.futures.size else self.points[:, None]

    def to_json(self) -> list[dict[str, Any]]:
        """A list of agents, in their order."""
        found: list[dict[str, Any]] = []
        for agent, path in enumerate(self.points):
            own: dict[str, Any] = {"path": _listed(path)}
            if self.futures.size:
                own["futures"] = [
                    {"chance": float(chance), "path": _listed(way)}
                    for way, chance in zip(self.futures[agent], self.chances[agent], strict=True)
                ]
            found.append(own)
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.points, dtype=dtype) if copy or dtype is not None else self.points

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Paths) and all(
            np.array_equal(one, two, equal_nan=True)
            for one, two in ((self.points, other.points), (self.futures, other.futures), (self.chances, other.chances))
        )

    def __hash__(self) -> int:
        return hash((self.points.shape, self.points.tobytes()))

    def __repr__(self) -> str:
        agents, steps = self.points.shape[:2]
        ways = f", {self.futures.shape[1]} futures each" if self.futures.size else ""
        return f"Paths({agents} agent{'' if agents == 1 else 's'}, {steps} steps{ways})"


def _listed(path: np.ndarray) -> list[list[float] | None]:
    return [None if np.isnan(point).any() else point.tolist() for point in np.asarray(path, np.float64)]


__all__ = ["Paths"]
