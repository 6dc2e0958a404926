"""Judges what a run made of a damaged bundle, by docs/formats.md and the reference alone.

A run *accepts* a result if it succeeds and its verdict is not ``failed``. An accepted result is
right if it is that of the untouched bundle, or if the damaged bundle is itself a valid one
(:func:`broken_rule` finds nothing) and the reference makes the same of it. Else it is wrong.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from tests.android_app.harness.reference import Reference
from tests.stress.disk_state import read_report
from tests.stress.driver import Answer
from tests.stress.mutations import Mutation
from tests.stress.tally import Problem

LOSS_TOLERANCE = 1e-4
QUALITY_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Result:
    """What a run ends with, as far as a bundle determines it."""

    table_sha256: str | None
    losses: list[float]
    quality: dict[str, Any]

    @staticmethod
    def of(report: dict[str, Any]) -> Result:
        return Result(report["state"]["table_sha256"], report["losses"], report["quality"])


def judge(
    mutation: Mutation, answer: Answer, bundle: Path, report_path: Path, untouched: Result
) -> tuple[str, list[Problem]]:
    """Say which way a case went, and what is wrong with it."""
    if answer.status in {"died", "hung", "thrown"} or "defect in the harness" in answer.error:
        return answer.status, [Problem("crashed", f"{answer.status}: {answer.error}")]
    try:
        report = read_report(report_path)
    except (OSError, ValueError) as error:
        return "no report", [Problem("wrong", f"no valid report: {error}")]
    if report["exit_status"] != answer.status or (report["error"] or "") != answer.error:
        return "contradiction", [Problem("wrong", "the report does not say what the run said")]
    if answer.status == "failed":
        problem = unclear(mutation, answer.error)
        return "refused", [Problem("unclear", problem)] if problem else []
    rule = broken_rule(bundle)
    if mutation.hashed and rule:
        return "accepted", [Problem("wrong", f"accepted, although {rule}")]
    if Result.of(report) == untouched:
        return "accepted, same bytes" if mutation.hashed else "accepted, same result", []
    if report["correctness"]["verdict"] == "failed":
        return "verdict failed", []
    if rule:
        return "accepted", [Problem("wrong", f"accepted, although {rule}")]
    difference = differs(bundle, report)
    if difference:
        return "accepted", [Problem("wrong", f"accepted, but {difference}")]
    return "accepted, another valid bundle", []


def unclear(mutation: Mutation, error: str) -> str | None:
    """What an error lacks: one of the files, and one of the words, before what to do about it."""
    told, _, fix = error.rpartition("; ")
    if not told or not fix:
        return f"no advice: {error}"
    if not any(name in told for name in mutation.files):
        return f"names none of {mutation.files}: {error}"
    words = mutation.words
    if words and not any(re.search(rf"\b{re.escape(word)}\b", told) for word in words):
        # Text that is no JSON has no fields.
        return None if "not a JSON object" in told else f"names none of {words}: {error}"
    return None


def broken_rule(bundle: Path) -> str | None:
    """The first broken rule, of those in formats.md section 1 that a result's meaning rests on."""
    try:
        manifest = json.loads((bundle / "manifest.json").read_bytes())
        for name, entry in manifest["files"].items():
            data = (bundle / name).read_bytes()
            if (entry["sha256"], entry["bytes"]) != (hashlib.sha256(data).hexdigest(), len(data)):
                return f"{name} is not what the manifest says"
        rules = {
            **_manifest_rules(manifest),
            **_table_rules(manifest, load_file(bundle / "table.safetensors")),
            **_interaction_rules(manifest, load_file(bundle / "interactions.safetensors")),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        return f"it cannot be read ({error!r})"
    return next((rule for rule, kept in rules.items() if not kept), None)


def _manifest_rules(manifest: dict[str, Any]) -> dict[str, bool]:
    training = manifest["training"]
    counts = ("batch_size", "steps", "window", "negative_tries")
    shares = ("sampled_fraction", "exchange_fraction", "exchange_stop")
    return {
        "schema_version is not 1": manifest["schema_version"] == 1,
        "model is not mf": manifest["model"] == "mf",
        "dim is not in [1, 256]": 1 <= manifest["dim"] <= 256,
        "more is known than there is": 1 <= manifest["known_users"] <= manifest["num_users"]
        and 1 <= manifest["known_items"] <= manifest["num_items"],
        "a count of training is none": all(
            isinstance(training[name], int) and training[name] >= 1 for name in counts
        ),
        "a fraction of training is none": all(0 <= training[name] <= 1 for name in shares),
        "optimizer is not sgd": training["optimizer"] == "sgd",
    }


def _table_rules(manifest: dict[str, Any], table: dict[str, np.ndarray]) -> dict[str, bool]:
    row_ptr, cols, vals = (table[name] for name in ("row_ptr", "cols", "vals"))
    rows = manifest["num_users"] + manifest["num_items"]
    ends = (
        row_ptr.shape == (rows + 1,)
        and (row_ptr[0], row_ptr[-1]) == (0, manifest["nnz"])
        and bool((np.diff(row_ptr.astype(np.int64)) >= 0).all())
    )
    ascending = False
    if ends and len(cols) == manifest["nnz"]:
        places = np.repeat(np.arange(rows), np.diff(row_ptr)) * manifest["dim"] + cols
        ascending = bool((np.diff(places) > 0).all() and (cols < manifest["dim"]).all())
    dtypes = [array.dtype for array in (row_ptr, cols, vals)]
    return {
        "a dtype of the table is another": dtypes == [np.int32, np.uint8, np.float32],
        "row_ptr does not rise from 0 to nnz": ends,
        "cols are not ascending below dim": ascending,
        "vals are not nnz finite numbers": vals.shape == (manifest["nnz"],)
        and bool(np.isfinite(vals).all()),
    }


def _interaction_rules(manifest: dict[str, Any], pairs: dict[str, np.ndarray]) -> dict[str, bool]:
    users, items = manifest["known_users"], manifest["known_items"]
    ptr, seen = pairs["seen_ptr"], pairs["seen_items"]
    rises = (
        ptr.shape == (manifest["num_users"] + 1,)
        and (ptr[0], ptr[-1]) == (0, len(seen))
        and bool((np.diff(ptr.astype(np.int64)) >= 0).all())
    )
    ascending = rises and all((np.diff(seen[a:b]) > 0).all() for a, b in pairwise(ptr.tolist()))
    ranges = {"log_users": users, "log_items": items, "later_users": users, "later_items": items}
    return {
        "a dtype of the interactions is another": all(a.dtype == np.int32 for a in pairs.values()),
        "an index is out of range": all(
            ((pairs[name] >= 0) & (pairs[name] < bound)).all() for name, bound in ranges.items()
        )
        and bool(((seen >= 0) & (seen < items)).all()),
        "users and items are not pairs": all(
            len(pairs[f"{part}_users"]) == len(pairs[f"{part}_items"]) for part in ("log", "later")
        ),
        "the log is empty": len(pairs["log_users"]) > 0,
        "seen_ptr does not rise from 0 to the number of items": rises,
        "seen_items are not ascending": ascending,
        "a pair occurs twice": rises and not _repeats(pairs),
    }


def _repeats(pairs: dict[str, np.ndarray]) -> bool:
    seen_users = np.repeat(np.arange(len(pairs["seen_ptr"]) - 1), np.diff(pairs["seen_ptr"]))
    users = np.concatenate([seen_users, pairs["log_users"], pairs["later_users"]])
    items = np.concatenate([pairs["seen_items"], pairs["log_items"], pairs["later_items"]])
    return len(set(zip(users.tolist(), items.tolist(), strict=True))) < len(users)


def differs(bundle: Path, report: dict[str, Any]) -> str | None:
    """How the result differs from what the reference makes of the same bundle."""
    reference = Reference(bundle)
    before = reference.quality()
    reference.run(report["parameters"]["steps"])
    expected, found = np.array(reference.losses), np.array(report["losses"])
    if expected.shape != found.shape:
        return f"it has {len(found)} losses, not {len(expected)}"
    error = float(np.abs(expected - found).max())
    if not error <= LOSS_TOLERANCE:
        return f"a loss is off by {error}"
    for when, quality in (("before", before), ("after", reference.quality())):
        for metric, value in quality.items():
            if not abs(report["quality"][when][metric] - value) <= QUALITY_TOLERANCE:
                return f"{metric} {when} is {report['quality'][when][metric]}, not {value}"
    return None
