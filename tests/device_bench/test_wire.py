"""Messages that cannot be are noticed at once, not when the patience is at its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_bench import wire
from device_bench.adb import Device
from device_bench.device_errors import ConnectionLostError
from device_bench.transport import Direct
from device_bench.virtual import VirtualDevice
from device_bench.virtual.protocol import CLSE, OKAY, OPEN, WRTE, Message, pack
from device_bench.wire import Conversation

US, THEM = 7, 3
PhoneWith = Callable[..., tuple[Device, VirtualDevice]]


def header(command: bytes, arg0: int, arg1: int, payload: bytes = b"") -> bytes:
    return pack(Message(command, arg0, arg1, payload))[:24]


def opened() -> Conversation:
    talk = Conversation()
    assert talk.sent(header(OPEN, US, 0, b"shell:ls\0")) == 9
    talk.received(header(OKAY, THEM, US))
    return talk


def test_stream_from_open_to_close() -> None:
    talk = opened()
    assert talk.received(header(WRTE, THEM, US, b"hello")) == 5
    talk.sent(header(OKAY, US, THEM))
    talk.received(header(CLSE, THEM, US))
    talk.sent(header(CLSE, US, THEM))
    talk.sent(header(OPEN, US + 1, 0))
    talk.received(header(CLSE, 0, US))  # the answer to ours, crossing with the new stream
    talk.received(header(OKAY, THEM + 1, US + 1))


def test_what_is_left_of_a_last_session_is_no_fault_before_the_first_stream() -> None:
    talk = Conversation()
    talk.received(header(WRTE, 99, 98, b"old"))
    talk.received(header(CLSE, 99, 98))


@pytest.mark.parametrize(
    "wrong",
    [
        header(WRTE, THEM, US + 16),
        header(WRTE, THEM + 16, US),
        header(OKAY, THEM, US - 1),
        header(CLSE, THEM, US + 16),
        header(CLSE, THEM + 16, US),
        header(OPEN, THEM, US),
        b"????" + header(OKAY, THEM, US)[4:],
    ],
)
def test_message_of_no_stream(wrong: bytes) -> None:
    with pytest.raises(ConnectionError, match="damaged message"):
        opened().received(wrong)


@given(at=st.integers(0, 191))
def test_a_flipped_bit_is_noticed_in_ids_command_and_magic(at: int) -> None:
    good = header(WRTE, THEM, US, b"hello")
    bad = bytearray(good)
    bad[at // 8] ^= 1 << at % 8
    talk = opened()
    if at // 32 in (3, 4):  # length and checksum: what follows does not fit them
        size = int.from_bytes(bad[12:16], "little")
        if size <= 1 << 20:
            assert talk.received(bytes(bad)) == size
            return
    with pytest.raises(ConnectionError):
        talk.received(bytes(bad))


def test_nobody_waits_for_a_stream_that_was_closed() -> None:
    talk = opened()
    talk.expected()
    talk.received(header(CLSE, THEM, US))
    with pytest.raises(ConnectionError, match="closed the stream"):
        talk.expected()
    talk.sent(header(CLSE, US, THEM))
    talk.expected()


@pytest.mark.parametrize("at_byte", [4, 8, 12, 13, 20])
def test_flip_in_a_header_ends_a_long_wait(
    phone_with: PhoneWith, monkeypatch: pytest.MonkeyPatch, at_byte: int
) -> None:
    monkeypatch.setattr(wire, "MESSAGE_SECONDS", 0.3)
    # Behind the OKAY: the WRTE that brings the output.
    flip: dict[str, Any] = {"action": "flip", "at_byte": 24 + at_byte, "service": "shell:echo"}
    device, _ = phone_with(wire=[flip | {"direction": "from_device"}])
    began = time.monotonic()
    with pytest.raises(ConnectionLostError, match="connection was lost"):
        device.shell("echo hello", timeout=60)
    assert time.monotonic() - began < 10
    device.connect()
    assert device.shell("echo hello").output == "hello\n"


def test_a_service_that_is_not_there_is_said_at_once(device: Device) -> None:
    transport = device.transport
    assert isinstance(transport, Direct)
    began = time.monotonic()
    with pytest.raises(ConnectionError, match="closed the stream"):
        list(transport._adb._streaming_command(b"no", b"x", 20, 20, None))
    assert time.monotonic() - began < 5
