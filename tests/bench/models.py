"""The models' steps that are held against PyTorch eager. A new model is one more entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from export.build import build
from export.dense import specs
from export.lower import lower
from export.methods import Method
from export.step import Step, methods, step_methods, update_chunk
from pipeline.data.interactions import Interactions
from pipeline.data.split import temporal_split
from pipeline.incremental import Incremental
from pipeline.models import MODELS
from pipeline.nmf import random_table
from pipeline.optimizers import STATE
from pipeline.recipes import sparserec
from pipeline.run import TrainedRun
from tests.bench.bundles import BATCH, DENSITY, DIM, L2, UPDATE_CHUNK
from tests.bench.jvm import Jvm
from tests.bench.measure import Result, by_turns, compared, timed
from tests.bench.peers import eager_model_step, eager_step, eager_update

TRAINED: dict[str, Incremental] = {
    "neumf": Incremental.of("neumf"),
    "ngcf": Incremental.of("ngcf"),
    "lightgcn": Incremental.of("lightgcn"),
    "lightgcn_tile4": replace(Incremental.of("lightgcn"), tile=4),
}
"""What a device does by default with each model but MF; and LightGCN on a tile of NGCF's size."""
USERS, ITEMS, LIKED = 1000, 2000, 30


@dataclass(frozen=True)
class ModelStep:
    """One model's step.

    Attributes:
        name: the model's, and what is not its default.
        methods: what ``step.pte`` has, all of which make one step.
        eager: the same arithmetic on tensors of the same shapes in PyTorch eager.
        target: least ratio that the project aims at.
    """

    name: str
    methods: Mapping[str, Method]
    eager: Callable[[], object]
    target: float


def model_steps() -> list[ModelStep]:
    """List the steps that are compared."""
    return [mf_step(), *(_trained(name, recipe) for name, recipe in TRAINED.items())]


def mf_step() -> ModelStep:
    """Give the step of MF."""
    return ModelStep(
        "mf",
        step_methods(BATCH, DIM, L2, UPDATE_CHUNK),
        eager_step(BATCH, DIM, UPDATE_CHUNK, L2),
        target=2.0,
    )


def _trained(name: str, recipe: Incremental) -> ModelStep:
    """Give the step that a device makes by this recipe: BPR, float32."""
    entries = int(DENSITY * DIM * 1000)
    step = Step(
        batch_size=BATCH,
        dim=DIM,
        l2=L2,
        chunk=update_chunk(recipe.tile_slots, entries, 1000),
        model=recipe.model,
        optimizer=recipe.optimizer,
        tile=recipe.tile_slots,
        fanout=recipe.fanout,
        dense=specs(MODELS[recipe.model].initial(DIM, 1)),
    )
    return ModelStep(name, methods(step), eager_model_step(step), target=1.0)


def bare(step: ModelStep) -> ModelStep:
    """Give programs of a step's signature that pass over each output once and do nothing else.

    What they take is the least that any program takes which is called as this one is.
    """

    def made(method: Method) -> Method:
        def function(*inputs: Tensor) -> tuple[Tensor, ...]:
            return tuple(_negated(inputs, spec.shape) for spec in method.outputs)

        return replace(method, function=function)

    methods = {name: made(method) for name, method in step.methods.items()}
    return replace(step, name=f"bare {step.name}", methods=methods)


def _negated(inputs: tuple[Tensor, ...], shape: tuple[int, ...]) -> Tensor:
    """Make an output of this shape by the cheapest operator that makes a new tensor of one."""
    alike = [tensor for tensor in inputs if tensor.shape == shape]
    return alike[0].neg() if alike else inputs[-1].sum()


def updates(jvm: Jvm, folder: Path) -> list[Result]:
    """Compare each optimizer's update of ``UPDATE_CHUNK`` packed entries with PyTorch eager."""
    results = []
    for optimizer in STATE:
        step = Step(BATCH, DIM, L2, UPDATE_CHUNK, optimizer=optimizer)
        update = {"update": methods(step)["update"]}
        name = f"{optimizer}_update"
        eager = eager_update(optimizer, UPDATE_CHUNK)
        load(jvm, folder, ModelStep(name, update, eager, target=1.0))
        sides = {"ours": (partial(jvm.time, name), 40), "peer": (timed(eager), 40)}
        results.append(compared(f"{name}_vs_eager", **by_turns(sides, 10)))
    return results


def write_model_bundle(folder: Path, name: str) -> Path:
    """Export what a device gets by a recipe of ``TRAINED``, but a table that nobody trained.

    The batch is ``BATCH``, d is ``DIM``; items are liked the more, the smaller they are.
    """
    random = np.random.default_rng(1)
    users = np.repeat(np.arange(USERS, dtype=np.int32), LIKED)
    items = (ITEMS * random.random(len(users)) ** 2).astype(np.int32)
    first = np.sort(np.unique(users.astype(np.int64) * ITEMS + items, return_index=True)[1])
    split = temporal_split(
        Interactions(
            users[first],
            items[first],
            np.arange(len(first), dtype=np.int64),
            [f"u{k}" for k in range(USERS)],
            [f"i{k}" for k in range(ITEMS)],
        )
    )
    device = replace(TRAINED[name], batch_size=BATCH)
    model, recipe = device.model, sparserec()
    recipe = replace(recipe, dim=DIM, density=DENSITY, step=replace(recipe.step, model=model))
    table = random_table(split.known_users, split.known_items, DIM, DENSITY, 2, 0.1, seed=1)
    run = TrainedRun(
        "random", "0" * 64, recipe, table, MODELS[model].initial(DIM, 1), split, {}, []
    )
    return build(run, folder / f"loop-{name}", device, steps=1_000_000).path


def load(jvm: Jvm, folder: Path, step: ModelStep) -> None:
    """Lower the step's program and load it, under its name."""
    path = folder / f"{step.name}.pte"
    path.write_bytes(lower(step.methods))
    calls = []
    for name, method in step.methods.items():
        shapes = (
            "i" * (spec.dtype == "int32") + "x".join(map(str, spec.shape)) for spec in method.inputs
        )
        calls += [name, ",".join(shapes)]
    jvm.ask("program", step.name, path, *calls)


def against_eager(jvm: Jvm, step: ModelStep, rounds: int = 15) -> Result:
    """Compare a step that was loaded with PyTorch eager."""
    repetitions = 40 if step.name in ("mf", "neumf", "lightgcn") else 15  # others take milliseconds
    samples = by_turns(
        {
            "ours": (lambda count: jvm.time(step.name, count), repetitions),
            "peer": (timed(step.eager), repetitions),
        },
        rounds,
    )
    return compared(f"{step.name}_step_vs_eager", **samples, target=step.target)
