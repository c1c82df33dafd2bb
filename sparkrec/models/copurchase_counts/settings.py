"""Settings of the model, with what they may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from sparkrec.settings.setting import COUNT, POSITIVE, setting


@dataclass(frozen=True)
class CopurchaseCountsConfig:
    """What stands close to each other in baskets or sessions, by count."""

    sequences: str = setting(
        "copurchase", "what is counted in: copurchase (baskets) | sessions", choices=["copurchase", "sessions"]
    )
    within: int = setting(3, "items that are so many places apart are a pair, at most", COUNT, tried=(1, 3, 10))
    score: str = setting(
        "count", "of a pair: count | cosine | lift", choices=["count", "cosine", "lift"], tried=("count", "cosine")
    )
    min_count: int = setting(1, "pairs that stand together in fewer baskets are left out", COUNT)
    neighbours: int = setting(300, "kept of each item", COUNT)
    half_life_days: Optional[float] = setting(
        30.0, "hybrid: days in which the weight of a user's event halves in what is proposed; null: never", POSITIVE
    )
