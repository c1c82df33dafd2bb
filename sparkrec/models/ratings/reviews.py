"""Reviews on the ranks: the words of each, and those of a user and of an item without a pair's own. numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sparkrec.errors import InvariantError

POSITION, WORD = "position", "word"  # columns of a snapshot of words


@dataclass(frozen=True)
class Side:
    """The reviews of each user, or of each item; m reviews of n."""

    order: np.ndarray  # int64 [m], reviews by user
    start: np.ndarray  # int64 [n + 1]
    place: np.ndarray  # int64 [m], of each review among those of its user

    @classmethod
    def of(cls, owner: np.ndarray, n: int) -> Side:
        """From the user, or the item, of each review."""
        order = np.argsort(owner, kind="stable")
        start = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(owner, minlength=n))])
        place = np.empty(len(owner), dtype=np.int64)
        place[order] = np.arange(len(owner)) - start[owner[order]]
        return cls(order, start, place)

    def draw(self, owner: np.ndarray, own: np.ndarray, rng: np.random.Generator, r: int) -> np.ndarray:
        """int64 [n, r], reviews of each owner but its own one, drawn with replacement; -1 where there is none.

        Args:
            owner: int64 [n].
            own: int64 [n], the review that is left out; -1 for none.
            rng: What draws.
            r: How many.
        """
        others = self.start[owner + 1] - self.start[owner] - (own >= 0)
        at = np.floor(rng.random((len(owner), r)) * others[:, None]).astype(np.int64)
        if len(self.place):
            hole = np.where(own >= 0, self.place[own], len(self.order))
            at += at >= hole[:, None]
        there = np.broadcast_to((others > 0)[:, None], at.shape)
        drawn = np.full(at.shape, -1, dtype=np.int64)
        drawn[there] = self.order[(self.start[owner][:, None] + at)[there]]
        return drawn


@dataclass(frozen=True)
class Reviews:
    """The reviews that may be read; m of them, one of a pair at most."""

    key: np.ndarray  # int64 [m], ascending: user · n_items + item
    words: np.ndarray  # int32 [m, words], 0 behind the last one
    users: Side
    items: Side
    n_items: int

    @classmethod
    def of(cls, user: np.ndarray, item: np.ndarray, words: np.ndarray, n_users: int, n_items: int) -> Reviews:
        """From the user int64 [m], item int64 [m] and words int32 [m, words] of each.

        Raises:
            InvariantError: A pair has two.
        """
        key = user.astype(np.int64) * n_items + item
        order = np.argsort(key, kind="stable")
        key, user, item = key[order], user[order].astype(np.int64), item[order].astype(np.int64)
        if (key[1:] == key[:-1]).any():
            raise InvariantError("a user has two reviews of an item")
        return cls(key, words[order], Side.of(user, n_users), Side.of(item, n_items), n_items)

    @property
    def user(self) -> np.ndarray:
        """int64 [m]."""
        return self.key // self.n_items

    @property
    def item(self) -> np.ndarray:
        """int64 [m]."""
        return self.key % self.n_items

    def own(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """int64 [n], the review of each pair; -1 for none."""
        key = user * self.n_items + item
        at = np.minimum(np.searchsorted(self.key, key), len(self.key) - 1)
        return np.where(self.key[at] == key, at, -1) if len(self.key) else np.full(len(user), -1, dtype=np.int64)


class Largest(NamedTuple):
    """The largest of each of d values over the reviews of each of n users (or items), with and without one of them."""

    best: np.ndarray  # float32 [n, d]; 0 without a review
    whose: np.ndarray  # int32 [n, d], the item (or user) that it is of; -1 for none
    second: np.ndarray  # float32 [n, d], over the reviews of all others

    def without(self, owner: np.ndarray, other: np.ndarray) -> np.ndarray:
        """float32 [p, d] of pairs (owner, other), each without its own review."""
        return np.where(self.whose[owner] == other[:, None], self.second[owner], self.best[owner])


def largest(values: np.ndarray, side: Side, other: np.ndarray) -> Largest:
    """The largest values over the reviews of each user (or item).

    Args:
        values: float32 [m, d], at least 0.
        side: Whose reviews they are.
        other: int64 [m], the item (or user) of each review.
    """
    n, d = len(side.start) - 1, values.shape[1]
    best, second = np.zeros((n, d), np.float32), np.zeros((n, d), np.float32)
    whose = np.full((n, d), -1, np.int32)
    for owner in np.flatnonzero(np.diff(side.start)):
        rows = side.order[side.start[owner] : side.start[owner + 1]]
        mine = values[rows]
        first = mine.argmax(0)
        best[owner], whose[owner] = mine[first, np.arange(d)], other[rows][first]
        if len(rows) > 1:
            mine[first, np.arange(d)] = 0.0
            second[owner] = mine.max(0)
    return Largest(best, whose, second)


def padded_words(
    review: np.ndarray, position: np.ndarray, word: np.ndarray, words: int
) -> tuple[np.ndarray, np.ndarray]:
    """The distinct reviews int64 [m], ascending, and their words int32 [m, words].

    Args:
        review: int64 [n], the review of each word.
        position: int64 [n], its place in it.
        word: int64 [n], from 1.
        words: Places of a review; those behind are left out.
    """
    numbers, row = np.unique(review, return_inverse=True)
    found = np.zeros((len(numbers), words), dtype=np.int32)
    inside = position < words
    found[row[inside], position[inside]] = word[inside]
    return numbers, found
