"""The services a client can open on the device: sync, shell and exec."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from device_bench.virtual import shell, sync
from device_bench.virtual.streams import Stream

if TYPE_CHECKING:
    from device_bench.virtual.device import Device

Service = Callable[[Stream, "Device"], None]


def find(name: str) -> Service | None:
    """The service that the client asks for by ``name``, or None if there is none of that name."""
    kind, colon, command = name.partition(":")
    if not colon:
        return None
    family, *options = kind.split(",")
    if name == "sync:":
        return sync.serve
    if family == "shell" and "v2" in options:
        return partial(shell.serve_v2, command)
    if family in ("shell", "exec"):
        return partial(shell.serve_v1, command)
    return None
