"""Small random graphs, tables and trainers for the tests of models and gradients."""

from __future__ import annotations

import numpy as np
import torch

from pipeline.data.split import Pairs
from pipeline.exchange import Schedule
from pipeline.graph import Graph
from pipeline.models import MODELS
from pipeline.sampling import TripleSampler
from pipeline.table import PackedTable
from pipeline.train import StepConfig, Trainer

USERS, ITEMS, DIM = 23, 31, 40
"""More columns than one block, and not a multiple of a block."""


def interactions(seed: int, count: int = 220) -> Pairs:
    rng = np.random.default_rng(seed)
    keys = rng.choice(USERS * ITEMS, count, replace=False)
    return Pairs((keys // ITEMS).astype(np.int32), (keys % ITEMS).astype(np.int32), None)


def dense_adjacency(pairs: Pairs) -> torch.Tensor:
    """D^-1/2 A D^-1/2, written out: isolated rows are zero."""
    size = USERS + ITEMS
    matrix = torch.zeros(size, size)
    for user, item in zip(pairs.users.tolist(), pairs.items.tolist(), strict=True):
        matrix[user, USERS + item] = matrix[USERS + item, user] = 1.0
    root = matrix.sum(1).clamp(min=1).rsqrt()
    return root[:, None] * matrix * root[None, :]


def trainer(
    seed: int, config: StepConfig, schedule: Schedule | None = None
) -> tuple[Trainer, np.ndarray, torch.Tensor]:
    """Make a trainer, the mask of its table and the adjacency of its log."""
    rng = np.random.default_rng(seed)
    log = interactions(seed)
    mask = rng.random((USERS + ITEMS, DIM)) < 0.4
    mask[:, :2] = True
    values = rng.normal(size=mask.shape).astype(np.float32)
    table = PackedTable.from_dense(values, mask, USERS)
    model = MODELS[config.model]
    graph = None if model.GRAPH == "none" else Graph.of(log, USERS, ITEMS)
    sampler = TripleSampler.of(log, None, ITEMS, ITEMS, seed)
    made = Trainer(table, sampler, config, schedule, graph, model.initial(DIM, seed))
    return made, mask, dense_adjacency(log)
