"""A bundle that the app's runtime cannot run is refused before a device hears of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_bench.compat import require_runnable
from export import manifest
from sparserec.errors import SparseRecError

RECORDED = Path(__file__).parents[2] / "tests/android_app/app/recorded/manifest.json"


def _recorded(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> manifest.Manifest:
    value = json.loads(RECORDED.read_text())
    change(value)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(value))
    return manifest.read(path)


def test_a_recorded_bundle_runs(tmp_path: Path) -> None:
    require_runnable(tmp_path, _recorded(tmp_path, lambda value: None))


def _gradients(value: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = value["programs"]["step"]["methods"]["gradients"]
    return found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda value: _gradients(value)["operators"].append("aten::sort"),
            r"step\.pte: method gradients needs operators .* not have: aten::sort\n",
        ),
        (
            lambda value: _gradients(value)["backends"].append("QnnBackend"),
            r"step\.pte: method gradients needs backends .* not have: QnnBackend\n",
        ),
        (
            lambda value: value["producer"].update(executorch="1.10.0"),
            r"made by ExecuTorch 1\.10\.0; the app's library is known to run those of 1\.5",
        ),
    ],
)
def test_what_the_runtime_lacks_is_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    with pytest.raises(SparseRecError, match=message):
        require_runnable(tmp_path, _recorded(tmp_path, change))
