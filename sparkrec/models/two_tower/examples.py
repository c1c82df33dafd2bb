"""Examples for the two towers, made on Spark: whole users to a file, numbers only, and the layout of the features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
from pyspark import StorageLevel
from pyspark.sql import functions as F

from sparkrec.errors import InvariantError, UserError
from sparkrec.log import warn_event
from sparkrec.models.two_tower.batches import DAY_S, LABEL, SECONDS, WEIGHT, code_columns
from sparkrec.models.two_tower.network import Feature
from sparkrec.models.two_tower.settings import TwoTowerConfig
from sparkrec.prepare.cut import micros, utc
from sparkrec.prepare.weights import counted
from sparkrec.warehouse.tables import EVENT_ORDER, EVENT_TYPE, ITEM_IDX, TS, USER_IDX, VALUE

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

# A snapshot of examples: whole users to a file, in the order of time.
GROUP = USER_IDX
ORDER = (USER_IDX, SECONDS, EVENT_ORDER, ITEM_IDX, WEIGHT)
MAX_WIDTH = 8  # codes of one feature that a user or an item keeps


def feature_layout(features: DataFrame, key: str, max_width: int = MAX_WIDTH) -> tuple[Feature, ...]:
    """The features of a table of code arrays, by name: number of codes and width, from one pass over it.

    A value with more than ``max_width`` codes keeps the first ones; how many do not is logged.
    """
    names = sorted(c for c in features.columns if c != key)
    if not names:
        return ()
    measures = []
    for n, name in enumerate(names):
        measures += [
            F.max(F.size(name)).alias(f"width_{n}"),
            F.max(F.array_max(name)).alias(f"codes_{n}"),
            F.count_if(F.size(name) > max_width).alias(f"cut_{n}"),
        ]
    row = features.agg(*measures).head()
    found = row.asDict() if row is not None else {}
    for n, name in enumerate(names):
        if found.get(f"cut_{n}"):
            warn_event("feature_codes_cut", feature=name, rows=found[f"cut_{n}"], kept=max_width)
    return tuple(
        Feature(name, found.get(f"codes_{n}") or 0, min(max_width, max(1, found.get(f"width_{n}") or 1)))
        for n, name in enumerate(names)
    )


def flat_codes(table: DataFrame, key: str, features: Sequence[Feature]) -> DataFrame:
    """``key`` and the flat code columns; 0 where a value has fewer codes."""
    places = [(f.name, n) for f in features for n in range(f.width)]
    values = [F.coalesce(F.get(name, F.lit(n)), F.lit(0)).cast("int") for name, n in places]
    named = [value.alias(c) for value, c in zip(values, code_columns(features), strict=True)]
    return table.select(key, *named)


def examples(
    interactions: DataFrame,
    user_features: DataFrame,
    features: Sequence[Feature],
    config: TwoTowerConfig,
    event_weights: Mapping[str, float],
    as_of: datetime,
) -> DataFrame:
    """One row for each interaction of a known user before ``as_of``: numbers only, no nulls.

    Histories are no columns: a snapshot holds whole users (group by GROUP, ordered by ORDER), so that what a user did
    before an event is the rows before it, and a user with a million events costs a million rows, not a million
    histories.

    Args:
        interactions: Table ``interactions``. Anonymous events and those without weight are no examples.
        user_features: Table ``user_features``.
        features: Its layout, from ``feature_layout``.
        config: Of the model.
        event_weights: Event type to weight; 0 or absent: not an interaction.
        as_of: UTC; the night's end, or the cutoff of a hold-out.

    Returns:
        user_idx int, item_idx int, ts_s bigint (seconds since 1970), event_order bigint (-1: none), weight float (the
        event's, halved with each half-life of its age), with a second head label float (NaN where the event has none),
        code_0 int, ….
    """
    rows = counted_events(interactions, event_weights, as_of, _label(config, event_weights))
    weight = F.col(WEIGHT)
    if config.half_life_days:
        age_days = (F.lit(seconds(as_of)) - F.col(SECONDS)) / DAY_S
        weight = weight * F.pow(F.lit(0.5), age_days / config.half_life_days)
    rows = rows.withColumn(WEIGHT, weight.cast("float"))
    if not features:
        return rows
    joined = rows.join(flat_codes(user_features, USER_IDX, features), USER_IDX, how="left")
    return joined.fillna(0, subset=code_columns(features))


def example_order(config: TwoTowerConfig) -> tuple[str, ...]:
    """The order of a snapshot's rows."""
    return ORDER if config.second_head == "none" else (*ORDER, LABEL)


def second_outputs(config: TwoTowerConfig, event_weights: Mapping[str, float]) -> int:
    """Outputs of the second head: 0 for none, 1 for a rating, one for each event type that counts.

    Raises:
        UserError: There are no two event types to tell apart.
    """
    if config.second_head == "none":
        return 0
    if config.second_head == "rating":
        return 1
    types = _counting_types(event_weights)
    if len(types) < 2:
        raise UserError(
            f"only one event type counts: {', '.join(types)}",
            where="two_tower.second_head=event_type",
            fix="give another type a weight in the log format, or set two_tower.second_head=none",
        )
    return len(types)


def _counting_types(event_weights: Mapping[str, float]) -> list[str]:
    return sorted(name for name, weight in event_weights.items() if weight > 0)


def _label(config: TwoTowerConfig, event_weights: Mapping[str, float]) -> Column | None:
    """What the second head learns of an event."""
    missing = F.lit(float("nan"))
    if config.second_head == "none":
        return None
    if config.second_head == "rating":
        return F.coalesce(F.col(VALUE), missing)
    number = missing
    for n, name in enumerate(_counting_types(event_weights)):
        number = F.when(F.col(EVENT_TYPE) == name, F.lit(float(n))).otherwise(number)
    return number


def counted_events(
    interactions: DataFrame, event_weights: Mapping[str, float], as_of: datetime, label: Column | None = None
) -> DataFrame:
    """user_idx, item_idx, ts_s, event_order, weight (, label) of known users' events that count, before ``as_of``."""
    known = F.col(USER_IDX).isNotNull() & (F.col(TS) < utc(as_of))
    weight = F.col(WEIGHT).cast("float").alias(WEIGHT)
    rows = counted(interactions, event_weights).where(known)
    labels = [] if label is None else [label.cast("float").alias(LABEL)]
    order = F.coalesce(EVENT_ORDER, F.lit(-1)).cast("bigint").alias(EVENT_ORDER)  # a snapshot has no nulls
    return rows.select(USER_IDX, ITEM_IDX, F.unix_seconds(TS).alias(SECONDS), order, weight, *labels)


def seconds(when: datetime) -> int:
    """Seconds since 1970, rounded up, so that what came before is in an earlier second; without a zone it is UTC."""
    return -(-micros(when) // 1_000_000)


def item_codes(item_features: DataFrame, n_items: int) -> tuple[tuple[Feature, ...], np.ndarray]:
    """``feature_layout`` and ``item_feature_matrix`` of the items, from one pass over the table."""
    kept = item_features.persist(StorageLevel.MEMORY_AND_DISK)
    try:
        layout = feature_layout(kept, ITEM_IDX)
        return layout, item_feature_matrix(kept, layout, n_items)
    finally:
        kept.unpersist()


def item_feature_matrix(item_features: DataFrame, features: Sequence[Feature], n_items: int) -> np.ndarray:
    """int32 [n_items, sum of widths] of codes; 0 for an item without a row.

    Raises:
        InvariantError: An item lies outside of the index.
    """
    matrix = np.zeros((n_items, sum(f.width for f in features)), dtype=np.int32)
    if not features:
        return matrix
    found = flat_codes(item_features, ITEM_IDX, features).toPandas()  # the catalogue, not the log
    index = found[ITEM_IDX].to_numpy()
    if len(index) and (index.min() < 0 or index.max() >= n_items):
        raise InvariantError(f"item_features names item {index.max()}, the index ends at {n_items - 1}")
    matrix[index] = found[code_columns(features)].to_numpy(dtype=np.int32)
    return matrix
