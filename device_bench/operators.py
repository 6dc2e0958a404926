"""The times of single operators, from ExecuTorch's profile of a run (an ETDump)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from sparserec.errors import SparseRecError

CALL = "native_call_"
"""The runtime's prefix of an operator's events."""
DELEGATE_CALL = "DELEGATE_CALL"
"""Its name for the call of a delegate, which is one line here, whatever it computes."""
ABSENT = (
    "There is no profile.etdump beside the report. The runtime library in the app is built without "
    "ETDump, so a phone or a virtual device leaves none. A profile that another build of "
    "ExecuTorch made is shown here when it lies beside report.json under that name."
)


@dataclass(frozen=True)
class Operator:
    """One operator over all its calls in the profile."""

    name: str
    calls: int
    total_ns: float
    share: float
    """Of the time of all operators, 0 to 1."""


def read(path: Path) -> list[Operator]:
    """The operators of a profile, the costliest first.

    Raises:
        SparseRecError: not an ETDump, or one without operators.
    """
    # This brings torch, which a report without a profile does without.
    from executorch.devtools import Inspector

    times: dict[str, list[float]] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inspector = Inspector(etdump_path=str(path))
        for block in inspector.event_blocks:
            for event in block.events:
                called = event.name.startswith(CALL) or event.name == DELEGATE_CALL
                if called and event.perf_data is not None:
                    name = event.name.removeprefix(CALL)
                    # The inspector's unit is the millisecond.
                    times.setdefault(name, []).extend(ms * 1e6 for ms in event.perf_data.raw)
    except Exception as error:  # The inspector has no error type of its own.
        raise SparseRecError(
            f"{path}: cannot be read as an ETDump: {error}", "remove it, or profile again"
        ) from None
    if not times:
        raise SparseRecError(f"{path}: has no operator's times", "remove it, or profile again")
    whole = sum(sum(samples) for samples in times.values())
    found = [
        Operator(name, len(samples), sum(samples), sum(samples) / whole if whole else 0.0)
        for name, samples in times.items()
    ]
    return sorted(found, key=lambda operator: -operator.total_ns)
