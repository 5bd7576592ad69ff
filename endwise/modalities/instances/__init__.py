"""Single things on a picture, each with its class and its own mask (instance segmentation): how annotations are read, and how
found things are written.

A row's value is every thing of one picture: boxes (endwise/modalities/boxes) whose masks are known. Masks are COCO's run
lengths everywhere (endwise/silhouettes.py), so that answers are plain JSON that other tools read. What a network learns is
each mask inside its box, at a fixed number of places. Not here: the network (network.py), a class for every pixel (mask).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from endwise import silhouettes
from endwise.errors import BadValue, require
from endwise.modalities.base import Answer, Fetch, output_field
from endwise.modalities.boxes import Boxes, BoxesContract, Found
from endwise.modalities.category import class_name
from endwise.modalities.mask import Mask
from endwise.silhouettes import Silhouette

if TYPE_CHECKING:
    from endwise.metrics import Metric
    from endwise.nn.interface import Head
    from endwise.nn.size import Size

SIDE = 28  # places along a side of a box at which its mask is learnt (He et al. 2017), of pictures
FINER = 2  # places looked at along each axis for one that is learnt
SURE = 0.5  # of a place that is inside
DRAWN = 12  # columns that a report draws a mask in
MOST_PIXELS = 100_000_000


@dataclass(frozen=True, kw_only=True)
class Instances(Boxes):
    """Every single thing of a picture: a list of {label, mask}, or what two columns of a grouped table say about each.

    A mask is a picture of the same size whose pixels above 0 are the thing (a path, the bytes, an array), COCO's run lengths
    {"size": [height, width], "counts": a list or COCO's text}, or polygons {"size", "polygons": [[x, y, x, y ...]]}. An empty
    list is a value: nothing is there. Answers are lists of {label, box, score, mask}, boxes in pixels, masks in run lengths.
    """

    type: ClassVar[str] = "instances"
    hand_offs: ClassVar[frozenset[str]] = frozenset({"latent"})
    can_be_said: ClassVar[bool] = False
    classical_of_places: ClassVar[bool] = False
    side: ClassVar[int] = SIDE  # places along each axis of a box
    columns: tuple[str, ...] = output_field(
        (), "of a table with one row a thing (data.gather): the columns of the class and of the mask"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            (self.unit, self.format, self.radius) == ("px", "xyxy", None), field="Instances.unit, Instances.format, Instances.radius",
            got=[self.unit, self.format, self.radius], allowed="px, xyxy and null: a box is what its mask fills",
            fix="leave them out",
        )  # fmt: skip

    # ---- reading ---------------------------------------------------------------------------------------------------

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """uint8 [n], two lines of JSON: the boxes as those of `Boxes`, and the masks as [[height, width], counts]."""
        boxes, masks = [], []
        for number, item in enumerate(self._items(raw), 1):
            if item.get("label") is None or item.get("mask") is None:
                raise BadValue(f"thing {number} has {sorted(map(str, item))}: expected label and mask")
            try:
                found = self.silhouette(item["mask"], fetch)
            except BadValue as wrong:
                raise BadValue(f"thing {number}: {wrong}") from None
            boxes.append([class_name(item["label"]), *map(float, silhouettes.box(found))])
            masks.append([found["size"], found["counts"]])
        lines = json.dumps(boxes, ensure_ascii=False), json.dumps(masks)
        return np.frombuffer("\n".join(lines).encode(), dtype=np.uint8)

    def silhouette(self, raw: Any, fetch: Fetch) -> dict[str, Any]:
        """A mask in any of the ways in which people write one, as run lengths. BadValue where it is none."""
        return silhouette(raw, fetch)

    @property
    def cells(self) -> tuple[str, ...]:
        """What `columns` are of."""
        return "label", "mask"

    def of_cells(self, cells: Sequence[Any]) -> dict[str, Any]:
        """A thing from its two cells."""
        return {"label": cells[0], "mask": cells[1]}

    def transform(self, value: np.ndarray, contract: BoxesContract) -> np.ndarray:
        """float32 [n, 5 + places]: the box, and how much of each place of it the mask has, the last axis first."""
        boxes = super().transform(value, contract)
        inside = [in_box(item, box, self.side) for item, box in zip(masks_of(value), boxes[:, 1:], strict=True)]
        return np.concatenate([boxes, np.array(inside, np.float32).reshape(len(boxes), self._places)], axis=1)

    @property
    def _places(self) -> int:
        """Inside a box."""
        return int(self.side ** (len(self.corners) // 2))

    def blank(self, contract: BoxesContract) -> np.ndarray:
        """No thing."""
        return np.zeros((0, 1 + len(self.corners) + self._places), np.float32)

    # ---- answers ---------------------------------------------------------------------------------------------------

    @property
    def num_terms(self) -> int:
        """Those of boxes, and the mask."""
        return super().num_terms + 1

    def truth(self, value: np.ndarray, contract: BoxesContract) -> Found:
        """Every thing, whatever its class."""
        return [
            {**box, "mask": mask} for box, mask in zip(super().truth(value, contract), masks_of(value), strict=True)
        ]

    def beyond(self, decoded: Mapping[str, np.ndarray], rank: int) -> dict[str, Any]:
        """The mask of a found thing, in the pixels of the picture."""
        return {"mask": pasted(decoded["masks"][rank], decoded["boxes"][rank], decoded["sizes"])}

    def outlines(self, value: Any, shape: tuple[int, ...]) -> list[dict[str, Any]]:
        """Each box, and its mask in upright strips: {'parts': [[x, y, width, height], ...]}."""
        boxes = super().outlines(value, shape)
        return [
            {**box, "parts": strips(item["mask"], item["box"], shape)} for box, item in zip(boxes, value, strict=True)
        ]

    def remarks(self, truths: Sequence[Any], answers: Sequence[Answer], contract: BoxesContract) -> Sequence[str]:
        """What boxes say, and masks that are not of their picture's size."""
        told = list(super().remarks(truths, answers, contract))
        odd = sum(
            1 for truth, answer in zip(truths, answers, strict=False) if truth and answer.value
            and list(truth[0]["mask"]["size"]) != list(answer.value[0]["mask"]["size"])
        )  # fmt: skip
        return [*told, f"the masks of {odd} pictures are not of their picture's size"] if odd else told

    def metrics(self, contract: BoxesContract) -> Sequence["Metric"]:
        """mask_ap50 and mask_ap; and ap50, ap, ar, froc and f1 of the boxes."""
        from endwise.metrics import boxes

        return [boxes.mask_ap50(contract.classes), boxes.mask_ap(contract.classes), *super().metrics(contract)]

    def classical(self, contract: BoxesContract) -> Any:
        """The things of the training picture that is most alike in hand features."""
        from endwise.modalities.boxes.layout import Nearest

        return Nearest()

    def from_classical(self, predicted: Any, contract: BoxesContract) -> Answer:
        """The things as they are, all sure."""
        return Answer([{**thing, "score": 1.0} for thing in predicted])

    # ---- network side ----------------------------------------------------------------------------------------------

    def head(self, contract: BoxesContract, size: "Size") -> "Head":
        """That of boxes, and a mask for each."""
        from endwise.modalities.instances.network import InstancesHead

        return InstancesHead(self, contract, size)


# ---- masks -----------------------------------------------------------------------------------------------------------


def silhouette(raw: Any, fetch: Fetch) -> dict[str, Any]:
    """A mask in any of the ways in which people write one, as run lengths. BadValue where it is none."""
    if not isinstance(raw, Mapping) or not {"counts", "polygons"} & set(raw):
        bits = Mask().read(raw, fetch) > 0
        return silhouettes.of_bits(bits, bits.shape)
    return _of_polygons(raw["polygons"], _size(raw)) if "polygons" in raw else counted_out(raw)


def counted_out(raw: Mapping[str, Any], axes: int = silhouettes.PICTURE) -> dict[str, Any]:
    """A mask given as run lengths {"size", "counts"}. BadValue where they are none."""
    return _of_counts(raw["counts"], _size(raw, axes))


def _size(raw: Mapping[str, Any], axes: int = silhouettes.PICTURE) -> list[int]:
    size = raw.get("size")
    if (
        not isinstance(size, list | tuple | np.ndarray)
        or len(size) != axes
        or not all(_whole(side) and side > 0 for side in size)
    ):
        spelled = "[height, width]" if axes == silhouettes.PICTURE else "[x, y, z]"
        raise BadValue(
            f"a mask of {'polygons' if 'polygons' in raw else 'run lengths'} says size: {spelled}, got {size!r:.40}"
        )
    size = [int(side) for side in size]
    if math.prod(size) > MOST_PIXELS:
        raise BadValue(f"a mask of {_spelled(size)} pixels, more than {MOST_PIXELS:,}")
    return size


def _spelled(size: Sequence[int]) -> str:
    """As people say it: of a picture its width before its height."""
    return " x ".join(str(side) for side in (size[::-1] if len(size) == silhouettes.PICTURE else size))


def _of_counts(given: Any, size: list[int]) -> dict[str, Any]:
    if isinstance(given, bytes):
        given = given.decode("ascii", "replace")
    try:
        counts = (
            silhouettes.unpacked(given) if isinstance(given, str) else [int(count) for count in given if _whole(count)]
        )
    except (ValueError, TypeError) as wrong:
        raise BadValue(f"the run lengths cannot be read: {wrong}") from None
    if min(counts, default=-1) < 0 or sum(counts) != math.prod(size):
        raise BadValue(
            f"the run lengths are of {sum(counts):,} places, and what is {_spelled(size)} has {math.prod(size):,}"
        )
    return {"size": size, "counts": counts}


def _of_polygons(given: Any, size: list[int]) -> dict[str, Any]:
    try:
        polygons = [np.asarray(polygon, np.float64) for polygon in given]
    except (ValueError, TypeError):
        raise BadValue(f"expected polygons [[x, y, x, y ...], ...], got {given!r:.60}") from None
    for polygon in polygons:
        if polygon.ndim != 1 or len(polygon) < 6 or len(polygon) % 2 or not np.isfinite(polygon).all():
            raise BadValue(
                f"a polygon has at least three corners x, y in one list of numbers, got {polygon.tolist()!r:.60}"
            )
    return silhouettes.of_polygons([polygon.tolist() for polygon in polygons], size)


def _whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def masks_of(value: np.ndarray) -> list[dict[str, Any]]:
    """The silhouettes of a decoded value: its second line."""
    found = json.loads(value.tobytes().partition(b"\n")[2])
    return [{"size": size, "counts": counts} for size, counts in found]


def in_box(item: Silhouette, box: Sequence[float] | np.ndarray, side: int = SIDE) -> np.ndarray:
    """float64 [side, side], or with three axes: how much of each place of a box [x0, y0, x1, y1] a mask has."""
    along = (np.arange(side * FINER) + 0.5) / (side * FINER)
    places = [
        (low + along * (high - low)).astype(np.int64).clip(0, count - 1)
        for low, high, count in zip(*_ends(box), item["size"], strict=True)
    ]
    fine = silhouettes.inside(item, *np.ix_(*places))
    return np.asarray(fine.reshape((side, FINER) * len(places)).mean(tuple(range(1, 2 * len(places), 2))))


def _ends(box: Sequence[float] | np.ndarray) -> tuple[list[float], list[float]]:
    """The low corner and the high one, axes as of arrays: of a picture down before across."""
    low, high = np.asarray(box, np.float64).reshape(2, -1).tolist()
    return (low[::-1], high[::-1]) if len(low) == silhouettes.PICTURE else (low, high)


def pasted(places: np.ndarray, box: Sequence[float] | np.ndarray, size: Sequence[int] | np.ndarray) -> dict[str, Any]:
    """The chances of the places of a box (see `in_box`) as a mask of the picture or the volume: what is more likely inside
    than not."""
    made, starts, sides = np.asarray(places, np.float64), [], [int(side) for side in size]
    for axis, (low, high, side) in enumerate(zip(*_ends(box), sides, strict=True)):
        first, last = int(np.clip(np.floor(low), 0, side)), int(np.clip(np.ceil(high), 0, side))
        made = np.moveaxis(np.tensordot(_between(first, last, low, high, made.shape[axis]), made, (1, axis)), 0, axis)
        starts.append(first)
    if len(sides) == silhouettes.PICTURE:
        return silhouettes.of_bits(made > SURE, sides, *starts)
    return silhouettes.of_voxels(made > SURE, sides, starts)


def _between(first: int, last: int, low: float, high: float, side: int) -> np.ndarray:
    """[pixel, side]: what each place counts for in the middle of the pixels from `first` to `last`; 0 beyond the box."""
    middle = np.arange(first, last) + 0.5
    at = ((middle - low) / max(high - low, 1e-6) * side - 0.5).clip(0, side - 1)
    weights = (1 - np.abs(at[:, None] - np.arange(side))).clip(0)
    return weights * ((middle >= low) & (middle <= high))[:, None]


def strips(item: Silhouette, box: Sequence[float], shape: Sequence[int]) -> list[list[float]]:
    """A mask as upright rectangles [x, y, width, height] in shares of the picture, a dozen along its box: enough to see."""
    x0, y0, x1, y1 = box
    tall, wide = item["size"]
    rows = np.arange(int(np.clip(y0, 0, tall)), int(np.clip(np.ceil(y1), 0, tall)))
    out = []
    for index in range(DRAWN):
        middle = int(np.clip(x0 + (index + 0.5) / DRAWN * (x1 - x0), 0, wide - 1))
        inside = np.pad(silhouettes.inside(item, rows, np.full_like(rows, middle)), 1)
        change = np.diff(inside.astype(np.int8))
        for start, end in zip(np.flatnonzero(change == 1), np.flatnonzero(change == -1), strict=True):
            top = (rows[0] + start) / tall
            left, width = (x0 + index / DRAWN * (x1 - x0)) / wide, (x1 - x0) / DRAWN / wide
            out.append([round(float(value), 4) for value in (left, top, width, (end - start) / tall)])
    return out


__all__ = ["SIDE", "Instances", "counted_out", "in_box", "masks_of", "pasted", "silhouette"]
