"""The contract suite: what every modality promises, as plain checks that run on anybody's.

    from endwise.testing import check_modality
    for check in check_modality(MyPoint(), [[0, 1], [2, 5], ...], role="input"):
        check()                       # raises ContractBroken with what was promised and what happened

No test framework is needed; with pytest, parametrise over `check_modality(...)` and use `check.name` as the id. The
package's own modalities pass through the same function, and `python -m endwise.testing --capabilities` runs it over
all of them and writes the table of docs/capabilities.md. Not here: accuracy on real data (benchmarks).
"""

import argparse
import dataclasses
import inspect
import io
import itertools
import json
import math
import sys
import tempfile
import wave
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from endwise.batch import Batch, Ragged
from endwise.certainty import ENTRY, Certainty
from endwise.data.read import content_hash
from endwise.errors import BadValue, EndwiseError, RecipeError
from endwise.files import kind_of, plain
from endwise.modalities import TABLE, modality_class
from endwise.modalities.base import INPUT_ROLE, OUTPUT_ROLE, Answer, Contract, Modality, Role, build
from endwise.rows import collate, file_fetcher
from endwise.runner import Bundle, differences

if TYPE_CHECKING:
    from torch import Tensor

    from endwise.model import Model
    from endwise.recipe import Recipe

MIN_EXAMPLES = 4
WIDTH = 32  # a network this small shows a broken promise as well as a large one
HEART_STEPS, HEART_SHARE, HEART_RATE = 400, 0.3, 3e-3  # the loss must fall below this share of its start
ALONE_TOLERANCE = 1e-4
FIELD = "value"  # the name of the field under test; its partner is named for its role
PARTNER = "partner"
END = "end"  # what a stage behind the field under test answers
SECOND = "second"  # beside the partner, for an output that relates inputs
WAYS = {INPUT_ROLE: "in", OUTPUT_ROLE: "out"}


class ContractBroken(AssertionError):
    """A promise of modalities that this one does not keep."""


@dataclass(frozen=True, slots=True)
class Check:
    """One promise about one modality. Call it: it returns when the promise is kept and raises ContractBroken when not
    (or whatever the modality itself raised)."""

    name: str
    capability: str  # the column of docs/capabilities.md
    slow: bool  # seconds instead of milliseconds
    case: "Case"
    function: Callable[["Case"], None]

    def __call__(self) -> None:
        self.function(self.case)

    def __str__(self) -> str:
        return f"{self.case.label}: {self.name}"


def check_modality(
    declaration: Modality,
    examples: Sequence[Any],
    *,
    role: Role,
    partner: tuple[Modality, Sequence[Any]] | None = None,
    slow: bool = True,
) -> Iterator[Check]:
    """The checks of one modality in one role, to be called one by one.

    examples: at least four raw values (paths, bytes or inline), all different where the kind allows, of different
    sizes where sizes may differ. partner: the other end of the network and its raw values, as (declaration, values);
    default: two classes in turn behind an input, short texts before an output. slow = False leaves out the export.
    """
    yield from checks_of(Case(declaration, examples, role, partner), slow=slow)


class Case:
    """A modality in a role with its partner, and the small world around them: recipe, contracts, rows, a batch."""

    def __init__(
        self,
        declaration: Modality,
        examples: Sequence[Any],
        role: Role,
        partner: tuple[Modality, Sequence[Any]] | None = None,
        label: str | None = None,
    ) -> None:
        declaration.check_role(role, FIELD)
        if len(examples) < MIN_EXAMPLES:
            raise ContractBroken(f"give at least {MIN_EXAMPLES} examples, not {len(examples)}")
        self.declaration, self.examples, self.role = declaration, tuple(examples), role
        self.partner, values = partner or default_partner(role)
        self.partner_examples = tuple(itertools.islice(itertools.cycle(values), len(examples)))
        self.label = label or f"{declaration.type} {WAYS[role]}"
        # what relates inputs needs two: the partner, and the examples as texts
        self.second: Modality | None = modality_class("text")() if declaration.of_row > 1 else None

    @property
    def is_input(self) -> bool:
        """Is the modality under test the input?"""
        return self.role == INPUT_ROLE

    @cached_property
    def recipe(self) -> "Recipe":
        """One input, one output, the smallest network there is; no augmentation, so that a batch can be learnt."""
        from endwise.recipe import Recipe

        mine, other = {FIELD: self.declaration}, {PARTNER: self.partner}
        if self.second is not None:
            other |= {SECOND: self.second}
        return Recipe(
            name="contract-suite",
            data=[{"in memory": True}],
            inputs=mine if self.is_input else other,
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
            found[SECOND] = [self.second.read(raw, fetch) for raw in self.examples]
        return {FIELD: [self.declared.read(raw, fetch) for raw in self.raw_targets(found)], **found}

    @cached_property
    def declared(self) -> Modality:
        """The modality under test as it stands in the recipe."""
        return {**self.recipe.inputs, **self.recipe.outputs}[FIELD]

    def raw_targets(self, others: Mapping[str, Sequence[np.ndarray]]) -> Sequence[Any]:
        """The raw values of the field under test: the examples, or, without a column, what the other fields are."""
        return _contents(others) if self.declaration.of_row else self.examples

    @cached_property
    def contracts(self) -> dict[str, Contract]:
        """Fitted on all examples; `fit` sees each value once."""
        sections: tuple[tuple[Role, Mapping[str, Modality]], ...]
        sections = ((INPUT_ROLE, self.recipe.inputs), (OUTPUT_ROLE, self.recipe.outputs))
        beside = self.recipe.inputs, self.recipe.outputs
        found: dict[str, Contract] = {
            name: item.beside(*beside).fit(iter(self.decoded[name]), missing=0, role=role)
            for role, section in sections
            for name, item in section.items()
        }
        return found | self.recipe.outputs[self.output_name].beside(*beside).agreed(self.output_name, found)

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
            given[SECOND] = self.examples
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
        _learn(model, self.batch().to("cpu"), steps=steps, until=0.0)
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


def checks_of(case: Case, *, slow: bool = True) -> Iterator[Check]:
    """The checks that apply to a case."""
    for promise in CHECKS:
        if case.role in promise.roles and (slow or not promise.slow) and promise.applies(case):
            yield Check(promise.name, promise.capability, promise.slow, case, promise.function)


# ---- the checks: functions of a case, named as what they promise ------------------------------------------------------


def a_declaration_cannot_be_changed_after_it_is_made(case: Case) -> None:
    for item in dataclasses.fields(case.declaration):
        try:
            setattr(case.declaration, item.name, getattr(case.declaration, item.name))
        except dataclasses.FrozenInstanceError:
            continue
        raise ContractBroken(f"{item.name} could be set: declare the class with @dataclass(frozen=True, kw_only=True)")


def a_declaration_survives_being_saved(case: Case) -> None:
    saved = json.loads(json.dumps(case.declaration.to_dict(), allow_nan=False))
    _expect(saved.pop("type") == type(case.declaration).type, "to_dict does not say the type")
    again = build(type(case.declaration), saved, FIELD)
    _expect(again == case.declaration, f"{again} was read back from what {case.declaration} saved")
    _expect(hash(again) == hash(case.declaration), "equal declarations have different hashes")


def a_wrong_field_is_refused_with_the_fix(case: Case) -> None:
    cls = type(case.declaration)
    _refused(lambda: build(cls, {"colum": "x"}, FIELD), RecipeError, ["colum", "Fix:", "'column'"])
    for item in dataclasses.fields(cls):
        _refused(lambda name=item.name: build(cls, {name: object()}, FIELD), RecipeError, [item.name, "Fix:"])  # type: ignore[misc]
    other = {"loss_weight": 2.0} if case.is_input else {"optional": True}
    changed = dataclasses.replace(case.declaration, **other)
    _refused(lambda: changed.check_role(case.role, FIELD), RecipeError, [*other, "Fix:"])
    for role in {INPUT_ROLE, OUTPUT_ROLE} - cls.roles:
        _refused(lambda role=role: case.declaration.check_role(role, FIELD), RecipeError, [cls.type, "Fix:"])  # type: ignore[misc]


def a_value_is_read_the_same_way_every_time(case: Case) -> None:
    fetch = file_fetcher(".")
    raws = case.raw_targets({name: values for name, values in case.decoded.items() if name != FIELD})
    for raw, first in zip(raws, case.decoded[FIELD], strict=True):
        again = case.declared.read(raw, fetch)
        _expect(isinstance(again, np.ndarray), f"read gave {type(again).__name__}, not an array")
        _expect(_equal(first, again), f"reading {raw!r:.80} twice gave two values")
    values = case.values[FIELD]
    kinds = {(value.dtype, value.ndim, value.shape[case.declaration.axes :]) for value in values}
    _expect(
        len(kinds) == 1, f"transformed values differ in dtype or fixed shape, so that no batch can hold them: {kinds}"
    )
    for value in case.decoded[FIELD]:
        length = case.declaration.length(value.shape)
        _expect(isinstance(length, int) and length >= 0, f"length({value.shape}) is {length!r}, not a whole number")


def a_value_that_cannot_be_read_is_refused(case: Case) -> None:
    _refused(lambda: case.declaration.read(object(), file_fetcher(".")), BadValue, [])


def a_contract_survives_being_saved(case: Case) -> None:
    saved = json.loads(json.dumps(case.contract.to_dict(), allow_nan=False))
    contract_class: type[Contract] = type(case.declaration).contract_class
    again = contract_class.from_dict(saved)
    _expect(again == case.contract, f"{again} was read back from what {case.contract} saved")
    _expect(
        case.contract.count == len(case.examples), f"count is {case.contract.count} after {len(case.examples)} values"
    )
    for raw, first in zip(case.decoded[FIELD], case.values[FIELD], strict=True):
        _expect(
            _equal(case.declaration.transform(raw, again), first), "a saved contract transforms a value differently"
        )
    _expect(isinstance(case.declaration.summary(again), str), "summary gives no text")


def a_blank_fits_among_the_values(case: Case) -> None:
    blank, value = case.declared.blank(case.contract), case.values[FIELD][0]
    axes = case.declaration.axes
    _expect(
        (blank.dtype, blank.ndim, blank.shape[axes:]) == (value.dtype, value.ndim, value.shape[axes:]),
        f"blank is {blank.dtype} {blank.shape}, values are {value.dtype} {value.shape}",
    )
    _expect(case.declaration.length(blank.shape) >= 0, "blank has no length")
    example = case.declared.example(case.contract) if case.is_input else None
    if example is not None:
        again = json.loads(json.dumps(example))
        read = case.declared.transform(case.declared.read(again, file_fetcher(".")), case.contract)
        _expect((read.dtype, read.ndim) == (value.dtype, value.ndim), f"the example is {read.dtype} {read.shape}")


def the_loss_reaches_the_raw_input(case: Case) -> None:
    """The promise of the project: no detached step between the raw value and the loss. Where a value is a symbol, the
    gradient reaches its embedding."""
    import torch
    from torch import nn

    model, batch = case.model(), case.batch().to("cpu")
    model.network.train()
    field = batch.inputs[case.input_name]
    raw = field.values if field.values.is_floating_point() else field.values.to(torch.float32)
    raw = raw.detach().clone().requires_grad_()
    try:
        loss = _loss(model, _with_input(batch, case.input_name, Ragged(raw, field.sizes)))
        (gradient,) = torch.autograd.grad(loss, [raw], allow_unused=True)
    except (RuntimeError, IndexError, TypeError):  # a look-up refuses numbers: these are symbols
        gradient = None
    if gradient is not None:
        _expect(bool(torch.isfinite(gradient).all()), "the gradient at the raw input is not finite")
        reached = gradient.reshape(len(raw), -1).abs().sum(1) > 0
        _expect(
            bool(reached.all()), f"the loss does not reach the raw value of rows {(~reached).nonzero()[:, 0].tolist()}"
        )
        return
    _expect(not field.values.is_floating_point(), "the loss does not reach the raw input")
    torch.autograd.backward(_loss(model, batch))
    encoder = next(iter(model.network.inputs.values()))
    tables = [module.weight.grad for module in encoder.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)]
    if not tables:
        tables = [weight.grad for weight in encoder.encoder.parameters()][:1]  # type: ignore[union-attr]
    _expect(
        any(found is not None and bool((found.abs().sum() > 0) & torch.isfinite(found).all()) for found in tables),
        "the loss reaches neither the raw input nor the embedding of its symbols",
    )


def one_batch_can_be_learnt_by_heart(case: Case) -> None:
    model = case.model()
    losses = _learn(model, case.batch().to("cpu"), steps=HEART_STEPS, until=HEART_SHARE)
    _expect(
        losses[-1] <= HEART_SHARE * losses[0],
        f"after {len(losses)} steps on {len(case.examples)} rows the loss is {losses[-1]:.3g}, from {losses[0]:.3g}",
    )


def the_same_seed_gives_the_same_model(case: Case) -> None:
    import torch

    one, other = case.trained(seed=7), case.trained(seed=7)
    for name, value in one.network.state_dict().items():
        _expect(torch.equal(value, other.network.state_dict()[name]), f"two trainings from one seed differ in {name}")
    parameters = zip(case.model(7).network.parameters(), case.model(8).network.parameters(), strict=True)
    _expect(any(not torch.equal(a, b) for a, b in parameters), "another seed gives the same weights")


def a_row_alone_is_answered_as_in_a_batch(case: Case) -> None:
    model = case.trained()
    together = _answers(model, case.batch())
    _expect_same(together, _answers(model, case.batch(room=5)), "more padding changes an answer")
    for row in range(len(case.examples)):
        _expect_same([together[row]], _answers(model, case.batch([row])), f"row {row} is answered differently alone")
    if model.network.compares_rows:
        return
    losses = {term: values.tolist() for term, values in _row_losses(model, case.batch().to("cpu")).items()}
    for row in range(len(case.examples)):
        for term, value in _row_losses(model, case.batch([row]).to("cpu")).items():
            alone, among = value.tolist()[0], losses[term][row]
            _expect(
                abs(alone - among) <= ALONE_TOLERANCE * max(1.0, abs(alone)),
                f"the {term} loss of row {row} is {alone} alone and {among} in a batch",
            )


def it_runs_in_half_precision(case: Case) -> None:
    import torch

    model, batch = case.model(), case.batch().to("cpu")
    model.network.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = _row_losses(model, batch)
    for term, values in losses.items():
        _expect(values.dtype == torch.float32, f"the {term} loss is {values.dtype} under autocast, not float32")
        _expect(
            values.shape == (len(case.examples),), f"the {term} loss has shape {tuple(values.shape)}, not one a row"
        )
        _expect(bool(torch.isfinite(values).all()), f"the {term} loss is not finite in half precision")
    torch.autograd.backward([values.sum() for values in losses.values()])
    for name, weight in model.network.named_parameters():
        _expect(weight.grad is None or bool(torch.isfinite(weight.grad).all()), f"the gradient of {name} is not finite")


def a_missing_value_is_masked_not_invented(case: Case) -> None:
    """What stands in the place of a missing value has no influence on anything."""
    (_missing_input if case.is_input else _missing_target)(case)


def _missing_input(case: Case) -> None:
    model, batch = case.trained(), case.batch()
    count = len(case.examples)
    turned = np.roll(np.arange(count), 1)
    absent = dataclasses.replace(batch, present={**batch.present, FIELD: np.zeros(count, dtype=bool)})
    other = dataclasses.replace(absent, inputs={FIELD: batch.inputs[FIELD].rows(turned)})
    one, two = _answers(model, absent), _answers(model, other)
    _expect_same(one, two, "the value in the place of a missing one changes the answer")
    blanks, present = collate(case.recipe.inputs, case.contracts, [{FIELD: None}] * count)
    filled = dataclasses.replace(batch, inputs=blanks, present={**batch.present, **present})
    _expect_same(one, _answers(model, filled), "a blank and a masked value are answered differently")
    _expect(bool(differences(one, _answers(model, batch))), "the input makes no difference at all")


def _missing_target(case: Case) -> None:
    import torch

    model, batch = case.trained(), case.batch()
    present = np.arange(len(case.examples)) > 0  # row 0 has no label
    blank = case.declaration.blank(case.contract)
    stacks = [case.values[FIELD][0], blank]
    gradients = []
    for first in stacks:
        targets = Ragged.stack([first, *case.values[FIELD][1:]], case.declaration.axes)
        changed = dataclasses.replace(batch, targets={FIELD: targets}, present={**batch.present, FIELD: present})
        model.network.zero_grad()
        torch.autograd.backward(_loss(model, changed.to("cpu")))
        found = [weight.grad for weight in model.network.parameters() if weight.grad is not None]
        gradients.append(torch.cat([gradient.reshape(-1).clone() for gradient in found]))
    _expect(bool(torch.isfinite(gradients[0]).all()), "a missing target makes the gradient infinite or NaN")
    _expect(
        bool(torch.allclose(gradients[0], gradients[1], atol=1e-7)),
        "what stands in the place of a missing target is learnt from",
    )


def an_answer_is_in_the_users_kind_of_value(case: Case) -> None:
    answers = _written(case.trained(), case.batch())
    truths = [case.declared.truth(value, case.contract) for value in case.decoded[FIELD]]
    for answer in answers:
        _expect(isinstance(answer, Answer), f"write gave {type(answer).__name__}, not an Answer")
        json.dumps(plain(answer.to_dict()), allow_nan=False)
        known = {list} if case.declaration.of_row > 1 else {type(truth) for truth in truths}
        _expect(type(answer.value) in known, f"answers are {type(answer.value).__name__}, truths {known}")
        _expect(answer.confidence is None or 0 <= answer.confidence <= 1, f"a confidence of {answer.confidence}")


def it_is_scored_beside_a_trivial_answer(case: Case) -> None:
    truths = [case.declared.truth(value, case.contract) for value in case.decoded[FIELD]]
    answers = _written(case.trained(), case.batch())
    trivial = [case.declared.trivial(truths, case.contract)] * len(truths)
    # what has no column has no right answer to write down: it is held against chance
    perfect = answers if case.declaration.of_row else [Answer(truth) for truth in truths]
    metrics = case.declared.metrics(case.contract)
    _expect(len(metrics) > 0, "no metric: an output is scored")
    weights = np.ones(len(truths))
    goal = metrics[0]
    terms = _terms(case.trained(), case.batch())
    for metric in metrics:
        for given in (answers, trivial):
            _expect(metric.of_term is None or metric.of_term in terms, f"{metric.name} is of a term that is none")
            found = metric.combine(metric.rows(truths, metric.looks_at(given, terms)), weights)
            _expect(np.ndim(found) == 0, f"{metric.name} gives no number")
    if goal.of_term is not None:
        return  # a constant answer has no likelihood
    scores = [goal.combine(goal.rows(truths, given), weights) for given in (perfect, trivial)]
    better = scores[0] >= scores[1] if goal.direction == "max" else scores[0] <= scores[1]
    undefined = bool(np.isnan(scores[0]))  # a ranking needs probabilities, which a bare truth has not
    _expect(
        undefined or better, f"{goal.name} of the truths themselves is {scores[0]}, of the trivial answer {scores[1]}"
    )


def an_answer_goes_on_to_a_next_stage(case: Case) -> None:
    """Hard is what was decoded, written and read again; a gradient comes back by every other way."""
    import torch

    from endwise.nn.interface import Head
    from endwise.stages import StagedNetwork

    for how in sorted(case.declared.hand_offs):
        model = case.staged(how)
        network, sent = model.network, case.batch().to("cpu")
        assert isinstance(network, StagedNetwork)
        found, _ = network.train().run(sent.inputs, sent.present)
        torch.autograd.backward(found[END]["logits"].float().square().sum())
        grown = (weight.grad for weight in network.stage("first").parameters() if weight.grad is not None)
        reached = any(bool(gradient.any()) for gradient in grown)
        head = network.head(FIELD)
        silent = how != "latent" and type(head).handed is not Head.handed and not _sizes(head, found[FIELD]).any()
        _expect(
            reached == (how != "hard") or silent, f"by {how} a gradient {'comes' if reached else 'does not come'} back"
        )
        pieces = getattr(case.declared, "pretrained", None) is not None  # many sequences of pieces spell one text
        if how != "hard" or pieces or (case.declared.lies and FIELD not in network.written):
            continue  # what lies on another picture goes on as it lies there
        with torch.no_grad():
            found, _ = network.eval().run(sent.inputs, sent.present)
            decoded = model.decoded({FIELD: found[FIELD]})
            rows = [{FIELD: _again(case, answer)} for answer in model.written(decoded, len(case.examples))[FIELD]]
            fields, present = collate({FIELD: case.declared}, case.contracts, rows)
            then = network.stage("then")
            wanted = then({FIELD: fields[FIELD].to("cpu")}, {FIELD: torch.from_numpy(present[FIELD])})
        same = torch.equal(found[END]["logits"], wanted[END]["logits"])
        _expect(same, "what goes on is not what is written and read again")


def _sizes(head: Any, prediction: dict[str, "Tensor"]) -> "Tensor":
    """How long what is handed on is in each row; an answer without a length has one."""
    import torch

    found: Tensor = head.handed(prediction, greedy=True).sizes
    return found if found.shape[1] else torch.ones(1)


def _again(case: Case, answer: Answer) -> "np.ndarray | None":
    """What was written as the next stage would read it from a file; None where that is no legal value."""
    try:
        return case.declared.transform(case.declared.read(answer.value, file_fetcher(".")), case.contract)
    except BadValue:
        return None


def _goes_on(case: Case) -> bool:
    return case.declaration.hand_offs != {"latent"} or not case.declaration.of_row


def an_answer_can_be_explained(case: Case) -> None:
    """What every place of every raw input adds to it, in raw coordinates; whether that is worth believing is measured on
    trained networks, and the explanation says so itself."""
    from endwise.explain import explain

    model = case.trained()
    for row in (case.raw_rows[0], case.raw_rows[-1]):
        found = explain(model, row, of=case.output_name, grade=False)
        _expect(
            set(found.attributions) == set(row), f"{list(found.attributions)} are explained, the row has {list(row)}"
        )
        for name, values in found.attributions.items():
            _expect(bool(np.isfinite(values).all()), f"an attribution of {name} is not finite")
            declared, contract = case.recipe.inputs[name], case.contracts[name]
            whole = declared.in_full(row[name], file_fetcher("."))
            names = declared.named(whole, contract)
            said = type(declared).named is Modality.named or len(names) in (0, values.size)
            _expect(said, f"{len(names)} names for {values.size} places of {name}")
        _expect(max(map(len, str(found).splitlines())) <= 80, "a line is longer than 80 columns")
        _expect("<script" not in found.html(), "a script in what is shown")
        json.dumps(found.to_dict(), allow_nan=False)


def _answers_something(case: Case) -> bool:
    return not (case.partner if case.is_input else case.declaration).unexplained


def a_reloaded_model_gives_the_same_answers(case: Case) -> None:
    from endwise.model import Model

    model = case.trained()
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model")
        again = Model.load(Path(folder) / "model", modalities=_outside(case))
        _pickles_nothing(Path(folder))
    rows = case.raw_rows
    wanted = [prediction.to_dict() for prediction in model.predict(rows)]
    got = [prediction.to_dict() for prediction in again.predict(rows)]
    _expect(plain(wanted) == plain(got), "a reloaded model answers otherwise than the trained one")


def it_says_how_sure_it_is_and_may_say_nothing(case: Case) -> None:
    from endwise.calibration import row_errors

    model, batch, declared, contract = case.trained(), case.batch(), case.declared, case.contract
    truths = [declared.truth(value, contract) for value in case.decoded[FIELD]]
    said = model.answers(batch)[FIELD]
    sureness = [declared.sureness(answer, contract) for answer in said]
    inside = all(map(math.isfinite, sureness)) and (
        not declared.error_is_share or 0 <= min(sureness) <= max(sureness) <= 1
    )
    _expect(inside, f"sureness is {sureness}")
    for answers, most in ((said, math.inf), ([Answer(truth) for truth in truths], 1e-6)):
        errors = row_errors(declared, contract, truths, answers)
        errors = errors[np.isfinite(errors)]
        _expect(len(errors) > 0 and 0 <= errors.min() <= errors.max() <= most, f"errors of single rows are {errors}")
    cautious = _cautious(model, {FIELD: said})
    learnt = cautious.certainty[FIELD]
    for before, sure, after in zip(said, sureness, cautious.answers(batch)[FIELD], strict=True):
        json.dumps(plain(after.to_dict()), allow_nan=False)
        _expect(after.abstained == (sure < learnt.at_least), "a surer answer is withheld, or a less sure one given")
        same = after.value is None if after.abstained else not _apart(before.value, after.value)
        _expect(same, "abstaining changes an answer that is given")
        _expect((learnt.limit is None) == ("set" not in after.detail), "strangeness and among belong together")


def _apart(one: Any, other: Any) -> bool:
    """Whether two values differ."""
    found = [[{FIELD: plain({"value": Answer(value).to_dict()["value"]})}] for value in (one, other)]
    return bool(differences(*found))


def _cautious(model: "Model", said: Mapping[str, Sequence[Answer]]) -> "Model":
    """The same model as if it were calibrated: what can abstain keeps the less sure of these answers back, all confidences are
    mapped, and sets stand beside answers that have some."""
    sure = {name: item for name, item in model.recipe.outputs.items() if item.can_abstain}
    facts = {name: _learnt(item, model.contracts[name], said[name]).to_dict() for name, item in sure.items()}
    recipe = model.recipe.replace(**{f"outputs.{name}.abstain": {"coverage": 0.5} for name in sure})
    return type(model)(recipe, model.contracts, model.network, model.size, {**model.info, ENTRY: facts})


def _learnt(item: Modality, contract: Contract, said: Sequence[Answer]) -> Certainty:
    """The threshold lies where these answers are furthest apart, since graphs are compared to four digits."""
    ordered = sorted({item.sureness(answer, contract) for answer in said})
    below, above = max(itertools.pairwise(ordered), key=lambda pair: pair[1] - pair[0], default=(ordered[0],) * 2)
    has_set = item.strangeness(said[0].value, said[0], contract) is not None
    return Certainty(
        rows=len(said), scale=0.5 if item.error_is_share else None, shift=0.1, limit=0.62 if has_set else None,
        gives="some", at_least=(below + above) / 2,
    )  # fmt: skip


def what_comes_later_changes_no_token(case: Case) -> None:
    """Prefix consistency, at every chunk of every example: the tokens of a beginning are those of the whole, and pieces
    make the same ones."""
    import torch

    encoder = case.trained().network.encoder(FIELD)
    step = encoder.chunk
    assert step is not None
    for index, value in enumerate(case.values[FIELD]):
        whole, past, count = _tokens(encoder, value), None, 0
        for end in (*range(step, len(value), step), len(value)):
            begun = _tokens(encoder, value[:end])
            piece = torch.from_numpy(value[(end - 1) // step * step : end])[None]
            with torch.inference_mode():
                tokens, past = encoder.feed(piece, torch.tensor([[piece.shape[1]]]), past)
            places = slice(count, begun.shape[1])
            count = begun.shape[1]
            for name, found in (("of the beginning", begun[:, places]), ("of the piece", tokens.values)):
                same = found.shape == whole[:, places].shape and torch.allclose(
                    found, whole[:, places], atol=ALONE_TOLERANCE
                )
                _expect(same, f"example {index}: the tokens {name} up to place {end} are not those of the whole")


def what_has_been_said_stays_and_ends_as_the_whole(case: Case) -> None:
    """A stream of every example: its answers grow, and the last is what `predict` gives."""
    model, fetch = case.trained(), file_fetcher(".")
    for row in case.raw_rows:
        (raw,) = row.values()
        said, last = "", None
        for last in model.stream().of(raw, fetch):
            now = str(last[case.output_name])
            _expect(now.startswith(said), f"{said!r} was said, and then {now!r}")
            said = now
        assert last is not None
        streamed = {name: answer.to_dict() for name, answer in last.answers.items()}
        _expect_same([model.predict(row).to_dict()], [streamed], "a stream ends otherwise than the whole is answered")


def _tokens(encoder: Any, value: np.ndarray) -> "Tensor":
    import torch

    with torch.inference_mode():
        found: Tensor = encoder(torch.from_numpy(value)[None], torch.tensor([[len(value)]])).values
    return found


def _hears_in_pieces(case: Case) -> bool:
    return bool(case.declaration.streams_in)


def _can_abstain(case: Case) -> bool:
    return case.declaration.can_abstain


def _answers_in_pieces(case: Case) -> bool:
    """The network has to be made to know: a head streams, or an input is heard in pieces."""
    inputs = [case.declaration] if case.is_input else [case.partner]
    return any(item.streams_in for item in inputs) and case.model().network.head(case.output_name).streams


def an_exported_model_gives_the_same_answers(case: Case) -> None:
    """Through the bundle: raw values in, by the runner's own way."""
    check_export(case.trained(), case.raw_rows, modalities=_outside(case))


@dataclass(frozen=True, slots=True)
class _Promise:
    function: Callable[[Case], None]
    capability: str
    roles: frozenset[Role] = frozenset({INPUT_ROLE, OUTPUT_ROLE})
    slow: bool = False
    applies: Callable[[Case], bool] = lambda case: True  # what not every modality promises

    @property
    def name(self) -> str:
        return self.function.__name__


_OUTPUT: frozenset[Role] = frozenset({OUTPUT_ROLE})
CHECKS: tuple[_Promise, ...] = (
    _Promise(a_declaration_cannot_be_changed_after_it_is_made, "declared"),
    _Promise(a_declaration_survives_being_saved, "declared"),
    _Promise(a_wrong_field_is_refused_with_the_fix, "declared"),
    _Promise(a_value_is_read_the_same_way_every_time, "read"),
    _Promise(a_value_that_cannot_be_read_is_refused, "read"),
    _Promise(a_contract_survives_being_saved, "contract"),
    _Promise(a_blank_fits_among_the_values, "contract"),
    _Promise(the_loss_reaches_the_raw_input, "gradient to raw"),
    _Promise(one_batch_can_be_learnt_by_heart, "learns"),
    _Promise(the_same_seed_gives_the_same_model, "same seed"),
    _Promise(a_row_alone_is_answered_as_in_a_batch, "alone = batch"),
    _Promise(it_runs_in_half_precision, "bf16"),
    _Promise(a_missing_value_is_masked_not_invented, "missing"),
    _Promise(an_answer_is_in_the_users_kind_of_value, "answers", _OUTPUT),
    _Promise(it_is_scored_beside_a_trivial_answer, "answers", _OUTPUT),
    _Promise(it_says_how_sure_it_is_and_may_say_nothing, "abstains", _OUTPUT, applies=_can_abstain),
    _Promise(what_comes_later_changes_no_token, "streams", frozenset({INPUT_ROLE}), applies=_hears_in_pieces),
    _Promise(what_has_been_said_stays_and_ends_as_the_whole, "streams", applies=_answers_in_pieces),
    _Promise(an_answer_goes_on_to_a_next_stage, "goes on", _OUTPUT, applies=_goes_on),
    _Promise(an_answer_can_be_explained, "explains", applies=_answers_something),
    _Promise(a_reloaded_model_gives_the_same_answers, "reloads"),
    _Promise(an_exported_model_gives_the_same_answers, "exports", slow=True),
)
CAPABILITIES = tuple(dict.fromkeys(check.capability for check in CHECKS))


# ---- what the checks share -------------------------------------------------------------------------------------------


def check_export(
    model: "Model", rows: Sequence[Mapping[str, Any]], *, modalities: Sequence[type[Modality]] = ()
) -> None:
    """Export `model`, load the bundle, and compare its answers to raw rows with the model's; ContractBroken if they
    differ or if anything in the bundle is a pickle."""
    from endwise.export import export
    from endwise.export.graph import MIN_ROWS

    examples = list(itertools.islice(itertools.cycle(rows), max(len(rows), MIN_ROWS)))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "bundle"
        export(model, place, examples=examples)
        bundle = Bundle.load(place, modalities=modalities)
        got = bundle.predict(list(rows))
        in_windows = any(item.patch(model.contracts[name]) is not None for name, item in model.recipe.inputs.items())
        columns = {} if in_windows else bundle.score({name: [row[name] for row in rows] for name in rows[0]})
        _pickles_nothing(place)
    _expect_same([item.to_dict() for item in model.predict(list(rows))], got, "the exported model answers otherwise")
    if in_windows:  # of which columns are refused
        return
    scored = [{name: _entry(column, row) for name, column in columns.items()} for row in range(len(rows))]
    said = [{name: {key: part[key] for key in ("value", "confidence")} for name, part in row.items()} for row in got]
    _expect_same(said, scored, "columns are answered otherwise than rows")


def _entry(column: Mapping[str, Any], row: int) -> dict[str, Any]:
    """One row of what `Bundle.score` gave."""
    value, sure = (None if column[key] is None else column[key][row] for key in ("value", "confidence"))
    answer = Answer(
        plain(value) if isinstance(value, np.generic | np.ndarray) else value, None if sure is None else float(sure)
    )
    return {key: part for key, part in answer.to_dict().items() if key in ("value", "confidence")}


def _learn(model: "Model", batch: Batch, *, steps: int, until: float) -> list[float]:
    """The losses of AdamW on one batch, until the loss is below `until` times its first value."""
    import torch

    optimiser = torch.optim.AdamW(model.network.parameters(), lr=HEART_RATE, weight_decay=0.0)
    model.network.train()
    losses: list[float] = []
    with torch.random.fork_rng(devices=[]):
        for step in range(steps):
            torch.manual_seed(step)
            loss = _loss(model, batch)
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


def _loss(model: "Model", batch: Batch) -> "Tensor":
    import torch

    from endwise.objective import denominators, term_values

    predictions = model.network(batch.inputs, batch.present)
    terms = term_values(model.network, predictions, batch, denominators(model.network, batch))
    return torch.stack(list(terms.values())).sum()


def _row_losses(model: "Model", batch: Batch) -> dict[str, "Tensor"]:
    (name,) = model.network.output_names
    predictions = model.network(batch.inputs, batch.present)
    target = batch.targets[name]
    found: dict[str, Tensor] = model.network.head(name).loss(predictions[name], target.values, target.sizes)
    return found


def _with_input(batch: Batch, name: str, field: Ragged) -> Batch:
    return dataclasses.replace(batch, inputs={**batch.inputs, name: field})


def _written(model: "Model", batch: Batch) -> list[Answer]:
    (answers,) = model.answers(batch).values()
    return answers


def _terms(model: "Model", batch: Batch) -> dict[str, np.ndarray]:
    predictions = model.predictions(batch)
    (terms,), (more,) = model.row_losses(predictions, batch).values(), model.row_measures(predictions, batch).values()
    return {**terms, **more}


def _answers(model: "Model", batch: Batch) -> list[dict[str, Any]]:
    found = model.answers(batch)
    return [{name: answers[row].to_dict() for name, answers in found.items()} for row in range(len(batch))]


def _contents(fields: Mapping[str, Sequence[np.ndarray]]) -> list[dict[str, bytes]]:
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


def _outside(case: Case) -> list[type[Modality]]:
    return list({type(item) for item in (case.declaration, case.partner) if item.type not in TABLE})


def _pickles_nothing(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                kind = kind_of(opened.read(8))
            _expect(kind is None or _plain_numbers(file), f"{file.name} is {kind}")


def _plain_numbers(file: Path) -> bool:
    """A numpy array (an example's raw value) that holds no objects."""
    try:
        np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError):
        return False
    return True


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _expect(kept: bool, message: str) -> None:
    if not kept:
        raise ContractBroken(message)


def _expect_same(expected: Sequence[Mapping[str, Any]], got: Sequence[Mapping[str, Any]], message: str) -> None:
    wrong = differences(expected, got)
    if wrong:
        raise ContractBroken(f"{message}: {wrong[0]}")


def _refused(action: Callable[[], Any], error: type[EndwiseError], words: Sequence[str]) -> None:
    try:
        made = action()
    except error as refused:
        lacking = [word for word in words if word not in str(refused)]
        _expect(not lacking, f"the refusal does not say {lacking}: {refused}")
        return
    raise ContractBroken(f"nothing was refused: {made!r:.80}")


# ---- the package's own modalities, with examples made on the spot -----------------------------------------------------


def default_partner(role: Role) -> tuple[Modality, Sequence[Any]]:
    """The other end of the network when the caller names none."""
    if role == INPUT_ROLE:
        return modality_class("category")(), ("one", "other")
    return modality_class("text")(), TEXTS


TEXTS = (
    "a cold day",
    "wind",
    "the sea is calm, and so are we",
    "Regen im März",
    "no",
    "rain and more rain",
    "ice!",
    "sun",
)


BASKETS = (
    ["a", "b"], "c", ["b", "d", "a"], ["a"], ["d", "d", "c", "b"], ["e", "a"], ["f", "b", "c"], ["c", "f", "e", "d", "a"],
)  # fmt: skip
NEW = ("c", "d", "e", "f", "a", "b", ["d", "e"], "b")  # none of them in its basket
CHOICES = ("b", "a", ["c", "e"], "d", "f", "c", "a", "e")


def _graphs() -> tuple[dict[str, Any], ...]:
    """Payments before a moment; each row brings its own, of other people."""
    random, found = np.random.default_rng(1), []
    for index in range(8):
        edges = [
            {
                "source": f"P{random.integers(4)}", "target": f"S{random.integers(3)}", "when": float(place),
                "amount": round(float(random.normal(10 * index, 5)), 2), "kind": "cash" if (place + index) % 3 else "card",
            }
            for place in range(4 + index)
        ]  # fmt: skip
        found.append({"at": ["P0", "S0"], "time": 3.5 + index, "edges": edges})
        edges += [{"source": "P0", "target": "S0", "when": 0.5, "amount": 7.5 * index, "kind": "card"}]
    return tuple(found)


WORDS = ("ab", "b", "ba", "a", "abba", "bb", "aab", "baa")
SCALARS: dict[str, Sequence[Any]] = {
    "number": (0.5, "-3", 12, 7.25, 1e3, 2.5, -40, 88),
    "category": ("red", "green", "blue", "sea green") * 2,
    "boolean": (True, "no", 1, "false", "yes", False, "true", 0),
    "date": tuple(f"20{10 + i}-0{1 + i}-1{i}" for i in range(8)),
    "tags": (["a", "b"], ["b"], ["a"], [], ["c", "a"], ["c"], ["a", "b", "c"], ["b", "c"]),
}
VECTORS = tuple((float(i), 3.0 - i * i, 0.1 * i) for i in range(8))


def _grids(turn: float = 0.0) -> tuple[Any, ...]:
    """Fields of a few waves on grids of different sizes: arrays, nested lists, .npy files. turn: further along."""
    found: list[Any] = []
    for index in range(8):
        rows, columns = np.arange(9 + index % 3)[:, None], np.arange(16 + index)
        phase = 0.7 * index + turn
        values = np.sin(2 * np.pi * columns / len(columns) + phase) + 0.5 * np.cos(2 * np.pi * rows / len(rows) - phase)
        out = io.BytesIO()
        np.save(out, (0.2 * index + values).astype(np.float32))
        found.append((np.round(values, 3).tolist(), out.getvalue(), values)[index % 3 if index != 2 else 0])
    return tuple(found)


SQUARES = (
    "1.3/3.2/.13",
    "12./.31/31.",
    ".23/2.1/.12",
    "1.2/21./3.1",
    "3.1/.23/2..",
    "23./.12/1.3",
    "2.1/1.3/..2",
    ".32/21./1..",
)
SOLVED = (
    "123/312/231",
    "123/231/312",
    "123/231/312",
    "132/213/321",
    "321/123/213",
    "231/312/123",
    "231/123/312",
    "132/213/132",
)
SEQUENCES = ("MKVLAA", "GSHMW", "AAEEKLLR", "PGNDTKV", "LLKEAQRS", "VTVTVG", "MEELLKX", "WYF")


def _chains() -> tuple[Any, ...]:
    """A chain for each of SEQUENCES, wound more or less tightly: lists, a flat list, PDB and mmCIF text."""
    from endwise.chain import Chain

    found: list[Any] = []
    for index, letters in enumerate(SEQUENCES):
        turn = (0.6 + 0.15 * index) * np.arange(len(letters))
        points = np.stack([2.3 * np.cos(turn), 2.3 * np.sin(turn), 2.5 * np.arange(len(letters))], axis=1)
        chain = Chain((points - points.mean(0)).round(3), letters)
        found.append((chain.to_json(), chain.points.ravel().tolist(), chain.pdb(), chain.mmcif())[index % 4])
    return tuple(found)


def _walks() -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Scenes of one to four walkers who swerve, some of them unseen at times: six steps, and the five that follow."""
    random, pasts, futures = np.random.default_rng(2), list[Any](), list[Any]()
    for index in range(8):
        count, steps = 1 + index % 4, np.arange(11)
        start, pace = random.normal(0, 4, (count, 1, 2)), random.normal(0, 0.6, (count, 1, 2))
        swerve = 0.05 * (index - 3) * np.square(steps)[None, :, None] * pace[..., ::-1] * [1, -1]
        points = (start + steps[None, :, None] * pace + swerve).round(3)
        paths: list[Any] = points.tolist()
        if count > 1:
            paths[1][2] = paths[1][8] = None
        past, future = [path[:6] for path in paths], [path[6:] for path in paths]
        named = {f"walker {place}": path for place, path in enumerate(past)}
        pasts.append((past, named, json.dumps(past), points[:, :6])[index % 4 if count == 1 else index % 3])
        futures.append([{"path": path} for path in future] if index % 2 else future)
    return tuple(pasts), tuple(futures)


def cases() -> list[Case]:
    """Every modality of the package in every role it has."""
    from endwise.modalities.audio import Audio
    from endwise.modalities.board import Board
    from endwise.modalities.field import Field
    from endwise.modalities.graph import Graph
    from endwise.modalities.image import Image
    from endwise.modalities.items import Items
    from endwise.modalities.number import Number
    from endwise.modalities.residues import Residues
    from endwise.modalities.structure import Structure
    from endwise.modalities.text import Text
    from endwise.modalities.trajectories import Trajectories
    from endwise.modalities.volume import Volume

    sound, heard = Audio(rate_hz=8_000), Audio(rate_hz=8_000, chunk_s=0.12)
    waiting = Text(decoder="attention", wait=0.2, label_smoothing=0.0)
    found = [
        Case(modality_class("image")(), _pictures(), INPUT_ROLE),
        Case(modality_class("video")(), _films(), INPUT_ROLE),
        Case(sound, _tones(), INPUT_ROLE),
        Case(sound, _tones(), OUTPUT_ROLE),
        Case(modality_class("text")(), TEXTS, INPUT_ROLE),
        Case(modality_class("text")(), WORDS, OUTPUT_ROLE, (sound, _tones())),
        *(
            Case(written, WORDS, OUTPUT_ROLE, (sound, _tones()), label=f"text by {written.decoder} out")
            for written in (  # softened targets cannot be learnt by heart
                Text(decoder="attention", beams=2, label_smoothing=0.0),
                Text(decoder="ctc+attention", beams=2, label_smoothing=0.0),
                Text(decoder="lm", beams=2),
            )
        ),
        Case(heard, _tones(), INPUT_ROLE, (Text(decoder="ctc"), WORDS), label="audio in chunks in"),
        Case(Text(causal=True), TEXTS, INPUT_ROLE, (waiting, WORDS), label="causal text in"),
        Case(waiting, WORDS, OUTPUT_ROLE, (heard, _tones()), label="text by waiting attention out"),
        Case(modality_class("embedding")(), WORDS, OUTPUT_ROLE),
        Case(modality_class("boxes")(), drawn_boxes()[1], OUTPUT_ROLE, (modality_class("image")(), drawn_boxes()[0])),
        Case(modality_class("instances")(), _things(), OUTPUT_ROLE, (modality_class("image")(), drawn_boxes()[0])),
        Case(modality_class("image")(), _pictures(), OUTPUT_ROLE, (modality_class("image")(), _pictures())),
        Case(Image(decoder="flow", side_px=16, steps=3), _pictures(), OUTPUT_ROLE, label="drawn image out"),
        Case(
            modality_class("anomaly")(),
            (0, "no", *[0] * 4, 1, _masks()[7]),
            OUTPUT_ROLE,
            (modality_class("image")(), _pictures()),
        ),
        Case(modality_class("mask")(), _masks(), OUTPUT_ROLE, (modality_class("image")(), _pictures())),
        Case(modality_class("volume")(), _volumes()[0], INPUT_ROLE),
        Case(Volume(seen_voxels=(16, 16, 8)), _volumes()[0], INPUT_ROLE, label="volume in windows in"),
        Case(modality_class("volume_mask")(), _volumes()[1], OUTPUT_ROLE, (modality_class("volume")(), _volumes()[0])),
        Case(modality_class("volume_boxes")(), _lesions()[1], OUTPUT_ROLE, (modality_class("volume")(), _lesions()[0])),
        Case(Board(), SQUARES, INPUT_ROLE),
        Case(Board(steps=6), SOLVED, OUTPUT_ROLE, (Board(), SQUARES)),
        Case(Residues(), SEQUENCES, INPUT_ROLE),
        Case(Structure(recycles=0), _chains(), OUTPUT_ROLE, (Residues(), SEQUENCES)),
        Case(Trajectories(), _walks()[0], INPUT_ROLE),
        Case(Trajectories(), _walks()[1], OUTPUT_ROLE, (Trajectories(), _walks()[0])),
        Case(Field(units=("K",)), _grids(), INPUT_ROLE),
        Case(Field(units=("K",)), _grids(turn=0.4), OUTPUT_ROLE, (Field(units=("K",)), _grids())),
        *(
            Case(modality_class("masked")(), TEXTS, OUTPUT_ROLE, partner, label=f"masked {partner[0].type} out")
            for partner in ((Text(), TEXTS), (modality_class("image")(), _pictures()), (sound, _tones()))
        ),
    ]
    baskets, after = modality_class("items")(), Items(seen="left_out")
    found += [
        Case(baskets, BASKETS, INPUT_ROLE),
        Case(baskets, CHOICES, OUTPUT_ROLE),
        Case(after, NEW, OUTPUT_ROLE, (baskets, BASKETS), label="items after items out"),
    ]
    payments = Graph(time="when", numbers=("amount",), classes=("kind",))
    found.append(Case(payments, _graphs(), INPUT_ROLE))
    roles: tuple[Role, Role] = (INPUT_ROLE, OUTPUT_ROLE)
    for name, examples in SCALARS.items():
        scalar = modality_class(name)()
        found += [Case(scalar, examples, role) for role in roles if role in scalar.roles]
        if name == "number":
            found += [Case(scalar, VECTORS, role, label=f"number[3] {WAYS[role]}") for role in roles]
            banded = Number(interval="quantile")
            found.append(Case(banded, examples, OUTPUT_ROLE, label="number with quantiles out"))
    found += _series_cases()
    return found


EXPORT_GROUPS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (  # every modality once and every head once
    (("image in",), ("category out",)),
    (("image in",), ("boxes out", "instances out")),
    (("image in",), ("mask out", "image out", "anomaly out")),
    (("volume in windows in",), ("volume_mask out", "volume_boxes out")),
    (("volume in",), ("category out",)),
    (("audio in",), ("text out",)),
    (("text in",), ("tags out",)),
    (("text in",), ("audio out",)),
    (("text in",), ("drawn image out",)),
    (("text in",), ("masked text out",)),
    (("graph in",), ("category out",)),
    (("items in",), ("items after items out",)),
    (("text in",), ("items out",)),
    (("image in",), ("masked image out",)),
    (("audio in",), ("masked audio out",)),
    (("audio in",), ("text by ctc+attention out",)),
    (("audio in chunks in",), ("text out",)),
    (("causal text in",), ("text by waiting attention out",)),
    (("text in",), ("text by attention out", "text by lm out")),
    (("series in", "patches of series in"), ("series out", "continued series out")),
    (("field in",), ("field out",)),
    (("board in",), ("board out",)),
    (("residues in",), ("structure out",)),
    (("trajectories in",), ("trajectories out",)),
    (("video in",), ("category out",)),
    (
        ("number in", "category in", "boolean in", "date in", "tags in", "number[3] in"),
        ("number out", "boolean out", "number[3] out", "number with quantiles out", "embedding out"),
    ),
)


def goes_with(given: Case, output: Case) -> bool:
    """Whether a recipe may answer this output from this input alone."""
    try:
        output.declaration.beside({FIELD: given.declaration}, {PARTNER: output.declaration})
    except RecipeError:
        return False
    return True


def check_export_group(inputs: Sequence[Case], outputs: Sequence[Case]) -> None:
    """One network with all these inputs and outputs, exported; of each scalar input one value is missing."""
    from endwise.model import Model
    from endwise.recipe import Recipe

    takes = {_field_name(case): case for case in inputs}
    gives = {_field_name(case): case for case in outputs}
    recipe = Recipe(
        name="export-suite",
        data=[{"in memory": True}],
        inputs={name: case.declaration for name, case in takes.items()},
        outputs={name: case.declaration for name, case in gives.items()},
        trunk={"width": WIDTH, "depth": 1},
        train={"size": "tiny"},
    )
    contracts = {name: case.contract for name, case in {**takes, **gives}.items()}
    for name in gives:
        contracts |= recipe.standing(name).agreed(name, contracts)
    content = _contents({name: case.decoded[FIELD] for name, case in takes.items()})
    for name, item in recipe.outputs.items():
        if item.of_row:
            targets = [item.read(row, file_fetcher(".")) for row in content]
            contracts[name] = item.fit(iter(targets), missing=0, role=OUTPUT_ROLE)
    rows: list[dict[str, Any]] = [{name: case.examples[row] for name, case in takes.items()} for row in range(8)]
    if len(takes) > 1:
        for row, name in enumerate(takes):
            contracts[name] = dataclasses.replace(contracts[name], missing=1)
            rows[row][name] = None
    model = Model.build(recipe, contracts, seed=0)
    answers = model.predict(rows)
    said = {name: [row.answers[name] for row in answers] for name in recipe.outputs}
    check_export(_cautious(model, said), rows)


def _field_name(case: Case) -> str:
    return case.label.replace("[", "_").replace("]", "").replace(" ", "_").replace("+", "_")


def _series_cases() -> list[Case]:
    """Series of any length, of one length, and forecasts of what no input has and of what one has."""
    from endwise.modalities.series import Series

    level = Series(columns=("level",))
    pasts = tuple({"level": values} for values in _waves(32))
    futures = tuple({"level": [wave["level"][-1] + 0.2 * step for step in range(1, 6)]} for wave in pasts)
    pairs = tuple(
        [[None if index == 1 and step == 3 else value for step, value in enumerate(wave)], wave[::-1]]
        for index, wave in enumerate(_waves(20, 7))
    )
    return [
        Case(Series(), pairs, INPUT_ROLE),
        Case(dataclasses.replace(level, form="patches"), pasts, INPUT_ROLE, label="patches of series in"),
        Case(Series(), _waves(6), OUTPUT_ROLE),
        Case(level, futures, OUTPUT_ROLE, (level, pasts), label="continued series out"),
    ]


def _waves(steps: int, more: int = 0) -> list[list[float]]:
    """Eight waves of different levels, each `more` steps longer than the one before."""
    return [
        [round(index + 3 * math.sin(0.2 * (1 + index) * step), 3) for step in range(steps + more * index)]
        for index in range(8)
    ]


def _pictures() -> tuple[bytes, ...]:
    """Small pictures of different sizes, colours and formats."""
    from PIL import Image

    random, found = np.random.default_rng(0), []
    for index in range(8):
        height, width = 12 + 3 * index, 30 - 2 * index
        shades = random.integers(0, 256, size=3)
        ramp = np.linspace(0, 60, width)[None, :, None] + np.linspace(0, 40, height)[:, None, None]
        pixels = ((shades + ramp) % 256).astype(np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).save(
            out, format="PNG" if index % 2 else "WEBP", **({} if index % 2 else {"lossless": True})
        )
        found.append(out.getvalue())
    return tuple(found)


def _films() -> tuple[Any, ...]:
    """A bright square that goes to one side, of different lengths and sizes: lists of pictures, animations, zips, arrays."""
    from PIL import Image

    found: list[Any] = []
    for index in range(8):
        frames, height, width = 2 + index % 3, 12 + 2 * index, 24 - index
        pixels = np.full((frames, height, width, 3), 40 + 10 * index, np.uint8)
        for frame in range(frames):
            place = 2 * frame if index % 2 else width - 4 - 2 * frame
            pixels[frame, 4:8, place : place + 4] = (230, 60, 25 * index)
        pictures, files = [Image.fromarray(item) for item in pixels], list[bytes]()
        for picture in pictures:
            out = io.BytesIO()
            picture.save(out, format="PNG")
            files.append(out.getvalue())
        moving, packed = io.BytesIO(), io.BytesIO()
        pictures[0].save(moving, format="WEBP", save_all=True, append_images=pictures[1:], duration=40, lossless=True)
        with zipfile.ZipFile(packed, "w") as archive:
            for number, file in enumerate(files):
                archive.writestr(f"frame {number}.png", file)
        found.append((files, moving.getvalue(), packed.getvalue(), pixels)[index % 4])
    return tuple(found)


def drawn_boxes() -> tuple[tuple[bytes, ...], tuple[list[dict[str, Any]], ...]]:
    """Pictures with up to three squares of two colours, and the box around each."""
    from PIL import Image

    random, pictures, found = np.random.default_rng(0), [], []
    for index in range(8):
        height, width = 24 + 2 * index, 40 - 2 * index
        pixels, boxes = np.full((height, width, 3), 30, dtype=np.uint8), []
        for kind in range(index % 3 + (index > 0)):
            side = 8 + 2 * kind
            x, y = int(random.integers(0, width - side)), int(random.integers(0, height - side))
            pixels[y : y + side, x : x + side] = (60, 220, 60) if kind % 2 else (220, 60, 60)
            boxes.append({"label": ("red", "green")[kind % 2], "box": [x, y, x + side, y + side]})
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, format="PNG")
        pictures.append(out.getvalue())
        found.append(boxes)
    return tuple(pictures), tuple(found)


def _things() -> tuple[list[dict[str, Any]], ...]:
    """The squares of `drawn_boxes` as what is inside their upper left triangle."""
    found = []
    for index, boxes in enumerate(drawn_boxes()[1]):
        size = [24 + 2 * index, 40 - 2 * index]
        corners = [(item["label"], *item["box"]) for item in boxes]
        found.append(
            [
                {"label": label, "mask": {"size": size, "polygons": [[x0, y0, x1, y0, x0, y1]]}}
                for label, x0, y0, x1, y1 in corners
            ]
        )
    return tuple(found)


def _masks() -> tuple[np.ndarray, ...]:
    """Three classes for the pixels of `_pictures`: what is above, left below and right below."""
    found = []
    for index in range(8):
        height, width = 12 + 3 * index, 30 - 2 * index
        numbers = np.full((height, width), 1, np.uint8)
        numbers[: height // 3], numbers[height // 3 :, width // 2 :] = 0, 7
        found.append(numbers)
    return tuple(found)


def _volumes() -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Volumes of different sizes with a bright block in some corner, as arrays, .npy and NIfTI files; and where it is."""
    from endwise.scan import nifti

    random, volumes, masks = np.random.default_rng(0), [], []
    for index in range(8):
        shape = (10 + index, 16 - index, 9 + index % 3)
        block = np.zeros(shape, np.uint8)
        block[tuple(slice(2, 7) if index >> axis & 1 else slice(-7, -2) for axis in range(3))] = 1
        voxels = (80 * block + random.integers(0, 20 + 5 * index, shape)).astype(np.uint8)
        out = io.BytesIO()
        np.save(out, voxels)
        file = nifti(voxels, np.eye(3, 4))
        volumes.append((voxels.astype(np.float32), out.getvalue(), file)[index % 3])
        masks.append(nifti(block, np.eye(3, 4)) if index % 3 == 2 else block)
    return tuple(volumes), tuple(masks)


def _lesions() -> tuple[tuple[np.ndarray, ...], tuple[list[dict[str, Any]], ...]]:
    """Volumes with up to two bright cubes or dark ones, and the box around each."""
    random, volumes, found = np.random.default_rng(0), [], []
    for index in range(8):
        shape = (18 + index % 3, 20 - index % 4, 16 + index % 2)
        voxels, boxes = random.normal(100, 2, shape).astype(np.float32), []
        for kind in range(index % 2 + (index > 0)):
            low = [int(random.integers(0, side - 6)) for side in shape]
            voxels[tuple(slice(begin, begin + 6) for begin in low)] = 60 if kind else 140
            box = [*low, *(begin + 6 for begin in low)]
            boxes.append({"label": ("bright", "dark")[kind], "box": box})
        volumes.append(voxels)
        found.append(boxes)
    return tuple(volumes), tuple(found)


def _tones() -> tuple[bytes, ...]:
    """Tones of different pitch and length at 8 kHz, as 16-bit WAV files."""
    found = []
    for index in range(8):
        count = 1600 + 400 * index
        signal = np.sin(2 * np.pi * (200 + 150 * index) * np.arange(count) / 8_000) * 20_000
        out = io.BytesIO()
        with wave.open(out, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8_000)
            file.writeframes(signal.astype("<i2").tobytes())
        found.append(out.getvalue())
    return tuple(found)


# ---- the page of capabilities ------------------------------------------------------------------------------------------

INTRO = """# What works

<!-- written by `python -m endwise.testing --capabilities`: do not edit; a test fails when this page is stale -->

Every ✓ stands for executed tests that passed: the contract suite in `endwise/testing.py`, which runs on your own modality as
well (`check_modality`). A cell without a passing test is empty: an input gives no answers, and what is heard as a whole does not
stream, and what is learnt by hiding parts has no answer to explain. `exports` is tested once for each row here, and for every pair of an input and an output in the long run (`make test-slow`).

"""


def run_case(case: Case, *, known: Mapping[tuple[str, str], bool] | None = None) -> dict[str, bool]:
    """{capability: kept} of one case, the export apart. known: results a test run already has, by (label, check)."""
    found: dict[str, bool] = {}
    for check in checks_of(case, slow=False):
        key = (case.label, check.name)
        kept = known[key] if known and key in known else _passes(check)
        found[check.capability] = found.get(check.capability, True) and kept
    return found


def run_exports(found: Sequence[Case]) -> dict[str, bool]:
    """{label: exported} for every modality and head, each exported once."""
    by_label = {case.label: case for case in found}
    kept: dict[str, bool] = {}
    for inputs, outputs in EXPORT_GROUPS:
        group = [by_label[label] for label in inputs], [by_label[label] for label in outputs]
        passed = _passes(lambda group=group: check_export_group(*group))  # type: ignore[misc]
        kept |= dict.fromkeys((*inputs, *outputs), passed)
    return kept


def capabilities_page(results: Mapping[str, Mapping[str, bool]]) -> str:
    """The page, from {label: {capability: kept}}."""
    lines = ["| modality | " + " | ".join(CAPABILITIES) + " |", "|---" * (len(CAPABILITIES) + 1) + "|"]
    for label, kept in results.items():
        cells = ["✓" if kept.get(capability) else "" for capability in CAPABILITIES]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    meaning = [*_silent(), "", "## What a column promises", ""]
    for capability in CAPABILITIES:
        names = [check.name.replace("_", " ") for check in CHECKS if check.capability == capability]
        meaning.append(f"- **{capability}**: {'; '.join(names)}")
    return INTRO + "\n".join([*lines, *meaning]) + "\n"


def _silent() -> list[str]:
    """Which outputs cannot abstain, and why: a line for each reason."""
    found = [case for case in cases() if not case.is_input and not case.declaration.can_abstain]
    reasons = dict.fromkeys(f"- {case.label}: {case.declaration.unsure}" for case in found)
    return ["", "## What cannot abstain, and why", "", *reasons]


def _passes(action: Callable[[], None]) -> bool:
    try:
        action()
    except Exception as wrong:  # whatever a modality raises, the cell stays empty, and the reason is said
        print(f"{action}: {type(wrong).__name__}: {wrong}", file=sys.stderr)  # noqa: T201
        return False
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m endwise.testing [--capabilities [PAGE]]`: run the suite over the package; 1 if a promise is broken."""
    parser = argparse.ArgumentParser(prog="python -m endwise.testing", description=inspect.getdoc(main))
    parser.add_argument("--capabilities", nargs="?", const="docs/capabilities.md", metavar="PAGE",
                        help="write the page (default docs/capabilities.md)")  # fmt: skip
    given = parser.parse_args(arguments)
    found = cases()
    results = {case.label: run_case(case) for case in found}
    for label, kept in run_exports(found).items():
        results[label]["exports"] = kept
    if given.capabilities:
        Path(given.capabilities).write_text(capabilities_page(results), encoding="utf-8")
    broken = [f"{label}: {capability}" for label, kept in results.items() for capability, ok in kept.items() if not ok]
    print("\n".join(broken) or f"{len(results)} modalities and heads keep every promise")  # noqa: T201
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
