"""Single things in a volume, each with its class and its own mask: those of a picture (modalities/instances) with three axes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from endwise import silhouettes
from endwise.errors import BadValue
from endwise.modalities.base import Fetch
from endwise.modalities.boxes import UNNAMED, BoxesContract
from endwise.modalities.instances import Instances, counted_out, masks_of
from endwise.modalities.volume.boxes import VolumeBoxes
from endwise.modalities.volume.mask import OnVoxels, VolumeMask
from endwise.scan import AXES, Scan

if TYPE_CHECKING:
    from endwise.metrics import Metric

SIDE = 12  # places along each axis of a box at which its mask is learnt


@dataclass(frozen=True, kw_only=True)
class VolumeInstances(OnVoxels, Instances):
    """Every single thing of a volume: a list of {label, mask}; or a volume (NIfTI, NPZ ...) in which each thing has a number of
    its own and 0 is nothing: {"numbers": the volume, "labels": {number: class}}, or the volume alone, where all are of one class.

    A mask is a volume with the voxels of the one that it lies on, above 0 where the thing is, or run lengths {"size": [x, y, z],
    "counts": so many voxels outside, inside, outside ..., along z first, then y, then x}. An empty list is a value: nothing is
    there. Answers are lists of {label, box, score, mask}, masks in run lengths; `endwise.silhouettes.numbered` makes one volume
    of them. Volumes are seen whole: one that is larger than what is looked at at once is refused.
    """

    type: ClassVar[str] = "volume_instances"
    corners: ClassVar[tuple[str, ...]] = VolumeBoxes.corners
    side: ClassVar[int] = SIDE
    read_fields: ClassVar[tuple[str, ...]] = (*Instances.read_fields, "spacing_mm")

    # ---- reading ---------------------------------------------------------------------------------------------------

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """As of pictures, six numbers a box."""
        return super().read(self._listed(raw, fetch), fetch)

    def _listed(self, raw: Any, fetch: Fetch) -> Any:
        """A volume of numbers as a list of things; what is one already as it is."""
        if isinstance(raw, str) and raw.lstrip()[:1] in ("[", "{"):
            try:
                raw = json.loads(raw)
            except (ValueError, RecursionError):
                raise BadValue(f"{raw[:60]!r} is no JSON list of things") from None
        if isinstance(raw, Mapping) and "numbers" in raw:
            return list(self._numbered(raw["numbers"], raw.get("labels"), fetch))
        if isinstance(raw, list | tuple) or (isinstance(raw, Mapping) and self.columns):
            return raw
        return list(self._numbered(raw, None, fetch))

    def _numbered(self, raw: Any, labels: Any, fetch: Fetch) -> Iterator[dict[str, Any]]:
        voxels = self._voxels(raw, fetch)
        if labels is not None and not isinstance(labels, Mapping):
            raise BadValue(f"labels: expected {{number: class}}, got {labels!r:.60}")
        names = None if labels is None else {str(number): name for number, name in labels.items()}
        for number in np.unique(voxels[voxels > 0]).tolist():
            if names is not None and str(number) not in names:
                raise BadValue(f"thing {number} of the volume has no class: labels are of {', '.join(names) or 'none'}")
            label = UNNAMED if names is None else names[str(number)]
            yield {"label": label, "mask": silhouettes.of_voxels(voxels == number, voxels.shape)}

    def _voxels(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """Whole numbers [x, y, z], upright and at the spacing of the volume beneath."""
        declared = VolumeMask(spacing_mm=self.spacing_mm)
        return declared.numbers(declared.read(raw, fetch))

    def silhouette(self, raw: Any, fetch: Fetch) -> dict[str, Any]:
        """A mask in either of the two ways, as run lengths. BadValue where it is none."""
        if isinstance(raw, Mapping) and "counts" in raw:
            return counted_out(raw, axes=AXES)
        bits = self._voxels(raw, fetch) > 0
        return silhouettes.of_voxels(bits, bits.shape)

    def apart(self, value: np.ndarray, under: np.ndarray) -> str | None:
        """A mask has as many voxels along each axis as its volume."""
        shape = Scan.unpacked(under).shape
        for item in masks_of(value):
            if tuple(item["size"]) != shape:
                own, its = (" x ".join(map(str, sides)) for sides in (item["size"], shape))
                return f"a mask has {own} voxels and {self.under()} {its}: they must be the same"
        return None

    # ---- answers ---------------------------------------------------------------------------------------------------

    def outlines(self, value: Any, shape: tuple[int, ...]) -> list[dict[str, Any]]:
        """None: the preview's planes lead through few of them."""
        return []

    def views(self, truth: Any, answer: Any, under: np.ndarray) -> list[dict[str, Any]]:
        """The planes through things, with their boxes, as of boxes in volumes."""
        return VolumeBoxes.views(self, truth, answer, under)  # type: ignore[arg-type]

    def metrics(self, contract: BoxesContract) -> Sequence["Metric"]:
        """mask_ap50 and mask_ap; and froc by the middles of boxes, ap50, ap, ar and f1 by their overlap."""
        from endwise.metrics import boxes

        by_masks = [boxes.mask_ap50(contract.classes), boxes.mask_ap(contract.classes)]
        by_boxes = (boxes.froc_centre, boxes.ap50, boxes.ap, boxes.ar, boxes.f1)
        return [*by_masks, *(made(contract.classes) for made in by_boxes)]


__all__ = ["VolumeInstances"]
