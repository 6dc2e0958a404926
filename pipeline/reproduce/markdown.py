"""What the pages of results share: tables, and where figures come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Give a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def origin(command: str, records: Sequence[dict[str, Any]], what: str = "runs") -> str:
    """Say by which command, where and when records were made."""
    machines = dict.fromkeys(
        f"{m['cpu']}, {m['cores']} cores, {m['memory_gib']:g} GiB"
        for m in (record["machine"] for record in records)
    )
    dates = sorted(record["finished_utc"][:10] for record in records)
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    return f"`{command}`; {'; '.join(machines)}; {when}; {len(records)} {what}."
