"""Whether freed memory stays in the process, for speed, or goes back, for a low peak."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
"""From glibc's malloc.h (mallopt(3))."""


def keep_freed_memory() -> bool:
    """Have glibc reuse large blocks instead of mapping each from the kernel and giving it back.

    A step's large arrays (a batch's scores: 16,384 x 512 floats are 34 MB) are allocated and freed
    again and again; mapped anew each time, their page faults took about a third of a step of MF
    with sampled softmax. The process keeps its peak as long as it lives.

    Returns:
        Whether the allocator took it: False where it is not glibc's.
    """
    return _set({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1})


def return_freed_memory() -> bool:
    """Have glibc give blocks of a MiB or more back to the kernel when they are freed.

    By itself it learns from the blocks it sees to keep ever larger ones, in a heap whose holes are
    of no use to the next size: work on pieces of a log grew by 1.4 bytes an interaction.

    Returns:
        Whether the allocator took it: False where it is not glibc's.
    """
    return _set({_M_MMAP_THRESHOLD: 1 << 20})


def _set(options: dict[int, int]) -> bool:
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return all(libc.mallopt(option, value) for option, value in options.items())
