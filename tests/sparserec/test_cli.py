import json
import subprocess
import sys

import pytest

from sparserec.cli import COMMANDS

HEAVY = (
    "torch",
    "numpy",
    "executorch",
    "sklearn",
    "pyarrow",
    "matplotlib",
    "adb_shell",
    "rich.progress",
)


def sparserec(*arguments: str, code: str = "main()") -> subprocess.CompletedProcess[str]:
    argv = ["sparserec", *arguments]
    program = f"import sys; sys.argv = {argv!r}; from sparserec.cli import main; {code}"
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "\ntry: main()\nexcept SystemExit: pass\nimport json; print(json.dumps(list(sys.modules)))"
    )
    run = sparserec("--help", code=code)
    text, modules = run.stdout.rsplit("\n", 2)[0], json.loads(run.stdout.splitlines()[-1])
    assert all(name in text for name in COMMANDS)
    assert not [name for name in modules if name.startswith(HEAVY)]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_each_command_explains_itself(name: str) -> None:
    run = sparserec(name, "--help")
    assert run.returncode == 0, run.stderr
    assert f"Usage: sparserec {name}" in run.stdout


def test_an_error_is_one_message_with_a_fix_and_exit_code_2() -> None:
    run = sparserec("train", "no-such-dataset")
    assert run.returncode == 2
    assert run.stderr.startswith("error: no-such-dataset")
    assert "fix: " in run.stderr
    assert "Traceback" not in run.stderr


def test_an_unknown_command_is_refused() -> None:
    run = sparserec("trian")
    assert run.returncode == 2
    assert "trian" in run.stderr


def test_version() -> None:
    from sparserec import __version__

    assert sparserec("--version").stdout.strip() == f"sparserec {__version__}"
