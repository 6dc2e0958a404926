"""``sparserec apk``: build the Android app from a checkout, as ``make apk`` does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from sparserec.errors import SparseRecError

APP = Path(__file__).resolve().parents[1] / "android_app"
SCRIPT = APP / "apk" / "build.py"
OUTPUT = APP / "target" / "apk"


def apk(
    abi: Annotated[
        str, typer.Option(help="arm64-v8a or x86_64, so that a phone receives one only; or all.")
    ] = "all",
    runtime: Annotated[
        Path | None,
        typer.Option(metavar="AAR", help="An official ExecuTorch AAR instead of the pinned one."),
    ] = None,
    release: Annotated[
        bool, typer.Option("--release", help="Sign with your own key (docs/android.md).")
    ] = False,
) -> None:
    """Build, sign and verify the Android app, without an Android SDK.

    Example: sparserec apk --abi arm64-v8a
    """
    options = ["--abi", abi]
    options += ["--runtime", str(runtime)] if runtime else []
    options += ["--release"] if release else []
    raise typer.Exit(_run(options))


def build(abi: str) -> Path:
    """Build the app for one ABI with the debug key; the APK's path.

    Raises:
        SparseRecError: this is no checkout, or the build failed (it has said why on stderr).
    """
    code = _run(["--abi", abi])
    if code != 0:
        raise SparseRecError(
            f"the app could not be built for {abi} (exit code {code}, see above)",
            "see docs/android.md for the tools that it takes, or give an APK with --apk",
        )
    return OUTPUT / f"sparserec-{abi}.apk"


def built(abi: str) -> Path | None:
    """The APK for ``abi`` that was built before: the one of that ABI alone where there is one."""
    found = (OUTPUT / f"sparserec-{name}.apk" for name in (abi, "universal"))
    return next((path for path in found if path.is_file()), None)


def _run(options: list[str]) -> int:
    """Run the build script; its exit code.

    Raises:
        SparseRecError: it is not there.
    """
    if not SCRIPT.is_file():
        raise SparseRecError(
            f"{SCRIPT}: missing; the app is built from a checkout of the project",
            "clone the repository, run `make setup` there, and use its sparserec",
        )
    return subprocess.run([sys.executable, str(SCRIPT), *options], check=False).returncode
