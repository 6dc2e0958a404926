"""The build from end to end: what is made from what."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import androidapi
import compiling
import native
import pins
import verifying
from compiling import Sources, Work
from inputs import digest_of
from native import ABIS, Runtime
from packing import pack
from pins import ANDROID_APP, APK
from signing import Signer, sign
from stages import digest_of_files, once, require_tools, run, tool

TARGET = ANDROID_APP / "target" / "apk"
CACHE = ANDROID_APP / "target" / "cache"


def build(
    signer: Signer,
    abis: list[str],
    *,
    aar: Path | None = None,
    suffix: str = "",
    target: Path = TARGET,
    sources: Sources | None = None,
) -> Path:
    """Make an APK, as far as it is not made yet, and verify it.

    Args:
        signer: whose key signs it.
        abis: one ABI, or all for a universal APK.
        aar: an official ExecuTorch AAR instead of the pinned npm package.
        suffix: goes behind the file's name.
        target: where results and intermediate files go.
        sources: the app's parts, if not those of this project.

    Returns:
        Path of the APK; its record is beside it as ``.json``.

    Raises:
        SparseRecError: a tool is missing or fails, an input is not what it should be, or the APK
            fails a check.
    """
    require_tools()
    with _one_at_a_time():
        work = Work(CACHE, target / "work", sources or Sources())
        runtime = native.prepare(aar, CACHE, work.folder)
        harness = compiling.compile_harness(work, runtime)
        resources, r_java, manifest_rules = compiling.link_resources(work)
        app = compiling.compile_app(work, harness, r_java)
        shrunk = compiling.shrink(work, runtime, [app, harness], manifest_rules)
        dex = compiling.dex(work, shrunk)
        name = abis[0] if len(abis) == 1 else "universal"
        unsigned = _pack(work.folder / f"unsigned-{name}.apk", resources, dex, runtime, abis)
        apk = target / f"sparserec-{name}{suffix}.apk"
        signed = work.folder / apk.name
        made_from = {
            "unsigned": digest_of(unsigned),
            "signer": signer.identity,
            "apksigner": run("apksigner", [tool("apksigner"), "--version"]).strip(),
        }
        once(signed, made_from, lambda part: sign(unsigned, part, signer))
        record = _verify(signed, abis, runtime, work)
        # Only what has passed the checks leaves the work folder.
        for checked in (signed, record):
            _publish(checked, target / checked.name)
    return apk


def _publish(checked: Path, published: Path) -> None:
    if not published.exists() or digest_of(published) != digest_of(checked):
        part = published.with_suffix(".part")
        shutil.copyfile(checked, part)
        part.replace(published)


def _pack(made: Path, resources: Path, dex: Path, runtime: Runtime, abis: list[str]) -> Path:
    about = runtime.folder / "runtime.json"
    libraries = [(abi, path) for abi in abis for path in runtime.libraries(abi)]
    ingredients = {
        "files": digest_of_files([resources, dex, about, *(path for _, path in libraries)]),
        "names": [f"{abi}/{path.name}" for abi, path in libraries],
        "code": digest_of(APK / "packing.py"),
    }
    once(made, ingredients, lambda part: pack(part, resources, dex, about, libraries))
    return made


def _verify(apk: Path, abis: list[str], runtime: Runtime, work: Work) -> Path:
    """Check the APK and leave its record beside it; nothing is checked twice."""
    code = [
        APK / f"{name}.py"
        for name in ("access", "androidapi", "classfile", "dexfile", "elf", "verifying")
    ]
    ingredients = {
        "apk": digest_of(apk),
        "abis": abis,
        "lists": pins.identity((pins.PUBLIC_26, pins.PUBLIC_34, pins.ANDROID_26, pins.ANDROID_34)),
        "code": digest_of_files([*code, androidapi.NEWER]),
    }

    def make(part: Path) -> None:
        versions = androidapi.load(work.cache, work.folder)
        record = {
            "schema_version": 1,
            "runtime": runtime.name,
            "abis": abis,
            **verifying.verify(apk, abis, versions),
        }
        part.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    record = apk.with_suffix(".json")
    once(record, ingredients, make)
    return record


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Hold the lock of the cache, which the desktop runtime's build takes too."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


__all__ = ["ABIS", "CACHE", "TARGET", "Sources", "build"]
