"""One answer explained: what each place of each raw input adds to it, graded, and shown to people.

Here: from a model and the values of one row to a result that shows itself. Not here: the methods (attribution.py), drawing
(highlights.py), finding the row (explain.py).
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from endwise import attribution
from endwise.attribution import FEWEST_PARTS, Attributed, Grade, Method, Parts, Probe, shared_copy
from endwise.batch import Ragged
from endwise.drawing import png
from endwise.errors import ModelError, require, unknown_name
from endwise.files import plain, write_text
from endwise.highlights import COLUMNS, Highlight, Piece
from endwise.modalities.base import Answer, Modality
from endwise.model import Model, Prediction
from endwise.rows import collate, seen_at_once

AUTO = "auto"
METHODS = (AUTO, *get_args(Method))
SUFFIXES = (".html", ".png")


@dataclass(frozen=True)
class Row:
    """The inputs of one row. values: as the network takes them, None where one is missing; decoded: as they were read; whole:
    in the raw value's own coordinates, where these are others."""

    values: Mapping[str, np.ndarray | None]
    decoded: Mapping[str, np.ndarray]
    whole: Mapping[str, np.ndarray]
    origin: str | None = None


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why one answer is what it is.

    attributions: {input: array in raw coordinates}: height x width, samples, characters, cells. Their unit is that of
    `aim` (log-odds of a class, standard deviations of a number, log-probability of a text); what speaks against the answer
    is below 0. grades: what was checked of the explanation itself; reliable: whether all of it holds, None where nothing
    that tells luck apart applies.
    """

    output: str
    about: str  # which part of the answer
    prediction: Prediction
    method: Method
    attributions: dict[str, np.ndarray]
    highlights: tuple[Highlight, ...] = field(repr=False)
    changed: float  # from nothing at all to this row
    grades: tuple[Grade, ...]
    reliable: bool | None
    seconds: float
    origin: str | None = None

    @property
    def answer(self) -> Answer:
        """The answer that is explained."""
        return self.prediction.answers[self.output]

    @property
    def verdict(self) -> str:
        """'reliable', 'not reliable: ...', or that it cannot be told."""
        if self.reliable:
            return "reliable"
        if not self.grades:
            return "not graded"
        wrong = [f"{grade.name}: {grade.said}" for grade in self.grades if grade.kept is False]
        if wrong:
            return "not reliable: " + "; ".join(wrong)
        return "cannot be graded: " + "; ".join(
            dict.fromkeys(grade.said for grade in self.grades if grade.kept is None)
        )

    def strongest(self, name: str, count: int = 5) -> list[Piece]:
        """The pieces of an input that the answer leans on most: `Piece(where, span, share)`."""
        for item in self.highlights:
            if item.name == name:
                return item.strongest(count)
        raise unknown_name(field="input", got=name, names=[item.name for item in self.highlights], error=ModelError)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: without the arrays, whose strongest pieces stand for them."""
        found: dict[str, Any] = plain(
            {
                "output": self.output, "about": self.about, "answer": self.answer.to_dict(), "method": self.method,
                "origin": self.origin, "changed": self.changed, "reliable": self.reliable, "verdict": self.verdict,
                "seconds": self.seconds,
                "inputs": {
                    item.name: {
                        "shape": list(item.shares.shape),
                        "strongest": [
                            {"where": piece.where, "span": [list(ends) for ends in piece.span], "share": piece.share}
                            for piece in item.strongest(10)
                        ],
                    }
                    for item in self.highlights
                },
                "grades": [vars(grade) for grade in self.grades],
            }
        )  # fmt: skip
        return found

    def __str__(self) -> str:
        lines = [_cut(f"{self.output}: {self.about}, by {self.method.replace('_', ' ')}")]
        for item in self.highlights:
            lines += [_cut(line) for line in item.lines()]
        for grade in self.grades:
            mark = {True: "ok", False: "fails", None: "-"}[grade.kept]
            lines.append(_cut(f"{grade.name:<15}{mark:<6}{grade.said}"))
        verdict = {True: "reliable", False: "NOT RELIABLE", None: "cannot be graded" if self.grades else "not graded"}
        return "\n".join([*lines, f"verdict        {verdict[self.reliable]}"])

    def _repr_html_(self) -> str:
        return self.html()

    def html(self) -> str:
        """For a notebook or a page."""
        sure = "" if self.answer.confidence is None else f" ({self.answer.confidence:.0%} sure)"
        tone = {True: "#00704f", False: "#a33a00", None: "#5b6470"}[self.reliable]
        checks = "".join(
            f"<li>{escape(grade.name)}: {escape(grade.said)}{'' if grade.kept is not False else ' — <b>fails</b>'}</li>"
            for grade in self.grades
        )
        where = f'<div style="opacity:.7">{escape(self.origin)}</div>' if self.origin else ""
        return (
            f'<div style="max-width:46rem"><div><b>{escape(self.output)}</b>: {escape(self.about)}{sure} '
            f'<span style="opacity:.7">by {escape(self.method.replace("_", " "))}; orange speaks for it, blue against it</span></div>'
            f"{''.join(item.html() for item in self.highlights)}"
            f'<details><summary style="color:{tone}">{escape(self.verdict)}</summary><ul>{checks}</ul></details>{where}</div>'
        )

    def save(self, path: str | Path) -> Path:
        """Write it as a page (.html) or, where there is a picture to draw on, as one (.png); the path."""
        place = Path(path)
        require(
            place.suffix in SUFFIXES, field="out", got=str(path), allowed="a name that ends in .html or .png",
            fix="name a .html file: it holds every kind of input", error=ModelError,
        )  # fmt: skip
        if place.suffix == ".html":
            write_text(place, page(f"{self.output}: {self.about}", self.html()))
            return place
        drawn = [item for item in self.highlights if item.kind == "picture"]
        require(
            bool(drawn), field="out", got=str(path), allowed="a .html file: no input is a picture",
            fix="write it as .html", error=ModelError,
        )  # fmt: skip
        place.write_bytes(png(drawn[0].picture()))
        return place


def page(title: str, body: str) -> str:
    """A page of its own that needs nothing else."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, '
        'initial-scale=1"><meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        f'media-src data:"><title>{escape(title)}</title></head><body style="font:16px/1.5 system-ui,sans-serif;margin:1rem">'
        f"{body}</body></html>\n"
    )


@dataclass(frozen=True)
class Asked:
    """One part of one answer to one row, before the network: what is explained."""

    probe: Probe
    about: str
    prediction: Prediction


def asked(model: Model, row: Row, output: str, which: Any = None) -> Asked:
    """A row before the network, and what is asked about its answer. Raises ModelError where an output has no explanation,
    with the reason."""
    item, contract = model.recipe.outputs[output], model.contracts[output]
    require(
        not item.unexplained, field="of", got=f"{output} ({item.type})", allowed="an output with an answer to explain",
        fix=item.unexplained, error=ModelError,
    )  # fmt: skip
    inputs, present = sent(model, row.values)
    probe = Probe(model.network, inputs, present, output)
    with torch.no_grad():
        decoded = model.decoded(probe.network(inputs, present))
    about, numbers = item.about(which, {key: value[0] for key, value in decoded[output].items()}, contract)
    probe.asks(numbers)
    return Asked(probe, about, _prediction(model, decoded, row))


def predicted(model: Model, row: Row) -> Prediction:
    """The answers to a row that has been read."""
    inputs, present = sent(model, row.values)
    with torch.no_grad():
        return _prediction(model, model.decoded(shared_copy(model.network)(inputs, present)), row)


def sent(model: Model, values: Mapping[str, np.ndarray | None]) -> tuple[dict[str, Ragged], dict[str, torch.Tensor]]:
    """A row as the network takes it, on its device. ModelError of one that is answered in windows."""
    require(
        seen_at_once(model.recipe.inputs, model.contracts, values), field="the row", got="a value answered in windows",
        allowed="values that the network looks at at once", fix="cut out the part that is asked about", error=ModelError,
    )  # fmt: skip
    fields, flags = collate(model.recipe.inputs, model.contracts, [values])
    inputs = {name: given.to(model.device) for name, given in fields.items()}
    return inputs, {name: torch.from_numpy(there).to(model.device) for name, there in flags.items()}


def _prediction(model: Model, decoded: Mapping[str, Mapping[str, np.ndarray]], row: Row) -> Prediction:
    given = model.given(decoded, 1, of=[row.values])
    return Prediction({name: answers[0] for name, answers in given.items()}, row.origin)


def explained(
    model: Model,
    row: Row,
    *,
    output: str,
    which: Any = None,
    method: str = AUTO,
    grade: bool = True,
    seed: int = 0,
) -> Explanation:
    """The explanation of one answer to one row. method: auto takes Shapley values, and integrated gradients where the checks
    prefer them. Raises ModelError as `asked` does."""
    began = time.perf_counter()
    if method not in METHODS:
        raise unknown_name(field="method", got=method, names=METHODS, error=ModelError)
    question = asked(model, row, output, which)
    found, grades = _best(question.probe, Parts.made(question.probe), method, grade, seed)
    highlights = _laid(model.recipe.inputs, model.contracts, row, found)
    return Explanation(
        output=output, about=question.about, prediction=question.prediction, method=found.method,
        attributions={name: values for name, (values, _) in highlights.items()},
        highlights=tuple(shown for _, shown in highlights.values()), changed=found.changed, grades=grades,
        reliable=attribution.reliable(grades) if grades else None, seconds=time.perf_counter() - began, origin=row.origin,
    )  # fmt: skip


def _best(probe: Probe, parts: Parts, method: str, grade: bool, seed: int) -> tuple[Attributed, tuple[Grade, ...]]:
    """Of auto the first method that the checks find nothing wrong with, else the one with the least."""
    tried: list[tuple[Attributed, tuple[Grade, ...]]] = []
    usual = attribution.in_random_orders(probe, parts, seed) if grade and parts.count >= FEWEST_PARTS else None
    for name in ("shapley", "integrated_gradients") if method == AUTO else (method,):
        kind: Method = name
        found = attribution.attribute(probe, kind, parts)

        def again(other: Probe, kind: Method = kind) -> Attributed:
            return attribution.attribute(other, kind, parts, most=0)

        silent = not any(values.any() for values in found.places.values())  # no gradient comes back
        if silent and tried:
            continue
        grades = attribution.graded(probe, found, parts, again, seed=seed, usual=usual) if grade else ()
        tried.append((found, grades))
        if not any(one.kept is False for one in grades):
            break
    return min(tried, key=lambda pair: sum(one.kept is False for one in pair[1]))


def _laid(
    inputs: Mapping[str, Modality], contracts: Mapping[str, Any], row: Row, found: Attributed
) -> dict[str, tuple[np.ndarray, Highlight]]:
    """{input: (attributions in raw coordinates, the same as shares over the raw value)}."""
    total = sum(float(np.abs(values).sum()) for values in found.places.values()) or 1.0
    laid = {}
    for name, places in found.places.items():
        item, contract, whole = inputs[name], contracts[name], row.whole[name]
        values = item.onto(places, whole, contract)
        names = tuple(item.named(whole, contract))
        names = names if len(names) == values.size else ()  # one for the value as a whole says nothing of its places
        rate = int(getattr(item, "rate_hz", 0) or 0)
        shown = row.decoded[name] if item.drawn_as == "sound" else whole
        seconds = len(row.decoded[name]) / rate if rate and item.drawn_as == "sound" else 0.0
        laid[name] = values, Highlight(name, item.drawn_as, shown, values / total, names, seconds, rate)
    return laid


def _cut(line: str) -> str:
    return line if len(line) <= COLUMNS else line[: COLUMNS - 1] + "…"


__all__ = ["METHODS", "Asked", "Explanation", "Row", "asked", "explained", "page", "predicted", "sent"]
