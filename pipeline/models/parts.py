"""What several models' files need."""

from __future__ import annotations

from torch import Tensor


def first(rows: Tensor, size: int | None) -> Tensor:
    """Take the first ``size`` rows (N, w), or all of them: a slice of all would be copied."""
    return rows if size is None else rows[:size]
