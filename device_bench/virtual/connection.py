"""One client's connection: the handshake, then streams until the client goes."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING

from device_bench.virtual import auth, protocol, services
from device_bench.virtual.protocol import (
    AUTH,
    AUTH_PUBLIC_KEY,
    AUTH_SIGNATURE,
    AUTH_TOKEN,
    CLSE,
    CNXN,
    OKAY,
    OPEN,
    WRTE,
    Message,
    ProtocolError,
)
from device_bench.virtual.streams import Stream

if TYPE_CHECKING:
    from device_bench.virtual.device import Device

FEATURES = ("shell_v2", "cmd", "stat_v2", "ls_v2", "fixed_push_symlink_timestamp")
"""Without ``fixed_push_mkdir`` stock adb makes the folders of a tree itself, also empty ones."""
PATIENCE_SECONDS = 30.0
"""How long a peer may take over the handshake, the rest of a message, or to take one of ours."""
MAX_SIGNATURES = 32
MAX_STREAMS = 32
HANDSHAKE_LIMIT = 4096


class Connection:
    """Serves one socket until it ends; every fault ends this connection and nothing else."""

    def __init__(self, sock: socket.socket, device: Device) -> None:
        self._socket = sock
        self._device = device
        self._version = protocol.VERSION_CHECKSUM
        self._max_payload = protocol.MIN_MAX_PAYLOAD
        self._sending = threading.Lock()
        self._streams: dict[int, Stream] = {}
        self._last_id = 0

    def serve(self) -> None:
        """Run the connection to its end; meant to be a thread's target."""
        self._socket.settimeout(PATIENCE_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        try:
            if self._handshake():
                while True:
                    self._dispatch(self._receive(protocol.MAX_PAYLOAD, may_idle=True))
        except ProtocolError as error:
            self._device.log.add("adbd", f"connection closed: {error}")
        except (OSError, EOFError):
            pass  # the client went away, which is how connections end
        finally:
            self.close()

    def close(self) -> None:
        """End the connection and everything that runs for it; may be called from any thread."""
        with contextlib.suppress(OSError):  # it may be disconnected already
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for stream in list(self._streams.values()):
            stream.dropped()

    def _receive(self, limit: int, *, may_idle: bool = False) -> Message:
        """Read one message.

        Raises:
            ProtocolError: malformed, or longer than ``limit``.
            EOFError, OSError: the client has gone, or took longer than it may.
        """
        raw = self._receive_bytes(protocol.HEADER.size, may_idle=may_idle)
        header = protocol.parse_header(raw, limit)
        payload = self._receive_bytes(header.length)
        # The first message says itself which version it speaks.
        version = header.arg0 if header.command == CNXN else self._version
        protocol.check_payload(header, payload, version)
        return Message(header.command, header.arg0, header.arg1, payload)

    def _receive_bytes(self, size: int, *, may_idle: bool = False) -> bytes:
        buffer = bytearray(size)
        view = memoryview(buffer)
        done = 0
        while done < size:
            try:
                count = self._socket.recv_into(view[done:])
            except TimeoutError:
                if may_idle and not done:
                    continue
                raise
            if not count:
                raise EOFError
            done += count
            if hasattr(socket, "TCP_QUICKACK"):
                # adb-shell writes in small pieces, and its system holds each back until ours has
                # acknowledged the one before, which ours would otherwise put off for 40 ms.
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return bytes(buffer)

    def _send(self, message: Message) -> None:
        data = protocol.pack(message, self._version)
        try:
            with self._sending:
                self._socket.sendall(data)
        except OSError as error:
            # Part of a message may be out: the connection is of no further use.
            self.close()
            raise BrokenPipeError("the client has gone") from error

    def _handshake(self) -> bool:
        """Greet and authenticate; False where the client had no key that we accept.

        Raises:
            ProtocolError: the client does not follow the protocol.
        """
        hello = self._receive(HANDSHAKE_LIMIT)
        if hello.command != CNXN or hello.arg0 < protocol.VERSION_CHECKSUM:
            raise ProtocolError(f"expected CNXN, got {hello.command!r} 0x{hello.arg0:08x}")
        if hello.arg1 < protocol.MIN_MAX_PAYLOAD:
            raise ProtocolError(f"the client takes only {hello.arg1} bytes in a message")
        if not self._authenticate():
            return False
        version = min(hello.arg0, protocol.VERSION_SKIP_CHECKSUM)
        self._max_payload = min(hello.arg1, protocol.MAX_PAYLOAD)
        banner = self._device.banner(FEATURES)
        self._send(Message(CNXN, version, protocol.MAX_PAYLOAD, banner))
        self._version = version
        return True

    def _authenticate(self) -> bool:
        for _ in range(MAX_SIGNATURES):
            token = os.urandom(auth.TOKEN_BYTES)
            self._send(Message(AUTH, AUTH_TOKEN, 0, token))
            answer = self._receive(HANDSHAKE_LIMIT)
            if answer.command != AUTH or answer.arg0 not in (AUTH_SIGNATURE, AUTH_PUBLIC_KEY):
                raise ProtocolError(f"expected AUTH, got {answer.command!r} {answer.arg0}")
            keys, faults = self._device.authorized_keys, self._device.faults
            if answer.arg0 == AUTH_PUBLIC_KEY:
                if auth.is_among(answer.payload, keys) and faults.owner_agrees():
                    return True
                self._refuse(answer.payload)
                return False
            if faults.knows_keys() and any(auth.verify(k, token, answer.payload) for k in keys):
                return True
        raise ProtocolError("too many signatures by unknown keys")

    def _refuse(self, key: bytes) -> None:
        """Leave an unknown key waiting, as a phone does while it asks its owner.

        Clients show that state as "unauthorized"; closing would look like a device gone offline.
        """
        self._device.log.add("adbd", f"not authorised: {auth.describe_key(key)}")
        while True:
            self._receive(HANDSHAKE_LIMIT, may_idle=True)

    def _dispatch(self, message: Message) -> None:
        """Act on one message of an established connection."""
        if message.command == OPEN:
            self._open(message)
            return
        if message.command not in (OKAY, WRTE, CLSE):
            raise ProtocolError(f"unexpected {message.command!r}")
        stream = self._streams.get(message.arg1)
        # A message may cross with our CLSE, so one for a stream we do not know is no fault.
        if stream is None or (message.arg0 != stream.remote and message.command != CLSE):
            return
        if message.command == OKAY:
            stream.acknowledged()
        elif message.command == WRTE:
            stream.delivered(message.payload)
        else:
            self._streams.pop(stream.local, None)
            if stream.dropped():
                self._send(Message(CLSE, stream.local, stream.remote))

    def _open(self, message: Message) -> None:
        name = os.fsdecode(message.payload.partition(b"\0")[0])
        service = services.find(name)
        self._device.faults.opened(self._socket, name)
        if message.arg0 == 0:
            raise ProtocolError("OPEN without a stream id")
        if service is None or len(self._streams) >= MAX_STREAMS:
            self._device.log.add("adbd", f"refused service {name[:80]!r}")
            self._send(Message(CLSE, 0, message.arg0))
            return
        self._last_id += 1
        stream = Stream(self._last_id, message.arg0, self._send, self._max_payload)
        self._streams[stream.local] = stream
        self._send(Message(OKAY, stream.local, stream.remote))
        threading.Thread(
            target=self._run, args=(service, stream), name=f"adbd {name[:20]}", daemon=True
        ).start()

    def _run(self, service: services.Service, stream: Stream) -> None:
        # A client that closes the stream early ends its service; that is no fault.
        try:
            with contextlib.suppress(BrokenPipeError, EOFError):
                service(stream, self._device)
        finally:
            with contextlib.suppress(BrokenPipeError):
                stream.finish()
            self._streams.pop(stream.local, None)
            stream.hangup.set()
