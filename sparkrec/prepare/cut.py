"""The cut of a night: what it knows, and when."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from sparkrec.tables import EVENT_DATE

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def as_of(run_date: date) -> datetime:
    """00:00 UTC of the day after ``run_date``: the night knows what happened before it."""
    return datetime.combine(run_date + timedelta(days=1), datetime.min.time(), UTC)


def until(events: DataFrame, run_date: date) -> DataFrame:
    """The events up to the end of ``run_date`` in UTC; files that begin later are not read."""
    return events.where(F.col(EVENT_DATE) <= F.lit(run_date))


def micros(moment: datetime) -> int:
    """Microseconds since 1970-01-01 UTC; a time without a zone is taken as UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - EPOCH) // timedelta(microseconds=1)


def utc(moment: datetime) -> Column:
    """A timestamp literal that does not depend on the time zone of machine or session."""
    return F.timestamp_micros(F.lit(micros(moment)))
