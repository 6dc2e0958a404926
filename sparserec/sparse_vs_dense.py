"""``sparserec sparse-vs-dense``: what SparseRec's step saves against a dense table, on a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sparserec.progress import Progress

ROWS = [10_000, 30_000, 100_000]
DENSITIES = [0.05, 0.1, 0.2]


def sparse_vs_dense(
    rows: Annotated[
        list[int], typer.Option(min=100, help="Rows of the table; several times.")
    ] = ROWS,
    density: Annotated[
        list[float], typer.Option(min=0.01, max=1.0, help="Of the table; several times.")
    ] = DENSITIES,
    dim: Annotated[int, typer.Option(min=2, max=256, help="Columns of the table.")] = 64,
    batch_size: Annotated[int, typer.Option(min=1, help="Triples a step.")] = 256,
    steps: Annotated[
        int, typer.Option(min=20, help="Steps of SparseRec's runs, half of them warm-up.")
    ] = 4000,
    dense_steps: Annotated[int, typer.Option(min=10, help="Steps of the dense tables' runs.")] = 60,
    repeat: Annotated[int, typer.Option(min=1, help="Runs of each, in turns.")] = 3,
    threads: Annotated[int, typer.Option(min=1, max=64, help="Threads of the runtime.")] = 1,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="SERIAL|HOST:PORT|virtual",
            help="The device to use. Default: the only connected phone, else a virtual device.",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for bundles, reports and figures; a second call goes on.")
    ] = Path("runs/sparse-vs-dense"),
) -> None:
    """Measure SparseRec's step against a dense table's: time, and memory of forward and backward.

    The dense table is trained by ExecuTorch's TrainingModule and SGD, and by a PyTorch-style step
    as one program. All see the same batches; on a full table their losses must agree.

    Leaves sparse-vs-dense.json (raw samples too), sparse-vs-dense.html and every run's report.
    """
    from rich.console import Console

    from device_bench import dense_bench, dense_figures, install
    from device_bench.devices import choose
    from sparserec.progress import bars

    console = Console()
    # The full table has the dense programs, and shows that all three trainers do the same.
    densities = sorted({*density, 1.0})
    with bars() as progress:
        made = _bundles(out, sorted(set(rows)), densities, dim, batch_size, steps, progress)
        cases = dense_bench.cases_of(made)
    counts = {
        name: steps if name in dense_bench.SPARSE else dense_steps for name in dense_bench.NAMES
    }

    def say(text: str) -> None:
        console.print(text, soft_wrap=True)

    with choose(device, say=say) as connected:
        install.provide(connected, say=say)
        with bars() as progress:
            points = dense_bench.measure(
                connected, cases, out / "results", repeat, counts, threads, progress
            )
    figures = dense_bench.write(points, out / dense_bench.FIGURES)
    dense_figures.show(console, figures)
    page = (out / dense_bench.FIGURES).with_suffix(".html")
    dense_figures.render(figures, page)
    console.print(f"report: {page}", soft_wrap=True)
    if (figures["max_abs_loss_difference"] or 0) > dense_bench.TOLERANCE:
        console.print("[red]the trainers' losses differ: they do not do the same[/]")
        raise typer.Exit(1)


def _bundles(
    out: Path,
    sizes: list[int],
    densities: list[float],
    dim: int,
    batch_size: int,
    steps: int,
    progress: Progress,
) -> list[Path]:
    """Make the bundles that are not there yet."""
    from export.comparison import comparison_bundle

    found: list[Path] = []
    total = len(sizes) * len(densities)
    for rows in sizes:
        for density in densities:
            progress(f"bundles: {rows:,} rows at {density:.0%}", len(found), total)
            name = f"{rows}-{100 * density:g}pct-d{dim}-b{batch_size}-s{steps}"
            path = out / "bundles" / name
            if not (path / "manifest.json").exists():
                comparison_bundle(path, rows, density, dim, batch_size, steps)
            found.append(path)
    progress("bundles: done", total, total)
    return found
