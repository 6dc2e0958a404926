"""Steps of every model against a dense PyTorch model that knows nothing of packing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pipeline.backward import sampled_gradients
from pipeline.draws import NEIGHBOURS
from pipeline.exchange import Schedule, exchange
from pipeline.losses import SHARED, LossName
from pipeline.models import MODELS, ModelName
from pipeline.neighbourhood import Neighbours
from pipeline.precision import Rounding, round_rows
from pipeline.prune import magnitude_prune
from pipeline.regrowth import importance_rows, regrow_at_random, regrow_by_gradient
from pipeline.sampling import uniform_rows
from pipeline.train import Grow, Importance, StepConfig, Trainer
from tests.pipeline.graphs import DIM, ITEMS, USERS, trainer

CASES = [
    ("mf", "bpr"),
    ("mf", "softmax"),
    ("neumf", "bpr"),
    ("neumf", "bce"),
    ("ngcf", "bpr"),
    ("lightgcn", "bpr"),
    ("lightgcn", "softmax"),
    ("lightgcn", "bpr-shared"),
]


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a batch come in several parts and a rest, as large ones do."""
    monkeypatch.setattr("pipeline.backward.FLOATS_AT_A_TIME", 40)
    monkeypatch.setattr(MODELS["neumf"], "PAIR_FLOATS", 1)


def dense_loss(
    made: Trainer,
    weight: torch.Tensor,
    dense: dict[str, torch.Tensor],
    adjacency: torch.Tensor,
    step: int,
) -> torch.Tensor:
    """The loss of a step's batch on a whole dense table, from the definitions."""
    config, sampler = made.config, made.sampler
    model = MODELS[config.model]
    vectors = model.propagate(weight, lambda x: adjacency @ x, dense)
    size = config.batch_size
    if config.loss in SHARED:
        users, items = sampler.positives(step, size)
        wrong = sampler.shared_negatives(step, config.negatives)
    else:
        users, items, wrong = sampler.batch(step, size)
    u, p, n = (torch.from_numpy(x) for x in (users, USERS + items, USERS + wrong))
    positive = model.pair_scores(vectors[u], vectors[p], dense)
    squares = weight[u].square().sum(1) + weight[p].square().sum(1)
    if config.loss in SHARED:
        negatives = vectors[u] @ vectors[n].T
        scores = torch.cat([positive[:, None], negatives + np.log(ITEMS / len(wrong))], dim=1)
        loss = F.cross_entropy(scores, torch.zeros(size, dtype=torch.long), reduction="none")
        if config.loss == "bpr-shared":
            loss = -F.logsigmoid(positive[:, None] - negatives).mean(dim=1)
        squares = squares + weight[n].square().sum(1).mean()
    else:
        negative = model.pair_scores(vectors[u], vectors[n], dense)
        squares = squares + weight[n].square().sum(1)
        if config.loss == "bpr":
            loss = -F.logsigmoid(positive - negative)
        else:
            loss = -F.logsigmoid(positive) - F.logsigmoid(-negative)
    return (loss + config.l2 / 2 * squares).mean()


def leaves(made: Trainer) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    weight = torch.from_numpy(made.table.dense(0, USERS + ITEMS)).requires_grad_()
    dense = {k: torch.from_numpy(v.copy()).requires_grad_() for k, v in made.dense.items()}
    return weight, dense


@pytest.mark.parametrize(("model", "loss"), CASES)
def test_sgd_steps_equal_a_masked_dense_model(model: ModelName, loss: LossName) -> None:
    config = StepConfig(model, loss, "sgd", 0.05, 0.02, batch_size=60, negatives=17)
    made, mask, adjacency = trainer(3, config)
    weight, dense = leaves(made)
    for step in range(6):
        value = dense_loss(made, weight, dense, adjacency, step)
        grads = torch.autograd.grad(value, [weight, *dense.values()])
        with torch.no_grad():
            weight -= 0.05 * grads[0] * torch.from_numpy(mask)
            for parameter, grad in zip(dense.values(), grads[1:], strict=True):
                parameter.sub_(grad, alpha=0.05)
        assert made.run_step() == pytest.approx(value.item(), abs=2e-5)
    got = made.table.dense(0, USERS + ITEMS)
    np.testing.assert_allclose(got, weight.detach().numpy(), atol=2e-5)
    assert (got[~mask] == 0).all()
    for name, parameter in dense.items():
        np.testing.assert_allclose(made.dense[name], parameter.detach().numpy(), atol=2e-5)


@pytest.mark.parametrize("model", ["lightgcn", "ngcf"])
def test_adam_on_a_graph_model_is_pytorchs(model: ModelName) -> None:
    """Every row has a gradient in every step, so lazy Adam is Adam."""
    config = StepConfig(model, "bpr", "adam", 0.01, 0.02, batch_size=60)
    made, mask, adjacency = trainer(4, config)
    weight, dense = leaves(made)
    reference = torch.optim.Adam([weight, *dense.values()], lr=0.01)
    for step in range(6):
        reference.zero_grad()
        dense_loss(made, weight, dense, adjacency, step).backward()  # type: ignore[no-untyped-call]
        assert weight.grad is not None
        weight.grad *= torch.from_numpy(mask)
        reference.step()
        made.run_step()
    got = made.table.dense(0, USERS + ITEMS)
    # Adam divides by a gradient's own size: where it is near 0, rounding decides its sign.
    close = np.abs(got - weight.detach().numpy()) < 1e-3
    assert close.mean() > 0.995


@pytest.mark.parametrize("grow", ["cumulative", "magnitude", "instant"])
@pytest.mark.parametrize("model", ["mf", "lightgcn", "ngcf"])
def test_sums_are_those_of_the_dense_gradient(model: ModelName, grow: Grow) -> None:
    config = StepConfig(
        model, "bpr", "sgd", 0.05, 0.02, 40, sampled_fraction=0.5, importance="uniform", grow=grow
    )
    made, mask, adjacency = trainer(5, config, Schedule(100, 5, 0.0))
    weight, dense = leaves(made)
    sums = torch.zeros_like(weight)
    for step in range(10):
        value = dense_loss(made, weight, dense, adjacency, step)
        grads = torch.autograd.grad(value, [weight, *dense.values()])
        if step == 5:  # the second window begins
            sums.zero_()
        if grow != "instant" or step % 5 == 4:
            sums += grads[0].abs() if grow == "magnitude" else grads[0]
        with torch.no_grad():
            weight -= 0.05 * grads[0] * torch.from_numpy(mask)
            for parameter, grad in zip(dense.values(), grads[1:], strict=True):
                parameter.sub_(grad, alpha=0.05)
        made.run_step()
    assert len(made.sampled) == round(0.5 * (USERS + ITEMS))
    np.testing.assert_allclose(made.sums, sums.numpy()[made.sampled], atol=2e-5)


@pytest.mark.parametrize("model", ["mf", "lightgcn"])
def test_the_literal_reading_trains_sampled_rows_only(model: ModelName) -> None:
    config = StepConfig(
        model, "bpr", "momentum", 0.05, 0.02, 60, sampled_fraction=0.3, backward="literal"
    )
    made, _, _ = trainer(6, config, Schedule(100, 1, 0.0))
    for _ in range(3):  # rows of the windows before have momentum
        before = made.table.dense(0, USERS + ITEMS)
        made.run_step()
        moved = (made.table.dense(0, USERS + ITEMS) != before).any(axis=1)
        assert moved.any()
        assert set(np.flatnonzero(moved)) <= set(made.sampled.tolist())
    made, _, _ = trainer(6, config)  # without windows there are no such rows, and all are trained
    before = made.table.vals.copy()
    made.run_step()
    assert (made.table.vals != before).mean() > 0.9


@pytest.mark.parametrize(("fraction", "size"), [(0.25, 14), (0.001, 1)])  # of 54 rows
def test_as_many_rows_are_sampled_as_the_fraction_says(fraction: float, size: int) -> None:
    rows = USERS + ITEMS
    config = StepConfig(sampled_fraction=fraction, importance="uniform")
    made, _, _ = trainer(5, config, Schedule(100, 2, 0.0))
    for window in (0, 0, 1):
        made.run_step()
        np.testing.assert_array_equal(made.sampled, uniform_rows(rows, window, size, 5))


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("model", ["mf", "lightgcn"])
def test_rows_are_rounded_as_they_are_written_back(model: ModelName, rounding: Rounding) -> None:
    config = StepConfig(model, optimizer="sgd", batch_size=5, precision="int8", rounding=rounding)
    made, _, _ = trainer(5, config)
    plain, _, _ = trainer(5, replace(config, precision="float32"))
    made.step = plain.step = 3
    made.run_step()
    plain.run_step()
    slots = plain.sampler.batch(3, 5)
    touched = np.unique(np.concatenate([slots[0], USERS + slots[1], USERS + slots[2]]))
    rows = touched if model == "mf" else np.arange(USERS + ITEMS)
    round_rows(plain.table, rows, "int8", 5, 3, rounding)
    np.testing.assert_array_equal(made.table.vals, plain.table.vals)


@pytest.mark.parametrize("model", ["mf", "lightgcn", "ngcf"])
def test_gradient_importance_follows_the_window_before(model: ModelName) -> None:
    config = StepConfig(
        model, "bpr", "sgd", 0.05, 0.02, 40, sampled_fraction=0.3, importance="gradient"
    )
    made, mask, adjacency = trainer(7, config, Schedule(100, 5, 0.0))
    norms = torch.zeros(USERS + ITEMS)
    for step in range(5):
        weight, dense = leaves(made)
        value = dense_loss(made, weight, dense, adjacency, step)
        (grad,) = torch.autograd.grad(value, [weight])
        # Where a graph spreads the gradient, that of the active entries counts.
        norms += (grad if model == "mf" else grad * torch.from_numpy(mask)).norm(dim=1)
        made.run_step()
    np.testing.assert_allclose(made.norms, norms, atol=2e-5)
    expected = importance_rows(made.norms, round(0.3 * (USERS + ITEMS)), made.sampler.seed, 1)
    made.run_step()
    np.testing.assert_array_equal(made.sampled, expected)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("model", ["lightgcn", "ngcf"])
def test_a_neighbourhood_with_room_for_all_has_the_graphs_gradients(
    model: ModelName, padding: int
) -> None:
    made, _, adjacency = trainer(8, StepConfig(model, l2=0.02, batch_size=20))
    neighbours, slots = Neighbours.of(made.sampler.log, USERS, ITEMS), made._slots()
    width = int(np.diff(neighbours.ptr).max())
    whole = neighbours.tile(slots, 5000, width, 1, NEIGHBOURS, 0)
    size = int(np.count_nonzero(whole.rows >= 0)) + padding
    tile = neighbours.tile(slots, size, width, 1, NEIGHBOURS, 0)
    found = sampled_gradients(made._objective, made.table, tile, len(slots), made.dense, 20)
    weight, dense = leaves(made)
    value = dense_loss(made, weight, dense, adjacency, 0)
    grad, *others = torch.autograd.grad(value, [weight, *dense.values()])
    assert found.loss == pytest.approx(value.item(), abs=1e-5)
    np.testing.assert_allclose(found.whole, grad[found.rows], atol=1e-5)
    rows = np.repeat(np.arange(USERS + ITEMS), np.diff(made.table.row_ptr))[found.index]
    np.testing.assert_allclose(
        found.entries, grad.numpy()[rows, made.table.cols[found.index]], atol=1e-5
    )
    for name, wanted in zip(dense, others, strict=True):
        np.testing.assert_allclose(found.dense[name], wanted, atol=1e-5)


def test_a_graph_that_is_missing_or_of_no_use_is_refused() -> None:
    made, _, _ = trainer(1, StepConfig(model="lightgcn"))
    for model, graph in (("lightgcn", None), ("mf", made.graph)):
        with pytest.raises(ValueError, match=model):
            Trainer(made.table, made.sampler, StepConfig(model=model), None, graph)


@pytest.mark.parametrize("grow", ["cumulative", "rigl", "set"])
@pytest.mark.parametrize("model", ["mf", "lightgcn"])
def test_windows_end_with_the_mask_update_that_was_chosen(model: ModelName, grow: Grow) -> None:
    importance: Importance = "all" if grow == "rigl" else "frequency"
    config = StepConfig(model, batch_size=40, grow=grow, importance=importance)
    schedule = Schedule(100, 2, 0.5)
    made, _, _ = trainer(5, config, schedule)
    plain, _, _ = trainer(5, config)
    count = 0
    for step in range(6):
        found = made._gradients(made._slots())
        assert made.run_step() == plain.run_step()
        if step % 2 == 0:
            continue
        table, state = plain.table.copy(), plain.state
        fraction, window = schedule.fraction_after(step), step // 2
        if grow == "set":
            count += regrow_at_random(table, fraction, config.floor, state, 5, window)
        elif grow == "rigl":
            grads = found.rows, found.whole
            count += regrow_by_gradient(table, *grads, fraction, config.floor, state)
        else:
            looked_at = made.sampled, made.sums
            count += exchange(table, *looked_at, fraction, config.floor, state)
        plain.replace_table(table, state)
        np.testing.assert_array_equal(made.table.cols, table.cols)
        np.testing.assert_array_equal(made.table.vals, table.vals)
        assert made.exchanged == count > 0


def test_a_table_that_takes_the_place_of_another_is_the_one_that_is_trained() -> None:
    made, _, _ = trainer(9, StepConfig(model="lightgcn", optimizer="sgd"))
    made.run_step()
    made.replace_table(*magnitude_prune(made.table, 0.2, 2, made.state))
    fresh = replace(made, table=made.table.copy(), state={})
    assert made.run_step() == fresh.run_step()
    np.testing.assert_array_equal(made.table.vals, fresh.table.vals)


def test_lightgcn_makes_no_table_sized_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of columns: nothing with N rows is as wide as the table."""
    made, _, _ = trainer(2, StepConfig(model="lightgcn", sampled_fraction=0.2), Schedule(9, 3, 0.2))
    assert made.graph is not None
    widths: list[int] = []
    aggregate = type(made.graph).aggregate

    def watched(self: object, rows: torch.Tensor) -> torch.Tensor:
        widths.append(rows.shape[1])
        return aggregate(self, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(type(made.graph), "aggregate", watched)
    made.run_step()
    assert max(widths) == 16
    assert sum(widths) == 2 * 3 * DIM


def test_a_graph_models_weight_may_be_in_its_scores_alone(tmp_path: Path) -> None:
    path = tmp_path / "scaled.py"
    path.write_text("""
import numpy as np

GRAPH, PAIR_FLOATS = "layers", 1


def initial(dim, seed):
    return {"scale": np.ones(dim, np.float32)}


def propagate(rows, aggregate, dense, recompute=False):
    return rows + aggregate(rows).relu()


def pair_scores(users, items, dense):
    return (users * items * dense["scale"]).sum(1)


def scores(users, items, dense):
    return (users * dense["scale"]) @ items.transpose(1, 2)
""")
    test_sgd_steps_equal_a_masked_dense_model(str(path), "bpr")
