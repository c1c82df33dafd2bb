"""From sequences to the pairs of skip-gram: numpy only.

A pair is an item and another one of its sequence within the window. The pairs of an epoch are never written out: for
each event the range of its contexts is kept, and the pairs of a step are made when it comes. What a step holds depends
on the seed, the epoch and the files alone, not on who reads them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparkrec.errors import InvariantError


@dataclass(frozen=True)
class Sequences:
    """The events of a file, sequence after sequence; n events."""

    item: np.ndarray  # int32 [n]
    number: np.ndarray  # int32 [n], ascending: the place of the event's sequence in the file

    @classmethod
    def of(cls, sequence: np.ndarray, item: np.ndarray, n_sequences: int) -> Sequences:
        """From the rows of a snapshot's file.

        Args:
            sequence: int64 [n], equal for the rows of a sequence, which stand together.
            item: int32 [n].
            n_sequences: How many there are.

        Raises:
            InvariantError: The rows of a sequence do not stand together.
        """
        new = np.ones(len(sequence), dtype=bool)
        np.not_equal(sequence[1:], sequence[:-1], out=new[1:])
        if int(new.sum()) != n_sequences:
            raise InvariantError(f"{n_sequences} sequences stand in {int(new.sum())} pieces")
        return cls(item.astype(np.int32), np.cumsum(new, dtype=np.int32) - 1)


@dataclass(frozen=True)
class Walk:
    """The pairs of a file in the order of one epoch; m events are left by the sub-sampling."""

    item: np.ndarray  # int32 [m]
    first: np.ndarray  # int64 [m], the first context of each event
    order: np.ndarray  # int64 [m], the events in the order in which they are centres
    ends: np.ndarray  # int64 [m], number of pairs up to each centre in that order, itself included

    @property
    def n_pairs(self) -> int:
        """Pairs of the whole file."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def pairs(self, part: slice) -> tuple[np.ndarray, np.ndarray]:
        """Some of the pairs: (item of the centre, item of the context), each int32 [length of the part]."""
        if part.stop <= part.start:
            return self.item[:0], self.item[:0]
        low, high = np.searchsorted(self.ends, [part.start, part.stop - 1], side="right")
        ends = self.ends[low : high + 1]
        begins = np.concatenate([self.ends[low - 1 : low] if low else np.zeros(1, np.int64), ends[:-1]])
        lengths = np.minimum(ends, part.stop) - np.maximum(begins, part.start)
        centre = np.repeat(self.order[low : high + 1], lengths)
        context = self.first[centre] + np.arange(part.start, part.stop) - np.repeat(begins, lengths)
        context += context >= centre  # an event is no context of its own
        return self.item[centre], self.item[context]


def keep_probability(counts: np.ndarray, subsample: float) -> np.ndarray:
    """float64 [n_items], the share of each item's events that is kept.

    min(1, (√(f / t) + 1) · t / f) with f the item's count and t = ``subsample`` · all counts: the form of Mikolov et
    al. 2013 ("Distributed representations of words and phrases", sec. 2.3, eq. 5) that word2vec and gensim compute.

    Args:
        counts: int64 [n_items].
        subsample: 0: everything is kept.
    """
    if subsample <= 0:
        return np.ones(len(counts))
    ratio = np.maximum(counts, 1) / (subsample * counts.sum())
    kept: np.ndarray = np.minimum(1.0, (np.sqrt(ratio) + 1) / ratio)
    return kept


def walk(sequences: Sequences, keep: np.ndarray, window: int, seed: tuple[int, ...]) -> Walk:
    """Draws an epoch: which events stay, how far each one's window reaches, and the order of the centres.

    As in word2vec, events that are left out close the gap, and each centre's window is uniform in 1 … ``window``, so
    that near neighbours count more often. Centres come in a drawn order: a step is a sample of the whole file.

    Args:
        sequences: Of the file.
        keep: float64 [n_items], of ``keep_probability``.
        window: Contexts on either side, at most.
        seed: Seed, epoch and number of the file.
    """
    rng = np.random.default_rng(seed)
    stays = rng.random(len(sequences.item)) < keep[sequences.item]
    item, number = sequences.item[stays], sequences.number[stays]
    lengths = np.bincount(number) if len(number) else np.zeros(0, np.int64)
    after = np.repeat(np.cumsum(lengths), lengths)  # where the next sequence begins
    begin = after - np.repeat(lengths, lengths)
    place = np.arange(len(item))
    reach = rng.integers(1, window + 1, len(item))
    first, last = np.maximum(begin, place - reach), np.minimum(after - 1, place + reach)
    order = rng.permutation(len(item))
    return Walk(item, first, order, np.cumsum((last - first)[order]))
