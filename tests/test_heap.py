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

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / (4 * BLOCK)

torch.ones(BLOCK)
found = [resident()]
with heap.kept():
    for _ in range(8):
        torch.ones(BLOCK)
    found.append(resident())
    for _ in range(10):
        torch.ones(BLOCK)
    found.append(resident())
found.append(resident())
torch.ones(BLOCK)
found.append(resident())
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc's heap")
def test_a_block_that_was_freed_is_kept_inside_and_given_back_after() -> None:
    """In a process of its own, whose heap holds nothing else; resident memory in blocks."""
    done = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True)
    before, kept, again, after, used = json.loads(done.stdout)
    assert kept - before > 0.8
    assert again - kept < 0.2  # later blocks take the places of earlier ones
    assert after - before < 0.2
    assert used - before < 0.2
