"""Android's own commands, as far as a client needs them to find, run and watch the app.

What this device does not have (a battery, thermal sensors, other packages) is said to be absent;
nothing is made up.
"""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

from device_bench.virtual.context import CommandError, CommandFunction, Context
from device_bench.virtual.files import PACKAGE
from device_bench.virtual.harness import USER_REQUESTED
from device_bench.virtual.package_commands import HINT, dump_package

INSTRUMENTATION = f"{PACKAGE}/.HarnessInstrumentation"


def getprop(context: Context, arguments: list[str]) -> int:
    """``getprop [NAME]``: an unknown property is an empty line, as on a phone."""
    properties = context.device.properties
    if arguments:
        context.print(properties.get(arguments[0], ""))
    else:
        context.print("\n".join(f"[{name}]: [{properties[name]}]" for name in sorted(properties)))
    return 0


def am(context: Context, arguments: list[str]) -> int:
    """``am instrument -w -r [-e KEY VALUE ...] COMPONENT`` and ``am force-stop PACKAGE``."""
    match arguments:
        case ["instrument", *options]:
            return _instrument(context, options)
        case ["force-stop", package]:
            if package == PACKAGE:
                context.device.harness.stop(reason=USER_REQUESTED)
            return 0
    raise CommandError("virtual device: only instrument and force-stop are supported", 2)


def _instrument(context: Context, options: list[str]) -> int:
    values: dict[str, str] = {}
    switches: set[str] = set()
    rest = list(options)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option in ("-w", "-r"):
            switches.add(option)
        elif option == "-e" and len(rest) >= 2:
            key = rest.pop(0)
            values[key] = rest.pop(0)
        else:
            raise CommandError(f"virtual device: instrument option {option} is not supported", 2)
    if switches != {"-w", "-r"} or len(rest) != 1:
        raise CommandError("virtual device: needs -w -r, -e KEY VALUE pairs and a component", 2)
    known = rest[0] in (INSTRUMENTATION, INSTRUMENTATION.replace("/.", f"/{PACKAGE}."))
    if not known or not context.device.harness.installed:
        return _not_found(context, rest[0], HINT if known else f"only {INSTRUMENTATION} is there")
    try:
        context.device.harness.run(values, context.stdout, context.hangup)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _not_found(context, rest[0], f"{error.filename}: {error.strerror}")
    return 0


def _not_found(context: Context, component: str, hint: str) -> int:
    """Say what ``am`` says of an instrumentation it cannot start."""
    context.print("INSTRUMENTATION_STATUS: id=ActivityManagerService")
    context.print(
        f"INSTRUMENTATION_STATUS: Error=Unable to find instrumentation info for: {component}"
    )
    context.print("INSTRUMENTATION_STATUS_CODE: -1")
    context.print(f"INSTRUMENTATION_FAILED: {component}")
    context.complain(hint)
    return 1


def dumpsys(context: Context, arguments: list[str]) -> int:
    """``dumpsys battery``, ``thermalservice``, ``meminfo PACKAGE`` and ``package PACKAGE``."""
    match arguments:
        case ["battery"]:
            _battery(context)
        case ["thermalservice"]:
            _thermal(context)
        case ["activity", "exit-info", package]:
            _exit_info(context, package)
        case ["activity", "services", _]:
            context.print("ACTIVITY MANAGER SERVICES (dumpsys activity services)\n  (nothing)")
        case ["meminfo", package]:
            _meminfo(context, package)
        case ["package", package]:
            dump_package(context, package)
        case _:
            raise CommandError(f"Can't find service: {' '.join(arguments)}")
    return 0


def _battery(context: Context) -> None:
    """What is there of a battery: nothing, unless one was asked for."""
    battery = context.device.faults.spec.battery
    if battery is None:
        context.print("Current Battery Service state:\n  present: false")
        return
    powered = str(battery.charging).lower()
    context.print(
        f"Current Battery Service state:\n  AC powered: false\n  USB powered: {powered}\n"
        f"  status: {2 if battery.charging else 3}\n  health: 2\n  present: true\n"
        f"  level: {battery.level}\n  scale: 100"
    )


def _thermal(context: Context) -> None:
    """The thermal status: none, unless one was asked for."""
    status = context.device.faults.thermal_status()
    if status is None:
        context.print("HAL Ready: false")
        return
    context.print(f"IsStatusOverride: false\nThermal Status: {status}\nHAL Ready: true")


_REASONS = {1: "EXIT_SELF", 2: "SIGNALED", 3: "LOW_MEMORY", 10: "USER REQUESTED"}


def _exit_info(context: Context, package: str) -> None:
    """How the app's last processes ended, newest first, as Android 11 and newer say it."""
    context.print("ACTIVITY MANAGER PROCESS EXIT INFO (dumpsys activity exit-info)")
    context.print(f"  package: {package}\n    Historical Process Exit for uid=10123")
    exits = reversed(context.device.harness.exits) if package == PACKAGE else ()
    for number, end in enumerate(exits):
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(end.time))
        context.print(
            f"        ApplicationExitInfo #{number}:\n"
            f"          timestamp={when}.{int(end.time * 1000) % 1000:03d} pid={end.pid} "
            "realUid=10123 packageUid=10123 definingUid=10123 user=0\n"
            f"          process={package} reason={end.reason} ({_REASONS[end.reason]}) "
            f"subreason=0 (UNKNOWN) status={end.status}"
        )


def _meminfo(context: Context, package: str) -> None:
    """The app's memory from the host's ``/proc``, where it has one."""
    pid = context.device.harness.pid if package == PACKAGE else None
    if pid is None:
        context.print(f"No process found for: {package}")
        return
    context.print(f"** MEMINFO in pid {pid} [{package}] **")
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return
    found = dict(re.findall(r"^(Pss|Rss|SwapPss): +(\d+) kB", text, re.MULTILINE))
    names = {"Pss": "TOTAL PSS", "Rss": "TOTAL RSS", "SwapPss": "TOTAL SWAP PSS"}
    line = " ".join(f"{names[key]}: {found[key]:>8}" for key in names if key in found)
    context.print(f"           {line}")


def logcat(context: Context, arguments: list[str]) -> int:
    """``logcat -d [-t LINES]`` prints the newest lines and ends; ``logcat -c`` forgets them."""
    log = context.device.log
    match arguments:
        case ["-c"]:
            log.clear()
            return 0
        case ["-d"]:
            lines = log.lines()
        case ["-d", "-t", count] | ["-t", count] if count.isdecimal() and len(count) < 9:
            lines = log.lines()[-int(count) :] if int(count) else []
        case _:
            raise CommandError("virtual device: only -d, -t LINES and -c are supported", 2)
    if lines:
        context.print("\n".join(lines))
    return 0


def pidof(context: Context, arguments: list[str]) -> int:
    """``pidof PACKAGE``."""
    pid = context.device.harness.pid
    if arguments != [PACKAGE] or pid is None:
        return 1
    context.print(str(pid))
    return 0


def kill(context: Context, arguments: list[str]) -> int:
    """``kill [-SIGNAL] PID``: only the app's process can be signalled."""
    name = arguments[0].removeprefix("-") if arguments[:1] and arguments[0][0:1] == "-" else "TERM"
    wanted = {"9": "KILL", "15": "TERM", "2": "INT"}.get(name, name.removeprefix("SIG"))
    if wanted not in ("KILL", "TERM", "INT"):
        raise CommandError(f"virtual device: signal {name} is not supported", 2)
    harness = context.device.harness
    targets = [argument for argument in arguments if not argument.startswith("-")]
    if not targets or targets != [str(harness.pid)]:
        raise CommandError(f"{' '.join(targets)}: No such process")
    harness.stop(signal.Signals[f"SIG{wanted}"])
    return 0


def run_as(context: Context, arguments: list[str]) -> int:
    """``run-as PACKAGE ...``: refused, as for every release build."""
    raise CommandError(f"package not debuggable: {' '.join(arguments[:1])}")


COMMANDS: dict[str, CommandFunction] = {
    "am": am,
    "dumpsys": dumpsys,
    "getprop": getprop,
    "kill": kill,
    "logcat": logcat,
    "pidof": pidof,
    "run-as": run_as,
}
