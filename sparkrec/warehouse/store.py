"""Reading and writing of the warehouse's Delta tables; every other module is free of paths."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from sparkrec.errors import InvariantError, UserError
from sparkrec.spark.session import named_jobs
from sparkrec.warehouse import direct
from sparkrec.warehouse.delta_files import data_files, read_files
from sparkrec.warehouse.delta_log import Commits, commits
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.tables import RUN_DATE, Table

if TYPE_CHECKING:
    from delta.tables import DeltaMergeBuilder
    from pyspark.sql import Column, DataFrame, SparkSession

ROWS_PER_FILE = 1_000_000  # of a table that is written in order


def exists(spark: SparkSession, warehouse: Warehouse, table: Table) -> bool:
    """Whether the table has been created."""
    return bool(commits(spark, warehouse.table_path(table)).versions)


def version(spark: SparkSession, warehouse: Warehouse, table: Table) -> int | None:
    """The version that last changed the table's rows, or None where there is no table.

    Compaction, vacuum and constraints make later versions with the same rows; those do not count, so that what has
    been made from the rows stays valid.
    """
    return commits(spark, warehouse.table_path(table)).last_change()


def night_is_as_of(spark: SparkSession, warehouse: Warehouse, table: Table, at: int, run_date: date) -> bool:
    """Whether a table partitioned by night still holds those rows of a night that a version of it held."""
    log = commits(spark, warehouse.table_path(table))
    return bool(log.versions) and log.versions[-1] >= at and log.spares(at, run_date.isoformat())


def find(spark: SparkSession, warehouse: Warehouse, table: Table) -> DataFrame | None:
    """The table as it is now, or None where there is none."""
    log = commits(spark, warehouse.table_path(table))
    return _rows(spark, warehouse, table, log, log.versions[-1]) if log.versions else None


def read(spark: SparkSession, warehouse: Warehouse, table: Table, at: int | None = None) -> DataFrame:
    """Reads a table, at a version where one is given: the latest that has the same rows.

    Raises:
        UserError: The table does not exist.
    """
    log = commits(spark, warehouse.table_path(table))
    if not log.versions:
        raise UserError(
            "no such table", where=warehouse.table_path(table), fix="run the stage that writes it, or sparkrec nightly"
        )
    return _rows(spark, warehouse, table, log, log.versions[-1] if at is None else log.same_rows(at))


def rows_written(spark: SparkSession, warehouse: Warehouse, table: Table, version: int) -> int:
    """The rows that a write brought, as its commit says; counted where it does not."""
    metrics = commits(spark, warehouse.table_path(table)).info(version).get("operationMetrics", {})
    told = metrics.get("numOutputRows")
    return read(spark, warehouse, table, at=version).count() if told is None else int(told)


def create(spark: SparkSession, warehouse: Warehouse, table: Table) -> bool:
    """Creates the table with its schema, comments, checks and properties; False where it exists."""
    warehouse.fence()
    if exists(spark, warehouse, table):
        return False
    direct.make(warehouse, table)
    return True


def table_id(spark: SparkSession, warehouse: Warehouse, table: Table) -> str:
    """The id that Delta gave the table when it was made; empty where there is none.

    A table that is removed and made again has another id, though its versions begin at the same number.
    """
    log = commits(spark, warehouse.table_path(table))
    if not log.versions:
        return ""
    told = log.checksum(log.versions[-1]).get("metadata", {}).get("id")
    return str(told) if told else _detailed_id(spark, warehouse, table)


def _detailed_id(spark: SparkSession, warehouse: Warehouse, table: Table) -> str:
    from delta.tables import DeltaTable

    row = DeltaTable.forPath(spark, warehouse.table_path(table)).detail().select("id").head()
    assert row is not None  # the details of a table are one row
    return str(row["id"])


def append(df: DataFrame, warehouse: Warehouse, table: Table, rows: int | None = None) -> int:
    """Appends rows and returns the new version; their number, where it is known, says how many files they become.

    A table of an earlier version of the package gets the columns that have been added since, null in its older rows.
    """
    return _write(df, warehouse, table, "append", {"mergeSchema": "true"}, rows)


def overwrite(df: DataFrame, warehouse: Warehouse, table: Table) -> int:
    """Replaces the whole table in one transaction and returns the new version.

    A table of an earlier version of the package gets the columns that have been added since.
    """
    with named_jobs(df.sparkSession, f"write {table.name}"):
        made = create(df.sparkSession, warehouse, table)
    if made:  # nothing to look for and to take out
        return append(df, warehouse, table)
    return _write(df, warehouse, table, "overwrite", {"overwriteSchema" if table.open else "mergeSchema": "true"})


def replace_night(df: DataFrame, warehouse: Warehouse, table: Table, run_date: date) -> int:
    """Replaces one night's rows (``run_date``) in one transaction and returns the new version.

    A table of an earlier version of the package gets the columns that have been added since, null in its older rows.
    """
    predicate = f"{RUN_DATE} = '{run_date.isoformat()}'"
    return _write(df, warehouse, table, "overwrite", {"replaceWhere": predicate, "mergeSchema": "true"})


def upsert(df: DataFrame, warehouse: Warehouse, table: Table) -> int:
    """Updates the rows whose key is in the table and inserts the others (MERGE); returns the new version.

    A table of an earlier version of the package gets the columns that have been added since, null in its other rows.

    Raises:
        InvariantError: A key occurs twice in ``df``.
    """
    with named_jobs(df.sparkSession, f"write {table.name}"):
        merge = _merge_by_key(df, warehouse, table).withSchemaEvolution()
        merge.whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()
    return _require_version(df.sparkSession, warehouse, table)


def delete_where(spark: SparkSession, warehouse: Warehouse, table: Table, condition: Column) -> int:
    """Deletes the rows that fit the condition and returns the new version."""
    from delta.tables import DeltaTable

    warehouse.fence()
    with named_jobs(spark, f"delete from {table.name}"):
        DeltaTable.forPath(spark, warehouse.table_path(table)).delete(condition)
    return _require_version(spark, warehouse, table)


def delete_matching(keys: DataFrame, warehouse: Warehouse, table: Table, condition: Column) -> int:
    """Deletes the rows for which one of ``keys`` fits the condition, which may name columns of both (MERGE).

    Returns:
        The new version.
    """
    from delta.tables import DeltaTable

    spark = keys.sparkSession
    warehouse.fence()
    with named_jobs(spark, f"delete from {table.name}"):
        target = DeltaTable.forPath(spark, warehouse.table_path(table)).alias("t")
        target.merge(keys.alias("s"), condition).whenMatchedDelete().execute()
    return _require_version(spark, warehouse, table)


def assert_unique(df: DataFrame, key: Sequence[str], name: str) -> None:
    """Raises InvariantError where ``key`` is not unique in ``df``."""
    with named_jobs(df.sparkSession, f"keys of {name}"):
        doubled = df.groupBy(*key).count().where("count > 1").limit(3).collect()
    if doubled:
        raise InvariantError(f"{name}: key {tuple(key)} is not unique, e.g. {[r.asDict() for r in doubled]}")


def _merge_by_key(df: DataFrame, warehouse: Warehouse, table: Table) -> DeltaMergeBuilder:
    """A MERGE of ``df`` by the table's key, still without clauses; the table is made, keys are checked first."""
    from delta.tables import DeltaTable

    create(df.sparkSession, warehouse, table)
    assert_unique(df, table.key, table.name)
    warehouse.fence()  # that took a while
    match = " AND ".join(f"t.{k} <=> s.{k}" for k in table.key)
    target = DeltaTable.forPath(df.sparkSession, warehouse.table_path(table)).alias("t")
    return target.merge(df.alias("s"), match)


def _rows(spark: SparkSession, warehouse: Warehouse, table: Table, log: Commits, version: int) -> DataFrame:
    """The rows of a version of an existing table; columns that have been added since, and may be null, are null."""
    path = warehouse.table_path(table)
    files = data_files(log.checksum(version))
    if files is not None:
        rows = read_files(spark, path, files)
    else:
        reader = spark.read.format("delta")
        rows = (reader if version == log.versions[-1] else reader.option("versionAsOf", version)).load(path)
    later = [c for c in table.columns if c.nullable and c.name not in rows.columns]
    return rows.selectExpr("*", *[f"cast(null as {c.type}) as {c.name}" for c in later]) if later else rows


def _write(
    df: DataFrame, warehouse: Warehouse, table: Table, mode: str, options: dict[str, str], rows: int | None = None
) -> int:
    spark = df.sparkSession
    with named_jobs(spark, f"write {table.name}"):
        create(spark, warehouse, table)
        if not table.open:
            df = df.select(*table.column_names)
        parts = [name for name in partition_columns(spark, warehouse, table) if name != RUN_DATE]
        writer = _laid_out(df, table, parts, rows).write.format("delta").mode(mode).options(**options)
        warehouse.fence()
        writer.save(warehouse.table_path(table))
    return _require_version(spark, warehouse, table)


def partition_columns(spark: SparkSession, warehouse: Warehouse, table: Table) -> list[str]:
    """The columns that an existing table is partitioned by: those of earlier versions of the package had more."""
    jvm: Any = spark._jvm
    log = jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, warehouse.table_path(table))
    none = jvm.scala.Option.empty()
    columns = log.update(False, none, none).metadata().partitionColumns()
    return [str(columns.apply(i)) for i in range(columns.size())]


def _laid_out(df: DataFrame, table: Table, parts: Sequence[str], rows: int | None) -> DataFrame:
    """The rows of a write brought together, so that files follow the volume and each holds a range of the order.

    Args:
        df: The rows.
        table: The table.
        parts: What it is partitioned by besides the night: the day, in a warehouse of an earlier version of the
            package. A day's rows are brought together, as each task would write a file of its own for it; Spark splits
            a day that is too much for one task. The tables partitioned by night are written one night at a time.
        rows: Their number; None: Spark goes by their bytes.
    """
    import pyspark.sql.functions as F

    if parts:
        columns = [F.col(name) for name in parts]
        adaptive = df.sparkSession.conf.get("spark.sql.adaptive.enabled") == "true"  # without it the hint does nothing
        return df.hint("rebalance", *columns) if adaptive else df.repartition(*columns)
    if not table.order:
        return df
    if rows is None:
        spread = df.hint("rebalance")
    else:
        files = max(1, -(-rows // ROWS_PER_FILE))
        spread = df.coalesce(1) if files == 1 else df.repartitionByRange(files, *table.order)
    return spread.sortWithinPartitions(*table.order)


def _require_version(spark: SparkSession, warehouse: Warehouse, table: Table) -> int:
    current = version(spark, warehouse, table)
    if current is None:
        raise InvariantError(f"{table.name} does not exist after a write")
    return current
