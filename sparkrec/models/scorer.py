"""What makes lists: of users whatever scores users and items, of sessions whatever says what comes next."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from sparkrec.models.popularity.counts import plus_popularity, times_popularity
from sparkrec.retrieval.block_search import FloatArray, IntArray, ItemMatrix
from sparkrec.retrieval.fallback import popularity_queries
from sparkrec.retrieval.topk import VECTOR, top_k
from sparkrec.settings.sections import TopKConfig
from sparkrec.warehouse.tables import USER_IDX

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
        return top_k(self.of(users), self.items.without(wanted.excluded), **search_options(wanted))

    def with_prior(self, popular: FloatArray, times: float, plus: float) -> DenseScorer:
        """See ``TakesPrior``."""
        popular = popular[: len(self.items.vectors)]
        items = times_popularity(self.items, popular, times) if times else self.items
        return replace(self, items=plus_popularity(items, popular, plus) if plus else items)


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
        return top_k(popularity_queries(users), self.items.without(wanted.excluded), **search_options(wanted))


@runtime_checkable
class TakesPrior(Protocol):
    """A scorer that can be blended with what was popular of late."""

    def with_prior(self, popular: FloatArray, times: float, plus: float) -> Scorer:
        """The scorer with scores that popularity multiplies and is added to.

        Args:
            popular: float32 ``[n_index]``: users who took each item of late.
            times: The power with which it multiplies; see ``popularity.counts.times_popularity``.
            plus: The weight with which its logarithm is added; see ``popularity.counts.plus_popularity``.
        """


@runtime_checkable
class KnowsBeside(Protocol):
    """A scorer that knows by itself what lies beside its items or users."""

    def beside(self, k: int, excluded: IntArray) -> DataFrame:
        """``(query_idx, item_idx, rank, score)``: the items beside items, or the users beside users."""


class SessionModel(Protocol):
    """A part of a model of what comes next in a session."""

    @property
    def trained(self) -> npt.NDArray[np.bool_]:
        """Bool [n_items]: the items that it ranks."""

    def next_item_ranks(self, sessions: DataFrame, history: DataFrame, ties: str) -> DataFrame:
        """``(rank double, …)`` of each next event of the sessions among all trained items.

        Args:
            sessions: Columns of ``tables.SESSIONS``; events of items that are not trained are passed over. Optionally
                ``seen array<int>``: what the user had taken before the session began; then there is ``new_rank
                double``, too: among what neither ``seen`` nor the session holds by then, null where the item is none
                of these.
            history: Earlier sessions of the same users.
            ties: See ``evaluation.sessions.rank_of``.
        """

    def lists(self, sessions: DataFrame, history: DataFrame, wanted: Wanted) -> tuple[DataFrame, str]:
        """What comes next after the last event of each session.

        Args:
            sessions: Columns of ``tables.SESSIONS`` and the key's; optionally ``seen array<int>``.
            history: Earlier sessions of the same users.
            wanted: What lists are asked for.

        Returns:
            ``(key…, item_idx int, rank int, score float)``, and what there is to say of the search.
        """


def search_options(wanted: Wanted) -> dict[str, Any]:
    """What both engines are told."""
    memory = {"block_mb": wanted.settings.block_mb, "pass_mb": wanted.settings.pass_mb}
    return {"key": wanted.key, "k": wanted.k, "seen": wanted.seen, **memory}
