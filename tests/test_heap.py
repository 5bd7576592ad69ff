"""Memory that a training frees is kept for its next step, and given back in the end."""

import resource
import sys
from pathlib import Path

import pytest
import torch

from endwise import heap

BLOCK = 2**24  # numbers of 4 bytes: 64 MB, above what glibc keeps on its own
BYTES = 4 * BLOCK


def resident() -> int:
    """Bytes of memory that the process has from the system."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc's heap")
def test_a_block_that_was_freed_is_kept_inside_and_given_back_after() -> None:
    before = resident()
    with heap.kept():
        for _ in range(8):
            torch.ones(BLOCK)
        kept = resident()
        for _ in range(10):
            torch.ones(BLOCK)
        assert kept - before > 0.8 * BYTES
        assert resident() - kept < 0.2 * BYTES  # they take the places of earlier ones
    assert resident() - before < 0.2 * BYTES
    torch.ones(BLOCK)
    assert resident() - before < 0.2 * BYTES
