"""What was measured, in a file; all else about a fleet is assumed, in options."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pipeline.files import read_json
from sparserec.errors import SparseRecError


@dataclass(frozen=True)
class Inputs:
    """Sizes and times of one device.

    The file is JSON: for each field ``{"value": number, "from": text}``, where the text says which
    command measured it, on what.

    Attributes:
        bundle_bytes: a whole bundle.
        delta_bytes: what turns the last bundle into this one.
        report_bytes: a report.
        train_s: seconds from the bundle's arrival to the report: apply, train, evaluate.
    """

    bundle_bytes: float
    delta_bytes: float
    report_bytes: float
    train_s: float


def load(path: Path) -> Inputs:
    """Read a file of inputs.

    Raises:
        SparseRecError: it is missing, or a field is, or is no positive number with its source.
    """
    content = read_json(path)
    names = [field.name for field in fields(Inputs)]
    if not isinstance(content, dict):
        raise SparseRecError(f"{path}: not an object", f"give {', '.join(names)}")
    unknown = sorted(set(content) - set(names))
    if unknown:
        raise SparseRecError(f"{path}: field {unknown[0]} is unknown", f"use {', '.join(names)}")
    return Inputs(**{name: _value(path, name, content.get(name)) for name in names})


def _value(path: Path, name: str, entry: Any) -> float:
    fix = f'write "{name}": {{"value": a number above 0, "from": "the command"}}'
    if not isinstance(entry, dict) or not entry.get("from"):
        raise SparseRecError(f"{path}: field {name} is missing, or where it is from", fix)
    value = entry.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SparseRecError(f"{path}: field {name} is {value!r}, not a number", fix)
    if not 0 < value < math.inf:
        raise SparseRecError(f"{path}: field {name} is {value}", fix)
    return float(value)
