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
from export.golden import golden
from export.lower import lower
from export.manifest import Manifest, MethodInfo, ProgramInfo, Training
from export.methods import Method
from export.program import describe
from export.score import score_chunk, score_methods
from export.step import step_methods, update_chunk
from pipeline.files import encode_ids
from pipeline.incremental import Incremental
from pipeline.run import TrainedRun
from pipeline.table import PackedTable
from sparserec import __version__
from sparserec.errors import SparseRecError
from sparserec.progress import Progress, silent

STAGES = 4


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
    """Write the bundle of a run to the folder ``out``.

    Args:
        run: trained; its split has a log and later interactions.
        out: a folder that is not there, is empty, or is a bundle to replace.
        recipe: what the device does; its ``floor`` is taken from the run.
        steps: length of the device's run; None takes the recipe's passes over the log.
        spare_users: free rows for users yet to come; None takes 2%, at least 8.
        spare_items: likewise.
        progress: gets the stages.
        others: programs to put in besides (export/dense_trainers.py), by their names in the manifest.

    Raises:
        SparseRecError: if the run has nothing for a device, a program differs from PyTorch, or
            ``out`` cannot be written. ``out`` is then as it was.
    """
    split = run.split
    for name in ("log", "later"):
        if not len(getattr(split, name)):
            raise SparseRecError(
                f"the split of {run.dataset} has no {name} interactions,"
                " so there is nothing for a device to do",
                "train on a dataset with times: sparserec data list",
            )
    recipe = replace(recipe, floor=run.recipe.step.floor)
    steps = recipe.steps(len(split.log)) if steps is None else steps
    num_users = layout.capacity(split.num_users, spare_users)
    num_items = layout.capacity(split.num_items, spare_items)
    table = layout.with_spare_rows(run.table, num_users, num_items, recipe.floor)

    progress("export: lowering and checking step.pte", 0, STAGES)
    step = _step_program(table, recipe)
    progress("export: lowering and checking score.pte", 1, STAGES)
    score = _score_program(table)
    progress("export: losses and quality of the host", 2, STAGES)
    expected = golden(
        table, split.log, split.later, layout.past(split), split.num_items, recipe, steps
    )
    progress("export: writing the bundle", 3, STAGES)
    files = {
        "table.safetensors": _tensors(layout.table_tensors(table)),
        "interactions.safetensors": _tensors(layout.interaction_tensors(split, num_users)),
        "ids.safetensors": _tensors(
            encode_ids("users", split.user_ids) | encode_ids("items", split.item_ids)
        ),
        "golden.json": (json.dumps(expected, indent=2) + "\n").encode(),
        "step.pte": step.pte,
        "score.pte": score.pte,
    }
    programs = {"step": step.info, "score": score.info}
    for name, other in (others or {}).items():
        files[other.info.file], programs[name] = other.pte, other.info
    described = _manifest(run, table, recipe, steps, programs, files)
    write_bundle(out, described, files)
    progress("export: done", STAGES, STAGES)
    return Built(out, described, step.max_abs_errors | score.max_abs_errors)


def _step_program(table: PackedTable, recipe: Incremental) -> Program:
    chunk = update_chunk(recipe.batch_size, table.nnz, table.num_rows)
    methods = step_methods(recipe.batch_size, table.dim, recipe.l2, chunk)
    return make_program("step.pte", methods, verify.step_references(recipe.l2))


def _score_program(table: PackedTable) -> Program:
    methods = score_methods(score_chunk(table.num_items), table.dim)
    return make_program("score.pte", methods, verify.score_references())


def make_program(
    file: str, methods: Mapping[str, Method], references: Mapping[str, verify.Reference]
) -> Program:
    """Lower methods, execute them against PyTorch, and describe what came out.

    Raises:
        SparseRecError: if they differ by more than ``verify.MAX_ABS_ERROR``.
    """
    pte = lower(methods)
    errors = verify.compare(pte, methods, references)
    plans = describe(pte, Path(file))
    infos = {}
    for name, method in methods.items():
        plan = plans[name]
        for specs, found in ((method.inputs, plan.inputs), (method.outputs, plan.outputs)):
            if found != [(spec.dtype, spec.shape) for spec in specs]:
                raise RuntimeError(f"{file}: {name} has {found} where {specs} were declared")
        infos[name] = MethodInfo(
            method.inputs,
            method.outputs,
            tuple(plan.operators),
            tuple(plan.backends),
            plan.planned_arena_bytes,
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
    return Manifest(
        bundle_id=bundle_id(run.dataset, "mf", table.dim, run.table.density, infos),
        created_utc=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        model="mf",
        num_users=table.num_users,
        num_items=table.num_items,
        known_users=run.split.num_users,
        known_items=run.split.num_items,
        dim=table.dim,
        density=table.density,
        nnz=table.nnz,
        floor=min(recipe.floor, table.dim),
        training=Training(
            optimizer="sgd",
            learning_rate=recipe.learning_rate,
            l2=recipe.l2,
            batch_size=recipe.batch_size,
            steps=steps,
            seed=recipe.seed,
            window=recipe.window,
            sampled_fraction=recipe.sampled_fraction,
            exchange_fraction=recipe.exchange_fraction,
            exchange_stop=recipe.exchange_stop,
            negative_tries=recipe.negative_tries,
        ),
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
