"""Baskets: the distinct items that were bought together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyspark.sql import Window
from pyspark.sql import functions as F

from sparkrec.prepare.counts import Counts, observed
from sparkrec.prepare.grouping import OWNER, by_time, group_id, id_keys, in_order, keys, so_far, with_owner
from sparkrec.settings.sections import BasketsConfig
from sparkrec.warehouse.tables import (
    BASKET_ID,
    COPURCHASE,
    END_TS,
    EVENT_ORDER,
    EVENT_TYPE,
    ITEM_IDX,
    ITEMS,
    N_EVENTS,
    TS,
    USER_IDX,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

MICROS_PER_HOUR = 3_600_000_000
BEGAN, PART, PLACE, NUMBER = "began", "part", "place", "number"


def copurchase(
    interactions: DataFrame,
    config: BasketsConfig,
    purchase_events: Sequence[str],
    counts: Counts | None = None,
) -> DataFrame:
    """Builds the baskets of the events that are purchases.

    ``by=window``: a purchase ``window_hours`` or more after its user's previous one opens a basket; a chain of
    purchases with shorter pauses is cut each ``window_hours`` from its beginning, so no basket spans more than that,
    and none changes when later purchases arrive. Anonymous purchases are left out. ``by=basket_id``: the log's own
    baskets, anonymous ones too, one for each of their users (see :func:`sparkrec.prepare.grouping.with_owner`);
    purchases without an id fall back to the window.

    A basket holds its distinct items in the order of their first purchase (of equal times in a drawn one, see
    :func:`sparkrec.prepare.grouping.in_order`): the first ``max_items`` of them. Baskets with fewer than ``min_items``
    distinct items are left out.

    Args:
        interactions: The columns of ``tables.INTERACTIONS``.
        config: How to cut.
        purchase_events: Event types that are purchases.
        counts: Counts ``purchases`` = ``anonymous`` + ``small_purchases`` + ``cut_purchases`` (of the items beyond
            ``max_items``) + ``basket_purchases``, and ``baskets``, ``small_baskets`` and ``cut_items``.

    Returns:
        The columns of ``tables.COPURCHASE``.
    """
    log_id = BASKET_ID if config.by == "basket_id" else None
    bought = interactions.where(F.col(EVENT_TYPE).isin(*purchase_events))
    bought = bought.select(USER_IDX, ITEM_IDX, TS, EVENT_ORDER, BASKET_ID)
    nobodys = F.col(USER_IDX).isNull() & (F.lit(True) if log_id is None else F.col(BASKET_ID).isNull())
    bought = observed(bought, counts, purchases=F.count(F.lit(1)), anonymous=F.count_if(nobodys))
    baskets = _collect(_cut(with_owner(bought, log_id), config, log_id), config, log_id)
    large = F.col("n_items") >= config.min_items
    baskets = observed(
        baskets,
        counts,
        small_baskets=F.count_if(~large),
        small_purchases=F.sum(F.when(~large, F.col("purchases"))),
        cut_items=F.sum(F.when(large, F.col("n_items") - F.size(ITEMS))),
        cut_purchases=F.sum(F.when(large, F.col("purchases") - F.col("kept"))),
        baskets=F.count_if(large),
        basket_purchases=F.sum(F.when(large, F.col("kept"))),
    )
    return baskets.where(large).select(*COPURCHASE.column_names)


def _cut(bought: DataFrame, config: BasketsConfig, log_id: str | None) -> DataFrame:
    """Adds to each purchase its number, when its chain began and which window of the chain (0, 1, …) it is in."""
    width = F.lit(round(config.window_hours * MICROS_PER_HOUR)).cast("bigint")
    ordered = Window.partitionBy(*keys(log_id)).orderBy(*in_order())
    previous = F.lag(TS).over(ordered)
    pause = F.unix_micros(TS) - F.unix_micros(previous)
    new = previous.isNull() | (by_time(log_id) & (pause >= width))
    began = F.last(F.when(F.col("new"), F.col(TS)), ignorenulls=True).over(so_far(ordered))
    chained = bought.withColumns({"new": new, NUMBER: F.row_number().over(ordered)}).withColumn(BEGAN, began)
    since = F.unix_micros(TS) - F.unix_micros(BEGAN)
    return chained.withColumn(PART, F.when(by_time(log_id), F.floor(since / width)).otherwise(0))


def _collect(bought: DataFrame, config: BasketsConfig, log_id: str | None) -> DataFrame:
    """One row for each basket, the small ones too, with ``n_items``, ``purchases`` and those ``kept``."""
    basket = [*keys(log_id), *id_keys(log_id), BEGAN, PART]
    times = (F.min(TS).alias(TS), F.max(TS).alias(END_TS), F.min(NUMBER).alias(NUMBER))
    items = bought.groupBy(*basket, ITEM_IDX).agg(*times, F.count(F.lit(1)).alias(N_EVENTS))
    place = F.row_number().over(Window.partitionBy(*basket).orderBy(NUMBER))
    kept = F.col(PLACE) <= config.max_items
    baskets = (
        items.withColumn(PLACE, place)
        .groupBy(*basket)
        .agg(
            F.min(TS).alias(TS),
            F.max(END_TS).alias(END_TS),
            F.sort_array(F.collect_list(F.when(kept, F.struct(PLACE, ITEM_IDX)))).alias("bought"),
            F.count(F.lit(1)).alias("n_items"),
            F.sum(N_EVENTS).alias("purchases"),
            F.sum(F.when(kept, F.col(N_EVENTS))).alias("kept"),
        )
    )
    return baskets.withColumns(
        {
            BASKET_ID: group_id(log_id, F.col(TS), F.lit(0)),
            USER_IDX: F.col(OWNER),
            ITEMS: F.col(f"bought.{ITEM_IDX}"),
        }
    )
