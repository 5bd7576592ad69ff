"""Streams: what is said while the input comes in is what would be said of the whole, and is never taken back."""

import re
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from endwise.cli.answer import print_stream
from endwise.errors import DataError, ModelError, RecipeError
from endwise.modalities.audio import Audio
from endwise.modalities.base import Modality, build
from endwise.modalities.text import Text
from endwise.model import Model
from endwise.nn.interface import Tokens
from endwise.nn.streaming import average_lag
from endwise.recipe import Recipe
from endwise.rows import file_fetcher

RATE = 8_000
WORDS = ("one two", "three", "zero nine", "four")


def speech(count: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    level = np.interp(np.arange(count), np.linspace(0, max(count, 1), 9), random.uniform(0.02, 0.5, 9))
    return (random.standard_normal(count) * 9_000 * level).astype(np.int16)


def model_of(inputs: dict[str, Modality], outputs: dict[str, Modality], values: dict[str, list[Any]]) -> Model:
    """An untrained network whose answers are long and depend on everything: weights far from their small beginnings."""
    recipe = Recipe(
        data=[{"in memory": True}], inputs=inputs, outputs=outputs,
        trunk={"width": 32, "depth": 2, "dropout": 0.0}, train={"size": "tiny"},
    )  # fmt: skip
    contracts = {}
    for role, section in (("input", recipe.inputs), ("output", recipe.outputs)):
        for name, item in section.items():
            read = [item.read(value, lambda path: b"") for value in values[name]]
            contracts[name] = item.beside(recipe.inputs, recipe.outputs).fit(iter(read), missing=0, role=role)  # type: ignore[arg-type]
    model = Model.build(recipe, contracts, seed=0)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.mul_(1.5) if weight.ndim > 1 else weight.add_(0.3 * torch.randn_like(weight))
        for name in outputs:
            outward = getattr(model.network.head(name), "outward", None)
            if outward is not None:
                outward.weight.mul_(20)
                outward.bias.zero_()
    return model


@cache
def listener(frontend: str = "spectrogram", seconds: float = 0.9) -> Model:
    audio = Audio(rate_hz=RATE, chunk_s=0.16, frontend=frontend)  # type: ignore[arg-type]
    sounds = [speech(int(seconds * RATE))]
    return model_of({"call": audio}, {"words": Text()}, {"call": sounds, "words": list(WORDS)})


def pieces(value: Any, cuts: list[float]) -> list[Any]:
    places = [0, *sorted(int(cut * len(value)) for cut in cuts), len(value)]
    return [value[start:end] for start, end in pairwise(places)]


def streamed(model: Model, name: str, parts: list[Any]) -> Any:
    """What a stream says in the end; on the way, that nothing said is taken back."""
    stream, said = model.stream(), ""
    for part in parts:
        now = stream.feed(part)[name]
        assert now.startswith(said)
        said = now
    last = stream.finish()
    assert last[name].startswith(said)
    return last


def tokens_of(model: Model, name: str, values: np.ndarray, step: int | None) -> Tokens:
    """The tokens of a whole in pieces of `step` chunks, or in one."""
    encoder = model.network.encoder(name)
    assert encoder.chunk is not None
    size = len(values) if step is None else step * encoder.chunk
    past, parts = None, []
    with torch.inference_mode():
        for start in range(0, len(values), size):
            part = torch.from_numpy(values[start : start + size])[None]
            tokens, past = encoder.feed(part, torch.tensor([[part.shape[1]]]), past)
            parts.append(tokens)
    return Tokens(torch.cat([part.values for part in parts], 1), torch.cat([part.mask for part in parts], 1))


# ---- prefix consistency ------------------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 14_000), st.lists(st.floats(0, 1), max_size=6), st.integers(0, 5))
def test_sound_in_any_pieces_is_answered_as_the_whole(count: int, cuts: list[float], seed: int) -> None:
    model, sound = listener(), speech(count, seed)
    last, whole = streamed(model, "words", pieces(sound, cuts)), model.predict({"call": sound}).answers["words"]
    assert last["words"] == whole.value
    assert last.answers["words"].confidence == pytest.approx(whole.confidence, rel=1e-3)
    assert last.answers["words"].detail == pytest.approx(whole.detail, abs=1e-5)
    assert last.heard == pytest.approx(count / RATE)


@pytest.mark.parametrize("frontend", ["spectrogram", "waveform"])
@pytest.mark.parametrize("seconds", [0.9, 5.0])
def test_tokens_of_pieces_are_those_of_the_whole(frontend: str, seconds: float) -> None:
    model, sound = listener(frontend, seconds), speech(int(13.7 * RATE))  # longer than attention looks back
    whole = tokens_of(model, "call", sound, None)
    for step in (1, 7):
        found = tokens_of(model, "call", sound, step)
        torch.testing.assert_close(found.values, whole.values, rtol=0, atol=1e-4)
        assert torch.equal(found.mask, whole.mask)


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 20_000), st.integers(0, 5), st.floats(0.0, 30_000))
def test_what_comes_later_changes_no_token(place: int, seed: int, loud: float) -> None:
    """Two recordings that are alike up to a place have the same tokens in all chunks before it."""
    model, sound = listener(), speech(20_000, seed)
    other = sound.copy()
    other[place:] = (loud * np.random.default_rng(seed).uniform(-1, 1, 20_000 - place)).astype(np.int16)
    chunk = model.network.encoder("call").chunk
    assert chunk is not None
    same = place // chunk * chunk // 160
    one, two = (tokens_of(model, "call", item, None).values for item in (sound, other))
    torch.testing.assert_close(one[:, :same], two[:, :same], rtol=0, atol=1e-5)


def test_a_gradient_reaches_the_past_and_nothing_after_the_chunk() -> None:
    model = listener()
    wave = torch.from_numpy(speech(8_000) / np.float32(32_768))[None].requires_grad_()
    encoder = model.network.encoder("call")
    assert encoder.chunk == 1_280
    encoder(wave, torch.tensor([[8_000]])).values[0, 10].square().sum().backward()  # a token of the second chunk
    assert wave.grad is not None
    assert (wave.grad[0, :2_560] != 0).float().mean() > 0.9
    assert (wave.grad[0, 2_560:] == 0).all()


def test_a_row_alone_equals_the_row_in_a_batch() -> None:
    model, rows = listener(), [{"call": speech(count, count)} for count in (9_000, 1, 300, 5_121)]
    for row, together in zip(rows, model.predict(rows), strict=True):
        alone = model.predict(row)
        assert alone["words"] == together["words"]
        assert alone.answers["words"].detail == pytest.approx(together.answers["words"].detail, abs=1e-5)


def test_a_feed_keeps_a_bounded_past() -> None:
    model, sizes = listener(), []
    encoder, past = model.network.encoder("call"), None
    with torch.inference_mode():
        for _ in range(90):
            _, past = encoder.feed(torch.zeros(1, 1_280, dtype=torch.int16), torch.tensor([[1_280]]), past)
            sizes.append(past.blocks[0].keys[0].shape[2])
    assert sizes[-1] == sizes[-20] == max(sizes)
    assert max(sizes) * 160 <= 10.2 * RATE


# ---- what goes in --------------------------------------------------------------------------------------------------------


def test_another_rate_is_resampled_as_it_comes() -> None:
    model = listener()
    sound = speech(20_000)
    sound[::2] = sound[1::2]
    last = streamed(model, "words", [(16_000, part) for part in pieces(sound, [0.1, 0.11, 0.7])])
    assert last.heard == pytest.approx(1.25)
    assert last["words"] == model.predict({"call": (16_000, sound)})["words"]


@pytest.mark.parametrize(
    ("fed", "reason"),
    [
        ([np.array([0.1, 3.0], np.float32)], "peaks at 3"),
        ([np.array([0.1, np.nan], np.float32)], "not finite"),
        (["call.wav"], "samples or .rate, samples."),
        ([(RATE, speech(80)), (16_000, speech(80))], "at 16000 Hz"),
        ([], "no samples"),
    ],
)
def test_a_piece_that_cannot_be_heard_is_refused_with_the_reason(fed: list[Any], reason: str) -> None:
    stream = listener().stream()

    def told() -> None:
        for part in fed:
            stream.feed(part)
        stream.finish()

    with pytest.raises(DataError, match=reason):
        told()


def test_a_stream_that_has_finished_takes_no_more() -> None:
    stream = listener().stream()
    stream.feed(speech(100))
    stream.finish()
    with pytest.raises(DataError, match=re.escape("model.stream()")):
        stream.feed(speech(100))


def test_before_the_first_chunk_there_is_nothing_to_say() -> None:
    assert listener().stream().feed(speech(10))["words"] == ""


# ---- what cannot stream --------------------------------------------------------------------------------------------------


def test_a_recipe_without_a_stream_is_refused_with_the_fix() -> None:
    audio, text = Audio(rate_hz=RATE), Text()
    sounds = [speech(RATE)]
    plain = model_of({"call": audio}, {"words": text}, {"call": sounds, "words": list(WORDS)})
    with pytest.raises(ModelError, match=re.escape("train with call: {type: audio, chunk_s: 0.32}")):
        plain.stream()
    two = model_of(
        {"call": audio, "note": Text()}, {"words": Text(decoder="ctc")},
        {"call": sounds, "note": list(WORDS), "words": list(WORDS)},
    )  # fmt: skip
    with pytest.raises(ModelError, match="one input"):
        two.stream()


def test_chunks_beside_another_input_are_refused() -> None:
    inputs = {"call": Audio(rate_hz=RATE, chunk_s=0.32), "note": Text()}
    with pytest.raises(RecipeError, match="remove chunk_s, or the other inputs"):
        inputs["call"].beside(inputs, {})


@pytest.mark.parametrize("seconds", [0.0, 0.05, 20.0, -0.32])
def test_a_chunk_is_whole_tokens(seconds: float) -> None:
    with pytest.raises(RecipeError, match=r"0\.32 suits speech"):
        build(Audio, {"chunk_s": seconds}, "inputs.call")


# ---- the lag -------------------------------------------------------------------------------------------------------------


def test_the_lag_is_that_of_the_paper() -> None:
    """Wait-3 over six words in and six out lags three behind; one who waits for everything lags all of it."""
    when = torch.tensor([[3.0, 4, 5, 6, 6, 6], [6.0] * 6, [0.0] * 6])
    written = torch.tensor([[True] * 6, [True] * 6, [False] * 6])
    found = average_lag(when, written, torch.full((3,), 6.0))
    assert found[:2].tolist() == [3.0, 6.0]
    assert torch.isnan(found[2])


def test_a_metric_beside_the_others_tells_the_lag() -> None:
    model = listener()
    metric = model.recipe.outputs["words"].metrics(model.contracts["words"])[-1]
    assert (metric.name, metric.direction, metric.unit) == ("lag_s", "min", "s")
    answers = [model.predict({"call": speech(count)}).answers["words"] for count in (9_000, 4_000)]
    lags = [answer.detail["lag_s"] for answer in answers]
    assert metric.combine(metric.rows(["", ""], answers), np.ones(2)) == pytest.approx(np.mean(lags))
    assert all(0 < lag < 0.4 for lag in lags)


def test_a_file_is_heard_as_if_it_came_in(tmp_path: Path) -> None:
    model, sound = listener(), speech(7_000)
    soundfile.write(tmp_path / "call.wav", sound, RATE)
    partials = list(model.stream().of("call.wav", file_fetcher(tmp_path)))
    assert [round(part.heard, 3) for part in partials[:3]] == [0.1, 0.2, 0.3]
    assert partials[-1]["words"] == model.predict({"call": sound})["words"]
    assert "words: " in str(partials[-1])
    assert set(partials[-1].to_dict()) == {"heard", "unit", "compute_s", "outputs"}
    with pytest.raises(DataError, match="missing"):
        list(model.stream().of("missing.wav", file_fetcher(tmp_path)))


def test_a_streamed_file_may_be_longer_than_a_row_and_is_decoded_as_it_comes(tmp_path: Path) -> None:
    model, sound = listener(), speech(RATE * 3)
    soundfile.write(tmp_path / "call.wav", sound, RATE, subtype="PCM_16")
    short = model.recipe.inputs["call"]
    found = list(replace(short, max_seconds=1.0).pieces(str(tmp_path / "call.wav"), file_fetcher(".")))
    assert [rate for rate, _ in found] == [RATE] * 30
    np.testing.assert_array_equal(np.concatenate([samples[:, 0] for _, samples in found]), sound)
    whole = (tmp_path / "call.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cut short"):
        list(model.stream().of(str(tmp_path / "cut.wav"), file_fetcher(".")))


def test_what_is_streamed_is_named_as_the_model_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = listener()
    soundfile.write(tmp_path / "call.wav", speech(RATE), RATE, subtype="PCM_16")
    with pytest.raises(DataError, match=r"did you mean 'call'|one of"):
        print_stream(model, [], [("cal", str(tmp_path / "call.wav"))], as_json=False)
    print_stream(model, [], [("call", str(tmp_path / "call.wav"))], as_json=False)
    told = capsys.readouterr().out
    print_stream(model, [str(tmp_path / "call.wav")], [], as_json=False)
    assert [line.split("ms")[1] for line in capsys.readouterr().out.splitlines()] == [
        line.split("ms")[1] for line in told.splitlines()
    ]
