"""The gate between a model and its publication."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sparkrec.config import GateConfig
from sparkrec.evaluation.values import MetricValue


def objections(
    model: Sequence[MetricValue],
    popularity: Sequence[MetricValue],
    last: Sequence[MetricValue] | None,
    users_share: float,
    limits: GateConfig,
) -> list[str]:
    """Why a model is not to be published; empty when nothing speaks against it.

    Args:
        model: Hold-out metrics of the model.
        popularity: Those of recent popularity, on the same hold-out.
        last: Those of the model that was published before, on its own hold-out; None where none was.
        users_share: Share of the users who have a list.
        limits: The margins.
    """
    found = [f"{v.metric}@{v.k} is not a number" for v in model if not math.isfinite(v.value)]
    if not users_share >= limits.min_users_share:
        found.append(f"lists for {users_share:.1%} of the users, less than {limits.min_users_share:.1%}")
    mine = _value(model, limits)
    if mine is None:
        found.append(f"{limits.metric}@{limits.k} of the model is missing")
        return found
    compared = [("recent popularity's", popularity, limits.below_popularity)]
    if last is not None:
        compared.append(("the last published model's", last, limits.below_last))
    for whose, values, margin in compared:
        theirs = _value(values, limits)
        if theirs is None:
            found.append(f"{whose} {limits.metric}@{limits.k} is missing")
        elif mine < theirs * (1 - margin):
            found.append(f"{limits.metric}@{limits.k} {mine:.4f} is more than {margin:.0%} below {whose} {theirs:.4f}")
    return found


def _value(values: Sequence[MetricValue], limits: GateConfig) -> float | None:
    return next((v.value for v in values if (v.metric, v.k) == (limits.metric, limits.k)), None)
