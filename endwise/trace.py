"""A protein chain as a small drawing, for reports and notebooks: its trace, seen so that one hand is told from the other, and
its distance map below. Numpy and the standard library only. Not here: what a chain is (chain.py).
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from endwise.shades import POINTS, png_uri, shades

SVG_URI = "data:image/svg+xml;base64,"
SIDE_PX, EDGE_PX, MAP_PX = 240, 10, 72
TILT = (0.35, 0.6)  # radian: looked at from a little above and from the side
LAYERS = 24  # of depth, from the farthest to the nearest
LINE_PX, HALO_PX = (
    (1.6, 3.2),
    3.0,
)  # a bond's width from the farthest to the nearest, and how much of what lies behind it is cut
FARTHEST = 30.0  # angstrom: what is farther apart is drawn alike
BEHIND = "#b4b4b4"  # what an answer lies on
LIGHTEST = 0.85  # of the map of colours: the rest cannot be seen on white
SURE = (
    (0.9, "#0053d6", "from 0.9"),
    (0.7, "#65cbf3", "from 0.7"),
    (0.5, "#e8b800", "from 0.5"),
    (-np.inf, "#ff7d45", "below"),
)  # of predicted lDDT


@dataclass(frozen=True, eq=False)
class Strand:
    """points: float64 [residue, 3], those without a place not finite. colours: of each residue."""

    points: np.ndarray
    colours: Sequence[str]


def drawing(strand: Strand, behind: np.ndarray | None, said: Sequence[tuple[str, str]]) -> str:
    """An SVG file in a data URI. behind: points that it has been laid on, in grey. said: (colour, text) of the legend."""
    apart = np.linalg.norm(strand.points[:, None] - strand.points[None], axis=-1)
    table = png_uri(shades(apart, 0.0, FARTHEST, side_px=MAP_PX))
    top = SIDE_PX + EDGE_PX // 2
    inside = [
        f'<rect width="{SIDE_PX}" height="{top + MAP_PX + EDGE_PX}" rx="4" fill="#fff"/>',
        *_lines(strand, behind),
        f'<image x="{EDGE_PX}" y="{top}" width="{MAP_PX}" height="{MAP_PX}" href="{table}"/>',
        *_legend(said, EDGE_PX + MAP_PX + 10, top + 9),
    ]
    size = f'width="{SIDE_PX}" height="{top + MAP_PX + EDGE_PX}"'
    text = f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {SIDE_PX} {top + MAP_PX + EDGE_PX}">'
    return SVG_URI + base64.b64encode((text + "".join(inside) + "</svg>").encode("ascii")).decode("ascii")


def along(count: int) -> list[str]:
    """A colour for each residue, from dark at the first to light at the last."""
    place = np.linspace(0, LIGHTEST * (len(POINTS) - 1), max(count, 1))[:count]
    table = np.stack([np.interp(place, np.arange(len(POINTS)), POINTS[:, channel]) for channel in range(3)], axis=-1)
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in table.round().astype(int).tolist()]


def surely(sure: Sequence[float]) -> list[str]:
    """The colour of each residue's predicted lDDT, in the four steps that predictions are usually drawn in."""
    return [next(colour for least, colour, _ in SURE if item >= least) for item in sure]


def told(*, sure: bool, over: bool) -> list[tuple[str, str]]:
    """The legend, as (colour, text)."""
    steps = [(colour, f"predicted lDDT {text}") for _, colour, text in SURE]
    colours = steps if sure else [(along(2)[0], "the first residues"), (along(2)[1], "the last ones")]
    return [*colours, *([(BEHIND, "the truth")] if over else []), ("", "ring: the first residue")]


def view(points: np.ndarray) -> np.ndarray:
    """[3, 3]: right, up and towards the eye, turned away a little from the principal axes, along which a mirror image, laid on
    the chain, would cover it. Proper: a mirror image stays one."""
    known = points[np.isfinite(points).all(1)]
    _, _, axes = np.linalg.svd(known - known.mean(0), full_matrices=True)
    at = (known - known.mean(0)) @ axes.T
    right = axes[0] * (-1 if at[0, 0] > 0 else 1)  # the first residue at the left
    up = axes[1] * (-1 if np.power(at[:, 1], 3).sum() < 0 else 1)
    found: np.ndarray = _turned(0, TILT[0]) @ _turned(1, TILT[1]) @ np.stack([right, up, np.cross(right, up)])
    return found


def _turned(axis: int, angle: float) -> np.ndarray:
    one, other = (axis + 1) % 3, (axis + 2) % 3
    turn = np.eye(3)
    turn[one, one] = turn[other, other] = np.cos(angle)
    turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
    return turn


def _lines(strand: Strand, behind: np.ndarray | None) -> list[str]:
    """Bonds from the farthest to the nearest; all of what lies behind first. A ring at the first residue."""
    strands = [strand] if behind is None else [Strand(behind, [BEHIND] * len(behind)), strand]
    base = strands[0].points[np.isfinite(strands[0].points).all(1)]
    if not len(base):
        return []
    axes = view(base)
    seen = [(item.points - base.mean(0)) @ axes.T for item in strands]
    there = np.concatenate([item[np.isfinite(item).all(1)] for item in seen])
    low, high = there.min(0), there.max(0)
    scale = (SIDE_PX - 2 * EDGE_PX) / max(float((high - low)[:2].max()), 1e-6)
    placed = [
        np.stack(
            [
                SIDE_PX / 2 + scale * (at[:, 0] - (high + low)[0] / 2),
                SIDE_PX / 2 - scale * (at[:, 1] - (high + low)[1] / 2),
                (at[:, 2] - low[2]) / max(float(high[2] - low[2]), 1e-6),
            ],
            axis=1,
        )
        for at in seen
    ]
    x, y, _ = placed[-1][np.isfinite(placed[-1]).all(1)][0]
    lines = [line for item, at in zip(strands, placed, strict=True) for line in _strand(at, item.colours)]
    return [*lines, f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="none" stroke="#000"/>']


def _strand(at: np.ndarray, colours: Sequence[str]) -> list[str]:
    """at: right and down in pixels, and depth from 0 to 1. A bond, in the colour of its first residue, lies over a white one
    that cuts those behind it."""
    layers: list[dict[str, list[str]]] = [{} for _ in range(LAYERS)]
    for (x, y, depth), (u, v, other), colour in zip(at[:-1], at[1:], colours, strict=False):
        if np.isfinite(depth + other):
            layer = layers[min(int((depth + other) / 2 * LAYERS), LAYERS - 1)]
            layer.setdefault(colour, []).append(f"M{x:.1f} {y:.1f}L{u:.1f} {v:.1f}")
    return [text for index, layer in enumerate(layers) for text in _layer(layer, index / LAYERS)]


def _layer(bonds: dict[str, list[str]], depth: float) -> list[str]:
    if not bonds:
        return []
    wide = LINE_PX[0] + depth * (LINE_PX[1] - LINE_PX[0])
    cut = "".join(part for parts in bonds.values() for part in parts)
    halo = f'<path d="{cut}" stroke="#fff" stroke-width="{wide + HALO_PX:.1f}"/>'
    return [halo] + [
        f'<path d="{"".join(parts)}" stroke="{colour}" stroke-width="{wide:.1f}" stroke-linecap="round"/>'
        for colour, parts in bonds.items()
    ]


def _legend(said: Sequence[tuple[str, str]], left: int, top: int) -> list[str]:
    parts = []
    for line, (colour, text) in enumerate(said):
        y = top + 12 * line
        mark = f'<rect x="{left}" y="{y - 7}" width="8" height="8" rx="1" fill="{colour}"/>' if colour else ""
        parts.append(
            f'{mark}<text x="{left + 13}" y="{y}" font-size="10" font-family="sans-serif" fill="#333">{text}</text>'
        )
    return parts
