"""Commands on files; every path goes through ``Context.path`` and so stays inside the device."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat as modes
import time
from collections import deque
from pathlib import Path

from device_bench.virtual.context import CommandError, CommandFunction, Context, each, flags
from device_bench.virtual.storage import size_below


def cat(context: Context, arguments: list[str]) -> int:
    """``cat [FILE ...]``."""
    _, paths = flags(arguments, "u")

    def copy(path: str) -> None:
        for block in context.blocks(path):
            context.stdout.write(block)

    return each(context, "cat", paths or ["-"], copy)


def _count(arguments: list[str], allowed: str) -> tuple[str, int, list[str]]:
    """``-n N``, ``-nN``, ``-c N`` or ``-N`` as unit, number and the rest."""
    unit, number = "n", "10"
    rest = list(arguments)
    if rest and (match := re.fullmatch(rf"-([{allowed}])?(\d*)", rest[0])) and rest[0] != "-":
        unit = match[1] or "n"
        number = match[2] or (rest[1] if len(rest) > 1 else "")
        del rest[: 1 if match[2] else 2]
    if not number.isdecimal() or len(number) > 15:
        raise CommandError(f"bad count '{number}'", 2)
    return unit, int(number), flags(rest, "")[1]


def head(context: Context, arguments: list[str]) -> int:
    """``head [-n LINES | -c BYTES] [FILE ...]``; without the names of several files."""
    unit, count, paths = _count(arguments, "nc")

    def copy(path: str) -> None:
        left = count
        for block in context.blocks(path):
            if left <= 0:
                return
            if unit == "c":
                piece = block[:left]
                left -= len(piece)
            else:
                lines = block.split(b"\n", left)
                piece = block if len(lines) <= left else b"\n".join(lines[:-1]) + b"\n"
                left -= len(lines) - 1
            context.stdout.write(piece)

    return each(context, "head", paths or ["-"], copy)


def tail(context: Context, arguments: list[str]) -> int:
    """``tail [-n LINES | -c BYTES] [FILE ...]``; without the names of several files."""
    unit, count, paths = _count(arguments, "nc")

    def copy(path: str) -> None:
        data = b"".join(context.blocks(path))
        if unit == "c":
            context.stdout.write(data[max(0, len(data) - count) :])
        else:
            context.stdout.write(b"".join(deque(data.splitlines(keepends=True), count)))

    return each(context, "tail", paths or ["-"], copy)


def wc(context: Context, arguments: list[str]) -> int:
    """``wc [-lwc] [FILE ...]``."""
    found, paths = flags(arguments, "lwc")

    def count(path: str) -> None:
        lines = words = size = 0
        inside = False
        for block in context.blocks(path):
            lines += block.count(b"\n")
            size += len(block)
            words += len(block.split()) - (inside and not block[:1].isspace())
            inside = not block[-1:].isspace()
        values = {"l": lines, "w": words, "c": size}
        shown = [str(value) for key, value in values.items() if not found or key in found]
        context.print(" ".join(shown + [path] * (path != "-")))

    return each(context, "wc", paths or ["-"], count)


def sha256sum(context: Context, arguments: list[str]) -> int:
    """``sha256sum [-b] [FILE ...]``."""
    found, paths = flags(arguments, "b")

    def digest(path: str) -> None:
        state = hashlib.sha256()
        for block in context.blocks(path):
            state.update(block)
        context.print(state.hexdigest() + ("" if found else f"  {path}"))

    return each(context, "sha256sum", paths or ["-"], digest)


def ls(context: Context, arguments: list[str]) -> int:
    """``ls [-1aAdl] [PATH ...]``: one name a line."""
    found, paths = flags(arguments, "1aAdl")

    def line(host: Path, name: str) -> str:
        return _long(host.lstat(), name) if "l" in found else name

    def show(path: str) -> None:
        host = context.path(path)
        if "d" in found or not host.is_dir():
            context.print(line(host, path))
            return
        names = sorted(entry.name for entry in host.iterdir())
        if "a" not in found and "A" not in found:
            names = [name for name in names if not name.startswith(".")]
        if "a" in found:
            names = [".", "..", *names]
        title = [f"{path}:"] * (len(paths) > 1)
        # ".." of the device's root is the root itself, never what is above it on the host.
        top = host == context.device.files.root
        lines = [line(host if top and name == ".." else host / name, name) for name in names]
        if title or lines:
            context.print("\n".join(title + lines))

    return each(context, "ls", paths or ["."], show)


def _long(status: os.stat_result, name: str) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(status.st_mtime))
    mode = modes.filemode(status.st_mode)
    return f"{mode} {status.st_nlink} shell shell {status.st_size} {when} {name}"


def stat(context: Context, arguments: list[str]) -> int:
    """``stat [-L] -c FORMAT FILE ...`` with ``%n %s %Y %a %f %F %U %G``."""
    follow = arguments[:1] == ["-L"]
    rest = arguments[follow:]
    if len(rest) < 3 or rest[0] != "-c":
        raise CommandError("virtual device: only 'stat [-L] -c FORMAT FILE ...' is supported", 2)

    def show(path: str) -> None:
        status = context.path(path, follow=follow).lstat()
        values = {
            "%": "%",
            "n": path,
            "s": str(status.st_size),
            "Y": str(int(status.st_mtime)),
            "a": f"{modes.S_IMODE(status.st_mode):o}",
            "f": f"{status.st_mode:x}",
            "F": _kind(status.st_mode),
            "U": "shell",
            "G": "shell",
        }
        unknown = set(re.findall("%(.)", rest[1])) - set(values)
        if unknown:
            raise CommandError(f"virtual device: %{min(unknown)} is not supported", 2)
        context.print(re.sub("%(.)", lambda match: values[match[1]], rest[1]))

    return each(context, "stat", rest[2:], show)


def _kind(mode: int) -> str:
    if modes.S_ISDIR(mode):
        return "directory"
    return "symbolic link" if modes.S_ISLNK(mode) else "regular file"


def df(context: Context, arguments: list[str]) -> int:
    """``df [-k] [PATH ...]``: the host's disk that holds the device's files, or its limit."""
    _, paths = flags(arguments, "k")
    context.print("Filesystem     1K-blocks     Used Available Use% Mounted on")

    def show(path: str) -> None:
        context.path(path).lstat()
        space = context.device.storage.space()
        total, free = space.total // 1024, space.free // 1024
        used = space.used // 1024
        percent = -(-100 * used // max(1, used + free))
        context.print(f"host-disk      {total:9d} {used:8d} {free:9d} {percent:3d}% /")

    return each(context, "df", paths or ["/"], show)


def du(context: Context, arguments: list[str]) -> int:
    """``du -s [-k] PATH ...``: kilobytes on disk."""
    found, paths = flags(arguments, "sk")
    if "s" not in found:
        raise CommandError("virtual device: only 'du -s' is supported", 2)

    def show(path: str) -> None:
        top = context.path(path)
        blocks = top.lstat().st_blocks
        for directory, folders, files in os.walk(top):
            blocks += sum(os.lstat(Path(directory, name)).st_blocks for name in folders + files)
        context.print(f"{blocks // 2}\t{path}")

    return each(context, "du", paths or ["."], show)


def mkdir(context: Context, arguments: list[str]) -> int:
    """``mkdir [-p] DIRECTORY ...``."""
    found, paths = flags(arguments, "p")
    parents = "p" in found

    def make(path: str) -> None:
        context.path(path).mkdir(parents=parents, exist_ok=parents)

    return each(context, "mkdir", paths, make)


def rmdir(context: Context, arguments: list[str]) -> int:
    """``rmdir DIRECTORY ...``."""
    _, paths = flags(arguments, "")
    return each(context, "rmdir", paths, lambda path: _below_root(context, path).rmdir())


def _below_root(context: Context, path: str) -> Path:
    host = context.path(path, follow=False)
    if host == context.device.files.root:
        raise PermissionError(errno.EBUSY, "Device or resource busy", path)
    return host


def rm(context: Context, arguments: list[str]) -> int:
    """``rm [-rRf] PATH ...``."""
    found, paths = flags(arguments, "rRf")

    def remove(path: str) -> None:
        host = _below_root(context, path)
        if "f" in found and not os.path.lexists(host):
            return
        if host.is_dir() and not host.is_symlink() and found & {"r", "R"}:
            shutil.rmtree(host)
        else:
            host.unlink()

    return each(context, "rm", paths, remove)


def _targets(context: Context, operands: list[str]) -> list[tuple[str, Path]]:
    """Sources and where each goes: into the last operand if it is a directory, else onto it."""
    if len(operands) < 2:
        raise CommandError("needs a source and a destination", 2)
    *sources, last = operands
    target = context.path(last)
    if target.is_dir():
        return [(source, target / _below_root(context, source).name) for source in sources]
    if len(sources) > 1:
        raise CommandError(f"{last}: Not a directory")
    return [(sources[0], target)]


def mv(context: Context, arguments: list[str]) -> int:
    """``mv [-f] SOURCE ... DESTINATION``; an atomic rename."""
    _, operands = flags(arguments, "f")
    targets = dict(_targets(context, operands))

    def move(source: str) -> None:
        _below_root(context, source).rename(targets[source])

    return each(context, "mv", list(targets), move)


def cp(context: Context, arguments: list[str]) -> int:
    """``cp [-rRpf] SOURCE ... DESTINATION``."""
    found, operands = flags(arguments, "rRpf")
    targets = dict(_targets(context, operands))

    def copy(source: str) -> None:
        host, target = context.path(source), targets[source]
        if host.is_dir():
            if not found & {"r", "R"}:
                raise IsADirectoryError(errno.EISDIR, "Is a directory (use -r)", source)
            if host == target or host in target.parents:
                raise OSError(errno.EINVAL, "Cannot copy a directory into itself", source)
            context.device.storage.reserve(size_below(host))
            shutil.copytree(host, target, symlinks=True)
            return
        context.device.storage.reserve(host.stat().st_size)
        if target.is_symlink():
            raise OSError(errno.ELOOP, "Destination is a link", source)
        elif "p" in found:
            shutil.copy2(host, target)
        else:
            shutil.copy(host, target)

    return each(context, "cp", list(targets), copy)


def touch(context: Context, arguments: list[str]) -> int:
    """``touch [-c] FILE ...``; with ``-c`` none is made."""
    options, paths = flags(arguments, "c")

    def show(path: str) -> None:
        if "c" not in options or context.path(path).exists():
            context.path(path).touch()

    return each(context, "touch", paths, show)


def chmod(context: Context, arguments: list[str]) -> int:
    """``chmod OCTAL PATH ...``."""
    if not arguments or not re.fullmatch("[0-7]{3,4}", arguments[0]):
        raise CommandError("virtual device: only an octal mode is supported", 2)
    mode = int(arguments[0], 8) & 0o777
    return each(context, "chmod", arguments[1:], lambda path: context.path(path).chmod(mode))


def sync(context: Context, arguments: list[str]) -> int:
    """``sync``."""
    os.sync()
    return 0


COMMANDS: dict[str, CommandFunction] = {
    "cat": cat,
    "chmod": chmod,
    "cp": cp,
    "df": df,
    "du": du,
    "head": head,
    "ls": ls,
    "mkdir": mkdir,
    "mv": mv,
    "rm": rm,
    "rmdir": rmdir,
    "sha256sum": sha256sum,
    "stat": stat,
    "sync": sync,
    "tail": tail,
    "touch": touch,
    "wc": wc,
}
