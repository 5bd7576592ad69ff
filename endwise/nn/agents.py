"""Layers for sets of agents in a plane that know no modality: each agent's own frame, what every two of them are to each
other in it, and attention that is told.

Everything is seen from the agents: turning or moving the whole scene changes no feature (as in HiVT, Zhou et al. 2022). Not
here: reading, the contract, the futures (modalities/trajectories).
"""

import math

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.nn.blocks import Dropout, FeedForward
from endwise.nn.interface import Poses
from endwise.nn.pairs import pair_width
from endwise.nn.size import Size

FADING = 0.5  # what a step counts for the heading beside the one after it
STANDING_M = 0.05  # who has come less far than this faces nowhere
TINY = 1e-6  # under roots, which have no slope at 0
NEVER = -1e9
NEAR_M = (0.5, 2.0, 8.0)  # distances that a pair is told at
HORIZON = 12.0  # steps ahead within which a nearest approach is looked for
OF_PAIR = 7 + 2 * len(NEAR_M)

Points = Float[Tensor, "batch agent 2"]


def turned(points: Float[Tensor, "*any 2"], facing: Float[Tensor, "*any 2"]) -> Float[Tensor, "*any 2"]:
    """Points of a frame that faces along `facing`, as the plane has them."""
    x, y = points[..., 0], points[..., 1]
    cos, sin = facing[..., 0], facing[..., 1]
    return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)


def turned_back(points: Float[Tensor, "*any 2"], facing: Float[Tensor, "*any 2"]) -> Float[Tensor, "*any 2"]:
    """The inverse of `turned`."""
    return turned(points, facing * facing.new_tensor([1.0, -1.0]))


def length(points: Float[Tensor, "*any 2"]) -> Float[Tensor, "*any"]:
    """With a slope everywhere."""
    found: Tensor = (points.square().sum(-1) + TINY).sqrt()
    return found


def poses(
    points: Float[Tensor, "batch agent step 2"], there: Bool[Tensor, "batch agent step"], *, chance: bool
) -> Poses:
    """Where each agent was seen last, which way it has come, and how fast. chance: who stands faces anywhere, drawn anew, so
    that nothing is learnt from the direction of the axes."""
    steps = torch.arange(points.shape[2], device=points.device)
    last = torch.where(there, steps, 0).amax(-1, keepdim=True)
    before = there & (steps < last)
    previous = torch.where(before, steps, 0).amax(-1, keepdim=True)
    origin, one_ago = _at(points, last), _at(points, previous)
    moved = before.any(-1, keepdim=True)
    pace = torch.where(moved, (origin - one_ago) / (last - previous).clamp(min=1), 0.0)
    share = torch.where(before, FADING ** (last - steps).clamp(min=0).float(), 0.0)[..., None]
    middle = (share * points).sum(2) / share.sum(2).clamp(min=TINY)
    come = torch.where(moved, origin - middle, 0.0)
    far = length(come)[..., None]
    if chance:
        angle = 2 * math.pi * torch.rand(far.shape, device=points.device)
        anywhere = torch.cat([angle.cos(), angle.sin()], dim=-1)
    else:
        anywhere = points.new_tensor([1.0, 0.0]).expand_as(come)
    facing = torch.where(far > STANDING_M, come / far, anywhere)
    late = (points.shape[2] - 1 - last)[..., 0].float()
    return Poses(origin, facing, turned_back(pace, facing), late)


def _at(points: Float[Tensor, "batch agent step 2"], place: Tensor) -> Points:
    return points.gather(2, place[..., None].expand(-1, -1, -1, 2))[:, :, 0]


def relations(own: Poses, step_m: float) -> Float[Tensor, "batch agent agent feature"]:
    """What j is to i, as i sees it: where, how near, which way it faces, how it moves beside i, and how near it will come if
    both go on. step_m: how long a step usually is."""
    facing = own.facing[:, :, None]
    where = turned_back(own.origin[:, None] - own.origin[:, :, None], facing)
    far = length(where)
    faces = turned_back(own.facing[:, None], facing)
    pace = turned(own.pace, own.facing)
    moves = turned_back(pace[:, None] - pace[:, :, None], facing)
    when = (-(where * moves).sum(-1) / (moves.square().sum(-1) + TINY)).clamp(0.0, HORIZON)
    nearest = length(where + when[..., None] * moves)
    near = [torch.exp(-distance / reach) for distance in (far, nearest) for reach in NEAR_M]
    told = [where / far[..., None], faces, torch.tanh(moves / (2 * step_m)), (when / HORIZON)[..., None]]
    return torch.cat([*told, torch.stack(near, dim=-1)], dim=-1)


class AgentBlock(nn.Module):
    """Agents look at each other, knowing what each is to them: it says how much and also what is seen."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        channels = pair_width(size)
        self.heads = size.heads
        self.norm_attention = nn.RMSNorm(size.width)
        self.inward = nn.Linear(size.width, 3 * size.width, bias=False)
        self.outward = nn.Linear(size.width, size.width, bias=False)
        self.told = nn.Linear(channels, size.heads, bias=False)
        self.seen = nn.Linear(size.heads * channels, size.width, bias=False)
        self.feed_forward = FeedForward(size)
        self.dropout = Dropout(size.dropout)

    def forward(
        self,
        x: Float[Tensor, "batch agent width"],
        pair: Float[Tensor, "batch agent agent channel"],
        mask: Bool[Tensor, "batch agent"],
    ) -> Float[Tensor, "batch agent width"]:
        x = x + self.dropout(self._attended(x, pair, mask))
        out: Tensor = self.feed_forward(x)
        return out

    def _attended(self, x: Tensor, pair: Tensor, mask: Tensor) -> Tensor:
        query, key, value = rearrange(
            self.inward(self.norm_attention(x)), "b t (three h d) -> three b h t d", three=3, h=self.heads
        )
        told = rearrange(self.told(pair), "b i j h -> b h i j").float()
        scores = (query.float() @ key.float().transpose(-1, -2)) * query.shape[-1] ** -0.5 + told
        share = torch.where(mask[:, None, None], scores, NEVER).softmax(-1).to(value.dtype)
        # [b i h j] @ [b i j c]: what is seen of the others, by head
        seen = share.transpose(1, 2) @ pair.to(value.dtype)
        found: Tensor = self.outward(rearrange(share @ value, "b h t d -> b t (h d)")) + self.seen(seen.flatten(2))
        return found


class Relations(nn.Module):
    """The vector of every two agents."""

    def __init__(self, size: Size, step_m: float) -> None:
        super().__init__()
        channels = pair_width(size)
        self.step_m = step_m
        self.inward, self.outward = nn.Linear(OF_PAIR, channels), nn.Linear(channels, channels)

    def forward(self, own: Poses) -> Float[Tensor, "batch agent agent channel"]:
        found: Tensor = self.outward(F.silu(self.inward(relations(own, self.step_m))))
        return found


__all__ = ["AgentBlock", "Relations", "length", "poses", "relations", "turned", "turned_back"]
