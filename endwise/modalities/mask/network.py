"""The network side of masks: the feature maps of what they lie on -> scores of every class at every place of the canvas.

Any number of axes. Not here: the decoder (endwise/nn/pyramid.py), resizing to the picture's own size (`Mask.write`).
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from endwise import losses
from endwise.modalities.image.network import conv_net, on_grid
from endwise.modalities.mask import CROSS_ENTROPY, DICE
from endwise.nn.interface import Aim, Encoder, Handed, Head, Tokens
from endwise.nn.placing import Placed, in_place, laid, laid_smoothly, turned
from endwise.nn.pyramid import Narrowing, OnCanvas, finest_stride
from endwise.nn.scalars import log_odds
from endwise.nn.size import Size
from endwise.nn.vision import resize

SMALL_SIDE_PX = 48  # of a canvas whose every pixel has a score of its own; larger ones every second or fourth
COARSEST = 4.0  # of the finest map
CARRIED_PX = 64  # a side of the canvas on which another stage reads a mask


class MaskHead(Head):
    """Scores [batch, class, *canvas]. places: training places of each class, which the scores begin with."""

    def __init__(self, places: Sequence[int], size: Size, *, on: str) -> None:
        super().__init__()
        self.on, self.size, self.classes = on, size, len(places)
        self.prior = [math.log((count + 1) / (sum(places) + len(places))) for count in places]

    def meet(self, encoders: Mapping[str, Encoder]) -> None:
        """Its layers are those that the maps of this encoder need."""
        encoder = encoders[self.on]
        self.decoder: OnCanvas | Narrowing
        finest = finest_stride(encoder.canvas_px, SMALL_SIDE_PX, COARSEST)
        strides = [min(item.stride) for item in encoder.maps]
        halved = all(coarse <= 2 * fine for fine, coarse in itertools.pairwise(strides))
        if len(strides) > 1 and halved and strides[0] <= 2 * finest:
            self.decoder = Narrowing(encoder, self.size.width, self.classes)
        else:  # its maps leave steps out, or it has no fine one of its own: those are made
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
        """{'scores': float32 [batch, class, *canvas], 'seen' and 'sizes' of what it lies on, as in `Placed`}."""
        return {**prediction, "scores": prediction["scores"].float()}

    def handed(self, prediction: dict[str, Tensor], *, greedy: bool) -> Handed:
        """The classes of the canvas where the picture has them, as a target does: what training did to the picture (shifts,
        turns) is undone."""
        scores = prediction["scores"].float()
        if self.training:
            scores, _ = laid_smoothly(scores, turned(prediction["seen"]))
        last = scores.movedim(1, -1)
        sizes = torch.tensor(scores.shape[2:], device=scores.device).expand(scores.shape[0], -1)
        return Handed(last.argmax(-1), sizes, last)

    def aim(self, prediction: dict[str, Tensor], about: tuple[int, ...]) -> Aim:
        """The mean log-odds of the class where the answer has it."""
        region = prediction["scores"][0].argmax(0) == about[0]

        def held(other: dict[str, Tensor]) -> Tensor:
            return log_odds(other["scores"].movedim(1, -1)[:, region], about[0]).mean(1)

        return held


class MaskCarrier(Encoder):
    """A mask as another stage reads it: how much of every cell of a canvas each class has, through the net of pictures. A
    place that nobody has labelled is of no class."""

    peak_rate, peak_batch = 5e-3, 32
    canvas_px = (CARRIED_PX, CARRIED_PX)

    def __init__(self, classes: int, size: Size) -> None:
        super().__init__()
        self.classes = classes
        self.net, self.maps = conv_net(classes, self.canvas_px, size)
        self.project = nn.Linear(self.maps[-1].channels, size.width, bias=False)
        self.norm = nn.LayerNorm(size.width)

    def forward(self, values: Tensor, sizes: Int[Tensor, "batch 2"]) -> Tokens:
        """Classes [batch, height, width] as a target has them, or chances of each [batch, height, width, class]."""
        if not values.is_floating_point():
            values = (values[..., None] == torch.arange(self.classes, device=values.device)).float()
        with torch.autocast(values.device.type, enabled=False):
            x = resize(values.float(), sizes, *self.canvas_px).permute(0, 3, 1, 2)
        levels = self.net(x)
        last = levels[-1]
        tokens = self.norm(self.project(last.flatten(2).transpose(1, 2)))
        placed = Placed(self.canvas_px, sizes, in_place(x.shape[0], 2, x.device), x)
        return on_grid(tokens, (last.shape[2], last.shape[3]), placed, levels, {})
