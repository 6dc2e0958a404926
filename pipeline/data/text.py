"""Checks that every text format needs before it is parsed."""

from __future__ import annotations

import codecs
from pathlib import Path

from sparserec.errors import SparseRecError

_CHUNK = 1 << 20
_OTHER_ENCODINGS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}


def at(path: Path, line: int, problem: str, fix: str, unit: str = "line") -> SparseRecError:
    """Return the error for one bad line; lines and rows count from 1."""
    return SparseRecError(f"{path}, {unit} {line}: {problem}", fix)


def require_content(path: Path) -> None:
    """Raise SparseRecError where ``path`` is no readable file or has 0 bytes."""
    if path.is_dir() or not path.exists():
        problem = "is a directory" if path.is_dir() else "does not exist"
        raise SparseRecError(f"{path}: {problem}", "give the path of a file of interactions")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise SparseRecError(
            f"{path}: cannot be read ({error.strerror})", "check the file's permissions"
        ) from error
    if empty:
        raise SparseRecError(
            f"{path}, line 1: the file is empty (0 bytes)", "fetch or export the file again"
        )


def require_utf8(path: Path) -> None:
    """Raise SparseRecError naming the first byte that is not UTF-8; memory stays flat."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    line = 1
    with path.open("rb") as file:
        while True:
            chunk = file.read(_CHUNK)
            held = decoder.getstate()[0]
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                bad = offset - len(held) + error.start
                line += (held + chunk)[: error.start].count(b"\n")
                guess = _OTHER_ENCODINGS.get(chunk[:2]) if offset == 0 else None
                raise at(
                    path,
                    line,
                    f"byte {bad} is not UTF-8" + (f" (it looks like {guess})" if guess else ""),
                    "save the file as UTF-8, for example with: iconv -f "
                    f"{guess or 'LATIN1'} -t UTF-8",
                ) from error
            if not chunk:
                return
            line += chunk.count(b"\n")
            offset += len(chunk)
