"""Private members that Java 11's inner classes reach, opened for Android.

Since Java 11 the classes of one source file may use each other's private members directly (JEP
181). A dex file cannot say so, and on a phone such a use is an IllegalAccessError. Older compilers
made the members that were used so reachable; this does the same, by access flags alone.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from classfile import PRIVATE, STATIC, ClassFile

from sparserec.errors import SparseRecError


def open_nests(source: Path, made: Path) -> None:
    """Copy a jar's classes, opening to their package the private members used from elsewhere.

    Raises:
        SparseRecError: an opened method would be overridden by a subclass's private one.
    """
    with zipfile.ZipFile(source) as jar:
        entries = {name: jar.read(name) for name in sorted(jar.namelist()) if name[-1] != "/"}
    classes = {n: ClassFile.parse(each) for n, each in entries.items() if n.endswith(".class")}
    wanted = used_from_elsewhere(list(classes.values()))
    for owner, member in sorted(wanted):
        _require_no_override(list(classes.values()), owner, member)
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as jar:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            parsed = classes.get(name)
            members = [member for owner, member in wanted if parsed and owner == parsed.name]
            jar.writestr(entry, parsed.opened(members) if parsed else content)


def used_from_elsewhere(classes: list[ClassFile]) -> set[tuple[str, str]]:
    """Class and private member of each use by another of the classes."""
    by_name = {parsed.name: parsed for parsed in classes}
    return {
        (owner, member)
        for user in classes
        for owner, member in user.uses
        if owner != user.name
        and owner in by_name
        and member in by_name[owner].members
        and by_name[owner].members[member].flags & PRIVATE
    }


def _require_no_override(classes: list[ClassFile], owner: str, member: str) -> None:
    flags = next(parsed for parsed in classes if parsed.name == owner).members[member].flags
    if "(" not in member or member.startswith("<init>") or flags & STATIC:
        return
    again = [parsed.name for parsed in classes if parsed.name != owner and member in parsed.members]
    if again:
        raise SparseRecError(f"{owner}.{member} cannot be opened: {again[0]} declares it too")
