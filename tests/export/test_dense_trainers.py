"""The dense trainers do what autograd and ``torch.optim.SGD`` do, and come in a whole bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from export.build import Built
from export.bundle import verify_bundle
from export.comparison import comparison_bundle
from export.dense_trainers import dense_programs, forward_program
from export.quiet import quiet
from export.verify import load

ROWS, DIM, BATCH, L2, RATE = 90, 6, 8, 0.02, 3.0


def bpr(rows: Tensor) -> Tensor:
    """The loss of (3B, d), written out."""
    user, liked, other = rows.split(BATCH)
    margin = (user * liked).sum(1) - (user * other).sum(1)
    squares = sum((part**2).sum(1) for part in (user, liked, other))
    return (-torch.nn.functional.logsigmoid(margin) + L2 / 2 * squares).mean()


def run(pte: bytes, method: str, *inputs: Tensor) -> float:
    with quiet():
        return float(load(pte).program.load_method(method).execute(list(inputs))[0])


@pytest.fixture(scope="module")
def table() -> Tensor:
    return 0.3 * torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(2))


def test_dense_step_trains_as_sgd_does(table: Tensor) -> None:
    programs = dense_programs(table, BATCH, L2, RATE)
    parameter = table.clone().requires_grad_()
    optimizer = torch.optim.SGD([parameter], lr=RATE)
    with quiet():
        method = load(programs["dense_step"].pte).program.load_method("dense_step")
    draws = torch.Generator().manual_seed(3)
    for _ in range(5):
        rows = torch.randint(ROWS, (3 * BATCH,), generator=draws)
        rows[1] = rows[0]  # a row twice: its gradients add up
        expected = bpr(parameter[rows])
        assert float(method.execute([rows])[0]) == pytest.approx(expected.item(), abs=1e-5)
        optimizer.zero_grad()
        expected.backward()
        optimizer.step()
    rows = torch.randint(ROWS, (3 * BATCH,), generator=draws)
    forward = run(programs["dense_forward"].pte, "dense_forward", rows)
    assert forward == pytest.approx(bpr(table[rows]).item(), abs=1e-6)


def test_whole_tables_are_planned_for_a_dense_step_only(table: Tensor) -> None:
    arenas = {
        name: program.info.methods[name].planned_arena_bytes
        for name, program in dense_programs(table, BATCH, L2, RATE).items()
    }
    assert arenas["dense_step"] >= 2 * table.nbytes  # the table and its gradient
    assert arenas["training"] >= table.nbytes
    assert arenas["dense_forward"] < arenas["dense_step"] - 2 * table.nbytes


def test_forward_of_a_tile_is_the_loss_under_the_mask() -> None:
    program = forward_program(BATCH, DIM, L2)
    draws = torch.Generator().manual_seed(4)
    rows = torch.randn(3 * BATCH, DIM, generator=draws)
    mask = (torch.rand(3 * BATCH, DIM, generator=draws) < 0.5).float()
    found = run(program.pte, "forward", rows, mask, torch.ones(BATCH))
    assert found == pytest.approx(bpr(rows * mask).item(), abs=1e-6)


def small(folder: Path, density: float) -> Built:
    return comparison_bundle(folder / f"{density}", 120, density, DIM, BATCH, steps=10)


def test_only_a_full_table_brings_the_dense_programs(tmp_path: Path) -> None:
    full, sparse = small(tmp_path, 1.0), small(tmp_path, 0.5)
    assert verify_bundle(full.path) == full.manifest
    assert set(full.manifest.programs) - set(sparse.manifest.programs) == {
        "dense_forward",
        "dense_step",
        "training",
    }
    assert "forward" in sparse.manifest.programs
    assert full.manifest.num_users + full.manifest.num_items == 120
    assert full.manifest.nnz == 120 * DIM
    assert sparse.manifest.density == pytest.approx(0.5, abs=0.01)
