"""The built harness (built here where it is stale)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.android_app.conftest import desktop, launcher
from tests.bench.jvm import Runtime

__all__ = ["desktop", "launcher"]


@pytest.fixture(scope="session")
def runtime(launcher: Path, tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    return Runtime(tmp_path_factory.mktemp("bench"), launcher.parent.parent)
