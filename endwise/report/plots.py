"""Plots as inline SVG: no script, no network, readable in light and dark, with a text alternative for each.

Colours come from the page's CSS variables (a colour-blind-safe set, Okabe & Ito 2008), so one drawing serves both themes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 78, 16, 14, 42
SERIES_COLOURS = 6  # --series-0 ... in the page's CSS
MAX_POINTS = 400  # a curve of more is thinned: every k-th point, and the last


@dataclass(frozen=True)
class Line:
    """One curve: a name and its points (x, y)."""

    name: str
    points: Sequence[tuple[float, float]]
    faint: bool = False


@dataclass(frozen=True)
class Forecast:
    """A learning curve: what was measured (labels, value), and what is foreseen (labels, value, low, high)."""

    name: str
    measured: Sequence[tuple[float, float]]
    foreseen: Sequence[tuple[float, float, float, float]]


def forecasts(items: Sequence[Forecast], *, x: str, y: str, alt: str, level: float | None = None) -> str:
    """Learning curves over a logarithmic axis: dots measured, lines and bands foreseen; a dashed line at `level`."""
    shown = [item for item in items if item.measured and item.foreseen]
    if not shown:
        return _nothing(alt)
    xs = [math.log10(at) for item in shown for at, *_ in [*item.measured, *item.foreseen]]
    ys = [value for item in shown for _, value in item.measured]
    ys += [value for item in shown for _, *values in item.foreseen for value in values]
    frame = _Frame(xs, [*ys, level] if level is not None else ys)
    parts = [frame.axes(x, y, log_x=True)]
    if level is not None:
        at = frame.y(level)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" class="guide"/>')
    for index, item in enumerate(shown):
        colour = f"var(--series-{index % SERIES_COLOURS})"
        over = [(frame.x(math.log10(at)), frame.y(high)) for at, _, _, high in item.foreseen]
        under = [(frame.x(math.log10(at)), frame.y(low)) for at, _, low, _ in reversed(item.foreseen)]
        parts.append(f'<path d="{_path([*over, *under])}Z" style="fill:{colour};opacity:.14"/>')
        line = [(frame.x(math.log10(at)), frame.y(value)) for at, value, _, _ in item.foreseen]
        parts.append(f'<path d="{_path(line)}" style="stroke:{colour};stroke-width:2;fill:none"/>')
        parts += [
            f'<circle cx="{frame.x(math.log10(at)):.1f}" cy="{frame.y(value):.1f}" r="3.5" style="fill:{colour}">'
            f"<title>{escape(item.name)}: {at:,.0f} labels, {value:.4g}</title></circle>"
            for at, value in item.measured
        ]
    return _figure("".join(parts), alt, _legend([item.name for item in shown]))


def bands(
    past: Sequence[float | None],
    truth: Sequence[float | None],
    said: Sequence[float],
    between: Sequence[tuple[Sequence[float], Sequence[float]]],
    *,
    x: str,
    y: str,
    alt: str,
) -> str:
    """A series and its forecast: the past up to step 0, what came and what was said after it, over bands (low, high), the widest
    first. None is a gap."""
    parts = {"past": _numbered(past, 1 - len(past)), "truth": _numbered(truth, 1), "forecast": _numbered(said, 1)}
    drawn = [point for line in parts.values() for point in line]
    edges = [edge for low, high in between for edge in (*low, *high)]
    frame = _Frame([at for at, _ in drawn], [*(value for _, value in drawn), *edges])
    found = [frame.axes(x, y)]
    for low, high in between:
        over = [(frame.x(at), frame.y(value)) for at, value in enumerate(high, 1)]
        under = [(frame.x(at), frame.y(value)) for at, value in reversed(list(enumerate(low, 1)))]
        found.append(f'<path d="{_path([*over, *under])}Z" style="fill:var(--series-2);opacity:.18"/>')
    for index, line in enumerate(parts.values()):
        path = _path([(frame.x(at), frame.y(value)) for at, value in _thinned(line)])
        found.append(f'<path d="{path}" style="stroke:var(--series-{index});stroke-width:2;fill:none"/>')
    return _figure("".join(found), alt, _legend(list(parts)))


def paths(agents: Sequence[Mapping[str, Any]], *, alt: str) -> str:
    """A scene from above, in metres: where each agent has been, where it went, where the answer says it goes, and faintly its
    other futures, the more probable the stronger. A point is [x, y], or None where nobody knows."""
    ways = [line for one in agents for line in (one["past"], one["truth"], one["path"], *_others(one))]
    known = [point for line in ways for point in line if point]
    if not known:
        return _nothing(alt)
    frame = _Frame(*_even([x for x, _ in known], [y for _, y in known]))
    found = [frame.axes("m", "m")]
    for one in agents:
        now = [point for point in one["past"] if point][-1:]
        for item in one.get("futures", []):
            style = f"stroke:var(--series-2);stroke-width:1;fill:none;opacity:{0.1 + 0.5 * item['chance']:.2f}"
            found.append(_drawn_path(frame, [*now, *item["path"]], style))
        for index, line in enumerate((one["past"], [*now, *one["truth"]], [*now, *one["path"]])):
            found.append(_drawn_path(frame, line, f"stroke:var(--series-{index});stroke-width:2;fill:none"))
        found += [
            f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3" style="fill:var(--series-0)"/>' for x, y in now
        ]
    return _figure("".join(found), alt, _legend(["past", "truth", "answer"]))


def _others(agent: Mapping[str, Any]) -> list[Any]:
    return [item["path"] for item in agent.get("futures", [])]


def _even(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float]]:
    """Ends of both axes such that a metre is as long on each."""
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    metre = max((max(xs) - min(xs)) / wide, (max(ys) - min(ys)) / high, 1e-3)
    middle = [((max(values) + min(values)) / 2, metre * room / 2) for values, room in ((xs, wide), (ys, high))]
    ends = [[at - half, at + half] for at, half in middle]
    return ends[0], ends[1]


def _drawn_path(frame: "_Frame", line: Sequence[Sequence[float] | None], style: str) -> str:
    return f'<path d="{_path([(frame.x(point[0]), frame.y(point[1])) for point in line if point])}" style="{style}"/>'


def _numbered(values: Sequence[float | None], first: int) -> list[tuple[float, float]]:
    return [(float(at), value) for at, value in enumerate(values, first) if value is not None]


@dataclass(frozen=True)
class Interval:
    """A value with its interval (None where there is none) and what it is the mean of. like: the name of another one whose
    colour it has."""

    name: str
    value: float
    low: float | None
    high: float | None
    each: Sequence[float] = ()
    like: str | None = None


def intervals(items: Sequence[Interval], *, x: str, alt: str, levels: Sequence[tuple[str, float]] = ()) -> str:
    """Values side by side with their intervals, one a row; dashed lines at `levels`, named above."""
    shown = [item for item in items if math.isfinite(item.value)]
    if not shown:
        return _nothing(alt)
    ends = [end for item in shown for end in (item.low, item.high) if end is not None]
    low, high = _span([*ends, *(item.value for item in shown), *(at for _, at in levels)])
    row, left, top, room = 30, 172, 24 if levels else 8, WIDTH - 24
    height = top + row * len(shown) + 38

    def at(value: float) -> float:
        return left + (value - low) / (high - low) * (room - left)

    parts = []
    for value in _ticks(low, high):
        parts.append(f'<line x1="{at(value):.1f}" x2="{at(value):.1f}" y1="{top}" y2="{height - 34}" class="grid"/>')
        parts.append(
            f'<text x="{at(value):.1f}" y="{height - 20}" class="tick" text-anchor="middle">{_number(value)}</text>'
        )
    for name, value in levels:
        side = "end" if at(value) > (left + room) / 2 else "start"
        parts.append(
            f'<line x1="{at(value):.1f}" x2="{at(value):.1f}" y1="{top - 4}" y2="{height - 34}" class="guide"/>'
        )
        parts.append(f'<text x="{at(value):.1f}" y="13" class="tick" text-anchor="{side}">{escape(name)}</text>')
    colours = {name: number for number, name in enumerate(dict.fromkeys(item.like or item.name for item in shown))}
    for index, item in enumerate(shown):
        number = colours[item.like or item.name] % SERIES_COLOURS
        middle, colour = top + row * index + row / 2, f"var(--series-{number})"
        told = f"<title>{escape(item.name)}: {item.value:.4g}</title>"
        parts.append(
            f'<text x="{left - 10}" y="{middle + 4}" class="tick" text-anchor="end">{escape(_short(item.name, 22))}</text>'
        )
        if item.low is not None and item.high is not None:
            parts.append(
                f'<line x1="{at(item.low):.1f}" x2="{at(item.high):.1f}" y1="{middle}" y2="{middle}" '
                f'style="stroke:{colour};stroke-width:3;opacity:.5"/>'
            )
        parts += [
            f'<circle cx="{at(one):.1f}" cy="{middle}" r="3" style="fill:none;stroke:{colour}"/>'
            for one in item.each
            if low <= one <= high
        ]
        parts.append(f'<circle cx="{at(item.value):.1f}" cy="{middle}" r="5" style="fill:{colour}">{told}</circle>')
    parts.append(
        f'<text x="{(left + room) / 2:.0f}" y="{height - 3}" class="label" text-anchor="middle">{escape(x)}</text>'
    )
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(alt)}">{"".join(parts)}</svg>'
        f"<figcaption>{escape(alt)}</figcaption></figure>"
    )


def waterfall(
    first: Interval, steps: Sequence[tuple[str, float]], last: Interval, *, x: str, alt: str, larger: bool
) -> str:
    """From one value to another, step by step: a bar for each step (its name, the value it leads to) from where the one
    before it ended; green where it is better. The two ends are dots with their intervals. The axis need not begin at 0:
    a bar says a difference."""
    rows = [first, *(Interval(name, value, None, None) for name, value in steps), last]
    if not all(math.isfinite(item.value) for item in rows):
        return _nothing(alt)
    low, high = _span([end for item in rows for end in (item.value, item.low, item.high) if end is not None])
    row, left, room = 30, 172, WIDTH - 90
    bottom = 8 + row * len(rows)

    def at(value: float) -> float:
        return left + (value - low) / (high - low) * (room - left)

    parts = []
    for value in _ticks(low, high):
        parts.append(f'<line x1="{at(value):.1f}" x2="{at(value):.1f}" y1="8" y2="{bottom + 4}" class="grid"/>')
        parts.append(
            f'<text x="{at(value):.1f}" y="{bottom + 18}" class="tick" text-anchor="middle">{_number(value)}</text>'
        )
    before = first.value
    for index, item in enumerate(rows):
        middle, end = 8 + row * index + row / 2, index in (0, len(rows) - 1)
        change = (item.value - before) * (1 if larger else -1)
        written = f"{item.value:.4g}" if end else f"{change:+.3g}"
        parts.append(
            f'<text x="{left - 10}" y="{middle + 4}" class="tick" text-anchor="end">{escape(_short(item.name, 24))}</text>'
        )
        parts.append(f'<text x="{WIDTH - 4}" y="{middle + 4}" class="cell" text-anchor="end">{written}</text>')
        if index < len(rows) - 1:  # where the next one begins
            here = f"{at(item.value):.1f}"
            parts.append(f'<line x1="{here}" x2="{here}" y1="{middle}" y2="{middle + row}" class="guide"/>')
        parts += _end(item, at, middle) if end else [
            f'<rect x="{min(at(before), at(item.value)):.1f}" y="{middle - 9}" width="{max(1.0, abs(at(item.value) - at(before))):.1f}" '
            f'height="18" style="fill:var(--series-{2 if change >= 0 else 1})"><title>{escape(item.name)}: {written}</title></rect>'
        ]  # fmt: skip
        before = item.value
    parts.append(
        f'<text x="{(left + room) / 2:.0f}" y="{bottom + 35}" class="label" text-anchor="middle">{escape(x)}</text>'
    )
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {bottom + 38}" role="img" aria-label="{escape(alt)}">{"".join(parts)}</svg>'
        f"<figcaption>{escape(alt)}</figcaption></figure>"
    )


def _end(item: Interval, at: Callable[[float], float], middle: float) -> list[str]:
    """One end of a waterfall."""
    line = [] if item.low is None or item.high is None else [
        f'<line x1="{at(item.low):.1f}" x2="{at(item.high):.1f}" y1="{middle}" y2="{middle}" '
        'style="stroke:var(--series-0);stroke-width:3;opacity:.5"/>'
    ]  # fmt: skip
    told = f"<title>{escape(item.name)}: {item.value:.4g}</title>"
    return [
        *line,
        f'<circle cx="{at(item.value):.1f}" cy="{middle}" r="5" style="fill:var(--series-0)">{told}</circle>',
    ]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{'M' if at == 0 else 'L'}{px:.1f} {py:.1f}" for at, (px, py) in enumerate(points))


def froc(points: Sequence[tuple[float, float]], *, alt: str) -> str:
    """Sensitivity over false alarms a picture, which double from one point to the next; each with its number."""
    if not points:
        return _nothing(alt)
    xs = [math.log10(alarms) for alarms, _ in points]
    frame = _Frame(xs, [0.0, 1.0])
    places = [(frame.x(at), frame.y(found)) for at, (_, found) in zip(xs, points, strict=True)]
    parts = [frame.axes("false alarms a picture", "sensitivity", log_x=True)]
    parts.append(f'<path d="{_path(places)}" style="stroke:var(--series-0);stroke-width:2;fill:none"/>')
    for (x, y), (alarms, found) in zip(places, points, strict=True):
        told = f"<title>{alarms:g} false alarms a picture: {found:.3f}</title>"
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" style="fill:var(--series-0)">{told}</circle>')
        below = 18 if y < TOP + 20 else -8
        parts.append(f'<text x="{x:.1f}" y="{y + below:.1f}" class="tick" text-anchor="middle">{found:.2f}</text>')
    return _figure("".join(parts), alt)


def curves(lines: Sequence[Line], *, x: str, y: str, alt: str, log_y: bool = False) -> str:
    """Curves over a common x axis, with a legend when there are several. Values at one place are no curve: they are
    written out."""
    shown = [Line(line.name, points, line.faint) for line in lines if (points := _thinned(line.points))]
    if not shown:
        return _nothing(alt)
    places = {px for line in shown for px, _ in line.points}
    if len(places) == 1:
        values = ", ".join(f"{line.name} {_number(line.points[0][1])}" for line in shown)
        return f'<p class="quiet">{escape(alt)}: at {escape(x)} {_number(places.pop())} only, {escape(values)}.</p>'
    ys = [value for line in shown for _, value in line.points]
    if log_y and min(ys) <= 0:
        log_y = False
    frame = _Frame([px for line in shown for px, _ in line.points], [math.log10(v) for v in ys] if log_y else ys)
    parts = [frame.axes(x, y, log_y=log_y)]
    for index, line in enumerate(shown):
        path = " ".join(
            f"{'M' if at == 0 else 'L'}{frame.x(px):.1f} {frame.y(math.log10(py) if log_y else py):.1f}"
            for at, (px, py) in enumerate(line.points)
        )
        style = f"stroke:var(--series-{index % SERIES_COLOURS});stroke-width:{1 if line.faint else 2};fill:none"
        parts.append(f'<path d="{path}" style="{style};opacity:{0.45 if line.faint else 1}"/>')
        if len(line.points) == 1:
            px, py = line.points[0]
            parts.append(
                f'<circle cx="{frame.x(px):.1f}" cy="{frame.y(math.log10(py) if log_y else py):.1f}" r="3" '
                f'style="fill:var(--series-{index % SERIES_COLOURS})"/>'
            )
    legend = _legend([line.name for line in shown]) if len(shown) > 1 else ""
    return _figure("".join(parts), alt, legend)


def scatter(points: Sequence[tuple[float, float]], *, x: str, y: str, alt: str, diagonal: bool = True) -> str:
    """Points, with the diagonal on which truth and answer agree."""
    if not points:
        return _nothing(alt)
    xs, ys = [px for px, _ in points], [py for _, py in points]
    both = [*xs, *ys] if diagonal else None
    frame = _Frame(both or xs, both or ys)
    parts = [frame.axes(x, y)]
    if diagonal:
        low, high = min(both or [0]), max(both or [1])
        parts.append(
            f'<line x1="{frame.x(low):.1f}" y1="{frame.y(low):.1f}" x2="{frame.x(high):.1f}" y2="{frame.y(high):.1f}" class="guide"/>'
        )
    parts += [f'<circle cx="{frame.x(px):.1f}" cy="{frame.y(py):.1f}" r="2.5" class="dot"/>' for px, py in points]
    return _figure("".join(parts), alt)


def reliability(bins: Sequence[tuple[float, float, int]], *, alt: str) -> str:
    """Calibration: mean confidence against the share that was right, the area of a dot growing with its count."""
    bins = [item for item in bins if item[2] > 0]
    if not bins:
        return _nothing(alt)
    frame = _Frame([0, 1], [0, 1])
    most = max(count for _, _, count in bins)
    parts = [frame.axes("confidence", "share right")]
    parts.append(
        f'<line x1="{frame.x(0):.1f}" y1="{frame.y(0):.1f}" x2="{frame.x(1):.1f}" y2="{frame.y(1):.1f}" class="guide"/>'
    )
    for confidence, right, count in bins:
        radius = 2.5 + 7 * math.sqrt(count / most)
        parts.append(
            f'<circle cx="{frame.x(confidence):.1f}" cy="{frame.y(right):.1f}" r="{radius:.1f}" class="dot">'
            f"<title>{count} rows: confidence {confidence:.2f}, right {right:.2f}</title></circle>"
        )
    return _figure("".join(parts), alt)


def heatmap(names: Sequence[str], counts: Sequence[Sequence[int]], *, alt: str) -> str:
    """A confusion matrix: truth down, answer across; the shade is the share of the truth's rows."""
    count = len(names)
    if count == 0:
        return _nothing(alt)
    cell = max(7, min(34, 520 // count))
    margin = 92
    size = margin + cell * count + 48  # room for the last slanted name
    parts = [
        f'<text x="{margin}" y="12" class="label">answer →</text>',
        f'<text x="4" y="{margin - 6}" class="label">truth ↓</text>',
    ]
    step = max(1, math.ceil(12 / cell))
    for index, name in enumerate(names):
        middle = margin + cell * index + cell / 2
        if index % step == 0:
            short = escape(_short(name, 13))
            parts.append(f'<text x="{margin - 5}" y="{middle + 3:.0f}" class="tick" text-anchor="end">{short}</text>')
            parts.append(
                f'<text transform="translate({middle + 3:.0f} {margin - 5}) rotate(-60)" class="tick">{short}</text>'
            )
        total = sum(counts[index]) or 1
        for across, value in enumerate(counts[index]):
            share = value / total
            left, top = margin + cell * across, margin + cell * index
            shade = f"fill:var(--series-{0 if index == across else 1});opacity:{0.06 + 0.94 * share:.2f}"
            title = f"<title>{escape(name)} answered {escape(names[across])}: {value} of {total}</title>"
            parts.append(
                f'<rect x="{left}" y="{top}" width="{cell - 1}" height="{cell - 1}" style="{shade}">{title}</rect>'
            )
            if cell >= 24 and value:
                parts.append(
                    f'<text x="{left + cell / 2:.0f}" y="{top + cell / 2 + 4:.0f}" class="cell" text-anchor="middle">{value}</text>'
                )
    return (
        f'<figure><svg viewBox="0 0 {size} {size}" style="max-width:{size}px" role="img" aria-label="{escape(alt)}">'
        f"{''.join(parts)}</svg><figcaption>{escape(alt)}</figcaption></figure>"
    )


def bars(items: Sequence[tuple[str, float, str]], *, alt: str) -> str:
    """Horizontal bars: (name, value, how the value is written)."""
    if not items:
        return _nothing(alt)
    most = max(abs(value) for _, value, _ in items) or 1
    row, left = 24, 150
    height = row * len(items) + 6
    parts = []
    for index, (name, value, written) in enumerate(items):
        top = row * index + 4
        length = (WIDTH - left - 110) * abs(value) / most
        parts.append(
            f'<text x="{left - 6}" y="{top + 13}" class="tick" text-anchor="end">{escape(_short(name, 22))}</text>'
        )
        parts.append(
            f'<rect x="{left}" y="{top}" width="{length:.1f}" height="{row - 8}" style="fill:var(--series-{0 if value >= 0 else 1})"/>'
        )
        parts.append(f'<text x="{left + length + 6:.1f}" y="{top + 13}" class="tick">{escape(written)}</text>')
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(alt)}">{"".join(parts)}</svg>'
        f"<figcaption>{escape(alt)}</figcaption></figure>"
    )


class _Frame:
    """The mapping from data to the drawing, and its axes."""

    def __init__(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        self.x_low, self.x_high = _span(xs)
        self.y_low, self.y_high = _span(ys)

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - TOP - BOTTOM)

    def axes(self, x_name: str, y_name: str, *, log_y: bool = False, log_x: bool = False) -> str:
        parts = []
        for value in _ticks(self.y_low, self.y_high):
            at = self.y(value)
            parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" class="grid"/>')
            parts.append(
                f'<text x="{LEFT - 6}" y="{at + 4:.1f}" class="tick" text-anchor="end">{_number(10**value if log_y else value)}</text>'
            )
        for value in _decades(self.x_low, self.x_high) if log_x else _ticks(self.x_low, self.x_high):
            parts.append(
                f'<text x="{self.x(value):.1f}" y="{HEIGHT - BOTTOM + 16}" class="tick" text-anchor="middle">'
                f"{_number(10**value if log_x else value)}</text>"
            )
        parts.append(
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 4}" class="label" text-anchor="middle">{escape(x_name)}</text>'
        )
        parts.append(
            f'<text transform="translate(12 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)" class="label" text-anchor="middle">{escape(y_name)}</text>'
        )
        return "".join(parts)


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low == high:
        pad = abs(low) * 0.1 or 0.5
        return low - pad, high + pad
    return low, high


def _ticks(low: float, high: float) -> list[float]:
    """Four to seven round numbers between low and high."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    for factor in (1, 2, 5, 10):
        if (high - low) / (step * factor) <= 6:
            step *= factor
            break
    first = math.ceil(low / step)
    return [index * step for index in range(first, math.floor(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Logarithms of round numbers: 1, 2, 5 of each decade, or the decades alone where there are many."""
    factors = (1, 2, 5) if high - low < 2.5 else (1,)
    made = [math.log10(factor) + power for power in range(math.floor(low), math.ceil(high) + 1) for factor in factors]
    return [value for value in made if low <= value <= high]


def _number(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    kept = [point for point in points if all(math.isfinite(value) for value in point)]
    step = max(1, math.ceil(len(kept) / MAX_POINTS))
    return kept[::step] + ([kept[-1]] if kept and (len(kept) - 1) % step else [])


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _legend(names: Sequence[str]) -> str:
    items = "".join(
        f'<li><i style="background:var(--series-{index % SERIES_COLOURS})"></i>{escape(name)}</li>'
        for index, name in enumerate(names)
    )
    return f'<ul class="legend">{items}</ul>'


def _figure(inside: str, alt: str, legend: str = "") -> str:
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(alt)}">{inside}</svg>{legend}'
        f"<figcaption>{escape(alt)}</figcaption></figure>"
    )


def _nothing(alt: str) -> str:
    return f'<p class="quiet">{escape(alt)}: nothing to draw.</p>'
