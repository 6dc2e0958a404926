"""What the sparse step is held against on a device: a dense table, trained in two usual ways.

Both learn from the very batches that SparseRec's step learns from, with the same loss and plain
SGD, so on a table whose every entry is active all three have the same losses. docs/formats.md
section 1.8 says what a bundle with these programs has, docs/sparse-vs-dense.md what is measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from export.build import Program
from export.lower import lower
from export.manifest import MethodInfo, ProgramInfo
from export.methods import Method, TensorSpec
from export.program import describe
from export.quiet import quiet
from export.rewrite import rewrite
from export.step import tile_loss
from export.verify import MAX_ABS_ERROR, load
from pipeline.losses import SLOTS_PER_EXAMPLE
from sparserec.errors import SparseRecError

CHECKED_STEPS = 3


def forward_program(batch_size: int, dim: int, l2: float) -> Program:
    """The loss of a tile, without its backward: ``forward.pte``, method ``forward``."""

    def forward(rows: Tensor, mask: Tensor, weight: Tensor) -> tuple[Tensor]:
        return (tile_loss(rows * mask, weight, l2),)

    tile = (SLOTS_PER_EXAMPLE * batch_size, dim)
    method = Method(
        forward,
        inputs=(
            TensorSpec("rows", "float32", tile, "tile"),
            TensorSpec("mask", "float32", tile, "mask"),
            TensorSpec("weight", "float32", (batch_size,), "weight"),
        ),
        outputs=(TensorSpec("loss", "float32", (), "loss"),),
    )
    pte = lower({"forward": method})
    return Program(pte, _info("forward.pte", "forward", pte, method.inputs, method.outputs), {})


class DenseMF(nn.Module):
    """MF on a dense table (N, d), as a user of PyTorch writes it: rows int64 (3B,) to the loss."""

    def __init__(self, table: Tensor, l2: float) -> None:
        super().__init__()
        self.table = nn.Parameter(table)
        self.l2 = l2

    def forward(self, rows: Tensor) -> Tensor:
        return tile_loss(self.table[rows], torch.ones(len(rows) // 3), self.l2)


class _Traced(nn.Module):
    """A traced function of (table, rows); what it returns second becomes the table."""

    def __init__(self, graph: torch.fx.GraphModule, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table)
        self.graph = graph

    def forward(self, rows: Tensor) -> Tensor:
        loss, *updated = self.graph(self.table, rows)
        if updated:
            self.table.copy_(updated[0])  # type: ignore[operator]
        return loss  # type: ignore[no-any-return]


def forward_pte(table: Tensor, batch_size: int, l2: float) -> bytes:
    """The loss of rows of a dense table (N, d), which is a constant: method ``dense_forward``."""

    def loss(table: Tensor, rows: Tensor) -> tuple[Tensor]:
        return (tile_loss(table[rows], torch.ones(batch_size), l2),)

    return _lowered("dense_forward", loss, table, batch_size)


def step_pte(table: Tensor, batch_size: int, l2: float, learning_rate: float) -> bytes:
    """A step as PyTorch does it, in one ordinary program: method ``dense_step``.

    Forward, a gradient for the whole table (N, d), and SGD over all of it. The table is a mutable
    buffer, which the program begins with and keeps between calls.
    """

    def step(table: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        def of(table: Tensor) -> Tensor:
            return tile_loss(table[rows], torch.ones(batch_size), l2)

        gradient, loss = torch.func.grad_and_value(of)(table)
        return loss, torch.sub(table, gradient, alpha=learning_rate)

    return _lowered("dense_step", step, table, batch_size)


def training_pte(table: Tensor, batch_size: int, l2: float) -> bytes:
    """``DenseMF`` for ExecuTorch's TrainingModule."""
    return joint_pte(DenseMF(table, l2), batch_size)


def joint_pte(model: nn.Module, batch_size: int) -> bytes:
    """A model's forward and backward for ExecuTorch's TrainingModule, as its own examples export.

    Method ``training`` takes rows int64 (3B,) and returns the loss, the parameters' gradients and
    the parameters; the optimizer is the TrainingModule's SGD and not in the program.
    """
    with quiet():
        from executorch.exir import EdgeCompileConfig, to_edge
        from torch.export.experimental import _export_forward_backward

        exported = torch.export.export(model, (_rows(batch_size),), strict=True)
        joint = _export_forward_backward(exported)
        edge = to_edge(
            {"training": joint}, compile_config=EdgeCompileConfig(_check_ir_validity=False)
        )
        return bytes(edge.to_executorch().buffer)


def dense_programs(
    table: Tensor, batch_size: int, l2: float, learning_rate: float
) -> dict[str, Program]:
    """The three programs of a dense table (N, d), by their names in the manifest.

    Raises:
        SparseRecError: one of those that Python can run differs from PyTorch.
    """
    rows = (TensorSpec("rows", "int64", (SLOTS_PER_EXAMPLE * batch_size,), "rows"),)
    loss = TensorSpec("loss", "float32", (), "loss")
    shape = tuple(table.shape)
    joint = (
        loss,
        TensorSpec("grads", "float32", shape, "gradient"),
        TensorSpec("table", "float32", shape, "table"),
    )
    found = {}
    for name, pte, outputs in (
        ("dense_forward", forward_pte(table, batch_size, l2), (loss,)),
        ("dense_step", step_pte(table, batch_size, l2, learning_rate), (loss,)),
        ("training", training_pte(table, batch_size, l2), joint),
    ):
        info = _info(f"{name}.pte", name, pte, rows, outputs)
        found[name] = Program(pte, info, {})
    for name, rate in (("dense_forward", 0.0), ("dense_step", learning_rate)):
        _check(name, found[name].pte, table, batch_size, l2, rate)
    return found


def _rows(batch_size: int) -> Tensor:
    return torch.arange(SLOTS_PER_EXAMPLE * batch_size) % SLOTS_PER_EXAMPLE


def _lowered(name: str, function: Any, table: Tensor, batch_size: int) -> bytes:
    with quiet():
        from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge
        from executorch.exir.passes import MemoryPlanningPass
        from executorch.exir.passes.init_mutable_pass import InitializedMutableBufferPass
        from torch.fx.experimental.proxy_tensor import make_fx

        rows = _rows(batch_size)
        graph = rewrite(make_fx(function, tracing_mode="fake")(table, rows))
        exported = torch.export.export(_Traced(graph, table.clone()), (rows,))
        edge = to_edge({name: exported}, compile_config=EdgeCompileConfig(_check_ir_validity=False))
        program = edge.to_executorch(
            ExecutorchBackendConfig(
                memory_planning_pass=MemoryPlanningPass(alloc_graph_input=False),
                # Otherwise a mutable buffer begins with whatever is in memory.
                passes=[InitializedMutableBufferPass(["table"])],
            )
        )
        return bytes(program.buffer)


def _info(
    file: str,
    method: str,
    pte: bytes,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
) -> ProgramInfo:
    plan = describe(pte, Path(file))[method]
    for specs, planned in ((inputs, plan.inputs), (outputs, plan.outputs)):
        if planned != [(spec.dtype, spec.shape) for spec in specs]:
            raise RuntimeError(f"{file}: {method} has {planned} where {specs} were declared")
    described = MethodInfo(
        inputs,
        outputs,
        tuple(plan.operators),
        tuple(plan.backends),
        plan.planned_arena_bytes,
        plan.delegates,
    )
    return ProgramInfo(file, {method: described})


def _check(
    name: str, pte: bytes, table: Tensor, batch_size: int, l2: float, learning_rate: float
) -> None:
    """Run a program for a few steps beside autograd and ``torch.optim.SGD``."""
    model = DenseMF(table.clone(), l2)
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    with quiet():
        method = load(pte).program.load_method(name)
    draws = torch.Generator().manual_seed(1)
    for _ in range(CHECKED_STEPS):
        rows = torch.randint(len(table), (SLOTS_PER_EXAMPLE * batch_size,), generator=draws)
        loss = model(rows)
        error = abs(float(method.execute([rows])[0]) - loss.item())
        if not error <= MAX_ABS_ERROR:
            raise SparseRecError(
                f"{name}: the exported program differs from PyTorch by {error:.2g}",
                "report this with the versions of torch and executorch",
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
