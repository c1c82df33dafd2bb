"""The care of one table: checks and properties, compaction, vacuum. None of it changes a row."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparkrec.warehouse.delta_log import commits
from sparkrec.warehouse.direct import CONSTRAINT
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.store import partition_columns
from sparkrec.warehouse.tables import Table

if TYPE_CHECKING:
    from delta.tables import DeltaTable
    from pyspark.sql import SparkSession

MB = 1024 * 1024
RETENTION, LOG_RETENTION = "delta.deletedFileRetentionDuration", "delta.logRetentionDuration"
_DEFAULTS = {RETENTION: "interval 168 hours", LOG_RETENTION: "interval 720 hours"}  # Delta's own
_REFUSED = "DELTA_NEW_CHECK_CONSTRAINT_VIOLATION"
_KEEPS_FILES = frozenset({"CREATE TABLE", "ADD CONSTRAINT", "DROP CONSTRAINT", "SET TBLPROPERTIES", "VACUUM START",
                          "VACUUM END"})  # fmt: skip


@dataclass(frozen=True)
class State:
    """What a table says of itself: its number of files and its properties."""

    n_files: int
    properties: dict[str, str]


@dataclass(frozen=True)
class Partition:
    """The small files of a partition; ``value`` is None in a table without partitions."""

    value: str | None
    files: int
    bytes: int

    def fewer(self, file_bytes: int) -> int:
        """How many files fewer there would be after compaction to files of ``file_bytes``."""
        return max(0, self.files - max(1, math.ceil(self.bytes / file_bytes)))


@dataclass(frozen=True)
class Commit:
    """A version in a table's history: its time in milliseconds since 1970, and what it did."""

    at_ms: int
    operation: str
    parameters: dict[str, str]

    @property
    def supersedes(self) -> bool:
        """Whether it may have taken files out of the table."""
        appends = self.operation == "WRITE" and self.parameters.get("mode") == "Append"
        return not appends and self.operation not in _KEEPS_FILES


def state(spark: SparkSession, warehouse: Warehouse, table: Table) -> State:
    """Files and properties of an existing table."""
    row = _delta(spark, warehouse, table).detail().select("numFiles", "properties").head()
    assert row is not None  # a table has details
    return State(int(row[0]), dict(row[1]))


def missing_checks(table: Table, properties: dict[str, str]) -> list[str]:
    """Names of the declared checks that the table does not have, or has otherwise."""
    found = {name.removeprefix(CONSTRAINT): c for name, c in properties.items() if name.startswith(CONSTRAINT)}
    return [name for name, c in table.checks.items() if _plain(found.get(name, "")) != _plain(c)]


def add_check(spark: SparkSession, warehouse: Warehouse, table: Table, name: str, properties: dict[str, str]) -> bool:
    """Adds a declared check in place of one of the same name; False where rows of the table do not fulfil it."""
    from pyspark.errors import AnalysisException

    if f"{CONSTRAINT}{name}" in properties:
        _alter(spark, warehouse, table, f"DROP CONSTRAINT {name}")
    try:
        _alter(spark, warehouse, table, f"ADD CONSTRAINT {name} CHECK ({table.checks[name]})")
    except AnalysisException as error:
        if _REFUSED not in str(error):
            raise
        return False
    return True


def wanted_properties(retention_hours: int, log_retention_days: int) -> dict[str, str]:
    """How long superseded files and the log's entries stay. Delta refuses a VACUUM that keeps less than the first."""
    log_hours = max(log_retention_days * 24, retention_hours)
    return {RETENTION: f"interval {retention_hours} hours", LOG_RETENTION: f"interval {log_hours} hours"}


def other_properties(properties: dict[str, str], wanted: dict[str, str]) -> dict[str, str]:
    """Those of the wanted properties that the table has otherwise."""
    return {key: value for key, value in wanted.items() if properties.get(key, _DEFAULTS[key]) != value}


def set_properties(spark: SparkSession, warehouse: Warehouse, table: Table, properties: dict[str, str]) -> None:
    """Sets properties of a table."""
    listed = ", ".join(f"'{key}' = '{value}'" for key, value in properties.items())
    _alter(spark, warehouse, table, f"SET TBLPROPERTIES ({listed})")


def partitions(
    spark: SparkSession, warehouse: Warehouse, table: Table, below_bytes: int | None = None
) -> list[Partition]:
    """The partitions with the number and size of their files, or of those below a size."""
    from pyspark.sql import DataFrame
    from pyspark.sql import functions as F

    jvm: Any = spark._jvm
    parts = partition_columns(spark, warehouse, table)  # brings the snapshot that the driver holds up to date
    log = jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, warehouse.table_path(table))
    files = DataFrame(log.unsafeVolatileSnapshot().allFiles().toDF(), spark)
    value = F.col("partitionValues")[parts[0]] if parts else F.lit(None).cast("string")
    counted = F.lit(True) if below_bytes is None else F.col("size") < below_bytes
    rows = files.where(counted).groupBy(value.alias("value")).agg(F.count("*"), F.sum("size")).collect()
    return [Partition(row[0], int(row[1]), int(row[2])) for row in rows]


def to_compact(
    spark: SparkSession, warehouse: Warehouse, table: Table, file_mb: int, least: int
) -> tuple[list[Partition], int]:
    """The partitions to compact and the number of files that there would be fewer; none where these are too few."""
    file_bytes = file_mb * MB
    small = partitions(spark, warehouse, table, below_bytes=file_bytes // 2)
    worth = [partition for partition in small if partition.fewer(file_bytes)]
    fewer = sum(partition.fewer(file_bytes) for partition in worth)
    return (worth, fewer) if fewer >= least else ([], 0)


def compact(
    spark: SparkSession, warehouse: Warehouse, table: Table, worth: list[Partition], file_mb: int
) -> tuple[int, int]:
    """Merges the small files of partitions, in one transaction; returns the numbers of files before and after."""
    builder = _delta(spark, warehouse, table).optimize()
    parts = partition_columns(spark, warehouse, table)
    if parts:
        days = ", ".join(f"'{partition.value}'" for partition in worth)  # dates, by the tables' declaration
        builder = builder.where(f"{parts[0]} IN ({days})")
    sizes = {
        "spark.databricks.delta.optimize.minFileSize": str(file_mb * MB // 2),
        "spark.databricks.delta.optimize.maxFileSize": str(file_mb * MB),
    }
    with _conf(spark, sizes):
        row = builder.executeCompaction().select("metrics.numFilesRemoved", "metrics.numFilesAdded").head()
    assert row is not None  # of the transaction
    return int(row[0]), int(row[1])


def aged(spark: SparkSession, warehouse: Warehouse, table: Table, before_ms: int) -> bool:
    """Whether the table has a version from before a time, in milliseconds since 1970."""
    oldest = commits(spark, warehouse.table_path(table)).oldest_ms
    return oldest is not None and oldest <= before_ms


def history(spark: SparkSession, warehouse: Warehouse, table: Table) -> list[Commit]:
    """The versions that the log still lists, oldest first."""
    from pyspark.sql import functions as F

    rows = _delta(spark, warehouse, table).history().orderBy("version")
    named = rows.select(F.unix_millis("timestamp"), "operation", "operationParameters").collect()
    return [Commit(row[0], row[1], dict(row[2] or {})) for row in named]


def vacuum_due(done: list[Commit], before_ms: int) -> bool:
    """Whether files that were superseded before a time are still there.

    Args:
        done: The history, oldest first.
        before_ms: The time, in milliseconds since 1970.
    """
    cleaned_to, started = -1, -1
    for commit in done:
        if commit.operation == "VACUUM START":
            kept = commit.parameters.get("specifiedRetentionMillis") or commit.parameters["defaultRetentionMillis"]
            started = commit.at_ms - int(kept)
        elif commit.operation == "VACUUM END" and commit.parameters.get("status") == "COMPLETED":
            cleaned_to = max(cleaned_to, started)
    return any(commit.supersedes and cleaned_to < commit.at_ms <= before_ms for commit in done)


def vacuum(spark: SparkSession, warehouse: Warehouse, table: Table, retention_hours: int) -> None:
    """Removes files that were superseded longer ago than the retention; Delta's own check of it stays on."""
    # By default Delta lists the files in 10,000 tasks, whatever there is to list.
    tasks = str(4 * spark.sparkContext.defaultParallelism)
    with _conf(spark, {"spark.sql.sources.parallelPartitionDiscovery.parallelism": tasks}):
        _delta(spark, warehouse, table).vacuum(retention_hours)


def _delta(spark: SparkSession, warehouse: Warehouse, table: Table) -> DeltaTable:
    from delta.tables import DeltaTable

    return DeltaTable.forPath(spark, warehouse.table_path(table))


def _alter(spark: SparkSession, warehouse: Warehouse, table: Table, change: str) -> None:
    path = warehouse.table_path(table).replace("`", "``")
    spark.sql(f"ALTER TABLE delta.`{path}` {change}")


def _plain(condition: str) -> str:
    """A condition without its spelling: Delta keeps what is added later with other blanks."""
    return "".join(condition.split()).lower()


@contextmanager
def _conf(spark: SparkSession, settings: dict[str, str]) -> Iterator[None]:
    """Settings of the session, for a while."""
    before = {key: spark.conf.get(key, None) for key in settings}
    try:
        for key, value in settings.items():
            spark.conf.set(key, value)
        yield
    finally:
        for key, old in before.items():
            spark.conf.unset(key)
            if old is not None:
                spark.conf.set(key, old)
