"""Layers that know no modality: the pre-norm transformer that trunks and several encoders share, and the perceptron of rows
whose inputs are one token each."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.nn.size import Size

WIDEST = 8192  # numbers of a row that a perceptron reads: a weight for each of them in each place of its first layer


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014) from random bytes: on a CPU four times as fast as torch's, which draws a number of
    32 bits for every element. The share is a multiple of 1/256 there, and what is left is scaled by exactly that."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        if not self.training or self.share == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.share)
        count, dropped = x.numel(), round(256 * self.share)
        words = torch.empty(-(-count // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = (words.view(torch.uint8)[:count] >= dropped).view(x.shape)
        return x * kept.to(x.dtype).mul_(256 / (256 - dropped))


class Residual(nn.Module):
    """x + MLP(RMSNorm(x)): what lets one token's parts act on each other (Gorishniy et al. 2021, "Revisiting Deep
    Learning Models for Tabular Data")."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.inward, self.outward = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """The same shape."""
        out: Tensor = x + self.outward(self.dropout(F.silu(self.inward(self.norm(x)))))
        return out


class FeedForward(nn.Module):
    """x + a gated layer of RMSNorm(x) (SwiGLU, Shazeer 2020, "GLU Variants Improve Transformer"), with dropout. times: a layer
    without a gate that has as many weights would be so many times as wide inside."""

    def __init__(self, size: Size, norm: Callable[[int], nn.Module] = nn.RMSNorm, *, times: int = 4) -> None:
        super().__init__()
        hidden = 2 * times * size.width // 3 // 8 * 8 or 8
        self.norm = norm(size.width)
        self.inward = nn.Linear(size.width, 2 * hidden, bias=False)
        self.outward = nn.Linear(hidden, size.width, bias=False)
        self.dropout = Dropout(size.dropout)

    def forward(self, x: Float[Tensor, "*any width"]) -> Float[Tensor, "*any width"]:
        gate, value = parts(self.inward, self.norm(x), 2)
        out: Tensor = x + self.dropout(self.outward(F.silu(gate) * value))
        return out


class Attention(nn.Module):
    """Multi-head self-attention over real tokens, with rotary positions where `rotary` (Su et al. 2021). No dropout of the
    attention itself: the fused kernels have none, and without them long rows take several times as long."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inward = nn.Linear(width, 3 * width, bias=False)
        self.outward = nn.Linear(width, width, bias=False)

    def forward(
        self,
        x: Float[Tensor, "batch token width"],
        mask: Bool[Tensor, "batch token"],
        *,
        causal: bool = False,
        rotary: bool = False,
    ) -> Float[Tensor, "batch token width"]:
        query, key, value, sees = self._asked(x, mask, causal, rotary)
        mixed = attend(query, key, value, sees)
        out: Tensor = self.outward(rearrange(mixed, "b h t d -> b t (h d)"))
        return out

    def weights(
        self,
        x: Float[Tensor, "batch token width"],
        mask: Bool[Tensor, "batch token"],
        *,
        causal: bool = False,
        rotary: bool = False,
    ) -> Float[Tensor, "batch head token place"]:
        """How much each token takes from each, as `forward` mixes them: 1 together."""
        query, key, _, sees = self._asked(x, mask, causal, rotary)
        scores = torch.einsum("bhtd,bhpd->bhtp", query, key) * query.shape[-1] ** -0.5
        found: Tensor = scores.masked_fill(~sees, -torch.inf).softmax(-1)
        return found

    def _asked(self, x: Tensor, mask: Tensor, causal: bool, rotary: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries, keys and values [batch, head, token, d], and who sees whom."""
        query, key, value = (rearrange(part, "b t (h d) -> b h t d", h=self.heads) for part in parts(self.inward, x, 3))
        if rotary:
            query, key = rotate(query), rotate(key)
        allowed = mask[:, None, None, :]
        if causal:
            count = x.shape[1]
            allowed = allowed & torch.ones(count, count, dtype=torch.bool, device=x.device).tril()
        return query, key, value, allowed


class Block(nn.Module):
    """Pre-norm attention and a gated feed-forward, each with dropout on its branch."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm_attention = nn.RMSNorm(size.width)
        self.attention = Attention(size.width, size.heads)
        self.feed_forward = FeedForward(size)
        self.dropout = Dropout(size.dropout)

    def forward(self, x: Tensor, mask: Tensor, *, causal: bool = False, rotary: bool = False) -> Tensor:
        x = x + self.dropout(self.attention(self.norm_attention(x), mask, causal=causal, rotary=rotary))
        out: Tensor = self.feed_forward(x)
        return out


class Transformer(nn.Module):
    """`size.depth` blocks and a last norm. Padding never changes a real token."""

    def __init__(self, size: Size, *, causal: bool, rotary: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(size) for _ in range(size.depth)])
        self.norm = nn.RMSNorm(size.width)
        self.causal, self.rotary = causal, rotary

    def forward(
        self, x: Float[Tensor, "batch token width"], mask: Bool[Tensor, "batch token"]
    ) -> Float[Tensor, "batch token width"]:
        for block in self.blocks:
            x = block(x, mask, causal=self.causal, rotary=self.rotary)
        out: Tensor = self.norm(x)
        return out


class Perceptron(nn.Module):
    """Rows that are one token an input, always the same ones: the tokens side by side, and the sum of the products of every
    two of them (a factorisation machine, Rendle 2010), through `size.depth` gated layers of twice the width; what those say
    of the row is added to each token (after DeepFM, Guo et al. 2017). Attention computes every layer once for each token;
    on four tables this says as much in a fraction of the time (docs/benchmarks.md). Tokens
    that would be longer than WIDEST together are made narrower first. reads: the names of the inputs, whose weights these are."""

    def __init__(self, size: Size, reads: Sequence[str]) -> None:
        super().__init__()
        self.reads = tuple(reads)
        row, narrow = replace(size, width=2 * size.width), min(size.width, max(1, WIDEST // len(reads)))
        self.norm_tokens, self.norm_products = nn.RMSNorm(size.width), nn.RMSNorm(size.width)
        self.narrow = nn.Identity() if narrow == size.width else nn.Linear(size.width, narrow, bias=False)
        self.inward = nn.Linear(len(reads) * narrow, row.width)
        self.products = nn.Linear(size.width, row.width, bias=False)  # its own: they would drown among many tokens
        self.blocks = nn.ModuleList([FeedForward(row, times=1) for _ in range(size.depth)])
        self.norm_row, self.outward = nn.RMSNorm(row.width), nn.Linear(row.width, size.width)
        self.norm = nn.RMSNorm(size.width)

    def forward(
        self, x: Float[Tensor, "batch token width"], mask: Bool[Tensor, "batch token"]
    ) -> Float[Tensor, "batch token width"]:
        """mask: all True, since a learnt token stands in for what is missing."""
        tokens = self.norm_tokens(x)
        pairs = self.norm_products((tokens.sum(1).square() - tokens.square().sum(1)) / 2)
        row = self.inward(self.narrow(tokens).flatten(1)).float() + self.products(pairs)  # in float32: layers add to it
        for block in self.blocks:
            row = block(row)
        out: Tensor = self.norm(x + self.outward(self.norm_row(row)).unsqueeze(1))
        return out


def read_by(trunk: nn.Module | None) -> tuple[str, ...]:
    """The inputs that a trunk has weights of their own for, in their order: none, but of a perceptron."""
    return trunk.reads if isinstance(trunk, Perceptron) else ()


def parts(layer: nn.Linear, x: Float[Tensor, "*any width"], count: int) -> tuple[Float[Tensor, "*any part"], ...]:
    """What a layer without bias says, in equal parts. Of an exported graph each is a product of its own: there cutting one
    up is a copy of all of it, which took a tenth to a quarter of the time of a small transformer."""
    if torch.compiler.is_exporting() and type(layer) is nn.Linear:
        width = layer.weight.shape[0] // count
        return tuple(F.linear(x, layer.weight.narrow(0, part * width, width)) for part in range(count))
    return tuple(layer(x).chunk(count, dim=-1))


def attend(
    query: Float[Tensor, "batch head token d"],
    key: Float[Tensor, "batch head place d"],
    value: Float[Tensor, "batch head place d"],
    sees: Bool[Tensor, "batch #head #token place"],
) -> Float[Tensor, "batch head token d"]:
    """Scaled dot-product attention by the fused kernel. On a CPU always in float32: its bf16 kernel was measured 2 to 10
    times slower forward and backward, which ate all that bf16 gains in the matrix products around it."""
    kind = query.device.type
    if kind == "cpu" and torch.is_autocast_enabled(kind):
        with torch.autocast(kind, enabled=False):
            query, key, value = query.float(), key.float(), value.float()
            return F.scaled_dot_product_attention(query, key, value, attn_mask=sees)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=sees)


def rotate(
    x: Float[Tensor, "batch head token d"], positions: Int[Tensor, "batch token"] | None = None
) -> Float[Tensor, "batch head token d"]:
    """Rotary position embedding: pairs of channels turned by an angle that grows with the position (default: 0, 1 ...)."""
    half = x.shape[-1] // 2
    rates = 10_000.0 ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    if positions is None:
        angles = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32)[:, None] * rates
    else:
        angles = positions[:, None, :, None].float() * rates
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    left, right = x[..., :half], x[..., half:]
    return torch.cat([left * cos - right * sin, left * sin + right * cos], dim=-1)
