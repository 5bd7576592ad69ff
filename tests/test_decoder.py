"""Texts that are written symbol after symbol: the decoder, its search, and the heads on it."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from endwise import losses
from endwise.modalities.audio import Audio
from endwise.modalities.category import Category
from endwise.modalities.text import Text, TextContract
from endwise.modalities.text.sequence import SequenceHead, spelt_log_p
from endwise.model import Model
from endwise.nn.decoder import END, Decoder, search
from endwise.nn.interface import Tokens
from endwise.nn.size import Size
from endwise.recipe import Recipe
from endwise.train import fit

SIZE = Size.of("tiny", width=32, depth=2, heads=2)
BOTH = pytest.mark.parametrize("prefix", [False, True], ids=["across", "prefix"])


def made(symbols: int = 7, *, prefix: bool, seed: int = 0) -> Decoder:
    """An untrained decoder whose answers are not all alike."""
    torch.manual_seed(seed)
    decoder = Decoder(SIZE, symbols, prefix=prefix).eval()
    with torch.no_grad():
        decoder.norm.weight.fill_(0.7)
        decoder.bias.normal_()
    return decoder


def memory(rows: int = 3, places: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    lengths = torch.arange(places, places - rows, -1)[:, None]
    return torch.randn(rows, places, SIZE.width), torch.arange(places) < lengths


@BOTH
def test_one_symbol_after_the_other_scores_as_all_at_once(prefix: bool) -> None:
    """The cache is exact: what is taught is what is used."""
    decoder, (tokens, mask) = made(prefix=prefix), memory()
    symbols = torch.randint(0, 7, (3, 6))
    looked_at = decoder.begin(tokens, mask)
    together, cache = decoder(symbols, looked_at), decoder.empty(3, 6, tokens)
    for place in range(6):
        scores, cache = decoder.step(symbols[:, place], torch.tensor(place), looked_at, cache)
        torch.testing.assert_close(scores, together[:, place], atol=1e-5, rtol=1e-5)


@BOTH
def test_a_symbol_never_sees_what_comes_after_it(prefix: bool) -> None:
    decoder, (tokens, mask) = made(prefix=prefix), memory()
    symbols = torch.randint(0, 7, (3, 6))
    looked_at = decoder.begin(tokens, mask)
    changed = symbols.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % 7
    one, other = decoder(symbols, looked_at), decoder(changed, looked_at)
    torch.testing.assert_close(one[:, :4], other[:, :4])
    assert not torch.allclose(one[:, 4], other[:, 4])


@BOTH
def test_padding_of_the_memory_is_never_looked_at(prefix: bool) -> None:
    decoder, (tokens, mask) = made(prefix=prefix), memory()
    symbols = torch.randint(0, 7, (3, 4))
    long = decoder(symbols, decoder.begin(tokens, mask))
    count = int(mask[2].sum())
    alone = decoder(symbols[2:], decoder.begin(tokens[2:, :count], mask[2:, :count]))
    torch.testing.assert_close(long[2:], alone, atol=1e-5, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(prefix=st.booleans(), seed=st.integers(0, 10_000), penalty=st.sampled_from([0.0, 1.0]))
def test_a_row_may_stop_when_its_best_stands_fast(prefix: bool, seed: int, penalty: float) -> None:
    """What is found is what going on to the end would have found."""
    decoder = made(7, prefix=prefix, seed=seed)
    with torch.no_grad():
        decoder.norm.weight *= 8  # sure of itself, as a trained one is
        looked_at = decoder.begin(*memory())
        whole = search(decoder, looked_at, beams=4, longest=12, penalty=penalty)
        early = search(decoder, looked_at, beams=4, longest=12, penalty=penalty, best_only=True)
    for slow, quick in zip(whole, early, strict=True):
        torch.testing.assert_close(quick[:, 0], slow[:, 0])


@settings(max_examples=25, deadline=None)
@given(prefix=st.booleans(), seed=st.integers(0, 10_000), penalty=st.sampled_from([0.0, 1.0]))
def test_enough_beams_find_the_best_of_all_sequences(prefix: bool, seed: int, penalty: float) -> None:
    """With as many beams as there are sequences, beam search is exhaustive."""
    decoder, (tokens, mask) = made(3, prefix=prefix, seed=seed), memory(1, 3)
    longest = 3
    looked_at = decoder.begin(tokens, mask)
    with torch.no_grad():
        symbols, lengths, score = search(decoder, looked_at, beams=27, longest=longest, penalty=penalty)
        best = -math.inf
        for length in range(longest + 1):
            for found in itertools.product([1, 2], repeat=length):
                after = torch.tensor([[*found, END]])[:, :longest]
                before = torch.tensor([[END, *found]])[:, :longest]
                log_p = decoder(before, looked_at).log_softmax(-1).gather(2, after[..., None]).sum()
                best = max(best, float(log_p) / ((5 + length) / 6) ** penalty)
    got = float(score[0, 0]) / ((5 + int(lengths[0, 0])) / 6) ** penalty
    assert got == pytest.approx(best, abs=1e-4)
    assert (symbols[0, 0, int(lengths[0, 0]) :] == END).all()


@BOTH
def test_the_score_is_the_log_probability_of_what_was_written(prefix: bool) -> None:
    decoder, (tokens, mask) = made(prefix=prefix), memory()
    looked_at = decoder.begin(tokens, mask)
    with torch.no_grad():
        symbols, lengths, score = search(decoder, looked_at, beams=4, longest=8, penalty=1.0)
        for beam in range(4):
            written = symbols[:, beam]
            before = torch.cat([torch.full((3, 1), END), written[:, :-1]], 1)
            log_p = decoder(before, looked_at).log_softmax(-1).gather(2, written[..., None])[..., 0]
            chosen = torch.arange(8) <= lengths[:, beam : beam + 1]
            torch.testing.assert_close((log_p * chosen).sum(1), score[:, beam], atol=1e-4, rtol=1e-4)


def test_what_ctc_thinks_of_a_sequence_is_its_loss() -> None:
    """The loop over frames, which an exported graph can hold, equals torch's own."""
    torch.manual_seed(0)
    log_p = torch.randn(4, 9, 5).log_softmax(-1)
    frames = torch.tensor([9, 7, 4, 1])
    symbols = torch.tensor([[[1, 1, 2, 0]], [[3, 4, 0, 0]], [[0, 0, 0, 0]], [[2, 0, 0, 0]]])
    lengths = (symbols != 0).sum(2)
    wanted = -losses.ctc(log_p, frames, symbols[:, 0], lengths[:, 0])
    torch.testing.assert_close(spelt_log_p(log_p, frames, symbols, lengths)[:, 0], wanted, atol=1e-4, rtol=1e-4)


def test_a_target_of_any_length_costs_per_symbol_and_weighs_its_symbols() -> None:
    torch.manual_seed(0)
    head = SequenceHead(Decoder(SIZE, 9, prefix=False), SIZE, beams=1, longest=5, penalty=1.0, smoothing=0.1).eval()
    tokens, mask = memory()
    prediction = head(Tokens(tokens, mask))
    target, sizes = torch.tensor([[1, 2, 3], [4, 0, 0], [0, 0, 0]]), torch.tensor([[3], [1], [0]])
    together = head.loss(prediction, target, sizes)["cross_entropy"]
    assert head.weight(target, sizes).tolist() == [4, 2, 1]
    for row in range(3):
        count = int(sizes[row])
        part = {name: value[row : row + 1] for name, value in prediction.items()}
        alone = head.loss(part, target[row : row + 1, :count], sizes[row : row + 1])["cross_entropy"]
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-5)


def test_both_terms_of_ctc_and_attention_count_every_letter_alike() -> None:
    """Weighted by what the head says a row weighs, the terms of a batch are those of its letters, added up."""
    torch.manual_seed(0)
    declared = Text(decoder="ctc+attention", frames=2)
    head = declared.head(learnt(["abcd", "a", ""], declared), SIZE).eval()
    tokens, mask = memory()
    prediction = head(Tokens(tokens, mask))
    target, sizes = torch.tensor([[1, 2, 3], [2, 0, 0], [0, 0, 0]]), torch.tensor([[3], [1], [0]])
    found = head.loss(prediction, target, sizes)["ctc"] * head.weight(target, sizes)
    whole = losses.ctc(prediction["logits"], prediction["frames"], target, sizes[:, 0])
    torch.testing.assert_close(found, whole)


# ---- declarations --------------------------------------------------------------------------------------------------


def learnt(texts: list[str], declared: Text) -> TextContract:
    values = [np.frombuffer(text.encode(), np.uint8) for text in texts]
    return declared.fit(iter(values), missing=0, role="output")


def test_the_decoder_follows_from_the_inputs() -> None:
    """Sound has the order of its words; anything else is looked at as a whole."""
    sound, other = {"a": Audio()}, {"a": Audio(), "b": Category()}
    assert Text().beside(sound, {}).decoder == "ctc"
    assert Text().beside(other, {}).decoder == "attention"
    assert Text(decoder="lm").beside(sound, {}).decoder == "lm"


TEXTS = ["Ein Hund läuft über den Strand.", "Zwei Hunde laufen.", "A DOG runs", "  two  spaces ", "", "日本 と 😀"] * 40


@pytest.mark.parametrize("units", ["characters", "bytes", "bpe"])
def test_what_is_written_is_the_text_again(units: str) -> None:
    """Case, spaces and letters outside the alphabet's own come back as they were."""
    declared = Text(units=units, decoder="attention")  # type: ignore[arg-type]
    contract = learnt(TEXTS, declared)
    assert contract.units == units
    for text in TEXTS[:6]:
        symbols = declared.transform(np.frombuffer(text.encode(), np.uint8), contract)
        assert symbols.size == 0 or (symbols.min() >= 1 and symbols.max() < contract.num_symbols)
        decoded = {"symbols": np.append(symbols, [0, 0]), "length": np.array(len(symbols)), "score": np.array(-0.5)}
        answer = declared.write(decoded, contract)
        assert answer.value == text
        assert answer.confidence == pytest.approx(math.exp(-0.5 / (len(symbols) + 1)))


def test_the_end_of_a_text_that_was_cut_was_never_chosen() -> None:
    declared = Text(units="characters", decoder="attention")
    contract = learnt(TEXTS, declared)
    symbols = declared.transform(np.frombuffer(b"Zwei", np.uint8), contract)
    cut = declared.write({"symbols": symbols, "length": np.array(4), "score": np.array(-0.5)}, contract)
    assert (cut.value, cut.confidence) == ("Zwei", pytest.approx(math.exp(-0.5 / 4)))


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=30))
def test_bpe_writes_any_text(text: str) -> None:
    import unicodedata

    text = unicodedata.normalize("NFC", text.encode("utf-8", "ignore").decode())
    declared = Text(units="bpe", decoder="attention")
    contract = CONTRACT
    symbols = declared.transform(np.frombuffer(text.encode(), np.uint8), contract)
    decoded = {"symbols": symbols, "length": np.array(len(symbols)), "score": np.array(0.0)}
    assert declared.write(decoded, contract).value == text


CONTRACT = learnt(TEXTS, Text(units="bpe", decoder="attention"))


def test_few_texts_are_written_in_characters() -> None:
    assert learnt(["yes", "no"], Text(decoder="attention")).units == "characters"
    assert learnt(TEXTS, Text(decoder="ctc")).units == "characters"


def test_a_language_model_is_scored_by_likelihood() -> None:
    """Nothing need be written to say how probable a text is."""
    names = [metric.name for metric in Text().metrics(learnt(TEXTS, Text(decoder="lm")))]
    assert names[0] == "bits_per_byte"
    assert all(metric.of_term for metric in Text().metrics(learnt(TEXTS, Text(decoder="lm"))))


# ---- layers they share ---------------------------------------------------------------------------------------------


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    """Drawn from bytes, so the share is a multiple of 1/256, and what is left is scaled by exactly that."""
    from endwise.nn.blocks import Dropout

    torch.manual_seed(0)
    layer, ones = Dropout(0.3), torch.ones(400, 501)
    dropped = layer(ones)
    share = float((dropped == 0).float().mean())
    assert share == pytest.approx(77 / 256, abs=0.005)
    assert float(dropped.mean()) == pytest.approx(1, abs=0.01)
    assert dropped.max() == pytest.approx(256 / 179)
    assert not torch.equal(layer(ones), dropped)
    torch.manual_seed(0)
    assert torch.equal(layer(ones), dropped)
    assert torch.equal(layer.eval()(ones), ones)


def test_dropout_passes_the_gradient_of_what_it_kept() -> None:
    from endwise.nn.blocks import Dropout

    x = torch.ones(7, 9, requires_grad=True)
    out = Dropout(0.5)(x)
    out.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, out.detach())


# ---- a model that writes -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Two words in, two words out, learnt by heart."""
    words = {"red": "rot", "green": "grün", "blue": "blau", "sea": "Meer"}
    rows = [{"en": f"{a} {b}", "de": f"{words[a]} {words[b]}"} for a in words for b in words] * 4
    recipe = Recipe(
        data=rows,
        inputs={"en": "text"},
        outputs={"de": {"type": "text", "decoder": "attention"}, "long": {"type": "number", "column": "n"}},
        train={"size": "tiny", "steps": 150, "batch_size": 16, "learning_rate": 0.004},
    )
    for row in rows:
        row["n"] = len(row["en"])
    return fit(recipe, out=tmp_path_factory.mktemp("writer") / "run")


def test_a_small_language_is_learnt(writer: Model) -> None:
    assert writer.predict({"en": "green sea"})["de"] == "grün Meer"
    assert writer.predict(["red blue", "sea sea"])[1]["de"] == "Meer Meer"


def test_drawing_at_temperature_zero_is_greedy_and_a_seed_draws_the_same(writer: Model) -> None:
    assert {draw["de"] for draw in writer.sample({"en": "red red"}, count=3, temperature=0)} == {"rot rot"}
    one = [draw["de"] for draw in writer.sample({"en": "red sea"}, count=8, temperature=3.0, seed=1)]
    assert one == [draw["de"] for draw in writer.sample({"en": "red sea"}, count=8, temperature=3.0, seed=1)]
    assert len(set(one)) > 1
    assert {draw["de"] for draw in writer.sample({"en": "red sea"}, count=8, top_p=1e-6)} == {"rot Meer"}
    assert len({draw["long"] for draw in writer.sample({"en": "red sea"}, count=3)}) == 1


def test_draws_that_make_no_sense_are_refused(writer: Model) -> None:
    from endwise.errors import EndwiseError

    for wrong in ({"count": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 2.0}):
        with pytest.raises(EndwiseError, match=next(iter(wrong))):
            writer.sample({"en": "red sea"}, **wrong)  # type: ignore[arg-type]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), top_p=st.floats(0.05, 1.0))
def test_only_the_most_probable_symbols_are_drawn(seed: int, top_p: float) -> None:
    from endwise.nn.decoder import drawn

    torch.manual_seed(seed)
    log_p = torch.randn(1, 6).log_softmax(-1)
    p, order = log_p[0].exp().sort(descending=True)
    enough = int((p.cumsum(0) < top_p - 1e-6).sum()) + 1
    chance = torch.Generator().manual_seed(seed)
    for _ in range(20):
        assert int(drawn(log_p, 1.0, top_p, chance)) in order[: enough + 1].tolist()


def test_a_text_that_is_written_is_many_decisions_and_a_batch_has_fewer_rows() -> None:
    from endwise.plan import auto_batch_size

    assert [auto_batch_size(rows, symbols=15) for rows in (100, 3_000, 29_000, 1_000_000)] == [8, 32, 32, 64]
    assert [auto_batch_size(29_000, symbols=count) for count in (60, 250, 5_000)] == [32, 8, 4]
    assert auto_batch_size(29_000) == 128
