"""Boxes around things on a picture: the declaration, how annotations are read, what is learnt about them, and how found
boxes are written.

A row's value is every box of one picture. Tables with one row a box become that by `data: {gather: ...}` (see
endwise/data/gather.py); COCO and Pascal VOC annotations are opened as such rows (endwise/data/annotations.py). Not here:
the network (network.py), the baselines (layout.py), the metrics (endwise/metrics/boxes.py).
"""

import difflib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from endwise.errors import BadValue, DataError, refusal, require
from endwise.modalities.base import READ_AGAIN, Answer, Contract, Fetch, Role, counted, output_field
from endwise.modalities.category import class_name
from endwise.modalities.spatial import Spatial

if TYPE_CHECKING:
    from endwise.metrics import Metric
    from endwise.nn.interface import Encoder, Head
    from endwise.nn.size import Size

NUMERALS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven"}
SHOWN = 6  # classes that a summary spells out
MOST = 100  # boxes of an answer
LEAST_SCORE = 0.05  # candidates below are not written: rankings change by less than they can tell
UNNAMED = "thing"  # the class of what is said without one
ABOUT_WHOLE = 1.0  # pixel coordinates that are all up to this were probably shares
NEARLY = 0.85  # alike names (of difflib), one of which may be the other misspelt
RARER = 20  # times as rare as the other
JSON_KINDS = (list, tuple, np.ndarray)

Found = list[
    dict[str, Any]
]  # [{"label": name, "box": [x0, y0, x1, y1]}], of answers with "score"; of volumes six numbers


def _misspelt(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """(class, the one that it is nearly called as), where that one is far more frequent. Not of names such as 'grade 2', of
    which one letter is all that tells them apart."""
    found = []
    for rare, count in counts.items():
        if any(len(word) < 2 or not word.isalpha() for word in re.split(r"[\W_]+", rare)):
            continue
        frequent = {name.casefold(): name for name, other in counts.items() if other >= RARER * count}
        if near := difflib.get_close_matches(rare.casefold(), frequent, n=1, cutoff=NEARLY):
            found.append((rare, frequent[near[0]]))
    return found


@dataclass(frozen=True, kw_only=True)
class BoxesContract(Contract):
    """The classes of the training boxes, sorted, and how many boxes each has; how large boxes are.

    boxes: all of them; empty: those without width or height, which nothing can be learnt from; without: pictures that have
    none; most: boxes of one picture. medians: (width, height ...) of each class, in places of the input or in shares.
    below: boxes with a negative coordinate; reach: the largest coordinate.
    """

    classes: tuple[str, ...]
    counts: tuple[int, ...]
    medians: tuple[tuple[float, ...], ...]
    boxes: int
    empty: int
    without: int
    most: int
    below: int
    reach: float

    @cached_property
    def ids(self) -> dict[str, int]:
        """Name -> class number."""
        return {name: index for index, name in enumerate(self.classes)}


@dataclass(frozen=True, kw_only=True)
class Boxes(Spatial):
    """Every box of a picture: a list of {label, box}, or what several columns of a grouped table say about it.

    A cell is a list (or its JSON text) of mappings with `label` and either `box`, four numbers in `format`, or the corners
    xmin, ymin, xmax, ymax. With `columns`, which names the class's and the four numbers' in that order, it is put together
    from them; without the class's, all are called `thing`. An empty list is a value: nothing is there. Pixels are those of the
    picture's file, x to the right and y down, from its upper left corner; a high corner lies behind the last pixel. A box whose
    high corner is below its low one is refused, one without width or height is kept, counted, and learnt by nobody.

    With `radius` each thing is a point: cells have `label` and either `point`, or x and y, `columns` names three; a found point
    is right where it lies no further than that from a true one along any axis, and answers are lists of {label, point, box,
    score}, the box as far around the point.

    Answers are lists of {label, box, score} in pixels of the file or in shares of its sides, as `unit` says.
    """

    type: ClassVar[str] = "boxes"
    hand_offs: ClassVar[frozenset[str]] = READ_AGAIN
    contract_class = BoxesContract
    can_be_said: ClassVar[bool] = True
    classical_of_places: ClassVar[bool] = True
    axes: ClassVar[int] = 1
    read_fields: ClassVar[tuple[str, ...]] = ("columns", "format", "unit", "radius")
    by_middles: ClassVar[bool] = False  # of froc: a box finds a thing by where its middle lies, else by their overlap
    stray_fix: ClassVar[str] = (
        "mend or remove them, or are the numbers another format, or of another size of the picture?"
    )
    corners: ClassVar[tuple[str, ...]] = ("xmin", "ymin", "xmax", "ymax")  # the low ones before the high ones

    columns: tuple[str, ...] = output_field(
        (),
        "of a table with one row a box (data.gather): the columns of the class and of the numbers in `format`; all are of one "
        "class without the first",
    )
    format: Literal["xyxy", "xywh", "cxcywh", "cxcyd"] = output_field(
        "xyxy",
        "what the numbers are: two corners; corner and sides; centre and sides; or centre and one diameter",
    )
    unit: Literal["px", "share"] = output_field("px", "of the coordinates: pixels of the file, or shares of its sides")
    radius: float | None = output_field(
        None, "things are points, and one found so near, in `unit`, to a true one is right; null: they are boxes"
    )
    matching: Literal["one", "many"] = output_field(
        "one", "who answers for a thing: the one place that set prediction gave it, or the many that learn it beside"
    )
    stride_px: int | None = output_field(
        None,
        "pixels of the canvas from one place that looks for things to the next; null: 8, or less on small canvases",
    )
    overlap: float | None = output_field(
        0.6, "of boxes of a class that share more than this the surest is given; null: all are"
    )
    threshold: float | None = output_field(
        None, "the score from which on a box is given; null: per class, the best F1 on the validation rows"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        cells = len(self.cells)
        require(
            len(self.columns) in (0, cells - 1, cells) and len(set(self.columns)) == len(self.columns), field="Boxes.columns",
            got=list(self.columns), fix=f"write columns: [{', '.join(self.cells)}]",
            allowed=f"{NUMERALS[cells]} columns: of {', '.join(self.cells)}; or all but the first, where things are of one class",
        )  # fmt: skip
        require(
            not self.columns or self.column is None, field="Boxes.column", got=self.column, allowed="column or columns, not both",
            fix="remove column",
        )  # fmt: skip
        require(
            self.stride_px is None or self.stride_px in (1, 2, 4, 8, 16, 32), field="Boxes.stride_px", got=self.stride_px,
            allowed="1, 2, 4, 8, 16 or 32 pixels, or null", fix="4 finds things of less than about 16 pixels of the canvas",
        )  # fmt: skip
        require(
            self.radius is None or (math.isfinite(self.radius) and self.radius > 0), field="Boxes.radius", got=self.radius,
            allowed="a number above 0, or null", fix="half of what a thing measures across",
        )  # fmt: skip
        require(
            self.radius is None or self.format == "xyxy", field="Boxes.format", got=self.format,
            allowed="xyxy, which is left out, beside radius: a point has no corners", fix="remove format",
        )  # fmt: skip
        for name in ("overlap", "threshold"):
            value = getattr(self, name)
            require(
                value is None or 0 < value < 1, field=f"Boxes.{name}", got=value, allowed="a number between 0 and 1, or null",
                fix="leave it out",
            )  # fmt: skip

    @property
    def cells(self) -> tuple[str, ...]:
        """What `columns` are of."""
        if self.radius is not None:
            return ("label", *self._axes)
        return ("label", *self._axes, "diameter") if self.format == "cxcyd" else ("label", *self.corners)

    @property
    def in_pixels(self) -> bool:
        """Whether decoded boxes count pixels or voxels of the input as it is read, and not shares of its sides."""
        return self.unit != "share"

    @property
    def _axes(self) -> str:
        return "xyz"[: len(self.corners) // 2]

    def reads_columns(self) -> tuple[str, ...]:
        """Of a table with one row a box."""
        return self.columns

    # ---- reading ---------------------------------------------------------------------------------------------------

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """JSON, uint8 [n]: a list of [class, x0, y0, x1, y1] in `unit`, in their order."""
        found = [self._box(item, number) for number, item in enumerate(self._items(raw), 1)]
        return kept(found)

    def _items(self, raw: Any) -> Iterator[Mapping[str, Any]]:
        if isinstance(raw, str):
            try:
                raw = json.loads(raw)
            except (ValueError, RecursionError):
                raise BadValue(f"{raw[:60]!r} is no JSON list of boxes") from None
        if isinstance(raw, Mapping) and self.columns:
            raw = list(self._rows(raw))
        if not isinstance(raw, JSON_KINDS):
            raise BadValue(f"expected a list of boxes, got {type(raw).__name__} {raw!r:.60}")
        for number, item in enumerate(raw, 1):
            if not isinstance(item, Mapping):
                raise BadValue(f"box {number}: expected {{label, box}}, got {type(item).__name__} {item!r:.60}")
            yield item

    def _rows(self, cells: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """The boxes of several columns; one whose cells are all empty says that there is none."""
        columns = [cells[name] for name in self.columns]
        if not isinstance(columns[0], JSON_KINDS):
            raise BadValue(f"column {self.columns[0]!r} has no list of boxes: write data: {{gather: COLUMN}}")
        unsaid = (UNNAMED,) * (len(self.cells) - len(columns))
        for row in zip(*columns, strict=True):
            if any(cell is not None for cell in row):
                yield self.of_cells((*unsaid, *row))

    def of_cells(self, cells: Sequence[Any]) -> dict[str, Any]:
        """A thing from what `columns` say about it."""
        return {"label": cells[0], "box" if self.radius is None else "point": cells[1:]}

    def _box(self, item: Mapping[str, Any], number: int) -> list[Any]:
        """[class, *corners], refused where it is none."""
        label = item.get("label")
        if label is None:
            raise BadValue(f"box {number} has no label")
        if self.radius is not None:
            return [class_name(label), *self._around(self._point(item, number))]
        if "point" in item and "box" not in item:
            raise BadValue(f"box {number} is a point: declare radius, how near to it a found one has to be")
        corners = all(name in item for name in self.corners)
        if ("box" in item) == corners:
            raise BadValue(
                f"box {number} has {sorted(map(str, item))}: expected label, and either box or {', '.join(self.corners)}"
            )
        given = [item[name] for name in self.corners] if corners else item["box"]
        count = len(self.corners) if corners or self.format != "cxcyd" else len(self._axes) + 1
        if not isinstance(given, JSON_KINDS) or len(given) != count:
            raise BadValue(f"box {number}: expected {NUMERALS[count]} numbers, got {given!r:.60}")
        low_high = _corners([_number(value, number) for value in given], "xyxy" if corners else self.format)
        for axis, low, high in zip("xyz", *ends_of(low_high), strict=False):
            if high < low:
                raise BadValue(
                    f"box {number} ends before it begins: its {axis} goes from {low:g} to {high:g} ({self.format})"
                )
        if self.unit == "share" and not all(0 <= value <= 1 for value in low_high):
            low_end, high_end = ends_of(low_high)
            raise BadValue(
                f"box {number} goes from {low_end} to {high_end}: shares lie between 0 and 1; pixels are unit: px"
            )
        return [class_name(label), *low_high]

    def _point(self, item: Mapping[str, Any], number: int) -> list[float]:
        """Where it is, refused where that is not said."""
        apart = all(name in item for name in self._axes)
        if ("point" in item) == apart:
            raise BadValue(
                f"point {number} has {sorted(map(str, item))}: expected label, and either point or {', '.join(self._axes)}"
            )
        given = [item[name] for name in self._axes] if apart else item["point"]
        if not isinstance(given, JSON_KINDS) or len(given) != len(self._axes):
            raise BadValue(f"point {number}: expected {NUMERALS[len(self._axes)]} numbers, got {given!r:.60}")
        found = [_number(value, number) for value in given]
        if self.unit == "share" and not all(0 <= value <= 1 for value in found):
            raise BadValue(f"point {number} is at {found}: shares lie between 0 and 1; pixels are unit: px")
        return found

    def _around(self, point: Sequence[float]) -> list[float]:
        """The box of a point."""
        assert self.radius is not None
        return [*(value - self.radius for value in point), *(value + self.radius for value in point)]

    def _thing(self, label: str, box: Sequence[float]) -> dict[str, Any]:
        """As it is answered; what is found around a point need not be as large as what is true of it."""
        if self.radius is None:
            return {"label": label, "box": list(box)}
        point = _middle(box)
        return {"label": label, "point": point, "box": self._around(point)}

    def _outset(self, box: Sequence[float]) -> list[float]:
        """What of it has to lie on the picture: the point, or the low corner."""
        return list(ends_of(box)[0]) if self.radius is None else _middle(box)

    # ---- the contract ----------------------------------------------------------------------------------------------

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> BoxesContract:
        """Count classes and look at sizes, in one pass."""
        counts: Counter[str] = Counter()
        sizes: dict[str, list[list[float]]] = {}
        seen = empty = without = most = below = 0
        largest = 0.0
        for value in values:
            boxes = boxes_of(value)
            seen, without, most = seen + 1, without + (not boxes), max(most, len(boxes))
            for label, *corners in boxes:
                low, high = ends_of(corners)
                counts[label] += 1
                sizes.setdefault(label, []).append([end - begin for begin, end in zip(low, high, strict=True)])
                empty += not has_area(corners)
                below += min(self._outset(corners)) < 0
                largest = max(largest, *high)
        if not counts:
            raise refusal(
                field="boxes", got=f"{seen} pictures without any box, {missing} without a value",
                allowed="at least one box among the training rows", fix="look at the column's name, or remove the field", error=DataError,
            )  # fmt: skip
        names = tuple(sorted(counts))
        return BoxesContract(
            count=seen, missing=missing, classes=names, counts=tuple(counts[name] for name in names),
            medians=tuple(_median(sizes[name]) for name in names), boxes=counts.total(), empty=empty, without=without,
            most=most, below=below, reach=float(largest),
        )  # fmt: skip

    def transform(self, value: np.ndarray, contract: BoxesContract) -> np.ndarray:
        """float32 [n, 1 + corners]: class number, x0, y0, x1, y1. A class that training never saw is -1: it teaches nothing."""
        rows = [[contract.ids.get(label, -1), *corners] for label, *corners in boxes_of(value)]
        return np.array(rows, dtype=np.float32).reshape(-1, 1 + len(self.corners))

    def blank(self, contract: BoxesContract) -> np.ndarray:
        """No box."""
        return np.zeros((0, 1 + len(self.corners)), dtype=np.float32)

    def summary(self, contract: BoxesContract) -> str:
        """'4888 boxes of 3 classes, 13 a picture: RBC (4155, about 102 x 101 px) …', the most frequent first."""
        unit = {"px": " px", "share": " of the sides"}.get(self.unit, " voxels")
        facts = sorted(
            zip(contract.counts, contract.classes, contract.medians, strict=True), key=lambda item: (-item[0], item[1])
        )
        shown = [
            f"{name[:40]} ({count}, about {' x '.join(f'{side:.3g}' for side in sides)}{unit})"
            if self.radius is None
            else f"{name[:40]} ({count})"
            for count, name, sides in facts[:SHOWN]
        ]
        many = "1 class" if len(facts) == 1 else f"{len(facts)} classes"
        odd = f"; {contract.without} pictures have none" if contract.without else ""
        odd += f"; {contract.empty} have no width or no height" if contract.empty else ""
        return (
            f"{contract.boxes} {'boxes' if self.radius is None else 'points'} of {many}, {contract.boxes / contract.count:.2g} a picture: "
            f"{', '.join(shown)}{' …' if len(facts) > SHOWN else ''}{odd}"
        )

    def oddities(
        self, train: Iterable[np.ndarray], held: Iterable[np.ndarray], contract: BoxesContract
    ) -> Sequence[tuple[str, str, Sequence[int]]]:
        """Boxes without area, classes that look misspelt, and pixels that look like shares."""
        empty = []
        rows_of: dict[str, list[int]] = defaultdict(list)
        for row, value in enumerate(value for part in (train, held) for value in part):
            for label, *corners in boxes_of(value):
                rows_of[str(label)].append(row)
                empty += [] if has_area(corners) else [row]
        found = []
        if empty:
            found.append((f"{len(empty)} boxes have no width or no height: nothing is learnt from them, and no metric counts them",
                          "mend or remove them", list(dict.fromkeys(empty))))  # fmt: skip
        for rare, usual in _misspelt({label: len(rows) for label, rows in rows_of.items()}):
            found.append((f"class {rare!r} has {len(rows_of[rare])} boxes and is nearly called as {usual!r}, which has {len(rows_of[usual])}",
                          "correct it, if it is a typing mistake", list(dict.fromkeys(rows_of[rare]))))  # fmt: skip
        if self.unit == "px" and contract.reach - (self.radius or 0.0) <= ABOUT_WHOLE:
            found.append(
                (
                    "all coordinates lie between 0 and 1, and are taken for pixels",
                    "write unit: share if they are shares",
                    [],
                )
            )
        return found

    def preview(self, value: np.ndarray, contract: BoxesContract) -> dict[str, str]:
        """How many of each class."""
        counts = Counter(label for label, *_ in boxes_of(value))
        return {"kind": "text", "data": ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "—"}

    # ---- outputs ---------------------------------------------------------------------------------------------------

    @property
    def num_terms(self) -> int:
        """The class of the place that answers, its box, and the many places that learn beside it."""
        return 3

    def truth(self, value: np.ndarray, contract: BoxesContract) -> Found:
        """Every box, whatever its class and area."""
        return [self._thing(label, corners) for label, *corners in boxes_of(value)]

    def said(self, target: np.ndarray, contract: BoxesContract) -> Found:
        """The boxes of classes that training saw."""
        return [
            self._thing(contract.classes[int(label)], [float(value) for value in corners])
            for label, *corners in target
            if label >= 0
        ]

    def write(self, decoded: Mapping[str, np.ndarray], contract: BoxesContract) -> Answer:
        """The boxes whose score reaches their class's threshold, the surest first; `detail["more"]` has the candidates
        below it."""
        found: Found = [
            {
                **self._thing(contract.classes[int(label)], [float(value) for value in box]),
                "score": float(score),
                **self.beyond(decoded, rank),
            }
            for rank, (label, box, score) in enumerate(
                zip(decoded["classes"], decoded["boxes"], decoded["scores"], strict=True)
            )
            if score >= LEAST_SCORE
        ]
        given = [
            bool(kept) for kept, score in zip(decoded["given"], decoded["scores"], strict=True) if score >= LEAST_SCORE
        ]
        value = [box for box, kept in zip(found, given, strict=True) if kept]
        more = [box for box, kept in zip(found, given, strict=True) if not kept]
        return Answer(value, detail={"more": more} if more else {})

    def beyond(self, decoded: Mapping[str, np.ndarray], rank: int) -> dict[str, Any]:
        """What is said about a found thing beside its class, box and score. Default: nothing."""
        return {}

    def about(
        self, which: Any, decoded: Mapping[str, np.ndarray], contract: BoxesContract
    ) -> tuple[str, tuple[int, ...]]:
        """A box of the answer by its number from 0, the surest first; where there is none, the surest that was not given."""
        given = np.asarray(decoded["given"], bool) & (np.asarray(decoded["scores"]) >= LEAST_SCORE)
        ranks = np.flatnonzero(given).tolist()
        rank = ranks[counted(which, len(ranks), "box")] if ranks or which is not None else 0
        label, score = contract.classes[int(decoded["classes"][rank])], float(decoded["scores"][rank])
        corners = " ".join(f"{corner:.1f}" for corner in decoded["boxes"][rank])
        return f"{label} at {corners} ({score:.0%}{'' if ranks else ', not given'})", (rank,)

    def risk(self, contract: BoxesContract) -> "Metric":
        """What is missing of a picture's F1 at an overlap of 0.5."""
        from endwise.metrics.boxes import picture_f1

        return picture_f1(centres=self.radius is not None)

    def sureness(self, answer: Answer, contract: BoxesContract) -> float:
        """The mean score of the boxes that are given; where none is, how unlikely the likeliest was."""
        scores = [float(box["score"]) for box in answer.value]
        if not scores:
            return 1 - max((float(box["score"]) for box in answer.detail.get("more", ())), default=0.0)
        return min(1.0, sum(scores) / len(scores))

    def strays(self, value: np.ndarray, under: np.ndarray) -> int:
        """Boxes that reach more than a pixel beyond what they lie on as it is read, and points that lie there."""
        if not self.in_pixels:
            return 0
        most = self._sides(under) + 1.0
        found = [corners for _, *corners in boxes_of(value)]
        ends = [ends_of(box) if self.radius is None else (_middle(box),) * 2 for box in found]
        return sum(bool((np.array(low) < -1.0).any() or (np.array(high) > most).any()) for low, high in ends)

    def _sides(self, under: np.ndarray) -> np.ndarray:
        """Of a decoded input, along x, y (and z), in pixels."""
        height, width = under.shape[:2]
        return np.array([width, height])

    def outlines(self, value: Any, shape: tuple[int, ...]) -> list[dict[str, Any]]:
        """Each box as it lies on the picture."""
        height, width = (1.0, 1.0) if self.unit == "share" else shape[:2]
        out = []
        for item in value:
            x0, y0, x1, y1 = item["box"]
            place = [x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height]
            score = {"score": item["score"]} if "score" in item else {}
            out.append({"label": item["label"], "box": place, **score})
        return out

    def remarks(self, truths: Sequence[Any], answers: Sequence[Answer], contract: BoxesContract) -> Sequence[str]:
        """True boxes that no answer can find."""
        boxes = [box for truth in truths for box in truth]
        empty = sum(1 for box in boxes if not has_area(box["box"]))
        unseen = Counter(box["label"] for box in boxes if box["label"] not in contract.ids)
        told = [f"{empty} of {len(boxes)} true boxes have no width or no height and are in no metric"] if empty else []
        if unseen:
            names = ", ".join(repr(name) for name in sorted(unseen)[:SHOWN])
            told.append(
                f"{unseen.total()} of {len(boxes)} true boxes are of classes that training never saw ({names}) and are in no metric"
            )
        return told

    def metrics(self, contract: BoxesContract) -> Sequence["Metric"]:
        """ap50, ap, ar, froc and f1; of points froc and f1, by where they lie."""
        from endwise.metrics import boxes

        if self.radius is not None:
            return [boxes.froc_centre(contract.classes), boxes.f1_centre(contract.classes)]
        return [made(contract.classes) for made in (boxes.ap50, boxes.ap, boxes.ar, boxes.froc, boxes.f1)]

    def sensitivities(
        self, truths: Sequence[Any], answers: Sequence[Answer], contract: BoxesContract
    ) -> list[tuple[float, float]]:
        """(false alarms a picture, sensitivity) of the curve whose mean is the metric froc."""
        from endwise.metrics import boxes

        return boxes.sensitivities(
            contract.classes, truths, answers, by_middles=self.by_middles or self.radius is not None
        )

    def classical(self, contract: BoxesContract) -> Any:
        """A window of the usual size over what a pixel classifier says."""
        from endwise.modalities.boxes.detector import SlidingWindow

        return SlidingWindow(in_pixels=self.in_pixels, turned=True)

    def from_classical(self, predicted: Any, contract: BoxesContract) -> Answer:
        """(boxes that are given, candidates below)."""
        given, more = ([{**box, **self._thing(box["label"], box["box"])} for box in part] for part in predicted)
        return Answer(given, detail={"more": more} if more else {})

    def trivial(self, truths: Sequence[Any], contract: BoxesContract) -> Answer:
        """The training picture whose boxes fit the others best."""
        from endwise.modalities.boxes.layout import typical

        return Answer(typical(truths))

    # ---- network side ----------------------------------------------------------------------------------------------

    def carrier(self, contract: BoxesContract, size: "Size") -> "Encoder":
        """A token a box, and what there is in all."""
        from endwise.modalities.boxes.network import BoxesCarrier

        return BoxesCarrier(contract, size, numbers=len(self.corners))

    def head(self, contract: BoxesContract, size: "Size") -> "Head":
        """Set prediction over the places of the picture's feature maps."""
        from endwise.modalities.boxes.network import BoxesHead

        return BoxesHead(self, contract, size)


def boxes_of(value: np.ndarray) -> list[list[Any]]:
    """[[class, *corners], ...] of a decoded value: its first line."""
    found: list[list[Any]] = json.loads(value.tobytes().partition(b"\n")[0])
    return found


def kept(boxes: Sequence[Sequence[Any]]) -> np.ndarray:
    """[[class, *corners], ...] as a decoded value: JSON, uint8 [n]."""
    return np.frombuffer(json.dumps(boxes, ensure_ascii=False).encode(), dtype=np.uint8)


def has_area(box: Sequence[float]) -> bool:
    """Whether its high corner lies above its low one on every axis."""
    return all(high > low for low, high in zip(*ends_of(box), strict=True))


def ends_of(box: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """The low corner, the high one."""
    half = len(box) // 2
    return box[:half], box[half:]


def _middle(box: Sequence[float]) -> list[float]:
    return [(low + high) / 2 for low, high in zip(*ends_of(box), strict=True)]


def _corners(given: Sequence[float], form: str) -> list[float]:
    if form == "xyxy":
        return list(given)
    if form == "cxcyd":
        given = [*given[:-1], *([given[-1]] * (len(given) - 1))]
    first, size = (np.array(part) for part in ends_of(given))
    low = first if form == "xywh" else first - size / 2
    return [*low.tolist(), *(low + size).tolist()]


def _number(value: Any, box: int) -> float:
    if isinstance(value, bool) or value is None:
        raise BadValue(f"box {box}: a coordinate is {value!r}")
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise BadValue(f"box {box}: {value!r:.40} is no number") from None
    if not math.isfinite(found):
        raise BadValue(f"box {box}: a coordinate is {found}")
    return found


def _median(sizes: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(float(side) for side in np.median(np.array(sizes), axis=0))


__all__ = ["Boxes", "BoxesContract", "boxes_of", "ends_of", "kept"]
