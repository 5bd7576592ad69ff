"""Boxes around things in a volume, such as lesions: the boxes of a picture (modalities/boxes) with three axes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from endwise.modalities.boxes import Boxes, BoxesContract
from endwise.scan import AXES

if TYPE_CHECKING:
    from endwise.metrics import Metric


@dataclass(frozen=True, kw_only=True)
class VolumeBoxes(Boxes):
    """Every box in a volume: a list of {label, box}, six numbers in `format`: x, y and z of the low corner, then of the high
    one (`xyxy`), or a corner and three sizes (`xywh`), or the middle and three sizes (`cxcywh`). Numbers count the voxels of
    the volume as it is read: upright, and at its `spacing_mm` where that is declared. Cells may also say xmin, ymin, zmin,
    xmax, ymax, zmax; `columns` names the class's and the six numbers'.

    A thing is a point where its box is small: answers are scored by where the middle of a box lies.
    """

    type: ClassVar[str] = "volume_boxes"
    lies_on_axes: ClassVar[frozenset[int]] = frozenset({AXES})
    corners: ClassVar[tuple[str, ...]] = ("xmin", "ymin", "zmin", "xmax", "ymax", "zmax")

    def outlines(self, value: Any, shape: tuple[int, ...]) -> list[dict[str, Any]]:
        """None: a plane shows few of them."""
        return []

    def metrics(self, contract: BoxesContract) -> Sequence["Metric"]:
        """froc by the middles of boxes, ap50, ap, ar and f1 by their overlap."""
        from endwise.metrics import boxes

        return [made(contract.classes) for made in (boxes.froc_centre, boxes.ap50, boxes.ap, boxes.ar, boxes.f1)]


__all__ = ["VolumeBoxes"]
