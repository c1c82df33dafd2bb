"""Dense, append-only numbers for the ids of users and items."""

from __future__ import annotations

from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec.errors import InvariantError, UserError
from sparkrec.prepare.numbering import POSITION, numbered
from sparkrec.warehouse.tables import FEATURE, ID, IDX, VALUE

MAX_IDX = 2**31 - 1
_OF = "of"


def new_ids(ids: DataFrame, index: DataFrame | None) -> tuple[DataFrame, int]:
    """Numbers the ids that the index does not have yet.

    The numbers follow the order of the ids (by their UTF-8 bytes) and go on after the largest of the index, so two
    attempts give the same, however the input is partitioned.

    Args:
        ids: Column ``id`` string; may repeat and hold nulls, which are left out.
        index: Columns ``id`` string, ``idx`` int, or None for the first night.

    Returns:
        The rows to append: ``id`` string, ``idx`` int, and how many they are.

    Raises:
        UserError: More ids than int32 can number.
    """
    fresh = ids.select(ID).where(F.col(ID).isNotNull()).distinct()
    if index is not None:
        fresh = fresh.join(index.select(ID), on=ID, how="left_anti")
    rows, count = numbered(fresh, ID)
    start = _next_idx(index) if count else 0
    if start + count - 1 > MAX_IDX:
        raise UserError("too many ids for a 32-bit index", where=f"{start + count} ids", fix="start a new warehouse")
    return rows.select(ID, (F.col(POSITION) + F.lit(start)).cast("int").alias(IDX)), count


def assert_dense(*indexes: DataFrame, codes: DataFrame | None = None) -> None:
    """Checks that ``idx`` of each index is 0 … n−1, each once, and that its ids are unique and not null.

    Args:
        indexes: Columns ``id`` string, ``idx`` int.
        codes: The feature index: the codes of each of its features are 1 … n, and its values unique.

    Raises:
        InvariantError: They are not.
    """
    parts = [rows.select(F.lit(f"index {n}").alias(_OF), ID, IDX) for n, rows in enumerate(indexes)]
    if codes is not None:
        parts.append(codes.select(FEATURE, VALUE, (F.col(IDX) - 1).alias(IDX)).toDF(_OF, ID, IDX))
    found = (
        reduce(DataFrame.union, parts)
        .groupBy(_OF)
        .agg(
            F.count(F.lit(1)).alias("rows"),
            F.count_distinct(ID).alias("ids"),
            F.count_distinct(IDX).alias("numbers"),
            F.min(IDX).alias("smallest"),
            F.max(IDX).alias("largest"),
        )
    )
    for row in found.collect():  # one for each index and feature
        n = row["rows"]
        if (row["ids"], row["numbers"], row["smallest"], row["largest"]) != (n, n, 0, n - 1):
            raise InvariantError(f"index is not dense: {row.asDict()}")


def _next_idx(index: DataFrame | None) -> int:
    row = index.agg(F.max(IDX)).first() if index is not None else None
    return 0 if row is None or row[0] is None else int(row[0]) + 1
