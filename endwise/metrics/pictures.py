"""Metrics of pictures that a network made: structural similarity, signal to noise, mean error. Truths and answers are
`Picture`s; an answer of another size is scored at the truth's, by the nearest pixel; full scale is 1."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from endwise.drawing import Picture, nearest
from endwise.metrics.engine import Metric, ratio_of_sums, summable, with_one

SIDE = 7  # pixels of the squares that are compared (Wang et al. 2004)
LIGHT, CONTRAST = 0.01**2, 0.03**2
QUIETEST = 1e-10  # squared error that counts as none: 100 dB


def ssim() -> Metric:
    """Mean structural similarity, 1 for the truth itself (Wang et al. 2004), in squares of 7 pixels, over rows."""
    return _mean("ssim", "max", _similarity)


def psnr() -> Metric:
    """Peak signal to noise, mean over rows; an exact answer counts as 100 dB."""
    return _mean(
        "psnr", "max", lambda true, said: -10 * np.log10(max(QUIETEST, float(np.square(said - true).mean()))), "dB"
    )


def picture_error() -> Metric:
    """Mean absolute error of a pixel as a share of full scale."""
    return _mean("mae", "min", lambda true, said: float(np.abs(said - true).mean()))


def _mean(
    name: str, direction: Any, score: Callable[[np.ndarray, np.ndarray], float], unit: str | None = None
) -> Metric:
    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        return with_one([score(*_pair(truth, answer.value)) for truth, answer in zip(truths, answers, strict=True)])

    return summable(name, direction, rows, ratio_of_sums, unit=unit)


def _pair(truth: Picture, answer: Any) -> tuple[np.ndarray, np.ndarray]:
    """float64 [height, width, channel] of both; no answer is black."""
    true = _scaled(truth.pixels)
    if not isinstance(answer, Picture):
        return true, np.zeros_like(true)
    return true, np.broadcast_to(nearest(_scaled(answer.pixels), true.shape[:2]), true.shape)


def _scaled(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(pixels / float(np.iinfo(pixels.dtype).max))


def _similarity(true: np.ndarray, said: np.ndarray) -> float:
    first, second = _around(true), _around(said)
    spread, other = _around(true * true) - first**2, _around(said * said) - second**2
    common = _around(true * said) - first * second
    light = (2 * first * second + LIGHT) / (first**2 + second**2 + LIGHT)
    return float((light * (2 * common + CONTRAST) / (spread + other + CONTRAST)).mean())


def _around(values: np.ndarray) -> np.ndarray:
    """Means of squares of SIDE pixels, cut at the border, by running sums."""
    for axis in range(2):
        count = values.shape[axis]
        sums = np.concatenate([np.zeros_like(values.take([0], axis)), np.cumsum(values, axis=axis)], axis=axis)
        low, high = (np.clip(np.arange(count) + step, 0, count) for step in (-(SIDE // 2), SIDE // 2 + 1))
        lengths = (high - low).reshape([-1 if other == axis else 1 for other in range(values.ndim)])
        values = (sums.take(high, axis) - sums.take(low, axis)) / lengths
    return values
