"""What stands in the child process between the machine and a program that nobody has read. Started by execute.py as
`python -I -S -B sandbox.py FILE SECONDS MEGABYTES REPORT TOKEN`; standard library only, nothing of ours.

Order matters: limits of the kernel first, then a hook that Python itself cannot take off again, then the program. What
this holds and what it does not is said in execute.py.
"""

import os
import sys
from typing import Any

FILE_BYTES = 1_000_000  # of each file that is written; errors go to one
FILES = 32  # open at once
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# what an honest function has no business with; the names are those of Python's table of audit events
REFUSED = (
    "socket.", "subprocess.", "shutil.", "tempfile.", "ctypes.", "pty.", "fcntl.", "mmap.", "syslog.", "signal.",
    "ftplib.", "http.", "imaplib.", "nntplib.", "poplib.", "smtplib.", "telnetlib.", "urllib.", "webbrowser.",
    "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.kill", "os.killpg", "os.putenv",
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown",
    "os.chflags", "os.lockf", "os.utime", "os.setxattr", "os.removexattr", "resource.", "sqlite3.", "sys._current_frames",
)  # fmt: skip
MODULES = frozenset({"ctypes", "_ctypes", "_posixsubprocess", "_multiprocessing", "_socket", "_xxsubinterpreters"})


def limit(seconds: int, megabytes: int) -> None:
    """CPU time, address space, size and number of files, processes (not for root), core dumps: soft and hard alike."""
    import resource

    for what, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, megabytes * 2**20),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, FILES),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def refuse(event: str, args: tuple[Any, ...]) -> None:
    """Raise where a program asks for a process, the network, or another's file."""
    if event == "open":
        mode, flags = args[1], args[2]
        wrong = bool(flags & WRITING) if isinstance(flags, int) else bool(set(str(mode)) & set("wax+"))
    elif event == "import":
        wrong = str(args[0]).partition(".")[0] in MODULES
    else:
        wrong = event.startswith(REFUSED)
    if wrong:
        raise PermissionError(f"refused in the sandbox: {event}")


def main() -> None:
    """Run FILE to its end, then write TOKEN to the descriptor REPORT: a program that leaves early has not passed."""
    import runpy

    file, seconds, megabytes, report, token = sys.argv[1:]
    sys.argv[1:] = []
    end = os.fdopen(int(report), "w")
    limit(int(seconds), int(megabytes))
    sys.addaudithook(refuse)
    runpy.run_path(file, run_name="program")
    end.write(token)
    end.flush()


if __name__ == "__main__":
    main()
