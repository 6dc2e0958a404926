"""NMF initialisation: which entries are active and what they start from (arXiv 2411.12205)."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import scipy.sparse as sp
from safetensors import SafetensorError
from safetensors.numpy import load, save

from pipeline.data.interactions import pair_keys
from pipeline.data.split import Pairs
from pipeline.files import write_atomic
from pipeline.masks import choose, slices
from pipeline.matrices import matrix_of
from pipeline.table import F32, Bool, PackedTable
from sparserec.errors import SparseRecError


@dataclass(frozen=True)
class NmfOptions:
    """How interactions are factored.

    Attributes:
        normalisation: of the user-item matrix R. ``none``: ones. ``degree``: D_u^-p R D_i^-p with
            p the ``power``. ``ppmi``: the positive part of log(|R| / (d_u d_i)), positive pointwise
            mutual information, which Levy and Goldberg (NeurIPS 2014) factor for words and
            contexts.
        power: p; 0.5 is the adjacency that LightGCN propagates on, 0 no normalisation.
        solver: scikit-learn's ``cd``, coordinate descent, or ``mu``, multiplicative updates; both
            for the squared error.
        start: ``nndsvda``, from a randomised SVD with zeros filled by the mean, or ``random``.
        iterations: at most; few, because the factors start the training and are not the model.
    """

    normalisation: Literal["none", "degree", "ppmi"] = "degree"
    power: float = 0.3
    solver: Literal["cd", "mu"] = "cd"
    start: Literal["nndsvda", "random"] = "nndsvda"
    iterations: int = 30


@dataclass(frozen=True)
class Factors:
    """Non-negative factors of the normalised user-item matrix.

    Attributes:
        rows: float32 (N, d): [W; H^T], each component's scale shared evenly by the two sides.
        num_users: rows [0, num_users) are users.
    """

    rows: F32
    num_users: int


def normalised(pairs: Pairs, num_users: int, num_items: int, options: NmfOptions) -> sp.csr_matrix:
    """Build R, float32 (num_users, num_items), weighted as ``NmfOptions.normalisation`` says."""
    how, power = options.normalisation, options.power
    matrix = matrix_of(pairs, (num_users, num_items))
    if how == "none":
        return matrix
    by_user = np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1)
    by_item = np.maximum(np.asarray(matrix.sum(axis=0)).ravel(), 1)
    if how == "degree":
        left, right = (sp.diags(degrees ** np.float64(-power)) for degrees in (by_user, by_item))
        return (left @ matrix @ right).astype(np.float32).tocsr()
    matrix = (sp.diags(len(pairs) / by_user) @ matrix @ sp.diags(1 / by_item)).tocsr()
    matrix.data = np.maximum(np.log(matrix.data), 0).astype(np.float32)
    matrix.eliminate_zeros()
    return matrix


def factorise(
    pairs: Pairs,
    num_users: int,
    num_items: int,
    dim: int,
    seed: int,
    options: NmfOptions = NmfOptions(),
) -> Factors:
    """Factor the normalised user-item matrix at rank d with scikit-learn's NMF.

    Args:
        pairs: training interactions.
        num_users: rows of R.
        num_items: columns of R.
        dim: rank d; columns beyond the matrix's own rank stay 0.
        seed: of the start.
        options: normalisation, solver, start, iterations.
    """
    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    matrix = normalised(pairs, num_users, num_items, options)
    rank = min(dim, num_users, num_items)
    model = NMF(
        rank,
        init=options.start,
        solver=options.solver,
        max_iter=options.iterations,
        random_state=seed,
    )
    with warnings.catch_warnings():
        # Few iterations are meant: the factors start the training, they are not the model.
        warnings.simplefilter("ignore", ConvergenceWarning)
        users = model.fit_transform(matrix)
    items = model.components_.T
    balance = balanced(np.linalg.norm(users, axis=0), np.linalg.norm(items, axis=0))
    rows = np.zeros((num_users + num_items, dim), np.float32)
    np.multiply(users, balance, out=rows[:num_users, :rank])
    np.divide(items, balance, out=rows[num_users:, :rank])
    return Factors(rows, num_users)


def balanced(users: F32, items: F32) -> F32:
    """Give what W's columns are multiplied and H's divided by, (d,), for their norms to be equal.

    W and H share each component's scale arbitrarily.

    Args:
        users: norms of W's columns (d,).
        items: norms of H's rows (d,).
    """
    ratio: F32 = np.sqrt(np.maximum(items, 1e-12) / np.maximum(users, 1e-12))
    return ratio


def factorise_cached(
    pairs: Pairs,
    num_users: int,
    num_items: int,
    dim: int,
    seed: int,
    options: NmfOptions,
    folder: Path,
) -> Factors:
    """Do what ``factorise`` does, once for all runs that share ``folder``.

    A file is named by the SHA-256 of the interactions, sizes, options and seed, and appears whole
    or not at all; two runs that meet both compute it. A damaged file is computed again.
    """
    digest = hashlib.sha256(repr((num_users, num_items, dim, seed, asdict(options))).encode())
    digest.update(np.sort(pair_keys(pairs.users, pairs.items, num_items)).tobytes())
    path = folder / f"nmf-{digest.hexdigest()[:32]}.safetensors"
    if path.exists():
        try:
            rows = load(path.read_bytes())["rows"]
        except (SafetensorError, KeyError):
            rows = np.empty((0, 0), np.float32)
        if rows.shape == (num_users + num_items, dim):
            return Factors(rows, num_users)
    factors = factorise(pairs, num_users, num_items, dim, seed, options)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, save({"rows": factors.rows}))
    return factors


def side_by_side(parts: Sequence[Factors]) -> Factors:
    """Give each factorisation columns of its own, as NeuMF needs for the two halves of a row."""
    rows = np.concatenate([part.rows for part in parts], axis=1)
    return Factors(rows, parts[0].num_users)


def budget(num_rows: int, dim: int, density: float, floor: int) -> int:
    """Give the number of active entries, round(density N d).

    Raises:
        SparseRecError: if it cannot give every row ``floor`` entries, or exceeds N d.
    """
    count = round(density * num_rows * dim)
    if not num_rows * floor <= count <= num_rows * dim:
        raise SparseRecError(
            f"{count} active entries cannot give {num_rows} rows of {dim} at least {floor} each",
            "raise the density (--density) or the number of columns (--dim)",
        )
    return count


def top_entries(scores: F32, count: int, floor: int) -> Bool:
    """Pick ``count`` of the (N, d) ``scores``: each row's best ``floor``, then the best overall.

    Ties go to the smaller (row, column).

    Args:
        scores: float32 (N, d).
        count: from ``budget``.
        floor: least entries of a row.
    """
    chunks = choose(
        lambda: (scores[rows] for rows in slices(len(scores))), scores.shape, count, floor
    )
    return np.concatenate(list(chunks))


def nmf_table(
    factors: Factors,
    density: float,
    floor: int,
    rescale: float,
    value_scale: float,
    sides: Literal["joint", "each"] = "joint",
) -> PackedTable:
    """Build the table that training starts from: the factors' largest entries, with their values.

    Args:
        factors: from ``factorise``.
        density: active entries / (N d).
        floor: least active entries of a row.
        rescale: entries are ranked after dividing each row by its norm to this power; 0 favours
            rows with large factors, 1 treats all rows alike.
        value_scale: root mean square of the active values.
        sides: ``joint``: users and items compete for the budget; ``each``: both get their rows'
            share of it.

    Raises:
        SparseRecError: if the budget cannot give every row ``floor`` entries.
    """
    rows, num_users = factors.rows, factors.num_users
    num_rows, dim = rows.shape
    count = budget(num_rows, dim, density, floor)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    ranked = rows / np.maximum(norm, 1e-12) ** rescale
    if sides == "joint":
        mask = top_entries(ranked, count, floor)
    else:
        of_users = budget(num_users, dim, density, floor)
        parts = (ranked[:num_users], of_users), (ranked[num_users:], count - of_users)
        mask = np.concatenate([top_entries(part, share, floor) for part, share in parts])
    table = PackedTable.from_dense(rows, mask, num_users)
    rescale_values(table, value_scale)
    return table


def rescale_values(table: PackedTable, value_scale: float) -> None:
    """Give a table's values a root mean square of ``value_scale``, in place."""
    rms = float(np.sqrt(np.sum(table.vals**2) / max(1, table.nnz)))
    table.vals *= np.float32(value_scale / max(rms, 1e-12))


def random_table(
    num_users: int, num_items: int, dim: int, density: float, floor: int, std: float, seed: int
) -> PackedTable:
    """Build a table whose mask and normal(0, std) values are random; density 1 is a dense table.

    Every entry is drawn, and none but the active ones is kept: nothing of N d is held.
    """
    rows = num_users + num_items
    count = budget(rows, dim, density, floor)

    rng = np.random.default_rng(seed)

    def scores() -> Iterator[F32]:
        nonlocal rng
        rng = np.random.default_rng(seed)
        for part in slices(rows):
            yield rng.random((part.stop - part.start, dim), np.float32)

    row_ptr, cols = np.zeros(rows + 1, np.int64), np.empty(count, np.uint8)
    for part, mask in zip(slices(rows), choose(scores, (rows, dim), count, floor), strict=True):
        ends = row_ptr[part.start] + np.cumsum(mask.sum(axis=1))
        row_ptr[part.start + 1 : part.stop + 1] = ends
        cols[row_ptr[part.start] : ends[-1]] = np.nonzero(mask)[1]
    table = PackedTable(row_ptr, cols, np.empty(count, np.float32), num_users, num_items, dim)
    for part in slices(rows):  # the values' draws come after all of the mask's
        values = rng.normal(0.0, std, (part.stop - part.start, dim))
        found = table.entries(np.arange(part.start, part.stop))
        table.vals[found.index] = values[found.slot, found.col]
    return table
