"""The apps that were installed: their APKs, and the rules by which Android takes a new one.

Package name, version, ABIs and signer are read from the APK itself. Its code is never run: the app
of this device is the desktop harness, which counts as one that came with the device.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_bench.virtual.files import PACKAGE, DeviceFiles
from device_bench.virtual.storage import Storage

APPS = "data/app"
"""Where APKs are kept, below the root."""


class InstallError(Exception):
    """An installation is refused, with Android's word, such as INSTALL_FAILED_INVALID_APK."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}" if detail else code)


@dataclass(frozen=True)
class Apk:
    """What an APK says of itself; ``signers`` are the SHA-256 of its certificates, in hex."""

    package: str
    version_code: int
    version_name: str
    min_sdk: int
    abis: frozenset[str]
    signers: frozenset[str]


def read_apk(path: Path) -> Apk:
    """Read an APK's manifest, names and certificates (signature schemes v1 to v3).

    The signatures themselves are not verified.

    Raises:
        InstallError: it is not an APK, or not signed.
        OSError: it cannot be read.
    """
    import pyaxmlparser

    logging.getLogger("pyaxmlparser").setLevel(logging.CRITICAL)  # the answer says it
    data = path.read_bytes()
    try:
        found = pyaxmlparser.APK(data, raw=True)
        code = int(found.version_code or 0)
        minimum = int(found.get_min_sdk_version() or 1)
        names = [name.split("/") for name in found.get_files()]
        signers = _signers(found)
    except Exception as error:  # the library has no exception of its own for a broken file
        raise InstallError(
            "INSTALL_PARSE_FAILED_NOT_APK", f"Failed to parse: {type(error).__name__}"
        ) from None
    if not found.package:
        raise InstallError("INSTALL_PARSE_FAILED_MANIFEST_MALFORMED", "no package name")
    if not signers:
        raise InstallError(
            "INSTALL_PARSE_FAILED_NO_CERTIFICATES", "Failed to collect certificates from the APK"
        )
    abis = frozenset(name[1] for name in names if name[0] == "lib" and len(name) == 3)
    return Apk(found.package, code, found.version_name or "", minimum, abis, signers)


def _signers(found: Any) -> frozenset[str]:
    """The certificates of the newest signature scheme that the APK has."""
    if found.is_signed_v3():
        certificates = found.get_certificates_der_v3()
    elif found.is_signed_v2():
        certificates = found.get_certificates_der_v2()
    else:
        certificates = [found.get_certificate_der(name) for name in found.get_signature_names()]
    return frozenset(hashlib.sha256(data).hexdigest() for data in certificates)


class Packages:
    """What is installed on a device with these files, ABIs and SDK."""

    def __init__(self, files: DeviceFiles, storage: Storage, properties: dict[str, str]) -> None:
        self._files = files
        self._folder = files.root / APPS
        self._storage = storage
        self._properties = properties

    def apk(self, package: str) -> Path | None:
        """The APK that was installed for a package, None if none was."""
        path = self._folder / package / "base.apk"
        return path if package in self.names() else None

    def names(self) -> list[str]:
        """The packages that were installed, sorted."""
        return sorted(path.parent.name for path in self._folder.glob("*/base.apk"))

    def install(self, path: Path, *, downgrade: bool = False) -> str:
        """Install an APK, over an older one of its package if there is one.

        Returns:
            The package's name.

        Raises:
            InstallError: for Android's reasons, in its words.
            OSError: the file cannot be read.
        """
        new = read_apk(path)
        abis = self._properties["ro.product.cpu.abilist"].split(",")
        sdk = int(self._properties["ro.build.version.sdk"])
        if new.min_sdk > sdk:
            raise InstallError(
                "INSTALL_FAILED_OLDER_SDK",
                f"Requires newer sdk version #{new.min_sdk} (current version is #{sdk})",
            )
        if new.abis and not new.abis.intersection(abis):
            raise InstallError(
                "INSTALL_FAILED_NO_MATCHING_ABIS", "Failed to extract native libraries, res=-113"
            )
        there = self.apk(new.package)
        if there is not None:
            _check_update(read_apk(there), new, downgrade)
        self._keep(path, new.package)
        return new.package

    def _keep(self, path: Path, package: str) -> None:
        folder = self._folder / package
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / "base.apk.part"
        try:
            self._storage.reserve(path.stat().st_size)
            shutil.copyfile(path, part)
            part.replace(folder / "base.apk")
        except OSError as error:
            part.unlink(missing_ok=True)
            if error.errno != errno.ENOSPC:
                raise
            raise InstallError(
                "INSTALL_FAILED_INSUFFICIENT_STORAGE",
                "Requested internal only, but not enough space",
            ) from None

    def uninstall(self, package: str) -> bool:
        """Remove a package and, as Android does, its files; False where it was not installed."""
        if self.apk(package) is None:
            return False
        shutil.rmtree(self._folder / package)
        for place in ("media", "data"):
            shutil.rmtree(self._files.root / "sdcard/Android" / place / package, ignore_errors=True)
        return True


def _check_update(old: Apk, new: Apk, downgrade: bool) -> None:
    """Refuse what may not replace what is there."""
    if new.signers != old.signers:
        raise InstallError(
            "INSTALL_FAILED_UPDATE_INCOMPATIBLE",
            f"Existing package {new.package} signatures do not match newer version; ignoring!",
        )
    if new.version_code < old.version_code and not downgrade:
        raise InstallError(
            "INSTALL_FAILED_VERSION_DOWNGRADE",
            f"Downgrade detected: Update version code {new.version_code} is older than "
            f"current {old.version_code}",
        )


__all__ = ["PACKAGE", "Apk", "InstallError", "Packages", "read_apk"]
