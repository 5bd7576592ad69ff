"""Pictures as answers: the feature maps of a picture -> another picture on the same canvas.

What the encoder sees is handed on and only the difference is made (He et al. 2016), unless the answer has to pass through
the tokens alone. Beside it, how far off each place will be (endwise/nn/doubt.py). Not here: the decoder (endwise/nn/pyramid.py), resizing to the picture's own size (`Image.write`).
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from endwise import losses
from endwise.certainty import EXPECTED
from endwise.modalities.image.network import PictureEncoder
from endwise.nn.doubt import Doubt, doubt_loss
from endwise.nn.interface import Aim, Encoder, Head, Tokens
from endwise.nn.placing import laid_smoothly
from endwise.nn.pyramid import OnCanvas, finest_stride
from endwise.nn.size import Size
from endwise.nn.vision import resize, scaled

FINE_SIDE_PX, FINE_STRIDE = 96, 2.0
ABSOLUTE, STRUCTURE = "absolute", "structure"


class PictureHead(Head):
    """Pixels [batch, channel, *canvas], full scale = 1. mean: of each channel, which a narrow one begins with."""

    deviation: Tensor
    offset: Tensor

    def __init__(self, channels: int, mean: Sequence[float], size: Size, *, on: str, narrow: bool) -> None:
        super().__init__()
        self.channels, self.mean, self.size, self.on, self.narrow = channels, tuple(mean), size, on, narrow

    def meet(self, encoders: Mapping[str, Encoder]) -> None:
        """Its layers are those that the maps of this encoder need, and it undoes its normalising."""
        encoder = encoders[self.on]
        assert isinstance(encoder, PictureEncoder)
        finest = finest_stride(encoder.canvas_px, FINE_SIDE_PX, FINE_STRIDE)
        self.decoder = OnCanvas(encoder, self.size.width, self.channels, finest=finest, narrow=self.narrow)
        self.decoder.begin(self.mean if self.narrow else [0.0] * self.channels)
        widths = (self.decoder.width, 1)
        self.doubt = Doubt(widths, 1, inputs=len(encoders), token_width=self.size.width)
        self.register_buffer("deviation", encoder.deviation[:, None, None].clone(), persistent=False)
        self.register_buffer("offset", encoder.mean[:, None, None].clone(), persistent=False)

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """{'values': [batch, channel, *canvas], 'expected_error': [batch, *canvas] of their mean absolute error, 'seen' and
        'sizes' as in `Placed`}."""
        placed = tokens.placed[self.on]
        features = self.decoder.features(tokens, self.on)
        values = self.decoder.enlarged(self.decoder.score(features).float())
        shown = self._shown(tokens)
        if not self.narrow:
            values = values + shown
        return {
            "values": values,
            EXPECTED: self._expected(tokens, features, (values - shown).detach()),
            "seen": placed.seen,
            "sizes": placed.sizes,
        }

    def _expected(
        self, tokens: Tokens, features: Tensor, changed: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch height width"]:
        """From the features of the answer and from how far it is from what was seen, at the places of the finest map."""
        apart = F.interpolate(changed.abs().mean(1, keepdim=True), features.shape[2:], mode="bilinear")
        found = self.doubt(tokens, features.movedim(1, -1), apart.movedim(1, -1))
        return self.decoder.enlarged(found.movedim(-1, 1))[:, 0]

    def _shown(self, tokens: Tokens) -> Float[Tensor, "batch channel height width"]:
        """What the encoder sees, as pixels; the mean colour where there is nothing."""
        shown = tokens.placed[self.on].shown
        assert shown is not None
        present = tokens.present.get(self.on)
        if present is not None:
            shown = torch.where(present[:, None, None, None], shown, 0.0)
        pixels = shown.float() * self.deviation + self.offset
        if pixels.shape[1] != self.channels:
            pixels = pixels.mean(1, keepdim=True).expand(-1, self.channels, -1, -1)
        return pixels

    def loss(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, Float[Tensor, " batch"]]:
        """{'absolute': mean absolute error, 'structure': (1 - structural similarity) / 2} over the places of the canvas
        that show the target (Zhao et al. 2017), and 'expected_error', how wrong that is."""
        values = prediction["values"].float()
        with torch.autocast(values.device.type, enabled=False):
            wanted = resize(scaled(target), sizes, values.shape[2], values.shape[3]).permute(0, 3, 1, 2)
        wanted, inside = laid_smoothly(wanted, prediction["seen"])
        count = inside.flatten(1).sum(1).clamp(min=1)
        off = (values - wanted).abs().mean(1)
        apart = (off * inside).flatten(1).sum(1)
        alike = (losses.similarity(values, wanted) * inside).flatten(1).sum(1)
        doubt = doubt_loss(prediction[EXPECTED], off, inside)
        return {ABSOLUTE: apart / count, STRUCTURE: (1 - alike / count) / 2, EXPECTED: doubt}

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """{'values': float32 [batch, channel, *canvas], 'expected_error': [batch], the mean over the canvas, 'sizes': int64
        [batch, 2] of what it lies on}."""
        expected = prediction[EXPECTED].float().mean((1, 2))
        return {"values": prediction["values"].float(), EXPECTED: expected, "sizes": prediction["sizes"]}

    def aim(self, prediction: dict[str, Tensor], about: tuple[int, ...]) -> Aim:
        """The light at one place, or how much of this picture there is beyond its mean colour."""
        values = prediction["values"].detach().float()
        if about:
            sides = zip(about, prediction["sizes"][0].tolist(), values.shape[2:], strict=True)
            row, column = (min(side - 1, int((place + 0.5) * side / whole)) for place, whole, side in sides)
            return lambda other: other["values"][:, :, row, column].float().mean(1)
        apart = values - values.mean((2, 3), keepdim=True)
        whole = apart.square().sum().clamp(min=1e-12)
        return lambda other: (other["values"].float() * apart).flatten(1).sum(1) / whole
