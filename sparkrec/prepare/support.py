"""Items and users with too few events leave, until none is left that has too few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from sparkrec.config import SupportConfig
from sparkrec.prepare.numbering import cut_lineage
from sparkrec.tables import ITEM_IDX, N_EVENTS, USER_IDX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

WEAK = "weak"


@dataclass(frozen=True)
class SupportReport:
    """What the filter removed: rows, and the items and users that have none left. ``rounds`` removed something."""

    rounds: int = 0
    rows_removed: int = 0
    items_removed: int = 0
    users_removed: int = 0


@dataclass(frozen=True)
class _State:
    rows: int
    items: int
    users: int
    weak: int  # items and users below the threshold


def filter_support(interactions: DataFrame, config: SupportConfig) -> tuple[DataFrame, SupportReport]:
    """Removes items and users with too few events, to the fixed point, which is unique (the core of the graph).

    Each round counts the events of items and of users and removes all that are below their threshold at once.
    Anonymous events (``user_idx`` null) count for their items; no user threshold applies to them.

    Args:
        interactions: ``user_idx`` int, ``item_idx`` int and others. Read in every round, so a stored table is best.
        config: ``min_item_events``, ``min_user_events``; at most 1: no threshold.

    Returns:
        The rows that stay, with the same columns, and what was removed. Without thresholds nothing is read.
    """
    if max(config.min_item_events, config.min_user_events) <= 1:
        return interactions, SupportReport()
    kept, states = interactions, []
    weak_items, weak_users = (interactions.select(c).limit(0) for c in (ITEM_IDX, USER_IDX))
    while True:
        items = _event_counts(kept, ITEM_IDX, config.min_item_events)
        users = _event_counts(kept, USER_IDX, config.min_user_events)
        states.append(_state(items, users))
        if not states[-1].weak:
            return kept, _report(states)
        weak_items = cut_lineage(weak_items.union(items.where(WEAK).select(ITEM_IDX)))
        weak_users = cut_lineage(weak_users.union(users.where(WEAK).select(USER_IDX)))
        kept = interactions.join(weak_items, on=ITEM_IDX, how="left_anti")
        kept = kept.join(weak_users, on=USER_IDX, how="left_anti").select(*interactions.columns)


def _event_counts(rows: DataFrame, column: str, threshold: int) -> DataFrame:
    counts = rows.groupBy(column).agg(F.count(F.lit(1)).alias(N_EVENTS))
    weak = F.col(column).isNotNull() & (F.col(N_EVENTS) < threshold)
    return cut_lineage(counts.withColumn(WEAK, weak))


def _state(items: DataFrame, users: DataFrame) -> _State:
    rows = F.coalesce(F.sum(N_EVENTS), F.lit(0))
    of_items = items.agg(rows, F.count(ITEM_IDX), F.count_if(WEAK)).first()
    of_users = users.agg(F.count(USER_IDX), F.count_if(WEAK)).first()
    assert of_items is not None  # an aggregate without groups has one row
    assert of_users is not None
    return _State(int(of_items[0]), int(of_items[1]), int(of_users[0]), int(of_items[2]) + int(of_users[1]))


def _report(states: list[_State]) -> SupportReport:
    first, last = states[0], states[-1]
    return SupportReport(
        rounds=len(states) - 1,
        rows_removed=first.rows - last.rows,
        items_removed=first.items - last.items,
        users_removed=first.users - last.users,
    )
