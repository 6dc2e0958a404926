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


class ConnectionLostError(DeviceError):
    """The connection broke off or fell silent: another try may succeed."""


class RefusedError(Exception):
    """The device answered, and its answer is no; the text is the device's."""


def is_device_fault(error: BaseException) -> bool:
    """Whether an exception comes from adb-shell or libusb, neither of which has a base class."""
    return type(error).__module__.split(".")[0] in ("adb_shell", "usb1")


def is_silence(error: BaseException) -> bool:
    """Whether an exception says that nothing came in time."""
    timeouts = (exceptions.AdbTimeoutError, exceptions.TcpTimeoutException, TimeoutError)
    return isinstance(error, timeouts) or usb_cause(error) == "USBErrorTimeout"


def usb_cause(error: BaseException) -> str:
    """The name of the exception, or of libusb's under it; told by name, as libusb may be absent."""
    return type(getattr(error, "usb_error", None) or error).__name__


def unauthorised(name: str) -> DeviceError:
    """The error for a phone whose owner has not accepted this computer's key."""
    return DeviceError(
        f"{name}: the device does not trust this computer yet",
        "unlock the phone, accept 'Allow USB debugging?' there and run the command again",
        "unauthorised",
    )


def connect_error(name: str, error: BaseException) -> DeviceError:
    """Say why connecting failed."""
    cause = usb_cause(error)
    if isinstance(error, ConnectionRefusedError):
        return ConnectionLostError(
            f"{name}: connection refused: no adb daemon listens there",
            "check host and port; on a phone connected by USB, `adb tcpip 5555` opens its port",
        )
    if cause == "USBErrorBusy":
        return DeviceError(
            f"{name}: another program holds this USB device, and no adb server here lists it",
            "close what uses it (Android Studio, scrcpy, an adb server on another port: adb "
            "kill-server), and try again",
            "busy",
        )
    if cause == "USBErrorAccess":
        return no_permission(name)
    if isinstance(error, socket.gaierror):
        return DeviceError(f"{name}: no such host", "check the host's name")
    if is_silence(error):
        return ConnectionLostError(
            f"{name}: the device does not answer",
            "unlock it, check that USB debugging is on, replug it, or restart it",
        )
    return ConnectionLostError(
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


def offline(name: str) -> DeviceError:
    """The error for a device that its adb server knows and cannot reach."""
    return ConnectionLostError(
        f"{name}: the adb server says that the device is offline",
        "replug it or switch USB debugging off and on; a device at HOST:PORT: "
        f"adb disconnect {name}; adb connect {name}",
    )
