"""How far a verb is: a live line on a terminal, plain lines elsewhere, all on stderr."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from endwise.cli.printing import duration, note

PLAIN_EVERY_S = 10.0  # without a terminal, a line of progress this often, and one as each phase begins
STARTING = {"event": "prepare", "what": "starting", "done": 0, "total": 1}


@contextlib.contextmanager
def progress_shown(quiet: bool) -> Iterator[Any]:
    """A live line on a terminal, plain lines elsewhere, nothing when quiet; all on stderr. The first says that it begins:
    what is imported inside takes seconds."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.live import Live

        shown = Shown()
        with Live("", console=Console(stderr=True), refresh_per_second=4, transient=True) as live:

            def tell(event: Mapping[str, Any]) -> None:
                message = shown.take(event)
                if message:
                    live.console.print(message, markup=False, highlight=False)
                live.update(shown.line)

            tell(STARTING)
            yield tell
    else:
        with Lines() as lines:
            lines.tell(STARTING)
            yield lines.tell


def phases(progress: Any, doing: str = "") -> Callable[[str, int, int], None] | None:
    """The same for verbs that say what is done, how much of it, and how much there is."""
    if progress is None:
        return None
    return lambda what, done, total: progress(
        {"event": "prepare", "what": f"{doing}{what}", "done": done, "total": total}
    )


class Lines:
    """Progress for pipes and logs: every message, a line as each phase begins, and one every PLAIN_EVERY_S while it goes
    on, whether anything is heard of it or not."""

    def __init__(self) -> None:
        self.shown, self.told = Shown(), time.monotonic()
        self.lock, self.ended = threading.Lock(), threading.Event()
        self.clock = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Lines":
        self.clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.clock.join()

    def tell(self, event: Mapping[str, Any]) -> None:
        """An event of the training."""
        with self.lock:
            phase = self.shown.phase
            message = self.shown.take(event)
            if message:
                self._say(message)
            elif self.shown.phase != phase or time.monotonic() - self.told > PLAIN_EVERY_S:
                self._say(self.shown.line)

    def _watch(self) -> None:
        while not self.ended.wait(PLAIN_EVERY_S / 10):
            with self.lock:
                if self.shown.phase and time.monotonic() - self.told > PLAIN_EVERY_S:
                    self._say(f"{self.shown.line}  ({duration(time.monotonic() - self.shown.since)} so far)")

    def _say(self, line: str) -> None:
        self.told = time.monotonic()
        note(line)


class Shown:
    """What is known about the training so far, as a line of text."""

    def __init__(self) -> None:
        self.line = self.phase = ""  # what is going on
        self.since = 0.0  # when the phase began
        self.loss: float | None = None
        self.goal = ""

    def take(self, event: Mapping[str, Any]) -> str | None:
        """Note an event; a message worth a line of its own, or None."""
        kind = event["event"]
        if kind == "prepare":
            self._begin(event["what"])
            self.line = f"{event['what']} {event['done']}/{event['total']}" if event["total"] > 1 else event["what"]
        elif kind == "step":
            self._begin("training")
            self.loss = event["loss"] if self.loss is None else 0.95 * self.loss + 0.05 * event["loss"]
            left = event["time_s"] / event["step"] * (event["steps"] - event["step"])
            self.line = (
                f"step {event['step']}/{event['steps']}  loss {self.loss:.3f}{self.goal}  "
                f"{event['samples_per_s']:.0f} rows/s  {duration(left)} left"
            )
        elif kind == "eval":
            self.goal = "" if event["goal"] is None else f"  val {event['goal']:.4g}"
            scores = "  ".join(
                f"{output}.{name} {value:.4g}"
                for output, values in event["val"].items()
                for name, value in values.items()
                if value is not None
            )
            return f"step {event['step']}: {scores}"
        elif kind == "alarm":
            return f"{event['name']}: {event['message']}"
        elif "message" in event:
            return str(event["message"])
        return None

    def _begin(self, phase: str) -> None:
        if phase != self.phase:
            self.phase, self.since = phase, time.monotonic()
