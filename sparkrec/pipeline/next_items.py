"""The models of sessions, baskets and items as the evaluation and the lists use them: what comes next, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
from pyspark import StorageLevel

from sparkrec.evaluation.baskets import basket_metrics
from sparkrec.evaluation.completion import CASE, completion_metrics, prefixes
from sparkrec.evaluation.ranking import ALL
from sparkrec.evaluation.values import MetricValue
from sparkrec.models.gru import states as gru_states
from sparkrec.models.kinds import KINDS, Lists
from sparkrec.models.prod2vec.embeddings import stored_embeddings
from sparkrec.models.rules.mining import complete, load_rules
from sparkrec.models.session_hybrid.blend import SessionHybrid
from sparkrec.models.session_neighbours import nearest as session_neighbours
from sparkrec.models.session_neighbours.votes import TrainedSessions
from sparkrec.pipeline.night import Night
from sparkrec.retrieval.similar import nearest
from sparkrec.settings.config import SessionNeighboursConfig
from sparkrec.warehouse.cards import ModelCard, part_path
from sparkrec.warehouse.tables import BASKET_ID, SESSION_ID

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


class SessionModel(Protocol):
    """A model of what comes next in a session."""

    @property
    def trained(self) -> npt.NDArray[np.bool_]:
        """Bool [n_items]: the items that it ranks."""

    def next_item_ranks(self, sessions: DataFrame, history: DataFrame, ties: str) -> DataFrame:
        """``(rank double, …)`` of each next event of the sessions among all trained items.

        Args:
            sessions: Columns of ``tables.SESSIONS``; events of items that are not trained are passed over.
            history: Earlier sessions of the same users.
            ties: See ``evaluation.sessions.rank_of``.
        """


@dataclass(frozen=True)
class GruModel:
    """The session-parallel GRU in a folder."""

    path: str

    @property
    def trained(self) -> npt.NDArray[np.bool_]:
        """See ``SessionModel``."""
        return gru_states.trained_items(self.path)

    def next_item_ranks(self, sessions: DataFrame, history: DataFrame, ties: str) -> DataFrame:
        """See ``SessionModel``."""
        return gru_states.next_item_ranks(sessions, self.path, ties=ties, history=history)


@dataclass(frozen=True)
class NeighbourModel:
    """The sessions that were alike."""

    sessions: TrainedSessions
    config: SessionNeighboursConfig

    @property
    def trained(self) -> npt.NDArray[np.bool_]:
        """See ``SessionModel``."""
        return self.sessions.trained

    def next_item_ranks(self, sessions: DataFrame, history: DataFrame, ties: str) -> DataFrame:
        """See ``SessionModel``; the history plays no part: the trained sessions do."""
        return session_neighbours.next_item_ranks(
            sessions, self.sessions, self.config, ties, own_items=self.config.own_items
        )


@dataclass(frozen=True)
class HybridModel:
    """The GRU in a folder, and the sessions that were alike."""

    path: str
    blend: SessionHybrid

    @property
    def trained(self) -> npt.NDArray[np.bool_]:
        """See ``SessionModel``: the GRU's."""
        return gru_states.trained_items(self.path)

    def next_item_ranks(self, sessions: DataFrame, history: DataFrame, ties: str) -> DataFrame:
        """See ``SessionModel``."""
        return gru_states.next_item_ranks(sessions, self.path, ties=ties, history=history, blend=self.blend)


def session_model(night: Night, card: ModelCard, part: str) -> SessionModel:
    """A part of a night's model of sessions."""
    if card.model == "gru":
        return GruModel(gru_path(night, part))
    return hybrid_model(night, card, part) if card.model == "session_hybrid" else neighbour_model(night, card, part)


def gru_path(night: Night, part: str) -> str:
    """The folder of a part of the night's GRU."""
    return part_path(night.warehouse, "gru", night.run_date, part)


def hybrid_model(night: Night, card: ModelCard, part: str) -> HybridModel:
    """The same part of the night's GRU and session neighbours, together."""
    near = neighbour_model(night, card, part)
    settings = night.config.session_hybrid
    return HybridModel(gru_path(night, part), SessionHybrid.build(near.sessions, near.config, settings))


def neighbour_model(night: Night, card: ModelCard, part: str) -> NeighbourModel:
    """A part of a night's session neighbours."""
    path = part_path(night.warehouse, "session_neighbours", night.run_date, part)
    rows, _ = session_neighbours.load_session_neighbours(night.spark, path)
    return NeighbourModel(session_neighbours.trained_sessions(rows, card.n_items), night.config.session_neighbours)


def next_product_metrics(
    night: Night, card: ModelCard, part: str, baskets: DataFrame, pairs: DataFrame, ks: Sequence[int]
) -> list[MetricValue]:
    """Metrics of a model's lists at guessing the next products of baskets.

    Args:
        night: The night.
        card: A model whose lists are for items (asked what goes with the product before) or for baskets (shown all
            that is in the basket by then).
        part: Its part.
        baskets: ``(session_id string, items array<int>)``, items in order.
        pairs: Their ``next_products``.
        ks: Lengths of the lists.
    """
    path, k = part_path(night.warehouse, card.model, night.run_date, part), max(ks)
    if KINDS[card.model].lists is Lists.ITEMS:
        settings, (vectors, contexts) = night.config.topk, stored_embeddings(path)
        lists = nearest(night.spark, vectors, k=k, among=contexts, block_mb=settings.block_mb, pass_mb=settings.pass_mb)
        return basket_metrics(lists, pairs, ks)[ALL]
    cases = prefixes(baskets.withColumnRenamed(SESSION_ID, BASKET_ID)).persist(StorageLevel.MEMORY_AND_DISK)
    lists = complete(cases, load_rules(night.spark, path).rules, key=CASE, k=k).persist(StorageLevel.MEMORY_AND_DISK)
    values = completion_metrics(lists, cases, ks, card.n_items)
    for frame in (lists, cases):
        frame.unpersist()
    return values
