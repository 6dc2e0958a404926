"""The finished APK, held against apksigner, aapt2, pyelftools, dexdump and what was published."""

from __future__ import annotations

import io
import re
import shutil
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import dexfile
import inputs
import packing
import pins
import pytest
import verifying
from elftools.elf.elffile import ELFFile

from sparserec import __version__

from .conftest import CACHE, ROOT, Built

PAGE = 16384


def output(*command: object) -> str:
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, errors="replace", check=True
    )
    return done.stdout


def data_offset(apk: Path, entry: zipfile.ZipInfo) -> int:
    """Where an entry's bytes start, by the local header."""
    with apk.open("rb") as file:
        file.seek(entry.header_offset)
        header = struct.unpack("<4s5H3I2H", file.read(30))
    assert header[0] == b"PK\3\4"
    return int(entry.header_offset + 30 + header[-2] + header[-1])


def test_apksigner_accepts_v2_and_v3(built: Built) -> None:
    said = output("apksigner", "verify", "--verbose", "--min-sdk-version", "26", built.apk)
    assert "Verified using v2 scheme (APK Signature Scheme v2): true" in said
    assert "Verified using v3 scheme (APK Signature Scheme v3): true" in said
    assert "Number of signers: 1" in said


def test_badging(built: Built) -> None:
    said = output("aapt2", "dump", "badging", built.apk)
    assert f"package: name='org.sparserec.app' versionCode='1' versionName='{__version__}'" in said
    assert "sdkVersion:'26'" in said
    assert "targetSdkVersion:'34'" in said
    assert "native-code: 'arm64-v8a' 'x86_64'" in said
    assert "launchable-activity: name='org.sparserec.app.MainActivity'" in said
    assert "application-debuggable" not in said
    assert "INTERNET" not in said


def test_libraries_are_stored_aligned_and_as_published(built: Built) -> None:
    with zipfile.ZipFile(built.apk) as apk:
        libraries = [entry for entry in apk.infolist() if entry.filename.endswith(".so")]
        assert len(libraries) == 6
        for entry in libraries:
            assert entry.compress_type == zipfile.ZIP_STORED
            assert data_offset(built.apk, entry) % PAGE == 0, entry.filename
            segments = ELFFile(io.BytesIO(apk.read(entry))).iter_segments("PT_LOAD")
            assert all(segment["p_align"] >= PAGE for segment in segments), entry.filename
        package, fbjni = pins.get(CACHE, inputs.EXECUTORCH, inputs.FBJNI)
        with tarfile.open(package) as tar, zipfile.ZipFile(fbjni) as aar:
            for abi in ("arm64-v8a", "x86_64"):
                published = tar.extractfile(
                    f"package/third-party/android/libs/executorch/{abi}/libexecutorch.so"
                )
                assert published is not None
                assert apk.read(f"lib/{abi}/libexecutorch.so") == published.read()
                for name in ("libfbjni.so", "libc++_shared.so"):
                    assert apk.read(f"lib/{abi}/{name}") == aar.read(f"jni/{abi}/{name}")


def test_resource_table_is_stored_and_aligned(built: Built) -> None:
    """Android 11 and newer refuse to install it otherwise."""
    with zipfile.ZipFile(built.apk) as apk:
        entry = apk.getinfo("resources.arsc")
    assert entry.compress_type == zipfile.ZIP_STORED
    assert data_offset(built.apk, entry) % 4 == 0


def test_every_class_is_read_and_none_needs_what_android_lacks(built: Built) -> None:
    text = output("dexdump", "-d", built.apk)
    dex = dexfile.read(built.apk)
    descriptors = re.findall(r"^  Class descriptor  : 'L(.*);'$", text, re.MULTILINE)
    assert set(descriptors) == set(dex.classes)
    assert len(descriptors) == len(dex.classes) == built.record["dex"]["class_defs"]
    code = re.findall(r"\|[0-9a-f]{4}: (\S+)", text)
    assert len(code) > 10_000
    assert not [name for name in code if re.match(r"invoke-(custom|poly)|const-method", name)]
    assert {"org/sparserec/harness/Run", "org/sparserec/app/HarnessInstrumentation"} <= set(
        descriptors
    )


def test_reader_counts_the_references_that_dexdump_prints(built: Built) -> None:
    text = output("dexdump", "-d", built.apk)
    printed = len(re.findall(r"// (?:method|field|type)@[0-9a-f]{4}$", text, re.MULTILINE))
    caught = len(re.findall(r"^ {10}L\S+; -> 0x", text, re.MULTILINE))
    classes = dexfile.read(built.apk).classes.values()
    assert sum(len(m.references) for c in classes for m in c.methods) == printed + caught


def test_manifest_components_are_in_the_dex(built: Built) -> None:
    tree = output("aapt2", "dump", "xmltree", "--file", "AndroidManifest.xml", built.apk)
    names = re.findall(r"E: (?:activity|service|provider|receiver|instrumentation) .*?"
                       r"android:name\(0x01010003\)=\"([^\"]+)\"", tree, re.DOTALL)  # fmt: skip
    assert len(names) >= 5
    classes = dexfile.read(built.apk).classes
    for name in names:
        full = f"org.sparserec.app{name}" if name.startswith(".") else name
        assert full.replace(".", "/") in classes


def test_the_app_can_tell_its_runtime(built: Built) -> None:
    """As docs/formats.md section 8 wants it in a report."""
    with zipfile.ZipFile(built.apk) as apk:
        text = apk.read("assets/runtime.json").decode()
    assert '"runtime": "react-native-executorch 0.9.3"' in text


def test_no_license_text_is_missing(built: Built) -> None:
    with zipfile.ZipFile(built.apk) as apk:
        notices = apk.read("assets/notices.txt").decode().lower()
    for library in ("executorch", "fbjni", "kotlin", "serialization"):
        assert library in notices


def test_a_changed_byte_is_noticed(built: Built, tmp_path: Path) -> None:
    changed = tmp_path / "changed.apk"
    shutil.copy(built.apk, changed)
    with changed.open("r+b") as file:
        file.seek(built.apk.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    problems: list[str] = []
    verifying.signers(changed, problems)
    assert problems
    assert problems[0].startswith("apksigner: ")


def test_misalignment_and_compression_are_noticed(built: Built, tmp_path: Path) -> None:
    library = zipfile.ZipFile(built.apk).read("lib/x86_64/libfbjni.so")
    bad = tmp_path / "bad.apk"
    with zipfile.ZipFile(bad, "w") as apk:
        apk.writestr("lib/x86_64/liba.so", library)
        apk.writestr("lib/x86_64/libb.so", library, zipfile.ZIP_DEFLATED)
    problems: list[str] = []
    verifying.check_alignment(bad, problems)
    assert "lib/x86_64/libb.so: is compressed" in problems
    assert any(text.startswith("lib/x86_64/liba.so: starts at") for text in problems)


@pytest.mark.parametrize("length", [0, 1, 16383, 16384, 40000])
def test_packing_aligns_libraries_of_any_size(tmp_path: Path, length: int) -> None:
    resources, other = tmp_path / "r.zip", tmp_path / "other"
    with zipfile.ZipFile(resources, "w") as archive:
        archive.writestr("resources.arsc", b"x" * 7)
    other.write_bytes(b"{}")
    files = [tmp_path / f"lib{k}.so" for k in range(2)]
    for path in files:
        path.write_bytes(b"e" * length)
    made = tmp_path / "made.apk"
    packing.pack(made, resources, other, other, [("x86_64", path) for path in files])
    with zipfile.ZipFile(made) as archive:
        assert archive.testzip() is None
        for entry in archive.infolist():
            if entry.filename.endswith(".so"):
                assert data_offset(made, entry) % PAGE == 0
                assert archive.read(entry) == b"e" * length


def test_versions_agree_with_the_maven_builds() -> None:
    poms = [ROOT / "android_app" / "pom.xml", ROOT / "android_app" / "app" / "pom.xml"]
    for pom in poms:
        text = pom.read_text()
        assert f"<kotlin.version>{pins.KOTLIN}</kotlin.version>" in text
        for archive in pins.LIBRARIES[2:]:
            assert f"<version>{archive.version}</version>" in text
    assert f"<android.version>{pins.ANDROID_34.version}</android.version>" in poms[1].read_text()
