"""Anomalies: what is in order is learnt from, the rest is scored. The usual promises are the contract suite's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import endwise as ew
from endwise import metrics
from endwise.drawing import PNG_URI
from endwise.errors import BadValue, DataError
from endwise.modalities.anomaly import Anomaly, AnomalyMap
from endwise.modalities.anomaly.features import PixelDistance
from endwise.modalities.base import Answer


def nothing(path: str) -> bytes:
    raise BadValue(f"no file {path}")


def map_of(numbers: np.ndarray, scores: np.ndarray) -> AnomalyMap:
    return AnomalyMap(numbers.astype(np.uint8), {0: "in order", 1: "anomalous"}, scores=scores.astype(np.float32))


@pytest.mark.parametrize("raw", [True, 1, 1.0, "yes", "True", np.bool_(True), np.array(1)])
def test_a_picture_may_be_judged_as_a_whole(raw: Any) -> None:
    assert Anomaly().read(raw, nothing).tolist() == [[1]]
    assert Anomaly().read(np.array([[0, 3], [0, 0]], np.uint8), nothing).tolist() == [[0, 1], [0, 0]]
    with pytest.raises(BadValue, match="neither true nor false"):
        Anomaly().read(3, nothing)
    with pytest.raises(BadValue, match="no file scratched"):
        Anomaly().read("scratched", nothing)


def test_something_has_to_be_in_order() -> None:
    with pytest.raises(DataError, match="all with an anomaly"):
        Anomaly().fit([np.ones((1, 1), np.uint8)] * 3, missing=0, role="output")
    contract = Anomaly().fit([np.ones((4, 4), np.uint8), np.zeros((1, 1), np.uint8)], missing=0, role="output")
    assert Anomaly().summary(contract) == "1 rows in order, 1 anomalous (nothing is learnt from these)"


def test_rankings_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    masks = [(random.random((9, 11)) < 0.2 * (row % 2)).astype(np.uint8) for row in range(12)]
    scores = [random.integers(0, 40, mask.shape) / 40 + 0.4 * mask for mask in masks]
    truths = [map_of(mask, mask) for mask in masks]
    answers = [Answer(map_of(mask, score)) for mask, score in zip(masks, scores, strict=True)]
    wanted = roc_auc_score([mask.any() for mask in masks], [score.max() for score in scores])
    assert metrics.value(metrics.image_auroc(), truths, answers) == pytest.approx(wanted)
    pixels = roc_auc_score(np.concatenate([m.ravel() for m in masks]), np.concatenate([s.ravel() for s in scores]))
    assert metrics.value(metrics.pixel_auroc(), truths, answers) == pytest.approx(pixels, abs=0.01)
    assert metrics.value(metrics.pixel_auroc(), truths, [Answer(truth) for truth in truths]) == 1.0
    same = [Anomaly().trivial(truths, None)] * 12
    assert (
        metrics.value(metrics.image_auroc(), truths, same) == metrics.value(metrics.pixel_auroc(), truths, same) == 0.5
    )
    assert np.isnan(metrics.value(metrics.image_auroc(), truths[:1], answers[:1]))
    judged = [map_of(np.ones((1, 1)), np.ones((1, 1))), *truths]  # nobody has said which pixels: it counts for none
    assert metrics.value(metrics.pixel_auroc(), judged, [answers[0], *answers]) == pytest.approx(pixels, abs=0.01)


def spotted(count: int, odd: bool) -> tuple[list[np.ndarray], list[np.ndarray]]:
    random = np.random.default_rng(int(odd))
    pictures, masks = [], []
    for _ in range(count):
        ramp = np.linspace(60, 160, 32)[None, :, None] + random.integers(0, 20) + np.zeros((24, 32, 1))
        mask = np.zeros((24, 32), np.uint8)
        if odd:
            top, left = random.integers(0, 18), random.integers(0, 26)
            mask[top : top + 6, left : left + 6] = 1
        pictures.append((ramp + random.integers(0, 8, ramp.shape) + 80 * mask[..., None]).astype(np.uint8))
        masks.append(mask)
    return pictures, masks


def test_the_classical_distance_finds_what_is_odd() -> None:
    (good, free), (bad, marked) = spotted(20, odd=False), spotted(10, odd=True)
    truths = [Anomaly().truth(mask, None) for mask in [*free, *marked]]  # type: ignore[arg-type]
    model = PixelDistance().fit(good, truths[:20])
    answers = [Anomaly().from_classical(found, None) for found in model.predict([*good, *bad])]  # type: ignore[arg-type]
    assert metrics.value(metrics.image_auroc(), truths, answers) > 0.9
    assert metrics.value(metrics.pixel_auroc(), truths, answers) > 0.9


def test_what_is_in_order_is_learnt_and_the_rest_stands_out(tmp_path: Path) -> None:
    (good, free), (bad, marked) = spotted(40, odd=False), spotted(10, odd=True)
    rows = {"photo": [*good, *bad], "defect": [*free, *marked], "split": ["train"] * 32 + ["test"] * 18}
    recipe = ew.Recipe(
        name="odd", data={"path": rows, "split": "split"}, inputs={"photo": "image"}, outputs={"defect": "anomaly"},
        goal={"output": "defect", "metric": "reconstruction", "direction": "min"},
        train={"size": "tiny", "steps": 40, "batch_size": 8}, trunk={"width": 32, "depth": 1},
    )  # fmt: skip
    model = ew.fit(recipe, out=tmp_path / "run")
    threshold = float(model.network.head("defect").threshold)  # type: ignore[arg-type]
    assert threshold not in (0.5, 0.0)  # chosen by the validation rows
    dataset = ew.prepare(recipe)
    scored = ew.evaluate(model, dataset, dataset.splits.test, details=False)
    assert scored.outputs["defect"]["image_auroc"].value > 0.8
    answer = model.predict({"photo": bad[0]})
    assert answer["defect"].numbers.shape == (24, 32)
    told = answer.to_dict()["defect"]
    assert told["value"].startswith(PNG_URI)
    assert told["detail"]["score"] == pytest.approx(answer["defect"].score)
    head = model.network.head("defect")
    target = torch.tensor([[[0, 0]], [[0, 1]]], dtype=torch.uint8)
    assert head.weight(target, torch.tensor([[1, 2]] * 2)).tolist() == [1.0, 0.0]
