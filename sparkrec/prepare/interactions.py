"""Events with the dense numbers in place of the ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from sparkrec.errors import InvariantError
from sparkrec.warehouse.tables import (
    BASKET_ID,
    EVENT_ORDER,
    EVENT_TYPE,
    EVENT_TYPE_IDX,
    FEATURE,
    ID,
    IDX,
    ITEM_ID,
    ITEM_IDX,
    LOG_SESSION_ID,
    PRICE,
    QUANTITY,
    TS,
    TYPE_FEATURE,
    USER_ID,
    USER_IDX,
    VALUE,
)

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def taken(events: DataFrame, impression_events: Sequence[str]) -> DataFrame:
    """Events without those of what was shown and not taken: no model, list or metric is to know of them."""
    return events.where(~F.col(EVENT_TYPE).isin(*impression_events)) if impression_events else events


def interactions(
    events: DataFrame,
    user_index: DataFrame,
    item_index: DataFrame,
    feature_index: DataFrame | None = None,
    types: Sequence[str] = (),
) -> DataFrame:
    """Replaces ``user_id`` and ``item_id`` by ``user_idx`` (null for an anonymous event) and ``item_idx``.

    Outer joins: no event can get lost, and computing one whose id has no number fails. Spark broadcasts a small
    index; with a large one its adaptive execution splits the partitions of users and items with very many events.

    Args:
        events: The columns of ``tables.EVENTS``.
        user_index: ``id`` string, ``idx`` int, ids unique.
        item_index: The same for items.
        feature_index: ``feature``, ``value``, ``idx`` int, with the codes of ``types``; None: there are none.
        types: Event types that have a code; the others' is null.

    Returns:
        One row for each event, in the columns of ``tables.INTERACTIONS``.
    """
    code = F.lit(None).cast("int")
    if feature_index is not None and types:
        codes = feature_index.where(F.col(FEATURE) == TYPE_FEATURE)
        codes = codes.select(F.col(VALUE).alias(EVENT_TYPE), F.col(IDX).alias(EVENT_TYPE_IDX))
        events = events.join(F.broadcast(codes), on=EVENT_TYPE, how="left")
        code = F.when(F.col(EVENT_TYPE).isin(*types), _numbered(EVENT_TYPE_IDX, EVENT_TYPE))
    users = user_index.select(F.col(ID).alias(USER_ID), F.col(IDX).alias(USER_IDX))
    items = item_index.select(F.col(ID).alias(ITEM_ID), F.col(IDX).alias(ITEM_IDX))
    joined = events.join(users, on=USER_ID, how="left").join(items, on=ITEM_ID, how="left")
    return joined.select(
        F.when(F.col(USER_ID).isNotNull(), _numbered(USER_IDX, USER_ID)).alias(USER_IDX),
        _numbered(ITEM_IDX, ITEM_ID).alias(ITEM_IDX),
        EVENT_TYPE,
        TS,
        VALUE,
        QUANTITY,
        PRICE,
        LOG_SESSION_ID,
        BASKET_ID,
        EVENT_ORDER,
        code.alias(EVENT_TYPE_IDX),
    )


def assert_indexed(events: DataFrame, user_index: DataFrame, item_index: DataFrame) -> None:
    """Checks that every item and every user that is not null has a number. Costs a pass over the ids of the events.

    Raises:
        InvariantError: One has none.
    """
    for column, index in ((USER_ID, user_index), (ITEM_ID, item_index)):
        ids = events.select(F.col(column).alias(ID)).distinct()
        missing = ids.join(index.select(ID), on=ID, how="left_anti")
        missing = missing.where(F.col(ID).isNotNull()) if column == USER_ID else missing
        examples = [row[0] for row in missing.limit(3).collect()]
        if examples:
            raise InvariantError(f"{column} without a number in its index, e.g. {examples}")


def _numbered(idx: str, id_column: str) -> Column:
    shown = F.coalesce(F.col(id_column), F.lit("null"))
    return F.coalesce(F.col(idx), F.raise_error(F.concat(F.lit(f"{id_column} without a number: "), shown)).cast("int"))
