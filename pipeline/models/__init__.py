"""The base recommenders: one small file each, one definition of the maths for all who need it.

Training, evaluation and the exported programs call the same functions. A model of yours is one file
more, anywhere, named by its path: docs/models.md.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from torch import Tensor

from pipeline.models import lightgcn, mf, neumf, ngcf
from pipeline.table import F32
from sparserec.errors import SparseRecError

ModelName = str
"""``mf``, ``neumf``, ``ngcf``, ``lightgcn``, or the path of a file that ends in ``.py``."""
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
        self,
        rows: Tensor,
        aggregate: Aggregate,
        dense: Dense,
        recompute: bool = False,
        size: int | None = None,
    ) -> Tensor:
        """Turn the table's rows (N, w) into the vectors (N, w') that scores are made from.

        With ``recompute`` the backward pass computes a layer again instead of keeping it. With
        ``size``, which exported programs alone give, only the first vectors are wanted, (size, w').
        """

    def pair_scores(self, users: Tensor, items: Tensor, dense: Dense) -> Tensor:
        """Score users (B, w') with items (B, w'), row by row: (B,)."""

    def example_scores(self, vectors: Tensor, size: int, dense: Dense) -> tuple[Tensor, Tensor]:
        """Score ``size`` users with their positive and their negative items: (B,) each.

        ``vectors`` (3B, w') are users', positives' and negatives'.
        """

    def example_margins(self, vectors: Tensor, size: int, dense: Dense) -> Tensor:
        """Give how much more each user's negative scores than its positive: (B,)."""

    def scores(self, users: Tensor, items: Tensor, dense: Dense) -> Tensor:
        """Score users (1, A, w') with all items (1, C, w'): (1, A, C)."""


PARTS = ("GRAPH", "PAIR_FLOATS", "initial", "propagate", "pair_scores", "scores")
"""What a model's file defines.

It may define ``example_scores`` and ``example_margins`` too, and take ``recompute``.

``catalogue_scores(users, items, dense)`` is optional too: ``scores`` of (A, w') and (C, w') without
gradients, in parts as small as suits a host, which calls it with PyTorch on one thread.
"""


class _Models(dict[ModelName, Model]):
    """The models that are here, and, once asked for, files of the user's."""

    def __missing__(self, name: ModelName) -> Model:
        self[name] = _from_file(Path(name)) if name.endswith(".py") else _unknown(name)
        return self[name]


def source_sha256(name: ModelName) -> str:
    """Give the SHA-256 of a model's file as it was loaded; empty where the model is not a file."""
    return getattr(MODELS[name], "SOURCE_SHA256", "")


def _unknown(name: ModelName) -> Model:
    raise SparseRecError(
        f"model {name!r} is unknown", "use mf, neumf, ngcf, lightgcn, or the path of a .py file"
    )


def _from_file(path: Path) -> Model:
    """Load a model of the user's own; what it lacks is named.

    Raises:
        SparseRecError: there is no such file, it cannot be imported, or a part is missing.
    """
    fix = "docs/models.md shows what a model's file defines"
    if not path.is_file():
        raise SparseRecError(f"{path}: no such file", fix)
    spec = importlib.util.spec_from_file_location(f"sparserec_model_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.SOURCE_SHA256 = hashlib.sha256(path.read_bytes()).hexdigest()  # type: ignore[attr-defined]
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise SparseRecError(f"{path}: {type(error).__name__}: {error}", fix) from error
    missing = [name for name in PARTS if not hasattr(module, name)]
    if missing:
        raise SparseRecError(f"{path}: {', '.join(missing)} missing", fix)
    if module.GRAPH not in ("none", "linear", "layers"):
        raise SparseRecError(f"{path}: GRAPH is {module.GRAPH!r}", "use none, linear or layers")
    _complete(module)
    return cast(Model, module)


def _complete(module: Any) -> None:
    """Give a model of the user's what only makes the others faster or smaller."""
    propagate, pair_scores = module.propagate, module.pair_scores
    if "recompute" not in inspect.signature(propagate).parameters:

        def keeping_layers(
            rows: Tensor, aggregate: Aggregate, dense: Dense, recompute: bool = False
        ) -> Tensor:
            return propagate(rows, aggregate, dense)  # type: ignore[no-any-return]

        module.propagate = keeping_layers
    if not hasattr(module, "example_scores"):

        def example_scores(vectors: Tensor, size: int, dense: Dense) -> tuple[Tensor, Tensor]:
            user, item, negative = vectors[:size], vectors[size : 2 * size], vectors[2 * size :]
            return pair_scores(user, item, dense), pair_scores(user, negative, dense)

        module.example_scores = example_scores
    if not hasattr(module, "example_margins"):

        def example_margins(vectors: Tensor, size: int, dense: Dense) -> Tensor:
            positive, negative = module.example_scores(vectors, size, dense)
            return negative - positive  # type: ignore[no-any-return]

        module.example_margins = example_margins


MODELS = _Models({"mf": mf, "neumf": neumf, "ngcf": ngcf, "lightgcn": lightgcn})
