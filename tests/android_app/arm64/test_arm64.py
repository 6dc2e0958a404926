"""The machine code that an arm64 phone runs trains as the x86_64 code and the reference do."""

from __future__ import annotations

import hashlib
import re
import signal
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.android_app.harness.conftest import GOLDEN_STEPS, Ended, Harness
from tests.android_app.harness.reference import Reference, unpack

from .conftest import TARGET, Run

STEPS = GOLDEN_STEPS  # six windows, so six exchanges
TABLE = f"gen-{STEPS:010}.safetensors"
DIM = 16


@pytest.fixture(scope="module")
def on_arm64(
    arm64_launcher: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Harness, Ended]:
    """A run, with the dynamic linker's record of what was bound to what in ``errors``."""
    harness = Harness(arm64_launcher, tiny_bundle, tmp_path_factory.mktemp("arm64"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_DEBUG", "bindings")
        return harness, harness.run(steps=STEPS)


@pytest.fixture(scope="module")
def on_x86_64(
    launcher: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Harness, Ended]:
    harness = Harness(launcher, tiny_bundle, tmp_path_factory.mktemp("x86_64"))
    return harness, harness.run(steps=STEPS)


@pytest.fixture(scope="module")
def reference(tiny_bundle: Path) -> Reference:
    made = Reference(tiny_bundle)
    made.run(STEPS)
    return made


def test_the_library_is_the_published_arm64_one(
    arm64: Path, on_arm64: tuple[Harness, Ended]
) -> None:
    with tarfile.open(TARGET / "cache" / "react-native-executorch-0.9.3.tgz") as tar:
        name = "package/third-party/android/libs/executorch/arm64-v8a/libexecutorch.so"
        shipped = {"libexecutorch.so": tar.extractfile(name).read()}
    with zipfile.ZipFile(TARGET / "cache" / "fbjni-0.7.0.aar") as aar:
        for name in ("libfbjni.so", "libc++_shared.so"):
            shipped[name] = aar.read(f"jni/arm64-v8a/{name}")
    for name, content in shipped.items():
        assert (arm64 / "lib" / "android" / name).read_bytes() == content
    _, ended = on_arm64
    assert ended.report["target"]["abi"] == "arm64-v8a"
    expected = hashlib.sha256(shipped["libexecutorch.so"]).hexdigest()
    assert ended.report["versions"]["runtime_sha256"] == expected


def test_losses_equal_the_hosts_and_x86_64s(
    on_arm64: tuple[Harness, Ended], on_x86_64: tuple[Harness, Ended], reference: Reference
) -> None:
    (_, ended), (_, other) = on_arm64, on_x86_64
    assert (ended.code, other.code) == (0, 0), ended.errors[-2000:] + other.errors
    losses = ended.report["losses"]
    assert len(losses) == STEPS
    np.testing.assert_allclose(losses, reference.losses, atol=1e-4, rtol=0)
    np.testing.assert_allclose(losses, other.report["losses"], atol=1e-4, rtol=0)
    correctness = ended.report["correctness"]
    assert (correctness["verdict"], correctness["steps"]) == ("passed", STEPS)


def test_table_equals_the_hosts_and_x86_64s(
    on_arm64: tuple[Harness, Ended],
    on_x86_64: tuple[Harness, Ended],
    reference: Reference,
    tiny_bundle: Path,
) -> None:
    (harness, ended), (other, _) = on_arm64, on_x86_64
    assert ended.report["metrics"]["exchange_ns"]["count"] == STEPS // 10
    values, mask = unpack(harness.state / TABLE, DIM)
    other_values, other_mask = unpack(other.state / TABLE, DIM)
    values_before, mask_before = unpack(tiny_bundle / "table.safetensors", DIM)
    assert (mask != mask_before).sum() > 50  # the exchanges did something
    assert np.abs(values - values_before).max() > 0.1  # and so did training
    np.testing.assert_array_equal(mask, reference.mask)
    np.testing.assert_array_equal(mask, other_mask)
    np.testing.assert_allclose(values, reference.table, atol=1e-4, rtol=0)
    np.testing.assert_allclose(values, other_values, atol=1e-4, rtol=0)


def test_quality_equals_x86_64s(
    on_arm64: tuple[Harness, Ended], on_x86_64: tuple[Harness, Ended]
) -> None:
    (_, ended), (_, other) = on_arm64, on_x86_64
    for when in ("before", "after"):
        expected = other.report["quality"][when]
        assert ended.report["quality"][when] == pytest.approx(expected, abs=1e-9)


def test_android_libraries_bind_to_the_stand_in_only(
    arm64: Path, on_arm64: tuple[Harness, Ended]
) -> None:
    _, ended = on_arm64
    pattern = re.compile(r"binding file \S+/lib/android/(\S+) \[0\] to (\S+) \[0\]")
    bindings = pattern.findall(ended.errors)
    libraries = {"libexecutorch_jni.so", "libfbjni.so", "libc++_shared.so"}
    shipped = [(user, provider) for user, provider in bindings if user in libraries]
    assert {user for user, _ in shipped} == libraries
    assert len(shipped) > 10_000
    assert {Path(provider).parent for _, provider in shipped} == {arm64 / "lib" / "android"}


def test_what_differs_on_arm64_is_translated(emulated: Run, arm64: Path) -> None:
    done = emulated("stand_in.c", arm64 / "lib" / "android" / "libc.so")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "guard 1\nmutex 1\nstatic mutex 1\nlong double 1\n"


def test_long_double_is_binary128(emulated: Run, arm64: Path) -> None:
    done = emulated("../runtime/long_double.c", arm64 / "lib" / "android" / "libc.so")
    assert done.stdout == "1 -99 1 1\n", done.stderr


def test_a_refused_function_names_itself(emulated: Run, arm64: Path) -> None:
    done = emulated("stand_in.c", arm64 / "lib" / "android" / "libc.so", "refused")
    assert done.returncode == -signal.SIGABRT
    assert "swprintf() was called" in done.stderr


def test_the_stack_guard_refuses_to_come_late(emulated: Run, arm64: Path) -> None:
    done = emulated("stand_in.c", arm64 / "lib" / "libstack_guard.so", guard=False)
    assert done.returncode == -signal.SIGABRT
    assert "preload this library" in done.stderr
