"""Who signs the APK, and the signing: schemes v2 and v3, which Android 8 and newer read."""

from __future__ import annotations

import getpass
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from inputs import digest_of
from stages import run, tool

from sparserec.errors import SparseRecError

KEYSTORE, PASSWORD = "SPARSEREC_KEYSTORE", "SPARSEREC_KEYSTORE_PASSWORD"
ALIAS, KEY_PASSWORD = "SPARSEREC_KEY_ALIAS", "SPARSEREC_KEY_PASSWORD"
DEBUG_PASSWORD = "android"  # No secret: the same for everybody's debug key, as in Android's tools.


@dataclass(frozen=True)
class Signer:
    """A key in a keystore; passwords reach the tools through their environment only."""

    keystore: Path
    alias: str | None
    password: str = field(repr=False)
    key_password: str = field(repr=False)

    @property
    def identity(self) -> str:
        return f"{digest_of(self.keystore)} {self.alias or ''}"


def debug_signer() -> Signer:
    """The user's debug key, in their state folder; made, with mode 0600, if absent.

    Raises:
        SparseRecError: the folder cannot be written, or keytool fails.
    """
    home = os.environ.get("XDG_STATE_HOME")
    folder = (Path(home) if home else Path.home() / ".local" / "state") / "sparserec"
    path = folder / "apk-debug.keystore"
    if not path.exists():
        print(f"making a debug key: {path}", flush=True)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_key(path)
        except OSError as error:
            raise SparseRecError(
                f"{path}: cannot be written: {error.strerror}",
                "set XDG_STATE_HOME to a folder that can be written",
            ) from None
    return Signer(path, "debug", DEBUG_PASSWORD, DEBUG_PASSWORD)


def _make_key(path: Path) -> None:
    part = path.with_suffix(f".{os.getpid()}")
    command = [
        tool("keytool"), "-genkeypair", "-keystore", part, "-storetype", "PKCS12",
        "-alias", "debug", "-keyalg", "RSA", "-keysize", "3072", "-validity", "10950",
        "-dname", "CN=SparseRec debug key", "-storepass:env", PASSWORD,
    ]  # fmt: skip
    mask = os.umask(0o077)
    try:
        run("making a debug key", command, {PASSWORD: DEBUG_PASSWORD})
        part.replace(path)
    finally:
        os.umask(mask)
        part.unlink(missing_ok=True)


def release_signer() -> Signer:
    """The key that the environment names; its password is asked for if the environment lacks it.

    Raises:
        SparseRecError: no keystore is named, it is not there, or nobody can be asked.
    """
    named = os.environ.get(KEYSTORE)
    if not named:
        raise SparseRecError(f"{KEYSTORE} is not set", f"set {KEYSTORE} to your keystore's path")
    path = Path(named)
    if not path.is_file():
        raise SparseRecError(
            f"{KEYSTORE}: {path}: no such file", "make one with: keytool -genkeypair"
        )
    password = os.environ.get(PASSWORD) or _ask(path)
    return Signer(path, os.environ.get(ALIAS), password, os.environ.get(KEY_PASSWORD) or password)


def _ask(path: Path) -> str:
    if not sys.stdin.isatty():
        raise SparseRecError(
            f"{PASSWORD} is not set and there is no terminal to ask on",
            f"set {PASSWORD} in the environment; a password on the command line is refused",
        )
    return getpass.getpass(f"Password of {path}: ")


def sign(unsigned: Path, signed: Path, signer: Signer) -> None:
    """Sign with v2 and v3; SparseRecError if the key cannot be used."""
    alias = ["--ks-key-alias", signer.alias] if signer.alias else []
    command = [
        tool("apksigner"), "sign", "--ks", signer.keystore, *alias,
        "--ks-pass", f"env:{PASSWORD}", "--key-pass", f"env:{KEY_PASSWORD}",
        "--min-sdk-version", "26", "--v1-signing-enabled", "false", "--v2-signing-enabled", "true",
        "--v3-signing-enabled", "true", "--v4-signing-enabled", "false",
        "--out", signed, unsigned,
    ]  # fmt: skip
    secrets = {PASSWORD: signer.password, KEY_PASSWORD: signer.key_password}
    run(f"signing with {signer.keystore}", command, secrets)
