"""The network side of boxes: set prediction over the places of a picture's feature maps.

Every place of one fine map proposes a box, and says for each class how sure it is that it answers for a thing of it. Two
such answers are learnt side by side. `one`: for every true box the one place that the Hungarian algorithm chooses by class,
corners and generalised overlap (Carion et al. 2020; over a dense map Sun et al. 2021, "OneNet"), so that nothing has to be
thrown away afterwards. `many`: the places of a box that agree with it best (Feng et al. 2021), which is learnt many times
as fast, as one place a box is a few examples a picture. The second shapes the boxes and the features, and the first begins
as its copy and learns which of the many is to speak (dual assignment: Wang et al. 2021, 2024). That is the cure for slow
matching here: queries of a decoder and their denoising need some hundred epochs more than a small data set on a CPU has.

Boxes are in shares of the canvas here, its axes in the order of its arrays (down before across); pictures have two of them,
volumes three. Not here: geometry and assignment
(endwise/nn/boxes.py), the pyramid (endwise/nn/pyramid.py), names (`Boxes.write`).
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.metrics.boxes import centred, overlaps
from endwise.modalities.boxes import MOST
from endwise.nn.blocks import Residual
from endwise.nn.boxes import around_places, generalised_overlap, many_to_one, one_to_one, overlap, suppressed, volume
from endwise.nn.interface import Aim, Encoder, Handed, Head, Tokens
from endwise.nn.placing import centres, lies_at, seen_at
from endwise.nn.pyramid import CONVS, Mix, Pyramid

if TYPE_CHECKING:
    from endwise.modalities.boxes import Boxes, BoxesContract
    from endwise.nn.size import Size

PICTURE = 4  # axes of its feature maps
VOLUME = 3  # axes of a canvas that may be a window
FINEST_PX = 8  # canvas pixels from place to place ...
FEWEST_A_SIDE = {2: 16, 3: 8}  # ... or as many places as this along the shortest side, by axes, where that is finer
FURTHEST = 4.0  # of the logarithm of a reach, whose unit is half a usual box
PRIOR = 0.01  # the chance of a thing at a place before anything is learnt (Lin et al. 2017)
NEIGHBOURS = 5  # a place is compared with the best of so many along each axis
VISIBLE = 0.25  # share of a box that has to be on the canvas
CORNER_WEIGHT, OVERLAP_WEIGHT = 5.0, 2.0  # of the loss of a box, as in DETR
SHARPNESS = 2.0  # of the quality focal loss
UNSET = 0.3  # a threshold that no validation row has set
MATCHED = 0.5  # of overlap, when thresholds are set
FEWEST_TO_CALIBRATE = 5  # true boxes of a class


class BoxesHead(Head):
    """Feature maps -> {'one', 'many': a logit for each place and class, 'boxes': what each place proposes}."""

    passes = 300  # over the training rows: a detector from nothing learns slowly (Zhu et al. 2019, "ScratchDet")
    thresholds: Tensor
    places: Tensor
    usual: Tensor

    def __init__(self, declared: "Boxes", contract: "BoxesContract", size: "Size") -> None:
        super().__init__()
        self.on, self.in_pixels, self.matching = declared.under(), declared.in_pixels, declared.matching
        self.overlap, self.stride_px, self.given = declared.overlap, declared.stride_px, declared.threshold
        self.sides, self.furthest = usual_sides(contract), max(contract.reach, 1.0)
        self.points = declared.radius is not None  # of which the box may reach beyond the picture, as the point may not
        self.names, self.corners = contract.classes, slice(1, 1 + len(declared.corners))  # of a target's numbers
        self.classes, self.token_width, self.width = len(contract.classes), size.width, max(32, size.width // 2)
        self.register_buffer("thresholds", torch.full((self.classes,), declared.threshold or UNSET))
        self.beyond = 0

    def meet(self, encoders: Mapping[str, Encoder]) -> None:
        """The picture's feature maps, which everything after is made for."""
        encoder, width = encoders[self.on], self.width
        canvas = encoder.canvas_px
        finest = float(self.stride_px or min(FINEST_PX, max(1, min(canvas) // FEWEST_A_SIDE[len(canvas)])))
        self.pyramid = Pyramid(encoder.maps, self.token_width, width=width, finest=finest)
        stride = self.pyramid.strides[0]
        shape = tuple(math.ceil(side / step) for side, step in zip(canvas, stride, strict=True))
        self.register_buffer("usual", self._half_a_box(encoder, stride), persistent=False)
        covered = torch.tensor([count * step / side for count, step, side in zip(shape, stride, canvas, strict=True)])
        self.register_buffer("places", centres(shape, covered.device) * covered, persistent=False)
        axes = len(canvas)
        self.naming, self.reaching = (nn.Sequential(Mix(axes, width, width), Mix(axes, width, width)) for _ in range(2))
        self.choosing = nn.Sequential(Mix(axes, width + 2 * self.classes, width), Mix(axes, width, width))
        self.many, self.one = (CONVS[axes](width, self.classes, 1) for _ in range(2))
        self.reach = CONVS[axes](width, 2 * axes, 1)
        for layer, bias in ((self.many, -math.log((1 - PRIOR) / PRIOR)), (self.one, 0.0), (self.reach, 0.0)):
            nn.init.normal_(layer.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.constant_(layer.bias, bias)  # type: ignore[arg-type]

    def _half_a_box(self, encoder: Encoder, stride: Sequence[float]) -> Float[Tensor, " axes"]:
        """What a place reaches to each side before it has learnt anything, in shares of the canvas: overlaps, and with them all
        that is learnt of classes, are next to nothing where first boxes are far too large. At least half the way to the next
        place. Where pixels are reduced by another factor in each picture, the largest coordinate lies near the canvas's end."""
        canvas, sides = torch.tensor(encoder.canvas_px), self._turned(torch.tensor(self.sides))
        if self.in_pixels:
            sides = sides / (encoder.reduced or self.furthest / max(encoder.canvas_px)) / canvas
        return torch.maximum(sides, torch.tensor(stride) / canvas).clamp(max=1) / 2

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """{'one', 'many': [batch, place, class], 'boxes': [batch, place, corners], 'places': [batch, place, axes], 'seen',
        'sizes': where they lie}."""
        x = self.pyramid(tokens, self.on)[0]
        many = self.many(self.naming(x))
        # what stands out among its neighbours is most of what the one that answers has to know (Wang et al. 2021)
        known = many.detach()
        pool = F.max_pool2d if known.dim() == PICTURE else F.max_pool3d
        peak = known - pool(known, NEIGHBOURS, stride=1, padding=NEIGHBOURS // 2)
        one = known + self.one(self.choosing(torch.cat([x, known, peak], dim=1)))
        reached = self.reaching(x)
        reach = self.reach(reached).flatten(2).transpose(1, 2).float().clamp(-FURTHEST, FURTHEST)
        placed = tokens.placed[self.on]
        return {
            "one": one.flatten(2).transpose(1, 2).float(),
            "many": many.flatten(2).transpose(1, 2).float(),
            "boxes": around_places(self.places, reach.exp() * torch.cat([self.usual, self.usual])),
            "places": self.places.expand(reach.shape[0], -1, -1),
            "seen": placed.seen.float(),
            "sizes": placed.sizes,
            **self.said_beside(reached, tokens),
        }

    def said_beside(self, reached: Tensor, tokens: Tokens) -> dict[str, Tensor]:
        """What is predicted beside class and box, by name. reached: what the places know about their things' extent [batch,
        width, *shape]. Default: nothing."""
        return {}

    # ---- learning --------------------------------------------------------------------------------------------------

    def weight(self, target: Tensor, sizes: Tensor) -> Float[Tensor, " batch"]:
        """The boxes of each row: a term is a mean over boxes. A picture without any counts for one."""
        return self._real(target, sizes).sum(1).clamp(min=1).float()

    def loss(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, Float[Tensor, " batch"]]:
        """{'class': of the place that answers for a box, 'box': how far it is from it, 'many': both, of all places that
        learn beside}: per box. Boxes without area, of unknown classes, or moved off the canvas are not learnt."""
        many, boxes, places = (prediction[name].float() for name in ("many", "boxes", "places"))
        target = F.pad(target, (0, 0, 0, 1))  # there is always one to look at, real or not
        truths, real = self._laid(prediction, target, sizes)
        classes, count = target[..., 0].long().clamp(min=0), self.weight(target, sizes)
        chosen = one_to_one(prediction["one"].float().sigmoid(), boxes, places, truths, classes, real)
        found = self._matched(prediction["one"].float(), boxes, chosen, truths, classes)
        found |= self.learnt_beside(prediction, target, truths, chosen)
        owner, quality = many_to_one(many.sigmoid(), boxes, places, truths, classes, real)
        label = F.one_hot(classes.gather(1, owner), self.classes) * quality[..., None]
        own = truths.gather(1, owner[..., None].expand(-1, -1, truths.shape[2]))
        # every box weighs the same, however many places learn it
        per_box = torch.zeros(real.shape, device=quality.device).scatter_add(1, owner, quality)
        share = quality / per_box.gather(1, owner).clamp(min=1e-9)
        beside = quality_focal(many, label).sum((1, 2)) + (share * self._apart(boxes, own)).sum(1)
        return {**{name: value / count for name, value in found.items()}, "many": beside / count}

    def learnt_beside(
        self, prediction: Mapping[str, Tensor], target: Tensor, truths: Tensor, chosen: Tensor
    ) -> dict[str, Float[Tensor, " batch"]]:
        """Terms beside those of class and box, summed over a row's boxes. truths: the boxes on the canvas. chosen: the place that
        answers for each, -1 where none does. Default: none."""
        return {}

    def _matched(
        self, one: Tensor, boxes: Tensor, chosen: Tensor, truths: Tensor, classes: Tensor
    ) -> dict[str, Tensor]:
        answers, at = chosen >= 0, chosen.clamp(min=0)
        proposed = boxes.gather(1, at[..., None].expand(-1, -1, boxes.shape[2]))
        quality = torch.where(answers, overlap(proposed, truths), 0.0).detach()
        label = torch.zeros_like(one)
        rows = torch.arange(len(one), device=one.device)[:, None].expand_as(at)
        label = label.index_put((rows, at, classes), quality, accumulate=True)
        apart = torch.where(answers, self._apart(proposed, truths), 0.0)
        return {"class": quality_focal(one, label).sum((1, 2)), "box": apart.sum(1)}

    def _apart(self, one: Float[Tensor, "*any corners"], other: Float[Tensor, "*any corners"]) -> Float[Tensor, "*any"]:
        corners = (one - other).abs().sum(-1)
        return CORNER_WEIGHT * corners + OVERLAP_WEIGHT * (1 - generalised_overlap(one, other))

    def _real(self, target: Tensor, sizes: Tensor) -> Bool[Tensor, "batch box"]:
        slots = torch.arange(target.shape[1], device=target.device) < sizes[:, :1]
        return slots & (target[..., 0] >= 0) & (volume(target[..., self.corners]) > 0)

    def _laid(
        self, prediction: Mapping[str, Tensor], target: Tensor, sizes: Tensor
    ) -> tuple[Float[Tensor, "batch box corners"], Bool[Tensor, "batch box"]]:
        """The true boxes on the canvas, cut to it, and which of them are there: the boxes around their moved corners."""
        ends = [self._turned(end) for end in target[..., self.corners].float().chunk(2, dim=2)]
        picks = itertools.product(range(2), repeat=ends[0].shape[2])
        corners = torch.stack(
            [torch.stack([ends[end][..., axis] for axis, end in enumerate(pick)], dim=-1) for pick in picks], dim=2
        )
        if self.in_pixels:
            corners = corners / prediction["sizes"][:, None, None].float()
        real = self._real(target, sizes)
        if not (self.training or self.points):
            outside = (corners < -1e-3).any(3) | (corners > 1 + 1e-3).any(3)
            self.beyond = max(self.beyond, int((outside.any(2) & real).sum()))
        moved = lies_at(prediction["seen"], corners.flatten(1, 2)).reshape(corners.shape)
        whole = torch.cat([moved.amin(2), moved.amax(2)], dim=-1)
        if self.points:  # a box that was cut would have its middle elsewhere
            middle = torch.stack(whole.chunk(2, dim=-1)).mean(0)
            return whole, real & ((middle >= 0) & (middle <= 1)).all(-1)
        cut = whole.clamp(0.0, 1.0)
        return cut, real & (volume(cut) > VISIBLE * volume(whole))

    # ---- answering -------------------------------------------------------------------------------------------------

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """{'boxes': [batch, rank, corners] x0 y0 x1 y1 in the user's unit, 'scores', 'classes', 'given': bool}, the surest first;
        a suppressed box has score 0. Of volumes, which may be windows of larger ones, also 'alone': the scores before that."""
        ranked, classes, _, boxes = self.ranked(prediction)
        scores = ranked
        if self.overlap is not None:
            scores = torch.where(suppressed(boxes, classes, self.overlap), 0.0, ranked)
        found = {
            "boxes": self._in_picture(prediction, boxes),
            "scores": scores,
            "classes": classes,
            "given": ranked >= self.thresholds[classes],
        }
        return found if len(self.usual) < VOLUME else {**found, "alone": ranked}

    def ranked(self, prediction: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(scores, classes, places [batch, rank], boxes on the canvas [batch, rank, corners]) of the surest."""
        scores = prediction[self.matching].sigmoid().flatten(1)
        ranked, index = scores.topk(min(MOST, scores.shape[1]), dim=1)
        classes, place = index % self.classes, index // self.classes
        boxes = prediction["boxes"].gather(1, place[..., None].expand(-1, -1, prediction["boxes"].shape[2]))
        return ranked, classes, place, boxes

    def aim(self, prediction: dict[str, Tensor], about: tuple[int, ...]) -> Aim:
        """The log-odds of the class at the place that proposes the box of this rank."""
        scores = prediction[self.matching][0].flatten()
        at = int(scores.topk(about[0] + 1).indices[-1])
        return lambda other: other[self.matching].flatten(1)[:, at].float()

    def _in_picture(self, prediction: Mapping[str, Tensor], boxes: Float[Tensor, "batch rank corners"]) -> Tensor:
        low, high = (seen_at(prediction["seen"], corner) for corner in boxes.chunk(2, dim=-1))
        ends = torch.stack([torch.minimum(low, high), torch.maximum(low, high)], dim=2)
        middles = ends.mean(2, keepdim=True)
        ends = ends - middles + middles.clamp(0.0, 1.0) if self.points else ends.clamp(0.0, 1.0)
        if self.in_pixels:
            ends = ends * prediction["sizes"][:, None, None].float()
        return self._turned(ends).flatten(2)

    def _turned(self, places: Tensor) -> Tensor:
        """Of a picture across before down, x y as people write it, and back; in a volume x, y and z are its array's axes."""
        return places.flip(-1) if places.shape[-1] == 2 else places

    def handed(self, prediction: dict[str, Tensor], *, greedy: bool) -> Handed:
        """The boxes that are given, before all others: [batch, rank, 1 + corners] as a target has them."""
        found = self.decode(prediction)
        rows = torch.cat([found["classes"][..., None].float(), found["boxes"]], dim=2)
        given = found["given"] & (found["scores"] > 0)
        first = (found["scores"] + given.float()).topk(rows.shape[1], dim=1).indices
        ordered = rows.gather(1, first[..., None].expand(-1, -1, rows.shape[2]))
        return Handed(ordered, given.sum(1, keepdim=True))

    def notes(self) -> list[str]:
        """How many true boxes reach beyond their picture."""
        if not self.beyond:
            return []
        return [f"true boxes reach beyond their picture (up to {self.beyond} in a batch): what is outside was cut off"]

    def calibrate(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, float]:
        """Each class's threshold for the best F1 at an overlap of 0.5; that of all where a class has few boxes."""
        if self.given is not None:
            return {}
        found = {name: value.double().cpu().numpy() for name, value in self.decode(prediction).items()}
        real = self._real(target, sizes).cpu().numpy()
        truths, kinds = target[..., self.corners].double().cpu().numpy(), target[..., 0].long().cpu().numpy()
        pairs = [
            _hits(found, row, truths[row][there], kinds[row][there], self.points) for row, there in enumerate(real)
        ]
        scores, classes, hits = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        total = np.bincount(kinds[real], minlength=self.classes)
        of_all = _threshold(scores, hits, int(total.sum()))
        chosen = [
            _threshold(scores[classes == index], hits[classes == index], int(total[index]))
            if total[index] >= FEWEST_TO_CALIBRATE
            else of_all
            for index in range(self.classes)
        ]
        self.thresholds.copy_(torch.tensor(chosen))
        return {f"threshold of {name}": value for name, value in zip(self.names, chosen, strict=True)}


def usual_sides(contract: "BoxesContract") -> list[float]:
    """Of a box, along x, y and z in the unit of the contract: its class's median, averaged over the boxes as logarithms."""
    logs = np.log(np.maximum(contract.medians, 1e-6))
    sides: list[float] = np.exp(np.average(logs, axis=0, weights=contract.counts)).tolist()
    return sides


class BoxesCarrier(Encoder):
    """Boxes as another stage reads them: a token for each, from its class, place and size, and one more that is there
    without any. How many of each class there are is in all of them: a mean over tokens would lose it."""

    scale: Tensor

    def __init__(self, contract: "BoxesContract", size: "Size", *, numbers: int) -> None:
        super().__init__()
        self.classes = len(contract.classes)
        self.register_buffer("scale", torch.tensor(1 / max(contract.reach, 1e-6)), persistent=False)
        self.kind = nn.Embedding(self.classes + 1, size.width)  # the last one: a class that training never saw
        self.place = nn.Linear(numbers + numbers // 2, size.width)  # both corners, and how far from each other
        self.counts = nn.Linear(2 * (self.classes + 1), size.width)
        self.start = nn.Parameter(torch.zeros(size.width))
        self.block, self.norm = Residual(size.width, size.width, size.dropout), nn.LayerNorm(size.width)

    def forward(self, values: Tensor, sizes: Int[Tensor, "batch 1"]) -> Tokens:
        """[batch, box, 1 + corners] as a target has them -> [batch, 1 + box, width]."""
        kinds = values[..., 0].round().long()
        kinds = torch.where((kinds < 0) | (kinds > self.classes), self.classes, kinds)
        corners = values[..., 1:].float() * self.scale
        low, high = corners.chunk(2, dim=-1)
        own = self.kind(kinds) + self.place(torch.cat([corners, high - low], dim=-1))
        real = torch.arange(values.shape[1], device=values.device) < sizes[:, :1]
        counts = (F.one_hot(kinds, self.classes + 1) * real[..., None]).sum(1).float()
        known = self.counts(torch.cat([counts, counts.log1p()], dim=1))
        start = self.start.expand(values.shape[0], 1, -1)
        tokens = torch.cat([start, own], dim=1) + known[:, None]
        mask = torch.cat([torch.ones_like(sizes, dtype=torch.bool), real], dim=1)
        return Tokens(self.norm(self.block(tokens)), mask)


def quality_focal(logits: Float[Tensor, "*any"], quality: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Cross-entropy to a quality in [0, 1], weighted by how far the chance is from it: what is easy costs next to nothing,
    however much of it there is (Li et al. 2020, "Generalized Focal Loss")."""
    cost = F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    return (logits.sigmoid() - quality).abs() ** SHARPNESS * cost


def _hits(
    found: Mapping[str, np.ndarray], row: int, truths: np.ndarray, kinds: np.ndarray, points: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(score, class, whether it finds a true box that no surer one found) of a picture's boxes."""
    there = found["scores"][row] > 0
    boxes, classes, scores = (found[name][row][there] for name in ("boxes", "classes", "scores"))
    hits, left = np.zeros(len(boxes)), np.ones(len(truths), dtype=bool)
    shared = np.where(
        classes[:, None] == kinds[None], centred(boxes, truths) if points else overlaps(boxes, truths), -1.0
    )
    for index in range(len(boxes) if len(truths) else 0):
        own = np.where(left, shared[index], -1.0)
        best = int(own.argmax())
        if own[best] >= (0.0 if points else MATCHED):
            hits[index], left[best] = 1.0, False
    return scores, classes, hits


def _threshold(scores: np.ndarray, hits: np.ndarray, total: int) -> float:
    """The score from which on F1 is best: between the last box that is given and the first that is not."""
    if not total or not hits.any():
        return UNSET
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(hits[order])
    f1 = 2 * right / (np.arange(1, len(order) + 1) + total)
    best = int(f1.argmax())
    after = scores[order[best + 1]] if best + 1 < len(order) else 0.0
    return float((scores[order[best]] + after) / 2)
