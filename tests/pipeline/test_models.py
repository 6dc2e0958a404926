"""Each model's maths against its paper's equations, written out densely here."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pipeline.models import MODELS, ModelName
from tests.pipeline.graphs import DIM, ITEMS, USERS, dense_adjacency, interactions


def nothing(rows: torch.Tensor) -> torch.Tensor:
    raise AssertionError("this model has no neighbours")


def dense_of(name: ModelName, seed: int = 5) -> dict[str, torch.Tensor]:
    found = MODELS[name].initial(DIM, seed)
    generator = torch.Generator().manual_seed(seed)
    # Biases start at 0: fill them, so that a forgotten one shows.
    return {
        key: torch.from_numpy(values) + 0.1 * torch.randn(values.shape, generator=generator)
        for key, values in found.items()
    }


@pytest.mark.parametrize("name", list(MODELS))
def test_all_scores_are_the_pairs_scores(name: ModelName) -> None:
    model, dense = MODELS[name], dense_of(name)
    users, items = torch.randn(7, DIM), torch.randn(11, DIM)
    table = model.scores(users[None], items[None], dense)
    assert table.shape == (1, 7, 11)
    for a in range(7):
        pairs = model.pair_scores(users[a].expand(11, DIM), items, dense)
        torch.testing.assert_close(table[0, a], pairs, atol=1e-5, rtol=1e-5)


def test_mf_is_the_inner_product() -> None:
    users, items = torch.randn(5, DIM), torch.randn(5, DIM)
    expected = torch.tensor([float(u @ i) for u, i in zip(users, items, strict=True)])
    assert MODELS["mf"].propagate(users, nothing, {}) is users
    torch.testing.assert_close(MODELS["mf"].pair_scores(users, items, {}), expected)


def test_lightgcn_is_the_mean_of_powers_of_the_adjacency() -> None:
    adjacency = dense_adjacency(interactions(3))
    rows = torch.randn(USERS + ITEMS, DIM)
    powers = sum(torch.linalg.matrix_power(adjacency, k) for k in range(4)) / 4
    got = MODELS["lightgcn"].propagate(rows, lambda x: adjacency @ x, {})
    torch.testing.assert_close(got, powers @ rows, atol=1e-5, rtol=1e-5)


def test_ngcf_sends_the_papers_messages() -> None:
    """Equations 3 and 4, edge by edge, without matrices of messages."""
    pairs = interactions(4)
    adjacency, dense = dense_adjacency(pairs), dense_of("ngcf")
    rows = torch.randn(USERS + ITEMS, DIM)
    outputs, current = [rows], rows
    for i in range(3):
        w1, b1 = dense[f"sum{i}.weight"], dense[f"sum{i}.bias"]
        w2, b2 = dense[f"product{i}.weight"], dense[f"product{i}.bias"]
        after = []
        for u in range(USERS + ITEMS):
            message = w1 @ current[u] + b1 + b2  # from itself, and each layer's bias once
            for v in torch.nonzero(adjacency[u]).ravel().tolist():
                coefficient = adjacency[u, v]
                message = message + coefficient * (w1 @ current[v] + w2 @ (current[v] * current[u]))
            after.append(torch.where(message > 0, message, 0.2 * message))
        current = torch.stack(after)
        outputs.append(current / current.norm(dim=1, keepdim=True))
    expected = torch.cat(outputs, dim=1)
    for wants_gradients in (False, True):
        got = MODELS["ngcf"].propagate(
            rows.clone().requires_grad_(wants_gradients), lambda x: adjacency @ x, dense
        )
        torch.testing.assert_close(got.detach(), expected, atol=2e-5, rtol=1e-4)


def test_neumf_is_gmf_beside_a_perceptron() -> None:
    dense = dense_of("neumf")
    user, item = torch.randn(DIM), torch.randn(DIM)
    half = DIM // 2
    gmf = user[:half] * item[:half]
    hidden = torch.cat([user[half:], item[half:]])
    for i in range(3):
        hidden = F.relu(dense[f"layer{i}.weight"] @ hidden + dense[f"layer{i}.bias"])
    expected = torch.cat([gmf, hidden]) @ torch.cat([dense["output.gmf"], dense["output.mlp"]])
    got = MODELS["neumf"].pair_scores(user[None], item[None], dense)
    torch.testing.assert_close(got[0], expected, atol=1e-5, rtol=1e-5)


def test_the_same_seed_gives_the_same_layers() -> None:
    for name, model in MODELS.items():
        one, same, other = (model.initial(DIM, seed) for seed in (1, 1, 2))
        for key in one:
            np.testing.assert_array_equal(one[key], same[key])
        assert all("bias" in key or "gmf" in key or (one[key] != other[key]).any() for key in one)
        assert bool(one) == (name in ("neumf", "ngcf"))


def test_neumf_refuses_a_width_that_cannot_be_halved() -> None:
    with pytest.raises(ValueError, match="multiple of 8"):
        MODELS["neumf"].initial(12, 1)
