"""What a program method is: a function on tensors, and the signature that the harness reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TensorSpec:
    """One input or output, as in ``manifest.json``.

    Attributes:
        name: for people.
        dtype: ``float32``, ``int32`` or ``int64``.
        shape: static.
        role: what the harness binds by (docs/formats.md sections 2 and 3).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    role: str


@dataclass(frozen=True)
class Method:
    """One method of a program, before lowering.

    Attributes:
        function: takes the inputs and returns the outputs, as tensors, in the order of the specs.
        inputs: of the function.
        outputs: of the function.
        xnnpack: whether XNNPACK computes what it can of it.
    """

    function: Callable[..., tuple[Tensor, ...]]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    xnnpack: bool = False

    def examples(self) -> tuple[Tensor, ...]:
        """Make inputs of the right shapes, for tracing; their values do not matter."""
        import torch

        dtypes = {"float32": torch.float32, "int32": torch.int32}
        return tuple(torch.zeros(spec.shape, dtype=dtypes[spec.dtype]) for spec in self.inputs)
