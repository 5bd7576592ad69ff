"""A learnt energy over the symbols of many places at once, and its descent.

An answer y gives each place a share of each symbol. Its energy is low where what every place hears from the input agrees
with what all places say of each other:

    E(y) = - sum_i said_i . y_i + 1/2 sum_ij y_i . coupling_ij y_j,    coupling_ij = sum_r places_r[i, j] symbols_r

an energy of pairs, as in a Boltzmann machine (Ackley, Hinton & Sejnowski 1985) or a conditional random field, whose relations
(which places, and which symbols there) are learnt. The answer is found by mirror descent of E minus temperature times
entropy, which is mean-field inference (Krähenbühl & Koltun 2011), while the temperature falls: from a smooth landscape to
the real one, as Du et al. (2024, "Learning Iterative Reasoning through Energy Diffusion") go from noisy to clear ones. The
descent is differentiated through. Its slope is written out, so that it is exported as plain products.

Knows no modality.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

RELATIONS = 8
RATE = 0.5  # of a step, at temperature 1
WARM, COLD = 1.0, 0.2  # temperature at the first step and at the last
SMALLEST = 1e-9

Answer = Float[Tensor, "batch place symbol"]


class PairEnergy(nn.Module):
    """The energy of shares of `symbols` symbols at `places` places, of which no relation is known beforehand but that equal
    symbols may have one."""

    def __init__(self, places: int, symbols: int) -> None:
        super().__init__()
        self.places = nn.Parameter(0.02 * torch.randn(RELATIONS, places, places))
        self.symbols = nn.Parameter(torch.eye(symbols) + 0.1 * torch.randn(RELATIONS, symbols, symbols))

    def forward(self, y: Answer, said: Answer) -> Float[Tensor, " batch"]:
        """E, float32."""
        heard = said.float() * y
        return (0.5 * (y * self.pulled(y)) - heard).sum((1, 2))

    def pulled(self, y: Answer) -> Answer:
        """What all other places say about the symbols of each: the slope of the pairs' energy."""
        places, symbols = 0.5 * (self.places + self.places.mT), 0.5 * (self.symbols + self.symbols.mT)
        apart = 1 - torch.eye(places.shape[1], device=y.device)  # no place speaks of itself
        told = y[:, None] @ symbols  # [batch, relation, place, symbol]
        return ((places * apart) @ told).sum(1)

    def slope(self, y: Answer, said: Answer) -> Answer:
        """dE/dy."""
        return self.pulled(y) - said.float()


def descended(energy: PairEnergy, said: Answer, steps: int) -> list[Answer]:
    """The scores of symbols after 0, 1 ... `steps` steps; their softmax is the answer of that step. After 0 it is what the
    input alone says."""
    found = [said.float()]
    for step in range(steps):
        temperature = WARM * (COLD / WARM) ** (step / max(1, steps - 1))
        scores = found[-1]
        slope = energy.slope(scores.softmax(-1), said)
        found.append((1 - RATE * temperature) * scores - RATE * slope)
    return found
