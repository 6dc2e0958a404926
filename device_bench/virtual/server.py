"""The virtual device as a server on loopback."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from device_bench.virtual import fault_spec
from device_bench.virtual.auth import load_authorized_keys
from device_bench.virtual.connection import Connection
from device_bench.virtual.device import Device
from device_bench.virtual.fault_spec import FaultSpec, Kill
from device_bench.virtual.faults import Faults
from device_bench.virtual.files import DeviceFiles
from device_bench.virtual.harness import Harness
from device_bench.virtual.log import Log
from device_bench.virtual.storage import Storage
from sparserec.errors import SparseRecError

HOST = "127.0.0.1"
MAX_CONNECTIONS = 32
_REPOSITORY = Path(__file__).resolve().parents[2]


def default_harness() -> Path:
    """The launcher that ``make setup`` builds, or what SPARSEREC_HARNESS names."""
    override = os.environ.get("SPARSEREC_HARNESS")
    return Path(override or _REPOSITORY / "android_app/target/desktop/bin/harness").absolute()


class VirtualDevice:
    """A device on 127.0.0.1 that speaks the adb daemon's protocol; ``with`` starts and stops it.

    Args:
        root: directory that stands for the device's ``/``; made if absent.
        port: port to listen on; 0 for a free one, found in ``port`` after ``start``.
        authorized_keys: files of public keys (``adbkey.pub``) whose owners may connect.
        harness: launcher of the app; None for ``default_harness()``.
        serial: the device's ``ro.serialno``.
        faults: what is to go wrong (docs/virtual-device.md).

    Raises:
        SparseRecError: the root or a key file cannot be used, or a fault is not one.
    """

    def __init__(
        self,
        root: Path,
        *,
        port: int = 0,
        authorized_keys: Iterable[Path] = (),
        harness: Path | None = None,
        serial: str = "sparserec-virtual",
        faults: FaultSpec | Mapping[str, Any] | None = None,
    ) -> None:
        spec = faults if isinstance(faults, FaultSpec) else fault_spec.parse(faults or {})
        self.faults = Faults(spec)
        self.faults.kill = self._kill
        self.faults.go_offline = self._go_offline
        files = DeviceFiles(root)
        storage = Storage(files.root, spec.storage.bytes)
        log = Log(clock=lambda: time.time() + self.faults.clock_offset())
        keys = load_authorized_keys(authorized_keys)
        app = Harness(harness or default_harness(), files, storage, log, self.faults)
        self.faults.note = lambda text: log.add("fault", text)
        self.device = Device(files, storage, app, log, self.faults, keys, serial)
        self.host = HOST
        self.port = port
        self._listener: socket.socket | None = None
        self._connections: set[Connection] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen, and serve in threads.

        Raises:
            SparseRecError: the port is taken or is not one.
        """
        self._listen()
        self.faults.start()

    def stop(self) -> None:
        """End every connection and the app's process, and free the port."""
        self.faults.stop()
        self._hang_up()
        self.device.harness.stop()

    def _listen(self) -> None:
        try:
            listener = socket.create_server((HOST, self.port))
        except (OSError, OverflowError) as error:
            raise SparseRecError(
                f"port {self.port} on {HOST} cannot be used: {error}",
                "choose another port, or 0 for any free one",
            ) from None
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._thread = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        self._thread.start()

    def _hang_up(self) -> None:
        """Free the port and end every connection."""
        listener, self._listener = self._listener, None
        if listener is None or self._thread is None:
            return
        with contextlib.suppress(OSError):  # a last client makes accept() return and look
            socket.create_connection((HOST, self.port), timeout=5).close()
        self._thread.join()
        listener.close()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.close()

    def _kill(self, event: Kill) -> None:
        self.faults.note(f"the app is killed: {event.reason}")
        if event.reason == "low memory":
            self.device.harness.kill_for_memory()
        else:
            self.device.harness.stop()

    def _go_offline(self, seconds: float | None) -> None:
        self.faults.note("offline")
        self._hang_up()
        if seconds is not None:
            self.faults.later(seconds, self._come_back)

    def _come_back(self) -> None:
        try:
            self._listen()
        except SparseRecError as error:
            self.device.log.add("adbd", f"stays offline: {error.message}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError as error:  # out of file descriptors, or the client went already
                self.device.log.add("adbd", f"cannot accept a client: {error.strerror}")
                time.sleep(0.1)
                continue
            if self._listener is not listener:
                sock.close()
                return
            connection = Connection(self.faults.wrap(sock), self.device)
            with self._lock:
                full = len(self._connections) >= MAX_CONNECTIONS
                if not full:
                    self._connections.add(connection)
            if full:
                self.device.log.add("adbd", f"refused a client: {MAX_CONNECTIONS} are connected")
                sock.close()
                continue
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        try:
            connection.serve()
        finally:
            with self._lock:
                self._connections.discard(connection)
