"""Text as it was written: sentences, messages, transcripts. As an input it is read, as an output it is written.

Here: how text is read, what is learnt about the training rows (units, phrases, letters) or taken from pretrained
weights (their tokenizer), and how a predicted text is put together. Not here: cutting into units (tokenizer.py), the
encoder and the CTC head (network.py), the heads that write symbol after symbol (sequence.py), finding pretrained weights
(modalities/pretrained.py), the classical baseline (features.py), text that is the name of one of a few classes
(category).

Raw means raw: no lower-casing, stripping or replacing. The one change is Unicode's canonical composition (NFC), which
makes texts that look and mean the same the same bytes.
"""

import codecs
import dataclasses
import heapq
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from endwise.errors import BadValue, ModelError, require
from endwise.modalities.base import (
    HAND_OFFS,
    INPUT_ROLE,
    Answer,
    Contract,
    Fetch,
    Modality,
    Reader,
    Role,
    counted,
    input_field,
    output_field,
    shared_field,
)
from endwise.modalities.pretrained import HELP, PretrainedInput, describe, find, summary_of, verified
from endwise.modalities.text.tokenizer import (
    FIRST_BYTE,
    FIRST_MERGE,
    MAX_MERGES,
    START,
    Counts,
    Pairs,
    PretrainedUnits,
    Units,
    learn_merges,
    learn_phrases,
    read_tokenizer,
    words,
)

if TYPE_CHECKING:
    from endwise.metrics import Metric
    from endwise.nn.decoder import Writer
    from endwise.nn.interface import Encoder, Head
    from endwise.nn.size import Size

MAX_CHARS = 20_000  # about ten pages: a row beyond it is more often a whole book, or two columns run together
FEWEST_MERGES = 64  # `auto` takes bytes where fewer can be learnt: a handful of short texts has no words to learn
MOST_LETTERS = 4_096  # `auto` spells bytes where training rows have more different characters
MOST_WRITTEN = 3_839  # merges of a text that is written: its softmax over 4096 symbols is paid at every place,
WRITTEN_COUNT = 8  # and a symbol seen less often than this is hardly ever written right
MOST_VOCABULARY = 65_536
DISTINCT_COUNTED = 1_000  # different texts are counted up to here: enough to tell a closed list from free text
LONGEST_KEPT = 8
BLANK = 0  # "no letter here" of CTC, the end of what is written one by one; letter k is symbol 1 + k, and of
# characters the last symbol is a letter never seen
WORD = re.compile(r"\S+")  # of an answer, to ask about
LONGEST_SHARE, LONGEST_MORE = 1.5, 8  # how much longer than any training text an answer may become
DROP_BESIDE_SPACE = 0.2  # R@1 of 403 steps on Multi30k en-de: 0.94; of 500 steps at 0.5: 0.83
DROP_IN_CONTEXT = 0.05
SHOWN_BESIDE = frozenset({"image", "audio"})  # a text beside one of these asks about it
UNKNOWN = "\ufffd"
PREVIEW_CHARS = 2_000
SHOWN_LETTERS = 40
LETTERS_NAMED = 8


SPELT = ("ctc", "ctc+attention")  # decoders that spell along the tokens,
WRITTEN = ("attention", "ctc+attention", "lm", "pretrained")  # that write one by one,
TAUGHT = ("attention", "ctc+attention")  # and that soften their targets
WRITERS = ("gpt2",)  # architectures that can write
MOST_UNUSED_IDS = 1_024  # vectors that no text has an id for: tables are made round, and places kept free
ONE_MODEL = "tokenizer and weights are of two models: copy both from one"
WHY = {  # what `auto` has taken
    "ctc": "auto: every input is sound, whose words come in this order",
    "attention": "auto: not every input is sound, so that each word may look anywhere",
}


@dataclass(frozen=True, kw_only=True)
class TextContract(Contract):
    """What the training rows are like. Lengths are in characters.

    units: 'bpe', 'bytes', or (of an output) 'characters'; with bpe its merges, of an input its phrases too (see
    tokenizer.py); longest_units: the longest text in units. Of an input with pretrained weights units is 'pretrained',
    and `weights` says where they came from, their sha256, licence, architecture and tokenizer (the text of
    tokenizer.json); so of an output that they write. Of an output: decoder, how it is written; alphabet with its counts (of bytes: all 256, as text of two
    hexadecimal digits; of bpe: none); distinct, the number of different texts (1000 means that many or more); lag_unit,
    what the lag is counted in where the input streams. What the other role has is empty.
    """

    shortest: int
    mean: float
    longest: int
    units: str
    merges: tuple[tuple[int, int], ...]
    phrases: tuple[tuple[int, int], ...]
    longest_units: int
    decoder: str
    alphabet: tuple[str, ...]
    alphabet_counts: tuple[int, ...]
    distinct: int
    weights: dict[str, Any] | None = None
    lag_unit: str = ""

    @property
    def vocabulary(self) -> int:
        """How many units there are: START, the bytes, the merges."""
        return FIRST_MERGE + len(self.merges)

    @property
    def num_symbols(self) -> int:
        """Symbols of an output: the pause or end, then the units; of characters one more for a letter that training
        never saw."""
        if self.units == "bpe":
            return self.vocabulary
        if self.weights is not None:
            return 1 + int(self.weights["config"]["vocab_size"])
        return 1 + len(self.alphabet) + (self.units == "characters")

    @cached_property
    def symbols(self) -> dict[str, int]:
        """Letter -> symbol."""
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

    An empty text is a legal value (a missing one is None). As an output it is written by a decoder:

    - `ctc` spells letter by letter along the tokens of the inputs, in their order (speech to words, a line image to
      words); an answer's confidence is the probability of the best path, per letter: exp(sum of log p / letters);
    - `attention` writes symbol after symbol and looks at all tokens each time (translation, captions); the confidence is
      the probability of what was written, per symbol;
    - `ctc+attention` trains both on the same tokens (Watanabe et al. 2017) and lets the first judge what the second
      wrote;
    - `lm` is one causal network with the inputs as its prefix (prompt to continuation);
    - `pretrained: hf:FOLDER` in the place of a decoder: a language model (GPT-2) with its own tokenizer, which the inputs are
      shown to as a prefix, through a learnt map.

    `auto` takes ctc where every input is sound, and attention otherwise.
    """

    type: ClassVar[str] = "text"
    length_unit: ClassVar[str] = "bytes"
    drawn_as: ClassVar[Literal["cells", "picture", "sound", "text"]] = "text"
    unsure: ClassVar[str] = "a language model goes on in one of many ways, of which none is the right one"
    sure_by: ClassVar[str] = "remove abstain; a text that is right or wrong has decoder: ctc or attention"
    contract_class = TextContract
    hand_offs: ClassVar[frozenset[str]] = HAND_OFFS
    can_be_said: ClassVar[bool] = True
    axes: ClassVar[int] = 1
    read_fields: ClassVar[tuple[str, ...]] = ("source", "max_chars")
    instead: ClassVar[tuple[str, ...]] = (
        "units", "vocabulary", "drop", "reading", "causal", "decoder", "frames", "wait", "label_smoothing",
    )  # fmt: skip
    families: ClassVar[tuple[str, ...]] = ("bert", "roberta", "xlm-roberta", "electra", "distilbert", "mpnet")

    # of an output: the language model that writes it
    pretrained: str | None = shared_field(None, HELP["pretrained"])
    fine_tune: Literal["full", "top", "lora", "frozen"] | None = shared_field(None, HELP["fine_tune"])
    top_layers: int | None = shared_field(None, HELP["top_layers"])
    pretrained_rate: float | None = shared_field(None, HELP["pretrained_rate"])
    layer_decay: float | None = shared_field(None, HELP["layer_decay"])
    unfreeze: float | None = shared_field(None, HELP["unfreeze"])
    lora_rank: int | None = shared_field(None, HELP["lora_rank"])

    source: Literal["inline", "file"] = shared_field(
        "inline", "inline: the cell is the text; file: it names a text file"
    )
    max_chars: int | None = shared_field(None, "longer texts are refused, never cut; default 20000")
    units: Literal["auto", "bytes", "characters", "bpe"] = shared_field(
        "auto",
        "bpe: frequent pieces of words; bytes: any text; characters (outputs): those of the training rows; auto: bpe if "
        "the training rows have enough text, else bytes (inputs) or characters; of ctc characters",
    )
    vocabulary: int | None = shared_field(
        None, "most units of bpe; default 8449 read and 4096 written, and never units too rare to be learnt"
    )
    drop: float | None = input_field(
        None,
        "share of units that training leaves out at random; default 0.5 (little text) to 0.1, 0.2 where all that is "
        "learnt is an embedding, and 0.05 in context",
    )
    reading: Literal["auto", "bag", "context"] = input_field(
        "auto",
        "bag: words and pairs of words add up, their context comes in as it proves useful (decisions from little text); "
        "context: a transformer over all units from the first step; auto: context where a text is written or asks about a "
        "picture, a sound or what another stage has answered, else bag",
    )
    windows: bool = input_field(
        False,
        "texts beyond the positions of the pretrained network are read window after window, and looked at as a whole; "
        "false: they are refused",
    )
    causal: bool = input_field(False, "read the text while it is being written: no word looks at a later one")
    decoder: Literal["auto", "ctc", "attention", "ctc+attention", "lm"] = output_field(
        "auto", "ctc, attention, ctc+attention or lm; auto: ctc if every input is sound, else attention"
    )
    frames: int = output_field(
        2, "ctc: letters or pauses a token has room for; raise it if targets are longer than that"
    )
    beams: int = output_field(4, "how many beginnings of an answer are kept while it is written; 1 is greedy")
    length_penalty: float = output_field(1.0, "above 0 favours longer answers, below shorter ones (Wu et al. 2016)")
    longest: int | None = output_field(
        None,
        "most symbols an answer may have when written one by one; default: half more than any training text, plus 8",
    )
    wait: float | None = output_field(
        None,
        "attention over a stream: how much of the input, in seconds of sound or units of text, the first symbol waits for "
        "(wait-k); null: it waits for all of it",
    )
    lag_unit: str = output_field(
        "", "what the lag of a stream is counted in: follows from the input and need not be written"
    )
    label_smoothing: float = output_field(
        0.1, "share of the target that is spread over all symbols while attention learns (Szegedy et al. 2016)"
    )

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
            self.vocabulary is None or self.units in ("auto", "bpe"),
            field="Text.vocabulary", got=self.vocabulary, allowed=f"no vocabulary beside units: {self.units}",
            fix="remove one of the two",
        )  # fmt: skip
        require(
            not self.windows or self.pretrained is not None,
            field="Text.windows", got=True, allowed="only beside pretrained:",
            fix="remove it: what is read from scratch has no fixed number of positions",
        )  # fmt: skip
        require(
            1 <= self.beams <= 64,
            field="Text.beams", got=self.beams, allowed="a whole number from 1 (greedy) to 64",
            fix="leave it out for 4",
        )  # fmt: skip
        require(
            self.longest is None or self.longest >= 1,
            field="Text.longest", got=self.longest, allowed="a whole number of at least 1",
            fix="leave it out: it follows from the training texts",
        )  # fmt: skip
        require(
            self.drop is None or 0 <= self.drop < 1,
            field="Text.drop", got=self.drop, allowed="a share from 0 up to (not) 1",
            fix="leave it out",
        )  # fmt: skip
        require(
            self.wait is None or 0 <= self.wait < math.inf,
            field="Text.wait", got=self.wait, allowed="a number of at least 0",
            fix="1 suits seconds of sound, 3 units of text",
        )  # fmt: skip
        require(
            0 <= self.label_smoothing < 1,
            field="Text.label_smoothing", got=self.label_smoothing, allowed="a number from 0 up to (not) 1",
            fix="leave it out for 0.1",
        )  # fmt: skip
        require(
            -4 <= self.length_penalty <= 4,
            field="Text.length_penalty", got=self.length_penalty, allowed="a number from -4 to 4",
            fix="leave it out for 1",
        )  # fmt: skip
        require(
            1 <= self.frames <= 8,
            field="Text.frames", got=self.frames, allowed="a whole number from 1 to 8",
            fix="leave it out for 2",
        )  # fmt: skip

    def check_role(self, role: Role, name: str) -> None:
        """Also: an input is read in bytes or bpe, since a letter that training never saw must be read too; and options
        of one decoder are refused beside another."""
        super().check_role(role, name)
        require(
            role != INPUT_ROLE or self.handed or self.units != "characters",
            field=f"inputs.{name}.units", got="characters", allowed="auto, bytes or bpe",
            fix="write units: bytes, which reads any letter",
        )  # fmt: skip
        others = {
            "frames": SPELT,
            "beams": WRITTEN,
            "length_penalty": WRITTEN,
            "longest": WRITTEN,
            "label_smoothing": TAUGHT,
            "wait": ("attention",),
        }
        for option, decoders in others.items():
            default = next(item.default for item in dataclasses.fields(self) if item.name == option)
            require(
                self.decoder in ("auto", *decoders) or getattr(self, option) == default,
                field=f"outputs.{name}.{option}", got=getattr(self, option),
                allowed=f"decoder: {' or '.join(decoders)}", fix=f"remove {option}, or change the decoder",
            )  # fmt: skip
            require(
                self.wait is None or option not in ("beams", "length_penalty") or getattr(self, option) == default,
                field=f"outputs.{name}.{option}", got=getattr(self, option),
                allowed="nothing beside wait: what is written at once cannot be weighed against what comes later",
                fix=f"remove {option}, or wait",
            )  # fmt: skip

    def beside(self, inputs: Mapping[str, Modality], outputs: Mapping[str, Modality]) -> Self:
        """The decoder of `auto`: sound has the order of its words, so they are spelt along it; anything else is looked at
        as a whole. How an input is read: to write a text one must know the place of every word; a question about a picture
        means something else without any one of its words (easy-VQA: 0.79 with half of them dropped), and so does one about
        what another stage has seen in it: where words only add up, whether the two agree cannot be said; and what tells a
        text from its neighbours is often a single one. And the unit of the lag, where the input streams."""
        decoder, reading, drop = self.decoder, self.reading, self.drop
        if decoder == "auto" and self.pretrained is None:
            decoder = "ctc" if all(item.type == "audio" for item in inputs.values()) else "attention"
        if reading == "auto" and self.pretrained is None:
            written = any(item.type == "text" for item in outputs.values())
            asks = any(item.handed or item.type in SHOWN_BESIDE for item in inputs.values())
            reading = "context" if written or asks else "bag"
        if drop is None and self.pretrained is None:
            if reading == "context":
                drop = DROP_IN_CONTEXT
            elif all(item.type == "embedding" for item in outputs.values()):
                drop = DROP_BESIDE_SPACE
        unit = next(iter(inputs.values())).streams_in if len(inputs) == 1 else ""
        require(
            self.wait is None or self.handed or (bool(unit) and decoder == "attention"), field="Text.wait", got=self.wait,
            allowed="decoder: attention, and one input that streams",
            fix="write decoder: attention, and chunk_s: of the audio or causal: true of the text; or remove wait",
        )  # fmt: skip
        require(
            not self.causal or len(inputs) == 1, field="Text.causal", got=True,
            allowed=f"one input, not {len(inputs)}: a trunk looks at all of them as a whole",
            fix="remove causal, or the other inputs",
        )  # fmt: skip
        return dataclasses.replace(self, decoder=decoder, reading=reading, drop=drop, lag_unit=unit)

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
        reading = role == INPUT_ROLE
        weights = self._weights(reading)
        if weights is not None:
            return _pretrained_contract(weights, values, missing, reading=reading, windows=self.windows)
        lengths, counted, letters = _Lengths(), Counts(folded=reading), _Letters()
        decoder = "" if reading else "ctc" if self.decoder == "auto" else self.decoder
        counting = self.units == "bpe" or (self.units == "auto" and decoder not in SPELT)
        for value in values:
            text = _text(value)
            lengths.add(text)
            if counting:
                counted.add(text)
            if not reading:
                letters.add(text)
        units, merges, phrases = self._learnt(counted, reading) if counting else (self.units, (), ())
        alphabet: tuple[str, ...] = ()
        counts: tuple[int, ...] = ()
        if not reading and units != "bpe":
            units, alphabet, counts = letters.alphabet(units)
        return TextContract(
            count=lengths.count,
            missing=missing,
            shortest=lengths.shortest,
            mean=lengths.total / max(1, lengths.count),
            longest=lengths.longest,
            units=units,
            merges=merges,
            phrases=phrases,
            longest_units=_longest_units(lengths.kept(), units, merges, reading),
            decoder=decoder,
            alphabet=alphabet,
            alphabet_counts=counts,
            distinct=letters.distinct,
            lag_unit=self.lag_unit,
        )

    def continued(self, old: TextContract, new: TextContract, role: Role) -> Contract | None:
        """An output goes on in the symbols it has learnt where they can write these rows: bytes and bpe all, an alphabet those
        without another letter."""
        if role == INPUT_ROLE:
            return super().continued(old, new, role)
        alike = (old.units, old.decoder, old.weights, old.lag_unit) == (
            new.units,
            new.decoder,
            new.weights,
            new.lag_unit,
        )
        if not alike or not set(new.alphabet) <= set(old.alphabet):
            return None
        units = math.ceil(new.longest * old.longest_units / max(1, old.longest)) if old.units == "bpe" else 0
        return dataclasses.replace(
            new, alphabet=old.alphabet, alphabet_counts=old.alphabet_counts, merges=old.merges,
            longest_units=max(new.longest_units, units),
        )  # fmt: skip

    def _weights(self, reading: bool) -> dict[str, Any] | None:
        """The pretrained weights' description with the tokenizer, which must be the weights' own."""
        if self.pretrained is None:
            return None
        weights = describe(self.pretrained, self.families if reading else WRITERS, "Text.pretrained")
        weights["tokenizer"] = read_tokenizer(find(self.pretrained, "Text.pretrained"), "Text.pretrained")
        largest, known = PretrainedUnits(weights["tokenizer"]).largest, int(weights["config"]["vocab_size"])
        require(
            largest < known, field="Text.pretrained: tokenizer.json", got=f"ids up to {largest}",
            allowed=f"ids below {known}, which config.json has vectors for",
            fix=ONE_MODEL,
        )  # fmt: skip
        require(
            known - largest <= max(MOST_UNUSED_IDS, known // 10), field="Text.pretrained: tokenizer.json",
            got=f"{largest + 1} ids", allowed=f"about {known} ids, which config.json has vectors for", fix=ONE_MODEL,
        )  # fmt: skip
        return weights

    def _learnt(self, counted: Counts, reading: bool) -> tuple[str, Pairs, Pairs]:
        """Units with their merges and phrases; `auto` may find too few for bpe."""
        most = MAX_MERGES if reading else MOST_WRITTEN
        if self.vocabulary is not None:
            most = self.vocabulary - FIRST_MERGE
        merges = (
            learn_merges(counted, most=most) if reading else learn_merges(counted, most=most, at_least=WRITTEN_COUNT)
        )
        if self.units == "auto" and self.vocabulary is None and len(merges) < FEWEST_MERGES:
            return ("bytes" if reading else "auto"), (), ()
        return "bpe", merges, learn_phrases(counted, merges) if reading else ()

    def transform(self, value: np.ndarray, contract: TextContract) -> np.ndarray:
        """int64 [n]. Of an input: units with case and phrase, at least one (tokenizer.py), or the pretrained
        tokenizer's ids. Of an output: its symbols, of characters the last one for a letter that training never saw."""
        if contract.weights is not None and contract.decoder:
            return np.array(contract.ids.written(_text(value)), dtype=np.int64) + 1
        if contract.weights is not None:
            return self._ids(_text(value), contract)
        if not contract.decoder:
            if contract.units == "bpe":
                return np.array(contract.cutter.encode(_text(value)), dtype=np.int64)
            return np.concatenate([[START], value.astype(np.int64) + FIRST_BYTE])
        if contract.units == "bpe":
            return np.array(contract.cutter.symbols(_text(value)), dtype=np.int64)
        if contract.units == "bytes":
            return value.astype(np.int64) + FIRST_BYTE
        unknown = 1 + len(contract.alphabet)
        return np.array([contract.symbols.get(letter, unknown) for letter in _text(value)], dtype=np.int64)

    def _ids(self, text: str, contract: TextContract) -> np.ndarray:
        if self.windows:
            return np.array(contract.ids.windows(text, contract.most_units), dtype=np.int64)
        found = contract.ids.encode(text)
        if len(found) > contract.most_units:
            raise BadValue(
                f"{len(found)} units of the pretrained tokenizer, more than the {contract.most_units} it has positions for; "
                "split the text into rows, or train with windows: true"
            )
        return np.array(found, dtype=np.int64)

    def blank(self, contract: TextContract) -> np.ndarray:
        """The empty text."""
        if contract.weights is not None and not contract.decoder:
            return np.array(contract.ids.encode(""), dtype=np.int64)
        return np.array([] if contract.decoder else [START], dtype=np.int64)

    def length(self, shape: tuple[int, ...]) -> int:
        """Bytes."""
        return shape[0]

    @property
    def file_kinds(self) -> tuple[str, ...]:
        """Text files where the cell names one."""
        return ("text/plain",) if self.source == "file" else ()

    def example(self, contract: TextContract) -> Any:
        """Some words."""
        return "A few words."

    def summary(self, contract: TextContract) -> str:
        """'6920 texts of 4 to 267 characters; 8449 units (bpe), 19497 phrases' or '...; 16 letters: "e", "n" ...'."""
        head = f"{contract.count} texts of {contract.shortest} to {contract.longest} characters"
        if contract.weights is not None:
            by = "; written by" if contract.decoder else ";"
            cut = f", read in windows of {contract.most_units}" if self.windows else ""
            return f"{head}, {contract.longest_units} units at most{cut}{by} {summary_of(contract.weights)}"
        if not contract.decoder:
            if contract.units == "bytes":
                return f"{head}; read as bytes"
            return f"{head}; {contract.vocabulary} units ({contract.units}), {len(contract.phrases)} phrases"
        head = f"{head}; written by {contract.decoder}"
        if self.decoder == "auto":
            head = f"{head} ({WHY[contract.decoder]})"
        if contract.units == "bpe":
            return f"{head} in {contract.num_symbols} units (bpe)"
        if contract.units == "bytes":
            return f"{head} in bytes"
        ranked = sorted(
            zip(contract.alphabet, contract.alphabet_counts, strict=True), key=lambda item: (-item[1], item[0])
        )
        shown = "".join(letter for letter, _ in ranked[:SHOWN_LETTERS])
        return f"{head} in {len(ranked)} letters: {shown!r}{' …' if len(ranked) > SHOWN_LETTERS else ''}"

    def preview(self, value: np.ndarray, contract: TextContract) -> dict[str, str]:
        """The text; of a long one the beginning, and how long it is."""
        text = _text(value)
        if len(text) > PREVIEW_CHARS:
            text = f"{text[:PREVIEW_CHARS]} … ({len(text)} characters)"
        return {"kind": "text", "data": text}

    def oddities(
        self, train: Iterable[np.ndarray], held: Iterable[np.ndarray], contract: TextContract
    ) -> Sequence[tuple[str, str, Sequence[int]]]:
        """Held-out texts in letters that no training text has: another alphabet is read, and means nothing yet."""
        known, count = set[str](), 0
        for value in train:
            known.update(_text(value))
            count += 1
        strange, rows = Counter[str](), []
        for row, value in enumerate(held, count):
            new = set(_text(value)) - known
            strange.update(new)
            if new:
                rows.append(row)
        if not rows or not count:
            return ()
        message = f"{len(rows)} held-out texts have letters that no training text has: {_shown(strange)}"
        return [(message, "give training rows in that alphabet, or mend the encoding of the file", rows)]

    # ---- inputs ----------------------------------------------------------------------------------------------------

    def hand_features(self) -> Any:
        """TF-IDF of words, pairs of words, and 2 to 4 neighbouring characters."""
        from endwise.modalities.text.features import TextFeatures

        return TextFeatures()

    def spans(self, value: np.ndarray, contract: TextContract) -> list[tuple[int, int]]:
        """The characters of an input (from, to) that each unit of `transform` stands for; none of what begins a text."""
        text = _text(value)
        if contract.weights is not None:
            found = contract.ids.spans(text)
            require(
                len(found) <= contract.most_units, field="the text", got=f"{len(found)} units, read in windows",
                allowed=f"at most {contract.most_units} units", fix="explain a part of it", error=ModelError,
            )  # fmt: skip
            return found
        if contract.units == "bpe":
            return contract.cutter.spans(text)
        return [(0, 0), *((at, at + 1) for at, letter in enumerate(text) for _ in letter.encode())]

    def onto(self, places: np.ndarray, whole: np.ndarray, contract: TextContract) -> np.ndarray:
        """Characters: what a unit has is shared by its own."""
        found = np.zeros(len(_text(whole)))
        for share, (start, stop) in zip(places, self.spans(whole, contract), strict=True):
            if stop > start:
                found[start:stop] += share / (stop - start)
        return found

    def named(self, whole: np.ndarray, contract: TextContract) -> Sequence[str]:
        """Its characters."""
        return list(_text(whole))

    # ---- outputs ---------------------------------------------------------------------------------------------------

    def about(
        self, which: Any, decoded: Mapping[str, np.ndarray], contract: TextContract
    ) -> tuple[str, tuple[int, ...]]:
        """The whole text, or one of its words: by its number from 0, or by itself where it stands there."""
        symbols = _symbols(decoded).tolist()
        text = _joined(symbols, contract)
        if which is None:
            return repr(text), (0, len(symbols))
        found = list(WORD.finditer(text))
        number = next((index for index, word in enumerate(found) if word[0] == str(which)), None)
        word = found[counted(which, len(found), "words") if number is None else number]
        ends = [len(_letters(symbols[:count], contract, last=True)) for count in range(len(symbols) + 1)]
        first = next(index for index in range(len(symbols)) if ends[index + 1] > word.start())
        last = next(index for index in range(first, len(symbols)) if ends[index + 1] >= word.end())
        return repr(word[0]), (first, last + 1)

    @property
    def num_terms(self) -> int:
        """Two where it is both spelt and written."""
        return 2 if self.decoder == "ctc+attention" else 1

    def truth(self, value: np.ndarray, contract: TextContract) -> str:
        """The text, letters that training never saw included."""
        return _text(value)

    def write(self, decoded: Mapping[str, np.ndarray], contract: TextContract) -> Answer:
        """Of a path: repeats merged, pauses dropped (greedy CTC decoding; Graves et al. 2006). The symbols joined."""
        return self._answer(decoded, contract, _joined)

    @property
    def can_be_shown(self) -> bool:
        """Of bytes: other units do not keep every space and letter as it was."""
        return self.units == "bytes" and self.pretrained is None

    def said(self, target: np.ndarray, contract: TextContract) -> str:
        """The symbols joined."""
        if not contract.decoder:
            return bytes(int(unit) - FIRST_BYTE for unit in target[1:]).decode()
        return _joined(np.asarray(target).tolist(), contract)

    def write_so_far(self, decoded: Mapping[str, np.ndarray], contract: TextContract, *, last: bool) -> Answer:
        """The text so far. A character whose bytes are not all there waits for them, and nothing is composed (NFC): what
        has been said would change if a combining mark came next."""
        return self._answer(decoded, contract, partial(_letters, last=last))

    def _answer(
        self,
        decoded: Mapping[str, np.ndarray],
        contract: TextContract,
        text_of: Callable[[Sequence[int], TextContract], str],
    ) -> Answer:
        symbols = _symbols(decoded)
        chosen = len(symbols)
        if "symbols" in decoded:  # the end was chosen too, unless there was no room for it
            chosen = min(chosen + 1, len(decoded["symbols"]))
        sure = min(1.0, math.exp(float(decoded["score"]) / max(1, chosen)))
        lag = float(decoded.get("lag", math.nan))
        detail: dict[str, Any] = {} if math.isnan(lag) else {f"lag_{contract.lag_unit}": lag}
        if "symbols" in decoded and chosen == len(symbols):
            detail["ended"] = False  # it came to the longest that an answer may be
        return Answer(text_of(symbols.tolist(), contract), sure, detail=detail)

    def remarks(self, truths: Sequence[Any], answers: Sequence[Answer], contract: TextContract) -> Sequence[str]:
        """Answers that were cut, truths that are longer than any answer, and truths in letters that training never saw."""
        found, all_rows = [], len(truths)
        if contract.decoder in WRITTEN:
            most = self.most_symbols(contract)
            cut = sum(not answer.detail.get("ended", True) for answer in answers)
            if cut:
                found.append(
                    f"{cut} of {len(answers)} answers had not ended at longest = {most} symbols, and stop there"
                )
            long = sum(len(self.transform(_value(truth), contract)) > most for truth in truths)
            if long:
                found.append(
                    f"{long} of {all_rows} right texts have more symbols than longest = {most}: no answer is as long"
                )
        if contract.units == "characters":
            strange = Counter(letter for truth in truths for letter in set(truth) - contract.symbols.keys())
            rows = sum(not contract.symbols.keys() >= set(truth) for truth in truths)
            if rows:
                found.append(
                    f"{rows} of {all_rows} right texts have letters that training never saw: {_shown(strange)}"
                )
        return found

    def metrics(self, contract: TextContract) -> Sequence["Metric"]:
        """Of what is spelt: wer, cer, and accuracy, the share of rows whose whole text is right. Of what attention writes
        chrf and bleu come first; of a language model the likelihood of the truth, for which nothing need be written."""
        from endwise import metrics

        spelt = [metrics.wer(), metrics.cer(), metrics.accuracy()]
        if contract.lag_unit:
            spelt.append(metrics.lag(contract.lag_unit))
        if contract.decoder in ("", *SPELT):
            return spelt
        if contract.decoder in ("attention", "pretrained"):
            return [metrics.chrf(), metrics.bleu(), *spelt]
        term = "cross_entropy"
        return [metrics.bits_per_byte(term), metrics.nats_per_character(term), metrics.perplexity(term)]

    @property
    def can_abstain(self) -> bool:
        """A language model goes on in one way of many: no one of them is right."""
        return self.decoder != "lm"

    def risk(self, contract: TextContract) -> "Metric":
        """Wrong letters for each right one."""
        from endwise import metrics

        return metrics.cer()

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
        from endwise.modalities.text.network import StreamedText, TextEncoder

        if contract.weights is not None:
            from endwise.nn.pretrained import TokenEncoder

            folder = partial(verified, contract.weights, "Text.pretrained")
            window = contract.most_units if self.windows else None
            return TokenEncoder(contract.weights, self.tuning(), size, folder, window=window)
        kind = StreamedText if self.causal else TextEncoder
        return kind(contract, size, in_context=self.reading == "context", drop=self.drop)

    def carrier(self, contract: TextContract, size: "Size") -> "Encoder":
        """A token for each symbol that the text is written in."""
        from endwise.modalities.text.network import SymbolEncoder

        return SymbolEncoder(contract.num_symbols, size)

    @property
    def streams_in(self) -> str:
        """Units."""
        return "units" if self.causal else ""

    def reader(self, contract: TextContract) -> "Reader":
        """Pieces are strings, cut anywhere."""
        from endwise.modalities.text.pieces import Pieces

        return Pieces(contract)

    def pieces(self, raw: Any, fetch: Fetch) -> Iterable[Any]:
        """Words."""
        text = _text(self.read(raw, fetch))
        found = words(text)  # the first has a space before it that is not in the text
        return [found[0].removeprefix(" "), *found[1:]]

    def most_symbols(self, contract: TextContract) -> int:
        """How long an answer may become that is written symbol after symbol."""
        return self.longest or int(LONGEST_SHARE * contract.longest_units) + LONGEST_MORE

    def _writer(self, contract: TextContract, size: "Size") -> "Writer":
        """What writes one by one."""
        if contract.weights is None:
            from endwise.nn.decoder import Decoder

            return Decoder(size, contract.num_symbols, prefix=contract.decoder == "lm")
        from endwise.nn.gpt2 import PretrainedWriter

        folder, longest = partial(verified, contract.weights, "Text.pretrained"), self.most_symbols(contract)
        return PretrainedWriter(contract.weights, self.tuning(), size, folder, longest=longest)

    def head(self, contract: TextContract, size: "Size") -> "Head":
        """What the contract's decoder is."""
        from endwise.modalities.text.network import CTCHead

        if contract.decoder == "ctc":
            return CTCHead(contract, size, frames=self.frames)
        head = self._writing(contract, size)
        head.symbols = contract.mean * contract.longest_units / max(1, contract.longest)
        return head

    def _writing(self, contract: TextContract, size: "Size") -> "Head":
        from endwise.modalities.text.network import CTCHead
        from endwise.modalities.text.sequence import JointHead, SequenceHead

        longest = self.most_symbols(contract)
        if self.wait is not None:
            from endwise.modalities.text.waiting import WaitingHead

            return WaitingHead(
                contract.num_symbols, size, wait=self.wait, longest=longest, smoothing=self.label_smoothing
            )
        written = SequenceHead(
            self._writer(contract, size), size, beams=self.beams, longest=longest, penalty=self.length_penalty,
            smoothing=self.label_smoothing if contract.decoder in TAUGHT else 0.0,
        )  # fmt: skip
        if contract.decoder != "ctc+attention":
            return written
        return JointHead(CTCHead(contract, size, frames=self.frames), written)


def _pretrained_contract(
    weights: dict[str, Any], values: Iterable[np.ndarray], missing: int, *, reading: bool, windows: bool
) -> TextContract:
    units, most = PretrainedUnits(weights["tokenizer"]), most_units(weights["config"])
    lengths, longest, letters = _Lengths(), 1, _Letters()
    for value in values:
        text = _text(value)
        lengths.add(text)
        if not reading:
            letters.add(text)
        longest = max(longest, len(units.encode(text) if reading else units.written(text)))
    instead = "write windows: true to read them piece by piece, " if reading else ""
    require(
        longest <= most or windows, field="Text.pretrained", got=f"a training text of {longest} units",
        allowed=f"texts of at most {most}, which the pretrained network has positions for",
        fix=f"{instead}split long texts into rows, write max_chars: to refuse them, or take a model of longer texts",
    )  # fmt: skip
    return TextContract(
        count=lengths.count, missing=missing, shortest=lengths.shortest, mean=lengths.total / max(1, lengths.count),
        longest=lengths.longest, units="pretrained", merges=(), phrases=(), longest_units=longest,
        decoder="" if reading else "pretrained", alphabet=(), alphabet_counts=(), distinct=letters.distinct, weights=weights,
    )  # fmt: skip


def most_units(config: Mapping[str, Any]) -> int:
    """Positions that a text may fill: RoBERTa and its kin number them from after the padding's."""
    positions = int(config.get("max_position_embeddings") or config.get("n_positions") or 512)
    shifted = config.get("model_type") in ("roberta", "xlm-roberta", "mpnet")
    return positions - int(config.get("pad_token_id", 1)) - 1 if shifted else positions


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


def _longest_units(texts: Sequence[str], units: str, merges: Pairs, reading: bool) -> int:
    """Of the longest texts in characters, the most units."""
    if units == "bpe":
        cutter = Units(merges)
        sizes = [len(cutter.encode(text) if reading else cutter.symbols(text)) for text in texts]
    elif units == "bytes":
        sizes = [reading + len(text.encode()) for text in texts]
    else:
        sizes = [len(text) for text in texts]
    return max(sizes, default=1)


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


def _shown(letters: "Counter[str]") -> str:
    """The most frequent few."""
    ranked = sorted(letters.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(repr(letter) for letter, _ in ranked[:LETTERS_NAMED]) + (
        " …" if len(ranked) > LETTERS_NAMED else ""
    )


def _value(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), dtype=np.uint8)


def _text(value: np.ndarray) -> str:
    return value.tobytes().decode()


def _symbols(decoded: Mapping[str, np.ndarray]) -> np.ndarray:
    """What was written, or said by a path: repeats merged, pauses dropped."""
    if "path" not in decoded:
        written: np.ndarray = np.asarray(decoded["symbols"])[: int(decoded["length"])]
        return written
    path = np.asarray(decoded["path"])[: int(decoded["frames"])]
    first = np.ones(len(path), dtype=bool)
    first[1:] = path[1:] != path[:-1]
    spelt: np.ndarray = path[first & (path != BLANK)]
    return spelt


def _joined(symbols: Sequence[int], contract: TextContract) -> str:
    """The text of symbols, none of them a pause or an end."""
    return unicodedata.normalize("NFC", _letters(symbols, contract, last=True))


def _letters(symbols: Sequence[int], contract: TextContract, *, last: bool) -> str:
    """The same as it was written. last: bytes at the end that are no character yet will become none."""
    if contract.units == "characters":
        letters = [*contract.alphabet, UNKNOWN]
        return "".join(letters[symbol - 1] for symbol in symbols)
    if contract.units == "bpe":
        return contract.cutter.text(symbols, last=last)
    if contract.units == "pretrained":
        return contract.ids.text([symbol - 1 for symbol in symbols])
    data = bytes(symbol - FIRST_BYTE for symbol in symbols)
    return codecs.getincrementaldecoder("utf-8")("replace").decode(data, last)
