"""The report: one self-contained HTML file that opens without a network.

`build(run)` reads the run folder and nothing else, so a report can be written again at any time. Every text that came
from data is escaped where it enters the page. Drawing is in plots.py, looks in page.css.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from endwise.errors import ModelError
from endwise.files import write_text
from endwise.report import gradients, plots
from endwise.run import Run
from endwise.scores import verdict

MAX_CLASSES_DRAWN = 80
MOST_THINGS = 12  # in boxes, told one by one
BETTER = {"min": "smaller is better", "max": "larger is better"}
ARROWS = {"min": '<span title="smaller is better">↓</span>', "max": '<span title="larger is better">↑</span>'}
PLANES_TOLD = (
    "Planes through the middle of a thing, first of what was missed and of what is not there: from above, from the front, from "
    "the side. Green: the truth; red and dashed: the answer. In words a box is its middle and its sides."
)
# a drawing in an <img> can neither run anything nor load anything
SAFE_MEDIA = (
    "data:image/png;base64,",
    "data:image/jpeg;base64,",
    "data:image/svg+xml;base64,",
    "data:audio/wav;base64,",
)


def build(run: Run) -> Path:
    """Write `report.html` into the run's folder and return its path; ModelError where nothing was trained."""
    if not run.has("log.jsonl") and not run.has("metrics.json"):
        raise ModelError(
            f"{run.path} holds a recipe and no training to report on ({run.path / 'recipe.yaml'}). "
            f"Fix: endwise train {run.path / 'recipe.yaml'}."
        )
    target = run.path / "report.html"
    write_text(target, _page(_Facts(run)))
    return target


class _Facts:
    """What the run folder holds, read once; a missing file is an empty mapping and its section says so."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.recipe = run.recipe
        self.plan = run.read("plan.json") if run.has("plan.json") else {}
        self.data = run.read("data.json") if run.has("data.json") else {}
        self.metrics = run.read("metrics.json") if run.has("metrics.json") else {}
        self.details = run.read("details.json") if run.has("details.json") else {}
        self.folds = run.read("folds.json") if run.has("folds.json") else {}
        self.info = run.info()
        events = list(run.events())
        # a resumed or rolled-back run logs some steps twice: the last word counts
        self.steps = list({event["step"]: event for event in events if event["event"] == "step"}.values())
        self.evals = list({event["step"]: event for event in events if event["event"] == "eval"}.values())
        self.incidents = [event for event in events if "message" in event]


def _page(facts: _Facts) -> str:
    sections = [
        ("results", "Results", _results(facts)),
        ("mistakes", "Worst mistakes", _mistakes(facts)),
        ("drawn", "What is drawn", _drawings(facts)),
        ("groups", "Which rows are worse than the rest", _slices(facts)),
        ("labels", "Labels that look wrong", _suspects(facts)),
        ("answers", "How the answers behave", _behaviour(facts)),
        ("certainty", "What confidence is worth", _certainty(facts)),
        ("retrieval", "What is found by what", _retrieval(facts)),
        ("learning", "How it learnt", _learning(facts)),
        ("depth", "What each layer already knows", _depth(facts)),
        ("data", "The data", _data(facts)),
        ("time", "Where the time went", _timing(facts)),
        ("made", "What made this run", _made(facts)),
    ]
    return document(facts.recipe.name or "run", _opening(facts), sections)


def document(title: str, opening: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """One page of (key, heading, content), those without content left out, in the looks that all reports have."""
    style = (resources.files("endwise.report") / "page.css").read_text(encoding="utf-8")
    shown = [(key, name, body) for key, name, body in sections if body]
    nav = "".join(f'<a href="#{key}">{name}</a>' for key, name, _ in shown)
    body = "".join(f'<section id="{key}"><h2>{name}</h2>{content}</section>' for key, name, content in shown)
    title = escape(title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        # no favicon request, no script, nothing from elsewhere
        '<link rel="icon" href="data:,"><meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:\">"
        f"<title>{title}</title><style>{style}</style></head><body><main><h1>{title}</h1>{opening}<nav>{nav}</nav>{body}"
        "</main></body></html>\n"
    )


# ---- sections --------------------------------------------------------------------------------------------------


def _opening(facts: _Facts) -> str:
    recipe = facts.recipe
    inputs = "".join(f"<span>{escape(name)}: {escape(item.type)}</span>" for name, item in recipe.inputs.items())
    outputs = "".join(f"<span>{escape(name)}: {escape(item.type)}</span>" for name, item in recipe.outputs.items())
    network = f"one network, {facts.plan['parameters']:,} parameters" if facts.plan else "one network"
    return f'<div class="path">{inputs}<b>→</b><span>{network}</span><b>→</b>{outputs}</div><p class="verdict">{_verdict(facts)}</p>{_alarms(facts)}'


def _alarms(facts: _Facts) -> str:
    """What went wrong in silence and stands, before anybody reads on."""
    return "".join(
        f'<p><span class="wrong">{escape(alarm["name"].replace("_", " "))}</span>: {escape(alarm["message"])}</p>'
        for alarm in facts.metrics.get("alarms", [])
    )


def _verdict(facts: _Facts) -> str:
    """The goal in one sentence, beside its baselines, with 'better' only where the intervals say so."""
    goal = facts.info.get("goal") or facts.plan.get("goal")
    if not goal or not facts.metrics:
        return "This run has no evaluation yet: it was stopped early, or has no validation and test rows."
    output, metric = goal["output"], goal["metric"]
    own = facts.metrics["outputs"][output].get(metric)
    if own is None or own["value"] is None:
        return f"The goal, {escape(metric)} of {escape(output)}, is not defined on these rows."
    sentence = f"{escape(metric)} of {escape(output)}: <strong>{_estimate(own)}</strong> on {own['n']} {escape(facts.metrics.get('split', ''))} rows."
    base = facts.metrics.get("baselines", {}).get(output, {})
    for kind in ("classical", "trivial"):
        other = (base.get(kind) or {}).get(metric)
        if other is not None and other["value"] is not None:
            return f"{sentence} {_against(own, other, goal['direction'], kind)}"
    return f"{sentence} There is no baseline to hold it against."


def _against(own: Mapping[str, Any], other: Mapping[str, Any], direction: str, kind: str) -> str:
    said = verdict(own, other, direction)
    loud = f"<strong>{said}</strong>" if said.startswith("the baseline") else said
    return f"The {kind} baseline reaches {_estimate(other)}: {loud}"


def _results(facts: _Facts) -> str:
    if not facts.metrics:
        return '<p class="quiet">Not evaluated.</p>'
    parts = [
        f'<p class="quiet">Values on the {escape(facts.metrics.get("split", "evaluated"))} rows, with 95 % bootstrap intervals over rows. '
        "Trivial: the best constant answer. Classical: hand features and a scikit-learn model. ↑ larger, ↓ smaller is better.</p>"
    ]
    for output, values in facts.metrics["outputs"].items():
        base = facts.metrics.get("baselines", {}).get(output, {})
        unit = getattr(facts.recipe.outputs.get(output), "unit", None)
        directions = facts.details.get("outputs", {}).get(output, {}).get("directions", {})
        rows = []
        for name, own in values.items():
            cells = [
                escape(name),
                _estimate(own),
                *(_estimate((base.get(kind) or {}).get(name)) for kind in ("trivial", "classical")),
            ]
            cells += [str(own["n"]), ARROWS.get(directions.get(name, ""), "")]
            rows.append(cells)
        heading = escape(output) + (f" ({escape(unit)})" if unit else "")
        parts.append(
            f"<h3>{heading}</h3>"
            + _table(["metric", "this network", "trivial", "classical", "n", ""], rows, numbers=(1, 2, 3, 4))
        )
    parts += [f'<p class="quiet">{escape(note)}</p>' for note in facts.metrics.get("notes", [])]
    return "".join(parts) + _folds(facts) + _ablation(facts) + _groups(facts)


def _folds(facts: _Facts) -> str:
    """Cross-validation: the same table over all rows, each answered by a model that did not see it."""
    parts = []
    for output, values in facts.folds.get("outputs", {}).items():
        base = facts.folds["baselines"].get(output, {})
        rows = [
            [
                escape(name),
                _estimate(own),
                *(_estimate((base.get(kind) or {}).get(name)) for kind in ("trivial", "classical")),
                str(own["n"]),
            ]
            for name, own in values.items()
        ]
        parts.append(
            f"<h3>{escape(output)}, cross-validated in {len(facts.folds['folds'])} folds</h3>"
            '<p class="quiet">With so few rows one split says little: here every row is answered once, by a model that did not see it.</p>'
            + _table(["metric", "this network", "trivial", "classical", "n"], rows, numbers=(1, 2, 3, 4))
        )
    return "".join(parts)


def _ablation(facts: _Facts) -> str:
    """What each input was worth: the goal with that input left out."""
    found = facts.metrics.get("ablation")
    if not found:
        return ""
    return "<h3>What each input is worth</h3>" + _generic(found)


def _groups(facts: _Facts) -> str:
    found = facts.metrics.get("by")
    return "" if not found else "<h3>By group</h3>" + _generic(found)


def _slices(facts: _Facts) -> str:
    """The groups of rows that are worse beyond chance, or that there are none."""
    parts = []
    for output, found in facts.metrics.get("slices", {}).items():
        rows = [
            [
                escape(item["column"]), escape(item["group"]), str(item["worse_by"]["n"]), f"{item['score']:.3g}",
                f"{item['rest']:.3g}", _estimate(item["worse_by"]), f"{item['share']:.0%}",
            ]
            for item in found["found"]
        ]  # fmt: skip
        looked = f"{found['looked_at']} groups of {found['rows']:,} rows were looked at"
        told = f"{looked}; no group is worse than the rest beyond chance." if not rows else (
            f"{looked}; these are worse than the rest beyond what chance shows when so many are looked at. The interval holds for all "
            "of them together; the last column is what part of all that is wrong would be gone if the group were like the rest."
        )  # fmt: skip
        parts.append(f'<h3>{escape(output)}</h3><p class="quiet">{told}</p>')
        if rows:
            names = ["column", "group", "n", found["measure"], "of the rest", "worse by", "part of all"]
            parts.append(_table(names, rows, numbers=(2, 3, 4, 5, 6)))
    return "".join(parts)


def _suspects(facts: _Facts) -> str:
    """Rows to look at: the label, what the network would rather say, and how sure it is of either."""
    parts = []
    for output, found in (
        facts.folds.get("suspects") or facts.metrics.get("suspects", {})
    ).items():  # folds answer every row
        if not found["rows"]:
            continue
        rows = [
            [escape(item["origin"]), escape(item["label"]), f"{item['given']:.2f}", escape(item["rather"]), f"{item['other']:.2f}"]
            for item in found["rows"]
        ]  # fmt: skip
        parts.append(
            f'<h3>{escape(output)}</h3><p class="quiet">Share of labels suspected: {_estimate(found["suspected"])} of {found["n"]:,}, by '
            "the network's own answers to rows that training did not see (confident learning). A suspicion, not a finding: look at them.</p>"
            + _table(["row", "label", "its probability", "rather", "its probability"], rows, numbers=(2, 4))
        )
    return "".join(parts)


def _mistakes(facts: _Facts) -> str:
    parts = []
    for output, detail in facts.details.get("outputs", {}).items():
        items = detail.get("mistakes") or []
        if not items:
            continue
        cards = "".join(f"<li>{_card(item)}</li>" for item in items)
        wide = any("views" in (item.get("drawn") or {}) for item in items)
        told = f'<p class="quiet">{PLANES_TOLD}</p>' if wide else ""
        parts.append(f'<h3>{escape(output)}</h3>{told}<ul class="mistakes{" wide" if wide else ""}">{cards}</ul>')
    return "".join(parts)


def _drawings(facts: _Facts) -> str:
    """Rows with what was asked, the truth, and several answers that were drawn."""
    parts = []
    for output, detail in facts.details.get("outputs", {}).items():
        items = detail.get("drawings") or []
        rows = [
            [
                "".join(_preview(name, value) for name, value in item["inputs"].items())
                + f'<div class="quiet">{escape(item["origin"])}</div>',
                _value("right", item["truth"]),
                *(_value("wrong", drawn) for drawn in item["drawn"]),
            ]
            for item in items
        ]
        if rows:
            drawn = [f"drawn, no. {number}" for number in range(1, len(rows[0]) - 1)]
            parts.append(f"<h3>{escape(output)}</h3>" + _table(["asked for", "in the data", *drawn], rows))
    told = "Scored rows, what the data has for each, and answers drawn from different seeds: all of them may be right."
    return f'<p class="quiet">{told}</p>{"".join(parts)}' if parts else ""


def _card(item: Mapping[str, Any]) -> str:
    drawn = item.get("drawn") or {}
    shown = "".join(
        _shown_input(name, value, drawn if name == drawn.get("on") else {})
        for name, value in item.get("inputs", {}).items()
    )
    confidence = item.get("confidence")
    sure = f' <span class="quiet">({confidence:.0%} sure)</span>' if isinstance(confidence, int | float) else ""
    answer, truth = (_counted(drawn[side]) if side in drawn else item[side] for side in ("answer", "truth"))
    return (
        f"{shown}<div>answer {_value('wrong', answer)}{sure}</div>"
        f'<div>truth {_value("right", truth)}</div><div class="quiet">{escape(str(item.get("origin", "")))}</div>{_doubt(item)}{_leaning(item)}'
    )


def _shown_input(name: str, value: Mapping[str, str], drawn: Mapping[str, Any]) -> str:
    """An input as it is, with what lies on it, or in pictures of its parts."""
    if "views" in drawn:
        return "".join(
            _outlined(f"planes of {name} through {view['about']}", {"kind": "image", "data": view["data"]}, view)
            for view in drawn["views"]
        )
    return _outlined(name, value, drawn) if drawn else _preview(name, value)


def _doubt(item: Mapping[str, Any]) -> str:
    """Where the error lies that an answer expects of itself, and where it is off."""
    doubt = item.get("doubt")
    if not doubt:
        return ""
    views = "".join(
        f'<div><span class="quiet">{escape(view["about"])}</span>{_preview(view["about"], {"kind": "image", "data": view["data"]})}</div>'
        for view in doubt["views"]
    )
    return f'<div class="doubt">{views}<div class="quiet">{escape(doubt["told"])}</div></div>'


def _leaning(item: Mapping[str, Any]) -> str:
    """What a wrong answer leans on: over a picture, or the strongest words, stretches and cells; and whether to believe it."""
    why = item.get("why")
    if not why:
        return f'<div class="quiet">{escape(item["why_not"])}: endwise explain</div>' if "why_not" in item else ""
    parts = []
    for given in why["inputs"]:
        if given["image"]:
            parts.append(
                _preview(f"what the answer leans on in {given['name']}", {"kind": "image", "data": given["image"]})
            )
        told = ", ".join(f"{escape(str(piece['where']))} {piece['share']:+.0%}" for piece in given["pieces"])
        parts.append(f"<div>{escape(given['name'])}: {told or 'nothing'}</div>")
    doubt = {True: "reliable", False: "not reliable", None: "cannot be graded"}[why["reliable"]]
    return (
        f"<details><summary>why {escape(str(why['about']))} ({doubt})</summary>{''.join(parts)}"
        f'<div class="quiet">{escape(why["verdict"])}; orange and + speak for the answer, blue and − against it</div></details>'
    )


def _value(kind: str, value: Any) -> str:
    """An answer or a truth: a player, a picture, or text."""
    if isinstance(value, str) and value.startswith(SAFE_MEDIA):
        return _preview(kind, {"kind": "audio" if value.startswith("data:audio") else "image", "data": value})
    if value == "" or value == []:
        return f'<span class="{kind}">(nothing)</span>'
    if _are_things(value):
        return f'<span class="{kind}">{"<br>".join(map(escape, _things(value)))}</span>'
    return f'<span class="{kind}">{escape(_text(value))}</span>'


def _are_things(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, Mapping) and {"label", "box"} <= set(item) for item in value)
    )


def _things(value: Sequence[Mapping[str, Any]]) -> list[str]:
    """'nodule at 13, 30, 13 (9 x 11 x 8), 27 %' of each thing in a box: its middle, its sides."""
    told = []
    for item in value[:MOST_THINGS]:
        half = len(item["box"]) // 2
        ends = list(zip(item["box"][:half], item["box"][half:], strict=True))
        form = ".3g" if max(map(abs, item["box"])) <= 1 else ".0f"  # shares, or places
        middle = ", ".join(f"{(low + high) / 2:{form}}" for low, high in ends)
        sides = " x ".join(f"{high - low:{form}}" for low, high in ends)
        score = f", {100 * item['score']:.0f} %" if "score" in item else ""
        told.append(f"{item['label']} at {middle} ({sides}){score}")
    return [*told, f"and {len(value) - MOST_THINGS} more"] if len(value) > MOST_THINGS else told


def _counted(outlines: Sequence[Mapping[str, Any]]) -> str:
    """'12 RBC, 1 WBC' of what is outlined on the picture."""
    counts = Counter(str(item["label"]) for item in outlines)
    return ", ".join(f"{count} {label}" for label, count in counts.most_common())


def _outlined(name: str, value: Mapping[str, str], drawn: Mapping[str, Any]) -> str:
    """A picture with what is true and what was answered drawn over it."""
    picture = _preview(name, value)
    if not picture.startswith("<img"):
        return picture
    boxes = [
        f'<rect class="{kind}" x="{x:.2%}" y="{y:.2%}" width="{w:.2%}" height="{h:.2%}"><title>{_named(kind, item)}</title></rect>'
        for kind, side in (("right", "truth"), ("wrong", "answer"))
        for item in drawn[side]
        for x, y, w, h in [map(float, item["box"])]
    ]
    parts = [
        f'<rect class="{kind} part" x="{x:.2%}" y="{y:.2%}" width="{w:.2%}" height="{h:.2%}"/>'
        for kind, side in (("right", "truth"), ("wrong", "answer"))
        for item in drawn[side]
        for x, y, w, h in item.get("parts", ())
    ]
    told = "green: the truth, red and dashed: the answer; point at a box for its name"
    return f'<div class="outlined">{picture}<svg role="img" aria-label="{told}">{"".join(parts + boxes)}</svg></div>'


def _named(kind: str, item: Mapping[str, Any]) -> str:
    score = f" {item['score']:.2f}" if "score" in item else ""
    return escape(f"{'truth' if kind == 'right' else 'answer'}: {item['label']}{score}")


def _preview(name: str, value: Mapping[str, str]) -> str:
    kind, data = value.get("kind"), value.get("data", "")
    if kind == "image" and data.startswith(SAFE_MEDIA):
        return f'<img src="{escape(data)}" alt="{escape(name)}">'
    if kind == "audio" and data.startswith(SAFE_MEDIA):
        return f'<audio controls preload="none" src="{escape(data)}" aria-label="{escape(name)}"></audio>'
    return f'<div><span class="quiet">{escape(name)}</span> {escape(data[:400])}{"…" if len(data) > 400 else ""}</div>'


def _behaviour(facts: _Facts) -> str:
    parts = []
    for output, detail in facts.details.get("outputs", {}).items():
        drawn = []
        confusion = detail.get("confusion")
        if confusion and 1 < len(confusion["names"]) <= MAX_CLASSES_DRAWN:
            drawn.append(plots.heatmap(confusion["names"], confusion["counts"], alt=f"Confusion of {output}"))
        if detail.get("reliability"):
            bins = [
                (float(item["confidence"]), float(item["accuracy"]), int(item["n"]))
                for item in detail["reliability"]
                if item["n"]
            ]
            drawn.append(
                plots.reliability(bins, alt=f"Calibration of {output}: on the line, confidence means what it says")
            )
        if detail.get("roc"):
            drawn.append(
                plots.curves(
                    [plots.Line("roc", [tuple(point) for point in detail["roc"]])],
                    x="false positive rate",
                    y="true positive rate",
                    alt=f"ROC of {output}",
                )
            )
        if detail.get("froc"):
            alt = f"Sensitivity of {output} by false alarms: the metric froc is the mean of these"
            drawn.append(plots.froc([(float(alarms), float(found)) for alarms, found in detail["froc"]], alt=alt))
        if detail.get("pairs"):
            pairs = [(float(pair[0]), float(pair[1])) for pair in detail["pairs"]]
            drawn.append(plots.scatter(pairs, x="truth", y="answer", alt=f"Answers of {output} against the truth"))
            residuals = [(truth, answer - truth) for truth, answer in pairs]
            drawn.append(
                plots.scatter(residuals, x="truth", y="answer − truth", alt=f"Residuals of {output}", diagonal=False)
            )
        drawn += [_forecast(output, item) for item in detail.get("forecasts", [])]
        drawn += [plots.paths(item["agents"], alt=f"{output}: {item['origin']}") for item in detail.get("paths", [])]
        classes = detail.get("classes")
        table = _generic(classes, limit=100) if classes else ""
        if drawn or table:
            folded = f"<details><summary>{escape(output)} class by class</summary>{table}</details>" if table else ""
            parts.append(f'<h3>{escape(output)}</h3><div class="pair">{"".join(drawn)}</div>{folded}')
    return "".join(parts)


def _certainty(facts: _Facts) -> str:
    """The risk of the surest answers at every coverage, calibration, sets, and what abstaining leaves."""
    parts = []
    for output, found in facts.metrics.get("certainty", {}).items():
        points = [(item["coverage"], item) for item in found["curve"]]
        ends = [[(at, item[side]) for at, item in points if item[side] is not None] for side in ("low", "high")]
        curves = [plots.Line("the surest answers", [(at, item["error"]) for at, item in points])]
        curves += [
            plots.Line(f"95 %, {side}", line, faint=True)
            for side, line in zip(("low", "high"), ends, strict=True)
            if line
        ]
        drawn = plots.curves(
            curves, x="share of rows answered", y=found["risk"],
            alt=f"Risk of {output} against coverage: the surest answers first",
        )  # fmt: skip
        rows = [[f"{found['risk']}, all answered", _estimate(found["error"])],
                ["area under the curve (aurc)", _estimate(found["aurc"])]]  # fmt: skip
        for side, estimate in found.get("calibration_error", {}).items():
            rows.append([f"calibration error {side} calibration", _estimate(estimate)])
        if "set" in found:
            part = found["set"]
            rows.append([f"sets that hold the truth, {part['nominal']:.0%} meant", _estimate(part["coverage"])])
            rows.append(["values in a set", _estimate(part["size"])])
        if "abstains" in found:
            part = found["abstains"]
            rows.append([f"answered, declared {escape(_text(part['declared']))}", _estimate(part["answered"])])
            rows.append(
                [f"{found['risk']} of what is answered", "-" if part["error"] is None else _estimate(part["error"])]
            )
        parts.append(f'<h3>{escape(output)}</h3><div class="pair">{drawn}</div>{_table(["", "value"], rows)}')
    return "".join(parts)


def _forecast(output: str, item: Mapping[str, Any]) -> str:
    which = f"{output} {item['channel']}".rstrip()
    return plots.bands(
        item["past"],
        item["truth"],
        item["value"],
        item["bands"],
        x="steps from now",
        y=which,
        alt=f"{which}: {item['origin']}",
    )


def _retrieval(facts: _Facts) -> str:
    """Queries from the easiest to the hardest, each with its nearest rows."""
    parts = []
    for output, detail in facts.details.get("outputs", {}).items():
        for pair in detail.get("retrieval") or []:
            rows = []
            for query in pair["queries"]:
                found = [
                    f'{_preview(pair["to"], item["shown"])}<span class="{"right" if item["right"] else "wrong"}">{item["score"]:.3f}</span>'
                    for item in query["found"]
                ]
                asked = f'{_preview(pair["from"], query["query"])}<span class="quiet">{escape(query["origin"])}</span>'
                rows.append([asked, str(query["rank"]), *found])
            width = max(len(row) for row in rows) - 2
            names = [pair["from"], "rank of the right one", *(f"{pair['to']}, no. {n + 1}" for n in range(width))]
            filled = [row + [""] * (len(names) - len(row)) for row in rows]
            parts.append(
                f"<h3>{escape(output)}: {escape(pair['from'])} → {escape(pair['to'])}</h3>"
                + _table(names, filled, numbers=(1,))
            )
    if not parts:
        return ""
    return (
        '<p class="quiet">Scored rows, from the easiest query to the hardest, with the cosine of the angle to each answer; '
        '<span class="right">right</span> and <span class="wrong">wrong</span> ones.</p>' + "".join(parts)
    )


def _learning(facts: _Facts) -> str:
    if not facts.steps:
        return '<p class="quiet">No step was logged.</p>'
    terms = list(facts.steps[-1]["terms"])
    losses = [
        plots.Line(term, _smooth([(step["step"], step["terms"][term]["value"]) for step in facts.steps]))
        for term in terms
    ]
    parts = [plots.curves(losses, x="step", y="loss", alt="Each term of the objective, smoothed", log_y=True)]
    goal = facts.plan.get("goal", {})
    points = [(event["step"], event["goal"]) for event in facts.evals if event.get("goal") is not None]
    if points:
        name = f"{goal.get('metric', 'goal')} of {goal.get('output', '')}"
        parts.append(
            plots.curves(
                [plots.Line(name, points)],
                x="step",
                y=goal.get("metric", "goal"),
                alt=f"Validation {name} ({BETTER.get(goal.get('direction', ''), '')})",
            )
        )
    if len(terms) > 1:
        weights = [
            plots.Line(term, [(step["step"], step["terms"][term]["weight"]) for step in facts.steps]) for term in terms
        ]
        parts.append(plots.curves(weights, x="step", y="weight", alt="Weight of each term in the objective"))
    parts += gradients.drawn(facts.steps)
    parts.append(
        plots.curves(
            [plots.Line("learning rate", [(step["step"], step["lr"]) for step in facts.steps])],
            x="step",
            y="rate",
            alt="Learning rate",
        )
    )
    incidents = "".join(f"<li>{escape(str(event['message']))}</li>" for event in facts.incidents)
    happened = f"<h3>What happened on the way</h3><ul>{incidents}</ul>" if incidents else ""
    return f'<div class="pair">{"".join(parts)}</div>{happened}'


def _depth(facts: _Facts) -> str:
    """A linear probe on the pooled tokens of each block."""
    probe = facts.details.get("probe")
    if not probe:
        return ""
    parts = [
        '<p class="quiet">A linear model on the pooled features of each block, fitted on training rows, scored on validation rows. '
        "Columns that the recipe does not use stand beside the best constant answer: what is known without having been told.</p>"
    ]
    for output, layers in probe.items():
        items = [
            (str(layer["layer"]), float(layer["value"]), f"{layer['value']:.3f}")
            for layer in layers
            if layer.get("value") is not None
        ]
        name = layers[0].get("metric", "score") if layers else "score"
        parts.append(plots.bars(items, alt=f"{name} of {output} by depth"))
    return "".join(parts)


def _data(facts: _Facts) -> str:
    if not facts.data:
        return '<p class="quiet">Nothing was read.</p>'
    rows = facts.data["rows"]
    parts = [
        f"<p>{rows['train']:,} training, {rows['val']:,} validation and {rows['test']:,} test rows: {escape(facts.data['split'])}.</p>"
    ]
    fields = [
        [escape(name), item["role"], escape(item["type"]), escape(item["summary"]), f"{item['missing']:,}"]
        for name, item in facts.data["fields"].items()
    ]
    parts.append(_table(["field", "role", "type", "in the training rows", "missing"], fields, numbers=(4,)))
    if facts.data["bad_count"]:
        listed = "".join(
            f"<li>{escape(item['origin'])}, {escape(item['field'])}: {escape(item['reason'])}</li>"
            for item in facts.data["bad"]
        )
        parts.append(
            f"<details><summary>{facts.data['bad_count']} rows could not be read and were put aside</summary><ul>{listed}</ul></details>"
        )
    parts += [f'<p class="quiet">{escape(note)}</p>' for note in facts.data["notes"]]
    return "".join(parts)


def _timing(facts: _Facts) -> str:
    steps = facts.steps[1:] or facts.steps  # the first step warms up
    if not steps:
        return ""
    read, compute = sum(step["read_s"] for step in steps), sum(step["compute_s"] for step in steps)
    total = facts.steps[-1]["time_s"]
    rest = max(0.0, total - read - compute)
    most, name = max((read, "reading"), (compute, "computing"), (rest, "validating and saving"))
    rate = sorted(step["samples_per_s"] for step in steps)[len(steps) // 2]
    parts = [
        f"<p>{_seconds(total)} of training, {rate:,.0f} rows a second at the median. The bottleneck is <strong>{name}</strong> ({most / max(total, 1e-9):.0%}).</p>"
    ]
    items = [
        ("waiting for data", read, _seconds(read)),
        ("computing", compute, _seconds(compute)),
        ("validating, saving", rest, _seconds(rest)),
    ]
    parts.append(plots.bars(items, alt="Seconds by activity"))
    return "".join(parts)


def _made(facts: _Facts) -> str:
    plan = {name: value for name, value in facts.plan.items() if not isinstance(value, dict)}
    began = {name: ", ".join(v) if isinstance(v, list) else v for name, v in facts.info.get("from_run", {}).items()}
    versions = {**facts.info.get("versions", {}), "data fingerprint": facts.info.get("data_fingerprint", "")}
    return (
        f"<details open><summary>recipe.yaml</summary><pre><code>{escape(facts.recipe.to_yaml())}</code></pre></details>"
        f"<details><summary>The plan: every default as a number</summary>{_mapping(plan)}</details>"
        f"<details><summary>Versions and fingerprint</summary>{_mapping(versions)}</details>"
        + (f"<details><summary>The run it began with</summary>{_mapping(began)}</details>" if began else "")
    )


# ---- small parts -------------------------------------------------------------------------------------------------


def _estimate(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "—"
    if value["value"] is None:
        return "not defined"
    low, high = value["low"], value["high"]
    if low is None or high is None:
        return f'{value["value"]:.4g} <span class="quiet">(no interval)</span>'
    if low == high:
        return f'{value["value"]:.4g} <span class="quiet" title="resampling rows that are all alike says nothing">degenerate</span>'
    return f'{value["value"]:.4g} <span class="quiet">[{low:.3g}, {high:.3g}]</span>'


def _table(names: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()) -> str:
    def cell(tag: str, index: int, text: str) -> str:
        return f"<{tag}{' class=number' if index in numbers else ''}>{text}</{tag}>"

    head = "".join(cell("th", index, escape(name)) for index, name in enumerate(names))
    body = "".join(
        "<tr>" + "".join(cell("td", index, text) for index, text in enumerate(row)) + "</tr>" for row in rows
    )
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _mapping(values: Mapping[str, Any]) -> str:
    return _table(["", ""], [[escape(str(name)), escape(_text(value))] for name, value in values.items()])


def _generic(value: Any, *, limit: int = 60) -> str:
    """A nested result as tables: estimates as numbers with intervals, everything else as text."""
    if isinstance(value, Mapping):
        if {"value", "low", "high"} <= set(value):
            return _estimate(value)
        if value and all(not isinstance(item, Mapping | list) for item in value.values()):
            return _mapping(value)
        rows = [[escape(str(name)), _generic(item)] for name, item in list(value.items())[:limit]]
        return _table(["", ""], rows)
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        names = list(value[0])
        rows = [[_generic(item.get(name)) for name in names] for item in value[:limit]]
        more = f'<p class="quiet">{len(value) - limit} more rows are in details.json.</p>' if len(value) > limit else ""
        return _table([str(name).replace("_", " ") for name in names], rows) + more
    return escape(_text(value))


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "not finite"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """An exponential mean over about a fiftieth of the run, without the pull of its start (Kingma & Ba 2015)."""
    keep = 1 - 1 / max(1.0, len(points) / 50)
    out, mean = [], 0.0
    for index, (x, y) in enumerate(points):
        mean = keep * mean + (1 - keep) * y
        out.append((x, mean / (1 - keep ** (index + 1))))
    return out


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 60 else f"{value / 60:.1f} min"


__all__ = ["build"]
