"""The device's shell, against the host's /bin/sh where both can run the same line."""

from __future__ import annotations

import subprocess
import time
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_bench.virtual import VirtualDevice
from device_bench.virtual.shell import Shell, Streams
from device_bench.virtual.streams import Hangup

SAFE_WORDS = st.sampled_from(
    ["a", "b c", "*", "d'e", 'f"g', "$x", "1", "", "#h", "i=j", "two  blanks"]
)


def quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


WORD = st.one_of(
    SAFE_WORDS.map(quoted),
    st.sampled_from(
        ["plain", '"$x"', "$x", "${x}y", '"a $x b"', '"\\$x"', "a\\ b", "$?", "q'r'\"s\"", "$y"]
    ),
)
SIMPLE = st.one_of(
    st.lists(WORD, max_size=4).map(lambda words: " ".join(["printf '%s,%s;'", *words[:2]])),
    st.sampled_from(
        ["true", "false", "x=5", "x='p  q'", "printf err >&2", "cat </dev/null", "test 1 -lt 2"]
    ),
    st.sampled_from(["printf 'l1\\nl2\\n'", "! true", "! false", "sh -c 'exit 3'", "printf 'a b'"]),
    st.sampled_from(
        ["printf x >out.txt", "printf y >>out.txt", "wc -c <out.txt", "[ -f out.txt ]"]
    ),
)
FILTER = st.sampled_from(["cat", "head -n 1", "wc -l", "tail -n 1", "head -c 3", "false"])
PIPELINE = st.builds(
    lambda first, rest: " | ".join([first, *rest]), SIMPLE, st.lists(FILTER, max_size=2)
)
SCRIPT = st.builds(
    lambda first, rest: first + "".join(joint + line for joint, line in rest),
    PIPELINE,
    st.lists(st.tuples(st.sampled_from(["; ", " && ", " || ", "\n"]), PIPELINE), max_size=5),
)


def run(virtual: VirtualDevice, script: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    out, err = BytesIO(), BytesIO()
    code = Shell(virtual.device, Hangup()).run(script, Streams(BytesIO(stdin), out, err))
    return code, out.getvalue(), err.getvalue()


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(script=SCRIPT)
def test_scripts_do_what_sh_does(virtual: VirtualDevice, tmp_path: Path, script: str) -> None:
    place = tmp_path / "host"
    place.mkdir(exist_ok=True)
    for directory in (place, virtual.device.files.root):
        (directory / "out.txt").write_text("begin")
    host = subprocess.run(["/bin/sh", "-c", script], cwd=place, capture_output=True, check=False)
    code, out, _ = run(virtual, script)
    assert (code, out) == (host.returncode, host.stdout)


OPERATORS = [
    "; && || | & > >> < << 2>&1 >&2 ( ) { } ' \" \\ $ $? ${ } $( ` # ! = * ? [ ] - -- ~ .."
]
PLACES = ["/ /../outside ../../outside ../outside . sdcard outside* /*/*"]
NAMES = [
    "rm mv cp cat ls stat echo printf test head tail wc sh exec exit cd mkdir touch chmod date"
]
OPTIONS = ["-rf -r -la -c %s %n -n -e -eq 9 -p 777 %d +%s -s A=b 1 path install -w -d"]
OTHERS = ["du df sha256sum true false export kill pm am instrument getprop dumpsys logcat pidof"]
TOKENS = st.sampled_from(
    ["\n", *" ".join(OPERATORS + PLACES + NAMES + OPTIONS + OTHERS).split(" ")]
)


@settings(
    max_examples=400, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    script=st.lists(TOKENS, max_size=12).map(" ".join)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
def test_no_script_fails_or_reaches_outside(
    virtual: VirtualDevice, tmp_path: Path, script: str
) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    code, out, err = run(virtual, script, b"standard input\n")
    assert 0 <= code <= 255
    assert b"not for the device" not in out
    assert str(tmp_path).encode() not in out + err
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / "outside").read_text() == "not for the device"


def test_command_lines_that_clients_send(virtual: VirtualDevice) -> None:
    home = "/sdcard/Android/media/org.sparserec.app"
    lines = [
        (f"mkdir -p {home}/bundles/b {home}/runs && echo made", 0, b"made\n"),
        (f'printf abc > {home}/bundles/b/x.part; echo "\\n__rc=$?"', 0, b"\n__rc=0\n"),
        (
            f"sha256sum '{home}/bundles/b/x.part'; echo \"__rc=$?\"",
            0,
            b"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  "
            + f"{home}/bundles/b/x.part\n__rc=0\n".encode(),
        ),
        (f"mv {home}/bundles/b/x.part {home}/bundles/b/x && ls {home}/bundles/b", 0, b"x\n"),
        (
            f"ls {home}/bundles/*/x; echo {home}/none*",
            0,
            f"{home}/bundles/b/x\n{home}/none*\n".encode(),
        ),
        (f"cat {home}/bundles/b/x | head -c 2 | wc -c", 0, b"2\n"),
        (f"stat -c '%s %n' {home}/bundles/b/x", 0, f"3 {home}/bundles/b/x\n".encode()),
        (f"[ -f {home}/bundles/b/y ] || echo absent", 0, b"absent\n"),
        (f"cd {home}/bundles && pwd && cat b/x", 0, f"{home}/bundles\nabc".encode()),
        (f"rm -rf {home}/bundles && test -e {home}/bundles", 1, b""),
        ("export ANDROID_LOG_TAGS=\"''\"; exec echo replaced; echo never", 0, b"replaced\n"),
        ("sh -c 'echo inner; exit 9'; echo $?", 0, b"inner\n9\n"),
        ("id -u; exit 5; echo never", 5, b"2000\n"),
        ("false; echo $?; ! false && echo yes # and a comment", 0, b"1\nyes\n"),
    ]
    for script, code, out in lines:
        assert run(virtual, script)[:2] == (code, out), script


@pytest.mark.parametrize(
    "script",
    [
        "for x in 1; do echo; done",
        "echo $(id)",
        "echo `id`",
        "(echo a)",
        "sleep 1 &",
        "cat <<E\nE\n",
        "if true; then echo; fi",
        "echo {a,b}",
        "echo ~",
        "echo ${x:-y}",
        "f() { echo; }",
        "a |& b",
        "echo 3>x",
        "echo 'open",
        "&& echo",
        "echo >",
        "echo a ;; echo b",
    ],
)
def test_what_is_not_supported_is_refused_before_anything_ran(
    virtual: VirtualDevice, script: str
) -> None:
    code, out, err = run(virtual, f"touch /ran; {script}")
    assert (code, out) == (2, b"")
    assert err.startswith(b"sh: virtual device: ")
    assert not (virtual.device.files.root / "ran").exists()


def test_failures_are_told(virtual: VirtualDevice) -> None:
    assert run(virtual, "nonesuch")[0] == 127
    assert run(virtual, "cat /nope") == (1, b"", b"cat: /nope: No such file or directory\n")
    assert run(virtual, "cat < /nope") == (1, b"", b"sh: /nope: No such file or directory\n")
    assert run(virtual, "ls --colour")[0] == 2
    assert run(virtual, "rm -rf /")[0] == 1
    assert run(virtual, "cp -r /sdcard /sdcard/in")[0] == 1
    assert run(virtual, "cat /out; head -c x /y")[0] == 2
    deep = "echo deep"
    for _ in range(10):
        deep = "sh -c " + quoted(deep)
    assert b"more than 8 shells" in run(virtual, deep)[2]


def test_long_lines_are_bounded_in_time_and_depth(virtual: VirtualDevice) -> None:
    start = time.process_time()
    assert run(virtual, "cat" + " | cat" * 5000)[0] == 2
    assert run(virtual, "test " + "! " * 20_000 + "a")[0] == 2
    assert run(virtual, "exec " * 20_000 + "echo end")[:2] == (0, b"end\n")
    assert run(virtual, "echo " + "{," * 50_000)[0] == 0
    assert run(virtual, "ls " + "*a" * 5000)[0] == 1
    assert run(virtual, "echo " + "x" * 200_000)[0] == 2
    assert run(virtual, "true;" * 20_000)[0] == 0
    assert time.process_time() - start < 10


def test_a_link_out_of_the_root_is_not_followed(virtual: VirtualDevice, tmp_path: Path) -> None:
    (virtual.device.files.root / "leak").symlink_to(tmp_path / "outside")
    (virtual.device.files.root / "up").symlink_to(tmp_path)
    for script in ("cat /leak", "cat /up/outside", "echo x > /leak", "cp /leak /copy", "ls /up"):
        code, out, _ = run(virtual, script)
        assert (code, out) == (1, b""), script
    assert run(virtual, "rm -rf /up /leak")[0] == 0
    assert (tmp_path / "outside").read_text() == "not for the device"


def test_a_pipe_ends_when_its_reader_does(virtual: VirtualDevice) -> None:
    (virtual.device.files.root / "big").write_bytes(b"line\n" * 1_000_000)
    assert run(virtual, "cat /big | head -n 1")[:2] == (0, b"line\n")
    assert run(virtual, "cat /big | cat | true")[0] == 0
    assert run(virtual, "cat /big | wc -l") == (0, b"1000000\n", b"")


def test_android_commands_say_what_is_there(virtual: VirtualDevice, launcher: Path) -> None:
    assert run(virtual, "getprop ro.sparserec.virtual")[1] == b"1\n"
    assert run(virtual, "getprop ro.build.version.sdk")[1] == b"34\n"
    assert run(virtual, "getprop no.such")[:2] == (0, b"\n")
    assert run(virtual, "dumpsys battery")[1].split()[-2:] == [b"present:", b"false"]
    assert b"Status" not in run(virtual, "dumpsys thermalservice")[1]
    assert run(virtual, "pm path org.sparserec.app")[1].startswith(b"package:/")
    assert run(virtual, "pm list packages")[1] == b"package:org.sparserec.app\n"
    assert run(virtual, "pm install /x.apk")[1].startswith(b"Failure [INSTALL_FAILED")
    launcher.unlink()
    assert run(virtual, "pm path org.sparserec.app")[:2] == (1, b"")
