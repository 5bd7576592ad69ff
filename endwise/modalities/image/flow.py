"""Pictures drawn out of noise: what the inputs say -> one of the pictures that suit, by flow matching.

A head that answers with one picture alone has to answer with the mean of all that suit, which is a blur; this one learns
how they are spread, and draws one of them. Not here: the network of velocities and the way along it (endwise/nn/flow.py),
pictures that lie on the picture they are made of (head.py).
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from endwise.errors import ModelError, require
from endwise.modalities.image import Image, ImageContract
from endwise.nn.flow import LEVELS, Velocities, followed, noise
from endwise.nn.interface import Head, Tokens
from endwise.nn.size import Size
from endwise.nn.vision import resize, scaled

GRID = 16  # places a side of the finest grid, or up to twice as many: larger pictures are taken in squares of pixels
WIDTH_SHARE, WIDTH_STEP = 0.75, 8  # of the tokens' width
HALF_SCALE = 0.5  # pixels become (pixel - mean) / this: about as wide as the noise
UNTOLD_SHARE = 0.1  # of the training rows: what is drawn when nothing is told (Ho & Salimans 2022)
TIMES = (0.2, 0.5, 0.8)  # outside of training the loss is that of these, with always the same noise
VELOCITY, UNTOLD = "velocity", "untold"


class FlowHead(Head):
    """A picture [channel, *canvas]; canvas: height and width in pixels, the contract's rounded up to whole squares."""

    draws = True
    passes = 400  # over the training rows: noise and time are drawn anew each time, so that few are learnt by heart

    mean: Tensor

    def __init__(self, declared: Image, contract: ImageContract, size: Size) -> None:
        super().__init__()
        self.sizes = (contract.height, contract.width)
        patch = 2 ** max(0, math.floor(math.log2(max(self.sizes) / GRID)))
        step = patch * 2 ** (LEVELS - 1)
        self.canvas = tuple(-(-side // step) * step for side in self.sizes)
        self.channels, self.steps, self.guidance = contract.channels, declared.steps, declared.guidance
        width = max(WIDTH_STEP, round(WIDTH_SHARE * size.width / WIDTH_STEP) * WIDTH_STEP)
        self.net = Velocities(contract.channels, width, size.width, patch=patch)
        self.norm = nn.LayerNorm(size.width)
        self.nothing = nn.Parameter(torch.randn(size.width) * 0.02)  # stands where nothing is told
        self.register_buffer("mean", torch.tensor(contract.mean)[:, None, None], persistent=False)

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """{'told': [batch, token, width], 'mask': which of them are real, 'seed': 0 for all rows}."""
        told = self.norm(tokens.values)
        return {"told": told, "mask": tokens.mask, "seed": torch.zeros_like(tokens.mask[:, 0], dtype=torch.int64)}

    def loss(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, Float[Tensor, " batch"]]:
        """{'velocity': mean squared error of the velocity; 2 or so at first}. In training at a time drawn from a
        logistic of a normal number (Esser et al. 2024), else the mean over TIMES."""
        told, value = prediction["told"], self._value(target, sizes)
        if not self.training:
            return {VELOCITY: self._measured(told, prediction["mask"], value)}
        rows = value.shape[0]
        untold = torch.rand(rows, device=value.device) < UNTOLD_SHARE
        told = torch.where(untold[:, None, None], self.nothing, told)
        time = torch.randn(rows, device=value.device).sigmoid()
        return {VELOCITY: self._error(told, prediction["mask"], value, time, torch.randn_like(value))}

    def measures(
        self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor
    ) -> dict[str, Float[Tensor, "batch 2"]]:
        """{'untold': the loss when nothing is told, and 1}: what the inputs are worth."""
        told = self._untold(prediction["told"])
        found = self._measured(told, prediction["mask"], self._value(target, sizes))
        return {UNTOLD: torch.stack([found, torch.ones_like(found)], dim=1)}

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """{'values': float32 [batch, channel, *canvas] from 0 to 1 and a little beyond, 'sizes': int64 [batch, 2], the
        answer's height and width, 'drawn_from': its seed}."""
        told, mask = prediction["told"].float(), prediction["mask"]
        guided = self.guidance != 1
        if guided:  # both are asked as one batch: with what is told, and with nothing
            told, mask = torch.cat([told, self._untold(told)]), torch.cat([mask, mask])

        def velocity(x: Tensor, time: Tensor) -> Tensor:
            if guided:
                both = self.net(torch.cat([x, x]), torch.cat([time, time]), told, mask)
                asked, alone = both.unflatten(0, (2, -1)).unbind(0)
                found: Tensor = alone + self.guidance * (asked - alone)
            else:
                found = self.net(x, time, told, mask)
            return found

        start = noise(prediction["seed"], (self.channels, *self.canvas))
        drawn = followed(velocity, start, self.steps) * HALF_SCALE + self.mean
        sizes = torch.tensor(self.sizes, device=drawn.device).expand(drawn.shape[0], 2)
        return {"values": drawn.float(), "sizes": sizes, "drawn_from": prediction["seed"]}

    def sample(
        self, prediction: dict[str, Tensor], *, count: int, temperature: float, top_p: float, chance: torch.Generator
    ) -> dict[str, Tensor]:
        """`count` pictures a row, each with the seed that `decode` draws it again from."""
        for name, value in (("temperature", temperature), ("top_p", top_p)):
            require(
                value == 1, field=name, got=value, allowed="1: a picture is not drawn symbol after symbol",
                fix=f"leave {name} out; guidance: in the recipe says how closely a picture follows what it is told",
                error=ModelError,
            )  # fmt: skip
        rows = prediction["mask"].shape[0]
        seeds = torch.randint(0, 2**31, (rows * count,), generator=chance, device=chance.device)
        wide = {name: value.repeat_interleave(count, 0) for name, value in prediction.items()}
        drawn = self.decode({**wide, "seed": seeds})
        return {name: value.reshape(rows, count, *value.shape[1:]) for name, value in drawn.items()}

    def _value(self, target: Tensor, sizes: Int[Tensor, "batch 2"]) -> Float[Tensor, "batch channel height width"]:
        """What the flow leads to: stored pixels on the canvas, about as wide as the noise."""
        with torch.autocast(target.device.type, enabled=False):
            found = resize(scaled(target), sizes, *self.canvas)
        return (found.permute(0, 3, 1, 2) - self.mean) / HALF_SCALE

    def _untold(self, told: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        return self.nothing.to(told.dtype).expand_as(told)

    def _measured(self, told: Tensor, mask: Tensor, value: Tensor) -> Float[Tensor, " batch"]:
        """The error at a few times, whatever the rows beside it."""
        errors = []
        for place, time in enumerate(TIMES):
            start = noise(torch.tensor([place], device=value.device), tuple(value.shape[1:])).expand_as(value)
            errors.append(self._error(told, mask, value, torch.full_like(value[:, 0, 0, 0], time), start))
        return torch.stack(errors).mean(0)

    def _error(
        self, told: Tensor, mask: Tensor, value: Tensor, time: Float[Tensor, " batch"], start: Tensor
    ) -> Float[Tensor, " batch"]:
        share = time[:, None, None, None]
        found: Tensor = self.net((1 - share) * start + share * value, time, told, mask)
        return (found.float() - (value - start)).square().flatten(1).mean(1)
