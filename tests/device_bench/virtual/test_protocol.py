"""Messages and keys, against adb-shell's own packing and signing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from adb_shell.adb_message import AdbMessage
from adb_shell.auth.sign_cryptography import CryptographySigner
from adb_shell.auth.sign_pythonrsa import PythonRSASigner
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from device_bench.virtual import auth, protocol
from sparserec.errors import SparseRecError

WORDS = st.integers(0, 0xFFFFFFFF)
COMMANDS = st.sampled_from([b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"WRTE", b"CLSE"])


@given(COMMANDS, WORDS, WORDS, st.binary(max_size=3000))
def test_messages_equal_those_of_adb_shell(
    command: bytes, arg0: int, arg1: int, payload: bytes
) -> None:
    data = protocol.pack(protocol.Message(command, arg0, arg1, payload))
    assert data == AdbMessage(command, arg0, arg1, payload).pack() + payload
    header = protocol.parse_header(data[:24])
    assert (header.command, header.arg0, header.arg1) == (command, arg0, arg1)
    assert header.length == len(payload)
    protocol.check_payload(header, payload, protocol.VERSION_CHECKSUM)


@given(st.binary(min_size=24, max_size=24))
def test_any_24_bytes_parse_or_are_refused(data: bytes) -> None:
    try:
        header = protocol.parse_header(data)
    except protocol.ProtocolError:
        return
    assert header.length <= protocol.MAX_PAYLOAD


def test_checksum_counts_only_in_the_old_version() -> None:
    message = protocol.Message(b"WRTE", 1, 2, b"abc")
    old = protocol.parse_header(protocol.pack(message)[:24])
    new = protocol.parse_header(protocol.pack(message, protocol.VERSION_SKIP_CHECKSUM)[:24])
    assert (old.checksum, new.checksum) == (97 + 98 + 99, 0)
    protocol.check_payload(new, b"abc", protocol.VERSION_SKIP_CHECKSUM)
    with pytest.raises(protocol.ProtocolError, match="checksum"):
        protocol.check_payload(old, b"abd", protocol.VERSION_CHECKSUM)


def test_public_key_is_that_of_the_private_key(key: Path) -> None:
    private = load_pem_private_key(key.read_bytes(), None)
    parsed = auth.parse_public_key(key.with_suffix(".pub").read_bytes())
    assert parsed.public_numbers() == private.public_key().public_numbers()  # type: ignore[union-attr]


@pytest.mark.parametrize("signer", ["cryptography", "pythonrsa"])
def test_signature_of_either_signer_is_verified(key: Path, other_key: Path, signer: str) -> None:
    make = CryptographySigner if signer == "cryptography" else PythonRSASigner.FromRSAKeyPath
    token = os.urandom(20)
    signature = bytes(make(str(key)).Sign(token))
    mine, other = (
        auth.parse_public_key(path.with_suffix(".pub").read_bytes()) for path in (key, other_key)
    )
    assert auth.verify(mine, token, signature)
    assert not auth.verify(other, token, signature)
    assert not auth.verify(mine, bytes(20), signature)


@given(st.binary(max_size=800))
def test_any_line_is_a_key_or_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"base64|bytes where"):
        auth.parse_public_key(line)


def test_key_files_that_cannot_be_used_are_named(tmp_path: Path, key: Path) -> None:
    with pytest.raises(SparseRecError, match=r"absent\.pub"):
        auth.load_authorized_keys([tmp_path / "absent.pub"])
    mixed = tmp_path / "mixed.pub"
    mixed.write_bytes(key.with_suffix(".pub").read_bytes() + b"\n\nnonsense here\n")
    with pytest.raises(SparseRecError, match=r"mixed\.pub:3"):
        auth.load_authorized_keys([mixed])
