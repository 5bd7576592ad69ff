"""`endwise serve` with a network that sleeps in the place of computing: what is left is the queue, which can be measured on a
machine that is busy with other things. `python -m benchmarks.serving.sleeper FIXED,ROW serve ...`, milliseconds a batch and a row."""

import sys
import time
from collections.abc import Sequence
from functools import wraps
from typing import Any

from endwise.cli import main
from endwise.rows import Row
from endwise.serve.version import Version

if __name__ == "__main__":
    fixed_s, row_s = (float(part) / 1000 for part in sys.argv[1].split(","))
    load = Version.load

    @wraps(load)
    def loaded(*args: Any, **options: Any) -> Version:
        """The model as it is, but for its speed and its answers: all are that of a blank row."""
        version = load(*args, **options)
        (blank,) = version.answers([version.blank()])

        def answers(rows: Sequence[Row]) -> list[dict[str, Any]]:
            time.sleep(fixed_s + row_s * len(rows))
            return [blank] * len(rows)

        version.answers = answers
        return version

    Version.load = loaded  # type: ignore[method-assign]
    sys.argv = ["endwise", *sys.argv[2:]]
    main()
