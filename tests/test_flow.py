"""Pictures that are drawn out of noise: which one is a matter of the seed, how well they are drawn has numbers that stand
without anybody's weights."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import endwise as ew
from endwise import metrics
from endwise.data.dataset import fit_contracts, prepare
from endwise.details import drawings, output_details
from endwise.drawing import Picture
from endwise.errors import ModelError, RecipeError
from endwise.evaluate import evaluate, score
from endwise.modalities.base import Answer
from endwise.modalities.image import Image
from endwise.modalities.image.features import NearestPicture
from endwise.model import Model
from endwise.nn.flow import followed, noise


def shapes(count: int = 24) -> list[dict[str, Any]]:
    """Dark or light squares at chance places, and what they are called."""
    random, rows = np.random.default_rng(0), []
    for row in range(count):
        pixels = np.full((12, 12, 3), 120, np.uint8)
        y, x = random.integers(0, 6, 2)
        pixels[y : y + 6, x : x + 6] = 240 if row % 2 else 20
        rows.append({"caption": "a light square" if row % 2 else "a dark square", "picture": pixels, "id": row})
    return rows


def recipe_of(**fields: Any) -> ew.Recipe:
    return ew.Recipe(
        name="shapes", data={"path": shapes(), "group": "id"}, inputs={"caption": "text"},
        outputs={"picture": {"type": "image", "decoder": "flow", "steps": 2, **fields}},
        trunk={"width": 32, "depth": 1}, train={"size": "tiny"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def made() -> tuple[Model, Any]:
    dataset = prepare(recipe_of())
    return Model.build(recipe_of(), fit_contracts(recipe_of(), dataset), seed=0), dataset


# ---- noise and the way along ------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**62), st.integers(0, 2**62))
def test_noise_is_a_function_of_its_seed(one: int, other: int) -> None:
    first, second, again = noise(torch.tensor([one, other, one]), (3, 8, 8))
    assert torch.equal(first, again)
    assert torch.equal(first, noise(torch.tensor([one]), (3, 8, 8))[0])
    assert (one % 2**32 == other % 2**32) == torch.equal(first, second)


def test_noise_is_normal_and_seeds_have_nothing_to_do_with_each_other() -> None:
    values = noise(torch.arange(64), (3, 16, 16)).double().flatten(1)
    assert abs(float(values.mean())) < 0.02
    assert float(values.var()) == pytest.approx(1, abs=0.02)
    assert float((values**4).mean()) == pytest.approx(3, abs=0.15)
    assert float(torch.corrcoef(values).triu(1).abs().max()) < 0.2
    assert float(torch.corrcoef(values.T[:64]).triu(1).abs().max()) < 0.65  # of 64 pairs of numbers each


def test_a_straight_way_is_followed_to_its_end_in_one_step() -> None:
    start, end = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    for steps in (1, 3):
        assert torch.allclose(followed(lambda x, t: end - start, start, steps), end, atol=1e-5)
    curved = [float(followed(lambda x, t: x, torch.ones(1, 1, 1, 1), steps)) - np.e for steps in (4, 8)]
    assert abs(curved[0] / curved[1]) == pytest.approx(4, rel=0.3)  # of second order


# ---- the declaration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"guidance": 3.0}, "Image.guidance"),
        ({"steps": 4}, "Image.steps"),
        ({"decoder": "flow", "on": "scan"}, "Image.on"),
        ({"decoder": "flow", "narrow": True}, "Image.narrow"),
        ({"decoder": "flow", "steps": 0}, "Image.steps"),
        ({"decoder": "flow", "guidance": -1.0}, "Image.guidance"),
        ({"side_px": 32}, "outputs.clean.side_px"),
    ],
)
def test_what_has_no_meaning_is_refused(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(RecipeError, match=named):
        ew.Recipe(data=[{}], inputs={"scan": "image"}, outputs={"clean": {"type": "image", **fields}})


def test_a_picture_of_words_says_how_it_can_be_had() -> None:
    with pytest.raises(RecipeError, match="decoder: flow"):
        ew.Recipe(data=[{}], inputs={"caption": "text"}, outputs={"picture": "image"})


def test_the_side_is_that_of_the_answer() -> None:
    values = [np.zeros((100, 50, 3), np.uint8), np.full((100, 50, 3), 9, np.uint8)]
    sizes = {}
    for side in (None, 32, 20):
        contract = Image(decoder="flow", side_px=side).fit(values, missing=0, role="output")
        sizes[side] = (contract.height, contract.width)
    assert sizes == {None: (64, 32), 32: (48, 24), 20: (32, 16)}


# ---- what is drawn ----------------------------------------------------------------------------------------------------


def test_a_seed_draws_the_same_picture_again_and_another_one_another(made: tuple[Model, Any]) -> None:
    model, _ = made
    asked = {"caption": "a dark square"}
    drawn = model.sample(asked, count=3, seed=1)
    assert len({draw["picture"] for draw in drawn}) == 3
    assert [draw["picture"] for draw in model.sample(asked, count=3, seed=1)] == [draw["picture"] for draw in drawn]
    alone, among = (np.asarray(found["picture"]) for found in (model.predict(asked), model.predict([asked, asked])[1]))
    assert np.abs(alone.astype(int) - among.astype(int)).max() <= 1  # both of a seed of 0
    seeds = [draw.answers["picture"].detail["seed"] for draw in drawn]
    assert len(set(seeds)) == 3
    with pytest.raises(ModelError, match="temperature"):
        model.sample(asked, temperature=0.5)


def test_rows_are_scored_by_a_picture_of_their_own_and_the_report_shows_some(made: tuple[Model, Any]) -> None:
    model, dataset = made
    rows = np.arange(8)
    found = evaluate(model, dataset, rows, details=False)
    assert set(found.outputs["picture"]) == {"velocity", "untold", "frechet", "recognised"}
    assert found.baselines["picture"]["classical"]["frechet"].value >= 0  # type: ignore[index]
    scored = score(model, dataset, rows)
    seeds = [answer.detail["seed"] for answer in scored["picture"].answers]
    assert seeds == rows.tolist()
    shown = output_details(model, dataset, scored)["picture"]["drawings"]
    assert len(shown) == 8
    assert all(len(set(item["drawn"])) == 5 for item in shown)
    assert drawings.__doc__


def test_of_training_pictures_with_equal_captions_another_one_is_taken_for_each_row() -> None:
    pictures = [Picture(row["picture"]) for row in shapes(6)]
    features = np.array([[0.0], [1.0], [0.0], [1.0], [0.0], [1.0]])
    found = list(NearestPicture().fit(features, pictures).predict(np.zeros((3, 1))))
    assert [int(pixels.min()) for pixels in found] == [20, 20, 20]
    assert len({pixels.tobytes() for pixels in found}) == 3


# ---- the metrics ------------------------------------------------------------------------------------------------------


def test_the_frechet_distance_does_not_ask_whose_picture_it_is() -> None:
    truths = [Picture(row["picture"]) for row in shapes(40)]
    same = [Answer(picture) for picture in reversed(truths)]
    assert metrics.value(metrics.frechet(), truths, same) == pytest.approx(0, abs=1e-6)
    blurred = [Answer(Picture((truth.pixels // 2 + 60).astype(np.uint8))) for truth in truths]
    constant = [Answer(Picture(np.full((1, 1, 3), 120, np.uint8)))] * 40
    near, far = (metrics.value(metrics.frechet(), truths, answers) for answers in (blurred, constant))
    assert 0.001 < near < far
    assert metrics.value(metrics.frechet(), truths, [Answer(None)] * 40) > far


def test_a_picture_is_recognised_among_others() -> None:
    truths = [Picture(row["picture"]) for row in shapes(40)]
    own = metrics.value(metrics.recognised(), truths, [Answer(picture) for picture in truths])
    others = metrics.value(metrics.recognised(), truths, [Answer(picture) for picture in truths[1:] + truths[:1]])
    constant = metrics.value(metrics.recognised(), truths, [Answer(truths[0])] * 40)
    assert own > 0.98
    assert constant == pytest.approx(0.5, abs=0.02)
    assert others < 0.5  # of the other kind
    assert metrics.value(metrics.recognised(), truths[:1], [Answer(truths[0])]) == 0.5
