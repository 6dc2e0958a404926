"""A bundle on disk: written whole or not at all, and read with every byte accounted for.

Nothing here imports torch, so ``sparserec inspect`` and the device's tools start at once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from export import contents, manifest
from export.manifest import AGAIN, FileInfo, Manifest
from export.program import check_magic
from pipeline.files import write_atomic
from sparserec.errors import SparseRecError
from sparserec.progress import Progress, silent


def file_infos(files: Mapping[str, bytes]) -> dict[str, FileInfo]:
    """Hash the contents of a bundle's files, by name."""
    return {
        name: FileInfo(hashlib.sha256(files[name]).hexdigest(), len(files[name]))
        for name in sorted(files)
    }


def bundle_id(
    dataset: str, model: str, dim: int, density: float, files: Mapping[str, FileInfo]
) -> str:
    """Name a bundle by what it is and by its content.

    The last part is the head of the SHA-256 over the files' SHA-256 (hexadecimal, by file name).
    """
    hashes = "".join(files[name].sha256 for name in sorted(files))
    content = hashlib.sha256(hashes.encode()).hexdigest()[:8]
    return f"{dataset}-{model}-d{dim}-{100 * density:.3g}pct-{content}"


def write_bundle(out: Path, described: Manifest, files: Mapping[str, bytes]) -> None:
    """Write a bundle to the folder ``out``, replacing a bundle that is there.

    The new one is made beside it as ``<out>.part``, checked as a reader would, and renamed.

    Raises:
        SparseRecError: if ``out`` is there and is not a bundle, or cannot be written.
    """
    out = out.absolute()
    if out.exists() and not (out / manifest.NAME).exists() and not _empty(out):
        raise SparseRecError(f"{out}: is there and is not a bundle", "choose another --out")
    part, old = (out.with_name(out.name + end) for end in (".part", ".old"))
    try:
        for leftover in (part, old):
            shutil.rmtree(leftover, ignore_errors=True)
        part.mkdir(parents=True)
        for name, data in files.items():
            write_atomic(part / name, data)
        write_atomic(part / manifest.NAME, described.to_json())
        verify_bundle(part)
        if out.exists():
            out.replace(old)
        part.replace(out)
        _sync(out.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise SparseRecError(
            f"{error.filename or out}: cannot be written ({error.strerror})",
            "free some space or choose another --out",
        ) from None


def read_manifest(bundle: Path) -> Manifest:
    """Read and check the manifest of the bundle in folder ``bundle``.

    Raises:
        SparseRecError: naming file and field.
    """
    if not bundle.is_dir():
        what = "is a file" if bundle.exists() else "there is no such folder"
        raise SparseRecError(f"{bundle}: {what}", "name the folder of a bundle")
    if not (bundle / manifest.NAME).exists():
        raise SparseRecError(
            f"{bundle}: has no {manifest.NAME}, so it is not a bundle or not a whole one", AGAIN
        )
    return manifest.read(bundle / manifest.NAME)


def verify_bundle(bundle: Path, progress: Progress = silent) -> Manifest:
    """Check every file of a bundle: size, SHA-256, and content.

    Raises:
        SparseRecError: naming the first file and field at fault.
    """
    described = read_manifest(bundle)
    for done, (name, info) in enumerate(described.files.items()):
        progress(f"checking: {name}", done, len(described.files))
        _verify_file(bundle / name, info)
    for program in described.programs.values():
        path = bundle / program.file
        with path.open("rb") as file:
            check_magic(file.read(8), path)
    contents.check(bundle, described)
    progress("checking: done", len(described.files), len(described.files))
    return described


def _verify_file(path: Path, info: FileInfo) -> None:
    try:
        size = path.stat().st_size
        if size != info.bytes:
            raise SparseRecError(f"{path}: has {size} bytes, the manifest says {info.bytes}", AGAIN)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SparseRecError(f"{path}: {error.strerror}", AGAIN) from None
    if found != info.sha256:
        raise SparseRecError(
            f"{path}: damaged; its SHA-256 is {found[:12]}..., the manifest says"
            f" {info.sha256[:12]}...",
            AGAIN,
        )


def _empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
