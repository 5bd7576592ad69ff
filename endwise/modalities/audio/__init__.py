"""Sound: the declaration, how a recording is read, what is learnt about the training recordings, how a spoken answer
is written and scored.

Stored as 16-bit samples at one rate: exact for 16-bit recordings of that rate, half the memory of floats for all.
Not here: spectrograms and everything learnt (network.py and head.py beside this file), the units an answer is spelt in
(units.py), sound from spectrograms (nn/vocoder.py).
"""

import contextlib
import io
import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from endwise.errors import BadValue, ModelError, require
from endwise.modalities.audio.units import Alphabet
from endwise.modalities.base import (
    OUTPUT_ROLE,
    READ_AGAIN,
    Answer,
    Contract,
    Fetch,
    Modality,
    Reader,
    Role,
    file_bytes,
    input_field,
    laid_over,
    shared_field,
)
from endwise.modalities.pretrained import PretrainedInput, sound_scale, summary_of, verified
from endwise.recording import WAV_URI, Recording, from_uri

if TYPE_CHECKING:
    from endwise.metrics import Metric
    from endwise.nn.interface import Encoder, Head
    from endwise.nn.size import Size

FULL_SCALE = 32_768
QUIETEST_PEAK = 1 / 256  # a float recording with a lower peak would keep less than 7 of its bits
LOWEST_DB = -96.0  # what 16 bits can hold: the level of silence
UNITS_A_SECOND = 25  # of an answer
PREVIEW_S = 10.0
PIECE_S = 0.1  # of a file that is heard as if it came in
TOKEN_S = 0.04  # the longest token of a network from scratch
OPEN_ENDED = 0x7FFF_0000  # data sizes from here on mean 'written while it was recorded: until the end of the file'
PCM_SCALES = {np.dtype(np.int16): 2.0**15, np.dtype(np.int32): 2.0**31}


@dataclass(frozen=True, kw_only=True)
class AudioContract(Contract):
    """What the training recordings are like. Seconds and levels (root mean square, in dB below full scale) per
    recording; `silent` counts those without any sound."""

    rate_hz: int
    seconds_min: float
    seconds_median: float
    seconds_max: float
    seconds_total: float
    level_db_mean: float
    level_db_deviation: float
    silent: int
    weights: dict[str, Any] | None = None  # pretrained: source, family, sha256, licence, architecture, scale of samples
    bands: int  # log-mel bands an answer is made of; 0: this is an input
    band_mean: float  # mean and deviation of all their levels
    band_deviation: float
    units: tuple[tuple[float, ...], ...]  # the alphabet of answers (units.py)
    longest_units: int


@dataclass(frozen=True, kw_only=True)
class Audio(PretrainedInput):
    """A recording: WAV, FLAC, OGG or MP3, or samples in memory. Resampled to `rate_hz` and mixed to one channel.

    In memory: a `Recording`, `(rate, samples)`, `{"array": samples, "sampling_rate": rate}`, or samples alone, taken to be at
    `rate_hz`; floats in [-1, 1], or int16 / int32 PCM; `[samples]` or `[samples, channels]`. The network does not hear
    gain, so a float recording louder than full scale, or too quiet for 16 bits, is scaled to full scale, never clipped.
    """

    type: ClassVar[str] = "audio"
    length_unit: ClassVar[str] = "samples"
    hand_offs: ClassVar[frozenset[str]] = READ_AGAIN
    drawn_as: ClassVar[Literal["cells", "picture", "sound", "text"]] = "sound"
    error_is_share: ClassVar[bool] = False
    contract_class = AudioContract
    axes: ClassVar[int] = 1
    read_fields: ClassVar[tuple[str, ...]] = ("rate_hz", "channel", "max_seconds")
    instead: ClassVar[tuple[str, ...]] = ("frontend", "mels", "chunk_s")
    families: ClassVar[tuple[str, ...]] = ("wav2vec2", "hubert")

    rate_hz: int = shared_field(16_000, "samples a second the network hears or speaks; other rates are resampled to it")
    channel: Literal["mix", "left", "right"] = shared_field(
        "mix", "of several channels: their mean, the first, the second"
    )
    max_seconds: float = shared_field(60.0, "longer recordings are refused, never cut")
    frontend: Literal["spectrogram", "waveform"] = input_field(
        "spectrogram", "spectrogram: log-mel bands; waveform: the bands are learnt from the samples"
    )
    mels: int = shared_field(64, "bands of either front end, or of an answer")
    chunk_s: float | None = input_field(
        None, "hear the sound while it comes in: answers grow every so many seconds; null: it is heard as a whole"
    )
    mask: bool = input_field(True, "in training, hide random stretches of time and bands (SpecAugment)")
    speed: float = input_field(0.1, "in training, play up to this share faster or slower; 0: never")
    shift: bool = input_field(True, "in training, begin up to 30 ms later")
    noise: bool = input_field(True, "in training, add faint white noise")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            4_000 <= self.rate_hz <= 192_000, field="Audio.rate_hz", got=self.rate_hz,
            allowed="a sampling rate from 4000 to 192000 (Hz)", fix="give hertz, not kilohertz: 16 kHz is 16000",
        )  # fmt: skip
        require(
            0 < self.max_seconds <= 3_600, field="Audio.max_seconds", got=self.max_seconds,
            allowed="a duration above 0 and up to 3600 s", fix="cut longer recordings into rows of their own",
        )  # fmt: skip
        require(
            8 <= self.mels <= 256, field="Audio.mels", got=self.mels, allowed="8 to 256 bands",
            fix="64 suits speech at 8 to 16 kHz, 80 to 128 music",
        )  # fmt: skip
        require(
            0 <= self.speed <= 0.5, field="Audio.speed", got=self.speed, allowed="a share from 0 to 0.5",
            fix="0.1 plays each training recording 10 % slower to 10 % faster",
        )  # fmt: skip
        step = None if self.chunk_s is None else self.chunk_s / TOKEN_S
        require(
            step is None or (1 <= step <= 250 and abs(step - round(step)) < 1e-6), field="Audio.chunk_s", got=self.chunk_s,
            allowed=f"a multiple of {TOKEN_S} (a token) from {TOKEN_S} to 10 s", fix="0.32 suits speech",
        )  # fmt: skip

    def beside(self, inputs: Mapping[str, Modality], outputs: Mapping[str, Modality]) -> Self:
        """A stream stands alone: where several inputs are mixed, each has to be there as a whole."""
        require(
            self.chunk_s is None or len(inputs) == 1, field="Audio.chunk_s", got=self.chunk_s,
            allowed=f"one input, not {len(inputs)}: a trunk looks at all of them as a whole",
            fix="remove chunk_s, or the other inputs",
        )  # fmt: skip
        return self

    @property
    def streams_in(self) -> str:
        """Seconds."""
        return "" if self.chunk_s is None else "s"

    def reader(self, contract: AudioContract) -> "Reader":
        """Pieces are samples, or `(rate, samples)`, as in a row; int16, int32, or floats in [-1, 1]."""
        from endwise.modalities.audio.pieces import Pieces

        return Pieces(self)

    def pieces(self, raw: Any, fetch: Fetch) -> Iterable[Any]:
        """Tenths of seconds, however many: of a file each is decoded when its turn comes."""
        there = in_memory(raw, self.rate_hz)
        if there is None:
            return _decoded_pieces(file_bytes(raw, fetch, "a recording"))
        samples, rate = there
        step = max(1, round(rate * PIECE_S))
        return [(rate, samples[start : start + step]) for start in range(0, len(samples), step)]

    # ---- reading -------------------------------------------------------------------------------------------------

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """int16 [samples] at `rate_hz`, one channel. The cell is a path, the bytes of a file, or samples in memory."""
        if isinstance(raw, str) and raw.startswith(WAV_URI):
            raw = _uri_bytes(raw)
        samples, rate = in_memory(raw, self.rate_hz) or decode(file_bytes(raw, fetch, "a recording"), self.max_seconds)
        if not len(samples):
            raise BadValue("the recording has no samples")
        _check_seconds(len(samples), rate, self.max_seconds)
        samples = self.one_channel(samples)
        if samples.dtype == np.int16 and rate == self.rate_hz:
            return np.ascontiguousarray(samples)
        return self._stored(samples, rate)

    def in_full(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """The file's own samples, one channel, at its own rate."""
        if isinstance(raw, str) and raw.startswith(WAV_URI):
            raw = _uri_bytes(raw)
        samples, _ = in_memory(raw, self.rate_hz) or decode(file_bytes(raw, fetch, "a recording"), self.max_seconds)
        return self.one_channel(samples)

    def onto(self, places: np.ndarray, whole: np.ndarray, contract: AudioContract) -> np.ndarray:
        """The file's own samples: those of a frame share what it has."""
        return laid_over(places, whole.shape[:1])

    def named(self, whole: np.ndarray, contract: AudioContract) -> Sequence[str]:
        """Samples have no names."""
        return ()

    def one_channel(self, samples: np.ndarray) -> np.ndarray:
        channels = samples.shape[1]
        if self.channel == "right" and channels < 2:
            raise BadValue("channel = 'right', but the recording has one channel: use channel: mix or left")
        if self.channel == "mix" and channels > 1:
            mixed: np.ndarray = as_float(samples).mean(axis=1)
            return mixed
        return samples[:, 1 if self.channel == "right" else 0]

    def _stored(self, samples: np.ndarray, rate: int) -> np.ndarray:
        """16 bits at our rate. The scale is the file's own, save where 16 bits could not hold the sound at it."""
        floats = as_float(samples)
        if not np.isfinite(floats).all():
            bad = int((~np.isfinite(floats)).sum())
            raise BadValue(f"the recording holds {bad} samples that are not finite (NaN or infinity)")
        if rate != self.rate_hz:
            import soxr

            floats = soxr.resample(floats, rate, self.rate_hz)
            if not len(floats):
                raise BadValue(f"the recording has too few samples to be resampled from {rate} to {self.rate_hz} Hz")
        peak = float(np.abs(floats).max())
        too_quiet = samples.dtype.kind == "f" and 0 < peak < QUIETEST_PEAK
        scale = 1.0 / peak if peak > 1 or too_quiet else 1.0
        whole = np.rint(floats * (scale * FULL_SCALE))
        return np.minimum(whole, FULL_SCALE - 1).astype(np.int16)  # +1.0 itself is one step above the highest value

    # ---- what is learnt ------------------------------------------------------------------------------------------

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> AudioContract:
        """Durations and levels of the training recordings; of answers also the units they are spelt in."""
        alphabet = Alphabet(self.rate_hz, self.mels) if role == OUTPUT_ROLE else None
        weights = self.weights_description()
        if weights is not None and self.pretrained is not None:
            weights["scale"] = sound_scale(self.pretrained, weights, self.rate_hz, "Audio.pretrained")
        lengths: list[int] = []
        levels: list[float] = []
        silent = 0
        for value in values:
            lengths.append(len(value))
            if alphabet is not None:
                alphabet.add(value / FULL_SCALE)
            level = level_db(value)
            if level <= LOWEST_DB:
                silent += 1
            else:
                levels.append(level)
        seconds = np.asarray(lengths or [0]) / self.rate_hz
        mean, deviation = (0.0, 1.0) if alphabet is None else alphabet.scale()
        return AudioContract(
            count=len(lengths),
            missing=missing,
            rate_hz=self.rate_hz,
            seconds_min=float(seconds.min()),
            seconds_median=float(np.median(seconds)),
            seconds_max=float(seconds.max()),
            seconds_total=float(seconds.sum()),
            level_db_mean=float(np.mean(levels)) if levels else LOWEST_DB,
            level_db_deviation=float(np.std(levels)) if levels else 0.0,
            silent=silent,
            weights=weights,
            bands=0 if alphabet is None else self.mels,
            band_mean=mean,
            band_deviation=deviation,
            units=() if alphabet is None else alphabet.centres(),
            longest_units=0 if alphabet is None else alphabet.longest,
        )

    def blank(self, contract: AudioContract) -> np.ndarray:
        """One silent sample: one token, masked."""
        return np.zeros(1, dtype=np.int16)

    def length(self, shape: tuple[int, ...]) -> int:
        """Samples."""
        return shape[0]

    @property
    def file_kinds(self) -> tuple[str, ...]:
        """Recordings."""
        return ("audio/*",)

    def example(self, contract: AudioContract) -> Any:
        """A tenth of a second of silence."""
        return Recording(np.zeros(self.rate_hz // 10, np.float32), self.rate_hz).to_json()

    def summary(self, contract: AudioContract) -> str:
        quiet = f", {contract.silent} silent" if contract.silent else ""
        return (
            f"{contract.rate_hz} Hz, {contract.seconds_min:.2f} to {contract.seconds_max:.2f} s "
            f"(median {contract.seconds_median:.2f} s), {contract.seconds_total / 60:.1f} min in all, "
            f"{contract.level_db_mean:.0f} dB{quiet}"
            + (f"; {summary_of(contract.weights)}" if contract.weights is not None else "")
        )

    # ---- for baselines and reports -------------------------------------------------------------------------------

    def oddities(
        self, train: Iterable[np.ndarray], held: Iterable[np.ndarray], contract: AudioContract
    ) -> Sequence[tuple[str, str, Sequence[int]]]:
        """Recordings without any sound."""
        silent = [row for row, value in enumerate(chain(train, held)) if not value.any()]
        if not silent:
            return ()
        return [(f"{len(silent)} recordings hold no sound at all", "record them again, or remove them", silent)]

    def hand_features(self) -> Any:
        """Duration, and mean, deviation and slope over time of 20 mel cepstra and their differences."""
        from sklearn.preprocessing import FunctionTransformer

        return FunctionTransformer(cepstra_of_all, kw_args={"rate_hz": self.rate_hz})

    def preview(self, value: np.ndarray, contract: AudioContract) -> dict[str, str]:
        """A WAV player; of a long recording the first ten seconds, and a note that says so."""
        limit = int(PREVIEW_S * self.rate_hz)
        shown = {"kind": "audio", "data": Recording.of(value[:limit], self.rate_hz).to_json()}
        if len(value) > limit:
            shown["note"] = f"the first {PREVIEW_S:g} s of {len(value) / self.rate_hz:.1f} s"
        return shown

    # ---- answers -------------------------------------------------------------------------------------------------

    def about(
        self, which: Any, decoded: Mapping[str, np.ndarray], contract: AudioContract
    ) -> tuple[str, tuple[int, ...]]:
        """The whole answer, or its unit at so many seconds."""
        count = int(decoded["units"])
        if which is None:
            return "the sound", (0, count)
        try:
            at = int(float(which) * UNITS_A_SECOND)
        except (TypeError, ValueError):
            at = -1
        require(
            0 <= at < count, field="of", got=which,
            allowed=f"seconds from 0 to {count / UNITS_A_SECOND:g}" if count else "nothing: the answer has no sound",
            fix="say where in the answer" if count else "ask about another output or another row", error=ModelError,
        )  # fmt: skip
        return f"the sound at {at / UNITS_A_SECOND:.2f} s", (at, at + 1)

    @property
    def num_terms(self) -> int:
        """Units, where they lie, and levels."""
        return 3

    def truth(self, value: np.ndarray, contract: AudioContract) -> Recording:
        """The recording itself."""
        return Recording.of(value, self.rate_hz)

    def write(self, decoded: Mapping[str, np.ndarray], contract: AudioContract) -> Answer:
        """Sound from the log-mel levels of the answer's units. The confidence is the units' mean probability
        (geometric). An answer that had not come to its end at the longest allowed says so: detail["ended"]."""
        from endwise.modalities.audio.units import FRAMES
        from endwise.nn.vocoder import sound

        count = int(decoded["units"])
        samples = sound(np.asarray(decoded["levels"])[: max(1, count) * FRAMES], self.rate_hz)
        recording = Recording(samples if count else samples[:0], self.rate_hz)
        sure = min(1.0, math.exp(float(decoded["score"]) / (count + 1)))
        return Answer(recording, sure, detail={"seconds": recording.seconds, "ended": bool(decoded["ended"])})

    def metrics(self, contract: AudioContract) -> Sequence["Metric"]:
        """mcd: mel-cepstral distance in dB along the best alignment; duration_error: how many seconds longer or
        shorter an answer is. Whether the right words were said is for a recogniser to judge."""
        from endwise import metrics

        return [metrics.mcd(), metrics.duration_error()]

    def risk(self, contract: AudioContract) -> "Metric":
        """The distance from the right sound in dB."""
        from endwise import metrics

        return metrics.mcd()

    def classical(self, contract: AudioContract) -> Any:
        """The answer of the training row whose inputs are most alike."""
        from endwise.modalities.audio.retrieval import Nearest

        return Nearest()

    def trivial(self, truths: Sequence[Any], contract: AudioContract) -> Answer:
        """The training answer whose cepstra are nearest to the mean of all."""
        from endwise.modalities.audio.retrieval import central

        return Answer(central(truths))

    # ---- network side --------------------------------------------------------------------------------------------

    def encoder(self, contract: AudioContract, size: "Size") -> "Encoder":
        from endwise.modalities.audio.network import AudioEncoder, PretrainedSound, StreamedSound

        if self.chunk_s is not None:
            return StreamedSound(self, contract, size)
        if contract.weights is not None:
            return PretrainedSound(self, contract, size, partial(verified, contract.weights, "Audio.pretrained"))
        return AudioEncoder(self, contract, size)

    def head(self, contract: AudioContract, size: "Size") -> "Head":
        from endwise.modalities.audio.head import SpeechHead

        return SpeechHead(contract, size)


# ---- files -------------------------------------------------------------------------------------------------------


def decode(data: bytes, max_seconds: float = math.inf) -> tuple[np.ndarray, int]:
    """The samples [sample, channel] of a WAV, FLAC, OGG or MP3 file, and its rate in Hz: int16 where the file holds
    16-bit samples, float32 otherwise. A file that ends early is refused: libsndfile would give a shorter recording. One
    that is longer than `max_seconds` by its header is refused before a sample is decoded: two hours of MP3 would be
    gigabytes."""
    with _opened(data) as (file, dtype):
        declared, rate = file.frames, file.samplerate
        _check_seconds(declared, rate, max_seconds)
        samples = file.read(dtype=dtype, always_2d=True)
    _check_held(len(samples), declared)
    return samples, rate


def _decoded_pieces(data: bytes) -> Iterator[tuple[int, np.ndarray]]:
    """(rate in Hz, samples) of PIECE_S seconds each. What `decode` refuses is refused when it is met."""
    with _opened(data) as (file, dtype):
        rate, held = file.samplerate, 0
        step = max(1, round(rate * PIECE_S))
        while len(samples := file.read(step, dtype=dtype, always_2d=True)):
            held += len(samples)
            yield rate, samples
        _check_held(held, file.frames)


@contextlib.contextmanager
def _opened(data: bytes) -> Iterator[tuple[Any, str]]:
    """The file as soundfile reads it, and the type of its samples."""
    import soundfile

    _check_whole(data)
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            exact = file.subtype == "PCM_16" or (file.format == "FLAC" and file.subtype == "PCM_S8")
            yield file, "int16" if exact else "float32"
    except (soundfile.LibsndfileError, RuntimeError, MemoryError) as wrong:
        reason = str(wrong).split(": ", 1)[-1].strip().rstrip(".")
        raise BadValue(f"not a readable WAV, FLAC, OGG or MP3 file, or a damaged one ({reason})") from None


def _check_held(held: int, declared: int) -> None:
    if held < declared:
        raise BadValue(f"the file is cut short: it declares {declared} samples and holds {held}")


def _check_seconds(samples: int, rate: int, most: float) -> None:
    if samples / rate > most:
        raise BadValue(
            f"the recording lasts {samples / rate:.2f} s, longer than max_seconds = {most:g}: "
            "cut it into rows of their own, or raise max_seconds"
        )


def _check_whole(data: bytes) -> None:
    """Refuse a WAV whose sample chunk, or an OGG whose last page, goes on past the end of the file."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        place = 12
        while place + 8 <= len(data):
            name, size = struct.unpack("<4sI", data[place : place + 8])
            if name == b"data":
                held = len(data) - place - 8
                if held < size < OPEN_ENDED:
                    raise BadValue(f"the file is cut short: it declares {size} bytes of sound and holds {held}")
                return
            place += 8 + size + size % 2
    if data[:4] == b"OggS":
        page = data.rfind(b"OggS")
        header = data[page : page + 27]
        table = data[page + 27 : page + 27 + header[26]] if len(header) == 27 else b""
        if len(header) < 27 or len(table) < header[26] or page + 27 + len(table) + sum(table) > len(data):
            raise BadValue("the file is cut short: its last page is incomplete")


def _uri_bytes(text: str) -> bytes:
    """What another model answered, as JSON has it."""
    try:
        return from_uri(text)
    except ValueError:
        raise BadValue("the data URI is damaged: what follows 'base64,' is not base64") from None


# ---- samples in memory ---------------------------------------------------------------------------------------------


def in_memory(raw: Any, rate_hz: int) -> tuple[np.ndarray, int] | None:
    """Samples [sample, channel] and their rate; None when the cell is a file."""
    rate: Any = rate_hz
    if isinstance(raw, Recording):
        raw, rate = raw.samples, raw.rate_hz
    if isinstance(raw, Mapping) and raw.get("array") is not None:
        raw, rate = raw["array"], raw.get("sampling_rate", rate_hz)
    elif isinstance(raw, tuple) and len(raw) == 2:
        rate, raw = raw
        if isinstance(raw, int | float | np.number):  # (samples, rate), as some readers give it
            rate, raw = raw, rate
    if isinstance(raw, str | bytes | bytearray | memoryview | Mapping) or hasattr(raw, "__fspath__"):
        return None
    if not isinstance(rate, int | float | np.number) or not 1_000 <= float(rate) <= 1_000_000:
        raise BadValue(f"the rate of the samples is {str(rate)[:40]!r}: give hertz, such as 16000")
    if not isinstance(raw, np.ndarray | Sequence) and not hasattr(raw, "__array__"):
        raise BadValue(f"expected the path or the bytes of a recording, or its samples, got {type(raw).__name__}")
    try:
        samples = np.asarray(raw)
    except ValueError:
        raise BadValue(
            "the samples in memory are rows of different lengths: expected [samples] or [samples, channels]"
        ) from None
    return _columns(samples), round(float(rate))


def _columns(samples: np.ndarray) -> np.ndarray:
    """[sample, channel], checked."""
    if samples.dtype.kind == "f":
        samples = samples.astype(np.float32, copy=False)
    elif samples.size and samples.dtype not in PCM_SCALES:
        raise BadValue(f"the samples in memory are {samples.dtype}: expected floats in [-1, 1], or int16 or int32 PCM")
    if samples.ndim == 1:
        return samples[:, None]
    if samples.ndim != 2:
        raise BadValue(f"the samples in memory have {samples.ndim} axes: expected [samples] or [samples, channels]")
    if samples.shape[1] > samples.shape[0] or samples.shape[1] > 64:
        raise BadValue(f"the samples in memory are {list(samples.shape)}: expected [samples, channels]; transpose them")
    return samples


def as_float(samples: np.ndarray) -> np.ndarray:
    """Float32, with full scale at 1."""
    if samples.dtype.kind == "f":
        return samples
    return (samples / PCM_SCALES[samples.dtype]).astype(np.float32)


# ---- hand features ---------------------------------------------------------------------------------------------------


def level_db(samples: np.ndarray) -> float:
    """Root-mean-square level in dB relative to full scale; silence is -96."""
    power = float(np.square(samples.astype(np.float64) / FULL_SCALE).mean()) if len(samples) else 0.0
    return max(LOWEST_DB, 10 * float(np.log10(power))) if power > 0 else LOWEST_DB


def cepstra_of_all(recordings: Sequence[np.ndarray], rate_hz: int) -> np.ndarray:
    """[recording, feature]: see `cepstra`."""
    return np.stack([cepstra(recording, rate_hz) for recording in recordings])


def cepstra(samples: np.ndarray, rate_hz: int, *, count: int = 20, mels: int = 40) -> np.ndarray:
    """Duration, then means over the whole and over thirds, and deviations, of mel cepstra and of their differences."""
    from scipy.fft import dct

    from endwise.nn.mel import Framing, fourier, mel_filters

    framing = Framing.of(rate_hz)
    padded = np.pad(samples.astype(np.float64) / FULL_SCALE, (framing.before, framing.after))
    frames = np.lib.stride_tricks.sliding_window_view(padded, framing.window)[:: framing.hop]
    spectrum = frames @ fourier(framing).T
    half = spectrum.shape[1] // 2
    energy = (spectrum[:, :half] ** 2 + spectrum[:, half:] ** 2) @ mel_filters(rate_hz, framing.fft, mels)
    level = np.log(energy + 1e-10)
    coefficients = dct(level, norm="ortho", axis=1)[:, :count]
    change = np.gradient(coefficients, axis=0) if len(coefficients) > 1 else np.zeros_like(coefficients)
    thirds = [part.mean(axis=0) for part in np.array_split(coefficients, 3) if len(part)]
    thirds += [thirds[-1]] * (3 - len(thirds))
    parts = [coefficients.mean(axis=0), coefficients.std(axis=0), change.std(axis=0), *thirds]
    return np.concatenate([[len(samples) / rate_hz], *parts])
