"""Where raw values lie on the canvas: a picture and its target are moved alike, by every encoder, and back again."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from endwise.batch import Ragged
from endwise.errors import RecipeError
from endwise.modalities.image import Image
from endwise.modalities.spatial import Spatial
from endwise.nn.interface import Map, Tokens
from endwise.nn.placing import centres, in_place, laid, lies_at, seen_at
from endwise.nn.pyramid import Pyramid, enlarged
from endwise.nn.size import Size
from endwise.nn.vision import Changes, augment
from endwise.recipe import Recipe

NOTHING = {"mirror": False, "shift": 0.0, "zoom": 0.0, "turn_deg": 0.0, "light": 0.0, "erase": 0.0}


def blobs(batch: int, height: int, width: int) -> torch.Tensor:
    """[batch, 1, height, width]: smooth pictures without symmetry, whose value says the place."""
    down, across = torch.arange(height)[:, None] / height, torch.arange(width)[None] / width
    return (torch.sin(5 * down + 2 * across) + across * down)[None, None].repeat(batch, 1, 1, 1)


@settings(max_examples=25, deadline=None)
@given(
    mirror=st.booleans(), shift=st.sampled_from([0.0, 0.2]), zoom=st.sampled_from([0.0, 0.3]),
    turn=st.sampled_from([0.0, 40.0]), height=st.integers(20, 50), width=st.integers(20, 50), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_changed_picture_and_its_moved_target_stay_aligned(
    mirror: bool, shift: float, zoom: float, turn: float, height: int, width: int, seed: int
) -> None:
    x = blobs(3, height, width)
    torch.manual_seed(seed)
    changes = Changes(**{**NOTHING, "mirror": mirror, "shift": shift, "zoom": zoom, "turn_deg": turn})
    changed, seen = augment(x, changes)
    sizes = torch.tensor([[height, width]] * 3)
    moved, inside = laid(x[:, 0], sizes, seen, (height, width))
    step = 0.0 if not zoom and not turn else 0.5 * (5 + 2 + 2) / min(height, width)  # nearest against bilinear
    assert float((moved - changed[:, 0])[inside].abs().max()) <= step + 1e-5
    assert float(inside.float().mean()) > 0.3


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-0.9, 0.9), min_size=4, max_size=4), st.floats(-0.4, 0.4), st.floats(-0.4, 0.4))
def test_points_go_to_the_canvas_and_back(turn: list[float], down: float, across: float) -> None:
    a, b, c, d = turn
    seen = torch.tensor([[[1.5 + a, b, down], [c, -1.5 - d, across]]])
    if abs(float(torch.linalg.det(seen[..., :2]))) < 0.1:
        return
    points = torch.rand(1, 7, 2)
    torch.testing.assert_close(seen_at(seen, lies_at(seen, points)), points, atol=1e-3, rtol=1e-3)


def test_a_place_is_found_where_the_picture_shows_it() -> None:
    """One bright pixel: where the map says that it lies, there it is."""
    torch.manual_seed(3)
    x = torch.zeros(40, 1, 48, 64)
    x[:, :, 20:23, 40:43] = 1.0
    changed, seen = augment(x, Changes(**{**NOTHING, "mirror": True, "shift": 0.1, "zoom": 0.1, "turn_deg": 10.0}))
    point = torch.tensor([21.5 / 48, 41.5 / 64]).expand(40, 1, 2)
    places = lies_at(seen, point)[:, 0] * torch.tensor([48.0, 64.0])
    weight = changed[:, 0] / changed[:, 0].sum((1, 2), keepdim=True)
    rows, columns = torch.arange(48)[:, None] + 0.5, torch.arange(64)[None] + 0.5
    found = torch.stack([(weight * rows).sum((1, 2)), (weight * columns).sum((1, 2))], dim=1)
    near = ((places > 4) & (places < torch.tensor([44.0, 60.0]))).all(1)  # mirrored borders would show it twice
    assert near.sum() > 20
    assert float((found - places)[near].abs().max()) < 0.3


def test_targets_of_any_resolution_and_number_of_axes_cover_the_canvas() -> None:
    volume = torch.arange(2 * 4 * 6 * 8).reshape(2, 4, 6, 8)
    sizes = torch.tensor([[4, 6, 8], [2, 3, 4]])
    found, inside = laid(volume, sizes, in_place(2, 3, torch.device("cpu")), (2, 3, 4))
    assert inside.all()
    assert torch.equal(found[0], volume[0, 1::2, 1::2, 1::2])
    assert torch.equal(found[1], volume[1, :2, :3, :4])  # what lies past a row's size is never looked at
    colours = torch.rand(1, 5, 5, 3)
    same, _ = laid(colours, torch.tensor([[5, 5]]), in_place(1, 2, torch.device("cpu")), (5, 5))
    assert torch.equal(same, colours)
    assert centres((2, 2), torch.device("cpu")).tolist() == [[0.25, 0.25], [0.25, 0.75], [0.75, 0.25], [0.75, 0.75]]


@pytest.mark.parametrize("backbone", ["conv", "vit"])
@pytest.mark.parametrize(("height", "width"), [(28, 28), (96, 130), (30, 61)])
def test_an_encoder_says_its_canvas_and_its_maps(backbone: str, height: int, width: int) -> None:
    values = [np.zeros((height, width, 1), np.uint8)] * 2
    declared = Image(backbone=backbone)  # type: ignore[arg-type]
    made = declared.encoder(declared.fit(values, missing=0, role="input"), Size.of("tiny")).eval()
    rows = Ragged.stack(values, 2).to("cpu")
    with torch.no_grad():
        tokens = made(rows.values, rows.sizes)
    (levels,), (placed,) = tokens.levels.values(), tokens.placed.values()
    assert placed.canvas == made.canvas_px
    assert torch.equal(placed.sizes, rows.sizes)
    assert torch.equal(placed.seen, in_place(2, 2, torch.device("cpu")))
    assert len(levels) == len(made.maps)
    for level, shape in zip(levels, made.maps, strict=True):
        wanted = [-(-side // int(step)) for side, step in zip(placed.canvas, shape.stride, strict=True)]
        assert (level.shape[1], list(level.shape[2:])) == (shape.channels, wanted)
    pyramid = Pyramid(made.maps, Size.of("tiny").width, width=16, finest=2)
    with torch.no_grad():
        found = pyramid(tokens, "image")
    assert pyramid.strides[0] in ((2.0, 2.0), made.maps[-1].stride)
    for level, stride in zip(found, pyramid.strides, strict=True):
        assert level.shape[1] == 16
        assert [side * step for side, step in zip(level.shape[2:], stride, strict=True)] >= list(placed.canvas)


def test_cells_keep_their_places_when_a_map_is_enlarged() -> None:
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert enlarged(x, [2, 2], [3, 5])[0, 0].tolist() == [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]
    assert enlarged(x, [1, 1], [2, 4])[0, 0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5]]


def test_rows_without_the_input_say_nothing_in_the_pyramid() -> None:
    pyramid = Pyramid([Map(4, (2.0, 2.0, 2.0))], 8, width=8, finest=1)
    level, values = torch.randn(2, 4, 2, 2, 2), torch.randn(2, 8, 8)
    present = {"scan": torch.tensor([True, False])}

    def said(level: torch.Tensor) -> torch.Tensor:
        tokens = Tokens(values, torch.ones(2, 8, dtype=torch.bool), levels={"scan": [level]}, present=present)
        return pyramid(tokens, "scan")[0]

    first, second = said(level), said(level + 1)
    assert first.shape == (2, 8, 4, 4, 4)
    assert not torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


# ---- which input an output lies on ---------------------------------------------------------------------------------------


class Dots(Spatial):
    """An output that lies on a picture, for the tests."""

    type = "dots"


PICTURE, WORDS = {"type": "image"}, {"type": "text"}


def test_an_output_lies_on_the_only_picture_and_the_picture_keeps_its_pixels() -> None:
    recipe = Recipe(data=[{}], inputs={"photo": PICTURE, "words": WORDS}, outputs={"spots": Dots()})
    assert recipe.outputs["spots"].on == "photo"  # type: ignore[attr-defined]
    photo = recipe.inputs["photo"]
    assert isinstance(photo, Image)
    assert photo.whole
    assert photo.read(np.zeros((900, 1200, 3), np.uint8), lambda path: b"").shape == (900, 1200, 3)
    assert Image().read(np.zeros((900, 1200, 3), np.uint8), lambda path: b"").shape != (900, 1200, 3)
    assert photo.beside(recipe.inputs, recipe.outputs).mirror


def test_which_picture_is_meant_has_to_be_said() -> None:
    def recipe(**fields: str) -> Recipe:
        return Recipe(
            data=[{}], inputs={"left": PICTURE, "right": PICTURE, "words": WORDS}, outputs={"spots": Dots(**fields)}
        )

    with pytest.raises(RecipeError, match=r"one of left, right.*Fix: say which it lies on: on: left"):
        recipe()
    with pytest.raises(RecipeError, match=r"'lefd'.*left"):
        recipe(on="lefd")
    with pytest.raises(RecipeError, match=r"an input that a dots can lie on.*name left or right"):
        recipe(on="words")
    with pytest.raises(RecipeError, match="an answer about places"):
        Recipe(data=[{}], inputs={"words": WORDS}, outputs={"spots": Dots()})
    made = recipe(on="right")
    right, left = made.inputs["right"], made.inputs["left"]
    assert isinstance(right, Image)
    assert isinstance(left, Image)
    assert right.whole
    assert not left.whole
    assert not right.beside(made.inputs, made.outputs).mirror  # the other picture would not move with it
