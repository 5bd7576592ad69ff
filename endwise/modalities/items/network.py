"""The network side of items: ids -> tokens of a causal transformer, tokens -> a score for every item.

Here too: the loss at every place of the history, full or against a sample. Not here: names (__init__.py)."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.errors import ModelError
from endwise.modalities.items import RANK, ItemsContract
from endwise.modalities.items.catalogue import opened
from endwise.nn.blocks import Dropout, Transformer
from endwise.nn.interface import Aim, Encoder, Head, Tokens
from endwise.nn.scalars import full_precision, log_odds
from endwise.nn.size import Size

READ_AT_ONCE = 256  # items whose content is read at a time when all are


class Content(nn.Module):
    """What is known of each item in one column, as its kind's encoder says it: a vector an item, a learnt one where there is
    nothing."""

    values: Tensor
    sizes: Tensor
    there: Tensor

    def __init__(self, found: Mapping[str, Any], size: Size) -> None:
        super().__init__()
        item, contract, stored, there = opened(found)
        self.encoder = item.encoder(contract, size)
        self.ragged = item.axes
        self.missing = nn.Parameter(torch.randn(size.width) * 0.02)
        for name, array in (("values", stored.values), ("sizes", stored.sizes), ("there", there)):
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(array)), persistent=False)

    def forward(self, ids: Int[Tensor, " item"]) -> Float[Tensor, "item width"]:
        """Values are cut to the largest of these items: the others may be far longer."""
        values, sizes = self.values[ids], self.sizes[ids]
        for axis in range(self.ragged):
            values = values.narrow(1 + axis, 0, int(sizes[:, axis].max()))
        said = self.encoder(values, sizes).pooled()
        return torch.where(self.there[ids][:, None], said.float(), self.missing)


class ItemVectors(nn.Embedding):
    """A vector for each item. Without contents a learnt one; with contents what these say, and for items that training has
    something of their own beside it, which begins at nothing. In training that is left out of every second item, so that
    the contents alone learn to say what they can (DropoutNet; Volkovs et al. 2017).

    Outside of training all vectors are made once and kept until a weight changes, or moves to another device or precision.
    """

    bought: Tensor

    def __init__(self, contract: ItemsContract, size: Size) -> None:
        super().__init__(len(contract.items), size.width)
        self.register_buffer("bought", torch.tensor(contract.counts) > 0, persistent=False)
        self.contents = nn.ModuleList([Content(found, size) for found in contract.contents])
        self.norm = nn.LayerNorm(size.width) if contract.contents else None
        self._made: Tensor | None = None
        self._made_of: tuple[object, ...] = ()
        std = 0.0 if contract.contents else size.width**-0.5
        nn.init.normal_(self.weight, std=std)

    def some(self, ids: Int[Tensor, "*any"]) -> Float[Tensor, "*any width"]:
        """The vectors of these items."""
        if self.norm is None:
            return super().forward(ids)
        if not self.training:
            return F.embedding(ids, self.all())
        own, place = torch.unique(ids, return_inverse=True)
        return F.embedding(place, self._said(own))

    def all(self) -> Float[Tensor, "item width"]:
        """The vectors of all items."""
        if self.norm is None:
            return self.weight
        if self.training:
            return self._said(torch.arange(len(self.weight), device=self.weight.device))
        stamp = () if torch.compiler.is_exporting() else self._stamp()
        if self._made is None or (stamp and stamp != self._made_of):
            ids = torch.arange(len(self.weight), device=self.weight.device)
            with torch.inference_mode(False), torch.no_grad(), full_precision(self.weight):
                self._made = torch.cat([self._said(part) for part in torch.split(ids, READ_AT_ONCE)])
            self._made_of = stamp
        return self._made

    def train(self, mode: bool = True) -> "ItemVectors":
        """With the vectors made where training ends: a graph takes them as they are."""
        super().train(mode)
        if not mode and self.norm is not None and not self.weight.is_meta:
            self.all()
        return self

    def _said(self, ids: Int[Tensor, " item"]) -> Float[Tensor, "item width"]:
        assert self.norm is not None
        said = self.norm(torch.stack([content(ids) for content in self.contents]).sum(0)) * self.embedding_dim**-0.5
        own = self.bought[ids]
        if self.training:
            own = own & (torch.rand(own.shape, device=own.device) < 0.5)
        vectors: Tensor = said + super().forward(ids) * own[:, None]
        return vectors

    def _stamp(self) -> tuple[object, ...]:
        """What the vectors hang on. A weight that is moved or cast keeps its version."""
        return (self.weight.device, self.weight.dtype, *(weight._version for weight in self.parameters()))


class ItemsEncoder(Encoder):
    """One token an item, which knows the items before it and none behind it. `<unknown>`, the id after the last item, is the
    mean of all items weighed by how often they occurred: it has no training rows."""

    share: Tensor

    def __init__(self, contract: ItemsContract, size: Size) -> None:
        super().__init__()
        total = torch.tensor(contract.counts, dtype=torch.float64)
        self.register_buffer("share", (total / total.sum().clamp(min=1)).float(), persistent=False)
        self.items = ItemVectors(contract, size)
        self.scale = math.sqrt(size.width)
        self.dropout = Dropout(size.dropout)
        self.as_vectors = nn.Identity()
        self.transformer = Transformer(size, causal=True, rotary=True)

    def forward(self, values: Int[Tensor, "batch place"], sizes: Int[Tensor, "batch axes"]) -> Tokens:
        """Ids -> tokens; the ids stand beside them (`Tokens.symbols`)."""
        count = self.items.num_embeddings
        mask = torch.arange(values.shape[1], device=values.device) < sizes[:, :1]
        known = self.items.some(values.clamp(max=count - 1))
        x = self.as_vectors(torch.where((values < count)[..., None], known, self._average()) * self.scale)
        return Tokens(self.transformer(self.dropout(x), mask), mask, symbols={"items": values})

    def looked_up(self) -> nn.Module:
        """The items' vectors."""
        return self.as_vectors

    def neutral(self, values: Tensor, sizes: Tensor, found: Tensor) -> Tensor:
        """The average item, as of one that is unknown."""
        return (self._average() * self.scale).to(found.dtype).expand_as(found)

    def _average(self) -> Float[Tensor, " width"]:
        if self.training and self.items.norm is not None:
            return self.share @ self.items.weight  # not asked for: training knows all its items
        return self.share @ self.items.all()


class ItemsHead(Head):
    """A score for every item: the product of its vector with what the last place of the history says, and a bias that starts
    at the items' log-frequencies.

    A row's loss in training is the mean over the places of its history, each of which is to name the item behind it, and the
    last one, which is to name the row's answer; elsewhere it is the loss of the answer alone. `sampled` of None: cross-entropy
    over all items. Else against so many items drawn by frequency to the power of 3/4: each drawn item j of m counts
    exp(score) / (m q_j), an unbiased estimate of the sum over all (the log-Q correction; Bengio & Senécal 2003; the true item
    itself is not corrected, Khrylchenko et al. 2025). With contents there is no bias, which new items would not have: what sells
    is a direction of the vectors. In training items that it does not have are no rivals; elsewhere all of them are.
    """

    chances: Tensor
    bought: Tensor

    def __init__(
        self,
        contract: ItemsContract,
        size: Size,
        *,
        of: str | None,
        leave_out: bool,
        shown: int,
        sampled: int | None,
        furnished: bool = False,
    ) -> None:
        super().__init__()
        counts = torch.tensor(contract.counts, dtype=torch.float64)
        self.count, self.of, self.leave_out, self.shown, self.sampled = len(counts), of, leave_out, shown, sampled
        self.furnished = furnished
        frequency = counts + 1
        start = torch.zeros(size.width) if self.furnished else (frequency / frequency.sum()).log().float()
        self.bias = nn.Parameter(start)
        self.register_buffer("bought", counts > 0, persistent=False)
        chances = torch.where(counts > 0, frequency**0.75, 0.0) if self.furnished else frequency**0.75
        self.register_buffer("chances", (chances / chances.sum()).float(), persistent=False)
        self.norm = nn.RMSNorm(size.width)
        self.items = ItemVectors(contract, size)

    def meet(self, encoders: Mapping[str, Encoder]) -> None:
        """The item vectors are those of the history."""
        if self.of is None:
            return
        theirs = encoders[self.of]
        if not isinstance(theirs, ItemsEncoder) or theirs.items.num_embeddings != self.count:
            raise ModelError(
                f"the items of {self.of!r} are not those of the answer. Fix: fit both contracts on one data set."
            )
        self.items = theirs.items

    def forward(self, tokens: Tokens) -> dict[str, Tensor]:
        """{'query': [batch, width]}; after a history also {'places': [batch, place, width], 'ids': int64 [batch, place], 'there':
        bool [batch, place]}, the item at each place and what it asks for."""
        if self.of is None:
            return {"query": self.norm(tokens.pooled())}
        span, ids = tokens.spans[self.of], tokens.symbols[self.of]
        values, mask = tokens.values[:, span], tokens.mask[:, span]
        own = values if tokens.own_values is None else tokens.own_values[:, span]  # the trunk looks at what comes later
        last = (mask.sum(1) - 1).clamp(min=0)[:, None, None].expand(-1, 1, values.shape[2])
        there = mask & tokens.present[self.of][:, None]
        return {"query": self.norm(values.gather(1, last)[:, 0]), "places": self.norm(own), "ids": ids, "there": there}

    def loss(self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor) -> dict[str, Float[Tensor, " batch"]]:
        """{'next'}: see the class; 0 where no item of the answer is known."""
        wanted = self._known(target, sizes)
        row, _ = wanted.nonzero(as_tuple=True)
        cost = self._cost(prediction["query"][row], target[wanted])
        count = wanted.sum(1)
        if self.training and self.of is not None:
            behind = prediction["there"][:, 1:] & (prediction["ids"][:, 1:] < self.count)
            places = self._cost(prediction["places"][:, :-1][behind], prediction["ids"][:, 1:][behind])
            row, cost = torch.cat([row, behind.nonzero(as_tuple=True)[0]]), torch.cat([cost, places])
            count = count + behind.sum(1)
        total = torch.zeros(len(target), device=cost.device).index_add(0, row, cost)
        return {"next": total / count.clamp(min=1)}

    def weight(self, target: Tensor, sizes: Tensor) -> Float[Tensor, " batch"]:
        """0 where training knows no item of the answer."""
        return self._known(target, sizes).any(1).float()

    def measures(
        self, prediction: dict[str, Tensor], target: Tensor, sizes: Tensor
    ) -> dict[str, Float[Tensor, "batch 2"]]:
        """{'rank'}: the place of the first right item among all that are ranked, ties at their mean, and how many are ranked;
        both NaN where no right item is among them."""
        scores = self._ranked(prediction)
        wanted = self._known(target, sizes)
        theirs = scores.gather(1, target.clamp(max=self.count - 1)).masked_fill(~wanted, -torch.inf)
        best = theirs.amax(1, keepdim=True)
        place = 1 + (scores > best).sum(1) + ((scores == best).sum(1) - 1) / 2
        found = torch.stack([place, (scores > -torch.inf).sum(1).to(place.dtype)], dim=1)
        return {RANK: torch.where(best > -torch.inf, found, torch.nan)}

    def decode(self, prediction: dict[str, Tensor]) -> dict[str, Tensor]:
        """{'ids': int64 [batch, shown], 'probabilities': float32 [batch, shown]}, the best first; 0 for what is left out."""
        scores = self._ranked(prediction)
        chances = scores.softmax(1)
        best, ids = chances.topk(self.shown, dim=1)
        return {"ids": ids, "probabilities": best}

    def aim(self, prediction: dict[str, Tensor], about: tuple[int, ...]) -> Aim:
        """The log-odds of the item against all others."""
        return lambda other: log_odds(self._scores(other["query"]), about[0])

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _known(self, target: Int[Tensor, "batch item"], sizes: Int[Tensor, "batch axes"]) -> Bool[Tensor, "batch item"]:
        found: Tensor = (torch.arange(target.shape[1], device=target.device) < sizes[:, :1]) & (target < self.count)
        return found

    def _scores(self, query: Float[Tensor, "row width"]) -> Float[Tensor, "row item"]:
        scores = F.linear(self._moved(query), self.items.all()).float()
        return scores if self.furnished else scores + self.bias

    def _moved(self, query: Float[Tensor, "row width"]) -> Float[Tensor, "row width"]:
        """Towards what sells; without contents a bias of each item says that."""
        return query + self.bias.to(query.dtype) if self.furnished else query

    def _ranked(self, prediction: dict[str, Tensor]) -> Float[Tensor, "batch item"]:
        """The scores, minus infinity for items of the history that are left out."""
        scores = self._scores(prediction["query"])
        if not self.leave_out:
            return scores
        # one more column, for places where there is no item and items that have no column
        seen = torch.where(prediction["there"], prediction["ids"], self.count)
        wide = torch.cat([scores, scores[:, :1]], dim=1)
        return wide.scatter(1, seen, -torch.inf)[:, : self.count]

    def _cost(self, query: Float[Tensor, "row width"], item: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
        if self.sampled is None or not self.training:
            scores = self._scores(query)
            if self.training and self.furnished:
                scores = scores.masked_fill(~self.bought, -torch.inf)
            return F.cross_entropy(scores, item, reduction="none")
        drawn = torch.multinomial(self.chances, self.sampled, replacement=True)
        vectors = self.items.some(torch.cat([drawn, item]))
        query = self._moved(query)
        others = F.linear(query, vectors[: len(drawn)]).float() - (self.sampled * self.chances[drawn]).log()
        own = (query * vectors[len(drawn) :]).sum(1).float()
        if not self.furnished:
            others, own = others + self.bias[drawn], own + self.bias[item]
        others = others.masked_fill(drawn == item[:, None], -torch.inf)
        cost: Tensor = torch.cat([own[:, None], others], dim=1).logsumexp(1) - own
        return cost
