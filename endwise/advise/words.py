"""An advice as text for a terminal of 80 columns, from its documented JSON. Nothing is computed here."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

COLUMNS = 80
NAMES = {
    "end-to-end": "train the end-to-end network",
    "pretrained": "begin with pretrained weights",
    "pipeline": "use the pipeline",
    "cannot-tell": "cannot tell yet",
}


def headline(advice: str, label_more: int | None) -> str:
    """The verdict in words."""
    return NAMES[advice] + (f": label {label_more:,} more" if label_more else "")


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The verdict, its reasons, the arms, the curve, the target and the cost."""
    yield f"{found['name']}: {found['headline']}"
    for reason in found["reasons"]:
        yield from _wrapped(reason, "  - ")
    yield from _wrapped(f"what would change this: {found['would_change']}", "  ")
    yield ""
    better = "larger is better" if found["direction"] == "max" else "smaller is better"
    yield f"{found['metric']} of {found['output']} ({better}), {found['test_rows']} test rows"
    yield from _table(found)
    if found["labels_to_target"]:
        yield ""
        yield from _targets(found["labels_to_target"])
    cost = found["cost"]
    yield ""
    yield (
        f"cost      {cost['ratio']:.1f} times one training ({duration(cost['spent_s'])}, {cost['trainings']} trainings; "
        f"planned {cost['planned_ratio']:.1f})"
    )
    for note in found["notes"]:
        yield from _wrapped(note, "note      ")


def span(low: float | None, high: float | None, form: str = ".3g") -> str:
    """[low, high]; a side that could not be foreseen is open."""
    return f"[{'?' if low is None else format(low, form)}, {'?' if high is None else format(high, form)}]"


def duration(seconds: float) -> str:
    """For people."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _table(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"{'labels':>10}  {'arm':<14}{'value':>9}  80 % of the curve"
    last = None
    for row in sorted(found["curve"], key=lambda item: (item["labels"], item["arm"])):
        labels = f"{row['labels']:,}" if row["labels"] != last else ""
        last = row["labels"]
        how = (
            f"measured, {len(row['seeds'])} seed{'s' if len(row['seeds']) > 1 else ''}"
            if row["measured"]
            else "foreseen"
        )
        yield f"{labels:>10}  {row['arm']:<14}{row['value']:>9.4g}  {span(row['low'], row['high']):<20} {how}"


def _targets(found: Mapping[str, Any]) -> Iterator[str]:
    for arm, item in found.items():
        target = item["target"]
        if item["state"] == "not reachable":
            yield f"target    {arm}: {target:g} is not reachable by this curve"
            continue
        labels = item["labels"]
        said = f"target    {arm}: {target:g} "
        if item["state"] == "reached":
            yield said + f"is already reached, with {labels['value']:,.0f} labels"
            continue
        yield said + f"takes {labels['value']:,.0f} labels {span(labels['low'], labels['high'], ',.0f')}"
        if "cost" in item:
            cost = item["cost"]
            yield f"          {item['more']['value']:,.0f} more cost {cost['value']:,.2f} {span(cost['low'], cost['high'], ',.2f')}"


def _wrapped(text: str, first: str) -> list[str]:
    return textwrap.wrap(text, COLUMNS, initial_indent=first, subsequent_indent=" " * len(first))


__all__ = ["duration", "headline", "lines", "span"]
