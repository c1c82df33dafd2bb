"""Every setting with its default and what it means, as ``conf/base.yaml`` has them."""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import Field, fields, is_dataclass
from decimal import Decimal
from typing import Any

from sparkrec.models import MODELS

HEAD = """\
# Every setting with its default. The order of precedence, later wins: this file, the `defaults:` of the log format,
# the environment's file (--conf), key=value on the command line. An unknown key or a wrong type is an error.
# Written by `sparkrec settings`.
"""
WIDTH = 120
PLAIN = re.compile(r"[A-Za-z][\w-]*")
NO_TEXT = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}  # what YAML takes for something else


def as_yaml(config: Any) -> str:
    """The configuration's sections and settings, each with its value and its meaning.

    Args:
        config: A ``settings.config.Config``.
    """
    mine = {one.name: one for one in fields(config)}
    sections = [mine[name] for name in MODELS]
    others = [one for name, one in mine.items() if name not in MODELS and name != "prior"]
    ordered: list[Field[Any]] = []
    for one in others:
        ordered += [one, *({"models": sections, "gate": [mine["prior"]]}.get(one.name, []))]
    return HEAD + "".join(f"\n{_written(config, one, 0)}" for one in ordered)


def _written(settings: Any, one: Field[Any], depth: int) -> str:
    value, indent = getattr(settings, one.name), "  " * depth
    if is_dataclass(value):
        inner = "".join(_written(value, each, depth + 1) for each in fields(value))
        return _explained(f"{indent}{one.name}:{'' if inner else ' {}'}", one, indent) + inner
    return _explained(f"{indent}{one.name}: {yaml_value(value)}", one, indent)


def _explained(line: str, one: Field[Any], indent: str) -> str:
    meaning = one.metadata.get("meaning", "")
    if not meaning:
        return f"{line}\n"
    options = {"subsequent_indent": f"{indent}  # ", "break_long_words": False, "break_on_hyphens": False}
    wrapped = textwrap.wrap(f"{line}  # {meaning}", WIDTH, replace_whitespace=False, **options)  # type: ignore[arg-type]
    return "\n".join(wrapped) + "\n"


def yaml_value(value: Any) -> str:
    """A setting's value in one line of YAML."""
    if isinstance(value, list):
        return f"[{', '.join(yaml_value(each) for each in value)}]"
    if isinstance(value, dict):
        return "{}" if not value else json.dumps(value)
    if isinstance(value, str):
        return (
            value if PLAIN.fullmatch(value) and value.lower() not in NO_TEXT else json.dumps(value, ensure_ascii=False)
        )
    if isinstance(value, float):
        return repr(value) if "e" not in repr(value) else format(Decimal(repr(value)), "f")
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value)
