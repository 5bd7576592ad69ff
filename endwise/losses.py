"""Losses as pure functions of tensors: unreduced, one float32 value a row, whatever the autocast.

Here: what a prediction costs. Not here: weights of rows, classes and terms (heads and the objective), and anything
learnt. Every function gives a tensor [batch]; what a row holds beside the batch axis is averaged within the row alone.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

SSIM_SIDE, SSIM_LIGHT, SSIM_CONTRAST = 7, 0.01**2, 0.03**2
HUBER_DELTA = 1.0  # in units of the (standardised) error: squared below, linear above


def cross_entropy(
    logits: Float[Tensor, "batch classes"], target: Int[Tensor, " batch"], *, smoothing: float = 0.0
) -> Float[Tensor, " batch"]:
    """-log softmax(logits)[target]; a share `smoothing` of it spread over all classes (Szegedy et al. 2016)."""
    return F.cross_entropy(logits.float(), target.long(), reduction="none", label_smoothing=smoothing)


def binary_cross_entropy(logits: Float[Tensor, "batch *rest"], target: Tensor) -> Float[Tensor, " batch"]:
    """Mean over a row's yes/no questions of -log sigmoid(±logit); `target` holds 0 and 1 in the shape of `logits`."""
    return _row_mean(F.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none"))


def huber(
    predicted: Float[Tensor, "batch *rest"], target: Float[Tensor, "batch *rest"], *, delta: float = HUBER_DELTA
) -> Float[Tensor, " batch"]:
    """Squared error / 2 up to `delta`, then linear: outliers pull with a bounded force (Huber 1964)."""
    return _row_mean(F.huber_loss(predicted.float(), target.float(), reduction="none", delta=delta))


def mse(predicted: Float[Tensor, "batch *rest"], target: Float[Tensor, "batch *rest"]) -> Float[Tensor, " batch"]:
    """Mean squared error of a row."""
    return _row_mean((predicted.float() - target.float()).square())


def mae(predicted: Float[Tensor, "batch *rest"], target: Float[Tensor, "batch *rest"]) -> Float[Tensor, " batch"]:
    """Mean absolute error of a row."""
    return _row_mean((predicted.float() - target.float()).abs())


def pinball(
    quantiles: Float[Tensor, "batch *rest level"],
    target: Float[Tensor, "batch *rest"],
    there: Bool[Tensor, "batch *rest"],
    levels: Float[Tensor, " level"],
) -> Float[Tensor, " batch"]:
    """Twice the quantile loss (Koenker & Bassett 1978), mean over the levels and over what is `there` of a row; of the median
    alone it is the absolute error. 0 where nothing is there."""
    above = torch.where(there, target.float(), 0.0)[..., None] - quantiles.float()
    cost = 2 * torch.maximum(levels * above, (levels - 1) * above).mean(-1)
    return _mean_there(cost, there)


def mse_there(
    predicted: Float[Tensor, "batch *rest"], target: Float[Tensor, "batch *rest"], there: Bool[Tensor, "batch *rest"]
) -> Float[Tensor, " batch"]:
    """Mean squared error over what is `there` of a row; 0 where nothing is."""
    return _mean_there((predicted.float() - torch.where(there, target.float(), 0.0)).square(), there)


def dice(
    probabilities: Float[Tensor, "batch class *shape"],
    target: Int[Tensor, "batch *shape"],
    valid: Bool[Tensor, "batch *shape"],
) -> Float[Tensor, " batch"]:
    """1 - the soft Dice overlap (Milletari et al. 2016, V-Net) over the valid places, averaged over the classes that a
    row's target has: small classes count as much as large ones. 0 where nothing is valid. Exactly 0 and about 1 are its
    ends, but for one place of smoothing in top and bottom."""
    said = (probabilities.float() * valid[:, None]).flatten(2)
    classes, there = target.flatten(1).long(), valid.flatten(1).float()
    own = said.gather(1, classes[:, None])[:, 0]
    nothing = said.new_zeros(said.shape[:2])
    both, true = nothing.scatter_add(1, classes, own), nothing.scatter_add(1, classes, there)
    overlap = (2 * both + 1) / (said.sum(2) + true + 1)
    occurs = (true > 0).float()
    return ((1 - overlap) * occurs).sum(1) / occurs.sum(1).clamp(min=1)


def similarity(
    one: Float[Tensor, "batch channel height width"], other: Float[Tensor, "batch channel height width"]
) -> Float[Tensor, "batch height width"]:
    """Structural similarity (Wang et al. 2004) around every place, -1 to 1, mean over the channels: of pictures whose full
    scale is 1, in squares of 7 pixels that are cut at the border."""
    one, other = one.float(), other.float()

    def around(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, SSIM_SIDE, stride=1, padding=SSIM_SIDE // 2, count_include_pad=False)

    with torch.autocast(one.device.type, enabled=False):
        first, second = around(one), around(other)
        spread, other_spread = around(one * one) - first**2, around(other * other) - second**2
        common = around(one * other) - first * second
        light = (2 * first * second + SSIM_LIGHT) / (first**2 + second**2 + SSIM_LIGHT)
        return (light * (2 * common + SSIM_CONTRAST) / (spread + other_spread + SSIM_CONTRAST)).mean(1)


def ctc(
    logits: Float[Tensor, "batch time symbols"],
    sizes: Int[Tensor, " batch"],
    target: Int[Tensor, "batch length"],
    target_sizes: Int[Tensor, " batch"],
    *,
    blank: int = 0,
) -> Float[Tensor, " batch"]:
    """-log of the probability of all alignments of `target` to the first `sizes` frames (Graves et al. 2006).

    Not divided by the target's length. A row whose target cannot be aligned has infinite loss; it gives 0 and no
    gradient here, so count those rows with `ctc_impossible` and report them: nothing else will show them.
    """
    impossible = ctc_impossible(sizes, target, target_sizes)
    # a row without frames makes the kernel fail: it reads one frame and is masked (or, with an empty target, costs 0)
    frames = sizes.clamp(min=1)
    scores = F.log_softmax(logits.float(), dim=-1).transpose(0, 1)
    loss = F.ctc_loss(
        scores, target.long(), frames.long(), target_sizes.long(), blank=blank, reduction="none", zero_infinity=True
    )
    return torch.where(impossible | (sizes < 1), 0.0, loss)


def ctc_impossible(
    sizes: Int[Tensor, " batch"], target: Int[Tensor, "batch length"], target_sizes: Int[Tensor, " batch"]
) -> Bool[Tensor, " batch"]:
    """Which rows have fewer frames than their target needs: one a symbol, and a blank between equal neighbours."""
    inside = torch.arange(target.shape[1], device=target.device)[1:] < target_sizes[:, None]
    repeats = ((target[:, 1:] == target[:, :-1]) & inside).sum(1)
    return sizes < target_sizes + repeats


def contrast(
    vectors: Float[Tensor, "batch input dim"],
    identity: Int[Tensor, "batch input"],
    scale: Float[Tensor, ""],
    *,
    across: bool = False,
) -> Float[Tensor, " batch"]:
    """Symmetric InfoNCE (van den Oord et al. 2018) over all pairs of inputs: -log of the share that a row's own partner
    has among the partners in the batch, at similarities times `scale`, averaged over the row's ordered pairs.

    identity: a number that equal values share, 0 where the row lacks the input. Rows that equal this one on either side
    of a pair are neither partners nor rivals. A row with fewer than two inputs has loss 0. across: rivals are the rows of
    all processes (see `gathered`), the losses still those of one's own.
    """
    everyone, start = gathered(vectors) if across else (vectors, 0)
    identities, _ = gathered(identity) if across else (identity, 0)
    batch, count = identity.shape
    own = start + torch.arange(batch, device=identity.device)
    itself = own[:, None] == torch.arange(len(identities), device=identity.device)
    there, present = identity != 0, identities != 0
    alike = [identity[:, None, k] == identities[None, :, k] for k in range(count)]
    total, pairs = vectors.new_zeros(batch, dtype=torch.float32), vectors.new_zeros(batch, dtype=torch.float32)
    for one in range(count):
        for other in range(one + 1, count):
            both = there[:, one] & there[:, other]
            rival = ~(alike[one] | alike[other])
            for asked, found in ((one, other), (other, one)):
                scores = scale.float() * (vectors[:, asked].float() @ everyone[:, found].float().T).float()
                masked = torch.where((rival & present[None, :, found]) | itself, scores, -torch.inf)
                cost = masked.logsumexp(1) - scores.gather(1, own[:, None])[:, 0]
                total = total + torch.where(both, cost, 0.0) / 2
            pairs = pairs + both
    return total / pairs.clamp(min=1)


def gathered(rows: Shaped[Tensor, "batch *rest"]) -> tuple[Shaped[Tensor, "all *rest"], int]:
    """The rows of all processes of torch.distributed one after the other, and where the own ones begin. Each process's
    part is as long as the longest, filled up with zeros. Gradients of all processes' losses come back to the process that
    made a row, summed. Every process has to call it as often as the others. Without processes: the rows themselves."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return rows, 0
    count = torch.tensor(len(rows), device=rows.device)
    dist.all_reduce(count, dist.ReduceOp.MAX)
    longest = int(count)
    filled = torch.cat([rows, rows.new_zeros(longest - len(rows), *rows.shape[1:])])
    everyone: Tensor = _Gather.apply(filled)  # type: ignore[no-untyped-call]
    return everyone, dist.get_rank() * longest


class _Gather(torch.autograd.Function):
    """Concatenates; its gradient is the sum of everybody's at the own rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


def _row_mean(values: Float[Tensor, "batch *rest"]) -> Float[Tensor, " batch"]:
    return values.flatten(1).mean(1) if values.dim() > 1 else values


def _mean_there(cost: Float[Tensor, "batch *rest"], there: Bool[Tensor, "batch *rest"]) -> Float[Tensor, " batch"]:
    flat, counted = cost.flatten(1), there.flatten(1)
    return torch.where(counted, flat, 0.0).sum(1) / counted.sum(1).clamp(min=1)
