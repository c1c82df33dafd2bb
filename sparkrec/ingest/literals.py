"""Lines of Python literals, as some logs are published: ``{'asin': '0000', 'related': None}``."""

from __future__ import annotations

import ast
import json


def literal_as_json(line: str | None) -> str | None:
    """A dict as Python or JSON writes it as a JSON object; None where the line is no such thing."""
    try:
        if isinstance(json.loads(line or ""), dict):
            return line
    except (ValueError, RecursionError):
        pass
    try:
        value = ast.literal_eval((line or "").strip())
        return json.dumps(value, default=list, allow_nan=False) if isinstance(value, dict) else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
