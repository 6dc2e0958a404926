"""How tests are shared between processes (``-n``), and how many threads each has."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import pytest
from hypothesis import settings

# A busy machine takes any time for an example: what is slow is for `make bench` to say.
settings.register_profile("sparserec", deadline=None)
settings.load_profile("sparserec")

# Before torch is imported, here or in a process of a test: tests work on small tensors, and two
# threads that wait for each other on a busy core take many times as long as one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell lets its background jobs ignore Ctrl-C, and what they start inherits that: tests that send
# it to a process of theirs would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

ONE_AFTER_THE_OTHER = ("tests/android_app/apk/", "tests/android_app/test_gradle.py")
"""They build, or look through, ``android_app/target``."""


@pytest.fixture(autouse=True)
def _the_same_draws() -> None:
    """Begin each test that has torch with the same seed: what failed once fails again."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give a file to one process, so that what its tests share is made once."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            alone = nodeid.startswith(ONE_AFTER_THE_OTHER)
            return "android_app/target" if alone else nodeid.split("::", 1)[0]

    return ByFile(config, log)
