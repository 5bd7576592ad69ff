"""Markdown in which no value can be anything but text: names and labels come from strangers' tables."""

import re
from collections.abc import Iterable, Sequence

SPECIAL = re.compile(r"([\\`*_\[\]|~])")
STARTS = re.compile(r"^(\d+(?=[.)](?:\s|$)))|^(?=[-+=:](?:[-+=:\s]|$)|#)")  # of a list, a rule, a heading
LONGEST = 300  # characters of one value in a table or a list
ABOUT = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
AUTOLINK = re.compile(r"(?<=[A-Za-z]):(?=//)|(?<=www)\.|@")  # what would become a link by itself


def md(value: object) -> str:
    """A value as plain text on one line."""
    text = " ".join(str(value).split())
    text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    return _escaped(text)


def paragraphs(text: str) -> list[str]:
    """An owner's text, paragraph by paragraph: whole, and as text alone."""
    return [_escaped(" ".join(part.split())) for part in re.split(r"\n\s*\n", text) if part.strip()]


def _escaped(text: str) -> str:
    text = "".join(ABOUT.get(letter, letter) for letter in text)
    text = AUTOLINK.sub(lambda found: f"&#{ord(found[0])};", SPECIAL.sub(r"\\\1", text))
    return STARTS.sub(lambda found: f"{found[1] or ''}\\", text)


def table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Cells as text."""
    return [
        f"| {' | '.join(md(name) for name in names)} |",
        f"|{'---|' * len(names)}",
        *(f"| {' | '.join(md(cell) for cell in row)} |" for row in rows),
    ]


def bullets(items: Iterable[object]) -> list[str]:
    return [f"- {md(item)}" for item in items]


__all__ = ["bullets", "md", "paragraphs", "table"]
