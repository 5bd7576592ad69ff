"""Still pictures: the declaration, how a picture is read, what is learnt about the training pictures.

Stored as the pixels of the file, 8 or 16 bits, reduced only where a picture is more than twice as large as the network
will ever look at. Not here: resizing, normalising, augmentation and everything learnt (network.py beside this file);
features for the classical baseline (features.py); films and volumes, which are kinds of their own.
"""

import base64
import builtins
import dataclasses
import io
import math
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from endwise.certainty import EXPECTED
from endwise.dicom import is_dicom, picture_of, promised_pixels
from endwise.drawing import Picture, antialias, png, resizing, to_uri
from endwise.errors import BadValue, require
from endwise.modalities.base import (
    INPUT_ROLE,
    READ_AGAIN,
    Answer,
    Contract,
    Fetch,
    Modality,
    Role,
    file_bytes,
    input_field,
    laid_over,
    output_field,
    places_of,
    shared_field,
)
from endwise.modalities.pretrained import PretrainedInput, picture_scale, summary_of, verified
from endwise.modalities.spatial import ON_HELP, lies_on

if TYPE_CHECKING:
    from endwise.metrics import Metric
    from endwise.nn.interface import Encoder, Head
    from endwise.nn.size import Size

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM")  # never EPS and the like, which run programs
SPELLED_FORMATS = "JPEG, PNG, TIFF, WebP, BMP, GIF, PPM or DICOM"
MAX_PIXELS = 80_000_000  # a picture of more is a mistake or an attack: 240 MB when unpacked
LARGEST_SIDE_PX = 224  # of auto: what an ImageNet network looks at (He et al. 2016)
OWN_SIDE_PX = 64  # pictures up to this size are seen as they are
DRAWN_SIDE_PX = 48  # of a picture that is drawn, where nobody says: time grows with its square
MULTIPLE_PX = 8
WIDEST = 3.0  # the largest ratio of the sides that the network's canvas takes over
KEPT_TIMES = 2  # the store keeps a picture at up to this multiple of the network's side
EXAMPLE_NUMBERS = 160_000  # of an example picture: black, it is a few hundred bytes
STATISTICS_SIDE_PX = 256  # colours of larger pictures are measured on every n-th pixel
PREVIEW_PX, PREVIEW_PNG_PX, LARGE_PREVIEW_PX = 160, 64, 400
FULL = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65_535.0}
GREY_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in JPEG
LITE_NAMES = tuple(f"tf_efficientnet_lite{number}" for number in range(5))  # of timm, built in: nn/efficientnet.py
CLASS_LIKE = frozenset({"category", "boolean", "tags"})  # answers that a mirrored picture does not change


@dataclass(frozen=True, kw_only=True)
class ImageContract(Contract):
    """What the training pictures are like, and the canvas the network sees them on.

    Sizes are those of the stored pictures, in pixels; means and deviations are per channel, full scale = 1, with every
    picture counting the same. `uniform`: all have one size. `bits`: 16 as soon as one picture has 16.
    """

    height: int
    width: int
    channels: int
    bits: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    uniform: bool
    smallest: tuple[int, ...]
    median: tuple[int, ...]
    largest: tuple[int, ...]
    weights: dict[str, Any] | None = (
        None  # pretrained: source, family, sha256, licence, architecture, scale of pictures
    )


@dataclass(frozen=True, kw_only=True)
class Image(PretrainedInput):
    """A picture, given or, as an output, made of one that is given (restored, coloured, compressed) or drawn from what the
    inputs say (`decoder: flow`). JPEG, PNG, TIFF, WebP, BMP, GIF, PPM or DICOM (a path, the bytes, a data URI), or pixels in memory.

    In memory: a PIL image; or an array [height, width] or [height, width, channels] of uint8, uint16, other whole
    numbers from 0 to 255, or floats in [0, 1] (kept with 16 bits). Turned as its EXIF orientation says; a picture with
    transparency is laid on white; CMYK becomes RGB; colour profiles are not applied; 16-bit grey keeps its 16 bits.
    A file with several frames or pages is refused: which one is meant cannot be known. An output is as large as the input
    that it lies on, or has `side_px`; its answer is a `Picture`; of one that
    is made of another `detail["expected_error"]` says how far off a pixel is likely to be, as a share of full scale.

    DICOM (a radiograph, a mammogram; `endwise[medical]`) is known by its content. Grey becomes 16 bits from black to white as
    a viewer shows it: by the file's slope and intercept, then by its first window (or table of values); of a file that declares
    none, by all that its stored bits can say. MONOCHROME1, where low is white, is turned round.
    """

    type: ClassVar[str] = "image"
    length_unit: ClassVar[str] = "pixels"
    hand_offs: ClassVar[frozenset[str]] = READ_AGAIN
    drawn_as: ClassVar[Literal["cells", "picture", "sound", "text"]] = "picture"
    contract_class: ClassVar[builtins.type[ImageContract]] = ImageContract
    unsure: ClassVar[str] = "many pictures suit what is told, and none of them is the right one"
    sure_by: ClassVar[str] = (
        "remove abstain; a picture that is made of the one it lies on (decoder: direct) may abstain"
    )
    error_is_share: ClassVar[bool] = False
    expects_error: ClassVar[bool] = True
    axes: ClassVar[int] = 2
    canvas_axes: ClassVar[int] = 2
    lies_on_axes: ClassVar[frozenset[int]] = frozenset({2})
    classical_of_places: ClassVar[bool] = True
    read_fields: ClassVar[tuple[str, ...]] = ("side_px", "channels", "whole")
    instead: ClassVar[tuple[str, ...]] = ("backbone", "channels")
    families: ClassVar[tuple[str, ...]] = ("vit", "dinov2", "resnet", "convnext", *LITE_NAMES)

    side_px: int | None = shared_field(
        None,
        "side of a square with the area the network sees, in the pictures' own aspect ratio; null: from the data, or what pretrained weights were trained on; of an output that is drawn (decoder: flow) the side of the answer, at most 48 from the data",
    )
    channels: Literal["auto", "grey", "colour"] = input_field("auto", "auto: colour as soon as one picture has it")
    backbone: Literal["auto", "conv", "vit"] = input_field(
        "auto", "conv: residual convolutions; vit: a transformer over patches; auto: conv"
    )
    whole: bool = input_field(
        False, "keep every pixel in the store, however large the picture; beside an output that lies on it, always"
    )
    mirror: bool | None = input_field(
        None,
        "in training, mirror left to right; null: only if all outputs are classes, true/false or tags, or lie on it",
    )
    shift_share: float | None = input_field(
        None, "in training, shift by up to this share of the side; null: 0.125, or 0.03 beside a number or text output"
    )
    zoom_share: float | None = input_field(
        None, "in training, enlarge or reduce by up to this share; null: 0.15 above 64 px with class outputs, else 0"
    )
    turn_deg: float | None = input_field(
        None, "in training, turn by up to these degrees; null: 5 above 64 px with class outputs, else 0"
    )
    light_share: float | None = input_field(
        None, "in training, change brightness and contrast by up to this share; null: 0.2 above 64 px, else 0"
    )
    erase_share: float = input_field(0.0, "in training, hide a square of this share of the side (Cutout)")
    on: str | None = output_field(None, ON_HELP)
    narrow: bool = output_field(
        False, "make the picture of what the tokens hold alone: an autoencoder; false: fine detail is handed over"
    )
    decoder: Literal["direct", "flow"] = output_field(
        "direct",
        "direct: the one picture that is made of the picture it lies on; flow: one of the many that suit what the inputs say, drawn out of noise by flow matching",
    )
    guidance: float = output_field(
        2.0,
        "of decoder: flow, how much what is told counts: 1 as learnt, more for pictures that follow it closer and vary less, 0 not at all",
    )
    steps: int = output_field(
        8, "of decoder: flow, steps from noise to picture; each asks the network twice, or four times with guidance"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.side_px is None or 8 <= self.side_px <= 2048, field="Image.side_px", got=self.side_px,
            allowed="8 to 2048 pixels, or null", fix="224 suits photographs; null takes the size from the data",
        )  # fmt: skip
        for name, most in (("shift_share", 0.5), ("zoom_share", 0.5), ("light_share", 1.0), ("erase_share", 0.9)):
            value = getattr(self, name)
            require(
                value is None or 0 <= value <= most, field=f"Image.{name}", got=value, allowed=f"a share from 0 to {most}",
                fix="0.1 means a tenth; 0 switches it off",
            )  # fmt: skip
        require(
            self.turn_deg is None or 0 <= self.turn_deg <= 180, field="Image.turn_deg", got=self.turn_deg,
            allowed="0 to 180 degrees", fix="180 if the pictures have no upside, 0 to switch it off",
        )  # fmt: skip
        self._check_drawing()

    def _check_drawing(self) -> None:
        require(
            0 <= self.guidance <= 20, field="Image.guidance", got=self.guidance, allowed="0 to 20", fix="1.5 to 4 are usual",
        )  # fmt: skip
        require(
            1 <= self.steps <= 1000,
            field="Image.steps",
            got=self.steps,
            allowed="1 to 1000",
            fix="8 are enough for most",
        )
        idle = ("guidance", "steps") if self.decoder == "direct" else ("on", "narrow")
        defaults = {item.name: item.default for item in dataclasses.fields(self)}
        for name in idle:
            require(
                getattr(self, name) == defaults[name], field=f"Image.{name}", got=getattr(self, name),
                allowed=f"nothing beside decoder: {self.decoder}", fix="remove it, or choose the other decoder",
            )  # fmt: skip

    def check_role(self, role: Role, name: str) -> None:
        """Only a picture that is drawn has a size of its own; one that lies on another has that one's."""
        super().check_role(role, name)
        require(
            role == INPUT_ROLE or self.decoder == "flow" or self.side_px is None, field=f"outputs.{name}.side_px",
            got=self.side_px, allowed="nothing: the answer is as large as the picture that it lies on",
            fix="remove it, or draw the picture: decoder: flow",
        )  # fmt: skip

    @property
    def lies(self) -> bool:
        """Not where it is drawn out of noise."""
        return self.decoder == "direct"

    # ---- reading -------------------------------------------------------------------------------------------------

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """uint8 or uint16 [height, width, channels] with 1 channel (grey) or 3 (red, green, blue)."""
        kept_area = MAX_PIXELS if self.whole else (KEPT_TIMES * (self.side_px or LARGEST_SIDE_PX)) ** 2
        if isinstance(raw, Picture):
            pixels = _from_array(raw.pixels)
        elif isinstance(raw, bytes | str):
            pixels = decode(_file(raw, fetch), kept_area, grey=self.channels == "grey")
        elif _is_pil(raw):
            pixels = _from_pil(raw, kept_area)
        elif isinstance(raw, np.ndarray | list) or hasattr(raw, "__array_interface__"):
            pixels = _from_array(np.asarray(raw))
        else:
            pixels = decode(_file(raw, fetch), kept_area, grey=self.channels == "grey")
        if self.channels == "grey":
            pixels = _grey(pixels)
        return np.ascontiguousarray(pixels if self.whole else _reduced(pixels, kept_area))

    # ---- the contract --------------------------------------------------------------------------------------------

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> ImageContract:
        """Sizes, channels, bits, and the mean and deviation of each channel."""
        weights = self.weights_description()
        if weights is not None and self.pretrained is not None:
            weights["scale"] = picture_scale(self.pretrained, weights, "Image.pretrained")
        sizes: Counter[tuple[int, ...]] = Counter()
        channels, bits = 3 if weights is not None else 1, 8
        first, second = np.zeros(3), np.zeros(3)
        for value in values:
            sizes[value.shape[:2]] += 1
            channels = max(channels, value.shape[2])
            bits = max(bits, 8 * value.dtype.itemsize)
            mean, square = _moments(value)
            first, second = first + mean, second + square
        count = sizes.total()
        colours = 3 if self.channels == "colour" else channels
        heights, widths = _sorted(sizes, 0), _sorted(sizes, 1)
        median = (_middle(heights, count), _middle(widths, count))
        height, width = self._canvas(median, len(sizes) == 1, weights)
        mean, square = first / max(count, 1), second / max(count, 1)
        deviation = np.sqrt(np.maximum(square - mean**2, 0))
        return ImageContract(
            count=count,
            missing=missing,
            height=height,
            width=width,
            channels=colours,
            bits=bits,
            mean=tuple(float(value) for value in mean[:colours]),
            # a constant picture has no deviation: nothing to divide by
            deviation=tuple(float(value) if value > 1e-4 else 1.0 for value in deviation[:colours]),
            uniform=len(sizes) == 1,
            smallest=(heights[0][0], widths[0][0]) if count else median,
            median=median,
            largest=(heights[-1][0], widths[-1][0]) if count else median,
            weights=weights,
        )

    def _canvas(self, median: tuple[int, int], uniform: bool, weights: dict[str, Any] | None) -> tuple[int, int]:
        height, width = median
        if weights is not None:
            return canvas(height, width, float(self.side_px or weights["scale"]["side_px"]))
        own, largest = (OWN_SIDE_PX, LARGEST_SIDE_PX) if self.lies else (DRAWN_SIDE_PX, DRAWN_SIDE_PX)
        if self.side_px is None and uniform and height * width <= own**2 and _ratio(median) <= WIDEST:
            return median
        side = min(math.sqrt(height * width), float(largest)) if self.side_px is None else float(self.side_px)
        return canvas(height, width, side)

    @property
    def can_be_shown(self) -> bool:
        """Its pixels, in the colours of the training pictures."""
        return True

    def transform(self, value: np.ndarray, contract: ImageContract) -> np.ndarray:
        """The decoded pixels with the contract's channels and bits: grey is repeated, colour weighed to grey."""
        if value.shape[2] != contract.channels:
            value = np.repeat(value, 3, axis=2) if contract.channels == 3 else _grey(value)
        if value.dtype.itemsize * 8 < contract.bits:
            return value.astype(np.uint16) * np.uint16(257)
        if value.dtype.itemsize * 8 > contract.bits:
            return ((value.astype(np.uint32) + 128) // 257).astype(np.uint8)
        return value

    def stored_as_taken(self, shape: tuple[int, ...], dtype: np.dtype[Any], contract: ImageContract) -> bool:
        """With the contract's channels and bits."""
        return shape[2] == contract.channels and dtype.itemsize * 8 == contract.bits

    def blank(self, contract: ImageContract) -> np.ndarray:
        """A picture of the mean colour, of the one size there is or of one pixel."""
        size = contract.median if contract.uniform else (1, 1)
        dtype = np.dtype(np.uint16 if contract.bits == 16 else np.uint8)
        return np.broadcast_to(np.rint(np.array(contract.mean) * FULL[dtype]).astype(dtype), (*size, contract.channels))

    def continued(self, old: Any, new: Any, role: Role) -> Contract | None:
        """Canvas and colours are the weights' own; the sizes are those of the rows."""
        if role != INPUT_ROLE:
            return super().continued(old, new, role)
        kept = ("height", "width", "channels", "bits", "mean", "deviation", "weights")
        found: ImageContract = dataclasses.replace(new, **{name: getattr(old, name) for name in kept})
        return found

    def length(self, shape: tuple[int, ...]) -> int:
        """Its pixels: pictures of like sizes share a batch."""
        return shape[0] * shape[1]

    @property
    def file_kinds(self) -> tuple[str, ...]:
        """Pictures."""
        return ("image/*",)

    def example(self, contract: ImageContract) -> Any:
        """A black picture of the usual size, where that is small."""
        blank = np.zeros((*contract.median, 3 if contract.channels == 3 else 1), np.uint8)
        return to_uri(png(blank)) if blank.size <= EXAMPLE_NUMBERS else None

    def summary(self, contract: ImageContract) -> str:
        """Sizes, colours, and the canvas."""
        colours = {1: "grey", 3: "colour"}[contract.channels] + (" 16-bit" if contract.bits == 16 else "")
        sizes = _spelled(contract.median)
        if not contract.uniform:
            sizes = f"{_spelled(contract.smallest)} to {_spelled(contract.largest)} (median {sizes})"
        seen = _spelled((contract.height, contract.width))
        if contract.weights is not None:
            return f"{colours} pictures of {sizes} px, seen at {seen}; {summary_of(contract.weights)}"
        return f"{colours} pictures of {sizes} px, seen at {seen} or less"

    # ---- inputs --------------------------------------------------------------------------------------------------

    def hand_features(self) -> Any:
        """Gradient directions, a colour histogram and a thumbnail."""
        from endwise.modalities.image.features import PictureFeatures

        return PictureFeatures()

    def preview(self, value: np.ndarray, contract: ImageContract) -> dict[str, str]:
        """A data URI of at most 160 px, or 400 where an output lies on it: PNG for small pictures, JPEG for larger ones."""
        from PIL import Image as Pillow

        pixels = value if value.dtype == np.uint8 else (value // 257).astype(np.uint8)
        picture = Pillow.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))
        side = LARGE_PREVIEW_PX if self.whole else PREVIEW_PX  # something is drawn over it
        picture.thumbnail((side, side))
        kind = "png" if max(picture.size) <= PREVIEW_PNG_PX else "jpeg"
        file = io.BytesIO()
        picture.save(file, kind, **({"quality": 85} if kind == "jpeg" else {}))
        return {"kind": "image", "data": f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"}

    def in_full(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """Every pixel of the file."""
        return dataclasses.replace(self, whole=True).read(raw, fetch)

    def onto(self, places: np.ndarray, whole: np.ndarray, contract: ImageContract) -> np.ndarray:
        """The pixels of the file, where fewer are kept."""
        return laid_over(places, whole.shape[:2])

    def named(self, whole: np.ndarray, contract: ImageContract) -> Sequence[str]:
        """Pixels have no names."""
        return ()

    def beneath(self, outputs: Iterable[Modality]) -> Self:
        """With every pixel: what lies on it is counted in the file's own."""
        return dataclasses.replace(self, whole=True)

    def beside(self, inputs: Mapping[str, Modality], outputs: Mapping[str, Modality]) -> Self:
        """Mirroring and the like are harmless for a class and for what moves with the picture, and wrong for a steering
        angle or a written line. What is drawn has the light of its target, so that none is changed."""
        if any(item is self for item in outputs.values()):
            return dataclasses.replace(self, on=lies_on(self, self.on, inputs)) if self.lies else self
        alone = sum(item.canvas_axes > 0 for item in inputs.values()) == 1  # what lies on a picture lies on this one
        harmless = all(item.type in CLASS_LIKE or (alone and item.lies) for item in outputs.values())
        drawn = any(item.type == "image" and item.lies for item in outputs.values())
        return dataclasses.replace(
            self,
            light_share=0.0 if self.light_share is None and drawn else self.light_share,
            mirror=harmless if self.mirror is None else self.mirror,
            shift_share=(0.125 if harmless else 0.03) if self.shift_share is None else self.shift_share,
            zoom_share=0.0 if self.zoom_share is None and not harmless else self.zoom_share,
            turn_deg=0.0 if self.turn_deg is None and not harmless else self.turn_deg,
        )

    # ---- outputs -------------------------------------------------------------------------------------------------

    @property
    def num_terms(self) -> int:
        """Absolute error, structural similarity and the error that is expected; of one that is drawn the error of the velocity."""
        return 3 if self.lies else 1

    def misfit(self, shape: tuple[int, ...], under: tuple[int, ...]) -> str | None:
        """A picture that is made has the size of the one that it is made of."""
        if shape[:2] == under[:2]:
            return None
        return f"the picture is {_spelled(shape[:2])} and {self.on} is {_spelled(under[:2])}: they must be of one size"

    def truth(self, value: np.ndarray, contract: ImageContract) -> Picture:
        """The picture."""
        return Picture(value)

    def write(self, decoded: Mapping[str, np.ndarray], contract: ImageContract) -> Answer:
        """A `Picture` of the size of what it lies on; `detail` has the mean absolute error that is to be expected of a pixel, as a
        share of full scale. Of one that is drawn `detail` has the seed that it came from."""
        height, width = (int(side) for side in decoded["sizes"])
        values = np.asarray(decoded["values"], np.float32)
        rows, columns = resizing(values.shape[1], height), resizing(values.shape[2], width)
        whole = np.einsum("yh,chw,xw->yxc", rows, values, columns, optimize=True)
        dtype = np.dtype(np.uint16 if contract.bits == 16 else np.uint8)
        detail: dict[str, Any] = {"seed": int(decoded["drawn_from"])} if "drawn_from" in decoded else {}
        if EXPECTED in decoded:
            detail[EXPECTED] = float(decoded[EXPECTED])
        return Answer(Picture(np.rint(whole.clip(0, 1) * FULL[dtype]).astype(dtype)), detail=detail)

    def about(
        self, which: Any, decoded: Mapping[str, np.ndarray], contract: ImageContract
    ) -> tuple[str, tuple[int, ...]]:
        """The whole picture, or one of its pixels as 'y,x'; one that is drawn as a whole."""
        if which is None or not self.lies:
            return super().about(which, decoded, contract)
        place = places_of(which, [int(side) for side in decoded["sizes"]], "y,x")
        return f"the pixel at y {place[0]}, x {place[1]}", place

    def metrics(self, contract: ImageContract) -> Sequence["Metric"]:
        """ssim, psnr in dB, and the mean absolute error as a share of full scale. Of pictures that are drawn, of which many are
        right: the error of the velocity as the network is told, the same when it is told nothing, the Fréchet distance and
        how often a picture is recognised as its row's."""
        from endwise import metrics

        if not self.lies:
            told = [metrics.mean_cost(name, name) for name in ("velocity", "untold")]
            return [*told, metrics.frechet(), metrics.recognised()]
        return [metrics.ssim(), metrics.psnr(), metrics.picture_error()]

    @property
    def can_abstain(self) -> bool:
        """Not where it is drawn."""
        return self.lies

    def risk(self, contract: ImageContract) -> "Metric":
        """The mean absolute error as a share of full scale."""
        from endwise import metrics

        return metrics.picture_error()

    def sureness(self, answer: Answer, contract: ImageContract) -> float:
        """The error that it expects, times -1."""
        return -float(answer.detail[EXPECTED])

    def missed(self, truth: Picture, answer: Answer) -> float:
        """The mean absolute error."""
        from endwise import metrics

        return metrics.value(metrics.picture_error(), [truth], [answer])

    def doubted_where(self, prediction: Mapping[str, np.ndarray], answer: Answer) -> np.ndarray:
        """Of its pixels, the mean over the channels."""
        expected, (height, width) = np.asarray(prediction[EXPECTED], np.float64), answer.value.pixels.shape[:2]
        whole: np.ndarray = resizing(expected.shape[0], height) @ expected @ resizing(expected.shape[1], width).T
        return whole[None]

    def missed_where(self, truth: Picture, answer: Answer) -> np.ndarray:
        """Of its pixels, the mean over the channels, as a share of full scale."""
        ours, theirs = (one.pixels.astype(np.float64) / FULL[one.pixels.dtype] for one in (answer.value, truth))
        found: np.ndarray = np.abs(ours - theirs).mean(2)[None]
        return found

    def classical(self, contract: ImageContract) -> Any:
        """The best of some filters: none, a blur or a median of some size; of one that is drawn, the training picture
        whose inputs are the nearest."""
        from endwise.modalities.image.features import BestFilter, NearestPicture

        return BestFilter() if self.lies else NearestPicture()

    def trivial(self, truths: Sequence[Any], contract: ImageContract) -> Answer:
        """The mean colour everywhere."""
        return Answer(Picture(np.ascontiguousarray(self.blank(contract)[:1, :1])))

    def from_classical(self, predicted: Any, contract: ImageContract) -> Answer:
        """A filtered picture, with the contract's channels and bits."""
        return Answer(Picture(self.transform(np.asarray(predicted), contract)))

    def head(self, contract: ImageContract, size: "Size") -> "Head":
        """Pixels for every place of the canvas."""
        from endwise.modalities.image.flow import FlowHead
        from endwise.modalities.image.head import PictureHead

        if not self.lies:
            return FlowHead(self, contract, size)
        return PictureHead(contract.channels, contract.mean, size, on=str(self.on), narrow=self.narrow)

    # ---- inputs: the network -------------------------------------------------------------------------------------

    def encoder(self, contract: ImageContract, size: "Size") -> "Encoder":
        """Pixels to a grid of 16 to 64 tokens of width `size.width`."""
        from endwise.modalities.image.network import ConvEncoder, PatchEncoder, PretrainedPicture

        if contract.weights is not None:
            return PretrainedPicture(self, contract, size, partial(verified, contract.weights, "Image.pretrained"))
        return (PatchEncoder if self.backbone == "vit" else ConvEncoder)(self, contract, size)


def canvas(height: float, width: float, side: float) -> tuple[int, int]:
    """Height and width with about the area side x side in the aspect ratio of height x width (at most 3 : 1), both
    multiples of 8."""
    stretch = math.sqrt(min(max(height / width, 1 / WIDEST), WIDEST))
    return _rounded(side * stretch), _rounded(side / stretch)


def _rounded(length: float) -> int:
    return max(1, round(length / MULTIPLE_PX)) * MULTIPLE_PX


# ---- decoding --------------------------------------------------------------------------------------------------------


def decode(data: bytes, kept_area: int, *, grey: bool = False) -> np.ndarray:
    """The pixels of a file. A JPEG much larger than `kept_area` pixels is decoded at a fraction of its size."""
    if data[:3] == b"\xff\xd8\xff":
        found = _fast_jpeg(data, kept_area, grey=grey)
        if found is not None:
            return found
    if is_dicom(data):
        if (promised := promised_pixels(data)) > MAX_PIXELS:
            raise BadValue(_too_large(f"{promised:,}"))
        return picture_of(data)
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    try:
        with Pillow.open(io.BytesIO(data), formats=FORMATS) as picture:
            return _from_pil(picture, kept_area)
    except (BadValue, MemoryError):
        raise
    except UnidentifiedImageError:
        raise BadValue(f"not a {SPELLED_FORMATS} file: it begins with {data[:12]!r}") from None
    except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning):
        raise BadValue(_too_large()) from None
    except Exception as broken:  # decoders of damaged files promise no kind of exception
        raise BadValue(f"the picture is damaged: {broken}") from None


def _fast_jpeg(data: bytes, kept_area: int, *, grey: bool) -> np.ndarray | None:
    """By simplejpeg, 2.4 times as fast as Pillow; None where only Pillow will do: not installed, an orientation to
    follow, or CMYK."""
    try:
        import simplejpeg
    except ImportError:
        return None
    if data.find(b"Exif\x00\x00", 0, 65_536) >= 0:
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "RGB", "Gray"):
            return None
        _check_size(width, height)
        wanted = "GRAY" if grey or colours == "Gray" else "RGB"
        factor = _draft(width, height, kept_area)
        if factor == 1:
            found: np.ndarray = simplejpeg.decode_jpeg(data, wanted)
        else:
            found = simplejpeg.decode_jpeg(
                data, wanted, min_height=math.ceil(height / factor), min_width=math.ceil(width / factor)
            )
        return found
    except ValueError as broken:
        raise BadValue(f"the picture is damaged: {broken}") from None


def _draft(width: int, height: int, kept_area: int) -> int:
    """The power of two up to 8 by which a JPEG can be decoded smaller and still hold `kept_area` pixels."""
    factor = 1
    while factor < 8 and width * height >= kept_area * (2 * factor) ** 2:
        factor *= 2
    return factor


def _from_pil(picture: Any, kept_area: int) -> np.ndarray:
    from PIL import ImageOps

    _check_size(*picture.size)
    # not n_frames: counting those of a hundred thousand takes minutes
    if (
        getattr(picture, "is_animated", False) and picture.format != "MPO"
    ):  # a camera's MPO is a JPEG with previews behind it
        raise BadValue("the file has several frames or pages: save the one that is meant as a file of its own")
    factor = _draft(picture.width, picture.height, kept_area)
    if factor > 1 and picture.format in ("JPEG", "MPO"):
        picture.draft(None, (picture.width // factor, picture.height // factor))
    picture = ImageOps.exif_transpose(picture)
    mode = picture.mode
    if mode.startswith("I;16"):
        return _with_channels(np.asarray(picture).astype(np.uint16))
    if mode in ("I", "F"):
        return _from_array(_wide(np.asarray(picture)))
    if mode in ("1", "L"):
        return _with_channels(np.asarray(picture.convert("L")))
    if picture.has_transparency_data:
        from PIL import Image as Pillow

        picture = picture.convert("RGBA")
        white = Pillow.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Pillow.alpha_composite(white, picture)
        if mode in ("LA", "La"):
            picture = picture.convert("L")
            return _with_channels(np.asarray(picture))
    return np.asarray(picture.convert("RGB"))


def _wide(pixels: np.ndarray) -> np.ndarray:
    """A picture of 32-bit whole numbers that fit into 16 bits, or of floats, as it is."""
    if pixels.dtype.kind == "f":
        return pixels
    if pixels.size and (pixels.min() < 0 or pixels.max() > 65_535):
        raise BadValue(f"its pixels go from {pixels.min()} to {pixels.max()}: more than 16 bits cannot be read")
    return pixels.astype(np.uint16)


def _from_array(pixels: np.ndarray) -> np.ndarray:
    shape = pixels.shape
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        hint = "; this one has its channels first: pass array.transpose(1, 2, 0)" if _channels_first(shape) else ""
        raise BadValue(
            f"an array of shape {list(shape)} is no picture: [height, width] or [height, width, 1, 3 or 4]{hint}"
        )
    if 0 in pixels.shape:
        raise BadValue(f"an array of shape {list(shape)} has no pixels")
    _check_size(shape[1], shape[0])
    pixels = _as_pixels(pixels)
    return _on_white(pixels) if pixels.shape[2] == 4 else pixels


def _channels_first(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[0] in (1, 3, 4)


def _as_pixels(pixels: np.ndarray) -> np.ndarray:
    """uint8 or uint16, whatever the numbers were."""
    if pixels.dtype in FULL:
        return pixels
    if pixels.dtype.kind == "b":
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype.kind not in "iuf":
        raise BadValue(f"an array of {pixels.dtype} is no picture: give uint8, uint16 or floats in [0, 1]")
    low, high = pixels.min(), pixels.max()
    most = 1.0 if pixels.dtype.kind == "f" else 255
    if not (low >= 0 and high <= most):  # also true for NaN
        wanted = "floats in [0, 1]" if most == 1.0 else f"0 to 255 in {pixels.dtype} (uint16 for more)"
        raise BadValue(f"the pixels go from {low} to {high}: expected {wanted}")
    return np.rint(pixels * 65_535.0).astype(np.uint16) if most == 1.0 else pixels.astype(np.uint8)


def _on_white(pixels: np.ndarray) -> np.ndarray:
    full = FULL[pixels.dtype]
    alpha = pixels[..., 3:].astype(np.float64) / full
    return np.asarray(np.rint(pixels[..., :3] * alpha + full * (1 - alpha)).astype(pixels.dtype))


def _file(raw: Any, fetch: Fetch) -> bytes:
    if isinstance(raw, str) and raw.startswith("data:image/"):
        try:
            return base64.b64decode(raw.partition("base64,")[2], validate=True)
        except ValueError as broken:
            raise BadValue(f"the data URI is not base64: {broken}") from None
    return file_bytes(raw, fetch, "a picture")


def _is_pil(raw: Any) -> bool:
    """A PIL image can only be there when PIL was imported: never import it to ask."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(raw, module.Image)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise BadValue(_too_large(f"{width} x {height}"))


def _too_large(size: str = "so many") -> str:
    return f"the picture has {size} pixels, more than the {MAX_PIXELS // 1_000_000} million that are read: reduce or cut it"


# ---- pixels ----------------------------------------------------------------------------------------------------------


def _with_channels(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _grey(pixels: np.ndarray) -> np.ndarray:
    if pixels.shape[2] == 1:
        return pixels
    weighed = pixels.astype(np.float32) @ np.array(GREY_WEIGHTS, dtype=np.float32)
    return np.asarray(np.rint(weighed).astype(pixels.dtype)[..., None])


def _reduced(pixels: np.ndarray, kept_area: int) -> np.ndarray:
    """No more than `kept_area` pixels, by an antialiased resize. Beyond 3 : 1 the longer side alone may be shortened,
    as the canvas will do it."""
    height, width, channels = pixels.shape
    if height * width <= kept_area and max(height, width) ** 2 <= kept_area * WIDEST:
        return pixels
    scale = min(1.0, math.sqrt(kept_area / (height * width)))
    # no canvas is longer than this: a batch with a very long picture and a very tall one stays affordable
    longest = math.ceil(math.sqrt(kept_area * WIDEST))
    size = (min(max(1, int(height * scale)), longest), min(max(1, int(width * scale)), longest))
    if size == (height, width):
        return pixels
    if pixels.dtype == np.uint8:
        from PIL import Image as Pillow

        picture = Pillow.fromarray(pixels[..., 0] if channels == 1 else np.ascontiguousarray(pixels))
        return _with_channels(np.asarray(picture.resize(size[::-1], Pillow.Resampling.BILINEAR)))
    rows, columns = antialias(height, size[0]), antialias(width, size[1])
    smaller = np.einsum("yh,hwc,xw->yxc", rows, pixels.astype(np.float32), columns, optimize=True)
    return np.asarray(np.rint(smaller).clip(0, FULL[pixels.dtype]).astype(pixels.dtype))


def _moments(value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and mean square of each of three channels, full scale = 1; grey counts for all three."""
    step = max(1, math.isqrt(value.shape[0] * value.shape[1]) // STATISTICS_SIDE_PX)
    sample = value[::step, ::step].reshape(-1, value.shape[2]).astype(np.float64)
    # sums of whole numbers below 2^53 are exact in whatever order the library adds them up
    ones, full = np.ones(len(sample)), FULL[value.dtype]
    first, second = ones @ sample / full, ones @ (sample * sample) / full**2
    return np.broadcast_to(first / len(sample), 3), np.broadcast_to(second / len(sample), 3)


def _sorted(sizes: Counter[tuple[int, ...]], axis: int) -> list[tuple[int, int]]:
    lengths: Counter[int] = Counter()
    for size, count in sizes.items():
        lengths[size[axis]] += count
    return sorted(lengths.items())


def _middle(lengths: list[tuple[int, int]], count: int) -> int:
    """The median of counted lengths; 32 where there is none at all."""
    seen = 0
    for length, times in lengths:
        seen += times
        if 2 * seen >= count:
            return length
    return 32


def _ratio(size: tuple[int, int]) -> float:
    return max(size) / min(size)


def _spelled(size: tuple[int, ...]) -> str:
    return f"{size[1]} x {size[0]}"
