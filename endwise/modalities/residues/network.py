"""The network side of a sequence of residues: a token each, and a vector for every two. Not here: the layers
(endwise/nn/pairs.py), what is made of them (modalities/structure/network.py)."""

import torch
from jaxtyping import Int
from torch import Tensor, nn

from endwise.chain import LETTERS
from endwise.nn.blocks import Dropout
from endwise.nn.interface import Encoder, Tokens
from endwise.nn.pairs import FirstPairs, PairBlock, pair_width
from endwise.nn.size import Size


class ResiduesEncoder(Encoder):
    """Letters -> tokens, `pair`, and the letters themselves (`symbols`)."""

    peak_rate = 1e-3

    def __init__(self, size: Size) -> None:
        super().__init__()
        channels = pair_width(size)
        self.letter = nn.Embedding(len(LETTERS), size.width)
        self.dropout = Dropout(size.dropout)
        self.pairs = FirstPairs(size.width, channels)
        self.blocks = nn.ModuleList([PairBlock(size, channels) for _ in range(max(1, size.depth))])
        self.norm = nn.RMSNorm(size.width)

    def forward(self, values: Int[Tensor, "batch residue"], sizes: Int[Tensor, "batch 1"]) -> Tokens:
        """A token for every residue."""
        mask = torch.arange(values.shape[1], device=values.device) < sizes
        x = self.dropout(self.letter(values))
        z = self.pairs(x)
        for block in self.blocks:
            x, z = block(x, z, mask)
        values_of = torch.where(mask[..., None], self.norm(x), 0.0)
        return Tokens(values_of, mask, pair={"residues": z}, symbols={"residues": values})

    def neutral(self, values: Tensor, sizes: Tensor, found: Tensor) -> Tensor:
        """The mean of all letters."""
        return self.letter.weight.mean(0).to(found.dtype).expand_as(found)
