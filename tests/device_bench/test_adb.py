"""The connection, against a virtual device in this process and against broken peers."""

from __future__ import annotations

import hashlib
import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from adb_shell.exceptions import UsbReadFailedError

from device_bench import adb, device_errors, keys
from device_bench.adb import Device, Socket, parse_address
from device_bench.device_errors import DeviceError
from device_bench.virtual import VirtualDevice
from sparserec.errors import SparseRecError


class USBErrorBusy(Exception):  # noqa: N818 - libusb's own name
    """As python-libusb1 names it; that library need not be here."""


USBErrorBusy.__module__ = "usb1"


def test_shell_gives_code_and_output(device: Device) -> None:
    assert device.shell("echo hello") == adb.ShellResult(0, "hello\n")
    assert device.shell("false") == adb.ShellResult(1, "")
    missing = device.shell("no-such-command")
    assert missing.exit_code == 127
    assert "no-such-command" in missing.output


def test_output_without_a_line_end_keeps_its_text(device: Device) -> None:
    assert device.shell("printf %s abc") == adb.ShellResult(0, "abc")


def test_large_files_go_there_and_back(device: Device, tmp_path: Path) -> None:
    # Several of adb's largest messages: a TCP write takes only a part of one.
    data = random.Random(5).randbytes(7_000_001)
    source = tmp_path / "big"
    source.write_bytes(data)
    seen: list[int] = []
    device.push(source, "/data/local/tmp/big", seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == len(data)
    digest = device.shell("sha256sum /data/local/tmp/big").output.split()[0]
    assert digest == hashlib.sha256(data).hexdigest()
    device.pull("/data/local/tmp/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_writes_are_whole_where_the_peer_is_slow() -> None:
    data = random.Random(6).randbytes(3_000_000)
    received = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

        def read() -> None:
            client, _ = server.accept()
            with client:
                time.sleep(0.2)
                while part := client.recv(1 << 16):
                    received.extend(part)

        thread = threading.Thread(target=read)
        thread.start()
        transport = Socket("127.0.0.1", server.getsockname()[1])
        transport.connect(5.0)
        assert transport.bulk_write(data, 5.0) == len(data)
        transport.close()
        thread.join()
    assert bytes(received) == data


def test_pull_to_a_full_disk_is_one_line(
    device: Device, virtual: VirtualDevice, tmp_path: Path
) -> None:
    big = virtual.device.files.root / "data/local/tmp/big"
    big.parent.mkdir(parents=True, exist_ok=True)
    big.write_bytes(bytes(1_000_000))
    (tmp_path / "back.part").symlink_to("/dev/full")
    with pytest.raises(SparseRecError, match="back: cannot be written: No space left") as caught:
        device.pull("/data/local/tmp/big", tmp_path / "back")
    assert not isinstance(caught.value, DeviceError)
    assert list(tmp_path.glob("back*")) == []
    device.connect()  # the file was left in the middle
    assert device.shell("echo here").output == "here\n"


def test_pull_of_a_missing_file_leaves_nothing(device: Device, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="No such file"):
        device.pull("/data/local/tmp/none", tmp_path / "none")
    assert not list(tmp_path.glob("none*"))


def test_stream_yields_whole_lines(device: Device) -> None:
    lines = list(device.stream("echo one; printf 'zwö'; printf 'lf\\n'; printf end", 10))
    assert lines == ["one", "zwölf", "end"]


def test_what_push_progress_raises_is_not_lost(device: Device, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(bytes(3_000_000))

    def interrupt(sent: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        device.push(source, "/data/local/tmp/file", interrupt)
    device.connect()
    assert device.shell("echo back").output == "back\n"


def test_silence_is_an_error(device: Device) -> None:
    with pytest.raises(DeviceError, match="no answer within 1 s"):
        list(device.stream("sleep 5", silence=1.0))


def test_facts_of_the_virtual_device(device: Device) -> None:
    facts = device.facts()
    assert facts.kind == "virtual-device"
    assert facts.serial == "sparserec-virtual"
    assert facts.sdk == 34
    assert facts.free_bytes is not None
    assert facts.free_bytes > 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Filesystem 1K-blocks Used Available Use% Mounted on\n/dev/fuse 100 30 70 30% /sdcard",
            70 * 1024,
        ),
        ("df: /sdcard: No such file or directory", None),
        ("", None),
    ],
)
def test_free_space(text: str, expected: int | None) -> None:
    assert adb._free_bytes(text) == expected


def test_unknown_key_is_unauthorised(virtual: VirtualDevice, tmp_path: Path) -> None:
    stranger = keys.ensure_key(tmp_path / "stranger")
    asked: list[bool] = []
    device = Device(
        "x",
        Socket(virtual.host, virtual.port),
        [stranger],
        wait_for_owner=0.5,
        on_dialog=lambda: asked.append(True),
    )
    with pytest.raises(DeviceError) as caught, device:
        pass
    assert caught.value.state == "unauthorised"
    assert "accept" in caught.value.fix
    assert asked == [True]


@contextmanager
def peer(answer: bytes | None) -> Iterator[int]:
    """A port whose peer answers with ``answer`` and closes, or says nothing at all."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                if answer is not None:
                    client.recv(24)
                    client.sendall(answer)
                else:
                    while client.recv(1 << 16):
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]


def broken_connect(port: int) -> DeviceError:
    device = Device("d", Socket("127.0.0.1", port), [keys.virtual_key()])
    with pytest.raises(DeviceError) as caught:
        device.connect(timeout=0.5)
    return caught.value


def test_connection_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    error = broken_connect(port)
    assert "refused" in error.message
    assert "adb tcpip" in error.fix


def test_silent_closing_and_babbling_peers() -> None:
    with peer(None) as port:
        assert "does not answer" in broken_connect(port).message
    with peer(b"") as port:
        assert re.search("closed|reset", broken_connect(port).message)
    with peer(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        assert "cannot connect" in broken_connect(port).message


def test_busy_usb_is_explained() -> None:
    busy = device_errors.connect_error("S1", USBErrorBusy())
    assert busy.state == "busy"
    assert "adb kill-server" in busy.fix
    wrapped = device_errors.connect_error("S1", UsbReadFailedError("read", USBErrorBusy()))
    assert wrapped.state == "busy"
    assert device_errors.is_device_fault(USBErrorBusy())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.7:5555", ("10.0.0.7", 5555)),
        ("phone.local:1", ("phone.local", 1)),
        ("[::1]:5555", ("::1", 5555)),
        ("R58M123ABC", None),
        ("host:0", None),
        ("host:70000", None),
        ("::1:5555", None),
        ("host:", None),
        ("a b:1", None),
    ],
)
def test_addresses(text: str, expected: tuple[str, int] | None) -> None:
    assert parse_address(text) == expected
