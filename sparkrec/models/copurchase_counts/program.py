"""Counts of what is bought together in a night: pairs by Spark, lists beside items, and candidates for the hybrid."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from sparkrec.errors import NothingToTrain
from sparkrec.models.copurchase_counts.counts import pair_scores
from sparkrec.models.neighbours.nearest import load_neighbours, profiles, save_neighbours, similar
from sparkrec.models.neighbours.scorer import ItemNeighbourScorer
from sparkrec.models.night import Inputs, Night
from sparkrec.models.parts import Part, index_size, sequences_of, train_parts
from sparkrec.models.program import Program
from sparkrec.retrieval.block_search import IntArray
from sparkrec.warehouse.cards import ModelCard, part_path
from sparkrec.warehouse.ledger import StageResult
from sparkrec.warehouse.tables import COPURCHASE, INTERACTIONS, ITEM_IDX, ITEM_INDEX, SESSIONS, USER_INDEX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def train(night: Night, inputs: Inputs) -> StageResult:
    """The pairs that stand close to each other, counted by Spark."""
    config = night.config.copurchase_counts

    def train_part(part: Part, path: str, meta: dict[str, Any]) -> str:
        sequences = sequences_of(night, inputs, part, config.sequences)
        save_neighbours(pair_scores(sequences, config), path, meta)
        pairs, _ = load_neighbours(night.spark, path, ITEM_IDX)
        n = pairs.count()
        if not n:
            fix = "check prepare.baskets and purchase_events, or copurchase_counts.sequences=sessions"
            raise NothingToTrain("no two items stand together", where=config.sequences, fix=fix)
        return f"{n} partners of items"

    return train_parts(night, inputs, "copurchase_counts", train_part)


def partners(night: Night, card: ModelCard, part: str, k: int, excluded: IntArray | None) -> DataFrame:
    """What stands most often beside each item, without items that no list may hold."""
    path = part_path(night.warehouse, card.model, night.run_date, part)
    return similar(load_neighbours(night.spark, path, ITEM_IDX)[0], k, excluded)


def scorer(night: Night, inputs: Inputs, card: ModelCard, part: str, as_of: datetime) -> ItemNeighbourScorer:
    """What goes with the items that users took until the time, the later the more: the hybrid's candidates."""
    path = part_path(night.warehouse, card.model, night.run_date, part)
    pairs, _ = load_neighbours(night.spark, path, ITEM_IDX)
    half_life = night.config.copurchase_counts.half_life_days
    taken = profiles(inputs.read(INTERACTIONS), night.fmt.event_weights, as_of, half_life)
    return ItemNeighbourScorer(pairs, taken, index_size(inputs, ITEM_INDEX))


def _depends(night: Night) -> tuple[Any, ...]:
    return (night.fmt.session_events, night.fmt.purchase_events)


PROGRAM = Program(
    train=train,
    reads=(INTERACTIONS, SESSIONS, COPURCHASE, USER_INDEX, ITEM_INDEX),
    depends=_depends,
    scorer=scorer,
    partners=partners,
)
