"""Settings of the model, with what they may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional

from sparkrec.settings.setting import POSITIVE, setting


@dataclass(frozen=True)
class ContentConfig:
    """Content-based lists: items like those that the user took, by their vectors."""

    vectors: List[str] = setting([], "names of vectors in item_vectors, e.g. [text_tfidf]; []: all there are")
    half_life_days: Optional[float] = setting(
        30.0,
        "days in which the weight of an event in the user's profile halves; null: never",
        POSITIVE,
        tried=(7.0, 30.0, None),
    )
