"""How long work reports: one callback, which the command line renders with rich."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int, int | None], None]
"""``progress(what, done, total)``; ``total`` is None where it is not known."""


def silent(what: str, done: int, total: int | None) -> None:
    """Report nothing."""


@contextmanager
def bars() -> Iterator[Progress]:
    """Yield a callback that draws one rich progress bar for each distinct ``what``."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        SpinnerColumn,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.progress import (
        Progress as Bars,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Bars(*columns, transient=False) as display:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int | None) -> None:
            key = what.split(":", 1)[0]
            if key not in tasks:
                tasks[key] = display.add_task(what, total=total)
            display.update(tasks[key], completed=done, total=total, description=what)

        yield report
