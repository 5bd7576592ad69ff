"""How far what is asked lies from what was learnt from: a number for each input, for whoever watches a server.

The population stability index (Siddiqi 2006), the sum of (p - q) ln(p / q) over bins, of the last rows that were answered
against the training rows, as the model's own contracts describe them: plain numbers in eight bins of as many training rows
each, the commonest classes of a category, and of every input whether it has a value. Below 0.1 little has changed, from 0.25 on
much has. Not here: what pictures, sounds and texts hold (a contract knows no more of them than whether they are missing), alarms.
"""

import math
from collections import deque
from collections.abc import Mapping

import numpy as np

from endwise.modalities.base import Contract
from endwise.modalities.category import CategoryContract
from endwise.modalities.number import NumberContract
from endwise.rows import Row

LATEST = 1_000  # rows
FEWEST = 100  # of which nothing is said before
BINS = 8  # of numbers
CLASSES = 20  # of a category; all others, also those that training never saw, are one
LEAST_SHARE = 1e-3  # of a bin: one that was empty in training would count without end


class Drift:
    """Of one model. Safe to use from several threads."""

    def __init__(self, contracts: Mapping[str, Contract]) -> None:
        """contracts: of the inputs."""
        self._known = {name: _Known(contract) for name, contract in contracts.items() if _told(contract)}
        self._seen = {name: deque[int](maxlen=LATEST) for name in self._known}

    def saw(self, row: Row) -> None:
        """A row that was answered."""
        for name, item in self._known.items():
            self._seen[name].append(item.bin_of(row[name]))

    def scores(self) -> dict[str, float]:
        """By input, of those that something can be said of."""
        found = {name: list(seen) for name, seen in self._seen.items()}
        return {name: self._known[name].score(seen) for name, seen in found.items() if len(seen) >= FEWEST}


def _told(contract: Contract) -> bool:
    """Does it say more than that there is a value?"""
    plain = isinstance(contract, NumberContract) and contract.length is None
    return contract.count > 0 and (plain or isinstance(contract, CategoryContract) or contract.missing > 0)


class _Known:
    """The bins of an input, the first one for rows without a value, and the shares of the training rows in each."""

    def __init__(self, contract: Contract) -> None:
        self._edges = np.empty(0)
        self._places: dict[int, int] | None = None
        inside = np.ones(1)
        if isinstance(contract, NumberContract) and contract.length is None:
            values = np.array(contract.quantiles[0])
            self._edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
            inside = np.bincount(self._places_of(values), minlength=len(self._edges) + 1).astype(float)
        elif isinstance(contract, CategoryContract):
            common = sorted(range(len(contract.counts)), key=lambda place: -contract.counts[place])[:CLASSES]
            self._places = {place: at for at, place in enumerate(common)}
            known = [float(contract.counts[place]) for place in common]
            inside = np.array([*known, sum(contract.counts) - sum(known)])
        there = contract.count / (contract.count + contract.missing)
        self.shares = np.array([1 - there, *(there * inside / inside.sum())])

    def bin_of(self, value: np.ndarray | None) -> int:
        if value is None:
            return 0
        if self._places is not None:
            return 1 + self._places.get(int(value), len(self._places))
        return 1 + (int(self._places_of(value)) if len(self._edges) else 0)  # of other kinds: there it is

    def score(self, seen: list[int]) -> float:
        """The index."""
        now = np.bincount(seen, minlength=len(self.shares)) / len(seen)
        pairs = zip(np.maximum(now, LEAST_SHARE), np.maximum(self.shares, LEAST_SHARE), strict=True)
        return float(sum((new - old) * math.log(new / old) for new, old in pairs))

    def _places_of(self, values: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._edges, values, side="right")


__all__ = ["Drift"]
