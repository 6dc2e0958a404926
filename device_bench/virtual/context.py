"""What a device command is given, and how it reports an error."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from device_bench.virtual.streams import Hangup, Reader, Writer

if TYPE_CHECKING:
    from device_bench.virtual.device import Device

BLOCK = 1 << 19


class CommandError(Exception):
    """The command failed: ``message`` goes to its stderr and ``code`` is its exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class State:
    """What one command leaves to the next: the working directory and the variables."""

    cwd: str = "/"
    variables: dict[str, str] = field(default_factory=lambda: {"?": "0"})
    depth: int = 0

    def copy(self) -> State:
        """The state of a subshell."""
        return State(self.cwd, dict(self.variables), self.depth)


@dataclass
class Context:
    """A running command's device, shell state and standard streams."""

    device: Device
    state: State
    stdin: Reader
    stdout: Writer
    stderr: Writer
    hangup: Hangup

    def path(self, text: str, *, follow: bool = True) -> Path:
        """The host path of a device path the command was given.

        Raises:
            OSError: the path is refused.
        """
        return self.device.files.resolve(text, self.state.cwd, follow=follow)

    def print(self, text: str) -> None:
        """Write a line to stdout."""
        self.stdout.write(os.fsencode(text + "\n"))

    def complain(self, text: str) -> None:
        """Write a line to stderr."""
        self.stderr.write(os.fsencode(text + "\n"))

    def blocks(self, name: str) -> Iterator[bytes]:
        """A file's content, or that of stdin where ``name`` is ``-``.

        Raises:
            OSError: the file cannot be read.
        """
        if name == "-":
            while block := self.stdin.read(BLOCK):
                yield block
            return
        with self.path(name).open("rb") as file:
            while block := file.read(BLOCK):
                yield block


CommandFunction = Callable[[Context, list[str]], int]


def flags(arguments: list[str], allowed: str) -> tuple[set[str], list[str]]:
    """Split one-letter options without values from operands; ``--`` ends the options.

    Raises:
        CommandError: an option that is not among ``allowed``.
    """
    found: set[str] = set()
    for index, argument in enumerate(arguments):
        if argument == "--":
            return found, arguments[index + 1 :]
        if not argument.startswith("-") or argument == "-":
            return found, arguments[index:]
        unknown = set(argument[1:]) - set(allowed)
        if unknown:
            raise CommandError(f"virtual device: option {argument} is not supported", 2)
        found |= set(argument[1:])
    return found, []


def each(context: Context, name: str, paths: list[str], action: Callable[[str], None]) -> int:
    """Run ``action`` on every path, go on after a failure, and return 1 if there was one.

    Raises:
        CommandError: there is no path.
    """
    if not paths:
        raise CommandError("needs a path", 2)
    code = 0
    for path in paths:
        try:
            action(path)
        except BrokenPipeError:
            raise
        except OSError as error:
            reason = context.device.files.on_device(error.strerror or str(error))
            context.complain(f"{name}: {path}: {reason}")
            code = 1
    return code
