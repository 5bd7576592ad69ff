"""Metrics of pictures that a network made. Of a picture for which there is one truth: structural similarity, signal to
noise, mean error. Of pictures that are drawn, where many are right: the Fréchet distance between all that were drawn and all
that are true, and how often one is recognised as its row's. Truths and answers are `Picture`s; an answer of another size is
scored at the truth's, by the nearest pixel; full scale is 1.

The two of drawn pictures look at hand-made features, coarse colours and edges, so that they stand without downloaded weights;
their values are no one else's FID. Whether a picture shows what was asked for, a judge says that was trained for it."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from endwise.drawing import Picture, nearest
from endwise.metrics.engine import Metric, ratio_of_sums, summable, with_one

SIDE = 7  # pixels of the squares that are compared (Wang et al. 2004)
LIGHT, CONTRAST = 0.01**2, 0.03**2
QUIETEST = 1e-10  # squared error that counts as none: 100 dB
COARSE_PX, THUMB_PX, DIRECTIONS = (
    32,
    4,
    8,
)  # of the features of a picture: 48 colours, 8 directions of edges, 3 contrasts
STRONGEST = 16  # features are about as large as each other: edges are weak beside colours
RIVALS = 1_000  # other rows' pictures among which a drawn one is looked for
SEEN_AT_ONCE = 256


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


# ---- pictures that are drawn ------------------------------------------------------------------------------------------


def frechet() -> Metric:
    """Fréchet distance between normal distributions with the means and covariances of the answers' features and of the
    truths' (Heusel et al. 2017): 0 where pictures vary as the true ones do, whichever belongs to which row."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        return np.concatenate([_features(truths), _features([answer.value for answer in answers])], axis=1)

    def combine(stats: np.ndarray, weights: np.ndarray) -> float:
        half = stats.shape[1] // 2
        (mean, spread), (other, spread_too) = (_moments(part, weights) for part in (stats[:, :half], stats[:, half:]))
        values, vectors = np.linalg.eigh(spread)
        root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
        shared = np.sqrt(np.linalg.eigvalsh(root @ spread_too @ root).clip(min=0)).sum()
        apart = np.square(mean - other).sum() + np.trace(spread) + np.trace(spread_too) - 2 * shared
        return max(0.0, float(apart))

    return Metric("frechet", "min", rows, combine)


def recognised() -> Metric:
    """Of the pictures of other rows (at most 1,000), the share that looks less like the answer than its own row's does, by
    hand-made features: 0.5 is chance, and 1 is only reached where no two rows ask for the same."""

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        true, said = _features(truths), _features([answer.value for answer in answers])
        scale = true.std(0) + 1e-6
        true, said = true / scale, said / scale
        own = np.linalg.norm(said - true, axis=1)
        chosen = np.unique(np.linspace(0, len(true) - 1, min(len(true), RIVALS)).astype(np.int64))
        found = np.empty(len(true))
        for start in range(0, len(true), SEEN_AT_ONCE):
            part = slice(start, start + SEEN_AT_ONCE)
            apart = np.linalg.norm(said[part, None] - true[None, chosen], axis=2)
            others = chosen[None] != np.arange(len(true))[part, None]
            further = np.where(apart == own[part, None], 0.5, apart > own[part, None])
            count = others.sum(1)
            found[part] = np.where(count > 0, (further * others).sum(1) / np.maximum(count, 1), 0.5)
        return with_one(found)

    return summable("recognised", "max", rows, ratio_of_sums)


def _moments(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and covariance."""
    total = max(float(weights.sum()), 1e-12)
    mean = weights @ values / total
    apart = values - mean
    return mean, (weights[:, None] * apart).T @ apart / total


def _features(pictures: Sequence[Any]) -> np.ndarray:
    """float64 [n, 59]: the colours of 4 x 4 squares, how strong edges of 8 directions are, the contrast of each channel. No
    picture is black."""
    small = np.stack([_coarse(picture) for picture in pictures])
    step = COARSE_PX // THUMB_PX
    thumbs = small.reshape(len(small), THUMB_PX, step, THUMB_PX, step, 3).mean((2, 4)).reshape(len(small), -1)
    grey = small.mean(3)
    down, across = np.gradient(grey, axis=(1, 2))
    strength, place = np.hypot(down, across), np.mod(np.arctan2(down, across) / np.pi, 1.0) * DIRECTIONS
    nearest_one = place.round().astype(np.int64) % DIRECTIONS
    edges = [(strength * (nearest_one == direction)).mean((1, 2)) for direction in range(DIRECTIONS)]
    return np.concatenate([thumbs, STRONGEST * np.stack(edges, axis=1), small.std((1, 2))], axis=1)


def _coarse(picture: Any) -> np.ndarray:
    """float64 [32, 32, 3]: the mean over the part of the picture that each place stands for."""
    if not isinstance(picture, Picture):
        return np.zeros((COARSE_PX, COARSE_PX, 3))
    pixels = _scaled(picture.pixels)
    down, across = (_means(side, COARSE_PX) for side in pixels.shape[:2])
    found = np.einsum("yh,hwc,xw->yxc", down, pixels, across, optimize=True)
    return np.broadcast_to(found, (COARSE_PX, COARSE_PX, 3))


@lru_cache(maxsize=32)
def _means(size: int, target: int) -> np.ndarray:
    """[target, size]: how much of each pixel lies in each of `target` equal parts, rows adding up to 1."""
    low, high = np.arange(target)[:, None] * size / target, np.arange(1, target + 1)[:, None] * size / target
    pixel = np.arange(size)[None]
    cover = (np.minimum(pixel + 1, high) - np.maximum(pixel, low)).clip(min=0)
    return np.asarray(cover / cover.sum(1, keepdims=True))
