"""What an evaluation returns."""

from __future__ import annotations

from dataclasses import dataclass

from sparkrec.models import MODELS
from sparkrec.models.model import Lists

# Lists without what a user has, judged on what is new to the user.
USERS_SPLIT, SESSIONS_SPLIT, BASKETS_SPLIT = "holdout_users", "holdout_sessions", "holdout_baskets"
# Lists may hold what a user has, and what is taken again counts.
USERS_AGAIN_SPLIT, SESSIONS_AGAIN_SPLIT, BASKETS_AGAIN_SPLIT = (
    f"{split}_with_taken" for split in (USERS_SPLIT, SESSIONS_SPLIT, BASKETS_SPLIT)
)
RATINGS_SPLIT = "holdout_ratings"
NOT_JUDGED = "not_judged"  # in place of all metrics where too little is held out; its value: the pairs that are
RATING_MEAN, RATING_BIASES = "rating_mean", "rating_biases"  # baselines of predicted ratings
RECENT = "popularity_recent"  # the baseline that the gate holds models against


def split_of(model: str, recommend_seen: bool) -> str:
    """The hold-out that a model's lists are judged on as they are published.

    Args:
        model: The model; what goes with an item is the same for everybody, whatever a user has.
        recommend_seen: Whether lists may hold what a user has taken already, as the log's format says.
    """
    splits = {
        Lists.USERS: (USERS_SPLIT, USERS_AGAIN_SPLIT),
        Lists.SESSIONS: (SESSIONS_SPLIT, SESSIONS_AGAIN_SPLIT),
        Lists.BASKETS: (BASKETS_SPLIT, BASKETS_AGAIN_SPLIT),
        Lists.ITEMS: (BASKETS_AGAIN_SPLIT, BASKETS_AGAIN_SPLIT),
    }
    return splits[MODELS[model].lists][recommend_seen]


@dataclass(frozen=True)
class MetricValue:
    """A metric: its name, the list length that it is for (None: none), its value, and how many were judged.

    ``low`` and ``high`` are the ends of its 95 % confidence interval by bootstrap over users, where it was made.
    """

    metric: str
    k: int | None
    value: float
    n: int
    low: float | None = None
    high: float | None = None
