"""How a build step runs: its tools, its stamp, its errors."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pins  # noqa: F401 - puts the project on the path
from inputs import digest_of

from sparserec.errors import SparseRecError

DEBIAN = {
    "java": "install JDK 17 (Debian: apt install openjdk-17-jdk-headless), or set JAVA_HOME",
    "javac": "install JDK 17 (Debian: apt install openjdk-17-jdk-headless), or set JAVA_HOME",
    "keytool": "install JDK 17 (Debian: apt install openjdk-17-jdk-headless), or set JAVA_HOME",
    "mvn": "install Maven (Debian: apt install maven)",
    "npm": "install Node.js with npm (Debian: apt install npm)",
    "aapt2": "install it (Debian: apt install aapt)",
    "apksigner": "install it (Debian: apt install apksigner)",
    "dexdump": "install it (Debian: apt install dexdump)",
}
OF_THE_JDK = ("java", "javac", "keytool")
# Short runs: the second compiler costs more than it gains.
JVM = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx1g")


def require_tools() -> None:
    """Raise one SparseRecError that names every missing tool with how to get it."""
    missing = [name for name in DEBIAN if _find(name) is None]
    if missing:
        raise SparseRecError(
            f"not installed: {', '.join(missing)}",
            "; ".join(dict.fromkeys(DEBIAN[name] for name in missing)),
        )
    jdk_module()


def tool(name: str) -> str:
    """Path of a program, from JAVA_HOME if it is the JDK's.

    Raises:
        SparseRecError: it is not installed.
    """
    path = _find(name)
    if path is None:
        raise SparseRecError(f"{name} is not installed", DEBIAN[name])
    return path


def _find(name: str) -> str | None:
    home = os.environ.get("JAVA_HOME")
    inside = str(Path(home) / "bin") if home and name in OF_THE_JDK else None
    return shutil.which(name, path=inside)


def jdk_module() -> tuple[Path, str]:
    """The JDK's java.base.jmod, which has java.*'s classes, and the JDK's version.

    Raises:
        SparseRecError: the JDK is older than 17, or has no such file.
    """
    home = Path(tool("javac")).resolve().parent.parent
    module, release = home / "jmods" / "java.base.jmod", home / "release"
    text = release.read_text(encoding="utf-8") if release.exists() else ""
    version = re.search(r'JAVA_VERSION="((\d+)[^"]*)"', text)
    if version is None or int(version[2]) < 17 or not module.exists():
        found = version[1] if version else "of unknown version"
        raise SparseRecError(
            f"{home} is a JDK {found}, or lacks jmods; 17 or newer is needed", DEBIAN["javac"]
        )
    return module, version[1]


def java(class_path: Sequence[Path], *arguments: object) -> list[str]:
    """Command of a Java program."""
    paths = os.pathsep.join(map(str, class_path))
    return [tool("java"), *JVM, "-cp", paths, *map(str, arguments)]


def run(what: str, command: Sequence[object], secrets: Mapping[str, str] | None = None) -> str:
    """Run a tool; returns its standard output.

    Args:
        what: what fails if it fails, for the error.
        command: program and arguments; everybody on the machine can read them.
        secrets: environment variables for this process alone.

    Raises:
        SparseRecError: the tool failed; with the first 20 lines that it printed.
    """
    done = subprocess.run(
        [*map(str, command)],
        capture_output=True,
        text=True,
        errors="replace",  # dexdump prints a NUL in a string as C0 80
        check=False,
        env={**os.environ, **(secrets or {})},
    )
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        wrong = [line for line in lines if re.search(r"\b(error|exception)\b", line, re.IGNORECASE)]
        said = "\n  ".join((wrong or lines or ["(it said nothing)"])[:20])
        raise SparseRecError(f"{what}: {Path(str(command[0])).name} failed:\n  {said}")
    return done.stdout


def digest_of_tree(*folders: Path) -> str:
    """Hash over the names and contents of all files under the folders."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(folder)} {digest_of(path)}\n".encode())
    return digest.hexdigest()


def digest_of_files(paths: Iterable[Path]) -> str:
    """Hash over the contents of the files, in their order."""
    return hashlib.sha256(" ".join(map(digest_of, paths)).encode()).hexdigest()


def once(made: Path, ingredients: Mapping[str, object], make: Callable[[Path], None]) -> bool:
    """Make a file or folder, unless it is there as made from the same ingredients.

    Args:
        made: the file or folder. It appears whole; if making fails, an older one stays.
        ingredients: all that the result depends on, as text or numbers.
        make: writes the path it is given, which does not exist yet.

    Returns:
        Whether it was made now.
    """
    stamp = made.with_name(f".{made.name}.made-from")
    recipe = json.dumps(ingredients, indent=1, sort_keys=True)
    if made.exists() and stamp.exists() and stamp.read_text() == recipe + _state(made):
        return False
    print(f"making {made.name}", flush=True)
    made.parent.mkdir(parents=True, exist_ok=True)
    part = made.with_name(f"{made.stem}.part{made.suffix}")
    _remove(part)
    make(part)
    stamp.unlink(missing_ok=True)
    _remove(made)
    part.replace(made)
    stamp.write_text(recipe + _state(made))
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _state(made: Path) -> str:
    """A file's hash, so that one changed by hand is made again."""
    return f"\n{digest_of(made)}\n" if made.is_file() else "\n"
