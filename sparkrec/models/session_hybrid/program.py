"""The hybrid of a night's GRU and session neighbours: there is nothing to learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparkrec.models import gru
from sparkrec.models.gru import states
from sparkrec.models.gru.program import GruSessions
from sparkrec.models.night import Inputs, Night
from sparkrec.models.parts import Part, require_parts, train_parts
from sparkrec.models.program import Program
from sparkrec.models.scorer import Wanted
from sparkrec.models.session_hybrid import MODEL
from sparkrec.models.session_hybrid.blend import SessionHybrid, save_session_hybrid, session_hybrid_lists
from sparkrec.models.session_neighbours import program as session_neighbours
from sparkrec.warehouse.cards import ModelCard, part_path
from sparkrec.warehouse.ledger import StageResult
from sparkrec.warehouse.tables import INTERACTIONS, ITEM_INDEX, USER_INDEX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def train(night: Night, inputs: Inputs) -> StageResult:
    """How the GRU and the session neighbours of the night go together; there is nothing to learn."""

    def train_part(part: Part, path: str, meta: dict[str, Any]) -> str:
        require_parts(night, MODEL.needs, part.name)
        save_session_hybrid(path, meta)
        return ""

    return train_parts(night, inputs, MODEL.name, train_part)


@dataclass(frozen=True)
class HybridSessions:
    """The GRU in a folder, and the sessions that were alike, as a ``SessionModel``."""

    gru: GruSessions
    blend: SessionHybrid

    @property
    def trained(self) -> npt.NDArray[np.bool_]:
        """See ``SessionModel``: the GRU's."""
        return self.gru.trained

    def next_item_ranks(self, sessions: DataFrame, history: DataFrame, ties: str) -> DataFrame:
        """See ``SessionModel``."""
        return states.next_item_ranks(sessions, self.gru.path, ties=ties, history=history, blend=self.blend)

    def lists(self, sessions: DataFrame, history: DataFrame, wanted: Wanted) -> tuple[DataFrame, str]:
        """See ``SessionModel``."""
        rows = session_hybrid_lists(
            self.gru.queries(sessions, history), self.gru.items, self.blend, key=wanted.key, k=wanted.k,
            without=wanted.excluded, block_mb=wanted.settings.block_mb,
        )  # fmt: skip
        return rows, ""


def session_model(night: Night, card: ModelCard, part: str) -> HybridSessions:
    """The same part of the night's GRU and session neighbours, together."""
    near = session_neighbours.session_model(night, card, part)
    blend = SessionHybrid.build(near.sessions, near.config, night.config.session_hybrid)
    return HybridSessions(GruSessions(part_path(night.warehouse, gru.MODEL.name, night.run_date, part)), blend)


PROGRAM = Program(
    train=train,
    reads=(INTERACTIONS, USER_INDEX, ITEM_INDEX),
    depends=lambda night: (night.fmt.session_events, night.config.prepare.sessions),
    session_model=session_model,
)
