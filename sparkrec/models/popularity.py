"""Popularity of items: the baseline that every model is held against, and what users without a list are given."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

import numpy as np

from sparkrec.prepare.cut import utc
from sparkrec.prepare.weights import WEIGHT, counted
from sparkrec.retrieval.block_search import FloatArray, ItemMatrix
from sparkrec.retrieval.topk import VECTOR
from sparkrec.tables import ITEM_IDX, N_EVENTS, SCORE, TS, USER_IDX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def popularity(
    interactions: DataFrame,
    event_weights: Mapping[str, float],
    as_of: datetime,
    days: float | None,
    *,
    by: Literal["users", "events"] = "users",
) -> DataFrame:
    """Popularity of the items taken before ``as_of``.

    Args:
        interactions: In the columns of ``tables.INTERACTIONS``; events without a positive weight do not count.
        event_weights: Weight of each event type.
        as_of: Events before this time count, UTC.
        days: Length of the window that ends at ``as_of``; None: all time.
        by: ``users``: number of distinct users, each anonymous event counting as one more; it is not swayed by one
            user who repeats an item. ``events``: sum of the events' weights.

    Returns:
        ``(item_idx int, n_events bigint, score double)``, score > 0.
    """
    import pyspark.sql.functions as F

    within = F.col(TS) < utc(as_of)
    if days is not None:
        within = within & (F.col(TS) >= utc(as_of - timedelta(days=days)))
    taken = counted(interactions, event_weights).where(within)
    if by == "events":
        score = F.sum(WEIGHT)
        return taken.groupBy(ITEM_IDX).agg(F.count("*").alias(N_EVENTS), score.alias(SCORE))
    pairs = taken.groupBy(ITEM_IDX, USER_IDX).agg(F.count("*").alias(N_EVENTS))
    users = F.when(F.col(USER_IDX).isNull(), F.col(N_EVENTS)).otherwise(1)
    return pairs.groupBy(ITEM_IDX).agg(F.sum(N_EVENTS).alias(N_EVENTS), F.sum(users).cast("double").alias(SCORE))


def popularity_matrix(scores: DataFrame, n_items: int, catalogue: DataFrame | None = None) -> ItemMatrix:
    """Popularity as an item matrix of one dimension, for ``top_k``.

    Args:
        scores: ``(item_idx int, score)``; other items of the catalogue have the score 0.
        n_items: Size of the index: ``item_idx`` is below it.
        catalogue: ``(item_idx int)``: the items that a list may hold; by default those with a score.
    """
    table = scores.select(ITEM_IDX, SCORE).toArrow()
    idx = table.column(ITEM_IDX).to_numpy()
    vectors = np.zeros((n_items, 1), dtype=np.float32)
    vectors[idx, 0] = table.column(SCORE).to_numpy()
    eligible = np.zeros(n_items, dtype=np.bool_)
    eligible[idx if catalogue is None else catalogue.select(ITEM_IDX).toArrow().column(ITEM_IDX).to_numpy()] = True
    return ItemMatrix(vectors, None, eligible)


def fallback_matrix(
    interactions: DataFrame, event_weights: Mapping[str, float], as_of: datetime, days: float, n_items: int
) -> ItemMatrix:
    """What fills up lists: the items taken before ``as_of``, those of the recent window first.

    Args:
        interactions: As for ``popularity``.
        event_weights: As for ``popularity``.
        as_of: As for ``popularity``.
        days: Length of the recent window.
        n_items: Size of the index: ``item_idx`` is below it.

    Returns:
        The score of an item is its number of users in the window; where that is 0, its number of users of all time as
        a share of one more than the largest, which is below 1.
    """
    ever = popularity_matrix(popularity(interactions, event_weights, as_of, None), n_items)
    recent = popularity_matrix(popularity(interactions, event_weights, as_of, days), n_items).vectors
    share = ever.vectors / (ever.vectors.max(initial=0.0) + 1.0)
    return ItemMatrix(np.where(recent > 0, recent, share).astype(np.float32), None, ever.eligible)


def popularity_factors(users: FloatArray, strength: float) -> FloatArray:
    """``(users + 1) ** strength``, float32 of the shape of ``users``."""
    factors: FloatArray = ((users.astype(np.float64) + 1.0) ** strength).astype(np.float32)
    return factors


def times_popularity(items: ItemMatrix, users: FloatArray, strength: float) -> ItemMatrix:
    """Every score times ``(users + 1) ** strength``: a prior for models whose scores are degrees of preference.

    Args:
        items: What is searched.
        users: float32 ``[n]``: users who took each item of late.
        strength: 0 leaves the scores as they are.
    """
    factor = popularity_factors(users, strength)
    bias = None if items.bias is None else items.bias * factor
    return ItemMatrix(items.vectors * factor[:, None], bias, items.eligible)


def plus_popularity(items: ItemMatrix, users: FloatArray, strength: float) -> ItemMatrix:
    """Every score plus ``strength · ln(users + 1)``: the same prior for models whose scores are log-probabilities.

    Args:
        items: What is searched.
        users: float32 ``[n]``: users who took each item of late.
        strength: 0 leaves the scores as they are.
    """
    prior = (strength * np.log1p(users.astype(np.float64))).astype(np.float32)
    return ItemMatrix(items.vectors, prior if items.bias is None else items.bias + prior, items.eligible)


def popularity_queries(keys: DataFrame) -> DataFrame:
    """Queries for ``popularity_matrix``: each key with the vector ``[1.0]``."""
    import pyspark.sql.functions as F

    return keys.withColumn(VECTOR, F.array(F.lit(1.0).cast("float")))
