"""Commands that print, test and wait; they touch no file except to ask whether it is there."""

from __future__ import annotations

import os
import platform
import posixpath
import re
import time
from collections import deque
from collections.abc import Callable

from device_bench.virtual.context import CommandError, CommandFunction, Context, flags

LONGEST_SLEEP = 24 * 3600.0
_ESCAPE = re.compile(r"\\(0[0-7]{0,3}|[abfnrtv\\c])")
_ESCAPED = dict(zip("abfnrtv\\", "\a\b\f\n\r\t\v\\", strict=True))
_FORMAT = re.compile(r"%(.)")


def _unescape(text: str) -> tuple[str, bool]:
    r"""Resolve backslash escapes; False where ``\c`` said to print no more."""
    text, stop, _ = text.partition("\\c")

    def replace(match: re.Match[str]) -> str:
        code = match[1]
        return _ESCAPED[code] if code in _ESCAPED else chr(int(code, 8) & 0x7F)

    return _ESCAPE.sub(replace, text), not stop


def echo(context: Context, arguments: list[str]) -> int:
    """``echo [-neE] TEXT ...``; escapes are resolved unless ``-E``, as in Android's mksh."""
    newline, escapes = True, True
    while arguments and re.fullmatch("-[neE]+", arguments[0]):
        option = arguments.pop(0)
        newline = newline and "n" not in option
        escapes = "E" not in option
    text, goes_on = _unescape(" ".join(arguments)) if escapes else (" ".join(arguments), True)
    context.stdout.write(os.fsencode(text + ("\n" if newline and goes_on else "")))
    return 0


def printf(context: Context, arguments: list[str]) -> int:
    """``printf FORMAT [TEXT ...]`` with ``%s``, ``%d`` and ``%%``; repeated for further texts."""
    if not arguments:
        raise CommandError("no format", 2)
    values = deque(arguments[1:])

    def convert(match: re.Match[str]) -> str:
        if match[1] == "%":
            return "%"
        if match[1] not in "sd":
            raise CommandError(f"virtual device: {match[0]} is not supported", 2)
        return values.popleft() if values else {"s": "", "d": "0"}[match[1]]

    form = _unescape(arguments[0])[0]
    fields = sum(match[1] != "%" for match in _FORMAT.finditer(form))
    for _ in range(max(1, -(-len(values) // fields)) if fields else 1):
        context.stdout.write(os.fsencode(_FORMAT.sub(convert, form)))
    return 0


def true(context: Context, arguments: list[str]) -> int:
    """``true`` and ``:``."""
    return 0


def false(context: Context, arguments: list[str]) -> int:
    """``false``."""
    return 1


def sleep(context: Context, arguments: list[str]) -> int:
    """``sleep SECONDS``; ends early when the client goes."""
    try:
        seconds = float(arguments[0])
    except (IndexError, ValueError):
        raise CommandError("needs a number of seconds", 2) from None
    if not 0 <= seconds <= LONGEST_SLEEP:
        raise CommandError(f"not between 0 and {LONGEST_SLEEP:.0f} seconds", 2)
    context.hangup.wait(seconds)
    return 0


def cd(context: Context, arguments: list[str]) -> int:
    """``cd [DIRECTORY]``."""
    path = arguments[0] if arguments else "/"
    if not context.path(path).is_dir():
        raise CommandError(f"{path}: No such file or directory")
    context.state.cwd = context.device.files.absolute(path, context.state.cwd)
    return 0


def pwd(context: Context, arguments: list[str]) -> int:
    """``pwd``."""
    context.print(context.state.cwd)
    return 0


def export(context: Context, arguments: list[str]) -> int:
    """``export NAME=VALUE ...``."""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
            raise CommandError(f"{argument}: not a name")
        if equals:
            context.state.variables[name] = value
    return 0


def identity(context: Context, arguments: list[str]) -> int:
    """``id [-u]``: adb's user on a phone, which every client expects."""
    found, _ = flags(arguments, "u")
    context.print("2000" if found else "uid=2000(shell) gid=2000(shell) groups=2000(shell)")
    return 0


def uname(context: Context, arguments: list[str]) -> int:
    """``uname [-asrm]``: the kernel of the machine that the device runs on."""
    found, _ = flags(arguments, "asrm")
    values = {"s": platform.system(), "r": platform.release(), "m": platform.machine()}
    wanted = values if "a" in found else found or {"s"}
    context.print(" ".join(value for key, value in values.items() if key in wanted))
    return 0


def getconf(context: Context, arguments: list[str]) -> int:
    """``getconf PAGE_SIZE``: that of the machine the device runs on."""
    if arguments not in (["PAGE_SIZE"], ["PAGESIZE"]):
        raise CommandError("virtual device: only PAGE_SIZE is supported", 2)
    context.print(str(os.sysconf("SC_PAGE_SIZE")))
    return 0


def date(context: Context, arguments: list[str]) -> int:
    """``date [+FORMAT]``."""
    if len(arguments) > 1 or not all(argument.startswith("+") for argument in arguments):
        raise CommandError("virtual device: only 'date +FORMAT' is supported", 2)
    pattern = arguments[0][1:] if arguments else "%a %b %e %H:%M:%S %Z %Y"
    now = context.device.log.now()
    context.print(time.strftime(pattern.replace("%s", str(int(now))), time.localtime(now)))
    return 0


def basename(context: Context, arguments: list[str]) -> int:
    """``basename PATH``."""
    if len(arguments) != 1:
        raise CommandError("needs one path", 2)
    context.print(posixpath.basename(arguments[0].rstrip("/")) or "/")
    return 0


def dirname(context: Context, arguments: list[str]) -> int:
    """``dirname PATH``."""
    if len(arguments) != 1:
        raise CommandError("needs one path", 2)
    context.print(
        posixpath.dirname(arguments[0].rstrip("/")) or ("/" if arguments[0][:1] == "/" else ".")
    )
    return 0


def bracket(context: Context, arguments: list[str]) -> int:
    """``[ EXPRESSION ]``."""
    if not arguments or arguments[-1] != "]":
        raise CommandError("missing ]", 2)
    return test(context, arguments[:-1])


def test(context: Context, arguments: list[str]) -> int:
    """``test EXPRESSION``: one test, which ``!`` may negate."""
    if arguments[:1] == ["!"] and 2 < len(arguments) < 6:
        return int(not test(context, arguments[1:]))
    if len(arguments) <= 1:
        return int(not any(arguments))
    if len(arguments) == 2:
        return int(not _unary(context, *arguments))
    if len(arguments) == 3:
        return int(not _binary(*arguments))
    raise CommandError("virtual device: only one test at a time is supported", 2)


def _unary(context: Context, operator: str, operand: str) -> bool:
    if operator == "!":
        return not operand
    if operator in ("-n", "-z"):
        return bool(operand) == (operator == "-n")
    if operator not in ("-e", "-f", "-d", "-s", "-r", "-w", "-x", "-L", "-h"):
        raise CommandError(f"virtual device: {operator} is not supported", 2)
    try:
        path = context.path(operand, follow=operator not in ("-L", "-h"))
    except OSError:
        return False
    tests: dict[str, Callable[[], bool]] = {
        "-e": path.exists,
        "-f": path.is_file,
        "-d": path.is_dir,
        "-L": path.is_symlink,
        "-h": path.is_symlink,
        "-s": lambda: path.exists() and path.stat().st_size > 0,
        "-r": lambda: os.access(path, os.R_OK),
        "-w": lambda: os.access(path, os.W_OK),
        "-x": lambda: os.access(path, os.X_OK),
    }
    return tests[operator]()


def _binary(left: str, operator: str, right: str) -> bool:
    if operator in ("=", "=="):
        return left == right
    if operator == "!=":
        return left != right
    try:
        a, b = int(left), int(right)
    except ValueError:
        raise CommandError(f"{left} {operator} {right}: not two numbers", 2) from None
    results = {
        "-eq": a == b,
        "-ne": a != b,
        "-lt": a < b,
        "-le": a <= b,
        "-gt": a > b,
        "-ge": a >= b,
    }
    if operator not in results:
        raise CommandError(f"virtual device: {operator} is not supported", 2)
    return results[operator]


COMMANDS: dict[str, CommandFunction] = {
    ":": true,
    "[": bracket,
    "basename": basename,
    "cd": cd,
    "date": date,
    "dirname": dirname,
    "echo": echo,
    "export": export,
    "false": false,
    "getconf": getconf,
    "id": identity,
    "printf": printf,
    "pwd": pwd,
    "sleep": sleep,
    "test": test,
    "true": true,
    "uname": uname,
}
