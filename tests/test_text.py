"""Text: read as it is, cut into units without loss, encoded, and spelt letter by letter."""

import json
import math
import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from endwise.batch import Ragged
from endwise.errors import BadValue, RecipeError
from endwise.modalities.text import Text, TextContract
from endwise.modalities.text.network import CTCHead, drop_of, merged, stride_of, without_gaps
from endwise.modalities.text.tokenizer import CASES, Counts, Units, fold, learn_merges, learn_phrases, unfold, words
from endwise.nn.interface import Tokens
from endwise.nn.size import Size

SIZE = Size.of("tiny")
SENTENCES = [
    f"{who} {did} the {what} {when}{mark}"
    for who in ("My card", "The money", "I", "A transfer", "iPhone")
    for did in ("has not reached", "lost", "wants", "is still waiting for")
    for what in ("bank", "shop", "top-up", "ATM")
    for when in ("today", "since Monday", "after 2 weeks")
    for mark in ("?", "!", ".")
]
EVERY_SCRIPT = [
    "",
    " ",
    "a",
    "héllo wörld",
    "e\u0301",
    "हिन्दी में लिखा",
    "مرحبا بالعالم 123",
    "你好，世界。" * 30,
    "👩‍👩‍👧 family 🏳️‍🌈",
    "nul \x00 inside",
    "tab\tand\r\nnew line  two spaces",
    "ŒUVRE Straße ﬁne İstanbul ǅ",
    "x" * 500,
    "can't WON'T I'm o'clock 'quoted'",
]
any_text = st.text(max_size=60)


def no_file(path: str) -> bytes:
    raise AssertionError(f"no file should be read, but {path}")


def read(text: str, declared: Text | None = None) -> np.ndarray:
    return (declared or Text()).read(text, no_file)


def learnt(texts: list[str], role: str = "input", declared: Text | None = None) -> TextContract:
    declared = declared or Text()
    return declared.fit([read(text, declared) for text in texts], missing=0, role=role)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def contract() -> TextContract:
    return learnt(SENTENCES)


@pytest.fixture(scope="module")
def spelt() -> TextContract:
    return learnt(["one", "two", "three", "seven", "o", ""], "output")


# ---- reading ---------------------------------------------------------------------------------------------------


@given(any_text)
def test_a_text_is_read_as_it_is_but_composed(text: str) -> None:
    assert read(text).tobytes().decode() == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("text", EVERY_SCRIPT)
def test_every_script_comes_back(text: str, contract: TextContract) -> None:
    value = read(text)
    assert value.dtype == np.uint8
    assert Text().truth(value, contract) == unicodedata.normalize("NFC", text)


def test_text_that_is_no_text_is_refused_with_the_place() -> None:
    with pytest.raises(BadValue, match="byte 0xff at position 3"):
        Text().read(b"abc\xff", no_file)
    with pytest.raises(BadValue, match="surrogate pair at character 2"):
        Text().read("ab\ud800", no_file)
    for odd in (3.5, True, ["a"], np.array([1, 2])):
        with pytest.raises(BadValue, match="expected text"):
            Text().read(odd, no_file)
    assert read(7).tobytes() == b"7"  # type: ignore[arg-type]


def test_a_text_beyond_the_limit_is_refused_not_cut() -> None:
    assert len(read("x" * 20_000)) == 20_000
    with pytest.raises(BadValue, match=r"20001 characters.*max_chars: 20001"):
        read("x" * 20_001)
    assert len(read("x" * 30_000, Text(max_chars=30_000))) == 30_000
    with pytest.raises(BadValue, match="more than the 5 allowed"):
        read("123456", Text(max_chars=5))


def test_a_cell_can_name_a_file() -> None:
    files = {"a.txt": "\ufeffgrüße".encode(), "empty.txt": b"", "bad.txt": b"\xe9"}
    declared = Text(source="file")
    assert declared.read("a.txt", files.__getitem__).tobytes().decode() == "grüße"
    assert declared.read("empty.txt", files.__getitem__).size == 0
    assert declared.read({"bytes": b"x", "path": None}, no_file).tobytes() == b"x"
    with pytest.raises(BadValue, match="not UTF-8"):
        declared.read("bad.txt", files.__getitem__)
    with pytest.raises(BadValue, match="path or the bytes"):
        declared.read(3, no_file)


def test_a_wrong_field_is_refused_with_the_fix() -> None:
    with pytest.raises(RecipeError, match="'bpe'"):
        Text(units="bpes")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"Text\.vocabulary = 10 .*258"):
        Text(vocabulary=10)
    with pytest.raises(RecipeError, match="remove one of the two"):
        Text(units="bytes", vocabulary=500)
    with pytest.raises(RecipeError, match=r"Text\.max_chars"):
        Text(max_chars=0)
    with pytest.raises(RecipeError, match=r"Text\.frames"):
        Text(frames=9)
    with pytest.raises(RecipeError, match=r"inputs\.words\.units"):
        Text(units="characters").check_role("input", "words")
    with pytest.raises(RecipeError, match=r"outputs\.words\.frames"):
        Text(decoder="attention", frames=3).check_role("output", "words")
    with pytest.raises(RecipeError, match=r"outputs\.words\.beams"):
        Text(decoder="ctc", beams=8).check_role("output", "words")
    with pytest.raises(RecipeError, match=r"Text\.beams"):
        Text(beams=0)


# ---- units -----------------------------------------------------------------------------------------------------


@given(any_text)
def test_words_joined_are_the_text(text: str) -> None:
    assert "".join(words(text)) == " " + text


@given(any_text)
def test_case_comes_back(text: str) -> None:
    for word in words(text):
        assert unfold(*fold(word)) == word


def test_marks_of_a_letter_stay_with_it() -> None:
    assert words("हिन्दी में") == [" हिन्दी", " में"]
    assert words("Don't stop-it, 12345!") == [" Don", "'t", " stop", "-", "it", ",", " 123", "45", "!"]


def test_units_equal_the_tokenizers_library() -> None:
    from tokenizers import Tokenizer, models

    counts = Counts()
    for text in SENTENCES + EVERY_SCRIPT:
        counts.add(text)
    merges = learn_merges(counts, most=400)
    ours = Units(merges)
    spelling = {unit: "".join(chr(0x100 + byte) for byte in ours.spelt[unit]) for unit in range(1, ours.size)}
    vocabulary: dict[str, int] = {}
    for unit, letters in spelling.items():
        vocabulary.setdefault(letters, unit)
    theirs = Tokenizer(models.BPE(vocabulary, [(spelling[a], spelling[b]) for a, b in merges]))

    @given(st.one_of(any_text, st.text(alphabet="aehinorst ", max_size=40)))
    @settings(deadline=None)
    def same(word: str) -> None:
        data = word.encode()
        assert ours.cut(data) == theirs.encode("".join(chr(0x100 + byte) for byte in data)).ids

    same()


def test_the_order_of_rows_does_not_change_what_is_learnt(contract: TextContract) -> None:
    again = learnt(SENTENCES[::-1])
    assert again.merges == contract.merges
    assert again.phrases == contract.phrases


@given(st.one_of(any_text, st.sampled_from(SENTENCES)))
def test_units_spell_the_text(text: str) -> None:
    units = _UNITS
    packed = units.encode(text)
    assert packed[0] == 0
    assert (
        b"".join(units.spelt[item % units.size] for item in packed) == "".join(fold(w)[0] for w in words(text)).encode()
    )


_COUNTS = Counts()
for _sentence in SENTENCES:
    _COUNTS.add(_sentence)
_MERGES = learn_merges(_COUNTS)
_UNITS = Units(_MERGES, learn_phrases(_COUNTS, _MERGES))


def test_a_unit_carries_case_and_phrase(contract: TextContract) -> None:
    def parts(text: str) -> list[tuple[str, int, bool]]:
        units, size = contract.cutter, contract.vocabulary
        found = Text().transform(read(text), contract).tolist()
        return [(units.spell(item), item // size % CASES, item // size // CASES > 0) for item in found[1:]]

    assert parts("The money lost") == [(" The", 1, False), (" money", 0, True), (" lost", 0, True)]
    assert parts("THE LOST money") == [(" THE", 2, False), (" LOST", 2, False), (" money", 0, False)]


def test_little_text_is_read_as_bytes() -> None:
    few = learnt(["yes", "no"])
    assert few.units == "bytes"
    assert Text().transform(read("yes"), few).tolist() == [0, *(1 + byte for byte in b"yes")]
    assert learnt(["yes", "no"], declared=Text(units="bpe")).units == "bpe"
    assert learnt(SENTENCES, declared=Text(units="bytes")).merges == ()
    assert learnt(SENTENCES, declared=Text(vocabulary=300)).vocabulary == 300


@pytest.mark.parametrize("role", ["input", "output"])
def test_a_contract_survives_being_saved(role: str) -> None:
    made = learnt([*SENTENCES, *EVERY_SCRIPT], role)
    again = TextContract.from_dict(json.loads(json.dumps(made.to_dict())))
    assert again == made
    for text in [*SENTENCES[:3], *EVERY_SCRIPT]:
        assert Text().transform(read(text), made).tolist() == Text().transform(read(text), again).tolist()


def test_a_contract_travels_to_other_processes(contract: TextContract) -> None:
    import copy

    Text().transform(read("fill the cache"), contract)
    assert copy.deepcopy(contract).cutter.encode("My card") == contract.cutter.encode("My card")


def test_people_see_what_was_learnt(contract: TextContract, spelt: TextContract) -> None:
    assert f"{len(SENTENCES)} texts" in Text().summary(contract)
    assert "(bpe)" in Text().summary(contract)
    assert "letters: 'e" in Text().summary(spelt)
    assert Text().preview(read("x" * 3_000), contract)["data"].endswith("… (3000 characters)")


# ---- the encoder -----------------------------------------------------------------------------------------------


def batch_of(texts: list[str], contract: TextContract) -> Ragged:
    return Ragged.stack([Text().transform(read(text), contract) for text in texts], axes=1).to("cpu")


@pytest.fixture(params=["bpe", "bytes", "long"])
def encoded(request: pytest.FixtureRequest) -> tuple[TextContract, nn.Module]:
    torch.manual_seed(0)
    texts = [*SENTENCES, " ".join(SENTENCES[:150])] if request.param == "long" else SENTENCES
    made = learnt(texts, declared=Text(units="bytes" if request.param == "bytes" else "bpe"))
    encoder = Text().encoder(made, SIZE)
    if request.param == "long":
        assert encoder.stride == 2
    for table in (encoder.case.weight, encoder.phrase.weight):  # as training leaves them: not zero
        nn.init.normal_(table, std=0.1)
    return made, encoder


def test_a_row_alone_gives_the_answer_it_gives_among_others(encoded: tuple[TextContract, nn.Module]) -> None:
    contract, encoder = encoded
    encoder.eval()
    texts = ["", "My card has not reached the shop!", "I", SENTENCES[7], "👩‍👩‍👧 مرحبا"]
    together = batch_of(texts, contract)
    with torch.no_grad():
        tokens = encoder(together.values, together.sizes)
        for row, text in enumerate(texts):
            one = batch_of([text], contract)
            alone = encoder(one.values, one.sizes)
            count = int(alone.mask.sum())
            assert int(tokens.mask[row].sum()) == count >= 1
            torch.testing.assert_close(tokens.values[row, :count], alone.values[0], atol=1e-5, rtol=1e-4)


def test_gradients_reach_every_table(encoded: tuple[TextContract, nn.Module]) -> None:
    contract, encoder = encoded
    encoder.train()
    rows = batch_of(SENTENCES[:8], contract)
    encoder(rows.values, rows.sizes).pooled().square().sum().backward()
    tables = [encoder.unit, encoder.case] + ([encoder.phrase] if contract.phrases else [])
    for table in tables:
        assert float(table.weight.grad.abs().sum()) > 0
    used = (rows.values % contract.vocabulary).unique()
    assert not encoder.unit.weight.grad[[u for u in range(contract.vocabulary) if u not in used]].any()


def test_it_runs_under_autocast(encoded: tuple[TextContract, nn.Module]) -> None:
    contract, encoder = encoded
    rows = batch_of(SENTENCES[:4], contract)
    with torch.autocast("cpu", torch.bfloat16):
        assert bool(encoder(rows.values, rows.sizes).values.isfinite().all())


def test_dropping_is_for_training_only(contract: TextContract) -> None:
    encoder = Text().encoder(contract, SIZE)
    rows = batch_of(SENTENCES[:4], contract)
    encoder.train()
    torch.manual_seed(1)
    first = encoder(rows.values, rows.sizes).values
    torch.manual_seed(1)
    assert torch.equal(first, encoder(rows.values, rows.sizes).values)
    assert not torch.equal(first, encoder(rows.values, rows.sizes).values)
    encoder.eval()
    assert torch.equal(encoder(rows.values, rows.sizes).values, encoder(rows.values, rows.sizes).values)


def test_more_text_means_less_dropping(contract: TextContract) -> None:
    import dataclasses

    assert drop_of(contract) == 0.5
    assert drop_of(dataclasses.replace(contract, count=10**9)) == pytest.approx(0.1)
    assert 0.1 < drop_of(dataclasses.replace(contract, count=10**6)) < 0.5
    assert [stride_of(count) for count in (1, 1_024, 1_025, 4_096, 20_001)] == [1, 1, 2, 4, 32]


@given(st.integers(1, 4), st.integers(1, 9), st.sampled_from([1, 2, 4]))
def test_merging_neighbours_keeps_their_mean(batch: int, count: int, stride: int) -> None:
    vectors = torch.randn(batch, count, 3)
    sizes = torch.randint(1, count + 1, (batch,))
    mask = torch.arange(count) < sizes[:, None]
    made, real = merged(vectors, mask, stride)
    for row in range(batch):
        expected = [part.mean(0) for part in vectors[row, : sizes[row]].split(stride)]
        assert int(real[row].sum()) == len(expected)
        torch.testing.assert_close(made[row, : len(expected)], torch.stack(expected), atol=1e-5, rtol=1e-4)


# ---- the CTC head ----------------------------------------------------------------------------------------------


def tokens_of(counts: list[int], seed: int = 0) -> Tokens:
    values = torch.randn(len(counts), max(counts), SIZE.width, generator=torch.Generator().manual_seed(seed))
    return Tokens(values, torch.arange(max(counts)) < torch.tensor(counts)[:, None])


def answer(head: CTCHead, tokens: Tokens, contract: TextContract) -> list[str]:
    head.eval()
    with torch.no_grad():
        decoded = head.decode(head(tokens))
    rows = [{name: item[row].numpy() for name, item in decoded.items()} for row in range(len(tokens.values))]
    return [Text().write(row, contract).value for row in rows]


def test_a_batch_is_learnt_by_heart(spelt: TextContract) -> None:
    torch.manual_seed(0)
    head, tokens, texts = (
        CTCHead(spelt, SIZE, frames=2),
        tokens_of([4, 3, 5, 6, 1, 2]),
        ["one", "two", "three", "seven", "o", ""],
    )
    target = Ragged.stack([Text().transform(read(text), spelt) for text in texts], axes=1).to("cpu")
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-2)
    for _ in range(60):
        loss = head.loss(head(tokens), target.values, target.sizes)["ctc"].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert answer(head, tokens, spelt) == texts
    assert head.notes() == []


def test_the_head_gives_a_row_alone_the_same_answer(spelt: TextContract) -> None:
    torch.manual_seed(0)
    head = CTCHead(spelt, SIZE, frames=2).eval()
    counts = [3, 7, 1]
    together = tokens_of(counts)
    target, sizes = torch.tensor([[1, 2, 0], [3, 3, 4], [2, 0, 0]]), torch.tensor([[2], [3], [1]])
    with torch.no_grad():
        made = head(together)
        decoded, loss = head.decode(made), head.loss(made, target, sizes)["ctc"]
        for row, count in enumerate(counts):
            alone = head(Tokens(together.values[row : row + 1, :count], together.mask[row : row + 1, :count]))
            one = head.decode(alone)
            assert int(one["frames"]) == int(decoded["frames"][row]) == 2 * count
            assert torch.equal(one["path"][0], decoded["path"][row, : 2 * count])
            assert not decoded["path"][row, 2 * count :].any()
            torch.testing.assert_close(one["score"][0], decoded["score"][row])
            torch.testing.assert_close(
                head.loss(alone, target[row : row + 1], sizes[row : row + 1])["ctc"][0], loss[row]
            )
    assert head.weight(target, sizes).tolist() == [2.0, 3.0, 1.0]


def test_tokens_of_several_inputs_are_read_without_gaps() -> None:
    mask = torch.tensor([[True, False, True, True, False], [True, True, False, True, True]])
    values = torch.arange(10.0).reshape(2, 5, 1)
    joined = without_gaps(Tokens(values, mask, spans={"a": slice(0, 2), "b": slice(2, 5)}))
    assert joined.values[0, :3, 0].tolist() == [0, 2, 3]
    assert joined.values[1, :4, 0].tolist() == [5, 6, 8, 9]
    assert joined.mask.tolist() == [[True, True, True, False, False], [True, True, True, True, False]]


def test_a_target_without_room_is_counted_not_hidden(spelt: TextContract) -> None:
    head = CTCHead(spelt, SIZE, frames=1)
    target = torch.tensor([[1, 1], [1, 2]])  # a doubled letter needs a pause between
    loss = head.loss(head(tokens_of([2, 2])), target, torch.tensor([[2], [2]]))["ctc"]
    assert loss[0] == 0
    assert loss[1] > 0
    assert head.notes() == ["1 times a target had more letters than frames and taught nothing: write frames: 2"]
    assert "impossible" not in head.state_dict()


def test_a_batch_of_empty_texts_has_a_loss(spelt: TextContract) -> None:
    head = CTCHead(spelt, SIZE, frames=2)
    rows = Ragged.stack([Text().transform(read(""), spelt), Text().blank(spelt)], axes=1).to("cpu")
    loss = head.loss(head(tokens_of([2, 3])), rows.values, rows.sizes)["ctc"]
    assert bool((loss > 0).all())
    loss.sum().backward()
    assert all(bool(weight.grad.isfinite().all()) for weight in head.parameters())


def test_the_head_starts_at_the_frequencies_of_the_letters(spelt: TextContract) -> None:
    head = CTCHead(spelt, SIZE, frames=2)
    shares = head.outward.bias.detach().softmax(0)
    assert shares[0] == pytest.approx(0.75, abs=0.01)
    ranked = sorted(zip(shares[1:-1].tolist(), spelt.alphabet, strict=True), reverse=True)
    assert ranked[0][1] == "e"


def test_a_letter_never_seen_has_a_symbol_and_costs(spelt: TextContract) -> None:
    target = Text().transform(read("oz"), spelt)
    assert target.tolist() == [spelt.symbols["o"], len(spelt.alphabet) + 1]
    assert Text().truth(read("oz"), spelt) == "oz"
    head = CTCHead(spelt, SIZE, frames=2)
    loss = head.loss(head(tokens_of([4])), torch.from_numpy(target)[None], torch.tensor([[2]]))["ctc"]
    assert bool(loss.isfinite().all())


def test_answers_are_written(spelt: TextContract) -> None:
    o, n, e = (spelt.symbols[letter] for letter in "one")
    path = np.array([o, o, 0, n, n, n, e, e, 0, e, 7, 7])
    made = Text().write({"path": path, "frames": np.array(10), "score": np.array(math.log(0.5) * 4)}, spelt)
    assert made.value == "onee"
    assert made.confidence == pytest.approx(0.5)
    empty = Text().write({"path": np.zeros(4, np.int64), "frames": np.array(4), "score": np.array(-0.1)}, spelt)
    assert empty.value == ""
    assert empty.confidence == pytest.approx(math.exp(-0.1))


def test_bytes_spell_any_text() -> None:
    made = learnt(["grüße"], "output", Text(units="bytes"))
    assert made.num_symbols == 257
    symbols = Text().transform(read("日本"), made)
    path = np.stack([symbols, np.zeros_like(symbols)], axis=1).ravel()
    assert Text().write({"path": path, "frames": len(path), "score": np.array(0.0)}, made).value == "日本"
    torch.testing.assert_close(CTCHead(made, SIZE, frames=2).outward.bias.exp().sum().item(), 1.0, atol=0.01, rtol=0)


@given(st.text(max_size=20))
def test_what_is_spelt_is_written_back(text: str) -> None:
    text = unicodedata.normalize("NFC", text)
    made = learnt([text], "output")
    symbols = Text().transform(read(text), made)
    path = np.stack([symbols, np.zeros_like(symbols)], axis=1).ravel()
    assert Text().write({"path": path, "frames": len(path), "score": np.array(0.0)}, made).value == text


# ---- baselines and metrics ---------------------------------------------------------------------------------------


def test_the_trivial_answer_is_the_most_frequent_text(spelt: TextContract) -> None:
    made = Text().trivial(["b", "a", "b", "a", "c"], spelt)
    assert (made.value, made.confidence) == ("a", 0.4)
    assert [metric.name for metric in Text().metrics(spelt)] == ["wer", "cer", "accuracy"]


def test_hand_features_tell_texts_apart() -> None:
    values = [read("good film"), read("bad film"), None, read("")]
    made = Text().hand_features().fit(values)
    features = made.transform(values)
    assert features.shape[0] == 4
    assert features[2, -1] == 1
    assert features[3].sum() == 0
    assert made.transform([read("unseen")]).shape[1] == features.shape[1]
    assert Text().hand_features().fit([read(""), None]).transform([None]).toarray().tolist() == [[1.0]]


def test_the_classical_answer_is_a_text_of_training(spelt: TextContract) -> None:
    inputs = [read(text) for text in SENTENCES]
    features = Text().hand_features().fit(inputs)
    closed = ["yes" if "card" in text else "no" for text in SENTENCES]
    for answers in (closed, SENTENCES, ["same"] * len(SENTENCES)):
        model = Text().classical(spelt).fit(features.transform(inputs), answers)
        assert list(model.predict(features.transform(inputs))) == answers


# ---- export ------------------------------------------------------------------------------------------------------


class Through(nn.Module):
    """Text to letters, as arrays in and arrays out."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, values: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        decoded = self.head.decode(self.head(self.encoder(values, sizes)))
        return decoded["path"], decoded["score"], decoded["frames"]


@pytest.mark.parametrize("units", ["bpe", "bytes"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_exported_equals_trained(units: str, spelt: TextContract, tmp_path: object) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    import dataclasses

    declared = Text(units=units)  # type: ignore[arg-type]
    contract = learnt(SENTENCES, declared=declared)
    if units == "bytes":
        contract = dataclasses.replace(contract, longest_units=2_000)  # with merging of neighbours
    torch.manual_seed(0)
    net = Through(declared.encoder(contract, SIZE), CTCHead(spelt, SIZE, frames=2)).eval()
    for weight in net.parameters():
        nn.init.normal_(weight, std=0.2)
    example, other = batch_of(SENTENCES[:2], contract), batch_of([*SENTENCES[5:9], "", "I"], contract)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    path = f"{tmp_path}/text.onnx"
    torch.onnx.export(
        net,
        (example.values, example.sizes),
        path,
        dynamo=True,
        dynamic_shapes=({0: batch, 1: length}, {0: batch}),
        input_names=["values", "sizes"],
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path)
    made = session.run(None, {"values": other.values.numpy(), "sizes": other.sizes.numpy()})
    with torch.no_grad():
        expected = net(other.values, other.sizes)
    for got, wanted in zip(made, expected, strict=True):
        np.testing.assert_allclose(got, wanted.numpy(), atol=1e-3, rtol=1e-3)


def test_where_only_a_space_is_learnt_fewer_words_are_left_out() -> None:
    from endwise.modalities.category import Category
    from endwise.modalities.embedding import Embedding

    inputs = {"en": Text(), "de": Text(drop=0.4)}
    space, label = Embedding(of=("en", "de")), Category()
    assert [item.beside(inputs, {"space": space}).drop for item in inputs.values()] == [0.2, 0.4]
    assert Text().beside(inputs, {"space": space, "label": label}).drop is None
    with pytest.raises(RecipeError, match=r"Text\.drop = 1\.0"):
        Text(drop=1.0)


def test_a_question_about_a_picture_keeps_its_words() -> None:
    from endwise.modalities.category import Category
    from endwise.modalities.image import Image

    answer = {"answer": Category()}
    asked = Text().beside({"image": Image(), "question": Text()}, answer)
    assert (asked.reading, asked.drop) == ("context", 0.05)
    alone = Text().beside({"review": Text(), "title": Text()}, answer)
    assert (alone.reading, alone.drop) == ("bag", None)
