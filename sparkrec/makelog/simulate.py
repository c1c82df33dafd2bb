"""Sessions of events: who takes which items when. Vectorised over the sessions of a window of time."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from sparkrec.makelog.options import Style
from sparkrec.makelog.world import FAVOURITE_CUM, SUCCESSOR_CUM, Floats, Ints, World, draw

DAY_S = 86_400
FOLLOW = 0.55  # probability that the next item is a successor of the current one
ON_TOPIC = 0.92  # else it is of the session's category with this probability
# How busy each hour of the day is (UTC). The last one is nearly empty, so that few sessions run past midnight.
HOURS = (2, 1, 1, 1, 1, 2, 4, 6, 8, 10, 11, 12, 12, 11, 10, 10, 10, 11, 12, 12, 10, 8, 4, 0.2)
CANCEL_AFTER_S = (600, 6 * 3600)
REPEATS_REDRAWN = 8


@dataclass(frozen=True)
class Events:
    """Events, one array of length n for each column.

    Attributes:
        session: int64, number of the session, from 0 in the order of session starts.
        user: int32, -1 for an anonymous one.
        item: int32.
        ts: int64, seconds since the first day's start.
        cancels: bool, whether it takes an earlier event back.
        amount: float32, mean 0, variance about 1: what a rating, quantity or play time is made from.
    """

    session: NDArray[np.int64]
    user: NDArray[np.int32]
    item: NDArray[np.int32]
    ts: NDArray[np.int64]
    cancels: NDArray[np.bool_]
    amount: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ts)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Events:
        """The rows with these numbers, or those where a mask is true."""
        return Events(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def no_events() -> Events:
    """Events of length 0."""
    empty = np.empty(0)
    return Events(
        empty.astype(np.int64), empty.astype(np.int32), empty.astype(np.int32), empty.astype(np.int64),
        empty.astype(np.bool_), empty.astype(np.float32),
    )  # fmt: skip


def concat(parts: list[Events]) -> Events:
    """One after the other."""
    return Events(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Events)})


def time_of_day(quantiles: Floats) -> Floats:
    """Seconds after midnight at these quantiles of a day's activity."""
    cum = np.concatenate([[0.0], np.cumsum(HOURS)]) / np.sum(HOURS)
    return np.interp(quantiles, cum, np.arange(25) * 3600.0)


def window_sessions(
    world: World,
    style: Style,
    *,
    n_events: int,
    day: int,
    part: tuple[float, float],
    popularity_cum: Floats,
    anonymous: float,
    first_session: int,
    rng: np.random.Generator,
) -> Events:
    """Makes the sessions that start in a window of a day, with exactly ``n_events`` events, by session and time.

    Args:
        world: Items and users.
        style: How people behave.
        n_events: Number of events, cancellations included.
        day: The day, from 0.
        part: The window, as quantiles of the day's activity.
        popularity_cum: The day's ``world.popularity_cum``.
        anonymous: Share of sessions without a user.
        first_session: Number of the first session.
        rng: Source of randomness.
    """
    n_cancelled = int(style.cancelled * n_events)
    longest = min(style.max_length, max(1, world.n_items // 4)) if style.distinct else style.max_length
    lengths = _lengths(n_events - n_cancelled, style.mean_length, longest, rng)
    n = len(lengths)
    start = time_of_day(np.sort(part[0] + rng.random(n) * (part[1] - part[0]))).astype(np.int64) + day * DAY_S
    users = np.searchsorted(world.activity, rng.random(n) * world.activity[world.active_users(day) - 1], side="right")
    topic = _topics(world, users, rng)
    items = _walk(world, lengths, topic, popularity_cum, day, rng)
    of = np.repeat(np.arange(n), lengths)
    if style.distinct:
        _redraw_repeats(items, of, world, popularity_cum, rng)
    users = np.where(rng.random(n) < anonymous, -1, users)
    events = Events(
        session=of + first_session,
        user=users[of].astype(np.int32),
        item=items.astype(np.int32),
        ts=start[of] + _elapsed(lengths, style.mean_gap_s, rng),
        cancels=np.zeros(len(of), np.bool_),
        amount=rng.standard_normal(len(of), dtype=np.float32),
    )
    return concat([events, _cancellations(events, n_cancelled, first_session + n, rng)])


def _lengths(total: int, mean: float, longest: int, rng: np.random.Generator) -> Ints:
    """Geometric lengths in 1 to ``longest`` that add up to ``total``."""
    drawn = np.empty(0, np.int64)
    while drawn.sum() < total:
        more = rng.geometric(1 / mean, int((total - drawn.sum()) / mean * 1.1) + 16)
        drawn = np.concatenate([drawn, np.minimum(more, longest)])
    ends = np.cumsum(drawn)
    n = int(np.searchsorted(ends, total)) + 1 if total else 0
    lengths = drawn[:n].copy()
    if n:
        lengths[-1] -= ends[n - 1] - total
    return lengths


def _topics(world: World, users: Ints, rng: np.random.Generator) -> Ints:
    """The category of each session: one of the user's favourites, or -1 for any."""
    which = np.searchsorted(FAVOURITE_CUM, rng.random(len(users)), side="right")
    favourite = world.favourites[users, np.minimum(which, len(FAVOURITE_CUM) - 1)]
    return np.where(which < len(FAVOURITE_CUM), favourite, -1).astype(np.int64)


def _walk(world: World, lengths: Ints, topic: Ints, popularity_cum: Floats, day: int, rng: np.random.Generator) -> Ints:
    """The items of all sessions, one session after the other: a Markov chain with restarts."""
    first = np.cumsum(lengths) - lengths
    items = np.empty(int(lengths.sum()), np.int64)
    longest_first = np.argsort(-lengths, kind="stable")
    falling = -lengths[longest_first]
    for step in range(int(lengths.max(initial=0))):
        walking = longest_first[: np.searchsorted(falling, -step, side="left")]  # those longer than step
        chosen = _restart(world, topic[walking], popularity_cum, rng)
        if step:
            nth = np.searchsorted(SUCCESSOR_CUM, rng.random(len(walking)), side="right")
            follower = world.successors[items[first[walking] + step - 1], nth]
            follows = (rng.random(len(walking)) < FOLLOW) & (world.born[follower] <= day)
            chosen = np.where(follows, follower, chosen)
        items[first[walking] + step] = chosen
    return items


def _restart(world: World, topic: Ints, popularity_cum: Floats, rng: np.random.Generator) -> Ints:
    on_topic = (topic >= 0) & (rng.random(len(topic)) < ON_TOPIC)
    low = np.where(on_topic, world.bounds[topic], 0)
    high = np.where(on_topic, world.bounds[topic + 1], world.n_items)
    return draw(popularity_cum, low, high, rng)


def _redraw_repeats(items: Ints, of: Ints, world: World, popularity_cum: Floats, rng: np.random.Generator) -> None:
    """Replaces in place items that a session has already; first by popularity, at last by any item that exists."""
    there = np.flatnonzero(np.diff(popularity_cum) > 0)
    for attempt in range(2 * REPEATS_REDRAWN):
        key = of * world.n_items + items
        order = np.argsort(key, kind="stable")
        again = order[1:][key[order[1:]] == key[order[:-1]]]
        if not len(again):
            return
        if attempt < REPEATS_REDRAWN:
            none, all_items = np.zeros(len(again), np.int64), np.full(len(again), world.n_items)
            items[again] = draw(popularity_cum, none, all_items, rng)
        else:
            items[again] = rng.choice(there, len(again))


def _elapsed(lengths: Ints, mean_gap_s: float, rng: np.random.Generator) -> Ints:
    """Seconds from the start of its session to each event; strictly rising where the mean gap is not 0."""
    if mean_gap_s == 0:
        return np.zeros(int(lengths.sum()), np.int64)
    gaps = 1 + rng.exponential(mean_gap_s - 1, int(lengths.sum())).astype(np.int64)
    first = np.cumsum(lengths) - lengths
    total = np.cumsum(gaps)
    return total - np.repeat(total[first], lengths)


def _cancellations(events: Events, n: int, first_session: int, rng: np.random.Generator) -> Events:
    """Takes ``n`` of the events back some hours later, each in a session of its own."""
    if n == 0:
        return no_events()
    taken = events.take(np.sort(rng.choice(len(events), n, replace=False)))
    return Events(
        session=first_session + np.arange(n),
        user=taken.user,
        item=taken.item,
        ts=taken.ts + rng.integers(*CANCEL_AFTER_S, n),
        cancels=np.ones(n, np.bool_),
        amount=taken.amount,
    )
