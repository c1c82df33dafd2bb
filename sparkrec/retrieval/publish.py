"""Lists of numbers become lists of ids, in the columns of the published tables."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from sparkrec.errors import InvariantError
from sparkrec.tables import (
    ID,
    IDX,
    ITEM_ID,
    ITEM_IDX,
    MODEL_VERSION,
    QUERY_IDX,
    RUN_DATE,
    SIMILAR_ITEM_ID,
    USER_ID,
    USER_IDX,
    Table,
)

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def published(
    lists: DataFrame,
    keys: DataFrame | None,
    item_index: DataFrame,
    run_date: date,
    model_version: str,
    table: Table,
) -> DataFrame:
    """Joins the ids back.

    A number without an id fails the write, so no row is lost.

    Args:
        lists: ``(user_idx or the table's own key columns, item_idx int, rank int, score float)``.
        keys: ``user_index``; or None where the lists carry ``user_id`` (and ``key_type``) already. At scale that is
            the cheaper way: join the ids to the queries and name them in ``top_k(key=…)``, instead of joining them
            to the ``k`` times longer lists.
        item_index: ``(id, idx)``; broadcast, as the item matrix was.
        run_date: The night.
        model_version: Version of the model.
        table: ``tables.topk_table(model)``.

    Returns:
        The columns of ``table``.

    Raises:
        InvariantError: The lists lack a column of the table.
    """
    import pyspark.sql.functions as F

    items = item_index.select(F.col(ID).alias(ITEM_ID), F.col(IDX).alias(ITEM_IDX))
    named = lists.join(F.broadcast(items), ITEM_IDX, "left").withColumn(ITEM_ID, _required(ITEM_ID, ITEM_IDX))
    if keys is not None:
        users = keys.select(F.col(ID).alias(USER_ID), F.col(IDX).alias(USER_IDX))
        named = named.join(users, USER_IDX, "left").withColumn(USER_ID, _required(USER_ID, USER_IDX))
    named = named.withColumns({RUN_DATE: F.lit(run_date), MODEL_VERSION: F.lit(model_version)})
    missing = [name for name in table.column_names if name not in named.columns]
    if missing:
        raise InvariantError(f"lists for {table.name} lack the columns {missing}: {lists.columns}")
    return named.select(*(F.col(c.name).cast(c.type) for c in table.columns))


def published_similar(
    lists: DataFrame, item_index: DataFrame, run_date: date, model_version: str, table: Table
) -> DataFrame:
    """Joins the ids back to the lists of ``similar_items``; a number without an id fails the write.

    Args:
        lists: ``(query_idx int, item_idx int, rank int, score float)``.
        item_index: ``(id, idx)``; broadcast.
        run_date: The night.
        model_version: Version of the model.
        table: ``tables.similar_items_table(model)``.

    Returns:
        The columns of ``table``.
    """
    import pyspark.sql.functions as F

    named = lists
    for number, name in ((QUERY_IDX, ITEM_ID), (ITEM_IDX, SIMILAR_ITEM_ID)):
        ids = F.broadcast(item_index.select(F.col(ID).alias(name), F.col(IDX).alias(number)))
        named = named.join(ids, number, "left").withColumn(name, _required(name, number))
    named = named.withColumns({RUN_DATE: F.lit(run_date), MODEL_VERSION: F.lit(model_version)})
    return named.select(*(F.col(c.name).cast(c.type) for c in table.columns))


def _required(name: str, number: str) -> Column:
    """The id, or the failure of the job where the join found none."""
    import pyspark.sql.functions as F

    message = F.concat(F.lit(f"InvariantError: no {name} for {number} "), F.col(number).cast("string"))
    return F.coalesce(F.col(name), F.raise_error(message))
