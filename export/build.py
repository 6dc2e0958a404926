"""From a trained run to a bundle."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from export import layout, verify
from export.bundle import bundle_id, file_infos, write_bundle
from export.dense import specs
from export.golden import golden
from export.lower import lower
from export.manifest import (
    GRAPH,
    MAX_FLOAT,
    NAME,
    WORDS,
    Manifest,
    MethodInfo,
    ProgramInfo,
    Training,
    kept,
)
from export.methods import Method
from export.program import describe
from export.score import score_chunk, score_methods, vector_methods, vector_width
from export.step import Step, methods, update_chunk
from pipeline.files import encode_ids
from pipeline.incremental import SCORED_ROWS, Incremental
from pipeline.losses import SHARED
from pipeline.models import MODELS
from pipeline.precision import decoded, encoded
from pipeline.run import TrainedRun
from pipeline.table import F32, PackedTable
from sparserec import __version__
from sparserec.errors import SparseRecError
from sparserec.progress import Progress, silent

STAGES = 4
EXPORTED = WORDS["model"]
"""Base recommenders that harnesses know."""


@dataclass(frozen=True)
class Built:
    """What an export ends with.

    Attributes:
        path: of the bundle.
        manifest: of the bundle.
        max_abs_errors: by method: ExecuTorch against PyTorch.
    """

    path: Path
    manifest: Manifest
    max_abs_errors: dict[str, float]


@dataclass(frozen=True)
class Program:
    """A lowered and verified program."""

    pte: bytes
    info: ProgramInfo
    max_abs_errors: dict[str, float]


@dataclass(frozen=True)
class Assembled:
    """A bundle that is not written yet: its manifest, its other files, and ``Built``'s errors."""

    manifest: Manifest
    files: dict[str, bytes]
    max_abs_errors: dict[str, float]


def build(
    run: TrainedRun,
    out: Path,
    recipe: Incremental,
    steps: int | None = None,
    spare_users: int | None = None,
    spare_items: int | None = None,
    progress: Progress = silent,
    others: Mapping[str, Program] | None = None,
) -> Built:
    """Write the bundle of a run to the folder ``out``; see ``assemble``.

    Where the same bundle is there already, its manifest stays (``export.manifest.kept``).

    Raises:
        SparseRecError: if there is no such bundle, or ``out`` cannot be written. ``out`` is then as
            it was.
    """
    made = assemble(run, recipe, steps, spare_users, spare_items, progress, others)
    described, manifest = kept(out / NAME, made.manifest)
    write_bundle(out, described, made.files, manifest)
    progress("export: done", STAGES, STAGES)
    return Built(out, described, made.max_abs_errors)


def assemble(
    run: TrainedRun,
    recipe: Incremental,
    steps: int | None = None,
    spare_users: int | None = None,
    spare_items: int | None = None,
    progress: Progress = silent,
    others: Mapping[str, Program] | None = None,
) -> Assembled:
    """Make the bundle of a run.

    Args:
        run: trained; its split has a log and later interactions.
        recipe: what the device does; its ``floor`` is taken from the run.
        steps: length of the device's run; None takes the recipe's passes over the log.
        spare_users: free rows for users yet to come; None takes 2%, at least 8.
        spare_items: likewise.
        progress: gets the stages.
        others: programs to put in besides (``export.dense_trainers``), by their names in the
            manifest.

    Raises:
        SparseRecError: if the run has nothing for a device, a number of the recipe is none for
            one, or a program differs from PyTorch.
    """
    split = run.split
    if run.recipe.step.model not in EXPORTED:
        raise SparseRecError(
            f"model {run.recipe.step.model}: a model of your own cannot be exported",
            f"train one of these for a device: {', '.join(EXPORTED)}",
        )
    for name in ("learning_rate", "l2"):
        value = getattr(recipe, name)
        if not 0 <= value <= MAX_FLOAT:  # NaN fails this too
            raise SparseRecError(
                f"{name}: is {value}, outside [0, {MAX_FLOAT}]",
                "give a float32 number",
            )
    for name in ("log", "later"):
        if not len(getattr(split, name)):
            raise SparseRecError(
                f"the split of {run.dataset} has no {name} interactions,"
                " so there is nothing for a device to do",
                "train on a dataset with times: sparserec data list",
            )
    step = run.recipe.step
    recipe = replace(recipe, floor=step.floor, model=step.model)
    steps = recipe.steps(len(split.log)) if steps is None else steps
    num_users = layout.capacity(split.num_users, spare_users)
    num_items = layout.capacity(split.num_items, spare_items)
    table = layout.with_spare_rows(run.table, num_users, num_items, recipe.floor)
    stored = encoded(table, recipe.precision)
    table.vals = decoded(table, stored)  # what the device starts from

    progress("export: lowering and checking step.pte", 0, STAGES)
    programs = {"step": step_program(table, recipe, split.num_items, run.dense)}
    progress("export: lowering and checking score.pte", 1, STAGES)
    programs["score"] = score_program(table, recipe, run.dense)
    progress("export: losses and quality of the host", 2, STAGES)
    expected = golden(
        table, split.log, split.later, layout.past(split), split.num_items, recipe, steps, run.dense
    )
    progress("export: writing the bundle", 3, STAGES)
    files = {
        "table.safetensors": _tensors(layout.table_tensors(table, stored, run.dense)),
        "interactions.safetensors": _tensors(layout.interaction_tensors(split, num_users)),
        "ids.safetensors": _tensors(
            encode_ids("users", split.user_ids) | encode_ids("items", split.item_ids)
        ),
        "golden.json": (json.dumps(expected, indent=2) + "\n").encode(),
    }
    programs |= others or {}
    files |= {program.info.file: program.pte for program in programs.values()}
    if MODELS[recipe.model].GRAPH != "none":
        files[GRAPH] = _tensors(layout.graph_tensors(split, num_users, num_items))
    infos = {name: program.info for name, program in programs.items()}
    described = _manifest(run, table, recipe, steps, infos, files)
    errors = programs["step"].max_abs_errors | programs["score"].max_abs_errors
    return Assembled(described, files, errors)


def step_program(
    table: PackedTable, recipe: Incremental, num_items: int, dense: Mapping[str, F32]
) -> Program:
    """Lower and check ``step.pte`` for a table and what a device does with it."""
    step = Step(
        batch_size=recipe.batch_size,
        dim=table.dim,
        l2=recipe.l2,
        chunk=update_chunk(recipe.tile_slots, table.nnz, table.num_rows),
        model=recipe.model,
        loss=recipe.loss,
        optimizer=recipe.optimizer,
        negatives=recipe.negatives,
        num_items=num_items,
        tile=recipe.tile_slots,
        fanout=recipe.fanout,
        dense=specs(dense),
    )
    return make_program("step.pte", methods(step), verify.step_references(step))


def score_program(table: PackedTable, recipe: Incremental, dense: Mapping[str, F32]) -> Program:
    """Lower and check ``score.pte``."""
    model, parameters = recipe.model, specs(dense)
    if MODELS[model].GRAPH == "none":
        chunk = score_chunk(table.num_items, model)
        found = score_methods(chunk, table.dim, model, parameters)
        return make_program("score.pte", found, verify.score_references(model, parameters))
    width = vector_width(model, table.dim, parameters)
    found = score_methods(SCORED_ROWS, width, model)
    slots, fanout = recipe.chunk_slots, recipe.chunk_fanout
    found |= vector_methods(model, table.dim, SCORED_ROWS, slots, fanout, parameters)
    return make_program("score.pte", found, verify.score_references(model, parameters, SCORED_ROWS))


def make_program(
    file: str, declared: Mapping[str, Method], references: Mapping[str, verify.Reference]
) -> Program:
    """Lower methods, execute them against PyTorch, and describe what came out.

    Raises:
        SparseRecError: if they differ by more than ``verify.MAX_ABS_ERROR``.
    """
    pte = lower(declared)
    errors = verify.compare(pte, declared, references)
    plans = describe(pte, Path(file))
    infos = {}
    for name, method in declared.items():
        plan = plans[name]
        for wanted, found in ((method.inputs, plan.inputs), (method.outputs, plan.outputs)):
            if found != [(spec.dtype, spec.shape) for spec in wanted]:
                raise RuntimeError(f"{file}: {name} has {found} where {wanted} were declared")
        infos[name] = MethodInfo(
            method.inputs,
            method.outputs,
            tuple(plan.operators),
            tuple(plan.backends),
            plan.planned_arena_bytes,
            plan.delegates,
        )
    return Program(pte, ProgramInfo(file, infos), errors)


def _manifest(
    run: TrainedRun,
    table: PackedTable,
    recipe: Incremental,
    steps: int,
    programs: dict[str, ProgramInfo],
    files: Mapping[str, bytes],
) -> Manifest:
    infos = file_infos(files)
    training = Training(
        loss=recipe.loss,
        negatives=recipe.negatives if recipe.loss in SHARED else 0,
        optimizer=recipe.optimizer,
        learning_rate=recipe.learning_rate,
        l2=recipe.l2,
        batch_size=recipe.batch_size,
        steps=steps,
        seed=recipe.seed,
        window=recipe.window_of(table.num_rows, steps),
        sampled_fraction=recipe.fraction_of(table.num_rows),
        exchange_fraction=recipe.exchange_fraction,
        exchange_stop=recipe.exchange_stop,
        negative_tries=recipe.negative_tries,
    )
    name = bundle_id(run.dataset, recipe.model, table.dim, run.table.density, infos, training)
    return Manifest(
        bundle_id=name,
        created_utc=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        model=recipe.model,
        num_users=table.num_users,
        num_items=table.num_items,
        known_users=run.split.num_users,
        known_items=run.split.num_items,
        dim=table.dim,
        density=table.density,
        nnz=table.nnz,
        floor=min(recipe.floor, table.dim),
        precision=recipe.precision,
        dense=specs(run.dense),
        training=training,
        programs=programs,
        producer={
            "sparserec": __version__,
            "torch": version("torch"),
            "executorch": version("executorch"),
            "python": platform.python_version(),
        },
        provenance={
            "dataset": run.dataset,
            "source_sha256": run.source_sha256,
            "host_seed": run.recipe.seed,
            "git": _git(),
            "metrics": run.metrics,
        },
        files=infos,
    )


def _tensors(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def _git() -> str | None:
    """Describe the checkout this code runs from; None outside of one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return found.stdout.strip() or None
