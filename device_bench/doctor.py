"""``sparserec doctor``: is everything here that the other commands need."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from device_bench.checks import OK, PROBLEM, WARNING, Check, everything

_STYLES = {OK: "green", WARNING: "yellow", PROBLEM: "bold red"}


def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the findings as JSON instead of a table.")
    ] = False,
) -> None:
    """Check this computer and the devices it can see, and say how to put right what is not.

    The exit code is 1 if there is a problem; a warning is none.
    """
    found = everything()
    if as_json:
        print(report(found))
    else:
        show(Console(), found)
    if any(check.state == PROBLEM for check in found):
        raise typer.Exit(1)


def report(found: list[Check]) -> str:
    """The findings as JSON: ``checks``, each with name, state, found and fix, and their counts."""
    counts = {state: sum(check.state == state for check in found) for state in _STYLES}
    return json.dumps({"checks": [asdict(check) for check in found], "counts": counts}, indent=2)


def show(console: Console, found: list[Check]) -> None:
    """Print a table, and below it what to do next."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("Check", no_wrap=True)
    table.add_column("State", no_wrap=True)
    table.add_column("Found", overflow="fold")
    for check in found:
        text = escape(check.found)
        if check.fix:
            text += f"\n[bold]fix:[/] {escape(check.fix)}"
        table.add_row(escape(check.name), f"[{_STYLES[check.state]}]{check.state}[/]", text)
    console.print(table)
    problems = sum(check.state == PROBLEM for check in found)
    if problems:
        console.print(f"[bold red]{problems} to put right[/]")
    else:
        console.print("Everything that is needed is here.")
