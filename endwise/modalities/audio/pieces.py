"""A recording that is still going on, piece by piece, as the samples that a whole one would be read to. Numpy only.

Not here: the network, and when there is enough for its next chunk (endwise/stream.py)."""

from typing import TYPE_CHECKING, Any

import numpy as np

from endwise.errors import BadValue
from endwise.modalities.audio import FULL_SCALE, Audio, as_float, in_memory

if TYPE_CHECKING:
    from soxr import ResampleStream


class Pieces:
    """Every piece has the rate and the kind of channels of the first. A piece louder than full scale is refused: a whole
    recording would be scaled down, but what has been heard cannot be."""

    def __init__(self, declared: Audio) -> None:
        self._declared = declared
        self._rate = self._channels = 0
        self._samples = 0
        self._resampler: ResampleStream | None = None

    @property
    def length(self) -> float:
        """Seconds."""
        return self._samples / self._rate if self._rate else 0.0

    def take(self, raw: Any) -> np.ndarray:
        """int16 [samples] at the network's rate."""
        found = in_memory(raw, self._declared.rate_hz)
        if found is None:
            raise BadValue(f"a piece of sound is samples or (rate, samples), not {type(raw).__name__}")
        samples, rate = found
        if not len(samples):
            return np.zeros(0, np.int16)
        if self._rate not in (0, rate) or self._channels not in (0, samples.shape[1]):
            raise BadValue(
                f"a piece at {rate} Hz with {samples.shape[1]} channels after pieces at {self._rate} Hz with {self._channels}"
            )
        self._rate, self._channels = rate, samples.shape[1]
        self._samples += len(samples)
        one = self._declared.one_channel(samples)
        if one.dtype == np.int16 and rate == self._declared.rate_hz:
            return one
        floats = as_float(one)
        if not np.isfinite(floats).all():
            raise BadValue("the piece holds samples that are not finite (NaN or infinity)")
        if float(np.abs(floats).max()) > 1:
            raise BadValue(
                f"the piece peaks at {float(np.abs(floats).max()):.3g}, above full scale: scale it to [-1, 1]"
            )
        return _stored(floats if rate == self._declared.rate_hz else self._resampled(floats, last=False))

    def rest(self) -> np.ndarray:
        """What the resampler held back."""
        if not self._samples:
            raise BadValue("the recording has no samples")
        if self._resampler is None:
            return np.zeros(0, np.int16)
        return _stored(self._resampled(np.zeros(0, np.float32), last=True))

    def _resampled(self, floats: np.ndarray, *, last: bool) -> np.ndarray:
        import soxr

        if self._resampler is None:
            self._resampler = soxr.ResampleStream(self._rate, self._declared.rate_hz, 1, dtype="float32")
        out: np.ndarray = self._resampler.resample_chunk(floats, last=last)
        return out


def _stored(floats: np.ndarray) -> np.ndarray:
    whole: np.ndarray = np.clip(np.rint(floats * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
    return whole
