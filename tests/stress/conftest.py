"""The built harness (built here where it is stale), and what the campaigns work on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.android_app.conftest import desktop, launcher
from tests.stress.chains import SETTINGS, Prepared, prepare
from tests.stress.corruption import Range
from tests.stress.deltas import Stage
from tests.stress.workshop import Workshop

__all__ = ["desktop", "launcher"]


@pytest.fixture(scope="session")
def workshop(launcher: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"), launcher.parent.parent)


@pytest.fixture(scope="session")
def prepared(workshop: Workshop) -> Prepared:
    """The setting that writes a generation after every step."""
    return prepare(workshop, SETTINGS[1])


@pytest.fixture(scope="session")
def range_(workshop: Workshop) -> Range:
    return Range(workshop)


@pytest.fixture(scope="session")
def stage(workshop: Workshop) -> Stage:
    return Stage(workshop)
