"""Twice the same, nothing twice, the desktop's classes, and the shrunk code on a JVM."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import androidapi
import compiling
import pins
import pytest
import recipe
import signing
from stages import java, once, run, tool

from sparserec.errors import SparseRecError
from tests.android_app.harness.bundles import (
    Tiny,
    write_data,
    write_golden,
    write_manifest,
    write_programs,
)
from tests.android_app.harness.reference import Reference

from .conftest import CACHE, ROOT, WORK, Built, build, command_line


@pytest.fixture(scope="module")
def again(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same APK built from nothing, elsewhere."""
    target = tmp_path_factory.mktemp("again")
    return recipe.build(signing.debug_signer(), list(recipe.ABIS), target=target)


def test_two_builds_have_the_same_entries(built: Built, again: Path) -> None:
    """Each entry and its place, so all but the signature block."""
    with zipfile.ZipFile(built.apk) as first, zipfile.ZipFile(again) as second:
        assert [(e.filename, e.header_offset, e.compress_size) for e in first.infolist()] == [
            (e.filename, e.header_offset, e.compress_size) for e in second.infolist()
        ]
        for entry in first.infolist():
            content = first.read(entry)
            assert (
                hashlib.sha256(content).digest()
                == hashlib.sha256(second.read(entry.filename)).digest()
            ), entry.filename
    unsigned = "unsigned-universal.apk"
    assert (WORK / unsigned).read_bytes() == (again.parent / "work" / unsigned).read_bytes()


def test_nothing_is_made_twice(built: Built) -> None:
    times = {path: path.stat().st_mtime_ns for path in recipe.TARGET.rglob("*")}
    done = command_line()
    assert done.returncode == 0, done.stderr
    assert "making" not in done.stdout
    assert times == {path: path.stat().st_mtime_ns for path in recipe.TARGET.rglob("*")}


def test_one_abi_reuses_all_but_the_zip(built: Built) -> None:
    (recipe.TARGET / "sparserec-arm64-v8a.apk").unlink(missing_ok=True)
    build("--abi", "arm64-v8a")
    apk = recipe.TARGET / "sparserec-arm64-v8a.apk"
    with zipfile.ZipFile(apk) as split, zipfile.ZipFile(built.apk) as whole:
        names = {name for name in whole.namelist() if not name.startswith("lib/x86_64/")}
        assert set(split.namelist()) == names
        assert split.read("classes.dex") == whole.read("classes.dex")
    assert json.loads(apk.with_suffix(".json").read_text())["package"]["abis"] == ["arm64-v8a"]


@pytest.mark.usefixtures("launcher")  # which makes the jar
def test_the_harness_is_the_desktops(built: Built, desktop: Path) -> None:
    """Compiled apart, by the options of the same pom.xml: the same bytes.

    Maven's jar may hold more: its incremental compiler leaves classes that nothing uses any more.
    """
    folder = WORK / "harness"
    made = {str(path.relative_to(folder)): path for path in folder.rglob("*.class")}
    assert len(made) > 50
    with zipfile.ZipFile(desktop / "jars" / "harness.jar") as jar:
        assert set(made) <= set(jar.namelist())
        assert [name for name, path in made.items() if path.read_bytes() != jar.read(name)] == []


def test_the_shrunk_code_trains_on_a_jvm(built: Built, desktop: Path, tmp_path: Path) -> None:
    """Alone on the class path, with the real library; losses are an independent computation's."""
    tiny, bundle = Tiny(), tmp_path / "bundle"
    bundle.mkdir()
    programs = write_programs(bundle, tiny)
    write_data(bundle, tiny, seed=3)
    write_golden(bundle, tiny, [0.0])
    write_manifest(bundle, tiny, programs)
    reference = Reference(bundle)
    reference.run(30)
    write_golden(bundle, tiny, reference.losses)
    write_manifest(bundle, tiny, programs)
    values = {"bundle": bundle, "state": tmp_path / "state", "out": tmp_path / "out", "steps": 30}
    keys = [str(part) for pair in values.items() for part in pair]
    options = [f"-Djava.library.path={desktop / 'lib'}", "-cp", str(WORK / "shrunk.jar")]
    done = subprocess.run(
        [tool("java"), *options, "org.sparserec.harness.Main", *keys],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["exit_status"] == "succeeded"
    assert report["correctness"]["verdict"] == "passed"
    assert report["correctness"]["steps"] == 30
    assert report["quality"]["after"]["users"] > 0


def test_the_jvm_verifies_every_shrunk_class(built: Built, tmp_path: Path) -> None:
    """The converted lambdas and default methods are sound code; Android's library is in reach."""
    (android,) = pins.get(CACHE, pins.ANDROID_34)
    with zipfile.ZipFile(WORK / "shrunk.jar") as jar:
        names = [n[:-6].replace("/", ".") for n in jar.namelist() if n.endswith(".class")]
    source = Path(__file__).with_name("Load.java")
    run("javac", [tool("javac"), "-Xlint:all", "-Werror", "-d", tmp_path, source])
    done = subprocess.run(
        java([tmp_path, WORK / "shrunk.jar", android], "Load"),
        input="\n".join(names),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) == len(names) > 500


def test_a_result_changed_by_hand_is_made_again(tmp_path: Path) -> None:
    made, calls = tmp_path / "made.txt", []

    def make(part: Path) -> None:
        calls.append(part)
        part.write_text("whole")

    assert once(made, {"from": 1}, make)
    assert not once(made, {"from": 1}, make)
    assert once(made, {"from": 2}, make)
    made.write_text("changed")
    assert once(made, {"from": 2}, make)
    assert len(calls) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [".made.txt.made-from", "made.txt"]


def test_a_failed_step_spoils_nothing(tmp_path: Path) -> None:
    """What was there stays good for what it was made from, and for nothing else."""
    made = tmp_path / "made"

    def make(part: Path) -> None:
        part.mkdir()
        (part / "file").write_text("whole")

    def fail(part: Path) -> None:
        make(part)
        raise RuntimeError

    assert once(made, {}, make)
    with pytest.raises(RuntimeError):
        once(made, {"new": True}, fail)
    assert not once(made, {}, make)
    assert (made / "file").read_text() == "whole"
    assert once(made, {"new": True}, make)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".made.made-from", "made"]


def test_what_fails_the_checks_is_not_published(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(androidapi, "read_newer", dict)
    shutil.copytree(WORK, tmp_path / "work", ignore=shutil.ignore_patterns("*sparserec-*"))
    with pytest.raises(SparseRecError, match="newer than Android 8; if that is meant, add"):
        recipe.build(signing.debug_signer(), list(recipe.ABIS), target=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


def test_options_are_those_of_the_pom() -> None:
    options = compiling.kotlin_options(ROOT / "android_app" / "pom.xml")
    assert options[:2] == ["-jvm-target", "1.8"]
    assert {"-Xjdk-release=8", "-Xlambdas=class", "-Xsam-conversions=class"} <= set(options)


def test_missing_tools_are_named_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    done = command_line()
    assert done.returncode == 2
    assert "not installed: java, javac, keytool, mvn, npm, aapt2, apksigner, dexdump" in done.stderr
    assert "apt install aapt" in done.stderr
    assert "Traceback" not in done.stderr
