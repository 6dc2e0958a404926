"""The device's files: a directory on the host that stands for the device's ``/``."""

from __future__ import annotations

import errno
import os
import posixpath
from pathlib import Path

from sparserec.errors import SparseRecError

PACKAGE = "org.sparserec.app"
FIRST_DIRECTORIES = ("data/local/tmp", f"sdcard/Android/media/{PACKAGE}")
PATH_MAX = 1024


class DeviceFiles:
    """Maps device paths to host paths, and never to one outside the root.

    A path is first made absolute and normalised as text, so ``..`` cannot climb above the root;
    then the host resolves its symbolic links, and a result outside the root is refused. Clients
    have no means to make a link, so nothing changes between that check and the use of the path.
    """

    def __init__(self, root: Path) -> None:
        """Use ``root``, which is made with the directories that every phone has.

        Raises:
            SparseRecError: the directory cannot be made, or is the host's own root.
        """
        try:
            root.mkdir(parents=True, exist_ok=True)
            self.root = root.resolve(strict=True)
            if self.root == Path(self.root.anchor):
                raise SparseRecError(
                    f"{root}: this is the whole machine", "name a directory of its own"
                )
            for name in FIRST_DIRECTORIES:
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SparseRecError(
                f"{root}: cannot be the device's root: {error.strerror}",
                "name a directory that can be written",
            ) from None

    def resolve(self, path: str, cwd: str = "/", *, follow: bool = True) -> Path:
        """The host path of a device path; with ``follow=False`` the last link is kept as a link.

        Raises:
            OSError: a name that is too long or has control characters, or a link that leads
                outside the root.
        """
        if not path:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if len(os.fsencode(path)) > PATH_MAX:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
        if any(ord(letter) < 32 or ord(letter) == 127 for letter in path):
            raise OSError(errno.EINVAL, "Control character in name", path)
        inside = self.absolute(path, cwd).lstrip("/")
        host = self.root / inside
        real = Path(os.path.realpath(host if follow or not inside else host.parent))
        if real != self.root and self.root not in real.parents:
            raise PermissionError(errno.EACCES, "Link leads outside the device", path)
        return real if follow or not inside else real / host.name

    def absolute(self, path: str, cwd: str = "/") -> str:
        """A device path, absolute and normalised as text."""
        return posixpath.normpath("/" + posixpath.join(cwd, path).lstrip("/"))

    def on_device(self, text: str) -> str:
        """``text`` from the host's side, with the root's host path taken out."""
        return text.replace(str(self.root), "")
