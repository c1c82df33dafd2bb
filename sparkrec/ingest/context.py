"""What the steps of an ingest hand to one another."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from sparkrec import store
from sparkrec.config import Config
from sparkrec.formats import LogFormat, Reader
from sparkrec.ingest.hadoop import FileStatus, FileSystem

FileReader = tuple[FileStatus, Reader]


@dataclass(frozen=True)
class Context:
    """What every step needs."""

    spark: SparkSession
    config: Config
    fmt: LogFormat
    run_id: str
    run_date: date
    now: datetime  # naive UTC
    fs: FileSystem
    warehouse: store.Warehouse

    @property
    def staging(self) -> str:
        """Folder of this attempt; removed at its end."""
        return f"{self.warehouse.path.rstrip('/')}/_staging/{self.run_id}"

    def local(self, columns: dict[str, list[Any]]) -> DataFrame:
        """A small table of the driver's, by Arrow: no job and no Python worker is needed for it."""
        import pyarrow as pa

        return self.spark.createDataFrame(pa.table(columns))


@dataclass(frozen=True)
class Staged:
    """Parsed rows of some files, in staging: ``file_no`` numbers ``sources``; ``read`` was counted at reading."""

    rows: DataFrame
    sources: tuple[str, ...]
    read: int


@dataclass(frozen=True)
class Verdict:
    """Counts of staged rows: valid ones by day, invalid ones by reason, (rows, rows without an id) by file.

    Files without rows are not in it.
    """

    valid: dict[date, int]
    reasons: dict[str, int]
    files: dict[int, tuple[int, int]]


@dataclass(frozen=True)
class Kept:
    """Events of the batch that are new, in staging, and the number of duplicates left out."""

    rows: DataFrame
    kept: int
    duplicates: int
