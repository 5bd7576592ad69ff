"""An evaluation as lines of text for a terminal of 80 columns: scores beside their baselines, groups, inputs left out.

Takes the documented JSON (`Evaluation.to_dict()`, metrics.json), so that a finished run and a new evaluation are shown
alike. Nothing is cut: a name too long for its column has a line of its own. Not here: computing any of it (evaluate.py),
the page (report/).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

NAME = 17  # columns of a metric's or a group's name
WIDTHS = (11, 23, 7, 10, 10)  # value, interval, n, trivial, classical: 80 with the name and its indent
KINDS = ("trivial", "classical")


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The tables of an evaluation. Missing parts are left out."""
    for output, values in found.get("outputs", {}).items():
        yield from _output(output, values, found.get("baselines", {}).get(output) or {})
        if output in found.get("certainty", {}):
            yield from _certainty(found["certainty"][output])
    if found.get("by"):
        yield from _groups(found["by"])
    if found.get("ablation"):
        yield from _inputs(found["ablation"])


def verdict(own: Mapping[str, Any], other: Mapping[str, Any], direction: str) -> str:
    """What two estimates on the same rows say, 'better' only where their intervals do not meet."""
    if None in (own["low"], own["high"], other["low"], other["high"]):
        return "without intervals, these rows do not show a difference."
    if own["low"] <= other["high"] and own["high"] >= other["low"]:
        return "the intervals overlap, so these rows do not show a difference."
    gain = own["value"] - other["value"] if direction == "max" else other["value"] - own["value"]
    return "the network is better." if gain > 0 else "the baseline is better; use it, or find out why."


def against_baseline(found: Mapping[str, Any], goal: Mapping[str, Any]) -> Iterator[str]:
    """The goal beside the best baseline it has, in words; nothing where either is undefined."""
    output, metric = goal["output"], goal["metric"]
    own = found.get("outputs", {}).get(output, {}).get(metric)
    beside = found.get("baselines", {}).get(output) or {}
    for kind in reversed(KINDS):
        other = (beside.get(kind) or {}).get(metric)
        if own and other and own["value"] is not None and other["value"] is not None:
            yield f"\n{metric} of {output}: {own['value']:.4g}, the {kind} baseline {other['value']:.4g}:"
            yield verdict(own, other, goal["direction"])
            return


def spelled(estimate: Mapping[str, Any]) -> tuple[str, str, str]:
    """An estimate as (value, interval, n)."""
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    count = str(estimate["n"])
    if value is None:
        return "undefined", "", count
    if low is None or high is None:
        interval = "no interval"
    else:
        interval = "degenerate" if low == high else f"[{low:.3g}, {high:.3g}]"
    return f"{value:.4g}", interval, count


def _output(name: str, values: Mapping[str, Any], beside: Mapping[str, Any]) -> Iterator[str]:
    kinds = [kind for kind in KINDS if beside.get(kind)]
    yield from _row(name, ["value", "95 % interval", "n", *kinds], indent="")
    for metric, estimate in values.items():
        others = [(beside[kind].get(metric) or {}).get("value") for kind in kinds]
        yield from _row(metric, [*spelled(estimate), *("-" if other is None else f"{other:.3g}" for other in others)])


def _certainty(found: Mapping[str, Any]) -> Iterator[str]:
    """What confidence is worth, and what abstaining leaves."""
    yield from _row("aurc", spelled(found["aurc"]))
    if "calibration_error" in found:
        for side, estimate in found["calibration_error"].items():
            yield from _row(f"calibr. {side}", spelled(estimate))
    if "set" in found:
        yield from _row("set holds truth", spelled(found["set"]["coverage"]))
        yield from _row("values in a set", spelled(found["set"]["size"]))
    if "abstains" in found:
        yield from _row("answered", spelled(found["abstains"]["answered"]))
        if found["abstains"]["error"] is None:
            yield "  nothing is answered"
        else:
            yield from _row(f"{found['risk']} of answered", spelled(found["abstains"]["error"]))


def _groups(by: Mapping[str, Any]) -> Iterator[str]:
    for output, found in by["outputs"].items():
        yield f"\n{output} by {by['column']}"
        groups, gaps = found["groups"], found["gaps"]
        metrics = list(dict.fromkeys(metric for values in groups.values() for metric in values))
        for metric in metrics:
            yield from _row(metric, ["value", "95 % interval", "n"])
            for group, values in groups.items():
                if metric in values:
                    yield from _row(group, spelled(values[metric]), indent="    ")
            if metric in gaps:
                gap = gaps[metric]
                yield from _row("gap", spelled(gap), indent="    ")
                yield f"      {gap['best']} minus {gap['worst']}"


def _inputs(ablation: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "\nwhat each input is worth: what is lost without it, on the same rows"
    for output in dict.fromkeys(row["output"] for row in ablation):
        rows = [row for row in ablation if row["output"] == output]
        yield from _row(f"{output}: {rows[0]['metric']}", ["value", "95 % interval", "n"])
        yield from _row("all inputs", spelled(rows[0]["with"]), indent="    ")
        for row in rows:
            yield from _row(f"without {row['input']}", spelled(row["without"]), indent="    ")
            yield from _row("worth", spelled(row["worth"]), indent="      ")
    for how in dict.fromkeys(row["left_out"] for row in ablation):
        names = dict.fromkeys(row["input"] for row in ablation if row["left_out"] == how)
        yield f"  {', '.join(names)}: {how}"


def _row(name: str, cells: Sequence[str], indent: str = "  ") -> Iterator[str]:
    room = NAME + 2 - len(indent)
    if len(name) > room:
        yield indent + name
        name = ""
    yield (indent + name.ljust(room) + "".join(_cell(text, index) for index, text in enumerate(cells))).rstrip()


def _cell(text: str, index: int) -> str:
    return f"{' ' + text:<{WIDTHS[1]}}" if index == 1 else f"{text:>{WIDTHS[index]}}"
