"""Being asked to stop: by Ctrl-C or by the system, after the step that is being made."""

import signal
from types import FrameType
from typing import Any

from endwise.errors import EndwiseError


class Stopped(EndwiseError):
    """Training was asked to stop: everything is saved, and the message says how to go on."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Signals:
    """SIGINT and SIGTERM ask for a stop after the current step, or at once where there is none; so does a second one."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.stepping = False  # in the loop a stop waits for the step's end, elsewhere it need not
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._note)
        except ValueError:  # not the main thread: signals are the caller's business there
            pass
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.received is not None:
            raise SystemExit(128 + number)
        self.received = number
        if not self.stepping:
            raise Stopped(
                f"stopped by {signal.Signals(number).name} outside the training steps; --resume goes on from there",
                128 + number,
            )
