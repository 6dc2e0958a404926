"""Every archive that the APK is made with, pinned by version and hash, and how they are fetched.

Maven fetches what is missing in one run; ``inputs.fetch``, the desktop runtime's, then checks every
file against its hash. Nothing fetched is ever committed.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.sax.saxutils import escape

APK = Path(__file__).resolve().parent
ANDROID_APP = APK.parent
ROOT = ANDROID_APP.parent
# The build is a script that needs no installed package, only Python.
sys.path += [str(ROOT), str(ANDROID_APP / "runtime")]

from inputs import FBJNI, INSTALL, NATIVELOADER, Archive, fetch  # noqa: E402

from sparserec.errors import SparseRecError  # noqa: E402

KOTLIN = "2.1.21"


def _maven(group: str, artifact: str, version: str, sha256: str, kind: str = "jar") -> Archive:
    file = f"{artifact}-{version}.{kind}"
    return Archive(f"{group}:{artifact}", version, file, "sha256", sha256)


KOTLIN_STDLIB = _maven(
    "org.jetbrains.kotlin", "kotlin-stdlib", KOTLIN,
    "263bdc679e1f62012db7b091796279b6d71cf36f4797a98ff1ace05835f201c8")  # fmt: skip
ANNOTATIONS = _maven(
    "org.jetbrains", "annotations", "13.0",
    "ace2a10dc8e2d5fd34925ecac03e4988b2c0f851650c94b8cef49ba1bd111478")  # fmt: skip
# What the app's classes link to, besides Android and ExecuTorch.
LIBRARIES = (
    KOTLIN_STDLIB,
    _maven("org.jetbrains.kotlinx", "kotlinx-serialization-core-jvm", "1.8.1",
           "3565b6d4d789bf70683c45566944287fc1d8dc75c23d98bd87d01059cc76f2b3"),
    _maven("org.jetbrains.kotlinx", "kotlinx-serialization-json-jvm", "1.8.1",
           "8769e5647557e3700919c32d508f5c5dad53c5d8234cd10846354fbcff14aa24"),
)  # fmt: skip
KOTLINC = (
    _maven("org.jetbrains.kotlin", "kotlin-compiler-embeddable", KOTLIN,
           "67a2e3673765f097725608cc7c843b0d8fdd94bd9af41327211361614aa57d49"),
    _maven("org.jetbrains.kotlin", "kotlin-daemon-embeddable", KOTLIN,
           "9401effd82de8606df3289308a275cc1d3573768665ca5edd09dc319c71715f4"),
    _maven("org.jetbrains.kotlin", "kotlin-script-runtime", KOTLIN,
           "d8221f445854f30ac92c248d543609e0ecb5d85bb5ba34c043684b013cb5b897"),
    _maven("org.jetbrains.kotlin", "kotlin-reflect", "1.6.10",
           "3277ac102ae17aad10a55abec75ff5696c8d109790396434b496e75087854203"),
    _maven("org.jetbrains.kotlinx", "kotlinx-coroutines-core-jvm", "1.8.0",
           "9860906a1937490bf5f3b06d2f0e10ef451e65b95b269f22daf68a3d1f5065c5"),
    _maven("org.jetbrains.intellij.deps", "trove4j", "1.0.20200330",
           "c5fd725bffab51846bf3c77db1383c60aaaebfe1b7fe2f00d23fe1b7df0a439d"),
    KOTLIN_STDLIB,
    ANNOTATIONS,
)  # fmt: skip
# In class path order: both of the first two hold proguard.backport.LambdaExpressionCollector, and
# with the second's the conversion of lambdas finds none and says nothing.
PROGUARD = (
    _maven("com.guardsquare", "proguard-base", "7.6.0",
           "521e7600d4b2aa87f2c42e44b10912575eb17d32218261e9051b71bd79bc5b99"),
    _maven("com.guardsquare", "proguard-core", "9.1.6",
           "7d2b314beaf95433969e1be13670acede7126355782167f442cb3e849c574e65"),
    _maven("org.jetbrains.kotlin", "kotlin-metadata-jvm", "2.0.0",
           "ad8f1c7dbc5ac46f5cbd2d2e5de39c56c9db65dd7de716a84e01ce208758aee6"),
    _maven("org.jetbrains.kotlin", "kotlin-stdlib", "2.0.0",
           "240938c4aab8e73e888703e3e7d3f87383ffe5bd536d6d5e3c100d4cd0379fcf"),
    _maven("com.google.code.gson", "gson", "2.9.0",
           "c96d60551331a196dac54b745aa642cd078ef89b6f267146b705f2c2cbef052d"),
    _maven("org.json", "json", "20231013",
           "0f18192df289114e17aa1a0d0a7f8372cc9f5c7e4f7e39adcf8906fe714fa7d3"),
    _maven("org.apache.logging.log4j", "log4j-api", "2.19.0",
           "5ccb24ad9f92e768d0bc456d3061a737951262df803e004d2cad096b75a88d60"),
    _maven("org.apache.logging.log4j", "log4j-core", "2.19.0",
           "b4a1796fab7bfc36df015c1b4052459147997e8d215a7199d71d05f9e747e4f4"),
)  # fmt: skip
DX = _maven("com.jakewharton.android.repackaged", "dalvik-dx", "14.0.0_r21",
            "9b13bc80bf86f193f8de9c959f52a8ff83fc85a1cc552f5126f1140da9b85a36")  # fmt: skip
# Android's own classes and resources, hidden API included. Neither has java.*.
ANDROID_34 = _maven("org.robolectric", "android-all", "14-robolectric-10818077",
                    "6be2218c6a53fe3c57bc22ebdc723edcb7270a8a6f187545708aa5c0ed813977")  # fmt: skip
ANDROID_26 = _maven("org.robolectric", "android-all", "8.0.0_r4-robolectric-r1",
                    "3707dc100381e3bbcc57b85255fd313ae20875fc65cf3130c47e86f044ad77f0")  # fmt: skip
# Lists of the public API, java.* included, made from the SDK's android.jar of that level.
PUBLIC_26 = _maven(
    "net.sf.androidscents.signature", "android-api-level-26", "8.0.0_r2",
    "0a66815b03fc99ab4e3deaaf470deeb3799070e373358db166e91d16be5ddd36", "signature")  # fmt: skip
PUBLIC_34 = _maven(
    "com.toasttab.android", "gummy-bears-api-34", "0.12.0",
    "cc27890a18e18c605474f44d957840627e5303f6fa5a5d175ad6d050c86b2fd9", "signature")  # fmt: skip
ANIMAL_SNIFFER = _maven(
    "org.codehaus.mojo", "animal-sniffer", "1.24",
    "65d028de87134f0955e3a964fe438fc3e99e77b237a77e5e165869a8ff59db5f")  # fmt: skip

MAVEN = (
    *dict.fromkeys((*LIBRARIES, *KOTLINC, *PROGUARD)),
    DX, ANDROID_34, ANDROID_26, PUBLIC_26, PUBLIC_34, ANIMAL_SNIFFER,
    FBJNI, NATIVELOADER,
)  # fmt: skip


def identity(archives: Iterable[Archive]) -> str:
    """The archives' hashes as one string."""
    return " ".join(archive.digest for archive in archives)


def get(cache: Path, *archives: Archive) -> list[Path]:
    """Paths of these archives in ``cache``, each checked against its hash.

    The first call that misses one fetches everything missing from ``MAVEN``, in one run of Maven.

    Raises:
        SparseRecError: the client is missing or fails, or a file is not the one pinned.
    """
    if any(archive in MAVEN and not (cache / archive.file).exists() for archive in archives):
        _fetch_missing(cache)
    return [fetch(archive, cache) for archive in archives]


def _fetch_missing(cache: Path) -> None:
    missing = [archive for archive in MAVEN if not (cache / archive.file).exists()]
    print(f"fetching {len(missing)} archives with mvn", flush=True)
    cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=cache) as folder:
        pom = Path(folder) / "pom.xml"
        pom.write_text(_pom(missing, folder), encoding="utf-8")
        command = ["mvn", "--batch-mode", "--quiet", "--file", str(pom), "dependency:copy"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise SparseRecError(
                "mvn is not installed; it fetches the inputs", INSTALL["mvn"]
            ) from None
        if done.returncode:
            lines = (done.stdout + done.stderr).splitlines() or ["(no output)"]
            reason = next((line for line in lines if "ERROR" in line), lines[0])
            raise SparseRecError(
                f"mvn could not fetch the inputs: {reason}", "check the network, then build again"
            )
        for archive in missing:
            (Path(folder) / archive.file).replace(cache / archive.file)


def _pom(archives: list[Archive], folder: str) -> str:
    items = ""
    for archive in archives:
        group, artifact = archive.name.split(":")
        kind = archive.file.removeprefix(f"{artifact}-{archive.version}.")
        items += (
            f"<artifactItem><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
            f"<version>{archive.version}</version><type>{kind}</type></artifactItem>"
        )
    return (
        "<project><modelVersion>4.0.0</modelVersion><groupId>org.sparserec</groupId>"
        "<artifactId>inputs</artifactId><version>1</version><packaging>pom</packaging><build>"
        "<plugins><plugin><artifactId>maven-dependency-plugin</artifactId><version>3.8.1</version>"
        f"<configuration><outputDirectory>{escape(folder)}</outputDirectory>"
        f"<artifactItems>{items}</artifactItems></configuration></plugin></plugins></build></project>"
    )
