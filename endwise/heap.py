"""Memory that one training step frees is kept for the next.

glibc gives every block above 32 MB back to the system as soon as it is freed, and the system hands out zeroed pages one
fault at a time: the feature maps of pictures and volumes then cost more than the arithmetic on them. Not here: memory of
accelerators, which torch keeps on its own.
"""

import contextlib
import ctypes
import sys
from collections.abc import Iterator

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
NEVER, LARGEST = -1, 2**30
GROWN = 2**25  # bytes to which glibc lets its own threshold grow; twice that is kept


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Inside, the process keeps what it frees in blocks of up to 1 GiB; at the end all of it goes back to the system. Does
    nothing where the C library is not glibc."""
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(MMAP_THRESHOLD, LARGEST)
    library.mallopt(TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        library.mallopt(MMAP_THRESHOLD, GROWN)
        library.mallopt(TRIM_THRESHOLD, 2 * GROWN)
        trim()


def trim() -> None:
    """What is free now goes back to the system. Aligned blocks do not always fit into the place of their likes, so that what is
    kept may grow to several times what a step needs."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "gnu_get_libc_version") else None
