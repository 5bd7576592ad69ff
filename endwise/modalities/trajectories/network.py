"""The network side of trajectories: agents to tokens in their own frames, tokens to several futures each.

Every future begins as the last pace turned and made faster or slower by a fixed amount (after the anchors of MultiPath; Chai et al.
2019), so that they differ before anything is learnt and none dies; the first is constant velocity itself. Not here: frames and
attention (endwise/nn/agents.py), reading and writing (__init__.py).
"""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.errors import require
from endwise.modalities.trajectories import TrajectoriesContract
from endwise.nn.agents import AgentBlock, Relations, length, poses, turned, turned_back
from endwise.nn.blocks import Dropout
from endwise.nn.interface import Aim, Encoder, Head, Tokens
from endwise.nn.scalars import exact, fit_temperature, full_precision
from endwise.nn.size import Size

FIRST_WEIGHT = 1e-2
WIDEST_TURN = math.pi / 3  # over all steps, of the futures before anything is learnt
SLOWEST, FASTEST = 0.2, 1.4  # of the last pace
GOLDEN = (math.sqrt(5) - 1) / 2
CHANCES = 0.3  # what the chances count in the loss
LEAST_SPREAD = 0.05  # of the mixture, in usual steps: a density without bounds teaches nothing more
WINDOW_PASSES = 20  # neighbouring windows share all steps but one


class AgentEncoder(Encoder):
    """Positions [batch, agent, step, 2] in metres with NaN where one is missing, and sizes [batch, 1] -> a token for each agent.

    `augment` False: who stands faces along the first axis in training, too.
    """

    passes = WINDOW_PASSES
    colours = 1

    def __init__(self, contract: TrajectoriesContract, size: Size) -> None:
        super().__init__()
        self.step_m = contract.step_m
        self.inward = nn.Linear(5 * contract.steps + 3, size.width)
        self.again = nn.Linear(size.width, size.width)
        self.relations = Relations(size, contract.step_m)
        self.dropout = Dropout(size.dropout)
        self.blocks = nn.ModuleList([AgentBlock(size) for _ in range(size.depth)])
        self.norm = nn.RMSNorm(size.width)

    def neutral(self, values: Tensor, sizes: Int[Tensor, "batch 1"], found: Tensor) -> Tensor:
        """Everybody stands where they were last seen."""
        there = ~torch.isnan(found).any(-1)
        step = torch.arange(found.shape[2], device=found.device)
        last = torch.where(there, step, -1).amax(2).clamp(min=0)
        place = found.gather(2, last[:, :, None, None].expand(-1, -1, 1, 2))
        return place.expand_as(found)

    def forward(self, values: Float[Tensor, "batch agent step 2"], sizes: Int[Tensor, "batch 1"]) -> Tokens:
        with full_precision(values):
            values = values.float()
            real = torch.arange(values.shape[1], device=values.device) < sizes
            there = real[..., None] & ~torch.isnan(values).any(-1)
            points = torch.where(there[..., None], values, 0.0)
            own = poses(points, there, chance=self.training and self.augment)
            seen = turned_back(points - own.origin[:, :, None], own.facing[:, :, None]) / self.step_m
            both = there & torch.cat([torch.zeros_like(there[..., :1]), there[..., :-1]], dim=-1)
            moves = seen - torch.cat([seen[:, :, :1], seen[:, :, :-1]], dim=2)
            steps = torch.cat(
                [
                    torch.where(there[..., None], torch.tanh(seen / 8), 0.0),
                    torch.where(both[..., None], moves, 0.0),
                    there[..., None].float(),
                ],
                dim=-1,
            )
            told = torch.cat([steps.flatten(2), own.pace / self.step_m, own.late[..., None]], dim=-1)
            pair = self.relations(own)
        x = self.dropout(self.again(F.silu(self.inward(told)))).float()
        for block in self.blocks:
            x = block(x, pair, real)
        return Tokens(values=self.norm(x), mask=real, poses={"agents": own})


class FuturesHead(Head):
    """Positions in metres: `futures` ways on for each agent, and a score for each. The loss, over the agents and steps that are
    known and in usual steps: how far the first is off ('path'), the nearest ('futures'; of a mixture its surprisal instead), and
    for a winner how surprising it is that this one is ('chances')."""

    anchors: Tensor
    temperature: Tensor

    def __init__(
        self,
        contract: TrajectoriesContract,
        size: Size,
        *,
        on: str,
        futures: int,
        learn: Literal["winner", "mixture"],
    ) -> None:
        super().__init__()
        self.on, self.steps, self.futures, self.learn, self.step_m = on, contract.steps, futures, learn, contract.step_m
        self.norm = nn.RMSNorm(size.width)
        self.inward = nn.Linear(size.width, size.width)
        self.way = nn.Parameter(torch.randn(futures, size.width))
        self.between = nn.Linear(size.width, size.width)
        self.dropout = Dropout(size.dropout)
        self.outward = nn.Linear(size.width, 2 * self.steps)
        self.score = nn.Linear(size.width, 1)
        nn.init.normal_(self.outward.weight, std=FIRST_WEIGHT / math.sqrt(size.width))
        nn.init.zeros_(self.outward.bias)
        self.spread = nn.Parameter(torch.arange(1, self.steps + 1).float().sqrt()) if learn == "mixture" else None
        self.register_buffer("anchors", first_ways(futures, self.steps), persistent=False)
        self.register_buffer("temperature", torch.ones(()))

    def meet(self, encoders: Mapping[str, Encoder]) -> None:
        """The input has agents."""
        require(
            isinstance(encoders[self.on], AgentEncoder), field="Trajectories.on", got=self.on,
            allowed="an input of type: trajectories that is read by its own encoder", fix="name another one",
        )  # fmt: skip

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """{'paths': float32 [batch, agent, future, step, 2], 'scores': [batch, agent, future], 'size': int64 [batch]}."""
        span, own = tokens.spans[self.on], tokens.poses[self.on]
        hidden = F.silu(self.inward(self.norm(tokens.values[:, span])))
        each = F.silu(self.between(hidden[:, :, None] * (1 + self.way) + self.way))
        each = self.dropout(each)
        moves = rearrange(exact(self.outward, each), "b n k (t c) -> b n k t c", c=2).cumsum(-2) * self.step_m
        with full_precision(moves):
            going = torch.einsum("ktij,bnj->bnkti", self.anchors, own.pace)
            going = going + (own.late[..., None] * own.pace)[:, :, None, None]
            paths = own.origin[:, :, None, None] + turned(going + moves, own.facing[:, :, None, None])
        return {"paths": paths, "scores": exact(self.score, each)[..., 0], "size": tokens.mask[:, span].sum(1)}

    def loss(
        self, prediction: dict[str, Tensor], target: Float[Tensor, "batch agent step 2"], sizes: Int[Tensor, "batch 1"]
    ) -> dict[str, Float[Tensor, " batch"]]:
        """{'path', 'futures'} and of a winner {'chances'}. Where a row has no target what both have is compared."""
        apart, there = self._apart(prediction, target, sizes)
        known = there.any(-1)
        mean = apart.sum(-1) / there.sum(-1).clamp(min=1)[..., None]
        scores = prediction["scores"][:, : apart.shape[1]].float()
        found = {"path": mean[..., 0]}
        if self.spread is not None:
            wide = F.softplus(self.spread) + LEAST_SPREAD
            steps = torch.where(there[:, :, None], apart / wide + 2 * wide.log(), 0.0).sum(-1)
            surprise = -(scores.log_softmax(-1) - steps).logsumexp(-1)
            found["futures"] = surprise / there.sum(-1).clamp(min=1)
        else:
            nearest = mean.detach().argmin(-1, keepdim=True)
            found["futures"] = mean.gather(-1, nearest)[..., 0]
            found["chances"] = -CHANCES * scores.log_softmax(-1).gather(-1, nearest)[..., 0]
        count = known.sum(1).clamp(min=1)
        return {name: torch.where(known, each, 0.0).sum(1) / count for name, each in found.items()}

    def _apart(
        self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor
    ) -> tuple[Float[Tensor, "batch agent future step"], Tensor]:
        """How far each step of each future is off, in usual steps (0 where nobody knows), and which are known."""
        count = min(prediction["paths"].shape[1], target.shape[1])
        made, target = prediction["paths"][:, :count].float(), target[:, :count].float()
        real = torch.arange(count, device=made.device) < torch.minimum(prediction["size"], sizes[:, 0])[:, None]
        there = real[..., None] & ~torch.isnan(target).any(-1)
        truth = torch.where(there[..., None], target, 0.0)
        apart = length((made - truth[:, :, None]) / self.step_m)
        return torch.where(there[:, :, None], apart, 0.0), there

    def weight(self, target: Tensor, sizes: Int[Tensor, "batch 1"]) -> Float[Tensor, " batch"]:
        """The agents of which something is known."""
        real = torch.arange(target.shape[1], device=target.device) < sizes
        return (real & ~torch.isnan(target).any(-1).all(-1)).sum(1).float()

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """{'paths': [batch, agent, future, step, 2], 'chances': [batch, agent, future], 'size': int64 [batch]}."""
        chances = (prediction["scores"].float() / self.temperature).softmax(-1)
        return {"paths": prediction["paths"].float(), "chances": chances, "size": prediction["size"]}

    def aim(self, prediction: dict[str, Tensor], about: tuple[int, ...]) -> Aim:
        """How far one agent gets along the way that its likeliest path leads, in metres."""
        path = prediction["paths"][0, about[0], 0].float()
        ahead = F.normalize(path[-1] - path[0], dim=0, eps=1e-6)
        return lambda other: other["paths"][:, about[0], 0, -1].float() @ ahead

    @torch.no_grad()
    def calibrate(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, float]:
        """The temperature at which the chances are those of being the nearest."""
        apart, there = self._apart(prediction, target, sizes)
        known = there.any(-1)
        nearest = apart.sum(-1).argmin(-1)[known]
        scores = prediction["scores"][:, : apart.shape[1]].float()[known]

        def cost(temperature: float) -> float:
            return float(F.cross_entropy(scores / temperature, nearest))

        self.temperature.fill_(fit_temperature(cost, len(nearest)))
        return {"temperature": float(self.temperature)}


def first_ways(futures: int, steps: int) -> Float[Tensor, "future step 2 2"]:
    """What each future makes of the last pace before anything is learnt, as matrices: where it is after each step. The first goes
    on as it is; the others turn and go faster or slower by amounts spread evenly (a golden-ratio sequence)."""
    order = torch.arange(futures, dtype=torch.float64)
    turn = WIDEST_TURN * (2 * (order * GOLDEN % 1) - 1)
    factor = SLOWEST + (FASTEST - SLOWEST) * ((order + 0.5) / futures)
    turn[0], factor[0] = 0.0, 1.0
    angle = turn[:, None] * torch.arange(1, steps + 1) / steps
    cos, sin = factor[:, None] * angle.cos(), factor[:, None] * angle.sin()
    each = torch.stack([torch.stack([cos, -sin], dim=-1), torch.stack([sin, cos], dim=-1)], dim=-2)
    return each.cumsum(1).float()


__all__ = ["AgentEncoder", "FuturesHead", "first_ways"]
