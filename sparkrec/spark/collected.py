"""Rows that come to the driver: counted first, and refused with what to do where the driver does not take them.

Spark ends a job whose results outgrow ``spark.driver.maxResultSize`` (1 GiB where nobody sets it; 0: no limit) with an
error of the JVM, after the work. What grows with users, pairs or sessions stays on the executors, but for what a model
sends to all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparkrec.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame, SparkSession

LIMIT, DEFAULT = "spark.driver.maxResultSize", "1g"
OUTGROWN = "more than the driver takes"
SURELY_LESS = 64  # rows are at most so many times as large as the planner takes their compressed files for


def collected(rows: DataFrame, row_bytes: Column | int, what: str, fix: str) -> pa.Table:
    """All rows, on the driver.

    Rows that the planner takes for a small part of the limit are not counted: that would be a job for nothing.

    Args:
        rows: Whatever has to be there whole.
        row_bytes: Of a row as Arrow has it, an int or a column of the rows.
        what: What they are, for the message.
        fix: What makes fewer of them, or does without.

    Raises:
        UserError: They are more than ``spark.driver.maxResultSize``.
    """
    limit = limit_bytes(rows.sparkSession)
    if limit and SURELY_LESS * _planned_bytes(rows) > limit:
        _check(rows, row_bytes, what, fix, limit)
    return rows.toArrow()


def limit_bytes(spark: SparkSession) -> int:
    """What results of a job may take on the driver; 0: no limit."""
    conf = spark.sparkContext._jsc.sc().conf()  # type: ignore[attr-defined]  # knows how sizes are written
    return int(conf.getSizeAsBytes(LIMIT, DEFAULT))


def outgrown(error: Exception) -> bool:
    """Whether Spark ended a job for what ``collected`` was not asked about."""
    return f"bigger than {LIMIT}" in str(error)


def _check(rows: DataFrame, row_bytes: Column | int, what: str, fix: str, limit: int) -> None:
    import pyspark.sql.functions as F

    size = F.lit(row_bytes) if isinstance(row_bytes, int) else row_bytes
    found = rows.agg(F.count("*"), F.coalesce(F.sum(size.cast("bigint")), F.lit(0))).head()
    assert found is not None  # an aggregate without groups has one row
    n, total = (int(value) for value in found)
    if total > limit:
        where = f"{n} {what} of {total >> 20} MiB, {LIMIT}={limit >> 20}m"
        raise UserError(OUTGROWN, where=where, fix=f"raise {LIMIT} and the driver's memory, or {fix}")


def _planned_bytes(rows: DataFrame) -> int:
    """What Spark's planner takes the rows for, from the sizes of the files."""
    plan = rows._jdf.queryExecution().optimizedPlan()
    return int(plan.stats().sizeInBytes())
