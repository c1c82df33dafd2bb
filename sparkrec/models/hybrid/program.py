"""The hybrid in a night: what it learns from are candidates of models that had not seen what came next."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pyspark import StorageLevel
from pyspark.sql import functions as F

from sparkrec.errors import NothingToTrain
from sparkrec.evaluation.split import holdout_users
from sparkrec.models.hybrid import blender as hybrid
from sparkrec.models.hybrid.scorer import HybridScorer, hybrid_scorer
from sparkrec.models.night import Inputs, Night
from sparkrec.models.parts import Part, blend_cutoff, blended_models, model_cutoff, train_parts, with_parts
from sparkrec.models.program import Program
from sparkrec.models.scorer import Wanted
from sparkrec.models.scorers import seen_pairs
from sparkrec.retrieval.topk import SEEN
from sparkrec.warehouse.cards import BLEND, HOLDOUT, ModelCard, part_path
from sparkrec.warehouse.ledger import StageResult
from sparkrec.warehouse.tables import (
    INTERACTIONS,
    ITEM_FEATURES,
    ITEM_IDX,
    ITEM_INDEX,
    ITEM_VECTORS,
    USER_FEATURES,
    USER_IDX,
    USER_INDEX,
)


def train(night: Night, inputs: Inputs) -> StageResult:
    """The blender, by MLlib.

    The hold-out's learns how candidates of the models as of ``blend_cutoff`` were taken until the cutoff; the one to
    publish, how those as of the cutoff were taken until the night. Models that have no such part are left out.
    """
    config, cutoff = night.config.hybrid, model_cutoff(night, inputs, "hybrid")

    def train_part(part: Part, path: str, meta: dict[str, Any]) -> str:
        base, since = (BLEND, blend_cutoff(night, cutoff)) if part.name == HOLDOUT else (HOLDOUT, cutoff)
        models = with_parts(night, blended_models(night.config), base, part.name)
        if not models:
            raise NothingToTrain(f"no model of the night has the parts {base} and {part.name}")
        settings, weights = night.config.evaluation, night.fmt.event_weights
        held_out = holdout_users(inputs.read(INTERACTIONS), since, part.before, weights, settings.cold_below)
        truth = held_out.pairs
        users = truth.select(USER_IDX).distinct().persist(StorageLevel.MEMORY_AND_DISK)
        seen = seen_pairs(night, inputs, since).groupBy(USER_IDX).agg(F.collect_list(ITEM_IDX).alias(SEEN))
        scorer = hybrid_scorer(night, inputs, models, base, since)
        rows = scorer.candidates(
            users.join(seen, USER_IDX, "left"), Wanted((USER_IDX,), config.candidates, night.config.topk)
        )
        blender, n, hits = hybrid.fit_blender(rows, truth.select(USER_IDX, ITEM_IDX), scorer.features, config)
        hybrid.save_blender(blender, path, {**meta, "models": models, "blender": config.blender})
        users.unpersist()
        held_out.kept.unpersist()
        return f"{hits} of {n} candidates taken from {since:%Y-%m-%d} on"

    return train_parts(night, inputs, "hybrid", train_part, cutoff)


def scorer(night: Night, inputs: Inputs, card: ModelCard, part: str, as_of: datetime) -> HybridScorer:
    """The part's blender, over the same part of the models that it was trained with."""
    blender, meta = hybrid.load_blender(part_path(night.warehouse, card.model, night.run_date, part))
    return hybrid_scorer(night, inputs, meta["models"], part, as_of, blender)


def _depends(night: Night) -> tuple[Any, ...]:
    config, fmt = night.config, night.fmt
    popular = (config.topk, config.prior, config.evaluation.recent_days, config.evaluation.cold_below)
    return (*popular, fmt.event_weights, fmt.session_events, fmt.recommend_seen)


PROGRAM = Program(
    train=train,
    reads=(INTERACTIONS, USER_INDEX, ITEM_INDEX, ITEM_FEATURES, USER_FEATURES),
    optional=(ITEM_VECTORS,),
    depends=_depends,
    models=blended_models,
    scorer=scorer,
)
