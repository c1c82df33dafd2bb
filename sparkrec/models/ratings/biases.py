"""The mean and the regularised biases on the ranks, as ``prepare.rating_biases`` has them, and without a pair's own.

A bias that has seen the pair's own rating would tell a network what it is to learn. So training reads the biases
without it: b_u without r_ui is (Σ_j e_uj − e_ui) / (λ_u + n_u − 1), e the residual over mean and items' biases, and of
the item likewise. (That the other side's biases have seen it, too, is of the order of λ⁻².)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from sparkrec.errors import NothingToTrain
from sparkrec.prepare.shrinkage import shrinkage
from sparkrec.ranks.comm import Comm

SWEEPS = 10


class Ratings(NamedTuple):
    """Ratings of a file; n of them."""

    user: np.ndarray  # int64 [n]
    item: np.ndarray  # int64 [n]
    rating: np.ndarray  # float64 [n]


class Known(NamedTuple):
    """What others' ratings say of the user and the item of each of n pairs; 0 where there are none."""

    user_bias: np.ndarray  # float64 [n]
    item_bias: np.ndarray  # float64 [n]
    user_count: np.ndarray  # int64 [n], ratings
    item_count: np.ndarray  # int64 [n]


@dataclass(frozen=True)
class Biases:
    """The mean, the scale and the biases of all users and items; 0 without a rating."""

    mean: float
    low: float
    high: float
    shrunk: tuple[float, float]  # λ of users and of items
    user: np.ndarray  # float64 [n_users]
    item: np.ndarray  # float64 [n_items]
    user_count: np.ndarray  # int64 [n_users]
    item_count: np.ndarray  # int64 [n_items]
    user_sum: np.ndarray  # float64 [n_users], Σ r − mean − b_i
    item_sum: np.ndarray  # float64 [n_items], Σ r − mean − b_u

    def known(self, user: np.ndarray, item: np.ndarray) -> Known:
        """Of pairs that were not rated."""
        return Known(self.user[user], self.item[item], self.user_count[user], self.item_count[item])

    def without_own(self, rows: Ratings) -> Known:
        """Of pairs that were rated, without that rating."""
        user, item, above = rows.user, rows.item, rows.rating - self.mean
        n_user, n_item = self.user_count[user] - 1, self.item_count[item] - 1
        of_user = (self.user_sum[user] - (above - self.item[item])) / (self.shrunk[0] + n_user)
        of_item = (self.item_sum[item] - (above - self.user[user])) / (self.shrunk[1] + n_item)
        return Known(np.where(n_user > 0, of_user, 0.0), np.where(n_item > 0, of_item, 0.0), n_user, n_item)


def fit_biases(files: list[Ratings], n_users: int, n_items: int, comm: Comm) -> Biases:
    """Fits them to the ratings of all ranks; every rank gets the same.

    Raises:
        NothingToTrain: There are none.
    """
    user, item, rating = (np.concatenate([part, *(f[k] for f in files)]) for k, part in enumerate(_NOTHING))
    n, total = _summed(comm, [float(len(rating)), rating.sum()])
    if not n:
        raise NothingToTrain("no ratings to learn from", fix="a log whose format declares value")
    above = rating - total / n
    n_user, n_item = (_counted(comm, rows, size) for rows, size in ((user, n_users), (item, n_items)))
    variance = _summed(comm, [float(above @ above)])[0] / n
    of_users, of_items = (_shared(comm, above, rows, count) for rows, count in ((user, n_user), (item, n_item)))
    shrunk = shrinkage(variance, of_users, of_items)
    b_user, b_item = np.zeros(n_users), np.zeros(n_items)
    for _ in range(SWEEPS):
        b_item = _summed(comm, np.bincount(item, above - b_user[user], n_items)) / (shrunk[1] + n_item)
        b_user = _summed(comm, np.bincount(user, above - b_item[item], n_users)) / (shrunk[0] + n_user)
    user_sum = _summed(comm, np.bincount(user, above - b_item[item], n_users))
    item_sum = _summed(comm, np.bincount(item, above - b_user[user], n_items))
    ends = comm.allgather(torch.tensor([[rating.min(initial=np.inf), rating.max(initial=-np.inf)]])).numpy()
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    return Biases(total / n, low, high, shrunk, b_user, b_item, n_user, n_item, user_sum, item_sum)


_NOTHING = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


def _summed(comm: Comm, mine: np.ndarray | list[float]) -> np.ndarray:
    found: np.ndarray = comm.allreduce_sum(torch.as_tensor(np.asarray(mine, dtype=np.float64))).numpy().copy()
    return found


def _counted(comm: Comm, rows: np.ndarray, size: int) -> np.ndarray:
    counts: np.ndarray = comm.allreduce_sum(torch.from_numpy(np.bincount(rows, minlength=size))).numpy().copy()
    return counts


def _shared(comm: Comm, above: np.ndarray, rows: np.ndarray, count: np.ndarray) -> float:
    """The variance that the ratings of one user, or of one item, have in common."""
    sums = _summed(comm, np.bincount(rows, above, len(count)))
    squares = _summed(comm, np.bincount(rows, above * above, len(count)))
    several = count > 1
    if not several.any():
        return 0.0
    products = (sums[several] ** 2 - squares[several]) / (count[several] - 1)
    return max(float(products.sum() / count[several].sum()), 0.0)
