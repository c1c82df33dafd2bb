"""The models in words: ``docs/models.md``."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

from sparkrec.models import MODELS
from sparkrec.models.model import Lists, Model
from sparkrec.settings.written import yaml_value

HEAD = """\
# Models
What each model suits, what it costs, and the settings that matter most; all of them are in `conf/base.yaml`.
`sparkrec search` tries settings, `docs/add-a-model.md` tells how to add a model. Written by `sparkrec models`.
"""
WHOM = {
    Lists.USERS: "each user",
    Lists.SESSIONS: "each user's last session, and the day's anonymous ones",
    Lists.BASKETS: "each user's last basket, and the day's anonymous ones",
    Lists.ITEMS: "each item: what goes with it",
}


def as_markdown(config: Any) -> str:
    """What ``docs/models.md`` says.

    Args:
        config: A ``settings.config.Config``, for the defaults.
    """
    return HEAD + "".join(_model(model, getattr(config, model.name)) for model in MODELS.values())


def _model(model: Model, settings: Any) -> str:
    about = inspect.getdoc(type(settings)) or ""
    lists = WHOM[model.lists] + "".join(f"; {what} beside {what}" for what in model.beside)
    lines = [f"\n## {model.name}", f"{about}\n" if about else "", f"- **Suits** {model.suits}" if model.suits else ""]
    lines += [f"- **Lists** for {lists}", f"- **Cost**: {model.cost}" if model.cost else ""]
    lines += [f"- **Needs** {', '.join(model.needs)}" if model.needs else ""]
    meanings = {one.name: one.metadata.get("meaning", "") for one in fields(settings)}
    for name in model.matter:
        lines.append(f"- `{model.name}.{name}={yaml_value(getattr(settings, name))}`: {meanings[name]}")
    lines.append(f"- **Source**: `{_source(model)}`")
    return "\n".join(line for line in lines if line) + "\n"


def _source(model: Model) -> str:
    """The module whose folder holds all of it."""
    return model.program.partition(":")[0].rpartition(".")[0]
