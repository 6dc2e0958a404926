"""What is fuzzed: each target takes bytes, and may raise nothing but what it says.

The device's targets work in a root with links that lead out of it, to a canary.
"""

from __future__ import annotations

import io
import json
import shutil
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_bench import bundle, instrumentation, report
from device_bench.virtual import VirtualDevice, fault_spec, protocol, text_commands
from device_bench.virtual.auth import load_authorized_keys
from device_bench.virtual.connection import Connection
from device_bench.virtual.packages import InstallError, read_apk
from device_bench.virtual.shell import Shell, Streams
from device_bench.virtual.streams import Hangup
from device_bench.virtual.sync import serve
from device_bench.virtual.syntax import ShellSyntaxError, parse
from export import manifest
from sparserec.errors import SparseRecError
from tests.stress.fuzz_seeds import (
    APKS,
    FAULTS,
    GREETING,
    KEYS,
    MESSAGES,
    SCRIPTS,
    SYNC,
    TRANSCRIPTS,
)

THREAD_SECONDS = 5.0


class StuckError(Exception):
    """Threads of an input did not end."""


@dataclass(frozen=True)
class Target:
    """``share`` of all inputs; ``refusals`` are the exceptions that a bad input may raise."""

    name: str
    share: float
    seeds: Sequence[bytes]
    run: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...] = ()
    root: Path | None = None
    """Where all its files must be; None for one that reads only the file it is given."""


class Yard:
    """A folder with a device's root in it, and a canary beside the root that nobody may touch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.canary = folder / "outside" / "canary"
        self.canary.parent.mkdir(parents=True)
        self.canary.write_text("alive")
        launcher = folder / "launcher"
        launcher.write_text("#!/nonexistent\n")
        launcher.chmod(0o755)
        self.device = VirtualDevice(self.root, harness=launcher).device
        self.root = self.device.files.root
        self.fill()

    def fill(self) -> None:
        """Put the root back to what it is at first."""
        shutil.rmtree(self.root)
        for name in ("data/local/tmp", "sdcard/a/b"):
            (self.root / name).mkdir(parents=True)
        (self.root / "sdcard/file").write_bytes(b"some\nlines of\ntext\n")
        (self.root / "sdcard/link").symlink_to(self.canary.parent)
        (self.root / "sdcard/a/relative").symlink_to("../../../outside/canary")
        (self.root / "up").symlink_to("..")

    def touched(self) -> str | None:
        """What is not as it must be, None if nothing."""
        if sorted(path.name for path in self.folder.iterdir()) != ["launcher", "outside", "root"]:
            return "a file beside the root"
        if [path.name for path in self.canary.parent.iterdir()] != ["canary"]:
            return "a file beside the canary"
        return None if self.canary.read_text() == "alive" else "the canary was changed"


class _Wire(socket.socket):
    """A socket whose client says ``data`` and goes; what the device answers is thrown away."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = io.BytesIO(data)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        return self._data.readinto(buffer)

    def sendall(self, data: Any, flags: int = 0) -> None: ...

    def setsockopt(self, *_: Any) -> None: ...

    def shutdown(self, how: Any) -> None: ...


class _Trusting(Connection):
    def _authenticate(self) -> bool:
        return True


class _Impatient(Hangup):
    """The client stays, but nothing waits for it."""

    def wait(self, seconds: float) -> bool:
        return False


class _Pushed:
    """A stream whose client sends ``data`` in pieces and goes."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)
        self.hangup = _Impatient()

    def read(self) -> bytes:
        return self._data.read(4096)

    def write(self, data: bytes) -> None: ...


class Targets:
    """All targets, working in ``folder``."""

    def __init__(self, folder: Path, report_seed: dict[str, Any], manifest_seed: bytes) -> None:
        self.yard = Yard(folder / "yard")
        self._file = folder / "input"
        self._bundle = folder / "bundle"
        self._bundle.mkdir()
        reports = [json.dumps(report_seed, indent=1).encode(), json.dumps(report_seed).encode()]
        root = self.yard.root
        self.all = (
            Target("shell syntax", 0.28, SCRIPTS, self._syntax, (ShellSyntaxError,)),
            Target("transcript", 0.22, TRANSCRIPTS, self._transcript),
            Target("message", 0.12, MESSAGES, self._message, (protocol.ProtocolError,)),
            Target("connection", 0.05, MESSAGES, self._connection, root=root),
            Target("sync", 0.09, SYNC, self._sync, (EOFError,), root),
            Target("shell", 0.06, SCRIPTS, self._shell, (BrokenPipeError,), root),
            Target("report", 0.05, reports, self._report, (SparseRecError,)),
            Target("manifest", 0.06, [manifest_seed], self._manifest, (SparseRecError,)),
            Target("bundle", 0.01, [manifest_seed], self._bundle_folder, (SparseRecError,)),
            Target("key", 0.03, KEYS, self._key, (SparseRecError,)),
            Target("faults", 0.02, FAULTS, self._faults, (SparseRecError,)),
            Target("apk", 0.01, APKS, self._apk, (InstallError,)),
        )

    def _syntax(self, data: bytes) -> None:
        parse(data.decode(errors="surrogateescape"))

    def _transcript(self, data: bytes) -> None:
        parser = instrumentation.Parser()
        for line in data.decode(errors="replace").split("\n"):
            parser.feed(line)
        parser.finish()

    def _message(self, data: bytes) -> None:
        """Every message of a client, as far as it can be told where they end."""
        rest = data
        while len(rest) >= protocol.HEADER.size:
            header = protocol.parse_header(rest[: protocol.HEADER.size])
            rest = rest[protocol.HEADER.size :]
            protocol.check_payload(header, rest[: header.length], protocol.VERSION_CHECKSUM)
            rest = rest[header.length :]

    def _connection(self, data: bytes) -> None:
        before = set(threading.enumerate())
        _Trusting(_Wire(GREETING + data), self.yard.device).serve()
        for thread in set(threading.enumerate()) - before:
            thread.join(THREAD_SECONDS)
            if thread.is_alive():
                raise StuckError(thread.name)

    def _sync(self, data: bytes) -> None:
        serve(_Pushed(data), self.yard.device)  # type: ignore[arg-type]

    def _shell(self, data: bytes) -> None:
        output = io.BytesIO()
        streams = Streams(io.BytesIO(b"stdin\n"), output, output)
        Shell(self.yard.device, _Impatient()).run(data.decode(errors="surrogateescape"), streams)

    def _report(self, data: bytes) -> None:
        self._file.write_bytes(data)
        report.read(self._file)

    def _manifest(self, data: bytes) -> None:
        self._file.write_bytes(data)
        manifest.read(self._file)

    def _bundle_folder(self, data: bytes) -> None:
        (self._bundle / manifest.NAME).write_bytes(data)
        bundle.load(self._bundle)

    def _key(self, data: bytes) -> None:
        self._file.write_bytes(data)
        load_authorized_keys([self._file])

    def _faults(self, data: bytes) -> None:
        fault_spec.load(None, data.decode(errors="replace").split("\0"))

    def _apk(self, data: bytes) -> None:
        self._file.write_bytes(data)
        read_apk(self._file)


def without_side_effects() -> None:
    """Leave out what a command does to the whole machine."""
    from device_bench.virtual import shell

    shell.COMMANDS["sync"] = text_commands.true
