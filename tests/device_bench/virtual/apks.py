"""Small APKs, written from the formats' descriptions and without Android's tools.

A binary ``AndroidManifest.xml`` (AOSP ``ResourceTypes.h``), empty libraries, and a signing block of
scheme v2 with a real certificate. The signature itself is not one: the virtual device reads who
signed an APK and does not verify it.
"""

from __future__ import annotations

import datetime
import io
import struct
import zipfile
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

ANDROID = "http://schemas.android.com/apk/res/android"
VERSION_CODE, VERSION_NAME, MIN_SDK = 0x0101021B, 0x0101021C, 0x0101020C
_STRING, _INTEGER, _NONE = 0x03, 0x10, 0xFFFFFFFF


def certificate(name: str) -> bytes:
    """A new self-signed certificate, DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime.datetime(2026, 1, 1)
    made = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(start).not_valid_after(start.replace(year=2036))
    return made.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def build_apk(
    signer: bytes | None,
    package: str = "org.sparserec.app",
    version_code: int = 1,
    min_sdk: int = 26,
    abis: Sequence[str] = ("arm64-v8a", "x86_64"),
    padding: int = 0,
) -> bytes:
    """An APK; ``signer`` is the certificate, None for none; ``padding`` bytes make it larger."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("AndroidManifest.xml", _manifest(package, version_code, min_sdk))
        for abi in abis:
            archive.writestr(f"lib/{abi}/libexecutorch.so", b"\x7fELF" + bytes(padding))
    return file.getvalue() if signer is None else _signed(file.getvalue(), signer)


def _chunk(kind: int, header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<HHI", kind, 8 + len(header), 8 + len(header) + len(body)) + header + body


def _manifest(package: str, version_code: int, min_sdk: int) -> bytes:
    """``<manifest package=... versionCode=... versionName=...><uses-sdk minSdkVersion=.../>``."""
    resources = [VERSION_CODE, VERSION_NAME, MIN_SDK]
    texts = ["versionCode", "versionName", "minSdkVersion", "android", ANDROID, "manifest"]
    texts += ["package", package, f"{version_code}.0", "uses-sdk"]
    at = {text: index for index, text in enumerate(texts)}
    android, uri = at["android"], at[ANDROID]

    def attribute(space: int, name: str, kind: int, value: int) -> bytes:
        raw = value if kind == _STRING else _NONE
        return struct.pack("<IIIHBBI", space, at[name], raw, 8, 0, kind, value)

    def start(name: str, *attributes: bytes) -> bytes:
        element = struct.pack("<IIHHHHHH", _NONE, at[name], 20, 20, len(attributes), 0, 0, 0)
        return _chunk(0x0102, struct.pack("<II", 1, _NONE), element + b"".join(attributes))

    def end(name: str) -> bytes:
        return _chunk(0x0103, struct.pack("<II", 1, _NONE), struct.pack("<II", _NONE, at[name]))

    def namespace(kind: int) -> bytes:
        return _chunk(kind, struct.pack("<II", 1, _NONE), struct.pack("<II", android, uri))

    body = [
        _strings(texts),
        _chunk(0x0180, b"", struct.pack(f"<{len(resources)}I", *resources)),
        namespace(0x0100),
        start(
            "manifest",
            attribute(uri, "versionCode", _INTEGER, version_code),
            attribute(uri, "versionName", _STRING, at[f"{version_code}.0"]),
            attribute(_NONE, "package", _STRING, at[package]),
        ),
        start("uses-sdk", attribute(uri, "minSdkVersion", _INTEGER, min_sdk)),
        end("uses-sdk"),
        end("manifest"),
        namespace(0x0101),
    ]
    return _chunk(0x0003, b"", b"".join(body))


def _strings(texts: list[str]) -> bytes:
    """A pool of UTF-16 strings, each with its length before it and a zero after."""
    data, offsets = b"", []
    for text in texts:
        offsets.append(len(data))
        data += struct.pack("<H", len(text)) + text.encode("utf-16-le") + b"\0\0"
    data += bytes(-len(data) % 4)
    start = 28 + 4 * len(texts)
    header = struct.pack("<IIIII", len(texts), 0, 0, start, 0)
    return _chunk(0x0001, header, struct.pack(f"<{len(texts)}I", *offsets) + data)


def _sized(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def _signed(apk: bytes, signer: bytes) -> bytes:
    """Put a v2 signing block before the central directory, and say where that is now."""
    end = apk.rindex(b"PK\5\6")
    directory = struct.unpack_from("<I", apk, end + 16)[0]
    digests = _sized(_sized(struct.pack("<I", 0x0201) + _sized(bytes(32))))
    data = digests + _sized(_sized(signer)) + _sized(b"")
    signatures = _sized(_sized(struct.pack("<I", 0x0201) + _sized(b"none")))
    signers = _sized(_sized(_sized(data) + signatures + _sized(b"public key")))
    pair = struct.pack("<QI", 4 + len(signers), 0x7109871A) + signers
    size = struct.pack("<Q", len(pair) + 8 + 16)
    block = size + pair + size + b"APK Sig Block 42"
    trailer = apk[directory:end] + apk[end : end + 16]
    return (
        apk[:directory]
        + block
        + trailer
        + struct.pack("<I", directory + len(block))
        + apk[end + 20 :]
    )
