"""Name every tool that `make setup` needs and this machine lacks, with how to get it.

Runs on the system's Python, before anything is installed, so it uses the standard library only.
"""

import re
import shutil
import subprocess
import sys

TOOLS = {
    "java": "a JDK 17 or newer. Debian, Ubuntu: apt install openjdk-17-jdk-headless",
    "javac": "a JDK, not only a JRE. Debian, Ubuntu: apt install openjdk-17-jdk-headless",
    "mvn": "Maven 3.8 or newer. Debian, Ubuntu: apt install maven",
    "npm": "Node's npm. Debian, Ubuntu: apt install npm",
    "cc": "a C compiler. Debian, Ubuntu: apt install gcc libc6-dev",
}


def problems() -> list[str]:
    """Return one line for each thing that is missing."""
    found = [f"{name} is missing: install {how}" for name, how in TOOLS.items() if not has(name)]
    if sys.version_info < (3, 11):  # noqa: UP036 - it is run by whatever python3 is
        version = ".".join(map(str, sys.version_info[:3]))
        found.append(f"Python is {version}: install 3.11 or newer, or run make PYTHON=python3.11")
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        found.append("Python's venv is missing. Debian, Ubuntu: apt install python3-venv")
    if has("java") and java_version() < 17:
        found.append(f"java is version {java_version()}: {TOOLS['java']}")
    return found


def has(name: str) -> bool:
    """Tell whether a program is on the PATH."""
    return shutil.which(name) is not None


def java_version() -> int:
    """Return java's major version, 0 where it does not tell."""
    run = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False)
    match = re.search(r'version "(\d+)', run.stderr)
    return int(match[1]) if match else 0


if __name__ == "__main__":
    missing = problems()
    for line in missing:
        print(f"setup: {line}", file=sys.stderr)
    sys.exit(1 if missing else 0)
