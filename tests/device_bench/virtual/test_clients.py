"""The two clients that must work: the adb-shell library and Debian's stock adb."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from adb_shell.adb_device import AdbDeviceTcp
from adb_shell.auth.sign_pythonrsa import PythonRSASigner

from device_bench.virtual import VirtualDevice
from tests.device_bench.virtual.apks import build_apk, certificate

Adb = Callable[..., subprocess.CompletedProcess[bytes]]
SIZE = 5_000_000 + 123


@pytest.fixture
def random_file(tmp_path: Path) -> Path:
    path = tmp_path / "random"
    path.write_bytes(os.urandom(SIZE))
    path.chmod(0o640)
    os.utime(path, (1_600_000_000, 1_600_000_000))
    return path


# --- adb-shell ------------------------------------------------------------------------------


def test_adb_shell_runs_commands(client: AdbDeviceTcp) -> None:
    assert (
        client.shell('echo out; echo err >&2; false; echo "\\n__rc=$?"') == "out\nerr\n\n__rc=1\n"
    )
    assert list(client.streaming_shell("echo a; sleep 0.1; echo b")) == ["a\n", "b\n"]
    assert client.exec_out("printf 'a\\0b'", decode=False) == b"a\0b"


def test_adb_shell_pushes_and_pulls(client: AdbDeviceTcp, random_file: Path, root: Path) -> None:
    client.push(str(random_file), "/sdcard/deep/er/f", st_mode=0o100600, mtime=1_600_000_000)
    assert (root / "sdcard/deep/er/f").read_bytes() == random_file.read_bytes()
    assert client.stat("/sdcard/deep/er/f") == (0o100600, SIZE, 1_600_000_000)
    assert client.stat("/sdcard/nothing") == (0, 0, 0)
    back = random_file.with_name("back")
    client.pull("/sdcard/deep/er/f", str(back))
    assert back.read_bytes() == random_file.read_bytes()
    client.push(str(random_file), "/sdcard/deep/er/f")  # over what is there
    names = {bytes(entry.filename) for entry in client.list("/sdcard/deep/er")}
    assert names == {b".", b"..", b"f"}
    assert client.list("/sdcard/none") == []


def test_adb_shell_hears_why_a_push_failed(client: AdbDeviceTcp, random_file: Path) -> None:
    with pytest.raises(Exception, match="File exists"):
        client.push(str(random_file), "/sdcard")
    with pytest.raises(Exception, match="No such file"):
        client.pull("/sdcard/none", str(random_file.with_name("back")))
    assert client.shell("echo alive") == "alive\n"


def test_adb_shell_with_an_unknown_key_is_refused(virtual: VirtualDevice, other_key: Path) -> None:
    device = AdbDeviceTcp(virtual.host, virtual.port, default_transport_timeout_s=5)
    signer = PythonRSASigner.FromRSAKeyPath(str(other_key))
    asked = []
    with pytest.raises(Exception, match=r"timed out|Reading from"):
        device.connect(rsa_keys=[signer], auth_timeout_s=0.5, auth_callback=asked.append)
    assert asked
    assert not device.available
    device.close()


def test_adb_shell_tries_all_its_keys(virtual: VirtualDevice, key: Path, other_key: Path) -> None:
    signers = [PythonRSASigner.FromRSAKeyPath(str(path)) for path in (other_key, key)]
    device = AdbDeviceTcp(virtual.host, virtual.port, default_transport_timeout_s=5)
    assert device.connect(rsa_keys=signers, auth_timeout_s=5)
    device.close()


def test_several_connections_at_once(
    virtual: VirtualDevice, key: Path, random_file: Path, root: Path
) -> None:
    signer = PythonRSASigner.FromRSAKeyPath(str(key))

    def work(number: int) -> str:
        device = AdbDeviceTcp(virtual.host, virtual.port, default_transport_timeout_s=20)
        device.connect(rsa_keys=[signer], auth_timeout_s=20)
        device.push(str(random_file), f"/sdcard/f{number}")
        answer = device.shell(f"stat -c %s /sdcard/f{number}")
        device.close()
        return str(answer)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [f"{SIZE}\n"] * 4
    assert all((root / f"sdcard/f{n}").read_bytes() == random_file.read_bytes() for n in range(4))


# --- stock adb ------------------------------------------------------------------------------


@pytest.fixture
def adb_home(tmp_path: Path, key: Path) -> Path:
    """A home of adb's own with the authorised key, so the user's keys are neither used nor seen."""
    home = tmp_path / "adb-home"
    (home / ".android").mkdir(parents=True)
    for path in (key, key.with_suffix(".pub")):
        shutil.copy(path, home / ".android")
    (home / ".android/adbkey").chmod(0o600)
    return home


@pytest.fixture
def adb(adb_home: Path) -> Iterator[Adb]:
    """Runs stock adb with a server of its own, on a free port, ended afterwards."""
    program = shutil.which("adb")
    if program is None:
        pytest.skip("stock adb is not installed: apt-get install adb")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    environment = {"HOME": str(adb_home), "ANDROID_USER_HOME": str(adb_home / ".android")}
    environment |= {"PATH": os.environ["PATH"], "ANDROID_ADB_SERVER_PORT": port}
    environment |= {"TMPDIR": str(adb_home)}  # where the server keeps its log

    def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [program, *arguments],
            env=environment,
            input=stdin,
            capture_output=True,
            timeout=30,
            check=False,
        )

    run("start-server")
    yield run
    run("kill-server")


@pytest.fixture
def connected(adb: Adb, virtual: VirtualDevice) -> Adb:
    """``adb -s SERIAL``, connected."""
    serial = f"{virtual.host}:{virtual.port}"
    answer = adb("connect", serial).stdout
    assert answer == f"connected to {serial}\n".encode(), answer
    return lambda *arguments, stdin=b"": adb("-s", serial, *arguments, stdin=stdin)


def test_stock_adb_lists_the_device(connected: Adb, adb: Adb, virtual: VirtualDevice) -> None:
    lines = adb("devices", "-l").stdout.decode().splitlines()
    line = next(line for line in lines if line.startswith(f"127.0.0.1:{virtual.port} "))
    assert line.split()[1] == "device"
    assert "model:SparseRec_Virtual_Device" in line
    assert connected("get-state").stdout == b"device\n"
    adb("disconnect", f"127.0.0.1:{virtual.port}")
    assert str(virtual.port) not in adb("devices").stdout.decode()


def test_stock_adb_shell_keeps_code_and_streams_apart(connected: Adb) -> None:
    result = connected("shell", "echo out; echo err >&2; exit 7")
    assert (result.returncode, result.stdout, result.stderr) == (7, b"out\n", b"err\n")
    assert connected("shell", "nonesuch").returncode == 127
    assert connected("shell", "wc -c", stdin=bytes(300_000)).stdout == b"300000\n"
    assert connected("exec-out", "printf 'a\\0\\n'").stdout == b"a\0\n"
    assert connected("shell").returncode == 2  # no interactive shell
    assert connected("shell", "ls", "/sdcard").stdout == b"Android\n"
    assert b"ActivityManager" not in connected("logcat", "-d").stdout


def test_stock_adb_pushes_and_pulls_a_file(
    connected: Adb, random_file: Path, root: Path, tmp_path: Path
) -> None:
    assert connected("push", str(random_file), "/data/local/tmp/").returncode == 0
    there = root / "data/local/tmp/random"
    assert there.read_bytes() == random_file.read_bytes()
    status = there.stat()
    assert (status.st_mode, int(status.st_mtime)) == (0o100640, 1_600_000_000)
    assert (
        b"0 files pushed, 1 skipped"
        in connected("push", "--sync", str(random_file), "/data/local/tmp/").stdout
    )
    assert connected("pull", "/data/local/tmp/random", str(tmp_path / "back")).returncode == 0
    assert (tmp_path / "back").read_bytes() == random_file.read_bytes()
    refused = connected("pull", "/sdcard/none", str(tmp_path / "none"))
    assert refused.returncode != 0
    assert b"No such file" in refused.stdout + refused.stderr


def test_stock_adb_pushes_and_pulls_a_tree(connected: Adb, root: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    content = {"a/b/c/deep": b"deep", "a/one": b"", "with space/it's": b"x" * 70_000, "top": b"t"}
    for name, data in content.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(data)
    (tree / "empty/deeper").mkdir(parents=True)
    pushed = connected("push", str(tree), "/sdcard/")
    assert pushed.returncode == 0, pushed
    assert (root / "sdcard/tree/empty/deeper").is_dir()
    assert {name: (root / "sdcard/tree" / name).read_bytes() for name in content} == content
    pulled = connected("pull", "/sdcard/tree", str(tmp_path / "back"))
    assert pulled.returncode == 0, pulled
    assert {name: (tmp_path / "back" / name).read_bytes() for name in content} == content
    assert (tmp_path / "back/empty/deeper").is_dir()


def test_stock_adb_pushes_and_pulls_200_mb(connected: Adb, root: Path, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(os.urandom(1_000_000) * 200)
    assert connected("push", str(large), "/sdcard/large").returncode == 0
    assert connected("pull", "/sdcard/large", str(tmp_path / "back")).returncode == 0
    digests = []
    for path in (large, root / "sdcard/large", tmp_path / "back"):
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        path.unlink()
    assert len(set(digests)) == 1


@pytest.mark.parametrize("way", ["--no-streaming", "--streaming"])
def test_stock_adb_installs_and_removes_an_app(connected: Adb, tmp_path: Path, way: str) -> None:
    signer = certificate("one")
    paths = []
    for name, apk in (
        ("new", build_apk(signer, version_code=2, abis=())),
        ("old", build_apk(signer, version_code=1, abis=())),
        ("other", build_apk(certificate("two"), version_code=3, abis=())),
    ):
        paths.append(tmp_path / f"{name}.apk")
        paths[-1].write_bytes(apk)
    answers = [connected("install", way, "-r", str(path)) for path in paths]
    assert [answer.returncode for answer in answers] == [0, 1, 1]
    assert b"Success" in answers[0].stdout
    for answer, word in zip(answers[1:], (b"VERSION_DOWNGRADE", b"INCOMPATIBLE"), strict=True):
        assert word in answer.stdout + answer.stderr
    assert connected("uninstall", "org.sparserec.app").stdout == b"Success\n"


def test_stock_adb_runs_the_app(connected: Adb) -> None:
    component = "org.sparserec.app/.HarnessInstrumentation"
    run = f"am instrument -w -r -e out /sdcard/o -e run_id x {component}"
    result = connected("shell", run)
    assert result.returncode == 0
    assert result.stdout.endswith(
        b"INSTRUMENTATION_RESULT: report=/sdcard/o/report.json\nINSTRUMENTATION_CODE: -1\n"
    )


def test_stock_adb_side_by_side(connected: Adb, random_file: Path) -> None:
    """One server, one connection, several streams."""
    with ThreadPoolExecutor(4) as pool:
        jobs: list[Any] = [
            pool.submit(connected, "push", str(random_file), f"/sdcard/{n}") for n in range(3)
        ]
        jobs.append(pool.submit(connected, "shell", "sleep 0.3; echo done"))
        results = [job.result() for job in jobs]
    assert [result.returncode for result in results] == [0] * 4
    assert results[-1].stdout == b"done\n"


def test_stock_adb_shows_an_unknown_key_as_unauthorized(
    adb: Adb, adb_home: Path, tmp_path: Path, other_key: Path
) -> None:
    with VirtualDevice(
        tmp_path / "root", authorized_keys=[other_key.with_suffix(".pub")]
    ) as virtual:
        serial = f"127.0.0.1:{virtual.port}"
        answer = adb("connect", serial)
        assert b"failed to authenticate" in answer.stdout
        assert f"{serial}\tunauthorized".encode() in adb("devices").stdout
        assert b"unauthorized" in adb("-s", serial, "shell", "id").stderr
