"""What is measured, and one measurement."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A table and a step.

    Attributes:
        ranks: processes that train.
        num_rows: N of the whole table, half of them users; there are 2 N interactions.
        dim: d.
        density: active entries / (N d).
        batch_size: BPR triples a step, of all ranks.
        sampled_fraction: |S| / N.
        of_ranks: where a process trains one rank's shard alone: the ranks there would be. It sees
            only rows of its own, and a part of the batch; nothing is exchanged. Else 0.
    """

    ranks: int
    num_rows: int
    dim: int
    density: float
    batch_size: int
    sampled_fraction: float
    of_ranks: int = 0


@dataclass(frozen=True)
class Measured:
    """What one rank's process measured, over steps without a mask update and with one.

    Attributes:
        case: of it.
        rank: whose process it was.
        wall_s, cpu_s: medians over steps, of the time that passed and of this process's own.
        wait_s: median over steps: what passed inside collectives, waiting for peers included.
        update_cpu_s: own time of a step with a mask update, less that of one without.
        sent: bytes a step handed over to other ranks.
        update_sent: bytes of a mask update, and of drawing S.
        rows: distinct rows of this rank's examples, mean over steps.
        state_bytes: arrays that live from step to step.
        peak_bytes: peak of resident memory over what libraries and interactions take.
        log_bytes: the interactions and the sorted keys of known pairs, which each rank has.
    """

    case: Case
    rank: int
    wall_s: float
    cpu_s: float
    wait_s: float
    update_cpu_s: float
    sent: float
    update_sent: float
    rows: float
    state_bytes: int
    peak_bytes: int
    log_bytes: int


STEPS, WINDOW = 20, 5


def speed_cases() -> list[Case]:
    """Give what times and bytes are measured on: each factor is varied."""
    base = [
        (100_000, 64, 0.05, 8192),
        (100_000, 64, 0.2, 8192),
        (100_000, 32, 0.05, 8192),
        (100_000, 64, 0.05, 2048),
        (1_000_000, 64, 0.05, 8192),
        (200_000, 64, 0.05, 16384),
    ]
    return [Case(ranks, *rest, 0.25) for ranks in (1, 2) for rest in base]


def memory_cases(largest: int) -> list[Case]:
    """Give what memory is measured on, up to so many rows; eighths of a table stand alone."""
    found = [Case(1, rows, 64, 0.05, 8192, 0.25, 8) for rows in (10**8, 10**7, 10**6)]
    found += [
        Case(ranks, rows, 64, 0.05, 8192, 0.25)
        for rows in (10**7, 10**6, 10**5)
        for ranks in (1, 2)
    ]
    return [case for case in found if case.num_rows <= largest]
