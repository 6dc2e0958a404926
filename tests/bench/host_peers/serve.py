"""A side of the comparison: does as many steps as each line of its input says, and times them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable


def serve(run_step: Callable[[], object]) -> None:
    """Print ``READY``; then, for each number read, a line ``STEPS`` with [wall, CPU] seconds each.

    ``run_step`` draws its batch itself, so that sampling is part of what is timed.
    """
    print("READY", flush=True)
    for line in sys.stdin:
        taken = []
        for _ in range(int(line)):
            start, cpu_start = time.perf_counter(), time.process_time()
            run_step()
            taken.append((time.perf_counter() - start, time.process_time() - cpu_start))
        print("STEPS", json.dumps(taken), flush=True)
