"""Which of an experiment's cells ``--only`` asks for, and whether their datasets are here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from sparserec.errors import SparseRecError

FIELDS = ("dataset", "protocol", "model", "method", "density", "seed", "variant")
AnyCell = TypeVar("AnyCell")


def chosen(
    cells: Sequence[AnyCell], only: Sequence[str], fields: Sequence[str] = FIELDS
) -> list[AnyCell]:
    """Keep the cells that ``--only`` asks for, by the fields that it may name.

    Raises:
        SparseRecError: a field or a value is unknown, or nothing is left.
    """
    kept = list(cells)
    # Not at the comma of variant=lr=0.01,l2=0.1: no field has a digit in its name.
    for pair in [pair for text in only for pair in re.split(",(?=[a-z]+=)", text)]:
        name, sign, values = pair.partition("=")
        if not sign or name not in fields:
            raise SparseRecError(
                f"--only {pair!r}: no field of a cell",
                f"write FIELD=VALUE with {', '.join(fields)}",
            )
        known = dict.fromkeys(_text(getattr(cell, name)) for cell in cells)
        wanted = values.split("+")
        if unknown := [value for value in wanted if value not in known]:
            raise SparseRecError(
                f"--only {pair!r}: no cell has {name} {unknown[0]!r}",
                f"choose from: {', '.join(known)}",
            )
        kept = [cell for cell in kept if _text(getattr(cell, name)) in wanted]
    if not kept:
        raise SparseRecError("--only leaves no cell", "see all of them with --list")
    return kept


def require_datasets(names: Iterable[str]) -> None:
    """Refuse to begin without a dataset: its runs would fail one after the other.

    Raises:
        SparseRecError: some are not on this machine; named with what to do.
    """
    from pipeline.data.datasets import DATA_VARIABLE, DATASETS, locate

    absent = []
    for name in dict.fromkeys(names):
        if name in DATASETS:
            here = locate(DATASETS[name]) is not None
        else:
            own = os.environ.get(DATA_VARIABLE)
            here = Path(name).exists() or (own is not None and Path(own, name).is_dir())
        if not here:
            absent.append(name)
    if not absent:
        return
    fixes = [f"run: sparserec data fetch {name}" for name in absent if name in DATASETS]
    fixes += [
        f"put train.txt and test.txt of {name} into ${DATA_VARIABLE}/{name} (docs/experiments.md)"
        for name in absent
        if name not in DATASETS
    ]
    raise SparseRecError(
        f"not on this machine: {', '.join(absent)}",
        "; ".join([*fixes, "or leave them out with --only dataset=..."]),
    )


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
