"""Steps in time that are not alike and have nothing missing: a working week has its weekends, and some holidays.

Months, quarters and years need nothing here: the longest is no fifth longer than the usual one. Not here: where windows lie
(windows.py), what is said of uneven steps (check.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from endwise.when import DAY_S, told_seconds

UNEVEN = 0.2  # of the usual step
CLOCK_S = 7_200.0  # by which the hour of a day may differ: summer time
WORKING = range(4, 7)  # days of a working week
COMMON = 0.2  # of the count of the commonest day of the week: rarer ones are exceptions
HOLIDAYS = 2  # working days in a row ...
HOLIDAY_SHARE = 0.05  # ... in so many of all steps, that are holidays


@dataclass(frozen=True, slots=True)
class Uneven:
    """Steps that are not as usual. first: (series, place in it) of the time at which the first one ends."""

    count: int
    steps: int
    what: str  # they do: a verb and the rest
    first: tuple[int, int]
    even: bool  # whether all others are exactly alike, so that a step can be declared


def uneven(times: Sequence[np.ndarray], *, dates: bool) -> Uneven | None:
    """What is odd about the steps of these series, each ascending; None where nothing is. dates: times are seconds, in which a
    working week is known by its days; else they are numbers without a unit."""
    gaps = [np.diff(own) for own in times]
    every = np.concatenate(gaps)
    usual = float(np.median(every)) if len(every) else 0.0
    odd = [np.abs(own - usual) > UNEVEN * usual for own in gaps]
    if not any(own.any() for own in odd):
        return None
    week = _missed(times) if dates and abs(usual - DAY_S) < CLOCK_S else None
    if week is None:
        others = every[~np.concatenate(odd)]
        even = len(others) > 0 and bool(np.ptp(others) == 0)
        what = f"are longer or shorter than the usual {told_seconds(usual) if dates else f'{usual:g}'} by more than a fifth"
        return _found(odd, what, even=even)
    rare = np.mean(np.concatenate(week) > 0) <= HOLIDAY_SHARE
    least = HOLIDAYS + 1 if rare else 1
    what = f"leave out {least} working days or more" if rare else "leave out working days"
    return _found([own >= least for own in week], what, even=False)


def _found(odd: Sequence[np.ndarray], what: str, *, even: bool) -> Uneven | None:
    first = next(((index, int(np.flatnonzero(own)[0]) + 1) for index, own in enumerate(odd) if own.any()), None)
    if first is None:
        return None
    return Uneven(int(sum(own.sum() for own in odd)), sum(map(len, odd)), what, first, even)


def _missed(times: Sequence[np.ndarray]) -> list[np.ndarray] | None:
    """How many working days each step leaves out; None where the times are not those of a working week: one a day, at one hour."""
    every = np.concatenate(times)
    hour = float(np.median(every % DAY_S))
    days = [np.round((own - hour) / DAY_S).astype(np.int64) for own in times]
    if np.abs(every - hour - np.concatenate(days) * DAY_S).max() > CLOCK_S:
        return None
    counts = np.bincount(np.concatenate(days) % 7, minlength=7)
    working = counts >= COMMON * counts.max()
    if int(working.sum()) not in WORKING:
        return None
    before = np.concatenate([[0], np.cumsum(working)[:-1]])  # working days of a week before each of its days
    place = [own // 7 * int(working.sum()) + before[own % 7] for own in days]
    return [np.maximum(np.diff(own) - 1, 0) for own in place]


__all__ = ["Uneven", "uneven"]
