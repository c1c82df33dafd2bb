"""The user-item matrix, explicit (ratings) and implicit (confidence)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from sparkrec.prepare.counts import Counts, observed
from sparkrec.prepare.cut import micros, utc
from sparkrec.prepare.weights import WEIGHT, event_weight
from sparkrec.settings.sections import UserItemConfig
from sparkrec.warehouse.tables import (
    CONFIDENCE,
    EVENT_ORDER,
    ITEM_IDX,
    LAST_TS,
    N_EVENTS,
    RATING,
    TS,
    USER_IDX,
    USER_ITEM,
    VALUE,
)

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

MICROS_PER_DAY = 86_400_000_000


def user_item(
    interactions: DataFrame,
    config: UserItemConfig,
    event_weights: Mapping[str, float],
    as_of: datetime,
    counts: Counts | None = None,
) -> DataFrame:
    """Sums up the events before ``as_of`` of known users whose type has a weight above 0.

    confidence = Σ weight(event_type) · 2^(−age / half_life), the age in days from ``as_of``; Σ weight without a
    half-life. It is what implicit ALS takes for the observation r_ui (Hu, Koren and Volinsky 2008, section 4).
    rating = the ``value`` of the last event that has one (of several at one time and place the largest), or their mean.

    Args:
        interactions: The columns of ``tables.INTERACTIONS``.
        config: The rating's rule and the half-life in days.
        event_weights: Weight by event type; a type that is absent weighs 0.
        as_of: UTC; without a zone it is taken as UTC.
        counts: Counts ``events`` = ``late`` (not before ``as_of``) + ``anonymous`` + ``weightless`` + ``used``.

    Returns:
        The columns of ``tables.USER_ITEM``, one row for each pair.
    """
    events = interactions.withColumn(WEIGHT, event_weight(event_weights))
    late, anonymous = F.col(TS) >= utc(as_of), F.col(USER_IDX).isNull()
    weightless = F.col(WEIGHT) <= 0
    events = observed(
        events,
        counts,
        events=F.count(F.lit(1)),
        late=F.count_if(late),
        anonymous=F.count_if(~late & anonymous),
        weightless=F.count_if(~late & ~anonymous & weightless),
        used=F.count_if(~late & ~anonymous & ~weightless),
    )
    pairs = events.where(~late & ~anonymous & ~weightless).groupBy(USER_IDX, ITEM_IDX)
    return pairs.agg(
        _rating(config.rating).cast("float").alias(RATING),
        F.sum(_recent_weight(config.half_life_days, as_of)).cast("float").alias(CONFIDENCE),
        F.count(F.lit(1)).cast("int").alias(N_EVENTS),
        F.max(TS).alias(LAST_TS),
    ).select(*USER_ITEM.column_names)


def debiased(matrix: DataFrame, exponent: float) -> DataFrame:
    """The matrix with its confidence multiplied by n_i ** -exponent, n_i the number of the item's users.

    The factor is 1 on average over the pairs, so that ``alpha`` keeps its scale. An inverse propensity with popularity
    as the propensity: Schnabel et al., "Recommendations as Treatments" (ICML 2016); Yang et al., "Unbiased Offline
    Recommender Evaluation" (RecSys 2018).

    Args:
        matrix: The columns of ``tables.USER_ITEM``.
        exponent: 0: as it is; 1: all items weigh the same in total.
    """
    if not exponent:
        return matrix
    factors = matrix.groupBy(ITEM_IDX).agg(F.count(F.lit(1)).alias("_n"))
    factors = factors.withColumn("_factor", F.pow(F.col("_n"), F.lit(-float(exponent))))
    mean = factors.agg((F.sum(F.col("_factor") * F.col("_n")) / F.sum("_n")).alias("_mean"))
    scaled = factors.crossJoin(F.broadcast(mean)).select(ITEM_IDX, (F.col("_factor") / F.col("_mean")).alias("_factor"))
    confidence = (F.col(CONFIDENCE) * F.col("_factor")).cast("float")
    return matrix.join(scaled, ITEM_IDX, "inner").withColumn(CONFIDENCE, confidence).select(*matrix.columns)


def _recent_weight(half_life_days: float | None, as_of: datetime) -> Column:
    if half_life_days is None:
        return F.col(WEIGHT)
    age_days = (F.lit(micros(as_of)) - F.unix_micros(TS)) / F.lit(float(MICROS_PER_DAY))
    return F.col(WEIGHT) * F.pow(F.lit(2.0), -age_days / F.lit(float(half_life_days)))


def _rating(rule: str) -> Column:
    if rule == "mean":
        return F.avg(VALUE)
    return F.max(F.when(F.col(VALUE).isNotNull(), F.struct(TS, EVENT_ORDER, VALUE))).getField(VALUE)
