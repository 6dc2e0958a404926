"""The APK's zip: fixed order and times, libraries stored and aligned to pages of 16 KB."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path

ALIGNMENT_FIELD = 0xD935  # Android's extra field: apksigner keeps the alignment that it names.
PAGE = 16384
WORD = 4


def pack(
    unsigned: Path,
    resources: Path,
    dex: Path,
    runtime_json: Path,
    libraries: Iterable[tuple[str, Path]],
) -> None:
    """Write the unsigned APK.

    Args:
        unsigned: the file to write.
        resources: what aapt2 linked; entries stored there (``resources.arsc``) stay stored.
        dex: becomes ``classes.dex``.
        runtime_json: becomes ``assets/runtime.json``, from which the app knows its runtime.
        libraries: ABI and file of each native library.
    """
    with zipfile.ZipFile(unsigned, "w") as apk, zipfile.ZipFile(resources) as linked:
        for entry in sorted(linked.infolist(), key=lambda entry: entry.filename):
            _add(apk, entry.filename, linked.read(entry), entry.compress_type)
        _add(apk, "assets/runtime.json", runtime_json.read_bytes(), zipfile.ZIP_DEFLATED)
        _add(apk, "classes.dex", dex.read_bytes(), zipfile.ZIP_DEFLATED)
        for abi, path in libraries:
            name = f"lib/{abi}/{path.name}"
            _add(apk, name, path.read_bytes(), zipfile.ZIP_STORED, PAGE)


def _add(apk: zipfile.ZipFile, name: str, content: bytes, how: int, align: int = WORD) -> None:
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.compress_type = how
    entry.create_system = 0
    if how == zipfile.ZIP_STORED:
        assert apk.fp is not None
        start = apk.fp.tell() + 30 + len(name.encode()) + 6
        padding = -start % align
        entry.extra = struct.pack("<HHH", ALIGNMENT_FIELD, 2 + padding, align) + bytes(padding)
    apk.writestr(entry, content, compresslevel=9)
    # The padding belongs before the data; the central directory needs none.
    entry.extra = b""
