"""A bundle on disk: written whole or not at all, and read with every byte accounted for.

Nothing here imports torch, so ``sparserec inspect`` and the device's tools start at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from export import contents
from export import manifest as manifests
from export.manifest import AGAIN, FileInfo, Manifest, Training
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
    dataset: str,
    model: str,
    dim: int,
    density: float,
    files: Mapping[str, FileInfo],
    training: Training,
) -> str:
    """Name a bundle by what it is and by its content.

    The last part is the head of the SHA-256 over the files' SHA-256 (hexadecimal, by file name) and
    the manifest's ``training``, which need not show in any file: its ``steps`` do not.
    The first is the dataset's name, with "-" for what has no place in a bundle's name.
    """
    plain = re.sub(r"[^\w.-]+", "-", dataset, flags=re.ASCII).strip(".-") or "data"
    hashes = "".join(files[name].sha256 for name in sorted(files))
    does = json.dumps(asdict(training), separators=(",", ":"))
    content = hashlib.sha256((hashes + does).encode()).hexdigest()[:8]
    return f"{plain}-{model}-d{dim}-{100 * density:.3g}pct-{content}"


def write_bundle(
    out: Path, described: Manifest, files: Mapping[str, bytes], manifest: bytes | None = None
) -> None:
    """Write a bundle to the folder ``out``, replacing a bundle that is there.

    Args:
        out: a folder that is not there, is empty, or is a bundle to replace.
        described: the manifest.
        files: all other files.
        manifest: the manifest's bytes, where they must be certain ones.

    Raises:
        SparseRecError: if ``out`` is there and is not a bundle, or cannot be written.
    """

    def write(part: Path) -> None:
        for name, data in files.items():
            write_atomic(part / name, data)
        write_atomic(part / manifests.NAME, manifest or described.to_json())
        verify_bundle(part)

    replace_folder(out, manifests.NAME, "bundle", write)


def replace_folder(out: Path, mark: str, what: str, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a folder beside ``out``, then put it in the place of what is there.

    The folder is ``.<name>.sparserec-part``, and what it replaces is ``.<name>.sparserec-old``
    for as long: names that are nobody else's, because what a crash left under them is removed.

    Args:
        out: a folder that is not there, is empty, or has the file ``mark``; or a link to such a
            place, which stays.
        mark: the file by which such a folder is known.
        what: such a folder is, for the error.
        write: fills the folder, and checks it as a reader would.

    Raises:
        SparseRecError: if ``out`` is something else, or cannot be written. It is as it was then.
    """
    out = Path(os.path.realpath(out))  # a rename would replace a link, not what it leads to
    if out.exists() and not (out / mark).exists() and not _empty(out):
        raise SparseRecError(f"{out}: is there and is not a {what}", "choose another --out")
    part, old = (out.with_name(f".{out.name}.sparserec-{end}") for end in ("part", "old"))
    try:
        if old.exists() and not out.exists():
            old.replace(out)  # a crash came between the two renames below
        for leftover in (part, old):
            _remove(leftover)
        part.mkdir(parents=True)
        write(part)
        if out.exists():
            out.replace(old)
        part.replace(out)
        _sync(out.parent)
        _remove(old)
    except OSError as error:
        raise SparseRecError(
            f"{error.filename or out}: cannot be written ({error.strerror})",
            "free some space or choose another --out",
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)  # still there where something failed


def _remove(leftover: Path) -> None:
    if leftover.is_symlink():  # which rmtree refuses
        leftover.unlink()
    shutil.rmtree(leftover, ignore_errors=True)


def read_manifest(bundle: Path) -> Manifest:
    """Read and check the manifest of the bundle in folder ``bundle``.

    Raises:
        SparseRecError: naming file and field.
    """
    if not bundle.is_dir():
        what = "is a file" if bundle.exists() else "there is no such folder"
        raise SparseRecError(f"{bundle}: {what}", "name the folder of a bundle")
    if (bundle / manifests.DELTA).exists():
        raise SparseRecError(
            f"{bundle}: is a delta, not a bundle",
            "bring it to a device: sparserec deploy DELTA; or make the bundle: sparserec apply "
            "BASE DELTA OUT",
        )
    if not (bundle / manifests.NAME).exists():
        raise SparseRecError(
            f"{bundle}: has no {manifests.NAME}, so it is not a bundle or not a whole one", AGAIN
        )
    return manifests.read(bundle / manifests.NAME)


def verify_bundle(bundle: Path, progress: Progress = silent) -> Manifest:
    """Check every file of a bundle: size, SHA-256, and content.

    Raises:
        SparseRecError: naming the first file and field at fault.
    """
    described = read_manifest(bundle)
    for done, (name, info) in enumerate(described.files.items()):
        progress(f"checking: {name}", done, len(described.files))
        verify_file(bundle / name, info)
    for program in described.programs.values():
        path = bundle / program.file
        with path.open("rb") as file:
            check_magic(file.read(8), path)
    contents.check(bundle, described)
    progress("checking: done", len(described.files), len(described.files))
    return described


def verify_file(
    path: Path, info: FileInfo, described_in: str = "the manifest", fix: str = AGAIN
) -> None:
    """Check a file's size and SHA-256.

    Raises:
        SparseRecError: naming the file, and ``described_in`` as what says otherwise.
    """
    try:
        size = path.stat().st_size
        if size != info.bytes:
            raise SparseRecError(f"{path}: has {size} bytes, {described_in} says {info.bytes}", fix)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SparseRecError(f"{path}: {error.strerror}", fix) from None
    if found != info.sha256:
        raise SparseRecError(
            f"{path}: damaged; its SHA-256 is {found[:12]}..., {described_in} says"
            f" {info.sha256[:12]}...",
            fix,
        )


def _empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
