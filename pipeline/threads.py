"""PyTorch's threads, where work comes in parts too small to share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread(when: bool = True) -> Iterator[None]:
    """Keep PyTorch to one thread, for parts that take less than a millisecond.

    Measured with 1,024 triples at d = 64 on 2 cores that other work kept busy: a step of 3.5 ms
    took 200 ms on two threads, which spin while they wait for each other.
    """
    threads = torch.get_num_threads()
    if when:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
