"""How a model is served, and the refusals of what cannot be meant. Not here: the limits of one request (body.py)."""

import os
from dataclasses import dataclass, field, fields
from typing import Any

from endwise.errors import require
from endwise.serve.body import Limits
from endwise.serve.gate import check_place


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a model is served. queue: requests that may wait. max_batch: rows answered at once. timeout_s: of one request.
    p99_ms: refuse early what could not be answered in that time. watch: take over what is written into the folder.
    log: where decisions are written down: a path, or the address of a PostgreSQL server.
    threads: of a batch's arithmetic; None: the model's own choice, one batch at a time. limits: see `Limits`."""

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    queue: int = 256
    max_batch: int = 32
    timeout_s: float = 30.0
    drain_s: float = 30.0
    p99_ms: float | None = None
    watch: bool = False
    log: str | None = None
    threads: int | None = None
    limits: Limits = field(default_factory=Limits)

    @property
    def lanes(self) -> int:
        """Batches that may run side by side: as many as have a core for each of their threads."""
        return 1 if self.threads is None else max(1, cores() // self.threads)

    def __post_init__(self) -> None:
        for name, least in (("queue", 1), ("max_batch", 1), ("timeout_s", 0.001), ("drain_s", 0), ("port", 0)):
            require(
                getattr(self, name) >= least, field=f"--{name.replace('_', '-')}", got=getattr(self, name),
                allowed=f"at least {least}", fix="leave it out for the default",
            )  # fmt: skip
        require(
            self.p99_ms is None or self.p99_ms > 0, field="--p99-ms", got=self.p99_ms, allowed="above 0",
            fix="leave it out for no promise",
        )  # fmt: skip
        check_place(self.host, self.token)


def cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def defaults() -> dict[str, Any]:
    """What an option of the command line is when it is left out, by its name there; none of those that are nothing then."""
    found = {item.name: item.default for item in fields(Options) if item.name not in ("limits", "watch")}
    limits = Limits()
    found |= {"max_body_mb": limits.body_bytes / 2**20, "max_pixels": limits.pixels}
    return {name: value for name, value in found.items() if value is not None}
