"""The cut of a night: what it knows, and when."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from sparkrec.warehouse.tables import EVENT_DATE, TS
from sparkrec.zones import zone_of

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def as_of(run_date: date, zone: str | None = None) -> datetime:
    """00:00 of the day after ``run_date`` in a zone (None: UTC), as UTC: the night knows what happened before it."""
    return datetime.combine(run_date + timedelta(days=1), time.min, zone_of(zone)).astimezone(UTC)


def until(events: DataFrame, run_date: date, zone: str | None = None) -> DataFrame:
    """The events up to the end of ``run_date`` in a zone; files that begin later are not read."""
    if zone is None:
        return events.where(F.col(EVENT_DATE) <= F.lit(run_date))
    end = as_of(run_date, zone)
    return events.where((F.col(EVENT_DATE) <= F.lit(end.date())) & (F.col(TS) < utc(end)))


def day_of(ts: Column | str, zone: str | None = None) -> Column:
    """The date of a timestamp in a zone; None: UTC."""
    return F.to_date(ts if zone is None else F.from_utc_timestamp(ts, zone))


def micros(moment: datetime) -> int:
    """Microseconds since 1970-01-01 UTC; a time without a zone is taken as UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - EPOCH) // timedelta(microseconds=1)


def utc(moment: datetime) -> Column:
    """A timestamp literal that does not depend on the time zone of machine or session."""
    return F.timestamp_micros(F.lit(micros(moment)))
