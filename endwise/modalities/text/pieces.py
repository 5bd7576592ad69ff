"""A text that is still being written, piece by piece, as the units that the whole would be read to. Pure Python.

Not here: the network, and when there is enough for its next token (endwise/stream.py)."""

import unicodedata
from typing import Any

import numpy as np

from endwise.errors import BadValue
from endwise.modalities.text import TextContract
from endwise.modalities.text.tokenizer import FIRST_BYTE, START


class Pieces:
    """Words are certain when the white space after them is there: before that the next letter could change how they are
    cut, or what they are composed to."""

    def __init__(self, contract: TextContract) -> None:
        self._contract = contract
        self._open = ""  # what may still change
        self._before: int | None = None  # the last unit; None: nothing was given out yet
        self._first = True
        self._count = 0

    @property
    def length(self) -> float:
        """Units of the words that are complete."""
        return float(self._count)

    def take(self, raw: Any) -> np.ndarray:
        """int64 [units]."""
        if not isinstance(raw, str):
            raise BadValue(f"a piece of text is a string, not {type(raw).__name__}")
        self._open += raw
        cut = max((place for place, letter in enumerate(self._open) if letter.isspace()), default=0)
        done, self._open = self._open[:cut], self._open[cut:]
        return self._units(done, last=False)

    def rest(self) -> np.ndarray:
        """The last word."""
        done, self._open = self._open, ""
        return self._units(done, last=True)

    def _units(self, text: str, *, last: bool) -> np.ndarray:
        text = unicodedata.normalize("NFC", text)
        found = [START] if self._before is None else []
        before = START if self._before is None else self._before
        try:
            if self._contract.units != "bpe":
                new = [FIRST_BYTE + byte for byte in text.encode()]
            elif not text and not (last and self._first):  # nothing yet; bpe has a unit for a text that is empty
                new = []
            else:
                new, before = self._contract.cutter.following(text, before, first=self._first)
        except UnicodeEncodeError:
            raise BadValue("half a surrogate pair: not a text") from None
        self._before, self._first = before, self._first and not text
        self._count += len(new)
        return np.array([*found, *new], dtype=np.int64)
