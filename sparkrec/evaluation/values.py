"""What an evaluation returns."""

from __future__ import annotations

from dataclasses import dataclass

from sparkrec.models import MODELS
from sparkrec.models.model import Lists

USERS_SPLIT, SESSIONS_SPLIT, RATINGS_SPLIT = "holdout_users", "holdout_sessions", "holdout_ratings"
BASKETS_SPLIT = "holdout_baskets"
AGAIN_SPLIT = "holdout_users_with_taken"  # lists may hold what a user has, and what is taken again counts
NOT_JUDGED = "not_judged"  # in place of all metrics where too little is held out; its value: the pairs that are
RECENT = "popularity_recent"  # the baseline that the gate holds models against

COLD_USERS, FREQUENT_USERS = "holdout_cold_users", "holdout_frequent_users"  # parts of USERS_SPLIT
COLD_ITEMS, FREQUENT_ITEMS = "holdout_cold_items", "holdout_frequent_items"
PARTS = (COLD_USERS, FREQUENT_USERS, COLD_ITEMS, FREQUENT_ITEMS)


def split_of(model: str, recommend_seen: bool) -> str:
    """The hold-out that a model's lists are judged on as they are published.

    Args:
        model: The model.
        recommend_seen: Whether users' lists may hold what a user has taken already, as the log's format says.
    """
    splits = {Lists.USERS: AGAIN_SPLIT if recommend_seen else USERS_SPLIT, Lists.SESSIONS: SESSIONS_SPLIT}
    return splits.get(MODELS[model].lists, BASKETS_SPLIT)


@dataclass(frozen=True)
class MetricValue:
    """A metric: its name, the list length that it is for (None: none), its value, and how many were judged."""

    metric: str
    k: int | None
    value: float
    n: int
