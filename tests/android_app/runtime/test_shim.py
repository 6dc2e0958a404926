"""shim.c's translations, called through the stand-in as the Android libraries call them."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RECURSIVE, CHECKING = 1 << 14, 2 << 14  # first words of bionic's static initialisers
Android = Callable[..., Any]


def load(path: Path) -> Android:
    """``android(name, restype)`` looks a function up under Android's version name."""
    library = ctypes.CDLL(str(path), use_errno=True)
    lookup = ctypes.CDLL(None).dlvsym
    lookup.restype = ctypes.c_void_p
    lookup.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p]

    def android(name: str, result: Any = ctypes.c_int, version: str = "LIBC") -> Any:
        address = lookup(library._handle, name.encode(), version.encode())
        assert address, name
        return ctypes.CFUNCTYPE(result, use_errno=True)(address) if result else address

    return android


@pytest.fixture(scope="module")
def android(desktop: Path) -> Android:
    return load(desktop / "lib" / "android" / "libc.so")


def in_child(desktop: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code that may abort; ``android`` is as above."""
    text = f"import ctypes, sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    text += "from test_shim import load\nfrom pathlib import Path\n"
    text += f"android = load(Path({str(desktop / 'lib/android/libc.so')!r}))\n"
    return subprocess.run(
        [sys.executable, "-c", text + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_sysconf_takes_androids_numbers(android: Android) -> None:
    sysconf = android("sysconf", ctypes.c_long)
    assert sysconf(0x27) == sysconf(0x28) == os.sysconf("SC_PAGESIZE")
    assert sysconf(0x60) == os.sysconf("SC_NPROCESSORS_CONF")
    assert sysconf(0x61) == os.sysconf("SC_NPROCESSORS_ONLN")
    assert sysconf(0x62) == os.sysconf("SC_PHYS_PAGES")
    assert sysconf(0x06) == os.sysconf("SC_CLK_TCK")


def test_pathconf_takes_androids_numbers(android: Android) -> None:
    pathconf = android("pathconf", ctypes.c_long)
    assert pathconf(b"/", 4) == os.pathconf("/", "PC_NAME_MAX")
    assert pathconf(b"/", 5) == os.pathconf("/", "PC_PATH_MAX")
    assert pathconf(b"/", 99) == -1
    assert ctypes.get_errno() == errno.EINVAL


def test_errno_is_the_threads_own(android: Android) -> None:
    ctypes.set_errno(0)
    assert android("open")(b"/nowhere/at/all", 0) == -1
    assert ctypes.get_errno() == errno.ENOENT
    assert android("__errno", ctypes.c_void_p)() == android("__errno", ctypes.c_void_p)()


def test_strerror_r_is_posix_and_gnu_strerror_r_is_gnu(android: Android) -> None:
    buffer = ctypes.create_string_buffer(64)
    assert android("strerror_r")(errno.ENOENT, buffer, 64) == 0
    assert buffer.value == b"No such file or directory"
    other = android("__gnu_strerror_r", ctypes.c_char_p)(errno.EACCES, buffer, 64)
    assert other == b"Permission denied"


def mutex(first_word: int) -> ctypes.Array[ctypes.c_int]:
    return (ctypes.c_int * 10)(first_word)


def test_static_mutex_initialisers(android: Android) -> None:
    lock, unlock = android("pthread_mutex_lock"), android("pthread_mutex_unlock")
    trylock = android("pthread_mutex_trylock")
    recursive, checking, normal = mutex(RECURSIVE), mutex(CHECKING), mutex(0)
    assert trylock(recursive) == 0
    assert [lock(recursive), lock(recursive)] == [0, 0]
    assert [unlock(recursive) for _ in range(4)] == [0, 0, 0, errno.EPERM]
    assert trylock(checking) == 0
    assert [lock(checking), unlock(checking)] == [errno.EDEADLK, 0]
    assert [lock(normal), trylock(normal), unlock(normal)] == [0, errno.EBUSY, 0]


def most_inside(android: Android, shared: ctypes.Array[ctypes.c_int]) -> int:
    """Four threads lock and unlock ``shared``, starting together; how many were ever inside."""
    lock, unlock = android("pthread_mutex_lock"), android("pthread_mutex_unlock")
    gate, inside, most = threading.Barrier(4), 0, 0

    def work() -> None:
        nonlocal inside, most
        gate.wait()
        for _ in range(20):
            lock(shared)
            inside += 1
            most = max(most, inside)
            inside -= 1
            unlock(shared)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in threads)
    return most


def test_static_recursive_mutex_excludes_from_its_first_lock(android: Android) -> None:
    assert {most_inside(android, mutex(RECURSIVE)) for _ in range(50)} == {1}


def test_sigfillset_writes_androids_eight_bytes_only(android: Android) -> None:
    words = (ctypes.c_uint64 * 3)(7, 7, 7)
    assert android("sigfillset")(words) == 0
    assert list(words) == [2**64 - 1, 7, 7]


def test_sigmask_translates_both_ways(android: Android) -> None:
    mask = android("pthread_sigmask")
    bit = 1 << (signal.SIGUSR1 - 1)
    new, old = ctypes.c_uint64(bit), (ctypes.c_uint64 * 2)(0, 7)
    assert mask(signal.SIG_BLOCK, ctypes.byref(new), None) == 0
    try:
        assert signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        assert mask(signal.SIG_BLOCK, None, old) == 0
        assert old[0] & bit
        assert old[1] == 7
    finally:
        assert mask(signal.SIG_UNBLOCK, ctypes.byref(new), None) == 0
    assert signal.SIGUSR1 not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_standard_streams_in_all_their_forms(desktop: Path) -> None:
    """Both the FILE* variables and the elements of __sF that old headers use, 152 bytes apart."""
    result = in_child(
        desktop,
        """
        array = android("__sF", None)
        variable = lambda name: ctypes.c_void_p.from_address(android(name, None)).value
        assert variable("stdout") == array + 152 and variable("stderr") == array + 304
        fprintf, fputs = android("fprintf"), android("fputs")
        fprintf.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
        fputs.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
        fprintf(array + 152, b"out %d\\n", 1)
        fputs(b"out 2\\n", variable("stdout"))
        fprintf(array + 304, b"err %d\\n", 1)
        assert android("fflush")(None) == 0
        """,
    )
    assert (result.returncode, result.stdout) == (0, "out 1\nout 2\n"), result.stderr
    assert result.stderr == "err 1\n"


def test_files_that_glibc_opened_pass_through(android: Android, tmp_path: Path) -> None:
    stream = android("fopen", ctypes.c_void_p)(str(tmp_path / "f").encode(), b"w+")
    file = ctypes.c_void_p(stream)
    assert android("fwrite", ctypes.c_size_t)(b"abc", 1, 3, file) == 3
    assert android("fseek")(file, 1, os.SEEK_SET) == 0
    assert android("getc")(file) == ord("b")
    assert android("ungetc")(ord("z"), file) == ord("z")
    assert android("ftello", ctypes.c_long)(file) == 1
    assert android("fclose")(file) == 0
    assert (tmp_path / "f").read_bytes() == b"abc"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ('android("snprintf")(ctypes.create_string_buffer(9), 9, b"%5.1Lf", 0)', "long double"),
        ('android("sscanf")(b"1", b"%*d%Lf", None)', "long double"),
        ('android("__strlen_chk")(b"abc", 3)', "no end within the buffer's 3 bytes"),
        ('android("__strchr_chk")(b"abc", 97, 2)', "no end within the buffer's 2 bytes"),
        ('android("__write_chk", version="LIBC_N")(1, b"abc", 4, 3)', "4 bytes from a buffer of 3"),
        ('android("swprintf")(None, 0, "x")', "swprintf() was called"),
        ('android("sysconf")(0x1234)', "sysconf(0x1234)"),
        ('android("__assert2")(b"f.c", 7, b"main", b"x > 0")', 'f.c:7: main: assertion "x > 0"'),
        ('android("__android_log_assert")(b"c", b"tag", b"why %d", 3)', "F/tag: why 3"),
    ],
)
def test_what_cannot_be_translated_ends_the_process_with_a_reason(
    desktop: Path, call: str, message: str
) -> None:
    result = in_child(desktop, call)
    assert result.returncode == -signal.SIGABRT
    assert message in result.stderr


def test_formats_without_long_double_are_as_in_c(android: Android) -> None:
    buffer = ctypes.create_string_buffer(64)
    assert (
        android("snprintf")(buffer, 64, b"%%L %s %05d %lld%%", b"L", 42, ctypes.c_longlong(-1))
        == 14
    )
    assert buffer.value == b"%L L 00042 -1%"
    value = ctypes.c_float()
    assert android("sscanf")(b"7 0x1.8p1", b"%*d %a", ctypes.byref(value)) == 1
    assert value.value == 3.0


def test_log_shows_warnings_and_hides_the_rest(desktop: Path) -> None:
    result = in_child(
        desktop,
        """
        write = android("__android_log_write")
        for priority in range(2, 9):
            write(priority, b"Tag", b"priority %d" % priority)
        """,
    )
    assert result.stderr == "W/Tag: priority 5\nE/Tag: priority 6\nF/Tag: priority 7\n"


def test_properties_are_unset(android: Android) -> None:
    value = ctypes.create_string_buffer(b"?" * 8, 92)
    assert android("__system_property_get")(b"ro.product.model", value) == 0
    assert value.value == b""


def test_long_double_is_binary128(desktop: Path, tmp_path: Path) -> None:
    source, program = Path(__file__).with_name("long_double.c"), tmp_path / "long_double"
    subprocess.run(
        ["cc", "-std=gnu11", "-Wall", "-Werror", source, "-o", program, "-ldl"], check=True
    )
    libc = desktop / "lib" / "android" / "libc.so"
    output = subprocess.run([program, libc], capture_output=True, text=True, check=True).stdout
    assert output == "1 -99 1 1\n"
