"""Tokens and what is known of every two of them, each updated by the other (after the Evoformer; Jumper et al. 2021,
"Highly accurate protein structure prediction with AlphaFold"), without the alignment of relatives and kept small.

Pairs are many: of 64 tokens 4,096. What they cost on a CPU is reading and writing them, not the products; so a block
reads them through one norm, says all that it has to say in one layer, and both triangles run side by side. Their norms are
LayerNorms, whose backward pass is one kernel.

Knows no modality. Nothing here depends on padding: sums run over real tokens only.
"""

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.nn.blocks import Dropout, FeedForward
from endwise.nn.size import Size

FARTHEST = 32  # places along the sequence that are told apart
NEVER = -1e9


def pair_width(size: Size) -> int:
    """Channels of a pair where there are few: a quarter of the token width."""
    return max(16, size.width // 4)


def narrow_width(size: Size) -> int:
    """Channels of a pair where every two of many tokens are one: an eighth of the token width."""
    return max(16, size.width // 8)


class FirstPairs(nn.Module):
    """Tokens -> pairs: what both say, and how far apart they stand along the sequence."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(width, channels), nn.Linear(width, channels)
        self.apart = nn.Embedding(2 * FARTHEST + 1, channels)

    def forward(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token token channel"]:
        place = torch.arange(x.shape[1], device=x.device)
        apart = (place[None] - place[:, None]).clamp(-FARTHEST, FARTHEST) + FARTHEST
        found: Tensor = self.left(x)[:, :, None] + self.right(x)[:, None] + self.apart(apart)
        return found


class PairBlock(nn.Module):
    """Tokens look at each other as their pairs say; pairs are told of by both tokens, then by triangles: pair ij from ik and
    jk of all k, and from ki and kj, since three sides of a triangle have to agree (algorithms 11 and 12 of Jumper et al.)."""

    def __init__(self, size: Size, channels: int) -> None:
        super().__init__()
        self.heads, self.sides = size.heads, max(4, channels // 2)
        self.norm_attention = nn.RMSNorm(size.width)
        self.norm_told, self.norm_pair, self.norm_sum, self.norm_pair_feed = (
            nn.LayerNorm(channels),
            nn.LayerNorm(channels),
            nn.LayerNorm(2 * self.sides),
            nn.LayerNorm(channels),
        )
        self.norm_token = nn.RMSNorm(size.width)
        self.inward, self.outward = (
            nn.Linear(size.width, 3 * size.width, bias=False),
            nn.Linear(size.width, size.width, bias=False),
        )
        self.told = nn.Linear(channels, size.heads, bias=False)
        self.feed_forward = FeedForward(size)
        self.ends, self.joined = nn.Linear(size.width, 4 * channels), nn.Linear(channels, channels)
        self.triangles = nn.Linear(channels, 4 * self.sides + channels)
        self.summed = nn.Linear(2 * self.sides, channels)
        nn.init.zeros_(self.summed.weight)
        nn.init.zeros_(self.summed.bias)
        self.pair_in, self.pair_out = nn.Linear(channels, 2 * channels), nn.Linear(2 * channels, channels)
        self.dropout = Dropout(size.dropout)

    def forward(
        self,
        x: Float[Tensor, "batch token width"],
        z: Float[Tensor, "batch token token channel"],
        mask: Bool[Tensor, "batch token"],
    ) -> tuple[Float[Tensor, "batch token width"], Float[Tensor, "batch token token channel"]]:
        x = x + self.dropout(self._attended(x, z, mask))
        x = self.feed_forward(x)
        left, right, first, second = self.ends(self.norm_token(x)).chunk(4, dim=-1)
        z = z + self.joined(left[:, :, None] * right[:, None]) + first[:, :, None] + second[:, None]
        z = z + self._agreed(z, mask)
        return x, z + self.pair_out(F.silu(self.pair_in(self.norm_pair_feed(z))))

    def _attended(self, x: Tensor, z: Tensor, mask: Tensor) -> Tensor:
        query, key, value = rearrange(
            self.inward(self.norm_attention(x)), "b t (three h d) -> three b h t d", three=3, h=self.heads
        )
        told = rearrange(self.told(self.norm_told(z)), "b i j h -> b h i j").float()
        scores = (query.float() @ key.float().transpose(-1, -2)) * query.shape[-1] ** -0.5 + told
        share = torch.where(mask[:, None, None], scores, NEVER).softmax(-1).to(value.dtype)
        found: Tensor = self.outward(rearrange(share @ value, "b h t d -> b t (h d)"))
        return found

    def _agreed(self, z: Tensor, mask: Tensor) -> Tensor:
        """What the triangles over each pair say."""
        said: Tensor = self.triangles(self.norm_pair(z))
        sides = rearrange(said[..., : 4 * self.sides], "b i j c -> b c i j") * (
            mask[:, None, :, None] & mask[:, None, None]
        )
        left, right, below, above = sides.chunk(4, dim=1)
        # ik and jk; ki and kj
        total = torch.cat([left @ right.transpose(-1, -2), below.transpose(-1, -2) @ above], dim=1)
        total = total / mask.sum(1).clamp(min=1).to(total.dtype).sqrt()[:, None, None, None]
        found: Tensor = self.summed(self.norm_sum(rearrange(total, "b c i j -> b i j c")))
        return found * said[..., 4 * self.sides :].sigmoid()
