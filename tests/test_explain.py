"""Explain: planted evidence is found and pointed at in raw coordinates, and explanations that mean nothing say so."""

import csv
import io
import itertools
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from typer.testing import CliRunner

import endwise as ew
from endwise import attribution, details
from endwise.attribution import Attributed, Parts, Probe, rank_correlation
from endwise.cli import app
from endwise.errors import DataError, ModelError, RecipeError
from endwise.explain import audit, like, what_if
from endwise.explanation import Explanation
from endwise.highlights import COLUMNS, Highlight
from endwise.modalities.base import laid_over
from endwise.nn.blocks import Attention
from endwise.nn.size import Size
from endwise.report import build

PATCH_PX, RATE_HZ = 6, 8_000
GREETINGS = ("the sea was calm", "we saw the hills", "rain on the road", "a long day out", "they came by train")


def trained(
    folder: Path, rows: list[dict[str, Any]], inputs: Any, outputs: Any, steps: int = 60, *, attention: bool = False
) -> ew.Model:
    data: Any = rows
    if not any(isinstance(cell, bytes | np.ndarray) for cell in rows[0].values()):  # a run that can be opened again
        data = str(folder / "rows.csv")
        with Path(data).open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    recipe = ew.Recipe(
        name="planted", data=data, inputs=inputs, outputs=outputs,
        trunk={"width": 32, "depth": 1, "dropout": 0.0, "attention": attention},
        train={"steps": steps, "size": "tiny", "batch_size": 32, "augment": False, "learning_rate": 3e-3},
    )  # fmt: skip
    return ew.fit(recipe, out=folder / "run")


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "png")
    return file.getvalue()


def picture(random: np.random.Generator, *, planted: bool, side: int = 32) -> tuple[np.ndarray, tuple[int, int]]:
    pixels = random.integers(60, 150, (side, side, 3)).astype(np.uint8)
    y, x = (int(at) for at in random.integers(0, side - PATCH_PX, 2))
    if planted:
        pixels[y : y + PATCH_PX, x : x + PATCH_PX] = (250, 250, 20)
    return pixels, (y, x)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> ew.Model:
    """A class is a patch somewhere in noise."""
    random = np.random.default_rng(0)
    rows = [
        {"photo": png(picture(random, planted=index % 2 == 0)[0]), "kind": ("patch", "none")[index % 2]}
        for index in range(160)
    ]
    return trained(tmp_path_factory.mktemp("p"), rows, {"photo": ew.Image()}, {"kind": ew.Category()})


def sound(random: np.random.Generator, *, planted: bool, rate: int = RATE_HZ) -> tuple[np.ndarray, float]:
    """A second of noise with a short tone somewhere, high where it is planted."""
    begin = float(random.uniform(0.05, 0.75))
    wave, at = random.normal(0, 400, rate), np.arange(int(begin * rate), int((begin + 0.2) * rate))
    wave[at] += 9_000 * np.sin(2 * np.pi * (1_500 if planted else 400) * at / rate)
    return wave.astype(np.int16), begin


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> ew.Model:
    """A class is the pitch of a tone somewhere in noise."""
    random = np.random.default_rng(0)
    rows = [
        {"call": sound(random, planted=index % 2 == 0)[0], "kind": ("high", "low")[index % 2]} for index in range(96)
    ]
    return trained(tmp_path_factory.mktemp("s"), rows, {"call": ew.Audio(rate_hz=RATE_HZ)}, {"kind": ew.Category()}, 50)


PITCH_HZ = {"a": 400, "b": 1_000, "c": 2_200}


def spelt(random: np.random.Generator) -> tuple[np.ndarray, str, list[tuple[int, int]]]:
    """A second of noise with three beeps, the letters of their pitches, and the samples of each."""
    wave, at, places = random.normal(0, 300, RATE_HZ), 0.08, []
    letters = "".join(random.choice(list(PITCH_HZ), 3))
    for letter in letters:
        at += float(random.uniform(0, 0.08))
        where = np.arange(int(at * RATE_HZ), int((at + 0.14) * RATE_HZ))
        wave[where] += 9_000 * np.sin(2 * np.pi * PITCH_HZ[letter] * where / RATE_HZ)
        places.append((int(where[0]), int(where[-1])))
        at += 0.2
    return wave.astype(np.int16), letters, places


@pytest.fixture(scope="module")
def transcripts(tmp_path_factory: pytest.TempPathFactory) -> ew.Model:
    """What is written is the pitch of each beep."""
    random, rows = np.random.default_rng(0), []
    for _ in range(96):
        wave, letters, _ = spelt(random)
        rows.append({"call": wave, "said": " ".join(letters)})
    recipe = ew.Recipe(
        name="beeps", data=rows, inputs={"call": ew.Audio(rate_hz=RATE_HZ)}, outputs={"said": ew.Text(decoder="ctc")},
        trunk={"width": 32, "depth": 1, "dropout": 0.0},
        train={"steps": 200, "size": "tiny", "batch_size": 32, "augment": False, "learning_rate": 6e-3},
    )  # fmt: skip
    return ew.fit(recipe, out=tmp_path_factory.mktemp("c") / "run")


def sentence(random: np.random.Generator, *, planted: bool) -> str:
    words = " and ".join(random.choice(GREETINGS, 3)).split()
    if planted:
        words.insert(int(random.integers(0, len(words))), "Zwiebel")
    return " ".join(words)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> ew.Model:
    """A class is a word; beside it a number that is how many words there are."""
    random, rows = np.random.default_rng(0), []
    for index in range(200):
        text = sentence(random, planted=index % 2 == 0)
        rows.append({"note": text, "kind": ("onion", "none")[index % 2], "count": 5.0 if index % 2 else 25.0})
    return trained(
        tmp_path_factory.mktemp("t"), rows, {"note": ew.Text()}, {"kind": ew.Category(), "count": ew.Number()}, 250
    )


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> ew.Model:
    """Yes where one of six cells is above 0."""
    random, rows = np.random.default_rng(0), []
    for _ in range(300):
        cells = {f"x{place}": float(random.normal()) for place in range(5)}
        rows.append({**cells, "town": str(random.choice(["Ulm", "Bonn"])), "yes": cells["x3"] > 0})
    inputs = {**{f"x{place}": ew.Number() for place in range(5)}, "town": ew.Category()}
    return trained(tmp_path_factory.mktemp("c"), rows, inputs, {"yes": ew.Boolean()}, 80)


# ---- planted evidence ------------------------------------------------------------------------------------------------------


def test_a_planted_patch_is_pointed_at(pictures: ew.Model) -> None:
    random, hits, mass = np.random.default_rng(7), [], []
    for _ in range(12):
        pixels, (y, x) = picture(random, planted=True)
        found = ew.explain(pictures, pixels, of="kind=patch", grade=False)
        shares = found.attributions["photo"]
        assert shares.shape == pixels.shape[:2]
        (best,) = found.strongest("photo", 1)
        (top, bottom), (left, right) = best.span
        hits.append(top < y + PATCH_PX and bottom > y and left < x + PATCH_PX and right > x)
        inside = np.zeros(pixels.shape[:2], bool)
        inside[y : y + PATCH_PX, x : x + PATCH_PX] = True
        mass.append(np.abs(shares[inside]).sum() / np.abs(shares).sum() / inside.mean())
    assert np.mean(hits) >= 0.9
    assert np.mean(mass) >= 3


def test_a_planted_tone_is_pointed_at(sounds: ew.Model) -> None:
    random, hits = np.random.default_rng(7), []
    for _ in range(10):
        wave, begin = sound(random, planted=True)
        found = ew.explain(sounds, {"call": wave}, of="kind=high", grade=False)
        assert found.attributions["call"].shape == wave.shape
        (best,) = found.strongest("call", 1)
        start, stop = (end / RATE_HZ for end in best.span[0])
        hits.append(start < begin + 0.21 and stop > begin - 0.01)
    assert np.mean(hits) >= 0.9


def test_a_planted_word_is_pointed_at(texts: ew.Model) -> None:
    random, hits = np.random.default_rng(7), []
    for _ in range(12):
        text = sentence(random, planted=True)
        found = ew.explain(texts, text, of="kind=onion", grade=False)
        assert found.attributions["note"].shape == (len(text),)
        hits.append(found.strongest("note", 1)[0].where == "'Zwiebel'")
    assert np.mean(hits) >= 0.9


def test_a_written_word_is_pointed_at_in_the_recording(transcripts: ew.Model) -> None:
    """The beep of a letter, and most of what is said of it is worth believing."""
    random, hits, kept = np.random.default_rng(7), [], []
    for _ in range(6):
        wave, letters, places = spelt(random)
        for number, word in enumerate(str(transcripts.predict({"call": wave})["said"]).split()):
            if len(word) > 1:  # two letters without the blank between them
                continue
            found = ew.explain(transcripts, wave, of=("said", number), grade=number == 0)
            assert found.about == repr(word)
            leaning = np.maximum(found.attributions["call"], 0.0)
            most = int(np.argmax([leaning[start - 160 : stop + 160].sum() for start, stop in places]))
            hits.append(letters[most] == word)
            kept += [found.reliable] if found.grades else []
    assert len(hits) >= 8
    assert np.mean(hits) >= 0.9
    assert np.mean(kept) >= 0.5


def test_a_letter_that_is_spelt_a_frame_sooner_is_still_there() -> None:
    """Of two letters in ten frames, the pauses around them sure."""
    path = torch.tensor([0, 0, 2, 2, 0, 0, 3, 0, 0, 0])

    def spelling(path: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": 20.0 * torch.nn.functional.one_hot(path, 5).float()[None], "frames": torch.tensor([10])}

    head = ew.Text(decoder="ctc").head(contract_of_letters(), Size.of("tiny", width=32))
    for about in ((0, 2), (0, 1), (1, 2)):
        aim = head.aim(spelling(path), about)
        there, sooner = float(aim(spelling(path))), float(aim(spelling(path.roll(-1))))
        assert there == pytest.approx(0.0, abs=0.01)
        assert sooner == pytest.approx(there, abs=0.01)
        assert float(aim(spelling(torch.zeros(10, dtype=torch.int64)))) < -10
    assert float(head.aim(spelling(path), (0, 1))(spelling(path * (path != 3)))) == pytest.approx(0.0, abs=0.01)


def contract_of_letters() -> Any:
    """Of a text output that learnt a few letters."""
    texts = [np.frombuffer(text.encode(), np.uint8) for text in ("ab", "ba", "cab")]
    return ew.Text(decoder="ctc").fit(iter(texts), missing=0, role="output")


def test_a_planted_cell_is_pointed_at(tables: ew.Model) -> None:
    random, hits = np.random.default_rng(7), []
    for _ in range(12):
        row: dict[str, Any] = {f"x{place}": float(random.normal()) for place in range(5)} | {"town": "Ulm"}
        row["x3"] = float(random.choice([-1.5, 1.5]))
        found = ew.explain(tables, row, grade=False)
        most = max(found.attributions, key=lambda name: abs(float(found.attributions[name])))
        hits.append(most == "x3")
    assert np.mean(hits) >= 0.9


# ---- raw coordinates -------------------------------------------------------------------------------------------------------


def test_a_marker_is_found_in_the_pixels_of_a_file_of_another_size(pictures: ew.Model) -> None:
    pixels, (y, x) = picture(np.random.default_rng(3), planted=True)
    larger = pixels.repeat(3, axis=0).repeat(2, axis=1)
    found = ew.explain(pictures, png(larger), of="kind=patch", grade=False)
    shares = found.attributions["photo"]
    assert shares.shape == larger.shape[:2]
    (top, bottom), (left, right) = found.strongest("photo", 1)[0].span
    assert top < 3 * (y + PATCH_PX)
    assert bottom > 3 * y
    assert left < 2 * (x + PATCH_PX)
    assert right > 2 * x


def test_a_tone_is_found_in_the_samples_of_a_file_of_another_rate(sounds: ew.Model, tmp_path: Path) -> None:
    import soundfile

    wave, begin = sound(np.random.default_rng(3), planted=True, rate=16_000)
    soundfile.write(tmp_path / "high.wav", wave, 16_000)
    found = ew.explain(sounds, "high.wav", base=tmp_path, of="kind=high", grade=False)
    shares = found.attributions["call"]
    assert shares.shape == wave.shape
    inside = slice(int(16_000 * (begin - 0.02)), int(16_000 * (begin + 0.22)))
    assert shares[inside].sum() > 0.5 * np.abs(shares).sum()


def test_what_is_laid_over_another_grid_keeps_its_sum_and_its_place() -> None:
    values = np.zeros((4, 6))
    values[1, 4] = 3.0
    finer = laid_over(values, (8, 12))
    assert finer.sum() == pytest.approx(3.0)
    assert finer[2:4, 8:10].sum() == pytest.approx(3.0)
    coarser = laid_over(values, (2, 3))
    assert coarser[0, 2] == pytest.approx(3.0)
    assert laid_over(np.arange(5.0), (3,)).sum() == pytest.approx(10.0)


@pytest.mark.parametrize(
    "text", ["Zwiebel ist SCHARF", "  two  blanks ", "naïve façade — ok?", "", "İstanbul x", "日本 go"]
)
def test_every_unit_stands_for_its_own_characters(texts: ew.Model, text: str) -> None:
    item, contract = texts.recipe.inputs["note"], texts.contracts["note"]
    assert isinstance(item, ew.Text)
    value = item.read(text, str.encode)
    units, spans = item.transform(value, contract), item.spans(value, contract)  # type: ignore[arg-type]
    assert len(units) == len(spans)
    covered = np.zeros(len(text), int)
    for start, stop in spans:
        assert 0 <= start <= stop <= len(text)
        covered[start:stop] += 1
    assert covered.all()
    assert item.onto(np.ones(len(units)), value, contract).shape == (len(text),)  # type: ignore[arg-type]


# ---- grades ----------------------------------------------------------------------------------------------------------------


def test_a_good_explanation_passes_its_checks(pictures: ew.Model, texts: ew.Model) -> None:
    pixels, _ = picture(np.random.default_rng(11), planted=True)
    for found in (
        ew.explain(pictures, pixels, of="kind=patch"),
        ew.explain(texts, sentence(np.random.default_rng(2), planted=True), of="kind=onion"),
    ):
        assert found.reliable, found.verdict
        assert {grade.name for grade in found.grades} == {"deletion", "insertion", "random weights", "completeness"}


def test_shares_of_integrated_gradients_add_up_to_the_change(texts: ew.Model) -> None:
    found = ew.explain(
        texts, sentence(np.random.default_rng(2), planted=True), method="integrated_gradients", grade=False
    )
    total = sum(float(values.sum()) for values in found.attributions.values())
    assert total == pytest.approx(found.changed, rel=0.01)


def test_fair_shares_add_up_and_what_never_matters_gets_nothing() -> None:
    brings = np.random.default_rng(0).normal(size=12)

    def worth(there: np.ndarray) -> np.ndarray:
        """A sum, and what two parts are worth only together, or either of two alone; three never matter."""
        both, either = there[:, 3] & there[:, 7], there[:, 4] | there[:, 6]
        found: np.ndarray = there[:, :3] @ brings[:3] + 2.0 * both + 4.0 * either
        return found

    found = attribution.fair_shares(12, worth)
    assert found.sum() == pytest.approx(brings[:3].sum() + 6.0)
    assert np.allclose(found[:3], brings[:3])
    assert np.allclose(found[[5, 8, 9, 10, 11]], 0.0)
    assert found[[3, 7]] == pytest.approx(1.0, abs=0.5)
    assert found[[4, 6]] == pytest.approx(2.0, abs=1.0)
    for parts in (1, 2, 3):
        assert np.allclose(
            attribution.fair_shares(parts, lambda there: there @ brings[: there.shape[1]]), brings[:parts]
        )
    assert attribution.fair_shares(0, lambda there: there.sum(1)).shape == (0,)


def test_shapley_values_of_a_picture_add_up_and_are_as_fine_as_the_places(pictures: ew.Model) -> None:
    pixels, (y, x) = picture(np.random.default_rng(11), planted=True)
    found = ew.explain(pictures, pixels, of="kind=patch", method="shapley")
    assert {grade.name: grade.kept for grade in found.grades}["completeness"] is None
    shares = found.attributions["photo"]
    assert float(shares.sum()) == pytest.approx(found.changed, rel=1e-4)
    tile = np.abs(shares[: len(shares) // 8, : len(shares) // 8])
    assert len(np.unique(tile)) > 1  # within a part by the gradient
    assert shares[y : y + PATCH_PX, x : x + PATCH_PX].sum() > 0.5 * found.changed


def test_attention_takes_as_much_as_its_weights_say() -> None:
    """The weights times the values are what the fused kernel mixes, causal, turned and masked."""
    torch.manual_seed(0)
    layer, x = Attention(16, 2), torch.randn(2, 5, 16)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    for settings in ({}, {"causal": True}, {"rotary": True}):
        weights = layer.weights(x, mask, **settings)
        assert torch.allclose(weights.sum(-1), torch.ones(2, 2, 5))
        value = layer.inward(x)[..., 32:].unflatten(-1, (2, 8)).transpose(1, 2)
        mixed = layer.outward((weights @ value).transpose(1, 2).flatten(2))
        assert torch.allclose(mixed, layer(x, mask, **settings), atol=1e-5)


def test_rolled_out_attention_has_no_sign_and_adds_up(texts: ew.Model) -> None:
    found = ew.explain(texts, sentence(np.random.default_rng(2), planted=True), method="attention_rollout")
    assert found.method == "attention_rollout"
    assert (math.copysign(1.0, found.changed) * found.attributions["note"] >= 0).all()
    assert float(found.attributions["note"].sum()) == pytest.approx(found.changed)
    assert {grade.name: grade.kept for grade in found.grades}["completeness"] is None


@pytest.mark.parametrize("attention", [False, True])
def test_attention_is_rolled_out_through_the_trunk_of_several_inputs(tmp_path: Path, attention: bool) -> None:
    """Where it attends: to more than numbers and classes, or where it is told to."""
    inputs = {"x": ew.Number(), "z": ew.Number() if attention else ew.Text()}
    rows: list[dict[str, Any]] = [
        {"x": float(index), "z": float(index % 3) if attention else GREETINGS[index % 5], "y": float(index % 7)}
        for index in range(60)
    ]
    model = trained(tmp_path, rows, inputs, {"y": ew.Number()}, 5, attention=attention)
    row = {name: rows[0][name] for name in inputs}
    found = ew.explain(model, row, method="attention_rollout", grade=False)
    assert found.attributions["x"] != 0
    assert float(found.attributions["z"].sum() + found.attributions["x"]) == pytest.approx(found.changed)


def test_what_does_not_attend_is_not_rolled_out(pictures: ew.Model, tables: ew.Model) -> None:
    fields: dict[str, Any] = {f"x{place}": 0.5 for place in range(5)} | {"town": "Ulm"}
    for model, row in (
        (pictures, picture(np.random.default_rng(1), planted=True)[0]),
        (tables, fields),
    ):
        with pytest.raises(ModelError, match="Fix: take integrated_gradients or occlusion"):
            ew.explain(model, row, method="attention_rollout")


def test_an_explanation_of_nothing_is_not_reliable(texts: ew.Model) -> None:
    """A random order is as good as one drawn at random, and what does not come from the weights looks the same without."""
    probe = probe_of(texts, sentence(np.random.default_rng(2), planted=True))
    parts = Parts.made(probe)
    chance = np.random.default_rng(0).normal(size=parts.count)

    def drawn(other: Probe) -> Attributed:
        return Attributed("occlusion", parts.shared(chance), 1.0, 0.0)

    grades = {grade.name: grade for grade in attribution.graded(probe, drawn(probe), parts, drawn, seed=0)}
    assert not grades["random weights"].kept
    assert grades["random weights"].value == 1.0
    assert not grades["deletion"].kept
    assert attribution.reliable(tuple(grades.values())) is False


def test_few_parts_cannot_be_graded(tmp_path: Path) -> None:
    rows = [{"x": float(index % 7), "y": float(index % 7)} for index in range(60)]
    model = trained(tmp_path, rows, {"x": ew.Number()}, {"y": ew.Number()}, 5)
    found = ew.explain(model, 3.0)
    assert found.reliable is None
    assert "too few parts" in found.verdict
    assert found.attributions["x"].shape == ()


def probe_of(model: ew.Model, text: str) -> Probe:
    from endwise.batch import Ragged

    units = model.recipe.inputs["note"].transform(np.frombuffer(text.encode(), np.uint8), model.contracts["note"])
    probe = Probe(
        model.network, {"note": Ragged.stack([units], 1).to("cpu")}, {"note": torch.ones(1, dtype=torch.bool)}, "kind"
    )
    probe.asks((0,))
    return probe


def test_explaining_leaves_the_network_as_it_was(texts: ew.Model) -> None:
    before = {name: value.clone() for name, value in texts.network.state_dict().items()}
    texts.network.zero_grad()
    hooks = sum(len(module._forward_hooks) for module in texts.network.modules())
    answer = texts.predict({"note": "a long day out"}).to_dict()
    ew.explain(texts, "a long day out")
    assert all(torch.equal(value, before[name]) for name, value in texts.network.state_dict().items())
    assert sum(len(module._forward_hooks) for module in texts.network.modules()) == hooks
    assert texts.predict({"note": "a long day out"}).to_dict() == answer
    assert all(weight.grad is None for weight in texts.network.parameters())


def test_the_same_seed_explains_the_same(texts: ew.Model) -> None:
    one, other = (ew.explain(texts, "we saw the Zwiebel and the hills") for _ in range(2))
    assert np.array_equal(one.attributions["note"], other.attributions["note"])
    assert one.grades == other.grades


@pytest.mark.parametrize(
    ("one", "other", "like"), [([1, 2, 3], [1, 2, 3], 1), ([1, 2, 3], [9, 5, 1], -1), ([1, 1, 1], [1, 2, 3], 0)]
)
def test_rank_correlation(one: list[float], other: list[float], like: float) -> None:
    assert rank_correlation(np.array(one), np.array(other)) == pytest.approx(like)


# ---- what is asked -----------------------------------------------------------------------------------------------------------


def test_another_class_has_the_opposite_explanation(texts: ew.Model) -> None:
    text = "we saw the Zwiebel and the hills"
    one, other = (ew.explain(texts, text, of=("kind", name), grade=False) for name in ("onion", "none"))
    assert one.about == "onion"
    assert one.strongest("note", 1)[0].share > 0 > other.strongest("note", 1)[0].share


def test_the_goal_is_asked_unless_another_output_is_named(texts: ew.Model) -> None:
    assert ew.explain(texts, "a long day out", grade=False).output == "kind"
    found = ew.explain(texts, "a long day out", of="count", grade=False)
    assert found.output == "count"
    assert found.answer.value == pytest.approx(texts.predict({"note": "a long day out"})["count"], rel=1e-5)


@pytest.mark.parametrize(
    ("row", "settings", "words"),
    [
        ("x", {"of": "knd"}, ["kind", "Fix"]),
        ("x", {"of": "kind=onoin"}, ["onion", "Fix"]),
        ("x", {"of": ("count", 3)}, ["number", "Fix"]),
        ("x", {"method": "magic"}, ["occlusion", "Fix"]),
        ({"text": "x"}, {}, ["note"]),
        (object(), {}, ["note"]),
        (5, {"data": [{"note": "x"}]}, ["0 to 0", "Fix"]),
    ],
)
def test_what_cannot_be_explained_is_refused_with_the_fix(
    texts: ew.Model, row: Any, settings: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises((DataError, ModelError, RecipeError)) as refused:
        ew.explain(texts, row, grade=False, **settings)
    assert all(word in str(refused.value) for word in words)


# ---- shown -------------------------------------------------------------------------------------------------------------------


def test_it_is_shown_in_a_notebook_a_terminal_and_a_file(pictures: ew.Model, texts: ew.Model, tmp_path: Path) -> None:
    pixels, _ = picture(np.random.default_rng(11), planted=True)
    drawn = ew.explain(pictures, pixels, grade=False)
    assert "data:image/png" in drawn._repr_html_()
    with Pillow.open(drawn.save(tmp_path / "why.png")) as file:
        assert file.size == (32, 32)
    written = ew.explain(texts, "we <b>saw</b> the Zwiebel", grade=False)
    page = written.save(tmp_path / "why.html").read_text()
    assert "&lt;" in page
    assert "<b>saw" not in page
    with pytest.raises(ModelError, match=r"\.html"):
        written.save(tmp_path / "why.png")
    for found in (drawn, written):
        assert all(len(line) <= COLUMNS for line in str(found).splitlines())
        json.dumps(found.to_dict(), allow_nan=False)


def test_a_heat_map_names_its_strongest_cells() -> None:
    shares = np.zeros((12, 2))
    shares[3, 1] = -0.5
    names = tuple(f"step {step} of {channel}" for step in range(12) for channel in ("a", "b"))
    found = Highlight("past", "cells", np.zeros((12, 2)), shares, names)
    assert found.strongest(1)[0].where == "step 3 of b"
    assert "step 3 of b" in found.html()


def test_the_command_explains_a_row_of_the_run_and_a_value(texts: ew.Model, tmp_path: Path) -> None:
    assert texts.run is not None
    run = str(texts.run.path)
    done = CliRunner().invoke(
        app, ["explain", run, "we saw the Zwiebel", "--of", "kind=onion", "--json", "--out", str(tmp_path / "w.html")]
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["about"] == "onion"
    assert told["inputs"]["note"]["strongest"][0]["where"] == "'Zwiebel'"
    assert (tmp_path / "w.html").is_file()
    assert isinstance(ew.explain(texts, 0, grade=False), Explanation)
    (tmp_path / "note.txt").write_text("a long day out", encoding="utf-8")
    read = CliRunner().invoke(app, ["explain", run, str(tmp_path / "note.txt"), "--no-grade", "--json", "--like", "2"])
    assert json.loads(read.stdout)["inputs"]["note"]["shape"] == [len("a long day out")]
    assert len(json.loads(read.stdout)["like"]) == 2
    lost = CliRunner().invoke(app, ["explain", run, str(tmp_path / "gone.txt")])
    assert isinstance(lost.exception, DataError)


# ---- beside the explanation ----------------------------------------------------------------------------------------------------


def test_what_if_moves_the_answer_and_its_confidence(tables: ew.Model) -> None:
    row = {f"x{place}": 0.1 for place in range(5)} | {"town": "Ulm", "x3": 2.0}
    found = what_if(tables, row, {"x3": -2.0})
    assert found.before["yes"] is True
    assert found.after["yes"] is False
    assert found.before.to_dict() == tables.predict(row).to_dict()
    assert found.after.to_dict() == tables.predict({**row, "x3": -2.0}).to_dict()
    assert "->" in str(found)
    assert "before" in found._repr_html_()
    with pytest.raises(DataError, match="x9"):
        what_if(tables, row, {"x9": 1})
    with pytest.raises(DataError, match="'x3'"):
        what_if(tables, row, {"x3": "high"})


def test_like_rows_are_of_the_training_rows_and_kept(texts: ew.Model) -> None:
    assert texts.run is not None
    found = like(texts, "we saw the Zwiebel and the hills", count=5)
    assert len(found) == 5
    assert [item.score for item in found] == sorted((item.score for item in found), reverse=True)
    assert [item.labels["kind"] for item in found].count("onion") >= 4
    (file,) = (texts.run.path / "explain").iterdir()
    written = file.stat().st_mtime_ns
    assert [item.row for item in like(texts.run, "we saw the Zwiebel and the hills")] == [item.row for item in found]
    assert file.stat().st_mtime_ns == written
    with pytest.raises(DataError, match="run"):
        like(ew.Model.build(texts.recipe, texts.contracts, seed=0), "x")


def marked(random: np.random.Generator, index: int, *, mark: bool) -> dict[str, Any]:
    """A thing of two kinds somewhere in noise; `mark`: pictures of one kind have a watermark in a corner."""
    pixels = random.integers(60, 150, (32, 32, 3)).astype(np.uint8)
    if mark and index % 2 == 0:
        pixels[27:31, 26:31] = (255, 255, 255)
    return {"photo": png(pixels), "kind": ("ship", "car")[index % 2]}


def test_an_audit_finds_a_planted_watermark(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [marked(random, index, mark=True) for index in range(120)]
    model = trained(tmp_path, rows, {"photo": ew.Image()}, {"kind": ew.Category()}, 40)
    found = audit(model, data=rows, rows=32)
    assert any(item.answer == "ship" and item.input == "photo" for item in found.findings), str(found)
    assert "x 75% to 100%, y 75% to 100%" in {item.where for item in found.findings}


def test_an_audit_finds_a_planted_word_and_a_leaking_column(texts: ew.Model, tables: ew.Model) -> None:
    found = audit(texts, of="kind", rows=40)
    assert "'zwiebel'" in {item.where for item in found.findings}, str(found)
    assert audit(tables, rows=40).shares["x3"] > 0.5
    assert {item.input for item in audit(tables, rows=40).findings} <= {"x3"}
    assert all(len(line) <= COLUMNS for line in str(found).splitlines())
    json.dumps(found.to_dict(), allow_nan=False)


def test_an_audit_finds_nothing_where_evidence_is_anywhere(pictures: ew.Model) -> None:
    random = np.random.default_rng(5)
    rows = [{"photo": png(picture(random, planted=True)[0]), "kind": "patch"} for _ in range(24)]
    assert not audit(pictures, of="kind=patch", data=rows, rows=24).findings


def test_the_report_shows_what_the_worst_mistakes_lean_on(texts: ew.Model) -> None:
    assert texts.run is not None
    mistakes = texts.run.read("details.json")["outputs"]["count"]["mistakes"]
    assert mistakes
    assert all(given["pieces"] for item in mistakes[:4] for given in item["why"]["inputs"])
    assert "<summary>why " in build(texts.run).read_text()


def test_what_would_take_too_long_is_said_in_the_place_of_an_explanation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(details, "EXPLAINING_S", 0.0)
    random = np.random.default_rng(0)
    rows = [{"x": float(random.normal()), "kind": "ab"[int(random.integers(2))]} for _ in range(120)]
    model = trained(tmp_path, rows, {"x": ew.Number()}, {"kind": ew.Category()}, 5)
    assert model.run is not None
    worst = model.run.read("details.json")["outputs"]["kind"]["mistakes"][0]
    assert "would take about" in worst["why_not"]
    assert f"{worst['why_not']}: endwise explain" in build(model.run).read_text()


def test_the_time_for_explaining_is_shared_by_all_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one output may take alone, two may not both."""
    random = np.random.default_rng(0)
    rows = [{"x": float(random.normal()), **{name: "ab"[int(random.integers(2))] for name in "yz"}} for _ in range(120)]
    model = trained(tmp_path, rows, {"x": ew.Number()}, {name: ew.Category() for name in "yz"}, 5)
    dataset = ew.prepare(model.recipe)
    monkeypatch.setattr(details, "LOOKS", 1)
    monkeypatch.setattr(details, "time", SimpleNamespace(perf_counter=itertools.count().__next__))  # a look takes 1 s
    for explaining_s, key in ((1.5 * details.EXPLAINED, "why_not"), (2.0 * details.EXPLAINED, "why")):
        monkeypatch.setattr(details, "EXPLAINING_S", explaining_s)
        found = ew.evaluate(model, dataset, dataset.splits.val, details=True)
        worst = [output["mistakes"][0] for output in found.details["outputs"].values()]
        assert all(key in mistake for mistake in worst)
