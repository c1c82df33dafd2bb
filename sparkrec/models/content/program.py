"""Content-based lists in a night: the items' vectors; what a user took turns them into lists when these are made."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sparkrec.models.content.vectors import content_matrix, load_content, profiles, save_content
from sparkrec.models.night import Inputs, Night
from sparkrec.models.parts import Part, index_size, require_vectors, train_parts
from sparkrec.models.program import Program
from sparkrec.models.scorer import DenseScorer
from sparkrec.warehouse.cards import ModelCard, part_path
from sparkrec.warehouse.ledger import StageResult
from sparkrec.warehouse.tables import INTERACTIONS, ITEM_INDEX, ITEM_VECTORS, USER_INDEX


def train(night: Night, inputs: Inputs) -> StageResult:
    """The items' vectors; what a user took turns them into lists when these are made."""
    config = night.config.content
    items = content_matrix(inputs.read(ITEM_VECTORS), config.vectors, index_size(inputs, ITEM_INDEX))

    def train_part(part: Part, path: str, meta: dict[str, Any]) -> str:
        save_content(items, path, meta)
        return f"{len(items.positions())} items"

    return train_parts(night, inputs, "content", train_part)


def scorer(night: Night, inputs: Inputs, card: ModelCard, part: str, as_of: datetime) -> DenseScorer:
    """What users took until the time, the later the more, against the items' vectors."""
    items = load_content(part_path(night.warehouse, card.model, night.run_date, part))
    half_life, weights = night.config.content.half_life_days, night.fmt.event_weights
    return DenseScorer(profiles(inputs.read(INTERACTIONS), items, half_life, weights, as_of), items)


PROGRAM = Program(
    train=train,
    reads=(INTERACTIONS, ITEM_VECTORS, USER_INDEX, ITEM_INDEX),
    check=lambda config, fmt: require_vectors("content", config.prepare, fmt),
    scorer=scorer,
)
