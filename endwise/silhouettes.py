"""Single things on a picture as run-length encoded masks, as COCO writes them (Lin et al. 2014): reading, making, and how much
two of them share.

A silhouette is {"size": [height, width], "counts": [n, n, ...]}: so many pixels outside, inside, outside ..., down the first
column, then down the next. Plain JSON. What is asked of it costs as much as it has runs, not pixels. Numpy only.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Silhouette = Mapping[str, Any]


def of_bits(bits: np.ndarray, size: Sequence[int], top: int = 0, left: int = 0) -> dict[str, Any]:
    """Of a window [height, width] of a picture of this size, with its upper left corner there."""
    tall, wide = (int(side) for side in size)
    columns = np.zeros((bits.shape[1], bits.shape[0] + 2), np.int8)
    columns[:, 1:-1] = bits.T
    change = np.diff(columns, axis=1)
    starts, ends = (
        (left + column) * tall + top + row for column, row in (np.nonzero(change == sign) for sign in (1, -1))
    )
    if not len(starts):
        return {"size": [tall, wide], "counts": [tall * wide]}
    apart = ends[:-1] != starts[1:]  # a run that goes on in the next column is one
    edges = np.stack([starts[np.append(True, apart)], ends[np.append(apart, True)]], axis=1)
    counts = np.diff(np.concatenate([[0], edges.ravel(), [tall * wide]])).tolist()
    return {"size": [tall, wide], "counts": counts[:-1] if counts[-1] == 0 else counts}


def of_polygons(polygons: Sequence[Sequence[float]], size: Sequence[int]) -> dict[str, Any]:
    """Of polygons [x, y, x, y ...] in pixels: what has its middle in one of them. A polygon that crosses itself is outside
    where it is crossed twice."""
    tall, wide = (int(side) for side in size)
    bits = np.zeros((tall, wide), bool)
    rows = np.arange(tall) + 0.5
    for polygon in polygons:
        points = np.asarray(polygon, np.float64).reshape(-1, 2)
        ahead = np.roll(points, -1, axis=0)
        low, high = np.minimum(points[:, 0], ahead[:, 0]), np.maximum(points[:, 0], ahead[:, 0])
        for column in range(max(0, int(low.min())), min(wide, int(np.ceil(high.max())))):
            x = column + 0.5
            crossed = (low <= x) & (x < high)
            (x0, y0), (x1, y1) = points[crossed].T, ahead[crossed].T
            at = y0 + (x - x0) / (x1 - x0) * (y1 - y0)
            bits[:, column] |= (at[:, None] <= rows).sum(0) % 2 == 1
    return of_bits(bits, size)


def unpacked(text: str) -> list[int]:
    """The counts of COCO's short text: five bits a letter, every count from the third on less the one two before it.
    ValueError where it ends too early."""
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        piece = ord(letter) - 48
        value |= (piece & 31) << shift
        shift += 5
        if piece & 32:
            continue
        if piece & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("the text ends within a count")
    return counts


def inside(item: Silhouette, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Whether these pixels (whole numbers, on the picture) are inside."""
    return np.asarray(np.searchsorted(_edges(item), columns * item["size"][0] + rows, side="right") % 2 == 1)


def bits(item: Silhouette) -> np.ndarray:
    """bool [height, width]."""
    tall, wide = item["size"]
    counts = [*item["counts"], tall * wide - sum(item["counts"])]
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(wide, tall).T


def area(item: Silhouette) -> int:
    """How many pixels are inside."""
    return int(sum(item["counts"][1::2]))


def box(item: Silhouette) -> list[int]:
    """[x0, y0, x1, y1] around it; all 0 where nothing is inside."""
    starts, ends = _runs(item)
    starts, ends = starts[starts < ends], ends[starts < ends]
    if not len(starts):
        return [0, 0, 0, 0]
    tall = item["size"][0]
    first, last = starts // tall, (ends - 1) // tall
    whole = bool((first != last).any())
    top, low = (0, tall) if whole else (int((starts % tall).min()), int(((ends - 1) % tall).max()) + 1)
    return [int(first.min()), top, int(last.max()) + 1, low]


def overlaps(one: Sequence[Silhouette], other: Sequence[Silhouette]) -> np.ndarray:
    """Intersection over union [n, m]; 0 where neither has a pixel. Of pictures of two sizes: pixel for pixel from the upper left
    corner."""
    shared, union = np.zeros((len(one), len(other))), np.ones((len(one), len(other)))
    boxes = [[box(item) for item in items] for items in (one, other)]
    for row, a in enumerate(one):
        for column, b in enumerate(other):
            if _apart(boxes[0][row], boxes[1][column]):
                continue
            shared[row, column] = _shared(*_on_one(a, b))
            union[row, column] = area(a) + area(b) - shared[row, column]
    return shared / np.maximum(union, 1)


def _shared(one: Silhouette, other: Silhouette) -> float:
    """Pixels inside both: what of each run of one lies inside the other."""
    edges = np.append(0, _edges(other))
    covered = np.append(0, np.cumsum(np.asarray(other["counts"]) * (np.arange(len(other["counts"])) % 2)))
    starts, ends = _runs(one)
    at_end, at_start = (np.interp(places, edges, covered) for places in (ends, starts))
    return float((at_end - at_start).sum())


def _apart(one: Sequence[int], other: Sequence[int]) -> bool:
    return one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def _on_one(one: Silhouette, other: Silhouette) -> tuple[Silhouette, Silhouette]:
    """Both on a picture that holds either."""
    if list(one["size"]) == list(other["size"]):
        return one, other
    size = np.maximum(one["size"], other["size"]).tolist()
    return of_bits(bits(one), size), of_bits(bits(other), size)


def _edges(item: Silhouette) -> np.ndarray:
    """Where each run ends; the first is outside."""
    return np.cumsum(np.asarray(item["counts"], np.int64))


def _runs(item: Silhouette) -> tuple[np.ndarray, np.ndarray]:
    """Where the runs inside begin and end."""
    edges = _edges(item)
    ends = edges[1::2]
    return edges[::2][: len(ends)], ends


__all__ = ["Silhouette", "area", "bits", "box", "inside", "of_bits", "of_polygons", "overlaps", "unpacked"]
