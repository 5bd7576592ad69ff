"""GPT-2 (Radford et al. 2019) under transformers' names, in plain torch: a pretrained language model as a decoder.

Here because a decoder is asked step by step with a cache, inside an exported loop too, in the way of nn/decoder.py. Not
here: reading weights and what of them learns (nn/pretrained.py), what a symbol means (`Text.write`).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from endwise.errors import ModelError, refusal, require
from endwise.nn.blocks import Dropout, attend
from endwise.nn.decoder import END, NEVER, Keys, Memory, Past, Writer, added
from endwise.nn.size import Size

GPT2 = "gpt2"  # of config.json: model_type
KNOWN = {  # what this network does, where a config.json could say otherwise
    "activation_function": "gelu_new", "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False,
    "tie_word_embeddings": True, "add_cross_attention": False,
}  # fmt: skip
TURNED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # stored as [in, out]


class GPT2Attention(nn.Module):
    """Keys, queries and values of one layer, and what is made of the mixture."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "batch token width"],
        sees: Bool[Tensor, "batch 1 token place"],
        memory: Keys | None,
        past: Past | None,
    ) -> tuple[Tensor, Keys]:
        """The mixture, and the own keys and values with those of `past`; `memory` stands before them."""
        query, key, value = (
            part.view(*x.shape[:2], self.heads, x.shape[2] // self.heads).transpose(1, 2)
            for part in self.c_attn(x).chunk(3, dim=-1)
        )
        own = (key, value) if past is None else added(past, (key, value))
        keys, values = own
        if memory is not None:
            keys, values = torch.cat([memory[0], keys], 2), torch.cat([memory[1], values], 2)
        mixed = attend(query, keys, values, sees).transpose(1, 2).flatten(2)
        return self.c_proj(mixed), own


class GPT2Feed(nn.Module):
    """The feed-forward of one layer."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        out: Tensor = self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))
        return out


class GPT2Block(nn.Module):
    """One layer: norms before, dropout on each branch."""

    def __init__(self, width: int, heads: int, hidden: int, epsilon: float, dropout: float) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width, epsilon), nn.LayerNorm(width, epsilon)
        self.attn, self.mlp = GPT2Attention(width, heads), GPT2Feed(width, hidden)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, sees: Tensor, memory: Keys | None, past: Past | None) -> tuple[Tensor, Keys]:
        """The tokens, and this layer's keys and values."""
        mixed, own = self.attn(self.ln_1(x), sees, memory, past)
        x = x + self.dropout(mixed)
        return x + self.dropout(self.mlp(self.ln_2(x))), own


class GPT2Network(nn.Module):
    """The network of a config.json, with random weights. Its output's weights are its embedding's."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        for name, only in KNOWN.items():
            if config.get(name, only) != only:
                raise refusal(
                    field=f"config.json: {name}", got=config[name], allowed=repr(only), fix="take a plain GPT-2"
                )
        self.config = dict(config)
        width, layers, heads = (
            int(config.get(name, usual)) for name, usual in (("n_embd", 768), ("n_layer", 12), ("n_head", 12))
        )
        self.width, self.heads = width, heads
        self.vocabulary, self.places = int(config.get("vocab_size", 50_257)), int(config.get("n_positions", 1_024))
        self.end = int(config.get("eos_token_id", self.vocabulary - 1))
        require(
            self.end < self.vocabulary, field="config.json: eos_token_id", got=self.end,
            allowed=f"an id below vocab_size = {self.vocabulary}", fix="write the id of the token that ends a text",
        )  # fmt: skip
        dropout, epsilon = float(config.get("resid_pdrop", 0.1)), float(config.get("layer_norm_epsilon", 1e-5))
        hidden = int(config.get("n_inner") or 4 * width)
        self.wte, self.wpe = nn.Embedding(self.vocabulary, width), nn.Embedding(self.places, width)
        self.h = nn.ModuleList([GPT2Block(width, heads, hidden, epsilon, dropout) for _ in range(layers)])
        self.ln_f = nn.LayerNorm(width, epsilon)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch token width"],
        positions: Int[Tensor, "batch token"],
        sees: Bool[Tensor, "batch 1 token place"],
        memory: list[Keys] | None = None,
        pasts: list[Past] | None = None,
    ) -> tuple[Float[Tensor, "batch token width"], list[Keys]]:
        """Vectors in the place of words, to what the last layer makes of them; every layer's keys and values."""
        x, kept = self.dropout(x + self.wpe(positions)), []
        for index, block in enumerate(self.h):
            x, own = block(x, sees, memory[index] if memory else None, pasts[index] if pasts else None)
            kept.append(own)
        return self.ln_f(x), kept

    def scores(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token id"]:
        """Of the next id."""
        return F.linear(x, self.wte.weight)

    def renamed(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A file's weights under the names and in the shapes they have here."""
        plain = {name.removeprefix("transformer."): value for name, value in found.items()}
        return {name: value.T if name.endswith(TURNED) else value for name, value in plain.items()}


class PretrainedWriter(Writer):
    """A pretrained language model that continues what it is shown: the network's tokens, through a learnt map, stand
    before its words as words would (Tsimpoukelli et al. 2021, "Frozen"). Symbol 0 is its end of text, symbol 1 + k its
    id k."""

    def __init__(
        self, weights: Mapping[str, Any], tuning: Any, size: Size, folder: Callable[[], Path], *, longest: int
    ) -> None:
        from endwise.nn.pretrained import Pretrained

        super().__init__()
        self.pretrained, self.longest = Pretrained(weights, tuning, folder), longest
        self.inlet = nn.Linear(size.width, self.network.width)
        # words are this small, and what is as large as they are is understood from the first step
        nn.init.normal_(self.inlet.weight, std=0.02)
        nn.init.zeros_(self.inlet.bias)

    def load_pretrained(self) -> None:
        self.pretrained.load()

    @property
    def network(self) -> GPT2Network:
        """The language model."""
        found = self.pretrained.network
        assert isinstance(found, GPT2Network)
        return found

    def begin(self, tokens: Float[Tensor, "batch place width"], mask: Bool[Tensor, "batch place"]) -> Memory:
        count = mask.shape[1]
        if not torch.compiler.is_exporting() and int(mask.sum(1).max()) + self.longest + 1 > self.network.places:
            raise ModelError(
                f"an input of {int(mask.sum(1).max())} tokens and an answer of up to {self.longest} symbols are more than the "
                f"{self.network.places} positions of the pretrained decoder. Fix: shorter inputs, or a smaller longest:."
            )
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        before = torch.ones(count, count, dtype=torch.bool, device=mask.device).tril()
        itself = torch.eye(count, dtype=torch.bool, device=mask.device)
        sees = (before & mask[:, None, :] | itself)[:, None]
        _, keys = self.network(self.inlet(tokens), positions, sees)
        return Memory(keys, mask, mask.sum(1))

    def forward(
        self, before: Int[Tensor, "batch token"], memory: Memory, across: Tensor | None = None
    ) -> Float[Tensor, "batch token symbol"]:
        place = torch.arange(before.shape[1], device=before.device)
        sees = (place[:, None] >= place)[None, None]
        return self._scores(before, place, sees, memory, None)[0]

    def step(
        self,
        last: Int[Tensor, " batch"],
        place: Int[Tensor, ""],
        memory: Memory,
        cache: Float[Tensor, "layer batch h p d"],
        across: Tensor | None = None,
    ) -> tuple[Float[Tensor, "batch symbol"], Float[Tensor, "layer batch h p d"]]:
        exporting = torch.compiler.is_exporting()
        seen = cache.shape[3] if exporting else int(place) + 1
        sees = (torch.arange(seen, device=cache.device) <= place)[None, None, None]
        pasts = [(cache[index], cache[index + 1], place[None]) for index in range(0, cache.shape[0], 2)]
        scores, own = self._scores(last[:, None], place[None], sees, memory, pasts)
        return scores[:, 0], torch.stack([part for pair in own for part in pair]) if exporting else cache

    def empty(self, rows: int, places: int, like: Tensor) -> Float[Tensor, "layer batch h p d"]:
        network = self.network
        return like.new_zeros(2 * len(network.h), rows, network.heads, places, network.width // network.heads)

    def _scores(
        self,
        symbols: Int[Tensor, "batch token"],
        places: Int[Tensor, " token"],
        sees: Bool[Tensor, "1 1 token place"],
        memory: Memory,
        pasts: list[Past] | None,
    ) -> tuple[Float[Tensor, "batch token symbol"], list[Keys]]:
        network = self.network
        words = network.wte(torch.where(symbols == END, network.end, symbols - 1))
        sees = sees.expand(symbols.shape[0], -1, -1, -1)
        shown = memory.mask[:, None, None, :].expand(-1, -1, sees.shape[2], -1)
        x, kept = network(words, memory.first[:, None] + places, torch.cat([shown, sees], 3), memory.keys, pasts)
        scores = network.scores(x)
        ids = torch.arange(scores.shape[-1], device=scores.device)
        ends = scores[..., network.end : network.end + 1]
        return torch.cat([ends, torch.where(ids == network.end, NEVER, scores)], -1), kept
