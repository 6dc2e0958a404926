"""Looking into a .pte: what it is, its methods, operators, delegates and planned memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from export.quiet import quiet
from sparserec.errors import SparseRecError

_DTYPES = {"FLOAT": "float32", "INT": "int32", "LONG": "int64"}


@dataclass(frozen=True)
class Plan:
    """One method as it is in the file.

    Attributes:
        inputs, outputs: (dtype, shape) of each tensor.
        operators: names with overloads, as kernels are registered: ``aten::mul.out``.
        backends: ids of the backends that the method's delegates need.
        planned_arena_bytes: memory planned for intermediate results and outputs.
        delegates: parts of the graph that backends compute.
    """

    inputs: list[tuple[str, tuple[int, ...]]]
    outputs: list[tuple[str, tuple[int, ...]]]
    operators: list[str]
    backends: list[str]
    planned_arena_bytes: int
    delegates: int


def check_magic(data: bytes, path: Path) -> str:
    """Return the schema identifier of an ExecuTorch program, such as ``ET12``.

    Raises:
        SparseRecError: if ``data`` is something else; ``path`` names it.
    """
    identifier = data[4:8]
    if identifier[:2] == b"FT":
        raise SparseRecError(
            f"{path}: this is a .ptd, ExecuTorch tensor data, not a .pte program",
            "name the .pte beside it",
        )
    if identifier[:2] != b"ET" or not identifier[2:].isdigit():
        raise SparseRecError(f"{path}: not an ExecuTorch program", "export the bundle again")
    return identifier.decode()


def describe(data: bytes, path: Path) -> dict[str, Plan]:
    """Read the methods of a program.

    Raises:
        SparseRecError: if ``data`` is not an ExecuTorch program; ``path`` names it.
    """
    check_magic(data, path)
    with quiet():
        from executorch.exir._serialize import _deserialize_pte_binary

    try:
        program = _deserialize_pte_binary(data).program
    except Exception as error:  # a flatbuffer that is cut or flipped fails in many ways
        raise SparseRecError(
            f"{path}: damaged ExecuTorch program ({type(error).__name__})",
            "export the bundle again",
        ) from error
    return {plan.name: _describe(plan) for plan in program.execution_plan}


def _describe(plan: object) -> Plan:
    from executorch.exir.schema import ExecutionPlan, Tensor

    assert isinstance(plan, ExecutionPlan)

    def tensors(indices: list[int]) -> list[tuple[str, tuple[int, ...]]]:
        values = [plan.values[k].val for k in indices]
        return [
            (_DTYPES.get(value.scalar_type.name, value.scalar_type.name), tuple(value.sizes))
            for value in values
            if isinstance(value, Tensor)
        ]

    return Plan(
        inputs=tensors(plan.inputs),
        outputs=tensors(plan.outputs),
        operators=sorted(
            f"{op.name}.{op.overload}" if op.overload else op.name for op in plan.operators
        ),
        backends=sorted({delegate.id for delegate in plan.delegates}),
        planned_arena_bytes=sum(plan.non_const_buffer_sizes),
        delegates=len(plan.delegates),
    )
