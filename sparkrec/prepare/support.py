"""Items and users with too few events leave, until none is left that has too few."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from sparkrec.prepare.numbering import cut_and_count, cut_lineage
from sparkrec.settings.sections import SupportConfig
from sparkrec.warehouse.tables import ITEM_IDX, N_EVENTS, USER_IDX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

WEAK, OF_USER = "weak", "of_user"


@dataclass(frozen=True)
class SupportReport:
    """What the filter removed: rows, and the items and users that have none left. ``rounds`` removed something.

    ``rows``, ``items`` and ``users`` are those that there were before, ``most_of_a_user`` the most events of one.
    """

    rounds: int = 0
    rows_removed: int = 0
    items_removed: int = 0
    users_removed: int = 0
    rows: int = 0
    items: int = 0
    users: int = 0
    most_of_a_user: int = field(default=0, compare=False)

    @property
    def much(self) -> bool:
        """Whether it is more than the rare item that thresholds are for: half of the items, or a tenth of the rest."""
        shares = (10 * self.rows_removed > self.rows, 10 * self.users_removed > self.users)
        return self.rounds > 0 and (2 * self.items_removed > self.items or any(shares))

    def said(self, config: SupportConfig) -> str:
        """A sentence of what was removed, and by which thresholds; empty where nothing was."""
        if not self.rounds:
            return ""
        pairs = (
            (self.items_removed, self.items, "items"),
            (self.users_removed, self.users, "users"),
            (self.rows_removed, self.rows, "rows"),
        )
        parts = [f"{n:,} of {of:,} {what} ({n / of:.1%})" for n, of, what in pairs if n]
        least = f"min_item_events={config.min_item_events}, min_user_events={config.min_user_events}"
        return f"{', '.join(parts)} by prepare.support ({least})"


@dataclass(frozen=True)
class _State:
    rows: int
    items: int
    users: int
    most: int  # events of one user
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
    kept, states, weak = interactions, [], None
    while True:
        counts, state = _event_counts(kept, config)
        states.append(state)
        if not state.weak:
            return kept, _report(states)
        found = counts.where(WEAK).select(ITEM_IDX, USER_IDX, OF_USER)
        weak = cut_lineage(found if weak is None else weak.union(found))
        kept = interactions.join(weak.where(~F.col(OF_USER)).select(ITEM_IDX), on=ITEM_IDX, how="left_anti")
        kept = kept.join(weak.where(OF_USER).select(USER_IDX), on=USER_IDX, how="left_anti")
        kept = kept.select(*interactions.columns)


def _event_counts(rows: DataFrame, config: SupportConfig) -> tuple[DataFrame, _State]:
    """A row for each item, and one for each user (``of_user``), with its events: one pass over the rows."""
    sets = rows.select(ITEM_IDX, USER_IDX).groupingSets([[ITEM_IDX], [USER_IDX]], ITEM_IDX, USER_IDX)
    of_user = (F.grouping(ITEM_IDX) == 1).alias(OF_USER)
    counts = sets.agg(F.count(F.lit(1)).alias(N_EVENTS), of_user)
    counts = counts.where(~F.col(OF_USER) | F.col(USER_IDX).isNotNull())
    least = F.when(F.col(OF_USER), config.min_user_events).otherwise(config.min_item_events)
    kept, found = cut_and_count(
        counts.withColumn(WEAK, F.col(N_EVENTS) < least),
        rows=F.sum(F.when(~F.col(OF_USER), F.col(N_EVENTS))),
        items=F.count_if(~F.col(OF_USER)),
        users=F.count_if(OF_USER),
        most=F.coalesce(F.max(F.when(F.col(OF_USER), F.col(N_EVENTS))), F.lit(0)),
        weak=F.count_if(WEAK),
    )
    return kept, _State(**found)


def _report(states: list[_State]) -> SupportReport:
    first, last = states[0], states[-1]
    return SupportReport(
        rounds=len(states) - 1,
        rows_removed=first.rows - last.rows,
        items_removed=first.items - last.items,
        users_removed=first.users - last.users,
        rows=first.rows,
        items=first.items,
        users=first.users,
        most_of_a_user=first.most,
    )
