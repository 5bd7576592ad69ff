"""Metrics of boards: text with rows between /."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from endwise.metrics.engine import Metric, ratio_of_sums, same_length, summable


def cell_accuracy() -> Metric:
    """Share of the cells that are right, over all boards. (`accuracy` is that of whole boards.)"""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        same_length(truths, answers)
        found = []
        for truth, answer in zip(truths, answers, strict=True):
            cells, said = str(truth).replace("/", ""), str(answer.value).replace("/", "")
            found.append([float(sum(one == other for one, other in zip(cells, said, strict=False))), float(len(cells))])
        return np.array(found).reshape(-1, 2)

    return summable("cell_accuracy", "max", rows, ratio_of_sums)


__all__ = ["cell_accuracy"]
