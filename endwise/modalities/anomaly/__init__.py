"""Anomalies: how unlike the pictures that it was trained on a picture is, and where, learnt from pictures without any.

The declaration, how the truth is read, how an answer is written. Not here: what is learnt (network.py: pictures are made
again of their tokens alone), the classical baseline (features.py), defects whose pixels are labelled (modalities/mask).
"""

import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from endwise.drawing import Segmentation, resizing
from endwise.errors import BadValue, DataError, refusal
from endwise.modalities.base import Answer, Contract, Fetch, Role
from endwise.modalities.boolean import WORDS
from endwise.modalities.mask import Mask
from endwise.modalities.spatial import Spatial

if TYPE_CHECKING:
    from endwise.metrics import Metric
    from endwise.nn.interface import Head
    from endwise.nn.size import Size

NAMES = {0: "in order", 1: "anomalous"}
ABSOLUTE, STRUCTURE = "absolute", "structure"
SMALLEST = 1e-12  # of what is divided by


@dataclass(frozen=True, kw_only=True)
class AnomalyContract(Contract):
    """anomalous: training rows with an anomaly, which nothing is learnt from."""

    anomalous: int


@dataclass(frozen=True, eq=False, repr=False)
class AnomalyMap(Segmentation):
    """Which pixels are anomalous, and `scores` [height, width] of any resolution: how much, in units of its own."""

    scores: np.ndarray = field(default_factory=lambda: np.zeros((1, 1), np.float32))

    @property
    def score(self) -> float:
        """Of the whole picture: the highest of any place."""
        return float(self.scores.max(initial=0))

    def __repr__(self) -> str:
        return super().__repr__().removesuffix(")") + f"; score {self.score:.3g})"


@dataclass(frozen=True, kw_only=True)
class Anomaly(Spatial):
    """How unlike the training pictures a picture is, and where: one-class inspection. Its column says for each row what is
    true, which is only needed for scoring: true or false (also yes, no, 1, 0), or a mask in which 0 is in order; in the
    training rows all false. Training rows with an anomaly teach nothing.

    The answer is an `AnomalyMap`: a mask, the scores that it was cut from, and the score of the picture. The threshold is
    chosen so that one in twenty validation pictures in order has an anomalous pixel. How far the score lies from it is how
    sure the answer is; `p_value` is the share of validation pictures in order that score as high.
    """

    type: ClassVar[str] = "anomaly"
    length_unit: ClassVar[str] = "pixels"
    contract_class = AnomalyContract
    axes: ClassVar[int] = 2
    classical_of_places: ClassVar[bool] = True
    read_fields: ClassVar[tuple[str, ...]] = ()

    @property
    def num_terms(self) -> int:
        """Absolute error and structural similarity."""
        return 2

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """uint8 [height, width] of 0 and 1; [1, 1] where only the picture is judged."""
        if isinstance(raw, np.ndarray) and raw.ndim == 0:
            raw = raw.item()
        if isinstance(raw, str) and raw.strip().lower() in WORDS:
            raw = WORDS[raw.strip().lower()]
        if isinstance(raw, bool | np.bool_ | numbers.Real):
            if raw not in (0, 1):
                raise BadValue(f"{raw!r:.60} is neither true nor false")
            return np.array([[bool(raw)]], np.uint8)
        return (Mask().read(raw, fetch) > 0).astype(np.uint8)

    def misfit(self, shape: tuple[int, ...], under: tuple[int, ...]) -> str | None:
        """A mask is as large as its picture."""
        return None if shape == (1, 1) else Mask(on=self.on).misfit(shape, under)

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> AnomalyContract:
        """How many there are with an anomaly."""
        flags = [bool(value.any()) for value in values]
        if flags and all(flags):
            raise refusal(
                field="anomaly", got=f"{len(flags)} training rows, all with an anomaly", allowed="training rows in order",
                fix="what is in order is learnt from rows that are", error=DataError,
            )  # fmt: skip
        return AnomalyContract(count=len(flags), missing=missing, anomalous=sum(flags))

    def blank(self, contract: AnomalyContract) -> np.ndarray:
        """In order."""
        return np.zeros((1, 1), np.uint8)

    def length(self, shape: tuple[int, ...]) -> int:
        """Its pixels."""
        return int(np.prod(shape))

    def summary(self, contract: AnomalyContract) -> str:
        """'240 rows in order, 3 anomalous (nothing is learnt from these)'."""
        odd = f", {contract.anomalous} anomalous (nothing is learnt from these)" if contract.anomalous else ""
        return f"{contract.count - contract.anomalous} rows in order{odd}"

    def preview(self, value: np.ndarray, contract: AnomalyContract) -> dict[str, str]:
        """The mask."""
        return {"kind": "image", "data": self.truth(value, contract).to_json()}

    def truth(self, value: np.ndarray, contract: AnomalyContract) -> AnomalyMap:
        """The mask, its own scores."""
        return AnomalyMap(value, NAMES, scores=value.astype(np.float32))

    def write(self, decoded: Mapping[str, np.ndarray], contract: AnomalyContract) -> Answer:
        """An `AnomalyMap` of the size of what it lies on; in `detail` the score of the picture, the threshold, whether the
        picture is anomalous, and the chance that one in order scores as high."""
        scores, threshold = np.asarray(decoded["scores"], np.float32), float(decoded["threshold"])
        height, width = (int(side) for side in decoded["sizes"])
        rows, columns = resizing(scores.shape[0], height), resizing(scores.shape[1], width)
        made = AnomalyMap((rows @ scores @ columns.T > threshold).astype(np.uint8), NAMES, scores=scores)
        return _answer(made, threshold, p_value=float(decoded["p_value"]))

    def metrics(self, contract: AnomalyContract) -> Sequence["Metric"]:
        """image_auroc, pixel_auroc (of rows whose pixels are labelled), dice of the anomalous pixels, and the absolute
        error that pictures are made again with."""
        from endwise import metrics

        scored = [metrics.image_auroc(), metrics.pixel_auroc(), metrics.class_dice(NAMES[1], 1)]
        return [*scored, metrics.mean_cost("reconstruction", ABSOLUTE)]

    def risk(self, contract: AnomalyContract) -> "Metric":
        """Whether the picture is rightly called anomalous, or in order."""
        from endwise import metrics

        return metrics.image_accuracy()

    def classical(self, contract: AnomalyContract) -> Any:
        """How far colours and textures are from those of pixels in order, by their covariance."""
        from endwise.modalities.anomaly.features import PixelDistance

        return PixelDistance()

    def trivial(self, truths: Sequence[Any], contract: AnomalyContract) -> Answer:
        """In order everywhere."""
        return _answer(self.truth(np.zeros((1, 1), np.uint8), contract), 1.0)

    def from_classical(self, predicted: Any, contract: AnomalyContract) -> Answer:
        """(scores, threshold)."""
        scores, threshold = np.asarray(predicted[0], np.float32), float(predicted[1])
        return _answer(AnomalyMap((scores > threshold).astype(np.uint8), NAMES, scores=scores), threshold)

    def head(self, contract: AnomalyContract, size: "Size") -> "Head":
        """The picture, made again of its tokens alone."""
        from endwise.modalities.anomaly.network import AnomalyHead

        return AnomalyHead(size, on=self.under())


def _answer(made: AnomalyMap, threshold: float, **more: float) -> Answer:
    """With the confidence of odds that are the score by the threshold."""
    detail = {"score": made.score, "threshold": threshold, "anomalous": made.score > threshold, **more}
    ends = sorted((max(made.score, SMALLEST), max(threshold, SMALLEST)))
    return Answer(made, ends[1] / (ends[0] + ends[1]), detail=detail)
