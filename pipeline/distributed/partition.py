"""Which rank owns which rows.

Each rank owns one range of users and one of items. Ranges keep the order of rows, which settles
ties, and make a shard a slice: of a checkpoint, of the joint table. One range of each side rather
than of all rows, because a step touches two items for each user: a rank with users alone would
have half a rank's work. The borders share out active entries, which is memory, and nearly work,
since NMF gives the rows that are used most the most entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.table import I64, Bool


@dataclass(frozen=True)
class Partition:
    """Rank r owns users [users[r], users[r+1]) and items [items[r], items[r+1]).

    Attributes:
        users: int64 (world + 1,), ascending from 0 to the number of users.
        items: int64 (world + 1,), the same of items.
    """

    users: I64
    items: I64

    @classmethod
    def balanced(cls, by_user: I64, by_item: I64, world: int) -> Partition:
        """Share out rows so that each rank has nearly as many active entries of both sides.

        Args:
            by_user: int64 (num_users + 1,), active entries of the users before each.
            by_item: int64 (num_items + 1,), the same of items.
            world: ranks.
        """
        return cls(_borders(by_user, world), _borders(by_item, world))

    @property
    def world(self) -> int:
        """Ranks."""
        return len(self.users) - 1

    @property
    def num_users(self) -> int:
        """Of the whole table."""
        return int(self.users[-1])

    @property
    def num_rows(self) -> int:
        """N, of the whole table."""
        return int(self.users[-1] + self.items[-1])

    def sizes(self, rank: int) -> tuple[int, int]:
        """Give how many users and items a rank owns."""
        return int(np.diff(self.users)[rank]), int(np.diff(self.items)[rank])

    def owners(self, rows: I64) -> I64:
        """Give the ranks that own rows of the whole table: int64, the shape of ``rows``."""
        item = rows - self.num_users
        of_user = np.searchsorted(self.users, rows, side="right") - 1
        of_item = np.searchsorted(self.items, item, side="right") - 1
        return np.where(item < 0, of_user, of_item)

    def owned(self, rows: I64, rank: int) -> Bool:
        """Tell which rows of the whole table a rank owns: bool, the shape of ``rows``."""
        start, stop = self.users[rank : rank + 2]
        first, last = self.num_users + self.items[rank : rank + 2]
        owned: Bool = ((rows >= start) & (rows < stop)) | ((rows >= first) & (rows < last))
        return owned

    def local(self, rows: I64, owners: I64) -> I64:
        """Give the places of rows of the whole table in their owners' shards."""
        as_user = rows - self.users[owners]
        own_users = np.diff(self.users)[owners]
        as_item = rows - self.num_users - self.items[owners] + own_users
        return np.where(rows < self.num_users, as_user, as_item)


def _borders(before: I64, world: int) -> I64:
    """Cut [0, n) where the sums (n + 1,) pass each rank's share."""
    shares = before[-1] * np.arange(1, world) / world
    inner = np.searchsorted(before, shares)
    return np.concatenate([[0], inner, [len(before) - 1]]).astype(np.int64)
