"""The page of an advice: the verdict, the learning curves with what is foreseen, the rivals, the labels and their cost.

`build(folder)` reads advice.json and nothing else. One self-contained file in the looks of a run's report.
"""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from endwise.errors import ModelError
from endwise.files import read_json, write_text
from endwise.report import _estimate, _seconds, _table, document, plots

RESULT, PAGE = "advice.json", "report.html"


def build(folder: str | Path) -> Path:
    """Write report.html beside advice.json and return its path; ModelError where there is none."""
    source, target = Path(folder) / RESULT, Path(folder) / PAGE
    if not source.is_file():
        raise ModelError(f"{folder} holds no advice ({RESULT}). Fix: endwise advise RECIPE --out {folder} --resume.")
    write_text(target, _page(read_json(source)))
    return target


def _page(found: Mapping[str, Any]) -> str:
    sections = [
        ("curves", "Learning curves", _curves(found)),
        ("rivals", "The rivals", _rivals(found)),
        ("labels", "Labels and their cost", _labels(found)),
        ("how", "How this was decided", _how(found)),
    ]
    return document(f"Advice: {found['name']}", _opening(found), sections)


def _opening(found: Mapping[str, Any]) -> str:
    said = found["headline"]
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in found["reasons"])
    return (
        f'<p class="verdict"><strong>{escape(said[0].upper() + said[1:])}.</strong></p><ul>{reasons}</ul>'
        f'<p class="quiet">What would change this: {escape(found["would_change"])}</p>'
    )


def _curves(found: Mapping[str, Any]) -> str:
    target = next((item["target"] for item in found["labels_to_target"].values()), None)
    items = []
    for arm in found["arms"]:
        rows = sorted((row for row in found["curve"] if row["arm"] == arm), key=lambda row: row["labels"])
        measured = [(row["labels"], value) for row in rows if row["measured"] for value in row["seeds"]]
        line = [(row["labels"], (row["low"] + row["high"]) / 2 if row["measured"] else row["value"], row["low"], row["high"])
                for row in rows]  # fmt: skip
        items.append(plots.Forecast(arm, measured, line))
    better = "larger is better" if found["direction"] == "max" else "smaller is better"
    told = f"{found['metric']} of {found['output']} ({better}) by labels: dots are trainings, bands 80 % intervals"
    told += f"; the dashed line is the target of {target:g}" if target is not None else ""
    drawn = plots.forecasts(items, x="labels", y=found["metric"], alt=told, level=target)
    crossings = "".join(f"<li>{_crossing(item)}</li>" for item in found["crossings"])
    return drawn + (f"<ul>{crossings}</ul>" if crossings else "")


def _crossing(item: Mapping[str, Any]) -> str:
    pair = f"{escape(item['first'])} and {escape(item['second'])}"
    if item["labels"] is None:
        return f"{pair}: no crossing seen up to {item['looked_to']:,} labels; {escape(item['leader'])} is ahead."
    at = item["labels"]
    return (
        f"{pair}: cross at {at['value']:,.0f} labels [{at['low']:,.0f} to {at['high']:,.0f}]; "
        f"{escape(item['leader'])} is ahead after that."
    )


def _rivals(found: Mapping[str, Any]) -> str:
    rows = []
    for name, arm in found["arms"].items():
        latency = "not measured" if arm["latency_ms"] is None else f"{arm['latency_ms']:.3g} ms"
        judged = f"put aside: {escape(arm['fails'])}" if arm["fails"] else ""
        rows.append(
            [escape(name), escape(arm["about"]), _estimate(arm["value"]), _seconds(arm["train_s"]), latency, judged]
        )
    told = f"{found['metric']} at {found['labels']:,} labels"
    table = _table(["arm", "what it is", told, "trained in", "one answer", ""], rows, numbers=(2,))
    pairs = [
        [
            f"{escape(item['first'])} over {escape(item['second'])}",
            _estimate(item["better_by"]),
            "the same test rows" if item["paired"] else "the curves",
        ]
        for item in found["differences"]
    ]
    trivial = next(iter(found["arms"].values()))["trivial"]
    constant = f"<p>A constant answer reaches {trivial:.4g}. " if isinstance(trivial, int | float) else "<p>"
    return (
        table
        + constant
        + f"Differences of less than {found['margin']:.3g} do not matter here.</p>"
        + (_table(["better by", "", "measured on"], pairs, numbers=(1,)) if pairs else "")
    )


def _labels(found: Mapping[str, Any]) -> str:
    rows = []
    for arm, item in found["labels_to_target"].items():
        labels, more, cost = item["labels"], item.get("more"), item.get("cost")
        rows.append(
            [escape(arm), f"{item['target']:g}", item["state"], _span(labels), _span(more), _span(cost, ",.2f")]
        )
    if not rows:
        return ""
    names = ["arm", "target", "", "labels [80 %]", "more than at hand", "cost"]
    return _table(names, rows, numbers=(1, 3, 4, 5))


def _span(value: Mapping[str, Any] | None, form: str = ",.0f") -> str:
    if value is None:
        return "—"
    low, high = ("?" if value[key] is None else format(value[key], form) for key in ("low", "high"))
    return f'{format(value["value"], form)} <span class="quiet">[{low}, {high}]</span>'


def _how(found: Mapping[str, Any]) -> str:
    cost = found["cost"]
    measured = sorted((row for row in found["curve"]), key=lambda row: (row["labels"], row["arm"]))
    rows = [
        [f"{row['labels']:,}", escape(row["arm"]), f"{row['value']:.4g}", f'<span class="quiet">[{row["low"]:.3g}, {row["high"]:.3g}]</span>',
         f"measured, {len(row['seeds'])} seeds" if row["measured"] else "foreseen"]
        for row in measured
    ]  # fmt: skip
    notes = "".join(f'<p class="quiet">{escape(note)}</p>' for note in found["notes"])
    return (
        f"<p>Every arm learnt from the same nested parts of {found['labels_at_hand']:,} labels and answered the same "
        f"{found['test_rows']:,} test rows. {cost['trainings']} trainings took {_seconds(cost['spent_s'])}, "
        f"{cost['ratio']:.2f} times one training of all labels (planned: {cost['planned_ratio']:.2f}).</p>"
        + _table(["labels", "arm", found["metric"], "80 % of the curve", ""], rows, numbers=(0, 2, 3))
        + notes
    )


__all__ = ["build"]
