"""Lists of numbers become lists of ids, in the columns of the published tables."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from sparkrec.errors import InvariantError
from sparkrec.warehouse.tables import (
    ID,
    IDX,
    ITEM_ID,
    ITEM_IDX,
    MODEL_VERSION,
    QUERY_IDX,
    RUN_DATE,
    SIMILAR_ITEM_ID,
    SIMILAR_USER_ID,
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

    named = _with_id(lists, F.broadcast(item_index), ITEM_IDX, ITEM_ID)
    if keys is not None:
        named = _with_id(named, keys, USER_IDX, USER_ID)
    return _in_columns(named, run_date, model_version, table)


def published_similar(
    lists: DataFrame, index: DataFrame, run_date: date, model_version: str, table: Table
) -> DataFrame:
    """Joins the ids back to the lists of ``similar.nearest``; a number without an id fails the write.

    Args:
        lists: ``(query_idx int, item_idx int, rank int, score float)``.
        index: ``item_index`` or ``user_index``, as the table asks.
        run_date: The night.
        model_version: Version of the model.
        table: ``tables.similar_items_table(model)`` or ``tables.similar_users_table(model)``.

    Returns:
        The columns of ``table``.
    """
    users = USER_ID in table.column_names
    who, similar = (USER_ID, SIMILAR_USER_ID) if users else (ITEM_ID, SIMILAR_ITEM_ID)
    named = _with_id(_with_id(lists, index, QUERY_IDX, who), index, ITEM_IDX, similar)
    return _in_columns(named, run_date, model_version, table)


def _with_id(lists: DataFrame, index: DataFrame, number: str, name: str) -> DataFrame:
    """The lists with the id of a number, from an index ``(id, idx)``."""
    import pyspark.sql.functions as F

    ids = index.select(F.col(ID).alias(name), F.col(IDX).alias(number))
    return lists.join(ids, number, "left").withColumn(name, _required(name, number))


def _in_columns(named: DataFrame, run_date: date, model_version: str, table: Table) -> DataFrame:
    """The columns of the table, or an InvariantError where the lists lack one."""
    import pyspark.sql.functions as F

    whole = named.withColumns({RUN_DATE: F.lit(run_date), MODEL_VERSION: F.lit(model_version)})
    missing = [name for name in table.column_names if name not in whole.columns]
    if missing:
        raise InvariantError(f"lists for {table.name} lack the columns {missing}: {named.columns}")
    return whole.select(*(F.col(c.name).cast(c.type) for c in table.columns))


def _required(name: str, number: str) -> Column:
    """The id, or the failure of the job where the join found none."""
    import pyspark.sql.functions as F

    message = F.concat(F.lit(f"InvariantError: no {name} for {number} "), F.col(number).cast("string"))
    return F.coalesce(F.col(name), F.raise_error(message))
