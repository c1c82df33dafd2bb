"""Lines of JSON objects, and of Python literals, as some logs are published: ``{'asin': '0000', 'related': None}``."""

from __future__ import annotations

import ast
import json
from typing import Any


def json_dict(line: str | None) -> dict[str, Any] | None:
    """The object of a line of JSON; None where it is none."""
    try:
        value = json.loads(line or "")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def python_dict(line: str | None) -> dict[str, Any] | None:
    """The dict of a line as Python writes it; None where it is none."""
    try:
        value = ast.literal_eval((line or "").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def literal_as_json(line: str | None) -> str | None:
    """A dict as Python or JSON writes it as a JSON object; None where the line is no such thing."""
    if json_dict(line) is not None:
        return line
    value = python_dict(line)
    try:
        return json.dumps(value, default=list, allow_nan=False) if value is not None else None
    except (ValueError, TypeError, RecursionError):
        return None
