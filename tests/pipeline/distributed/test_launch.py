"""What torchrun must be told before ranks of it may start, and how their errors are said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from pipeline.data.logs import write_csv
from pipeline.data.split import temporal_split
from pipeline.data.synthetic import generate
from pipeline.distributed import run
from pipeline.distributed.launch import OWN_STORE
from pipeline.distributed.ranks import Ranks
from pipeline.files import alone
from pipeline.recipes import RECIPES
from sparserec.errors import SparseRecError
from tests.pipeline.distributed.test_fit import epochs_saved, until
from tests.pipeline.test_commands import app


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


def train(*arguments: object) -> subprocess.CompletedProcess[str]:
    code = "from sparserec.cli import main; main()"
    few = ["--ranks", "2", "--dim", "16", "--density", "0.3", "--epochs", "1"]
    return subprocess.run(
        [sys.executable, "-c", code, "train", *map(str, arguments), *few],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def assert_said_once(done: subprocess.CompletedProcess[str], problem: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: {problem}")
    assert done.stderr.count("\n") == 2, done.stderr  # with its fix, and nothing else
    assert "\nfix: " in done.stderr


def test_an_error_of_all_ranks_is_said_once(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id,timestamp\na,x,1\nb,y\n")
    assert_said_once(train(log, "--out", tmp_path / "run"), f"{log}, line 3: malformed")


def test_an_error_of_the_first_rank_ends_those_that_wait_for_it(tmp_path: Path) -> None:
    log, given = tmp_path / "log.csv", tmp_path / "none"
    write_csv(generate(40, 60, 1500), log)
    done = train(log, "--out", tmp_path / "run", "--factors", given)
    assert_said_once(done, f"{given / 'factors.json'}: No such file")


def test_an_error_in_the_middle_of_a_run_is_said_once(tmp_path: Path) -> None:
    log, out = tmp_path / "log.csv", tmp_path / "run"
    write_csv(generate(40, 60, 1500), log)
    assert train(log, "--out", out).returncode == 0
    (shard,) = (out / "checkpoint").glob("*-shard-1-of-2.safetensors")
    shard.write_bytes(shard.read_bytes()[:100])
    assert_said_once(train(log, "--out", out), f"{shard}: ")


def test_a_wrong_column_is_said_before_ranks_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id\na,x\n")
    monkeypatch.setattr("pipeline.distributed.launch.launch", lambda *_: pytest.fail("started"))
    arguments = [str(log), "--ranks", "2", "--user-col", "who"]
    result = CliRunner().invoke(app(), arguments)
    assert isinstance(result.exception, SparseRecError)
    assert "no user column 'who'" in result.exception.message


def test_a_fresh_run_leaves_one_alone_that_is_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Peers(Ranks):
        def wait(self) -> None:
            pass

    peers = nullcontext(Peers(0, 1, torch.device("cpu")))
    monkeypatch.setattr(run, "joined", lambda device: peers)
    monkeypatch.setattr(run, "LOCK_PATIENCE", 0.0)
    saved = tmp_path / "checkpoint" / "step-0000000001.json"
    saved.parent.mkdir()
    saved.touch()
    split = temporal_split(generate(40, 60, 1500))
    with alone(tmp_path), pytest.raises(SparseRecError, match="another run writes there"):
        run.together(RECIPES["sparserec"](), split, tmp_path, True, torch.device("cpu"))
    assert saved.exists()


def test_a_stop_is_no_traceback(tmp_path: Path) -> None:
    log, out = tmp_path / "log.csv", tmp_path / "run"
    write_csv(generate(40, 60, 1500), log)
    code = "from sparserec.cli import main; main()"
    command = [sys.executable, "-c", code, "train", log, "--ranks", "2", "--out", out]
    command += ["--density", "0.3", "--epochs", "100000"]
    with (tmp_path / "said.txt").open("w") as said:
        launcher = subprocess.Popen(command, stdout=said, stderr=said)
    until(lambda: epochs_saved(out) >= 1, "no checkpoint before it is stopped")
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(timeout=100) == 128 + signal.SIGTERM
    text = (tmp_path / "said.txt").read_text()
    assert "the same command goes on from" in text
    assert "Traceback" not in text
