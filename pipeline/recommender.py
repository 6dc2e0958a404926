"""A trained model: its table, its dense parameters, its graph, and the scores they give."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pipeline.graph import ColumnBlocks, Graph
from pipeline.models import MODELS, ModelName
from pipeline.neighbourhood import Chunks
from pipeline.table import F32, I64, PackedTable
from pipeline.threads import one_thread

SCORES_AT_A_TIME = 1 << 24
"""Memory is flat in the number of users: at most this many float32 numbers of scores at a time."""


@dataclass(frozen=True)
class Recommender:
    """What scores users and items.

    Attributes:
        table: trained.
        model: the base recommender it was trained for.
        dense: that model's dense parameters.
        graph: of the training interactions, for models that need one.
        chunks: in place of a graph: sampled neighbourhoods, as a device has them.
    """

    table: PackedTable
    model: ModelName = "mf"
    dense: dict[str, F32] = field(default_factory=dict)
    graph: Graph | None = None
    chunks: Chunks | None = None

    @cached_property
    def _dense(self) -> dict[str, Tensor]:
        return {name: torch.from_numpy(values) for name, values in self.dense.items()}

    @cached_property
    def _propagated(self) -> Tensor | None:
        """Give all vectors (N, w') of a model with a graph; rows are unpacked as needed else."""
        model, num_rows = MODELS[self.model], self.table.num_rows
        with torch.no_grad():
            if self.chunks is not None:
                parts = [self._chunk(self.chunks, k) for k in range(self.chunks.count)]
                return torch.cat(parts)[:num_rows]
            if self.graph is None:
                return None
            if model.GRAPH == "linear":
                blocks = ColumnBlocks(self.table)
                found = blocks.propagate(model, self.graph, np.arange(num_rows))
                return torch.from_numpy(found)
            rows = torch.from_numpy(self.table.dense(0, num_rows))
            return model.propagate(rows, self.graph.aggregate, self._dense)

    def _chunk(self, chunks: Chunks, chunk: int) -> Tensor:
        tile = chunks.tile(chunk)
        values, _, _ = self.table.gather(np.maximum(tile.rows, 0))
        rows = torch.from_numpy(values)
        vectors = MODELS[self.model].propagate(rows, tile.lists().aggregate, self._dense)
        return vectors[: chunks.size]

    def vectors(self, rows: I64) -> Tensor:
        """Give what scores are made from, for rows (R,): float32 (R, w')."""
        if self._propagated is not None:
            return self._propagated[torch.from_numpy(rows)]
        return torch.from_numpy(self.table.gather(rows)[0])

    def items(self, count: int) -> Tensor:
        """Give the vectors of items [0, count): float32 (count, w')."""
        return self.vectors(self.table.num_users + np.arange(count))

    def scores(self, users: I64, items: Tensor) -> Tensor:
        """Score users (A,) with item vectors (C, w'): float32 (A, C)."""
        model, vectors = MODELS[self.model], self.vectors(users)
        with torch.no_grad():
            if hasattr(model, "catalogue_scores"):
                with one_thread():
                    found: Tensor = model.catalogue_scores(vectors, items, self._dense)
                return found
            return model.scores(vectors[None], items[None], self._dense).squeeze(0)

    def users_at_a_time(self, items: int) -> int:
        """Give how many users ``scores`` may take at once, so that memory stays flat."""
        model = MODELS[self.model]
        floats = 1 if hasattr(model, "catalogue_scores") else model.PAIR_FLOATS
        return max(1, min(256, SCORES_AT_A_TIME // (items * floats)))
