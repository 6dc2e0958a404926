"""Every model, loss, optimizer and precision: the .pte against PyTorch autograd written apart.

The references are in float64 and share no code with the pipeline: models are written as in their
papers, neighbours are a dense matrix, optimizers are torch.optim's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from export import verify
from export.dense import specs, split
from export.lower import lower
from export.step import Step, methods
from pipeline.models import MODELS

BATCH, DIM, L2, CHUNK, NEGATIVES, ITEMS = 4, 8, 0.1, 256, 5, 50
TILE, FANOUT, ROWS = 20, 3, 10**7
RATE, TOLERANCE = 0.01, 1e-5

CASES = (
    ("mf", "bpr", "sgd"),
    ("mf", "bce", "momentum"),
    ("mf", "softmax", "adagrad"),
    ("mf", "bpr-shared", "adagrad"),
    ("lightgcn", "bpr", "adam"),
    ("lightgcn", "softmax", "sgd"),
    ("lightgcn", "bpr-shared", "sgd"),
    ("neumf", "bpr", "sgd"),
    ("neumf", "bce", "momentum"),
    ("neumf", "softmax", "adagrad"),
    ("neumf", "bpr", "adam"),
    ("ngcf", "bpr", "sgd"),
    ("ngcf", "softmax", "momentum"),
    ("ngcf", "bce", "adagrad"),
    ("ngcf", "bpr", "adam"),
)
"""An optimizer is in ``gradients`` where a model has dense parameters, and in ``update`` always."""


def step_of(model: str, loss: str, optimizer: str) -> Step:
    return Step(
        batch_size=BATCH,
        dim=DIM,
        l2=L2,
        chunk=CHUNK,
        model=model,  # type: ignore[arg-type]
        loss=loss,  # type: ignore[arg-type]
        optimizer=optimizer,  # type: ignore[arg-type]
        negatives=NEGATIVES,
        num_items=ITEMS,
        tile=TILE,
        fanout=FANOUT,
        dense=specs(MODELS[model].initial(DIM, 1)),  # type: ignore[index]
    )


@pytest.fixture(scope="module")
def run() -> verify.Executable:
    """All steps in one program: lowering is what takes time here."""
    found = {}
    for case in CASES:
        made = methods(step_of(*case))
        found["gradients_" + "_".join(case)] = made["gradients"]
        found[f"update_{case[2]}"] = made["update"]
    return verify.load(lower(found))


def score(model: str, users: Tensor, items: Tensor, dense: dict[str, Tensor]) -> Tensor:
    if model != "neumf":
        return (users * items).sum(-1)
    half = DIM // 2
    hidden = torch.cat([users[..., half:], items[..., half:]], -1)
    for layer in range(3):
        hidden = hidden @ dense[f"layer{layer}.weight"].T + dense[f"layer{layer}.bias"]
        hidden = hidden.clamp(min=0)
    gmf = users[..., :half] * items[..., :half]
    return gmf @ dense["output.gmf"] + hidden @ dense["output.mlp"]


def propagate(model: str, rows: Tensor, adjacency: Tensor, dense: dict[str, Tensor]) -> Tensor:
    if model == "lightgcn":
        powers = [torch.linalg.matrix_power(adjacency, k) @ rows for k in range(4)]
        return torch.stack(powers).mean(0)
    outputs, current = [rows], rows
    for k in range(3):
        around = adjacency @ current
        total = (around + current) @ dense[f"sum{k}.weight"].T + dense[f"sum{k}.bias"]
        total = total + (around * current) @ dense[f"product{k}.weight"].T
        total = total + dense[f"product{k}.bias"]
        current = torch.where(total > 0, total, 0.2 * total)
        outputs.append(F.normalize(current))
    return torch.cat(outputs, 1)


def loss_of(
    case: tuple[str, str, str],
    rows: Tensor,
    weight: Tensor,
    lists: dict[str, Tensor],
    dense: dict[str, Tensor],
) -> Tensor:
    model, loss, _ = case
    vectors = rows
    if lists:
        adjacency = torch.zeros(TILE, TILE, dtype=torch.float64)
        for slot in range(TILE):
            for k in range(FANOUT):
                to = int(lists["neighbours"][slot, k])
                adjacency[slot, to] += lists["neighbour_weights"][slot, k]
        vectors = propagate(model, rows, adjacency, dense)
    last = 2 * BATCH + (NEGATIVES if loss in ("bpr-shared", "softmax") else BATCH)
    users, items, others = vectors[:BATCH], vectors[BATCH : 2 * BATCH], vectors[2 * BATCH : last]
    positive = score(model, users, items, dense)
    squares = rows.square().sum(1)
    penalty = squares[:BATCH] + squares[BATCH : 2 * BATCH]
    if loss in ("bpr-shared", "softmax"):
        wrong = score(
            model,
            users[:, None].expand(-1, NEGATIVES, -1),
            others[None].expand(BATCH, -1, -1),
            dense,
        )
        logits = torch.cat([positive[:, None], wrong + np.log(ITEMS / NEGATIVES)], 1)
        losses = -logits.log_softmax(1)[:, 0]
        if loss == "bpr-shared":
            losses = -F.logsigmoid(positive[:, None] - wrong).mean(1)
        penalty = penalty + squares[2 * BATCH : last].mean()
    else:
        wrong = score(model, users, others, dense)
        losses = -F.logsigmoid(positive - wrong)
        if loss == "bce":
            losses = -F.logsigmoid(positive) - F.logsigmoid(-wrong)
        penalty = penalty + squares[2 * BATCH : last]
    return (weight * (losses + L2 / 2 * penalty)).sum() / weight.sum()


def stepped(
    optimizer: str, values: Tensor, grads: Tensor, state: dict[str, Tensor], step: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Do what torch.optim does after ``step`` steps that left ``state``."""
    leaf = values.clone().requires_grad_()
    leaf.grad = grads.clone()
    made: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "sgd": lambda: torch.optim.SGD([leaf], lr=RATE),
        "momentum": lambda: torch.optim.SGD([leaf], lr=RATE, momentum=0.9),
        "adagrad": lambda: torch.optim.Adagrad([leaf], lr=RATE),
        "adam": lambda: torch.optim.Adam([leaf], lr=RATE),
    }
    names = {
        "sgd": {},
        "momentum": {"m": "momentum_buffer"},
        "adagrad": {"v": "sum"},
        "adam": {"m": "exp_avg", "v": "exp_avg_sq"},
    }[optimizer]
    chosen = made[optimizer]()
    for ours, theirs in names.items():
        chosen.state[leaf][theirs] = state[ours].clone()
    if optimizer in {"adam", "adagrad"}:
        chosen.state[leaf]["step"] = torch.tensor(float(step))
    chosen.step()
    return leaf.detach(), {ours: chosen.state[leaf][theirs] for ours, theirs in names.items()}


def rates(optimizer: str, step: int) -> list[Tensor]:
    if optimizer != "adam":
        return [torch.tensor([RATE])]
    return [torch.tensor([RATE / (1 - 0.9 ** (step + 1))]), torch.tensor([1 - 0.999 ** (step + 1)])]


@dataclass
class Tile:
    """Random contents: sparse row ids, some slots with the same row, some padding."""

    ids: np.ndarray
    place: Tensor
    table: Tensor
    mask: Tensor
    sampled: Tensor
    weight: Tensor


def stored(values: Tensor, precision: str) -> Tensor:
    """What a row's values are after they were stored in a precision."""
    if precision == "float16":
        return values.half().float()
    if precision == "int8":
        scale = values.abs().amax(1, keepdim=True) / 127
        return (values / scale.clamp_min(1e-30)).round() * scale
    return values


def draw(slots: int, distinct: int, real: int, precision: str, rng: np.random.Generator) -> Tile:
    ids = np.sort(rng.choice(ROWS, distinct, replace=False))
    place = torch.from_numpy(rng.integers(0, distinct, slots))
    for block in range(3):  # the slots of padded examples
        place[block * BATCH + real : (block + 1) * BATCH] = -1
    density = torch.from_numpy(rng.choice([0.0, 0.3, 1.0], (distinct, 1)))  # empty and full rows
    mask = (torch.from_numpy(rng.random((distinct, DIM))) < density).float()
    values = torch.from_numpy(rng.normal(0, 0.5, (distinct, DIM)).astype(np.float32))
    sampled = torch.from_numpy(rng.random((distinct, 1)) < 0.5).float()
    weight = (torch.arange(BATCH) < real).float()
    return Tile(ids, place, stored(values * mask, precision), mask, sampled, weight)


def in_slots(rows: Tensor, place: Tensor) -> Tensor:
    return torch.where(place[:, None] >= 0, rows[place.clamp(min=0)], 0)


def close(found: Tensor, wanted: Tensor) -> None:
    assert found.shape == wanted.shape
    assert bool(((found - wanted).abs() <= TOLERANCE).all())


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
@pytest.mark.parametrize("case", CASES, ids="-".join)
@settings(max_examples=8, deadline=None)
@given(
    distinct=st.integers(1, 12),
    real=st.integers(1, BATCH),
    step=st.integers(0, 300),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_step_is_what_autograd_says(
    run: verify.Executable,
    case: tuple[str, str, str],
    precision: str,
    distinct: int,
    real: int,
    step: int,
    seed: int,
) -> None:
    rng, optimizer = np.random.default_rng(seed), case[2]
    made = step_of(*case)
    tile = draw(made.slots, distinct, real, precision, rng)
    generator = torch.Generator().manual_seed(seed)
    lists = verify.random_lists(TILE, FANOUT, generator) if made.has_graph else {}
    size = made.dense_size
    flat = 0.4 * torch.randn(size, generator=generator)
    state = {
        "m": 0.1 * torch.randn(size, generator=generator),
        "v": 0.1 + torch.rand(size, generator=generator),
    }
    names = {"sgd": "", "momentum": "m", "adagrad": "v", "adam": "mv"}[optimizer]
    others = [flat, *(state[name] for name in names), *rates(optimizer, step)] if size else []
    parts = [in_slots(part, tile.place) for part in (tile.table, tile.mask, tile.sampled)]
    method = "gradients_" + "_".join(case)
    loss, grads, *after = run(method, *parts, tile.weight, *lists.values(), *others)

    leaf = tile.table.double().requires_grad_()
    weights = flat.double().requires_grad_()
    rows = in_slots(leaf, tile.place)
    wanted = loss_of(case, rows, tile.weight.double(), lists, split(weights, made.dense))
    wanted.backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    close(loss, wanted.detach())
    summed = torch.zeros(distinct, DIM)
    for slot, place in enumerate(tile.place.tolist()):
        if place >= 0:
            summed[place] += grads[slot]
    keep = (tile.mask > 0) | (tile.sampled > 0)
    close(summed, torch.where(keep, leaf.grad, 0))
    if size:
        assert weights.grad is not None
        doubles = {name: state[name].double() for name in names}
        new, moved = stepped(optimizer, flat.double(), weights.grad, doubles, step)
        for found, value in zip(after, [new, *moved.values()], strict=True):
            close(found, value)
    if tile.mask.any():
        check_update(run, optimizer, tile, leaf.grad, step, precision)


def check_update(
    run: verify.Executable,
    optimizer: str,
    tile: Tile,
    grads: Tensor,
    step: int,
    precision: str,
) -> None:
    """Move the active entries, and store them again."""
    active = tile.mask > 0
    count = int(active.sum())
    names = {"sgd": "", "momentum": "m", "adagrad": "v", "adam": "mv"}[optimizer]
    state = {"m": torch.linspace(-0.1, 0.1, count), "v": torch.linspace(0.1, 0.3, count)}
    given = [tile.table[active], grads[active].float(), *(state[name] for name in names)]
    padded = [F.pad(values, (0, CHUNK - count)) for values in given]
    new, *moved = run(f"update_{optimizer}", *padded, *rates(optimizer, step))
    doubles = {name: state[name].double() for name in names}
    wanted, wanted_state = stepped(optimizer, given[0].double(), grads[active], doubles, step)
    close(new[:count], wanted)
    for found, value in zip(moved, wanted_state.values(), strict=True):
        close(found[:count], value)
    check_storage(tile, new[:count], precision)


def check_storage(tile: Tile, values: Tensor, precision: str) -> None:
    """The host's rounding of the touched rows, and only of them, against its definition."""
    from pipeline.precision import round_rows
    from pipeline.table import PackedTable

    mask = tile.mask.numpy() > 0
    table = PackedTable.from_dense(tile.table.numpy(), mask, 1)
    table.vals = values.numpy().copy()
    before = table.dense(0, table.num_rows)
    round_rows(table, np.arange(table.num_rows), precision, seed=1, step=2)  # type: ignore[arg-type]
    after = table.dense(0, table.num_rows)
    if precision == "float32":
        np.testing.assert_array_equal(after, before)
    elif precision == "float16":
        np.testing.assert_array_equal(after, before.astype(np.float16))
    else:
        scale = np.abs(before).max(1, keepdims=True) / 127
        assert np.all(np.abs(after - before) <= scale * (1 + 1e-5))
        levels = after / np.where(scale > 0, scale, 1)
        np.testing.assert_allclose(levels, np.rint(levels), atol=1e-3)
