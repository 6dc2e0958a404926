"""Installing the app: what is sent, what is refused, and what each refusal says to do."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from device_bench import apk as builds
from device_bench import install as installing
from device_bench.adb import Device, Facts
from device_bench.device_errors import DeviceError
from device_bench.install import install, provide, read, refusal
from device_bench.lock import hold
from device_bench.virtual import VirtualDevice
from sparserec.errors import SparseRecError
from tests.device_bench.virtual.apks import build_apk, certificate

PhoneWith = Callable[..., tuple[Device, VirtualDevice]]
FACTS = Facts("S", "phone", "Pixel", ("x86_64", "arm64-v8a"), 34, "14", 1 << 40)
OURS, OTHERS = certificate("ours"), certificate("others")

pytestmark = pytest.mark.usefixtures("_no_pauses")


@pytest.fixture
def app_file(tmp_path: Path) -> Path:
    path = tmp_path / "sparserec.apk"
    path.write_bytes(build_apk(OURS, padding=300_000))
    return path


def another(tmp_path: Path, signer: bytes = OURS, **values: int) -> Path:
    path = tmp_path / "another.apk"
    path.write_bytes(build_apk(signer, **values))
    return path


def base(phone: VirtualDevice) -> bytes:
    return (phone.device.files.root / "data/app/org.sparserec.app/base.apk").read_bytes()


def left_over(phone: VirtualDevice) -> list[str]:
    folder = phone.device.files.root / installing.FOLDER.lstrip("/")
    return [path.name for path in folder.rglob("*")]


def test_app_is_installed_once(device: Device, virtual: VirtualDevice, app_file: Path) -> None:
    apk = read(app_file)
    assert apk.abis == ("arm64-v8a", "x86_64")
    assert install(device, apk, FACTS)
    assert base(virtual) == app_file.read_bytes()
    assert not install(device, apk, FACTS)
    assert left_over(virtual) == []


def test_what_was_left_by_installations_that_broke_off_goes(
    device: Device, virtual: VirtualDevice, tmp_path: Path, app_file: Path
) -> None:
    apk = read(app_file)
    install(device, apk, FACTS)
    folder = virtual.device.files.root / installing.FOLDER.lstrip("/")
    (folder / f"{apk.sha256[:16]}.apk").write_bytes(app_file.read_bytes())
    assert not install(device, apk, FACTS)  # installed, but the connection was lost before the rm
    assert left_over(virtual) == []
    (folder / "0123456789abcdef.apk.part").write_bytes(b"another build")
    (folder / "mine.txt").write_bytes(b"somebody else's")
    install(device, read(another(tmp_path, version_code=2)), FACTS)
    assert left_over(virtual) == ["mine.txt"]


def test_newer_version_replaces(
    device: Device, virtual: VirtualDevice, tmp_path: Path, app_file: Path
) -> None:
    install(device, read(app_file), FACTS)
    newer = another(tmp_path, version_code=2)
    assert install(device, read(newer), FACTS)
    assert base(virtual) == newer.read_bytes()


@pytest.mark.parametrize(
    ("signer", "version", "message"),
    [(OURS, 1, "a newer version of the app is installed"), (OTHERS, 2, "signed with another key")],
)
def test_downgrade_and_other_signature(
    device: Device,
    virtual: VirtualDevice,
    tmp_path: Path,
    signer: bytes,
    version: int,
    message: str,
) -> None:
    old = another(tmp_path, version_code=2)
    install(device, read(old), FACTS)
    there = base(virtual)
    new = another(tmp_path, signer, version_code=version, padding=5)
    with pytest.raises(DeviceError, match=message) as caught:
        install(device, read(new), FACTS)
    assert "adb uninstall org.sparserec.app" in caught.value.fix
    assert "copy what was trained" in caught.value.fix
    assert base(virtual) == there
    assert left_over(virtual) == []


@pytest.mark.parametrize(
    ("code", "message", "fix"),
    [
        ("INSTALL_FAILED_INSUFFICIENT_STORAGE", "no room", "free space"),
        ("INSTALL_FAILED_NO_MATCHING_ABIS", "no code for", "sparserec apk --abi"),
        ("INSTALL_FAILED_OLDER_SDK", "too old", "Android 8"),
        ("INSTALL_FAILED_USER_RESTRICTED", "does not let adb", "Install via USB"),
        ("INSTALL_FAILED_VERIFICATION_FAILURE", "verification", "Verify apps"),
        ("INSTALL_FAILED_ABORTED", "stopped the installation", "unlock"),
        ("INSTALL_PARSE_FAILED_NOT_APK", "does not take", "build it again"),
        ("INSTALL_FAILED_SOMETHING_NEW", "INSTALL_FAILED_SOMETHING_NEW", "the device's words"),
    ],
)
def test_refusals_of_a_device(
    phone_with: PhoneWith, app_file: Path, code: str, message: str, fix: str
) -> None:
    device, phone = phone_with(install_answer=code)
    with pytest.raises(DeviceError, match=message) as caught:
        install(device, read(app_file), FACTS)
    assert code in caught.value.message
    assert fix in caught.value.fix
    assert left_over(phone) == []


def test_answers_that_are_not_known() -> None:
    killed = refusal("S", "\tpkg: /data/local/tmp/x.apk\nError: java.lang.NullPointerException\n")
    assert "NullPointerException" in killed.message
    assert "nothing" in refusal("S", "").message
    words = refusal("S", "Failure [INSTALL_FAILED_VERSION_DOWNGRADE: Downgrade detected: 1 < 2]")
    assert "Downgrade detected: 1 < 2" in words.message


def test_room_and_abi_are_looked_at_before_anything_is_sent(
    device: Device, virtual: VirtualDevice, app_file: Path
) -> None:
    apk = read(app_file)
    with pytest.raises(DeviceError, match="MiB free, and installing"):
        install(device, apk, replace(FACTS, free_bytes=apk.size))
    arm = replace(apk, abis=("arm64-v8a",))
    with pytest.raises(SparseRecError, match=r"is for arm64-v8a; .* is x86_64") as caught:
        install(device, arm, replace(FACTS, abis=("x86_64",)))
    assert caught.value.fix.endswith("sparserec apk --abi x86_64")
    assert left_over(virtual) == []


def test_connection_that_drops_while_sending(phone_with: PhoneWith, app_file: Path) -> None:
    drop = {"action": "drop", "at_byte": 100_000, "service": "sync:"}
    device, phone = phone_with(wire=[drop])
    assert install(device, read(app_file), FACTS)
    assert base(phone) == app_file.read_bytes()


def test_run_that_goes_on_is_not_ended(
    device: Device, app_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installing.lock, "app_running", lambda _: True)
    with (
        pytest.raises(DeviceError, match="a run is going on"),
        hold(device, "harness", "run 1"),
    ):
        install(device, read(app_file), FACTS)
    assert install(device, read(app_file), FACTS)


def test_lock_of_another_name_does_not_keep_the_app_away(
    device: Device, app_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installing.lock, "app_running", lambda _: True)
    with hold(device, "state-x", "run 1"):
        assert install(device, read(app_file), FACTS)


@pytest.mark.usefixtures("trains_by_hand")
def test_training_by_hand_is_not_ended(device: Device, app_file: Path) -> None:
    with pytest.raises(DeviceError, match="a run is going on"):
        install(device, read(app_file), FACTS)


@pytest.mark.parametrize("damage", ["no zip", "another app", "not there"])
def test_files_that_are_not_the_app(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.apk"
    if damage == "no zip":
        path.write_bytes(b"MZ")
    elif damage == "another app":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("AndroidManifest.xml", b"")
            archive.writestr("lib/x86_64/libgame.so", b"")
    with pytest.raises(SparseRecError, match=r"x\.apk: ") as caught:
        read(path)
    assert "sparserec apk" in caught.value.fix


@pytest.fixture
def phone(device: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Device:
    """The virtual device passing for a phone; nothing is built here."""
    monkeypatch.setattr(device, "facts", lambda: FACTS)
    monkeypatch.setattr(builds, "OUTPUT", tmp_path / "built")
    (tmp_path / "built").mkdir()
    return device


def test_app_that_was_built_is_installed(
    phone: Device, virtual: VirtualDevice, app_file: Path
) -> None:
    said: list[str] = []
    provide(phone, say=said.append)
    assert said == []
    (builds.OUTPUT / "sparserec-universal.apk").write_bytes(app_file.read_bytes())
    provide(phone, say=said.append)
    provide(phone, say=said.append)
    assert said[0].startswith("installed sparserec-universal.apk (arm64-v8a, x86_64)")
    assert said[1] == "sparserec-universal.apk is installed already"
    one = build_apk(OURS, abis=("x86_64",))
    (builds.OUTPUT / "sparserec-x86_64.apk").write_bytes(one)
    provide(phone)
    assert base(virtual) == one


def test_virtual_device_is_given_no_app_unasked(
    device: Device, virtual: VirtualDevice, app_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builds, "built", lambda _: app_file)
    provide(device, build=True)
    assert left_over(virtual) == []
    provide(device, app_file)
    assert base(virtual) == app_file.read_bytes()


def test_app_is_built_if_possible(
    phone: Device,
    virtual: VirtualDevice,
    app: Path,
    app_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    script = tmp_path / "build.py"
    target = builds.OUTPUT / "sparserec-x86_64.apk"
    script.write_text(
        "import shutil, sys\nassert sys.argv[1:] == ['--abi', 'x86_64']\n"
        f"shutil.copy({str(app_file)!r}, {str(target)!r})\n"
    )
    monkeypatch.setattr(builds, "SCRIPT", script)
    provide(phone, build=True)
    assert base(virtual) == app_file.read_bytes()

    script.write_text("import sys; sys.exit(3)")
    said: list[str] = []
    provide(phone, build=True, say=said.append)
    assert "could not be built for x86_64" in said[0]
    assert str(target) in said[0]
    target.unlink()
    provide(phone, build=True, say=said.append)
    assert said[-1].endswith("going on with the app that is installed")
    virtual.device.packages.uninstall("org.sparserec.app")
    app.unlink()
    with pytest.raises(SparseRecError, match="could not be built"):
        provide(phone, build=True)
