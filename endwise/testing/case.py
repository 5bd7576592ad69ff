"""One modality in one role, and the small world around it that a check looks at: a partner, a recipe, contracts, rows, a batch,
an untrained or a barely trained model.

Not here: what is promised (checks.py), the package's own cases (cases.py).
"""

import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from endwise.batch import Batch, Ragged
from endwise.data.lookup import opened
from endwise.data.read import content_hash
from endwise.modalities import modality_class
from endwise.modalities.base import INPUT_ROLE, OUTPUT_ROLE, Contract, Modality, Role
from endwise.modalities.series import Series
from endwise.rows import file_fetcher
from endwise.testing.examples import TEXTS

if TYPE_CHECKING:
    from torch import Tensor

    from endwise.model import Model
    from endwise.recipe import Recipe

MIN_EXAMPLES = 4
WIDTH = 32  # a network this small shows a broken promise as well as a large one
HEART_STEPS, HEART_SHARE, HEART_RATE = 400, 0.3, 3e-3  # the loss must fall below this share of its start
FIELD = "value"  # the name of the field under test; its partner is named for its role
PARTNER = "partner"
END = "end"  # what a stage behind the field under test answers
SECOND = "second"  # another input
WAYS = {INPUT_ROLE: "in", OUTPUT_ROLE: "out"}

Given = tuple[Modality, Sequence[Any]]  # a field and its raw values


class ContractBroken(AssertionError):
    """A promise of modalities that this one does not keep."""


class Case:
    """A modality in a role with its partner, and the small world around them: recipe, contracts, rows, a batch."""

    def __init__(
        self,
        declaration: Modality,
        examples: Sequence[Any],
        role: Role,
        partner: Given | None = None,
        label: str | None = None,
        *,
        beside: Given | None = None,
        tables: Mapping[str, Any] | None = None,
        windows: bool = False,
    ) -> None:
        """beside: another input. tables: data.tables, for a field that looks into them. windows: every series is one of a
        long table's windows; what an example has before its window is not looked at."""
        declaration.check_role(role, FIELD)
        if len(examples) < MIN_EXAMPLES:
            raise ContractBroken(f"give at least {MIN_EXAMPLES} examples, not {len(examples)}")
        self.declaration, self.examples, self.role = declaration, tuple(examples), role
        self.partner, values = partner or default_partner(role)
        self.partner_examples = tuple(itertools.islice(itertools.cycle(values), len(examples)))
        self.label = label or f"{declaration.type} {WAYS[role]}"
        if declaration.of_row > 1:  # what relates inputs needs two: the partner, and the examples as texts
            beside = modality_class("text")(), examples
        self.second, self.tables, self.windows = beside, dict(tables or {}), windows

    @property
    def is_input(self) -> bool:
        """Is the modality under test the input?"""
        return self.role == INPUT_ROLE

    @cached_property
    def recipe(self) -> "Recipe":
        """One output and its input, the smallest network there is; no augmentation, so that a batch can be learnt."""
        from endwise.recipe import Recipe

        mine, other = {FIELD: self.declaration}, {PARTNER: self.partner}
        more = {} if self.second is None else {SECOND: self.second[0]}
        return Recipe(
            name="contract-suite",
            data={"path": [{"in memory": True}], "tables": self.tables},
            inputs=(mine if self.is_input else other) | more,
            outputs=other if self.is_input else mine,
            trunk={"width": WIDTH, "depth": 1, "dropout": 0.0},
            train={"size": "tiny", "augment": False},
        )

    @cached_property
    def decoded(self) -> dict[str, list[np.ndarray]]:
        """What `read` gives for every example, by field."""
        fetch = file_fetcher(".")
        found = {PARTNER: [self.partner.read(raw, fetch) for raw in self.partner_examples]}
        if self.second is not None:
            found[SECOND] = [self.second[0].read(raw, fetch) for raw in self.second[1]]
        return {FIELD: [self.declared.read(raw, fetch) for raw in self.raw_targets(found)], **found}

    @cached_property
    def declared(self) -> Modality:
        """The modality under test as it stands in the recipe."""
        return {**self.recipe.inputs, **self.recipe.outputs}[FIELD]

    def raw_targets(self, others: Mapping[str, Sequence[np.ndarray]]) -> Sequence[Any]:
        """The raw values of the field under test: the examples, or, without a column, what the other fields are."""
        return contents(others) if self.declaration.of_row else self.examples

    @cached_property
    def contracts(self) -> dict[str, Contract]:
        """Fitted on all examples; `fit` sees each value once."""
        sections: tuple[tuple[Role, Mapping[str, Modality]], ...]
        sections = ((INPUT_ROLE, self.recipe.inputs), (OUTPUT_ROLE, self.recipe.outputs))
        beside = self.recipe.inputs, self.recipe.outputs
        found: dict[str, Contract] = {
            name: self._fitted(item.beside(*beside), self.decoded[name], role)
            for role, section in sections
            for name, item in section.items()
        }
        output = self.recipe.outputs[self.output_name].beside(*beside)
        found |= output.agreed(self.output_name, found)
        return found | output.furnished(self.output_name, found, lambda: opened(self.recipe))

    def _fitted(self, item: Modality, values: Sequence[np.ndarray], role: Role) -> Contract:
        if not (self.windows and isinstance(item, Series)):
            return item.fit(iter(values), missing=0, role=role)
        return item.fit_windows(iter(values), length=min(map(len, values)), count=len(values), role=role)

    @cached_property
    def values(self) -> dict[str, list[np.ndarray]]:
        """What `transform` makes of every example, by field."""
        return {
            name: [item.transform(value, self.contracts[name]) for value in self.decoded[name]]
            for name, item in {**self.recipe.inputs, **self.recipe.outputs}.items()
        }

    @property
    def contract(self) -> Any:
        """The contract of the modality under test."""
        return self.contracts[FIELD]

    @property
    def raw_rows(self) -> list[dict[str, Any]]:
        """The inputs as a caller of `predict` gives them."""
        given = {FIELD: self.examples} if self.is_input else {PARTNER: self.partner_examples}
        if self.second is not None:
            given[SECOND] = tuple(self.second[1])
        return [dict(zip(given, row, strict=True)) for row in zip(*given.values(), strict=True)]

    @property
    def input_name(self) -> str:
        """The field that goes in."""
        return FIELD if self.is_input else PARTNER

    @property
    def output_name(self) -> str:
        """The field that comes out."""
        return PARTNER if self.is_input else FIELD

    def model(self, seed: int = 0) -> "Model":
        """An untrained model."""
        from endwise.model import Model

        return Model.build(self.recipe, self.contracts, seed=seed)

    def staged(self, hand_off: str) -> "Model":
        """An untrained model of two stages: what is under test is answered by the first and read by the second."""
        from endwise.model import Model

        stages = {
            "first": {"from": [*self.recipe.inputs], "to": [FIELD]},
            "then": {"from": FIELD, "to": [END], "hand_off": hand_off},
        }
        end = modality_class("category")()
        recipe = self.recipe.replace(outputs={**self.recipe.outputs, END: end}, stages=stages, regime="joint")
        fitted = end.fit(iter([end.read(name, file_fetcher(".")) for name in "ab" * 4]), missing=0, role=OUTPUT_ROLE)
        return Model.build(recipe, {**self.contracts, END: fitted}, seed=0)

    def trained(self, steps: int = 3, seed: int = 0) -> "Model":
        """A model after a few steps on the batch, so that nothing is at its initial value."""
        model = self.model(seed)
        learn(model, self.batch().to("cpu"), steps=steps, until=0.0)
        model.network.eval()
        return model

    def batch(self, rows: Sequence[int] | None = None, *, room: int = 0) -> Batch:
        """Rows (default: all) as one numpy batch; `room`: padding beyond the longest on every varying axis."""
        chosen = range(len(self.examples)) if rows is None else rows
        sections = {"inputs": self.recipe.inputs, "outputs": self.recipe.outputs}
        fields = {
            name: _padded(Ragged.stack([self.values[name][row] for row in chosen], item.axes), item.axes, room)
            for section in sections.values()
            for name, item in section.items()
        }
        return Batch(
            inputs={name: fields[name] for name in self.recipe.inputs},
            targets={name: fields[name] for name in self.recipe.outputs},
            present={name: np.ones(len(chosen), dtype=bool) for name in fields},
            weight=np.ones(len(chosen), dtype=np.float32),
            row_ids=np.array(chosen, dtype=np.int64),
        )


def learn(model: "Model", batch: Batch, *, steps: int, until: float) -> list[float]:
    """The losses of AdamW on one batch, until the loss is below `until` times its first value."""
    import torch

    optimiser = torch.optim.AdamW(model.network.parameters(), lr=HEART_RATE, weight_decay=0.0)
    model.network.train()
    losses: list[float] = []
    with torch.random.fork_rng(devices=[]):
        for step in range(steps):
            torch.manual_seed(step)
            loss = loss_of(model, batch)
            losses.append(float(loss.detach()))
            if not np.isfinite(losses[-1]):
                raise ContractBroken(f"the loss is {losses[-1]} at step {step}")
            if losses[-1] <= until * losses[0]:
                break
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(model.network.parameters(), 1.0)
            optimiser.step()
    return losses


def loss_of(model: "Model", batch: Batch) -> "Tensor":
    import torch

    from endwise.objective import denominators, term_values

    predictions = model.network(batch.inputs, batch.present)
    terms = term_values(model.network, predictions, batch, denominators(model.network, batch))
    return torch.stack(list(terms.values())).sum()


def contents(fields: Mapping[str, Sequence[np.ndarray]]) -> list[dict[str, bytes]]:
    """The raw value of an output without a column, row by row."""
    sums = {
        name: [content_hash(item.dtype.str, item.shape, item.tobytes()) for item in values]
        for name, values in fields.items()
    }
    return [dict(zip(sums, row, strict=True)) for row in zip(*sums.values(), strict=True)]


def _padded(field: Ragged, axes: int, room: int) -> Ragged:
    if not axes or not room:
        return field
    pads = [(0, 0), *[(0, room)] * axes, *[(0, 0)] * (field.values.ndim - 1 - axes)]
    return Ragged(np.pad(field.values, pads), field.sizes)


def default_partner(role: Role) -> tuple[Modality, Sequence[Any]]:
    """The other end of the network when the caller names none."""
    if role == INPUT_ROLE:
        return modality_class("category")(), ("one", "other")
    return modality_class("text")(), TEXTS
