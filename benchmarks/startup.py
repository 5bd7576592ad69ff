"""How long the command line takes to say hello: `python -m benchmarks.startup`.

Whole processes, the median of 15 with its range, beside a bare interpreter on the same machine in turn.
Targets: `endwise --help` < 0.3 s, `import endwise` < 0.15 s.
"""

import statistics
import subprocess
import sys
import time

ROUNDS = 15
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import endwise": [sys.executable, "-c", "import endwise"],
    "endwise --help": [sys.executable, "-m", "endwise", "--help"],
}


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times[name].append(time.perf_counter() - began)
    for name, values in times.items():
        print(f"{name:<16} {statistics.median(values):.3f} s  [{min(values):.3f}, {max(values):.3f}]  n={ROUNDS}")


if __name__ == "__main__":
    main()
