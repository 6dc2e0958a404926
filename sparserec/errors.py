"""The one error that users are meant to see."""

from __future__ import annotations


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
