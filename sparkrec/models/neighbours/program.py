"""Item-based and user-based neighbours in a night: found by Spark, asked with what users took until then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from sparkrec.models.neighbours.nearest import (
    item_neighbours,
    load_neighbours,
    profiles,
    save_neighbours,
    user_neighbours,
)
from sparkrec.models.neighbours.scorer import ItemNeighbourScorer, UserNeighbourScorer
from sparkrec.models.night import Inputs, Night
from sparkrec.models.parts import Part, index_size, train_parts, user_item_of
from sparkrec.models.program import Program
from sparkrec.prepare.user_item import user_item
from sparkrec.warehouse.cards import ModelCard, part_path
from sparkrec.warehouse.ledger import StageResult
from sparkrec.warehouse.tables import CONFIDENCE, INTERACTIONS, ITEM_IDX, ITEM_INDEX, USER_IDX, USER_INDEX, USER_ITEM

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def train_items(night: Night, inputs: Inputs) -> StageResult:
    """The items whose users are alike, by Spark."""
    return _train(night, inputs, "item_neighbours", item_neighbours)


def train_users(night: Night, inputs: Inputs) -> StageResult:
    """The users whose items are alike, by Spark."""
    return _train(night, inputs, "user_neighbours", user_neighbours)


def item_scorer(night: Night, inputs: Inputs, card: ModelCard, part: str, as_of: datetime) -> ItemNeighbourScorer:
    """The kept neighbours, and what users took until the time, the later the more."""
    path = part_path(night.warehouse, card.model, night.run_date, part)
    neighbours, _ = load_neighbours(night.spark, path, ITEM_IDX)
    half_life, weights = night.config.item_neighbours.half_life_days, night.fmt.event_weights
    taken = profiles(inputs.read(INTERACTIONS), weights, as_of, half_life)
    return ItemNeighbourScorer(neighbours, taken, index_size(inputs, ITEM_INDEX))


def user_scorer(night: Night, inputs: Inputs, card: ModelCard, part: str, as_of: datetime) -> UserNeighbourScorer:
    """The kept neighbours, and what they took until the time, the later the more."""
    path = part_path(night.warehouse, card.model, night.run_date, part)
    neighbours, _ = load_neighbours(night.spark, path, USER_IDX)
    half_life = night.config.user_neighbours.half_life_days
    settings = replace(night.config.prepare.user_item, half_life_days=half_life)
    taken = user_item(inputs.read(INTERACTIONS), settings, night.fmt.event_weights, as_of)
    n_users, n_items = index_size(inputs, USER_INDEX), index_size(inputs, ITEM_INDEX)
    return UserNeighbourScorer(neighbours, taken, n_items, n_users=n_users)


def _train(
    night: Night, inputs: Inputs, model: str, fit: Callable[[DataFrame, int, int, Any], DataFrame]
) -> StageResult:
    config = getattr(night.config, model)
    n_users, n_items = index_size(inputs, USER_INDEX), index_size(inputs, ITEM_INDEX)

    def train_part(part: Part, path: str, meta: dict[str, Any]) -> str:
        matrix = user_item_of(night, inputs, part, config.fit_half_life_days)
        if config.binary:
            matrix = matrix.withColumn(CONFIDENCE, F.lit(1.0).cast("float"))
        save_neighbours(fit(matrix, n_users, n_items, config), path, meta)
        return ""

    return train_parts(night, inputs, model, train_part)


_READS = (INTERACTIONS, USER_ITEM, USER_INDEX, ITEM_INDEX)
ITEM_PROGRAM = Program(
    train=train_items, reads=_READS, scorer=item_scorer, prior=lambda prior: (prior.item_neighbours, 0.0)
)
USER_PROGRAM = Program(train=train_users, reads=_READS, scorer=user_scorer)
