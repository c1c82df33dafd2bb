"""Whose session or basket an event belongs to, and what it is called: shared by sessions and baskets.

A group is either the log's own (it carries an id of the log) or cut by time from the events of a known user.

Ids are unique by construction. ``<user_idx>-<microseconds of its first event since 1970>#<piece>`` is a group cut by
time. A group of the log keeps the log's id as it is; its further pieces, the parts of its further users, and all
groups of ids that hold a ``#`` themselves end in ``#p<piece>``, then ``u<user_idx>`` for a further user. No id
changes when later events arrive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import Window
from pyspark.sql import functions as F

from sparkrec.warehouse.tables import EVENT_ORDER, ITEM_IDX, TS, USER_IDX

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, WindowSpec

LOG_ID, HOME, OWNER, FIRST_OWNER = "log_id", "home", "owner", "first_owner"


def in_order() -> list[Column]:
    """What events are ordered by: the time, the log's own order, and then a draw that is the same in each run.

    Events of one time and without an order of the log's have none. That of the item numbers would be a false one:
    numbers are given in order of the ids, in which products of one kind often follow each other, and whoever guesses
    the next number would look clever.
    """
    return [F.col(TS), F.col(EVENT_ORDER), F.xxhash64(F.unix_micros(TS), F.col(ITEM_IDX)), F.col(ITEM_IDX)]


def with_owner(events: DataFrame, log_id: str | None) -> DataFrame:
    """Adds the columns that groups are made of; events with neither a user nor a log id are left out.

    A group of the log that names several users becomes one group for each of them, as two people never share one
    (and some logs number the sessions of each user from 1). Its anonymous events go to the user named last before
    them, or else to the one named next: who logs in has been there before.

    Args:
        events: ``user_idx`` int, ``item_idx`` int, ``ts`` timestamp, ``event_order`` bigint and others.
        log_id: The column with the log's own id, or None to cut by time alone.

    Returns:
        ``events`` with ``owner`` int; with a log id also three columns, of which groups are made by

        | event              | log_id | home     | owner                                | first_owner           |
        |--------------------|--------|----------|--------------------------------------|-----------------------|
        | of a group's id    | the id | null     | its user; see above where it has     | whether that is the   |
        |                    |        |          | none; null: the group has no user    | first of the group    |
        | without one, known | null   | its user | its user                             | true                  |

        ``home`` is there so that the events without an id are spread by user, not all of them one window.
    """
    if log_id is None:
        return events.where(F.col(USER_IDX).isNotNull()).withColumn(OWNER, F.col(USER_IDX))
    named = events.withColumn(LOG_ID, F.col(log_id)).withColumn(HOME, F.when(F.col(log_id).isNull(), F.col(USER_IDX)))
    named = named.where(F.col(LOG_ID).isNotNull() | F.col(HOME).isNotNull())
    group = Window.partitionBy(LOG_ID, HOME).orderBy(*in_order(), USER_IDX)
    latest = F.last(USER_IDX, ignorenulls=True).over(so_far(group))
    everything = group.rowsBetween(Window.unboundedPreceding, Window.unboundedFollowing)
    earliest = F.first(USER_IDX, ignorenulls=True).over(everything)
    owner = F.coalesce(latest, earliest)
    return named.withColumns({OWNER: owner, FIRST_OWNER: owner.eqNullSafe(earliest)})


def keys(log_id: str | None) -> list[str]:
    """The columns that separate owners and log ids; the windows of one owner cut by time are inside of them."""
    return [OWNER] if log_id is None else [LOG_ID, HOME, OWNER]


def id_keys(log_id: str | None) -> list[str]:
    """The columns that :func:`group_id` needs besides the start, constant within :func:`keys`."""
    return [] if log_id is None else [FIRST_OWNER]


def by_time(log_id: str | None) -> Column:
    """Whether an event's group is cut by time."""
    return F.lit(True) if log_id is None else F.col(LOG_ID).isNull()


def group_id(log_id: str | None, start: Column, piece: Column) -> Column:
    """The id (string) of a group with the time of its first event and its piece (0, 1, …)."""
    number = piece.cast("string")
    timed = F.concat(F.col(OWNER).cast("string"), F.lit("-"), F.unix_micros(start).cast("string"), F.lit("#"), number)
    if log_id is None:
        return timed
    plain = (piece == 0) & F.col(FIRST_OWNER) & ~F.contains(F.col(LOG_ID), F.lit("#"))
    user = F.when(F.col(FIRST_OWNER), F.lit("")).otherwise(F.concat(F.lit("u"), F.col(OWNER).cast("string")))
    longer = F.concat(F.col(LOG_ID), F.lit("#p"), number, user)
    return F.when(F.col(LOG_ID).isNull(), timed).when(plain, F.col(LOG_ID)).otherwise(longer)


def so_far(window: WindowSpec) -> WindowSpec:
    """The rows up to the current one; rows with equal times are not taken together."""
    return window.rowsBetween(Window.unboundedPreceding, Window.currentRow)
