"""Which earlier night's model a night's training begins with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sparkrec.errors import UserError
from sparkrec.evaluation.split import declared_cutoff
from sparkrec.log import log_event
from sparkrec.models.night import Night
from sparkrec.models.program import program
from sparkrec.models.publication import held_back_before, published_before
from sparkrec.prepare.cut import as_of
from sparkrec.ranks.checkpoint import MODEL_HASH, read_model
from sparkrec.settings.config import config_dict
from sparkrec.warehouse import store
from sparkrec.warehouse.cards import FULL, part_path, read_card
from sparkrec.warehouse.tables import Table

# What says how a training begins and ends, not what is trained.
_MAY_DIFFER = ("warm_start", "full_retrain_nights", "epochs")


@dataclass(frozen=True)
class Earlier:
    """A model of an earlier night, trained on everything that night knew."""

    run_date: date
    version: str
    path: str
    weights: str  # their hash
    warm_nights: int = 0  # as its card says


@dataclass(frozen=True)
class WarmStart:
    """What a night's training of a model begins with.

    Attributes:
        models: Models of earlier nights, the latest first; none: training begins from scratch.
        full_retrain: Why it does although there are such models; empty otherwise.
    """

    models: tuple[Earlier, ...] = ()
    full_retrain: str = ""

    @property
    def warm_nights(self) -> int:
        """Nights in a row that began with the one before, up to this one."""
        return self.models[0].warm_nights + 1 if self.models else 0

    def settings(self, night: Night) -> tuple[Any, ...]:
        """What the training stage depends on: the weights that it begins with, or why it does without.

        Where the cutoff is a quantile of the data, it is not known yet which model the hold-out will begin with: then
        all of them count.
        """
        cutoff, zone = declared_cutoff(night.config.evaluation, night.as_of), night.config.logs.timezone
        if cutoff is None:
            return self.full_retrain, [model.weights for model in self.models]
        first, held_out = (latest_before(self.models, before, zone) for before in (night.as_of, cutoff))
        return self.full_retrain, [model.weights for model in (first, held_out) if model is not None]


FROM_SCRATCH = WarmStart()


def warm_start_of(night: Night, model: str) -> WarmStart:
    """What the night's training of a model (of a kind that is ``warm``) begins with.

    It is trained from scratch all the same when the last full training is ``full_retrain_nights`` nights back, as the
    cards count, or when the gate held back the last night's model. Only nights before this one count, so a night that
    is run again decides the same.
    """
    models, every = tuple(earlier_models(night, model)), getattr(night.config, model).full_retrain_nights
    if not models:
        return FROM_SCRATCH
    if every and models[0].warm_nights + 1 >= every:
        return WarmStart(full_retrain=f"every {every} nights")
    held_back = held_back_before(night, model)
    if held_back is not None:
        return WarmStart(full_retrain=f"the gate held back the model of {held_back}")
    return WarmStart(models)


def earlier_models(night: Night, model: str) -> list[Earlier]:
    """The published models of the nights before this one that have its settings, the latest first.

    None unless the night asks for them. Nights after this one do not count, so a night that is run again later begins
    as it would have begun then; nor does a model that the gate held back, nor one whose users, items or features have
    been numbered anew since.
    """
    nights = published_before(night, model) if getattr(night.config, model).warm_start else []
    index_id = index_ids(night, model) if nights else ""
    return [found for day, version in nights if (found := _model_of(night, model, day, version, index_id)) is not None]


def index_ids(night: Night, model: str) -> str:
    """What tells the tables apart that numbered the rows of a model's weights; empty where no model goes on from it."""
    return "+".join(_table_id(night, table) for table in program(model).numbered_by)


def _table_id(night: Night, table: Table) -> str:
    """The id of a table that exists all through the training stages, asked once an attempt."""
    at = ("table_id", night.warehouse.path, table.name)
    return night.found.once(at, lambda: store.table_id(night.spark, night.warehouse, table))


def latest_before(models: Sequence[Earlier], before: datetime, zone: str | None = None) -> Earlier | None:
    """The latest model that saw no event from a time on: a hold-out model must not know what it is judged on.

    ``zone`` is the one whose days the nights are (``logs.timezone``).
    """
    return next((model for model in models if as_of(model.run_date, zone) <= before), None)


def _model_of(night: Night, name: str, run_date: date, version: str, index_id: str) -> Earlier | None:
    """The full model of a night, if it is still the published one, has these settings and these rows."""
    try:
        card = read_card(night.warehouse, name, run_date)
        if card.model_version != version or FULL not in card.parts:
            return None
        if card.index_id and card.index_id != index_id:
            log_event("model_ignored", run_date=str(run_date), reason="its rows have been numbered anew since")
            return None
        path = part_path(night.warehouse, name, run_date, FULL)
        model = read_model(path)
    except UserError:  # removed, or being trained anew
        return None
    mine = getattr(night.config, name)
    if _settings(type(mine)(**model["config"])) != _settings(mine):
        return None
    return Earlier(run_date, version, path, model[MODEL_HASH], card.warm_nights)


def _settings(config: Any) -> dict[str, Any]:
    return {key: value for key, value in config_dict(config).items() if key not in _MAY_DIFFER}
