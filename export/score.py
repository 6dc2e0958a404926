"""Scoring and top-K, ``score.pte``: docs/formats.md section 3."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from export.methods import Method, TensorSpec
from pipeline.models import mf

TOP_K = 20
MAX_CHUNK = 8192
"""Items scored in one call: at d = 64 their rows take 2 MB."""


def score_methods(chunk: int, dim: int) -> dict[str, Method]:
    """Describe the method of ``score.pte`` for MF.

    Args:
        chunk: C, items scored in one call, at least ``TOP_K``.
        dim: d, columns of the table.
    """

    def score(user: Tensor, items: Tensor, penalty: Tensor) -> tuple[Tensor, Tensor]:
        # The model's scores are inner products, so users and items may change places. This way
        # round what is transposed is one row; the other way it is the catalogue, at each call.
        values = mf.scores(items, user, {}).squeeze(2)  # (1, C)
        top = torch.topk(values + penalty, TOP_K)
        return top.values, top.indices

    return {
        "score": Method(
            score,
            inputs=(
                TensorSpec("user", "float32", (1, 1, dim), "user"),
                TensorSpec("items", "float32", (1, chunk, dim), "items"),
                TensorSpec("penalty", "float32", (1, chunk), "penalty"),
            ),
            outputs=(
                TensorSpec("values", "float32", (1, TOP_K), "values"),
                TensorSpec("indices", "int64", (1, TOP_K), "indices"),
            ),
        )
    }


def score_chunk(items: int) -> int:
    """Choose C: the catalogue in as few equal chunks as possible."""
    return max(TOP_K, math.ceil(items / math.ceil(items / MAX_CHUNK)))
