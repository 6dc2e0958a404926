"""What a record says of where its run was made."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import sklearn
import torch

from sparserec import __version__

ROOT = Path(__file__).resolve().parents[2]
IDENTITY = (
    *("vendor_id", "cpu family", "model", "stepping"),
    *("CPU implementer", "CPU part", "CPU variant", "CPU revision"),
)
"""Fields of ``/proc/cpuinfo`` that tell processors apart, x86's and Arm's: a virtual machine gives
many the same name, and linear algebra rounds by what they are."""


def machine() -> dict[str, Any]:
    """Describe this computer: processor, cores, memory, threads and what else it is doing."""
    return {
        "cpu": _of_processor("model name"),
        "processor": _of_processor(*IDENTITY),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "threads": torch.get_num_threads(),
        "load_1m": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Give the versions that results depend on."""
    return {
        "sparserec": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "scikit-learn": sklearn.__version__,
    }


def git() -> dict[str, Any] | None:
    """Give the commit, and whether anything but results differs from it; None outside of git."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    changed = _git("status", "--porcelain", "--", ".", ":(exclude)docs/results")
    return {"commit": commit, "dirty": bool(changed)}


def reset_peak() -> int | None:
    """Begin to count this process's peak anew; give what it holds now, in bytes, or None.

    None means that the kernel does not allow it: the peak is then that of the whole process.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _status("VmRSS")


def peak_rss() -> int:
    """Give the peak resident memory in bytes since ``reset_peak``, or since the process began."""
    peak = _status("VmHWM")
    return peak if peak is not None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _status(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(found[0]) * 1024 if found else None


def _of_processor(*fields: str) -> str | None:
    """Give what is known of the first processor, of these fields."""
    try:
        first, _, _ = Path("/proc/cpuinfo").read_text().partition("\n\n")
    except OSError:
        return platform.processor() or None
    lines = (line.partition(":") for line in first.splitlines())
    known = {name.strip(): value.strip() for name, _, value in lines}
    found = " ".join(known[field] for field in fields if field in known)
    return found or platform.processor() or None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
