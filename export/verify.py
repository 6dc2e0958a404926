"""Execute a program on random inputs and compare it with PyTorch, before anyone else runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from export.dense import DenseSpec, split
from export.methods import Method, TensorSpec
from export.quiet import quiet
from export.step import Step
from pipeline.losses import batch_loss
from pipeline.models import MODELS, ModelName
from pipeline.optimizers import STATE, OptimizerName
from sparserec.errors import SparseRecError

MAX_ABS_ERROR = 1e-5
EPSILON = torch.finfo(torch.float32).eps
DRAWS = 4

Outputs = tuple[Tensor, ...]
Reference = Callable[..., Outputs]
"""Eager PyTorch that computes what a method should, by another way."""


@dataclass(frozen=True)
class Executable:
    """A loaded program."""

    program: Any

    def __call__(self, method: str, *inputs: Tensor) -> Outputs:
        """Execute a method. Returns copies: the runtime's outputs live in its arena."""
        with quiet():
            outputs = self.program.load_method(method).execute(inputs)
        return tuple(output.clone() for output in outputs)


def load(pte: bytes) -> Executable:
    """Load a program into ExecuTorch's runtime for Python."""
    with quiet():
        from executorch.runtime import Runtime

        return Executable(Runtime.get().load_program(pte))


def step_references(step: Step) -> dict[str, Reference]:
    """Eager counterparts of ``step.pte``: autograd, with neither make_fx nor torch.func.

    Neighbours are summed by a product with a dense adjacency of the tile, built from the forward
    lists alone, so that lists which are not each other's transposes show.
    """

    def gradients(
        rows: Tensor, mask: Tensor, sampled: Tensor, weight: Tensor, *others: Tensor
    ) -> Outputs:
        tile = torch.where(mask > 0, rows, 0).requires_grad_()
        aggregate = adjacency(*others[:2]).matmul if step.has_graph else None
        given = others[4 * step.has_graph :]
        flat = given[0].clone().requires_grad_() if step.dense else torch.zeros(1)
        parameters = split(flat, step.dense)
        vectors = tile
        if aggregate is not None:
            vectors = MODELS[step.model].propagate(tile, aggregate, parameters)
        size = step.batch_slots
        model, items = MODELS[step.model], step.num_items
        loss = batch_loss(
            step.loss, model, vectors[:size], tile[:size], parameters, weight, step.l2, items
        )
        loss.backward()  # type: ignore[no-untyped-call]
        assert tile.grad is not None
        grads = torch.where((mask > 0) | (sampled > 0), tile.grad, 0)
        if not step.dense:
            return loss.detach(), grads
        assert flat.grad is not None
        return loss.detach(), grads, *_stepped(step.optimizer, given[0], flat.grad, *given[1:])

    def update(vals: Tensor, grads: Tensor, *others: Tensor) -> Outputs:
        return _stepped(step.optimizer, vals, grads, *others)

    return {"gradients": gradients, "update": update}


def adjacency(neighbours: Tensor, weights: Tensor) -> Tensor:
    """Build the matrix (T, T) that neighbour lists (T, F) stand for."""
    size = len(neighbours)
    return torch.zeros(size, size).scatter_add_(1, neighbours.long(), weights)


def _stepped(optimizer: OptimizerName, vals: Tensor, grads: Tensor, *others: Tensor) -> Outputs:
    """Do a step of ``torch.optim``; Adam's, whose rates come from outside, in float64 by hand."""
    count = len(STATE[optimizer])
    state, rate = others[:count], float(others[count])
    if optimizer == "adam":
        g, (m, v) = grads.double(), (s.double() for s in state)
        m, v = torch.lerp(g, m, 0.9), torch.lerp(g.square(), v, 0.999)
        new = vals.double() - rate * m / ((v / others[-1].double()).sqrt() + 1e-8)
        return new.float(), m.float(), v.float()
    parameter = vals.clone().requires_grad_()
    parameter.grad = grads.clone()
    chosen: torch.optim.Optimizer
    if optimizer == "adagrad":
        chosen = torch.optim.Adagrad([parameter], lr=rate, eps=1e-10)
        chosen.state[parameter]["sum"] = state[0].clone()
    else:
        chosen = torch.optim.SGD([parameter], lr=rate, momentum=0.9 if count else 0.0)
        if count:
            chosen.state[parameter]["momentum_buffer"] = state[0].clone()
    chosen.step()
    return parameter.detach(), *list(chosen.state[parameter].values())[-count:][:count]


def score_references(
    model: ModelName = "mf", dense: tuple[DenseSpec, ...] = (), rows: int = 0
) -> dict[str, Reference]:
    """Eager counterparts of ``score.pte``: scores pair by pair, and a full sort."""

    def score(user: Tensor, items: Tensor, penalty: Tensor, *flat: Tensor) -> Outputs:
        parameters = split(flat[0], dense) if flat else {}
        users = user[0].expand(items.shape[1], -1)
        values = MODELS[model].pair_scores(users, items[0], parameters) + penalty[0]
        ranked = torch.sort(values, descending=True, stable=True)
        return ranked.values[None], ranked.indices[None]

    def vectors(tile: Tensor, neighbours: Tensor, weights: Tensor, *flat: Tensor) -> Outputs:
        parameters = split(flat[0], dense) if flat else {}
        aggregate = adjacency(neighbours, weights).matmul
        return (MODELS[model].propagate(tile, aggregate, parameters)[:rows],)

    return {"score": score, "vectors": vectors}


def compare(
    pte: bytes, methods: Mapping[str, Method], references: Mapping[str, Reference], seed: int = 1
) -> dict[str, float]:
    """Execute every method ``DRAWS`` times on random inputs.

    Returns:
        The maximal absolute error of each method.

    Raises:
        SparseRecError: if one is over ``MAX_ABS_ERROR``, in results so large that it must be or
            not, or an output has the wrong shape.
    """
    run = load(pte)
    generator = torch.Generator().manual_seed(seed)
    errors, sizes = {}, {}
    for name, method in methods.items():
        found, reached = [], []
        for _ in range(DRAWS):
            inputs = random_inputs(method.inputs, generator)
            outputs = run(name, *inputs)
            for spec, output in zip(method.outputs, outputs, strict=True):
                if tuple(output.shape) != spec.shape:
                    raise SparseRecError(
                        f"{name}: output {spec.name} has shape {tuple(output.shape)},"
                        f" not {spec.shape}"
                    )
            expected = references[name](*inputs)
            found.append(_error(method, outputs, expected))
            reached += [_size(wanted) for wanted in expected if wanted.is_floating_point()]
        errors[name], sizes[name] = _largest(found), _largest(reached)
    for name, error in errors.items():
        if not error <= MAX_ABS_ERROR:  # so that NaN fails
            if sizes[name] * EPSILON > MAX_ABS_ERROR:
                raise SparseRecError(
                    f"{name}: PyTorch's own results reach {sizes[name]:.2g}, where float32 is"
                    f" coarser than the {MAX_ABS_ERROR:g} that a program may differ by",
                    "lower --l2",
                )
            raise SparseRecError(
                f"{name}: the exported program differs from PyTorch by {error:.2g},"
                f" more than {MAX_ABS_ERROR:g}; nothing was written",
                "report this with the versions of torch and executorch",
            )
    return errors


def _size(values: Tensor) -> float:
    """Give the largest finite magnitude: what is left out of a ranking scores -inf."""
    finite = values[values.isfinite()].abs()
    return float(finite.max()) if finite.numel() else torch.inf


def _error(method: Method, outputs: Outputs, expected: Outputs) -> float:
    """Maximal absolute difference; a top list's indices are judged by the values they point to."""
    errors = []
    for spec, output, wanted in zip(method.outputs, outputs, expected, strict=True):
        if spec.role == "indices":
            values, order = expected
            at = torch.empty_like(values).scatter_(1, order, values)  # values in item order
            output, wanted = at.gather(1, output), values  # noqa: PLW2901
        wanted = wanted[tuple(slice(size) for size in output.shape)]  # noqa: PLW2901
        errors.append(float((output - wanted).abs().max()))
    return _largest(errors)


def _largest(errors: list[float]) -> float:
    """Give the largest, or NaN if there is one, which Python's ``max`` passes over."""
    return float(torch.tensor(errors, dtype=torch.float64).max())


def random_inputs(
    specs: tuple[TensorSpec, ...], generator: torch.Generator, num_rows: int = 0
) -> tuple[Tensor, ...]:
    """Draw inputs of a method that a harness could give.

    Args:
        specs: of the inputs.
        generator: of the draws.
        num_rows: of the table that an input of role ``rows`` points into, where there is one.
    """
    drawn = {spec.name: _random(spec, generator, num_rows) for spec in specs}
    if "neighbours" in drawn:
        slots, width = drawn["neighbours"].shape
        lists = random_lists(slots, width, generator)
        drawn |= {name: values for name, values in lists.items() if name in drawn}
    return tuple(drawn.values())


def random_lists(slots: int, width: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw neighbour lists and their transposes: some empty, some full."""
    shape = (slots, width)
    lists = {
        "neighbours": torch.zeros(shape, dtype=torch.int32),
        "neighbour_weights": torch.zeros(shape),
        "readers": torch.zeros(shape, dtype=torch.int32),
        "reader_weights": torch.zeros(shape),
    }
    wanted = torch.randint(slots, shape, generator=generator)
    weights = torch.rand(shape, generator=generator)
    kept = torch.rand(slots, generator=generator) < 0.7
    readers = [0] * slots
    for slot in kept.nonzero().squeeze(1).tolist():
        count = 0
        for other, weight in zip(wanted[slot].tolist(), weights[slot].tolist(), strict=True):
            if readers[other] < width:
                place = readers[other]
                lists["neighbours"][slot, count] = other
                lists["readers"][other, place] = slot
                lists["neighbour_weights"][slot, count] = weight
                lists["reader_weights"][other, place] = weight
                readers[other] += 1
                count += 1
    return lists


def _random(spec: TensorSpec, generator: torch.Generator, num_rows: int) -> Tensor:
    if spec.role == "rows":
        return torch.randint(num_rows, spec.shape, generator=generator)
    uniform = torch.rand(spec.shape, generator=generator)
    if spec.role == "weight":  # padding comes last, and one triple is always real
        real = 1 + int(torch.randint(spec.shape[0], (), generator=generator))
        return (torch.arange(spec.shape[0]) < real).float()
    if spec.role == "penalty":  # never so many that the top list runs out of items
        hidden = torch.randperm(spec.shape[1], generator=generator)[: (spec.shape[1] - 20) // 2]
        return torch.zeros(spec.shape).index_fill_(1, hidden, -torch.inf)
    if spec.name in {"v", "dense_v"}:  # a sum of squares
        return uniform
    drawn = {
        "mask": (uniform < 0.3).float(),
        "sampled": (uniform < 0.3).float(),
        "learning_rate": 0.02 * uniform,
        "correction": 0.1 + 0.9 * uniform,
        "neighbours": torch.zeros(spec.shape, dtype=torch.int32),  # see random_lists
        "readers": torch.zeros(spec.shape, dtype=torch.int32),
    }
    return drawn.get(spec.role, 0.5 * torch.randn(spec.shape, generator=generator))
