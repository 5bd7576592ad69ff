"""The arms of the driving recipe: what each answers, and that the comparison is paired and in blocks."""

import pytest

from endwise.data.table import open_table
from endwise.errors import DataError
from endwise.modalities.base import Answer
from recipes.driving.arms import OURS, constant_arms, scores


def drive(test_rows: int = 4, side: str = "test") -> dict[str, list]:
    values = [1.0, 2.0, 3.0, *(float(row) for row in range(test_rows))]
    return {
        "steering": values,
        "previous_steering": [values[0], *values[:-1]],
        "split": ["train", "train", "val", *[side] * test_rows],
    }


def test_the_arms_without_a_network() -> None:
    truths, arms = constant_arms(open_table(drive()), "steering")
    assert truths == [0.0, 1.0, 2.0, 3.0]
    told = {name: [answer.value for answer in answers] for name, answers in arms.items()}
    assert told == {
        "training mean": [1.5] * 4,  # validation rows are no training rows
        "repeat last": [3.0, 0.0, 1.0, 2.0],  # the row before the first test row was driven too
        "always zero": [0.0] * 4,
    }


def test_a_table_without_test_rows_is_refused() -> None:
    with pytest.raises(DataError, match="train and test rows"):
        constant_arms(open_table(drive(side="val")), "steering")


def test_differences_are_paired_and_positive_where_the_arm_is_worse() -> None:
    truths = [float(row % 7) for row in range(60)]
    ours = [Answer(truth + 0.1) for truth in truths]
    worse = [Answer(truth + 0.3) for truth in truths]
    found = scores(truths, {OURS: ours, "worse": worse})
    assert "above" not in found[OURS]
    above = found["worse"]["above"]
    assert (above.value, above.low, above.high) == pytest.approx((0.2, 0.2, 0.2))
    assert above.n == found[OURS]["mae"].n == 60


def test_intervals_are_over_blocks_of_neighbouring_frames() -> None:
    """Ten equal frames are one piece of evidence: the interval must be wider than that of single frames."""
    from endwise import metrics

    truths = [0.0] * 100
    answers = [Answer(float(row // 10 % 2)) for row in range(100)]
    ours = scores(truths, {OURS: answers})[OURS]["mae"]
    single = metrics.estimate(metrics.mae(), truths, answers)
    assert ours.high - ours.low > 2 * (single.high - single.low)
