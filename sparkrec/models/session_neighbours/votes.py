"""The votes of session neighbours, on arrays: see ``models.session_neighbours`` for what they are.

All of it is two products of sparse matrices, as in ``retrieval.sparse``, so nothing depends on blocks or partitions.
The last shared item comes from a product, too: with the weights 4^(n - s) the sum's leading bit is that item's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from sparkrec.errors import InvariantError, UserError
from sparkrec.models.session_neighbours.settings import SessionNeighboursConfig
from sparkrec.retrieval.block_search import IntArray
from sparkrec.retrieval.sparse import Doubles, best_entries, block_entries, product_blocks, row_entries

if TYPE_CHECKING:
    import pyarrow as pa

LONGEST = 500  # events: 4 to this power is a double


@dataclass(frozen=True)
class TrainedSessions:
    """The sessions that vote.

    Attributes:
        items: float64 ``[sessions, n_items]``, 1 where the session has the item; the latest session is number 0.
        users: int64 ``[sessions]``, below 0 where the session is anonymous.
        numbers: int64 ``[sessions]``: the ids as ``session_neighbours.numbered`` has them.
    """

    items: csr_matrix
    users: IntArray
    numbers: IntArray

    @property
    def trained(self) -> npt.NDArray[np.bool_]:
        """Bool [n_items]: the items that some session has. Only these are ranked."""
        known: npt.NDArray[np.bool_] = np.bincount(self.items.indices, minlength=self.items.shape[1]) > 0
        return known


@dataclass(frozen=True)
class LookedAt:
    """The events of b current sessions that count: each item of a session once, at its last occurrence.

    Attributes:
        rows: int64 ``[m]``: the session, ascending.
        items: int64 ``[m]``.
        steps: int64 ``[m]``: 1 for the last event of the session, 2 for the one before …
        lengths: int64 ``[b]``: events looked at, repeats among them.
        users: int64 ``[b]``: the sessions' users, below 0 where they are anonymous.
        itself: int64 ``[b]``: the place of each session among the trained ones, below 0 where it is none of them.
    """

    rows: IntArray
    items: IntArray
    steps: IntArray
    lengths: IntArray
    users: IntArray
    itself: IntArray


def user_numbers(users: pa.Array) -> IntArray:
    """int64: the users, -1 where there is none."""
    numbers: IntArray = users.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return numbers


def looked_at(
    flat: IntArray,
    begins: IntArray,
    ends: IntArray,
    users: IntArray,
    last_items: int,
    itself: IntArray | None = None,
) -> LookedAt:
    """The last events of sessions.

    Args:
        flat: Items of all sessions one after another.
        begins: int64 ``[b]``: the place of each session's first event.
        ends: int64 ``[b]``: the place behind its last one.
        users: int64 ``[b]``: of ``user_numbers``.
        last_items: How many are looked at.
        itself: See ``LookedAt``; None: no session is among the trained ones.
    """
    itself = np.full(len(users), -1) if itself is None else itself
    lengths = np.minimum(ends - begins, last_items)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    steps = 1 + np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    items = flat[ends[rows] - steps].astype(np.int64)
    span = int(items.max(initial=0)) + 1
    first = np.sort(np.unique(rows * span + items, return_index=True)[1])  # the last occurrence has the smallest step
    return LookedAt(rows[first], items[first], steps[first], lengths, users, itself)


def decayed(steps: IntArray, lengths: IntArray, decay: str) -> Doubles:
    """d(s), the weight of the event that is the s-th from the end of n.

    Args:
        steps: s, from 1.
        lengths: n.
        decay: linear | quadratic | harmonic | same.
    """
    left = (lengths - steps + 1) / lengths
    weights = {"linear": left, "quadratic": left**2, "harmonic": 1.0 / steps, "same": np.ones(len(steps))}
    if decay not in weights:
        raise InvariantError(f"no decay {decay}")
    return weights[decay]


@dataclass(frozen=True)
class Index:
    """The trained sessions, as they travel to the workers."""

    sessions_of: csr_matrix  # float64 [n_items, sessions], ones
    votes: csr_matrix  # float64 [sessions, n_items], idf ** power
    sizes: IntArray  # [sessions], items of each
    users: IntArray  # [sessions]
    numbers: IntArray  # [sessions], ascending
    place_of: IntArray  # [sessions], the session of each number
    trained: npt.NDArray[np.bool_]  # [n_items]
    config: SessionNeighboursConfig
    own_items: float  # what the scores of the session's own items are multiplied by
    at_once: int  # entries of a block's product

    @staticmethod
    def build(
        trained: TrainedSessions,
        config: SessionNeighboursConfig,
        own_items: float = 1.0,
        block_mb: int = 64,
        without: IntArray | None = None,
    ) -> Index:
        """Counts and turns the sessions; items of ``without`` get no votes."""
        if config.last_items > LONGEST:
            raise UserError(f"at most {LONGEST} items of a session can be looked at",
                            where=f"session_neighbours.last_items={config.last_items}")  # fmt: skip
        n_sessions, n_items = trained.items.shape
        counts = np.bincount(trained.items.indices, minlength=n_items)
        idf = np.log(n_sessions / np.maximum(counts, 1)) ** config.idf
        if without is not None:
            idf[without[without < n_items]] = 0.0
        data = idf[trained.items.indices]
        votes = csr_matrix((data, trained.items.indices, trained.items.indptr), trained.items.shape)
        of_items, at_once = trained.items.T.tocsr(), block_entries(block_mb)
        sizes, order = np.diff(votes.indptr), np.argsort(trained.numbers)
        return Index(
            of_items, votes, sizes, trained.users, trained.numbers[order], order, counts > 0, config, own_items, at_once
        )

    def places(self, numbers: IntArray) -> IntArray:
        """Int64: the places of sessions, by their numbers, among the trained ones; -1 where they are none of them."""
        found = np.searchsorted(self.numbers, numbers).clip(max=len(self.numbers) - 1)
        return np.where(self.numbers[found] == numbers, self.place_of[found], -1)

    def others_have(self, items: IntArray, itself: IntArray) -> npt.NDArray[np.bool_]:
        """Which trained items another session has than the one, by its place, that each is asked for."""
        first = self.sessions_of.indptr[items]
        several = self.sessions_of.indptr[items + 1] - first > 1
        found: npt.NDArray[np.bool_] = several | (self.sessions_of.indices[first] != itself)
        return found

    def scores(self, asked: LookedAt) -> Iterator[tuple[slice, csr_matrix]]:
        """Runs of sessions, and the scores of the items for them: float64 ``[run, n_items]``."""
        n = len(asked.lengths)
        shape, lengths = (n, self.votes.shape[1]), asked.lengths[asked.rows]
        weights = decayed(asked.steps, lengths, self.config.decay)
        weights /= np.sqrt(np.bincount(asked.rows, weights**2, n))[asked.rows]
        similar = row_entries(asked.rows, asked.items, weights, shape)
        latest = row_entries(asked.rows, asked.items, 4.0 ** (lengths - asked.steps), shape)
        for block in product_blocks(similar, self.sessions_of, self.at_once):
            whose = asked.lengths[block], asked.users[block], asked.itself[block]
            near = self.neighbours(similar[block], latest[block], *whose)
            for run in product_blocks(near, self.votes, self.at_once):
                scores = near[run] @ self.votes
                if self.own_items != 1.0:
                    own = similar[block][run] > 0
                    scores = scores - scores.multiply(own) * (1.0 - self.own_items)
                yield slice(block.start + run.start, block.start + run.stop), scores

    def neighbours(
        self, similar: csr_matrix, latest: csr_matrix, lengths: IntArray, users: IntArray, itself: IntArray
    ) -> csr_matrix:
        """The votes' weights of the nearest sessions, float64 ``[b, sessions]``: sim(N) · d(s of the last shared).

        The last item that a session shares with N is read off the sum Σ 4^(n - s) over what they share: the steps s are
        distinct, so the largest summand 4^e is more than all others together, 4^e ≤ sum < (4/3) 4^e, and e is half of
        the sum's binary exponent. So one more product of matrices finds it for all pairs at once.

        Args:
            similar: float64 ``[b, n_items]``: d(s) / |d|.
            latest: float64 ``[b, n_items]``: 4^(n - s), of the same entries.
            lengths: int64 ``[b]``: n.
            users: int64 ``[b]``.
            itself: int64 ``[b]``: the session that is no neighbour of each.
        """
        product, shared = similar @ self.sessions_of, latest @ self.sessions_of
        if not np.array_equal(product.indices, shared.indices):
            raise InvariantError("two products of matrices with the same entries have them in different places")
        others = itself[_row_of(product)] != product.indices
        product, shared = _only(product, others), _only(shared, others)
        cosine = product.data / np.sqrt(self.sizes[product.indices])
        cosine[~_newest(product, self.config.sample)] = 0.0
        if self.config.same_user != 1.0:
            asks = users[_row_of(product)]
            cosine[(asks >= 0) & (asks == self.users[product.indices])] *= self.config.same_user
        ranked = csr_matrix((cosine, product.indices, product.indptr), product.shape)
        rows, entries = best_entries(ranked, self.config.neighbours)
        exponent = (np.frexp(shared.data[entries])[1] - 1) // 2  # e = n - s of the last shared
        decay = decayed(lengths[rows] - exponent, lengths[rows], self.config.decay)
        return row_entries(rows, product.indices[entries], cosine[entries] * decay, product.shape)


def _row_of(matrix: csr_matrix) -> IntArray:
    """The row of each entry."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def _only(matrix: csr_matrix, kept: npt.NDArray[np.bool_]) -> csr_matrix:
    """The matrix with these of its entries alone."""
    if kept.all():
        return matrix
    ends = np.concatenate([[0], np.cumsum(kept)])[matrix.indptr]
    return csr_matrix((matrix.data[kept], matrix.indices[kept], ends), shape=matrix.shape)


def _newest(product: csr_matrix, sample: int) -> npt.NDArray[np.bool_]:
    """Which entries are among the ``sample`` smallest columns of their row; all where ``sample`` is 0."""
    newest = np.ones(product.nnz, dtype=np.bool_)
    ends = product.indptr
    for row in np.flatnonzero(np.diff(ends) > sample) if sample else ():
        columns = product.indices[ends[row] : ends[row + 1]]
        newest[ends[row] : ends[row + 1]] = columns <= np.partition(columns, sample - 1)[sample - 1]
    return newest
