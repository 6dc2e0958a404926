"""The tables of docs/scale.md, from measurements."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.scale.cases import Case, Measured
from pipeline.scale.model import (
    TERMS,
    bytes_sent,
    fit,
    multiply_adds,
    rows_touched,
    state_bytes,
)


def report(speed: list[Measured], memory: list[Measured]) -> str:
    """Give all tables as Markdown."""
    parts = [_steps(speed), _model(speed), _scaling(speed)] if speed else []
    return "\n\n".join([*parts, _memory(memory)] if memory else parts)


def _cases(measured: list[Measured]) -> dict[Case, list[Measured]]:
    found: dict[Case, list[Measured]] = {}
    for one in measured:
        found.setdefault(one.case, []).append(one)
    return found


def _steps(speed: list[Measured]) -> str:
    model = fit(speed)
    lines = [
        "| rows | d | density | batch | ranks | rows a rank fetches | counted | sent a step"
        " | counted | processor a step | fitted | mask update | sent then |",
        "| ---: " * 13 + "|",
    ]
    for case, parts in _cases(speed).items():
        touched, sent = (np.mean([getattr(p, key) for p in parts]) for key in ("rows", "sent"))
        cpu, update = (max(getattr(p, key) for p in parts) for key in ("cpu_s", "update_cpu_s"))
        counted = bytes_sent(case) if case.ranks > 1 else 0
        lines.append(
            f"| {case.num_rows:,} | {case.dim} | {case.density:.0%} | {case.batch_size:,} |"
            f" {case.ranks} | {touched:,.0f} | {rows_touched(case):,.0f} | {sent / 1e3:,.0f} kB |"
            f" {counted / 1e3:,.0f} kB | {cpu * 1e3:.1f} ms | {model.step(case) * 1e3:.1f} ms |"
            f" {update * 1e3:.0f} ms | {max(p.update_sent for p in parts) / 1e3:,.0f} kB |"
        )
    return "\n".join(lines)


def _model(speed: list[Measured]) -> str:
    model = fit(speed)
    flops = [2 * multiply_adds(p.case) / p.case.ranks / p.cpu_s for p in speed]
    lines = ["| term | processor time |", "| --- | ---: |"]
    lines += [
        f"| a {term} | {seconds * 1e9:,.2f} ns |"
        for term, seconds in zip(TERMS, model.seconds, strict=True)
    ]
    lines.append(f"| root mean square of the relative error | {model.error:.0%} |")
    lines.append(
        f"| MF's arithmetic, of a rank | {min(flops) / 1e9:.2f} to {max(flops) / 1e9:.2f} GFLOP/s |"
    )
    return "\n".join(lines)


def _scaling(speed: list[Measured]) -> str:
    """Compare ranks with one: the same table and batch, and both larger with the ranks."""
    cpu = {case: max(p.cpu_s for p in parts) for case, parts in _cases(speed).items()}
    wall = {case: max(p.wall_s for p in parts) for case, parts in _cases(speed).items()}
    lines = [
        "| scaling | rows | batch | ranks | time passed, one rank / ranks | processor, one rank /"
        " slowest rank | ideal |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case, seconds in cpu.items():
        if case.ranks == 1:
            continue
        strong = replace(case, ranks=1)
        rows, batch = case.num_rows // case.ranks, case.batch_size // case.ranks
        weak = replace(strong, num_rows=rows, batch_size=batch)
        for name, one, ideal in (("strong", strong, case.ranks), ("weak", weak, 1)):
            if one in cpu:
                lines.append(
                    f"| {name} | {case.num_rows:,} | {case.batch_size:,} | {case.ranks} |"
                    f" {wall[one] / wall[case]:.2f} | {cpu[one] / seconds:.2f} | {ideal} |"
                )
    return "\n".join(lines)


def _memory(memory: list[Measured]) -> str:
    lines = [
        "| rows | ranks | measured | a rank keeps | counted | its peak | interactions beside it |",
        "| ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for case, parts in _cases(memory).items():
        how = "a shard alone" if case.of_ranks else "all ranks"
        state, peak = (max(getattr(p, k) for p in parts) for k in ("state_bytes", "peak_bytes"))
        log = parts[0].log_bytes * (case.of_ranks or 1)
        lines.append(
            f"| {case.num_rows:,} | {case.of_ranks or case.ranks} | {how} | {_size(state)} |"
            f" {_size(state_bytes(case))} | {_size(peak)} | {_size(log)} |"
        )
    return "\n".join(lines)


def _size(count: float) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**29 else f"{count / 2**20:,.1f} MiB"
