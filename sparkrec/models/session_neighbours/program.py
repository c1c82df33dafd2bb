"""Session-based neighbours in a night: the sessions that later ones are held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparkrec.models.night import Inputs, Night
from sparkrec.models.parts import Part, sessions_of, train_parts
from sparkrec.models.program import Program
from sparkrec.models.scorer import Wanted
from sparkrec.models.session_neighbours import MODEL, nearest
from sparkrec.models.session_neighbours.settings import SessionNeighboursConfig
from sparkrec.models.session_neighbours.votes import TrainedSessions
from sparkrec.warehouse.cards import ModelCard, part_path
from sparkrec.warehouse.ledger import StageResult
from sparkrec.warehouse.tables import INTERACTIONS, ITEM_INDEX, SESSIONS, USER_INDEX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def train(night: Night, inputs: Inputs) -> StageResult:
    """The sessions that later ones are held against."""

    def train_part(part: Part, path: str, meta: dict[str, Any]) -> str:
        nearest.save_session_neighbours(sessions_of(night, inputs, part), path, meta)
        return ""

    return train_parts(night, inputs, MODEL.name, train_part)


@dataclass(frozen=True)
class NeighbourSessions:
    """The sessions that were alike, as a ``SessionModel``."""

    sessions: TrainedSessions
    config: SessionNeighboursConfig

    @property
    def trained(self) -> npt.NDArray[np.bool_]:
        """See ``SessionModel``."""
        return self.sessions.trained

    def next_item_ranks(self, sessions: DataFrame, history: DataFrame, ties: str) -> DataFrame:
        """See ``SessionModel``; the history plays no part: the trained sessions do."""
        return nearest.next_item_ranks(sessions, self.sessions, self.config, ties, own_items=self.config.own_items)

    def lists(self, sessions: DataFrame, history: DataFrame, wanted: Wanted) -> tuple[DataFrame, str]:
        """See ``SessionModel``."""
        rows = nearest.session_neighbour_lists(
            sessions, self.sessions, self.config, key=wanted.key, k=wanted.k, without=wanted.excluded,
            own_items=self.config.own_items, block_mb=wanted.settings.block_mb,
        )  # fmt: skip
        return rows, ""


def session_model(night: Night, card: ModelCard, part: str) -> NeighbourSessions:
    """A part of the night's session neighbours; ``card`` may be that of a model which builds on them."""
    path = part_path(night.warehouse, MODEL.name, night.run_date, part)
    rows, _ = nearest.load_session_neighbours(night.spark, path)
    return NeighbourSessions(nearest.trained_sessions(rows, card.n_items), night.config.session_neighbours)


PROGRAM = Program(
    train=train,
    reads=(INTERACTIONS, SESSIONS, USER_INDEX, ITEM_INDEX),
    depends=lambda night: (night.fmt.session_events,),
    session_model=session_model,
)
