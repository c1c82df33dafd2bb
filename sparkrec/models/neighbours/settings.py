"""Settings of the models, with what they may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from sparkrec.settings.setting import COUNT, NOT_NEGATIVE, POSITIVE, SHARE, setting


@dataclass(frozen=True)
class ItemNeighboursConfig:
    """Item-based collaborative filtering: the items whose users are alike."""

    similarity: str = setting(
        "bm25",
        "of two items' users: cosine | bm25 | tfidf | jaccard",
        choices=["cosine", "bm25", "tfidf", "jaccard"],
        tried=("cosine", "bm25"),
    )
    neighbours: int = setting(500, "kept of each item", COUNT, tried=(50, 100, 500))
    shrinkage: float = setting(0.0, "similarity * n / (n + shrinkage), n: users who took both", NOT_NEGATIVE)
    binary: bool = setting(False, "true: similarities of who took what, not how often or how lately")
    bm25_k1: float = setting(1.2, "bm25: how soon more events stop to count", NOT_NEGATIVE)
    bm25_b: float = setting(0.75, "bm25: how much items with many events weigh less; 0 to 1", SHARE)
    fit_half_life_days: Optional[float] = setting(
        None, "days in which the weight of an event in the similarities halves; null: prepare.user_item's", POSITIVE
    )
    half_life_days: Optional[float] = setting(
        None,
        "days in which the weight of a user's event halves when lists are made; null: never",
        POSITIVE,
        tried=(None, 7.0, 30.0),
    )


@dataclass(frozen=True)
class UserNeighboursConfig:
    """User-based collaborative filtering: the users whose items are alike."""

    similarity: str = setting(
        "bm25", "of two users' items: cosine | bm25 | tfidf | jaccard", choices=["cosine", "bm25", "tfidf", "jaccard"]
    )
    neighbours: int = setting(200, "kept of each user", COUNT, tried=(100, 200, 500))
    shrinkage: float = setting(0.0, "similarity * n / (n + shrinkage), n: items that both took", NOT_NEGATIVE)
    binary: bool = setting(False, "true: similarities of who took what, not how often or how lately")
    bm25_k1: float = setting(1.2, "bm25: how soon more events stop to count", NOT_NEGATIVE)
    bm25_b: float = setting(0.75, "bm25: how much users with many events weigh less; 0 to 1", SHARE)
    fit_half_life_days: Optional[float] = setting(
        None, "days in which the weight of an event in the similarities halves; null: prepare.user_item's", POSITIVE
    )
    half_life_days: Optional[float] = setting(
        14.0,
        "days in which the weight of a neighbour's event halves when lists are made; null: never",
        POSITIVE,
        tried=(7.0, 14.0, 30.0, None),
    )
