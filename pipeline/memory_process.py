"""The process that ``pipeline.memory.measure`` starts: it trains a few steps and prints peaks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from pipeline.backward import Objective
from pipeline.data.split import Pairs
from pipeline.exchange import Schedule
from pipeline.graph import Graph
from pipeline.memory import STEPS, WINDOW, Memory, Meter
from pipeline.models import MODELS
from pipeline.nmf import random_table
from pipeline.sampling import TripleSampler
from pipeline.train import Grow, StepConfig, Trainer
from sparserec.errors import SparseRecError

GROW: dict[str, Grow] = {"sparserec": "cumulative", "rigl-packed": "rigl"}


def main(wanted: Memory) -> None:
    """Measure and print what was found, as JSON."""
    torch.set_num_threads(1)
    steps = dense_steps if wanted.method in ("dense", "rigl") else packed_steps
    # Libraries load what they need in a first run, which is not the step's.
    small = replace(wanted, num_rows=1000, density=max(wanted.density, 4 / wanted.dim))
    steps(small, *log_of(small), Meter)
    parts = log_of(wanted)
    meters: list[Meter] = []

    def meter() -> Meter:
        meters.append(Meter())
        return meters[0]

    state = steps(wanted, *parts, meter)
    print(json.dumps(meters[0].peaks | {"state_bytes": state}))


def log_of(wanted: Memory) -> tuple[TripleSampler, Graph | None]:
    """Draw 2 N interactions of N / 2 users and as many items; they are not measured."""
    half = wanted.num_rows // 2
    sampler = uniform_sampler(half)
    with_graph = MODELS[wanted.model].GRAPH != "none"
    return sampler, Graph.of(sampler.log, half, half) if with_graph else None


def uniform_sampler(half: int) -> TripleSampler:
    """Draw 4 interactions a user of as many users as items, always the same."""
    rng = np.random.default_rng(1)
    users, items = (rng.integers(0, half, 4 * half, np.int32) for _ in range(2))
    return TripleSampler.of(Pairs(users, items, None), None, half, half, 1)


def config_of(wanted: Memory) -> StepConfig:
    """Give the step: BPR and Adam."""
    return StepConfig(
        model=wanted.model,
        batch_size=wanted.batch_size,
        sampled_fraction=wanted.sampled_fraction,
        grow=GROW.get(wanted.method, "cumulative"),
        importance="all" if wanted.method == "rigl-packed" else "frequency",
    )


def packed_steps(
    wanted: Memory, sampler: TripleSampler, graph: Graph | None, start_meter: Callable[[], Meter]
) -> int:
    """Run the project's trainer; give the bytes of its state."""
    config, half = config_of(wanted), wanted.num_rows // 2
    dense = MODELS[wanted.model].initial(wanted.dim, 1)
    original = Objective.of_taken
    meter = start_meter()
    table = random_table(half, half, wanted.dim, wanted.density, config.floor, 0.1, 1)
    meter.end("start")
    trainer = Trainer(table, sampler, config, Schedule(4 * STEPS, WINDOW, 0.2), graph, dense)
    del table  # which the first exchange replaces
    for values in trainer.state.values():
        values.fill(0)  # a page counts once it is touched
    Objective.of_taken = meter.watched("forward", original)  # type: ignore[method-assign]
    trainer._begin_window = meter.watched("update", trainer._begin_window)  # type: ignore[method-assign]
    trainer._gradients = meter.watched("backward", trainer._gradients)  # type: ignore[method-assign]
    largest = 0
    try:
        for step in range(STEPS):
            if step % WINDOW == WINDOW - 1:
                largest = max(largest, state_bytes(trainer))
            trainer.sums += np.float32(0)
            trainer.run_step()
            meter.end("update")
    finally:
        Objective.of_taken = original  # type: ignore[method-assign]
    return largest


def state_bytes(trainer: Trainer) -> int:
    """Count what a trainer keeps from step to step, beside its sampler and graph."""
    table, dense = trainer.table, list(trainer.dense.values())
    arrays: list[np.ndarray] = [
        table.row_ptr,
        table.cols,
        table.vals,
        *trainer.state.values(),
        *dense,
    ]
    arrays += [trainer.sampled, trainer.sums, trainer.norms]
    for state in trainer.dense_state.values():
        arrays += state.values()
    return sum(values.nbytes for values in arrays)


def dense_steps(
    wanted: Memory, sampler: TripleSampler, graph: Graph | None, start_meter: Callable[[], Meter]
) -> int:
    """Run the same steps as PyTorch users write them; give the bytes of what is kept.

    Under ``rigl`` the gradient is taken of the masked weights, so it is whole, and at a window's
    end its magnitudes choose what grows.
    """
    config, half, dim = config_of(wanted), wanted.num_rows // 2, wanted.dim
    model = MODELS[wanted.model]
    objective = Objective(wanted.model, "bpr", config.l2, half)
    meter = start_meter()
    weight = torch.nn.Parameter(torch.empty(2 * half, dim).normal_(0, 0.1))
    mask = torch.rand(2 * half, dim) < wanted.density if wanted.method == "rigl" else None
    dense: dict[str, torch.Tensor] = {
        k: torch.nn.Parameter(torch.from_numpy(v)) for k, v in model.initial(dim, 1).items()
    }
    adam = torch.optim.Adam([weight, *dense.values()], lr=0.01)
    meter.end("start")
    for step in range(STEPS):
        u, p, n = sampler.batch(step, config.batch_size)
        slots = np.concatenate([u, half + p, half + n])
        rows: torch.Tensor = weight
        if mask is not None:
            rows = weight * mask
            rows.retain_grad()
        vectors = rows if graph is None else model.propagate(rows, graph.aggregate, dense)
        loss = objective.value(vectors, rows, slots, dense, config.batch_size)
        meter.end("forward")
        loss.backward()  # type: ignore[no-untyped-call]
        meter.end("backward")
        adam.step()
        if mask is not None and step % WINDOW == WINDOW - 1:
            assert rows.grad is not None
            rewire(weight, mask, rows.grad)
        del rows, vectors, loss
        meter.end("update")
        adam.zero_grad(set_to_none=False)
    kept: list[torch.Tensor] = [weight, *dense.values()]
    kept += [parameter.grad for parameter in kept if parameter.grad is not None]
    kept += [moment for state in adam.state.values() for moment in state.values()]
    return sum(t.nbytes for t in kept) + (mask.nbytes if mask is not None else 0)


def rewire(weight: torch.Tensor, mask: torch.Tensor, grad: torch.Tensor) -> None:
    """Drop a tenth of the active entries and grow those with the largest gradient, in place."""
    count = int(mask.sum()) // 10
    with torch.no_grad():
        strength = torch.where(mask, weight.abs(), torch.inf).view(-1)
        mask.view(-1)[strength.topk(count, largest=False).indices] = False
        del strength
        wish = torch.where(mask, -1.0, grad.abs()).view(-1)
        grown = wish.topk(count).indices
        mask.view(-1)[grown] = True
        weight.view(-1)[grown] = 0


if __name__ == "__main__":
    try:
        main(Memory(**json.loads(sys.argv[1])))
    except SparseRecError as error:
        sys.exit(error.message)  # the last line is what the caller shows
