"""The cost model: bytes by counting, seconds of processor by a fit to measurements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from pipeline.scale.cases import Case, Measured

ID, HEAD, ENTRY, FLOAT = 8, 2, 5, 4
"""Bytes: a row asked for, its head, a column and a value of an entry, a gradient."""
TERMS = ("step", "row", "number of the tile", "byte exchanged")


def rows_touched(case: Case) -> float:
    """Expect the distinct rows of one rank's examples, where all rows are equally likely.

    A rank's b examples draw b users and 2 b items of N / 2 each: n (1 - (1 - 1/n)^k) distinct ones.
    """
    half, examples = case.num_rows / 2, case.batch_size / case.ranks
    drawn = np.array([examples, 2 * examples])
    return float(np.sum(half * -np.expm1(drawn * np.log1p(-1 / half))))


def bytes_sent(case: Case) -> float:
    """Expect the bytes that a rank sends in a step without a mask update.

    As one who asks: ids, then gradients, of a sampled row whole and of another its entries. As one
    who owns: heads and entries. Of R rows, 1 - 1/W are at another rank; what is asked of a rank
    is as much as it asks. Counts (8 bytes a peer) and the sum of the loss are counted too.
    """
    away = rows_touched(case) * (1 - 1 / case.ranks)
    entries = case.density * case.dim
    looked = case.sampled_fraction
    back = FLOAT * (looked * case.dim + (1 - looked) * entries)
    return away * (ID + HEAD + ENTRY * entries + back) + 8 * (case.ranks - 1) + 8


def multiply_adds(case: Case) -> float:
    """Count those of MF-BPR over a whole batch.

    An example's two scores take 2 d and their gradients 4 d; its penalty 3 d, and 3 d back.
    """
    return 12.0 * case.batch_size * case.dim


def state_bytes(case: Case) -> float:
    """Expect what a rank keeps: 13 bytes an entry with Adam's moments, 8 a row, and S.

    S is |S| row numbers of 8 bytes and |S| d sums of 4.
    """
    rows = case.num_rows / max(case.ranks, case.of_ranks)
    of_row = 13 * case.density * case.dim + 8
    return rows * (of_row + case.sampled_fraction * (8 + 4 * case.dim))


@dataclass(frozen=True)
class Fit:
    """Seconds of processor time of one rank's step: the sum of ``seconds`` times the terms.

    Attributes:
        seconds: by ``TERMS``.
        error: root mean square of the relative error over the cases that were fitted.
    """

    seconds: tuple[float, ...]
    error: float

    def step(self, case: Case) -> float:
        """Predict the seconds of a step without a mask update."""
        return float(np.dot(_terms(case), self.seconds))


def _terms(case: Case) -> list[float]:
    rows = rows_touched(case)
    exchanged = 2 * bytes_sent(case) if case.ranks > 1 else 0.0
    return [1.0, rows, rows * case.dim, exchanged]


def fit(measured: list[Measured]) -> Fit:
    """Fit the model by least squares on relative errors, no term below 0."""
    terms = np.array([_terms(one.case) for one in measured])
    seconds = np.array([one.cpu_s for one in measured])
    found, _ = nnls(terms / seconds[:, None], np.ones(len(seconds)))
    errors = terms @ found / seconds - 1
    return Fit(tuple(found.tolist()), float(np.sqrt(np.mean(errors**2))))
