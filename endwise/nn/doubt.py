"""How wrong an answer will be, place by place: what a head whose answer is many numbers says of itself.

It is learnt from how wrong the answers to training rows are (loss prediction; Yoo & Kweon 2019), and sees the features that the
answer was made of as they are: nothing that it learns changes them, so that the answer is the one that it would be without.
Not here: by how much it is off on rows that training did not see (endwise/calibration.py).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.nn.interface import Tokens
from endwise.nn.scalars import exact

HIDDEN = 16
FIRST = -2.0  # softplus of it is 0.13: small against a deviation, and its first steps small against the answer's
SHARE = 0.1  # of the loss: optimisers give it a pace of its own, and the clipping of gradients hardly hears of it


class Doubt(nn.Module):
    """Features at every place, and what each input says of the row by itself (an answer may lie as it does whatever an input says
    of its spread) -> the absolute error of each channel that is to be expected there, in the scale of the loss: what the place
    says times what the row says, where it is small.

    widths: of the features. It learns faster than the rest: the weights that are kept are those with which the answer was best,
    be they of an early step."""

    peak_rate = 1e-2
    keeps_rate = True

    def __init__(self, widths: Sequence[int], channels: int, *, inputs: int, token_width: int) -> None:
        super().__init__()
        self.place = nn.ModuleList(nn.Linear(width, channels, bias=False) for width in widths)
        self.inward, self.outward = nn.Linear(inputs * token_width, HIDDEN), nn.Linear(HIDDEN, channels)
        nn.init.constant_(self.outward.bias, FIRST)
        for layer in self.place:
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=1e-2)

    def forward(
        self, tokens: Tokens, *features: Float[Tensor, "batch *place some"]
    ) -> Float[Tensor, "batch *place channel"]:
        """float32, above 0."""
        row = exact(self.outward, F.gelu(exact(self.inward, _each(tokens).detach())))
        found = row.reshape(-1, *(1,) * (features[0].ndim - 2), row.shape[-1])
        for layer, item in zip(self.place, features, strict=True):
            assert isinstance(layer, nn.Linear)
            found = found + exact(layer, item.detach())
        return F.softplus(found)


def doubt_loss(
    expected: Float[Tensor, "batch *place"], off: Float[Tensor, "batch *place"], real: Bool[Tensor, "batch *place"]
) -> Float[Tensor, " batch"]:
    """Huber's error of what was expected, the mean over the real places. off: how wrong the answer is, which this does not
    change."""
    apart = F.huber_loss(expected.float(), off.detach().float().abs(), reduction="none")
    count = real.flatten(1).sum(1).clamp(min=1)
    return SHARE * torch.where(real, apart, 0.0).flatten(1).sum(1) / count


def _each(tokens: Tokens) -> Float[Tensor, "batch widths"]:
    """The mean of each input's tokens before the trunk mixes them, side by side."""
    values = tokens.values if tokens.own_values is None else tokens.own_values
    weight = tokens.mask[..., None].to(values.dtype)
    found = [
        (values[:, span] * weight[:, span]).sum(1) / weight[:, span].sum(1).clamp(min=1)
        for span in tokens.spans.values() or [slice(None)]
    ]
    return torch.cat(found, -1)
