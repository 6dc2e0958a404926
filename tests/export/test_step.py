"""step.pte, executed, against formulas written out in float64 and against torch.autograd."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from export import verify
from export.lower import lower
from export.step import step_methods, tile_loss, update_chunk

F64 = NDArray[np.float64]
SHAPES = [(1, 4, 0.0), (3, 8, 0.5), (5, 17, 1e-4), (32, 64, 0.01), (2, 128, 1.0)]
CHUNK = 256
CASES = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@dataclass(frozen=True)
class Step:
    run: verify.Executable
    batch: int
    dim: int
    l2: float


@pytest.fixture(scope="module", params=SHAPES, ids=lambda s: f"B{s[0]}-d{s[1]}-l2={s[2]}")
def step(request: pytest.FixtureRequest) -> Step:
    batch, dim, l2 = request.param
    return Step(verify.load(lower(step_methods(batch, dim, l2, CHUNK))), batch, dim, l2)


@dataclass(frozen=True)
class Tile:
    rows: F64
    mask: F64
    sampled: F64
    weight: F64

    def tensors(self) -> tuple[torch.Tensor, ...]:
        arrays = (self.rows, self.mask, self.sampled, self.weight)
        return tuple(torch.from_numpy(array.astype(np.float32)) for array in arrays)


def draw_tile(step: Step, seed: int, kind: str, padding: int, scale: float) -> Tile:
    """Make a batch; ``kind`` says what its masks and rows are like."""
    rng = np.random.default_rng(seed)
    slots = 3 * step.batch
    distinct = max(1, slots // 3) if kind == "duplicates" else slots
    slot_of = rng.integers(0, distinct, slots) if kind == "duplicates" else np.arange(slots)
    rows = rng.normal(0, scale, (distinct, step.dim)).astype(np.float32).astype(np.float64)
    share = {"empty": 0.0, "full": 1.0}.get(kind, 0.3)
    mask = (rng.random((distinct, step.dim)) < share).astype(np.float64)
    sampled = (rng.random((distinct, 1)) < 0.5).astype(np.float64)
    weight = np.ones(step.batch)
    real = max(1, step.batch - padding)
    weight[real:] = 0
    padded = np.tile(weight == 0, 3)[:, None]
    arrays = [array[slot_of] for array in (rows, mask, sampled)]
    rows, mask, sampled = (np.where(padded, 0.0, array) for array in arrays)
    return Tile(rows, mask, sampled, weight)


def formula(tile: Tile, l2: float) -> tuple[float, F64]:
    """Loss and gradient by docs/formats.md section 2, differentiated by hand."""
    user, positive, negative = np.split(tile.rows * tile.mask, 3)
    margin = (user * positive).sum(1) - (user * negative).sum(1)
    squares = (user**2).sum(1) + (positive**2).sum(1) + (negative**2).sum(1)
    per_triple = np.logaddexp(0, -margin) + l2 / 2 * squares
    share = (tile.weight / tile.weight.sum())[:, None]
    pull = -1 / (1 + np.exp(margin))[:, None]  # of softplus(-margin) by margin
    grads = np.concatenate(
        [
            share * (pull * (positive - negative) + l2 * user),
            share * (pull * user + l2 * positive),
            share * (-pull * user + l2 * negative),
        ]
    )
    grads[(tile.mask == 0) & (tile.sampled == 0)] = 0
    return float((tile.weight * per_triple).sum() / tile.weight.sum()), grads


kinds = st.sampled_from(["random", "duplicates", "empty", "full"])


@CASES
@given(st.integers(0, 2**32), kinds, st.integers(0, 40), st.sampled_from([0.01, 0.3, 1.0]))
def test_gradients_are_those_of_the_formula(
    step: Step, seed: int, kind: str, padding: int, scale: float
) -> None:
    tile = draw_tile(step, seed, kind, padding, scale)
    loss, grads = step.run("gradients", *tile.tensors())
    wanted_loss, wanted = formula(tile, step.l2)
    assert loss.shape == ()
    assert abs(float(loss) - wanted_loss) <= 1e-5 * max(1, abs(wanted_loss))
    np.testing.assert_allclose(grads.numpy(), wanted, rtol=1e-5, atol=1e-5)


@CASES
@given(st.integers(0, 2**32), kinds, st.integers(0, 40))
def test_gradients_are_those_of_autograd(step: Step, seed: int, kind: str, padding: int) -> None:
    inputs = draw_tile(step, seed, kind, padding, 0.3).tensors()
    rows, mask, _, weight = inputs
    tile = (rows * mask).requires_grad_()
    loss = tile_loss(tile, weight, step.l2)
    (wanted,) = torch.autograd.grad(loss, tile)
    found_loss, grads = step.run("gradients", *inputs)
    keep = (inputs[1] > 0) | (inputs[2] > 0)
    assert abs(float(found_loss) - float(loss.detach())) <= 1e-5
    assert float((grads - wanted)[keep].abs().max() if keep.any() else 0) <= 1e-5


@CASES
@given(st.integers(0, 2**32), st.integers(0, 40))
def test_backward_is_dense_for_sampled_rows_only(step: Step, seed: int, padding: int) -> None:
    tile = draw_tile(step, seed, "random", padding, 0.3)
    _, grads = step.run("gradients", *tile.tensors())
    found = grads.numpy()
    outside = (tile.mask == 0) & (tile.sampled == 0)
    assert np.all(found[outside] == 0)
    assert np.all(found[np.tile(tile.weight == 0, 3)] == 0)
    _, wanted = formula(tile, step.l2)
    inactive = (tile.mask == 0) & (tile.sampled == 1) & (np.abs(wanted) > 1e-4)
    assert np.all(found[inactive] != 0)


def test_gradient_ignores_values_outside_the_mask(step: Step) -> None:
    tile = draw_tile(step, 5, "random", 0, 0.3)
    rows, mask, sampled, weight = tile.tensors()
    clean = step.run("gradients", rows * mask, mask, sampled, weight)
    dirty = step.run("gradients", rows + 9 * (1 - mask), mask, sampled, weight)
    assert all(torch.equal(a, b) for a, b in zip(clean, dirty, strict=True))


@CASES
@given(st.integers(0, 2**32), st.floats(0, 50, width=32))
def test_update_is_sgd(step: Step, seed: int, lr: float) -> None:
    rng = np.random.default_rng(seed)
    vals, grads = rng.normal(size=(2, CHUNK)).astype(np.float32)
    grads[CHUNK // 2 :] = 0  # padding
    (found,) = step.run(
        "update",
        torch.from_numpy(vals),
        torch.from_numpy(grads),
        torch.tensor([lr], dtype=torch.float32),
    )
    wanted = vals.astype(np.float64) - np.float64(lr) * grads
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6, atol=1e-5)
    assert np.array_equal(found.numpy()[CHUNK // 2 :], vals[CHUNK // 2 :])


@given(st.integers(1, 4096), st.integers(1, 10**6), st.integers(1, 256))
def test_update_chunk_holds_an_average_batch(batch: int, rows: int, per_row: int) -> None:
    chunk = update_chunk(3 * batch, rows * per_row, rows)
    assert chunk >= 3 * batch * per_row
    assert chunk & (chunk - 1) == 0
