"""Why a device cannot be used, in words that say what to do about it."""

from __future__ import annotations

import socket

from adb_shell import exceptions

from sparserec.errors import SparseRecError


class DeviceError(SparseRecError):
    """A device that cannot be used as things are; ``state`` is the word for a list of devices."""

    def __init__(self, message: str, fix: str = "", state: str = "offline") -> None:
        super().__init__(message, fix)
        self.state = state


def is_device_fault(error: BaseException) -> bool:
    """Whether an exception comes from adb-shell or libusb, neither of which has a base class."""
    return type(error).__module__.split(".")[0] in ("adb_shell", "usb1")


def unauthorised(name: str) -> DeviceError:
    """The error for a phone whose owner has not accepted this computer's key."""
    return DeviceError(
        f"{name}: the device does not trust this computer yet",
        "unlock the phone, accept 'Allow USB debugging?' there and run the command again",
        "unauthorised",
    )


def connect_error(name: str, error: BaseException) -> DeviceError:
    """Say why connecting failed; libusb's errors are told by name, as libusb may be absent."""
    cause = type(getattr(error, "usb_error", None) or error).__name__
    if isinstance(error, ConnectionRefusedError):
        return DeviceError(
            f"{name}: connection refused: no adb daemon listens there",
            "check host and port; on a phone connected by USB, `adb tcpip 5555` opens its port",
        )
    if cause == "USBErrorBusy":
        return DeviceError(
            f"{name}: another program, most likely an adb server, holds this USB device",
            "run `adb kill-server`, close Android Studio, and try again",
            "busy",
        )
    if cause == "USBErrorAccess":
        return no_permission(name)
    if isinstance(error, socket.gaierror):
        return DeviceError(f"{name}: no such host", "check the host's name")
    timeouts = (exceptions.AdbTimeoutError, exceptions.TcpTimeoutException, TimeoutError)
    if isinstance(error, timeouts) or cause == "USBErrorTimeout":
        return DeviceError(
            f"{name}: the device does not answer",
            "unlock it, check that USB debugging is on, replug it, or restart it",
        )
    return DeviceError(
        f"{name}: cannot connect: {error}",
        "replug the device, check that USB debugging is on, or restart it",
    )


def no_permission(name: str) -> DeviceError:
    """The error for a USB device that this user may not open."""
    return DeviceError(
        f"{name}: this user may not open the USB device",
        "install your system's udev rules for Android (Debian: apt install "
        "android-sdk-platform-tools-common), add yourself to group plugdev, and replug the phone",
        "no permission",
    )
