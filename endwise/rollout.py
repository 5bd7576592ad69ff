"""Attention roll-out: how much of each place of each input reaches an answer through layers of attention.

Each layer lets a token keep half of itself and take the other half from those it attends to, the mean of its heads; the layers'
matrices multiplied say what of the first tokens is in the last ones (Abnar & Zuidema 2020, "Quantifying Attention Flow in
Transformers"). Which of the last ones an answer leans on, the size of its gradient there says. Attention has no sign and
knows nothing of what is carried: what speaks against an answer is not told apart. Not here: other methods (attribution.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from endwise.batch import Ragged
from endwise.errors import EndwiseError, ModelError, refusal
from endwise.modalities.base import laid_over
from endwise.network import Network
from endwise.nn.blocks import Attention
from endwise.nn.interface import Aim, Encoder, Tokens
from endwise.nn.pretrained import Pretrained
from endwise.stages import StagedNetwork

KEPT = 0.5  # of itself, that a token keeps in every layer


def rolled(
    network: Network,
    inputs: Mapping[str, Ragged],
    present: Mapping[str, Tensor],
    output: str,
    aim: Aim,
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, np.ndarray]:
    """{input: float64 [*places]} of one row, at least 0 each and 1 together: of the inputs that `shapes` has. network: a copy
    that may be hooked. Raises ModelError where it does not attend, or where its attention cannot be read."""
    if isinstance(network, StagedNetwork):
        raise _refused("the attention of stages", "a network without stages: between them it is cut")
    part = next((name for name, module in network.named_modules() if isinstance(module, Pretrained)), None)
    if part is not None:
        raise _refused("pretrained layers", "layers of this package, whose attention can be read")
    seen: dict[str, list[Tensor]] = {}
    hooks = list(_watched(network, seen))
    with torch.no_grad():
        tokens = network.tokens(inputs, present)
    for hook in hooks:
        hook.remove()
    if not any(seen.values()):
        raise _refused(
            "a network without layers of attention that can be read",
            "one that attends: to a text, a sound, several inputs that are more than numbers and classes",
        )
    row = _leaning(network, tokens, output, aim)
    row = row @ _through(seen[""], len(row), "the trunk") if "" in seen and not network.head(output).own_tokens else row
    places = {}
    for name, shape in shapes.items():
        own = row[tokens.spans[name]]
        own = own @ _through(seen[name], len(own), name)
        places[name] = _onto(own.double().cpu().numpy(), tokens, name, shape)
    whole = sum(float(values.sum()) for values in places.values())
    return {name: values / (whole or 1.0) for name, values in places.items()}


def _watched(network: Network, seen: dict[str, list[Tensor]]) -> Iterator[Any]:
    """Hooks that fill `seen`: {input, or "" of the trunk: [row, token, token] of each layer, the first one first}."""
    places: dict[str, nn.Module] = {name: network.encoder(name) for name in network.input_names}
    if network.trunk is not None:
        places[""] = network.trunk
    for name, module in places.items():
        found = seen.setdefault(name, [])
        for layer in module.modules():
            if isinstance(layer, Attention):

                def looked(layer: Attention, given: tuple[Any, ...], named: Any, found: list[Tensor] = found) -> None:
                    found.append(layer.weights(*given, **named).float().mean(1))

                yield layer.register_forward_pre_hook(looked, with_kwargs=True)
        if isinstance(module, Encoder) and module.chunk is not None:
            raise _refused(f"the input {name!r}, heard in pieces", "inputs that are seen as a whole")


def _leaning(network: Network, tokens: Tokens, output: str, aim: Aim) -> Float[Tensor, " token"]:
    """How much the aim leans on each token that the head looks at; 1 together."""
    head = network.head(output)
    values = tokens.own_values if head.own_tokens and tokens.own_values is not None else tokens.values
    values = values.detach().requires_grad_()
    with torch.enable_grad():
        much = aim(head(tokens.with_values(values))).sum()
    gradient = torch.autograd.grad(much, values, allow_unused=True)[0] if much.requires_grad else None
    if gradient is None or not bool(gradient.any()):
        raise _refused(f"{output}, which is not made from tokens", "an answer from tokens: a class, a number, a text")
    size = (gradient.float()[0].norm(dim=-1) * tokens.mask[0]).nan_to_num(0.0)
    found: Tensor = size / size.sum().clamp(min=1e-30)
    return found


def _through(layers: Sequence[Tensor], count: int, where: str) -> Float[Tensor, "token token"]:
    """What of the first tokens is in the last ones, each row 1 together."""
    device = layers[0].device if layers else None
    found = itself = torch.eye(count, device=device)
    for layer in layers:
        if layer.shape != (1, count, count):
            raise _refused(f"{where}, whose layers have tokens of their own", "layers that keep their tokens")
        found = (KEPT * itself + (1 - KEPT) * layer[0]) @ found
    return found


def _onto(own: np.ndarray, tokens: Tokens, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Tokens over the places of their input, what each has shared by its own."""
    grid = tokens.grids[name][0] if name in tokens.grids else (len(own),)
    if len(own) == 1:
        return np.full(shape, float(own[0]) / max(1, int(np.prod(shape))))
    if int(np.prod(grid)) != len(own) or len(grid) > len(shape) or (len(grid) == 1 and len(own) > shape[0]):
        raise _refused(f"the input {name!r}, whose tokens are no places of it", "inputs whose tokens lie on them")
    if len(grid) == 1:  # a token stands for as many places as another, the last one for what is left
        wide = -(-shape[0] // len(own))
        along = np.repeat(own, wide)[: shape[0]] / wide
    else:
        real = tokens.mask[0, tokens.spans[name]].cpu().numpy().reshape(grid)
        inside = tuple(np.flatnonzero(real.any(tuple({*range(len(grid))} - {axis}))) for axis in range(len(grid)))
        along = laid_over(own.reshape(grid)[np.ix_(*inside)], shape[: len(grid)])
    rest = shape[len(grid) :]
    return np.broadcast_to(along.reshape(*along.shape, *[1] * len(rest)), shape) / max(1, int(np.prod(rest)))


def _refused(got: str, allowed: str) -> EndwiseError:
    return refusal(
        field="method: attention_rollout", got=got, allowed=allowed, fix="take integrated_gradients or occlusion",
        error=ModelError,
    )  # fmt: skip


__all__ = ["rolled"]
