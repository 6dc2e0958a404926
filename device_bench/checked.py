"""Reading JSON files that crossed a border: one clear error that names the file and the field."""

from __future__ import annotations

import json
import math
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, validators  # type: ignore[import-untyped]

from sparserec.errors import SparseRecError

# To JSON Schema 3.0 is an integer; to Python it is no index.
_Validator = validators.extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: type(value) is int
    ),
)
VERSION = 1
"""``schema_version`` of every file that is read here."""


def read(path: Path, schema: str, what: str, fix: str) -> dict[str, Any]:
    """Read a JSON object and check it against one of the published schemas.

    Args:
        path: the file.
        schema: the schema's file name under ``device_bench/schema``.
        what: what the file should be, for the message: ``"a report"``.
        fix: what to do if it is not one.

    Raises:
        SparseRecError: not readable, of another version, or a field that breaks the schema.
    """
    try:
        found = json.loads(
            path.read_text(encoding="utf-8"),
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
        # An escape may stand for half a character, which no page or terminal can show.
        json.dumps(found, ensure_ascii=False).encode()
    except (OSError, ValueError, RecursionError) as error:
        raise SparseRecError(f"{path}: cannot be read as {what}: {error}", fix) from None
    version = found.get("schema_version") if isinstance(found, dict) else None
    if type(version) is not int or version != VERSION:
        raise SparseRecError(
            f"{path}: schema_version is {version!r}, this version reads {VERSION}",
            f"use the sparserec version that made the file; {fix}",
        )
    for fault in validator(schema).iter_errors(found):
        where = ".".join(str(part) for part in fault.absolute_path) or what
        raise SparseRecError(f"{path}: {where}: {fault.message[:200]}", fix)
    checked: dict[str, Any] = found
    return checked


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _whole(text: str) -> int:
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{text[:30]} is too large")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large")
    return value


@cache
def validator(schema: str) -> Any:
    """The validator of ``device_bench/schema/<schema>``."""
    text = files("device_bench").joinpath("schema", schema).read_text("utf-8")
    return _Validator(json.loads(text))
