"""ALS-WR in a night: trained by MLlib on the cluster itself, served by its factors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pyspark import StorageLevel
from pyspark.sql import functions as F

from sparkrec.models.als.fold_in import fold_in
from sparkrec.models.als.rated import (
    Left,
    left_by,
    load_biases,
    load_left,
    pair_ratings,
    predictions,
    residuals,
    save_biases,
)
from sparkrec.models.als.train import fit_als, load_als, save_als
from sparkrec.models.night import Inputs, Night
from sparkrec.models.parts import Part, supported, train_parts, user_item_of
from sparkrec.models.program import Program
from sparkrec.models.scorer import DenseScorer
from sparkrec.prepare.cut import utc
from sparkrec.prepare.rating_biases import ITEM_BIAS, RatingBiases, rating_biases
from sparkrec.prepare.user_item import debiased, user_item
from sparkrec.retrieval.topk import VECTOR, item_matrix
from sparkrec.storage import files
from sparkrec.warehouse.cards import HOLDOUT, ModelCard, part_path
from sparkrec.warehouse.ledger import StageResult
from sparkrec.warehouse.tables import IDX, INTERACTIONS, ITEM_IDX, ITEM_INDEX, TS, USER_IDX, USER_INDEX, USER_ITEM

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def train(night: Night, inputs: Inputs) -> StageResult:
    """ALS-WR in MLlib, on the cluster itself."""
    config = night.config

    def train_part(part: Part, path: str, meta: dict[str, Any]) -> str:
        matrix = debiased(user_item_of(night, inputs, part), config.als.debias)
        settings = config.als
        if settings.feedback == "explicit":
            kept = matrix.persist(StorageLevel.MEMORY_AND_DISK)
            biases = rating_biases(kept)
            left = left_by(kept, biases, settings.residual_reg) if settings.biased else None
            save_biases(biases, left, path)
            if left is not None:
                settings = replace(settings, reg=left.reg)
                matrix = residuals(kept, load_biases(night.spark, path), left.deviation)
        scratch = files.join(night.warehouse.path, "_checkpoints", night.run_id)
        save_als(fit_als(matrix, settings, scratch), path, meta)
        if config.als.feedback == "explicit":
            kept.unpersist()
        return ""

    return train_parts(night, inputs, "als", train_part)


def scorer(night: Night, inputs: Inputs, card: ModelCard, part: str, as_of: datetime) -> DenseScorer:
    """Factors of users and items; of a hold-out that serves later times, those of who came since are folded in.

    Over biases the score is what a rating is above the user's own, in deviations of what they leave: the item's bias is
    a dimension more.
    """
    path = part_path(night.warehouse, card.model, night.run_date, part)
    model, biases = load_als(night.spark, path), load_biases(night.spark, path) if night.config.als.biased else None
    left = load_left(path)
    users, items = model.user_factors, model.item_factors
    if part == HOLDOUT and as_of > card.cutoff:  # served without a refit
        users, items = _came_later(night, inputs, users, items, as_of, biases, left)
    if biases is not None:
        own = items.join(biases.items.withColumnRenamed(ITEM_IDX, IDX), IDX, "left")
        bias = (F.coalesce(F.col(ITEM_BIAS), F.lit(0.0)) / F.lit(left.deviation)).cast("float")
        items = own.select(IDX, F.concat(VECTOR, F.array(bias)).alias(VECTOR))
        users = users.withColumn(VECTOR, F.concat(VECTOR, F.array(F.lit(1.0).cast("float"))))
    return DenseScorer(users.select(F.col(IDX).alias(USER_IDX), VECTOR), item_matrix(items, card.n_items))


def _came_later(
    night: Night,
    inputs: Inputs,
    users: DataFrame,
    items: DataFrame,
    as_of: datetime,
    biases: RatingBiases | None,
    left: Left,
) -> tuple[DataFrame, DataFrame]:
    """The factors with those of users and items that ALS was not trained on, by what they did since."""
    config = night.config
    settings = config.als if biases is None else replace(config.als, reg=left.reg)
    kept = supported(inputs.read(INTERACTIONS).where(F.col(TS) < utc(as_of)), config.prepare.support)
    taken = user_item(kept, config.prepare.user_item, night.fmt.event_weights, as_of)
    taken = debiased(taken, config.als.debias)
    if biases is not None:
        taken = residuals(taken, biases, left.deviation)
    theirs = taken.join(users.select(F.col(IDX).alias(USER_IDX)), USER_IDX, "left_anti")
    users = users.unionByName(fold_in(theirs, items, settings, new=USER_IDX, known=ITEM_IDX))
    theirs = taken.join(items.select(F.col(IDX).alias(ITEM_IDX)), ITEM_IDX, "left_anti")
    return users, items.unionByName(fold_in(theirs, users, settings, new=ITEM_IDX, known=USER_IDX))


def timeless(scorer: DenseScorer, path: str) -> DenseScorer:
    """Users and items by their factors alone."""
    rank = int(load_als(scorer.queries.sparkSession, path).meta["settings"]["rank"])
    queries = scorer.queries.withColumn(VECTOR, F.slice(VECTOR, 1, rank))
    return DenseScorer(queries, replace(scorer.items, vectors=scorer.items.vectors[:, :rank]))


def ratings(night: Night, card: ModelCard, part: str) -> Callable[[DataFrame], DataFrame]:
    """What predicts the ratings of pairs."""
    path = part_path(night.warehouse, card.model, night.run_date, part)
    return predictions(night.spark, path, night.config.als.biased)


PROGRAM = Program(
    train=train,
    reads=(INTERACTIONS, USER_ITEM, USER_INDEX, ITEM_INDEX),
    scorer=scorer,
    prior=lambda prior: (prior.als, prior.als_added),
    timeless=timeless,
    rates=lambda config: config.als.feedback == "explicit",
    ratings=ratings,
    pair_ratings=pair_ratings,
)
