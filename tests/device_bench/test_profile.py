"""sparserec profile on programs made here: every call of every operator is counted."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from device_bench.profile import measure
from export.dense_trainers import dense_programs
from export.lower import lower
from export.manifest import MethodInfo
from export.program import describe
from export.step import step_methods
from sparserec.cli import app
from sparserec.errors import SparseRecError


def test_operators_of_a_step(tmp_path: Path) -> None:
    made = step_methods(4, 8, 0.1, 256)
    path = tmp_path / "step.pte"
    path.write_bytes(lower(made))
    plan, method = describe(path.read_bytes(), path)["update"], made["update"]
    info = MethodInfo(method.inputs, method.outputs, (), (), plan.planned_arena_bytes)
    found = {operator.name: operator for operator in measure(path, "update", info, 0, 7)}
    assert {f"aten::{name}" for name in found} == set(plan.operators)
    assert {operator.calls for operator in found.values()} == {7}
    assert abs(sum(operator.share for operator in found.values()) - 1) < 1e-9


def test_programs_of_a_dense_table(tmp_path: Path) -> None:
    """They take rows of the table, not values; on a table of one row any other is outside."""
    for name, program in dense_programs(torch.zeros(1, 4), 2, 0.1, 0.5).items():
        path = tmp_path / program.info.file
        path.write_bytes(program.pte)
        for method, info in program.info.methods.items():
            assert measure(path, method, info, 1, 2), name


def profiled(bundle: Path, method: str = "gradients") -> SparseRecError:
    result = CliRunner().invoke(app, ["profile", str(bundle), "--method", method])
    assert isinstance(result.exception, SparseRecError), result.exception
    return result.exception


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda inputs: inputs[0].update(shape=[10, 10]), r"inputs[0]: is float32 [10, 10], step"),
        (lambda inputs: inputs[1].update(dtype="int32"), "inputs[1]: is int32 ["),
        (lambda inputs: inputs.pop(), "inputs: 3 are described, step.pte takes 4"),
    ],
)
def test_inputs_that_the_program_does_not_take(bundle_dir: Path, change: Any, message: str) -> None:
    path = bundle_dir / "manifest.json"
    value = json.loads(path.read_text())
    change(value["programs"]["step"]["methods"]["gradients"]["inputs"])
    path.write_text(json.dumps(value))
    expected = f"{path}: programs.step.methods.gradients.{message}"
    assert profiled(bundle_dir).message.startswith(expected)


def test_a_method_that_the_program_does_not_have(bundle_dir: Path) -> None:
    path = bundle_dir / "manifest.json"
    value = json.loads(path.read_text())
    methods = value["programs"]["step"]["methods"]
    methods["forward"] = methods["update"]
    path.write_text(json.dumps(value))
    expected = f"{path}: programs.step.methods.forward: step.pte has no such method"
    assert profiled(bundle_dir, "forward").message == expected


@pytest.mark.parametrize("cut", [1, 2000])
def test_a_cut_program(bundle_dir: Path, cut: int) -> None:
    """Whatever of it is still read: the manifest's hash was made of what is there."""
    path, program = bundle_dir / "manifest.json", bundle_dir / "step.pte"
    data = program.read_bytes()[:-cut]
    program.write_bytes(data)
    value = json.loads(path.read_text())
    value["files"]["step.pte"] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    path.write_text(json.dumps(value))
    assert profiled(bundle_dir).message.startswith(f"{program}: ")


def test_a_program_that_the_runtime_refuses(tmp_path: Path) -> None:
    path = tmp_path / "step.pte"
    path.write_bytes(b"\0" * 64)
    info = MethodInfo((), (), (), (), 0)
    with pytest.raises(SparseRecError, match=r"step\.pte: update: cannot be run: "):
        measure(path, "update", info, 0, 1)
