"""One stream of a connection: a two-way pipe to a service, with the protocol's flow control.

A side may have one unacknowledged WRTE per stream. We acknowledge a payload when the service takes
it, so a client that pushes faster than the disk writes is held back, and memory stays bounded.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from device_bench.virtual.protocol import CLSE, OKAY, WRTE, Message, ProtocolError


class Reader(Protocol):
    """What a service reads from: ``b""`` is the end."""

    def read(self, size: int, /) -> bytes: ...


class Writer(Protocol):
    """What a service writes to; BrokenPipeError once nobody reads."""

    def write(self, data: bytes, /) -> object: ...


class Hangup:
    """Tells running work that its client has gone."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    def is_set(self) -> bool:
        """Whether the client has gone."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for the client to go, at most ``seconds``; whether it has gone."""
        return self._event.wait(seconds)

    def call(self, callback: Callable[[], None]) -> None:
        """Run ``callback`` when the client goes, or now if it has gone."""
        with self._lock:
            if not self._event.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def set(self) -> None:
        """Report that the client has gone."""
        with self._lock:
            self._event.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


class Stream:
    """One stream; ``read`` and ``write`` are for the service's threads."""

    def __init__(
        self,
        local: int,
        remote: int,
        send: Callable[[Message], None],
        max_payload: int,
    ) -> None:
        self.local = local
        self.remote = remote
        self.hangup = Hangup()
        self._send = send
        self._max_payload = max_payload
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._incoming: deque[bytes] = deque()
        self._may_write = True
        self._closed = False

    def read(self) -> bytes:
        """The next payload; ``b""`` once the client has closed the stream."""
        with self._changed:
            self._changed.wait_for(lambda: self._incoming or self._closed)
            if not self._incoming:
                return b""
            payload = self._incoming.popleft()
            closed = self._closed
        if not closed:
            self._send(Message(OKAY, self.local, self.remote))
        return payload

    def write(self, data: bytes) -> None:
        """Send all of ``data``, each payload after the acknowledgement of the one before.

        Raises:
            BrokenPipeError: the client has closed the stream.
        """
        with self._writing:
            for start in range(0, len(data), self._max_payload):
                self._wait_for_acknowledgement()
                payload = data[start : start + self._max_payload]
                self._send(Message(WRTE, self.local, self.remote, payload))

    def _wait_for_acknowledgement(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._may_write or self._closed)
            if self._closed:
                raise BrokenPipeError("the client closed the stream")
            self._may_write = False

    def finish(self) -> None:
        """Wait until the client has taken everything written, then close our side."""
        with self._changed:
            self._changed.wait_for(lambda: self._may_write or self._closed)
            if self._closed:
                return
            self._closed = True
        self._send(Message(CLSE, self.local, self.remote))

    def delivered(self, payload: bytes) -> None:
        """Take a payload from the connection's reader.

        Raises:
            ProtocolError: the client did not wait for our acknowledgement of the one before.
        """
        with self._changed:
            if self._closed:
                return
            if self._incoming:
                raise ProtocolError(f"stream {self.local}: a second payload before our OKAY")
            if payload:
                self._incoming.append(payload)
                self._changed.notify_all()
                return
        self._send(Message(OKAY, self.local, self.remote))

    def acknowledged(self) -> None:
        """Note the client's OKAY for our last payload."""
        with self._changed:
            self._may_write = True
            self._changed.notify_all()

    def dropped(self) -> bool:
        """Note that the client closed the stream or the connection; whether we were still open."""
        with self._changed:
            was_open = not self._closed
            self._closed = True
            self._changed.notify_all()
        self.hangup.set()
        return was_open


class StreamReader:
    """A stream's payloads as one run of bytes."""

    def __init__(self, next_payload: Callable[[], bytes]) -> None:
        self._next_payload = next_payload
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Between 1 and ``size`` bytes, or ``b""`` at the end."""
        if not self._rest:
            self._rest = self._next_payload()
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def read_exactly(self, size: int) -> bytes:
        """Just ``size`` bytes.

        Raises:
            EOFError: the stream ended before.
        """
        parts = []
        while size:
            part = self.read(size)
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
