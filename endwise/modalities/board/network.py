"""The network side of boards: cells to tokens, and tokens to a whole board by descending an energy of all its cells.

Not here: the energy and its descent (endwise/nn/energy.py), reading and writing (__init__.py).
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.errors import DataError, require
from endwise.modalities.board import STEPS, BoardContract
from endwise.nn.blocks import Dropout, Transformer, attend
from endwise.nn.energy import PairEnergy, descended
from endwise.nn.interface import Aim, Encoder, Head, Tokens, surer
from endwise.nn.scalars import FEWEST_TO_CALIBRATE, exact, fit_temperature, full_precision
from endwise.nn.size import Size

LOOKED_AT = 3  # places of the descent that the loss looks at: a third, two thirds, and the end
CONTRAST = 0.1  # what the order of energies counts
SPOILT = 0.15  # share of the cells that another symbol is put into, for the energy to tell apart
NOT_MEASURED = 1e30  # above any energy
LEVELS = 33  # stored quantiles of the energies of validation rows


class BoardEncoder(Encoder):
    """Symbols -> a token for each cell: its symbol's vector and its place's, in context."""

    peak_rate = 1e-3

    def __init__(self, contract: BoardContract, size: Size) -> None:
        super().__init__()
        self.cells = contract.cells
        self.symbol = nn.Embedding(len(contract.symbols) + 1, size.width)
        self.row = nn.Parameter(torch.randn(contract.rows, 1, size.width))
        self.column = nn.Parameter(torch.randn(1, contract.columns, size.width))
        self.dropout = Dropout(size.dropout)
        self.context = Transformer(size, causal=False)

    def forward(self, values: Int[Tensor, "batch cell"], sizes: Int[Tensor, "batch 0"]) -> Tokens:
        """Row by row."""
        mask = torch.ones(values.shape, dtype=torch.bool, device=values.device)
        x = self.symbol(values) + (self.row + self.column).flatten(0, 1)
        return Tokens(self.context(self.dropout(x), mask), mask)

    def neutral(self, values: Tensor, sizes: Tensor, found: Tensor) -> Tensor:
        """The mean of all symbols."""
        return self.symbol.weight.mean(0).to(found.dtype).expand_as(found)


class BoardHead(Head):
    """What is said of each cell (by its own token where the answer lies on an input board, else by looking at all tokens),
    then the descent of an energy of all cells. The loss: the true symbols' surprisal along the descent, and that the true
    board has a lower energy than one with some cells spoilt."""

    energies: Tensor
    temperature: Tensor

    def __init__(self, contract: BoardContract, size: Size, *, on: str | None, steps: int) -> None:
        super().__init__()
        self.on, self.steps, self.cells, self.symbols_known = on, steps, contract.cells, len(contract.symbols)
        self.norm = nn.RMSNorm(size.width)
        self.asked = nn.Parameter(torch.randn(self.cells, size.width) * 0.02)
        self.query, self.both = nn.Linear(size.width, size.width), nn.Linear(size.width, 2 * size.width)
        self.heads = size.heads
        self.say = nn.Linear(size.width, self.symbols_known)
        self.energy = PairEnergy(self.cells, self.symbols_known)
        self.register_buffer("energies", torch.full((LEVELS,), NOT_MEASURED))
        self.register_buffer("temperature", torch.ones(()))

    def meet(self, encoders: Mapping[str, Encoder]) -> None:
        """The board it lies on has as many cells."""
        if self.on is None:
            return
        encoder = encoders[self.on]
        cells = encoder.cells if isinstance(encoder, BoardEncoder) else None
        require(
            cells == self.cells,
            field=f"the cells of {self.on}", got=cells, allowed=f"{self.cells}, as the answer has",
            fix="give boards of the same size on both sides", error=DataError,
        )  # fmt: skip

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """{'said': scores before the descent, 'along': scores at places of the descent, the end last [batch, place, cell,
        symbol], 'energy': of the answer [batch]}, float32."""
        said = exact(self.say, self.norm(self._cells(tokens)))
        # below the best symbol of each cell: the energy is then what the answer costs beyond that, however much was given
        said = said - said.amax(-1, keepdim=True)
        with full_precision(said):
            path = descended(self.energy, said, min(self.steps, STEPS) if self.training else self.steps)
            along = torch.stack([path[len(path) * turn // LOOKED_AT - 1] for turn in range(1, LOOKED_AT + 1)], 1)
            answer = F.one_hot(along[:, -1].argmax(-1), self.symbols_known).float()
            return {"said": said, "along": along, "energy": self.energy(answer, said)}

    def _cells(self, tokens: Tokens) -> Float[Tensor, "batch cell width"]:
        if self.on is not None:
            return tokens.values[:, tokens.spans[self.on]]
        batch, split = tokens.values.shape[0], (self.heads, -1)
        query = self.query(self.asked).unflatten(-1, split).transpose(0, 1).expand(batch, -1, -1, -1)
        key, value = self.both(tokens.values).chunk(2, dim=-1)
        key, value = (part.unflatten(-1, split).transpose(1, 2) for part in (key, value))
        mixed = attend(query.to(value.dtype), key, value, tokens.mask[:, None, None])
        return self.asked + mixed.transpose(1, 2).flatten(2)

    def loss(
        self, prediction: dict[str, Tensor], target: Int[Tensor, "batch cell"], sizes: Tensor
    ) -> dict[str, Float[Tensor, " batch"]]:
        """{'cells', 'contrast'}; cells whose symbol training never saw are left out."""
        along, said = prediction["along"].float(), prediction["said"].float()
        known = target < self.symbols_known
        named = torch.where(known, target, 0)
        chosen = named[:, None, :, None].expand(-1, LOOKED_AT, -1, 1)
        cost = -along.log_softmax(-1).gather(-1, chosen)[..., 0].mean(1)
        cost = torch.where(known, cost, 0.0).sum(1) / known.sum(1).clamp(min=1)
        with full_precision(said):
            energies = [
                self.energy(F.one_hot(board, self.symbols_known).float(), said)
                for board in (named, self._spoilt(named))
            ]
        return {"cells": cost, "contrast": CONTRAST * F.softplus(energies[0] - energies[1])}

    @property
    def num_spoilt(self) -> int:
        """Cells of a spoilt board that have another symbol."""
        return max(1, round(SPOILT * self.cells))

    def _spoilt(self, board: Int[Tensor, "batch cell"]) -> Int[Tensor, "batch cell"]:
        """With another symbol in some cells: drawn in training, else always the same ones, spread over the board."""
        if self.training:
            first = torch.rand(board.shape, device=board.device).argsort(1)[:, : self.num_spoilt]
            ahead = torch.randint(1, max(2, self.symbols_known), first.shape, device=board.device)
        else:
            first = (
                torch.linspace(0, self.cells - 1, self.num_spoilt, device=board.device).long().expand(len(board), -1)
            )
            ahead = torch.ones_like(first)
        return board.scatter(1, first, (board.gather(1, first) + ahead) % self.symbols_known)

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """{'symbols': int64 [batch, cell], 'cells': the chance of each, 'sure': of the whole board, 'energy': of the
        answer, 'surprise': the share of validation rows with a lower one; -1: not measured}."""
        scores = prediction["along"][:, -1].float()
        chance = (scores / self.temperature).softmax(-1).amax(-1)
        below = (self.energies < prediction["energy"][:, None]).float().mean(1)
        measured = self.energies[0] < NOT_MEASURED
        return {
            "symbols": scores.argmax(-1),
            "cells": chance,
            "sure": chance.clamp(min=1e-12).log().sum(-1).exp(),
            "energy": prediction["energy"],
            "surprise": torch.where(measured, below, -1.0),
        }

    def aim(self, prediction: dict[str, Tensor], about: tuple[int, ...]) -> Aim:
        """The log-probability of the symbols in these cells."""
        cells = list(about)
        said = prediction["along"][0, -1, cells].argmax(-1)
        return lambda other: surer(other["along"][:, -1, cells], said).sum(1)

    def uncalibrated(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """Its temperature is 1."""
        return {**prediction, "along": prediction["along"].float() * self.temperature}

    @torch.no_grad()
    def calibrate(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, float]:
        """The temperature at which the chance of whole boards is that of being right, and the quantiles of the energies."""
        scores, count = prediction["along"][:, -1].float(), len(target)
        right = (scores.argmax(-1) == target).all(-1).float()
        wanted = (right * count + 1) / (count + 2)  # Platt's (1999) smoothed targets

        def cost(temperature: float) -> float:
            chance = (scores / temperature).log_softmax(-1).amax(-1).sum(-1).exp().clamp(1e-7, 1 - 1e-7)
            return float(F.binary_cross_entropy(chance, wanted))

        self.temperature.fill_(fit_temperature(cost, count))
        found: dict[str, Any] = {"temperature": float(self.temperature)}
        if count >= FEWEST_TO_CALIBRATE:
            shares = torch.linspace(0, 1, LEVELS, device=scores.device)
            self.energies.copy_(prediction["energy"].float().quantile(shares))
            found["energy_median"] = float(self.energies[LEVELS // 2])
        return found
