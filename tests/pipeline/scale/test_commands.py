"""``python -m pipeline.scale``."""

from pathlib import Path

import pytest

from pipeline.scale import __main__ as scale
from sparserec.errors import SparseRecError


@pytest.mark.parametrize("command", ["steps", "memory"])
def test_a_file_that_cannot_be_written_is_said_before_any_work(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "_launch", lambda *_: pytest.fail("measured"))
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "found.json"
    with pytest.raises(SparseRecError, match=f"{out}: cannot be written"):
        scale.app([command, "--out", str(out)], standalone_mode=False)
