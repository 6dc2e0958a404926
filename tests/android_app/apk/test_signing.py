"""Debug and release keys: where they are, who can read them, and what the tools are told."""

from __future__ import annotations

import getpass
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import recipe
import signing
import verifying
from stages import run, tool

from sparserec.errors import SparseRecError

from .conftest import WORK, Built, command_line

SECRET = "correct horse"


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (signing.KEYSTORE, signing.PASSWORD, signing.ALIAS, signing.KEY_PASSWORD):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def keystore(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release keystore, made as a user makes one."""
    path = tmp_path_factory.mktemp("keys") / "release.keystore"
    command = [
        tool("keytool"), "-genkeypair", "-keystore", path, "-alias", "mine", "-keyalg", "RSA",
        "-keysize", "2048", "-dname", "CN=test", "-storepass:env", "STOREPASS",
    ]  # fmt: skip
    run("keytool", command, {"STOREPASS": SECRET})
    return path


def fingerprint(keystore: Path, password: str) -> str:
    """The certificate's SHA-256, by keytool."""
    command = [tool("keytool"), "-list", "-v", "-keystore", keystore, "-storepass:env", "STOREPASS"]
    said = run("keytool", command, {"STOREPASS": password})
    (line,) = [line for line in said.splitlines() if "SHA256:" in line]
    return line.split("SHA256:")[1].strip().replace(":", "").lower()


def test_debug_key_is_made_once_and_private(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    first = signing.debug_signer()
    assert first.keystore == tmp_path / "sparserec" / "apk-debug.keystore"
    assert stat.S_IMODE(first.keystore.stat().st_mode) == 0o600
    assert stat.S_IMODE(first.keystore.parent.stat().st_mode) == 0o700
    content = first.keystore.read_bytes()
    assert signing.debug_signer() == first
    assert first.keystore.read_bytes() == content
    assert [path.name for path in first.keystore.parent.iterdir()] == ["apk-debug.keystore"]


def test_state_folder_that_cannot_be_written(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(SparseRecError, match="cannot be written"):
        signing.debug_signer()


def test_debug_apk_is_signed_by_the_debug_key(built: Built) -> None:
    signer = signing.debug_signer()
    expected = fingerprint(signer.keystore, signing.DEBUG_PASSWORD)
    assert built.record["signers"] == [expected]


def test_release_by_environment(
    built: Built, keystore: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """End to end on one ABI; every program that is started leaves its arguments in a file."""
    log, tools = tmp_path / "log", tmp_path / "tools"
    tools.mkdir()
    for name in ("apksigner", "keytool", "aapt2"):
        real, wrapper = shutil.which(name), tools / name
        wrapper.write_text(f'#!/bin/sh\necho "{name} $@" >> {log}\nexec {real} "$@"\n')
        wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv(signing.KEYSTORE, str(keystore))
    monkeypatch.setenv(signing.PASSWORD, SECRET)
    target = tmp_path / "apk"
    shutil.copytree(WORK, target / "work")
    apk = recipe.build(signing.release_signer(), ["x86_64"], suffix="-release", target=target)
    assert apk.name == "sparserec-x86_64-release.apk"
    problems: list[str] = []
    assert verifying.signers(apk, problems) == [fingerprint(keystore, SECRET)]
    assert problems == []
    said = log.read_text()
    assert f"--ks {keystore}" in said
    assert SECRET not in said
    assert not [path for path in target.rglob("*.json") if SECRET in path.read_text()]


def test_wrong_password(built: Built, keystore: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(signing.KEYSTORE, str(keystore))
    monkeypatch.setenv(signing.PASSWORD, "wrong")
    signer = signing.release_signer()
    unsigned = WORK / "resources" / "resources.apk"
    with pytest.raises(SparseRecError, match=r"signing with .*release\.keystore: apksigner failed"):
        signing.sign(unsigned, keystore.with_name("out.apk"), signer)


def test_password_is_asked_for_at_a_terminal(
    keystore: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setenv(signing.KEYSTORE, str(keystore))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(getpass, "getpass", lambda prompt: asked.append(prompt) or SECRET)
    signer = signing.release_signer()
    assert (signer.password, signer.key_password) == (SECRET, SECRET)
    assert asked == [f"Password of {keystore}: "]
    assert SECRET not in repr(signer)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "SPARSEREC_KEYSTORE is not set"),
        ({signing.KEYSTORE: "/nowhere/my.keystore"}, "/nowhere/my.keystore: no such file"),
        ({signing.KEYSTORE: __file__}, "SPARSEREC_KEYSTORE_PASSWORD is not set"),
    ],
)
def test_what_a_release_lacks(environment: dict[str, str], said: str) -> None:
    """Without a terminal nobody can be asked."""
    script = Path(recipe.__file__).with_name("build.py")
    done = subprocess.run(
        [sys.executable, str(script), "--release"],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_no_password_on_the_command_line() -> None:
    done = command_line("--release", "--password", SECRET)
    assert done.returncode == 2
    assert "unrecognized arguments" in done.stderr
