"""adb-shell's transports made whole: writes that are complete, ends and damage that are noticed.

adb-shell 0.4.4 takes a message that is not for the open stream for one of another, and waits; it
does not look at a header's magic, nor whether a stream that it reads from was closed. One flipped
bit, and a run of minutes would end in a time-out. One stream is open at a time here, so every
message can be held against it (AOSP ``packages/modules/adb/protocol.txt``).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from adb_shell.transport.base_transport import BaseTransport
from adb_shell.transport.tcp_transport import TcpTransport

from device_bench.device_errors import is_silence
from device_bench.virtual.protocol import (
    CLSE,
    HEADER,
    OKAY,
    OPEN,
    WRTE,
    Header,
    ProtocolError,
    parse_header,
)

TICK_SECONDS = 0.25
MESSAGE_SECONDS = 10.0
"""How long the rest of a message may take; a device sends one at once."""


def nothing() -> None:
    """Do nothing."""


class Socket(TcpTransport):  # type: ignore[misc]
    """adb-shell's TCP transport with whole writes, no delay, and an end that is noticed.

    ``Socket(host, port)`` does not connect yet.
    """

    def connect(self, transport_timeout_s: float | None) -> None:
        super().connect(transport_timeout_s)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
        with _as_connection_error():
            data: bytes = super().bulk_read(numbytes, transport_timeout_s)
        if not data:
            raise ConnectionResetError("the device closed the connection")
        return data

    def bulk_write(self, data: bytes, transport_timeout_s: float | None) -> int:
        rest = memoryview(data)
        while rest:
            with _as_connection_error():
                rest = rest[super().bulk_write(rest, transport_timeout_s) :]
        return len(data)


@contextmanager
def _as_connection_error() -> Iterator[None]:
    """A network that is unreachable is no ConnectionError to Python, a file's fault is none."""
    try:
        yield
    except OSError as error:
        if isinstance(error, (ConnectionError, TimeoutError)):
            raise
        raise ConnectionError(error.strerror or str(error)) from error


class Conversation:
    """Follows the headers both ways; one stream at a time.

    Raises (both methods):
        ConnectionError: a message that cannot be, so a damaged one.
    """

    def __init__(self) -> None:
        self._local = 0
        self._remote: int | None = None
        self._ended = False
        """Whether the device closed the open stream."""
        self._owed: set[int] = set()
        """Streams that we closed, and the device may still close."""

    def sent(self, header: bytes) -> int:
        """Note a header of ours; the number of bytes that follow it."""
        command, arg0, _, length, _, _ = HEADER.unpack(header)
        if command == OPEN:
            self._local, self._remote, self._ended = arg0, None, False
        elif command == CLSE:
            self._owed.add(arg0)
        return int(length)

    def expected(self) -> None:
        """Refuse to wait for a message of a stream that the device has closed."""
        if self._ended and self._local not in self._owed:
            raise ConnectionError("the device closed the stream early")

    def received(self, raw: bytes) -> int:
        """Check a header of the device's; the number of bytes that follow it."""
        try:
            header = parse_header(raw)
        except ProtocolError as error:
            raise ConnectionError(f"a damaged message came: {error}") from None
        if not self._fits(header):
            raise ConnectionError(
                f"a damaged message came: {header.command!r} for stream {header.arg1}, "
                f"from {header.arg0}"
            )
        return header.length

    def _fits(self, header: Header) -> bool:
        if not self._local:
            return True  # the handshake; a USB phone may first send what is left of a last session
        mine = header.arg1 == self._local and self._remote in (None, header.arg0)
        if header.command == CLSE:
            refused = header.arg1 == self._local and not header.arg0  # a service that is not there
            if header.arg1 in self._owed:
                self._owed.discard(header.arg1)
                self._ended = self._ended or header.arg1 == self._local
                return True
            self._ended = mine or refused
            return self._ended
        if header.command in (OKAY, WRTE) and mine and header.arg0:
            self._remote = header.arg0
            return True
        return False


class Wire(BaseTransport):  # type: ignore[misc]
    """One of adb-shell's transports, checked; while nothing comes, reads call ``tick``."""

    def __init__(self, transport: BaseTransport) -> None:
        self._transport = transport
        self.tick: Callable[[], None] = nothing
        self._begin()

    def _begin(self) -> None:
        self._talk = Conversation()
        self._header = b""
        self._coming = self._going = 0
        """Bytes of the message under way that are still to come, and to be written."""

    def connect(self, transport_timeout_s: float | None) -> None:
        self._begin()
        self._transport.connect(transport_timeout_s)

    def close(self) -> None:
        self._transport.close()

    def bulk_write(self, data: bytes, transport_timeout_s: float | None) -> int:
        if self._going:
            self._going -= len(data)
        else:
            self._going = self._talk.sent(data)
        return int(self._transport.bulk_write(data, transport_timeout_s))

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
        inside = bool(self._coming or self._header)
        if not inside:
            self._talk.expected()
            data = self._wait(numbytes, transport_timeout_s)
        else:
            data = self._rest(numbytes, transport_timeout_s)
        if self._coming:
            self._coming -= len(data)
            return data
        self._header += data
        if len(self._header) == HEADER.size:
            self._coming, self._header = self._talk.received(self._header), b""
        return data

    def _rest(self, numbytes: int, timeout: float | None) -> bytes:
        """More of a message whose beginning is there."""
        patience = MESSAGE_SECONDS if timeout is None else min(timeout, MESSAGE_SECONDS)
        try:
            return bytes(self._transport.bulk_read(numbytes, patience))
        except Exception as error:
            if not is_silence(error):
                raise
            raise ConnectionError("a message of the device broke off") from None

    def _wait(self, numbytes: int, timeout: float | None) -> bytes:
        """The beginning of a message."""
        if self.tick is nothing or timeout is None:
            return bytes(self._transport.bulk_read(numbytes, timeout))
        end = time.monotonic() + timeout
        while True:
            try:
                return bytes(self._transport.bulk_read(numbytes, TICK_SECONDS))
            except Exception as error:
                if not is_silence(error):
                    raise
                # libusb keeps what came of a transfer that ran out of time.
                received = getattr(getattr(error, "usb_error", None), "received", b"")
                if received:
                    return bytes(received)
                self.tick()
                if time.monotonic() > end:
                    raise
