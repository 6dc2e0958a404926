"""The shell and exec services: run a command line with the device's own commands."""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from device_bench.virtual import android, file_commands, package_commands, text_commands
from device_bench.virtual.context import CommandError, CommandFunction, Context, State
from device_bench.virtual.expansion import expand, expand_text
from device_bench.virtual.protocol import MAX_PAYLOAD
from device_bench.virtual.streams import Hangup, Reader, Stream, StreamReader, Writer
from device_bench.virtual.syntax import (
    Command,
    Pipeline,
    Redirect,
    ShellSyntaxError,
    parse,
)

if TYPE_CHECKING:
    from device_bench.virtual.device import Device

MAX_DEPTH = 8
_NO_COMMAND = b"virtual device: an interactive shell is not supported; give a command\n"


class Streams(NamedTuple):
    """Standard streams of a command."""

    stdin: Reader
    stdout: Writer
    stderr: Writer


class _ExitError(Exception):
    """``exit`` was called; carries the code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Shell:
    """Runs scripts; the working directory and variables last from one ``run`` to the next."""

    def __init__(self, device: Device, hangup: Hangup, state: State | None = None) -> None:
        self._device = device
        self._hangup = hangup
        self.state = state or State()

    def run(self, text: str, streams: Streams) -> int:
        """Run a script and return its exit code; a script that cannot be parsed returns 2.

        Raises:
            BrokenPipeError: nobody reads the output any more.
        """
        try:
            pipelines = parse(text)
        except ShellSyntaxError as error:
            streams.stderr.write(os.fsencode(f"sh: virtual device: {error}\n"))
            return 2
        code = 0
        try:
            for pipeline in pipelines:
                if self._hangup.is_set():
                    raise BrokenPipeError("the client has gone")
                if pipeline.joint == ("&&" if code else "||"):
                    continue
                code = self._pipeline(pipeline, streams)
                if pipeline.negated:
                    code = int(not code)
                self.state.variables["?"] = str(code)
        except _ExitError as error:
            code = error.code
        return code

    def _pipeline(self, pipeline: Pipeline, streams: Streams) -> int:
        """Run commands side by side, each reading what the one before writes."""
        *first, last = pipeline.commands
        if not first:
            return self._command(last, streams)
        threads = []
        stdin = streams.stdin
        for command in first:
            read_end, write_end = os.pipe()
            output = os.fdopen(write_end, "wb", buffering=0)
            stage = Streams(stdin, output, streams.stderr)
            thread = threading.Thread(
                target=self._stage, args=(command, stage, stdin is not streams.stdin), daemon=True
            )
            thread.start()
            threads.append(thread)
            stdin = os.fdopen(read_end, "rb", buffering=0)
        try:
            shell = Shell(self._device, self._hangup, self.state.copy())
            return shell._command(last, Streams(stdin, streams.stdout, streams.stderr))
        except _ExitError as error:
            return error.code
        finally:
            stdin.close()  # type: ignore[attr-defined]
            for thread in threads:
                thread.join()

    def _stage(self, command: Command, streams: Streams, owns_stdin: bool) -> None:
        shell = Shell(self._device, self._hangup, self.state.copy())
        try:
            with contextlib.suppress(BrokenPipeError, _ExitError):
                shell._command(command, streams)
        finally:
            streams.stdout.close()  # type: ignore[attr-defined]
            if owns_stdin:
                streams.stdin.close()  # type: ignore[attr-defined]

    def _command(self, command: Command, streams: Streams) -> int:
        variables = self.state.variables
        with contextlib.ExitStack() as opened:
            try:
                streams = self._redirect(command.redirects, streams, opened)
            except OSError as error:
                message = f"sh: {error.filename}: {error.strerror}\n"
                streams.stderr.write(os.fsencode(self._device.files.on_device(message)))
                return 1
            files, cwd = self._device.files, self.state.cwd
            words = [text for word in command.words for text in expand(word, variables, files, cwd)]
            for name, value in command.assignments:
                variables[name] = expand_text(value, variables)
            return self._simple(words, streams) if words else 0

    def _redirect(
        self, redirects: list[Redirect], streams: Streams, opened: contextlib.ExitStack
    ) -> Streams:
        now: list[Reader | Writer] = list(streams)
        for redirect in redirects:
            target = expand_text(redirect.target, self.state.variables)
            if redirect.operator == ">&":
                now[redirect.descriptor] = now[int(target)]
                continue
            mode = {"<": "rb", ">": "wb", ">>": "ab"}[redirect.operator]
            if target == "/dev/null":
                host = Path(os.devnull)
            else:
                host = self._device.files.resolve(target, self.state.cwd)
            if mode == "rb" or target == "/dev/null":
                file: Any = host.open(mode, buffering=0)
            else:
                file = self._device.storage.open(host, mode)
            now[redirect.descriptor] = opened.enter_context(file)
        return Streams(*now)  # type: ignore[arg-type]

    def _simple(self, words: list[str], streams: Streams) -> int:
        name, *arguments = words
        context = Context(self._device, self.state, *streams, self._hangup)
        try:
            if name in _BUILTINS:
                return _BUILTINS[name](self, context, arguments)
            function = COMMANDS.get(name.removeprefix("/system/bin/"))
            if function is None:
                context.complain(f"sh: {name}: not found (not supported by the virtual device)")
                return 127
            return function(context, arguments)
        except CommandError as error:
            context.complain(f"{name}: {error}")
            return error.code
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f"{self._device.files.on_device(str(error.filename))}: " * bool(error.filename)
            context.complain(f"{name}: {where}{error.strerror}")
            return 1

    def exit(self, context: Context, arguments: list[str]) -> int:
        """``exit [CODE]``."""
        text = arguments[0] if arguments else self.state.variables["?"]
        if not text.isdecimal():
            raise CommandError(f"{text}: bad number", 2)
        raise _ExitError(int(text) & 0xFF)

    def exec(self, context: Context, arguments: list[str]) -> int:
        """``exec COMMAND ...``: run it in the shell's place, so nothing after it runs."""
        streams = Streams(context.stdin, context.stdout, context.stderr)
        while arguments[:1] == ["exec"]:
            del arguments[0]
        if not arguments:
            return 0
        raise _ExitError(self._simple(arguments, streams))

    def sh(self, context: Context, arguments: list[str]) -> int:
        """``sh -c SCRIPT``."""
        if len(arguments) != 2 or arguments[0] != "-c":
            raise CommandError("virtual device: only 'sh -c SCRIPT' is supported", 2)
        if self.state.depth >= MAX_DEPTH:
            raise CommandError(f"virtual device: more than {MAX_DEPTH} shells in one another", 2)
        state = self.state.copy()
        state.depth += 1
        streams = Streams(context.stdin, context.stdout, context.stderr)
        return Shell(self._device, self._hangup, state).run(arguments[1], streams)


_BUILTINS = {"exit": Shell.exit, "exec": Shell.exec, "sh": Shell.sh}
COMMANDS: dict[str, CommandFunction] = {
    **text_commands.COMMANDS,
    **file_commands.COMMANDS,
    **android.COMMANDS,
    **package_commands.COMMANDS,
}


def serve_v1(command: str, stream: Stream, device: Device) -> None:
    """``shell:COMMAND`` and ``exec:COMMAND``: one stream for everything, no exit code."""
    if not command:
        stream.write(_NO_COMMAND)
        return
    Shell(device, stream.hangup).run(command, Streams(StreamReader(stream.read), stream, stream))


_PACKET = struct.Struct("<BI")
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)


def serve_v2(command: str, stream: Stream, device: Device) -> None:
    """``shell,v2:COMMAND``: packets of stdin, stdout, stderr and the exit code."""
    stderr = _PacketWriter(stream, _STDERR)
    if command:
        streams = Streams(_PacketReader(stream), _PacketWriter(stream, _STDOUT), stderr)
        code = Shell(device, stream.hangup).run(command, streams)
    else:
        stderr.write(_NO_COMMAND)
        code = 2
    _PacketWriter(stream, _EXIT).write(bytes([code]))


class _PacketWriter:
    """Writes to one of the client's streams."""

    def __init__(self, stream: Stream, kind: int) -> None:
        self._stream = stream
        self._kind = kind

    def write(self, data: bytes) -> None:
        """Send ``data`` as one packet.

        Raises:
            BrokenPipeError: the client has closed the stream.
        """
        self._stream.write(_PACKET.pack(self._kind, len(data)) + data)


class _PacketReader:
    """The client's stdin, out of the packets it sends; others (window size) are passed over."""

    def __init__(self, stream: Stream) -> None:
        self._packets = StreamReader(stream.read)
        self._data = StreamReader(self._next)
        self._ended = False

    def read(self, size: int) -> bytes:
        """Between 1 and ``size`` bytes, ``b""`` at the end."""
        return self._data.read(size)

    def _next(self) -> bytes:
        while not self._ended:
            try:
                kind, length = _PACKET.unpack(self._packets.read_exactly(_PACKET.size))
                # A packet longer than any client's buffer is not one: take it as the end.
                self._ended = kind == _CLOSE_STDIN or length > MAX_PAYLOAD
                data = b"" if self._ended else self._packets.read_exactly(length)
            except EOFError:
                self._ended = True
                break
            if kind == _STDIN and data:
                return data
        return b""
