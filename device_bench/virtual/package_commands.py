"""``pm``, ``cmd package`` and ``dumpsys package``: what is installed, and installing."""

from __future__ import annotations

from pathlib import Path

from device_bench.virtual.context import CommandError, CommandFunction, Context
from device_bench.virtual.files import PACKAGE
from device_bench.virtual.packages import InstallError, read_apk

APK = f"/data/app/{PACKAGE}/base.apk"
HINT = (
    "virtual device: the app is the desktop harness, which is not built on this machine; "
    "run `make setup` or name its launcher with SPARSEREC_HARNESS"
)
_STAGED = "/data/local/tmp/.streamed.apk"


def pm(context: Context, arguments: list[str]) -> int:
    """``pm path PACKAGE``, ``pm list packages [FILTER]``, ``pm install``, ``pm uninstall``."""
    match arguments:
        case ["path", package]:
            if package not in _installed(context):
                return 1
            context.print(f"package:/data/app/{package}/base.apk")
        case ["list", "packages", *rest]:
            wanted = [text for text in rest if not text.startswith("-")]
            for package in _installed(context):
                if all(text in package for text in wanted):
                    context.print(f"package:{package}")
        case ["install", *options]:
            return _install(context, options)
        case ["uninstall", *options] if options and not options[-1].startswith("-"):
            return _uninstall(context, options[-1])
        case _:
            raise CommandError(
                "virtual device: only path, list packages, install and uninstall are supported", 2
            )
    return 0


def cmd(context: Context, arguments: list[str]) -> int:
    """``cmd package ...``: the same as ``pm``."""
    if arguments[:1] != ["package"]:
        raise CommandError(f"Can't find service: {' '.join(arguments[:1])}", 20)
    return pm(context, arguments[1:])


def _installed(context: Context) -> list[str]:
    """The app that came with the device, where its harness is built, and those installed."""
    own = [PACKAGE] if context.device.harness.installed else []
    return sorted({*own, *context.device.packages.names()})


def _install(context: Context, options: list[str]) -> int:
    """``install [-r] [-t] [-g] [-d] [-i WHO] [--user N] PATH``, or ``-S BYTES`` of stdin."""
    downgrade, size, paths = False, None, []
    rest = list(options)
    while rest:
        option = rest.pop(0)
        if option in ("-i", "--user", "-S") and rest:
            value = rest.pop(0)
            size = int(value) if option == "-S" and value.isdecimal() else size
        elif option in ("-r", "-t", "-g", "-d"):
            downgrade = downgrade or option == "-d"
        elif option.startswith("-") and option != "-":
            raise CommandError(f"virtual device: option {option} is not supported", 2)
        else:
            paths.append(option)
    answer = context.device.faults.spec.install_answer
    staged = size is not None and paths in ([], ["-"])
    if not staged and len(paths) != 1:
        raise CommandError("needs one APK", 2)
    try:
        path = _receive(context, size) if size is not None and staged else context.path(paths[0])
        if answer is not None:
            raise InstallError(answer, "")
        context.device.packages.install(path, downgrade=downgrade)
    except InstallError as error:
        context.print(f"Failure [{error}]")
        return 1
    except OSError as error:
        context.print(f"Failure [INSTALL_FAILED_INVALID_URI: {error.strerror}]")
        return 1
    finally:
        if staged:
            context.path(_STAGED).unlink(missing_ok=True)
    context.print("Success")
    return 0


def _receive(context: Context, size: int) -> Path:
    """Take ``size`` bytes of stdin as a file.

    Raises:
        InstallError: stdin ends before, or there is no space.
    """
    path = context.path(_STAGED)
    full = None
    with context.device.storage.open(path, "wb") as file:
        while size:
            data = context.stdin.read(min(size, 1 << 16))
            if not data:
                raise InstallError("INSTALL_FAILED_INVALID_APK", "the stream ended early")
            size -= len(data)
            try:
                if full is None:
                    file.write(data)
            except OSError as error:
                full = error  # the client sends all of it before it looks at our answer
    if full is not None:
        raise InstallError("INSTALL_FAILED_INSUFFICIENT_STORAGE", full.strerror or "")
    return path


def _uninstall(context: Context, package: str) -> int:
    if context.device.packages.uninstall(package):
        context.print("Success")
        return 0
    context.print("Failure [DELETE_FAILED_INTERNAL_ERROR]")
    return 1


def dump_package(context: Context, package: str) -> None:
    """``dumpsys package PACKAGE``."""
    if package not in _installed(context):
        context.print(f"Unable to find package: {package}")
        return
    context.print(f"Packages:\n  Package [{package}]:\n    codePath=/data/app/{package}/base.apk")
    path = context.device.packages.apk(package)
    if path is not None:
        apk = read_apk(path)
        context.print(
            f"    versionCode={apk.version_code} minSdk={apk.min_sdk}\n"
            f"    versionName={apk.version_name}"
        )


COMMANDS: dict[str, CommandFunction] = {"cmd": cmd, "pm": pm}
