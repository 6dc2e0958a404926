"""Devices that wait for a server's connections: first come, first served."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Served:
    """What became of transfers, in the order of the arrivals.

    Attributes:
        waited: float64 (n,), seconds before a connection was free, over all tries.
        finished: float64 (n,), when the transfer was whole.
        held: float64 (n,), seconds that it held connections, tries that broke included.
    """

    waited: F64
    finished: F64
    held: F64


def serve(
    arrivals: F64,
    seconds: F64,
    connections: int,
    breaks: I64 | None = None,
    backoff: float = 0.0,
    seed: int = 0,
) -> Served:
    """Pass transfers through so many connections, one at a time on each.

    An event for each try, in order of time: a queue with c servers (G/G/c). A try that breaks does
    so at a moment that is uniform over its length; the device comes back after ``backoff`` and
    joins the queue's end. Plain heaps: a million transfers take some seconds.

    Args:
        arrivals: float64 (n,), seconds, not negative.
        seconds: float64 (n,), that a whole transfer takes on a connection.
        connections: c, at least 1.
        breaks: int64 (n,), tries of each that break before the one that does not; None: 0.
        backoff: seconds.
        seed: of the moments at which tries break.
    """
    count = len(arrivals)
    left = np.zeros(count, np.int64) if breaks is None else breaks.copy()
    rng = np.random.default_rng(seed)
    waited, finished, held = (np.zeros(count) for _ in range(3))
    order = np.argsort(arrivals, kind="stable")
    events = list(zip(arrivals[order].tolist(), order.tolist(), strict=True))  # sorted: a heap
    free = [0.0] * min(connections, count)
    while events:
        now, device = heapq.heappop(events)
        start = max(now, free[0])
        length = float(seconds[device])
        broken = left[device] > 0
        if broken:
            length *= rng.random()
            left[device] -= 1
        end = start + length
        heapq.heapreplace(free, end)
        waited[device] += start - now
        held[device] += length
        if broken:
            heapq.heappush(events, (end + backoff, device))
        else:
            finished[device] = end
    return Served(waited, finished, held)
