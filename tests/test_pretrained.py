"""Encoders that begin with pretrained weights: found, described, filled, tuned as declared, saved without their folder.

The weights here are random and tiny, in the very layout that real ones have; what real ones give is measured in the
recipes.
"""

import copy
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

import endwise as ew
from endwise import testing
from endwise.errors import BadValue, ModelError, RecipeError, SetupError
from endwise.modalities.audio import Audio
from endwise.modalities.image import Image
from endwise.modalities.text import Text
from endwise.model import Model
from endwise.nn.efficientnet import LITE, EfficientNetLite
from endwise.nn.pretrained import Pretrained
from endwise.optimise import Average, Optimiser
from endwise.recipe import Recipe
from endwise.testing import Case, check_export, checks, examples
from endwise.testing.case import learn
from endwise.train import fit

transformers = pytest.importorskip("transformers")

SPELT = "[PAD] [CLS] [SEP] [UNK] a b c d e f g h i j k l m n o p q r s t u v w x y z the sea calm wind rain is cold"
WORDS = SPELT.split()
POSITIONS = 24
FAST = [
    check.name for check in checks.CHECKS if "input" in check.roles and not check.slow and check.capability != "streams"
]
TEXT_FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24},
    "roberta": {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24},
    "xlm-roberta": {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24},
    "electra": {
        "num_hidden_layers": 2, "hidden_size": 16, "embedding_size": 8, "num_attention_heads": 2, "intermediate_size": 24,
    },
    "distilbert": {"n_layers": 2, "dim": 16, "n_heads": 2, "hidden_dim": 24},
    "mpnet": {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24},
}  # fmt: skip


def text_weights(folder: Path, family: str = "bert", *, seed: int = 0) -> Path:
    """A tiny model of random weights as `save_pretrained` writes it, with its tokenizer and a model card."""
    torch.manual_seed(seed)
    common = {"vocab_size": len(WORDS), "max_position_embeddings": POSITIONS, "pad_token_id": 0}
    config = transformers.CONFIG_MAPPING[family](**common, **TEXT_FAMILIES[family])
    model = transformers.MODEL_MAPPING[type(config)](config)
    for weight in model.parameters():  # some begin at zero or one, which would hide that they are not loaded
        weight.data.add_(0.1 * torch.randn_like(weight))
    model.save_pretrained(folder)
    tokenizer = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]", continuing_subword_prefix="")
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer.enable_truncation(4)  # as many published ones say: it must not cut
    tokenizer.enable_padding(length=12)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# tiny\n")
    return folder


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_weights(tmp_path_factory.mktemp("weights") / "bert")


def text_case(folder: Path, **fields: Any) -> Case:
    texts = ("a cold day", "wind", "the sea is calm", "rain in march", "no", "rain and rain", "ice", "sun")
    return Case(Text(pretrained=f"hf:{folder}", **fields), texts, "input", label="text in, pretrained")


def encoder_of(model: Model) -> Pretrained:
    (found,) = [part for part in model.network.modules() if isinstance(part, Pretrained)]
    return found


# ---- the contract suite ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("promise", [*FAST, "an_exported_model_gives_the_same_answers"])
def test_a_fine_tuned_text_encoder_keeps_every_promise(bert: Path, promise: str) -> None:
    case = text_case(bert)
    (check,) = [check for check in testing.checks_of(case) if check.name == promise]
    check()


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_every_text_family_is_filled_answers_alone_as_in_a_batch(family: str, tmp_path: Path) -> None:
    folder = text_weights(tmp_path / "weights", family)
    case = text_case(folder)
    model = case.model()
    plain = transformers.AutoModel.from_pretrained(folder)
    ids = torch.tensor([case.contract.ids.encode("the sea is calm")])
    with torch.inference_mode():
        expected = plain.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        got = encoder_of(model).network(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    assert torch.allclose(expected, got, atol=1e-6)
    checks.a_row_alone_is_answered_as_in_a_batch(case)
    checks.it_runs_in_half_precision(case)


@pytest.mark.slow
@pytest.mark.parametrize("family", [name for name in TEXT_FAMILIES if name != "bert"])
def test_every_text_family_exports(family: str, tmp_path: Path) -> None:
    case = text_case(text_weights(tmp_path / "weights", family))
    check_export(case.trained(), case.raw_rows)


@pytest.mark.parametrize("way", ["top", "lora", "frozen"])
def test_every_way_of_tuning_learns_and_reloads(bert: Path, way: Any) -> None:
    case = text_case(bert, fine_tune=way)
    checks.one_batch_can_be_learnt_by_heart(case)
    checks.a_reloaded_model_gives_the_same_answers(case)


@pytest.mark.slow
def test_adapters_export(bert: Path) -> None:
    case = text_case(bert, fine_tune="lora")
    check_export(case.trained(), case.raw_rows)


PICTURE_FAMILIES: dict[str, dict[str, Any]] = {
    "vit": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "image_size": 32, "patch_size": 8},
    "dinov2": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    "convnext": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
}  # fmt: skip


def picture_weights(folder: Path, family: str) -> Path:
    """A tiny picture model of random weights with the scale of its pictures; the built-in family in timm's layout."""
    torch.manual_seed(0)
    if family in LITE:
        folder.mkdir()
        network = EfficientNetLite(family)
        save_file(
            {name: value.contiguous() for name, value in network.state_dict().items()}, folder / "model.safetensors"
        )
        scale = {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.5, 0.5], "input_size": [3, 32, 32], "license": "apache-2.0"}
        (folder / "config.json").write_text(json.dumps({"architecture": family, "pretrained_cfg": scale}))
        return folder
    config = transformers.CONFIG_MAPPING[family](**PICTURE_FAMILIES[family])
    model = transformers.MODEL_MAPPING[type(config)](config)
    for weight in model.parameters():
        weight.data.add_(0.1 * torch.randn_like(weight))
    model.save_pretrained(folder)
    scale = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.5, 0.5], "size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(scale))
    return folder


def picture_case(folder: Path, family: str, **fields: Any) -> Case:
    kind = "timm" if family in LITE else "hf"
    label = "image in, pretrained"
    return Case(Image(pretrained=f"{kind}:{folder}", **fields), examples.pictures(), "input", label=label)


@pytest.mark.parametrize("promise", [*FAST, "an_exported_model_gives_the_same_answers"])
def test_a_fine_tuned_picture_encoder_keeps_every_promise(tmp_path: Path, promise: str) -> None:
    case = picture_case(picture_weights(tmp_path / "weights", "convnext"), "convnext")
    (check,) = [check for check in testing.checks_of(case) if check.name == promise]
    check()


@pytest.mark.parametrize("family", [*PICTURE_FAMILIES, "tf_efficientnet_lite0"])
def test_every_picture_family_is_filled_and_answers_alone_as_in_a_batch(family: str, tmp_path: Path) -> None:
    folder = picture_weights(tmp_path / "weights", family)
    case = picture_case(folder, family)
    model = case.model()
    stored = load_file(folder / "model.safetensors")
    got = encoder_of(model).network.state_dict()
    if family in LITE:
        assert all(torch.equal(stored[name], value) for name, value in got.items())
    else:
        plain = transformers.AutoModel.from_pretrained(folder).state_dict()
        assert all(torch.equal(plain[name], value) for name, value in got.items())
    checks.a_row_alone_is_answered_as_in_a_batch(case)
    checks.it_runs_in_half_precision(case)
    assert case.contract.channels == 3
    encoder, field = model.network.encoder("value"), case.batch().to("cpu").inputs["value"]
    with torch.no_grad():
        (levels,) = encoder(field.values, field.sizes).levels.values()
    assert len(levels) == len(encoder.maps) == {"resnet": 2, "convnext": 2}.get(family, 4 if family in LITE else 1)
    for level, shape in zip(levels, encoder.maps, strict=True):
        sides = [side / step for side, step in zip(encoder.canvas_px, shape.stride, strict=True)]
        assert level.shape[1] == shape.channels
        assert all(
            0 <= wanted - side < 1 or 0 <= side - wanted < 1
            for side, wanted in zip(level.shape[2:], sides, strict=True)
        )


@pytest.mark.slow
@pytest.mark.parametrize("family", [*PICTURE_FAMILIES, "tf_efficientnet_lite0"])
@pytest.mark.parametrize("way", ["full", "lora"])
def test_every_picture_family_exports(family: str, way: Any, tmp_path: Path) -> None:
    case = picture_case(picture_weights(tmp_path / "weights", family), family, fine_tune=way)
    check_export(case.trained(), case.raw_rows)


def test_a_frozen_picture_network_is_asked_once_for_each_picture(tmp_path: Path) -> None:
    """And its answers, kept, are what it would say again; what changes its pictures, or learns, is asked each time."""
    case = picture_case(
        picture_weights(tmp_path / "weights", "tf_efficientnet_lite0"), "tf_efficientnet_lite0", fine_tune="frozen"
    )
    model = case.model()
    encoder, field, asked = model.network.encoder("value"), case.batch().to("cpu").inputs["value"], list[int]()
    encoder_of(model).network.register_forward_hook(lambda _, given, __: asked.append(len(given[0])))
    plain = encoder.train()(field.values, field.sizes)
    encoder.recall(len(field.values))
    first, again = encoder(field.values, field.sizes), encoder(field.values.flip(0), field.sizes.flip(0))
    assert asked == [len(field.values)] + [1] * len(field.values)
    torch.testing.assert_close(first.values, plain.values, atol=1e-5, rtol=1e-5)
    assert torch.equal(again.values, first.values.flip(0))
    assert all(
        torch.equal(one, other.flip(0)) for one, other in zip(*(t.levels["image"] for t in (first, again)), strict=True)
    )
    first.values.sum().backward()  # what lies above it learns
    assert copy.deepcopy(encoder).memory.kept == {}
    for other in (dataclasses.replace(case.declaration, fine_tune="full"), case.declaration):
        changed = (
            picture_case(tmp_path / "weights", "tf_efficientnet_lite0", fine_tune=other.fine_tune)
            .model()
            .network.encoder("value")
        )
        changed.augment = other.fine_tune == "frozen"
        changed.recall(8)
        assert changed.memory is None
    encoder.recall(10**9)  # no place for so many
    assert encoder.memory is None


def test_a_picture_transformer_sees_other_sides_than_its_own(tmp_path: Path) -> None:
    case = picture_case(picture_weights(tmp_path / "weights", "vit"), "vit", side_px=48)
    checks.a_row_alone_is_answered_as_in_a_batch(case)
    assert case.contract.height * case.contract.width == pytest.approx(48**2, rel=0.3)


def test_pictures_are_scaled_as_the_weights_were_trained(tmp_path: Path) -> None:
    model = picture_case(picture_weights(tmp_path / "weights", "resnet"), "resnet").model()
    encoder: Any = next(iter(model.network.inputs.values())).encoder
    assert encoder.mean.tolist() == pytest.approx([0.5, 0.4, 0.3])
    assert encoder.deviation.tolist() == pytest.approx([0.5, 0.5, 0.5])


def test_statistics_of_what_never_learns_stay(tmp_path: Path) -> None:
    case = picture_case(picture_weights(tmp_path / "weights", "resnet"), "resnet", fine_tune="top", top_layers=1)
    model = case.model()
    before = {name: value.clone() for name, value in encoder_of(model).network.named_buffers()}
    learn(model, case.batch().to("cpu"), steps=2, until=0.0)
    moved = {name for name, value in encoder_of(model).network.named_buffers() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith("encoder.stages.1.") for name in moved)


def test_a_picture_folder_without_its_scale_is_refused(tmp_path: Path) -> None:
    folder = picture_weights(tmp_path / "weights", "resnet")
    (folder / "preprocessor_config.json").write_text("{}")
    with pytest.raises(RecipeError, match="mean and std of three channels"):
        assert picture_case(folder, "resnet").contract


SOUND = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "conv_dim": [8, 8],
    "conv_kernel": [10, 4], "conv_stride": [40, 4], "num_feat_extract_layers": 2, "feat_extract_norm": "layer",
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "do_stable_layer_norm": True,
}  # fmt: skip


def sound_weights(folder: Path, family: str, **changed: Any) -> Path:
    """A tiny network of samples with random weights."""
    torch.manual_seed(0)
    config = transformers.CONFIG_MAPPING[family](**{**SOUND, **changed})
    model = transformers.MODEL_MAPPING[type(config)](config)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 8000, "do_normalize": True}))
    return folder


def sound_case(folder: Path, **fields: Any) -> Case:
    declared = Audio(pretrained=f"hf:{folder}", rate_hz=8_000, **fields)
    return Case(declared, examples.tones(), "input", label="audio in, pretrained")


@pytest.mark.parametrize(
    "promise", [*FAST, pytest.param("an_exported_model_gives_the_same_answers", marks=pytest.mark.slow)]
)
def test_a_fine_tuned_sound_encoder_keeps_every_promise(tmp_path: Path, promise: str) -> None:
    case = sound_case(sound_weights(tmp_path / "weights", "wav2vec2"))
    (check,) = [check for check in testing.checks_of(case) if check.name == promise]
    check()


@pytest.mark.parametrize("family", ["hubert"])
def test_every_sound_family_answers_alone_as_in_a_batch(family: str, tmp_path: Path) -> None:
    case = sound_case(sound_weights(tmp_path / "weights", family))
    checks.a_row_alone_is_answered_as_in_a_batch(case)
    checks.it_runs_in_half_precision(case)


@pytest.mark.parametrize("family", ["wav2vec2", "hubert"])
def test_samples_reach_the_network_as_transformers_would_give_them(family: str, tmp_path: Path) -> None:
    folder = sound_weights(tmp_path / "weights", family)
    case = sound_case(folder)
    encoder: Any = next(iter(case.model().network.inputs.values())).encoder
    plain = transformers.AutoModel.from_pretrained(folder).eval()
    wave = torch.from_numpy(case.values["value"][0].astype(np.float32)) / 32_768
    normal = (wave - wave.mean()) / (wave.var(unbiased=False) + 1e-7).sqrt()
    kept: list[torch.Tensor] = []
    encoder.outlet.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    with torch.inference_mode():
        expected = plain(normal[None]).last_hidden_state
        encoder(torch.from_numpy(case.values["value"][0])[None], torch.tensor([[len(wave)]]))
    assert torch.allclose(kept[0][:, : expected.shape[1]], expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["hubert"])
def test_every_sound_family_exports(family: str, tmp_path: Path) -> None:
    case = sound_case(sound_weights(tmp_path / "weights", family))
    check_export(case.trained(), case.raw_rows)


def test_sound_of_another_rate_or_normalised_over_padding_is_refused(tmp_path: Path) -> None:
    folder = sound_weights(tmp_path / "weights", "wav2vec2")
    with pytest.raises(RecipeError, match="write rate_hz: 8000"):
        Audio(pretrained=f"hf:{folder}").fit([], missing=0, role="input")
    folder = sound_weights(tmp_path / "other", "wav2vec2", feat_extract_norm="group")
    with pytest.raises(RecipeError, match="neighbours in the batch"):
        Audio(pretrained=f"hf:{folder}", rate_hz=8_000).fit([], missing=0, role="input")


# ---- what learns -----------------------------------------------------------------------------------------------------


def learning(model: Model) -> set[str]:
    return {name for name, weight in encoder_of(model).network.named_parameters() if weight.requires_grad}


def test_frozen_weights_have_no_gradient_no_optimiser_no_average_and_no_dropout(bert: Path) -> None:
    model = text_case(bert, fine_tune="frozen").model()
    network = model.network
    assert learning(model) == set()
    optimiser = Optimiser(network, objective_of(model), learning_rate=None, weight_decay=0.05)
    inside = {id(weight) for weight in encoder_of(model).network.parameters()}
    assert not inside & {id(weight) for weight in optimiser.weights}
    assert not any("pretrained.network" in name for name in Average(network, 0.9).tensors)
    network.train()
    assert not any(part.training for part in encoder_of(model).network.modules())
    assert encoder_of(model).training


def test_adapters_begin_as_nothing_and_are_all_that_learns(bert: Path) -> None:
    plain, adapted = text_case(bert, fine_tune="frozen").model(), text_case(bert, fine_tune="lora", lora_rank=2).model()
    assert learning(adapted)
    assert all("lora_" in name for name in learning(adapted))
    row = torch.tensor([[1, 30, 31, 2]])
    for model in (plain, adapted):
        encoder_of(model).eval()
    with torch.inference_mode():
        one, other = (encoder_of(m).network(input_ids=row).last_hidden_state for m in (plain, adapted))
    assert torch.allclose(one, other, atol=1e-6)


def test_the_top_layers_learn_and_the_others_rest(bert: Path) -> None:
    model = text_case(bert, fine_tune="top", top_layers=1).model()
    assert learning(model)
    assert all(name.startswith("encoder.layer.1.") for name in learning(model))
    model.network.train()
    assert not encoder_of(model).layers()[0].training
    assert encoder_of(model).layers()[1].training


def test_lower_layers_learn_more_slowly_and_later(bert: Path) -> None:
    model = text_case(bert, pretrained_rate=1e-3, layer_decay=0.5, unfreeze=0.6).model()
    optimiser = Optimiser(model.network, objective_of(model), learning_rate=0.01, weight_decay=0.05)
    names = {id(weight): name for name, weight in encoder_of(model).network.named_parameters()}

    def rates(done: float) -> dict[str, float]:
        optimiser.set_rate(1.0, done)
        return {
            names[id(weight)].split(".attention")[0].split(".weight")[0]: group["lr"]
            for group in optimiser.adamw.param_groups
            for weight in group["params"]
            if id(weight) in names
        }

    late = rates(1.0)
    assert late["encoder.layer.1"] == pytest.approx(1e-3)
    assert late["encoder.layer.0"] == pytest.approx(5e-4)
    assert late["embeddings.word_embeddings"] == pytest.approx(2.5e-4)
    assert set(rates(0.0).values()) == {0.0}
    halfway = rates(0.5)
    assert halfway["encoder.layer.0"] > 0
    assert halfway["embeddings.word_embeddings"] == 0
    others = [group["peak"] for group in optimiser.adamw.param_groups for w in group["params"] if id(w) not in names]
    assert set(others) == {0.01}  # the recipe's rate is everything else's


def objective_of(model: Model) -> Any:
    from endwise.objective import Objective

    return Objective(model.recipe.outputs, {"partner.cross_entropy": 1.0}, "fixed")


# ---- a whole training ------------------------------------------------------------------------------------------------


def rows() -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    words = {"calm": ["sea", "calm", "is"], "storm": ["rain", "wind", "cold"]}
    return [
        {"text": " ".join(random.choice(words[mood], 3)), "mood": mood} for mood in ("calm", "storm") for _ in range(60)
    ]


def recipe_of(folder: Path, **fields: Any) -> Recipe:
    return Recipe(
        name="moods", data=rows(), inputs={"text": {"type": "text", "pretrained": f"hf:{folder}", **fields}},
        outputs={"mood": "category"}, trunk={"width": 32},
        train={"steps": 30, "batch_size": 16, "size": "tiny", "precision": "fp32"},
    )  # fmt: skip


@pytest.mark.parametrize("way", ["full", "frozen"])
def test_a_run_saves_a_model_that_needs_the_folder_no_more(bert: Path, tmp_path: Path, way: str) -> None:
    folder = shutil.copytree(bert, tmp_path / "weights")
    model = fit(recipe_of(folder, fine_tune=way), out=tmp_path / "run")
    given = [{"text": text} for text in ("the sea is calm", "wind")]
    before = [prediction["mood"] for prediction in model.predict(given)]
    shutil.rmtree(folder)
    again = Model.load(tmp_path / "run")
    assert [prediction["mood"] for prediction in again.predict(given)] == before
    kept = again.contracts["text"].to_dict()["weights"]
    assert kept["licence"] == "apache-2.0"
    assert len(kept["sha256"]["model.safetensors"]) == 64
    assert kept["source"] == f"hf:{folder}"
    assert "apache-2.0" in repr(again)


def test_a_killed_run_goes_on_to_the_same_weights(bert: Path, tmp_path: Path) -> None:
    recipe = recipe_of(bert, fine_tune="top", unfreeze=0.5)
    whole = fit(recipe, out=tmp_path / "whole")
    import signal

    def stop(event: Any) -> None:
        if event.get("event") == "step" and event["step"] == 11:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(ew.EndwiseError, match="stopped at step"):
        fit(recipe, out=tmp_path / "killed", progress=stop)
    resumed = fit(recipe, out=tmp_path / "killed", resume=True)
    for (name, one), other in zip(
        whole.network.state_dict().items(), resumed.network.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name


def test_a_recipe_file_takes_relative_folders_from_its_own(bert: Path, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path / "data" / "weights")
    (tmp_path / "recipe.yaml").write_text(
        "data: rows.csv\ninputs:\n  text: {type: text, pretrained: 'hf:data/weights'}\noutputs:\n  mood: category\n"
    )
    declared = Recipe.load(tmp_path).inputs["text"]
    assert isinstance(declared, Text)
    assert declared.pretrained == f"hf:{tmp_path / 'data' / 'weights'}"


# ---- where weights come from -----------------------------------------------------------------------------------------


def fitted(source: str) -> Any:
    declared = Text(pretrained=source)
    return declared.fit([np.frombuffer(b"the sea", dtype=np.uint8)], missing=0, role="input")


def test_weights_inside_an_installed_package_are_found_without_importing_it(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "some_weights_package"
    shutil.copytree(bert, package / "model")
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert fitted("package:some_weights_package/model").weights["licence"] == "apache-2.0"
    with pytest.raises(RecipeError, match="a folder inside some_weights_package"):
        fitted("package:some_weights_package/../elsewhere")
    with pytest.raises(SetupError, match="no_such_package"):
        fitted("package:no_such_package/model")


def test_a_name_is_read_from_the_hubs_cache_without_a_network(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants as constants

    home = tmp_path / "hub"
    repository = home / "models--somebody--tiny"
    shutil.copytree(bert, repository / "snapshots" / "0123abcd")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abcd")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fitted("hf:somebody/tiny").weights["source"] == "hf:somebody/tiny"
    with pytest.raises(SetupError, match=r"hf download somebody/other --local-dir"):
        fitted("hf:somebody/other")


def test_weights_that_changed_since_they_were_described_are_refused(bert: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bert, tmp_path / "weights")
    case = text_case(folder)
    assert case.contract
    text_weights(tmp_path / "other", seed=1)
    shutil.copy(tmp_path / "other" / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(RecipeError, match="sha256"):
        case.model()


def test_weights_that_are_not_those_of_the_architecture_are_refused(bert: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bert, tmp_path / "weights")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(ModelError, match="weights are missing"):
        text_case(folder).model()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pickle"),
        (lambda f: (f / "config.json").unlink(), "config.json cannot be read"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "is no tokenizer"),
        (lambda f: edited(f / "config.json", model_type="vit"), "one of bert"),
        (lambda f: edited(f / "config.json", vocab_size=20), r"ids up to \d+.*ids below 20"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_with_the_fix(
    bert: Path, tmp_path: Path, break_it: Any, message: str
) -> None:
    folder = shutil.copytree(bert, tmp_path / "weights")
    break_it(folder)
    with pytest.raises(RecipeError, match=message) as refused:
        fitted(f"hf:{folder}")
    assert "Fix:" in str(refused.value)


def edited(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fine_tune": "lora"}, "only beside pretrained"),
        ({"pretrained": "models/minilm"}, "write hf:"),
        ({"pretrained": "hf:x", "units": "bytes"}, "from scratch"),
        ({"pretrained": "hf:x", "vocabulary": 1000}, "from scratch"),
        ({"pretrained": "hf:x", "lora_rank": 4}, "fine_tune: lora"),
        ({"pretrained": "hf:x", "fine_tune": "frozen", "layer_decay": 0.5}, "fine_tune: full or top"),
        ({"pretrained": "hf:x", "fine_tune": "frozen", "pretrained_rate": 0.5}, "fine_tune: full or top or lora"),
        ({"pretrained": "hf:x", "fine_tune": "partly"}, "full"),
        ({"pretrained": "hf:x", "unfreeze": 1.5}, "at most 1"),
    ],
)
def test_a_declaration_that_means_nothing_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Text(**fields)


def test_more_top_layers_than_there_are_is_refused(bert: Path) -> None:
    with pytest.raises(RecipeError, match="at most 2"):
        text_case(bert, fine_tune="top", top_layers=3).model()


def test_a_text_beyond_the_positions_is_refused_and_never_cut(bert: Path) -> None:
    long = "a " * POSITIONS
    contract = fitted(f"hf:{bert}")
    declared = Text(pretrained=f"hf:{bert}")
    value = np.frombuffer(long.encode(), dtype=np.uint8)
    with pytest.raises(BadValue, match=f"{POSITIONS + 2} units"):
        declared.transform(value, contract)
    with pytest.raises(RecipeError, match=f"{POSITIONS + 2} units.*windows: true"):
        declared.fit([value], missing=0, role="input")
    assert len(declared.transform(value[: 2 * POSITIONS - 4], contract)) == POSITIONS


def windowed(folder: Path) -> Case:
    texts = ("sea " * 60, "a cold day", "wind", "rain and rain " * 9, "the sea is calm", "", "no", "c" * POSITIONS)
    return Case(Text(pretrained=f"hf:{folder}", windows=True), texts, "input", label="long texts in")


@pytest.mark.parametrize(
    "promise", [*FAST, pytest.param("an_exported_model_gives_the_same_answers", marks=pytest.mark.slow)]
)
def test_windows_keep_every_promise(bert: Path, promise: str) -> None:
    for check in testing.checks_of(windowed(bert)):
        if check.name == promise != "an_answer_can_be_explained":
            check()


def test_a_text_that_is_read_in_windows_is_explained_in_parts_and_says_so(bert: Path) -> None:
    case = windowed(bert)
    with pytest.raises(ModelError, match="explain a part of it"):
        ew.explain(case.trained(), {"value": "sea " * 60})


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_long_text_is_read_window_after_window(family: str, tmp_path: Path) -> None:
    case = windowed(text_weights(tmp_path / "weights", family))
    contract, most = case.contract, case.contract.most_units
    ids = case.declared.transform(np.frombuffer(b"sea " * 60, dtype=np.uint8), contract)
    parts = [ids[start : start + most] for start in range(0, len(ids), most)]
    assert len(parts) > 2
    assert all((part[0], part[-1]) == (1, 2) for part in parts)  # each has the special ones around it
    assert sum(len(part) - 2 for part in parts) == 60
    encoder = case.model().network.encoder("value")

    def read(values: np.ndarray) -> torch.Tensor:
        with torch.inference_mode():
            found = encoder(torch.from_numpy(values)[None], torch.tensor([[len(values)]]))
        return found.values[0][found.mask[0]]

    torch.testing.assert_close(read(ids), torch.cat([read(part) for part in parts]), rtol=0, atol=1e-5)
    assert "read in windows of" in case.declared.summary(contract)


def test_windows_without_positions_to_exceed_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"Text.windows.*no fixed number of positions"):
        Text(windows=True)


def test_a_saved_model_cannot_ask_for_code_or_another_architecture(bert: Path, tmp_path: Path) -> None:
    model = text_case(bert).model()
    model.save(tmp_path / "model")
    description = json.loads((tmp_path / "model" / "model.json").read_text())
    weights = description["contracts"]["value"]["weights"]
    weights["config"].update(auto_map={"AutoModel": "evil.Model"}, attn_implementation="somebody/kernels")
    (tmp_path / "model" / "model.json").write_text(json.dumps(description))
    loaded = Model.load(tmp_path / "model")
    assert encoder_of(loaded).config._attn_implementation == "sdpa"
    weights["family"] = "evil"
    (tmp_path / "model" / "model.json").write_text(json.dumps(description))
    with pytest.raises(ModelError, match="evil"):
        Model.load(tmp_path / "model")


@pytest.mark.parametrize(
    "changed", [{"num_hidden_layers": 10**6, "intermediate_size": 10**5}, {"hidden_size": 2**40}, {"vocab_size": 2**45}]
)
def test_a_saved_model_cannot_ask_for_more_than_its_weights(
    bert: Path, tmp_path: Path, changed: dict[str, int]
) -> None:
    text_case(bert).model().save(tmp_path / "model")
    description = json.loads((tmp_path / "model" / "model.json").read_text())
    description["contracts"]["value"]["weights"]["config"].update(changed)
    (tmp_path / "model" / "model.json").write_text(json.dumps(description))
    with pytest.raises(ModelError):
        Model.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "weights"), [("tf_efficientnet_lite0", 3_371_008), ("tf_efficientnet_lite4", 11_725_568)]
)
def test_the_built_in_networks_have_the_size_of_timms_without_the_classifier(name: str, weights: int) -> None:
    network = EfficientNetLite(name).eval()
    assert sum(weight.numel() for weight in network.parameters()) == weights
    with torch.inference_mode():
        maps = network(torch.zeros(1, 3, 65, 97))
    assert [tuple(found.shape[2:]) for found in maps] == [(17, 25), (9, 13), (5, 7), (3, 4)]


def test_contracts_say_where_the_tokenizer_is_from(bert: Path) -> None:
    contract = fitted(f"hf:{bert}")
    again = type(contract).from_dict(json.loads(json.dumps(contract.to_dict())))
    assert again == contract
    assert again.ids.encode("calm sea") == [1, WORDS.index("calm"), WORDS.index("sea"), 2]
    assert dataclasses.replace(contract, weights=None).weights is None
