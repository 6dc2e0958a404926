"""The faults of a virtual device: everything that goes wrong on purpose happens here.

The rest of the device calls a few hooks (``wrap``, ``opened``, ``run_started``, ``status``,
``stored``, ...) that do nothing where nothing was asked for.
"""

from __future__ import annotations

import random
import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, SupportsIndex

from device_bench.virtual.fault_spec import FaultSpec, Kill, Offline, Wire

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

TO_DEVICE, FROM_DEVICE = "to_device", "from_device"
_SLICE_SECONDS = 0.05
"""The longest pause of a slow link, and how often a stalled one looks at its client."""


class Faults:
    """Decides when what was asked for happens; each occurrence is drawn when this is made.

    ``kill``, ``go_offline`` and ``note`` are set by the device: they end the app's process, end all
    connections for so many seconds (None: for good), and write what happened to the log.
    """

    def __init__(self, spec: FaultSpec | None = None) -> None:
        self.spec = spec or FaultSpec()
        self.kill: Callable[[Kill], None] = lambda _: None
        self.go_offline: Callable[[float | None], None] = lambda _: None
        self.note: Callable[[str], None] = lambda _: None
        self._chance = random.Random(self.spec.seed)
        self._wires = [(wire, self._chance.randint(*wire.at_byte)) for wire in self.spec.wire]
        events: list[Kill | Offline] = [*self.spec.kill, *self.spec.offline]
        self._events = [
            (event, self._chance.randint(*event.at_status)) for event in events if event.at_status
        ]
        self._lock = threading.Lock()
        self._seen = [0] * len(self._wires)
        self._connections = 0
        self._runs = 0
        self._owner_agreed = self.spec.unauthorised is False
        self._to_damage = self.spec.storage.damage_pushes
        self._started = time.monotonic()
        self._stopped = threading.Event()

    def start(self) -> None:
        """The device has started: times count from here."""
        self._started = time.monotonic()
        self._stopped.clear()
        for event in self.spec.offline:
            if event.after_seconds is not None:
                self.later(event.after_seconds, lambda e=event: self.go_offline(e.seconds))  # type: ignore[misc]

    def stop(self) -> None:
        """The device stops: nothing happens any more."""
        self._stopped.set()

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something after a while, unless the device stops before."""

        def wait() -> None:
            if not self._stopped.wait(seconds):
                action()

        threading.Thread(target=wait, name="fault", daemon=True).start()

    # Connections -----------------------------------------------------------------------------

    def wrap(self, sock: socket.socket) -> socket.socket:
        """A new client's socket, with the faults of the connection."""
        spec = self.spec
        if not (spec.wire or spec.latency_ms or spec.bytes_per_second):
            return sock
        with self._lock:
            self._connections += 1
            number = self._connections
        link = FaultySocket(sock, spec, random.Random(f"{spec.seed} {number}"), self.note)
        for wire, at_byte in self._wires:
            if wire.service is None and wire.nth == number:
                link.arm(wire, at_byte)
        return link

    def opened(self, sock: socket.socket, service: str) -> None:
        """A client opens a service on this connection."""
        for index, (wire, at_byte) in enumerate(self._wires):
            if wire.service is None or not service.startswith(wire.service):
                continue
            with self._lock:
                self._seen[index] += 1
                mine = self._seen[index] == wire.nth
            if mine and isinstance(sock, FaultySocket):
                sock.arm(wire, at_byte)

    def knows_keys(self) -> bool:
        """Whether the device's owner has agreed to the authorised keys."""
        return self._owner_agreed

    def owner_agrees(self) -> bool:
        """Ask the owner about an authorised key: takes a time, or the owner never agrees."""
        seconds = self.spec.unauthorised
        if isinstance(seconds, bool) or self._stopped.wait(seconds):
            return False
        self._owner_agreed = True
        return True

    # Runs ------------------------------------------------------------------------------------

    def run_started(self) -> int:
        """The app starts; returns the run's number, from 1."""
        with self._lock:
            self._runs += 1
            number = self._runs
        for event in self.spec.kill:
            if event.after_seconds is not None and event.run == number:
                self.later(event.after_seconds, lambda e=event: self._kill_run(number, e))  # type: ignore[misc]
        return number

    def _kill_run(self, number: int, event: Kill) -> None:
        if self._runs == number:
            self.kill(event)

    def status(self, run: int, number: int) -> None:
        """The app has sent its status of this number, from 1."""
        for event, at_status in self._events:
            if event.run != run or at_status != number:
                continue
            if isinstance(event, Kill):
                self.kill(event)
            else:
                self.go_offline(event.seconds)

    # State -----------------------------------------------------------------------------------

    def stored(self, path: Path) -> None:
        """A pushed file is on the storage."""
        if not self._to_damage or not path.stat().st_size:
            return
        with self._lock:
            self._to_damage -= 1
            at = self._chance.randrange(path.stat().st_size)
        self.note(f"byte {at} of {path.name} damaged")
        with path.open("r+b") as file:
            file.seek(at)
            old = file.read(1)
            file.seek(at)
            file.write(bytes([old[0] ^ 0x10]))

    def seconds(self) -> float:
        """Seconds since the device started."""
        return time.monotonic() - self._started

    def clock_offset(self) -> float:
        """How many seconds the device's clock is ahead of the host's now."""
        now = self.seconds()
        return sum(jump.by_seconds for jump in self.spec.clock if jump.after_seconds <= now)

    def thermal_status(self) -> int | None:
        """The thermal status now; None where the device has no sensors."""
        now = self.seconds()
        past = [event for event in self.spec.thermal if event.after_seconds <= now]
        if not self.spec.thermal:
            return None
        return max(past, key=lambda event: event.after_seconds).status if past else 0


class FaultySocket(socket.socket):
    """A socket that is slow, ends, stalls or damages a byte, as it was armed to."""

    def __init__(
        self,
        sock: socket.socket,
        spec: FaultSpec,
        chance: random.Random,
        note: Callable[[str], None],
    ) -> None:
        timeout = sock.gettimeout()
        super().__init__(fileno=sock.detach())
        self.settimeout(timeout)
        self._spec = spec
        self._chance = chance
        self._note = note
        self._passed = {TO_DEVICE: 0, FROM_DEVICE: 0}
        self._armed: list[tuple[int, Wire]] = []
        self._ended = threading.Event()

    def arm(self, wire: Wire, at_byte: int) -> None:
        """Let ``wire`` happen ``at_byte`` bytes from here."""
        self._armed.append((self._passed[wire.direction] + at_byte, wire))

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """Like a socket's; ConnectionResetError where the connection is to end."""
        view = memoryview(buffer)
        size, flip = self._allowed(TO_DEVICE, len(view))
        count = super().recv_into(view[:size], 0, flags)
        if flip and count:
            view[0] ^= 0x10
        self._pass(TO_DEVICE, count)
        return count

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        """Like a socket's; ConnectionResetError where the connection is to end."""
        if self._spec.latency_ms:
            self._ended.wait(self._chance.uniform(*self._spec.latency_ms) / 1000)
        view = memoryview(data)
        while view:
            size, flip = self._allowed(FROM_DEVICE, len(view))
            super().sendall(bytes([view[0] ^ 0x10]) if flip else view[:size], flags)
            self._pass(FROM_DEVICE, size)
            view = view[size:]

    def shutdown(self, how: SupportsIndex, /) -> None:
        """Like a socket's; also ends a stall."""
        self._ended.set()
        super().shutdown(int(how))

    def _allowed(self, direction: str, size: int) -> tuple[int, bool]:
        """How many of ``size`` bytes may pass before something happens; whether one is flipped."""
        passed = self._passed[direction]
        for due, wire in sorted(self._armed, key=lambda armed: armed[0]):
            if wire.direction != direction:
                continue
            if due > passed:
                size = min(size, due - passed)
                break
            self._armed.remove((due, wire))
            self._note(f"{wire.action} at byte {due} {direction}")
            if wire.action == "flip":
                return 1, True
            if wire.action == "drop":
                self.shutdown(socket.SHUT_RDWR)
                raise ConnectionResetError("dropped on purpose")
            self._stall(wire.seconds)
        if self._spec.bytes_per_second:
            size = min(size, max(1, int(self._spec.bytes_per_second * _SLICE_SECONDS)))
        return size, False

    def _stall(self, seconds: float | None) -> None:
        gone = select.poll()
        gone.register(self.fileno(), getattr(select, "POLLRDHUP", 0))
        end = None if seconds is None else time.monotonic() + seconds
        while end is None or time.monotonic() < end:
            if self._ended.wait(_SLICE_SECONDS) or gone.poll(0):
                raise ConnectionResetError("stalled until the client went")

    def _pass(self, direction: str, count: int) -> None:
        self._passed[direction] += count
        if self._spec.bytes_per_second:
            self._ended.wait(count / self._spec.bytes_per_second)
