"""Programs as answers: run one against its tests in a process of its own with limits, pass@k, and shell commands
compared as texts.

Guaranteed on Linux and macOS: the caller's process, its environment and its working folder are not the program's; CPU
time, memory, the size of files and the time on the clock are limited by the kernel, and what is left afterwards is
killed with its process group. A program that leaves before its last assert has not passed. Where the machine allows
namespaces (`walls` says), the kernel also gives it no network at all and kills whatever it may have started.

Not guaranteed: files the user may read can be read; and where there are no namespaces, network, processes and writing
are refused by a hook inside the child's Python, which stops mistakes and common tricks and not a determined attacker.
Nor is a program kept from deceiving its tests: it runs in the same interpreter as they. Judge what your own model
wrote; for programs of people who mean harm, use a virtual machine. On Windows nothing is run.
"""

import contextlib
import functools
import math
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from endwise.errors import DataError, SetupError, require
from endwise.metrics import Metric, exact_match, summable

SECONDS, MEGABYTES = 5.0, 512
CHILD = Path(__file__).with_name("sandbox.py")
STARTING_S = 20.0  # on the clock beside the program's own time: a busy machine starts and serves a process late
MESSAGE_CHARS = 300
NAMESPACES = ("unshare", "--user", "--net", "--pid", "--fork", "--kill-child")

Verdict = Literal["passed", "failed", "time", "memory", "refused"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a program. failed: an assert, an exception, or an early end; refused: it asked for a process, the
    network or a file to write. message: the last line of what it said about that."""

    verdict: Verdict
    message: str = ""

    @property
    def passed(self) -> bool:
        """Every test ran and none failed."""
        return self.verdict == "passed"


def run_tests(program: str, tests: str, *, seconds: float = SECONDS, megabytes: int = MEGABYTES) -> Outcome:
    """Run a Python program and then its tests (asserts) with the same names, in an empty folder, isolated from
    installed packages (`python -I -S`): only the standard library can be imported.

    seconds: of CPU time and, with 20 more for a busy machine, on the clock. Raises SetupError on Windows.
    """
    require(os.name == "posix", field="system", got=sys.platform, allowed="Linux or macOS, whose kernels limit processes",
            fix="run the evaluation there", error=SetupError)  # fmt: skip
    require(seconds > 0 and megabytes >= 64, field="limits", got=(seconds, megabytes),
            allowed="a time above 0 s and at least 64 MB", fix=f"{SECONDS:g} s and {MEGABYTES} MB are usual",
            error=DataError)  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="endwise-") as folder, (Path(folder) / "said").open("w+b") as said:
        empty = Path(folder) / "empty"
        empty.mkdir()
        file = Path(folder) / "program.py"
        file.write_bytes(f"{program}\n\n{tests}\n".encode(errors="replace"))
        late, ended = _run(file, empty, said.fileno(), seconds, megabytes)
        said.seek(max(0, said.seek(0, os.SEEK_END) - 4_000))
        lines = said.read().decode(errors="replace").strip().splitlines()
    message = lines[-1][:MESSAGE_CHARS] if lines else ""
    if ended:
        return Outcome("passed")
    if late and (not message or message.startswith(NAMESPACES[0])):  # killed in the middle, without a word of its own
        return Outcome("time", f"longer than {seconds:g} s")
    if message.startswith("MemoryError"):
        return Outcome("memory", f"more than {megabytes} MB")
    return Outcome(
        "refused" if "refused in the sandbox" in message else "failed", message or "ended before its tests did"
    )


def _run(file: Path, folder: Path, said: int, seconds: float, megabytes: int) -> tuple[bool, bool]:
    """(as long as it may, ran to the end)."""
    token = secrets.token_hex(16)
    reading, writing = os.pipe()
    limits = [str(math.ceil(seconds)), str(megabytes), str(writing), token]
    with os.fdopen(reading, "rb") as report:
        try:
            child = subprocess.Popen(
                [*walls(), sys.executable, "-I", "-S", "-B", str(CHILD), str(file), *limits],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, cwd=folder, pass_fds=(writing,),
                env={"PATH": os.defpath, "PYTHONHASHSEED": "0"}, start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(writing)
        began = time.monotonic()
        try:
            child.wait(timeout=seconds + STARTING_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):  # nothing of the group is left
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        # what the program might have started holds the pipe's other end: never wait for it
        os.set_blocking(report.fileno(), False)
        return time.monotonic() - began >= seconds, (report.read() or b"") == token.encode()


@functools.lru_cache(maxsize=1)
def walls() -> tuple[str, ...]:
    """The command that puts a process into namespaces without network and with processes of its own; empty where this
    machine has none."""
    if shutil.which(NAMESPACES[0]) is None:
        return ()
    try:
        tried = subprocess.run([*NAMESPACES, "true"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return NAMESPACES if tried.returncode == 0 else ()


# ---- pass@k ----------------------------------------------------------------------------------------------------------


def pass_at_k(
    k: int = 1, *, seconds: float = SECONDS, megabytes: int = MEGABYTES, workers: int | None = None
) -> Metric:
    """`pass@k`: the chance that one of k programs passes its tests. Truths are the tests (asserts as text); an answer
    gives its programs in `detail["samples"]`, or one as its value.

    The unbiased estimate from n >= k programs a row, of which c pass (Chen et al. 2021): 1 - C(n - c, k) / C(n, k).
    """
    require(k >= 1, field="k", got=k, allowed="a whole number of at least 1", fix="1, 10 and 100 are usual", error=DataError)  # fmt: skip

    def rows(truths: Sequence[Any], answers: Sequence[Any]) -> np.ndarray:
        samples = [list(answer.detail.get("samples") or [answer.value]) for answer in answers]
        fewest = min((len(programs) for programs in samples), default=k)
        require(fewest >= k, field="samples", got=fewest, allowed=f"at least k = {k} programs a row",
                fix="draw more, or ask for a smaller k", error=DataError)  # fmt: skip
        pairs = [
            (str(program), str(tests)) for tests, programs in zip(truths, samples, strict=True) for program in programs
        ]
        outcomes = iter(run_all(pairs, seconds=seconds, megabytes=megabytes, workers=workers))
        passed = [sum(next(outcomes).passed for _ in programs) for programs in samples]
        shares = [chance(len(programs), right, k) for programs, right in zip(samples, passed, strict=True)]
        return np.stack([shares, np.ones(len(shares))], axis=1)

    def mean(sums: np.ndarray) -> np.ndarray:
        return np.asarray(sums[..., 0] / sums[..., 1])

    return summable(f"pass@{k}", "max", rows, mean, proportion=True)


def run_all(
    pairs: Iterable[tuple[str, str]],
    *,
    seconds: float = SECONDS,
    megabytes: int = MEGABYTES,
    workers: int | None = None,
) -> list[Outcome]:
    """`run_tests` of (program, tests) pairs, several at a time, in their order; equal pairs are run once."""
    wanted = list(pairs)
    distinct = list(dict.fromkeys(wanted))
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        found = pool.map(lambda pair: run_tests(*pair, seconds=seconds, megabytes=megabytes), distinct)
        outcomes = dict(zip(distinct, found, strict=True))
    return [outcomes[pair] for pair in wanted]


def chance(n: int, right: int, k: int) -> float:
    """Of n programs `right` pass: the chance that k drawn without replacement hold one that does."""
    if n - right < k:
        return 1.0
    return 1.0 - math.prod(1 - k / size for size in range(n - right + 1, n + 1))


# ---- shell commands as texts -----------------------------------------------------------------------------------------

# words after which another program's name stands
LEADING = frozenset(
    {"sudo", "xargs", "nohup", "time", "env", "exec", "command", "nice", "-exec", "-execdir", "-ok", "-okdir"}
)
JOINING = re.compile(r"[|&;()<>]+")
VALUE_OF_FLAG = re.compile(r"=.*", re.DOTALL)
ESCAPED, PRIVATE = re.compile(r"\\([|&;()<>])"), 0xE000  # code points that mean nothing
NUMBER = re.compile(r"^-\d+$")


def command_match() -> Metric:
    """Share of rows whose shell command is the truth up to white space and the kind of quotes. Nothing is executed."""
    return exact_match(spelt_alike, name="command_match")


def template_match() -> Metric:
    """Share of rows whose command runs the same programs with the same flags, in the same order, with as many
    arguments, whatever they are. Nothing is executed, so a command may do the same and not count."""
    return exact_match(template, name="template_match")


def spelt_alike(command: str) -> str:
    """`ls   "a b"` and `ls 'a b'` are one command; what has no closing quote is compared as it stands."""
    words = _words(command)
    return " ".join(command.split()) if words is None else shlex.join(words)


def template(command: str) -> str:
    """Programs, flags and what joins them; `_` for an argument: `find . -name "*.c" | wc -l` is
    `find _ -name _ | wc -l`. Commands inside `$( )` and backticks count as arguments."""
    words = _words(command)
    if words is None:
        return " ".join(command.split())
    out, naming = [], True
    for word in words:
        if JOINING.fullmatch(word):
            out.append(word)
            naming = not set(word) & set("<>")
        elif word.startswith("-") and len(word) > 1:
            out.append("-#" if NUMBER.match(word) else VALUE_OF_FLAG.sub("=_", word) if word.startswith("--") else word)
            naming = naming or word in LEADING
        else:
            out.append(word if naming else "_")
            naming = naming and word in LEADING
    return " ".join(out)


def _words(command: str) -> list[str] | None:
    # what is escaped joins nothing: `\;` of find is an argument
    kept = ESCAPED.sub(lambda found: chr(PRIVATE + ord(found[1])), command)
    split = shlex.shlex(kept, posix=True, punctuation_chars="|&;()<>")
    split.whitespace_split = True
    split.commenters = ""
    try:
        return list(split)
    except ValueError:  # a quote that nobody closed
        return None


__all__ = ["Outcome", "chance", "command_match", "pass_at_k", "run_all", "run_tests", "spelt_alike", "template", "template_match", "walls"]  # fmt: skip
