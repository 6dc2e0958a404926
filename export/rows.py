"""What changed in a safetensors file, by rows and by runs of a list: docs/formats.md section 1.9.

Nothing here knows of folders or manifests: bytes in, bytes out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from pipeline.table import I64

Array = NDArray[Any]

HEADER = "header"


@dataclass(frozen=True)
class Ragged:
    """Tensors of one file that together are rows of unequal length.

    Attributes:
        pointer: row r's entries are ``[pointer[r], pointer[r+1])``.
        entries: tensors with an element for each entry.
        rows: tensors with an element for each row; they may be absent.
        of_both: the rows are users, then items, so that new users move the items' rows.
    """

    pointer: str
    entries: tuple[str, ...]
    rows: tuple[str, ...] = ()
    of_both: bool = False

    def members(self, tensors: Mapping[str, Array]) -> list[str]:
        """Those of its tensors that a file has."""
        return [name for name in (self.pointer, *self.entries, *self.rows) if name in tensors]


RAGGED = {
    "table.safetensors": (Ragged("row_ptr", ("cols", "vals"), ("scales",), of_both=True),),
    "graph.safetensors": (Ragged("graph_ptr", ("graph_rows",), of_both=True),),
    "interactions.safetensors": (Ragged("seen_ptr", ("seen_items",)),),
    "ids.safetensors": (
        Ragged("users_offsets", ("users_utf8",)),
        Ragged("items_offsets", ("items_utf8",)),
    ),
}
"""The files that can be changed by rows."""

LISTS = {
    "interactions.safetensors": (("log_users", "log_items"), ("later_users", "later_items")),
}
"""Tensors that together are a list of distinct pairs, from which some go and to which some come."""


@dataclass(frozen=True)
class _File:
    """``start`` is what comes before the data; ``tensors`` are in the data's order."""

    start: bytes
    tensors: dict[str, Array]

    @classmethod
    def of(cls, data: bytes, most: int = 0) -> _File:
        """Read a file, or its first bytes alone, with tensors of zeros of at most ``most`` bytes.

        Raises:
            ValueError: it is not safetensors.
        """
        try:
            size = 8 + int.from_bytes(data[:8], "little")
            header = json.loads(data[8:size])
            ends = {k: header[k]["data_offsets"] for k in header if k != "__metadata__"}
            missing = size + max((end for _, end in ends.values()), default=0) - len(data)
            if len(data) != size or not 0 <= missing <= most:
                missing = 0
            arrays = load(data + bytes(missing))
        except (SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"not safetensors ({error})") from None
        order = sorted(arrays, key=lambda name: (*ends[name], name))
        return cls(data[:size], {name: arrays[name] for name in order})


def difference(name: str, base: bytes, result: bytes, users: tuple[int, int]) -> bytes | None:
    """Give what turns the file ``base`` into ``result``; None where their tensors are others.

    Args:
        name: of the file, one of ``RAGGED``.
        base: the whole file.
        result: likewise.
        users: rows for users in either.
    """
    old, new = _File.of(base), _File.of(result)
    parts: dict[str, Array] = {HEADER: np.frombuffer(new.start, np.uint8)}
    of_groups: set[str] = set()
    for ragged in RAGGED[name]:
        members = ragged.members(new.tensors)
        of_groups.update(members)
        if ragged.members(old.tensors) != members or any(
            old.tensors[member].dtype != new.tensors[member].dtype for member in members
        ):
            return None
        parts |= _changed_rows(ragged, old.tensors, new.tensors, users)
    for pair in LISTS.get(name, ()):
        if all(tensor in found.tensors for tensor in pair for found in (old, new)):
            of_groups.update(pair)
            parts |= _changed_runs(pair, old.tensors, new.tensors)
    for tensor, values in new.tensors.items():
        if tensor not in of_groups and not _same(old.tensors.get(tensor), values):
            parts[tensor] = values
    return save({key: np.ascontiguousarray(values) for key, values in parts.items()})


def patched(name: str, base: bytes, delta: bytes, users: tuple[int, int]) -> bytes:
    """Undo ``difference``: give the file that ``delta`` makes of ``base``.

    Raises:
        ValueError: the two do not fit each other.
    """
    if name not in RAGGED:
        raise ValueError(f"{name} is no file that has rows")
    old, parts = _File.of(base), _File.of(delta).tensors
    try:
        # Every byte of the result is of the base or of the delta: what asks for more is no delta.
        new = _File.of(parts[HEADER].tobytes(), most=len(base) + len(delta))
        made: dict[str, Array] = {}
        for ragged in RAGGED[name]:
            made |= _merged(ragged, old.tensors, new.tensors, parts, users)
        for pair in LISTS.get(name, ()):
            if f"{pair[0]}.starts" in parts:
                made |= _joined(pair, old.tensors, parts, len(new.tensors[pair[0]]))
        for tensor in new.tensors:
            if tensor not in made:
                made[tensor] = parts[tensor] if tensor in parts else old.tensors[tensor]
    except (KeyError, IndexError) as error:
        raise ValueError(f"tensors do not fit ({error})") from None
    return new.start + b"".join(made[tensor].tobytes() for tensor in new.tensors)


def _changed_rows(
    ragged: Ragged,
    old: Mapping[str, Array],
    new: Mapping[str, Array],
    users: tuple[int, int],
) -> dict[str, Array]:
    """The rows that are new, or have another length or other contents."""
    before, after = _pointers(old[ragged.pointer]), _pointers(new[ragged.pointer])
    sizes = np.diff(after)
    counterparts = _counterparts(ragged, len(before) - 1, len(sizes), users)
    known = np.flatnonzero(counterparts >= 0)
    changed = np.ones(len(sizes), np.bool_)
    same_size = np.diff(before)[counterparts[known]] == sizes[known]
    changed[known[same_size]] = False
    kept = known[same_size]
    here = _ranges(after[kept], sizes[kept])
    there = _ranges(before[counterparts[kept]], sizes[kept])
    owners = np.repeat(kept, sizes[kept])
    for name in ragged.entries:
        changed[owners[_bits(new[name])[here] != _bits(old[name])[there]]] = True
    for name in ragged.rows:
        if name in new:
            differ = _bits(new[name])[kept] != _bits(old[name])[counterparts[kept]]
            changed[kept[differ]] = True
    rows = np.flatnonzero(changed)
    if not len(rows) and len(before) == len(after):
        return {}
    found = {
        f"{ragged.pointer}.rows": rows.astype(np.int32),
        f"{ragged.pointer}.sizes": sizes[rows].astype(np.int32),
    }
    places = _ranges(after[rows], sizes[rows])
    found |= {name: new[name][places] for name in ragged.entries}
    return found | {name: new[name][rows] for name in ragged.rows if name in new}


def _merged(
    ragged: Ragged,
    old: Mapping[str, Array],
    new: Mapping[str, Array],
    parts: Mapping[str, Array],
    users: tuple[int, int],
) -> dict[str, Array]:
    """The group's tensors, from the rows that changed and, for the others, from the base."""
    if f"{ragged.pointer}.rows" not in parts:
        return {name: old[name] for name in ragged.members(new)}
    before = _pointers(old[ragged.pointer])
    rows = parts[f"{ragged.pointer}.rows"].astype(np.int64)
    row_sizes = parts[f"{ragged.pointer}.sizes"].astype(np.int64)
    count = len(new[ragged.pointer]) - 1
    fits = len(rows) == len(row_sizes) and not np.any(row_sizes < 0)
    if not fits or np.any(np.diff(rows) <= 0) or np.any((rows < 0) | (rows >= count)):
        raise ValueError(f"{ragged.pointer}.rows are not ascending rows with a size each")
    for name in ragged.entries:
        if len(parts[name]) != row_sizes.sum():
            raise ValueError(f"{name} does not have the entries of {ragged.pointer}.rows")
    counterparts = _counterparts(ragged, len(before) - 1, count, users)
    from_base = counterparts >= 0
    sizes, starts = np.zeros(count, np.int64), np.zeros(count, np.int64)
    sizes[from_base] = np.diff(before)[counterparts[from_base]]
    starts[from_base] = before[counterparts[from_base]]
    if len(np.setdiff1d(np.flatnonzero(~from_base), rows)):
        raise ValueError(f"{ragged.pointer}.rows: a row is new and not told")
    sizes[rows] = row_sizes
    starts[rows] = before[-1] + np.cumsum(row_sizes) - row_sizes  # behind the base's entries
    places = _ranges(starts, sizes)
    pointer = np.concatenate([[0], np.cumsum(sizes)]).astype(new[ragged.pointer].dtype)
    made: dict[str, Array] = {ragged.pointer: pointer}
    made |= {name: np.concatenate([old[name], parts[name]])[places] for name in ragged.entries}
    for name in ragged.rows:
        if name in new:
            values = np.zeros(count, old[name].dtype)
            values[from_base] = old[name][counterparts[from_base]]
            values[rows] = parts[name]
            made[name] = values
    return made


def _changed_runs(
    pair: tuple[str, str], old: Mapping[str, Array], new: Mapping[str, Array]
) -> dict[str, Array]:
    """The list as runs of the base's and runs of new pairs; nothing if it is the base's."""
    before, after = (
        list(zip(*(f[name].tolist() for name in pair), strict=True)) for f in (old, new)
    )
    if before == after:
        return {}
    index = {found: place for place, found in enumerate(before)}
    at = np.array([index.get(found, -1) for found in after], np.int64)
    is_new = at < 0
    # In a run of the base's, places go up by one as in the new list; new pairs are a run too.
    shift = np.where(is_new, np.iinfo(np.int64).min, at - np.arange(len(after)))
    firsts = np.flatnonzero(np.diff(shift, prepend=shift[:1] - 1))
    return {
        f"{pair[0]}.starts": at[firsts].astype(np.int32),
        f"{pair[0]}.sizes": np.diff(np.append(firsts, len(after))).astype(np.int32),
        **{name: new[name][is_new] for name in pair},
    }


def _joined(
    pair: tuple[str, str], old: Mapping[str, Array], parts: Mapping[str, Array], after: int
) -> dict[str, Array]:
    """The list, from runs of the base's pairs and of those that came."""
    starts, sizes = (parts[f"{pair[0]}.{part}"].astype(np.int64) for part in ("starts", "sizes"))
    is_new, count = starts < 0, len(old[pair[0]])
    if len(starts) != len(sizes) or np.any(sizes < 0):
        raise ValueError(f"{pair[0]}.starts are not runs with a size each")
    told = sizes[is_new]
    fits = sizes.sum() == after and told.sum() == len(parts[pair[0]])
    if not fits or np.any((starts + sizes)[~is_new] > count):
        raise ValueError(f"{pair[0]}.starts are not runs of the base that make {after} pairs")
    starts[is_new] = count + np.cumsum(told) - told  # behind the base's
    places = _ranges(starts, sizes)
    return {name: np.concatenate([old[name], parts[name]])[places] for name in pair}


def _counterparts(ragged: Ragged, before: int, after: int, users: tuple[int, int]) -> I64:
    """For each row of the result the base's row that it was, -1 where it is new: (after,)."""
    first_before, first_after = users if ragged.of_both else (before, after)
    found = np.full(after, -1, np.int64)
    first = min(first_before, first_after)
    second = min(before - first_before, after - first_after)
    found[:first] = np.arange(first)
    found[first_after : first_after + second] = first_before + np.arange(second)
    return found


def _pointers(values: Array) -> I64:
    found = values.astype(np.int64)
    if not len(found) or found[0] != 0 or np.any(np.diff(found) < 0):
        raise ValueError("row pointers do not rise from 0")
    return found


def _ranges(starts: I64, sizes: I64) -> I64:
    """Put the ranges ``[starts, starts + sizes)`` one after the other."""
    before = np.cumsum(sizes) - sizes
    return np.repeat(starts - before, sizes) + np.arange(sizes.sum())


def _bits(values: Array) -> Array:
    """See numbers as bytes do: NaN equals itself, and 0 is not -0."""
    return values.view(f"u{values.dtype.itemsize}")


def _same(old: Array | None, new: Array) -> bool:
    return (
        old is not None
        and (old.dtype, old.shape) == (new.dtype, new.shape)
        and old.tobytes() == new.tobytes()
    )
