"""Records on disk, scattered by a key, for sorting and grouping more than memory holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.data.interactions import Int64

Records = npt.NDArray[Any]
"""A NumPy structured array (n,)."""

BUCKET_RECORDS = 1 << 20
"""Records of a bucket: what is sorted in one go."""
MAX_BUCKETS = 1024


class Buckets:
    """Files of records, one a bucket; records of a bucket stay in the order they came in."""

    def __init__(self, folder: Path, expected: int, dtype: npt.DTypeLike) -> None:
        """Make a new folder, with as many buckets as ``expected`` records fill."""
        folder.mkdir()
        self.folder = folder
        self.expected = expected
        self.count = min(MAX_BUCKETS, expected // BUCKET_RECORDS + 1)
        self.dtype = np.dtype(dtype)

    def scatter(self, records: Records, bucket: npt.NDArray[Any]) -> None:
        """Append each record (n,) to its bucket, int (n,) in [0, count)."""
        order = np.argsort(bucket.astype(np.uint16), kind="stable")
        ordered = records[order]
        ends = np.cumsum(np.bincount(bucket, minlength=self.count))
        for k in np.unique(bucket).tolist():
            with (self.folder / str(k)).open("ab") as file:
                ordered[ends[k - 1] if k else 0 : ends[k]].tofile(file)

    def drain(self) -> Iterator[Records]:
        """Yield the buckets in order, and remove each file as it is read."""
        for k in range(self.count):
            path = self.folder / str(k)
            if path.exists():
                records = np.fromfile(path, self.dtype)
                path.unlink()
                yield records
            else:
                yield np.empty(0, self.dtype)
        self.folder.rmdir()


class TimeCuts:
    """Cuts the span of (time, number) into parts of about equal size, from a sample.

    Equal times are cut by number, so that a log whose times are all the same is cut too.
    """

    def __init__(self, times: Int64, numbers: Int64, parts: int) -> None:
        """Cut where the sample (n,), at least one, cuts into ``parts``."""
        order = np.lexsort((numbers, times))
        chosen = order[(len(order) * np.arange(1, parts)) // parts]
        self._times, self._numbers = times[chosen], numbers[chosen]

    def part(self, times: Int64, numbers: Int64) -> npt.NDArray[np.int64]:
        """Count the cuts at or before each (time, number): int64 (n,)."""
        found = np.searchsorted(self._times, times, "left")
        beyond = np.searchsorted(self._times, times, "right")
        for time in np.unique(times[found < beyond]):  # at most one for each cut
            tied = np.flatnonzero(times == time)
            low, high = found[tied[0]], beyond[tied[0]]
            found[tied] += np.searchsorted(self._numbers[low:high], numbers[tied], "right")
        return found.astype(np.int64)
