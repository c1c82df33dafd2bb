"""What the events of a sample say of the log: who and what is in it, since when, and what is strange about it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

from sparkrec.look.columns import bounds, mean, share
from sparkrec.look.events import REASON
from sparkrec.look.together import Recalls, recalls

if TYPE_CHECKING:
    import polars as pl

CRAWLER_SHARE = 0.05  # of all events, by one user, from which on it is named
CRAWLER_EVENTS_PER_DAY = 500
GAP = timedelta(minutes=30)  # as prepare.sessions.gap_minutes


@dataclass(frozen=True)
class Facts:
    """Counts of the sample's events.

    Attributes:
        n: Rows.
        refused: Rows by the reason why they would be refused.
        duplicates: Rows equal to another in all that becomes an event.
        first, last: Days of the first and the last event.
        days: Events by day.
        users, items: How many.
        anonymous: Share of the events without a user.
        per_user: Mean events of a user.
        repeats: Share of the events in which a user takes an item again.
        types: Events by type.
        session_length, basket_items: Mean length of the sessions (by their id, else by gaps of half an hour), mean
            distinct items of the baskets (by their id, else by a user's day) of purchases.
        multi_baskets: Share of the baskets with two items and more.
        crawlers: Users with more events than a person, with their share of all.
        ratings: The least and greatest value, and how many different.
        midnight: Share of the events at exactly midnight: the log knows days only.
        session_recalls, basket_recalls: What says more of the next item, what stood together or what is popular: see
            ``together.recalls``.
    """

    n: int
    refused: dict[str, int]
    duplicates: int
    first: date | None
    last: date | None
    days: dict[date, int]
    users: int
    items: int
    anonymous: float
    per_user: float
    repeats: float
    types: dict[str, int]
    session_length: float
    basket_items: float
    multi_baskets: float
    crawlers: dict[str, float]
    ratings: tuple[float, float, int] | None
    midnight: float
    session_recalls: Recalls | None
    basket_recalls: Recalls | None


def facts_of(judged: pl.DataFrame, raw: pl.DataFrame, purchases: Collection[str]) -> Facts:
    """The counts.

    Args:
        judged: Events of a sample, as ``events.as_events`` makes them.
        raw: The same rows with all that becomes part of an event.
        purchases: Event types that make baskets.
    """
    import polars as pl

    refused = judged[REASON].drop_nulls().value_counts(sort=True)
    events = judged.filter(pl.col(REASON).is_null())
    n, known = events.height, events.filter(pl.col("user").is_not_null())
    days = events.group_by(pl.col("ts").dt.date().alias("day")).len().sort("day")
    pairs = known.select("user", "item").n_unique()
    by_user = known.group_by("user").agg(
        pl.len().alias("n"), pl.col("ts").dt.date().n_unique().alias("days")
    )  # fmt: skip
    busy = by_user.filter(
        (pl.col("n") / pl.col("days") > CRAWLER_EVENTS_PER_DAY) | (pl.col("n") > max(200, CRAWLER_SHARE * n))
    ).sort("n", descending=True)  # fmt: skip
    values = events["value"].drop_nulls()
    by = [(day, count) for day, count in days.iter_rows()]
    at_midnight = events.select((pl.col("ts").dt.time() == pl.time(0, 0, 0)).mean()).item() or 0.0
    sessions, baskets = _sessions(events), _baskets(events, purchases)
    lengths = sessions.group_by("group").len()["len"]
    sizes = baskets.group_by("group").agg(pl.col("item").n_unique().alias("n"))["n"]
    return Facts(
        n=judged.height,
        refused=dict(refused.iter_rows()),
        duplicates=raw.height - raw.unique().height,
        first=by[0][0] if by else None,
        last=by[-1][0] if by else None,
        days=dict(by),
        users=known["user"].n_unique(),
        items=events["item"].n_unique(),
        anonymous=1 - known.height / max(1, n),
        per_user=known.height / max(1, known["user"].n_unique()),
        repeats=1 - pairs / max(1, known.height),
        types=dict(events["event_type"].value_counts(sort=True).iter_rows()),
        session_length=mean(lengths),
        basket_items=mean(sizes),
        multi_baskets=share(sizes > 1),
        crawlers={user: count / max(1, n) for user, count, _ in busy.head(5).iter_rows()},
        ratings=(*bounds(values), values.n_unique()) if values.len() else None,
        midnight=float(at_midnight),
        session_recalls=recalls(sessions),
        basket_recalls=recalls(baskets),
    )


def last_whole_day(days: dict[date, int]) -> date | None:
    """The last day of the log that is no stray: with a tenth of a usual day's events at least, of those near its end.

    A log that ends at noon has a short last day; a wrong clock gives events years after the others.
    """
    if not days:
        return None
    order, total = sorted(days), sum(days.values())
    late, seen = order[-1], 0
    for day in reversed(order):  # the last thousandth may be strays
        seen += days[day]
        if seen > total / 1000:
            late = day
            break
    near = [day for day in order if day <= late + timedelta(days=7)][-28:]
    usual = sorted(days[day] for day in near)[len(near) // 2]
    return next((day for day in reversed(near) if days[day] >= usual / 10), near[-1])


def _sessions(events: pl.DataFrame) -> pl.DataFrame:
    """``group``, ``item``, ``ts`` of the sessions' events: by their id, else a user's without a gap."""
    import polars as pl

    if events["session"].null_count() < events.height:
        return events.drop_nulls("session").select(pl.col("session").alias("group"), "item", "ts")
    known = events.drop_nulls("user").sort("user", "ts", maintain_order=True)
    begins = (pl.col("user") != pl.col("user").shift()) | (pl.col("ts").diff() > GAP)
    return known.select(begins.fill_null(value=True).cum_sum().alias("group"), "item", "ts")


def _baskets(events: pl.DataFrame, purchases: Collection[str]) -> pl.DataFrame:
    """``group``, ``item``, ``ts`` of the purchases: by their basket's id, else those of a user's day."""
    import polars as pl

    bought = events.filter(pl.col("event_type").is_in(list(purchases)))
    if bought["basket"].null_count() < bought.height:
        return bought.drop_nulls("basket").select(pl.col("basket").alias("group"), "item", "ts")
    known = bought.drop_nulls("user")
    return known.select(pl.concat_str("user", pl.col("ts").dt.date(), separator=" ").alias("group"), "item", "ts")
