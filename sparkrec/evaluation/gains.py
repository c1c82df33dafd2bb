"""What each user adds to a metric: what confidence intervals are made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sparkrec.errors import InvariantError
from sparkrec.evaluation.bootstrap import MOST, Doubles, difference, interval
from sparkrec.settings.sections import PER_SESSION

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

MODEL, OWNER, GAIN, COUNT = "model", "owner", "gain", "count"


@dataclass(frozen=True)
class Gains:
    """A metric, by user.

    Attributes:
        owners: int64 ``[users]``, ascending: hashes of the users (of nobody's sessions: of the sessions; where lists
            are for items: of the items asked for).
        gains: float64 ``[users]``: the metric's sum over what is predicted of each.
        counts: float64 ``[users]``: how much that is.
    """

    owners: npt.NDArray[np.int64]
    gains: Doubles
    counts: Doubles

    def interval(self) -> tuple[float, float]:
        """The metric's 95 % confidence interval."""
        return interval(self.gains, self.counts)

    def beyond(self, other: Gains) -> tuple[float, float, float]:
        """By how much the metric is higher than another of the same users, and that difference's interval.

        Raises:
            InvariantError: They are of other users.
        """
        if not np.array_equal(self.owners, other.owners) or not np.array_equal(self.counts, other.counts):
            raise InvariantError("two metrics are held against each other, but are of different users")
        return difference(self.gains, other.gains, self.counts)


@dataclass(frozen=True)
class GainsBook:
    """Gathers the gains of one metric, of all models and hold-outs that are judged.

    Attributes:
        metric: ``recall``, ``mrr``, ….
        k: Length of the lists.
        per: ``event``, or ``session``: what is judged in sessions counts by them.
        found: By model and hold-out.
        by_session: Hold-outs that it counts by sessions of.
    """

    metric: str
    k: int
    per: str = "event"
    found: dict[tuple[str, str], Gains] = field(default_factory=dict)
    by_session: set[str] = field(default_factory=set)

    def is_of(self, split: str, metric: str, k: int | None) -> bool:
        """Whether these are the gains of a metric of a hold-out."""
        return (metric, k) == (self.metric + (PER_SESSION if split in self.by_session else ""), self.k)

    def add(self, split: str, rows: DataFrame, n_owners: int) -> None:
        """Takes the rows of a hold-out in; of more than ``bootstrap.MOST`` owners a sample of so many, about.

        Args:
            split: The hold-out.
            rows: ``(model string, owner, gain double, count)``; owners of any type, more than one row each or not.
            n_owners: How many there are, about.
        """
        import pyspark.sql.functions as F

        owner = F.xxhash64(OWNER)
        one_in = max(1, -(-n_owners // MOST))
        sampled = rows.select(MODEL, owner.alias(OWNER), GAIN, COUNT).where(F.pmod(OWNER, F.lit(one_in)) == 0)
        summed = sampled.groupBy(MODEL, OWNER).agg(F.sum(GAIN).alias(GAIN), F.sum(COUNT).cast("double").alias(COUNT))
        table = summed.toArrow()
        models, owners, gains, counts = (table.column(i).to_numpy(zero_copy_only=False) for i in range(4))
        for model in sorted(set(models)):
            mine = np.flatnonzero(models == model)
            ordered = mine[np.argsort(owners[mine])]  # of all models the same users in the same order
            self.found[model, split] = Gains(owners[ordered], gains[ordered], counts[ordered])
