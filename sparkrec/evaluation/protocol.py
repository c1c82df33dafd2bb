"""How models are judged, kept beside the metrics: those of two nights say the same only where this is the same."""

from __future__ import annotations

import json
from typing import Any

from sparkrec.evaluation.values import (
    BASKETS_AGAIN_SPLIT,
    BASKETS_SPLIT,
    RATINGS_SPLIT,
    SESSIONS_AGAIN_SPLIT,
    SESSIONS_SPLIT,
)
from sparkrec.settings.config import Config, config_dict
from sparkrec.settings.formats import LogFormat

UNKNOWN = "an earlier version of sparkrec judged it"


def protocol(config: Config, fmt: LogFormat, split: str) -> dict[str, Any]:
    """What the metrics of a hold-out depend on besides the events, the model and the length of its lists.

    Args:
        config: The configuration of the night.
        fmt: The log's format.
        split: The hold-out.

    Returns:
        Settings by their dotted name, what the format declares by its key.
    """
    judged, prepare = config.evaluation, config.prepare
    found = {"evaluation.recent_days": judged.recent_days, **_holdout(config)}
    found |= {f"prepare.support.{name}": value for name, value in config_dict(prepare.support).items()}
    if split in (SESSIONS_SPLIT, BASKETS_SPLIT):  # earlier versions judged what a user has, too
        found["seen"] = "left out"
    if split in (SESSIONS_SPLIT, SESSIONS_AGAIN_SPLIT):
        found |= {f"prepare.sessions.{name}": value for name, value in config_dict(prepare.sessions).items()}
        return found | {"evaluation.ties": judged.ties, "session_events": sorted(fmt.session_events)}
    if split in (BASKETS_SPLIT, BASKETS_AGAIN_SPLIT):
        found |= {f"prepare.baskets.{name}": value for name, value in config_dict(prepare.baskets).items()}
        return found | {"evaluation.ties": judged.ties, "purchase_events": sorted(fmt.purchase_events)}
    if split == RATINGS_SPLIT and judged.ratings == "random":
        drawn = {"evaluation.ratings_share": judged.ratings_share, "evaluation.ratings_seed": judged.ratings_seed}
        found |= {"evaluation.ratings": judged.ratings, **drawn}
    return found | {"event_weights": {name: weight for name, weight in fmt.event_weights.items() if weight > 0}}


def _holdout(config: Config) -> dict[str, Any]:
    """How long it is; a cutoff that is set moves with no night, so that it is one says enough."""
    judged = config.evaluation
    if judged.cutoff is not None:
        return {"evaluation.cutoff": "set"}
    if judged.holdout_quantile is not None:
        return {"evaluation.holdout_quantile": judged.holdout_quantile}
    return {"evaluation.holdout_days": judged.holdout_days}


def written(found: dict[str, Any]) -> str:
    """A protocol as ``metrics`` keeps it."""
    return json.dumps(found, sort_keys=True)


def difference(then: str | None, now: str | None) -> str:
    """What another protocol had otherwise; empty where both are the same.

    Args:
        then: As ``metrics`` keeps it; None: of a version of the package that kept none.
        now: Likewise.
    """
    if then == now and then is not None:
        return ""
    if then is None or now is None:
        return UNKNOWN
    before, after = json.loads(then), json.loads(now)
    names = sorted({*before, *after})
    changed = [
        f"{name} {_said(before.get(name))} -> {_said(after.get(name))}"
        for name in names
        if before.get(name) != after.get(name)
    ]
    return ", ".join(changed)


def _said(value: Any) -> str:
    """A value on one line without the semicolons that part a message's notes."""
    return "not set" if value is None else (value if isinstance(value, str) else json.dumps(value)).replace(";", ",")
