"""Execute a program on random inputs and compare it with PyTorch, before anyone else runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from export.methods import Method, TensorSpec
from export.quiet import quiet
from export.step import tile_loss
from sparserec.errors import SparseRecError

MAX_ABS_ERROR = 1e-5
DRAWS = 4

Outputs = tuple[Tensor, ...]
Reference = Callable[..., Outputs]
"""Eager PyTorch that computes what a method should, by another way."""


@dataclass(frozen=True)
class Executable:
    """A loaded program."""

    program: Any

    def __call__(self, method: str, *inputs: Tensor) -> Outputs:
        """Execute a method. Returns copies: the runtime's outputs live in its arena."""
        with quiet():
            outputs = self.program.load_method(method).execute(inputs)
        return tuple(output.clone() for output in outputs)


def load(pte: bytes) -> Executable:
    """Load a program into ExecuTorch's runtime for Python."""
    with quiet():
        from executorch.runtime import Runtime

        return Executable(Runtime.get().load_program(pte))


def step_references(l2: float) -> dict[str, Reference]:
    """Eager counterparts of ``step.pte``: autograd, with neither make_fx nor torch.func."""

    def gradients(rows: Tensor, mask: Tensor, sampled: Tensor, weight: Tensor) -> Outputs:
        tile = torch.where(mask > 0, rows, 0).requires_grad_()
        loss = tile_loss(tile, weight, l2)
        loss.backward()  # type: ignore[no-untyped-call]
        assert tile.grad is not None
        keep = (mask > 0) | (sampled > 0)
        return loss.detach(), torch.where(keep, tile.grad, 0)

    def update(vals: Tensor, grads: Tensor, lr: Tensor) -> Outputs:
        updated = vals.clone().requires_grad_()
        updated.grad = grads.clone()
        torch.optim.SGD([updated], lr=float(lr)).step()
        return (updated.detach(),)

    return {"gradients": gradients, "update": update}


def score_references() -> dict[str, Reference]:
    """Eager counterpart of ``score.pte``: a full sort."""

    def score(user: Tensor, items: Tensor, penalty: Tensor) -> Outputs:
        values = items[0] @ user[0, 0] + penalty[0]
        ranked = torch.sort(values, descending=True, stable=True)
        return ranked.values[None], ranked.indices[None]

    return {"score": score}


def compare(
    pte: bytes, methods: Mapping[str, Method], references: Mapping[str, Reference], seed: int = 1
) -> dict[str, float]:
    """Execute every method ``DRAWS`` times on random inputs.

    Returns:
        The maximal absolute error of each method.

    Raises:
        SparseRecError: if one is over ``MAX_ABS_ERROR``, or an output has the wrong shape.
    """
    run = load(pte)
    generator = torch.Generator().manual_seed(seed)
    errors = dict.fromkeys(methods, 0.0)
    for name, method in methods.items():
        for _ in range(DRAWS):
            inputs = tuple(_random(spec, generator) for spec in method.inputs)
            outputs = run(name, *inputs)
            for spec, output in zip(method.outputs, outputs, strict=True):
                if tuple(output.shape) != spec.shape:
                    raise SparseRecError(
                        f"{name}: output {spec.name} has shape {tuple(output.shape)},"
                        f" not {spec.shape}"
                    )
            expected = references[name](*inputs)
            errors[name] = max(errors[name], _error(method, outputs, expected))
    for name, error in errors.items():
        if not error <= MAX_ABS_ERROR:  # so that NaN fails
            raise SparseRecError(
                f"{name}: the exported program differs from PyTorch by {error:.2g},"
                f" more than {MAX_ABS_ERROR:g}; nothing was written",
                "report this with the versions of torch and executorch",
            )
    return errors


def _error(method: Method, outputs: Outputs, expected: Outputs) -> float:
    """Maximal absolute difference; a top list's indices are judged by the values they point to."""
    error = 0.0
    for spec, output, wanted in zip(method.outputs, outputs, expected, strict=True):
        if spec.role == "indices":
            values, order = expected
            at = torch.empty_like(values).scatter_(1, order, values)  # values in item order
            output, wanted = at.gather(1, output), values  # noqa: PLW2901
        wanted = wanted[tuple(slice(size) for size in output.shape)]  # noqa: PLW2901
        error = max(error, float((output - wanted).abs().max()))
    return error


def _random(spec: TensorSpec, generator: torch.Generator) -> Tensor:
    uniform = torch.rand(spec.shape, generator=generator)
    if spec.role in {"mask", "sampled"}:
        return (uniform < 0.3).float()
    if spec.role == "weight":  # padding comes last, and one triple is always real
        real = 1 + int(torch.randint(spec.shape[0], (), generator=generator))
        return (torch.arange(spec.shape[0]) < real).float()
    if spec.role == "learning_rate":
        return uniform
    if spec.role == "penalty":  # never so many that the top list runs out of items
        hidden = torch.randperm(spec.shape[1], generator=generator)[: (spec.shape[1] - 20) // 2]
        return torch.zeros(spec.shape).index_fill_(1, hidden, -torch.inf)
    return 0.5 * torch.randn(spec.shape, generator=generator)
