"""The arithmetic of short-time spectra, in numpy: frame sizes, Fourier and mel tables.

Shared by the differentiable front ends (nn/sound.py) and by the classical baseline's hand features, so that both hear
with the same ear. No torch here.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

WINDOW_S = 0.025  # the usual analysis window of speech: about three periods of a low voice
HOP_S = 0.010
LOWEST_HZ = 20.0
BREAK_HZ, LINEAR_HZ, LOG_STEP = 1000.0, 200.0 / 3.0, np.log(6.4) / 27.0  # Slaney 1998, "Auditory Toolbox"


@dataclass(frozen=True, slots=True)
class Framing:
    """Sizes of a short-time analysis, in samples: `window`, `hop`, and the Fourier length `fft` (a power of two)."""

    window: int
    hop: int
    fft: int

    @classmethod
    def of(cls, rate_hz: int) -> "Framing":
        """25 ms windows every 10 ms; the hop is a multiple of four so that a learnt front end can work in quarters."""
        window, hop = round(rate_hz * WINDOW_S), 4 * round(rate_hz * HOP_S / 4)
        return cls(window=window, hop=hop, fft=1 << (window - 1).bit_length())

    @property
    def before(self) -> int:
        """Zeros before the first sample, so that frame i is centred on the middle of hop i."""
        return (self.window - self.hop) // 2

    @property
    def after(self) -> int:
        """Zeros after the last, so that n samples make ceil(n / hop) frames."""
        return self.window - 1 - self.before

    def frames(self, samples: int) -> int:
        """How many frames that many samples make: ceil(samples / hop), at least 1."""
        return (max(samples, 1) - 1) // self.hop + 1


def hz_to_mel(hz: np.ndarray) -> np.ndarray:
    """Slaney's mel scale: linear below 1000 Hz, logarithmic above."""
    high = BREAK_HZ / LINEAR_HZ + np.log(np.maximum(hz, BREAK_HZ) / BREAK_HZ) / LOG_STEP
    return np.where(hz < BREAK_HZ, hz / LINEAR_HZ, high)


def mel_to_hz(mel: np.ndarray) -> np.ndarray:
    """The inverse of `hz_to_mel`."""
    knee = BREAK_HZ / LINEAR_HZ
    return np.where(mel < knee, mel * LINEAR_HZ, BREAK_HZ * np.exp(LOG_STEP * (np.maximum(mel, knee) - knee)))


def mel_edges(rate_hz: int, mels: int) -> np.ndarray:
    """[mels + 2] frequencies in Hz, equally spaced in mel from 20 Hz to half the rate: filter i peaks at edge i + 1."""
    low, high = hz_to_mel(np.array([LOWEST_HZ, rate_hz / 2]))
    return mel_to_hz(np.linspace(low, high, mels + 2))


@lru_cache(maxsize=8)
def mel_filters(rate_hz: int, fft: int, mels: int) -> np.ndarray:
    """[fft // 2 + 1, mels] triangles with weights that sum to 1 each. None is narrower than the spacing of the Fourier
    bins on either side, so none is empty, however many are asked for."""
    bins = np.arange(fft // 2 + 1)[:, None] * (rate_hz / fft)
    edges = mel_edges(rate_hz, mels)
    spacing = rate_hz / fft
    rise = np.maximum(edges[1:-1] - edges[:-2], spacing)
    fall = np.maximum(edges[2:] - edges[1:-1], spacing)
    distance = bins - edges[1:-1]
    triangles = np.clip(1 - np.where(distance < 0, -distance / rise, distance / fall), 0, None)
    weights: np.ndarray = triangles / np.maximum(triangles.sum(axis=0), 1e-12)
    weights.flags.writeable = False  # shared by all who ask
    return weights


def hann(length: int) -> np.ndarray:
    """The periodic Hann window."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


@lru_cache(maxsize=8)
def fourier(framing: Framing) -> np.ndarray:
    """[2 * (fft // 2 + 1), window] Hann-windowed cosines, then sines: frames @ fourier.T is the short-time spectrum."""
    angles = 2 * np.pi / framing.fft * np.outer(np.arange(framing.fft // 2 + 1), np.arange(framing.window))
    table: np.ndarray = np.concatenate([np.cos(angles), -np.sin(angles)]) * hann(framing.window)
    table.flags.writeable = False
    return table


def gabor(rate_hz: int, window: int, mels: int) -> np.ndarray:
    """[2 * mels, window] Gaussian-windowed cosines, then sines, at mel-spaced frequencies and of the triangles' widths
    (Zeghidour et al. 2018, "Learning filterbanks from raw speech"): where a learnt front end starts."""
    edges = mel_edges(rate_hz, mels)
    seconds = (np.arange(window) - (window - 1) / 2) / rate_hz
    width_hz = np.maximum((edges[2:] - edges[:-2]) / 2, 2 / WINDOW_S)
    envelope = np.exp(-0.5 * (seconds[None, :] * np.pi * width_hz[:, None] / np.sqrt(2 * np.log(2))) ** 2)
    envelope /= np.sqrt(np.square(envelope).sum(axis=1, keepdims=True))
    angles = 2 * np.pi * edges[1:-1, None] * seconds[None, :]
    return np.concatenate([np.cos(angles) * envelope, np.sin(angles) * envelope])
