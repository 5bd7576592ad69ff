"""What is printed: results on stdout as text or JSON, what has to be said beside them on stderr."""

import json
from collections.abc import Mapping
from typing import Any, Protocol

import typer


class Result(Protocol):
    """What a verb hands over: `str(result)` is its text."""

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON has it."""


def print_result(result: Result, *, as_json: bool, below: str = "") -> None:
    """One JSON object, or the text of the result and what belongs below it: where to find more."""
    if as_json:
        print_json(result.to_dict())
    else:
        typer.echo(f"{result}{below}")


def print_json(value: Any, *, line: bool = False) -> None:
    """An object on stdout; line: in one line, for what may be many."""
    typer.echo(json.dumps(value, indent=None if line else 1, ensure_ascii=False, allow_nan=False))


def print_scores(found: Mapping[str, Any], goal: Mapping[str, Any] | None = None) -> None:
    """Tables of every metric beside its baselines, of groups and of inputs left out; whether a baseline is better at
    the goal; what has to be said, on stderr."""
    from endwise.scores import against_baseline, lines

    for line in lines(found):
        typer.echo(line)
    if goal is not None:
        for line in against_baseline(found, goal):
            typer.echo(line)
    for message in found.get("notes", []):
        note(message)


def note(message: str) -> None:
    """On stderr: what is no part of the result."""
    typer.echo(message, err=True)


def complain(message: str) -> None:
    """On stderr: what went wrong."""
    typer.echo(f"error: {message}", err=True)


def size(count: float) -> str:
    """Bytes, for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    """Seconds, for people."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    return (
        f"{seconds // 60} min {seconds % 60:02d} s"
        if seconds < 3600
        else f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    )
