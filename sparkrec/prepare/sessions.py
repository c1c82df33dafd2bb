"""Sessions: the events of a user in order, cut by inactivity or by the log's own session id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyspark.sql import Window
from pyspark.sql import functions as F

from sparkrec.prepare.counts import Counts, observed
from sparkrec.prepare.cut import day_of
from sparkrec.prepare.grouping import OWNER, by_time, group_id, id_keys, in_order, keys, so_far, with_owner
from sparkrec.settings.sections import SessionsConfig
from sparkrec.warehouse.tables import (
    END_TS,
    EVENT_ORDER,
    EVENT_TS,
    EVENT_TYPE,
    EVENT_TYPE_IDX,
    EVENT_TYPES,
    ITEM_IDX,
    ITEMS,
    LOG_SESSION_ID,
    SESSION_ID,
    SESSIONS,
    START_DATE,
    START_TS,
    TS,
    USER_IDX,
)

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

MICROS_PER_MINUTE = 60_000_000
_VISIT = (TS, EVENT_ORDER, "drawn", ITEM_IDX, EVENT_TYPE_IDX)  # what _in_order() gives
NEW, REPEAT, BEGAN, KEPT, PIECE, REPEATS = "new", "repeat", "began", "kept", "piece", "repeats"


def sessions(
    interactions: DataFrame,
    config: SessionsConfig,
    event_types: Sequence[str],
    counts: Counts | None = None,
    zone: str | None = None,
) -> DataFrame:
    """Builds the sessions of the events of the given types.

    ``by=gap``: an event more than ``gap_minutes`` after its user's previous one begins a session; anonymous events
    are left out. ``by=session_id``: the log's own sessions, one for each of their users (see
    :func:`sparkrec.prepare.grouping.with_owner`); events without an id fall back to the gap.

    Events are in order of time (:func:`sparkrec.prepare.grouping.in_order`). Immediate repeats of an item become its
    first event, of whatever types they are (``collapse_repeats``); what is left is split into pieces of ``max_length``;
    pieces shorter than ``min_length`` are left out. No array is ever longer than ``max_length``, whatever a user did.

    Args:
        interactions: The columns of ``tables.INTERACTIONS``.
        config: How to cut.
        event_types: Types that make sessions; others do not interrupt them.
        counts: Counts ``events`` = ``anonymous`` + ``repeats`` + ``short_events`` + ``session_events``, and
            ``sessions`` and ``short_sessions``.
        zone: The time zone of their ``start_date``; None: UTC.

    Returns:
        The columns of ``tables.SESSIONS``; arrays are of equal length and in order of time.
    """
    log_id = LOG_SESSION_ID if config.by == "session_id" else None
    events = interactions.where(F.col(EVENT_TYPE).isin(*event_types))
    events = events.select(USER_IDX, ITEM_IDX, TS, EVENT_ORDER, LOG_SESSION_ID, EVENT_TYPE_IDX)
    nobodys = F.col(USER_IDX).isNull() & (F.lit(True) if log_id is None else F.col(LOG_SESSION_ID).isNull())
    events = observed(events, counts, events=F.count(F.lit(1)), anonymous=F.count_if(nobodys))
    pieces = _collect(_cut(with_owner(events, log_id), config, log_id), log_id, zone)
    long_enough = F.size(ITEMS) >= config.min_length
    pieces = observed(
        pieces,
        counts,
        repeats=F.sum(REPEATS),
        short_sessions=F.count_if(~long_enough),
        short_events=F.sum(F.when(~long_enough, F.size(ITEMS))),
        sessions=F.count_if(long_enough),
        session_events=F.sum(F.when(long_enough, F.size(ITEMS))),
    )
    return pieces.where(long_enough).select(*SESSIONS.column_names)


def _cut(events: DataFrame, config: SessionsConfig, log_id: str | None) -> DataFrame:
    """Adds to each event when its session began, its piece, and whether it repeats the one before.

    All windows share one order, so each user's events are shuffled and sorted once. Of items a a b c | d, with a pause
    at the bar and ``max_length`` 2:

    | item   | a | a | b | c | d |
    |--------|---|---|---|---|---|
    | NEW    | 1 | 0 | 0 | 0 | 1 | a session begins
    | REPEAT | 0 | 1 | 0 | 0 | 0 | collapsed into the event before; the first of a session never is
    | KEPT   | 1 | 1 | 2 | 3 | 4 | events of the user up to here that are no repeats
    | first  | 1 | 1 | 1 | 1 | 4 | KEPT where the session began
    | PIECE  | 0 | 0 | 0 | 1 | 0 | (KEPT - first) // max_length
    """
    ordered = Window.partitionBy(*keys(log_id)).orderBy(*_in_order())
    previous = F.lag(TS).over(ordered)
    pause = F.unix_micros(TS) - F.unix_micros(previous)
    new = previous.isNull() | (by_time(log_id) & (pause > round(config.gap_minutes * MICROS_PER_MINUTE)))
    same = F.lag(ITEM_IDX).over(ordered).eqNullSafe(F.col(ITEM_IDX)) & F.lit(config.collapse_repeats)
    marked = events.withColumns({NEW: new, REPEAT: same}).withColumn(REPEAT, F.col(REPEAT) & ~F.col(NEW))
    marked = marked.withColumns(
        {
            BEGAN: F.last(F.when(F.col(NEW), F.col(TS)), ignorenulls=True).over(so_far(ordered)),
            KEPT: F.count_if(~F.col(REPEAT)).over(so_far(ordered)),
        }
    )
    # A repeat has the number of the event that it repeats, and so goes to its piece.
    first = F.last(F.when(F.col(NEW), F.col(KEPT)), ignorenulls=True).over(so_far(ordered))
    return marked.withColumn(PIECE, F.floor((F.col(KEPT) - first) / F.lit(config.max_length)).cast("int"))


def _collect(events: DataFrame, log_id: str | None, zone: str | None) -> DataFrame:
    """One row for each piece of a session, with its repeats counted."""
    event = F.struct(*(column.alias(name) for name, column in zip(_VISIT, _in_order(), strict=True)))
    visits = F.sort_array(F.collect_list(F.when(~F.col(REPEAT), event)))
    pieces = events.groupBy(*keys(log_id), *id_keys(log_id), BEGAN, PIECE).agg(
        visits.alias("visits"), F.count_if(REPEAT).alias(REPEATS)
    )
    pieces = pieces.withColumns({ITEMS: F.col(f"visits.{ITEM_IDX}"), EVENT_TS: F.col(f"visits.{TS}")})
    start, end = F.element_at(EVENT_TS, 1), F.element_at(EVENT_TS, -1)
    types = F.col(f"visits.{EVENT_TYPE_IDX}")
    return pieces.select(
        group_id(log_id, F.col(BEGAN), F.col(PIECE)).alias(SESSION_ID),
        F.col(OWNER).alias(USER_IDX),
        start.alias(START_TS),
        end.alias(END_TS),
        ITEMS,
        EVENT_TS,
        day_of(start, zone).alias(START_DATE),
        F.when(F.element_at(types, 1).isNotNull(), types).alias(EVENT_TYPES),
        REPEATS,
    )


def _in_order() -> list[Column]:
    """What events are ordered by, and then by their type: which of one item's at one time is the first matters here."""
    return [*in_order(), F.col(EVENT_TYPE_IDX)]
