"""The training stages of the neighbourhood models and of the content-based lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from sparkrec.models.content.vectors import content_matrix, save_content
from sparkrec.models.neighbours.nearest import item_neighbours, save_neighbours, user_neighbours
from sparkrec.models.session_hybrid.blend import save_session_hybrid
from sparkrec.models.session_neighbours.nearest import save_session_neighbours
from sparkrec.pipeline.night import Inputs, Night
from sparkrec.pipeline.parts import (
    Part,
    index_size,
    model_cutoff,
    require_parts,
    sessions_of,
    train_parts,
    user_item_of,
)
from sparkrec.warehouse.ledger import StageResult
from sparkrec.warehouse.tables import CONFIDENCE, ITEM_INDEX, ITEM_VECTORS, USER_INDEX

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def run_train_item_neighbours(night: Night, inputs: Inputs) -> StageResult:
    """The items whose users are alike, by Spark."""
    return _train_neighbours(night, inputs, "item_neighbours", item_neighbours)


def run_train_user_neighbours(night: Night, inputs: Inputs) -> StageResult:
    """The users whose items are alike, by Spark."""
    return _train_neighbours(night, inputs, "user_neighbours", user_neighbours)


def run_train_session_neighbours(night: Night, inputs: Inputs) -> StageResult:
    """The sessions that later ones are held against."""

    def train(part: Part, path: str, meta: dict[str, Any]) -> str:
        save_session_neighbours(sessions_of(night, inputs, part), path, meta)
        return ""

    model = "session_neighbours"
    return train_parts(night, inputs, model, night.config.session_neighbours, model_cutoff(night, inputs, model), train)


def run_train_session_hybrid(night: Night, inputs: Inputs) -> StageResult:
    """How the GRU and the session neighbours of the night go together; there is nothing to learn."""

    def train(part: Part, path: str, meta: dict[str, Any]) -> str:
        require_parts(night, ("gru", "session_neighbours"), part.name)
        save_session_hybrid(path, meta)
        return ""

    model = "session_hybrid"
    return train_parts(night, inputs, model, night.config.session_hybrid, model_cutoff(night, inputs, model), train)


def run_train_content(night: Night, inputs: Inputs) -> StageResult:
    """The items' vectors; what a user took turns them into lists when these are made."""
    config = night.config.content
    items = content_matrix(inputs.read(ITEM_VECTORS), config.vectors, index_size(inputs, ITEM_INDEX))

    def train(part: Part, path: str, meta: dict[str, Any]) -> str:
        save_content(items, path, meta)
        return f"{len(items.positions())} items"

    return train_parts(night, inputs, "content", config, model_cutoff(night, inputs, "content"), train)


def _train_neighbours(
    night: Night, inputs: Inputs, model: str, fit: Callable[[DataFrame, int, int, Any], DataFrame]
) -> StageResult:
    config = getattr(night.config, model)
    n_users, n_items = index_size(inputs, USER_INDEX), index_size(inputs, ITEM_INDEX)

    def train(part: Part, path: str, meta: dict[str, Any]) -> str:
        matrix = user_item_of(night, inputs, part, config.fit_half_life_days)
        if config.binary:
            matrix = matrix.withColumn(CONFIDENCE, F.lit(1.0).cast("float"))
        save_neighbours(fit(matrix, n_users, n_items, config), path, meta)
        return ""

    return train_parts(night, inputs, model, config, model_cutoff(night, inputs, model), train)
