"""The network side of anomalies: a picture is made again of its tokens alone, and where that fails it is unlike those that
the network was trained on (Bergmann et al. 2019, "Improving unsupervised defect segmentation by applying structural
similarity to autoencoders"). Not here: the decoder (endwise/nn/pyramid.py), what an answer is (`Anomaly.write`).
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from endwise import losses
from endwise.modalities.anomaly import ABSOLUTE, STRUCTURE
from endwise.modalities.image.network import PictureEncoder
from endwise.nn.interface import Aim, Encoder, Head, Tokens
from endwise.nn.pyramid import OnCanvas, finest_stride
from endwise.nn.size import Size

FINE_SIDE_PX, FINE_STRIDE = 32, 4.0
AROUND = 5  # pixels of the canvas over which errors are averaged: a single one is noise
FALSE_ALARMS = 0.05  # share of the validation pictures in order that may be above the threshold
UNCALIBRATED = 0.5
MOST_KEPT = 256  # scores of validation pictures in order: of more as many are drawn, always the same
NONE = -1.0  # a score is never below 0


class AnomalyHead(Head):
    """Errors at every place of the canvas. `calibrate` sets the threshold, and keeps the scores of validation pictures in order:
    the share of them that is as high as a picture's is its p-value (Vovk et al. 2005; Bates et al. 2023, "Testing for outliers
    with conformal p-values")."""

    threshold: Tensor
    good: Tensor
    deviation: Tensor
    offset: Tensor

    def __init__(self, size: Size, *, on: str) -> None:
        super().__init__()
        self.size, self.on = size, on
        self.register_buffer("threshold", torch.tensor(UNCALIBRATED))
        self.register_buffer("good", torch.full((MOST_KEPT,), NONE))

    def meet(self, encoders: Mapping[str, Encoder]) -> None:
        """Its layers are those that the last map of this encoder needs."""
        encoder = encoders[self.on]
        assert isinstance(encoder, PictureEncoder)
        channels, finest = encoder.mean.numel(), finest_stride(encoder.canvas_px, FINE_SIDE_PX, FINE_STRIDE)
        self.decoder = OnCanvas(encoder, self.size.width, channels, finest=finest, narrow=True)
        self.decoder.begin([0.0] * channels)
        self.register_buffer("deviation", encoder.deviation[:, None, None].clone(), persistent=False)
        self.register_buffer("offset", encoder.mean[:, None, None].clone(), persistent=False)

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """{'absolute': [batch, *canvas], 'structure': the same, 0 where a place is made again as it was; 'sizes'}."""
        placed = tokens.placed[self.on]
        assert placed.shown is not None
        shown = placed.shown.float()
        present = tokens.present.get(self.on)
        if present is not None:
            shown = torch.where(present[:, None, None, None], shown, 0.0)
        made = self.decoder(tokens, self.on)
        one, other = (x * self.deviation + self.offset for x in (made, shown))
        return {
            "absolute": (made - shown).abs().mean(1),
            "structure": (1 - losses.similarity(one, other)) / 2,
            "sizes": placed.sizes,
        }

    def loss(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, Float[Tensor, " batch"]]:
        """{'absolute': in standard deviations of a pixel, 'structure': (1 - structural similarity) / 2}, of the whole
        picture as the encoder saw it."""
        return {name: prediction[name].float().flatten(1).mean(1) for name in (ABSOLUTE, STRUCTURE)}

    def weight(self, target: Tensor, sizes: Tensor) -> Float[Tensor, " batch"]:
        """1 of a picture in order, 0 of another."""
        return 1.0 - target.flatten(1).any(1).float()

    def scores(self, prediction: dict[str, Tensor]) -> Float[Tensor, "batch height width"]:
        """Both errors, averaged over the neighbours."""
        error = (prediction[ABSOLUTE] + prediction[STRUCTURE])[:, None]
        return F.avg_pool2d(error, AROUND, stride=1, padding=AROUND // 2, count_include_pad=False)[:, 0]

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """{'scores': float32 [batch, *canvas], 'threshold': [batch], 'p_value': [batch], 1 where no picture in order is known,
        'sizes': int64 [batch, 2]}."""
        scores = self.scores(prediction).float()
        threshold, good = self.threshold.float().expand(scores.shape[0]), self.good.float()
        higher = (good >= scores.flatten(1).max(1).values[:, None]).sum(1)
        p_value = (1 + higher) / (1 + (good > NONE).sum())
        return {"scores": scores, "threshold": threshold, "p_value": p_value, "sizes": prediction["sizes"]}

    def aim(self, prediction: dict[str, Tensor], about: tuple[int, ...]) -> Aim:
        """The score at its highest place."""
        at = int(self.scores(prediction).flatten().argmax())
        return lambda other: self.scores(other).flatten(1)[:, at].float()

    def calibrate(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, float]:
        """{'threshold'}: the score that one in twenty pictures in order exceeds; nothing where there is none."""
        highest = self.scores(prediction).flatten(1).max(1).values[self.weight(target, sizes) > 0]
        self.good.fill_(NONE)
        if not len(highest):
            return {}
        drawn = torch.randperm(len(highest), generator=torch.Generator().manual_seed(0))[:MOST_KEPT]
        self.good[: len(drawn)] = highest[drawn.to(highest.device)].float()
        self.threshold.copy_(torch.quantile(highest.float(), 1 - FALSE_ALARMS))
        return {"threshold": float(self.threshold)}
