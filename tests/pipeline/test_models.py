"""Each model's maths against its paper's equations, written out densely here."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch.nn import functional as F

from pipeline import SparseRec
from pipeline.data.logs import write_csv
from pipeline.data.split import temporal_split
from pipeline.data.synthetic import generate
from pipeline.fit import fit
from pipeline.history import History
from pipeline.models import MODELS, ModelName
from pipeline.models.ngcf import normalize
from pipeline.recipes import RECIPES
from pipeline.run import load_run
from sparserec.errors import SparseRecError
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


def test_neumf_by_blocks_is_the_pairs_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that fit, that do not, and one that holds everything."""
    neumf, dense = MODELS["neumf"], dense_of("neumf")
    users, items = torch.randn(5, DIM), torch.randn(11, DIM)
    every = users.repeat_interleave(11, dim=0), items.repeat(5, 1)
    pairs = neumf.pair_scores(*every, dense).view(5, 11)
    for block in (1, 4, 11, 2048):
        monkeypatch.setattr(neumf, "BLOCK", block)
        found = neumf.catalogue_scores(users, items, dense)  # type: ignore[attr-defined]
        torch.testing.assert_close(found, pairs, atol=1e-5, rtol=1e-5)


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


def test_rows_of_any_length_are_normalised_but_zeros() -> None:
    found = normalize(torch.tensor([[3.0, 4.0], [0.03, 0.04], [0, 0]]))
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.8], [0.6, 0.8], [0, 0]]))


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
    for name in ("mf", "neumf", "ngcf", "lightgcn"):
        one, same, other = (MODELS[name].initial(DIM, seed) for seed in (1, 1, 2))
        for key in one:
            np.testing.assert_array_equal(one[key], same[key])
        assert all("bias" in key or "gmf" in key or (one[key] != other[key]).any() for key in one)
        assert bool(one) == (name in ("neumf", "ngcf"))


def test_layers_start_as_wide_as_their_rules_say() -> None:
    neumf, ngcf = (MODELS[name].initial(512, 1) for name in ("neumf", "ngcf"))
    for layer in range(3):  # He et al., ICCV 2015: inputs alone count, for a ReLU follows
        spread = np.sqrt(2 / (512 >> layer))
        assert neumf[f"layer{layer}.weight"].std() == pytest.approx(spread, rel=0.02)
    assert neumf["output.mlp"].std() == pytest.approx(np.sqrt(8 / 512), rel=0.25)
    assert (neumf["output.gmf"] == 1).all()
    for name in ("sum0.weight", "product2.weight"):  # Glorot and Bengio, AISTATS 2010
        assert np.abs(ngcf[name]).max() == pytest.approx(np.sqrt(6 / (512 + 512)), rel=1e-3)


def test_neumf_refuses_a_width_that_cannot_be_halved() -> None:
    with pytest.raises(SparseRecError, match="multiple of 8"):
        MODELS["neumf"].initial(12, 1)


@pytest.fixture
def metric(tmp_path: Path) -> Path:
    """The file that docs/models.md shows."""
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    (text,) = re.findall(r"```python\n(.*?)```", page, re.S)
    path = tmp_path / "metric.py"
    path.write_text(text)
    return path


def test_a_fifth_model_is_one_file(metric: Path) -> None:
    """It agrees with itself, trains by SparseRec and by a baseline, and is saved and loaded."""
    test_all_scores_are_the_pairs_scores(str(metric))
    log = generate(80, 120, 3000, seed=3)
    matrix = sp.csr_matrix((np.ones(len(log)), (log.users, log.items)), (80, log.num_items))
    for method in ("sparserec", "rigl"):
        model = SparseRec(str(metric), method, dim=16, density=0.25, epochs=5)
        model.recipe = replace(
            model.recipe, window=7, step=replace(model.recipe.step, batch_size=128)
        )
        model.fit(matrix, show_progress=False)
        losses = [epoch["loss"] for epoch in model.history if epoch["epoch"]]
        assert losses[-1] < losses[0]
        assert model.history[-1]["exchanged"] > 0
        assert max(epoch["recall@20"] for epoch in model.history) > 1.2 * 20 / log.num_items
        weight = model._state.recommender.dense["weight"]
        assert weight.shape == (16,)
        assert (weight != 1).mean() > 0.5
        table = model._state.recommender.table
        rows = table.dense(0, table.num_rows) != 0
        used = rows[: table.num_users].any(axis=0) & rows[table.num_users :].any(axis=0)
        assert (weight != 1)[used].all()  # it was trained, where both sides use a column
    model.save(metric.parent / "model")
    again = SparseRec.load(metric.parent / "model")
    np.testing.assert_array_equal(again.recommend(3)[0], model.recommend(3)[0])


def test_a_fifth_model_with_layers_needs_no_recompute(tmp_path: Path) -> None:
    """A file that leaves out what is optional has the gradients of the model it is a copy of."""
    path = tmp_path / "two_hops.py"
    path.write_text(
        "from pipeline.models.inner_product import PAIR_FLOATS, pair_scores, scores\n"
        "from pipeline.models.lightgcn import initial\n"
        "from pipeline.models import lightgcn\n"
        "GRAPH = 'layers'\n"
        "def propagate(rows, aggregate, dense):\n"
        "    return lightgcn.propagate(rows, aggregate, dense)\n"
    )
    log = generate(80, 120, 3000, seed=3)
    matrix = sp.csr_matrix((np.ones(len(log)), (log.users, log.items)), (80, log.num_items))
    losses = []
    for name in (str(path), "lightgcn"):
        model = SparseRec(name, dim=16, density=0.25, epochs=2)
        # NMF's start is refined through a linear graph, and not through layers.
        model.recipe = replace(model.recipe, start="random", value_scale=0.25)
        model.fit(matrix, show_progress=False)
        losses.append([epoch["loss"] for epoch in model.history])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_linear_graph_has_no_dense_parameters(metric: Path) -> None:
    metric.write_text(metric.read_text().replace('"none"', '"linear"'))
    with pytest.raises(SparseRecError, match="GRAPH is linear, and there are dense parameters"):
        SparseRec(str(metric))


def test_a_fifth_model_trains_from_the_command_line(metric: Path) -> None:
    command = [sys.executable, "-c", "from sparserec.cli import main; main()"]
    where = metric.parent
    write_csv(generate(200, 500, 10_000, seed=1), where / "log.csv")
    train = [*command, "train", "log.csv", "--model", "metric.py", "--dim", "32", "--epochs", "2"]
    subprocess.run([*train, "--out", "run"], cwd=where, check=True, capture_output=True)
    run = load_run(where / "run")
    assert run.recipe.step.model == "metric.py"
    assert list(run.dense) == ["weight"]


def test_a_checkpoint_is_of_the_file_as_it_was_trained(metric: Path) -> None:
    split = temporal_split(generate(80, 120, 3000, seed=3))
    recipe = RECIPES["static"]()
    recipe = replace(recipe, dim=32, epochs=1, step=replace(recipe.step, model=str(metric)))
    checkpoint, name = metric.parent / "checkpoint.safetensors", str(metric)

    def history() -> History:
        MODELS.pop(name, None)  # as in a new process
        return fit(recipe, split, checkpoint).history

    first = history()
    assert history() == first
    metric.write_text(metric.read_text().replace("np.ones(dim", "2 * np.ones(dim"))
    with pytest.raises(SparseRecError, match="made with another recipe, model file"):
        history()
    checkpoint.unlink()
    assert history() != first


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "half.py"
    with pytest.raises(SparseRecError, match=r"half\.py: no such file"):
        MODELS[str(path)]
    path.write_text("GRAPH = 'none'\ndef scores(users, items, dense): ...\n")
    with pytest.raises(
        SparseRecError, match="PAIR_FLOATS, initial, propagate, pair_scores missing"
    ):
        MODELS[str(path)]
    path.write_text("1 / 0")
    with pytest.raises(SparseRecError, match=r"half\.py: ZeroDivisionError"):
        MODELS[str(path)]
    with pytest.raises(SparseRecError, match="model 'als' is unknown"):
        MODELS["als"]
