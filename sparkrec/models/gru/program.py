"""The session-parallel GRU in a night: trained on Horovod workers fed by Petastorm, served by its states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pyspark.sql import functions as F

from sparkrec.errors import NothingToTrain, UserError
from sparkrec.models.gru import states
from sparkrec.models.gru import train as gru
from sparkrec.models.night import Inputs, Night
from sparkrec.models.parts import (
    Part,
    PartStarts,
    Training,
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
from sparkrec.prepare.features import coded_types
from sparkrec.ranks.checkpoint import read_model
from sparkrec.ranks.item_vectors import write_item_vectors
from sparkrec.retrieval.best import best
from sparkrec.retrieval.block_search import ItemMatrix
from sparkrec.retrieval.topk import VECTOR
from sparkrec.settings.config import Config
from sparkrec.settings.formats import LogFormat
from sparkrec.warehouse.cards import ModelCard, part_path
from sparkrec.warehouse.ledger import StageResult
from sparkrec.warehouse.tables import (
    EVENT_TYPES,
    FEATURE,
    FEATURE_INDEX,
    IDX,
    INTERACTIONS,
    ITEM_INDEX,
    ITEM_VECTORS,
    SESSION_ID,
    SESSIONS,
    TYPE_FEATURE,
    USER_INDEX,
    VALUE,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


PRETRAINED = "prod2vec"  # whose vectors of the items the embeddings begin with, where asked for


def train(night: Night, inputs: Inputs) -> StageResult:
    """The session-parallel GRU, on Horovod workers fed by Petastorm."""
    config, cutoff = night.config, model_cutoff(night, inputs, "gru")
    n_items = index_size(inputs, ITEM_INDEX)
    starts = PartStarts.of(night, inputs, "gru", cutoff)

    types = event_types(inputs) if config.gru.event_types else {}

    def train_part(part: Part, path: str, meta: dict[str, Any]) -> Training:
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
        settings = (config.gru, config.train, n_items, meta)

        def note() -> str:
            return (_said_of_types(path) if types else "") + starts.note(part)

        return Training(gru.train, (manifest.path, path, *settings, first, begun, types), note)

    return train_parts(night, starts.inputs, "gru", train_part, cutoff, starts.warm_start)


def event_types(inputs: Inputs) -> dict[str, int]:
    """The codes of the types of events that make sessions.

    Raises:
        UserError: The sessions have none: an earlier version of the package prepared them.
    """
    codes = inputs.read(FEATURE_INDEX).where(F.col(FEATURE) == TYPE_FEATURE).select(VALUE, IDX).collect()
    if not codes or not inputs.read(SESSIONS).where(F.col(EVENT_TYPES).isNull()).isEmpty():
        fix = f"run sparkrec nightly --run-date {inputs.night.run_date} --from index"
        raise UserError("sessions without types of events", where="gru.event_types=true", fix=fix)
    return {row[VALUE]: row[IDX] for row in codes}


def _said_of_types(path: str) -> str:
    """What the ledger says of a model that learnt from events of one type."""
    seen = sum(n > 0 for n in read_model(path)["events_of_types"])
    return "" if seen > 1 else ", gru.event_types has no effect: all events are of one type"


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


def check(config: Config, fmt: LogFormat) -> None:
    """Refuses vectors to begin with that the night does not train, and types of events where there is one."""
    if config.gru.event_types and not coded_types(fmt.session_events):
        where = f"gru.event_types=true, session_events={list(fmt.session_events)}"
        fix = "set gru.event_types=false, or name more types in session_events of the format"
        raise UserError("sessions are of one type of events, which tells nothing", where=where, fix=fix)
    if config.gru.pretrained != "none":
        require_model(config, PRETRAINED, f"gru.pretrained={config.gru.pretrained}", "set gru.pretrained=none")


PROGRAM = Program(
    train=train,
    reads=(INTERACTIONS, SESSIONS, USER_INDEX, ITEM_INDEX),
    optional=(ITEM_VECTORS, FEATURE_INDEX),
    depends=lambda night: (night.fmt.session_events,),
    models=lambda config: [] if config.gru.pretrained == "none" else [PRETRAINED],
    check=check,
    numbered_by=(ITEM_INDEX,),
    session_model=session_model,
)
