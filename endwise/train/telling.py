"""What a training says: events, each to the log and to whoever listens."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from endwise.network import SHARED
from endwise.optimise import StepResult
from endwise.run import Run

Progress = Callable[[Mapping[str, Any]], None]


def speaker(run: Run, progress: Progress | None) -> Progress:
    """Every event goes to the log and to whoever listens."""

    def say(event: Mapping[str, Any]) -> None:
        run.log(event)
        if progress is not None:
            progress(event)

    return say


def tell(progress: Progress | None, what: str, done: int = 0, total: int = 1) -> None:
    if progress is not None:
        progress({"event": "prepare", "what": what, "done": done, "total": total})


def note(message: str) -> dict[str, Any]:
    """An event that is a sentence for people."""
    return {"event": "note", "message": message}


def of_step(result: StepResult, *, lr: float, rows: int, read_s: float, compute_s: float) -> dict[str, Any]:
    """What an update says of itself: each term with its weight and its pull, the whole, and how fast it went."""
    terms: dict[str, Any] = {
        name: {"value": value, "weight": result.weights[name]} for name, value in result.terms.items()
    }
    pulls, measured = result.pulls or {}, dict[str, Any]()
    if SHARED in pulls:
        for name, norm in pulls[SHARED].norms.items():
            terms[name]["grad_norm"] = norm
        measured = {"cosines": pulls[SHARED].cosines} if pulls[SHARED].cosines else {}
    elif pulls:
        measured = {"stages": {place: dataclasses.asdict(pull) for place, pull in pulls.items()}}
    if result.parts is not None:
        measured |= {"parts": result.parts, "layers": result.layers}
    return {
        "loss": result.loss,
        "grad_norm": result.grad_norm,
        "lr": lr,
        "terms": terms,
        **measured,
        "samples_per_s": rows / max(1e-9, read_s + compute_s),
        "read_s": read_s,
        "compute_s": compute_s,
    }
