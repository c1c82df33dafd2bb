"""The user models as queries and item matrices for the one top-K engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
from pyspark.sql import functions as F

from sparkrec.models.als import load_als
from sparkrec.models.als_fold_in import fold_in
from sparkrec.models.popularity import plus_popularity, popularity, popularity_matrix, times_popularity
from sparkrec.pipeline.models import HOLDOUT, ModelCard, part_path
from sparkrec.pipeline.night import Inputs, Night
from sparkrec.prepare.cut import utc
from sparkrec.prepare.support import filter_support
from sparkrec.prepare.user_item import debiased, user_item
from sparkrec.prepare.weights import counted
from sparkrec.retrieval import towers
from sparkrec.retrieval.topk import VECTOR, ItemMatrix, item_matrix
from sparkrec.tables import IDX, INTERACTIONS, ITEM_IDX, TS, USER_FEATURES, USER_IDX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

USER_MODELS = ("als", "two_tower")


@dataclass(frozen=True)
class Scorer:
    """A model ready for ``top_k``: queries ``(user_idx int, vector array<float>)`` and the items."""

    queries: DataFrame
    items: ItemMatrix


def user_scorer(night: Night, inputs: Inputs, card: ModelCard, part: str, as_of: datetime) -> Scorer:
    """A user model's vectors as of a time, with the popularity prior: what happened from then on is not seen."""
    path, prior = part_path(night.warehouse, card.model, night.run_date, part), night.config.prior
    if card.model == "als":
        scorer, strength, blended = _als(night, inputs, card, part, as_of), prior.als, times_popularity
    else:
        scorer, strength, blended = _two_tower(night, inputs, path, as_of), prior.two_tower, plus_popularity
    if not strength:
        return scorer
    recent = popularity(inputs.read(INTERACTIONS), night.fmt.event_weights, as_of, prior.days)
    users = popularity_matrix(recent, len(scorer.items.vectors)).vectors[:, 0]
    return replace(scorer, items=blended(scorer.items, users, strength))


def timeless_scorer(night: Night, inputs: Inputs, card: ModelCard, part: str, as_of: datetime) -> Scorer:
    """A user model's users and items as they lie beside each other: what depends on the time is left out."""
    if card.model == "als":
        return _als(night, inputs, card, part, as_of)
    path = part_path(night.warehouse, card.model, night.run_date, part)
    whole, dim = _two_tower(night, inputs, path, as_of), towers.load_served(path).shape.dim
    queries = whole.queries.withColumn(VECTOR, F.slice(VECTOR, 1, dim))
    return Scorer(queries, replace(whole.items, vectors=whole.items.vectors[:, :dim]))


def seen_pairs(night: Night, inputs: Inputs, before: datetime) -> DataFrame:
    """``(user_idx, item_idx)`` of all interactions of known users before a time, distinct."""
    known = F.col(USER_IDX).isNotNull() & (F.col(TS) < utc(before))
    rows = counted(inputs.read(INTERACTIONS), night.fmt.event_weights).where(known)
    return rows.select(USER_IDX, ITEM_IDX).distinct()


def _als(night: Night, inputs: Inputs, card: ModelCard, part: str, as_of: datetime) -> Scorer:
    model = load_als(night.spark, part_path(night.warehouse, card.model, night.run_date, part))
    users, items = model.user_factors, model.item_factors
    if part == HOLDOUT and as_of > card.cutoff:  # served without a refit
        users, items = _came_later(night, inputs, users, items, as_of)
    return Scorer(users.select(F.col(IDX).alias(USER_IDX), VECTOR), item_matrix(items, card.n_items))


def _came_later(
    night: Night, inputs: Inputs, users: DataFrame, items: DataFrame, as_of: datetime
) -> tuple[DataFrame, DataFrame]:
    """The factors with those of users and items that ALS was not trained on, by what they did since."""
    config = night.config
    kept, _ = filter_support(inputs.read(INTERACTIONS).where(F.col(TS) < utc(as_of)), config.prepare.support)
    taken = user_item(kept, config.prepare.user_item, night.fmt.event_weights, as_of)
    taken = debiased(taken, config.als.debias)
    theirs = taken.join(users.select(F.col(IDX).alias(USER_IDX)), USER_IDX, "left_anti")
    users = users.unionByName(fold_in(theirs, items, config.als, new=USER_IDX, known=ITEM_IDX))
    theirs = taken.join(items.select(F.col(IDX).alias(ITEM_IDX)), ITEM_IDX, "left_anti")
    return users, items.unionByName(fold_in(theirs, users, config.als, new=ITEM_IDX, known=USER_IDX))


def _two_tower(night: Night, inputs: Inputs, path: str, as_of: datetime) -> Scorer:
    shape, weights = towers.load_served(path).shape, night.fmt.event_weights
    rows = inputs.read(INTERACTIONS)
    states = towers.user_states(
        rows, inputs.read(USER_FEATURES), shape.user_features, shape.history_length, weights, as_of
    )
    vectors = towers.item_vectors(path)
    known = np.zeros(len(vectors), dtype=np.bool_)
    taken = counted(rows, weights).where(F.col(TS) < utc(as_of)).select(ITEM_IDX).distinct().toArrow()
    known[taken.column(ITEM_IDX).to_numpy()] = True
    return Scorer(towers.user_vectors(states, path), ItemMatrix(vectors, None, known))
