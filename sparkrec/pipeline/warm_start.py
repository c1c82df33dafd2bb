"""Which earlier night's model a night's training begins with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sparkrec.config import GruConfig, config_dict
from sparkrec.errors import UserError
from sparkrec.pipeline.models import FULL, part_path, read_card
from sparkrec.pipeline.night import Night
from sparkrec.pipeline.publication import published_before
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
    """The published GRUs of the nights before this one that have its settings, the latest first.

    None unless the night asks for them. Nights after this one do not count, so a night that is run again later begins
    as it would have begun then; nor does a model that the gate held back.
    """
    nights = published_before(night, "gru") if night.config.gru.warm_start else []
    return [found for day, version in nights if (found := _model_of(night, day, version)) is not None]


def begin_with(models: list[Earlier], before: datetime) -> Earlier | None:
    """The latest model that saw no event from a time on: a hold-out model must not know what it is judged on."""
    return next((model for model in models if as_of(model.run_date) <= before), None)


def _model_of(night: Night, run_date: date, version: str) -> Earlier | None:
    """The full model of a night, if it is still the published one and has these settings."""
    try:
        card = read_card(night.warehouse, "gru", run_date)
        if card.model_version != version or FULL not in card.parts:
            return None
        path = part_path(night.warehouse, "gru", run_date, FULL)
        model = read_model(path)
    except UserError:  # removed, or being trained anew
        return None
    if _settings(GruConfig(**model["config"])) != _settings(night.config.gru):
        return None
    return Earlier(run_date, version, path, model[MODEL_HASH])


def _settings(config: GruConfig) -> dict[str, Any]:
    return {key: value for key, value in config_dict(config).items() if key not in _MAY_DIFFER}
