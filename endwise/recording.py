"""A recording as a value: what an answer of sound is. Numpy and the standard library only."""

import base64
import io
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

FULL_SCALE = 32_768
WAV_URI = "data:audio/wav;base64,"


@dataclass(frozen=True, eq=False, repr=False)
class Recording:
    """Samples (float32 [sample] in [-1, 1], one channel) and their rate. Notebooks show a player; in JSON it is a WAV
    file of 16 bits as a data URI, which a browser plays and which may be given as an input again."""

    suffixes: ClassVar[tuple[str, ...]] = (".wav",)

    samples: np.ndarray
    rate_hz: int

    @classmethod
    def of(cls, stored: np.ndarray, rate_hz: int) -> Self:
        """From 16-bit samples."""
        return cls((stored / FULL_SCALE).astype(np.float32), rate_hz)

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / self.rate_hz

    def wav(self) -> bytes:
        """A WAV file, 16 bits, one channel."""
        whole = np.clip(np.rint(self.samples * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1)
        file = io.BytesIO()
        with wave.open(file, "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(self.rate_hz)
            out.writeframes(whole.astype("<i2").tobytes())
        return file.getvalue()

    def save(self, path: str | Path) -> Path:
        """Write the WAV file; its path."""
        place = Path(path)
        place.write_bytes(self.wav())
        return place

    def to_json(self) -> str:
        """The WAV file as a data URI."""
        return WAV_URI + base64.b64encode(self.wav()).decode("ascii")

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Recording)
            and self.rate_hz == other.rate_hz
            and np.array_equal(self.samples, other.samples)
        )

    def __hash__(self) -> int:
        return hash((self.rate_hz, self.samples.tobytes()))

    def __repr__(self) -> str:
        return f"Recording({self.seconds:.2f} s, {self.rate_hz} Hz)"

    def _repr_html_(self) -> str:
        return f'<audio controls src="{self.to_json()}"></audio>'


def from_uri(text: str) -> bytes:
    """The file in a data URI of sound; ValueError when it is damaged."""
    return base64.b64decode(text.removeprefix(WAV_URI), validate=True)


def uri_samples(text: str) -> np.ndarray:
    """float64 samples in 16-bit steps of a data URI that `Recording.to_json` gave."""
    with wave.open(io.BytesIO(from_uri(text)), "rb") as file:
        return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").astype(np.float64)
