"""``sparserec apk``: build the Android app from a checkout, as ``make apk`` does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from sparserec.errors import SparseRecError

SCRIPT = Path(__file__).resolve().parents[1] / "android_app" / "apk" / "build.py"


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
    if not SCRIPT.is_file():
        raise SparseRecError(
            f"{SCRIPT}: missing; the app is built from a checkout of the project",
            "clone the repository, run `make setup` there, and use its sparserec",
        )
    command = [sys.executable, str(SCRIPT), "--abi", abi]
    command += ["--runtime", str(runtime)] if runtime else []
    command += ["--release"] if release else []
    raise typer.Exit(subprocess.run(command, check=False).returncode)
