"""The gate between a model and its publication."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sparkrec.evaluation.values import MetricValue


@dataclass(frozen=True)
class Thresholds:
    """What a model must reach to be published."""

    metric: str = "recall"
    k: int = 20
    max_loss: float = 0.2  # the metric may be this share of the baseline's below it
    min_users_share: float = 0.9  # users with a list, of those who should have one


def objections(
    model: Sequence[MetricValue], baseline: Sequence[MetricValue], users_share: float, thresholds: Thresholds
) -> list[str]:
    """Why a model is not to be published; empty when nothing speaks against it.

    Args:
        model: Hold-out metrics of the model.
        baseline: Those of recent popularity, on the same hold-out.
        users_share: Share of the users who have a list.
        thresholds: The limits.
    """
    found = [f"{v.metric}@{v.k} is not a number" for v in model if not math.isfinite(v.value)]
    if not users_share >= thresholds.min_users_share:
        found.append(f"lists for {users_share:.1%} of the users, less than {thresholds.min_users_share:.1%}")
    name = f"{thresholds.metric}@{thresholds.k}"
    mine, theirs = (_value(values, thresholds) for values in (model, baseline))
    if mine is None or theirs is None:
        found.append(f"{name} is missing for the {'model' if mine is None else 'baseline'}")
    elif mine < theirs * (1 - thresholds.max_loss):
        found.append(f"{name} {mine:.4f} is more than {thresholds.max_loss:.0%} below the baseline's {theirs:.4f}")
    return found


def _value(values: Sequence[MetricValue], thresholds: Thresholds) -> float | None:
    return next((v.value for v in values if (v.metric, v.k) == (thresholds.metric, thresholds.k)), None)
