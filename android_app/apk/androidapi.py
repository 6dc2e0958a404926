"""Which classes and members an Android version has, and what of a dex file it would not find.

Two kinds of source are compared, because neither suffices. The android-all jars are Android itself:
they have hidden API too, and no java.*. The signature lists hold the public API, java.* included.
A reference must be public in both versions and be there in both. Public API that came after
Android 8 may be used only where the code asks for the version first, and only if ``newer_api.tsv``
names it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pins
from classfile import ClassFile
from dexfile import Dex, DexClass, Method, Reference
from pins import APK
from stages import digest_of_files, java, once, run

NEWER = APK / "newer_api.tsv"
DUMP = APK / "Signatures.java"
# How code comes to a class without having an object of it.
ENTRIES = ("new-instance", "invoke-static", "invoke-direct", "sget", "sput", "const-class")
VERSION = "android/os/Build$VERSION.SDK_INT#I"


class Api(Protocol):
    """A set of classes: parents and members of each, or None for one that is not there."""

    def find(self, name: str) -> tuple[Iterable[str], Iterable[str]] | None: ...


class Signatures:
    """The public API of one version, from a list that ``Signatures.java`` wrote."""

    def __init__(self, path: Path) -> None:
        self._classes: dict[str, tuple[list[str], set[str]]] = {}
        members: set[str] = set()
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("\t"):
                members.add(line[1:])
            else:
                name, *parents = line.split()
                members = set()
                self._classes[name] = (parents, members)

    def find(self, name: str) -> tuple[Iterable[str], Iterable[str]] | None:
        return self._classes.get(name)


class AndroidJar:
    """All classes of one version: android-all's, and the public list's for java.*."""

    def __init__(self, path: Path, public: Api) -> None:
        self._jar = zipfile.ZipFile(path)
        self._public = public
        self._parsed: dict[str, ClassFile | None] = {}

    def find(self, name: str) -> tuple[Iterable[str], Iterable[str]] | None:
        if name not in self._parsed:
            try:
                self._parsed[name] = ClassFile.parse(self._jar.read(f"{name}.class"))
            except KeyError:
                self._parsed[name] = None
        parsed = self._parsed[name]
        return (parsed.parents, parsed.members) if parsed else self._public.find(name)


@dataclass(frozen=True)
class Versions:
    """Android 8 and 14, each as the public API and as all there is."""

    public_26: Api
    all_26: Api
    public_34: Api
    all_34: Api


def load(cache: Path, folder: Path) -> Versions:
    """Fetch and read the four sources; lists are unpacked into ``folder`` once."""
    archives = (pins.PUBLIC_26, pins.PUBLIC_34)

    def make(part: Path) -> None:
        part.mkdir()
        (sniffer,) = pins.get(cache, pins.ANIMAL_SNIFFER)
        lists = [str(path) for path in pins.get(cache, *archives)]
        run("reading the API lists", java([sniffer], DUMP, part, *lists))

    ingredients = {"lists": pins.identity(archives), "code": digest_of_files([DUMP])}
    once(folder / "api", ingredients, make)
    public = [Signatures(folder / "api" / f"{archive.file}.txt") for archive in archives]
    android_26, android_34 = pins.get(cache, pins.ANDROID_26, pins.ANDROID_34)
    return Versions(
        public[0], AndroidJar(android_26, public[0]), public[1], AndroidJar(android_34, public[1])
    )


def read_newer() -> dict[str, int]:
    """``newer_api.tsv``: reference as ``class.member`` and the API level that brought it."""
    lines = NEWER.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return {reference: int(level) for reference, level in rows}


class Checker:
    """Holds a dex file against the versions of Android."""

    def __init__(self, dex: Dex, versions: Versions, newer: dict[str, int]) -> None:
        self._classes, self._versions, self._newer = dex.classes, versions, newer
        self.used_newer: set[str] = set()

    def problems(self) -> list[str]:
        """One line for each reference that Android 8 or 14 would not find or allow."""
        found: dict[str, None] = {}
        for owner in self._classes.values():
            for method, reference in _references(owner):
                problem = self._problem(owner, method, reference)
                if problem:
                    place = f"{owner.name}.{method.name}" if method else owner.name
                    found[f"{reference}: {problem} (used in {place})"] = None
        return list(found)

    def _problem(self, owner: DexClass, method: Method | None, reference: Reference) -> str | None:
        homes = {name: self._home(api, reference) for name, api in vars(self._versions).items()}
        if all(homes.values()):
            return None
        home = homes["public_34"]
        if not (home and homes["all_34"]):
            return _absence(homes)
        # Inherited members go by the class that declares them.
        declared = str(Reference(home, reference.member))
        if not home.startswith("android/"):
            return "is newer than Android 8"
        since = self._newer.get(declared)
        if since is None:
            return f"is newer than Android 8; if that is meant, add {declared} to {NEWER.name}"
        self.used_newer.add(declared)
        if self._guarded(owner, method, since, frozenset()):
            return None
        return f"came with API {since}, and no comparison with SDK_INT guards it"

    def _home(self, api: Api, reference: Reference) -> str | None:
        """The class that declares the member, or the class itself; None if it is not there."""
        name, member, _ = reference
        todo = [name]
        while todo:
            name = todo.pop()
            own = self._classes.get(name)
            found = (own.parents, own.members) if own else api.find(name)
            if found is not None:
                if not member or member in found[1]:
                    return name
                todo += found[0]
        return None

    def _guarded(
        self, owner: DexClass, method: Method | None, since: int, seen: frozenset[str]
    ) -> bool:
        """Whether the code runs on API ``since`` and newer only, as far as can be seen.

        The method loads a number of at least ``since`` to compare with, and its class reads
        ``SDK_INT``; or whoever makes an object of the class, or uses it without one, is guarded in
        this way. The order of instructions is not followed.
        """
        reads_version = any(
            str(use) == VERSION for each in owner.methods for use in each.references
        )
        if method and reads_version and any(since <= number <= 99 for number in method.numbers):
            return True
        if owner.name in seen:
            return False
        uses = [
            (other, each)
            for other in self._classes.values()
            if other.name != owner.name
            for each in other.methods
            if any(
                use.owner == owner.name and use.how.startswith(ENTRIES) for use in each.references
            )
        ]
        seen |= {owner.name}
        return bool(uses) and all(self._guarded(*use, since, seen) for use in uses)


def _absence(homes: dict[str, str | None]) -> str:
    if homes["public_26"]:
        return "is gone from Android 14"
    return "is hidden API" if homes["all_26"] or homes["all_34"] else "is in no Android"


def _references(owner: DexClass) -> Iterator[tuple[Method | None, Reference]]:
    for parent in owner.parents:
        yield None, Reference(parent, "")
    for method in owner.methods:
        for reference in method.references:
            yield method, reference
