"""Encoders + trunk + heads = one nn.Module, from raw arrays to answers.

Everything between the stored array and the answer is in here: normalising, resizing, spectrograms, augmentation,
missing-value tokens, and decoding. What is not: reading files (modalities) and naming answers (`Modality.write`).
"""

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from endwise.batch import Batch, Ragged
from endwise.modalities.base import Contract, Modality
from endwise.nn.blocks import Perceptron, Transformer
from endwise.nn.interface import Encoder, Head, Tokens
from endwise.nn.size import Size

Predictions = dict[str, dict[str, Tensor]]
TRUNK = "trunk"  # its name among the parts
SHARED = "shared"  # the place of the tokens that all heads look at


class Input(nn.Module):
    """One input: its encoder, the token that says which input it is, and the token that stands in when it is missing.

    always: every row has it, and nothing has to stand in (of a graph whose rows may not lack it)."""

    def __init__(self, encoder: Encoder, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.name_token = nn.Parameter(torch.zeros(width))
        self.missing_token = nn.Parameter(torch.randn(width) * 0.02)
        self.always = False

    def forward(self, field: Ragged, present: Tensor, encoded: Tokens | None = None) -> Tokens:
        """Tokens of the present rows; one learnt token for the others. encoded: what the encoder says, where that is known."""
        tokens: Tokens = self.encoder(field.values, field.sizes) if encoded is None else encoded
        if self.always:
            return tokens.with_values(tokens.values.float() + self.name_token)
        first = torch.arange(tokens.values.shape[1], device=present.device) == 0
        there = present[:, None]
        # float32 whatever the autocast: norms that meet it in bf16 would leave their fused path, and sums would round
        values = torch.where(there[..., None], tokens.values.float(), self.missing_token)
        hidden = {name: replace(item, where=item.where & there) for name, item in tokens.hidden.items()}
        mask = torch.where(there, tokens.mask, first)
        return replace(tokens, values=values + self.name_token, mask=mask, hidden=hidden, full=False)

    def feed(self, values: Tensor, sizes: Tensor, past: Any) -> tuple[Tokens, Any]:
        """Tokens of one more piece of a present input; see `Encoder.feed`."""
        tokens, past = self.encoder.feed(values, sizes, past)
        return tokens.with_values(tokens.values.float() + self.name_token), past


def seeded(network: Any, predictions: Predictions, seeds: Mapping[str, Tensor] | Tensor) -> Predictions:
    """Predictions that say which of the answers that suit is drawn: seeds, int64 [batch] for all heads that draw, or by
    output."""
    return {
        name: {**part, "seed": seeds if isinstance(seeds, Tensor) else seeds[name]}
        if network.head(name).draws
        else part
        for name, part in predictions.items()
    }


def stacked(module: nn.Module) -> Iterator[nn.Module]:
    """Our own modules inside a list or a sequence, and not what is inside them."""
    for child in module.children():
        if isinstance(module, nn.ModuleList | nn.Sequential) and not type(child).__module__.startswith("torch.nn"):
            yield child
        else:
            yield from stacked(child)


class Network(nn.Module):
    """One network for one recipe: f(declarations, contracts, size)."""

    def __init__(
        self,
        inputs: Mapping[str, Modality],
        outputs: Mapping[str, Modality],
        contracts: Mapping[str, Contract],
        size: Size,
        *,
        encoders: Mapping[str, Encoder] = types.MappingProxyType({}),
    ) -> None:
        """encoders: of inputs that have another one than their modality's."""
        super().__init__()
        self.size = size
        self.input_names = tuple(inputs)
        self.output_names = tuple(outputs)
        self.inputs = nn.ModuleDict(
            {
                _key(name): Input(
                    encoders[name]
                    if name in encoders
                    else _encoder(item.beside(inputs, outputs), contracts[name], size),
                    size.width,
                )
                for name, item in inputs.items()
            }
        )
        trunk = self._trunk(size)
        heads = {name: item.beside(inputs, outputs).head(contracts[name], size) for name, item in outputs.items()}
        for head in heads.values():
            head.meet({name: self.encoder(name) for name in inputs})
        self.trunk = None if all(head.own_tokens for head in heads.values()) else trunk
        self.heads = nn.ModuleDict({_key(name): head for name, head in heads.items()})
        self.compares_rows = any(head.compares_rows for head in heads.values())
        self.symbols = max((head.symbols for head in heads.values()), default=0.0)
        self.drafts = max((head.drafts for head in heads.values()), default=1.0)

    def _trunk(self, size: Size) -> Transformer | Perceptron | None:
        """What mixes the tokens of several inputs: attention, but where each of them is one token, unless the recipe asks for it."""
        if len(self.inputs) < 2:
            return None
        if size.attention or not all(self.encoder(name).single for name in self.input_names):
            return Transformer(size, causal=False)
        return Perceptron(size, self.input_names)

    def tokens(self, inputs: Mapping[str, Ragged], present: Mapping[str, Tensor]) -> Tokens:
        """The shared tokens: every input's, side by side, through the trunk."""
        return self.tokens_with({}, inputs, present)

    def tokens_with(
        self, encoded: Mapping[str, Tokens], inputs: Mapping[str, Ragged], present: Mapping[str, Tensor]
    ) -> Tokens:
        """`tokens`, where the encoders of some inputs have spoken."""
        parts = {
            name: self.inputs[_key(name)](inputs[name], present[name], encoded.get(name)) for name in self.input_names
        }
        joined = replace(_joined(parts, present), present=dict(present))
        if self.trunk is None:
            return joined
        return replace(joined, values=self.trunk(joined.values, joined.mask), own_values=joined.values)

    def never_missing(self, names: Sequence[str]) -> None:
        """These inputs are there in every row from now on."""
        for name in names:
            part = self.inputs[_key(name)]
            assert isinstance(part, Input)
            part.always = True

    def load_pretrained(self) -> None:
        """Fill the encoders and heads that begin with pretrained weights."""
        for name in self.input_names:
            self.encoder(name).load_pretrained()
        for name in self.output_names:
            self.head(name).load_pretrained()

    def learnt(self) -> dict[str, Tensor]:
        """The state without the weights that never learn: what averages and checkpoints are made of."""
        fixed = {name for name, weight in self.named_parameters(remove_duplicate=False) if not weight.requires_grad}
        return {name: value for name, value in self.state_dict().items() if name not in fixed}

    def load_learnt(self, tensors: Mapping[str, Tensor]) -> None:
        """Set what `learnt` gave."""
        self.load_state_dict({**self.state_dict(), **tensors})

    def forward(self, inputs: Mapping[str, Ragged], present: Mapping[str, Tensor]) -> Predictions:
        """Raw predictions of every head: {output: {name: tensor}}."""
        return self.answer(self.tokens(inputs, present))

    def taught(self, batch: Batch, done: float) -> tuple[Predictions, dict[str, Tensor]]:
        """What a step learns from: the predictions for a batch, and the values of the tokens where the terms' gradients are
        measured, by place; the first place is what all share. done: the share of the steps that lies behind."""
        tokens = self.tokens(batch.inputs, batch.present)
        return self.answer(tokens), {SHARED: tokens.values}

    def answer(self, tokens: Tokens) -> Predictions:
        """The heads on given tokens (what the objective's gradient norms are taken at)."""
        own = tokens if tokens.own_values is None else tokens.with_values(tokens.own_values)
        return {
            name: self.heads[_key(name)](own if self.head(name).own_tokens else tokens) for name in self.output_names
        }

    def decode(self, predictions: Predictions, *, draft: bool = False) -> Predictions:
        """Predictions as final answers in tensors: {output: {name: tensor}}, of the outputs that are given. draft: see
        `Head.draft`."""
        if draft:
            return {name: self.head(name).draft(prediction) for name, prediction in predictions.items()}
        return {name: self.head(name).decode(prediction) for name, prediction in predictions.items()}

    def parts(self) -> dict[str, nn.Module]:
        """What the network is made of: 'inputs.text', 'trunk', 'outputs.words'."""
        found: dict[str, nn.Module] = {f"inputs.{name}": self.inputs[_key(name)] for name in self.input_names}
        if self.trunk is not None:
            found[TRUNK] = self.trunk
        return found | {f"outputs.{name}": self.heads[_key(name)] for name in self.output_names}

    def layers(self) -> dict[str, nn.Module]:
        """What the encoders and the trunk are stacked of, in the order of the forward pass: 'text 1', 'text 2', 'trunk 1'."""
        found: dict[str, nn.Module] = {}
        for name, part in zip(self.input_names, self.inputs.values(), strict=True):
            found |= {
                f"{name} {number}": layer for number, layer in enumerate(stacked(part.get_submodule("encoder")), 1)
            }
        if self.trunk is not None:
            found |= {f"{TRUNK} {number}": layer for number, layer in enumerate(stacked(self.trunk), 1)}
        return found

    def encoder(self, name: str) -> Encoder:
        """The encoder of one input."""
        found = self.inputs[_key(name)].encoder
        assert isinstance(found, Encoder)
        return found

    def feed(self, name: str, values: Tensor, sizes: Tensor, past: Any) -> tuple[Tokens, Any]:
        """The tokens of one more piece of the one input, and the past of the next; see `Encoder.feed`."""
        part = self.inputs[_key(name)]
        assert isinstance(part, Input)
        return part.feed(values, sizes, past)

    def head(self, output: str) -> Head:
        """The head of one output."""
        found = self.heads[_key(output)]
        assert isinstance(found, Head)
        return found


def _encoder(item: Modality, contract: Contract, size: Size) -> Encoder:
    return item.carrier(contract, size) if item.handed else item.encoder(contract, size)


def _joined(parts: Mapping[str, Tokens], present: Mapping[str, Tensor]) -> Tokens:
    spans, start = {}, 0
    for name, tokens in parts.items():
        count = tokens.values.shape[1]
        spans[name] = slice(start, start + count)
        start += count
    return Tokens(
        values=torch.cat([tokens.values for tokens in parts.values()], dim=1),
        mask=torch.cat([tokens.mask for tokens in parts.values()], dim=1),
        spans=spans,
        grids={name: grid for name, tokens in parts.items() for grid in tokens.grids.values()},
        levels={name: maps for name, tokens in parts.items() for maps in tokens.levels.values()},
        placed={name: item for name, tokens in parts.items() for item in tokens.placed.values()},
        observed={name: item.of(present[name]) for name, tokens in parts.items() for item in tokens.observed.values()},
        known=next(iter(parts.values())).known if len(parts) == 1 else None,  # a trunk looks at everything
        hidden={name: item for name, tokens in parts.items() for item in tokens.hidden.values()},
        symbols={name: ids for name, tokens in parts.items() for ids in tokens.symbols.values()},
        pair={name: item for name, tokens in parts.items() for item in tokens.pair.values()},
        extents={name: item for name, tokens in parts.items() for item in tokens.extents.values()},
        poses={name: item.of(present[name]) for name, tokens in parts.items() for item in tokens.poses.values()},
        full=all(tokens.full for tokens in parts.values()),
    )


def _key(name: str) -> str:
    """ModuleDict refuses dots and names of its own methods."""
    return "field_" + name.replace(" ", "_").replace("-", "_")
