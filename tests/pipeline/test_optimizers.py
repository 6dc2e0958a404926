"""Packed optimizers against torch.optim, over steps that touch some entries at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline import optimizers
from pipeline.optimizers import STATE, OptimizerName, update


@pytest.fixture(autouse=True, params=[1 << 16, 2])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once, and in parts of which the last is smaller."""
    monkeypatch.setattr(optimizers, "CHUNK", request.param)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adagrad", "adam"])
def test_all_entries_move_as_in_torch(name: OptimizerName) -> None:
    rng = np.random.default_rng(1)
    vals = rng.normal(size=7).astype(np.float32)
    leaf = torch.from_numpy(vals.astype(np.float64)).requires_grad_()
    made = {
        "sgd": lambda: torch.optim.SGD([leaf], lr=0.1),
        "momentum": lambda: torch.optim.SGD([leaf], lr=0.1, momentum=0.9),
        "adagrad": lambda: torch.optim.Adagrad([leaf], lr=0.1),
        "adam": lambda: torch.optim.Adam([leaf], lr=0.1),
    }[name]()
    state = {key: np.zeros(7, np.float32) for key in STATE[name]}
    sizes = np.float32([0, 1e-7, 1e-5, 1e-3, 0.1, 1, 10])  # beside Adam's epsilon of 1e-8
    for step in range(20):
        grads = rng.normal(size=7).astype(np.float32) * sizes
        leaf.grad = torch.from_numpy(grads.astype(np.float64))
        made.step()
        update(name, vals, grads, None, state, 0.1, step)
    np.testing.assert_allclose(vals, leaf.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adagrad", "adam"])
def test_untouched_entries_and_their_state_stay(name: OptimizerName) -> None:
    vals = np.ones(6, np.float32)
    state = {key: np.full(6, 0.5, np.float32) for key in STATE[name]}
    update(name, vals, np.ones(3, np.float32), np.array([1, 3, 4]), state, 0.1, 0)
    for values, start in ((vals, 1.0), *((value, 0.5) for value in state.values())):
        assert np.all(values[[0, 2, 5]] == start)
        assert np.all(values[[1, 3, 4]] != start)
