"""Who pulls how hard where, drawn: the terms' gradients at the shared tokens or at every stage's, whether they pull against
one another, and what gradient each part of the network got."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from endwise.report import plots

MOST_LINES = 6  # curves in one drawing; of more pairs of terms, those that pull hardest against each other

Step = Mapping[str, Any]


def drawn(steps: Sequence[Step]) -> list[str]:
    """The figures, of the steps in which it was measured."""
    measured = [step for step in steps if "parts" in step]
    if not measured:
        return []
    staged = list(measured[0].get("stages", {}))
    found = []
    for place in staged or [""]:
        where = f"the tokens of stage {place}" if place else "the shared tokens"
        found += _place([(step["step"], _pull(step, place)) for step in measured], where)
    return [*found, _parts(measured, staged), *_layers(measured)]


def _pull(step: Step, place: str) -> tuple[Mapping[str, float], Mapping[str, Mapping[str, float]]]:
    """The norms and the cosines at one place."""
    if place:
        found = step["stages"].get(place, {"norms": {}, "cosines": {}})
        return found["norms"], found["cosines"]
    norms = {name: term["grad_norm"] for name, term in step["terms"].items() if "grad_norm" in term}
    return norms, step.get("cosines", {})


def _place(
    measured: Sequence[tuple[int, tuple[Mapping[str, float], Mapping[str, Mapping[str, float]]]]], where: str
) -> list[str]:
    norms = _lines((at, name, norm) for at, (found, _) in measured for name, norm in found.items())
    cosines = _lines(
        (at, f"{one} | {other}", cosine)
        for at, (_, found) in measured
        for one, others in found.items()
        for other, cosine in others.items()
    )
    cosines.sort(key=lambda line: sum(value for _, value in line.points) / len(line.points))
    found = []
    if norms:
        alt = f"Gradient of each term at {where}: who pulls how hard"
        found.append(plots.curves(norms, x="step", y="norm", alt=alt, log_y=True))
    if cosines:
        more = f"; the {MOST_LINES} lowest of {len(cosines)} pairs" if len(cosines) > MOST_LINES else ""
        alt = f"Cosine between the gradients of two terms at {where}: below 0 they pull against each other{more}"
        found.append(plots.curves(cosines[:MOST_LINES], x="step", y="cosine", alt=alt))
    return found


def _parts(measured: Sequence[Step], staged: Sequence[str]) -> str:
    """The median gradient that the weights of each part got from the whole objective."""
    names = list(measured[-1]["parts"])
    middles = [sorted(step["parts"].get(name, 0.0) for step in measured)[len(measured) // 2] for name in names]
    items = [(name, value, f"{value:.2g}") for name, value in zip(names, middles, strict=True)]
    what = "each stage" if staged else "each part of the network"
    return plots.bars(items, alt=f"Gradient that reaches the weights of {what}: the median of {len(measured)} steps")


def _layers(measured: Sequence[Step]) -> list[str]:
    """How much of the gradient is left in each layer: what vanishes or grows on the way down shows here."""
    names = list(measured[-1].get("layers", {}))
    if not names:
        return []
    middles = [sorted(step["layers"].get(name, 0.0) for step in measured)[len(measured) // 2] for name in names]
    items = [(name, value, f"{value:.2g}") for name, value in zip(names, middles, strict=True)]
    alt = f"Gradient at the weights of each layer, from the raw value on: the median of {len(measured)} steps"
    return [plots.bars(items, alt=alt)]


def _lines(found: Iterable[tuple[int, str, float]]) -> list[plots.Line]:
    points: dict[str, list[tuple[float, float]]] = {}
    for at, name, value in found:
        points.setdefault(name, []).append((at, value))
    return [plots.Line(name, values) for name, values in points.items()]
