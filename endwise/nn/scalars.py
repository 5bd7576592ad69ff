"""Encoders and heads of values that are one token: numbers, classes, yes/no, dates, sets of tags.

Here: what the network does with them. They take plain numbers (means, counts), never a contract: the modalities beside
know those. Not here: parsing and naming values (endwise/modalities), the loss functions (endwise/losses.py).

What comes from the contract is kept in buffers that are not saved, since the contract is saved and they follow from
it; what `calibrate` measures on validation rows (temperatures, thresholds, interval widths) is saved with the weights.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from endwise import losses
from endwise.nn.blocks import Dropout, Residual
from endwise.nn.interface import Aim, Encoder, Handed, Head, Tokens
from endwise.nn.size import Size

NumberLoss = Literal["huber", "mse", "mae"]
ThresholdFor = Literal["f1", "accuracy", "none"]

MAX_BINS = 32
BIN_BUDGET = 1024  # bins of all numbers of a vector together: long vectors get few bins each, but never fewer than 4
FEWEST_BINS = 4
HARMONICS = 3  # of day, week and year: 3 of the week tell all seven days apart
PERIODS_S = (86_400.0, 7 * 86_400.0, 365.2425 * 86_400.0)
NARROWEST_TEMPERATURE, WIDEST_TEMPERATURE = 0.1, 10.0
FEWEST_TO_CALIBRATE = 20  # validation rows; a temperature from fewer is noise
FEWEST_OF_EACH = 5  # validation rows on both sides of a threshold; one from fewer is noise
COVERAGE = 0.9  # share of the answers that the interval of a number should hold
CERTAIN = 20.0  # a logit: the chance of anything else is 2e-9
NOT_MEASURED = -1.0
NEAREST = 1e-3  # standard deviations between a number and an end of its interval
SMALLEST_SPREAD = 1e-200  # a narrower column is constant: 1 / spread would overflow
NO = -1e4  # the score of what cannot be
FURTHEST = 1e30  # standard deviations; further away float32 overflows


# ---- shared parts ----------------------------------------------------------------------------------------------


class Pool(nn.Module):
    """Tokens -> one normalised vector a row, in float32, with dropout."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size.width)
        self.dropout = Dropout(size.dropout)

    def forward(self, tokens: Tokens) -> Float[Tensor, "batch width"]:
        """Mean over the real tokens, normalised."""
        pooled = tokens.with_values(tokens.values.float()).pooled()
        out: Tensor = self.dropout(self.norm(pooled))
        return out


def one_token(values: Float[Tensor, "batch width"]) -> Tokens:
    """Tokens of a value that is one token."""
    return Tokens(
        values.unsqueeze(1), torch.ones(values.shape[0], 1, dtype=torch.bool, device=values.device), full=True
    )


def no_axes(like: Float[Tensor, "batch *n"]) -> Int[Tensor, "batch 0"]:
    """The sizes of values that are all of one shape."""
    return torch.zeros(like.shape[0], 0, dtype=torch.int64, device=like.device)


def full_precision(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """No autocast inside: what is not a layer in float32, too."""
    if torch.compiler.is_exporting():  # an autocast region does not survive the exporter, and none is on there
        return contextlib.nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def exact(layer: nn.Linear, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch m"]:
    """A linear layer in float32 even under bf16 autocast, whose 8 bits would round a number to three digits."""
    with full_precision(x):
        return cast(Tensor, layer(x.float()))


def spread(deviation: Sequence[float]) -> list[float]:
    """What to divide by: the standard deviation, or 1 where there is none."""
    return [item if item > SMALLEST_SPREAD else 1.0 for item in deviation]


def _double(values: object) -> Float[Tensor, "*any"]:
    return torch.from_numpy(np.array(values, dtype=np.float64))


# ---- numbers ---------------------------------------------------------------------------------------------------


class NumberEncoder(Encoder):
    """A number, or a vector of them, as one token: its place among the training quantiles (piecewise-linear encoding,
    Gorishniy et al. 2022, "On Embeddings for Numerical Features in Tabular Deep Learning") beside its standardised
    value. Bins end at the outer quantiles; beyond them the value goes on, compressed by asinh, so that an outlier
    neither drowns the rest nor loses its gradient. Computed in float64 up to where units are gone."""

    single = True
    mean: Tensor
    inverse: Tensor
    lower: Tensor
    per_width: Tensor

    def __init__(
        self,
        mean: Sequence[float],
        deviation: Sequence[float],
        quantiles: Sequence[Sequence[float]],
        size: Size,
    ) -> None:
        super().__init__()
        self.count = len(mean)
        edges = bin_edges(np.array(quantiles, dtype=np.float64))
        widths = np.diff(edges, axis=1)
        self.register_buffer("mean", _double(mean), persistent=False)
        self.register_buffer(
            "inverse", _double([1 / item if item > 0 else 1.0 for item in deviation]), persistent=False
        )
        self.register_buffer("lower", _double(edges[:, :-1]), persistent=False)
        # an empty bin (many rows with one value) says nothing: its slope is 0, not infinite
        safe = np.where(widths > SMALLEST_SPREAD, widths, np.inf)
        self.register_buffer("per_width", _double(1.0 / safe), persistent=False)
        self.inward = nn.Linear(self.count * (1 + widths.shape[1]), size.width)
        hidden, depth = (size.width, 1) if self.count == 1 else (2 * size.width, max(1, size.depth))
        self.blocks = nn.Sequential(*[Residual(size.width, hidden, size.dropout) for _ in range(depth)])

    def forward(self, values: Float[Tensor, "batch *n"], sizes: Int[Tensor, "batch axes"]) -> Tokens:
        """values [batch] or [batch, n] in the user's unit -> one token a row."""
        x = values.to(torch.float64).reshape(values.shape[0], self.count)
        standard = torch.asinh(((x - self.mean) * self.inverse).clamp(-FURTHEST, FURTHEST).float())
        place = ((x.unsqueeze(-1) - self.lower) * self.per_width).clamp(0.0, 1.0).float()
        features = torch.cat([standard, place.flatten(1)], dim=1)
        return one_token(self.blocks(exact(self.inward, features)))

    def neutral(self, values: Tensor, sizes: Tensor, found: Tensor) -> Tensor:
        """The mean."""
        return self.mean.reshape(found.shape[1:]).expand_as(found)


def bin_edges(quantiles: np.ndarray) -> np.ndarray:
    """[n, bins + 1] of the stored [n, levels] quantiles: all of them for a few numbers, fewer for long vectors."""
    count, levels = quantiles.shape
    bins = max(FEWEST_BINS, min(MAX_BINS, BIN_BUDGET // count, levels - 1))
    return quantiles[:, np.linspace(0, levels - 1, bins + 1).round().astype(int)]


class NumberHead(Head):
    """A number or a vector in the user's unit. The network predicts it standardised; `decode` turns it back in
    float64. Loss: Huber, squared or absolute error of the standardised value.

    `calibrate` measures how far off the answers to validation rows were and keeps the 90 % quantile: split conformal
    prediction (Vovk et al. 2005). The interval holds 90 % of new answers as far as they come from where the
    validation rows came from; those rows also served to stop training, so it is slightly too narrow.
    """

    mean: Tensor
    deviation: Tensor
    half_width: Tensor

    def __init__(
        self, mean: Sequence[float], deviation: Sequence[float], size: Size, *, vector: bool, loss: NumberLoss
    ) -> None:
        super().__init__()
        shape = (len(mean),) if vector else ()
        self.register_buffer("mean", _double(mean).reshape(shape), persistent=False)
        self.register_buffer("deviation", _double(spread(deviation)).reshape(shape), persistent=False)
        self.register_buffer("half_width", torch.full(shape, NOT_MEASURED, dtype=torch.float64))
        self.pool = Pool(size)
        self.outward = nn.Linear(size.width, len(mean))
        self.vector = vector
        self.of_error: Callable[[Tensor, Tensor], Tensor] = {
            "huber": losses.huber, "mse": losses.mse, "mae": losses.mae,
        }[loss]  # fmt: skip

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """{'standard': float32 [batch] or [batch, n]} in standard deviations from the training mean."""
        out = exact(self.outward, self.pool(tokens))
        return {"standard": out if self.vector else out.squeeze(1)}

    def loss(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, Float[Tensor, " batch"]]:
        """{'error'} of the standardised value."""
        return {"error": self.of_error(prediction["standard"], self._standard(target).float())}

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """{'value', 'half_width'}: float64 [batch] or [batch, n]; a half width of -1 was never measured."""
        value = prediction["standard"].to(torch.float64) * self.deviation + self.mean
        return {"value": value, "half_width": torch.zeros_like(value) + self.half_width}

    def handed(self, prediction: dict[str, Tensor], *, greedy: bool) -> Handed:
        """The value."""
        return Handed(self.decode(prediction)["value"], no_axes(prediction["standard"]))

    def aim(self, prediction: dict[str, Tensor], about: tuple[int, ...]) -> Aim:
        """The number, in standard deviations."""
        return lambda other: other["standard"].reshape(len(other["standard"]), -1)[:, about[0]].float()

    def calibrate(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, float]:
        """The 90 % quantile of the absolute residuals, one for each number; nine rows or fewer cannot give one."""
        self.half_width.fill_(NOT_MEASURED)
        count = len(target)
        rank = math.ceil((count + 1) * COVERAGE)
        if rank > count:
            return {}
        off = (prediction["standard"].to(torch.float64) - self._standard(target)).abs() * self.deviation
        self.half_width.copy_(off.sort(dim=0).values[rank - 1])
        return {"half_width": float(self.half_width.mean())}

    def certain(self, target: Tensor) -> dict[str, Tensor]:
        """In float64, so that a whole number stays one."""
        return {"standard": self._standard(target)}

    def _standard(self, target: Tensor) -> Tensor:
        return (target.to(torch.float64) - self.mean) / self.deviation


class NumberBandHead(NumberHead):
    """A number and how far below and above it the 5 % and 95 % quantiles lie, which differ from row to row (quantile
    regression, Koenker & Bassett 1978). The interval never moves the number: its own loss sees it fixed.

    `calibrate` finds the factor by which both distances are to be taken so that 90 % of the validation rows lie inside
    (conformalised quantile regression, Romano et al. 2019, by a factor in place of a sum); 1 until then.
    """

    levels: Tensor

    def __init__(
        self, mean: Sequence[float], deviation: Sequence[float], size: Size, *, vector: bool, loss: NumberLoss
    ) -> None:
        super().__init__(mean, deviation, size, vector=vector, loss=loss)
        self.half_width.fill_(1.0)  # here a factor
        self.edges = nn.Linear(size.width, 2 * len(mean))
        tail = (1 - COVERAGE) / 2
        self.register_buffer("levels", torch.tensor([tail, 1 - tail]), persistent=False)

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """{'standard', 'below', 'above'}: float32 [batch] or [batch, n]; the last two are distances."""
        pooled = self.pool(tokens)
        below, above = (F.softplus(exact(self.edges, pooled)) + NEAREST).chunk(2, dim=1)
        found = {"standard": exact(self.outward, pooled), "below": below, "above": above}
        return found if self.vector else {name: value.squeeze(1) for name, value in found.items()}

    def loss(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, Float[Tensor, " batch"]]:
        """{'error', 'interval'} of the standardised value."""
        wanted = self._standard(target).float().reshape(len(target), -1)
        middle, below, above = (
            part.reshape(wanted.shape)
            for part in (prediction["standard"].detach(), prediction["below"], prediction["above"])
        )
        ends = torch.stack([middle - below, middle + above], dim=-1)
        interval = losses.pinball(ends, wanted, torch.ones_like(wanted, dtype=torch.bool), self.levels)
        return {**super().loss(prediction, target, sizes), "interval": interval}

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """{'value', 'low', 'high'}: float64 [batch] or [batch, n]."""
        value = prediction["standard"].to(torch.float64) * self.deviation + self.mean
        below, above = (
            prediction[side].to(torch.float64) * self.deviation * self.half_width for side in ("below", "above")
        )
        return {"value": value, "low": value - below, "high": value + above}

    def calibrate(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, float]:
        """The 90 % quantile of how many distances off the truth was, one for each number; 1 for nine rows or fewer."""
        self.half_width.fill_(1.0)
        rank = math.ceil((len(target) + 1) * COVERAGE)
        if rank > len(target):
            return {}
        off = self._standard(target) - prediction["standard"].to(torch.float64)
        shares = torch.maximum(-off / prediction["below"], off / prediction["above"])
        self.half_width.copy_(shares.sort(dim=0).values[rank - 1])
        return {"interval_factor": float(self.half_width.mean())}

    def certain(self, target: Tensor) -> dict[str, Tensor]:
        """With no distance to either end."""
        none = torch.zeros_like(self._standard(target))
        return {**super().certain(target), "below": none, "above": none}


# ---- classes ---------------------------------------------------------------------------------------------------


class CategoryEncoder(Encoder):
    """A class as one learnt vector. `<unknown>`, the id after the last class, is the mean of all classes weighed by how
    often they occurred: it needs no training rows, which by definition it has none of."""

    single = True
    share: Tensor

    def __init__(self, counts: Sequence[int], size: Size) -> None:
        super().__init__()
        share = np.array(counts, dtype=np.float64) / max(1, sum(counts))
        self.register_buffer("share", _double(share).float(), persistent=False)
        self.embedding = nn.Parameter(torch.randn(len(counts), size.width) * size.width**-0.5)
        self.as_vector = nn.Identity()

    def forward(self, values: Tensor, sizes: Int[Tensor, "batch axes"]) -> Tokens:
        """Class ids [batch], or the chance of each class [batch, class] -> one token a row."""
        if values.ndim == 2:
            return one_token((values @ self.embedding).float())
        table = torch.cat([self.embedding, (self.share.unsqueeze(1) * self.embedding).sum(0, keepdim=True)])
        return one_token(self.as_vector(F.embedding(values.long(), table)))

    def looked_up(self) -> nn.Module:
        """The class's vector."""
        return self.as_vector

    def neutral(self, values: Tensor, sizes: Tensor, found: Tensor) -> Tensor:
        """The average class, as of one that is unknown."""
        return (self.share.unsqueeze(1) * self.embedding).sum(0).to(found.dtype).expand_as(found)


class CategoryHead(Head):
    """One of several classes. Cross-entropy; decoding gives the most probable class and all probabilities after a
    temperature fitted on validation rows (Guo et al. 2017, "On Calibration of Modern Neural Networks").

    The bias starts at the classes' log-frequencies, so that the first steps are not spent on learning them.
    """

    class_weights: Tensor
    temperature: Tensor

    def __init__(
        self, counts: Sequence[int], size: Size, *, class_weights: Sequence[float] | None, smoothing: float
    ) -> None:
        super().__init__()
        self.classes, self.smoothing = len(counts), smoothing
        # one more, at 0: a target of a class that training never saw cannot be learnt from
        weights = [*(class_weights or [1.0] * len(counts)), 0.0]
        self.register_buffer("class_weights", _double(weights).float(), persistent=False)
        self.register_buffer("temperature", torch.ones(()))
        self.pool = Pool(size)
        self.outward = nn.Linear(size.width, self.classes)
        if class_weights is None:
            prior = _double(counts) + 1.0
            _start_at(self.outward, (prior / prior.sum()).log())

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """{'logits': [batch, classes]}."""
        return {"logits": self.outward(self.pool(tokens))}

    def loss(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, Float[Tensor, " batch"]]:
        """{'cross_entropy'}; 0 for a class that training never saw, which also weighs 0."""
        known = target < self.classes
        found = losses.cross_entropy(prediction["logits"], target.clamp(max=self.classes - 1), smoothing=self.smoothing)
        return {"cross_entropy": torch.where(known, found, 0.0)}

    def weight(self, target: Tensor, sizes: Tensor) -> Float[Tensor, " batch"]:
        """The weight of the target's class: mean 1 over the training rows."""
        return self.class_weights[target]

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """{'id': int64 [batch], 'probabilities': float32 [batch, classes]}."""
        logits = prediction["logits"].float()
        return {"id": logits.argmax(1), "probabilities": (logits / self.temperature).softmax(1)}

    def handed(self, prediction: dict[str, Tensor], *, greedy: bool) -> Handed:
        """The class, from the scores of all."""
        logits = prediction["logits"].float()
        return Handed(logits.argmax(1), no_axes(logits), logits)

    def certain(self, target: Tensor) -> dict[str, Tensor]:
        """All the chance to one class."""
        return {"logits": F.one_hot(target, self.classes).float() * CERTAIN}

    def aim(self, prediction: dict[str, Tensor], about: tuple[int, ...]) -> Aim:
        """The log-odds of the class against all others."""
        return lambda other: log_odds(other["logits"], about[0])

    def uncalibrated(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """Its temperature is 1."""
        return _heated(prediction, self.temperature)

    def calibrate(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, float]:
        """Fit the temperature."""
        known = target < self.classes
        logits, target = prediction["logits"][known].float(), target[known]
        # Platt's (1999) smoothed targets: a validation split without a mistake does not mean there are none
        slack = 1.0 / (len(target) + 2)

        def cost(temperature: float) -> float:
            return float(losses.cross_entropy(logits / temperature, target, smoothing=slack).mean())

        self.temperature.fill_(fit_temperature(cost, len(target)))
        return {"temperature": float(self.temperature)}


def log_odds(logits: Float[Tensor, "batch *any class"], of: int) -> Float[Tensor, "batch *any"]:
    """Of one class against all others: unlike its chance, it does not flatten out where the network is sure."""
    logits = logits.float()
    rest = torch.cat([logits[..., :of], logits[..., of + 1 :]], dim=-1)
    return logits[..., of] - rest.logsumexp(-1)


def _heated(prediction: dict[str, Tensor], temperature: Tensor) -> dict[str, Tensor]:
    """Logits from which dividing by the temperature makes what they were."""
    return {**prediction, "logits": prediction["logits"].float() * temperature}


def fit_temperature(cost: Callable[[float], float], rows: int) -> float:
    """The temperature in [0.1, 10] of the lowest cost (golden section: the cost has one valley); 1 for few rows."""
    if rows < FEWEST_TO_CALIBRATE:
        return 1.0
    low, high = math.log(NARROWEST_TEMPERATURE), math.log(WIDEST_TEMPERATURE)
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = cost(math.exp(left)), cost(math.exp(right))
    for _ in range(24):  # 4.6 * 0.618^24 = 5e-5 of log temperature
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = cost(math.exp(left))
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = cost(math.exp(right))
    return math.exp((low + high) / 2)


def _start_at(layer: nn.Linear, bias: Tensor) -> None:
    with torch.no_grad():
        layer.bias.copy_(bias)


# ---- yes and no ------------------------------------------------------------------------------------------------


class BooleanEncoder(Encoder):
    """Yes or no as one of two learnt vectors."""

    single = True

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(2, size.width) * size.width**-0.5)
        self.as_vector = nn.Identity()

    def forward(self, values: Tensor, sizes: Int[Tensor, "batch axes"]) -> Tokens:
        """0 or 1 [batch], or the chances of both [batch, 2] -> one token a row."""
        if values.ndim == 2:
            return one_token((values @ self.embedding).float())
        return one_token(self.as_vector(F.embedding(values.long(), self.embedding)))

    def looked_up(self) -> nn.Module:
        """The vector of either."""
        return self.as_vector

    def neutral(self, values: Tensor, sizes: Tensor, found: Tensor) -> Tensor:
        """Between both."""
        return self.embedding.mean(0).to(found.dtype).expand_as(found)


class BooleanHead(Head):
    """Yes or no: the probability of yes after a fitted temperature, and the answer by a threshold, both from
    validation rows."""

    class_weights: Tensor
    temperature: Tensor
    threshold: Tensor

    def __init__(
        self,
        counts: tuple[int, int],
        size: Size,
        *,
        class_weights: Sequence[float] | None,
        threshold_for: ThresholdFor,
    ) -> None:
        super().__init__()
        self.register_buffer("class_weights", _double(class_weights or [1.0, 1.0]).float(), persistent=False)
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("threshold", torch.full((), 0.5))
        self.threshold_for: ThresholdFor = threshold_for
        self.pool = Pool(size)
        self.outward = nn.Linear(size.width, 1)
        if class_weights is None:
            _start_at(self.outward, _double([math.log((counts[1] + 1) / (counts[0] + 1))]))

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """{'logits': [batch]} of yes."""
        return {"logits": self.outward(self.pool(tokens)).squeeze(1)}

    def loss(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, Float[Tensor, " batch"]]:
        """{'cross_entropy'}."""
        return {"cross_entropy": losses.binary_cross_entropy(prediction["logits"], target)}

    def weight(self, target: Tensor, sizes: Tensor) -> Float[Tensor, " batch"]:
        """The weight of no or yes: mean 1 over the training rows."""
        return self.class_weights[target.long()]

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """{'yes': bool [batch], 'probability': float32 [batch] of yes}."""
        probability = (prediction["logits"].float() / self.temperature).sigmoid()
        return {"yes": probability >= self.threshold, "probability": probability}

    def handed(self, prediction: dict[str, Tensor], *, greedy: bool) -> Handed:
        """Yes or no, from the score of either; equal at the threshold."""
        margin = prediction["logits"].float() / self.temperature - torch.logit(self.threshold)
        scores = torch.stack([torch.zeros_like(margin), margin], 1)
        return Handed(self.decode(prediction)["yes"].long(), no_axes(scores), scores)

    def certain(self, target: Tensor) -> dict[str, Tensor]:
        """All the chance to yes or to no."""
        return {"logits": (target.float() * 2 - 1) * CERTAIN}

    def aim(self, prediction: dict[str, Tensor], about: tuple[int, ...]) -> Aim:
        """The log-odds of yes, or of no."""
        return lambda other: other["logits"].float() * (1 if about[0] else -1)

    def uncalibrated(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """Its temperature is 1; answers by the threshold may be others."""
        return _heated(prediction, self.temperature)

    def calibrate(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, float]:
        """Fit the temperature, then the threshold on the probabilities it gives."""
        self.temperature.fill_(_binary_temperature(prediction["logits"], target))
        probability = self.decode(prediction)["probability"]
        self.threshold.fill_(best_threshold(probability.cpu().numpy(), target.cpu().numpy() > 0, self.threshold_for))
        return {"temperature": float(self.temperature), "threshold": float(self.threshold)}


def _binary_temperature(logits: Tensor, target: Tensor) -> float:
    """One temperature for all yes/no questions, with Platt's (1999) smoothed targets."""
    logits = logits.float()
    smoothed = (target.float() * target.numel() + 1) / (target.numel() + 2)
    return fit_temperature(lambda item: float(losses.binary_cross_entropy(logits / item, smoothed).mean()), len(target))


def best_threshold(probability: np.ndarray, truth: np.ndarray, what: ThresholdFor) -> float:
    """The threshold on `probability` [rows] that gives the best F1 or accuracy against `truth` (bool [rows]), halfway
    between two neighbouring probabilities; of equally good ones that nearest to 0.5. With fewer than five rows on
    either side it stays 0.5."""
    positive = int(truth.sum())
    if what == "none" or min(positive, len(truth) - positive) < FEWEST_OF_EACH:
        return 0.5
    order = np.argsort(-probability, kind="stable")
    ranked = probability[order].astype(np.float64)
    said = np.arange(len(ranked) + 1)  # the first k are answered yes, k = 0 ...
    right = np.append(0, np.cumsum(truth[order]))  # how many of them rightly
    score = 2 * right / (positive + said) if what == "f1" else 2 * right - said  # accuracy up to a constant
    above, below = np.append(1.0, ranked), np.append(ranked, 0.0)
    above[0] = max(1.0, ranked[0] + 1e-3)
    cut, halfway = above > below, (above + below) / 2  # between equal probabilities there is no threshold
    cut[-1] = True  # a probability of 0 reaches the threshold 0
    best = np.flatnonzero(cut & (score >= score[cut].max() - 1e-12))
    return float(halfway[best[np.argmin(np.abs(halfway[best] - 0.5))]])


# ---- dates -----------------------------------------------------------------------------------------------------


class DateEncoder(Encoder):
    """A moment as one token: its standardised place in the training span, and the phase of day, week and year with
    two overtones. Phases are reduced in float64: float32 seconds since 1970 are two minutes apart."""

    single = True
    mean: Tensor
    inverse: Tensor
    periods: Tensor
    overtones: Tensor

    def __init__(self, mean: float, deviation: float, size: Size) -> None:
        super().__init__()
        self.register_buffer("mean", _double(mean), persistent=False)
        self.register_buffer("inverse", _double(1 / spread([deviation])[0]), persistent=False)
        self.register_buffer("periods", _double(PERIODS_S), persistent=False)
        self.register_buffer("overtones", torch.arange(1, HARMONICS + 1).float() * 2 * math.pi, persistent=False)
        self.inward = nn.Linear(1 + 2 * HARMONICS * len(PERIODS_S), size.width)
        self.block = Residual(size.width, size.width, size.dropout)
        self.as_vector = nn.Identity()

    def forward(self, values: Float[Tensor, " batch"], sizes: Int[Tensor, "batch axes"]) -> Tokens:
        """Seconds since 1970 UTC, float64 [batch] -> one token a row."""
        seconds = values.to(torch.float64)
        trend = torch.asinh(((seconds - self.mean) * self.inverse).float()).unsqueeze(1)
        turns = seconds.unsqueeze(1) / self.periods
        angles = ((turns - turns.floor()).float().unsqueeze(-1) * self.overtones).flatten(1)
        features = self.as_vector(torch.cat([trend, angles.sin(), angles.cos()], dim=1))
        return one_token(self.block(exact(self.inward, features)))

    def looked_up(self) -> nn.Module:
        """The trend and the phases: no time at all (their zeros) has no date."""
        return self.as_vector


# ---- tags ------------------------------------------------------------------------------------------------------


class TagsEncoder(Encoder):
    """A set of tags as one token: the sum of their learnt vectors over the root of their number. A tag that training
    never saw counts as the mean tag."""

    single = True
    share: Tensor

    def __init__(self, counts: Sequence[int], size: Size) -> None:
        super().__init__()
        share = np.array(counts, dtype=np.float64) / max(1, sum(counts))
        self.register_buffer("share", _double(share).float(), persistent=False)
        self.embedding = nn.Parameter(torch.randn(len(counts), size.width) * size.width**-0.5)
        self.start = nn.Parameter(torch.zeros(size.width))  # so that no tags at all are something, too
        self.block = Residual(size.width, size.width, size.dropout)

    def forward(self, values: Float[Tensor, "batch tags"], sizes: Int[Tensor, "batch axes"]) -> Tokens:
        """1 for each tag that is there, and how many unknown ones, [batch, tags + 1] -> one token a row."""
        table = torch.cat([self.embedding, (self.share.unsqueeze(1) * self.embedding).sum(0, keepdim=True)])
        there = values.float()
        mixed = there @ table * torch.rsqrt(there.sum(1, keepdim=True).clamp(min=1.0))
        return one_token(self.block(mixed.float() + self.start))


class TagsHead(Head):
    """Any number of tags: one yes/no question each, with one temperature for all and a threshold for each from
    validation rows."""

    temperature: Tensor
    thresholds: Tensor

    def __init__(self, counts: Sequence[int], rows: int, size: Size, *, threshold_for: ThresholdFor) -> None:
        super().__init__()
        self.tags = len(counts)
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("thresholds", torch.full((self.tags,), 0.5))
        self.threshold_for: ThresholdFor = threshold_for
        self.pool = Pool(size)
        self.outward = nn.Linear(size.width, self.tags)
        yes = _double(counts)
        _start_at(self.outward, ((yes + 1) / ((rows - yes).clamp(min=0) + 1)).log())

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """{'logits': [batch, tags]}."""
        return {"logits": self.outward(self.pool(tokens))}

    def loss(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, Float[Tensor, " batch"]]:
        """{'cross_entropy'}, mean over the tags; those that training never saw (the last column) are no question."""
        return {"cross_entropy": losses.binary_cross_entropy(prediction["logits"], target[:, : self.tags])}

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """{'chosen': bool [batch, tags], 'probabilities': float32 [batch, tags]}."""
        probabilities = self._probabilities(prediction)
        chosen: Bool[Tensor, "batch tags"] = probabilities >= self.thresholds
        return {"chosen": chosen, "probabilities": probabilities}

    def handed(self, prediction: dict[str, Tensor], *, greedy: bool) -> Handed:
        """Which tags, from a score of each, zero at its threshold; and no unknown one."""
        scores = prediction["logits"].float() / self.temperature - torch.logit(self.thresholds)
        chosen = self.decode(prediction)["chosen"].float()
        return Handed(F.pad(chosen, (0, 1)), no_axes(scores), F.pad(scores, (0, 1), value=NO), each=True)

    def aim(self, prediction: dict[str, Tensor], about: tuple[int, ...]) -> Aim:
        """The log-odds of the tag."""
        return lambda other: other["logits"][:, about[0]].float()

    def uncalibrated(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """Its temperature is 1; answers by the threshold may be others."""
        return _heated(prediction, self.temperature)

    def calibrate(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, float]:
        """Fit the temperature, then each tag's threshold on the probabilities it gives."""
        truth = target[:, : self.tags]
        self.temperature.fill_(_binary_temperature(prediction["logits"], truth))
        probabilities, true = self._probabilities(prediction).cpu().numpy(), truth.cpu().numpy() > 0
        found = [best_threshold(probabilities[:, tag], true[:, tag], self.threshold_for) for tag in range(self.tags)]
        self.thresholds.copy_(_double(found))
        return {"temperature": float(self.temperature), "threshold_mean": float(self.thresholds.mean())}

    def _probabilities(self, prediction: dict[str, Tensor]) -> Float[Tensor, "batch tags"]:
        return (prediction["logits"].float() / self.temperature).sigmoid()
