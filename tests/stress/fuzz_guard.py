"""What the fuzzer watches for besides an exception: hanging, and files outside the root.

Python tells an audit hook of every file that is opened, made, renamed or removed, and of every
process: that is independent of how the code under test thinks about paths.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

HANG_SECONDS = 10.0
_ONE_PATH = ("open", "os.mkdir", "os.rmdir", "os.remove", "os.listdir", "os.scandir", "os.chmod")
_ONE_PATH += ("os.truncate", "os.utime", "os.chown", "os.setxattr", "shutil.rmtree", "os.chdir")
_TWO_PATHS = ("os.rename", "os.link", "shutil.copyfile", "shutil.copytree")
_TWO_PATHS += ("shutil.move", "shutil.copymode", "shutil.copystat")
_HARMLESS = (os.devnull, "/proc/self/", "/sys/devices/system/cpu", "/etc/localtime")
_PACKAGES = (path for path in sys.path if path.endswith("site-packages"))
_LIBRARIES = (sys.prefix, sys.base_prefix, *_PACKAGES, "/usr/share/zoneinfo")
"""Where modules are imported from; an environment may borrow another's packages."""


class HungError(BaseException):
    """The input took longer than ``HANG_SECONDS``."""


class Guard:
    """Notes what happens while ``watching``: ``outside`` paths, and ``uncaught`` in threads."""

    def __init__(self) -> None:
        self.outside: list[str] = []
        self.uncaught: list[str] = []
        self._root: str | None = None
        self._watched = False
        sys.addaudithook(self._audit)
        threading.excepthook = self._thread_failed
        signal.signal(signal.SIGALRM, self._alarm)

    @contextmanager
    def watching(self, root: Path | None) -> Iterator[None]:
        """Watch one input; with a root, every path must lie in it."""
        self._root = None if root is None else os.fspath(root)
        self._watched = True
        signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._watched = False

    def _alarm(self, number: int, frame: FrameType | None) -> None:
        raise HungError

    def _thread_failed(self, failed: Any) -> None:
        self.uncaught.append(f"in a thread: {failed.exc_type.__name__}: {failed.exc_value}")

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._watched or self._root is None:
            return
        if event in _ONE_PATH:
            self._check(event, arguments[0], arguments[-1])
        elif event in _TWO_PATHS:
            self._check(event, arguments[0], arguments[-1])
            self._check(event, arguments[1], arguments[-1])
        elif event == "os.symlink":  # what a link says is no path until somebody follows it
            self._check(event, arguments[1], arguments[-1])

    def _check(self, event: str, path: Any, folder: Any) -> None:
        """``folder`` may be the open folder that a relative path starts from."""
        if not isinstance(path, (str, bytes, os.PathLike)) or self._root is None:
            return  # a descriptor that is open already
        text = os.fsdecode(path)
        self._watched = False  # resolving opens nothing, but is audited too
        try:
            if not text.startswith("/"):
                if event == "open":
                    return  # from an open folder, as rmtree does; Python does not say which
                text = f"/proc/self/fd/{folder}/{text}" if folder != -1 else str(Path.cwd() / text)
            # The entry itself is what is made or removed; a link is followed where it is opened.
            entry = event not in ("open", "os.listdir", "os.scandir") and text != self._root
            real = os.path.realpath(Path(text).parent if entry else text)
            inside = real == self._root or real.startswith(self._root + os.sep)
            libraries = text.startswith(_LIBRARIES)
            if not inside and not libraries and not text.startswith(_HARMLESS):
                self.outside.append(f"{event} {text!r}")
        finally:
            self._watched = True
