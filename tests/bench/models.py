"""The models' steps that are held against PyTorch eager. A new model is one more entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from export.dense import specs
from export.lower import lower
from export.methods import Method
from export.step import Step, methods, step_methods, update_chunk
from pipeline.incremental import Incremental
from pipeline.models import MODELS, ModelName
from pipeline.optimizers import STATE
from tests.bench.bundles import BATCH, DENSITY, DIM, L2, UPDATE_CHUNK
from tests.bench.jvm import Jvm
from tests.bench.measure import Result, by_turns, compared, timed
from tests.bench.peers import eager_model_step, eager_step, eager_update


@dataclass(frozen=True)
class ModelStep:
    """One model's step.

    Attributes:
        model: its name.
        methods: what ``step.pte`` has, all of which make one step.
        eager: the same arithmetic on tensors of the same shapes in PyTorch eager.
        target: least ratio that the project aims at.
    """

    model: str
    methods: Mapping[str, Method]
    eager: Callable[[], object]
    target: float


def model_steps() -> list[ModelStep]:
    """List the steps that are compared."""
    return [
        ModelStep(
            "mf",
            step_methods(BATCH, DIM, L2, UPDATE_CHUNK),
            eager_step(BATCH, DIM, UPDATE_CHUNK, L2),
            target=2.0,
        ),
        *(_trained("neumf"), _trained("ngcf"), _trained("lightgcn")),
    ]


def _trained(model: ModelName) -> ModelStep:
    """Give the step that a device makes of this model by default: Adam, BPR, float32."""
    recipe = Incremental.of(model)
    entries = int(DENSITY * DIM * 1000)
    step = Step(
        batch_size=BATCH,
        dim=DIM,
        l2=L2,
        chunk=update_chunk(recipe.tile_slots, entries, 1000),
        model=model,
        optimizer=recipe.optimizer,
        tile=recipe.tile_slots,
        fanout=recipe.fanout,
        dense=specs(MODELS[model].initial(DIM, 1)),
    )
    return ModelStep(model, methods(step), eager_model_step(step), target=1.0)


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


def load(jvm: Jvm, folder: Path, step: ModelStep) -> None:
    """Lower the step's program and load it, under the model's name."""
    path = folder / f"{step.model}.pte"
    path.write_bytes(lower(step.methods))
    calls = []
    for name, method in step.methods.items():
        shapes = (
            "i" * (spec.dtype == "int32") + "x".join(map(str, spec.shape)) for spec in method.inputs
        )
        calls += [name, ",".join(shapes)]
    jvm.ask("program", step.model, path, *calls)


def against_eager(jvm: Jvm, step: ModelStep, rounds: int = 15) -> Result:
    """Compare a step that was loaded with PyTorch eager."""
    repetitions = 40 if step.model in ("mf", "neumf") else 15  # the others take milliseconds
    samples = by_turns(
        {
            "ours": (lambda count: jvm.time(step.model, count), repetitions),
            "peer": (timed(step.eager), repetitions),
        },
        rounds,
    )
    return compared(f"{step.model}_step_vs_eager", **samples, target=step.target)
