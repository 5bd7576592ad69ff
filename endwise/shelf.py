"""Answers that are large arrays, put aside in a temporary file until somebody looks at them again: the memory of scoring
many volumes is then that of one.

Not here: which answers there are, and what of them is looked at (evaluate.py).
"""

import contextlib
import mmap
import tempfile
import weakref
from dataclasses import replace
from typing import IO

import numpy as np

from endwise.drawing import Segmentation
from endwise.modalities.base import Answer

LEAST = 64 << 10  # bytes of an array that is worth it
SEGMENT = 64 << 20  # of a file, which many arrays share: a process may have so many mapped files and no more
ALIGNED = 64


class Shelf:
    """Arrays stay readable as long as they are referred to; their files are gone with the last of them. Not for several threads."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._map: mmap.mmap | None = None
        self._used = 0

    def put(self, answer: Answer) -> Answer:
        """The same answer, its array mapped from the file."""
        value = answer.value
        if not isinstance(value, Segmentation) or value.numbers.nbytes < LEAST:
            return answer
        with contextlib.suppress(OSError):  # no room on the disk: it stays in memory
            return replace(answer, value=replace(value, numbers=self._kept(np.ascontiguousarray(value.numbers))))
        return answer

    def _kept(self, array: np.ndarray) -> np.ndarray:
        if self._map is None or self._used + array.nbytes > len(self._map):
            self._open(max(SEGMENT, array.nbytes))
        assert self._file is not None
        assert self._map is not None
        start, self._used = self._used, self._used + -(-array.nbytes // ALIGNED) * ALIGNED
        self._file.seek(start)
        # not through the map: a full disk would end the process
        self._file.write(array.reshape(-1).view(np.uint8).data)
        self._file.flush()
        return np.frombuffer(self._map, array.dtype, array.size, start).reshape(array.shape)

    def _open(self, size: int) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - its map outlives it
        weakref.finalize(self, self._file.close)
        self._file.truncate(size)
        self._map, self._used = mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ), 0


__all__ = ["Shelf"]
