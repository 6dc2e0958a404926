"""Doing something on a device although its connection breaks off now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from device_bench.adb import Device
from device_bench.device_errors import ConnectionLostError

TRIES = 5
"""How often in a row a try may get nowhere."""
PAUSE_SECONDS = 0.5
"""Before the second try; doubled for each one after it."""

Result = TypeVar("Result")


def persist(
    device: Device, action: Callable[[int], Result], moved: Callable[[], int] = lambda: 0
) -> Result:
    """Run ``action`` until it ends without a lost connection, connecting anew before each repeat.

    Args:
        device: connected.
        action: can be repeated as a whole; its argument is how many tries just before it got
            nowhere.
        moved: a count that grows as the action gets somewhere: then it has all its tries again.

    Raises:
        ConnectionLostError: the connection was lost TRIES times in a row and nothing was moved.
        DeviceError: anything else that the action or connecting raises.
    """
    failures, reached = 0, moved()
    lost = False
    while True:
        try:
            if lost:
                device.connect()
            return action(failures)
        except ConnectionLostError as error:
            lost = True
            failures = 1 if moved() > reached else failures + 1
            reached = moved()
            if failures >= TRIES:
                raise ConnectionLostError(
                    f"{error.message}, {failures} times in a row", error.fix, error.state
                ) from None
        time.sleep(PAUSE_SECONDS * 2 ** (failures - 1))
