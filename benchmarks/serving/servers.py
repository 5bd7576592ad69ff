"""The servers that stand side by side, each in a process of its own: ours, the least that FastAPI needs, and LitServe
(with_litserve.py).

All take one body, `{"inputs": {name: number, text or base64}}`, and answer with the same JSON, so that what differs is how
they are built. LitServe is nobody's dependency here: install it for the comparison (`pip install litserve`), anywhere that
PYTHONPATH or `--litserve FOLDER` names.
"""

import asyncio
import base64
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.serving.load import HOST, closed, framed

KINDS = ("endwise", "single", "plain", "litserve", "litserve-batched")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Server:
    """A running one. began: when its process was started, of time.perf_counter."""

    kind: str
    port: int
    process: "subprocess.Popen[bytes]"
    began: float
    said: IO[str]  # its stderr

    def processes(self) -> list[int]:
        """It and those it started."""
        return [self.process.pid, *descendants(self.process.pid)]

    def cpu_s(self) -> float:
        """Processor time so far, of all its processes that live."""
        return sum(map(cpu_s, self.processes()))

    def rss_mb(self) -> float:
        """Resident memory, of all its processes."""
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return total / (1 << 20)

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a page beside the answers."""
        seen = asyncio.run(closed(self.port, [framed(b"", path=path, method="GET")], 1))
        if not seen.replies:
            raise SystemExit(f"{self.kind} did not answer {path}")
        return seen.replies[0].status, seen.replies[0].body

    def counted(self, name: str) -> float:
        """A number of /metrics by its whole name (labels too); 0 where it is not there yet."""
        for line in self.get("/metrics")[1].decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[-1])
        return 0.0


@contextlib.contextmanager
def running(
    kind: str,
    target: str | Path,
    *extra: str,
    threads: int | None = 1,
    site: Path | None = None,
    sleep_ms: str | None = None,
) -> Iterator[Server]:
    """A server, asked to stop when the block ends. threads: of its arithmetic; None: as it comes. site: a folder with LitServe.
    sleep_ms: ours answers in that time, without computing: "a batch,a row"."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    if kind in ("endwise", "single"):
        program = ["endwise"] if sleep_ms is None else ["benchmarks.serving.sleeper", sleep_ms]
        command = [sys.executable, "-m", *program, "serve", str(target), "--port", str(port), *extra]
        command += [] if threads is None else ["--threads", str(threads)]
        command += ["--max-batch", "1"] if kind == "single" else []
    else:
        module = "servers" if kind == "plain" else "with_litserve"
        command = [
            sys.executable,
            "-m",
            f"benchmarks.serving.{module}",
            kind,
            str(target),
            str(port),
            str(threads or 0),
        ]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(site or "")))),
    }
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        environment.pop(name, None)
        if threads is not None:
            environment[name] = str(threads)
    began = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=environment) as process,
    ):
        server = Server(kind, port, process, began, said)
        try:
            yield server
        finally:
            members = server.processes()
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=15)
            for pid in members:  # LitServe's workers may outlive it
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def until_ready(server: Server, request: bytes, limit_s: float = 120.0) -> float:
    """Seconds from the start of its process to its first answer."""
    while server.process.poll() is None and time.perf_counter() - server.began < limit_s:
        with contextlib.suppress(OSError):
            if asyncio.run(closed(server.port, [request], 1)).answers:
                return time.perf_counter() - server.began
        time.sleep(0.02)
    server.said.seek(0)
    raise SystemExit(f"{server.kind} does not answer: {server.said.read()[-2000:]}")


def descendants(pid: int) -> list[int]:
    """Processes that it started, and those that they did."""
    found, new = list[int](), [pid]
    while new:
        children = list[int]()
        for parent in new:
            for file in Path(f"/proc/{parent}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    children += map(int, file.read_text().split())
        found += children
        new = children
    return found


def cpu_s(pid: int) -> float:
    """Processor time of a process and of its children that have ended; 0 of one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS


# ---- what anybody would write ----------------------------------------------------------------------------------------


def answering(target: str, threads: int) -> Callable[[list[Mapping[str, Any]]], list[Any]]:
    """Rows of JSON to answers, by `predict` alone."""
    from endwise.files import plain as plain_values

    if (Path(target) / "bundle.json").is_file():
        from endwise.runner import Bundle

        bundle = Bundle.load(target, threads=threads or None)
        files = {name: bool(item.file_kinds) for name, item in bundle.inputs.items()}
        return lambda rows: [plain_values(found) for found in bundle.predict([_opened(row, files) for row in rows])]
    import torch

    from endwise.run import Run

    if threads:
        torch.set_num_threads(threads)
    model = Run.open(target).model()
    files = {name: bool(item.file_kinds) for name, item in model.recipe.inputs.items()}
    return lambda rows: [
        plain_values(found.to_dict()) for found in model.predict([_opened(row, files) for row in rows])
    ]


def _opened(row: Mapping[str, Any], files: Mapping[str, bool]) -> dict[str, Any]:
    return {
        name: base64.b64decode(value) if files[name] and isinstance(value, str) else value
        for name, value in row.items()
    }


def plain(target: str, port: int, threads: int) -> None:
    """A FastAPI handler that hands the row to `predict` on the thread pool."""
    import uvicorn
    from fastapi import FastAPI, Request
    from fastapi.concurrency import run_in_threadpool

    answers = answering(target, threads)
    app = FastAPI()

    @app.post("/predict")
    async def predict(request: Request) -> Any:
        row = (await request.json())["inputs"]
        return {"outputs": (await run_in_threadpool(answers, [row]))[0]}

    uvicorn.run(app, host=HOST, port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    _, served, port, threads = sys.argv[1:]
    plain(served, int(port), int(threads))
