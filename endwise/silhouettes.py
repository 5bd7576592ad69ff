"""Single things on a picture or in a volume as run-length encoded masks, as COCO writes them (Lin et al. 2014): reading, making, and how much
two of them share.

A silhouette is {"size": [height, width], "counts": [n, n, ...]}: so many pixels outside, inside, outside ..., down the first
column, then down the next; of a volume {"size": [x, y, z], ...}, along z first, then y, then x. Plain JSON. What is asked of it costs as much as it has runs, not pixels. Numpy only.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Silhouette = Mapping[str, Any]

PICTURE = 2  # axes of one; its runs go down its columns, those of a volume along its last axis


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


def of_voxels(voxels: np.ndarray, size: Sequence[int], low: Sequence[int] = (0, 0, 0)) -> dict[str, Any]:
    """Of a block [x, y, z] of a volume of this size, with its low corner there."""
    whole = np.zeros([int(side) for side in size], bool)
    whole[tuple(slice(start, start + side) for start, side in zip(low, voxels.shape, strict=True))] = voxels
    return {"size": list(whole.shape), "counts": of_bits(*_as_picture(whole))["counts"]}


def _as_picture(voxels: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """A volume's lines along z, side by side as the columns of a picture, and its size: its run lengths are the volume's."""
    lines = voxels.reshape(-1, voxels.shape[-1]).T
    return lines, (lines.shape[0], lines.shape[1])


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


def inside(item: Silhouette, *places: np.ndarray) -> np.ndarray:
    """Whether these pixels (whole numbers along each axis, rows before columns, in the picture or the volume) are inside."""
    size = tuple(item["size"])
    flat = np.ravel_multi_index(places, size, order="F" if len(size) == PICTURE else "C")
    return np.asarray(np.searchsorted(_edges(item), flat, side="right") % 2 == 1)


def bits(item: Silhouette) -> np.ndarray:
    """bool [height, width], or [x, y, z]."""
    size = tuple(item["size"])
    counts = [*item["counts"], math.prod(size) - sum(item["counts"])]
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape(size, order="F" if len(size) == PICTURE else "C")


def numbered(things: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """uint16 [height, width] or [x, y, z]: of an answer's things, each with its "mask", the first is 1, the next 2 ..., and 0 is
    where nothing is. Where two overlap it is the first one's. ValueError without a thing: nobody knows the size."""
    if not things:
        raise ValueError("no thing, and so no size: the volume's or the picture's own shape, all 0")
    found = np.zeros(tuple(things[0]["mask"]["size"]), np.uint16)
    for number in range(len(things), 0, -1):
        found[bits(things[number - 1]["mask"])] = number
    return found


def area(item: Silhouette) -> int:
    """How many pixels are inside."""
    return int(sum(item["counts"][1::2]))


def box(item: Silhouette) -> list[int]:
    """[x0, y0, x1, y1] around it, of a volume [x0, y0, z0, x1, y1, z1]; all 0 where nothing is inside."""
    if len(item["size"]) != PICTURE:
        places = np.argwhere(bits(item))
        return [*places.min(0).tolist(), *(places.max(0) + 1).tolist()] if len(places) else [0] * 2 * len(item["size"])
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
    corner; of volumes of two sizes 0."""
    shared, union = np.zeros((len(one), len(other))), np.ones((len(one), len(other)))
    boxes = [[box(item) for item in items] for items in (one, other)]
    for row, a in enumerate(one):
        for column, b in enumerate(other):
            odd = len(a["size"]) != PICTURE and list(a["size"]) != list(b["size"])
            if odd or _apart(boxes[0][row], boxes[1][column]):
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
    axes = len(one) // 2
    return any(one[axes + axis] <= other[axis] or other[axes + axis] <= one[axis] for axis in range(axes))


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


__all__ = [
    "Silhouette",
    "area",
    "bits",
    "box",
    "inside",
    "numbered",
    "of_bits",
    "of_polygons",
    "of_voxels",
    "overlaps",
    "unpacked",
]
