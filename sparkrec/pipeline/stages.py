"""The stages of a night in their order, with what each reads and which settings its results depend on."""

from __future__ import annotations

from typing import Any

from sparkrec.models import MODELS
from sparkrec.models.night import Night
from sparkrec.models.program import builds_on
from sparkrec.pipeline.data_stages import plan_ingest, run_index, run_ingest, run_prepare
from sparkrec.pipeline.evaluate_stage import run_evaluate
from sparkrec.pipeline.groups_stage import run_user_groups
from sparkrec.pipeline.maintain_stage import maintenance_due, run_maintain
from sparkrec.pipeline.stage import Stage
from sparkrec.pipeline.topk_stage import run_topk
from sparkrec.pipeline.training import training_stage
from sparkrec.pipeline.tune_stage import run_tune, tune_due
from sparkrec.prepare.features import coded_types
from sparkrec.settings.checks import tune_nights
from sparkrec.settings.config import Config
from sparkrec.warehouse.tables import (
    COPURCHASE,
    EVENTS,
    FEATURE_INDEX,
    INTERACTIONS,
    ITEM_FEATURES,
    ITEM_INDEX,
    ITEM_VECTORS,
    ITEMS_TABLE,
    METRICS,
    SESSIONS,
    USER_FEATURES,
    USER_GROUPS,
    USER_INDEX,
    USER_ITEM,
    USERS_TABLE,
)


def _counting(night: Night) -> tuple[Any, ...]:
    """What decides which events count, and whether items come again."""
    return (night.fmt.event_weights, night.fmt.session_events, night.fmt.recommend_seen)


# What the user models' scores are made from.
_SCORED = (INTERACTIONS, USER_INDEX, ITEM_INDEX, ITEM_FEATURES, USER_FEATURES)

_STAGES = (
    Stage("ingest", (), lambda n: (n.fmt, n.config.logs, n.config.ingest), run_ingest, plan=plan_ingest),
    Stage(
        "index",
        (EVENTS,),
        lambda n: (
            n.fmt.item_features,
            n.fmt.user_features,
            coded_types(n.fmt.session_events),
            n.config.logs.timezone,
            *n.fmt.impression_events,
        ),
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
    Stage(
        "tune",
        (INTERACTIONS, SESSIONS, COPURCHASE, USER_ITEM, USER_INDEX, ITEM_INDEX, ITEM_FEATURES, USER_FEATURES),
        lambda n: (n.config.models, n.config.tune),
        run_tune,
        optional=(ITEM_VECTORS, FEATURE_INDEX),
        plan=tune_due,
    ),
    *(training_stage(model) for model in MODELS.values()),
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
    switches = {
        "tune": tune_nights(config.tune) is not None,
        "maintain": config.maintenance.enabled,
        "user_groups": config.user_groups.enabled,
    }
    for stage, enabled in switches.items():
        if not enabled:
            left_out.add(stage)
    kept = [name for name in STAGES if name not in left_out]
    training = [f"train_{model}" for model in _in_order(config)]
    before = [name for name in kept if name not in training]
    first = min((kept.index(name) for name in training), default=len(kept))
    return [*before[:first], *training, *before[first:]]


def _in_order(config: Config) -> list[str]:
    """The night's models in the order of ``MODELS``, but for those that another is trained from, which come first."""
    wanted = [name for name in MODELS if name in config.models]
    in_order = dict.fromkeys(one for name in wanted for one in (*builds_on(name, config), name))
    return [name for name in in_order if name in wanted]
