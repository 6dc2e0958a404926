"""The command line for deltas: ``sparserec apply``, and what ``export`` and ``inspect`` show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from export.delta import Delta
    from export.manifest import Manifest


def apply(
    base: Annotated[Path, typer.Argument(help="Folder of the bundle that the delta is for.")],
    delta: Annotated[Path, typer.Argument(help="Folder that `export --since` wrote.")],
    out: Annotated[Path, typer.Argument(help="Folder of the new bundle.")],
) -> None:
    """Make the new bundle of an old one and a delta, byte for byte as a device makes it.

    The old bundle is left as it is. Everything is checked before the new one gets its name.

    Example: sparserec apply runs/first/bundle runs/first/delta runs/second/bundle
    """
    from rich.console import Console
    from rich.markup import escape

    from export.delta import apply_delta
    from sparserec.progress import bars

    with bars() as progress:
        applied = apply_delta(base, delta, out, progress)
    console = Console(highlight=False)
    console.print(f"bundle {applied.result.bundle_id} in {escape(str(out))}", soft_wrap=True)


def inspect(folder: Path) -> None:
    """Check a delta and show what it changes."""
    from rich.console import Console

    from export import delta as deltas
    from export import manifest

    found = deltas.verify_delta(folder)
    show(Console(highlight=False), found, manifest.read(folder / deltas.RESULT), folder)


def show(console: Console, delta: Delta, result: Manifest, folder: Path) -> None:
    """Print how each file of the result comes, and what that takes."""
    from rich.markup import escape
    from rich.table import Table

    from export.delta import RESULT

    table = Table("file", "comes", title="Delta", title_justify="left")
    table.add_column("bytes", justify="right")
    table.add_column("of", justify="right")
    words = {"rows": "changed rows", "whole": "whole", "kept": "from the base"}
    for name, info in result.files.items():
        table.add_row(name, words[delta.way(name)], f"{delta.shipped(name):,}", f"{info.bytes:,}")
    manifest = delta.files[RESULT].bytes
    table.add_row("manifest.json", "whole", f"{manifest:,}", f"{manifest:,}")
    shipped = sum(info.bytes for info in delta.files.values())
    total = manifest + sum(info.bytes for info in result.files.values())
    table.add_section()
    table.add_row("total", "", f"{shipped:,}", f"{total:,}")
    console.print(table)
    place = escape(str(folder))
    console.print(f"delta in {place}: {shipped / total:.1%} of the bundle", soft_wrap=True)
    console.print(f"  from {delta.base}\n  to   {delta.result}", soft_wrap=True)
