"""The train step, ``step.pte``: docs/formats.md section 2."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from export.dense import DenseSpec, split
from export.methods import Method, TensorSpec
from pipeline.aggregate import Lists
from pipeline.losses import LossName, batch_loss, batch_slots
from pipeline.models import MODELS, ModelName, mf
from pipeline.optimizers import STATE, OptimizerName, moved, rates

Dense = dict[str, Tensor]
LAYERED: tuple[ModelName, ...] = ("neumf", "ngcf")
"""Models with matrix products, which XNNPACK computes. For the others, whose steps are elementwise
and gathers, it was no faster than ExecuTorch's own kernels (docs/export.md)."""


def tile_loss(rows: Tensor, weight: Tensor, l2: float) -> Tensor:
    """BPR on a tile (3B, d) of masked rows, with its examples' weights (B,): float32 ()."""
    return batch_loss("bpr", mf, rows, rows, {}, weight, l2, num_items=1)


@dataclass(frozen=True)
class Step:
    """What a step's program is made for.

    Attributes:
        batch_size: B, examples.
        dim: d, columns of the table.
        l2: strength of the loss's penalty.
        chunk: E, entries that one call of ``update`` takes.
        model: the base recommender.
        loss: of the batch.
        optimizer: of entries and dense parameters.
        negatives: K, that the batch shares, where it does.
        num_items: items that negatives are drawn from.
        tile: T, for models with a graph.
        fanout: F, likewise.
        dense: the model's dense parameters.
    """

    batch_size: int
    dim: int
    l2: float
    chunk: int
    model: ModelName = "mf"
    loss: LossName = "bpr"
    optimizer: OptimizerName = "sgd"
    negatives: int = 0
    num_items: int = 1
    tile: int = 0
    fanout: int = 0
    dense: tuple[DenseSpec, ...] = ()

    @property
    def batch_slots(self) -> int:
        """S: users, positives, negatives."""
        return batch_slots(self.loss, self.batch_size, self.negatives)

    @property
    def has_graph(self) -> bool:
        """Whether the model looks at neighbours."""
        return MODELS[self.model].GRAPH != "none"

    @property
    def slots(self) -> int:
        """T."""
        return self.tile if self.has_graph else self.batch_slots

    @property
    def dense_size(self) -> int:
        """P."""
        return sum(spec.size for spec in self.dense)

    def value(self, rows: Tensor, weight: Tensor, lists: Lists | None, dense: Dense) -> Tensor:
        """Compute the loss of a tile of masked rows (T, d): float32 ()."""
        model, size = MODELS[self.model], self.batch_slots
        vectors = rows
        if lists is not None:
            vectors, rows = model.propagate(rows, lists.aggregate, dense, size=size), rows[:size]
        return batch_loss(self.loss, model, vectors, rows, dense, weight, self.l2, self.num_items)


def step_methods(batch_size: int, dim: int, l2: float, chunk: int) -> dict[str, Method]:
    """Describe the methods of ``step.pte`` for MF with BPR and SGD; ``methods`` has the rest."""
    return methods(Step(batch_size, dim, l2, chunk))


def methods(step: Step) -> dict[str, Method]:
    """Describe the methods of ``step.pte``."""
    return {"gradients": _gradients(step), "update": _update(step)}


def _gradients(step: Step) -> Method:
    names = STATE[step.optimizer]

    def wanted(grads: Tensor, mask: Tensor, sampled: Tensor) -> Tensor:
        # Inside the mask, and everywhere in a sampled row. Products broadcast (T, 1) cheaply in
        # ExecuTorch's portable kernels; maximum and where do not.
        return grads * (mask * (1 - sampled) + sampled)  # (T, d)

    def gradients(
        rows: Tensor, mask: Tensor, sampled: Tensor, weight: Tensor, *others: Tensor
    ) -> tuple[Tensor, ...]:
        masked = rows * mask  # (T, d)
        lists = Lists(*others[:4]) if step.has_graph else None
        given = others[4 * step.has_graph :]
        if not step.dense:
            differentiate = torch.func.grad_and_value(
                lambda tile: step.value(tile, weight, lists, {})
            )
            grads, loss = differentiate(masked)
            return loss, wanted(grads, mask, sampled)
        dense, state = given[0], dict(zip(names, given[1:], strict=False))
        rate = dict(zip(rates(step.optimizer, 0, 0), given[1 + len(names) :], strict=True))
        (grads, slope), loss = torch.func.grad_and_value(
            lambda tile, flat: step.value(tile, weight, lists, split(flat, step.dense)), (0, 1)
        )(masked, dense)
        new, new_state = moved(step.optimizer, dense, slope, state, rate)
        return loss, wanted(grads, mask, sampled), new, *new_state.values()

    tile, flat = (step.slots, step.dim), (step.dense_size,)
    inputs = [
        TensorSpec("rows", "float32", tile, "tile"),
        TensorSpec("mask", "float32", tile, "mask"),
        TensorSpec("sampled", "float32", (step.slots, 1), "sampled"),
        TensorSpec("weight", "float32", (step.batch_size,), "weight"),
    ]
    outputs = [
        TensorSpec("loss", "float32", (), "loss"),
        TensorSpec("grads", "float32", tile, "gradient"),
    ]
    if step.has_graph:
        inputs += list_specs(step.slots, step.fanout)
    if step.dense:
        after = [TensorSpec("dense", "float32", flat, "dense")]
        after += [TensorSpec(f"dense_{name}", "float32", flat, "dense_state") for name in names]
        inputs += [*after, *_rate_specs(step.optimizer)]
        outputs += after
    return Method(gradients, tuple(inputs), tuple(outputs), xnnpack=step.model in LAYERED)


def list_specs(slots: int, width: int, readers: bool = True) -> list[TensorSpec]:
    """Describe neighbour lists (T, F), and their transposes unless nothing is differentiated."""
    shape = (slots, width)
    specs = [
        TensorSpec("neighbours", "int32", shape, "neighbours"),
        TensorSpec("neighbour_weights", "float32", shape, "neighbour_weights"),
        TensorSpec("readers", "int32", shape, "readers"),
        TensorSpec("reader_weights", "float32", shape, "reader_weights"),
    ]
    return specs if readers else specs[:2]


def _rate_specs(optimizer: OptimizerName) -> list[TensorSpec]:
    roles = {"lr": "learning_rate"}
    return [
        TensorSpec(name, "float32", (1,), roles.get(name, name)) for name in rates(optimizer, 0, 0)
    ]


def _update(step: Step) -> Method:
    names = STATE[step.optimizer]

    def update(vals: Tensor, grads: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        state = dict(zip(names, others, strict=False))
        rate = dict(zip(rates(step.optimizer, 0, 0), others[len(names) :], strict=True))
        new, new_state = moved(step.optimizer, vals, grads, state, rate)
        return new, *new_state.values()

    shape = (step.chunk,)
    vals = TensorSpec("vals", "float32", shape, "values")
    state = [TensorSpec(name, "float32", shape, "state") for name in names]
    grads = TensorSpec("grads", "float32", shape, "gradient")
    inputs = (vals, grads, *state, *_rate_specs(step.optimizer))
    return Method(update, inputs, (vals, *state))


def update_chunk(slots: int, entries: int, rows: int) -> int:
    """Choose E: a power of two that holds the entries of a batch whose rows are all distinct.

    Args:
        slots: T.
        entries: active entries of the table.
        rows: of the table.
    """
    return 1 << max(8, int(slots * entries / rows).bit_length())
