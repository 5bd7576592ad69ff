"""Points, frames and what an error in them costs, as pure functions of tensors. float32 whatever the autocast.

A frame stands on each residue, made of it and its two neighbours. What is measured in frames does not change when a chain
is turned or moved, and changes when it is mirrored.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

Points = Float[Tensor, "batch residue 3"]
Mask = Bool[Tensor, "batch residue"]

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
    after another."""
    eye, index = torch.eye(3, device=turns.device), torch.arange(turns.shape[1], device=turns.device)
    # residue i stands at the end of a bond in the frame before it, and then turns; the first is where everything begins
    turn, place = turns, (BOND * eye[0]).expand(turns.shape[:3])
    turn, place = _shifted(turn, index, 1, eye), torch.where(index[:, None] > 0, place, 0.0)
    for power in range(DOUBLINGS):
        ahead = _shifted(turn, index, 2**power, eye)
        place = _shifted(place, index, 2**power, torch.zeros_like(eye[0])) + _applied(ahead, place)
        turn = _applied(ahead[:, :, None], turn.transpose(-1, -2)).transpose(-1, -2)
    return place


def _shifted(values: Tensor, index: Int[Tensor, " residue"], by: int, first: Tensor) -> Tensor:
    """What stands `by` residues before each; `first` where there is none."""
    there = (index >= by).reshape(-1, *(1,) * (values.ndim - 2))
    return torch.where(there, values.index_select(1, (index - by).clamp(min=0)), first)


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


def fape(made: Points, truth: Points, mask: Mask) -> Float[Tensor, " batch"]:
    """Frame-aligned point error (Jumper et al. 2021, algorithm 28): every residue as seen from every frame, clamped at 10
    angstrom and divided by 10. Frames at the ends have only one neighbour and are left out."""
    inner = mask & F.pad(mask, (0, 1))[:, 1:] & F.pad(mask, (1, 0))[:, :-1]
    seen = [_applied(frames(x).transpose(-1, -2)[:, :, None], x[:, None] - x[:, :, None]) for x in (made, truth)]
    off = ((seen[0] - seen[1]).square().sum(-1) + SMALLEST).sqrt()
    off = ((1 - UNCLAMPED) * off.clamp(max=CLAMP) + UNCLAMPED * off) / UNIT
    return _mean(off, inner[:, :, None] & mask[:, None])


def distances(points: Points) -> Float[Tensor, "batch residue residue"]:
    """In angstrom; the slope at 0 is finite."""
    return ((points[:, :, None] - points[:, None]).square().sum(-1) + SMALLEST).sqrt()


def asked(truth: Points, mask: Mask) -> Bool[Tensor, "batch residue residue"]:
    """Pairs within 15 angstrom of each other in the truth."""
    other = ~torch.eye(truth.shape[1], dtype=torch.bool, device=truth.device)
    return mask[:, :, None] & mask[:, None] & other & (distances(truth) < INCLUSION)


def smooth_lddt(made: Points, truth: Points, mask: Mask) -> Float[Tensor, " batch"]:
    """1 - lDDT with soft thresholds (Abramson et al. 2024, algorithm 27), scaled so that the truth costs 0."""
    off = (distances(made) - distances(truth)).abs()
    share = torch.stack([torch.sigmoid(limit - off) for limit in THRESHOLDS]).mean(0)
    best = sum(1 / (1 + 2.718281828**-limit) for limit in THRESHOLDS) / len(THRESHOLDS)
    return _mean(1 - share / best, asked(truth, mask))


def lddt(made: Points, truth: Points, mask: Mask) -> Float[Tensor, "batch residue"]:
    """lDDT of each residue, 0 to 1; 1 where there is nothing to ask."""
    off, pairs = (distances(made) - distances(truth)).abs(), asked(truth, mask)
    right = torch.stack([off < limit for limit in THRESHOLDS]).float().mean(0)
    count = pairs.sum(-1)
    return torch.where(count > 0, (right * pairs).sum(-1) / count.clamp(min=1), 1.0)


def _applied(turn: Float[Tensor, "*any 3 3"], point: Float[Tensor, "*any 3"]) -> Float[Tensor, "*any 3"]:
    """The turned point. Sums of products: matrix products would be rounded to 8 bits under autocast."""
    return (turn * point[..., None, :]).sum(-1)


def _mean(values: Float[Tensor, "batch residue residue"], where: Bool[Tensor, "batch residue residue"]) -> Tensor:
    """Over the pairs of a row; 0 where there are none."""
    return torch.where(where, values, 0.0).sum((1, 2)) / where.sum((1, 2)).clamp(min=1)
