"""The root command. It imports nothing heavy: each command's module is loaded when it is called."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from typing import Any

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

from sparserec import __version__
from sparserec.errors import SparseRecError


@dataclass(frozen=True)
class Command:
    """Where a command lives and the line that ``--help`` shows for it."""

    module: str
    function: str
    help: str


COMMANDS = {
    "data": Command("pipeline.commands", "data", "List and fetch datasets, check your own files."),
    "train": Command("pipeline.commands", "train", "Train a sparse table on a host."),
    "spark": Command(
        "pipeline.spark.commands", "app", "Split and factorise on Spark, past one machine."
    ),
    "reproduce": Command(
        "pipeline.reproduce.commands", "reproduce", "Run the experiments of docs/results again."
    ),
    "export": Command("export.commands", "export", "Turn a trained run into a bundle for a phone."),
    "inspect": Command("export.commands", "inspect", "Show what is inside a bundle or delta."),
    "apply": Command("export.delta_commands", "apply", "Make a new bundle of an old and a delta."),
    "profile": Command(
        "device_bench.profile", "profile", "Show where the time of a bundle's programs goes."
    ),
    "doctor": Command("device_bench.doctor", "doctor", "Check this computer and its devices."),
    "devices": Command("device_bench.commands", "devices", "List the devices that can be used."),
    "deploy": Command("device_bench.commands", "deploy", "Push a bundle or delta to a device."),
    "rollback": Command(
        "device_bench.delta_commands", "rollback", "Go back to the bundle before a delta."
    ),
    "bench": Command("device_bench.bench_commands", "bench", "Train on devices, fetch reports."),
    "report": Command("device_bench.report_commands", "report", "Show a report or a bench."),
    "compare": Command("device_bench.report_commands", "compare", "Compare two reports."),
    "collect": Command("device_bench.report_commands", "collect", "Gather reports into one table."),
    "simulate": Command(
        "device_bench.simulate.commands", "simulate", "Simulate a fleet of devices."
    ),
    "sparse-vs-dense": Command(
        "sparserec.sparse_vs_dense", "sparse_vs_dense", "Measure a sparse against a dense step."
    ),
    "virtual-device": Command(
        "device_bench.commands", "virtual_device", "Start a device on this machine's loopback."
    ),
    "apk": Command("device_bench.apk", "apk", "Build, sign and verify the Android app."),
    "demo": Command("sparserec.demo", "demo", "Run the whole way, end to end, on real data."),
}


class LazyGroup(TyperGroup):
    """A group that imports a command's module only when the command runs."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Give what the group's own help prints: a name and a line."""
        entry = COMMANDS.get(cmd_name)
        return entry and TyperCommand(cmd_name, help=entry.help)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Load the command that is about to run."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, (command if name is None else _load(name)), rest


def _load(name: str) -> Any:
    target = getattr(importlib.import_module(COMMANDS[name].module), COMMANDS[name].function)
    if not isinstance(target, typer.Typer):
        app = typer.Typer(add_completion=False)
        app.command(name)(target)
        target = app
    command = typer.main.get_command(target)
    command.name = name
    return command


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, add_completion=False)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"sparserec {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Train a sparse recommender on a host, put its training step on an Android phone, keep
    learning there, and know exactly what that costs.

    A first run, on real data and without a phone: sparserec demo
    """


def main() -> None:
    """Run the command line; turn a SparseRecError into one clear message and an exit code."""
    try:
        app(prog_name="sparserec")
    except SparseRecError as error:
        from rich.console import Console
        from rich.markup import escape

        console = Console(stderr=True, soft_wrap=True)
        console.print(f"[bold red]error:[/] {escape(error.message)}", highlight=False)
        if error.fix:
            console.print(f"[bold]fix:[/] {escape(error.fix)}", highlight=False)
        sys.exit(error.exit_code)
