"""What torchrun must be told before ranks of it may start."""

from __future__ import annotations

import os
import subprocess
import sys

from pipeline.distributed.launch import OWN_STORE


def torchrun(**environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != OWN_STORE}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts=1"]
    return subprocess.run(
        [*command, "-m", "pipeline.distributed", "--help"],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_ranks_that_may_find_the_ones_before_them_do_not_start() -> None:
    done = torchrun()
    assert done.returncode != 0
    assert f"set {OWN_STORE}=1" in done.stderr


def test_ranks_with_a_store_of_their_own_start() -> None:
    assert torchrun(**{OWN_STORE: "1"}).returncode == 0
