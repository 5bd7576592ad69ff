"""The network side of a graph: messages from the outermost visits inwards, hop by hop. Plain torch: a sum over what lies behind
a visit is one scatter, which every export format knows. Not here: which visits there are (index.py)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.modalities.graph import KNOWN, GraphContract
from endwise.nn.blocks import Dropout
from endwise.nn.interface import Encoder, Tokens
from endwise.nn.size import Size

DIRECTIONS = 3
LOUDEST = 4.0  # of a message's logarithmic weight, so that no sum overflows


class Hop(nn.Module):
    """One step inwards: every visit adds what the visits behind it say, as their mean, as a mean weighed by how much each has to
    say (attention; Veličković et al. 2018), and how many they are."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(size.width)
        self.message = nn.Linear(size.width, size.width)
        self.loudness = nn.Linear(size.width, 1)
        self.inward = nn.Linear(2 * size.width + 1, 2 * size.width)
        self.outward = nn.Linear(2 * size.width, size.width, bias=False)
        self.dropout = Dropout(size.dropout)

    def forward(
        self, x: Float[Tensor, "batch visit width"], parent: Int[Tensor, "batch visit"]
    ) -> Float[Tensor, "batch visit width"]:
        """parent: the visit that each one lies behind; the number of visits where there is none."""
        normed = self.norm(x)
        said = F.silu(self.message(normed)).float()
        weight = (LOUDEST * torch.tanh(self.loudness(normed).float())).exp()
        mean, count = self._means(torch.ones_like(weight), said, parent)
        weighed, _ = self._means(weight, said, parent)
        together = torch.cat([mean, weighed, count.log1p()], dim=-1).to(x.dtype)
        out: Tensor = x + self.dropout(self.outward(F.silu(self.inward(together))))
        return out

    @staticmethod
    def _means(weight: Tensor, said: Tensor, parent: Tensor) -> tuple[Tensor, Tensor]:
        """(weighed means, sums of weights) over the visits behind each; 0 where there are none."""
        batch, visits, width = said.shape
        both = torch.cat([weight * said, weight], dim=-1)
        place = parent[..., None].expand(-1, -1, width + 1)
        sums = both.new_zeros(batch, visits + 1, width + 1).scatter_add(1, place, both)[:, :visits]
        total = sums[..., width:]
        return sums[..., :width] / total.clamp(min=1e-6), total


class GraphEncoder(Encoder):
    """Visits -> one token for each node that the row is about."""

    means: Tensor
    deviations: Tensor

    def __init__(self, contract: GraphContract, size: Size, *, hops: int, asked: int | None) -> None:
        """asked: how many nodes each row is about, where that is the same for all."""
        super().__init__()
        self.asked, self.numbers = asked, len(contract.means)
        self.register_buffer("means", torch.tensor(contract.means, dtype=torch.float64).float(), persistent=False)
        self.register_buffer(
            "deviations", torch.tensor(contract.deviations, dtype=torch.float64).float(), persistent=False
        )
        self.inward = nn.Linear(2 * self.numbers, size.width)
        self.classes = nn.ModuleList([nn.Embedding(len(known) + KNOWN, size.width) for known in contract.classes])
        self.directions, self.distances = nn.Embedding(DIRECTIONS, size.width), nn.Embedding(hops + 1, size.width)
        for table in (*self.classes, self.directions, self.distances):
            assert isinstance(table, nn.Embedding)
            nn.init.normal_(table.weight, std=size.width**-0.5)
        self.hops = nn.ModuleList([Hop(size) for _ in range(hops)])
        self.as_vectors = nn.Identity()
        self.norm = nn.RMSNorm(size.width)

    def forward(self, values: Float[Tensor, "batch visit column"], sizes: Int[Tensor, "batch axes"]) -> Tokens:
        """The visits, as `Graph.transform` gives them."""
        count = values.shape[1]
        real: Bool[Tensor, "batch visit"] = torch.arange(count, device=values.device) < sizes[:, :1]
        parent, hop, direction = values[..., 0].long(), values[..., 1].long(), values[..., 2].long()
        x = self.inward(self._features(values[..., 3 : 3 + self.numbers]))
        for at, table in enumerate(self.classes):
            x = x + table(values[..., 3 + self.numbers + at].long())
        x = self.as_vectors(x) + self.directions(direction + 1) + self.distances(hop)
        behind = torch.where(real & (parent >= 0), parent, count)
        for layer in self.hops:
            x = layer(x, behind)
        asked = real & (hop == 0)
        if self.asked is not None:
            x, asked = x[:, : self.asked], asked[:, : self.asked]
        return Tokens(self.norm(x), asked)

    def looked_up(self) -> nn.Module:
        """What each visit says of itself; that it is there, and where, stays."""
        return self.as_vectors

    def _features(self, numbers: Float[Tensor, "batch visit number"]) -> Float[Tensor, "batch visit two_number"]:
        """Standardised and with their tails drawn in; the age by its logarithm; and which are there."""
        there = ~numbers.isnan()
        numbers = torch.where(there, numbers, 0.0)
        numbers = torch.cat([numbers[..., :1].clamp(min=0).log1p(), numbers[..., 1:]], dim=-1)
        scaled = torch.asinh((numbers - self.means) / self.deviations)
        return torch.cat([torch.where(there, scaled, 0.0), there.to(scaled.dtype)], dim=-1)
