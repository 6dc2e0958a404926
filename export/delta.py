"""A delta on disk: what turns one bundle into another, docs/formats.md section 1.9.

Like ``export.bundle``, nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from export import bundle as bundles
from export import manifest as manifests
from export.bundle import file_infos, read_manifest, replace_folder, verify_bundle, verify_file
from export.manifest import FileInfo, Manifest, bad, decode, read_object
from export.rows import RAGGED, difference, patched
from pipeline.files import write_atomic
from sparserec.errors import SparseRecError
from sparserec.progress import Progress, silent

NAME = manifests.DELTA
RESULT = "result.json"
"""The manifest of the result, byte for byte, under a name that makes no bundle of the folder."""
ROWS = "delta-"
"""What a file that is changed by rows is named with before its own name."""
SCHEMA_VERSION = 1
AGAIN = "make it again: sparserec export RUN --since BUNDLE"

_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Version:
    """A bundle, by the SHA-256 of its manifest, which has those of all its files."""

    bundle_id: str
    manifest_sha256: str

    def __str__(self) -> str:
        return f"{self.bundle_id} (manifest {self.manifest_sha256[:12]}...)"

    @classmethod
    def of(cls, bundle: Path) -> Version:
        """Name the bundle in a folder.

        Raises:
            SparseRecError: it is none.
        """
        described = read_manifest(bundle)
        data = (bundle / manifests.NAME).read_bytes()
        return cls(described.bundle_id, hashlib.sha256(data).hexdigest())


@dataclass(frozen=True)
class Delta:
    """Everything that ``delta.json`` says.

    Attributes:
        base: what it can be applied to.
        result: what becomes of it.
        files: every other file of the folder.
    """

    base: Version
    result: Version
    files: dict[str, FileInfo]

    def to_json(self) -> bytes:
        """Encode as the content of ``delta.json``."""
        value = {"schema_version": SCHEMA_VERSION} | asdict(self)
        return (json.dumps(value, indent=2) + "\n").encode()

    def way(self, name: str) -> str:
        """How the result's file ``name`` comes: ``rows``, ``whole`` or, from the base, ``kept``."""
        if ROWS + name in self.files:
            return "rows"
        return "whole" if name in self.files else "kept"

    def shipped(self, name: str) -> int:
        """Bytes of the delta that the result's file ``name`` takes."""
        found = self.files.get(ROWS + name) or self.files.get(name)
        return found.bytes if found else 0


def write_delta(base: Path, described: Manifest, files: Mapping[str, bytes], out: Path) -> Delta:
    """Write to the folder ``out`` what turns the bundle ``base`` into another.

    It is applied once before it gets its name, so that what is written is known to work. Where a
    delta to the same bundle is there already, the result's manifest stays.

    Args:
        base: folder of a bundle, which is checked.
        described: the manifest of the result.
        files: the result's other files.
        out: a folder that is not there, is empty, or is a delta to replace.

    Raises:
        SparseRecError: the base is damaged, nothing changed, or ``out`` cannot be written.
    """
    old = verify_bundle(base)
    version = Version.of(base)
    if manifests.same(old, described):
        raise SparseRecError(
            f"{base}: nothing has changed since: the new bundle is, but for when and by whom it was"
            f" made, {version}",
            "there is nothing to ship; train on first, or change an option",
        )
    described, data = manifests.kept(out / RESULT, described)
    users = (old.num_users, described.num_users)
    shipped = {RESULT: data}
    for name, content in files.items():
        if name in old.files and old.files[name] == described.files[name]:
            continue
        rows = None
        if name in RAGGED and name in old.files:
            rows = difference(name, (base / name).read_bytes(), content, users)
        if rows is not None and len(rows) < len(content):
            shipped[ROWS + name] = rows
        else:
            shipped[name] = content
    result = Version(described.bundle_id, hashlib.sha256(data).hexdigest())
    delta = Delta(version, result, file_infos(shipped))

    def write(part: Path) -> None:
        for name, content in shipped.items():
            write_atomic(part / name, content)
        write_atomic(part / NAME, delta.to_json())
        if _result(base, part, verify_delta(part))[1] != dict(files):
            raise RuntimeError("the delta does not make the bundle that it was made from")

    replace_folder(out, NAME, "delta", write)
    return delta


def is_delta(folder: Path) -> bool:
    """Whether a folder looks like a delta."""
    return (folder / NAME).is_file()


def verify_delta(folder: Path) -> Delta:
    """Check every file of a delta: size and SHA-256, and that nothing is missing.

    Raises:
        SparseRecError: naming the first file and field at fault.
    """
    if not (folder / NAME).exists():
        what = f"has no {NAME}, so it is not a delta or not a whole one"
        raise SparseRecError(f"{folder}: {what}", AGAIN)
    try:
        delta = _read(folder / NAME)
    except SparseRecError as error:
        raise SparseRecError(error.message, AGAIN) from None
    for name, info in delta.files.items():
        verify_file(folder / name, info, NAME, AGAIN)
    return delta


def _read(path: Path) -> Delta:
    value = read_object(path)
    version = decode(int, value.get("schema_version"), path, "schema_version")
    if version != SCHEMA_VERSION:
        raise bad(path, "schema_version", f"{version}, but this version reads {SCHEMA_VERSION}")
    delta = decode(Delta, value, path, "")
    for end, found in (("base", delta.base), ("result", delta.result)):
        if not _SHA256.fullmatch(found.manifest_sha256):
            raise bad(path, f"{end}.manifest_sha256", "is not a SHA-256 in lower case")
        manifests.check_id(found.bundle_id, path, f"{end}.bundle_id")
    for name in delta.files:
        if not manifests.PLAIN.fullmatch(name) or name in (NAME, manifests.NAME):
            raise bad(path, "files", f"{json.dumps(name)} is not a file of a delta")
    if RESULT not in delta.files:
        raise bad(path, f"files.{RESULT}", "is missing")
    if delta.files[RESULT].sha256 != delta.result.manifest_sha256:
        raise bad(path, "result.manifest_sha256", f"is not that of {RESULT}")
    return delta


def apply_delta(base: Path, folder: Path, out: Path, progress: Progress = silent) -> Delta:
    """Make the new bundle from the old one and a delta; nothing of either is changed.

    Args:
        base: folder of the bundle that the delta was made from.
        folder: of the delta.
        out: a folder that is not there, is empty, or is a bundle to replace.
        progress: gets the stages.

    Raises:
        SparseRecError: the delta is damaged, or the base is damaged or another one, or ``out``
            cannot be written. ``out`` is then as it was.
    """
    delta = verify_delta(folder)
    progress("apply: checking the base", 0, 2)
    verify_bundle(base)
    found = Version.of(base)
    if found != delta.base:
        raise SparseRecError(
            f"{folder / NAME}: base: the delta is for {delta.base}, but {base} is {found}",
            f"give the bundle that it was made from, or {AGAIN}",
        )
    progress("apply: making the new bundle", 1, 2)
    described, files = _result(base, folder, delta)
    bundles.write_bundle(out, described, files, manifest=(folder / RESULT).read_bytes())
    progress("apply: done", 2, 2)
    return delta


def _result(base: Path, folder: Path, delta: Delta) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest and the other files of the result, each with the SHA-256 that it must have."""
    old, new = read_manifest(base), manifests.read(folder / RESULT)
    if new.bundle_id != delta.result.bundle_id:
        what = f"is {delta.result.bundle_id}, {RESULT} says {new.bundle_id}"
        raise _bad(folder, "result.bundle_id", what)
    users = (old.num_users, new.num_users)
    files = {}
    for name, info in new.files.items():
        way = delta.way(name)
        if way == "kept" and old.files.get(name) != info:
            raise _bad(folder, f"files.{name}", "is missing, and the base has another")
        data = ((folder if way == "whole" else base) / name).read_bytes()
        if way == "rows":
            data = _patched(name, data, folder / (ROWS + name), users)
        if hashlib.sha256(data).hexdigest() != info.sha256:
            what = f"what it makes has not the SHA-256 of {RESULT}, {info.sha256[:12]}..."
            raise _bad(folder, f"files.{name}", what)
        files[name] = data
    return new, files


def _patched(name: str, base: bytes, delta: Path, users: tuple[int, int]) -> bytes:
    try:
        return patched(name, base, delta.read_bytes(), users)
    except ValueError as error:
        raise SparseRecError(f"{delta}: {error}", AGAIN) from None


def _bad(folder: Path, field: str, what: str) -> SparseRecError:
    return SparseRecError(f"{folder / NAME}: {field}: {what}", AGAIN)
