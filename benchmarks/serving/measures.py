"""What is measured of a server, one function each: a setting in, lines of numbers out. Not here: clients (load.py), the
servers it is compared with (servers.py), what is thrown at it (fuzzing.py)."""

import asyncio
import base64
import contextlib
import importlib.util
import io
import itertools
import json
import multiprocessing
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving.fuzzing import bombs, fuzz
from benchmarks.serving.load import Reply, Seen, again, closed, closing, connected, framed, percentile, spread, timed
from benchmarks.serving.servers import KINDS, Server, running, until_ready

NEAR = 1e-5  # absolute, of what one row is answered alone and in company
Line = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the command line said."""

    target: Path
    rows: list[dict[str, Any]]
    requests: int | None
    repeats: int
    clients: list[int]
    seconds: float
    p99_ms: float
    threads: int | None
    seed: int
    litserve: Path | None
    servers: list[str] | None
    frames_per_s: float
    sleep_ms: str | None

    def bodies(self) -> list[bytes]:
        """The rows as JSON."""
        return [json.dumps({"inputs": row}).encode() for row in self.rows]

    def wire(self) -> list[bytes]:
        """The rows as requests."""
        return list(map(framed, self.bodies()))

    def running(
        self, kind: str = "endwise", *extra: str, target: Path | None = None
    ) -> contextlib.AbstractContextManager[Server]:
        """A server of it."""
        return running(
            kind, target or self.target, *extra, threads=self.threads, site=self.litserve, sleep_ms=self.sleep_ms
        )


def throughput(setting: Setting) -> Iterator[Line]:
    """Answers a second of servers that run side by side and are asked in turns, each round in another order, and their ratio
    to plain FastAPI in the same round. Processor time an answer is told too: it is steadier than the clock where others share
    the machine."""
    wire, found = setting.wire(), dict[tuple[str, int], list[tuple[Seen, float, float]]]()
    kinds = setting.servers or [
        kind
        for kind in KINDS
        if not kind.startswith("litserve") or setting.litserve or importlib.util.find_spec("litserve")
    ]
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(setting.running(kind)) for kind in kinds]
        for server in servers:
            until_ready(server, wire[0])
            asyncio.run(closed(server.port, again(wire, 64), 16))
        for repeat in range(setting.repeats):
            for clients in setting.clients:
                turn = repeat % len(servers)
                for server in servers[turn:] + servers[:turn]:
                    cpu, own = server.cpu_s(), time.process_time()
                    count = setting.requests or (300 if clients == 1 else 600)
                    seen = asyncio.run(closed(server.port, again(wire, count), clients))
                    if seen.lost or len(seen.answers) != count:
                        raise SystemExit(
                            f"{server.kind}: {seen.lost} lost, {seen.others} and {len(seen.refusals)} refused"
                        )
                    found.setdefault((server.kind, clients), []).append(
                        (seen, server.cpu_s() - cpu, time.process_time() - own)
                    )
    for (kind, clients), rounds in sorted(found.items(), key=lambda item: (item[0][1], kinds.index(item[0][0]))):
        latencies = [value for seen, _, _ in rounds for value in seen.answers]
        yield {
            "server": kind, "clients": clients, "n": len(latencies),
            "answers_per_s": spread(seen.rate for seen, _, _ in rounds),
            "p50_ms": percentile(latencies, 0.5), "p99_ms": percentile(latencies, 0.99),
            "cpu_ms": round(statistics.median(cpu / len(seen.answers) for seen, cpu, _ in rounds) * 1000, 3),
            "client_share_of_a_core": round(statistics.median(own / seen.seconds for seen, _, own in rounds), 2),
            "ratios": {
                other: spread(seen.rate / base.rate for (seen, _, _), (base, _, _) in zip(rounds, found[other, clients], strict=True))
                for other in kinds if other != kind
            },
        }  # fmt: skip


def overload(setting: Setting) -> Iterator[Line]:
    """A promise under twice the load that can be answered: what accepted requests take, how soon the rest are refused, how
    much of the capacity is left, when it is over, and what stays in memory. Capacity is that of 64 clients and no promise."""
    wire, chosen = setting.wire(), random.Random(setting.seed)
    with (
        setting.running("endwise") as free,
        setting.running("endwise", "--p99-ms", str(setting.p99_ms)) as server,
    ):
        for one in (free, server):
            until_ready(one, wire[0])
            asyncio.run(closed(one.port, again(wire, 300), 8))
        capacity = [asyncio.run(closed(free.port, again(wire, 600), 64)).rate for _ in range(setting.repeats)]
        for repeat in range(setting.repeats):
            usual = asyncio.run(closed(server.port, again(wire, 50), 1)).answers
            before = server.rss_mb()
            rate = 2 * statistics.median(capacity)
            gaps = [chosen.expovariate(rate) for _ in range(round(rate * setting.seconds))]
            seen = asyncio.run(timed(server.port, itertools.cycle(wire), gaps))
            calm = _calm(server, wire[0], 2 * statistics.median(usual))
            # the machine's speed moves: what it can do is asked again after the flood
            capacity.append(asyncio.run(closed(free.port, again(wire, 600), 64)).rate)
            able = statistics.median([capacity[-1], capacity[-2]])
            yield {
                "repeat": repeat, "p99_promised_ms": setting.p99_ms, "asked_per_s": round(rate, 1), "n": len(seen.replies),
                "answered": len(seen.answers), "refused": len(seen.refusals), "others": seen.others, "lost": seen.lost,
                "p50_ms": percentile(seen.answers, 0.5), "p99_ms": percentile(seen.answers, 0.99),
                "refused_p50_ms": percentile(seen.refusals, 0.5), "refused_p99_ms": percentile(seen.refusals, 0.99),
                "without_retry_after": sum(b"retry-after:" not in reply.head for reply in seen.replies if reply.status == 503),
                "goodput_over_capacity": round(seen.rate / able, 3), "capacity_per_s": round(able, 1),
                "calm_after_s": calm, "rss_growth_mb": round(server.rss_mb() - before, 1),
            }  # fmt: skip


def _calm(server: Server, request: bytes, limit_s: float, most_s: float = 10.0) -> float | None:
    """Seconds until ten answers in a row come as they usually do; None where they do not."""
    began, good = time.perf_counter(), 0

    async def ask() -> float | None:
        nonlocal good
        with closing([await connected(server.port)]) as (connection,):
            first = began
            while time.perf_counter() - began < most_s:
                sent = time.perf_counter()
                reply = await connection.ask(request)
                if reply.status == 200 and reply.seconds <= limit_s:
                    first = sent if good == 0 else first
                    good += 1
                    if good == 10:
                        return first - began
                else:
                    good = 0
            return None

    found = asyncio.run(ask())
    return None if found is None else round(found, 3)


def drain(setting: Setting) -> Iterator[Line]:
    """SIGTERM while 500 requests are on their way: who gets an answer, when readiness is gone, how it ends."""
    wire, count = setting.wire(), setting.requests or 500
    for repeat in range(setting.repeats):
        with setting.running("endwise", "--queue", str(2 * count)) as server:
            until_ready(server, wire[0])
            began, replies, unready = asyncio.run(_drained(server, list(again(wire, count))))
            code = server.process.wait(60)
            statuses = [reply.status for reply in replies if reply is not None]
            server.said.seek(0)
            yield {
                "repeat": repeat, "n": count, "answered": statuses.count(200), "refused": statuses.count(503),
                "lost": replies.count(None), "not_ready_after_ms": unready, "exit_code": code,
                "ended_after_s": round(time.perf_counter() - began, 2), "traceback": "Traceback" in server.said.read(),
            }  # fmt: skip


async def _drained(server: Server, wire: list[bytes]) -> tuple[float, list[Any], float | None]:
    """When it was told to stop, a reply or None for each request, and the milliseconds until /readyz said 503."""
    with (
        closing([await connected(server.port) for _ in wire]) as connections,
        closing([await connected(server.port)]) as (other,),
    ):
        asked = [asyncio.create_task(one.ask(request)) for one, request in zip(connections, wire, strict=True)]
        await asyncio.sleep(0.05)
        began = time.perf_counter()
        server.process.send_signal(signal.SIGTERM)
        unready = None
        with contextlib.suppress(ConnectionError):
            while unready is None:
                if other.transport is None:
                    other = await connected(server.port)
                reply = await other.ask(framed(b"", path="/readyz", method="GET"))
                if reply.status == 503:
                    unready = round((reply.at - began) * 1000, 1)
        found = await asyncio.gather(*asked, return_exceptions=True)
        other.close()
    return began, [None if isinstance(reply, BaseException) else reply for reply in found], unready


def swap(setting: Setting) -> Iterator[Line]:
    """Another version takes over while 2,000 requests are asked: none may fail, and each says which version it is from."""
    from endwise.run import Run

    wire, count = setting.wire(), setting.requests or 2_000
    with tempfile.TemporaryDirectory() as place:
        old, new = Run.open(setting.target).model(), Run.open(setting.target).model()
        for parameter in new.network.parameters():
            parameter.data *= 1.001
        for repeat in range(setting.repeats):
            old.save(Path(place) / "model")
            with setting.running("endwise", target=Path(place) / "model") as server:
                until_ready(server, wire[0])
                seen, took = asyncio.run(
                    _swapped(server, again(wire, count), lambda: new.save(Path(place) / "model"), count)
                )
            heads = list(map(_version, seen.replies))
            spoken = [json.loads(reply.body)["model"].lower() for reply in seen.replies if reply.status == 200]
            yield {
                "repeat": repeat, "n": count, "answered": len(seen.answers), "lost": seen.lost,
                "failed": len(seen.refusals) + sum(seen.others.values()), "without_version": heads.count(""),
                "versions": {name: heads.count(name) for name in sorted(set(heads))}, "header_and_body_agree": heads == spoken,
                "took_over_after_s": took, "p99_ms": percentile(seen.answers, 0.99),
            }  # fmt: skip


async def _swapped(
    server: Server, wire: Iterator[bytes], change: Callable[[], Any], count: int
) -> tuple[Seen, float | None]:
    """Asked by 16 clients; after a quarter the folder is changed and the server is told."""
    passed, first = 0, asyncio.Event()

    def counted() -> Iterator[bytes]:
        nonlocal passed
        for request in wire:
            passed += 1
            if passed == count // 4:
                first.set()
            yield request

    task = asyncio.create_task(closed(server.port, counted(), 16))
    await first.wait()
    await asyncio.to_thread(change)
    told = time.perf_counter()
    server.process.send_signal(signal.SIGHUP)
    seen = await task
    later = [reply.at for reply in seen.replies if _version(reply) != _version(seen.replies[0])]
    return seen, round(min(later) - told, 2) if later else None


def _version(reply: Reply) -> str:
    """By its header."""
    return reply.head.partition(b"x-model-version: ")[2].partition(b"\r\n")[0].decode()


def cancel(setting: Setting) -> Iterator[Line]:
    """200 clients that leave right after asking: how many rows are computed after they left."""
    wire, count = setting.wire(), setting.requests or 200
    with setting.running("endwise") as server:
        until_ready(server, wire[0])
        for repeat in range(setting.repeats):
            before = server.counted("endwise_batch_rows_sum")

            async def leave() -> float:
                with (
                    closing([await connected(server.port)]) as (watcher,),
                    closing([await connected(server.port) for _ in range(count)]) as connections,
                ):
                    for connection, request in zip(connections, again(wire, count), strict=True):
                        assert connection.transport is not None
                        connection.transport.write(request)
                    page = await watcher.ask(framed(b"", path="/metrics", method="GET"))
                return next(
                    float(line.split()[-1])
                    for line in page.body.splitlines()
                    if line.startswith(b"endwise_batch_rows_sum")
                )

            computed = asyncio.run(leave())
            while server.counted("endwise_queue_depth"):
                time.sleep(0.05)
            after = server.counted("endwise_batch_rows_sum")
            yield {
                "repeat": repeat, "n": count, "computed_before_they_left": computed - before,
                "computed_after": after - computed, "a_batch_has_at_most": 32,
                "beyond_a_batch": round(max(0.0, after - computed - 32) / count, 3), "still_answers": not asyncio.run(
                    closed(server.port, wire[:1], 1)
                ).lost,
            }  # fmt: skip


def tagged(setting: Setting) -> Iterator[Line]:
    """10,000 requests of rows of many sizes, each with its own name, from 64 clients in chance order: every one has to come
    back under its name with the answer that its row gets alone."""
    chosen, count = random.Random(setting.seed), setting.requests or 10_000
    bodies = [json.dumps({"inputs": row}).encode() for row in itertools.islice(_varied(setting.rows, chosen), 400)]
    with setting.running("endwise") as server:
        until_ready(server, framed(bodies[0]))
        alone = asyncio.run(closed(server.port, map(framed, bodies), 1)).replies
        bodies, expected = _told_apart(bodies, [json.loads(reply.body)["outputs"] for reply in alone])
        order = [chosen.randrange(len(bodies)) for _ in range(count)]
        batches = server.counted("endwise_batch_rows_count")
        seen = asyncio.run(
            closed(server.port, (framed(bodies[row], name=f"t{at}-{row}") for at, row in enumerate(order)), 64)
        )
        batches = server.counted("endwise_batch_rows_count") - batches
        swapped, worst, odd = 0, 0.0, 0
        names = set()
        for reply in seen.replies:
            found = json.loads(reply.body)
            if reply.status != 200:
                odd += 1
                continue
            names.add(found["id"])
            row = int(found["id"].partition("-")[2])
            distance = apart(expected[row], found["outputs"])
            worst = max(worst, distance)
            swapped += distance > 10 * NEAR
        nearest = min(apart(one, other) for one, other in itertools.combinations(expected, 2))
        yield {
            "n": count, "rows": len(bodies), "nearest_two_answers": nearest, "answered": len(seen.answers), "lost": seen.lost,
            "failed": odd, "names": len(names), "swapped": swapped, "worst_difference_to_alone": worst,
            "within_1e-5": worst <= NEAR, "mean_batch": round(count / batches, 1),
        }  # fmt: skip


def _told_apart(bodies: list[bytes], answers: list[Any]) -> tuple[list[bytes], list[Any]]:
    """Those whose answers lie far enough apart for a swap to be seen."""
    kept: list[int] = []
    for row, answer in enumerate(answers):
        if all(apart(answer, answers[other]) > 100 * NEAR for other in kept):
            kept.append(row)
    return [bodies[row] for row in kept], [answers[row] for row in kept]


def apart(one: Any, other: Any) -> float:
    """The largest difference between numbers of two answers, relative to those above 1; infinite where anything else differs."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return max((apart(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max(map(apart, one, other), default=0.0)
    if isinstance(one, float | int) and isinstance(other, float | int):
        return abs(one - other) / max(1.0, abs(one))
    return 0.0 if one == other else float("inf")


def _varied(rows: list[dict[str, Any]], chosen: random.Random) -> Iterator[dict[str, Any]]:
    """Rows without end like those given, of many sizes: pictures cut and drawn larger or smaller, texts with words left out
    and repeated, numbers moved."""
    while True:
        yield {name: _changed(value, chosen) for name, value in chosen.choice(rows).items()}


def _changed(value: Any, chosen: random.Random) -> Any:
    from PIL import Image

    if isinstance(value, int | float):
        return value * chosen.uniform(0.5, 1.5)
    with contextlib.suppress(ValueError, OSError):
        picture = Image.open(io.BytesIO(base64.b64decode(value, validate=True))).convert("RGB")
        scale, left, top = chosen.uniform(0.6, 1.4), chosen.uniform(0, 0.3), chosen.uniform(0, 0.3)
        cut = picture.crop((round(left * picture.width), round(top * picture.height), picture.width, picture.height))
        file = io.BytesIO()
        cut.resize((max(8, round(scale * cut.width)), max(8, round(scale * cut.height)))).save(file, "JPEG", quality=95)
        return base64.b64encode(file.getvalue()).decode()
    words = [word for word in value.split() for _ in range(chosen.choice((0, 1, 1, 2)))]
    return " ".join(words) or value


def soak(setting: Setting) -> Iterator[Line]:
    """100,000 requests of 16 clients in 100 blocks: errors, memory and latency from beginning to end."""
    wire, count = setting.wire(), setting.requests or 100_000
    with setting.running("endwise") as server:
        until_ready(server, wire[0])
        asyncio.run(closed(server.port, again(wire, 500), 16))
        resident, latencies, wrong, began = [server.rss_mb()], list[list[float]](), 0, time.perf_counter()
        for _ in range(100):
            seen = asyncio.run(closed(server.port, again(wire, count // 100), 16))
            wrong += seen.lost + len(seen.replies) - len(seen.answers)
            latencies.append(seen.answers)
            resident.append(server.rss_mb())
        seconds = time.perf_counter() - began
        first, last = list(itertools.chain(*latencies[:10])), list(itertools.chain(*latencies[90:]))
        slope = np.polyfit(np.arange(101) * count / 100 / 10_000, resident, 1)[0]
        yield {
            "n": count, "seconds": round(seconds, 1), "answers_per_s": round(count / seconds, 1), "errors": wrong,
            "rss_mb": [round(value, 1) for value in resident[::20]], "rss_mb_per_10000": round(float(slope), 3),
            "p99_first_decile_ms": percentile(first, 0.99), "p99_last_decile_ms": percentile(last, 0.99),
            "p99_last_over_first": round((percentile(last, 0.99) or 0) / (percentile(first, 0.99) or 1), 3),
            "p50_last_over_first": round((percentile(last, 0.5) or 0) / (percentile(first, 0.5) or 1), 3),
        }  # fmt: skip


def driving(setting: Setting) -> Iterator[Line]:
    """30 pictures a second from one client, at their moments, while another floods the server: from another address of this
    machine with 16 connections that ask again at once, and from the same address, where nobody can tell them apart."""
    wire, frames = setting.wire(), round(setting.frames_per_s * setting.seconds)
    with setting.running("endwise", "--p99-ms", str(setting.p99_ms)) as server:
        until_ready(server, wire[0])
        asyncio.run(closed(server.port, again(wire, 200), 4))
        for repeat in range(setting.repeats):
            for flood in (None, "127.0.0.2", "127.0.0.1"):
                with _flooding(server, wire, flood) as others:
                    frame = asyncio.run(
                        timed(
                            server.port,
                            itertools.cycle(wire),
                            itertools.repeat(1 / setting.frames_per_s, frames),
                            connections=2,
                        )
                    )
                other = others[0] if others else None
                yield {
                    "repeat": repeat, "flood": flood, "n": frames, "answered": len(frame.answers),
                    "refused": len(frame.refusals), "lost": frame.lost, "p50_ms": percentile(frame.answers, 0.5),
                    "p99_ms": percentile(frame.answers, 0.99), "max_ms": percentile(frame.answers, 1.0),
                    "flood_answered_per_s": None if other is None else round(other.rate, 1),
                    "flood_refused_per_s": None if other is None else round(len(other.refusals) / other.seconds, 1),
                }  # fmt: skip


@contextlib.contextmanager
def _flooding(server: Server, wire: list[bytes], source: str | None) -> Iterator[list[Seen]]:
    """16 connections of another process that ask again at once, from that address; what they saw is there after the block."""
    found: list[Seen] = []
    if source is None:
        yield found
        return
    context = multiprocessing.get_context("spawn")
    ended, came = context.Event(), context.Queue()
    process = context.Process(target=_flood, args=(server.port, wire, source, ended, came))
    process.start()
    time.sleep(3)
    yield found
    ended.set()
    found.append(came.get(timeout=60))
    process.join()


def _flood(port: int, wire: list[bytes], source: str, ended: Any, came: Any) -> None:
    seen = asyncio.run(closed(port, itertools.cycle(wire), 16, until=ended.is_set, source=source))
    came.put(seen)


def cold(setting: Setting) -> Iterator[Line]:
    """From the start of the process to its first answer, beside what importing torch takes in the same minutes, by the clock
    and in processor time. Files are in the cache of the machine."""
    wire, ready, torch = setting.wire(), list[tuple[float, float]](), list[tuple[float, float]]()
    for _ in range(setting.repeats):
        began, cpu = time.perf_counter(), os.times()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        spent = os.times()
        used = spent.children_user + spent.children_system - cpu.children_user - cpu.children_system
        torch.append((time.perf_counter() - began, used))
        with setting.running("endwise") as server:
            ready.append((until_ready(server, wire[0]), server.cpu_s()))
    needs_torch = not (setting.target / "bundle.json").is_file()
    for at, kind in enumerate(("clock", "processor")):
        yield {
            "time": kind, "ready_s": spread(one[at] for one in ready), "importing_torch_s": spread(one[at] for one in torch),
            "needs_torch": needs_torch, "beyond_torch_s": spread(
                one[at] - other[at] for one, other in zip(ready, torch, strict=True)
            ) if needs_torch else None,
        }  # fmt: skip


def fuzzed(setting: Setting) -> Iterator[Line]:
    """10,000 requests that are damaged by a seed: what they are answered, and what is left of memory."""
    count = setting.requests or 10_000
    with setting.running("endwise", "--timeout-s", "5") as server:
        until_ready(server, setting.wire()[0])
        asyncio.run(closed(server.port, again(setting.wire(), 200), 8))
        asyncio.run(fuzz(server.port, setting.bodies(), max(1, count // 10), seed=setting.seed + 1))  # what grows once
        before = server.rss_mb()
        found = asyncio.run(fuzz(server.port, setting.bodies(), count, seed=setting.seed))
        after = server.rss_mb()
        server.said.seek(0)
        yield {
            "n": count, "statuses": dict(sorted(found.statuses.items())), "server_errors": found.server_errors,
            "tracebacks": found.tracebacks, "not_answered": found.silent, "examples": found.examples,
            "alive": server.process.poll() is None and bool(asyncio.run(closed(server.port, setting.wire()[:1], 1)).answers),
            "rss_mb": [round(before, 1), round(after, 1)], "rss_drift": round(after / before - 1, 4),
            "log_has_traceback": "Traceback" in server.said.read(),
        }  # fmt: skip


def bombed(setting: Setting) -> Iterator[Line]:
    """100 values that would unpack to much more than they are: how they are refused, how soon, and what it leaves in memory."""
    thrown = bombs(setting.rows[0])
    with setting.running("endwise") as server:
        until_ready(server, setting.wire()[0])
        asyncio.run(closed(server.port, again(setting.wire(), 200), 8))
        before, most, replies = server.rss_mb(), 0.0, list[tuple[str, Reply]]()
        for what, body in itertools.islice(itertools.cycle(thrown.items()), setting.requests or 100):
            seen = asyncio.run(closed(server.port, [framed(body)], 1))
            if seen.lost:
                raise SystemExit(f"{what}: no answer")
            replies.append((what, seen.replies[0]))
            most = max(most, server.rss_mb())
        slowest = max(replies, key=lambda item: item[1].seconds)
        statuses = [reply.status for _, reply in replies]
        yield {
            "n": len(replies), "kinds": len(thrown), "statuses": {status: statuses.count(status) for status in sorted(set(statuses))},
            "answered": sorted({what for what, reply in replies if reply.status == 200}),
            "p50_ms": percentile([reply.seconds for _, reply in replies], 0.5), "slowest_ms": round(slowest[1].seconds * 1000, 1),
            "slowest": slowest[0], "rss_growth_mb": round(most - before, 1), "left_mb": round(server.rss_mb() - before, 1),
            "alive": bool(asyncio.run(closed(server.port, setting.wire()[:1], 1)).answers),
        }  # fmt: skip


ALL: dict[str, Callable[[Setting], Iterator[Line]]] = {
    "throughput": throughput, "overload": overload, "drain": drain, "swap": swap, "cancel": cancel, "tagged": tagged,
    "soak": soak, "driving": driving, "cold": cold, "fuzz": fuzzed, "bombs": bombed,
}  # fmt: skip
