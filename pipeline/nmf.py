"""NMF initialisation: which entries are active and what they start from (arXiv 2411.12205)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from pipeline.data.split import Pairs
from pipeline.table import F32, Bool, PackedTable
from sparserec.errors import SparseRecError

NMF_ITERATIONS = 30


@dataclass(frozen=True)
class Factors:
    """Non-negative factors of the degree-normalised user-item matrix.

    Attributes:
        rows: float32 (N, d): [W; H^T], each component's scale shared evenly by the two sides.
        num_users: rows [0, num_users) are users.
    """

    rows: F32
    num_users: int


def factorise(pairs: Pairs, num_users: int, num_items: int, dim: int, seed: int) -> Factors:
    """Factor D_u^-1/2 R D_i^-1/2 at rank d with scikit-learn's coordinate-descent NMF.

    Args:
        pairs: training interactions.
        num_users: rows of R.
        num_items: columns of R.
        dim: rank d.
        seed: of the randomised SVD behind the nndsvda start.
    """
    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    ones = np.ones(len(pairs), np.float32)
    matrix = sp.csr_matrix((ones, (pairs.users, pairs.items)), shape=(num_users, num_items))
    by_user = 1 / np.sqrt(np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1))
    by_item = 1 / np.sqrt(np.maximum(np.asarray(matrix.sum(axis=0)).ravel(), 1))
    matrix = (sp.diags(by_user) @ matrix @ sp.diags(by_item)).astype(np.float32).tocsr()
    rank = min(dim, num_users, num_items)
    model = NMF(rank, init="nndsvda", max_iter=NMF_ITERATIONS, random_state=seed)
    with warnings.catch_warnings():
        # Few iterations are meant: the factors start the training, they are not the model.
        warnings.simplefilter("ignore", ConvergenceWarning)
        users = model.fit_transform(matrix)
    items = model.components_.T
    # W and H share each component's scale arbitrarily; make their columns' norms equal.
    norms = np.linalg.norm(users, axis=0), np.linalg.norm(items, axis=0)
    balance = np.sqrt(np.maximum(norms[1], 1e-12) / np.maximum(norms[0], 1e-12))
    rows = np.zeros((num_users + num_items, dim), np.float32)
    rows[:num_users, :rank] = users * balance
    rows[num_users:, :rank] = items / balance
    return Factors(rows, num_users)


def top_entries(scores: F32, count: int, floor: int) -> Bool:
    """Pick ``count`` of the (N, d) ``scores``: each row's best ``floor``, then the best overall.

    Ties go to the smaller (row, column).

    Raises:
        SparseRecError: if count < N * floor or count > N * d.
    """
    num_rows, dim = scores.shape
    if not num_rows * floor <= count <= num_rows * dim:
        raise SparseRecError(
            f"{count} active entries cannot give {num_rows} rows of {dim} at least {floor} each",
            "raise the density (--density) or the number of columns (--dim)",
        )
    mask = np.zeros(scores.shape, np.bool_)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :floor]
    np.put_along_axis(mask, best, True, axis=1)
    rest = np.where(mask, -np.inf, scores).ravel()
    mask.ravel()[np.argsort(-rest, kind="stable")[: count - num_rows * floor]] = True
    return mask


def nmf_table(
    factors: Factors, density: float, floor: int, rescale: float, value_scale: float
) -> PackedTable:
    """Build the table that training starts from: the factors' largest entries, with their values.

    Args:
        factors: from ``factorise``.
        density: active entries / (N d).
        floor: least active entries of a row.
        rescale: entries are ranked after dividing each row by its norm to this power; 0 favours
            rows with large factors, 1 treats all rows alike.
        value_scale: root mean square of the active values.
    """
    rows = factors.rows
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    ranked = rows / np.maximum(norm, 1e-12) ** rescale
    mask = top_entries(ranked, round(density * rows.size), floor)
    values = rows * mask
    rms = np.sqrt(np.mean(values[mask] ** 2))
    return PackedTable.from_dense(
        (values * (value_scale / max(float(rms), 1e-12))).astype(np.float32),
        mask,
        factors.num_users,
    )


def random_table(
    num_users: int, num_items: int, dim: int, density: float, floor: int, std: float, seed: int
) -> PackedTable:
    """Build a table whose mask and normal(0, std) values are random; density 1 is a dense table."""
    rng = np.random.default_rng(seed)
    shape = (num_users + num_items, dim)
    count = round(density * shape[0] * dim)
    mask = top_entries(rng.random(shape, np.float32), count, floor)
    values = rng.normal(0.0, std, shape).astype(np.float32)
    return PackedTable.from_dense(values, mask, num_users)
