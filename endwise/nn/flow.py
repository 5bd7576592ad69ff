"""Flow matching: pictures (or any values on a grid) out of noise, along straight lines.

A network learns the velocity that carries noise x0 to a value x1 along x_t = (1 - t) x0 + t x1, whose target is x1 - x0
(Lipman et al. 2023, "Flow Matching for Generative Modeling"; Liu et al. 2022, "Flow Straight and Fast"). An answer is drawn
by following the velocity from t = 0 to 1 in a few steps; which one is a function of a seed, the same in torch and in an
exported graph. What it is told can be weighed more than it weighs itself (Ho & Salimans 2022).

Here: noise by seed, the network of velocities, the way along. Not here: what is told, pixels, losses. Knows no modality.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.nn.blocks import attend
from endwise.nn.decoder import loop

LEVELS = 3  # resolutions of the network, each half of the one before
GROUPS = 8  # of the group norms
HEAD_WIDTH = 32
SPREAD = 1000.0  # times are spread over the sines' range
WORDS, HALF_WORDS = 2**32, 2**16
MIX = 0x45D9F3B  # below 2^31: the product of two 32-bit words stays inside 64 bits
STARTS = (0x1E3779B9, 0x3C6EF372)  # of the two words of a number; 0 would stay 0
QUIET = 0.02  # deviation of the last layer's weights: almost no velocity at first, and yet a gradient for all before it

Velocity = Callable[[Tensor, Tensor], Tensor]  # (x [batch, ...], t [batch]) -> dx/dt


def noise(seeds: Int[Tensor, " batch"], shape: tuple[int, ...]) -> Float[Tensor, "batch *shape"]:
    """Standard normal numbers that only depend on a row's seed: whole-number hashes of seed and place, made normal
    (Box & Muller 1958). float32."""
    count = math.prod(shape)
    place = torch.arange(count, device=seeds.device, dtype=torch.int64)
    row = _mixed(seeds.remainder(WORDS))[:, None]
    first, second = (_mixed((_mixed(place + start) + row).remainder(WORDS)) for start in STARTS)
    radius = (-2 * ((first + 0.5) / WORDS).log()).sqrt()
    return (radius * (2 * math.pi * (second / WORDS)).cos()).reshape(-1, *shape)


def _mixed(word: Int[Tensor, "*any"]) -> Int[Tensor, "*any"]:
    """Words of 32 bits, all bits stirred into all others."""
    for _ in range(2):
        word = (word.bitwise_xor(_upper(word)) * MIX).remainder(WORDS)
    return word.bitwise_xor(_upper(word))


def _upper(word: Int[Tensor, "*any"]) -> Int[Tensor, "*any"]:
    """The upper 16 bits. Without the lower ones the division is exact in float32 too, by which a graph divides whole numbers."""
    return torch.div(word - word.remainder(HALF_WORDS), HALF_WORDS, rounding_mode="floor")


def followed(velocity: Velocity, start: Float[Tensor, "batch *shape"], steps: int) -> Float[Tensor, "batch *shape"]:
    """Where a value ends that begins at `start` and follows the velocity from t = 0 to 1, by Heun's method: two looks a
    step. One loop of the graph in an export."""

    def going(step: Tensor, _: Tensor) -> Tensor:
        return step < steps

    def further(step: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        now = (step.to(torch.float32) / steps).expand(x.shape[0])
        slope = velocity(x, now)
        ahead = velocity(x + slope / steps, now + 1 / steps)
        return step + 1, x + (slope + ahead) / (2 * steps)

    _, found = loop(going, further, (torch.zeros((), dtype=torch.int64, device=start.device), start))
    return found


class Velocities(nn.Module):
    """A small U-Net (Ronneberger et al. 2015) with the time and what is told in every block, and attention to the tokens
    of what is told where the grid is coarsest.

    width: a multiple of 8. patch: the side of the squares that one place of the finest grid stands for; the sides of a
    value are multiples of patch x 4."""

    def __init__(self, channels: int, width: int, told: int, *, patch: int) -> None:
        super().__init__()
        self.patch, self.width = patch, width
        widths = (width, 2 * width, 2 * width)
        self.time = nn.Sequential(nn.Linear(width, told), nn.SiLU(), nn.Linear(told, told))
        self.inward = nn.Conv2d(channels * patch**2, width, 3, padding=1)
        self.down = nn.ModuleList(Step(own, own, told) for own in widths[:-1])
        self.coarser = nn.ModuleList(
            nn.Conv2d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in pairwise(widths)
        )
        self.middle = nn.ModuleList([Step(widths[-1], widths[-1], told), Step(widths[-1], widths[-1], told)])
        self.look = Look(widths[-1], told)
        self.finer = nn.ModuleList(nn.Conv2d(coarse, fine, 3, padding=1) for fine, coarse in pairwise(widths))
        self.up = nn.ModuleList(Step(2 * own, own, told) for own in widths[:-1])
        self.norm = nn.GroupNorm(GROUPS, width)
        self.outward = nn.Conv2d(width, channels * patch**2, 3, padding=1)
        nn.init.normal_(self.outward.weight, std=QUIET)
        assert self.outward.bias is not None
        nn.init.zeros_(self.outward.bias)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self,
        x: Float[Tensor, "batch channel height width"],
        time: Float[Tensor, " batch"],
        told: Float[Tensor, "batch token told"],
        mask: Bool[Tensor, "batch token"],
    ) -> Float[Tensor, "batch channel height width"]:
        """dx/dt at the times, float32."""
        weight = mask[..., None].to(told.dtype)
        whole = (told * weight).sum(1) / weight.sum(1).clamp(min=1)
        state = F.silu(self.time(sines(SPREAD * time, self.width)) + whole)
        x = self.inward(F.pixel_unshuffle(x, self.patch))
        passed = []
        for step, coarser in zip(self.down, self.coarser, strict=True):
            x = step(x, state)
            passed.append(x)
            x = coarser(x)
        x = self.middle[1](self.look(self.middle[0](x, state), told, mask), state)
        for step, finer in zip(reversed(self.up), reversed(self.finer), strict=True):
            x = finer(F.interpolate(x, scale_factor=2.0, mode="nearest"))
            x = step(torch.cat([x, passed.pop()], dim=1), state)
        out = self.outward(F.silu(self.norm(x)))
        return F.pixel_shuffle(out.float(), self.patch)


class Step(nn.Module):
    """Two convolutions beside a straight way, the norm between them scaled and moved by what is known (Perez et al. 2018)."""

    def __init__(self, inward: int, outward: int, told: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(GROUPS, inward), nn.SiLU(), nn.Conv2d(inward, outward, 3, padding=1))
        self.known = nn.Linear(told, 2 * outward)
        self.norm = nn.GroupNorm(GROUPS, outward, affine=False)
        self.second = nn.Conv2d(outward, outward, 3, padding=1)
        self.straight = nn.Identity() if inward == outward else nn.Conv2d(inward, outward, 1)

    def forward(self, x: Tensor, state: Float[Tensor, "batch told"]) -> Tensor:
        """[batch, inward, height, width] -> [batch, outward, ...]."""
        scale, move = self.known(state)[..., None, None].chunk(2, dim=1)
        inside = self.norm(self.first(x)) * (1 + scale) + move
        out: Tensor = self.straight(x) + self.second(F.silu(inside))
        return out


class Look(nn.Module):
    """Every place looks at all places and at the tokens of what is told, in one attention."""

    def __init__(self, width: int, told: int) -> None:
        super().__init__()
        self.heads = next(count for count in range(max(1, width // HEAD_WIDTH), 0, -1) if width % count == 0)
        self.norm, self.heard = nn.GroupNorm(GROUPS, width), nn.LayerNorm(told)
        self.inward, self.told = nn.Linear(width, 3 * width, bias=False), nn.Linear(told, 2 * width, bias=False)
        self.outward = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, told: Float[Tensor, "batch token told"], mask: Bool[Tensor, "batch token"]) -> Tensor:
        """[batch, width, height, width], the same shape."""
        height = x.shape[2]
        places = self.norm(x).flatten(2).transpose(1, 2)
        query, key, value = self._heads(self.inward(places), 3)
        beside, of_beside = self._heads(self.told(self.heard(told)), 2)
        own = torch.ones_like(mask[:, :1]).expand(-1, places.shape[1])
        sees = torch.cat([own, mask], dim=1)[:, None, None]
        mixed = attend(query, torch.cat([key, beside], 2), torch.cat([value, of_beside], 2), sees)
        out: Tensor = self.outward(mixed.transpose(1, 2).flatten(2))
        return x + out.transpose(1, 2).reshape(x.shape[0], -1, height, x.shape[3])

    def _heads(self, x: Float[Tensor, "batch place width"], parts: int) -> tuple[Tensor, ...]:
        return rearrange(x, "b t (part h d) -> part b h t d", part=parts, h=self.heads).unbind(0)


def sines(time: Float[Tensor, " batch"], width: int) -> Float[Tensor, "batch width"]:
    """Sines and cosines of a time (Vaswani et al. 2017)."""
    half = width // 2
    rates = 10_000.0 ** (-torch.arange(half, device=time.device, dtype=torch.float32) / half)
    angles = time[:, None] * rates
    return F.pad(torch.cat([angles.sin(), angles.cos()], dim=-1), (0, width - 2 * half))
