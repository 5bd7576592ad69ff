"""Who floods a server waits for himself: what is refused is told at its head, others keep their lane, answers are not cut off."""

import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from endwise.serve import Options, Serving, serving
from endwise.serve.batching import Batcher, Task
from endwise.serve.turns import Turns
from tests.test_serve import TOKEN, Slow, number_model, task_of

BODY = json.dumps({"inputs": {"weight": 1}}).encode()
HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
WHOLE = HEAD % len(BODY) + b"\r\n" + BODY


@pytest.fixture
def slow() -> Iterator[Slow]:
    found = Slow(number_model(0))
    yield found
    found.free.set()


@contextlib.contextmanager
def full(slow: Slow, folder: Path, **options: object) -> Iterator[Serving]:
    """A server whose only place is taken until `slow.free` is set."""
    number_model(0).save(folder / "full")
    with serving(folder / "full", port=0, queue=1, timeout_s=60, **options) as server:
        server.service.batcher.version = slow.version
        given = {"authorization": f"Bearer {TOKEN}"}
        ask = threading.Thread(target=lambda: httpx.post(
            f"{server.url}/predict", json={"inputs": {"weight": 1}}, headers=given, timeout=60
        ))  # fmt: skip
        ask.start()
        slow.begun.acquire()
        try:
            yield server
        finally:
            slow.free.set()
            ask.join()


@contextlib.contextmanager
def line(server: Serving) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=30) as found:
        yield found


def told(line: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """One answer off the wire: its status, its headers and its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = line.recv(1)
        assert part, data
        data += part
    first, *rest = data.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (item.partition(": ") for item in rest if item)}
    body = b""
    while len(body) < int(headers["content-length"]):
        body += line.recv(int(headers["content-length"]) - len(body))
    return int(first.split()[1]), headers, body


def test_a_refusal_comes_before_the_body_and_its_connection_goes_on(slow: Slow, tmp_path: Path) -> None:
    with full(slow, tmp_path) as server, line(server) as caller:
        caller.sendall(HEAD % len(BODY) + b"\r\n")
        status, headers, body = told(caller)
        assert (status, json.loads(body)["error"]["type"]) == (503, "busy")
        assert int(headers["retry-after"]) >= 1
        assert headers["content-type"] == "application/json"
        assert "date" in headers
        caller.sendall(BODY + WHOLE + WHOLE)  # what is left of it, and two more at once
        assert [told(caller)[0] for _ in range(2)] == [503, 503]
        page = httpx.get(f"{server.url}/metrics").text
        assert "endwise_shed_total 3.0" in page
        assert 'endwise_requests_total{status="503"} 3.0' in page
        slow.free.set()
        while server.service.batcher.waiting:
            time.sleep(0.001)
        caller.sendall(WHOLE)
        assert told(caller)[0] == 200


@pytest.mark.parametrize("extra", [b"Connection: close\r\n", b"Expect: 100-continue\r\n"])
def test_a_connection_that_does_not_go_on_ends_after_its_refusal(slow: Slow, tmp_path: Path, extra: bytes) -> None:
    with full(slow, tmp_path) as server, line(server) as caller:
        caller.sendall(HEAD % len(BODY) + extra + b"\r\n" + (b"" if b"Expect" in extra else BODY))
        status, headers, _ = told(caller)
        assert (status, headers["connection"]) == (503, "close")
        assert caller.recv(1) == b""


def test_a_body_that_nobody_reads_has_an_end(slow: Slow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with full(slow, tmp_path) as server, line(server) as caller:
        monkeypatch.setattr(sys.modules["endwise.serve.wire"], "HEAD_S", 0.2)
        caller.sendall(HEAD % len(BODY) + b"\r\n{")
        assert told(caller)[0] == 503
        assert caller.recv(1) == b""


def test_who_may_not_ask_does_not_hear_how_full_it_is(slow: Slow, tmp_path: Path) -> None:
    with full(slow, tmp_path, token=TOKEN) as server:
        assert httpx.post(f"{server.url}/predict", content=BODY).status_code == 401
        given = {"authorization": f"Bearer {TOKEN}"}
        assert httpx.post(f"{server.url}/predict", content=BODY, headers=given).status_code == 503
        elsewhere = {**given, "origin": "http://evil.example"}
        assert httpx.post(f"{server.url}/predict", content=BODY, headers=elsewhere).status_code == 403


def test_a_flood_is_not_read_while_its_refusal_is_held_back(
    slow: Slow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with full(slow, tmp_path) as server, line(server) as caller, line(server) as eager, line(server) as leaves:
        monkeypatch.setattr(server.service.pace, "refused", lambda *_: 0.3)
        began = time.monotonic()
        for one in (caller, leaves):
            one.sendall(WHOLE)
        eager.sendall(WHOLE + WHOLE)  # does not even wait for its answer
        leaves.close()
        assert httpx.get(f"{server.url}/livez").status_code == 200
        assert told(caller)[0] == 503
        assert time.monotonic() - began >= 0.3
        assert told(eager)[0] == 400
        assert eager.recv(1) == b""
        monkeypatch.undo()
        caller.sendall(WHOLE)
        assert told(caller)[0] == 503


def test_what_is_held_back_is_told_at_the_end(slow: Slow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.ExitStack() as later:
        with full(slow, tmp_path) as server:
            monkeypatch.setattr(server.service.pace, "refused", lambda *_: 1_000.0)
            caller = later.enter_context(line(server))
            caller.sendall(WHOLE)
            while not server.service.gauges.shed._value.get():
                time.sleep(0.001)
        status, headers, _ = told(caller)
        assert (status, headers["connection"]) == (503, "close")


def test_a_head_that_does_not_come_cuts_off_no_answer_before_it(
    slow: Slow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number_model(0).save(tmp_path / "model")
    with serving(tmp_path / "model", port=0, timeout_s=60) as server, line(server) as caller:
        server.service.batcher.version = slow.version
        monkeypatch.setattr(sys.modules["endwise.serve.wire"], "HEAD_S", 0.2)
        caller.sendall(WHOLE + WHOLE[:20])
        slow.begun.acquire()
        time.sleep(0.5)
        slow.free.set()
        assert told(caller)[0] == 200
        assert caller.recv(1) == b""  # and then its time is over


# ---- lanes ---------------------------------------------------------------------------------------------------------------


def lanes_of(slow: Slow, done: list[Task], **options: float) -> Batcher:
    batcher = Batcher(done.extend, queue=100, max_batch=1, lanes=2, readers=4, **options)  # type: ignore[arg-type]
    batcher.version = slow.version
    return batcher


def read_all(batcher: Batcher) -> None:
    while len(batcher._ready) + len(batcher._running) < batcher.waiting:
        time.sleep(0.001)


def test_batches_run_side_by_side_on_lanes(slow: Slow) -> None:
    done: list[Task] = []
    batcher = lanes_of(slow, done)
    for weight in range(6):
        batcher.submit(task_of(weight))
    for _ in range(2):
        slow.begun.acquire()
    read_all(batcher)
    assert len(slow.batches) == 2
    slow.free.set()
    batcher.close()
    assert sorted(task.context for task in done) == list(range(6))
    assert batcher._running == []


def test_a_lane_is_kept_for_who_asked_lately(slow: Slow) -> None:
    done: list[Task] = []
    batcher = lanes_of(slow, done, budget_s=1_000.0)
    batcher.submit(task_of(0, client="driver"))
    slow.begun.acquire()
    for weight in range(1, 5):
        batcher.submit(task_of(weight, client="flood"))
    slow.begun.acquire()
    slow.free.set()
    while batcher.waiting:
        time.sleep(0.001)
    slow.free.clear()
    for weight in range(5, 9):
        batcher.submit(task_of(weight, client="flood"))
    slow.begun.acquire(timeout=60)
    read_all(batcher)
    assert len(batcher._running) == 1  # the driver may come again at any moment
    batcher.submit(task_of(9, client="driver"))
    while len(batcher._running) < 2:
        time.sleep(0.001)
    assert slow.batches[-1] == [9]
    slow.free.set()
    batcher.close()
    assert sorted(task.context for task in done) == list(range(10))


def test_who_is_alone_has_all_lanes() -> None:
    turns = Turns()
    assert turns.alone("flood", 0.0)
    for number, client in enumerate(("driver", "flood", "flood", "flood")):
        turns.join(task_of(0, client=client), float(number) / 10)
    assert not turns.alone("flood", 0.5)
    assert not turns.alone("driver", 0.5)
    assert not turns.alone("another", 0.5)
    assert turns.alone("flood", 1.2)
    assert not turns.alone("driver", 1.2)


def test_who_asks_and_leaves_pushes_nobody_back() -> None:
    turns = Turns()
    flood = [task_of(number, client="flood") for number in range(9)]
    for task in flood:
        turns.join(task, 0.0)
    for task in flood[2:]:
        turns.leave(task, served=False)
    other = task_of(9, client="other")
    turns.join(other, 0.0)
    assert flood[0].place() < other.place() < flood[1].place()


def test_how_much_can_be_answered_is_known_from_when_all_went_well(slow: Slow) -> None:
    """In an overload rows take longer: whoever then held refusals back by that would take the overload for a flood."""
    batcher = lanes_of(slow, [])
    batcher.costs.ran(0.08, 8)
    assert batcher.able_per_s() == pytest.approx(200)
    for _ in range(50):
        batcher.costs.ran(0.4, 8)
    assert batcher.able_per_s() == pytest.approx(200, rel=0.1)
    assert batcher.row_s() == pytest.approx(0.025, rel=0.01)
    batcher.close()


def test_there_are_as_many_lanes_as_cores_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["endwise.serve.options"], "cores", lambda: 8)
    assert [Options(threads=threads).lanes for threads in (None, 1, 3, 8, 16)] == [1, 8, 2, 1, 1]
