"""Hiding parts of an input and saying what stood there: what masked prediction is made of, knowing no modality.

Here: which places are hidden, and the layers that are charged for what they say of them. Not here: what a hidden place
looks like to an encoder (each encoder knows), and whose loss it is (modalities/masked).
"""

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

GOLDEN = 0.6180339887498949  # multiples of it, without their whole part, fill [0, 1) evenly from the first on
STAND_IN = "stand_in"  # what an encoder calls the weights that only hidden places need
PADDING = -1  # a symbol that nobody is asked for


def hidden_places(
    real: Bool[Tensor, "batch place"], share: float, *, training: bool, longest: int = 1
) -> Bool[Tensor, "batch place"]:
    """About `share` of each row's real places, at least one where there is any; in stretches of up to `longest`, and of
    no more than a quarter of the row.

    In training they are drawn anew each time. Else they depend on the place alone, so that a row is always asked for the
    same and two networks can be compared; a row alone is asked for the same as among longer ones.
    """
    batch, count = real.shape
    place = torch.arange(count, device=real.device)
    stretch = (real.sum(1, keepdim=True) // 4).clamp(1, longest)
    if training:
        first = (torch.rand(batch, 1, device=real.device) * stretch).long()
        keys = torch.rand(batch, count, device=real.device)
        keys = keys.gather(1, ((place + first) // stretch).clamp(max=count - 1))
    else:
        keys = ((place // stretch + 1) * GOLDEN) % 1
    keys = torch.where(real, keys, 2.0)
    return real & ((keys < share) | (keys <= keys.amin(1, keepdim=True)))


class SymbolRestorer(nn.Module):
    """Which symbols stood there: cross-entropy over a table of vectors that belongs to the encoder (tied; Press & Wolf
    2017), so that what is learnt about a symbol from its neighbours is in the vector that reading it gives."""

    def __init__(self, table: nn.Embedding, symbols: int, *, gain: float) -> None:
        """symbols: that many stand at one place. gain: how many times the encoder reads a vector of the table. It is as many times
        here, or the table would grow to a scale that the task afterwards, which moves it by small steps, cannot change."""
        super().__init__()
        self.symbols, self.gain = symbols, gain
        self.change = nn.Linear(table.embedding_dim, symbols * table.embedding_dim)
        self.norm = nn.RMSNorm(table.embedding_dim)
        self.table = table
        self.bias = nn.Parameter(torch.zeros(table.num_embeddings))

    def forward(self, values: Float[Tensor, "place w"], stood: Int[Tensor, "place symbol"]) -> Float[Tensor, " place"]:
        """Nats a symbol; PADDING costs nothing."""
        hidden = rearrange(
            F.silu(self.change(values)).float(), "place (symbol w) -> place symbol w", symbol=self.symbols
        )
        logits = F.linear(self.gain * self.norm(hidden), self.table.weight, self.bias).float()
        asked = stood != PADDING
        cost = -logits.log_softmax(-1).gather(2, stood.clamp(min=0)[..., None])[..., 0]
        return torch.where(asked, cost, 0.0).sum(1) / asked.sum(1).clamp(min=1)


class NumberRestorer(nn.Module):
    """Which numbers stood there: their mean squared error. Numbers of deviation 1 cost 1 when nothing is known."""

    def __init__(self, width: int, numbers: int) -> None:
        super().__init__()
        self.say = nn.Linear(width, numbers)

    def forward(
        self, values: Float[Tensor, "place w"], stood: Float[Tensor, "place number"]
    ) -> Float[Tensor, " place"]:
        """Mean over a place's numbers."""
        cost: Tensor = (self.say(values).float() - stood.float()).square().mean(1)
        return cost
