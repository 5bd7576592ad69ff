"""Masks: a class for every place of a picture (semantic segmentation). The declaration, how a mask is read, what is learnt
about the training masks, how an answer is written.

Stored as the numbers of the file. Nothing here but ClassVars knows that a picture has two axes: the mask of a volume
(modalities/volume/mask.py) is a subclass that reads other files, with the same head, losses and metrics. Not here: the decoder (network.py), per-pixel features of the
classical baseline (features.py), single objects of one class (instances).
"""

import base64
import builtins
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from endwise.drawing import Segmentation, resizing
from endwise.errors import BadValue, DataError, ModelError, refusal, require
from endwise.modalities.base import HAND_OFFS, Answer, Contract, Fetch, Role, file_bytes, one_of, output_field, percent
from endwise.modalities.image import MAX_PIXELS
from endwise.modalities.spatial import Spatial
from endwise.patches import bell

if TYPE_CHECKING:
    from endwise.metrics import Metric
    from endwise.nn.interface import Encoder, Head
    from endwise.nn.size import Size

FORMATS = ("PNG", "TIFF", "BMP", "GIF")  # that keep numbers as they are
UNKNOWN, IGNORED = 254, 255  # in the place of a class
MOST_CLASSES = UNKNOWN
MOST_FOUND = 100  # different numbers of masks whose classes nobody has named
MOST_SCORED = 20  # classes with a score of their own
WRITTEN_CELLS = 4_000_000  # scores held at once while an answer is written: 16 MB
SHOWN = 4
CROSS_ENTROPY, DICE = "cross_entropy", "dice"


@dataclass(frozen=True, kw_only=True)
class MaskContract(Contract):
    """The classes: their names, the number of each in a mask, and how many training places have it. ignored: how many
    have none."""

    classes: tuple[str, ...]
    values: tuple[int, ...]
    places: tuple[int, ...]
    ignored: int

    @property
    def names(self) -> dict[int, str]:
        """{number: name}."""
        return dict(zip(self.values, self.classes, strict=True))


@dataclass(frozen=True, kw_only=True)
class Mask(Spatial):
    """A class for every pixel of a picture: a PNG, TIFF, BMP or GIF (a path, the bytes) of grey levels or of a palette,
    whose numbers are the classes; or whole numbers [height, width] in memory. As large as its picture.

    The answer is a `Segmentation` of the picture's own size. A number that training never saw teaches nothing, and no
    answer to it can be right.
    """

    type: ClassVar[str] = "mask"
    length_unit: ClassVar[str] = "places"
    contract_class: ClassVar[builtins.type[Contract]] = MaskContract
    axes: ClassVar[int] = 2
    classical_of_places: ClassVar[bool] = True
    hand_offs: ClassVar[frozenset[str]] = HAND_OFFS
    canvas_axes: ClassVar[int] = 2  # for what another stage answers about it
    read_fields: ClassVar[tuple[str, ...]] = ()

    classes: tuple[str, ...] | None = output_field(
        None, "names of the classes 0, 1, 2 ..., or of the numbers that there are in rising order; null: the numbers"
    )
    ignore: int | None = output_field(None, "the number of pixels that nobody has labelled: they count for nothing")

    def __post_init__(self) -> None:
        super().__post_init__()
        names = self.classes
        require(
            names is None or (len(set(names)) == len(names) and 2 <= len(names) <= MOST_CLASSES and all(names)),
            field="Mask.classes", got=names, allowed=f"2 to {MOST_CLASSES} different names",
            fix="leave it out to take the numbers themselves",
        )  # fmt: skip
        require(
            self.ignore is None or 0 <= self.ignore < 1 << 16, field="Mask.ignore", got=self.ignore,
            allowed="a whole number from 0 to 65535", fix="give the number that unlabelled pixels have, such as 255",
        )  # fmt: skip

    @property
    def num_terms(self) -> int:
        """Cross-entropy and Dice."""
        return 2

    # ---- reading -------------------------------------------------------------------------------------------------

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """uint8 or uint16 [height, width]."""
        pillow = sys.modules.get("PIL.Image")
        if isinstance(raw, Segmentation):
            return self.from_array(raw.numbers)
        if isinstance(raw, np.ndarray | list):
            return self.from_array(np.asarray(raw))
        if pillow is not None and isinstance(raw, pillow.Image):
            return self.from_array(_numbers(raw))
        if isinstance(raw, str) and raw.startswith("data:image/"):
            try:
                return self.from_array(_decoded(base64.b64decode(raw.partition("base64,")[2], validate=True)))
            except ValueError as broken:
                raise BadValue(f"the data URI is not base64: {broken}") from None
        return self.from_array(_decoded(file_bytes(raw, fetch, "a mask")))

    def from_array(self, numbers: np.ndarray) -> np.ndarray:
        """Whole numbers from 0 to 65535 along as many axes as a mask has."""
        if numbers.ndim != self.axes or 0 in numbers.shape:
            raise BadValue(
                f"an array of shape {list(numbers.shape)} is no mask: it has {self.axes} axes and no channels"
            )
        if numbers.dtype.kind not in "iub":
            raise BadValue(f"an array of {numbers.dtype} is no mask: its numbers are classes, so give whole ones")
        low, high = int(numbers.min()), int(numbers.max())
        if low < 0 or high >= 1 << 16:
            raise BadValue(f"the numbers go from {low} to {high}: classes are 0 to 65535")
        return np.ascontiguousarray(numbers.astype(np.uint8 if high < 256 else np.uint16))

    def misfit(self, shape: tuple[int, ...], under: tuple[int, ...]) -> str | None:
        """A mask is as large as what it lies on."""
        if shape == under[: self.axes]:
            return None
        mine, other = (" x ".join(map(str, sides[: self.axes][::-1])) for sides in (shape, under))
        place = "pixel" if self.axes == Mask.axes else "voxel"
        return f"the mask is {mine} and {self.under()} is {other}: they must be of one size, a {place} for a {place}"

    def numbers(self, value: np.ndarray) -> np.ndarray:
        """Of a decoded value: the number of each place."""
        return value

    # ---- the contract --------------------------------------------------------------------------------------------

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> MaskContract:
        """The numbers that there are, and how often."""
        counts, seen = np.zeros(1 << 16, np.int64), 0
        for value in values:
            seen += 1
            own = np.bincount(self.numbers(value).ravel(), minlength=256)
            counts[: len(own)] += own
        ignored = 0 if self.ignore is None else int(counts[self.ignore])
        if self.ignore is not None:
            counts[self.ignore] = 0
        found = np.flatnonzero(counts).tolist()
        numbers = self._numbers(found, counts)
        return MaskContract(
            count=seen, missing=missing, classes=self.classes or tuple(map(str, numbers)), values=tuple(numbers),
            places=tuple(counts[numbers].tolist()), ignored=ignored,
        )  # fmt: skip

    def _numbers(self, found: list[int], counts: np.ndarray) -> list[int]:
        """The number of each class."""
        if self.classes is None:
            require(
                2 <= len(found) <= MOST_FOUND, field="mask", got=f"{len(found)} different numbers in the training masks",
                allowed=f"2 to {MOST_FOUND} classes", error=DataError,
                fix="edges that were smoothed make numbers in between: save masks without; name the classes if there are so many"
                if len(found) > 2 else "look at the column and at ignore:",
            )  # fmt: skip
            return found
        if len(found) == len(self.classes) and max(found) >= len(found):
            return found  # such as 0 and 255
        odd = [number for number in found if number >= len(self.classes)]
        if odd:
            raise refusal(
                field="Mask.classes", got=f"the number {odd[0]} in {counts[odd[0]]:,} training pixels",
                allowed=f"0 to {len(self.classes) - 1}: {', '.join(self.classes[:SHOWN])} ...",
                fix=f"name class {odd[0]} too, or write ignore: {odd[0]}", error=DataError,
            )  # fmt: skip
        return list(range(len(self.classes)))

    def transform(self, value: np.ndarray, contract: MaskContract) -> np.ndarray:
        """uint8: the class of each place; 254 of a number that is none, 255 where nobody has labelled."""
        return np.asarray(_table(contract.values, self.ignore)[self.numbers(value)])

    def blank(self, contract: MaskContract) -> np.ndarray:
        """One place that nobody has labelled."""
        return np.full((1,) * self.axes, IGNORED, np.uint8)

    def length(self, shape: tuple[int, ...]) -> int:
        """Its places."""
        return int(np.prod(shape))

    def continued(self, old: Any, new: Any, role: Role) -> Contract | None:
        """Where the classes are the same, however often each occurs."""
        return new if (old.classes, old.values) == (new.classes, new.values) else None

    def summary(self, contract: MaskContract) -> str:
        """'11 classes: road (30 %), sky (20 %) …, 3 % unlabelled', the most frequent first."""
        total = max(1, sum(contract.places) + contract.ignored)
        ranked = sorted(zip(contract.places, contract.classes, strict=True), key=lambda item: (-item[0], item[1]))
        shown = [f"{name[:40]} ({percent(count / total)})" for count, name in ranked[:SHOWN]]
        ignored = f", {percent(contract.ignored / total)} unlabelled" if contract.ignored else ""
        return f"{len(ranked)} classes: {', '.join(shown)}{' …' if len(ranked) > SHOWN else ''}{ignored}"

    def preview(self, value: np.ndarray, contract: MaskContract) -> dict[str, str]:
        """The mask in its palette."""
        return {"kind": "image", "data": self.truth(value, contract).to_json()}

    # ---- answers -------------------------------------------------------------------------------------------------

    def truth(self, value: np.ndarray, contract: MaskContract) -> Segmentation:
        """The mask as it was given."""
        return self.segmentation(self.numbers(value), contract, self.ignore)

    def segmentation(self, numbers: np.ndarray, contract: MaskContract, ignore: int | None = None) -> Segmentation:
        """Numbers as the user's kind of value."""
        return Segmentation(numbers, contract.names, ignore)

    def write(self, decoded: Mapping[str, np.ndarray], contract: MaskContract) -> Answer:
        """A `Segmentation` of the size of what it lies on; the mean probability of the classes that were chosen as
        confidence; the share of each class that there is. decoded: as the network gives it, or as it was `concluded`."""
        if "classes" in decoded:
            classes, sure = np.asarray(decoded["classes"]), float(decoded["sure"])
        else:
            size = tuple(int(side) for side in decoded["sizes"])
            seen = np.asarray(decoded["seen"], np.float64)
            classes, sure = chosen(np.asarray(decoded["scores"], np.float32), size, seen)
        dtype = np.uint8 if max(contract.values) < 256 else np.uint16
        found = self.segmentation(np.array(contract.values, dtype)[classes], contract)
        return Answer(found, min(1.0, sure), detail={"shares": found.shares})

    def merged(
        self, parts: Iterable[tuple[tuple[int, ...], Mapping[str, np.ndarray]]], shape: tuple[int, ...]
    ) -> dict[str, np.ndarray]:
        """Scores of the whole: the mean of the windows', which count less near their borders."""
        total: np.ndarray | None = None
        counted = np.zeros(shape, np.float32)
        for start, decoded in parts:
            size = tuple(int(side) for side in decoded["sizes"])
            scores = brought(np.asarray(decoded["scores"], np.float32), size, np.asarray(decoded["seen"], np.float64))
            total = np.zeros((len(scores), *shape), np.float32) if total is None else total
            place, weight = tuple(slice(low, low + side) for low, side in zip(start, size, strict=True)), bell(size)
            total[:, *place] += weight * scores
            counted[place] += weight
        assert total is not None
        total /= counted
        return {"scores": total, "seen": np.eye(self.axes, self.axes + 1), "sizes": np.array(shape, np.int64)}

    def concluded(
        self, parts: Iterable[tuple[tuple[int, ...], Mapping[str, np.ndarray]]], shape: tuple[int, ...]
    ) -> dict[str, np.ndarray]:
        """{'classes': uint8 [*shape], 'sure': the mean probability of them}. Scores are held of the slab along the first axis
        that windows still add to; what no window reaches any more is settled."""
        slab: _Slab | None = None
        for start, decoded in parts:
            size = tuple(int(side) for side in decoded["sizes"])
            scores = brought(np.asarray(decoded["scores"], np.float32), size, np.asarray(decoded["seen"], np.float64))
            slab = _Slab(len(scores), size[0], shape) if slab is None else slab
            slab.add(start, scores)
        assert slab is not None
        return slab.whole()

    def stacked(self, rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """On canvases of the largest; those of smaller rows reach beyond them."""
        largest = np.max([row["sizes"] for row in rows], axis=0)
        scores = np.zeros((len(rows), len(rows[0]["scores"]), *largest), np.float32)
        for place, row in zip(scores, rows, strict=True):
            place[:, *(slice(side) for side in row["sizes"])] = row["scores"]
        seen = [np.concatenate([np.diag(largest / row["sizes"]), np.zeros((self.axes, 1))], axis=1) for row in rows]
        return {
            "scores": scores, "seen": np.stack(seen).astype(np.float32), "sizes": np.stack([row["sizes"] for row in rows]),
        }  # fmt: skip

    def about(
        self, which: Any, decoded: Mapping[str, np.ndarray], contract: MaskContract
    ) -> tuple[str, tuple[int, ...]]:
        """The region of a class by its name or number; else the largest one."""
        scores = np.asarray(decoded["scores"])
        counts = np.bincount(scores.argmax(0).ravel(), minlength=len(scores))
        names = [contract.names[value] for value in contract.values]
        place = int(counts.argmax()) if which is None else one_of(which, names, "class")
        require(
            counts[place] > 0, field="of", got=which, allowed="a class that the answer has",
            fix=f"ask for {' or '.join(name for name, count in zip(names, counts, strict=True) if count)}", error=ModelError,
        )  # fmt: skip
        return f"the region of {names[place]} ({counts[place] / counts.sum():.0%})", (place,)

    def remarks(self, truths: Sequence[Any], answers: Sequence[Answer], contract: MaskContract) -> Sequence[str]:
        """How many places have no label, and how many a number that is no class."""
        counts = np.zeros(256, np.int64)
        for truth in truths:
            counts += np.bincount(truth.places().ravel(), minlength=256)
        told = []
        for mark, what in ((IGNORED, "are unlabelled (ignore) and are in no metric"),
                           (UNKNOWN, "have a number that training never saw: no answer to them is right")):  # fmt: skip
            if counts[mark]:
                told.append(f"{counts[mark]:,} of {counts.sum():,} pixels {what}")
        return told

    def metrics(self, contract: MaskContract) -> Sequence["Metric"]:
        """miou, dice, pixel_accuracy and boundary_f1 over all places together; and the Dice and the boundary_f1 of each of
        at most 20 classes."""
        from endwise import metrics

        found = [metrics.mean_iou(), metrics.mean_dice(), metrics.pixel_accuracy(), metrics.boundary_f1()]
        if len(contract.classes) <= MOST_SCORED:
            found += [metrics.class_dice(name, place) for place, name in enumerate(contract.classes)]
            found += [metrics.boundary_f1(name, place) for place, name in enumerate(contract.classes)]
        return found

    def risk(self, contract: MaskContract) -> "Metric":
        """The share of the places that are wrong."""
        from endwise import metrics

        return metrics.pixel_accuracy()

    def classical(self, contract: MaskContract) -> Any:
        """Logistic regression on the colours and textures around each pixel."""
        from endwise.modalities.mask.features import PixelClassifier

        return PixelClassifier()

    def trivial(self, truths: Sequence[Any], contract: MaskContract) -> Answer:
        """The most frequent class everywhere."""
        counts = np.zeros(256, np.int64)
        for truth in truths:
            counts += np.bincount(truth.places().ravel(), minlength=256)
        best = int(counts[: len(contract.classes)].argmax())
        return Answer(self.segmentation(np.full((1,) * self.axes, contract.values[best], np.uint16), contract))

    def from_classical(self, predicted: Any, contract: MaskContract) -> Answer:
        """Classes by their numbers, at the classifier's own resolution."""
        return Answer(self.segmentation(np.asarray(predicted), contract))

    # ---- network side ----------------------------------------------------------------------------------------------

    def carrier(self, contract: MaskContract, size: "Size") -> "Encoder":
        """The net of pictures over the share of each class at every place; what the next stage answers may lie on it."""
        from endwise.modalities.mask.network import MaskCarrier

        return MaskCarrier(len(contract.classes), size)

    def head(self, contract: MaskContract, size: "Size") -> "Head":
        """A feature pyramid, merged, and a class for every place of the canvas."""
        from endwise.modalities.mask.network import MaskHead

        return MaskHead(contract.places, size, on=self.under())


def chosen(scores: np.ndarray, size: tuple[int, ...], seen: np.ndarray) -> tuple[np.ndarray, float]:
    """Scores [class, *canvas] at another size: the class of each place (uint8 [*size]) and the mean probability of them.
    Resized as pictures are, slab by slab along the first axis, so that large pictures need no more memory than small.
    seen: where the canvas lies, as in `Placed`, its axes along those of the value."""
    kept = scores
    for axis in range(1, len(size)):
        kept = _resized(kept, axis, size[axis], seen)
    rows = _weights(scores.shape[1], size[0], seen[0, 0], seen[0, -1])
    found, total = np.empty(size, np.uint8), 0.0
    step = max(1, WRITTEN_CELLS // max(1, kept.size // kept.shape[1]))
    for start in range(0, size[0], step):
        part = np.moveaxis(np.tensordot(rows[start : start + step], kept, (1, 1)), 0, 1)
        found[start : start + step], chances = _best(part)
        total += chances
    return found, total / found.size


def _best(scores: np.ndarray) -> tuple[np.ndarray, float]:
    """Of scores [class, *places]: the class of each place, and the sum of their probabilities."""
    return scores.argmax(0), float((1.0 / np.exp(scores - scores.max(0)).sum(0)).sum())


class _Slab:
    """The scores of windows, summed where windows may still add to them: as many planes of the first axis as a window has."""

    def __init__(self, classes: int, planes: int, shape: tuple[int, ...]) -> None:
        self.first = 0  # plane of the whole that the slab begins with
        self.total = np.zeros((classes, planes, *shape[1:]), np.float32)
        self.counted = np.zeros((planes, *shape[1:]), np.float32)
        self.classes, self.chances = np.empty(shape, np.uint8), 0.0

    def add(self, start: Sequence[int], scores: np.ndarray) -> None:
        """A window's scores, which count less near its borders."""
        self._settle(start[0] - self.first)
        size = scores.shape[1:]
        place = (slice(size[0]), *(slice(low, low + side) for low, side in zip(start[1:], size[1:], strict=True)))
        weight = bell(size)
        self.total[:, *place] += weight * scores
        self.counted[place] += weight

    def whole(self) -> dict[str, np.ndarray]:
        """What all planes came to."""
        self._settle(self.total.shape[1])
        return {"classes": self.classes, "sure": np.array(self.chances / self.classes.size)}

    def _settle(self, planes: int) -> None:
        """The first planes are finished: the others move up."""
        step = max(1, WRITTEN_CELLS // (self.total.size // self.total.shape[1]))
        for low in range(0, planes, step):
            some = slice(low, min(low + step, planes))
            best, chances = _best(self.total[:, some] / self.counted[some])
            self.classes[self.first + some.start : self.first + some.stop] = best
            self.chances += chances
        left = self.total.shape[1] - planes
        if planes:
            for sums in (np.moveaxis(self.total, 1, 0), self.counted):
                for plane in range(left):  # one by one: the two places may overlap
                    sums[plane] = sums[plane + planes]
                sums[left:] = 0.0
        self.first += planes


def brought(scores: np.ndarray, size: tuple[int, ...], seen: np.ndarray) -> np.ndarray:
    """float32 [class, *size]: the scores themselves at another size."""
    for axis, side in enumerate(size):
        scores = _resized(scores, axis, side, seen)
    return scores


def _resized(scores: np.ndarray, axis: int, side: int, seen: np.ndarray) -> np.ndarray:
    """Along one axis of the canvas."""
    along = _weights(scores.shape[1 + axis], side, seen[axis, axis], seen[axis, -1])
    return np.asarray(np.moveaxis(np.tensordot(along, scores, (1, 1 + axis)), 0, 1 + axis))


def _weights(cells: int, size: int, scale: float, shift: float) -> np.ndarray:
    """float32 [size, cells]: `resizing` where the canvas covers `scale` of the side, from `shift` on."""
    if scale == 1 and shift == 0:
        return resizing(cells, size)
    middle = ((np.arange(size) + 0.5) / size - shift) / scale * cells
    weights = np.maximum(0.0, 1.0 - np.abs(np.arange(cells) + 0.5 - middle[:, None]) / max(cells / (size * scale), 1.0))
    return np.asarray((weights / weights.sum(1, keepdims=True)).astype(np.float32))


@lru_cache(64)
def _table(values: tuple[int, ...], ignore: int | None) -> np.ndarray:
    table = np.full(1 << 16, UNKNOWN, np.uint8)
    table[list(values)] = np.arange(len(values), dtype=np.uint8)
    if ignore is not None:
        table[ignore] = IGNORED
    return table


# ---- files -----------------------------------------------------------------------------------------------------------


def _decoded(data: bytes) -> np.ndarray:
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    if data[:3] == b"\xff\xd8\xff":
        raise BadValue("the mask is a JPEG, which changes the numbers of classes: save it as a PNG")
    try:
        with Pillow.open(io.BytesIO(data), formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise BadValue(f"the mask has {picture.width} x {picture.height} pixels, more than {MAX_PIXELS:,}")
            return _numbers(picture)
    except (BadValue, MemoryError):
        raise
    except UnidentifiedImageError:
        raise BadValue(f"not a PNG, TIFF, BMP or GIF file: it begins with {data[:12]!r}") from None
    except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning):
        raise BadValue(f"the mask has more than {MAX_PIXELS:,} pixels") from None
    except Exception as broken:  # decoders of damaged files promise no kind of exception
        raise BadValue(f"the mask is damaged: {broken}") from None


def _numbers(picture: Any) -> np.ndarray:
    """The numbers of a PIL image; a palette's colours do not matter."""
    if picture.mode in ("P", "L"):
        return np.asarray(picture)
    if picture.mode == "1":
        return np.asarray(picture).astype(np.uint8)
    if picture.mode.startswith("I"):
        return np.asarray(picture).astype(np.int64)
    colours = np.asarray(picture.convert("RGB"))
    if picture.mode == "RGB" and (colours == colours[..., :1]).all():
        return colours[..., 0]
    raise BadValue(
        f"the mask has colours ({picture.mode}), and which is which class cannot be known: save it with a palette or as grey levels"
    )


__all__ = ["Mask", "MaskContract", "chosen"]
