"""How fast this machine can be, and what that says of a step."""

from __future__ import annotations

import torch

from tests.bench.bundles import BATCH, DIM, UPDATE_CHUNK
from tests.bench.measure import timed

FLOAT = 4
TILE_BYTES = 3 * BATCH * DIM * FLOAT


def machine() -> dict[str, float]:
    """Measure one thread: copies inside the second cache and in memory, and multiply-adds."""
    square = torch.rand(1024, 1024)
    return {
        "cache_gb_per_s": _copies(3 * BATCH * DIM, 3000),
        "memory_gb_per_s": _copies(32 << 20, 8),
        "gflop_per_s": 2 * 1024**3 / min(timed(lambda: square @ square)(8)),
    }


def _copies(floats: int, repetitions: int) -> float:
    """Give bytes read and written a nanosecond, at best."""
    source = torch.rand(floats)
    target = source.clone()
    return 2 * FLOAT * floats / min(timed(lambda: target.copy_(source))(repetitions))


def mf_step() -> dict[str, float]:
    """Count what an MF step must move and calculate, whatever the kernels are.

    Bytes: the inputs read once and the outputs written once. Operations: two inner products and
    three norms, their gradients (2 and 3 multiply-adds an entry of a row), the mask, the update.
    """
    moved = 3 * TILE_BYTES + 3 * BATCH * FLOAT + BATCH * FLOAT + 3 * UPDATE_CHUNK * FLOAT
    entries = BATCH * DIM
    forward = 2 * 2 * entries + 2 * 3 * entries
    backward = 2 * 4 * entries + 2 * 3 * entries
    masks = (1 + 3) * 3 * entries
    return {"bytes": moved, "flops": forward + backward + masks + 2 * UPDATE_CHUNK}
