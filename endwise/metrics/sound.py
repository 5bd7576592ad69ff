"""Metrics of sound."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from endwise.metrics.engine import Metric, ratio_of_sums, same_length, summable, with_one


def mcd() -> Metric:
    """Mel-cepstral distance in dB along the best alignment (Kubichek 1993, with dynamic time warping), times as many times as an
    answer is longer than the truth (Chen et al. 2022); the level plays no part. An answer without any sound is compared as silence."""
    from endwise.nn.vocoder import mel_cepstral_distance

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        same_length(truths, answers)
        return with_one(
            [
                mel_cepstral_distance(truth.samples, answer.value.samples, truth.rate_hz)
                for truth, answer in zip(truths, answers, strict=True)
            ]
        )

    return summable("mcd", "min", rows, ratio_of_sums, unit="dB")


def duration_error() -> Metric:
    """Mean absolute difference in length."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        same_length(truths, answers)
        return with_one(
            [abs(answer.value.seconds - truth.seconds) for truth, answer in zip(truths, answers, strict=True)]
        )

    return summable("duration_error", "min", rows, ratio_of_sums, unit="s")
