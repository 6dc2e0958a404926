"""From a parsed word to arguments: variables, field splitting and file name patterns."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Mapping

from device_bench.virtual.files import DeviceFiles
from device_bench.virtual.syntax import Part, Word

_MAGIC = frozenset("*?[")


def expand_text(word: Word, variables: Mapping[str, str]) -> str:
    """A word as one text, as in an assignment or after a redirection."""
    return "".join(_value(part, variables) for part in word.parts)


def expand(word: Word, variables: Mapping[str, str], files: DeviceFiles, cwd: str) -> list[str]:
    """A word as arguments; a pattern that matches nothing stays as it is, as in sh."""
    arguments: list[str] = []
    for parts in _fields(word, variables):
        text = "".join(part.text for part in parts)
        if any(not part.quoted and not _MAGIC.isdisjoint(part.text) for part in parts):
            pattern = "".join(
                glob.escape(part.text) if part.quoted else part.text for part in parts
            )
            arguments += _matches(pattern, files, cwd) or [text]
        else:
            arguments.append(text)
    return arguments


def _value(part: Part, variables: Mapping[str, str]) -> str:
    return variables.get(part.text, "") if part.variable else part.text


def _fields(word: Word, variables: Mapping[str, str]) -> list[list[Part]]:
    """Split a word at the blanks that its unquoted variables bring in."""
    fields: list[list[Part]] = []
    joins = False
    for part in word.parts:
        value = _value(part, variables)
        if part.quoted or not part.variable:
            if not joins:
                fields.append([])
            fields[-1].append(Part(value, part.quoted))
            joins = True
            continue
        joins = joins and not value[:1].isspace()
        for piece in value.split():
            if not joins:
                fields.append([])
            fields[-1].append(Part(piece, quoted=False))
            joins = False
        joins = bool(value and not value[-1].isspace()) or (joins and not value)
    return fields


def _matches(pattern: str, files: DeviceFiles, cwd: str) -> list[str]:
    """The existing device paths that match, sorted; hidden names only where asked for."""
    start, *rest = pattern.split("/")
    found = [""] if start == "" else _names(start, ".", files, cwd)
    for component in rest:
        found = [
            f"{base}/{name}"
            for base in found
            for name in _names(component, base or "/", files, cwd)
        ]
    return sorted(found)


def _names(pattern: str, directory: str, files: DeviceFiles, cwd: str) -> list[str]:
    try:
        host = files.resolve(directory, cwd)
        if not glob.has_magic(pattern):
            exists = pattern in ("", ".", "..") or os.path.lexists(host / pattern)
            return [pattern] if exists and host.is_dir() else []
        names = [entry.name for entry in host.iterdir()]
    except OSError:
        return []
    hidden = pattern.startswith(".")
    return [name for name in fnmatch.filter(names, pattern) if hidden or not name.startswith(".")]
