"""Dense parameters as one flat tensor, so that a harness moves one buffer whatever the model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.table import F32

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DenseSpec:
    """One parameter in the flat tensor, as in ``manifest.json``.

    Attributes:
        name: as the model calls it.
        shape: its elements follow those of the parameter before it, row-major.
    """

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)


def specs(dense: Mapping[str, F32]) -> tuple[DenseSpec, ...]:
    """Describe a model's parameters, in their order."""
    return tuple(DenseSpec(name, values.shape) for name, values in dense.items())


def flatten(dense: Mapping[str, F32]) -> F32:
    """Put parameters one after the other: float32 (P,)."""
    parts = [values.ravel() for values in dense.values()]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def split(flat: Tensor, parameters: Sequence[DenseSpec]) -> dict[str, Tensor]:
    """Take parameters out of a flat tensor (P,), as views of it."""
    found: dict[str, Tensor] = {}
    start = 0
    for spec in parameters:
        found[spec.name] = flat[start : start + spec.size].view(spec.shape)
        start += spec.size
    return found
