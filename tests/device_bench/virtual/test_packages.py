"""Installing: what an APK says is read from it, and Android's rules and words hold."""

from __future__ import annotations

import shutil
from io import BytesIO
from pathlib import Path

import pytest

from device_bench.virtual import VirtualDevice
from device_bench.virtual.packages import InstallError, read_apk
from device_bench.virtual.shell import Shell, Streams
from device_bench.virtual.streams import Hangup
from tests.device_bench.virtual.apks import build_apk, certificate

ONE, TWO = certificate("one"), certificate("two")
BUILT = Path("android_app/target/apk/sparserec-universal.apk")


def run(virtual: VirtualDevice, line: str, stdin: bytes = b"") -> tuple[int, str]:
    output = BytesIO()
    code = Shell(virtual.device, Hangup()).run(line, Streams(BytesIO(stdin), output, output))
    return code, output.getvalue().decode()


def install(virtual: VirtualDevice, apk: bytes, options: str = "-r") -> str:
    (virtual.device.files.root / "data/local/tmp/a.apk").write_bytes(apk)
    return run(virtual, f"pm install {options} /data/local/tmp/a.apk")[1]


@pytest.fixture
def pc(tmp_path: Path, launcher: Path) -> VirtualDevice:
    """A device that is not started; its shell needs no server."""
    spec = {"properties": {"ro.product.cpu.abilist": "x86_64"}}
    return VirtualDevice(tmp_path / "root", harness=launcher, faults=spec)


def test_an_app_is_installed_updated_and_removed(pc: VirtualDevice) -> None:
    first, second = build_apk(ONE, version_code=1), build_apk(ONE, version_code=2)
    assert install(pc, first) == "Success\n"
    assert install(pc, second) == "Success\n"
    kept = pc.device.files.root / "data/app/org.sparserec.app/base.apk"
    assert kept.read_bytes() == second
    assert "versionCode=2" in run(pc, "dumpsys package org.sparserec.app")[1]
    assert "INSTALL_FAILED_VERSION_DOWNGRADE" in install(pc, first)
    assert kept.read_bytes() == second
    assert install(pc, first, "-r -d") == "Success\n"
    media = pc.device.files.root / "sdcard/Android/media/org.sparserec.app"
    assert run(pc, "pm uninstall org.sparserec.app") == (0, "Success\n")
    assert not kept.exists()
    assert not media.exists()
    assert "DELETE_FAILED" in run(pc, "cmd package uninstall org.sparserec.app")[1]


def test_other_packages_are_listed_beside_the_own(pc: VirtualDevice) -> None:
    assert install(pc, build_apk(ONE, package="org.example")) == "Success\n"
    assert run(pc, "pm list packages")[1] == "package:org.example\npackage:org.sparserec.app\n"
    assert run(pc, "pm path org.example")[1] == "package:/data/app/org.example/base.apk\n"


@pytest.mark.parametrize(
    ("apk", "answer"),
    [
        (build_apk(TWO, version_code=9), "INSTALL_FAILED_UPDATE_INCOMPATIBLE"),
        (build_apk(ONE, abis=("arm64-v8a",)), "INSTALL_FAILED_NO_MATCHING_ABIS"),
        (build_apk(ONE, min_sdk=99), "INSTALL_FAILED_OLDER_SDK"),
        (build_apk(None), "INSTALL_PARSE_FAILED_NO_CERTIFICATES"),
        (b"no APK", "INSTALL_PARSE_FAILED_NOT_APK"),
    ],
)
def test_refusals_in_androids_words(pc: VirtualDevice, apk: bytes, answer: str) -> None:
    assert install(pc, build_apk(ONE)) == "Success\n"
    assert install(pc, apk).startswith(f"Failure [{answer}")


def test_no_room(tmp_path: Path, launcher: Path) -> None:
    apk = build_apk(ONE, padding=50_000)
    faults = {"storage": {"bytes": len(apk) * 3 // 2}}
    small = VirtualDevice(tmp_path / "root", harness=launcher, faults=faults)
    assert install(small, apk).startswith("Failure [INSTALL_FAILED_INSUFFICIENT_STORAGE")
    code, said = run(small, f"cmd package install -S {len(apk)}", apk)
    assert (code, said.startswith("Failure [INSTALL_FAILED_INSUFFICIENT_STORAGE")) == (1, True)


def test_a_streamed_installation(pc: VirtualDevice) -> None:
    apk = build_apk(ONE)
    assert run(pc, f"cmd package install -S {len(apk)}", apk)[1] == "Success\n"
    assert "ended early" in run(pc, f"cmd package install -S {len(apk)}", apk[:-1])[1]


@pytest.mark.skipif(not BUILT.exists(), reason="the app is not built: make apk")
def test_the_built_app_is_read(tmp_path: Path) -> None:
    path = Path(shutil.copy(BUILT, tmp_path))
    found = read_apk(path)
    assert (found.package, found.min_sdk) == ("org.sparserec.app", 26)
    assert found.abis == {"arm64-v8a", "x86_64"}
    assert len(found.signers) == 1


def test_an_unreadable_apk_is_an_install_error(tmp_path: Path) -> None:
    path = tmp_path / "broken.apk"
    path.write_bytes(build_apk(ONE)[:-30])
    with pytest.raises(InstallError, match="NOT_APK"):
        read_apk(path)
