"""Settings of the model, with what they may be."""

from __future__ import annotations

from dataclasses import dataclass

from sparkrec.models.session_neighbours.settings import DECAYS
from sparkrec.settings.setting import NOT_NEGATIVE, setting


@dataclass(frozen=True)
class SessionHybridConfig:
    """The GRU's scores beside the votes of session neighbours."""

    votes_weight: float = setting(
        7.0,
        "what the most votes are worth, in deviations of the GRU's scores; 0: the GRU alone",
        NOT_NEGATIVE,
        tried=(2.0, 4.0, 7.0, 10.0),
    )
    power: float = setting(0.33, "of an item's share of the most votes", NOT_NEGATIVE, tried=(0.33, 0.66))
    decay: str = setting(
        "linear",
        "linear | quadratic | harmonic | same: as session_neighbours.decay, in whose place it stands",
        choices=list(DECAYS),
        tried=("linear", "harmonic"),
    )
    own_items: float = setting(
        0.2, "factor of the votes of items that the session has already; 1: as others", NOT_NEGATIVE, tried=(0.2, 1.0)
    )
