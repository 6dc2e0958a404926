"""What commands that reach one device have in common."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

DeviceName = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="SERIAL|HOST:PORT|virtual",
        help="The device to use. Default: the only connected phone, else a virtual device.",
    ),
]


def say_to(console: Console) -> Any:
    """Give what tells the user of a device."""
    return lambda text: console.print(f"[bold]device:[/] {escape(text)}", soft_wrap=True)
