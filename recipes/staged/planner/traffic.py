"""A small two-dimensional traffic simulator: cars on a crossroads, what a camera above one of them sees, what is where, where it
goes, and what a plan is worth. Numpy only; a scene is a function of its seed.

The car that plans, the ego, comes from the south. The others follow their lanes by the intelligent driver model (Treiber et al.
2000): each keeps its distance from the one before it, and those from the north and the south give way to those from the sides.
They do not react to the ego. Positions are metres to the right of the ego and ahead of it as it stands now; every car drives
along one of the two axes, so that all rectangles are upright.
"""

from dataclasses import dataclass

import numpy as np

DT_S, PAST_S, FUTURE_S, BEYOND_S = 0.1, 1.0, 3.0, 1.0  # beyond: what only the driver who knows the future looks at
PATH_S = 0.5  # from one point of a path to the next
PATH_POINTS = round(FUTURE_S / PATH_S)
MOST_CARS, GONE_M = 7, 1000.0  # where cars that are not there stand
LANE_M, STOP_M, CLEAR_M = 3.5, -6.0, 25.0  # the line before the crossing, and how far to the sides it has to be clear
LENGTH_M, WIDTH_M = 4.4, 1.8
FASTEST = 12.0  # m/s
WAYS = {"north": (0, 1), "east": (1, 0), "south": (0, -1), "west": (-1, 0)}
STANDING, FAST = 0.5, 6.0  # m/s
OBSTACLES = ("free", "standing", *(f"{way} {pace}" for way in WAYS for pace in ("slow", "fast")))
FUTURES = ("free", "within 1 s", "within 2 s", "within 3 s")

SIDE_PX, PX_M = 48, 1.0
EGO_PX = (36, 24)  # from the top, from the left
SEEN_S = (0.0, 0.5, 1.0)  # ago, by colour channel
ROAD, EGO, NOISE, SPECKS = 0.25, 0.6, 0.05, 0.004


@dataclass(frozen=True)
class Scene:
    """Cars at times from -PAST_S to FUTURE_S + BEYOND_S. places: [car, time, (right, ahead)] of their middles; ways: the number of
    each one's way; speed: of the ego; origin: where the ego stands, as seen from the middle of the crossing."""

    places: np.ndarray
    ways: np.ndarray
    speed: float
    origin: np.ndarray

    @property
    def halves(self) -> np.ndarray:
        """[car, (right, ahead)]: half of each rectangle."""
        upright = np.array([WIDTH_M, LENGTH_M]) / 2
        return np.where(self.ways[:, None] % 2 == 0, upright, upright[::-1])

    @property
    def now(self) -> int:
        """The index of the present."""
        return round(PAST_S / DT_S)

    @property
    def others(self) -> np.ndarray:
        """[MOST_CARS, 2 + 2 x times]: half of each rectangle, and its places from now to FUTURE_S."""
        out = np.full((MOST_CARS, 2 + 2 * (round(FUTURE_S / DT_S) + 1)), GONE_M)
        out[:, :2] = 0.0
        future = self.places[:, self.now : self.now + round(FUTURE_S / DT_S) + 1]
        out[: len(future)] = np.concatenate([self.halves, future.reshape(len(future), -1)], axis=1)
        return out


# ---- driving ---------------------------------------------------------------------------------------------------------


def scene(seed: int) -> Scene:
    """A scene in which the ego has hit nobody yet."""
    chance = np.random.default_rng(seed)
    while True:
        made = _drawn(chance)
        before = made.places[:, : made.now + 1]
        ago = (np.arange(made.now + 1) - made.now) * DT_S
        own = np.stack([np.zeros_like(ago), made.speed * ago], axis=-1)
        if not touching(own, before, made.halves, margin=1.0).any():
            return made


def _drawn(chance: np.random.Generator) -> Scene:
    count = int(chance.integers(3, MOST_CARS + 1))
    ways = chance.integers(0, 4, count)
    along = chance.uniform(-45, 25, count)  # to the middle of the crossing, by way
    speeds, wishes = chance.uniform(2, FASTEST, count), chance.uniform(5, FASTEST + 2, count)
    origin, speed = np.array([LANE_M / 2, chance.uniform(-28, -8)]), float(chance.uniform(0, FASTEST))
    ahead = ways == 0
    along[ahead] = origin[1] + chance.uniform(9, 40, int(ahead.sum()))  # nobody behind the ego
    steps = round((PAST_S + FUTURE_S + BEYOND_S) / DT_S) + 1
    kept = np.empty((count, steps))
    for step in range(steps):
        kept[:, step] = along
        speeds = np.clip(speeds + DT_S * _accelerations(ways, along, speeds, wishes), 0, None)
        along = along + DT_S * speeds
    turn = np.array(list(WAYS.values()))[ways]
    right_hand = np.stack([turn[:, 1], -turn[:, 0]], axis=1) * LANE_M / 2
    places = turn[:, None] * kept[..., None] + right_hand[:, None] - origin
    return Scene(places, ways, speed, origin)


def _accelerations(ways: np.ndarray, along: np.ndarray, speeds: np.ndarray, wishes: np.ndarray) -> np.ndarray:
    """m/s2 by the intelligent driver model; a closed crossing is a car that stands on the line."""
    most, comfort, headway, least = 1.8, 2.5, 1.0, 2.0
    ahead = along[None] - along[:, None]
    leads = (ways[:, None] == ways[None]) & (ahead > 0)
    gap = np.where(leads, ahead - LENGTH_M, np.inf)
    leader = gap.argmin(1)
    nearest = gap[np.arange(len(gap)), leader]
    closing = np.where(np.isfinite(nearest), speeds - speeds[leader], 0.0)
    busy = ((ways % 2 == 1) & (along > -CLEAR_M) & (along < -STOP_M)).any()
    to_line = STOP_M - LENGTH_M / 2 - along
    stops = (ways % 2 == 0) & (to_line > 0) & busy & (to_line < nearest)
    nearest, closing = np.where(stops, to_line + least, nearest), np.where(stops, speeds, closing)
    wanted = least + np.maximum(0, headway * speeds + speeds * closing / (2 * np.sqrt(most * comfort)))
    made = most * (1 - (speeds / wishes) ** 4 - (wanted / np.maximum(nearest, 0.1)) ** 2)
    return np.clip(made, -8.0, most)


def expert(made: Scene) -> np.ndarray:
    """[PATH_POINTS, 2]: where a driver who knows the future goes: as far as may be without coming near to anybody, also a
    second later; out of what two accelerations, one after the other, and a change of lane can do. Full braking where all fails."""
    rates = np.array([-6.0, -4.0, -2.5, -1.0, 0.0, 1.0, 2.0])
    first, second, aside = (grid.ravel() for grid in np.meshgrid(rates, rates, [0.0, -LANE_M], indexing="ij"))
    times = np.arange(round((FUTURE_S + BEYOND_S) / DT_S) + 1) * DT_S
    rate = np.where(times < FUTURE_S / 2, first[:, None], second[:, None])
    speeds = np.clip(made.speed + np.cumsum(rate, 1) * DT_S, 0, FASTEST)
    forward = np.concatenate([np.zeros((len(first), 1)), np.cumsum(speeds[:, :-1] * DT_S, 1)], axis=1)
    eased = 3 * (times / FUTURE_S).clip(0, 1) ** 2 - 2 * (times / FUTURE_S).clip(0, 1) ** 3
    paths = np.stack([aside[:, None] * eased * (forward[:, -1:] > 12), forward], axis=-1)
    hits = touching(paths, made.places[:, made.now :], made.halves, margin=0.6).any(-1)
    comfort = 0.15 * (np.abs(first) + np.abs(second)) + 4.0 * (aside != 0)
    value = np.where(hits, -1e6 - forward[:, -1], forward[:, -1] - comfort)
    every = round(PATH_S / DT_S)
    return np.asarray(paths[int(value.argmax()), every : PATH_POINTS * every + 1 : every])


def touching(own: np.ndarray, places: np.ndarray, halves: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """[..., time]: whether the ego's rectangle at `own` [..., time, 2] touches a car at `places` [car, time, 2]. margin: metres
    all around."""
    reach = halves[:, None] + np.array([WIDTH_M, LENGTH_M]) / 2 + margin
    return np.asarray((np.abs(places - own[..., None, :, :]) < reach).all(-1).any(-2))


# ---- what a plan is worth --------------------------------------------------------------------------------------------


def collided(path: np.ndarray, others: np.ndarray) -> bool:
    """Whether a path [PATH_POINTS, 2], driven in straight lines from where the ego stands, hits one of `Scene.others`."""
    path = np.asarray(path, dtype=np.float64).reshape(-1, 2)
    times, known = np.arange(round(FUTURE_S / DT_S) + 1) * DT_S, np.arange(len(path) + 1) * PATH_S
    own = np.stack([np.interp(times, known, np.concatenate([[0.0], path[:, axis]])) for axis in (0, 1)], axis=-1)
    others = np.asarray(others, dtype=np.float64).reshape(MOST_CARS, -1)
    return bool(touching(own, others[:, 2:].reshape(MOST_CARS, -1, 2), others[:, :2]).any())


def progress(path: np.ndarray) -> float:
    """Metres ahead at its end."""
    return max(0.0, float(np.asarray(path).reshape(-1, 2)[-1, 1]))


# ---- pictures --------------------------------------------------------------------------------------------------------


def covered(middle: np.ndarray, half: np.ndarray) -> np.ndarray:
    """float64 [SIDE_PX, SIDE_PX]: how much of each pixel an upright rectangle covers."""
    down, right = (EGO_PX[0] - np.arange(SIDE_PX) - 0.5) * PX_M, (np.arange(SIDE_PX) + 0.5 - EGO_PX[1]) * PX_M
    along, across = (
        np.clip((size - np.abs(line - at)) / PX_M + 0.5, 0, 1)
        for line, at, size in ((down, middle[1], half[1]), (right, middle[0], half[0]))
    )
    return np.outer(along, across)


def inside(middle: np.ndarray, half: np.ndarray) -> tuple[slice, slice]:
    """The pixels whose middles lie in an upright rectangle."""
    top, low = EGO_PX[0] - (middle[1] + half[1]) / PX_M, EGO_PX[0] - (middle[1] - half[1]) / PX_M
    left, right = EGO_PX[1] + (middle[0] - half[0]) / PX_M, EGO_PX[1] + (middle[0] + half[0]) / PX_M
    rows, columns = (np.round(np.clip(ends, 0, SIDE_PX)).astype(int) for ends in ((top, low), (left, right)))
    return slice(*rows), slice(*columns)


def picture(made: Scene, seed: int) -> np.ndarray:
    """uint8 [SIDE_PX, SIDE_PX, 3]: the scene now, half a second ago and a second ago as red, green and blue; noise and specks."""
    chance = np.random.default_rng([seed, 1])
    roads = np.maximum(
        covered(-made.origin, np.array([LANE_M, 200.0])), covered(-made.origin, np.array([200.0, LANE_M]))
    )
    out = np.repeat(ROAD * roads[..., None], len(SEEN_S), axis=2)
    for channel, ago in enumerate(SEEN_S):
        at = made.now - round(ago / DT_S)
        own = covered(np.array([0.0, -made.speed * ago]), np.array([WIDTH_M, LENGTH_M]) / 2)
        out[..., channel] = np.maximum(out[..., channel], EGO * own)
        for place, half in zip(made.places[:, at], made.halves, strict=True):
            out[..., channel] = np.maximum(out[..., channel], covered(place, half))
    out = np.where(chance.random(out.shape) < SPECKS, 1.0, out) + NOISE * chance.standard_normal(out.shape)
    return np.asarray((255 * out.clip(0, 1)).round().astype(np.uint8))


def obstacles(made: Scene) -> np.ndarray:
    """uint8 [SIDE_PX, SIDE_PX]: the number in OBSTACLES of what is there now."""
    out = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    speeds = np.linalg.norm(made.places[:, made.now + 1] - made.places[:, made.now], axis=-1) / DT_S
    for place, half, way, speed in zip(made.places[:, made.now], made.halves, made.ways, speeds, strict=True):
        out[inside(place, half)] = 1 if speed < STANDING else 2 + 2 * way + (speed >= FAST)
    return out


def futures(made: Scene) -> np.ndarray:
    """uint8 [SIDE_PX, SIDE_PX]: the number in FUTURES of the second in which a car first is there; 0: none will be."""
    out = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    for second in range(len(FUTURES) - 1, 0, -1):  # the earlier over the later
        first = made.now + round((second - 1) / DT_S)
        for step in range(first, first + round(1 / DT_S) + 1, 2):
            for place, half in zip(made.places[:, step], made.halves, strict=True):
                out[inside(place, half)] = second
    return out
