"""How much memory a training step takes: forward, backward and mask update apart.

Each measurement runs in a fresh process, by the kernel's high-water mark of resident memory, which
is set back (``/proc/self/clear_refs``) where a phase begins. It sees all that is allocated, by
NumPy, PyTorch or a library below them, and counts a page once it is touched. glibc is told to give
freed blocks of 64 KiB and more back at once, so that a peak is the phase's own. Linux only.

Peers are written the way PyTorch users write them (``nn.Parameter``, ``torch.optim.Adam``):
``dense``, and ``rigl``, RigL (arXiv 1911.11134) as published: dense weights under a mask, with a
gradient of the whole table. ``rigl-packed`` is this project's trainer with RigL's rule.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.models import ModelName
from sparserec.errors import SparseRecError

MemoryMethod = Literal["sparserec", "rigl-packed", "dense", "rigl"]
STEPS, WINDOW = 8, 4
SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_ARENA_MAX": "1",
    "NUMPY_MADVISE_HUGEPAGE": "0",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Memory:
    """One measurement; bytes, without what the interactions and the libraries take.

    Attributes:
        model, method, num_rows, dim, density, batch_size, sampled_fraction: what was measured;
            num_rows is N.
        packed_bytes: values, columns, row pointers and Adam's moments of round(density N d)
            entries: what a packed table takes at least.
        sums_bytes: the accumulators, |S| d float32.
        state_bytes: what lives from step to step, counted by its arrays: parameters, indices or
            mask, the optimizer's moments, and accumulators or the gradient that is kept.
        start: peak while the table is made; the same for all that follow.
        forward: peak until the loss is known.
        backward: peak until the gradients are known.
        update: peak while parameters, sums and, at a window's end, the mask change.
        skipped: why nothing was measured; then the four peaks are None.
    """

    model: str
    method: str
    num_rows: int
    dim: int
    density: float
    batch_size: int
    sampled_fraction: float
    packed_bytes: int
    sums_bytes: int
    state_bytes: int | None = None
    start: int | None = None
    forward: int | None = None
    backward: int | None = None
    update: int | None = None
    skipped: str = ""


def measure(
    model: ModelName,
    method: MemoryMethod,
    num_rows: int,
    dim: int = 64,
    density: float = 0.1,
    *,
    batch_size: int = 1024,
    sampled_fraction: float = 0.25,
    limit: int = 8 << 30,
) -> Memory:
    """Measure some steps, mask updates among them, on random interactions, in a fresh process.

    Args:
        model: the base recommender.
        method: see the module.
        num_rows: N, half of them users; there are 2 N interactions.
        dim: d.
        density: active entries / (N d); of ``rigl`` the mask's.
        batch_size: BPR triples a step.
        sampled_fraction: |S| / N of ``sparserec``.
        limit: bytes; what would take more is skipped, and so is what would take more than the
            machine has left.

    Raises:
        SparseRecError: this is no Linux, or the process failed.
    """
    if not Path("/proc/self/clear_refs").exists():
        raise SparseRecError("memory is measured by Linux' /proc only", "measure on Linux")
    count = round(density * num_rows * dim)
    wanted = Memory(
        model,
        method,
        num_rows,
        dim,
        density,
        batch_size,
        sampled_fraction,
        packed_bytes=13 * count + 8 * (num_rows + 1),
        sums_bytes=4 * dim * round(sampled_fraction * num_rows) if method == "sparserec" else 0,
    )
    needed, free = _estimate(wanted), _available()
    if needed > min(limit, free):
        allowed = f"{min(limit, free) / 2**30:.1f} GiB are allowed or free"
        reason = f"it would take about {needed / 2**30:.1f} GiB, {allowed}"
        return Memory(**asdict(wanted) | {"skipped": reason})
    found = subprocess.run(
        [sys.executable, "-m", "pipeline.memory_process", json.dumps(asdict(wanted))],
        env=os.environ | SETTINGS,
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        last = found.stderr.strip().splitlines()[-1:] or [f"exit code {found.returncode}"]
        raise SparseRecError(f"measuring {model} {method} failed: {last[0]}", "free some memory")
    return Memory(**asdict(wanted) | json.loads(found.stdout.splitlines()[-1]))


def _estimate(wanted: Memory) -> int:
    """Guess what the process takes at its peak, to tell what does not fit."""
    table = 4 * wanted.num_rows * wanted.dim
    data = 120 * wanted.num_rows  # interactions, their sorted keys, and a graph
    tapes = {"ngcf": 12, "lightgcn": 3}.get(wanted.model, 0) * table
    if wanted.method in ("dense", "rigl"):
        return data + (8 if wanted.method == "rigl" else 6) * table + tapes
    blocks = tapes if wanted.model == "ngcf" else tapes // 2
    return data + 4 * wanted.packed_bytes + 2 * wanted.sums_bytes + blocks


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) * 1024
    return sys.maxsize


class Meter:
    """Peaks of resident memory over a base, by phase."""

    def __init__(self) -> None:
        self.peaks: dict[str, int] = {}
        self.base = 0
        self._reset()
        self.base = self._read("VmRSS")

    def end(self, phase: str) -> None:
        """Close a phase, which began where the last one ended."""
        peak = self._read("VmHWM") - self.base
        self.peaks[phase] = max(peak, self.peaks.get(phase, 0))
        self._reset()

    def watched(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function at whose return a phase ends."""

        def run(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            self.end(phase)
            return result

        return run

    @staticmethod
    def _reset() -> None:
        Path("/proc/self/clear_refs").write_text("5")

    @staticmethod
    def _read(key: str) -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024
        raise RuntimeError(f"/proc/self/status has no {key}")
