"""Where a series of step times stops warming up.

The harness warms up with a fixed number of calls; caches, just-in-time compilation and a rising
clock may take longer than that. All samples are kept; this finds those that may be left out.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from device_bench.records import Stable

WINDOW = 20
TOLERANCE = 0.05
IN_A_ROW = 3


def settled(samples: Sequence[float], window: int = WINDOW) -> int | None:
    """Index of the first sample of the first three windows whose medians lie within 5%.

    None where there are no such windows. A drift that comes later does not matter here.
    """
    medians = [
        statistics.median(samples[start : start + window])
        for start in range(0, len(samples) - window + 1, window)
    ]
    for first in range(len(medians) - IN_A_ROW + 1):
        some = medians[first : first + IN_A_ROW]
        if max(some) <= min(some) * (1 + TOLERANCE):
            return first * window
    return None


def stable(samples: Sequence[float], window: int = WINDOW) -> Stable:
    """Sum up the samples that come after the warm-up."""
    start = settled(samples, window)
    rest = [] if start is None else samples[start:]
    middle = statistics.median(rest) if rest else None
    return Stable(
        from_sample=start,
        window=window,
        tolerance=TOLERANCE,
        count=len(rest),
        p50_ns=middle,
        mad_ns=None if middle is None else statistics.median(abs(one - middle) for one in rest),
    )
