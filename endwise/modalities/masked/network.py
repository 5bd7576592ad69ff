"""The network side of masked prediction: tokens whose raw values were hidden -> what it costs to say what stood there.
Not here: hiding and the restoring layers (the encoders, endwise/nn/hiding.py)."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from endwise.modalities.masked import TERM
from endwise.nn.interface import Encoder, Head, Tokens
from endwise.nn.size import Size


class MaskedHead(Head):
    """Charges the hidden tokens of one input, by the layer that its encoder gives for what it hides. A row's loss is the
    mean over its hidden tokens, and rows count alike: how many are hidden is drawn only when the network runs."""

    def __init__(self, size: Size, *, of: str, share: float | None) -> None:
        super().__init__()
        self.of, self.share = of, share
        self.norm = nn.RMSNorm(size.width)
        self.restore: nn.Module = nn.Identity()  # until it has met the encoder

    def meet(self, encoders: Mapping[str, Encoder]) -> None:
        """From now on the input is partly hidden."""
        self.restore = encoders[self.of].restorer(self.share)

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """{'values': [batch, token, width], 'where': bool [batch, token], 'stood': [batch, token, own]}."""
        hidden = tokens.hidden[self.of]
        return {
            "values": self.norm(tokens.values[:, tokens.spans[self.of]]),
            "where": hidden.where,
            "stood": hidden.stood,
        }

    def loss(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, Float[Tensor, " batch"]]:
        """{'masked'}: per hidden token; 0 where none is. Only these are looked at: a vocabulary is long."""
        where = prediction["where"]
        cost = self.restore(prediction["values"][where], prediction["stood"][where])
        row = where.nonzero()[:, 0]
        total = torch.zeros(len(where), device=cost.device).index_add(0, row, cost)
        return {TERM: total / where.sum(1).clamp(min=1)}

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """{'cost': float32 [batch], 'places': int64 [batch], the hidden tokens}."""
        where = prediction["where"]
        cost = self.restore(prediction["values"].flatten(0, 1), prediction["stood"].flatten(0, 1))
        total = torch.where(where, cost.reshape(where.shape), 0.0).sum(1)
        return {"cost": total / where.sum(1).clamp(min=1), "places": where.sum(1)}
