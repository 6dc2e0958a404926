"""The factorisation in blocks, against scikit-learn's on the whole matrix; no Spark is needed."""

import warnings
from functools import reduce

import numpy as np
import pytest
from sklearn.decomposition import NMF
from sklearn.decomposition._nmf import _initialize_nmf

from pipeline.data.split import Pairs
from pipeline.nmf import NmfOptions, normalised
from pipeline.spark.blocks import Block, Start, Svd, gram, spread, squares, sums, sweep, update_rows

USERS, ITEMS, RANK = 60, 45, 3


@pytest.fixture(scope="module")
def data():
    """Interactions in three groups of taste, the same in blocks, and the whole matrix."""
    rng = np.random.default_rng(3)
    alike = np.arange(USERS)[:, None] % 3 == np.arange(ITEMS) % 3
    like = alike * np.array([0.9, 0.6, 0.35])[np.arange(ITEMS) % 3] + 0.04
    users, items = (a.astype(np.int32) for a in np.nonzero(rng.random((USERS, ITEMS)) < like))
    degrees = np.bincount(items, minlength=ITEMS)
    options = NmfOptions()
    blocks = [
        Block.of(users[users % 4 == k], items[users % 4 == k], degrees, options.power)
        for k in range(4)
    ]
    whole = normalised(Pairs(users, items, None), USERS, ITEMS, options)
    return blocks, whole


def gathered(blocks, parts):
    """Put the blocks' rows (n, d) back in order."""
    whole = np.zeros((USERS, parts[0].shape[1]), np.float32)
    for block, rows in zip(blocks, parts, strict=True):
        whole[block.users] = rows
    return whole


def test_blocks_are_the_normalised_matrix(data):
    blocks, whole = data
    found = np.zeros((USERS, ITEMS))
    for block in blocks:
        found[block.users] = block.matrix.toarray()
    np.testing.assert_allclose(found, whole.toarray(), rtol=1e-6)


@pytest.fixture(scope="module")
def start(data):
    blocks, whole = data
    basis = np.random.default_rng(1).standard_normal((ITEMS, RANK + 10)).astype(np.float32)
    for _ in range(7):
        basis = np.linalg.qr(sum(spread(block, basis) for block in blocks))[0].astype(np.float32)
    svd = Svd.of(basis, sum(gram(block, basis) for block in blocks), RANK)
    left_squares = sum(squares(block, svd) for block in blocks)
    made, h = Start.of(svd, left_squares, float(whole.mean()))
    return svd, [made.rows(block) for block in blocks], h


def test_singular_values(data, start):
    exact = np.linalg.svd(data[1].toarray(), compute_uv=False)[:RANK]
    np.testing.assert_allclose(start[0].values, exact, rtol=1e-4)


def test_the_start_is_nndsvda(data, start):
    blocks, whole = data
    _, w, h = start
    w_expected, h_expected = _initialize_nmf(whole, RANK, init="nndsvda", random_state=1)
    np.testing.assert_allclose(gathered(blocks, w), w_expected, atol=2e-4)
    np.testing.assert_allclose(h.T, h_expected, atol=2e-4)


def test_coordinate_descent_is_scikit_learns(data, start):
    blocks, whole = data
    _, w, h = start
    model = NMF(RANK, init="custom", solver="cd", max_iter=6, tol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        w_expected = model.fit_transform(whole, W=gathered(blocks, w), H=h.T.copy())
    for _ in range(6):
        w = [update_rows(block, rows, h) for block, rows in zip(blocks, w, strict=True)]
        both = [sums(block, rows) for block, rows in zip(blocks, w, strict=True)]
        cross, square = reduce(lambda a, b: (a[0] + b[0], a[1] + b[1]), both)
        h = sweep(h, cross, square)
    np.testing.assert_allclose(gathered(blocks, w), w_expected, atol=1e-4)
    np.testing.assert_allclose(h.T, model.components_, atol=1e-4)
    assert h.min() == 0.0
