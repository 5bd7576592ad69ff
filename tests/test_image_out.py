"""Pictures as answers: moved with their input in training, as large as it, scored as pictures are."""

from typing import Any

import numpy as np
import pytest
import torch

import endwise as ew
from endwise import losses, metrics
from endwise.batch import Ragged
from endwise.drawing import Picture
from endwise.modalities.base import Answer
from endwise.modalities.image import Image
from endwise.modalities.image.features import BestFilter
from endwise.modalities.image.head import PictureHead
from endwise.nn.interface import Tokens
from endwise.nn.size import Size


def smooth(height: int = 40, width: int = 56, channels: int = 3, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    down, across = np.arange(height)[:, None] / height, np.arange(width)[None] / width
    waves = [
        np.sin(random.uniform(2, 7) * down + random.uniform(2, 7) * across + channel) for channel in range(channels)
    ]
    return np.rint((np.stack(waves, axis=-1) + 1) * 127).astype(np.uint8)


@pytest.mark.parametrize("changes", [{}, {"mirror": True, "shift_share": 0.2}, {"zoom_share": 0.2, "turn_deg": 20.0}])
def test_what_is_shown_and_the_moved_target_are_the_same_picture(changes: dict[str, Any]) -> None:
    """A head that hands its input on has no loss, however the picture was moved."""
    values = [smooth(seed=seed) for seed in range(4)]
    declared = Image(**{"shift_share": 0.0, "light_share": 0.0, **changes})
    contract = declared.fit(values, missing=0, role="input")
    size = Size.of("tiny")
    encoder, head = declared.encoder(contract, size), PictureHead(3, contract.mean, size, on="image", narrow=False)
    head.meet({"image": encoder})
    torch.nn.init.zeros_(head.decoder.score.weight)  # type: ignore[arg-type]
    encoder.train()
    torch.manual_seed(0)
    rows = Ragged.stack(values, 2).to("cpu")
    with torch.no_grad():
        tokens: Tokens = encoder(rows.values, rows.sizes)
        prediction = head(tokens)
        found = head.loss(prediction, rows.values, rows.sizes)
        other = head.loss(prediction, rows.values.roll(1, 0), rows.sizes)
    assert bool((prediction["seen"][:, :, :2] == torch.eye(2)).all()) == (not changes)
    assert float(found["absolute"].max()) < 0.01
    assert float(found["structure"].max()) < 0.02
    assert float(other["absolute"].min()) > 0.05


def test_scores_of_pictures() -> None:
    true, said = smooth(), smooth(seed=1)
    one, other = (torch.from_numpy(item / 255.0).permute(2, 0, 1)[None] for item in (true, said))
    given = [Picture(true)], [Answer(Picture(said))]
    assert metrics.value(metrics.ssim(), *given) == pytest.approx(float(losses.similarity(one, other).mean()), abs=1e-4)
    assert metrics.value(metrics.ssim(), [Picture(true)], [Answer(Picture(true))]) == pytest.approx(1.0)
    apart = [Answer(Picture((true.astype(np.int64) // 2).astype(np.uint8)))]
    error = np.square(true / 255 - (true // 2) / 255).mean()
    assert metrics.value(metrics.psnr(), [Picture(true)], apart) == pytest.approx(-10 * np.log10(error))
    assert metrics.value(metrics.psnr(), [Picture(true)], [Answer(Picture(true))]) == pytest.approx(100)
    grey = [Answer(Picture(np.full((1, 1, 3), 127, np.uint8)))]  # a constant answer has any size
    assert metrics.value(metrics.picture_error(), [Picture(true)], grey) == pytest.approx(
        np.abs(true / 255.0 - 127 / 255).mean()
    )
    assert metrics.value(metrics.picture_error(), [Picture(true)], [Answer(None)]) == pytest.approx(
        (true / 255.0).mean()
    )


def test_an_answer_has_the_size_and_bits_of_its_picture() -> None:
    declared = Image()
    values = {"values": np.full((1, 8, 8), 2.0), "sizes": np.array([21, 33])}
    for dtype in (np.uint8, np.uint16):
        contract = declared.fit([np.zeros((8, 8, 1), dtype), np.ones((8, 8, 1), dtype)], missing=0, role="output")
        made = declared.write(values, contract).value
        assert made.pixels.shape == (21, 33, 1)
        assert made.pixels.dtype == dtype
        assert (made.pixels == np.iinfo(dtype).max).all()  # what is beyond white is white
        assert np.array_equal(declared.read(made, lambda path: b""), made.pixels)


def test_the_light_is_left_alone_where_a_picture_is_made() -> None:
    recipe = ew.Recipe(data=[{}], inputs={"scan": "image"}, outputs={"clean": "image"})
    scan, clean = recipe.inputs["scan"], recipe.outputs["clean"]
    assert isinstance(clean, Image)
    assert clean.on == "scan"
    declared = scan.beside(recipe.inputs, recipe.outputs)
    assert isinstance(declared, Image)
    assert (declared.light_share, declared.mirror) == (0.0, True)


def test_a_blurred_target_is_found_by_the_classical_filters() -> None:
    from scipy import ndimage

    random = np.random.default_rng(0)
    noisy = [random.integers(0, 255, (30, 40, 3)).astype(np.uint8) for _ in range(4)]
    targets = [
        Picture(np.rint(ndimage.gaussian_filter(item.astype(float), (1, 1, 0))).astype(np.uint8)) for item in noisy
    ]
    model = BestFilter().fit(noisy, targets)
    assert model.chosen_ == ("blur", 1.0)
    (found,) = model.predict(noisy[:1])
    assert np.array_equal(found, targets[0].pixels)
