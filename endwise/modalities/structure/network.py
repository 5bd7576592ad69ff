"""The network side of chains: tokens and pairs of residues -> where each lies.

At each residue the chain turns in one of a few ways or in a mixture of them, and is laid along these turns (AlQuaraishi
2019, "End-to-End Differentiable Learning of Protein Structure"), so that neighbours are a bond apart and a helix winds to the
right. Then it is relaxed: every two residues draw and push each other to the distance that their pair expects, by the steps of
stress majorisation (de Leeuw 1977), which is how a chain gets dense; and the answer is read again and mended (recycling;
Jumper et al. 2021). Not here: the geometry (geometry.py), pairs (endwise/nn/pairs.py).
"""

import contextlib
import itertools
import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.modalities.structure import geometry
from endwise.nn.interface import Aim, Head, Tokens
from endwise.nn.pairs import PairBlock, narrow_width
from endwise.nn.scalars import exact, full_precision
from endwise.nn.size import Size

HELIX = (
    math.radians(50.0),
    math.radians(89.0),
)  # twist and bend from residue to residue: what an untrained network says
TWISTS, BENDS = 16, (HELIX[1], math.radians(60.0))  # kinds of turns: the first is that of a helix
LIKELY = 2.7  # log-odds of a helix against any other kind, before anything is learnt
SHARPNESS = 3.0  # of a mixture of turns: between two kinds lies none
ROUNDS, CLOSE = 6, 2.0  # of relaxing; angstrom below which nothing is pushed harder
BINS, NEAREST, FARTHEST = 16, 2.0, 22.0  # of distances
LDDT, DISTOGRAM, TURNS, CONFIDENCE = 2.0, 0.3, 0.3, 0.3  # what the terms count beside the frame-aligned error


def kinds() -> Float[Tensor, "kind 4"]:
    """(cos, sin) of the twist and of the bend of each kind of turn."""
    twists = [HELIX[0] + math.tau * step / TWISTS for step in range(TWISTS)]
    listed = [
        [math.cos(twist), math.sin(twist), math.cos(bend), math.sin(bend)]
        for bend, twist in itertools.product(BENDS, twists)
    ]
    return torch.tensor(listed)


class Turns(nn.Module):
    """Tokens -> the turn at each residue: a mixture of kinds, and a little of its own."""

    known: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.inward = nn.RMSNorm(width), nn.Linear(width, width)
        self.kind, self.own = nn.Linear(width, TWISTS * len(BENDS)), nn.Linear(width, 4, bias=False)
        self.sharpness = nn.Parameter(torch.tensor(SHARPNESS))
        self.alphabet = nn.Parameter(kinds())
        self.register_buffer("known", kinds(), persistent=False)
        for layer in (self.kind, self.own):
            nn.init.normal_(layer.weight, std=1e-2)
        with torch.no_grad():
            self.kind.bias.zero_()
            self.kind.bias[0] = LIKELY

    def forward(self, token: Float[Tensor, "batch residue width"]) -> tuple[Tensor, Tensor]:
        """(cos and sin of twist and bend [batch, residue, 4], logits of the kinds [batch, residue, kind]), float32."""
        hidden = F.silu(exact(self.inward, self.norm(token)))
        logits = exact(self.kind, hidden)
        with full_precision(token):
            mixed = (self.sharpness * logits).softmax(-1) @ self.alphabet
        return mixed + exact(self.own, hidden), logits

    def loss(self, logits: Tensor, truth: geometry.Points, mask: geometry.Mask) -> Float[Tensor, " batch"]:
        """The cross-entropy of the kind that is nearest to the true turn. A turn is seen in four residues, from the one before
        to the second after: where one of them is missing, as at the ends, it is left out."""
        kind = (geometry.angles(truth) @ self.known.T).argmax(-1)
        inner = mask & F.pad(mask, (1, 0))[:, :-1] & F.pad(mask, (0, 1))[:, 1:] & F.pad(mask, (0, 2))[:, 2:]
        cost = F.cross_entropy(logits.float().transpose(1, 2), kind, reduction="none")
        return torch.where(inner, cost, 0.0).sum(1) / inner.sum(1).clamp(min=1)


class Relaxing(nn.Module):
    """What the pairs know of distances, and the chain moved to agree with it: turning the chain turns the moves. It begins as
    standing still."""

    middles: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.expected, self.lead = nn.LayerNorm(channels), nn.Linear(channels, BINS), nn.Linear(channels, 3)
        nn.init.zeros_(self.lead.weight)
        nn.init.zeros_(self.lead.bias)
        self.register_buffer("middles", middles(), persistent=False)

    def forward(
        self, x: geometry.Points, z: Float[Tensor, "batch residue residue channel"], mask: geometry.Mask
    ) -> tuple[geometry.Points, Tensor]:
        """(points, logits of binned distances [batch, residue, residue, bin]), float32."""
        both = self.norm(z + z.transpose(1, 2))
        logits = exact(self.expected, both)
        weight, trust, shift = exact(self.lead, both).unbind(-1)
        # near residues are as far apart as the turns say, the others as is expected
        laid = geometry.distances(x)
        wanted = torch.lerp((logits.softmax(-1) * self.middles).sum(-1) + shift, laid, trust.sigmoid())
        other = ~torch.eye(z.shape[1], dtype=torch.bool, device=z.device)
        weight = torch.where(mask[:, None] & mask[:, :, None] & other, weight, 0.0)
        weight = weight / (mask.sum(1)[:, None, None] + weight.abs().sum(2, keepdim=True))
        with full_precision(x):
            for _ in range(ROUNDS):
                apart = geometry.distances(x)
                pull = weight * (apart - wanted) / apart.clamp(min=CLOSE)
                x = x + pull @ x - pull.sum(2, keepdim=True) * x
        return x, logits


class StructureHead(Head):
    """Coordinates in angstrom, the middle of the chain at the origin, and for each residue the lDDT that it expects of
    itself. The loss: the frame-aligned point error, lDDT with soft thresholds, and as helpers which distances the pairs
    expect, which kind of turn each residue does, and how well it knows its own quality."""

    def __init__(self, size: Size, *, on: str, recycles: int) -> None:
        super().__init__()
        channels = narrow_width(size)
        self.on, self.recycles = on, recycles
        self.block = PairBlock(size, channels)
        if recycles:
            self.again_token, self.again_pair = nn.RMSNorm(size.width), nn.LayerNorm(channels)
            self.again_near = nn.Linear(BINS, channels)
        self.turns, self.relaxing = Turns(size.width), Relaxing(channels)
        self.norm_token, self.sure = nn.RMSNorm(size.width), nn.Linear(size.width, 1)

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """{'points': float32 [batch, residue, 3], 'size': int64 [batch], 'logits': of binned distances [batch, residue,
        residue, bin], 'kinds': logits of turns [batch, residue, kind], 'sure': logits [batch, residue], 'letters': int64
        [batch, residue]}."""
        span = tokens.spans[self.on]
        first, mask = tokens.values[:, span], tokens.mask[:, span]
        pair = torch.where(tokens.present[self.on][:, None, None, None], tokens.pair[self.on], 0.0)
        again = self.recycles
        if self.training and again:
            again = int(torch.randint(0, again + 1, ()))
        token, z = first, pair
        for _ in range(again):
            # only the last reading is learnt from
            quiet: contextlib.AbstractContextManager[Any] = (
                torch.no_grad() if self.training else contextlib.nullcontext()
            )
            with quiet:
                token, z = self.block(token, z, mask)
                points, _, _ = self._folded(token, z, mask)
            near = exact(self.again_near, nearness(geometry.distances(points)))
            token, z = first + self.again_token(token), pair + self.again_pair(z) + near
        token, z = self.block(token, z, mask)
        points, logits, kind = self._folded(token, z, mask)
        return {
            "points": points,
            "size": mask.sum(1),
            "logits": logits,
            "kinds": kind,
            "sure": exact(self.sure, self.norm_token(token))[..., 0],
            "letters": tokens.symbols[self.on],
        }

    def _folded(self, token: Tensor, z: Tensor, mask: geometry.Mask) -> tuple[geometry.Points, Tensor, Tensor]:
        """Points, logits of distances and of turns."""
        angles, kind = self.turns(token)
        x, logits = self.relaxing(geometry.composed(geometry.turned(angles)), z, mask)
        real = mask[..., None]
        middle = torch.where(real, x, 0.0).sum(1, keepdim=True) / real.sum(1, keepdim=True).clamp(min=1)
        return torch.where(real, x - middle, 0.0), logits, kind

    def loss(
        self, prediction: dict[str, Tensor], target: Float[Tensor, "batch residue 3"], sizes: Int[Tensor, "batch 1"]
    ) -> dict[str, Float[Tensor, " batch"]]:
        """{'fape', 'lddt', 'distogram', 'turns', 'confidence'}, of the residues whose place is known: it is NaN where it was
        not resolved. Where a row has no target (or one of another length; such rows are put aside before) what both have is
        compared."""
        count = min(prediction["points"].shape[1], target.shape[1])
        made, truth = prediction["points"][:, :count].float(), target[:, :count].float()
        place = torch.arange(count, device=made.device)
        mask = (place < torch.minimum(prediction["size"], sizes[:, 0])[:, None]) & truth.isfinite().all(-1)
        truth = torch.where(mask[..., None], truth, 0.0)
        found, wanted = geometry.distances(made), geometry.distances(truth)
        # the neighbours' distances are the same in all chains
        far = (place[:, None] - place).abs() > 1
        real = mask[:, :, None] & mask[:, None] & far
        logits = prediction["logits"][:, :count, :count].float()
        bins = F.cross_entropy(logits.flatten(0, 2), binned(wanted).flatten(), reduction="none")
        bins = torch.where(real, bins.reshape(real.shape), 0.0).sum((1, 2)) / real.sum((1, 2)).clamp(min=1)
        right = geometry.lddt(found.detach(), wanted, mask)
        off = (prediction["sure"][:, :count].float().sigmoid() - right).square()
        off = torch.where(mask, off, 0.0).sum(1) / mask.sum(1).clamp(min=1)
        return {
            "fape": geometry.fape(made, truth, mask),
            "lddt": LDDT * geometry.smooth_lddt(found, wanted, mask),
            "distogram": DISTOGRAM * bins,
            "turns": TURNS * self.turns.loss(prediction["kinds"][:, :count], truth, mask),
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


def middles() -> Float[Tensor, " bin"]:
    """Of the bins, in angstrom."""
    return NEAREST + (torch.arange(BINS) + 0.5) * (FARTHEST - NEAREST) / BINS


def nearness(apart: geometry.Apart) -> Float[Tensor, "batch residue residue bin"]:
    """How near a distance is to the middle of each bin: 1 there, and 0 from the next one's on."""
    steps = (apart.clamp(max=FARTHEST)[..., None] - middles().to(apart.device)) * (BINS / (FARTHEST - NEAREST))
    return (1 - steps.abs()).clamp(min=0)


def binned(apart: geometry.Apart) -> Int[Tensor, "batch residue residue"]:
    """The bin of each distance; the first and the last are open."""
    width = (FARTHEST - NEAREST) / BINS
    return ((apart - NEAREST) / width).long().clamp(0, BINS - 1)
