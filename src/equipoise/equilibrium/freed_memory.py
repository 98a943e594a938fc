"""Keeping the memory that a solve frees, so that the next one does not fault it in again."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""The numbers of these parameters in malloc.h."""
KEPT_BYTES = 2**31 - 1
LARGEST_KEPT_BLOCK = 2**30
USERS_OWN = (
    "EQUIPOISE_MALLOC",
    "GLIBC_TUNABLES",
    "LD_PRELOAD",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
)
"""Any of these in the environment is somebody's choice, and the allocator is left alone."""


@cache
def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for the next allocation; done once per process.

    glibc returns large blocks to the system and later allocates them again, at one page fault per 4
    KiB: in a step of an equilibrium network on a CPU, that can take longer than the algebra of the
    solver. The price: the process does not shrink below its peak. Blocks above 1 GiB are still
    returned. Returns whether it was done: on Linux with glibc, unless the environment configures an
    allocator (`USERS_OWN`) or EQUIPOISE_MALLOC=default.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    if any(os.environ.get(name) for name in USERS_OWN):
        return False
    library = ctypes.CDLL(None)
    # Both: setting one ends the adaptation of the other, which would stay at 128 KiB.
    kept = library.mallopt(MMAP_THRESHOLD, LARGEST_KEPT_BLOCK)
    return bool(kept and library.mallopt(TRIM_THRESHOLD, KEPT_BYTES))
