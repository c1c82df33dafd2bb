"""The gate between a model and its publication."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

from sparkrec.evaluation.values import MetricValue
from sparkrec.settings.sections import GateConfig


@dataclass(frozen=True)
class Judgement:
    """What a model reached on a night's hold-out.

    Attributes:
        model: Its metrics.
        popularity: Those of recent popularity, on the same hold-out.
    """

    model: Sequence[MetricValue]
    popularity: Sequence[MetricValue]


@dataclass(frozen=True)
class Last:
    """The model that was published before.

    Attributes:
        run_date: Its night.
        judgement: What it reached then.
        otherwise: What was judged otherwise than on this night (``protocol.difference``); empty: nothing.
    """

    run_date: date
    judgement: Judgement
    otherwise: str = ""


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a model.

    Attributes:
        against: Why it is not to be published; empty when nothing speaks against it.
        notes: What could not be compared, and why.
    """

    against: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verdict(judged: Judgement | None, last: Last | None, users_share: float, limits: GateConfig) -> Verdict:
    """Holds a model against recent popularity on the same hold-out, and against the model published before.

    The two models have hold-outs of their own, and a week can be easier to foresee than another one, for every model;
    a small one is also so by chance, for popularity no less than for the model. So a model is worse than the last one
    where both are lower: its metric, and the metric as a multiple of popularity's. Where metrics of the two nights do
    not say the same, they are not compared at all. What decides is the upper end of the metric's confidence interval
    (``bootstrap``): a model is held back where it is worse by more than chance, not where one user decides.

    Args:
        judged: The model, on this night's hold-out; None where it could not be judged: then only its lists count.
        last: The model that was published before; None where none was.
        users_share: Share of the users who have a list, of those who should.
        limits: The margins.
    """
    values = judged.model if judged is not None else []
    against = [f"{v.metric}@{v.k} is not a number" for v in values if not math.isfinite(v.value)]
    if not users_share >= limits.min_users_share:
        against.append(f"lists for {users_share:.1%} of the users, less than {limits.min_users_share:.1%}")
    if judged is None:
        return Verdict(against)
    name = f"{_metric(values, limits)}@{limits.k}"
    mine, popular = _value(judged.model, limits), _value(judged.popularity, limits)
    at_best = _highest(judged.model, limits) or 0.0
    if mine is None:
        against.append(f"{name} of the model is missing")
    elif popular is None:
        against.append(f"recent popularity's {name} is missing")
    elif at_best < popular * (1 - limits.below_popularity):
        margin = f"{limits.below_popularity:.0%}"
        against.append(f"{name} {mine:.4f} is more than {margin} below recent popularity's {popular:.4f}")
    if mine is None or popular is None or last is None:
        return Verdict(against)
    theirs, popular_then = _value(last.judgement.model, limits), _value(last.judgement.popularity, limits)
    reason = last.otherwise or _incomparable(name, theirs, popular_then, popular)
    if reason or theirs is None or not popular_then:
        return Verdict(against, [f"not compared with the model of {last.run_date}: {reason}"])
    times, before = mine / popular, theirs / popular_then
    least = 1 - limits.below_last
    if at_best < theirs * least and at_best / popular < before * least:
        against.append(
            f"{name} {mine:.4f} ({times:.2f} times recent popularity's) is more than {limits.below_last:.0%} below the "
            f"last published model's {theirs:.4f} ({before:.2f} times) on {last.run_date}"
        )
    return Verdict(against)


def _incomparable(name: str, theirs: float | None, popular_then: float | None, popular: float) -> str:
    """Why metrics of the same protocol cannot be compared; empty where they can."""
    if theirs is None or popular_then is None:
        return f"its {name} was not judged"
    nothing = [when for when, value in (("then", popular_then), ("now", popular)) if not value]
    return f"recent popularity's {name} is 0 {' and '.join(nothing)}" if nothing else ""


def _highest(values: Sequence[MetricValue], limits: GateConfig) -> float | None:
    """What the metric may be by chance at most: the upper end of its confidence interval, where it has one."""
    found = [v for v in values if (v.metric, v.k) == (_metric(values, limits), limits.k)]
    return next((v.value if v.high is None else max(v.value, v.high) for v in found), None)


def _value(values: Sequence[MetricValue], limits: GateConfig) -> float | None:
    return next((v.value for v in values if (v.metric, v.k) == (_metric(values, limits), limits.k)), None)


def _metric(values: Sequence[MetricValue], limits: GateConfig) -> str:
    return limits.metric_of({v.metric for v in values})
