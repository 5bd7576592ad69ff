"""The network side of instances: boxes, and for each a mask inside it.

The masks' decoder gives a few numbers for every pixel of a fine map; every place that proposes a box asks for a mix of
them, and the product says what is inside (prototypes and coefficients: Bolya et al. 2019, "YOLACT"; the queries of Cheng et
al. 2021, "MaskFormer", are the same product). It is learnt, and answered, at `side` places along each axis of the box, two or
three. Not here: which place answers for what, and boxes (endwise/modalities/boxes/network.py).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from endwise.modalities.boxes.network import BoxesHead
from endwise.nn.interface import Encoder, Tokens
from endwise.nn.placing import centres, seen_at
from endwise.nn.pyramid import CONVS, OnCanvas, finest_stride

if TYPE_CHECKING:
    from endwise.modalities.boxes import BoxesContract
    from endwise.modalities.instances import Instances
    from endwise.nn.size import Size

MIXED = 24  # numbers of a pixel
SMALL_SIDE_PX = {2: 80, 3: 32}  # of the canvas whose every pixel has them, by axes ...
COARSEST = 4.0  # ... and of the finest map beyond it
MASK_WEIGHT = 2.0  # beside class and box


class InstancesHead(BoxesHead):
    """As `BoxesHead`, and {'asked': [batch, place, mix], 'pixels': [batch, mix, *shape]}."""

    def __init__(self, declared: "Instances", contract: "BoxesContract", size: "Size") -> None:
        super().__init__(declared, contract, size)
        self.side, self.axes = declared.side, len(declared.corners) // 2

    def meet(self, encoders: Mapping[str, Encoder]) -> None:
        """The picture's feature maps."""
        super().meet(encoders)
        encoder = encoders[self.on]
        finest = finest_stride(encoder.canvas_px, SMALL_SIDE_PX[self.axes], COARSEST)
        self.decoder = OnCanvas(encoder, self.token_width, MIXED, finest=finest)
        self.extent = tuple(
            side / step for side, step in zip(encoder.canvas_px, self.decoder.pyramid.strides[0], strict=True)
        )  # of the canvas, in cells of the map: the last cell may reach beyond it
        self.asking = CONVS[self.axes](self.width, MIXED, 1)

    def said_beside(self, reached: Tensor, tokens: Tokens) -> dict[str, Tensor]:
        """What each place asks for, and what there is."""
        return {
            "asked": self.asking(reached).flatten(2).transpose(1, 2).float(),
            "pixels": self.decoder.fine(tokens, self.on),
        }

    def learnt_beside(
        self, prediction: Mapping[str, Tensor], target: Tensor, truths: Tensor, chosen: Tensor
    ) -> dict[str, Float[Tensor, " batch"]]:
        """{'mask': cross-entropy and Dice inside the true box, of the place that answers for it}."""
        made = self._inside(prediction, chosen.clamp(min=0), truths)
        wanted = self._wanted(prediction, target, truths)
        cost = F.binary_cross_entropy_with_logits(made, wanted, reduction="none").flatten(2).mean(2)
        chance, wanted = made.sigmoid().flatten(2), wanted.flatten(2)
        both, sizes = (chance * wanted).sum(2), chance.sum(2) + wanted.sum(2)
        dice = 1 - (2 * both + 1) / (sizes + 1)
        return {"mask": MASK_WEIGHT * torch.where(chosen >= 0, cost + dice, 0.0).sum(1)}

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """As of boxes, and {'masks': float32 [batch, rank, *side], the chances inside each box, 'sizes': int64 [batch, axes]}."""
        _, _, place, boxes = self.ranked(prediction)
        masks = self._inside(prediction, place, boxes).sigmoid()
        return {**super().decode(prediction), "masks": masks, "sizes": prediction["sizes"]}

    def _inside(
        self, prediction: Mapping[str, Tensor], place: Int[Tensor, "batch n"], boxes: Float[Tensor, "batch n corners"]
    ) -> Float[Tensor, "batch n *sides"]:
        """What these places say about these boxes (on the canvas, axes as of its arrays) at `side` places along each axis of
        them: linear between the cells of the map, as a product with weights along each axis."""
        asked = prediction["asked"].float().gather(1, place[..., None].expand(-1, -1, MIXED))
        pixels = prediction["pixels"].float()
        made = (asked @ pixels.flatten(2) * MIXED**-0.5).unflatten(2, pixels.shape[2:])
        low, high = boxes.float().chunk(2, dim=-1)
        along = (torch.arange(self.side, device=boxes.device) + 0.5) / self.side
        for axis, cells in enumerate(pixels.shape[2:]):
            at = low[..., axis, None] + along * (high - low)[..., axis, None]
            at = (at * self.extent[axis] - 0.5).clamp(0, cells - 1)
            weights = (1 - (at[..., None] - torch.arange(cells, device=at.device)).abs()).clamp(min=0)
            left = made.shape[3:]  # each axis in turn is the first, and goes behind the others
            made = (weights @ made.flatten(3)).unflatten(3, left).movedim(2, -1)
        found: Tensor = made
        return found

    def _wanted(
        self, prediction: Mapping[str, Tensor], target: Tensor, truths: Float[Tensor, "batch n corners"]
    ) -> Float[Tensor, "batch n *sides"]:
        """The true masks at the same places: where those of the canvas lie in the raw picture, and there in the box that the
        target's mask was taken in. 0 outside of it."""
        (batch, count), sides = truths.shape[:2], (self.side,) * self.axes
        grid = centres(sides, truths.device)
        low, high = truths.float().chunk(2, dim=-1)
        places = low[:, :, None] + grid * (high - low)[:, :, None]
        raw = seen_at(prediction["seen"], places.flatten(1, 2)).reshape(batch, count, -1, self.axes)
        own = (
            self._turned(target[..., self.corners].float().reshape(batch, count, 2, self.axes))
            / prediction["sizes"][:, None, None].float()
        )
        size = (own[:, :, 1] - own[:, :, 0]).clamp(min=1e-6)
        inside = (raw - own[:, :, None, 0]) / size[:, :, None]
        masks = target[..., self.corners.stop :].reshape(batch * count, 1, *sides).float()
        at = (2 * inside - 1).flip(3).reshape(batch * count, *sides, self.axes)  # the last axis first
        found = F.grid_sample(masks, at.clamp(-3, 3), mode="bilinear", padding_mode="zeros", align_corners=False)
        return found.reshape(batch, count, *sides).clamp(0, 1)
