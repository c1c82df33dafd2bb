"""The stage that trains a model, and what its result depends on."""

from __future__ import annotations

from typing import Any

from sparkrec.models import MODELS
from sparkrec.models.model import Model
from sparkrec.models.night import Night
from sparkrec.models.parts import blended_models
from sparkrec.models.program import program
from sparkrec.models.warm_start import warm_start_of
from sparkrec.pipeline.stage import Stage
from sparkrec.settings.config import Config


def _training(night: Night, model: str) -> tuple[Any, ...]:
    """What all training depends on. The number of ranks is left out: it does not change the result."""
    config, held_out = night.config, night.config.evaluation
    when = (held_out.cutoff, held_out.holdout_quantile, held_out.holdout_days, held_out.refit)
    blended = ("blended",) if model in blended_models(config) else ()
    drawn = (held_out.ratings, held_out.ratings_share, held_out.ratings_seed)
    rated = drawn if held_out.ratings == "random" and program(model).rates(config) else ()
    start = (warm_start_of(night, model).settings(night),) if MODELS[model].warm else ()
    settings = (getattr(config, model), config.prepare, when, config.train.snapshot_files, night.fmt.event_weights)
    return (*settings, *start, *blended, *rated)


def training_stage(model: Model) -> Stage:
    """The stage that trains a model, as its program has it."""
    mine = program(model.name)

    def direct(config: Config) -> list[str]:
        return [*model.needs, *mine.models(config)]

    return Stage(
        f"train_{model.name}",
        mine.reads,
        lambda night: (*mine.depends(night), *_training(night, model.name)),
        mine.train,
        optional=mine.optional,
        models=direct,
    )
