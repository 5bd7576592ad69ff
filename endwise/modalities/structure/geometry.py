"""Points, frames and what an error in them costs, as pure functions of tensors. float32 whatever the autocast.

A frame stands on each residue, made of it and its two neighbours. What is measured in frames does not change when a chain
is turned or moved, and changes when it is mirrored.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from endwise.nn.scalars import full_precision

Points = Float[Tensor, "batch residue 3"]
Mask = Bool[Tensor, "batch residue"]
Apart = Float[Tensor, "batch residue residue"]

BOND = 3.8  # angstrom between neighbouring alpha carbons
CLAMP, UNIT = 10.0, 10.0  # angstrom: errors beyond the first count as it, and are measured in the second
UNCLAMPED = 0.05  # share of the error without the clamp: what is far off still knows where to go
INCLUSION = 15.0
THRESHOLDS = (0.5, 1.0, 2.0, 4.0)
SMALLEST = 1e-6
DOUBLINGS = 10  # 2 ** 10 residues


def composed(turns: Float[Tensor, "batch residue 3 3"]) -> Points:
    """The chain whose direction changes at each residue by the turn that stands there: residue 0 at the origin, every
    bond 3.8 angstrom along the x-axis of its frame. By doubling: the cost grows with n log n, and nothing is done one
    after another. A graph has all doublings that the longest chain needs, so each is kept to a few operations."""
    count = turns.shape[1]
    # a bond and a turn as one 4 x 4 matrix, less the identity: then what stands before the first residue is zeros
    bond = [[-1.0, 0.0, 0.0, BOND], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    moves = F.pad(turns, (0, 1, 0, 1)) + torch.tensor(bond, device=turns.device)
    with full_precision(turns):
        for power in range(DOUBLINGS if torch.compiler.is_exporting() else (count - 1).bit_length()):
            ahead = F.pad(moves, (0, 0, 0, 0, 2**power, 0))[:, :count]
            moves = ahead @ moves + ahead + moves
    return F.pad(moves[..., :3, 3], (0, 0, 1, 0))[:, :count]


def turned(angles: Float[Tensor, "batch residue 4"]) -> Float[Tensor, "batch residue 3 3"]:
    """(cos, sin) of the twist and of the bend -> the rotation: a twist about the bond, then a bend. Each pair is brought to
    length 1."""
    twist, bend = (F.normalize(part, dim=-1, eps=SMALLEST) for part in angles.chunk(2, dim=-1))
    (ct, st), (cb, sb) = twist.unbind(-1), bend.unbind(-1)
    zero = torch.zeros_like(ct)
    rows = [cb, -sb, zero, ct * sb, ct * cb, -st, st * sb, st * cb, ct]
    return torch.stack(rows, -1).reshape(*ct.shape, 3, 3)


def frames(points: Points) -> Float[Tensor, "batch residue 3 3"]:
    """A right-handed frame on each residue, by Gram and Schmidt from the steps to its neighbours; none at the ends, where
    one of them is missing. Columns are its axes."""
    step = points[:, 1:] - points[:, :-1]
    ahead, behind = F.pad(step, (0, 0, 0, 1)), F.pad(step, (0, 0, 1, 0))
    first = F.normalize(ahead, dim=-1, eps=SMALLEST)
    rest = behind - (behind * first).sum(-1, keepdim=True) * first
    second = F.normalize(rest, dim=-1, eps=SMALLEST)
    return torch.stack([first, second, torch.linalg.cross(first, second, dim=-1)], dim=-1)


def angles(points: Points) -> Float[Tensor, "batch residue 4"]:
    """(cos, sin) of the twist and of the bend at each residue: what `turned` makes a rotation of, so that `composed` lays
    such a chain again. Of the first residue there is no twist, and of the last two nothing."""
    step = F.normalize(points[:, 1:] - points[:, :-1], dim=-1, eps=SMALLEST)
    ahead, here, before = (F.pad(step, (0, 0, shift, 1 - shift)) for shift in (-1, 0, 1))
    bend = torch.stack([(here * ahead).sum(-1), torch.linalg.cross(here, ahead, dim=-1).norm(dim=-1)], dim=-1)
    # in the plane across the bond: where the chain came from, turned back, and where it goes to
    whence = F.normalize((before * here).sum(-1, keepdim=True) * here - before, dim=-1, eps=SMALLEST)
    across = torch.linalg.cross(here, whence, dim=-1)
    twist = torch.stack([(ahead * whence).sum(-1), (ahead * across).sum(-1)], dim=-1)
    return torch.cat([F.normalize(twist, dim=-1, eps=SMALLEST), bend], dim=-1)


def fape(made: Points, truth: Points, mask: Mask) -> Float[Tensor, " batch"]:
    """Frame-aligned point error (Jumper et al. 2021, algorithm 28): every residue as seen from every frame, clamped at 10
    angstrom and divided by 10. A frame that lacks a neighbour, as at the ends, is left out."""
    inner = mask & F.pad(mask, (0, 1))[:, 1:] & F.pad(mask, (1, 0))[:, :-1]
    off = (_seen(made) - _seen(truth)).square().sum(2).add(SMALLEST).sqrt()
    off = ((1 - UNCLAMPED) * off.clamp(max=CLAMP) + UNCLAMPED * off) / UNIT
    return _mean(off, inner[:, :, None] & mask[:, None])


def _seen(points: Points) -> Float[Tensor, "batch frame 3 residue"]:
    """Every point as seen from every frame, as one product of all axes with all points: the tensors of a turn for every two
    residues would be nine times as large."""
    points = points - points[:, :1]
    batch, count = points.shape[:2]
    axes = frames(points).transpose(-1, -2)
    with full_precision(points):
        seen = axes.reshape(batch, 3 * count, 3) @ points.transpose(1, 2)
    return seen.reshape(batch, count, 3, count) - _applied(axes, points)[..., None]


def distances(points: Points) -> Apart:
    """In angstrom; the slope at 0 is finite. The axes stand before the residues: sums over a last axis of three are slow."""
    axes = points.transpose(1, 2)
    return ((axes[..., None] - axes[:, :, None]).square().sum(1) + SMALLEST).sqrt()


def asked(truth: Apart, mask: Mask) -> Bool[Tensor, "batch residue residue"]:
    """Pairs within 15 angstrom of each other in the truth. Distances, as in all that is about lDDT."""
    other = ~torch.eye(truth.shape[1], dtype=torch.bool, device=truth.device)
    return mask[:, :, None] & mask[:, None] & other & (truth < INCLUSION)


def smooth_lddt(made: Apart, truth: Apart, mask: Mask) -> Float[Tensor, " batch"]:
    """1 - lDDT with soft thresholds (Abramson et al. 2024, algorithm 27), scaled so that the truth costs 0."""
    off = (made - truth).abs()
    share = sum((torch.sigmoid(limit - off) for limit in THRESHOLDS), torch.zeros_like(off))
    best = sum(1 / (1 + 2.718281828**-limit) for limit in THRESHOLDS)
    return _mean(1 - share / best, asked(truth, mask))


def lddt(made: Apart, truth: Apart, mask: Mask) -> Float[Tensor, "batch residue"]:
    """lDDT of each residue, 0 to 1; 1 where there is nothing to ask."""
    off, pairs = (made - truth).abs(), asked(truth, mask)
    right = torch.stack([off < limit for limit in THRESHOLDS]).float().mean(0)
    count = pairs.sum(-1)
    return torch.where(count > 0, (right * pairs).sum(-1) / count.clamp(min=1), 1.0)


def _applied(turn: Float[Tensor, "*any 3 3"], point: Float[Tensor, "*any 3"]) -> Float[Tensor, "*any 3"]:
    """The turned point. Sums of products: matrix products would be rounded to 8 bits under autocast."""
    return (turn * point[..., None, :]).sum(-1)


def _mean(values: Float[Tensor, "batch residue residue"], where: Bool[Tensor, "batch residue residue"]) -> Tensor:
    """Over the pairs of a row; 0 where there are none."""
    return torch.where(where, values, 0.0).sum((1, 2)) / where.sum((1, 2)).clamp(min=1)
