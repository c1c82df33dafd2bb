"""The table that ``logs.table`` names: of what kind it is, what it holds now, what changed since a version.

Of a Delta table a version is noted by its commit file: a file with a name, a size and a hash like any log. A table that
was replaced by another, or restored from a copy, has other commits. Of other tables each partition is noted
(``table_parts``).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from sparkrec.errors import UserError
from sparkrec.ingest.context import Context
from sparkrec.ingest.hadoop import FileStatus, java_message
from sparkrec.warehouse.delta_log import Commits, commit_name, commits, data_change

CHANGE_TYPE, COMMIT_VERSION, COMMIT_TIMESTAMP = "_change_type", "_commit_version", "_commit_timestamp"  # Delta's names
REMOVED = ("delete", "update_preimage")  # of the change types
ICEBERG_PARTITION = "_partition"
_ICEBERG = {ICEBERG_PARTITION, "_spec_id", "_file"}  # metadata columns of its tables
FEED = "delta.enableChangeDataFeed"


@dataclass(frozen=True)
class Since:
    """What changed in a Delta table after a version.

    Attributes:
        added: Actions of the files that were added, in order; none where nothing changed or rows were removed.
        removes: Whether rows were removed or rewritten.
    """

    added: tuple[str, ...]
    removes: bool


@dataclass(frozen=True)
class LogTable:
    """A table of logs.

    Attributes:
        spark: The session.
        name: As ``logs.table`` has it; the sources of its rows begin with it.
        is_path: Whether that is a path.
        location: The folder of a Delta table; empty of others.
        iceberg: Whether it is an Iceberg table.
    """

    spark: SparkSession
    name: str
    is_path: bool
    location: str
    iceberg: bool = False

    def owns(self, source: str) -> bool:
        """Whether a source is a version, a partition or all of this table."""
        return source == self.name or source.startswith(self._begins)

    def owns_row(self, column: str) -> Column:
        """The same of the source that a column names."""
        source = F.col(column)
        return reduce(or_, [F.startswith(source, F.lit(begin)) for begin in self._begins], source == self.name)

    @property
    def _begins(self) -> tuple[str, ...]:
        """What the sources of versions and of partitions begin with."""
        return f"{self.name}@", f"{self.name}/"

    def commits(self) -> Commits:
        """The commits of a Delta table, as its log lists them now."""
        return commits(self.spark, self.location)

    def commit(self, context: Context, version: int) -> FileStatus:
        """The commit file of a version of a Delta table, named ``<table>@<version>``."""
        path = f"{self.location}/_delta_log/{commit_name(version)}"
        return context.fs.status_of(path, f"{self.name}@{version}")

    def version_of(self, source: str) -> int | None:
        """The version that a source names; None where it names none."""
        number = source.removeprefix(f"{self.name}@")
        return int(number) if source != number and number.isdecimal() else None

    def since(self, version: int, now: int) -> Since:
        """What changed after a version, up to another one; the commits must be there."""
        changes = [data_change(self.spark, self.location, v) for v in range(version + 1, now + 1)]
        removes = any(change.removes for change in changes)
        return Since(() if removes else tuple(line for change in changes for line in change.added), removes)

    def has_feed(self) -> bool:
        """Whether a Delta table keeps a change data feed."""
        from delta.tables import DeltaTable

        row = DeltaTable.forPath(self.spark, self.location).detail().select("properties").head()
        return row is not None and str(row["properties"].get(FEED, "")).lower() == "true"

    def at(self, version: int | None) -> DataFrame:
        """The rows of a version of a Delta table; None: of another table, as it is now."""
        return self._read({} if version is None else {"versionAsOf": str(version)})

    def feed(self, version: int, now: int) -> DataFrame:
        """The change data feed after a version, up to another one."""
        return self._read({
            "readChangeFeed": "true", "startingVersion": str(version + 1), "endingVersion": str(now),
        })  # fmt: skip

    def files_added(self, actions: Sequence[str]) -> DataFrame:
        """The rows of files that were added to a Delta table, those among them that have been compacted since."""
        jvm: Any = self.spark._jvm
        delta, none = jvm.org.apache.spark.sql.delta, jvm.scala.Option.empty()
        log = delta.DeltaLog.forTable(self.spark._jsparkSession, self.location)
        files = jvm.PythonUtils.toSeq([delta.actions.Action.fromJson(line) for line in actions])
        return DataFrame(log.createDataFrame(log.update(False, none, none), files, False, none), self.spark)

    def iceberg_files(self) -> DataFrame:
        """The files of an Iceberg table's snapshot: its metadata table."""
        return self.spark.read.table(f"{self.name}.files")

    def _read(self, options: dict[str, str]) -> DataFrame:
        reader = self.spark.read.options(**options)
        return reader.format("delta").load(self.location) if self.is_path else reader.table(self.name)


def open_table(context: Context) -> LogTable:
    """The table of ``logs.table``.

    Raises:
        UserError: There is none, or it cannot be read.
    """
    spark, logs = context.spark, context.config.logs
    if logs.table_is_path:
        path = logs.table.rstrip("/")
        if not context.fs.exists(f"{path}/_delta_log") or not commits(spark, path).versions:
            raise UserError("no Delta table", where=f"logs.table={path}", fix="files are read with logs.path")
        return LogTable(spark, path, True, path)
    with suppress(Exception):  # what a session has seen of a table's files may be long ago; not every catalog can
        spark.catalog.refreshTable(logs.table)
    try:
        rows = spark.table(logs.table)
    except Exception as error:  # catalogs raise many kinds
        fix = f"{java_message(error)}; a path has a slash in it"
        raise UserError("no such log table", where=f"logs.table={logs.table}", fix=fix) from error
    location = _delta_location(spark, logs.table)
    iceberg = not location and metadata_columns(rows) >= _ICEBERG
    return LogTable(spark, logs.table, False, location, iceberg)


def _delta_location(spark: SparkSession, name: str) -> str:
    """The folder of a Delta table; empty where it is another table, or a view."""
    from urllib.parse import unquote

    from delta.tables import DeltaTable

    try:
        row = DeltaTable.forName(spark, name).detail().select("location").head()
    except AnalysisException:
        return ""
    return unquote(str(row["location"])).rstrip("/") if row else ""


def metadata_columns(rows: DataFrame) -> set[str]:
    """The hidden columns that a table has beside its own, by what its source offers; views have none."""
    hidden = rows._jdf.queryExecution().analyzed().metadataOutput()  # type: ignore[union-attr]
    return {hidden.apply(n).name() for n in range(hidden.size())}
