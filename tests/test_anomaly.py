"""Anomalies: what is in order is learnt from, the rest is scored. The usual promises are the contract suite's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import endwise as ew
from endwise import metrics
from endwise.calibration import Measured, row_errors
from endwise.certainty import given
from endwise.drawing import PNG_URI
from endwise.errors import BadValue, DataError
from endwise.modalities.anomaly import Anomaly, AnomalyContract, AnomalyMap
from endwise.modalities.anomaly.features import PixelDistance
from endwise.modalities.anomaly.network import AnomalyHead
from endwise.modalities.base import Answer
from endwise.nn.size import Size


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


def test_an_answer_is_shown_with_its_score() -> None:
    """On a terminal, a picture in order is told from one that is nearly odd by its score alone."""
    made = map_of(np.zeros((4, 4)), np.array([[0.5, 2.25], [0, 0]]))
    assert repr(made) == "AnomalyMap(4 x 4: in order 100%; score 2.25)"


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


def spotted(
    count: int, odd: bool, *, seed: int | None = None, faintest: int = 80
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    random = np.random.default_rng(int(odd) if seed is None else seed)
    pictures, masks = [], []
    for _ in range(count):
        ramp = np.linspace(60, 160, 32)[None, :, None] + random.integers(0, 20) + np.zeros((24, 32, 1))
        mask = np.zeros((24, 32), np.uint8)
        if odd:
            top, left = random.integers(0, 18), random.integers(0, 26)
            mask[top : top + 6, left : left + 6] = 1
        pictures.append(
            (ramp + random.integers(0, 8, ramp.shape) + random.integers(faintest, 81) * mask[..., None]).astype(
                np.uint8
            )
        )
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
    (good, free), (bad, marked) = spotted(64, odd=False), spotted(10, odd=True)
    faint, seen = spotted(12, odd=True, seed=2, faintest=0)
    rows = {"photo": [*good, *faint, *bad], "defect": [*free, *seen, *marked],
            "split": ["train"] * 32 + ["test"] * 8 + ["val"] * 36 + ["test"] * 10}  # fmt: skip
    recipe = ew.Recipe(
        name="odd", data={"path": rows, "split": "split"}, inputs={"photo": "image"},
        outputs={"defect": {"type": "anomaly", "abstain": {"coverage": 0.8}}},
        goal={"output": "defect", "metric": "reconstruction", "direction": "min"},
        train={"size": "tiny", "steps": 40, "batch_size": 8}, trunk={"width": 32, "depth": 1},
    )  # fmt: skip
    model = ew.fit(recipe, out=tmp_path / "run")
    threshold = float(model.network.head("defect").threshold)  # type: ignore[arg-type]
    assert threshold not in (0.5, 0.0)  # chosen by the validation rows
    dataset = ew.prepare(recipe)
    scored = ew.evaluate(model, dataset, dataset.splits.test, details=False)
    assert scored.outputs["defect"]["image_auroc"].value > 0.8
    found = scored.certainty["defect"]
    assert found["risk"] == "1 - image_accuracy"
    assert found["aurc"].value <= found["error"].value
    assert found["abstains"]["error"].value <= found["error"].value
    assert model.certainty["defect"].gives == "some"
    answer = model.predict({"photo": bad[0]})
    assert answer["defect"].numbers.shape == (24, 32)
    assert answer.answers["defect"].detail["p_value"] == pytest.approx(1 / 25)  # none of the 24 in order scores as high
    told = answer.to_dict()["defect"]
    assert told["value"].startswith(PNG_URI)
    assert told["detail"]["score"] == pytest.approx(answer["defect"].score)
    head = model.network.head("defect")
    target = torch.tensor([[[0, 0]], [[0, 1]]], dtype=torch.uint8)
    assert head.weight(target, torch.tensor([[1, 2]] * 2)).tolist() == [1.0, 0.0]


def test_a_score_far_from_the_threshold_is_sure_and_the_nearest_are_withheld() -> None:
    """Scores of pictures in order and of others overlap: what is withheld is wrong more often than what is given, and the
    confidence of the rest is the share of it that is right."""
    random, item = np.random.default_rng(0), Anomaly(abstain={"coverage": 0.7})  # type: ignore[arg-type]  # as YAML gives it
    contract = AnomalyContract(count=100, missing=0, anomalous=0)
    odd = random.random(600) < 0.4
    scores = np.where(odd, 1.6, 0.8) * np.exp(0.35 * random.normal(size=600))
    truths = [item.truth(np.full((1, 1), flag, np.uint8), contract) for flag in odd]
    answers = [
        item.write({"scores": np.full((1, 1), score), "threshold": 1.2, "p_value": 0.5, "sizes": (1, 1)}, contract)
        for score in scores
    ]
    sure = np.array([item.sureness(answer, contract) for answer in answers])
    assert sure.min() == pytest.approx(sure[np.abs(np.log(scores / 1.2)).argmin()]) == pytest.approx(0.5, abs=0.01)
    measured = Measured(item, contract)
    measured.add(truths[:300], answers[:300])
    learnt = measured.learnt(scaled=False)
    kept = [given(item, contract, answer, learnt) for answer in answers[300:]]
    wrong = row_errors(item, contract, truths[300:], answers[300:])
    withheld = np.array([answer.abstained for answer in kept])
    assert withheld.mean() == pytest.approx(0.3, abs=0.1)
    assert wrong[withheld].mean() > 2 * wrong[~withheld].mean() > 0
    confidence = np.array([answer.confidence for answer in kept])
    assert confidence.mean() == pytest.approx(1 - wrong.mean(), abs=0.05)
    assert confidence[withheld].mean() == pytest.approx(1 - wrong[withheld].mean(), abs=0.12)


def test_a_p_value_is_the_share_of_pictures_in_order_that_score_as_high() -> None:
    """So that of further pictures in order no more than a share t has a p-value up to t."""
    head, random = AnomalyHead(Size.of("tiny"), on="photo"), torch.Generator().manual_seed(0)

    def predicted(rows: int) -> dict[str, torch.Tensor]:
        error = torch.rand(rows, 1, 1, generator=random).expand(rows, 8, 8)
        return {"absolute": error, "structure": torch.zeros_like(error), "sizes": torch.full((rows, 2), 8)}

    assert head.decode(predicted(3))["p_value"].tolist() == [1.0] * 3  # nothing is known yet
    shares = []
    for count in (19, 600) * 20:
        head.calibrate(predicted(count), torch.zeros(count, 1, 1), torch.ones(count, 2))
        p_value = head.decode(predicted(500))["p_value"]
        assert float(p_value.min()) >= 1 / (1 + min(count, 256)) - 1e-6
        shares.append(float((p_value <= 0.1).float().mean()))
    assert np.mean(shares) <= 0.11
    odd = torch.ones(5, 1, 1)
    assert head.calibrate(predicted(5), odd, torch.ones(5, 2)) == {}  # none is in order
    assert head.decode(predicted(3))["p_value"].tolist() == [1.0] * 3
