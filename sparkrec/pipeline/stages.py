"""The stages of a night in their order, with what each reads and which settings its results depend on."""

from __future__ import annotations

from typing import Any

from sparkrec.models import MODELS
from sparkrec.models.model import Model
from sparkrec.models.night import Night
from sparkrec.models.parts import blended_models
from sparkrec.models.program import program
from sparkrec.models.warm_start import warm_start_of
from sparkrec.pipeline.data_stages import plan_ingest, run_index, run_ingest, run_prepare
from sparkrec.pipeline.evaluate_stage import run_evaluate
from sparkrec.pipeline.groups_stage import run_user_groups
from sparkrec.pipeline.maintain_stage import maintenance_due, run_maintain
from sparkrec.pipeline.stage import Stage
from sparkrec.pipeline.topk_stage import run_topk
from sparkrec.settings.config import Config
from sparkrec.warehouse.tables import (
    COPURCHASE,
    EVENTS,
    FEATURE_INDEX,
    INTERACTIONS,
    ITEM_FEATURES,
    ITEM_INDEX,
    ITEMS_TABLE,
    METRICS,
    SESSIONS,
    USER_FEATURES,
    USER_GROUPS,
    USER_INDEX,
    USER_ITEM,
    USERS_TABLE,
)


def _training(night: Night, model: str) -> tuple[Any, ...]:
    """What all training depends on. The number of ranks is left out: it does not change the result."""
    config, held_out = night.config, night.config.evaluation
    when = (held_out.cutoff, held_out.holdout_quantile, held_out.holdout_days, held_out.refit)
    blended = ("blended",) if model in blended_models(config) else ()
    start = (warm_start_of(night, model).settings(night),) if MODELS[model].warm else ()
    settings = (getattr(config, model), config.prepare, when, config.train.snapshot_files, night.fmt.event_weights)
    return (*settings, *start, *blended)


def _counting(night: Night) -> tuple[Any, ...]:
    """What decides which events count, and whether items come again."""
    return (night.fmt.event_weights, night.fmt.session_events, night.fmt.recommend_seen)


def _training_stage(model: Model) -> Stage:
    """The stage that trains a model, as its program has it."""
    mine = program(model.name)
    return Stage(
        f"train_{model.name}",
        mine.reads,
        lambda night: (*mine.depends(night), *_training(night, model.name)),
        mine.train,
        optional=mine.optional,
        models=lambda config: [*model.needs, *mine.models(config)],
    )


# What the user models' scores are made from.
_SCORED = (INTERACTIONS, USER_INDEX, ITEM_INDEX, ITEM_FEATURES, USER_FEATURES)

_STAGES = (
    Stage("ingest", (), lambda n: (n.fmt, n.config.logs, n.config.ingest), run_ingest, plan=plan_ingest),
    Stage(
        "index",
        (EVENTS,),
        lambda n: (n.fmt.item_features, n.fmt.user_features, n.config.logs.timezone, *n.fmt.impression_events),
        run_index,
        optional=(ITEMS_TABLE, USERS_TABLE),
    ),
    Stage(
        "prepare",
        (EVENTS, USER_INDEX, ITEM_INDEX, FEATURE_INDEX),
        lambda n: (n.fmt, n.config.prepare, n.config.logs.timezone),
        run_prepare,
        optional=(ITEMS_TABLE, USERS_TABLE),
    ),
    *(_training_stage(model) for model in MODELS.values()),
    Stage(
        "evaluate",
        _SCORED,
        lambda n: (n.config.models, n.config.evaluation, n.config.prior, n.config.prepare.sessions, n.fmt),
        run_evaluate,
        models=lambda c: c.models,
    ),
    Stage(
        "user_groups",
        (INTERACTIONS, USER_INDEX, ITEM_INDEX, ITEM_FEATURES, USER_FEATURES),
        lambda n: (n.config.user_groups, n.fmt.event_weights, n.fmt.title),
        run_user_groups,
        optional=(ITEMS_TABLE,),
        models=lambda c: [c.user_groups.vectors] if c.user_groups.vectors in MODELS else [],
    ),
    Stage(
        "topk",
        (*_SCORED, USER_ITEM, SESSIONS, COPURCHASE),
        lambda n: (
            n.config.models,
            n.config.topk,
            n.config.prior,
            n.config.gate,
            n.config.evaluation.recent_days,
            n.config.user_groups.enabled,
            *_counting(n),
        ),
        run_topk,
        optional=(METRICS, ITEMS_TABLE, USER_GROUPS),
        models=lambda c: c.models,
    ),
    Stage("maintain", (), lambda n: (n.config.maintenance,), run_maintain, plan=maintenance_due, aftercare=True),
)
STAGES = {stage.name: stage for stage in _STAGES}


def stage_names(config: Config) -> list[str]:
    """The stages of a whole night with these settings, in order."""
    left_out = {f"train_{model}" for model in MODELS if model not in config.models}
    for stage, enabled in (("maintain", config.maintenance.enabled), ("user_groups", config.user_groups.enabled)):
        if not enabled:
            left_out.add(stage)
    return [name for name in STAGES if name not in left_out]
