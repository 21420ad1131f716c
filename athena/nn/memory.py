"""The C library's allocator, set up for training on a processor."""

from __future__ import annotations

import ctypes

# Names and numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_KEPT = 2**30
_KEPT_IN_ALL = 2**31 - 1


def keep_freed_memory() -> None:
    """Has the process keep what it frees, for its next buffers. For glibc; elsewhere nothing is done.

    By default glibc maps each large buffer anew and returns it to the system at once, and every page of it costs a
    fault the next time: up to half of a training step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_IN_ALL)
