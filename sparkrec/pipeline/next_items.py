"""The models of sessions, baskets and items as the evaluation and the lists use them: what comes next, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from sparkrec.config import SessionNeighboursConfig
from sparkrec.models import session_neighbours
from sparkrec.models.session_neighbours import TrainedSessions
from sparkrec.pipeline.models import ModelCard, part_path
from sparkrec.pipeline.night import Night
from sparkrec.retrieval import gru_states

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
        """See ``SessionModel``; earlier sessions of the same users play no part."""
        return session_neighbours.next_item_ranks(
            sessions, self.sessions, self.config, ties, own_items=self.config.own_items
        )


def session_model(night: Night, card: ModelCard, part: str) -> SessionModel:
    """A part of a night's model of sessions."""
    path = part_path(night.warehouse, card.model, night.run_date, part)
    if card.model == "gru":
        return GruModel(path)
    return neighbour_model(night, card, part)


def neighbour_model(night: Night, card: ModelCard, part: str) -> NeighbourModel:
    """A part of a night's session neighbours."""
    path = part_path(night.warehouse, card.model, night.run_date, part)
    rows, _ = session_neighbours.load_session_neighbours(night.spark, path)
    return NeighbourModel(session_neighbours.trained_sessions(rows, card.n_items), night.config.session_neighbours)


def next_product_ranks(night: Night, card: ModelCard, part: str, baskets: DataFrame, k: int) -> DataFrame:
    """``(rank double)`` of each next product of the baskets; where no list of length k holds it, a rank beyond any list.

    Args:
        night: The night.
        card: A model whose lists are for items or for baskets.
        part: Its part.
        baskets: ``(session_id string, items array<int>)``, items in order.
        k: Length of the lists that are looked at.
    """
    path = part_path(night.warehouse, card.model, night.run_date, part)
    if KINDS[card.model].lists is Lists.ITEMS:
        settings = night.config.topk
        lists = nearest(night.spark, stored_vectors(path), k=k, block_mb=settings.block_mb, pass_mb=settings.pass_mb)
        return product_ranks(lists, next_products(baskets), beyond=card.n_items + 1)
    cases = prefixes(baskets.withColumnRenamed(SESSION_ID, BASKET_ID), night.config.rules.max_basket_items)
    lists = complete(cases, load_rules(night.spark, path).rules, key=CASE, k=k)
    return case_ranks(lists, cases, beyond=card.n_items + 1)
