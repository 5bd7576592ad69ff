"""Text to units: words, case, byte-level byte pair encoding (BPE; Sennrich et al. 2016), phrases. Pure Python.

Here: cutting text into words, learning merges and phrases from counts, applying them. Nothing is unknown, because
every merge is built on bytes. An exported bundle carries this file, so it needs the standard library alone; only
`learn_merges` and the tokenizers of pretrained models ask for the `tokenizers` package. Not here: declarations, embeddings, anything learnt by gradient.

Units: 0 starts every text; 1 + b is byte b; 257 + k is the result of merge k. Case is no separate word: a capitalised
word, or one in capitals, is cut as its lower-case form, and its units carry the case. A phrase is a pair of
neighbouring units that training saw more than once; the second of the two carries it. One number holds all three:
`unit + vocabulary * (case + CASES * phrase)`, with 0 for the plain case and for no phrase.
"""

import codecs
import json
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from endwise.errors import RecipeError, require

START = 0  # the first unit of every text, so that an empty one has a token too
FIRST_BYTE = 1
FIRST_MERGE = FIRST_BYTE + 256
PLAIN, CAPITALISED, CAPITALS = 0, 1, 2
CASES = 3

MIN_PAIR_COUNT = 3  # merges go on until no pair of units occurs this often ...
MAX_MERGES = 8_192  # ... or there are so many: past it, units of a small network's corpus are too rare to be learnt
MIN_PHRASE_COUNT = 2
MAX_PHRASES = 32_767
MAX_WORD_CHARS = 48  # longer runs (no spaces: Chinese, base64) are cut, which bounds the cost of applying merges
MAX_FED_WORDS = 2_000_000  # word occurrences shown to the trainer; larger counts are scaled down together
MAX_COUNTED = 3_000_000  # different words, and different pairs, held while counting; then those seen once are dropped
CACHED_WORDS = 65_536
TOKENIZER = "tokenizer.json"
MAX_TOKENIZER_BYTES = 40_000_000

Pair = tuple[int, int]
Pairs = tuple[Pair, ...]

# Marks between words: ASCII, Latin-1, general, CJK. Everything else that is no space and no digit belongs to a word, so
# combining marks, vowel signs and joined emoji stay with their letters (the re module's \w would cut them off).
_MARKS = "!-/:-@\\[-`{-~\u00a1-\u00a9\u00ab-\u00b4\u00b6-\u00b9\u00bb-\u00bf\u2010-\u2027\u2030-\u205e\u3001-\u3020"
_WORD = re.compile(
    rf" ?'(?:s|t|re|ve|m|ll|d)\b| ?[^\s\d{_MARKS}]{{1,{MAX_WORD_CHARS}}}| ?\d{{1,3}}| ?[{_MARKS}]{{1,8}}|\s",
    re.IGNORECASE,
)


def words(text: str) -> list[str]:
    """Words with the space before them; the first gets one too. Joined they are the text again: nothing is lost."""
    return _WORD.findall(" " + text)


def fold(word: str) -> tuple[str, int]:
    """The lower-case form and the case it had; a word that would not come back exactly (iPhone, ß) stays as it is."""
    low = word.lower()
    if low == word:
        return word, PLAIN
    for case in (CAPITALISED, CAPITALS):
        if unfold(low, case) == word:
            return low, case
    return word, PLAIN


def unfold(word: str, case: int) -> str:
    """The inverse of `fold`."""
    if case == PLAIN:
        return word
    if case == CAPITALS:
        return word.upper()
    at = len(word) - len(word.lstrip(" '"))
    return word[:at] + word[at : at + 1].upper() + word[at + 1 :]


class Counts:
    """How often words and neighbouring pairs of them occur: all there is to know to learn units. One pass. Words are
    folded (see `fold`) where the text is read, and stay as they are where it is to be written."""

    def __init__(self, *, folded: bool = True) -> None:
        self.folded = folded
        self.words: Counter[str] = Counter()
        self.pairs: Counter[tuple[str, str]] = Counter()

    def add(self, text: str) -> None:
        """Count one text. Past MAX_COUNTED different words or pairs, those seen once so far are forgotten."""
        found = [fold(word)[0] for word in words(text)] if self.folded else words(text)
        self.words.update(found)
        self.pairs.update(pairwise(found))
        if len(self.words) > MAX_COUNTED:
            self.words = _seen_again(self.words)
        if len(self.pairs) > MAX_COUNTED:
            self.pairs = _seen_again(self.pairs)


def learn_merges(counts: Counts, *, most: int = MAX_MERGES, at_least: int = MIN_PAIR_COUNT) -> Pairs:
    """Merges as pairs of units, the most frequent first, until no pair occurs `at_least` times or there are `most`.

    The same counts give the same merges, whatever order they came in.
    """
    from tokenizers import Tokenizer, models, trainers

    if not counts.words or most < 1:
        return ()
    letters = [_letter(byte) for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=256 + most, min_frequency=at_least, show_progress=False, special_tokens=[], initial_alphabet=letters
    )
    model = Tokenizer(models.BPE())
    model.train_from_iterator(_fed(counts.words), trainer)
    units = {bytes([byte]): FIRST_BYTE + byte for byte in range(256)}
    merges: list[Pair] = []
    for left, right in json.loads(model.to_str())["model"]["merges"]:
        one, two = _bytes(left), _bytes(right)
        units.setdefault(one + two, FIRST_MERGE + len(merges))  # two merges can spell the same
        merges.append((units[one], units[two]))
    return tuple(merges)


def learn_phrases(counts: Counts, merges: Pairs, *, most: int = MAX_PHRASES, at_least: int = MIN_PHRASE_COUNT) -> Pairs:
    """Pairs of neighbouring units that occur `at_least` times, the most frequent first.

    They give a small network what word pairs give a linear model; a pair that training never saw adds nothing, where
    a hashed one would add another pair's meaning.
    """
    units = Units(merges)
    cut = {word: units.cut(word.encode()) for word in counts.words}
    found: Counter[Pair] = Counter()
    for word, count in counts.words.items():
        for pair in pairwise(cut[word]):
            found[pair] += count
    for (left, right), count in counts.pairs.items():
        if left in cut and right in cut:
            found[cut[left][-1], cut[right][0]] += count
    ranked = sorted((-count, pair) for pair, count in found.items() if count >= at_least)
    return tuple(pair for _, pair in ranked[:most])


class Units:
    """Learnt merges and phrases, ready to be applied. Equal to the `tokenizers` library on every word (tested)."""

    def __init__(self, merges: Sequence[Pair], phrases: Sequence[Pair] = ()) -> None:
        self.size = FIRST_MERGE + len(merges)
        self._learnt = (tuple(merges), tuple(phrases))
        self.spelt: list[bytes] = [b"", *(bytes([byte]) for byte in range(256))]
        self._merge: dict[Pair, Pair] = {}  # pair -> (rank, the unit it becomes)
        known = {spelling: unit for unit, spelling in enumerate(self.spelt) if unit}
        for rank, (left, right) in enumerate(merges):
            joined = self.spelt[left] + self.spelt[right]
            self.spelt.append(joined)
            self._merge[(left, right)] = (rank, known.setdefault(joined, FIRST_MERGE + rank))
        self._phrase = {pair: index + 1 for index, pair in enumerate(phrases)}
        self._word = lru_cache(maxsize=CACHED_WORDS)(self._cased)
        self._plain = lru_cache(maxsize=CACHED_WORDS)(self.cut)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied to other processes as what was learnt, without the cache."""
        return Units, self._learnt

    def encode(self, text: str) -> list[int]:
        """Units with their case and phrase, START first."""
        return [START, *self.following(text, START, first=True)[0]]

    def following(self, text: str, before: int, *, first: bool) -> tuple[list[int], int]:
        """The same of a text that goes on behind the unit `before`, and its last unit. Where the part before ended at
        white space or, `first`, was none, it is as if both were encoded together."""
        packed = []
        for word in words(text) if first else _WORD.findall(text):
            cut, case = self._word(word)
            for unit in cut:
                phrase = self._phrase.get((before, unit), 0)
                packed.append(unit + self.size * (case + CASES * phrase))
                before = unit
        return packed, before

    def symbols(self, text: str) -> list[int]:
        """Units of a text to be written: no START, no phrases, words as they are. `text` gives it back."""
        return [unit for word in words(text) for unit in self._plain(word.encode())]

    def text(self, symbols: Sequence[int], *, last: bool = True) -> str:
        """The text of written units, without the space that `words` puts before the first; bytes that are no UTF-8
        are U+FFFD. Where more units may come (not `last`), bytes at the end that are no character yet are left out."""
        data = b"".join(self.spelt[symbol] for symbol in symbols)
        return codecs.getincrementaldecoder("utf-8")("replace").decode(data, last).removeprefix(" ")

    def spans(self, text: str) -> list[tuple[int, int]]:
        """The characters (from, to) of each unit of `encode`; of a word whose lower case has more or fewer letters than it
        has, all of it. START has none, nor has a space that `words` puts before the first."""
        found, at = [(0, 0)], -1
        for word in words(text):
            folded, _ = fold(word)
            ends = [0, *accumulate(len(letter.encode()) for letter in folded)]
            same, done = len(folded) == len(word), 0
            for unit in self._word(word)[0]:
                first = bisect_right(ends, done) - 1
                done += len(self.spelt[unit])
                last = bisect_left(ends, done)
                start, stop = (at + first, at + last) if same else (at, at + len(word))
                found.append((max(0, start), max(0, stop)))
            at += len(word)
        return found

    def spell(self, packed: int) -> str:
        """One unit for people: its text in the case it carries, the bytes of a split character as U+FFFD."""
        case = packed // self.size % CASES
        return unfold(self.spelt[packed % self.size].decode("utf-8", "replace"), case)

    def cut(self, spelling: bytes) -> list[int]:
        """One word's units without case: the earliest merge first, of equal ones the leftmost."""
        units = [FIRST_BYTE + byte for byte in spelling]
        while len(units) > 1:
            pairs = pairwise(units)
            found = [(*self._merge[pair], at) for at, pair in enumerate(pairs) if pair in self._merge]
            if not found:
                break
            _, unit, at = min(found, key=lambda item: (item[0], item[2]))
            units[at : at + 2] = [unit]
        return units

    def _cased(self, word: str) -> tuple[list[int], int]:
        folded, case = fold(word)
        return self.cut(folded.encode()), case


class PretrainedUnits:
    """The tokenizer that pretrained weights were trained with (the text of tokenizer.json): ids with the special ones
    around them. Never cuts and never pads, whatever the file says. Several threads may use it."""

    def __init__(self, spec: str) -> None:
        self._spec = spec
        self._tokenizer = _tokenizer_of(spec)

    def __reduce__(self) -> tuple[Any, ...]:
        return PretrainedUnits, (self._spec,)

    @cached_property
    def _writing(self) -> Any:
        """Takes what only looks like a special id as text."""
        found = _tokenizer_of(self._spec)
        found.encode_special_tokens = True
        return found

    @property
    def largest(self) -> int:
        """The highest id that a text can become."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=0)

    def encode(self, text: str) -> list[int]:
        """Ids, at least one: a model without special tokens reads an empty text as a space, or as its first id."""
        found: list[int] = self._tokenizer.encode(text).ids or self._tokenizer.encode(" ").ids
        return found or [0]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """The characters (from, to) of each id of `encode`; special ones have none."""
        found = self._tokenizer.encode(text)
        if not found.ids:
            return [(0, 0)] * len(self.encode(text))
        return [(int(start), int(stop)) for start, stop in found.offsets]

    def windows(self, text: str, most: int) -> list[int]:
        """As `encode`, where that gives at most `most` ids; else the ids of windows one after the other, each with the
        special ones around it, all of `most` ids but the last."""
        found = self.encode(text)
        if len(found) <= most:
            return found
        room = most - self._tokenizer.num_special_tokens_to_add(False)
        plain = self._tokenizer.encode(text, add_special_tokens=False)
        plain.truncate(room)
        return [one for part in (plain, *plain.overflowing) for one in self._tokenizer.post_process(part).ids]

    def written(self, text: str) -> list[int]:
        """Ids of a text to be written: no special ones, and none for what only looks like one."""
        found: list[int] = self._writing.encode(text, add_special_tokens=False).ids
        return found

    def text(self, ids: Sequence[int]) -> str:
        """The text of ids that were written."""
        found: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return found


def _tokenizer_of(spec: str) -> Any:
    from tokenizers import Tokenizer

    found = Tokenizer.from_str(spec)
    found.no_truncation()
    found.no_padding()
    return found


def read_tokenizer(folder: Path, field: str) -> str:
    """The text of a folder's tokenizer.json, proved to be one."""
    file = folder / TOKENIZER
    fix = "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) of transformers writes it"
    require(file.is_file(), field=field, got=str(folder), allowed=f"a folder with {TOKENIZER}", fix=fix)
    spec = file.read_bytes()[: MAX_TOKENIZER_BYTES + 1].decode("utf-8", "replace")
    try:
        PretrainedUnits(spec)
    except Exception as wrong:  # the library raises a plain Exception
        raise RecipeError(f"{field}: {file} is no tokenizer: {str(wrong)[:200]}. Fix: {fix}.") from None
    return spec


def _seen_again(counts: Counter) -> Counter:  # type: ignore[type-arg]
    return Counter({item: count for item, count in counts.items() if count > 1})


def _fed(counts: "Counter[str]") -> Iterable[list[str]]:
    """Every word as often as it was counted: the trainer takes no counts."""
    scale = max(1.0, counts.total() / MAX_FED_WORDS)
    for word, count in sorted(counts.items()):
        if times := round(count / scale):
            yield ["".join(map(_letter, word.encode()))] * times


def _letter(byte: int) -> str:
    return chr(0x100 + byte)


def _bytes(letters: str) -> bytes:
    return bytes(ord(letter) - 0x100 for letter in letters)
