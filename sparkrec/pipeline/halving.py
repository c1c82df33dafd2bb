"""Which settings to try within a budget of time: successive halving, then what follows the training, value by value.

Most settings are tried with a part of the training, the best third of them with all of it (Jamieson, Talwalkar,
"Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016, with two rungs and η = 3).
Settings that change nothing of the training, as the strength of the popularity prior, cost a judgement only: those are
tried one after another, each with the best of those before.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sparkrec.evaluation.bootstrap import Doubles

Settings = dict[str, Any]
ETA = 3  # of so many settings one is tried in full, with so many times the training
MOST = 200  # settings that are drawn, whatever the budget


@dataclass(frozen=True)
class Space:
    """What there is to try.

    Attributes:
        training: Values of the settings that need another training.
        after: Values of those that do not.
        effort: The settings that a training takes as long as they are large, with their values.
    """

    training: Mapping[str, tuple[Any, ...]]
    after: Mapping[str, tuple[Any, ...]]
    effort: Mapping[str, int]

    def short(self) -> Settings:
        """Settings of a shorter training."""
        return {key: max(1, value // ETA) for key, value in self.effort.items() if value > 1}


@dataclass(frozen=True)
class Reached:
    """What settings reached.

    Attributes:
        value: The metric.
        seconds: Of training and judging.
        judging: Of judging alone.
        gains, counts: float64 ``[users]``: each user's sum of the metric, and of how much; of all settings the same
            users in the same order.
    """

    value: float
    seconds: float
    judging: float
    gains: Doubles = field(repr=False)
    counts: Doubles = field(repr=False)


@dataclass(frozen=True)
class Found:
    """The best settings that were tried in full.

    Attributes:
        settings: Key → value, of all keys of the space.
        reached: What they reached.
        before: What the settings reached that the search began with.
        n_full, n_short: How many were tried, in full and with less training.
    """

    settings: Settings
    reached: Reached
    before: Reached
    n_full: int
    n_short: int


def halving(
    space: Space,
    start: Settings,
    attempt: Callable[[Settings], Reached],
    seconds: float,
    clock: Callable[[], float],
    seed: int,
) -> Found:
    """Looks for better settings than those in use.

    Args:
        space: What there is to try.
        start: The settings in use: key → value, of all keys of the space.
        attempt: Trains and judges.
        seconds: The budget; the first attempt is made whatever it takes, and none begins that would surely end later.
        clock: Seconds that never go back.
        seed: Of the order in which settings are drawn.
    """
    until = clock() + seconds
    full: list[tuple[Settings, Reached]] = []

    def in_full(settings: Settings) -> bool:
        if any(known == settings for known, _ in full):
            return True
        trained = [r for known, r in full if all(known[key] == settings[key] for key in space.training)]
        if full and clock() + (trained[0].judging if trained else full[0][1].seconds) > until:
            return False
        full.append((settings, attempt(settings)))
        return True

    in_full(start)
    _one_after_another(space, full, in_full)
    after = {key: _best(full)[0][key] for key in space.after}
    short: list[tuple[Settings, Reached]] = []
    least = space.short()
    whole, trained = full[0][1].seconds, {key: start[key] for key in space.training}
    drawn = [trained, *itertools.islice(_draws(space.training, trained, seed), MOST)] if space.training else []
    for settings in drawn if least else ():
        kept = math.ceil((len(short) + 1) / ETA)  # these will be tried in full: there must be time for it
        quick = short[-1][1].seconds if short else whole / ETA
        if clock() + quick + kept * whole > until:
            break
        short.append((settings, attempt({**settings, **after, **least})))
    if least:
        ranked = sorted(short, key=lambda pair: -pair[1].value)
        drawn = [settings for settings, _ in ranked[: math.ceil(len(ranked) / ETA)]]
    for settings in drawn:
        if clock() + whole > until or not in_full({**settings, **after}):
            break
    _one_after_another(space, full, in_full)
    settings, reached = _best(full)
    return Found(settings, reached, full[0][1], len(full), len(short))


def _one_after_another(space: Space, full: list[tuple[Settings, Reached]], in_full: Callable[[Settings], bool]) -> None:
    """Each value of each setting that follows the training, beside the best settings so far."""
    for key, values in space.after.items():
        best = _best(full)[0]
        if not all(in_full({**best, key: value}) for value in values):
            return


def _best(full: list[tuple[Settings, Reached]]) -> tuple[Settings, Reached]:
    """Of equal ones the earliest."""
    return max(full, key=lambda pair: pair[1].value)


def _draws(values: Mapping[str, tuple[Any, ...]], start: Settings, seed: int) -> Iterator[Settings]:
    """Settings in a drawn order, each once, without those that the search began with."""
    draw, seen = random.Random(seed), [start]
    n = math.prod(len(some) for some in values.values())
    if n <= 10_000:
        points = [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]
        draw.shuffle(points)
        yield from (point for point in points if point != start)
        return
    while len(seen) <= MOST:
        point = {key: draw.choice(some) for key, some in values.items()}
        if point not in seen:
            seen.append(point)
            yield point
