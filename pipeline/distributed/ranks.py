"""What ranks say to one another: a few collectives on NumPy arrays, over torch.distributed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.table import I64

D = TypeVar("D", bound=np.generic)
PATIENCE = timedelta(hours=2)
"""For a rank that is busy, as the first is with the start. One that died is noticed at once."""


@dataclass
class Ranks:
    """This process among its peers.

    Attributes:
        rank: in [0, world).
        world: how many there are.
        wire: where tensors must be to be sent: the host's memory for gloo, a GPU's for nccl.
        sent: bytes handed over to other ranks so far, by ``swap`` and ``total``.
    """

    rank: int
    world: int
    wire: torch.device
    sent: int = 0

    def swap(self, values: npt.NDArray[D], sizes: I64, expected: I64) -> npt.NDArray[D]:
        """Give each rank its part of ``values`` and get one from each: all-to-all.

        Args:
            values: (n,), rank after rank.
            sizes: int64 (world,), how many go to each.
            expected: int64 (world,), how many come from each.

        Returns:
            (expected.sum(),) of the same dtype, rank after rank.
        """
        width = values.dtype.itemsize
        out = torch.empty(int(expected.sum()) * width, dtype=torch.uint8, device=self.wire)
        dist.all_to_all_single(
            out, self._bytes(values), (expected * width).tolist(), (sizes * width).tolist()
        )
        self.sent += int(sizes.sum() - sizes[self.rank]) * width
        found: npt.NDArray[D] = out.cpu().numpy().view(values.dtype)
        return found

    def swap_counts(self, counts: I64) -> I64:
        """Tell each rank a number and hear one from each: int64 (world,)."""
        ones = np.ones(self.world, np.int64)
        return self.swap(counts, ones, ones)

    def total(self, values: npt.NDArray[D]) -> npt.NDArray[D]:
        """Add up arrays of one shape and dtype over all ranks, in an order that is fixed."""
        tensor = torch.from_numpy(values.copy()).to(self.wire)
        dist.all_reduce(tensor)
        self.sent += 2 * values.nbytes * (self.world - 1) // self.world
        found: npt.NDArray[D] = tensor.cpu().numpy()
        return found

    def gather(self, values: npt.NDArray[D]) -> list[npt.NDArray[D]]:
        """Give every rank all ranks' arrays (n_r, ...), of one dtype and of any lengths."""
        return [self._broadcast(values, source) for source in range(self.world)]

    def gather_first(self, values: npt.NDArray[D]) -> list[npt.NDArray[D]]:
        """Give the first rank all ranks' arrays (n_r,), of one dtype; the others get no list."""
        lengths = self.gather(np.array([len(values)], np.int64))
        if self.rank:
            dist.send(self._bytes(values), 0)
            return []
        parts = [values]
        for source in range(1, self.world):
            size = int(lengths[source][0]) * values.dtype.itemsize
            data = torch.empty(size, dtype=torch.uint8, device=self.wire)
            dist.recv(data, source)
            parts.append(data.cpu().numpy().view(values.dtype))
        return parts

    def wait(self) -> None:
        """Return once every rank has come here."""
        dist.barrier()

    def _broadcast(self, values: npt.NDArray[D], source: int) -> npt.NDArray[D]:
        shape = torch.tensor(values.shape, device=self.wire)
        dist.broadcast(shape, source)
        size = int(shape.prod()) * values.dtype.itemsize
        mine = source == self.rank
        data = self._bytes(values) if mine else torch.empty(size, dtype=torch.uint8)
        data = data.to(self.wire)
        dist.broadcast(data, source)
        found: npt.NDArray[D] = data.cpu().numpy().view(values.dtype).reshape(shape.tolist())
        return found

    def _bytes(self, values: npt.NDArray[Any]) -> Tensor:
        flat = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        return torch.from_numpy(flat).to(self.wire)


@contextmanager
def joined(compute: torch.device) -> Iterator[Ranks]:
    """Join the ranks that torchrun started: over nccl where they compute on GPUs, else gloo."""
    wire = compute if compute.type == "cuda" else torch.device("cpu")
    backend = "nccl" if wire.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), wire)
    finally:
        dist.destroy_process_group()
