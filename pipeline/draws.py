"""Random draws as a pure function of (seed, stream, step, index): docs/formats.md section 4.

Nothing here has a state, so a resumed run repeats an uninterrupted one, and the Kotlin harness,
which computes the same function, draws the same batches.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

POSITIVES, NEGATIVES, SAMPLED_ROWS = 0, 1, 2
"""Streams: what a draw is for."""
SHARED_NEGATIVES, RANDOM_GROWTH, ROUNDING = 3, 4, 5
"""Streams of sampled softmax; of SET's growth, which only a host knows; of int8 values."""
CHUNK_NEIGHBOURS, NEIGHBOURS = 6, 7
"""Streams of sampled neighbourhoods: of a chunk of rows to score, of a training step."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]


def _mix(z: U64) -> U64:
    """splitmix64's finaliser (Steele, Lea and Flood, OOPSLA 2014)."""
    z = (z ^ (z >> np.uint64(30))) * _MIX1
    z = (z ^ (z >> np.uint64(27))) * _MIX2
    return z ^ (z >> np.uint64(31))


def draws(seed: int, stream: int, step: int, index: I64) -> U64:
    """Draw one value for each index.

    Args:
        seed: any integer in [0, 2^63).
        stream: what the draw is for.
        step: training step, or window index for what is drawn once a window.
        index: int64, any shape, not negative.

    Returns:
        uint64, the shape of ``index``.
    """
    with np.errstate(over="ignore"):  # arithmetic is modulo 2^64 by design
        base = _mix(np.array([seed], np.uint64) + _GOLDEN * np.uint64(stream + 1))
        base = _mix(base + _GOLDEN * np.uint64(step + 1))
        return _mix(base + _GOLDEN * (index.astype(np.uint64) + np.uint64(1)))


def bounded(values: U64, n: int) -> I64:
    """Map draws to integers in [0, n), n < 2^31, by a multiply and a shift of the top 31 bits."""
    return (((values >> np.uint64(33)) * np.uint64(n)) >> np.uint64(31)).astype(np.int64)


def unit(values: U64) -> F64:
    """Map draws to float64 in [0, 1), from the top 24 bits."""
    return (values >> np.uint64(40)).astype(np.float64) * 2.0**-24
