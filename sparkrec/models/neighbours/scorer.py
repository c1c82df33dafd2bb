"""Lists by neighbours: the items near those that a user took, and what the users near a user took."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

from sparkrec.models.neighbours.nearest import item_neighbour_lists, similar, user_neighbour_lists
from sparkrec.models.popularity.counts import popularity_factors
from sparkrec.models.scorer import Wanted, search_options
from sparkrec.retrieval.block_search import FloatArray, IntArray
from sparkrec.warehouse.tables import ITEM_IDX, USER_IDX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True)
class NeighbourScorer:
    """What the scorers by neighbours have in common.

    Attributes:
        neighbours: Of ``models.neighbours.nearest.item_neighbours`` or ``user_neighbours``.
        taken: What users took until lists are made: ``nearest.profiles``, or in the columns of ``tables.USER_ITEM``.
        n_index: Size of the index of items.
        factors: float32 ``[n_index]``: what the items' scores are multiplied by; None: nothing.
    """

    neighbours: DataFrame
    taken: DataFrame
    n_index: int
    factors: FloatArray | None = None

    def beside(self, k: int, excluded: IntArray) -> DataFrame:
        """``(query_idx, item_idx, rank, score)``: the items beside items, or the users beside users."""
        return similar(self.neighbours, k, excluded)

    def with_prior(self, popular: FloatArray, times: float, plus: float) -> Self:
        """See ``TakesPrior``; nothing is added."""
        return replace(self, factors=popularity_factors(popular, times))


@dataclass(frozen=True)
class ItemNeighbourScorer(NeighbourScorer):
    """Lists of the items near those that a user took."""

    @cached_property
    def n_items(self) -> int:
        """See ``Scorer``."""
        return self.neighbours.select(ITEM_IDX).distinct().count()

    def best(self, users: DataFrame, wanted: Wanted) -> DataFrame:
        """See ``Scorer``."""
        taken = self.taken.join(users, USER_IDX, "inner")
        options = {**search_options(wanted), "without": wanted.excluded, "factors": self.factors}
        return item_neighbour_lists(taken, self.neighbours, self.n_index, **options)


@dataclass(frozen=True)
class UserNeighbourScorer(NeighbourScorer):
    """Lists of what the users near a user took.

    Attributes:
        n_users: Size of the index of users.
    """

    n_users: int = 0

    @cached_property
    def n_items(self) -> int:
        """See ``Scorer``."""
        return self.taken.select(ITEM_IDX).distinct().count()

    def best(self, users: DataFrame, wanted: Wanted) -> DataFrame:
        """See ``Scorer``."""
        options = {**search_options(wanted), "without": wanted.excluded, "factors": self.factors}
        return user_neighbour_lists(users, self.neighbours, self.taken, self.n_users, self.n_index, **options)
