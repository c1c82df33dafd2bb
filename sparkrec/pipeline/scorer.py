"""One interface for the user models: whatever scores users and items makes lists of the best."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sparkrec.models.neighbours.nearest import item_neighbour_lists, similar, user_neighbour_lists
from sparkrec.models.popularity.counts import popularity_queries
from sparkrec.retrieval.block_search import FloatArray, IntArray, ItemMatrix
from sparkrec.retrieval.topk import VECTOR, top_k
from sparkrec.settings.config import TopKConfig
from sparkrec.warehouse.tables import ITEM_IDX, USER_IDX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

NO_ITEMS: IntArray = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Wanted:
    """What lists are asked for.

    Attributes:
        key: The columns that the lists keep.
        k: Length of the lists.
        settings: Memory of the search.
        seen: ``(key columns or some of them, item_idx)`` to leave out, where the users have no column ``seen``.
        excluded: ``item_idx`` that no list may hold.
    """

    key: tuple[str, ...]
    k: int
    settings: TopKConfig
    seen: DataFrame | None = None
    excluded: IntArray = field(default_factory=lambda: NO_ITEMS)


class Scorer(Protocol):
    """What makes the users' lists of a model."""

    @property
    def n_items(self) -> int:
        """Items that a list may hold."""

    def best(self, users: DataFrame, wanted: Wanted) -> DataFrame:
        """The best items of users.

        Args:
            users: The key columns and ``user_idx``, a row for each user; optionally ``seen array<int>``.
            wanted: What lists are asked for.

        Returns:
            ``(key…, item_idx int, rank int, score float)``; a user whom the model does not know has no list.
        """


@dataclass(frozen=True)
class DenseScorer:
    """Vectors whose inner product is the score: queries ``(user_idx int, vector array<float>)`` and the items."""

    queries: DataFrame
    items: ItemMatrix

    @property
    def n_items(self) -> int:
        """See ``Scorer``."""
        return int(self.items.positions().size)

    def of(self, users: DataFrame) -> DataFrame:
        """The users with their vectors."""
        return self.queries.select(USER_IDX, VECTOR).join(users, USER_IDX, "inner")

    def best(self, users: DataFrame, wanted: Wanted) -> DataFrame:
        """See ``Scorer``."""
        return top_k(self.of(users), self.items.without(wanted.excluded), **_search(wanted))


@dataclass(frozen=True)
class PopularityScorer:
    """What is popular, which is the same for everybody: of ``models.popularity.counts.popularity_matrix``."""

    items: ItemMatrix

    @property
    def n_items(self) -> int:
        """See ``Scorer``."""
        return int(self.items.positions().size)

    def best(self, users: DataFrame, wanted: Wanted) -> DataFrame:
        """See ``Scorer``; every user has a list."""
        return top_k(popularity_queries(users), self.items.without(wanted.excluded), **_search(wanted))


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
        options = {**_search(wanted), "without": wanted.excluded, "factors": self.factors}
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
        options = {**_search(wanted), "without": wanted.excluded, "factors": self.factors}
        return user_neighbour_lists(users, self.neighbours, self.taken, self.n_users, self.n_index, **options)


def _search(wanted: Wanted) -> dict[str, Any]:
    """What both engines are told."""
    memory = {"block_mb": wanted.settings.block_mb, "pass_mb": wanted.settings.pass_mb}
    return {"key": wanted.key, "k": wanted.k, "seen": wanted.seen, **memory}
