"""A class for every voxel of a volume: the mask of a picture (modalities/mask), read from volumes and with three axes."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from endwise.errors import BadValue
from endwise.modalities.base import Answer, Fetch, Modality, output_field
from endwise.modalities.mask import Mask, MaskContract
from endwise.modalities.spatial import Spatial
from endwise.modalities.volume import SPACING_SPREAD, Volume
from endwise.scan import AXES, NIFTI_URI, Scan, VolumeSegmentation, volume_file

if TYPE_CHECKING:
    from collections.abc import Iterable

    from endwise.modalities.base import Role

MOST_SEARCHED = 2_000_000
SAVED = "save it with the place of its volume"


@dataclass(frozen=True, kw_only=True)
class VolumeMaskContract(MaskContract):
    """spacing_mm: of the training masks, None where files say none."""

    spacing_mm: tuple[float, ...] | None


def _corners(scan: Scan) -> np.ndarray:
    """Where the middles of its corner voxels lie, [8, 3] in millimetres, that of the first voxel first."""
    assert scan.affine is not None
    ends = np.array(list(itertools.product(*((0, side - 1) for side in scan.shape))), np.float64)
    found: np.ndarray = ends @ scan.affine[:, :AXES].T + scan.affine[:, AXES]
    return found


@dataclass(frozen=True, kw_only=True)
class OnVoxels(Spatial):
    """An output that is given as voxels: they are brought to the spacing of the volume that they lie on."""

    lies_on_axes: ClassVar[frozenset[int]] = frozenset({AXES})

    spacing_mm: tuple[float, ...] | None = output_field(None, "taken over from the volume that it lies on")

    def beside(self, inputs: Mapping[str, Modality], outputs: Mapping[str, Modality]) -> Self:
        """With the spacing of its volume."""
        found = super().beside(inputs, outputs)
        under = inputs.get(str(found.on))
        return replace(found, spacing_mm=under.spacing_mm) if isinstance(under, Volume) else found


@dataclass(frozen=True, kw_only=True)
class VolumeMask(OnVoxels, Mask):
    """A class for every voxel of a volume: NIfTI, DICOM, NPZ or NPY as a volume is given, with whole numbers; of the same
    voxels in the same place.

    The answer is a `VolumeSegmentation`; `save("mask.nii.gz")` writes it where its scan lies, upright, and with
    `like="scan.nii.gz"` on the scan's own grid.
    """

    type: ClassVar[str] = "volume_mask"
    contract_class = VolumeMaskContract
    axes: ClassVar[int] = AXES
    canvas_axes: ClassVar[int] = 0
    read_fields: ClassVar[tuple[str, ...]] = ("spacing_mm",)

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """uint8 [bytes]: a packed `Scan` with whole numbers [x, y, z]."""
        from endwise.modalities.volume.files import scan_of

        is_uri = isinstance(raw, str) and raw.startswith(NIFTI_URI)
        if isinstance(raw, VolumeSegmentation):
            found = replace(scan_of(raw.numbers, fetch), affine=raw.affine)
        else:
            found = scan_of(volume_file(raw) if is_uri else raw, fetch)
        if is_uri and found.affine is not None and not found.affine[:, AXES].any():
            found.affine[:, AXES] = np.nan  # an answer in JSON, which begins at 0 because it does not know its scan
        if found.voxels.shape[AXES] != 1:
            raise BadValue(f"the mask has {found.voxels.shape[AXES]} channels: expected one class a voxel, [x, y, z]")
        numbers = found.voxels[..., 0]
        if numbers.dtype.kind == "f":
            if not (numbers == np.rint(numbers)).all():
                raise BadValue(
                    "the mask holds numbers such as 0.5: its numbers are classes, so resample masks by the nearest voxel"
                )
            numbers = numbers.astype(np.int64)
        scan = Scan(self.from_array(numbers), found.affine)
        return (scan if self.spacing_mm is None else scan.resampled(self.spacing_mm, classes=True)).packed()

    @property
    def placed_by(self) -> str | None:
        """The volume: an answer is saved where that lies."""
        return self.under()

    def to_world(self, answer: Answer, world: np.ndarray | None) -> Answer:
        """The same, with its place."""
        return answer if answer.value is None else replace(answer, value=replace(answer.value, affine=world))

    def numbers(self, value: np.ndarray) -> np.ndarray:
        """Of the packed scan."""
        return Scan.unpacked(value).voxels

    def extent(self, value: np.ndarray) -> tuple[int, ...]:
        """Voxels along x, y and z."""
        return Scan.unpacked(value).shape

    def part(self, value: np.ndarray, start: Sequence[int], sides: Sequence[int]) -> np.ndarray:
        """The same voxels as of the volume."""
        return Scan.unpacked(value).part(start, sides).packed()

    def sought(self, value: np.ndarray, contract: MaskContract, words: np.ndarray) -> tuple[int, ...] | None:
        """A voxel of a class that is not the most frequent in training: of one of those that there are, each as likely.
        Looked for on a grid of at most two million voxels."""
        voxels = self.numbers(value)
        step = max(1, math.ceil((voxels.size / MOST_SEARCHED) ** (1 / 3)))
        some = voxels[::step, ::step, ::step]
        usual = contract.values[int(np.argmax(contract.places))]
        there = [number for number in np.unique(some).tolist() if number != usual and number in contract.values]
        if not there:
            return None
        places = np.flatnonzero(some == there[int(words[0]) % len(there)])
        return tuple(int(place) * step for place in np.unravel_index(places[int(words[1]) % len(places)], some.shape))

    def apart(self, value: np.ndarray, under: np.ndarray) -> str | None:
        """A mask has the voxels of its volume: as many, as large, in the same place."""
        own, other = Scan.unpacked(value), Scan.unpacked(under)
        wrong = self.misfit(own.shape, other.shape)
        if wrong is not None or own.spacing_mm is None or other.spacing_mm is None:
            return wrong
        if max(abs(one / two - 1) for one, two in zip(own.spacing_mm, other.spacing_mm, strict=True)) > SPACING_SPREAD:
            mine, its = (" x ".join(f"{step:.3g}" for step in scan.spacing_mm or ()) for scan in (own, other))
            return f"the voxels of the mask are {mine} mm and those of {self.under()} {its} mm: {SAVED}"
        found, wanted = _corners(own), _corners(other)
        if not (np.isfinite(found).all() and np.isfinite(wanted).all()):
            return None
        reach = max(other.spacing_mm) + SPACING_SPREAD * np.linalg.norm(wanted - wanted[0], axis=1)
        if (np.linalg.norm(found - wanted, axis=1) <= reach).all():
            return None
        mine, its = (" ".join(f"{at:.4g}" for at in corners[0]) for corners in (found, wanted))
        return f"the mask lies elsewhere: upright, it begins at {mine} mm and {self.under()} at {its} mm: {SAVED}"

    def fit(self, values: "Iterable[np.ndarray]", *, missing: int, role: "Role") -> VolumeMaskContract:
        """With the median spacing."""
        spacings: list[tuple[float, ...]] = []

        def noted() -> "Iterable[np.ndarray]":
            for value in values:
                spacing = Scan.unpacked(value).spacing_mm
                spacings.extend([spacing] if spacing is not None else [])
                yield value

        found = super().fit(noted(), missing=missing, role=role)
        middle = tuple(np.median(spacings, axis=0).tolist()) if spacings else None
        return VolumeMaskContract(**vars(found), spacing_mm=middle)

    def preview(self, value: np.ndarray, contract: MaskContract) -> dict[str, str]:
        """The three middle planes."""
        return {"kind": "image", "data": self.segmentation(self.numbers(value), contract).drawn()}

    def segmentation(
        self, numbers: np.ndarray, contract: MaskContract, ignore: int | None = None
    ) -> VolumeSegmentation:
        """With the spacing of the training masks."""
        assert isinstance(contract, VolumeMaskContract)
        return VolumeSegmentation(numbers, contract.names, ignore, spacing_mm=contract.spacing_mm)

    def carrier(self, contract: MaskContract, size: "Size") -> "Encoder":
        """The net of volumes over the share of each class at every place."""
        from endwise.modalities.volume.network import VolumeMaskCarrier

        return VolumeMaskCarrier(len(contract.classes), size)

    def classical(self, contract: MaskContract) -> Any:
        """As of pictures, on what is around each voxel."""
        from endwise.modalities.mask.features import PixelClassifier

        return PixelClassifier(opened=voxels)


def voxels(value: np.ndarray) -> np.ndarray:
    """float32 [x, y, z, channel] in deviations of the volume."""
    return Scan.unpacked(value).standardised()


__all__ = ["OnVoxels", "VolumeMask", "VolumeMaskContract", "voxels"]
