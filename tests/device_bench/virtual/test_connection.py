"""The daemon's side of the protocol, with a client written by hand: faults end one connection."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_bench.virtual import VirtualDevice, connection, server, sync
from sparserec.errors import SparseRecError


def request(name: bytes, argument: bytes) -> bytes:
    return name + struct.pack("<I", len(argument)) + argument


def test_handshake_names_the_device(raw: Any, key: Path) -> None:
    command, version, max_payload, banner = raw.connect(key)
    assert (command, version, max_payload) == (b"CNXN", 0x01000000, 1 << 20)
    assert banner.startswith(b"device::")
    assert b"ro.product.model=SparseRec Virtual Device;" in banner
    assert b"shell_v2" in banner.partition(b"features=")[2].split(b",")


def test_payloads_keep_to_what_the_client_takes(raw: Any, key: Path, root: Path) -> None:
    (root / "data/big").write_bytes(bytes(100_000))
    raw.connect(key)
    raw.send(b"OPEN", 1, 0, b"exec:cat /data/big\0")
    sizes = []
    while (message := raw.receive())[0] != b"CLSE":
        if message[0] == b"WRTE":
            sizes.append(len(message[3]))
            raw.send(b"OKAY", 1, message[1])
    assert sum(sizes) == 100_000
    assert max(sizes) == 4096


@pytest.mark.parametrize(
    "wrong",
    [{"magic": 0}, {"length": 5000}, {"length": 0xFFFFFFFF}, {"checksum": 1}],
    ids=["magic", "long", "huge", "checksum"],
)
def test_a_malformed_greeting_is_hung_up_on(raw: Any, wrong: dict[str, int]) -> None:
    raw.send(b"CNXN", 0x01000000, 4096, b"host::\0", **wrong)
    assert raw.closed()


@pytest.mark.parametrize(
    ("command", "arg0", "arg1"),
    [
        (b"OPEN", 1, 0),
        (b"WRTE", 1, 1),
        (b"STLS", 1, 0),
        (b"CNXN", 0x00FFFFFF, 4096),
        (b"CNXN", 0x01000000, 8),
    ],
)
def test_nothing_goes_before_the_greeting(raw: Any, command: bytes, arg0: int, arg1: int) -> None:
    raw.send(command, arg0, arg1, b"shell:id\0")
    assert raw.closed()


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(noise=st.binary(min_size=24, max_size=400))
def test_noise_is_hung_up_on(raw_clients: Any, key: Path, noise: bytes) -> None:
    client = raw_clients()
    client.connect(key)
    client.socket.sendall(noise)
    assert client.closed()
    client.socket.close()


def test_an_established_connection_is_bounded_too(raw: Any, key: Path) -> None:
    raw.connect(key)
    raw.send(b"OPEN", 1, 0, length=(1 << 20) + 1)
    assert raw.closed()


def test_the_public_key_alone_opens_nothing(raw: Any, key: Path, virtual: VirtualDevice) -> None:
    raw.send(b"CNXN", 0x01000000, 4096, b"host::\0")
    assert raw.receive()[0] == b"AUTH"
    raw.send(b"AUTH", 3, 0, key.with_suffix(".pub").read_bytes() + b"\0")
    raw.send(b"OPEN", 1, 0, b"shell:id\0")
    raw.socket.settimeout(0.5)
    with pytest.raises(TimeoutError):
        raw.receive()
    assert any("not authorised: sha256:" in line for line in virtual.device.log.lines())


def test_a_token_is_signed_once(raw: Any, key: Path) -> None:
    """A signature of an earlier token, or one by nobody, is answered by a fresh token."""
    raw.send(b"CNXN", 0x01000000, 4096, b"host::\0")
    tokens = {raw.receive()[3]}
    for _ in range(connection.MAX_SIGNATURES - 1):
        raw.send(b"AUTH", 2, 0, bytes(256))
        command, kind, _, token = raw.receive()
        assert (command, kind) == (b"AUTH", 1)
        tokens.add(token)
    assert len(tokens) == connection.MAX_SIGNATURES
    raw.send(b"AUTH", 2, 0, bytes(256))
    assert raw.closed()


def test_half_a_message_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
    virtual: VirtualDevice,
    raw_clients: Any,
    key: Path,
    wait_until: Any,
) -> None:
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 1.0)
    established = raw_clients()
    established.connect(key)
    silent, half = raw_clients(), raw_clients()
    half.socket.sendall(b"CNXN\0\0")
    assert silent.closed()
    assert half.closed()
    time.sleep(0.5)  # an idle connection is left alone
    established.open(b"shell:true")
    established.socket.sendall(b"WRTE\1")
    assert established.closed()
    assert wait_until(lambda: not virtual._connections)


def test_streams_run_side_by_side(raw: Any, key: Path) -> None:
    raw.connect(key)
    slow = raw.open(b"shell:sleep 0.5; echo slow", 1)
    quick = raw.open(b"shell:echo quick", 2)
    assert quick != slow
    assert raw.collect(quick, 2) == b"quick\n"
    assert raw.collect(slow, 1) == b"slow\n"


def test_a_second_payload_before_the_acknowledgement_is_a_fault(raw: Any, key: Path) -> None:
    raw.connect(key)
    remote = raw.open(b"exec:sleep 60")
    raw.send(b"WRTE", 1, remote, b"one")
    raw.send(b"WRTE", 1, remote, b"two")
    assert raw.closed()


def test_unknown_services_and_too_many_streams_are_refused(raw: Any, key: Path) -> None:
    raw.connect(key)
    for name in (b"reboot:", b"tcp:22", b"localfilesystem:/etc", b"sync:x", b"", b"\xff\xfe"):
        raw.send(b"OPEN", 9, 0, name + b"\0")
        assert raw.receive()[:3] == (b"CLSE", 0, 9)
    for number in range(connection.MAX_STREAMS):
        raw.open(b"exec:sleep 60", 10 + number)
    raw.send(b"OPEN", 9, 0, b"exec:sleep 60\0")
    assert raw.receive()[:3] == (b"CLSE", 0, 9)


def test_messages_for_streams_that_are_gone_are_passed_over(raw: Any, key: Path) -> None:
    raw.connect(key)
    for command in (b"OKAY", b"WRTE", b"CLSE"):
        raw.send(command, 5, 77, b"")
    remote = raw.open(b"shell:echo still here")
    assert raw.collect(remote) == b"still here\n"


TRAVERSALS = [
    b"/../outside",
    b"/sdcard/../../outside",
    b"../outside",
    b"/leak",
    b"/up/outside",
    b"/up/new",
    b"/sdcard/a\nb",
    b"\0",
    b"",
    b"/" + b"../" * 300 + b"etc/passwd",
]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_sync_reaches_nothing_outside(
    raw: Any, key: Path, root: Path, tmp_path: Path, path: bytes
) -> None:
    (root / "leak").symlink_to(tmp_path / "outside")
    (root / "up").symlink_to(tmp_path)
    before = sorted(entry.name for entry in tmp_path.iterdir())
    raw.connect(key)
    remote = raw.open(b"sync:")
    pushed = request(b"SEND", path + b",33188") + request(b"DATA", b"evil") + b"DONE\0\0\0\0"
    everything = request(b"RECV", path) + request(b"LIST", path) + request(b"STA2", path) + pushed
    raw.send(b"WRTE", 1, remote, everything + b"QUIT\0\0\0\0")
    answer = raw.collect(remote)
    assert b"not for the device" not in answer
    assert b"root:" not in answer
    assert answer.startswith(b"FAIL")
    assert (tmp_path / "outside").read_text() == "not for the device"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == before


def test_links_cannot_be_pushed(raw: Any, key: Path, root: Path) -> None:
    raw.connect(key)
    remote = raw.open(b"sync:")
    body = b""
    for mode in (b"41471", b"0120777", b"x", b"99999999999999999999"):
        body += request(b"SEND", b"/sdcard/link," + mode) + request(b"DATA", b"/etc/passwd")
        body += b"DONE\0\0\0\0"
    raw.send(b"WRTE", 1, remote, body + b"QUIT\0\0\0\0")
    answer = raw.collect(remote)
    assert b"symbolic links are not supported" in answer
    assert b"no file mode" in answer
    assert not (root / "sdcard/link").is_symlink()


@pytest.mark.parametrize(
    "body",
    [
        b"WHAT" + struct.pack("<I", 0),
        b"STAT" + struct.pack("<I", 0xFFFFFFFF),
        request(b"SEND", b"/sdcard/f,33188") + b"DATA" + struct.pack("<I", sync.CHUNK_MAX + 1),
        request(b"SEND", b"/sdcard/f,33188") + b"QUIT" + struct.pack("<I", 0),
    ],
)
def test_malformed_sync_requests_end_the_session(
    raw: Any, key: Path, root: Path, body: bytes
) -> None:
    raw.connect(key)
    remote = raw.open(b"sync:")
    raw.send(b"WRTE", 1, remote, body)
    assert raw.collect(remote).startswith(b"FAIL")
    assert not (root / "sdcard/f").exists()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(noise=st.binary(min_size=1, max_size=300))
def test_noise_in_a_sync_session_ends_it(raw_clients: Any, key: Path, noise: bytes) -> None:
    client = raw_clients()
    client.connect(key)
    remote = client.open(b"sync:")
    client.send(b"WRTE", 1, remote, noise)
    client.send(b"CLSE", 1, remote)
    while (message := client.receive())[0] != b"CLSE":
        assert message[0] in (b"OKAY", b"WRTE")
    client.socket.close()


def test_a_push_cut_short_leaves_no_part_of_a_file(
    raw: Any, key: Path, root: Path, wait_until: Any
) -> None:
    raw.connect(key)
    remote = raw.open(b"sync:")
    raw.send(b"WRTE", 1, remote, request(b"SEND", b"/sdcard/f,33188") + request(b"DATA", b"half"))
    assert raw.receive()[0] == b"OKAY"
    assert wait_until((root / "sdcard/f").exists)
    raw.socket.close()
    assert wait_until(lambda: not (root / "sdcard/f").exists())


def test_clients_are_counted(raw_clients: Any, key: Path, wait_until: Any) -> None:
    clients = [raw_clients() for _ in range(server.MAX_CONNECTIONS)]
    clients[0].connect(key)
    assert raw_clients().closed()
    clients[1].socket.close()

    def welcome() -> bool:
        try:
            return bool(raw_clients().connect(key)[0] == b"CNXN")
        except (EOFError, ConnectionError):
            return False

    assert wait_until(welcome)


def test_a_port_that_cannot_be_used_is_named(virtual: VirtualDevice, tmp_path: Path) -> None:
    for port in (virtual.port, 99_999):
        with pytest.raises(SparseRecError, match=f"port {port} on 127.0.0.1"):
            VirtualDevice(tmp_path / "other", port=port).start()


def test_stop_frees_the_port(tmp_path: Path, key: Path, launcher: Path) -> None:
    keys = [key.with_suffix(".pub")]
    first = VirtualDevice(tmp_path / "a", authorized_keys=keys, harness=launcher)
    first.start()
    first.stop()
    first.stop()
    with VirtualDevice(tmp_path / "b", port=first.port) as second:
        assert second.port == first.port
