"""Outputs that lie on an input: masks, boxes, points, pictures. Which input that is, said once for all of them.

The network side is `Tokens.levels`, `Tokens.placed` (endwise/nn/placing.py) and `Pyramid` (endwise/nn/pyramid.py). Not
here: any output of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from endwise.errors import refusal, require, unknown_name
from endwise.modalities.base import INPUT_ROLE, OUTPUT_ROLE, Modality, Role, output_field

ON_HELP = "the input that it lies on; null: the only one that it can lie on"


@dataclass(frozen=True, kw_only=True)
class Spatial(Modality):
    """An output that lies on an input. Its target is moved as the input is (augmentation, resizing): the head puts
    `tokens.placed[self.on]` into its prediction and its loss moves the target by it."""

    roles: ClassVar[frozenset[Role]] = frozenset({OUTPUT_ROLE})
    lies_on_axes: ClassVar[frozenset[int]] = frozenset({2})
    stray_fix: ClassVar[str] = "mend or remove them"  # what to do about `strays`

    on: str | None = output_field(None, ON_HELP)

    def beside(self, inputs: Mapping[str, Modality], outputs: Mapping[str, Modality]) -> Self:
        """With `on` written out; an answer that is handed on lies on nothing there."""
        return self if self.handed else replace(self, on=lies_on(self, self.on, inputs))

    def outlines(self, value: Any, shape: tuple[int, ...]) -> list[dict[str, Any]]:
        """What of a truth or an answer the report draws over the decoded input of this shape: {'label', 'box': [x, y,
        width, height] in shares of its sides} and 'score' where there is one. Default: nothing."""
        return []

    def strays(self, value: np.ndarray, under: np.ndarray) -> int:
        """How many things of a decoded value reach beyond the decoded input. Default: what cannot be told is none."""
        return 0

    def views(self, truth: Any, answer: Any, under: np.ndarray) -> list[dict[str, Any]]:
        """Of a decoded input that one picture does not show: pictures of the parts that matter, each {'about', 'data': a PNG data
        URI, 'truth', 'answer': what `outlines` would say of it}. Default: none, the input's own preview shows it."""
        return []

    def under(self) -> str:
        """The input that it lies on; only known in a recipe."""
        if self.on is None:
            raise refusal(
                field=f"{type(self).__name__}.on", got=None, allowed="an input", fix="name it, or use it in a recipe"
            )
        return self.on


def lies_on(output: Modality, named: str | None, inputs: Mapping[str, Modality]) -> str:
    """The input that an output lies on: the one that is named, or the only one that it can lie on."""
    field = f"{type(output).__name__}.on"
    suited = [name for name, item in inputs.items() if item.canvas_axes in output.lies_on_axes]
    if named is not None:
        if named not in inputs:
            raise unknown_name(field=field, got=named, names=suited or inputs)
        require(
            named in suited, field=field, got=named, allowed=f"an input that a {output.type} can lie on",
            fix=f"name {' or '.join(suited)}" if suited else f"{inputs[named].type} has no places: give an input such as an image",
        )  # fmt: skip
        return named
    require(
        bool(suited), field=field, got=", ".join(inputs), allowed=f"an input that a {output.type} can lie on",
        fix=f"a {output.type} is an answer about places: give an input such as an image"
        + (", or draw it from what the inputs say: decoder: flow" if output.type == "image" else ""),
    )  # fmt: skip
    raw = [name for name in suited if INPUT_ROLE in inputs[name].roles]  # and no answer of another stage
    suited = raw or suited
    require(
        len(suited) == 1, field=field, got=None, allowed=f"one of {', '.join(suited)}",
        fix=f"say which it lies on: on: {suited[0]}",
    )  # fmt: skip
    return suited[0]


__all__ = ["ON_HELP", "Spatial", "lies_on"]
