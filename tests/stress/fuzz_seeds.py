"""Good inputs, from which the fuzzer makes bad ones."""

from __future__ import annotations

import base64
import struct
from typing import Any

from export.manifest import FILES, FileInfo, Manifest, MethodInfo, ProgramInfo, Training
from export.methods import TensorSpec
from tests.device_bench.conftest import build_report
from tests.device_bench.virtual.apks import build_apk, certificate

_HOME = "/sdcard/Android/media/org.sparserec.app"

SCRIPTS = [
    text.encode()
    for text in (
        "echo hello; echo world >&2; exit 3",
        f'mkdir -p {_HOME}/runs/1 && ls -la {_HOME}; echo "__rc=$?"',
        "sha256sum /sdcard/file 2>/dev/null || echo none",
        "cat /sdcard/file | head -n 1 | wc -c",
        "cat /sdcard/link/canary; cat /sdcard/a/relative; ls /up /up/outside",
        "cp -r /sdcard/a /sdcard/c; mv -f /sdcard/file /sdcard/a/b; rm -rf /sdcard/a",
        "echo x > /sdcard/link/new; echo y >> /up/new; touch /sdcard/link/t; rm -rf /up/outside",
        "cp /sdcard/file /sdcard/link/; mv /sdcard/file /up/; mkdir /up/d; chmod 777 /sdcard/link",
        "cd /sdcard; pwd; cd ..; ls *; ls ./[a-z]*; stat -c '%n %s %Y' file; df -k .; du -s /",
        "x='a b'; echo $x \"$x\" '$x' ${x}; printf '%s %d\\n' a 1 b; test -e /sdcard/file && true",
        "sh -c 'echo in; sh -c \"echo deeper\"'; exec echo last; echo never",
        "getprop ro.serialno; dumpsys battery; dumpsys thermalservice; dumpsys meminfo x; id; date",
        "pm path org.sparserec.app; pm list packages; pm install /sdcard/file; cmd package path",
        f"am instrument -w -r -e bundle {_HOME}/b -e out /up/o org.sparserec.app/.X",
        "am force-stop org.sparserec.app; pidof org.sparserec.app; kill -9 1; logcat -d -t 3",
        "! false | true; # comment\nsleep 0; head -c 3 file; tail -n 1 /sdcard/file; getconf",
        "echo 'a\nb' > '/sdcard/new\nline'; cat '/sdcard/../../../etc/passwd' //etc//passwd",
    )
]

TRANSCRIPTS = [
    b"INSTRUMENTATION_STATUS: phase=train\nINSTRUMENTATION_STATUS: step=10\n"
    b"INSTRUMENTATION_STATUS: steps=400\nINSTRUMENTATION_STATUS: loss=0.61\n"
    b"INSTRUMENTATION_STATUS_CODE: 2\nINSTRUMENTATION_RESULT: exit_status=succeeded\n"
    b"INSTRUMENTATION_RESULT: report=/sdcard/r/report.json\nINSTRUMENTATION_CODE: -1\n",
    b"INSTRUMENTATION_RESULT: exit_status=failed\nINSTRUMENTATION_RESULT: error=a\nb\nc\n"
    b"INSTRUMENTATION_CODE: 0\n",
    b"INSTRUMENTATION_RESULT: shortMsg=Process crashed.\nINSTRUMENTATION_CODE: 0\n",
    b"INSTRUMENTATION_STATUS: Error=Unable to find instrumentation info for: X\n"
    b"INSTRUMENTATION_STATUS_CODE: -1\n"
    b"android.util.AndroidException: INSTRUMENTATION_FAILED: org.sparserec.app/.X\n",
    b"INSTRUMENTATION_ABORTED: System has crashed.\n",
]


def _message(command: bytes, arg0: int, arg1: int, data: bytes = b"") -> bytes:
    magic = int.from_bytes(command, "little") ^ 0xFFFFFFFF
    return struct.pack("<4s5I", command, arg0, arg1, len(data), sum(data), magic) + data


def _request(name: bytes, argument: bytes) -> bytes:
    return name + struct.pack("<I", len(argument)) + argument


def _file(path: bytes, data: bytes, mode: bytes = b"33188") -> bytes:
    chunk = _request(b"DATA", data)
    return _request(b"SEND", path + b"," + mode) + chunk + struct.pack("<4sI", b"DONE", 1)


GREETING = _message(b"CNXN", 0x01000000, 1 << 20, b"host::\0")
"""Goes before every input of the target "connection"."""

SYNC = [
    _request(b"STAT", b"/sdcard/file") + _request(b"LIST", b"/sdcard") + _request(b"QUIT", b""),
    _request(b"STA2", b"/sdcard/link/canary") + _request(b"LST2", b"/up") + _request(b"LIS2", b"/"),
    _request(b"RECV", b"/sdcard/file") + _request(b"RECV", b"/sdcard/link/canary"),
    _file(b"/sdcard/new/file", b"content") + _file(b"/sdcard/link/planted", b"content"),
    _file(b"/../../escaped", b"x") + _file(b"/up/escaped", b"x") + _file(b"/sdcard/link", b"x"),
    _file(b"/sdcard/l", b"/etc/passwd", b"41471") + _file(b"/sdcard/a\nb", b"x") + _file(b"", b""),
]

MESSAGES = [
    _message(b"OPEN", 1, 0, b"shell:echo hello; ls /sdcard\0"),
    _message(b"OPEN", 1, 0, b"shell,v2,raw:wc -c\0")
    + _message(b"WRTE", 1, 1, struct.pack("<BI", 0, 3) + b"abc")
    + _message(b"WRTE", 1, 1, struct.pack("<BI", 3, 0)),
    _message(b"OPEN", 1, 0, b"sync:\0")
    + _message(b"WRTE", 1, 1, SYNC[0])
    + _message(b"OKAY", 1, 1)
    + _message(b"CLSE", 1, 1),
    _message(b"OPEN", 1, 0, b"sync:\0") + _message(b"WRTE", 1, 1, SYNC[4]),
    _message(b"OPEN", 1, 0, b"exec:cat /sdcard/file\0") + _message(b"OKAY", 1, 1) * 2,
    _message(b"OPEN", 7, 0, b"tcp:80\0") + _message(b"AUTH", 1, 0, bytes(20)),
]

KEYS = [
    base64.b64encode(struct.pack("<II256s256sI", 64, 1, b"\7" * 256, bytes(256), 65537)) + b" me@x",
]

FAULTS = [
    b"latency_ms = [5, 40]\0bytes_per_second = 1000\0unauthorised = 1.5\0seed = 3",
    b"wire = [{action = 'drop', at_byte = [1, 9], service = 'sync:', nth = 2}]",
    b"kill = [{at_status = 3, run = 2}]\0offline = [{after_seconds = 1.0, seconds = 2}]",
    b"storage.bytes = 1000\0properties.a = 'b'\0battery.level = 3\0thermal = [{status = 3}]",
]

APKS = [
    build_apk(certificate("one"), abis=("x86_64",)),
    build_apk(None, version_code=2, abis=()),
]


def report_seed() -> dict[str, Any]:
    """A short report, so that checking it is quick."""
    report = build_report(4)
    report["metrics"] = {"train_step_ns": report["metrics"]["train_step_ns"], "score_ns": None}
    report["phases"] = report["phases"][:1]
    return report


def manifest_seed() -> bytes:
    """A manifest whose files are not there."""
    tile = TensorSpec("rows", "float32", (6, 4), "tile")
    method = MethodInfo((tile,), (tile,), ("aten::mul.out",), (), 96)
    step = ProgramInfo("step.pte", {"gradients": method, "update": method})
    score = ProgramInfo("score.pte", {"score": method})
    training = Training(
        optimizer="sgd",
        learning_rate=0.5,
        l2=1e-4,
        batch_size=2,
        steps=10,
        seed=1,
        window=5,
        sampled_fraction=0.25,
        exchange_fraction=0.1,
        exchange_stop=0.75,
        negative_tries=8,
    )
    described = Manifest(
        bundle_id="toy-mf-d4-50pct-00000000",
        created_utc="2026-11-23T20:00:00Z",
        model="mf",
        num_users=4,
        num_items=6,
        known_users=3,
        known_items=5,
        dim=4,
        density=0.5,
        nnz=20,
        floor=1,
        training=training,
        programs={"step": step, "score": score},
        producer={"sparserec": "0.1.0"},
        provenance={"dataset": "toy", "source_sha256": None},
        files={name: FileInfo("0" * 64, 10) for name in FILES},
    )
    return described.to_json()
