"""The weight of an event by its type, as the log format declares it. Pure transforms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from sparkrec.warehouse.tables import EVENT_TYPE

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

WEIGHT = "weight"


def event_weight(event_weights: Mapping[str, float]) -> Column:
    """The weight of an event by its type: double, 0 for a type without one."""
    weight = F.lit(0.0)
    for event_type, value in sorted(event_weights.items()):
        weight = F.when(F.col(EVENT_TYPE) == event_type, F.lit(float(value))).otherwise(weight)
    return weight


def counted(interactions: DataFrame, event_weights: Mapping[str, float]) -> DataFrame:
    """The events that count as interactions, those with a weight above 0, with the column ``weight`` double."""
    return interactions.withColumn(WEIGHT, event_weight(event_weights)).where(F.col(WEIGHT) > 0)
