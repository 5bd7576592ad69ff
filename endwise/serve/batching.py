"""When which row is answered: a batch is what was read while the last one ran, so that nobody waits for company.

A request is read (decoded) on one of a few threads. Whoever has read a row while a lane is free answers it at once, and
then what others have read meanwhile, until nothing is left: alone, a request costs one change of threads and no wait. There
are as many lanes as batches can run side by side. Where several clients ask, their requests are taken in turns, and each has
its share of the queue: one that floods the server waits for itself. Where a time is promised, one lane is kept free of whoever
fills the others, for those who asked lately. Not here: HTTP (app.py), what a row is (version.py), whose turn it is (turns.py).
"""

import contextlib
import heapq
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from endwise.rows import Row
from endwise.serve.problems import Problem
from endwise.serve.turns import Turns
from endwise.serve.version import Version

LIKE = 2.0  # rows whose lengths differ by more than this factor do not share a batch: they would be mostly padding
SMOOTHING = 0.1  # of the running mean of what a row costs
FORGETTING = 1.001  # of the least that a row cost, with each batch
HEADROOM = 0.7  # of a latency budget that the queue may fill: the rest is for reading, writing and the network
RUN_SHARE = 0.35  # of it that one batch may take: who comes while one runs waits for that one and is in the next


@dataclass(slots=True, eq=False)
class Task:
    """One request on its way. read: raw values to a row of that version; raises Problem. deadline: of time.monotonic.
    client: whom it is from. outcome: the answers by output, or a Problem."""

    read: Callable[[Version], Row]
    deadline: float
    context: Any = None  # the caller's
    client: str = ""
    abandoned: bool = False  # nobody waits for it any more: it is dropped at the next step
    version: Version | None = None
    row: Row | None = None
    length: int = 0
    outcome: dict[str, Any] | Problem | None = None
    turn: int = 0
    number: int = 0

    def place(self) -> tuple[int, int]:
        """Smaller is sooner."""
        return self.turn, self.number

    def gone(self) -> bool:
        """Is there nobody to answer?"""
        return self.abandoned or time.monotonic() > self.deadline


@dataclass(slots=True)
class Costs:
    """Seconds: running means of what a row costs to read, and in a batch to answer."""

    read: float = 0.0
    run: float = 0.0
    best: float = 0.0  # the least that a row took in the batches of late
    runs: int = field(default=0)

    def ran(self, seconds: float, rows: int) -> None:
        self.run += (seconds / rows - self.run) * (SMOOTHING if self.runs else 1.0)
        self.best = min(self.best * FORGETTING if self.runs else math.inf, seconds / rows)
        self.runs += 1

    def has_read(self, seconds: float) -> None:
        self.read += (seconds - self.read) * SMOOTHING


class Batcher:
    """Answers tasks in turns between their clients, some at a time. Safe to use from several threads.

    finished: called with tasks that have an outcome, or that were dropped because nobody waits (outcome None).
    recorded: called with (version, tasks) after their answers are there and before anybody gets them; what it raises
    becomes a Problem of each.
    """

    def __init__(
        self,
        finished: Callable[[Sequence[Task]], None],
        *,
        queue: int,
        max_batch: int,
        lanes: int = 1,
        budget_s: float | None = None,
        readers: int | None = None,
        recorded: Callable[[Version, Sequence[Task]], None] | None = None,
        ran: Callable[[int, float], None] | None = None,
    ) -> None:
        self.queue, self.max_batch, self.lanes, self.budget_s = queue, max_batch, lanes, budget_s
        self.version: Version | None = None
        self.costs = Costs()
        self._finished, self._recorded, self._ran = finished, recorded, ran
        self._readers = readers or max(os.cpu_count() or 1, lanes) + 1  # some of them are answering
        self._pool = ThreadPoolExecutor(self._readers, thread_name_prefix="endwise-serve")
        self._lock = threading.Lock()
        self._turns = Turns()
        self._unread: list[tuple[int, int, Task]] = []  # a heap
        self._ready: list[Task] = []
        self._waiting = 0  # taken and not finished
        self._running = list[Sequence[Task]]()  # on each lane that is taken

    @property
    def waiting(self) -> int:
        """Requests that were taken and have no answer yet."""
        return self._waiting

    def room(self) -> int:
        """How many requests may be waiting: the queue's bound, or less where all of them could not keep the budget."""
        row_s = self.row_s()
        if self.budget_s is None or not row_s:
            return self.queue
        return min(self.queue, max(1, int(HEADROOM * self.budget_s / row_s)))

    def row_s(self) -> float:
        """Seconds that another row takes; 0 before the first."""
        return max(self.costs.run / self.lanes, self.costs.read / self._readers)

    def able_per_s(self) -> float:
        """Rows that could be answered when all goes well; in a crowd they take longer."""
        return self.lanes / max(self.costs.best, self.costs.read / self._readers, 1e-6)

    def most_rows(self) -> int:
        """In a batch: the bound, or less where it would take too much of the budget."""
        if self.budget_s is None or not self.costs.run:
            return self.max_batch
        return min(self.max_batch, max(1, int(RUN_SHARE * self.budget_s / self.costs.run)))

    def check_room(self, client: str = "") -> None:
        """Problem 'busy' where the next task of that client would not be taken."""
        busy = self.busy(client)
        if busy is not None:
            raise busy

    def busy(self, client: str = "") -> Problem | None:
        """What the next task of that client is told where it would not be taken. Where others fill the queue, one that has
        less than its share of it still gets in, up to twice the queue."""
        room, held = self.room(), self._turns.held
        if self._waiting < room:
            return None
        mine = held.get(client, 0)
        clients = len(held) + (mine == 0)
        if clients > 1 and mine < max(1, room // clients) and self._waiting < 2 * room:
            return None
        seconds = max(1, math.ceil(self._waiting * self.row_s()))
        return Problem("busy", f"{self._waiting} requests are waiting already: come again", None, seconds)

    def submit(self, task: Task) -> None:
        """Take a task, or Problem 'busy'."""
        with self._lock:
            self.check_room(task.client)
            self._waiting += 1
            self._turns.join(task, time.monotonic())
            heapq.heappush(self._unread, (*task.place(), task))
        self._pool.submit(self._read_next)

    def warm_up(self, version: Version) -> None:
        """Answer a blank row, so that the first request finds everything loaded."""
        version.answers([version.blank()])

    def close(self) -> None:
        """End the threads once their tasks are done."""
        self._pool.shutdown(wait=True)

    # ---- on the threads --------------------------------------------------------------------------------------------

    def _read_next(self) -> None:
        with self._lock:
            *_, task = heapq.heappop(self._unread)
        self._read(task)

    def _read(self, task: Task) -> None:
        version = self.version
        assert version is not None
        if task.gone():
            return self._finish([task])
        began = time.perf_counter()
        try:
            task.row = task.read(version)
            task.length = version.length(task.row)
        except Problem as wrong:
            task.outcome = wrong
        except Exception as bug:
            task.outcome = _failed(bug)
        if task.outcome is not None:
            return self._finish([task])
        self.costs.has_read(time.perf_counter() - began)
        task.version = version
        with self._lock:
            self._ready.append(task)
        batch = self._next()
        while batch:
            self._run(batch)
            batch = self._next(batch)
        return None

    def _next(self, ended: Sequence[Task] = ()) -> list[Task]:
        """The row whose turn it is and those like it; nothing, and somebody else's turn to begin, when there is none or no
        lane for it. ended: the batch before."""
        with self._lock:
            self._running = [batch for batch in self._running if batch is not ended]
            if len(self._running) == self.lanes:
                return []
            gone, left = list[Task](), list[Task]()
            for task in self._ready:  # once: a deadline may pass meanwhile
                (gone if task.gone() else left).append(task)
            left.sort(key=Task.place)
            batch = _alike(self._admitted(left), self.most_rows())
            chosen = set(map(id, batch))
            self._ready = [task for task in left if id(task) not in chosen]
            if batch:
                self._running.append(batch)
        if gone:
            self._finish(gone)
        return batch

    def _admitted(self, ready: Sequence[Task]) -> Sequence[Task]:
        """Those that may take a lane: of a client that has all others, none where somebody else may come. What is left out
        is looked at again when one of those lanes is free."""
        if self.budget_s is None or self.lanes == 1:
            return ready
        now = time.monotonic()
        lanes = Counter(client for batch in self._running for client in {task.client for task in batch})
        return [task for task in ready if lanes[task.client] < self.lanes - 1 or self._turns.alone(task.client, now)]

    def _run(self, batch: Sequence[Task]) -> None:
        version, began = batch[0].version, time.perf_counter()
        assert version is not None
        rows = [task.row for task in batch if task.row is not None]
        try:
            for task, answers in zip(batch, version.answers(rows), strict=True):
                task.outcome = answers
        except Exception as wrong:
            self._alone(version, batch, wrong)
        seconds = time.perf_counter() - began
        self.costs.ran(seconds, len(batch))
        if self._ran is not None:
            self._ran(len(batch), seconds)
        answered = [task for task in batch if isinstance(task.outcome, dict)]
        if self._recorded is not None and answered:
            try:
                self._recorded(version, answered)
            except Exception as bug:  # what cannot be written down is not given away
                for task in answered:
                    task.outcome = _failed(bug)
        self._finish(batch)

    def _alone(self, version: Version, batch: Sequence[Task], wrong: Exception) -> None:
        """One row must not spoil the others'. Where the network still answers the row it warmed up with, what it cannot
        answer is the row's fault."""
        for task in batch:
            try:
                if len(batch) == 1:
                    raise wrong
                assert task.row is not None
                task.outcome = version.answers([task.row])[0]
            except Exception as broken:
                task.outcome = _failed(broken)
                with contextlib.suppress(Exception):
                    self.warm_up(version)
                    task.outcome = Problem(
                        "bad_value", f"the model cannot answer this row ({type(broken).__name__})", None
                    )

    def _finish(self, tasks: Sequence[Task]) -> None:
        with self._lock:
            self._waiting -= len(tasks)
            for task in tasks:
                self._turns.leave(task, served=task.outcome is not None)
        self._finished(tasks)


def _alike(ready: Sequence[Task], most: int) -> list[Task]:
    """The first, so that nobody waits for ever, and in order those of its version and of about its length."""
    if not ready:
        return []
    first = ready[0]
    low, high = first.length / LIKE, first.length * LIKE
    found = []
    for task in ready:
        if task.version is first.version and low <= task.length <= high:
            found.append(task)
            if len(found) == most:
                break
    return found


def _failed(bug: Exception) -> Problem:
    """What a client may know of a fault of ours; the rest is in the server's log."""
    problem = Problem("failed", "the server failed to answer; its log says why")
    problem.__cause__ = bug
    return problem
