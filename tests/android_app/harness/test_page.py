"""The harness's page names the files that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FILES = {path.stem: path.read_text() for path in (ROOT / "android_app/harness").glob("*.kt")}


def _files() -> str:
    page = (ROOT / "docs/harness.md").read_text()
    return page.split("\n## Files\n")[1].split("\n## ")[0]


def test_every_file_is_named_and_no_other() -> None:
    assert set(re.findall(r"`(\w+)`", _files())) == set(FILES)


def test_the_files_that_know_executorch_are_named() -> None:
    (sentence,) = re.findall(r"[^.]*only files that know `org", _files())
    found = {name for name, text in FILES.items() if "import org.pytorch.executorch" in text}
    assert set(re.findall(r"`(\w+)`", sentence)) == found
