"""Tokens and what is known of every two of them, each updated by the other (after the Evoformer; Jumper et al. 2021,
"Highly accurate protein structure prediction with AlphaFold"), without the alignment of relatives and kept small.

Knows no modality. Nothing here depends on padding: sums run over real tokens only.
"""

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.nn.blocks import Dropout
from endwise.nn.size import Size

FARTHEST = 32  # places along the sequence that are told apart
NEVER = -1e9


def pair_width(size: Size) -> int:
    """Channels of a pair: a quarter of the token width."""
    return max(16, size.width // 4)


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


class Triangle(nn.Module):
    """Pair ij from ik and jk of all k: three sides of a triangle have to agree (algorithms 11 and 12 of Jumper et al.)."""

    def __init__(self, channels: int, *, outgoing: bool) -> None:
        super().__init__()
        self.norm, self.norm_sum = nn.RMSNorm(channels), nn.RMSNorm(channels)
        self.sides, self.gates = nn.Linear(channels, 2 * channels), nn.Linear(channels, 2 * channels)
        self.outward, self.gate = nn.Linear(channels, channels), nn.Linear(channels, channels)
        nn.init.zeros_(self.outward.weight)
        nn.init.zeros_(self.outward.bias)
        self.rule = "bikc,bjkc->bijc" if outgoing else "bkic,bkjc->bijc"

    def forward(
        self, z: Float[Tensor, "batch token token channel"], real: Bool[Tensor, "batch token token"]
    ) -> Float[Tensor, "batch token token channel"]:
        z = self.norm(z)
        sides = self.sides(z) * self.gates(z).sigmoid() * real[..., None]
        left, right = sides.chunk(2, dim=-1)
        count = real.any(-1).sum(-1).clamp(min=1).to(z.dtype)[:, None, None, None]
        total = torch.einsum(self.rule, left, right) / count.sqrt()
        found: Tensor = self.outward(self.norm_sum(total)) * self.gate(z).sigmoid()
        return found


class PairBlock(nn.Module):
    """Tokens look at each other as their pairs say; pairs are told of by both tokens, then by triangles."""

    def __init__(self, size: Size, channels: int) -> None:
        super().__init__()
        hidden = 8 * size.width // 3 // 8 * 8 or 8
        self.heads = size.heads
        self.norm_attention, self.norm_feed = nn.RMSNorm(size.width), nn.RMSNorm(size.width)
        self.norm_pair, self.norm_token, self.norm_pair_feed = (
            nn.RMSNorm(channels),
            nn.RMSNorm(size.width),
            nn.RMSNorm(channels),
        )
        self.inward, self.outward = (
            nn.Linear(size.width, 3 * size.width, bias=False),
            nn.Linear(size.width, size.width, bias=False),
        )
        self.told = nn.Linear(channels, size.heads, bias=False)
        self.feed_in, self.feed_out = (
            nn.Linear(size.width, 2 * hidden, bias=False),
            nn.Linear(hidden, size.width, bias=False),
        )
        self.ends = nn.Linear(size.width, 2 * channels)
        self.joined = nn.Linear(2 * channels, channels)
        self.triangles = nn.ModuleList([Triangle(channels, outgoing=outgoing) for outgoing in (True, False)])
        self.pair_in, self.pair_out = nn.Linear(channels, 2 * channels), nn.Linear(2 * channels, channels)
        self.dropout = Dropout(size.dropout)

    def forward(
        self,
        x: Float[Tensor, "batch token width"],
        z: Float[Tensor, "batch token token channel"],
        mask: Bool[Tensor, "batch token"],
    ) -> tuple[Float[Tensor, "batch token width"], Float[Tensor, "batch token token channel"]]:
        x = x + self.dropout(self._attended(x, z, mask))
        gate, value = self.feed_in(self.norm_feed(x)).chunk(2, dim=-1)
        x = x + self.dropout(self.feed_out(F.silu(gate) * value))
        left, right = self.ends(self.norm_token(x)).chunk(2, dim=-1)
        left, right = left[:, :, None], right[:, None]
        z = z + self.joined(torch.cat([left * right, left - right], dim=-1))
        real = mask[:, :, None] & mask[:, None]
        for triangle in self.triangles:
            z = z + self.dropout(triangle(z, real))
        return x, z + self.pair_out(F.silu(self.pair_in(self.norm_pair_feed(z))))

    def _attended(self, x: Tensor, z: Tensor, mask: Tensor) -> Tensor:
        query, key, value = rearrange(
            self.inward(self.norm_attention(x)), "b t (three h d) -> three b h t d", three=3, h=self.heads
        )
        told = rearrange(self.told(self.norm_pair(z)), "b i j h -> b h i j").float()
        scores = (query.float() @ key.float().transpose(-1, -2)) * query.shape[-1] ** -0.5 + told
        share = torch.where(mask[:, None, None], scores, NEVER).softmax(-1).to(value.dtype)
        found: Tensor = self.outward(rearrange(share @ value, "b h t d -> b t (h d)"))
        return found
