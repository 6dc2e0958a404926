"""Preparing a log of any size: what ``read_log`` and ``temporal_split`` do, in bounded memory.

In memory are the id maps, a few numbers for each id, and a bucket of rows at a time; the rows
themselves go through files three times. They are scattered by user, so that each user's repeats and
cuts are settled in one bucket, by the same functions as in memory; then by time, so that the parts
are written in order of time; and what comes later waits until all newcomers have their index.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pyarrow.parquet as pq

from pipeline.allocator import return_freed_memory
from pipeline.data.datasets import source_sha256
from pipeline.data.interactions import (
    Int32,
    Int64,
    earliest,
    first_repeat,
    pair_keys,
    require_int32,
)
from pipeline.data.logs import Duplicates, Log, LogOptions
from pipeline.data.prepared import (
    PAIRS,
    PARTS,
    Description,
    degree_quartiles,
    pairs_table,
    write_description,
    write_ids,
)
from pipeline.data.sources import LOG_SUFFIXES, has_parts
from pipeline.data.spill import Buckets, Records, TimeCuts
from pipeline.data.split import FRACTIONS, LATER, LOG, TRAIN, VALID, cut, no_times
from pipeline.files import whole_folder
from sparserec.progress import Progress, silent

ROW = np.dtype([("number", "<i8"), ("time", "<i8"), ("user", "<i4"), ("item", "<i4")])
LABELLED = np.dtype([*ROW.descr, ("part", "i1")])
SAMPLE = 1 << 18
"""Rows, or a few more, from which the cuts of time are chosen."""


def is_log(source: Path) -> bool:
    """Tell whether ``prepare`` can read what is there: a log, or a folder with parts of one."""
    if source.is_dir():
        return has_parts(source)
    return source.is_file() and source.suffix in LOG_SUFFIXES


def prepare(
    source: Path,
    out: Path,
    fractions: tuple[float, float, float] = FRACTIONS,
    duplicates: Duplicates = "error",
    progress: Progress = silent,
    **options: Unpack[LogOptions],
) -> Description:
    """Write ``temporal_split(read_log(source, ...), ...)`` to the folder ``out``.

    Args:
        source: a log, or a folder of its parts.
        out: a new folder; appears whole or not at all.
        fractions: train, valid, log; see ``temporal_split``.
        duplicates: of ``read_log``.
        progress: of reading, splitting and writing.
        options: of ``read_log``.

    Raises:
        SparseRecError: as ``read_log`` and ``temporal_split``; or ``out`` is there already.
    """
    return_freed_memory()
    log = Log(source, **options)
    if not log.has_times:
        raise no_times()
    with whole_folder(out) as folder:
        by_user, times, numbers = _read(log, folder, progress)
        users, items = _Ids(list(log.users.index)), _Ids(list(log.items.index))
        by_time = Buckets(folder / "by-time", log.num_rows - log.below_rating, LABELLED)
        cuts = TimeCuts(times, numbers, by_time.count)
        repeats, repeated = 0, NOTHING
        for k, rows in enumerate(by_user.drain()):
            kept, second = _without_repeats(rows, len(items.ids))
            repeats += len(rows) - len(kept)
            repeated = min(repeated, second)
            labelled = _labelled(kept, by_user.count, fractions)
            users.saw(labelled["user"], labelled)
            items.saw(labelled["item"], labelled)
            by_time.scatter(labelled, cuts.part(kept["time"], kept["number"]))
            progress("splitting users", k + 1, by_user.count)
        if repeats and duplicates == "error":
            raise log.repeated(*repeated)
        users.settle()
        items.settle()
        counts, dropped = _write_parts(folder, by_time, users, items, progress)
        users.write(folder / "users.parquet")
        items.write(folder / "items.parquet")
        description = Description(
            name=source.stem,
            source_sha256=source_sha256(source),
            interactions=counts,
            num_users=users.count,
            num_items=items.count,
            known_users=users.known,
            known_items=items.known,
            dropped_later=dropped,
            repeats=repeats,
            below_rating=log.below_rating,
            degrees={"users": users.quartiles(), "items": items.quartiles()},
        )
        write_description(folder, description)
    return description


def _read(log: Log, folder: Path, progress: Progress) -> tuple[Buckets, Int64, Int64]:
    """Scatter the log by user; also give a sample of its times and row numbers."""
    guess = log.guessed_rows()
    by_user = Buckets(folder / "by-user", guess, ROW)
    stride = guess // SAMPLE + 1
    times, numbers = [], []
    for rows in log:
        records = np.empty(len(rows), ROW)
        records["number"], records["time"] = rows.numbers, rows.times
        records["user"], records["item"] = rows.users, rows.items
        by_user.scatter(records, rows.users % by_user.count)
        times.append(records["time"][::stride].copy())
        numbers.append(records["number"][::stride].copy())
        progress("reading rows", log.num_rows, max(guess, log.num_rows))
    kept = log.num_rows - log.below_rating
    require_int32(kept, "interactions", log.source)
    return by_user, np.concatenate(times), np.concatenate(numbers)


Repeat = tuple[int, int, int, int]
"""The second row of a pair, the first, user, item."""
NOTHING: Repeat = (2**63, 0, 0, 0)


def _without_repeats(rows: Records, num_items: int) -> tuple[Records, Repeat]:
    """Keep each pair's earliest row; tell the first that repeats one, in the order of the log."""
    keys = pair_keys(rows["user"], rows["item"], num_items)
    repeat = first_repeat(keys)
    if repeat is None:
        return rows, NOTHING
    second, first = (rows[k] for k in repeat)
    found = (second["number"], first["number"], second["user"], second["item"])
    number, before, user, item = map(int, found)
    return rows[earliest(keys, rows["time"])], (number, before, user, item)


def _labelled(rows: Records, stride: int, fractions: tuple[float, float, float]) -> Records:
    """Add each row's part; the users of a bucket are ``stride`` apart."""
    labelled = np.empty(len(rows), LABELLED)
    for name in ROW.fields or ():
        labelled[name] = rows[name]
    labelled["part"] = cut(rows["user"] // stride, rows["time"], fractions)
    return labelled


class _Ids:
    """The users or the items: which are known, and their index in the split.

    Attributes:
        ids: raw ids by number, the order in which the log has them.
        new: int32 (n,), index of each number, -1 where it has none.
        known, count: indices below ``known`` are the past's; ``count`` in all.
    """

    def __init__(self, ids: list[str]) -> None:
        self.ids = ids
        self.new = np.full(len(ids), -1, np.int32)
        self.known = self.count = 0
        self._first = np.full(len(ids), np.iinfo(np.int64).max)
        self._past = np.zeros(len(ids), np.bool_)
        self._degree = np.zeros(len(ids), np.int64)

    def saw(self, numbers: Int32, labelled: Records) -> None:
        """Take note of interactions of these numbers (n,)."""
        np.minimum.at(self._first, numbers, labelled["number"])
        self._past[numbers[(labelled["part"] == TRAIN) | (labelled["part"] == VALID)]] = True
        np.add.at(self._degree, numbers[labelled["part"] == TRAIN], 1)

    def settle(self) -> None:
        """Give the past's their index, by first appearance."""
        known = np.flatnonzero(self._past)
        self._append(known[np.argsort(self._first[known])])
        self.known = self.count

    def meet(self, numbers: Int32) -> None:
        """Give newcomers the next indices, in the order of their arrival (n,)."""
        fresh = numbers[self.new[numbers] < 0]
        present, first = np.unique(fresh, return_index=True)
        self._append(present[np.argsort(first)])

    def _append(self, numbers: Any) -> None:
        self.new[numbers] = np.arange(self.count, self.count + len(numbers))
        self.count += len(numbers)

    def _by_index(self) -> Int64:
        order = np.argsort(self.new, kind="stable")
        return order[len(order) - self.count :]

    def quartiles(self) -> list[float]:
        """Give ``Description.degrees``."""
        return degree_quartiles(self._degree[self._by_index()[: self.known]])

    def write(self, path: Path) -> None:
        """Write ids and degrees by index."""
        order = self._by_index()
        write_ids(path, [self.ids[k] for k in order], self._degree[order])


def _write_parts(
    folder: Path, by_time: Buckets, users: _Ids, items: _Ids, progress: Progress
) -> tuple[dict[str, int], int]:
    """Write the four parts; returns how many interactions each has, and ``dropped_later``."""
    waiting = Buckets(folder / "later", by_time.expected, LABELLED)
    with ExitStack() as stack:
        writers = [
            stack.enter_context(pq.ParquetWriter(folder / f"{part}.parquet", PAIRS))
            for part in PARTS
        ]
        counts, dropped = dict.fromkeys(PARTS, 0), 0

        def write(part: int, rows: Records) -> None:
            if len(rows):
                user, item = users.new[rows["user"]], items.new[rows["item"]]
                writers[part].write_table(pairs_table(user, item, rows["time"]))
                counts[PARTS[part]] += len(rows)

        for k, bucket in enumerate(by_time.drain()):
            rows = bucket[np.lexsort((bucket["number"], bucket["time"]))]
            of_log = rows[rows["part"] == LOG]
            users.meet(of_log["user"])
            items.meet(of_log["item"])
            write(TRAIN, rows[rows["part"] == TRAIN])
            write(VALID, rows[rows["part"] == VALID])
            write(LOG, of_log)
            later = rows[rows["part"] == LATER]
            waiting.scatter(later, np.full(len(later), k))
            progress("writing the past and the log", k + 1, by_time.count)
        for k, rows in enumerate(waiting.drain()):
            met = (users.new[rows["user"]] >= 0) & (items.new[rows["item"]] >= 0)
            dropped += int(np.count_nonzero(~met))
            write(LATER, rows[met])
            progress("writing what is later", k + 1, waiting.count)
    return counts, dropped
