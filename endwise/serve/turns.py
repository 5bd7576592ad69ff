"""Fairness between clients: whose turn it is, and when those hear of it who are refused and ask again at once.

A client is an address: several programs behind one, or behind one proxy, are one client. Not here: how many may wait (batching.py). Standard library only.
"""

import itertools
from typing import Protocol

MOST_S = 1.0  # that a refusal is held back: the least that Retry-After says
FLOOD_PER_S = 500.0  # refusals of one client that are given at once
LATELY_S = 1.0  # who asked within this time may ask again at any moment
OVERLOAD = 2.0  # or this many times what can be answered, where that is more: nobody at twice the load is held back
BURST = 50  # refusals that may come closer together


class Placed(Protocol):
    """What stands in the line."""

    client: str
    turn: int
    number: int


class Turns:
    """Places in a line where clients take turns: start-time fair queueing (Goyal, Vin and Cheng 1996). A client's next task
    comes one turn after its last, and never before those that were served."""

    def __init__(self) -> None:
        self.held: dict[str, int] = {}  # tasks without an answer, by client
        self._last: dict[str, int] = {}
        self._heard: list[tuple[str, float]] = []  # the last two clients that asked, each with its last time
        self._now = 0
        self._numbers = itertools.count()

    def join(self, task: Placed, now: float) -> None:
        """Give it its place."""
        self._heard = [(task.client, now), *(item for item in self._heard if item[0] != task.client)][:2]
        task.number = next(self._numbers)
        task.turn = self._last[task.client] = max(self._now, self._last.get(task.client, 0)) + 1
        self.held[task.client] = self.held.get(task.client, 0) + 1

    def alone(self, client: str, now: float) -> bool:
        """Has nobody else asked lately?"""
        return all(name == client or now - moment > LATELY_S for name, moment in self._heard)

    def leave(self, task: Placed, *, served: bool = True) -> None:
        """It has its answer, and so far the line has come; or nobody waits for it, and the line is where it was. Of a client
        without tasks nothing is kept."""
        if served:
            self._now = max(self._now, task.turn)
        self.held[task.client] -= 1
        if not self.held[task.client]:
            del self.held[task.client], self._last[task.client]


class Pace:
    """How long the next refusal of a client is held back. Times are of one monotonic clock."""

    def __init__(self) -> None:
        self._next: dict[str, float] = {}  # by client: when its next refusal is due

    def refused(self, client: str, now: float, able_per_s: float) -> float:
        """Note a refusal. Returns the seconds to hold it back, 0 but in a flood: a client that asks again at once would
        otherwise have the processor for its refusals. able_per_s: how many requests can be answered."""
        gap = 1 / max(FLOOD_PER_S, OVERLOAD * able_per_s)
        due = max(now, self._next.get(client, 0.0))
        held = max(0.0, due - now - BURST * gap)
        if held < MOST_S:
            self._next[client] = due + gap
        if len(self._next) > 1000:
            self._next = {name: moment for name, moment in self._next.items() if moment > now}
        return min(held, MOST_S)
