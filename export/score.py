"""Scoring and top-K, ``score.pte``: docs/formats.md section 3."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from export.dense import DenseSpec, split
from export.methods import Method, TensorSpec
from export.step import LAYERED, list_specs
from pipeline.aggregate import Lists
from pipeline.models import MODELS, ModelName
from pipeline.top import best

TOP_K = 20
MAX_CHUNK = 8192
"""Items scored in one call: at d = 64 their rows take 2 MB."""
PRODUCTS: tuple[ModelName, ...] = ("mf",)
"""Models whose score is the inner product of two rows of the table. A harness finds the items with
the largest products in the packed table, and the program ranks those."""
CANDIDATES = 4 * TOP_K
"""Items that the program ranks for a user of such a model."""
PAIR_BUDGET = 1 << 19
"""Float32 numbers that a model may hold for the pairs of one call: 2 MB."""


def score_methods(
    chunk: int, width: int, model: ModelName = "mf", dense: tuple[DenseSpec, ...] = ()
) -> dict[str, Method]:
    """Describe the method ``score``.

    Args:
        chunk: C, items scored in one call, at least ``TOP_K``.
        width: w, of what scores are made from: the table's d, or a vector's.
        model: the base recommender.
        dense: its dense parameters, if ``scores`` looks at them.
    """

    def score(user: Tensor, items: Tensor, penalty: Tensor, *flat: Tensor) -> tuple[Tensor, Tensor]:
        if flat:
            values = MODELS[model].scores(user, items, split(flat[0], dense)).squeeze(1)
        else:
            # Scores are inner products here, so users and items may change places. This way round
            # what is transposed is one row; the other way it is the catalogue, at each call.
            values = MODELS[model].scores(items, user, {}).squeeze(2)  # (1, C)
        return best(values + penalty, TOP_K)

    inputs = [
        TensorSpec("user", "float32", (1, 1, width), "user"),
        TensorSpec("items", "float32", (1, chunk, width), "items"),
        TensorSpec("penalty", "float32", (1, chunk), "penalty"),
    ]
    if dense:
        inputs.append(_dense_spec(dense))
    outputs = (
        TensorSpec("values", "float32", (1, TOP_K), "values"),
        TensorSpec("indices", "int64", (1, TOP_K), "indices"),
    )
    return {"score": Method(score, tuple(inputs), outputs, xnnpack=bool(dense))}


def vector_methods(
    model: ModelName, dim: int, rows: int, slots: int, fanout: int, dense: tuple[DenseSpec, ...]
) -> dict[str, Method]:
    """Describe the method ``vectors`` of a model with a graph.

    Args:
        model: the base recommender.
        dim: d.
        rows: C, whose vectors are made; they are the first slots.
        slots: T.
        fanout: F.
        dense: the model's dense parameters.
    """

    def vectors(tile: Tensor, neighbours: Tensor, weights: Tensor, *flat: Tensor) -> tuple[Tensor]:
        lists = Lists(neighbours, weights, neighbours, weights)  # nothing is differentiated
        parameters = split(flat[0], dense) if flat else {}
        return (MODELS[model].propagate(tile, lists.aggregate, parameters, size=rows),)

    tile = TensorSpec("rows", "float32", (slots, dim), "tile")
    inputs = [tile, *list_specs(slots, fanout, readers=False)]
    if dense:
        inputs.append(_dense_spec(dense))
    width = vector_width(model, dim, dense)
    outputs = (TensorSpec("vectors", "float32", (rows, width), "vectors"),)
    layered = model in LAYERED
    return {"vectors": Method(vectors, tuple(inputs), outputs, xnnpack=layered)}


def vector_width(model: ModelName, dim: int, dense: tuple[DenseSpec, ...]) -> int:
    """Give w: how wide the vectors are that the model makes of rows (N, d)."""
    parameters = {spec.name: torch.zeros(spec.shape) for spec in dense}
    return MODELS[model].propagate(torch.zeros(1, dim), lambda rows: rows, parameters).shape[1]


def score_chunk(items: int, model: ModelName = "mf") -> int:
    """Choose C: a user's candidates, or else the catalogue in as few equal chunks as possible."""
    if model in PRODUCTS:
        return max(TOP_K, min(CANDIDATES, items))
    most = min(MAX_CHUNK, PAIR_BUDGET // MODELS[model].PAIR_FLOATS)
    return max(TOP_K, math.ceil(items / math.ceil(items / most)))


def _dense_spec(dense: tuple[DenseSpec, ...]) -> TensorSpec:
    return TensorSpec("dense", "float32", (sum(spec.size for spec in dense),), "dense")
