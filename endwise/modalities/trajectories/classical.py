"""What needs no network: going on at constant velocity, and ridge regression of each agent's future on its own past. numpy here;
scikit-learn and the rest only when a baseline is asked for."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

FEWEST = 5  # agents with a whole future
STANDING_M = 0.05


def last_seen(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of points [agent, step, 2] (NaN where not seen): (where each agent was last, its last step per time, how many steps ago)."""
    points = np.asarray(points, np.float64)
    there = ~np.isnan(points).any(-1)
    steps, everyone = np.arange(points.shape[1]), np.arange(len(points))
    last = np.where(there, steps, -1).max(1)
    before = np.where(there & (steps < last[:, None]), steps, -1).max(1)
    origin = points[everyone, last]
    pace = (origin - points[everyone, np.maximum(before, 0)]) / np.maximum(last - before, 1)[:, None]
    return origin, np.where((before >= 0)[:, None], pace, 0.0), points.shape[1] - 1 - last


def extrapolated(points: np.ndarray, steps: int, factor: float = 1.0) -> np.ndarray:
    """float32 [agent, steps, 2]: each agent goes on with `factor` of its last pace."""
    origin, pace, late = last_seen(points)
    ahead = late[:, None] + np.arange(1, steps + 1)
    found: np.ndarray = (origin[:, None] + factor * ahead[..., None] * pace[:, None]).astype(np.float32)
    return found


class AgentRidge:
    """One linear map from the past of an agent to its future, both seen from where it was last and along the way it has come;
    beside going on at constant velocity, the penalty chosen on the last fifth of the agents."""

    def __init__(self, source: str, *, past: int, future: int) -> None:
        self.source, self.past, self.future = source, past, future

    def fit(self, rows: Sequence[Mapping[str, np.ndarray]], truths: Sequence[Any]) -> Self:
        """ValueError where fewer than five agents have a whole future."""
        from endwise.modalities.series.features import SeriesRidge

        features, wanted = [], []
        for row, truth in zip(rows, truths, strict=True):
            if self.source not in row:
                continue
            points = self._cut(row[self.source])
            seen, turn, going = self._seen(points)
            rest = np.einsum("ats,asu->atu", truth.points - going, turn)
            whole = np.isfinite(rest).all((1, 2))
            features.append(seen[whole])
            wanted.append(rest[whole].reshape(int(whole.sum()), -1))
        count = sum(map(len, features))
        if count < FEWEST:
            raise ValueError(f"{count} agents have every step of their future, of at least {FEWEST}")
        self.solved_ = SeriesRidge().fit(np.concatenate(features), [row for part in wanted for row in part])
        return self

    def predict(self, rows: Sequence[Mapping[str, np.ndarray]]) -> list[np.ndarray]:
        """[agent, step, 2] of each row; of rows without their past one agent at the origin."""
        found = []
        for row in rows:
            if self.source not in row:
                found.append(np.zeros((1, self.future, 2)))
                continue
            seen, turn, going = self._seen(self._cut(row[self.source]))
            rest = self.solved_.predict(seen).reshape(len(seen), self.future, 2)
            found.append(going + np.einsum("ats,aus->atu", rest, turn))
        return found

    def _cut(self, points: np.ndarray) -> np.ndarray:
        """The last `past` steps, with nobody seen before the first."""
        points = np.asarray(points, np.float64)[:, -self.past :]
        return np.pad(points, ((0, 0), (self.past - points.shape[1], 0), (0, 0)), constant_values=np.nan)

    def _seen(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(features [agent, n], the axes of each agent's frame as columns [agent, 2, 2], constant velocity)."""
        origin = last_seen(points)[0]
        first = np.where(np.isnan(points), np.inf, points)  # the heading: from the first place that is known
        begun = points[np.arange(len(points)), np.isfinite(first).all(-1).argmax(1)]
        come = origin - begun
        far = np.linalg.norm(come, axis=1, keepdims=True)
        along = np.where(far > STANDING_M, come / np.maximum(far, STANDING_M), [1.0, 0.0])
        turn = np.stack([along, np.stack([-along[:, 1], along[:, 0]], axis=1)], axis=2)
        own = np.einsum("ats,asu->atu", points - origin[:, None], turn)
        there = ~np.isnan(own).any(-1)
        filled = np.where(there[..., None], own, 0.0).reshape(len(points), -1)
        features = np.concatenate([filled, there.astype(np.float64)], axis=1)
        return features, turn, extrapolated(points, self.future).astype(np.float64)


__all__ = ["AgentRidge", "extrapolated", "last_seen"]
