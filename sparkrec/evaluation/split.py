"""The temporal hold-out: what came before the cutoff trains, what came from then on is the truth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from sparkrec.errors import InvariantError, NothingToTrain, UserError
from sparkrec.evaluation.ranking import SEGMENTS
from sparkrec.log import log_event
from sparkrec.prepare.cut import EPOCH, utc
from sparkrec.prepare.weights import counted
from sparkrec.retrieval.topk import SEEN
from sparkrec.settings.sections import EvaluationConfig
from sparkrec.warehouse.tables import (
    COLD_ITEMS,
    COLD_USERS,
    FREQUENT_ITEMS,
    FREQUENT_USERS,
    ITEM_IDX,
    ITEMS,
    SESSION_ID,
    TS,
    USER_IDX,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

BUCKETS = 4096  # of one pass of the quantile search


def resolve_cutoff(df: DataFrame, ts_column: str, config: EvaluationConfig, as_of: datetime) -> datetime:
    """The time from which on events (or sessions, by their start) are held out, UTC.

    Of ``cutoff``, ``holdout_quantile`` and ``holdout_days`` before ``as_of`` the first that is set counts.

    Raises:
        UserError: The cutoff cannot be read, is not before ``as_of``, or there is nothing to take a quantile of.
    """
    declared = declared_cutoff(config, as_of)
    if declared is not None:
        return declared
    q = config.holdout_quantile
    if q is None:
        raise InvariantError("neither a declared cutoff nor a quantile")
    return _before(exact_quantile(df, ts_column, q), f"evaluation.holdout_quantile={q}", as_of)


def declared_cutoff(config: EvaluationConfig, as_of: datetime) -> datetime | None:
    """The cutoff as far as the settings alone tell it; None where it is a quantile of the data.

    Raises:
        UserError: It cannot be read, or is not before ``as_of``.
    """
    if config.cutoff is not None:
        return _before(_parse(config.cutoff), f"evaluation.cutoff={config.cutoff}", as_of)
    if config.holdout_quantile is not None:
        return None
    days = config.holdout_days
    return _before(as_of - timedelta(days=days), f"evaluation.holdout_days={days}", as_of)


def _before(cutoff: datetime, where: str, as_of: datetime) -> datetime:
    if cutoff >= as_of:
        raise UserError("the hold-out is empty", where=where, fix=f"it must begin before {as_of.isoformat()}")
    return cutoff


def _parse(text: str) -> datetime:
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise UserError(
            "cutoff is not a timestamp", where=f"evaluation.cutoff={text}", fix="e.g. 2011-11-09 or 2011-11-09T12:00:00"
        ) from error
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def exact_quantile(df: DataFrame, ts_column: str, q: float) -> datetime:
    """The ``⌈q (n - 1)⌉``-th smallest timestamp, counted from 0.

    "Before it" selects the same rows as "before the linearly interpolated quantile". Found exactly by passes that
    count ``BUCKETS`` intervals each and go on in the one that holds it, so nothing is sorted or collected.

    Raises:
        UserError: ``q`` is not within 0 … 1, or there is no row.
    """
    import pyspark.sql.functions as F

    if not 0 <= q <= 1:
        raise UserError("quantile must be within 0 and 1", where=f"evaluation.holdout_quantile={q}")
    times = df.select(F.unix_micros(ts_column).alias("t")).dropna()
    low, high, n = times.agg(F.min("t"), F.max("t"), F.count("*")).first()  # type: ignore[misc]
    if not n:
        raise NothingToTrain("no events to split", where=ts_column, fix="check the log and its event weights")
    index = math.ceil(q * (n - 1) - 1e-9)
    while low < high:
        width = (high - low) // BUCKETS + 1
        bucket = F.expr(f"(t - {low}L) div {width}L").alias("bucket")
        counts = times.where(F.col("t").between(low, high)).groupBy(bucket).count().collect()
        for row in sorted(counts):
            if index < row["count"]:
                low, high = low + row["bucket"] * width, min(high, low + (row["bucket"] + 1) * width - 1)
                break
            index -= row["count"]
    return EPOCH + timedelta(microseconds=low)


class Holdout(NamedTuple):
    """What users are judged on.

    Attributes:
        pairs: ``(user_idx int, item_idx int, segments array<string>)``, distinct, with the splits that they belong to
            besides the whole: of cold or frequent users and of cold or frequent items.
        users: How many users they are of.
        n_pairs: How many there are.
        again: ``(user_idx int, item_idx int)``: the pairs, and those of what a user had taken before and took again;
            None where nobody asked.
        again_users: How many users these are of.
        n_again: How many there are.
        kept: What is persisted, to be unpersisted by the caller.
    """

    pairs: DataFrame
    users: int
    n_pairs: int
    kept: DataFrame
    again: DataFrame | None = None
    again_users: int = 0
    n_again: int = 0


def holdout_users(
    interactions: DataFrame,
    cutoff: datetime,
    as_of: datetime,
    event_weights: Mapping[str, float],
    cold_below: int = 0,
    again: bool = False,
) -> Holdout:
    """The items that each user first took from ``cutoff`` on.

    Events with a positive weight of a known user count. Only users and items that were taken before the cutoff
    are judged; the pairs that this leaves out are counted in the log.

    Args:
        interactions: In the columns of ``tables.INTERACTIONS``.
        cutoff: UTC.
        as_of: UTC; what happened from then on does not count.
        event_weights: Weight of each event type.
        cold_below: Users who took fewer items before the cutoff are cold, and so are items with fewer users then.
        again: Whether what was taken again is wanted, too.
    """
    import pyspark.sql.functions as F

    relevant = (F.col(TS) < utc(as_of)) & F.col(USER_IDX).isNotNull()
    times = (F.min(TS).alias(TS), F.max(TS).alias("last")) if again else (F.min(TS).alias(TS),)
    pairs = counted(interactions, event_weights).where(relevant).groupBy(USER_IDX, ITEM_IDX).agg(*times)
    before = F.col(TS) < utc(cutoff)
    later = pairs.where(F.col("last") >= utc(cutoff)) if again else pairs.where(~before)
    new = later.select(USER_IDX, ITEM_IDX, (~before).alias("new"))
    known_users = pairs.where(before).groupBy(USER_IDX).agg(F.count("*").alias("user_items"))
    known_items = pairs.where(before).groupBy(ITEM_IDX).agg(F.count("*").alias("item_users"))
    flagged = new.join(known_users, USER_IDX, "left").join(known_items, ITEM_IDX, "left").persist()
    known_user, known_item = F.col("user_items").isNotNull(), F.col("item_users").isNotNull()
    segments = F.array(
        F.when(F.col("user_items") < cold_below, COLD_USERS).otherwise(FREQUENT_USERS),
        F.when(F.col("item_users") < cold_below, COLD_ITEMS).otherwise(FREQUENT_ITEMS),
    )
    known, judged = known_user & known_item, known_user & known_item & F.col("new")
    wider = (F.count_distinct(F.when(known, F.col(USER_IDX))).alias("again_users"), F.count_if(known).alias("n_again"))
    row = flagged.agg(
        F.count_distinct(F.when(judged, F.col(USER_IDX))).alias("users"),
        F.count_if("new").alias("new_pairs"),
        F.count_if(judged).alias("judged_pairs"),
        F.count_if(~known_user).alias("pairs_of_new_users"),
        F.count_if(known_user & ~known_item).alias("pairs_of_new_items"),
        *(wider if again else ()),
    ).first()
    counts = row.asDict()  # type: ignore[union-attr]  # an aggregate without groups has one row
    log_event("holdout_users", cutoff=cutoff.isoformat(), **counts)
    truth = flagged.where(judged).select(USER_IDX, ITEM_IDX, segments.alias(SEGMENTS))
    found = Holdout(truth, counts["users"], counts["judged_pairs"], flagged)
    if not again:
        return found
    wide = flagged.where(known).select(USER_IDX, ITEM_IDX)
    return found._replace(again=wide, again_users=counts["again_users"], n_again=counts["n_again"])


def known_items_only(sessions: DataFrame, catalogue: DataFrame) -> DataFrame:
    """Test sessions as they are judged: items outside of the catalogue taken out, then those shorter than 2.

    Args:
        sessions: ``(session_id string, items array<int>)`` and others, of which ``seen`` and ``user_idx`` are kept.
        catalogue: ``(item_idx int)``, distinct: the items trained on.

    Returns:
        ``(session_id string, items array<int>[, seen array<int>][, user_idx int])``, items in their order.
    """
    import pyspark.sql.functions as F

    events = sessions.select(SESSION_ID, F.posexplode(ITEMS).alias("position", ITEM_IDX))
    kept = events.join(catalogue, ITEM_IDX, "left_semi")
    ordered = F.array_sort(F.collect_list(F.struct("position", ITEM_IDX)))
    whole = kept.groupBy(SESSION_ID).agg(F.transform(ordered, lambda event: event[ITEM_IDX]).alias(ITEMS))
    whole = whole.where(F.size(ITEMS) >= 2)
    also = [name for name in (SEEN, USER_IDX) if name in sessions.columns]
    return whole.join(sessions.select(SESSION_ID, *also), SESSION_ID, "left") if also else whole
