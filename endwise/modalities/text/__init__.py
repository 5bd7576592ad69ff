"""Text as it was written: sentences, messages, transcripts. As an input it is read, as an output it is spelt by CTC.

Here: how text is read, what is learnt about the training rows (units, phrases, letters) or taken from pretrained
weights (their tokenizer), and how a predicted text is put together. Not here: cutting into units (tokenizer.py), the
encoder and the CTC head (network.py), finding pretrained weights (modalities/pretrained.py), the classical baseline
(features.py), text that is the name of one of a few classes (category).

Raw means raw: no lower-casing, stripping or replacing. The one change is Unicode's canonical composition (NFC), which
makes texts that look and mean the same the same bytes.
"""

import heapq
import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from endwise.errors import BadValue, require
from endwise.modalities.base import (
    INPUT_ROLE,
    Answer,
    Contract,
    Fetch,
    Role,
    input_field,
    output_field,
    shared_field,
)
from endwise.modalities.pretrained import PretrainedInput, find, summary_of, verified
from endwise.modalities.text.tokenizer import (
    FIRST_BYTE,
    FIRST_MERGE,
    MAX_MERGES,
    START,
    Counts,
    PretrainedUnits,
    Units,
    learn_merges,
    learn_phrases,
    read_tokenizer,
)

if TYPE_CHECKING:
    from endwise.metrics import Metric
    from endwise.nn.interface import Encoder, Head
    from endwise.nn.size import Size

MAX_CHARS = 20_000  # about ten pages: a row beyond it is more often a whole book, or two columns run together
FEWEST_MERGES = 64  # `auto` takes bytes where fewer can be learnt: a handful of short texts has no words to learn
MOST_LETTERS = 4_096  # `auto` spells bytes where training rows have more different characters
MOST_VOCABULARY = 65_536
DISTINCT_COUNTED = 1_000  # different texts are counted up to here: enough to tell a closed list from free text
LONGEST_KEPT = 8
BLANK = 0  # the CTC symbol of "no letter here"; letter k is symbol 1 + k, and the last symbol a letter never seen
UNKNOWN = "\ufffd"
PREVIEW_CHARS = 2_000
SHOWN_LETTERS = 40


@dataclass(frozen=True, kw_only=True)
class TextContract(Contract):
    """What the training rows are like. Lengths are in characters.

    Of an input: units 'bpe' or 'bytes', its merges and phrases (see tokenizer.py), the longest text in units; with
    pretrained weights units 'pretrained', and in `weights` where they came from, their sha256, licence, architecture
    and tokenizer (the text of tokenizer.json). Of an output: letters 'characters' or 'bytes', the alphabet with its counts (of bytes: all 256, as text of two hexadecimal
    digits), the number of different texts (1000 means that many or more). What the other role has is empty.
    """

    shortest: int
    mean: float
    longest: int
    units: str
    merges: tuple[tuple[int, int], ...]
    phrases: tuple[tuple[int, int], ...]
    longest_units: int
    letters: str
    alphabet: tuple[str, ...]
    alphabet_counts: tuple[int, ...]
    distinct: int
    weights: dict[str, Any] | None = None

    @property
    def vocabulary(self) -> int:
        """How many units there are: START, the bytes, the merges."""
        return FIRST_MERGE + len(self.merges)

    @property
    def num_symbols(self) -> int:
        """CTC symbols: the pause, the letters, and of characters one more for a letter that training never saw."""
        return 1 + len(self.alphabet) + (self.letters == "characters")

    @cached_property
    def symbols(self) -> dict[str, int]:
        """Letter -> CTC symbol."""
        return {letter: 1 + index for index, letter in enumerate(self.alphabet)}

    @cached_property
    def cutter(self) -> Units:
        """The merges and phrases, ready to be applied."""
        return Units(self.merges, self.phrases)

    @cached_property
    def ids(self) -> PretrainedUnits:
        """The pretrained tokenizer, ready to be applied."""
        assert self.weights is not None
        return PretrainedUnits(self.weights["tokenizer"])

    @property
    def most_units(self) -> int:
        """What pretrained positions there are for: longer texts are refused."""
        assert self.weights is not None
        return most_units(self.weights["config"])


@dataclass(frozen=True, kw_only=True)
class Text(PretrainedInput):
    """Text, in the cell or in a file that the cell names.

    An empty text is a legal value (a missing one is None). As an output it is spelt letter by letter along the
    tokens of the inputs, in their order (CTC): speech to words, a line image to words. An answer's confidence is the
    probability of the best path through the frames, per letter written: exp(sum of log p / letters).
    """

    type: ClassVar[str] = "text"
    contract_class = TextContract
    axes: ClassVar[int] = 1
    read_fields: ClassVar[tuple[str, ...]] = ("source", "max_chars")
    instead: ClassVar[tuple[str, ...]] = ("units", "vocabulary")
    families: ClassVar[tuple[str, ...]] = ("bert", "roberta", "xlm-roberta", "electra", "distilbert", "mpnet")

    source: Literal["inline", "file"] = shared_field(
        "inline", "inline: the cell is the text; file: it names a text file"
    )
    max_chars: int | None = shared_field(None, "longer texts are refused, never cut; default 20000")
    units: Literal["auto", "bytes", "bpe"] = input_field(
        "auto", "bpe: frequent pieces of words; bytes; auto: bpe if the training rows have enough text"
    )
    vocabulary: int | None = input_field(
        None, "most units of bpe; default 8449, and never units seen less than 3 times"
    )
    decoder: Literal["auto", "ctc"] = output_field(
        "auto", "ctc: letters along the tokens of the inputs, in their order"
    )
    letters: Literal["auto", "characters", "bytes"] = output_field(
        "auto", "characters: those of the training rows; bytes: any text; auto: characters if there are at most 4096"
    )
    frames: int = output_field(2, "letters or pauses a token has room for; raise it if targets are longer than that")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.max_chars is None or self.max_chars >= 1,
            field="Text.max_chars", got=self.max_chars, allowed="a whole number of at least 1",
            fix="leave it out for 20000",
        )  # fmt: skip
        require(
            self.vocabulary is None or FIRST_MERGE < self.vocabulary <= MOST_VOCABULARY,
            field="Text.vocabulary", got=self.vocabulary,
            allowed=f"a whole number from {FIRST_MERGE + 1} (all bytes and a merge) to {MOST_VOCABULARY}",
            fix="leave it out, or write units: bytes for no merges at all",
        )  # fmt: skip
        require(
            self.vocabulary is None or self.units != "bytes",
            field="Text.vocabulary", got=self.vocabulary, allowed="no vocabulary beside units: bytes",
            fix="remove one of the two",
        )  # fmt: skip
        require(
            1 <= self.frames <= 8,
            field="Text.frames", got=self.frames, allowed="a whole number from 1 to 8",
            fix="leave it out for 2",
        )  # fmt: skip

    # ---- both roles ------------------------------------------------------------------------------------------------

    def read(self, raw: Any, fetch: Fetch) -> np.ndarray:
        """UTF-8 in NFC, uint8 [bytes]. Bytes that are no UTF-8 are refused with their position."""
        text = unicodedata.normalize("NFC", self._file(raw, fetch) if self.source == "file" else _inline(raw))
        most = self.max_chars or MAX_CHARS
        if len(text) > most:
            raise BadValue(
                f"{len(text)} characters, more than the {most} allowed; split it into rows, or write max_chars: {len(text)}"
            )
        try:
            data = text.encode()
        except UnicodeEncodeError as wrong:
            raise BadValue(f"half a surrogate pair at character {wrong.start}: not a text") from None
        return np.frombuffer(data, dtype=np.uint8)

    def _file(self, raw: Any, fetch: Fetch) -> str:
        if isinstance(raw, Mapping) and ("bytes" in raw or "path" in raw):
            raw = raw["bytes"] if raw.get("bytes") is not None else raw.get("path")
        if isinstance(raw, str) or hasattr(raw, "__fspath__"):
            raw = fetch(str(raw))
        if not isinstance(raw, bytes | bytearray | memoryview):
            raise BadValue(f"expected the path or the bytes of a text file, got {type(raw).__name__}")
        return _utf8(bytes(raw)).removeprefix("\ufeff")  # the byte order mark says "UTF-8" and is no part of the text

    def fit(self, values: Iterable[np.ndarray], *, missing: int, role: Role) -> TextContract:
        """One pass that counts words, or letters. Memory is bounded by the counts of different ones."""
        weights = self._weights() if role == INPUT_ROLE else None
        if weights is not None:
            return _pretrained_contract(weights, values, missing)
        lengths, counted, letters = _Lengths(), Counts(), _Letters()
        for value in values:
            text = _text(value)
            lengths.add(text)
            if role == INPUT_ROLE and self.units != "bytes":
                counted.add(text)
            elif role != INPUT_ROLE:
                letters.add(text)
        kind, alphabet, counts = letters.alphabet(self.letters) if role != INPUT_ROLE else ("", (), ())
        units, merges, phrases = self._learnt(counted) if role == INPUT_ROLE else ("", (), ())
        cutter = Units(merges)
        sizes = [1 + len(text.encode()) if units == "bytes" else len(cutter.encode(text)) for text in lengths.kept()]
        return TextContract(
            count=lengths.count,
            missing=missing,
            shortest=lengths.shortest,
            mean=lengths.total / max(1, lengths.count),
            longest=lengths.longest,
            units=units,
            merges=merges,
            phrases=phrases,
            longest_units=max(sizes, default=1) if role == INPUT_ROLE else 0,
            letters=kind,
            alphabet=alphabet,
            alphabet_counts=counts,
            distinct=letters.distinct if role != INPUT_ROLE else 0,
        )

    def _weights(self) -> dict[str, Any] | None:
        """The pretrained weights' description with the tokenizer, which must be the weights' own."""
        weights = self.weights_description()
        if weights is None:
            return None
        assert self.pretrained is not None
        weights["tokenizer"] = read_tokenizer(find(self.pretrained, "Text.pretrained"), "Text.pretrained")
        largest, known = PretrainedUnits(weights["tokenizer"]).largest, int(weights["config"]["vocab_size"])
        require(
            largest < known, field="Text.pretrained: tokenizer.json", got=f"ids up to {largest}",
            allowed=f"ids below {known}, which config.json has vectors for",
            fix="tokenizer and weights are of two models: copy both from one",
        )  # fmt: skip
        return weights

    def _learnt(self, counted: Counts) -> tuple[str, tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
        if self.units == "bytes":
            return "bytes", (), ()
        most = MAX_MERGES if self.vocabulary is None else self.vocabulary - FIRST_MERGE
        merges = learn_merges(counted, most=most)
        if self.units == "auto" and self.vocabulary is None and len(merges) < FEWEST_MERGES:
            return "bytes", (), ()
        return "bpe", merges, learn_phrases(counted, merges)

    def transform(self, value: np.ndarray, contract: TextContract) -> np.ndarray:
        """int64 [n]. Of an input: units with case and phrase, at least one (tokenizer.py), or the pretrained
        tokenizer's ids. Of an output: CTC symbols, the last one for a letter that training never saw."""
        if contract.weights is not None:
            return _checked_ids(_text(value), contract)
        if contract.units == "bpe":
            return np.array(contract.cutter.encode(_text(value)), dtype=np.int64)
        if contract.units == "bytes":
            return np.concatenate([[START], value.astype(np.int64) + FIRST_BYTE])
        if contract.letters == "bytes":
            return value.astype(np.int64) + 1
        unknown = 1 + len(contract.alphabet)
        return np.array([contract.symbols.get(letter, unknown) for letter in _text(value)], dtype=np.int64)

    def blank(self, contract: TextContract) -> np.ndarray:
        """The empty text."""
        if contract.weights is not None:
            return np.array(contract.ids.encode(""), dtype=np.int64)
        return np.array([START] if contract.units else [], dtype=np.int64)

    def length(self, shape: tuple[int, ...]) -> int:
        """Bytes."""
        return shape[0]

    def summary(self, contract: TextContract) -> str:
        """'6920 texts of 4 to 267 characters; 8449 units (bpe), 19497 phrases' or '...; 16 letters: "e", "n" ...'."""
        head = f"{contract.count} texts of {contract.shortest} to {contract.longest} characters"
        if contract.weights is not None:
            return f"{head}, {contract.longest_units} units at most; {summary_of(contract.weights)}"
        if contract.units == "bytes":
            return f"{head}; read as bytes"
        if contract.units:
            return f"{head}; {contract.vocabulary} units ({contract.units}), {len(contract.phrases)} phrases"
        if contract.letters == "bytes":
            return f"{head}; spelt in bytes"
        ranked = sorted(
            zip(contract.alphabet, contract.alphabet_counts, strict=True), key=lambda item: (-item[1], item[0])
        )
        shown = "".join(letter for letter, _ in ranked[:SHOWN_LETTERS])
        return f"{head}; {len(ranked)} letters: {shown!r}{' …' if len(ranked) > SHOWN_LETTERS else ''}"

    def preview(self, value: np.ndarray, contract: TextContract) -> dict[str, str]:
        """The text; of a long one the beginning, and how long it is."""
        text = _text(value)
        if len(text) > PREVIEW_CHARS:
            text = f"{text[:PREVIEW_CHARS]} … ({len(text)} characters)"
        return {"kind": "text", "data": text}

    # ---- inputs ----------------------------------------------------------------------------------------------------

    def hand_features(self) -> Any:
        """TF-IDF of words, pairs of words, and 2 to 4 neighbouring characters."""
        from endwise.modalities.text.features import TextFeatures

        return TextFeatures()

    # ---- outputs ---------------------------------------------------------------------------------------------------

    def truth(self, value: np.ndarray, contract: TextContract) -> str:
        """The text, letters that training never saw included."""
        return _text(value)

    def write(self, decoded: Mapping[str, np.ndarray], contract: TextContract) -> Answer:
        """Repeats merged, pauses dropped (greedy CTC decoding; Graves et al. 2006), the letters joined."""
        path = np.asarray(decoded["path"])[: int(decoded["frames"])]
        first = np.ones(len(path), dtype=bool)
        first[1:] = path[1:] != path[:-1]
        symbols = path[first & (path != BLANK)]
        text = _joined(symbols.tolist(), contract)
        return Answer(text, min(1.0, math.exp(float(decoded["score"]) / max(1, len(symbols)))))

    def metrics(self, contract: TextContract) -> Sequence["Metric"]:
        """wer, cer, and accuracy: the share of rows whose whole text is right."""
        from endwise import metrics

        return [metrics.wer(), metrics.cer(), metrics.accuracy()]

    def classical(self, contract: TextContract) -> Any:
        """Whole texts seen in training: logistic regression over a closed list of them, else the nearest row's."""
        from endwise.modalities.text.features import TextRetrieval

        return TextRetrieval()

    def trivial(self, truths: Sequence[Any], contract: TextContract) -> Answer:
        """The most frequent text."""
        counts = Counter(str(truth) for truth in truths)
        text, count = min(counts.items(), key=lambda item: (-item[1], item[0]), default=("", 0))
        return Answer(text, count / max(1, len(truths)))

    def from_classical(self, predicted: Any, contract: TextContract) -> Answer:
        """A text."""
        return Answer(str(predicted))

    # ---- network side ----------------------------------------------------------------------------------------------

    def encoder(self, contract: TextContract, size: "Size") -> "Encoder":
        """A token a unit; of texts beyond a thousand units, a token for 2, 4 ... of them."""
        from endwise.modalities.text.network import TextEncoder

        if contract.weights is not None:
            from endwise.nn.pretrained import TokenEncoder

            folder = partial(verified, contract.weights, "Text.pretrained")
            return TokenEncoder(contract.weights, self.tuning(), size, folder)
        return TextEncoder(contract, size)

    def head(self, contract: TextContract, size: "Size") -> "Head":
        """Letters along the tokens."""
        from endwise.modalities.text.network import CTCHead

        return CTCHead(contract, size, frames=self.frames)


def _pretrained_contract(weights: dict[str, Any], values: Iterable[np.ndarray], missing: int) -> TextContract:
    units, most = PretrainedUnits(weights["tokenizer"]), most_units(weights["config"])
    lengths, longest = _Lengths(), 1
    for value in values:
        text = _text(value)
        lengths.add(text)
        longest = max(longest, len(units.encode(text)))
    require(
        longest <= most, field="Text.pretrained", got=f"a training text of {longest} units",
        allowed=f"texts of at most {most}, which the pretrained network has positions for",
        fix="split long texts into rows, write max_chars: to refuse them, or take a model of longer texts",
    )  # fmt: skip
    return TextContract(
        count=lengths.count, missing=missing, shortest=lengths.shortest, mean=lengths.total / max(1, lengths.count),
        longest=lengths.longest, units="pretrained", merges=(), phrases=(), longest_units=longest, letters="",
        alphabet=(), alphabet_counts=(), distinct=0, weights=weights,
    )  # fmt: skip


def most_units(config: Mapping[str, Any]) -> int:
    """Positions that a text may fill: RoBERTa and its kin number them from after the padding's."""
    positions = int(config.get("max_position_embeddings", 512))
    shifted = config.get("model_type") in ("roberta", "xlm-roberta", "mpnet")
    return positions - int(config.get("pad_token_id", 1)) - 1 if shifted else positions


def _checked_ids(text: str, contract: TextContract) -> np.ndarray:
    found = contract.ids.encode(text)
    if len(found) > contract.most_units:
        raise BadValue(
            f"{len(found)} units of the pretrained tokenizer, more than the {contract.most_units} it has positions for; "
            "split the text into rows"
        )
    return np.array(found, dtype=np.int64)


class _Lengths:
    """How long texts are, and the longest few of them."""

    def __init__(self) -> None:
        self.count = self.total = self.shortest = self.longest = 0
        self._heap: list[tuple[int, str]] = []

    def add(self, text: str) -> None:
        size = len(text)
        self.shortest = size if self.count == 0 else min(self.shortest, size)
        self.longest = max(self.longest, size)
        self.count += 1
        self.total += size
        if len(self._heap) < LONGEST_KEPT:
            heapq.heappush(self._heap, (size, text))
        elif (size, text) > self._heap[0]:
            heapq.heapreplace(self._heap, (size, text))

    def kept(self) -> list[str]:
        return [text for _, text in self._heap]


class _Letters:
    """Which characters texts are made of, and how many different texts there are."""

    def __init__(self) -> None:
        self._characters: Counter[str] = Counter()
        self._bytes = np.zeros(256, dtype=np.int64)
        self._texts: set[str] = set()

    @property
    def distinct(self) -> int:
        return len(self._texts)

    def add(self, text: str) -> None:
        self._characters.update(text)
        self._bytes += np.bincount(np.frombuffer(text.encode(), dtype=np.uint8), minlength=256)
        if len(self._texts) < DISTINCT_COUNTED:
            self._texts.add(text)

    def alphabet(self, wanted: str) -> tuple[str, tuple[str, ...], tuple[int, ...]]:
        """The kind of letters, the letters in code point order, their counts."""
        if wanted == "bytes" or (wanted == "auto" and len(self._characters) > MOST_LETTERS):
            return "bytes", tuple(f"{byte:02x}" for byte in range(256)), tuple(self._bytes.tolist())
        ordered = sorted(self._characters.items())
        return "characters", tuple(letter for letter, _ in ordered), tuple(count for _, count in ordered)


def _inline(raw: Any) -> str:
    if isinstance(raw, np.ndarray | np.generic):
        raw = raw.item() if raw.ndim == 0 else raw
    if isinstance(raw, bytes | bytearray | memoryview):
        return _utf8(bytes(raw))
    if isinstance(raw, int) and not isinstance(raw, bool):
        return str(raw)  # a table's reader takes a column of digits for numbers; whole ones are spelt without loss
    if not isinstance(raw, str):
        raise BadValue(f"expected text, got {type(raw).__name__} {raw!r:.60}")
    return raw


def _utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as wrong:
        byte = data[wrong.start]
        raise BadValue(f"not UTF-8: byte 0x{byte:02x} at position {wrong.start}; save the text as UTF-8") from None


def _text(value: np.ndarray) -> str:
    return value.tobytes().decode()


def _joined(symbols: Sequence[int], contract: TextContract) -> str:
    """The text of CTC symbols, none of them blank."""
    if contract.letters == "bytes":
        return unicodedata.normalize("NFC", bytes(symbol - 1 for symbol in symbols).decode("utf-8", "replace"))
    letters = [*contract.alphabet, UNKNOWN]
    return unicodedata.normalize("NFC", "".join(letters[symbol - 1] for symbol in symbols))
