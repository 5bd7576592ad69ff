"""Moving pictures: the declaration, how a film is read, what is learnt about the training films.

A film is pictures in time: how each is read, kept and seen is modalities/image. Here: which frames are taken. Not here: opening
files (films.py), the network (network.py), sound of films, windows over tables of frames (data/windows.py).
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from endwise.errors import BadValue, require
from endwise.modalities.base import INPUT_ROLE, Fetch, Modality, Role, input_field
from endwise.modalities.image import Image, ImageContract

if TYPE_CHECKING:
    from endwise.nn.interface import Encoder
    from endwise.nn.size import Size

MOST_FRAMES = 16
SIDE_PX = 112  # of null: what networks for films look at (Tran et al. 2018)
MEASURED = 4  # frames of each film that means and deviations are of
STRIP = 4  # frames of a preview


@dataclass(frozen=True, kw_only=True)
class VideoContract(ImageContract):
    """What the training films are like: that of their pictures, and how many frames a film has, at least and at most."""

    fewest: int
    most: int


@dataclass(frozen=True, kw_only=True)
class Video(Image):
    """A film: a list of pictures (paths, bytes or arrays), a zip of them in the order of their names, an animated GIF, WebP or
    PNG, an array [frame, height, width, channels], or a video file (MP4, WebM, AVI ...; needs the extra `video`).

    At most `frames` pictures are looked at, spread evenly over the film; all of a film have one size. In windows of a table
    whose rows are frames (`data.windows`) a film is the past of its window, every frame of it. The fields of a picture say how
    each is seen; changes in training are the same for all frames of a film. Rotation marks and the sound of files are not read.
    """

    type: ClassVar[str] = "video"
    length_unit: ClassVar[str] = "pixels"
    drawn_as: ClassVar[Literal["cells", "picture", "sound", "text"]] = "cells"
    roles = frozenset({INPUT_ROLE})
    contract_class = VideoContract
    axes: ClassVar[int] = 3
    canvas_axes: ClassVar[int] = 0
    lies_on_axes: ClassVar[frozenset[int]] = frozenset()
    read_fields: ClassVar[tuple[str, ...]] = ("side_px", "channels", "whole", "fps", "frames")

    fps: float | None = input_field(None, "frames taken of a second of a file that says when they are; null: all")
    frames: int | None = input_field(
        MOST_FRAMES, "at most so many are looked at, spread evenly over the film; null: all"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("fps", 0), ("frames", 1)):
            value = getattr(self, name)
            require(
                value is None or (value > 0 and value >= least), field=f"Video.{name}", got=value,
                allowed="a number above 0, or null", fix=f"leave it out{f' for {MOST_FRAMES}' if name == 'frames' else ''}",
            )  # fmt: skip

    # ---- reading -------------------------------------------------------------------------------------------------

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """uint8 or uint16 [frame, height, width, channels]."""
        from endwise.modalities.video.films import pictures_of

        declared = self if self.side_px is not None else dataclasses.replace(self, side_px=SIDE_PX)

        def read_one(picture: Any) -> np.ndarray:
            return Image.read(declared, picture, fetch)

        found = pictures_of(raw, fetch, read_one, fps=self.fps, most=self.frames)
        return _together(found)

    def in_full(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """The frames that are looked at, as they are kept: a film has too many pixels for more."""
        return self.read(raw, fetch)

    def onto(self, places: np.ndarray, whole: np.ndarray, contract: ImageContract) -> np.ndarray:
        """Frames, height and width."""
        return places

    # ---- the contract --------------------------------------------------------------------------------------------

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> VideoContract:
        """Of a few frames of each film what there is to know of pictures; and how many frames there are."""
        lengths: list[int] = []

        def some() -> Iterable[np.ndarray]:
            for value in values:
                lengths.append(len(value))
                yield from value[np.unique(np.linspace(0, len(value) - 1, MEASURED).round().astype(int))]

        found = super().fit(some(), missing=missing, role=role)
        own = {item.name: getattr(found, item.name) for item in dataclasses.fields(found)}
        return VideoContract(
            **{**own, "count": len(lengths)}, fewest=min(lengths, default=1), most=max(lengths, default=1)
        )

    def _canvas(self, median: tuple[int, int], uniform: bool, weights: dict[str, Any] | None) -> tuple[int, int]:
        small = self if self.side_px is not None or weights is not None else dataclasses.replace(self, side_px=SIDE_PX)
        usual = super()._canvas(median, uniform, weights)
        asked = Image._canvas(small, median, uniform, weights)
        return min(usual, asked)  # what is smaller than usual is seen as it is

    def transform(self, value: np.ndarray, contract: ImageContract) -> np.ndarray:
        """The decoded pixels with the contract's channels and bits."""
        frames, height, width, channels = value.shape
        tall = super().transform(value.reshape(frames * height, width, channels), contract)
        return tall.reshape(frames, height, width, -1)

    def stored_as_taken(self, shape: tuple[int, ...], dtype: np.dtype[Any], contract: ImageContract) -> bool:
        """With the contract's channels and bits."""
        return super().stored_as_taken(shape[1:], dtype, contract)

    def blank(self, contract: ImageContract) -> np.ndarray:
        """One frame of the mean colour."""
        found: np.ndarray = super().blank(contract)[None]
        return found

    def length(self, shape: tuple[int, ...]) -> int:
        """The pixels of all frames."""
        return shape[0] * shape[1] * shape[2]

    @property
    def file_kinds(self) -> tuple[str, ...]:
        """Video files, animations, zips."""
        return ("video/*", "image/*", "application/zip")

    def example(self, contract: ImageContract) -> Any:
        """One black picture, where pictures are small."""
        picture = super().example(contract)
        return None if picture is None else [picture]

    def summary(self, contract: ImageContract) -> str:
        """Frames, and what the pictures are like."""
        assert isinstance(contract, VideoContract)
        frames = str(contract.most) if contract.fewest == contract.most else f"{contract.fewest} to {contract.most}"
        return f"{frames} frames, {super().summary(contract)}"

    # ---- inputs --------------------------------------------------------------------------------------------------

    @property
    def can_be_shown(self) -> bool:
        """Its pixels."""
        return True

    def hand_features(self) -> Any:
        """Those of the last picture, and of how the first and the last differ."""
        from endwise.modalities.video.features import FilmFeatures

        return FilmFeatures()

    def preview(self, value: np.ndarray, contract: ImageContract) -> dict[str, str]:
        """A few frames side by side."""
        some = value[np.unique(np.linspace(0, len(value) - 1, STRIP).round().astype(int))]
        return super().preview(np.concatenate(list(some), axis=1), contract)

    def beneath(self, outputs: Iterable[Modality]) -> "Video":
        """Itself: nothing lies on a film."""
        return self

    # ---- the network ---------------------------------------------------------------------------------------------

    def encoder(self, contract: ImageContract, size: "Size") -> "Encoder":
        """A picture's encoder for each frame, then time."""
        from endwise.modalities.image.network import PictureEncoder
        from endwise.modalities.video.network import VideoEncoder

        picture = super().encoder(contract, size)
        assert isinstance(picture, PictureEncoder)
        return VideoEncoder(picture, size)


def _together(frames: Sequence[np.ndarray]) -> np.ndarray:
    """[frame, height, width, channels] of pictures of one size; grey ones among colours are repeated."""
    if not frames:
        raise BadValue("a film without a picture")
    sizes = [frame.shape[:2] for frame in frames]
    odd = next((place for place, size in enumerate(sizes) if size != sizes[0]), None)
    if odd is not None:
        raise BadValue(
            f"picture {odd + 1} of those that are looked at is {sizes[odd][1]} x {sizes[odd][0]} and the first "
            f"{sizes[0][1]} x {sizes[0][0]}: a film has one size"
        )
    if len({frame.dtype for frame in frames}) > 1:
        raise BadValue("pictures of 8 and of 16 bits in one film")
    channels = max(frame.shape[2] for frame in frames)
    return np.stack([np.repeat(frame, channels // frame.shape[2], axis=2) for frame in frames])


__all__ = ["Video", "VideoContract"]
