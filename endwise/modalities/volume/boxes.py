"""Boxes around things in a volume, such as lesions: the boxes of a picture (modalities/boxes) with three axes, also of
volumes that are larger than what is looked at at once.

A window answers for the things whose middle lies in its core, so that each has one window that sees it with something
around it; what two windows found all the same is one thing where the boxes share enough, as within one window.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from endwise.errors import DataError, require
from endwise.modalities.base import Answer, output_field
from endwise.modalities.boxes import MOST, Boxes, BoxesContract, boxes_of, has_area, kept
from endwise.patches import cores
from endwise.scan import AXES, Scan, drawn_through

if TYPE_CHECKING:
    from endwise.metrics import Metric

Thing = tuple[str, Mapping[str, Any], np.ndarray]  # "truth" or "answer", {"label", "box" ...}, its box in voxels
# what each axis of `Scan` is times
WORLDS = {"ras_mm": np.array([1.0, 1.0, 1.0]), "lps_mm": np.array([-1.0, -1.0, 1.0])}
MOST_VIEWS = 3  # of a volume in the report
AROUND, LEAST_AROUND = 12, 24  # of a thing's longest side, and voxels: how much of a volume is drawn around it
NOWHERE = -1e4  # the logit of a place that is none
PER_PLACE = ("one", "many", "boxes", "places")  # what the head says of each place


@dataclass(frozen=True, kw_only=True)
class VolumeBoxes(Boxes):
    """Every box in a volume: a list of {label, box}, six numbers in `format`: x, y and z of the low corner, then of the high
    one (`xyxy`), or a corner and three sizes (`xywh`), or the middle and three sizes (`cxcywh`). Numbers count the voxels of
    the volume as it is read: upright, and at its `spacing_mm` where that is declared. Cells may also say xmin, ymin, zmin,
    xmax, ymax, zmax; `columns` names the class's and the six numbers', or those of a centre and a diameter (`cxcyd`).

    With `unit: lps_mm` or `ras_mm` numbers are millimetres in the patient, as the affine of the volume's file places its voxels, and
    answers are too: x to the left and y to the back (lps: DICOM, ITK, 3D Slicer, LUNA16), or x to the right and y to the front
    (ras: NIfTI); z up. A box is brought to voxels by its middle and its sides, which is exact where the scan's axes are the patient's.

    With `radius` things are points, {label, point: [x, y, z]}; boxes too are scored by where the middle of a box lies. Of volumes that are
    larger than what is looked at at once a thing is found whole if it is at most half as long as that along every axis.
    """

    type: ClassVar[str] = "volume_boxes"
    lies_on_axes: ClassVar[frozenset[int]] = frozenset({AXES})
    by_middles: ClassVar[bool] = True
    stray_fix: ClassVar[str] = (
        "bring them to its voxels, upright and at spacing_mm, or say by unit which way their millimetres run "
        "(docs/tutorials/volumes.md#boxes)"
    )
    corners: ClassVar[tuple[str, ...]] = ("xmin", "ymin", "zmin", "xmax", "ymax", "zmax")

    unit: Literal["px", "share", "lps_mm", "ras_mm"] = output_field(  # type: ignore[assignment]  # more than of pictures
        "px",
        "of the coordinates: voxels of the volume as it is read, shares of its sides, or millimetres in the patient, with x to the "
        "left and y to the back (lps_mm) or x to the right and y to the front (ras_mm)",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            not (self.handed and self.unit in WORLDS), field="VolumeBoxes.unit", got=self.unit,
            allowed="px or share, where boxes go on to another stage", fix="write the boxes in voxels, or remove the stages",
        )  # fmt: skip

    # ---- millimetres ---------------------------------------------------------------------------------------------------

    @property
    def world_of(self) -> str | None:
        """The volume, where boxes are said in millimetres."""
        return self.under() if self.unit in WORLDS else None

    def from_world(self, value: np.ndarray, world: np.ndarray) -> np.ndarray:
        """Boxes in voxels, by their middles and their sides."""
        there, step = np.linalg.inv(world[:, :AXES]), np.linalg.norm(world[:, :AXES], axis=0)
        found = []
        for label, *corners in boxes_of(value):
            low, high = np.array(corners).reshape(2, AXES)
            # voxels begin before their middle
            middle = there @ ((low + high) / 2 * WORLDS[self.unit] - world[:, AXES]) + 0.5
            half = (high - low) / 2 / step
            found.append([label, *(middle - half).tolist(), *(middle + half).tolist()])
        return kept(found)

    def to_world(self, answer: Answer, world: np.ndarray | None) -> Answer:
        """In millimetres; nothing is found in a volume that is missing."""
        if world is None:
            return replace(answer, value=[], detail={})
        more = {name: [self._said(item, world) for item in part] for name, part in answer.detail.items()}
        return replace(answer, value=[self._said(item, world) for item in answer.value], detail=more)

    def _said(self, item: Mapping[str, Any], world: np.ndarray) -> dict[str, Any]:
        low, high = np.array(item["box"]).reshape(2, AXES)
        middle = (world[:, :AXES] @ ((low + high) / 2 - 0.5) + world[:, AXES]) * WORLDS[self.unit]
        if self.radius is not None:
            point = middle.tolist()
            return {**item, "point": point, "box": self._around(point)}
        half = (high - low) / 2 * np.linalg.norm(world[:, :AXES], axis=0)
        return {**item, "box": [*(middle - half).tolist(), *(middle + half).tolist()]}

    def _thing(self, label: str, box: Sequence[float]) -> dict[str, Any]:
        """Of a point in millimetres with the box around it that is so many of them wide, in voxels."""
        found = super()._thing(label, box)
        return {**found, "box": list(box)} if self.unit in WORLDS else found

    # ---- answers -------------------------------------------------------------------------------------------------------

    def outlines(self, value: Any, shape: tuple[int, ...]) -> list[dict[str, Any]]:
        """None: the preview's planes lead through few of them."""
        return []

    def classical(self, contract: BoxesContract) -> Any:
        """As of pictures, on what is around each voxel."""
        from endwise.modalities.boxes.detector import SlidingWindow
        from endwise.modalities.volume.mask import voxels

        return SlidingWindow(in_pixels=self.in_pixels, turned=False, opened=voxels)

    def _sides(self, under: np.ndarray) -> np.ndarray:
        """Of the volume as it is read, upright and at its `spacing_mm`."""
        return np.array(Scan.unpacked(under).shape)

    def views(self, truth: Any, answer: Any, under: np.ndarray) -> list[dict[str, Any]]:
        """The planes through the middles of at most three things, first of those that were missed and of false alarms, and
        what is around them up to some times their longest side. A thing through which others' planes lead is shown with them."""
        scan = Scan.unpacked(under)
        sides = np.tile((1.0,) * AXES if self.in_pixels else scan.shape, 2)
        things = [
            (side, item, sides * item["box"]) for side, all_ in (("truth", truth), ("answer", answer)) for item in all_
        ]
        found: list[dict[str, Any]] = []
        seen: list[np.ndarray] = []
        for _, item, box in sorted(things, key=lambda thing: _agreed(thing, things)):
            middle = box.reshape(2, AXES).mean(0)
            if len(found) < MOST_VIEWS and not any(_holds(box, place) for place in seen):
                seen.append(middle)
                found.append({"about": item["label"], **_view(scan, box, things)})
        return found

    def metrics(self, contract: BoxesContract) -> Sequence["Metric"]:
        """froc by the middles of boxes, ap50, ap, ar and f1 by their overlap."""
        from endwise.metrics import boxes

        if self.radius is not None:
            return super().metrics(contract)
        return [made(contract.classes) for made in (boxes.froc_centre, boxes.ap50, boxes.ap, boxes.ar, boxes.f1)]

    # ---- volumes larger than what is looked at at once -----------------------------------------------------------------

    def part(self, value: np.ndarray, start: Sequence[int], sides: Sequence[int]) -> np.ndarray:
        """The boxes that reach into it, in its own voxels. DataError where they are shares of a whole that it does not know."""
        require(
            self.in_pixels, field="VolumeBoxes.unit", got=self.unit, allowed="px, where volumes are seen in patches",
            fix="write the boxes in voxels, or let the volume be seen whole (a larger seen_voxels:)", error=DataError,
        )  # fmt: skip
        first, found = np.array(start, np.float64), []
        for label, *corners in boxes_of(value):
            low, high = np.array(corners).reshape(2, AXES) - first
            if (high > 0).all() and (low < np.array(sides)).all():
                found.append([label, *low.tolist(), *high.tolist()])
        return kept(found)

    def sought(self, value: np.ndarray, contract: BoxesContract, words: np.ndarray) -> tuple[int, ...] | None:
        """The middle of a box, each as likely."""
        found = [corners for label, *corners in boxes_of(value) if label in contract.ids and has_area(corners)]
        if not (found and self.in_pixels):
            return None
        middle = np.array(found[int(words[0]) % len(found)]).reshape(2, AXES).mean(0)
        return tuple(max(0, int(place)) for place in middle)

    def merged(
        self, parts: Iterable[tuple[tuple[int, ...], Mapping[str, np.ndarray]]], shape: tuple[int, ...]
    ) -> dict[str, np.ndarray]:
        """What each window says about its core. Of what the head says, all its places; of what was decoded, the surest boxes,
        suppressed anew."""
        found = list(parts)
        own = zip(found, cores([start for start, _ in found], shape), strict=True)
        windows = [(np.array(start, np.float64), decoded, core) for (start, decoded), core in own]
        whole = np.array(shape, np.float64)
        if "one" in found[0][1]:
            return _joined_places(windows, whole, points=self.radius is not None)
        last = np.max([start for start, _ in found], axis=0)
        return self._joined_boxes(windows, whole, whole - last)

    def stacked(self, rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """With places that are none behind those of rows that have fewer."""
        most = max(len(row["one"]) for row in rows)
        empty = {"one": NOWHERE, "many": NOWHERE, "boxes": 0.0, "places": -1.0}
        return {
            key: np.stack([_lengthened(row[key], most, empty[key]) if key in empty else row[key] for row in rows])
            for key in rows[0]
        }

    def _joined_boxes(
        self, windows: Iterable[tuple[np.ndarray, Mapping[str, np.ndarray], Any]], whole: np.ndarray, sides: np.ndarray
    ) -> dict[str, np.ndarray]:
        own: dict[str, list[np.ndarray]] = {"boxes": [], "alone": [], "classes": [], "given": []}
        scale = np.ones(AXES) if self.in_pixels else sides
        for start, decoded, core in windows:
            ends = np.asarray(decoded["boxes"], np.float64).reshape(-1, 2, AXES) * scale + start
            here = _inside(ends, core)
            own["boxes"].append(ends[here].reshape(-1, 2 * AXES))
            for name in ("alone", "classes", "given"):
                own[name].append(np.asarray(decoded[name])[here])
        found = {name: np.concatenate(values) for name, values in own.items()}
        surest = np.argsort(-found["alone"], kind="stable")[:MOST]
        found = {name: values[surest] for name, values in found.items()}
        gone = np.zeros(len(surest), bool) if self.overlap is None else _suppressed(found, self.overlap)
        found["boxes"] /= 1.0 if self.in_pixels else np.tile(whole, 2)
        return {**found, "scores": np.where(gone, 0.0, found["alone"])}


def _holds(box: np.ndarray, place: np.ndarray) -> bool:
    low, high = box.reshape(2, AXES)
    return bool(((low <= place) & (place <= high)).all())


def _agreed(thing: Thing, things: Sequence[Thing]) -> bool:
    """Whether a truth has an answer whose middle lies in it, or an answer lies so in a truth."""
    side, item, box = thing
    for other, another, its in things:
        inner, outer = (its, box) if side == "truth" else (box, its)
        if other != side and item["label"] == another["label"] and _holds(outer, inner.reshape(2, AXES).mean(0)):
            return True
    return False


def _view(scan: Scan, box: np.ndarray, things: Sequence[Thing]) -> dict[str, Any]:
    """The planes through the middle of a box, of what is around it."""
    low, high = box.reshape(2, AXES)
    step = np.array(scan.spacing_mm or (1.0,) * AXES)
    room = np.maximum(AROUND / 2 * ((high - low) * step).max() / step, LEAST_AROUND / 2)
    begin = np.floor((low + high) / 2 - room).clip(0, np.array(scan.shape) - 1).astype(int)
    end = np.ceil((low + high) / 2 + room).clip(begin + 1, scan.shape).astype(int)
    moved = np.tile(begin, 2)
    part, boxes = scan.part(begin.tolist(), (end - begin).tolist()), [its - moved for _, _, its in things]
    data, places = drawn_through(part, (low + high) / 2 - begin, boxes)
    shown: dict[str, list[dict[str, Any]]] = {"truth": [], "answer": []}
    for (side, item, _), on_planes in zip(things, places, strict=True):
        score = {"score": item["score"]} if "score" in item else {}
        shown[side] += [{"label": item["label"], "box": place, **score} for place in on_planes]
    return {"data": data, **shown}


def _joined_places(
    windows: Iterable[tuple[np.ndarray, Mapping[str, np.ndarray], Any]], whole: np.ndarray, *, points: bool
) -> dict[str, np.ndarray]:
    own: dict[str, list[np.ndarray]] = {name: [] for name in PER_PLACE}
    for start, said, core in windows:
        seen, sides = np.asarray(said["seen"], np.float64), np.asarray(said["sizes"], np.float64)

        def laid(points: np.ndarray, seen: np.ndarray = seen) -> np.ndarray:
            """From the window's canvas to shares of the window."""
            return np.asarray(points.astype(np.float64) @ seen[:, :AXES].T + seen[:, AXES])

        ends = laid(np.asarray(said["boxes"]).reshape(-1, 2, AXES))
        if points:  # as of the head: it is the point that lies in the window, its box may reach beyond
            middles = ends.mean(1, keepdims=True)
            ends = ends - middles + middles.clip(0.0, 1.0)
        else:
            ends = ends.clip(0.0, 1.0)
        ends = ends * sides + start
        here = _inside(ends, core)
        own["boxes"].append((ends[here] / whole).reshape(-1, 2 * AXES))
        own["places"].append((laid(np.asarray(said["places"]))[here] * sides + start) / whole)
        for name in ("one", "many"):
            own[name].append(np.asarray(said[name])[here])
    return {
        **{name: np.concatenate(values).astype(np.float32) for name, values in own.items()},
        "seen": np.eye(AXES, AXES + 1, dtype=np.float32),
        "sizes": whole.astype(np.int64),
    }


def _inside(ends: np.ndarray, core: tuple[Sequence[float], Sequence[float]]) -> np.ndarray:
    """Which boxes [n, 2, axes] have their middle in the core."""
    middles, (low, high) = ends.mean(1), core
    return np.asarray(((middles >= low) & (middles < high)).all(1))


def _suppressed(found: Mapping[str, np.ndarray], most: float) -> np.ndarray:
    """Which boxes, the surest first, share more than `most` with a surer one of their class that stays."""
    low, high = np.split(np.asarray(found["boxes"], np.float64), 2, axis=1)
    shared = np.maximum(np.minimum(high[:, None], high) - np.maximum(low[:, None], low), 0).prod(-1)
    sizes = np.maximum(high - low, 0).prod(1)
    covers = shared > most * np.maximum(sizes[:, None] + sizes - shared, 1e-12)
    covers &= found["classes"][:, None] == found["classes"]
    gone = np.zeros(len(low), bool)
    for rank in range(len(low)):
        gone[rank] = bool((covers[rank, :rank] & ~gone[:rank]).any())
    return gone


def _lengthened(values: np.ndarray, count: int, fill: float) -> np.ndarray:
    room = np.full((count - len(values), *values.shape[1:]), fill, values.dtype)
    return np.concatenate([values, room])


__all__ = ["VolumeBoxes"]
