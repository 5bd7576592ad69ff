"""A server measured: `python -m benchmarks.serving WHAT RUN|BUNDLE --input NAME=VALUE ... [--repeats 5]`.

WHAT is one of `throughput` (beside plain FastAPI and LitServe), `overload`, `drain`, `swap`, `cancel`, `tagged`, `soak`,
`driving`, `cold`, `fuzz`, `bombs` (each says what it does in measures.py). Every one prints JSON lines: numbers with their n. VALUE is
a file, a folder of files of which every request takes the next, or the value itself. One thread of arithmetic unless
`--threads` says otherwise. Clients run on the same machine, and so may others: `others_cores` is how many cores were not
ours while a line was measured (stolen by the host included); times of a busy machine say little.
"""

import argparse
import base64
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.serving import measures
from benchmarks.serving.measures import Setting
from benchmarks.serving.servers import TICKS, cpu_s, descendants

TEXTS = (".txt", ".md")


def values(given: str) -> list[Any]:
    """What a request may hold for one input: files as base64, texts and numbers as they are."""
    path = Path(given)
    if path.is_dir():
        return [value for file in sorted(path.iterdir()) for value in values(str(file))]
    if path.is_file():
        return [path.read_text() if path.suffix in TEXTS else base64.b64encode(path.read_bytes()).decode()]
    try:
        return [json.loads(given)]
    except ValueError:
        return [given]


def rows(given: list[str]) -> Iterator[dict[str, Any]]:
    """Rows for requests: as many as the longest list of values."""
    columns = {name: values(value) for name, _, value in (item.partition("=") for item in given)}
    for row in range(max(map(len, columns.values()))):
        yield {name: column[row % len(column)] for name, column in columns.items()}


def spent() -> tuple[float, float, float]:
    """Seconds: the clock, the processor time of the whole machine, and that of this process and all it started."""
    busy = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    whole = (
        sum(int(ticks) for place, ticks in enumerate(busy) if place not in (3, 4)) / TICKS
    )  # but for idle and waiting
    ours = sum(cpu_s(pid) for pid in (os.getpid(), *descendants(os.getpid())))
    return time.perf_counter(), whole, ours


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=sorted(measures.ALL), metavar="WHAT", help=", ".join(sorted(measures.ALL)))
    parser.add_argument("target", metavar="RUN|BUNDLE")
    parser.add_argument("--input", action="append", required=True, metavar="NAME=VALUE", help="once for each input")
    parser.add_argument("--requests", type=int, help="in each repeat; the default is what the target asks for")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 64], help="connections, of throughput")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a timed load")
    parser.add_argument("--p99-ms", type=float, default=50.0, help="the promise of overload and driving")
    parser.add_argument("--threads", type=int, default=1, help="of each server's arithmetic; 0: its own choice")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--litserve", type=Path, metavar="FOLDER", help="where LitServe was installed to")
    parser.add_argument("--servers", nargs="+", metavar="KIND", help="those of throughput; default: all that are there")
    parser.add_argument("--frames-per-s", type=float, default=30.0, help="of driving")
    parser.add_argument(
        "--sleep-ms", metavar="BATCH,ROW", help="answer in that time without computing: the queue alone"
    )
    args = parser.parse_args()
    setting = Setting(
        target=Path(args.target), rows=list(rows(args.input)), requests=args.requests, repeats=args.repeats,
        clients=args.clients, seconds=args.seconds, p99_ms=args.p99_ms, threads=args.threads or None, seed=args.seed,
        litserve=args.litserve, servers=args.servers, frames_per_s=args.frames_per_s, sleep_ms=args.sleep_ms,
    )  # fmt: skip
    head = {"what": args.what, "target": args.target, "threads": args.threads}
    before, others = spent(), 0.0
    for line in measures.ALL[args.what](setting):
        after = spent()
        seconds, all_of_it, ours = (new - old for new, old in zip(after, before, strict=True))
        if seconds > 1:  # else this line was measured together with the one before
            before, others = after, (all_of_it - ours) / seconds
        print(json.dumps({**head, **line, "others_cores": round(others, 2)}), flush=True)


if __name__ == "__main__":
    main()
