"""Texts that a pretrained language model writes: filled, cached, tuned, saved and exported as everything else is."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from endwise import testing
from endwise.errors import ModelError, RecipeError
from endwise.modalities.audio import Audio
from endwise.modalities.base import OUTPUT_ROLE, build
from endwise.modalities.image import Image
from endwise.modalities.text import Text, TextContract
from endwise.model import Model
from endwise.nn.decoder import END
from endwise.nn.gpt2 import PretrainedWriter
from endwise.recipe import Recipe
from endwise.testing import Case, checks, examples
from endwise.testing.case import learn
from endwise.train import fit

transformers = pytest.importorskip("transformers")

ENDS = "<|endoftext|>"
PLACES = 40
WORDS = ("ab", "b", "Bä", "a", "", "b, b", "a ab", "baa")
TEXTS = ("one", "two words", "three", "no", "rain in march", "ice", "sun", "a b")
PROMISES = [
    pytest.param(check.name, marks=[pytest.mark.slow] if check.slow else [])
    for check in checks.CHECKS
    if OUTPUT_ROLE in check.roles
]


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 of random weights as `save_pretrained` writes it, with a byte-level tokenizer and a model card."""
    folder = tmp_path_factory.mktemp("weights") / "gpt2"
    vocabulary = {
        letter: index for index, letter in enumerate([ENDS, *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"])
    }
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(vocabulary), n_positions=PLACES, n_embd=16, n_layer=2, n_head=2, eos_token_id=0, bos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)
    for weight in model.parameters():  # some begin at zero or one, which would hide that they are not loaded
        weight.data.add_(0.1 * torch.randn_like(weight))
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE(vocabulary, [("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([ENDS])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# tiny\n")
    return folder


@pytest.fixture(scope="session")
def fluent(gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, once it has read WORDS."""
    folder = shutil.copytree(gpt2, tmp_path_factory.mktemp("weights") / "fluent")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = transformers.GPT2LMHeadModel.from_pretrained(gpt2)
    lines = [[0, *tokenizer.encode(text).ids, 0] for text in WORDS]
    longest = max(map(len, lines))
    ids = torch.tensor([line + [0] * (longest - len(line)) for line in lines])
    right = torch.tensor([line + [-100] * (longest - len(line)) for line in lines])
    optimiser = torch.optim.Adam(model.eval().parameters(), lr=1e-2)
    torch.manual_seed(0)
    for _ in range(200):
        places = torch.randint(PLACES - longest, ()) + torch.arange(longest)  # anywhere, as behind an input
        loss = model(input_ids=ids, labels=right, position_ids=places[None].expand(len(ids), -1)).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert 0.5 < float(loss.detach()) < 1  # the words it knows; which of them, nobody has told it
    model.save_pretrained(folder)
    return folder


def case_of(folder: Path, **fields: Any) -> Case:
    declared = Text(pretrained=f"hf:{folder}", **{"beams": 2, **fields})
    return Case(declared, WORDS, OUTPUT_ROLE, (Text(), TEXTS), label="text by gpt2 out")


def writer_of(model: Model) -> PretrainedWriter:
    (found,) = [part for part in model.network.modules() if isinstance(part, PretrainedWriter)]
    return found


@pytest.mark.parametrize("promise", PROMISES)
def test_a_text_by_gpt2_keeps_every_promise(gpt2: Path, promise: str) -> None:
    for check in testing.checks_of(case_of(gpt2, pretrained_rate=1e-3)):
        if check.name == promise:
            check()


def test_the_network_is_that_of_the_weights(gpt2: Path) -> None:
    network = writer_of(case_of(gpt2).model()).network
    ids = torch.tensor([[5, 80, 33, 7]])
    places = torch.arange(4)
    with torch.inference_mode():
        expected = transformers.GPT2LMHeadModel.from_pretrained(gpt2).eval()(input_ids=ids).logits
        got = network.scores(network(network.wte(ids), places[None], (places[:, None] >= places)[None, None])[0])
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_step_by_step_is_as_all_at_once(gpt2: Path) -> None:
    writer = writer_of(case_of(gpt2).model())
    tokens, mask = torch.randn(2, 3, 32), torch.tensor([[True, True, True], [True, False, False]])
    before = torch.tensor([[END, 5, 9, 40], [END, 7, 7, 1 + writer.network.end]])
    with torch.inference_mode():
        memory = writer.begin(tokens, mask)
        whole, cache = writer(before, memory), writer.empty(2, 4, tokens)
        for place in range(4):
            scores, cache = writer.step(before[:, place], torch.tensor(place), memory, cache)
            torch.testing.assert_close(scores, whole[:, place], rtol=0, atol=1e-5)
    assert (whole[..., 1 + writer.network.end] < -1e8).all()  # the end has one symbol, not two


def test_a_text_comes_back_and_what_looks_like_the_end_is_text(gpt2: Path) -> None:
    case = case_of(gpt2)
    contract: TextContract = case.contract
    for text in (*WORDS, "größer", f"a{ENDS}b"):
        symbols = case.declared.transform(case.declared.read(text, lambda path: b""), contract)
        assert 1 not in symbols
        found = {"symbols": symbols, "length": len(symbols), "score": -1.0}
        assert case.declared.write(found, contract).value == text
    assert contract.weights is not None
    assert (contract.units, contract.decoder, contract.weights["licence"]) == ("pretrained", "pretrained", "mit")
    assert "written by gpt2 of hf:" in case.declared.summary(contract)


@pytest.mark.parametrize(("way", "learns"), [("full", "transformer"), ("lora", "lora_"), ("frozen", "nothing")])
def test_what_of_it_learns_is_what_was_declared(gpt2: Path, way: Any, learns: str) -> None:
    case = case_of(gpt2, fine_tune=way)
    model = case.model()
    learning = {name for name, weight in writer_of(model).network.named_parameters() if weight.requires_grad}
    assert bool(learning) == (way != "frozen")
    assert way != "lora" or all(learns in name for name in learning)
    before = {name: value.clone() for name, value in writer_of(model).network.state_dict().items()}
    trained = case.trained(steps=4)
    moved = {
        name for name, value in writer_of(trained).network.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved <= learning
    assert bool(moved) == bool(learning)
    checks.the_loss_reaches_the_raw_input(case)  # through the frozen network too


@pytest.mark.parametrize("way", ["frozen", "lora"])
def test_what_has_learnt_to_write_is_told_what_by_what_is_new(fluent: Path, way: Any) -> None:
    case = case_of(fluent, fine_tune=way)
    batch = case.batch().to("cpu")
    losses = learn(case.model(), batch, steps=200, until=0.2)
    assert losses[0] < 4  # it knows the words: of one that knows nothing, 5.6,
    assert losses[-1] < 0.6  # and is told which: alone it comes to 0.8


def test_upper_layers_begin_first_and_learn_fastest(gpt2: Path) -> None:
    network = writer_of(case_of(gpt2, pretrained_rate=1e-3, layer_decay=0.5, unfreeze=0.6).model()).network
    marks = [(float(part.peak_rate), float(part.starts)) for part in (network.h[1], network.h[0], network.wte)]  # type: ignore[arg-type]
    assert marks == [(1e-3, pytest.approx(0.2)), (5e-4, pytest.approx(0.4)), (2.5e-4, pytest.approx(0.6))]
    top = writer_of(case_of(gpt2, fine_tune="top", top_layers=1).model()).network
    learning = {name.split(".")[1] for name, weight in top.named_parameters() if weight.requires_grad}
    assert learning == {"1", "weight", "bias"}  # the last layer, and the norm above it


def test_a_picture_and_a_prompt_are_answered(gpt2: Path) -> None:
    image = Case(Image(), examples.pictures(), "input", (Text(pretrained=f"hf:{gpt2}", fine_tune="frozen"), WORDS))
    assert isinstance(image.model().predict(image.raw_rows[0])["partner"], str)
    checks.a_row_alone_is_answered_as_in_a_batch(image)


def test_a_saved_model_needs_the_folder_no_more(gpt2: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(gpt2, tmp_path / "weights")
    case = case_of(folder, fine_tune="frozen")
    model = case.trained()
    model.save(tmp_path / "model")
    shutil.rmtree(folder)
    again = Model.load(tmp_path / "model")
    assert again.predict(case.raw_rows[0]).to_dict() == model.predict(case.raw_rows[0]).to_dict()


@pytest.mark.slow
def test_a_writer_with_adapters_is_exported(gpt2: Path) -> None:
    case = case_of(gpt2, fine_tune="lora", beams=1, longest=8)
    testing.check_export(case.trained(), case.raw_rows)


def test_a_recipe_file_takes_its_folder_from_its_own(gpt2: Path, tmp_path: Path) -> None:
    shutil.copytree(gpt2, tmp_path / "weights")
    (tmp_path / "recipe.yaml").write_text(
        "data: rows.csv\ninputs:\n  prompt: text\noutputs:\n  reply: {type: text, pretrained: 'hf:weights'}\n"
    )
    declared = Recipe.load(tmp_path).outputs["reply"]
    assert isinstance(declared, Text)
    assert declared.pretrained == f"hf:{tmp_path / 'weights'}"


def test_what_it_wrote_goes_on_to_another_stage(gpt2: Path, tmp_path: Path) -> None:
    recipe = Recipe(
        data=[{"said": one, "told": two, "kind": two[:1] or "none"} for one, two in zip(TEXTS * 3, WORDS * 3, strict=True)],
        inputs={"said": {"type": "text"}},
        outputs={"told": {"type": "text", "pretrained": f"hf:{gpt2}", "fine_tune": "frozen"}, "kind": "category"},
        stages={"tell": {"from": "said", "to": "told"}, "sort": {"from": "told", "to": "kind", "hand_off": "soft"}},
        train={"steps": 2, "size": "tiny"}, regime="joint",
    )  # fmt: skip
    model = fit(recipe, out=tmp_path / "run", score=False)
    assert isinstance(model.predict({"said": "one"})["told"], str)
    assert "mit" in repr(model)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"decoder": "attention"}, "Text.decoder"),
        ({"units": "bytes"}, "Text.units"),
        ({"label_smoothing": 0.2}, "Text.label_smoothing"),
        ({"wait": 1.0}, "Text.wait"),
    ],
)
def test_options_of_decoders_from_scratch_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build(Text, {"pretrained": "hf:x", **fields}, "outputs.told")


def test_weights_that_cannot_write_are_refused(gpt2: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(gpt2, tmp_path / "weights")
    config = json.loads((folder / "config.json").read_text())
    for changed, message in (
        ({"model_type": "bert"}, "one of gpt2"),
        ({"vocab_size": 20}, r"ids up to 257.*ids below 20"),
        ({"vocab_size": 2_000}, r"258 ids.*about 2000 ids.*of two models"),
        ({"n_positions": 2}, "at most 2"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, **changed}))
        with pytest.raises(RecipeError, match=message):
            _ = case_of(folder).contract
    for changed, message in (
        ({"eos_token_id": 50_256}, "50256.*below vocab_size = 258"),
        ({"activation_function": "relu"}, "plain GPT-2"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, **changed}))
        with pytest.raises(RecipeError, match=message):
            case_of(folder).model()
    with pytest.raises(RecipeError, match="one of bert"):
        _ = Case(Text(pretrained=f"hf:{gpt2}"), TEXTS, "input").contract
    with pytest.raises(RecipeError, match="belongs to an input"):
        Audio(pretrained="hf:x").check_role("output", "said")


def test_an_input_beyond_the_positions_is_refused_not_wrapped(gpt2: Path) -> None:
    with pytest.raises(ModelError, match=f"more than the {PLACES} positions"):
        case_of(gpt2).model().predict({"partner": "x" * 60})
