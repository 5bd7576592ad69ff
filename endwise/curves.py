"""Learning curves: what a metric will be with more labels than there are, and how sure that is.

A curve is fitted to what was measured on subsets (labels, seed, value). No one family of functions fits all learning
curves, many are not even monotone, and an extrapolation that only knows its own fit is far too sure of itself (Viering &
Loog 2023, "The shape of learning curves: a review"; Mahmood et al. 2022, "How much more data do I need?"). So four
families are fitted, weighed by how well each foresees the largest measured subsets from the smaller ones, and the
interval holds what the seeds differ by, what the families differ by, and how far such forecasts were off where the
truth was known (`benchmarks/advice.py` measures how often it covers).

    power        a + b n^-c      (Hestness et al. 2017)
    exponential  a + b e^(-n/s)
    logarithm    a - b log n     cut off at the metric's bound
    level        the last value

All intervals here are 80 %, unlike those of metrics. Numpy only. Not here: making the observations (advise).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from endwise.errors import DataError, require
from endwise.metrics import Estimate

FARTHEST = 8.0  # times the largest measured subset; beyond it nothing is said
FEWEST_SIZES = 3
INTERVAL = (0.1, 0.9)
DRAWS = 400
GRID = 65  # label counts at which a target or a crossing is looked for

# What was set so that back-tests cover (benchmarks/advice.py); curves of half of the sources were not looked at
EXPONENT, EXPONENT_SPREAD = 0.5, 0.7  # of the power family: the median and the log-spread expected before seeing data
PRIOR = {"power": 0.75, "exponential": 0.1, "logarithm": 0.1, "level": 0.05}
RECENT = 0.5  # the weight of a subset falls with its share of the largest to this power: curves bend
SHRINK = 3.0  # observations that the pooled spread counts for in the spread at one size
SURPRISE = 0.05  # how far forecasts are off a doubling ahead, as a share of the gain per doubling ...
DRIFT = 0.005  # ... and of what is left to gain


@dataclass(frozen=True, slots=True, order=True)
class Observation:
    """What one training on so many labels gave."""

    labels: int
    seed: int
    value: float


@dataclass(frozen=True, slots=True)
class Reach:
    """How many labels a target takes. state: 'reached' (it was measured), 'reachable' (labels are given), or 'not
    reachable' by this curve within FARTHEST times what was measured. labels.high is NaN where even that may not do."""

    target: float
    state: Literal["reached", "reachable", "not reachable"]
    labels: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "target": self.target, "state": self.state, "labels": None if self.labels is None else self.labels.to_dict(),
        }  # fmt: skip

    def __str__(self) -> str:
        if self.labels is None:
            return f"{self.target:g} is not reachable by this curve"
        if self.state == "reached":
            return f"{self.target:g} is already reached, with {self.labels.value:,.0f} labels"
        high = "more than can be foreseen" if math.isnan(self.labels.high) else f"{self.labels.high:,.0f}"
        return f"{self.target:g} takes {self.labels.value:,.0f} labels [{self.labels.low:,.0f} to {high}]"


@dataclass(frozen=True, slots=True)
class Crossing:
    """Where one curve overtakes another. labels: None where it was not seen up to `looked_to`; leader: which of the two
    ('first', 'second') is ahead at the end of what was looked at."""

    labels: Estimate | None
    leader: Literal["first", "second"]
    looked_to: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        labels = None if self.labels is None else self.labels.to_dict()
        return {"labels": labels, "leader": self.leader, "looked_to": self.looked_to}


@dataclass(frozen=True, eq=False)
class Curve:
    """A fitted learning curve. weights: what each family counts for. spread: the deviation between seeds at the largest
    size. notes: what has to be said about the measurements. Made by `fit`."""

    direction: Literal["min", "max"]
    observations: tuple[Observation, ...]
    weights: Mapping[str, float]
    spread: float
    notes: tuple[str, ...]
    _floor: float | None  # of the loss: the metric's best value, its sign turned where larger is better
    _ceiling: float | None
    _fits: Mapping[str, np.ndarray]  # family -> (a, b, shape) of the means
    _drawn: Mapping[str, np.ndarray]  # family -> [draw, (a, b, shape)]
    _family: np.ndarray  # [draw]: which family a draw belongs to
    _surprise: np.ndarray  # [draw]: standard normal
    _noise: np.ndarray  # [draw]: standard normal
    _step: float  # how far off a forecast is a doubling ahead

    @property
    def largest(self) -> int:
        """The largest measured number of labels."""
        return self.observations[-1].labels

    @property
    def smallest(self) -> int:
        """The smallest measured number of labels."""
        return self.observations[0].labels

    def at(self, labels: int) -> Estimate:
        """The value a training on so many labels gives, with its 80 % interval; n is the number of observations.
        DataError below the smallest measured subset and beyond FARTHEST times the largest."""
        self._check(labels)
        return self._estimates(np.array([float(labels)]))[0]

    def labels_for(self, target: float) -> Reach:
        """How many labels take the metric to `target`, and the interval of that number."""
        wanted = self._loss(target)
        count = len(self.observations)
        for labels, value in _means(self.observations):
            if self._loss(value) <= wanted and self._loss(self.at(self.largest).value) <= wanted:
                return Reach(target, "reached", Estimate(labels, labels, labels, count))
        path = _path(self.largest, round(FARTHEST * self.largest))
        found = self._estimates(path)
        best = "low" if self.direction == "min" else "high"
        worst = "high" if self.direction == "min" else "low"
        at, low, high = (
            next((float(n) for n, item in zip(path, found, strict=True) if self._loss(getattr(item, which)) <= wanted), math.nan)
            for which in ("value", best, worst)
        )  # fmt: skip
        if math.isnan(at):
            return Reach(target, "not reachable", None)
        return Reach(target, "reachable", Estimate(at, low, high, count))

    # ---- inside: everything below is a loss, smaller is better -------------------------------------------------------

    def _loss(self, value: float) -> float:
        return value if self.direction == "min" else -value

    def _check(self, labels: float) -> None:
        most = round(FARTHEST * self.largest)
        require(
            self.smallest <= labels <= most, field="labels", got=labels,
            allowed=f"{self.smallest} to {most}: what was measured, and {FARTHEST:g} times that",
            fix="measure larger subsets to look farther", error=DataError,
        )  # fmt: skip

    def _centre(self, labels: np.ndarray) -> np.ndarray:
        """What the families say on average [labels]."""
        x = labels / self.largest
        parts = [share * _evaluated(name, self._fits[name][None], x)[0] for name, share in self.weights.items()]
        return self._inside(np.sum(parts, axis=0))

    def _draws(self, labels: np.ndarray) -> np.ndarray:
        """What it could be [draw, labels]: a family, its fit to what other seeds could have given, and what no
        extrapolation knows. Before the metric's bounds."""
        x = labels / self.largest
        out = np.empty((len(self._family), len(labels)))
        for index, name in enumerate(self.weights):
            own = self._family == index
            out[own] = _evaluated(name, self._drawn[name][own], x)
        ahead = np.log2(np.maximum(1.0, x))
        spread = self.spread / np.sqrt(np.maximum(1.0, x))
        return out + self._surprise[:, None] * self._step * ahead + self._noise[:, None] * spread

    def _estimates(self, labels: np.ndarray) -> list[Estimate]:
        """One for each label count; the interval does not narrow on the way, but at the bounds."""
        centre, (below, above) = self._centre(labels), self._sides(labels)
        low, high = self._inside(centre - below), self._inside(centre + above)
        if self.direction == "max":
            centre, low, high = -centre, -high, -low
        count = len(self.observations)
        return [
            Estimate(float(v), float(a), float(b), count) for v, a, b in zip(centre, low, high, strict=True)
        ]  # fmt: skip

    def _sides(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far the interval reaches below the centre and above it. Beyond what was measured, along one path for all label
        counts: its ends only move outwards, and what lies between two of its points is between their widths."""

        def sides(at: np.ndarray) -> list[np.ndarray]:
            centre = self._centre(at)
            low, high = np.quantile(self._draws(at), INTERVAL, axis=0)
            return [np.maximum(0.0, side) for side in (centre - low, high - centre)]

        path = _path(self.largest, round(FARTHEST * self.largest))
        ahead = [np.interp(np.log(labels), np.log(path), np.maximum.accumulate(side)) for side in sides(path)]
        below, above = (
            np.where(labels <= self.largest, own, far) for own, far in zip(sides(labels), ahead, strict=True)
        )
        return below, above

    def _inside(self, losses: np.ndarray) -> np.ndarray:
        return np.clip(losses, self._floor, self._ceiling) if self._bounded else losses

    @property
    def _bounded(self) -> bool:
        return self._floor is not None or self._ceiling is not None


def fit(
    observations: Sequence[Observation],
    *,
    direction: Literal["min", "max"],
    low: float | None = None,
    high: float | None = None,
) -> Curve:
    """The curve through these observations, whatever their order. low, high: the bounds of the metric, None where it
    has none. DataError for fewer than FEWEST_SIZES different sizes, or a value that is no number or out of bounds."""
    found = tuple(sorted(observations))
    sizes = sorted({item.labels for item in found})
    require(
        len(sizes) >= FEWEST_SIZES and sizes[0] >= 1, field="observations", got=sizes,
        allowed=f"at least {FEWEST_SIZES} different numbers of labels", fix="measure more subsets", error=DataError,
    )  # fmt: skip
    for item in found:
        good = math.isfinite(item.value) and (low is None or item.value >= low) and (high is None or item.value <= high)
        require(
            good, field=f"the value at {item.labels} labels", got=item.value,
            allowed=f"a number within {low} and {high}", fix="is the metric defined on these rows?", error=DataError,
        )  # fmt: skip
    sign = 1.0 if direction == "min" else -1.0
    floor, ceiling = (low, high) if direction == "min" else (_negative(high), _negative(low))
    rng = np.random.default_rng(0)
    measured = _Measured.of(found, sign)
    weights = _family_weights(measured, floor)
    normal = rng.standard_normal((DRAWS, len(measured.means)))
    drawn = measured.means + normal * measured.errors
    if floor is not None:
        drawn = np.maximum(drawn, floor)
    shares = np.cumsum(list(weights.values()))
    family = np.searchsorted(shares / shares[-1], rng.permutation((np.arange(DRAWS) + 0.5) / DRAWS))
    return Curve(
        direction=direction,
        observations=found,
        weights=weights,
        spread=measured.spreads[-1],
        notes=_notes(measured),
        _floor=floor,
        _ceiling=ceiling,
        _fits={name: _fitted(name, measured.means[None], measured, floor)[0] for name in weights},
        _drawn={name: _fitted(name, drawn, measured, floor) for name in weights},
        _family=family,
        _surprise=rng.standard_normal(DRAWS),
        _noise=rng.standard_normal(DRAWS),
        _step=_forecast_error(measured, floor),
    )


def difference(first: Curve, second: Curve, labels: int) -> Estimate:
    """The value of `first` minus that of `second` at so many labels, with its 80 % interval."""
    for curve in (first, second):
        curve._check(labels)
    path = np.array([float(labels)])
    one, other = first.at(labels), second.at(labels)
    drawn = first._inside(first._draws(path)) - _shuffled(second._inside(second._draws(path)))
    sign = 1.0 if first.direction == "min" else -1.0
    low, high = np.sort(sign * np.quantile(drawn[:, 0], INTERVAL))
    value = one.value - other.value
    return Estimate(value, min(float(low), value), max(float(high), value), len(first.observations))


def crossing(first: Curve, second: Curve) -> Crossing:
    """Where the one that is behind overtakes the other, with the 80 % interval of the draws in which it does; 'not
    seen' where the curves keep their order from the smallest subset both have to FARTHEST times the smaller largest."""
    require(
        first.direction == second.direction, field="second.direction", got=second.direction,
        allowed=repr(first.direction), fix="compare curves of one metric", error=DataError,
    )  # fmt: skip
    begin = max(first.smallest, second.smallest)
    end = round(FARTHEST * min(first.largest, second.largest))
    path = np.geomspace(begin, max(begin + 1, end), 2 * GRID)
    ahead = first._centre(path) - second._centre(path)
    leader: Literal["first", "second"] = "first" if ahead[-1] <= 0 else "second"
    at = _last_change(ahead)
    if at is None:
        return Crossing(None, leader, end)
    drawn = first._inside(first._draws(path)) - _shuffled(second._inside(second._draws(path)))
    places = [path[place] for row in drawn if (place := _last_change(row)) is not None]
    low, high = np.quantile(places, INTERVAL) if places else (path[at], path[at])
    value = float(path[at])
    return Crossing(
        Estimate(value, min(value, float(low)), max(value, float(high)), len(first.observations)), leader, end
    )


# ---- measurements ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Measured:
    """Losses by size, the smallest first: means, how far seeds are apart, the error of the means, and weights of a fit."""

    sizes: np.ndarray
    means: np.ndarray
    counts: np.ndarray
    spreads: np.ndarray
    errors: np.ndarray

    @classmethod
    def of(cls, observations: Sequence[Observation], sign: float) -> "_Measured":
        values: dict[int, list[float]] = {}
        for item in observations:
            values.setdefault(item.labels, []).append(sign * item.value)
        sizes = np.array(list(values), dtype=np.float64)
        means = np.array([np.mean(found) for found in values.values()])
        counts = np.array([len(found) for found in values.values()])
        return cls(sizes, means, counts, *_spreads(sizes, list(values.values()), means))

    @property
    def weights(self) -> np.ndarray:
        """Of the squared residuals."""
        floor = 1e-3 * max(1e-12, float(np.ptp(self.means)) or abs(float(self.means[-1])))
        found: np.ndarray = (self.sizes / self.sizes[-1]) ** RECENT / (self.errors + floor) ** 2
        return found

    def until(self, size: int) -> "_Measured":
        """Without the last `size` sizes."""
        kept = slice(0, len(self.sizes) - size)
        return _Measured(self.sizes[kept], self.means[kept], self.counts[kept], self.spreads[kept], self.errors[kept])

    @property
    def gain(self) -> float:
        """What a doubling gave, over the last two doublings or so; never below zero."""
        behind = max(0, int(np.searchsorted(self.sizes, self.sizes[-1] / 4.5)))
        behind = min(behind, len(self.sizes) - 2)
        doublings = math.log2(self.sizes[-1] / self.sizes[behind])
        return max(0.0, float(self.means[behind] - self.means[-1]) / doublings)


def _spreads(sizes: np.ndarray, values: Sequence[Sequence[float]], means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The deviation between seeds at each size, drawn towards what all sizes together say (it falls with the root of
    the labels), and the error of each mean. Without any repeated size: how far the middle one of three neighbours is
    off the line between the others."""
    share = sizes / sizes[-1]
    squares = np.array([float(np.sum((np.array(found) - np.mean(found)) ** 2)) for found in values])
    freedom = np.array([len(found) - 1 for found in values])
    if freedom.sum() > 0:
        pooled = float((squares * share).sum() / freedom.sum())
    else:
        bends = means[1:-1] - (means[:-2] + means[2:]) / 2
        pooled = float(np.mean(bends**2 * share[1:-1]) / 1.5)
    variance = (squares + SHRINK * pooled / share) / (freedom + SHRINK)
    spreads = np.sqrt(variance)
    return spreads, spreads / np.sqrt([len(found) for found in values])


def _notes(measured: _Measured) -> tuple[str, ...]:
    """Where more labels gave clearly less: a sign of subsets that were not trained to their end."""
    found = []
    for at in range(1, len(measured.means)):
        worse = measured.means[at] - measured.means[at - 1]
        if worse > 2 * math.hypot(measured.errors[at], measured.errors[at - 1]):
            found.append(
                f"{measured.sizes[at]:.0f} labels gave less than {measured.sizes[at - 1]:.0f}: the curve is not "
                "monotone, and what is foreseen from it is worth less"
            )
    return tuple(found)


# ---- families -------------------------------------------------------------------------------------------------------


def _shapes(family: str, measured: _Measured) -> np.ndarray:
    """The values tried for the one number a family is not linear in."""
    if family == "power":
        return np.geomspace(0.08, 2.0, 17)
    if family == "exponential":
        return np.geomspace(0.5 * measured.sizes[0] / measured.sizes[-1], 2.0, 13)
    return np.ones(1)


def _basis(family: str, shape: Any, x: np.ndarray) -> np.ndarray:
    """What b is multiplied by, at x = labels / largest."""
    if family == "power":
        return np.asarray(x**-shape)
    if family == "exponential":
        return np.asarray(np.exp(-x / shape))
    return np.asarray(-np.log(x) + 0.0 * shape) if family == "logarithm" else np.zeros_like(x + 0.0 * shape)


def _fitted(family: str, means: np.ndarray, measured: _Measured, floor: float | None) -> np.ndarray:
    """(a, b, shape) of each row of means [row, size], by weighted least squares with b >= 0 and a >= floor; of the shapes
    the one with the least residual beside how unusual it is."""
    weights, x = measured.weights, measured.sizes / measured.sizes[-1]
    if family == "level":
        return np.stack([means[:, -1], np.zeros(len(means)), np.ones(len(means))], axis=1)
    shapes = _shapes(family, measured)
    basis = _basis(family, shapes[:, None], x[None, :])  # [shape, size]
    total = weights.sum()
    centre = basis @ weights / total  # [shape]
    mean = means @ weights / total  # [row]
    variance = ((basis - centre[:, None]) ** 2) @ weights
    covariance = ((means - mean[:, None]) * weights) @ (basis - centre[:, None]).T  # [row, shape]
    b = np.maximum(0.0, covariance / np.maximum(variance, 1e-12))
    a = mean[:, None] - b * centre
    if floor is not None:
        through = ((means - floor) * weights) @ basis.T / ((basis**2) @ weights)
        b = np.where(a < floor, np.maximum(0.0, through), b)
        a = np.maximum(a, floor)
    residual = means[:, None, :] - a[:, :, None] - b[:, :, None] * basis[None]
    cost = (residual**2) @ weights
    if family == "power":
        cost = cost + (np.log(shapes / EXPONENT) / EXPONENT_SPREAD) ** 2
    best = np.argmin(cost, axis=1)
    rows = np.arange(len(means))
    return np.stack([a[rows, best], b[rows, best], shapes[best]], axis=1)


def _evaluated(family: str, fits: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Values [row, x] of fits [row, (a, b, shape)]."""
    return np.asarray(fits[:, :1] + fits[:, 1:2] * _basis(family, fits[:, 2:3], x[None, :]))


def _family_weights(measured: _Measured, floor: float | None) -> dict[str, float]:
    """Prior times how well each family foresees the largest sizes from the smaller ones."""
    scores = {name: math.log(share) for name, share in PRIOR.items()}
    for hidden in (1, 2):
        if len(measured.sizes) - hidden < FEWEST_SIZES:
            continue
        seen = measured.until(hidden)
        x = measured.sizes[-1:] / seen.sizes[-1]
        scale = math.hypot(float(measured.errors[-1]), _forecast_error(seen, floor) * math.log2(float(x[0])))
        for name in PRIOR:
            said = float(_evaluated(name, _fitted(name, seen.means[None], seen, floor), x)[0, 0])
            said = said if floor is None else max(floor, said)
            off = (said - float(measured.means[-1])) / max(scale, 1e-12)
            scores[name] -= min(off**2, 9.0) / 4  # two looks at one point are not two points; none rules a family out
    top = max(scores.values())
    shares = {name: math.exp(score - top) for name, score in scores.items()}
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()}


def _forecast_error(measured: _Measured, floor: float | None) -> float:
    """How far off a forecast is a doubling ahead."""
    left = abs(float(measured.means[-1]) - floor) if floor is not None else float(np.ptp(measured.means))
    return SURPRISE * measured.gain + DRIFT * left


# ---- small things ---------------------------------------------------------------------------------------------------


def _means(observations: Sequence[Observation]) -> list[tuple[int, float]]:
    sizes = sorted({item.labels for item in observations})
    return [(n, float(np.mean([item.value for item in observations if item.labels == n]))) for n in sizes]


def _path(begin: int, end: int) -> np.ndarray:
    """Label counts from one to the other, evenly by their ratio."""
    return np.geomspace(begin, end, GRID)


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def _shuffled(draws: np.ndarray) -> np.ndarray:
    """The same draws in another order: those of two curves are made of the same random numbers."""
    return draws[np.random.default_rng(1).permutation(len(draws))]


def _last_change(values: np.ndarray) -> int | None:
    """The last place where the sign is another than just before; None where it never is."""
    signs = np.sign(values)
    places = np.flatnonzero((signs[1:] != signs[:-1]) & (signs[1:] != 0))
    return int(places[-1]) + 1 if len(places) else None


__all__ = ["FARTHEST", "Crossing", "Curve", "Observation", "Reach", "crossing", "difference", "fit"]
