"""What Android's exit records and logs say; the texts are in the form that Android prints."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from device_bench import post_mortem
from device_bench.post_mortem import Exit

RECORDS = """\
ACTIVITY MANAGER PROCESS EXIT INFO (dumpsys activity exit-info)
Last Timestamp of Persistence Into Persistent Storage: 2026-11-23 20:01:12.345
  package: org.sparserec.app
    Historical Process Exit for uid=10234
        ApplicationExitInfo #0:
          timestamp=2026-11-23 20:14:09.123 pid=4711 realUid=10234 packageUid=10234 definingUid=10234 user=0
          process=org.sparserec.app reason=3 (LOW_MEMORY) subreason=0 (UNKNOWN) status=0
          importance=125 pss=0.00 rss=412MB description=null state=empty trace=null
        ApplicationExitInfo #1:
          timestamp=2026-11-23 20:10:00.001 pid=4500 realUid=10234 packageUid=10234 definingUid=10234 user=0
          process=org.sparserec.app reason=5 (APP CRASH(NATIVE)) subreason=0 (UNKNOWN) status=11
          importance=125 pss=0.00 rss=0.00 description=crash state=empty trace=null
        ApplicationExitInfo #2:
          timestamp=2026-11-23 20:09:59.900 pid=4499 realUid=10234 packageUid=10234 definingUid=10234 user=0
          process=org.sparserec.app reason=10 (USER REQUESTED) subreason=21 (FORCE STOP) status=0
          importance=125 pss=0.00 rss=0.00 description=stop org.sparserec.app due to start instr state=empty trace=null
"""  # noqa: E501
LOG = """\
11-23 20:14:00.000  1200  1300 I ActivityManager: Start proc 4711:org.sparserec.app/u0a234 for added application org.sparserec.app
11-23 20:14:00.500  4711  4711 I sparserec: loading
11-23 20:14:01.000   900   900 I chatty  : something else: with a colon
11-23 20:14:08.900  4711  4730 W libc    : malloc is slow
11-23 20:14:09.000   450   450 I lowmemorykiller: Kill 'org.sparserec.app' (4711), uid 10234, oom_score_adj 0 to free 421888kB rss, 1024kB swap; reason: low watermark is breached
11-23 20:14:09.050   450   450 I lowmemorykiller: Kill 'com.other' (5000), uid 10100, oom_score_adj 900 to free 100kB rss
11-23 20:14:09.100  1200  1300 I ActivityManager: Process org.sparserec.app (pid 4711) has died: fg  TOP
""".splitlines()  # noqa: E501
TOMBSTONE = """\
11-23 20:10:00.000  4500  4520 F libc    : Fatal signal 11 (SIGSEGV), code 1 (SEGV_MAPERR), fault addr 0x0 in tid 4520 (train), pid 4500 (sparserec.app)
11-23 20:10:00.200  4600  4600 F DEBUG   : pid: 4500, tid: 4520, name: train  >>> org.sparserec.app <<<
11-23 20:10:00.201  4600  4600 F DEBUG   :     #00 pc 0000 libexecutorch.so
11-23 20:10:00.300  7000  7000 E AndroidRuntime: FATAL EXCEPTION: main
11-23 20:10:00.301  7000  7000 E AndroidRuntime: Process: com.other, PID: 7000
""".splitlines()  # noqa: E501


def test_records() -> None:
    low, crash, stop = post_mortem.parse_exits(RECORDS)
    assert low == Exit(4711, "2026-11-23 20:14:09.123", 3, "LOW_MEMORY", 0)
    assert (crash.pid, crash.reason, crash.name, crash.status) == (4500, 5, "APP CRASH(NATIVE)", 11)
    assert (stop.reason, stop.name) == (10, "USER REQUESTED")
    other = RECORDS.replace("process=org.sparserec.app", "process=org.sparserec.app.other")
    assert post_mortem.parse_exits(other) == []
    assert post_mortem.parse_exits("Can't find service: activity") == []


def test_judgements() -> None:
    low, crash, stop = post_mortem.parse_exits(RECORDS)
    died = post_mortem.judge([low, stop], [])
    assert (died.low_memory, died.stopped, died.reason) == (True, False, "low memory")
    died = post_mortem.judge([stop, crash], [])
    assert (died.low_memory, died.stopped) == (False, False)
    assert died.reason == "app crash(native), status 11"
    assert post_mortem.judge([stop], []).stopped
    died = post_mortem.judge([], [])
    assert (died.low_memory, died.stopped, died.reason) == (False, False, "")


def test_the_killer_in_the_log_counts_where_there_are_no_records() -> None:
    assert post_mortem.judge([], LOG).low_memory
    assert not post_mortem.judge([], [line for line in LOG if "'org.spa" not in line]).low_memory
    # An app may write the killer's words into the log itself; only lmkd's own line counts.
    quoted = LOG[4].replace(" lowmemorykiller:", " sparserec:")
    assert not post_mortem.judge([], [quoted]).low_memory


def test_our_lines() -> None:
    kept = post_mortem.ours(LOG, set())
    assert [LOG.index(line) for line in kept] == [0, 1, 3, 4, 6]
    assert post_mortem.ours(TOMBSTONE, {4500}) == TOMBSTONE[:3]
    assert post_mortem.ours(TOMBSTONE, set()) == TOMBSTONE[1:3]


def test_new_lines() -> None:
    assert post_mortem.since(["a", "b", "a", "c"], "a") == ["c"]
    assert post_mortem.since(["a", "b"], "z") == ["a", "b"]
    assert post_mortem.since(["a", "b"], "") == ["a", "b"]


def test_what_was_said() -> None:
    assert post_mortem.said(tuple(LOG)) == ["loading"]
    assert len(post_mortem.said(tuple(LOG[1:2] * 9))) == 5


@given(st.lists(st.text() | st.sampled_from(LOG + TOMBSTONE)), st.text())
def test_noise_never_fails_and_keeps_its_order(lines: list[str], text: str) -> None:
    kept = iter(lines)
    assert all(line in kept for line in post_mortem.ours(lines, {4711}))
    assert post_mortem.judge(post_mortem.parse_exits(text), lines).stopped is False
