"""Keeping freed memory in the process, so that a step does not ask the kernel for it anew."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""From glibc's malloc.h (mallopt(3))."""


def keep_freed_memory() -> bool:
    """Have glibc reuse large blocks instead of mapping each from the kernel and giving it back.

    A step's large arrays (a batch's scores: 16,384 x 512 floats are 34 MB) are allocated and freed
    again and again; mapped anew each time, their page faults took about a third of a step of MF
    with sampled softmax. The process keeps its peak as long as it lives.

    Returns:
        Whether the allocator took it: False where it is not glibc's.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_M_MMAP_MAX, 0) and libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
