"""RSA authentication: the daemon sends 20 random bytes, the client signs them with its key.

The signature is PKCS#1 v1.5 over the token taken *as if it were* a SHA-1 digest (AOSP
``daemon/auth.cpp``). Public keys come in Android's own form: base64 of a little-endian struct
(AOSP ``libcrypto_utils/android_pubkey.cpp``), a space, and a comment.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, utils
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA1

from sparserec.errors import SparseRecError

TOKEN_BYTES = 20
MODULUS_BYTES = 256

# modulus size in 32-bit words, -1/n mod 2^32, modulus, Montgomery's R^2 mod n, exponent
_PUBLIC_KEY = struct.Struct(f"<II{MODULUS_BYTES}s{MODULUS_BYTES}sI")


def parse_public_key(line: str | bytes) -> RSAPublicKey:
    """Parse one line of an ``adbkey.pub`` file: a 2048-bit RSA key.

    The struct's precomputed members (-1/n and R^2) follow from the modulus and are not used.

    Raises:
        ValueError: the line is not such a key.
    """
    text = line.encode() if isinstance(line, str) else line
    fields = text.strip(b"\0 \t\r\n").split(None, 1)
    try:
        blob = base64.b64decode(fields[0], validate=True) if fields else b""
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from None
    if len(blob) != _PUBLIC_KEY.size:
        raise ValueError(f"{len(blob)} bytes where a 2048-bit key has {_PUBLIC_KEY.size}")
    words, _, modulus, _, exponent = _PUBLIC_KEY.unpack(blob)
    if words * 4 != MODULUS_BYTES:
        raise ValueError(f"a modulus of {words * 32} bits where 2048 are expected")
    return RSAPublicNumbers(exponent, int.from_bytes(modulus, "little")).public_key()


def load_authorized_keys(files: Iterable[Path]) -> list[RSAPublicKey]:
    """Read every key of every file, one per line; empty lines are skipped.

    Raises:
        SparseRecError: a file cannot be read or a line is not a key.
    """
    keys = []
    for file in files:
        try:
            lines = file.read_bytes().splitlines()
        except OSError as error:
            raise SparseRecError(
                f"{file}: cannot read the authorised key: {error.strerror}",
                "name an existing public key, such as ~/.android/adbkey.pub",
            ) from None
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                keys.append(parse_public_key(line))
            except ValueError as error:
                raise SparseRecError(
                    f"{file}:{number}: not an adb public key: {error}",
                    "use the .pub file that `adb keygen` or adb_shell.auth.keygen writes",
                ) from None
    return keys


def verify(key: RSAPublicKey, token: bytes, signature: bytes) -> bool:
    """Whether ``signature`` over the 20-byte ``token`` was made with ``key``'s private half."""
    try:
        key.verify(signature, token, padding.PKCS1v15(), utils.Prehashed(SHA1()))
    except InvalidSignature:
        return False
    return True


def is_among(line: bytes, keys: Iterable[RSAPublicKey]) -> bool:
    """Whether a client's public key is one of ``keys``."""
    try:
        numbers = parse_public_key(line).public_numbers()
    except ValueError:
        return False
    return any(key.public_numbers() == numbers for key in keys)


def describe_key(line: bytes) -> str:
    """A client's public key as people can compare it: a short SHA-256 and the comment."""
    text = line.rstrip(b"\0").strip()
    comment = text.partition(b" ")[2].decode(errors="replace")
    digest = hashlib.sha256(text.partition(b" ")[0]).hexdigest()[:16]
    return f"sha256:{digest} {comment if comment.isprintable() else ''}".rstrip()
