"""The network side of chains: tokens and pairs of residues -> where each lies.

The chain is laid along predicted turns from residue to residue (AlQuraishi 2019, "End-to-End Differentiable Learning of
Protein Structure"), so that neighbours are a bond apart and a helix winds to the right; residues then move towards and away
from each other as their pairs say (Satorras et al. 2021); and the answer is read again and mended (recycling; Jumper et al.
2021). Not here: the geometry (geometry.py), pairs (endwise/nn/pairs.py).
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.modalities.structure import geometry
from endwise.nn.interface import Aim, Head, Tokens
from endwise.nn.pairs import PairBlock, pair_width
from endwise.nn.scalars import exact
from endwise.nn.size import Size

HELIX = (
    math.radians(50.0),
    math.radians(89.0),
)  # twist and bend from residue to residue: what an untrained network says
MOVES, FARTHEST_MOVE = 3, 8.0  # rounds, and angstrom in each
BINS, NEAREST, FARTHEST = 32, 2.0, 22.0  # of distances
DISTOGRAM, CONFIDENCE = 0.3, 0.3  # what the helping terms count


class Mover(nn.Module):
    """Each residue goes towards some others and away from others, no farther than FARTHEST_MOVE: turning the chain turns
    the moves. It begins as standing still."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pair, self.apart = nn.Linear(channels, channels), nn.Linear(BINS, channels, bias=False)
        self.pull = nn.Linear(channels, 1, bias=False)
        nn.init.zeros_(self.pull.weight)

    def forward(self, x: geometry.Points, z: Tensor, mask: geometry.Mask) -> geometry.Points:
        """float32."""
        apart = geometry.distances(x)
        pull = exact(self.pull, F.silu(exact(self.pair, z) + exact(self.apart, near(apart))))[..., 0]
        pull = torch.where(mask[:, None] & mask[:, :, None], pull, 0.0)
        towards = (x[:, None] - x[:, :, None]) / (1 + apart[..., None])
        step = (pull[..., None] * towards).sum(2) / (1 + pull.abs().sum(2, keepdim=True))
        return x + FARTHEST_MOVE * step


class StructureHead(Head):
    """Coordinates in angstrom, the middle of the chain at the origin, and for each residue the lDDT that it expects of
    itself. The loss: the frame-aligned point error, lDDT with soft thresholds, and as helpers which distances the pairs
    expect and how well it knows its own quality."""

    def __init__(self, size: Size, *, on: str, recycles: int) -> None:
        super().__init__()
        channels = pair_width(size)
        self.on, self.recycles = on, recycles
        self.block = PairBlock(size, channels)
        self.again_token, self.again_pair = nn.RMSNorm(size.width), nn.RMSNorm(channels)
        self.again_near = nn.Linear(BINS, channels)
        self.norm_token, self.norm_pair = nn.RMSNorm(size.width), nn.RMSNorm(channels)
        self.inward, self.angles = nn.Linear(size.width, size.width), nn.Linear(size.width, 4)
        self.movers = nn.ModuleList([Mover(channels) for _ in range(MOVES)])
        self.expected = nn.Linear(channels, BINS)
        self.sure = nn.Linear(size.width, 1)
        nn.init.normal_(self.angles.weight, std=1e-2)
        with torch.no_grad():
            self.angles.bias.copy_(torch.tensor([f(angle) for angle in HELIX for f in (math.cos, math.sin)]))

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """{'points': float32 [batch, residue, 3], 'size': int64 [batch], 'logits': of binned distances [batch, residue,
        residue, bin], 'sure': logits [batch, residue], 'letters': int64 [batch, residue]}."""
        span = tokens.spans[self.on]
        first, mask = tokens.values[:, span], tokens.mask[:, span]
        pair = torch.where(tokens.present[self.on][:, None, None, None], tokens.pair[self.on], 0.0)
        rounds = 1 + self.recycles
        if self.training and self.recycles:
            rounds = int(torch.randint(1, rounds + 1, ()))
        token, points = torch.zeros_like(first), torch.zeros_like(first[..., :3])
        z = torch.zeros_like(pair)
        for turn in range(rounds):
            if self.training and turn < rounds - 1:  # only the last reading is learnt from
                with torch.no_grad():
                    token, z, points = self._folded(first, pair, mask, token, z, points)
            else:
                token, z, points = self._folded(first, pair, mask, token, z, points)
        both = self.norm_pair(z)
        return {
            "points": points,
            "size": mask.sum(1),
            "logits": exact(self.expected, both + both.transpose(1, 2)),
            "sure": exact(self.sure, self.norm_token(token))[..., 0],
            "letters": tokens.symbols[self.on],
        }

    def _folded(
        self, first: Tensor, pair: Tensor, mask: geometry.Mask, token: Tensor, z: Tensor, points: geometry.Points
    ) -> tuple[Tensor, Tensor, geometry.Points]:
        """One reading, beside what the last one found (zeros before the first)."""
        known = (points.abs().sum((1, 2)) > 0)[:, None, None, None]
        seen = torch.where(known, self.again_near(near(geometry.distances(points))), 0.0)
        token, z = self.block(first + self.again_token(token), pair + self.again_pair(z) + seen, mask)
        hidden = F.silu(exact(self.inward, self.norm_token(token)))
        x = geometry.composed(geometry.turned(exact(self.angles, hidden)))
        for mover in self.movers:
            x = mover(x, self.norm_pair(z), mask)
        real = mask[..., None]
        middle = torch.where(real, x, 0.0).sum(1, keepdim=True) / real.sum(1, keepdim=True).clamp(min=1)
        return token, z, torch.where(real, x - middle, 0.0)

    def loss(
        self, prediction: dict[str, Tensor], target: Float[Tensor, "batch residue 3"], sizes: Int[Tensor, "batch 1"]
    ) -> dict[str, Float[Tensor, " batch"]]:
        """{'fape', 'lddt', 'distogram', 'confidence'}. Where a row has no target (or one of another length; such rows are
        put aside before) what both have is compared."""
        count = min(prediction["points"].shape[1], target.shape[1])
        made, truth = prediction["points"][:, :count].float(), target[:, :count].float()
        place = torch.arange(count, device=made.device)
        mask = place < torch.minimum(prediction["size"], sizes[:, 0])[:, None]
        truth = torch.where(mask[..., None], truth, 0.0)
        # the neighbours' distances are the same in all chains
        far = (place[:, None] - place).abs() > 1
        real = mask[:, :, None] & mask[:, None] & far
        logits = prediction["logits"][:, :count, :count].float()
        bins = F.cross_entropy(logits.flatten(0, 2), binned(geometry.distances(truth)).flatten(), reduction="none")
        bins = torch.where(real, bins.reshape(real.shape), 0.0).sum((1, 2)) / real.sum((1, 2)).clamp(min=1)
        right = geometry.lddt(made.detach(), truth, mask)
        off = (prediction["sure"][:, :count].float().sigmoid() - right).square()
        off = torch.where(mask, off, 0.0).sum(1) / mask.sum(1).clamp(min=1)
        return {
            "fape": geometry.fape(made, truth, mask),
            "lddt": geometry.smooth_lddt(made, truth, mask),
            "distogram": DISTOGRAM * bins,
            "confidence": CONFIDENCE * off,
        }

    def aim(self, prediction: dict[str, Tensor], about: tuple[int, ...]) -> Aim:
        """The mean log-probability of the distances that are expected: of all pairs, or of one residue. Turning a chain
        changes none of them."""
        residues = list(about) or list(range(prediction["logits"].shape[1]))
        said = prediction["logits"][0, residues].argmax(-1)

        def surely(other: dict[str, Tensor]) -> Tensor:
            chances = other["logits"][:, residues].float().log_softmax(-1)
            return chances.gather(-1, said[None, ..., None].expand(len(chances), -1, -1, 1)).flatten(1).mean(1)

        return surely

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """{'points', 'size', 'sure': expected lDDT of each residue, 'letters'}."""
        return {
            "points": prediction["points"].float(),
            "size": prediction["size"],
            "sure": prediction["sure"].float().sigmoid(),
            "letters": prediction["letters"],
        }


def near(apart: Float[Tensor, "batch residue residue"]) -> Float[Tensor, "batch residue residue bin"]:
    """How near a distance is to each of evenly spaced ones: a bump of 1."""
    middle = torch.linspace(NEAREST, FARTHEST, BINS, device=apart.device)
    width = (FARTHEST - NEAREST) / (BINS - 1)
    return torch.exp(-((apart.clamp(max=FARTHEST)[..., None] - middle) / width).square())


def binned(apart: Float[Tensor, "batch residue residue"]) -> Int[Tensor, "batch residue residue"]:
    """The bin of each distance; the first and the last are open."""
    width = (FARTHEST - NEAREST) / BINS
    return ((apart - NEAREST) / width).long().clamp(0, BINS - 1)
