"""Pictures: what can be read, what is refused, what is learnt about them, and what the network makes of them."""

import base64
import contextlib
import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from torch.nn import functional as F

from endwise.batch import Ragged
from endwise.data.dataset import fit_contracts, prepare
from endwise.errors import BadValue, RecipeError
from endwise.modalities.category import Category
from endwise.modalities.image import Image, ImageContract, antialias, canvas, decode
from endwise.modalities.number import Number
from endwise.model import Model
from endwise.network import Network
from endwise.nn.efficientnet import EfficientNetLite
from endwise.nn.interface import Encoder
from endwise.nn.size import Size
from endwise.nn.vision import BatchNorm, Changes, ConvNet, augment, resize
from endwise.objective import Objective
from endwise.optimise import Optimiser
from endwise.recipe import Recipe

KEPT = 448 * 448


def no_file(path: str) -> bytes:
    raise AssertionError(f"nothing should be fetched, but {path} was")


def gradient(height: int = 20, width: int = 30) -> np.ndarray:
    """A smooth picture: JPEG keeps it nearly as it is, and every turn of it is another picture."""
    rows, columns = np.linspace(0, 200, height)[:, None], np.linspace(0, 250, width)[None]
    return np.stack([rows + 0 * columns, columns + 0 * rows, (rows + columns) / 2], axis=2).astype(np.uint8)


def saved(picture: Any, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    (picture if isinstance(picture, Pillow.Image) else Pillow.fromarray(picture)).save(file, kind, **options)
    return file.getvalue()


def read(raw: Any, **fields: Any) -> np.ndarray:
    return Image(**fields).read(raw, no_file)


# ---- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM"])
def test_every_usual_format_gives_height_width_and_three_channels(kind: str) -> None:
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
    pixels = read(saved(gradient(), kind, **options))
    assert pixels.shape == (20, 30, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - gradient()).max() <= {"JPEG": 12, "GIF": 32}.get(kind, 0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP"])
def test_a_grey_file_has_one_channel(kind: str) -> None:
    assert read(saved(gradient()[..., 0], kind)).shape == (20, 30, 1)


def test_sixteen_bits_are_kept() -> None:
    pixels = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    for kind in ("PNG", "TIFF"):
        found = read(saved(pixels, kind))
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found[..., 0], pixels)


def test_transparency_is_laid_on_white() -> None:
    clear = np.zeros((4, 4, 4), np.uint8)
    clear[:2, :, 3] = 255  # an opaque black half, a transparent one
    expected = np.repeat(np.array([0, 0, 255, 255], np.uint8), 4).reshape(4, 4)
    grey = Pillow.merge("LA", (Pillow.new("L", (4, 4)), Pillow.fromarray(clear[..., 3])))
    palette = Pillow.fromarray(clear[..., 3] // 255).convert("P")
    palette.putpalette([0, 0, 0, 0, 0, 0] + [9] * 762)
    for raw in (saved(clear, "PNG"), clear, saved(grey, "PNG"), saved(palette, "PNG", transparency=0)):
        np.testing.assert_array_equal(read(raw)[..., 0], expected)
    assert read(saved(grey, "PNG")).shape[2] == 1


def test_cmyk_and_bilevel_and_palette_files_are_read() -> None:
    assert read(saved(Pillow.fromarray(gradient()).convert("CMYK"), "JPEG")).shape == (20, 30, 3)
    assert set(np.unique(read(saved(Pillow.fromarray(gradient()).convert("1"), "PNG")))) == {0, 255}
    assert read(saved(Pillow.fromarray(gradient()).convert("P"), "PNG")).shape == (20, 30, 3)


def test_a_picture_is_turned_as_its_exif_says() -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    turned = read(saved(gradient(), "JPEG", exif=exif, quality=95))
    assert turned.shape == (30, 20, 3)
    assert np.abs(turned.astype(int) - np.rot90(gradient(), -1)).max() <= 12


def test_a_file_with_several_frames_is_refused() -> None:
    frames = [Pillow.fromarray(np.full((4, 4), value, np.uint8)) for value in (0, 99, 200)]
    for kind in ("GIF", "TIFF", "WEBP", "PNG"):
        with pytest.raises(BadValue, match="several frames or pages"):
            read(saved(frames[0], kind, save_all=True, append_images=frames[1:]))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF"])
@pytest.mark.parametrize("share", [0.2, 0.6])
def test_a_cut_off_file_is_refused_and_never_filled_up(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    data = saved(noise, kind)
    with pytest.raises(BadValue, match=r"damaged|not a JPEG"):
        read(data[: int(len(data) * share)])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF"]), st.data())
def test_damaged_files_give_pixels_or_a_bad_value_and_nothing_else(kind: str, data: st.DataObject) -> None:
    file = bytearray(saved(gradient(), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadValue):
        assert read(bytes(file)).ndim == 3


def test_what_is_no_picture_is_named() -> None:
    with pytest.raises(BadValue, match=r"not a JPEG, PNG, .* begins with b'<html>"):
        read(b"<html>404 not found</html>")
    with pytest.raises(BadValue, match="empty"):
        read(b"")
    with pytest.raises(BadValue, match="path or the bytes of a picture, got float"):
        read(3.5)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked() -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    for side in (9_500, 60_000):
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        bomb = (
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
        )
        with pytest.raises(BadValue, match="more than the 80 million"):
            read(bomb)
    jpeg = bytearray(saved(gradient(), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    with pytest.raises(BadValue, match="60000 x 60000 pixels"):
        read(bytes(jpeg))


def test_a_path_is_fetched_and_a_data_uri_is_not() -> None:
    data = saved(gradient(), "PNG")
    np.testing.assert_array_equal(Image().read("a.png", lambda path: data if path == "a.png" else b""), gradient())
    np.testing.assert_array_equal(read("data:image/png;base64," + base64.b64encode(data).decode()), gradient())
    np.testing.assert_array_equal(read({"bytes": data, "path": None}), gradient())
    with pytest.raises(BadValue, match="not base64"):
        read("data:image/png;base64,%%%")


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[0, 255]], np.uint8), np.array([[0, 255]], np.uint8)),
        (np.array([[0, 65_535]], np.uint16), np.array([[0, 65_535]], np.uint16)),
        (np.array([[0, 255]], np.int64), np.array([[0, 255]], np.uint8)),
        (np.array([[0.0, 0.5, 1.0]]), np.array([[0, 32_768, 65_535]], np.uint16)),
        (np.array([[False, True]]), np.array([[0, 255]], np.uint8)),
    ],
)
def test_arrays_in_memory_keep_their_meaning(array: np.ndarray, expected: np.ndarray) -> None:
    for raw in (array, array[..., None]):
        found = read(raw)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found[..., 0], expected)
    if array.dtype != np.uint16:  # a list has no type: whole numbers are taken for 8 bits
        np.testing.assert_array_equal(read(array.tolist()), read(array))


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((4, 4)) + 1.5, r"from 1.5 to 1.5: expected floats in \[0, 1\]"),
        (np.full((4, 4), np.nan), "expected floats"),
        (np.full((4, 4), 300), "expected 0 to 255 in int64"),
        (np.zeros((3, 32, 32), np.uint8), r"channels first: pass array.transpose\(1, 2, 0\)"),
        (np.zeros((4, 4, 2), np.uint8), "is no picture"),
        (np.zeros(4, np.uint8), "is no picture"),
        (np.zeros((0, 4), np.uint8), "no pixels"),
        (np.full((2, 2), "a"), "is no picture"),
    ],
)
def test_arrays_that_are_no_picture_are_refused(array: np.ndarray, reason: str) -> None:
    with pytest.raises(BadValue, match=reason):
        read(array)


def test_a_pil_image_is_a_picture() -> None:
    np.testing.assert_array_equal(read(Pillow.fromarray(gradient())), gradient())


def test_grey_is_read_as_grey() -> None:
    pixels = gradient()
    expected = np.asarray(Pillow.fromarray(pixels).convert("L")).astype(int)
    for raw in (pixels, saved(pixels, "PNG")):
        found = read(raw, channels="grey")
        assert found.shape == (20, 30, 1)
        assert np.abs(found[..., 0] - expected).max() <= 1


def test_much_larger_pictures_are_reduced_as_they_are_read() -> None:
    large = np.asarray(Pillow.fromarray(gradient()).resize((1500, 1000), Pillow.Resampling.BILINEAR))
    expected = large.reshape(20, 50, 30, 50, 3).mean((1, 3))
    for raw in (large, saved(large, "PNG"), saved(large, "JPEG"), large.astype(np.uint16) * 257):
        found = read(raw)
        assert found.shape[0] * found.shape[1] <= KEPT
        assert found.shape[1] / found.shape[0] == pytest.approx(1.5, abs=0.01)
        small = antialias(found.shape[0], 20), antialias(found.shape[1], 30)
        again = np.einsum("yh,hwc,xw->yxc", small[0], found / (257 if found.dtype == np.uint16 else 1), small[1])
        assert np.abs(again - expected)[1:-1, 1:-1].max() < 4
    assert read(saved(large, "JPEG"), side_px=64).size <= 3 * 128 * 128
    assert read(np.zeros((5, 30_000), np.uint8)).shape == (5, 776, 1)


def test_both_jpeg_decoders_give_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("simplejpeg")
    noise = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    large = np.asarray(Pillow.fromarray(noise).resize((2001, 1333)))
    files = [saved(picture, "JPEG", quality=80, subsampling=sub) for picture in (noise, large) for sub in (0, 2)]
    fast = [decode(file, KEPT) for file in files]
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    for file, expected in zip(files, fast, strict=True):
        np.testing.assert_array_equal(decode(file, KEPT), expected)


def test_the_declaration_and_the_reader_load_no_torch() -> None:
    code = (
        "import sys, io, numpy as np; from endwise.modalities.image import Image;"
        "value = Image().read(np.zeros((4, 4), np.uint8), None); Image().fit([value], missing=0, role='input');"
        "assert not {'torch', 'pydantic', 'sklearn', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- the contract ----------------------------------------------------------------------------------------------------


def fitted(values: list[np.ndarray], **fields: Any) -> ImageContract:
    return Image(**fields).fit(iter(values), missing=0, role="input")


def test_the_contract_says_what_the_pictures_are_like() -> None:
    dark, light = np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 255, np.uint8)
    contract = fitted([dark, light])
    assert (contract.height, contract.width, contract.channels, contract.bits) == (32, 32, 3, 8)
    assert contract.uniform
    assert contract.mean == (0.5, 0.5, 0.5)
    assert contract.deviation == (0.5, 0.5, 0.5)
    assert ImageContract.from_dict(contract.to_dict()) == contract
    assert Image().summary(contract) == "colour pictures of 32 x 32 px, seen at 32 x 32 or less"


def test_sizes_bits_and_channels_may_differ_from_row_to_row() -> None:
    values = [np.zeros((100, 200, 1), np.uint8), np.zeros((100, 200, 3), np.uint8), np.zeros((50, 90, 1), np.uint16)]
    contract = fitted(values)
    assert not contract.uniform
    assert (contract.channels, contract.bits) == (3, 16)
    assert (contract.smallest, contract.median, contract.largest) == ((50, 90), (100, 200), (100, 200))
    changed = [Image().transform(value, contract) for value in values]
    assert {(value.shape[2], value.dtype.name) for value in changed} == {(3, "uint16")}
    assert contract.deviation == (1.0, 1.0, 1.0)  # constant pictures: nothing to divide by


def test_transform_keeps_the_brightness() -> None:
    value = np.full((2, 2, 3), 200, np.uint8)
    grey, wide = fitted([np.zeros((2, 2, 1), np.uint8)]), fitted([np.zeros((2, 2, 1), np.uint16)])
    np.testing.assert_array_equal(Image().transform(value, grey), np.full((2, 2, 1), 200, np.uint8))
    np.testing.assert_array_equal(Image().transform(value, wide), np.full((2, 2, 1), 200 * 257, np.uint16))
    again = Image().transform(np.full((2, 2, 1), 200 * 257, np.uint16), grey)
    np.testing.assert_array_equal(again, np.full((2, 2, 1), 200, np.uint8))


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(8, 512))
def test_the_canvas_has_the_area_and_the_aspect_asked_for(height: int, width: int, side: int) -> None:
    tall, wide = canvas(height, width, side)
    assert tall % 8 == wide % 8 == 0
    assert min(tall, wide) >= 8
    assert tall / wide <= 3.9 + 100 / side
    assert abs(np.sqrt(tall * wide) - side) <= 8
    wanted = np.clip(height / width, 1 / 3, 3)
    assert abs(tall - side * np.sqrt(wanted)) <= 8


def test_the_canvas_is_the_pictures_own_up_to_64_px_and_bounded_above() -> None:
    assert fitted([np.zeros((28, 28, 1), np.uint8)]).height == 28
    large = fitted([np.zeros((160, 320, 3), np.uint8)])
    assert (large.height, large.width) == (160, 320)
    huge = fitted([np.zeros((448, 448, 3), np.uint8)])
    assert (huge.height, huge.width) == (224, 224)
    asked = fitted([np.zeros((160, 320, 3), np.uint8)], side_px=64)
    assert (asked.height, asked.width) == (48, 88)


def test_a_blank_is_a_legal_row() -> None:
    for values in ([gradient()], [gradient(), gradient(8, 8)], [gradient().astype(np.uint16)]):
        contract = fitted(values)
        blank = Image().blank(contract)
        assert blank.dtype == values[0].dtype
        Ragged.stack([Image().transform(values[0], contract), blank], 2)


def test_a_column_without_a_single_picture_still_has_a_contract() -> None:
    contract = Image().fit(iter([]), missing=3, role="input")
    assert (contract.count, contract.missing) == (0, 3)
    assert Image().blank(contract).shape[2] == contract.channels


def test_hand_features_take_any_picture_and_flag_a_missing_one() -> None:
    values = [gradient(), np.full((64, 50, 1), 9_000, np.uint16), None]
    features = Image().hand_features().fit(values).transform(values)
    assert features.shape == (3, 581)
    assert np.isfinite(features).all()
    np.testing.assert_array_equal(features[:, -1], [0, 0, 1])
    assert not features[2, :-1].any()


def test_hand_features_tell_stripes_from_stripes() -> None:
    across = np.tile(np.array([[0], [255]], np.uint8).repeat(4, 0), (4, 32))[..., None]
    features = Image().hand_features().fit([]).transform([across, across.transpose(1, 0, 2)])
    assert np.abs(features[0] - features[1]).max() > 0.3


def test_the_preview_is_a_small_data_uri() -> None:
    for pixels, kind in ((gradient(), "png"), (np.zeros((400, 300, 1), np.uint16), "jpeg")):
        shown = Image().preview(pixels, fitted([pixels]))
        assert shown["kind"] == "image"
        head, _, body = shown["data"].partition(",")
        assert head == f"data:image/{kind};base64"
        assert max(Pillow.open(io.BytesIO(base64.b64decode(body))).size) <= 160


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"side_px": 4}, "side_px"),
        ({"side_px": 224.5}, "side_px"),
        ({"shift_share": 0.7}, "shift_share"),
        ({"turn_deg": -1.0}, "turn_deg"),
        ({"channels": "gray"}, "channels"),
        ({"backbone": "resnet"}, "backbone"),
        ({"erase_share": 2}, "erase_share"),
    ],
)
def test_wrong_fields_are_refused_by_name(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(RecipeError, match=rf"Image\.{name} = .* Fix: "):
        Image(**fields)


def test_mirroring_is_for_classes_only_unless_it_is_asked_for() -> None:
    assert Image().beside({}, {"kind": Category()}).mirror is True
    assert Image().beside({}, {"kind": Category(), "angle": Number()}).mirror is False
    assert Image(mirror=True).beside({}, {"angle": Number()}).mirror is True
    assert Image(mirror=False).beside({}, {"kind": Category()}).mirror is False


# ---- the network -----------------------------------------------------------------------------------------------------


def encoder(values: list[np.ndarray], **fields: Any) -> tuple[Encoder, Callable[[list[np.ndarray]], Ragged]]:
    """A tiny encoder with settled running statistics, and how rows are put together for it."""
    torch.manual_seed(0)
    declared = Image(**fields)
    contract = declared.fit(values, missing=0, role="input")
    made = declared.encoder(contract, Size.of("tiny"))

    def batch(rows: list[np.ndarray]) -> Ragged:
        return Ragged.stack([declared.transform(row, contract) for row in rows], 2).to("cpu")

    rows = batch(values)
    for _ in range(3):
        made(rows.values, rows.sizes)
    return made.eval(), batch


def pictures(*sizes: tuple[int, int], channels: int = 3, dtype: Any = np.uint8) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, np.iinfo(dtype).max, (*size, channels), dtype=dtype) for size in sizes]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=1, max_size=4),
    st.integers(1, 40),
    st.integers(2, 40),  # interpolate() itself is wrong from one column to one column (torch 2.13)
)
def test_resizing_a_mixed_batch_equals_resizing_each_picture_alone(
    sizes: list[tuple[int, int]], height: int, width: int
) -> None:
    rows = [torch.rand(*size, 2) for size in sizes]
    largest = tuple(max(size[axis] for size in sizes) for axis in (0, 1))
    padded = torch.rand(len(rows), *largest, 2)  # whatever lies in the padding does not matter
    for index, row in enumerate(rows):
        padded[index, : row.shape[0], : row.shape[1]] = row
    found = resize(padded, torch.tensor(sizes), height, width)
    for index, row in enumerate(rows):
        alone = F.interpolate(
            row.permute(2, 0, 1)[None], (height, width), mode="bilinear", antialias=True, align_corners=False
        )
        torch.testing.assert_close(found[index], alone[0].permute(1, 2, 0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("backbone", ["conv", "vit"])
def test_a_picture_alone_equals_the_picture_in_a_batch_of_larger_ones(backbone: str) -> None:
    values = pictures((30, 40), (50, 45), (64, 20))
    made, batch = encoder(values, backbone=backbone)
    with torch.no_grad():
        rows = batch(values)
        together = made(rows.values, rows.sizes).values
        for index, value in enumerate(values):
            row = batch([value])
            torch.testing.assert_close(made(row.values, row.sizes).values[0], together[index], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("augment", [True, False])
def test_a_recipe_may_leave_the_training_pictures_as_they_are(augment: bool) -> None:
    rows = [{"picture": value, "kind": "ab"[index % 2]} for index, value in enumerate(pictures(*[(24, 24)] * 8))]
    recipe = Recipe(
        data=rows, inputs={"picture": "image"}, outputs={"kind": "category"}, trunk={"dropout": 0.0},
        train={"size": "tiny", "augment": augment},
    )  # fmt: skip
    dataset = prepare(recipe)
    network = Model.build(recipe, fit_contracts(recipe, dataset), seed=0).network.train()
    given = torch.from_numpy(np.stack([row["picture"] for row in rows]))
    sizes = torch.tensor([[24, 24]] * len(rows))

    def seen(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return network.encoder("picture")(given, sizes).placed["image"].shown

    assert torch.equal(seen(1), seen(2)) != augment


def test_the_training_path_for_pictures_of_one_size_equals_the_general_one() -> None:
    for size in ((32, 32), (120, 200)):
        values = pictures(size, size)
        made, batch = encoder(values)
        made.augment = False
        rows = batch(values)
        general = made.canvas(rows.values, rows.sizes)[0]
        quick = made.train().canvas(rows.values, rows.sizes)[0]
        torch.testing.assert_close(quick, general, atol=0 if size == (32, 32) else 1e-4, rtol=0)


@pytest.mark.parametrize("backbone", ["conv", "vit"])
def test_the_gradient_reaches_every_pixel(backbone: str) -> None:
    values = pictures((40, 30), (32, 32))
    made, batch = encoder(values, backbone=backbone)
    rows = batch(values)
    pixels = (rows.values.float() / 255).requires_grad_()
    made(pixels, rows.sizes).values.square().sum().backward()
    assert pixels.grad is not None
    for row, (height, width) in zip(pixels.grad, rows.sizes.tolist(), strict=True):
        assert (row[:height, :width].abs().sum(2) > 0).all()
        assert not row[height:].any()
        assert not row[:, width:].any()


def test_eight_and_sixteen_bits_and_floats_are_the_same_picture() -> None:
    values = pictures((16, 16), (16, 16))
    made, batch = encoder(values)
    rows = batch(values)
    with torch.no_grad():
        expected = made(rows.values, rows.sizes).values
        for same in (rows.values.to(torch.int32).mul(257).to(torch.uint16), rows.values.float() / 255):
            torch.testing.assert_close(made(same, rows.sizes).values, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "dial", "tokens"),
    [((28, 28), "small", (4, 4)), ((32, 32), "small", (4, 4)), ((64, 64), "small", (8, 8)), ((8, 8), "tiny", (1, 1)),
     ((160, 320), "small", (6, 12)), ((448, 448), "base", (7, 7)), ((480, 360), "tiny", (7, 5))],
)  # fmt: skip
def test_the_grid_has_a_bounded_number_of_tokens(size: tuple[int, int], dial: str, tokens: tuple[int, int]) -> None:
    declared = Image()
    contract = declared.fit(pictures(size), missing=0, role="input")
    made = declared.encoder(contract, Size.of(dial)).eval()
    value = Ragged.stack(pictures(size), 2).to("cpu")
    with torch.no_grad():
        out = made(value.values, value.sizes)
    (grid,) = out.grids.values()
    assert grid[0] == tokens
    assert out.values.shape == (1, tokens[0] * tokens[1], Size.of(dial).width)
    assert out.mask.all()
    (levels,) = out.levels.values()
    assert levels[-1].shape[2:] == tokens


def test_augmentation_happens_in_training_only_and_follows_the_seed() -> None:
    values = pictures((32, 32), (32, 32), (32, 32))
    made, batch = encoder(values, mirror=True, erase_share=0.2)
    rows = batch(values)
    torch.testing.assert_close(made.canvas(rows.values, rows.sizes)[0], made.canvas(rows.values, rows.sizes)[0])
    made.train()
    torch.manual_seed(1)
    first, second = made.canvas(rows.values, rows.sizes)[0], made.canvas(rows.values, rows.sizes)[0]
    torch.manual_seed(1)
    assert torch.equal(made.canvas(rows.values, rows.sizes)[0], first)
    assert not torch.equal(first, second)
    made.augment = False
    assert torch.equal(made.canvas(rows.values, rows.sizes)[0], made.eval().canvas(rows.values, rows.sizes)[0])


CHANGES = {"mirror": False, "shift": 0.0, "zoom": 0.0, "turn_deg": 0.0, "light": 0.0, "erase": 0.0}


def test_shifts_move_whole_pixels_and_mirroring_mirrors() -> None:
    torch.manual_seed(0)
    x = torch.arange(64.0).reshape(1, 1, 8, 8).repeat(200, 1, 1, 1)
    moved = augment(x, Changes(**{**CHANGES, "shift": 0.25}))[0]
    assert set(moved.unique().tolist()) <= set(range(64))
    assert {float(row[0, 4, 4]) for row in moved} == {
        8.0 * (4 + down) + 4 + across for down in range(-2, 3) for across in range(-2, 3)
    }
    mirrored = augment(x, Changes(**{**CHANGES, "mirror": True}))[0]
    assert 60 < sum(torch.equal(row, x[0].flip(2)) for row in mirrored) < 140
    assert all(torch.equal(row, x[0].flip(2)) or torch.equal(row, x[0]) for row in mirrored)


def test_turns_keep_the_aspect_ratio() -> None:
    torch.manual_seed(0)
    x = torch.zeros(64, 1, 40, 80)
    x[:, :, 18:22, 28:52] = 1.0
    rows, columns = torch.arange(40)[:, None] - 19.5, torch.arange(80)[None] - 39.5
    spread = (x * (rows**2 + columns**2)).sum((1, 2, 3))  # of a bar: the same however it is turned
    turned = augment(x, Changes(**{**CHANGES, "turn_deg": 25.0}))[0]
    assert ((turned * (rows**2 + columns**2)).sum((1, 2, 3)) / spread - 1).abs().max() < 0.1
    assert float((turned - x).abs().max()) > 0.5
    zoomed = augment(x, Changes(**{**CHANGES, "zoom": 0.2}))[0]
    assert 0.5 < float((zoomed.sum((1, 2, 3)) / 96).mean()) < 1.5


def test_a_hidden_square_has_the_mean_colour() -> None:
    torch.manual_seed(0)
    hidden = augment(torch.ones(500, 3, 32, 32), Changes(**{**CHANGES, "erase": 0.5}))[0] == 0
    assert 0.1 < float(hidden.float().mean()) < 0.25
    assert hidden.flatten(1).any(1).all()


@pytest.mark.parametrize("backbone", ["conv", "vit"])
def test_a_batch_is_learnt_by_heart_also_in_bfloat16(backbone: str) -> None:
    torch.manual_seed(0)
    values = pictures(*[(16, 16)] * 8)
    made, batch = encoder(values, backbone=backbone)
    made.train()
    made.augment = False
    rows, wanted = batch(values), torch.arange(8)
    head = torch.nn.Linear(64, 8)
    weights = [*made.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=3e-3)
    for _ in range(40):
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(head(made(rows.values, rows.sizes).pooled()).float(), wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.1


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_exported_graph_takes_any_batch_height_and_width(tmp_path: Any) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    values = pictures((20, 30), (25, 16), (32, 32))
    made, batch = encoder(values)

    class Values(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = made

        def forward(self, pixels: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.encoder(pixels, sizes).values
            return out

    rows = batch(values)
    free = torch.export.Dim.AUTO
    program = torch.onnx.export(
        Values().eval(),
        (rows.values, rows.sizes),
        dynamo=True,
        dynamic_shapes=({0: free, 1: free, 2: free}, {0: free}),
        input_names=["pixels", "sizes"],
        verbose=False,
    )
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    for sizes in ([(32, 32)], [(7, 90), (40, 3)]):
        other = batch(pictures(*sizes))
        (found,) = session.run(None, {"pixels": other.values.numpy(), "sizes": other.sizes.numpy()})
        with torch.no_grad():
            expected = made(other.values, other.sizes).values.numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_what_is_said_to_be_stored_as_it_is_taken_is() -> None:
    """The loader copies such pictures straight from the store, so `transform` must give them back as they are."""
    grey, colour = np.zeros((4, 5, 1), np.uint8), np.zeros((4, 5, 3), np.uint8)
    deep = grey.astype(np.uint16)
    for fitted in ([grey], [colour], [grey, colour], [deep]):
        contract = Image().fit(fitted, missing=0, role="input")
        for value in (grey, colour, deep):
            taken = Image().transform(value, contract)
            as_is = taken.shape == value.shape and taken.dtype == value.dtype
            assert Image().stored_as_taken(value.shape, value.dtype, contract) == as_is


@pytest.mark.parametrize("made", ["conv", "tf_efficientnet_lite0"])
def test_one_tiny_picture_is_a_batch(made: str) -> None:
    """The last batch of an epoch may be one row, of whose last map one place is left."""
    network = ConvNet(3, (8, 16, 32, 64), (0, 0, 1), halvings=0) if made == "conv" else EfficientNetLite(made)
    side = 8 if made == "conv" else 32
    x = torch.rand(1, 3, side, side, requires_grad=True)
    last = network.train()(x)[-1]
    assert last.shape[2:] == (1, 1)
    (gradient,) = torch.autograd.grad(last.square().sum(), [x])
    assert float(gradient.abs().sum()) > 0
    several = torch.rand(3, 4, 2, 2)
    ours, plain = BatchNorm(4), torch.nn.BatchNorm2d(4)
    assert torch.equal(ours(several), plain(several))
    assert torch.equal(BatchNorm.like(plain).eval()(several), plain.eval()(several))


@pytest.mark.parametrize("backbone", ["conv", "vit"])
def test_the_recipes_weight_decay_rules_pictures_too(backbone: str) -> None:
    declared, priced = Image(backbone=backbone), Number()
    contracts = {
        "photo": fitted([np.zeros((32, 32, 3), np.uint8)]),
        "price": priced.fit([np.array(1.0), np.array(2.0)], missing=0, role="output"),
    }
    network = Network({"photo": declared}, {"price": priced}, contracts, Size.of("tiny"))
    objective = Objective({"price": priced}, {"price.error": 1.0}, "fixed")
    groups = Optimiser(network, objective, learning_rate=None, weight_decay=0.3).adamw.param_groups
    assert {group["weight_decay"] for group in groups} == {0.0, 0.3}


def test_small_batches_take_smaller_steps_unless_the_recipe_says_the_rate() -> None:
    """493 tiles in batches of 8 stood where they began at the rate that suits 32 rows, and were learnt at half of it."""
    declared, priced = Image(backbone="conv"), Number()
    contracts = {
        "photo": fitted([np.zeros((32, 32, 3), np.uint8)]),
        "price": priced.fit([np.array(1.0), np.array(2.0)], missing=0, role="output"),
    }
    network = Network({"photo": declared}, {"price": priced}, contracts, Size.of("tiny"))
    objective = Objective({"price": priced}, {"price.error": 1.0}, "fixed")

    def rates(learning_rate: float | None, batch_size: int) -> set[float]:
        made = Optimiser(network, objective, learning_rate=learning_rate, weight_decay=0.1, batch_size=batch_size)
        return {group["peak"] for group in made.adamw.param_groups}

    assert rates(None, 32) == rates(None, 256) == {5e-3, 1e-3}
    assert rates(None, 8) == {2.5e-3, 1e-3}
    assert rates(0.01, 8) == {0.01}


def test_the_rate_that_is_logged_is_the_one_at_which_most_weights_move() -> None:
    """A layer of a few hundred weights with a rate of its own (here that of what a picture expects of itself) is not the network's."""
    drawn = Image(on="photo")
    contracts = {name: fitted([np.zeros((32, 32, 3), np.uint8)]) for name in ("photo", "sharp")}
    network = Network({"photo": Image()}, {"sharp": drawn}, contracts, Size.of("tiny"))
    made = Optimiser(
        network, Objective({"sharp": drawn}, {"sharp.image": 1.0}, "fixed"), learning_rate=3e-3, weight_decay=0.1
    )
    assert max(group["peak"] for group in made.adamw.param_groups) > 3e-3
    made.set_rate(0.5)
    assert made.rate == pytest.approx(1.5e-3)
