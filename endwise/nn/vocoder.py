"""Sound from log-mel levels and back, and how far two sounds are apart, in numpy.

The same arithmetic writes answers in training, in prediction and in exported bundles, which have no torch. What is
learnt is not in here: networks predict the levels (modalities/audio/head.py).
"""

from functools import lru_cache

import numpy as np

from endwise.nn.mel import Framing, hann, mel_filters

FLOOR = 1e-7  # energy below which everything is silence: 70 dB under a sine of full scale
ROUNDS = 20  # of Griffin-Lim: 40 change a recording's levels by 5 % less
MOMENTUM = 0.99  # Perraudin et al. 2013, "A fast Griffin-Lim algorithm"
CEPSTRA = 13  # coefficients of the mel-cepstral distance, the level left out (Kubichek 1993)
CEPSTRAL_MELS = 40
DECIBELS = 10 / np.log(10) * np.sqrt(2)


def levels(samples: np.ndarray, rate_hz: int, mels: int) -> np.ndarray:
    """float32 [frame, mel]: the log of each band's mean energy, 25 ms every 10 ms; a sine of full scale is about 0.

    samples: floats in [-1, 1]; ceil(n / hop) frames, frame i centred on the middle of hop i.
    """
    framing = Framing.of(rate_hz)
    count = framing.frames(len(samples))
    padded = np.zeros(count * framing.hop + framing.window)
    padded[framing.before : framing.before + len(samples)] = samples
    frames = np.lib.stride_tricks.sliding_window_view(padded, framing.window)[:: framing.hop][:count]
    spectrum = np.fft.rfft(frames * hann(framing.window), framing.fft)
    energy = (spectrum.real**2 + spectrum.imag**2) / full_scale(framing)
    found: np.ndarray = np.log(energy @ mel_filters(rate_hz, framing.fft, mels) + FLOOR).astype(np.float32)
    return found


def full_scale(framing: Framing) -> float:
    """The energy of a full-scale sine in its own bin."""
    return float((framing.window / 4) ** 2)  # half the sum of a Hann window, squared


@lru_cache(maxsize=8)
def _spread(rate_hz: int, fft: int, mels: int) -> np.ndarray:
    """[mels, fft // 2 + 1]: each Fourier bin as a mean of the bands around it."""
    filters = mel_filters(rate_hz, fft, mels)
    peaks = filters / filters.max(axis=0)
    table: np.ndarray = (peaks / np.maximum(peaks.sum(axis=1, keepdims=True), 1e-9)).T
    table.flags.writeable = False
    return table


def sound(found: np.ndarray, rate_hz: int) -> np.ndarray:
    """float32 samples whose `levels` are near those [frame, mel]: the inverse, up to the phase, which is searched for
    (Griffin & Lim 1984) from one fixed start, so that the same levels always make the same sound."""
    framing = Framing.of(rate_hz)
    hop, mels = framing.hop, found.shape[1]
    energy = np.maximum(np.exp(found.astype(np.float64)) - FLOOR, 0) @ _spread(rate_hz, framing.fft, mels)
    wanted = np.sqrt(energy * full_scale(framing)).astype(np.float32)
    window = hann(framing.window).astype(np.float32)
    angles = np.random.default_rng(0).uniform(-np.pi, np.pi, wanted.shape)
    guess, before = (wanted * np.exp(1j * angles)).astype(np.complex64), np.zeros(wanted.shape, np.complex64)
    total = (len(wanted) - 1) * hop + framing.window
    weight = np.maximum(_overlapped(np.broadcast_to(window**2, (len(wanted), framing.window)), hop, total), 1e-3)
    wave = np.zeros(total, np.float32)
    for _ in range(ROUNDS):
        frames = np.fft.irfft(guess, framing.fft)[:, : framing.window] * window
        wave = _overlapped(frames, hop, total) / weight
        again = np.lib.stride_tricks.sliding_window_view(wave, framing.window)[::hop] * window
        now = np.fft.rfft(again, framing.fft)
        turned = now + MOMENTUM * (now - before)
        guess, before = wanted * turned / np.maximum(np.abs(turned), 1e-9), now
    heard = wave[framing.before : framing.before + len(found) * hop]
    return np.clip(heard, -1.0, 1.0).astype(np.float32)


def _overlapped(frames: np.ndarray, hop: int, total: int) -> np.ndarray:
    """The sum of frames that begin `hop` samples apart."""
    count, window = frames.shape
    parts = -(-window // hop)
    padded = np.zeros((count, parts * hop), np.float32)
    padded[:, :window] = frames
    out = np.zeros((count + parts) * hop, np.float32)
    for part in range(parts):  # one addition for each stretch of a frame, not one for each frame
        out[part * hop : (part + count) * hop] += padded[:, part * hop : (part + 1) * hop].ravel()
    return out[:total]


# ---- how far two sounds are apart --------------------------------------------------------------------------------------


def cepstra(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """[frame, 13] mel cepstra, the level left out, scaled so that a distance between rows is in dB."""
    from scipy.fft import dct

    amplitude = levels(samples, rate_hz, CEPSTRAL_MELS) / 2
    found: np.ndarray = dct(amplitude, norm="ortho", axis=1)[:, 1 : CEPSTRA + 1]
    in_db: np.ndarray = found * (DECIBELS * np.sqrt(2 / CEPSTRAL_MELS))
    return in_db


def mel_cepstral_distance(truth: np.ndarray, heard: np.ndarray, rate_hz: int) -> float:
    """Mean mel-cepstral distance in dB along the best alignment of two sounds (dynamic time warping); where the second is longer,
    times as many times as it is (as in MCD-DTW-SL, Chen et al. 2022). A mean alone falls with every second of near silence at the
    end of an answer, so that one without a word beats real speech; an answer that is too short pays without help."""
    a, b = cepstra(truth, rate_hz), cepstra(heard, rate_hz)
    apart = np.sqrt(np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T, 0))
    return warped(apart) * max(1.0, len(b) / len(a))


def warped(apart: np.ndarray) -> float:
    """The mean of distances [m, n] along the path from corner to corner with the smallest sum (Sakoe & Chiba 1978)."""
    rows, columns = apart.shape
    # diagonal by diagonal: all cells of one depend on the two before it alone. Place i + 1 holds row i
    cost, steps = np.full((3, rows + 1), np.inf), np.zeros((3, rows + 1))
    cost[0, 0] = 0.0  # the corner before the first
    for diagonal in range(rows + columns - 1):
        old, last, now = cost[diagonal % 3], cost[(diagonal + 1) % 3], cost[(diagonal + 2) % 3]
        old_steps, last_steps, now_steps = (steps[(diagonal + turn) % 3] for turn in range(3))
        first, end = max(0, diagonal - columns + 1), min(rows, diagonal + 1)
        row = np.arange(first, end)
        choices = np.stack([old[row], last[row], last[row + 1]])  # both, this row's own, the other's
        came = np.stack([old_steps[row], last_steps[row], last_steps[row + 1]])
        best = choices.argmin(axis=0)
        now[:] = np.inf
        now[row + 1] = choices[best, np.arange(len(row))] + apart[row, diagonal - row]
        now_steps[row + 1] = came[best, np.arange(len(row))] + 1
    final = (rows + columns) % 3
    return float(cost[final, rows] / steps[final, rows])


__all__ = ["levels", "mel_cepstral_distance", "sound", "warped"]
