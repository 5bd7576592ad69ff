"""How a series becomes tokens, and tokens a forecast.

All inside the network, differentiable down to the raw values: standardising, augmentation, convolutions or patches, and the
forecast in the user's unit. Not here: the layers (nn/series.py), windows of long tables (data/windows.py).
"""

import math
from collections.abc import Mapping
from statistics import NormalDist

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from endwise import losses
from endwise.errors import require
from endwise.modalities.series import Series, SeriesContract, continued
from endwise.nn.blocks import Dropout
from endwise.nn.interface import Aim, Encoder, Handed, Head, Observed, Tokens
from endwise.nn.series import (
    FIRST_KERNEL,
    ChannelBlock,
    Convolution,
    Energies,
    ScalesBlock,
    hidden_stretch,
    jittered,
    last_there,
    moments,
    patches,
    standardised,
)
from endwise.nn.size import Size

PATCH, PATCH_STRIDE = 16, 8  # PatchTST (Nie et al. 2023)
FULL_STEPS = 1024  # of the first block: longer series are thinned by the first convolution
FEW_STEPS = 128  # below, no block halves the steps
WINDOW_PASSES = 10  # neighbouring windows share all steps but one, so that each step is seen many times in a pass
JITTER, SCALING, MASK = 0.03, 0.1, 0.1
NARROWEST = 0.05  # factor that calibration may apply to the bands
WIDEST = 20.0
FIRST_WEIGHT = 1e-3
FEWEST_TO_CALIBRATE = 100  # values


def encoder_of(declared: Series, contract: SeriesContract, size: Size) -> "SeriesEncoder":
    """Patches where they are asked for, and by default where rows have one length."""
    require(
        declared.form != "patches" or contract.length is not None,
        field="Series.form",
        got=f"patches of rows of {contract.shortest} to {contract.longest} steps",
        allowed="convolution, where rows differ in length",
        fix="write form: convolution, or leave it out",
    )
    if declared.form == "convolution" or contract.length is None:
        return ConvolutionEncoder(declared, contract, size)
    return PatchEncoder(declared, contract, size)


class SeriesEncoder(Encoder):
    """Values [batch, step, channel] with NaN where one is missing, and sizes [batch, 1] -> tokens, and `observed`: the values
    themselves, for a head that continues them.

    `augment` False leaves the training rows as they are.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, declared: Series, contract: SeriesContract, *, random: bool) -> None:
        super().__init__()
        self.declared, self.contract = declared, contract
        self.passes = WINDOW_PASSES if contract.window else None
        self.register_buffer("mean", torch.tensor(contract.mean, dtype=torch.float32), persistent=False)
        self.register_buffer("deviation", torch.tensor(contract.deviation, dtype=torch.float32), persistent=False)
        self.jitter = JITTER * random if declared.jitter is None else declared.jitter
        self.scaling = SCALING * random if declared.scaling is None else declared.scaling
        self.hidden = MASK * random if declared.mask is None else declared.mask

    def neutral(self, values: Tensor, sizes: Int[Tensor, "batch 1"], found: Tensor) -> Tensor:
        """The mean of each channel over the row: a level is no shape."""
        real = (torch.arange(found.shape[1], device=found.device) < sizes)[..., None] & ~torch.isnan(found)
        mean = torch.where(real, found, 0.0).sum(1, keepdim=True) / real.sum(1, keepdim=True).clamp(min=1)
        return mean.expand_as(found)

    @property
    def channel_tokens(self) -> bool:
        """Whether the tokens are as many for each channel, channel after channel."""
        return False

    def prepared(
        self, values: Float[Tensor, "batch step channel"], sizes: Int[Tensor, "batch 1"]
    ) -> tuple[Float[Tensor, "batch step channel"], Bool[Tensor, "batch step channel"], Bool[Tensor, "batch step"]]:
        """The values in deviations, which of them are there, and which steps are the row's."""
        values = values.float()
        real = torch.arange(values.shape[1], device=values.device) < sizes
        there = real[..., None] & ~torch.isnan(values)
        return standardised(values, there, self.mean, self.deviation), there, real

    def changed(
        self, x: Tensor, there: Tensor, sizes: Int[Tensor, "batch 1"]
    ) -> tuple[Float[Tensor, "batch step channel"], Bool[Tensor, "batch step channel"]]:
        """What training looks at: noise, gains and a hidden stretch."""
        if not (self.training and self.augment):
            return x, there
        if self.jitter or self.scaling:
            x = jittered(x, jitter=self.jitter, scaling=self.scaling)
        if self.hidden:
            there = there & ~hidden_stretch(sizes[:, 0], self.hidden, x.shape[1])
        return torch.where(there, x, 0.0), there


class ConvolutionEncoder(SeriesEncoder):
    """Kernels of several widths over all channels together, for series of any length: a first convolution that thins long
    series, residual blocks that halve them, and one token of the energies of the first filters."""

    def __init__(self, declared: Series, contract: SeriesContract, size: Size) -> None:
        super().__init__(declared, contract, random=True)
        channels = len(contract.channels)
        usual = contract.length or math.sqrt(contract.shortest * contract.longest)
        self.stride = 2 ** max(0, round(math.log2(max(1.0, usual / FULL_STEPS))))
        halved = usual / self.stride > FEW_STEPS
        self.first = Convolution(2 * channels, size.width, FIRST_KERNEL, stride=self.stride)
        self.energies = Energies(size.width, size)
        self.blocks = nn.ModuleList([ScalesBlock(size) for _ in range(size.depth)])
        self.halving = nn.ModuleList(
            [Convolution(size.width, size.width, 3, stride=2) for _ in range(size.depth - 1)] if halved else []
        )
        self.instance = nn.Linear(2 * channels, size.width) if declared.normalise == "instance" else None
        self.dropout = Dropout(size.dropout)
        self.norm = nn.RMSNorm(size.width)

    def forward(self, values: Float[Tensor, "batch step channel"], sizes: Int[Tensor, "batch 1"]) -> Tokens:
        plain, known, mask = self.prepared(values, sizes)
        x, there = self.changed(plain, known, sizes)
        own = None
        if self.instance is not None:
            mean, deviation = moments(x, there)
            x = torch.where(there, (x - mean) / deviation, 0.0)
            own = self.instance(torch.cat([mean, deviation.log()], dim=-1))
        x = self.first(torch.cat([x, there.float()], dim=-1), mask).float()
        mask = mask[:, :: self.stride]
        energy = self.energies(x, mask)
        x = self.dropout(x if own is None else x + own)
        for index, block in enumerate(self.blocks):
            if 0 < index <= len(self.halving):
                x, mask = self.halving[index - 1](x, mask).float(), mask[:, ::2]
            x = block(x, mask)
        tokens = self.norm(torch.cat([x.float(), energy.float() if own is None else (energy + own).float()], dim=1))
        whole = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        return Tokens(values=tokens, mask=whole, observed={"series": Observed(plain, known)})


class PatchEncoder(SeriesEncoder):
    """Stretches of 16 steps of each channel for itself, under attention within the channel (PatchTST): one set of weights for
    all channels. Tokens lie channel after channel. Where steps have times, each channel sees the gaps beside its values."""

    def __init__(self, declared: Series, contract: SeriesContract, size: Size) -> None:
        super().__init__(declared, contract, random=False)
        assert contract.length is not None
        self.patch = min(PATCH, contract.length)
        self.stride = max(1, min(PATCH_STRIDE, self.patch // 2))
        self.timed = declared.times is not None
        self.inward = nn.Linear((3 if self.timed else 2) * self.patch, size.width)
        self.channel = nn.Parameter(torch.zeros(len(contract.channels), size.width))
        self.instance = nn.Linear(2, size.width) if declared.normalise == "instance" else None
        self.dropout = Dropout(size.dropout)
        self.blocks = nn.ModuleList([ChannelBlock(size, len(contract.channels)) for _ in range(size.depth)])
        self.norm = nn.RMSNorm(size.width)

    @property
    def channel_tokens(self) -> bool:
        return True

    def forward(self, values: Float[Tensor, "batch step channel"], sizes: Int[Tensor, "batch 1"]) -> Tokens:
        assert self.contract.length is not None
        values = values[:, torch.arange(self.contract.length, device=values.device)]  # what follows is padding
        plain, known, _ = self.prepared(values, sizes)
        x, there = self.changed(plain, known, sizes)
        gaps = x[..., -1:].expand_as(x)
        own: Tensor | None = None
        if self.instance is not None:
            mean, deviation = moments(x, there)
            x = torch.where(there, (x - mean) / deviation, 0.0)
            own = self.instance(torch.stack([mean, deviation.log()], dim=-1))[:, 0]
        parts = (x, there.float(), gaps) if self.timed else (x, there.float())
        cut = [patches(part, length=self.patch, stride=self.stride) for part in parts]
        tokens = self.dropout(self.inward(torch.cat(cut, dim=-1)).float())
        tokens = tokens + self.channel[:, None] + (0.0 if own is None else own[:, :, None].float())
        flat = tokens.flatten(1, 2)
        mask = torch.ones(flat.shape[:2], dtype=torch.bool, device=values.device)
        for block in self.blocks:
            flat = block(flat, mask)
        return Tokens(values=self.norm(flat), mask=mask, observed={"series": Observed(plain, known)})


class _Ahead:
    """An input that is known ahead of a forecast of `steps` steps."""

    def __init__(self, name: str, length: int, steps: int, encoder: SeriesEncoder) -> None:
        contract = encoder.contract
        self.name, self.length, self.steps = name, length, steps
        self.timed = encoder.declared.times is not None
        self.channels = len(contract.channels) + self.timed
        self.usual = contract.mean[-1] / contract.deviation[-1]  # gap, in deviations, where the last channel are gaps

    def future(self, values: Float[Tensor, "batch step channel"]) -> Float[Tensor, "batch future channel"]:
        """Its future steps; where they have times, also how long after the last known step they are, in usual forecasts."""
        values = values[:, torch.arange(self.length - self.steps, self.length, device=values.device)]
        if not self.timed:
            return values
        since = (values[..., -1:] + self.usual).cumsum(1) / (self.usual * self.steps)
        return torch.cat([values, since], dim=-1)


class SeriesHead(Head):
    """All steps of all channels at once: the last value, plus the past through one linear map for all channels (as NLinear;
    Zeng et al. 2023), plus what the tokens say; and every quantile a distance above or below the median, so that none cross.

    All of it in deviations of the row's own past, so that a level never seen is continued from where it is. A channel that
    no input has is answered by the tokens alone, in deviations of the training rows. `calibrate` widens or narrows all bands by
    one factor, so that the outermost hold as many validation values as they say.
    """

    mean: Tensor
    deviation: Tensor
    levels: Tensor
    factor: Tensor
    to_scale: Tensor
    to_start: Tensor

    def __init__(self, declared: Series, contract: SeriesContract, size: Size) -> None:
        super().__init__()
        assert contract.length is not None
        self.declared, self.contract, self.width = declared, contract, size.width
        self.steps, self.channels = contract.length, len(contract.channels)
        self.register_buffer("mean", torch.tensor(contract.mean, dtype=torch.float32), persistent=False)
        self.register_buffer("deviation", torch.tensor(contract.deviation, dtype=torch.float32), persistent=False)
        self.register_buffer("levels", torch.tensor(declared.quantiles, dtype=torch.float32), persistent=False)
        self.register_buffer("factor", torch.ones(()))
        self.middle = declared.quantiles.index(0.5)
        lines = len(declared.quantiles) + (declared.point == "mean")
        self.norm = nn.LayerNorm(3 * size.width)
        self.inward = nn.Linear(3 * size.width, size.width)
        self.dropout = Dropout(size.dropout)
        self.channel = nn.Parameter(torch.zeros(self.channels, size.width))
        self.outward = nn.Linear(size.width, self.steps * lines)
        nn.init.normal_(self.outward.weight, std=FIRST_WEIGHT)  # the first forecast is the last value again
        with torch.no_grad():
            self.outward.bias.copy_(self._first_lines(lines).expand(self.steps, lines).reshape(-1))
        self.past: nn.Linear | None = None
        self.source: str | None = None
        self.places: list[int] = []
        self.per_channel = False
        self.ahead = nn.ModuleList()
        self.ahead_of: list[_Ahead] = []

    def meet(self, encoders: Mapping[str, Encoder]) -> None:
        """Which input it continues, and which are known ahead of it."""
        series = {name: item for name, item in encoders.items() if isinstance(item, SeriesEncoder)}
        past = {name: item.contract for name, item in series.items() if not item.declared.known}
        found = continued(self.declared, self.contract, past)
        if found is not None:
            self.source, self.places = found
            own = series[self.source]
            self.per_channel = own.channel_tokens
            if own.contract.length is not None:
                self.past = nn.Linear(own.contract.length, self.steps)
                nn.init.zeros_(self.past.weight)
                nn.init.zeros_(self.past.bias)
            scale = torch.tensor([own.contract.deviation[place] for place in self.places])
            start = torch.tensor([own.contract.mean[place] for place in self.places])
            self.register_buffer("to_scale", scale / self.deviation, persistent=False)
            self.register_buffer("to_start", (start - self.mean) / self.deviation, persistent=False)
        for name, item in series.items():
            length = item.contract.length
            if item.declared.known and length is not None and length >= self.steps:
                last = nn.Linear(self.width, self.channels)
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
                found_ahead = _Ahead(name, length, self.steps, item)
                self.ahead.append(nn.Sequential(nn.Linear(found_ahead.channels, self.width), nn.SiLU(), last))
                self.ahead_of.append(found_ahead)

    def _first_lines(self, lines: int) -> Tensor:
        """Of a normal distribution: the distance of each quantile from its neighbour on the side of the median."""
        at = [NormalDist().inv_cdf(level) for level in self.declared.quantiles]
        steps = [
            0.0 if index == self.middle else abs(value - at[index + (1 if index < self.middle else -1)])
            for index, value in enumerate(at)
        ]
        first = [
            0.0 if index == self.middle else math.log(math.expm1(max(step, 1e-3))) for index, step in enumerate(steps)
        ]
        return torch.tensor(first + [0.0] * (lines - len(first)))

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """{'quantiles': float32 [batch, step, channel, level], 'mean': [batch, step, channel]} in deviations."""
        lines = self._lines(tokens)
        middle, start, scale = lines[..., self.middle], lines.new_zeros(()), lines.new_ones(())
        if self.source is not None:
            own = tokens.observed[self.source]
            values, there = own.values[..., self.places] * self.to_scale + self.to_start, own.there[..., self.places]
            scale = torch.where(there.any(1, keepdim=True), moments(values, there)[1], 1.0)
            start = last_there(values, there)
            if self.past is not None:
                steps = torch.arange(self.past.in_features, device=values.device)  # what follows is padding
                values, there = values[:, steps], there[:, steps]
                relative = torch.where(there, (values - start) / scale, 0.0)
                middle = middle + self.past(relative.transpose(1, 2)).transpose(1, 2).float()
        for layers, known in zip(self.ahead, self.ahead_of, strict=True):
            middle = middle + layers(known.future(tokens.observed[known.name].values)).float()
        gaps = F.softplus(lines[..., : len(self.levels)])
        above = gaps[..., self.middle + 1 :].cumsum(-1)
        below = gaps[..., : self.middle].flip(-1).cumsum(-1).flip(-1)
        apart = torch.cat([-below, torch.zeros_like(middle[..., None]), above], dim=-1)
        median = start + scale * middle
        found = {"quantiles": median[..., None] + scale[..., None] * apart}
        found["mean"] = median + scale * lines[..., -1] if self.declared.point == "mean" else median
        return found

    def _lines(self, tokens: Tokens) -> Float[Tensor, "batch step channel line"]:
        """What the tokens say about each channel: all of them, and its own where it has some."""
        pooled = tokens.pooled().float()
        rows = pooled.shape[0]
        whole = pooled[:, None].expand(rows, self.channels, self.width)
        parts = [whole, whole, whole]
        if self.per_channel and self.source is not None:
            values = tokens.values[:, tokens.spans[self.source]].float()
            count = tokens.observed[self.source].values.shape[2]
            own = values.reshape(rows, count, -1, self.width)[:, self.places]
            parts = [whole, own.mean(2), own[:, :, -1]]
        hidden = F.silu(self.inward(self.norm(torch.cat(parts, dim=-1)))) + self.channel
        lines: Tensor = self.outward(self.dropout(hidden)).float()
        return lines.reshape(rows, self.channels, self.steps, -1).transpose(1, 2)

    def loss(
        self, prediction: dict[str, Tensor], target: Float[Tensor, "batch step channel"], sizes: Tensor
    ) -> dict[str, Float[Tensor, " batch"]]:
        """{'pinball'} and with a mean {'mse'}, both in deviations of the training rows, over the values that are known."""
        target, there = self._target(target)
        found = {"pinball": losses.pinball(prediction["quantiles"], target, there, self.levels)}
        if self.declared.point == "mean":
            found["mse"] = losses.mse_there(prediction["mean"], target, there)
        return found

    def _target(self, target: Tensor) -> tuple[Tensor, Tensor]:
        target = target[:, : self.steps].float()
        there = ~torch.isnan(target)
        return standardised(target, there, self.mean, self.deviation), there

    def weight(self, target: Tensor, sizes: Tensor) -> Float[Tensor, " batch"]:
        """The share of its values that is known."""
        return (~torch.isnan(target[:, : self.steps])).float().mean((1, 2))

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """{'value': [batch, step, channel], 'quantiles': [batch, step, channel, level]} in the unit."""
        quantiles = prediction["quantiles"].float()
        median = quantiles[..., self.middle, None]
        wide = (median + self.factor * (quantiles - median)) * self.deviation[:, None] + self.mean[:, None]
        return {"value": prediction["mean"].float() * self.deviation + self.mean, "quantiles": wide}

    def handed(self, prediction: dict[str, Tensor], *, greedy: bool) -> Handed:
        """The forecast itself, in the unit of the rows."""
        values = self.decode(prediction)["value"]
        return Handed(values, torch.full((values.shape[0], 1), values.shape[1], device=values.device))

    def aim(self, prediction: dict[str, Tensor], about: tuple[int, ...]) -> Aim:
        """One step of one channel, in deviations of the training rows."""
        return lambda other: other["mean"][:, about[0], about[1]].float()

    def calibrate(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, float]:
        """The factor of the bands (conformalised quantile regression, Romano et al. 2019, by a factor in place of a sum)."""
        truth, there = self._target(target)
        quantiles = prediction["quantiles"].float()
        median = quantiles[..., self.middle]
        over = (truth - median) / (quantiles[..., -1] - median).clamp(min=1e-6)
        under = (median - truth) / (median - quantiles[..., 0]).clamp(min=1e-6)
        needed = torch.maximum(over, under)[there].sort().values
        if len(needed) < FEWEST_TO_CALIBRATE:
            return {}
        nominal = self.declared.quantiles[-1] - self.declared.quantiles[0]
        self.factor.copy_(needed[min(len(needed) - 1, int(nominal * len(needed)))].clamp(NARROWEST, WIDEST))
        return {"band_factor": float(self.factor)}


__all__ = ["ConvolutionEncoder", "PatchEncoder", "SeriesEncoder", "SeriesHead", "encoder_of"]
