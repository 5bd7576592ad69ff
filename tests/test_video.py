"""Films: how they are read, windows over tables of frames, and what padding may not do. The contract suite runs elsewhere."""

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from endwise.data.dataset import fit_contracts, prepare
from endwise.errors import BadValue, EndwiseError, RecipeError
from endwise.modalities.video import Video
from endwise.modalities.video.films import chosen
from endwise.modalities.video.network import VideoEncoder
from endwise.model import Model
from endwise.nn.size import Size
from endwise.recipe import Recipe
from endwise.rows import file_fetcher

FETCH = file_fetcher(".")


def film(frames: int, height: int = 12, width: int = 20) -> np.ndarray:
    """A grey that becomes lighter, with a red line that goes down: every frame can be told."""
    pixels = np.zeros((frames, height, width, 3), np.uint8)
    for frame in range(frames):
        pixels[frame] = 5 * frame + 5
        pixels[frame, frame % height] = (200, 0, 0)
    return pixels


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Pillow.fromarray(pixels).save(out, format="PNG")
    return out.getvalue()


def animation(pixels: np.ndarray, kind: str, **more: Any) -> bytes:
    out = io.BytesIO()
    pictures = [Pillow.fromarray(item) for item in pixels]
    pictures[0].save(out, format=kind, save_all=True, append_images=pictures[1:], **more)
    return out.getvalue()


def packed(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_every_way_to_bring_a_film_is_the_same(tmp_path: Path) -> None:
    pixels = film(11)
    files = [png(item) for item in pixels]
    for number, data in enumerate(files):
        (tmp_path / f"{number}.png").write_bytes(data)
    names = [f"{number}.png" for number in range(11)]
    order = [f"walk/{number}.png" for number in (10, 2, 0, 1, *range(3, 10))]  # a zip keeps no order; names do
    ways = [
        pixels, list(pixels), files, names, json.dumps(names), [Pillow.fromarray(item) for item in pixels],
        animation(pixels, "WEBP", lossless=True, duration=100), animation(pixels, "PNG", duration=100),
        packed({"notes.txt": b"no picture", **{name: files[int(name[5:-4])] for name in order}}),
    ]  # fmt: skip
    for raw in ways:
        found = Video(frames=None).read(raw, file_fetcher(tmp_path))
        np.testing.assert_array_equal(found, pixels)
        assert found.dtype == np.uint8


def test_a_gif_is_read_with_its_colours() -> None:
    found = Video().read(animation(film(4), "GIF", duration=100), FETCH)
    assert found.shape == (4, 12, 20, 3)
    assert np.abs(found.astype(int) - film(4)).mean() < 2


@pytest.mark.parametrize(
    ("count", "most", "places"), [(5, None, [0, 1, 2, 3, 4]), (5, 9, [0, 1, 2, 3, 4]), (9, 3, [0, 4, 8]), (9, 1, [8])]
)
def test_a_long_film_is_looked_at_evenly(count: int, most: int | None, places: list[int]) -> None:
    assert chosen(count, most) == places
    pixels = film(count, height=16)
    np.testing.assert_array_equal(Video(frames=most).read(pixels, FETCH), pixels[places])


def test_of_a_file_so_many_frames_a_second_are_taken() -> None:
    pixels = film(20, height=24)
    moving = animation(pixels, "WEBP", lossless=True, duration=100)  # ten a second
    np.testing.assert_array_equal(Video(fps=2, frames=None).read(moving, FETCH), pixels[::5])
    some = Video(frames=4).read(moving, FETCH)  # of pictures whose number is not known beforehand
    taken = [int(np.flatnonzero((pixels == frame).all((1, 2, 3)))[0]) for frame in some]
    assert len(taken) == 4
    assert taken[0] == 0
    assert taken[-1] >= 16
    assert min(np.diff(taken)) >= 4


def test_large_pictures_are_kept_smaller_and_grey_is_repeated() -> None:
    found = Video().read(np.zeros((2, 600, 800), np.uint8), FETCH)
    assert found.shape[3] == 1
    assert found.shape[1] * found.shape[2] <= 224**2
    mixed = [np.zeros((8, 8), np.uint8), np.ones((8, 8, 3), np.uint8)]
    assert Video().read(mixed, FETCH).shape == (2, 8, 8, 3)


def test_a_video_file_is_decoded() -> None:
    av = pytest.importorskip("av")
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 10 * number, np.uint8), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    found = Video(fps=5, frames=None).read(out.getvalue(), FETCH)
    assert found.shape == (10, 16, 32, 3)
    assert np.abs(found.mean((1, 2, 3)) - 20 * np.arange(10)).max() < 6


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ([], ["without a picture"]),
        ("[1.jpg", ["JSON"]),
        ([png(film(1)[0]), None], ["picture 2", "missing"]),
        ([png(film(1)[0]), b"no picture"], ["picture 2", "not a"]),
        ([film(1)[0], film(1, height=13)[0]], ["picture 2", "20 x 13", "20 x 12", "one size"]),
        ([film(1)[0], film(1)[0].astype(np.uint16)], ["8 and of 16 bits"]),
        (np.zeros((2, 3)), ["[frame, height, width"]),
        (packed({"a.txt": b"x"}), ["zip without a picture"]),
        (b"PK\x03\x04broken", ["zip is damaged"]),
        (b"GIF89a and nothing more", ["cannot be read"]),
        (3, ["path or the bytes of a film"]),
    ],
)
def test_a_value_that_is_no_film_is_refused(raw: Any, words: Sequence[str]) -> None:
    with pytest.raises(BadValue) as refused:
        Video().read(raw, FETCH)
    assert all(word in str(refused.value) for word in words), refused.value


@pytest.mark.parametrize(
    ("settings", "word"), [({"fps": 0.0}, "fps"), ({"frames": 0}, "frames"), ({"side_px": 1}, "side_px")]
)
def test_declarations_that_make_no_sense_are_refused(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(RecipeError, match=word):
        Video(**settings)


# ---- windows ---------------------------------------------------------------------------------------------------------


def drive(count: int, **columns: Any) -> dict[str, list[Any]]:
    sides = ["train"] * (count - 20) + ["val"] * 10 + ["test"] * 10
    angles = [float(np.sin(number)) for number in range(count)]
    return {"image": [png(item) for item in film(count, height=64)], "angle": angles, "side": sides, **columns}


def driving(data: Any, **settings: Any) -> Recipe:
    return Recipe(
        name="drive",
        data={"path": data, "windows": {"past": 3}, "split": "side", **settings},
        inputs={"film": {"type": "video", "column": "image", "frames": None}},
        outputs={"angle": "number"},
        trunk={"width": 32, "depth": 1, "dropout": 0.0},
        train={"size": "tiny"},
    )


def test_a_window_is_the_frames_before_its_row_and_on_one_side() -> None:
    data = drive(40)
    dataset = prepare(driving(data))
    frames = film(40, height=64)
    assert len(dataset) == 38
    for row in (0, 17, 37):
        np.testing.assert_array_equal(dataset.fields["film"][row], frames[row : row + 3])
        assert float(dataset.raw("angle", row)) == data["angle"][row + 2]
    assert dataset.splits.train.tolist() == list(range(18))
    assert dataset.splits.val.tolist() == list(range(20, 28))
    assert dataset.splits.test.tolist() == list(range(30, 38))


def test_a_frame_that_is_missing_makes_its_films_missing() -> None:
    data = drive(40)
    data["image"][5] = None
    present = prepare(driving(data)).fields["film"].present
    assert np.flatnonzero(~present).tolist() == [3, 4, 5]


def test_one_column_is_one_film() -> None:
    recipe = driving(drive(40))
    both = {**recipe.inputs, "image": recipe.inputs["film"]}
    with pytest.raises(EndwiseError, match="no other field"):
        prepare(Recipe(**{**recipe.to_dict(), "data": recipe.data, "inputs": both}))
    with pytest.raises(EndwiseError, match="'picture'"):
        prepare(driving({**drive(40), "picture": drive(40)["image"]}).replace(**{"inputs.film.column": "pictures"}))


# ---- the network -----------------------------------------------------------------------------------------------------


def encoder(recipe: Recipe) -> tuple[Model, VideoEncoder]:
    model = Model.build(recipe, fit_contracts(recipe, prepare(recipe)), seed=0)
    found = model.network.encoder("film")
    assert isinstance(found, VideoEncoder)
    return model, found


def test_padding_has_no_say_in_the_norms_of_training() -> None:
    _, network = encoder(driving(drive(40)))
    network.augment = False
    network.train()
    values = torch.from_numpy(np.stack([film(3, 64), film(6, 64)[3:]]))
    sizes = torch.tensor([[3, 64, 20], [2, 64, 20]])
    one = network(values, sizes)
    values[1, 2] = 255
    other = network(values, sizes)
    longer = network(torch.cat([values, values], dim=1), sizes)
    assert other.mask.sum(1).tolist() == (one.mask.sum(1)).tolist()
    for found in (other, longer):
        same = [
            torch.allclose(one.values[row][one.mask[row]], found.values[row][found.mask[row]], atol=1e-4)
            for row in (0, 1)
        ]
        assert all(same)


def test_what_training_changes_it_changes_in_all_frames_alike() -> None:
    _, network = encoder(driving(drive(40)))
    seen: list[torch.Tensor] = []
    told = network.picture.told

    def watched(x: torch.Tensor, placed: Any) -> Any:
        seen.append(x.detach())
        return told(x, placed)

    network.picture.told = watched  # type: ignore[method-assign]
    network.train()
    still = torch.from_numpy(np.repeat(film(1, 64), 4, axis=0)[None])
    network(still.expand(2, -1, -1, -1, -1), torch.tensor([[4, 64, 20]] * 2))
    (pictures,) = seen
    first, second = pictures[:4], pictures[4:]
    assert torch.equal(first, first[:1].expand_as(first))
    assert torch.equal(second, second[:1].expand_as(second))


def test_the_order_of_frames_is_heard() -> None:
    model, _ = encoder(driving(drive(40)))
    pixels = film(3, 64)
    forward, backward = (model.predict({"film": item})["angle"] for item in (pixels, pixels[::-1].copy()))
    assert forward != backward


def test_the_encoder_of_patches_sees_films_too() -> None:
    declared = Video(backbone="vit")
    contract = declared.fit(iter([film(3, 64), film(4, 64)]), missing=0, role="input")
    assert (contract.fewest, contract.most, contract.count) == (3, 4, 2)
    network = declared.encoder(contract, Size.of("tiny", width=32, depth=1))
    found = network(torch.from_numpy(film(3, 64)[None]), torch.tensor([[3, 64, 20]]))
    assert found.values.shape[2] == 32
    assert int(found.mask.sum()) == found.values.shape[1]
