"""Bad input of texts and recordings: refused with the fix or counted in a line, never cut and never a NaN."""

import io
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from endwise.data.check import check
from endwise.errors import BadValue, DataError
from endwise.evaluate import evaluate_run
from endwise.modalities.audio import Audio
from endwise.modalities.base import Answer, Contract, Modality
from endwise.modalities.text import Text, TextContract
from endwise.model import Model
from endwise.recipe import Recipe
from endwise.train import dry_run, fit

RATE = 8_000
TEXTS = ("a cold day", "", "the sea is calm", "rain and more rain")


def no_fetch(path: str) -> bytes:
    raise AssertionError(path)


def fitted(declared: Modality, values: Any, role: Any) -> Any:
    return declared.fit((declared.read(value, no_fetch) for value in values), missing=0, role=role)


def model_of(inputs: dict[str, Modality], outputs: dict[str, Modality], values: dict[str, Any]) -> Model:
    recipe = Recipe(
        data=[{"in memory": True}],
        inputs=inputs,
        outputs=outputs,
        trunk={"width": 32, "depth": 1},
        train={"size": "tiny"},
    )
    contracts: dict[str, Contract] = {}
    for role, section in (("input", recipe.inputs), ("output", recipe.outputs)):
        for name, item in section.items():
            contracts[name] = fitted(item.beside(recipe.inputs, recipe.outputs), values[name], role)
    return Model.build(recipe, contracts, seed=0)


@cache
def writer(decoder: Any) -> Model:
    return model_of({"said": Text()}, {"told": Text(decoder=decoder)}, {"said": TEXTS, "told": TEXTS})


def noise(count: int) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(count) * 3_000).astype(np.int16)


def wav(samples: np.ndarray, rate: int = RATE, kind: str = "WAV") -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=kind)
    return out.getvalue()


# ---- empty texts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", ["ctc", "attention", "ctc+attention", "lm"])
def test_an_empty_text_is_read_written_and_learnt_from(decoder: str) -> None:
    model = writer(decoder)
    head, declared, contract = model.network.head("told"), model.recipe.outputs["told"], model.contracts["told"]
    assert math.isfinite(model.predict({"said": ""}).answers["told"].confidence or math.nan)
    target = declared.transform(declared.read("", no_fetch), contract)
    assert target.shape == (0,)
    units = model.recipe.inputs["said"].transform(np.zeros(0, np.uint8), model.contracts["said"])
    tokens = model.network.encoder("said")(torch.from_numpy(units)[None], torch.tensor([[len(units)]]))
    terms = head.loss(head(tokens), torch.from_numpy(target)[None], torch.tensor([[0]]))
    assert all(torch.isfinite(value).all() and (value > 0).all() for value in terms.values())
    assert float(head.weight(torch.from_numpy(target)[None], torch.tensor([[0]]))) == 1


# ---- texts beyond a limit ------------------------------------------------------------------------------------------------


def test_a_text_beyond_the_limit_is_refused_when_asked_as_when_learnt() -> None:
    inputs, outputs = {"said": Text(max_chars=20)}, {"told": Text(decoder="attention")}
    model = model_of(inputs, outputs, {"said": TEXTS, "told": TEXTS})
    assert model.predict({"said": "x" * 20})["told"] is not None
    with pytest.raises(
        DataError, match=r"said.*21 characters, more than the 20 allowed; split it into rows, or write max_chars: 21"
    ):
        model.predict({"said": "x" * 21})


def test_an_answer_that_had_to_stop_says_so_and_is_counted() -> None:
    declared = Text(decoder="attention", longest=3)
    contract = fitted(declared, ["abc", "abcabc", "b"], "output")
    symbols = np.array([1, 2, 1])
    cut, whole = (
        declared.write({"symbols": symbols, "length": np.array(length), "score": np.array(-1.0)}, contract)
        for length in (3, 2)
    )
    assert cut.detail == {"ended": False}
    assert whole.detail == {}
    assert declared.remarks(["abc", "abcabc"], [cut, whole], contract) == [
        "1 of 2 answers had not ended at longest = 3 symbols, and stop there",
        "1 of 2 right texts have more symbols than longest = 3: no answer is as long",
    ]


def test_what_is_cut_is_said_where_a_run_is_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDWISE_CACHE", str(tmp_path / "cache"))
    rows = [
        {"said": f"n{index}", "told": f"number {index}", "part": "test" if index % 4 == 0 else "train"}
        for index in range(40)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    recipe = Recipe(
        name="cut", data={"path": str(tmp_path / "rows.jsonl"), "split": "part"}, inputs={"said": Text()},
        outputs={"told": Text(decoder="attention", longest=4)}, trunk={"width": 32, "depth": 1},
        train={"steps": 2, "size": "tiny"},
    )  # fmt: skip
    fit(recipe, out=tmp_path / "run")
    notes = evaluate_run(tmp_path / "run").notes
    assert "told: 10 of 10 right texts have more symbols than longest = 4: no answer is as long" in notes


# ---- another alphabet ----------------------------------------------------------------------------------------------------


def test_letters_that_training_never_saw_are_counted_and_still_read() -> None:
    declared = Text(decoder="attention")
    contract: TextContract = fitted(declared, TEXTS, "output")
    assert declared.remarks(["a day", "день", "ďay"], [Answer("a")] * 3, contract) == [
        "2 of 3 right texts have letters that training never saw: 'ď', 'д', 'е', 'н', 'ь'"
    ]
    model = writer("attention")
    assert isinstance(model.predict({"said": "день"})["told"], str)  # bytes are known, if nothing else


def test_check_names_letters_that_only_held_out_rows_have() -> None:
    rows = [{"said": f"cold {index}", "kind": "ab"[index % 2], "part": "train"} for index in range(20)]
    rows += [{"said": text, "kind": "a", "part": "test"} for text in ("cold 1", "холод 2", "cöld 3")]
    report = check(Recipe(data={"path": rows, "split": "part"}, inputs={"said": "text"}, outputs={"kind": "category"}))
    (found,) = report.of("odd")
    assert (found.level, found.field, found.rows) == ("warning", "said", (21, 22))
    assert "2 held-out texts have letters that no training text has: 'ö', 'д'" in found.message
    assert report.ok


# ---- recordings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "audio", [Audio(rate_hz=RATE), Audio(rate_hz=RATE, frontend="waveform"), Audio(rate_hz=RATE, chunk_s=0.32)]
)
def test_silence_is_heard_without_a_nan(audio: Audio) -> None:
    outputs: dict[str, Modality] = {"words": Text(decoder="ctc")}
    model = model_of(
        {"call": audio}, outputs, {"call": [np.zeros(4_000, np.int16), noise(4_000)], "words": ["ab", "b"]}
    )
    assert math.isfinite(model.predict({"call": np.zeros(4_000, np.int16)}).answers["words"].confidence or math.nan)
    model.network.train()
    torch.manual_seed(0)
    head, values = model.network.head("words"), torch.zeros(2, 4_000, dtype=torch.int16)
    tokens = model.network.encoder("call")(values, torch.full((2, 1), 4_000))
    loss = head.loss(head(tokens), torch.tensor([[1, 2], [2, 0]]), torch.tensor([[2], [1]]))["ctc"].sum()
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert all(torch.isfinite(weight.grad).all() for weight in model.network.parameters() if weight.grad is not None)


def test_check_counts_silent_recordings() -> None:
    rows = [{"call": (RATE, noise(800 + index)), "kind": "ab"[index % 2]} for index in range(20)]
    rows[3]["call"] = rows[7]["call"] = (RATE, np.zeros(900, np.int16))
    rows[7]["call"] = (RATE, np.zeros(901, np.int16))
    report = check(Recipe(data=rows, inputs={"call": {"type": "audio", "rate_hz": RATE}}, outputs={"kind": "category"}))
    (found,) = report.of("odd")
    assert set(found.rows) == {3, 7}
    assert "2 recordings hold no sound at all" in found.message


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_two_hours_are_refused_by_the_header(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is decoded: a compressed file of a few megabytes would become gigabytes."""
    data = wav(np.zeros(2 * 3_600 * 1_000, np.int16), 1_000, kind)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(soundfile.SoundFile, "read", refuse)
    with pytest.raises(BadValue, match=r"lasts 7200.00 s, longer than max_seconds = 60: cut it into rows"):
        Audio(rate_hz=RATE).read(data, no_fetch)


# ---- which decoder, and why ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"type": "audio", "rate_hz": RATE}, "written by ctc (auto: every input is sound"),
        ({"type": "text"}, "written by attention (auto: not every input is sound"),
    ],
)
def test_check_and_a_dry_run_say_which_decoder_auto_took_and_why(
    said: dict[str, Any], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDWISE_CACHE", str(tmp_path))
    given = [(RATE, noise(900 + index)) if said["type"] == "audio" else f"n {index}" for index in range(20)]
    rows = [{"said": value, "told": "ab"[index % 2]} for index, value in enumerate(given)]
    recipe = Recipe(data=rows, inputs={"said": said}, outputs={"told": "text"}, train={"size": "tiny", "steps": 2})
    assert told in check(recipe).fields["told"].summary
    _, facts = dry_run(recipe)
    assert told in facts["fields"]["told"]["summary"]  # what the report shows, too
    chosen = Text(decoder="attention")
    assert "auto" not in chosen.summary(fitted(chosen, TEXTS, "output"))
