"""PEP against PyTorch's automatic differentiation of its formula, on a dense table."""

import numpy as np
import pytest
import torch

from pipeline.backward import Gradients
from pipeline.models import MODELS
from pipeline.nmf import random_table
from pipeline.pep import PepOptions, PepTrainer, soft_threshold, soft_threshold_grads
from pipeline.sampling import TripleSampler
from pipeline.train import StepConfig
from tests.pipeline.graphs import ITEMS, USERS, interactions


def torch_formula(values: torch.Tensor, thresholds: torch.Tensor) -> torch.Tensor:
    return torch.sign(values) * torch.relu(torch.abs(values) - torch.sigmoid(thresholds))


def test_hand_computed() -> None:
    values = np.array([2.0, -1.0, 0.25, -3.0], np.float32)
    thresholds = np.array([0, np.log(3), 0, np.log(3)], np.float32)  # sigmoid 1/2 and 3/4
    left = soft_threshold(values, thresholds)
    np.testing.assert_allclose(left, [1.5, -0.25, 0, -2.25], atol=1e-6)
    through, by_threshold = soft_threshold_grads(values, thresholds, left, np.ones(4, np.float32))
    np.testing.assert_array_equal(through, [1, 1, 0, 1])
    np.testing.assert_allclose(by_threshold, [-0.25, 0.1875, 0, 0.1875], atol=1e-6)


def trainer_of(config: StepConfig, pep: PepOptions, seed: int = 0) -> PepTrainer:
    table = random_table(USERS, ITEMS, 8, 1.0, 0, 0.5, seed=2)
    sampler = TripleSampler.of(interactions(5), None, ITEMS, ITEMS, 1)
    dense = MODELS[config.model].initial(8, seed)
    return PepTrainer(table, sampler, config, None, dense=dense, pep=pep, seed=seed)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_search_steps_are_those_of_automatic_differentiation(optimizer: str) -> None:
    config = StepConfig(optimizer=optimizer, learning_rate=0.05, l2=0.02, batch_size=400)  # type: ignore[arg-type]
    pep = PepOptions(start=-1.5, rate=0.1, decay=0.03)
    trainer = trainer_of(config, pep)
    shape = (USERS + ITEMS, 8)
    values = torch.from_numpy(trainer.initial.reshape(shape).copy()).requires_grad_()
    thresholds = torch.full(shape, -1.5, requires_grad=True)
    make = torch.optim.SGD if optimizer == "sgd" else torch.optim.Adam
    reference = make(
        [{"params": values, "lr": 0.05}, {"params": thresholds, "lr": 0.1, "weight_decay": 0.03}]
    )
    for step in range(12):
        u, p, n = (torch.from_numpy(x) for x in trainer.sampler.batch(step, 400))
        # Values move in touched rows only; here every row is touched.
        assert len(torch.cat([u, USERS + p, USERS + n]).unique()) == USERS + ITEMS
        table = torch_formula(values, thresholds)
        user, positive, negative = table[u], table[USERS + p], table[USERS + n]
        margin = (user * positive).sum(1) - (user * negative).sum(1)
        norms = user.square().sum(1) + positive.square().sum(1) + negative.square().sum(1)
        loss = (-torch.nn.functional.logsigmoid(margin) + 0.01 * norms).mean()
        reference.zero_grad()
        loss.backward()
        reference.step()
        assert trainer.run_step() == pytest.approx(loss.item(), abs=1e-5)
    found = trainer.state["pep_v"].reshape(shape), trainer.state["pep_s"].reshape(shape)
    np.testing.assert_allclose(found[0], values.detach(), atol=3e-5)
    np.testing.assert_allclose(found[1], thresholds.detach(), atol=3e-5)
    assert 0.2 < trainer.left < 0.9


def test_the_mask_meets_the_budget_and_values_go_back() -> None:
    trainer = trainer_of(StepConfig(learning_rate=0.05, batch_size=400), PepOptions(start=-1.5))
    initial = trainer.initial.copy()
    for _ in range(10):
        trainer.run_step()
    left = trainer.table.vals != 0
    assert trainer.left < 0.9
    # It left too many, and too few.
    for density in (0.27, trainer.left - 0.05, trainer.left + 0.05):
        again = trainer_of(trainer.config, trainer.pep)
        again.state = {name: values.copy() for name, values in trainer.state.items()}
        again.fix_mask(density)
        assert again.table.nnz == round(density * len(initial))
        assert again.left == pytest.approx(density, abs=1e-3)
        assert not again.searching
        assert set(again.state) == {"m", "v"}
        assert not any(values.any() for values in again.state.values())
        assert np.diff(again.table.row_ptr).min() >= again.config.floor
        dense = again.table.dense(0, USERS + ITEMS).ravel()
        np.testing.assert_array_equal(dense[dense != 0], initial[dense != 0])
        inside = dense != 0
        strict = np.diff(again.table.row_ptr) > again.config.floor
        rows = np.repeat(strict, 8)  # where the floor did not choose
        assert (inside[rows] <= left[rows]).all() if density < trainer.left else inside[left].all()
        before = again.table.cols.copy()
        again.run_step()
        np.testing.assert_array_equal(again.table.cols, before)


def test_of_equal_values_those_of_the_lowest_thresholds_stay() -> None:
    trainer = trainer_of(StepConfig(floor=0), PepOptions())
    thresholds = np.random.default_rng(3).normal(size=trainer.table.nnz).astype(np.float32)
    trainer.state |= {"pep_v": np.ones_like(thresholds), "pep_s": thresholds}
    trainer.fix_mask(0.25)
    rows = np.repeat(np.arange(USERS + ITEMS), np.diff(trainer.table.row_ptr))
    kept = np.argsort(thresholds, kind="stable")[: trainer.table.nnz]
    np.testing.assert_array_equal(rows * 8 + trainer.table.cols, np.sort(kept))


def test_layers_start_anew_with_the_mask() -> None:
    trainer = trainer_of(StepConfig("neumf", batch_size=100), PepOptions(), seed=7)
    for _ in range(3):
        trainer.run_step()
    trainer.fix_mask(0.5)
    for name, values in MODELS["neumf"].initial(8, 7).items():
        np.testing.assert_array_equal(trainer.dense[name], values)
        assert not any(state.any() for state in trainer.dense_state[name].values())


def test_entries_that_are_gone_have_no_gradient() -> None:
    trainer = trainer_of(StepConfig(optimizer="sgd"), PepOptions(start=-1.5, decay=0))
    gone = np.flatnonzero(trainer.table.vals == 0)
    assert len(gone) > 0
    before = trainer.state["pep_v"].copy(), trainer.state["pep_s"].copy()
    ones = np.ones(trainer.table.nnz, np.float32)
    rows = np.empty(0, np.int64)
    trainer._update_entries(Gradients(0.0, None, ones, {}, rows, np.empty((0, 8), np.float32)))
    for old, name in zip(before, ("pep_v", "pep_s"), strict=True):
        changed = trainer.state[name] != old
        assert not changed[gone].any()
        assert np.delete(changed, gone).all()
