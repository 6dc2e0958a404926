"""Gradients of one batch, as sparse as the model allows (SparseRec's sampled backward).

For MF and NeuMF nothing larger than the batch's own tile is made. LightGCN's gradient diffuses to
every row: it is taken back a block of columns at a time and read at the active entries and the
sampled rows. NGCF keeps its layers' inputs, (N, d) each, and nothing else of the tape. On a sampled
neighbourhood, as on a device, these two look at its tile alone as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.graph import ColumnBlocks, Graph
from pipeline.losses import SHARED, SLOTS_PER_EXAMPLE, LossName, batch_loss
from pipeline.models import MODELS, ModelName
from pipeline.neighbourhood import Tile
from pipeline.table import F32, I64, PackedTable
from pipeline.threads import one_thread

SMALL_BATCH = 4096
"""Fewer examples make a tile that is too small to share between threads."""

FLOATS_AT_A_TIME = 1 << 21
"""Of the scores that a batch's examples get, and of a perceptron's layers: a part stays in a cache.
On one core 16,384 examples with 64 negatives of NeuMF take 0.45 s so and 0.93 s at once."""

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Objective:
    """What is differentiated: a model, a loss and a penalty.

    Attributes:
        model: the base recommender.
        loss: of a batch.
        l2: penalty on the rows of an example.
        num_items: that negatives are drawn from.
        device: where it is computed, for models without a graph; tables are in the host's memory.
    """

    model: ModelName
    loss: LossName
    l2: float
    num_items: int
    device: torch.device = CPU

    def value(
        self, vectors: Tensor, rows: Tensor, slots: I64, dense: dict[str, Tensor], size: int
    ) -> Tensor:
        """Compute the loss of ``size`` examples whose slots are places in vectors and rows."""
        taken = take(vectors, slots)
        raw = taken if rows is vectors else take(rows, slots)
        return self.of_taken(taken, raw, dense, size)

    def of_taken(
        self, vectors: Tensor, rows: Tensor, dense: dict[str, Tensor], size: int
    ) -> Tensor:
        """Compute the loss of ``size`` examples, given the vectors and rows of their slots."""
        weight = torch.ones(size, device=vectors.device)
        model = MODELS[self.model]
        return batch_loss(self.loss, model, vectors, rows, dense, weight, self.l2, self.num_items)

    def differentiate(
        self, taken: list[Tensor], dense: dict[str, Tensor], size: int
    ) -> tuple[float, list[Tensor], list[Tensor]]:
        """Compute the loss of ``size`` examples and its gradients, some examples at a time.

        Args:
            taken: the batch's slots (see ``batch_loss``): vectors, float32 (S, w'), and rows of
                the table, float32 (S, d), where these are not the same.
            dense: the model's dense parameters, which require gradients.
            size: B.

        Returns:
            The loss, and its gradients by ``taken`` and by each dense parameter, zero where only
            ``taken`` depends on it.
        """
        sums = [torch.zeros_like(values) for values in (*taken, *dense.values())]
        total = 0.0
        negatives = len(taken[0]) - 2 * size if self.loss in SHARED else 1
        at_a_time = max(1, FLOATS_AT_A_TIME // (negatives * MODELS[self.model].PAIR_FLOATS))
        for start in range(0, size, at_a_time):
            stop = min(start + at_a_time, size)
            own = [slice(k * size + start, k * size + stop) for k in range(SLOTS_PER_EXAMPLE)]
            if self.loss in SHARED:
                own[-1] = slice(2 * size, None)
            parts = [torch.cat([values[at] for at in own]).requires_grad_() for values in taken]
            loss = self.of_taken(parts[0], parts[-1], dense, stop - start) * ((stop - start) / size)
            total += float(loss.detach())
            wanted = [*parts, *dense.values()]
            grads = torch.autograd.grad(loss, wanted, materialize_grads=True)
            for k in range(len(taken)):
                places = [sums[k][at] for at in own]
                sizes = [len(place) for place in places]
                for place, part in zip(places, torch.split(grads[k], sizes), strict=True):
                    place.add_(part)
            for k in range(len(taken), len(sums)):
                sums[k].add_(grads[k])
        return total, sums[: len(taken)], sums[len(taken) :]


@dataclass(frozen=True)
class Gradients:
    """Of one batch.

    Attributes:
        loss: the batch's.
        index: int64 (E,) active entries with a gradient; None stands for all.
        entries: float32 (E,), theirs.
        dense: by the dense parameters.
        rows: int64 (R,), ascending: rows whose whole gradient is known.
        whole: float32 (R, d), theirs.
    """

    loss: float
    index: I64 | None
    entries: F32
    dense: dict[str, F32]
    rows: I64
    whole: F32


def tile_gradients(
    objective: Objective, table: PackedTable, slots: I64, dense: dict[str, F32], size: int
) -> Gradients:
    """Differentiate a model that looks at the batch's own rows only.

    Args:
        objective: of a model without a graph.
        table: the table.
        slots: int64 (S,), the rows in a batch's slots (see ``batch_loss``).
        dense: the model's dense parameters.
        size: B, examples.
    """
    rows, inverse = np.unique(slots, return_inverse=True)
    values, _, found = table.gather(rows)
    with one_thread(size < SMALL_BATCH):
        tile = torch.from_numpy(values).to(objective.device).requires_grad_()
        weights = _leaves(dense, objective.device)
        slots_rows = take(tile, inverse)
        loss, by_taken, others = objective.differentiate([slots_rows.detach()], weights, size)
        (grads,) = torch.autograd.grad(slots_rows, tile, by_taken)
    whole = grads.cpu().numpy()
    entries = whole[found.slot, found.col]
    return Gradients(loss, found.index, entries, _named(dense, others), rows, whole)


def linear_gradients(
    objective: Objective, graph: Graph, blocks: ColumnBlocks, slots: I64, sampled: I64, size: int
) -> Gradients:
    """Differentiate LightGCN: propagate, differentiate the tile, propagate back."""
    model = MODELS[objective.model]
    rows, inverse = np.unique(slots, return_inverse=True)
    vectors = torch.from_numpy(blocks.propagate(model, graph, rows)).requires_grad_()
    values, _, found = blocks.table.gather(rows)
    raw = torch.from_numpy(values).requires_grad_()
    taken = [take(vectors, inverse), take(raw, inverse)]
    loss, by_taken, _ = objective.differentiate([of.detach() for of in taken], {}, size)
    by_vector, by_row = torch.autograd.grad(taken, [vectors, raw], by_taken)
    direct = by_row.numpy()
    entries, whole = blocks.propagate_back(model, graph, rows, by_vector.numpy(), sampled)
    entries[found.index] += direct[found.slot, found.col]
    _add_rows(whole, sampled, direct, rows)
    return Gradients(loss, None, entries, {}, sampled, whole)


def layered_gradients(
    objective: Objective,
    graph: Graph,
    table: PackedTable,
    slots: I64,
    sampled: I64,
    dense: dict[str, F32],
    size: int,
) -> Gradients:
    """Differentiate NGCF through its layers."""
    model = MODELS[objective.model]
    values, _, found = table.gather(np.arange(table.num_rows))
    rows = torch.from_numpy(values).requires_grad_()
    weights = _leaves(dense)
    vectors = model.propagate(rows, graph.aggregate, weights, recompute=True)
    taken = [take(vectors, slots), take(rows, slots)]
    loss, by_taken, direct = objective.differentiate([of.detach() for of in taken], weights, size)
    wanted = [rows, *weights.values()]
    # A weight may be in the scores alone: it has no gradient here.
    grads, *others = torch.autograd.grad(taken, wanted, by_taken, materialize_grads=True)
    others = [by_vectors + own for by_vectors, own in zip(others, direct, strict=True)]
    full = grads.numpy()
    entries = full[found.slot, found.col]
    return Gradients(loss, None, entries, _named(dense, others), sampled, full[sampled])


def sampled_gradients(
    objective: Objective,
    table: PackedTable,
    tile: Tile,
    batch_slots: int,
    dense: dict[str, F32],
    size: int,
) -> Gradients:
    """Differentiate a model with a graph on a sampled neighbourhood, as a device does.

    Args:
        objective: of any model.
        table: the table.
        tile: around the batch's slots, which come first.
        batch_slots: S, how many those are.
        dense: the model's dense parameters.
        size: B, examples.
    """
    rows, inverse = np.unique(tile.rows, return_inverse=True)
    rows, inverse = rows[rows >= 0], inverse - int(rows[0] < 0)
    values, _, found = table.gather(rows)
    model, lists = MODELS[objective.model], tile.lists()
    with one_thread(size < SMALL_BATCH):
        distinct = torch.from_numpy(values).requires_grad_()
        # A slot of padding reads any row: its weights are 0 in all lists.
        slots = take(distinct, np.maximum(inverse, 0))
        weights = _leaves(dense)
        vectors = model.propagate(slots, lists.aggregate, weights)
        batch = np.arange(batch_slots)
        loss = objective.value(vectors, slots, batch, weights, size)
        grads, *others = torch.autograd.grad(loss, [distinct, *weights.values()])
    whole = grads.numpy()
    entries = whole[found.slot, found.col]
    return Gradients(float(loss.detach()), found.index, entries, _named(dense, others), rows, whole)


def take(values: Tensor, slots: I64) -> Tensor:
    """Take the rows of ``values`` (R, w) that slots (S,) name: float32 (S, w)."""
    # Not values[slots]: its backward adds with atomics, in an order that changes.
    return F.embedding(torch.from_numpy(slots).to(values.device), values)


def _leaves(dense: dict[str, F32], device: torch.device = CPU) -> dict[str, Tensor]:
    tensors = {name: torch.from_numpy(values).to(device) for name, values in dense.items()}
    return {name: tensor.requires_grad_() for name, tensor in tensors.items()}


def _named(dense: dict[str, F32], grads: list[Tensor]) -> dict[str, F32]:
    return {name: grad.cpu().numpy() for name, grad in zip(dense, grads, strict=True)}


def _add_rows(total: F32, total_rows: I64, added: F32, added_rows: I64) -> None:
    """Add the rows that two ascending lists share."""
    _, here, there = np.intersect1d(total_rows, added_rows, assume_unique=True, return_indices=True)
    total[here] += added[there]
