"""The session-parallel GRU in a night: trained on Horovod workers fed by Petastorm, served by its states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparkrec.errors import NothingToTrain
from sparkrec.models.gru import states
from sparkrec.models.gru import train as gru
from sparkrec.models.night import Inputs, Night
from sparkrec.models.parts import (
    Part,
    PartStarts,
    epochs,
    index_size,
    model_cutoff,
    pretrained_part,
    require_model,
    sessions_of,
    snapshot,
    train_parts,
)
from sparkrec.models.program import Program
from sparkrec.models.scorer import Wanted
from sparkrec.ranks.item_vectors import write_item_vectors
from sparkrec.retrieval.best import best
from sparkrec.retrieval.block_search import ItemMatrix
from sparkrec.retrieval.topk import VECTOR
from sparkrec.settings.config import Config
from sparkrec.settings.formats import LogFormat
from sparkrec.warehouse.cards import ModelCard, part_path
from sparkrec.warehouse.ledger import StageResult
from sparkrec.warehouse.tables import INTERACTIONS, ITEM_INDEX, ITEM_VECTORS, SESSION_ID, SESSIONS, USER_INDEX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


PRETRAINED = "prod2vec"  # whose vectors of the items the embeddings begin with, where asked for


def train(night: Night, inputs: Inputs) -> StageResult:
    """The session-parallel GRU, on Horovod workers fed by Petastorm."""
    config, cutoff = night.config, model_cutoff(night, inputs, "gru")
    n_items = index_size(inputs, ITEM_INDEX)
    starts = PartStarts.of(night, inputs, "gru", cutoff)

    def train_part(part: Part, path: str, meta: dict[str, Any]) -> str:
        plan = gru.snapshot_rows(sessions_of(night, inputs, part), config.gru)
        manifest = snapshot(night, "gru", part, inputs, plan.rows, plan.group, plan.order, n_slots=config.gru.lanes)
        if not manifest.rows:
            raise NothingToTrain(
                f"no sessions to train the GRU on ({part.name})", fix="see prepare.sessions, prepare.support"
            )
        if config.gru.features:
            vectors = inputs.read(ITEM_VECTORS) if inputs.has(ITEM_VECTORS) else None
            write_item_vectors(vectors, manifest.path, config.gru.features, "gru.features")
        first = starts.path(part)
        begun = None if config.gru.pretrained == "none" else pretrained_part(night, PRETRAINED, part, cutoff)
        note = epochs(night, gru.train, (manifest.path, path, config.gru, config.train, n_items, meta, first, begun))
        return note + starts.note(part)

    return train_parts(night, starts.inputs, "gru", train_part, cutoff, starts.warm_start)


@dataclass(frozen=True)
class GruSessions:
    """The session-parallel GRU in a folder, as a ``SessionModel``."""

    path: str

    @property
    def trained(self) -> npt.NDArray[np.bool_]:
        """See ``SessionModel``."""
        return states.trained_items(self.path)

    @property
    def items(self) -> ItemMatrix:
        """The output vectors of the items."""
        return ItemMatrix(*states.output_items(self.path), self.trained)

    def next_item_ranks(self, sessions: DataFrame, history: DataFrame, ties: str) -> DataFrame:
        """See ``SessionModel``."""
        return states.next_item_ranks(sessions, self.path, ties=ties, history=history)

    def queries(self, sessions: DataFrame, history: DataFrame) -> DataFrame:
        """The sessions with the state after their last event as ``vector``."""
        walked = states.session_states(sessions, self.path, history)
        return walked.select(SESSION_ID, VECTOR).join(sessions, SESSION_ID, "inner")

    def lists(self, sessions: DataFrame, history: DataFrame, wanted: Wanted) -> tuple[DataFrame, str]:
        """See ``SessionModel``."""
        queries = self.queries(sessions, history)
        return best(queries, self.items.without(wanted.excluded), wanted.settings, wanted.key, "gru", wanted.seen)


def session_model(night: Night, card: ModelCard, part: str) -> GruSessions:
    """A part of the night's GRU."""
    return GruSessions(part_path(night.warehouse, card.model, night.run_date, part))


def check(config: Config, _: LogFormat) -> None:
    """Refuses vectors to begin with that the night does not train."""
    if config.gru.pretrained != "none":
        require_model(config, PRETRAINED, f"gru.pretrained={config.gru.pretrained}", "set gru.pretrained=none")


PROGRAM = Program(
    train=train,
    reads=(INTERACTIONS, SESSIONS, USER_INDEX, ITEM_INDEX),
    optional=(ITEM_VECTORS,),
    depends=lambda night: (night.fmt.session_events,),
    models=lambda config: [] if config.gru.pretrained == "none" else [PRETRAINED],
    check=check,
    numbered_by=(ITEM_INDEX,),
    session_model=session_model,
)
