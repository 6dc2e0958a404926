"""The parser on what Android prints, on any part of it, and on noise."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from device_bench.instrumentation import Outcome, Parser, Result, Status

# Forms as Android's Am prints them; the app's values follow docs/formats.md section 7.
NORMAL = """\
INSTRUMENTATION_STATUS: phase=load
INSTRUMENTATION_STATUS_CODE: 2
INSTRUMENTATION_STATUS: phase=train
INSTRUMENTATION_STATUS: step=10
INSTRUMENTATION_STATUS: steps=400
INSTRUMENTATION_STATUS: loss=0.61
INSTRUMENTATION_STATUS_CODE: 2
INSTRUMENTATION_RESULT: exit_status=succeeded
INSTRUMENTATION_RESULT: report=/sdcard/Android/media/org.sparserec.app/runs/x/report.json
INSTRUMENTATION_CODE: -1
"""
FAILED = """\
INSTRUMENTATION_STATUS: phase=load
INSTRUMENTATION_STATUS_CODE: 2
INSTRUMENTATION_RESULT: exit_status=failed
INSTRUMENTATION_RESULT: error=score.pte: its SHA-256 is not the manifest's
INSTRUMENTATION_CODE: 0
"""
CRASHED = """\
INSTRUMENTATION_STATUS: phase=train
INSTRUMENTATION_STATUS: step=20
INSTRUMENTATION_STATUS: steps=400
INSTRUMENTATION_STATUS_CODE: 2
INSTRUMENTATION_RESULT: shortMsg=Process crashed.
INSTRUMENTATION_CODE: 0
"""
CRASHED_LONG = """\
INSTRUMENTATION_RESULT: shortMsg=java.lang.IllegalStateException
INSTRUMENTATION_RESULT: longMsg=java.lang.IllegalStateException: no table
\tat org.sparserec.Table.open(Table.kt:12)
\tat org.sparserec.Harness.run(Harness.kt:40)
INSTRUMENTATION_CODE: 0
"""
NOT_FOUND = """\
INSTRUMENTATION_STATUS: id=ActivityManagerService
INSTRUMENTATION_STATUS: Error=Unable to find instrumentation info for: ComponentInfo{a/b}
INSTRUMENTATION_STATUS_CODE: -1
android.util.AndroidException: INSTRUMENTATION_FAILED: a/b
\tat com.android.commands.am.Instrument.run(Instrument.java:543)
\tat com.android.commands.am.Am.runInstrument(Am.java:202)
"""
NOT_FOUND_PLAIN = "INSTRUMENTATION_FAILED: org.sparserec.app/.HarnessInstrumentation\n"
ABORTED = "INSTRUMENTATION_ABORTED: System has crashed.\n"


def parse(text: str) -> tuple[list[Status], Result]:
    parser = Parser()
    statuses = [status for line in text.splitlines() if (status := parser.feed(line))]
    return statuses, parser.finish()


def test_normal_run() -> None:
    statuses, result = parse(NORMAL)
    train = {"phase": "train", "step": "10", "steps": "400", "loss": "0.61"}
    assert statuses == [Status(2, {"phase": "load"}), Status(2, train)]
    assert result.outcome is Outcome.SUCCEEDED
    assert result.message == ""
    assert result.values["report"].endswith("/runs/x/report.json")


def test_failure_says_the_harness_own_words() -> None:
    _, result = parse(FAILED)
    assert result.outcome is Outcome.FAILED
    assert result.message == "score.pte: its SHA-256 is not the manifest's"


def test_crash_without_and_with_a_trace() -> None:
    statuses, result = parse(CRASHED)
    assert statuses[-1].values["step"] == "20"
    assert (result.outcome, result.message) == (Outcome.CRASHED, "Process crashed.")
    _, result = parse(CRASHED_LONG)
    assert result.outcome is Outcome.CRASHED
    assert "no table at org.sparserec.Table.open(Table.kt:12)" in result.message
    assert "\n" not in result.message


def test_component_that_is_not_there() -> None:
    for text in (NOT_FOUND, NOT_FOUND_PLAIN):
        assert parse(text)[1].outcome is Outcome.NOT_STARTED
    assert "Unable to find instrumentation info" in parse(NOT_FOUND)[1].message
    assert "HarnessInstrumentation" in parse(NOT_FOUND_PLAIN)[1].message


def test_system_crash() -> None:
    assert parse(ABORTED)[1] == Result(Outcome.ABORTED, {}, "System has crashed.")


def test_a_crash_without_words_is_still_one() -> None:
    _, result = parse("INSTRUMENTATION_RESULT: shortMsg=\nINSTRUMENTATION_CODE: 0\n")
    assert (result.outcome, result.message) == (Outcome.CRASHED, "process crashed")


def test_every_cut_of_a_normal_run_is_cut_short() -> None:
    lines = NORMAL.splitlines()
    for end in range(len(lines)):
        _, result = parse("\n".join(lines[:end]))
        assert result.outcome is Outcome.CUT_SHORT, lines[end - 1]


def test_an_error_of_the_shell_is_shown() -> None:
    _, result = parse("/system/bin/sh: am: inaccessible or not found\n")
    assert result.outcome is Outcome.CUT_SHORT
    assert "am: inaccessible or not found" in result.message


def test_code_minus_one_without_the_harness_word_is_no_success() -> None:
    assert parse("INSTRUMENTATION_CODE: -1\n")[1].outcome is Outcome.FAILED


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\n\r"), max_size=40)))
def test_noise_is_never_a_success_and_never_an_error(lines: list[str]) -> None:
    parser = Parser()
    for line in lines:
        parser.feed(line)
    assert parser.finish().outcome is not Outcome.SUCCEEDED


pieces = st.sampled_from([line + "\n" for line in (NORMAL + FAILED + CRASHED).splitlines()])


@given(st.lists(pieces | st.just("noise\n") | st.just("INSTRUMENTATION_\n")))
def test_any_shuffle_of_lines_parses(parts: list[str]) -> None:
    text = "".join(parts)
    statuses, result = parse(text)
    assert len(statuses) == text.count("INSTRUMENTATION_STATUS_CODE: 2")
    if result.outcome is Outcome.SUCCEEDED:
        assert "INSTRUMENTATION_CODE: -1" in text
        assert "exit_status=succeeded" in text
        assert "shortMsg" not in text


values = st.dictionaries(
    st.from_regex(r"[a-z_]{1,10}", fullmatch=True),
    # A value may have line ends; those of str.splitlines that adb does not split at are not used.
    st.text(alphabet=st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=20),
    min_size=1,
)


@given(st.lists(values, max_size=5))
def test_statuses_come_back_as_they_were_sent(sent: list[dict[str, str]]) -> None:
    lines = []
    for status in sent:
        lines += [f"INSTRUMENTATION_STATUS: {key}={value}" for key, value in status.items()]
        lines.append("INSTRUMENTATION_STATUS_CODE: 2")
    assert [status.values for status in parse("\n".join(lines))[0]] == sent
