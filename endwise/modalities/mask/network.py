"""The network side of masks: the feature maps of what they lie on -> scores of every class at every place of the canvas.

Any number of axes. Not here: the decoder (endwise/nn/pyramid.py), resizing to the picture's own size (`Mask.write`).
"""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from endwise import losses
from endwise.modalities.mask import CROSS_ENTROPY, DICE
from endwise.nn.interface import Encoder, Head, Tokens
from endwise.nn.placing import laid
from endwise.nn.pyramid import OnCanvas, finest_stride
from endwise.nn.size import Size

SMALL_SIDE_PX = 48  # of a canvas whose every pixel has a score of its own; larger ones every second or fourth
COARSEST = 4.0  # of the finest map


class MaskHead(Head):
    """Scores [batch, class, *canvas]. places: training places of each class, which the scores begin with."""

    def __init__(self, places: Sequence[int], size: Size, *, on: str) -> None:
        super().__init__()
        self.on, self.size, self.classes = on, size, len(places)
        self.prior = [math.log((count + 1) / (sum(places) + len(places))) for count in places]

    def meet(self, encoders: Mapping[str, Encoder]) -> None:
        """Its layers are those that the maps of this encoder need."""
        encoder = encoders[self.on]
        finest = finest_stride(encoder.canvas_px, SMALL_SIDE_PX, COARSEST)
        self.decoder = OnCanvas(encoder, self.size.width, self.classes, finest=finest)
        self.decoder.begin(self.prior)

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """{'scores': logits [batch, class, *canvas], 'seen' and 'sizes' as in `Placed`}."""
        placed = tokens.placed[self.on]
        return {"scores": self.decoder(tokens, self.on), "seen": placed.seen, "sizes": placed.sizes}

    def loss(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, Float[Tensor, " batch"]]:
        """{'cross_entropy', 'dice'} over a row's labelled places that are on the canvas; 0 where there are none."""
        scores = prediction["scores"].float()
        classes, inside = laid(target, sizes, prediction["seen"], tuple(scores.shape[2:]))
        valid = inside & (classes < self.classes)
        classes = torch.where(valid, classes, 0).long()
        cost = F.cross_entropy(scores, classes, reduction="none") * valid
        mean = cost.flatten(1).sum(1) / valid.flatten(1).sum(1).clamp(min=1)
        return {CROSS_ENTROPY: mean, DICE: losses.dice(scores.softmax(1), classes, valid)}

    def weight(self, target: Tensor, sizes: Tensor) -> Float[Tensor, " batch"]:
        """1 of a mask with a labelled place, 0 of one without."""
        real = torch.ones_like(target, dtype=torch.bool)
        for axis in range(sizes.shape[1]):
            along = torch.arange(target.shape[1 + axis], device=target.device) < sizes[:, axis, None]
            real = real & along.reshape(len(target), *[-1 if other == axis else 1 for other in range(sizes.shape[1])])
        return ((target < self.classes) & real).flatten(1).any(1).float()

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """{'scores': float32 [batch, class, *canvas], 'sizes': int64 [batch, axes] of what it lies on}."""
        return {"scores": prediction["scores"].float(), "sizes": prediction["sizes"]}
