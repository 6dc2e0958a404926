"""Which of an experiment's cells ``--only`` asks for."""

from __future__ import annotations

from collections.abc import Sequence
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
    for pair in [pair for text in only for pair in text.split(",")]:
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


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
