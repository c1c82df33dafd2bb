"""Structured log lines on standard error, and one progress bar where a person watches."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
LOGGER = logging.getLogger("sparkrec")


def setup_logging(level: int = logging.INFO) -> None:
    """Sends sparkrec's log lines to standard error, once, in UTC."""
    if LOGGER.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)sZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    LOGGER.addHandler(handler)
    LOGGER.setLevel(level)
    LOGGER.propagate = False


def log_event(event: str, **fields: Any) -> None:
    """Writes ``event key=value …``; values with spaces are JSON strings."""
    parts = [event] + [f"{key}={_plain(value)}" for key, value in fields.items()]
    LOGGER.info(" ".join(parts))


def warn_event(event: str, **fields: Any) -> None:
    """The same, as a warning."""
    parts = [event] + [f"{key}={_plain(value)}" for key, value in fields.items()]
    LOGGER.warning(" ".join(parts))


def progress(steps: Iterable[T], *, total: int, name: str, rank: int = 0) -> Iterator[T]:
    """Walks ``steps`` with a bar on a terminal (rank 0 only); silent elsewhere."""
    if rank != 0 or not sys.stderr.isatty():
        yield from steps
        return
    from tqdm import tqdm

    yield from tqdm(steps, total=total, desc=name, file=sys.stderr, mininterval=0.5)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value, default=str) if _nested(value) else str(value)
    return json.dumps(text) if isinstance(value, str) and (not text or any(c.isspace() for c in text)) else text


def _nested(value: Any) -> bool:
    return isinstance(value, (dict, list, tuple))
