"""Run a function on several ranks: real processes that talk over gloo."""

import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from pipeline.distributed.ranks import Ranks


def on_ranks(world: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """Call ``function(ranks, *args)`` on each of ``world`` ranks; give their results by rank."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.distributed.fit"])  # so that torch loads once
    with tempfile.TemporaryDirectory() as folder:
        ends, processes = [], []
        for rank in range(world):
            here, there = context.Pipe(duplex=False)
            target = (there, folder, rank, world, function, args)
            processes.append(context.Process(target=_rank, args=target, daemon=True))
            processes[-1].start()
            there.close()
            ends.append(here)
        answers = [end.recv() for end in ends]
        for process in processes:
            process.join()
    failed = [answer for worked, answer in answers if not worked]
    assert not failed, "\n".join(failed)
    return [answer for _, answer in answers]


def _rank(
    answer: Connection,
    folder: str,
    rank: int,
    world: int,
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(folder) / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    try:
        answer.send((True, function(Ranks(rank, world, torch.device("cpu")), *args)))
    except BaseException:
        answer.send((False, traceback.format_exc()))
    finally:
        dist.destroy_process_group()
