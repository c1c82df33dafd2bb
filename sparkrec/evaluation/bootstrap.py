"""Confidence intervals of metrics by the bootstrap over users.

The events of a user are not independent of each other, so users are drawn and not events (Efron, Tibshirani, "An
Introduction to the Bootstrap", 1993, ch. 6 and 8.5): a metric is a ratio of sums over users, Σ g_u / Σ n_u, and a
replicate is the ratio over as many users, drawn with replacement. The interval lies between the percentiles of the
replicates (ch. 13). Of more than ``MOST`` users a sample of so many stands for all: the interval is then the wider.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
REPLICATES, LEVEL = 1000, 0.95
MOST = 20_000  # users whose sums come to the driver
_AT_ONCE = 1 << 22  # draws


def interval(gains: Doubles, counts: Doubles, *, seed: int = 1, replicates: int = REPLICATES) -> tuple[float, float]:
    """The 95 % interval of ``Σ gains / Σ counts``.

    Args:
        gains: float64 ``[users]``: each user's sum of the metric; of a difference it may be negative.
        counts: float64 ``[users]``: how many things each user's sum is of, above 0.
        seed: Of the draws.
        replicates: How many.

    Returns:
        The interval's ends; of one user both are the metric itself.
    """
    n = len(gains)
    if n < 2:
        value = float(gains.sum() / counts.sum()) if n else 0.0
        return value, value
    draw, found = np.random.default_rng(seed), []
    step = max(1, _AT_ONCE // n)
    for begin in range(0, replicates, step):
        times = draw.multinomial(n, np.full(n, 1 / n), size=min(step, replicates - begin)).astype(np.float64)
        found.append((times @ gains) / (times @ counts))
    low, high = np.quantile(np.concatenate(found), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def difference(mine: Doubles, others: Doubles, counts: Doubles, *, seed: int = 1) -> tuple[float, float, float]:
    """By how much a metric is higher than another of the same users, and the 95 % interval of that.

    Args:
        mine: float64 ``[users]``.
        others: Likewise, of the same users in the same order.
        counts: Likewise.
        seed: Of the draws.
    """
    gains = mine - others
    low, high = interval(gains, counts, seed=seed)
    return float(gains.sum() / counts.sum()), low, high
