"""Values of one token: numbers, classes, yes/no, dates and tags, from a table's cell to a final answer."""

import datetime as dt
import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from endwise.batch import Ragged
from endwise.errors import BadValue, DataError, RecipeError
from endwise.modalities.base import INPUT_ROLE, OUTPUT_ROLE, Contract, Modality, build
from endwise.modalities.boolean import Boolean
from endwise.modalities.category import Category
from endwise.modalities.date import Date
from endwise.modalities.number import LEVELS, RESERVOIR_ROWS, Number
from endwise.modalities.tags import Tags
from endwise.nn.blocks import Perceptron
from endwise.nn.interface import Encoder, Head, Tokens
from endwise.nn.scalars import best_threshold
from endwise.nn.size import Size

TINY = Size.of("tiny")


def no_file(path: str) -> bytes:
    raise AssertionError(f"no file should be read, but {path} was")


def read(modality: Modality, raw: Any) -> np.ndarray:
    return modality.read(raw, no_file)


def fit(modality: Modality, raws: Sequence[Any], role: Any = INPUT_ROLE, missing: int = 0) -> Any:
    return modality.fit((read(modality, raw) for raw in raws), missing=missing, role=role)


def batch(modality: Modality, contract: Any, raws: Sequence[Any]) -> Ragged:
    return Ragged.stack([modality.transform(read(modality, raw), contract) for raw in raws], 0).to("cpu")


CASES: dict[str, tuple[Modality, list[Any]]] = {
    "number": (Number(unit="kg"), [3, "4.5", 7.25, -1, 1e3]),
    "vector": (Number(), [[1, 2], [3.5, -4], [0, 0], [2, 2], [9, 1]]),
    "category": (Category(), ["cat", "dog", "cat", 3, 3.0]),
    "balanced": (Category(class_weights="balanced", label_smoothing=0.1), ["cat", "dog", "cat", "cat", "owl"]),
    "boolean": (Boolean(), [True, "no", 1, "F", "yes"]),
    "date": (Date(), ["2026-11-21", "2024-02-29T12:00:00", dt.date(2025, 1, 1), "2020-01-01", "2023-05-05"]),
    "tags": (Tags(), ["a,b", "[]", ["c"], "b", "a,c"]),
}
OUTPUTS = [name for name in CASES if name != "date"]


# ---- reading ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "value"),
    [(3, 3.0), ("3.5", 3.5), (" -1e-3 ", -1e-3), (np.float32(0.5), 0.5), (Decimal("2.5"), 2.5), (np.int8(7), 7.0),
     (np.array(4.0), 4.0), ("[1, 2.5]", [1.0, 2.5]), ((1, 2), [1.0, 2.0]), (np.arange(3), [0.0, 1.0, 2.0]),
     (["1", 2], [1.0, 2.0])],
)  # fmt: skip
def test_a_number_is_read_in_the_ways_people_write_it(raw: Any, value: Any) -> None:
    made = read(Number(), raw)
    assert made.dtype == np.float64
    assert made.tolist() == value


@pytest.mark.parametrize(
    ("raw", "reason"),
    [("3,5", "decimal point"), ("1,000.5", "thousands"), ("abc", "is no number"), ("n/a", "leave the cell empty"), ("5 kg", "unit"), ("7%", "unit"),
     ("", "empty"), ("inf", "infinite"), (float("-inf"), "infinite"), (float("nan"), "NaN"), ("nan", "NaN"),
     (True, "boolean"), ("1_000", "is no number"), ("1e200", "larger unit"), (10**400, "too large"), ([], "empty"),
     ("[1,", "JSON"), ([1, None], "number 2 of 2: missing"), ([1, "x"], "number 2 of 2"), (np.eye(2), "flat"),
     ({"a": 1}, "dict"), (b"3", "bytes"), ([[1]], "list"), ("0x10", "is no number")],
)  # fmt: skip
def test_what_is_no_number_is_refused_with_the_reason(raw: Any, reason: str) -> None:
    with pytest.raises(BadValue, match=reason):
        read(Number(), raw)


def test_a_declared_length_makes_other_rows_bad_rows() -> None:
    vector = Number(vector_size=2)
    assert read(vector, [1, 2]).tolist() == [1, 2]
    with pytest.raises(BadValue, match="3 numbers instead of the 2"):
        read(vector, [1, 2, 3])
    with pytest.raises(BadValue, match="list of 2"):
        read(vector, 5)


@pytest.mark.parametrize(
    ("raw", "name"),
    [("cat", "cat"), (" cat ", "cat"), (3, "3"), (3.0, "3"), (np.float64(3.0), "3"), (2.5, "2.5"), ("3.0", "3.0"),
     (np.str_("x"), "x"), (True, "True"), (b"caf\xc3\xa9", "café"), (np.array("a"), "a"), ("03", "03"),
     (np.float32(0.1), "0.1"), (Decimal("3.00"), "3")],
)  # fmt: skip
def test_a_class_is_known_by_its_text(raw: Any, name: str) -> None:
    assert bytes(read(Category(), raw)).decode() == name


def test_a_summary_spells_shares_as_people_do() -> None:
    everywhere = fit(Tags(), [["road", "sky"]] * 200 + [["road"]])
    assert Tags().summary(everywhere) == "2 tags, 2 a row: road (100 %), sky (99.5 %)"
    assert Category().summary(fit(Category(), ["cat"] * 2 + ["dog"])) == "2 classes: cat (67 %), dog (33 %)"


@pytest.mark.parametrize("raw", ["", "  ", float("nan"), [1], None, b"\xff", "\ud800"], ids=repr)
def test_what_is_no_class_is_refused(raw: Any) -> None:
    with pytest.raises(BadValue):
        read(Category(), raw)


@pytest.mark.parametrize("raw", [True, "TRUE", "t", "Yes", "y", "1", 1, 1.0, np.True_, "1.0", np.array(1)], ids=repr)
def test_yes_in_all_its_spellings(raw: Any) -> None:
    assert read(Boolean(), raw) == 1


@pytest.mark.parametrize("raw", [False, "false", "F", "no", "N", "0", 0, 0.0, np.False_, " no "], ids=repr)
def test_no_in_all_its_spellings(raw: Any) -> None:
    assert read(Boolean(), raw) == 0


@pytest.mark.parametrize("raw", ["maybe", 2, "", 0.5, float("nan"), [True], "ja"], ids=repr)
def test_neither_yes_nor_no_is_refused(raw: Any) -> None:
    with pytest.raises(BadValue, match="neither true nor false"):
        read(Boolean(), raw)


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [("1970-01-02", 86400), ("1970-01-01T01:00:00+01:00", 0), ("1969-12-31T23:59:59Z", -1),
     (dt.date(1970, 1, 3), 172800), (dt.datetime(1970, 1, 1, 0, 0, 1), 1),
     (np.datetime64("1970-01-01T00:00:00.25"), 0.25), (np.datetime64("1971"), 31536000),
     (np.array("1970-01-02", dtype="datetime64[D]"), 86400), (np.datetime64(-500, "ms"), -0.5)],
)  # fmt: skip
def test_a_date_is_seconds_since_1970(raw: Any, seconds: float) -> None:
    assert float(read(Date(), raw)) == seconds


def test_a_date_can_be_written_in_any_declared_way() -> None:
    assert float(read(Date(format="%d.%m.%Y"), "02.01.1970")) == 86400
    assert float(read(Date(format="unix"), "12.5")) == 12.5
    assert float(read(Date(format="unix_ms"), 1500)) == 1.5
    for wrong in ("abc", "%Q", "%Y-%Y"):
        with pytest.raises(RecipeError, match=r"Date\.format"):
            Date(format=wrong)
    with pytest.raises(BadValue, match="as format says"):
        read(Date(format="%d.%m.%Y"), "1970-01-02")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [("05/01/2024", "format"), (1_700_000_000, "unix"), (np.datetime64("NaT"), "NaT"), ("", "ISO"), ([], "list"),
     (True, "bool"), (np.datetime64(20_000, "Y"), "9999")],
    ids=repr,
)  # fmt: skip
def test_what_is_no_date_is_refused_with_the_fix(raw: Any, reason: str) -> None:
    with pytest.raises(BadValue, match=reason):
        read(Date(), raw)


def test_pandas_times_are_read_and_its_missing_one_is_refused() -> None:
    pandas = pytest.importorskip("pandas")
    assert float(read(Date(), pandas.Timestamp("1970-01-02", tz="UTC"))) == 86400
    with pytest.raises(BadValue, match="NaT"):
        read(Date(), pandas.NaT)


@pytest.mark.parametrize(
    ("raw", "tags"),
    [("b, a", ["a", "b"]), (["x", "x"], ["x"]), ("[]", []), ('["a,b"]', ["a,b"]), ((3, 3.0), ["3"]), ({"q"}, ["q"]),
     (np.array(["a"]), ["a"]), ("one", ["one"]), (7, ["7"]), ([], [])],
)  # fmt: skip
def test_tags_are_a_sorted_set(raw: Any, tags: list[str]) -> None:
    assert json.loads(bytes(read(Tags(), raw))) == tags


@pytest.mark.parametrize("raw", ["a,,b", "[1", [None], ["a", ""], {"a": 1}, "a,"], ids=repr)
def test_what_is_no_set_of_tags_is_refused(raw: Any) -> None:
    with pytest.raises(BadValue):
        read(Tags(), raw)


# ---- what is learnt from the training rows ----------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_a_contract_survives_being_saved(name: str) -> None:
    modality, raws = CASES[name]
    contract = fit(modality, raws, missing=2)
    assert contract.missing == 2
    assert contract.count == 5
    again = type(contract).from_dict(json.loads(json.dumps(contract.to_dict(), allow_nan=False)))
    assert again == contract
    assert modality.contract_class is type(contract)
    assert build(type(modality), {k: v for k, v in modality.to_dict().items() if k != "type"}, "x") == modality
    assert "\n" not in modality.summary(contract)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=3000))
def test_one_pass_finds_what_many_passes_find(values: list[float]) -> None:
    contract = Number().fit((np.array(item) for item in values), missing=0, role=INPUT_ROLE)
    assert contract.mean[0] == pytest.approx(np.mean(values), abs=1e-6)
    assert contract.deviation[0] == pytest.approx(np.std(values), rel=1e-6, abs=1e-4)
    assert (contract.minimum[0], contract.maximum[0]) == (min(values), max(values))
    assert contract.quantiles[0] == pytest.approx(np.quantile(values, np.linspace(0, 1, LEVELS)))


def test_more_rows_than_the_sample_holds_give_nearly_the_same_quantiles() -> None:
    rows = RESERVOIR_ROWS * 3
    contract = Number().fit((np.array(float(i)) for i in range(rows)), missing=0, role=INPUT_ROLE)
    assert contract.quantiles[0] == pytest.approx(np.linspace(0, rows - 1, LEVELS), abs=0.02 * rows)
    assert contract.integer
    assert contract == Number().fit((np.array(float(i)) for i in range(rows)), missing=0, role=INPUT_ROLE)


def test_rows_of_different_lengths_are_refused_with_the_fix() -> None:
    with pytest.raises(DataError, match=r"vector_size: 2"):
        fit(Number(), [[1, 2], [3, 4], [5]])
    with pytest.raises(BadValue, match="list of 2 as in training"):
        Number().transform(np.zeros(3), fit(Number(), [[1, 2]]))


def test_classes_are_sorted_and_counted() -> None:
    assert fit(Category(), [10, 9, 9, 2]).classes == ("2", "9", "10")
    contract = fit(Category(), ["b", "10", "a", "b"])
    assert (contract.classes, contract.counts) == (("10", "a", "b"), (1, 1, 2))
    assert Category().summary(contract) == "3 classes: b (50 %), 10 (25 %), a (25 %)"


def test_too_many_classes_are_refused_with_what_they_may_be() -> None:
    with pytest.raises(DataError, match="type: number, free text is type: text"):
        fit(Category(max_classes=3), range(10))
    with pytest.raises(DataError, match="separator"):
        fit(Tags(max_tags=2), ["a", "b", "c"])


@pytest.mark.parametrize("modality", [Number(), Category(), Boolean(), Date(), Tags()], ids=lambda item: str(item.type))
def test_a_column_without_values_is_refused(modality: Modality) -> None:
    with pytest.raises(DataError, match="Fix: look at the column's name"):
        fit(modality, [], missing=7)


def test_an_output_needs_something_to_tell_apart() -> None:
    for modality, raw in [(Category(), "cat"), (Boolean(), True)]:
        with pytest.raises(DataError, match="at least two different values"):
            fit(modality, [raw, raw], role=OUTPUT_ROLE)
        fit(modality, [raw, raw], role=INPUT_ROLE)


@pytest.mark.parametrize(
    ("make", "field"),
    [(lambda: Category(label_smoothing=1.0), "label_smoothing"), (lambda: Category(max_classes=1), "max_classes"),
     (lambda: Number(vector_size=0), "vector_size"), (lambda: Tags(separator=""), "separator"),
     (lambda: Tags(max_tags=0), "max_tags"), (lambda: Number(loss="hubert"), "loss"),
     (lambda: Boolean(threshold="auroc"), "threshold"), (lambda: Number(unit=3), "unit")],
)  # fmt: skip
def test_a_wrong_field_is_refused_by_name(make: Any, field: str) -> None:
    with pytest.raises(RecipeError, match=field):
        make()


def test_a_date_is_an_input_only() -> None:
    with pytest.raises(RecipeError, match="can only be an input"):
        Date().check_role(OUTPUT_ROLE, "when")


# ---- the network ------------------------------------------------------------------------------------------------


def parts(name: str, *, trained: bool = False) -> tuple[Modality, Any, Ragged, Encoder]:
    torch.manual_seed(0)
    modality, raws = CASES[name]
    contract = fit(modality, raws)
    encoder = modality.encoder(contract, TINY).train(trained)
    return modality, contract, batch(modality, contract, raws), encoder


def head_of(name: str, *, trained: bool = False) -> tuple[Modality, Any, Ragged, Head, Tokens]:
    modality, contract, rows, encoder = parts(name)
    return modality, contract, rows, modality.head(contract, TINY).train(trained), encoder(rows.values, rows.sizes)


@pytest.mark.parametrize("name", CASES)
def test_a_value_is_one_token_and_a_row_alone_is_the_row_in_a_batch(name: str) -> None:
    _, _, rows, encoder = parts(name)
    together = encoder(rows.values, rows.sizes)
    assert together.values.shape == (5, 1, TINY.width)
    assert together.mask.shape == (5, 1)
    assert together.mask.all()
    for index in range(5):
        alone = encoder(rows.values[index : index + 1], rows.sizes[index : index + 1])
        torch.testing.assert_close(alone.values[0], together.values[index], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_loss_of_one_row_does_not_depend_on_the_others(name: str) -> None:
    _, _, rows, head, tokens = head_of(name)
    whole = head.loss(head(tokens), rows.values, rows.sizes)
    for index in range(5):
        one = Tokens(tokens.values[index : index + 1], tokens.mask[index : index + 1])
        alone = head.loss(head(one), rows.values[index : index + 1], rows.sizes[index : index + 1])
        for term, value in whole.items():
            assert value.dtype == torch.float32
            torch.testing.assert_close(alone[term][0], value[index], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", OUTPUTS)
def test_padding_tokens_change_no_answer(name: str) -> None:
    _, _, _, head, tokens = head_of(name)
    longer = Tokens(
        torch.cat([tokens.values, torch.full_like(tokens.values, 7.0)], dim=1),
        torch.cat([tokens.mask, torch.zeros_like(tokens.mask)], dim=1),
    )
    for key, value in head.decode(head(tokens)).items():
        torch.testing.assert_close(head.decode(head(longer))[key], value)


@pytest.mark.parametrize("name", ["number", "vector", "date", "tags"])
def test_the_gradient_reaches_the_raw_value(name: str) -> None:
    """Also far outside the training range, where a clipped encoding would cut it."""
    _, _, rows, encoder = parts(name)
    for values in (rows.values.clone(), rows.values * 3 + 1e6 if name != "tags" else rows.values.clone()):
        raw = values.requires_grad_()
        # tokens end in a norm's input, so a sum of squares has a gradient everywhere
        encoder(raw, rows.sizes).values.square().sum().backward()
        assert raw.grad is not None
        assert (raw.grad != 0).any(dim=-1).all() if raw.grad.dim() > 1 else (raw.grad != 0).all()


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_of_an_encoder_learns(name: str) -> None:
    _, _, rows, encoder = parts(name)
    encoder(rows.values, rows.sizes).values.square().sum().backward()
    assert all(item.grad is not None and item.grad.abs().sum() > 0 for item in encoder.parameters())


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_loss_reaches_the_tokens_and_every_parameter_of_the_head(name: str) -> None:
    _, _, rows, head, tokens = head_of(name)
    given = Tokens(tokens.values.detach().requires_grad_(), tokens.mask)
    torch.stack(list(head.loss(head(given), rows.values, rows.sizes).values())).sum().backward()
    assert given.values.grad is not None
    assert (given.values.grad.abs().sum((1, 2)) > 0).all()
    assert all(item.grad is not None and item.grad.abs().sum() > 0 for item in head.parameters())


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_autocast_gives_nearly_the_same(name: str) -> None:
    modality, contract, rows, encoder = parts(name)
    exact = encoder(rows.values, rows.sizes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = encoder(rows.values, rows.sizes)
        torch.testing.assert_close(rough.values.float(), exact.values, atol=0.05, rtol=0.05)
        if name in OUTPUTS:
            head = modality.head(contract, TINY).eval()
            prediction = head(rough)
            loss = head.loss(prediction, rows.values, rows.sizes)
            assert all(item.dtype == torch.float32 and item.isfinite().all() for item in loss.values())
            assert all(item.dtype != torch.bfloat16 for item in head.decode(prediction).values())
    if name == "number":
        assert prediction["standard"].dtype == torch.float32  # three digits are too few for a number


@pytest.mark.parametrize("name", OUTPUTS)
def test_one_batch_is_learnt_by_heart(name: str) -> None:
    """From its own input: encoder and head together, a few steps, every answer right."""
    torch.manual_seed(0)
    modality, raws = CASES[name]
    contract = fit(modality, raws)
    network = nn.ModuleList([modality.encoder(contract, TINY), modality.head(contract, TINY)]).eval()
    encoder, head = network[0], network[1]
    assert isinstance(head, Head)
    rows = batch(modality, contract, raws)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0)
    for _ in range(150):
        prediction = head(encoder(rows.values, rows.sizes))
        loss = torch.stack(list(head.loss(prediction, rows.values, rows.sizes).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    decoded = {key: value.detach().numpy() for key, value in head.decode(prediction).items()}
    for index, raw in enumerate(raws):
        answer = modality.write({key: value[index] for key, value in decoded.items()}, contract)
        truth = modality.truth(read(modality, raw), contract)
        if isinstance(modality, Number):
            # single precision beside an outlier of 1000 kg
            assert np.allclose(answer.value, truth, atol=0.02 * max(contract.deviation))
        else:
            assert answer.value == truth
            assert answer.confidence is not None
            assert 0.5 < answer.confidence <= 1


class Whole(nn.Module):
    """What an exporter sees: arrays in, decoded arrays out."""

    def __init__(self, encoder: Encoder, head: Head | None) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, values: Tensor) -> dict[str, Tensor]:
        tokens = self.encoder(values, torch.zeros(values.shape[0], 0, dtype=torch.int64))
        return {"tokens": tokens.values} if self.head is None else self.head.decode(self.head(tokens))


@pytest.mark.parametrize("name", [name for name in CASES if name != "balanced"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_the_exported_graph_gives_the_same_answers_for_any_batch(name: str) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    modality, contract, rows, encoder = parts(name)
    network = Whole(encoder, modality.head(contract, TINY).eval() if name in OUTPUTS else None).eval()
    program = torch.onnx.export(
        network, (rows.values,), dynamo=True, verbose=False, dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    assert program is not None
    session = runtime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for values in (rows.values, rows.values[:1], torch.cat([rows.values] * 3)):
        expected = network(values)
        given = session.run(None, {session.get_inputs()[0].name: values.numpy()})
        for (key, value), found in zip(expected.items(), given, strict=True):
            assert str(found.dtype) == str(value.detach().numpy().dtype), key
            np.testing.assert_allclose(found, value.detach().numpy(), atol=1e-5, rtol=1e-5)


# ---- numbers ----------------------------------------------------------------------------------------------------


def test_large_offsets_lose_no_digits() -> None:
    """Years of seconds apart by one: float32 could not tell them apart."""
    number = Number()
    contract = fit(number, [1.7e9, 1.7e9 + 1, 1.7e9 + 2])
    encoder = number.encoder(contract, TINY).eval()
    values = torch.tensor([1.7e9, 1.7e9 + 1], dtype=torch.float64)
    first, second = encoder(values, torch.zeros(2, 0)).values
    assert (first - second).abs().max() > 0.1
    head = number.head(contract, TINY)
    decoded = head.decode({"standard": torch.tensor([0.0, 1.0])})
    assert decoded["value"].dtype == torch.float64
    assert decoded["value"].tolist() == pytest.approx([1.7e9 + 1, 1.7e9 + 1 + contract.deviation[0]], abs=1e-6)


def test_a_constant_and_an_outlier_do_no_harm() -> None:
    for raws, other in [([5, 5, 5], [6.0, 1e30]), ([0] * 99 + [1], [1e12, -1e12]), ([1e-300, 2e-300], [1.0, 1e99])]:
        contract = fit(Number(), raws)
        tokens = Number().encoder(contract, TINY).eval()(torch.tensor(other, dtype=torch.float64), torch.zeros(2, 0))
        assert tokens.values.isfinite().all()
        assert tokens.values.abs().max() < 500


def test_a_long_vector_gets_fewer_bins_and_the_same_token() -> None:
    random = np.random.default_rng(0)
    raws = list(random.normal(size=(8, 2000)))
    contract = fit(Number(), raws)
    encoder = Number().encoder(contract, TINY)
    assert encoder(batch(Number(), contract, raws).values, torch.zeros(8, 0)).values.shape == (8, 1, TINY.width)
    assert sum(item.numel() for item in encoder.parameters()) < 1_000_000


@pytest.mark.parametrize(("loss", "expected"), [("mse", 4.0), ("mae", 2.0), ("huber", 1.5)])
def test_the_loss_of_a_number_is_the_one_that_was_asked_for(loss: Any, expected: float) -> None:
    number = Number(loss=loss)
    head = number.head(fit(number, [0, 2]), TINY)  # mean 1, deviation 1
    found = head.loss({"standard": torch.tensor([2.0])}, torch.tensor([1.0], dtype=torch.float64), torch.zeros(1, 0))
    assert float(found["error"]) == expected


def test_an_interval_is_given_once_it_was_measured_and_holds_90_percent() -> None:
    random = np.random.default_rng(0)
    number = Number(unit="kg")
    truth = random.normal(50, 10, 2000)
    contract = fit(number, truth)
    head = number.head(contract, TINY)
    off = (truth + random.normal(0, 4, 2000) - contract.mean[0]) / contract.deviation[0]
    prediction, target = {"standard": torch.tensor(off).float()}, torch.tensor(truth)

    def row(index: int) -> Any:
        decoded = {key: value[index].numpy() for key, value in head.decode(prediction).items()}
        return number.write(decoded, contract)

    assert row(0).detail == {}
    assert head.calibrate({"standard": prediction["standard"][:8]}, target[:8], torch.zeros(8, 0)) == {}
    assert row(0).detail == {}
    measured = head.calibrate({"standard": prediction["standard"][:500]}, target[:500], torch.zeros(500, 0))
    assert measured["half_width"] == pytest.approx(1.645 * 4, rel=0.1)
    answers = [row(index) for index in range(500, 2000)]
    held = np.mean([a.detail["low"] <= t <= a.detail["high"] for a, t in zip(answers, truth[500:], strict=True)])
    assert 0.87 < held < 0.93
    assert answers[0].unit == "kg"
    assert answers[0].confidence is None
    assert "half_width" in head.state_dict()


# ---- classes ----------------------------------------------------------------------------------------------------


def test_an_unseen_class_is_the_average_class_and_teaches_nothing() -> None:
    category = Category()
    contract = fit(category, ["cat", "cat", "cat", "dog"])
    unseen = category.transform(read(category, "bat"), contract)
    assert int(unseen) == 2
    assert "<unknown>" in category.preview(read(category, "bat"), contract)["data"]
    encoder = category.encoder(contract, TINY)
    tokens = encoder(torch.tensor([0, 1, 2]), torch.zeros(3, 0)).values[:, 0]
    torch.testing.assert_close(tokens[2], 0.75 * tokens[0] + 0.25 * tokens[1])

    head = category.head(contract, TINY)
    logits = torch.randn(3, 2, requires_grad=True)
    target = torch.tensor([0, 1, 2])
    loss = head.loss({"logits": logits}, target, torch.zeros(3, 0))["cross_entropy"]
    assert loss[2] == 0
    assert head.weight(target, torch.zeros(3, 0)).tolist() == [1, 1, 0]
    loss.sum().backward()
    assert logits.grad is not None
    assert logits.grad[2].abs().sum() == 0
    assert category.truth(read(category, "bat"), contract) == "bat"


def test_balanced_weights_have_mean_one_over_the_rows() -> None:
    category = Category(class_weights="balanced")
    contract = fit(category, ["a"] * 8 + ["b"] * 2)
    weights = category.head(contract, TINY).weight(torch.tensor([0] * 8 + [1] * 2), torch.zeros(10, 0))
    assert float(weights.mean()) == pytest.approx(1)
    assert float(weights[-1] / weights[0]) == pytest.approx(4)


def test_an_untrained_head_starts_at_the_frequencies() -> None:
    torch.manual_seed(0)
    category = Category()
    contract = fit(category, ["a"] * 90 + ["b"] * 10)
    head = category.head(contract, TINY).eval()
    nothing = Tokens(torch.zeros(1, 1, TINY.width), torch.ones(1, 1, dtype=torch.bool))
    probabilities = head.decode(head(nothing))["probabilities"]
    assert probabilities[0].tolist() == pytest.approx([91 / 102, 11 / 102], abs=1e-4)


def test_the_temperature_makes_confidence_honest() -> None:
    """Logits three times too large: the fitted temperature is three, and the order of the classes stays."""
    random = torch.Generator().manual_seed(0)
    logits = 1.5 * torch.randn(4000, 3, generator=random)
    target = torch.multinomial(logits.softmax(1), 1, generator=random).squeeze(1)
    category = Category()
    contract = fit(category, ["a", "b", "c"])
    head = category.head(contract, TINY)
    before = head.decode({"logits": 3 * logits})
    found = head.calibrate({"logits": 3 * logits}, target, torch.zeros(4000, 0))
    assert found["temperature"] == pytest.approx(3, rel=0.1)
    after = head.decode({"logits": 3 * logits})
    assert torch.equal(before["id"], after["id"])
    torch.testing.assert_close(after["probabilities"], logits.softmax(1), atol=0.03, rtol=0)


def test_a_validation_split_without_a_mistake_does_not_make_answers_certain() -> None:
    category = Category()
    head = category.head(fit(category, ["a", "b"]), TINY)
    logits = torch.tensor([[2.0, -2.0], [-2.0, 2.0]]).repeat(100, 1)
    head.calibrate({"logits": logits}, torch.tensor([0, 1]).repeat(100), torch.zeros(200, 0))
    highest = float(head.decode({"logits": logits})["probabilities"].max())
    assert 0.99 < highest < 0.999
    head.calibrate({"logits": logits[:10]}, torch.tensor([0, 1]).repeat(5), torch.zeros(10, 0))
    assert float(head.temperature) == 1  # ten rows are too few


# ---- yes and no, tags -------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=10, max_size=60),
    st.sampled_from(["f1", "accuracy"]),
)
def test_no_threshold_is_better_than_the_best(rows: list[tuple[int, bool]], what: Any) -> None:
    probability, truth = np.array([item / 20 for item, _ in rows]), np.array([yes for _, yes in rows])

    def score(threshold: float) -> float:
        said = probability >= threshold
        if what == "accuracy":
            return float((said == truth).mean())
        return float(2 * (said & truth).sum() / max(1, said.sum() + truth.sum()))

    found = best_threshold(probability, truth, what)
    if min(truth.sum(), (~truth).sum()) < 5:
        assert found == 0.5
    else:
        assert score(found) >= max(score(item) for item in np.linspace(-0.025, 1.025, 22)) - 1e-9


def test_the_threshold_of_a_rare_yes_comes_from_validation_rows() -> None:
    random = np.random.default_rng(0)
    logit = random.normal(-3, 1.5, 3000)
    truth = random.random(3000) < 1 / (1 + np.exp(-logit))
    prediction, target = {"logits": torch.tensor(logit).float()}, torch.tensor(truth.astype(np.uint8))
    contract = fit(Boolean(), truth)

    def f1(boolean: Boolean) -> float:
        head = boolean.head(contract, TINY)
        head.calibrate({"logits": prediction["logits"][:1500]}, target[:1500], torch.zeros(1500, 0))
        yes = head.decode({"logits": prediction["logits"][1500:]})["yes"].numpy()
        return float(2 * (yes & truth[1500:]).sum() / (yes.sum() + truth[1500:].sum()))

    assert f1(Boolean()) > f1(Boolean(threshold="none")) + 0.03


def test_confidence_is_the_probability_of_the_answer_given() -> None:
    contract = fit(Boolean(), [True, False])
    no = Boolean().write({"yes": np.bool_(False), "probability": np.float32(0.25)}, contract)
    assert (no.value, no.confidence) == (False, 0.75)
    assert no.detail["probabilities"] == {"false": 0.75, "true": 0.25}
    tags = fit(Tags(), ["a", "b"])
    some = Tags().write({"chosen": np.array([True, False]), "probabilities": np.array([0.75, 0.5])}, tags)
    assert (some.value, some.confidence) == (["a"], 0.375)
    json.dumps([no.to_dict(), some.to_dict()], allow_nan=False)


def test_each_tag_has_a_threshold_of_its_own() -> None:
    tags = Tags()
    contract = fit(tags, ["a,b", "a", "b"])
    head = tags.head(contract, TINY)
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2000, 2, generator=random) * 2 + torch.tensor([2.0, -4.0])
    target = torch.cat([torch.bernoulli(logits.sigmoid(), generator=random), torch.zeros(2000, 1)], dim=1)
    head.calibrate({"logits": logits}, target, torch.zeros(2000, 0))
    first, second = head.thresholds.tolist()
    assert second < first - 0.05


def test_an_unseen_tag_is_counted_and_asks_no_question() -> None:
    tags = Tags()
    contract = fit(tags, ["a,b", "a"])
    row = tags.transform(read(tags, "b,x,y"), contract)
    assert row.tolist() == [0, 1, 2]
    assert tags.truth(read(tags, "b,x"), contract) == ["b", "x"]
    head = tags.head(contract, TINY)
    logits = torch.zeros(1, 2)
    with_unseen = head.loss({"logits": logits}, torch.tensor(row)[None], torch.zeros(1, 0))
    without = head.loss({"logits": logits}, torch.tensor([[0.0, 1.0, 0.0]]), torch.zeros(1, 0))
    assert torch.equal(with_unseen["cross_entropy"], without["cross_entropy"])


# ---- dates ------------------------------------------------------------------------------------------------------


def test_a_date_tells_weekday_hour_and_season_apart() -> None:
    """A linear map of the features must find weekend, night and summer: learnt by least squares, tested later on."""
    date = Date()
    days = [dt.datetime(2020, 1, 1) + dt.timedelta(hours=7 * i) for i in range(1500)]
    contract = fit(date, days)
    encoder = date.encoder(contract, TINY).eval()
    seen: list[Tensor] = []
    encoder.get_submodule("inward").register_forward_hook(lambda _, given, out: seen.append(given[0]))
    encoder(batch(date, contract, days).values, torch.zeros(1500, 0))
    features = torch.cat([seen[0], torch.ones(1500, 1)], dim=1).double().detach().numpy()
    for question in (lambda d: d.weekday() >= 5, lambda d: d.hour < 6, lambda d: 4 <= d.month <= 9):
        truth = np.array([1.0 if question(day) else -1.0 for day in days])
        weights = np.linalg.lstsq(features[:1000], truth[:1000], rcond=None)[0]
        assert ((features[1000:] @ weights > 0) == (truth[1000:] > 0)).mean() > 0.93


# ---- the classical baseline -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_hand_features_say_what_is_missing_and_invent_nothing(name: str) -> None:
    modality, raws = CASES[name]
    values = [read(modality, raw) for raw in raws]
    features = modality.hand_features()
    assert features is not None
    table = features.fit([*values, None]).transform([*values, None])
    table = table.toarray() if hasattr(table, "toarray") else table
    assert table.shape[0] == 6
    assert np.isfinite(table).all()
    marked = np.flatnonzero(table[5])
    assert len(marked) == 1, "a missing value is its mark and nothing else"
    assert not table[:5, marked[0]].any()


@pytest.mark.parametrize(
    ("modality", "values"),
    [(Category(), lambda x: np.where(x[:, 0] > 0, "up", "down")), (Boolean(), lambda x: x[:, 0] > 0),
     (Number(), lambda x: 3 * x[:, 0] + 1), (Number(), lambda x: np.stack([x[:, 0], -x[:, 1]], axis=1)),
     (Tags(), lambda x: [[tag for tag, yes in zip("ab", row > 0, strict=True) if yes] for row in x])],
    ids=["category", "boolean", "number", "vector", "tags"],
)  # fmt: skip
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_the_classical_model_learns_and_answers_as_the_network_does(
    modality: Modality, values: Any, sparse: bool
) -> None:
    from scipy.sparse import csr_matrix

    random = np.random.default_rng(0)
    table = random.normal(size=(400, 2))
    raws = list(values(table))
    contract: Contract = fit(modality, raws, OUTPUT_ROLE)
    truths = [modality.truth(read(modality, raw), contract) for raw in raws]
    given = csr_matrix(table) if sparse else table
    model = modality.classical(contract)
    model.fit(given[:300], truths[:300])
    if hasattr(model, "predict_proba"):
        rows = [dict(zip(model.classes_.tolist(), row, strict=True)) for row in model.predict_proba(given[300:])]
    else:
        rows = model.predict(given[300:])
    answers = [modality.from_classical(row, contract) for row in rows]
    constant = [modality.trivial(truths[:300], contract)] * 100
    for metric in modality.metrics(contract):
        fitted = metric.combine(metric.rows(truths[300:], answers), np.ones(100))
        trivial = metric.combine(metric.rows(truths[300:], constant), np.ones(100))
        if metric.name != "ece":  # a constant answer with the right share is perfectly calibrated
            assert (fitted > trivial) if metric.direction == "max" else (fitted < trivial), metric.name


def test_trees_are_chosen_where_a_line_cannot_tell() -> None:
    random = np.random.default_rng(0)
    table = random.normal(size=(600, 3))
    contract = fit(Category(), ["a", "b"])
    ring = np.where((table[:, :2] ** 2).sum(1) > 1.4, "a", "b")
    assert Category().classical(contract).fit(table, ring).chosen_ == "trees"
    line = np.where(table[:, 0] > 0, "a", "b")
    assert Category().classical(contract).fit(table[:100], line[:100]).chosen_ == "linear"


def test_reading_and_fitting_load_no_torch_and_no_scikit_learn() -> None:
    import subprocess
    import sys

    script = """
import sys
from endwise.modalities import modality_class
for name, raw in [("number", 3), ("category", "a"), ("boolean", 1), ("date", "2026-01-01"), ("tags", "a")]:
    modality = modality_class(name)()
    contract = modality.fit([modality.read(raw, None)], missing=0, role="input")
    modality.transform(modality.read(raw, None), contract), modality.summary(contract)
print([name for name in ("torch", "sklearn", "pydantic", "pandas", "scipy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_trunk_of_many_fields_stays_smaller_than_what_it_reads_would_make_it() -> None:
    large = Size.of("large")
    few, many = (Perceptron(large, [f"x{at}" for at in range(count)]) for count in (16, 800))
    assert sum(weight.numel() for weight in many.parameters()) < 1.1 * sum(
        weight.numel() for weight in few.parameters()
    )
    tokens = torch.randn(2, 800, large.width)
    assert many(tokens, torch.ones(2, 800, dtype=torch.bool)).shape == tokens.shape
