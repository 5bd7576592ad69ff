"""What an answer leans on where there is no network to look into: a bundle is asked again with one part after the other left
out (occlusion, Zeiler & Fergus 2014), on numpy and its own answers alone.

Only of answers that say how sure they are of each class, and of numbers; only of pictures, sounds, texts, numbers and what may
be missing. Not graded. Not here: networks (endwise/attribution.py), HTTP (app.py).
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from endwise.highlights import WORD, Highlight
from endwise.modalities.base import Contract, Modality
from endwise.rows import Row, may_be_missing, seen_at_once
from endwise.serve.problems import Problem
from endwise.serve.version import Version, no_files

TILES = 8  # along each side of a picture
STRETCHES = 32  # of a sound
MOST_WORDS = 64  # of a text; of a longer one some together
PIECE_S = 0.02  # of a sound, whose level is measured ...
QUIET_SHARE = 0.3  # ... and this share of them is its quiet
LEAST = 1e-6  # of a probability, for its log-odds
ROWS = 32  # answered at once

Part = tuple[np.ndarray, np.ndarray | None]  # bool [*places], and the value without them; None: missing
Aim = Callable[[Mapping[str, Any]], float]


@dataclass(frozen=True)
class LeftOut:
    """Of one answer: shares by input, over the raw values. unable: inputs that nothing can be left out of, or that nothing
    could be learnt about."""

    output: str
    about: str
    answer: Mapping[str, Any]
    changed: float  # the sum of what is lost with each part
    highlights: tuple[Highlight, ...]
    unable: tuple[str, ...]

    def to_dict(self, *, drawn: bool) -> dict[str, Any]:
        """As `Explanation.to_dict`, for JSON."""
        said = f"not graded: a bundle is only asked again{''.join(f'; {name} is not left out' for name in self.unable)}"
        inputs: dict[str, Any] = {}
        for item in self.highlights:
            strongest = [
                {"where": piece.where, "span": [list(ends) for ends in piece.span], "share": piece.share}
                for piece in item.strongest(10)
            ]
            inputs[item.name] = {"shape": list(item.shares.shape), "strongest": strongest}
            if drawn:
                inputs[item.name]["html"] = item.html()
        return {
            "output": self.output, "about": self.about, "answer": self.answer, "method": "occlusion", "origin": None,
            "changed": self.changed, "reliable": None, "verdict": said, "inputs": inputs, "grades": [],
        }  # fmt: skip


def left_out(version: Version, cells: Mapping[str, Any], of: str) -> LeftOut:
    """of: as in `endwise explain`; empty: the first output. Problem where there is nothing to go by."""
    output, _, which = of.partition("=") if of else (next(iter(version.outputs)), "", "")
    if output not in version.outputs:
        raise Problem("bad_value", f"{output!r} is not one of {', '.join(version.outputs)}", "of")
    row = version.read(cells)
    if not seen_at_once(version.inputs, version.contracts, row):
        raise Problem("bad_value", "a value answered in windows is not explained: cut out the part that is asked about")
    answer = version.answers([row])[0][output]
    about, aim = aimed(output, answer, which)
    whole = aim(answer)
    asked: list[tuple[str, np.ndarray, Row]] = []
    unable: list[str] = []
    for name, item in version.inputs.items():
        value = row[name]
        if value is None:
            continue
        parts = list(parts_of(item, version.contracts[name], value, item.read(cells[name], no_files)))
        asked += [(name, where, {**row, name: changed}) for where, changed in parts]
        unable += [] if parts else [name]
    found: list[float] = []
    for start in range(0, len(asked), ROWS):
        found += [aim(said[output]) for said in version.answers([item[2] for item in asked[start : start + ROWS]])]
    places: dict[str, np.ndarray] = {}
    for (name, where, _), left in zip(asked, found, strict=True):
        own = places.setdefault(name, np.zeros(where.shape))
        own[where] += (whole - left) / max(1, int(where.sum()))
    return LeftOut(
        output,
        about,
        answer,
        float(sum(whole - left for left in found)),
        tuple(_laid(version, cells, places)),
        tuple(unable),
    )


def aimed(output: str, answer: Mapping[str, Any], which: str) -> tuple[str, Aim]:
    """What is asked about, for people, and how much of it another answer holds: the log-odds of a class, or a number."""
    value, chances = _said(answer), (answer.get("detail") or {}).get("probabilities")
    if isinstance(chances, Mapping) and all(isinstance(chance, float | int) for chance in chances.values()):
        best = max(chances, key=lambda name: float(chances[name]))
        said = str(value).lower() if isinstance(value, bool) else value
        name = which or (said if isinstance(said, str) and said in chances else best)
        if name not in chances:
            raise Problem("bad_value", f"{name!r} is not one of {', '.join(chances)[:300]}", "of")
        return name, lambda other: _odds(other["detail"]["probabilities"][name])
    if isinstance(value, float | int) and not isinstance(value, bool) and not which:
        return f"{value:.6g}", lambda other: float(_said(other))
    raise Problem(
        "bad_value", f"a bundle tells what a class or a single number leans on, and {output} is neither: serve the run",
        "of",
    )  # fmt: skip


def _said(answer: Mapping[str, Any]) -> Any:
    """The value, also where it is withheld: without a part an answer may be less sure."""
    return answer["detail"]["best_guess"] if answer.get("abstained") else answer["value"]


def _odds(chance: float) -> float:
    kept = min(1 - LEAST, max(LEAST, float(chance)))
    return math.log(kept / (1 - kept))


def parts_of(item: Modality, contract: Contract, value: np.ndarray, decoded: np.ndarray) -> Iterator[Part]:
    """The parts of a value as the graph takes it, and what it is without each; nothing of a kind that parts cannot be left out of."""
    if item.type == "image":
        yield from _tiles(contract, value)
    elif item.type == "audio":
        yield from _stretches(value, int(getattr(item, "rate_hz", 0)))
    elif item.type == "text":
        yield from _words(item, contract, decoded)
    elif may_be_missing(item, contract):
        yield np.ones(() if item.axes == 0 else value.shape[:1], bool), None
    elif item.type == "number":
        mean = np.asarray(getattr(contract, "mean", 0.0), value.dtype).reshape(value.shape)
        yield np.ones(value.shape, bool), mean


def _tiles(contract: Any, value: np.ndarray) -> Iterator[Part]:
    """Squares of a picture at the mean colour."""
    colour = (np.array(contract.mean) * np.iinfo(value.dtype).max).round().astype(value.dtype)
    edges = [np.unique(np.linspace(0, side, TILES + 1).astype(int)) for side in value.shape[:2]]
    for y0, y1 in itertools.pairwise(edges[0]):
        for x0, x1 in itertools.pairwise(edges[1]):
            where, changed = np.zeros(value.shape[:2], bool), value.copy()
            where[y0:y1, x0:x1] = True
            changed[where] = colour
            yield where, changed


def _stretches(value: np.ndarray, rate_hz: int) -> Iterator[Part]:
    """Stretches of a sound, brought down to its own quiet: silence is a sound that recordings do not have."""
    wave = value.astype(np.float64)
    piece = max(1, round(PIECE_S * rate_hz))
    levels = [math.sqrt(np.square(wave[at : at + piece]).mean()) for at in range(0, len(wave), piece)]
    quiet = float(np.quantile(levels, QUIET_SHARE)) if levels else 0.0
    edges = np.unique(np.linspace(0, len(wave), STRETCHES + 1).astype(int))
    for start, stop in itertools.pairwise(edges):
        where, level = np.zeros(len(wave), bool), math.sqrt(np.square(wave[start:stop]).mean())
        where[start:stop] = True
        share = min(1.0, quiet / level) if level > 0 else 1.0
        changed = np.where(where, share * wave, wave)
        yield where, (changed.round() if value.dtype.kind in "iu" else changed).astype(value.dtype)


def _words(item: Modality, contract: Any, decoded: np.ndarray) -> Iterator[Part]:
    """Each word, or some neighbouring ones of a long text, cut out; of the characters."""
    text = decoded.tobytes().decode()
    words = [word.span() for word in WORD.finditer(text)]
    together = -(-len(words) // MOST_WORDS)
    for first in range(0, len(words), max(1, together)):
        start, stop = words[first][0], words[min(first + together, len(words)) - 1][1]
        where = np.zeros(len(text), bool)
        where[start:stop] = True
        yield where, item.transform(np.frombuffer((text[:start] + text[stop:]).encode(), np.uint8), contract)


def _laid(version: Version, cells: Mapping[str, Any], places: Mapping[str, np.ndarray]) -> Iterator[Highlight]:
    """Over the raw values, as shares of all that the answer leans on."""
    total = sum(float(np.abs(own).sum()) for own in places.values()) or 1.0
    for name, own in places.items():
        item, contract = version.inputs[name], version.contracts[name]
        whole, decoded = item.in_full(cells[name], no_files), item.read(cells[name], no_files)
        values = own if item.drawn_as == "text" else item.onto(own, whole, contract)
        names = tuple(item.named(whole, contract))
        rate = int(getattr(item, "rate_hz", 0) or 0) if item.drawn_as == "sound" else 0
        yield Highlight(
            name, item.drawn_as, decoded if rate else whole, values / total, names if len(names) == values.size else (),
            len(decoded) / rate if rate else 0.0, rate,
        )  # fmt: skip


__all__ = ["LeftOut", "left_out"]
