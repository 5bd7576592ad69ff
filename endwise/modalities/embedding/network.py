"""The network side of an embedding: each input's own tokens -> a unit vector, and the loss that brings a row's vectors
together. Not here: the identity of rows (__init__.py), the formula of the loss (endwise/losses.py)."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from endwise import losses
from endwise.modalities.embedding import EmbeddingContract
from endwise.nn.blocks import Dropout
from endwise.nn.interface import Aim, Head, Tokens
from endwise.nn.size import Size

FIRST_TEMPERATURE = 0.07
LOWEST_TEMPERATURE = 0.01  # the clamp of CLIP (Radford et al. 2021)


class Projection(nn.Module):
    """Tokens of one input -> a vector: what they say on average and at most, a linear map of it, and a correction."""

    def __init__(self, size: Size, dimensions: int) -> None:
        super().__init__()
        width = 2 * size.width
        self.norm = nn.RMSNorm(width)
        self.linear = nn.Linear(width, dimensions, bias=False)
        self.inward = nn.Linear(width, width)
        self.outward = nn.Linear(width, dimensions, bias=False)
        self.dropout = Dropout(size.dropout)
        nn.init.zeros_(self.outward.weight)

    def forward(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        """A unit vector a row, float32 whatever the autocast."""
        lowest = torch.finfo(tokens.values.dtype).min
        most = torch.where(tokens.mask[..., None], tokens.values, lowest).amax(1)
        x = self.norm(torch.cat([tokens.pooled(), most], dim=-1))
        made = self.linear(x) + self.outward(self.dropout(F.silu(self.inward(x))))
        return F.normalize(made.float(), dim=-1)


class EmbeddingHead(Head):
    """Unit vectors of each input, compared within the batch at one learnt temperature in [0.01, 1].

    A row's loss is the symmetric cross-entropy of finding each of its inputs among the batch's by each other one,
    averaged over the pairs that the row has. Rows with an equal value on either side are left out of the comparison.
    """

    own_tokens = True
    compares_rows = True
    passes = 60  # as many as memory of other rows allows: what is compared changes with every batch

    def __init__(self, contract: EmbeddingContract, size: Size, *, dimensions: int) -> None:
        super().__init__()
        self.names = contract.inputs
        self.projections = nn.ModuleList([Projection(size, dimensions) for _ in self.names])
        self.sharpness = nn.Parameter(torch.tensor(math.log(1 / FIRST_TEMPERATURE)))

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """{'vectors': float32 [batch, input, dim], 'present': bool [batch, input]}; a missing input's vector is 0."""
        parts = []
        for name, projection in zip(self.names, self.projections, strict=True):
            span = tokens.spans[name]
            parts.append(projection(Tokens(tokens.values[:, span], tokens.mask[:, span])))
        present = torch.stack([tokens.present[name] for name in self.names], dim=1)
        return {"vectors": torch.stack(parts, dim=1) * present[..., None], "present": present}

    def loss(
        self, prediction: dict[str, Tensor], target: Int[Tensor, "batch input"], sizes: Tensor
    ) -> dict[str, Float[Tensor, " batch"]]:
        """{'contrast': mean over the row's ordered pairs of inputs}. In training against the rows of all workers."""
        found = losses.contrast(prediction["vectors"], target, self.sharpness.exp(), across=self.training)
        return {"contrast": found}

    @torch.no_grad()
    def bound(self) -> None:
        """The temperature, back into its range."""
        self.sharpness.clamp_(0.0, math.log(1 / LOWEST_TEMPERATURE))

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same: `Embedding.write` names them."""
        return {"vectors": prediction["vectors"], "present": prediction["present"]}

    def aim(self, prediction: dict[str, Tensor], about: tuple[int, ...]) -> Aim:
        """The cosine between two inputs of the row; of a single one how near its vector stays to itself."""
        one, two = about
        if one == two:
            own = prediction["vectors"][0, one].detach()
            return lambda other: other["vectors"][:, one].float() @ own.float()
        return lambda other: (other["vectors"][:, one] * other["vectors"][:, two]).float().sum(1)
