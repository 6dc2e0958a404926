"""The base recommenders: one small file each, one definition of the maths for all who need it.

Training, evaluation and the exported programs call the same functions. docs/models.md shows how to
add a model by writing one file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from torch import Tensor

from pipeline.models import lightgcn, mf, neumf, ngcf
from pipeline.table import F32

ModelName = Literal["mf", "neumf", "ngcf", "lightgcn"]
Aggregate = Callable[[Tensor], Tensor]
"""Sum each row's neighbours, weighted: (R, w) to (R, w). On a host a product with the normalised
adjacency; on a device a gather over neighbour lists (``pipeline.aggregate``)."""
Dense = dict[str, Tensor]
"""Parameters beside the table, by name: weights of layers. Always small and dense."""


class Model(Protocol):
    """What a file in this folder defines, as plain functions of a module.

    Attributes:
        GRAPH: ``none``: a score depends on its two rows alone. ``linear``: ``propagate`` is linear
            and self-adjoint, so its gradient is itself. ``layers``: it needs automatic
            differentiation.
        PAIR_FLOATS: float32 numbers that ``scores`` holds for each pair at its peak.
    """

    GRAPH: Literal["none", "linear", "layers"]
    PAIR_FLOATS: int

    def initial(self, dim: int, seed: int) -> dict[str, F32]:
        """Draw the dense parameters' starting values; empty where a model has none."""

    def propagate(
        self, rows: Tensor, aggregate: Aggregate, dense: Dense, recompute: bool = False
    ) -> Tensor:
        """Turn the table's rows (N, w) into the vectors (N, w') that scores are made from.

        With ``recompute`` the backward pass computes a layer again instead of keeping it.
        """

    def pair_scores(self, users: Tensor, items: Tensor, dense: Dense) -> Tensor:
        """Score users (B, w') with items (B, w'), row by row: (B,)."""

    def example_scores(self, vectors: Tensor, size: int, dense: Dense) -> tuple[Tensor, Tensor]:
        """Score ``size`` users with their positive and their negative items: (B,) each.

        ``vectors`` (3B, w') are users', positives' and negatives'.
        """

    def scores(self, users: Tensor, items: Tensor, dense: Dense) -> Tensor:
        """Score users (1, A, w') with all items (1, C, w'): (1, A, C)."""


MODELS: dict[ModelName, Model] = {
    "mf": mf,
    "neumf": neumf,
    "ngcf": ngcf,
    "lightgcn": lightgcn,
}
