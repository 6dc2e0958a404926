"""The ratio of two medians and how sure it is: a hierarchical bootstrap over runs, then steps.

A side is a list of repetitions, each a series of samples. Its figure is the geometric mean of its
repetitions' medians. Its uncertainty is found by drawing repetitions with replacement, and inside
each of them blocks of successive samples with replacement (the circular block bootstrap of Politis
and Romano, 1992), because the steps of a run are no independent draws: a hot core slows many in a
row.

With few repetitions the bootstrap's own percentiles are too narrow. So its standard error, scaled
by ``n / (n - 1)`` for the repetitions, goes with Student's quantile at Welch's degrees of freedom.
Where each repetition has one sample this is Welch's interval for the difference of mean logarithms.
Where the steps inside a run vary much, their part is counted twice, which errs on the wide side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

Samples = np.ndarray[Any, np.dtype[np.float64]]
RESAMPLES = 1000
CHUNK = 2_000_000
"""Samples that are drawn at once: 16 MB."""


@dataclass(frozen=True)
class Ratio:
    """B's median over A's, and the interval that should hold it; None where one reading a side
    leaves nothing to judge by.
    """

    ratio: float
    low: float | None
    high: float | None
    is_of_one_run: bool = False
    """Whether a side has one repetition, so that the interval leaves out how runs vary."""

    @property
    def is_different(self) -> bool:
        """Whether the interval leaves 1 out."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high


@dataclass(frozen=True)
class _Side:
    """The variance of a side's mean log median, and its degrees of freedom."""

    variance: float
    freedom: float


def ratio_of_medians(
    a: Sequence[Samples],
    b: Sequence[Samples],
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Ratio | None:
    """Compare two sides.

    Args:
        a: one array of samples for each repetition, at least one, none empty.
        b: the same of the other side.
        confidence: of the interval.
        resamples: bootstrap draws for each repetition.
        seed: of the draws; the same samples and seed give the same interval.

    Returns:
        None where a median is not positive, so that there is no ratio.
    """
    if any(np.median(samples) <= 0 for samples in (*a, *b)):
        return None
    draws = np.random.default_rng(seed)
    first, second = _side(a, resamples, draws), _side(b, resamples, draws)
    log_ratio = math.log(centre(b) / centre(a))
    if any(len(side) == 1 and len(side[0]) == 1 for side in (a, b)):
        return Ratio(math.exp(log_ratio), None, None)
    variance = first.variance + second.variance
    quantile = stats.t.ppf((1 + confidence) / 2, _welch(first, second))
    reach = float(quantile) * math.sqrt(variance)
    ratio, low, high = (math.exp(log_ratio + shift) for shift in (0.0, -reach, reach))
    return Ratio(ratio, low, high, min(len(a), len(b)) == 1)


def centre(repetitions: Sequence[Samples]) -> float:
    """The geometric mean of the repetitions' medians, which must be positive."""
    return math.exp(float(np.mean([math.log(np.median(samples)) for samples in repetitions])))


def _side(repetitions: Sequence[Samples], resamples: int, draws: np.random.Generator) -> _Side:
    count = len(repetitions)
    inside = np.stack([_log_medians(samples, resamples, draws) for samples in repetitions])
    chosen = draws.integers(count, size=(resamples, count))
    which = draws.integers(resamples, size=(resamples, count))
    means = inside[chosen, which].mean(axis=1)
    scale = count / (count - 1) if count > 1 else 1.0
    freedom = count - 1 if count > 1 else math.inf
    return _Side(float(np.var(means, ddof=1)) * scale, freedom)


def _log_medians(samples: Samples, resamples: int, draws: np.random.Generator) -> Samples:
    """Logarithms of the medians of ``resamples`` series made of the samples' own blocks."""
    size = len(samples)
    if size == 1:
        return np.full(resamples, math.log(samples[0]))
    length = math.ceil(size ** (1 / 3))
    blocks = math.ceil(size / length)
    medians = []
    for start in range(0, resamples, chunk := max(1, CHUNK // size)):
        rows = min(chunk, resamples - start)
        first = draws.integers(size, size=(rows, blocks, 1))
        index = (first + np.arange(length)).reshape(rows, -1)[:, :size] % size
        medians.append(np.median(samples[index], axis=1))
    # A draw of zeros alone has no logarithm; the median itself is known to be positive.
    found = np.concatenate(medians)
    return np.log(np.where(found > 0, found, np.median(samples)))


def _welch(a: _Side, b: _Side) -> float:
    """The Welch-Satterthwaite degrees of freedom of the sides' summed variances."""
    parts = a.variance**2 / a.freedom + b.variance**2 / b.freedom
    return (a.variance + b.variance) ** 2 / parts if parts > 0 else math.inf
