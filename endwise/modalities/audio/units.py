"""Units of sound: the small alphabet that spoken answers are spelt in, learnt from the training answers.

A unit is 40 ms of log-mel levels, seen through its smoothest cepstra; the alphabet is their k-means centres (as of
discrete units in Lee et al. 2022, "Direct speech-to-speech translation with discrete units"). It stands in the
contract, as the merges of a text's vocabulary do: what a network learns to say does not move while it learns.
Not here: what is learnt by gradient, the units' order and the fine sound of each (head.py).
"""

from collections.abc import Iterable, Sequence

import numpy as np

from endwise.nn.mel import Framing
from endwise.nn.vocoder import levels

FRAMES = 4  # of 10 ms a unit: 25 units a second
SMOOTHEST = 16  # cepstra of a frame: the shape of the mouth, not the pitch of the voice
MOST_UNITS = 256
SEGMENTS_A_UNIT = 12  # fewer would spell single moments of single recordings
MOST_SEGMENTS = 10_000  # drawn at random from all: 7 minutes
SCALE_FLOOR = 1e-3


def segments(samples: np.ndarray, rate_hz: int, mels: int) -> np.ndarray:
    """float32 [unit, 4, mels]: the log-mel levels of a recording (floats in [-1, 1]), the last one repeated to fill."""
    found = levels(samples, rate_hz, mels)
    lacking = -len(found) % FRAMES
    return np.pad(found, ((0, lacking), (0, 0)), mode="edge").reshape(-1, FRAMES, mels)


def smooth(mels: int) -> np.ndarray:
    """[4 * mels, features]: orthonormal, a segment's levels @ it are its smoothest cepstra in each of its frames."""
    from scipy.fft import dct

    table: np.ndarray = np.kron(np.eye(FRAMES), dct(np.eye(mels), norm="ortho", axis=1)[:, :SMOOTHEST])
    return table


def units_of(samples: int, rate_hz: int) -> int:
    """How many units that many samples are."""
    return (Framing.of(rate_hz).frames(samples) - 1) // FRAMES + 1


class Alphabet:
    """Collects the segments of recordings in bounded memory, then finds the centres."""

    def __init__(self, rate_hz: int, mels: int) -> None:
        self.rate_hz, self.mels, self.longest = rate_hz, mels, 0
        self._random = np.random.default_rng(0)
        self._kept: list[np.ndarray] = []
        self._keys: list[np.ndarray] = []
        self._held = 0
        self._sums = np.zeros(3)

    def add(self, samples: np.ndarray) -> None:
        """One more recording (int16 or floats in [-1, 1])."""
        found = segments(samples, self.rate_hz, self.mels)
        self.longest = max(self.longest, len(found))
        self._sums += (found.size, found.sum(dtype=np.float64), np.square(found, dtype=np.float64).sum())
        self._kept.append(found.reshape(len(found), -1) @ smooth(self.mels).astype(np.float32))
        self._keys.append(self._random.random(len(found)))
        self._held += len(found)
        if self._held > 2 * MOST_SEGMENTS:
            self._thin()

    def _thin(self) -> None:
        """Keep a sample in which every segment so far had the same chance: those with the smallest random keys."""
        kept, keys = np.concatenate(self._kept), np.concatenate(self._keys)
        chosen = np.sort(np.argsort(keys, kind="stable")[:MOST_SEGMENTS])
        self._kept, self._keys, self._held = [kept[chosen]], [keys[chosen]], len(chosen)

    def scale(self) -> tuple[float, float]:
        """Mean and deviation of all levels."""
        count, total, squares = self._sums
        mean = total / max(1.0, count)
        return float(mean), float(max(SCALE_FLOOR, np.sqrt(max(0.0, squares / max(1.0, count) - mean**2))))

    def centres(self) -> tuple[tuple[float, ...], ...]:
        """The units, most frequent first: k-means on one thread, so that the same recordings give the same alphabet."""
        if not self._held:
            return ()
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits

        self._thin()
        points = self._kept[0].astype(np.float64)
        different = len(np.unique(points.round(3), axis=0))
        count = min(MOST_UNITS, different, max(2, len(points) // SEGMENTS_A_UNIT))
        with threadpool_limits(1):
            found = KMeans(count, n_init=1, max_iter=30, random_state=0).fit(points)
        order = np.argsort(-np.bincount(found.labels_, minlength=count), kind="stable")
        return tuple(tuple(row) for row in found.cluster_centers_[order].round(3).tolist())


def as_lists(centres: Sequence[Sequence[float]]) -> np.ndarray:
    """float32 [unit, feature]."""
    return np.asarray(centres, dtype=np.float32)


def learnt(recordings: Iterable[np.ndarray], rate_hz: int, mels: int) -> Alphabet:
    """The alphabet of some recordings."""
    found = Alphabet(rate_hz, mels)
    for recording in recordings:
        found.add(recording)
    return found
