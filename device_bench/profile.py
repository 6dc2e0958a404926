"""``sparserec profile``: where the time of a bundle's programs goes, operator by operator."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from device_bench.operators import Operator
    from export.manifest import MethodInfo, ProgramInfo


def profile(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    method: Annotated[str, typer.Option(help="gradients, update, score or vectors.")] = "gradients",
    repetitions: Annotated[int, typer.Option(min=1, help="Calls after one warm-up.")] = 50,
) -> None:
    """Run a bundle's program on this computer and show the time of each operator.

    The inputs are random. It is ExecuTorch's Python runtime that runs, whose kernels are built for
    this computer: shares of the time tell what to look at; a phone's times are its own.

    Example: sparserec profile runs/demo/bundle --method update
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from export.bundle import verify_bundle
    from sparserec.errors import SparseRecError

    manifest = verify_bundle(bundle)
    found = {
        has: (name, program)
        for name, program in manifest.programs.items()
        for has in program.methods
    }
    if method not in found:
        raise SparseRecError(f"{bundle}: has no method {method}", f"name one of {', '.join(found)}")
    name, program = found[method]
    path, info = bundle / program.file, program.methods[method]
    check_inputs(bundle, name, program, method)
    num_rows = manifest.num_users + manifest.num_items
    operators = measure(path, method, info, num_rows, repetitions)
    table = Table(
        "operator",
        title=f"{manifest.bundle_id}: {escape(method)}, {repetitions} calls",
        title_justify="left",
    )
    for heading in ("calls a run", "us a run", "share"):
        table.add_column(heading, justify="right")
    for operator in operators:
        each = operator.total_ns / repetitions / 1e3
        calls = f"{operator.calls / repetitions:.0f}"
        table.add_row(escape(operator.name), calls, f"{each:,.1f}", f"{operator.share:.1%}")
    total = sum(operator.total_ns for operator in operators) / repetitions / 1e3
    table.add_section()
    table.add_row("all operators", "", f"{total:,.1f}", "")
    console = Console()
    console.print(table)
    console.print(
        f"planned arena {info.planned_arena_bytes:,} B; backends: "
        f"{escape(', '.join(info.backends)) or 'none'}; inputs random; this computer, not a phone",
        highlight=False,
    )


def check_inputs(bundle: Path, name: str, program: ProgramInfo, method: str) -> None:
    """Check that a program takes what the manifest says: the runtime's error would name neither.

    Args:
        bundle: the folder.
        name: of the program in the manifest.
        program: as the manifest describes it.
        method: to check.

    Raises:
        SparseRecError: naming the file and the field at fault.
    """
    from export.manifest import NAME, bad
    from export.program import describe

    path, field = bundle / program.file, f"programs.{name}.methods.{method}"
    plans = describe(path.read_bytes(), path)
    if method not in plans:
        raise bad(bundle / NAME, field, f"{path.name} has no such method")
    described = [(spec.dtype, spec.shape) for spec in program.methods[method].inputs]
    taken = plans[method].inputs
    if len(described) != len(taken):
        what = f"{len(described)} are described, {path.name} takes {len(taken)}"
        raise bad(bundle / NAME, f"{field}.inputs", what)
    for k, (said, found) in enumerate(zip(described, taken, strict=True)):
        if said != found:
            what = f"is {_text(*said)}, {path.name} takes {_text(*found)}"
            raise bad(bundle / NAME, f"{field}.inputs[{k}]", what)


def _text(dtype: str, shape: tuple[int, ...]) -> str:
    return f"{dtype} {list(shape)}"


def measure(
    path: Path, method: str, info: MethodInfo, num_rows: int, repetitions: int
) -> list[Operator]:
    """Execute a method with ETDump on random inputs; the costliest operator comes first.

    The first call is not counted: it touches memory that no call has touched before.

    Args:
        path: of the program.
        method: to execute.
        info: its signature.
        num_rows: of the bundle's table.
        repetitions: calls that count.

    Raises:
        SparseRecError: ExecuTorch cannot load or execute it.
    """
    import torch

    from device_bench import operators
    from export.manifest import AGAIN
    from export.quiet import quiet
    from export.verify import random_inputs
    from sparserec.errors import SparseRecError

    inputs = list(random_inputs(info.inputs, torch.Generator().manual_seed(1), num_rows))
    with quiet(), tempfile.TemporaryDirectory() as folder:
        from executorch.extension.pybindings import portable_lib

        def run(count: int) -> Path:
            dump = Path(folder) / "profile.etdump"
            try:
                module = portable_lib._load_for_executorch(str(path), enable_etdump=True)
                for _ in range(count):
                    module.run_method(method, inputs)
            except RuntimeError as error:
                raise SparseRecError(f"{path}: {method}: cannot be run: {error}", AGAIN) from None
            module.write_etdump_result_to_file(str(dump))
            return dump

        run(1)
        return operators.read(run(repetitions))
