"""CSV and TSV: the bytes of a file as rows of text cells, each with the line it begins on.

The one reader of such text: of tables that are trained on, and of those that an exported bundle answers, where this file
travels along. The standard library only. Not here: what a cell means (modalities), columns in memory (data/table.py).
"""

import csv
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

from endwise.errors import DataError, require

_LIMIT = threading.Lock()  # the csv module has one field limit for the whole process


@contextmanager
def wide_fields() -> Iterator[None]:
    """Around `rows_of` and all that is read from it: a cell may be a whole document, and the csv module stops at 128 KiB
    unless told otherwise."""
    with _LIMIT:
        before = csv.field_size_limit(2**31 - 1)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def rows_of(file: BinaryIO, delimiter: str, shown: str) -> tuple[list[str], Iterator[tuple[int, list[str | None]]]]:
    """The names of the columns, and (line the row begins on, cells) of every row; an empty cell is None, blank lines are
    no rows. delimiter: ',' also takes ';' or a tab where the first line has no comma. shown: the file's name in errors.
    Raises DataError with the line where it is no UTF-8 text, no CSV, or has other cells than its header."""
    lines = _text_lines(file, shown)
    first = next(lines, "")
    if delimiter == "," and "," not in first:
        delimiter = next((mark for mark in (";", "\t") if mark in first), ",")
    rows = _csv_rows(csv.reader(_again(first, lines), delimiter=delimiter, strict=True), shown)
    names = _header(next(rows, (1, []))[1], shown)
    return names, _checked(rows, names, shown)


def distinct(names: Sequence[str], where: str) -> list[str]:
    """The names, or DataError naming one that is there twice."""
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    require(
        twice is None, field=f"{where}: column", got=twice, allowed="names that differ", fix="rename one of the two columns",
        error=DataError,
    )  # fmt: skip
    return list(names)


def _text_lines(file: BinaryIO, shown: str) -> Iterator[str]:
    number = 0
    try:
        for number, raw in enumerate(file, start=1):
            if number == 1:
                if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
                    raise DataError(f"{shown} line 1: this is UTF-16 text. Fix: save the file as UTF-8.")
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if b"\0" in raw:
                raise DataError(
                    f"{shown} line {number}: holds a zero byte, so it is no text table. Fix: save it as UTF-8 text."
                )
            yield raw.decode("utf-8")
    except UnicodeDecodeError as wrong:
        raise DataError(
            f"{shown} line {number}: not UTF-8 text (byte 0x{wrong.object[wrong.start]:02x} at column {wrong.start + 1}). "
            "Fix: save the file as UTF-8; a spreadsheet offers 'CSV UTF-8'."
        ) from None


def _again(first: str, rest: Iterator[str]) -> Iterator[str]:
    if first:
        yield first
    yield from rest


def _csv_rows(reader: Any, shown: str) -> Iterator[tuple[int, list[str]]]:
    """(line the row begins on, cells); blank lines are no rows."""
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as wrong:
            raise DataError(
                f"{shown} line {line}: {wrong}. Fix: put a cell with quotes in it between quotes and double those inside "
                '("she said ""yes"""), and close every quote.'
            ) from None
        if row:
            yield line, row


def _header(cells: list[str], shown: str) -> list[str]:
    require(
        bool(cells), field=shown, got="no line", allowed="a first line with the names of the columns",
        fix="the file is empty", error=DataError,
    )  # fmt: skip
    names = [cell.strip() or f"Unnamed: {index}" for index, cell in enumerate(cells)]  # as pandas names an index column
    return distinct(names, f"{shown} line 1")


def _checked(
    rows: Iterator[tuple[int, list[str]]], names: list[str], shown: str
) -> Iterator[tuple[int, list[str | None]]]:
    for line, row in rows:
        if len(row) != len(names):
            raise DataError(
                f"{shown} line {line}: {len(row)} cells where the header has {len(names)}. "
                "Fix: put cells that hold the separator between quotes, or add the missing cells."
            )
        yield line, [cell or None for cell in row]
