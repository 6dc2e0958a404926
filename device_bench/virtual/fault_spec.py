"""What a virtual device is asked to do wrong: read from TOML or JSON, checked, plain data.

docs/virtual-device.md has the table of what each field means. A field that is not there, or has a
value that makes no sense, is refused with its name.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from sparserec.errors import SparseRecError


def _span(value: Any) -> Any:
    """``n`` as ``[n, n]``; a list stays what it is."""
    return value if isinstance(value, (list, tuple)) else [value, value]


Span = Annotated[tuple[NonNegativeInt, NonNegativeInt], BeforeValidator(_span)]
"""A number, or ``[lowest, highest]`` to draw one from."""

Millis = Annotated[tuple[NonNegativeFloat, NonNegativeFloat], BeforeValidator(_span)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Wire(_Table):
    """Something that happens at one byte of a connection."""

    action: Literal["drop", "stall", "flip"]
    at_byte: Span
    direction: Literal["to_device", "from_device"] = "to_device"
    service: str | None = None
    nth: PositiveInt = 1
    seconds: PositiveFloat | None = None


class Storage(_Table):
    """A device with little space, or with storage that damages what it is given."""

    bytes: NonNegativeInt | None = None
    damage_pushes: NonNegativeInt = 0


class _Event(_Table):
    """Has one moment: after a status of a run, or a time."""

    at_status: Span | None = None
    run: PositiveInt = 1
    after_seconds: NonNegativeFloat | None = None

    @model_validator(mode="after")
    def _one_moment(self) -> Self:
        if (self.at_status is None) == (self.after_seconds is None):
            raise ValueError("needs either at_status or after_seconds")
        return self


class Offline(_Event):
    """The device is gone, for ``seconds`` or for good; its time counts from the device's start."""

    seconds: PositiveFloat | None = None


class Kill(_Event):
    """The app's process ends by SIGKILL; its time counts from the run's start."""

    reason: Literal["low memory", "signal"] = "low memory"


class Thermal(_Table):
    """From this moment on the thermal status is ``status`` (0 none ... 6 shutdown)."""

    after_seconds: NonNegativeFloat = 0.0
    status: Annotated[int, Field(ge=0, le=6)]


class Battery(_Table):
    """A battery, which the virtual device otherwise has not."""

    level: Annotated[int, Field(ge=0, le=100)]
    charging: bool = False


class Clock(_Table):
    """At this moment the device's clock jumps."""

    after_seconds: NonNegativeFloat = 0.0
    by_seconds: float


class FaultSpec(_Table):
    """Everything that can be asked for; nothing is asked for where a field is absent."""

    seed: int = 0
    latency_ms: Millis | None = None
    bytes_per_second: PositiveInt | None = None
    unauthorised: bool | PositiveFloat = False
    runs_outlive_clients: bool = False
    install_answer: str | None = None
    wire: tuple[Wire, ...] = ()
    storage: Storage = Storage()
    offline: tuple[Offline, ...] = ()
    kill: tuple[Kill, ...] = ()
    thermal: tuple[Thermal, ...] = ()
    battery: Battery | None = None
    clock: tuple[Clock, ...] = ()
    properties: dict[str, str] = {}


def parse(value: Any, source: str = "faults") -> FaultSpec:
    """Check a decoded specification.

    Args:
        value: tables, lists and scalars as TOML or JSON have them.
        source: where it comes from, for the message.

    Raises:
        SparseRecError: naming the field that is wrong.
    """
    try:
        return FaultSpec.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise SparseRecError(
            f"{source}: {where}: {first['msg']}", "docs/virtual-device.md lists the faults"
        ) from None


def load(path: Path | None, lines: Sequence[str] = ()) -> FaultSpec:
    """Read a specification from a file and from the command line's ``--fault`` options.

    Args:
        path: a ``.toml`` or ``.json`` file, or None.
        lines: lines of TOML, such as ``latency_ms = 20``; they replace the file's fields.

    Raises:
        SparseRecError: a file or line that cannot be read, or a field that is wrong.
    """
    value: dict[str, Any] = {}
    try:
        if path is not None:
            text = path.read_text(encoding="utf-8")
            value = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise SparseRecError(
            f"{path}: cannot be read as a fault specification: {error}",
            "write it as docs/virtual-device.md shows",
        ) from None
    try:
        given = tomllib.loads("\n".join(lines))
    except (ValueError, RecursionError) as error:
        raise SparseRecError(
            f"--fault: not a line of TOML: {error}", "write it like --fault 'latency_ms = 20'"
        ) from None
    if not isinstance(value, dict):
        return parse(value, str(path))
    return parse(value | given, "--fault" if path is None else str(path))
