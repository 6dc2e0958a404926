"""``sparserec bench``: run bundles on devices, by flags or by a plan."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from device_bench import bundle as bundles
from device_bench import devices as device_list
from device_bench import fleet, plan, records
from device_bench.adb import Device
from device_bench.board import Board
from device_bench.bundle import Bundle
from device_bench.endings import State
from device_bench.plan import Plan, Request
from sparserec.errors import SparseRecError
from sparserec.progress import bars

INTERRUPTED = 130
DEFAULT = "default"
"""The name in a plan of the device that is used where none is named."""


def bench(
    bundle: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BUNDLE...", help="Directories that `sparserec export` wrote, or patterns."
        ),
    ] = None,
    plan_file: Annotated[
        Path | None,
        typer.Option("--plan", metavar="FILE", help="Take all this from a TOML file instead."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Go on with a bench that was interrupted."),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SERIAL|HOST:PORT|virtual",
            help="A device to use; several times for several at once. Default: the only connected "
            "phone, else a virtual device.",
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Use every device that `sparserec devices` has ready.")
    ] = False,
    repeat: Annotated[
        int | None, typer.Option(min=1, help="Runs of each bundle, each in a fresh process.")
    ] = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            max=plan.MAX_THREADS,
            help="Threads of the runtime; several times to compare. Default: 1.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Train up to this step. Default: the bundle's.")
    ] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(min=1, help="Steps between checkpoints. Default: 100.")
    ] = None,
    evaluate: Annotated[
        bool | None, typer.Option(help="Measure quality before and after training. Default: yes.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over, whatever checkpoints the device has.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results. Default: runs/bench-<time>.")
    ] = None,
) -> None:
    """Train on one or many devices and fetch the reports.

    Pushes the bundles first. One run of one bundle goes on from the device's newest checkpoint.
    Where there are more, each trains the bundle from its first step, and the device's checkpoints
    are left alone. Ctrl-C stops the devices too; --resume goes on.

    The exit code is 0 if every run succeeded and no losses differ from the host's.
    """
    console = Console(highlight=False)
    flags = {
        "threads": threads,
        "repetitions": repeat,
        "steps": steps,
        "checkpoint_every": checkpoint_every,
        "evaluate": evaluate,
    }
    if resume is not None:
        set_by_flags = any(value is not None for value in flags.values())
        if bundle or plan_file or device or every or out or fresh or set_by_flags:
            raise SparseRecError(
                "--resume takes bundles, devices and everything else from its folder",
                f"sparserec bench --resume {resume}",
            )
        folder = resume
        made = plan.read(folder / plan.NAME)
        loaded = _reload(made)
    else:
        request = _request(bundle, plan_file, flags)
        names = _devices(device or list(request.devices), every, console)
        with bars() as progress:
            loaded = plan.find(request.bundles, plan_file, progress)
        refs = [plan.describe(one) for one in loaded]
        made = plan.lay_down(request, refs, names, source=plan_file, fresh=fresh)
        folder = out or Path("runs") / f"bench-{made.created_utc.replace(':', '')}"
        records.create(folder, made)
    _finish(console, folder, made, _execute(console, folder, made, loaded))


def _request(bundle: list[str] | None, plan_file: Path | None, flags: dict[str, Any]) -> Request:
    """What is asked for, by a file or by flags."""
    given = {name: value for name, value in flags.items() if value is not None}
    if plan_file is not None:
        if bundle or given:
            raise SparseRecError(
                f"{plan_file}: a plan says all of this itself; given besides: "
                f"{', '.join([*(bundle or []), *given])}",
                "put it into the plan",
            )
        return plan.read_file(plan_file)
    if not bundle:
        raise SparseRecError(
            "no bundle is named", "name one, such as runs/demo/bundle, or a plan with --plan"
        )
    return Request.model_validate({"bundles": bundle} | given)


def _devices(wanted: list[str], every: bool, console: Console) -> list[str]:
    """The names of the devices to use, as they go into the plan."""
    if not every:
        return list(dict.fromkeys(wanted)) or [DEFAULT]
    if wanted:
        raise SparseRecError("--all and --device exclude each other", "use one of them")
    found, _ = device_list.survey([])
    for one in found:
        if one.problem is not None:
            console.print(f"[yellow]left out:[/] {escape(one.problem.message)}", soft_wrap=True)
    ready = [_lasting_name(one) for one in found if one.facts is not None and not one.problem]
    if not ready:
        raise SparseRecError(
            "no device is ready", "`sparserec devices` says why; or use --device virtual"
        )
    return ready


def _lasting_name(found: device_list.Listed) -> str:
    """A virtual device keeps its serial from one start to the next, its port it does not."""
    facts = found.facts
    return facts.serial if facts and facts.kind == "virtual-device" else found.name


def _reload(made: Plan) -> list[Bundle]:
    """The bundles of a plan that was begun, which must still be what they were."""
    found = []
    with bars() as progress:
        for one in made.bundles:
            loaded = bundles.load(Path(one.path), progress)
            if loaded.files[-1].sha256 != one.sha256:
                raise SparseRecError(
                    f"{one.path}: is another bundle than when the bench began",
                    "export to another folder, or begin a new bench",
                )
            found.append(loaded)
    return found


def _open(name: str, say: Callable[[str], None]) -> AbstractContextManager[Device]:
    return device_list.choose(None if name == DEFAULT else name, say=say)


def _execute(console: Console, folder: Path, made: Plan, loaded: list[Bundle]) -> bool:
    """Make the runs that are left; False if the user stopped it."""
    left = records.pending(folder, made)
    if len(left) < len(made.runs):
        console.print(f"{len(made.runs) - len(left)} of {len(made.runs)} runs are there already")
    counts = [(name, sum(run.device == name for run in left)) for name in made.devices]
    board = Board(console, [(name, count) for name, count in counts if count])
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop devices then too
    try:
        return fleet.execute(made, loaded, folder, left, _open, board)
    finally:
        signal.signal(signal.SIGTERM, before)


def _finish(console: Console, folder: Path, made: Plan, finished: bool) -> None:
    """Show what came out, and leave with the exit code that says it."""
    _show(console, folder, made)
    ended = records.ended(folder, made)
    states = [record.state for record in ended]
    counts = [
        f"{states.count(state)} {state.value.replace('_', ' ')}"
        for state in State
        if state in states
    ]
    left = len(made.runs) - len(ended)
    counts += [f"{left} not made"] if left else []
    title = f"{len(made.runs)} runs" if len(made.runs) > 1 else "1 run"
    console.print(
        f"{title}: {', '.join(counts)}; in {escape(str(folder))}",
        soft_wrap=True,
    )
    wrong = sum(record.correctness == "failed" for record in ended)
    if wrong:
        console.print(f"[red]in {wrong} of them the losses differ from the host's[/]")
    if records.pending(folder, made):
        console.print(f"  go on: sparserec bench --resume {escape(str(folder))}", soft_wrap=True)
    if not finished:
        raise typer.Exit(INTERRUPTED)
    if wrong or left or set(states) != {State.SUCCEEDED}:
        raise typer.Exit(1)


def _show(console: Console, folder: Path, made: Plan) -> None:
    """Show the only run's report, or an overview of all runs, and write the page of it."""
    from device_bench import report_commands, results

    place = records.place(folder, made.runs[0]) if len(made.runs) == 1 else folder
    found = results.load(place) if records.ended(folder, made) else None
    if found is not None and any(run.report is not None for run in found.runs):
        report_commands.show(console, found, place / report_commands.PAGE)
