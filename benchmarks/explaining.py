"""What explanations cost and whether they hold: `python -m benchmarks.explaining RUN... [--rows 20]`.

For each run: rows drawn from its test rows (validation rows where it has none), read beforehand; the seconds of an explanation
without its grades and with them, and the processor's seconds of both on all cores together, which say more on a busy machine, as
medians; the share that is reliable, with Wilson's 95 % interval; which method the checks chose, and how many of its explanations
are reliable; which checks failed; and the median of what each check measured. One row after the other, as a person asks.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from endwise.data.dataset import prepare
from endwise.explain import asked, numbered
from endwise.explanation import Explanation, explained
from endwise.run import Run


def measured(run: Run, rows: int, seed: int) -> dict[str, Any]:
    """The facts of one run."""
    model, dataset = run.model(), prepare(run.recipe)
    model.run = run
    held = dataset.splits.test if len(dataset.splits.test) else dataset.splits.val
    chosen = np.random.default_rng(seed).permutation(np.asarray(held))[:rows].tolist()
    output, which = asked(model, None)
    took: dict[bool, list[tuple[float, float]]] = {False: [], True: []}  # seconds, and the processor's
    whole: list[Explanation] = []
    for row in [chosen[0], *chosen]:  # the first one twice: it warms up
        found = numbered(dataset, model, int(row))
        for grade in took:
            began, used = time.perf_counter(), time.process_time()
            item = explained(model, found, output=output, which=which, grade=grade)
            took[grade].append((time.perf_counter() - began, time.process_time() - used))
            whole += [item] if grade else []
    plain, graded = (np.median(took[grade][1:], axis=0).tolist() for grade in took)
    held_up = Counter(item.method for item in whole[1:] if item.reliable)
    failed = Counter(grade.name for item in whole[1:] for grade in item.grades if grade.kept is False)
    kept = held_up.total()
    names = [grade.name for grade in whole[1].grades]
    values = {
        name: [
            grade.value for item in whole[1:] for grade in item.grades if grade.name == name and grade.value is not None
        ]
        for name in names
    }
    return {
        "run": run.name, "parameters": model.parameters, "rows": len(chosen), "plain_s": plain[0], "graded_s": graded[0],
        "plain_processor_s": plain[1], "graded_processor_s": graded[1], "reliable": kept / len(chosen),
        "interval": wilson(kept, len(chosen)), "methods": {name: (held_up[name], n) for name, n in Counter(item.method for item in whole[1:]).items()},
        "failed": dict(failed), "cannot_be_graded": sum(item.reliable is None for item in whole[1:]),
        "medians": {name: float(np.median(found)) for name, found in values.items() if found},
    }  # fmt: skip


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's (1927) 95 % interval of a share."""
    z, share = 1.96, hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * ((share * (1 - share) + z * z / (4 * n)) / n) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def main(arguments: Sequence[str] | None = None) -> None:
    """One JSON line a run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.explaining", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    for run in given.runs:
        print(json.dumps(measured(Run.open(run), given.rows, given.seed)), flush=True)


if __name__ == "__main__":
    main()
