"""Users with more events on a day than a person has: crawlers, tests, a counter's own account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from sparkrec.prepare.cut import day_of
from sparkrec.prepare.numbering import cut_lineage
from sparkrec.warehouse.tables import ID, IDX, N_EVENTS, TS, USER_ID, USER_IDX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

SUSPECT = 0.05  # of all events, by one user, from which on a night says so though no bound is set
_SHOWN = 5


@dataclass(frozen=True)
class Crawlers:
    """Users who were left out: how many, all their events, and those with the most."""

    users: int = 0
    events: int = 0
    examples: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        """A sentence; empty where nobody was."""
        if not self.users:
            return ""
        rest = ", …" if self.users > len(self.examples) else ""
        return (
            f"{self.events:,} events of {self.users:,} users by prepare.max_user_events_per_day: "
            f"{', '.join(self.examples)}{rest}"
        )


def without_crawlers(events: DataFrame, most: int | None, zone: str | None = None) -> tuple[DataFrame, Crawlers]:
    """The events without those of users who had more than ``most`` on any day; anonymous events stay.

    Args:
        events: The columns of ``tables.EVENTS``, with ``user_id`` and ``ts``.
        most: Events of a user on a day; None: all stay, and nothing is counted.
        zone: Whose days; None: UTC.

    Returns:
        The events that stay, with the same columns, and who was left out.
    """
    if most is None:
        return events, Crawlers()
    daily = events.where(F.col(USER_ID).isNotNull()).groupBy(USER_ID, day_of(TS, zone).alias("day"))
    counted = daily.agg(F.count(F.lit(1)).alias("n")).groupBy(USER_ID)
    busy = counted.agg(F.max("n").alias("most"), F.sum("n").alias(N_EVENTS)).where(F.col("most") > most)
    busy = cut_lineage(busy)
    totals = busy.agg(F.count(F.lit(1)), F.coalesce(F.sum(N_EVENTS), F.lit(0))).head()
    assert totals is not None  # an aggregate without groups has one row
    if not totals[0]:
        return events, Crawlers()
    names = [row[USER_ID] for row in busy.orderBy(F.desc(N_EVENTS), USER_ID).limit(_SHOWN).collect()]
    kept = events.join(busy.select(USER_ID), USER_ID, "left_anti").select(*events.columns)
    return kept, Crawlers(int(totals[0]), int(totals[1]), tuple(names))


def suspect(interactions: DataFrame, user_index: DataFrame) -> str:
    """Who has the most events, in words, for a warning.

    Args:
        interactions: The columns of ``tables.INTERACTIONS``.
        user_index: ``id`` and ``idx`` of users.
    """
    counts = interactions.where(F.col(USER_IDX).isNotNull()).groupBy(USER_IDX).agg(F.count(F.lit(1)).alias(N_EVENTS))
    top = counts.orderBy(F.desc(N_EVENTS), USER_IDX).limit(1)
    row = top.join(user_index, F.col(USER_IDX) == F.col(IDX), "inner").select(ID, N_EVENTS).head()
    return "" if row is None else f"user {row[0]} has {row[1]:,} events"
