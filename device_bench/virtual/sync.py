"""The sync service: push, pull, stat and list files (AOSP ``SYNC.TXT``, ``file_sync_protocol.h``).

Version 1 and the 64-bit stat and list of version 2 are spoken. Version 2's compressed transfers
are not in the device's feature list, so no client asks for them.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from device_bench.virtual.files import PATH_MAX, DeviceFiles
from device_bench.virtual.streams import Stream, StreamReader

if TYPE_CHECKING:
    from device_bench.virtual.device import Device

CHUNK_MAX = 64 * 1024
"""The protocol's largest DATA chunk."""

_REQUEST = struct.Struct("<4sI")
_STAT = struct.Struct("<4s3I")  # id, mode, size, mtime
_STAT2 = struct.Struct("<4sIQQIIIIQqqq")  # id, errno, dev, ino, mode, links, uid, gid, size, times
_ENTRY = struct.Struct("<4s4I")  # id, mode, size, mtime, length of the name
_ENTRY2 = struct.Struct("<4sIQQIIIIQqqqI")
_WORD = 0xFFFFFFFF
_WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


class _MalformedError(Exception):
    """The client broke the sync protocol, so the next request cannot be found."""


def serve(stream: Stream, device: Device) -> None:
    """Answer requests until the client quits or closes the stream."""
    _Session(stream, device).run()


class _Session:
    def __init__(self, stream: Stream, device: Device) -> None:
        self._stream = stream
        self._reader = StreamReader(stream.read)
        self._device = device
        self._files = device.files
        self._modified = 0

    def run(self) -> None:
        """Answer requests until QUIT; a malformed one is answered and ends the session.

        Raises:
            EOFError, BrokenPipeError: the client has closed the stream.
        """
        try:
            self._answer_requests()
        except _MalformedError as error:
            self._fail(str(error))

    def _answer_requests(self) -> None:
        while True:
            request, length = self._header()
            if request == b"QUIT":
                return
            if length > PATH_MAX:
                raise _MalformedError("path too long")
            argument = os.fsdecode(self._reader.read_exactly(length))
            if request in (b"STAT", b"STA2", b"LST2"):
                self._stat(request, argument)
            elif request in (b"LIST", b"LIS2"):
                self._list(request, argument)
            elif request == b"RECV":
                self._send_file(argument)
            elif request == b"SEND":
                self._receive_file(argument)
            else:
                raise _MalformedError(f"unknown request {request!r}")

    def _header(self) -> tuple[bytes, int]:
        command, length = _REQUEST.unpack(self._reader.read_exactly(_REQUEST.size))
        return command, length

    def _fail(self, message: str) -> None:
        data = message.encode(errors="replace")
        self._stream.write(_REQUEST.pack(b"FAIL", len(data)) + data)

    def _stat(self, request: bytes, path: str) -> None:
        follow = request == b"STA2"
        try:
            status = self._files.resolve(path, follow=follow).lstat()
        except OSError as error:
            if request == b"STAT":
                self._stream.write(_STAT.pack(request, 0, 0, 0))
            else:
                self._stream.write(_STAT2.pack(request, error.errno or errno.EIO, *[0] * 10))
            return
        if request == b"STAT":
            self._stream.write(_STAT.pack(request, *_status(status)))
        else:
            self._stream.write(_STAT2.pack(request, 0, *_status2(status)))

    def _list(self, request: bytes, path: str) -> None:
        """Send every entry of a directory; of one that cannot be read, none, as adbd does."""
        answer = bytearray()
        second = request == b"LIS2"
        for name, status in _entries(self._files, path):
            if second:
                answer += _ENTRY2.pack(b"DNT2", 0, *_status2(status), len(name))
            else:
                answer += _ENTRY.pack(b"DENT", *_status(status), len(name))
            answer += name
            if len(answer) >= CHUNK_MAX:
                self._stream.write(bytes(answer))
                answer.clear()
        answer += b"DONE" + bytes((_ENTRY2 if second else _ENTRY).size - 4)
        self._stream.write(bytes(answer))

    def _send_file(self, path: str) -> None:
        try:
            source = self._files.resolve(path)
            if source.exists() and not source.is_file():
                raise OSError(errno.EISDIR, "Not a regular file")
            file = source.open("rb")
        except OSError as error:
            self._fail(f"open failed: {error.strerror}")
            return
        with file:
            while chunk := file.read(CHUNK_MAX):
                self._stream.write(_REQUEST.pack(b"DATA", len(chunk)) + chunk)
        self._stream.write(_REQUEST.pack(b"DONE", 0))

    def _receive_file(self, argument: str) -> None:
        chunks = self._chunks()
        try:
            self._store(argument, chunks)
        except OSError as error:
            for _ in chunks:
                pass  # the client sends the whole file before it looks at our answer
            what = "write failed" if error.errno in _WRITE_ERRORS else "couldn't create file"
            self._fail(f"{what}: {error.strerror}")
        else:
            self._stream.write(_REQUEST.pack(b"OKAY", 0))

    def _chunks(self) -> Iterator[bytes]:
        """A pushed file's DATA, up to DONE, whose word is the file's modification time."""
        while True:
            command, word = self._header()
            if command == b"DONE":
                self._modified = word
                return
            if command != b"DATA" or word > CHUNK_MAX:
                raise _MalformedError(f"bad chunk {command!r} of {word} bytes")
            yield self._reader.read_exactly(word)

    def _store(self, argument: str, chunks: Iterator[bytes]) -> None:
        """Write a pushed file in place, as adbd does; a part of a file is not left behind.

        Raises:
            OSError: the path is refused, or the file cannot be written.
        """
        path, comma, mode = argument.rpartition(",")
        if not comma or not mode.isdecimal():
            raise OSError(errno.EINVAL, "no file mode in the request")
        if int(mode) & 0o170000 == stat.S_IFLNK:
            raise OSError(errno.EPERM, "virtual device: symbolic links are not supported")
        target = self._files.resolve(path, follow=False)
        if target == self._files.root:
            raise OSError(errno.EISDIR, "Is a directory")
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_symlink() or target.is_file():
            target.unlink()
        # Exclusive: whatever appears there now is not followed.
        with self._device.storage.open(target, "xb") as file:
            try:
                for chunk in chunks:
                    file.write(chunk)
            except BaseException:
                target.unlink(missing_ok=True)
                raise
        self._device.faults.stored(target)
        target.chmod(int(mode) & 0o777)
        os.utime(target, (self._modified, self._modified))


def _status(status: os.stat_result) -> tuple[int, int, int]:
    """Mode, size and time as version 1 has them: 32 bits each."""
    return status.st_mode, status.st_size & _WORD, int(status.st_mtime) & _WORD


def _status2(status: os.stat_result) -> tuple[int, ...]:
    """A file's status in version 2's order, after the error number."""
    return (
        status.st_dev,
        status.st_ino,
        status.st_mode,
        status.st_nlink,
        status.st_uid,
        status.st_gid,
        status.st_size,
        int(status.st_atime),
        int(status.st_mtime),
        int(status.st_ctime),
    )


def _entries(files: DeviceFiles, path: str) -> Iterator[tuple[bytes, os.stat_result]]:
    """Names and statuses in a directory, ``.`` and ``..`` among them; nothing if unreadable."""
    try:
        directory = files.resolve(path)
        names = [".", "..", *sorted(entry.name for entry in directory.iterdir())]
    except OSError:
        return
    for name in names:
        # Above the root there is nothing: ".." of "/" is "/" itself.
        entry = directory if name == ".." and directory == files.root else directory / name
        try:
            yield os.fsencode(name), entry.lstat()
        except OSError:
            continue  # it went away meanwhile
