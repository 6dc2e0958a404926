"""sparserec profile on a program made here: every call of every operator is counted."""

from __future__ import annotations

from pathlib import Path

from device_bench.profile import measure
from export.lower import lower
from export.manifest import MethodInfo
from export.program import describe
from export.step import step_methods


def test_operators_of_a_step(tmp_path: Path) -> None:
    made = step_methods(4, 8, 0.1, 256)
    path = tmp_path / "step.pte"
    path.write_bytes(lower(made))
    plan, method = describe(path.read_bytes(), path)["update"], made["update"]
    info = MethodInfo(method.inputs, method.outputs, (), (), plan.planned_arena_bytes)
    found = {operator.name: operator for operator in measure(path, "update", info, 7)}
    assert {f"aten::{name}" for name in found} == set(plan.operators)
    assert {operator.calls for operator in found.values()} == {7}
    assert abs(sum(operator.share for operator in found.values()) - 1) < 1e-9
