"""Clients for a server that is measured: raw HTTP/1.1 on kept connections in one event loop, cheap enough (some 0.05 ms a
request) to leave the processor to the server.

Two kinds of load: `closed`, where each connection asks again as soon as it was answered, and `timed`, where requests come
at their moments whether the server keeps up or not, and latency counts from the moment (no coordinated omission).
"""

import asyncio
import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

HOST = "127.0.0.1"
LIMIT_S = 120.0  # of one answer


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. seconds: since it was asked for, or should have been. at: when it came, of time.perf_counter."""

    status: int
    head: bytes
    body: bytes
    seconds: float
    at: float


@dataclass
class Seen:
    """What clients saw. lost: requests whose connection ended without an answer."""

    seconds: float = 0.0
    replies: list[Reply] = field(default_factory=list)
    lost: int = 0

    @property
    def answers(self) -> list[float]:
        """Latencies of answers, in seconds."""
        return [reply.seconds for reply in self.replies if reply.status == 200]

    @property
    def refusals(self) -> list[float]:
        """Latencies of 503s."""
        return [reply.seconds for reply in self.replies if reply.status == 503]

    @property
    def others(self) -> dict[int, int]:
        """Any other status, and how often."""
        odd = [reply.status for reply in self.replies if reply.status not in (200, 503)]
        return {status: odd.count(status) for status in sorted(set(odd))}

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.answers) / self.seconds


class Connection(asyncio.Protocol):
    """One kept connection, one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._data = bytearray()
        self._waiting: asyncio.Future[tuple[int, bytes, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionResetError("ended without an answer"))

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._data[: end + 2]).lower()
        place = head.find(b"content-length:")
        length = 0 if place < 0 else int(head[place + 15 : head.index(b"\r\n", place)])
        if len(self._data) < end + 4 + length or self._waiting is None:
            return
        body = bytes(self._data[end + 4 : end + 4 + length])
        del self._data[: end + 4 + length]
        if not self._waiting.done():
            self._waiting.set_result((int(head[9:12]), head, body))

    async def ask(self, request: bytes, since: float | None = None) -> Reply:
        """Send, and wait for the answer. ConnectionError where none comes."""
        if self.transport is None:
            raise ConnectionResetError("the connection has ended")
        began = time.perf_counter() if since is None else since
        self._waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        status, head, body = await asyncio.wait_for(self._waiting, LIMIT_S)
        now = time.perf_counter()
        return Reply(status, head, body, now - began, now)

    def close(self) -> None:
        """End it, whatever was asked."""
        if self.transport is not None:
            self.transport.abort()


async def connected(port: int, source: str | None = None) -> Connection:
    """A new connection; source: the address it comes from (of 127.0.0.0/8)."""
    loop = asyncio.get_running_loop()
    address = None if source is None else (source, 0)
    _, found = await loop.create_connection(Connection, HOST, port, local_addr=address)
    return found


@contextlib.contextmanager
def closing(connections: Iterable[Connection]) -> Iterator[list[Connection]]:
    """Connections that end with the block."""
    held = list(connections)
    try:
        yield held
    finally:
        for connection in held:
            connection.close()


async def closed(
    port: int,
    requests: Iterable[bytes],
    clients: int,
    *,
    until: Callable[[], bool] = lambda: False,
    source: str | None = None,
) -> Seen:
    """Each of some connections takes the next request as soon as it was answered, until none is left or `until` says so.
    What a connection loses is counted, and it is opened again."""
    seen, left = Seen(), iter(requests)
    with closing([await connected(port, source) for _ in range(clients)]) as connections:

        async def client(number: int) -> None:
            for request in left:
                if until():
                    return
                try:
                    if connections[number].transport is None:
                        connections[number] = await connected(port, source)
                    seen.replies.append(await connections[number].ask(request))
                except (ConnectionError, TimeoutError):
                    seen.lost += 1

        began = time.perf_counter()
        await asyncio.gather(*map(client, range(clients)))
        seen.seconds = time.perf_counter() - began
    return seen


async def timed(port: int, requests: Iterable[bytes], gaps: Iterable[float], *, connections: int = 64) -> Seen:
    """Requests at moments with those gaps (seconds) between them, each on a connection that is free; where none is,
    another is opened, up to eight times as many, and beyond that it waits, which its latency tells."""
    seen, tasks = Seen(), set[asyncio.Task[None]]()
    free: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
    with closing([await connected(port) for _ in range(connections)]) as held:
        for connection in held:
            free.put_nowait(connection)

        async def ask(request: bytes, moment: float) -> None:
            if free.empty() and len(held) < 8 * connections:
                held.append(await connected(port))
                free.put_nowait(held[-1])
            connection = await free.get()
            try:
                seen.replies.append(await connection.ask(request, moment))
            except (ConnectionError, TimeoutError):
                seen.lost += 1
                connection = await connected(port)
                held.append(connection)
            free.put_nowait(connection)

        began = moment = time.perf_counter()
        for request, gap in zip(requests, gaps, strict=False):
            moment += gap
            if (wait := moment - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            task = asyncio.get_running_loop().create_task(ask(request, moment))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        while tasks:
            await asyncio.gather(*tasks)
        seen.seconds = time.perf_counter() - began
    return seen


def framed(
    body: bytes, kind: str = "application/json", name: str = "", path: str = "/predict", method: str = "POST"
) -> bytes:
    """A request as it goes over the wire. name: its X-Request-Id."""
    tag = f"X-Request-Id: {name}\r\n" if name else ""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n{tag}Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def again(requests: list[bytes], count: int) -> Iterator[bytes]:
    """The same requests in turn, so many."""
    return itertools.islice(itertools.cycle(requests), count)


def percentile(seconds: Iterable[float], share: float) -> float | None:
    """In milliseconds; None of nothing."""
    found = sorted(seconds)
    return round(found[min(len(found) - 1, int(share * len(found)))] * 1000, 2) if found else None


def spread(values: Iterable[float]) -> dict[str, float | int]:
    """Median and range of repeats."""
    found = list(values)
    return {
        "median": round(statistics.median(found), 3), "low": round(min(found), 3), "high": round(max(found), 3),
        "n": len(found),
    }  # fmt: skip
