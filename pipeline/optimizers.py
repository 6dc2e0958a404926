"""Optimizers on packed entries: state is as sparse as the table, and only touched entries move."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pipeline.table import F32, I64

OptimizerName = Literal["sgd", "adam"]
STATE: dict[OptimizerName, tuple[str, ...]] = {"sgd": (), "adam": ("adam_m", "adam_v")}

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


def update(
    name: OptimizerName,
    vals: F32,
    grads: F32,
    index: I64 | None,
    state: dict[str, F32],
    learning_rate: float,
    step: int,
) -> None:
    """Move the entries at ``index`` (E,) of ``vals`` (nnz,) against ``grads`` (E,), in place.

    Without an ``index`` all entries move. Values, state and gradients may have any one shape then.

    ``adam`` is the lazy variant for embeddings (as torch.optim.SparseAdam): moments decay only
    when their entry is touched; bias correction uses the 0-based ``step`` of the whole run.
    """
    place = slice(None) if index is None else index
    if name == "sgd":
        vals[place] -= np.float32(learning_rate) * grads
        return
    m = state["adam_m"][place] * np.float32(BETA1) + np.float32(1 - BETA1) * grads
    v = state["adam_v"][place] * np.float32(BETA2) + np.float32(1 - BETA2) * grads * grads
    state["adam_m"][place] = m
    state["adam_v"][place] = v
    size = np.float32(learning_rate / (1 - BETA1 ** (step + 1)))
    root = np.sqrt(v / np.float32(1 - BETA2 ** (step + 1))) + np.float32(EPSILON)
    vals[place] -= size * m / root
