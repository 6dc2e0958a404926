"""Build the desktop runtime: Android's ExecuTorch library in an ordinary JVM on Linux.

    python android_app/runtime/build.py            build what is missing or out of date
    python android_app/runtime/build.py --check    build nothing; say whether all is in place
    python android_app/runtime/build.py --abi arm64-v8a    what a test runs under qemu

The result is ``android_app/target/desktop`` (``desktop-arm64``); docs/desktop-runtime.md explains
what is in it and why it works.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import inputs
import symbols

from sparserec.errors import SparseRecError

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "target"
DESKTOP = TARGET / "desktop"
CACHE = TARGET / "cache"
DESKTOP_ARM64 = TARGET / "desktop-arm64"
MANIFEST = "runtime.json"
COMPILERS = {  # ABI -> command, Debian packages
    "x86_64": ("cc", "gcc libc6-dev"),
    "arm64-v8a": ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"),
}
LAUNCHERS = ("java-with-executorch", "harness")
LOADED_BY_JAVA = ("executorch", "fbjni")
C_FLAGS = ["-std=c11", "-O2", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]
EMULATOR = (
    "use a phone, or the Android emulator (it is reached by adb like a phone); the desktop runtime "
    "needs Linux with glibc on x86_64"
)


def require_host() -> None:
    """Raise SparseRecError unless this is Linux with glibc on x86_64."""
    system, machine = platform.system(), platform.machine()
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION") if system == "Linux" else None
    except (ValueError, OSError):
        libc = None
    if system != "Linux" or machine != "x86_64":
        raise SparseRecError(f"the desktop runtime cannot run on {system} {machine}", EMULATOR)
    if not libc:
        raise SparseRecError(
            "this Linux has no glibc (musl?): the desktop runtime needs it", EMULATOR
        )


def require_jdk() -> Path:
    """Home of the JDK that JAVA_HOME or the PATH names; SparseRecError unless it is 17 or newer."""
    fix = "install JDK 17 (Debian: apt-get install openjdk-17-jdk-headless) or set JAVA_HOME to it"
    javac = shutil.which("javac", path=_java_path())
    if javac is None:
        raise SparseRecError("javac is not installed (a JRE is not enough: jni.h is needed)", fix)
    home = Path(javac).resolve().parent.parent
    release = home / "release"
    text = release.read_text(encoding="utf-8") if release.exists() else ""
    found = re.search(r'JAVA_VERSION="(\d+)', text)
    if found is None or int(found[1]) < 17 or not (home / "include" / "jni.h").exists():
        version = found[1] if found else "an unknown version"
        raise SparseRecError(f"{home} is no JDK 17 or newer with include/jni.h ({version})", fix)
    return home


def _java_path() -> str | None:
    home = os.environ.get("JAVA_HOME")
    return str(Path(home) / "bin") if home else None


def require_compiler(abi: str) -> str:
    """Path of the C compiler for an ABI."""
    command, packages = COMPILERS[abi]
    compiler = shutil.which(command)
    if compiler is None:
        raise SparseRecError(
            f"{command} is not installed; it compiles the stand-in for Android's libc",
            f"install a C compiler (Debian: apt-get install {packages})",
        )
    return compiler


def recipe() -> str:
    """Hash of all that the result is made from, except the tools."""
    sources = [HERE / name for name in (*LAUNCHERS, "symbols.tsv")]
    sources += sorted([*HERE.glob("*.c"), *HERE.glob("*.py")])
    text = "".join(f"{path.name} {inputs.digest_of(path)}\n" for path in sources)
    return hashlib.sha256(text.encode()).hexdigest()


def problem(desktop: Path) -> str | None:
    """Why the built directory cannot be used as it is, or None."""
    if not (desktop / MANIFEST).exists():
        return f"{desktop} is not built"
    manifest = json.loads((desktop / MANIFEST).read_text(encoding="utf-8"))
    if manifest["recipe_sha256"] != recipe():
        return f"{desktop} was built from an earlier version of {HERE}"
    for name, expected in manifest["files"].items():
        path = desktop / name
        if not path.exists():
            return f"{path} is missing"
        if inputs.digest_of(path) != expected:
            return f"{path} was changed after it was built"
    return None


def build(abi: str, desktop: Path) -> None:
    """Build the directory ``desktop`` for an ABI.

    Raises:
        SparseRecError: the host or a tool will not do, an archive cannot be had, or the libraries
            and the symbol table disagree.
    """
    compiler, jdk = require_compiler(abi), require_jdk()
    members = inputs.unpack(CACHE, abi)
    with tempfile.TemporaryDirectory(dir=TARGET) as folder:
        stage = Path(folder)
        android, jars = stage / "lib" / "android", stage / "jars"
        android.mkdir(parents=True)
        jars.mkdir()
        for name, content in members.items():
            ((jars if name.endswith(".jar") else android) / name).write_bytes(content)
        libraries = {path.name: symbols.read_library(path, abi) for path in android.iterdir()}
        link(compiler, jdk, stage, libraries, abi)
        if abi == "x86_64":  # the host's java cannot run the other
            (stage / "bin").mkdir()
            for name in LAUNCHERS:
                shutil.copy(HERE / name, stage / "bin" / name)
        manifest = describe(stage, jdk, compiler, abi)
        _install(stage, desktop)
    part = desktop / f"{MANIFEST}.part"
    part.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    part.replace(desktop / MANIFEST)


def link(
    compiler: str, jdk: Path, stage: Path, libraries: dict[str, symbols.Library], abi: str
) -> None:
    """Compile and link what goes round the shipped libraries in ``stage/lib/android``."""
    table = symbols.read_table(abi=abi)
    symbols.account(table, symbols.wanted_from_system(libraries.values()))
    lib, android, work = stage / "lib", stage / "lib" / "android", stage / "work"
    work.mkdir()
    (work / "trampolines.s").write_text(symbols.assembly(table, abi), encoding="utf-8")
    (work / "libc.map").write_text(symbols.version_script(table), encoding="utf-8")

    def run(*arguments: str | Path) -> None:
        command = [compiler, *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise SparseRecError(f"{' '.join(command)} failed:\n{result.stderr.strip()}")

    run(*C_FLAGS, "-shared", "-o", android / "libc.so", HERE / "shim.c", work / "trampolines.s",
        "-Wl,-soname,libc.so", f"-Wl,--version-script={work / 'libc.map'}",
        "-Wl,-z,now,-z,defs", "-lm")  # fmt: skip
    for name in symbols.system_libraries(libraries.values()) - {"libc.so"}:
        (android / name).symlink_to("libc.so")
    # The group needs the shipped library and has an RPATH, which the dynamic linker follows for
    # all that comes in through it. It links by SONAME, so the library gets that name too.
    soname = libraries["libexecutorch.so"].soname
    (android / soname).symlink_to("libexecutorch.so")
    run("-shared", "-nostdlib", "-o", android / "libgroup.so", "-Wl,-soname,libgroup.so",
        "-Wl,--disable-new-dtags,-rpath,$ORIGIN", "-Wl,--no-as-needed",
        android / soname)  # fmt: skip
    for name in LOADED_BY_JAVA:
        run(*C_FLAGS, "-shared", "-o", lib / f"lib{name}.so", HERE / "loader.c",
            f'-DTARGET="lib{name}.so"', f"-I{jdk}/include", f"-I{jdk}/include/linux",
            f"-Wl,-soname,lib{name}_loader.so", "-ldl")  # fmt: skip
    if abi == "arm64-v8a":
        run(*C_FLAGS, "-shared", "-o", lib / "libstack_guard.so", HERE / "stack_guard.c")
    shutil.rmtree(work)


def describe(stage: Path, jdk: Path, compiler: str, abi: str) -> dict[str, Any]:
    """Content of runtime.json: where everything came from, and the hash of every file."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    files = sorted(path for path in stage.rglob("*") if path.is_file())
    return {
        "schema_version": 1,
        "runtime": f"{inputs.EXECUTORCH.name} {inputs.EXECUTORCH.version}",
        "abi": abi,
        "inputs": [
            {"name": archive.name, "version": archive.version, archive.algorithm: archive.digest}
            for archive in inputs.ARCHIVES
        ],
        "built_with": {
            "compiler": version.stdout.splitlines()[0],
            "libc": os.confstr("CS_GNU_LIBC_VERSION"),
            "jdk": str(jdk),
        },
        "recipe_sha256": recipe(),
        "files": {str(path.relative_to(stage)): inputs.digest_of(path) for path in files},
    }


def _install(stage: Path, desktop: Path) -> None:
    """Move the staged files into place, each by a rename, so a running JVM keeps the old ones."""
    for path in sorted(stage.rglob("*")):
        to = desktop / path.relative_to(stage)
        if path.is_dir():
            to.mkdir(parents=True, exist_ok=True)
        else:
            path.replace(to)


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Hold a lock, so that tests and builds in parallel do not build twice."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0, or the exit code of the one error that it prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="build nothing; check what is there")
    parser.add_argument("--abi", choices=COMPILERS, default="x86_64", help="default: %(default)s")
    options = parser.parse_args(arguments)
    desktop = DESKTOP if options.abi == "x86_64" else DESKTOP_ARM64
    try:
        require_host()
        with _one_at_a_time():
            reason = problem(desktop)
            if reason and options.check:
                raise SparseRecError(
                    reason, f"run: python android_app/runtime/build.py --abi {options.abi}"
                )
            if reason:
                print(f"building the desktop runtime: {reason}", flush=True)
                build(options.abi, desktop)
        print(f"desktop runtime: {desktop}")
    except SparseRecError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
