"""Telling a .pte from what is not one, and reading what is inside."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.build import Built
from export.program import check_magic, describe
from sparserec.errors import SparseRecError

PATH = Path("some/step.pte")


def test_methods_inputs_and_outputs(built: Built) -> None:
    plans = describe((built.path / "step.pte").read_bytes(), PATH)
    assert list(plans) == ["gradients", "update"]
    batch, dim = built.manifest.training.batch_size, built.manifest.dim
    tile = ("float32", (3 * batch, dim))
    assert plans["gradients"].inputs == [
        tile,
        tile,
        ("float32", (3 * batch, 1)),
        ("float32", (batch,)),
    ]
    assert plans["gradients"].outputs == [("float32", ()), tile]
    assert plans["update"].operators == ["aten::mul.out", "aten::sub.out"]


def test_schema_identifier(built: Built) -> None:
    assert check_magic((built.path / "step.pte").read_bytes(), PATH) == "ET12"


def test_tensor_data_is_named_as_such() -> None:
    with pytest.raises(SparseRecError, match=r"some/step\.pte: this is a \.ptd"):
        check_magic(b"\x10\x00\x00\x00FT01" + bytes(8), PATH)


@given(st.binary(max_size=64).filter(lambda data: data[4:6] not in {b"ET", b"FT"}))
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(SparseRecError, match="not an ExecuTorch program"):
        describe(data, PATH)


def test_a_cut_program_is_damaged(built: Built) -> None:
    data = (built.path / "step.pte").read_bytes()
    with pytest.raises(SparseRecError, match=r"some/step\.pte: damaged ExecuTorch program"):
        describe(data[: len(data) // 4], PATH)
