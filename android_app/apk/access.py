"""Whether the dex file's own classes may use each other as they do.

A virtual machine asks this when a reference is resolved, so no verifier says it beforehand: not
javac's, whose rules Java 11 loosened, nor ProGuard's, which moves code between packages.
"""

from __future__ import annotations

from classfile import PRIVATE, PROTECTED, PUBLIC, STATIC
from dexfile import Dex, DexClass, Reference


def problems(dex: Dex) -> list[str]:
    """One line for each use of a class or member that Android would refuse."""
    found: dict[str, None] = {}
    for user in dex.classes.values():
        for method in user.methods:
            for use in method.references:
                problem = _problem(dex, user, use)
                if problem:
                    found[f"{use}: {problem} (used in {user.name}.{method.name})"] = None
    return list(found)


def _problem(dex: Dex, user: DexClass, use: Reference) -> str | None:
    owner = dex.classes.get(use.owner)
    if owner is None:
        return None
    if not owner.flags & PUBLIC and _package(owner.name) != _package(user.name):
        return "is a class of another package, and not public"
    home = _home(dex, owner, use.member) if use.member else None
    if home is None:
        return None
    flags = home.members[use.member]
    if use.how == "invoke-direct" and not (flags & PRIVATE or use.member.startswith("<init>")):
        return "is called as private, and is not"
    if use.how == "invoke-virtual" and flags & (PRIVATE | STATIC):
        return "is called as virtual, and is not"
    return _closed(dex, user, home, flags)


def _closed(dex: Dex, user: DexClass, home: DexClass, flags: int) -> str | None:
    if flags & PUBLIC or home.name == user.name:
        return None
    if flags & PRIVATE:
        return "is private"
    if _package(home.name) == _package(user.name):
        return None
    if flags & PROTECTED:
        return None if home.name in _ancestors(dex, user) else "is protected"
    return "is open to its package only"


def _home(dex: Dex, owner: DexClass, member: str) -> DexClass | None:
    """The class of the dex file that declares an own or inherited member."""
    for name in (owner.name, *_ancestors(dex, owner)):
        found = dex.classes.get(name)
        if found is not None and member in found.members:
            return found
    return None


def _ancestors(dex: Dex, owner: DexClass) -> list[str]:
    found: list[str] = []
    todo = list(owner.parents)
    while todo:
        name = todo.pop(0)
        found.append(name)
        if name in dex.classes:
            todo += dex.classes[name].parents
    return found


def _package(name: str) -> str:
    return name.rpartition("/")[0]
