"""Keeping known, harmless noise of torch and ExecuTorch off the terminal; the rest passes."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_WARNINGS = (
    r".*isinstance\(treespec, LeafSpec\).*",  # torch, copying its own tree specs
    r"Mutation on a buffer in the model is detected.*",  # export.dense_trainers initialises it
)
_LOGGED = ("natively supported by torch.compile as an opaque value type",)  # torchao, on import
_NATIVE = (b"[cpuinfo_utils.cpp",)  # ExecuTorch's thread pool, looking for an Arm chip's files


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the warnings that exporting and executing print about themselves."""
    logger = logging.getLogger("torch.utils._pytree")
    logger.addFilter(_expected)
    try:
        with warnings.catch_warnings(), _native_stderr():
            for message in _WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        logger.removeFilter(_expected)


def _expected(record: logging.LogRecord) -> bool:
    return not any(text in record.getMessage() for text in _LOGGED)


@contextmanager
def _native_stderr() -> Iterator[None]:
    """Hold back what is written to descriptor 2, then pass on the lines that are not known."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            held.seek(0)
            for line in held:
                if not line.startswith(_NATIVE):
                    os.write(2, line)
