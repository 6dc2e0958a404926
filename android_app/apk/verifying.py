"""The finished APK, judged by tools that are not ours: apksigner, aapt2, dexdump."""

from __future__ import annotations

import re
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import access
import androidapi
import dexfile
import elf
from inputs import digest_of
from stages import run, tool

from sparserec.errors import SparseRecError

PACKAGE, MIN_SDK, TARGET_SDK = "org.sparserec.app", 26, 34
REFUSED = ("application-debuggable", "testOnly='", "android.permission.INTERNET")
PAGE, WORD = elf.PAGE, 4


@dataclass(frozen=True)
class Badging:
    """What aapt2 reads from the APK's manifest."""

    package: str
    version: str
    min_sdk: int
    target_sdk: int
    abis: list[str]
    permissions: list[str]


def verify(apk: Path, abis: list[str], versions: androidapi.Versions) -> dict[str, Any]:
    """Check an APK and describe it.

    Args:
        apk: the signed file.
        abis: the ABIs that it must have, all of them and no other.
        versions: of Android, for the references in its code.

    Returns:
        What was found, as it goes into the build's record.

    Raises:
        SparseRecError: a check fails; names all that failed.
    """
    problems: list[str] = []
    signature = signers(apk, problems)
    badging = read_badging(apk, abis, problems)
    libraries = check_alignment(apk, problems)
    dex = dexfile.read(apk)
    newer = check_code(dex, versions, problems)
    if problems:
        shown = "".join(f"\n  {problem}" for problem in problems[:40])
        raise SparseRecError(f"{apk} fails {len(problems)} checks:{shown}")
    return {
        "sha256": digest_of(apk),
        "bytes": apk.stat().st_size,
        "package": vars(badging),
        "signers": signature,
        "libraries": libraries,
        "dex": dex.sizes,
        "newer_api": newer,
    }


def signers(apk: Path, problems: list[str]) -> list[str]:
    """Digests of the signers' certificates, by ``apksigner verify``."""
    command = [
        tool("apksigner"),
        "verify",
        "--verbose",
        "--print-certs",
        "--min-sdk-version",
        MIN_SDK,
    ]
    try:
        said = run("verifying the signature", [*command, apk])
    except SparseRecError as error:
        problems.append(f"apksigner: {error.message}")
        return []
    for scheme in ("v2", "v3"):
        if not re.search(rf"Verified using {scheme} scheme \(.*\): true", said):
            problems.append(f"apksigner: no {scheme} signature")
    return re.findall(r"certificate SHA-256 digest: ([0-9a-f]{64})", said)


def read_badging(apk: Path, abis: list[str], problems: list[str]) -> Badging:
    """``aapt2 dump badging``, compared with what the app must be."""
    said = run("reading the manifest", [tool("aapt2"), "dump", "badging", apk])

    def find(pattern: str) -> str:
        found = re.search(pattern, said, re.MULTILINE)
        return found[1] if found else "0"

    native = re.search(r"^native-code: (.*)", said, re.MULTILINE)
    badging = Badging(
        find(r"^package: name='([^']+)'"),
        find(r"^package: .*versionName='([^']+)'"),
        int(find(r"^sdkVersion:'(\d+)'")),
        int(find(r"^targetSdkVersion:'(\d+)'")),
        re.findall(r"'([^']+)'", native[1]) if native else [],
        re.findall(r"^uses-permission: name='([^']+)'", said, re.MULTILINE),
    )
    wanted = {"package": PACKAGE, "min_sdk": MIN_SDK, "target_sdk": TARGET_SDK}
    for name, value in wanted.items():
        if getattr(badging, name) != value:
            problems.append(f"manifest: {name} is {getattr(badging, name)}, not {value}")
    if sorted(badging.abis) != sorted(abis):
        problems.append(f"native libraries are for {badging.abis}, not {abis}")
    problems += [f"manifest: has {text}" for text in REFUSED if text in said]
    return badging


def check_alignment(apk: Path, problems: list[str]) -> dict[str, int]:
    """Sizes of the native libraries; each must be stored, and aligned in the zip and inside."""
    sizes: dict[str, int] = {}
    with zipfile.ZipFile(apk) as archive, apk.open("rb") as file:
        for entry in archive.infolist():
            name = entry.filename
            library = name.endswith(".so")
            if not library and name != "resources.arsc":
                continue
            file.seek(entry.header_offset + 26)
            lengths = struct.unpack("<HH", file.read(4))
            start = entry.header_offset + 30 + sum(lengths)
            if entry.compress_type != zipfile.ZIP_STORED:
                problems.append(f"{name}: is compressed")
            if start % (PAGE if library else WORD):
                problems.append(f"{name}: starts at {start}, off its alignment")
            if library:
                sizes[name] = entry.file_size
                if elf.Library.parse(archive.read(entry)).alignment < PAGE:
                    problems.append(f"{name}: has segments aligned to less than {PAGE}")
    return sizes


def check_code(dex: dexfile.Dex, versions: androidapi.Versions, problems: list[str]) -> list[str]:
    """The newer API that the code uses behind a comparison with SDK_INT; all else is a problem."""
    for owner in dex.classes.values():
        for method in owner.methods:
            problems += [f"{owner.name}.{method.name}: has {what}" for what in method.dynamic]
    problems += access.problems(dex)
    checker = androidapi.Checker(dex, versions, androidapi.read_newer())
    problems += checker.problems()
    return sorted(checker.used_newer)
