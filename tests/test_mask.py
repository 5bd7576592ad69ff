"""Masks: reading, classes, answers of the picture's own size, losses, metrics, baselines. The usual promises are the
contract suite's (test_every_modality)."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from sklearn.metrics import f1_score, jaccard_score

import endwise as ew
from endwise import losses, metrics
from endwise.data.dataset import fit_contracts
from endwise.data.loader import Loader
from endwise.drawing import PNG_URI, Picture, Segmentation, from_uri, nearest, png, uri_pixels
from endwise.errors import BadValue, DataError, RecipeError
from endwise.modalities.base import Answer
from endwise.modalities.image import antialias
from endwise.modalities.mask import IGNORED, UNKNOWN, Mask, chosen
from endwise.modalities.mask.features import PixelClassifier
from endwise.model import Model
from endwise.report import build
from endwise.runner import differences
from endwise.stages import stage_recipe
from endwise.testing import check_export

NAMES = {0: "sky", 1: "road", 2: "car"}


def nothing(path: str) -> bytes:
    raise BadValue(f"no file {path}")


def file_of(numbers: np.ndarray, kind: str = "PNG", mode: str | None = None) -> bytes:
    picture = Pillow.fromarray(numbers)
    out = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(out, kind)
    return out.getvalue()


NUMBERS = np.arange(24, dtype=np.uint8).reshape(4, 6) % 5


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_grey_levels_and_palettes_are_class_numbers() -> None:
    paletted = Pillow.fromarray(NUMBERS).convert("P")
    paletted.putpalette([7, 200, 30, *range(50, 200)])  # what colours they have does not matter
    paletted.putdata(NUMBERS.ravel().tolist())
    out = io.BytesIO()
    paletted.save(out, "PNG")
    wide = (NUMBERS.astype(np.uint16) * 300).astype(np.int32)
    same = [
        file_of(NUMBERS),
        file_of(NUMBERS, "BMP"),
        file_of(NUMBERS, "TIFF"),
        out.getvalue(),
        NUMBERS,
        NUMBERS.tolist(),
    ]
    same += [Pillow.fromarray(NUMBERS), file_of(np.stack([NUMBERS] * 3, axis=-1)), Segmentation(NUMBERS, NAMES)]
    same += [Segmentation(NUMBERS, NAMES).to_json()]
    for raw in same:
        found = Mask().read(raw, nothing)
        assert found.dtype == np.uint8
        assert np.array_equal(found, NUMBERS)
    assert np.array_equal(Mask().read(file_of(wide.astype(np.uint16)), nothing), wide)
    assert set(Mask().read(file_of(NUMBERS * 60, mode="1"), nothing).ravel().tolist()) <= {0, 1}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (file_of(NUMBERS, "JPEG"), "JPEG, which changes the numbers"),
        (file_of(np.stack([NUMBERS, NUMBERS, NUMBERS + 1], axis=-1)), "which is which class cannot be known"),
        (b"not a picture", "not a PNG, TIFF, BMP or GIF file"),
        (file_of(NUMBERS)[:-30], "damaged"),
        (np.zeros((2, 2, 3), np.uint8), "no channels"),
        (np.zeros((2, 2)), "classes, so give whole ones"),
        (np.array([[-1, 2]]), "from -1 to 2"),
        (np.zeros((0, 2), np.uint8), "no mask"),
    ],
)
def test_what_is_no_mask_is_refused_with_the_reason(raw: Any, reason: str) -> None:
    with pytest.raises(BadValue, match=reason):
        Mask().read(raw, nothing)


# ---- classes ---------------------------------------------------------------------------------------------------------


def test_classes_are_learnt_from_the_training_masks() -> None:
    declared = Mask(ignore=4)
    contract = declared.fit([NUMBERS, NUMBERS[:2]], missing=1, role="output")
    assert contract.classes == ("0", "1", "2", "3")
    assert contract.ignored == 4 + 2
    assert sum(contract.places) == 36 - 6
    assert declared.transform(np.array([[0, 3, 4, 9]], np.uint8), contract).tolist() == [[0, 3, IGNORED, UNKNOWN]]
    assert "17 % unlabelled" in declared.summary(contract)
    named = Mask(classes=("good", "defect"))
    assert named.fit([np.array([[0, 255]], np.uint8)], missing=0, role="output").names == {0: "good", 255: "defect"}
    assert named.fit([np.array([[1, 1]], np.uint8)], missing=0, role="output").places == (0, 2)


def test_a_number_without_a_name_is_refused_with_the_fix() -> None:
    with pytest.raises(DataError, match=r"the number 3 in 5 training pixels.*name class 3 too, or write ignore: 3"):
        Mask(classes=("a", "b", "c")).fit([NUMBERS], missing=0, role="output")
    with pytest.raises(DataError, match="different numbers"):
        Mask().fit([np.arange(200, dtype=np.uint8).reshape(10, 20)], missing=0, role="output")
    with pytest.raises(DataError, match="1 different numbers"):
        Mask().fit([np.zeros((3, 3), np.uint8)], missing=0, role="output")
    with pytest.raises(RecipeError, match="different names"):
        Mask(classes=("a", "a"))


def test_a_mask_of_another_size_than_its_picture_is_put_aside_by_name() -> None:
    pictures = [np.full((8, 10, 3), 9 * row, np.uint8) for row in range(20)]
    masks = [np.arange(80, dtype=np.uint8).reshape(8, 10) % 2 for _ in range(20)]
    masks[3] = masks[3].T.copy()
    rows = {"photo": pictures, "what": masks}
    recipe = ew.Recipe(data={"path": rows, "max_bad": "10%"}, inputs={"photo": "image"}, outputs={"what": "mask"})
    dataset = ew.prepare(recipe)
    (bad,) = dataset.bad
    assert (bad.row, bad.field) == (3, "what")
    assert bad.reason == "the mask is 8 x 10 and photo is 10 x 8: they must be of one size, a pixel for a pixel"
    with pytest.raises(DataError, match="the mask is 8 x 10"):
        ew.prepare(recipe.replace(**{"data.max_bad": 0.0}))


# ---- answers ---------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    st.integers(2, 5),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_scores_are_resized_as_pictures_are(classes: int, canvas: tuple[int, int], size: tuple[int, int]) -> None:
    scores = np.random.default_rng(0).normal(size=(classes, *canvas)).astype(np.float32)
    rows, columns = (antialias(old, new) if old != new else np.eye(old) for old, new in zip(canvas, size, strict=True))
    whole = np.einsum("yh,chw,xw->cyx", rows, scores, columns)
    found, sure = chosen(scores, size, np.eye(len(size), len(size) + 1))
    clear = np.sort(whole, axis=0)[-1] - np.sort(whole, axis=0)[-2] > 1e-4
    assert found.shape == size
    assert np.array_equal(found[clear], whole.argmax(0)[clear])
    chances = np.exp(whole) / np.exp(whole).sum(0)
    assert sure == pytest.approx(chances.max(0).mean(), abs=1e-4)


def test_a_volume_is_written_by_the_same_code(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(0).normal(size=(3, 4, 5, 6)).astype(np.float32)
    whole, _ = chosen(scores, (8, 5, 3), np.eye(3, 4))
    monkeypatch.setattr("endwise.modalities.mask.WRITTEN_CELLS", 1)  # a slab at a time
    assert np.array_equal(chosen(scores, (8, 5, 3), np.eye(3, 4))[0], whole)
    assert whole.shape == (8, 5, 3)


def test_an_answer_is_a_png_with_the_users_numbers(tmp_path: Path) -> None:
    made = Segmentation(NUMBERS, {number: str(number) for number in range(5)})
    assert np.array_equal(np.asarray(Pillow.open(made.save(tmp_path / "mask.png"))), NUMBERS)
    assert made.to_json().startswith(PNG_URI)
    pixels, classes = uri_pixels(made.to_json())
    assert classes
    assert np.array_equal(pixels, NUMBERS)
    assert Pillow.open(io.BytesIO(from_uri(made.to_json()))).mode == "P"
    assert made["3"].sum() == (NUMBERS == 3).sum()
    assert np.array_equal(np.asarray(made), NUMBERS)
    assert made.over(np.full((40, 60, 1), 2000, np.uint16)).startswith("data:image/jpeg;base64,")
    assert repr(made).startswith("Segmentation(6 x 4: 0 21%")
    with pytest.raises(KeyError, match="there is no class"):
        made["road"]
    wide = Segmentation(NUMBERS.astype(np.uint16) * 300, {0: "a", 300: "b"})
    assert np.array_equal(np.asarray(Pillow.open(io.BytesIO(wide.png()))), NUMBERS.astype(np.uint16) * 300)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]), st.sampled_from([np.uint8, np.uint16]))
def test_pngs_are_read_by_others_and_back(height: int, width: int, channels: int, dtype: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, size=(height, width, channels)).astype(dtype)
    back, classes = uri_pixels(Picture(pixels).to_json())
    assert not classes
    assert np.array_equal(back.reshape(pixels.shape), pixels)
    if dtype is np.uint8 or channels == 1:
        assert np.array_equal(np.asarray(Pillow.open(io.BytesIO(png(pixels)))).reshape(pixels.shape), pixels)


def test_two_masks_are_the_same_but_for_a_hundredth() -> None:
    def told(numbers: np.ndarray) -> dict[str, Any]:
        return {"mask": {"value": Segmentation(numbers, NAMES).to_json()}}

    numbers = np.zeros((20, 20), np.uint8)
    near, far = numbers.copy(), numbers.copy()
    near[0, :4], far[0, :5] = 1, 1
    assert not differences([told(numbers)], [told(near)])
    assert differences([told(numbers)], [told(far)])
    assert differences([told(numbers)], [told(numbers[:19])])


# ---- the loss --------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 4), st.integers(1, 5), st.integers(1, 5), st.integers(0, 999))
def test_dice_is_a_share_and_knows_no_order_of_classes(classes: int, height: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    chances = torch.rand(2, classes, height, width).softmax(1)
    target, valid = torch.randint(0, classes, (2, height, width)), torch.rand(2, height, width) < 0.7
    found = losses.dice(chances, target, valid)
    assert ((found >= 0) & (found <= 1)).all()
    order = torch.randperm(classes)
    turned = losses.dice(chances[:, order], order.argsort()[target], valid)
    torch.testing.assert_close(found, turned)
    torch.testing.assert_close(losses.dice(torch.nn.functional.one_hot(target, classes).movedim(-1, 1).float(), target, valid),
                               torch.zeros(2))  # fmt: skip
    hidden = torch.where(valid[:, None], chances, torch.rand_like(chances))
    torch.testing.assert_close(losses.dice(hidden, target, valid), found)  # what is not valid does not matter
    assert losses.dice(chances, target, torch.zeros_like(valid)).tolist() == [0.0, 0.0]


# ---- metrics ---------------------------------------------------------------------------------------------------------


def pairs(rows: int = 5) -> tuple[list[Segmentation], list[Answer]]:
    random = np.random.default_rng(1)
    truths, answers = [], []
    for row in range(rows):
        true = random.integers(0, 3, size=(12 + row, 15)).astype(np.uint8)
        said = np.where(random.random(true.shape) < 0.6, true, random.integers(0, 3, size=true.shape)).astype(np.uint8)
        truths.append(
            Segmentation(np.where(random.random(true.shape) < 0.1, 9, true).astype(np.uint8), NAMES, ignore=9)
        )
        answers.append(Answer(Segmentation(said, NAMES)))
    return truths, answers


def test_metrics_are_those_of_scikit_learn_over_labelled_pixels() -> None:
    truths, answers = pairs()
    true = np.concatenate([item.numbers.ravel() for item in truths])
    said = np.concatenate([item.value.numbers.ravel() for item in answers])
    true, said = true[true != 9], said[true != 9]
    for metric, wanted in (
        (metrics.mean_iou(), jaccard_score(true, said, average="macro")),
        (metrics.mean_dice(), f1_score(true, said, average="macro")),
        (metrics.class_dice("road", 1), f1_score(true, said, average=None)[1]),
        (metrics.pixel_accuracy(), (true == said).mean()),
    ):
        found = metrics.estimate(metric, truths, answers)
        assert found.value == pytest.approx(wanted)
        assert found.low < found.value < found.high


def test_edges_may_be_a_little_off_and_no_more() -> None:
    numbers = np.zeros((100, 100), np.uint8)
    numbers[:, 50:] = 1
    near, far = (np.roll(numbers, step, axis=1) for step in (1, 4))
    for answer in (near, far):
        answer[:, :10], answer[:, 90:] = 0, 1  # what was rolled around
    truth = [Segmentation(numbers, NAMES)]

    def score(given: np.ndarray) -> float:
        return metrics.value(metrics.boundary_f1(), truth, [Answer(Segmentation(given, NAMES))])

    assert score(numbers) == score(near) == 1.0
    assert score(far) == 0.0
    assert score(np.zeros_like(numbers)) == 0.0
    whole = [Segmentation(np.zeros_like(numbers), NAMES)]
    assert np.isnan(metrics.value(metrics.boundary_f1(), whole, [Answer(truth[0])]))


def test_a_constant_answer_has_any_size_and_no_answer_is_wrong() -> None:
    truths, answers = pairs()
    declared = Mask(ignore=9)
    contract = declared.fit([item.numbers for item in truths], missing=0, role="output")
    trivial = declared.trivial(truths, contract)
    assert trivial.value.numbers.shape == (1, 1)
    assert metrics.value(metrics.mean_iou(), truths, [trivial] * 5) < 0.2
    assert metrics.value(metrics.mean_iou(), truths, [Answer(None)] * 5) == 0.0
    (told,) = declared.remarks(truths, answers, contract)
    assert "are unlabelled (ignore) and are in no metric" in told
    assert np.array_equal(nearest(np.array([[1, 2]]), (4, 4)), [[1, 1, 2, 2]] * 4)


def test_pixels_of_unlike_colours_are_told_apart_by_the_classical_baseline() -> None:
    random = np.random.default_rng(0)
    masks = [(random.random((10, 12)) < 0.5).astype(np.uint8).repeat(8, 0).repeat(8, 1) for _ in range(6)]
    pictures = [
        (mask[..., None] * 90 + 60 + random.integers(0, 20, (*mask.shape, 3))).astype(np.uint8) for mask in masks
    ]
    truths = [Segmentation(mask, NAMES) for mask in masks]
    model = PixelClassifier().fit(pictures[:4], truths[:4])
    answers = [Answer(Segmentation(found, NAMES)) for found in model.predict(pictures[4:])]
    assert metrics.value(metrics.pixel_accuracy(), truths[4:], answers) > 0.9


# ---- a whole recipe --------------------------------------------------------------------------------------------------


def test_from_pictures_to_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    masks, pictures = [], []
    for _ in range(40):
        mask = np.zeros((24, 32), np.uint8)
        top, left = random.integers(0, 12), random.integers(0, 16)
        mask[top : top + 12, left : left + 16] = 1
        pictures.append((mask[..., None] * 120 + random.integers(0, 60, (24, 32, 1))).astype(np.uint8))
        mask[0, 0] = 255
        masks.append(mask)
    recipe = ew.Recipe(
        name="spots", data={"path": {"photo": pictures, "spot": masks}}, inputs={"photo": "image"},
        outputs={"spot": ew.Mask(classes=("free", "spot"), ignore=255)},
        train={"size": "tiny", "steps": 12, "batch_size": 8}, trunk={"width": 32, "depth": 1},
    )  # fmt: skip
    model = ew.fit(recipe, out=tmp_path / "run")
    (answer,) = model.predict([{"photo": np.zeros((30, 50), np.uint8)}])
    assert isinstance(answer["spot"], Segmentation)
    assert answer["spot"].numbers.shape == (30, 50)
    assert answer.to_dict()["spot"]["value"].startswith(PNG_URI)
    dataset = ew.prepare(recipe)
    scored = ew.evaluate(model, dataset, dataset.splits.val)
    each = {f"{name}_{one}" for name in ("dice", "boundary_f1") for one in ("free", "spot")}
    assert set(scored.outputs["spot"]) == {"miou", "dice", "pixel_accuracy", "boundary_f1", *each}
    assert scored.baselines["spot"]["classical"]["miou"].value > scored.baselines["spot"]["trivial"]["miou"].value  # type: ignore[index]
    assert any("unlabelled" in note for note in scored.notes)
    page = build(ew.Run.open(tmp_path / "run")).read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") >= 2  # a mask over its picture, the true one and the answered


# ---- on the way to another stage -------------------------------------------------------------------------------------


def shapes(rows: int = 40) -> dict[str, list[Any]]:
    """A wide or a tall spot somewhere in a picture, where it is, and which of the two."""
    random = np.random.default_rng(1)
    found: dict[str, list[Any]] = {"photo": [], "spot": [], "kind": []}
    for row in range(rows):
        mask = np.zeros((24, 32), np.uint8)
        height, width = (4, 14) if row % 2 else (14, 4)
        top, left = random.integers(0, 24 - height), random.integers(0, 32 - width)
        mask[top : top + height, left : left + width] = 1
        found["photo"].append((mask[..., None] * 120 + random.integers(0, 60, (24, 32, 1))).astype(np.uint8))
        mask[0, 0] = 255
        found["spot"].append(mask)
        found["kind"].append("wide" if row % 2 else "tall")
    return found


def in_stages(hand_off: str, outputs: Any = None, **changes: Any) -> ew.Recipe:
    mask = {"type": "mask", "classes": ["free", "spot"], "ignore": 255}
    return ew.Recipe(
        name="kinds", data={"path": shapes()}, inputs={"photo": "image"}, outputs=outputs or {"kind": "category"},
        stages={"find": {"from": "photo", "to": {"spot": mask}},
                "tell": {"from": "spot", "to": list(outputs or ["kind"]), "hand_off": hand_off}},
        train={"size": "tiny", "steps": 4, "batch_size": 8}, trunk={"width": 32, "depth": 1}, **changes,
    )  # fmt: skip


def built(recipe: ew.Recipe) -> tuple[Model, Any, Any]:
    dataset = ew.prepare(recipe)
    contracts = fit_contracts(recipe, dataset)
    model = Model.build(recipe, contracts, seed=0)
    batch = Loader(dataset, recipe, contracts, dataset.splits.train, batch_size=6, seed=0, shuffle=False).batch(0)
    return model, model.network, batch.to("cpu")


@pytest.mark.parametrize("how", sorted(Mask.hand_offs))
def test_a_mask_goes_on_to_another_stage_in_every_way(how: str) -> None:
    _, network, batch = built(in_stages(how, regime="joint"))
    network.train()
    predictions, _ = network.taught(batch, 0.0)
    kinds = batch.targets["kind"]
    network.head("kind").loss(predictions["kind"], kinds.values, kinds.sizes)["cross_entropy"].sum().backward()
    reached = [weight.grad is not None and bool(weight.grad.any()) for weight in network.stage("find").parameters()]
    assert any(reached) == (how != "hard")
    network.eval()
    if how == "latent":
        return
    with torch.no_grad():  # a true mask in the place of the answer, but for what nobody has labelled
        given, _ = network.run(batch.inputs, batch.present, gold=batch, truth=["spot"])
        alone = network.stage("tell")({"spot": batch.targets["spot"]}, {"spot": torch.ones(6, dtype=torch.bool)})
    torch.testing.assert_close(given["kind"]["logits"], alone["kind"]["logits"])


def test_what_training_did_to_a_picture_is_undone_in_what_is_handed_on() -> None:
    _, network, _ = built(in_stages("soft", regime="joint"))
    head = network.head("spot")
    scores = torch.randn(1, 2, 8, 8)
    seen = torch.tensor([[[1.0, 0.0, 0.25], [0.0, -1.0, 1.0]]])  # moved up by two places of eight, and mirrored
    handed = head.train().handed({"scores": scores, "seen": seen}, greedy=True)
    torch.testing.assert_close(handed.scores[0, 2:], scores[0].movedim(0, -1).flip(1)[:6])
    still = head.eval().handed({"scores": scores, "seen": seen}, greedy=True)
    torch.testing.assert_close(still.scores[0], scores[0].movedim(0, -1))
    assert still.sizes.tolist() == [[8, 8]]


def test_a_mask_may_lie_on_the_mask_of_another_stage(tmp_path: Path) -> None:
    later = {"later": {"type": "mask", "classes": ["free", "spot"], "ignore": 255, "column": "spot"}}
    recipe = in_stages("straight_through", later)
    with pytest.raises(RecipeError, match="tokens have no places"):
        in_stages("latent", later)
    assert recipe.outputs["later"].under() == "spot"  # type: ignore[attr-defined]
    model = ew.fit(recipe.replace(**{"train.steps": 2, "regime": "modular"}), out=tmp_path / "run")
    assert isinstance(model.predict({"photo": np.zeros((30, 50), np.uint8)})["later"], Segmentation)


def test_masks_on_the_way_export_and_a_stage_reads_them_by_itself(tmp_path: Path) -> None:
    model = ew.fit(in_stages("soft", regime="joint").replace(**{"train.steps": 2}), out=tmp_path / "run")
    check_export(model, [{"photo": photo} for photo in shapes(6)["photo"]])
    alone = stage_recipe(in_stages("soft"), "tell")
    assert alone.inputs["spot"].handed
    built(alone)
