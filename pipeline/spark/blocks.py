"""Non-negative factorisation of a matrix that lies in blocks of rows: the arithmetic of one block.

Coordinate descent as scikit-learn's ``NMF(solver="cd")`` does it (Cichocki and Phan, 2009): rows of
W do not look at one another, so a block updates its own, given H; what H's update needs of a block
are two small sums. The start is NNDSVDA (Boutsidis and Gallopoulos, 2008) of a subspace iteration.
Spark's workers import this module and nothing else of the project: it stays light.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
LEAST = 1e-6
"""Smaller entries of the start count as 0, as in scikit-learn."""


@dataclass(frozen=True)
class Block:
    """Some users' rows of the normalised matrix.

    Attributes:
        users: int32 (n,), their indices.
        matrix: CSR float32 (n, num_items).
    """

    users: npt.NDArray[np.int32]
    matrix: sp.csr_matrix

    @classmethod
    def of(
        cls,
        users: npt.NDArray[np.int32],
        items: npt.NDArray[np.int32],
        item_degrees: npt.NDArray[np.int64],
        power: float,
    ) -> Block:
        """Build D_u^-p R D_i^-p of all interactions (n,) of some users, p the ``power``.

        ``item_degrees`` (num_items,) are the whole matrix's.
        """
        present, rows, degrees = np.unique(users, return_inverse=True, return_counts=True)
        values = (degrees[rows] * item_degrees[items].astype(np.float64)) ** -power
        shape = (len(present), len(item_degrees))
        matrix = sp.csr_matrix((values.astype(np.float32), (rows, items)), shape)
        return cls(present.astype(np.int32), matrix)


def spread(block: Block, basis: F32) -> F32:
    """Give R_b^T R_b X for a basis X (num_items, r): a block's part of one subspace iteration."""
    product: F32 = block.matrix.T @ (block.matrix @ basis)
    return product


def gram(block: Block, basis: F32) -> F64:
    """Give (R_b X)^T (R_b X), (r, r)."""
    rows = (block.matrix @ basis).astype(np.float64)
    product: F64 = rows.T @ rows
    return product


@dataclass(frozen=True)
class Svd:
    """The leading singular triples, without the left vectors, which a block makes for itself.

    Attributes:
        values: float64 (d,), descending.
        right: float32 (num_items, d), orthonormal columns.
    """

    values: F64
    right: F32

    @classmethod
    def of(cls, basis: F32, whole_gram: F64, rank: int) -> Svd:
        """Rotate an orthonormal basis (num_items, r) by the sum of ``gram`` over all blocks."""
        squares, turn = np.linalg.eigh(whole_gram)
        order = np.argsort(squares)[::-1][:rank]
        values = np.sqrt(np.maximum(squares[order], 0))
        return cls(values, (basis @ turn[:, order]).astype(np.float32))

    def left(self, block: Block) -> F32:
        """Give the block's rows of the left singular vectors, float32 (n, d)."""
        rows: F32 = (block.matrix @ self.right) / np.maximum(self.values, 1e-12).astype(np.float32)
        return rows


def squares(block: Block, svd: Svd) -> F64:
    """Give the sums of squares of the left vectors' positive and negative parts, (2, d)."""
    left = svd.left(block).astype(np.float64)
    both = np.maximum(left, 0), np.maximum(-left, 0)
    return np.stack([(part**2).sum(axis=0) for part in both])


@dataclass(frozen=True)
class Start:
    """NNDSVDA: of each singular pair the parts of one sign, those of larger norm.

    Attributes:
        svd: of the matrix.
        signs: float32 (d,), which part: 1 or -1; 0 takes absolute values, for the first pair.
        scales: float32 (d,), of the left vectors' part.
        fill: what zeros become, the matrix's mean.
    """

    svd: Svd
    signs: F32
    scales: F32
    fill: float

    @classmethod
    def of(cls, svd: Svd, left_squares: F64, mean: float) -> tuple[Start, F32]:
        """Choose the parts; also give H^T's start, float32 (num_items, d).

        Args:
            svd: of the matrix.
            left_squares: the sum of ``squares`` over all blocks.
            mean: of all entries of the matrix.
        """
        left, right = np.sqrt(left_squares), svd.right.astype(np.float64)
        halves = np.stack([np.maximum(right, 0), np.maximum(-right, 0)])  # (2, items, d)
        norms = np.linalg.norm(halves, axis=1)
        positive = left[0] * norms[0] > left[1] * norms[1]
        chosen = np.where(positive, 0, 1)
        columns = np.arange(len(chosen))
        u_norm, v_norm = left[chosen, columns], norms[chosen, columns]
        size = np.sqrt(svd.values * u_norm * v_norm)
        items = halves[chosen, :, columns].T * (size / np.maximum(v_norm, 1e-12))
        scales = size / np.maximum(u_norm, 1e-12)
        signs = np.where(positive, 1.0, -1.0)
        root = np.sqrt(svd.values[0])
        items[:, 0], scales[0], signs[0] = root * np.abs(right[:, 0]), root, 0.0
        start = cls(svd, signs.astype(np.float32), scales.astype(np.float32), mean)
        return start, start._filled(items.astype(np.float32))

    def rows(self, block: Block) -> F32:
        """Give W's start for a block, float32 (n, d)."""
        left = self.svd.left(block)
        part = np.where(self.signs == 0, np.abs(left), np.maximum(left * self.signs, 0))
        return self._filled((part * self.scales).astype(np.float32))

    def _filled(self, factor: F32) -> F32:
        return np.where(factor < LEAST, np.float32(self.fill), factor)


def sweep(factor: F32, cross: F32, other: F32) -> F32:
    """Do one round of coordinate descent on all rows of a factor.

    Args:
        factor: float32 (n, d), as it is.
        cross: R X, float32 (n, d), for the other factor X.
        other: X^T X, float32 (d, d).
    """
    factor = factor.copy()
    for t in range(factor.shape[1]):
        if other[t, t] > 0:
            step = (factor @ other[:, t] - cross[:, t]) / other[t, t]
            factor[:, t] = np.maximum(factor[:, t] - step, 0)
    return factor


def update_rows(block: Block, rows: F32, items: F32) -> F32:
    """Update a block's rows of W (n, d), given H^T (num_items, d)."""
    return sweep(rows, block.matrix @ items, items.T @ items)


def sums(block: Block, rows: F32) -> tuple[F32, F32]:
    """Give what H's update needs of a block: R_b^T W_b (num_items, d) and W_b^T W_b (d, d)."""
    return block.matrix.T @ rows, rows.T @ rows


def add(first: tuple[F32, F32], second: tuple[F32, F32]) -> tuple[F32, F32]:
    """Add two blocks' ``sums``."""
    return first[0] + second[0], first[1] + second[1]


def batch_of(index: npt.NDArray[np.int32], rows: F32, dim: int) -> Any:
    """Make a record batch of indices (n,) and vectors (n, dim), zeros beyond the rank."""
    rows = rows.reshape(len(index), -1)
    wide = np.zeros((len(index), dim), np.float32)
    wide[:, : rows.shape[1]] = rows
    offsets = pa.array(np.arange(0, wide.size + 1, dim, dtype=np.int32))
    vectors = pa.ListArray.from_arrays(offsets, pa.array(wide.ravel()))
    return pa.record_batch([pa.array(index), vectors], names=["index", "vector"])
