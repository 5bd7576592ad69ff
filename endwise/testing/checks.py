"""The checks: functions of a case, named as what they promise, and the table of them.

Not here: what they are run on (case.py, cases.py).
"""

import dataclasses
import itertools
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from endwise.batch import Batch, Ragged
from endwise.certainty import ENTRY, Certainty
from endwise.errors import BadValue, EndwiseError, RecipeError
from endwise.files import kind_of, plain
from endwise.modalities import TABLE
from endwise.modalities.base import INPUT_ROLE, OUTPUT_ROLE, Answer, Contract, Modality, Role, build
from endwise.rows import collate, file_fetcher
from endwise.runner import Bundle, differences
from endwise.testing.case import END, FIELD, HEART_SHARE, HEART_STEPS, Case, ContractBroken, learn, loss_of

if TYPE_CHECKING:
    from torch import Tensor

    from endwise.model import Model

ALONE_TOLERANCE = 1e-4
MOST_DRAWS = 8  # training may leave the input of a row out at random


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
    """The promise of the project: no detached step between the raw value and the loss. Where a value is symbols, the
    gradient reaches the vectors that stand for them."""
    model, batch = case.model(), case.batch().to("cpu")
    model.network.train()
    reached = _reached_numbers(case, model, batch)
    draws = 0 if reached.any() else MOST_DRAWS  # what no number reaches may be symbols
    while draws and not reached.all():
        reached, draws = reached | _reached_symbols(case, model, batch), draws - 1
    lost = (~reached).nonzero()[:, 0].tolist()
    _expect(not lost, f"the loss does not reach the raw value of rows {lost}, nor a vector that stands for its symbols")


def _reached_numbers(case: Case, model: "Model", batch: Batch) -> "Tensor":
    """bool [row]: where the loss has a gradient at the raw numbers."""
    import torch

    field = batch.inputs[case.input_name]
    raw = field.values if field.values.is_floating_point() else field.values.to(torch.float32)
    raw = raw.detach().clone().requires_grad_()
    try:
        loss = loss_of(model, _with_input(batch, case.input_name, Ragged(raw, field.sizes)))
        (gradient,) = torch.autograd.grad(loss, [raw], allow_unused=True)
    except (RuntimeError, IndexError, TypeError):  # a look-up refuses numbers
        gradient = None
    if gradient is None:
        return torch.zeros(len(raw), dtype=torch.bool)
    _expect(bool(torch.isfinite(gradient).all()), "the gradient at the raw input is not finite")
    found: Tensor = gradient.reshape(len(raw), -1).abs().sum(1) > 0
    return found


def _reached_symbols(case: Case, model: "Model", batch: Batch) -> "Tensor":
    """bool [row]: where the loss has a gradient at the vectors of its symbols."""
    import torch

    layer = model.network.encoder(case.input_name).looked_up()
    vectors: list[Tensor] = []
    found = torch.zeros(len(batch), dtype=torch.bool)
    if layer is None:
        return found
    hook = layer.register_forward_hook(lambda module, given, out: vectors.append(out))
    loss = loss_of(model, batch)
    hook.remove()
    for gradient in torch.autograd.grad(loss, vectors, allow_unused=True):
        if gradient is not None:
            _expect(bool(torch.isfinite(gradient).all()), "the gradient at the symbols' vectors is not finite")
            found |= gradient.reshape(len(found), -1).abs().sum(1) > 0
    return found


def one_batch_can_be_learnt_by_heart(case: Case) -> None:
    model = case.model()
    losses = learn(model, case.batch().to("cpu"), steps=HEART_STEPS, until=HEART_SHARE)
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
    other = _with_input(absent, FIELD, batch.inputs[FIELD].rows(turned))
    one, two = _answers(model, absent), _answers(model, other)
    _expect_same(one, two, "the value in the place of a missing one changes the answer")
    blanks, present = collate({FIELD: case.declared}, case.contracts, [{FIELD: None}] * count)
    filled = _with_input(dataclasses.replace(batch, present={**batch.present, **present}), FIELD, blanks[FIELD])
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
        torch.autograd.backward(loss_of(model, changed.to("cpu")))
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
    cautious = made_cautious(model, {FIELD: said})
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


def made_cautious(model: "Model", said: Mapping[str, Sequence[Answer]]) -> "Model":
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
        rows=len(said), scale=0.5 if item.error_is_share or item.expects_error else None, shift=0.1, limit=0.62 if has_set else None,
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
