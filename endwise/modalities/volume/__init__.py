"""Volumes: CT and MRI scans, microscope stacks, shapes. The declaration, how a volume is read, what is learnt about the
training volumes.

Kept as the voxels of the file with the place of each in millimetres (endwise/scan.py). Not here: files (files.py), a class
for every voxel as an answer (mask.py), everything learnt (network.py), features of the classical baseline (features.py).
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from endwise.errors import BadValue, DataError, refusal, require
from endwise.modalities.base import INPUT_ROLE, Contract, Fetch, Modality, Role, input_field
from endwise.scan import AXES, Scan, drawn

if TYPE_CHECKING:
    from endwise.nn.interface import Encoder
    from endwise.nn.size import Size

MULTIPLE = 8  # a canvas is halved three times
MOST_SEEN = 64**3  # voxels that the network looks at at once where the recipe does not say
SPACING_SPREAD = 0.05  # of volumes that are taken as they are
CLASS_LIKE = frozenset({"category", "boolean", "tags"})


@dataclass(frozen=True, kw_only=True)
class VolumeContract(Contract):
    """What the training volumes are like. smallest, median, largest: voxels along x, y and z; spacing_mm: of the median
    volume, None where files say none; mean, deviation: of each channel, every volume counting the same; bits: 8 where all
    voxels are whole numbers from 0 to 255, else 32 (floats)."""

    smallest: tuple[int, ...]
    median: tuple[int, ...]
    largest: tuple[int, ...]
    channels: int
    bits: int
    spacing_mm: tuple[float, ...] | None
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Volume(Modality):
    """Voxels: NIfTI (.nii, .nii.gz), a DICOM series (a folder or a zip of its files, or a list of them), NPZ or NPY (a path,
    the bytes), an array [x, y, z] or [x, y, z, channel], or an image of nibabel.

    Axes are turned so that x runs to the right, y to the front and z up, by the file's own affine; an array is taken as it
    is. Volumes must be of one spacing, or `spacing_mm` says which they are brought to. An NPZ may hold `spacing_mm` or
    `affine` beside its voxels.
    """

    type: ClassVar[str] = "volume"
    length_unit: ClassVar[str] = "bytes"
    roles: ClassVar[frozenset[Role]] = frozenset({INPUT_ROLE})
    contract_class = VolumeContract
    axes: ClassVar[int] = AXES
    canvas_axes: ClassVar[int] = AXES
    read_fields: ClassVar[tuple[str, ...]] = ("spacing_mm", "placed")

    spacing_mm: tuple[float, ...] | None = input_field(
        None, "millimetres from voxel to voxel along x, y and z that every volume is brought to; null: as they are"
    )
    seen_voxels: tuple[int, ...] | None = input_field(
        None,
        "voxels along x, y and z that the network looks at at once, multiples of 8; null: from the data and the size. Where "
        "an output lies on the volume, larger ones are learnt in patches and answered in windows; elsewhere they are reduced",
    )
    scale: Literal["each", "all"] = input_field(
        "each",
        "each: by a volume's own mean and deviation (MRI, whose units differ from scanner to scanner); all: by those of the "
        "training volumes (CT in Hounsfield units, shapes)",
    )
    whole: bool = input_field(False, "keep every voxel; beside an output that lies on it, always")
    placed: bool = input_field(
        False, "refuse files that do not say where in the world they lie; beside an output in millimetres, always"
    )
    mirror: bool = input_field(
        False, "in training, mirror along x: only where left and right mean nothing to any output"
    )
    shift_share: float = input_field(0.05, "in training, shift by up to this share of each side")
    zoom_share: float = input_field(0.1, "in training, enlarge or reduce by up to this share")
    turn_deg: float | None = input_field(
        None,
        "in training, turn about each axis by up to these degrees; null: 10, or 0 beside an output that is no class and does not lie on it",
    )
    light_share: float = input_field(0.1, "in training, change brightness and contrast by up to this share")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("spacing_mm", "seen_voxels"):
            value = getattr(self, name)
            require(
                value is None or (len(value) == AXES and all(item > 0 for item in value)), field=f"Volume.{name}", got=value,
                allowed="three numbers above 0, along x, y and z, or null", fix="such as [1, 1, 1]" if name == "spacing_mm" else "such as [64, 64, 32]",
            )  # fmt: skip
        require(
            self.seen_voxels is None or all(side % MULTIPLE == 0 for side in self.seen_voxels),
            field="Volume.seen_voxels", got=self.seen_voxels, allowed=f"multiples of {MULTIPLE}",
            fix=f"round up: {[-(-side // MULTIPLE) * MULTIPLE for side in self.seen_voxels or ()]}",
        )  # fmt: skip
        for name, most in (("shift_share", 0.5), ("zoom_share", 0.5), ("light_share", 1.0)):
            require(
                0 <= getattr(self, name) <= most, field=f"Volume.{name}", got=getattr(self, name),
                allowed=f"a share from 0 to {most}", fix="0.1 means a tenth; 0 switches it off",
            )  # fmt: skip
        require(
            self.turn_deg is None or 0 <= self.turn_deg <= 180, field="Volume.turn_deg", got=self.turn_deg,
            allowed="0 to 180 degrees", fix="180 if volumes lie anyhow, 0 to switch it off",
        )  # fmt: skip

    # ---- reading -------------------------------------------------------------------------------------------------

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """uint8 [bytes]: a packed `Scan` with voxels [x, y, z, channel]."""
        from endwise.modalities.volume.files import scan_of

        found = scan_of(raw, fetch, placed=self.placed)
        if self.placed and found.affine is None:
            raise BadValue(
                "the file does not say where it lies, and things in it are said in millimetres: give NIfTI, DICOM, or NPZ with 'affine'"
            )
        if self.spacing_mm is not None:
            found = found.resampled(self.spacing_mm, classes=False)
        return found.measured().packed()

    # ---- the contract --------------------------------------------------------------------------------------------

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> VolumeContract:
        """Sizes, channels, spacing, mean and deviation."""
        sizes, spacings, channels, bits = [], [], set(), 8
        moments: list[list[np.ndarray]] = []
        for value in values:
            scan = Scan.unpacked(value)
            assert scan.mean is not None
            assert scan.deviation is not None
            sizes.append(scan.shape)
            spacings.append(scan.spacing_mm)
            channels.add(scan.voxels.shape[AXES])
            bits = max(bits, 8 if scan.voxels.dtype == np.uint8 else 32)
            moments.append([scan.mean, scan.deviation**2 + scan.mean**2] if len(channels) == 1 else moments[0])
        if len(channels) > 1:
            raise refusal(
                field="volume", got=f"volumes of {' and '.join(map(str, sorted(channels)))} channels", error=DataError,
                allowed="as many channels in every volume", fix="choose the same channels of all",
            )  # fmt: skip
        every = np.array(sizes)
        mean, square = np.mean(moments, axis=0)
        deviation = np.sqrt(np.maximum(square - mean**2, 0))
        return VolumeContract(
            count=len(sizes), missing=missing, channels=channels.pop(), bits=bits,
            smallest=tuple(every.min(0).tolist()), median=tuple(np.median(every, axis=0).astype(int).tolist()),
            largest=tuple(every.max(0).tolist()), spacing_mm=self._one_spacing(spacings),
            mean=tuple(mean.tolist()), deviation=tuple(float(item) if item > 1e-9 else 1.0 for item in deviation),
        )  # fmt: skip

    def _one_spacing(self, found: Sequence[tuple[float, ...] | None]) -> tuple[float, ...] | None:
        """DataError where volumes that are taken as they are differ in it."""
        if self.spacing_mm is not None:
            return tuple(map(float, self.spacing_mm))
        known = np.array([item for item in found if item is not None])
        if not len(known):
            return None
        middle = np.median(known, axis=0)
        apart = np.abs(known / middle - 1).max(1)
        if apart.max() > SPACING_SPREAD:
            raise refusal(
                field="volume", got=f"voxels of {_spelled_mm(known[apart.argmax()])} and of {_spelled_mm(middle)}",
                allowed="one spacing in all volumes", fix=f"write spacing_mm: {[round(float(step), 2) for step in middle]}", error=DataError,
            )  # fmt: skip
        return tuple(float(step) for step in middle)

    def transform(self, value: np.ndarray, contract: VolumeContract) -> np.ndarray:
        """[x, y, z, channel]: float32, by its own mean and deviation where `scale` is each; else as it is, uint8 where all of
        training was."""
        scan = Scan.unpacked(value)
        self._check_like(scan, contract)
        voxels = scan.voxels
        if self.scale == "each":
            return scan.standardised()
        if contract.bits == 8 and voxels.dtype != np.uint8:
            if not ((voxels >= 0) & (voxels <= 255) & (voxels == np.rint(voxels))).all():
                raise BadValue(
                    f"voxels from {voxels.min()} to {voxels.max()}: in training they were whole numbers from 0 to 255"
                )
            return voxels.astype(np.uint8)
        return np.asarray(voxels if contract.bits == 8 else voxels.astype(np.float32))

    def _check_like(self, scan: Scan, contract: VolumeContract) -> None:
        channels = scan.voxels.shape[AXES]
        if channels != contract.channels:
            raise BadValue(f"the volume has {channels} channels; in training there were {contract.channels}")
        own, usual = scan.spacing_mm, contract.spacing_mm
        if self.spacing_mm is not None or own is None or usual is None:
            return
        if max(abs(one / other - 1) for one, other in zip(own, usual, strict=True)) > SPACING_SPREAD:
            raise BadValue(
                f"voxels of {_spelled_mm(own)}; in training they were {_spelled_mm(usual)}: declare spacing_mm, or resample it"
            )

    def blank(self, contract: VolumeContract) -> np.ndarray:
        """One voxel of the mean."""
        if self.scale == "each":
            return np.zeros((1,) * AXES + (contract.channels,), np.float32)
        dtype = np.dtype(np.uint8 if contract.bits == 8 else np.float32)
        mean = np.rint(contract.mean) if contract.bits == 8 else np.array(contract.mean)
        return np.broadcast_to(mean.astype(dtype), (1,) * AXES + (contract.channels,)).copy()

    def patch(self, contract: VolumeContract) -> tuple[int, ...] | None:
        """Where an output lies on it, the canvas."""
        return (self.seen_voxels or seen_at_once(contract.largest, MOST_SEEN)) if self.whole else None

    def extent(self, value: np.ndarray) -> tuple[int, ...]:
        """Voxels along x, y and z."""
        return Scan.unpacked(value).shape

    def part(self, value: np.ndarray, start: Sequence[int], sides: Sequence[int]) -> np.ndarray:
        """With the mean and deviation of the whole."""
        return Scan.unpacked(value).part(start, sides).packed()

    def length(self, shape: tuple[int, ...]) -> int:
        """Its voxels (of a decoded one its bytes)."""
        return math.prod(shape)

    @property
    def file_kinds(self) -> tuple[str, ...]:
        """NIfTI, arrays, and archives of DICOM slices."""
        return ("application/octet-stream",)

    def summary(self, contract: VolumeContract) -> str:
        """Sizes, spacing, channels."""
        sizes = _spelled(contract.median)
        if contract.smallest != contract.largest:
            sizes = f"{_spelled(contract.smallest)} to {_spelled(contract.largest)} (median {sizes})"
        channels = f", {contract.channels} channels" if contract.channels > 1 else ""
        return f"volumes of {sizes} voxels{f' of {_spelled_mm(contract.spacing_mm)}' if contract.spacing_mm else ''}{channels}"

    def continued(self, old: Any, new: Any, role: Role) -> Contract | None:
        """What is seen at once, channels and scale are the weights' own; smaller and larger ones may come."""
        found: VolumeContract = dataclasses.replace(old, count=new.count, missing=new.missing)
        return found

    # ---- inputs --------------------------------------------------------------------------------------------------

    def hand_features(self) -> Any:
        """A thumbnail, quantiles, and how what is bright lies in space."""
        from endwise.modalities.volume.features import VolumeFeatures

        return VolumeFeatures()

    def named(self, whole: np.ndarray, contract: VolumeContract) -> Sequence[str]:
        """Voxels are known by their numbers."""
        return ()

    def preview(self, value: np.ndarray, contract: VolumeContract) -> dict[str, str]:
        """The three middle planes."""
        return {"kind": "image", "data": drawn(Scan.unpacked(value))}

    def beneath(self, outputs: Iterable[Modality]) -> Self:
        """Voxel for voxel, and with its place where an output asks for it."""
        return dataclasses.replace(self, whole=True, placed=self.placed or any(item.world_of for item in outputs))

    def world(self, value: np.ndarray) -> np.ndarray | None:
        """The affine from voxels to millimetres, where an output lies on it."""
        return Scan.unpacked(value).affine if self.placed or self.whole else None

    def beside(self, inputs: Mapping[str, Modality], outputs: Mapping[str, Modality]) -> Self:
        """Turning is harmless for a class and for what moves with the volume, and may be wrong for a number."""
        alone = sum(item.canvas_axes > 0 for item in inputs.values()) == 1
        harmless = all(item.type in CLASS_LIKE or (alone and item.lies) for item in outputs.values())
        turn = (10.0 if harmless else 0.0) if self.turn_deg is None else self.turn_deg
        return dataclasses.replace(self, turn_deg=turn)

    def encoder(self, contract: VolumeContract, size: "Size") -> "Encoder":
        """Voxels to a grid of tokens, and feature maps at four resolutions."""
        from endwise.modalities.volume.network import VolumeEncoder

        return VolumeEncoder(self, contract, size)


def seen_at_once(largest: Sequence[int], most: int) -> tuple[int, ...]:
    """Multiples of 8 that hold a volume of this size, the longest sides cut until there are at most `most` voxels."""
    sides = [max(MULTIPLE, -(-side // MULTIPLE) * MULTIPLE) for side in largest]
    while math.prod(sides) > most and max(sides) > MULTIPLE:
        sides[sides.index(max(sides))] -= MULTIPLE
    return tuple(sides)


def _spelled(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))


def _spelled_mm(spacing: Sequence[float]) -> str:
    return f"{' x '.join(f'{step:.3g}' for step in spacing)} mm"


__all__ = ["Volume", "VolumeContract", "seen_at_once"]
