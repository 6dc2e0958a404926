"""The RSA keys that a client shows to a device, and where our own state is kept.

A phone gets the user's own adb key, ``~/.android/adbkey``, so it asks its owner only once whether
to trust this computer. The virtual device gets a key of its own, and the user's is left alone.
"""

from __future__ import annotations

import base64
import os
import tempfile
from pathlib import Path

from adb_shell.auth.keygen import encode_pubkey, get_user_info
from adb_shell.auth.sign_cryptography import CryptographySigner
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from device_bench.device_errors import DeviceError
from sparserec.errors import SparseRecError

_FAULTS = (OSError, ValueError, TypeError, UnsupportedAlgorithm)
"""What reading a key raises; TypeError where it has a passphrase."""


def state_dir() -> Path:
    """The folder of what outlives a command: ``$XDG_STATE_HOME/sparserec``; made if absent.

    Raises:
        SparseRecError: it cannot be made.
    """
    home = os.environ.get("XDG_STATE_HOME")
    path = (Path(home) if home else Path.home() / ".local" / "state") / "sparserec"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SparseRecError(
            f"{path}: cannot be made: {error.strerror}",
            "set XDG_STATE_HOME to a folder that can be written",
        ) from None
    return path


def user_key_path() -> Path:
    """Where the user's adb key is, or would be."""
    return Path.home() / ".android" / "adbkey"


def user_key() -> Path:
    """The user's adb key, made if absent."""
    return ensure_key(user_key_path())


def virtual_key() -> Path:
    """The key that virtual devices trust, made if absent."""
    return ensure_key(state_dir() / "adbkey")


def public(key: Path) -> Path:
    """The file of the public half of ``key``."""
    return key.with_name(key.name + ".pub")


def ensure_key(path: Path) -> Path:
    """Make a 2048-bit key pair at ``path`` and ``path.pub`` unless it is there; returns ``path``.

    The private file has mode 0600 from its first byte on, and an existing one is never replaced.

    Raises:
        DeviceError: the files cannot be written or read.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            _write_new(path, text)
        if not public(path).exists():
            line = base64.b64encode(encode_pubkey(str(path))) + get_user_info().encode()
            _write_new(public(path), line)
            public(path).chmod(0o644)
    except _FAULTS as error:
        raise _unusable(path, error) from None
    return path


def signer(path: Path) -> CryptographySigner:
    """What proves to a device that this computer has the key at ``path``.

    Raises:
        DeviceError: the key's files cannot be read, or hold no RSA key without a passphrase.
    """
    try:
        found = CryptographySigner(str(path))
        if not isinstance(found.rsa_key, rsa.RSAPrivateKey):
            raise ValueError("not an RSA key")
    except _FAULTS as error:
        raise _unusable(path, error) from None
    return found


def _unusable(path: Path, error: Exception) -> DeviceError:
    return DeviceError(
        f"{path}: cannot be used as an adb key: {error}",
        "check the file and its folder's permissions, or move it away to have a new one made",
    )


def _write_new(path: Path, data: bytes) -> None:
    """Write a whole file of mode 0600 unless there is one: of two processes, the first wins."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.link(name, path)
    except FileExistsError:
        pass
    finally:
        Path(name).unlink()
