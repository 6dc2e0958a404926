"""The packed embedding table: only active entries are stored (docs/formats.md section 1.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

MAX_DIM = 256
"""Columns are stored in one byte."""


@dataclass(frozen=True)
class Entries:
    """The active entries of some rows, row after row, columns ascending.

    Attributes:
        index: (E,) position of each entry in ``cols`` and ``vals``.
        slot: (E,) which of the asked rows it belongs to.
        col: (E,) its column.
    """

    index: I64
    slot: I64
    col: I64


@dataclass
class PackedTable:
    """Users' rows, then items' rows; row r's entries are ``[row_ptr[r], row_ptr[r+1])``.

    Attributes:
        row_ptr: int64 (N+1,).
        cols: uint8 (nnz,), strictly increasing inside a row.
        vals: float32 (nnz,).
        num_users: rows [0, num_users) are users.
        num_items: rows [num_users, num_users + num_items) are items.
        dim: d, at most 256.
    """

    row_ptr: I64
    cols: U8
    vals: F32
    num_users: int
    num_items: int
    dim: int

    @property
    def num_rows(self) -> int:
        """N, users and items."""
        return self.num_users + self.num_items

    @property
    def nnz(self) -> int:
        """Active entries."""
        return int(self.vals.shape[0])

    @property
    def density(self) -> float:
        """Active entries / (N d)."""
        return self.nnz / (self.num_rows * self.dim)

    @classmethod
    def from_dense(cls, values: F32, mask: Bool, num_users: int) -> PackedTable:
        """Pack the entries of ``values`` (N, d) where ``mask`` (N, d) holds."""
        num_rows, dim = values.shape
        row_ptr = np.zeros(num_rows + 1, np.int64)
        np.cumsum(mask.sum(axis=1), out=row_ptr[1:])
        return cls(
            row_ptr=row_ptr,
            cols=np.nonzero(mask)[1].astype(np.uint8),
            vals=values[mask].astype(np.float32),
            num_users=num_users,
            num_items=num_rows - num_users,
            dim=dim,
        )

    def copy(self) -> PackedTable:
        """Copy the arrays, so that the two tables share nothing."""
        return PackedTable(
            self.row_ptr.copy(),
            self.cols.copy(),
            self.vals.copy(),
            self.num_users,
            self.num_items,
            self.dim,
        )

    def entries(self, rows: I64) -> Entries:
        """Find the active entries of ``rows`` (R,), in the order of ``rows``."""
        start = self.row_ptr[rows]
        count = self.row_ptr[rows + 1] - start
        slot = np.repeat(np.arange(len(rows)), count)
        before = np.cumsum(count) - count  # entries of the rows before each row
        index = np.arange(len(slot)) + (start - before)[slot]
        return Entries(index, slot, self.cols[index].astype(np.int64))

    def gather(self, rows: I64) -> tuple[F32, F32, Entries]:
        """Unpack ``rows`` (R,): values and mask, float32 (R, d), and the entries' places."""
        found = self.entries(rows)
        flat = found.slot * self.dim + found.col
        values = np.zeros(len(rows) * self.dim, np.float32)
        mask = np.zeros(len(rows) * self.dim, np.float32)
        values[flat] = self.vals[found.index]
        mask[flat] = 1.0
        shape = (len(rows), self.dim)
        return values.reshape(shape), mask.reshape(shape), found

    def dense(self, start: int, stop: int) -> F32:
        """Unpack rows [start, stop) to float32 (stop - start, d)."""
        return self.gather(np.arange(start, stop))[0]


def beside(left: PackedTable, right: PackedTable) -> PackedTable:
    """Put two tables of the same rows side by side: the right one's columns follow the left's."""
    before_left = np.repeat(right.row_ptr[:-1], np.diff(left.row_ptr))
    before_right = np.repeat(left.row_ptr[1:], np.diff(right.row_ptr))
    from_left = np.arange(left.nnz) + before_left
    from_right = np.arange(right.nnz) + before_right
    count = left.nnz + right.nnz
    cols, vals = np.empty(count, np.uint8), np.empty(count, np.float32)
    cols[from_left], cols[from_right] = left.cols, right.cols + np.uint8(left.dim)
    vals[from_left], vals[from_right] = left.vals, right.vals
    return PackedTable(
        row_ptr=left.row_ptr + right.row_ptr,
        cols=cols,
        vals=vals,
        num_users=left.num_users,
        num_items=left.num_items,
        dim=left.dim + right.dim,
    )
