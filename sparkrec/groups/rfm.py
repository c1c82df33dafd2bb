"""Recency, frequency and monetary value of users, and vectors of them for ``user_groups``.

Hughes, "Strategic Database Marketing" (1994). Sums are those of whole numbers, so that they do not depend on the order
of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from sparkrec.errors import NothingToTrain
from sparkrec.prepare.cut import micros, utc
from sparkrec.prepare.user_item import MICROS_PER_DAY
from sparkrec.prepare.weights import WEIGHT, counted
from sparkrec.warehouse.tables import PRICE, QUANTITY, TS, USER_IDX, VECTOR

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

RECENCY, FREQUENCY, MONETARY = "recency_days", "frequency", "value"
RFM = (RECENCY, FREQUENCY, MONETARY)
STEP = 2.0**20  # sums are in units of its inverse
UNITS = 10_000  # values are added up in ten thousandths


@dataclass(frozen=True)
class Scaling:
    """Mean and deviation (of the population) of ``ln(1 + x)`` for recency, frequency and value, over all users."""

    means: tuple[float, ...]
    deviations: tuple[float, ...]


def rfm_values(interactions: DataFrame, event_weights: Mapping[str, float], as_of: datetime) -> DataFrame:
    """Recency, frequency and monetary value of each known user.

    Args:
        interactions: In the columns of ``tables.INTERACTIONS``; events without a positive weight do not count.
        event_weights: Weight of each event type.
        as_of: Events before this time count, UTC.

    Returns:
        ``(user_idx int, recency_days double, frequency double, value double)``: days since the last event; number of
        events; sum of quantity · price where ``interactions`` has a column ``price`` and a row's is not null, else of
        the quantity, else of the event's weight. Days and values have two decimals; a value is not below 0.
    """
    taken = counted(interactions, event_weights).where((F.col(TS) < utc(as_of)) & F.col(USER_IDX).isNotNull())
    worth = F.coalesce(F.col(QUANTITY), F.col(WEIGHT))
    if PRICE in interactions.columns:
        worth = F.coalesce(F.coalesce(F.col(QUANTITY), F.lit(1.0)) * F.col(PRICE), worth)
    age = (F.lit(micros(as_of)) - F.unix_micros(F.max(TS))) / F.lit(float(MICROS_PER_DAY))
    # Sums of whole numbers do not depend on their order.
    total = F.sum(F.rint(worth * UNITS).cast("bigint")) / UNITS
    return taken.groupBy(USER_IDX).agg(
        F.round(age, 2).alias(RECENCY),
        F.count("*").cast("double").alias(FREQUENCY),
        F.round(F.greatest(total, F.lit(0.0)), 2).alias(MONETARY),
    )


def rfm_scaling(values: DataFrame) -> Scaling:
    """What ``rfm_vectors`` standardises with.

    Args:
        values: Of ``rfm_values``.

    Raises:
        UserError: There are no users.
    """
    n, *sums = values.agg(F.count("*"), *[_exact_sum(_log(name)) for name in RFM]).first()  # type: ignore[misc]
    if not n:
        raise NothingToTrain(
            "no users to group", where="interactions", fix="check the support thresholds and the format"
        )
    means = [total / STEP / n for total in sums]
    apart = [_exact_sum((_log(name) - mean) * (_log(name) - mean)) for name, mean in zip(RFM, means, strict=True)]
    squares = values.agg(*apart).first()
    assert squares is not None  # an aggregate without groups has one row
    return Scaling(tuple(means), tuple(math.sqrt(total / STEP / n) for total in squares))


def rfm_vectors(values: DataFrame, scaling: Scaling) -> DataFrame:
    """``(user_idx int, vector array<double> of 3)``: ``(ln(1 + x) - mean) / deviation``, 0 where nothing deviates.

    Args:
        values: Of ``rfm_values``.
        scaling: Of ``rfm_scaling``; that of an earlier night keeps vectors comparable.
    """
    scaled = [
        (_log(name) - mean) / (deviation or 1.0)
        for name, mean, deviation in zip(RFM, scaling.means, scaling.deviations, strict=True)
    ]
    return values.select(USER_IDX, F.array(*scaled).alias(VECTOR))


def _log(name: str) -> Column:
    return F.log1p(name)


def _exact_sum(column: Column) -> Column:
    """The sum in units of 2^-20, a whole number: it does not depend on the order of the rows."""
    return F.sum(F.rint(column * STEP).cast("bigint"))
