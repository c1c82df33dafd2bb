"""Settings of the model, with what they may be."""

from __future__ import annotations

from dataclasses import dataclass

from sparkrec.settings.setting import COUNT, COUNT_OR_NONE, NOT_NEGATIVE, setting

DECAYS = ("linear", "quadratic", "harmonic", "same")


@dataclass(frozen=True)
class SessionNeighboursConfig:
    """Session-based neighbours (V-SKNN)."""

    neighbours: int = setting(500, "sessions that vote", COUNT, tried=(100, 200, 500))
    sample: int = setting(
        0, "the most recent sessions that are looked at, of those with a common item; 0: all", COUNT_OR_NONE
    )
    decay: str = setting(
        "harmonic",
        "linear | quadratic | harmonic | same: weight of the session's items, the last one weighs most",
        choices=list(DECAYS),
        tried=("linear", "harmonic"),
    )
    last_items: int = setting(20, "items of the session that are looked at", COUNT)
    idf: float = setting(
        1.0, "power of the items' inverse frequency in the scores; 0: none", NOT_NEGATIVE, tried=(0.0, 1.0)
    )
    own_items: float = setting(
        0.3,
        "factor of the scores of items that the session has already; 1: as others",
        NOT_NEGATIVE,
        tried=(0.1, 0.3, 1.0),
    )
    same_user: float = setting(
        16.0, "factor of the similarity of the same user's sessions; 1: as others", NOT_NEGATIVE, tried=(1.0, 16.0)
    )
