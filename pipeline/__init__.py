"""From interactions to a trained sparse table; ``from pipeline import SparseRec`` in Python.

The name is looked up when it is first used, so that ``sparserec --help`` loads neither numpy nor
torch. docs/api.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import SparseRec

__all__ = ["SparseRec"]


def __getattr__(name: str) -> Any:
    if name == "SparseRec":
        from pipeline.api import SparseRec

        return SparseRec
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
