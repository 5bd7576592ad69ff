"""A value that is larger than what the network looks at at once: a patch of it, drawn anew in each training step, and windows
laid over all of it for an answer.

Any number of axes. Numpy only, so that exported bundles do the same. Not here: how a value is cut, and how answers to windows
become one (`Modality.part`, `Modality.merged`).
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

OVERLAP = 0.5  # of neighbouring windows
FALL = 0.125  # of a side: the deviation of the bell by which answers near the border of a window count less
LEAST = 1e-3  # what a corner counts for
SOUGHT = 3  # one patch in so many is drawn around what is sought


def exceeds(shape: Sequence[int], sides: Sequence[int] | None) -> bool:
    """Is a value of this shape larger than what is looked at at once, along any axis?"""
    return sides is not None and any(own > most for own, most in zip(shape, sides, strict=False))


def covering(shape: Sequence[int], sides: Sequence[int]) -> list[tuple[int, ...]]:
    """Where windows of these sides begin that overlap by at least a half and together cover all of a value."""
    along = []
    for own, side in zip(shape, sides, strict=True):
        room = max(0, own - side)
        count = math.ceil(room / max(1.0, side * (1 - OVERLAP))) + 1
        along.append(sorted({round(place) for place in np.linspace(0, room, count)}))
    return list(itertools.product(*along))


def cores(starts: Sequence[Sequence[int]], shape: Sequence[int]) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """(low, high) of what each of the windows that cover a value answers for, beginning at `starts`: overlaps are cut in their
    middle, so that every place, from low up to but not including high, is of one window alone. The outermost have no end."""
    along: list[dict[int, tuple[float, float]]] = []
    for axis, own in enumerate(shape):
        places = sorted({start[axis] for start in starts})
        side = own - places[-1]
        cuts = [-math.inf, *((low + side + high) / 2 for low, high in itertools.pairwise(places)), math.inf]
        along.append(dict(zip(places, itertools.pairwise(cuts), strict=True)))
    ends = [[known[place] for known, place in zip(along, start, strict=True)] for start in starts]
    return [(tuple(low for low, _ in own), tuple(high for _, high in own)) for own in ends]


def drawn(
    shape: Sequence[int], sides: Sequence[int], words: np.ndarray, around: Sequence[int] | None
) -> tuple[int, ...]:
    """Where a patch begins, by random words (one for each axis): anywhere, or so that `around` is in it."""
    found = []
    for axis, (own, side) in enumerate(zip(shape, sides, strict=True)):
        low, high = 0, max(0, own - side)
        if around is not None:
            low, high = max(0, min(around[axis] - side + 1, high)), min(around[axis], high)
        found.append(low + int(words[axis]) % (high - low + 1))
    return tuple(found)


def words(key: Sequence[int], count: int) -> np.ndarray:
    """uint64: random words, a function of the key; the same in every release of numpy."""
    return np.asarray(np.random.Philox(np.random.SeedSequence(list(key))).random_raw(count))


def bell(sides: Sequence[int]) -> np.ndarray:
    """float32 [*sides]: what an answer at each place of a window counts for (Isensee et al. 2021)."""
    found = np.ones((1,) * len(sides))
    for axis, side in enumerate(sides):
        along = np.exp(-0.5 * (((np.arange(side) + 0.5) / side - 0.5) / FALL) ** 2)
        found = found * along.reshape([-1 if other == axis else 1 for other in range(len(sides))])
    return np.maximum(found, LEAST).astype(np.float32)


__all__ = ["SOUGHT", "bell", "cores", "covering", "drawn", "exceeds", "words"]
