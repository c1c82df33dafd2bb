"""Rows of ``events`` and ``quarantine`` that go before the new ones come: by their source, or one by one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec.ingest.dedupe import same_event
from sparkrec.ingest.log_table import LogTable
from sparkrec.ingest.parse import REASON
from sparkrec.ingest.raw import RAW
from sparkrec.settings.formats import LogFormat
from sparkrec.warehouse.tables import EVENT_DATE, SOURCE

KEY = "_key"


def event_key(fmt: LogFormat) -> Column:
    """What is equal of rows that are the same event, as a text; of rows with ``add``, but for the quantity."""
    return same_event(fmt.event_id is not None, fmt.equal_rows == "add")


def refused_key(raw: Column) -> Column:
    """The same of rows in quarantine, by the row as it was written."""
    return F.concat(F.lit("!"), F.sha2(F.coalesce(raw, F.lit("")), 256))


def row_key(fmt: LogFormat) -> Column:
    """The key of a parsed row, valid or not."""
    return F.when(F.col(REASON).isNull(), event_key(fmt)).otherwise(refused_key(F.col(RAW)))


@dataclass(frozen=True)
class Touched:
    """Groups of equal rows of a table that lost some: what is left of them comes again.

    Attributes:
        table: The table; equal rows of other sources stay.
        keys: Their keys.
        fmt: The format, which says what is equal.
        days: The first and the last day of their events; None where that is not known.
        n_events: Events that go.
        n_refused: Rows in quarantine that go.
        all_valid: Whether all of them are events.
    """

    table: LogTable
    keys: DataFrame
    fmt: LogFormat
    days: tuple[date, date] | None
    n_events: int = 0
    n_refused: int = 0
    all_valid: bool = False

    def events(self) -> Column:
        """Which rows of ``events`` they may be among."""
        own = self.table.owns_row(SOURCE)
        return own if self.days is None else own & F.col(EVENT_DATE).between(*self.days)


@dataclass(frozen=True)
class Going:
    """What goes: all rows of some sources, and groups of rows of a table."""

    sources: tuple[str, ...] = ()
    touched: Touched | None = None

    def left(self, events: DataFrame) -> DataFrame:
        """The events that stay."""
        if self.sources:
            events = events.where(~F.col(SOURCE).isin(list(self.sources)))
        if self.touched is None:
            return events
        key = F.when(self.touched.table.owns_row(SOURCE), event_key(self.touched.fmt))  # null, of others, is in no set
        return events.withColumn(KEY, key).join(self.touched.keys, KEY, "left_anti").drop(KEY)
