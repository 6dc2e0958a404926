"""Sampled neighbourhoods of a batch, for models with a graph: docs/formats.md section 2.3."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pipeline.aggregate import Lists
from pipeline.data.split import Pairs
from pipeline.draws import CHUNK_NEIGHBOURS, NEIGHBOURS, draws, unit
from pipeline.table import F32, I64

I32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Tile:
    """Slots of a step: the batch's, then those of sampled neighbours.

    Attributes:
        rows: int64 (T,), the table's row in each slot; -1 is padding.
        neighbours: int32 (T, F), see ``pipeline.aggregate.Lists``, as all that follow.
        neighbour_weights: float32 (T, F).
        readers: int32 (T, F).
        reader_weights: float32 (T, F).
    """

    rows: I64
    neighbours: I32
    neighbour_weights: F32
    readers: I32
    reader_weights: F32

    def lists(self) -> Lists:
        """Give the lists as tensors."""
        arrays = (self.neighbours, self.neighbour_weights, self.readers, self.reader_weights)
        return Lists(*map(torch.from_numpy, arrays))


@dataclass(frozen=True)
class Neighbours:
    """Who interacted with whom, as lists of rows.

    Attributes:
        ptr: int64 (N+1,): row r's neighbours are ``rows[ptr[r]:ptr[r+1]]``.
        rows: int64 (edges,), ascending inside a row: a user's are items' rows, an item's users'.
    """

    ptr: I64
    rows: I64

    @classmethod
    def of(cls, pairs: Pairs, num_users: int, num_items: int) -> Neighbours:
        """List the neighbours in ``pairs``; repeated pairs count once."""
        users, items = pairs.users.astype(np.int64), num_users + pairs.items.astype(np.int64)
        num_rows = num_users + num_items
        ends = np.concatenate([users, items]) * num_rows + np.concatenate([items, users])
        row, neighbour = np.divmod(np.unique(ends), num_rows)
        ptr = np.zeros(num_rows + 1, np.int64)
        np.cumsum(np.bincount(row, minlength=num_rows), out=ptr[1:])
        return cls(ptr, neighbour)

    def tile(self, slots: I64, size: int, width: int, seed: int, stream: int, step: int) -> Tile:
        """Draw a tile around the rows in ``slots``.

        All have their first neighbour before any has its second: there is rarely room for all.

        Args:
            slots: int64 (S,), the first slots' rows; -1 is padding, whose slot has no neighbours.
            size: T, at least S.
            width: F, the length of a list and of its transpose.
            seed: of the draws.
            stream: ``NEIGHBOURS`` or ``CHUNK_NEIGHBOURS``.
            step: of the draws.
        """
        filling = _Filling(slots.tolist(), size, width)
        chances = unit(draws(seed, stream, step, np.arange(size))).tolist()
        first = 0
        while first < len(filling.rows):
            end = len(filling.rows)
            asked = [
                (slot, self._candidates(filling.rows[slot], width, chances[slot]))
                for slot in range(first, end)
                if filling.rows[slot] >= 0
            ]
            for k in range(width):
                for slot, candidates in asked:
                    if k < len(candidates):
                        filling.add(slot, candidates[k])
            first = end
        rows = np.full(size, -1, np.int64)
        rows[: len(filling.rows)] = filling.rows
        return self._tile(rows, np.array(filling.edges, np.int64).reshape(-1, 4), width)

    def _candidates(self, row: int, most: int, chance: float) -> list[int]:
        """Give the neighbours that a slot asks for: one in each of equal parts of its row's list.

        ``chance`` in [0, 1) says where in all parts (systematic sampling: Madow and Madow, Annals
        of Mathematical Statistics 15, 1944). Each is as likely as any other, and none comes twice.
        Parts of one are all of the list.
        """
        start, degree = int(self.ptr[row]), int(self.ptr[row + 1] - self.ptr[row])
        part = max(1, degree / most)
        places = [start + int((chance + k) * part) for k in range(min(degree, most))]
        chosen: list[int] = self.rows[places].tolist()
        return chosen

    def _tile(self, rows: I64, edges: I64, width: int) -> Tile:
        """Lay out edges (n, 4): slot, place in its list, neighbour's slot, place among readers."""
        slot, place, other, reader = edges.T
        degree = np.diff(self.ptr)
        count = np.bincount(slot, minlength=len(rows))
        own, others = degree[rows[slot]], degree[rows[other]]
        weight = 1 / np.sqrt(own) * (own / count[slot]) * (1 / np.sqrt(others))
        shape = (len(rows), width)
        tile = Tile(
            rows,
            np.zeros(shape, np.int32),
            np.zeros(shape, np.float32),
            np.zeros(shape, np.int32),
            np.zeros(shape, np.float32),
        )
        tile.neighbours[slot, place], tile.neighbour_weights[slot, place] = other, weight
        tile.readers[other, reader], tile.reader_weights[other, reader] = slot, weight
        return tile


@dataclass(frozen=True)
class Neighbourhood:
    """How a step's tile is drawn.

    Attributes:
        neighbours: of every row.
        slots: T.
        width: F.
    """

    neighbours: Neighbours
    slots: int
    width: int

    def tile(self, batch: I64, seed: int, step: int) -> Tile:
        """Draw the tile of a training step around the rows of its batch, int64 (S,)."""
        return self.neighbours.tile(batch, self.slots, self.width, seed, NEIGHBOURS, step)


@dataclass(frozen=True)
class Chunks:
    """How a device gets the vectors that it scores: rows [k size, (k + 1) size) from one tile each.

    Attributes:
        neighbours: of every row.
        size: C, rows of a chunk.
        slots: T of a chunk's tile.
        width: F.
        seed: of the draws.
    """

    neighbours: Neighbours
    size: int
    slots: int
    width: int
    seed: int

    @property
    def count(self) -> int:
        """Chunks of the whole table; the last is padded."""
        return -(-(len(self.neighbours.ptr) - 1) // self.size)

    def tile(self, chunk: int) -> Tile:
        """Draw the tile of a chunk, whose rows come first."""
        rows = chunk * self.size + np.arange(self.size)
        rows[rows >= len(self.neighbours.ptr) - 1] = -1
        draw = (self.slots, self.width, self.seed, CHUNK_NEIGHBOURS, chunk)
        return self.neighbours.tile(rows, *draw)


class _Filling:
    """A tile that fills up: a row whose list of readers is full gets one more slot.

    Attributes:
        rows: of the slots in use.
        edges: slot, place in its list, neighbour's slot, place among that slot's readers.
    """

    def __init__(self, rows: list[int], size: int, width: int) -> None:
        self.rows = rows
        self.edges: list[tuple[int, int, int, int]] = []
        self._size, self._width = size, width
        self._read, self._readers = [0] * size, [0] * size
        self._open: dict[int, int] = {}
        for slot, row in enumerate(rows):
            if row >= 0:
                self._open.setdefault(row, slot)

    def add(self, slot: int, row: int) -> None:
        """Let a slot read a row, if there is room for it."""
        place = self._open.get(row)
        if place is None or self._readers[place] == self._width:
            if len(self.rows) == self._size:
                return
            place = self._open[row] = len(self.rows)
            self.rows.append(row)
        self.edges.append((slot, self._read[slot], place, self._readers[place]))
        self._read[slot] += 1
        self._readers[place] += 1
