"""Memory that a training frees is kept for its next step, and given back in the end."""

import json
import subprocess
import sys

import pytest

MEASURED = """
import json, resource
from pathlib import Path
import torch
from endwise import heap

BLOCK = 2**24  # numbers of 4 bytes: 64 MB, above what glibc keeps on its own
PAGES = 4 * BLOCK / resource.getpagesize()

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) / PAGES

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(BLOCK)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / PAGES / times

found = {"outside": faults(10), "before": resident()}
with heap.kept():
    faults(20)
    found |= {"inside": faults(20), "kept": resident()}
    heap.trim()
    found["trimmed"] = resident()
    faults(20)
found["after"] = resident()
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc's heap")
def test_a_block_that_was_freed_is_kept_inside_and_given_back_after() -> None:
    """In a process of its own, whose heap holds nothing else; in blocks."""
    done = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["kept"] - found["before"] > 0.8
    assert found["inside"] < 0.3 * max(found["outside"], 0.8)  # of its pages are handed out anew at each use
    assert found["trimmed"] - found["before"] < 0.5
    assert found["after"] - found["before"] < 0.5
