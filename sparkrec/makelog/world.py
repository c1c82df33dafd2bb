"""Items, users and their tastes: what stays the same while a log is made. All arrays are O(users + items).

Items are numbered by category, so that a category is a range. Popularity is Zipf's law with drift: each item has its
own slow wave, a new one draws attention for a week. Each item has four likely successors, so that the next item of a
session can be learnt; each user has three favourite categories, so that a user's next items can be learnt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

ZIPF_EXPONENT = 0.8
SUCCESSOR_CUM = (0.5, 0.75, 0.9, 1.0)  # cumulated probabilities of the four successors
FAVOURITE_CUM = (0.6, 0.82, 0.94)  # cumulated probabilities of a user's favourites; else any category
SAME_CATEGORY = 0.9  # successors that stay in the category
OLD_ITEMS, OLD_USERS = 0.75, 0.6  # shares that are there on the first day
NOVELTY, NOVELTY_DAYS = 3.0, 7.0


@dataclass(frozen=True)
class World:
    """Items and users.

    Attributes:
        category: (items,) int16, not falling.
        bounds: (categories + 1,) int64; category c is the items bounds[c] to bounds[c + 1].
        popularity: (items,) float64, weight of each item before drift.
        born: (items,) int32, day from which an item exists.
        wave: (3, items) float32: amplitude, phase in days, period in days of the drift.
        successors: (items, 4) int32.
        quality: (items,) float32, mean 0: what ratings depend on.
        favourites: (users, 3) int16 categories.
        activity: (users,) float64, cumulated weights; users are numbered in the order of their arrival.
        bias: (users,) float32, mean 0: how kindly a user rates.
        days: Days of the log.
    """

    category: NDArray[np.int16]
    bounds: Ints
    popularity: Floats
    born: NDArray[np.int32]
    wave: NDArray[np.float32]
    successors: NDArray[np.int32]
    quality: NDArray[np.float32]
    favourites: NDArray[np.int16]
    activity: Floats
    bias: NDArray[np.float32]
    days: int

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.category)

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.activity)

    @property
    def n_categories(self) -> int:
        """Number of categories."""
        return len(self.bounds) - 1

    def popularity_cum(self, day: int) -> Floats:
        """Cumulated weights of the items on a day, (items + 1,) float64 from 0."""
        amplitude, phase, period = self.wave
        weight = self.popularity * np.exp(amplitude * np.sin(2 * np.pi * (day + phase) / period))
        age = day - self.born
        weight *= np.where(self.born > 0, 1 + NOVELTY * np.exp(-np.maximum(age, 0) / NOVELTY_DAYS), 1.0)
        weight[age < 0] = 0.0
        return np.concatenate([[0.0], np.cumsum(weight)])

    def active_users(self, day: int) -> int:
        """Number of users that have arrived by the end of a day."""
        share = OLD_USERS + (1 - OLD_USERS) * (day + 1) / self.days
        return max(1, min(self.n_users, round(self.n_users * share)))


def build_world(n_users: int, n_items: int, days: int, seed: int) -> World:
    """Builds items and users from a seed."""
    rng = np.random.default_rng([seed, 0])
    n_categories = min(n_items, int(np.clip(np.sqrt(n_items) / 2, 4, 200)))
    category, bounds = _categories(n_items, n_categories, rng)
    popularity = rng.permutation((np.arange(n_items) + 1.0) ** -ZIPF_EXPONENT)
    born = np.where(rng.random(n_items) < OLD_ITEMS, 0, rng.integers(0, days, n_items)).astype(np.int32)
    born[bounds[:-1]] = 0  # no category is ever empty
    wave = np.stack([rng.normal(0, 0.4, n_items), rng.uniform(0, 60, n_items), rng.uniform(20, 60, n_items)])
    return World(
        category=category,
        bounds=bounds,
        popularity=popularity,
        born=born,
        wave=wave.astype(np.float32),
        successors=_successors(popularity, category, bounds, rng),
        quality=rng.normal(0, 0.6, n_items).astype(np.float32),
        favourites=_favourites(n_users, popularity, bounds, rng),
        activity=np.cumsum(rng.lognormal(0.0, 1.1, n_users)),
        bias=rng.normal(0, 0.35, n_users).astype(np.float32),
        days=days,
    )


def draw(cum: Floats, low: Ints, high: Ints, rng: np.random.Generator) -> Ints:
    """Draws one item from each range [low, high) by the weights of ``cum``, (n,) int64."""
    start, end = cum[low], cum[high]
    found = np.searchsorted(cum, start + rng.random(len(low)) * (end - start), side="right") - 1
    return np.clip(found, low, high - 1)


def _categories(n_items: int, n_categories: int, rng: np.random.Generator) -> tuple[NDArray[np.int16], Ints]:
    weight = (np.arange(n_categories) + 3.0) ** -0.5
    more = rng.choice(n_categories, size=n_items - n_categories, p=weight / weight.sum())
    category = np.sort(np.concatenate([np.arange(n_categories), more])).astype(np.int16)
    return category, np.searchsorted(category, np.arange(n_categories + 1)).astype(np.int64)


def _successors(
    popularity: Floats, category: NDArray[np.int16], bounds: Ints, rng: np.random.Generator
) -> NDArray[np.int32]:
    """Four successors of each item: mostly of its category, the popular ones more often, never itself."""
    n = len(category)
    cum = np.concatenate([[0.0], np.cumsum(np.sqrt(popularity))])
    out = np.empty((n, len(SUCCESSOR_CUM)), np.int32)
    for j in range(len(SUCCESSOR_CUM)):
        inside = rng.random(n) < SAME_CATEGORY
        low = np.where(inside, bounds[category], 0)
        high = np.where(inside, bounds[category + 1], n)
        chosen = draw(cum, low, high, rng)
        out[:, j] = np.where(chosen == np.arange(n), (chosen + 1) % n, chosen)
    return out


def _favourites(n_users: int, popularity: Floats, bounds: Ints, rng: np.random.Generator) -> NDArray[np.int16]:
    weight = np.add.reduceat(popularity, bounds[:-1]) ** 0.7
    cum = np.cumsum(weight / weight.sum())
    drawn = np.searchsorted(cum, rng.random((n_users, len(FAVOURITE_CUM))), side="right")
    return np.minimum(drawn, len(weight) - 1).astype(np.int16)
