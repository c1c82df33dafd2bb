"""Raw logs → ``events``, ``quarantine``, ``items``, ``users``, ``files``: each file once, each row accounted for."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING

from sparkrec.settings.config import Config
from sparkrec.settings.formats import LogFormat
from sparkrec.warehouse.location import Warehouse

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class IngestResult:
    """The account of an ingest: ``rows_read == rows_kept + rows_quarantined + rows_duplicate``.

    Attributes:
        files_new: Log files read, changed ones included; of a table its commits up to now, or partitions.
        files_empty: Those of them without a row.
        rows_read: Rows of these files, counted as they were read.
        rows_kept: Rows that became events.
        rows_quarantined: Invalid rows.
        rows_duplicate: Rows that are an event which another row is.
        rows_added: Those of them whose quantity was added to the other's.
        rows_impressions: Events of what was shown and not taken, among the rows kept.
        rows_left_out: Rows in quarantine that the format leaves out.
        reasons: Invalid rows by reason.
        outputs: The tables written, with their versions.
        rows_removed: Events and rows in quarantine that went, as rows of the log's table went or were updated.
    """

    files_new: int = 0
    files_empty: int = 0
    rows_read: int = 0
    rows_kept: int = 0
    rows_quarantined: int = 0
    rows_duplicate: int = 0
    rows_added: int = 0
    rows_impressions: int = 0
    rows_left_out: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)
    rows_removed: int = 0


def ingest(
    spark: SparkSession,
    config: Config,
    fmt: LogFormat,
    run_id: str,
    run_date: date,
    warehouse: Warehouse | None = None,
) -> IngestResult:
    """Takes the new log files in.

    Every file is read and judged before a table changes. Files dated after ``run_date`` by their name stay for a
    later night; events after it are kept, for the later stages filter by date. An attempt that broke off is undone
    first, so that running again gives the same tables.

    Args:
        spark: Session, in UTC.
        config: ``logs``, ``warehouse`` and ``ingest`` are used.
        fmt: The log format.
        run_id: The attempt; names the staging folder.
        run_date: The night.
        warehouse: Where the tables are, with its fence; None: the configuration's, without one.

    Raises:
        UserError: No path, table, file, column or event where there must be one, an unreadable or changed file, too
            many invalid rows, or a warehouse that cannot be written. The tables are as they were.
        InvariantError: The account does not add up.
    """
    from sparkrec.ingest.run import run

    return run(spark, config, fmt, run_id, run_date, warehouse)


def files_to_read(spark: SparkSession, config: Config, fmt: LogFormat, run_date: date) -> int:
    """Number of log and attribute files that ``ingest`` would take in, without reading them.

    Raises:
        UserError: No such path, no file, or a changed one.
    """
    from sparkrec.ingest.run import files_to_read

    return files_to_read(spark, config, fmt, run_date)
