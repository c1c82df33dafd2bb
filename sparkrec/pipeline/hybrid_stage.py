"""The training stage of the hybrid: what it learns from are candidates of models that had not seen what came next."""

from __future__ import annotations

from typing import Any

from pyspark import StorageLevel
from pyspark.sql import functions as F

from sparkrec.errors import NothingToTrain
from sparkrec.evaluation.split import holdout_users
from sparkrec.models.hybrid import blender as hybrid
from sparkrec.pipeline.night import Inputs, Night
from sparkrec.pipeline.parts import Part, blend_cutoff, blended_models, model_cutoff, train_parts, with_parts
from sparkrec.pipeline.scorer import Wanted
from sparkrec.pipeline.scorers import hybrid_scorer, seen_pairs
from sparkrec.retrieval.topk import SEEN
from sparkrec.warehouse.cards import BLEND, HOLDOUT
from sparkrec.warehouse.ledger import StageResult
from sparkrec.warehouse.tables import INTERACTIONS, ITEM_IDX, USER_IDX


def run_train_hybrid(night: Night, inputs: Inputs) -> StageResult:
    """The blender, by MLlib.

    The hold-out's learns how candidates of the models as of ``blend_cutoff`` were taken until the cutoff; the one to
    publish, how those as of the cutoff were taken until the night. Models that have no such part are left out.
    """
    config, cutoff = night.config.hybrid, model_cutoff(night, inputs, "hybrid")

    def train(part: Part, path: str, meta: dict[str, Any]) -> str:
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

    return train_parts(night, inputs, "hybrid", config, cutoff, train)
