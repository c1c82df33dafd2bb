"""Which earlier night's model a night's training begins with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sparkrec import files
from sparkrec.config import GruConfig, config_dict
from sparkrec.errors import UserError
from sparkrec.pipeline.models import FULL, part_path, read_card
from sparkrec.pipeline.night import Night
from sparkrec.prepare.cut import as_of
from sparkrec.training.checkpoint import MODEL_HASH, read_model

_MAY_DIFFER = ("warm_start", "epochs")  # what says how a training begins and ends, not what is trained


@dataclass(frozen=True)
class Earlier:
    """A model of an earlier night, trained on everything that night knew."""

    run_date: date
    version: str
    path: str
    weights: str  # their hash


def earlier_models(night: Night) -> list[Earlier]:
    """The GRUs of the nights before this one that have its settings, the latest first; none unless it asks for them.

    Nights after this one do not count, so a night that is run again later begins as it would have begun then.
    """
    if not night.config.gru.warm_start:
        return []
    names = files.list_names(files.join(night.warehouse.path, "models", "gru"))
    before = sorted((day for day in map(_day, names) if day is not None and day < night.run_date), reverse=True)
    return [found for day in before if (found := _model_of(night, day)) is not None]


def begin_with(models: list[Earlier], before: datetime) -> Earlier | None:
    """The latest model that saw no event from a time on: a hold-out model must not know what it is judged on."""
    return next((model for model in models if as_of(model.run_date) <= before), None)


def _day(name: str) -> date | None:
    try:
        return date.fromisoformat(name)
    except ValueError:
        return None


def _model_of(night: Night, run_date: date) -> Earlier | None:
    """The night's full model, if it has one of these settings."""
    try:
        card = read_card(night.warehouse, "gru", run_date)
        path = part_path(night.warehouse, "gru", run_date, FULL)
        model = read_model(path) if FULL in card.parts else None
    except UserError:  # broken off before it was finished
        return None
    if model is None or _settings(GruConfig(**model["config"])) != _settings(night.config.gru):
        return None
    return Earlier(run_date, card.model_version, path, model[MODEL_HASH])


def _settings(config: GruConfig) -> dict[str, Any]:
    return {key: value for key, value in config_dict(config).items() if key not in _MAY_DIFFER}
