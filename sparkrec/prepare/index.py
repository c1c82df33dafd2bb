"""Dense, append-only numbers for the ids of users and items."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from sparkrec.errors import InvariantError, UserError
from sparkrec.prepare.numbering import POSITION, numbered
from sparkrec.tables import ID, IDX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

MAX_IDX = 2**31 - 1


def new_ids(ids: DataFrame, index: DataFrame | None) -> DataFrame:
    """Numbers the ids that the index does not have yet.

    The numbers follow the order of the ids (by their UTF-8 bytes) and go on after the largest of the index, so two
    attempts give the same, however the input is partitioned.

    Args:
        ids: Column ``id`` string; may repeat and hold nulls, which are left out.
        index: Columns ``id`` string, ``idx`` int, or None for the first night.

    Returns:
        The rows to append: ``id`` string, ``idx`` int.

    Raises:
        UserError: More ids than int32 can number.
    """
    fresh = ids.select(ID).where(F.col(ID).isNotNull()).distinct()
    if index is not None:
        fresh = fresh.join(index.select(ID), on=ID, how="left_anti")
    start = _next_idx(index)
    rows, count = numbered(fresh, ID)
    if start + count - 1 > MAX_IDX:
        raise UserError("too many ids for a 32-bit index", where=f"{start + count} ids", fix="start a new warehouse")
    return rows.select(ID, (F.col(POSITION) + F.lit(start)).cast("int").alias(IDX))


def assert_dense(index: DataFrame) -> None:
    """Checks that ``idx`` is 0 … n−1, each once, and that the ids are unique and not null.

    Raises:
        InvariantError: They are not.
    """
    found = index.agg(
        F.count(F.lit(1)).alias("rows"),
        F.count_distinct(ID).alias("ids"),
        F.count_distinct(IDX).alias("numbers"),
        F.min(IDX).alias("smallest"),
        F.max(IDX).alias("largest"),
    ).first()
    assert found is not None  # an aggregate without groups has one row
    n = found["rows"]
    full = found["ids"] == n and found["numbers"] == n
    if n and not (full and found["smallest"] == 0 and found["largest"] == n - 1):
        raise InvariantError(f"index is not dense: {found.asDict()}")


def _next_idx(index: DataFrame | None) -> int:
    row = index.agg(F.max(IDX)).first() if index is not None else None
    return 0 if row is None or row[0] is None else int(row[0]) + 1
