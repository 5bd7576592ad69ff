"""Boxes as tensors: overlap, its generalised form, and which predicted box answers for which true one.

A box is [..., 2 d]: its low corner and its high corner, in as many dimensions as there are (x0 y0 x1 y1 on a picture).
Pure functions, in float32 whatever the autocast. Not here: losses and terms (the head), reading and writing boxes
(endwise/modalities/boxes), scoring them (endwise/metrics/boxes.py).
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

TINY = 1e-7
FAR = 1e6  # the cost of a place that cannot answer for a box; infinity would make the assignment fail
CANDIDATES = 10  # places that learn to answer for a box in one-to-many assignment (Feng et al. 2021)
SCORE_POWER, OVERLAP_POWER = 0.5, 6.0  # of the alignment of score and overlap there
CLASS_COST, CORNER_COST, OVERLAP_COST = 2.0, 5.0, 2.0  # of matching, as in DETR (Carion et al. 2020)
ROUNDS = 6  # of suppression: as many boxes in a chain of overlaps are decided exactly as greedily


def volume(boxes: Float[Tensor, "*any corners"]) -> Float[Tensor, "*any"]:
    """Area in two dimensions; 0 where a high corner lies below its low one."""
    low, high = boxes.float().chunk(2, dim=-1)
    return (high - low).clamp(min=0).prod(-1)


def overlap(one: Float[Tensor, "*any corners"], other: Float[Tensor, "*any corners"]) -> Float[Tensor, "*any"]:
    """Intersection over union in [0, 1], by broadcasting; 0 for two boxes without area."""
    shared, union, _ = _parts(one, other)
    return shared / union.clamp(min=TINY)


def generalised_overlap(
    one: Float[Tensor, "*any corners"], other: Float[Tensor, "*any corners"]
) -> Float[Tensor, "*any"]:
    """Overlap less the share of the smallest box around both that neither fills: in [-1, 1], with a gradient also where
    boxes do not touch (Rezatofighi et al. 2019)."""
    shared, union, around = _parts(one, other)
    return shared / union.clamp(min=TINY) - (around - union) / around.clamp(min=TINY)


def _parts(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    (low, high), (other_low, other_high) = one.float().chunk(2, dim=-1), other.float().chunk(2, dim=-1)
    shared = (torch.minimum(high, other_high) - torch.maximum(low, other_low)).clamp(min=0).prod(-1)
    around = (torch.maximum(high, other_high) - torch.minimum(low, other_low)).clamp(min=0).prod(-1)
    return shared, volume(one) + volume(other) - shared, around


def around_places(
    places: Float[Tensor, "place d"], reach: Float[Tensor, "batch place corners"]
) -> Float[Tensor, "batch place corners"]:
    """Boxes from how far they reach from their place, to the low side and to the high one in every dimension."""
    below, above = reach.float().chunk(2, dim=-1)
    return torch.cat([places - below, places + above], dim=-1)


def within(
    places: Float[Tensor, "batch place d"], boxes: Float[Tensor, "batch box corners"]
) -> Bool[Tensor, "batch box place"]:
    """Which places lie inside which boxes; for a box that holds none, the place nearest to its middle."""
    low, high = boxes.float().chunk(2, dim=-1)
    at = places[:, None]
    inside = ((at >= low[:, :, None]) & (at <= high[:, :, None])).all(-1)
    away = (at - ((low + high) / 2)[:, :, None]).square().sum(-1)
    nearest = torch.zeros_like(inside).scatter(2, away.argmin(2, keepdim=True), True)
    return inside | (nearest & ~inside.any(2, keepdim=True))


def many_to_one(
    scores: Float[Tensor, "batch place class"],
    boxes: Float[Tensor, "batch place corners"],
    places: Float[Tensor, "batch place d"],
    truths: Float[Tensor, "batch box corners"],
    classes: Int[Tensor, "batch box"],
    real: Bool[Tensor, "batch box"],
) -> tuple[Int[Tensor, "batch place"], Float[Tensor, "batch place"]]:
    """For each place the box that it learns to answer for, and how well it should (0: for none): of the places inside a
    box the CANDIDATES whose class score and overlap agree best, the best of them as sure as it overlaps (task alignment,
    Feng et al. 2021, "TOOD"). Where several boxes want a place, the one that it overlaps most has it. No gradient."""
    with torch.no_grad():
        shared = overlap(boxes[:, None], truths[:, :, None])  # batch box place
        score = scores.float().transpose(1, 2).gather(1, classes[..., None].expand(-1, -1, scores.shape[1]))
        allowed = within(places, truths) & real[..., None]
        aligned = torch.where(allowed, score**SCORE_POWER * shared**OVERLAP_POWER + 1e-9, 0.0)
        best = aligned.topk(min(CANDIDATES, aligned.shape[2]), dim=2).indices
        wanted = torch.zeros_like(allowed).scatter(2, best, True) & allowed
        claim = torch.where(wanted, shared + 1e-6, 0.0)
        owner = claim.argmax(1)
        owned = wanted & (torch.arange(truths.shape[1], device=owner.device)[None, :, None] == owner[:, None])
        aligned = torch.where(owned, aligned, 0.0)
        top = torch.where(owned, shared, 0.0).amax(2, keepdim=True)
        target = aligned / aligned.amax(2, keepdim=True).clamp(min=1e-12) * top
        return owner, target.amax(1)


def one_to_one(
    scores: Float[Tensor, "batch place class"],
    boxes: Float[Tensor, "batch place corners"],
    places: Float[Tensor, "batch place d"],
    truths: Float[Tensor, "batch box corners"],
    classes: Int[Tensor, "batch box"],
    real: Bool[Tensor, "batch box"],
) -> Int[Tensor, "batch box"]:
    """For each real box the one place that answers for it: the assignment of the least total cost (Kuhn 1955, by scipy),
    where a place costs by class score, distance of the corners, and generalised overlap (Carion et al. 2020), and lies inside
    the box. -1 for what is not real, or finds no place left. No gradient."""
    from scipy.optimize import linear_sum_assignment

    with torch.no_grad():
        score = scores.float().transpose(1, 2).gather(1, classes[..., None].expand(-1, -1, scores.shape[1]))
        away = (boxes.float()[:, None] - truths[:, :, None]).abs().sum(-1)
        shared = generalised_overlap(boxes[:, None], truths[:, :, None])
        cost = -CLASS_COST * score + CORNER_COST * away - OVERLAP_COST * shared
        cost = torch.where(within(places, truths), cost, FAR)
        chosen = np.full(truths.shape[:2], -1, dtype=np.int64)
        for row, (costs, there) in enumerate(zip(cost.cpu().numpy(), real.cpu().numpy(), strict=True)):
            own = np.flatnonzero(there)
            if not len(own):
                continue
            box, place = linear_sum_assignment(np.nan_to_num(costs[own], nan=FAR))
            possible = costs[own][box, place] < FAR
            chosen[row, own[box[possible]]] = place[possible]
        return torch.from_numpy(chosen).to(boxes.device)


def suppressed(
    boxes: Float[Tensor, "batch rank corners"], classes: Int[Tensor, "batch rank"], most: float
) -> Bool[Tensor, "batch rank"]:
    """Which boxes, the surest first, share more than `most` with a surer one of their class that stays: what a greedy
    search finds, as matrices of a fixed size (Zheng et al. 2021, "Cluster-NMS")."""
    rank = torch.arange(boxes.shape[1], device=boxes.device)
    surer = rank[:, None] < rank[None, :]
    same = classes[:, :, None] == classes[:, None, :]
    covers = (overlap(boxes[:, :, None], boxes[:, None, :]) > most) & same & surer
    stays = torch.ones_like(classes, dtype=torch.bool)
    for _ in range(ROUNDS):
        stays = ~(covers & stays[:, :, None]).any(1)
    return ~stays
