"""What a fleet is doing right now: a live table, or plain lines where there is no terminal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich import box
from rich.console import Console, JustifyMethod
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from device_bench import units
from device_bench.endings import State

_COLOURS = {State.SUCCEEDED: "green", State.CANCELLED: "yellow"}


@dataclass
class Line:
    """What a device is doing."""

    device: str
    runs: int
    """How many it has to make."""
    ended: dict[State, int] = field(default_factory=dict)
    run: str = ""
    phase: str = "waiting"
    done: int = 0
    total: int | None = None
    loss: str = ""
    step_ns: float | None = None
    """Mean over the time between the last two statuses, as this side sees it."""
    _since: tuple[int, float] | None = None


class Board:
    """Takes what every device's thread says and shows it; all methods are for any thread.

    Args:
        console: where it is shown.
        devices: name and number of runs of each device.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        console: Console,
        devices: Sequence[tuple[str, int]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._lines = {name: Line(name, runs) for name, runs in devices}
        self._clock = clock
        self._lock = threading.Lock()
        self._plain = not console.is_terminal

    def begin(self, device: str, run: str) -> None:
        """A device begins with a run."""
        with self._lock:
            line = self._lines[device]
            line.run, line.loss, line.step_ns = run, "", None
        if self._plain:
            self.say(device, f"{run}: begins")

    def phase(self, device: str, what: str, done: int, total: int | None) -> None:
        """A device works on something: the Progress of its runs and transfers."""
        name, _, loss = what.partition(": loss ")
        with self._lock:
            line = self._lines[device]
            begins = name.split(":")[0] != line.phase.split(":")[0]
            line.phase, line.done, line.total = name, done, total
            if loss:
                line.loss = loss
                self._time(line)
            else:
                line._since = None
        if begins and self._plain:
            self.say(device, name.split(":")[0])

    def _time(self, line: Line) -> None:
        now = self._clock()
        if line._since is not None and line.done > line._since[0]:
            steps, seconds = line.done - line._since[0], now - line._since[1]
            line.step_ns = seconds / steps * 1e9
        line._since = (line.done, now)

    def end(self, device: str, state: State, message: str) -> None:
        """A device's run has ended."""
        with self._lock:
            line = self._lines[device]
            line.ended[state] = line.ended.get(state, 0) + 1
            line.phase, line.done, line.total, line._since = "between runs", 0, None, None
            run = line.run
        colour = _COLOURS.get(state, "red")
        text = f"{run}: [{colour}]{state.value.replace('_', ' ')}[/]"
        if message or self._plain:
            self._print(device, text + (f": {escape(message)}" if message else ""))

    def leave(self, device: str, why: str) -> None:
        """A device makes no more runs."""
        with self._lock:
            line = self._lines[device]
            line.phase, line.done, line.total = why, 0, None

    def say(self, device: str, text: str) -> None:
        """Print a line, above the table where there is one."""
        self._print(device, escape(text))

    def _print(self, device: str, markup: str) -> None:
        self._console.print(f"[bold]{escape(device)}[/] {markup}", soft_wrap=True)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the table while the block runs, where there is a terminal."""
        if self._plain:
            yield
            return
        with Live(
            get_renderable=self.table, console=self._console, refresh_per_second=4, transient=True
        ):
            yield

    def table(self) -> Table:
        """The table as of now."""
        table = Table(box=box.SIMPLE_HEAD)
        for name in ("Device", "Runs", "Run", "Phase", "Progress", "Loss", "Step", "Ended"):
            table.add_column(name, no_wrap=name != "Run", justify=_JUSTIFY.get(name, "left"))
        with self._lock:
            for line in self._lines.values():
                table.add_row(*_cells(line))
        return table


_JUSTIFY: dict[str, JustifyMethod] = {"Runs": "right", "Loss": "right", "Step": "right"}


def _cells(line: Line) -> tuple[str | ProgressBar, ...]:
    bar = ProgressBar(line.total, line.done, width=16) if line.total else ""
    ended = " ".join(
        f"[{_COLOURS.get(state, 'red')}]{count} {state.value.replace('_', ' ')}[/]"
        for state, count in line.ended.items()
    )
    return (
        escape(line.device),
        f"{sum(line.ended.values())}/{line.runs}",
        escape(line.run),
        escape(line.phase),
        bar,
        line.loss,
        "" if line.step_ns is None else units.duration(line.step_ns),
        ended,
    )
