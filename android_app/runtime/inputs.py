"""What the Android runtime is built from: three published archives, pinned by version and hash.

They are fetched with the ordinary clients (npm, Maven), so a mirror or proxy that the user has set
up for those is used here too. Nothing fetched is ever committed.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from sparserec.errors import SparseRecError


@dataclass(frozen=True)
class Archive:
    """A published archive.

    Attributes:
        name: npm package, or Maven ``group:artifact``.
        version: exact version.
        file: file name that the client gives it.
        algorithm, digest: hash of the file, as a name of hashlib and in hexadecimal.
    """

    name: str
    version: str
    file: str
    algorithm: str
    digest: str

    @property
    def client(self) -> str:
        return "mvn" if ":" in self.name else "npm"


EXECUTORCH = Archive(
    "react-native-executorch",
    "0.9.3",
    "react-native-executorch-0.9.3.tgz",
    "sha512",
    "79a9e90def2c145c5b29f0a1d25aab495c94e3f75e885d69656b593a365257ec"
    "3ea9fb8db1dae4424a2c731be133024e9ef5cd901b7805702bf2902518e5d2b4",
)
FBJNI = Archive(
    "com.facebook.fbjni:fbjni",
    "0.7.0",
    "fbjni-0.7.0.aar",
    "sha256",
    "7e319ae110ac5e5ef18904170aea5c3e753e915d196699d7fd39d36c8e1dfe36",
)
NATIVELOADER = Archive(
    "com.facebook.soloader:nativeloader",
    "0.10.5",
    "nativeloader-0.10.5.jar",
    "sha256",
    "971ded86009c0ac56fb2275e128f852e7dcbc41a40cd799688f8a1aebde5195d",
)
ARCHIVES = (EXECUTORCH, FBJNI, NATIVELOADER)

INSTALL = {
    "npm": "install Node.js with npm (Debian: apt-get install npm)",
    "mvn": "install Maven (Debian: apt-get install maven)",
}


def digest_of(path: Path, algorithm: str = "sha256") -> str:
    """Hash of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def fetch(archive: Archive, cache: Path) -> Path:
    """Path of the archive in ``cache``, fetched first if it is not there.

    Raises:
        SparseRecError: the client is missing or fails, or the file is not the one pinned.
    """
    path = cache / archive.file
    if not path.exists():
        incoming = cache / "incoming"
        incoming.mkdir(parents=True, exist_ok=True)
        _download(archive, incoming)
        _verify(archive, incoming / archive.file)
        (incoming / archive.file).replace(path)
    _verify(archive, path)
    return path


def _download(archive: Archive, folder: Path) -> None:
    if shutil.which(archive.client) is None:
        raise SparseRecError(
            f"{archive.client} is not installed; it fetches {archive.name} {archive.version}",
            INSTALL[archive.client],
        )
    print(f"fetching {archive.name} {archive.version} with {archive.client}", flush=True)
    if archive.client == "npm":
        package = f"{archive.name}@{archive.version}"
        command = ["npm", "pack", package, "--silent", "--pack-destination", str(folder)]
    else:
        coordinates = f"{archive.name}:{archive.version}:{archive.file.rsplit('.', 1)[1]}"
        command = ["mvn", "--batch-mode", "--quiet", "dependency:copy"]
        command += [f"-Dartifact={coordinates}", f"-DoutputDirectory={folder}"]
    # Run in an empty folder: neither client should pick up a project file of ours.
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode != 0 or not (folder / archive.file).exists():
        lines = (result.stderr + result.stdout).strip().splitlines() or ["(no output)"]
        reason = next((line for line in lines if "error" in line.lower()), lines[0])
        raise SparseRecError(
            f"{archive.client} could not fetch {archive.name} {archive.version}: {reason}",
            f"check the network, then run: {' '.join(command)}",
        )


def _verify(archive: Archive, path: Path) -> None:
    found = digest_of(path, archive.algorithm)
    if found != archive.digest:
        raise SparseRecError(
            f"{path}: {archive.algorithm} is {found[:16]}..., but {archive.name} "
            f"{archive.version} has {archive.digest[:16]}...",
            f"delete {path} and run the build again; if it repeats, do not use the file",
        )


def unpack(cache: Path, abi: str) -> dict[str, bytes]:
    """The runtime's members of the archives, by the name they get here.

    Returns:
        ``libexecutorch.so``, ``libfbjni.so``, ``libc++_shared.so`` for ``abi``, as shipped, and
        ``executorch.jar``, ``fbjni.jar``, ``nativeloader.jar``. The classes of fbjni are the
        AAR's: those published as ``fbjni-java-only`` are newer bytecode than Android takes.

    Raises:
        SparseRecError: as ``fetch``.
    """
    android = "package/third-party/android/libs/executorch"
    with tarfile.open(fetch(EXECUTORCH, cache)) as tar:
        library = _member(tar, f"{android}/{abi}/libexecutorch.so")
        classes = _member(tar, "package/android/libs/classes.jar")
    with zipfile.ZipFile(fetch(FBJNI, cache)) as aar:
        return {
            "libexecutorch.so": library,
            "libfbjni.so": aar.read(f"jni/{abi}/libfbjni.so"),
            "libc++_shared.so": aar.read(f"jni/{abi}/libc++_shared.so"),
            "executorch.jar": classes,
            "fbjni.jar": aar.read("classes.jar"),
            "nativeloader.jar": fetch(NATIVELOADER, cache).read_bytes(),
        }


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None, f"{name} is a regular file in the pinned archive"
    return file.read()
