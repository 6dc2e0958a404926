"""The dex of the signed APK, converted back to a jar, runs like the code that it was made from.

Maven's jar is what all other tests of the harness run. Shrinking and dexing come after it: a class
or member that they lost or changed shows here, with the real library, as another table, another
report or another error. The conversion is enjarify's (Debian), which shares no code with dx.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dexfile
import pins
import pytest
from stages import java, run, tool

from tests.android_app.harness.bundles import change_manifest
from tests.android_app.harness.conftest import (
    Ended,
    Harness,
    tiny_bundle,  # noqa: F401  (a fixture)
)

from .conftest import CACHE, WORK, Built

STEPS = 120


@pytest.fixture(scope="module")
def jar(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The APK's ``classes.dex`` as a jar; skips without enjarify."""
    enjarify = shutil.which("enjarify")
    if enjarify is None:
        pytest.skip("enjarify is not installed (Debian: apt-get install enjarify)")
    folder = tmp_path_factory.mktemp("shipped")
    with zipfile.ZipFile(built.apk) as apk:
        dex = apk.extract("classes.dex", folder)
    made = folder / "shipped.jar"
    done = subprocess.run(
        [enjarify, dex, "-o", str(made)],
        # It would take the first python3 on the path; a virtual environment's lacks its modules.
        env={**os.environ, "PYTHON": "/usr/bin/python3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "classes translated successfully, 0 classes had errors" in done.stdout, (
        done.stdout + done.stderr
    )
    return made


def write_launcher(script: Path, jar: Path, libraries: Path) -> Path:
    """What ``bin/harness`` is, with the shipped code alone on the class path."""
    command = shlex.join([tool("java"), f"-Djava.library.path={libraries}", "-cp", str(jar)])
    script.write_text(f'#!/bin/sh\nexec {command} org.sparserec.harness.Main "$@"\n')
    script.chmod(0o755)
    return script


@pytest.fixture(scope="module")
def shipped_launcher(jar: Path, launcher: Path) -> Path:
    return write_launcher(jar.with_name("harness"), jar, launcher.parent.parent / "lib")


@pytest.fixture
def reference(launcher: Path, tiny_bundle: Path, tmp_path: Path) -> Harness:  # noqa: F811
    """The harness as Maven made it."""
    return Harness(launcher, tiny_bundle, tmp_path / "desktop")


@pytest.fixture
def shipped(shipped_launcher: Path, tiny_bundle: Path, tmp_path: Path) -> Harness:  # noqa: F811
    """The harness as it is in the APK."""
    return Harness(shipped_launcher, tiny_bundle, tmp_path / "shipped")


def named(jar: Path) -> set[str]:
    with zipfile.ZipFile(jar) as archive:
        return {n.removesuffix(".class") for n in archive.namelist() if n.endswith(".class")}


def test_the_jar_has_every_class_of_the_dex(built: Built, jar: Path) -> None:
    assert named(jar) == set(dexfile.read(built.apk).classes)


def test_shrinking_took_away_what_is_not_used(jar: Path, launcher: Path) -> None:
    """Else these tests would run the whole of Kotlin, and show nothing."""
    jars = launcher.parent.parent / "jars"
    kotlin = set[str]().union(*(named(path) for path in jars.glob("kotlin*.jar")))
    assert len(kotlin & named(jar)) < 0.4 * len(kotlin)


def test_the_jvm_verifies_every_class(jar: Path, tmp_path: Path) -> None:
    """Also those of the app, which need Android's library."""
    (android,) = pins.get(CACHE, pins.ANDROID_34)
    run("javac", [tool("javac"), "-d", tmp_path, Path(__file__).with_name("Load.java")])
    names = sorted(named(jar))
    done = subprocess.run(
        java([tmp_path, jar, android], "Load"),
        input="\n".join(name.replace("/", ".") for name in names),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) == len(names)


def shape(value: Any) -> Any:
    """The keys of a report, and where it has null; its lists by their length."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return len(value) if isinstance(value, list) else value is None


def states(harness: Harness) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in harness.state.glob("gen-*")}


def test_it_trains_to_the_same_bits(shipped: Harness, reference: Harness) -> None:
    keys = {"run_id": "same", "checkpoint_every": 50}
    ended, expected = shipped.run(**keys), reference.run(**keys)
    assert expected.code == 0, expected.errors
    assert ended.code == 0, ended.errors
    assert ended.report["state"]["table_sha256"] == expected.report["state"]["table_sha256"]
    assert len(ended.report["losses"]) == STEPS
    assert ended.report["correctness"]["verdict"] == "passed"
    for key in ("losses", "quality", "correctness", "state", "bundle", "parameters", "versions"):
        assert ended.report[key] == expected.report[key], key
    assert shape(ended.report) == shape(expected.report)
    assert states(shipped) == states(reference)


@pytest.mark.parametrize("first", ["shipped", "desktop"])
def test_each_goes_on_from_the_others_checkpoint(
    first: str, shipped: Harness, reference: Harness
) -> None:
    one, other = (shipped, reference) if first == "shipped" else (reference, shipped)
    assert one.run(evaluate="false", steps=45).code == 0
    shutil.copytree(one.state, other.state)
    resumed = other.run(evaluate="false")
    assert resumed.report["resumed_from_step"] == 45
    at_once = one.run(evaluate="false", fresh="true")
    assert at_once.report["resumed_from_step"] is None
    assert resumed.report["state"] == at_once.report["state"]


def timeless(error: str) -> str:
    """Without the clock that the library's own log lines start with."""
    return re.sub(r"\[\d+ ", "[", error)


def _replace_program(bundle: Path) -> None:
    (bundle / "step.pte").write_bytes(b"not a program" * 100)
    change_manifest(bundle, lambda manifest: None)


def _need_an_operator(bundle: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["programs"]["score"]["methods"]["score"]["operators"].append("aten::sort.values")

    change_manifest(bundle, change)


def _cut_manifest(bundle: Path) -> None:
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text()[:-20])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_replace_program, "InvalidArgument (0x12)"),  # an exception that the library throws
        (_need_an_operator, "aten::sort.values"),
        (_cut_manifest, "manifest.json"),
        (lambda bundle: (bundle / "score.pte").unlink(), "score.pte"),
    ],
)
def test_it_says_the_same_of_a_damaged_bundle(
    shipped: Harness,
    reference: Harness,
    tiny_bundle: Path,  # noqa: F811
    tmp_path: Path,
    damage: Callable[[Path], object],
    message: str,
) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    damage(bundle)

    def end(harness: Harness) -> Ended:
        return Harness(harness.launcher, bundle, harness.folder).run()

    ended, expected = end(shipped), end(reference)
    assert (ended.code, expected.code) == (1, 1)
    assert message in ended.value("error")
    assert ended.value("error") == ended.report["error"]
    assert timeless(ended.value("error")) == timeless(expected.value("error"))
    assert ended.report["phase"] == expected.report["phase"]


def test_libraries_of_another_abi_are_an_error_of_the_run(
    jar: Path,
    tiny_bundle: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    """The process lives to tell, and so does the report; nothing is trained or written over."""
    script = write_launcher(tmp_path / "harness", jar, WORK / "runtime" / "lib" / "arm64-v8a")
    harness = Harness(script, tiny_bundle, tmp_path)
    ended = harness.run()
    assert ended.code == 1
    assert "the ExecuTorch library cannot be loaded (java.lang.UnsatisfiedLinkError" in (
        ended.value("error")
    )
    assert "on a phone, install the APK of its ABI" in ended.value("error")
    assert ended.report["error"] == ended.value("error")
    assert ended.report["exit_status"] == "failed"
    assert states(harness) == {}


def test_what_it_prints_is_the_same(shipped: Harness, reference: Harness) -> None:
    """All but the paths and how often training told its progress."""

    def told(ended: Ended) -> list[str]:
        lines = [line for line in ended.lines if "phase=" in line or "RESULT" in line]
        return [line for line in dict.fromkeys(lines) if "report=" not in line]

    lines = told(shipped.run(steps=20))
    assert lines == told(reference.run(steps=20))
    assert lines[-1] == "INSTRUMENTATION_RESULT: exit_status=succeeded"
    assert json.loads(shipped.report_path.read_text())["exit_status"] == "succeeded"
