"""A server beside the least that serves: `python -m benchmarks.serving RUN|BUNDLE FILE [--clients 1 16 64 --repeats 5]`.

The same file is asked for again and again, as a raw body, of three servers that run side by side and are asked in turns:
`plain`, a FastAPI handler that hands the bytes to `predict` on its thread pool, as anybody would write it; `endwise`, this
package's; `single`, the same with batches of one row. One thread of arithmetic each. Printed for each number of clients:
answers a second (median over repeats) and their ratio to `plain`, the median and 99th percentile of the latency, and
refusals with how long they took (`--p99-ms`).
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
SERVERS = ("plain", "endwise", "single")


def plain(target: str, port: int) -> None:
    """What anybody would write."""
    import uvicorn
    from fastapi import FastAPI, Request
    from fastapi.concurrency import run_in_threadpool

    from endwise.files import plain as plain_values

    if (Path(target) / "bundle.json").is_file():
        from endwise.runner import Bundle

        bundle = Bundle.load(target, threads=1)
        ((name, item),) = bundle.inputs.items()

        def answer(body: bytes) -> Any:
            return plain_values(bundle.predict({name: body if item.file_kinds else body.decode()}))
    else:
        import torch

        from endwise.run import Run

        torch.set_num_threads(1)
        model = Run.open(target).model()
        ((name, item),) = model.recipe.inputs.items()

        def answer(body: bytes) -> Any:
            return plain_values(model.predict({name: body if item.file_kinds else body.decode()}).to_dict())

    app = FastAPI()

    @app.post("/predict")
    async def predict(request: Request) -> Any:
        return await run_in_threadpool(answer, await request.body())

    uvicorn.run(app, host=HOST, port=port, log_level="warning", access_log=False)


@dataclass
class Round:
    """What some clients saw of one server."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)  # of answers
    refusals: list[float] = field(default_factory=list)  # of 503

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds


async def client(port: int, request: bytes, left: list[int], seen: Round) -> None:
    """One connection, kept; asks until nothing is left to ask."""
    reader, writer = await asyncio.open_connection(HOST, port)
    with contextlib.closing(writer):
        while left[0] > 0:
            left[0] -= 1
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            status, took = int(head[9:12]), time.perf_counter() - began
            if status not in (200, 503):
                raise SystemExit(f"the server answered {head!r}")
            (seen.latencies if status == 200 else seen.refusals).append(took)


async def asked(port: int, request: bytes, clients: int, requests: int) -> Round:
    seen, left, began = Round(), [requests], time.perf_counter()
    await asyncio.gather(*(client(port, request, left, seen) for _ in range(clients)))
    seen.seconds = time.perf_counter() - began
    return seen


@contextlib.contextmanager
def running(kind: str, target: str, extra: list[str]) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """A server in a process of its own, and its port."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "endwise", "serve", target, "--port", str(port), "--threads", "1", *extra]
    if kind == "single":
        command += ["--max-batch", "1"]
    if kind == "plain":
        command = [sys.executable, "-m", "benchmarks.serving", target, "--plain", str(port)]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, **threads}) as process:
        try:
            yield port, process
        finally:
            process.terminate()


def until_ready(port: int, process: "subprocess.Popen[bytes]", request: bytes) -> None:
    while process.poll() is None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if asyncio.run(asked(port, request, 1, 1)).latencies:
                return
        time.sleep(0.2)
    raise SystemExit(f"a server has ended: {process.args}")


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", metavar="RUN|BUNDLE", help="with one input")
    parser.add_argument("file", nargs="?", type=Path, help="a raw value of it")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--requests", type=int, default=1000, help="in each repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--p99-ms", type=float, help="of endwise: see what it refuses")
    parser.add_argument("--plain", type=int, metavar="PORT", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.plain is not None:
        plain(args.target, args.plain)
        return
    body = args.file.read_bytes()
    kind = "text/plain" if args.file.suffix == ".txt" else "application/octet-stream"
    request = (
        f"POST /predict HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    extra = [] if args.p99_ms is None else ["--p99-ms", str(args.p99_ms)]
    found: dict[tuple[str, int], list[Round]] = {}
    with contextlib.ExitStack() as stack:
        servers = {kind: stack.enter_context(running(kind, args.target, extra)) for kind in SERVERS}
        for port, process in servers.values():
            until_ready(port, process, request)
        for repeat in range(args.repeats):
            for clients in args.clients:
                for kind in SERVERS[repeat % 3 :] + SERVERS[: repeat % 3]:
                    seen = asyncio.run(asked(servers[kind][0], request, clients, args.requests))
                    found.setdefault((kind, clients), []).append(seen)
    for clients in args.clients:
        base = found["plain", clients]
        for kind in SERVERS:
            rounds = found[kind, clients]
            ratios = [one.rate / other.rate for one, other in zip(rounds, base, strict=True)]
            latencies = [value for seen in rounds for value in seen.latencies]
            refusals = [value for seen in rounds for value in seen.refusals]
            print(json.dumps({
                "server": kind, "clients": clients, "n": len(latencies),
                "answers_per_s": round(statistics.median(seen.rate for seen in rounds), 1),
                "ratio_to_plain": round(statistics.median(ratios), 3),
                "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
                "p50_ms": round(percentile(latencies, 0.5), 2), "p99_ms": round(percentile(latencies, 0.99), 2),
                "refused": len(refusals), "refused_p99_ms": round(percentile(refusals, 0.99), 2) if refusals else None,
            }))  # fmt: skip


if __name__ == "__main__":
    main()
