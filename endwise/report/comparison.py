"""The page of a comparison: the verdict, the regimes side by side, the answers on the way, where errors come from, fewer
labels, other rows, costs, the nine aspects.

`build(folder)` reads comparison.json and nothing else. One self-contained file in the looks of a run's report.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from endwise.errors import ModelError
from endwise.files import read_json, write_text
from endwise.report import _estimate, _seconds, _table, document, plots

RESULT, PAGE = "comparison.json", "report.html"


def build(folder: str | Path) -> Path:
    """Write report.html beside comparison.json and return its path; ModelError where there is none."""
    source, target = Path(folder) / RESULT, Path(folder) / PAGE
    if not source.is_file():
        raise ModelError(
            f"{folder} holds no comparison ({RESULT}). Fix: endwise compare RECIPE --out {folder} --resume."
        )
    write_text(target, _page(read_json(source)))
    return target


def _page(found: Mapping[str, Any]) -> str:
    sections = [
        ("regimes", "Side by side", _regimes(found)),
        ("together", "Each answer, together and alone", _together(found)),
        ("way", "The answers on the way", _intermediates(found)),
        ("errors", "Where the errors come from", _oracle(found) + _noise(found)),
        ("labels", "With fewer labels", _curves(found)),
        ("shift", "On other rows", _shift(found)),
        ("inputs", "What each input is worth", _inputs(found)),
        ("retarget", "What another answer costs", _retarget(found)),
        ("reach", "How far the gradient reaches", _reach(found)),
        ("costs", "What it costs", _costs(found)),
        ("aspects", "The table", _aspects(found)),
        ("how", "How this was made", _how(found)),
    ]
    return document(f"Comparison: {found['name']}", _opening(found), sections)


def _opening(found: Mapping[str, Any]) -> str:
    path = _path_of(found)
    said = found["verdict"]
    items = "".join(f"<li>{escape(item)}</li>" for item in found["considerations"])
    return (
        f'{path}<p class="verdict"><strong>{escape(said[0].upper() + said[1:])}.</strong> {escape(found["against"]["because"])}.</p>'
        + (f"<ul>{items}</ul>" if items else "")
    )


def _path_of(found: Mapping[str, Any]) -> str:
    """The stages as they are declared."""
    shown = [
        f"<span>{escape(', '.join(item['from']))} → <strong>{escape(name)}</strong> → {escape(', '.join(item['to']))}</span>"
        for name, item in found["stages"].items()
    ]
    return f'<div class="path">{"<b>then</b>".join(shown)}</div>' if shown else ""


def _better(found: Mapping[str, Any]) -> str:
    return "larger is better" if found["about"]["direction"] == "max" else "smaller is better"


# ---- side by side --------------------------------------------------------------------------------------------------


def _regimes(found: Mapping[str, Any]) -> str:
    beside = found["baselines"].get(found["about"]["output"], {})
    levels = [(kind, item["value"]) for kind, item in beside.items() if item is not None and item["value"] is not None]
    told = f"{found['goal']} on {found['rows']['test']} test rows ({_better(found)}): means with 95 % intervals over rows and seeds"
    drawn = plots.intervals(_intervals(found["regimes"]), x=found["about"]["metric"], alt=told, levels=levels)
    gains = found["gains"]["regimes"]
    rows = [
        [escape(name), _estimate(item), ", ".join(_number(one) for one in item["seeds"]), _estimate(gains.get(name))]
        for name, item in found["regimes"].items()
    ]
    rows += [[f"{kind} baseline", _estimate(item), "", ""] for kind, item in beside.items()]
    names = ["", found["goal"], "each seed", f"better than {found['gains']['over']} by"]
    return drawn + _table(names, rows, numbers=(1, 3))


def _together(found: Mapping[str, Any]) -> str:
    """Every output of the one network beside the same in one of its own, and what the watch says of it."""
    about = found.get("together")
    if not about:
        return ""
    told = "".join(f"<li>{escape(message)}</li>" for message in about["said"])
    rows = [
        [escape(output), escape(f"{item['metric']} ({'larger' if item['direction'] == 'max' else 'smaller'} is better)"),
         *(_estimate(item[key]) for key in ("together", "alone", "gain"))]
        for output, item in about["outputs"].items()
    ]  # fmt: skip
    names = ["answer", "metric", "in the one network", "in one of its own", "better together by"]
    return f"<ul>{told}</ul>" + _table(names, rows, numbers=(2, 3, 4))


def _inputs(found: Mapping[str, Any]) -> str:
    told = (
        f"{found['goal']} of one network without answers on the way that has these inputs alone, under the same budget"
    )
    if not found["inputs"]:
        return ""
    said = found.get("fusion", {}).get("said", "")
    drawn = plots.intervals(_intervals(found["inputs"]), x=found["about"]["metric"], alt=told)
    return (f"<p>{escape(said[0].upper() + said[1:])}.</p>" if said else "") + drawn


def _retarget(found: Mapping[str, Any]) -> str:
    about = found.get("retarget")
    if not about:
        return ""
    told = (
        f"{about['output']} is learnt in the place of {about['in_place_of']}: further, from the finished training (in stages, those that do "
        f"not answer it stay as they are), and anew, from nothing; each with {about['budget_share']:.0%} of a training's budget and one "
        "seed. Needed: the fewest labels of those tried that come within a margin of the better of the two with all labels, where that is better "
        "than a constant answer."
    )
    shares, lines, rows = _shares(about), list[plots.Line](), list[list[str]]()
    for name, item in about["regimes"].items():
        known = [(at["labels"], at["value"]) for at in item["further"] if at["value"] is not None]
        lines += [plots.Line(name, known)] if known else []
        for way, changed in (("further", item["changed"]), ("anew", None)):
            needed = item["labels_needed"][way]
            rows.append([
                escape(name), way, *(_learnt(item[way], share) for share in shares), "—" if needed is None else f"{needed:,}",
                "everything" if changed is None else escape(_changed(changed)),
            ])  # fmt: skip
    alt = f"{about['goal']} by its labels, going on from the finished training of each regime"
    drawn = plots.curves(lines, x=f"labels of {about['output']}", y=about["metric"], alt=alt) if lines else ""
    names = ["", "", *(f"{share:.0%} of the labels" for share in shares), "needed", "what is new or other"]
    return f'<p class="quiet">{escape(told)}</p>' + drawn + _table(names, rows, numbers=range(2, len(names) - 1))


def _changed(changed: Mapping[str, Any]) -> str:
    return f"{', '.join(changed['parts'])}: {changed['parameters']:,} numbers, {changed['share']:.0%} of all"


def _shares(about: Mapping[str, Any]) -> list[float]:
    return sorted(
        {at["share"] for item in about["regimes"].values() for way in ("further", "anew") for at in item[way]}
    )


def _learnt(points: Sequence[Mapping[str, Any]], share: float) -> str:
    at = next((point for point in points if point["share"] == share), None)
    return "—" if at is None else f"{_estimate(at)}, n = {at['n']}, {_seconds(60 * at['minutes'])}"


def _intervals(items: Mapping[str, Mapping[str, Any]]) -> list[plots.Interval]:
    return [
        plots.Interval(
            name, item["value"], item["low"], item["high"], [one for one in item.get("seeds", ()) if one is not None]
        )
        for name, item in items.items()
        if item["value"] is not None
    ]


# ---- the answers on the way ----------------------------------------------------------------------------------------


def _intermediates(found: Mapping[str, Any]) -> str:
    rows = [
        [escape(output), escape(name), escape(item["metric"]), _estimate(value)]
        for output, item in found["intermediates"].items()
        for name, value in item["regimes"].items()
    ]
    if not rows:
        return ""
    lost = "".join(
        f'<li><span class="wrong">{escape(item["output"])} in {escape(item["regime"])}</span>: worse than in '
        f"{escape(item['against'])} by {_estimate(item['worse_by'])}; it has lost its meaning.</li>"
        for item in found["drift"]
    )
    watch = f"<ul>{lost}</ul>" if lost else "<p>None of them has drifted away from its meaning.</p>"
    return watch + _table(["answer", "regime", "metric", ""], rows, numbers=(3,))


def _oracle(found: Mapping[str, Any]) -> str:
    if not found["attribution"]:
        return ""
    parts = [
        "<p>Each answer on the way is replaced by the true one, one more at a time, beginning upstream: what is gained is what it had "
        "lost. What is lacking in the end is lost by the last stage.</p>"
    ]
    parts += [_waterfall(found, name) for name in _chosen(found)]
    rows = [
        [escape(name), escape(" and ".join(step["replaced"])), _estimate(step["value"]), _estimate(step["gain"])]
        for name, item in found["attribution"].items()
        for step in item["oracle"]
    ]
    return "".join(parts) + _table(["regime", "replaced by the truth", found["goal"], "gained"], rows, numbers=(2, 3))


def _waterfall(found: Mapping[str, Any], name: str) -> str:
    """The loss of each stage of a regime, from the goal as it is to the goal with the truth on the way."""
    item, goal = found["attribution"][name], found["about"]
    steps = [step for step in _grown(item["oracle"]) if step["value"]["value"] is not None]
    plain = next(iter(item["noise"].values()))[0]  # on the same rows as the steps, without noise
    if not steps or plain["value"] is None:
        return ""
    makers = {output: stage for stage, own in found["stages"].items() for output in own["to"]}
    every = "all true" if len(steps[-1]["replaced"]) == len(item["noise"]) else "these true"
    ends = [
        plots.Interval(told, at["value"], at["low"], at["high"])
        for told, at in (("as it is", plain), (every, steps[-1]["value"]))
    ]
    bars = [(f"{makers[step['replaced'][-1]]}: {step['replaced'][-1]} true", step["value"]["value"]) for step in steps]
    told = f"{name}: {found['goal']} with the truth on the way, stage by stage ({_better(found)}; +: better)"
    return plots.waterfall(ends[0], bars, ends[1], x=goal["metric"], alt=told, larger=goal["direction"] == "max")


def _chosen(found: Mapping[str, Any]) -> list[str]:
    """The two that the verdict is about; others have rows in the table."""
    pair = [found["against"]["pipeline"], found["against"]["end_to_end"]]
    return [name for name in pair if name in found["attribution"]] or list(found["attribution"])[:2]


def _grown(steps: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One more at a time, without those that are replaced alone."""
    kept: list[Mapping[str, Any]] = []
    for step in steps:
        if len(step["replaced"]) == len(kept) + 1:
            kept.append(step)
    return kept


def _noise(found: Mapping[str, Any]) -> str:
    outputs = list(next(iter(found["attribution"].values()))["noise"]) if found["attribution"] else []
    parts = []
    for output in outputs:
        lines = [
            plots.Line(
                name,
                [(point["share"], point["value"]) for point in item["noise"][output] if point["value"] is not None],
            )
            for name, item in found["attribution"].items()
        ]
        told = f"{found['goal']} with noise on {output} on its way to the next stage (share of symbols replaced, or standard deviations)"
        parts.append(plots.curves(lines, x=f"noise on {output}", y=found["about"]["metric"], alt=told))
    return "".join(parts)


# ---- fewer labels, other rows ----------------------------------------------------------------------------------------


def _curves(found: Mapping[str, Any]) -> str:
    items, pair = [], {found["against"]["pipeline"], found["against"]["end_to_end"]} - {None}
    banded = pair or set(found["curves"])
    for name, points in found["curves"].items():
        known = [point for point in points if None not in (point["value"], point["low"], point["high"])]
        measured = [(point["rows"], one) for point in known for one in point["seeds"] if one is not None]
        low, high = ("low", "high") if name in banded else ("value", "value")
        line = [(point["rows"], point["value"], point[low], point[high]) for point in known]
        items.append(plots.Forecast(name, measured, line))
    if not items:
        return ""
    told = f"{found['goal']} by rows to learn from ({_better(found)}): dots are trainings, bands 95 % intervals of those that the verdict is about"
    shares = sorted({point["share"] for points in found["curves"].values() for point in points})
    rows = []
    for name, points in found["curves"].items():  # a training that came to nothing leaves its place empty
        at = {point["share"]: point for point in points}
        rows.append([escape(name), *(_estimate(at.get(share)) for share in shares)])
    drawn = plots.forecasts(items, x="training rows", y=found["about"]["metric"], alt=told)
    names = [f"{share:.0%}" for share in shares]
    return drawn + _table(["labels", *names], rows, numbers=range(1, 1 + len(names)))


def _shift(found: Mapping[str, Any]) -> str:
    items = found["shift"]["regimes"]
    if not items:
        return ""
    how = f'<p class="quiet">{escape(found["shift"]["how"])}.</p>'
    if any(isinstance(point["what"], str) for points in items.values() for point in points):
        known = {**found["regimes"], **found["baselines"].get(found["about"]["output"], {})}
        both = []
        for name, points in items.items():
            both += _intervals({name: known[name]})
            both += [replace(item, like=name) for item in _intervals({"held out": points[0]})]
        told = f"{found['goal']} on test rows of the known groups and, below each, on the group that was held out"
        return how + plots.intervals(both, x=found["about"]["metric"], alt=told)
    lines = [
        plots.Line(name, [(x, y) for x, y in _from_none(found["regimes"][name], points) if y is not None])
        for name, points in items.items()
    ]
    told = f"{found['goal']} with disturbed inputs ({_better(found)})"
    drawn = plots.curves(lines, x="strength of the noise", y=found["about"]["metric"], alt=told)
    names = ["noise", *(f"{point['what']:g}" for point in next(iter(items.values())))]
    rows = [[escape(name), *map(_estimate, points)] for name, points in items.items()]
    return how + drawn + _table(names, rows, numbers=range(1, len(names)))


def _from_none(own: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> list[tuple[float, float | None]]:
    """The goal by the strength of the noise, beginning without any."""
    return [(0.0, own["value"]), *((point["what"], point["value"]) for point in points)]


# ---- gradients, costs, the table ---------------------------------------------------------------------------------------


def _reach(found: Mapping[str, Any]) -> str:
    staged = {name: norms for name, norms in found["reach"].items() if len(norms) > 1}
    parts = []
    for stage in found["stages"] if staged else ():
        bars = [(name, norms[stage], f"{norms[stage]:.2g}") for name, norms in staged.items() if stage in norms]
        if not bars:  # a function has no tokens
            continue
        parts.append(
            plots.bars(bars, alt=f"{stage}: norm of the goal's gradient at its tokens after training; 0: it is cut")
        )
    return "".join(parts)


def _costs(found: Mapping[str, Any]) -> str:
    rows = []
    for name, cost in found["costs"].items():
        latency = f"{cost['p50_ms']:.1f} / {cost['p95_ms']:.1f} ms" if "p50_ms" in cost else "—"
        latency += f", {cost['timed_answers']}" if "timed_answers" in cost else ""
        memory = "—" if cost["peak_mb"] is None else f"{cost['peak_mb']:,.0f} MB"
        rows.append([
            escape(name), _seconds(cost["seconds"]), f"{cost['energy_wh']:.2g} Wh", memory, f"{cost['parameters']:,}", latency,
            _seconds(60 * cost["minutes_to_answer"]) if "minutes_to_answer" in cost else "—", str(cost["trained_parts"]), str(cost["artefacts"]), str(cost["declared_lines"]),
        ])  # fmt: skip
    names = [
        "",
        "training",
        "energy",
        "memory",
        "parameters",
        "p50 / p95, n",
        "to answer",
        "parts",
        "models",
        "lines",
    ]
    told = (
        "Of one training on all labels: time, energy (an estimate) and most memory of the process; "
        "of one answer: milliseconds, and of how many; to answer, from the data to a served one: reading the rows, training, loading the models until "
        "they answer; parts that are trained, models to keep, lines to declare."
    )
    return f'<p class="quiet">{told}</p>' + _table(names, rows, numbers=range(1, len(names)))


def _aspects(found: Mapping[str, Any]) -> str:
    names = list(found["regimes"])
    rows = [
        [f'{escape(row["aspect"])}<br><span class="quiet">{escape(row["measured"])}</span>',
         *(escape(row["regimes"].get(name, "—")) for name in names)]
        for row in found["table"]
    ]  # fmt: skip
    return _table(["", *names], rows)


def _how(found: Mapping[str, Any]) -> str:
    sides = found["rows"]
    notes = "".join(f"<li>{escape(note)}</li>" for note in found["notes"])
    return (
        f"<p>{sides['train']:,} rows to learn from, {sides['val']:,} to choose by, {sides['test']:,} to judge on.</p>"
        f"<p>{escape(found['rule'])}</p><ul>{notes}</ul>"
    )


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.4g}"


__all__ = ["build"]
