"""The command line of the exporter: ``sparserec export`` and ``sparserec inspect``."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from export.manifest import MAX_BATCH, MAX_INT, MAX_SEED

if TYPE_CHECKING:
    from rich.table import Table

    from export.manifest import Manifest


class LossChoice(StrEnum):
    """Values of ``--loss``."""

    bpr = "bpr"
    bce = "bce"
    bpr_shared = "bpr-shared"
    softmax = "softmax"


class OptimizerChoice(StrEnum):
    """Values of ``--optimizer``."""

    sgd = "sgd"
    momentum = "momentum"
    adagrad = "adagrad"
    adam = "adam"


class PrecisionChoice(StrEnum):
    """Values of ``--precision``."""

    float32 = "float32"
    float16 = "float16"
    int8 = "int8"


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run that sparserec train wrote.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the bundle or delta.", show_default="RUN/bundle or RUN/delta"),
    ] = None,
    since: Annotated[
        Path | None,
        typer.Option(metavar="BUNDLE", help="Write a delta: only what changed since that bundle."),
    ] = None,
    spare_users: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=MAX_INT,
            help="Free rows for users yet to come.",
            show_default="2%, at least 8",
        ),
    ] = None,
    spare_items: Annotated[
        int | None,
        typer.Option(min=0, max=MAX_INT, help="Likewise for items.", show_default="2%, at least 8"),
    ] = None,
    loss: Annotated[
        LossChoice | None, typer.Option(help="Of the device's steps.", show_default="the run's")
    ] = None,
    optimizer: Annotated[
        OptimizerChoice | None,
        typer.Option(
            help="Of the device's steps.", show_default="sgd for mf, adagrad for the others"
        ),
    ] = None,
    precision: Annotated[
        PrecisionChoice, typer.Option(help="How the table's values are stored.")
    ] = PrecisionChoice.float32,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, max=MAX_BATCH, help="Examples a step on the device.", show_default="256"
        ),
    ] = None,
    negatives: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_BATCH,
            help="Items that a batch shares, where it does.",
            show_default="256",
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="On the batch's mean loss.",
            show_default="sgd 5.0, momentum 0.5, adagrad 0.03, adam 0.003",
        ),
    ] = None,
    l2: Annotated[
        float | None,
        typer.Option(min=0, help="Penalty on the rows of an example.", show_default="0.003"),
    ] = None,
    fanout: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_BATCH,
            help="Neighbours of a row, for ngcf and lightgcn.",
            show_default="4",
        ),
    ] = None,
    tile: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_BATCH,
            help="Rows of a tile for each of the batch's, for ngcf and lightgcn.",
            show_default="1 for lightgcn, 4 for ngcf",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_INT,
            help="Steps of the device's run.",
            show_default="14 passes over the log",
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_INT,
            help="Steps between two mask updates.",
            show_default="50, more for large tables",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=MAX_SEED, help="Of the device's draws.", show_default="1"),
    ] = None,
) -> None:
    """Turn a trained run into a bundle for a phone.

    The programs are executed and compared with PyTorch before anything is written. With --since, a
    delta is written, which `sparserec deploy` brings to devices that hold that bundle, and
    `sparserec apply` turns into a bundle here.

    Example: sparserec export runs/ml-100k-sparserec --out runs/first/bundle
    """
    from rich.console import Console
    from rich.markup import escape

    from export import delta_commands, layout
    from export.build import Assembled, Built, assemble, build
    from export.bundle import verify_bundle
    from export.delta import write_delta
    from pipeline.incremental import Incremental
    from pipeline.run import load_run
    from sparserec.progress import bars

    given: dict[str, Any] = {
        "batch_size": batch_size,
        "negatives": negatives,
        "fanout": fanout,
        "tile": tile,
        "learning_rate": learning_rate,
        "l2": l2,
        "window": window,
        "seed": seed,
    }
    trained = load_run(run)
    step = trained.recipe.step
    defaults = Incremental.of(
        step.model, loss.value if loss else step.loss, optimizer.value if optimizer else None
    )
    recipe = replace(
        defaults,
        precision=precision.value,
        **{name: v for name, v in given.items() if v is not None},
    )
    if since is not None:
        base, split = verify_bundle(since), trained.split
        if spare_users is None:
            spare_users = layout.kept_spare(base.num_users, split.num_users)
        if spare_items is None:
            spare_items = layout.kept_spare(base.num_items, split.num_items)
    out = out or run / ("bundle" if since is None else "delta")
    made: Built | Assembled
    with bars() as progress:
        if since is None:
            made = build(trained, out, recipe, steps, spare_users, spare_items, progress)
        else:
            made = assemble(trained, recipe, steps, spare_users, spare_items, progress)
            delta = write_delta(since, made.manifest, made.files, out)
    console = Console(highlight=False)
    console.print(_programs(made.manifest, made.max_abs_errors))
    console.print(_files(made.manifest))
    worst = max(made.max_abs_errors.values())
    console.print(f"ExecuTorch against PyTorch: max abs error {worst:.2g}")
    if since is None:
        console.print(f"bundle {made.manifest.bundle_id} in {escape(str(out))}", soft_wrap=True)
    else:
        delta_commands.show(console, delta, made.manifest, out)


def inspect(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle or delta.")],
) -> None:
    """Show what is inside a bundle, or a delta, after checking every file of it."""
    from rich.console import Console

    from export import delta_commands
    from export.bundle import verify_bundle
    from export.delta import is_delta

    if is_delta(bundle):
        delta_commands.inspect(bundle)
        return
    manifest = verify_bundle(bundle)
    console = Console()
    console.print(_summary(manifest))
    console.print(_signature(manifest))
    console.print(_programs(manifest))
    console.print(_operators(manifest))
    console.print(_files(manifest))
    console.print("[green]whole[/]: every size, SHA-256 and content is as the manifest says")


def _summary(manifest: Manifest) -> Table:
    from rich.markup import escape
    from rich.table import Table

    training, provenance = manifest.training, manifest.provenance
    rows = {
        "model": f"{manifest.model}, d = {manifest.dim}",
        "users": f"{manifest.num_users:,} rows, {manifest.known_users:,} assigned",
        "items": f"{manifest.num_items:,} rows, {manifest.known_items:,} assigned",
        "table": f"{manifest.nnz:,} active entries in {manifest.precision}, density "
        f"{manifest.density:.4f}, at least {manifest.floor} a row",
        "dense": f"{manifest.dense_size:,} parameters in {len(manifest.dense)} tensors",
        "training": f"{training.steps} steps of {training.batch_size}, {training.loss} by "
        f"{training.optimizer} "
        f"at {training.learning_rate:g}, l2 {training.l2:g}, seed {training.seed}",
        "mask update": f"every {training.window} steps until {training.exchange_stop:.0%}, "
        f"{training.exchange_fraction:.0%} of the entries of {training.sampled_fraction:.0%} "
        "of the rows",
        "dataset": f"{provenance.get('dataset')}, "
        f"SHA-256 {str(provenance.get('source_sha256'))[:12]}...",
        "host": f"seed {provenance.get('host_seed')}, source {provenance.get('git') or 'unknown'}",
        "made": f"{manifest.created_utc} by "
        + ", ".join(f"{name} {value}" for name, value in manifest.producer.items()),
    }
    table = Table(title=manifest.bundle_id, show_header=False, title_justify="left")
    for name, text in rows.items():
        table.add_row(name, escape(text))
    return table


def _signature(manifest: Manifest) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table("method", "", "name", "type", "role", title="Signature", title_justify="left")
    for program in manifest.programs.values():
        for name, method in program.methods.items():
            for way, specs in (("in", method.inputs), ("out", method.outputs)):
                for spec in specs:
                    kind = f"{spec.dtype} ({', '.join(map(str, spec.shape))})"
                    texts = (name, way, spec.name, kind, spec.role)
                    table.add_row(*map(escape, texts))
            table.add_section()
    return table


def _programs(manifest: Manifest, errors: dict[str, float] | None = None) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table("method", "program", title="Programs", title_justify="left")
    table.add_column("planned arena", justify="right")
    if errors is not None:
        table.add_column("max abs error", justify="right")
    table.add_column("backends")
    table.add_column("delegates", justify="right")
    table.add_column("operators", justify="right")
    for program in manifest.programs.values():
        for name, method in program.methods.items():
            error = [] if errors is None else [f"{errors[name]:.2g}"]
            arena = f"{method.planned_arena_bytes:,} B"
            backends = escape(", ".join(method.backends)) or "portable"
            count, delegates = str(len(method.operators)), str(method.delegates)
            table.add_row(escape(name), program.file, arena, *error, backends, delegates, count)
    return table


def _operators(manifest: Manifest) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table("method", "operators", title="Operators", title_justify="left", show_lines=True)
    for program in manifest.programs.values():
        for name, method in program.methods.items():
            table.add_row(escape(name), escape(", ".join(method.operators)))
    return table


def _files(manifest: Manifest) -> Table:
    from rich.table import Table

    table = Table("file", title="Files", title_justify="left")
    table.add_column("bytes", justify="right")
    table.add_column("SHA-256")
    for name, info in manifest.files.items():
        table.add_row(name, f"{info.bytes:,}", info.sha256[:16])
    table.add_section()
    table.add_row("total", f"{sum(info.bytes for info in manifest.files.values()):,}", "")
    return table
