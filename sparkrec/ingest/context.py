"""What the steps of an ingest hand to one another."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from sparkrec.ingest.again import format_hash
from sparkrec.ingest.hadoop import FileStatus, FileSystem
from sparkrec.settings.config import Config
from sparkrec.settings.formats import LogFormat, Reader
from sparkrec.warehouse.location import Warehouse

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
    warehouse: Warehouse

    @property
    def staging(self) -> str:
        """Folder of this attempt; removed at its end."""
        return f"{self.warehouse.path.rstrip('/')}/_staging/{self.run_id}"

    @property
    def format_hash(self) -> str:
        """Of what judges the rows of this attempt."""
        return format_hash(self.fmt, self.config.ingest)

    def local(self, columns: dict[str, Any]) -> DataFrame:
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
class FileRows:
    """Counts of a file: its rows, those without an id, all invalid ones, those of them that the format leaves out."""

    rows: int = 0
    missing: int = 0
    invalid: int = 0
    left_out: int = 0


@dataclass(frozen=True)
class Verdict:
    """Counts of staged rows: valid ones by day, invalid ones by reason, all by file that has rows."""

    valid: dict[date, int]
    reasons: dict[str, int]
    files: dict[int, FileRows]


@dataclass(frozen=True)
class Kept:
    """Events of the batch that are new, in staging, and the number of duplicates left out.

    ``added`` counts those duplicates whose quantity went to another row, ``impressions`` the events that are some.
    ``shares`` names, by file of the batch, the files that keep events in their stead.
    """

    rows: DataFrame
    kept: int
    duplicates: int
    added: int = 0
    impressions: int = 0
    shares: dict[str, list[str]] = field(default_factory=dict)
