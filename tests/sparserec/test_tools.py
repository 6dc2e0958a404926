"""scripts/check_tools.py, run as `make setup` runs it, on a PATH that lacks everything."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_tools.py"


def test_each_missing_tool_is_named_with_how_to_get_it(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    for tool in ("java", "javac", "mvn", "npm", "cc"):
        assert f"setup: {tool} is missing: install" in run.stderr


def test_an_old_java_is_named(tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    java.chmod(0o755)
    run = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={"PATH": f"{tmp_path}:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "java is version 11" in run.stderr
