"""Inputs by mutation: an input is a function of seed, target and number."""

from __future__ import annotations

import random
from collections.abc import Sequence

MAX_BYTES = 1 << 15
TOKENS = (
    b"\0", b"\n", b"\r\n", b"/", b"..", b"../../", b"//", b"~", b"%s", b"%n", b"\xff\xfe", b"\x7f",
    b"'", b'"', b"\\", b"$", b"$(", b"`", b";", b"&&", b"||", b"|", b">", b">>", b"<", b"2>&1",
    b"{", b"}", b"[", b"]", b":", b",", b"null", b"true", b"-1", b"0", b"1e999", b"NaN", b"*",
    b"9" * 30, b"-" * 9, b"\xe2\x80\xae", b"\xed\xa0\x80", b"a" * 300, b"/etc/passwd", b"link/",
    b"INSTRUMENTATION_", b"CNXN", b"OPEN", b"WRTE", b"CLSE", b"SEND", b"DATA", b"DONE", b"RECV",
    b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x00\x00\x01\x00", b"\x00\x00\x00\x80",
)  # fmt: skip


def make(seeds: Sequence[bytes], seed: int, target: str, number: int) -> bytes:
    """Input ``number``: a seed with one to eight changes."""
    chance = random.Random(f"{seed} {target} {number}")
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        _change(data, seeds, chance)
    return bytes(data[:MAX_BYTES])


def _change(data: bytearray, seeds: Sequence[bytes], chance: random.Random) -> None:
    at = chance.randint(0, len(data))
    end = min(len(data), at + chance.choice((1, 1, 2, 4, 16, 64)))
    kind = chance.randrange(8)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << chance.randrange(8)
    elif kind == 1:
        del data[at:end]
    elif kind == 2:
        data[at:at] = chance.randbytes(chance.randint(1, 8))
    elif kind == 3:
        data[at:at] = data[at:end] * chance.choice((1, 2, 50))
    elif kind == 4:
        data[at:end] = chance.choice(TOKENS)
    elif kind == 5:
        data[at:at] = chance.choice(TOKENS)
    elif kind == 6:
        other = chance.choice(seeds)
        cut = chance.randint(0, len(other))
        data[at:] = other[cut:]
    else:
        del data[at:]
