"""Audio: what a recording becomes on its way to the network, and what the network promises about it."""

import base64
import io
import re
import wave

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from endwise.batch import Ragged
from endwise.errors import BadValue, RecipeError
from endwise.modalities.audio import Audio, AudioContract, decode, level_db
from endwise.modalities.base import build
from endwise.nn.mel import Framing, mel_filters
from endwise.nn.size import Size
from endwise.nn.sound import LearntMel, LogMel, Subsample, hide, real, respeed

RATE = 8_000
SIZE = Size.of("tiny", depth=1)


def tone(seconds: float, *, hz: float = 440.0, rate: int = RATE, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def speechlike(seconds: float, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    count = round(seconds * RATE)
    envelope = np.interp(np.arange(count), np.linspace(0, count, 9), random.uniform(0.02, 0.5, 9))
    return (random.standard_normal(count) * 0.3 * envelope * 32_768).clip(-32_768, 32_767).astype(np.int16)


def file(samples: np.ndarray, rate: int, form: str, subtype: str | None = None) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=form, subtype=subtype)
    return out.getvalue()


def no_fetch(path: str) -> bytes:
    raise AssertionError(f"nothing should be fetched, not {path}")


def contract_of(seconds: float = 0.5, audio: Audio | None = None) -> AudioContract:
    audio = audio or Audio(rate_hz=RATE)
    return audio.fit([np.zeros(round(seconds * audio.rate_hz), np.int16)], missing=0, role="input")


def encoder_of(audio: Audio, seconds: float = 0.5) -> torch.nn.Module:
    torch.manual_seed(0)
    return audio.encoder(contract_of(seconds, audio), SIZE)


def tensors(rows: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    ragged = Ragged.stack(rows, axes=1).to("cpu")
    return ragged.values, ragged.sizes


# ---- the declaration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "fix"),
    [
        ("rate_hz", 16, "give hertz, not kilohertz"),
        ("rate_hz", 16.0, "rate_hz"),
        ("max_seconds", 0, "rows of their own"),
        ("mels", 4, "64 suits speech"),
        ("speed", 0.9, "10 % slower"),
        ("channel", "rigth", "did you mean 'right'"),
        ("frontend", "spectrum", "did you mean 'spectrogram'"),
    ],
)
def test_a_wrong_field_is_refused_with_the_fix(field: str, value: object, fix: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(fix)) as refused:
        build(Audio, {field: value}, "inputs.call")
    assert f"Audio.{field}" in str(refused.value)


def test_the_contract_survives_json_and_says_what_the_recordings_are_like() -> None:
    audio = Audio(rate_hz=RATE)
    values = [speechlike(0.5), speechlike(1.5), np.zeros(RATE, np.int16)]
    contract = audio.fit(iter(values), missing=2, role="input")
    assert AudioContract.from_dict(contract.to_dict()) == contract
    assert (contract.count, contract.missing, contract.silent) == (3, 2, 1)
    assert (contract.seconds_min, contract.seconds_median, contract.seconds_max) == (0.5, 1.0, 1.5)
    assert audio.summary(contract).startswith("8000 Hz, 0.50 to 1.50 s (median 1.00 s)")
    assert "1 silent" in audio.summary(contract)


# ---- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["WAV", "FLAC"])
def test_sixteen_bit_files_at_our_rate_are_stored_exactly(form: str) -> None:
    samples = speechlike(0.4)
    assert np.array_equal(Audio(rate_hz=RATE).read(file(samples, RATE, form, "PCM_16"), no_fetch), samples)


@pytest.mark.parametrize(
    ("form", "subtype"),
    [("WAV", "FLOAT"), ("WAV", "PCM_24"), ("WAV", "PCM_U8"), ("WAV", "ULAW"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"),
     ("MP3", "MPEG_LAYER_III")],
)  # fmt: skip
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_other_files_and_rates_keep_their_duration_pitch_and_level(form: str, subtype: str, rate: int) -> None:
    found = Audio(rate_hz=RATE).read(file(tone(1.0, rate=rate), rate, form, subtype), no_fetch)
    assert found.dtype == np.int16
    assert len(found) == pytest.approx(RATE, rel=0.15)  # MP3 pads whole frames
    spectrum = np.abs(np.fft.rfft(found * np.hanning(len(found))))
    assert spectrum.argmax() * RATE / len(found) == pytest.approx(440, abs=2)
    assert level_db(found) == pytest.approx(level_db(np.rint(tone(1.0) * 32_768)), abs=1.0)


def test_a_path_is_fetched_and_a_hub_cell_is_understood() -> None:
    data = file(speechlike(0.2), RATE, "WAV")
    audio = Audio(rate_hz=RATE)
    expected = audio.read(data, no_fetch)
    assert np.array_equal(audio.read("calls/1.wav", lambda path: {"calls/1.wav": data}[path]), expected)
    assert np.array_equal(audio.read({"bytes": data, "path": "1.wav"}, no_fetch), expected)
    assert np.array_equal(audio.read({"bytes": None, "path": "1.wav"}, lambda path: data), expected)


def test_samples_in_memory_are_read_as_files_are() -> None:
    audio = Audio(rate_hz=RATE)
    samples = speechlike(0.2)
    assert np.array_equal(audio.read(samples, no_fetch), samples)
    assert np.array_equal(audio.read((RATE, samples), no_fetch), samples)
    assert np.array_equal(audio.read((samples, RATE), no_fetch), samples)
    assert np.array_equal(audio.read({"array": samples / np.float64(32_768), "sampling_rate": RATE}, no_fetch), samples)
    assert np.array_equal(audio.read((samples / 32_768).tolist(), no_fetch), samples)
    assert np.array_equal(audio.read(samples.astype(np.int32) * 65_536, no_fetch), samples)
    assert len(audio.read((2 * RATE, samples), no_fetch)) == len(samples) // 2
    assert np.array_equal(audio.read(torch.from_numpy(samples), no_fetch), samples)


def test_stereo_is_mixed_or_one_side_taken() -> None:
    left, right = speechlike(0.1, 1), speechlike(0.1, 2)
    data = file(np.stack([left, right], axis=1), RATE, "FLAC", "PCM_16")
    assert np.array_equal(Audio(rate_hz=RATE, channel="left").read(data, no_fetch), left)
    assert np.array_equal(Audio(rate_hz=RATE, channel="right").read(data, no_fetch), right)
    mixed = Audio(rate_hz=RATE).read(data, no_fetch)
    assert np.abs(mixed - (left / 2 + right / 2)).max() <= 0.5
    with pytest.raises(BadValue, match="one channel"):
        Audio(rate_hz=RATE, channel="right").read(file(left, RATE, "WAV"), no_fetch)


def test_floats_louder_than_full_scale_or_too_quiet_for_16_bits_are_scaled_not_clipped() -> None:
    audio, shape = Audio(rate_hz=RATE), tone(0.1, level=1.0)
    for gain in (3.0, 32_768.0, 1e-6):
        found = audio.read(shape * gain, no_fetch).astype(np.float64)
        assert np.abs(found / np.abs(found).max() - shape / np.abs(shape).max()).max() < 1e-4


def _cut_ogg() -> bytes:
    data = file(speechlike(2.0), RATE, "OGG", "VORBIS")
    return data[: len(data) - 100]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "empty"),
        (b"not a recording at all", "not a readable WAV, FLAC, OGG or MP3 file"),
        (file(speechlike(0.5), RATE, "WAV")[:30], "not a readable"),
        (file(speechlike(0.5), RATE, "WAV")[:-3], "cut short: it declares 8000 bytes of sound and holds 7997"),
        (file(speechlike(0.5), RATE, "FLAC")[:2000], "damaged"),
        (_cut_ogg(), "cut short: its last page is incomplete"),
        (file(tone(1.5), RATE, "MP3")[:1200], "cut short: it declares"),
        (file(np.zeros(0, np.int16), RATE, "WAV"), "no samples"),
        (file(tone(3.0), RATE, "WAV"), "lasts 3.00 s, longer than max_seconds = 2"),
        (np.zeros(0, np.float32), "no samples"),
        (np.array([0.1, np.nan], np.float32), "1 samples that are not finite"),
        (np.array([0.1, np.inf], np.float64), "not finite"),
        ([1, 2, 3], "expected floats in .-1, 1., or int16 or int32"),
        (np.zeros((2, 2, 2), np.float32), "3 axes"),
        (np.zeros((2, 800), np.float32), "transpose"),
        ([[0.1], [0.1, 0.2]], "different lengths"),
        (("fast", np.zeros(8, np.float32)), "give hertz"),
        (3.5, "got float"),
        ({"sampling_rate": RATE}, "got dict"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_the_reason(raw: object, reason: str) -> None:
    with pytest.raises(BadValue, match=reason):
        Audio(rate_hz=RATE, max_seconds=2.0).read(raw, no_fetch)


def test_a_wav_written_while_recording_is_whole() -> None:
    data = bytearray(file(speechlike(0.1), RATE, "WAV"))
    place = data.index(b"data") + 4
    data[place : place + 4] = b"\xff\xff\xff\xff"
    assert len(decode(bytes(data))[0]) == RATE // 10


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3_000), st.sampled_from([4_000, 8_000, 11_025, 22_050, 48_000]), st.integers(0, 3))
def test_reading_never_invents_sound(count: int, rate: int, seed: int) -> None:
    samples = np.random.default_rng(seed).integers(-30_000, 30_000, count).astype(np.int16)
    try:
        found = Audio(rate_hz=RATE).read((rate, samples), no_fetch)
    except BadValue as few:
        assert "too few samples" in str(few)  # noqa: PT017
        return
    assert found.dtype == np.int16
    assert found.ndim == 1
    assert abs(len(found) - count * RATE / rate) <= 1


# ---- baselines and reports ---------------------------------------------------------------------------------------------


def test_hand_features_tell_two_sounds_apart_and_take_the_shortest() -> None:
    recordings = [tone(0.3 + i / 50, hz=300 + 1_200 * (i % 2)) for i in range(8)]
    features = (
        Audio(rate_hz=RATE).hand_features().fit_transform([np.rint(r * 32_768).astype(np.int16) for r in recordings])
    )
    assert np.isfinite(features).all()
    same = np.abs(features[0, 1:] - features[2, 1:]).sum()
    assert np.abs(features[0, 1:] - features[1, 1:]).sum() > 5 * same
    shortest = Audio(rate_hz=RATE).hand_features().fit_transform([np.zeros(1, np.int16)])
    assert shortest.shape == (1, features.shape[1])
    assert np.isfinite(shortest).all()


def test_the_preview_plays_and_says_when_it_is_a_part() -> None:
    audio = Audio(rate_hz=RATE)
    samples = speechlike(0.3)
    shown = audio.preview(samples, contract_of())
    assert shown["kind"] == "audio"
    with wave.open(io.BytesIO(base64.b64decode(shown["data"].split(",")[1]))) as player:
        assert np.array_equal(np.frombuffer(player.readframes(10**6), "<i2"), samples)
    assert "note" not in shown
    assert audio.preview(np.zeros(RATE * 34, np.int16), contract_of())["note"] == "the first 10 s of 34.0 s"


# ---- frames ----------------------------------------------------------------------------------------------------------


def test_the_spectrogram_is_the_short_time_fourier_transform() -> None:
    framing, wave_ = Framing.of(16_000), torch.randn(2, 16_000)
    front = LogMel(16_000, 64)
    padded = torch.nn.functional.pad(wave_, (framing.before, framing.after))
    ours = torch.nn.functional.conv1d(padded[:, None], front.kernel, stride=framing.hop)
    ours = ours.square().unflatten(1, (2, -1)).sum(1)
    frames = padded.unfold(-1, framing.window, framing.hop) * torch.hann_window(framing.window)
    theirs = torch.fft.rfft(frames, framing.fft).abs().square().transpose(1, 2)
    assert ours.shape == theirs.shape == (2, 257, 100)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=5e-3)


@pytest.mark.parametrize(("rate", "mels"), [(4_000, 64), (8_000, 64), (8_000, 128), (16_000, 80), (44_100, 256)])
def test_no_mel_band_is_deaf(rate: int, mels: int) -> None:
    filters = mel_filters(rate, Framing.of(rate).fft, mels)
    np.testing.assert_allclose(filters.sum(axis=0), 1.0)
    centres = (filters * np.arange(len(filters))[:, None]).sum(axis=0)
    assert (np.diff(centres) > 0).all()


@pytest.mark.parametrize("front", [LogMel, LearntMel])
def test_gain_does_not_change_the_frames_and_a_tone_is_where_it_sounds(front: type[LogMel] | type[LearntMel]) -> None:
    layer, mask = front(RATE, 64), torch.ones(1, 50, dtype=torch.bool)
    wave_ = torch.from_numpy(tone(0.5, hz=1_000)) + 0.01 * torch.randn(4_000)
    loud, quiet = layer(wave_[None], mask), layer(wave_[None] * 1e-3, mask)
    torch.testing.assert_close(loud, quiet, rtol=1e-3, atol=1e-3)
    assert loud.mean().abs() < 1e-3
    from endwise.nn.mel import mel_edges

    assert mel_edges(RATE, 64)[1 + int(loud[0, 25].argmax())] == pytest.approx(1_000, rel=0.06)


def test_the_short_rule_leaves_room_for_ctc() -> None:
    short, long = encoder_of(Audio(rate_hz=RATE), 0.4), encoder_of(Audio(rate_hz=RATE), 8.0)
    assert (short.stride, long.stride) == (2, 4)
    tokens = short.eval()(torch.zeros(2, 1_600, dtype=torch.int16), torch.tensor([[1_600], [800]]))
    assert tokens.mask.sum(1).tolist() == [10, 5]
    assert tokens.grids["audio"] == ((10,), (160.0,))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.sampled_from([1, 2, 4]))
def test_subsampling_gives_every_started_stretch_a_token(lengths: list[int], stride: int) -> None:
    layer = Subsample(16, stride, 8)
    frames = torch.randn(len(lengths), max(lengths), 16) * real(torch.tensor(lengths), max(lengths))[..., None]
    tokens, mask = layer(frames, torch.tensor(lengths))
    assert mask.sum(1).tolist() == [-(-n // stride) for n in lengths]
    assert tokens.shape[:2] == mask.shape


# ---- augmentation ------------------------------------------------------------------------------------------------------


def test_changing_the_speed_cuts_nothing_off() -> None:
    wave_ = torch.ones(64, 1_000)
    sizes = torch.randint(1, 1_001, (64,))
    played, longer = respeed(wave_, sizes, most=0.1, shift=240)
    assert longer.max() <= played.shape[1]
    assert (longer >= (sizes - 1) / 1.1).all()
    assert (played.sum(1) >= (sizes - 1) / 1.1 - 2).all()
    assert (played.sum(1) <= sizes / 0.9 + 2).all()
    still, same = respeed(wave_, sizes, most=0.0, shift=0)
    assert torch.equal(same, sizes)
    assert torch.equal(still[:, :1_000], wave_ * real(sizes, 1_000))


def test_masks_hide_a_share_of_the_row_and_never_more() -> None:
    lengths = torch.tensor([10, 100, 3, 1])
    for _ in range(20):
        kept = hide(torch.ones(4, 100, 64), lengths)
        lost_time = [(kept[i, :n].sum(1) == 0).float().mean().item() for i, n in enumerate(lengths)]
        assert max(lost_time[:2]) <= 0.25
        assert (kept[1].sum(0) == 0).float().mean() <= 0.55


def test_augmentation_is_for_training_and_from_torchs_generator() -> None:
    encoder = Audio(rate_hz=RATE).encoder(contract_of(), Size.of("tiny", depth=1, dropout=0.0))
    values, sizes = tensors([speechlike(0.5), speechlike(0.3)])

    def run(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return encoder(values, sizes).pooled().detach()

    encoder.train()
    assert torch.equal(run(1), run(1))
    assert not torch.allclose(run(1), run(2), atol=1e-3)
    encoder.augment = False
    plain = run(1)
    torch.testing.assert_close(plain, run(2))
    encoder.eval()
    torch.testing.assert_close(plain, run(3))


# ---- the encoder's promises --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frontend", ["spectrogram", "waveform"])
@pytest.mark.parametrize("seconds", [0.5, 5.0])
def test_a_row_alone_equals_the_row_in_a_batch(frontend: str, seconds: float) -> None:
    encoder = encoder_of(Audio(rate_hz=RATE, frontend=frontend), seconds).eval()  # type: ignore[arg-type]
    rows = [speechlike(s, i) for i, s in enumerate([0.2137, 1.05, 0.031, 0.0001, 0.777])]
    values, sizes = tensors(rows)
    values[real(sizes[:, 0], values.shape[1]).logical_not()] = 12_345  # padding is never silence by luck
    together = encoder(values, sizes)
    for i, row in enumerate(rows):
        alone = encoder(*tensors([row]))
        count = int(alone.mask.sum())
        assert count == int(together.mask[i].sum()) >= 1
        torch.testing.assert_close(alone.values[0, :count], together.values[i, :count], rtol=0, atol=1e-4)


@pytest.mark.parametrize("frontend", ["spectrogram", "waveform"])
@pytest.mark.parametrize("training", [False, True])
def test_the_loss_reaches_every_real_sample_and_no_padding(frontend: str, training: bool) -> None:
    audio = Audio(rate_hz=RATE, frontend=frontend, mask=False, speed=0.0, shift=False)  # type: ignore[arg-type]
    encoder = encoder_of(audio).train(training)
    values, sizes = tensors([speechlike(0.3) / np.float32(32_768), speechlike(0.1) / np.float32(32_768)])
    values.requires_grad_()
    encoder(values, sizes).pooled().square().sum().backward()
    gradient = values.grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()
    there = real(sizes[:, 0], values.shape[1])
    # the first and last samples may lie under the window's zero
    assert (gradient[there] != 0).float().mean() > 0.99
    assert (gradient[~there] == 0).all()


def test_augmented_training_is_differentiable_down_to_the_samples() -> None:
    encoder = encoder_of(Audio(rate_hz=RATE)).train()
    values, sizes = tensors([speechlike(0.3) / np.float32(32_768)])
    values.requires_grad_()
    encoder(values, sizes).pooled().square().sum().backward()
    assert (values.grad != 0).float().mean() > 0.8


def test_integers_and_floats_of_the_same_sound_are_the_same() -> None:
    encoder = encoder_of(Audio(rate_hz=RATE)).eval()
    values, sizes = tensors([speechlike(0.3)])
    torch.testing.assert_close(encoder(values, sizes).values, encoder(values / 32_768, sizes).values, rtol=0, atol=1e-4)


def test_silence_and_the_blank_are_finite_in_training_and_out() -> None:
    audio = Audio(rate_hz=RATE)
    encoder = encoder_of(audio)
    values, sizes = tensors([audio.blank(contract_of()), np.zeros(900, np.int16)])
    for training in (True, False):
        tokens = encoder.train(training)(values, sizes)
        assert torch.isfinite(tokens.values).all()
        assert int(tokens.mask[0].sum()) >= 1
        encoder.zero_grad()
        tokens.values.square().sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)


@pytest.mark.parametrize("frontend", ["spectrogram", "waveform"])
def test_bf16_autocast_gives_nearly_the_same_tokens(frontend: str) -> None:
    encoder = encoder_of(Audio(rate_hz=RATE, frontend=frontend)).eval()  # type: ignore[arg-type]
    values, sizes = tensors([speechlike(0.5), speechlike(0.2)])
    exact = encoder(values, sizes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = encoder(values, sizes)
    assert (exact.values - rough.values.float())[exact.mask].abs().mean() < 0.03


@pytest.mark.filterwarnings("ignore")  # the exporter warns about itself
@pytest.mark.parametrize("frontend", ["spectrogram", "waveform"])
def test_the_exported_encoder_gives_the_same_tokens_at_any_batch_and_length(frontend: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    encoder = encoder_of(Audio(rate_hz=RATE, frontend=frontend)).eval()  # type: ignore[arg-type]

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, values: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            tokens = self.encoder(values, sizes)
            return tokens.values, tokens.mask

    graph = Graph().eval()
    example = tensors([speechlike(0.5), speechlike(0.31)])
    batch, samples = torch.export.Dim("batch"), torch.export.Dim("samples")
    program = torch.onnx.export(
        graph, example, dynamo=True, dynamic_shapes=({0: batch, 1: samples}, {0: batch}), verbose=False
    )
    out = io.BytesIO()
    program.save(out)
    session = onnxruntime.InferenceSession(out.getvalue(), providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]
    for rows in ([speechlike(0.4)], [speechlike(1.3), speechlike(0.05), speechlike(0.7)]):
        values, sizes = tensors(rows)
        tokens = encoder(values, sizes)
        found, mask = session.run(None, dict(zip(names, [values.numpy(), sizes.numpy()], strict=True)))
        assert np.array_equal(mask, tokens.mask.numpy())
        np.testing.assert_allclose(found[mask], tokens.values[tokens.mask].detach().numpy(), atol=2e-3)


def test_a_handful_of_recordings_is_learnt_by_heart() -> None:
    torch.manual_seed(0)
    encoder = Audio(rate_hz=RATE).encoder(contract_of(), Size.of("tiny", depth=1, dropout=0.0))
    encoder.augment = False
    head = torch.nn.Linear(SIZE.width, 4)
    values, sizes = tensors([speechlike(0.2, i) for i in range(4)])
    weights = [*encoder.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=3e-3)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(head(encoder(values, sizes).pooled()), torch.arange(4))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1
