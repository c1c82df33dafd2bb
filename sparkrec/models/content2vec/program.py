"""content2vec in a night: the items' content combined with the night's prod2vec, on Horovod workers."""

from __future__ import annotations

from typing import Any

from sparkrec.models.content2vec import MODEL
from sparkrec.models.content2vec import train as content2vec
from sparkrec.models.night import Inputs, Night
from sparkrec.models.parts import Part, epochs, index_size, require_parts, require_vectors, sequences_of, train_parts
from sparkrec.models.prod2vec.embeddings import stored_embeddings
from sparkrec.models.prod2vec.program import sequence_events, sequence_snapshot
from sparkrec.models.program import Program
from sparkrec.ranks.item_vectors import write_item_vectors
from sparkrec.warehouse.cards import part_path
from sparkrec.warehouse.ledger import StageResult
from sparkrec.warehouse.tables import COPURCHASE, INTERACTIONS, ITEM_INDEX, ITEM_VECTORS, SESSIONS, USER_INDEX


def train(night: Night, inputs: Inputs) -> StageResult:
    """The items' content combined with the night's prod2vec, on Horovod workers fed by Petastorm."""
    config, n_items = night.config.content2vec, index_size(inputs, ITEM_INDEX)

    def train_part(part: Part, path: str, meta: dict[str, Any]) -> str:
        require_parts(night, MODEL.needs, part.name)
        sequences = sequences_of(night, inputs, part, night.config.prod2vec.sequences)
        where = sequence_snapshot(night, inputs, MODEL.name, part, sequences)
        names = write_item_vectors(inputs.read(ITEM_VECTORS), where, config.vectors, "content2vec.vectors")
        behaviour = part_path(night.warehouse, "prod2vec", night.run_date, part.name)
        return epochs(
            night, content2vec.train, (where, path, config, night.config.train, n_items, meta, behaviour, names)
        )

    return train_parts(night, inputs, MODEL.name, train_part)


PROGRAM = Program(
    train=train,
    reads=(INTERACTIONS, ITEM_VECTORS, SESSIONS, COPURCHASE, USER_INDEX, ITEM_INDEX),
    depends=lambda night: (night.config.prod2vec.sequences, *sequence_events(night)),
    check=lambda config, fmt: require_vectors("content2vec", config.prepare, fmt),
    embeddings=stored_embeddings,
)
