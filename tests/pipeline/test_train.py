"""The packed step against dense PyTorch, which knows nothing of packing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pipeline.annealing import Annealing
from pipeline.data.split import Pairs
from pipeline.exchange import Schedule, exchange
from pipeline.models import MODELS
from pipeline.sampling import TripleSampler, sampled_rows
from pipeline.table import PackedTable
from pipeline.train import StepConfig, Trainer

USERS, ITEMS, DIM = 20, 30, 8


def setup(seed: int, config: StepConfig, schedule: Schedule | None) -> tuple[Trainer, np.ndarray]:
    rng = np.random.default_rng(seed)
    keys = rng.choice(USERS * ITEMS, 200, replace=False)
    log = Pairs((keys // ITEMS).astype(np.int32), (keys % ITEMS).astype(np.int32), None)
    mask = rng.random((USERS + ITEMS, DIM)) < 0.4
    mask[:, :2] = True
    values = rng.normal(size=mask.shape).astype(np.float32)
    sampler = TripleSampler.of(log, None, ITEMS, ITEMS, seed)
    table = PackedTable.from_dense(values, mask, USERS)
    return Trainer(table, sampler, config, schedule), mask


def dense_loss(weight: torch.Tensor, batch: tuple[np.ndarray, ...], l2: float) -> torch.Tensor:
    u, p, n = (torch.from_numpy(x) for x in batch)
    user, positive, negative = weight[u], weight[USERS + p], weight[USERS + n]
    margin = (user * positive).sum(1) - (user * negative).sum(1)
    norms = user.square().sum(1) + positive.square().sum(1) + negative.square().sum(1)
    return (-torch.log(torch.sigmoid(margin)) + l2 / 2 * norms).mean()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_steps_equal_a_masked_dense_model(optimizer: str) -> None:
    config = StepConfig(optimizer=optimizer, learning_rate=0.05, l2=0.02, batch_size=300)  # type: ignore[arg-type]
    trainer, mask = setup(3, config, None)
    weight = torch.from_numpy(trainer.table.dense(0, USERS + ITEMS)).requires_grad_()
    make = torch.optim.SGD if optimizer == "sgd" else torch.optim.Adam
    reference = make([weight], lr=0.05)
    for step in range(20):
        batch = trainer.sampler.batch(step, 300)
        # Lazy Adam equals Adam while every row is in every batch.
        assert len(np.unique(np.concatenate([batch[1], batch[2]]))) == ITEMS
        assert len(np.unique(batch[0])) == USERS
        loss = dense_loss(weight, batch, 0.02)
        reference.zero_grad()
        loss.backward()
        weight.grad *= torch.from_numpy(mask)  # type: ignore[operator]
        reference.step()
        assert trainer.run_step() == pytest.approx(loss.item(), abs=1e-5)
    got = trainer.table.dense(0, USERS + ITEMS)
    np.testing.assert_allclose(got, weight.detach().numpy(), atol=2e-5)
    assert (got[~mask] == 0).all()


@pytest.mark.parametrize("grow", ["cumulative", "instant"])
def test_growth_looks_at_the_right_gradients(grow: str) -> None:
    config = StepConfig(
        optimizer="sgd",
        learning_rate=0.1,
        batch_size=40,
        sampled_fraction=0.5,
        grow=grow,  # type: ignore[arg-type]
    )
    trainer, mask = setup(4, config, Schedule(100, 5, 0.6))
    weight = torch.from_numpy(trainer.table.dense(0, USERS + ITEMS)).requires_grad_()
    sums = np.zeros(mask.shape, np.float32)
    for step in range(5):
        loss = dense_loss(weight, trainer.sampler.batch(step, 40), config.l2)
        (grad,) = torch.autograd.grad(loss, weight)
        if grow == "cumulative" or step == 4:
            sums += grad.numpy()
        with torch.no_grad():
            weight -= 0.1 * grad * torch.from_numpy(mask)
        trainer.run_step()
    sampled = sampled_rows(trainer.sampler.log, USERS, 0, 25, 4)
    expected = PackedTable.from_dense(weight.detach().numpy(), mask, USERS)
    fraction = Schedule(100, 5, 0.6).fraction_after(4)
    count = exchange(expected, sampled, sums[sampled], fraction, config.floor, {})
    assert trainer.exchanged == count > 0
    np.testing.assert_array_equal(trainer.table.cols, expected.cols)
    np.testing.assert_allclose(trainer.table.vals, expected.vals, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_averages_are_those_of_pytorch(optimizer: str) -> None:
    config = StepConfig("neumf", optimizer=optimizer, learning_rate=0.05, batch_size=40)  # type: ignore[arg-type]
    made, _ = setup(6, config, None)
    dense = MODELS["neumf"].initial(DIM, 1)
    trainer = Trainer(made.table, made.sampler, config, None, dense=dense, ema=0.9)

    def weights() -> torch.nn.ParameterList:
        values = [trainer.table.vals, *trainer.dense.values()]
        return torch.nn.ParameterList(torch.tensor(each) for each in values)

    average = AveragedModel(weights(), multi_avg_fn=get_ema_multi_avg_fn(0.9))
    average.update_parameters(weights())  # the first time it takes what is there
    for _ in range(12):
        trainer.run_step()
        average.update_parameters(weights())
    table, found = trainer.averaged()
    expected = average.module.parameters()
    for values, wanted in zip([table.vals, *found.values()], expected, strict=True):
        torch.testing.assert_close(torch.tensor(values), wanted.detach(), rtol=0, atol=1e-6)
    assert not np.allclose(table.vals, trainer.table.vals, atol=1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_learning_rate_falls_as_pytorch_has_it(optimizer: str) -> None:
    config = StepConfig("neumf", optimizer=optimizer, learning_rate=0.05, batch_size=40)  # type: ignore[arg-type]
    made, _ = setup(8, config, None)
    least, steps = 0.1, 12
    annealing = Annealing(steps, least)
    dense = MODELS["neumf"].initial(DIM, 1)
    trainer = Trainer(made.table, made.sampler, config, None, dense=dense, annealing=annealing)
    twin, _ = setup(8, config, None)
    other = Trainer(twin.table, twin.sampler, config, None, dense=MODELS["neumf"].initial(DIM, 1))
    sgd = torch.optim.SGD([torch.zeros(1)], config.learning_rate)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, steps, config.learning_rate * least)
    for _ in range(steps):
        (rate,) = cosine.get_last_lr()
        other.config = replace(config, learning_rate=rate)
        trainer.run_step()
        other.run_step()
        sgd.step()
        cosine.step()
    assert rate < 0.2 * config.learning_rate
    np.testing.assert_allclose(trainer.table.vals, other.table.vals, rtol=0, atol=1e-6)
    for name, values in trainer.dense.items():
        np.testing.assert_allclose(values, other.dense[name], rtol=0, atol=1e-6)


def test_what_grows_is_averaged_from_0() -> None:
    config = StepConfig(learning_rate=0.05, batch_size=40)
    made, _ = setup(7, config, None)
    trainer = Trainer(made.table, made.sampler, config, Schedule(100, 5, 0.6), ema=0.8)
    average = trainer.table.dense(0, USERS + ITEMS)
    before = average != 0
    for step in range(10):
        trainer.run_step()
        if step % 5 == 4:  # the mask has changed: what fell is gone, what grew is 0
            after = trainer.averaged()[0].dense(0, USERS + ITEMS)
            rows = np.repeat(np.arange(USERS + ITEMS), np.diff(trainer.table.row_ptr))
            mask = np.zeros_like(before)
            mask[rows, trainer.table.cols] = True
            assert (mask & ~before).any()
            assert (after[mask & ~before] == 0).all()
            kept = mask & before
            values = trainer.table.dense(0, USERS + ITEMS)
            expected = 0.8 * average + np.float32(0.2) * values
            np.testing.assert_allclose(after[kept], expected[kept], atol=1e-6)
            average, before = after, mask
        else:
            average = trainer.averaged()[0].dense(0, USERS + ITEMS)
    assert trainer.exchanged > 0


def test_training_state_is_packed() -> None:
    config = StepConfig(batch_size=8, sampled_fraction=0.1)
    trainer, mask = setup(5, config, Schedule(100, 5, 0.3))
    for _ in range(12):
        trainer.run_step()
    assert trainer.table.nnz == mask.sum()
    assert all(values.shape == (mask.sum(),) for values in trainer.state.values())
    assert trainer.sums.shape == (5, DIM)
