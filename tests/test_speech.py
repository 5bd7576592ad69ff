"""Sound as an answer: units, levels and waves; recordings as values; one network from samples to samples."""

import csv
import json
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import endwise as ew
from endwise import metrics
from endwise.cli import app
from endwise.errors import BadValue
from endwise.modalities.audio import Audio
from endwise.modalities.audio.head import Codec
from endwise.modalities.audio.retrieval import Nearest, central
from endwise.modalities.audio.units import FRAMES, Alphabet, segments, units_of
from endwise.modalities.base import OUTPUT_ROLE, Answer
from endwise.nn.size import Size
from endwise.nn.vocoder import levels, mel_cepstral_distance, sound, warped
from endwise.recording import Recording
from endwise.runner import differences

RATE = 8_000
SIZE = Size.of("tiny")


def no_file(path: str) -> bytes:
    raise AssertionError(path)


def vowel(hz: float, seconds: float = 0.4, formant: float = 700.0) -> np.ndarray:
    """A voice-like tone: harmonics of `hz` around a formant."""
    time = np.arange(int(seconds * RATE)) / RATE
    found = np.zeros(len(time))
    for harmonic in range(1, int(3_800 / hz)):
        found += np.exp(-(((harmonic * hz - formant) / 400) ** 2)) * np.sin(2 * np.pi * harmonic * hz * time)
    return np.asarray(0.5 * found / np.abs(found).max())


def stored(samples: np.ndarray) -> np.ndarray:
    return np.rint(samples * 32_767).astype(np.int16)


# ---- sound from levels ---------------------------------------------------------------------------------------------------


def test_sound_made_from_a_recordings_levels_is_near_the_recording():
    one, other = vowel(120), vowel(120, formant=2_000)
    again = sound(levels(one, RATE, 64), RATE)
    assert mel_cepstral_distance(one, again, RATE) < 0.35 * mel_cepstral_distance(one, other, RATE)
    assert len(again) == -(-len(one) // 80) * 80
    assert np.abs(again).max() <= 1


def test_the_same_levels_make_the_same_sound_and_silence_stays_silent():
    found = levels(vowel(100), RATE, 40)
    assert np.array_equal(sound(found, RATE), sound(found, RATE))
    assert np.abs(sound(levels(np.zeros(800), RATE, 40), RATE)).max() < 1 / 32_768


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_the_warped_distance_is_that_of_the_best_path(rows, columns, seed):
    apart = np.random.default_rng(seed).random((rows, columns))
    cost = np.full((rows + 1, columns + 1), np.inf)
    steps = np.zeros((rows + 1, columns + 1))
    cost[0, 0] = 0
    for i in range(rows):
        for j in range(columns):
            before = min(((i, j), (i, j + 1), (i + 1, j)), key=lambda place: cost[place])
            cost[i + 1, j + 1], steps[i + 1, j + 1] = cost[before] + apart[i, j], steps[before] + 1
    assert warped(apart) == pytest.approx(cost[-1, -1] / steps[-1, -1])


def test_a_slower_recording_is_near_and_another_vowel_is_far():
    one = np.concatenate([vowel(120, 0.3), vowel(120, 0.3, formant=2_000)])
    slower = np.concatenate([vowel(120, 0.5), vowel(120, 0.5, formant=2_000)])
    turned = np.concatenate([vowel(120, 0.3, formant=2_000), vowel(120, 0.3)])
    assert mel_cepstral_distance(one, one, RATE) == pytest.approx(0, abs=1e-3)
    assert 3 * mel_cepstral_distance(one, slower, RATE) < mel_cepstral_distance(one, turned, RATE)


def test_near_silence_is_no_answer_however_long_it_lasts():
    """The mean along the alignment would prefer six seconds of hiss to speech that says something else."""
    truth, other = (vowel(120, 0.6, formant).astype(np.float32) for formant in (500, 700))
    hiss = 2e-4 * np.random.default_rng(0).standard_normal(6 * RATE).astype(np.float32)
    silences = [mel_cepstral_distance(truth, hiss[:samples], RATE) for samples in (len(truth), 2 * RATE, 6 * RATE)]
    distances = [0.0, mel_cepstral_distance(truth, other, RATE), *silences]
    assert distances == sorted(distances)
    assert mel_cepstral_distance(truth, truth[:400], RATE) < mel_cepstral_distance(truth, hiss[:400], RATE)


# ---- units ---------------------------------------------------------------------------------------------------------------


def contract_of(recordings: list[np.ndarray]):
    return Audio(rate_hz=RATE, mels=40).fit(iter(recordings), missing=0, role=OUTPUT_ROLE)


def test_the_alphabet_is_the_same_every_time_and_longer_than_one_letter():
    recordings = [stored(vowel(hz, formant=500 + 10 * hz)) for hz in (90, 120, 150, 180)]
    assert contract_of(recordings) == contract_of(recordings)
    assert 2 <= len(contract_of(recordings).units) <= 40 // 12 + 1


def test_an_alphabet_of_many_recordings_keeps_a_bounded_sample(monkeypatch):
    monkeypatch.setattr("endwise.modalities.audio.units.MOST_SEGMENTS", 30)
    alphabet = Alphabet(RATE, 40)
    for hz in range(80, 200, 4):
        alphabet.add(vowel(hz))
    assert alphabet.longest == units_of(int(0.4 * RATE), RATE) == 10
    assert alphabet._held <= 2 * 30 + 10
    assert len(alphabet.centres()) == 2


def test_the_network_hears_the_levels_that_the_numpy_side_hears_whatever_the_padding():
    recordings = [stored(vowel(hz, 0.2 + 0.013 * hz / 10)) for hz in (90, 120, 150)]
    codec = Codec(contract_of(recordings), SIZE)
    sizes = torch.tensor([len(recording) for recording in recordings])
    padded = torch.full((3, int(sizes.max()) + 777), 999, dtype=torch.int16)
    for row, recording in enumerate(recordings):
        padded[row, : len(recording)] = torch.from_numpy(recording)
    heard, spelt, counts = codec.spelt(padded, sizes)
    for row, recording in enumerate(recordings):
        wanted = segments(recording / 32_768, RATE, 40)
        count = int(counts[row])
        assert count == len(wanted) == units_of(len(recording), RATE)
        assert np.allclose(heard[row, : count * FRAMES].numpy(), wanted.reshape(-1, 40), atol=2e-3)
        alone = codec.spelt(torch.from_numpy(recording)[None], sizes[row : row + 1])[1]
        assert torch.equal(alone[0], spelt[row, :count])


# ---- recordings as values ------------------------------------------------------------------------------------------------


def test_a_recording_is_a_value_that_can_be_saved_and_read_again(tmp_path):
    one = Recording.of(stored(vowel(110)), RATE)
    audio = Audio(rate_hz=RATE)
    path = one.save(tmp_path / "a.wav")
    for raw in (one, one.to_json(), path.read_bytes()):
        assert np.array_equal(audio.read(raw, no_file), stored(vowel(110)))
    assert one == Recording.of(stored(vowel(110)), RATE) != Recording.of(stored(vowel(120)), RATE)
    assert len({one, Recording.of(stored(vowel(110)), RATE)}) == 1
    assert repr(one) == "Recording(0.40 s, 8000 Hz)"
    assert one._repr_html_().startswith("<audio controls")
    with pytest.raises(BadValue, match="base64"):
        audio.read("data:audio/wav;base64,!!!", no_file)


def test_answers_of_sound_are_json_and_compared_by_ear():
    samples = vowel(100).astype(np.float32)
    noise = np.random.default_rng(0).normal(size=len(samples)).astype(np.float32)
    level = float(np.sqrt(np.mean(samples**2)))

    def row(wave_of: np.ndarray) -> dict[str, dict[str, object]]:
        return {"reply": Answer(Recording(wave_of, RATE)).to_dict()}

    json.dumps(row(samples))
    assert not differences([row(samples)], [row(samples + 0.005 * level * noise)])
    assert differences([row(samples)], [row(samples + 0.1 * level * noise)])
    assert differences([row(samples)], [row(samples[:-1])])


def test_distances_and_lengths_are_metrics_with_units():
    truth, near, far = (Recording.of(stored(vowel(hz, s)), RATE) for hz, s in ((100, 0.4), (102, 0.5), (190, 0.9)))
    for metric, unit in ((metrics.mcd(), "dB"), (metrics.duration_error(), "s")):
        assert metric.unit == unit
        values = [metrics.value(metric, [truth], [Answer(answer)]) for answer in (truth, near, far)]
        assert values == sorted(values)
        assert values[0] == pytest.approx(0, abs=1e-3)
    assert metrics.value(metrics.mcd(), [truth], [Answer(Recording(np.zeros(0, np.float32), RATE))]) > 0


def test_the_baselines_answer_with_training_recordings():
    answers = [Recording.of(stored(vowel(hz)), RATE) for hz in (100, 110, 190)]
    nearest = Nearest().fit(np.array([[0.0, 1.0], [5.0, 1.0], [9.0, 1.0]]), answers)
    assert nearest.predict(np.array([[4.0, 1.0], [8.0, 1.0]])) == [answers[1], answers[2]]
    assert central([answers[0]] * 4 + [answers[2]]) == answers[0]


# ---- one network from samples to samples -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> ew.Model:
    """Low vowels are answered by a high one, and the other way round."""
    folder = tmp_path_factory.mktemp("speech")
    chosen = np.random.default_rng(0)
    with (folder / "pairs.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["heard", "reply"])
        for row in range(48):
            low = row % 2 == 0
            formants = (500.0, 2_200.0) if low else (2_200.0, 500.0)
            for side, formant in zip(("heard", "reply"), formants, strict=True):
                hz = chosen.uniform(100, 110) if side == "reply" else chosen.uniform(140, 190)
                Recording.of(stored(vowel(hz, 0.2, formant)), RATE).save(folder / f"{row}{side}.wav")
            out.writerow([f"{row}heard.wav", f"{row}reply.wav"])
    recipe = ew.Recipe(
        name="vowels",
        data=str(folder / "pairs.csv"),
        inputs={"heard": Audio(rate_hz=RATE)},
        outputs={"reply": Audio(rate_hz=RATE, mels=40)},
        train={"size": "tiny", "steps": 120, "precision": "fp32", "batch_size": 8, "learning_rate": 3e-3},
    )
    return ew.fit(recipe, out=folder / "run")


def test_it_answers_with_the_other_vowel(trained):
    for formant, other in ((500.0, 2_200.0), (2_200.0, 500.0)):
        reply = trained.predict({"heard": Recording.of(stored(vowel(150, 0.2, formant)), RATE)})["reply"]
        right, wrong = (mel_cepstral_distance(reply.samples, vowel(105, 0.2, f), RATE) for f in (other, formant))
        assert right < wrong
        assert 0.1 < reply.seconds < 0.4


def test_what_was_cut_off_says_so(trained):
    answer = trained.predict({"heard": (RATE, vowel(150, 0.2, 500.0))}).answers["reply"]
    assert answer.detail["seconds"] == answer.value.seconds
    contract = trained.contracts["reply"]
    decoded = {"levels": np.full((8, 40), -5.0, np.float32), "units": 2, "score": -1.0, "ended": False}
    assert trained.recipe.outputs["reply"].write(decoded, contract).detail["ended"] is False


def test_predict_writes_sound_files_when_it_is_told_where(trained, tmp_path):
    heard = Recording.of(stored(vowel(150, 0.2)), RATE).save(tmp_path / "in.wav")
    run = str(trained.run.path)
    done = CliRunner().invoke(app, ["predict", run, str(heard), str(heard), "--out", str(tmp_path / "o"), "--json"])
    assert done.exit_code == 0, done.output
    paths = [Path(json.loads(line)["outputs"]["reply"]["value"]) for line in done.output.splitlines()]
    assert [path.name for path in paths] == ["0001-reply.wav", "0002-reply.wav"]
    with wave.open(str(paths[0])) as file:
        assert file.getframerate() == RATE
    told = CliRunner().invoke(app, ["predict", run, str(heard)])
    assert "reply=Recording(" in told.output


def test_the_report_plays_source_target_and_answer(trained):
    page = (trained.run.path / "report.html").read_text() if (trained.run.path / "report.html").exists() else ""
    if not page:
        from endwise.report import build

        page = build(trained.run).read_text()
    assert page.count("<audio") % 3 == 0
    for label in ("heard", "wrong", "right"):
        assert f'aria-label="{label}"' in page
