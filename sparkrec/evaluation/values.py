"""What an evaluation returns."""

from __future__ import annotations

from dataclasses import dataclass

USERS_SPLIT, SESSIONS_SPLIT, RATINGS_SPLIT = "holdout_users", "holdout_sessions", "holdout_ratings"
RECENT = "popularity_recent"  # the baseline that the gate holds models against


@dataclass(frozen=True)
class MetricValue:
    """A metric: its name, the list length that it is for (None: none), its value, and how many were judged."""

    metric: str
    k: int | None
    value: float
    n: int
