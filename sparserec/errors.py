"""The one error that users are meant to see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class SparseRecError(Exception):
    """Something the user can put right.

    Raised for bad input, missing tools and unreachable devices; the command line prints ``message``
    and ``fix`` and exits with ``exit_code``. Programming errors stay ordinary exceptions.

    Args:
        message: what is wrong, naming the file, line or field.
        fix: what to do next, as an instruction; empty if the message already says it.
    """

    exit_code = 2

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.fix}" if self.fix else self.message


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of a block that writes ``path``, on this computer, why it cannot.

    Raises:
        SparseRecError: it cannot, or the disk is full.
    """
    try:
        yield
    except OSError as error:
        raise SparseRecError(
            f"{path}: cannot be written: {error.strerror or error}",
            "free space on this computer's disk, or choose a folder that can be written",
        ) from None
