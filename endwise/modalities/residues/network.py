"""The network side of a sequence of residues: a token each, and a vector for every two. Not here: the layers of pairs
(endwise/nn/pairs.py), what is made of them (modalities/structure/network.py).

What a few thousand chains teach is mostly local: which letters stand around a residue says whether it is in a helix or in
a strand. So tokens are made first, each from its neighbours and then from all others, and pairs of what they have become:
a layer of tokens costs a twentieth of a layer of pairs. Larger sizes mend the pairs here, too.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.chain import LETTERS
from endwise.nn.blocks import Block, Dropout
from endwise.nn.interface import Encoder, Tokens
from endwise.nn.pairs import FirstPairs, PairBlock, narrow_width
from endwise.nn.size import Size

REACH = 4  # residues to each side: a helix turns once in 3.6
HIDDEN_SHARE = 0.1  # of the letters in training
UNKNOWN = LETTERS.index("X")
PLAIN_DIALS = 2  # up to this size the encoder itself mends no pairs


class Neighbours(nn.Module):
    """Each token from those at most REACH away: a convolution, as one matrix product."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm, self.dropout = nn.RMSNorm(size.width), Dropout(size.dropout)
        self.inward = nn.Linear((2 * REACH + 1) * size.width, size.width)
        self.outward = nn.Linear(size.width, size.width, bias=False)

    def forward(
        self, x: Float[Tensor, "batch token width"], mask: Bool[Tensor, "batch token"]
    ) -> Float[Tensor, "batch token width"]:
        count = x.shape[1]
        padded = F.pad(torch.where(mask[..., None], self.norm(x), 0.0), (0, 0, REACH, REACH))
        around = torch.cat([padded[:, place : place + count] for place in range(2 * REACH + 1)], dim=-1)
        out: Tensor = x + self.dropout(self.outward(F.silu(self.inward(around))))
        return out


class ResiduesEncoder(Encoder):
    """Letters -> tokens, `pair`, and the letters themselves (`symbols`)."""

    peak_rate = 1e-3

    def __init__(self, size: Size) -> None:
        super().__init__()
        channels, depth = narrow_width(size), max(1, size.depth)
        self.letter = nn.Embedding(len(LETTERS), size.width)
        self.dropout = Dropout(size.dropout)
        self.near = nn.ModuleList([Neighbours(size) for _ in range(depth)])
        self.far = nn.ModuleList([Block(size) for _ in range(depth)])
        self.norm = nn.RMSNorm(size.width)
        self.pairs = FirstPairs(size.width, channels)
        self.blocks = nn.ModuleList([PairBlock(size, channels) for _ in range(size.dial - PLAIN_DIALS)])

    def forward(self, values: Int[Tensor, "batch residue"], sizes: Int[Tensor, "batch 1"]) -> Tokens:
        """A token for every residue."""
        mask = torch.arange(values.shape[1], device=values.device) < sizes
        x = self.dropout(self.letter(self._hidden(values)))
        for near, far in zip(self.near, self.far, strict=True):
            x = far(near(x, mask), mask, rotary=True)
        z = self.pairs(self.norm(x))
        for block in self.blocks:
            x, z = block(x, z, mask)
        values_of = torch.where(mask[..., None], self.norm(x), 0.0)
        return Tokens(values_of, mask, pair={"residues": z}, symbols={"residues": values})

    def _hidden(self, values: Int[Tensor, "batch residue"]) -> Int[Tensor, "batch residue"]:
        """In training some letters are unknown, so that no chain is known by a few of them."""
        if not (self.training and self.augment):
            return values
        return torch.where(torch.rand(values.shape, device=values.device) < HIDDEN_SHARE, UNKNOWN, values)

    def neutral(self, values: Tensor, sizes: Tensor, found: Tensor) -> Tensor:
        """The mean of all letters."""
        return self.letter.weight.mean(0).to(found.dtype).expand_as(found)
