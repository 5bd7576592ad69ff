"""Shortcuts: one place, word or column that many answers lean on, and that decides with everything else taken away.

A network takes the easiest way to its labels: a watermark on the pictures of one class, the name of a clinic in a letter, a
column that was filled in afterwards (Geirhos et al. 2020, "Shortcut learning in deep neural networks"). A single explanation
does not show that; many of them lying on the same small place do. Not here: which rows are looked at (explain.py).
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from endwise import attribution
from endwise.attribution import Attributed, Parts
from endwise.explanation import Asked, Row, asked
from endwise.highlights import WORD
from endwise.modalities.base import Modality
from endwise.model import Model

FEWEST_ANSWERS = 8  # of one answer
GRID, WINDOW = 8, 2  # a window of two by two of eight by eight cells, wherever it lies
STRETCHES, STRETCH = 16, 2  # of sounds and series
TIMES_ITS_AREA, MOST_ASKED = 5.0, 0.5  # what a window must hold of an explanation to be leaned on
WORD_SHARE, COLUMN_SHARE = 0.4, 0.6  # the same of words and columns
OFTEN = 0.6  # of the answers
ALONE = 0.6  # of the answers keep KEPT of what makes them
KEPT = 0.5
FEW_KINDS = 4  # answers are grouped where each is given to so many rows on average


@dataclass(frozen=True)
class Finding:
    """One place, word or column that many answers lean on. rows: how many answers `answer` were looked at; leaning: share of
    them whose explanation lies mostly there; area: what share of the input it is, None of words and columns; alone: share
    of them that keep half of what makes the answer with everything else taken away."""

    input: str
    where: str
    answer: str
    rows: int
    leaning: float
    area: float | None
    alone: float

    def __str__(self) -> str:
        area = "" if self.area is None else f" ({self.area:.0%} of it)"
        return (
            f"{self.leaning:.0%} of {self.rows} answers {self.answer!r} lean on {self.where} of {self.input}{area}; "
            f"{self.alone:.0%} stand with nothing else there"
        )


@dataclass(frozen=True)
class Region:
    """A part of an input that can be compared between rows. where: bool [*places]."""

    name: str
    where: np.ndarray
    area: float | None

    @property
    def least(self) -> float:
        """The share of an explanation that it must hold to be leaned on."""
        if self.area is not None:
            return min(MOST_ASKED, TIMES_ITS_AREA * self.area)
        return COLUMN_SHARE if self.where.ndim == 0 or self.name.startswith("place ") else WORD_SHARE


@dataclass(frozen=True, eq=False)
class Seen:
    """One row before the network, with what its answer leans on."""

    question: Asked
    found: Attributed
    regions: Mapping[str, Sequence[Region]]

    @classmethod
    def of(cls, model: Model, row: Row, output: str, which: Any) -> Self:
        """By integrated gradients, or occlusion where no gradient comes back."""
        question = asked(model, row, output, which)
        parts = Parts.made(question.probe)
        found = attribution.attribute(question.probe, "integrated_gradients", parts, most=0)
        if not any(values.any() for values in found.places.values()):
            found = attribution.attribute(question.probe, "occlusion", parts)
        several = sum(values.size for values in found.places.values()) > 2
        regions = {
            name: list(_regions(model.recipe.inputs[name], model.contracts[name], row.whole[name], shape))
            if several
            else []
            for name, shape in question.probe.shapes.items()
        }
        return cls(question, found, regions)

    def leaning(self, name: str) -> float:
        """What of an input speaks for the answer (or against it, where all of the row does)."""
        return float(self.towards(name).sum()) if name in self.found.places else 0.0

    @property
    def weight(self) -> float:
        """The same of all inputs."""
        return sum(self.leaning(name) for name in self.found.places)

    def towards(self, name: str) -> np.ndarray:
        """Attributions in the direction that the row as a whole goes, at each place; 0 for the others."""
        sign = 1.0 if self.found.changed >= 0 else -1.0
        return np.maximum(sign * self.found.places[name], 0.0)

    def share(self, name: str, region: Region) -> float:
        """What of all that speaks for the answer lies in a region."""
        return float(self.towards(name)[region.where].sum()) / max(self.weight, 1e-12)

    def stands_alone(self, name: str, region: Region) -> bool:
        """Whether the answer keeps half of what makes it with everything else taken away."""
        masks = self.question.probe.masks(1, 0.0)
        masks[name][0] = masks[name].new_tensor(region.where.astype(np.float32))
        alone = float(self.question.probe.values(masks)[0]) - self.found.at_nothing
        return abs(self.found.changed) > 1e-9 and alone / self.found.changed >= KEPT


def grouped(seen: Sequence[Seen]) -> dict[str, list[Seen]]:
    """By answer, where there are few different ones; else all together."""
    counts = Counter(item.question.about for item in seen)
    if len(counts) * FEW_KINDS > len(seen):
        return {"of any kind": list(seen)}
    return {answer: [item for item in seen if item.question.about == answer] for answer in counts}


def suspicious(answer: str, seen: Sequence[Seen]) -> Iterator[Finding]:
    """Of each input the region that most of these answers lean on, where it decides alone."""
    if len(seen) < FEWEST_ANSWERS:
        return
    for name in seen[0].regions:
        counts, shares = Counter[str](), defaultdict[str, float](float)
        for item in seen:
            for region in item.regions.get(name, ()):
                share = item.share(name, region)
                counts[region.name] += share >= region.least
                shares[region.name] += share
        if not counts:
            continue
        best = max(counts, key=lambda key: (counts[key], shares[key]))
        leaning = counts[best] / len(seen)
        if leaning < OFTEN:
            continue
        having = [(item, region) for item in seen for region in item.regions.get(name, ()) if region.name == best]
        alone = sum(item.stands_alone(name, region) for item, region in having) / len(seen)
        if alone >= ALONE:
            yield Finding(name, best, answer, len(seen), leaning, having[0][1].area, alone)


def _regions(item: Modality, contract: Any, whole: np.ndarray, shape: tuple[int, ...]) -> Iterator[Region]:
    """What of a value can be found again in other rows: windows, words, names, columns."""
    if item.drawn_as == "text":
        yield from _words(item, contract, whole, shape)
    elif not shape:
        yield Region("the value", np.ones((), bool), None)
    elif item.drawn_as == "picture":
        for y in range(GRID - WINDOW + 1):
            for x in range(GRID - WINDOW + 1):
                rows, columns = (_along(side, start, GRID, WINDOW) for side, start in zip(shape, (y, x), strict=True))
                name = f"x {x / GRID:.0%} to {(x + WINDOW) / GRID:.0%}, y {y / GRID:.0%} to {(y + WINDOW) / GRID:.0%}"
                yield Region(name, rows[:, None] & columns, (WINDOW / GRID) ** 2)
    elif item.axes == 1 and item.type not in BY_NAME:
        for start in range(STRETCHES - STRETCH + 1):
            where = _along(shape[0], start, STRETCHES, STRETCH).reshape(-1, *[1] * (len(shape) - 1))
            name = f"{start / STRETCHES:.0%} to {(start + STRETCH) / STRETCHES:.0%}"
            yield Region(name, np.broadcast_to(where, shape), STRETCH / STRETCHES)
    elif item.type == "items":
        names = list(item.named(whole, contract))[-shape[0] :]
        for name in dict.fromkeys(names):
            yield Region(name, np.array([other == name for other in names]), None)
    elif item.axes == 0 and len(shape) == 1:
        for place in range(shape[0]):
            yield Region(f"place {place}", np.arange(shape[0]) == place, None)


BY_NAME = frozenset({"items", "graph"})


def _along(count: int, start: int, cells: int, wide: int) -> np.ndarray:
    """bool [count]: the places of some neighbouring cells."""
    place = (np.arange(count) + 0.5) / count * cells
    found: np.ndarray = (place >= start) & (place < start + wide)
    return found


def _words(item: Modality, contract: Any, whole: np.ndarray, shape: tuple[int, ...]) -> Iterator[Region]:
    """Each different word, wherever it stands."""
    text, units = whole.tobytes().decode(), np.eye(shape[0])
    letters = np.stack([item.onto(unit, whole, contract) for unit in units]) > 0  # [unit, character]
    places: dict[str, np.ndarray] = {}
    for word in WORD.finditer(text):
        inside = letters[:, word.start() : word.end()].any(1)
        key = word[0].lower()
        places[key] = places.get(key, np.zeros(shape, bool)) | inside
    for key, where in places.items():
        yield Region(repr(key), where, None)


__all__ = ["FEWEST_ANSWERS", "Finding", "Seen", "grouped", "suspicious"]
